/* Loop back end on libuv: one thread per loop. */
#include "rpc/base/env_uv_priv.h"
#include "rpc/base/uv.h"

#include <stdlib.h>

static struct loop_uv *impl(struct loop *loop)
{
	return loop->impl;
}

static void on_wake(uv_async_t *h)
{
	struct loop_uv *l = h->data;

	loop__turn(l->loop);
}

static void on_timer(uv_timer_t *h)
{
	struct loop_uv *l = h->data;

	loop__turn(l->loop);
}

static void on_prepare(uv_prepare_t *h)
{
	struct loop_uv *l = h->data;
	uint64_t idle_us = uv_metrics_idle_time(&l->uv) / 1000;
	uint64_t now = env_now_us(l->loop->env);
	uint64_t waited = idle_us - l->idle_us;

	if (l->stopping) {
		uv_stop(&l->uv);
		return;
	}
	/* the turn is all time since the last prepare that was not spent waiting in the poll */
	if (l->prepared_us != 0)
		l->loop->turn_began_us =
			l->prepared_us + waited < now ? l->prepared_us + waited : now;
	l->idle_us = idle_us;
	loop__hooks(l->loop);
	l->prepared_us = env_now_us(l->loop->env);
}

int loop_uv_attach(struct loop *loop)
{
	struct loop_uv *l = mem_new(sizeof *l);

	l->loop = loop;
	loop->impl = l;
	if (uv_loop_init(&l->uv) != 0) {
		free(l);
		return ERR_IO;
	}
	uv_async_init(&l->uv, &l->wake, on_wake);
	uv_timer_init(&l->uv, &l->timer);
	uv_prepare_init(&l->uv, &l->prepare);
	uv_loop_configure(&l->uv, UV_METRICS_IDLE_TIME);
	l->wake.data = l->timer.data = l->prepare.data = l;
	uv_prepare_start(&l->prepare, on_prepare);
	return 0;
}

static void *loop_main(void *arg)
{
	struct loop_uv *l = arg;

	l->self = pthread_self();
	uv_run(&l->uv, UV_RUN_DEFAULT);
	return NULL;
}

void loop_uv_start(struct loop *loop)
{
	struct loop_uv *l = impl(loop);

	l->started = true;
	CHECK(pthread_create(&l->thread, NULL, loop_main, l) == 0);
	pthread_setname_np(l->thread, loop->name);
}

static void close_handle(uv_handle_t *h, void *arg)
{
	(void)arg;
	if (!uv_is_closing(h))
		uv_close(h, NULL);
}

void loop_uv_stop(struct loop *loop)
{
	struct loop_uv *l = impl(loop);

	if (l->started) {
		l->stopping = true;
		uv_async_send(&l->wake);
		pthread_join(l->thread, NULL);
		l->started = false;
	}
}

void loop_uv_detach(struct loop *loop)
{
	struct loop_uv *l = impl(loop);

	uv_walk(&l->uv, close_handle, NULL);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	uv_loop_close(&l->uv);
	free(l);
}

void loop_uv_wake(struct loop *loop)
{
	uv_async_send(&impl(loop)->wake);
}

void loop_uv_arm(struct loop *loop, uint64_t due_us)
{
	struct loop_uv *l = impl(loop);
	uint64_t now = env_now_us(loop->env);

	/* libuv counts from its cached time */
	uv_update_time(&l->uv);
	uv_timer_start(&l->timer, on_timer, due_us > now ? (due_us - now + 999) / 1000 : 0, 0);
}

bool loop_uv_here(struct loop *loop)
{
	struct loop_uv *l = impl(loop);

	return !l->started || pthread_equal(pthread_self(), l->self);
}

uv_loop_t *loop_uv(struct loop *loop)
{
	return &impl(loop)->uv;
}
