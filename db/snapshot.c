/* The whole state as bytes, for Raft snapshots: docs/formats.md.
 *
 * Encoded on a worker from a frozen view at exactly one index; decoded at a start, or when a member
 * lags too far. It is of the schema that is active at its index: classes and fields by name, in
 * stored order; rows that are older than that are shorter. All behind the schema is packed
 * (pack_priv.h); pools of a schema from before that get format 3, which their older members read.
 * The checksum at the end and the state hash inside must both hold, or nothing of it is believed.
 */
#include "db/pack_priv.h"
#include "db/snapshot_priv.h"
#include "rpc/base/hash.h"

#include <stdlib.h>
#include <string.h>

enum {
	SNAPSHOT_MAGIC = 0x31535058, /* "XPS1" */
	FORMAT_PLAIN = 3,
	FORMAT_PACKED = 4,
	PACKED_SINCE = 5, /* the active schema it goes with */
	SEAL_LEN = 8,
};

/* Rows of the model itself are the same everywhere, and some classes have none. */
static bool kept(int class_id, unsigned schema)
{
	enum model_table table = model_classes[class_id].table;

	return table != MODEL_TABLE_NONE && table != MODEL_TABLE_FIXED &&
	       model_classes[class_id].schema <= schema;
}

static void put_rows(struct packer *p, const struct class_state *cs)
{
	for (const struct tree_entry *e = tree_seek(cs->rows, "", 0, false); e != NULL;) {
		const struct db_row *row = tree_value(e);
		size_t n;
		const void *key = tree_key(e, &n);
		struct buf *out = &p->plain;

		buf_str(out, row->ref);
		buf_u64(out, row->created);
		buf_u64(out, row->modified);
		buf_u32(out, row->size - row->offsets[0]);
		buf_put(out, (const char *)row + row->offsets[0], row->size - row->offsets[0]);
		pack_item(p);
		e = tree_seek(cs->rows, key, n, true);
	}
}

static void put_deleted(struct packer *p, const struct class_state *cs)
{
	for (const struct tree_entry *e = tree_seek(cs->deleted, "", 0, false); e != NULL;) {
		const struct db_gone_row *gone = tree_value(e);
		size_t n;
		const void *key = tree_key(e, &n);

		buf_str(&p->plain, gone->ref);
		buf_u64(&p->plain, gone->created);
		buf_put(&p->plain, key, sizeof(uint64_t)); /* big-endian, as in the key */
		pack_item(p);
		e = tree_seek(cs->deleted, key, n, true);
	}
}

static void put_class(struct packer *p, int class_id, const struct db_state *s)
{
	const struct model_class *m = &model_classes[class_id];
	const struct class_state *cs = &s->classes[class_id];
	unsigned n = model_stored(class_id, s->schema);

	buf_str(&p->plain, m->name);
	buf_u32(&p->plain, n);
	for (unsigned i = 0; i < n; i++)
		buf_str(&p->plain, m->fields[i].name);
	buf_u64(&p->plain, cs->horizon);
	buf_u64(&p->plain, cs->n_rows);
	pack_item(p);
	put_rows(p, cs);
	buf_u64(&p->plain, cs->n_deleted);
	pack_item(p);
	put_deleted(p, cs);
}

void db__snapshot_encode(const struct db_state *s, const struct done_table *done, struct buf *out)
{
	bool packed = s->schema >= PACKED_SINCE;
	struct packer p;
	uint32_t n = 0;

	buf_u32(out, SNAPSHOT_MAGIC);
	buf_u16(out, packed ? FORMAT_PACKED : FORMAT_PLAIN);
	buf_u16(out, (uint16_t)s->schema);
	pack_begin(&p, out, packed);
	buf_u64(&p.plain, s->index);
	buf_u64(&p.plain, (uint64_t)s->time);
	buf_u64(&p.plain, s->hash);
	for (int c = 0; c < MODEL_CLASS_COUNT; c++)
		n += kept(c, s->schema);
	buf_u32(&p.plain, n);
	for (int c = 0; c < MODEL_CLASS_COUNT; c++)
		if (kept(c, s->schema))
			put_class(&p, c, s);
	db__done_encode(done, &p.plain);
	pack_end(&p);
	buf_u64(out, hash_bytes(out->data, out->len));
}

/* Reading. */

struct decoder {
	struct reader r; /* of format 4: of the block at hand */
	struct unpacker packed;
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

/* Before each item: go on with the next block. Nothing that points into the last one is kept. */
static void more(struct decoder *d)
{
	if (!d->r.bad && rd_left(&d->r) == 0 && rd_left(&d->packed.in) > 0)
		d->r = unpack_block(&d->packed);
}

/* The class; its fields are written in the order in which they are stored. */
static int get_names(struct decoder *d)
{
	const char *name = rd_str(&d->r);
	int class_id = d->r.bad ? -1 : model_class_find(name, false);
	uint32_t n = rd_u32(&d->r);

	if (class_id < 0 || !kept(class_id, d->s->schema) ||
		n != model_stored(class_id, d->s->schema)) {
		refuse(d, "it has a class this version does not know");
		return -1;
	}
	for (uint32_t i = 0; i < n; i++) {
		name = rd_str(&d->r);
		if (d->r.bad || strcmp(name, model_classes[class_id].fields[i].name) != 0)
			refuse(d, "it has a field this version does not know");
	}
	return class_id;
}

/* The values of one row; how many there are: all that some schema up to the active one stored. */
static unsigned get_values(
	struct decoder *d, int class_id, struct reader *r, struct arena *a, struct val *fields)
{
	const struct model_field *f = model_classes[class_id].fields;
	unsigned n = 0, most = model_stored(class_id, d->s->schema);

