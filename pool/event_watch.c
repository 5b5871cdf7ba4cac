/* What clients watch: `*`, `class`, or `class/ref`, the class in any case of letters. A class that
 * does not exist, or has no events, matches nothing. */
#include "pool/event_priv.h"
#include "rpc/base/hash.h"

#include <stdlib.h>
#include <string.h>

/* One being made: its objects' texts in the arena. */
struct draft {
	struct arena arena;
	bool classes[MODEL_CLASS_COUNT];
	struct event_object *objects;
	unsigned n, cap;
};

static int by_object(const void *a, const void *b)
{
	const struct event_object *x = a, *y = b;

	return x->class_id != y->class_id
		       ? (x->class_id > y->class_id) - (x->class_id < y->class_id)
		       : strcmp(x->ref, y->ref);
}

static void add_object(struct draft *d, int class_id, const char *ref)
{
	if (d->n == d->cap) {
		d->cap = d->cap ? 2 * d->cap : 16;
		d->objects = mem_resize(d->objects, d->cap * sizeof *d->objects);
	}
	d->objects[d->n++] = (struct event_object){ class_id, ref };
}

static bool watchable(int class_id)
{
	return class_id >= 0 && model_classes[class_id].events &&
	       model_classes[class_id].table != MODEL_TABLE_INTERNAL;
}

static int add_text(struct draft *d, const char *text, struct err *err)
{
	const char *slash = strchr(text, '/');
	char *class = arena_strndup(
		&d->arena, text, slash != NULL ? (size_t)(slash - text) : strlen(text));
	int class_id = model_class_find(class, true);

	if (slash != NULL && strchr(slash + 1, '/') != NULL)
		return err_set(err, ERR_EVENT_SUBSCRIPTION_PARSE_FAILURE, text, NULL);
	if (slash != NULL && watchable(class_id))
		add_object(d, class_id, slash + 1);
	for (int i = 0; slash == NULL && i < MODEL_CLASS_COUNT; i++)
		d->classes[i] |= watchable(i) && (i == class_id || strcmp(class, "*") == 0);
	return 0;
}

static void add_watch(struct draft *d, const struct event_watch *w)
{
	for (int i = 0; i < MODEL_CLASS_COUNT; i++)
		d->classes[i] |= w->classes[i];
	for (unsigned i = 0; i < w->n_objects; i++)
		add_object(d, w->objects[i].class_id, w->objects[i].ref);
}

/* Turn the draft round: what base has and it has not. */
static void take_from(struct draft *d, const struct event_watch *base)
{
	unsigned gone = d->n;

	for (int i = 0; i < MODEL_CLASS_COUNT; i++)
		d->classes[i] = base->classes[i] && !d->classes[i];
	for (unsigned i = 0; i < base->n_objects; i++) {
		bool keep = true;

		for (unsigned k = 0; k < gone; k++)
			keep = keep && by_object(&d->objects[k], &base->objects[i]) != 0;
		if (keep)
			add_object(d, base->objects[i].class_id, base->objects[i].ref);
	}
	d->n -= gone;
	if (d->n > 0)
		memmove(d->objects, d->objects + gone, d->n * sizeof *d->objects);
}

/* Sorted, each once, none that is watched with its class. */
static void tidy(struct draft *d)
{
	unsigned n = 0;

	if (d->n > 0)
		qsort(d->objects, d->n, sizeof *d->objects, by_object);
	for (unsigned i = 0; i < d->n; i++)
		if (!d->classes[d->objects[i].class_id] &&
			(n == 0 || by_object(&d->objects[n - 1], &d->objects[i]) != 0))
			d->objects[n++] = d->objects[i];
	d->n = n;
}

static uint64_t hash_of(const struct draft *d)
{
	uint64_t h = hash_bytes(d->classes, sizeof d->classes);

	for (unsigned i = 0; i < d->n; i++)
		h = (h ^ hash_text(d->objects[i].ref)) * 31 + (uint64_t)d->objects[i].class_id;
	return h;
}

static bool is_same(const struct event_watch *w, const struct draft *d)
{
	bool same = w->n_objects == d->n && memcmp(w->classes, d->classes, sizeof d->classes) == 0;

	for (unsigned i = 0; same && i < d->n; i++)
		same = by_object(&w->objects[i], &d->objects[i]) == 0;
	return same;
}

/* One block, with its texts behind the objects. */
static struct event_watch *watch_new(const struct draft *d, uint64_t hash)
{
	size_t texts = 0;
	struct event_watch *w;
	char *at;

	for (unsigned i = 0; i < d->n; i++)
		texts += strlen(d->objects[i].ref) + 1;
	w = mem_new(sizeof *w + d->n * sizeof w->objects[0] + texts);
	w->hash = hash;
	memcpy(w->classes, d->classes, sizeof w->classes);
	w->n_objects = d->n;
	at = (char *)&w->objects[d->n];
	for (unsigned i = 0; i < d->n; i++) {
		w->objects[i] = (struct event_object){ d->objects[i].class_id, at };
		at = stpcpy(at, d->objects[i].ref) + 1;
	}
	return w;
}

static struct event_watch *find_or_new(struct pool_events *e, const struct draft *d)
{
	uint64_t hash = hash_of(d);
	struct event_watch *w = e->watches;

	while (w != NULL && !(w->hash == hash && is_same(w, d)))
		w = w->next;
	if (w == NULL) {
		w = watch_new(d, hash);
		w->next = e->watches;
		e->watches = w;
	}
	return event_watch_share(w);
}

int event_watch_make(struct pool_events *e, const struct val *classes,
	const struct event_watch *base, bool without, struct event_watch **out, struct err *err)
{
	struct draft d = { .n = 0 };
	int rc = 0;

	arena_init(&d.arena);
	for (uint32_t i = 0; rc == 0 && i < classes->n; i++)
		rc = add_text(&d, classes->items[i].s, err);
	if (rc == 0 && base != NULL && without)
		take_from(&d, base);
	else if (rc == 0 && base != NULL)
		add_watch(&d, base);
	tidy(&d);
	if (rc == 0 && d.n > EVENT_OBJECTS_MAX)
		rc = err_set(err, ERR_EVENT_SUBSCRIPTION_PARSE_FAILURE,
			"more than 1024 single objects", NULL);
	if (rc == 0)
		*out = find_or_new(e, &d);
	free(d.objects);
	arena_fini(&d.arena);
	return rc;
}

struct event_watch *event_watch_share(struct event_watch *w)
{
	w->uses++;
	return w;
}

void event_watch_drop(struct pool_events *e, struct event_watch *w)
{
	struct event_watch **at = &e->watches;

	CHECK(w->uses > 0);
	if (--w->uses > 0)
		return;
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	free(w);
}

bool event_watch_wants(const struct event_watch *w, int class_id, const char *ref)
{
	struct event_object key = { class_id, ref };

	return w->classes[class_id] || (w->n_objects > 0 && bsearch(&key, w->objects, w->n_objects,
								    sizeof key, by_object) != NULL);
}
