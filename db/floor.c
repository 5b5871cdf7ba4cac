/* Floors of sessions: see floor.h. Keys are opaque here.
 *
 *   taker                     leader                             every other member
 *     | --- TAKE keys -------> |
 *     |                        | --- FORGET round, keys --------> |  drops them; calls that run
 *     |                        | <-- FORGOT round --------------- |  under them end first
 *     |                        |   ... or its lease has run out
 *     |                        |   then: a read index (read_index.c)
 *     | <-- TAKEN, index ----- |
 *   held when index is applied here
 *
 *   member --- LEASE stamp --> leader: a read index --- LEASED stamp --> member
 *
 * Invariants
 *  1. A member uses holds only before the end of its lease: stamp + LEASE on its own clock, stamp
 *     taken before it asked. When the lease lapses it drops all holds, also those in the making.
 *  2. A leader gives a lease only after a read index that began after it was asked, and never to a
 *     member that owes it a FORGOT. It remembers, and a new leader assumes, a lease for everybody
 *     that ends LEASE and some slack from now. (An older leader's read index was confirmed before
 *     the new one was elected, so its leases end before that.)
 *  3. So a session is given away only when nobody else can answer for it; and the read index that
 *     follows covers whatever was shown or acknowledged to it before.
 *  4. A call answers only if its hold stands after its last look: what it shows is then covered by
 *     the read index of whoever takes the session later.
 *
 * Only the rates of clocks matter. All relies on the leader, which a read index needs anyway, so a
 * broken link between two other members does no harm. LEASE is longer than an election: members
 * that are used go on through one. One round of the leader is under way at a time, for one taker
 * and all it wants; a member that does not answer holds up the takeovers of at most LEASE. What is
 * lost is sent again. A take that wants what its member has just been told to forget is asked anew
 * under another number: an answer to the old one may be older than that word, and one to the new
 * one is not. So the turns of many takers of one session go round.
 */
#include "db/floor.h"
#include "db/db_priv.h"
#include "rpc/base/hash.h"

#include <stdlib.h>
#include <string.h>

enum { F_TAKE = CHANNEL_FLOOR_FIRST, F_TAKEN, F_FORGET, F_FORGOT, F_LEASE, F_LEASED };
enum {
	BUCKETS = 1024,
	TAKE_MAX = 256, /* keys in one round */
	BUSY_MS = 20,	/* between looks while something is under way */
	DRAIN_MS = 100, /* for calls under a hold that is to be forgotten */
	LEASE_ELECTIONS = 4,
	LEASE_PARTS = 8,   /* one is used up, and half of one, when it is asked for anew */
	SLACK_PERCENT = 5, /* by which clocks may run apart, and more */
};

struct hold {
	struct hold *chain, *newer, *older;
	uint8_t key[DB_KEY_LEN];
	uint64_t grant;
	unsigned users;
	bool ready, leaving; /* its index is applied; the leader wants it forgotten */
};

struct keys {
	uint32_t n;
	uint8_t key[TAKE_MAX][DB_KEY_LEN];
};

/* A takeover at the taker: asked, then until its index is applied. */
struct take {
	struct floors *f;
	struct take *next;	/* of those whose index is awaited */
	uint64_t number, grant; /* of all its keys */
	struct keys keys;
	bool lapsed; /* the lease, since it was asked */
	struct db_barrier barrier;
};

/* What a leader knows of a member. */
struct seat {
	uint64_t until_us; /* no lease of its can last longer */
	bool owes;	   /* a FORGOT */
	uint64_t lease_next, lease_now, take_number, taken_number;
	struct keys *take; /* wanted, NULL: nothing */
};

enum phase { IDLE, WORDS, CONFIRM };

struct floors {
	struct db *db;
	uint64_t lease_length_us;
	struct loop_call call;
	struct loop_timer tick;

	/* Under mutex: what I/O loops use. */
	pthread_mutex_t mutex;
	struct hold *buckets[BUCKETS], *newest, *oldest;
	unsigned n_holds, n_leaving;
	uint64_t grants, lease_us; /* end of the lease */
	uint64_t granting;	   /* the grant whose index has just been applied, 0: none */
	bool used;		   /* since the lease was last asked for */
	struct db_use *waiting, **waiting_tail;
	struct take *take; /* asked of the leader; its fields but lapsed: Raft loop only */

