/* Directed schedules: the ways in which an acknowledged write is lost without a rule of ours, two
 * of them libraft 0.15's own. Random schedules do not find them. With the guard both are harmless;
 * with the guard's rule switched off the same schedule must fail, else the test proves nothing.
 *
 *  counting: a leader that is elected again commits an entry of its old term because a majority
 *  has it, before its own barrier is on its disk; then a member with a newer term wins and replaces
 *  it (Raft paper, figure 8).
 *
 *  tail: a follower answers an empty AppendEntries with the last index of its own stale tail, and
 *  the new leader takes that tail for its own entries.
 *
 *  amnesia: a member that has lost its log, and with it an acknowledged entry, helps a member that
 * never had the entry to the lead. Not the library's fault, and the rule (abstain) is in
 * consensus_note.c.
 *
 *  full: the disk of the leader fills up, then that of a second member; whoever has room leads and
 * everything goes on, until the two end themselves before their disks do.
 *
 *  bulk: a member that was away gets a snapshot over wires so slow that it takes ten seconds;
 * meanwhile it hears from the leader as ever. Without a connection of its own for bulk it would
 * not.
 *
 *  early, not a fault: the leader dies, nobody has any patience left to stand for election, and yet
 *  another leads at once because every survivor sees its connection break; of four survivors too.
 *
 *  queues, not a fault: peers take what is sent to them very slowly; requests are held up to their
 * limits, what is beyond them is dropped, and sent again later.
 *
 *  given up, not a fault: a peer that does not read has its connections given up at their limits,
 * and is there again.
 *
 *  push, not a fault: what is committed is applied everywhere without waiting for a heartbeat.
 */
#include "db/consensus_priv.h"
#include "rpc/base/hash.h"
#include "tests/sim/raft_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODES_MAX = 5, FOR_EVER_MS = 900000, BIG = 256 << 10, SNAPSHOT = 512 << 10 };

struct node {
	struct world_member *m;
	struct loop *loop;
	struct raft_disk disk;
	struct consensus *c;
	struct channel *channel;
	struct image image;
	char log[64]; /* first bytes of the applied entries */
	bool closed;
};

struct cluster {
	struct world w;
	unsigned n;
	struct node nodes[NODES_MAX + 1];
	unsigned wanted;
	char awaited; /* an entry */
	bool big_seen, dropping;
	unsigned rules_off;
	bool merging_off;
	unsigned snapshot_entries;
	bool bulk_begun, bulk_done; /* frames of a snapshot, at member 3 */
	uint64_t heard_us, longest_us;
};

static void on_apply(void *arg, uint64_t index, const uint8_t *entry, size_t n)
{
	struct node *nd = arg;
	size_t len = strlen(nd->log);

	(void)index;
	(void)n;
	CHECK(len + 1 < sizeof nd->log);
	nd->log[len] = (char)entry[0];
}

/* There is no state to sweep. */
static void on_sweep(void *arg)
{
	(void)arg;
}

/* The state is the log's first bytes; a snapshot is much larger. */

static void *on_freeze(void *arg)
{
	return strdup(((struct node *)arg)->log);
}

static void on_encode(void *frozen, struct buf *out)
{
	buf_str(out, frozen);
	memset(buf_room(out, SNAPSHOT), 0, SNAPSHOT);
	out->len += SNAPSHOT;
	buf_u64(out, hash_bytes(out->data, out->len));
}

static void *on_decode(void *arg, const uint8_t *bytes, size_t n, const char **why_out)
{
	struct reader r = reader_of(bytes, n);

	(void)arg;
	*why_out = "not sealed";
	return consensus_sealed(bytes, n) ? strdup(rd_str(&r)) : NULL;
}

static void on_install(void *arg, void *decoded)
{
	struct node *nd = arg;

	snprintf(nd->log, sizeof nd->log, "%s", (char *)decoded);
	free(decoded);
}

static void on_role(void *arg, enum consensus_role role, uint64_t term, uint64_t leader)
{
	(void)arg, (void)role, (void)term, (void)leader;
}

static int on_frame(void *arg, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n)
{
	struct node *nd = arg;

	if (type >= CHANNEL_POOL_FIRST)
		return 0; /* of given_up */
	return consensus_receive(nd->c, peer, type, payload, n);
}

