#include "tests/sim/raft_disk.h"
#include "db/consensus_priv.h"

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

static void conf_copy(struct raft_configuration *to, const struct raft_configuration *from)
{
	raft_configuration_init(to);
	for (unsigned i = 0; i < from->n; i++)
		CHECK(raft_configuration_add(to, from->servers[i].id, from->servers[i].address,
			      from->servers[i].role) == 0);
}

/* A copy for the library, which frees it. */
static struct raft_snapshot *snapshot_copy(const struct image *g)
{
	struct raft_snapshot *s = must(raft_calloc(1, sizeof *s));

	s->index = g->snapshot.index;
	s->term = g->snapshot.term;
	s->configuration_index = g->snapshot.conf_index;
	conf_copy(&s->configuration, &g->snapshot.conf);
	s->bufs = must(raft_malloc(sizeof *s->bufs));
	s->n_bufs = 1;
	s->bufs[0].len = g->snapshot.data.len;
	s->bufs[0].base = must(raft_malloc(g->snapshot.data.len));
	memcpy(s->bufs[0].base, g->snapshot.data.base, g->snapshot.data.len);
	return s;
}

/* All entries in one batch, as the library wants them. */
static int disk_load(struct raft_io *io, raft_term *term, raft_id *vote,
	struct raft_snapshot **snapshot, raft_index *start, struct raft_entry **entries, size_t *n)
{
	struct image *g = of(io)->image;
	size_t sum = 0;
	char *batch;

	g->leftover = false; /* from here on it is the log */
	*term = g->term;
	*vote = g->vote;
	*snapshot = g->snapshot.index != 0 ? snapshot_copy(g) : NULL;
	*start = g->start;
	*n = g->n;
	*entries = NULL;
	if (g->n == 0)
		return 0;
	*entries = must(raft_malloc(g->n * sizeof **entries));
	for (size_t i = 0; i < g->n; i++)
		sum += g->entries[i].buf.len;
	batch = must(raft_malloc(sum));
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
	if (!d->stalled)
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

/* Newest first: oldest first crashes the library (a leader with two or more appends under way). */
static void cancel_all(struct raft_disk *d, int status)
{
	while (d->pending != NULL) {
		struct disk_append *a = d->pending;

		append_unlink(a);
		a->cancelled = true;
		a->cb(a->req, status);
	}
}

static void on_synced(void *arg)
{
	struct disk_append *a = arg;
	struct raft_disk *d = a->d;
	struct image *g = d->image;
	struct raft_io_append *req = a->req;
	raft_io_append_cb cb = a->cb;

	if (a->cancelled) {
		append_free(a);
		return;
	}
	if (a->failed) { /* and with it all that is behind it */
		d->failed = true;
		cancel_all(d, RAFT_IOERR);
		append_free(a);
		return;
	}
	append_unlink(a);
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
	raft_index end = g->start + g->n;

	for (struct disk_append *a = of(io)->pending; a != NULL; a = a->next)
		end += a->n;
	for (struct disk_append *a = of(io)->pending; a != NULL; a = a->next) {
		raft_index first = end - a->n;

		end = first;
		while (a->n > 0 && first + a->n > index)
			free(a->entries[--a->n].buf.base);
	}
	while (g->n > 0 && g->start + g->n > index)
		free(g->entries[--g->n].buf.base);
	return 0;
}

static int disk_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
	(void)io;
	(void)conf;
	return RAFT_CANTBOOTSTRAP;
}

/* Work that ends later: taking a snapshot (on what is a worker in the product), storing and reading
 * one. */
struct disk_work {
	struct raft_disk *d;
	struct disk_work *next;
	bool cancelled;
	struct raft_io_async_work *async;
	raft_io_async_work_cb async_cb;
	struct raft_io_snapshot_put *put;
	raft_io_snapshot_put_cb put_cb;
	struct image fresh; /* of a put: its snapshot */
	unsigned trailing;
	struct raft_io_snapshot_get *get;
	raft_io_snapshot_get_cb get_cb;
};

static void snapshot_fini(struct image *g)
{
	if (g->snapshot.index == 0)
		return;
	raft_configuration_close(&g->snapshot.conf);
	free(g->snapshot.data.base);
	g->snapshot.index = 0;
}

/* Entries at the front that the new snapshot replaces; trailing 0: all of them. */
static void drop_entries(struct image *g, unsigned trailing)
{
	raft_index keep = trailing == 0			 ? g->snapshot.index + 1
			  : g->snapshot.index > trailing ? g->snapshot.index - trailing
							 : g->start;
	size_t k = 0;

	while (k < g->n && (trailing == 0 || g->start + k < keep))
		free(g->entries[k++].buf.base);
	memmove(g->entries, g->entries + k, (g->n - k) * sizeof *g->entries);
	g->n -= k;
	g->start = trailing == 0 ? keep : g->start + k;
}

