/* What has changed between a position and a view, as the text of an answer; in pieces, for after a
 * long absence that may be the whole database.
 *
 * State based: at most one event for each object, with its record in the view. Hundreds of clients
 * that watch the same get the same text (event.c keeps it for the round); clients that differ in
 * what they watch or in where they are share the text of the records.
 *
 * Order: messages, then what is new, what has changed, what has gone; inside each by index. So
 * nothing is referred to before it has been told of, and nothing goes while it is.
 *
 * The first answer of a client that watches whole classes is all there is: it is not shared, and
 * leaves while it is made (event_first.c).
 */
#include "db/plane.h"
#include "pool/event_priv.h"
#include "rpc/base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct changes {
	struct event_change *items;
	size_t n, cap;
};

static void put(struct changes *c, struct event_change what)
{
	if (c->n == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 64;
		c->items = mem_resize(c->items, c->cap * sizeof *c->items);
	}
	c->items[c->n++] = what;
}

static void put_row(struct changes *c, const struct event_position *from, const struct db_row *row)
{
	bool added = from->first || db_row_created(row) > from->index;

	if (from->first || db_row_modified(row) > from->index)
		put(c, (struct event_change){ added ? EVENT_ADD : EVENT_MOD, db_row_modified(row),
			       db_row_class(row), row, db_row_ref(row) });
}

static bool watches(const struct event_watch *w, int class_id)
{
	for (unsigned i = 0; i < w->n_objects; i++)
		if (w->objects[i].class_id == class_id)
			return true;
	return w->classes[class_id];
}

static void collect_class(const struct event_question *q, const struct db_view *view, int class_id,
	struct changes *out)
{
	struct db_cursor c = db_rows_modified(view, class_id, q->from.index);
	const struct db_row *row;
	struct db_gone gone;

	while (q->watch->classes[class_id] && (row = db_next(&c)) != NULL)
		put_row(out, &q->from, row);
	if (q->from.first)
		return;
	c = db_deleted(view, class_id, q->from.index);
	while (db_next_deleted(&c, &gone))
		if (gone.created <= q->from.index &&
			event_watch_wants(q->watch, class_id, gone.ref))
			put(out, (struct event_change){
					 EVENT_DEL, gone.deleted, class_id, NULL, gone.ref });
}

/* Numbers over rows that are no news by themselves: told as changed now. */
struct numbers {
	const struct event_question *q;
	const struct db_view *view;
	struct changes *out;
};

static void on_number(void *arg, int class_id, const char *ref)
{
	struct numbers *n = arg;
	const struct db_row *row =
		!n->q->from.first && event_watch_wants(n->q->watch, class_id, ref)
			? db_view_get(n->view, class_id, ref)
			: NULL;

	if (row != NULL && db_row_modified(row) <= n->q->from.index)
		put(n->out, (struct event_change){ EVENT_MOD, db_view_index(n->view), class_id, row,
				    db_row_ref(row) });
}

/* false: what was deleted since is not known any more. */
static bool collect(const struct event_question *q, const struct db_view *view, struct changes *out)
{
	const struct db_row *row;

	for (int i = 0; i < MODEL_CLASS_COUNT; i++) {
		if (!watches(q->watch, i))
			continue;
		if (!q->from.first && q->from.index < db_view_horizon(view, i))
			return false;
		collect_class(q, view, i, out);
	}
	for (unsigned i = 0; i < q->watch->n_objects; i++) {
		const struct event_object *o = &q->watch->objects[i];

		row = db_view_get(view, o->class_id, o->ref);
		if (row != NULL)
			put_row(out, &q->from, row);
	}
	return true;
}

static int rank(const struct event_change *c)
{
	return c->class_id == MODEL_CLASS_message ? -1 : (int)c->kind;
}

static int in_order(const void *a, const void *b)
{
	const struct event_change *x = a, *y = b;
	int i = rank(x), k = rank(y);

	return i != k		      ? i - k
	       : x->index != y->index ? (x->index > y->index) - (x->index < y->index)
				      : strcmp(x->ref, y->ref);
}

/* Texts of records. */

struct event_text {
	struct event_text *next;
	uint64_t modified, numbers;
	int class_id;
	bool json;
	char ref[DB_REF_MAX + 1];
	struct buf bytes;
};

static enum rpc_codec codec(bool json)
{
	return json ? RPC_JSON2 : RPC_XML;
}

static struct event_text *text_of(struct event_texts *texts, const struct db_view *view,
	const struct db_row *row, bool json, uint64_t numbers)
{
	struct event_text **at, *t;

	if (!model_classes[db_row_class(row)].has_volatile)
		numbers = 0;
	at = &texts->buckets[hash_text(db_row_ref(row)) % EVENT_TEXT_BUCKETS];
	for (t = *at; t != NULL; t = t->next)
		if (t->modified == db_row_modified(row) && t->numbers == numbers &&
			t->json == json && t->class_id == db_row_class(row) &&
			strcmp(t->ref, db_row_ref(row)) == 0)
			return t;
	t = mem_new(sizeof *t);
	t->modified = db_row_modified(row);
	t->numbers = numbers;
	t->class_id = db_row_class(row);
	t->json = json;
	strcpy(t->ref, db_row_ref(row));
	pool_record(view, row, codec(json), &t->bytes);
	t->next = *at;
	*at = t;
	texts->bytes += t->bytes.cap + sizeof *t;
	return t;
}

