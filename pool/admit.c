/* Operations: from the member that accepts the call to the coordinator, which admits them.
 *
 *   accept: request with a task uuid -> leader -> admit: objects, rules, owner, X_admit -> one
 * transaction -> log
 *
 * The task row is the work item. Admission writes row, locks and owner in one entry; its
 * preconditions pin what the rules relied on (the versions of the locked objects), so two
 * admissions can never both hold a lock. A task that meets a lock is a row without owner; the sweep
 * (sweep.c) admits it when the lock has gone, oldest first, and who asks meanwhile gets in line.
 * The coordinator keeps nothing in memory about any of this but from where on to look for who waits
 * (line.c): a new one goes on with the rows.
 * pool.md 5.2, docs/decisions/0006.
 */
#include "pool/operation_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void task_set_ended(
	struct db_txn *txn, struct arena *a, const char *ref, int64_t now, const struct err *err)
{
	struct val info = val_set();
	const char *status = "success";

	if (err->code != NULL) {
		status = err->code == ERR_TASK_CANCELLED ? "cancelled" : "failure";
		val_set_push(a, &info, val_string(err->code->name));
		for (unsigned i = 0; i < err->n; i++)
			val_set_push(a, &info, val_string(arena_strdup(a, err->params[i])));
	}
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_status, val_string(status));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_error_info, info);
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_finished, val_datetime(now));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_progress, val_float(1));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_current_operations, val_map());
}

/* Evaluation. */

/* The VM whose domain it is about: at the end of the route, or the first that is locked. */
static int find_vm(struct admit *ad, struct err *err)
{
	const struct db_row *rows[POOL_TARGETS_MAX];
	unsigned n = 0;

	if (ad->method->route == MODEL_PLACED || ad->method->route == MODEL_RESIDENT ||
		ad->method->route == MODEL_STORAGE) {
		if (path_rows(ad, &ad->method->route_path, rows, &n, err) != 0)
			return ERR_API;
	} else if (ad->method->route == MODEL_HOST || ad->method->route == MODEL_COORDINATOR) {
		for (; n < ad->n_targets && db_row_class(ad->targets[n].row) != MODEL_CLASS_VM; n++)
			;
		rows[0] = n < ad->n_targets ? ad->targets[n].row : NULL;
		n = rows[0] != NULL;
	}
	ad->vm = n > 0 && db_row_class(rows[0]) == MODEL_CLASS_VM ? rows[0] : NULL;
	return 0;
}

/* What it has put into the transaction goes again when it refuses. */
static int by_class(struct admit *ad,
	int (*admit)(struct admit *ad, const void *args, struct err *err), struct err *err)
{
	size_t ops = ad->txn->ops.len, preconditions = ad->txn->preconditions.len;
	uint32_t n_ops = ad->txn->n_ops, n_preconditions = ad->txn->n_preconditions;
	int rc = admit(ad, pool_args(ad->arena, ad->method, ad->args), err);

	if (rc != 0) {
		ad->txn->ops.len = ops;
		ad->txn->preconditions.len = preconditions;
		ad->txn->n_ops = n_ops;
		ad->txn->n_preconditions = n_preconditions;
	}
	return rc;
}

/* What parameters name is there. */
static int parameters_exist(struct admit *ad, struct err *err)
{
	for (unsigned i = 0; i < ad->method->n_params; i++) {
		const struct model_param *p = &ad->method->params[i];
		const struct model_type *type = p->type;

		if (type->kind == MODEL_REF &&
			!(p->may_be_null && strcmp(ad->args[i].s, NULL_REF) == 0) &&
			db_view_get(ad->view, type->class_id, ad->args[i].s) == NULL)
			return err_set(err, ERR_HANDLE_INVALID, model_classes[type->class_id].name,
				ad->args[i].s, NULL);
	}
	return 0;
}

static int decide(struct admit *ad, struct err *err)
{
	struct model_functions fn = model_functions(ad->method);
	unsigned n;

	if (parameters_exist(ad, err) != 0 || locks_collect(ad, err) != 0 ||
		find_vm(ad, err) != 0 || locks_check(ad, 0, err) != 0 ||
		locks_cancel_others(ad, err) != 0 || place_owner(ad, err) != 0)
		return ERR_API;
	n = ad->n_targets;
	locks_collect_owner(ad);
	if (locks_check(ad, n, err) != 0)
		return ERR_API;
	if (fn.admit != NULL && by_class(ad, fn.admit, err) != 0)
		return ERR_API;
	CHECK(fn.run != NULL);
	return 0;
}

enum verdict admit_evaluate(struct admit *ad, struct val *locks, struct err *err)
{
	if (decide(ad, err) != 0)
		return ad->waits_for != NULL ? MUST_WAIT : REFUSED;
	locks_take(ad, locks);
	return ADMITTED;
}

static void task_fields(
	struct admit *ad, const struct request *r, struct val *f, const struct val *locks)
{
	struct val other = val_map();
	bool named = request_id(&r->other_config) != NULL;
	const char *arguments;
	const struct db_row *session = db_view_get(ad->view, MODEL_CLASS_session, r->session);

