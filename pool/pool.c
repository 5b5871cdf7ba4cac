/* Putting the parts of one member together: loops, lanes, database, API, agent. */
#include "pool/members.h"
#include "pool/pool_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Something was applied: on every I/O loop look at what waits. */

static void on_wake(struct loop_call *call)
{
	struct pool_loop *io = container_of(call, struct pool_loop, wake);

	tasks_look(io);
	events_wake(io);
}

/* The loops where somebody waits; a loop that looks at events soon anyway is left alone. Whoever
 * begins to wait says so before looking. */
void pool_wake(struct pool *pool)
{
	for (unsigned i = 0; i < pool->n_loops; i++) {
		struct pool_loop *io = &pool->loops[i];

		if ((io->events_armed && atomic_exchange(&io->events_armed, false)) ||
			io->n_task_waiters > 0)
			loop_post(io->loop, &io->wake, on_wake);
	}
}

/* Raft loop. */
static void on_applied(void *arg, const struct db_applied *what)
{
	struct pool *pool = arg;
	bool tasks = what->n == 0;

	if (pool->witness)
		return;
	pool_wake(pool);
	for (unsigned i = 0; i < what->n && !tasks; i++)
		tasks = what->class_id(what, i) == MODEL_CLASS_task;
	if (tasks) {
		owner_look(pool);
		loop_post(pool->loops[0].loop, &pool->role_call, pool->role_call.fn);
	}
}

/* Numbers have changed, which are not in the log. */
static void on_plane_changed(void *arg)
{
	pool_wake(arg);
}

/* Admission loop: the role may have changed, or a task. */
static void on_role_call(struct loop_call *call)
{
	struct pool *pool = container_of(call, struct pool, role_call);

	bootstrap_look(pool);
	admit_sweep_now(pool);
}

static void on_role(void *arg, enum consensus_role role, uint64_t term, uint64_t leader)
{
	struct pool *pool = arg;

	(void)role;
	(void)term;
	(void)leader;
	if (!pool->witness)
		loop_post(pool->loops[0].loop, &pool->role_call, on_role_call);
}

/* members.json follows the members: what a start knows before the others are met. */

static int keep_members(struct pool *pool, bool left)
{
	struct members *m = pool->cfg.members;
	char path[512];
	int rc;

	pthread_mutex_lock(&pool->members_mutex); /* the last word is that it has left */
	m->n = db_members(pool->db, m->m, &m->index);
	m->left = m->left || left;
	snprintf(path, sizeof path, "%s/members.json", pool->cfg.db.dir);
	rc = members_write(path, m);
	pthread_mutex_unlock(&pool->members_mutex);
	if (rc == 0)
		return 0;
	log_err(pool->env, "event=members_not_kept file=%s why=\"%s\"", path, strerror(errno));
	return ERR_IO;
}

void pool_members(struct pool *pool, struct members *out)
{
	pthread_mutex_lock(&pool->members_mutex);
	*out = *pool->cfg.members;
	pthread_mutex_unlock(&pool->members_mutex);
}

static void keep_main(struct job *job, void *arg)
{
	(void)job;
	keep_members(arg, false); /* one at a time, by its key */
}

static void on_members_changed(void *arg)
{
	struct pool *pool = arg;

	if (pool->db != NULL && pool->cfg.members != NULL &&
		lane_submit(pool->api, "members", keep_main, pool, NULL) != 0)
		log_warn(pool->env, "event=members_not_kept why=\"too much to do\"");
}

/* A pool of its own from its next start on, which is now. */
static bool go_alone(struct pool *pool)
{
	int rc;

	pthread_mutex_lock(&pool->members_mutex);
	rc = members_alone(pool->env, pool->cfg.db.dir, pool->cfg.members);
	pthread_mutex_unlock(&pool->members_mutex);
	if (rc != 0)
		return false;
	log_info(pool->env, "event=ejected pool=%s", pool->cfg.members->pool_uuid);
	pool->again = true;
	env_uv_stop_self();
	return true;
}

/* On the Raft loop: nothing else happens here any more. The machine of one that was taken for lost
 * may still have what others have begun anew: it stays out. */
static void on_removed(void *arg, bool alive)
{
	struct pool *pool = arg;

	if (pool->cfg.members != NULL) {
		if (alive && !pool->witness && go_alone(pool))
			return;
		keep_members(pool, true);
	}
	env_die(pool->env, "this member has left the pool: its directory can be set aside");
}

static int on_frame(void *arg, uint8_t type, const uint8_t *payload, size_t n)
{
	return type <= POOL_FRAME_AGES ? session_frame(arg, type, payload, n)
				       : migrate_frame(arg, type, payload, n);
}

