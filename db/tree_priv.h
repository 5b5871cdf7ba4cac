/* A persistent ordered map from byte strings to pointers: the one kind of index of the database.
 *
 * A B+tree whose nodes are never written once made. An edit copies the path from the root, a few
 * nodes of some hundred bytes, and leaves the old tree as it was; what it replaces goes to the
 * reclaim list, which frees it when no reader can hold it any more (db/view.c). One writer; readers
 * need no lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tree;
struct tree_entry; /* lives as long as the tree it was found in */
struct reclaim;

/* NULL is the empty tree. */
const struct tree *tree_put(
	struct reclaim *r, const struct tree *t, const void *key, size_t n, const void *value);
/* No change when the key is absent. */
const struct tree *tree_del(struct reclaim *r, const struct tree *t, const void *key, size_t n);
/* The value, NULL when absent. */
const void *tree_get(const struct tree *t, const void *key, size_t n);
/* The first entry whose key is >= (after: >) the given one; NULL when there is none. */
const struct tree_entry *tree_seek(const struct tree *t, const void *key, size_t n, bool after);
/* The same, and how many entries from there on tree_beside gives one after the other. */
const struct tree_entry *tree_seek_run(
	const struct tree *t, const void *key, size_t n, bool after, unsigned *run_out);
const struct tree_entry *tree_beside(const struct tree_entry *entry);
const void *tree_key(const struct tree_entry *entry, size_t *n_out);
const void *tree_value(const struct tree_entry *entry);
/* Free a whole tree that nobody reads, with the values when they are memory. */
void tree_free(const struct tree *t, bool values);
/* Order, fill and depth as they must be. For tests. */
bool tree_sound(const struct tree *t);

/* Memory that readers may still see. */
void reclaim_later(struct reclaim *r, const void *p);
