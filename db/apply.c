/* The one writer of the state: a pure function of (state, entry), the same on every member.
 *
 * No clock, no randomness, no environment. An entry that cannot be read here although a majority
 * has it means a newer format or a broken disk: the member stops (APPLY_BROKEN), it never guesses.
 * Invariant: a refused or duplicate entry leaves rows and hash as they were; only the index moves.
 */
#include "db/feed_priv.h"
#include "db/snapshot_priv.h"

#include <stdlib.h>
#include <string.h>

enum {
	DONE_RESULTS =
		1024, /* remembered per proposer; a proposer has fewer under way (PROPOSALS_MAX) */
	DONE_PROPOSERS = 256,
	ROW_MAX_SINCE = 5, /* the active schema under which DB_ROW_MAX holds */
};

struct done_result {
	uint64_t sequence, index;
	uint8_t status;
	uint16_t failed;
};

struct done_proposer {
	uint64_t raft_id, boot, highest, last_index;
	struct done_result results[DONE_RESULTS];
};

struct done_table {
	struct done_proposer *proposers[DONE_PROPOSERS];
	unsigned n;
	unsigned rules_off; /* tests only */
};

struct done_table *db__done_new(unsigned rules_off)
{
	struct done_table *done = mem_new(sizeof *done);

	done->rules_off = rules_off;
	return done;
}

void db__done_free(struct done_table *done)
{
	if (done == NULL)
		return;
	for (unsigned i = 0; i < done->n; i++)
		free(done->proposers[i]);
	free(done);
}

struct done_table *db__done_dup(const struct done_table *done)
{
	struct done_table *copy = db__done_new(done->rules_off);

	copy->n = done->n;
	for (unsigned i = 0; i < done->n; i++) {
		copy->proposers[i] = mem_new(sizeof *copy->proposers[i]);
		*copy->proposers[i] = *done->proposers[i];
	}
	return copy;
}

void db__done_encode(const struct done_table *done, struct buf *out)
{
	buf_u32(out, done->n);
	for (unsigned i = 0; i < done->n; i++) {
		const struct done_proposer *p = done->proposers[i];
		size_t at;
		uint32_t n = 0;

		buf_u64(out, p->raft_id);
		buf_u64(out, p->boot);
		buf_u64(out, p->highest);
		buf_u64(out, p->last_index);
		at = out->len;
		buf_u32(out, 0);
		for (unsigned k = 0; k < DONE_RESULTS; k++) {
			if (p->results[k].sequence == 0)
				continue;
			buf_u64(out, p->results[k].sequence);
			buf_u64(out, p->results[k].index);
			buf_u8(out, p->results[k].status);
			buf_u16(out, p->results[k].failed);
			n++;
		}
		buf_patch_u32(out, at, n);
	}
}

/* The order of proposers decides which makes room for a new one: it is kept. */
bool db__done_decode(struct done_table *done, struct reader *r)
{
	uint32_t n = rd_u32(r);

	if (n > DONE_PROPOSERS)
		return false;
	for (uint32_t i = 0; i < n && !r->bad; i++) {
		struct done_proposer *p = done->proposers[done->n++] = mem_new(sizeof *p);
		uint32_t results;

		p->raft_id = rd_u64(r);
		p->boot = rd_u64(r);
		p->highest = rd_u64(r);
		p->last_index = rd_u64(r);
		results = rd_u32(r);
		for (uint32_t k = 0; k < results && !r->bad; k++) {
			struct done_result d = { .sequence = rd_u64(r) };

			d.index = rd_u64(r);
			d.status = rd_u8(r);
			d.failed = rd_u16(r);
			p->results[d.sequence % DONE_RESULTS] = d;
		}
	}
	return !r->bad && rd_left(r) == 0;
}

/* The table of a proposer; the one that was quiet longest makes room. */
static struct done_proposer *proposer(struct done_table *done, const struct db_proposal_id *id)
{
	struct done_proposer *p;
	unsigned slot = 0;