	/* Raft loop only. */
	struct take *taken;	  /* until their index is applied */
	uint64_t number;	  /* of takes */
	uint64_t stamp, asked_us; /* of the lease asked for, 0: none; of the last one */
	uint64_t owed_to, owed_round, drained_us;
	uint64_t told_by, told_round; /* the last word to forget */

	struct seat seats[CHANNEL_PEERS_MAX];
	enum phase phase;
	uint64_t led_term, round, round_term, lease_term;
	int taker; /* slot */
	struct keys *taking;
	struct db_barrier round_barrier, lease_barrier;
	bool leasing;
};

static void on_call(struct loop_call *call);
static void on_tick(struct loop_timer *t);
static void round_start(struct floors *f);
static int receive(struct floors *f, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n);

static uint64_t now_us(const struct floors *f)
{
	return env_now_us(f->db->cfg.loop->env);
}

/* The table; under mutex. */

static struct hold **bucket_of(struct floors *f, const uint8_t *key)
{
	return &f->buckets[hash_bytes(key, DB_KEY_LEN) % BUCKETS];
}

static struct hold *hold_find(struct floors *f, const uint8_t *key)
{
	struct hold *h = *bucket_of(f, key);

	while (h != NULL && memcmp(h->key, key, DB_KEY_LEN) != 0)
		h = h->chain;
	return h;
}

static void lru_out(struct floors *f, struct hold *h)
{
	*(h->newer != NULL ? &h->newer->older : &f->newest) = h->older;
	*(h->older != NULL ? &h->older->newer : &f->oldest) = h->newer;
}

static void lru_in(struct floors *f, struct hold *h)
{
	h->newer = NULL;
	h->older = f->newest;
	*(h->older != NULL ? &h->older->newer : &f->oldest) = h;
	f->newest = h;
}

static void hold_drop(struct floors *f, struct hold *h)
{
	struct hold **at = bucket_of(f, h->key);

	CHECK(f->n_holds > 0 && (!h->leaving || f->n_leaving > 0));
	while (*at != h)
		at = &(*at)->chain;
	*at = h->chain;
	lru_out(f, h);
	f->n_leaving -= h->leaving;
	f->n_holds--;
	free(h);
}

static struct hold *hold_new(struct floors *f, const uint8_t *key)
{
	struct hold *h = hold_find(f, key), *old;

	if (h != NULL)
		hold_drop(f, h);
	old = f->oldest;
	while (f->n_holds >= DB_HOLDS_MAX && old != NULL && (old->users > 0 || !old->ready))
		old = old->newer;
	if (f->n_holds >= DB_HOLDS_MAX) {
		if (old == NULL)
			return NULL;
		hold_drop(f, old);
	}
	h = mem_new(sizeof *h);
	memcpy(h->key, key, DB_KEY_LEN);
	h->chain = *bucket_of(f, key);
	*bucket_of(f, key) = h;
	lru_in(f, h);
	f->n_holds++;
	return h;
}

/* Invariant 1; before anything that relies on the lease, and before it is made longer. */
static bool lease_stands(struct floors *f)
{
	if (now_us(f) < f->lease_us)
		return true;
	while (f->newest != NULL)
		hold_drop(f, f->newest);
	if (f->take != NULL)
		f->take->lapsed = true;
	return false;
}

/* Partly used up. A lease nobody has used for a while may be shorter than an election: the first
 * use asks for it anew at once, or a leader that stops then stops readers elsewhere too. */
static bool lease_is_old(const struct floors *f, uint64_t now)
{
	return f->lease_us - now <= f->lease_length_us / LEASE_PARTS * (LEASE_PARTS - 1);
}

static void use_grant(struct hold *h, struct db_use *u)
{
	CHECK(h->ready && h->grant != 0);
	h->users++;
	u->grant = h->grant;
	u->ok = true;
}

/* Callers. */

