/* Proposals: from any thread to the leader's log, and back by our own apply.
 *
 *   inbox --(a place under way)--> pending --sent--> leader: feed --(room in flight)--> log -->
 * apply, here --> done
 *
 * Nothing comes back from the leader but refusals (of requests, and of what a full database does
 * not take): the answer to a proposal is its own entry, applied here. A pending proposal is sent
 * again when another leader is known, when the connection comes up, and after DB_RESEND_MS; apply
 * recognises a second entry by its id. It is given up as DB_UNKNOWN DB_TIMEOUT_MS after the leader
 * was last heard, a job's after DB_TIMEOUT_MS.
 *
 * Invariant: the newest sequence under way is less than the window of apply.c (1024) above the
 * oldest, so no retry is ever taken for one that was decided and forgotten: DB_PROPOSALS_MAX bounds
 * the number, SPREAD_MAX the distance.
 */
#include "db/db_priv.h"

#include <stdlib.h>
#include <string.h>

enum { F_PROPOSE = CHANNEL_PROPOSAL_FIRST, F_REQUEST, F_REFUSED };
enum { TICK_MS = 100, SPREAD_MAX = 900 };
_Static_assert((int)DB_ROW_FULL == (int)APPLY_FULL, "what apply says is told as it is");

/* What the coordinator says to a request. */
struct answer {
	struct answer *next;
	struct db_proposal_id id;
	bool admitted;
	struct db_txn txn;
	struct err err;
};

static void on_tick(struct loop_timer *t);
static void take_inbox(struct loop_call *call);

void db__proposals_init(struct db *db)
{
	pthread_mutex_init(&db->inbox_mutex, NULL);
	db->inbox_tail = &db->inbox;
	db->answers_tail = &db->answers;
	db->waiting_tail = &db->waiting;
	db->pending_tail = &db->pending;
	db->feed_tail = &db->feed;
	loop_timer_start(db->cfg.loop, &db->tick, TICK_MS, on_tick);
}

static void feed_clear(struct db *db)
{
	while (db->feed != NULL) {
		struct feed *f = db->feed;

		db->feed = f->next;
		free(f);
	}
	db->feed_tail = &db->feed;
	db->n_feed = 0;
}

/* Only when a simulated member has died: its loops run no more, so what waits ends here. */
static void end_all(struct db_proposal *list)
{
	while (list != NULL) {
		struct db_proposal *p = list;

		list = p->next;
		p->result.status = DB_UNKNOWN;
		p->done(p);
	}
}

void db__proposals_fini(struct db *db)
{
	struct db_proposal *lists[] = { db->pending, db->waiting, db->inbox };

	loop_timer_stop(&db->tick);
	for (unsigned i = 0; i < ARRAY_LEN(lists); i++)
		end_all(lists[i]);
	feed_clear(db);
	while (db->answers != NULL) {
		struct answer *a = db->answers;

		db->answers = a->next;
		db_txn_fini(&a->txn);
		err_fini(&a->err);
		free(a);
	}
	pthread_mutex_destroy(&db->inbox_mutex);
}

void db_proposal_fini(struct db_proposal *p)
{
	err_fini(&p->result.err);
	db_txn_fini(&p->txn);
	buf_fini(&p->bytes);
}

/* The end, on the proposer's loop. */

static void deliver(struct loop_call *call)
{
	struct db_proposal *p = container_of(call, struct db_proposal, call);

	p->done(p);
}

static void finish(struct db *db, struct db_proposal *p, enum db_status status)
{
	p->result.status = status;
	p->result.leader = consensus_leader(db->consensus);
	loop_post(p->loop, &p->call, deliver);
}

/* Ways in. */

static void enter(struct db *db, struct db_proposal *p, struct loop *loop,
	void (*done)(struct db_proposal *p), uint64_t patience_ms)
{
	p->db = db;
	p->loop = loop;
	p->done = done;
	p->next = NULL;
	p->deadline_ms = env_now_ms(db->cfg.loop->env) + patience_ms;
	pthread_mutex_lock(&db->inbox_mutex);
	*db->inbox_tail = p;
	db->inbox_tail = &p->next;
	pthread_mutex_unlock(&db->inbox_mutex);
	loop_post(db->cfg.loop, &db->inbox_call, take_inbox);
}