	while (n < most && !r->bad && rd_left(r) > 0) {
		fields[n] = val_unpack(r, a);
		if (!r->bad && !db__fits(f[n].type, &fields[n]))
			r->bad = true;
		n++;
	}
	if (rd_left(r) > 0 || (n < most && (n == 0 || f[n].schema == f[n - 1].schema)))
		r->bad = true;
	return n;
}

static void get_row(struct decoder *d, int class_id)
{
	const struct model_class *m = &model_classes[class_id];
	const char *ref = rd_str(&d->r);
	uint64_t created = rd_u64(&d->r), modified = rd_u64(&d->r);
	uint32_t n = rd_u32(&d->r);
	const uint8_t *bytes = rd_bytes(&d->r, n);
	struct reader r = reader_of(bytes, bytes != NULL ? n : 0);
	struct arena a;
	struct val *fields;
	unsigned k;

	if (d->r.bad || *ref == 0 || strlen(ref) > DB_REF_MAX || modified > d->s->index ||
		created > modified || db__state_get(d->s, class_id, ref) != NULL) {
		refuse(d, "a row is malformed");
		return;
	}
	arena_init(&a);
	fields = arena_alloc(&a, (m->n_fields + 1) * sizeof *fields);
	k = get_values(d, class_id, &r, &a, fields);
	if (r.bad)
		refuse(d, "a row is malformed");
	else
		db__state_put(&d->reclaim, d->s, NULL,
			db__row_new(class_id, ref, created, modified, fields, k), DB_ANY_FIELD);
	arena_fini(&a);
	db__reclaim_now(&d->reclaim);
}

static void get_deleted(struct decoder *d, int class_id)
{
	const char *ref = rd_str(&d->r);
	uint64_t created = rd_u64(&d->r);
	const uint8_t *index = rd_bytes(&d->r, sizeof(uint64_t));
	struct class_state *cs = &d->s->classes[class_id];

	if (d->r.bad || strlen(ref) > DB_REF_MAX || cs->n_deleted >= DB_DELETED_MAX) {
		refuse(d, "a deletion is malformed");
		return;
	}
	db__state_put_deleted(&d->reclaim, cs, ref, created, index);
	db__reclaim_now(&d->reclaim);
}

static void get_class(struct decoder *d)
{
	int class_id;
	uint64_t n;

	more(d);
	class_id = get_names(d);
	if (d->r.bad)
		return;
	d->s->classes[class_id].horizon = rd_u64(&d->r);
	n = rd_u64(&d->r);
	for (uint64_t i = 0; i < n && !d->r.bad; i++) {
		more(d);
		get_row(d, class_id);
	}
	more(d);
	n = rd_u64(&d->r);
	for (uint64_t i = 0; i < n && !d->r.bad; i++) {
		more(d);
		get_deleted(d, class_id);
	}
}

static struct reader content(const uint8_t *p, size_t n)
{
	return reader_of(p, n >= SEAL_LEN ? n - SEAL_LEN : 0);
}

static bool sealed(const uint8_t *p, size_t n)
{
	struct reader in = content(p, n), tail = reader_of(in.end, n >= SEAL_LEN ? SEAL_LEN : 0);

	return rd_u64(&tail) == hash_bytes(p, rd_left(&in)) && !tail.bad;
}

/* All before what may be packed; the schema. From here on r is the plain text. */
static unsigned get_head(struct decoder *d)
{
	uint32_t magic = rd_u32(&d->r);
	uint16_t format = rd_u16(&d->r), schema = rd_u16(&d->r);

	if (magic != SNAPSHOT_MAGIC)
		refuse(d, "it is no snapshot");
	else if (format != FORMAT_PLAIN && format != FORMAT_PACKED)
		refuse(d, "it is of a format this version does not know");
	else if (!db__schema_runs(schema))
		refuse(d, "it is of a schema this version does not run");
	if (!d->r.bad && format == FORMAT_PACKED) {
		d->packed.in = d->r;
		d->r = reader_of(NULL, 0);
	}
	return schema;
}

unsigned db__snapshot_schema(const uint8_t *p, size_t n)
{
	struct decoder d = { .r = content(p, n) };

	return sealed(p, n) ? get_head(&d) : 0;
}

struct db_state *db__snapshot_decode(
	const uint8_t *p, size_t n, struct done_table *done, const char **why_out)
{
	struct decoder d = { .s = mem_new(sizeof(struct db_state)) };
	uint64_t hash;
	uint32_t classes;

	unpack_begin(&d.packed);
	d.r = content(p, n);
	if (!sealed(p, n))
		refuse(&d, "its checksum does not hold");
	d.s->schema = get_head(&d);
	more(&d);
	d.s->index = rd_u64(&d.r);
	d.s->time = (int64_t)rd_u64(&d.r);
	hash = rd_u64(&d.r);
	classes = rd_u32(&d.r);
	for (uint32_t i = 0; i < classes && !d.r.bad; i++)
		get_class(&d);
	more(&d);
	if (!d.r.bad && !db__done_decode(done, &d.r))
		refuse(&d, "its table of results is malformed");
	if (!d.r.bad && rd_left(&d.packed.in) > 0)
		refuse(&d, "it goes on behind its end");
	if (!d.r.bad && d.s->hash != hash)
		refuse(&d, "its content does not have the hash it names");
	if (!d.r.bad && !db__schema_shown(d.s))
		refuse(&d, "its schema is not the one its rows show");
	db__reclaim_now(&d.reclaim);
	unpack_end(&d.packed);
	if (!d.r.bad) {
		db__state_add_fixed(d.s);
		return d.s;
	}
	*why_out = d.why != NULL ? d.why : "it ends too early";
	db__state_free(d.s);
	return NULL;
}
