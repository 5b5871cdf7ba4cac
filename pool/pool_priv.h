/* Shared by the files of pool/. */
#pragma once

#include "db/channel.h"
#include "db/floor.h"
#include "db/view.h"
#include "model/args.h"
#include "model/calls.h"
#include "pool/pool.h"
#include "rpc/base/tls.h"
#include "rpc/wire/codec.h"

#define NULL_REF "OpaqueRef:NULL"
/* Users that are no users: origins of what the pool does by itself. */
#define POOL_COORDINATOR "coordinator"
#define POOL_HOST	 "host"
#define POOL_DEAD                                                                                  \
	"dead" /* incarnation of a host that was declared dead, until it announces itself */

enum {
	POOL_API_PORT = 443,	    /* where other members serve the API */
	POOL_RETRY_MS = 20000,	    /* a call whose version precondition fails is evaluated again */
	POOL_WAITING_MAX = 100,	    /* tasks waiting for a lock */
	POOL_WAIT_MIN = 120,	    /* for a lock */
	POOL_LOST_MS = 60000,	    /* without contact: the tasks of a host end */
	POOL_PLACED_LOST_MS = 2000, /* a placed task that nobody has started gets another host */
	POOL_SWEEP_MS = 1000,
	POOL_TASK_SYNC_S = 10,	      /* ended rows of plain calls */
	POOL_TASK_KEEP_MIN = 65,      /* of asynchronous ones */
	POOL_TASK_SEEN_S = 30,	      /* an end stays so long however many tasks there are */
	POOL_TASKS_MAX = 200,	      /* more of them: the oldest ended ones go */
	POOL_TASK_IDLE_S = 24 * 3600, /* one that a client has made and nobody has gone on with; and
					 one that a client has named, after its end */
	POOL_TASKS_NAMED_MAX = 1000,  /* of the latter */
	POOL_TASK_NAME_MAX = 100,     /* bytes of the name */
	POOL_TASK_IDLE_PARTS = 4,     /* looks at that in such a time */
	POOL_LOGIN_PENALTY_MS = 5000,
	POOL_EVENT_BATCH_MS = 50,
	POOL_DUMPS_MAX = 4,	   /* being fetched from this member */
	POOL_LONG_MAX = 16,	   /* calls of a loop that answer piece by piece */
	POOL_HOLD_MS = 5000,	   /* how long such a call waits for its client with a view */
	POOL_HOLD_ENTRIES = 4000,  /* and how far the view may be behind */
	POOL_STALL_MS = 30000,	   /* a client of a service takes nothing */
	POOL_VIF_DEVICE_MAX = 255, /* number of an interface of a VM */
	POOL_VIFS_SHOWN = 7,	   /* of these, how many VM.get_allowed_VIF_devices offers */
	POOL_VBDS_SHOWN = 256,	   /* the same of disks */
	POOL_CONSOLES_MAX = 64,	   /* that this member shows, or hands on */
	CLI_COMMANDS_MAX = 64,	   /* of `xe` at a time at this member */
	POOL_WITHIN_MS =
		24 * 3600 * 1000, /* a call of a job of ours: operations end by themselves */
	POOL_JOBS_RUNNING = 4,
	POOL_THREADS_MAX = 128,
	POOL_MOVES_MAX = 1024,	 /* VMs that one evacuation tries to move */
	POOL_MOVES_OF_ONE = 3,	 /* how often it moves one that comes back meanwhile */
	POOL_MOVES_RUNNING = 10, /* of these at once, unless the client says another number */
	POOL_ALSO_MAX = 16,	 /* SRs beside those of its disks that an operation needs */
	POOL_COMPOUNDS_MAX = 32, /* operations made of others, under way on this host */
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
	struct loop_call wake, stop; /* something was applied; this program ends */
	bool stopping;		     /* nobody is let in any more */
	struct loop_timer turn;
	_Atomic bool turned;	 /* one has ended since the last stop */
	struct loop_timer batch; /* event.from looks at most so often */
	struct call *task_waiters, *event_waiters;
	_Atomic unsigned n_task_waiters;
	_Atomic bool events_armed; /* a round has begun since the last wake: wake when something is
				      applied */
	struct call *long_ready, *long_waiters; /* records.c */
	struct loop_call long_turn;
	unsigned n_long;
	struct event_round *round; /* of looks at event_waiters */
	_Atomic unsigned n_calls;
};