static void on_up(void *arg, uint64_t peer, bool up)
{
	struct node *nd = arg;

	consensus_peer_up(nd->c, peer, up);
}

static struct raft *raft_of(struct cluster *cl, unsigned i)
{
	return cl->nodes[i].disk.io.data;
}

static void node_start(struct cluster *cl, unsigned i)
{
	static const char *const addresses[] = { "", "m1:1", "m2:1", "m3:1", "m4:1", "m5:1" };
	struct node *nd = &cl->nodes[i];
	struct channel_peer peers[NODES_MAX];
	struct consensus_voter members[NODES_MAX];
	struct consensus_config cc = { .raft_id = i,
		.members = members,
		.n_members = cl->n,
		.election_ms = 500,
		.heartbeat_ms = 50,
		.rules_off = cl->rules_off,
		.merging_off = cl->merging_off,
		.snapshot_entries = cl->snapshot_entries,
		.snapshot_trailing = 1,
		.apply = on_apply,
		.freeze = on_freeze,
		.encode = on_encode,
		.thaw = free,
		.decode = on_decode,
		.install = on_install,
		.discard = free,
		.role = on_role,
		.sweep = on_sweep,
		.arg = nd };
	struct channel_config ch = { .listen = addresses[i],
		.pool_uuid = "00000000-0000-4000-8000-0000000000ff",
		.raft_id = i,
		.epoch = 1,
		.epoch_id = "00000000-0000-4000-8000-0000000000ee",
		.peers = peers,
		.bulk_off = cl->rules_off & RULE_BULK,
		.frame = on_frame,
		.up = on_up,
		.arg = nd };
	char address[40];

	for (unsigned k = 1; k <= cl->n; k++) {
		members[k - 1] = (struct consensus_voter){ k, addresses[k], false };
		if (k != i) {
			peers[ch.n_peers] =
				(struct channel_peer){ .raft_id = k, .address = addresses[k] };
			world_fingerprint(k, peers[ch.n_peers++].certificate);
		}
	}
	snprintf(address, sizeof address, "00000000-0000-4000-8000-00000000000%u", i);
	cc.address = address;
	memset(nd->log, 0, sizeof nd->log);
	nd->closed = false;
	nd->m = world_boot(&cl->w, i);
	nd->loop = cc.loop = ch.loop = loop_new(&nd->m->env, "raft");
	raft_disk_init(&nd->disk, nd->m, nd->loop, &nd->image);
	nd->disk.patience_ms = i == 1 ? 600 : FOR_EVER_MS;
	cc.disk = &nd->disk.base;
	CHECK(consensus_open(&nd->c, &cc) == 0 && channel_open(&nd->channel, &ch) == 0);
	consensus_connect(nd->c, nd->channel);
	loop_start(nd->loop);
}

static void on_closed(void *arg)
{
	struct node *nd = arg;

	nd->closed = true;
}

static bool is_closed(void *arg)
{
	struct node *nd = arg;

	return nd->closed;
}

static void node_stop(struct cluster *cl, unsigned i)
{
	struct node *nd = &cl->nodes[i];

	world_kill(&cl->w, i);
	channel_close(nd->channel);
	consensus_close(nd->c, on_closed, nd);
	CHECK(world_until(&cl->w, is_closed, nd, 1000));
	loop_free(nd->loop);
	nd->c = NULL;
}

/* Levers. */

static void cut(struct cluster *cl, unsigned a, unsigned b, bool on)
{
	cl->w.cut[a][b] = cl->w.cut[b][a] = on;
}

static void run_ms(struct cluster *cl, uint64_t ms)
{
	world_run(&cl->w, cl->w.now_us + ms * 1000);
}

/* Who may stand for election: the others have no patience to do so, and know of no leader that they
 * would protect. */
static void candidate(struct cluster *cl, unsigned i)
{
	for (unsigned k = 1; k <= cl->n; k++) {
		struct raft *r = raft_of(cl, k);

		cl->nodes[k].disk.patience_ms = k == i ? 600 : FOR_EVER_MS;
		if (cl->nodes[k].c == NULL || r->state != RAFT_FOLLOWER)
			continue;
		r->follower_state.randomized_election_timeout =
			(unsigned)cl->nodes[k].disk.patience_ms;
		r->follower_state.current_leader.id = 0;
	}
}

