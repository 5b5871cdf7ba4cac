/* pool.join: this host, a pool of its own, becomes a member of another.
 *
 *   log in there, read what the checks need --> nothing is begun here any more (joining) --> checks
 *     --> the record, join.json: where, and the session
 *     --> POST /pool/newcomer until that is decided: one entry there lets this host in
 *     --> members.next.json, the pool as it is told to this host
 *     --> this program begins anew: members_take_next sets the own log aside and takes that up
 *
 * What is asked there has with it what this host has of its own (carry.c), read of its database at
 * that moment: nothing that is done here changes it any more.
 *
 * Killed before the record, nothing has happened; behind it, the next start asks again
 * (newcomer.c tells who is in already), so the host is in the pool wholly or not at all. What
 * nobody can be asked at present, or the session having ended any more, is UNDECIDED: pool.join
 * with any member of that pool decides it, and nothing is begun here meanwhile. The own database is
 * never deleted.
 */
#include "pool/carry.h"
#include "pool/join_priv.h"
#include "pool/members.h"
#include "rpc/base/file.h"
#include "rpc/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ASK_MS = 30000,
	AGAIN_MS = 1000,
	RESOLVE_MS = 10000,
	NAME_MAX_LEN = 253,    /* bytes of a host name */
	LET_IN_MS = 60000,     /* who called waits for that so long */
	ANSWER_MAX = 16 << 20, /* bytes of one answer of the pool */
	RECORD_MAX = 4096,
};

enum joining { NOT_JOINING, JOINING, UNDECIDED };

/* Of the data directory. */
static void path_of(const struct pool *pool, const char *name, char out[512])
{
	snprintf(out, 512, "%s/%s", pool->cfg.db.dir, name);
}

int join_admits(struct pool *pool, const struct db_view *view, struct err *err)
{
	struct db_cursor c;
	const struct db_row *row;

	if (pool->joining == NOT_JOINING)
		return 0;
	c = db_rows(view, MODEL_CLASS_pool);
	row = db_next(&c);
	return err_set(err, ERR_OTHER_OPERATION_IN_PROGRESS, "pool",
		row != NULL ? db_row_ref(row) : NULL_REF, "join", NULL_REF, NULL);
}

/* The pool to be joined. */

/* HOST, HOST:PORT, [IPV6]:PORT or IPV6, where HOST is an address or a name. false: it is none. */
static bool target_take(const char *given, char host[NAME_MAX_LEN + 1], unsigned *port)
{
	const char *colon = strrchr(given, ':');
	bool bracket = *given == '[', v6 = strchr(given, ':') != colon;
	size_t n = strlen(given);
	char *end = "";

	*port = POOL_API_PORT;
	if (bracket && given[n - 1] == ']')
		colon = NULL;
	if (colon != NULL && (bracket || !v6)) {
		n = (size_t)(colon - given);
		*port = (unsigned)strtoul(colon + 1, &end, 10);
		if (colon[1] < '0' || colon[1] > '9' || *end != 0 || *port == 0 || *port > 65535)
			return false;
	}
	if (bracket && (n < 2 || given[n - 1] != ']'))
		return false;
	given += bracket;
	n -= bracket ? 2 : 0;
	if (n == 0 || n > NAME_MAX_LEN)
		return false;
	memcpy(host, given, n);
	host[n] = 0;
	return true;
}