/* Applied indexes, the last one at the end; an entry is at least so far from the next: task_age.c.
 */
struct marks {
	uint64_t seconds[POOL_TASK_SEEN_S], minutes[POOL_WAIT_MIN + 1];
	uint64_t idles[POOL_TASK_IDLE_PARTS + 1]; /* of POOL_TASK_IDLE_S */
	uint64_t second_ms, minute_ms, idle_ms;
};

struct pool {
	struct env *env;
	struct pool_config cfg;
	struct db *db;
	pthread_mutex_t members_mutex; /* cfg.members and its file */
	struct loop *raft_loop;
	struct pool_loop loops[POOL_LOOPS_MAX];
	unsigned n_loops;
	struct lane *api, *vms, *clis;
	struct lane *compounds; /* parts run on vms, where nobody may wait for them */
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
	struct marks marks;
	uint64_t large_seen, differ_seen; /* snapshots_large, hashes_differ when last looked at */
	struct db_proposal bootstrap_proposal;

	/* This host's (owner.c), admission loop only. */
	struct loop_call owner_call;
	struct owned *owned;
	uint64_t line_seen;    /* no task up to this index waits (line.c); admission loop */
	uint64_t owner_seen;   /* rows of tasks up to this index have been looked at */
	uint64_t dead_seen;    /* of the entry that said we were dead, the last we answered */
	char incarnation[128]; /* of the agent; "" until it has been reached; under
				  incarnation_mutex */
	pthread_mutex_t incarnation_mutex;
	struct agent_part *parts; /* of agent_job.c, under parts_mutex */
	pthread_mutex_t parts_mutex;

	bool witness;		       /* no host: no API, no agent, never the coordinator */
	_Atomic bool again;	       /* after the stop the program begins anew */
	_Atomic int joining;	       /* join.c */
	_Atomic bool resolving;	       /* join.c: a name is being looked up */
	struct activity *activity;     /* session_life.c */
	struct migrations *migrations; /* vm_migrate.c */
	struct login_failures *login_failures;
	struct local_sessions *locals;
	struct audit *audit;
	uint64_t revalidated_ms; /* admission loop: the last look */
	_Atomic bool revalidating;

	struct listener control;
	_Atomic unsigned n_dumps, n_clis;
	struct console *consoles; /* under consoles_mutex; console.c */
	pthread_mutex_t consoles_mutex;
};

/* Who calls. */
struct caller {
	const char *user, *session, *originator; /* session: NULL_REF when local */
	const char *local;			 /* the reference of a local session, else NULL */
	const char *sid;			 /* of a directory user, else "" */
	bool superuser;
	unsigned roles;		    /* bits of enum model_role */
	const struct val *subjects; /* they come from, where there is no session; else NULL */
};

/* A name and a password, and who that is (auth.c). In the call's arena. */
struct login {
	const char *user, *password;
	bool local_only; /* a directory is not asked */
	void (*done)(struct call *call);
	const char *name, *sid; /* as the directory writes it */
	bool superuser;
	unsigned roles;
	struct val subjects; /* the user himself first, if he is one; then groups */
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
	bool leaves;	  /* when it is over this program begins anew */
	bool task_due;	  /* runs at once and is told by a task that has ended (task_write_ended) */
	struct val *args; /* as many as params */
	struct val task_config; /* of its task, from headers: http:KEY; void: none */
	void *args_struct;
	struct caller caller;
	struct db_view view; /* pinned while the call runs on its loop */
	struct val result;
	struct buf text;	 /* what result points to when it is VAL_ENCODED */
	struct records *records; /* what is left of a long one (records.c) */
	bool place;		 /* one of POOL_LONG_MAX */
	struct err err;

