/* What an entry did to the rows, as bytes for the store thread: see feed_priv.h.
 *
 * Copies of the fields that changed, not rows that are kept alive: a pinned view would hold back
 * everything its successors replace, ten times as much, for as long as a disk hangs
 * (docs/decisions/0016). Costs apply one comparison of two rows.
 */
#include "db/feed_priv.h"

#include <string.h>

bool db__projected(int class_id)
{
	enum model_table t = model_classes[class_id].table;

	return t != MODEL_TABLE_NONE && t != MODEL_TABLE_FIXED && class_id != MODEL_CLASS_session;
}

bool db__column(const struct model_field *f)
{
	return !f->computed && !f->removed && !f->is_volatile && f->derived < 0;
}

/* What the schema of the row's time did not store has its initial value. */
static void put_value(struct buf *out, const struct db_row *row, unsigned i)
{
	if (i < row->n_fields)
		buf_put(out, (const char *)row + row->offsets[i],
			row->offsets[i + 1] - row->offsets[i]);
	else
		val_pack(out, &model_classes[row->class_id].fields[i].initial);
}

static void put_head(struct buf *out, uint8_t kind, const struct db_row *row)
{
	buf_u8(out, kind);
	buf_u16(out, row->class_id);
	buf_str(out, row->ref);
}

static bool same(const struct db_row *a, const struct db_row *b, unsigned i)
{
	struct buf was = { 0 };
	size_t n = b->offsets[i + 1] - b->offsets[i];
	bool equal;

	if (i < a->n_fields)
		return n == a->offsets[i + 1] - a->offsets[i] &&
		       memcmp((const char *)a + a->offsets[i], (const char *)b + b->offsets[i],
			       n) == 0;
	put_value(&was, a, i);
	equal = n == was.len && memcmp(was.data, (const char *)b + b->offsets[i], n) == 0;
	buf_fini(&was);
	return equal;
}

unsigned db__feed_row(struct buf *out, const struct db_row *old, const struct db_row *fresh)
{
	const struct db_row *row = fresh != NULL ? fresh : old;
	const struct model_class *c = &model_classes[row->class_id];
	unsigned n = 0;

	if (!db__projected(row->class_id))
		return 0;
	if (old == NULL || fresh == NULL) {
		put_head(out, old == NULL ? FEED_CREATED : FEED_DELETED, row);
		buf_u16(out, row->n_fields);
		buf_put(out, (const char *)row + row->offsets[0], row->size - row->offsets[0]);
		return 1;
	}
	CHECK(old->class_id == fresh->class_id && old->n_fields <= fresh->n_fields);
	for (unsigned i = 0; i < fresh->n_fields; i++) {
		if (!db__column(&c->fields[i]) || same(old, fresh, i))
			continue;
		put_head(out, FEED_SET, row);
		buf_u16(out, (uint16_t)i);
		put_value(out, old, i);
		put_value(out, fresh, i);
		n++;
	}
	return n;
}