void event_texts_fini(struct event_texts *t)
{
	for (unsigned i = 0; t->bytes > 0 && i < EVENT_TEXT_BUCKETS; i++)
		while (t->buckets[i] != NULL) {
			struct event_text *first = t->buckets[i];

			t->buckets[i] = first->next;
			buf_fini(&first->bytes);
			free(first);
		}
	t->bytes = 0;
}

/* The answer. */

static void put_text(struct rpc_map *m, const char *name, const char *text)
{
	struct val v = val_string(text);

	rpc_map_name(m, name);
	rpc_value(m->out, m->codec, &v);
}

void event_open(struct rpc_map *m, struct rpc_map *events, const struct event_change *c,
	const char *timestamp)
{
	static const char *const names[] = { "add", "mod", "del" };
	char id[24];

	snprintf(id, sizeof id, "%" PRIu64, c->index);
	rpc_list_next(events);
	rpc_map_open(m, events->out, events->codec);
	put_text(m, "id", id);
	put_text(m, "timestamp", timestamp);
	put_text(m, "class", model_classes[c->class_id].lower);
	put_text(m, "operation", names[c->kind]);
	put_text(m, "ref", c->ref);
	if (c->row != NULL)
		rpc_map_name(m, "snapshot");
}

static struct val counts(struct arena *a, const struct db_view *view)
{
	struct val v = val_map(), n;

	for (int i = 0; i < MODEL_CLASS_COUNT; i++) {
		if (model_classes[i].table == MODEL_TABLE_INTERNAL ||
			model_classes[i].table == MODEL_TABLE_NONE)
			continue;
		n = val_int((int64_t)db_view_count(view, i));
		n.kind = VAL_INT32;
		val_map_push(a, &v, model_classes[i].lower, n);
	}
	return v;
}

void event_writer_open(struct event_writer *w, bool old, enum rpc_codec codec, struct buf *out)
{
	w->old = old;
	if (!old) {
		rpc_map_open(&w->whole, out, codec);
		rpc_map_name(&w->whole, "events");
	}
	rpc_list_open(&w->events, out, codec);
}

void event_writer_close(struct event_writer *w, const struct db_view *view, const char *token)
{
	struct arena a;
	struct val v;

	rpc_list_close(&w->events);
	if (w->old)
		return;
	arena_init(&a);
	v = counts(&a, view);
	rpc_map_name(&w->whole, "valid_ref_counts");
	rpc_value(w->whole.out, w->whole.codec, &v);
	put_text(&w->whole, "token", token);
	rpc_map_close(&w->whole);
	arena_fini(&a);
}

/* An answer that is being made, of one view. */
struct event_making {
	struct db_view view;
	struct changes changes;
	size_t next; /* of them */
	char timestamp[24];
	struct event_writer writer;
};

void event_answer_begin(
	const struct event_question *q, struct db *db, int64_t now_s, struct event_answer *out)
{
	struct event_making *m = mem_new(sizeof *m);
	struct numbers numbers = { q, &m->view, &m->changes };

	*m = (struct event_making){ .timestamp = "0.0" };
	db_view_pin(db, &m->view);
	CHECK(q->from.first || q->from.index <= db_view_index(&m->view));
	*out = (struct event_answer){ .of = *q, .making = m };
	out->to.index = db_view_index(&m->view);
	out->to.numbers = db_plane_changed(db, q->from.numbers, on_number, &numbers);
	out->lost = !collect(q, &m->view, &m->changes);
	if (out->lost)
		return;
	if (m->changes.n > 0)
		qsort(m->changes.items, m->changes.n, sizeof *m->changes.items, in_order);
	if (q->old)
		snprintf(m->timestamp, sizeof m->timestamp, "%" PRId64 ".0", now_s);
	event_writer_open(&m->writer, q->old, codec(q->json), &out->text);
	out->n = (unsigned)m->changes.n;
}

static void making_free(struct event_answer *a)
{
	if (a->making == NULL)
		return;
	db_view_unpin(&a->making->view);
	free(a->making->changes.items);
	free(a->making);
	a->making = NULL;
}

static void put_change(
	struct event_answer *a, const struct event_change *c, struct event_texts *texts)
{
	const struct event_text *record;
	struct rpc_map m;

	event_open(&m, &a->making->writer.events, c, a->making->timestamp);
	if (c->row != NULL) {
		record = text_of(texts, &a->making->view, c->row, a->of.json, a->to.numbers);
		buf_put(&a->text, record->bytes.data, record->bytes.len);
	}
	rpc_map_close(&m);
}

bool event_answer_more(struct event_answer *a, const struct event_tokens *tokens,
	struct event_texts *texts, size_t bytes)
{
	struct event_making *m = a->making;
	size_t until = a->text.len + bytes;
	char token[EVENT_TOKEN_LEN + 1];

	if (!a->lost) {
		if (texts->bytes > EVENT_TEXTS_MAX)
			event_texts_fini(texts);
		while (m->next < m->changes.n && a->text.len < until)
			put_change(a, &m->changes.items[m->next++], texts);
		if (m->next < m->changes.n)
			return false;
		event_token_print(tokens, &a->to, token);
		event_writer_close(&m->writer, &m->view, token);
	}
	making_free(a);
	return true;
}

void event_answer_behind(const struct event_question *q, const struct db_view *view,
	const char *token, struct event_answer *out)
{
	struct event_writer w;

	*out = (struct event_answer){ .of = *q, .to = q->from };
	event_writer_open(&w, q->old, codec(q->json), &out->text);
	event_writer_close(&w, view, token);
}

void event_answer_fini(struct event_answer *a)
{
	making_free(a);
	buf_fini(&a->text);
}
