/* consensus: what is on one member's disk. The library's own files are made by a follower that
 * hears a leader played by the test; each such life is a child process that ends without a goodbye.
 * Then they are damaged, and it is seen what preflight says, and what the library would do without
 * it.
 */
#include "db/consensus_priv.h"
#include "rpc/base/file.h"
#include "rpc/base/hash.h"
#include "rpc/base/uv.h"
#include "tests/lib/suite.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

enum { SELF = 1, LEADER = 2, TERM = 3, WAIT_MS = 10000, PATH = 512 };
enum {
	F_APPEND = CHANNEL_RAFT_FIRST,
	F_VOTE = CHANNEL_RAFT_FIRST + 2,
	F_SNAPSHOT = CHANNEL_RAFT_FIRST + 6,
	F_CHUNK
};

/* One life of a member on DIR/raft. */
struct life {
	struct env env;
	struct loop *loop;
	struct consensus *c;
	struct consensus_disk *disk;
	struct channel *channel; /* nobody is ever there: answers are dropped */
	uint64_t applied;
	bool restored;
};

static void on_apply(void *arg, uint64_t index, const uint8_t *entry, size_t n)
{
	struct life *l = arg;

	ck_assert_uint_ge(n, 8);
	(void)entry;
	l->applied = index;
}

static void *on_freeze(void *arg)
{
	return arg;
}

static void on_encode(void *frozen, struct buf *out)
{
	(void)frozen;
	buf_puts(out, "a snapshot of its own");
	buf_u64(out, hash_bytes(out->data, out->len));
}

static void on_thaw(void *frozen)
{
	(void)frozen;
}

static int on_restore(void *arg, const uint8_t *bytes, size_t n)
{
	struct life *l = arg;

	l->restored = true;
	return consensus_sealed(bytes, n) ? 0 : ERR_CORRUPT;
}

static void on_role(void *arg, enum consensus_role role, uint64_t term, uint64_t leader)
{
	(void)arg, (void)role, (void)term, (void)leader;
}

static int on_frame(void *arg, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n)
{
	(void)arg, (void)peer, (void)type, (void)payload, (void)n;
	return 0;
}

static void on_up(void *arg, uint64_t peer, bool up)
{
	(void)arg, (void)peer, (void)up;
}

static void look_blindly(struct consensus_disk *d, uint64_t installing, struct consensus_found *out)
{
	(void)d, (void)installing;
	*out = (struct consensus_found){ 0 };
}

static const struct consensus_voter members[] = { { 1, "00000000-0000-4000-8000-000000000001",
							  false },
	{ 2, "00000000-0000-4000-8000-000000000002", false },
	{ 3, "00000000-0000-4000-8000-000000000003", false } };

/* How careful a start is. */
enum care { CARE, BLIND /* no preflight, no note */, ALONE /* as if there were no others */ };

/* On DIR/raft. */
static int life_open(struct life *l, const char *dir, enum care care)
{
	struct consensus_config cc = { .raft_id = SELF,
		.address = members[SELF - 1].address,
		.members = members,
		.n_members = care == ALONE ? 1 : ARRAY_LEN(members),
		.rules_off = care == BLIND ? RULE_NOTE : 0,
		.election_ms = 60000,
		.heartbeat_ms = 50,
		.apply = on_apply,
		.freeze = on_freeze,
		.encode = on_encode,
		.thaw = on_thaw,
		.restore = on_restore,
		.role = on_role,
		.snapshot_entries = 100,
		.snapshot_trailing = 1000,
		.arg = l };
	struct channel_config ch = { .listen = "127.0.0.1:0",
		.pool_uuid = "00000000-0000-4000-8000-0000000000ff",
		.raft_id = SELF,
		.epoch = 1,
		.epoch_id = "00000000-0000-4000-8000-0000000000ee",
		.frame = on_frame,
		.up = on_up,
		.arg = l };

	*l = (struct life){ 0 };
	env_uv_init(&l->env, "m1");
	l->loop = cc.loop = loop_new(&l->env, "raft");
	cc.disk = l->disk = consensus_disk_open(l->loop, dir);
	if (care == BLIND)
		l->disk->look = look_blindly;
	if (consensus_open(&l->c, &cc) != 0)
		return ERR_IO;
	ch.loop = l->loop;
	ck_assert_int_eq(channel_open(&l->channel, &ch), 0);
	consensus_connect(l->c, l->channel);
	return 0;
}