/* Where it may be. */
static int addresses_of(struct join *j, const char *host, struct resolved *out, struct err *err)
{
	uint8_t ip[16];
	const char *why;
	int rc;

	if (strlen(host) < RESOLVED_TEXT &&
		(inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1)) {
		*out = (struct resolved){ .n = 1 };
		memcpy(out->ip[0], host, strlen(host) + 1);
		return 0;
	}
	if (strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
		strlen(host))
		return err_set(err, ERR_VALUE_NOT_SUPPORTED, "master_address", j->want->address,
			"neither an IP address nor the name of a host", NULL);
	rc = rpc_resolve(j->job, j->own->loops[0].loop, host, &j->own->resolving, RESOLVE_MS, out);
	if (rc == 0 || rc == ERR_CANCELLED || rc == ERR_DEAD)
		return rc;
	why = rc == ERR_FULL	  ? "another name is being looked up: try again, or give an address"
	      : rc == ERR_TIMEOUT ? "the name server does not answer: give an address"
				  : arena_printf(&j->job->arena, "no such name: %s", out->why);
	return err_set(err, ERR_VALUE_NOT_SUPPORTED, "master_address", j->want->address, why, NULL);
}

static int no_service(const struct join *j, const char *what, const char *why, struct err *err)
{
	log_warn(j->own->env, "event=join_not_served address=%s call=%s why=\"%s\"", j->address,
		what, why);
	return err_set(err, ERR_JOINING_HOST_SERVICE_FAILED, NULL);
}

/* An error of that API, told on as it is. */
static int refused(
	const struct join *j, const char *method, const struct val *error, struct err *err)
{
	const struct val *data = val_get(error, "data");
	const char *code = val_get_s(error, "message"), *params[ERR_PARAMS_MAX];
	const struct err_code *known = code != NULL ? model_error_find(code) : NULL;
	unsigned n = 0;

	if (known == NULL)
		return no_service(j, method, code != NULL ? code : "an error without a code", err);
	for (; data != NULL && data->kind == VAL_SET && n < data->n && n < ARRAY_LEN(params) &&
		data->items[n].kind == VAL_STRING;
		n++)
		params[n] = data->items[n].s;
	return err_set_list(err, known, params, n);
}

static int ask(struct join *j, const char *method, const struct val *params, struct val *out,
	struct err *err)
{
	struct val request = val_map(), reply;
	struct rpc_answer answer;
	struct buf body = { 0 };
	const char *why;
	int rc;

	val_map_push(&j->job->arena, &request, "jsonrpc", val_string("2.0"));
	val_map_push(&j->job->arena, &request, "method", val_string(method));
	val_map_push(&j->job->arena, &request, "params", *params);
	val_map_push(&j->job->arena, &request, "id", val_int(1));
	val_json(&body, &request);
	rc = rpc_post(j->job, j->own->loops[0].loop,
		&(struct rpc_ask){
			j->address, "/jsonrpc", buf_text(&body), NULL, ANSWER_MAX, ASK_MS },
		&j->job->arena, &answer);
	buf_fini(&body);
	if (rc == ERR_CANCELLED || rc == ERR_DEAD)
		return rc;
	if (rc != 0)
		return no_service(j, method, answer.why, err);
	if (answer.status != 200)
		return no_service(j, method, "no API answers there", err);
	if (rpc_json_parse(&j->job->arena, answer.body, answer.n, &reply, &why) != 0)
		return no_service(j, method, why, err);
	if (val_get(&reply, "error") != NULL && val_get(&reply, "error")->kind != VAL_VOID)
		return refused(j, method, val_get(&reply, "error"), err);
	if (val_get(&reply, "result") == NULL)
		return no_service(j, method, "an answer without a result", err);
	*out = *val_get(&reply, "result");
	return 0;
}

static int log_in(struct join *j, struct err *err)
{
	struct val params = val_set(), session;
	int rc;

	val_set_push(&j->job->arena, &params, val_string(j->want->user));
	val_set_push(&j->job->arena, &params, val_string(j->want->password));
	val_set_push(&j->job->arena, &params, val_string("1.0"));
	val_set_push(&j->job->arena, &params, val_string("pool.join"));
	rc = ask(j, "session.login_with_password", &params, &session, err);
	if (rc != 0)
		return rc;
	if (session.kind != VAL_STRING || strlen(session.s) > DB_REF_MAX ||
		strspn(session.s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				  ":-_.") != strlen(session.s))
		return no_service(j, "session.login_with_password", "that is no session", err);
	j->session = session.s;
	return 0;
}

