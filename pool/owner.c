/* What this host owns: starts what the log gives it, through its agent, and reports the end.
 *
 *   a task row with owner = us, not started --commit started--> agent runs it under the task's uuid
 *     --> one transaction: status, result or error, facts about the domain, locks and reservation
 * removed
 *
 * At most once: "started" carries our incarnation (boot id and start of the agent) and its
 * precondition fails when the coordinator has given the task to somebody else. A restarted xpoold
 * finds its started tasks in the rows and asks the agent for the same job again, which is the same
 * job. Started under another incarnation: never begun anew; only what the agent still knows, else
 * "agent restarted" and what is really there.
 *
 * Single writer: power_state, resident_on and domid of a VM are written by the host that has its
 * domain.
 */
#include "db/plane.h"
#include "pool/pool_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AGENT_RETRY_MS = 200, TASK_LOOK_MS = 5000 };

/* A task of ours under way. List on the admission loop. */
struct owned {
	struct pool *pool;
	struct owned *next;
	char task[DB_REF_MAX + 1], vm[DB_REF_MAX + 1], vm_uuid[UUID_LEN + 1],
		task_uuid[UUID_LEN + 1];
	struct job *job;
	_Atomic bool done, cancel, woken;
	bool vm_changed;       /* loop only: looked at again when the job has ended */
	bool same_incarnation; /* worker only: the agent that runs it is the one it was started with
				*/
};

static void on_owner(struct loop_call *call);

void owner_look(struct pool *pool)
{
	loop_post(pool->loops[0].loop, &pool->owner_call, on_owner);
}

static void incarnation_of(struct pool *pool, char out[128])
{
	pthread_mutex_lock(&pool->incarnation_mutex);
	strcpy(out, pool->incarnation);
	pthread_mutex_unlock(&pool->incarnation_mutex);
}

const char *owner_vm_uuid(void *task)
{
	struct owned *o = task;

	return o->vm_uuid;
}

const struct db_row *owner_vm(void *task, struct db_view *view)
{
	struct owned *o = task;

	db_view_pin(o->pool->db, view);
	return db_view_get(view, MODEL_CLASS_VM, o->vm);
}

/* Talking to the agent: what an agent that is away makes us do is wait. */

static int agent_ask(struct job *job, struct pool *pool, enum agent_method_id method,
	const struct val *params, struct val *out, struct err *err)
{
	int rc;

	for (;;) {
		rc = agent_call(job, pool->agent, method, params, out, err);
		if (rc == 0 || rc == ERR_API || rc == ERR_DEAD)
			return rc;
		if (job_sleep(job, AGENT_RETRY_MS) == ERR_DEAD)
			return ERR_DEAD;
		/* a cancelled job sleeps no more: do not spin */
		if (job->cancelled && job_sleep(job, AGENT_RETRY_MS) == ERR_CANCELLED)
			job->cancelled = false;
	}
}

/* Agent's errors as the API tells them: vm-lifecycle section 5. */
static int translate(struct owned *o, struct err *agent, struct err *err)
{
	const struct err_code *c = agent->code;
	const char *p0 = agent->n > 0 ? agent->params[0] : "",
		   *p1 = agent->n > 1 ? agent->params[1] : "";
	int rc;

	if (c == AGENT_ERR_bad_power_state)
		rc = err_set(err, ERR_VM_BAD_POWER_STATE, o->vm, p1, p0, NULL);
	else if (c == AGENT_ERR_no_shutdown_ack)
		rc = err_set(err, ERR_VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT, o->vm, NULL);
	else if (c == AGENT_ERR_shutdown_timeout)
		rc = err_set(err, ERR_VM_SHUTDOWN_TIMEOUT, o->vm, p0, NULL);
	else if (c == AGENT_ERR_no_free_memory)
		rc = err_set(err, ERR_HOST_NOT_ENOUGH_FREE_MEMORY, p0, p1, NULL);
	else if (c == AGENT_ERR_cancelled)
		rc = err_set(err, ERR_TASK_CANCELLED, o->task, NULL);
	else if (c == AGENT_ERR_agent_restarted)
		rc = err_set(err, ERR_INTERNAL_ERROR, "agent restarted", NULL);
	else
		rc = err_set(err, ERR_INTERNAL_ERROR, *p0 ? p0 : c->name, NULL);
	err_fini(agent);
	return rc;
}

static void task_params(struct job *job, struct owned *o, struct val *params)
{
	*params = val_map();
	val_map_push(&job->arena, params, "job", val_string(o->task_uuid));
}

