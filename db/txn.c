/* Building and encoding of log entries: see txn.h; the reader is apply.c. */
#include "db/entry_priv.h"

#include <string.h>

void db_txn_init(struct db_txn *t, enum db_reason reason)
{
	*t = (struct db_txn){ .reason = reason };
}

void db_txn_fini(struct db_txn *t)
{
	buf_fini(&t->origin);
	buf_fini(&t->preconditions);
	buf_fini(&t->ops);
}

/* At most DB_ORIGIN_MAX bytes, cut between characters. */
static void put_cut(struct buf *b, const char *s)
{
	char cut[DB_ORIGIN_MAX + 1];
	size_t n = s != NULL ? strnlen(s, DB_ORIGIN_MAX + 1) : 0;

	if (n > DB_ORIGIN_MAX)
		for (n--; n > 0 && ((uint8_t)s[n] & 0xc0) == 0x80; n--)
			continue;
	memcpy(cut, n > 0 ? s : "", n);
	cut[n] = 0;
	buf_str(b, cut);
}

void db_txn_origin(struct db_txn *t, struct db_origin origin)
{
	t->origin.len = 0;
	put_cut(&t->origin, origin.user);
	put_cut(&t->origin, origin.task);
	put_cut(&t->origin, origin.method);
}

static void put_row(struct buf *b, uint8_t kind, int class_id, const char *ref)
{
	buf_u8(b, kind);
	buf_str(b, model_classes[class_id].name);
	buf_str(b, ref);
}

static void put_field(struct buf *b, uint8_t kind, int class_id, const char *ref, int field)
{
	CHECK(field >= 0 && field < (int)model_classes[class_id].n_fields);
	put_row(b, kind, class_id, ref);
	buf_str(b, model_classes[class_id].fields[field].name);
}

unsigned db_txn_need_row(struct db_txn *t, int class_id, const char *ref)
{
	put_row(&t->preconditions, NEED_ROW, class_id, ref);
	return t->n_preconditions++;
}

unsigned db_txn_need_no_row(struct db_txn *t, int class_id, const char *ref)
{
	put_row(&t->preconditions, NEED_NO_ROW, class_id, ref);
	return t->n_preconditions++;
}

unsigned db_txn_need_field(
	struct db_txn *t, int class_id, const char *ref, int field, struct val value)
{
	put_field(&t->preconditions, NEED_FIELD, class_id, ref, field);
	val_pack(&t->preconditions, &value);
	return t->n_preconditions++;
}

unsigned db_txn_need_no_key(
	struct db_txn *t, int class_id, const char *ref, int field, const char *key)
{
	put_field(&t->preconditions, NEED_NO_KEY, class_id, ref, field);
	buf_str(&t->preconditions, key);
	return t->n_preconditions++;
}

unsigned db_txn_need_version(struct db_txn *t, int class_id, const char *ref, uint64_t index)
{
	put_row(&t->preconditions, NEED_VERSION, class_id, ref);
	buf_u64(&t->preconditions, index);
	return t->n_preconditions++;
}

unsigned db_txn_need_sum(
	struct db_txn *t, int relation, const char *ref, int field, int64_t more, int64_t limit)
{
	const struct model_relation *r = &model_relations[relation];

	put_field(&t->preconditions, NEED_SUM, r->one_class, ref, field);
	buf_str(&t->preconditions, model_classes[r->one_class].fields[r->one_field].name);
	buf_u64(&t->preconditions, (uint64_t)more);
	buf_u64(&t->preconditions, (uint64_t)limit);
	return t->n_preconditions++;
}

void db_txn_create(struct db_txn *t, int class_id, const char *ref, const struct val *fields)
{
	const struct model_class *c = &model_classes[class_id];
	uint32_t n = 0;
	size_t at;

	put_row(&t->ops, OP_CREATE, class_id, ref);
	at = t->ops.len;
	buf_u32(&t->ops, 0);
	for (unsigned i = 0; i < c->n_fields; i++) {
		if (fields[i].kind == VAL_VOID)
			continue;
		buf_str(&t->ops, c->fields[i].name);
		val_pack(&t->ops, &fields[i]);
		n++;
	}
	buf_patch_u32(&t->ops, at, n);
	t->n_ops++;
}

void db_txn_delete(struct db_txn *t, int class_id, const char *ref)
{
	put_row(&t->ops, OP_DELETE, class_id, ref);
	t->n_ops++;
}

