/* Stop a VM and start it again on this host; to clients it never stops running. vm-lifecycle 2.2,
 * reboot. */
#include "member/ops/ops_priv.h"

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
	VM_ASK,
	{ "domain.pause", 5, 0, vm_step_still, vm_undo_still },
	VM_END(0), /* a VM that is not made again is halted, and the task says why */
	{ "reboot", 0, 0, start_over, NULL },
	VM_HOOK("vm-pre-reboot"),
	VM_RESERVE,
	VM_HOOK("vm-pre-start"),
	VM_CREATE,
	VM_MAKE(vm_step_build),
	VM_RESET,
	VM_KEEP,
	VM_UNPAUSE,
};
/* clang-format on */

const struct op vm_reboot_op = { "VM.reboot", steps, ARRAY_LEN(steps), AGENT_ERR_cancelled };
