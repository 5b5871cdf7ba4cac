/* The class task: its calls, and plain calls that wait for the end of theirs. */
#include "pool/pool_priv.h"

#include <string.h>

/* Values that only results have: records, and what may be absent. */
static int read_typed(struct arena *a, const struct model_type *type, const struct val *in,
	struct val *out, struct err *err)
{
	bool set = type->kind == MODEL_SET || type->kind == MODEL_OPTION;
	struct val item;

	if (!set && type->kind != MODEL_RECORD)
		return rpc_coerce(a, RPC_XML, type, "result", in, out, err);
	if (in->kind != (set ? VAL_SET : VAL_MAP) || (type->kind == MODEL_OPTION && in->n > 1))
		return err_set(err, ERR_FIELD_TYPE_ERROR, "result", NULL);
	*out = set ? val_set() : val_map();
	for (uint32_t i = 0; i < in->n; i++) {
		const struct val *from = set ? &in->items[i] : &in->pairs[i].value;
		int field = set ? 0 : model_field_find(type->class_id, in->pairs[i].key);

		if (field < 0)
			return err_set(err, ERR_FIELD_TYPE_ERROR, in->pairs[i].key, NULL);
		if (read_typed(a,
			    set ? type->item : model_classes[type->class_id].fields[field].type,
			    from, &item, err) != 0)
			return ERR_API;
		if (set)
			val_set_push(a, out, item);
		else
			val_map_push(a, out, in->pairs[i].key, item);
	}
	return 0;
}

/* The result in the row, XML-RPC text, as a value of the method's type. */
static void read_result(struct call *call, const struct db_row *task)
{
	const struct model_type *type = call->method->result;
	const char *text, *why;
	struct rpc_message m;

	if (type->kind == MODEL_VOID)
		return;
	text = arena_printf(&call->arena,
		"<methodCall><methodName>r</methodName><params><param>%s</param></params>"
		"</methodCall>",
		db_row_s(task, TASK_result));
	if (rpc_xml_request(&call->arena, text, strlen(text), &m, &why) == 0 && m.params->n == 1 &&
		read_typed(&call->arena, type, &m.params->items[0], &call->result, &call->err) == 0)
		return;
	err_fini(&call->err);
	err_set(&call->err, ERR_INTERNAL_ERROR, "the result cannot be read", NULL);
}

static bool ended(struct call *call)
{
	struct db_view view;
	const struct db_row *task;
	struct val info;
	const char *params[ERR_PARAMS_MAX];
	const struct err_code *code;
	bool done = true;

	db_view_pin(call->pool->db, &view);
	task = db_view_get(&view, MODEL_CLASS_task, call->task);
	if (task == NULL) {
		err_set(&call->err, ERR_HANDLE_INVALID, "task", call->task, NULL);
	} else if (task_pending(task)) {
		done = false;
	} else if (strcmp(db_row_s(task, TASK_status), "success") != 0) {
		info = db_row_field(task, TASK_error_info, &call->arena);
		for (uint32_t i = 1; i < info.n && i <= ERR_PARAMS_MAX; i++)
			params[i - 1] = info.items[i].s;
		code = info.n > 0 ? model_error_find(info.items[0].s) : NULL;
		if (code != NULL)
			err_set_list(&call->err, code, params, info.n - 1);
		else
			err_set(&call->err, ERR_INTERNAL_ERROR,
				info.n > 0 ? info.items[0].s : "the task failed", NULL);
	} else {
		read_result(call, task);
	}
	db_view_unpin(&view);
	return done;
}

void call_await_task(struct call *call)
{
	call->io->n_task_waiters++;
	if (ended(call)) {
		call->io->n_task_waiters--;
		call_finish(call);
		return;
	}
	call->next_waiter = call->io->task_waiters;
	call->io->task_waiters = call;
}

void tasks_look(struct pool_loop *io)
{
	struct call **at = &io->task_waiters;

	loop_assert(io->loop);
	while (*at != NULL) {
		struct call *call = *at;

		if (!ended(call)) {
			at = &call->next_waiter;
			continue;
		}
		*at = call->next_waiter;
		io->n_task_waiters--;
		call_finish(call);
	}
}

struct db_origin task_origin(const struct db_row *task, struct arena *a)
{
	struct val caller = db_row_field(task, TASK_caller, a);

	return (struct db_origin){ val_get_s(&caller, "user"), db_row_ref(task),
		db_row_s(task, TASK_method) };
}

