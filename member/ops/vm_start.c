/* Start a VM: from nothing to a running (or paused) domain. vm-lifecycle 2.2, start. */
#include "member/agent_priv.h"

/* clang-format off */
static const struct op_step steps[] = {
	/* name, weight, flags, run, undo */
	{ "memory.reserve",  5, 0,               vm_step_reserve, NULL           },
	{ "domain.create",   5, 0,               vm_step_create,  vm_undo_create },
	{ "domain.build",   60, 0,               vm_step_build,   NULL           }, /* freed by vm_undo_create */
	{ "domain.keep",     5, OP_COMMIT_POINT, vm_step_keep,    NULL           }, /* the domain survives us from here on */
	{ "domain.unpause",  5, 0,               vm_step_unpause, NULL           },
};
/* clang-format on */

const struct op vm_start_op = { "VM.start", steps, ARRAY_LEN(steps), AGENT_ERR_cancelled };

/* Needs metadata; a VM that has a domain already is started: nothing to do. */
int vm_step_reserve(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d;

	(void)job;
	run->skip = hv_domain_find(run->agent->hv, run->uuid, &d);
	if (run->skip)
		run->domid = d.domid;
	else if (run->metadata.kind != VAL_MAP)
		return err_set(err, AGENT_ERR_does_not_exist, "VM", run->uuid, NULL);
	return 0; /* the simulated hypervisor takes the memory when the domain is created */
}

int vm_step_create(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	const struct val *kib = val_get(&run->metadata, "memory_kib"),
			 *ignores = val_get(&run->metadata, "guest_ignores_shutdown"),
			 *ms = val_get(&run->metadata, "guest_shutdown_ms");
	struct hv_guest guest = { .ignores_shutdown = ignores != NULL &&
						      ignores->kind == VAL_BOOL && ignores->b,
		.shutdown_ms = ms != NULL && ms->kind == VAL_INT ? ms->i : 100 };

	(void)job;
	if (run->skip)
		return 0;
	if (kib == NULL || kib->kind != VAL_INT || kib->i <= 0)
		return err_set(
			err, AGENT_ERR_bad_request, "memory_kib is missing or not positive", NULL);
	return hv_domain_create(run->agent->hv, run->uuid, kib->i, &guest, &run->domid, err);
}

void vm_undo_create(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct err ignored = { 0 };

	(void)job;
	if (!run->skip)
		hv_domain_destroy(run->agent->hv, run->domid, &ignored);
	err_fini(&ignored);
}

int vm_step_build(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : hv_domain_build(run->agent->hv, run->domid, err);
}

int vm_step_keep(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : hv_domain_keep(run->agent->hv, run->domid, err);
}

int vm_step_unpause(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip || run->start_paused
		       ? 0
		       : hv_domain_pause(run->agent->hv, run->domid, false, err);
}
