/* What this host owns: starts what the log gives it, through its agent, and reports the end.
 *
 *   a task row with owner = us, not started --commit started--> X_run, its agent job named after
 * the task
 *     --> one transaction: status or error, facts about the domain, locks removed
 *
 * At most once: "started" carries our incarnation (boot id and start of the agent) and its
 * precondition fails when the coordinator has given the task to somebody else. A restarted xpoold
 * finds its started tasks in the rows and runs X_run from its beginning: the agent's job bears the
 * task's uuid, so asked again it is the same job (agent_job.c).
 */
#include "db/plane.h"
#include "pool/operation_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_MS = 200, PARAMS_MAX = 24 };

static void on_owner(struct loop_call *call);

void owner_look(struct pool *pool)
{
	loop_post(pool->loops[0].loop, &pool->owner_call, on_owner);
}

void incarnation_of(struct pool *pool, char out[128])
{
	pthread_mutex_lock(&pool->incarnation_mutex);
	strcpy(out, pool->incarnation);
	pthread_mutex_unlock(&pool->incarnation_mutex);
}

/* For X_run. */

void owner_result(struct job *job, void *task, struct val result)
{
	struct buf text = { 0 };

	rpc_xml_value(&text, &result);
	((struct owned *)task)->result = arena_strdup(&job->arena, buf_text(&text));
	buf_fini(&text);
}

struct db_txn *owner_then(void *task)
{
	return &((struct owned *)task)->then;
}

void owner_made(struct job *job, void *task, const char *sr, const char *vdi)
{
	struct val one = val_map();

	val_map_push(&job->arena, &one, "sr", val_string(sr));
	val_map_push(&job->arena, &one, "vdi", val_string(vdi));
	val_set_push(&job->arena, &((struct owned *)task)->made, one);
}

void owner_old(struct job *job, void *task, const char *sr, const char *vdi)
{
	struct val one = val_map();

	val_map_push(&job->arena, &one, "sr", val_string(sr));
	val_map_push(&job->arena, &one, "vdi", val_string(vdi));
	val_set_push(&job->arena, &((struct owned *)task)->old, one);
}

void owner_uuid(void *task, const char *word, char uuid[UUID_LEN + 1], char ref[DB_REF_MAX + 1])
{
	uuid_derive(((struct owned *)task)->task_uuid, word, uuid);
	snprintf(ref, DB_REF_MAX + 1, "OpaqueRef:%s", uuid);
}

const char *owner_vm_uuid(void *task)
{
	return ((struct owned *)task)->vm_uuid;
}

struct pool *owner_pool(void *task)
{
	return ((struct owned *)task)->pool;
}

const struct db_row *owner_self(void *task, const struct db_view *view)
{
	return pool_self(((struct owned *)task)->pool, view);
}

const struct db_row *owner_vm(void *task, struct db_view *view)
{
	struct owned *o = task;

	db_view_pin(o->pool->db, view);
	return db_view_get(view, MODEL_CLASS_VM, o->vm);
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

enum progress { NOT_OURS, NOT_ANNOUNCED, ADMITTED_TO_US, STARTED_BY_US };

/* What the row says of a task, and by which incarnation it was started. */
static enum progress look_at_task(
	struct owned *o, const struct db_view *view, const struct db_row *task, const char *now)
{
	if (!task_pending(task) ||
		strcmp(db_row_s(task, TASK_owner), db_row_ref(pool_self(o->pool, view))) != 0)
		return NOT_OURS;
	if (!db_row_b(task, TASK_started))
		return ADMITTED_TO_US;
	o->same_incarnation = strcmp(db_row_s(task, TASK_incarnation), now) == 0;
	return STARTED_BY_US;
}

struct start {
	struct owned *o;
	char incarnation[128];
	enum progress progress; /* before it */
};

/* Under the condition that our boot is the announced one: others break the locks of any other. */
static void build_start(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct start *s = arg;
	const char *ref = s->o->task, *host = s->o->pool->host_uuid;
	const struct db_row *task = db_view_get(view, MODEL_CLASS_task, ref),
			    *member = db_view_get(view, MODEL_CLASS__member, host);

	s->progress = look_at_task(s->o, view, task, s->incarnation);
	if (s->progress == ADMITTED_TO_US && host_boot_over(view, host, s->incarnation))
		s->progress = NOT_ANNOUNCED;
	if (s->progress != ADMITTED_TO_US)
		return;
	if (member != NULL)
		db_txn_need_field(txn, MODEL_CLASS__member, host, _MEMBER_incarnation,
			val_string(db_row_s(member, _MEMBER_incarnation)));
	db_txn_origin(txn, task_origin(task, &s->o->job->arena));
	db_txn_need_field(
		txn, MODEL_CLASS_task, ref, TASK_owner, val_string(db_row_s(task, TASK_owner)));
	db_txn_need_field(txn, MODEL_CLASS_task, ref, TASK_started, val_bool(false));
	db_txn_need_field(txn, MODEL_CLASS_task, ref, TASK_status, val_string("pending"));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_started, val_bool(true));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_incarnation, val_string(s->incarnation));
}

