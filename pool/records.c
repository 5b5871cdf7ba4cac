/* Results that are many records, or events, as text, and long ones piece by piece.
 *
 * A result that fits one piece is a result like any other. A longer one is an answer that begins
 * (rpc_reply_chunked) before it ends: from the call's view, which stays pinned, a piece is made
 * when the one before has left, one piece in a turn of the loop, those who read in turn. So a
 * client costs a piece of memory, and a loop's turn stays short.
 *
 *   records_answer_by -> [waits for a place ->] call_finish -> records_send -> SENT <-> READY ->
 * end
 *
 * Views are for moments: a client that is slower than POOL_HOLD_MS, or whose view is
 * POOL_HOLD_ENTRIES behind, gets the rest made at once, still a piece a turn, and that waits for it
 * like any other answer (RPC_UNREAD_MAX). At most POOL_LONG_MAX calls of a loop have a view;
 * others wait without one, and are run when a place is free.
 */
#include "pool/pool_priv.h"

enum {
	PIECE = 256 << 10, /* bytes */
	SHORT = 32 << 10,  /* made without a place */
	PIECE_US = 3000,   /* or what takes so long: a filter may select nothing */
	LOOK_ROWS = 32,	   /* rows between two looks at the clock */
	TICK_MS = 200,	   /* between two looks at how old the view is */
};

enum state { NONE, WAITS, GIVEN, READY, SENT };

struct records {
	bool (*put)(struct call *call, void *arg);
	void *arg;
	uint64_t began_ms;
	enum state state;
	bool over, hurried; /* all is encoded; the client does not matter any more */
};

/* Of records: the text is a map of them. */
struct rows {
	struct rpc_map map;
	bool begun;
	struct db_cursor cursor;
	const struct filter *filter;	   /* NULL: all */
	const struct db_row *const *items; /* instead of the cursor, from the end */
	uint64_t n;
};

static const struct db_row *next_row(struct rows *r)
{
	if (r->items != NULL)
		return r->n > 0 ? r->items[--r->n] : NULL;
	return db_next(&r->cursor);
}

static bool put_row(struct call *call, void *arg)
{
	struct rows *r = arg;
	const struct db_row *row;

	if (!r->begun)
		rpc_map_open(&r->map, &call->text, call->message.codec);
	r->begun = true;
	row = next_row(r);
	if (row == NULL) {
		rpc_map_close(&r->map);
		return false;
	}
	if (r->filter != NULL && !filter_matches(r->filter, &call->view, row))
		return true;
	rpc_map_name(&r->map, db_row_ref(row));
	pool_record(&call->view, row, r->map.codec, &call->text);
	return true;
}

static void encode(struct call *call, size_t max)
{
	struct env *env = call->pool->env;
	struct records *r = call->records;
	uint64_t until_us = env_now_us(env) + PIECE_US;

	for (unsigned n = 1; call->text.len < max; n++) {
		if (n % LOOK_ROWS == 0 && env_now_us(env) >= until_us)
			return;
		if (!r->put(call, r->arg)) {
			r->over = true;
			return;
		}
	}
}

static void queue_put(struct call **at, struct call *call)
{
	while (*at != NULL)
		at = &(*at)->next_waiter;
	call->next_waiter = NULL;
	*at = call;
}

static struct call *queue_take(struct call **at)
{
	struct call *call = *at;

	if (call != NULL)
		*at = call->next_waiter;
	return call;
}

static void queue_drop(struct call **at, struct call *call)
{
	while (*at != call)
		at = &(*at)->next_waiter;
	*at = call->next_waiter;
}

/* Places. */

static void on_place(struct loop_call *posted)
{
	struct call *call = container_of(posted, struct call, posted);

	call->records = NULL;
	if (call->request != NULL)
		call_begin(call);
	else
		call_drop(call);
}

void records_place_free(struct call *call)
{
	struct call *next;

	loop_assert(call->io->loop);
	if (!call->place)
		return;
	call->place = false;
	call->io->n_long--;
	next = queue_take(&call->io->long_waiters);
	if (next == NULL)
		return;
	next->io->n_long++;
	next->place = true;
	next->records->state = GIVEN;
	loop_post(next->io->loop, &next->posted, on_place);
}