static bool leads(void *arg)
{
	struct cluster *cl = arg;

	return raft_of(cl, cl->wanted)->state == RAFT_LEADER;
}

static bool elect(struct cluster *cl, unsigned i)
{
	candidate(cl, i);
	cl->wanted = i;
	return world_until(&cl->w, leads, cl, 20000);
}

static void on_put(struct raft_apply *req, int status, void *result)
{
	(void)status;
	(void)result;
	free(req);
}

enum { PUT_MAX = 1000 };

/* So many entries at once; those of 0 are not told in the nodes' logs. */
static void put_some(struct cluster *cl, unsigned i, char what, size_t size, unsigned n)
{
	struct raft_buffer b[PUT_MAX];
	struct raft_apply *req = mem_new(sizeof *req);

	for (unsigned k = 0; k < n; k++) {
		b[k] = (struct raft_buffer){ must(raft_calloc(1, size)), size };
		*(char *)b[k].base = what;
	}
	CHECK(raft_apply(raft_of(cl, i), req, b, n, on_put) == 0);
	world_loop_turn(cl->nodes[i].loop);
}

static void put(struct cluster *cl, unsigned i, char what, size_t size)
{
	put_some(cl, i, what, size, 1);
}

/* Two members that have applied different things at one place. */
static bool diverged(struct cluster *cl)
{
	for (unsigned a = 1; a <= cl->n; a++)
		for (unsigned b = 1; b < a; b++) {
			size_t n = strlen(cl->nodes[a].log), k = strlen(cl->nodes[b].log);

			if (strncmp(cl->nodes[a].log, cl->nodes[b].log, n < k ? n : k) != 0)
				return true;
		}
	return false;
}

/* counting: after the old entry X has gone out, nothing more reaches member 2: not our barrier. */
static bool only_the_big_one(void *arg, unsigned from, unsigned to, uint8_t type, size_t n)
{
	struct cluster *cl = arg;

	(void)type;
	if (!cl->dropping || from != 1 || to != 2)
		return false;
	if (cl->big_seen)
		return true;
	cl->big_seen = n >= BIG;
	return false;
}

static bool counting(struct cluster *cl)
{
	CHECK(elect(cl, 1));
	run_ms(cl, 500);
	cut(cl, 1, 2, true);
	cut(cl, 1, 3, true);
	put(cl, 1, 'X',
		BIG);	 /* fills a frame: the barrier of a later term travels in the next one */
	run_ms(cl, 100); /* X is on the disk of 1 only */
	CHECK(elect(cl, 3));
	cut(cl, 2, 3, true);
	put(cl, 3, 'Y', 8); /* a newer term, on the disk of 3 only */
	candidate(cl, 0);
	run_ms(cl, 3000); /* both have stepped down */
	cl->w.filter = only_the_big_one;
	cl->w.filter_arg = cl;
	cl->dropping = true;
	cl->nodes[1].disk.latency_ms = 400;
	cut(cl, 1, 2, false);
	CHECK(elect(cl, 1));
	run_ms(cl, 200); /* 2 has stored X and said so; our barrier is not on our disk yet */
	cut(cl, 1, 2, true);
	cl->dropping = false;
	candidate(cl, 0);
	run_ms(cl, 3000);
	cut(cl, 2, 3, false);
	CHECK(elect(cl, 3));
	put(cl, 3, 'Z', 8);
	run_ms(cl, 2000);
	cut(cl, 1, 2, false);
	cut(cl, 1, 3, false);
	run_ms(cl, 5000);
	return !diverged(cl);
}

/* tail: member 2 hears only empty AppendEntries from the new leader. */
static bool only_empty(void *arg, unsigned from, unsigned to, uint8_t type, size_t n)
{
	enum { EMPTY_APPEND = 4 * 8 + 4 };
	struct cluster *cl = arg;

	return cl->dropping && from == 3 && to == 2 && type == CHANNEL_RAFT_FIRST &&
	       n > EMPTY_APPEND;
}

static bool has_z(void *arg)
{
	struct cluster *cl = arg;

	return strchr(cl->nodes[3].log, 'Z') != NULL;
}