/* The leader's part: frames as docs/formats.md has them. */

static void hear(struct life *l, uint8_t type, struct buf *b)
{
	ck_assert_int_eq(consensus_receive(l->c, LEADER, type, b->data, b->len), 0);
	buf_fini(b);
}

/* n entries behind prev, each with `what` as its first byte. */
static void hear_entries(
	struct life *l, uint64_t term, uint64_t prev, uint64_t prev_term, unsigned n, char what)
{
	struct buf b = { 0 };
	char bytes[64] = { what };

	buf_u64(&b, term);
	buf_u64(&b, prev);
	buf_u64(&b, prev_term);
	buf_u64(&b, prev);
	buf_u32(&b, n);
	for (unsigned i = 0; i < n; i++) {
		buf_u64(&b, term);
		buf_u32(&b, sizeof bytes);
		buf_u32(&b, RAFT_COMMAND);
	}
	for (unsigned i = 0; i < n; i++)
		buf_put(&b, bytes, sizeof bytes);
	hear(l, F_APPEND, &b);
}

static void hear_snapshot(struct life *l, uint64_t term, uint64_t index, uint64_t its_term)
{
	struct buf data = { 0 }, b = { 0 };

	buf_puts(&data, "a snapshot of the leader's");
	buf_u64(&data, hash_bytes(data.data, data.len));
	buf_u32(&b, 1);
	buf_u64(&b, term);
	buf_u64(&b, index);
	buf_u64(&b, its_term);
	buf_u64(&b, 1);
	buf_u64(&b, data.len);
	buf_u32(&b, 3);
	for (unsigned i = 1; i <= 3; i++) {
		buf_u64(&b, i);
		buf_u32(&b, RAFT_VOTER);
		buf_str(&b, members[i - 1].address);
	}
	hear(l, F_SNAPSHOT, &b);
	buf_u32(&b, 1);
	buf_u64(&b, 0);
	buf_put(&b, data.data, data.len);
	hear(l, F_CHUNK, &b);
	buf_fini(&data);
}

/* The loop runs in this thread, until so much is on disk. */
static void until(struct life *l, uint64_t stored)
{
	uint64_t begin = env_now_ms(&l->env);

	while (l->c->raft.last_stored != stored) {
		ck_assert_msg(env_now_ms(&l->env) - begin < WAIT_MS, "stored %llu instead of %llu",
			(unsigned long long)l->c->raft.last_stored, (unsigned long long)stored);
		uv_run(loop_uv(l->loop), UV_RUN_ONCE);
	}
}

/* Lives: what a member hears before it is killed. */

static void live_log(struct life *l)
{
	hear_entries(l, TERM, 1, 1, 100, 'a');
	until(l, 101);
	hear_entries(l, TERM, 101, TERM, 50, 'b');
	until(l, 151);
}

/* Term 3 is version 2 of the metadata, term 4 and the vote in it are 3 and 4. */
static void live_vote(struct life *l)
{
	struct buf b = { 0 };

	live_log(l);
	buf_u64(&b, TERM + 1);
	buf_u64(&b, 1000);
	buf_u64(&b, TERM);
	buf_u8(&b, 1); /* although there is a leader */
	buf_u8(&b, 0);
	hear(l, F_VOTE, &b);
	ck_assert_uint_eq(l->c->raft.voted_for, LEADER);
}

