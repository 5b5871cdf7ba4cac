/* See tree_priv.h. Invariants (tree_sound):
 *  1. keys ascend; the key of a slot that leads to a child is the smallest key below it;
 *  2. all leaves are equally deep; every node but the root has at least FILL_MIN slots;
 *  3. the keys of a node's slots begin with the same `skip` bytes, and a slot's prefix is the 8
 *     bytes behind them: most comparisons end there, without a look at the key itself. In a leaf
 *     a key that is there is found without a look at what is skipped; below the last slot of
 *     another node are keys that do not begin so.
 */
#include "db/tree_priv.h"
#include "rpc/base/check.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

enum { FILL_MAX = 32, FILL_MIN = 8, FILL_STEP = 8, PREFIX = 8, LINE = 64, FETCH = 576 };

struct tree_key {
	uint32_t n;
	char b[];
};

struct tree_entry { /* a slot; in a leaf, what tree_seek gives out */
	uint64_t prefix;
	const struct tree_key *key;
	const void *p; /* value, or child */
};

struct tree {
	bool leaf;
	uint8_t n;
	uint32_t skip;
	struct tree_entry slots[];
};

/* Slots of a node that is being put together. */
struct draft {
	bool leaf;
	unsigned n;
	uint32_t skip; /* that prefixes belong to */
	struct tree_entry slots[2 * FILL_MAX + 1];
};

static const struct tree *child_of(const struct tree_entry *slot)
{
	return slot->p;
}

/* The same, of which most is about to be read: its lines are fetched at once and not one by one as
 * the search comes to them. */
static const struct tree *fetch(const struct tree_entry *slot)
{
	for (unsigned at = 0; at < FETCH; at += LINE)
		__builtin_prefetch((const char *)slot->p + at);
	return slot->p;
}

static uint64_t prefix_of(const char *key, size_t n, uint32_t skip)
{
	uint64_t v = 0;

	if (n > skip)
		memcpy(&v, key + skip, n - skip < PREFIX ? n - skip : PREFIX);
	return be64toh(v);
}

static int compare(const char *a, size_t an, const char *b, size_t bn)
{
	int r = memcmp(a, b, an < bn ? an : bn);

	return r != 0 ? r : (an > bn) - (an < bn);
}

static uint32_t common(const struct tree_key *a, const struct tree_key *b)
{
	uint32_t i = 0, n = a->n < b->n ? a->n : b->n;

	while (i < n && a->b[i] == b->b[i])
		i++;
	return i;
}

/* How many slots have a key below the given one, which begins with what the slots skip;
 * *equal_out: the next one has that key, whatever the given one begins with. */