/* 0: we run it; 1: it is not ours (any more); ERR_DEAD. */
static int commit_started(struct job *job, struct owned *o)
{
	struct start s = { .o = o };
	struct commit commit = { DB_FOR_START, { 0 }, build_start, &s };
	bool caught_up = false;
	int rc;

	for (;;) {
		incarnation_of(o->pool, s.incarnation);
		s.progress = NOT_ANNOUNCED;
		rc = s.incarnation[0] != 0 ? commit_once(job, o->pool, &commit) : 0;
		if (rc == ERR_DEAD)
			return rc;
		if (s.progress == NOT_OURS)
			return 1;
		if (s.progress == NOT_ANNOUNCED) {
			if (job_sleep(job, RETRY_MS) == ERR_DEAD)
				return ERR_DEAD;
			job->cancelled = false;
			continue;
		}
		if (s.progress == ADMITTED_TO_US && rc != 0)
			continue; /* decided or not, the row says what holds */
		if (s.progress == ADMITTED_TO_US || caught_up)
			break;
		/* by an earlier life of ours: is it still under way? */
		if (pool_catch_up(job, o->pool) == ERR_DEAD)
			return ERR_DEAD;
		caught_up = true;
	}
	if (s.progress == ADMITTED_TO_US)
		o->same_incarnation = o->fresh = true;
	return 0;
}

