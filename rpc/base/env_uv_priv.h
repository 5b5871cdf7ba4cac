/* Shared by the product's back ends: env_uv.c, loop_uv.c, stream_uv.c. */
#pragma once

#include "rpc/base/loop.h"

#include <uv.h>

enum { READ_CHUNK = 65536 };

struct loop_uv {
	struct loop *loop;
	uv_loop_t uv;
	uv_async_t wake;
	uv_timer_t timer;
	uv_prepare_t prepare;
	pthread_t thread;
	_Atomic pthread_t self;
	bool started;
	_Atomic bool stopping;
	uint64_t prepared_us,
		idle_us;	   /* end of the last prepare; the poll's waiting time by then */
	char read_buf[READ_CHUNK]; /* of all streams: what is read is consumed before the next read
				    */
};

int loop_uv_attach(struct loop *loop);
void loop_uv_start(struct loop *loop);
void loop_uv_stop(struct loop *loop);
void loop_uv_detach(struct loop *loop);
void loop_uv_wake(struct loop *loop);
void loop_uv_arm(struct loop *loop, uint64_t due_us);
bool loop_uv_here(struct loop *loop);

int stream_uv_listen(struct listener *listener, const char *address);
void stream_uv_unlisten(struct listener *listener);
int stream_uv_connect(struct stream *stream, const char *address);
void stream_uv_write(struct stream *stream, struct buf *bytes);
size_t stream_uv_untaken(const struct stream *stream);
void stream_uv_pause(struct stream *stream, bool paused);
void stream_uv_close(struct stream *stream);
void stream_uv_resolve(struct loop *loop, const char *name,
	void (*done)(void *arg, const struct resolved *r), void *arg);
