/* A persistent ordered map from byte strings to pointers: the one kind of index of the database.
 *
 * A treap whose priorities are hashes of the keys, so that its shape depends on its content alone.
 * An edit copies the path from the root and leaves the old tree as it was; what it replaces goes to
 * the reclaim list, which frees it when no reader can hold it any more (db/view.c). One writer;
 * readers need no lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tree;
struct reclaim;

/* NULL is the empty tree. */
const struct tree *tree_put(
	struct reclaim *r, const struct tree *t, const void *key, size_t n, const void *value);
/* No change when the key is absent. */
const struct tree *tree_del(struct reclaim *r, const struct tree *t, const void *key, size_t n);
/* The value, NULL when absent. */
const void *tree_get(const struct tree *t, const void *key, size_t n);
/* The first entry whose key is >= (after: >) the given one; NULL when there is none. */
const struct tree *tree_seek(const struct tree *t, const void *key, size_t n, bool after);
const void *tree_key(const struct tree *entry, size_t *n_out);
const void *tree_value(const struct tree *entry);
/* Subtrees, for who gives back a whole tree. */
const struct tree *tree_left(const struct tree *t);
const struct tree *tree_right(const struct tree *t);
/* Free a whole tree, now. */
void tree_free(const struct tree *t);

/* Memory that readers may still see. */
void reclaim_later(struct reclaim *r, const void *p);