/* A crash between the snapshot and the removal of what it replaces, as of an open segment (which
 * does not say its index): the library takes what is left for entries behind the snapshot. */
static void leave_behind(struct raft_disk *d, struct disk_work *w)
{
	struct image *g = d->image;
	size_t gone = g->n > 0 ? world_random(d->m->w, g->n) : 0;

	snapshot_fini(g);
	g->snapshot = w->fresh.snapshot;
	w->fresh.snapshot.index = 0;
	for (size_t k = 0; k < gone; k++)
		free(g->entries[k].buf.base);
	g->n -= gone;
	if (g->n > 0)
		memmove(g->entries, g->entries + gone, g->n * sizeof *g->entries);
	g->start = g->snapshot.index + 1;
	g->leftover = true;
	g->n_leftover++;
}

static void work_end(struct disk_work *w, int status)
{
	struct raft_disk *d = w->d;
	struct disk_work **at = &d->works;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	if (w->async != NULL) {
		w->async_cb(w->async, status == 0 ? w->async->work(w->async) : status);
	} else if (w->put != NULL) {
		if (status == 0) {
			snapshot_fini(d->image);
			d->image->snapshot = w->fresh.snapshot;
			w->fresh.snapshot.index = 0;
			drop_entries(d->image, w->trailing);
		} else if (w->trailing == 0 && !d->m->alive && world_random(d->m->w, 2) == 0) {
			leave_behind(d, w);
		}
		snapshot_fini(&w->fresh);
		w->put_cb(w->put, status);
	} else {
		w->get_cb(w->get, status == 0 ? snapshot_copy(d->image) : NULL, status);
	}
}

static void on_work(void *arg)
{
	struct disk_work *w = arg;
	struct raft_disk *d = w->d;

	if (!w->cancelled) {
		work_end(w, 0);
		world_loop_turn(d->loop);
	}
	free(w);
}

static struct disk_work *work_new(struct raft_disk *d, unsigned ms)
{
	struct disk_work *w = mem_new(sizeof *w);

	w->d = d;
	w->next = d->works;
	d->works = w;
	world_at(d->m->w, ms * 1000, d->m->number, on_work, w);
	return w;
}

static int disk_async_work(
	struct raft_io *io, struct raft_io_async_work *req, raft_io_async_work_cb cb)
{
	struct disk_work *w = work_new(of(io), of(io)->worker_ms);

	w->async = req;
	w->async_cb = cb;
	return 0;
}

static int disk_snapshot_put(struct raft_io *io, unsigned trailing,
	struct raft_io_snapshot_put *req, const struct raft_snapshot *snapshot,
	raft_io_snapshot_put_cb cb)
{
	struct disk_work *w = work_new(of(io), 4 * of(io)->latency_ms);
	size_t n = 0;

	w->put = req;
	w->put_cb = cb;
	w->trailing = trailing;
	w->fresh.snapshot.index = snapshot->index;
	w->fresh.snapshot.term = snapshot->term;
	w->fresh.snapshot.conf_index = snapshot->configuration_index;
	conf_copy(&w->fresh.snapshot.conf, &snapshot->configuration);
	for (unsigned i = 0; i < snapshot->n_bufs; i++)
		n += snapshot->bufs[i].len;
	w->fresh.snapshot.data = (struct raft_buffer){ mem_new(n), n };
	n = 0;
	for (unsigned i = 0; i < snapshot->n_bufs; n += snapshot->bufs[i++].len)
		memcpy((char *)w->fresh.snapshot.data.base + n, snapshot->bufs[i].base,
			snapshot->bufs[i].len);
	return 0;
}

static int disk_snapshot_get(
	struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
	struct disk_work *w = work_new(of(io), 2);

	w->get = req;
	w->get_cb = cb;
	return 0;
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

/* What was being written when the power went may be there in part: some of the oldest write. */
static void tear(struct raft_disk *d)
{
	struct disk_append *a = d->pending;
	struct image *g = d->image;
	unsigned keep;

	while (a != NULL && a->next != NULL)
		a = a->next;
	if (a == NULL || d->m->alive || d->failed || a->n == 0)
		return;
	keep = (unsigned)world_random(d->m->w, a->n + 1);
	g->entries = mem_resize(g->entries, (g->n + keep + 1) * sizeof *g->entries);
	for (unsigned i = 0; i < keep; i++)
		entry_copy(&g->entries[g->n++], &a->entries[i]);
}

static void disk_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct raft_disk *d = of(io);
	struct closing *c = mem_new(sizeof *c);

	d->closed = true;
	tear(d);
	cancel_all(d, RAFT_CANCELED);
	while (d->works != NULL) {
		struct disk_work *w = d->works;

		w->cancelled = true;
		work_end(w, RAFT_CANCELED);
	}
	*c = (struct closing){ d, cb };
	world_at(d->m->w, 0, 0, on_closed, c);
}

