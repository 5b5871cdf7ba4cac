/* Shared by the files of pool/. */
#pragma once

#include "db/floor.h"
#include "db/view.h"
#include "model/args.h"
#include "model/calls.h"
#include "pool/pool.h"
#include "rpc/wire/codec.h"

#define NULL_REF "OpaqueRef:NULL"
/* Users that are no users: origins of what the pool does by itself. */
#define POOL_COORDINATOR "coordinator"
#define POOL_HOST	 "host"

enum {
	POOL_RETRIES = 8,	    /* of a transaction whose version precondition failed */
	POOL_WAITING_MAX = 100,	    /* tasks waiting for a lock */
	POOL_WAIT_S = 7200,	    /* for a lock */
	POOL_LOST_MS = 60000,	    /* without contact: the tasks of a host end */
	POOL_PLACED_LOST_MS = 2000, /* a placed task that nobody has started gets another host */
	POOL_SWEEP_MS = 1000,
	POOL_TASK_SYNC_S = 10,	 /* ended rows of plain calls */
	POOL_TASK_KEEP_S = 3900, /* of asynchronous ones: 65 min */
	POOL_LOGIN_PENALTY_MS = 5000,
	POOL_EVENT_BATCH_MS = 50,
	POOL_DUMPS_MAX = 4,    /* being fetched from this member */
	POOL_STALL_MS = 30000, /* a client of a service takes nothing */
	POOL_JOBS_RUNNING = 4,
	POOL_THREADS_MAX = 128,
};

struct call;
struct owned;
struct event_round;
struct pool_events;

/* What belongs to one I/O loop. */
struct pool_loop {
	struct pool *pool;
	struct loop *loop;
	struct rpc_server *server;
	struct loop_call wake, stop; /* something was applied */
	struct loop_timer batch;     /* event.from looks at most so often */
	struct call *task_waiters, *event_waiters;
	struct event_round *round; /* of looks at event_waiters */
	_Atomic unsigned n_calls;
};

struct pool {
	struct env *env;
	struct pool_config cfg;
	struct db *db;
	struct loop *raft_loop;
	struct pool_loop loops[POOL_LOOPS_MAX];
	unsigned n_loops;
	struct lane *api, *vms;
	struct member *agent;
	struct pool_events *events;
	struct loop_timer metrics_timer; /* metrics.c, admission loop only */
	_Atomic bool metrics_reading;	 /* by a job, which owns the next */
	unsigned metrics_missed;	 /* times the agent was away, in a row */
	char host_uuid[UUID_LEN + 1];
	char password_file[256], agent_address[256];

	/* The coordinator's (admit.c, task.c), admission loop only. */
	struct loop_call role_call;
	struct loop_timer sweep;
	struct db_proposal sweep_proposal;
	bool sweeping, bootstrapping;
	uint64_t marks[POOL_TASK_SYNC_S], marked_ms; /* applied index, second by second */
	struct db_proposal bootstrap_proposal;

	/* This host's (owner.c), admission loop only. */
	struct loop_call owner_call;
	struct owned *owned;
	char incarnation[128]; /* of the agent; "" until it has been reached; under
				  incarnation_mutex */
	pthread_mutex_t incarnation_mutex;

	struct activity *activity; /* session_life.c */

	struct listener control;
	_Atomic unsigned n_dumps;
};

/* Who calls. */
struct caller {
	const char *user, *session, *originator;
	bool superuser;
};

/* One API call, on one I/O loop. */
struct call {
	struct pool *pool;
	struct pool_loop *io;
	struct arena arena;
	struct rpc_request *request; /* NULL: the client has gone */
	struct rpc_message message;
	const struct model_message *method;
	bool async, bare, barriered, finished;
	bool task_due;	  /* runs at once and is told by a task that has ended (task_write_ended) */
	struct val *args; /* as many as params */
	void *args_struct;
	struct caller caller;
	struct db_view view; /* pinned while the call runs on its loop */
	struct val result;
	struct buf text; /* what result points to when it is VAL_ENCODED */
	struct err err;

	/* writes */
	struct db_proposal proposal;
	struct err on_failed[4]; /* what a failed precondition of that number means */
	void (*written)(struct call *call);
	unsigned retries;
	struct db_barrier barrier;

	/* floors, see call_begin */
	struct db_use use;
	uint8_t key[DB_KEY_LEN];
	uint64_t need_index, shown_index;
	bool linearizable, has_key, inside, stale, finishing;
	struct buf body; /* the answer, kept while the session is taken once more */

	/* waiting */
	struct call *next_waiter;
	struct loop_timer timer;
	char task[DB_REF_MAX + 1];
	struct event_wait *event;
	struct job *job;
	struct loop_call posted;
	bool login_ok;

	/* services (service.c) */
	const struct service *service; /* NULL: a call of the API */
	const char *session_ref, *password;
	struct piece *piece; /* on its way to the client */
};

/* What a call function returns besides 0 and ERR_API: it will call call_finish() itself. */
enum { CALL_PENDING = 1 };

/* dispatch.c */
void pool_request(void *arg, struct rpc_request *request);
struct call *call_new(struct pool_loop *io, struct rpc_request *request);
/* Run it against what is visible now, and again behind a barrier when that may be too old. */
void call_run(struct call *call);
/* The call is over: result or err is set. Frees it. On its loop. */
void call_finish(struct call *call);
/* Propose and continue with written(call) when it is applied here (NULL: call_finish). Returns
 * CALL_PENDING, or ERR_API when the transaction is too large. The transaction is taken. */
