/* The agent's methods: records of VMs, tasks that run step tables, repair. See agent_priv.h. */
#include "member/agent_priv.h"
#include "rpc/wire/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char schema[] = "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INT);"
			     "CREATE TABLE IF NOT EXISTS vm (uuid TEXT PRIMARY KEY, metadata TEXT);"
			     "CREATE TABLE IF NOT EXISTS task (job TEXT PRIMARY KEY, method INT, "
			     "uuid TEXT, state TEXT, progress INT, error TEXT,"
			     " data TEXT);";

static const struct op *op_of(enum agent_method_id method)
{
	switch (method) {
	case AGENT_VM_start: return &vm_start_op;
	case AGENT_VM_shutdown: return &vm_shutdown_op;
	case AGENT_VM_reboot: return &vm_reboot_op;
	default: return NULL;
	}
}

/* Records. */

static bool record_metadata(struct agent *agent, struct arena *a, const char *uuid, struct val *out)
{
	char *text = arena_alloc(a, AGENT_LINE_MAX / 16);
	const char *why;
	bool found;

	pthread_mutex_lock(&agent->mutex);
	found = sql_text(agent->sql, text, AGENT_LINE_MAX / 16,
		"SELECT metadata FROM vm WHERE uuid = ?", "s", uuid);
	pthread_mutex_unlock(&agent->mutex);
	return found && rpc_json_parse(a, text, strlen(text), out, &why) == 0;
}

static struct agent_run *run_of(struct agent *agent, const char *uuid)
{
	for (struct agent_run *r = agent->runs; r != NULL; r = r->next)
		if (strcmp(r->uuid, uuid) == 0)
			return r;
	return NULL;
}

struct names {
	struct agent *agent;
	struct arena *a;
	struct val list;
};

static void on_name(void *arg, struct sql_row *row)
{
	struct names *n = arg;

	val_set_push(n->a, &n->list, val_string(arena_strdup(n->a, sql_string(row, 0))));
}

/* Forget the oldest record that is about no domain and no operation: metadata is pushed before each
 * start anyway. Under the mutex. */
static int make_room(struct agent *agent, struct arena *a)
{
	struct names n = { agent, a, val_set() };
	struct hv_domain d;

	sql_query(agent->sql, on_name, &n, "SELECT uuid FROM vm ORDER BY rowid", "");
	for (uint32_t i = 0; i < n.list.n; i++)
		if (run_of(agent, n.list.items[i].s) == NULL &&
			!hv_domain_find(agent->hv, n.list.items[i].s, &d))
			return sql_run(agent->sql, "DELETE FROM vm WHERE uuid = ?", "s",
				n.list.items[i].s);
	return ERR_FULL;
}

static int vm_add(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const struct val *metadata = val_get(params, "metadata");
	const char *uuid = val_get_s(metadata, "uuid");
	struct buf text = { 0 };
	int rc;

	if (uuid == NULL || !uuid_ok(uuid))
		return err_set(err, AGENT_ERR_bad_request, "metadata has no uuid", NULL);
	val_json(&text, metadata);
	if (text.len >= AGENT_LINE_MAX / 16) {
		buf_fini(&text);
		return err_set(err, AGENT_ERR_limit_reached, "metadata is too large", NULL);
	}
	pthread_mutex_lock(&agent->mutex);
	rc = sql_number(agent->sql, 0, "SELECT count(*) FROM vm WHERE uuid <> ?", "s", uuid) >=
			     AGENT_VMS_MAX
		     ? make_room(agent, &job->arena)
		     : 0;
	if (rc == 0)
		rc = sql_run(agent->sql, "INSERT OR REPLACE INTO vm VALUES (?, ?)", "ss", uuid,
			buf_text(&text));
	pthread_mutex_unlock(&agent->mutex);
	buf_fini(&text);
	*out = val_void();
	return rc == 0 ? 0
		       : err_set(err, AGENT_ERR_limit_reached, "the record cannot be kept", NULL);
}

