/* Repair: after a crash, a failed operation, or a guest that has stopped by itself the record
 * agrees with the domain again. */
#include "agent/methods.h"
#include "member/sr_priv.h"

#include <stdlib.h>
#include <string.h>

enum { CRASH_YOUNG_S = 120 };

void agent_check_state(struct agent *agent, const char *uuid)
{
	struct err ignored = { 0 };
	struct hv_domain d;
	bool there = hv_domain_find(agent->hv, uuid, &d);

	if (there && d.moving != HV_STAYS)
		return; /* the pool says what becomes of it */
	if (!there || !d.marked) {
		dp_release(agent, uuid, there);
		return;
	}
	log_info(agent->env, "event=half_made vm=%s domid=%d", uuid, d.domid);
	hv_domain_destroy(agent->hv, d.domid, &ignored);
	if (ignored.code == NULL) /* what a domain may still write stays its own */
		dp_release(agent, uuid, false);
	err_fini(&ignored);
	agent_changed(agent, "vm", uuid);
}

/* The VM is the key of the job. */
static void check_main(struct job *job, void *arg)
{
	agent_check_state(arg, job->key);
}

/* Unless an operation is at it. */
static void check(struct agent *agent, const char *uuid)
{
	bool busy;

	pthread_mutex_lock(&agent->mutex);
	busy = agent_run_of(agent, uuid) != NULL;
	pthread_mutex_unlock(&agent->mutex);
	if (!busy) /* where the lane is full the next scan finds it again */
		lane_submit(agent->vms, uuid, check_main, agent, NULL);
}

/* What the machine's owner wants when the guest has stopped in this way; vm-lifecycle 2.5. */
static const char *wanted(const struct val *vm, const struct hv_domain *d)
{
	static const char *const keys[] = {
		[HV_POWEROFF] = "on_shutdown", [HV_REBOOT] = "on_reboot", [HV_CRASH] = "on_crash"
	};
	const char *action = d->end == HV_SUSPEND ? NULL : val_get_s(vm, keys[d->end]);

	if (d->end == HV_SUSPEND && d->asked_suspend)
		return "wake"; /* by an agent that has died, or has given up */
	if (action == NULL)
		action = d->end == HV_REBOOT ? "start" : "shutdown";
	if (d->end == HV_CRASH && d->age_s < CRASH_YOUNG_S && strcmp(action, "start") == 0)
		action = "shutdown"; /* it would only crash again */
	return action;
}

static void stopped(struct agent *agent, struct arena *a, const struct hv_domain *d)
{
	static const struct {
		const char *action;
		enum agent_method_id method;
		const struct op *op;
	} ends[] = { { "shutdown", AGENT_VM_shutdown, &vm_shutdown_op },
		{ "start", AGENT_VM_reboot, &vm_reboot_op },
		{ "pause", AGENT_VM_pause, &vm_pause_op },
		{ "wake", AGENT_VM_unpause, &vm_wake_op } };
	struct val metadata = val_void();
	const char *action;

	agent_record_metadata(agent, a, d->uuid, &metadata);
	action = wanted(val_get(&metadata, "vm"), d);
	log_info(agent->env, "event=guest_stopped vm=%s domid=%d code=%d action=%s", d->uuid,
		d->domid, d->end, action);
	for (size_t i = 0; i < ARRAY_LEN(ends); i++)
		if (strcmp(ends[i].action, action) == 0)
			agent_task_own(agent, ends[i].method, ends[i].op, d->uuid);
}

static bool known_vm(struct agent *agent, const char *uuid)
{
	bool known;

	pthread_mutex_lock(&agent->mutex);
	known = sql_number(agent->sql, 0, "SELECT count(*) FROM vm WHERE uuid = ?", "s", uuid) > 0;
	pthread_mutex_unlock(&agent->mutex);
	return known;
}

/* Domains of ours that need attention, and disks without a domain; domains of others are never
 * touched. */
static void scan_main(struct job *job, void *arg)
{
	struct agent *agent = arg;
	struct hv_domain *list = arena_alloc(&job->arena, HV_DOMAINS_MAX * sizeof *list);
	unsigned n = hv_domain_list(agent->hv, list, HV_DOMAINS_MAX);
	struct val vms = dp_unsettled(agent, &job->arena), holds = agent_holds(agent, &job->arena);

	for (unsigned i = 0; i < n; i++) {
		if (!(list[i].marked || list[i].shut_down) || list[i].moving != HV_STAYS ||
			!known_vm(agent, list[i].uuid))
			continue;
		if (list[i].marked)
			check(agent, list[i].uuid);
		else
			stopped(agent, &job->arena, &list[i]);
	}
	for (uint32_t i = 0; i < vms.n; i++)
		check(agent, vms.items[i].s);
	for (uint32_t i = 0; i < holds.n; i++) /* unless its checkpoint is at it */
		agent_task_own(agent, AGENT_VM_unpause, &vm_wake_op, holds.items[i].s);
}

static void scan_now(struct loop_call *call)
{
	struct agent *agent = container_of(call, struct agent, scan_call);

	loop_assert(agent->loop);
	lane_submit(agent->api, "scan", scan_main, agent, NULL);
}

void agent_scan(struct agent *agent)
{
	loop_post(agent->loop, &agent->scan_call, scan_now);
}

static void on_scan(struct loop_timer *t)
{
	struct agent *agent = container_of(t, struct agent, scan);

	agent_scan(agent);
	loop_timer_start(agent->loop, t, AGENT_SCAN_MS, on_scan);
}

void agent_scan_start(struct agent *agent)
{
	loop_timer_start(agent->loop, &agent->scan, 0, on_scan);
}
