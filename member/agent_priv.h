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
	AGENT_CONSOLES_MAX = 64,	/* open */
	AGENT_CONSOLE_QUEUE = 64 << 10, /* bytes in a direction; then its sender is not read */
	AGENT_CONSOLE_STALL_MS = 60000, /* the guest takes none of what is typed */
	AGENT_RUNNING_MAX = 4, /* operations running; those that wait for a guest do not count */
	AGENT_THREADS_MAX = 64,
	AGENT_POWER_MS = 500, /* from HOST.reboot to its doing: who asked takes leave */
	AGENT_SCAN_MS = 500,  /* look for guests that have stopped by themselves */
	AGENT_AUTH_MS = 8000, /* a question about an account; the controller waits 10 s */
	AGENT_AUTH_RUNNING_MAX = 8,
	HOOK_MS = 60000,	/* one script of an administrator */
	HOOK_OUTPUT_MAX = 1024, /* what is taken of what it writes */
	HOOK_SCRIPTS_MAX = 64,	/* in one folder */
};

struct agent_run; /* an operation under way */
struct update;
struct waiter;

/* auth.c: what its child processes are told. */
struct agent_auth {
	const char *pam;       /* a PAM service, or the path of a file that is one */
	const char *directory; /* JSON file of the directory "file" */
};

struct agent {
	struct env *env;
	struct loop *loop;
	struct lane *api, *vms, *disks, *auths; /* auths: a hanging directory holds up no VM */
	struct agent_auth auth;
	const char *sr_root; /* below it SRs may lie; NULL: none */
	const char *hooks;   /* below it lie the folders of hooks; NULL: none */
	uint64_t hook_ms;
	struct hv *hv;
	pthread_mutex_t mutex; /* sql, runs, updates */
	struct sql *sql;
	struct agent_run *runs;
	uint64_t runs_ended; /* how many there were */
	int64_t start_number;
	struct update *updates;
	unsigned n_updates, cap_updates;
	uint64_t update_number;
	struct loop_call update_call;
	struct waiter *waiters; /* loop only */
	struct loop_timer scan;
	struct loop_call scan_call;
	struct op_watch watch; /* for tests: told before each step */
	/* power.c */
	void (*end)(void);	/* the process; NULL: it stays (tests) */
	_Atomic bool end_again; /* and begins anew */
	struct loop_call end_call;
	struct loop_timer end_timer;
};

struct agent_config {
	struct env *env;
	const char *dir;	      /* of agent.db and of the back end */
	const struct hv_ops *hv;      /* back end; NULL: simulated */
	struct hv_machine machine;    /* what a simulated one is like, and settings of a real one */
	struct agent_auth auth;	      /* borrowed for good */
	const char *sr_root;	      /* a folder; NULL: no SRs here */
	const char *hooks;	      /* a folder (ops/vm_hooks.c); NULL: no hooks */
	uint64_t hook_ms;	      /* 0: HOOK_MS */
	const struct op_watch *watch; /* tests; NULL */
	void (*end)(void);	      /* ends the process; NULL: the tests stay */
};

/* NULL after a log line. Takes up what an earlier run left. */
struct agent *agent_new(const struct agent_config *config);
void agent_free(struct agent *agent);

/* One request, on a worker thread. 0 with result, or ERR_API with an AGENT_ERR. */
int agent_dispatch(struct agent *agent, struct job *job, enum agent_method_id method,
	const struct val *params, struct val *result_out, struct err *err);

/* Where a request runs. */
struct lane *agent_lane(struct agent *agent, enum agent_method_id method);

/* shape.c: are the parameters what member/agent.json says, and nothing else? 0 or bad_request. */
int agent_check_params(const struct agent_method *method, const struct val *params, struct arena *a,
	struct err *err);

/* server.c */
struct agent_server;
int agent_server_open(struct agent_server **out, struct agent *agent, const char *path);

/* console.c */
/* STREAM.open, on a worker: 0 with a descriptor that is the caller's. */
int agent_stream_open(struct agent *agent, const struct val *params, int *fd_out, struct err *err);
/* Bytes between the stream and the descriptor, both taken, until one of them ends; first what is in
 * `before`. *count goes down by one then. Loop. */
void agent_console_start(struct loop *loop, struct stream *client, int fd, const struct buf *before,
	unsigned *count);

/* updates.c: a map from object ids to the number of their last change. "task JOB", "vm UUID". Any
 * thread. */