	for (unsigned i = 0; i < done->n; i++) {
		p = done->proposers[i];
		if (p->raft_id == id->raft_id && p->boot == id->boot)
			return p;
		if (p->last_index < done->proposers[slot]->last_index)
			slot = i;
	}
	if (done->n < DONE_PROPOSERS)
		slot = done->n++;
	else
		free(done->proposers[slot]);
	p = done->proposers[slot] = mem_new(sizeof *p);
	p->raft_id = id->raft_id;
	p->boot = id->boot;
	return p;
}

/* Has it been decided already? */
static bool known(const struct done_proposer *p, uint64_t sequence, struct apply_result *out)
{
	const struct done_result *d = &p->results[sequence % DONE_RESULTS];

	if (d->sequence == sequence && sequence != 0) {
		*out = (struct apply_result){ (enum apply_status)d->status, d->failed, true,
			d->index };
		return true;
	}
	if (p->highest >= DONE_RESULTS && sequence <= p->highest - DONE_RESULTS) {
		*out = (struct apply_result){ APPLY_REFUSED, APPLY_FORGOTTEN, true, 0 };
		return true; /* older than the window: nobody waits for it */
	}
	return false;
}

bool db__done_has(const struct done_table *done, const struct db_proposal_id *id)
{
	struct apply_result res;

	for (unsigned i = 0; i < done->n; i++)
		if (done->proposers[i]->raft_id == id->raft_id &&
			done->proposers[i]->boot == id->boot)
			return known(done->proposers[i], id->sequence, &res);
	return false;
}

static void remember(struct done_proposer *p, uint64_t sequence, const struct apply_result *res)
{
	p->results[sequence % DONE_RESULTS] = (struct done_result){ sequence, res->index,
		(uint8_t)res->status, (uint16_t)res->failed };
	if (sequence > p->highest)
		p->highest = sequence;
	p->last_index = res->index;
}

/* One entry under application. */
struct work {
	struct reclaim *reclaim;
	struct db_state *s;
	uint64_t index;
	struct arena arena;
	struct apply_changes *changes;
	unsigned schema_max;
	bool broken;
	bool foreign; /* the state would be of a schema this member does not run: wanted */
	unsigned wanted;
};

struct target {
	int class_id;
	const char *ref;
	const struct db_row *row; /* NULL: no such row */
};

static bool read_target(struct work *w, struct reader *r, struct target *out)
{
	const char *name = rd_str(r), *ref = rd_str(r);

	if (r->bad || (out->class_id = model_class_find(name, false)) < 0 ||
		strlen(ref) > DB_REF_MAX) {
		w->broken = true;
		return false;
	}
	out->ref = ref;
	out->row = db__state_get(w->s, out->class_id, ref);
	return true;
}

static int read_field(struct work *w, struct reader *r, int class_id)
{
	const char *name = rd_str(r);
	int field = r->bad ? -1 : model_field_find(class_id, name);

	if (field < 0)
		w->broken = true;
	return field;
}

static int64_t sum_of(struct work *w, int class_id, int relation_field, const char *ref, int field)
{
	struct db_view view = { .state = w->s };
	int relation = model_classes[class_id].fields[relation_field].relation;

	if (relation < 0) {
		w->broken = true;
		return 0;
	}
	return db_sum_related(&view, relation, ref, field);
}

static bool holds(struct work *w, struct reader *r)
{
	uint8_t kind = rd_u8(r);
	struct target t;
	struct val have, want;
	int field, other;
	int64_t more, limit;
	const char *key;
	uint64_t version;

	if (!read_target(w, r, &t))
		return false;
	switch (kind) {
	case NEED_ROW: return t.row != NULL;
	case NEED_NO_ROW: return t.row == NULL;
	case NEED_VERSION: version = rd_u64(r); return t.row != NULL && t.row->modified <= version;
	case NEED_FIELD:
		field = read_field(w, r, t.class_id);
		want = val_unpack(r, &w->arena);
		if (field < 0 || t.row == NULL)
			return false;
		have = db_row_field(t.row, field, &w->arena);
		return val_equal(&have, &want);
	case NEED_NO_KEY:
		field = read_field(w, r, t.class_id);
		key = rd_str(r);
		if (field < 0 || t.row == NULL || key == NULL)
			return false;
		have = db_row_field(t.row, field, &w->arena);
		return val_get(&have, key) == NULL;
	case NEED_SUM:
		field = read_field(w, r, t.class_id);
		other = field < 0 ? -1 : read_field(w, r, t.class_id);
		more = (int64_t)rd_u64(r);
		limit = (int64_t)rd_u64(r);
		return other >= 0 && sum_of(w, t.class_id, other, t.ref, field) + more <= limit;
	default: w->broken = true; return false;
	}
}

