/* Tasks: operations under way, and the results of those that have ended until they are taken over.
 *
 * What a power cut takes of them is missed by nobody: it takes the domains too, and a task that is
 * not known any more counts as lost with its host. Only an end on which copies depend has to be on
 * the disk before anybody hears of it: vdi_copy_repair removes those of a task that has none.
 */
#include "member/sr_priv.h"
#include "agent/methods.h"
#include "rpc/wire/codec.h"

#include <stdlib.h>
#include <string.h>

struct agent_run *agent_run_of(struct agent *agent, const char *uuid)
{
	for (struct agent_run *r = agent->runs; r != NULL; r = r->next)
		if (strcmp(r->uuid, uuid) == 0)
			return r;
	return NULL;
}

bool agent_run_flag(const struct agent_run *run, const char *param)
{
	const struct val *v = val_get(&run->params, param);

	return v != NULL && v->b;
}

static void run_free(struct agent_run *run)
{
	arena_fini(&run->arena);
	free(run);
}

static bool has_copies(const struct agent_run *run)
{
	return sql_number(run->agent->sql, 1, "SELECT count(*) FROM copying WHERE job = ?", "s",
		       run->task) > 0;
}

/* The end of an operation: record and run go together, so that nobody sees one without the other.
 */
static void run_end(struct agent_run *run, const struct err *err)
{
	struct agent *agent = run->agent;
	struct agent_run **at = &agent->runs;
	struct val data = val_set();
	struct buf text = { 0 };
	struct arena a;

	if (run->fini != NULL) /* before anybody hears of the end: it may hold locks */
		run->fini(run);
	arena_init(&a);
	for (unsigned i = 0; err != NULL && i < err->n; i++)
		val_set_push(&a, &data, val_string(err->params[i]));
	val_json(&text, &data);
	pthread_mutex_lock(&agent->mutex);
	if (err != NULL) /* NULL: this agent has died, and what is left is what a SIGKILL leaves */
		(has_copies(run) ? sql_run : sql_run_ordered)(agent->sql,
			"UPDATE task SET state = ?, progress = 1000, error = ?, data = ? WHERE job "
			"= ?",
			"ssss", err->code != NULL ? "failed" : "completed",
			err->code != NULL ? err->code->name : "", buf_text(&text), run->task);
	while (*at != run)
		at = &(*at)->next;
	*at = run->next;
	agent->runs_ended++;
	pthread_mutex_unlock(&agent->mutex);
	buf_fini(&text);
	arena_fini(&a);
	job_put(run->job);
	run_free(run);
}

void agent_task_progress(struct agent_run *run, unsigned permille)
{
	pthread_mutex_lock(&run->agent->mutex);
	run->permille = permille;
	pthread_mutex_unlock(&run->agent->mutex);
}

static void on_progress(void *arg, unsigned permille)
{
	agent_task_progress(arg, permille);
}

static int before_step(void *arg, const struct op *op, unsigned step, struct err *err)
{
	struct agent_run *run = arg;
	const struct op_watch *w = &run->agent->watch;

	run->step = step;
	run->no_way_back = run->no_way_back || (step > 0 && op->steps[step - 1].flags != 0);
	return w->before != NULL ? w->before(w->arg, op, step, err) : 0;
}

static void run_main(struct job *job, void *arg)
{
	struct agent_run *run = arg;
	struct agent *agent = run->agent;
	struct op_watch watch = { before_step, on_progress, run };
	struct err err = { 0 };
	char uuid[UUID_LEN + 1], task[UUID_LEN + 1];
	int rc;

	if (!agent_record_metadata(agent, &run->arena, run->uuid, &run->metadata))
		run->metadata = val_void();
	rc = op_run(job, run->op, run, &watch, &err);
	if (rc == ERR_DEAD) {
		err_fini(&err);
		run_end(run, NULL);
		return;
	}
	if (rc != 0 && rc != ERR_API && rc != OP_LEFT)
		err_set(&err, AGENT_ERR_domain_failed, err_rc_name(rc), NULL);
	if (rc != 0)
		agent_check_state(agent, run->uuid);
	strcpy(uuid, run->uuid);
	strcpy(task, run->task);
	log_info(job->env, "event=op_ended op=%s vm=%s task=%s result=%s", run->op->name, uuid,
		task, err.code != NULL ? err.code->name : "ok");
	run_end(run, &err);
	if (rc != 0 && *task != 0)
		agent_scan(
			agent); /* what it has left may have stopped; our own wait for the next */
	err_fini(&err);
	agent_changed(agent, "vm", uuid);
	if (*task != 0)
		agent_changed(agent, "task", task);
}

static struct agent_run *run_new(struct agent *agent, enum agent_method_id method,
	const struct op *op, const char *uuid, const struct val *params)
{
	struct agent_run *run = mem_new(sizeof *run);

	*run = (struct agent_run){ .agent = agent, .method = method, .op = op, .domid = -1 };
	arena_init(&run->arena);
	run->params = val_dup(&run->arena, params);
	strcpy(run->uuid, uuid);
	return run;
}

/* What moves the bytes of disks must not keep VMs waiting. */
static struct lane *lane_of(struct agent *agent, enum agent_method_id method)
{
	return strncmp(agent_methods[method].name, "VDI.", 4) == 0 ? agent->disks : agent->vms;
}

/* Under the mutex, which the job has to take before it can end, and so free the run. */
static bool run_submit(struct agent_run *run)
{
	struct agent *agent = run->agent;

	if (lane_submit(lane_of(agent, run->method), run->uuid, run_main, run, &run->job) != 0)
		return false;
	run->next = agent->runs;
	agent->runs = run;
	return true;
}

