/* The product's world: real clocks, the kernel's randomness, POSIX threads. Loops and streams:
 * loop_uv.c, stream_uv.c. */
#include "rpc/base/env_uv_priv.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_FAIL_STOP = 3 };

struct thread {
	pthread_t id;
	void (*fn)(void *arg);
	void *arg;
};

struct parker {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool token;
};

static uint64_t real_now_us(struct env *env)
{
	struct timespec ts;

	(void)env;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static int64_t real_wall_s(struct env *env)
{
	(void)env;
	return (int64_t)time(NULL);
}

static void real_random(struct env *env, void *out, size_t n)
{
	(void)env;
	for (size_t got = 0; got < n;) {
		ssize_t r = getrandom((char *)out + got, n - got, 0);

		if (r < 0 && errno == EINTR)
			continue;
		CHECK(r > 0);
		got += (size_t)r;
	}
}

static void real_die(struct env *env)
{
	(void)env;
	_exit(EXIT_FAIL_STOP);
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;

	t->fn(t->arg);
	return NULL;
}

static struct thread *real_thread_start(
	struct env *env, const char *name, void (*fn)(void *arg), void *arg)
{
	struct thread *t = mem_new(sizeof *t);

	t->fn = fn;
	t->arg = arg;
	if (pthread_create(&t->id, NULL, thread_main, t) != 0)
		env_die(env, "a thread cannot be started");
	pthread_setname_np(t->id, name);
	return t;
}

static void real_thread_join(struct thread *t)
{
	pthread_join(t->id, NULL);
	free(t);
}

static struct parker *real_parker_new(struct env *env)
{
	struct parker *p = mem_new(sizeof *p);
	pthread_condattr_t attr;

	(void)env;
	pthread_mutex_init(&p->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->cond, &attr);
	pthread_condattr_destroy(&attr);
	return p;
}

static void real_parker_free(struct parker *p)
{
	pthread_cond_destroy(&p->cond);
	pthread_mutex_destroy(&p->mutex);
	free(p);
}

static int real_park(struct parker *p, uint64_t timeout_us)
{
	struct timespec ts;
	int r = 0;

	if (timeout_us != UINT64_MAX) {
		uint64_t due = real_now_us(NULL) + timeout_us;

		ts.tv_sec = (time_t)(due / 1000000);
		ts.tv_nsec = (long)(due % 1000000) * 1000;
	}
	pthread_mutex_lock(&p->mutex);
	while (!p->token && r == 0)
		r = timeout_us == UINT64_MAX ? pthread_cond_wait(&p->cond, &p->mutex)
					     : pthread_cond_timedwait(&p->cond, &p->mutex, &ts);
	r = p->token ? 0 : ERR_TIMEOUT;
	p->token = false;
	pthread_mutex_unlock(&p->mutex);
	return r;
}

static void real_unpark(struct parker *p)
{
	pthread_mutex_lock(&p->mutex);
	p->token = true;
	pthread_cond_signal(&p->cond);
	pthread_mutex_unlock(&p->mutex);
}

static const struct env_ops real_ops = {
	.now_us = real_now_us,
	.wall_s = real_wall_s,
	.random = real_random,
	.die = real_die,
	.thread_start = real_thread_start,
	.thread_join = real_thread_join,
	.parker_new = real_parker_new,
	.parker_free = real_parker_free,
	.park = real_park,
	.unpark = real_unpark,
	.loop_attach = loop_uv_attach,
	.loop_start = loop_uv_start,
	.loop_stop = loop_uv_stop,
	.loop_detach = loop_uv_detach,
	.loop_wake = loop_uv_wake,
	.loop_arm = loop_uv_arm,
	.loop_here = loop_uv_here,
	.listen = stream_uv_listen,
	.unlisten = stream_uv_unlisten,
	.connect = stream_uv_connect,
	.write = stream_uv_write,
	.untaken = stream_uv_untaken,
	.pause = stream_uv_pause,
	.close = stream_uv_close,
	.resolve = stream_uv_resolve,
};

void env_uv_init(struct env *env, const char *name)
{
	*env = (struct env){ .ops = &real_ops, .name = name, .log = { LOG_INFO } };
	/* libuv does not ignore it: a member whose peer died would be killed by the signal
	 * (notes/raft.md section 1) */
	signal(SIGPIPE, SIG_IGN);
	/* large blocks (answers, mostly) go back to the system when they are freed; left to itself
	 * the allocator keeps up to 32 MiB each after the first */
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	/* small ones do not: giving a page back and taking it again costs more than what it held */
	mallopt(M_TRIM_THRESHOLD, 1 << 20);
}

static void stop_signals(sigset_t *out)
{
	sigemptyset(out);
	sigaddset(out, SIGTERM);
	sigaddset(out, SIGINT);
}

void env_uv_signals_block(void)
{
	sigset_t set;

	stop_signals(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int env_uv_signals_wait(void)
{
	sigset_t set;
	int sig = 0;

	stop_signals(&set);
	sigwait(&set, &sig);
	return sig;
}

void env_uv_stop_self(void)
{
	kill(getpid(), SIGTERM);
}
