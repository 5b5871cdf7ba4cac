/* The projection: real SQLite files behind apply; what is wrong with them never hurts, and in the
 * end they are what the state is. */
#include "db/dump.h"
#include "db/store_priv.h"
#include "tests/lib/state.h"
#include "tests/lib/suite.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define POOL "00000000-0000-4000-8000-000000000001"

struct bench {
	struct db db;
	int64_t wall;
	struct env env;
	struct env_ops ops; /* the real ones with a clock that can be moved */
	struct store_config cfg;
	struct store *store;
	struct parker *parker;
	char dir[64];
};

/* Seconds by which the test's clocks are ahead, and the wall clock alone. */
static _Atomic uint64_t clock_ahead_s;
static _Atomic int64_t wall_ahead_s;

static int64_t moved_wall_s(struct env *env)
{
	(void)env;
	return 1700000000 + (int64_t)clock_ahead_s + wall_ahead_s;
}

static uint64_t moved_now_us(struct env *env)
{
	struct env real;

	(void)env;
	env_uv_init(&real, "clock");
	return real.ops->now_us(&real) + clock_ahead_s * 1000000;
}

static void database_open(struct bench *b)
{
	state_open(&b->db);
	b->db.changes.keep_rows = true;
}

static void database_close(struct bench *b)
{
	char why[128];

	ck_assert_msg(db__state_check(b->db.views.root, why, sizeof why), "%s", why);
	state_close(&b->db);
}