/* To the others as a volatile number; by whole hundredths, so that small steps are no news. */
static void show_progress(struct owned *o, const struct val *permille)
{
	struct val progress;

	if (permille == NULL || permille->kind != VAL_INT || permille->i < 10 || permille->i > 1000)
		return;
	progress = val_float((double)(permille->i / 10) / 100);
	db_plane_put(o->pool->db, MODEL_CLASS_task, o->task, TASK_progress, &progress);
}

/* One look at the agent's task: 1 pending, 0 completed, ERR_API failed. */
static int task_state(struct job *job, struct owned *o, struct err *err)
{
	struct val params, v;
	const char *state, *name;
	const struct val *data;
	struct err agent = { 0 };
	const char *texts[ERR_PARAMS_MAX];
	unsigned n = 0;
	int rc;

	task_params(job, o, &params);
	rc = agent_ask(job, o->pool, AGENT_TASK_stat, &params, &v, &agent);
	if (rc == ERR_API &&
		agent.code == AGENT_ERR_does_not_exist) { /* it was lost with the host's boot */
		err_set(&agent, AGENT_ERR_agent_restarted, NULL);
		return translate(o, &agent, err);
	}
	if (rc != 0)
		return rc == ERR_API ? translate(o, &agent, err) : rc;
	state = val_get_s(&v, "state");
	if (state == NULL || strcmp(state, "pending") == 0) {
		show_progress(o, val_get(&v, "progress_permille"));
		return 1;
	}
	if (strcmp(state, "completed") == 0)
		return 0;
	name = val_get_s(&v, "error");
	data = val_get(&v, "data");
	for (uint32_t i = 0;
		data != NULL && data->kind == VAL_SET && i < data->n && n < ERR_PARAMS_MAX; i++)
		texts[n++] = data->items[i].kind == VAL_STRING ? data->items[i].s : "";
	for (unsigned i = 0; agent_errors[i] != NULL; i++)
		if (name != NULL && strcmp(agent_errors[i]->name, name) == 0)
			err_set_list(&agent, agent_errors[i], texts, n);
	if (agent.code == NULL)
		err_set(&agent, AGENT_ERR_domain_failed, name != NULL ? name : "unknown", NULL);
	return translate(o, &agent, err);
}

static int wait_for_task(struct job *job, struct owned *o, struct err *err)
{
	struct val params, ignored;
	struct err none = { 0 };
	int rc;

	while ((rc = task_state(job, o, err)) == 1) {
		if (o->cancel) {
			o->cancel = false;
			task_params(job, o, &params);
			agent_ask(job, o->pool, AGENT_TASK_cancel, &params, &ignored, &none);
			err_fini(&none);
		}
		/* the update stream wakes us by cancelling this sleep; the time is for a lost
		 * update */
		if (!o->woken && job_sleep(job, TASK_LOOK_MS) == ERR_DEAD)
			return ERR_DEAD;
		job->cancelled = false;
		o->woken = false;
	}
	return rc;
}

int owner_agent_ask(struct job *job, void *task, enum agent_method_id method,
	const struct val *params, struct err *err)
{
	struct owned *o = task;
	struct err agent = { 0 };
	struct val ignored;
	int rc = agent_ask(job, o->pool, method, params, &ignored, &agent);

	return rc == ERR_API ? translate(o, &agent, err) : rc;
}

int owner_agent_op(struct job *job, void *task, enum agent_method_id method, struct val *params,
	struct err *err)
{
	struct owned *o = task;
	struct err agent = { 0 };
	struct val ignored;
	int rc = 0;

	val_map_push(&job->arena, params, "uuid", val_string(o->vm_uuid));
	val_map_push(&job->arena, params, "job", val_string(o->task_uuid));
	if (o->same_incarnation)
		rc = agent_ask(job, o->pool, method, params, &ignored, &agent);
	if (rc != 0)
		return rc == ERR_API ? translate(o, &agent, err) : rc;
	return wait_for_task(job, o, err);
}

/* Facts about a VM, as the agent sees its domain now. */
struct facts {
	const char *power_state;
	int64_t domid;
	bool busy;
};

