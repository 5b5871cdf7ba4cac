/* Rows and their indexes: see state_priv.h. */
#include "db/snapshot_priv.h"
#include "rpc/base/hash.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct db_row *row_alloc(int class_id, const char *ref, uint64_t created, uint64_t modified,
	unsigned n, size_t packed)
{
	size_t head = sizeof(struct db_row) + (n + 1) * sizeof(uint32_t);
	struct db_row *row = must(malloc(head + packed));

	CHECK(strlen(ref) <= DB_REF_MAX && n <= model_classes[class_id].n_stored);
	*row = (struct db_row){ .created = created,
		.modified = modified,
		.size = (uint32_t)(head + packed),
		.class_id = (uint16_t)class_id,
		.n_fields = (uint16_t)n };
	strcpy(row->ref, ref);
	return row;
}

/* The same in every build: ids of classes are those of one build, the name takes their place; the
 * order of stored fields is the schema's (db/model/gen/schema.py). */
static void row_seal(struct db_row *row)
{
	const uint32_t head = row->offsets[0];

	CHECK(row->offsets[row->n_fields] == row->size);
	row->hash = hash_text(model_classes[row->class_id].name) ^
		    hash_bytes((char *)row + head, row->size - head) ^
		    (hash_text(row->ref) + row->modified * 0x9e3779b97f4a7c15u + row->created);
	row->hash = hash_bytes(&row->hash, sizeof row->hash);
}

struct db_row *db__row_new(int class_id, const char *ref, uint64_t created, uint64_t modified,
	const struct val *fields, unsigned n)
{
	uint32_t offsets[MODEL_FIELDS_MAX + 1];
	struct buf packed = { 0 };
	struct db_row *row;

	for (unsigned i = 0; i < n; i++) {
		offsets[i] = (uint32_t)packed.len;
		val_pack(&packed, &fields[i]);
	}
	offsets[n] = (uint32_t)packed.len;
	row = row_alloc(class_id, ref, created, modified, n, packed.len);
	for (unsigned i = 0; i <= n; i++)
		row->offsets[i] = offsets[i] + (uint32_t)(row->size - packed.len);
	memcpy((char *)row + row->offsets[0], packed.data, packed.len);
	buf_fini(&packed);
	row_seal(row);
	return row;
}

struct db_row *db__row_with(
	const struct db_row *old, uint64_t modified, int field, const struct val *value)
{
	uint32_t from = old->offsets[field], to = old->offsets[field + 1];
	struct buf packed = { 0 };
	struct db_row *row;
	char *at;

	CHECK(field >= 0 && field < old->n_fields);
	val_pack(&packed, value);
	row = row_alloc(old->class_id, old->ref, old->created, modified, old->n_fields,
		old->size - old->offsets[0] - (to - from) + packed.len);
	for (int i = 0; i <= old->n_fields; i++)
		row->offsets[i] = i <= field ? old->offsets[i]
					     : old->offsets[i] - (to - from) + (uint32_t)packed.len;
	at = (char *)row + old->offsets[0];
	memcpy(at, (const char *)old + old->offsets[0], from - old->offsets[0]);
	memcpy((char *)row + from, packed.data, packed.len);
	memcpy((char *)row + from + packed.len, (const char *)old + to, old->size - to);
	buf_fini(&packed);
	row_seal(row);
	return row;
}

struct db_row *db__row_touched(const struct db_row *old, uint64_t modified)
{
	struct db_row *row = must(malloc(old->size));

	memcpy(row, old, old->size);
	row->modified = modified;
	row_seal(row);
	return row;
}

/* Keys of secondary indexes: text, NUL, creation index big-endian, ref. */
struct key {
	size_t n;
	char b[DB_KEY_MAX];
};

static void key_text(struct key *k, const char *text, const struct db_row *row)
{
	uint64_t created = htobe64(row->created);
	size_t n = strlen(text);

	if (n > KEY_TEXT_MAX) /* labels have no limit: readers compare the rest themselves
				 (db_rows_with_label) */
		n = KEY_TEXT_MAX;
	memcpy(k->b, text, n);
	k->b[n] = 0;
	memcpy(k->b + n + 1, &created, sizeof created);
	strcpy(k->b + n + 9, row->ref);
	k->n = n + 9 + strlen(row->ref);
}