static void bench_open(struct bench *b)
{
	*b = (struct bench){ .wall = 1000 };
	env_uv_init(&b->env, "test");
	b->ops = *b->env.ops;
	b->ops.now_us = moved_now_us;
	b->ops.wall_s = moved_wall_s;
	b->env.ops = &b->ops;
	b->env.log.level = LOG_ERR;
	strcpy(b->dir, "/tmp/xpool-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(b->dir));
	b->cfg = (struct store_config){
		.env = &b->env, .db = &b->db, .dir = b->dir, .pool_uuid = POOL, .epoch = 1
	};
	b->parker = b->ops.parker_new(&b->env);
	database_open(b);
}

/* No complaints, where they are the point. */
static void hush(bool quiet)
{
	static int loud = -1;
	int null;

	if (quiet && loud < 0) {
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		loud = dup(STDERR_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	} else if (!quiet && loud >= 0) {
		dup2(loud, STDERR_FILENO);
		close(loud);
		loud = -1;
	}
}

static void bench_close(struct bench *b)
{
	char command[128];

	if (b->store != NULL)
		db__store_free(b->store);
	hush(false);
	database_close(b);
	b->ops.parker_free(b->parker);
	snprintf(command, sizeof command, "rm -r '%s'", b->dir);
	ck_assert_int_eq(system(command), 0);
}

static void store_begin(struct bench *b)
{
	b->store = db__store_new(&b->cfg);
	/* a member begins with a snapshot or with the first entry */
	db__store_jump(b->store, b->db.index, b->db.views.root->hash);
	db__store_start(b->store, b->db.index);
}

static void store_end(struct bench *b)
{
	db__store_free(b->store);
	b->store = NULL;
}

static void apply_bytes(struct bench *b, const struct buf *entry)
{
	struct entry_head head;

	ck_assert(db__entry_head(entry->data, entry->len, &head));
	ck_assert_int_eq(
		db__apply(&b->db.views, b->db.done, ++b->db.index, &head, &b->db.changes).status,
		APPLY_DONE);
	if (b->store != NULL)
		db__store_feed(
			b->store, b->db.index, b->db.views.root->hash, &head, &b->db.changes);
}

static void encode(struct bench *b, struct db_txn *t, struct buf *out)
{
	struct db_proposal_id id = { 1, 77, b->db.index + 1 };

	db_txn_encode(t, &id, b->wall++, out);
	db_txn_fini(t);
}

static void apply(struct bench *b, struct db_txn *t)
{
	struct buf entry = { 0 };

	encode(b, t, &entry);
	apply_bytes(b, &entry);
	buf_fini(&entry);
}

static const char *vm_ref(unsigned n)
{
	static const char *const refs[] = { "OpaqueRef:vm0", "OpaqueRef:vm1", "OpaqueRef:vm2",
		"OpaqueRef:vm3", "OpaqueRef:vm4", "OpaqueRef:vm5", "OpaqueRef:vm6",
		"OpaqueRef:vm7" };

	return refs[n % ARRAY_LEN(refs)];
}

static void begin(struct db_txn *t)
{
	db_txn_init(t, DB_FOR_FIELD);
	db_txn_origin(t, (struct db_origin){ "ann", "OpaqueRef:t1", "VM.set_something" });
}

static void create_vm(struct bench *b, unsigned n)
{
	struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct db_txn t;

	f[VM_uuid] = val_string(vm_ref(n) + 10);
	f[VM_name_label] = val_string("a \"name\" with 'quotes'");
	f[VM_memory_static_max] = val_int(INT64_MAX);
	begin(&t);
	db_txn_create(&t, MODEL_CLASS_VM, vm_ref(n), f);
	apply(b, &t);
}

static void describe(struct bench *b, unsigned n, const char *text)
{
	struct db_txn t;

	begin(&t);
	db_txn_set(&t, MODEL_CLASS_VM, vm_ref(n), VM_name_description, val_string(text));
	apply(b, &t);
}

static void delete_vm(struct bench *b, unsigned n)
{
	struct db_txn t;

	begin(&t);
	db_txn_delete(&t, MODEL_CLASS_VM, vm_ref(n));
	apply(b, &t);
}

/* Anything of a kind, often repeated. */
static void anything(struct bench *b)
{
	unsigned n = (unsigned)rand();
	char text[32];
	struct db_txn t;

	snprintf(text, sizeof text, "text %d", rand());
	switch (rand() % 6) {
	case 0: create_vm(b, n); break;
	case 1:
		if (rand() % 4 == 0)
			delete_vm(b, n);
		break;
	case 2:
		begin(&t);
		db_txn_map_add(
			&t, MODEL_CLASS_VM, vm_ref(n), VM_other_config, text, val_string("v"));
		db_txn_set_add(&t, MODEL_CLASS_VM, vm_ref(n), VM_tags, val_string(text));
		apply(b, &t);
		break;
	case 3:
		begin(&t);
		db_txn_set(&t, MODEL_CLASS_VM, vm_ref(n), VM_HVM_shadow_multiplier,
			val_float(rand() % 2 ? -0.0 : rand() / 3.0));
		db_txn_set(&t, MODEL_CLASS_VM, vm_ref(n), VM_snapshot_of,
			val_string(vm_ref((unsigned)rand())));
		apply(b, &t);
		break;
	default: describe(b, n, text); break;
	}
}

struct waiting_ask {
	struct store_ask ask;
	struct bench *bench;
	_Atomic bool done;
};

static void on_answer(struct store_ask *ask)
{
	struct waiting_ask *w = container_of(ask, struct waiting_ask, ask);
	struct bench *b = w->bench;

	w->done = true;
	b->ops.unpark(b->parker);
}

/* Ask and wait; the report in out when it is not NULL. */
static bool ask(struct bench *b, bool check, char *out, size_t n)
{
	struct waiting_ask w = { .ask = { .check = check, .answered = on_answer }, .bench = b };

	db__store_ask(b->store, &w.ask);
	while (!w.done)
		b->ops.park(b->parker, 10000);
	if (out != NULL)
		snprintf(out, n, "%s", buf_text(&w.ask.report));
	buf_fini(&w.ask.report);
	return w.ask.ok;
}

static void agrees(struct bench *b)
{
	char report[1024];
	bool ok = ask(b, true, report, sizeof report);

	ck_assert_msg(ok, "%s", report);
	ck_assert_ptr_nonnull(strstr(report, "agree with the state"));
}

static void file_name(const struct bench *b, const char *tail, char out[128])
{
	snprintf(out, 128, "%s/" DB_PROJECTION "%s", b->dir, tail);
}

static bool exists(const struct bench *b, const char *tail)
{
	char path[128];

	file_name(b, tail, path);
	return access(path, F_OK) == 0;
}

static uint64_t count(struct bench *b, enum counter which)
{
	return counter_get(&b->env.counters, which);
}

/* The first column of a query on the file. */
static const char *query(struct bench *b, const char *statement, char out[256])
{
	char path[128];
	struct sql *sql;

	file_name(b, "", path);
	sql = sql_open(&b->env, path, SQL_READ, "");
	ck_assert_ptr_nonnull(sql);
	strcpy(out, "(none)");
	sql_text(sql, out, 256, statement, "");
	ck_assert_str_eq(sql_why(sql), "");
	sql_close(sql);
	return out;
}

static int64_t number(struct bench *b, const char *statement)
{
	char text[256];

	return atoll(query(b, statement, text));
}

START_TEST(the_file_has_the_values_and_their_history)
{
	static struct bench b; /* outlives a test that fails */
	char text[256];

	bench_open(&b);
	store_begin(&b);
	create_vm(&b, 0);
	describe(&b, 0, "one");
	describe(&b, 0, "two");
	ck_assert(ask(&b, false, NULL, 0));
	ck_assert_str_eq(query(&b, "SELECT name__description FROM VM", text), "two");
	ck_assert_str_eq(query(&b, "SELECT name__label FROM VM", text), "a \"name\" with 'quotes'");
	ck_assert_str_eq(
		query(&b, "SELECT memory__static_max FROM VM", text), "9223372036854775807");
	ck_assert_str_eq(query(&b, "SELECT typeof(memory__static_max) FROM VM", text), "integer");
	ck_assert_str_eq(query(&b, "SELECT has_vendor_device FROM VM", text), "1");
	ck_assert_str_eq(query(&b, "SELECT HVM__shadow_multiplier FROM VM", text), "1.0");
	ck_assert_str_eq(query(&b, "SELECT snapshot_time FROM VM", text), "19700101T00:00:00Z");
	ck_assert_str_eq(query(&b, "SELECT tags || other_config FROM VM", text), "[]{}");
	/* who, when, how, and what it was */
	ck_assert_str_eq(query(&b,
				 "SELECT group_concat(idx||' '||time||' '||class||' '||ref||' '||"
				 "field||' '||old||' '||user||' '||task||' '||method, '|') FROM "
				 "history WHERE field <> ''",
				 text),
		"2 1001 VM OpaqueRef:vm0 name__description  ann OpaqueRef:t1 VM.set_something|"
		"3 1002 VM OpaqueRef:vm0 name__description one ann OpaqueRef:t1 VM.set_something");
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM history WHERE class = 'VM' AND field = "
				    "'' AND old IS NULL"),
		1);
	delete_vm(&b, 0);
	ck_assert(ask(&b, false, NULL, 0));
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM VM"), 0);
	ck_assert_str_eq(query(&b,
				 "SELECT json_extract(old, '$.name__description') FROM history "
				 "WHERE idx = 4",
				 text),
		"two");
	ck_assert_int_eq(number(&b, "SELECT idx FROM projection"), 4);
	agrees(&b);
	bench_close(&b);
}
END_TEST

