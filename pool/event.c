/* event.from and event.inject: changes in commit order, on any member. tasks-events.md section 3.5.
 *
 * A call is parked on its loop; it costs memory only. When something was applied, and at most every
 * POOL_EVENT_BATCH_MS, a round looks at all that are parked. Who asks the same (what is watched,
 * from where, in which encoding) gets the same text, made once in the round. After a look that
 * found nothing a call stands where the view was, so those that watch the same come to stand at the
 * same place. A round is cut into slices, and so is a long answer, so that a loop with many readers
 * still does its other work; a client that does not read has a queue of its own and holds nobody.
 * Calls of one session have no limit of their own, connections have: ending the oldest of too many
 * would make clients that ask again at once chase each other.
 *
 * A token carries epoch and log index, so it may be used on another member: an index that is ahead
 * of this member waits until it has been applied.
 */
#include "db/plane.h"
#include "pool/event_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What came of a look at a call. LOOK_MORE: its answer is being made, look again soon. */
enum looked { LOOK_WAITS, LOOK_ENDS, LOOK_MORE };

/* What a loop knows of its round. */
struct event_round {
	struct call *next; /* to be looked at; NULL: no round is under way */
	bool again;	   /* something was applied, or parked, since it began */
	uint64_t began_ms;
	struct event_answer answers[EVENT_ANSWERS_MAX]; /* in a ring */
	unsigned n_answers;
	struct event_texts texts;
};

static void answer_forget(struct pool *pool, struct event_answer *a)
{
	if (a->of.watch == NULL)
		return;
	pthread_mutex_lock(&pool->events->mutex);
	event_watch_drop(pool->events, a->of.watch);
	pthread_mutex_unlock(&pool->events->mutex);
	event_answer_fini(a);
	*a = (struct event_answer){ 0 };
}

static void round_forget(struct pool_loop *io)
{
	for (unsigned i = 0; i < EVENT_ANSWERS_MAX; i++)
		answer_forget(io->pool, &io->round->answers[i]);
	event_texts_fini(&io->round->texts);
}

static bool same_question(const struct event_question *a, const struct event_question *b)
{
	return a->watch == b->watch && a->from.index == b->from.index &&
	       a->from.numbers == b->from.numbers && a->from.first == b->from.first &&
	       a->json == b->json && a->old == b->old;
}

/* The place of the next answer in the ring, empty. */
static struct event_answer *answer_place(struct pool_loop *io)
{
	struct event_answer *a = &io->round->answers[io->round->n_answers++ % EVENT_ANSWERS_MAX];

	answer_forget(io->pool, a);
	return a;
}

static void answer_keep(struct pool *pool, struct event_answer *a)
{
	pthread_mutex_lock(&pool->events->mutex);
	event_watch_share(a->of.watch);
	pthread_mutex_unlock(&pool->events->mutex);
}

static struct event_answer *answer_find(struct pool_loop *io, const struct event_question *q)
{
	for (unsigned i = 0; i < EVENT_ANSWERS_MAX; i++)
		if (io->round->answers[i].of.watch != NULL &&
			same_question(&io->round->answers[i].of, q))
			return &io->round->answers[i];
	return NULL;
}

static void making_forget(struct event_wait *w)
{
	event_answer_fini(&w->making);
	w->making = (struct event_answer){ 0 };
}

/* The answer to its question, or NULL after a piece more of it. */
static struct event_answer *answer_for(struct call *call)
{
	struct pool_loop *io = call->io;
	struct event_wait *w = call->event;
	struct event_answer *a = answer_find(io, &w->question);

	if (a != NULL)
		return a;
	if (w->making.of.watch != NULL && !same_question(&w->making.of, &w->question))
		making_forget(w);
	if (w->making.of.watch == NULL) {
		event_answer_begin(
			&w->question, io->pool->db, env_wall_s(io->pool->env), &w->making);
		COUNT(io->pool->env, events_answers);
	}
	if (!event_answer_more(
		    &w->making, &io->pool->events->tokens, &io->round->texts, EVENT_PIECE_BYTES))
		return NULL;
	a = answer_place(io);
	*a = w->making;
	w->making = (struct event_answer){ 0 };
	answer_keep(io->pool, a);
	return a;
}

/* This member has not applied yet what the client has seen. */
static enum looked look_behind(struct call *call, const struct db_view *view, bool last)
{
	struct event_answer *a;