	/* writes */
	struct db_proposal proposal;
	struct err on_failed[4]; /* what a failed precondition of that number means */
	void (*written)(struct call *call);
	uint64_t retry_until_ms; /* 0: nothing has failed yet */
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
	struct login login;
	const char *audit; /* arguments for its line; NULL: it has not come so far */
	bool worth_a_line;
	struct asked *asked; /* of the directory: directory.c */

	/* services (service.c) */
	const struct service *service; /* NULL: a call of the API */
	const char *session_ref;
	const char *since;     /* of an audit log */
	struct piece *piece;   /* on its way to the client */
	char *cli_text;	       /* cli.c: the arguments, one per line */
	struct cli_want *want; /* a command waits for bytes of its client */

	struct within *within; /* a call of a job of ours: within.c */
};

/* What a call function returns besides 0 and ERR_API: it will call call_finish() itself. */
enum { CALL_PENDING = 1 };

/* dispatch.c */
void pool_request(void *arg, struct rpc_request *request);
struct call *call_new(struct pool_loop *io, struct rpc_request *request);
/* Run it from its beginning, when what it must see is visible here; also again, after it has waited
 * for something outside of the database. */
void call_begin(struct call *call);
/* Run it against what is visible now, and again behind a barrier when that may be too old. */
void call_run(struct call *call);
/* The call is over: result or err is set. Frees it. On its loop. */
void call_finish(struct call *call);
/* Without an answer: there is nobody to get one, or it has been given. Frees it. */
void call_drop(struct call *call);
/* 0, or ERR_API: more than an entry of the log takes; its origin is set. */
int txn_fits(const struct db_txn *txn, struct err *err);
/* Propose and continue with written(call) when it is applied here (NULL: call_finish). Returns
 * CALL_PENDING, or ERR_API when the transaction is too large. The transaction is taken. */
int call_write(struct call *call, struct db_txn *txn, void (*written)(struct call *call));
/* A version precondition failed, so somebody else's change came first: evaluate again? Somebody
 * gets on each time, so it ends; a limit of time is there for the client. */
bool call_may_retry(struct call *call);
/* The error for a proposal without outcome: database promise P12. */
void call_undecided(struct call *call, uint64_t leader);
/* Decoded arguments into the struct of model/args.h. */
void *pool_args(struct arena *a, const struct model_message *m, const struct val *args);

/* access.c: the generated messages. */
int access_call(struct call *call, struct err *err);
/* The RW and StaticRO fields that the record gives, as many as the class has, void where it gives
 * none. FIELD_TYPE_ERROR: one is missing that has no default, or is of another type. */
int access_fields(struct arena *a, enum rpc_codec codec, int class_id, const struct val *given,
	struct val *fields, struct err *err);
/* The argument of a create that is an operation: checked, and only what will be read, so that it
 * can travel. */
int access_record(struct call *call, struct err *err);

/* Preconditions and operations that let no two transactions through that saw the same number: for
 * what must be unique in a class. The number, raised by the transaction; its row in _config. */
unsigned long raise_serial(
	const struct db_view *view, struct arena *a, struct db_txn *txn, const char *name);

/* record.c */
/* The record as text: a client may ask for all of them, so no values are built in between. */
void pool_record(const struct db_view *view, const struct db_row *row, enum rpc_codec codec,
	struct buf *out);
struct val pool_field(
	const struct db_view *view, const struct db_row *row, int field, struct arena *a);

/* records.c: the result of a call is records by reference: those of a cursor on the call's view
 * that the filter selects (NULL: all); or of a list in its arena, last first; or what put makes of
 * that view, some of it at each call, in call->text, where nothing else is (arg: in the call's
 * arena; false: that was all). 0, or CALL_PENDING. */
