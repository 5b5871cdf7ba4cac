/* Own numbers, frames, and the overlay: see plane_priv.h.
 *
 * Invariants: a row of the overlay is in one bucket and in the list by its last visible change; its
 * values are of fields that are volatile here and fit them; a frame that does not parse to its end
 * changes nothing.
 */
#include "db/plane_priv.h"
#include "db/snapshot_priv.h"
#include "rpc/base/hash.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

struct plane_value {
	int field;
	struct buf packed;
};

struct plane_row {
	struct plane_row *next;		 /* in its bucket */
	struct plane_row *newer, *older; /* overlay: by the last visible change */
	uint64_t changed;
	uint64_t owner;
	uint64_t gone_ms; /* overlay: when its values went; 0: it has some */
	unsigned mark;	  /* of the sweep or of the whole set that named it last */
	bool dirty;	  /* own: to be sent */
	int class_id;
	char ref[DB_REF_MAX + 1];
	struct plane_value values[PLANE_VALUES_MAX];
	unsigned n;
};

struct table {
	struct plane_row *buckets[BUCKETS];
};

/* A member we hear of; ourselves too. */
struct source {
	uint64_t member, boot, number, heard_ms, asked_ms;
	bool synced;		     /* nothing is missing since the last whole set */
	unsigned n_rows, mark, part; /* part: of a whole set, the next one; 0: none is under way */
};

struct plane {
	pthread_mutex_t mutex;
	uint64_t member, boot, number, counter, whole_ms, frame_ms;
	struct table own, overlay;
	unsigned own_marks[MODEL_CLASS_COUNT];
	struct plane_row *newest;
	struct source sources[PLANE_SOURCES_MAX];
	unsigned n_sources;
};

struct plane *plane_new(uint64_t member, uint64_t boot)
{
	struct plane *p = mem_new(sizeof *p);

	p->member = member;
	p->boot = boot;
	pthread_mutex_init(&p->mutex, NULL);
	return p;
}

/* Rows. */

static struct plane_row **place(struct table *t, int class_id, const char *ref)
{
	struct plane_row **at = &t->buckets[hash_text(ref) % BUCKETS];

	while (*at != NULL && ((*at)->class_id != class_id || strcmp((*at)->ref, ref) != 0))
		at = &(*at)->next;
	return at;
}

static void values_fini(struct plane_row *r)
{
	for (unsigned i = 0; i < r->n; i++)
		buf_fini(&r->values[i].packed);
	r->n = 0;
}

static struct plane_row *row_new(struct plane_row **at, int class_id, const char *ref)
{
	struct plane_row *r = mem_new(sizeof *r);

	CHECK(*at == NULL && strlen(ref) <= DB_REF_MAX);
	r->class_id = class_id;
	strcpy(r->ref, ref);
	*at = r;
	return r;
}

static void row_free(struct plane_row **at)
{
	struct plane_row *r = *at;

	*at = r->next;
	values_fini(r);
	free(r);
}

static struct plane_value *value_of(struct plane_row *r, int field)
{
	for (unsigned i = 0; i < r->n; i++)
		if (r->values[i].field == field)
			return &r->values[i];
	return NULL;
}

void plane_free(struct plane *p)
{
	struct table *tables[] = { &p->own, &p->overlay };

	for (unsigned t = 0; t < ARRAY_LEN(tables); t++)
		for (unsigned i = 0; i < BUCKETS; i++)
			while (tables[t]->buckets[i] != NULL)
				row_free(&tables[t]->buckets[i]);
	pthread_mutex_destroy(&p->mutex);
	free(p);
}

/* Own numbers. */

static bool takes(int class_id, int field)
{
	const struct model_field *f = &model_classes[class_id].fields[field];

	return f->is_volatile && f->qualifier == MODEL_DYNAMIC_RO && !f->removed;
}