static void log_out(struct join *j)
{
	struct val params = val_set(), ignored;
	struct err err = { 0 };

	if (j->session == NULL)
		return;
	val_set_push(&j->job->arena, &params, val_string(j->session));
	ask(j, "session.logout", &params, &ignored, &err);
	err_fini(&err);
}

/* Facts. */

static int facts_there(struct join *j, struct err *err)
{
	struct join_side *side = &j->there;
	struct val params;
	int rc;

	for (unsigned i = 0; i < join_n_classes; i++) {
		const struct join_class *c = &join_classes[i];
		const char *method = arena_printf(&j->job->arena, "%s.get_all_records_where",
			model_classes[c->class_id].name);

		if (c->filter == NULL)
			continue;
		params = val_set();
		val_set_push(&j->job->arena, &params, val_string(j->session));
		val_set_push(&j->job->arena, &params, val_string(c->filter));
		rc = ask(j, method, &params, &side->of[c->class_id], err);
		if (rc != 0)
			return rc;
	}
	return join_side_take(side) ? 0
				    : no_service(j, "pool.get_all_records", "that is no pool", err);
}

/* The same form as the pool's, by the same path. */
static struct val records_here(struct join *j, const struct db_view *view, int class_id)
{
	struct db_cursor c = db_rows(view, class_id);
	const struct db_row *row;
	struct buf text = { 0 };
	struct val v = val_map();
	const char *copy, *why;

	while ((row = db_next(&c)) != NULL) {
		struct val record;

		text.len = 0;
		pool_record(view, row, RPC_JSON2, &text);
		copy = arena_strndup(&j->job->arena, buf_text(&text), text.len);
		if (rpc_json_parse(&j->job->arena, copy, text.len, &record, &why) == 0)
			val_map_push(&j->job->arena, &v,
				arena_strdup(&j->job->arena, db_row_ref(row)), record);
	}
	buf_fini(&text);
	return v;
}

static int facts_here(struct join *j, struct err *err)
{
	struct join_side *side = &j->here;
	const struct db_row *self;
	struct db_view view;

	db_view_pin(j->own->db, &view);
	self = pool_self(j->own, &view);
	side->host_ref = self != NULL ? arena_strdup(&j->job->arena, db_row_ref(self)) : NULL_REF;
	for (unsigned i = 0; self != NULL && i < join_n_classes; i++)
		side->of[join_classes[i].class_id] =
			records_here(j, &view, join_classes[i].class_id);
	db_view_unpin(&view);
	side->host = val_get(&side->of[MODEL_CLASS_host], side->host_ref);
	if (side->host == NULL || side->of[MODEL_CLASS_pool].n != 1)
		return err_set(err, ERR_HOST_STILL_BOOTING, NULL);
	side->pool = &side->of[MODEL_CLASS_pool].pairs[0].value;
	return 0;
}

/* Nothing new is begun from here on (join_admits): what was let in before has reached the log when
 * the admission loop has made a turn and an entry behind it is applied. */

struct turn {
	struct wait wait; /* first */
	struct loop_call posted;
};

static void turn_fini(struct wait *wait)
{
	free(container_of(wait, struct turn, wait));
}

static void on_turn(struct loop_call *posted)
{
	wait_done(&container_of(posted, struct turn, posted)->wait);
}

