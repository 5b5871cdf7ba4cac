/* The whole state as bytes, for Raft snapshots: docs/formats.md.
 *
 * Encoded on a worker from a frozen view at exactly one index; decoded at a start, or when a member
 * lags too far. Names of classes and fields are in it, so builds with other tables agree. The
 * checksum at the end and the state hash inside must both hold, or nothing of it is believed.
 */
#include "db/snapshot_priv.h"
#include "rpc/base/hash.h"

#include <stdlib.h>
#include <string.h>

enum { SNAPSHOT_MAGIC = 0x31535058 /* "XPS1" */ };

static void put_rows(struct buf *out, const struct class_state *cs)
{
	for (const struct tree_entry *e = tree_seek(cs->rows, "", 0, false); e != NULL;) {
		const struct db_row *row = tree_value(e);
		size_t n;
		const void *key = tree_key(e, &n);

		buf_str(out, row->ref);
		buf_u64(out, row->created);
		buf_u64(out, row->modified);
		buf_u32(out, row->size - row->offsets[0]);
		buf_put(out, (const char *)row + row->offsets[0], row->size - row->offsets[0]);
		e = tree_seek(cs->rows, key, n, true);
	}
}

static void put_deleted(struct buf *out, const struct class_state *cs)
{
	for (const struct tree_entry *e = tree_seek(cs->deleted, "", 0, false); e != NULL;) {
		const struct db_gone_row *gone = tree_value(e);
		size_t n;
		const void *key = tree_key(e, &n);

		buf_str(out, gone->ref);
		buf_u64(out, gone->created);
		buf_put(out, key, sizeof(uint64_t)); /* big-endian, as in the key */
		e = tree_seek(cs->deleted, key, n, true);
	}
}

void db__snapshot_encode(const struct db_state *s, const struct done_table *done, struct buf *out)
{
	buf_u32(out, SNAPSHOT_MAGIC);
	buf_u16(out, DB_FORMAT);
	buf_u16(out, MODEL_SCHEMA_VERSION);
	buf_u64(out, s->index);
	buf_u64(out, (uint64_t)s->time);
	buf_u64(out, s->hash);
	buf_u32(out, MODEL_CLASS_COUNT);
	for (int c = 0; c < MODEL_CLASS_COUNT; c++) {
		const struct model_class *m = &model_classes[c];
		const struct class_state *cs = &s->classes[c];
		bool fixed = m->table == MODEL_TABLE_FIXED;

		buf_str(out, m->name);
		buf_u32(out, m->n_fields);
		for (unsigned i = 0; i < m->n_fields; i++)
			buf_str(out, m->fields[i].name);
		buf_u64(out, cs->horizon);
		buf_u64(out, fixed ? 0 : cs->n_rows);
		if (!fixed)
			put_rows(out, cs);
		buf_u64(out, cs->n_deleted);
		put_deleted(out, cs);
	}
	db__done_encode(done, out);
	buf_u64(out, hash_bytes(out->data, out->len));
}

/* Reading. */

struct decoder {
	struct reader r;
	struct reclaim reclaim; /* of a state nobody sees yet: freed as we go */
	struct db_state *s;
	const char *why;
};

static void refuse(struct decoder *d, const char *why)
{
	if (d->why == NULL)
		d->why = why;
	d->r.bad = true;
}

/* The class's fields as they are written: their places here. */
struct layout {
	int class_id;
	uint32_t n;
	int fields[256];
};

static void get_layout(struct decoder *d, struct layout *l)
{
	const char *name = rd_str(&d->r);

	l->class_id = d->r.bad ? -1 : model_class_find(name, false);
	l->n = rd_u32(&d->r);
	if (l->class_id < 0 || l->n > ARRAY_LEN(l->fields)) {
		refuse(d, "it has a class this version does not know");
		return;
	}
	for (uint32_t i = 0; i < l->n; i++) {
		name = rd_str(&d->r);
		l->fields[i] = d->r.bad ? -1 : model_field_find(l->class_id, name);
		if (l->fields[i] < 0)
			refuse(d, "it has a field this version does not know");
	}
}

