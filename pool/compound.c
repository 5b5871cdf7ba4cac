/* Operations made of others: appliances, the evacuation of a host. Route "compound" in the model.
 *
 *   X_run (the coordinator's host) --request, named after parent and word--> coordinator: a task of
 *     its own, subtask_of = parent --> its owner runs it --> its end wakes X_run
 *
 * The parent keeps nothing but what the rows say: which parts were begun follows from their names,
 * how they ended from their rows. So when its host is lost the coordinator takes the parent over
 * (sweep.c) and runs X_run from its beginning; parts that were begun are found, never begun twice,
 * also while the old host is only cut off and still thinks it runs it.
 */
#include "db/plane.h"
#include "pool/operation_priv.h"

#include <string.h>

enum { RETRY_MS = 200, LOOK_MS = 5000 };

/* Is the parent still ours to run? Its caller, copied into the job's arena. */
static bool caller_of(struct job *job, struct owned *o, struct request *r)
{
	struct db_view view;
	const struct db_row *task;
	struct val caller;
	bool ours;

	db_view_pin(o->pool->db, &view);
	task = db_view_get(&view, MODEL_CLASS_task, o->task);
	ours = task_pending(task) &&
	       strcmp(db_row_s(task, TASK_owner), db_row_ref(pool_self(o->pool, &view))) == 0;
	if (ours && r != NULL) {
		caller = db_row_field(task, TASK_caller, &job->arena);
		caller = val_dup(&job->arena, &caller);
		r->user = val_get_s(&caller, "user");
		r->session = val_get_s(&caller, "session");
		r->originator = val_get_s(&caller, "originator");
	}
	db_view_unpin(&view);
	return ours;
}

static bool exists(struct owned *o, const char *ref)
{
	struct db_view view;
	bool there;

	db_view_pin(o->pool->db, &view);
	there = db_view_get(&view, MODEL_CLASS_task, ref) != NULL;
	db_view_unpin(&view);
	return there;
}

int part_begin(struct job *job, void *task, const char *word, const char *method, struct val *args,
	const char **ref_out, struct err *err)
{
	struct owned *o = task;
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct request r = { .method = model_message_find(method),
		.args = args,
		.task_uuid = uuid,
		.keep = true,
		.parent = o->task };
	struct buf bytes = { 0 };
	struct db_result res;
	int rc;

	CHECK(r.method != NULL);
	if (model_functions(r.method).run == NULL)
		return err_set(err, ERR_NOT_IMPLEMENTED, r.method->name, NULL);
	CHECK(r.method->route != MODEL_LOCAL);
	owner_uuid(task, word, uuid, ref);
	*ref_out = arena_strdup(&job->arena, ref);
	while (!exists(o, ref)) {
		if (!caller_of(job, o, &r))
			return ERR_CLOSED;
		request_encode(&bytes, &r);
		rc = db_ask(job, o->pool->db, &bytes, &res);
		if (rc != 0)
			return rc;
		if (res.status == DB_REFUSED) {
			err_move(err, &res.err);
			return ERR_API;
		}
		err_fini(&res.err);
		if (res.status == DB_DONE)
			break;
		/* nobody decides at the moment, or something changed in between */
		if (job_sleep(job, RETRY_MS) == ERR_DEAD)
			return ERR_DEAD;
		job->cancelled = false; /* o->cancel says it; parts_wait looks */
	}
	return 0;
}

bool part_ended(struct job *job, void *task, const char *ref, struct err *why)
{
	struct owned *o = task;
	const char *texts[ERR_PARAMS_MAX];
	const struct err_code *code;
	const struct db_row *part;
	struct db_view view;
	struct val info;
	unsigned n = 0;
	bool ended;

	db_view_pin(o->pool->db, &view);
	part = db_view_get(&view, MODEL_CLASS_task, ref);
	ended = !task_pending(part);
	if (ended && part != NULL && strcmp(db_row_s(part, TASK_status), "success") != 0) {
		info = db_row_field(part, TASK_error_info, &job->arena);
		code = info.n > 0 ? model_error_find(info.items[0].s) : NULL;
		for (uint32_t i = 1; i < info.n && n < ERR_PARAMS_MAX; i++)
			texts[n++] = info.items[i].s;
		if (code != NULL)
			err_set_list(why, code, texts, n);
		else
			err_set(why, ERR_INTERNAL_ERROR, "the task failed", NULL);
	}
	db_view_unpin(&view);
	return ended;
}

int64_t part_finished(void *task, const char *ref)
{
	struct owned *o = task;
	const struct db_row *part;
	struct db_view view;
	int64_t at;

	db_view_pin(o->pool->db, &view);
	part = db_view_get(&view, MODEL_CLASS_task, ref);
	at = part != NULL && !task_pending(part) ? db_row_i(part, TASK_finished) : 0;
	db_view_unpin(&view);
	return at;
}

/* Whoever asked the whole to stop asks its parts. */
static void build_cancel(struct db_txn *txn, const struct db_view *view, void *task)
{
	struct owned *o = task;
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_task_subtask_of, o->task);
	const struct db_row *part;

	while ((part = db_next(&c)) != NULL) {
		if (!task_pending(part) || task_cancel_asked(part, &o->job->arena))
			continue;
		db_txn_need_version(txn, MODEL_CLASS_task, db_row_ref(part), db_row_modified(part));
		db_txn_map_add(txn, MODEL_CLASS_task, db_row_ref(part), TASK_current_operations,
			o->task, val_string("cancel"));
	}
}

int parts_wait(struct job *job, void *task, uint64_t ms, struct err *err)
{
	struct owned *o = task;
	int rc;

	if (o->cancel && !o->stopping) {
		o->stopping = true;
		rc = commit_settled(job, o->pool,
			&(struct commit){ DB_FOR_FINISH, { POOL_HOST, o->task, "task.cancel" },
				build_cancel, o });
		return rc != 0 ? rc : err_set(err, ERR_TASK_CANCELLED, o->task, NULL);
	}
	if (!caller_of(job, o, NULL))
		return ERR_CLOSED;
	/* the loop wakes us by cancelling this sleep; LOOK_MS is for who has been given our task */
	if (!o->woken && job_sleep(job, ms < LOOK_MS ? ms : LOOK_MS) == ERR_DEAD)
		return ERR_DEAD;
	o->woken = job->cancelled = false;
	return 0;
}

int part_end(struct job *job, void *task, const char *part, struct err *why)
{
	struct err stop = { 0 };
	int rc;

	while (!part_ended(job, task, part, why)) {
		rc = parts_wait(job, task, UINT64_MAX, &stop);
		err_fini(&stop);
		if (rc != 0 && rc != ERR_API)
			return rc;
	}
	return why->code != NULL ? ERR_API : 0;
}

void part_progress(void *task, unsigned done, unsigned all)
{
	struct owned *o = task;
	struct val progress = val_float(all > 0 ? (double)(done * 100 / all) / 100 : 0);

	db_plane_put(o->pool->db, MODEL_CLASS_task, o->task, TASK_progress, &progress);
}