static void live_more(struct life *l)
{
	uint64_t last = l->c->raft.last_stored, term = l->c->raft.current_term;

	hear_entries(l, term, last, term, 20, 'c');
	until(l, last + 20);
}

static void live_truncated(struct life *l)
{
	live_log(l);
	hear_entries(l, TERM + 1, 121, TERM, 10, 'd');
	until(l, 131);
}

static void live_snapshot(struct life *l)
{
	hear_snapshot(l, TERM, 500, TERM);
	until(l, 500);
	hear_entries(l, TERM, 500, TERM, 20, 'e');
	until(l, 520);
}

/* A newer leader goes on where the log ends. */
static void live_more_of_any_term(struct life *l)
{
	uint64_t last = raft_last_index(&l->c->raft);
	const struct raft_log *log = &l->c->raft.log;
	uint64_t term = log->front == log->back
				? log->snapshot.last_term
				: log->entries[(log->back + log->size - 1) % log->size].term;

	hear_entries(l, TERM + 9, last, term, 20, 'j');
	until(l, last + 20);
}

/* The log is truncated while a snapshot of its own is written. */
static void live_truncated_under_snapshot(struct life *l)
{
	live_log(l);
	hear_entries(l, TERM, 141, TERM, 0, 0); /* committed so far: a snapshot is due */
	while (l->c->put.theirs == NULL)
		uv_run(loop_uv(l->loop), UV_RUN_ONCE);
	hear_entries(l, TERM + 1, 145, TERM, 10, 'g');
	until(l, 155);
}

static void live_unguarded(struct life *l)
{
	l->c->io->truncate = l->c->disk_truncate;
	live_truncated_under_snapshot(l);
}

static void live_new_term(struct life *l)
{
	hear_entries(l, TERM + 4, 1, 1, 10, 'f');
	until(l, 11);
}

