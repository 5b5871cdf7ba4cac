/* See lane.h. One mutex per lane; what blocks is always a parker, so that a simulation can own it.
 */
#include "rpc/base/lane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct worker {
	struct lane *lane;
	struct parker *parker;
	struct thread *thread;
	struct worker *next_idle, *next;
};

struct lane {
	struct env *env;
	const char *name;
	enum lane_rank rank;
	unsigned running_max, threads_max;

	pthread_mutex_t mutex; /* all below */
	unsigned running, threads, queued;
	bool stopping;
	struct job *head, **tail; /* waiting for a thread */
	struct job *busy;	  /* on a thread */
	struct worker *idle, *workers;
};

struct lane *lane_new(struct env *env, const char *name, enum lane_rank rank, unsigned running_max,
	unsigned threads_max)
{
	struct lane *lane = mem_new(sizeof *lane);

	CHECK(running_max > 0 && threads_max >= running_max);
	lane->env = env;
	lane->name = name;
	lane->rank = rank;
	lane->running_max = running_max;
	lane->threads_max = threads_max;
	lane->tail = &lane->head;
	pthread_mutex_init(&lane->mutex, NULL);
	return lane;
}

static struct job *job_get(struct job *job)
{
	job->refs++;
	return job;
}

void job_put(struct job *job)
{
	if (--job->refs > 0)
		return;
	arena_fini(&job->arena);
	job->env->ops->parker_free(job->parker);
	free(job);
}

static bool key_busy(const struct lane *lane, const char *key)
{
	for (const struct job *j = lane->busy; *key && j != NULL; j = j->next)
		if (strcmp(j->key, key) == 0)
			return true;
	return false;
}

/* The first queued job whose key is free, taken out of the queue; NULL when there is none. */
static struct job *pick(struct lane *lane)
{
	for (struct job **at = &lane->head; *at != NULL; at = &(*at)->next) {
		struct job *j = *at;

		if (key_busy(lane, j->key))
			continue;
		*at = j->next;
		if (lane->tail == &j->next)
			lane->tail = at;
		lane->queued--;
		j->next = lane->busy;
		lane->busy = j;
		j->busy = true;
		return j;
	}
	return NULL;
}

static void unlink_busy(struct lane *lane, struct job *job)
{
	struct job **at = &lane->busy;

	while (*at != job)
		at = &(*at)->next;
	*at = job->next;
	job->busy = false;
}

static void worker_main(void *arg);

/* Somebody has to look at the queue: an idle worker, or a new one. Under the mutex. */
static void rouse(struct lane *lane)
{
	struct worker *w = lane->idle;

	if (lane->head == NULL || lane->running >= lane->running_max)
		return;
	if (w != NULL) {
		lane->idle = w->next_idle;
		lane->env->ops->unpark(w->parker);
	} else if (lane->threads < lane->threads_max) {
		w = mem_new(sizeof *w);
		w->lane = lane;
		w->parker = lane->env->ops->parker_new(lane->env);
		w->next = lane->workers;
		lane->workers = w;
		lane->threads++;
		w->thread = lane->env->ops->thread_start(lane->env, lane->name, worker_main, w);
	}
}

static void run_job(struct lane *lane, struct job *job)
{
	lane->running++;
	pthread_mutex_unlock(&lane->mutex);
	job->fn(job, job->arg);
	pthread_mutex_lock(&lane->mutex);
	lane->running--;
	unlink_busy(lane, job);
	pthread_mutex_unlock(&lane->mutex);
	job_put(job);
	pthread_mutex_lock(&lane->mutex);
	rouse(lane);
}

static void worker_main(void *arg)
{
	struct worker *w = arg;
	struct lane *lane = w->lane;
	struct job *job;
	int rc = 0;

	pthread_mutex_lock(&lane->mutex);
	while (!lane->stopping && rc != ERR_DEAD) {
		job = lane->running < lane->running_max ? pick(lane) : NULL;
		if (job != NULL) {
			rouse(lane);
			run_job(lane, job);
			continue;
		}
		w->next_idle = lane->idle;
		lane->idle = w;
		pthread_mutex_unlock(&lane->mutex);
		rc = lane->env->ops->park(w->parker, UINT64_MAX);
		pthread_mutex_lock(&lane->mutex);
		for (struct worker **at = &lane->idle; *at != NULL; at = &(*at)->next_idle)
			if (*at == w) {
				*at = w->next_idle;
				break;
			}
	}
	pthread_mutex_unlock(&lane->mutex);
}

