/* A whole database that gets a snapshot of 50,000 rows from a leader played by the test: the loop
 * that Raft lives on is never busy for long, and what is shown is the old state or the new one.
 * Busy: processor time of the thread, so that a busy machine is no failure.
 */
#include "db/db_priv.h"
#include "db/snapshot_priv.h"
#include "rpc/base/hash.h"
#include "rpc/base/uv.h"
#include "tests/lib/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

enum { ROWS = 50000, ROWS_EACH = 500, LEADER = 2, TERM = 3, VOTER = 1, WAIT_MS = 60000 };
enum { F_SNAPSHOT = CHANNEL_RAFT_FIRST + 6, F_CHUNK };
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { TURN_MAX_US = 200000 }; /* for shape only */
#else
enum { TURN_MAX_US = 60000 }; /* usually 5 to 20 ms; all of it at once takes ten times that */
#endif

/* What the leader has: a state made by apply, like any. */
struct source {
	struct views views;
	struct done_table *done;
	struct apply_changes changes;
	uint64_t index;
};

static void source_open(struct source *s)
{
	*s = (struct source){ 0 };
	db__views_init(&s->views);
	db__views_publish(&s->views, mem_new(sizeof(struct db_state)));
	s->done = db__done_new(0);
}

static void source_close(struct source *s)
{
	db__views_fini(&s->views);
	db__done_free(s->done);
	free(s->changes.items);
}

static void apply(struct source *s, struct db_txn *txn)
{
	struct db_proposal_id id = { 1, 77, s->index + 1 };
	struct entry_head head;
	struct buf entry = { 0 };

	db_txn_encode(txn, &id, 1000, &entry);
	db_txn_fini(txn);
	ck_assert(db__entry_head(entry.data, entry.len, &head));
	ck_assert_int_eq(
		db__apply(&s->views, s->done, ++s->index, &head, &s->changes).status, APPLY_DONE);
	buf_fini(&entry);
}

static void create_rows(struct source *s, unsigned n)
{
	struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char ref[DB_REF_MAX + 1], noise[129]; /* what does not pack well */
	uint64_t x = s->index + 1;

	for (unsigned done = 0; done < n;) {
		struct db_txn txn;

		db_txn_init(&txn, DB_FOR_FIELD);
		for (unsigned i = 0; i < ROWS_EACH; i++, done++) {
			snprintf(ref, sizeof ref, "OpaqueRef:%llu-%u", (unsigned long long)s->index,
				i);
			f[VM_uuid] = val_string(ref + 10);
			f[VM_name_label] = val_string("one of very many");
			f[VM_resident_on] = val_string("OpaqueRef:host");
			for (unsigned k = 0; k < 8; k++, x = hash_bytes(&x, sizeof x))
				snprintf(noise + 16 * k, 17, "%016llx", (unsigned long long)x);
			f[VM_name_description] = val_string(noise);
			db_txn_create(&txn, MODEL_CLASS_VM, ref, f);
		}
		apply(s, &txn);
	}
}

/* The member. */
struct bench {
	struct env env;
	struct loop *loop;
	struct db *db;
	char dir[64];
	uint64_t busiest_us; /* longest turn so far */
	struct consensus_disk *disk;
};

static void on_applied(void *arg, const struct db_applied *what)
{
	(void)arg, (void)what;
}

static void on_request(void *arg, const struct db_proposal_id *id, const uint8_t *bytes, size_t n)
{
	(void)arg, (void)id, (void)bytes, (void)n;
}

static void on_role(void *arg, enum consensus_role role, uint64_t term, uint64_t leader)
{
	(void)arg, (void)role, (void)term, (void)leader;
}

