/* A call from the socket to its function and back. The order of the steps is wire.md 3.1:
 *
 *   parse -> text check -> name -> count -> decode -> session -> role -> run
 *
 * A call runs on its I/O loop against a pinned view and never blocks there. It ends at once, or it
 * returns CALL_PENDING and somebody calls call_finish() later. When it fails for a session, object
 * or uuid that is unknown *here*, it takes a read barrier and runs once more: what was acknowledged
 * elsewhere may only be late.
 */
#include "pool/request_priv.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void call_drop(struct call *call)
{
	records_place_free(call);
	db_view_unpin(&call->view);
	loop_timer_stop(&call->timer);
	err_fini(&call->err);
	for (unsigned i = 0; i < ARRAY_LEN(call->on_failed); i++)
		err_fini(&call->on_failed[i]);
	db_proposal_fini(&call->proposal);
	buf_fini(&call->text);
	buf_fini(&call->body);
	arena_fini(&call->arena);
	call->io->n_calls--;
	if (call->leaves)
		join_leave(call->pool);
	free(call);
}

/* A result may point into the view, or to a text that lives for this turn only. */
static void answer_encode(struct call *call)
{
	if (call->body.len == 0)
		rpc_reply_encode(
			&call->body, &call->message, &call->result, call->bare, &call->err);
}

enum { HEADERS_MAX = 128 };

static void headers_of(const struct call *call, char out[HEADERS_MAX])
{
	char stale[48] = "";

	if (call->stale)
		snprintf(stale, sizeof stale, "X-Pool-Stale: %llu\r\n",
			(unsigned long long)db_leader_silence_ms(call->pool->db) / 1000);
	snprintf(out, HEADERS_MAX, "X-Pool-Index: %llu-%llu\r\n%s",
		(unsigned long long)call->pool->cfg.db.epoch, (unsigned long long)call->shown_index,
		stale);
}

static const char *content_type(const struct call *call)
{
	return call->message.codec == RPC_XML ? "text/xml" : "application/json";
}

static void reply(struct call *call, unsigned status)
{
	char headers[HEADERS_MAX];

	headers_of(call, headers);
	answer_encode(call);
	rpc_reply(call->request, status, content_type(call), headers, call->body.data,
		call->body.len);
}

static void reply_long(struct call *call)
{
	char headers[HEADERS_MAX];

	headers_of(call, headers);
	rpc_reply_chunked(call->request, 200, content_type(call), headers);
	records_send(call);
}

/* The last look: from here on the answer shows nothing newer. */
static void look_last(struct call *call)
{
	struct db_view now;

	db_view_pin(call->pool->db, &now);
	call->shown_index = db_view_index(&now);
	db_view_unpin(&now);
}

static void on_held_again(struct db_use *use)
{
	struct call *call = container_of(use, struct call, use);

	call->inside = use->ok;
	call->stale |= !use->ok;
	if (call->records != NULL) /* nothing of it has been kept */
		call_run(call);
	else
		call_finish(call);
}

/* May the answer go out? It may when this member holds the session now; if not, it takes it first:
 * true: it may; false: call_finish comes again. */
static bool may_answer(struct call *call)
{
	bool stands = false;

	look_last(call);
	if (!call->has_key || call->stale)
		return true;
	while (!stands) {
		if (!call->inside && call->request != NULL &&
			!db_use_enter(call->pool->db, &call->use, call->key, call->io->loop,
				on_held_again))
			return false;
		if (!call->inside && call->request == NULL)
			return true; /* nobody will see it */
		call->inside = false;
		stands = db_use_leave(call->pool->db, &call->use);
	}
	return true;
}

void call_finish(struct call *call)
{
	struct env *env = call->pool->env;

	loop_assert(call->io->loop);
	if (call->task_due) {
		task_write_ended(call);
		return;
	}
	call->finishing = true;
	if (!may_answer(call)) {
		if (call->records == NULL)
			answer_encode(call);
		db_view_unpin(&call->view);
		return;
	}
	COUNT(env, calls);
	if (call->err.code != NULL) {
		COUNT(env, calls_failed);
		log_debug(env, "event=call_failed method=%s code=%s p0=%s", call->message.method,
			call->err.code->name, call->err.n > 0 ? call->err.params[0] : "");
	}
	audit_end(call);
	if (call->within != NULL)
		within_answer(call);
	else if (call->request != NULL && call->service != NULL)
		service_refuse(call);
	else if (call->request != NULL && call->records != NULL) {
		reply_long(call);
		return;
	} else if (call->request != NULL)
		reply(call, 200);
	call_drop(call);
}