/* In a child that is not asked to stop; its exit status. */
static int live_and_end(const char *dir, void (*script)(struct life *l))
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		struct life l;

		if (life_open(&l, dir, CARE) != 0)
			_exit(1);
		script(&l);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void live(const char *dir, void (*script)(struct life *l))
{
	ck_assert_int_eq(live_and_end(dir, script), 0);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

/* The life did not begin. */
static void life_drop(struct life *l)
{
	loop_free(l->loop);
	consensus_disk_free(l->disk);
}

static void life_close(struct life *l)
{
	bool closed = false;

	channel_close(l->channel);
	consensus_close(l->c, on_closed, &closed);
	while (!closed)
		uv_run(loop_uv(l->loop), UV_RUN_ONCE);
	life_drop(l);
}

static bool read_note(const char *dir, struct note *out)
{
	struct consensus_disk *disk = consensus_disk_open(NULL, dir);
	bool there = consensus__note_load(disk, out);

	consensus_disk_free(disk);
	return there;
}

/* Folders. */

struct bench {
	char top[64], dir[PATH], other[PATH];
};

static void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void shell(const char *fmt, ...)
{
	char command[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof command, fmt, ap);
	va_end(ap);
	ck_assert_msg(system(command) == 0, "%s", command);
}

static void make(const char *dir)
{
	struct env env;
	struct consensus_disk *disk;
	struct loop *loop;

	env_uv_init(&env, "init");
	loop = loop_new(&env, "init");
	shell("mkdir -p %s/raft", dir);
	disk = consensus_disk_open(loop, dir);
	ck_assert_int_eq(consensus_bootstrap(disk, SELF, members[SELF - 1].address, members,
				 ARRAY_LEN(members)),
		0);
	consensus_disk_free(disk);
	loop_free(loop);
}

static void bench_open(struct bench *b)
{
	strcpy(b->top, "/tmp/xpool-unit-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(b->top));
	snprintf(b->dir, PATH, "%s/data", b->top);
	snprintf(b->other, PATH, "%s/other", b->top);
	make(b->dir);
	make(b->other);
}

static void bench_close(struct bench *b)
{
	shell("rm -rf %s", b->top);
}

static void flip(const char *dir, const char *name, long offset)
{
	char path[PATH], byte;
	FILE *f;

	snprintf(path, PATH, "%s/raft/%s", dir, name);
	f = fopen(path, "r+");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fseek(f, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
	byte = (char)(fgetc(f) ^ 0x10);
	ck_assert_int_eq(fseek(f, -1, SEEK_CUR), 0);
	fputc(byte, f);
	ck_assert_int_eq(fclose(f), 0);
}

/* Damage. */

static void nothing(struct bench *b)
{
	live(b->dir, live_log);
}

static void newest_metadata_gone(struct bench *b)
{
	live(b->dir, live_vote);
	shell("rm %s/raft/metadata2", b->dir);
}

static void newest_metadata_short(struct bench *b)
{
	live(b->dir, live_vote);
	shell("truncate -s 10 %s/raft/metadata2", b->dir);
}

static void all_metadata_gone(struct bench *b)
{
	live(b->dir, live_log);
	shell("rm %s/raft/metadata?", b->dir);
}

static void metadata_of_old(struct bench *b)
{
	live(b->dir, live_log);
	live(b->other, live_new_term);
	shell("cp %s/raft/open-1 %s/raft/open-1", b->other, b->dir);
}

static void metadata_misplaced(struct bench *b)
{
	live(b->dir, live_log);
	shell("cp %s/raft/metadata1 %s/raft/metadata2", b->dir, b->dir);
}

static void closed_flipped(struct bench *b)
{
	live(b->dir, live_log);
	live(b->dir, live_more);
	flip(b->dir, "0000000000000002-0000000000000151", 3000);
}

static void closed_cut(struct bench *b)
{
	live(b->dir, live_log);
	live(b->dir, live_more);
	shell("truncate -s -64 %s/raft/0000000000000002-0000000000000151", b->dir);
}

static void closed_missing(struct bench *b)
{
	live(b->dir, live_log);
	live(b->dir, live_more);
	live(b->dir, live_more);
	shell("rm %s/raft/0000000000000002-0000000000000151", b->dir);
}

static void first_closed_missing(struct bench *b)
{
	live(b->dir, live_log);
	live(b->dir, live_more);
	shell("rm %s/raft/0000000000000001-0000000000000001", b->dir);
}

static void open_torn(struct bench *b)
{
	live(b->dir, live_log);
	flip(b->dir, "open-1", 9000); /* in the second batch, which is the last */
}

static void open_cut(struct bench *b)
{
	live(b->dir, live_log);
	shell("truncate -s 9000 %s/raft/open-1", b->dir);
}

static void open_of_nothing(struct bench *b)
{
	live(b->dir, live_log);
	flip(b->dir, "open-1", 0);
}

static void open_behind_a_torn_one(struct bench *b)
{
	live(b->dir, live_log);
	shell("rm -f %s/raft/open-2; cp %s/raft/open-1 %s/raft/open-2", b->dir, b->dir, b->dir);
	flip(b->dir, "open-1", 9000);
}

static void open_of_an_older_term(struct bench *b)
{
	live(b->dir, live_log);
	live(b->other, live_new_term);
	live(b->other, live_more);
	shell("cp %s/raft/open-1 %s/raft/open-1", b->dir, b->other);
	shell("rm -r %s; mv %s %s", b->dir, b->other, b->dir);
}

static void truncation_interrupted(struct bench *b)
{
	live(b->other, live_log);
	live(b->other, live_more);
	live(b->dir, live_truncated);
	shell("cp %s/raft/0000000000000002-0000000000000151 %s/raft; rm %s/raft/open-*", b->other,
		b->dir, b->dir);
}

static void snapshot_sound(struct bench *b)
{
	live(b->dir, live_snapshot);
}

static void snapshot_flipped(struct bench *b)
{
	live(b->dir, live_snapshot);
	shell("cd %s/raft; mv snapshot-3-500-*[0-9] data; mv snapshot-3-500-*.meta meta", b->dir);
	flip(b->dir, "data", 3);
	shell("cd %s/raft; mv data snapshot-3-500-7; mv meta snapshot-3-500-7.meta", b->dir);
}

static void snapshot_meta_flipped(struct bench *b)
{
	live(b->dir, live_snapshot);
	shell("cd %s/raft; mv snapshot-3-500-*.meta meta; mv snapshot-3-500-*[0-9] data", b->dir);
	flip(b->dir, "meta", -5);
	shell("cd %s/raft; mv data snapshot-3-500-7; mv meta snapshot-3-500-7.meta", b->dir);
}

static void snapshot_data_missing(struct bench *b)
{
	live(b->dir, live_snapshot);
	shell("rm %s/raft/snapshot-3-500-*[0-9]", b->dir);
}

static void segment_before_the_snapshot(struct bench *b)
{
	live(b->dir, live_snapshot);
	live(b->other, live_log);
	live(b->other, live_more);
	shell("cp %s/raft/0000000000000002-0000000000000151 %s/raft", b->other, b->dir);
}

/* What a crash between the snapshot and the removal of the segments leaves behind. */
static void installation_interrupted(struct bench *b)
{
	live(b->other, live_snapshot);
	live(b->dir, live_log);
	live(b->dir, live_more);
	shell("cp %s/raft/snapshot-* %s/raft", b->other, b->dir);
}

/* The same, when the library had not closed its open segment before (canonical/raft issue 373) and
 * the closed ones were removed already. */
static void installation_interrupted_late(struct bench *b)
{
	installation_interrupted(b);
	shell("rm %s/raft/0000*", b->dir);
}

static const struct damage {
	const char *name;
	void (*make)(struct bench *b);
	const char *why;  /* part of what preflight says; NULL: sound */
	uint64_t last;	  /* when sound: last index */
	bool removed;	  /* and were there leftovers? */
	uint64_t misread; /* not 0: without preflight the library starts, with this last index */
	uint64_t installing;
} damages[] = {
	{ "nothing", nothing, NULL, 151, false, 151, 0 },
	{ "newest metadata gone", newest_metadata_gone, "newest term or vote", 0, false, 151, 0 },
	{ "newest metadata short", newest_metadata_short, "newest term or vote", 0, false, 151, 0 },
	{ "all metadata gone", all_metadata_gone, "both metadata", 0, false, 151, 0 },
	{ "metadata of an older term", metadata_of_old, "the log is of term 7", 0, false, 11, 0 },
	{ "metadata misplaced", metadata_misplaced, "not its own", 0, false, 0, 0 },
	{ "closed segment flipped", closed_flipped, "damaged behind entry 1", 0, false, 0, 0 },
	{ "closed segment cut", closed_cut, "damaged behind entry 101", 0, false, 0, 0 },
	{ "closed segment missing", closed_missing, "should begin at 2", 0, false, 0, 0 },
	{ "first closed segment missing", first_closed_missing, "should begin at 1", 0, false, 0,
		0 },
	{ "torn write", open_torn, NULL, 101, false, 101, 0 },
	{ "open segment cut", open_cut, "shorter than what it holds", 0, false, 0, 0 },
	{ "open segment of an unknown format", open_of_nothing, "unknown format", 0, false, 0, 0 },
	{ "open segment behind a torn one", open_behind_a_torn_one, "does not continue the segment",
		0, false, 251, 0 },
	{ "open segment of an older term", open_of_an_older_term, "cannot follow", 0, false, 161,
		0 },
	{ "truncation interrupted", truncation_interrupted, NULL, 121, true, 0, 0 },
	{ "snapshot", snapshot_sound, NULL, 520, false, 520, 0 },
	{ "snapshot flipped", snapshot_flipped, "checksum of snapshot", 0, false, 0, 0 },
	{ "description of the snapshot flipped", snapshot_meta_flipped, "checksum of snapshot", 0,
		false, 0, 0 },
	{ "snapshot missing", snapshot_data_missing, "cannot follow", 0, false, 0, 0 },
	{ "segment before the snapshot", segment_before_the_snapshot, "before the newest snapshot",
		0, false, 0, 0 },
	{ "installation interrupted", installation_interrupted, NULL, 500, true, 0, 500 },
	{ "the same, nobody knows", installation_interrupted, "before the newest snapshot", 0,
		false, 0, 0 },
	{ "installation interrupted late", installation_interrupted_late, NULL, 500, true, 520,
		500 },
};

/* The control: what the library makes of a copy, when nobody looks first. */
static void check_misread(struct bench *b, const struct damage *d)
{
	char copy[PATH];
	struct life l;

	snprintf(copy, PATH, "%s/copy", b->top);
	shell("cp -r %s %s", b->dir, copy);
	ck_assert_msg(life_open(&l, copy, BLIND) == 0, "%s: the library refuses", d->name);
	ck_assert_msg(raft_last_index(&l.c->raft) == d->misread, "%s: misread as %llu", d->name,
		raft_last_index(&l.c->raft));
	life_close(&l);
}

/* It starts empty, without a voice, in the newest term that it knew. */
static void check_set_aside(struct bench *b)
{
	struct consensus_found found;
	char log[PATH + 8];
	uint64_t term;
	struct note n;
	struct life l;

	snprintf(log, sizeof log, "%s/raft", b->dir);
	consensus__preflight(log, 0, &found);
	read_note(b->dir, &n);
	term = found.term > n.term ? found.term : n.term;
	ck_assert_uint_ge(term, TERM);

	ck_assert_int_eq(life_open(&l, b->dir, CARE), 0);
	ck_assert_uint_eq(raft_last_index(&l.c->raft), 0);
	ck_assert_uint_eq(l.c->raft.current_term, term);
	ck_assert_uint_eq(l.c->raft.voted_for, SELF);
	ck_assert(consensus__note_load(l.disk, &n) && n.fetching && n.term == term);
	life_close(&l);
	shell("test -d %s/raft.aside-1", b->dir);
}

static void check_one(const struct damage *d)
{
	struct consensus_found found;
	char log[PATH + 8];
	struct bench b;
	struct life l;

	bench_open(&b);
	d->make(&b);
	if (d->misread != 0)
		check_misread(&b, d);
	snprintf(log, sizeof log, "%s/raft", b.dir);
	consensus__preflight(log, d->installing, &found);
	if (d->why != NULL) {
		ck_assert_msg(strstr(found.why, d->why) != NULL, "%s: \"%s\"", d->name, found.why);
		ck_assert_int_eq(life_open(&l, b.dir, ALONE), ERR_IO); /* who would have it? */
		life_drop(&l);
		check_set_aside(&b);
	} else {
		ck_assert_msg(found.why[0] == 0, "%s: \"%s\"", d->name, found.why);
		ck_assert_msg(found.last_index == d->last && (found.n_removed > 0) == d->removed,
			"%s: last %llu, removed %u", d->name, (unsigned long long)found.last_index,
			found.n_removed);
		ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
		ck_assert_uint_eq(raft_last_index(&l.c->raft), d->last);
		life_close(&l);
	}
	bench_close(&b);
}

START_TEST(preflight_finds_what_the_library_would_misread)
{
	for (size_t i = 0; i < ARRAY_LEN(damages); i++)
		check_one(&damages[i]);
}
END_TEST

/* The note, written as it is once a second. */
static void live_noted(struct life *l)
{
	live_log(l);
	hear_entries(l, TERM, 131, TERM, 0, 0); /* committed so far */
	ck_assert(consensus__note_look(l->c));
	consensus__note_next(&l->c->note, NOTE_WORKER);
	ck_assert_int_eq(consensus__note_write(l->disk, &l->c->note, NOTE_WORKER), 0);
	ck_assert_uint_eq(l->c->note.index, 151);
	ck_assert_uint_eq(l->c->note.committed, 131);
}

START_TEST(a_log_that_lost_what_was_acknowledged_is_set_aside)
{
	struct bench b;
	struct life l;

	bench_open(&b);
	live(b.dir, live_noted);
	flip(b.dir, "open-1", 9000); /* what the library takes for a torn write */
	ck_assert_int_eq(life_open(&l, b.dir, ALONE), ERR_IO);
	life_drop(&l);
	check_set_aside(&b);
	/* the control */
	live(b.other, live_noted);
	flip(b.other, "open-1", 9000);
	ck_assert_int_eq(life_open(&l, b.other, BLIND), 0);
	ck_assert_uint_eq(raft_last_index(&l.c->raft), 101);
	life_close(&l);
	bench_close(&b);
}
END_TEST

/* A newer term may cut off what an older one had acknowledged, but never what was committed. */
static void live_cut_off(struct life *l)
{
	live_noted(l);
	hear_entries(l, TERM + 1, 135, TERM, 1, 'h');
	until(l, 136);
}

START_TEST(a_log_that_was_cut_off_by_a_newer_term_is_sound)
{
	struct bench b;
	struct life l;

	bench_open(&b);
	live(b.dir, live_cut_off);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	ck_assert_uint_eq(raft_last_index(&l.c->raft), 136);
	ck_assert(!l.c->note.fetching);
	life_close(&l);
	bench_close(&b);
}
END_TEST

START_TEST(a_missing_or_damaged_note_is_doubt)
{
	struct bench b;
	struct note n;

	bench_open(&b);
	live(b.dir, live_noted);
	/* the newest slot alone: the one before it says enough */
	shell("printf x | dd of=%s/acknowledged bs=1 seek=1540 conv=notrunc 2>/dev/null", b.dir);
	ck_assert(read_note(b.dir, &n));
	ck_assert_uint_eq(n.term, TERM);
	ck_assert_uint_eq(n.index, 1);
	shell("rm %s/acknowledged", b.dir);
	check_set_aside(&b);
	live(b.other, live_noted);
	shell("truncate -s 0 %s/acknowledged", b.other);
	memcpy(b.dir, b.other, PATH);
	check_set_aside(&b);
	bench_close(&b);
}
END_TEST

START_TEST(what_the_system_refuses_is_never_set_aside)
{
	struct bench b;
	struct life l;

	bench_open(&b);
	live(b.dir, live_log);
	shell("cd %s/raft; mv open-1 ../kept; ln -s open-1 open-1", b.dir);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), ERR_IO);
	life_drop(&l);
	shell("cd %s/raft; mv ../kept open-1", b.dir);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	ck_assert_uint_eq(raft_last_index(&l.c->raft), 151);
	life_close(&l);
	bench_close(&b);
}
END_TEST

START_TEST(only_so_many_logs_are_kept_aside)
{
	struct bench b;
	struct life l;

	bench_open(&b);
	for (int i = 0; i < CONSENSUS_ASIDE_MAX; i++) {
		shell("rm %s/raft/metadata1; touch %s/raft/open-1", b.dir, b.dir);
		ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
		life_close(&l);
	}
	shell("rm %s/raft/metadata1; touch %s/raft/open-1", b.dir, b.dir);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), ERR_IO);
	life_drop(&l);
	/* removing one helps */
	shell("rm -r %s/raft.aside-2", b.dir);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	life_close(&l);
	bench_close(&b);
}
END_TEST