void plane_put(struct plane *p, int class_id, const char *ref, int field, const struct val *v)
{
	struct buf packed = { 0 };
	struct plane_row **at, *r;
	struct plane_value *have;

	CHECK(takes(class_id, field) && db__fits(model_classes[class_id].fields[field].type, v));
	val_pack(&packed, v);
	CHECK(packed.len <= PLANE_VALUE_MAX);
	pthread_mutex_lock(&p->mutex);
	at = place(&p->own, class_id, ref);
	r = *at != NULL ? *at : row_new(at, class_id, ref);
	r->mark = p->own_marks[class_id];
	have = value_of(r, field);
	if (have == NULL) {
		CHECK(r->n < PLANE_VALUES_MAX);
		have = &r->values[r->n++];
		*have = (struct plane_value){ .field = field };
	}
	if (have->packed.len != packed.len ||
		memcmp(have->packed.data, packed.data, packed.len) != 0) {
		buf_fini(&have->packed);
		have->packed = packed;
		packed = (struct buf){ 0 };
		r->dirty = true;
	}
	pthread_mutex_unlock(&p->mutex);
	buf_fini(&packed);
}

void plane_remove(struct plane *p, int class_id, const char *ref)
{
	struct plane_row *r;

	pthread_mutex_lock(&p->mutex);
	r = *place(&p->own, class_id, ref);
	if (r != NULL) {
		values_fini(r);
		r->dirty = true;
	}
	pthread_mutex_unlock(&p->mutex);
}

void plane_sweep(struct plane *p, int class_id)
{
	pthread_mutex_lock(&p->mutex);
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct plane_row *r = p->own.buckets[i]; r != NULL; r = r->next)
			if (r->class_id == class_id && r->mark != p->own_marks[class_id]) {
				values_fini(r);
				r->dirty = true;
			}
	p->own_marks[class_id]++;
	pthread_mutex_unlock(&p->mutex);
}

/* The overlay. */

static void list_remove(struct plane *p, struct plane_row *r)
{
	if (r->newer != NULL)
		r->newer->older = r->older;
	else if (p->newest == r)
		p->newest = r->older;
	if (r->older != NULL)
		r->older->newer = r->newer;
	r->newer = r->older = NULL;
}

static void note_change(struct plane *p, struct plane_row *r)
{
	list_remove(p, r);
	r->changed = ++p->counter;
	r->older = p->newest;
	if (p->newest != NULL)
		p->newest->newer = r;
	p->newest = r;
}

static struct source *source_of(struct plane *p, uint64_t member, bool make)
{
	for (unsigned i = 0; i < p->n_sources; i++)
		if (p->sources[i].member == member)
			return &p->sources[i];
	if (!make || p->n_sources == PLANE_SOURCES_MAX)
		return NULL;
	p->sources[p->n_sources] = (struct source){ .member = member };
	return &p->sources[p->n_sources++];
}

/* Its values go; it is remembered for a while, so that watchers hear of it. */
static void row_empty(struct plane *p, struct plane_row *r, uint64_t now_ms)
{
	struct source *s = source_of(p, r->owner, false);

	if (r->gone_ms != 0)
		return;
	CHECK(s != NULL && s->n_rows > 0);
	s->n_rows--;
	values_fini(r);
	r->gone_ms = now_ms + 1;
	note_change(p, r);
}

/* All rows of a member, or those that its whole set did not name. */
static bool empty_rows(struct plane *p, const struct source *s, bool all, uint64_t now_ms)
{
	bool any = false;

	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct plane_row *r = p->overlay.buckets[i]; r != NULL; r = r->next)
			if (r->owner == s->member && r->gone_ms == 0 &&
				(all || r->mark != s->mark)) {
				row_empty(p, r, now_ms);
				any = true;
			}
	return any;
}

struct val *plane_read(struct plane *p, int class_id, const char *ref, struct arena *a)
{
	struct val *out = NULL;
	struct plane_row *r;