struct filter;
int records_answer(struct call *call, struct db_cursor rows, const struct filter *filter);
int records_answer_list(struct call *call, const struct db_row *const *rows, uint64_t n);
int records_answer_by(struct call *call, bool (*put)(struct call *call, void *arg), void *arg);
/* The answer has begun: send the rest, and drop the call. */
void records_send(struct call *call);
/* The client has gone: the call is dropped here, or by whoever goes on with it. */
void records_gone(struct call *call);
void records_place_free(struct call *call);

/* What a class adds to create and destroy (table in access.c): rules, values the pool chooses,
 * further operations and preconditions into txn. Errors as the API tells them; fields: of the
 * class, decoded, references checked.
 *
 * vm.c: what a new VM has, whatever the client passed back; its metrics object. */
int vm_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err);
int vm_destroying(struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err);
/* sr.c: the drivers that have no record yet. */
void sr_create_drivers(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a);
/* The record of an SR, its PBDs, disks and their drives; what is on the storage stays. */
void sr_delete_rows(struct db_txn *txn, const struct db_view *view, const char *sr);
/* The PBDs that a new host has of shared SRs. */
void sr_share(struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a,
	const char *host);
/* After each contact with the agent: what this host has attached, and what it should have; the
 * agent forgets what is of another pool. On a job's thread. */
void pbd_reconcile(struct job *job, struct pool *pool);
/* The coordinator: a driver that can do more than its record says, when all members run this
 * version; an SR whose virtual_allocation is no longer the sum; false: there is none. */
bool sr_sweep(const struct db_view *view, struct db_txn *txn);
/* One PBD for each host and SR, and none that is plugged goes. */
int pbd_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err);
int pbd_destroying(
	struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err);
/* network.c: network.md sections 1.1, 5. */
int network_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err);
int network_destroying(
	struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err);

/* subject.c: what the directory knows of it; no role; no two with one identifier. */
int subject_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err);

/* filter.c: the rows of a class that an expression selects. Errors INVALID_VALUE [expr, text]. */
int filter_parse(
	struct arena *a, int class_id, const char *expr, struct filter **out, struct err *err);
bool filter_matches(const struct filter *f, const struct db_view *view, const struct db_row *row);

/* service.c: what is HTTP and no call; false: nothing is at this path. */
bool pool_service(void *arg, struct rpc_request *request);
int service_execute(struct call *call, struct err *err);
void service_refuse(struct call *call);

/* Credentials of a service: checked (auth_check), then the call runs; else it is refused. false: at
 * once, the call's err says why. */
/* From the cookie, else from the query; NULL: it is not there. In the call's arena. */
const char *service_parameter(struct call *call, const char *name);
/* A service that was permitted is over: its task hears of it, then the call ends. */
void service_end(struct call *call);
bool service_login(struct call *call, const char *user, const char *password);
/* n bytes of an answer that has begun, in pieces, each when the one before has left. 0; ERR_CLOSED:
 * the client has gone; ERR_TIMEOUT: it takes nothing for so long; ERR_DEAD. Jobs only. */
void service_drained(struct rpc_request *request, void *arg); /* of such an answer */
int service_send(struct job *job, struct call *call, const void *p, size_t n, uint64_t stall_ms);

/* The end of a job that sends a file. */
void service_served(struct loop_call *posted);
/* console.c: the service. */
int console_begin(struct call *call, struct err *err);

/* audit.c */
void audit_init(struct pool *pool);
/* Before the roles of a call or service are looked at; a second time is nothing. */
void audit_begin(struct call *call);
/* It has ended: its line, if it is worth one. */
void audit_end(struct call *call);
/* The time of a line, as each begins: [20261129T08:17:19.000Z| */
void audit_put_time(struct buf *out, struct env *env);
/* For reading, the oldest first; -1: there is none. */
enum { AUDIT_FILES = 8 };
void audit_open_files(struct pool *pool, int fds[AUDIT_FILES]);

/* audit_fetch.c: the job of GET /audit_log; POST /audit_log, by which members ask each other. */
void audit_fetch(struct job *job, void *arg);
int audit_page_begin(struct call *call, struct err *err);