/* old or fresh may be NULL. */
static void note(struct work *w, const struct db_row *old, const struct db_row *fresh)
{
	const struct db_row *row = fresh != NULL ? fresh : old;
	struct apply_changes *c = w->changes;

	if (c->n == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 8;
		c->items = mem_resize(c->items, c->cap * sizeof *c->items);
	}
	c->items[c->n].class_id = row->class_id;
	strcpy(c->items[c->n++].ref, row->ref);
	if (c->keep_rows)
		c->n_rows += db__feed_row(&c->rows, old, fresh);
}

static struct val *unpacked(struct work *w, const struct db_row *row)
{
	unsigned n = model_classes[row->class_id].n_fields;
	struct val *fields = arena_alloc(&w->arena, n * sizeof *fields);

	for (unsigned i = 0; i < n; i++)
		fields[i] = db_row_field(row, (int)i, &w->arena);
	return fields;
}

static struct val *initial(struct work *w, int class_id)
{
	const struct model_class *c = &model_classes[class_id];
	struct val *fields = arena_alloc(&w->arena, c->n_fields * sizeof *fields);

	for (unsigned i = 0; i < c->n_fields; i++)
		fields[i] = c->fields[i].initial;
	return fields;
}

static void put(struct work *w, const struct db_row *old, const struct db_row *fresh, int changed)
{
	db__state_put(w->reclaim, w->s, old, fresh, changed);
	note(w, old, fresh);
}

static struct db_row *row_of(struct work *w, const struct db_row *old, int class_id,
	const char *ref, const struct val *fields)
{
	return db__row_new(class_id, ref, old != NULL ? old->created : w->index, w->index, fields,
		model_stored(class_id, w->s->schema));
}

/* A row of an older schema is written anew in the form of the active one. */
static bool is_current(struct work *w, const struct db_row *row)
{
	return row->n_fields == model_stored(row->class_id, w->s->schema);
}

static void put_field(struct work *w, const struct db_row *row, int field, const struct val *value)
{
	struct val *fields;

	if (is_current(w, row)) {
		put(w, row, db__row_with(row, w->index, field, value), field);
		return;
	}
	fields = unpacked(w, row);
	fields[field] = *value;
	put(w, row, row_of(w, row, row->class_id, row->ref, fields), DB_ANY_FIELD);
}

static void touch(struct work *w, int class_id, const char *ref)
{
	const struct db_row *row = db__state_get(w->s, class_id, ref);

	if (row == NULL || row->modified == w->index)
		return;
	if (is_current(w, row))
		put(w, row, db__row_touched(row, w->index), DB_NO_FIELD);
	else
		put(w, row, row_of(w, row, class_id, ref, unpacked(w, row)), DB_ANY_FIELD);
}

static void touch_many(struct work *w, int relation, const char *target)
{
	char ref[DB_REF_MAX + 1];

	if (strlen(target) > DB_REF_MAX)
		return;
	strcpy(ref, target); /* touching may replace the row that target lies in */
	touch(w, model_relations[relation].many_class, ref);
}

/* A change of the one side of a relation is a change of the row at the many side, before and after.
 */