	pthread_mutex_lock(&p->mutex);
	r = *place(&p->overlay, class_id, ref);
	if (r != NULL && r->n > 0)
		out = arena_alloc(a, model_classes[class_id].n_fields * sizeof *out);
	for (unsigned i = 0; out != NULL && i < r->n; i++) {
		const struct plane_value *v = &r->values[i];
		uint8_t *copy = arena_alloc(a, v->packed.len);
		struct reader in = reader_of(copy, v->packed.len);

		memcpy(copy, v->packed.data, v->packed.len);
		out[v->field] = val_unpack(&in, a);
	}
	pthread_mutex_unlock(&p->mutex);
	return out;
}

uint64_t plane_changed(struct plane *p, uint64_t from,
	void (*fn)(void *arg, int class_id, const char *ref), void *arg)
{
	uint64_t counter;

	pthread_mutex_lock(&p->mutex);
	for (const struct plane_row *r = p->newest; r != NULL && r->changed > from; r = r->older)
		fn(arg, r->class_id, r->ref);
	counter = p->counter;
	pthread_mutex_unlock(&p->mutex);
	return counter;
}

/* Frames out. */

static void put_head(struct plane *p, struct buf *b, enum plane_kind kind, unsigned part)
{
	buf_u8(b, PLANE_VERSION);
	buf_u8(b, (uint8_t)kind);
	buf_u64(b, p->member);
	buf_u64(b, p->boot);
	buf_u64(b, p->number);
	buf_u16(b, (uint16_t)part);
}
enum { LAST_AT = 28, COUNT_AT = 29 };

static void put_row(struct buf *b, const struct plane_row *r)
{
	const struct model_class *c = &model_classes[r->class_id];

	buf_str(b, c->name);
	buf_str(b, r->ref);
	buf_u8(b, (uint8_t)r->n);
	for (unsigned i = 0; i < r->n; i++) {
		buf_str(b, c->fields[r->values[i].field].name);
		buf_put(b, r->values[i].packed.data, r->values[i].packed.len);
	}
}

/* Frames under composition: each is given away when it is full. */
struct composer {
	struct plane *p;
	enum plane_kind kind;
	struct buf b;
	unsigned part;
	uint32_t rows;
	plane_frame_fn fn;
	void *arg;
};

static void frame_begin(struct composer *c)
{
	if (c->kind == PLANE_DELTA)
		c->p->number++;
	c->rows = 0;
	c->b.len = 0;
	put_head(c->p, &c->b, c->kind, c->part);
	CHECK(c->b.len == LAST_AT);
	buf_u8(&c->b, 0);
	buf_u32(&c->b, 0);
}

static void frame_end(struct composer *c, bool last)
{
	CHECK(c->b.len <= PLANE_FRAME_MAX);
	c->b.data[LAST_AT] = last;
	buf_patch_u32(&c->b, COUNT_AT, c->rows);
	c->part++;
	c->fn(c->arg, &c->b);
}

static void frame_row(struct composer *c, const struct plane_row *r)
{
	if (c->b.len > PLANE_FRAME_FULL) {
		frame_end(c, false);
		frame_begin(c);
	}
	put_row(&c->b, r);
	c->rows++;
}

/* Rows of the own table; those that were removed and told of go. */
static void compose(struct composer *c, bool slow_too)
{
	frame_begin(c);
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct plane_row **at = &c->p->own.buckets[i]; *at != NULL;) {
			struct plane_row *r = *at;
			bool due =
				c->kind == PLANE_WHOLE
					? r->n > 0
					: r->dirty && (slow_too || r->class_id == MODEL_CLASS_task);

			if (due)
				frame_row(c, r);
			if (due && c->kind == PLANE_DELTA)
				r->dirty = false;
			if (due && r->n == 0)
				row_free(at);
			else
				at = &r->next;
		}
	frame_end(c, true);
}

static bool has_fast(const struct plane *p)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		for (const struct plane_row *r = p->own.buckets[i]; r != NULL; r = r->next)
			if (r->dirty && r->class_id == MODEL_CLASS_task)
				return true;
	return false;
}

static enum plane_wish take(struct plane *p, uint64_t peer, const uint8_t *bytes, size_t n,
	uint64_t now_ms, bool *changed_out);