/* cli.c: the service of `xe`. */
void cli_authenticate(struct call *call);
int cli_begin(struct call *call, struct err *err);
void cli_refuse(struct call *call);
/* The client has gone. */
void cli_gone(struct call *call);

/* within.c */
/* Make a call for a caller that has been checked, roles excepted; args as many as the method has
 * parameters, of their types. 0: the result is in the job's arena; ERR_API; ERR_CANCELLED,
 * ERR_TIMEOUT, ERR_DEAD: it may still happen. */
int within_call(struct job *job, struct pool_loop *io, const struct caller *caller,
	const struct model_message *method, const struct val *args, bool async,
	struct val *result_out, struct err *err);
void within_answer(struct call *call);

/* role.c: who may. */
/* 0, or RBAC_PERMISSION_DENIED [permission, text]: the message with its arguments, by the roles of
 * the caller. */
int role_check(struct call *call, struct err *err);
/* The same for what is no message: a permission by name, in lower case. */
int role_need(const struct caller *caller, const char *permission, struct err *err);
/* Whether the task is the caller's own, or the caller may act on any; one that is not there is
 * nobody's. */
int role_task(struct call *call, const char *ref, struct err *err);
/* Has the task no end yet? NULL: there is none. record.c */
bool task_pending(const struct db_row *task);
/* What a task keeps of its caller; the session may end before it. */
struct val task_caller(struct arena *a, const char *user, const char *session,
	const char *originator, const char *sid);
/* The role that can be given by this reference; MODEL_ROLE_ROOT: none. */
enum model_role role_of_ref(const char *ref);
/* Sets of roles, as bits of enum model_role: what a row gives now. */
unsigned roles_of_subject(const struct db_row *subject, struct arena *a);
unsigned roles_of_session(
	const struct db_view *view, const struct db_row *session, struct arena *a);
/* The same for who has no session and stays for longer than a call: what his subjects give now. */
void roles_refresh(struct caller *caller, const struct db_view *view, struct arena *a);
bool roles_permit(unsigned roles, enum model_role needed, bool cert);
/* Names of all permissions; they are the model's. */
struct val roles_permissions(unsigned roles, struct arena *a);

/* auth.c */
#define AUTH_ROOT_PASSWORD "root_password" /* row of _config: the hash, once it was changed */
/* Find out who that is: CALL_PENDING, then done(call) on its loop with call->login filled; or the
 * call ends, POOL_LOGIN_PENALTY_MS late, with SESSION_AUTHENTICATION_FAILED,
 * SESSION_AUTHORIZATION_FAILED or RBAC_PERMISSION_DENIED. local_only: a directory is not asked. The
 * texts are the call's, until then. */
int auth_check(struct call *call, const char *user, const char *password, bool local_only,
	void (*done)(struct call *call), struct err *err);
/* The agent's name for host.external_auth_type; NULL: there is no such directory here. */
const char *auth_directory(const char *type);
/* The directory of this host; NULL: none. */
const char *auth_directory_of(struct pool *pool, const struct db_view *view);
/* An account of the directory, by "name" or "id": a map (member/agent.json, account) in the job's
 * arena. 0, or ERR_API with does_not_exist or auth_unavailable of the agent. Workers. */
int auth_find(struct job *job, struct pool *pool, const char *directory, const char *by,
	const char *what, struct val *account, struct err *err);
/* May the account not log in at present? Anything but the word false is yes. */
bool auth_suspended(const struct val *account, const char **why_out);
/* The subjects that let the account in, itself first, in the arena; their roles. */
unsigned auth_subjects(const struct db_view *view, const struct val *account, struct arena *a,
	struct val *subjects_out);

/* directory.c */
/* Ask the directory for an account, "name" or "id". CALL_PENDING: the call runs again when there is
 * an answer, and asks the same again: 0, the account is the call's; or ERR_API with
 * SUBJECT_CANNOT_BE_RESOLVED, AUTH_SERVICE_ERROR. */