static int run_function(struct job *job, struct owned *o, struct err *err)
{
	struct db_view view;
	const struct db_row *task;
	const struct model_message *m = NULL;
	struct val args, typed[PARAMS_MAX];
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

/* Facts about the VM, if it is ours to say: 1 when there are any. */
static int finish_facts(struct job *job, struct owned *o, struct facts *out, uint64_t *version)
{
	int rc;

	if (*o->vm_uuid == 0)
		return 0;
	*version = facts_version(o->pool, o->vm_uuid);
	rc = facts_read(job, o->pool, o->vm_uuid, out);
	if (rc == 0 && o->suspended && strcmp(out->power_state, "Halted") == 0)
		out->power_state = "Suspended";
	return rc == ERR_DEAD ? rc : rc == 0;
}

struct finish {
	struct owned *o;
	const struct err *err;
	int known; /* 1: facts are */
	struct facts facts;
	uint64_t version; /* of the VM's row before them */
};

/* When the reaper was quicker, the client knows another end, but what was done is done: it is
 * written down while the locks are ours. Without them only the facts remain. */
static void end_by(struct db_txn *txn, const struct db_view *view, const struct finish *f,
	const struct err *err, const struct db_txn *then)
{
	struct owned *o = f->o;
	const struct db_row *vm = db_view_get(view, MODEL_CLASS_VM, o->vm),
			    *task = db_view_get(view, MODEL_CLASS_task, o->task);
	const char *self = db_row_ref(pool_self(o->pool, view));

	if (task == NULL || strcmp(db_row_s(task, TASK_owner), self) != 0)
		return; /* gone, or given to another host, which goes on with it */
	db_txn_origin(txn, task_origin(task, &o->job->arena));
	db_txn_need_version(txn, MODEL_CLASS_task, o->task, db_row_modified(task));
	if (task_pending(task))
		task_set_ended(txn, &o->job->arena, o->task, env_wall_s(o->pool->env), err);
	if (task_pending(task) && err->code == NULL && o->result != NULL)
		db_txn_set(txn, MODEL_CLASS_task, o->task, TASK_result, val_string(o->result));
	if (then != NULL && (task_pending(task) || locks_held(task, &o->job->arena)))
		db_txn_append(txn, then);
	if (vm != NULL && f->known)
		db_txn_need_version(txn, MODEL_CLASS_VM, o->vm, f->version);
	if (vm != NULL && f->known && facts_ours(vm, self)) {
		facts_write(txn, o->pool, view, vm, &f->facts, self);
		if (err->code != NULL)
			memory_give_back_elsewhere(txn, view, task, self);
	} else if (vm != NULL && err->code != NULL) {
		memory_give_back(txn, view, task);
	}
	locks_release(txn, &o->job->arena, task);
}

/* What is too much for one entry is not written at all: the operation has failed, and what it has
 * made goes as with any other failure. */
static void build_finish(struct db_txn *txn, const struct db_view *view, void *arg)
{
	const struct finish *f = arg;
	bool then = f->err->code == NULL || f->o->anyhow;
	enum db_reason reason = txn->reason;
	struct err large = { 0 };

	end_by(txn, view, f, f->err, then ? &f->o->then : NULL);
	if (txn_fits(txn, &large) != 0) {
		log_warn(f->o->job->env, "event=task_too_large task=%s bytes=%zu", f->o->task,
			txn->ops.len);
		db_txn_fini(txn);
		db_txn_init(txn, reason);
		end_by(txn, view, f, &large, NULL);
	}
	err_fini(&large);
}

/* Result, facts and lock release in one transaction. */
static int commit_finished(struct job *job, struct owned *o, const struct err *err)
{
	struct finish f = { .o = o, .err = err };
	struct commit commit = { DB_FOR_FINISH, { 0 }, build_finish, &f };
	int rc;

	do {
		f.known = finish_facts(job, o, &f.facts, &f.version);
		if (f.known < 0)
			return f.known;
		rc = commit_once(job, o->pool, &commit);
	} while (rc == ERR_TIMEOUT);
	return rc;
}

/* Those that have no record; how many have one. */
static unsigned destroy_disks(struct job *job, struct owned *o, const struct val *disks)
{
	struct val ignored;
	struct err err = { 0 };
	struct db_view view;
	unsigned recorded = 0;
	bool is;

	for (uint32_t i = 0; i < disks->n; i++) {
		const char *vdi = val_get_s(&disks->items[i], "vdi");

		db_view_pin(o->pool->db, &view);
		is = db_view_by_uuid(&view, MODEL_CLASS_VDI, vdi) != NULL;
		db_view_unpin(&view);
		recorded += is;
		if (!is && agent_ask(job, o->pool, AGENT_VDI_destroy, &disks->items[i], &ignored,
				   &err) == ERR_API)
			log_warn(job->env, "event=disk_left vdi=%s why=%s", vdi, err.code->name);
		err_fini(&err);
	}
	return recorded;
}

/* Behind the end. The records say what stays: the reaper may have been quicker than our success,
 * which has held all the same when the locks were still ours. */
static void clean_up(struct job *job, struct owned *o)
{
	const struct db_row *task;
	struct db_view view;
	bool known, good;

	db_view_pin(o->pool->db, &view);
	task = db_view_get(&view, MODEL_CLASS_task, o->task);
	known = task != NULL && !task_pending(task);
	good = known && strcmp(db_row_s(task, TASK_status), "success") == 0;
	db_view_unpin(&view);
	if (known) {
		destroy_disks(job, o, &o->old);
		good |= destroy_disks(job, o, &o->made) > 0;
	}
	agent_forget(job, o, known && !good);
}

static void owned_main(struct job *job, void *arg)
{
	struct owned *o = arg;
	struct pool *pool = o->pool;
	struct err err = { 0 };
	int rc;

	db_txn_init(&o->then, DB_FOR_FINISH);
	o->made = o->old = val_set();
	rc = commit_started(job, o);
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
	if (rc == 0)
		clean_up(job, o);
	err_fini(&err);
	db_txn_fini(&o->then);
	if (rc == 0 && o->after != GO_ON) {
		pool->again = o->after == END_AND_BEGIN;
		env_uv_stop_self();
	}
	o->done = true; /* from here on it is the loop's to free */
	owner_look(pool);
}

/* The admission loop: which rows are ours, which jobs have ended, who wants to stop. */

static struct owned *owned_find(struct pool *pool, const char *task)
{
	for (struct owned *o = pool->owned; o != NULL; o = o->next)
		if (strcmp(o->task, task) == 0)
			return o;
	return NULL;
}

/* false: the lane is full. */
static bool owned_begin(struct pool *pool, const struct db_view *view, const struct db_row *task)
{
	const struct db_row *vm =
		db_view_get(view, MODEL_CLASS_VM, db_row_s(task, TASK_subject_ref));
	const struct model_message *m = model_message_find(db_row_s(task, TASK_method));
	struct lane *lane = m != NULL && m->route == MODEL_COMPOUND ? pool->compounds : pool->vms;
	struct owned *o = mem_new(sizeof *o);

	o->pool = pool;
	strcpy(o->task, db_row_ref(task));
	snprintf(o->task_uuid, sizeof o->task_uuid, "%s", db_row_s(task, TASK_uuid));
	snprintf(o->vm, sizeof o->vm, "%s", db_row_s(task, TASK_subject_ref));
	if (vm != NULL)
		snprintf(o->vm_uuid, sizeof o->vm_uuid, "%s", db_row_s(vm, VM_uuid));
	if (lane_submit(lane, o->vm_uuid, owned_main, o, &o->job) != 0) {
		free(o);
		return false;
	}
	o->next = pool->owned;
	pool->owned = o;
	return true;
}

/* A job that has ended and left its task as it was is begun anew. */
static void reap(struct pool *pool, const struct db_view *view)
{
	struct owned **at = &pool->owned;

	loop_assert(pool->loops[0].loop);
	while (*at != NULL) {
		struct owned *o = *at;
		const struct db_row *task;

		if (!o->done) {
			at = &o->next;
			continue;
		}
		*at = o->next;
		job_put(o->job);
		if (o->vm_changed)
			reconcile_vm_changed(pool, o->vm_uuid);
		task = db_view_get(view, MODEL_CLASS_task, o->task);
		if (task_pending(task) && db_row_modified(task) <= pool->owner_seen)
			pool->owner_seen = db_row_modified(task) - 1;
		free(o);
	}
}

static void wake_owned(struct owned *o)
{
	o->woken = true;
	job_cancel(o->job);
}

/* Who waits for its parts looks when one has ended. */
static void tell_parent(struct pool *pool, const struct db_row *task)
{
	const char *ref = db_row_s(task, TASK_subtask_of);
	struct owned *o;

	if (strcmp(ref, NULL_REF) == 0 || task_pending(task))
		return;
	o = owned_find(pool, ref);
	if (o == NULL || db_row_modified(task) <= o->told)
		return;
	o->told = db_row_modified(task);
	wake_owned(o);
}

/* What a task that has changed means to us. false: its lane is full, look again. */
static bool look_at_changed(
	struct pool *pool, const struct db_view *view, const struct db_row *task, const char *self)
{
	struct owned *o;
	struct arena a;

	tell_parent(pool, task);
	if (strcmp(db_row_s(task, TASK_owner), self) != 0 || !task_pending(task))
		return true;
	o = owned_find(pool, db_row_ref(task));
	if (o == NULL)
		return owned_begin(pool, view, task);
	arena_init(&a);
	if (!o->cancel && db_row_b(task, TASK_started) && task_cancel_asked(task, &a)) {
		o->cancel = true;
		wake_owned(o);
	}
	arena_fini(&a);
	return true;
}

/* We were declared dead and are not, without a boot in between: we announce ourselves once more. */
static void answer_dead(struct pool *pool, const struct db_view *view)
{
	const struct db_row *member = db_view_get(view, MODEL_CLASS__member, pool->host_uuid);

	if (member == NULL || strcmp(db_row_s(member, _MEMBER_incarnation), POOL_DEAD) != 0 ||
		db_row_modified(member) <= pool->dead_seen || pool->incarnation[0] == 0)
		return;
	pool->dead_seen = db_row_modified(member);
	reconcile_all(pool);
}

static void on_owner(struct loop_call *call)
{
	struct pool *pool = container_of(call, struct pool, owner_call);
	const struct db_row *task, *self;
	struct db_view view;
	struct db_cursor c;
	uint64_t seen;

	loop_assert(pool->loops[0].loop);
	db_view_pin(pool->db, &view);
	reap(pool, &view);
	answer_dead(pool, &view);
	self = pool_self(pool, &view);
	seen = db_view_index(&view);
	c = db_rows_modified(&view, MODEL_CLASS_task, pool->owner_seen);
	while (self != NULL && (task = db_next(&c)) != NULL)
		if (!look_at_changed(pool, &view, task, db_row_ref(self)) &&
			db_row_modified(task) <= seen)
			seen = db_row_modified(task) - 1;
	if (self != NULL)
		pool->owner_seen = seen;
	db_view_unpin(&view);
}

static void on_agent_up(void *arg, const char *incarnation)
{
	struct pool *pool = arg;

	loop_assert(pool->loops[0].loop);
	pthread_mutex_lock(&pool->incarnation_mutex);
	snprintf(pool->incarnation, sizeof pool->incarnation, "%s", incarnation);
	pthread_mutex_unlock(&pool->incarnation_mutex);
	reconcile_all(pool);
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
		reconcile_vm_changed(pool, id);
	}
}

void owner_start(struct pool *pool)
{
	struct member_events events = { on_agent_up, on_agent_changed, pool };

	pool->agent = member_open(pool->loops[0].loop, pool->agent_address, &events);
}