/* What goes out is taken in as the others do. */
struct own_frames {
	struct plane *p;
	uint64_t now_ms;
	plane_frame_fn fn;
	void *arg;
	bool changed;
};

static void on_own(void *arg, const struct buf *frame)
{
	struct own_frames *o = arg;
	bool changed = false;

	CHECK(take(o->p, o->p->member, frame->data, frame->len, o->now_ms, &changed) !=
		PLANE_UNREADABLE);
	o->changed |= changed;
	o->fn(o->arg, frame);
}

static bool expire(struct plane *p, uint64_t now_ms)
{
	bool any = false;

	for (unsigned i = 0; i < p->n_sources; i++) {
		struct source *s = &p->sources[i];

		if (s->member != p->member && s->n_rows > 0 &&
			now_ms - s->heard_ms >= DB_PLANE_DEAD_MS) {
			any |= empty_rows(p, s, true, now_ms);
			s->synced = false;
		}
	}
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct plane_row **at = &p->overlay.buckets[i]; *at != NULL;)
			if ((*at)->gone_ms != 0 && now_ms > (*at)->gone_ms + PLANE_GONE_MS) {
				list_remove(p, *at);
				row_free(at);
			} else {
				at = &(*at)->next;
			}
	return any;
}

bool plane_tick(struct plane *p, uint64_t now_ms, plane_frame_fn fn, void *arg)
{
	struct own_frames o = { .p = p, .now_ms = now_ms, .fn = fn, .arg = arg };
	struct composer c = { .p = p, .kind = PLANE_DELTA, .fn = on_own, .arg = &o };
	bool slow;

	pthread_mutex_lock(&p->mutex);
	slow = now_ms - p->frame_ms >= DB_PLANE_FRAME_MS || p->frame_ms == 0;
	if (slow)
		p->frame_ms = now_ms;
	if (slow || has_fast(p))
		compose(&c, slow);
	if (p->whole_ms == 0)
		p->whole_ms = now_ms;
	if (now_ms - p->whole_ms >= DB_PLANE_WHOLE_MS) {
		p->whole_ms = now_ms;
		c.kind = PLANE_WHOLE;
		c.part = 0;
		compose(&c, true);
	}
	if (slow)
		o.changed |= expire(p, now_ms);
	pthread_mutex_unlock(&p->mutex);
	buf_fini(&c.b);
	return o.changed;
}

void plane_whole(struct plane *p, plane_frame_fn fn, void *arg)
{
	struct composer c = { .p = p, .kind = PLANE_WHOLE, .fn = fn, .arg = arg };

	pthread_mutex_lock(&p->mutex);
	compose(&c, true);
	pthread_mutex_unlock(&p->mutex);
	buf_fini(&c.b);
}

void plane_ask(struct plane *p, struct buf *out)
{
	pthread_mutex_lock(&p->mutex);
	put_head(p, out, PLANE_ASK, 0);
	pthread_mutex_unlock(&p->mutex);
	buf_u8(out, 1);
	buf_u32(out, 0);
}

/* Frames in. */

struct frame {
	uint8_t version, kind, last;
	uint64_t member, boot, number;
	uint16_t part;
	uint32_t n;
	struct reader rows;
};

/* One row of a frame; fields this build does not know, or does not take, are left out. */
struct frame_row {
	int class_id; /* -1: unknown */
	const char *ref;
	unsigned n;
	struct {
		int field;
		const uint8_t *bytes;
		size_t len;
	} values[PLANE_VALUES_MAX];
};

static bool read_value(struct reader *r, struct arena *a, struct frame_row *out)
{
	const char *name = rd_str(r);
	const uint8_t *from = r->p;
	struct val v = val_unpack(r, a);
	int field = out->class_id < 0 || r->bad ? -1 : model_field_find(out->class_id, name);

	if (r->bad || (size_t)(r->p - from) > PLANE_VALUE_MAX)
		return false;
	if (field < 0 || !takes(out->class_id, field))
		return true;
	if (!db__fits(model_classes[out->class_id].fields[field].type, &v) ||
		out->n == PLANE_VALUES_MAX)
		return false;
	for (unsigned i = 0; i < out->n; i++)
		if (out->values[i].field == field)
			return false;
	out->values[out->n].field = field;
	out->values[out->n].bytes = from;
	out->values[out->n++].len = (size_t)(r->p - from);
	return true;
}