/* The client has gone: what only waits ends, what writes goes on without a listener. */
static void on_gone(struct rpc_request *request, void *arg)
{
	struct call *call = arg;

	(void)request;
	call->request = NULL;
	if (call->event != NULL && !call->finishing) {
		event_unpark(call);
		call_finish(call);
	} else if (call->records != NULL) {
		records_gone(call);
	}
}

/* Writes. */

void call_undecided(struct call *call, uint64_t leader)
{
	struct pool *pool = call->pool;
	struct err *err = &call->err;
	struct db_view view;
	struct db_member members[CHANNEL_PEERS_MAX];
	uint64_t index;
	unsigned n = db_members(pool->db, members, &index);
	const struct db_row *host = NULL;

	call->stale = true; /* what shows nothing need not wait until the session is held again */
	if (leader == 0) {
		err_set(err, ERR_HOST_IN_EMERGENCY_MODE, NULL);
		return;
	}
	db_view_pin(pool->db, &view);
	for (unsigned i = 0; i < n; i++)
		if (members[i].raft_id == leader)
			host = pool_host_of(&view, members[i].host_uuid);
	err_set(err, ERR_CANNOT_CONTACT_HOST, host != NULL ? db_row_ref(host) : NULL_REF, NULL);
	db_view_unpin(&view);
}

bool call_may_retry(struct call *call)
{
	uint64_t now = env_now_ms(call->pool->env);

	if (call->retry_until_ms == 0)
		call->retry_until_ms = now + POOL_RETRY_MS;
	return now < call->retry_until_ms;
}

static void on_written(struct db_proposal *p)
{
	struct call *call = container_of(p, struct call, proposal);
	struct db_result *res = &p->result;

	loop_assert(call->io->loop);
	switch (res->status) {
	case DB_DONE:
		if (call->written != NULL) {
			call->written(call);
			return;
		}
		break;
	case DB_FAILED:
		if (res->failed < ARRAY_LEN(call->on_failed) &&
			call->on_failed[res->failed].code != NULL)
			err_move(&call->err, &call->on_failed[res->failed]);
		else if (res->failed == DB_ROW_FULL)
			err_set(&call->err, ERR_VALUE_NOT_SUPPORTED, "value", "",
				"the object would be larger than 8 MiB", NULL);
		else if (call_may_retry(call)) {
			db_proposal_fini(p);
			call_begin(call);
			return;
		} else
			err_set(&call->err, ERR_INTERNAL_ERROR, "the object kept changing", NULL);
		break;
	case DB_REFUSED: err_move(&call->err, &res->err); break;
	case DB_UNKNOWN: call_undecided(call, res->leader); break;
	}
	call_finish(call);
}

int txn_fits(const struct db_txn *txn, struct err *err)
{
	enum { HEAD_MAX = 256 };

	return txn->origin.len + txn->preconditions.len + txn->ops.len <= DB_ENTRY_MAX - HEAD_MAX
		       ? 0
		       : err_set(err, ERR_VALUE_NOT_SUPPORTED, "value", "", "larger than 1 MiB",
				 NULL);
}

int call_write(struct call *call, struct db_txn *txn, void (*written)(struct call *call))
{
	loop_assert(call->io->loop);
	db_txn_origin(txn, (struct db_origin){ call->caller.user, call->task, call->method->name });
	if (txn_fits(txn, &call->err) != 0) {
		db_txn_fini(txn);
		return ERR_API;
	}
	call->written = written;
	/* a write that was made under the schema before is made anew: on_written */
	if (call->view.state != NULL)
		txn->schema = db_view_schema(&call->view);
	db_propose(call->pool->db, &call->proposal, txn, call->io->loop, on_written);
	return CALL_PENDING;
}

/* Running. */

static bool may_be_late(const struct call *call)
{
	const struct err_code *c = call->err.code;

	return !call->barriered &&
	       (c == ERR_HANDLE_INVALID || c == ERR_UUID_INVALID || c == ERR_SESSION_INVALID);
}

static void on_barrier(struct db_barrier *b)
{
	struct call *call = container_of(b, struct call, barrier);
	struct db_stat stat;

	if (b->ok) {
		err_fini(&call->err);
		call_begin(call);
	} else {
		/* unknown is not invalid: nobody may throw a good session away because there is no
		 * leader */
		db_stat(call->pool->db, &stat);
		call_undecided(call, stat.leader);
		call_finish(call);
	}
}