static void touch_related(struct work *w, const struct db_row *row, int only_field)
{
	const struct model_class *c = &model_classes[row->class_id];

	for (unsigned i = 0; i < c->n_fields; i++) {
		const struct model_field *f = &c->fields[i];
		struct val v;

		if (f->relation < 0 || (only_field >= 0 && (int)i != only_field) ||
			model_relations[f->relation].many_field < 0 ||
			model_relations[f->relation].schema > w->s->schema)
			continue;
		v = db_row_field(row, (int)i, &w->arena);
		if (f->type->kind == MODEL_REF)
			touch_many(w, f->relation, v.s);
		for (uint32_t k = 0; f->type->kind == MODEL_SET && k < v.n; k++)
			touch_many(w, f->relation, v.items[k].s);
	}
}

static void op_create(struct work *w, struct reader *r, const struct target *t)
{
	struct val *fields = initial(w, t->class_id);
	uint32_t n = rd_u32(r);

	for (uint32_t k = 0; k < n && !w->broken && !r->bad; k++) {
		int field = read_field(w, r, t->class_id);
		struct val v = val_unpack(r, &w->arena);

		if (field >= 0)
			fields[field] = v;
	}
	/* creating twice is a mistake of the builder: it needs a precondition; the first row stays
	 */
	if (t->row != NULL || w->broken || r->bad)
		return;
	put(w, NULL, row_of(w, NULL, t->class_id, t->ref, fields), DB_ANY_FIELD);
	touch_related(w, db__state_get(w->s, t->class_id, t->ref), -1);
}

static void delete_row(struct work *w, int class_id, const char *ref);

/* Rows that have no meaning without the one that went: what it owned, and what the schema lets go
 * with it. The model is checked to have no cycle of these. */
static void delete_dependents(struct work *w, const struct model_class *c, int class_id,
	const char *ref, struct val *owned)
{
	struct db_view view = { .state = w->s };
	const struct db_row *row;
	struct db_cursor cursor;
	struct val refs;

	for (unsigned i = 0; i < c->n_fields; i++)
		if (c->fields[i].owns)
			delete_row(w, c->fields[i].type->class_id, owned[i].s);
	for (int r = 0; r < MODEL_RELATION_COUNT; r++) {
		if (model_relations[r].many_class != class_id || !model_relations[r].cascade ||
			model_relations[r].schema > w->s->schema)
			continue;
		refs = val_set();
		cursor = db_rows_related(&view, r, ref);
		while ((row = db_next(&cursor)) != NULL)
			val_set_push(
				&w->arena, &refs, val_string(arena_strdup(&w->arena, row->ref)));
		for (uint32_t k = 0; k < refs.n; k++)
			delete_row(w, model_relations[r].one_class, refs.items[k].s);
	}
}

static void delete_row(struct work *w, int class_id, const char *ref)
{
	const struct model_class *c = &model_classes[class_id];
	const struct db_row *row = db__state_get(w->s, class_id, ref);
	const char *name = arena_strdup(&w->arena, ref);
	struct val *owned;

	if (row == NULL)
		return;
	owned = unpacked(w, row);
	for (unsigned i = 0; i < c->n_fields; i++)
		if (c->fields[i].owns)
			owned[i] = val_string(arena_strdup(&w->arena, owned[i].s));
	touch_related(w, row, -1);
	/* touching a row that refers to itself has replaced it */
	row = db__state_get(w->s, class_id, name);
	db__state_delete(w->reclaim, w->s, row, w->index);
	note(w, row, NULL);
	delete_dependents(w, c, class_id, name, owned);
}

static struct val set_without(struct arena *a, const struct val *set, const struct val *item)
{
	struct val out = val_set();

	for (uint32_t i = 0; i < set->n; i++)
		if (!val_equal(&set->items[i], item))
			val_set_push(a, &out, set->items[i]);
	return out;
}

static struct val map_without(struct arena *a, const struct val *map, const char *key)
{
	struct val out = val_map();

	for (uint32_t i = 0; i < map->n; i++)
		if (strcmp(map->pairs[i].key, key) != 0)
			val_map_push(a, &out, map->pairs[i].key, map->pairs[i].value);
	return out;
}

/* The new value of the field; the arguments of the operation follow in r. */
static struct val edited(struct work *w, struct reader *r, uint8_t kind, struct val v)
{
	bool is_map = kind == OP_MAP_ADD || kind == OP_MAP_REMOVE;
	const char *key = is_map ? rd_str(r) : NULL;
	struct val item = kind != OP_MAP_REMOVE ? val_unpack(r, &w->arena) : val_void();