void db_txn_touch(struct db_txn *t, int class_id, const char *ref)
{
	put_row(&t->ops, OP_TOUCH, class_id, ref);
	t->n_ops++;
}

void db_txn_append(struct db_txn *t, const struct db_txn *more)
{
	buf_put(&t->ops, more->ops.data, more->ops.len);
	t->n_ops += more->n_ops;
}

void db_txn_raise(struct db_txn *t, unsigned schema)
{
	put_row(&t->ops, OP_RAISE, MODEL_CLASS__config, DB_SCHEMA_REF);
	buf_u32(&t->ops, schema);
	t->n_ops++;
}

static void put_op(struct db_txn *t, uint8_t kind, int class_id, const char *ref, int field,
	const struct val *value)
{
	put_field(&t->ops, kind, class_id, ref, field);
	val_pack(&t->ops, value);
	t->n_ops++;
}

void db_txn_set(struct db_txn *t, int class_id, const char *ref, int field, struct val value)
{
	put_op(t, OP_SET, class_id, ref, field, &value);
}

void db_txn_set_add(struct db_txn *t, int class_id, const char *ref, int field, struct val item)
{
	put_op(t, OP_SET_ADD, class_id, ref, field, &item);
}

void db_txn_set_remove(struct db_txn *t, int class_id, const char *ref, int field, struct val item)
{
	put_op(t, OP_SET_REMOVE, class_id, ref, field, &item);
}

void db_txn_map_add(struct db_txn *t, int class_id, const char *ref, int field, const char *key,
	struct val value)
{
	put_field(&t->ops, OP_MAP_ADD, class_id, ref, field);
	buf_str(&t->ops, key);
	val_pack(&t->ops, &value);
	t->n_ops++;
}

void db_txn_map_remove(struct db_txn *t, int class_id, const char *ref, int field, const char *key)
{
	put_field(&t->ops, OP_MAP_REMOVE, class_id, ref, field);
	buf_str(&t->ops, key);
	t->n_ops++;
}

void db_txn_encode(
	const struct db_txn *t, const struct db_proposal_id *id, int64_t wall, struct buf *out)
{
	size_t length_at;

	buf_u32(out, ENTRY_MAGIC);
	length_at = out->len;
	buf_u32(out, 0);
	buf_u16(out, DB_FORMAT);
	buf_u16(out, (uint16_t)(t->schema != 0 ? t->schema : MODEL_SCHEMA_VERSION));
	buf_u8(out, (uint8_t)t->reason);
	buf_u64(out, id->raft_id);
	buf_u64(out, id->boot);
	buf_u64(out, id->sequence);
	buf_u64(out, (uint64_t)wall);
	if (t->origin.len == 0)
		for (int i = 0; i < 3; i++)
			buf_str(out, "");
	buf_put(out, t->origin.data, t->origin.len);
	buf_u32(out, t->n_preconditions);
	buf_put(out, t->preconditions.data, t->preconditions.len);
	buf_u32(out, t->n_ops);
	buf_put(out, t->ops.data, t->ops.len);
	buf_patch_u32(out, length_at, (uint32_t)out->len);
	while (out->len % 8 != 0)
		buf_u8(out, 0);
}

static bool rd_short(struct reader *r, const char **out)
{
	const char *s = rd_str(r);

	if (s == NULL || strlen(s) > DB_ORIGIN_MAX)
		return false;
	*out = s;
	return true;
}

bool db__entry_head(const void *data, size_t n, struct entry_head *out)
{
	struct reader r = reader_of(data, n);
	uint32_t magic = rd_u32(&r), length = rd_u32(&r);

	if (r.bad || magic != ENTRY_MAGIC || length > n)
		return false;
	out->origin = (struct db_origin){ "", "", "" };
	out->format = rd_u16(&r);
	out->schema = rd_u16(&r);
	out->reason = rd_u8(&r);
	out->id.raft_id = rd_u64(&r);
	out->id.boot = rd_u64(&r);
	out->id.sequence = rd_u64(&r);
	out->wall = (int64_t)rd_u64(&r);
	/* format 1 has none; what a newer one has is not for us to read */
	if (out->format >= 2 && out->format <= DB_FORMAT &&
		!(rd_short(&r, &out->origin.user) && rd_short(&r, &out->origin.task) &&
			rd_short(&r, &out->origin.method)))
		return false;
	out->body = r;
	out->body.end = (const uint8_t *)data + length;
	return !r.bad && r.p <= out->body.end;
}
