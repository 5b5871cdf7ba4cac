/* The agent of one host, shared by the files of this folder.
 *
 * Records (agent.db): VMs as they were pushed, tasks until the controller has taken their results.
 * What a VM is doing is never recorded: it is read off the hypervisor. Recovery after a crash is
 * check_state of every domain we own.
 */
#pragma once

#include "agent/agent.h"
#include "member/hv/hv.h"
#include "rpc/base/sql.h"
#include "rpc/base/op.h"

enum {
	AGENT_VMS_MAX = 1024,
	AGENT_TASKS_MAX = 4096,
	AGENT_LINE_MAX = 1 << 20,
	AGENT_CLIENTS_MAX = 16,
	AGENT_RUNNING_MAX = 4, /* operations running; those that wait for a guest do not count */
	AGENT_THREADS_MAX = 64,
	AGENT_SCAN_MS = 500, /* look for guests that have stopped by themselves */
};

struct agent_run; /* an operation under way */
struct update;
struct waiter;

struct agent {
	struct env *env;
	struct loop *loop;
	struct lane *api, *vms;
	struct hv *hv;
	pthread_mutex_t mutex; /* sql, runs, updates */
	struct sql *sql;
	struct agent_run *runs;
	int64_t start_number;
	struct update *updates;
	unsigned n_updates, cap_updates;
	uint64_t update_number;
	struct loop_call update_call;
	struct waiter *waiters; /* loop only */
	struct loop_timer scan;
	struct op_watch watch; /* for tests: told before each step */
};

struct agent_config {
	struct env *env;
	const char *dir; /* of agent.db and of the back end */
	int64_t memory_kib;
	const struct op_watch *watch; /* tests; NULL */
};

/* NULL after a log line. Takes up what an earlier run left. */
struct agent *agent_new(const struct agent_config *config);
void agent_free(struct agent *agent);

/* One request, on a worker thread. 0 with result, or ERR_API with an AGENT_ERR. */
int agent_dispatch(struct agent *agent, struct job *job, enum agent_method_id method,
	const struct val *params, struct val *result_out, struct err *err);

/* server.c */
struct agent_server;
int agent_server_open(struct agent_server **out, struct agent *agent, const char *path);

/* updates.c: a map from object ids to the number of their last change. "task JOB", "vm UUID". Any
 * thread. */
void agent_changed(struct agent *agent, const char *kind, const char *id);
/* Loop only: answer when something is newer than from, or after the time-out; exactly once. */
struct waiter {
	uint64_t from;
	struct loop_timer timer;
	void (*answer)(struct waiter *w, struct val result);
	struct waiter *next;
	struct arena arena; /* of the result; freed by the owner after answer */
	struct agent *agent;
};
void agent_wait_updates(struct agent *agent, struct waiter *w, uint64_t timeout_ms);
void agent_updates_fini(struct agent *agent);

/* One operation under way: the state of its step table. */
struct agent_run {
	struct agent *agent;
	struct agent_run *next;
	struct job *job;
	enum agent_method_id method;
	char uuid[UUID_LEN + 1], task[UUID_LEN + 1];
	struct val metadata; /* in the job's arena */
	bool start_paused, clean, skip, was_paused;
	int64_t timeout_s;
	int domid;
};

/* ops/: the tables. */
extern const struct op vm_start_op, vm_shutdown_op, vm_reboot_op;
/* Steps that several tables share; state is a struct agent_run. */
int vm_step_reserve(struct job *job, void *state, struct err *err);
int vm_step_create(struct job *job, void *state, struct err *err);
void vm_undo_create(struct job *job, void *state);
int vm_step_build(struct job *job, void *state, struct err *err);
int vm_step_keep(struct job *job, void *state, struct err *err);
int vm_step_unpause(struct job *job, void *state, struct err *err);
int vm_step_ask_guest(struct job *job, void *state, struct err *err);
void vm_undo_ask_guest(struct job *job, void *state);
int vm_step_wait_guest(struct job *job, void *state, struct err *err);
int vm_step_pause(struct job *job, void *state, struct err *err);
void vm_undo_pause(struct job *job, void *state);
int vm_step_destroy(struct job *job, void *state, struct err *err);

/* Make the record agree with the domain: destroy what is half made or has stopped. */
void agent_check_state(struct agent *agent, const char *uuid);
