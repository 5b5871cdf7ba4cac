#include "tests/sim/raft_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct disk_append {
	struct raft_disk *d;
	struct raft_io_append *req;
	raft_io_append_cb cb;
	struct raft_entry *entries;
	unsigned n;
	struct disk_append *next, **at;
	bool cancelled, failed;
};

static struct raft_disk *of(struct raft_io *io)
{
	return io->impl;
}

static bool lives(const struct raft_disk *d)
{
	return d->m->alive && d->generation == d->m->generation && !d->closed;
}

static void entry_copy(struct raft_entry *to, const struct raft_entry *from)
{
	*to = *from;
	to->batch = NULL;
	to->buf.base = must(malloc(from->buf.len + 1));
	memcpy(to->buf.base, from->buf.base, from->buf.len);
}

static int disk_init(struct raft_io *io, raft_id id, const char *address)
{
	(void)io;
	(void)id;
	(void)address;
	return 0;
}

/* All entries in one batch, as the library wants them. */
static int disk_load(struct raft_io *io, raft_term *term, raft_id *vote,
	struct raft_snapshot **snapshot, raft_index *start, struct raft_entry **entries, size_t *n)
{
	struct image *g = of(io)->image;
	size_t sum = 0;
	char *batch;

	*term = g->term;
	*vote = g->vote;
	*snapshot = NULL;
	*start = 1;
	*n = g->n;
	*entries = must(raft_malloc(g->n * sizeof **entries));
	for (size_t i = 0; i < g->n; i++)
		sum += g->entries[i].buf.len;
	batch = must(raft_malloc(sum ? sum : 1));
	for (size_t i = 0, at = 0; i < g->n; at += g->entries[i++].buf.len) {
		(*entries)[i] = g->entries[i];
		(*entries)[i].batch = batch;
		(*entries)[i].buf.base = batch + at;
		memcpy(batch + at, g->entries[i].buf.base, g->entries[i].buf.len);
	}
	return 0;
}

static void on_tick(void *arg)
{
	struct raft_disk *d = arg;

	if (!lives(d))
		return;
	world_at(d->m->w, d->tick_ms * 1000, d->m->number, on_tick, d);
	d->tick(&d->io);
	world_loop_turn(d->loop);
}

static int disk_start(
	struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	struct raft_disk *d = of(io);

	(void)recv;
	d->tick_ms = msecs;
	d->tick = tick;
	world_at(d->m->w, world_random(d->m->w, msecs * 1000), d->m->number, on_tick, d);
	return 0;
}

static int disk_set_term(struct raft_io *io, raft_term term)
{
	of(io)->image->term = term;
	of(io)->image->vote = 0;
	return 0;
}

static int disk_set_vote(struct raft_io *io, raft_id id)
{
	of(io)->image->vote = id;
	return 0;
}

static void append_free(struct disk_append *a)
{
	for (unsigned i = 0; i < a->n; i++)
		free(a->entries[i].buf.base);
	free(a->entries);
	free(a);
}

static void append_unlink(struct disk_append *a)
{
	*a->at = a->next;
	if (a->next != NULL)
		a->next->at = a->at;
}

static void on_synced(void *arg)
{
	struct disk_append *a = arg;
	struct raft_disk *d = a->d;
	struct image *g = d->image;
	struct raft_io_append *req = a->req;
	raft_io_append_cb cb = a->cb;
	bool failed = a->failed;

	if (a->cancelled) {
		append_free(a);
		return;
	}
	append_unlink(a);
	if (failed) {
		append_free(a);
		cb(req, RAFT_IOERR);
		return;
	}
	g->entries = mem_resize(g->entries, (g->n + a->n) * sizeof *g->entries);
	memcpy(g->entries + g->n, a->entries, a->n * sizeof *a->entries);
	g->n += a->n;
	a->n = 0;
	append_free(a);
	cb(req, 0);
	world_loop_turn(d->loop);
}

static int disk_append(struct raft_io *io, struct raft_io_append *req,
	const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
	struct raft_disk *d = of(io);
	struct disk_append *a = mem_new(sizeof *a);

	*a = (struct disk_append){ .d = d,
		.req = req,
		.cb = cb,
		.n = n,
		.next = d->pending,
		.at = &d->pending,
		.failed = d->fail };
	a->entries = mem_new(n * sizeof *a->entries);
	for (unsigned i = 0; i < n; i++)
		entry_copy(&a->entries[i], &entries[i]);
	if (d->pending != NULL)
		d->pending->at = &a->next;
	d->pending = a;
	/* a constant latency keeps the order of writes */
	world_at(d->m->w, d->latency_ms * 1000, d->m->number, on_synced, a);
	return 0;
}

