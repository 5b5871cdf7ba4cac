/* An event loop: posted calls, timers, hooks at the end of each turn. Never blocks; one thread.
 *
 * The core (this file, loop.c) is the same in product and simulation; the back end in env_ops only
 * runs turns: loop__turn() when woken or when the armed time has come, loop__hooks() before it
 * waits. A callback is never run from inside the call that asked for it.
 */
#pragma once

#include "rpc/base/env.h"

#include <pthread.h>

/* Embed in what the call is about; may be posted again once fn has begun. */
struct loop_call {
	struct loop_call *next;
	void (*fn)(struct loop_call *call);
	bool queued;
};

/* Embed; zero before the first start. Loop thread only. */
struct loop_timer {
	struct loop *loop;
	void (*fn)(struct loop_timer *timer);
	uint64_t due_us, seq;
	size_t pos; /* 1-based place in the heap, 0 = not running */
};

/* Embed; called at the end of every turn, in the order of registration. */
struct loop_hook {
	struct loop_hook *next;
	void (*fn)(struct loop_hook *hook);
};

struct loop {
	struct env *env;
	const char *name;
	void *impl; /* of the back end */
	pthread_mutex_t mutex;
	struct loop_call *calls, **calls_tail; /* under mutex */
	struct loop_timer **heap;
	size_t n_heap, cap_heap;
	uint64_t timer_seq;
	struct loop_hook *hooks, **hooks_tail;
	struct stream *dirty; /* streams with something to flush at the end of the turn */
	uint64_t turn_began_us;
};

/* Start with loop_start when everything that belongs to it has been registered. */
struct loop *loop_new(struct env *env, const char *name);
void loop_start(struct loop *loop);
/* End the loop's thread and wait for it; what is posted from here on never runs. Not from its own
 * thread. */
void loop_stop(struct loop *loop);
/* After loop_stop, when nobody can post any more. */
void loop_free(struct loop *loop);

/* Run fn on the loop, soon, in order of posting. Any thread. No effect while the call is queued
 * already: many reasons to look make one look. */
void loop_post(struct loop *loop, struct loop_call *call, void (*fn)(struct loop_call *call));

/* Once, after ms; a running timer is moved. Loop thread only. */
void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t ms,
	void (*fn)(struct loop_timer *timer));
void loop_timer_stop(struct loop_timer *timer);

void loop_hook_add(struct loop *loop, struct loop_hook *hook, void (*fn)(struct loop_hook *hook));

/* First line of every function that touches what a loop owns. */
void loop_assert(struct loop *loop);

/* For back ends. */
void loop__turn(struct loop *loop);
void loop__hooks(struct loop *loop);
void stream__flush_dirty(struct loop *loop); /* stream.c */