static int vm_remove(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	const char *uuid = val_get_s(params, "uuid");
	struct hv_domain d;

	(void)job;
	if (hv_domain_find(agent->hv, uuid, &d))
		return err_set(err, AGENT_ERR_bad_power_state, d.paused ? "paused" : "running",
			"halted", NULL);
	pthread_mutex_lock(&agent->mutex);
	sql_run(agent->sql, "DELETE FROM vm WHERE uuid = ?", "s", uuid);
	pthread_mutex_unlock(&agent->mutex);
	*out = val_void();
	return 0;
}

/* During a reboot there is no domain for a moment; the VM is running all the same. */
static struct val stat_of(struct agent *agent, struct arena *a, const char *uuid)
{
	struct hv_domain d = { .domid = -1 };
	bool has = hv_domain_find(agent->hv, uuid, &d), rebooting;
	struct val v = val_map();
	struct agent_run *run;

	pthread_mutex_lock(&agent->mutex);
	run = run_of(agent, uuid);
	rebooting = run != NULL && run->method == AGENT_VM_reboot;
	pthread_mutex_unlock(&agent->mutex);
	val_map_push(a, &v, "uuid", val_string(arena_strdup(a, uuid)));
	val_map_push(a, &v, "power_state",
		val_string(rebooting	      ? "Running"
			   : !has || d.marked ? "Halted"
			   : d.paused	      ? "Paused"
					      : "Running"));
	val_map_push(a, &v, "domid", val_int(has && !d.marked ? d.domid : -1));
	val_map_push(a, &v, "busy", val_bool(run != NULL));
	val_map_push(a, &v, "memory_kib", val_int(has && !d.marked ? d.memory_kib : 0));
	return v;
}

static int vm_stat(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	(void)err;
	*out = stat_of(agent, &job->arena, val_get_s(params, "uuid"));
	return 0;
}

static int vm_list(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	struct names n = { agent, &job->arena, val_set() };

	(void)params;
	(void)err;
	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_name, &n, "SELECT uuid FROM vm ORDER BY uuid", "");
	pthread_mutex_unlock(&agent->mutex);
	*out = val_set();
	for (uint32_t i = 0; i < n.list.n; i++)
		val_set_push(&job->arena, out, stat_of(agent, &job->arena, n.list.items[i].s));
	return 0;
}

static int host_stat(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	int64_t total, spare;
	struct hv_domain *list = arena_alloc(&job->arena, HV_DOMAINS_MAX * sizeof *list);

	(void)params;
	(void)err;
	hv_memory(agent->hv, &total, &spare);
	*out = val_map();
	val_map_push(&job->arena, out, "version", val_int(AGENT_VERSION));
	val_map_push(&job->arena, out, "boot_id",
		val_string(arena_strdup(&job->arena, hv_boot_id(agent->hv))));
	val_map_push(&job->arena, out, "start_number", val_int(agent->start_number));
	val_map_push(&job->arena, out, "memory_kib", val_int(total));
	val_map_push(&job->arena, out, "memory_free_kib", val_int(spare));
	val_map_push(&job->arena, out, "domains",
		val_int(hv_domain_list(agent->hv, list, HV_DOMAINS_MAX)));
	return 0;
}

/* Tasks. */

/* The end of an operation: record and run go together, so that nobody sees one without the other.
 */
