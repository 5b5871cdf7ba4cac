/* The part of an event loop that product and simulation share: see loop.h. */
#include "rpc/base/loop.h"

#include <stdlib.h>

enum { LOOP_SLOW_TURN_US = 20000 };

struct loop *loop_new(struct env *env, const char *name)
{
	struct loop *loop = mem_new(sizeof *loop);

	loop->env = env;
	loop->name = name;
	pthread_mutex_init(&loop->mutex, NULL);
	loop->calls_tail = &loop->calls;
	loop->hooks_tail = &loop->hooks;
	if (env->ops->loop_attach(loop) < 0)
		env_die(env, "a loop cannot be made: out of file descriptors?");
	return loop;
}

void loop_start(struct loop *loop)
{
	loop->env->ops->loop_start(loop);
}

void loop_stop(struct loop *loop)
{
	loop->env->ops->loop_stop(loop);
}

void loop_free(struct loop *loop)
{
	loop->env->ops->loop_detach(loop);
	pthread_mutex_destroy(&loop->mutex);
	free(loop->heap);
	free(loop);
}

void loop_assert(struct loop *loop)
{
	CHECK(loop->env->ops->loop_here(loop));
}

void loop_post(struct loop *loop, struct loop_call *call, void (*fn)(struct loop_call *call))
{
	bool wake = false;

	pthread_mutex_lock(&loop->mutex);
	if (!call->queued) {
		call->queued = true;
		call->fn = fn;
		call->next = NULL;
		wake = loop->calls == NULL;
		*loop->calls_tail = call;
		loop->calls_tail = &call->next;
	}
	pthread_mutex_unlock(&loop->mutex);
	if (wake)
		loop->env->ops->loop_wake(loop);
}

/* Timers: a binary heap ordered by (due, seq), so that equal times keep their order. */

static bool sooner(const struct loop_timer *a, const struct loop_timer *b)
{
	return a->due_us != b->due_us ? a->due_us < b->due_us : a->seq < b->seq;
}

static void heap_put(struct loop *loop, size_t pos, struct loop_timer *t)
{
	loop->heap[pos - 1] = t;
	t->pos = pos;
}

static void heap_up(struct loop *loop, struct loop_timer *t, size_t pos)
{
	while (pos > 1 && sooner(t, loop->heap[pos / 2 - 1])) {
		heap_put(loop, pos, loop->heap[pos / 2 - 1]);
		pos /= 2;
	}
	heap_put(loop, pos, t);
}

static void heap_down(struct loop *loop, struct loop_timer *t, size_t pos)
{
	for (;;) {
		size_t k = 2 * pos;

		if (k > loop->n_heap)
			break;
		if (k < loop->n_heap && sooner(loop->heap[k], loop->heap[k - 1]))
			k++;
		if (!sooner(loop->heap[k - 1], t))
			break;
		heap_put(loop, pos, loop->heap[k - 1]);
		pos = k;
	}
	heap_put(loop, pos, t);
}

void loop_timer_stop(struct loop_timer *t)
{
	struct loop *loop = t->loop;
	struct loop_timer *last;
	size_t pos = t->pos;

	if (pos == 0)
		return;
	loop_assert(loop);
	t->pos = 0;
	last = loop->heap[--loop->n_heap];
	if (last == t)
		return;
	if (pos > 1 && sooner(last, loop->heap[pos / 2 - 1]))
		heap_up(loop, last, pos);
	else
		heap_down(loop, last, pos);
}

void loop_timer_start(
	struct loop *loop, struct loop_timer *t, uint64_t ms, void (*fn)(struct loop_timer *timer))
{
	loop_assert(loop);
	loop_timer_stop(t);
	t->loop = loop;
	t->fn = fn;
	t->due_us = env_now_us(loop->env) + ms * 1000;
	t->seq = loop->timer_seq++;
	if (loop->n_heap == loop->cap_heap) {
		loop->cap_heap = loop->cap_heap ? 2 * loop->cap_heap : 16;
		loop->heap = mem_resize(loop->heap, loop->cap_heap * sizeof(struct loop_timer *));
	}
	heap_up(loop, t, ++loop->n_heap);
	if (loop->heap[0] == t)
		loop->env->ops->loop_arm(loop, t->due_us);
}

void loop_hook_add(struct loop *loop, struct loop_hook *hook, void (*fn)(struct loop_hook *hook))
{
	hook->fn = fn;
	hook->next = NULL;
	*loop->hooks_tail = hook;
	loop->hooks_tail = &hook->next;
}

static void run_calls(struct loop *loop)
{
	struct loop_call *list;

	pthread_mutex_lock(&loop->mutex);
	list = loop->calls;
	loop->calls = NULL;
	loop->calls_tail = &loop->calls;
	pthread_mutex_unlock(&loop->mutex);
	while (list != NULL) {
		struct loop_call *call = list;
		void (*fn)(struct loop_call *);

		list = call->next;
		/* under the mutex, since another thread may post it again from here on */
		pthread_mutex_lock(&loop->mutex);
		call->queued = false;
		fn = call->fn;
		pthread_mutex_unlock(&loop->mutex);
		fn(call);
	}
}

void loop__turn(struct loop *loop)
{
	uint64_t now;

	run_calls(loop);
	now = env_now_us(loop->env);
	while (loop->n_heap > 0 && loop->heap[0]->due_us <= now) {
		struct loop_timer *t = loop->heap[0];

		loop_timer_stop(t);
		t->fn(t);
	}
	if (loop->n_heap > 0)
		loop->env->ops->loop_arm(loop, loop->heap[0]->due_us);
}

void loop__hooks(struct loop *loop)
{
	uint64_t took;

	for (struct loop_hook *h = loop->hooks; h != NULL; h = h->next)
		h->fn(h);
	stream__flush_dirty(loop);
	COUNT(loop->env, loop_turns);
	if (loop->turn_began_us == 0)
		return;
	took = env_now_us(loop->env) - loop->turn_began_us;
	loop->turn_began_us = 0;
	counter_max(&loop->env->counters, COUNTER_loop_lag_us_max, took);
	if (took > LOOP_SLOW_TURN_US) {
		COUNT(loop->env, loop_slow_turns);
		log_debug(loop->env, "event=slow_turn loop=%s us=%llu", loop->name,
			(unsigned long long)took);
	}
}