static int settle(struct join *j, struct err *err)
{
	struct db_result res = { .status = DB_UNKNOWN };
	struct turn *t = mem_new(sizeof *t);
	struct db_view view;
	struct db_txn txn;
	int rc;

	wait_init(&t->wait, j->job, turn_fini);
	loop_post(j->own->loops[0].loop, &t->posted, on_turn);
	rc = wait_join(&t->wait, ASK_MS, false);
	wait_drop(&t->wait);
	if (rc != 0)
		return rc == ERR_TIMEOUT ? err_set(err, ERR_HOST_STILL_BOOTING, NULL) : rc;
	db_txn_init(&txn, DB_FOR_CONFIG);
	db_txn_origin(&txn, (struct db_origin){ .user = POOL_HOST, .method = "pool.join" });
	db_view_pin(j->own->db, &view);
	db_txn_need_row(&txn, MODEL_CLASS__member, j->own->host_uuid);
	txn.schema = db_view_schema(&view);
	db_view_unpin(&view);
	rc = db_commit(j->job, j->own->db, &txn, &res);
	db_txn_fini(&txn);
	err_fini(&res.err);
	if (rc == 0 && res.status != DB_DONE)
		return err_set(err, ERR_HOST_IN_EMERGENCY_MODE, NULL);
	return rc;
}

/* The record. */

static int record_write(struct join *j, struct err *err)
{
	struct val v = val_map();
	struct buf text = { 0 };
	char path[512];
	int rc;

	val_map_push(&j->job->arena, &v, "address", val_string(j->address));
	val_map_push(&j->job->arena, &v, "session", val_string(j->session));
	val_json(&text, &v);
	path_of(j->own, MEMBERS_JOIN, path);
	rc = file_replace(path, text.data, text.len);
	buf_fini(&text);
	j->recorded = rc == 0;
	return rc == 0 ? 0 : err_set(err, ERR_INTERNAL_ERROR, strerror(errno), NULL);
}

static bool record_read(struct join *j)
{
	struct buf text = { 0 };
	char path[512];
	struct val v;
	const char *why, *address;
	bool ok = false;

	path_of(j->own, MEMBERS_JOIN, path);
	if (file_read(path, RECORD_MAX, &text) == 0 &&
		rpc_json_parse(&j->job->arena, arena_strdup(&j->job->arena, buf_text(&text)),
			text.len, &v, &why) == 0) {
		address = val_get_s(&v, "address");
		j->session = val_get_s(&v, "session");
		ok = address != NULL && j->session != NULL && strlen(address) < sizeof j->address;
		if (ok)
			strcpy(j->address, address);
	}
	buf_fini(&text);
	return ok;
}

static bool record_exists(struct pool *pool)
{
	char path[512];
	struct buf text = { 0 };
	bool is;

	path_of(pool, MEMBERS_JOIN, path);
	is = file_read(path, RECORD_MAX, &text) == 0 || errno != ENOENT;
	buf_fini(&text);
	return is;
}

/* Not let in: this host is what it was. */
static void record_remove(struct join *j)
{
	char path[512];

	path_of(j->own, MEMBERS_JOIN, path);
	j->recorded = false;
	if (file_remove(path) != 0 && errno != ENOENT)
		log_err(j->own->env, "event=file_not_removed file=%s why=\"%s\"", path,
			strerror(errno));
}

/* Being let in. */

/* What this host says of itself. false: it does not know itself yet. */
static bool put_entry(struct join *j, struct buf *out)
{
	struct pool *pool = j->own;
	struct db_member m = { 0 };
	const struct db_row *self;
	struct db_view view;
	bool known;

	pthread_mutex_lock(&pool->members_mutex);
	for (unsigned i = 0; i < pool->cfg.members->n; i++)
		if (strcmp(pool->cfg.members->m[i].host_uuid, pool->host_uuid) == 0)
			m = pool->cfg.members->m[i];
	pthread_mutex_unlock(&pool->members_mutex);
	m.raft_id = 0;
	m.standby = false;
	db_view_pin(pool->db, &view);
	self = pool_self(pool, &view);
	if (self != NULL && *db_row_s(self, HOST_name_label) != 0 &&
		strlen(db_row_s(self, HOST_name_label)) < sizeof m.name)
		strcpy(m.name, db_row_s(self, HOST_name_label));
	known = self != NULL;
	if (known) {
		buf_puts(out, "{\"member\":");
		members_put_one(out, &m);
		buf_puts(out, ",\"carried\":");
		carry_put(&view, self, out);
		buf_puts(out, "}");
	}
	db_view_unpin(&view);
	return known;
}