START_TEST(secrets_are_not_in_the_file)
{
	static const char *const words[] = { "OpaqueRef:secret-session", "secret-of-secrets",
		"session-key" };
	struct val f[TASK_FIELD_COUNT] = { { .kind = VAL_VOID } },
		   s[SECRET_FIELD_COUNT] = { { .kind = VAL_VOID } }, c[_CONFIG_FIELD_COUNT];
	static struct bench b;
	struct db_txn t;
	char text[256], command[256];

	bench_open(&b);
	store_begin(&b);
	f[TASK_session] = val_string(words[0]);
	s[SECRET_value] = val_string(words[1]);
	c[_CONFIG_value] = val_string(words[2]);
	begin(&t);
	db_txn_create(&t, MODEL_CLASS_task, "OpaqueRef:t", f);
	db_txn_set(&t, MODEL_CLASS_task, "OpaqueRef:t", TASK_session, val_string("OpaqueRef:NULL"));
	db_txn_delete(&t, MODEL_CLASS_task, "OpaqueRef:t");
	db_txn_create(&t, MODEL_CLASS_task, "OpaqueRef:t", f);
	db_txn_create(&t, MODEL_CLASS_secret, "OpaqueRef:s", s);
	db_txn_set(&t, MODEL_CLASS_secret, "OpaqueRef:s", SECRET_value, val_string("other"));
	db_txn_create(&t, MODEL_CLASS__config, "session_key", c);
	apply(&b, &t);
	agrees(&b);
	ck_assert_str_eq(query(&b, "SELECT session FROM task", text), "***");
	ck_assert_str_eq(query(&b, "SELECT value FROM secret", text), "***");
	ck_assert_int_eq(
		number(&b, "SELECT count(*) FROM sqlite_master WHERE name = 'session'"), 0);
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		snprintf(command, sizeof command, "grep -qr %s %s", words[i], b.dir);
		ck_assert_int_ne(system(command), 0);
	}
	bench_close(&b);
}
END_TEST

START_TEST(any_changes_end_in_agreement_also_when_the_queue_is_tiny)
{
	srand(11);
	for (int round = 0; round < 6; round++) {
		static struct bench b;

		bench_open(&b);
		b.cfg.queue_max = round % 2 ? 3000 : 0;
		store_begin(&b);
		for (int i = 0; i < 400; i++) {
			anything(&b);
			if (rand() % 100 == 0)
				agrees(&b);
		}
		agrees(&b);
		if (round % 2 == 0) {
			ck_assert_uint_eq(count(&b, COUNTER_projection_dropped), 0);
			ck_assert_uint_eq(count(&b, COUNTER_projection_settled), 0);
		}
		bench_close(&b);
	}
}
END_TEST

START_TEST(a_full_queue_coalesces_and_counts_what_it_dropped)
{
	static struct bench b;
	char text[256];

	bench_open(&b);
	b.cfg.queue_max = 20000;
	store_begin(&b);
	create_vm(&b, 0);
	create_vm(&b, 1);
	agrees(&b);
	store_end(&b);
	/* a thread that hangs: not started */
	b.store = db__store_new(&b.cfg);
	db__store_jump(b.store, b.db.index, b.db.views.root->hash);
	for (int i = 0; i < 500; i++) {
		snprintf(text, sizeof text, "write %d", i);
		describe(&b, 0, text);
	}
	delete_vm(&b, 1);
	db__store_start(b.store, b.db.index);
	agrees(&b);
	ck_assert_uint_gt(count(&b, COUNTER_projection_dropped), 100);
	ck_assert_uint_lt(count(&b, COUNTER_projection_dropped), 501);
	ck_assert_uint_eq(count(&b, COUNTER_projection_settled), 1);
	ck_assert_uint_le(count(&b, COUNTER_projection_queue_max), 20000 + 200);
	/* what was queued before keeps its history; the rest is one change, and says so */
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM history WHERE method = 'coalesced' AND "
				    "field = 'name__description'"),
		1);
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM history WHERE field <> ''"),
		(int64_t)(500 - (count(&b, COUNTER_projection_dropped) - 1) + 1));
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM history WHERE method = 'coalesced' AND "
				    "field = '' AND ref = 'OpaqueRef:vm1' AND old LIKE '{%'"),
		1);
	/* and from here on it follows again */
	describe(&b, 0, "after");
	agrees(&b);
	ck_assert_str_eq(query(&b, "SELECT user FROM history ORDER BY rowid DESC", text), "ann");
	bench_close(&b);
}
END_TEST