void db_propose(struct db *db, struct db_proposal *p, struct db_txn *txn, struct loop *loop,
	void (*done)(struct db_proposal *p))
{
	*p = (struct db_proposal){ .txn = *txn };
	*txn = (struct db_txn){ 0 };
	enter(db, p, loop, done, db__patience_ms(db));
}

void db_request(struct db *db, struct db_proposal *p, struct buf *bytes, struct loop *loop,
	void (*done)(struct db_proposal *p))
{
	*p = (struct db_proposal){ .is_request = true, .bytes = *bytes };
	buf_init(bytes);
	enter(db, p, loop, done, db__patience_ms(db));
}

/* The leader's side. */

static void feed_put(struct db *db, const struct db_proposal_id *id, const uint8_t *entry, size_t n)
{
	struct feed *f;

	loop_assert(db->cfg.loop);
	if (db->n_feed >= DB_FEED_MAX) {
		COUNT(db->cfg.loop->env, proposals_full);
		return; /* asked again later */
	}
	f = must(malloc(sizeof *f + n));
	f->next = NULL;
	f->n = n;
	memcpy(f->entry, entry, n);
	*db->feed_tail = f;
	db->feed_tail = &f->next;
	db->n_feed++;
	db->admitted[db->n_admitted++ % ADMITTED_MAX] = *id;
}

static bool leads(const struct db *db)
{
	return consensus_role(db->consensus) >= CONSENSUS_LEADER;
}

void db__proposals_turn(struct db *db)
{
	if (db->closing)
		return;
	while (db->feed != NULL &&
		consensus_submit(db->consensus, db->feed->entry, db->feed->n) == 0) {
		struct feed *f = db->feed;

		db->feed = f->next;
		if (db->feed == NULL)
			db->feed_tail = &db->feed;
		db->n_feed--;
		free(f);
	}
	if (!leads(db))
		feed_clear(db);
}

static void answer_put(struct db *db, struct answer *a)
{
	pthread_mutex_lock(&db->inbox_mutex);
	*db->answers_tail = a;
	db->answers_tail = &a->next;
	pthread_mutex_unlock(&db->inbox_mutex);
	loop_post(db->cfg.loop, &db->inbox_call, take_inbox);
}

void db_admit(struct db *db, const struct db_proposal_id *id, struct db_txn *txn)
{
	struct answer *a = mem_new(sizeof *a);

	*a = (struct answer){ .id = *id, .admitted = true, .txn = *txn };
	*txn = (struct db_txn){ 0 };
	answer_put(db, a);
}

void db_refuse(struct db *db, const struct db_proposal_id *id, struct err *err)
{
	struct answer *a = mem_new(sizeof *a);

	*a = (struct answer){ .id = *id };
	err_move(&a->err, err);
	answer_put(db, a);
}

static void refused(struct db *db, uint64_t sequence, struct err *err);

static void put_id(struct buf *b, const struct db_proposal_id *id)
{
	buf_u64(b, id->raft_id);
	buf_u64(b, id->boot);
	buf_u64(b, id->sequence);
}

/* Has this coordinator taken an entry with this id for the log a moment ago? */
static bool was_admitted(const struct db *db, const struct db_proposal_id *id)
{
	for (unsigned i = 0; i < ADMITTED_MAX; i++)
		if (db->admitted[i].raft_id == id->raft_id && db->admitted[i].boot == id->boot &&
			db->admitted[i].sequence == id->sequence)
			return true;
	return false;
}

/* The entry of a transaction. false, after a log line: it is unfit, which is a mistake of ours that
 * must not get into the log. */
static bool make_entry(
	struct db *db, struct db_txn *txn, const struct db_proposal_id *id, struct buf *out)
{
	unsigned active = db->views.root->schema;
	struct entry_head head;

	loop_assert(db->cfg.loop);
	if (txn->schema == 0)
		txn->schema = active != 0 ? active : db->views.schema_max;
	db_txn_encode(txn, id, env_wall_s(db->cfg.loop->env), out);
	if (out->len <= DB_ENTRY_MAX && db__entry_head(out->data, out->len, &head) &&
		db__entry_check(&head) == APPLY_DONE)
		return true;
	log_err(db->cfg.loop->env, "event=transaction_unfit reason=%d bytes=%zu", (int)txn->reason,
		out->len);
	return false;
}

