/* Pinning, publishing, reclaiming; reading rows; walks. See view.h and state_priv.h.
 *
 * A reader stores the epoch in a slot, then loads the root; the writer stores the root, then raises
 * the epoch, then looks at the slots. So either the writer sees the slot, or the reader has seen
 * the new root: what an edit replaced in epoch e is freed when no slot holds an epoch <= e. The
 * writer looks at as many slots as were ever used; a reader raises that number before it stores, so
 * the same holds when the writer has not seen it raised.
 */
#include "db/snapshot_priv.h"
#include "rpc/base/hash.h"

#include <endian.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { PINS_APART = 64 / sizeof(uint64_t), LINES = 32 };

void db__views_init(struct views *v)
{
	memset(v, 0, sizeof *v);
	v->epoch = 1;
	v->schema_max = MODEL_SCHEMA_VERSION;
	v->reclaim.last = &v->reclaim.first;
}

static struct garbage *garbage_now(struct reclaim *r)
{
	if (r->now == NULL)
		r->now = mem_new(sizeof *r->now);
	return r->now;
}

void reclaim_later(struct reclaim *r, const void *p)
{
	struct garbage *g = garbage_now(r);

	if (g->n == g->cap) {
		g->cap = g->cap ? 2 * g->cap : 64;
		g->p = mem_resize(g->p, g->cap * sizeof *g->p);
	}
	g->p[g->n++] = p;
}

static void garbage_free(struct garbage *g)
{
	if (g->whole != NULL)
		db__state_free(g->whole);
	for (size_t i = 0; i < g->n; i++)
		free((void *)g->p[i]);
	free(g->p);
	free(g);
}

static void bury(struct views *v, struct garbage *g)
{
	g->next = v->dead;
	while (!atomic_compare_exchange_weak(&v->dead, &g->next, g))
		;
}

void db__views_sweep(struct views *v)
{
	struct garbage *g = atomic_exchange(&v->dead, NULL);

	while (g != NULL) {
		struct garbage *next = g->next;

		garbage_free(g);
		g = next;
	}
}

static void collect(struct views *v)
{
	uint64_t oldest = UINT64_MAX;
	unsigned used = v->pins_used;

	for (unsigned i = 0; i < used; i++) {
		uint64_t e = v->pins[i];

		if (e != 0 && e < oldest)
			oldest = e;
	}
	while (v->reclaim.first != NULL && v->reclaim.first->epoch < oldest) {
		struct garbage *g = v->reclaim.first;

		v->reclaim.first = g->next;
		if (g->next == NULL)
			v->reclaim.last = &v->reclaim.first;
		if (g->whole != NULL)
			bury(v, g);
		else
			garbage_free(g);
	}
}

static void show(struct views *v, const struct db_state *next)
{
	struct garbage *g;

	v->root = next;
	g = v->reclaim.now;
	v->reclaim.now = NULL;
	if (g != NULL) {
		g->epoch = v->epoch;
		*v->reclaim.last = g;
		v->reclaim.last = &g->next;
	}
	v->epoch++;
	collect(v);
}

void db__views_publish(struct views *v, const struct db_state *next)
{
	if (v->root != NULL)
		reclaim_later(&v->reclaim, v->root);
	show(v, next);
}

void db__state_free(const struct db_state *s)
{
	for (int c = 0; c < MODEL_CLASS_COUNT; c++) {
		tree_free(s->classes[c].uuids, false);
		tree_free(s->classes[c].labels, false);
		tree_free(s->classes[c].modified, false);
		tree_free(s->classes[c].rows, true);
		tree_free(s->classes[c].deleted, true);
	}
	for (int i = 0; i < MODEL_RELATION_COUNT; i++)
		tree_free(s->relations[i], false);
	tree_free(s->set_aside, true);
	free((void *)s);
}

void db__reclaim_now(struct reclaim *r)
{
	if (r->now == NULL)
		return;
	garbage_free(r->now);
	r->now = NULL;
}

void db__views_replace(struct views *v, const struct db_state *next)
{
	garbage_now(&v->reclaim)->whole = v->root;
	show(v, next);
}

