/* The agents' part of a migration; who is right about a VM, the pool decides (vm-lifecycle 4).
 *
 *   sender    running --migrate_send--> leaving: the guest has suspended, its disks are given back
 *   receiver  nothing --migrate_receive--> coming: restored, paused, disks attached and not active
 *
 *   either --migrate_keep--> it runs here       either --migrate_drop--> nothing of it stays
 *
 * Leaving and coming are written into the domain itself and outlive the agent: until it is told
 * which, nobody runs, stops or repairs it (VM.stat undecided). Exactly one of both is told to keep
 * it, behind an entry of the pool's log, so the guest runs once. A simulated guest is small: its
 * image is the text of a call; what has gigabytes needs STREAM.open, and rounds while it runs.
 */
#include "member/ops/ops_priv.h"
#include "member/sr_priv.h"

#include <stdlib.h>
#include <string.h>

/* VM.migrate_send */

static int leave(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d;

	(void)job;
	if (!hv_domain_find(run->agent->hv, run->uuid, &d) || d.marked || d.shut_down ||
		d.moving != HV_STAYS)
		return err_set(err, AGENT_ERR_bad_power_state, "halted", "running", NULL);
	if (d.paused)
		return err_set(err, AGENT_ERR_bad_power_state, "paused", "running", NULL);
	run->domid = d.domid;
	run->memory_kib = d.target_kib;
	return hv_domain_move(run->agent->hv, d.domid, HV_LEAVING, run->task, err);
}

/* It may have more than there is room for where it goes. */
static int shrink(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	const struct val *most = val_get(&run->params, "memory_kib");

	if (most == NULL || most->i <= 0 || run->memory_kib <= most->i)
		return 0;
	return hv_domain_set_memory(run->agent->hv, run->domid, most->i, err) != 0
		       ? ERR_API
		       : vm_step_wait_memory(job, run, err);
}

/* It runs here again, with its disks. On failure it stays undecided, and the pool asks again. */
static int come_back(struct job *job, struct agent_run *run, struct err *err)
{
	struct err ignored = { 0 };

	if (vm_step_activate(job, run, err) != 0)
		return ERR_API;
	hv_domain_set_memory(run->agent->hv, run->domid, run->memory_kib, &ignored);
	err_fini(&ignored); /* there may be none left: it goes on with less */
	vm_undo_ask_suspend(job, run);
	return hv_domain_move(run->agent->hv, run->domid, HV_STAYS, "", err);
}

static void undo_leave(struct job *job, void *state)
{
	struct err ignored = { 0 };

	come_back(job, state, &ignored);
	err_fini(&ignored);
}

/* clang-format off */
static const struct op_step send_steps[] = {
	/* name, weight, flags, run, undo */
	VM_HOOK("vm-pre-migrate"),
	{ "domain.leave",      5, 0, leave,                undo_leave }, /* undoes all that follows, in its order */
	{ "memory.shrink",    10, 0, shrink,               NULL },
	{ "guest.ask",        10, 0, vm_step_ask_suspend,  NULL },
	{ "guest.wait",       50, 0, vm_step_wait_suspend, NULL },
	{ "disks.deactivate", 25, 0, vm_step_deactivate,   NULL },
};
/* clang-format on */

const struct op vm_migrate_send_op = { "VM.migrate_send", send_steps, ARRAY_LEN(send_steps),
	AGENT_ERR_cancelled };

int vm_migrate_image_call(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	const char *uuid = val_get_s(params, "uuid");
	struct buf image = { 0 };
	struct hv_domain d;
	int rc;

	if (!hv_domain_find(agent->hv, uuid, &d) || d.moving != HV_LEAVING || !d.shut_down ||
		strcmp(d.job, val_get_s(params, "job")) != 0)
		return err_set(err, AGENT_ERR_does_not_exist, "VM", uuid, NULL);
	rc = hv_domain_save(agent->hv, d.domid, &image, err);
	*out = val_map();
	if (rc == 0)
		val_map_push(&job->arena, out, "image",
			val_string(arena_strdup(&job->arena, buf_text(&image))));
	buf_fini(&image);
	return rc;
}

/* VM.migrate_receive */

static int take(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return vm_image_take(run, val_get_s(&run->params, "image"), err);
}

static int come(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return hv_domain_move(
		run->agent->hv, run->domid, HV_COMING, val_get_s(&run->params, "migration"), err);
}

/* clang-format off */
static const struct op_step receive_steps[] = {
	/* name, weight, flags, run, undo */
	{ "image.take", 5, 0, take, NULL },
	VM_RESERVE,
	VM_CREATE,
	VM_MAKE(vm_step_restore),
	{ "domain.come", 5, 0, come, NULL },
};
/* clang-format on */

const struct op vm_migrate_receive_op = { "VM.migrate_receive", receive_steps,
	ARRAY_LEN(receive_steps), AGENT_ERR_cancelled };

/* VM.migrate_keep, VM.migrate_drop: nothing to do when it is decided, or another migration has
 * begun meanwhile. */

static int find_moving(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d = { 0 };

	(void)job;
	(void)err;
	run->skip = !hv_domain_find(run->agent->hv, run->uuid, &d) || d.moving == HV_STAYS ||
		    strcmp(d.job, val_get_s(&run->params, "migration")) != 0;
	run->domid = d.domid;
	run->was_paused = d.paused;
	/* a migration that comes to nothing is none for hooks */
	run->quiet = d.moving == (run->method == AGENT_VM_migrate_keep ? HV_LEAVING : HV_COMING);
	return 0;
}

static int go(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	if (run->skip)
		return 0;
	if (run->was_paused)
		return hv_domain_unpause(run->agent->hv, run->domid, err);
	vm_undo_ask_suspend(job, run);
	return 0;
}

static int settle(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : hv_domain_move(run->agent->hv, run->domid, HV_STAYS, "", err);
}

/* clang-format off */
static const struct op_step keep_steps[] = {
	/* name, weight, flags, run, undo */
	{ "domain.find",     5, 0,               find_moving,      NULL             },
	{ "disks.activate", 30, 0,               vm_step_activate, vm_undo_activate },
	{ "domain.go",      60, OP_COMMIT_POINT, go,               NULL             },
	{ "domain.settle",   5, 0,               settle,           NULL             },
	VM_HOOK("vm-post-migrate"),
};

static const struct op_step drop_steps[] = {
	{ "domain.find", 5, OP_COMMIT_POINT, find_moving, NULL }, /* it is decided */
	VM_HOOK("vm-pre-shutdown"),
	VM_END(OP_FORWARD),
};
/* clang-format on */

const struct op vm_migrate_keep_op = { "VM.migrate_keep", keep_steps, ARRAY_LEN(keep_steps),
	AGENT_ERR_cancelled };
const struct op vm_migrate_drop_op = { "VM.migrate_drop", drop_steps, ARRAY_LEN(drop_steps),
	AGENT_ERR_cancelled };
