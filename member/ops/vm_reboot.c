/* Stop a VM and start it again on this host; to clients it never stops running. vm-lifecycle 2.2,
 * reboot. */
#include "member/agent_priv.h"

static int start_over(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	(void)err;
	run->skip = false; /* of the shutdown half: there is no domain now */
	return 0;
}

/* clang-format off */
static const struct op_step steps[] = {
	/* name, weight, flags, run, undo */
	{ "guest.ask",       5, 0,               vm_step_ask_guest,  vm_undo_ask_guest },
	{ "guest.wait",     30, 0,               vm_step_wait_guest, NULL              },
	{ "domain.pause",    5, 0,               vm_step_pause,      vm_undo_pause     },
	{ "domain.destroy",  5, 0,               vm_step_destroy,    NULL              },
	{ "reboot",          0, 0,               start_over,         NULL              },
	{ "domain.create",   5, 0,               vm_step_create,     vm_undo_create    },
	{ "domain.build",   40, 0,               vm_step_build,      NULL              },
	{ "domain.keep",     5, OP_COMMIT_POINT, vm_step_keep,       NULL              },
	{ "domain.unpause",  5, 0,               vm_step_unpause,    NULL              },
};
/* clang-format on */

const struct op vm_reboot_op = { "VM.reboot", steps, ARRAY_LEN(steps), AGENT_ERR_cancelled };
