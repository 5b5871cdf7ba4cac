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
#include <linux/aio_abi.h>
#include <raft/uv.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

enum { SELF = 1, LEADER = 2, TERM = 3, WAIT_MS = 60000, PATH = 512 };
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
	uint64_t applied;	 /* the last one */
	unsigned n_applied, n_installed, n_discarded;
	useconds_t slow_us; /* what each takes */
};

static void on_apply(void *arg, uint64_t index, const uint8_t *entry, size_t n)
{
	struct life *l = arg;

	ck_assert_uint_ge(n, 8);
	ck_assert_uint_gt(index, l->applied);
	(void)entry;
	l->applied = index;
	l->n_applied++;
	if (l->slow_us > 0)
		usleep(l->slow_us);
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

static _Atomic bool held; /* decoding takes until it is false */

static void *on_decode(void *arg, const uint8_t *bytes, size_t n, const char **why_out)
{
	while (held)
		usleep(1000);
	*why_out = "not sealed";
	return consensus_sealed(bytes, n) ? arg : NULL;
}

static void on_install(void *arg, void *decoded)
{
	struct life *l = arg;

	ck_assert_ptr_eq(arg, decoded);
	l->n_installed++;
}

static void on_discard(void *decoded)
{
	struct life *l = decoded;

	l->n_discarded++;
}

static void on_sweep(void *arg)
{
	(void)arg;
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

/* What a member was told and what it said, in memory that outlives it: SAID is shared with the
 * child processes in which members live. Entry i of the leader's log is leader[i]. */
enum { SAID_MAX = 1024 };

static struct said {
	struct {
		uint64_t term;
		char what;
	} leader[SAID_MAX];
	uint64_t acknowledged; /* up to there the member has told the leader that it has its log */
	uint64_t term, vote;   /* the last vote that it gave */
} * said;

static int (*net_send)(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
	raft_io_send_cb cb);

static int overheard_send(struct raft_io *io, struct raft_io_send *req,
	const struct raft_message *m, raft_io_send_cb cb)
{
	struct consensus *c = consensus__of(io);
	const struct raft_append_entries_result *r = &m->append_entries_result;
	const struct raft_request_vote_result *v = &m->request_vote_result;
	int rv;

	if (m->type == RAFT_IO_REQUEST_VOTE_RESULT && v->vote_granted &&
		v->pre_vote != raft_tribool_true) {
		said->term = v->term;
		said->vote = m->server_id;
	}
	rv = net_send(io, req, m, cb);
	if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT && r->rejected == 0 &&
		consensus__vouched(c, r) > said->acknowledged)
		said->acknowledged = consensus__vouched(c, r);
	return rv;
}

/* So that a few appends fill a segment; 0: as large as they are. */
static size_t segment_bytes;
static size_t snapshot_large; /* 0: the default */
static int (*attach)(struct consensus_disk *d);

static int attach_small(struct consensus_disk *d)
{
	int rc = attach(d);

	if (rc == 0 && segment_bytes > 0)
		raft_uv_set_segment_size(d->io, segment_bytes);
	return rc;
}

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
		.decode = on_decode,
		.install = on_install,
		.discard = on_discard,
		.sweep = on_sweep,
		.role = on_role,
		.snapshot_entries = 100,
		.snapshot_trailing = 1000,
		.snapshot_large = snapshot_large,
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
	attach = l->disk->attach;
	l->disk->attach = attach_small;
	if (consensus_open(&l->c, &cc) != 0)
		return ERR_IO;
	net_send = l->c->io->send;
	l->c->io->send = overheard_send;
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
	/* a newer leader may cut off what an older one was told */
	if (n > 0 && said->acknowledged > prev && said->leader[prev + 1].term != term)
		said->acknowledged = prev;
	for (unsigned i = 1; i <= n && prev + i < SAID_MAX; i++) {
		said->leader[prev + i].term = term;
		said->leader[prev + i].what = what;
	}
	hear(l, F_APPEND, &b);
}

static void hear_bytes(
	struct life *l, uint64_t term, uint64_t index, uint64_t its_term, const struct buf *data)
{
	struct buf b = { 0 };