static bool tail(struct cluster *cl)
{
	bool acknowledged;

	CHECK(elect(cl, 1));
	run_ms(cl, 500);
	for (unsigned k = 3; k <= 5; k++) {
		cut(cl, 1, k, true);
		cut(cl, 2, k, true);
	}
	put(cl, 1, 'a', 8);
	put(cl, 1, 'b', 8);
	put(cl, 1, 'c', 8);
	run_ms(cl, 200); /* on 1 and 2 only */
	cut(cl, 1, 2, true);
	cut(cl, 2, 3, false);
	cl->w.filter = only_empty;
	cl->w.filter_arg = cl;
	cl->dropping = true;
	CHECK(elect(cl, 3));
	cut(cl, 3, 5, true);
	put(cl, 3, 'Z', 8);
	acknowledged = world_until(&cl->w, has_z, cl, 1000);
	for (unsigned k = 1; k <= 5; k++) { /* 3 and 4 are lost: two of five */
		if (k != 3)
			cut(cl, 3, k, true);
		if (k != 4)
			cut(cl, 4, k, true);
	}
	cl->dropping = false;
	cut(cl, 1, 2, false);
	cut(cl, 1, 5, false);
	cut(cl, 2, 5, false);
	candidate(cl, 0);
	run_ms(cl, 3000);
	CHECK(elect(cl, 2));
	run_ms(cl, 1000);
	memset(cl->w.cut, 0, sizeof cl->w.cut);
	run_ms(cl, 5000);
	return !diverged(cl) && (!acknowledged || strchr(cl->nodes[2].log, 'Z') != NULL);
}

static bool somebody_leads(void *arg)
{
	struct cluster *cl = arg;

	for (unsigned i = 2; i <= cl->n; i++)
		if (raft_of(cl, i)->state == RAFT_LEADER)
			return true;
	return false;
}

static bool all_have(void *arg)
{
	struct cluster *cl = arg;

	for (unsigned i = 1; i <= cl->n; i++)
		if (cl->nodes[i].c != NULL && strchr(cl->nodes[i].log, cl->awaited) == NULL)
			return false;
	return true;
}

static bool early(struct cluster *cl)
{
	enum { LIMIT_MS = 200 };
	uint64_t began;
	bool ok;

	CHECK(elect(cl, 1));
	candidate(cl, 0);
	run_ms(cl, 500);
	put(cl, 1, 'a', 8);
	run_ms(cl, 200);
	node_stop(cl, 1);
	began = cl->w.now_us;
	ok = world_until(&cl->w, somebody_leads, cl, 20000) &&
	     cl->w.now_us - began < LIMIT_MS * 1000;
	run_ms(cl, 1000);
	cl->awaited = 'a';
	return ok && all_have(cl) && !diverged(cl);
}

static bool push(struct cluster *cl)
{
	enum { PUTS = 8, OWN_MS = 4 };
	/* there, to the disk, back, the word of it there; on the leader's disk meanwhile */
	uint64_t most_us =
		1000 * (3 * (cl->w.delay_max_ms + 1) + cl->nodes[1].disk.latency_ms + OWN_MS);
	bool ok = elect(cl, 1);

	run_ms(cl, 500);
	for (cl->awaited = 'a'; cl->awaited < 'a' + PUTS && ok; cl->awaited++) {
		uint64_t began = cl->w.now_us;

		put(cl, 1, cl->awaited, 8);
		ok = world_until(&cl->w, all_have, cl, 2000) && cl->w.now_us - began <= most_us;
		run_ms(cl, 30);
	}
	return ok;
}

static bool all_but_big(void *arg, unsigned from, unsigned to, uint8_t type, size_t n)
{
	struct cluster *cl = arg;

	(void)from, (void)to, (void)type;
	return cl->dropping && n >= BIG;
}

static bool has_fetched(void *arg)
{
	struct cluster *cl = arg;

	return strcmp(cl->nodes[2].log, "a") == 0 && strcmp(cl->nodes[3].log, "a") == 0;
}

