/* A host, or a witness, that is to join. Its entry of members.json comes to any member: by POST
 * /pool/newcomer from a host that joins by itself (join.c), with what it has of its own (carry.c):
 * {"member", "carried"}; or alone by `xpoolctl add` from whoever runs `xpoolctl enlist` on the
 * host. The answer is the members.json that it needs. One entry of the log makes host, interface,
 * PBDs of shared SRs, what is carried and the row of _member, so it is wholly in or not at all;
 * db/members.c brings it into Raft's configuration when it has come and fetched everything. Its
 * certificate is pinned from that entry on. POST /pool/newcomer/check with the same composes that
 * entry and makes none: it tells all that is in the way.
 */
#include "pool/carry.h"
#include "pool/members.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRIES = 8 };

/* What has become of it, as statuses of HTTP. */
enum outcome { IN = 200, REFUSED = 409, UNDECIDED = 503 };

/* IP:PORT. */
static bool is_address(const char *text)
{
	const char *colon = strrchr(text, ':');
	char ip[64];
	uint8_t out[16];
	long port;

	if (colon == NULL || (size_t)(colon - text) >= sizeof ip)
		return false;
	memcpy(ip, text, (size_t)(colon - text));
	ip[colon - text] = 0;
	port = strtol(colon + 1, NULL, 10);
	return port > 0 && port < 65536 &&
	       (inet_pton(AF_INET, ip, out) == 1 || inet_pton(AF_INET6, ip, out) == 1);
}

static const char *fault_of(const struct db_member *m)
{
	uint8_t out[16];

	if (strlen(m->certificate) != 2 * TLS_FINGERPRINT_LEN ||
		strspn(m->certificate, "0123456789abcdef") != 2 * TLS_FINGERPRINT_LEN)
		return "\"certificate\" is no SHA-256 fingerprint in small hexadecimal digits";
	if (!is_address(m->channel_address))
		return "\"channel\" is not IP:PORT";
	if (!m->witness && inet_pton(AF_INET, m->api_address, out) != 1 &&
		inet_pton(AF_INET6, m->api_address, out) != 1)
		return "\"address\" is no IP address";
	return NULL;
}

/* The member without a host. */
static const struct db_row *witness_row(const struct db_view *view)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS__member);
	const struct db_row *row;

	while ((row = db_next(&c)) != NULL && !db_member_is_witness(row))
		;
	return row;
}

/* It asks again: it did not hear that it was let in. */
static bool is_in(const struct db_view *view, struct db_member *m)
{
	const struct db_row *row = m->witness
					   ? witness_row(view)
					   : db_view_get(view, MODEL_CLASS__member, m->host_uuid);

	if (row == NULL || strcmp(db_row_s(row, _MEMBER_state), "joining") != 0 ||
		strcmp(db_row_s(row, _MEMBER_certificate), m->certificate) != 0 ||
		strcmp(db_row_s(row, _MEMBER_address), m->channel_address) != 0)
		return false;
	m->raft_id = (uint64_t)db_row_i(row, _MEMBER_raft_id);
	strcpy(m->host_uuid, db_row_ref(row));
	return true;
}

static const char *clash(const struct db_view *view, const struct db_member *m)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS__member);
	const struct db_row *row;

	if (db_view_get(view, MODEL_CLASS__member, m->host_uuid) != NULL ||
		db_view_by_uuid(view, MODEL_CLASS_host, m->host_uuid) != NULL)
		return "a host of this uuid is a member already";
	if (m->witness && witness_row(view) != NULL)
		return "the pool has a witness already";
	if (db_view_count(view, MODEL_CLASS__member) >= CHANNEL_PEERS_MAX)
		return "the pool has as many members as it can";
	while ((row = db_next(&c)) != NULL)
		if (strcmp(db_row_s(row, _MEMBER_address), m->channel_address) == 0 ||
			strcmp(db_row_s(row, _MEMBER_certificate), m->certificate) == 0)
			return "a member has that channel address or that certificate already";
	c = db_rows(view, MODEL_CLASS_host);
	while (!m->witness && (row = db_next(&c)) != NULL)
		if (strcmp(db_row_s(row, HOST_address), m->api_address) == 0)
			return "a host has that address already";
	return NULL;
}