	request_arguments(ad->arena, r, &arguments);
	f[TASK_uuid] = val_string(r->task_uuid);
	f[TASK_name_label] = val_string(
		arena_printf(ad->arena, "%s%s", r->keep ? "Async." : "", r->method->name));
	f[TASK_created] = val_datetime(env_wall_s(ad->pool->env));
	f[TASK_status] = val_string("pending");
	f[TASK_type] = val_string("<none/>");
	f[TASK_session] = val_string(session != NULL ? r->session : NULL_REF);
	f[TASK_method] = val_string(r->method->name);
	f[TASK_arguments] = val_string(arguments);
	f[TASK_subject_ref] = val_string(ad->vm != NULL ? db_row_ref(ad->vm) : NULL_REF);
	f[TASK_caller] = task_caller(ad->arena, r->user, r->session, r->originator,
		session != NULL ? db_row_s(session, SESSION_auth_user_sid) : "");
	f[TASK_keep] = val_bool(r->keep || named); /* it may be asked for again */
	f[TASK_subtask_of] = val_string(
		db_view_get(ad->view, MODEL_CLASS_task, r->parent) != NULL ? r->parent : NULL_REF);
	if (ad->owner != NULL) {
		f[TASK_owner] = f[TASK_resident_on] = val_string(db_row_ref(ad->owner));
		f[TASK_locks] = *locks;
	} else {
		val_map_push(ad->arena, &other, "waiting_for", val_string(ad->waits_for));
	}
	for (uint32_t i = 0; i < r->other_config.n; i++)
		val_map_push(ad->arena, &other, r->other_config.pairs[i].key,
			r->other_config.pairs[i].value);
	f[TASK_other_config] = other;
}

/* A request has reached the coordinator. */

struct arrival {
	struct loop_call call;
	struct pool *pool;
	struct db_proposal_id id;
	size_t n;
	uint8_t bytes[];
};

/* Does it make an object that stays? It says which. */
static bool makes_object(const struct model_message *m)
{
	return m->result->kind == MODEL_REF;
}

static size_t packed_size(const struct val *v)
{
	struct buf b = { 0 };
	size_t n;

	val_pack(&b, v);
	n = b.len;
	buf_fini(&b);
	return n;
}

/* set_F and add_F of a field F: does it put more into its object than is there? */
static bool enlarges(struct admit *ad)
{
	const char *name = strchr(ad->method->name, '.') + 1;
	bool adds = strncmp(name, "add_", 4) == 0;
	const struct db_row *row;
	struct val before;
	int field;

	if ((!adds && strncmp(name, "set_", 4) != 0) || ad->method->n_params != 2)
		return false;
	field = model_field_find(ad->method->class_id, name + 4);
	row = db_view_get(ad->view, ad->method->class_id, ad->args[0].s);
	if (field < 0 || row == NULL)
		return false;
	before = db_row_field(row, field, ad->arena);
	return adds || packed_size(&ad->args[1]) > packed_size(&before);
}

/* It is asked for one thing: a transaction, or a refusal. */
static int admit_one(struct admit *ad, const struct request *r, struct err *err)
{
	struct val fields[TASK_FIELD_COUNT] = { { .kind = VAL_VOID } }, locks = val_set();
	const struct ahead *line;
	enum verdict verdict;
	unsigned waiting;

	if (join_admits(ad->pool, ad->view, err) != 0 ||
		((makes_object(ad->method) || enlarges(ad)) && db_full(ad->pool->db, err)))
		return ERR_API;
	waiting = line_all(ad->pool, ad->view, ad->arena, &line);
	ad->ahead = line_before(r, line);
	verdict = admit_evaluate(ad, &locks, err);
	if (verdict == MUST_WAIT && waiting == POOL_WAITING_MAX)
		return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
	if (verdict == REFUSED)
		return ERR_API;
	if (verdict == MUST_WAIT)
		ad->owner = NULL;
	err_fini(err);
	task_fields(ad, r, fields, &locks);
	db_txn_create(ad->txn, MODEL_CLASS_task, ad->task, fields);
	return 0;
}

static bool same_text(const struct val *a, const struct val *b, const char *key)
{
	const char *x = val_get_s(a, key), *y = val_get_s(b, key);

	return strcmp(x != NULL ? x : "", y != NULL ? y : "") == 0;
}

/* There is a task of that name. Of the same user and request, it is the answer; a name is not for
 * two things. */
static int admit_again(
	struct admit *ad, const struct request *r, const struct db_row *task, struct err *err)
{
	const struct db_row *session = db_view_get(ad->view, MODEL_CLASS_session, r->session);
	struct val is = db_row_field(task, TASK_caller, ad->arena),
		   asks = task_caller(ad->arena, r->user, r->session, r->originator,
			   session != NULL ? db_row_s(session, SESSION_auth_user_sid) : ""),
		   other = db_row_field(task, TASK_other_config, ad->arena);
	const char *arguments, *id = request_id(&r->other_config);