/* Tell the member that asked; err may be taken. */
static void refuse(struct db *db, const struct db_proposal_id *id, struct err *err)
{
	struct buf b = { 0 };

	if (id->raft_id == db->cfg.raft_id) {
		if (id->boot == db->boot)
			refused(db, id->sequence, err);
		return;
	}
	put_id(&b, id);
	buf_str(&b, err->code->name);
	buf_u8(&b, (uint8_t)err->n);
	for (unsigned i = 0; i < err->n; i++)
		buf_str(&b, err->params[i]);
	channel_send(db->channel, id->raft_id, F_REFUSED, b.data, b.len);
	buf_fini(&b);
}

/* A transaction as it was proposed: for the log, or refused when the database is full. Not if it
 * may be in the log already: all that earlier leaders have left there is applied when we are ready.
 */
static void take(struct db *db, const uint8_t *entry, size_t n)
{
	struct entry_head head;
	struct err err = { 0 };

	CHECK(db__entry_head(entry, n, &head));
	if (!db__room_lacks(db, &head) || was_admitted(db, &head.id) ||
		db__done_has(db->done, &head.id)) {
		feed_put(db, &head.id, entry, n);
	} else if (consensus_role(db->consensus) == CONSENSUS_LEADER_READY && db_full(db, &err)) {
		COUNT(db->cfg.loop->env, writes_full);
		refuse(db, &head.id, &err);
	}
	err_fini(&err);
}

static void give_answer(struct db *db, struct answer *a)
{
	struct buf b = { 0 };

	loop_assert(db->cfg.loop);
	if (a->admitted && !make_entry(db, &a->txn, &a->id, &b)) {
		a->admitted = false;
		err_set(&a->err, ERR_INTERNAL_ERROR, "the transaction is unfit", NULL);
		buf_fini(&b);
	}
	if (a->admitted) {
		if (leads(db))
			feed_put(db, &a->id, b.data, b.len);
	} else if (!leads(db) || was_admitted(db, &a->id)) {
		/* the log decides about what is in it, and whoever leads about the rest: asked
		 * again, we will know */
	} else {
		refuse(db, &a->id, &a->err);
	}
	buf_fini(&b);
	db_txn_fini(&a->txn);
	err_fini(&a->err);
	free(a);
}

/* The proposer's side. */

static void send(struct db *db, struct db_proposal *p)
{
	uint64_t leader = consensus_leader(db->consensus);
	struct db_proposal_id id = { db->cfg.raft_id, db->boot, p->sequence };
	struct buf b = { 0 };

	loop_assert(db->cfg.loop);
	p->sent_ms = env_now_ms(db->cfg.loop->env);
	if (leader == 0)
		return;
	if (leader != db->cfg.raft_id) {
		if (p->is_request)
			put_id(&b, &id);
		buf_put(&b, p->bytes.data, p->bytes.len);
		channel_send(
			db->channel, leader, p->is_request ? F_REQUEST : F_PROPOSE, b.data, b.len);
		buf_fini(&b);
	} else if (!p->is_request) {
		take(db, p->bytes.data, p->bytes.len);
	} else if (consensus_role(db->consensus) == CONSENSUS_LEADER_READY) {
		db->cfg.request(db->cfg.arg, &id, p->bytes.data, p->bytes.len);
	}
}

static bool has_place(const struct db *db)
{
	return db->n_pending < DB_PROPOSALS_MAX &&
	       (db->pending == NULL || db->sequence + 1 - db->pending->sequence < SPREAD_MAX);
}

static void start_waiting(struct db *db)
{
	while (db->waiting != NULL && has_place(db)) {
		struct db_proposal *p = db->waiting;
		struct db_proposal_id id;

		db->waiting = p->next;
		if (db->waiting == NULL)
			db->waiting_tail = &db->waiting;
		db->n_waiting--;
		p->sequence = ++db->sequence;
		id = (struct db_proposal_id){ db->cfg.raft_id, db->boot, p->sequence };
		if (!p->is_request && !make_entry(db, &p->txn, &id, &p->bytes)) {
			p->result.failed = APPLY_MISFIT;
			finish(db, p, DB_FAILED);
			continue;
		}
		p->next = NULL;
		*db->pending_tail = p;
		db->pending_tail = &p->next;
		db->n_pending++;
		COUNT(db->cfg.loop->env, proposals_now);
		send(db, p);
	}
}

