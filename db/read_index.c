/* The read index: which log index has everything that was acknowledged anywhere before I asked?
 *
 *   member                       leader                          voters
 *      | --- ASK number --------> |   joins the next round
 *      |                          | --- CONFIRM round, term ----> |
 *      |                          | <-- CONFIRMED round, term --- |   only while that is its term
 *      | <-- INDEX number, i ---- |   a majority has, itself included
 *   done when i is applied here
 *
 * i is the leader's commit index when the round began; it has applied an entry of its own term, so
 * that covers all earlier ones. A majority that is in the leader's term afterwards has elected
 * nobody else before, so nothing was acknowledged beyond i when the round began (Ongaro's
 * dissertation, section 6.4). No clock, no disk, no entry.
 *
 * Callers that come before an ask share it, asks that come before a round share that; one ask of a
 * member and one round of the leader are under way at a time. Frames get lost with their
 * connection: what is not answered is sent again. Voters may leave in the middle of a round: the
 * tick looks who is left, for a leader that is alone hears from nobody.
 */
#include "db/db_priv.h"

#include <stdlib.h>

enum { F_ASK = CHANNEL_READ_FIRST, F_CONFIRM, F_CONFIRMED, F_INDEX };
enum { TICK_MS = 50 };

/* A member's ask at the leader. */
struct ask {
	uint64_t next, now; /* numbers: for the next round, in this one; 0: none */
	bool confirmed;	    /* its member has, in this round */
};

struct reads {
	struct db *db;
	pthread_mutex_t mutex;
	struct db_barrier *inbox; /* from any thread, under mutex */
	struct loop_call inbox_call;
	struct loop_timer tick; /* runs while something waits */

	struct db_barrier *fresh, *asked; /* for the next ask, for the one under way */
	struct db_barrier *indexed;	  /* until their index is applied */
	uint64_t number;		  /* of the ask; a later life has others */

	struct ask asks[CHANNEL_PEERS_MAX];
	bool on; /* a round of this leader */
	uint64_t round, term, index;
};

static void on_tick(struct loop_timer *t);
static void on_index(struct reads *r, uint64_t number, uint64_t index);

static void deliver(struct loop_call *call)
{
	struct db_barrier *b = container_of(call, struct db_barrier, call);

	b->done(b);
}

static void end(struct db_barrier *b, bool ok)
{
	b->ok = ok;
	loop_post(b->loop, &b->call, deliver);
}

static void prepend(struct db_barrier **list, struct db_barrier *b)
{
	b->next = *list;
	*list = b;
}

static void send(struct reads *r, uint64_t peer, uint8_t type, uint64_t a, uint64_t b)
{
	struct buf frame = { 0 };

	buf_u64(&frame, a);
	buf_u64(&frame, b);
	channel_send(r->db->channel, peer, type, frame.data, frame.len);
	buf_fini(&frame);
}

/* The leader's rounds. */

static void send_confirm(struct reads *r)
{
	for (unsigned i = 0; i < r->db->n_members; i++) {
		uint64_t id = r->db->members[i].raft_id;

		if (!r->asks[i].confirmed && consensus_is_voter(r->db->consensus, id))
			send(r, id, F_CONFIRM, r->round, r->term);
	}
}

static bool round_wanted(struct reads *r)
{
	bool any = false;

	for (unsigned i = 0; i < r->db->n_members; i++) {
		struct ask *a = &r->asks[i];

		a->confirmed = r->db->members[i].raft_id == r->db->cfg.raft_id;
		if (a->next == 0)
			continue;
		a->now = a->next;
		a->next = 0;
		any = true;
	}
	return any;
}

static void round_look(struct reads *r);

static void round_start(struct reads *r)
{
	loop_assert(r->db->cfg.loop);
	if (r->on || consensus_role(r->db->consensus) != CONSENSUS_LEADER_READY || !round_wanted(r))
		return;
	r->on = true;
	r->round++;
	r->term = consensus_term(r->db->consensus);
	r->index = consensus_committed(r->db->consensus);
	COUNT(r->db->cfg.loop->env, read_rounds);
	send_confirm(r);
	if (r->tick.pos == 0)
		loop_timer_start(r->db->cfg.loop, &r->tick, TICK_MS, on_tick);
	round_look(r);
}