static bool amnesia(struct cluster *cl)
{
	enum { NOTED_MS = 1500 };
	bool forgotten;

	CHECK(elect(cl, 1));
	candidate(cl, 0);
	run_ms(cl, 500);
	cut(cl, 1, 3, true);
	cut(cl, 2, 3, true);
	put(cl, 1, 'a', BIG);
	run_ms(cl, NOTED_MS); /* on 1 and 2: acknowledged */
	node_stop(cl, 2);
	image_lose(&cl->nodes[2].image, 1);
	cl->w.filter = all_but_big;
	cl->w.filter_arg = cl;
	cl->dropping = true;
	node_start(cl, 2);
	candidate(cl, 0);
	run_ms(cl, 1000); /* it has got who the members are, but not what it had acknowledged */
	cut(cl, 1, 2, true);
	cut(cl, 2, 3, false);
	cl->dropping = false;
	candidate(cl, 0);
	run_ms(cl, 3000);
	forgotten = elect(cl, 3); /* with nothing in its log */
	if (forgotten)
		put(cl, 3, 'Z', 8);
	candidate(cl, 0);
	run_ms(cl, 1000);
	memset(cl->w.cut, 0, sizeof cl->w.cut);
	if (!forgotten)
		CHECK(elect(cl, 1));
	run_ms(cl, 1000);
	if (diverged(cl) || cl->nodes[2].image.n_aside != 1)
		return false;
	if (!has_fetched(cl))
		return false;
	node_stop(cl, 1); /* it has everything and a voice again */
	return elect(cl, 3);
}

static unsigned leader_of(struct cluster *cl)
{
	for (unsigned i = 1; i <= cl->n; i++)
		if (cl->nodes[i].c != NULL &&
			consensus_role(cl->nodes[i].c) == CONSENSUS_LEADER_READY)
			return i;
	return 0;
}

/* Does everybody but the lost ones get to know this within a second? */
static bool goes_on(struct cluster *cl, char what)
{
	unsigned leader = leader_of(cl);

	if (leader == 0)
		return false;
	put(cl, leader, what, 8);
	run_ms(cl, 1000);
	for (unsigned i = 1; i <= cl->n; i++)
		if (cl->nodes[i].c != NULL && strchr(cl->nodes[i].log, what) == NULL)
			return false;
	return true;
}

static bool full(struct cluster *cl)
{
	enum { LOW_MIB = 50, STOP_MIB = 10, NOTICED_MS = 4000 };
	unsigned first = 1, second, third;

	CHECK(elect(cl, first));
	candidate(cl, 0); /* nobody stands by itself: the lead is handed over */
	run_ms(cl, 500);
	cl->nodes[first].image.full_mib = LOW_MIB;
	run_ms(cl, NOTICED_MS);
	second = leader_of(cl);
	if (second == first || !goes_on(cl, 'a'))
		return false;
	cl->nodes[second].image.full_mib = LOW_MIB;
	run_ms(cl, NOTICED_MS); /* it may call the first one in vain */
	third = leader_of(cl);
	if (third != 6 - first - second || !goes_on(cl, 'b'))
		return false;
	cl->nodes[first].image.full_mib = cl->nodes[second].image.full_mib = STOP_MIB;
	run_ms(cl, NOTICED_MS);
	if (cl->nodes[first].m->alive || cl->nodes[second].m->alive || leader_of(cl) != 0)
		return false;
	for (unsigned i = 1; i <= cl->n; i++) {
		if (i == third)
			continue;
		node_stop(cl, i);
		cl->nodes[i].image.full_mib = 0;
		node_start(cl, i);
	}
	CHECK(elect(cl, second));
	run_ms(cl, 500);
	return goes_on(cl, 'c') && !diverged(cl) && strcmp(cl->nodes[first].log, "abc") == 0;
}

/* What member 3 hears from the leader while a snapshot is on its way. */
static void listen(void *arg, unsigned from, unsigned to, uint8_t type)
{
	enum { APPEND = 2, PUSH = 7, HEAD = 8, DONE = 10 };
	struct cluster *cl = arg;
	bool on = cl->bulk_begun && !cl->bulk_done;

	cl->bulk_begun |= to == 3 && type == HEAD;
	cl->bulk_done |= from == 3 && type == DONE;
	if (to != 3 || from != 1 || (type != APPEND && type != PUSH))
		return;
	if (on && cl->w.now_us - cl->heard_us > cl->longest_us)
		cl->longest_us = cl->w.now_us - cl->heard_us;
	cl->heard_us = cl->w.now_us;
}

