/* Stop a VM, with the guest's help (clean) or without. vm-lifecycle 2.2, poweroff. */
#include "member/ops/ops_priv.h"

#include <stdio.h>

enum { ACK_S = 60, LOOK_MS = 50 };

/* clang-format off */
static const struct op_step steps[] = {
	/* name, weight, flags, run, undo */
	VM_ASK,
	{ "domain.pause", 5, OP_COMMIT_POINT, vm_step_still, NULL },
	VM_END(OP_FORWARD),
};
/* clang-format on */

const struct op vm_shutdown_op = { "VM.shutdown", steps, ARRAY_LEN(steps), AGENT_ERR_cancelled };

/* With the guest's help? */
static bool asked(const struct agent_run *run)
{
	return val_get(&run->params, "timeout_s") != NULL;
}

/* Without its help when it does not give it. */
static bool forced(const struct agent_run *run)
{
	return agent_run_flag(run, "force");
}

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
	if (!asked(run) || (d.paused && forced(run)))
		return 0;
	if (d.paused)
		return err_set(err, AGENT_ERR_bad_power_state, "paused", "running", NULL);
	return hv_domain_ask(run->agent->hv, run->domid,
		run->method == AGENT_VM_reboot ? HV_REBOOT : HV_POWEROFF, err);
}

void vm_undo_ask_guest(struct job *job, void *state)
{
	struct agent_run *run = state;

	(void)job;
	if (!run->skip && asked(run) && !hv_domain_acknowledged(run->agent->hv, run->domid))
		hv_domain_withdraw(run->agent->hv, run->domid);
}

int vm_wait_stopped(
	struct job *job, struct agent_run *run, const struct vm_patience *p, struct err *err)
{
	uint64_t began = env_now_ms(job->env);
	int64_t ack_s = p->total_s < p->ack_s ? p->total_s : p->ack_s;
	struct hv_domain d;
	char seconds[24];
	int rc;

	for (;;) {
		uint64_t waited_ms = env_now_ms(job->env) - began;

		if (!hv_domain_find(run->agent->hv, run->uuid, &d) || d.shut_down)
			return 0;
		if (waited_ms >= (uint64_t)ack_s * 1000 &&
			!hv_domain_acknowledged(run->agent->hv, run->domid))
			return err_set(err, p->no_ack, NULL);
		if (waited_ms >= (uint64_t)p->total_s * 1000) {
			snprintf(seconds, sizeof seconds, "%lld", (long long)p->total_s);
			return err_set(err, p->late, seconds, NULL);
		}
		rc = job_sleep(job, LOOK_MS);
		if (rc != 0)
			return rc;
	}
}

int vm_step_wait_guest(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct vm_patience patience = { .ack_s = ACK_S,
		.no_ack = AGENT_ERR_no_shutdown_ack,
		.late = AGENT_ERR_shutdown_timeout };
	int rc;

	if (run->skip || !asked(run) || run->was_paused)
		return 0;
	patience.total_s = val_get(&run->params, "timeout_s")->i;
	rc = vm_wait_stopped(job, run, &patience, err);
	if (rc != ERR_API || !forced(run))
		return rc;
	err_fini(err);
	return 0;
}

/* At best: it is going to be destroyed. */
int vm_step_still(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct err ignored = { 0 };

	(void)job;
	(void)err;
	if (!run->skip)
		hv_domain_pause(run->agent->hv, run->domid, &ignored);
	err_fini(&ignored);
	return 0;
}

void vm_undo_still(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct err ignored = { 0 };

	(void)job;
	if (!run->skip && !run->was_paused)
		hv_domain_unpause(run->agent->hv, run->domid, &ignored);
	err_fini(&ignored);
}

int vm_step_destroy(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : hv_domain_destroy(run->agent->hv, run->domid, err);
}
