/* The line: who waits for locks, first come, first served at each object (tasks-events.md 2.2).
 *
 * A task that waits is a row without owner; nobody keeps the line, it follows from the rows. Who
 * asks later finds an operation of one ahead as if it were under way, also when the lock has gone
 * and the sweep has not given it on yet. Waiting for one object, a task is in nobody's way at the
 * others: or a disk that is resized for an hour would close its SR as long to all who ask later
 * than one that waits for the disk. Who waits holds nothing, so standing in a line costs only time.
 */
#include "pool/operation_priv.h"

#include <string.h>

static bool waits(const struct db_row *task)
{
	return task_pending(task) && strcmp(db_row_s(task, TASK_owner), NULL_REF) == 0 &&
	       *db_row_s(task, TASK_method) != 0;
}

unsigned line_waiting(
	const struct db_view *view, uint64_t *seen, const struct db_row *out[POOL_WAITING_MAX])
{
	struct db_cursor c = db_rows_modified(view, MODEL_CLASS_task, *seen);
	const struct db_row *row;
	unsigned n = 0, k;

	*seen = db_view_index(view);
	while ((row = db_next(&c)) != NULL) {
		if (!waits(row))
			continue;
		if (db_row_modified(row) <= *seen)
			*seen = db_row_modified(row) - 1;
		if (n == POOL_WAITING_MAX) {
			if (db_row_created(out[n - 1]) < db_row_created(row))
				continue;
			n--;
		}
		for (k = n++; k > 0 && db_row_created(out[k - 1]) > db_row_created(row); k--)
			out[k] = out[k - 1];
		out[k] = row;
	}
	return n;
}

static void line_add(struct admit *ad, const struct target *t, const struct ahead **line)
{
	struct ahead *w = arena_alloc(ad->arena, sizeof *w);

	*w = (struct ahead){ t->row, t->op, ad->task, *line };
	*line = w;
}

void line_join(struct admit *ad, const struct ahead **line)
{
	struct err err = { 0 };
	const char *waits_for;
	unsigned blocked = 0;

	for (unsigned i = 0; i < ad->n_targets; i++) {
		const struct target *t = &ad->targets[i];

		if (rules_check_behind(
			    ad->view, t->row, t->op, ad->ahead, ad->arena, &waits_for, &err) == 0)
			continue;
		err_fini(&err);
		if (waits_for == NULL && blocked == 0)
			return;
		if (waits_for == NULL)
			break;
		line_add(ad, t, line);
		blocked++;
	}
	for (unsigned i = 0; i < ad->n_targets && blocked == 0; i++)
		line_add(ad, &ad->targets[i], line);
}

const struct ahead *line_before(const struct request *r, const struct ahead *line)
{
	return r->method->cancels[0] != NULL || strcmp(r->parent, NULL_REF) != 0 ? NULL : line;
}

unsigned line_all(struct pool *pool, const struct db_view *view, struct arena *a,
	const struct ahead **line_out)
{
	const struct db_row *waiting[POOL_WAITING_MAX];
	unsigned n = line_waiting(view, &pool->line_seen, waiting);
	struct err err = { 0 };
	struct request r;

	*line_out = NULL;
	for (unsigned i = 0; i < n; i++) {
		struct admit ad = {
			.pool = pool, .view = view, .arena = a, .task = db_row_ref(waiting[i])
		};

		if (task_cancel_asked(waiting[i], a) || !request_of_task(a, waiting[i], &r))
			continue;
		ad.method = r.method;
		ad.args = r.args;
		ad.ahead = line_before(&r, *line_out);
		if (locks_collect(&ad, &err) == 0)
			line_join(&ad, line_out);
		err_fini(&err);
	}
	return n;
}