	if (kind == OP_SET)
		return item;
	if (r->bad || v.kind != (is_map ? VAL_MAP : VAL_SET)) {
		w->broken = true;
		return v;
	}
	if (is_map) {
		v = map_without(&w->arena, &v, key);
		if (kind == OP_MAP_ADD)
			val_map_push(&w->arena, &v, key, item);
		return v;
	}
	v = set_without(&w->arena, &v, &item);
	if (kind == OP_SET_ADD)
		val_set_push(&w->arena, &v, item);
	return v;
}

/* An equal value is no change. Rows that are replaced meanwhile stay until the state is published.
 */
static void set_field(struct work *w, const struct db_row *row, int field, const struct val *was,
	const struct val *is)
{
	int class_id = row->class_id;
	bool related = model_classes[class_id].fields[field].relation >= 0;

	if (val_equal(was, is))
		return;
	if (related) {
		touch_related(w, row, field);
		row = db__state_get(w->s, class_id, row->ref);
	}
	put_field(w, row, field, is);
	if (related)
		touch_related(w, db__state_get(w->s, class_id, row->ref), field);
}

static void op_field(struct work *w, struct reader *r, uint8_t kind, const struct target *t)
{
	int field = read_field(w, r, t->class_id);
	struct val was, is;

	if (field < 0)
		return;
	if (t->row == NULL) { /* gone: read over the arguments */
		struct val none =
			kind == OP_MAP_ADD || kind == OP_MAP_REMOVE ? val_map() : val_set();

		edited(w, r, kind, none);
		return;
	}
	was = db_row_field(t->row, field, &w->arena);
	is = edited(w, r, kind, was);
	if (!w->broken && !r->bad)
		set_field(w, t->row, field, &was, &is);
}

/* The active schema, and the row that shows it. */
static void set_schema(struct work *w, unsigned schema)
{
	const struct db_row *row = db__state_get(w->s, MODEL_CLASS__config, DB_SCHEMA_REF);
	struct val *fields = initial(w, MODEL_CLASS__config);

	w->wanted = schema;
	w->foreign = schema < MODEL_SCHEMA_BASE || schema > w->schema_max;
	if (w->foreign)
		return;
	w->s->schema = schema;
	fields[_CONFIG_value] = val_string(arena_printf(&w->arena, "%u", schema));
	put(w, row, row_of(w, row, MODEL_CLASS__config, DB_SCHEMA_REF, fields), DB_ANY_FIELD);
}

/* Trees are never changed in place: this walks the class as it was before. */
static void run_rule(struct work *w, const struct model_rule *rule)
{
	struct db_view view = { .state = w->s };
	struct db_cursor c = db_rows(&view, rule->class_id);
	struct arena kept = w->arena;
	const struct db_row *row;
	const struct val *v;
	struct val from, was;

	while ((row = db_next(&c)) != NULL) {
		arena_init(&w->arena); /* for one row: there may be many */
		row = db__state_get(w->s, rule->class_id, row->ref); /* after an earlier rule */
		from = db_row_field(row, rule->from, &w->arena);
		was = db_row_field(row, rule->field, &w->arena);
		v = rule->key == NULL ? &from : val_get(&from, rule->key);
		if (v != NULL)
			set_field(w, row, rule->field, &was, v);
		arena_fini(&w->arena);
	}
	w->arena = kept;
}

/* From here on rows are written with the fields of this schema, old ones as they change. */
static void op_raise(struct work *w, struct reader *r)
{
	unsigned from = w->s->schema, to = rd_u32(r);

	if (r->bad || to <= from)
		return;
	set_schema(w, to);
	for (const struct model_rule *rule = model_rules; rule->schema != 0 && !w->foreign; rule++)
		if (rule->schema > from && rule->schema <= to)
			run_rule(w, rule);
}

