/* Start a VM: from nothing to a running (or paused) domain. vm-lifecycle 2.2, start. */
#include "member/ops/ops_priv.h"

#include <string.h>

static const struct op_step steps[] = {
	VM_RESERVE,
	VM_HOOK("vm-pre-start"),
	VM_CREATE,
	VM_MAKE(vm_step_build),
	VM_RESET,
	VM_KEEP,
	VM_UNPAUSE,
};

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

static int64_t number(const struct val *vm, const char *key, int64_t absent)
{
	const struct val *v = val_get(vm, key);

	return v != NULL ? v->i : absent;
}

static struct hv_config config_of(const struct agent_run *run)
{
	const struct val *vm = val_get(&run->metadata, "vm");
	int64_t all = number(vm, "memory_static_max_kib", 0),
		most = number(vm, "memory_dynamic_max_kib", all);
	int vcpus = (int)number(vm, "vcpus", 1);
	const char *type = val_get_s(vm, "domain_type"), *name = val_get_s(vm, "name");

	return (struct hv_config){ .uuid = run->uuid,
		.memory_kib = run->memory_kib > 0 ? run->memory_kib
						  : number(vm, "memory_start_kib", most),
		.vcpus = vcpus,
		.memory_max_kib = all,
		.vcpus_max = (int)number(vm, "vcpus_max", vcpus),
		.name = name != NULL ? name : run->uuid,
		.type = type != NULL ? type : "pvh",
		.kernel = val_get_s(vm, "kernel"),
		.ramdisk = val_get_s(vm, "ramdisk"),
		.kernel_args = val_get_s(vm, "kernel_args"),
		.sim = val_get(vm, "sim") };
}

int vm_step_create(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_config config;

	(void)job;
	if (run->skip)
		return 0;
	config = config_of(run);
	if (config.memory_kib <= 0 || config.memory_kib > config.memory_max_kib)
		return err_set(err, AGENT_ERR_bad_request, "the memory is not positive", NULL);
	return hv_domain_create(run->agent->hv, &config, &run->domid, err);
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

	struct hv_config config;

	(void)job;
	if (run->skip)
		return 0;
	config = config_of(run);
	return hv_domain_build(run->agent->hv, run->domid, &config, err);
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
	return run->skip || agent_run_flag(run, "start_paused")
		       ? 0
		       : hv_domain_unpause(run->agent->hv, run->domid, err);
}