bool db_use_enter(struct db *db, struct db_use *u, const uint8_t *key, struct loop *loop,
	void (*done)(struct db_use *u))
{
	struct floors *f = db->floors;
	struct hold *h;
	bool held, renew;

	*u = (struct db_use){ .done = done, .loop = loop, .ok = true };
	memcpy(u->key, key, DB_KEY_LEN);
	if (db->cfg.rules_off & RULE_FLOOR)
		return true;
	pthread_mutex_lock(&f->mutex);
	h = lease_stands(f) ? hold_find(f, key) : NULL;
	held = h != NULL && h->ready && !h->leaving;
	renew = held && !f->used && lease_is_old(f, now_us(f));
	f->used = true;
	if (held) {
		use_grant(h, u);
		lru_out(f, h);
		lru_in(f, h);
	} else {
		u->ok = false;
		u->since_us = now_us(f);
		u->deadline_ms = env_now_ms(db->cfg.loop->env) + db__patience_ms(db);
		*f->waiting_tail = u;
		f->waiting_tail = &u->next;
	}
	pthread_mutex_unlock(&f->mutex);
	if (!held || renew)
		loop_post(db->cfg.loop, &f->call, on_call);
	return held;
}

bool db_use_leave(struct db *db, struct db_use *u)
{
	struct floors *f = db->floors;
	bool stands, drained = false;
	struct hold *h;

	if (db->cfg.rules_off & RULE_FLOOR)
		return true;
	pthread_mutex_lock(&f->mutex);
	h = lease_stands(f) ? hold_find(f, u->key) : NULL;
	stands = h != NULL && h->grant == u->grant;
	if (stands) {
		CHECK(h->users > 0);
		if (--h->users == 0 && h->leaving && h->ready) {
			hold_drop(f, h);
			drained = f->n_leaving == 0;
		}
	}
	pthread_mutex_unlock(&f->mutex);
	if (drained)
		loop_post(db->cfg.loop, &f->call, on_call);
	return stands;
}

static void deliver(struct loop_call *call)
{
	struct db_use *u = container_of(call, struct db_use, call);
	struct env *env = u->loop->env;

	counter_max(&env->counters, COUNTER_floors_wait_us_max, env_now_us(env) - u->since_us);
	u->done(u);
}

/* Those that wait and for which fits() says so, in order, are done. Under mutex. */
static void waiting_take(struct floors *f, bool (*fits)(struct floors *f, struct db_use *u))
{
	struct db_use **at = &f->waiting;

	while (*at != NULL) {
		struct db_use *u = *at;

		if (!fits(f, u)) {
			at = &u->next;
			continue;
		}
		*at = u->next;
		loop_post(u->loop, &u->call, deliver);
	}
	f->waiting_tail = at;
}

static bool is_late(struct floors *f, struct db_use *u)
{
	return now_us(f) / 1000 >= u->deadline_ms;
}

/* Those who have waited go first, then their hold may leave. */
static bool is_granted(struct floors *f, struct db_use *u)
{
	struct hold *h = hold_find(f, u->key);

	if (h == NULL || !h->ready || (h->leaving && h->grant != f->granting))
		return false;
	use_grant(h, u);
	return true;
}

/* Frames. */

static void send(struct floors *f, uint64_t peer, uint8_t type, struct buf *b)
{
	if (peer == f->db->cfg.raft_id)
		CHECK(receive(f, peer, type, b->data, b->len) == 0);
	else
		channel_send(f->db->channel, peer, type, b->data, b->len);
	buf_fini(b);
}

static void send_numbers(struct floors *f, uint64_t peer, uint8_t type, uint64_t a, uint64_t b)
{
	struct buf frame = { 0 };

	buf_u64(&frame, a);
	buf_u64(&frame, b);
	send(f, peer, type, &frame);
}

static void send_keys(struct floors *f, uint64_t peer, uint8_t type, uint64_t a, uint64_t b,
	const struct keys *keys)
{
	struct buf frame = { 0 };

	buf_u64(&frame, a);
	buf_u64(&frame, b);
	buf_put(&frame, keys->key, keys->n * DB_KEY_LEN);
	send(f, peer, type, &frame);
}

static bool read_keys(struct reader *r, struct keys *out)
{
	size_t n = rd_left(r);

	if (n == 0 || n % DB_KEY_LEN != 0 || n > sizeof out->key)
		return false;
	out->n = (uint32_t)(n / DB_KEY_LEN);
	memcpy(out->key, rd_bytes(r, n), n);
	return true;
}

static bool keys_have(const struct keys *keys, const uint8_t *key)
{
	for (uint32_t i = 0; i < keys->n; i++)
		if (memcmp(keys->key[i], key, DB_KEY_LEN) == 0)
			return true;
	return false;
}

