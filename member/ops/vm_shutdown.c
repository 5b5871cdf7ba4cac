/* Stop a VM, with the guest's help (clean) or without. vm-lifecycle 2.2, poweroff. */
#include "member/agent_priv.h"

#include <stdio.h>

enum { ACK_S = 60, LOOK_MS = 50 };

/* clang-format off */
static const struct op_step steps[] = {
	/* name, weight, flags, run, undo */
	{ "guest.ask",       5, 0,               vm_step_ask_guest,  vm_undo_ask_guest },
	{ "guest.wait",     80, 0,               vm_step_wait_guest, NULL              },
	{ "domain.pause",    5, OP_COMMIT_POINT, vm_step_pause,      NULL              },
	{ "domain.destroy", 10, 0,               vm_step_destroy,    NULL              },
};
/* clang-format on */

const struct op vm_shutdown_op = { "VM.shutdown", steps, ARRAY_LEN(steps), AGENT_ERR_cancelled };

int vm_step_ask_guest(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d;

	(void)job;
	run->skip = !hv_domain_find(run->agent->hv, run->uuid, &d);
	if (run->skip)
		return 0; /* stopped already */
	run->domid = d.domid;
	run->was_paused = d.paused;
	if (!run->clean)
		return 0;
	if (d.paused)
		return err_set(err, AGENT_ERR_bad_power_state, "paused", "running", NULL);
	return hv_domain_ask_shutdown(run->agent->hv, run->domid, false, err);
}

void vm_undo_ask_guest(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct err ignored = { 0 };

	(void)job;
	if (!run->skip && run->clean && !hv_domain_acknowledged(run->agent->hv, run->domid))
		hv_domain_ask_shutdown(run->agent->hv, run->domid, true, &ignored);
	err_fini(&ignored);
}

int vm_step_wait_guest(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	uint64_t began = env_now_ms(job->env);
	int64_t ack_s = run->timeout_s < ACK_S ? run->timeout_s : ACK_S;
	struct hv_domain d;
	char seconds[24];
	int rc;

	while (run->clean && !run->skip) {
		uint64_t waited_ms = env_now_ms(job->env) - began;

		if (!hv_domain_find(run->agent->hv, run->uuid, &d) || d.shut_down)
			break;
		if (waited_ms >= (uint64_t)ack_s * 1000 &&
			!hv_domain_acknowledged(run->agent->hv, run->domid))
			return err_set(err, AGENT_ERR_no_shutdown_ack, NULL);
		if (waited_ms >= (uint64_t)run->timeout_s * 1000) {
			snprintf(seconds, sizeof seconds, "%lld", (long long)run->timeout_s);
			return err_set(err, AGENT_ERR_shutdown_timeout, seconds, NULL);
		}
		rc = job_sleep(job, LOOK_MS);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int vm_step_pause(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : hv_domain_pause(run->agent->hv, run->domid, true, err);
}

void vm_undo_pause(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct err ignored = { 0 };

	(void)job;
	if (!run->skip && !run->was_paused)
		hv_domain_pause(run->agent->hv, run->domid, false, &ignored);
	err_fini(&ignored);
}

int vm_step_destroy(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : hv_domain_destroy(run->agent->hv, run->domid, err);
}