static void key_number(struct key *k, uint64_t number, const char *ref)
{
	number = htobe64(number);
	memcpy(k->b, &number, sizeof number);
	strcpy(k->b + 8, ref);
	k->n = 8 + strlen(ref);
}

static void index_text(struct reclaim *r, const struct tree **t, const char *text,
	const struct db_row *row, bool add)
{
	struct key k;

	key_text(&k, text, row);
	*t = add ? tree_put(r, *t, k.b, k.n, row) : tree_del(r, *t, k.b, k.n);
}

/* Replace one text in an index, when it differs. */
static void reindex_text(struct reclaim *r, const struct tree **t, const struct db_row *old,
	const struct db_row *fresh, int field)
{
	const char *was = old != NULL ? db_row_s(old, field) : NULL;
	const char *is = fresh != NULL ? db_row_s(fresh, field) : NULL;

	if (was != NULL && is != NULL && strcmp(was, is) == 0)
		return;
	if (was != NULL)
		index_text(r, t, was, old, false);
	if (is != NULL)
		index_text(r, t, is, fresh, true);
}

static bool holds_item(const struct val *set, const char *text)
{
	for (uint32_t i = 0; i < set->n; i++)
		if (strcmp(set->items[i].s, text) == 0)
			return true;
	return false;
}

/* The same for a set of references: one key for each. */
static void reindex_set(struct reclaim *r, const struct tree **t, const struct db_row *old,
	const struct db_row *fresh, int field)
{
	struct arena a;
	struct val was, is;

	arena_init(&a);
	was = old != NULL ? db_row_field(old, field, &a) : val_set();
	is = fresh != NULL ? db_row_field(fresh, field, &a) : val_set();
	for (uint32_t i = 0; i < was.n; i++)
		if (!holds_item(&is, was.items[i].s))
			index_text(r, t, was.items[i].s, old, false);
	for (uint32_t i = 0; i < is.n; i++)
		if (!holds_item(&was, is.items[i].s))
			index_text(r, t, is.items[i].s, fresh, true);
	arena_fini(&a);
}

static void reindex_relation(struct reclaim *r, struct db_state *s, const struct db_row *old,
	const struct db_row *fresh, const struct model_class *c, int field)
{
	const struct model_field *f = &c->fields[field];
	const struct tree **t = &s->relations[f->relation];

	if (f->type->kind == MODEL_SET)
		reindex_set(r, t, old, fresh, field);
	else
		reindex_text(r, t, old, fresh, field);
}

static void sum_put(struct reclaim *r, struct db_state *s, const struct db_row *row, bool add)
{
	const char *host = db_row_s(row, _RESERVATION_host);
	const struct db_sum *was = tree_get(s->set_aside, host, strlen(host));
	uint64_t bytes = (uint64_t)db_row_i(row, _RESERVATION_bytes);
	struct db_sum is = { 0 }, *fresh;

	if (was != NULL) {
		is = *was;
		reclaim_later(r, was);
	}
	is.rows = add ? is.rows + 1 : is.rows - 1;
	is.bytes = (int64_t)((uint64_t)is.bytes + (add ? bytes : -bytes));
	if (is.rows == 0) {
		s->set_aside = tree_del(r, s->set_aside, host, strlen(host));
		return;
	}
	fresh = mem_new(sizeof *fresh);
	*fresh = is;
	s->set_aside = tree_put(r, s->set_aside, host, strlen(host), fresh);
}

static void reindex_sum(
	struct reclaim *r, struct db_state *s, const struct db_row *old, const struct db_row *fresh)
{
	if (old != NULL)
		sum_put(r, s, old, false);
	if (fresh != NULL)
		sum_put(r, s, fresh, true);
}

static bool concerns(int changed, int field)
{
	return field >= 0 && (changed == DB_ANY_FIELD || changed == field);
}

