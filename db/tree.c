#include "db/tree_priv.h"
#include "rpc/base/check.h"
#include "rpc/base/hash.h"

#include <stdlib.h>

struct tree {
	const struct tree *left, *right;
	const void *value;
	uint64_t priority;
	uint32_t n;
	char key[];
};

static int compare(const struct tree *t, const void *key, size_t n)
{
	int r = memcmp(key, t->key, n < t->n ? n : t->n);

	return r != 0 ? r : (n > t->n) - (n < t->n);
}

/* Higher in the tree; equal hashes are broken by the key so that the shape stays unique. */
static bool above(const struct tree *a, const struct tree *b)
{
	return a->priority != b->priority ? a->priority > b->priority
					  : compare(b, a->key, a->n) < 0;
}

static struct tree *node_new(const void *key, size_t n, const void *value)
{
	struct tree *t = must(malloc(sizeof *t + n));

	*t = (struct tree){ .value = value, .priority = hash_bytes(key, n), .n = (uint32_t)n };
	memcpy(t->key, key, n);
	return t;
}

static const struct tree *copy_with(
	struct reclaim *r, const struct tree *t, const struct tree *left, const struct tree *right)
{
	struct tree *c = must(malloc(sizeof *c + t->n));

	memcpy(c, t, sizeof *c + t->n);
	c->left = left;
	c->right = right;
	reclaim_later(r, t);
	return c;
}

/* All keys of a are smaller than all of b. */
static const struct tree *join(struct reclaim *r, const struct tree *a, const struct tree *b)
{
	if (a == NULL)
		return b;
	if (b == NULL)
		return a;
	if (above(a, b))
		return copy_with(r, a, a->left, join(r, a->right, b));
	return copy_with(r, b, join(r, a, b->left), b->right);
}

/* Split t (which has no such key) into what is smaller and larger. */
static void split(struct reclaim *r, const struct tree *t, const void *key, size_t n,
	const struct tree **small_out, const struct tree **large_out)
{
	const struct tree *inner;

	if (t == NULL) {
		*small_out = *large_out = NULL;
	} else if (compare(t, key, n) < 0) {
		split(r, t->left, key, n, small_out, &inner);
		*large_out = copy_with(r, t, inner, t->right);
	} else {
		split(r, t->right, key, n, &inner, large_out);
		*small_out = copy_with(r, t, t->left, inner);
	}
}

static const struct tree *replace(struct reclaim *r, const struct tree *t, struct tree *node)
{
	int c = compare(t, node->key, node->n);

	if (c == 0) {
		node->left = t->left;
		node->right = t->right;
		reclaim_later(r, t);
		return node;
	}
	return c < 0 ? copy_with(r, t, replace(r, t->left, node), t->right)
		     : copy_with(r, t, t->left, replace(r, t->right, node));
}

static const struct tree *insert(struct reclaim *r, const struct tree *t, struct tree *node)
{
	if (t == NULL)
		return node;
	if (above(node, t)) {
		split(r, t, node->key, node->n, &node->left, &node->right);
		return node;
	}
	return compare(t, node->key, node->n) < 0
		       ? copy_with(r, t, insert(r, t->left, node), t->right)
		       : copy_with(r, t, t->left, insert(r, t->right, node));
}

static const struct tree *find(const struct tree *t, const void *key, size_t n)
{
	while (t != NULL) {
		int c = compare(t, key, n);

		if (c == 0)
			return t;
		t = c < 0 ? t->left : t->right;
	}
	return NULL;
}

const struct tree *tree_put(
	struct reclaim *r, const struct tree *t, const void *key, size_t n, const void *value)
{
	struct tree *node = node_new(key, n, value);

	return find(t, key, n) != NULL ? replace(r, t, node) : insert(r, t, node);
}

static const struct tree *remove_key(
	struct reclaim *r, const struct tree *t, const void *key, size_t n)
{
	int c = compare(t, key, n);

	if (c < 0)
		return copy_with(r, t, remove_key(r, t->left, key, n), t->right);
	if (c > 0)
		return copy_with(r, t, t->left, remove_key(r, t->right, key, n));
	reclaim_later(r, t);
	return join(r, t->left, t->right);
}

const struct tree *tree_del(struct reclaim *r, const struct tree *t, const void *key, size_t n)
{
	return find(t, key, n) != NULL ? remove_key(r, t, key, n) : t;
}

const void *tree_get(const struct tree *t, const void *key, size_t n)
{
	const struct tree *found = find(t, key, n);

	return found != NULL ? found->value : NULL;
}

const struct tree *tree_seek(const struct tree *t, const void *key, size_t n, bool after)
{
	const struct tree *best = NULL;

	while (t != NULL) {
		int c = compare(t, key, n);

		if (c < 0 || (c == 0 && !after)) {
			best = t;
			t = t->left;
		} else {
			t = t->right;
		}
	}
	return best;
}

const void *tree_key(const struct tree *entry, size_t *n_out)
{
	*n_out = entry->n;
	return entry->key;
}

const void *tree_value(const struct tree *entry)
{
	return entry->value;
}

const struct tree *tree_left(const struct tree *t)
{
	return t->left;
}

const struct tree *tree_right(const struct tree *t)
{
	return t->right;
}

void tree_free(const struct tree *t)
{
	if (t == NULL)
		return;
	tree_free(t->left);
	tree_free(t->right);
	free((void *)t);
}