/* Of a task that this call makes by itself. */
static struct val caller_of(struct call *call)
{
	const struct caller *c = &call->caller;

	return task_caller(&call->arena, c->user, c->session, c->originator, c->sid);
}

static void told(struct call *call)
{
	call->result = val_string(call->task);
	call_finish(call);
}

static void result_fields(struct call *call, struct val *fields)
{
	struct buf text = { 0 };
	struct val info = val_set();

	if (call->err.code != NULL) {
		val_set_push(&call->arena, &info, val_string(call->err.code->name));
		for (unsigned i = 0; i < call->err.n; i++)
			val_set_push(&call->arena, &info,
				val_string(arena_strdup(&call->arena, call->err.params[i])));
		fields[TASK_error_info] = info;
	} else if (call->method->result->kind != MODEL_VOID) {
		rpc_xml_value(&text, &call->result);
		fields[TASK_result] = val_string(arena_strdup(&call->arena, buf_text(&text)));
		buf_fini(&text);
	}
	fields[TASK_status] = val_string(call->err.code != NULL ? "failure" : "success");
}

void task_write_ended(struct call *call)
{
	struct val fields[TASK_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char uuid[UUID_LEN + 1];
	struct db_txn txn;

	call->task_due = false;
	if (call->proposal.result.status == DB_UNKNOWN && call->err.code != NULL) {
		call_finish(call); /* no task either: nobody decides at the moment */
		return;
	}
	pool_ref(call->pool, uuid, call->task);
	result_fields(call, fields);
	fields[TASK_uuid] = val_string(uuid);
	fields[TASK_name_label] =
		val_string(arena_printf(&call->arena, "Async.%s", call->method->name));
	fields[TASK_created] = fields[TASK_finished] = val_datetime(env_wall_s(call->pool->env));
	fields[TASK_progress] = val_float(1);
	fields[TASK_type] = val_string("<none/>");
	fields[TASK_method] = val_string(call->method->name);
	fields[TASK_other_config] = call->task_config;
	fields[TASK_session] = val_string(call->caller.session);
	fields[TASK_caller] = caller_of(call);
	fields[TASK_keep] = val_bool(true);
	db_txn_init(&txn, DB_FOR_FINISH);
	db_txn_create(&txn, MODEL_CLASS_task, call->task, fields);
	db_view_unpin(&call->view); /* it had the result */
	err_fini(&call->err);
	db_proposal_fini(&call->proposal);
	if (call_write(call, &txn, told) != CALL_PENDING)
		call_finish(call);
}

int task_create(struct call *call, const struct task_create_args *args, struct err *err)
{
	struct val fields[TASK_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct db_txn txn;

	(void)err;
	pool_ref(call->pool, uuid, ref);
	fields[TASK_uuid] = val_string(uuid);
	fields[TASK_name_label] = val_string(args->label);
	fields[TASK_name_description] = val_string(args->description);
	fields[TASK_created] = val_datetime(env_wall_s(call->pool->env));
	fields[TASK_status] = val_string("pending");
	fields[TASK_type] = val_string("<none/>");
	fields[TASK_session] = val_string(call->caller.session);
	fields[TASK_caller] = caller_of(call);
	fields[TASK_keep] = val_bool(true);
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_create(&txn, MODEL_CLASS_task, ref, fields);
	call->result = val_string(arena_strdup(&call->arena, ref));
	return call_write(call, &txn, NULL);
}

/* An ended task goes; a pending one is marked and goes when it ends. */
int task_destroy(struct call *call, const struct task_destroy_args *args, struct err *err)
{
	const struct db_row *task = db_view_get(&call->view, MODEL_CLASS_task, args->self);
	struct db_txn txn;
	struct val locks;

	if (task == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "task", args->self, NULL);
	locks = db_row_field(task, TASK_locks, &call->arena);
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_version(&txn, MODEL_CLASS_task, args->self, db_row_modified(task));
	if ((!task_pending(task) || *db_row_s(task, TASK_method) == 0) && locks.n == 0)
		db_txn_delete(&txn, MODEL_CLASS_task, args->self);
	else
		db_txn_set(&txn, MODEL_CLASS_task, args->self, TASK_keep, val_bool(false));
	return call_write(call, &txn, NULL);
}

int task_cancel(struct call *call, const struct task_cancel_args *args, struct err *err)
{
	const struct db_row *task = db_view_get(&call->view, MODEL_CLASS_task, args->task);
	char uuid[UUID_LEN + 1],
		key[DB_REF_MAX + 1]; /* of this cancel; a session would be a secret on show */
	struct db_txn txn;

	if (task == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "task", args->task, NULL);
	pool_ref(call->pool, uuid, key);
	if (!task_pending(task))
		return 0;
	db_txn_init(&txn, DB_FOR_FIELD);
	/* one that ends meanwhile keeps no such word */
	db_txn_need_version(&txn, MODEL_CLASS_task, args->task, db_row_modified(task));
	db_txn_map_add(&txn, MODEL_CLASS_task, args->task, TASK_current_operations, key,
		val_string("cancel"));
	return call_write(call, &txn, NULL);
}

/* What clients say of tasks that they have made (task.create); who may is role.c's. */

/* Those of operations have an owner, which alone knows. */
static int client_task(
	struct call *call, const char *ref, const struct db_row **out, struct err *err)
{
	*out = db_view_get(&call->view, MODEL_CLASS_task, ref);
	if (*out == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "task", ref, NULL);
	if (*db_row_s(*out, TASK_method) != 0)
		return err_set(err, ERR_OPERATION_NOT_ALLOWED,
			"The pool itself says how its operations go: only tasks made by "
			"task.create are written by clients",
			NULL);
	return 0;
}

static void told_begin(struct db_txn *txn, const struct db_row *task)
{
	db_txn_init(txn, DB_FOR_FIELD);
	db_txn_need_version(txn, MODEL_CLASS_task, db_row_ref(task), db_row_modified(task));
}

/* From pending only: an end is the last word. */
int task_set_status(struct call *call, const struct task_set_status_args *args, struct err *err)
{
	const struct db_row *task;
	struct db_txn txn;

	if (client_task(call, args->self, &task, err) != 0)
		return ERR_API;
	if (!task_pending(task) || strcmp(args->value, db_row_s(task, TASK_status)) == 0)
		return 0;
	told_begin(&txn, task);
	db_txn_set(&txn, MODEL_CLASS_task, args->self, TASK_status, val_string(args->value));
	if (strcmp(args->value, "pending") != 0 && strcmp(args->value, "cancelling") != 0) {
		db_txn_set(&txn, MODEL_CLASS_task, args->self, TASK_finished,
			val_datetime(env_wall_s(call->pool->env)));
		db_txn_set(&txn, MODEL_CLASS_task, args->self, TASK_progress, val_float(1));
		db_txn_set(&txn, MODEL_CLASS_task, args->self, TASK_current_operations, val_map());
	}
	return call_write(call, &txn, NULL);
}

/* Steps under PROGRESS_STEP cost no entry in the log. */
int task_set_progress(struct call *call, const struct task_set_progress_args *args, struct err *err)
{
	static const double PROGRESS_STEP = 0.01;
	const struct db_row *task;
	struct db_txn txn;
	double step;

	if (client_task(call, args->self, &task, err) != 0)
		return ERR_API;
	if (!(args->value >= 0 && args->value <= 1))
		return err_set(err, ERR_VALUE_NOT_SUPPORTED, "value",
			arena_printf(&call->arena, "%g", args->value), "progress is from 0 to 1",
			NULL);
	step = args->value - db_row_field(task, TASK_progress, &call->arena).f;
	if (!task_pending(task) || (step > -PROGRESS_STEP && step < PROGRESS_STEP))
		return 0;
	told_begin(&txn, task);
	db_txn_set(&txn, MODEL_CLASS_task, args->self, TASK_progress, val_float(args->value));
	return call_write(call, &txn, NULL);
}

/* Clients write these before or after the status. */
static int set_outcome(
	struct call *call, const char *ref, int field, struct val value, struct err *err)
{
	const struct db_row *task;
	struct db_txn txn;

	if (client_task(call, ref, &task, err) != 0)
		return ERR_API;
	told_begin(&txn, task);
	db_txn_set(&txn, MODEL_CLASS_task, ref, field, value);
	return call_write(call, &txn, NULL);
}

int task_set_result(struct call *call, const struct task_set_result_args *args, struct err *err)
{
	return set_outcome(call, args->self, TASK_result, val_string(args->value), err);
}

int task_set_error_info(
	struct call *call, const struct task_set_error_info_args *args, struct err *err)
{
	return set_outcome(call, args->self, TASK_error_info, *args->value, err);
}
