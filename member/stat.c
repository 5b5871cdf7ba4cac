/* How VMs and the host are now. */
#include "member/sr_priv.h"
#include "agent/methods.h"

#include <stdlib.h>
#include <string.h>

static struct val vifs_of(struct agent *agent, struct arena *a, int domid)
{
	struct hv_vif *list = mem_new(HV_VIFS_MAX * sizeof *list);
	unsigned n = hv_vif_list(agent->hv, domid, list, HV_VIFS_MAX);
	struct val v = val_set();

	for (unsigned i = 0; i < n; i++) {
		struct val one = val_map();

		val_map_push(a, &one, "device", val_int(list[i].device));
		val_map_push(a, &one, "active", val_bool(true));
		val_map_push(a, &one, "plugged", val_bool(true));
		val_map_push(a, &one, "bridge", val_string(arena_strdup(a, list[i].bridge)));
		val_map_push(a, &one, "carrier", val_bool(list[i].carrier));
		val_map_push(
			a, &one, "locking_mode", val_string(arena_strdup(a, list[i].locking_mode)));
		val_set_push(a, &v, one);
	}
	free(list);
	return v;
}

struct under_way {
	bool any, reboot;
	uint64_t ended; /* operations of all VMs, up to now */
};

static struct under_way under_way(struct agent *agent, const char *uuid)
{
	struct under_way u = { 0 };
	struct agent_run *run;

	pthread_mutex_lock(&agent->mutex);
	run = agent_run_of(agent, uuid);
	u.any = run != NULL;
	u.reboot = run != NULL && run->method == AGENT_VM_reboot;
	u.ended = agent->runs_ended;
	pthread_mutex_unlock(&agent->mutex);
	return u;
}

/* During a reboot there is no domain for a moment; the VM is running all the same. So an answer
 * that there is none counts only when no operation has ended while it was looked for. */
static struct val stat_of(struct agent *agent, struct arena *a, const char *uuid)
{
	struct hv_domain d;
	struct under_way before, after;
	struct val v = val_map(), guest = val_map();
	const char *undecided;
	bool has, rebooting;

	do {
		before = under_way(agent, uuid);
		d = (struct hv_domain){ .domid = -1 };
		has = hv_domain_find(agent->hv, uuid, &d);
		after = under_way(agent, uuid);
		rebooting = before.reboot || after.reboot;
	} while (!has && !rebooting && before.ended != after.ended);
	undecided = has && d.moving != HV_STAYS ? arena_strdup(a, d.job) : "";
	has = has && !d.marked && d.moving != HV_COMING;
	val_map_push(a, &v, "uuid", val_string(arena_strdup(a, uuid)));
	val_map_push(a, &v, "power_state",
		val_string(rebooting  ? "Running"
			   : !has     ? "Halted"
			   : d.paused ? "Paused"
				      : "Running"));
	val_map_push(a, &v, "domid", val_int(has ? d.domid : -1));
	val_map_push(a, &v, "busy", val_bool(after.any));
	val_map_push(a, &v, "undecided", val_string(undecided));
	val_map_push(a, &v, "memory_kib", val_int(has ? d.memory_kib : 0));
	val_map_push(a, &v, "memory_target_kib", val_int(has ? d.target_kib : 0));
	val_map_push(a, &v, "vcpus", val_int(has ? d.vcpus : 0));
	val_map_push(a, &v, "started_ago_s", val_int(has ? d.age_s : -1));
	if (has)
		hv_domain_guest(agent->hv, d.domid, a, &guest);
	val_map_push(a, &v, "guest", guest);
	val_map_push(a, &v, "vbds", dp_list(agent, uuid, a));
	val_map_push(a, &v, "vifs", has ? vifs_of(agent, a, d.domid) : val_set());
	return v;
}

int vm_stat_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	(void)err;
	*out = stat_of(agent, &job->arena, val_get_s(params, "uuid"));
	return 0;
}

int vm_list_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	struct val uuids;

	(void)params;
	(void)err;
	pthread_mutex_lock(&agent->mutex);
	uuids = agent_record_uuids(agent, &job->arena);
	pthread_mutex_unlock(&agent->mutex);
	*out = val_set();
	for (uint32_t i = 0; i < uuids.n; i++)
		val_set_push(&job->arena, out, stat_of(agent, &job->arena, uuids.items[i].s));
	return 0;
}

static struct val cpu_of(struct agent *agent, struct arena *a)
{
	struct val v = val_map();
	struct hv_cpu cpu;

	hv_cpu(agent->hv, &cpu);
	val_map_push(a, &v, "cpus", val_int(cpu.cpus));
	val_map_push(a, &v, "cores", val_int(cpu.cores));
	val_map_push(a, &v, "sockets", val_int(cpu.sockets));
	val_map_push(a, &v, "vendor", val_string(arena_strdup(a, cpu.vendor)));
	val_map_push(a, &v, "model", val_string(arena_strdup(a, cpu.model)));
	val_map_push(a, &v, "mhz", val_int(cpu.mhz));
	val_map_push(a, &v, "features", val_string(arena_strdup(a, cpu.features)));
	return v;
}

int host_stat_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	int64_t total, spare;
	struct hv_domain *list = arena_alloc(&job->arena, HV_DOMAINS_MAX * sizeof *list);

	(void)params;
	(void)err;
	hv_memory(agent->hv, &total, &spare);
	*out = val_map();
	val_map_push(&job->arena, out, "version", val_int(AGENT_VERSION));
	val_map_push(&job->arena, out, "boot_id",
		val_string(arena_strdup(&job->arena, hv_boot_id(agent->hv))));
	val_map_push(&job->arena, out, "start_number", val_int(agent->start_number));
	val_map_push(&job->arena, out, "hypervisor", val_string(hv_name(agent->hv)));
	val_map_push(&job->arena, out, "memory_kib", val_int(total));
	val_map_push(&job->arena, out, "memory_free_kib", val_int(spare));
	val_map_push(&job->arena, out, "domains",
		val_int(hv_domain_list(agent->hv, list, HV_DOMAINS_MAX)));
	val_map_push(&job->arena, out, "cpu", cpu_of(agent, &job->arena));
	return 0;
}

int host_nics_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	(void)params;
	return hv_nics(agent->hv, &job->arena, out, err);
}
