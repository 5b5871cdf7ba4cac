/* The schema of the pool: each member says at its start what its xpoold runs; the coordinator
 * raises the active schema when all run a newer one, unless pool.other_config:xpool-schema is
 * "manual": then `xpoolctl schema raise` does, on any member. Nothing lowers it again.
 * docs/decisions/0011. */
#include "pool/pool_priv.h"

#include <string.h>

enum { REPORT_RETRY_MS = 200 };

struct report {
	struct pool *pool;
	bool has_row;
};

static void build_report(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct report *r = arg;
	const char *uuid = r->pool->host_uuid;
	const struct db_row *member = db_view_get(view, MODEL_CLASS__member, uuid);

	r->has_row = member != NULL;
	if (member == NULL || db_row_i(member, _MEMBER_schema) == MODEL_SCHEMA_VERSION)
		return;
	db_txn_need_row(txn, MODEL_CLASS__member, uuid);
	db_txn_set(txn, MODEL_CLASS__member, uuid, _MEMBER_schema, val_int(MODEL_SCHEMA_VERSION));
}

/* 0: said; else not yet, or not any more (ERR_DEAD). */
static int report(struct job *job, struct pool *pool)
{
	struct report r = { .pool = pool };
	int rc;

	/* the row may be what an older or newer version said, and still be replayed */
	if (pool_catch_up(job, pool) == ERR_DEAD)
		return ERR_DEAD;
	rc = commit_once(job, pool,
		&(struct commit){ DB_FOR_CONFIG, { POOL_HOST, "", "schema" }, build_report, &r });
	return rc == 0 && !r.has_row ? ERR_TIMEOUT : rc;
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

bool schema_decide(const struct db_view *view, struct db_txn *txn)
{
	if (manual(view) || !db_schema_raise(view, txn))
		return false;
	txn->reason = DB_FOR_CONFIG;
	db_txn_origin(txn, (struct db_origin){ .user = POOL_COORDINATOR, .method = "schema" });
	return true;
}

static struct val version_of(const struct db_view *view, const struct db_row *member,
	const struct db_row *host, struct arena *a)
{
	struct val old = db_row_field(host, HOST_software_version, a), now = val_map();

	for (uint32_t i = 0; i < old.n; i++)
		if (strcmp(old.pairs[i].key, "db_schema") != 0 &&
			strcmp(old.pairs[i].key, "db_schema_newest") != 0)
			val_map_push(a, &now, old.pairs[i].key, old.pairs[i].value);
	val_map_push(a, &now, "db_schema", val_string(arena_printf(a, "%u", db_view_schema(view))));
	val_map_push(a, &now, "db_schema_newest",
		val_string(arena_printf(a, "%lld", (long long)db_row_i(member, _MEMBER_schema))));
	return now;
}

bool schema_publish(const struct db_view *view, struct db_txn *txn, struct arena *a)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS__member);
	const struct db_row *member, *host;

	while ((member = db_next(&c)) != NULL) {
		struct val old, now;

		host = db_view_get(view, MODEL_CLASS_host, db_row_s(member, _MEMBER_host));
		if (host == NULL || db_row_i(member, _MEMBER_schema) == 0)
			continue;
		old = db_row_field(host, HOST_software_version, a);
		now = version_of(view, member, host, a);
		if (val_equal(&old, &now))
			continue;
		db_txn_need_version(txn, MODEL_CLASS_host, db_row_ref(host), db_row_modified(host));
		db_txn_set(txn, MODEL_CLASS_host, db_row_ref(host), HOST_software_version, now);
	}
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

static void build_raise(struct db_txn *txn, const struct db_view *view, void *to)
{
	if (db_schema_raise(view, txn))
		*(unsigned *)to = db_schema_common(view);
}

void schema_put_raise(struct job *job, struct pool *pool, struct buf *out)
{
	unsigned to = 0;
	int rc = commit_once(job, pool,
		&(struct commit){
			DB_FOR_CONFIG, { POOL_COORDINATOR, "", "schema" }, build_raise, &to });

	if (to == 0)
		buf_puts(out, "nothing to raise: not every member runs a newer one\n");
	else if (rc == 0)
		buf_printf(out, "raised to %u\n", to);
	else
		buf_puts(out, "not raised: no coordinator, or a member has been started anew\n");
}