/* What is new in this version waits until the pool's schema has been raised. */
static int schema_check(const struct call *call, struct err *err)
{
	unsigned active = db_view_schema(&call->view);
	bool known = call->method->schema <= active;

	for (unsigned i = 0; i < call->method->n_params && known && active < MODEL_SCHEMA_VERSION;
		i++)
		known = model_value_known(call->method->params[i].type, &call->args[i], active);
	return known ? 0 : err_set(err, ERR_NOT_SUPPORTED_DURING_UPGRADE, NULL);
}

static int execute(struct call *call)
{
	struct model_functions fn;
	int rc;

	if (call->service != NULL)
		return service_execute(call, &call->err);
	if (call->method->session) {
		rc = call->within != NULL
			     ? 0
			     : session_check(call, call->message.params->items[0].s, &call->err);
		if (call->within != NULL)
			roles_refresh(&call->caller, &call->view, &call->arena);
		if (rc == 0)
			audit_begin(call);
		if (rc == 0)
			rc = role_check(call, &call->err);
		if (rc != 0)
			return rc;
	}
	if (call->method->call == MODEL_REMOVED)
		return err_set(&call->err, ERR_MESSAGE_REMOVED, NULL);
	if (schema_check(call, &call->err) != 0)
		return ERR_API;
	if (call->method->call != MODEL_CUSTOM && call->method->route == MODEL_LOCAL) {
		call->task_due = call->async;
		return access_call(call, &call->err);
	}
	if (call->method->route != MODEL_LOCAL)
		return operation_call(call, &call->err);
	fn = model_functions(call->method);
	if (fn.call == NULL)
		return err_set(&call->err, ERR_NOT_IMPLEMENTED, call->method->name, NULL);
	call->task_due = call->async;
	return fn.call(call, call->args_struct, &call->err);
}

void call_run(struct call *call)
{
	int rc;

	loop_assert(call->io->loop);
	call->records = NULL;
	call->finishing = false;
	db_view_pin(call->pool->db, &call->view);
	rc = execute(call);
	if (rc == CALL_PENDING) {
		if (call->inside)
			db_use_leave(call->pool->db, &call->use);
		call->inside = false; /* it will be held again before the answer */
		/* it may have been parked with what it needs copied: views are for moments */
		db_view_unpin(&call->view);
		return;
	}
	err_check(rc, &call->err);
	if (rc == 0 || !may_be_late(call)) {
		call_finish(call);
		return;
	}
	db_view_unpin(&call->view);
	if (call->inside)
		db_use_leave(call->pool->db, &call->use);
	call->inside = false;
	call->barriered = true;
	db_read_barrier(call->pool->db, &call->barrier, call->io->loop, on_barrier);
}

/* Beginning: what must be visible here before the call may look, one after the other.
 *
 *   index of the client (X-Pool-Index) -> read index (X-Pool-Read) -> the session held here -> run
 *
 * The first and the last wait DB_TIMEOUT_MS at most, then the answer is given all the same and says
 * how old it may be (database.md 3.3); a read index that cannot be had is an error. */

static void on_index(struct db_barrier *b)
{
	struct call *call = container_of(b, struct call, barrier);

	call->stale |= !b->ok;
	call_begin(call);
}

static void on_held(struct db_use *use)
{
	struct call *call = container_of(use, struct call, use);

	call->inside = use->ok;
	call->stale |= !use->ok;
	call->barriered |= use->ok; /* its read index was taken after the call came */
	call_begin(call);
}

void call_begin(struct call *call)
{
	struct db *db = call->pool->db;
	uint64_t index = call->need_index;

	loop_assert(call->io->loop);
	call->need_index = 0;
	if (index != 0) {
		db_await(db, &call->barrier, index, call->io->loop, on_index);
	} else if (call->linearizable) {
		call->linearizable = false;
		call->barriered = true;
		db_read_barrier(db, &call->barrier, call->io->loop, on_barrier);
	} else if (call->has_key && !call->stale && !call->inside &&
		   !db_use_enter(db, &call->use, call->key, call->io->loop, on_held)) {
		return;
	} else {
		call->inside = call->has_key && !call->stale;
		call_run(call);
	}
}