static int facts_read(struct job *job, struct pool *pool, const char *vm_uuid, struct facts *out)
{
	struct val params = val_map(), v;
	struct err err = { 0 };
	const struct val *domid, *busy;
	int rc;

	val_map_push(&job->arena, &params, "uuid", val_string(vm_uuid));
	rc = agent_ask(job, pool, AGENT_VM_stat, &params, &v, &err);
	err_fini(&err);
	if (rc != 0)
		return rc;
	out->power_state = val_get_s(&v, "power_state");
	domid = val_get(&v, "domid");
	busy = val_get(&v, "busy");
	out->domid = domid != NULL && domid->kind == VAL_INT ? domid->i : -1;
	out->busy = busy != NULL && busy->kind == VAL_BOOL && busy->b;
	return out->power_state != NULL &&
			       model_enum_index(MODEL_ENUM_vm_power_state, out->power_state) >= 0
		       ? 0
		       : ERR_CORRUPT;
}

/* The version of the VM's row, taken before its facts are read: so facts are never written over a
 * change that is newer than they are. */
static uint64_t vm_version(struct pool *pool, const char *vm_uuid)
{
	struct db_view view;
	const struct db_row *vm;
	uint64_t version;

	db_view_pin(pool->db, &view);
	vm = db_view_by_uuid(&view, MODEL_CLASS_VM, vm_uuid);
	version = vm != NULL ? db_row_modified(vm) : 0;
	db_view_unpin(&view);
	return version;
}

/* The fields a fact changes (1.4): written by the host that has the domain, or had it. */
static void facts_write(struct db_txn *txn, const char *vm, const struct facts *f, const char *self)
{
	bool halted = strcmp(f->power_state, "Halted") == 0;

	db_txn_set(txn, MODEL_CLASS_VM, vm, VM_power_state, val_string(f->power_state));
	db_txn_set(txn, MODEL_CLASS_VM, vm, VM_domid, val_int(halted ? -1 : f->domid));
	db_txn_set(txn, MODEL_CLASS_VM, vm, VM_resident_on, val_string(halted ? NULL_REF : self));
	db_txn_set(txn, MODEL_CLASS_VM, vm, VM_scheduled_to_be_resident_on, val_string(NULL_REF));
	if (halted)
		db_txn_set(txn, MODEL_CLASS_VM, vm, VM_requires_reboot, val_bool(false));
}

/* Ours to write: the VM is here, or nowhere. */
static bool facts_ours(const struct db_row *vm, const char *self)
{
	const char *on = db_row_s(vm, VM_resident_on);

	return strcmp(on, NULL_REF) == 0 || strcmp(on, self) == 0;
}

/* The life of one task. Each step is committed with preconditions and repeated until it is decided.
 */

int pool_catch_up(struct job *job, struct pool *pool)
{
	int rc;

	do {
		rc = db_read_wait(job, pool->db);
	} while (rc == ERR_TIMEOUT);
	return rc;
}

/* 0: we run it; 1: it is not ours (any more); ERR_DEAD. */
static int commit_started(struct job *job, struct owned *o)
{
	bool caught_up = false;
	struct db_result res;
	struct db_view view;
	const struct db_row *task;
	char incarnation[128];
	struct db_txn txn;
	bool started;

	for (;;) {
		incarnation_of(o->pool, incarnation);
		if (incarnation[0] == 0) {
			if (job_sleep(job, AGENT_RETRY_MS) == ERR_DEAD)
				return ERR_DEAD;
			job->cancelled = false;
			continue;
		}
		db_view_pin(o->pool->db, &view);
		task = db_view_get(&view, MODEL_CLASS_task, o->task);
		started = task != NULL && db_row_b(task, TASK_started);
		if (task == NULL || strcmp(db_row_s(task, TASK_status), "pending") != 0 ||
			strcmp(db_row_s(task, TASK_owner), db_row_ref(pool_self(o->pool, &view))) !=
				0) {
			db_view_unpin(&view);
			return 1;
		}
		if (started && !caught_up) {
			/* by an earlier life of ours: is it still under way? */
			db_view_unpin(&view);
			if (pool_catch_up(job, o->pool) == ERR_DEAD)
				return ERR_DEAD;
			caught_up = true;
			continue;
		}
		if (started) {
			o->same_incarnation =
				strcmp(db_row_s(task, TASK_incarnation), incarnation) == 0;
			db_view_unpin(&view);
			return 0;
		}
		db_txn_init(&txn, DB_FOR_START);
		db_txn_origin(&txn, task_origin(task, &job->arena));
		db_txn_need_field(&txn, MODEL_CLASS_task, o->task, TASK_owner,
			val_string(db_row_s(task, TASK_owner)));
		db_txn_need_field(&txn, MODEL_CLASS_task, o->task, TASK_started, val_bool(false));
		db_txn_need_field(
			&txn, MODEL_CLASS_task, o->task, TASK_status, val_string("pending"));
		db_txn_set(&txn, MODEL_CLASS_task, o->task, TASK_started, val_bool(true));
		db_txn_set(
			&txn, MODEL_CLASS_task, o->task, TASK_incarnation, val_string(incarnation));
		db_view_unpin(&view);
		if (db_commit(job, o->pool->db, &txn, &res) == ERR_DEAD)
			return ERR_DEAD;
		err_fini(&res.err);
		/* decided or not, the row says what holds */
		o->same_incarnation = true;
		if (res.status == DB_DONE)
			return 0;
	}
}