	if (!last)
		return LOOK_WAITS;
	a = answer_place(call->io);
	event_answer_behind(&call->event->question, view, call->event->token, a);
	answer_keep(call->pool, a);
	call->result = val_encoded((const char *)a->text.data, a->text.len);
	return LOOK_ENDS;
}

/* LOOK_ENDS: the call has its answer, which lives until the next look, or its error. */
static enum looked look(struct call *call, const struct db_view *view, bool last)
{
	struct event_wait *w = call->event;
	struct event_answer *a;

	loop_assert(call->io->loop);
	if (db_view_index(view) < w->question.from.index)
		return look_behind(call, view, last);
	if (!session_lives(call, view)) {
		err_set(&call->err, ERR_SESSION_INVALID, session_given(call), NULL);
		return LOOK_ENDS;
	}
	if (w->question.old && !event_next_prepare(call, &call->err))
		return LOOK_ENDS;
	a = answer_for(call);
	if (a == NULL)
		return LOOK_MORE;
	if (w->question.old)
		event_next_told(call, a);
	if (a->lost) {
		err_set(&call->err, ERR_EVENTS_LOST, NULL);
		return LOOK_ENDS;
	}
	if (a->n == 0 && !last) {
		w->question.from = a->to;
		return LOOK_WAITS;
	}
	call->result = val_encoded((const char *)a->text.data, a->text.len);
	return LOOK_ENDS;
}

void event_unpark(struct call *call)
{
	struct event_wait *w = call->event;

	loop_assert(call->io->loop);
	if (call->io->round->next == call)
		call->io->round->next = w->next;
	*w->at = w->next;
	if (w->next != NULL)
		w->next->event->at = w->at;
	counter_add(&call->pool->env->counters, COUNTER_events_parked_now, -1);
	loop_timer_stop(&call->timer);
	making_forget(w);
	pthread_mutex_lock(&call->pool->events->mutex);
	event_watch_drop(call->pool->events, w->question.watch);
	pthread_mutex_unlock(&call->pool->events->mutex);
	call->event = NULL;
}

static void on_timeout(struct loop_timer *t);

static void answer_now(struct call *call)
{
	struct pool_loop *io = call->io;
	uint64_t until_ms = env_now_ms(io->pool->env) + EVENT_SLICE_MS;
	enum looked found;
	struct db_view view;

	db_view_pin(io->pool->db, &view);
	do
		found = look(call, &view, true);
	while (found == LOOK_MORE && env_now_ms(io->pool->env) < until_ms);
	db_view_unpin(&view);
	if (found == LOOK_MORE) {
		loop_timer_start(io->loop, &call->timer, 0, on_timeout);
		return;
	}
	event_unpark(call);
	call_finish(call);
	if (io->round->next == NULL)
		round_forget(io);
}

static void on_timeout(struct loop_timer *t)
{
	answer_now(container_of(t, struct call, timer));
}

/* Rounds. */

static void on_batch(struct loop_timer *t);

static void round_slice(struct pool_loop *io)
{
	uint64_t until_ms = env_now_ms(io->pool->env) + EVENT_SLICE_MS;
	size_t bytes = 0;
	struct db_view view;

	db_view_pin(io->pool->db, &view);
	while (io->round->next != NULL && bytes < EVENT_SLICE_BYTES &&
		env_now_ms(io->pool->env) < until_ms) {
		struct call *call = io->round->next;
		enum looked found = look(call, &view, false);

		if (found == LOOK_MORE)
			continue;
		io->round->next = call->event->next;
		if (found == LOOK_WAITS)
			continue;
		bytes += call->err.code == NULL ? call->result.n : 0;
		event_unpark(call);
		call_finish(call);
	}
	db_view_unpin(&view);
}

void events_wake(struct pool_loop *io)
{
	uint64_t now = env_now_ms(io->pool->env), due = io->round->began_ms + POOL_EVENT_BATCH_MS;

	loop_assert(io->loop);
	if (io->round->next != NULL)
		io->round->again = true;
	else if (io->event_waiters != NULL && io->batch.pos == 0)
		loop_timer_start(io->loop, &io->batch, due > now ? due - now : 0, on_batch);
}