static bool has_print(const struct members *m, const uint8_t print[TLS_FINGERPRINT_LEN])
{
	char hex[TLS_PRINT_TEXT];

	tls_fingerprint_text(print, hex);
	for (unsigned i = 0; i < m->n; i++)
		if (strcmp(m->m[i].certificate, hex) == 0)
			return true;
	return false;
}

/* The answer of who let us in, believed where it is about us and him. */
static int keep_answer(struct join *j, const struct rpc_answer *answer, struct err *err)
{
	struct members *next = mem_new(sizeof *next);
	const struct db_member *self = NULL;
	char why[256] = "", path[512];
	int rc;

	if (members_parse(&j->job->arena, answer->body, answer->n, next, why, sizeof why))
		for (unsigned i = 0; i < next->n; i++)
			if (next->m[i].raft_id == next->self)
				self = &next->m[i];
	path_of(j->own, MEMBERS_NEXT, path);
	if (self == NULL || strcmp(self->host_uuid, j->own->host_uuid) != 0 || next->index == 0 ||
		next->left)
		rc = no_service(j, "newcomer", *why != 0 ? why : "that is not about us", err);
	else if (!has_print(next, answer->fingerprint))
		rc = err_set(err, ERR_POOL_JOINING_MASTER_CERTIFICATE_NOT_IN_POOL_BUNDLE,
			next->pool_uuid, NULL);
	else if (members_write(path, next) != 0)
		rc = err_set(err, ERR_INTERNAL_ERROR, strerror(errno), NULL);
	else
		rc = 0;
	free(next);
	return rc;
}

enum verdict { LET_IN, NOT_LET_IN, ASK_AGAIN, ASK_ANEW };

static enum verdict verdict_of(
	struct join *j, int rc, const struct rpc_answer *answer, struct err *err)
{
	unsigned status = rc == 0 ? answer->status : 0;

	if (status == 200)
		return keep_answer(j, answer, err) == 0 ? LET_IN : ASK_ANEW;
	if (status == 401 || status == 403) {
		err_set(err, ERR_SESSION_AUTHORIZATION_FAILED, "", answer->body, NULL);
		return ASK_ANEW;
	}
	no_service(j, "newcomer", rc != 0 ? answer->why : answer->body, err);
	if (status == 409)
		err_set(err, ERR_OPERATION_NOT_ALLOWED, answer->body, NULL);
	/* 408: it did not come in time; the rest of them: it was read, and is no service there */
	return status >= 400 && status < 500 && status != 408 ? NOT_LET_IN : ASK_AGAIN;
}

static int ask_once(struct join *j, enum verdict *verdict, struct err *err)
{
	const char *path = arena_printf(&j->job->arena, "/pool/newcomer?session_id=%s", j->session);
	struct rpc_answer answer;
	struct buf entry = { 0 };
	bool known;
	int rc = pool_catch_up(j->job, j->own); /* behind a start the log is still replayed */

	if (rc != 0)
		return rc;
	err_fini(err);
	known = put_entry(j, &entry);
	if (!known || entry.len > RPC_BODY_MAX) {
		buf_fini(&entry);
		*verdict = known ? NOT_LET_IN : ASK_AGAIN;
		err_set(err, known ? ERR_OPERATION_NOT_ALLOWED : ERR_HOST_STILL_BOOTING,
			known ? CARRY_TOO_MUCH : NULL, NULL);
		return 0;
	}
	rc = rpc_post(j->job, j->own->loops[0].loop,
		&(struct rpc_ask){
			j->address, path, buf_text(&entry), NULL, MEMBERS_FILE_MAX, ASK_MS },
		&j->job->arena, &answer);
	buf_fini(&entry);
	if (rc == ERR_CANCELLED || rc == ERR_DEAD)
		return rc;
	*verdict = verdict_of(j, rc, &answer, err);
	return 0;
}

