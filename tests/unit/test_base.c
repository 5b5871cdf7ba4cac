/* rpc/base: values, datetimes, buffers, lanes, SQLite. */
#include "rpc/base/lane.h"
#include "rpc/base/sql.h"
#include "tests/lib/suite.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct val random_val(struct arena *a, unsigned depth)
{
	static const char *const texts[] = { "", "a", "\xc3\xa4\xe2\x82\xac", "OpaqueRef:NULL",
		"<&\">", "tab\tnl\n" };
	struct val v;

	switch (rand() % (depth > 3 ? 7 : 9)) {
	case 0: return val_void();
	case 1: return val_string(texts[rand() % ARRAY_LEN(texts)]);
	case 2: return val_int((int64_t)rand() * rand() * (rand() % 2 ? 1 : -1));
	case 3: return val_float(rand() / 7.0);
	case 4: return val_bool(rand() % 2);
	case 5: return val_datetime(rand());
	case 6: return val_string("x");
	case 7:
		v = val_set();
		for (int n = rand() % 5; n > 0; n--)
			val_set_push(a, &v, random_val(a, depth + 1));
		return v;
	default:
		v = val_map();
		for (int n = rand() % 5; n > 0; n--)
			val_map_push(a, &v, texts[1 + rand() % 3], random_val(a, depth + 1));
		return v;
	}
}

START_TEST(a_derived_uuid_follows_from_both_texts)
{
	static const char *const from[] = { "33333333-3333-4333-8333-333333333333",
		"33333333-3333-4333-8333-333333333334" };
	static const char *const words[] = { "a", "b", "" };
	char made[6][UUID_LEN + 1], again[UUID_LEN + 1];

	for (unsigned i = 0; i < 6; i++) {
		uuid_derive(from[i % 2], words[i / 2], made[i]);
		uuid_derive(from[i % 2], words[i / 2], again);
		ck_assert_str_eq(made[i], again);
		ck_assert(uuid_ok(made[i]) && made[i][14] == '8');
		for (unsigned k = 0; k < i; k++)
			ck_assert_str_ne(made[i], made[k]);
	}
}
END_TEST

START_TEST(packed_values_come_back_equal)
{
	for (int i = 0; i < 2000; i++) {
		struct arena a;
		struct buf b = { 0 };
		struct val v, back;
		struct reader r;

		arena_init(&a);
		v = random_val(&a, 0);
		val_pack(&b, &v);
		r = reader_of(b.data, b.len);
		back = val_unpack(&r, &a);
		ck_assert(!r.bad && rd_left(&r) == 0 && val_equal(&v, &back));
		v = val_dup(&a, &back);
		ck_assert(val_equal(&v, &back));
		buf_fini(&b);
		arena_fini(&a);
	}
}
END_TEST

START_TEST(truncated_and_flipped_bytes_are_refused_or_read_never_crash)
{
	for (int i = 0; i < 3000; i++) {
		struct arena a;
		struct buf b = { 0 };
		struct val v;
		struct reader r;

		arena_init(&a);
		v = random_val(&a, 0);
		val_pack(&b, &v);
		if (b.len > 1) {
			b.data[(size_t)rand() % b.len] ^= (uint8_t)(1 << rand() % 8);
			r = reader_of(b.data, (size_t)rand() % b.len);
			val_unpack(&r, &a);
		}
		buf_fini(&b);
		arena_fini(&a);
	}
}
END_TEST

START_TEST(deep_nesting_is_refused)
{
	struct buf b = { 0 };
	struct arena a;
	struct reader r;

	for (int i = 0; i < VAL_DEPTH_MAX + 2; i++) {
		buf_u8(&b, VAL_SET);
		buf_u32(&b, 1);
	}
	buf_u8(&b, VAL_VOID);
	r = reader_of(b.data, b.len);
	arena_init(&a);
	val_unpack(&r, &a);
	ck_assert(r.bad);
	arena_fini(&a);
	buf_fini(&b);
}
END_TEST