/* The member: asking. */

static void send_lease(struct floors *f)
{
	uint64_t leader = consensus_leader(f->db->consensus);

	if (leader == 0)
		return;
	f->stamp = f->asked_us = now_us(f);
	pthread_mutex_lock(&f->mutex);
	f->used = false;
	pthread_mutex_unlock(&f->mutex);
	send_numbers(f, leader, F_LEASE, f->stamp, 0);
}

static void on_leased(struct floors *f, uint64_t stamp)
{
	if (stamp > f->asked_us) /* of a life before the machine's last start */
		return;
	if (stamp == f->stamp)
		f->stamp = 0;
	pthread_mutex_lock(&f->mutex);
	lease_stands(f);
	if (f->lease_us < stamp + f->lease_length_us)
		f->lease_us = stamp + f->lease_length_us;
	pthread_mutex_unlock(&f->mutex);
	loop_post(f->db->cfg.loop, &f->call, on_call);
}

/* What waits and is not held; under mutex. */
static void take_fill(struct floors *f, struct keys *keys)
{
	for (const struct db_use *u = f->waiting; u != NULL && keys->n < TAKE_MAX; u = u->next) {
		const struct hold *h = hold_find(f, u->key);

		if ((h == NULL || h->leaving) && !keys_have(keys, u->key))
			memcpy(keys->key[keys->n++], u->key, DB_KEY_LEN);
	}
}

static void send_take(struct floors *f)
{
	uint64_t leader = consensus_leader(f->db->consensus);

	if (f->take != NULL && leader != 0)
		send_keys(f, leader, F_TAKE, f->take->number, 0, &f->take->keys);
}

static void take_start(struct floors *f)
{
	struct take *t = mem_new(sizeof *t);

	loop_assert(f->db->cfg.loop);
	t->f = f;
	pthread_mutex_lock(&f->mutex);
	if (f->take == NULL && lease_stands(f))
		take_fill(f, &t->keys);
	if (t->keys.n > 0) {
		t->number = ++f->number;
		f->take = t;
	}
	pthread_mutex_unlock(&f->mutex);
	if (t->keys.n > 0)
		send_take(f);
	else
		free(t);
}

/* The holds of a take may be used now, or, without its index, must go. Under mutex. */
static void take_settle(struct floors *f, const struct take *t, bool ok)
{
	struct hold *h;

	lease_stands(f);
	for (uint32_t i = 0; i < t->keys.n; i++) {
		h = hold_find(f, t->keys.key[i]);
		if (h == NULL || h->grant != t->grant)
			continue;
		CHECK(!h->ready && h->users == 0);
		h->ready = ok;
		if (!ok)
			hold_drop(f, h);
	}
	f->granting = t->grant;
	waiting_take(f, is_granted);
	f->granting = 0;
	for (uint32_t i = 0; i < t->keys.n; i++) {
		h = hold_find(f, t->keys.key[i]);
		if (h != NULL && h->grant == t->grant && h->leaving && h->users == 0)
			hold_drop(f, h);
	}
}

/* Its index is applied here. */
static void on_ready(struct db_barrier *b)
{
	struct take *t = container_of(b, struct take, barrier);
	struct floors *f = t->f;
	struct take **at = &f->taken;

	loop_assert(f->db->cfg.loop);
	if (f->db->closing)
		return;
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	pthread_mutex_lock(&f->mutex);
	take_settle(f, t, b->ok);
	pthread_mutex_unlock(&f->mutex);
	free(t);
	loop_post(f->db->cfg.loop, &f->call, on_call);
}

static void on_taken(struct floors *f, uint64_t number, uint64_t index)
{
	struct take *t = f->take;

	loop_assert(f->db->cfg.loop);
	if (t == NULL || number != t->number)
		return;
	pthread_mutex_lock(&f->mutex);
	lease_stands(f); /* says so in it if it does not */
	f->take = NULL;
	t->grant = ++f->grants;
	for (uint32_t i = 0; i < t->keys.n; i++) {
		struct hold *h = t->lapsed ? NULL : hold_new(f, t->keys.key[i]);

		if (h != NULL)
			h->grant = t->grant;
	}
	pthread_mutex_unlock(&f->mutex);
	COUNT(f->db->cfg.loop->env, floors_taken);
	t->next = f->taken;
	f->taken = t;
	db_await(f->db, &t->barrier, index, f->db->cfg.loop, on_ready);
	loop_post(f->db->cfg.loop, &f->call, on_call);
}