static void reindex(struct reclaim *r, struct db_state *s, const struct db_row *old,
	const struct db_row *fresh, int changed)
{
	const struct db_row *any = fresh != NULL ? fresh : old;
	const struct model_class *c = &model_classes[any->class_id];
	struct class_state *cs = &s->classes[any->class_id];
	struct key k;

	/* fixed rows are neither news nor part of the hash */
	if (old != NULL && c->table != MODEL_TABLE_FIXED) {
		key_number(&k, old->modified, old->ref);
		cs->modified = tree_del(r, cs->modified, k.b, k.n);
		s->hash -= old->hash;
		s->bytes -= old->size;
	}
	if (fresh != NULL && c->table != MODEL_TABLE_FIXED) {
		key_number(&k, fresh->modified, fresh->ref);
		cs->modified = tree_put(r, cs->modified, k.b, k.n, fresh);
		s->hash += fresh->hash;
		s->bytes += fresh->size;
	}
	if (concerns(changed, c->uuid_field))
		reindex_text(r, &cs->uuids, old, fresh, c->uuid_field);
	if (concerns(changed, c->label_field))
		reindex_text(r, &cs->labels, old, fresh, c->label_field);
	for (unsigned i = 0; changed == DB_ANY_FIELD && i < c->n_fields; i++)
		if (c->fields[i].relation >= 0)
			reindex_relation(r, s, old, fresh, c, (int)i);
	if (changed >= 0 && c->fields[changed].relation >= 0)
		reindex_relation(r, s, old, fresh, c, changed);
	if (any->class_id == MODEL_CLASS__reservation)
		reindex_sum(r, s, old, fresh);
}

const struct db_row *db__state_get(const struct db_state *s, int class_id, const char *ref)
{
	return tree_get(s->classes[class_id].rows, ref, strlen(ref));
}

void db__state_put(struct reclaim *r, struct db_state *s, const struct db_row *old,
	const struct db_row *fresh, int changed)
{
	struct class_state *cs = &s->classes[fresh->class_id];

	cs->rows = tree_put(r, cs->rows, fresh->ref, strlen(fresh->ref), fresh);
	reindex(r, s, old, fresh, changed);
	if (old == NULL)
		cs->n_rows++;
	else
		reclaim_later(r, old);
}

static void forget_oldest(struct reclaim *r, struct class_state *cs)
{
	const struct tree_entry *e = tree_seek(cs->deleted, "", 0, false);
	size_t n;
	const void *key = tree_key(e, &n), *gone = tree_value(e);
	uint64_t index;

	memcpy(&index, key, sizeof index);
	cs->horizon = be64toh(index);
	cs->deleted = tree_del(r, cs->deleted, key, n);
	cs->n_deleted--;
	reclaim_later(r, gone);
}

void db__state_put_deleted(struct reclaim *r, struct class_state *cs, const char *ref,
	uint64_t created, const uint8_t *index)
{
	struct db_gone_row *gone;
	uint64_t number;
	struct key k;

	memcpy(&number, index, sizeof number);
	key_number(&k, be64toh(number), ref);
	if (tree_get(cs->deleted, k.b, k.n) !=
		NULL) /* deleted, made and deleted again by one entry */
		return;
	gone = mem_new(sizeof *gone);
	gone->created = created;
	strcpy(gone->ref, ref);
	cs->deleted = tree_put(r, cs->deleted, k.b, k.n, gone);
	cs->n_deleted++;
}

void db__state_delete(
	struct reclaim *r, struct db_state *s, const struct db_row *old, uint64_t index)
{
	struct class_state *cs = &s->classes[old->class_id];

	cs->rows = tree_del(r, cs->rows, old->ref, strlen(old->ref));
	cs->n_rows--;
	reindex(r, s, old, NULL, DB_ANY_FIELD);
	if (model_classes[old->class_id].events) { /* else nobody asks */
		index = htobe64(index);
		db__state_put_deleted(r, cs, old->ref, old->created, (const uint8_t *)&index);
	}
	if (cs->n_deleted > DB_DELETED_MAX)
		forget_oldest(r, cs);
	reclaim_later(r, old);
}

/* The same keys in both. */
static bool same_keys(const struct tree *a, const struct tree *b)
{
	const struct tree_entry *x = tree_seek(a, "", 0, false), *y = tree_seek(b, "", 0, false);

	while (x != NULL && y != NULL) {
		size_t xn, yn;
		const void *xk = tree_key(x, &xn), *yk = tree_key(y, &yn);

		if (xn != yn || memcmp(xk, yk, xn) != 0)
			return false;
		x = tree_seek(a, xk, xn, true);
		y = tree_seek(b, yk, yn, true);
	}
	return x == NULL && y == NULL;
}

