/* Memory and processors of a running VM. vm-lifecycle 2.1; memory-numa 3: a guest that does not
 * move towards its target for five seconds is stuck. */
#include "member/ops/ops_priv.h"

enum { LOOK_MS = 50, STUCK_MS = 5000, ACCURACY_KIB = 4 };

/* What it had, for an undo. */
struct had {
	int64_t target_kib;
	int vcpus;
};

static int find_running(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct had *had = arena_alloc(&run->arena, sizeof *had);
	struct hv_domain d;

	(void)job;
	if (!hv_domain_find(run->agent->hv, run->uuid, &d) || d.marked || d.shut_down)
		return err_set(err, AGENT_ERR_bad_power_state, "halted", "running", NULL);
	run->domid = d.domid;
	*had = (struct had){ d.target_kib, d.vcpus };
	run->state = had;
	return 0;
}

static int64_t asked(const struct agent_run *run, const char *key)
{
	return val_get(&run->params, key)->i;
}

static int64_t machine(const struct agent_run *run, const char *key, int64_t absent)
{
	const struct val *v = val_get(val_get(&run->metadata, "vm"), key);

	return v != NULL ? v->i : absent;
}

/* VM.set_memory_dynamic_range: as much of it as there is. */

static int set_target(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	int64_t least = asked(run, "min_kib"), most = asked(run, "max_kib"), total, spare, target;
	struct hv_domain d = { 0 };

	(void)job;
	if (least <= 0 || least > most || most > machine(run, "memory_static_max_kib", most))
		return err_set(err, AGENT_ERR_bad_request, "that is no range", NULL);
	hv_domain_find(run->agent->hv, run->uuid, &d);
	hv_memory(run->agent->hv, &total, &spare);
	target = d.memory_kib + spare < most ? d.memory_kib + spare : most;
	return hv_domain_set_memory(
		run->agent->hv, run->domid, target > least ? target : least, err);
}

static void undo_target(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct err ignored = { 0 };

	(void)job;
	hv_domain_set_memory(
		run->agent->hv, run->domid, ((struct had *)run->state)->target_kib, &ignored);
	err_fini(&ignored);
}

int vm_step_wait_memory(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	uint64_t moved = env_now_ms(job->env);
	struct hv_domain d;
	int64_t last = -1;
	int rc;

	while (hv_domain_find(run->agent->hv, run->uuid, &d) &&
		(d.memory_kib > d.target_kib + ACCURACY_KIB ||
			d.memory_kib < d.target_kib - ACCURACY_KIB)) {
		if (d.memory_kib != last)
			moved = env_now_ms(job->env);
		else if (env_now_ms(job->env) >= moved + STUCK_MS)
			return err_set(err, AGENT_ERR_no_balloon_cooperation, run->uuid, NULL);
		last = d.memory_kib;
		rc = job_sleep(job, LOOK_MS);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int remember_range(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct val keys = val_map();

	(void)job;
	(void)err;
	val_map_push(&run->arena, &keys, "memory_dynamic_min_kib", val_int(asked(run, "min_kib")));
	val_map_push(&run->arena, &keys, "memory_dynamic_max_kib", val_int(asked(run, "max_kib")));
	val_map_push(&run->arena, &keys, "memory_start_kib", val_int(asked(run, "max_kib")));
	agent_record_machine(run->agent, run->uuid, &keys);
	return 0;
}

/* clang-format off */
static const struct op_step memory_steps[] = {
	/* name, weight, flags, run, undo */
	{ "domain.find",     5, 0, find_running,   NULL        },
	{ "memory.target",  10, 0, set_target,     undo_target },
	{ "memory.wait",    80, 0, vm_step_wait_memory, NULL   },
	{ "range.remember",  5, OP_COMMIT_POINT, remember_range, NULL },
};
/* clang-format on */

const struct op vm_set_memory_dynamic_range_op = { "VM.set_memory_dynamic_range", memory_steps,
	ARRAY_LEN(memory_steps), AGENT_ERR_cancelled };

/* VM.set_vcpus */

static int set_vcpus(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	int64_t n = asked(run, "vcpus");

	(void)job;
	if (n < 1 || n > machine(run, "vcpus_max", machine(run, "vcpus", 1)))
		return err_set(err, AGENT_ERR_bad_request, "it cannot have so many", NULL);
	return hv_domain_set_vcpus(run->agent->hv, run->domid, (int)n, err);
}

static void undo_vcpus(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct err ignored = { 0 };

	(void)job;
	hv_domain_set_vcpus(
		run->agent->hv, run->domid, ((struct had *)run->state)->vcpus, &ignored);
	err_fini(&ignored);
}

static int remember_vcpus(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct val keys = val_map();

	(void)job;
	(void)err;
	val_map_push(&run->arena, &keys, "vcpus", val_int(asked(run, "vcpus")));
	agent_record_machine(run->agent, run->uuid, &keys);
	return 0;
}

/* clang-format off */
static const struct op_step vcpus_steps[] = {
	/* name, weight, flags, run, undo */
	{ "domain.find",     5, 0, find_running, NULL       },
	{ "vcpus.set",      90, 0, set_vcpus,    undo_vcpus },
	{ "vcpus.remember",  5, OP_COMMIT_POINT, remember_vcpus, NULL },
};
/* clang-format on */

const struct op vm_set_vcpus_op = { "VM.set_vcpus", vcpus_steps, ARRAY_LEN(vcpus_steps),
	AGENT_ERR_cancelled };