/* The rest of struct consensus_disk. */

static struct image *image_of(struct consensus_disk *base)
{
	return container_of(base, struct raft_disk, base)->image;
}

raft_index image_last(const struct image *g)
{
	return g->n > 0 ? g->start + g->n - 1 : g->snapshot.index;
}

void image_lose(struct image *g, raft_index last)
{
	/* what a snapshot covers lies in closed segments, whose damage is no torn write */
	while (g->n > 0 && g->start + g->n - 1 > last && g->start + g->n - 1 > g->snapshot.index)
		free(g->entries[--g->n].buf.base);
}

static void disk_look(struct consensus_disk *base, uint64_t installing, struct consensus_found *out)
{
	struct image *g = image_of(base);

	if (g->leftover && installing == g->snapshot.index)
		while (g->n > 0)
			free(g->entries[--g->n].buf.base);
	*out = (struct consensus_found){
		.term = g->term, .vote = g->vote, .last_index = image_last(g)
	};
	if (g->leftover && g->n > 0 && g->entries[0].term < g->snapshot.term)
		snprintf(out->why, sizeof out->why, "an entry cannot follow the snapshot");
}

static int disk_set_aside(struct consensus_disk *base, uint64_t term, uint64_t vote)
{
	struct image *g = image_of(base);

	snapshot_fini(g);
	image_lose(g, 0);
	g->start = 1;
	g->term = term;
	g->vote = vote;
	g->leftover = false;
	g->n_aside++;
	return 0;
}

static int disk_attach(struct consensus_disk *base)
{
	(void)base;
	return 0;
}

static int disk_space(struct consensus_disk *base, uint64_t *bytes_out)
{
	enum { PLENTY_MIB = 1 << 20 };
	unsigned mib = image_of(base)->full_mib;

	*bytes_out = (uint64_t)(mib ? mib : PLENTY_MIB) << 20;
	return 0;
}

static bool disk_is_cut(struct consensus_disk *base, uint64_t index)
{
	(void)base, (void)index;
	return true;
}

static int disk_note_read(struct consensus_disk *base, struct buf *out)
{
	struct image *g = image_of(base);
	static const uint8_t zeros[CONSENSUS_NOTE_SLOT];

	for (unsigned i = 0; i < NOTE_SLOTS; i++) {
		buf_put(out, g->note[i], g->note_n[i]);
		buf_put(out, zeros, CONSENSUS_NOTE_SLOT - g->note_n[i]);
	}
	return 0;
}

static int disk_note_write(struct consensus_disk *base, unsigned slot, const void *p, size_t n)
{
	struct image *g = image_of(base);

	CHECK(slot < NOTE_SLOTS && n <= CONSENSUS_NOTE_SLOT);
	memcpy(g->note[slot], p, n);
	g->note_n[slot] = n;
	return 0;
}

void raft_disk_init(
	struct raft_disk *d, struct world_member *m, struct loop *loop, struct image *image)
{
	*d = (struct raft_disk){ .m = m,
		.loop = loop,
		.image = image,
		.generation = m->generation,
		.latency_ms = 3,
		.worker_ms = 10 };
	d->base = (struct consensus_disk){ .io = &d->io,
		.look = disk_look,
		.set_aside = disk_set_aside,
		.attach = disk_attach,
		.space = disk_space,
		.is_cut = disk_is_cut,
		.note_read = disk_note_read,
		.note_write = disk_note_write };
	d->io = (struct raft_io){ .version = 2,
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
		.random = disk_random,
		.async_work = disk_async_work };
}

void image_bootstrap(struct image *g, unsigned n_members)
{
	struct raft_configuration conf;
	struct raft_buffer buf;
	struct raft_entry e = { .term = 1, .type = RAFT_CHANGE };
	struct note first = { .sequence = 1, .term = 1, .index = 1, .committed = 1 };
	struct raft_disk d = { .base = { .note_write = disk_note_write }, .image = g };
	char address[40];

	raft_configuration_init(&conf);
	for (unsigned i = 1; i <= n_members; i++) {
		snprintf(address, sizeof address, "00000000-0000-4000-8000-00000000000%u", i);
		CHECK(raft_configuration_add(&conf, i, address, RAFT_VOTER) == 0);
	}
	CHECK(raft_configuration_encode(&conf, &buf) == 0);
	raft_configuration_close(&conf);
	e.buf = buf;
	*g = (struct image){ .term = 1, .start = 1, .n = 1 };
	g->entries = mem_new(sizeof e);
	entry_copy(&g->entries[0], &e);
	raft_free(buf.base);
	CHECK(consensus__note_write(&d.base, &first, NOTE_LOOP) == 0);
}

void image_fini(struct image *g)
{
	while (g->n > 0)
		free(g->entries[--g->n].buf.base);
	free(g->entries);
	snapshot_fini(g);
}