/* Take a proposal out of the pending ones; NULL: no longer there. */
static struct db_proposal *pending_take(struct db *db, uint64_t sequence)
{
	for (struct db_proposal **at = &db->pending; *at != NULL; at = &(*at)->next) {
		struct db_proposal *p = *at;

		if (p->sequence != sequence)
			continue;
		*at = p->next;
		if (db->pending_tail == &p->next)
			db->pending_tail = at;
		db->n_pending--;
		counter_add(&db->cfg.loop->env->counters, COUNTER_proposals_now, -1);
		return p;
	}
	return NULL;
}

static void refused(struct db *db, uint64_t sequence, struct err *err)
{
	struct db_proposal *p = pending_take(db, sequence);

	if (p == NULL)
		return;
	err_move(&p->result.err, err);
	finish(db, p, DB_REFUSED);
	start_waiting(db);
}

void db__proposal_applied(
	struct db *db, const struct db_proposal_id *id, const struct apply_result *res)
{
	struct db_proposal *p;

	loop_assert(db->cfg.loop);
	if (id->raft_id != db->cfg.raft_id || id->boot != db->boot)
		return;
	p = pending_take(db, id->sequence);
	if (p == NULL)
		return;
	p->result.index = res->index;
	p->result.failed = res->failed;
	if (res->status == APPLY_REFUSED && res->failed == APPLY_FORGOTTEN)
		finish(db, p, DB_UNKNOWN);
	else
		finish(db, p, res->status == APPLY_DONE ? DB_DONE : DB_FAILED);
	start_waiting(db);
}

static void take_inbox(struct loop_call *call)
{
	struct db *db = container_of(call, struct db, inbox_call);
	struct db_proposal *list;
	struct answer *answers;

	loop_assert(db->cfg.loop);
	pthread_mutex_lock(&db->inbox_mutex);
	list = db->inbox;
	db->inbox = NULL;
	db->inbox_tail = &db->inbox;
	answers = db->answers;
	db->answers = NULL;
	db->answers_tail = &db->answers;
	pthread_mutex_unlock(&db->inbox_mutex);
	while (answers != NULL) {
		struct answer *a = answers;

		answers = a->next;
		give_answer(db, a);
	}
	while (list != NULL) {
		struct db_proposal *p = list;

		list = p->next;
		if (db->n_waiting >= DB_WAITING_MAX) {
			finish(db, p, DB_UNKNOWN);
			continue;
		}
		p->next = NULL;
		*db->waiting_tail = p;
		db->waiting_tail = &p->next;
		db->n_waiting++;
	}
	start_waiting(db);
}

void db__proposals_role(struct db *db)
{
	uint64_t leader = consensus_leader(db->consensus);
	bool reachable =
		leader != 0 &&
		(leader == db->cfg.raft_id ? consensus_role(db->consensus) == CONSENSUS_LEADER_READY
					   : channel_is_up(db->channel, leader));

	if (!reachable) {
		db->sent_to = 0;
		return;
	}
	if (leader == db->sent_to && consensus_term(db->consensus) == db->sent_term)
		return;
	db->sent_to = leader;
	db->sent_term = consensus_term(db->consensus);
	for (struct db_proposal *p = db->pending; p != NULL; p = p->next) {
		COUNT(db->cfg.loop->env, proposals_resent);
		send(db, p);
	}
}

static void waiting_expire(struct db *db, uint64_t now)
{
	struct db_proposal **at = &db->waiting;

	while (*at != NULL) {
		struct db_proposal *p = *at;

		if (now < p->deadline_ms) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		db->n_waiting--;
		finish(db, p, DB_UNKNOWN);
	}
	db->waiting_tail = at;
}

static void on_tick(struct loop_timer *t)
{
	struct db *db = container_of(t, struct db, tick);
	uint64_t now = env_now_ms(db->cfg.loop->env);
	struct db_proposal *next;

	loop_assert(db->cfg.loop);
	loop_timer_start(db->cfg.loop, &db->tick, TICK_MS, on_tick);
	for (struct db_proposal *p = db->pending; p != NULL; p = next) {
		next = p->next;
		if (now >= p->deadline_ms) {
			COUNT(db->cfg.loop->env, proposals_timeout);
			pending_take(db, p->sequence);
			finish(db, p, DB_UNKNOWN);
		} else if (now - p->sent_ms >= DB_RESEND_MS) {
			COUNT(db->cfg.loop->env, proposals_resent);
			send(db, p);
		}
	}
	waiting_expire(db, now);
	start_waiting(db);
}