void db__views_fini(struct views *v)
{
	const struct db_state *s = v->root;

	for (unsigned i = 0; i < DB_PINS_MAX; i++)
		CHECK(v->pins[i] == 0);
	if (v->reclaim.now != NULL)
		garbage_free(v->reclaim.now);
	collect(v);
	db__views_sweep(v);
	if (s == NULL)
		return;
	db__state_free(s);
	v->root = NULL;
}

/* Where a thread looks first: threads made one after the other have cache lines of slots side by
 * side. */
static unsigned first_slot(void)
{
	return (unsigned)((uintptr_t)pthread_self() >> 12) % LINES * PINS_APART;
}

static void use_slot(struct views *v, unsigned i)
{
	unsigned used = v->pins_used;

	while (i >= used && !atomic_compare_exchange_weak(&v->pins_used, &used, i + 1))
		;
}

void db_view_pin(struct db *db, struct db_view *out)
{
	struct views *v = db__views(db);
	unsigned i = first_slot();

	for (unsigned tries = 0;; i = (i + 1) % DB_PINS_MAX) {
		uint64_t none = 0;

		use_slot(v, i);
		if (atomic_compare_exchange_strong(&v->pins[i], &none, v->epoch))
			break;
		CHECK(++tries < 4 * DB_PINS_MAX); /* a pin was forgotten */
	}
	*out = (struct db_view){ .state = v->root, .db = db, .slot = i };
}

void db_view_unpin(struct db_view *view)
{
	if (view->state == NULL)
		return;
	db__views(view->db)->pins[view->slot] = 0;
	view->state = NULL;
}

uint64_t db_view_index(const struct db_view *view)
{
	return view->state->index;
}

int64_t db_view_time(const struct db_view *view)
{
	return view->state->time;
}

unsigned db_view_schema(const struct db_view *view)
{
	return view->state->schema;
}

uint64_t db_view_hash(const struct db_view *view)
{
	return view->state->hash;
}

uint64_t db_view_count(const struct db_view *view, int class_id)
{
	return view->state->classes[class_id].n_rows;
}

uint64_t db_view_horizon(const struct db_view *view, int class_id)
{
	return view->state->classes[class_id].horizon;
}

const struct db_row *db_view_get(const struct db_view *view, int class_id, const char *ref)
{
	return db__state_get(view->state, class_id, ref);
}

const char *db_row_ref(const struct db_row *row)
{
	return row->ref;
}

int db_row_class(const struct db_row *row)
{
	return row->class_id;
}

uint64_t db_row_created(const struct db_row *row)
{
	return row->created;
}

uint64_t db_row_modified(const struct db_row *row)
{
	return row->modified;
}

struct val db_row_field(const struct db_row *row, int field, struct arena *a)
{
	const struct model_class *c = &model_classes[row->class_id];
	struct reader r;
	struct val v;

	CHECK(field >= 0 && field < (int)c->n_fields);
	if (field >= row->n_fields)
		return c->fields[field].initial;
	r = reader_of((const char *)row + row->offsets[field],
		row->offsets[field + 1] - row->offsets[field]);
	v = val_unpack(&r, a);
	CHECK(!r.bad);
	return v;
}

/* Scalars need no arena: unpack them with one that must stay empty. */
static struct val scalar(const struct db_row *row, int field, enum val_kind kind)
{
	struct arena none = { 0 };
	struct val v = db_row_field(row, field, &none);

	CHECK(v.kind == kind && none.head == NULL);
	return v;
}

const char *db_row_s(const struct db_row *row, int field)
{
	return scalar(row, field, VAL_STRING).s;
}

int64_t db_row_i(const struct db_row *row, int field)
{
	const struct model_type *type = model_classes[row->class_id].fields[field].type;

	return scalar(row, field, type->kind == MODEL_DATETIME ? VAL_DATETIME : VAL_INT).i;
}

bool db_row_b(const struct db_row *row, int field)
{
	return scalar(row, field, VAL_BOOL).b;
}

enum { WALK_ROWS, WALK_INDEX, WALK_NUMBERS };

static struct db_cursor cursor(const struct db_view *view, const struct tree *t, int class_id,
	int kind, const void *prefix, size_t n)
{
	struct db_cursor c = { .view = view, .tree = t, .class_id = class_id, .kind = kind };

	CHECK(n < sizeof c.key);
	c.prefix = (unsigned)n;
	memcpy(c.key, prefix, n);
	c.n = (unsigned)n;
	return c;
}

