/* What an entry did to the rows, as bytes for the store thread: see feed_priv.h.
 *
 * Copies of the fields that changed, not rows that are kept alive: a pinned view would hold back
 * everything its successors replace, ten times as much, for as long as a disk hangs
 * (docs/decisions/0008). Costs apply one comparison of two rows.
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

static void put_values(struct buf *out, const struct db_row *row, unsigned from, unsigned to)
{
	buf_put(out, (const char *)row + row->offsets[from], row->offsets[to] - row->offsets[from]);
}

static void put_head(struct buf *out, uint8_t kind, const struct db_row *row)
{
	buf_u8(out, kind);
	buf_u16(out, row->class_id);
	buf_str(out, row->ref);
}

static bool same(const struct db_row *a, const struct db_row *b, unsigned i)
{
	size_t n = a->offsets[i + 1] - a->offsets[i];

	return n == b->offsets[i + 1] - b->offsets[i] &&
	       memcmp((const char *)a + a->offsets[i], (const char *)b + b->offsets[i], n) == 0;
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
		put_values(out, row, 0, row->n_fields);
		return 1;
	}
	CHECK(old->class_id == fresh->class_id && old->n_fields == c->n_fields);
	for (unsigned i = 0; i < c->n_fields; i++) {
		if (!db__column(&c->fields[i]) || same(old, fresh, i))
			continue;
		put_head(out, FEED_SET, row);
		buf_u16(out, (uint16_t)i);
		put_values(out, old, i, i + 1);
		put_values(out, fresh, i, i + 1);
		n++;
	}
	return n;
}