static int run_function(struct job *job, struct owned *o, struct err *err)
{
	struct db_view view;
	const struct db_row *task;
	const struct model_message *m = NULL;
	struct val args, typed[8];
	const char *text, *why;
	int rc = 0;

	db_view_pin(o->pool->db, &view);
	task = db_view_get(&view, MODEL_CLASS_task, o->task);
	if (task != NULL) {
		m = model_message_find(db_row_s(task, TASK_method));
		text = arena_strdup(&job->arena, db_row_s(task, TASK_arguments));
		rc = rpc_json_parse(&job->arena, text, strlen(text), &args, &why);
	}
	db_view_unpin(&view);
	if (m == NULL || rc != 0 || args.kind != VAL_SET || args.n != m->n_params ||
		m->n_params > ARRAY_LEN(typed))
		return err_set(err, ERR_INTERNAL_ERROR, "the request cannot be read", NULL);
	for (unsigned i = 0; i < m->n_params; i++)
		if (rpc_coerce(&job->arena, RPC_JSON2, m->params[i].type, m->params[i].name,
			    &args.items[i], &typed[i], err) != 0)
			return ERR_API;
	if (model_functions(m).run == NULL)
		return err_set(err, ERR_NOT_IMPLEMENTED, m->name, NULL);
	return model_functions(m).run(job, o, pool_args(&job->arena, m, typed), err);
}

static void finish_write(struct job *job, struct db_txn *txn, const struct db_row *task,
	const struct err *err, int64_t now)
{
	const char *ref = db_row_ref(task);
	struct val info = val_set();
	const char *status = "success";

	if (err->code != NULL) {
		status = err->code == ERR_TASK_CANCELLED ? "cancelled" : "failure";
		val_set_push(&job->arena, &info, val_string(err->code->name));
		for (unsigned i = 0; i < err->n; i++)
			val_set_push(&job->arena, &info, val_string(err->params[i]));
	}
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_status, val_string(status));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_error_info, info);
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_finished, val_datetime(now));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_progress, val_float(1));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_current_operations, val_map());
}

/* Result, facts and lock release in one transaction. When the reaper was quicker, the facts and the
 * locks remain. */
static int commit_finished(struct job *job, struct owned *o, const struct err *err)
{
	struct facts facts;
	struct db_result res;
	struct db_view view;
	struct db_txn txn;
	int rc;

	do {
		const struct db_row *task, *vm;
		const char *self;
		uint64_t version = vm_version(o->pool, o->vm_uuid);

		rc = facts_read(job, o->pool, o->vm_uuid, &facts);
		if (rc == ERR_DEAD)
			return rc;
		db_view_pin(o->pool->db, &view);
		task = db_view_get(&view, MODEL_CLASS_task, o->task);
		vm = db_view_get(&view, MODEL_CLASS_VM, o->vm);
		self = db_row_ref(pool_self(o->pool, &view));
		if (task == NULL) {
			db_view_unpin(&view);
			return 0;
		}
		db_txn_init(&txn, DB_FOR_FINISH);
		db_txn_origin(&txn, task_origin(task, &job->arena));
		db_txn_need_version(&txn, MODEL_CLASS_task, o->task, db_row_modified(task));
		if (strcmp(db_row_s(task, TASK_status), "pending") == 0)
			finish_write(job, &txn, task, err, env_wall_s(o->pool->env));
		if (vm != NULL) {
			db_txn_need_version(&txn, MODEL_CLASS_VM, o->vm, version);
			if (rc == 0 && facts_ours(vm, self))
				facts_write(&txn, o->vm, &facts, self);
		}
		locks_release(&txn, &job->arena, task);
		db_view_unpin(&view);
		rc = db_commit(job, o->pool->db, &txn, &res);
		err_fini(&res.err);
	} while (rc != ERR_DEAD && res.status != DB_DONE);
	return rc;
}