static int refusal_frame(struct db *db, struct reader *r)
{
	struct db_proposal_id id = { rd_u64(r), rd_u64(r), rd_u64(r) };
	const char *name = rd_str(r), *params[ERR_PARAMS_MAX];
	unsigned n = rd_u8(r);
	const struct err_code *code;
	struct err err = { 0 };

	if (n > ERR_PARAMS_MAX)
		return ERR_CORRUPT;
	for (unsigned i = 0; i < n; i++)
		params[i] = rd_str(r);
	if (r->bad)
		return ERR_CORRUPT;
	if (id.raft_id != db->cfg.raft_id || id.boot != db->boot)
		return 0;
	code = model_error_find(name);
	if (code != NULL)
		err_set_list(&err, code, params, n);
	else /* of a newer coordinator: the name is all we know */
		err_set(&err, ERR_INTERNAL_ERROR, name, NULL);
	refused(db, id.sequence, &err);
	err_fini(&err);
	return 0;
}

int db__proposal_frame(struct db *db, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n)
{
	struct reader r = reader_of(payload, n);
	struct entry_head head;
	struct db_proposal_id id;

	loop_assert(db->cfg.loop);
	switch (type) {
	case F_PROPOSE:
		if (n > DB_ENTRY_MAX || n % 8 != 0 || !db__entry_head(payload, n, &head) ||
			head.id.raft_id != peer)
			return ERR_CORRUPT;
		/* what this build cannot apply would stop every member; the one that asks gives up
		 * by itself */
		if (db__entry_check(&head) != APPLY_DONE)
			log_warn(db->cfg.loop->env, "event=proposal_unfit member=%llu",
				(unsigned long long)peer);
		else if (leads(db))
			take(db, payload, n);
		return 0;
	case F_REQUEST:
		id.raft_id = rd_u64(&r);
		id.boot = rd_u64(&r);
		id.sequence = rd_u64(&r);
		if (r.bad || id.raft_id != peer)
			return ERR_CORRUPT;
		if (consensus_role(db->consensus) == CONSENSUS_LEADER_READY)
			db->cfg.request(db->cfg.arg, &id, r.p, rd_left(&r));
		return 0;
	case F_REFUSED: return peer == consensus_leader(db->consensus) ? refusal_frame(db, &r) : 0;
	default: return ERR_CORRUPT;
	}
}

/* The bridge. */

struct commit_call {
	struct wait wait; /* first */
	struct db_proposal proposal;
};

static void commit_fini(struct wait *w)
{
	struct commit_call *cc = container_of(w, struct commit_call, wait);

	db_proposal_fini(&cc->proposal);
	free(cc);
}

static void commit_done(struct db_proposal *p)
{
	wait_done(&container_of(p, struct commit_call, proposal)->wait);
}

/* Proposal or request, filled. */
static int enter_and_wait(
	struct job *job, struct db *db, struct commit_call *cc, struct db_result *out)
{
	int rc;

	*out = (struct db_result){ .status = DB_UNKNOWN };
	wait_init(&cc->wait, job, commit_fini);
	/* a job would only ask again */
	enter(db, &cc->proposal, db->cfg.loop, commit_done, DB_TIMEOUT_MS);
	/* the proposal always ends within DB_TIMEOUT_MS, so this wait needs no limit of its own */
	rc = wait_join(&cc->wait, UINT64_MAX, false);
	if (rc == 0) {
		*out = cc->proposal.result;
		cc->proposal.result.err = (struct err){ 0 };
	}
	wait_drop(&cc->wait);
	return rc;
}

int db_commit(struct job *job, struct db *db, struct db_txn *txn, struct db_result *out)
{
	struct commit_call *cc = mem_new(sizeof *cc);

	cc->proposal.txn = *txn;
	*txn = (struct db_txn){ 0 };
	return enter_and_wait(job, db, cc, out);
}

int db_ask(struct job *job, struct db *db, struct buf *bytes, struct db_result *out)
{
	struct commit_call *cc = mem_new(sizeof *cc);

	cc->proposal.is_request = true;
	cc->proposal.bytes = *bytes;
	buf_init(bytes);
	return enter_and_wait(job, db, cc, out);
}