struct db_cursor db_rows(const struct db_view *view, int class_id)
{
	return cursor(view, view->state->classes[class_id].rows, class_id, WALK_ROWS, "", 0);
}

static struct db_cursor by_text(
	const struct db_view *view, const struct tree *t, int class_id, const char *text)
{
	char key[KEY_TEXT_MAX + 1];
	size_t n = strlen(text);

	if (n > KEY_TEXT_MAX)
		n = KEY_TEXT_MAX;
	memcpy(key, text, n);
	key[n] = 0;
	return cursor(view, t, class_id, WALK_INDEX, key, n + 1);
}

struct db_cursor db_rows_with_label(const struct db_view *view, int class_id, const char *label)
{
	return by_text(view, view->state->classes[class_id].labels, class_id, label);
}

struct db_cursor db_rows_related(const struct db_view *view, int relation, const char *ref)
{
	return by_text(
		view, view->state->relations[relation], model_relations[relation].one_class, ref);
}

int64_t db_sum_related(const struct db_view *view, int relation, const char *ref, int field)
{
	struct db_cursor c = db_rows_related(view, relation, ref);
	const struct db_sum *kept;
	const struct db_row *row;
	int64_t sum = 0;

	if (relation == MODEL_RELATION__reservation_host && field == _RESERVATION_bytes) {
		kept = tree_get(view->state->set_aside, ref, strlen(ref));
		return kept != NULL ? kept->bytes : 0;
	}
	while ((row = db_next(&c)) != NULL)
		sum += db_row_i(row, field);
	return sum;
}

const struct db_row *db_view_by_uuid(const struct db_view *view, int class_id, const char *uuid)
{
	struct db_cursor c = by_text(view, view->state->classes[class_id].uuids, class_id, uuid);

	return db_next(&c);
}

static struct db_cursor by_number(
	const struct db_view *view, const struct tree *t, int class_id, uint64_t after_index)
{
	uint64_t from = htobe64(after_index + 1);
	struct db_cursor c = cursor(view, t, class_id, WALK_NUMBERS, &from, sizeof from);

	c.prefix = 0;
	return c;
}

struct db_cursor db_rows_modified(const struct db_view *view, int class_id, uint64_t after_index)
{
	return by_number(view, view->state->classes[class_id].modified, class_id, after_index);
}

struct db_cursor db_deleted(const struct db_view *view, int class_id, uint64_t after_index)
{
	return by_number(view, view->state->classes[class_id].deleted, class_id, after_index);
}

/* Step; NULL at the end of the prefix, and from then on. */
static const struct tree_entry *step(struct db_cursor *c)
{
	const struct tree_entry *e = c->at;
	const void *key = c->key;
	size_t n = c->n;

	if (c->run > 1) {
		e = tree_beside(e);
		c->run--;
	} else {
		if (e != NULL)
			key = tree_key(e, &n);
		e = tree_seek_run(c->tree, key, n, e != NULL, &c->run);
	}
	if (e != NULL)
		key = tree_key(e, &n);
	if (e == NULL || n < c->prefix || memcmp(key, c->key, c->prefix) != 0) {
		c->tree = c->at = NULL;
		c->run = 0;
		return NULL;
	}
	c->at = e;
	return e;
}

const struct db_row *db_next(struct db_cursor *c)
{
	const struct tree_entry *e = step(c);
	const char *key;
	size_t n, at;

	if (e == NULL)
		return NULL;
	if (c->kind != WALK_INDEX)
		return tree_value(e);
	/* text, NUL, creation index, ref: the row an entry was made for may have been replaced
	 * since, so go by the ref */
	key = tree_key(e, &n);
	at = (size_t)((const char *)memchr(key, 0, n) - key) + 9;
	CHECK(at <= n);
	return tree_get(c->view->state->classes[c->class_id].rows, key + at, n - at);
}

bool db_next_deleted(struct db_cursor *c, struct db_gone *out)
{
	const struct tree_entry *e = step(c);
	const struct db_gone_row *gone;
	uint64_t index;
	size_t n;

	if (e == NULL)
		return false;
	gone = tree_value(e);
	memcpy(&index, tree_key(e, &n), sizeof index);
	*out = (struct db_gone){ gone->ref, gone->created, be64toh(index) };
	return true;
}