/* The log: entries kept, to be applied again by a member that starts. */
static void replay(struct bench *b, const struct buf *log, unsigned n)
{
	database_close(b);
	database_open(b);
	for (unsigned i = 0; i < n; i++)
		apply_bytes(b, &log[i]);
}

static void keep(struct bench *b, struct buf *log, unsigned n, const char *text)
{
	struct db_txn t;

	begin(&t);
	db_txn_set(&t, MODEL_CLASS_VM, vm_ref(0), VM_name_description, val_string(text));
	encode(b, &t, &log[n]);
	apply_bytes(b, &log[n]);
}

enum { LOG = 60 };

/* A pool of one VM with LOG entries; the store has followed and ended. */
static void lived(struct bench *b, struct buf *log)
{
	struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct db_txn t;
	char text[32];

	bench_open(b);
	store_begin(b);
	begin(&t);
	db_txn_create(&t, MODEL_CLASS_VM, vm_ref(0), f);
	encode(b, &t, &log[0]);
	apply_bytes(b, &log[0]);
	for (unsigned i = 1; i < LOG; i++) {
		snprintf(text, sizeof text, "write %u", i);
		keep(b, log, i, text);
	}
	agrees(b);
	store_end(b);
}

static void log_free(struct buf *log)
{
	for (unsigned i = 0; i < LOG; i++)
		buf_fini(&log[i]);
}

/* Start again on what is there: the log is replayed beside the thread. */
static void start_again(struct bench *b, const struct buf *log)
{
	b->store = db__store_new(&b->cfg);
	db__store_start(b->store, LOG);
	replay(b, log, LOG);
}

START_TEST(a_start_goes_on_where_the_file_is)
{
	struct buf log[LOG] = { { 0 } };
	static struct bench b;
	char text[256];

	lived(&b, log);
	for (int i = 0; i < 3; i++) {
		start_again(&b, log);
		agrees(&b);
		store_end(&b);
	}
	/* nothing twice, nothing lost */
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM history WHERE class = 'VM'"), LOG);
	ck_assert_uint_eq(count(&b, COUNTER_projection_settled), 0);
	ck_assert_uint_eq(count(&b, COUNTER_projection_aside), 0);
	start_again(&b, log);
	describe(&b, 0, "after");
	agrees(&b);
	ck_assert_str_eq(
		query(&b, "SELECT old FROM history ORDER BY rowid DESC", text), "write 59");
	log_free(log);
	bench_close(&b);
}
END_TEST

START_TEST(a_file_that_is_away_is_made_from_the_log_with_history)
{
	struct buf log[LOG] = { { 0 } };
	static struct bench b;
	char path[128];

	lived(&b, log);
	file_name(&b, "", path);
	ck_assert_int_eq(unlink(path), 0);
	start_again(&b, log);
	agrees(&b);
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM history WHERE class = 'VM'"), LOG);
	log_free(log);
	bench_close(&b);
}
END_TEST

/* What must be set aside, each by a change of the file or of who looks at it. */
static void spoil(struct bench *b, int how)
{
	char path[128], command[300];
	static const char *const statements[] = { "UPDATE projection SET pool = 'x'",
		"UPDATE projection SET epoch = 2", "UPDATE projection SET idx = 1000",
		"UPDATE projection SET hash = 'feed'", "DROP TABLE projection",
		"DELETE FROM projection" };
	struct stat st;
	int fd;

	file_name(b, "", path);
	if (how < (int)ARRAY_LEN(statements)) {
		struct sql *sql = sql_open(&b->env, path, SQL_DURABLE, statements[how]);

		ck_assert_ptr_nonnull(sql);
		sql_close(sql);
		return;
	}
	how -= (int)ARRAY_LEN(statements);
	if (how == 0) {
		ck_assert_int_eq(stat(path, &st), 0);
		ck_assert_int_eq(truncate(path, st.st_size / 2), 0);
	} else if (how == 1) {
		fd = open(path, O_WRONLY | O_TRUNC);
		ck_assert_int_eq(write(fd,
					 "not a database, but long enough for a header of one"
					 "                                                  ",
					 101),
			101);
		close(fd);
	} else { /* all pages but the first */
		snprintf(command, sizeof command,
			"dd if=/dev/urandom of=%s bs=4096 seek=1 count=20 conv=notrunc 2>/dev/null",
			path);
		ck_assert_int_eq(system(command), 0);
	}
}

START_TEST(a_file_that_is_not_sound_or_not_ours_is_set_aside)
{
	enum { WAYS = 6 + 3 };

	for (int how = 0; how < WAYS; how++) {
		struct buf log[LOG] = { { 0 } };
		static struct bench b;

		lived(&b, log);
		spoil(&b, how);
		hush(true);
		start_again(&b, log);
		describe(&b, 0, "one more");
		agrees(&b);
		ck_assert_msg(count(&b, COUNTER_projection_aside) == 1, "way %d", how);
		ck_assert(exists(&b, ".aside1"));
		log_free(log);
		bench_close(&b);
	}
}
END_TEST