START_TEST(datetimes)
{
	static const struct {
		const char *in;
		bool ok;
		const char *out;
	} cases[] = {
		{ "20260821T02:00:23Z", true, "20260821T02:00:23Z" },
		{ "2026-08-21T02:00:23Z", true, "20260821T02:00:23Z" },
		{ "2026-08-21T02:00:23.456Z", true, "20260821T02:00:23Z" },
		{ "20260821T02:00:23", true, "20260821T02:00:23Z" },
		{ "20260821T02:00:23+02:00", true, "20260821T00:00:23Z" },
		{ "20260821T02:00:23-0130", true, "20260821T03:30:23Z" },
		{ "19700101T00:00:00Z", true, "19700101T00:00:00Z" },
		{ "20261321T02:00:23Z", false, NULL },
		{ "20260821 02:00:23", false, NULL },
		{ "20260821T02:00:23Zx", false, NULL },
		{ "yesterday", false, NULL },
		{ "", false, NULL },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char out[VAL_DATETIME_MAX];
		int64_t s;

		ck_assert_msg(
			val_datetime_parse(cases[i].in, &s) == cases[i].ok, "%s", cases[i].in);
		if (!cases[i].ok)
			continue;
		val_datetime_print(s, out);
		ck_assert_str_eq(out, cases[i].out);
	}
}
END_TEST

START_TEST(text_that_xml_cannot_carry_is_refused)
{
	static const struct {
		const char *text;
		bool ok;
	} cases[] = { { "plain", true }, { "t\t\n\r", true }, { "\x01", false }, { "\x7f", true },
		{ "\xc3\xa4", true }, { "\xc3", false }, { "\xc0\x80", false },
		{ "\xed\xa0\x80", false }, { "\xef\xbf\xbf", false }, { "\xf0\x9f\x98\x80", true },
		{ "\xf4\x90\x80\x80", false } };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		ck_assert_msg(val_text_ok(cases[i].text) == cases[i].ok, "case %zu", i);
}
END_TEST

/* Lanes. */

struct shared {
	_Atomic int running, most, done, order;
	int seen[8];
};

static void serial_main(struct job *job, void *arg)
{
	struct shared *s = arg;
	int now = ++s->running;

	if (now > s->most)
		s->most = now;
	job_sleep(job, 2);
	s->running--;
	s->done++;
}

static void wait_done_count(struct env *env, struct shared *s, int n)
{
	struct parker *p = env->ops->parker_new(env);

	for (int i = 0; i < 5000 && s->done < n; i++)
		env->ops->park(p, 1000);
	env->ops->parker_free(p);
	ck_assert_int_eq(s->done, n);
}

START_TEST(jobs_of_one_key_run_one_at_a_time)
{
	struct shared s = { 0 };
	struct env env;
	struct lane *lane;

	env_uv_init(&env, "t");
	lane = lane_new(&env, "t", LANE_API, 4, 8);
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(lane_submit(lane, "key", serial_main, &s, NULL), 0);
	wait_done_count(&env, &s, 20);
	ck_assert_int_eq(s.most, 1);
	lane_free(lane);
}
END_TEST

static void sleeper_main(struct job *job, void *arg)
{
	struct shared *s = arg;
	int rc = job_sleep(job, 60000);

	s->order = rc;
	s->done++;
}

static void quick_main(struct job *job, void *arg)
{
	struct shared *s = arg;

	(void)job;
	s->done++;
}

START_TEST(a_job_that_waits_gives_its_place_back)
{
	struct shared s = { 0 };
	struct env env;
	struct lane *lane;
	struct job *sleeper;

	env_uv_init(&env, "t");
	lane = lane_new(&env, "t", LANE_API, 1, 4);
	ck_assert_int_eq(lane_submit(lane, "", sleeper_main, &s, &sleeper), 0);
	for (int i = 0; i < 10; i++)
		lane_submit(lane, "", quick_main, &s, NULL);
	wait_done_count(&env, &s, 10);
	job_cancel(sleeper);
	wait_done_count(&env, &s, 11);
	ck_assert_int_eq(s.order, ERR_CANCELLED);
	job_put(sleeper);
	lane_free(lane);
}
END_TEST

START_TEST(a_full_lane_refuses)
{
	struct shared s = { 0 };
	struct env env;
	struct lane *lane;
	unsigned n = 0;

	env_uv_init(&env, "t");
	lane = lane_new(&env, "t", LANE_API, 1, 1);
	while (lane_submit(lane, "same", sleeper_main, &s, NULL) == 0)
		n++;
	ck_assert_uint_ge(n, LANE_QUEUE_MAX);
	lane_free(lane); /* cancels what runs, drops what waits */
}
END_TEST

