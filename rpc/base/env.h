/* The world one member lives in: clock, randomness, threads, loops, byte streams, death.
 *
 * Everything above reaches these only through this table, so a simulation can own them
 * (tests/sim/world.c); the product's table is in env_uv.c, loop_uv.c and stream_uv.c. No global
 * state: several members fit into one process. In a simulation threads run one at a time, handing a
 * baton on in park(); plain mutexes held only between two bridges are therefore allowed everywhere.
 */
#pragma once

#include "rpc/base/buf.h"
#include "rpc/base/check.h"
#include "rpc/base/counter.h"
#include "rpc/base/err.h"
#include "rpc/base/log.h"

struct env;
struct loop;
struct stream;
struct listener;
struct parker;
struct resolved;
struct thread;

struct env_ops {
	uint64_t (*now_us)(struct env *env); /* monotonic */
	int64_t (*wall_s)(struct env *env);  /* since 1970, UTC; only for what the API shows */
	void (*random)(struct env *env, void *out, size_t n);
	/* Fail-stop. The product exits with status 3; a simulation marks the member dead and
	 * returns. */
	void (*die)(struct env *env);

	struct thread *(*thread_start)(
		struct env *env, const char *name, void (*fn)(void *arg), void *arg);
	void (*thread_join)(struct thread *thread);

	/* One thread waits on a parker, any thread wakes it; a wake-up before the wait is kept (one
	 * of them). */
	struct parker *(*parker_new)(struct env *env);
	void (*parker_free)(struct parker *parker);
	int (*park)(struct parker *parker,
		uint64_t timeout_us); /* 0, ERR_TIMEOUT, ERR_DEAD; UINT64_MAX: for ever */
	void (*unpark)(struct parker *parker);

	/* Back end of a loop: see loop.h. */
	int (*loop_attach)(struct loop *loop);
	void (*loop_start)(struct loop *loop);
	void (*loop_stop)(struct loop *loop); /* ends and joins its thread */
	void (*loop_detach)(struct loop *loop);
	void (*loop_wake)(struct loop *loop); /* any thread: run a turn soon */
	void (*loop_arm)(struct loop *loop,
		uint64_t due_us); /* loop thread: run a turn at that time at the latest */
	bool (*loop_here)(struct loop *loop); /* is the caller the loop's thread? */

	/* Raw byte streams below TLS: see stream.h. */
	int (*listen)(struct listener *listener, const char *address);
	void (*unlisten)(struct listener *listener);
	int (*connect)(struct stream *stream, const char *address);
	void (*write)(struct stream *stream, struct buf *bytes); /* takes the content */
	/* of what it was given to write, what the peer has not got */
	size_t (*untaken)(const struct stream *stream);
	void (*pause)(struct stream *stream, bool paused);
	void (*close)(struct stream *stream);
	/* see stream.h; NULL: there are no names in this world */
	void (*resolve)(struct loop *loop, const char *name,
		void (*done)(void *arg, const struct resolved *r), void *arg);
};

struct env {
	const struct env_ops *ops;
	const char *name; /* of the member, for logs */
	struct log log;
	struct counters counters;
};

/* The product's world. Ignores SIGPIPE. */
void env_uv_init(struct env *env, const char *name);

/* For daemons: block SIGTERM and SIGINT, before any thread is started, and wait for one of them;
 * its number. */
void env_uv_signals_block(void);
int env_uv_signals_wait(void);
/* End this process as a stop signal from outside would. Any thread. */
void env_uv_stop_self(void);

uint64_t env_now_us(struct env *env);
uint64_t env_now_ms(struct env *env);
int64_t env_wall_s(struct env *env);
void env_random(struct env *env, void *out, size_t n);

/* Stop this member now, as a SIGKILL would, after one log line: for broken disks and broken
 * invariants. */
void env_die(struct env *env, const char *why);

/* A random (version 4) uuid as 36 characters and a NUL. */
enum { UUID_LEN = 36 };
void env_uuid(struct env *env, char out[UUID_LEN + 1]);
/* The uuid that follows from another one and a word of at most UUID_WORD_MAX bytes (version 8):
 * made again it is the same. */
enum { UUID_WORD_MAX = 128 };
void uuid_derive(const char *from, const char *word, char out[UUID_LEN + 1]);
bool uuid_ok(const char *s);