/* A field that came and one that went, a class that came and one that went. */
START_TEST(the_file_of_another_schema_keeps_its_history)
{
	static const char *const older[] = { "ALTER TABLE VM RENAME COLUMN tags TO tagz",
		"UPDATE VM SET tagz = 'old'", "DROP TABLE secret",
		"CREATE TABLE floppy(ref TEXT PRIMARY KEY, size INTEGER)",
		"INSERT INTO history SELECT idx, time, class, ref, 'tagz', 'x', user, task, method "
		"FROM history WHERE class = 'VM' LIMIT 1" };
	struct buf log[LOG] = { { 0 } };
	static struct bench b;
	char path[128];

	lived(&b, log);
	file_name(&b, "", path);
	for (unsigned i = 0; i < ARRAY_LEN(older); i++) {
		struct sql *sql = sql_open(&b.env, path, SQL_DURABLE, older[i]);

		ck_assert_ptr_nonnull(sql);
		sql_close(sql);
	}
	start_again(&b, log);
	describe(&b, 0, "one more");
	agrees(&b);
	ck_assert_uint_eq(count(&b, COUNTER_projection_aside), 0);
	ck_assert_int_eq(
		number(&b, "SELECT count(*) FROM history WHERE class = 'VM'"), LOG + 1 + 1);
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM sqlite_master WHERE name = 'floppy'"), 0);
	log_free(log);
	bench_close(&b);
}
END_TEST

START_TEST(files_set_aside_are_few)
{
	struct buf log[LOG] = { { 0 } };
	static struct bench b;

	lived(&b, log);
	for (int i = 0; i < STORE_ASIDE_MAX + 3; i++) {
		spoil(&b, 1);
		hush(true);
		start_again(&b, log);
		agrees(&b);
		store_end(&b);
	}
	ck_assert(exists(&b, ".aside1") && exists(&b, ".aside2") && exists(&b, ".aside3"));
	ck_assert(!exists(&b, ".aside4"));
	log_free(log);
	bench_close(&b);
}
END_TEST

/* Whatever bytes are flipped: no crash, and what the check does not complain about agrees. */
START_TEST(flipped_bytes_are_found_or_harmless)
{
	unsigned aside = 0, found = 0;

	srand(5);
	for (int round = 0; round < 40; round++) {
		struct buf log[LOG] = { { 0 } };
		char path[128];
		static struct bench b;
		struct stat st;
		int fd;

		lived(&b, log);
		file_name(&b, "", path);
		fd = open(path, O_RDWR);
		ck_assert_int_eq(fstat(fd, &st), 0);
		for (int i = 0; i < 1 + round % 8; i++) {
			off_t at = rand() % st.st_size;
			uint8_t byte;

			ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
			byte ^= (uint8_t)(1 << rand() % 8);
			ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
		}
		close(fd);
		hush(true);
		start_again(&b, log);
		for (int i = 0; i < 5; i++)
			describe(&b, 0, i % 2 ? "a" : "b");
		found += !ask(&b, true, NULL, 0);
		aside += count(&b, COUNTER_projection_aside) > 0;
		log_free(log);
		bench_close(&b);
	}
	ck_assert_uint_gt(aside, 0);
	ck_assert_uint_lt(aside + found, 40);
}
END_TEST

START_TEST(a_file_deleted_or_replaced_under_the_thread_is_made_anew)
{
	struct buf log[LOG] = { { 0 } };
	char path[128], other[128];
	static struct bench b;

	lived(&b, log);
	start_again(&b, log);
	agrees(&b);
	hush(true);
	file_name(&b, "", path);
	ck_assert_int_eq(unlink(path), 0);
	describe(&b, 0, "after the deletion");
	agrees(&b);
	ck_assert_uint_eq(count(&b, COUNTER_projection_settled), 1);
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM history"), 0);
	describe(&b, 0, "and now with history");
	agrees(&b);
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM history"), 1);
	/* another file under its name */
	file_name(&b, ".other", other);
	close(open(other, O_CREAT | O_WRONLY, 0600));
	ck_assert_int_eq(rename(other, path), 0);
	describe(&b, 0, "after the replacement");
	agrees(&b);
	log_free(log);
	bench_close(&b);
}
END_TEST

START_TEST(a_file_ahead_of_the_log_is_set_aside)
{
	struct buf log[LOG] = { { 0 } };
	static struct bench b;

	lived(&b, log);
	hush(true);
	b.store = db__store_new(&b.cfg);
	db__store_start(b.store, LOG - 10);
	replay(&b, log, LOG - 10);
	agrees(&b);
	ck_assert_uint_eq(count(&b, COUNTER_projection_aside), 1);
	log_free(log);
	bench_close(&b);
}
END_TEST

/* As the database does it: the state is replaced, then the store hears of it. */
static void restore(struct bench *b, const struct buf *bytes)
{
	struct done_table *done = db__done_new(0);
	const char *why;
	struct db_state *state = db__snapshot_decode(bytes->data, bytes->len, done, &why);
	uint64_t hash;

	ck_assert_ptr_nonnull(state);
	hash = state->hash;
	b->db.index = state->index;
	db__views_replace(&b->db.views, state);
	db__done_free(b->db.done);
	b->db.done = done;
	db__store_jump(b->store, b->db.index, hash);
}

