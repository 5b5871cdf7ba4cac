/* What this host can say of itself and its domains: read from the agent every five seconds, put on
 * the volatile plane. The agent is away: after three times its numbers go. */
#include "db/plane.h"
#include "pool/pool_priv.h"

#include <string.h>

enum {
	READ_MS = DB_PLANE_FRAME_MS,
	MISSED_MAX = 3,
	PLATFORM_VERSION =
		2, /* of virtual hardware, the newest that is offered; all before it too */
};

static void put_int(struct pool *pool, int class_id, const char *ref, int field, int64_t i)
{
	struct val v = val_int(i);

	db_plane_put(pool->db, class_id, ref, field, &v);
}

static void put_time(struct pool *pool, int class_id, const char *ref, int field)
{
	struct val v = val_datetime(env_wall_s(pool->env));

	db_plane_put(pool->db, class_id, ref, field, &v);
}

static int64_t kib_of(const struct val *map, const char *key)
{
	const struct val *v = val_get(map, key);

	return v != NULL && v->kind == VAL_INT && v->i > 0 && v->i < INT64_MAX / 1024 ? v->i : 0;
}

static void put_host(struct pool *pool, const struct db_view *view, const struct val *host)
{
	const struct db_row *self = pool_self(pool, view);
	const char *ref = self != NULL ? db_row_s(self, HOST_metrics) : NULL_REF;
	int64_t kib = kib_of(host, "memory_kib");

	if (kib == 0 || strcmp(ref, NULL_REF) == 0)
		return;
	put_int(pool, MODEL_CLASS_host_metrics, ref, HOST_METRICS_memory_total, kib * 1024);
	put_time(pool, MODEL_CLASS_host_metrics, ref, HOST_METRICS_last_updated);
}

static void put_vm(struct pool *pool, const struct db_view *view, const struct val *vm)
{
	const char *uuid = val_get_s(vm, "uuid"), *ref;
	const struct db_row *row =
		uuid != NULL ? db_view_by_uuid(view, MODEL_CLASS_VM, uuid) : NULL;
	int64_t kib = kib_of(vm, "memory_kib");

	if (row == NULL || kib == 0)
		return; /* unknown, or it has no domain */
	ref = db_row_s(row, VM_metrics);
	if (db_view_get(view, MODEL_CLASS_VM_metrics, ref) == NULL)
		return;
	put_int(pool, MODEL_CLASS_VM_metrics, ref, VM_METRICS_memory_actual, kib * 1024);
	put_time(pool, MODEL_CLASS_VM_metrics, ref, VM_METRICS_last_updated);
}

/* Placement counts on the size of the host and on its processors, so they are in the log; written
 * when they are others. */
struct machine {
	struct job *job;
	struct pool *pool;
	const struct val *host; /* as the agent says */
};

static void build_memory(
	struct db_txn *txn, const struct db_view *view, const char *uuid, int64_t bytes)
{
	const struct db_row *member = db_view_get(view, MODEL_CLASS__member, uuid);

	if (member == NULL || db_row_i(member, _MEMBER_memory) == bytes || bytes == 0 ||
		db_view_schema(view) <
			model_classes[MODEL_CLASS__member].fields[_MEMBER_memory].schema)
		return;
	db_txn_need_row(txn, MODEL_CLASS__member, uuid);
	db_txn_set(txn, MODEL_CLASS__member, uuid, _MEMBER_memory, val_int(bytes));
}

static void build_machine(struct db_txn *txn, const struct db_view *view, void *arg)
{
	const struct machine *m = arg;
	const struct val *cpu = val_get(m->host, "cpu");
	const struct db_row *self = pool_self(m->pool, view);
	struct val info, known, versions = val_set();

	build_memory(txn, view, m->pool->host_uuid, kib_of(m->host, "memory_kib") * 1024);
	if (self == NULL || cpu == NULL || cpu->kind != VAL_MAP)
		return;
	info = cpu_info(&m->job->arena, cpu);
	for (int k = 0; k <= PLATFORM_VERSION; k++)
		val_set_push(&m->job->arena, &versions, val_int(k));
	known = db_row_field(self, HOST_cpu_info, &m->job->arena);
	if (!val_equal(&info, &known))
		db_txn_set(txn, MODEL_CLASS_host, db_row_ref(self), HOST_cpu_info, info);
	known = db_row_field(self, HOST_virtual_hardware_platform_versions, &m->job->arena);
	if (!val_equal(&versions, &known))
		db_txn_set(txn, MODEL_CLASS_host, db_row_ref(self),
			HOST_virtual_hardware_platform_versions, versions);
	if (txn->n_ops > 0)
		db_txn_need_row(txn, MODEL_CLASS_host, db_row_ref(self));
}

static void read_main(struct job *job, void *arg)
{
	struct pool *pool = arg;
	struct err err = { 0 };
	struct val host, vms;
	struct db_view view;
	bool ok = agent_call(job, pool->agent, AGENT_HOST_stat, NULL, &host, &err) == 0 &&
		  agent_call(job, pool->agent, AGENT_VM_list, NULL, &vms, &err) == 0;

	err_fini(&err);
	if (ok) {
		db_view_pin(pool->db, &view);
		put_host(pool, &view, &host);
		for (uint32_t i = 0; vms.kind == VAL_SET && i < vms.n; i++)
			put_vm(pool, &view, &vms.items[i]);
		db_view_unpin(&view);
		/* not decided: the next reading says it again */
		commit_once(job, pool,
			&(struct commit){ DB_FOR_FACTS, { POOL_HOST, "", "machine" }, build_machine,
				&(struct machine){ job, pool, &host } });
		pool->metrics_missed = 0;
	} else if (pool->metrics_missed < MISSED_MAX) {
		pool->metrics_missed++;
	}
	if (ok || pool->metrics_missed == MISSED_MAX) {
		db_plane_sweep(pool->db, MODEL_CLASS_VM_metrics);
		db_plane_sweep(pool->db, MODEL_CLASS_host_metrics);
	}
	pool->metrics_reading = false;
}

static void on_timer(struct loop_timer *t)
{
	struct pool *pool = container_of(t, struct pool, metrics_timer);

	loop_assert(pool->loops[0].loop);
	loop_timer_start(pool->loops[0].loop, t, READ_MS, on_timer);
	if (pool->metrics_reading)
		return;
	pool->metrics_reading = true;
	if (lane_submit(pool->api, "metrics", read_main, pool, NULL) != 0)
		pool->metrics_reading = false;
}

void metrics_start(struct pool *pool)
{
	loop_timer_start(pool->loops[0].loop, &pool->metrics_timer, DB_PLANE_TICK_MS, on_timer);
}