static void on_batch(struct loop_timer *t)
{
	struct pool_loop *io = container_of(t, struct pool_loop, batch);

	if (io->round->next == NULL) {
		io->round->began_ms = env_now_ms(io->pool->env);
		io->events_armed = true;
		io->round->next = io->event_waiters;
	}
	round_slice(io);
	if (io->round->next != NULL) {
		loop_timer_start(io->loop, t, 0, on_batch);
		return;
	}
	round_forget(io);
	if (io->round->again) {
		io->round->again = false;
		events_wake(io);
	}
}

/* Parking. */

int event_park(struct call *call, struct event_watch *watch, const struct event_position *from,
	const char *token, uint64_t ms)
{
	struct event_wait *w = arena_alloc(&call->arena, sizeof *w);
	struct pool_loop *io = call->io;

	loop_assert(io->loop);
	*w = (struct event_wait){ .next = io->event_waiters,
		.at = &io->event_waiters,
		.question = { watch, *from, call->message.codec != RPC_XML, token == NULL },
		.token = token };
	call->event = w;
	if (w->next != NULL)
		w->next->event->at = &w->next;
	io->event_waiters = call;
	COUNT(call->pool->env, events_parked_now);
	if (call->request != NULL)
		call->request->waits = true;
	loop_timer_start(io->loop, &call->timer, ms, on_timeout);
	if (ms > 0)
		events_wake(io);
	return CALL_PENDING;
}

static uint64_t span_ms(double seconds)
{
	enum { DAY_MS = 86400000 };

	return !isfinite(seconds) || seconds < 0 || seconds > DAY_MS / 1000
		       ? DAY_MS
		       : (uint64_t)(seconds * 1000);
}

int event_from(struct call *call, const struct event_from_args *args, struct err *err)
{
	struct pool_events *e = call->pool->events;
	struct event_position from;
	struct event_watch *watch;
	int rc = event_token_parse(&e->tokens, args->token, &from, err);

	if (rc != 0)
		return rc;
	if (from.first || from.elsewhere)
		from.numbers = db_plane_changed(call->pool->db, UINT64_MAX, NULL, NULL);
	pthread_mutex_lock(&e->mutex);
	rc = event_watch_make(e, args->classes, NULL, false, &watch, err);
	pthread_mutex_unlock(&e->mutex);
	if (rc != 0)
		return rc;
	if (!from.first || !event_is_much(watch, &call->view))
		return event_park(call, watch, &from, args->token, span_ms(args->timeout));
	rc = event_everything(call, watch, &e->tokens, from.numbers);
	pthread_mutex_lock(&e->mutex);
	event_watch_drop(e, watch);
	pthread_mutex_unlock(&e->mutex);
	return rc;
}

/* The touch has been applied at this index. */
static void injected(struct call *call)
{
	char token[EVENT_TOKEN_LEN + 1];

	event_token_before(&call->pool->events->tokens, call->proposal.result.index, token);
	call->result = val_string(arena_strdup(&call->arena, token));
	call_finish(call);
}

int event_inject(struct call *call, const struct event_inject_args *args, struct err *err)
{
	int class_id = model_class_find(args->class_, false);
	struct db_txn txn;
	unsigned k;

	if (class_id < 0 || model_classes[class_id].table == MODEL_TABLE_INTERNAL ||
		db_view_get(&call->view, class_id, args->ref) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, args->class_, args->ref, NULL);
	db_txn_init(&txn, DB_FOR_EVENT);
	k = db_txn_need_row(&txn, class_id, args->ref);
	err_set(&call->on_failed[k], ERR_HANDLE_INVALID, args->class_, args->ref, NULL);
	db_txn_touch(&txn, class_id, args->ref);
	return call_write(call, &txn, injected);
}

void events_init(struct pool *pool)
{
	struct pool_events *e = mem_new(sizeof *e);
	uint64_t member[2] = { pool->cfg.db.raft_id, 0 };

	env_random(pool->env, &member[1], sizeof member[1]); /* another one in each life */
	e->tokens =
		event_tokens_of(pool->cfg.db.epoch, pool->cfg.db.epoch_id, member[0] ^ member[1]);
	pthread_mutex_init(&e->mutex, NULL);
	pool->events = e;
	for (unsigned i = 0; i < pool->n_loops; i++)
		pool->loops[i].round = mem_new(sizeof *pool->loops[i].round);
}