static void get_row(struct decoder *d, const struct layout *l)
{
	const struct model_class *m = &model_classes[l->class_id];
	const char *ref = rd_str(&d->r);
	uint64_t created = rd_u64(&d->r), modified = rd_u64(&d->r);
	uint32_t n = rd_u32(&d->r);
	const uint8_t *bytes = rd_bytes(&d->r, n);
	struct reader r = reader_of(bytes, bytes != NULL ? n : 0);
	struct arena a;
	struct val *fields;

	if (d->r.bad || m->table == MODEL_TABLE_NONE || m->table == MODEL_TABLE_FIXED ||
		*ref == 0 || strlen(ref) > DB_REF_MAX || modified > d->s->index ||
		created > modified || db__state_get(d->s, l->class_id, ref) != NULL) {
		refuse(d, "a row is malformed");
		return;
	}
	arena_init(&a);
	fields = arena_alloc(&a, (m->n_fields + 1) * sizeof *fields);
	for (unsigned i = 0; i < m->n_fields; i++)
		fields[i] = m->fields[i].initial;
	for (uint32_t i = 0; i < l->n && !r.bad; i++) {
		struct val v = val_unpack(&r, &a);

		if (!r.bad && !db__fits(m->fields[l->fields[i]].type, &v))
			r.bad = true;
		fields[l->fields[i]] = v;
	}
	if (r.bad || rd_left(&r) != 0)
		refuse(d, "a row is malformed");
	else
		db__state_put(&d->reclaim, d->s, NULL,
			db__row_new(l->class_id, ref, created, modified, fields));
	arena_fini(&a);
	db__reclaim_now(&d->reclaim);
}

static void get_deleted(struct decoder *d, const struct layout *l)
{
	const char *ref = rd_str(&d->r);
	uint64_t created = rd_u64(&d->r);
	const uint8_t *index = rd_bytes(&d->r, sizeof(uint64_t));
	struct class_state *cs = &d->s->classes[l->class_id];

	if (d->r.bad || strlen(ref) > DB_REF_MAX || cs->n_deleted >= DB_DELETED_MAX) {
		refuse(d, "a deletion is malformed");
		return;
	}
	db__state_put_deleted(&d->reclaim, cs, ref, created, index);
	db__reclaim_now(&d->reclaim);
}

static void get_class(struct decoder *d)
{
	struct layout l;
	uint64_t n;

	get_layout(d, &l);
	if (d->r.bad)
		return;
	d->s->classes[l.class_id].horizon = rd_u64(&d->r);
	n = rd_u64(&d->r);
	for (uint64_t i = 0; i < n && !d->r.bad; i++)
		get_row(d, &l);
	n = rd_u64(&d->r);
	for (uint64_t i = 0; i < n && !d->r.bad; i++)
		get_deleted(d, &l);
}

struct db_state *db__snapshot_decode(
	const uint8_t *p, size_t n, struct done_table *done, const char **why_out)
{
	struct decoder d = { .s = mem_new(sizeof(struct db_state)) };
	struct reader tail;
	uint64_t hash;
	uint32_t classes;

	d.r = reader_of(p, n >= 8 ? n - 8 : 0);
	tail = reader_of(n >= 8 ? p + n - 8 : p, n >= 8 ? 8 : 0);
	if (rd_u64(&tail) != hash_bytes(p, n >= 8 ? n - 8 : 0) || tail.bad ||
		rd_u32(&d.r) != SNAPSHOT_MAGIC)
		refuse(&d, "its checksum does not hold");
	if (rd_u16(&d.r) > DB_FORMAT || rd_u16(&d.r) > MODEL_SCHEMA_VERSION)
		refuse(&d, "it was written by a newer version");
	d.s->index = rd_u64(&d.r);
	d.s->time = (int64_t)rd_u64(&d.r);
	hash = rd_u64(&d.r);
	classes = rd_u32(&d.r);
	for (uint32_t i = 0; i < classes && !d.r.bad; i++)
		get_class(&d);
	if (!d.r.bad && !db__done_decode(done, &d.r))
		refuse(&d, "its table of results is malformed");
	if (!d.r.bad && d.s->hash != hash)
		refuse(&d, "its content does not have the hash it names");
	db__reclaim_now(&d.reclaim);
	if (!d.r.bad) {
		db__state_add_fixed(d.s);
		return d.s;
	}
	*why_out = d.why != NULL ? d.why : "it ends too early";
	db__state_free(d.s);
	return NULL;
}