int call_write(struct call *call, struct db_txn *txn, void (*written)(struct call *call));
/* The error for a proposal without outcome: database promise P12. */
void pool_unknown(struct pool *pool, uint64_t leader, struct err *err);
/* Decoded arguments into the struct of model/args.h. */
void *pool_args(struct arena *a, const struct model_message *m, const struct val *args);

/* access.c: the generated messages. */
int access_call(struct call *call, struct err *err);

/* record.c */
/* The record as text: a client may ask for all of them, so no values are built in between. */
void pool_record(const struct db_view *view, const struct db_row *row, enum rpc_codec codec,
	struct buf *out);
/* The result of a call: records by reference, as text. */
struct pool_records {
	struct call *call;
	struct rpc_map map;
};
void pool_records_open(struct pool_records *r, struct call *call);
void pool_records_add(struct pool_records *r, const struct db_row *row);
void pool_records_close(struct pool_records *r);
struct val pool_field(
	const struct db_view *view, const struct db_row *row, int field, struct arena *a);

/* vm.c: what a new VM has, whatever the client passed back; its metrics object into txn. */
void vm_create_fields(struct call *call, struct db_txn *txn, struct val *fields);

/* filter.c: the rows of a class that an expression selects. Errors INVALID_VALUE [expr, text]. */
struct filter;
int filter_parse(
	struct arena *a, int class_id, const char *expr, struct filter **out, struct err *err);
bool filter_matches(const struct filter *f, const struct db_view *view, const struct db_row *row);

/* service.c: what is HTTP and no call; false: nothing is at this path. */
bool pool_service(void *arg, struct rpc_request *request);
int service_execute(struct call *call, struct err *err);
void service_refuse(struct call *call);

/* session.c */
/* Blocks: crypt(3) takes its time. */
bool session_password_good(const char *path, const char *user, const char *password);
int session_check(struct call *call, const char *ref, struct err *err);
/* What a session is held by (db/floor.h). false: this can be none of ours. */
bool session_key(const struct db_view *view, const char *ref, uint8_t out[DB_KEY_LEN]);

/* session_life.c */
void session_life_init(struct pool *pool);
void session_life_start(struct pool *pool);
/* A call of it was served here, now. Any thread. */
void session_used(struct pool *pool, const uint8_t *key);
int64_t session_last_active(
	struct pool *pool, const struct db_view *view, const struct db_row *session);
int session_frame(struct pool *pool, uint8_t type, const uint8_t *payload, size_t n);
/* Deletions of those that have been idle or are too many; how many. */
unsigned sessions_sweep(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a);

/* rules.c: pure. 0, or ERR_API with the rule's error; waits_out: only a lock is in the way. */
int rules_vm(const struct db_view *view, const struct db_row *vm, const char *op, bool *waits_out,
	struct err *err);
struct val rules_allowed(const struct db_view *view, const struct db_row *row, struct arena *a);

/* admit.c */
struct admit {
	struct pool *pool;
	const struct db_view *view;
	struct arena *arena;
	const struct model_message *method;
	const struct val *args;
	const struct db_row *vm, *owner;
	struct db_txn *txn;
};
int operation_call(struct call *call, struct err *err);
void admit_request(void *arg, const struct db_proposal_id *id, const uint8_t *bytes, size_t n);
void admit_sweep_now(struct pool *pool);
void admit_start(struct pool *pool);
/* Operations of a transaction that give back what a task holds. */
void locks_release(struct db_txn *txn, struct arena *a, const struct db_row *task);

/* Wait on the call's loop until the task has ended, then finish the call by it. */
void call_await_task(struct call *call);
void tasks_look(struct pool_loop *io);
/* A call that has run where it arrived, asked for by Async.: write its task, ended, and finish with
 * the task's reference. */
void task_write_ended(struct call *call);
/* Of a transaction that serves the task: its caller and method. Lives as long as row and arena. */
struct db_origin task_origin(const struct db_row *task, struct arena *a);

/* schema.c */
void schema_start(struct pool *pool);
/* Raise the active schema, when it is time; false: nothing to do. */
bool schema_decide(const struct db_view *view, struct db_txn *txn);
void schema_put(struct pool *pool, struct buf *out);
void schema_put_raise(struct job *job, struct pool *pool, struct buf *out);

/* owner.c */
/* What this member sees may be old: it replays its log after a start. Nothing may be done on the
 * word of a row before everything that was committed by now has been applied here. */
int pool_catch_up(struct job *job, struct pool *pool);
void owner_start(struct pool *pool);
void owner_look(struct pool *pool);
/* Run an agent operation under the task's uuid and wait for its end. For the _run functions. */
/* One call, repeated while the agent is away; its errors as the API tells them. */
int owner_agent_ask(struct job *job, void *task, enum agent_method_id method,
	const struct val *params, struct err *err);
int owner_agent_op(struct job *job, void *task, enum agent_method_id method, struct val *params,
	struct err *err);
const char *owner_vm_uuid(void *task);
/* The record of the task's VM, to be unpinned by the caller. */
const struct db_row *owner_vm(void *task, struct db_view *view);

/* event.c */
void events_init(struct pool *pool);
/* Something was applied. */
void events_wake(struct pool_loop *io);
void event_unpark(struct call *call);

/* metrics.c */
void metrics_start(struct pool *pool);

/* bootstrap.c */
void bootstrap_look(struct pool *pool);

/* small ones */
/* The host object of a member; NULL while the pool has no rows yet. */
const struct db_row *pool_host_of(const struct db_view *view, const char *host_uuid);
const struct db_row *pool_self(struct pool *pool, const struct db_view *view);
uint64_t pool_raft_id_of(const struct db_view *view, const char *host_ref);
void pool_ref(struct pool *pool, char uuid[UUID_LEN + 1], char ref[DB_REF_MAX + 1]);