int lane_submit(struct lane *lane, const char *key, void (*fn)(struct job *job, void *arg),
	void *arg, struct job **out)
{
	struct job *job;
	int rc = ERR_FULL;

	pthread_mutex_lock(&lane->mutex);
	if (lane->queued < LANE_QUEUE_MAX && !lane->stopping) {
		job = mem_new(sizeof *job);
		job->env = lane->env;
		job->lane = lane;
		job->refs = out != NULL ? 2 : 1;
		job->fn = fn;
		job->arg = arg;
		job->parker = lane->env->ops->parker_new(lane->env);
		snprintf(job->key, sizeof job->key, "%s", key);
		if (out != NULL)
			*out = job;
		*lane->tail = job;
		lane->tail = &job->next;
		counter_max(&lane->env->counters, COUNTER_lane_queue_max, ++lane->queued);
		rouse(lane);
		rc = 0;
	}
	pthread_mutex_unlock(&lane->mutex);
	return rc;
}

void lane_free(struct lane *lane)
{
	pthread_mutex_lock(&lane->mutex);
	lane->stopping = true;
	while (lane->head != NULL) {
		struct job *j = lane->head;

		lane->head = j->next;
		job_put(j);
	}
	for (struct job *j = lane->busy; j != NULL; j = j->next)
		job_cancel(j);
	for (struct worker *w = lane->workers; w != NULL; w = w->next)
		lane->env->ops->unpark(w->parker);
	pthread_mutex_unlock(&lane->mutex);
	while (lane->workers != NULL) {
		struct worker *w = lane->workers;

		lane->workers = w->next;
		lane->env->ops->thread_join(w->thread);
		lane->env->ops->parker_free(w->parker);
		free(w);
	}
	pthread_mutex_destroy(&lane->mutex);
	free(lane);
}

void job_cancel(struct job *job)
{
	job->cancelled = true;
	job->env->ops->unpark(job->parker);
}

/* A job in a bridge does not count as running. */

static void place_give(struct lane *lane)
{
	pthread_mutex_lock(&lane->mutex);
	lane->running--;
	rouse(lane);
	pthread_mutex_unlock(&lane->mutex);
}

static int place_take(struct job *job)
{
	struct lane *lane = job->lane;
	int rc = 0;

	pthread_mutex_lock(&lane->mutex);
	while (lane->running >= lane->running_max && rc != ERR_DEAD && !lane->stopping) {
		/* look again in a millisecond: places come back often, and a second queue would be
		 * one too many */
		pthread_mutex_unlock(&lane->mutex);
		rc = job->env->ops->park(job->parker, 1000);
		pthread_mutex_lock(&lane->mutex);
	}
	lane->running++;
	pthread_mutex_unlock(&lane->mutex);
	return rc == ERR_DEAD ? rc : 0;
}

/* Park until the answer is there, the job may no longer wait, or the time is over. */
static int parked(struct job *job, const struct wait *w, uint64_t timeout_ms, bool cancellable)
{
	struct env *env = job->env;
	uint64_t due = timeout_ms == UINT64_MAX ? UINT64_MAX : env_now_us(env) + timeout_ms * 1000;
	int rc = 0, back;

	if (w != NULL && w->done)
		return 0;
	place_give(job->lane);
	for (;;) {
		uint64_t now = env_now_us(env);

		if (w != NULL && w->done)
			rc = 0;
		else if (cancellable && job->cancelled)
			rc = ERR_CANCELLED;
		else if (now >= due)
			rc = ERR_TIMEOUT;
		else if ((rc = env->ops->park(job->parker, due == UINT64_MAX ? due : due - now)) !=
			 ERR_DEAD)
			continue;
		break;
	}
	back = place_take(job);
	return rc == ERR_DEAD || back == ERR_DEAD ? ERR_DEAD : rc;
}

int job_sleep(struct job *job, uint64_t ms)
{
	int rc = parked(job, NULL, ms, true);

	return rc == ERR_TIMEOUT ? 0 : rc;
}

void wait_init(struct wait *w, struct job *job, void (*fini)(struct wait *wait))
{
	w->job = job_get(job);
	w->refs = 2;
	w->done = false;
	w->fini = fini;
}

void wait_drop(struct wait *w)
{
	struct job *job = w->job;

	if (--w->refs > 0)
		return;
	w->fini(w);
	job_put(job);
}

void wait_done(struct wait *w)
{
	w->done = true;
	w->job->env->ops->unpark(w->job->parker);
	wait_drop(w);
}

int wait_join(struct wait *w, uint64_t timeout_ms, bool cancellable)
{
	return parked(w->job, w, timeout_ms, cancellable);
}