/* The member: forgetting. */

static void forgotten(struct floors *f)
{
	uint64_t to = f->owed_to;

	f->owed_to = 0;
	if (to != 0)
		send_numbers(f, to, F_FORGOT, f->owed_round, 0);
}

static void forget(struct floors *f, const uint8_t *key)
{
	struct hold *h = hold_find(f, key);

	if (h == NULL)
		return;
	if (h->ready && h->users == 0) {
		hold_drop(f, h);
	} else if (!h->leaving) {
		h->leaving = true;
		f->n_leaving++;
	}
}

static void on_forget(struct floors *f, uint64_t peer, uint64_t round, const struct keys *keys)
{
	bool drained, overtaken = false;

	if (f->told_by == peer && f->told_round == round) { /* our answer was lost, or is not due */
		if (f->owed_to == 0)
			send_numbers(f, peer, F_FORGOT, round, 0);
		return;
	}
	pthread_mutex_lock(&f->mutex);
	for (uint32_t i = 0; i < keys->n; i++) {
		forget(f, keys->key[i]);
		overtaken =
			overtaken || (f->take != NULL && keys_have(&f->take->keys, keys->key[i]));
	}
	drained = f->n_leaving == 0;
	pthread_mutex_unlock(&f->mutex);
	f->owed_to = f->told_by = peer;
	f->owed_round = f->told_round = round;
	f->drained_us = now_us(f) + DRAIN_MS * 1000;
	if (overtaken)
		f->take->number = ++f->number;
	if (drained)
		forgotten(f);
	if (overtaken)
		send_take(f);
}

/* Calls that take too long will find that their hold is gone. */
static void drain_look(struct floors *f)
{
	bool late = now_us(f) >= f->drained_us, drained;
	struct hold *next;

	if (f->owed_to == 0)
		return;
	pthread_mutex_lock(&f->mutex);
	for (struct hold *h = f->newest; h != NULL && late; h = next) {
		next = h->older;
		if (h->leaving)
			hold_drop(f, h);
	}
	drained = f->n_leaving == 0;
	pthread_mutex_unlock(&f->mutex);
	if (drained)
		forgotten(f);
}

/* The leader. */

static bool serves(const struct floors *f)
{
	return consensus_role(f->db->consensus) == CONSENSUS_LEADER_READY &&
	       consensus_term(f->db->consensus) == f->led_term;
}

static bool owes(struct floors *f, unsigned slot)
{
	const struct seat *s = &f->seats[slot];

	return s->owes && now_us(f) < s->until_us && !(f->db->cfg.rules_off & RULE_LEASE);
}

static void on_round(struct db_barrier *b)
{
	struct floors *f = container_of(b, struct floors, round_barrier);
	struct seat *s = &f->seats[f->taker];

	if (f->db->closing)
		return;
	free(f->taking);
	f->taking = NULL;
	f->phase = IDLE;
	if (b->ok && serves(f) && f->round_term == f->led_term)
		send_numbers(
			f, f->db->members[f->taker].raft_id, F_TAKEN, s->taken_number, b->index);
	s->taken_number = 0;
	round_start(f);
}

static void round_look(struct floors *f)
{
	loop_assert(f->db->cfg.loop);
	if (f->phase != WORDS)
		return;
	for (unsigned i = 0; i < f->db->n_members; i++)
		if (owes(f, i))
			return;
	for (unsigned i = 0; i < f->db->n_members; i++)
		f->seats[i].owes = false;
	f->phase = CONFIRM;
	db_read_barrier(f->db, &f->round_barrier, f->db->cfg.loop, on_round);
}

static void send_forget(struct floors *f)
{
	uint64_t taker = f->db->members[f->taker].raft_id, round = f->round;

	for (unsigned i = 0; i < f->db->n_members && f->phase == WORDS && f->round == round; i++)
		if (f->seats[i].owes)
			send_keys(f, f->db->members[i].raft_id, F_FORGET, round, taker, f->taking);
}