static void operate(struct work *w, struct reader *r)
{
	uint8_t kind = rd_u8(r);
	struct target t;

	if (!read_target(w, r, &t))
		return;
	switch (kind) {
	case OP_CREATE: op_create(w, r, &t); break;
	case OP_DELETE: delete_row(w, t.class_id, t.ref); break;
	case OP_TOUCH: touch(w, t.class_id, t.ref); break;
	case OP_RAISE: op_raise(w, r); break;
	case OP_SET:
	case OP_SET_ADD:
	case OP_SET_REMOVE:
	case OP_MAP_ADD:
	case OP_MAP_REMOVE: op_field(w, r, kind, &t); break;
	default: w->broken = true; break;
	}
}

/* Reading an entry without applying it: every name must be known and every value of its field's
 * type, or nothing of the entry happens. So neither a broken builder nor a hostile member can
 * poison a row. */

bool db__fits(const struct model_type *type, const struct val *v)
{
	bool ok = true;

	switch (type->kind) {
	case MODEL_STRING:
	case MODEL_SECRET:
	case MODEL_ENUM:
	case MODEL_REF: return v->kind == VAL_STRING;
	case MODEL_INT: return v->kind == VAL_INT;
	case MODEL_FLOAT: return v->kind == VAL_FLOAT;
	case MODEL_BOOL: return v->kind == VAL_BOOL;
	case MODEL_DATETIME: return v->kind == VAL_DATETIME;
	case MODEL_SET:
		for (uint32_t i = 0; v->kind == VAL_SET && i < v->n && ok; i++)
			ok = db__fits(type->item, &v->items[i]);
		return ok && v->kind == VAL_SET;
	case MODEL_MAP:
		for (uint32_t i = 0; v->kind == VAL_MAP && i < v->n && ok; i++)
			ok = db__fits(type->item, &v->pairs[i].value);
		return ok && v->kind == VAL_MAP;
	default: return false;
	}
}

struct checker {
	struct reader r;
	struct arena arena;
	unsigned schema;		/* of the entry */
	const struct db_state *limited; /* rows there are bounded; NULL: nobody looks */
	const char *ref;		/* under judgement */
	const struct db_row *row;	/* its row in that state */
	bool full;
	bool grows;   /* rows there get larger, or more */
	bool shows;   /* the row under judgement is the one that shows the active schema */
	bool unknown; /* a name or kind that this schema does not have */
	bool misfit;
};

static int check_class(struct checker *c)
{
	const char *name = rd_str(&c->r), *ref = rd_str(&c->r);
	int class_id = c->r.bad ? -1 : model_class_find(name, false);

	if (class_id < 0 || model_classes[class_id].table == MODEL_TABLE_NONE ||
		model_classes[class_id].schema > c->schema)
		c->unknown = true;
	else if (*ref == 0 || strlen(ref) > DB_REF_MAX ||
		 model_classes[class_id].table == MODEL_TABLE_FIXED)
		c->misfit = true;
	c->shows = class_id == MODEL_CLASS__config && strcmp(ref, DB_SCHEMA_REF) == 0;
	c->ref = ref;
	return c->unknown ? -1 : class_id;
}

static const struct model_field *check_field(struct checker *c, int class_id)
{
	const char *name = rd_str(&c->r);
	int field = class_id < 0 || c->r.bad ? -1 : model_field_find(class_id, name);

	if (field < 0 || model_classes[class_id].fields[field].schema > c->schema) {
		c->unknown = true;
		return NULL;
	}
	c->misfit |= field >= (int)model_classes[class_id].n_stored;
	return &model_classes[class_id].fields[field];
}

/* A value for all of the field, or for one item of it. */
static void check_value(struct checker *c, const struct model_field *f, enum model_kind whole)
{
	struct val v = val_unpack(&c->r, &c->arena);

	if (f == NULL || c->r.bad)
		return;
	if (whole == MODEL_SET || whole == MODEL_MAP)
		c->misfit |= f->type->kind != whole || !db__fits(f->type->item, &v);
	else
		c->misfit |= !db__fits(f->type, &v);
}