void agent_changed(struct agent *agent, const char *kind, const char *id);
/* Nobody needs to look at it any more. Under the mutex. */
void agent_gone(struct agent *agent, const char *kind, const char *id);
/* Loop only: answer when something is newer than from, or after the time-out; exactly once. */
struct waiter {
	const void *owner; /* the client that asked */
	uint64_t from;
	struct loop_timer timer;
	void (*answer)(struct waiter *w, struct val result);
	struct waiter *next;
	struct arena arena; /* of the result; freed by the owner after answer */
	struct agent *agent;
};
void agent_wait_updates(struct agent *agent, struct waiter *w, uint64_t timeout_ms);
/* Loop only: all waits of that client end now, since it is gone. */
void agent_end_waits(struct agent *agent, const void *owner);
void agent_updates_fini(struct agent *agent);

/* task.c: one operation under way: the state of its step table. One at a time for each VM. */
struct agent_run {
	struct agent *agent;
	struct agent_run *next;
	struct job *job;
	enum agent_method_id method;
	const struct op *op;
	char uuid[UUID_LEN + 1], task[UUID_LEN + 1];
	struct arena arena;  /* lives as long as the run */
	struct val params;   /* of the request, checked against member/agent.json */
	struct val metadata; /* of the VM, as it was when the run began; void: none */
	unsigned permille;   /* how far; under the agent's mutex, on no disk: what ends says so */
	bool skip;	     /* there is nothing to do for the steps of a domain */
	bool was_paused;
	bool quiet;	  /* no hook hears of it */
	unsigned step;	  /* of op, under way */
	bool no_way_back; /* a step before it was the point of no return */
	int domid;
	const char *image;	 /* of the guest, for a domain that is restored; NULL: none */
	struct disk *image_disk; /* where it is or goes, held; NULL: nowhere */
	int64_t memory_kib;	 /* that its domain needs; 0: as the metadata say */
	/* What the steps of an operation share; fini closes what must not outlive the run, also one
	 * that dies. NULL: nothing. */
	void *state;
	void (*fini)(struct agent_run *run);
};

/* Begin a task; the same job again is the same task. 0 with the job as result, or ERR_API. */
int agent_task_begin(struct agent *agent, enum agent_method_id method, const struct op *op,
	const struct val *params, struct val *out, struct err *err);
/* The same for what nobody asked for: a run without a task to be taken over. No room: the next scan
 * finds the reason again. */
void agent_task_own(
	struct agent *agent, enum agent_method_id method, const struct op *op, const char *uuid);
/* The operation of this VM under way or waiting; NULL: none. Under the mutex. */
struct agent_run *agent_run_of(struct agent *agent, const char *uuid);
/* From inside a step: how far the whole operation is. */
void agent_task_progress(struct agent_run *run, unsigned permille);
/* Is a parameter there and true? */
bool agent_run_flag(const struct agent_run *run, const char *param);

/* record.c */
/* This domain was paused, and is to be so again. 0, or ERR_API: the record cannot be kept. */
int agent_hold(struct agent *agent, const char *uuid, int domid, struct err *err);
bool agent_held(struct agent *agent, const char *uuid, int domid);
void agent_unhold(struct agent *agent, const char *uuid);
/* Uuids of VMs, in the arena. */
struct val agent_holds(struct agent *agent, struct arena *a);
/* What was pushed for the VM, into the arena; false: nothing. Takes the mutex. */
bool agent_record_metadata(struct agent *agent, struct arena *a, const char *uuid, struct val *out);
/* Uuids of all VMs that were added, oldest first. Under the mutex. */
struct val agent_record_uuids(struct agent *agent, struct arena *a);

/* The next start, also by the agent itself, has this drive (NULL: not any more). */
void agent_record_drive(
	struct agent *agent, const char *uuid, const char *id, const struct val *vbd);
/* Likewise what the machine itself has: keys of `vm`. */
void agent_record_machine(struct agent *agent, const char *uuid, const struct val *keys);
/* Likewise of an interface. */
void agent_record_interface(
	struct agent *agent, const char *uuid, int64_t device, const struct val *vif);

/* ops/vm_image.c: the guest goes on. */
extern const struct op vm_wake_op;

/* repair.c: destroy the domain that is half made, release disks without a domain. */
void agent_check_state(struct agent *agent, const char *uuid);
/* Look for those and for guests that have stopped by themselves, now and every AGENT_SCAN_MS. */
void agent_scan_start(struct agent *agent);
/* Once, now. Any thread. */
void agent_scan(struct agent *agent);