/* A member that gets a snapshot: the log in between never comes. */
START_TEST(a_snapshot_is_settled_from_the_view)
{
	struct buf log[LOG] = { { 0 } }, bytes = { 0 };
	static struct bench b;

	lived(&b, log);
	create_vm(&b, 1); /* seen by others alone */
	describe(&b, 0, "while we were away");
	db__snapshot_encode(b.db.views.root, b.db.done, &bytes);
	b.store = db__store_new(&b.cfg);
	db__store_start(b.store, LOG);
	replay(&b, log, LOG - 5);
	restore(&b, &bytes);
	buf_fini(&log[1]);
	keep(&b, log, 1, "after it");
	agrees(&b);
	ck_assert_uint_eq(count(&b, COUNTER_projection_settled), 1);
	ck_assert_uint_eq(count(&b, COUNTER_projection_aside), 0);
	ck_assert_int_ge(number(&b, "SELECT count(*) FROM history WHERE method = 'coalesced'"), 2);
	/* a start from that snapshot, with a file that is further */
	store_end(&b);
	b.store = db__store_new(&b.cfg);
	database_close(&b);
	database_open(&b);
	restore(&b, &bytes);
	db__store_start(b.store, b.db.index + 1);
	apply_bytes(&b, &log[1]);
	describe(&b, 0, "and on");
	agrees(&b);
	ck_assert_uint_eq(count(&b, COUNTER_projection_settled), 1);
	ck_assert_uint_eq(count(&b, COUNTER_projection_aside), 0);
	buf_fini(&bytes);
	log_free(log);
	bench_close(&b);
}
END_TEST

START_TEST(history_is_pruned_by_age_and_by_size)
{
	static struct bench b;
	char text[2000];

	bench_open(&b);
	b.cfg.history_s = 100;
	store_begin(&b);
	create_vm(&b, 0);
	for (int i = 0; i < 50; i++)
		describe(&b, 0, i % 2 ? "odd" : "even");
	agrees(&b);
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM history WHERE class = 'VM'"), 51);
	b.wall += 1000; /* pool time is what entries say */
	describe(&b, 0, "later");
	agrees(&b);
	ck_assert_int_eq(number(&b, "SELECT count(*) FROM history"), 0);
	store_end(&b);

	b.cfg.history_s = 1000000;
	b.cfg.history_bytes = 6 << 20;
	store_begin(&b);
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = 0;
	for (int i = 0; i < 3000; i++) {
		text[0] = (char)('a' + i % 20);
		describe(&b, 0, text);
		if (i % 100 == 0)
			ck_assert(ask(&b, false, NULL, 0));
	}
	agrees(&b);
	ck_assert_int_lt(number(&b, "SELECT count(*) FROM history"), 2900);
	ck_assert_int_gt(number(&b, "SELECT count(*) FROM history"), 0);
	ck_assert_int_lt(number(&b, "SELECT (SELECT page_count FROM pragma_page_count) * (SELECT "
				    "page_size FROM pragma_page_size)"),
		8 << 20);
	bench_close(&b);
}
END_TEST

/* The limit is above what the test program itself writes. */
START_TEST(a_full_disk_costs_history_and_nothing_else)
{
	enum { LIMIT = 4 << 20, TEXT = 200 << 10, WRITES = 40 };
	static struct bench b;
	char *text = mem_new(TEXT), report[512];
	struct rlimit limit, old;

	bench_open(&b);
	store_begin(&b);
	create_vm(&b, 0);
	agrees(&b);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = old;
	limit.rlim_cur = LIMIT;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	hush(true);
	memset(text, 'x', TEXT - 1);
	for (int i = 0; i < WRITES; i++) {
		text[0] = (char)('a' + i % 20);
		describe(&b, 0, text);
	}
	ck_assert(!ask(&b, true, report, sizeof report));
	ck_assert_ptr_nonnull(strstr(report, "cannot be written"));
	ck_assert_uint_eq(count(&b, COUNTER_projection_failures), 1);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	ck_assert(!ask(&b, true, NULL, 0)); /* not again before its time */
	clock_ahead_s += STORE_RETRY_MS / 1000 + 1;
	agrees(&b);
	ck_assert_uint_eq(count(&b, COUNTER_projection_aside), 0);
	ck_assert_uint_eq(count(&b, COUNTER_projection_settled), 1);
	free(text);
	bench_close(&b);
}
END_TEST

START_TEST(a_file_that_cannot_be_made_is_tried_again)
{
	static struct bench b;
	char path[128];

	bench_open(&b);
	snprintf(path, sizeof path, "%s/not-yet", b.dir);
	b.cfg.dir = path;
	hush(true);
	store_begin(&b);
	create_vm(&b, 0);
	ck_assert(!ask(&b, true, NULL, 0));
	ck_assert_uint_eq(count(&b, COUNTER_projection_failures), 1);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	clock_ahead_s += STORE_RETRY_MS / 1000 + 1;
	agrees(&b);
	bench_close(&b);
}
END_TEST

/* Dumps. */

static int to_buf(void *arg, const void *p, size_t n)
{
	buf_put(arg, p, n);
	return 0;
}