static bool same_sums(const struct tree *a, const struct tree *b)
{
	const struct tree_entry *e = tree_seek(a, "", 0, false);

	while (e != NULL) {
		size_t n;
		const void *host = tree_key(e, &n);
		const struct db_sum *x = tree_value(e), *y = tree_get(b, host, n);

		if (y == NULL || x->rows != y->rows || x->bytes != y->bytes)
			return false;
		e = tree_seek(a, host, n, true);
	}
	return true;
}

/* Index the rows of s anew, into fresh. */
static void rebuild(struct reclaim *r, const struct db_state *s, struct db_state *fresh)
{
	for (int c = 0; c < MODEL_CLASS_COUNT; c++) {
		const struct tree_entry *e = tree_seek(s->classes[c].rows, "", 0, false);

		while (e != NULL) {
			size_t n;
			const void *k = tree_key(e, &n);

			reindex(r, fresh, NULL, tree_value(e), DB_ANY_FIELD);
			fresh->classes[c].n_rows++;
			e = tree_seek(s->classes[c].rows, k, n, true);
		}
	}
}

static bool compare(const struct db_state *s, const struct db_state *fresh, char *why, size_t n)
{
	for (int c = 0; c < MODEL_CLASS_COUNT; c++) {
		const struct class_state *a = &s->classes[c], *b = &fresh->classes[c];

		if (a->n_rows == b->n_rows && same_keys(a->uuids, b->uuids) &&
			same_keys(a->labels, b->labels) && same_keys(a->modified, b->modified))
			continue;
		snprintf(why, n, "an index of class %s disagrees with its rows",
			model_classes[c].name);
		return false;
	}
	for (int i = 0; i < MODEL_RELATION_COUNT; i++) {
		const struct model_relation *r = &model_relations[i];

		if (same_keys(s->relations[i], fresh->relations[i]))
			continue;
		snprintf(why, n, "the relation of %s.%s disagrees with its rows",
			model_classes[r->one_class].name,
			model_classes[r->one_class].fields[r->one_field].name);
		return false;
	}
	if (!same_keys(s->set_aside, fresh->set_aside) ||
		!same_sums(s->set_aside, fresh->set_aside)) {
		snprintf(why, n, "the memory set aside on a host disagrees with its reservations");
		return false;
	}
	if (s->hash != fresh->hash || s->bytes != fresh->bytes) {
		snprintf(why, n, "the hash or the size disagrees with the rows");
		return false;
	}
	return true;
}

bool db__schema_runs(unsigned schema)
{
	return schema == 0 || (schema >= MODEL_SCHEMA_BASE && schema <= MODEL_SCHEMA_VERSION);
}

bool db__schema_shown(const struct db_state *s)
{
	const struct db_row *row = db__state_get(s, MODEL_CLASS__config, DB_SCHEMA_REF);
	char text[16];

	snprintf(text, sizeof text, "%u", s->schema);
	return row == NULL ? s->schema == 0 : strcmp(db_row_s(row, _CONFIG_value), text) == 0;
}

bool db__state_check(const struct db_state *s, char *why, size_t n)
{
	struct views v;
	struct db_state fresh = { 0 };
	bool ok;

	db__views_init(&v);
	rebuild(&v.reclaim, s, &fresh);
	ok = compare(s, &fresh, why, n);
	if (ok && !db__schema_shown(s)) {
		snprintf(why, n, "the row of the active schema disagrees with it");
		ok = false;
	}
	for (int c = 0; c < MODEL_CLASS_COUNT; c++) {
		tree_free(fresh.classes[c].uuids, false);
		tree_free(fresh.classes[c].labels, false);
		tree_free(fresh.classes[c].modified, false);
	}
	for (int i = 0; i < MODEL_RELATION_COUNT; i++)
		tree_free(fresh.relations[i], false);
	tree_free(fresh.set_aside, true);
	db__views_fini(&v);
	return ok;
}