struct looped {
	struct loop *loop;
	struct loop_timer timers[3];
	struct loop_call call;
	_Atomic int fired;
	int order[4];
};

static void fire(struct looped *l, int which)
{
	l->order[l->fired] = which;
	l->fired++;
}

static void on_a(struct loop_timer *t)
{
	fire(container_of(t, struct looped, timers[0]), 0);
}

static void on_b(struct loop_timer *t)
{
	fire(container_of(t, struct looped, timers[1]), 1);
}

static void on_never(struct loop_timer *t)
{
	fire(container_of(t, struct looped, timers[2]), 2);
}

static void on_start(struct loop_call *c)
{
	struct looped *l = container_of(c, struct looped, call);

	loop_timer_start(l->loop, &l->timers[0], 20, on_a);
	loop_timer_start(l->loop, &l->timers[1], 5, on_b);
	loop_timer_start(l->loop, &l->timers[2], 1, on_never);
	loop_timer_stop(&l->timers[2]);
}

START_TEST(timers_fire_in_order_and_stopped_ones_do_not)
{
	struct looped l = { 0 };
	struct env env;
	struct parker *p;

	env_uv_init(&env, "t");
	l.loop = loop_new(&env, "t");
	loop_start(l.loop);
	loop_post(l.loop, &l.call, on_start);
	p = env.ops->parker_new(&env);
	for (int i = 0; i < 2000 && l.fired < 2; i++)
		env.ops->park(p, 1000);
	env.ops->parker_free(p);
	loop_stop(l.loop);
	loop_free(l.loop);
	ck_assert_int_eq(l.fired, 2);
	ck_assert_int_eq(l.order[0], 1);
	ck_assert_int_eq(l.order[1], 0);
}
END_TEST

START_TEST(values_as_text)
{
	struct arena a;
	struct buf text = { 0 };
	struct val v = val_set(), map = val_map();

	arena_init(&a);
	val_set_push(&a, &v, val_string("it's \\ \"x\""));
	val_map_push(&a, &map, "k", val_bool(true));
	val_set_push(&a, &v, map);
	val_set_push(&a, &v, val_int(7));
	val_text(&text, &v);
	ck_assert_str_eq(buf_text(&text), "('it\\'s \\\\ \\\"x\\\"' '((\\'k\\' \\'true\\'))' '7')");
	text.len = 0;
	val_json(&text, &v);
	ck_assert_str_eq(buf_text(&text), "[\"it's \\\\ \\\"x\\\"\",{\"k\":true},7]");
	buf_fini(&text);
	arena_fini(&a);
}
END_TEST

START_TEST(integers_in_decimal)
{
	static const int64_t values[] = { 0, 7, -1, 10, -100, 1234567890, INT64_MAX, INT64_MIN };

	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		struct buf got = { 0 }, want = { 0 };

		buf_int(&got, values[i]);
		buf_printf(&want, "%lld", (long long)values[i]);
		ck_assert_str_eq(buf_text(&got), buf_text(&want));
		buf_fini(&got);
		buf_fini(&want);
	}
}
END_TEST

