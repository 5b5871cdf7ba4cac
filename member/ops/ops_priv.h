/* The step tables of VMs: the parts of which they are put together.
 *
 * A table is rows of struct op_step (rpc/base/op.h); state is a struct agent_run. What each
 * operation that makes or ends a domain has to do is said once, here: a device class adds its step
 * to VM_MAKE and to VM_END, and whatever starts, resumes or stops a VM has it.
 *
 * A step must be safe to find half done: after a crash nothing is undone, and agent_check_state()
 * ends what is left (member/repair.c). So record first what there is to release.
 */
#pragma once

#include "agent/methods.h"
#include "member/agent_priv.h"

/* clang-format off */
/* name, weight, flags, run, undo */

/* Scripts of the administrator; the name is that of their folder. vm_hooks.c */
#define VM_HOOK(name) \
	{ name, 1, 0, vm_step_hook, NULL }

/* From nothing to a domain, built or restored, paused and marked; vm-lifecycle 2.2 start 2-5. */
#define VM_RESERVE \
	{ "memory.reserve",  5, 0, vm_step_reserve, NULL           }
#define VM_CREATE \
	{ "domain.create",   5, 0, vm_step_create,  vm_undo_create }
#define VM_MAKE(build) \
	{ "domain.build",   60, 0, build,           NULL           }, /* freed by vm_undo_create */ \
	{ "disks.attach",    5, 0, vm_step_attach,  vm_undo_attach }, \
	{ "vifs.plug",       5, 0, vm_step_vifs,    NULL           } /* they go with the domain */

/* A life begins: disks that are not persistent go back. Not when a VM is resumed or comes from
 * elsewhere, which goes on with its life. vdi_copy.c */
#define VM_RESET \
	{ "disks.fresh",  1, 0, vdi_step_fresh,  vdi_undo_reset }, \
	{ "disks.reset",  5, 0, vdi_step_reset,  NULL           }, \
	{ "disks.switch", 1, 0, vdi_step_switch, NULL           }

/* The disks are this domain's alone; it survives the agent from here on. */
#define VM_KEEP \
	{ "disks.activate",  5, 0,               vm_step_activate, vm_undo_attach }, \
	{ "domain.keep",     5, OP_COMMIT_POINT, vm_step_keep,    NULL }

/* Let it run. */
#define VM_UNPAUSE \
	{ "domain.unpause",  5, 0,               vm_step_unpause, NULL }

/* With timeout_s: the guest stops by itself. Hooks are told before, while they can still refuse. */
#define VM_ASK \
	VM_HOOK("vm-pre-shutdown"), \
	{ "guest.ask",       5, 0, vm_step_ask_guest,  vm_undo_ask_guest }, \
	{ "guest.wait",     30, 0, vm_step_wait_guest, NULL              }

/* Of a domain that is paused or has stopped nothing stays; vm-lifecycle 2.2 shutdown core 4-5. Disks
 * go last: what may still write is never without its lock. OP_FORWARD: nothing rests on it behind. */
#define VM_END(destroyed) \
	{ "domain.destroy", 10, destroyed, vm_step_destroy, NULL }, \
	{ "disks.release",   5, 0, vm_step_release, NULL }, \
	VM_HOOK("vm-post-destroy")
/* clang-format on */

/* The guest gives its processors back and can be saved. */
#define VM_STILL                                                                                   \
	{ "guest.ask", 5, 0, vm_step_ask_suspend, vm_undo_ask_suspend },                           \
	{                                                                                          \
		"guest.wait", 20, 0, vm_step_wait_suspend, NULL                                    \
	}

/* vm_hooks.c: the scripts of the hook that the step under way is named after. */
int vm_step_hook(struct job *job, void *state, struct err *err);
/* vm_start.c */
int vm_step_reserve(struct job *job, void *state, struct err *err);
int vm_step_create(struct job *job, void *state, struct err *err);
void vm_undo_create(struct job *job, void *state);
int vm_step_build(struct job *job, void *state, struct err *err);
int vm_step_keep(struct job *job, void *state, struct err *err);
int vm_step_unpause(struct job *job, void *state, struct err *err);
/* vm_disks.c */
int vm_step_attach(struct job *job, void *state, struct err *err);
int vm_step_activate(struct job *job, void *state, struct err *err);
void vm_undo_attach(struct job *job, void *state);
int vm_step_deactivate(struct job *job, void *state, struct err *err);
void vm_undo_activate(struct job *job, void *state);
int vm_step_release(struct job *job, void *state, struct err *err);
/* vm_vifs.c */
int vm_step_vifs(struct job *job, void *state, struct err *err);
/* vm_shutdown.c */
int vm_step_ask_guest(struct job *job, void *state, struct err *err);
void vm_undo_ask_guest(struct job *job, void *state);
int vm_step_wait_guest(struct job *job, void *state, struct err *err);
struct vm_patience {
	int64_t ack_s, total_s;		      /* seconds */
	const struct err_code *no_ack, *late; /* the latter's parameter: total_s */
};
/* Until the guest has stopped, or is gone. */
int vm_wait_stopped(
	struct job *job, struct agent_run *run, const struct vm_patience *p, struct err *err);
/* vm_limits.c */
/* Until the domain has what it is to have; no_balloon_cooperation. */
int vm_step_wait_memory(struct job *job, void *state, struct err *err);
/* vm_image.c */
int vm_step_ask_suspend(struct job *job, void *state, struct err *err);
/* A guest that has suspended goes on; it has not heard of it: it never will. */
void vm_undo_ask_suspend(struct job *job, void *state);
int vm_step_wait_suspend(struct job *job, void *state, struct err *err);
/* From run->image. */
int vm_step_restore(struct job *job, void *state, struct err *err);
/* The image from here on; there must be no domain. The text lives as long as the run. */
int vm_image_take(struct agent_run *run, const char *image, struct err *err);

/* vdi_copy.c: copies of "disks" of the request; run->state and run->fini are theirs. */
int vdi_step_take(struct job *job, void *state, struct err *err);
void vdi_undo_take(struct job *job, void *state);
int vdi_step_copy(struct job *job, void *state, struct err *err);
int vdi_step_show(struct job *job, void *state, struct err *err);
/* What the VM's disks are reset to, beside them; then they have it. */
int vdi_step_fresh(struct job *job, void *state, struct err *err);
int vdi_step_reset(struct job *job, void *state, struct err *err);
int vdi_step_switch(struct job *job, void *state, struct err *err);
void vdi_undo_reset(struct job *job, void *state);
/* At the end of the run, also of one that dies: locks go with their files. */
void vdi_copy_release(struct agent_run *run);

/* vm_shutdown.c */
int vm_step_still(struct job *job, void *state, struct err *err);
void vm_undo_still(struct job *job, void *state);
int vm_step_destroy(struct job *job, void *state, struct err *err);
