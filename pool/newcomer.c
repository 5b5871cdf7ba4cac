/* A host that is to join: `xpoolctl add` on a member gives the pool its row, and answers with the
 * file that `xpoolctl enlist` needs on the new host. One entry makes host, interface and row, so it
 * is wholly in or not at all; db/members.c brings it into Raft's configuration when it has come and
 * fetched everything. Its certificate is pinned by whoever runs both commands. */
#include "pool/members.h"
#include "pool/pool_priv.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRIES = 8 };

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
	if (inet_pton(AF_INET, m->api_address, out) != 1 &&
		inet_pton(AF_INET6, m->api_address, out) != 1)
		return "\"address\" is no IP address";
	return NULL;
}

static const char *clash(const struct db_view *view, const struct db_member *m)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS__member);
	const struct db_row *row;

	if (db_view_get(view, MODEL_CLASS__member, m->host_uuid) != NULL ||
		db_view_by_uuid(view, MODEL_CLASS_host, m->host_uuid) != NULL)
		return "a host of this uuid is a member already";
	if (db_view_count(view, MODEL_CLASS__member) >= CHANNEL_PEERS_MAX)
		return "the pool has as many members as it can";
	while ((row = db_next(&c)) != NULL)
		if (strcmp(db_row_s(row, _MEMBER_address), m->channel_address) == 0 ||
			strcmp(db_row_s(row, _MEMBER_certificate), m->certificate) == 0)
			return "a member has that channel address or that certificate already";
	c = db_rows(view, MODEL_CLASS_host);
	while ((row = db_next(&c)) != NULL)
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

/* NULL: composed; else why not. */
static const char *compose(struct job *job, struct pool *pool, const struct db_view *view,
	struct db_member *m, struct db_txn *txn)
{
	const char *why = clash(view, m);

	if (why != NULL)
		return why;
	if (db_view_count(view, MODEL_CLASS_pool) == 0)
		return "this pool has no rows yet";
	db_txn_origin(txn, (struct db_origin){ .user = POOL_HOST, .method = "add" });
	m->raft_id = next_id(view, txn);
	bootstrap_newcomer(pool, view, txn, &job->arena, m);
	return NULL;
}

static const char *add(struct job *job, struct pool *pool, struct db_member *m)
{
	struct db_result res = { .status = DB_FAILED };
	const char *why = NULL;

	for (unsigned k = 0; k < TRIES && why == NULL && res.status == DB_FAILED; k++) {
		struct db_view view;
		struct db_txn txn;

		if (db_read_wait(job, pool->db) != 0)
			return "no majority of the voters is there";
		db_txn_init(&txn, DB_FOR_CONFIG);
		db_view_pin(pool->db, &view);
		why = compose(job, pool, &view, m, &txn);
		db_view_unpin(&view);
		if (why == NULL && db_commit(job, pool->db, &txn, &res) != 0)
			why = "this member is ending";
		db_txn_fini(&txn);
		err_fini(&res.err);
	}
	if (why != NULL || res.status == DB_DONE)
		return why;
	return res.status == DB_FAILED ? "too many are being added at once"
				       : "not decided in time: it may have been added all the same";
}

/* What the new host needs to know. */
static void put_file(struct pool *pool, const struct db_member *m, struct buf *out)
{
	struct members *file = mem_new(sizeof *file);

	*file = *pool->cfg.members;
	file->n = db_members(pool->db, file->m, &file->index);
	file->self = m->raft_id;
	file->left = false;
	members_put(file, out);
	free(file);
}

void newcomer_put(struct job *job, struct pool *pool, const char *text, struct buf *out)
{
	struct db_member m;
	char why[256] = "";
	const char *fault;

	if (!members_parse_one(&job->arena, text, strlen(text), &m, why, sizeof why))
		fault = why;
	else if ((fault = fault_of(&m)) == NULL)
		fault = add(job, pool, &m);
	if (fault != NULL)
		buf_printf(out, "not added: %s\n", fault);
	else
		put_file(pool, &m, out);
}