int agent_task_begin(struct agent *agent, enum agent_method_id method, const struct op *op,
	const struct val *params, struct val *out, struct err *err)
{
	const char *uuid = val_get_s(params, "uuid"), *task = val_get_s(params, "job");
	struct agent_run *run;
	bool known;

	if (!uuid_ok(uuid) || !uuid_ok(task))
		return err_set(err, AGENT_ERR_bad_request, "uuid or job is no uuid", NULL);
	*out = val_string(task);
	run = run_new(agent, method, op, uuid, params);
	strcpy(run->task, task);
	pthread_mutex_lock(&agent->mutex);
	known = sql_number(agent->sql, 0, "SELECT count(*) FROM task WHERE job = ?", "s", task) > 0;
	if (!known && sql_number(agent->sql, 0, "SELECT count(*) FROM task", "") >= AGENT_TASKS_MAX)
		err_set(err, AGENT_ERR_limit_reached, "too many tasks", NULL);
	else if (!known && sql_run_ordered(agent->sql,
				   "INSERT INTO task VALUES (?, ?, ?, 'pending', 0, '', '[]')",
				   "sis", task, (int64_t)method, uuid) != 0)
		err_set(err, AGENT_ERR_limit_reached, "the task cannot be recorded", NULL);
	if (!known && err->code == NULL) {
		if (run_submit(run)) {
			run = NULL;
		} else {
			sql_run(agent->sql, "DELETE FROM task WHERE job = ?", "s", task);
			err_set(err, AGENT_ERR_limit_reached, "too many operations are waiting",
				NULL);
		}
	}
	pthread_mutex_unlock(&agent->mutex);
	if (run != NULL)
		run_free(run); /* the same job again is the same task */
	return err->code != NULL ? ERR_API : 0;
}

void agent_task_own(
	struct agent *agent, enum agent_method_id method, const struct op *op, const char *uuid)
{
	struct val none = val_map();
	struct agent_run *run = run_new(agent, method, op, uuid, &none);
	bool ok;

	pthread_mutex_lock(&agent->mutex);
	ok = agent_run_of(agent, uuid) == NULL && run_submit(run);
	pthread_mutex_unlock(&agent->mutex);
	if (!ok)
		run_free(run);
}

struct listed {
	struct agent *agent;
	struct arena *a;
	struct val list;
};

static void on_task(void *arg, struct sql_row *row)
{
	struct listed *n = arg;
	struct val v = val_map(), data = val_set();
	const char *text = arena_strdup(n->a, sql_string(row, 4)), *why;

	const char *state = sql_string(row, 1), *error = sql_string(row, 3);
	struct agent_run *run = n->agent->runs;

	rpc_json_parse(n->a, text, strlen(text), &data, &why);
	/* a pending row that nobody runs: its end could not be recorded */
	while (run != NULL && strcmp(run->task, sql_string(row, 0)) != 0)
		run = run->next;
	if (strcmp(state, "pending") == 0 && run == NULL) {
		state = "failed";
		error = AGENT_ERR_agent_restarted->name;
	}
	val_map_push(n->a, &v, "job", val_string(arena_strdup(n->a, sql_string(row, 0))));
	val_map_push(n->a, &v, "state", val_string(arena_strdup(n->a, state)));
	val_map_push(n->a, &v, "progress_permille",
		val_int(run != NULL ? run->permille : sql_int(row, 2)));
	val_map_push(n->a, &v, "error", val_string(arena_strdup(n->a, error)));
	val_map_push(n->a, &v, "data", data);
	val_map_push(n->a, &v, "uuid", val_string(arena_strdup(n->a, sql_string(row, 5))));
	val_set_push(n->a, &n->list, v);
}

#define TASK_COLUMNS "job, state, progress, error, data, uuid"

int task_stat_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const char *task = val_get_s(params, "job");
	struct listed n = { agent, &job->arena, val_set() };

	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_task, &n, "SELECT " TASK_COLUMNS " FROM task WHERE job = ?", "s",
		task);
	pthread_mutex_unlock(&agent->mutex);
	if (n.list.n == 0)
		return err_set(err, AGENT_ERR_does_not_exist, "task", task, NULL);
	*out = n.list.items[0];
	return 0;
}

int task_list_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	struct listed n = { agent, &job->arena, val_set() };

	(void)params;
	(void)err;
	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_task, &n, "SELECT " TASK_COLUMNS " FROM task ORDER BY rowid", "");
	pthread_mutex_unlock(&agent->mutex);
	*out = n.list;
	return 0;
}

int task_cancel_call(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	const char *task = val_get_s(params, "job");

	(void)job;
	(void)err;
	pthread_mutex_lock(&agent->mutex);
	for (struct agent_run *r = agent->runs; r != NULL; r = r->next)
		if (strcmp(r->task, task) == 0)
			job_cancel(r->job);
	pthread_mutex_unlock(&agent->mutex);
	*out = val_void();
	return 0;
}

int task_destroy_call(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	const struct val *undo = val_get(params, "undo");

	(void)job;
	(void)err;
	if (undo != NULL && undo->b)
		vdi_copy_undo(agent, val_get_s(params, "job"));
	pthread_mutex_lock(&agent->mutex);
	sql_run_ordered(agent->sql, "DELETE FROM task WHERE job = ? AND state <> 'pending'", "s",
		val_get_s(params, "job"));
	sql_run(agent->sql, "DELETE FROM copying WHERE job NOT IN (SELECT job FROM task)", "");
	agent_gone(agent, "task", val_get_s(params, "job"));
	pthread_mutex_unlock(&agent->mutex);
	*out = val_void();
	return 0;
}