static void run_end(struct agent_run *run, const struct err *err)
{
	struct agent *agent = run->agent;
	struct agent_run **at = &agent->runs;
	struct val data = val_set();
	struct buf text = { 0 };
	struct arena a;

	arena_init(&a);
	for (unsigned i = 0; err != NULL && i < err->n; i++)
		val_set_push(&a, &data, val_string(err->params[i]));
	val_json(&text, &data);
	pthread_mutex_lock(&agent->mutex);
	if (err != NULL) /* NULL: this agent has died, and what is left is what a SIGKILL leaves */
		sql_run(agent->sql,
			"UPDATE task SET state = ?, progress = 1000, error = ?, data = ? WHERE job "
			"= ?",
			"ssss", err->code != NULL ? "failed" : "completed",
			err->code != NULL ? err->code->name : "", buf_text(&text), run->task);
	while (*at != run)
		at = &(*at)->next;
	*at = run->next;
	pthread_mutex_unlock(&agent->mutex);
	buf_fini(&text);
	arena_fini(&a);
	job_put(run->job);
	free(run);
}

static void on_progress(void *arg, unsigned permille)
{
	struct agent_run *run = arg;

	pthread_mutex_lock(&run->agent->mutex);
	sql_run(run->agent->sql, "UPDATE task SET progress = ? WHERE job = ?", "is",
		(int64_t)permille, run->task);
	pthread_mutex_unlock(&run->agent->mutex);
}

static int before_step(void *arg, const struct op *op, unsigned step, struct err *err)
{
	struct agent_run *run = arg;
	const struct op_watch *w = &run->agent->watch;

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

	if (!record_metadata(agent, &job->arena, run->uuid, &run->metadata))
		run->metadata = val_void();
	rc = op_run(job, op_of(run->method), run, &watch, &err);
	if (rc == ERR_DEAD) {
		err_fini(&err);
		run_end(run, NULL);
		return;
	}
	if (rc != 0 && rc != ERR_API)
		err_set(&err, AGENT_ERR_domain_failed, err_rc_name(rc), NULL);
	if (rc != 0)
		agent_check_state(agent, run->uuid);
	strcpy(uuid, run->uuid);
	strcpy(task, run->task);
	log_info(job->env, "event=op_ended op=%s vm=%s task=%s result=%s", op_of(run->method)->name,
		uuid, task, err.code != NULL ? err.code->name : "ok");
	run_end(run, &err);
	err_fini(&err);
	agent_changed(agent, "vm", uuid);
	agent_changed(agent, "task", task);
}

static int start_task(struct agent *agent, enum agent_method_id method, const struct val *params,
	struct val *out, struct err *err)
{
	const char *uuid = val_get_s(params, "uuid"), *task = val_get_s(params, "job");
	const struct val *paused = val_get(params, "start_paused"),
			 *timeout = val_get(params, "timeout_s");
	struct agent_run *run;
	bool known;

	if (!uuid_ok(uuid) || !uuid_ok(task))
		return err_set(err, AGENT_ERR_bad_request, "uuid or job is no uuid", NULL);
	*out = val_string(task);
	run = mem_new(sizeof *run);
	*run = (struct agent_run){ .agent = agent,
		.method = method,
		.start_paused = paused != NULL && paused->b,
		.clean = timeout != NULL,
		.timeout_s = timeout != NULL ? timeout->i : 0,
		.domid = -1 };
	strcpy(run->uuid, uuid);
	strcpy(run->task, task);
	pthread_mutex_lock(&agent->mutex);
	known = sql_number(agent->sql, 0, "SELECT count(*) FROM task WHERE job = ?", "s", task) > 0;
	if (!known && sql_number(agent->sql, 0, "SELECT count(*) FROM task", "") >= AGENT_TASKS_MAX)
		err_set(err, AGENT_ERR_limit_reached, "too many tasks", NULL);
	else if (!known &&
		 sql_run(agent->sql, "INSERT INTO task VALUES (?, ?, ?, 'pending', 0, '', '[]')",
			 "sis", task, (int64_t)method, uuid) != 0)
		err_set(err, AGENT_ERR_limit_reached, "the task cannot be recorded", NULL);
	if (!known && err->code == NULL) {
		if (lane_submit(agent->vms, uuid, run_main, run, &run->job) == 0) {
			/* the job cannot end, and so not free the run, before it has taken this
			 * mutex */
			run->next = agent->runs;
			agent->runs = run;
			pthread_mutex_unlock(&agent->mutex);
			return 0;
		}
		sql_run(agent->sql, "DELETE FROM task WHERE job = ?", "s", task);
		err_set(err, AGENT_ERR_limit_reached, "too many operations are waiting", NULL);
	}
	pthread_mutex_unlock(&agent->mutex);
	free(run);
	return err->code != NULL ? ERR_API : 0; /* the same job again is the same task */
}

