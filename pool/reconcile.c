/* Reconciliation: the record follows what is really there. After each contact with the agent, and
 * when it says that a VM has changed by itself. Operations under way report for themselves. */
#include "pool/operation_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_MS = 200 };

static void release_lost_locks(struct job *job, struct db_txn *txn, const struct db_view *view,
	const struct db_row *vm, const char *self)
{
	struct val ops = db_row_field(vm, VM_current_operations, &job->arena);

	for (uint32_t i = 0; i < ops.n; i++) {
		const struct db_row *task = db_view_get(view, MODEL_CLASS_task, ops.pairs[i].key);

		if (task != NULL && !task_pending(task) &&
			strcmp(db_row_s(task, TASK_owner), self) == 0) {
			locks_release(txn, &job->arena, task);
			memory_give_back_elsewhere(txn, view, task, self);
		}
	}
}

static bool has_pending_task(struct job *job, const struct db_view *view, const struct db_row *vm)
{
	struct val ops = db_row_field(vm, VM_current_operations, &job->arena);

	for (uint32_t i = 0; i < ops.n; i++) {
		const struct db_row *task = db_view_get(view, MODEL_CLASS_task, ops.pairs[i].key);

		if (task_pending(task))
			return true;
	}
	return false;
}

/* The agent knows a VM that the pool has destroyed. */
static void forget_vm(struct job *job, struct pool *pool, const char *vm_uuid, bool halted)
{
	struct val params = val_map(), ignored;
	struct err err = { 0 };

	if (!halted) {
		log_err(pool->env, "event=domain_without_record vm=%s why=\"left alone\"", vm_uuid);
		return;
	}
	val_map_push(&job->arena, &params, "uuid", val_string(vm_uuid));
	agent_call(job, pool->agent, AGENT_VM_remove, &params, &ignored, &err);
	err_fini(&err);
}

/* One VM. Operations under way report for themselves. ERR_TIMEOUT: not decided, look again. */
static int reconcile_vm(struct job *job, struct pool *pool, const char *vm_uuid)
{
	struct facts facts;
	struct db_result res;
	struct db_view view;
	struct db_txn txn;
	const struct db_row *vm;
	const char *self;
	uint64_t version = facts_version(pool, vm_uuid);
	int rc = facts_read(job, pool, vm_uuid, &facts);
	bool halted, known;

	if (rc != 0 || facts.busy)
		return rc;
	if (*facts.undecided != 0) { /* it will have changed then */
		migrate_decide(pool, vm_uuid);
		return 0;
	}
	halted = strcmp(facts.power_state, "Halted") == 0;
	db_view_pin(pool->db, &view);
	vm = db_view_by_uuid(&view, MODEL_CLASS_VM, vm_uuid);
	known = vm != NULL;
	self = db_row_ref(pool_self(pool, &view));
	db_txn_init(&txn, DB_FOR_FACTS);
	db_txn_origin(&txn, (struct db_origin){ .user = POOL_HOST, .method = "reconcile" });
	if (known && !has_pending_task(job, &view, vm)) {
		db_txn_need_version(&txn, MODEL_CLASS_VM, db_row_ref(vm), version);
		release_lost_locks(job, &txn, &view, vm, self);
		if (!facts_ours(vm, self) && !halted)
			log_err(pool->env,
				"event=domain_twice vm=%s why=\"it runs here and is recorded "
				"elsewhere: left alone\"",
				vm_uuid);
		else if (facts_differ(&view, vm, &facts, self))
			facts_write(&txn, pool, &view, vm, &facts, self);
		else if (!facts_ours(vm, self))
			memory_left(&txn, &view, db_row_ref(vm), self);
	}
	db_view_unpin(&view);
	if (!known)
		forget_vm(job, pool, vm_uuid, halted);
	if (txn.n_ops == 0) {
		db_txn_fini(&txn);
		return 0;
	}
	log_info(pool->env, "event=reconcile vm=%s power_state=%s", vm_uuid, facts.power_state);
	rc = db_commit(job, pool->db, &txn, &res);
	err_fini(&res.err);
	return rc == 0 && res.status != DB_DONE ? ERR_TIMEOUT : rc;
}

/* Results at the agent that nobody will take over any more: their tasks have ended. */
static void forget_tasks(struct job *job, struct pool *pool)
{
	struct val list, params, ignored;
	struct err err = { 0 };

	if (agent_call(job, pool->agent, AGENT_TASK_list, NULL, &list, &err) != 0) {
		err_fini(&err);
		return;
	}
	for (uint32_t i = 0; list.kind == VAL_SET && i < list.n; i++) {
		const char *uuid = val_get_s(&list.items[i], "job");
		const struct db_row *task;
		struct db_view view;
		bool ended, undo;

		if (uuid == NULL || !uuid_ok(uuid))
			continue;
		db_view_pin(pool->db, &view);
		task = db_view_by_uuid(&view, MODEL_CLASS_task, uuid);
		ended = !task_pending(task);
		undo = task != NULL && strcmp(db_row_s(task, TASK_status), "success") != 0;
		db_view_unpin(&view);
		if (!ended)
			continue;
		params = val_map();
		val_map_push(&job->arena, &params, "job", val_string(uuid));
		val_map_push(&job->arena, &params, "undo", val_bool(undo));
		agent_call(job, pool->agent, AGENT_TASK_destroy, &params, &ignored, &err);
		err_fini(&err);
	}
}

