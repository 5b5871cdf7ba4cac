/* The schema of the pool: each member says at its start what its xpoold runs; the coordinator
 * raises the active schema when all run a newer one, unless pool.other_config:xpool-schema is
 * "manual": then `xpoolctl schema raise` does, on any member. Nothing lowers it again.
 * docs/decisions/0011. */
#include "pool/pool_priv.h"

#include <string.h>

enum { REPORT_RETRY_MS = 200 };

/* 0: said; else not yet, or not any more (ERR_DEAD). */
static int report(struct job *job, struct pool *pool)
{
	struct db_result res;
	const struct db_row *member;
	struct db_view view;
	struct db_txn txn;
	bool known, said;
	int rc;

	/* the row may be what an older or newer version said, and still be replayed */
	if (pool_catch_up(job, pool) == ERR_DEAD)
		return ERR_DEAD;
	db_view_pin(pool->db, &view);
	member = db_view_get(&view, MODEL_CLASS__member, pool->host_uuid);
	known = member != NULL;
	said = known && db_row_i(member, _MEMBER_schema) == MODEL_SCHEMA_VERSION;
	db_view_unpin(&view);
	if (said || !known)
		return said ? 0 : ERR_TIMEOUT;
	db_txn_init(&txn, DB_FOR_CONFIG);
	db_txn_origin(&txn, (struct db_origin){ .user = POOL_HOST, .method = "schema" });
	db_txn_need_row(&txn, MODEL_CLASS__member, pool->host_uuid);
	db_txn_set(&txn, MODEL_CLASS__member, pool->host_uuid, _MEMBER_schema,
		val_int(MODEL_SCHEMA_VERSION));
	rc = db_commit(job, pool->db, &txn, &res);
	err_fini(&res.err);
	return rc != 0 ? rc : res.status == DB_DONE ? 0 : ERR_TIMEOUT;
}

static void report_main(struct job *job, void *arg)
{
	while (report(job, arg) != 0)
		if (job_sleep(job, REPORT_RETRY_MS) != 0)
			return;
}

void schema_start(struct pool *pool)
{
	CHECK(lane_submit(pool->api, "schema", report_main, pool, NULL) == 0);
}

static bool manual(const struct db_view *view)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *row = db_next(&c);
	struct val config;
	const char *word;
	struct arena a;
	bool yes;

	arena_init(&a);
	config = row != NULL ? db_row_field(row, POOL_other_config, &a) : val_map();
	word = val_get_s(&config, "xpool-schema");
	yes = word != NULL && strcmp(word, "manual") == 0;
	arena_fini(&a);
	return yes;
}

static void compose(const struct db_view *view, struct db_txn *txn, bool asked)
{
	if ((!asked && manual(view)) || !db_schema_raise(view, txn))
		return;
	txn->reason = DB_FOR_CONFIG;
	db_txn_origin(txn, (struct db_origin){ .user = POOL_COORDINATOR, .method = "schema" });
}

bool schema_decide(const struct db_view *view, struct db_txn *txn)
{
	compose(view, txn, false);
	return txn->n_ops > 0;
}

void schema_put(struct pool *pool, struct buf *out)
{
	const struct db_row *member, *host;
	struct db_view view;
	struct db_cursor c;

	db_view_pin(pool->db, &view);
	buf_printf(out, "active=%u common=%u raised=%s\n", db_view_schema(&view),
		db_schema_common(&view), manual(&view) ? "manually" : "automatically");
	c = db_rows(&view, MODEL_CLASS__member);
	while ((member = db_next(&c)) != NULL) {
		host = db_view_get(&view, MODEL_CLASS_host, db_row_s(member, _MEMBER_host));
		buf_printf(out, "member=%s newest=%lld\n",
			host != NULL ? db_row_s(host, HOST_name_label) : db_row_ref(member),
			(long long)db_row_i(member, _MEMBER_schema));
	}
	db_view_unpin(&view);
}

void schema_put_raise(struct job *job, struct pool *pool, struct buf *out)
{
	struct db_result res;
	struct db_view view;
	struct db_txn txn;
	unsigned common;

	db_txn_init(&txn, DB_FOR_CONFIG);
	db_view_pin(pool->db, &view);
	compose(&view, &txn, true);
	common = db_schema_common(&view);
	db_view_unpin(&view);
	if (txn.n_ops == 0) {
		buf_puts(out, "nothing to raise: not every member runs a newer one\n");
		db_txn_fini(&txn);
		return;
	}
	if (db_commit(job, pool->db, &txn, &res) == 0 && res.status == DB_DONE)
		buf_printf(out, "raised to %u\n", common);
	else
		buf_puts(out, "not raised: no coordinator, or a member has been started anew\n");
	err_fini(&res.err);
}