/* What the client wants to see at least. false: that is no such header. */
static bool read_floor(struct call *call)
{
	const char *index = call->request->pool_index, *read = call->request->pool_read;
	unsigned long long epoch;
	struct db_view view;
	char *end;

	call->linearizable = strcmp(read, "linearizable") == 0;
	if (*read != 0 && !call->linearizable)
		return false;
	if (*index != 0) {
		epoch = strtoull(index, &end, 10);
		if (!isdigit((unsigned char)index[0]) || *end != '-' ||
			!isdigit((unsigned char)end[1]))
			return false;
		call->need_index = strtoull(end + 1, &end, 10);
		if (*end != 0)
			return false;
		if (epoch != call->pool->cfg.db.epoch) { /* its numbers mean nothing here */
			call->need_index = 0;
			call->linearizable = true;
		}
	}
	if (call->method->session) {
		db_view_pin(call->pool->db, &view);
		call->has_key = session_key(&view, call->message.params->items[0].s, call->key);
		db_view_unpin(&view);
	}
	return true;
}

/* Before running: everything that needs no database. */

static bool text_ok(const struct val *v, const char **bad_out)
{
	bool ok = true;

	if (v->kind == VAL_STRING && !val_text_ok(v->s)) {
		*bad_out = v->s;
		return false;
	}
	for (uint32_t i = 0; (v->kind == VAL_SET || v->kind == VAL_MAP) && i < v->n && ok; i++) {
		ok = text_ok(v->kind == VAL_SET ? &v->items[i] : &v->pairs[i].value, bad_out);
		if (ok && v->kind == VAL_MAP && !val_text_ok(v->pairs[i].key)) {
			*bad_out = v->pairs[i].key;
			ok = false;
		}
	}
	return ok;
}

static int count_check(struct call *call, struct err *err)
{
	const struct model_message *m = call->method;
	unsigned given = call->message.params->n,
		 mine = given > 0 ? given - (m->session ? 1 : 0) : 0;
	char expected[16], received[16];

	/* surplus arguments are an error only where nothing is optional */
	if (!(m->session && given == 0) && mine >= m->n_required &&
		(mine == m->n_required || m->n_params > m->n_required))
		return 0;
	snprintf(expected, sizeof expected, "%u", m->n_required);
	snprintf(received, sizeof received, "%u", mine);
	return err_set(
		err, ERR_MESSAGE_PARAMETER_COUNT_MISMATCH, m->name, expected, received, NULL);
}

void *pool_args(struct arena *a, const struct model_message *m, const struct val *args)
{
	char *out = m->args_size > 0 ? arena_alloc(a, m->args_size) : NULL;

	for (unsigned i = 0; out != NULL && i < m->n_params; i++) {
		void *at = out + m->params[i].offset;

		switch (m->params[i].type->kind) {
		case MODEL_STRING:
		case MODEL_SECRET:
		case MODEL_ENUM:
		case MODEL_REF: *(const char **)at = args[i].s; break;
		case MODEL_INT:
		case MODEL_DATETIME: *(int64_t *)at = args[i].i; break;
		case MODEL_FLOAT: *(double *)at = args[i].f; break;
		case MODEL_BOOL: *(bool *)at = args[i].b; break;
		default: *(const struct val **)at = &args[i]; break;
		}
	}
	return out;
}

static int decode(struct call *call, struct err *err)
{
	const struct model_message *m = call->method;
	const struct val *given = call->message.params->items;
	unsigned skip = m->session ? 1 : 0, n = call->message.params->n;
	int rc;

	call->args = arena_alloc(&call->arena, (m->n_params + 1) * sizeof *call->args);
	for (unsigned i = 0; i < m->n_params; i++) {
		if (i + skip >= n) {
			call->args[i] = m->params[i].initial;
			continue;
		}
		rc = rpc_coerce(&call->arena, call->message.codec, m->params[i].type,
			m->params[i].name, &given[i + skip], &call->args[i], err);
		if (rc != 0)
			return rc;
	}
	call->args_struct = pool_args(&call->arena, m, call->args);
	return 0;
}

static void system_call(struct call *call)
{
	const char *method = call->message.method;

	if (strcmp(method, "system.listMethods") == 0) {
		call->bare = true;
		call->result = val_set();
		for (unsigned i = 0; i < model_n_messages; i++)
			val_set_push(
				&call->arena, &call->result, val_string(model_messages[i].name));
	} else if (call->message.params->n > 0) { /* system.isAlive:TEXT */
		call->result = call->message.params->items[0];
	}
	call_finish(call);
}