START_TEST(a_dump_has_the_reference_s_form)
{
	struct buf xml = { 0 };
	static struct bench b;
	struct db_view view;
	struct db_txn t;
	const char *text;

	bench_open(&b);
	create_vm(&b, 0);
	begin(&t);
	db_txn_set(&t, MODEL_CLASS_VM, vm_ref(0), VM_name_description,
		val_string("a b\tc\nd\re%f&<>\"'\xc3\xa4"));
	db_txn_map_add(&t, MODEL_CLASS_VM, vm_ref(0), VM_xenstore_data, "k 1", val_string("it's"));
	db_txn_set_add(&t, MODEL_CLASS_VM, vm_ref(0), VM_tags, val_string("t"));
	db_txn_set(&t, MODEL_CLASS_VM, vm_ref(0), VM_snapshot_of, val_string(vm_ref(0)));
	apply(&b, &t);
	db_view_pin(&b.db, &view);
	ck_assert_int_eq(db_dump(&view, to_buf, &xml), 0);
	db_view_unpin(&view);
	text = buf_text(&xml);
	ck_assert_ptr_eq(
		strstr(text, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<database><manifest>"
			     "<pair key=\"schema_major_vsn\" value=\"5\"/>"
			     "<pair key=\"schema_minor_vsn\" value=\"909\"/>"
			     "<pair key=\"generation_count\" value=\"2\"/></manifest><table "),
		text);
	ck_assert_ptr_nonnull(strstr(text,
		"<table name=\"VM\"><row ref=\"OpaqueRef:vm0\" __ctime=\"1\" __mtime=\"2\" "
		"_ref=\"OpaqueRef:vm0\" uuid=\"vm0\""));
	ck_assert_ptr_nonnull(strstr(
		text, " name__description=\"a%.b%tc%nd%re%%f&amp;&lt;&gt;&quot;'\xc3\xa4\""));
	ck_assert_ptr_nonnull(strstr(text, " xenstore_data=\"(('k%.1'%.'it\\'s'))\""));
	ck_assert_ptr_nonnull(strstr(text, " tags=\"('t')\""));
	ck_assert_ptr_nonnull(strstr(text, " is_a_template=\"false\""));
	ck_assert_ptr_nonnull(strstr(text, " snapshots=\"('OpaqueRef:vm0')\"")); /* derived */
	ck_assert_ptr_nonnull(strstr(text, "<table name=\"session\"></table>"));
	ck_assert_ptr_nonnull(strstr(text, "<table name=\"task\"></table>"));
	ck_assert_ptr_null(strstr(text, "name=\"_config\""));
	ck_assert_str_eq(text + xml.len - strlen("</database>\n"), "</database>\n");
	buf_fini(&xml);
	bench_close(&b);
}
END_TEST

static int stop_at_second(void *arg, const void *p, size_t n)
{
	unsigned *calls = arg;

	(void)p;
	ck_assert_uint_le(n, DB_DUMP_PIECE + (8 << 10));
	return ++*calls == 2 ? ERR_CLOSED : 0;
}

START_TEST(a_dump_comes_in_pieces_and_stops_when_told)
{
	char *text = mem_new(DB_DUMP_PIECE + 1);
	static struct bench b;
	struct db_view view;
	unsigned calls = 0;

	bench_open(&b);
	memset(text, 'x', 4000);
	for (unsigned i = 0; i < 400; i++) {
		struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
		char ref[32];
		struct db_txn t;

		snprintf(ref, sizeof ref, "OpaqueRef:%u", i);
		f[VM_name_description] = val_string(text);
		begin(&t);
		db_txn_create(&t, MODEL_CLASS_VM, ref, f);
		apply(&b, &t);
	}
	db_view_pin(&b.db, &view);
	ck_assert_int_eq(db_dump(&view, stop_at_second, &calls), ERR_CLOSED);
	db_view_unpin(&view);
	ck_assert_uint_eq(calls, 2);
	free(text);
	bench_close(&b);
}
END_TEST

static unsigned dumps(const struct bench *b, const char *prefix)
{
	char command[200], line[32] = "";
	FILE *f;

	snprintf(command, sizeof command, "ls %s/dumps | grep -c ^%s", b->dir, prefix);
	f = popen(command, "r");
	ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
	pclose(f);
	return (unsigned)atoi(line);
}

/* The thread looks behind each answer: the second one comes behind the look of the first. */
static void pass(struct bench *b, uint64_t seconds)
{
	clock_ahead_s += seconds;
	ask(b, false, NULL, 0);
	ask(b, false, NULL, 0);
}

START_TEST(dumps_are_kept_by_the_hour_and_by_the_day)
{
	static struct bench b;

	bench_open(&b);
	store_begin(&b);
	create_vm(&b, 0);
	pass(&b, 0);
	ck_assert_uint_eq(dumps(&b, "hourly-"), 1);
	ck_assert_uint_eq(dumps(&b, "daily-"), 1);
	for (int minutes = 10; minutes < 60; minutes += 10)
		pass(&b, 600);
	ck_assert_uint_eq(count(&b, COUNTER_dumps_written), 1);
	for (int hour = 0; hour < 30; hour++)
		pass(&b, 3600);
	ck_assert_uint_eq(count(&b, COUNTER_dumps_written), 31);
	ck_assert_uint_eq(dumps(&b, "hourly-"), DUMPS_HOURLY);
	ck_assert_uint_eq(dumps(&b, "daily-"), 2);
	for (int day = 0; day < 20; day++)
		pass(&b, 86400);
	ck_assert_uint_eq(dumps(&b, "daily-"), DUMPS_DAILY);
	ck_assert_uint_eq(count(&b, COUNTER_dumps_written), 51);
	/* a restart is no reason for one more */
	store_end(&b);
	store_begin(&b);
	pass(&b, 60);
	ck_assert_uint_eq(count(&b, COUNTER_dumps_written), 51);
	/* a wall clock that goes back a month: one each hour all the same, and no more */
	wall_ahead_s = -30 * 86400;
	for (int minutes = 0; minutes < 180; minutes += 10)
		pass(&b, 600);
	ck_assert_uint_ge(count(&b, COUNTER_dumps_written), 51 + 3);
	ck_assert_uint_le(count(&b, COUNTER_dumps_written), 51 + 4);
	ck_assert_uint_le(dumps(&b, "hourly-"), DUMPS_HOURLY);
	wall_ahead_s = 0;
	bench_close(&b);
}
END_TEST