/* What the pool has against that which comes with this host (carry.c): it composes the entry, and
 * makes none. */

static void add_refusal(struct join *j, struct val *all, const char *why)
{
	struct val one = val_set();

	val_set_push(&j->job->arena, &one, val_string(ERR_OPERATION_NOT_ALLOWED->name));
	val_set_push(&j->job->arena, &one, val_string(why));
	val_set_push(&j->job->arena, all, one);
}

static int ask_dry(struct join *j, struct val *all, struct err *err)
{
	const char *why, *path = arena_printf(
				 &j->job->arena, "/pool/newcomer/check?session_id=%s", j->session);
	struct rpc_answer answer;
	struct buf entry = { 0 };
	struct val said;
	int rc;

	if (!put_entry(j, &entry) || entry.len > RPC_BODY_MAX) {
		if (entry.len > 0)
			add_refusal(j, all, CARRY_TOO_MUCH);
		rc = entry.len > 0 ? 0 : err_set(err, ERR_HOST_STILL_BOOTING, NULL);
		buf_fini(&entry);
		return rc;
	}
	rc = rpc_post(j->job, j->own->loops[0].loop,
		&(struct rpc_ask){ j->address, path, buf_text(&entry), NULL, ANSWER_MAX, ASK_MS },
		&j->job->arena, &answer);
	buf_fini(&entry);
	if (rc == ERR_CANCELLED || rc == ERR_DEAD)
		return rc;
	if (rc == 0 && (answer.status == 401 || answer.status == 403))
		return err_set(err, ERR_SESSION_AUTHORIZATION_FAILED, "", answer.body, NULL);
	if (rc != 0 || answer.status != 200)
		return no_service(j, "newcomer/check", rc != 0 ? answer.why : answer.body, err);
	if (rpc_json_parse(&j->job->arena, answer.body, answer.n, &said, &why) != 0 ||
		said.kind != VAL_SET)
		return no_service(j, "newcomer/check", "that is no list", err);
	for (uint32_t i = 0; i < said.n; i++)
		if (said.items[i].kind == VAL_STRING)
			add_refusal(j, all, said.items[i].s);
	return 0;
}

static bool take_over(struct pool *pool, int from)
{
	return atomic_compare_exchange_strong(&pool->joining, &from, JOINING);
}

static void undecided(struct join *j, const struct err *err)
{
	j->own->joining = UNDECIDED;
	log_err(j->own->env,
		"event=join_undecided address=%s why=%s remedy=\"call pool.join again; or, where "
		"that pool does not know this host, remove %s and restart\"",
		j->address, err->code->name, MEMBERS_JOIN);
}

static void resume(struct pool *pool);

/* Until it is decided; `asked`: it may be so already. Who waits for it is told after a while that
 * it is not, and a job goes on asking (resuming), until pool.join is called again. 0, ERR_API;
 * ERR_CANCELLED or ERR_DEAD: somebody else goes on. */
static int be_let_in(struct join *j, bool asked, bool resuming, struct err *err)
{
	uint64_t due = env_now_ms(j->job->env) + LET_IN_MS;
	enum verdict verdict = ASK_AGAIN;
	int rc = ask_once(j, &verdict, err);

	while (rc == 0 && verdict == ASK_AGAIN) {
		asked = true;
		if (!resuming && env_now_ms(j->job->env) >= due) {
			undecided(j, err);
			resume(j->own);
			return ERR_API;
		}
		if (resuming)
			j->own->joining = UNDECIDED;
		rc = job_sleep(j->job, AGAIN_MS);
		if (rc == 0 && resuming && !take_over(j->own, UNDECIDED))
			rc = ERR_CANCELLED;
		if (rc == 0)
			rc = ask_once(j, &verdict, err);
	}
	if (rc != 0) {
		err_fini(err);
		return rc;
	}
	if (verdict == LET_IN) {
		j->recorded = false; /* the record has served */
		return 0;
	}
	/* refused for its session when it asks for the first time: refused */
	if (verdict == NOT_LET_IN || (!asked && err->code == ERR_SESSION_AUTHORIZATION_FAILED)) {
		record_remove(j);
		j->own->joining = NOT_JOINING;
	} else {
		undecided(j, err);
	}
	return ERR_API;
}