static bool read_row(struct reader *r, struct frame_row *out)
{
	const char *class = rd_str(r);
	struct arena a;
	uint8_t n;
	bool ok;

	*out = (struct frame_row){ .ref = rd_str(r) };
	n = rd_u8(r);
	if (r->bad || n > PLANE_VALUES_MAX || *out->ref == 0 || strlen(out->ref) > DB_REF_MAX)
		return false;
	out->class_id = model_class_find(class, false);
	arena_init(&a);
	ok = true;
	for (uint8_t i = 0; i < n && ok; i++)
		ok = read_value(r, &a, out);
	arena_fini(&a);
	return ok;
}

/* The whole frame, before anything of it is believed. */
static bool readable(const uint8_t *bytes, size_t n, uint64_t peer, struct frame *out)
{
	struct reader r = reader_of(bytes, n);
	struct frame_row row;

	out->version = rd_u8(&r);
	out->kind = rd_u8(&r);
	out->member = rd_u64(&r);
	out->boot = rd_u64(&r);
	out->number = rd_u64(&r);
	out->part = rd_u16(&r);
	out->last = rd_u8(&r);
	out->n = rd_u32(&r);
	if (r.bad || n > PLANE_FRAME_MAX || out->version != PLANE_VERSION ||
		out->kind > PLANE_ASK || out->member != peer)
		return false;
	out->rows = r;
	for (uint32_t i = 0; i < out->n; i++)
		if (!read_row(&r, &row))
			return false;
	return rd_left(&r) == 0;
}

/* Is it news? A time says when, not what. */
static bool is_news(const struct plane_row *old, int class_id, const struct frame_row *fresh)
{
	if (old->n != fresh->n)
		return true;
	for (unsigned i = 0; i < fresh->n; i++) {
		const struct plane_value *v =
			value_of((struct plane_row *)old, fresh->values[i].field);

		if (v == NULL)
			return true;
		if (model_classes[class_id].fields[v->field].type->kind != MODEL_DATETIME &&
			(v->packed.len != fresh->values[i].len ||
				memcmp(v->packed.data, fresh->values[i].bytes, v->packed.len) != 0))
			return true;
	}
	return false;
}

/* true: something visible has changed. */
static bool take_row(
	struct plane *p, struct source *s, const struct frame_row *fresh, uint64_t now_ms)
{
	struct plane_row **at, *r;
	bool news;

	if (fresh->class_id < 0)
		return false;
	at = place(&p->overlay, fresh->class_id, fresh->ref);
	r = *at;
	if (fresh->n == 0) {
		if (r == NULL || r->owner != s->member || r->gone_ms != 0)
			return false;
		row_empty(p, r, now_ms);
		return true;
	}
	if ((r == NULL || r->owner != s->member || r->gone_ms != 0) && s->n_rows >= PLANE_ROWS_MAX)
		return false;
	if (r == NULL) {
		r = row_new(at, fresh->class_id, fresh->ref);
		r->gone_ms = 1;
	} else if (r->gone_ms == 0) {
		source_of(p, r->owner, false)->n_rows--;
	}
	news = r->gone_ms != 0 || is_news(r, fresh->class_id, fresh);
	values_fini(r);
	for (unsigned i = 0; i < fresh->n; i++) {
		r->values[r->n] = (struct plane_value){ .field = fresh->values[i].field };
		buf_put(&r->values[r->n++].packed, fresh->values[i].bytes, fresh->values[i].len);
	}
	r->owner = s->member;
	r->gone_ms = 0;
	r->mark = s->mark;
	s->n_rows++;
	if (news)
		note_change(p, r);
	return news;
}

