/* How long rows of tasks stay: the ages of what is in the log, and which tasks the sweep removes
 * (sweep.c). tasks-events 1.3; docs/limits.md.
 *
 * A row that an operation still is about is none of these: pending with a method, holding locks, or
 * a part whose whole goes on.
 */
#include "pool/operation_priv.h"

#include <stdlib.h>
#include <string.h>

enum { REMOVED_MAX = 200 /* rows of tasks in one entry */ };

/* Ages, on every member: at which index we were so long ago, by our own clock. What that has was
 * applied before; other hosts' clocks prove nothing, and none that is stepped does. A member that
 * has just begun was nowhere. */

static void mark_now(uint64_t *marks, unsigned n, uint64_t index)
{
	memmove(marks, marks + 1, (n - 1) * sizeof *marks);
	marks[n - 1] = index;
}

void marks_set(struct pool *pool, const struct db_view *view, struct arena *a)
{
	struct marks *m = &pool->marks;
	uint64_t now = env_now_ms(pool->env);
	uint64_t idle_s = (uint64_t)pool_number(
		view, a, "xpool-task-timeout", POOL_TASK_IDLE_S, 365 * POOL_TASK_IDLE_S);

	if (now >= m->second_ms + 1000) {
		m->second_ms = now;
		mark_now(m->seconds, ARRAY_LEN(m->seconds), db_view_index(view));
	}
	if (now >= m->minute_ms + 60000) {
		m->minute_ms = now;
		mark_now(m->minutes, ARRAY_LEN(m->minutes), db_view_index(view));
	}
	if (now >= m->idle_ms + idle_s * 1000 / POOL_TASK_IDLE_PARTS) {
		m->idle_ms = now;
		mark_now(m->idles, ARRAY_LEN(m->idles), db_view_index(view));
	}
}

static uint64_t seconds_ago(const struct pool *pool, unsigned seconds)
{
	return pool->marks.seconds[ARRAY_LEN(pool->marks.seconds) - seconds];
}

uint64_t marks_minutes_ago(const struct pool *pool, unsigned minutes)
{
	return pool->marks.minutes[ARRAY_LEN(pool->marks.minutes) - 1 - minutes];
}

/* Has it ended, and does nobody rest on the row? What it was a part of may still ask how it ended.
 */
static bool is_over(const struct db_view *view, const struct db_row *task, struct arena *a)
{
	return !task_pending(task) && !locks_held(task, a) &&
	       !task_pending(db_view_get(view, MODEL_CLASS_task, db_row_s(task, TASK_subtask_of)));
}

/* May a client ask for it again, by the name it has given? */
static bool is_named(const struct db_row *task, struct arena *a)
{
	struct val other = db_row_field(task, TASK_other_config, a);

	return request_id(&other) != NULL;
}

/* A part is of interest as long as the whole, which tells of it. */
static bool is_kept(const struct db_view *view, const struct db_row *task)
{
	const char *whole = db_row_s(task, TASK_subtask_of);

	return db_row_b(task, TASK_keep) &&
	       (strcmp(whole, NULL_REF) == 0 || db_view_get(view, MODEL_CLASS_task, whole) != NULL);
}

/* Rows of plain calls go when everybody has had POOL_TASK_SYNC_S to see their end; what a client
 * has made and left alone is no work of ours. */
static bool is_old(
	struct pool *pool, const struct db_view *view, const struct db_row *task, struct arena *a)
{
	uint64_t at = db_row_modified(task);

	if (task_pending(task))
		return *db_row_s(task, TASK_method) == 0 && at <= pool->marks.idles[0];
	return at <= (is_kept(view, task) ? marks_minutes_ago(pool, POOL_TASK_KEEP_MIN)
					  : seconds_ago(pool, POOL_TASK_SYNC_S)) &&
	       (at <= pool->marks.idles[0] || !is_named(task, a)) && is_over(view, task, a);
}

static int by_age(const void *x, const void *y)
{
	uint64_t a = db_row_modified(*(const struct db_row *const *)x),
		 b = db_row_modified(*(const struct db_row *const *)y);

	return a < b ? -1 : a > b;
}

/* n too many, of those that clients have named or of the others: the oldest that are over and have
 * been so for POOL_TASK_SEEN_S. */
static unsigned remove_oldest(struct pool *pool, const struct db_view *view, uint64_t n, bool named,
	struct db_txn *txn, struct arena *a)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_task);
	const struct db_row *task, **over;
	unsigned n_over = 0, removed = 0;

	over = arena_alloc(a, db_view_count(view, MODEL_CLASS_task) * sizeof(struct db_row *));
	while ((task = db_next(&c)) != NULL)
		if (db_row_modified(task) <= seconds_ago(pool, POOL_TASK_SEEN_S) &&
			is_over(view, task, a) && is_named(task, a) == named)
			over[n_over++] = task;
	qsort(over, n_over, sizeof *over, by_age);
	for (; removed < n_over && removed < n && removed < REMOVED_MAX; removed++)
		db_txn_delete(txn, MODEL_CLASS_task, db_row_ref(over[removed]));
	return removed;
}

unsigned sweep_tasks(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_task);
	uint64_t max = (uint64_t)pool_number(
		view, a, "xpool-tasks-max", POOL_TASKS_MAX, 1000 * POOL_TASKS_MAX);
	uint64_t pending = 0, ended = 0, named = 0, keep;
	const struct db_row *task;
	unsigned removed = 0;

	while ((task = db_next(&c)) != NULL && removed < REMOVED_MAX) {
		*(task_pending(task) ? &pending : is_named(task, a) ? &named : &ended) += 1;
		if (!is_old(pool, view, task, a))
			continue;
		if (task_pending(task)) /* unless somebody goes on with it now */
			db_txn_need_version(
				txn, MODEL_CLASS_task, db_row_ref(task), db_row_modified(task));
		db_txn_delete(txn, MODEL_CLASS_task, db_row_ref(task));
		removed++;
	}
	keep = pending < max ? max - pending : 0;
	if (removed == 0 && named > POOL_TASKS_NAMED_MAX)
		removed = remove_oldest(pool, view, named - POOL_TASKS_NAMED_MAX, true, txn, a);
	if (removed == 0 && ended > keep)
		removed = remove_oldest(pool, view, ended - keep, false, txn, a);
	return removed;
}
