/* event.from and event.inject: changes in commit order, on any member. tasks-events.md section 3.5.
 *
 * State based: the answer is the difference between the token's index and a view, at most one event
 * per object, with its snapshot in that view. A token carries epoch and log index, so it may be
 * used on another member: an index that is ahead of this member waits until it has been applied. A
 * waiting call is parked on its loop; it costs memory only.
 */
#include "pool/pool_priv.h"
#include "rpc/base/hash.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUBSCRIPTIONS_MAX = 256, DAY_MS = 86400000 };
#define EPOCH_STEP UINT64_C(10000000000000000) /* 10^16 */

struct subscription {
	int class_id; /* -1: all; -2: unknown, matches nothing */
	const char *ref;
};

struct event_wait {
	struct subscription subs[SUBSCRIPTIONS_MAX];
	unsigned n;
	uint64_t index; /* of the token */
	bool first;	/* the empty token: everything as add */
	uint64_t until_ms;
};

struct change_row {
	uint64_t index;
	const struct db_row *row; /* NULL: deleted */
	int class_id;
	const char *op, *ref;
};

struct changes {
	struct change_row *items;
	size_t n, cap;
};

static int parse_subscription(
	struct call *call, const char *text, struct subscription *out, struct err *err)
{
	const char *slash = strchr(text, '/');
	char *class = arena_strndup(
		&call->arena, text, slash != NULL ? (size_t)(slash - text) : strlen(text));

	*out = (struct subscription){ .class_id = -1 };
	if (slash != NULL && strchr(slash + 1, '/') != NULL)
		return err_set(err, ERR_EVENT_SUBSCRIPTION_PARSE_FAILURE, text, NULL);
	if (slash != NULL)
		out->ref = arena_strdup(&call->arena, slash + 1);
	if (strcmp(class, "*") == 0)
		return 0;
	out->class_id = model_class_find(class, true);
	if (out->class_id < 0 || model_classes[out->class_id].table == MODEL_TABLE_INTERNAL)
		out->class_id = -2;
	return 0;
}

static bool token_number(const char *s, uint64_t *out)
{
	char digits[21];

	for (int i = 0; i < 20; i++)
		if (!isdigit((unsigned char)s[i]))
			return false;
	memcpy(digits, s, 20);
	digits[20] = 0;
	*out = strtoull(digits, NULL, 10);
	return true;
}

static int parse_token(struct call *call, const char *token, struct event_wait *w, struct err *err)
{
	uint64_t position, tags;

	if (*token == 0) {
		w->first = true;
		return 0;
	}
	if (strlen(token) != 41 || token[20] != ',' || !token_number(token, &position) ||
		!token_number(token + 21, &tags))
		return err_set(err, ERR_EVENT_FROM_TOKEN_PARSE_FAILURE, token, NULL);
	if (position / EPOCH_STEP != call->pool->cfg.db.epoch)
		return err_set(err, ERR_EVENTS_LOST, NULL);
	w->index = position % EPOCH_STEP;
	return 0;
}

static const char *token_at(struct call *call, uint64_t index)
{
	uint64_t epoch = call->pool->cfg.db.epoch;

	/* epoch tag, tag of this member, volatile counter: there are no volatile changes yet */
	return arena_printf(&call->arena, "%020" PRIu64 ",%04u%04u%012u",
		epoch * EPOCH_STEP + index, (unsigned)(epoch % 9999),
		(unsigned)(hash_text(call->pool->host_uuid) % 9999), 0);
}

static bool wants(const struct event_wait *w, int class_id, const char *ref)
{
	for (unsigned i = 0; i < w->n; i++) {
		const struct subscription *s = &w->subs[i];

		if ((s->class_id == -1 || s->class_id == class_id) &&
			(s->ref == NULL || ref == NULL || strcmp(s->ref, ref) == 0))
			return true;
	}
	return false;
}

static void add_change(struct changes *c, struct change_row row)
{
	if (c->n == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 64;
		c->items = mem_resize(c->items, c->cap * sizeof *c->items);
	}
	c->items[c->n++] = row;
}

static void collect_class(
	const struct db_view *view, const struct event_wait *w, int class_id, struct changes *out)
{
	struct db_cursor c = db_rows_modified(view, class_id, w->first ? 0 : w->index);
	const struct db_row *row;
	struct db_gone gone;

	while ((row = db_next(&c)) != NULL) {
		bool added = w->first || db_row_created(row) > w->index;

		if (wants(w, class_id, db_row_ref(row)))
			add_change(out, (struct change_row){ db_row_modified(row), row, class_id,
						added ? "add" : "mod", db_row_ref(row) });
	}
	if (w->first)
		return;
	c = db_deleted(view, class_id, w->index);
	while (db_next_deleted(&c, &gone))
		if (gone.created <= w->index && wants(w, class_id, gone.ref))
			add_change(out, (struct change_row){
						gone.deleted, NULL, class_id, "del", gone.ref });
}

static int in_order(const void *a, const void *b)
{
	const struct change_row *x = a, *y = b;

	return x->index != y->index ? (x->index > y->index) - (x->index < y->index)
				    : strcmp(x->ref, y->ref);
}

static struct val event_of(
	struct call *call, const struct db_view *view, const struct change_row *c)
{
	struct arena *a = &call->arena;
	struct val e = val_map();