/* Never one that was used before; counted in a row of its own from the first newcomer on. */
static uint64_t next_id(const struct db_view *view, struct db_txn *txn)
{
	const struct db_row *row = db_view_get(view, MODEL_CLASS__config, DB_RAFT_IDS);
	struct val f[_CONFIG_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct db_cursor c = db_rows(view, MODEL_CLASS__member);
	const struct db_row *member;
	uint64_t highest = 0;
	char text[24];

	while (row == NULL && (member = db_next(&c)) != NULL)
		if ((uint64_t)db_row_i(member, _MEMBER_raft_id) > highest)
			highest = (uint64_t)db_row_i(member, _MEMBER_raft_id);
	c = db_rows(view, MODEL_CLASS__config);
	while (row == NULL && (member = db_next(&c)) != NULL)
		if (strncmp(db_row_ref(member), DB_LEFT, strlen(DB_LEFT)) == 0 &&
			strtoull(db_row_ref(member) + strlen(DB_LEFT), NULL, 10) > highest)
			highest = strtoull(db_row_ref(member) + strlen(DB_LEFT), NULL, 10);
	if (row != NULL)
		highest = strtoull(db_row_s(row, _CONFIG_value), NULL, 10);
	snprintf(text, sizeof text, "%llu", (unsigned long long)highest + 1);
	f[_CONFIG_value] = val_string(text);
	if (row != NULL) {
		db_txn_need_field(txn, MODEL_CLASS__config, DB_RAFT_IDS, _CONFIG_value,
			val_string(db_row_s(row, _CONFIG_value)));
		db_txn_set(txn, MODEL_CLASS__config, DB_RAFT_IDS, _CONFIG_value, f[_CONFIG_value]);
	} else {
		db_txn_need_no_row(txn, MODEL_CLASS__config, DB_RAFT_IDS);
		db_txn_create(txn, MODEL_CLASS__config, DB_RAFT_IDS, f);
	}
	return highest + 1;
}

/* carried: NULL, it brings nothing. NULL: composed; else why not. all: NULL, or where all that is
 * in the way goes, as far as it could be composed. */
static const char *compose(struct job *job, struct pool *pool, const struct db_view *view,
	struct db_member *m, const struct val *carried, struct db_txn *txn, struct val *all)
{
	const char *why = clash(view, m);
	char host[DB_REF_MAX + 1];

	if (why != NULL && all == NULL)
		return why;
	if (why != NULL)
		val_set_push(&job->arena, all, val_string(why));
	if (db_view_count(view, MODEL_CLASS_pool) == 0)
		return "this pool has no rows yet";
	db_txn_origin(txn, (struct db_origin){ .user = POOL_HOST, .method = "add" });
	m->raft_id = next_id(view, txn);
	bootstrap_newcomer(pool, view, txn, &job->arena, m, host);
	if (db_view_count(view, MODEL_CLASS_host) == 1 && !m->witness && witness_row(view) == NULL)
		message_of_pool(pool, view, txn, "POOL_HAS_NO_FAULT_TOLERANCE", 3,
			"Two hosts have no majority without each other: when one of them is lost "
			"the other can change nothing. Add a third host, or a witness (xpoolctl "
			"witness).");
	return carried != NULL && !m->witness
		       ? carry_take(view, carried, host, txn, &job->arena, all)
		       : NULL;
}

static enum outcome add(struct job *job, struct pool *pool, struct db_member *m,
	const struct val *carried, const char **why)
{
	struct db_result res = { .status = DB_FAILED };
	bool in = false;

	*why = NULL;
	for (unsigned k = 0; k < TRIES && !in && *why == NULL && res.status == DB_FAILED; k++) {
		struct db_view view;
		struct db_txn txn;

		if (db_read_wait(job, pool->db) != 0) {
			*why = "no majority of the voters is there";
			return UNDECIDED;
		}
		db_txn_init(&txn, DB_FOR_CONFIG);
		db_view_pin(pool->db, &view);
		in = is_in(&view, m);
		if (!in)
			*why = compose(job, pool, &view, m, carried, &txn, NULL);
		txn.schema = db_view_schema(&view);
		db_view_unpin(&view);
		if (!in && *why == NULL && db_commit(job, pool->db, &txn, &res) != 0)
			res.status = DB_UNKNOWN; /* this member is ending */
		db_txn_fini(&txn);
		err_fini(&res.err);
	}
	if (in || res.status == DB_DONE)
		return IN;
	if (*why != NULL)
		return REFUSED;
	*why = res.status == DB_FAILED ? "too many are being added at once"
				       : "not decided in time: it may have been added all the same";
	return UNDECIDED;
}

void members_put_now(struct pool *pool, uint64_t self, struct buf *out)
{
	struct members *file = mem_new(sizeof *file);

	pool_members(pool, file);
	file->n = db_members(pool->db, file->m, &file->index);
	file->self = self;
	file->left = false;
	members_put(file, out);
	free(file);
}

/* What has come. NULL, or what is wrong with it (literal, or in the arena). */
static const char *read_entry(struct job *job, const char *text, struct val *v, struct db_member *m)
{
	const char *fault = NULL;
	struct val *entry = v;
	char why[256] = "";

	if (rpc_json_parse(&job->arena, text, strlen(text), v, &fault) != 0)
		return fault;
	if (val_get(v, "member") != NULL)
		entry = (struct val *)val_get(v, "member");
	return members_parse_one(&job->arena, entry, m, why, sizeof why)
		       ? fault_of(m)
		       : arena_strdup(&job->arena, why);
}

/* out: the file, or why not. */
static enum outcome let_in(struct job *job, struct pool *pool, const char *text, struct buf *out)
{
	enum outcome outcome = REFUSED;
	struct db_member m;
	struct val v;
	const char *fault = read_entry(job, text, &v, &m);

	if (fault == NULL)
		outcome = add(job, pool, &m, val_get(&v, "carried"), &fault);
	if (outcome == IN)
		members_put_now(pool, m.raft_id, out);
	else
		buf_puts(out, fault);
	return outcome;
}

void newcomer_put(struct job *job, struct pool *pool, const char *text, struct buf *out)
{
	struct buf answer = { 0 };

	if (let_in(job, pool, text, &answer) != IN)
		buf_printf(out, "not added: %s\n", buf_text(&answer));
	else
		buf_put(out, answer.data, answer.len);
	buf_fini(&answer);
}

/* xpoolctl witness remove. */

static void build_removal(struct db_txn *txn, const struct db_view *view, void *found)
{
	const struct db_row *row = witness_row(view);

	*(bool *)found = row != NULL;
	if (row == NULL || strcmp(db_row_s(row, _MEMBER_state), "leaving") == 0)
		return;
	db_txn_need_row(txn, MODEL_CLASS__member, db_row_ref(row));
	db_txn_set(txn, MODEL_CLASS__member, db_row_ref(row), _MEMBER_state, val_string("leaving"));
}

void witness_put_removal(struct job *job, struct pool *pool, struct buf *out)
{
	bool found = false;
	int rc = commit_once(job, pool,
		&(struct commit){
			DB_FOR_CONFIG, { POOL_HOST, "", "witness" }, build_removal, &found });

	buf_puts(out, rc != 0  ? "not removed: no majority of the voters is there\n"
		      : !found ? "not removed: the pool has no witness\n"
			       : "removed\n");
}

/* out: all that is in the way, as a JSON array of texts; or why that cannot be said. */
static enum outcome look(struct job *job, struct pool *pool, const char *text, struct buf *out)
{
	struct val v, all = val_set();
	struct db_view view;
	struct db_member m;
	struct db_txn txn;
	const char *fault = read_entry(job, text, &v, &m);

	if (fault == NULL && db_read_wait(job, pool->db) != 0) {
		buf_puts(out, "no majority of the voters is there");
		return UNDECIDED;
	}
	if (fault == NULL) {
		db_txn_init(&txn, DB_FOR_CONFIG);
		db_view_pin(pool->db, &view);
		fault = compose(job, pool, &view, &m, val_get(&v, "carried"), &txn, &all);
		db_view_unpin(&view);
		db_txn_fini(&txn);
	}
	if (fault != NULL)
		val_set_push(&job->arena, &all, val_string(fault));
	val_json(out, &all);
	return IN;
}

/* POST /pool/newcomer, and /pool/newcomer/check. */

struct newcomer {
	struct call *call;
	enum outcome (*what)(struct job *job, struct pool *pool, const char *text, struct buf *out);
	struct loop_call posted;
	const char *text; /* in the call's arena */
	enum outcome outcome;
	struct buf out;
};

static void on_decided(struct loop_call *posted)
{
	struct newcomer *n = container_of(posted, struct newcomer, posted);
	struct call *call = n->call;

	if (call->request != NULL) {
		rpc_reply(call->request, (unsigned)n->outcome,
			n->outcome == IN ? "application/json" : "text/plain", NULL, n->out.data,
			n->out.len);
		call->request = NULL;
	}
	buf_fini(&n->out);
	free(n);
	call_finish(call);
}

static void newcomer_main(struct job *job, void *arg)
{
	struct newcomer *n = arg;

	n->outcome = n->what(job, n->call->pool, n->text, &n->out);
	loop_post(n->call->io->loop, &n->posted, on_decided);
}

static int begin(struct call *call,
	enum outcome (*what)(struct job *, struct pool *, const char *, struct buf *),
	struct err *err)
{
	struct newcomer *n;

	if (call->request == NULL) /* the client has gone */
		return 0;
	n = mem_new(sizeof *n);
	n->call = call;
	n->what = what;
	n->text = arena_strndup(&call->arena, call->request->body, call->request->body_len);
	if (lane_submit(call->pool->api, "", newcomer_main, n, NULL) == 0)
		return CALL_PENDING;
	free(n);
	return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
}

int newcomer_begin(struct call *call, struct err *err)
{
	return begin(call, let_in, err);
}

int newcomer_check_begin(struct call *call, struct err *err)
{
	return begin(call, look, err);
}