static bool bulk(struct cluster *cl)
{
	enum { ENTRIES = 20, RATE = 50, TAKES_MS = 30000, LIMIT_MS = 150 };

	CHECK(elect(cl, 1));
	candidate(cl, 0);
	run_ms(cl, 500);
	node_stop(cl, 3);
	for (int i = 0; i < ENTRIES; i++) {
		put(cl, 1, (char)('a' + i), 8);
		run_ms(cl, 100);
	}
	cl->w.bytes_per_ms = RATE;
	cl->w.arrived = listen;
	cl->w.arrived_arg = cl;
	node_start(cl, 3);
	candidate(cl, 0);
	run_ms(cl, TAKES_MS);
	return cl->bulk_done && cl->longest_us < LIMIT_MS * 1000 && !diverged(cl) &&
	       strlen(cl->nodes[3].log) == ENTRIES;
}

/* Are the queues of node 1 to its peers within their limits? */
static bool bounded(struct cluster *cl)
{
	bool ok = true;

	for (unsigned i = 2; i <= cl->n; i++) {
		struct net_peer *p = consensus__peer(cl->nodes[1].c, i);

		ok = ok && p->n_requests <= NET_QUEUE_REQUESTS &&
		     p->n_entries <= NET_QUEUE_ENTRIES &&
		     channel_queued(cl->nodes[1].channel, i) <= NET_QUEUE_SOFT + NET_PART_BYTES;
	}
	return ok;
}

static uint64_t counted(struct cluster *cl, unsigned i, enum counter counter)
{
	return (uint64_t)counter_get(&cl->nodes[i].m->env.counters, counter);
}

/* Appends of n entries, until something is dropped. */
static bool fill(struct cluster *cl, size_t size, unsigned n, unsigned most)
{
	uint64_t before = counted(cl, 1, COUNTER_raft_dropped);
	bool ok = true;

	for (unsigned k = 0; counted(cl, 1, COUNTER_raft_dropped) == before && ok; k++) {
		put_some(cl, 1, 0, size, n);
		ok = bounded(cl) && k < most;
	}
	return ok;
}

static bool queues(struct cluster *cl)
{
	enum { RATE = 1000, TAKES_MS = 60000, LONG = 1024, MANY = 2 * NET_QUEUE_REQUESTS };
	struct net_peer *p;
	bool ok;

	CHECK(elect(cl, 1));
	put(cl, 1, 'a', 8);
	run_ms(cl, 500);
	cl->w.bytes_per_ms = RATE;
	p = consensus__peer(cl->nodes[1].c, 2);
	ok = fill(cl, LONG, 1, MANY) && p->n_requests == NET_QUEUE_REQUESTS &&
	     counted(cl, 1, COUNTER_raft_queue_max) == NET_QUEUE_REQUESTS;
	put(cl, 1, 'b', 8);
	run_ms(cl, TAKES_MS);
	ok = ok && p->n_requests == 0 && fill(cl, 8, PUT_MAX, MANY) &&
	     p->n_entries == NET_QUEUE_ENTRIES;
	put(cl, 1, 'c', 8);
	run_ms(cl, TAKES_MS);
	for (unsigned i = 1; i <= cl->n; i++)
		ok = ok && strcmp(cl->nodes[i].log, "abc") == 0;
	return ok && p->n_entries == 0;
}

/* Send until the connection goes; how much was queued then. */
static size_t flood(struct cluster *cl, size_t n,
	void (*sending)(struct channel *, uint64_t, uint8_t, const void *, size_t),
	size_t (*queued)(const struct channel *, uint64_t))
{
	struct channel *ch = cl->nodes[1].channel;
	uint64_t life = channel_bulk_life(ch, 2);
	char *bytes = mem_new(n);
	size_t most = 0;

	while (channel_is_up(ch, 2) && channel_bulk_life(ch, 2) == life &&
		most <= CHANNEL_QUEUE_MAX) {
		most = queued(ch, 2);
		sending(ch, 2, CHANNEL_POOL_FIRST, bytes, n);
	}
	free(bytes);
	return most;
}

