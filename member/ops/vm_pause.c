/* Stop scheduling a domain, and let it run on. vm-lifecycle 1.2. */
#include "member/ops/ops_priv.h"

/* The domain, to be changed from one state into the other; it is in that already: nothing to do. */
static int find(struct agent_run *run, bool paused, struct err *err)
{
	struct hv_domain d;

	if (!hv_domain_find(run->agent->hv, run->uuid, &d))
		return err_set(err, AGENT_ERR_bad_power_state, "halted",
			paused ? "running" : "paused", NULL);
	run->domid = d.domid;
	run->was_paused = d.paused;
	run->skip = d.paused == paused;
	return 0;
}

static int find_running(struct job *job, void *state, struct err *err)
{
	(void)job;
	return find(state, true, err);
}

static int find_paused(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	agent_unhold(run->agent, run->uuid); /* whoever wants it to run has the last word */
	return find(state, false, err);
}

static int pause_domain(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : hv_domain_pause(run->agent->hv, run->domid, err);
}

static const struct op_step pause_steps[] = {
	{ "domain.find", 10, 0, find_running, NULL },
	{ "domain.pause", 90, 0, pause_domain, NULL },
};

static const struct op_step unpause_steps[] = {
	{ "domain.find", 10, 0, find_paused, NULL },
	{ "domain.unpause", 90, 0, vm_step_unpause, NULL },
};

const struct op vm_pause_op = { "VM.pause", pause_steps, ARRAY_LEN(pause_steps),
	AGENT_ERR_cancelled };
const struct op vm_unpause_op = { "VM.unpause", unpause_steps, ARRAY_LEN(unpause_steps),
	AGENT_ERR_cancelled };