static void round_end(struct reads *r)
{
	uint64_t own = 0;

	r->on = false;
	for (unsigned i = 0; i < r->db->n_members; i++) {
		uint64_t id = r->db->members[i].raft_id, number = r->asks[i].now;

		r->asks[i].now = 0;
		if (id == r->db->cfg.raft_id)
			own = number;
		else if (number != 0)
			send(r, id, F_INDEX, number, r->index);
	}
	if (own != 0)
		on_index(r, own, r->index);
	round_start(r);
}

static void round_look(struct reads *r)
{
	unsigned voters = 0, confirmed = 0;

	for (unsigned i = 0; i < r->db->n_members; i++)
		if (consensus_is_voter(r->db->consensus, r->db->members[i].raft_id)) {
			voters++;
			confirmed += r->asks[i].confirmed;
		}
	if (r->on && (2 * confirmed > voters || (r->db->cfg.rules_off & RULE_CONFIRM)))
		round_end(r);
}

/* A leader that has not applied its own barrier yet keeps what it is asked until it has. */
static void on_ask(struct reads *r, int slot, uint64_t number)
{
	struct ask *a = &r->asks[slot];

	if (consensus_role(r->db->consensus) < CONSENSUS_LEADER || a->now == number)
		return;
	a->next = number;
	round_start(r);
}

static void on_confirmed(struct reads *r, int slot, uint64_t round, uint64_t term)
{
	if (!r->on || round != r->round || term != r->term)
		return;
	r->asks[slot].confirmed = true;
	round_look(r);
}

/* The asking side. */

static void send_ask(struct reads *r)
{
	uint64_t leader = consensus_leader(r->db->consensus);

	if (r->asked == NULL || leader == 0)
		return;
	if (leader == r->db->cfg.raft_id)
		on_ask(r, db__slot(r->db, leader), r->number);
	else
		send(r, leader, F_ASK, r->number, 0);
}

static void ask_next(struct reads *r)
{
	loop_assert(r->db->cfg.loop);
	if (r->asked != NULL || r->fresh == NULL)
		return;
	r->asked = r->fresh;
	r->fresh = NULL;
	r->number++;
	send_ask(r);
}

static void on_index(struct reads *r, uint64_t number, uint64_t index)
{
	struct db_barrier *list = r->asked;

	if (number != r->number || list == NULL)
		return;
	r->asked = NULL;
	while (list != NULL) {
		struct db_barrier *b = list;

		list = b->next;
		b->index = index;
		prepend(&r->indexed, b);
	}
	ask_next(r);
}

void db__reads_turn(struct db *db)
{
	uint64_t applied = consensus_applied(db->consensus);
	struct db_barrier **at = &db->reads->indexed;

	while (*at != NULL) {
		struct db_barrier *b = *at;

		if (b->index > applied) {
			at = &b->next;
			continue;
		}
		*at = b->next;
		end(b, true);
	}
}

static void expire(struct db_barrier **at, uint64_t now)
{
	while (*at != NULL) {
		struct db_barrier *b = *at;

		if (now < b->deadline_ms) {
			at = &b->next;
			continue;
		}
		*at = b->next;
		end(b, false);
	}
}

static void on_tick(struct loop_timer *t)
{
	struct reads *r = container_of(t, struct reads, tick);
	struct db_barrier **lists[] = { &r->fresh, &r->asked, &r->indexed };
	uint64_t now = env_now_ms(r->db->cfg.loop->env);

	for (unsigned i = 0; i < ARRAY_LEN(lists); i++)
		expire(lists[i], now);
	ask_next(r);
	if (r->on || r->asked != NULL || r->indexed != NULL)
		loop_timer_start(r->db->cfg.loop, t, TICK_MS, on_tick);
	if (r->on) {
		send_confirm(r);
		round_look(r); /* who voted may have left, and nobody else is there to say a word */
	}
	send_ask(r);
}