	request_arguments(ad->arena, r, &arguments);
	if (id != NULL && (strcmp(db_row_s(task, TASK_method), r->method->name) != 0 ||
				  strcmp(db_row_s(task, TASK_arguments), arguments) != 0 ||
				  !same_text(&is, &asks, "user") || !same_text(&is, &asks, "sid") ||
				  !same_text(&other, &r->other_config, "http:request-id")))
		return err_set(err, ERR_INVALID_VALUE, "X-Http-Other-Config-Request-Id",
			arena_printf(ad->arena, "%s: it names another request, %s", id, ad->task),
			NULL);
	db_txn_need_row(ad->txn, MODEL_CLASS_task, ad->task);
	return 0;
}

static void admit_arrived(struct pool *pool, const struct db_proposal_id *id,
	const struct request *r, struct arena *a)
{
	const struct db_row *task;
	struct db_view view;
	struct db_txn txn;
	struct err err = { 0 };
	int rc;
	struct admit ad = { .pool = pool,
		.view = &view,
		.arena = a,
		.method = r->method,
		.args = r->args,
		.task = arena_printf(a, "OpaqueRef:%s", r->task_uuid),
		.txn = &txn };

	db_txn_init(&txn, DB_FOR_ADMIT);
	db_txn_origin(&txn, (struct db_origin){ r->user, ad.task, r->method->name });
	db_view_pin(pool->db, &view);
	task = db_view_get(&view, MODEL_CLASS_task, ad.task);
	if (task == NULL) {
		db_txn_need_no_row(&txn, MODEL_CLASS_task, ad.task);
		rc = admit_one(&ad, r, &err);
	} else {
		rc = admit_again(&ad, r, task, &err);
	}
	if (rc == 0)
		rc = txn_fits(&txn, &err);
	if (rc != 0) {
		db_refuse(pool->db, id, &err);
	} else {
		txn.schema = db_view_schema(&view);
		db_admit(pool->db, id, &txn);
	}
	db_view_unpin(&view);
	err_fini(&err);
	db_txn_fini(&txn);
}

static void on_arrival(struct loop_call *call)
{
	struct arrival *ar = container_of(call, struct arrival, call);
	struct request r;
	struct arena a;

	arena_init(&a);
	if (request_decode(&a, ar->bytes, ar->n, &r))
		admit_arrived(ar->pool, &ar->id, &r, &a);
	else
		log_warn(ar->pool->env,
			"event=request_refused member=%llu why=\"it does not parse: another "
			"version?\"",
			(unsigned long long)ar->id.raft_id);
	arena_fini(&a);
	free(ar);
}

void admit_request(void *arg, const struct db_proposal_id *id, const uint8_t *bytes, size_t n)
{
	struct pool *pool = arg;
	struct arrival *ar;

	if (pool->witness) /* about to hand over: who asks, asks the next one */
		return;
	ar = mem_new(sizeof *ar + n);
	ar->pool = pool;
	ar->id = *id;
	ar->n = n;
	memcpy(ar->bytes, bytes, n);
	loop_post(pool->loops[0].loop, &ar->call, on_arrival);
}

/* The accepting side. */

static void on_decided(struct db_proposal *p);

static void ask(struct call *call)
{
	const char *id = request_id(&call->task_config);
	char uuid[UUID_LEN + 1];
	struct request r = { .method = call->method,
		.args = call->args,
		.user = call->caller.user,
		.session = call->caller.session,
		.originator = call->caller.originator,
		.task_uuid = uuid,
		.keep = call->async,
		.parent = NULL_REF,
		.other_config = call->task_config };
	struct buf bytes = { 0 };

	pool_ref(call->pool, uuid, call->task);
	if (id != NULL) {
		request_uuid(call->caller.user, call->caller.sid, id, uuid);
		snprintf(call->task, sizeof call->task, "OpaqueRef:%s", uuid);
	}
	request_encode(&bytes, &r);
	db_request(call->pool->db, &call->proposal, &bytes, call->io->loop, on_decided);
}

static void on_decided(struct db_proposal *p)
{
	struct call *call = container_of(p, struct call, proposal);
	struct db_result *res = &p->result;

	if (res->status == DB_FAILED && call_may_retry(call)) {
		db_proposal_fini(
			p); /* something changed between the rules and the log: evaluate again */
		ask(call);
		return;
	}
	if (res->status == DB_DONE && !call->async) {
		call_await_task(call);
		return;
	}
	if (res->status == DB_DONE)
		call->result = val_string(call->task);
	else if (res->status == DB_REFUSED) {
		err_move(&call->err, &res->err);
		call->task_due = call->async; /* it says so */
	} else if (res->status == DB_FAILED)
		err_set(&call->err, ERR_INTERNAL_ERROR, "the object kept changing", NULL);
	else
		call_undecided(call, res->leader);
	call_finish(call);
}

int operation_call(struct call *call, struct err *err)
{
	struct model_functions fn = model_functions(call->method);

	if (fn.run == NULL)
		return err_set(err, ERR_NOT_IMPLEMENTED, call->method->name, NULL);
	if (call->method->call == MODEL_CREATE && access_record(call, err) != 0)
		return ERR_API;
	ask(call);
	return CALL_PENDING;
}
