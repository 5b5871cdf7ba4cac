/* The machine goes off or restarts: HOST.shutdown, HOST.reboot. Refused while domains are there. Of
 * the simulated host this process is what ends, and for a reboot begins anew, a moment after it has
 * answered. */
#include "member/agent_priv.h"
#include "agent/methods.h"

static void on_time(struct loop_timer *t)
{
	struct agent *agent = container_of(t, struct agent, end_timer);

	if (agent->end != NULL)
		agent->end();
}

static void on_end(struct loop_call *call)
{
	struct agent *agent = container_of(call, struct agent, end_call);

	loop_timer_start(agent->loop, &agent->end_timer, AGENT_POWER_MS, on_time);
}

static int power(struct agent *agent, bool again, struct val *out, struct err *err)
{
	struct hv_domain d;

	if (hv_domain_list(agent->hv, &d, 1) > 0)
		return err_set(err, AGENT_ERR_bad_power_state, "running", "halted", NULL);
	if (hv_power_off(agent->hv, err) != 0)
		return ERR_API;
	agent->end_again = again;
	loop_post(agent->loop, &agent->end_call, on_end);
	*out = val_void();
	return 0;
}

int host_shutdown_call(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	(void)job;
	(void)params;
	return power(agent, false, out, err);
}

int host_reboot_call(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	(void)job;
	(void)params;
	return power(agent, true, out, err);
}