/* The sweep: every file operation of what comes after arm(), with a kill before it. The library's
 * calls go through these, as the program's own symbols come first. */

enum { KILLED = 9, FAIL_STOP = 3, SWEEP_MAX = 100 };

static _Atomic int countdown; /* 0: not armed */

static bool doomed(void)
{
	if (countdown != 0 && --countdown == 0)
		_exit(KILLED);
	return false;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int rename(const char *from, const char *to)
{
	return doomed() ? -1 : REAL(rename)(from, to);
}

int unlink(const char *path)
{
	return doomed() ? -1 : REAL(unlink)(path);
}

int fsync(int fd)
{
	return doomed() ? -1 : REAL(fsync)(fd);
}

int ftruncate64(int fd, off64_t size)
{
	return doomed() ? -1 : REAL(ftruncate64)(fd, size);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
	return doomed() ? -1 : REAL(pwrite64)(fd, p, n, at);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	return doomed() ? -1 : REAL(pwrite)(fd, p, n, at);
}

int open64(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	return flags & O_CREAT && doomed() ? -1 : REAL(open64)(path, flags, mode);
}

static int sweep_at;

/* The snapshot of its own that is due is not part of the sweep. */
static void live_settled(struct life *l)
{
	live_more(l);
	while (l->c->raft.snapshot.pending.term != 0)
		uv_run(loop_uv(l->loop), UV_RUN_ONCE);
}

static void live_installed(struct life *l)
{
	live_settled(l);
	countdown = sweep_at;
	hear_snapshot(l, TERM, 500, TERM);
	until(l, 500);
	countdown = 0;
}

/* One step: what it left is sound, the whole old log or the whole new one, and can be gone on with.
 */
static int sweep_step(void (*script)(struct life *l), const uint64_t lasts[3])
{
	struct bench b;
	struct life l;
	uint64_t last;
	int status;

	bench_open(&b);
	live(b.dir, live_log);
	status = live_and_end(b.dir, script);
	ck_assert(status == 0 || status == KILLED);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	last = raft_last_index(&l.c->raft);
	ck_assert_msg(
		!l.c->note.fetching && (last == lasts[0] || last == lasts[1] || last == lasts[2]),
		"operation %d: last %llu%s", sweep_at, (unsigned long long)last,
		l.c->note.fetching ? ", set aside" : "");
	ck_assert(status != 0 || last == lasts[1]);
	life_close(&l);
	live(b.dir, live_more_of_any_term);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	ck_assert_uint_eq(raft_last_index(&l.c->raft), last + 20);
	life_close(&l);
	bench_close(&b);
	return status;
}

START_TEST(an_installation_may_be_killed_at_any_file_operation)
{
	for (sweep_at = 1; sweep_step(live_installed, (const uint64_t[]){ 171, 500, 500 }) != 0;
		sweep_at++)
		ck_assert_int_lt(sweep_at, SWEEP_MAX);
	ck_assert_int_gt(sweep_at, 10);
}
END_TEST

START_TEST(a_truncation_never_meets_a_snapshot_being_written)
{
	struct bench b;
	struct life l;

	bench_open(&b);
	ck_assert_int_eq(live_and_end(b.dir, live_truncated_under_snapshot), FAIL_STOP);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	ck_assert_uint_eq(
		raft_last_index(&l.c->raft), 151); /* nothing was cut off, nothing added */
	life_close(&l);
	/* the control: the library puts the new entries behind those that it should have cut off */
	live(b.other, live_unguarded);
	ck_assert_int_eq(life_open(&l, b.other, CARE), 0);
	ck_assert_uint_eq(raft_last_index(&l.c->raft), 161);
	life_close(&l);
	bench_close(&b);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { preflight_finds_what_the_library_would_misread,
		a_log_that_lost_what_was_acknowledged_is_set_aside,
		a_log_that_was_cut_off_by_a_newer_term_is_sound, a_missing_or_damaged_note_is_doubt,
		what_the_system_refuses_is_never_set_aside, only_so_many_logs_are_kept_aside,
		an_installation_may_be_killed_at_any_file_operation,
		a_truncation_never_meets_a_snapshot_being_written };

	return suite_run("consensus", tests, ARRAY_LEN(tests), 60);
}