/* The whole of it. */

static int prepare(struct join *j, struct err *err)
{
	char host[NAME_MAX_LEN + 1];
	struct resolved at;
	unsigned port;
	int rc;

	if (!target_take(j->want->address, host, &port))
		return err_set(err, ERR_VALUE_NOT_SUPPORTED, "master_address", j->want->address,
			"neither an IP address nor the name of a host", NULL);
	rc = addresses_of(j, host, &at, err);
	for (unsigned i = 0; rc == 0 && i < at.n; i++) {
		snprintf(j->address, sizeof j->address,
			strchr(at.ip[i], ':') != NULL ? "[%s]:%u" : "%s:%u", at.ip[i], port);
		rc = log_in(j, err);
		if (rc != ERR_API || err->code != ERR_JOINING_HOST_SERVICE_FAILED || i + 1 == at.n)
			break;
		err_fini(err); /* nobody serves there: the next address of that name */
		rc = 0;
	}
	return rc != 0 ? rc : facts_there(j, err);
}

static int go_in(struct join *j, struct err *err)
{
	int before = NOT_JOINING, rc;

	if (!take_over(j->own, before) && !take_over(j->own, before = UNDECIDED))
		return err_set(err, ERR_OTHER_OPERATION_IN_PROGRESS, "pool",
			db_pool_uuid(j->own->db), "join", NULL_REF, NULL);
	rc = settle(j, err);
	if (rc == 0) {
		/* what the agent knows of a pool that was left would keep SRs of the new one
		 * unplugged */
		pbd_reconcile(j->job, j->own);
		rc = facts_here(j, err);
	}
	if (rc == 0)
		rc = join_check(j, NULL, err);
	if (rc == 0)
		rc = record_write(j, err);
	if (rc != 0) {
		j->own->joining = before;
		return rc;
	}
	log_info(j->own->env, "event=joining address=%s", j->address);
	return be_let_in(j, before == UNDECIDED, false, err);
}

int join_run(struct job *job, struct pool *pool, const struct join_want *want,
	struct val *mismatches_out, struct err *err)
{
	struct join *j = arena_alloc(&job->arena, sizeof *j);
	int rc;

	*j = (struct join){ .job = job, .own = pool, .want = want };
	rc = prepare(j, err);
	if (rc == 0 && !want->dry)
		rc = go_in(j, err);
	if (rc == 0 && want->dry)
		rc = facts_here(j, err);
	if (rc == 0 && want->dry) {
		*mismatches_out = val_set();
		rc = join_check(j, mismatches_out, err);
	}
	if (rc == 0 && want->dry)
		rc = ask_dry(j, mismatches_out, err);
	if (rc == 0 && want->dry)
		join_notes(j, mismatches_out);
	if (!j->recorded)
		log_out(j);
	return rc;
}