/* Writes under way end before the truncation, as in the library's own disk half: they lose what is
 * cut off. */
static int disk_truncate(struct raft_io *io, raft_index index)
{
	struct image *g = of(io)->image;
	raft_index end = g->n + 1;

	for (struct disk_append *a = of(io)->pending; a != NULL; a = a->next)
		end += a->n;
	for (struct disk_append *a = of(io)->pending; a != NULL; a = a->next) {
		raft_index first = end - a->n;

		end = first;
		while (a->n > 0 && first + a->n > index)
			free(a->entries[--a->n].buf.base);
	}
	while (g->n >= index)
		free(g->entries[--g->n].buf.base);
	return 0;
}

static int disk_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
	(void)io;
	(void)conf;
	return RAFT_CANTBOOTSTRAP;
}

static int disk_snapshot_put(struct raft_io *io, unsigned trailing,
	struct raft_io_snapshot_put *req, const struct raft_snapshot *snapshot,
	raft_io_snapshot_put_cb cb)
{
	(void)io, (void)trailing, (void)req, (void)snapshot, (void)cb;
	UNREACHABLE(); /* no member takes snapshots yet */
}

static int disk_snapshot_get(
	struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
	(void)io, (void)req, (void)cb;
	UNREACHABLE();
}

static raft_time disk_time(struct raft_io *io)
{
	return of(io)->m->w->now_us / 1000;
}

static int disk_random(struct raft_io *io, int min, int max)
{
	struct raft_disk *d = of(io);

	if (d->patience_ms > 0)
		return d->patience_ms;
	return min + (int)world_random(d->m->w, (uint64_t)(max - min));
}

struct closing {
	struct raft_disk *d;
	raft_io_close_cb cb;
};

static void on_closed(void *arg)
{
	struct closing *c = arg;
	struct raft_disk *d = c->d;
	raft_io_close_cb cb = c->cb;

	free(c);
	cb(&d->io);
}

/* Newest first: oldest first crashes the library (a leader with two or more appends under way). */
static void disk_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct raft_disk *d = of(io);
	struct closing *c = mem_new(sizeof *c);

	d->closed = true;
	while (d->pending != NULL) {
		struct disk_append *a = d->pending;

		append_unlink(a);
		a->cancelled = true;
		a->cb(a->req, RAFT_CANCELED);
	}
	*c = (struct closing){ d, cb };
	world_at(d->m->w, 0, 0, on_closed, c);
}

void raft_disk_init(
	struct raft_disk *d, struct world_member *m, struct loop *loop, struct image *image)
{
	*d = (struct raft_disk){
		.m = m, .loop = loop, .image = image, .generation = m->generation, .latency_ms = 3
	};
	d->io = (struct raft_io){ .version = 1,
		.impl = d,
		.init = disk_init,
		.close = disk_close,
		.load = disk_load,
		.start = disk_start,
		.bootstrap = disk_bootstrap,
		.recover = disk_bootstrap,
		.set_term = disk_set_term,
		.set_vote = disk_set_vote,
		.append = disk_append,
		.truncate = disk_truncate,
		.snapshot_put = disk_snapshot_put,
		.snapshot_get = disk_snapshot_get,
		.time = disk_time,
		.random = disk_random };
}

void image_bootstrap(struct image *g, unsigned n_members)
{
	struct raft_configuration conf;
	struct raft_buffer buf;
	struct raft_entry e = { .term = 1, .type = RAFT_CHANGE };
	char address[40];

	raft_configuration_init(&conf);
	for (unsigned i = 1; i <= n_members; i++) {
		snprintf(address, sizeof address, "00000000-0000-4000-8000-00000000000%u", i);
		CHECK(raft_configuration_add(&conf, i, address, RAFT_VOTER) == 0);
	}
	CHECK(raft_configuration_encode(&conf, &buf) == 0);
	raft_configuration_close(&conf);
	e.buf = buf;
	*g = (struct image){ .term = 1, .n = 1 };
	g->entries = mem_new(sizeof e);
	entry_copy(&g->entries[0], &e);
	raft_free(buf.base);
}

void image_fini(struct image *g)
{
	while (g->n > 0)
		free(g->entries[--g->n].buf.base);
	free(g->entries);
}