int directory_ask(struct call *call, const char *directory, const char *by, const char *what,
	const struct val **account_out, struct err *err);

/* Did a directory let it in? */
bool session_is_external(const struct db_row *session);

/* alert.c: an alert into a transaction that has no preconditions on others of them. */
struct message {
	const char *name;
	int64_t priority;
	const char *cls, *obj_uuid, *body;
};
void message_put(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	const struct message *m, char ref[DB_REF_MAX + 1]);
/* Of the pool itself; false: there is none yet. */
bool message_again(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	const char *name, int priority, const char *body);
/* The same, unless there is one of that name: false. */
bool message_of_pool(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	const char *name, int priority, const char *body);

/* session.c */
int session_check(struct call *call, const char *ref, struct err *err);
/* A session for the client of a service that comes back over another connection, and its end: the
 * client's own where it came with one. 0, or why there is none. Jobs. */
int session_lend(struct job *job, struct call *call, char ref[DB_REF_MAX + 1], struct err *err);
void session_lent_end(struct job *job, struct call *call, const char *ref);
/* What a session is held by (db/floor.h). false: this can be none of ours. */
bool session_key(const struct db_view *view, const char *ref, uint8_t out[DB_KEY_LEN]);

/* A reference with the pool's checksum, which is of no session: who can make one is of this pool.
 * false: this member does not know the pool yet. */
bool session_proof(struct env *env, const struct db_view *view, char out[DB_REF_MAX + 1]);
bool session_proof_ok(const struct db_view *view, const char *proof);

/* Frames of the pool's own on the member channel; others are of a newer version. */
enum {
	POOL_FRAME_USED = CHANNEL_POOL_FIRST, /* sessions that were used, when: session_life.c */
	POOL_FRAME_AGES,		      /* and how long ago */
	POOL_FRAME_GUEST,		      /* vm_migrate.c */
	POOL_FRAME_GUEST_ANSWER,
	POOL_FRAME_GUEST_HERE, /* and its destination lives */
};

/* Is the session of this call still there? */
bool session_lives(struct call *call, const struct db_view *view);
/* What the client calls its session. */
const char *session_given(const struct call *call);

/* Where the client is, without its port; "" when it has gone. */
const char *client_address(struct call *call);

/* session_local.c */
void session_local_init(struct pool *pool);
/* Is that one of ours? Then the call's caller is set. */
bool session_local_check(struct call *call, const char *ref);
bool session_local_lives(struct pool *pool, const char *ref);
void session_local_end(struct pool *pool, const char *ref);

/* revalidate.c: ask the directory again about users whose time has come. Coordinator, admission
 * loop. */
void revalidate_look(struct pool *pool, const struct db_view *view, struct arena *a);

/* login_failures.c */
void login_failures_init(struct pool *pool);
void login_failures_start(struct pool *pool);
/* A login was refused; originator: "" when it named none. Any thread. */
void login_failed(struct pool *pool, const char *user, const char *originator, const char *address);

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

/* rules.c: pure. May the object begin the operation? 0, or ERR_API with the rule's error;
 * waits_for_out: the task whose lock is all that is in the way, else NULL. */
int rules_check(const struct db_view *view, const struct db_row *row, const char *op,
	struct arena *a, const char **waits_for_out, struct err *err);
/* The same for one that stands in a line: an operation of somebody ahead counts as if it were under
 * way. */
struct ahead {
	const struct db_row *row;
	const char *op, *task; /* wants op on row, and waits */
	const struct ahead *next;
};
int rules_check_behind(const struct db_view *view, const struct db_row *row, const char *op,
	const struct ahead *ahead, struct arena *a, const char **waits_for_out, struct err *err);
/* allowed_operations of the object. */
struct val rules_allowed(const struct db_view *view, const struct db_row *row, struct arena *a);