	val_map_push(a, &e, "id", val_string(arena_printf(a, "%" PRIu64, c->index)));
	val_map_push(a, &e, "timestamp", val_string("0.0"));
	val_map_push(a, &e, "class", val_string(model_classes[c->class_id].lower));
	val_map_push(a, &e, "operation", val_string(c->op));
	val_map_push(a, &e, "ref", val_string(arena_strdup(a, c->ref)));
	if (c->row != NULL) {
		/* records point into rows; the answer is encoded after the view has gone */
		struct val record = pool_record(view, c->row, a);

		val_map_push(a, &e, "snapshot", val_dup(a, &record));
	}
	return e;
}

static struct val counts(struct call *call, const struct db_view *view)
{
	struct val v = val_map(), n;

	for (int i = 0; i < MODEL_CLASS_COUNT; i++) {
		if (model_classes[i].table == MODEL_TABLE_INTERNAL ||
			model_classes[i].table == MODEL_TABLE_NONE)
			continue;
		n = val_int((int64_t)db_view_count(view, i));
		n.kind = VAL_INT32;
		val_map_push(&call->arena, &v, model_classes[i].lower, n);
	}
	return v;
}

static void answer(struct call *call, const struct db_view *view, const struct changes *c)
{
	struct val events = val_set();

	for (size_t i = 0; i < c->n; i++)
		val_set_push(&call->arena, &events, event_of(call, view, &c->items[i]));
	call->result = val_map();
	val_map_push(&call->arena, &call->result, "events", events);
	val_map_push(&call->arena, &call->result, "token",
		val_string(token_at(call, db_view_index(view))));
	val_map_push(&call->arena, &call->result, "valid_ref_counts", counts(call, view));
}

/* true: the call has its answer or error. */
static bool look(struct call *call, bool last)
{
	struct event_wait *w = call->event;
	struct changes c = { 0 };
	struct db_view view;
	bool done = last;

	loop_assert(call->io->loop);
	db_view_pin(call->pool->db, &view);
	if (db_view_get(&view, MODEL_CLASS_session, call->caller.session) == NULL &&
		db_view_index(&view) >= w->index) {
		err_set(&call->err, ERR_SESSION_INVALID, call->caller.session, NULL);
		db_view_unpin(&view);
		return true;
	}
	for (int i = 0; i < MODEL_CLASS_COUNT && call->err.code == NULL; i++) {
		if (!model_classes[i].events || model_classes[i].table == MODEL_TABLE_INTERNAL ||
			!wants(w, i, NULL))
			continue;
		if (!w->first && w->index < db_view_horizon(&view, i))
			err_set(&call->err, ERR_EVENTS_LOST, NULL);
		else
			collect_class(&view, w, i, &c);
	}
	done |= call->err.code != NULL || c.n > 0;
	if (done && call->err.code == NULL) {
		if (c.n > 0)
			qsort(c.items, c.n, sizeof *c.items, in_order);
		if (db_view_index(&view) <
			w->index) { /* the time is over before this member has caught up */
			c.n = 0;
			answer(call, &view, &c);
			for (uint32_t i = 0; i < call->result.n; i++)
				if (strcmp(call->result.pairs[i].key, "token") == 0)
					call->result.pairs[i].value =
						val_string(token_at(call, w->index));
		} else {
			answer(call, &view, &c);
		}
	}
	free(c.items);
	db_view_unpin(&view);
	return done;
}

void event_unpark(struct call *call)
{
	struct call **at = &call->io->event_waiters;

	loop_assert(call->io->loop);
	while (*at != NULL && *at != call)
		at = &(*at)->next_waiter;
	if (*at == call) {
		*at = call->next_waiter;
		counter_add(&call->pool->env->counters, COUNTER_events_parked_now, -1);
	}
	loop_timer_stop(&call->timer);
}

static void on_timeout(struct loop_timer *t)
{
	struct call *call = container_of(t, struct call, timer);

	event_unpark(call);
	look(call, true);
	call_finish(call);
}

void events_look(struct pool_loop *io)
{
	struct call *next;

	loop_assert(io->loop);
	for (struct call *call = io->event_waiters; call != NULL; call = next) {
		next = call->next_waiter;
		if (!look(call, false))
			continue;
		event_unpark(call);
		call_finish(call);
	}
}

int event_from(struct call *call, const struct event_from_args *args, struct err *err)
{
	struct event_wait *w = arena_alloc(&call->arena, sizeof *w);
	double seconds = args->timeout;
	uint64_t ms = !isfinite(seconds) || seconds < 0 || seconds > 86400
			      ? DAY_MS
			      : (uint64_t)(seconds * 1000);

	if (args->classes->n > SUBSCRIPTIONS_MAX)
		return err_set(err, ERR_EVENT_SUBSCRIPTION_PARSE_FAILURE,
			"more than 256 subscriptions", NULL);
	for (uint32_t i = 0; i < args->classes->n; i++)
		if (parse_subscription(call, args->classes->items[i].s, &w->subs[w->n++], err) != 0)
			return ERR_API;
	if (parse_token(call, args->token, w, err) != 0)
		return ERR_API;
	call->event = w;
	if (look(call, ms == 0)) {
		call->event = NULL; /* not parked */
		return call->err.code != NULL ? ERR_API : 0;
	}
	call->next_waiter = call->io->event_waiters;
	call->io->event_waiters = call;
	COUNT(call->pool->env, events_parked_now);
	if (call->request != NULL)
		call->request->waits = true;
	loop_timer_start(call->io->loop, &call->timer, ms, on_timeout);
	return CALL_PENDING;
}

/* The touch has been applied at this index: one below it is smaller than every token that has seen
 * it. */
static void injected(struct call *call)
{
	call->result = val_string(arena_printf(&call->arena, "%020" PRIu64 ",99999999999999999999",
		call->pool->cfg.db.epoch * EPOCH_STEP + call->proposal.result.index - 1));
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