static void in_temporary(char path[64], const char *name)
{
	snprintf(path, 64, "/tmp/xpool-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(path));
	strcat(path, "/");
	strcat(path, name);
}

static void remove_temporary(char path[64])
{
	char command[128];

	*strrchr(path, '/') = 0;
	snprintf(command, sizeof command, "rm -r '%s'", path);
	ck_assert_int_eq(system(command), 0);
}

struct seen {
	struct sql *sql;
	struct arena a;
	struct val rows;
};

static void on_seen(void *arg, struct sql_row *row)
{
	struct seen *s = arg;
	struct val v = val_map(), value = sql_value(row, 0);

	/* the statement under way, once more inside itself */
	ck_assert_int_eq(sql_number(s->sql, -1, "SELECT a FROM t ORDER BY rowid", ""), 1);
	ck_assert_int_eq(sql_width(row), 1);
	val_map_push(&s->a, &v, sql_name(row, 0), val_dup(&s->a, &value));
	val_set_push(&s->a, &s->rows, val_dup(&s->a, &v));
}

START_TEST(sql_keeps_values_and_nests_a_statement_in_itself)
{
	struct val values[] = { val_int(1), val_string("two"), val_float(3.5), val_bool(true),
		val_void() };
	struct seen s = { .rows = val_set() };
	struct buf text = { 0 };
	struct stat st;
	struct env env;
	char path[64];

	env_uv_init(&env, "test");
	arena_init(&s.a);
	in_temporary(path, "x.db");
	s.sql = sql_open(&env, path, SQL_ORDERED, "CREATE TABLE t(a)");
	ck_assert_ptr_nonnull(s.sql);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	for (size_t i = 0; i < ARRAY_LEN(values); i++)
		ck_assert_int_eq(sql_run_vals(s.sql, "INSERT INTO t VALUES (?)", &values[i], 1), 0);
	ck_assert_int_eq(sql_query(s.sql, on_seen, &s, "SELECT a FROM t ORDER BY rowid", ""), 0);
	val_json(&text, &s.rows);
	ck_assert_str_eq(
		buf_text(&text), "[{\"a\":1},{\"a\":\"two\"},{\"a\":3.5},{\"a\":1},{\"a\":\"\"}]");
	/* more statements than are kept */
	for (int i = 0; i < 3 * SQL_KEPT; i++) {
		char statement[64];

		snprintf(statement, sizeof statement, "SELECT a + %d FROM t LIMIT 1", i);
		ck_assert_int_eq(sql_number(s.sql, -1, statement, ""), 1 + i);
	}
	buf_fini(&text);
	arena_fini(&s.a);
	sql_close(s.sql);
	remove_temporary(path);
}
END_TEST

START_TEST(sql_for_reading_changes_nothing_and_says_why_it_fails)
{
	struct env env;
	struct sql *sql;
	char path[64];
	int fd;

	env_uv_init(&env, "test");
	in_temporary(path, "x.db");
	ck_assert_ptr_null(sql_open(&env, path, SQL_READ, ""));
	ck_assert_int_ne(access(path, F_OK), 0);
	sql_close(sql_open(&env, path, SQL_DURABLE, "CREATE TABLE t(a)"));
	sql = sql_open(&env, path, SQL_READ, "");
	ck_assert_ptr_nonnull(sql);
	ck_assert_str_eq(sql_why(sql), "");
	ck_assert_int_eq(sql_run(sql, "INSERT INTO t VALUES (1)", ""), ERR_IO);
	ck_assert_ptr_nonnull(strstr(sql_why(sql), "readonly"));
	ck_assert_int_eq(sql_run(sql, "SELECT 1; SELECT 2", ""), ERR_IO);
	ck_assert_str_eq(sql_why(sql), "more than one statement");
	ck_assert_int_eq(sql_run(sql, " -- nothing", ""), ERR_IO);
	ck_assert_int_eq(sql_run(sql, "SELECT a FROM t ; ", ""), 0);
	ck_assert(!sql_damaged(sql));
	sql_close(sql);
	fd = open(path, O_WRONLY);
	ck_assert_int_eq(write(fd, "this is no SQLite file", 22), 22);
	close(fd);
	sql = sql_open(&env, path, SQL_READ, "");
	ck_assert_int_eq(sql_run(sql, "SELECT a FROM t", ""), ERR_IO);
	ck_assert(sql_damaged(sql));
	sql_close(sql);
	remove_temporary(path);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_derived_uuid_follows_from_both_texts,
		packed_values_come_back_equal,
		truncated_and_flipped_bytes_are_refused_or_read_never_crash,
		deep_nesting_is_refused,
		datetimes,
		text_that_xml_cannot_carry_is_refused,
		values_as_text,
		integers_in_decimal,
		sql_keeps_values_and_nests_a_statement_in_itself,
		sql_for_reading_changes_nothing_and_says_why_it_fails,
		jobs_of_one_key_run_one_at_a_time,
		a_job_that_waits_gives_its_place_back,
		a_full_lane_refuses,
		timers_fire_in_order_and_stopped_ones_do_not,
	};

	return suite_run("base", tests, ARRAY_LEN(tests), 60);
}
