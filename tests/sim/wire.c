/* Wires between simulated members. What is written is delivered frame by frame in order, each after
 * a random delay; a frame may be lost or come twice, which is harsher than TCP; a cut drops
 * everything silently; death breaks the connection. */
#include "tests/sim/world_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct wire_end {
	struct world *w;
	struct wire_end *next, *peer; /* peer NULL: never connected */
	struct stream *s;	      /* NULL: closed */
	struct world_member *m;
	uint64_t last_us; /* delivery of the last frame towards the peer */
	unsigned pending;
	bool listed;
};

struct wire_port {
	struct wire_port *next;
	struct listener *l;
	struct world_member *m;
	uint64_t generation;
	char address[80];
};

struct frame {
	struct wire_end *to;
	unsigned from;
	size_t n;
	uint8_t bytes[];
};

static struct world_member *member_of(struct loop *loop)
{
	return container_of(loop->env, struct world_member, env);
}

static struct wire_end *end_new(struct stream *s)
{
	struct wire_end *e = mem_new(sizeof *e);

	e->m = member_of(s->loop);
	e->w = e->m->w;
	e->s = s;
	s->impl = e;
	e->next = e->w->ends;
	e->w->ends = e;
	return e;
}

int wire_listen(struct listener *l, const char *address)
{
	struct wire_port *p = mem_new(sizeof *p);

	p->l = l;
	p->m = member_of(l->loop);
	p->generation = p->m->generation;
	snprintf(p->address, sizeof p->address, "%s", address);
	p->next = p->m->w->ports;
	p->m->w->ports = p;
	l->impl = p;
	return 0;
}

void wire_unlisten(struct listener *l)
{
	struct wire_port *p = l->impl;

	p->l = NULL;
}

static struct wire_port *port_find(struct world *w, const char *address)
{
	for (struct wire_port *p = w->ports; p != NULL; p = p->next)
		if (p->l != NULL && p->m->alive && p->generation == p->m->generation &&
			strcmp(p->address, address) == 0)
			return p;
	return NULL;
}

/* Something happens to a stream on its member's loop. */
static void turn(struct wire_end *e)
{
	world_loop_turn(e->s->loop);
}

struct attempt {
	struct wire_end *e;
	char address[80];
};

static void on_connected(void *arg)
{
	struct wire_end *e = arg;

	if (e->s == NULL || !e->m->alive)
		return;
	memcpy(e->s->fingerprint, e->peer->m->fingerprint, 32);
	e->s->has_fingerprint = true;
	stream__connected(e->s);
	if (e->s != NULL)
		turn(e);
}

static void on_attempt(void *arg)
{
	struct attempt *a = arg;
	struct wire_end *e = a->e, *far;
	struct wire_port *p = port_find(e->w, a->address);
	struct stream *s;

	free(a);
	if (e->s == NULL || !e->m->alive)
		return;
	if (p == NULL || e->w->cut[e->m->number][p->m->number] ||
		e->w->cut[p->m->number][e->m->number]) {
		struct loop *loop = e->s->loop;

		stream__broken(e->s, "connection refused");
		world_loop_turn(loop);
		return;
	}
	s = stream__accepted(p->l);
	far = end_new(s);
	far->peer = e;
	e->peer = far;
	p->l->accept(p->l->arg, s);
	on_connected(far);
	world_at(e->w, 1000, e->m->number, on_connected, e);
}

int wire_connect(struct stream *s, const char *address)
{
	struct attempt *a = mem_new(sizeof *a);
	struct wire_end *e = end_new(s);

	a->e = e;
	snprintf(a->address, sizeof a->address, "%s", address);
	world_at(e->w, 1000 + world_random(e->w, 1000 * e->w->delay_max_ms), e->m->number,
		on_attempt, a);
	return 0;
}

static void on_frame(void *arg)
{
	struct frame *f = arg;
	struct wire_end *to = f->to;
	struct world *w = to->w;

	if (to->s != NULL && to->m->alive && !w->cut[f->from][to->m->number]) {
		w->frames++;
		if (w->arrived != NULL)
			w->arrived(w->arrived_arg, f->from, to->m->number, f->bytes[4]);
		stream__data(to->s, f->bytes, f->n);
		if (to->s != NULL)
			turn(to);
	}
	free(f);
}

