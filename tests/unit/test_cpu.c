/* The level of a pool's processors and who hears of its changes, on built states: pool.md 6.4. */
#include "pool/operation_priv.h"
#include "tests/lib/rows.h"

#include <string.h>

struct bench {
	struct rows r;
	struct env env;
	struct pool pool;
};

static void draw(struct env *env, void *out, size_t n)
{
	static const uint8_t from = 7;

	memset(out, from + (int)*(const char *)env->name, n);
}

static int64_t wall(struct env *env)
{
	(void)env;
	return 1000;
}

static const struct env_ops ops = { .random = draw, .wall_s = wall };

static void host(struct bench *b, const char *name, const char *features)
{
	const char *ref = rows_ref(&b->r, name);
	struct val info = val_map();

	if (db_view_get(&b->r.view, MODEL_CLASS_host, ref) == NULL)
		rows_create(&b->r, MODEL_CLASS_host, name);
	val_map_push(&b->r.a, &info, "cpu_count", val_string("2"));
	val_map_push(&b->r.a, &info, "socket_count", val_string("1"));
	val_map_push(&b->r.a, &info, "vendor", val_string("v"));
	val_map_push(&b->r.a, &info, "features", val_string(features));
	rows_set(&b->r, MODEL_CLASS_host, ref, HOST_cpu_info, info);
}

static void bench_open(struct bench *b)
{
	memset(b, 0, sizeof *b);
	rows_open(&b->r);
	b->env.ops = &ops;
	b->pool.env = &b->env;
	rows_create(&b->r, MODEL_CLASS_pool, "pool");
}

/* One look by the coordinator: what it does, or "": nothing. "level", and the alerts' last words.
 */
static const char *look(struct bench *b, const char *name)
{
	struct db_cursor c;
	struct db_txn txn;
	const struct db_row *row;
	const char *said = "";
	uint64_t before = b->r.db.index;

	b->env.name = name; /* so that uuids differ */
	db_txn_init(&txn, DB_FOR_SWEEP);
	if (!cpu_level_decide(&b->pool, &b->r.view, &txn, &b->r.a)) {
		db_txn_fini(&txn);
		return "";
	}
	ck_assert_int_eq(rows_apply_txn(&b->r, &txn), APPLY_DONE);
	c = db_rows(&b->r.view, MODEL_CLASS_message);
	while ((row = db_next(&c)) != NULL)
		if (db_row_created(row) > before) {
			ck_assert_str_eq(db_row_s(row, MESSAGE_cls), "Pool");
			ck_assert_int_eq(db_row_i(row, MESSAGE_priority), 5);
			said = arena_printf(
				&b->r.a, "%s %s", said, db_row_s(row, MESSAGE_name) + 18);
		}
	return arena_printf(&b->r.a, "level%s", said);
}

static const char *level(struct bench *b)
{
	struct val info = db_row_field(db_view_get(&b->r.view, MODEL_CLASS_pool, "OpaqueRef:pool"),
		POOL_cpu_info, &b->r.a);

	return val_get_s(&info, "features_hvm");
}

START_TEST(an_alert_says_when_features_go_or_come)
{
	struct bench b;

	bench_open(&b);
	host(&b, "h0", "0000000f-000000f0");
	ck_assert_str_eq(look(&b, "a"), "level"); /* the first that is known */
	ck_assert_str_eq(look(&b, "b"), "");
	host(&b, "h1", "0000000f-000000f0"); /* one more of the kind: the count alone */
	ck_assert_str_eq(look(&b, "c"), "level");
	host(&b, "h1", "00000007-000000f0");
	ck_assert_str_eq(look(&b, "d"), "level DOWN");
	ck_assert_str_eq(level(&b), "00000007-000000f0");
	host(&b, "h1", "0000000f-000000f0");
	ck_assert_str_eq(look(&b, "e"), "level UP");
	ck_assert_str_eq(level(&b), "0000000f-000000f0");
	/* another machine in both places: some go, some come */
	db_txn_delete(&b.r.txn, MODEL_CLASS_host, "OpaqueRef:h1");
	rows_apply(&b.r);
	ck_assert_str_eq(look(&b, "f"), "level");
	host(&b, "h0", "000000f0");
	ck_assert(strstr(look(&b, "a"), "DOWN") != NULL);
	rows_close(&b.r);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { an_alert_says_when_features_go_or_come };

	return suite_run("cpu", tests, ARRAY_LEN(tests), 30);
}