static void round_start(struct floors *f)
{
	unsigned n = f->db->n_members, slot = 0, k;

	loop_assert(f->db->cfg.loop);
	if (f->phase != IDLE || !serves(f))
		return;
	for (k = 1; k <= n; k++) { /* in turn */
		slot = ((unsigned)f->taker + k) % n;
		if (f->seats[slot].take != NULL)
			break;
	}
	if (k > n)
		return;
	CHECK(f->taking == NULL);
	f->taker = (int)slot;
	f->taking = f->seats[slot].take;
	f->seats[slot].take = NULL;
	f->seats[slot].taken_number = f->seats[slot].take_number;
	f->phase = WORDS;
	f->round++;
	f->round_term = f->led_term;
	for (unsigned i = 0; i < n; i++)
		f->seats[i].owes = i != slot;
	send_forget(f);
	round_look(f);
	if (f->phase == WORDS) /* who does not answer is waited for by the tick */
		loop_post(f->db->cfg.loop, &f->call, on_call);
}

static void on_take(struct floors *f, int slot, uint64_t number, const struct keys *keys)
{
	struct seat *s = &f->seats[slot];

	if (consensus_role(f->db->consensus) < CONSENSUS_LEADER || s->taken_number == number)
		return;
	if (s->take == NULL)
		s->take = mem_new(sizeof *s->take);
	*s->take = *keys;
	s->take_number = number;
	round_start(f);
}

static void leases_start(struct floors *f);

static void on_lease_confirmed(struct db_barrier *b)
{
	struct floors *f = container_of(b, struct floors, lease_barrier);

	if (f->db->closing)
		return;
	f->leasing = false;
	for (unsigned i = 0; i < f->db->n_members; i++) {
		struct seat *s = &f->seats[i];
		uint64_t stamp = s->lease_now;

		s->lease_now = 0;
		if (stamp == 0 || !b->ok || !serves(f) || f->lease_term != f->led_term || s->owes)
			continue;
		s->until_us = now_us(f) + f->lease_length_us / 100 * (100 + SLACK_PERCENT);
		send_numbers(f, f->db->members[i].raft_id, F_LEASED, stamp, 0);
	}
	leases_start(f);
}

static void leases_start(struct floors *f)
{
	bool any = false;

	if (f->leasing || !serves(f))
		return;
	for (unsigned i = 0; i < f->db->n_members; i++) {
		f->seats[i].lease_now = f->seats[i].lease_next;
		f->seats[i].lease_next = 0;
		any = any || f->seats[i].lease_now != 0;
	}
	if (!any)
		return;
	loop_assert(f->db->cfg.loop);
	f->leasing = true;
	f->lease_term = f->led_term;
	db_read_barrier(f->db, &f->lease_barrier, f->db->cfg.loop, on_lease_confirmed);
}

static void on_lease(struct floors *f, int slot, uint64_t stamp)
{
	if (consensus_role(f->db->consensus) < CONSENSUS_LEADER)
		return;
	f->seats[slot].lease_next = stamp;
	leases_start(f);
}

static void on_forgot(struct floors *f, int slot, uint64_t round)
{
	if (f->phase != WORDS || round != f->round)
		return;
	f->seats[slot].owes = false;
	round_look(f);
}

static int receive(struct floors *f, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n)
{
	struct reader r = reader_of(payload, n);
	uint64_t a = rd_u64(&r), b = rd_u64(&r);
	bool has_keys = type == F_TAKE || type == F_FORGET;
	int slot = db__slot(f->db, peer);
	struct keys keys;

	loop_assert(f->db->cfg.loop);
	if (r.bad || slot < 0 || (has_keys ? !read_keys(&r, &keys) : rd_left(&r) != 0))
		return ERR_CORRUPT;
	switch (type) {
	case F_TAKE: on_take(f, slot, a, &keys); return 0;
	case F_TAKEN: on_taken(f, a, b); return 0;
	case F_FORGET: on_forget(f, peer, a, &keys); return 0;
	case F_FORGOT: on_forgot(f, slot, a); return 0;
	case F_LEASE: on_lease(f, slot, a); return 0;
	case F_LEASED: on_leased(f, a); return 0;
	default: return ERR_CORRUPT;
	}
}

int db__floor_frame(struct db *db, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n)
{
	return receive(db->floors, peer, type, payload, n);
}

/* Looking: when somebody waits, something has come, time has passed. */

/* Ask for a lease: one that waits needs it, or one that was used is partly gone. What is left then
 * is longer than an election. */