static bool take_rows(struct plane *p, struct source *s, const struct frame *f, uint64_t now_ms)
{
	struct reader r = f->rows;
	struct frame_row row;
	bool news = false;

	for (uint32_t i = 0; i < f->n && read_row(&r, &row); i++)
		news |= take_row(p, s, &row, now_ms);
	return news;
}

/* A part of a whole set; a part that does not follow the one before is left out. */
static bool take_whole(struct plane *p, struct source *s, const struct frame *f, uint64_t now_ms)
{
	bool news;

	if (f->part == 0) {
		s->part = 0;
		s->mark++;
	} else if (f->part != s->part) {
		return false;
	}
	s->part++;
	news = take_rows(p, s, f, now_ms);
	if (f->last) {
		news |= empty_rows(p, s, false, now_ms);
		s->number = f->number;
		s->synced = true;
		s->part = 0;
	}
	return news;
}

static bool take_delta(struct plane *p, struct source *s, const struct frame *f, uint64_t now_ms)
{
	if (f->number <= s->number)
		return false; /* older than the whole set that we have */
	if (f->number != s->number + 1 && f->number != 1)
		s->synced = false;
	else if (f->number == 1)
		s->synced = true; /* its first: nothing came before */
	s->number = f->number;
	return take_rows(p, s, f, now_ms);
}

static enum plane_wish take(struct plane *p, uint64_t peer, const uint8_t *bytes, size_t n,
	uint64_t now_ms, bool *changed_out)
{
	struct source *s;
	struct frame f;

	*changed_out = false;
	if (!readable(bytes, n, peer, &f))
		return PLANE_UNREADABLE;
	s = source_of(p, peer, true);
	if (f.kind == PLANE_ASK)
		return PLANE_ASKED_FOR;
	if (s == NULL)
		return PLANE_NOTHING;
	s->heard_ms = now_ms;
	if (s->boot != f.boot) { /* another life: what it said before is void */
		*changed_out = empty_rows(p, s, true, now_ms);
		*s = (struct source){ .member = peer,
			.boot = f.boot,
			.heard_ms = now_ms,
			.mark = s->mark,
			.asked_ms = s->asked_ms };
	}
	*changed_out |=
		f.kind == PLANE_WHOLE ? take_whole(p, s, &f, now_ms) : take_delta(p, s, &f, now_ms);
	if (s->synced || now_ms - s->asked_ms < PLANE_ASK_MS || f.kind == PLANE_WHOLE)
		return PLANE_NOTHING;
	s->asked_ms = now_ms;
	return PLANE_ASK_PEER;
}

enum plane_wish plane_take(struct plane *p, uint64_t peer, const uint8_t *bytes, size_t n,
	uint64_t now_ms, bool *changed_out)
{
	enum plane_wish wish;

	pthread_mutex_lock(&p->mutex);
	wish = take(p, peer, bytes, n, now_ms, changed_out);
	pthread_mutex_unlock(&p->mutex);
	return wish;
}

/* What readers and publishers see: the plane of a database, which may have none. */

void db_plane_put(struct db *db, int class_id, const char *ref, int field, const struct val *v)
{
	if (db__plane(db) != NULL)
		plane_put(db__plane(db), class_id, ref, field, v);
}

void db_plane_remove(struct db *db, int class_id, const char *ref)
{
	if (db__plane(db) != NULL)
		plane_remove(db__plane(db), class_id, ref);
}

void db_plane_sweep(struct db *db, int class_id)
{
	if (db__plane(db) != NULL)
		plane_sweep(db__plane(db), class_id);
}

struct val *db_plane_read(const struct db_view *view, const struct db_row *row, struct arena *a)
{
	struct plane *p = db__plane(view->db);

	return p != NULL && model_classes[db_row_class(row)].has_volatile
		       ? plane_read(p, db_row_class(row), db_row_ref(row), a)
		       : NULL;
}

uint64_t db_plane_changed(struct db *db, uint64_t from,
	void (*fn)(void *arg, int class_id, const char *ref), void *arg)
{
	return db__plane(db) != NULL ? plane_changed(db__plane(db), from, fn, arg) : 0;
}