/* admit.c, sweep.c; the rest of them in operation_priv.h */
int operation_call(struct call *call, struct err *err);
void admit_request(void *arg, const struct db_proposal_id *id, const uint8_t *bytes, size_t n);
void admit_sweep_now(struct pool *pool);
void admit_start(struct pool *pool);

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
/* host.software_version: db_schema, what the pool runs, and db_schema_newest, what the host could.
 * The same. */
bool schema_publish(const struct db_view *view, struct db_txn *txn, struct arena *a);
void schema_put(struct pool *pool, struct buf *out);
void schema_put_raise(struct job *job, struct pool *pool, struct buf *out);

/* commit.c */
/* What a job wants to be so. build() puts operations and their preconditions together of a view;
 * none: it is so already, or not to be. It is asked again when that was not applied, or it is not
 * known whether. */
struct commit {
	enum db_reason reason;
	struct db_origin origin; /* build may name another */
	void (*build)(struct db_txn *txn, const struct db_view *view, void *arg);
	void *arg;
};
/* One attempt. 0: applied here, or nothing to do; ERR_TIMEOUT: something has changed, or nobody
 * decides; ERR_DEAD. */
int commit_once(struct job *job, struct pool *pool, const struct commit *c);
/* The same until it is 0 or ERR_DEAD. */
int commit_settled(struct job *job, struct pool *pool, const struct commit *c);

/* owner.c */
/* What this member sees may be old: it replays its log after a start. Nothing may be done on the
 * word of a row before everything that was committed by now has been applied here. */
int pool_catch_up(struct job *job, struct pool *pool);
void owner_start(struct pool *pool);
void owner_look(struct pool *pool);

/* event.c */
void events_init(struct pool *pool);
/* Something was applied. */
void events_wake(struct pool_loop *io);
void event_unpark(struct call *call);

/* vm_migrate.c */
void migrate_init(struct pool *pool);
int migrate_frame(struct pool *pool, uint8_t type, const uint8_t *payload, size_t n);

/* metrics.c */
void metrics_start(struct pool *pool);

/* Processors (cpu.c). */
/* host.cpu_info of the agent's map "cpu". */
struct val cpu_info(struct arena *a, const struct val *cpu);
/* Hexadecimal words; a shorter string is extended by zeros (pool.md 6.4). */
bool cpu_features_within(const char *have, const char *need);
/* true: pool.cpu_info is not the level of its hosts, and the transaction says so, with an alert
 * when that has other features than were known. */
bool cpu_level_decide(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a);
/* A VM that is started sees the level of the pool: kept in last_boot_CPU_flags. */
void cpu_seen(const struct db_view *view, struct db_txn *txn, struct arena *a, const char *vm);

/* bootstrap.c */
void bootstrap_look(struct pool *pool);
/* The rows of a host that is to join: not live yet; its reference (NULL_REF: a witness). */
void bootstrap_newcomer(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	struct arena *a, const struct db_member *m, char host[DB_REF_MAX + 1]);

/* newcomer.c: a host is let in by its entry of members.json; out: the file it needs, or why not. */
void newcomer_put(struct job *job, struct pool *pool, const char *text, struct buf *out);
/* members.json as this member has it; any thread. */
void pool_members(struct pool *pool, struct members *out);
/* members.json as it is now, of this pool; self: the raft id of whom it is for. */
void members_put_now(struct pool *pool, uint64_t self, struct buf *out);
/* xpoolctl witness remove: the member without a host leaves. */
void witness_put_removal(struct job *job, struct pool *pool, struct buf *out);
/* The service of a host that joins by itself. */
int newcomer_begin(struct call *call, struct err *err);
/* POST /pool/newcomer/check: nothing is changed; the answer is a JSON array of all that is in the
 * way. */
int newcomer_check_begin(struct call *call, struct err *err);

/* coordinator.c: CALL_PENDING; the call ends well when a majority answers, else with
 * HOST_IN_EMERGENCY_MODE. */
int call_ask_majority(struct call *call);
/* peer.c: the API of another member, and whose certificate it must have. false: that host has
 * none. */