static void on_task(void *arg, struct sql_row *row)
{
	struct names *n = arg;
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
	val_map_push(n->a, &v, "progress_permille", val_int(sql_int(row, 2)));
	val_map_push(n->a, &v, "error", val_string(arena_strdup(n->a, error)));
	val_map_push(n->a, &v, "data", data);
	val_map_push(n->a, &v, "uuid", val_string(arena_strdup(n->a, sql_string(row, 5))));
	val_set_push(n->a, &n->list, v);
}

#define TASK_COLUMNS "job, state, progress, error, data, uuid"

static int task_stat(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	const char *task = val_get_s(params, "job");
	struct names n = { agent, &job->arena, val_set() };

	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_task, &n, "SELECT " TASK_COLUMNS " FROM task WHERE job = ?", "s",
		task);
	pthread_mutex_unlock(&agent->mutex);
	if (n.list.n == 0)
		return err_set(err, AGENT_ERR_does_not_exist, "task", task, NULL);
	*out = n.list.items[0];
	return 0;
}

static int task_list(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	struct names n = { agent, &job->arena, val_set() };

	(void)params;
	(void)err;
	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_task, &n, "SELECT " TASK_COLUMNS " FROM task ORDER BY rowid", "");
	pthread_mutex_unlock(&agent->mutex);
	*out = n.list;
	return 0;
}