static void lease_look(struct floors *f)
{
	uint64_t now = now_us(f), part = f->lease_length_us / LEASE_PARTS;
	bool wanted;

	pthread_mutex_lock(&f->mutex);
	if (now < f->lease_us)
		wanted = f->used && lease_is_old(f, now);
	else
		wanted = f->waiting != NULL;
	pthread_mutex_unlock(&f->mutex);
	if (wanted && (f->stamp == 0 || now - f->asked_us >= part / 2))
		send_lease(f);
}

static void look(struct floors *f)
{
	bool busy, alive;

	loop_assert(f->db->cfg.loop);
	drain_look(f);
	lease_look(f);
	take_start(f);
	round_look(f);
	pthread_mutex_lock(&f->mutex);
	waiting_take(f, is_late);
	busy = f->waiting != NULL || f->phase != IDLE || f->owed_to != 0 || f->take != NULL;
	alive = now_us(f) < f->lease_us;
	pthread_mutex_unlock(&f->mutex);
	if (busy || alive) {
		uint64_t ms = busy ? BUSY_MS : f->lease_length_us / LEASE_PARTS / 2000;
		uint64_t due = now_us(f) + ms * 1000;

		if (f->tick.pos == 0 || f->tick.due_us > due)
			loop_timer_start(f->db->cfg.loop, &f->tick, ms, on_tick);
	}
}

static void on_call(struct loop_call *call)
{
	look(container_of(call, struct floors, call));
}

static void on_tick(struct loop_timer *t)
{
	struct floors *f = container_of(t, struct floors, tick);

	if (f->phase == WORDS)
		send_forget(f);
	send_take(f);
	look(f);
}

void db__floors_role(struct db *db)
{
	struct floors *f = db->floors;

	loop_assert(db->cfg.loop);
	if (consensus_role(db->consensus) == CONSENSUS_LEADER_READY &&
		f->led_term != consensus_term(db->consensus)) {
		f->led_term = consensus_term(db->consensus);
		for (unsigned i = 0; i < db->n_members; i++)
			f->seats[i].until_us =
				now_us(f) + f->lease_length_us / 100 * (100 + SLACK_PERCENT);
	}
	if (f->phase == WORDS && !serves(f)) {
		free(f->taking);
		f->taking = NULL;
		f->phase = IDLE;
		f->seats[f->taker].taken_number = 0;
	}
	for (unsigned i = 0; i < db->n_members && !serves(f); i++) {
		f->seats[i].owes = false;
		if (consensus_role(db->consensus) >= CONSENSUS_LEADER)
			continue; /* asks wait until it serves */
		free(f->seats[i].take);
		f->seats[i].take = NULL;
		f->seats[i].lease_next = 0;
	}
	f->stamp = 0; /* asked anew */
	round_start(f);
	leases_start(f);
	send_take(f);
	look(f);
}

/* Its lease runs out by itself: until then it is waited for. */
void db__floors_slot_freed(struct db *db, unsigned slot)
{
	struct seat *s = &db->floors->seats[slot];

	free(s->take);
	s->take = NULL;
	s->lease_next = 0;
}

void db__floors_init(struct db *db)
{
	struct floors *f = db->floors = mem_new(sizeof *f);
	unsigned election_ms = db->cfg.election_ms ? db->cfg.election_ms : CONSENSUS_ELECTION_MS;

	f->db = db;
	f->lease_length_us = (uint64_t)LEASE_ELECTIONS * election_ms * 1000;
	f->waiting_tail = &f->waiting;
	f->number = f->round = db->boot; /* not those of an earlier life */
	pthread_mutex_init(&f->mutex, NULL);
}

void db__floors_fini(struct db *db)
{
	struct floors *f = db->floors;

	loop_timer_stop(&f->tick);
	while (f->waiting != NULL) {
		struct db_use *u = f->waiting;

		f->waiting = u->next;
		u->done(u);
	}
	while (f->newest != NULL)
		hold_drop(f, f->newest);
	for (unsigned i = 0; i < db->n_members; i++)
		free(f->seats[i].take);
	while (f->taken != NULL) {
		struct take *t = f->taken;

		f->taken = t->next;
		free(t);
	}
	free(f->take);
	free(f->taking);
	pthread_mutex_destroy(&f->mutex);
	free(f);
}