struct peer {
	char address[80]; /* stream.h */
	char certificate[TLS_PRINT_TEXT];
};
bool peer_of(const struct db_view *view, const struct db_row *host, struct peer *out);

/* epoch.c: a service for other members, who prove by their body that they are of this pool. */
void proof_authenticate(struct call *call);
/* The service that tells a member of an older epoch who is in this one. */
int epoch_tell(struct call *call, struct err *err);
/* The service by which a member of a newer epoch says that there is one. */
int epoch_follow(struct call *call, struct err *err);

/* join.c: this host, a pool of its own, becomes a member of another. */
struct join_want {
	const char *address, *user, *password; /* of any member of the pool */
	bool force, dry;
};
/* 0: it is let in, and this program has to begin anew (join_leave); ERR_API; ERR_CANCELLED,
 * ERR_DEAD. dry: nothing is changed; 0 with all that is in the way, each a set of code and
 * parameters in the job's arena. Jobs. */
int join_run(struct job *job, struct pool *pool, const struct join_want *want,
	struct val *mismatches_out, struct err *err);
void join_leave(struct pool *pool);
/* Goes on with one that was under way when the program ended. */
void join_start(struct pool *pool);
/* 0, or ERR_API while this host is about to become another pool's: nothing is begun here. */
int join_admits(struct pool *pool, const struct db_view *view, struct err *err);

/* appliance.c */
int vm_appliance_destroying(
	struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err);
/* vbd.c */
int vbd_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err);
int vbd_destroying(
	struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err);
/* rules.c: is it a machine with full emulation? */
bool rule_hvm(const struct db_row *vm);
/* vif.c */
int vif_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err);
int vif_destroying(
	struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err);
/* Ethernet addresses as text: aa:bb:cc:dd:ee:ff. */
enum { MAC_BYTES = 6, MAC_LEN = 17 };
/* Six bytes, and no address of a group. */
bool mac_ok(const char *text);
/* Locally administered, of one interface, from these bytes. */
void mac_local(const uint8_t bytes[MAC_BYTES], char out[MAC_LEN + 1]);
/* What a VM with this mac_seed (other_config) has at this device, always the same. */
void mac_from_seed(const char *seed, int64_t device, char out[MAC_LEN + 1]);

/* network.c: the network that the management interfaces of all hosts are on, in a new pool, and the
 * interface of one host on it. address: of the member, IPv4 or IPv6. */
void network_create_management(struct pool *pool, struct db_txn *txn, char ref[DB_REF_MAX + 1]);
void network_create_management_pif(struct pool *pool, struct db_txn *txn, struct arena *a,
	const char *network, const char *host, const char *address);
/* The network of the management interfaces; of one host, or of any (NULL). NULL_REF: none. */
const char *network_management(const struct db_view *view, const char *host);
/* The network whose bridge has that name; NULL: none. */
const struct db_row *network_of_bridge(const struct db_view *view, const char *name);
/* In _config: how many networks were created here. It is raised by each creation under the
 * condition that it is still what was read, so two at once never choose one name. */
#define NETWORKS_CREATED "networks_created"
/* A VM of the host is on the network: the interface that connects them is up. */
void network_bring_up(
	struct db_txn *txn, const struct db_view *view, const char *network, const char *host);

/* small ones */
/* Every I/O loop looks at what waits. */
void pool_wake(struct pool *pool);
/* A number in pool.other_config; otherwise: when it is not there, or makes no sense. */
int64_t pool_number(const struct db_view *view, struct arena *a, const char *key, int64_t otherwise,
	int64_t max);
/* The host object of a member; NULL while the pool has no rows yet. */
const struct db_row *pool_host_of(const struct db_view *view, const char *host_uuid);
const struct db_row *pool_self(struct pool *pool, const struct db_view *view);
uint64_t pool_raft_id_of(const struct db_view *view, const char *host_ref);
void pool_ref(struct pool *pool, char uuid[UUID_LEN + 1], char ref[DB_REF_MAX + 1]);