static int prepare(struct call *call, struct err *err)
{
	const char *name = call->message.method, *bad;

	if (!text_ok(call->message.params, &bad))
		return err_set(
			err, ERR_INVALID_VALUE, "Invalid UTF-8 string in parameter", "", NULL);
	if (strncmp(name, "Async.", 6) == 0) {
		call->async = true;
		name += 6;
	}
	call->method = model_message_find(name);
	if (call->method == NULL)
		return err_set(err, ERR_MESSAGE_METHOD_UNKNOWN, call->message.method, NULL);
	if (call->async && !call->method->async)
		return err_set(err, ERR_Fault,
			arena_printf(&call->arena, "No async mode for this operation (rpc: %s)",
				call->message.method),
			NULL);
	if (count_check(call, err) != 0)
		return ERR_API;
	if (call->method->session && call->message.params->items[0].kind != VAL_STRING)
		return err_set(err, ERR_FIELD_TYPE_ERROR, "session_id", NULL);
	return call->method->call == MODEL_REMOVED ? 0 : decode(call, err);
}

/* X-Http-Other-Config-KEY: what the call's task has as http:KEY (wire.md, task headers). */
static int read_task_config(struct call *call, struct err *err)
{
	char *line = arena_strdup(&call->arena, call->request->task_config), *next, *value;
	const char *id;

	for (; *line != 0; line = next) {
		next = line + strcspn(line, "\n");
		if (*next != 0)
			*next++ = 0;
		value = strchr(line, ':');
		CHECK(value != NULL);
		*value++ = 0;
		if (!val_text_ok(line) || !val_text_ok(value))
			return err_set(err, ERR_INVALID_VALUE, "X-Http-Other-Config-*",
				"it is not UTF-8", NULL);
		if (call->task_config.kind == VAL_VOID)
			call->task_config = val_map();
		val_map_push(&call->arena, &call->task_config,
			arena_printf(&call->arena, "http:%s", line), val_string(value));
	}
	id = request_id(&call->task_config);
	if (id != NULL && (*id == 0 || strlen(id) > POOL_TASK_NAME_MAX))
		return err_set(err, ERR_INVALID_VALUE, "X-Http-Other-Config-Request-Id",
			"it has 1 to 100 bytes", NULL);
	return 0;
}

/* Which codec a path speaks; /json is XML by history, unless the body says otherwise. */
static bool is_json(const struct rpc_request *request)
{
	size_t i = 0;

	if (strcmp(request->path, "/jsonrpc") == 0)
		return true;
	if (strcmp(request->path, "/json") != 0)
		return false;
	while (i < request->body_len && strchr(" \t\r\n", request->body[i]) != NULL)
		i++;
	return i < request->body_len && request->body[i] == '{';
}

static void refuse(struct call *call, unsigned status, const char *why)
{
	err_set(&call->err, ERR_INTERNAL_ERROR, why != NULL ? why : "malformed", NULL);
	COUNT(call->pool->env, calls);
	COUNT(call->pool->env, calls_failed);
	reply(call, status);
	call_drop(call);
}

struct call *call_new(struct pool_loop *io, struct rpc_request *request)
{
	struct call *call = mem_new(sizeof *call);

	call->pool = io->pool;
	call->io = io;
	call->request = request;
	io->n_calls++;
	if (request != NULL) {
		request->gone = on_gone;
		request->gone_arg = call;
	}
	arena_init(&call->arena);
	return call;
}

void pool_request(void *arg, struct rpc_request *request)
{
	struct call *call;
	const char *why = NULL;
	int rc;

	if (pool_service(arg, request))
		return;
	call = call_new(arg, request);
	rc = (is_json(request) ? rpc_json_request : rpc_xml_request)(
		&call->arena, request->body, request->body_len, &call->message, &why);
	if (rc != 0) {
		call->message.method = "?";
		refuse(call, 500, why);
		return;
	}
	if (strncmp(call->message.method, "system.", 7) == 0 &&
		(strcmp(call->message.method + 7, "listMethods") == 0 ||
			strncmp(call->message.method + 7, "isAlive:", 8) == 0)) {
		system_call(call);
		return;
	}
	if (prepare(call, &call->err) != 0 || read_task_config(call, &call->err) != 0)
		call_finish(call);
	else if (!read_floor(call))
		refuse(call, 400, "X-Pool-Index is EPOCH-INDEX, X-Pool-Read is linearizable");
	else
		call_begin(call);
}