static void owned_main(struct job *job, void *arg)
{
	struct owned *o = arg;
	struct pool *pool = o->pool;
	struct err err = { 0 }, none = { 0 };
	struct val params, ignored;
	int rc = commit_started(job, o);

	if (rc == 0) {
		rc = run_function(job, o, &err);
		if (rc != 0 && rc != ERR_API && rc != ERR_DEAD)
			rc = err_set(&err, ERR_INTERNAL_ERROR, err_rc_name(rc), NULL);
		log_info(job->env, "event=task_ended task=%s vm=%s result=%s", o->task, o->vm_uuid,
			err.code != NULL ? err.code->name : "ok");
	}
	if (rc == 0 || rc == ERR_API)
		rc = commit_finished(job, o, &err);
	db_plane_remove(pool->db, MODEL_CLASS_task, o->task);
	if (rc == 0) { /* the result has been taken over */
		task_params(job, o, &params);
		agent_call(job, o->pool->agent, AGENT_TASK_destroy, &params, &ignored, &none);
		err_fini(&none);
	}
	err_fini(&err);
	o->done = true; /* from here on it is the loop's to free */
	owner_look(pool);
}

static void vm_changed(struct pool *pool, const char *uuid);

/* The admission loop: which rows are ours, which jobs have ended, who wants to stop. */

static struct owned *owned_find(struct pool *pool, const char *task)
{
	for (struct owned *o = pool->owned; o != NULL; o = o->next)
		if (strcmp(o->task, task) == 0)
			return o;
	return NULL;
}

static void owned_begin(struct pool *pool, const struct db_view *view, const struct db_row *task)
{
	const struct db_row *vm =
		db_view_get(view, MODEL_CLASS_VM, db_row_s(task, TASK_subject_ref));
	struct owned *o = mem_new(sizeof *o);

	o->pool = pool;
	strcpy(o->task, db_row_ref(task));
	snprintf(o->task_uuid, sizeof o->task_uuid, "%s", db_row_s(task, TASK_uuid));
	snprintf(o->vm, sizeof o->vm, "%s", db_row_s(task, TASK_subject_ref));
	if (vm != NULL)
		snprintf(o->vm_uuid, sizeof o->vm_uuid, "%s", db_row_s(vm, VM_uuid));
	if (lane_submit(pool->vms, o->vm_uuid, owned_main, o, &o->job) != 0) {
		free(o); /* the lane is full: the next look tries again */
		return;
	}
	o->next = pool->owned;
	pool->owned = o;
}

static void reap(struct pool *pool)
{
	struct owned **at = &pool->owned;

	loop_assert(pool->loops[0].loop);
	while (*at != NULL) {
		struct owned *o = *at;

		if (!o->done) {
			at = &o->next;
			continue;
		}
		*at = o->next;
		job_put(o->job);
		if (o->vm_changed)
			vm_changed(pool, o->vm_uuid);
		free(o);
	}
}

static void wake_owned(struct owned *o)
{
	o->woken = true;
	job_cancel(o->job);
}

static void on_owner(struct loop_call *call)
{
	struct pool *pool = container_of(call, struct pool, owner_call);
	const struct db_row *task, *self;
	struct db_view view;
	struct db_cursor c;
	struct arena a;

	loop_assert(pool->loops[0].loop);
	reap(pool);
	arena_init(&a);
	db_view_pin(pool->db, &view);
	self = pool_self(pool, &view);
	c = db_rows(&view, MODEL_CLASS_task);
	while (self != NULL && (task = db_next(&c)) != NULL) {
		struct owned *o;
		struct val ops;

		if (strcmp(db_row_s(task, TASK_owner), db_row_ref(self)) != 0 ||
			strcmp(db_row_s(task, TASK_status), "pending") != 0)
			continue;
		o = owned_find(pool, db_row_ref(task));
		if (o == NULL) {
			owned_begin(pool, &view, task);
			continue;
		}
		ops = db_row_field(task, TASK_current_operations, &a);
		if (ops.n > 0 && db_row_b(task, TASK_started) && !o->cancel) {
			o->cancel = true;
			wake_owned(o);
		}
	}
	db_view_unpin(&view);
	arena_fini(&a);
}

/* Reconciliation: the record follows what is really there. After each contact with the agent, and
 * when it says that a VM has changed by itself. */