static void check_need(struct checker *c)
{
	uint8_t kind = rd_u8(&c->r);
	int class_id = check_class(c);
	const struct model_field *f;

	switch (kind) {
	case NEED_ROW:
	case NEED_NO_ROW: break;
	case NEED_VERSION: rd_u64(&c->r); break;
	case NEED_FIELD: check_value(c, check_field(c, class_id), MODEL_VOID); break;
	case NEED_NO_KEY:
		f = check_field(c, class_id);
		c->misfit |= f != NULL && f->type->kind != MODEL_MAP;
		rd_str(&c->r);
		break;
	case NEED_SUM:
		f = check_field(c, class_id);
		c->misfit |= f != NULL && f->type->kind != MODEL_INT;
		f = check_field(c, class_id);
		c->misfit |= f != NULL &&
			     (f->relation < 0 || model_relations[f->relation].schema > c->schema);
		rd_u64(&c->r);
		rd_u64(&c->r);
		break;
	default: c->unknown = true; break;
	}
}

/* A row that has reached its limit takes what is no larger than what it replaces. n: bytes of the
 * new value, or of a key and value more. Sessions and tasks go by themselves. */
static void check_room(struct checker *c, uint8_t kind, const struct model_field *f, size_t n)
{
	int field = f != NULL ? (int)(f - model_classes[c->row->class_id].fields) : -1;
	size_t before = 0;

	if (field >= 0 && kind == OP_SET && field < c->row->n_fields)
		before = c->row->offsets[field + 1] - c->row->offsets[field];
	c->full |= c->row->size > DB_ROW_MAX && n > before;
	c->grows |= n > before && model_classes[c->row->class_id].table != MODEL_TABLE_VOLATILE;
}

static void check_op(struct checker *c)
{
	uint8_t kind = rd_u8(&c->r);
	int class_id = check_class(c);
	const struct model_field *f = NULL;
	const uint8_t *from = c->r.p;
	uint32_t n;

	c->row = c->limited != NULL && !c->unknown && !c->misfit
			 ? db__state_get(c->limited, class_id, c->ref)
			 : NULL;
	c->misfit |= c->shows != (kind == OP_RAISE);
	switch (kind) {
	case OP_CREATE:
		c->grows |= c->row == NULL;
		n = rd_u32(&c->r);
		for (uint32_t i = 0; i < n && !c->unknown && !c->r.bad; i++)
			check_value(c, check_field(c, class_id), MODEL_VOID);
		break;
	case OP_DELETE:
	case OP_TOUCH: break;
	case OP_RAISE: rd_u32(&c->r); break;
	case OP_SET:
	case OP_SET_ADD:
	case OP_SET_REMOVE:
		f = check_field(c, class_id);
		from = c->r.p;
		check_value(c, f, kind == OP_SET ? MODEL_VOID : MODEL_SET);
		break;
	case OP_MAP_ADD:
		f = check_field(c, class_id);
		from = c->r.p;
		rd_str(&c->r);
		check_value(c, f, MODEL_MAP);
		break;
	case OP_MAP_REMOVE:
		f = check_field(c, class_id);
		c->misfit |= f != NULL && f->type->kind != MODEL_MAP;
		rd_str(&c->r);
		break;
	default: c->unknown = true; break;
	}
	if (c->row != NULL && (kind == OP_SET || kind == OP_SET_ADD || kind == OP_MAP_ADD))
		check_room(c, kind, f, (size_t)(c->r.p - from));
}

static void check_all(struct checker *c)
{
	uint32_t n = rd_u32(&c->r);

	arena_init(&c->arena);
	for (uint32_t i = 0; i < n && !c->unknown && !c->r.bad; i++)
		check_need(c);
	n = rd_u32(&c->r);
	for (uint32_t i = 0; i < n && !c->unknown && !c->r.bad; i++)
		check_op(c);
	arena_fini(&c->arena);
}