int pool_new(struct pool **out, const struct pool_config *config)
{
	struct pool *pool = mem_new(sizeof *pool);
	char name[16];

	pool->env = config->env;
	pool->cfg = *config;
	pool->cfg.db.arg = pool;
	pool->cfg.db.applied = on_applied;
	pool->cfg.db.request = admit_request;
	pool->cfg.db.role = on_role;
	pool->cfg.db.frame = on_frame;
	pool->cfg.db.members_changed = on_members_changed;
	pool->cfg.db.removed = on_removed;
	session_life_init(pool);
	migrate_init(pool);
	login_failures_init(pool);
	session_local_init(pool);
	audit_init(pool);
	pool->role_call.fn = on_role_call;
	pthread_mutex_init(&pool->incarnation_mutex, NULL);
	pthread_mutex_init(&pool->consoles_mutex, NULL);
	pthread_mutex_init(&pool->parts_mutex, NULL);
	pthread_mutex_init(&pool->members_mutex, NULL);
	snprintf(pool->password_file, sizeof pool->password_file, "%s", config->password_file);
	snprintf(pool->agent_address, sizeof pool->agent_address, "%s", config->agent);
	for (unsigned i = 0; i < config->db.n_members; i++)
		if (config->db.members[i].raft_id == config->db.raft_id) {
			strcpy(pool->host_uuid, config->db.members[i].host_uuid);
			pool->witness = config->db.members[i].witness;
		}
	CHECK(config->loops >= 1 && config->loops <= POOL_LOOPS_MAX);
	pool->n_loops = config->loops;
	for (unsigned i = 0; i < pool->n_loops; i++) {
		snprintf(name, sizeof name, "io%u", i);
		pool->loops[i].pool = pool;
		pool->loops[i].loop = loop_new(pool->env, strdup(name));
	}
	events_init(pool);
	pool->api = lane_new(pool->env, "api", LANE_API, POOL_JOBS_RUNNING, POOL_THREADS_MAX);
	/* of their own: a command may wait for days, a password must not wait for it */
	pool->clis = lane_new(pool->env, "cli", LANE_API, POOL_JOBS_RUNNING, CLI_COMMANDS_MAX);
	pool->compounds =
		lane_new(pool->env, "compound", LANE_API, POOL_JOBS_RUNNING, POOL_COMPOUNDS_MAX);
	pool->vms = lane_new(pool->env, "vm", LANE_VM, POOL_JOBS_RUNNING, POOL_THREADS_MAX);
	pool->raft_loop = loop_new(pool->env, "raft");
	pool->cfg.db.loop = pool->raft_loop;
	pool->cfg.db.plane_loop = pool->loops[0].loop;
	pool->cfg.db.plane_changed = on_plane_changed;
	if (db_open(&pool->db, &pool->cfg.db) != 0)
		return ERR_IO;
	*out = pool;
	return 0;
}

/* API connections must never take the descriptors that the log and the member channel need. */
static unsigned connections_max(const struct pool *pool)
{
	enum { RESERVED = 128 };
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < 2 * RESERVED)
		return RESERVED / 2;
	if (limit.rlim_cur / pool->n_loops > 2 * RPC_CONNECTIONS_MAX)
		return RPC_CONNECTIONS_MAX;
	return ((unsigned)limit.rlim_cur - RESERVED) / pool->n_loops;
}

int pool_listen(struct pool *pool, int fd, struct tls *tls)
{
	unsigned most = connections_max(pool);
	char address[16];

	for (unsigned i = 0; i < pool->n_loops; i++) {
		struct rpc_handler handler = { pool_request, pool_service, &pool->loops[i] };
		int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

		if (own < 0)
			return ERR_IO;
		snprintf(address, sizeof address, "fd:%d", own);
		if (rpc_server_open(&pool->loops[i].server, pool->loops[i].loop, address, tls,
			    &handler, most) != 0)
			return ERR_IO;
	}
	return 0;
}

void pool_start(struct pool *pool)
{
	schema_start(pool);
	if (!pool->witness) {
		admit_start(pool);
		owner_start(pool);
		session_life_start(pool);
		login_failures_start(pool);
		metrics_start(pool);
		join_start(pool);
	}
	for (unsigned i = 0; i < pool->n_loops; i++)
		loop_start(pool->loops[i].loop);
	loop_start(pool->raft_loop);
}

static void on_turn(struct loop_timer *timer)
{
	container_of(timer, struct pool_loop, turn)->turned = true;
}

static void on_stop(struct loop_call *call)
{
	struct pool_loop *io = container_of(call, struct pool_loop, stop);

	if (io->server != NULL && !io->stopping)
		rpc_server_close(io->server);
	io->stopping = true;
	loop_timer_start(io->loop, &io->turn, 1, on_turn); /* not in this turn */
}

/* Wait while it holds, at most until then. */
static void wait_while(struct pool *pool, bool (*holds)(struct pool *pool), uint64_t due_ms)
{
	struct parker *parker = pool->env->ops->parker_new(pool->env);

	while (holds(pool) && env_now_ms(pool->env) < due_ms)
		pool->env->ops->park(parker, 5000);
	pool->env->ops->parker_free(parker);
}

static bool calls_run(struct pool *pool)
{
	unsigned n = 0;

	for (unsigned i = 0; i < pool->n_loops; i++)
		n += pool->loops[i].n_calls;
	return n > 0;
}

static bool loops_turn(struct pool *pool)
{
	unsigned n = 0;

	for (unsigned i = 0; i < pool->n_loops; i++)
		n += pool->loops[i].turned;
	return n < pool->n_loops;
}

/* All of them have ended the turn that they were in: what was answered in it has left. */
static void wait_turn(struct pool *pool, uint64_t due_ms)
{
	for (unsigned i = 0; i < pool->n_loops; i++) {
		pool->loops[i].turned = false;
		loop_post(pool->loops[i].loop, &pool->loops[i].stop, on_stop);
	}
	wait_while(pool, loops_turn, due_ms);
}

static bool leads(struct pool *pool)
{
	struct db_stat s;

	db_stat(pool->db, &s);
	return s.role >= CONSENSUS_LEADER;
}

void pool_stop(struct pool *pool, unsigned grace_ms)
{
	enum { TRANSFER_MS = 600, TRANSFERS = 2 };
	uint64_t due = env_now_ms(pool->env) + grace_ms;

	wait_turn(pool, due);
	wait_while(pool, calls_run, due);
	if (!loops_turn(pool))
		wait_turn(pool, due);
	for (unsigned k = 0; k < TRANSFERS && leads(pool); k++) {
		db_step_down(pool->db);
		wait_while(pool, leads, env_now_ms(pool->env) + TRANSFER_MS);
	}
}

bool pool_again(const struct pool *pool)
{
	return pool->again;
}