static void take_inbox(struct loop_call *call)
{
	struct reads *r = container_of(call, struct reads, inbox_call);
	uint64_t until = env_now_ms(r->db->cfg.loop->env) + db__patience_ms(r->db);
	struct db_barrier *list;

	pthread_mutex_lock(&r->mutex);
	list = r->inbox;
	r->inbox = NULL;
	pthread_mutex_unlock(&r->mutex);
	while (list != NULL) {
		struct db_barrier *b = list;

		list = b->next;
		b->deadline_ms = until;
		prepend(b->index != 0 ? &r->indexed : &r->fresh, b);
	}
	if (r->tick.pos == 0)
		loop_timer_start(r->db->cfg.loop, &r->tick, TICK_MS, on_tick);
	ask_next(r);
}

void db_await(struct db *db, struct db_barrier *b, uint64_t index, struct loop *loop,
	void (*done)(struct db_barrier *b))
{
	struct reads *r = db->reads;

	*b = (struct db_barrier){ .index = index, .loop = loop, .done = done };
	pthread_mutex_lock(&r->mutex);
	prepend(&r->inbox, b);
	pthread_mutex_unlock(&r->mutex);
	loop_post(db->cfg.loop, &r->inbox_call, take_inbox);
}

void db_read_barrier(
	struct db *db, struct db_barrier *b, struct loop *loop, void (*done)(struct db_barrier *b))
{
	db_await(db, b, 0, loop, done);
}

/* Frames, roles, life. */

int db__read_frame(struct db *db, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n)
{
	struct reader in = reader_of(payload, n);
	uint64_t a = rd_u64(&in), b = rd_u64(&in);
	struct reads *r = db->reads;
	int slot = db__slot(db, peer);

	loop_assert(db->cfg.loop);
	if (in.bad || rd_left(&in) != 0 || slot < 0)
		return ERR_CORRUPT;
	switch (type) {
	case F_ASK: on_ask(r, slot, a); return 0;
	case F_CONFIRM:
		if (b == consensus_term(db->consensus))
			send(r, peer, F_CONFIRMED, a, b);
		return 0;
	case F_CONFIRMED: on_confirmed(r, slot, a, b); return 0;
	case F_INDEX: on_index(r, a, b); return 0;
	default: return ERR_CORRUPT;
	}
}

void db__reads_role(struct db *db)
{
	struct reads *r = db->reads;

	loop_assert(db->cfg.loop);
	if (r->on && (consensus_role(db->consensus) != CONSENSUS_LEADER_READY ||
			     consensus_term(db->consensus) != r->term))
		r->on = false;
	for (unsigned i = 0; i < db->n_members && !r->on; i++) {
		r->asks[i].now = 0; /* asked again */
		if (consensus_role(db->consensus) < CONSENSUS_LEADER)
			r->asks[i].next = 0;
	}
	round_start(r);
	send_ask(r);
}

void db__reads_slot_freed(struct db *db, unsigned slot)
{
	db->reads->asks[slot] = (struct ask){ 0 };
}

void db__reads_init(struct db *db)
{
	db->reads = mem_new(sizeof *db->reads);
	db->reads->db = db;
	db->reads->number = db->boot;
	pthread_mutex_init(&db->reads->mutex, NULL);
}

void db__reads_fini(struct db *db)
{
	struct reads *r = db->reads;
	struct db_barrier *lists[] = { r->fresh, r->asked, r->indexed, r->inbox };

	loop_timer_stop(&r->tick);
	for (unsigned i = 0; i < ARRAY_LEN(lists); i++)
		while (lists[i] != NULL) {
			struct db_barrier *b = lists[i];

			lists[i] = b->next;
			b->done(b);
		}
	pthread_mutex_destroy(&r->mutex);
	free(r);
}

/* The bridge. */

struct await_call {
	struct wait wait; /* first */
	struct db_barrier barrier;
};

static void await_fini(struct wait *w)
{
	free(container_of(w, struct await_call, wait));
}

static void await_done(struct db_barrier *b)
{
	wait_done(&container_of(b, struct await_call, barrier)->wait);
}

int db_read_wait(struct job *job, struct db *db)
{
	struct await_call *ac = mem_new(sizeof *ac);
	int rc;

	wait_init(&ac->wait, job, await_fini);
	db_read_barrier(db, &ac->barrier, db->cfg.loop, await_done);
	rc = wait_join(&ac->wait, UINT64_MAX, false);
	if (rc == 0 && !ac->barrier.ok)
		rc = ERR_TIMEOUT;
	wait_drop(&ac->wait);
	return rc;
}
