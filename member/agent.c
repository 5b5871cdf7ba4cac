/* The agent: its state, its lanes, and the way of a request to what is behind its method. See
 * agent_priv.h. */
#include "member/sr_priv.h"
#include "agent/methods.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INT);"
	"CREATE TABLE IF NOT EXISTS vm (uuid TEXT PRIMARY KEY, metadata TEXT);"
	"CREATE TABLE IF NOT EXISTS task (job TEXT PRIMARY KEY, method INT, "
	"uuid TEXT, state TEXT, progress INT, error TEXT,"
	" data TEXT);"
	/* storage: sr_priv.h */
	"CREATE TABLE IF NOT EXISTS sr (uuid TEXT PRIMARY KEY, location TEXT, "
	"host TEXT, attached INT);"
	"CREATE TABLE IF NOT EXISTS dp (vm TEXT, id TEXT, sr TEXT, vdi TEXT, "
	"write INT, state INT, PRIMARY KEY (vm, id));"
	/* guests that were paused and run until their checkpoint has them: record.c */
	"CREATE TABLE IF NOT EXISTS hold (vm TEXT PRIMARY KEY, domid INT);"
	"CREATE TABLE IF NOT EXISTS copying (job TEXT PRIMARY KEY, disks TEXT);";

struct lane *agent_lane(struct agent *agent, enum agent_method_id method)
{
	bool auth = method == AGENT_AUTH_check || method == AGENT_AUTH_find;

	return auth ? agent->auths : agent->api;
}

int agent_dispatch(struct agent *agent, struct job *job, enum agent_method_id method,
	const struct val *params, struct val *result_out, struct err *err)
{
	CHECK(method != AGENT_UPDATES_get); /* parked by the server */
	if (agent_written[method].op != NULL)
		return agent_task_begin(
			agent, method, agent_written[method].op, params, result_out, err);
	if (agent_written[method].call == NULL)
		return err_set(err, AGENT_ERR_unimplemented, agent_methods[method].name, NULL);
	return agent_written[method].call(agent, job, params, result_out, err);
}

/* NULL after a log line. With damaged records nobody knows which tasks have been done here, nor
 * what to give back when a guest ends: it is not gone on with. */
static struct sql *records_open(struct env *env, const char *path)
{
	struct sql *sql = sql_open(env, path, SQL_DURABLE, schema);

	if (sql == NULL || sql_sound(sql))
		return sql;
	log_err(env,
		"event=records_damaged file=%s why=\"%s\" remedy=\"stop the guests of this host, "
		"move "
		"agent.db, agent.db-wal and agent.db-shm away, and restart the host\"",
		path, sql_why(sql));
	sql_close(sql);
	return NULL;
}

struct agent *agent_new(const struct agent_config *config)
{
	struct agent *agent = mem_new(sizeof *agent);
	char path[512];

	agent->env = config->env;
	agent->auth = config->auth;
	agent->sr_root = config->sr_root;
	agent->hooks = config->hooks;
	agent->hook_ms = config->hook_ms != 0 ? config->hook_ms : HOOK_MS;
	agent->end = config->end;
	if (config->watch != NULL)
		agent->watch = *config->watch;
	pthread_mutex_init(&agent->mutex, NULL);
	snprintf(path, sizeof path, "%s/agent.db", config->dir);
	agent->hv = hv_open(config->hv != NULL ? config->hv : &hv_sim, config->env, config->dir,
		&config->machine);
	agent->sql = agent->hv != NULL ? records_open(config->env, path) : NULL;
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
	sr_tidy_all(agent);
	vdi_copy_repair(agent);
	/* nobody runs what was under way: say so; the scan makes the domains agree */
	sql_run(agent->sql,
		"UPDATE task SET state = 'failed', error = 'agent_restarted' WHERE state = "
		"'pending'",
		"");
	agent->loop = loop_new(config->env, "agent");
	agent->api = lane_new(config->env, "api", LANE_API, AGENT_RUNNING_MAX, AGENT_THREADS_MAX);
	agent->vms = lane_new(config->env, "vm", LANE_VM, AGENT_RUNNING_MAX, AGENT_THREADS_MAX);
	agent->auths = lane_new(
		config->env, "auth", LANE_API, AGENT_AUTH_RUNNING_MAX, AGENT_AUTH_RUNNING_MAX);
	agent->disks =
		lane_new(config->env, "disks", LANE_PARALLEL, AGENT_RUNNING_MAX, AGENT_THREADS_MAX);
	agent_scan_start(agent);
	return agent;
}

void agent_free(struct agent *agent)
{
	loop_stop(agent->loop);
	lane_free(agent->api); /* its jobs submit to the other */
	lane_free(agent->disks);
	lane_free(agent->vms);
	lane_free(agent->auths);
	loop_free(agent->loop);
	agent_updates_fini(agent);
	sql_close(agent->sql);
	hv_close(agent->hv);
	pthread_mutex_destroy(&agent->mutex);
	free(agent);
}
