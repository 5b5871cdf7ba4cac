#include "tests/sim/world.h"
#include "rpc/base/hash.h"
#include "tests/sim/world_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct world_event {
	uint64_t t, seq;
	unsigned member;
	uint64_t generation;
	void (*fn)(void *arg);
	void *arg;
};

struct sim_thread {
	struct world *w;
	struct world_member *m;
	pthread_t id;
	void (*fn)(void *arg);
	void *arg;
	struct parker *parked; /* NULL: runnable or running */
	struct sim_thread *next;
	bool done;
};

struct parker {
	struct world_member *m;
	struct sim_thread *waiter;
	uint64_t wait_id;
	bool token, timed_out, waking;
	unsigned pending; /* events that refer to it */
	bool freed;
};

struct sim_loop {
	struct loop *loop;
	bool woken, stopped;
	uint64_t armed_us;
	unsigned pending;
};

static __thread struct sim_thread *this_thread;

static struct world_member *member_of(struct env *env)
{
	return container_of(env, struct world_member, env);
}

/* Events. */

static bool sooner(const struct world_event *a, const struct world_event *b)
{
	return a->t != b->t ? a->t < b->t : a->seq < b->seq;
}

void world_at(struct world *w, uint64_t after_us, unsigned member, void (*fn)(void *arg), void *arg)
{
	struct world_event e = { w->now_us + after_us, w->sequence++, member,
		w->members[member].generation, fn, arg };
	size_t i;

	if (w->n == w->cap) {
		w->cap = w->cap ? 2 * w->cap : 256;
		w->heap = mem_resize(w->heap, w->cap * sizeof *w->heap);
	}
	for (i = w->n++; i > 0 && sooner(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = e;
}

static struct world_event pop(struct world *w)
{
	struct world_event e = w->heap[0], last = w->heap[--w->n];
	size_t i = 0, k;

	while ((k = 2 * i + 1) < w->n) {
		if (k + 1 < w->n && sooner(&w->heap[k + 1], &w->heap[k]))
			k++;
		if (!sooner(&w->heap[k], &last))
			break;
		w->heap[i] = w->heap[k];
		i = k;
	}
	w->heap[i] = last;
	return e;
}

static void step(struct world *w)
{
	struct world_event e = pop(w);

	w->now_us = e.t;
	w->hash = (w->hash ^ e.t ^ (e.seq << 20) ^ e.member) * 1099511628211u;
	/* events of earlier lives still run when they only clean up: their functions look for
	 * themselves */
	e.fn(e.arg);
}

void world_run(struct world *w, uint64_t until_us)
{
	while (w->n > 0 && w->heap[0].t <= until_us)
		step(w);
	if (w->now_us < until_us)
		w->now_us = until_us;
}

bool world_until(struct world *w, bool (*done)(void *arg), void *arg, uint64_t ms)
{
	uint64_t until = w->now_us + ms * 1000;

	while (!done(arg)) {
		if (w->n == 0 || w->heap[0].t > until)
			return false;
		step(w);
	}
	return true;
}

uint64_t world_random(struct world *w, uint64_t below)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random % below;
}

uint64_t world_hash(const struct world *w)
{
	return w->hash;
}

/* The baton. */

static void give(struct world *w, struct sim_thread *t)
{
	CHECK(this_thread == NULL);
	pthread_mutex_lock(&w->mutex);
	w->baton = t;
	pthread_cond_broadcast(&w->cond);
	while (w->baton != NULL)
		pthread_cond_wait(&w->cond, &w->mutex);
	pthread_mutex_unlock(&w->mutex);
}

/* Under the mutex. */
static void await_baton(struct world *w, struct sim_thread *t)
{
	while (w->baton != t)
		pthread_cond_wait(&w->cond, &w->mutex);
}

static void hand_back(struct world *w)
{
	w->baton = NULL;
	pthread_cond_broadcast(&w->cond);
}

static void *thread_main(void *arg)
{
	struct sim_thread *t = arg;

	this_thread = t;
	pthread_mutex_lock(&t->w->mutex);
	await_baton(t->w, t);
	pthread_mutex_unlock(&t->w->mutex);
	t->fn(t->arg);
	pthread_mutex_lock(&t->w->mutex);
	t->done = true;
	hand_back(t->w);
	pthread_mutex_unlock(&t->w->mutex);
	return NULL;
}

static void run_thread(void *arg)
{
	struct sim_thread *t = arg;

	if (!t->done && t->parked == NULL)
		give(t->w, t);
}

static struct thread *sim_thread_start(
	struct env *env, const char *name, void (*fn)(void *arg), void *arg)
{
	struct world_member *m = member_of(env);
	struct sim_thread *t = mem_new(sizeof *t);

	(void)name;
	t->w = m->w;
	t->m = m;
	t->fn = fn;
	t->arg = arg;
	t->next = m->w->threads;
	m->w->threads = t;
	CHECK(pthread_create(&t->id, NULL, thread_main, t) == 0);
	world_at(m->w, 0, m->number, run_thread, t);
	return (struct thread *)t;
}

static void sim_thread_join(struct thread *thread)
{
	struct sim_thread *t = (struct sim_thread *)thread;

	while (!t->done)
		give(t->w, t); /* it runs out: its parkers answer ERR_DEAD */
			       /* freed with the world: events may still name it */
}

static struct parker *sim_parker_new(struct env *env)
{
	struct parker *p = mem_new(sizeof *p);

	p->m = member_of(env);
	return p;
}

static void parker_release(struct parker *p)
{
	if (p->freed && p->pending == 0)
		free(p);
}

static void sim_parker_free(struct parker *p)
{
	p->freed = true;
	parker_release(p);
}

struct park_event {
	struct parker *p;
	uint64_t wait_id;
};

static void resume(struct parker *p)
{
	struct sim_thread *t = p->waiter;

	p->waiter = NULL;
	t->parked = NULL;
	give(t->w, t);
}

static void on_park_timeout(void *arg)
{
	struct park_event *e = arg;
	struct parker *p = e->p;

	p->pending--;
	if (!p->freed && p->waiter != NULL && p->wait_id == e->wait_id) {
		p->timed_out = true;
		p->pending++; /* the thread may free it meanwhile */
		resume(p);
		p->pending--;
	}
	free(e);
	parker_release(p);
}

static void on_unpark(void *arg)
{
	struct parker *p = arg;

	p->waking = false;
	p->pending--;
	if (!p->freed && p->waiter != NULL && p->token) {
		p->pending++;
		resume(p);
		p->pending--;
	}
	parker_release(p);
}

static int sim_park(struct parker *p, uint64_t timeout_us)
{
	struct sim_thread *t = this_thread;
	struct world *w = p->m->w;
	struct park_event *e;

	CHECK(t != NULL); /* only jobs may block */
	if (!t->m->alive)
		return ERR_DEAD;
	if (p->token) {
		p->token = false;
		return 0;
	}
	p->waiter = t;
	p->timed_out = false;
	p->wait_id++;
	t->parked = p;
	if (timeout_us != UINT64_MAX) {
		e = mem_new(sizeof *e);
		*e = (struct park_event){ p, p->wait_id };
		p->pending++;
		world_at(w, timeout_us, p->m->number, on_park_timeout, e);
	}
	pthread_mutex_lock(&w->mutex);
	hand_back(w);
	await_baton(w, t);
	pthread_mutex_unlock(&w->mutex);
	if (!t->m->alive)
		return ERR_DEAD;
	if (p->token) {
		p->token = false;
		return 0;
	}
	return ERR_TIMEOUT;
}

static void sim_unpark(struct parker *p)
{
	p->token = true;
	if (p->waiter == NULL || p->waking)
		return;
	p->waking = true;
	p->pending++;
	world_at(p->m->w, 0, p->m->number, on_unpark, p);
}

/* Loops. */

static int sim_loop_attach(struct loop *loop)
{
	struct sim_loop *l = mem_new(sizeof *l);

	l->loop = loop;
	loop->impl = l;
	return 0;
}

static void loop_release(struct sim_loop *l)
{
	if (l->stopped && l->pending == 0)
		free(l);
}

void world_loop_turn(struct loop *loop)
{
	if (member_of(loop->env)->alive)
		loop__hooks(loop);
}

static void on_loop_event(void *arg)
{
	struct sim_loop *l = arg;

	l->pending--;
	if (!l->stopped && member_of(l->loop->env)->alive) {
		uint64_t now = member_of(l->loop->env)->w->now_us;

		l->woken = false;
		if (l->armed_us <= now)
			l->armed_us = 0;
		loop__turn(l->loop);
		loop__hooks(l->loop);
	}
	loop_release(l);
}

static void sim_loop_start(struct loop *loop)
{
	struct sim_loop *l = loop->impl;
	struct world_member *m = member_of(loop->env);

	l->pending++;
	world_at(m->w, 0, m->number, on_loop_event, l);
}

static void sim_loop_stop(struct loop *loop)
{
	(void)loop; /* its member has died: it runs no more */
}

static void sim_loop_detach(struct loop *loop)
{
	struct sim_loop *l = loop->impl;

	l->stopped = true;
	loop_release(l);
}

static void sim_loop_wake(struct loop *loop)
{
	struct sim_loop *l = loop->impl;
	struct world_member *m = member_of(loop->env);

	if (l->woken)
		return;
	l->woken = true;
	l->pending++;
	world_at(m->w, 0, m->number, on_loop_event, l);
}

static void sim_loop_arm(struct loop *loop, uint64_t due_us)
{
	struct sim_loop *l = loop->impl;
	struct world_member *m = member_of(loop->env);

	if (l->armed_us != 0 && l->armed_us <= due_us)
		return;
	l->armed_us = due_us;
	l->pending++;
	world_at(m->w, due_us > m->w->now_us ? due_us - m->w->now_us : 0, m->number, on_loop_event,
		l);
}

static bool sim_loop_here(struct loop *loop)
{
	(void)loop;
	return this_thread == NULL;
}

/* Clock, chance, death. */

static uint64_t sim_now_us(struct env *env)
{
	return member_of(env)->w->now_us;
}

static int64_t sim_wall_s(struct env *env)
{
	const struct world_member *m = member_of(env);

	return 1800000000 + (int64_t)(m->w->now_us / 1000000) + m->wall_ahead_s;
}

static void sim_random(struct env *env, void *out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)out)[i] = (uint8_t)world_random(member_of(env)->w, 256);
}