/* The dry run of `xpoolctl join`. */
void join_put_dry(struct job *job, struct pool *pool, const char *given, struct buf *out)
{
	struct val v, all = val_set();
	struct err err = { 0 };
	const char *why;
	int rc = ERR_CORRUPT;

	if (rpc_json_parse(&job->arena, given, strlen(given), &v, &why) == 0 &&
		val_get_s(&v, "address") != NULL && val_get_s(&v, "user") != NULL &&
		val_get_s(&v, "password") != NULL)
		rc = join_run(job, pool,
			&(struct join_want){ .address = val_get_s(&v, "address"),
				.user = val_get_s(&v, "user"),
				.password = val_get_s(&v, "password"),
				.force = val_get(&v, "force") != NULL,
				.dry = true },
			&all, &err);
	if (err.code != NULL)
		buf_printf(out, "cannot be checked: %s%s%s\n", err.code->name, err.n > 0 ? " " : "",
			err.n > 0 ? err.params[err.n - 1] : "");
	else if (rc != 0)
		buf_printf(out, "cannot be checked: %s\n", err_rc_name(rc));
	else if (all.n == 0 || strcmp(all.items[0].items[0].s, JOIN_NOTE) == 0)
		buf_puts(out, "nothing is in the way\n");
	for (uint32_t i = 0; i < all.n; i++) {
		for (uint32_t k = 0; k < all.items[i].n; k++)
			buf_printf(out, "%s%s",
				k == 0	 ? ""
				: k == 1 ? ": "
					 : ", ",
				all.items[i].items[k].s);
		buf_puts(out, "\n");
	}
	err_fini(&err);
}

void join_leave(struct pool *pool)
{
	pool->again = true;
	env_uv_stop_self();
}

static void resume_main(struct job *job, void *arg)
{
	static const struct join_want want = { 0 };
	struct pool *pool = arg;
	struct join *j = arena_alloc(&job->arena, sizeof *j);
	struct err err = { 0 };

	*j = (struct join){ .job = job, .own = pool, .want = &want };
	if (!take_over(pool, UNDECIDED))
		return;
	if (!record_read(j)) {
		err_set(&err, ERR_INTERNAL_ERROR, "it cannot be read", NULL);
		undecided(j, &err);
	} else if (be_let_in(j, true, true, &err) == 0) {
		log_out(j);
		join_leave(pool);
	}
	err_fini(&err);
}

static void resume(struct pool *pool)
{
	lane_submit(pool->api, "", resume_main, pool, NULL);
}

void join_start(struct pool *pool)
{
	if (pool->cfg.members == NULL || !record_exists(pool))
		return;
	pool->joining = UNDECIDED;
	resume(pool);
}

/* The calls. */

struct join_call {
	struct call *call;
	struct join_want want;
	struct loop_call posted;
	struct err err;
	int rc;
};

static void on_done(struct loop_call *posted)
{
	struct join_call *jc = container_of(posted, struct join_call, posted);
	bool in = jc->rc == 0;

	if (jc->rc == ERR_API)
		err_move(&jc->call->err, &jc->err);
	else if (!in)
		err_set(&jc->call->err, ERR_INTERNAL_ERROR, err_rc_name(jc->rc), NULL);
	jc->call->leaves = in; /* the answer leaves before */
	call_finish(jc->call);
	free(jc);
}

static void join_main(struct job *job, void *arg)
{
	struct join_call *jc = arg;
	struct val ignored;

	jc->rc = join_run(job, jc->call->pool, &jc->want, &ignored, &jc->err);
	loop_post(jc->call->io->loop, &jc->posted, on_done);
}

static int join_begin(struct call *call, const struct join_want *want, struct err *err)
{
	struct join_call *jc = mem_new(sizeof *jc);

	jc->call = call;
	jc->want = *want;
	if (lane_submit(call->pool->api, "", join_main, jc, NULL) == 0)
		return CALL_PENDING;
	free(jc);
	return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
}

int pool_join(struct call *call, const struct pool_join_args *args, struct err *err)
{
	return join_begin(call,
		&(struct join_want){ .address = args->master_address,
			.user = args->master_username,
			.password = args->master_password },
		err);
}

int pool_join_force(struct call *call, const struct pool_join_force_args *args, struct err *err)
{
	return join_begin(call,
		&(struct join_want){ .address = args->master_address,
			.user = args->master_username,
			.password = args->master_password,
			.force = true },
		err);
}