static bool given_up(struct cluster *cl)
{
	enum { PIECE = 1 << 20, CHUNK = 64 << 10, RATE = 1000, HEAD = 8 };
	struct channel *ch = cl->nodes[1].channel;
	size_t most;
	bool ok;

	CHECK(elect(cl, 1));
	run_ms(cl, 1000);
	cl->w.bytes_per_ms = RATE;
	most = flood(cl, CHUNK, channel_send_bulk, channel_bulk_queued);
	ok = most <= CHANNEL_BULK_MAX && most > CHANNEL_BULK_MAX - CHUNK - HEAD &&
	     channel_is_up(ch, 2);
	run_ms(cl, 3000);
	most = flood(cl, PIECE, channel_send, channel_queued);
	ok = ok && most <= CHANNEL_QUEUE_MAX && most > CHANNEL_QUEUE_MAX - 2 * PIECE &&
	     !channel_is_up(ch, 2) && channel_is_up(ch, 3);
	ok = ok && counted(cl, 1, COUNTER_channel_refused) == 2;
	cl->w.bytes_per_ms = 0;
	run_ms(cl, CHANNEL_REFUSED_MS + 1000);
	put(cl, 1, 'a', 8);
	run_ms(cl, 1000);
	return ok && channel_is_up(ch, 2) && strcmp(cl->nodes[2].log, "a") == 0;
}

static const struct schedule {
	const char *name;
	unsigned n;
	bool (*body)(struct cluster *cl);
	bool merging_off;
	unsigned rule;		   /* without it the schedule must fail; 0: none */
	unsigned snapshot_entries; /* 0: many */
	bool once;		   /* disk and network make no difference */
} schedules[] = {
	{ "counting", 3, counting, false, RULE_MASKING, 0, false },
	{ "tail", 5, tail, true, RULE_VOUCHED, 0, false },
	{ "amnesia", 3, amnesia, false, RULE_ABSTAIN, 0, false },
	{ "full", 3, full, false, RULE_SPACE, 0, false },
	{ "bulk", 3, bulk, false, RULE_BULK, 4, false },
	{ "early", 3, early, false, 0, 0, false },
	{ "early", 5, early, false, 0, 0, false },
	{ "push", 3, push, false, 0, 0, false },
	{ "queues", 3, queues, false, 0, 1 << 30, true },
	{ "given up", 3, given_up, false, 0, 0, true },
};

static bool run(const struct schedule *s, unsigned disk_ms, unsigned net_ms, bool broken)
{
	struct cluster *cl = mem_new(sizeof *cl);
	bool ok;

	cl->n = s->n;
	cl->rules_off = broken ? s->rule : 0;
	cl->merging_off = s->merging_off;
	cl->snapshot_entries = s->snapshot_entries;
	world_init(&cl->w, 7 + disk_ms + 100 * net_ms);
	cl->w.delay_max_ms = net_ms;
	for (unsigned i = 1; i <= s->n; i++) {
		image_bootstrap(&cl->nodes[i].image, s->n);
		node_start(cl, i);
		cl->nodes[i].disk.latency_ms = disk_ms;
	}
	ok = s->body(cl);
	printf("%s disk=%u net=%u rule %s:", s->name, disk_ms, net_ms, broken ? "off" : "on");
	for (unsigned i = 1; i <= s->n; i++)
		printf(" %s", cl->nodes[i].log);
	printf("  %s\n", ok ? "consistent" : "LOST OR DIVERGED");
	for (unsigned i = 1; i <= s->n; i++) {
		if (cl->nodes[i].c != NULL)
			node_stop(cl, i);
		image_fini(&cl->nodes[i].image);
	}
	world_fini(&cl->w);
	free(cl);
	return ok;
}

int main(void)
{
	static const unsigned disks[] = { 1, 3, 8 }, nets[] = { 2, 5, 10 };
	bool failed = false;

	for (size_t i = 0; i < ARRAY_LEN(schedules); i++) {
		const struct schedule *s = &schedules[i];
		unsigned broken = 0, seen = 0;

		for (size_t d = 0; d < (s->once ? 1 : ARRAY_LEN(disks)); d++)
			for (size_t k = 0; k < (s->once ? 1 : ARRAY_LEN(nets)); k++) {
				broken += !run(s, disks[d], nets[k], false);
				seen += s->rule != 0 && !run(s, disks[d], nets[k], true);
			}
		printf("%s: %u of %u broken with its rule, %u without\n", s->name, broken,
			s->once ? 1 : 9, seen);
		failed = failed || broken > 0 || (s->rule != 0 && seen == 0);
	}
	return failed;
}
