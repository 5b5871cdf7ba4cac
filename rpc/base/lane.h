/* Lanes of worker threads, and the jobs that run on them: ordinary blocking C.
 *
 * A lane has two limits: jobs running and threads. A job that waits in a bridge (wait_join,
 * job_sleep) gives its place back meanwhile, so that four guests that ignore a shutdown do not stop
 * a host. Jobs with an equal key (a VM's uuid) run one at a time, in order of submission. Lanes are
 * ranked: a job may submit and wait only upwards, so that no ring of waiting workers can form.
 */
#pragma once

#include "rpc/base/arena.h"
#include "rpc/base/loop.h"

enum lane_rank { LANE_API, LANE_VM, LANE_PARALLEL, LANE_RECEIVE };

enum { LANE_QUEUE_MAX = 4096, LANE_KEY_MAX = 64 };

struct lane;

struct job {
	struct env *env;
	struct lane *lane;
	struct arena arena; /* the job's; freed when it ends */
	struct parker *parker;
	_Atomic bool cancelled;
	_Atomic unsigned refs;
	char key[LANE_KEY_MAX];
	void (*fn)(struct job *job, void *arg);
	void *arg;
	struct job *next;
	bool busy; /* on a thread */
};

struct lane *lane_new(struct env *env, const char *name, enum lane_rank rank, unsigned running_max,
	unsigned threads_max);

/* Run out: no new jobs, running ones are cancelled and waited for, queued ones are dropped. */
void lane_free(struct lane *lane);

/* Queue fn; key may be "" (no serial order). Any thread. 0, or ERR_FULL: more than LANE_QUEUE_MAX
 * are queued, or the lane ends. out: NULL, or where a reference to the job goes (job_put): without
 * one the job may be gone before this call has returned. */
int lane_submit(struct lane *lane, const char *key, void (*fn)(struct job *job, void *arg),
	void *arg, struct job **out);

/* Set the flag and wake the job out of a wait it allows to be cancelled. Any thread that holds a
 * reference. */
void job_cancel(struct job *job);
void job_put(struct job *job);

/* 0, ERR_CANCELLED, ERR_DEAD. */
int job_sleep(struct job *job, uint64_t ms);

/* A completion shared by a job that waits and somebody who answers exactly once. Embed as the first
 * member of what the answer is written to; the last of the two to let go calls fini. */
struct wait {
	struct job *job;
	_Atomic unsigned refs;
	_Atomic bool done;
	void (*fini)(struct wait *wait);
};

void wait_init(struct wait *w, struct job *job, void (*fini)(struct wait *wait));

/* The answer is there: wakes the job and drops the answerer's reference. Any thread, once. */
void wait_done(struct wait *w);

/* Wait for it: 0; ERR_TIMEOUT; ERR_DEAD; ERR_CANCELLED only when cancellable. The job's reference
 * stays. */
int wait_join(struct wait *w, uint64_t timeout_ms, bool cancellable);

/* The job no longer looks at it. */
void wait_drop(struct wait *w);