static int announce(struct job *job, struct pool *pool)
{
	char incarnation[128];
	struct db_result res = { .status = DB_DONE };
	const struct db_row *member;
	struct db_view view;
	struct db_txn txn;
	int rc = 0;

	incarnation_of(pool, incarnation);
	db_view_pin(pool->db, &view);
	member = db_view_get(&view, MODEL_CLASS__member, pool->host_uuid);
	if (member != NULL && strcmp(db_row_s(member, _MEMBER_incarnation), incarnation) != 0) {
		db_txn_init(&txn, DB_FOR_CONFIG);
		db_txn_origin(&txn, (struct db_origin){ .user = POOL_HOST, .method = "announce" });
		db_txn_need_row(&txn, MODEL_CLASS__member, pool->host_uuid);
		db_txn_set(&txn, MODEL_CLASS__member, pool->host_uuid, _MEMBER_incarnation,
			val_string(incarnation));
		host_after_boot(
			pool, &view, &txn, db_row_s(member, _MEMBER_incarnation), incarnation);
		db_view_unpin(&view);
		rc = db_commit(job, pool->db, &txn, &res);
		err_fini(&res.err);
	}
	db_view_unpin(&view);
	return rc != 0 ? rc : member == NULL || res.status != DB_DONE ? ERR_TIMEOUT : 0;
}

/* A VM that is here, is meant to be, or holds a lock of a task of ours that has ended. */
static bool concerns_us(
	struct job *job, const struct db_view *view, const struct db_row *vm, const char *self)
{
	struct val ops = db_row_field(vm, VM_current_operations, &job->arena);
	bool ours = strcmp(db_row_s(vm, VM_resident_on), self) == 0 ||
		    strcmp(db_row_s(vm, VM_scheduled_to_be_resident_on), self) == 0;

	for (uint32_t i = 0; i < ops.n && !ours; i++) {
		const struct db_row *task = db_view_get(view, MODEL_CLASS_task, ops.pairs[i].key);

		ours = task != NULL && strcmp(db_row_s(task, TASK_owner), self) == 0;
	}
	return ours;
}

static void collect_vms(struct job *job, struct pool *pool, struct val *out)
{
	const struct db_row *vm, *self;
	struct db_view view;
	struct db_cursor c;
	struct val list;
	struct err err = { 0 };

	*out = val_set();
	if (agent_call(job, pool->agent, AGENT_VM_list, NULL, &list, &err) == 0)
		for (uint32_t i = 0; list.kind == VAL_SET && i < list.n; i++)
			if (val_get_s(&list.items[i], "uuid") != NULL)
				val_set_push(&job->arena, out,
					val_string(val_get_s(&list.items[i], "uuid")));
	err_fini(&err);
	db_view_pin(pool->db, &view);
	self = pool_self(pool, &view);
	c = db_rows(&view, MODEL_CLASS_VM);
	while (self != NULL && (vm = db_next(&c)) != NULL)
		if (concerns_us(job, &view, vm, db_row_ref(self)) &&
			!val_set_has(out, db_row_s(vm, VM_uuid)))
			val_set_push(&job->arena, out,
				val_string(arena_strdup(&job->arena, db_row_s(vm, VM_uuid))));
	db_view_unpin(&view);
}

/* Until it is decided: something may change between facts and commit. */
static int reconcile_settled(struct job *job, struct pool *pool, const char *vm_uuid)
{
	int rc;

	while ((rc = reconcile_vm(job, pool, vm_uuid)) == ERR_TIMEOUT)
		if (job_sleep(job, RETRY_MS) != 0)
			return ERR_CANCELLED;
	return rc;
}

/* After each contact with the agent: everything. */
static void reconcile_main(struct job *job, void *arg)
{
	struct pool *pool = arg;
	struct val vms;

	/* the pool's rows, and a leader to write to, may still be on their way */
	while (announce(job, pool) != 0)
		if (job_sleep(job, RETRY_MS) != 0)
			return;
	/* a view from before our last life would call what is new unknown */
	if (pool_catch_up(job, pool) == ERR_DEAD)
		return;
	forget_tasks(job, pool);
	pbd_reconcile(job, pool);
	collect_vms(job, pool, &vms);
	for (uint32_t i = 0; i < vms.n; i++)
		if (reconcile_settled(job, pool, vms.items[i].s) == ERR_DEAD)
			return;
}

/* A VM has changed by itself. */
struct changed_vm {
	struct pool *pool;
	char uuid[UUID_LEN + 1];
};

static void changed_main(struct job *job, void *arg)
{
	struct changed_vm *c = arg;

	reconcile_settled(job, c->pool, c->uuid);
	free(c);
}

void reconcile_vm_changed(struct pool *pool, const char *uuid)
{
	struct changed_vm *c;

	loop_assert(pool->loops[0].loop);
	for (struct owned *o = pool->owned; o != NULL; o = o->next)
		if (!o->done && strcmp(o->vm_uuid, uuid) == 0) {
			o->vm_changed =
				true; /* the operation reports for itself, perhaps before this */
			return;
		}
	if (!uuid_ok(uuid))
		return;
	c = mem_new(sizeof *c);
	c->pool = pool;
	strcpy(c->uuid, uuid);
	if (lane_submit(pool->api, "reconcile", changed_main, c, NULL) != 0)
		free(c); /* thousands are waiting: the next contact looks at all */
}

void reconcile_all(struct pool *pool)
{
	lane_submit(pool->api, "reconcile", reconcile_main, pool, NULL);
}