static void bench_open(struct bench *b)
{
	static const char pool[] = "00000000-0000-4000-8000-0000000000ff";
	struct db_member members[3] = { 0 };
	struct consensus_voter voters[3];
	struct db_config config = { .pool_uuid = pool,
		.epoch = 1,
		.epoch_id = pool,
		.raft_id = 1,
		.members = members,
		.n_members = 3,
		.election_ms = 60000,
		.projection_off = true,
		.applied = on_applied,
		.request = on_request,
		.role = on_role,
		.arg = b };

	char raft[96];

	*b = (struct bench){ 0 };
	env_uv_init(&b->env, "m1");
	config.loop = b->loop = loop_new(&b->env, "raft");
	strcpy(b->dir, "/tmp/xpool-unit-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(b->dir));
	config.dir = b->dir;
	snprintf(raft, sizeof raft, "%s/raft", b->dir);
	ck_assert_int_eq(mkdir(raft, 0700), 0);
	for (unsigned i = 0; i < 3; i++) {
		members[i].raft_id = i + 1;
		snprintf(members[i].host_uuid, sizeof members[i].host_uuid,
			"00000000-0000-4000-8000-00000000000%u", i + 1);
		/* nobody is there: answers are dropped */
		strcpy(members[i].channel_address, i == 0 ? "127.0.0.1:0" : "127.0.0.1:1");
		memset(members[i].certificate, '0', sizeof members[i].certificate - 1);
		voters[i] = (struct consensus_voter){ i + 1, members[i].host_uuid, false };
	}
	b->disk = consensus_disk_open(b->loop, b->dir);
	ck_assert_int_eq(consensus_bootstrap(b->disk, 1, members[0].host_uuid, voters, 3), 0);
	consensus_disk_free(b->disk);
	config.disk = b->disk = consensus_disk_open(b->loop, b->dir);
	ck_assert_int_eq(db_open(&b->db, &config), 0);
}

static uint64_t busy_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void turn(struct bench *b)
{
	uint64_t began = busy_us(), took;

	uv_run(loop_uv(b->loop), UV_RUN_ONCE);
	took = busy_us() - began;
	if (took > b->busiest_us)
		b->busiest_us = took;
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void bench_close(struct bench *b)
{
	char command[128];
	bool closed = false;

	db_close(b->db, on_closed, &closed);
	while (!closed)
		uv_run(loop_uv(b->loop), UV_RUN_ONCE);
	consensus_disk_free(b->disk);
	snprintf(command, sizeof command, "rm -r %s", b->dir);
	ck_assert_int_eq(system(command), 0);
}

static void hear(struct bench *b, uint8_t type, struct buf *frame)
{
	uint64_t began = busy_us(), took;

	ck_assert_int_eq(
		consensus_receive(b->db->consensus, LEADER, type, frame->data, frame->len), 0);
	took = busy_us() - began;
	if (took > b->busiest_us)
		b->busiest_us = took;
	buf_fini(frame);
}

/* As the leader sends it: a head, then chunks; a turn after each. */
static void hear_snapshot(struct bench *b, uint64_t index, const struct buf *bytes)
{
	enum { CHUNK = 64 << 10 };
	struct buf f = { 0 };

	buf_u32(&f, 1);
	buf_u64(&f, TERM);
	buf_u64(&f, index);
	buf_u64(&f, TERM);
	buf_u64(&f, 1);
	buf_u64(&f, bytes->len);
	buf_u32(&f, 3);
	for (unsigned i = 0; i < 3; i++) {
		buf_u64(&f, i + 1);
		buf_u32(&f, VOTER);
		buf_str(&f, b->db->members[i].host_uuid);
	}
	hear(b, F_SNAPSHOT, &f);
	for (size_t at = 0; at < bytes->len; at += CHUNK) {
		buf_u32(&f, 1);
		buf_u64(&f, at);
		buf_put(&f, bytes->data + at, bytes->len - at < CHUNK ? bytes->len - at : CHUNK);
		hear(b, F_CHUNK, &f);
	}
}

/* Until it is shown; the number of turns. */
static unsigned until_shown(struct bench *b, const struct source *s)
{
	uint64_t begin = env_now_ms(&b->env), was = b->db->views.root->index;
	unsigned turns = 0;

	for (; b->db->views.root->index != s->index; turns++) {
		ck_assert_uint_eq(b->db->views.root->index, was);
		ck_assert(env_now_ms(&b->env) - begin < WAIT_MS);
		turn(b);
	}
	ck_assert_uint_eq(b->db->views.root->hash, s->views.root->hash);
	return turns;
}

START_TEST(no_turn_is_long_while_a_large_snapshot_comes_in)
{
	struct buf bytes = { 0 };
	struct source s;
	struct bench b;
	struct db_view old;
	char why[256];

	source_open(&s);
	bench_open(&b);
	create_rows(&s, ROWS);
	db__snapshot_encode(s.views.root, s.done, &bytes);
	hear_snapshot(&b, 1000, &bytes);
	ck_assert_uint_gt(until_shown(&b, &s), 1);
	ck_assert_uint_eq(b.db->views.root->classes[MODEL_CLASS_VM].n_rows, ROWS);
	bytes.len = 0;

	/* in place of as much, which goes when its reader has gone, and on a worker */
	db_view_pin(b.db, &old);
	create_rows(&s, ROWS_EACH);
	db__snapshot_encode(s.views.root, s.done, &bytes);
	hear_snapshot(&b, 2000, &bytes);
	until_shown(&b, &s);
	ck_assert_uint_eq(db_view_count(&old, MODEL_CLASS_VM), ROWS);
	ck_assert_ptr_nonnull(b.db->views.reclaim.first);
	db_view_unpin(&old);
	ck_assert_msg(db_check(b.db, why, sizeof why), "%s", why);
	create_rows(&s, ROWS_EACH);
	bytes.len = 0;
	db__snapshot_encode(s.views.root, s.done, &bytes);
	hear_snapshot(&b, 3000, &bytes);
	until_shown(&b, &s);
	while (b.db->views.dead != NULL)
		turn(&b);
	printf("longest turn: %llu us, snapshot of %zu bytes\n", (unsigned long long)b.busiest_us,
		bytes.len);
	ck_assert_uint_lt(b.busiest_us, TURN_MAX_US);
	ck_assert_uint_eq(counter_get(&b.env.counters, COUNTER_snapshots_restored), 3);
	bench_close(&b);
	source_close(&s);
	buf_fini(&bytes);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { no_turn_is_long_while_a_large_snapshot_comes_in };

	return suite_run("restore", tests, ARRAY_LEN(tests), 120);
}