static unsigned search(const struct tree *t, const char *key, size_t n, bool *equal_out)
{
	uint64_t prefix = prefix_of(key, n, t->skip);
	unsigned lo = 0, hi = t->n;

	*equal_out = false;
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		const struct tree_entry *s = &t->slots[mid];
		int r;

		if (prefix != s->prefix) {
			r = prefix > s->prefix ? 1 : -1;
		} else {
			__builtin_prefetch(s->p); /* it is the one, mostly */
			r = compare(key, n, s->key->b, s->key->n);
		}
		if (r == 0) {
			*equal_out = true;
			return mid;
		}
		if (r > 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The same of any key. */
static unsigned place(const struct tree *t, const char *key, size_t n, bool *equal_out)
{
	size_t shared = t->skip < n ? t->skip : n;
	int r = memcmp(key, t->slots[0].key->b, shared);

	*equal_out = false;
	if (r == 0 && n < t->skip)
		r = -1;
	if (r != 0)
		return r < 0 ? 0 : t->n;
	return search(t, key, n, equal_out);
}

/* The child that has the key, or would. */
static unsigned child_place(const struct tree *t, const char *key, size_t n)
{
	bool equal;
	unsigned i = place(t, key, n, &equal);

	return equal || i == 0 ? i : i - 1;
}

static struct draft draft_of(const struct tree *t)
{
	struct draft d;

	d.leaf = t->leaf;
	d.n = t->n;
	d.skip = t->skip;
	memcpy(d.slots, t->slots, t->n * sizeof *t->slots);
	return d;
}

static void draft_insert(struct draft *d, unsigned at, const struct tree_key *key, const void *p)
{
	memmove(&d->slots[at + 1], &d->slots[at], (d->n - at) * sizeof d->slots[0]);
	d->slots[at] = (struct tree_entry){ prefix_of(key->b, key->n, d->skip), key, p };
	d->n++;
}

static void draft_remove(struct draft *d, unsigned at)
{
	d->n--;
	memmove(&d->slots[at], &d->slots[at + 1], (d->n - at) * sizeof d->slots[0]);
}

/* A child may have got another smallest key. */
static void draft_set(struct draft *d, unsigned at, const struct tree *child)
{
	const struct tree_key *key = child->slots[0].key;

	if (d->slots[at].key != key)
		d->slots[at].prefix = prefix_of(key->b, key->n, d->skip);
	d->slots[at].key = key;
	d->slots[at].p = child;
}

/* Few sizes, so that memory given back fits what comes next. */
static struct tree *node_alloc(unsigned n)
{
	size_t slots = (n + FILL_STEP - 1) / FILL_STEP * FILL_STEP;

	CHECK(n > 0 && n <= FILL_MAX);
	return must(malloc(sizeof(struct tree) + slots * sizeof(struct tree_entry)));
}

static const struct tree *node_new(const struct draft *d, unsigned from, unsigned n)
{
	struct tree *t = node_alloc(n);

	t->leaf = d->leaf;
	t->n = (uint8_t)n;
	memcpy(t->slots, &d->slots[from], n * sizeof t->slots[0]);
	t->skip = common(t->slots[0].key, t->slots[n - 1].key);
	for (unsigned i = 0; t->skip != d->skip && i < n; i++)
		t->slots[i].prefix = prefix_of(t->slots[i].key->b, t->slots[i].key->n, t->skip);
	return t;
}

/* The node with another value or child, whose keys are the same: most edits of most nodes. */
static const struct tree *node_with(
	struct reclaim *r, const struct tree *t, unsigned at, const void *p)
{
	struct tree *c = node_alloc(t->n);

	memcpy(c, t, sizeof *t + t->n * sizeof t->slots[0]);
	c->slots[at].p = p;
	reclaim_later(r, t);
	return c;
}

/* The leaf without a slot; what the others have in common they still have. */
static const struct tree *node_without(struct reclaim *r, const struct tree *t, unsigned at)
{
	struct tree *c = node_alloc(t->n - 1);

	*c = (struct tree){ .leaf = t->leaf, .n = t->n - 1, .skip = t->skip };
	memcpy(c->slots, t->slots, at * sizeof t->slots[0]);
	memcpy(&c->slots[at], &t->slots[at + 1], (c->n - at) * sizeof t->slots[0]);
	reclaim_later(r, t);
	return c;
}

/* One node, or two when it is too much for one: *right_out. A node that grows at its end is split
 * there, so that ascending keys leave full nodes behind. */
static const struct tree *settle(const struct draft *d, bool at_end, const struct tree **right_out)
{
	unsigned half = at_end ? d->n - FILL_MIN : d->n / 2;

	*right_out = NULL;
	if (d->n <= FILL_MAX)
		return node_new(d, 0, d->n);
	*right_out = node_new(d, half, d->n - half);
	return node_new(d, 0, half);
}

static const struct tree_key *key_new(const char *key, size_t n)
{
	struct tree_key *k = must(malloc(sizeof *k + n));

	k->n = (uint32_t)n;
	memcpy(k->b, key, n);
	return k;
}

/* With another value of a key that is there; NULL: it is not. */
static const struct tree *replace(
	struct reclaim *r, const struct tree *t, const char *key, size_t n, const void *value)
{
	const struct tree *fresh;
	bool equal;
	unsigned i;

	if (t->leaf) {
		i = search(t, key, n, &equal);
		return equal ? node_with(r, t, i, value) : NULL;
	}
	i = child_place(t, key, n);
	fresh = replace(r, fetch(&t->slots[i]), key, n, value);
	return fresh != NULL ? node_with(r, t, i, fresh) : NULL;
}

static const struct tree *put_leaf(struct reclaim *r, const struct tree *t, const char *key,
	size_t n, const void *value, const struct tree **right_out)
{
	struct draft d;
	bool equal;
	unsigned i = place(t, key, n, &equal);

	*right_out = NULL;
	CHECK(!equal); /* replace found none */
	d = draft_of(t);
	draft_insert(&d, i, key_new(key, n), value);
	reclaim_later(r, t);
	return settle(&d, i == t->n, right_out);
}

static const struct tree *put(struct reclaim *r, const struct tree *t, const char *key, size_t n,
	const void *value, const struct tree **right_out)
{
	const struct tree *left, *right;
	struct draft d;
	unsigned i;

	if (t->leaf)
		return put_leaf(r, t, key, n, value, right_out);
	i = child_place(t, key, n);
	left = put(r, child_of(&t->slots[i]), key, n, value, &right);
	*right_out = NULL;
	if (right == NULL && left->slots[0].key == t->slots[i].key)
		return node_with(r, t, i, left);
	d = draft_of(t);
	draft_set(&d, i, left);
	if (right != NULL)
		draft_insert(&d, i + 1, right->slots[0].key, right);
	reclaim_later(r, t);
	return settle(&d, i + 1 == t->n, right_out);
}

const struct tree *tree_put(
	struct reclaim *r, const struct tree *t, const void *key, size_t n, const void *value)
{
	struct draft d = { .leaf = t == NULL };
	const struct tree *left, *right;

	if (t == NULL) {
		draft_insert(&d, 0, key_new(key, n), value);
		return node_new(&d, 0, 1);
	}
	left = replace(r, t, key, n, value);
	if (left != NULL)
		return left;
	left = put(r, t, key, n, value, &right);
	if (right == NULL)
		return left;
	draft_insert(&d, 0, left->slots[0].key, left);
	draft_insert(&d, 1, right->slots[0].key, right);
	return node_new(&d, 0, 2);
}

/* Child `at` has become too small: share with a neighbour, or become one with it. */
static void mend(struct reclaim *r, struct draft *d, unsigned at)
{
	unsigned first = at > 0 ? at - 1 : at;
	const struct tree *a = child_of(&d->slots[first]), *b = child_of(&d->slots[first + 1]);
	const struct tree *left, *right;
	struct draft both = draft_of(a);

	for (unsigned i = 0; i < b->n; i++)
		draft_insert(&both, both.n, b->slots[i].key, b->slots[i].p);
	left = settle(&both, false, &right);
	reclaim_later(r, a);
	reclaim_later(r, b);
	draft_set(d, first, left);
	if (right != NULL)
		draft_set(d, first + 1, right);
	else
		draft_remove(d, first + 1);
}

static const struct tree *del_leaf(
	struct reclaim *r, const struct tree *t, const char *key, size_t n)
{
	bool equal;
	unsigned i = search(t, key, n, &equal);

	if (!equal)
		return t;
	reclaim_later(r, t->slots[i].key);
	if (t->n > 1)
		return node_without(r, t, i);
	reclaim_later(r, t);
	return NULL;
}

/* t itself when the key is absent, NULL when nothing is left. */
static const struct tree *del(struct reclaim *r, const struct tree *t, const char *key, size_t n)
{
	const struct tree *old, *fresh;
	struct draft d;
	unsigned i;

	if (t->leaf)
		return del_leaf(r, t, key, n);
	i = child_place(t, key, n);
	old = fetch(&t->slots[i]);
	fresh = del(r, old, key, n);
	if (fresh == old)
		return t;
	CHECK(fresh != NULL); /* no node but the root is that small */
	if (fresh->n >= FILL_MIN && fresh->slots[0].key == t->slots[i].key)
		return node_with(r, t, i, fresh);
	d = draft_of(t);
	draft_set(&d, i, fresh);
	if (fresh->n < FILL_MIN)
		mend(r, &d, i);
	reclaim_later(r, t);
	return node_new(&d, 0, d.n);
}

const struct tree *tree_del(struct reclaim *r, const struct tree *t, const void *key, size_t n)
{
	if (t == NULL)
		return NULL;
	t = del(r, t, key, n);
	while (t != NULL && !t->leaf && t->n == 1) { /* a root with one child is that child */
		reclaim_later(r, t);
		t = child_of(&t->slots[0]);
	}
	return t;
}

const void *tree_get(const struct tree *t, const void *key, size_t n)
{
	bool equal = false;
	unsigned i;

	if (t == NULL)
		return NULL;
	while (!t->leaf)
		t = fetch(&t->slots[child_place(t, key, n)]);
	i = search(t, key, n, &equal);
	return equal ? t->slots[i].p : NULL;
}

static const struct tree *first_leaf(const struct tree *t)
{
	while (!t->leaf)
		t = child_of(&t->slots[0]);
	return t;
}

const struct tree_entry *tree_seek_run(
	const struct tree *t, const void *key, size_t n, bool after, unsigned *run_out)
{
	const struct tree *next = NULL; /* the subtree right of the path */
	bool equal;
	unsigned i;

	*run_out = 0;
	if (t == NULL)
		return NULL;
	while (!t->leaf) {
		i = child_place(t, key, n);
		if (i + 1u < t->n)
			next = child_of(&t->slots[i + 1]);
		t = child_of(&t->slots[i]);
	}
	i = place(t, key, n, &equal);
	if (equal && after)
		i++;
	if (i == t->n && next != NULL) {
		t = first_leaf(next);
		i = 0;
	}
	*run_out = t->n - i;
	return i < t->n ? &t->slots[i] : NULL;
}

const struct tree_entry *tree_seek(const struct tree *t, const void *key, size_t n, bool after)
{
	unsigned run;

	return tree_seek_run(t, key, n, after, &run);
}

const struct tree_entry *tree_beside(const struct tree_entry *entry)
{
	return entry + 1;
}

const void *tree_key(const struct tree_entry *entry, size_t *n_out)
{
	*n_out = entry->key->n;
	return entry->key->b;
}

const void *tree_value(const struct tree_entry *entry)
{
	return entry->p;
}

void tree_free(const struct tree *t, bool values)
{
	for (unsigned i = 0; t != NULL && i < t->n; i++) {
		if (!t->leaf) {
			tree_free(child_of(&t->slots[i]), values);
			continue;
		}
		free((void *)t->slots[i].key);
		if (values)
			free((void *)t->slots[i].p);
	}
	free((void *)t);
}

/* Tests. */

static bool slot_sound(const struct tree *t, unsigned i)
{
	const struct tree_key *key = t->slots[i].key, *before = i > 0 ? t->slots[i - 1].key : NULL;

	return t->slots[i].prefix == prefix_of(key->b, key->n, t->skip) &&
	       common(key, t->slots[0].key) >= t->skip &&
	       (before == NULL || compare(before->b, before->n, key->b, key->n) < 0) &&
	       (t->leaf || child_of(&t->slots[i])->slots[0].key == key);
}

/* The depth, 0 when something is wrong. */
static unsigned depth(const struct tree *t, bool root)
{
	unsigned below = 0;

	if (t->n == 0 || t->n > FILL_MAX || (!root && t->n < FILL_MIN) ||
		(root && !t->leaf && t->n < 2))
		return 0;
	for (unsigned i = 0; i < t->n; i++) {
		unsigned d = t->leaf ? 1 : depth(child_of(&t->slots[i]), false);

		if (d == 0 || !slot_sound(t, i) || (i > 0 && d != below))
			return 0;
		below = d;
	}
	return below + 1;
}

bool tree_sound(const struct tree *t)
{
	return t == NULL || depth(t, true) > 0;
}