START_TEST(a_dump_that_cannot_be_written_is_tried_again)
{
	static struct bench b;
	char path[128];

	bench_open(&b);
	snprintf(path, sizeof path, "%s/dumps", b.dir);
	close(open(path, O_CREAT | O_WRONLY, 0600)); /* in the way of the folder */
	hush(true);
	store_begin(&b);
	create_vm(&b, 0);
	pass(&b, 0);
	pass(&b, 60);
	ck_assert_uint_eq(count(&b, COUNTER_dump_failures), 1);
	ck_assert_int_eq(unlink(path), 0);
	pass(&b, DUMPS_RETRY_MS / 1000);
	ck_assert_uint_eq(count(&b, COUNTER_dumps_written), 1);
	agrees(&b);
	bench_close(&b);
}
END_TEST

/* What this thread has computed: others on the machine do not count, waiting would not either. */
static double own_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1000;
}

/* A sanitizer counts each access of memory: what it makes of the ratio is its own. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define BURST_RATIO_MAX 6
#else
#define BURST_RATIO_MAX 2
#endif

/* Of one apply with all it makes, in microseconds; the thread works beside it. */
static double burst_us(struct bench *b, bool with)
{
	enum { WRITES = 20000 };
	struct buf *log = mem_new(WRITES * sizeof *log);
	double began, took, wall;
	char text[220];
	struct db_txn t;

	bench_open(b);
	for (unsigned i = 0; i < 8; i++)
		create_vm(b, i);
	for (unsigned i = 0; i < WRITES; i++) {
		struct db_proposal_id id = { 1, 77, b->db.index + 1 + i };

		snprintf(text, sizeof text, "%u %200s", i, "x");
		begin(&t);
		db_txn_set(&t, MODEL_CLASS_VM, vm_ref(i), VM_name_description, val_string(text));
		db_txn_encode(&t, &id, b->wall, &log[i]);
		db_txn_fini(&t);
	}
	b->db.changes.keep_rows = with;
	if (with)
		store_begin(b);
	wall = (double)env_now_us(&b->env);
	began = own_us();
	for (unsigned i = 0; i < WRITES; i++)
		apply_bytes(b, &log[i]);
	took = own_us() - began;
	wall = (double)env_now_us(&b->env) - wall;
	if (with) {
		agrees(b);
		printf("burst: %u writes in %.0f ms, queue %llu bytes\n", WRITES, wall / 1000,
			(unsigned long long)count(b, COUNTER_projection_queue_max));
		ck_assert_uint_eq(count(b, COUNTER_projection_dropped), 0);
	}
	for (unsigned i = 0; i < WRITES; i++)
		buf_fini(&log[i]);
	free(log);
	bench_close(b);
	ck_assert(wall < 60e6);
	return took / WRITES;
}

START_TEST(a_burst_is_not_slowed)
{
	double with = 1e9, without = 1e9;
	static struct bench b;

	for (int round = 0; round < 3; round++) {
		double one = burst_us(&b, false), other = burst_us(&b, true);

		without = one < without ? one : without;
		with = other < with ? other : with;
	}
	printf("apply without projection %.2f us, with %.2f us: ratio %.2f\n", without, with,
		with / without);
	ck_assert(with < BURST_RATIO_MAX * without);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_file_has_the_values_and_their_history,
		secrets_are_not_in_the_file,
		any_changes_end_in_agreement_also_when_the_queue_is_tiny,
		a_full_queue_coalesces_and_counts_what_it_dropped,
		a_start_goes_on_where_the_file_is,
		a_file_that_is_away_is_made_from_the_log_with_history,
		a_file_that_is_not_sound_or_not_ours_is_set_aside,
		the_file_of_another_schema_keeps_its_history,
		files_set_aside_are_few,
		flipped_bytes_are_found_or_harmless,
		a_file_deleted_or_replaced_under_the_thread_is_made_anew,
		a_file_ahead_of_the_log_is_set_aside,
		a_snapshot_is_settled_from_the_view,
		history_is_pruned_by_age_and_by_size,
		a_full_disk_costs_history_and_nothing_else,
		a_file_that_cannot_be_made_is_tried_again,
		a_dump_has_the_reference_s_form,
		a_dump_comes_in_pieces_and_stops_when_told,
		dumps_are_kept_by_the_hour_and_by_the_day,
		a_dump_that_cannot_be_written_is_tried_again,
		a_burst_is_not_slowed,
	};

	return suite_run("store", tests, ARRAY_LEN(tests), 120);
}