/* failed_out: why it is refused. */
static enum apply_status check(
	const struct entry_head *head, const struct db_state *limited, unsigned *failed_out)
{
	struct checker c = { .r = head->body, .schema = head->schema, .limited = limited };

	if (head->format > DB_FORMAT || head->schema > MODEL_SCHEMA_VERSION)
		return APPLY_BROKEN;
	check_all(&c);
	*failed_out = c.misfit ? APPLY_MISFIT : APPLY_FULL;
	return c.unknown || c.r.bad ? APPLY_BROKEN
	       : c.misfit || c.full ? APPLY_REFUSED
				    : APPLY_DONE;
}

enum apply_status db__entry_check(const struct entry_head *head)
{
	unsigned failed;

	return check(head, NULL, &failed);
}

bool db__entry_grows(const struct entry_head *head, const struct db_state *s)
{
	struct checker c = { .r = head->body, .schema = head->schema, .limited = s };

	if (head->reason != DB_FOR_FIELD)
		return false;
	check_all(&c);
	return c.grows;
}

/* What clients write is bounded; what the pool itself must write, such as the end of a task, is
 * not, and never grows without end. */
static const struct db_state *limited(const struct work *w, const struct entry_head *head)
{
	return head->reason == DB_FOR_FIELD && w->s->schema >= ROW_MAX_SINCE ? w->s : NULL;
}

static struct apply_result run(struct work *w, struct reader *r, bool regardless)
{
	struct apply_result res = { .status = APPLY_DONE, .index = w->index };
	uint32_t n = rd_u32(r);

	for (uint32_t i = 0; i < n && !w->broken && !r->bad; i++) {
		if (!holds(w, r) && !w->broken && !regardless) {
			/* every precondition is read so that a broken entry is told from a refused
			 * one */
			if (res.status == APPLY_DONE)
				res.failed = i;
			res.status = APPLY_REFUSED;
		}
	}
	if (res.status == APPLY_DONE && !w->broken && !r->bad) {
		n = rd_u32(r);
		for (uint32_t i = 0; i < n && !w->broken && !r->bad; i++)
			operate(w, r);
	}
	if (w->broken || r->bad)
		res.status = APPLY_BROKEN;
	return res;
}

/* What is new is decided once; an entry made under another schema than the active one is not read,
 * for its maker relied on rules that hold no more: it is refused, and made anew. */
static struct apply_result decide(
	struct work *w, struct done_table *done, const struct entry_head *head)
{
	struct done_proposer *p = proposer(done, &head->id);
	struct apply_result res = { .status = APPLY_REFUSED, .index = w->index };
	struct reader body = head->body;
	enum apply_status checked;
	unsigned why;

	if (w->s->schema == 0) /* the first entry of a pool */
		set_schema(w, head->schema);
	if (!(done->rules_off & RULE_DEDUPLICATION) && known(p, head->id.sequence, &res))
		return res;
	if (head->schema != w->s->schema) {
		res.failed = APPLY_SCHEMA;
	} else if ((checked = check(head, limited(w, head), &why)) == APPLY_REFUSED) {
		res.failed = why;
	} else if (checked == APPLY_DONE) {
		res = run(w, &body, done->rules_off & RULE_PRECONDITIONS);
	} else {
		return (struct apply_result){ .status = APPLY_BROKEN };
	}
	remember(p, head->id.sequence, &res);
	return res;
}

struct apply_result db__apply(struct views *v, struct done_table *done, uint64_t index,
	const struct entry_head *head, struct apply_changes *changes)
{
	const struct db_state *old = v->root;
	struct db_state *next = old != NULL ? must(malloc(sizeof *next)) : mem_new(sizeof *next);
	struct work w = { .reclaim = &v->reclaim,
		.s = next,
		.index = index,
		.changes = changes,
		.schema_max = v->schema_max };
	struct apply_result res;

	CHECK(old == NULL || index > old->index);
	if (old != NULL)
		*next = *old;
	next->index = index;
	if (head->wall > next->time)
		next->time = head->wall;
	changes->n = changes->n_rows = 0;
	changes->rows.len = 0;
	arena_init(&w.arena);
	res = decide(&w, done, head);
	if (w.foreign)
		res = (struct apply_result){ .status = APPLY_FOREIGN, .failed = w.wanted };
	arena_fini(&w.arena);
	db__views_publish(v, next);
	return res;
}