static void release_lost_locks(struct job *job, struct db_txn *txn, const struct db_view *view,
	const struct db_row *vm, const char *self)
{
	struct val ops = db_row_field(vm, VM_current_operations, &job->arena);

	for (uint32_t i = 0; i < ops.n; i++) {
		const struct db_row *task = db_view_get(view, MODEL_CLASS_task, ops.pairs[i].key);

		if (task != NULL && strcmp(db_row_s(task, TASK_status), "pending") != 0 &&
			strcmp(db_row_s(task, TASK_owner), self) == 0)
			locks_release(txn, &job->arena, task);
	}
}

static bool has_pending_task(struct job *job, const struct db_view *view, const struct db_row *vm)
{
	struct val ops = db_row_field(vm, VM_current_operations, &job->arena);

	for (uint32_t i = 0; i < ops.n; i++) {
		const struct db_row *task = db_view_get(view, MODEL_CLASS_task, ops.pairs[i].key);

		if (task != NULL && strcmp(db_row_s(task, TASK_status), "pending") == 0)
			return true;
	}
	return false;
}

/* Does the record differ from the facts, and is it ours to say so? A VM that is nowhere is left
 * alone but for a start that never came to be. */
static bool facts_differ(const struct db_row *vm, const struct facts *f, const char *self)
{
	bool halted = strcmp(f->power_state, "Halted") == 0;
	bool nowhere = strcmp(db_row_s(vm, VM_resident_on), NULL_REF) == 0;

	if (!facts_ours(vm, self))
		return false;
	if (nowhere && halted)
		return strcmp(db_row_s(vm, VM_scheduled_to_be_resident_on), self) == 0;
	return nowhere || halted || strcmp(db_row_s(vm, VM_power_state), f->power_state) != 0 ||
	       db_row_i(vm, VM_domid) != f->domid;
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
	uint64_t version = vm_version(pool, vm_uuid);
	int rc = facts_read(job, pool, vm_uuid, &facts);
	bool halted, known;

	if (rc != 0 || facts.busy)
		return rc;
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
		else if (facts_differ(vm, &facts, self))
			facts_write(&txn, db_row_ref(vm), &facts, self);
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
	char ref[DB_REF_MAX + 1];

	if (agent_call(job, pool->agent, AGENT_TASK_list, NULL, &list, &err) != 0) {
		err_fini(&err);
		return;
	}
	for (uint32_t i = 0; list.kind == VAL_SET && i < list.n; i++) {
		const char *uuid = val_get_s(&list.items[i], "job");
		const struct db_row *task;
		struct db_view view;
		bool ended;

		if (uuid == NULL || !uuid_ok(uuid))
			continue;
		snprintf(ref, sizeof ref, "OpaqueRef:%s", uuid);
		db_view_pin(pool->db, &view);
		task = db_view_get(&view, MODEL_CLASS_task, ref);
		ended = task == NULL || strcmp(db_row_s(task, TASK_status), "pending") != 0;
		db_view_unpin(&view);
		if (!ended)
			continue;
		params = val_map();
		val_map_push(&job->arena, &params, "job", val_string(uuid));
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
		if (job_sleep(job, AGENT_RETRY_MS) != 0)
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
		if (job_sleep(job, AGENT_RETRY_MS) != 0)
			return;
	/* a view from before our last life would call what is new unknown */
	if (pool_catch_up(job, pool) == ERR_DEAD)
		return;
	forget_tasks(job, pool);
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

static void vm_changed(struct pool *pool, const char *uuid)
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

static void on_agent_up(void *arg, const char *incarnation)
{
	struct pool *pool = arg;

	loop_assert(pool->loops[0].loop);
	pthread_mutex_lock(&pool->incarnation_mutex);
	snprintf(pool->incarnation, sizeof pool->incarnation, "%s", incarnation);
	pthread_mutex_unlock(&pool->incarnation_mutex);
	lane_submit(pool->api, "reconcile", reconcile_main, pool, NULL);
	owner_look(pool);
}

static void on_agent_changed(void *arg, const char *kind, const char *id)
{
	struct pool *pool = arg;

	loop_assert(pool->loops[0].loop);
	if (strcmp(kind, "task") == 0) {
		for (struct owned *o = pool->owned; o != NULL; o = o->next)
			if (strcmp(o->task_uuid, id) == 0)
				wake_owned(o);
	} else {
		vm_changed(pool, id);
	}
}

void owner_start(struct pool *pool)
{
	struct member_events events = { on_agent_up, on_agent_changed, pool };

	pool->agent = member_open(pool->loops[0].loop, pool->agent_address, &events);
}