int records_answer_by(struct call *call, bool (*put)(struct call *call, void *arg), void *arg)
{
	struct records *r = arena_alloc(&call->arena, sizeof *r);
	bool whole = call->within != NULL || call->async, may_be_long;

	loop_assert(call->io->loop);
	if (!whole && call->request == NULL)
		return 0; /* nobody will see it */
	may_be_long = whole || call->place || call->io->n_long < POOL_LONG_MAX;
	*r = (struct records){ .put = put, .arg = arg };
	call->records = r;
	call->text.len = 0;
	do
		encode(call, may_be_long ? PIECE : SHORT);
	while (whole && !r->over);
	if (r->over) {
		call->records = NULL;
		call->result = val_encoded((const char *)call->text.data, call->text.len);
		return 0;
	}
	if (!may_be_long) {
		buf_fini(&call->text);
		r->state = WAITS;
		queue_put(&call->io->long_waiters, call);
		return CALL_PENDING;
	}
	if (!call->place)
		call->io->n_long++;
	call->place = true;
	return 0;
}

int records_answer(struct call *call, struct db_cursor rows, const struct filter *filter)
{
	struct rows *r = arena_alloc(&call->arena, sizeof *r);

	*r = (struct rows){ .cursor = rows, .filter = filter };
	return records_answer_by(call, put_row, r);
}

int records_answer_list(struct call *call, const struct db_row *const *rows, uint64_t n)
{
	struct rows *r = arena_alloc(&call->arena, sizeof *r);

	*r = (struct rows){ .items = rows, .n = n };
	return records_answer_by(call, put_row, r);
}

/* Sending. */

static void on_turn(struct loop_call *posted);

static void ready(struct call *call)
{
	call->records->state = READY;
	queue_put(&call->io->long_ready, call);
	loop_post(call->io->loop, &call->io->long_turn, on_turn);
}

static void put_piece(struct call *call)
{
	struct records *r = call->records;

	if (r->over)
		rpc_reply_close(&call->text, &call->message);
	rpc_reply_put(call->request, call->text.data, call->text.len);
	call->text.len = 0;
	if (r->over) {
		rpc_reply_end(call->request);
		call_drop(call);
	} else if (r->hurried) {
		ready(call);
	} else {
		r->state = SENT;
	}
}

static void on_turn(struct loop_call *posted)
{
	struct pool_loop *io = container_of(posted, struct pool_loop, long_turn);
	struct call *call = queue_take(&io->long_ready);

	loop_assert(io->loop);
	if (call != NULL) {
		encode(call, PIECE);
		put_piece(call);
	}
	if (io->long_ready != NULL)
		loop_post(io->loop, &io->long_turn, on_turn);
}

static void on_drained(struct rpc_request *request, void *arg)
{
	struct call *call = arg;

	(void)request;
	if (call->records->state == SENT)
		ready(call);
}

/* Time is over for the view: no piece waits for the client from here on. */
static bool held_too_long(const struct call *call)
{
	struct db_view now;
	uint64_t index;

	db_view_pin(call->pool->db, &now);
	index = db_view_index(&now);
	db_view_unpin(&now);
	return env_now_ms(call->pool->env) - call->records->began_ms >= POOL_HOLD_MS ||
	       index - db_view_index(&call->view) >= POOL_HOLD_ENTRIES;
}

static void on_tick(struct loop_timer *t)
{
	struct call *call = container_of(t, struct call, timer);
	struct records *r = call->records;

	if (!held_too_long(call)) {
		loop_timer_start(call->io->loop, t, TICK_MS, on_tick);
		return;
	}
	COUNT(call->pool->env, answers_hurried);
	r->hurried = true;
	if (r->state == SENT)
		ready(call);
}

void records_send(struct call *call)
{
	struct buf before = { 0 };

	COUNT(call->pool->env, answers_long);
	call->records->began_ms = env_now_ms(call->pool->env);
	call->request->drained = on_drained;
	rpc_reply_open(&before, &call->message);
	rpc_reply_put(call->request, before.data, before.len);
	buf_fini(&before);
	loop_timer_start(call->io->loop, &call->timer, TICK_MS, on_tick);
	put_piece(call);
}

void records_gone(struct call *call)
{
	switch (call->records->state) {
	case NONE:
	case GIVEN: return; /* whoever goes on with it sees that nobody listens */
	case WAITS: queue_drop(&call->io->long_waiters, call); break;
	case READY: queue_drop(&call->io->long_ready, call); break;
	case SENT: break;
	}
	call_drop(call);
}