static int task_cancel(struct agent *agent, struct job *job, const struct val *params,
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

static int task_destroy(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	(void)job;
	(void)err;
	pthread_mutex_lock(&agent->mutex);
	sql_run(agent->sql, "DELETE FROM task WHERE job = ? AND state <> 'pending'", "s",
		val_get_s(params, "job"));
	pthread_mutex_unlock(&agent->mutex);
	*out = val_void();
	return 0;
}

/* Repair. */

void agent_check_state(struct agent *agent, const char *uuid)
{
	struct err ignored = { 0 };
	struct hv_domain d;

	if (!hv_domain_find(agent->hv, uuid, &d) || !(d.marked || d.shut_down))
		return;
	log_info(agent->env, "event=check_state vm=%s domid=%d why=%s", uuid, d.domid,
		d.marked ? "half_made" : "stopped");
	hv_domain_destroy(agent->hv, d.domid, &ignored);
	err_fini(&ignored);
	agent_changed(agent, "vm", uuid);
}

struct check {
	struct agent *agent;
	char uuid[UUID_LEN + 1];
};

static void check_main(struct job *job, void *arg)
{
	struct check *c = arg;

	(void)job;
	agent_check_state(c->agent, c->uuid);
	free(c);
}

static bool known_vm(struct agent *agent, const char *uuid, bool *busy_out)
{
	bool known;

	pthread_mutex_lock(&agent->mutex);
	known = sql_number(agent->sql, 0, "SELECT count(*) FROM vm WHERE uuid = ?", "s", uuid) > 0;
	*busy_out = run_of(agent, uuid) != NULL;
	pthread_mutex_unlock(&agent->mutex);
	return known;
}

/* Domains of ours that need attention; those of others are never touched. */
static void scan_main(struct job *job, void *arg)
{
	struct agent *agent = arg;
	struct hv_domain *list = arena_alloc(&job->arena, HV_DOMAINS_MAX * sizeof *list);
	unsigned n = hv_domain_list(agent->hv, list, HV_DOMAINS_MAX);
	bool busy;

	for (unsigned i = 0; i < n; i++) {
		struct check *c;

		if (!(list[i].marked || list[i].shut_down) ||
			!known_vm(agent, list[i].uuid, &busy) || busy)
			continue;
		c = mem_new(sizeof *c);
		c->agent = agent;
		strcpy(c->uuid, list[i].uuid);
		if (lane_submit(agent->vms, c->uuid, check_main, c, NULL) != 0)
			free(c);
	}
}

static void on_scan(struct loop_timer *t)
{
	struct agent *agent = container_of(t, struct agent, scan);

	lane_submit(agent->api, "scan", scan_main, agent, NULL);
	loop_timer_start(agent->loop, t, AGENT_SCAN_MS, on_scan);
}

int agent_dispatch(struct agent *agent, struct job *job, enum agent_method_id method,
	const struct val *params, struct val *result_out, struct err *err)
{
	switch (method) {
	case AGENT_HOST_stat: return host_stat(agent, job, params, result_out, err);
	case AGENT_VM_add: return vm_add(agent, job, params, result_out, err);
	case AGENT_VM_remove: return vm_remove(agent, job, params, result_out, err);
	case AGENT_VM_stat: return vm_stat(agent, job, params, result_out, err);
	case AGENT_VM_list: return vm_list(agent, job, params, result_out, err);
	case AGENT_VM_start:
	case AGENT_VM_shutdown:
	case AGENT_VM_reboot: return start_task(agent, method, params, result_out, err);
	case AGENT_TASK_stat: return task_stat(agent, job, params, result_out, err);
	case AGENT_TASK_list: return task_list(agent, job, params, result_out, err);
	case AGENT_TASK_cancel: return task_cancel(agent, job, params, result_out, err);
	case AGENT_TASK_destroy: return task_destroy(agent, job, params, result_out, err);
	case AGENT_UPDATES_get: /* parked by the server */
	case AGENT_METHOD_COUNT: break;
	}
	UNREACHABLE();
}

struct agent *agent_new(const struct agent_config *config)
{
	struct agent *agent = mem_new(sizeof *agent);
	char path[512];

	agent->env = config->env;
	if (config->watch != NULL)
		agent->watch = *config->watch;
	pthread_mutex_init(&agent->mutex, NULL);
	snprintf(path, sizeof path, "%s/agent.db", config->dir);
	agent->hv = hv_open(config->env, config->dir, config->memory_kib);
	agent->sql = agent->hv != NULL ? sql_open(config->env, path, SQL_DURABLE, schema) : NULL;
	if (agent->sql == NULL) {
		if (agent->hv != NULL)
			hv_close(agent->hv);
		free(agent);
		return NULL;
	}
	agent->start_number =
		sql_number(agent->sql, 0, "SELECT value FROM meta WHERE name = 'start'", "") + 1;
	sql_run(agent->sql, "INSERT OR REPLACE INTO meta VALUES ('start', ?)", "i",
		agent->start_number);
	/* nobody runs what was under way: say so; the scan makes the domains agree */
	sql_run(agent->sql,
		"UPDATE task SET state = 'failed', error = 'agent_restarted' WHERE state = "
		"'pending'",
		"");
	agent->loop = loop_new(config->env, "agent");
	agent->api = lane_new(config->env, "api", LANE_API, AGENT_RUNNING_MAX, AGENT_THREADS_MAX);
	agent->vms = lane_new(config->env, "vm", LANE_VM, AGENT_RUNNING_MAX, AGENT_THREADS_MAX);
	loop_timer_start(agent->loop, &agent->scan, 0, on_scan);
	return agent;
}

void agent_free(struct agent *agent)
{
	loop_stop(agent->loop);
	lane_free(agent->vms);
	lane_free(agent->api);
	loop_free(agent->loop);
	agent_updates_fini(agent);
	sql_close(agent->sql);
	hv_close(agent->hv);
	pthread_mutex_destroy(&agent->mutex);
	free(agent);
}