	buf_u32(&b, 1);
	buf_u64(&b, term);
	buf_u64(&b, index);
	buf_u64(&b, its_term);
	buf_u64(&b, 1);
	buf_u64(&b, data->len);
	buf_u32(&b, 3);
	for (unsigned i = 1; i <= 3; i++) {
		buf_u64(&b, i);
		buf_u32(&b, RAFT_VOTER);
		buf_str(&b, members[i - 1].address);
	}
	hear(l, F_SNAPSHOT, &b);
	buf_u32(&b, 1);
	buf_u64(&b, 0);
	buf_put(&b, data->data, data->len);
	hear(l, F_CHUNK, &b);
}

static void hear_snapshot(struct life *l, uint64_t term, uint64_t index, uint64_t its_term)
{
	enum { WORDS = 5000 }; /* so long that a write of it may end half-way */
	struct buf data = { 0 };

	for (uint64_t i = 0; i < WORDS; i++)
		buf_u64(&data, i);
	buf_u64(&data, hash_bytes(data.data, data.len));
	hear_bytes(l, term, index, its_term, &data);
	buf_fini(&data);
}

/* The leader has committed all up to there. */
static void hear_commit(struct life *l, uint64_t term, uint64_t index, uint64_t its_term)
{
	hear_entries(l, term, index, its_term, 0, 0);
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

/* Until the state has come that far. */
static void until_applied(struct life *l, uint64_t index)
{
	uint64_t begin = env_now_ms(&l->env);

	while (consensus_applied(l->c) < index || consensus_restoring(l->c)) {
		ck_assert_msg(env_now_ms(&l->env) - begin < WAIT_MS, "applied %llu instead of %llu",
			(unsigned long long)consensus_applied(l->c), (unsigned long long)index);
		uv_run(loop_uv(l->loop), UV_RUN_ONCE);
	}
}

/* Until a snapshot of its own that is being taken is on disk. */
static void settle(struct life *l)
{
	while (l->c->raft.snapshot.pending.term != 0)
		uv_run(loop_uv(l->loop), UV_RUN_ONCE);
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
static void hear_vote(struct life *l, uint64_t term)
{
	struct buf b = { 0 };

	buf_u64(&b, term);
	buf_u64(&b, 1000);
	buf_u64(&b, term - 1);
	buf_u8(&b, 1); /* although there is a leader */
	buf_u8(&b, 0);
	hear(l, F_VOTE, &b);
	ck_assert_uint_eq(l->c->raft.voted_for, LEADER);
}

static void live_vote(struct life *l)
{
	live_log(l);
	hear_vote(l, TERM + 1);
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

/* An entry of its log; NULL: it is not there, or in the snapshot. */
static const struct raft_entry *entry_at(const struct life *l, uint64_t index)
{
	const struct raft_log *log = &l->c->raft.log;
	uint64_t n = (log->back + log->size - log->front) % (log->size > 0 ? log->size : 1);

	if (index <= log->offset || index > log->offset + n)
		return NULL;
	return &log->entries[(log->front + index - log->offset - 1) % log->size];
}

/* A newer leader goes on where the log ends. */
static void live_more_of_any_term(struct life *l)
{
	uint64_t last = raft_last_index(&l->c->raft);
	const struct raft_entry *e = entry_at(l, last);

	hear_entries(l, TERM + 9, last, e != NULL ? e->term : l->c->raft.log.snapshot.last_term, 20,
		'j');
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
	/* an installation may have come late enough for the library to have closed its segments */
	ck_assert_msg(raft_last_index(&l.c->raft) == d->misread ||
			      (d->installing != 0 && raft_last_index(&l.c->raft) == d->installing),
		"%s: misread as %llu", d->name, raft_last_index(&l.c->raft));
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

/* As it is once a second. */
static void note_now(struct life *l)
{
	consensus__note_look(l->c);
	consensus__note_next(&l->c->note, NOTE_WORKER);
	ck_assert_int_eq(consensus__note_write(l->disk, &l->c->note, NOTE_WORKER), 0);
}

static void live_noted(struct life *l)
{
	live_log(l);
	hear_commit(l, TERM, 131, TERM);
	note_now(l);
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

static void live_voted(struct life *l)
{
	live_noted(l);
	hear_vote(l, TERM + 1);
	ck_assert_uint_eq(l->c->note.vote_term, TERM + 1);
	ck_assert_uint_eq(l->c->note.vote, l->c->raft.voted_for);
	ck_assert_uint_ne(l->c->note.vote, 0);
}

/* The newest of the library's two files, which have no checksum: it would vote again. */
static void flip_vote(const char *dir)
{
	enum { VOTE_AT = 24 };

	flip(dir, "metadata1", VOTE_AT);
	flip(dir, "metadata2", VOTE_AT);
}

START_TEST(a_vote_that_has_changed_is_noticed)
{
	struct bench b;
	struct life l;
	uint64_t vote;

	bench_open(&b);
	live(b.other, live_voted);
	ck_assert_int_eq(life_open(&l, b.other, CARE), 0);
	vote = l.c->raft.voted_for;
	life_close(&l);
	flip_vote(b.other); /* the control */
	ck_assert_int_eq(life_open(&l, b.other, BLIND), 0);
	ck_assert_uint_eq(l.c->raft.current_term, TERM + 1);
	ck_assert_uint_ne(l.c->raft.voted_for, vote);
	life_close(&l);
	live(b.dir, live_voted);
	flip_vote(b.dir);
	ck_assert_int_eq(life_open(&l, b.dir, ALONE), ERR_IO);
	life_drop(&l);
	check_set_aside(&b);
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

/* The slot of the note that was written last rots. */
static void flip_newest_note(const char *dir)
{
	struct note n;
	char path[PATH];
	struct buf b = { 0 };

	ck_assert(read_note(dir, &n));
	snprintf(path, PATH, "%s/acknowledged", dir);
	ck_assert_int_eq(file_read(path, 4096, &b), 0);
	for (size_t at = 0; at < b.len; at += CONSENSUS_NOTE_SLOT) {
		enum { SEQUENCE_AT = 8 };
		struct reader r = reader_of(b.data + at + SEQUENCE_AT, 8);

		if (rd_u64(&r) == n.sequence)
			shell("printf x | dd of=%s bs=1 seek=%zu conv=notrunc 2>/dev/null", path,
				at + 40);
	}
	buf_fini(&b);
}

static void live_installing(struct life *l)
{
	live_log(l);
	consensus__note_installing(l->c, 500);
}

static void live_behind_snapshot(struct life *l)
{
	live_log(l);
	settle(l);
	live_snapshot(l);
}

START_TEST(a_note_of_an_installation_may_rot)
{
	struct bench b;
	struct life l;
	struct note n;

	bench_open(&b);
	live(b.dir, live_installing);
	live(b.other, live_snapshot);
	shell("cp %s/raft/snapshot-* %s/raft; rm %s/raft/0000*", b.other, b.dir, b.dir);
	flip_newest_note(b.dir);
	ck_assert(read_note(b.dir, &n) && n.installing == 500);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	ck_assert_uint_eq(raft_last_index(&l.c->raft), 500);
	life_close(&l);
	live(b.dir, live_more);
	flip_newest_note(b.dir); /* and when it is over */
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	ck_assert_uint_eq(raft_last_index(&l.c->raft), 520);
	life_close(&l);
	bench_close(&b);
	bench_open(&b);
	live(b.dir, live_behind_snapshot);
	flip_newest_note(b.dir);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	ck_assert_uint_eq(raft_last_index(&l.c->raft), 520);
	life_close(&l);
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

/* The sweep: every file operation of what comes after arm(), with a kill before it or half-way
 * through it. The calls of the library, of libuv and ours go through these, as the program's own
 * symbols come first. Nothing waits for the disk: what was handed to the system outlives a process.
 */

enum { KILLED = 9, FAIL_STOP = 3, SWEEP_MAX = 400, SECTOR = 512 };

static _Atomic int countdown; /* 0: not armed */
static int sweep_at;
static bool halves; /* only writes that can end half-way count, and the last one does */

static void arm(void)
{
	countdown = sweep_at;
}

static bool doomed(void)
{
	return countdown != 0 && --countdown == 0;
}

static void doom(void)
{
	if (!halves && doomed())
		_exit(KILLED);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int rename(const char *from, const char *to)
{
	doom();
	return REAL(rename)(from, to);
}

int unlink(const char *path)
{
	doom();
	return REAL(unlink)(path);
}

int fsync(int fd)
{
	(void)fd;
	doom();
	return 0;
}

int fdatasync(int fd)
{
	return fsync(fd);
}

int ftruncate64(int fd, off64_t size)
{
	doom();
	return REAL(ftruncate64)(fd, size);
}

int posix_fallocate(int fd, off_t at, off_t n)
{
	doom();
	return REAL(posix_fallocate)(fd, at, n);
}

/* How much of a write is there when it ends half-way: whole sectors; less than one only where a
 * file gets longer by it. 0: such a write is there or not. */
static size_t half_of(int fd, size_t n, off64_t at)
{
	struct stat st;

	if (n >= 2 * SECTOR)
		return n / 2 / SECTOR * SECTOR;
	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= at ? n / 2 : 0;
}

static void doom_pieces(int fd, const struct iovec *v, size_t pieces, off64_t at)
{
	size_t n = 0, half;

	if (!halves) {
		doom();
		return;
	}
	for (size_t i = 0; i < pieces; i++)
		n += v[i].iov_len;
	half = half_of(fd, n, at);
	if (half == 0 || !doomed())
		return;
	for (size_t i = 0, some; half > 0; half -= some, at += (off64_t)some, i++) {
		some = v[i].iov_len < half ? v[i].iov_len : half;
		if (REAL(pwrite64)(fd, v[i].iov_base, some, at) != (ssize_t)some)
			_exit(1);
	}
	_exit(KILLED);
}

static void doom_write(int fd, const void *p, size_t n, off64_t at)
{
	struct iovec v = { (void *)(uintptr_t)p, n };

	doom_pieces(fd, &v, 1, at);
}

/* Descriptors that are no files (pipes, sockets, event counters) do not count. */
static bool is_file(int fd, off64_t *at_out)
{
	struct stat st;

	*at_out = lseek64(fd, 0, SEEK_CUR);
	return *at_out >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

ssize_t write(int fd, const void *p, size_t n)
{
	off64_t at;

	if (is_file(fd, &at))
		doom_write(fd, p, n, at);
	return REAL(write)(fd, p, n);
}

ssize_t writev(int fd, const struct iovec *v, int pieces)
{
	off64_t at;

	if (is_file(fd, &at))
		doom_pieces(fd, v, (size_t)pieces, at);
	return REAL(writev)(fd, v, pieces);
}

ssize_t pwritev64(int fd, const struct iovec *v, int pieces, off64_t at)
{
	doom_pieces(fd, v, (size_t)pieces, at);
	return REAL(pwritev64)(fd, v, pieces, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
	doom_write(fd, p, n, at);
	return REAL(pwrite64)(fd, p, n, at);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	doom_write(fd, p, n, at);
	return REAL(pwrite)(fd, p, n, at);
}

static int opened(const char *path, int flags, int mode)
{
	if (flags & O_CREAT)
		doom();
	return REAL(open64)(path, flags & ~O_SYNC, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	return opened(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	return opened(path, flags, mode);
}

/* What the library appends, in pieces, or writes to try the disk, in one. */
static void doom_submitted(struct iocb *io)
{
	const void *what = (const void *)(uintptr_t)io->aio_buf;

	io->aio_rw_flags &= ~RWF_DSYNC;
	if (io->aio_lio_opcode == IOCB_CMD_PWRITEV)
		doom_pieces((int)io->aio_fildes, what, io->aio_nbytes, io->aio_offset);
	else
		doom_write((int)io->aio_fildes, what, io->aio_nbytes, io->aio_offset);
}

long syscall(long number, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	for (long i = 0; number == SYS_io_submit && i < a[1]; i++)
		doom_submitted(((struct iocb **)a[2])[i]);
	if (number == SYS_pwritev)
		doom_pieces((int)a[0], (const struct iovec *)a[1], (size_t)a[2], a[3]);
	return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* The snapshot of its own that is due is not part of the sweep. */
static void live_settled(struct life *l)
{
	live_log(l);
	live_more(l);
	settle(l);
}

static void live_installed(struct life *l)
{
	live_settled(l);
	arm();
	hear_snapshot(l, TERM, 500, TERM);
	until(l, 500);
}

/* So many entries by two appends, which are then committed. */
static void write_some(struct life *l, uint64_t term, unsigned n, char what)
{
	uint64_t last = raft_last_index(&l->c->raft);

	hear_entries(l, term, last, said->leader[last].term, n / 2, what);
	hear_entries(l, term, last + n / 2, term, n - n / 2, what);
	until(l, last + n);
	hear_commit(l, term, last + n, term);
}

/* All that a member ordinarily does to its disk: several segments are filled, three snapshots of
 * its own taken, of which it keeps two, and what they cover removed; the note, a vote, a log that a
 * newer leader cuts off, and what it writes instead. */
static void live_written(struct life *l)
{
	raft_set_snapshot_threshold(&l->c->raft, 100);
	raft_set_snapshot_trailing(&l->c->raft, 30);
	arm();
	for (char what = 'a'; what <= 'c'; what++) {
		for (int i = 0; i < 3; i++)
			write_some(l, TERM, 40, what);
		settle(l);
		note_now(l);
	}
	raft_set_snapshot_threshold(&l->c->raft, 10000); /* none while the log is truncated */
	write_some(l, TERM, 20, 'd');
	settle(l);
	hear_vote(l, TERM + 1);
	hear_entries(l, TERM + 1, 381, TERM, 20, 'x'); /* of which the last 10 are cut off */
	until(l, 401);
	hear_entries(l, TERM + 2, 391, TERM + 1, 20, 'e');
	until(l, 411);
	hear_commit(l, TERM + 2, 411, TERM + 2);
	note_now(l);
}

/* Left behind by a kill: a start has segments to close, and one to shorten. */
static void live_left(struct life *l)
{
	(void)l;
}

static void live_begun(struct life *l)
{
	write_some(l, TERM, 40, 'a');
	write_some(l, TERM, 40, 'b');
}

static const struct sweep {
	void (*before)(struct life *l); /* in a life of its own; NULL: nothing */
	void (*script)(struct life *l);
	bool start;		/* the operations of the start are part of it */
	size_t segment_bytes;	/* 0: the library's */
	int least, writes;	/* so many operations at least, else it sweeps past them */
	uint64_t last, instead; /* 0: the restart's last index is one of these */
} installation = { NULL, live_installed, .least = 10, .writes = 2, .last = 171, .instead = 500 },
  writing = { NULL, live_written, .segment_bytes = 8192, .least = 100, .writes = 30 },
  starting = { live_begun, live_left, true, .segment_bytes = 8192, .least = 5, .last = 81,
	  .instead = 81 };

/* Whatever it said before it died still holds. */
static void check_said(const struct sweep *w, struct life *l)
{
	uint64_t last = raft_last_index(&l->c->raft);

	ck_assert_msg(!l->c->note.fetching, "operation %d: set aside", sweep_at);
	ck_assert_msg(last >= said->acknowledged, "operation %d: last %llu, acknowledged %llu",
		sweep_at, (unsigned long long)last, (unsigned long long)said->acknowledged);
	if (w->last != 0)
		ck_assert_msg(last == w->last || last == w->instead, "operation %d: last %llu",
			sweep_at, (unsigned long long)last);
	for (uint64_t i = 2; i <= said->acknowledged; i++) {
		const struct raft_entry *e = entry_at(l, i);

		ck_assert_msg(e != NULL || i <= l->c->raft.log.snapshot.last_index,
			"operation %d: entry %llu is missing", sweep_at, (unsigned long long)i);
		ck_assert(e == NULL || (e->term == said->leader[i].term &&
					       *(char *)e->buf.base == said->leader[i].what));
	}
	ck_assert_uint_ge(l->c->raft.current_term, said->term);
	if (said->term == l->c->raft.current_term)
		ck_assert_uint_eq(l->c->raft.voted_for, said->vote);
}

/* One step: what it left is sound, and can be gone on with. */
static int sweep_step(const struct sweep *w)
{
	struct bench b;
	struct life l;
	uint64_t last;
	int status;

	*said = (struct said){ .leader[1].term = 1 };
	bench_open(&b);
	if (w->before != NULL)
		live(b.dir, w->before);
	if (w->start)
		arm();
	status = live_and_end(b.dir, w->script);
	countdown = 0;
	ck_assert_msg(status == 0 || status == KILLED, "operation %d: it ended with %d", sweep_at,
		status);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	check_said(w, &l);
	last = raft_last_index(&l.c->raft);
	life_close(&l);
	live(b.dir, live_more_of_any_term);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	ck_assert_uint_eq(raft_last_index(&l.c->raft), last + 20);
	life_close(&l);
	bench_close(&b);
	return status;
}

static void sweep(const struct sweep *w)
{
	segment_bytes = w->segment_bytes;
	for (int k = 0; k < 2; k++) {
		halves = k == 1;
		for (sweep_at = 1; sweep_step(w) != 0; sweep_at++)
			ck_assert_int_lt(sweep_at, SWEEP_MAX);
		ck_assert_msg(
			sweep_at > (halves ? w->writes : w->least), "only %d operations", sweep_at);
	}
	segment_bytes = 0;
}

START_TEST(an_installation_may_be_killed_at_any_file_operation)
{
	sweep(&installation);
}
END_TEST

START_TEST(writing_may_be_killed_at_any_file_operation)
{
	sweep(&writing);
}
END_TEST

START_TEST(a_start_may_be_killed_at_any_file_operation)
{
	sweep(&starting);
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

/* A snapshot at 500 that is being decoded, and entries up to 650 committed behind it. */
static void restore_held(struct life *l)
{
	held = true;
	live_log(l); /* applied up to 101 */
	settle(l);
	hear_snapshot(l, TERM, 500, TERM);
	until(l, 500);
	hear_entries(l, TERM, 500, TERM, 150, 'k');
	until(l, 650);
	hear_commit(l, TERM, 650, TERM);
}

START_TEST(what_is_committed_while_a_snapshot_is_decoded_waits_for_it)
{
	struct bench b;
	struct life l;

	bench_open(&b);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	restore_held(&l);
	/* the library has seen all of it, the state nothing: it is shown as it was */
	ck_assert_uint_eq(l.c->raft.last_applied, 650);
	ck_assert_uint_eq(l.applied, 101);
	ck_assert_uint_eq(consensus_applied(l.c), 101);
	ck_assert(consensus_restoring(l.c) && consensus__unfit(l.c));
	/* more than the 100 entries after which one is due, but there is no state to take */
	ck_assert_uint_eq(l.c->raft.snapshot.pending.term, 0);
	held = false;
	until_applied(&l, 650);
	ck_assert_uint_eq(l.n_installed, 1);
	ck_assert_uint_eq(l.applied, 650);
	ck_assert_uint_eq(l.n_applied, 100 + 150); /* each once; the first is a configuration */
	ck_assert(!consensus__unfit(l.c));
	hear_entries(&l, TERM, 650, TERM, 1, 'l');
	until(&l, 651);
	hear_commit(&l, TERM, 651, TERM);
	ck_assert_uint_eq(l.c->raft.snapshot.pending.index, 651);
	settle(&l);
	life_close(&l);
	bench_close(&b);
}
END_TEST

START_TEST(a_newer_snapshot_takes_the_place_of_one_that_is_being_decoded)
{
	struct bench b;
	struct life l;

	bench_open(&b);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	restore_held(&l);
	for (uint64_t index = 900; index <= 1000; index += 50) { /* only the last one is wanted */
		hear_snapshot(&l, TERM, index, TERM);
		until(&l, index);
	}
	hear_entries(&l, TERM, 1000, TERM, 10, 'm');
	until(&l, 1010);
	hear_commit(&l, TERM, 1010, TERM);
	held = false;
	until_applied(&l, 1010);
	ck_assert_uint_eq(l.n_installed, 1);
	ck_assert_uint_eq(l.n_discarded, 1);
	ck_assert_uint_eq(l.applied, 1010);
	ck_assert_uint_eq(l.n_applied, 100 + 10);
	life_close(&l);
	bench_close(&b);
}
END_TEST

static void live_undecided(struct life *l)
{
	restore_held(l);
	while (l->c->put.theirs != NULL)
		uv_run(loop_uv(l->loop), UV_RUN_ONCE);
}

START_TEST(a_member_that_dies_while_it_decodes_begins_with_the_snapshot)
{
	struct bench b;
	struct life l;

	bench_open(&b);
	live(b.dir, live_undecided);
	held = true;
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0); /* a start does not wait for it either */
	ck_assert(consensus_restoring(l.c));
	hear_commit(&l, TERM, 650, TERM);
	ck_assert_uint_eq(l.n_applied, 0);
	held = false;
	until_applied(&l, 650);
	ck_assert_uint_eq(l.n_installed, 1);
	ck_assert_uint_eq(l.n_applied, 150);
	life_close(&l);
	bench_close(&b);
}
END_TEST

START_TEST(a_database_that_gets_too_large_is_said_at_each_snapshot)
{
	for (snapshot_large = 0; snapshot_large <= 16; snapshot_large += 16) {
		struct bench b;
		struct life l;

		bench_open(&b);
		ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
		live_log(&l);
		settle(&l);
		ck_assert_uint_eq(counter_get(&l.env.counters, COUNTER_snapshots_taken), 1);
		ck_assert_uint_eq(
			counter_get(&l.env.counters, COUNTER_snapshots_large), snapshot_large > 0);
		life_close(&l);
		bench_close(&b);
	}
	snapshot_large = 0;
}
END_TEST

static void live_unsound(struct life *l)
{
	struct buf data = { 0 };

	live_log(l);
	settle(l);
	buf_puts(&data, "nothing that anybody has sealed");
	hear_bytes(l, TERM, 500, TERM, &data);
	buf_fini(&data);
	until_applied(l, 500);
}

START_TEST(a_snapshot_that_is_not_sound_ends_the_process)
{
	struct bench b;

	bench_open(&b);
	ck_assert_int_eq(live_and_end(b.dir, live_unsound), FAIL_STOP);
	bench_close(&b);
}
END_TEST

START_TEST(a_long_backlog_is_applied_in_short_turns)
{
	enum { SLOW_US = 500, ENTRIES = 100 };
	struct bench b;
	struct life l;
	uint64_t turns;

	bench_open(&b);
	ck_assert_int_eq(life_open(&l, b.dir, CARE), 0);
	hear_entries(&l, TERM, 1, 1, ENTRIES, 'a');
	until(&l, 1 + ENTRIES);
	l.slow_us = SLOW_US;
	hear_commit(&l, TERM, 1 + ENTRIES, TERM);
	ck_assert_uint_lt(l.n_applied, 20); /* of 16 that fit */
	turns = counter_get(&l.env.counters, COUNTER_loop_turns);
	until_applied(&l, 1 + ENTRIES);
	ck_assert_uint_eq(l.n_applied, ENTRIES);
	ck_assert_uint_ge(counter_get(&l.env.counters, COUNTER_loop_turns) - turns, 5);
	life_close(&l);
	bench_close(&b);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { preflight_finds_what_the_library_would_misread,
		a_log_that_lost_what_was_acknowledged_is_set_aside,
		a_vote_that_has_changed_is_noticed, a_log_that_was_cut_off_by_a_newer_term_is_sound,
		a_missing_or_damaged_note_is_doubt, a_note_of_an_installation_may_rot,
		what_the_system_refuses_is_never_set_aside, only_so_many_logs_are_kept_aside,
		an_installation_may_be_killed_at_any_file_operation,
		writing_may_be_killed_at_any_file_operation,
		a_start_may_be_killed_at_any_file_operation,
		a_truncation_never_meets_a_snapshot_being_written,
		what_is_committed_while_a_snapshot_is_decoded_waits_for_it,
		a_newer_snapshot_takes_the_place_of_one_that_is_being_decoded,
		a_member_that_dies_while_it_decodes_begins_with_the_snapshot,
		a_database_that_gets_too_large_is_said_at_each_snapshot,
		a_snapshot_that_is_not_sound_ends_the_process,
		a_long_backlog_is_applied_in_short_turns };

	said = mmap(NULL, sizeof *said, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (said == MAP_FAILED)
		return 1;
	return suite_run_apart("consensus", tests, ARRAY_LEN(tests), 200);
}
