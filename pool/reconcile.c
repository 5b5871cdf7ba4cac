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

struct found {
	struct job *job;
	struct pool *pool;
	const char *vm_uuid;
	struct facts facts;
	uint64_t version; /* of the VM's row before them */
	bool halted, known;
};

static void build_vm(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct found *f = arg;
	const struct db_row *vm = db_view_by_uuid(view, MODEL_CLASS_VM, f->vm_uuid);
	const char *self = db_row_ref(pool_self(f->pool, view));

	f->known = vm != NULL;
	if (!f->known || has_pending_task(f->job, view, vm))
		return;
	db_txn_need_version(txn, MODEL_CLASS_VM, db_row_ref(vm), f->version);
	release_lost_locks(f->job, txn, view, vm, self);
	if (!facts_ours(vm, self) && !f->halted)
		log_err(f->pool->env,
			"event=domain_twice vm=%s why=\"it runs here and is recorded elsewhere: "
			"left alone\"",
			f->vm_uuid);
	else if (facts_differ(view, vm, &f->facts, self))
		facts_write(txn, f->pool, view, vm, &f->facts, self);
	else if (!facts_ours(vm, self))
		memory_left(txn, view, db_row_ref(vm), self);
	if (txn->n_ops > 0)
		log_info(f->pool->env, "event=reconcile vm=%s power_state=%s", f->vm_uuid,
			f->facts.power_state);
}

/* One VM. ERR_TIMEOUT: not decided, look again. */
static int reconcile_vm(struct job *job, struct pool *pool, const char *vm_uuid)
{
	struct found f = { job, pool, vm_uuid, .version = facts_version(pool, vm_uuid) };
	int rc = facts_read(job, pool, vm_uuid, &f.facts);

	if (rc != 0 || f.facts.busy)
		return rc;
	if (*f.facts.undecided != 0) { /* it will have changed then */
		migrate_decide(pool, vm_uuid);
		return 0;
	}
	f.halted = strcmp(f.facts.power_state, "Halted") == 0;
	rc = commit_once(job, pool,
		&(struct commit){ DB_FOR_FACTS, { POOL_HOST, "", "reconcile" }, build_vm, &f });
	if (!f.known)
		forget_vm(job, pool, vm_uuid, f.halted);
	return rc;
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
		ended = task != NULL ? !task_pending(task) : !agent_part_wanted(pool, &view, uuid);
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

struct announcement {
	struct pool *pool;
	bool has_row;
};

static void build_announcement(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct announcement *a = arg;
	const char *uuid = a->pool->host_uuid;
	const struct db_row *member = db_view_get(view, MODEL_CLASS__member, uuid);
	char incarnation[128];

	incarnation_of(a->pool, incarnation);
	a->has_row = member != NULL;
	if (member == NULL || strcmp(db_row_s(member, _MEMBER_incarnation), incarnation) == 0)
		return;
	db_txn_need_version(txn, MODEL_CLASS__member, uuid, db_row_modified(member));
	db_txn_set(txn, MODEL_CLASS__member, uuid, _MEMBER_incarnation, val_string(incarnation));
	host_after_boot(a->pool, view, txn, db_row_s(member, _MEMBER_incarnation), incarnation);
}

static int announce(struct job *job, struct pool *pool)
{
	struct announcement a = { .pool = pool };
	int rc;

	/* a view from before our last life shows who was enabled then, and calls what is new
	 * unknown */
	if (pool_catch_up(job, pool) == ERR_DEAD)
		return ERR_DEAD;
	rc = commit_once(job, pool,
		&(struct commit){
			DB_FOR_CONFIG, { POOL_HOST, "", "announce" }, build_announcement, &a });
	return rc == 0 && !a.has_row ? ERR_TIMEOUT : rc;
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
	forget_tasks(job, pool);
	pbd_reconcile(job, pool);
	if (host_clear_own(job, pool) == ERR_DEAD)
		return;
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