static void on_written(void *arg)
{
	struct wire_end *e = arg;

	if (e->s != NULL && e->m->alive) {
		stream__written(e->s, e->s->in_flight);
		if (e->s != NULL)
			turn(e);
	}
}

static void send_frame(struct wire_end *e, const uint8_t *bytes, size_t n)
{
	struct world *w = e->w;
	uint64_t due = w->now_us + 500 + world_random(w, 1000 * w->delay_max_ms);
	struct frame *f = must(malloc(sizeof *f + n));

	if (due < e->last_us)
		due = e->last_us;
	if (w->bytes_per_ms > 0)
		due += 1000 * n / w->bytes_per_ms;
	e->last_us = due;
	f->to = e->peer;
	f->from = e->m->number;
	f->n = n;
	memcpy(f->bytes, bytes, n);
	world_at(w, due - w->now_us, e->peer->m->number, on_frame, f);
}

static bool chance(struct world *w, unsigned permille)
{
	return permille > 0 && world_random(w, 1000) < permille;
}

static void send_frames(struct wire_end *e, const struct buf *bytes)
{
	struct world *w = e->w;
	size_t at = 0;

	for (size_t n; at < bytes->len; at += n) {
		struct reader r = reader_of(bytes->data + at, bytes->len - at);
		uint32_t length = rd_u32(&r), type = rd_u32(&r);
		bool greeting = type == 1; /* to lose it would only cost time */

		n = 8 + length;
		if (r.bad || n > bytes->len - at)
			n = bytes->len - at; /* the rest is no frame: of a stranger (tests/fuzz) */
		if (w->watch != NULL)
			w->watch(w->watch_arg, (uint8_t)type, r.p,
				rd_left(&r) < length ? rd_left(&r) : length);
		if (e->peer == NULL || (!greeting && chance(w, w->loss_permille)) ||
			(w->filter != NULL && w->filter(w->filter_arg, e->m->number,
						      e->peer->m->number, (uint8_t)type, length))) {
			w->dropped++;
			continue;
		}
		send_frame(e, bytes->data + at, n);
		if (!greeting && chance(w, w->duplicate_permille)) {
			send_frame(e, bytes->data + at, n);
			w->duplicated++;
		}
	}
}

/* A wire takes a write as a whole; a slow one when the last of it has arrived. */
size_t wire_untaken(const struct stream *s)
{
	return s->in_flight;
}

void wire_write(struct stream *s, struct buf *bytes)
{
	struct wire_end *e = s->impl;

	send_frames(e, bytes);
	buf_fini(bytes);
	world_at(e->w, e->w->bytes_per_ms > 0 ? e->last_us - e->w->now_us : 0, e->m->number,
		on_written, e);
}

void wire_pause(struct stream *s, bool paused)
{
	(void)s;
	(void)paused;
}

static void on_peer_gone(void *arg)
{
	struct wire_end *e = arg;
	struct loop *loop;

	if (e->s == NULL || !e->m->alive)
		return;
	loop = e->s->loop;
	stream__broken(e->s, "closed by the peer");
	world_loop_turn(loop);
}

static void on_free(void *arg)
{
	stream__free(arg);
}

void wire_close(struct stream *s)
{
	struct wire_end *e = s->impl;

	if (e->peer != NULL) {
		if (s->connected && s->out.len > 0)
			send_frames(e, &s->out);
		world_at(e->w, 500, e->peer->m->number, on_peer_gone, e->peer);
	}
	e->s = NULL;
	world_at(e->w, 0, 0, on_free, s);
}

/* The kernel closes what a dead process had open; its own memory goes with its life (db_close does
 * the rest). */
void wire_break_all(struct world *w, unsigned number)
{
	for (struct wire_end *e = w->ends; e != NULL; e = e->next)
		if (e->m->number == number && e->s != NULL && e->peer != NULL && !e->listed) {
			e->listed = true;
			world_at(w, 500, e->peer->m->number, on_peer_gone, e->peer);
		}
}

void wire_fini(struct world *w)
{
	while (w->ends != NULL) {
		struct wire_end *e = w->ends;

		w->ends = e->next;
		free(e);
	}
	while (w->ports != NULL) {
		struct wire_port *p = w->ports;

		w->ports = p->next;
		free(p);
	}
}