static void sim_die(struct env *env)
{
	/* the test sees a member that is no longer alive and ends its life properly */
	member_of(env)->alive = false;
}

static const struct env_ops sim_ops = {
	.now_us = sim_now_us,
	.wall_s = sim_wall_s,
	.random = sim_random,
	.die = sim_die,
	.thread_start = sim_thread_start,
	.thread_join = sim_thread_join,
	.parker_new = sim_parker_new,
	.parker_free = sim_parker_free,
	.park = sim_park,
	.unpark = sim_unpark,
	.loop_attach = sim_loop_attach,
	.loop_start = sim_loop_start,
	.loop_stop = sim_loop_stop,
	.loop_detach = sim_loop_detach,
	.loop_wake = sim_loop_wake,
	.loop_arm = sim_loop_arm,
	.loop_here = sim_loop_here,
	.listen = wire_listen,
	.unlisten = wire_unlisten,
	.connect = wire_connect,
	.write = wire_write,
	.untaken = wire_untaken,
	.pause = wire_pause,
	.close = wire_close,
};

void world_fingerprint(unsigned number, uint8_t out[32])
{
	memset(out, (int)number, 32);
}

struct world_member *world_boot(struct world *w, unsigned number)
{
	static const char *const names[] = { "", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8" };
	struct world_member *m = &w->members[number];

	CHECK(number >= 1 && number <= WORLD_MEMBERS_MAX && !m->alive);
	m->env = (struct env){ .ops = &sim_ops,
		.name = names[number],
		.log = { getenv("XPOOL_SIM_LOG") ? LOG_DEBUG : LOG_ERR } };
	m->w = w;
	m->number = number;
	m->alive = true;
	m->generation++;
	world_fingerprint(number, m->fingerprint);
	return m;
}

void world_kill(struct world *w, unsigned number)
{
	struct world_member *m = &w->members[number];

	m->alive = false;
	wire_break_all(w, number);
	/* in order of creation, which is the reverse of the list: the same history every time */
	for (bool again = true; again;) {
		struct sim_thread *last = NULL;

		again = false;
		for (struct sim_thread *t = w->threads; t != NULL; t = t->next)
			if (t->m == m && !t->done)
				last = t;
		if (last != NULL) {
			if (last->parked != NULL)
				last->parked->waiter = NULL;
			last->parked = NULL;
			give(w, last);
			again = true;
		}
	}
}

void world_init(struct world *w, uint64_t seed)
{
	*w = (struct world){ .random = seed * 2654435769u + 88172645463325252u,
		.now_us = 1000000,
		.delay_max_ms = WORLD_DELAY_MS };
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->cond, NULL);
}

void world_fini(struct world *w)
{
	while (w->n > 0)
		step(w);
	while (w->threads != NULL) {
		struct sim_thread *t = w->threads;

		w->threads = t->next;
		CHECK(t->done);
		pthread_join(t->id, NULL);
		free(t);
	}
	wire_fini(w);
	free(w->heap);
	pthread_mutex_destroy(&w->mutex);
	pthread_cond_destroy(&w->cond);
}
