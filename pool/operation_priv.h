/* Operations, from admission to their end: what admit.c, place.c, locks.c, sweep.c on the
 * coordinator, and owner.c, agent_job.c, facts.c, reconcile.c on the owner share with the files of
 * classes.
 *
 *   coordinator: request -> objects of its locks -> rules -> owner -> X_admit -> one transaction
 *   owner:       row of ours -> started -> X_run -> one transaction: status, facts, locks
 *
 * Everything is decided by tables of the model: route (who runs it), locks (on which objects, by
 * paths of references), operations and checks (when). A class adds two functions:
 *   X_admit  optional; pure, on the coordinator: what tables cannot say.
 *   X_run    a job of the owner, which calls the agent. What it returns ends the task. It may be
 * run again from its beginning (xpoold was restarted): the agent's job bears the task's name, so
 * twice is once.
 */
#pragma once

#include "pool/request_priv.h"

enum {
	POOL_TARGETS_MAX = 512, /* objects one operation locks */
};

/* An object that is locked. */
struct target {
	const struct db_row *row;
	const char *op;
};

struct admit {
	struct pool *pool;
	const struct db_view *view;
	struct arena *arena;
	const struct model_message *method;
	const struct val *args;
	const char *task;	 /* its reference */
	const struct db_row *vm; /* whose domain it is about; NULL: none */
	const struct db_row *owner;
	const struct db_row *also[POOL_ALSO_MAX]; /* SRs that the owner sees, too */
	unsigned n_also;
	struct target *targets;
	unsigned n_targets;
	const struct ahead *ahead; /* who waits for locks since before */
	struct db_txn *txn;	   /* what is decided; X_admit may add to it */
	const char *waits_for;
};

/* locks.c, place.c, reserve.c, admit.c, sweep.c: the admission loop; views, rows and the arena are
 * the caller's. Functions with err return 0 or ERR_API. */

/* locks.c */
/* The objects a path leads to, into rows (POOL_TARGETS_MAX); what is null or gone is left out.
 * Fails with HANDLE_INVALID when the parameter itself names nothing. */
int path_rows(struct admit *ad, const struct model_path *path, const struct db_row **rows,
	unsigned *n_out, struct err *err);
/* All objects of the method's locks that can be known before the owner is. */
int locks_collect(struct admit *ad, struct err *err);
/* And those of the owner. */
void locks_collect_owner(struct admit *ad);
/* For X_admit: an object that no path leads to is locked too, if it is not yet. */
int locks_also(struct admit *ad, const struct db_row *row, const char *op, struct err *err);
/* A disk that gains a user: whoever else judges its users on the same view must find it changed. */
void locks_pin_disk(struct admit *ad, const struct db_row *vdi);
/* May each begin its operation? ERR_API: no, and ad->waits_for says whether only a lock is in the
 * way. from: index of the first target looked at. */
int locks_check(struct admit *ad, unsigned from, struct err *err);
/* Ask the operations to stop that this one replaces; ERR_API when there were any: it has to wait
 * for their end. */
int locks_cancel_others(struct admit *ad, struct err *err);
/* Preconditions on what the rules relied on, and the locks into the transaction; the list for the
 * task's row. */
void locks_take(struct admit *ad, struct val *list_out);
/* Operations of a transaction that give back what a task holds. */
void locks_release(struct db_txn *txn, struct arena *a, const struct db_row *task);
/* Does a task hold any? */
bool locks_held(const struct db_row *task, struct arena *a);
bool task_cancel_asked(const struct db_row *task, struct arena *a);

/* place.c */
/* Choose the host that runs it. */
int place_owner(struct admit *ad, struct err *err);
/* host.evacuate is under way there: nothing is placed on it. */
bool place_emptied(const struct admit *ad, const struct db_row *host);
/* May the VM run there? Everything but memory (can_boot_here, pool.md 6.1). */
int place_check(const struct admit *ad, const struct db_row *vm, const struct db_row *host,
	struct err *err);
/* The same and memory: HOST_NOT_ENOUGH_FREE_MEMORY. Any member, for advice. */
int place_can_boot(const struct admit *ad, const struct db_row *vm, const struct db_row *host,
	struct err *err);
/* Has the host the SR attached? */
bool place_sees_sr(const struct db_view *view, const struct db_row *host, const struct db_row *sr);
/* The owner sees this SR too, or another host that sees both becomes the owner (from: an SR, or a
 * VM with all its disks); NO_HOSTS_AVAILABLE. */
int place_also_sr(
	struct admit *ad, const struct db_row *from, const struct db_row *sr, struct err *err);
/* Can the host attach the network? One without any PIF is internal: wherever it is needed. */
bool place_network(
	const struct db_view *view, const struct db_row *network, const struct db_row *host);
/* Members of the VM's anti-affinity groups that run there or are on their way; paused ones do not
 * count. */
unsigned place_group_members(const struct admit *ad, const struct db_row *vm, const char *host);

/* reserve.c: memory set aside on hosts. */
/* What a VM may use at most, at least; overhead included. */
struct memory_need {
	int64_t least, most, all; /* dynamic_min, dynamic_max, static_max */
};
struct memory_need memory_need(const struct db_row *vm);
/* Free bytes by reservations; INT64_MAX: the host's memory is not known. */
int64_t memory_free(const struct db_view *view, const struct db_row *host);
/* Set memory aside for the VM, under the condition that it is there:
 * HOST_NOT_ENOUGH_FREE_MEMORY. It is the task's until facts are written. */
int memory_reserve(
	struct admit *ad, const struct db_row *vm, const struct db_row *host, struct err *err);
/* The same for one that runs on `from` and goes to host: what it has now, or less, down to its
 * minimum. */
int memory_reserve_moving(struct admit *ad, const struct db_row *vm, const struct db_row *from,
	const struct db_row *host, struct err *err);
/* Of a VM that is there: more, as far as it needs and finds it, at once. */
int memory_grow(struct admit *ad, const struct db_row *vm, const struct db_row *host,
	struct memory_need need, struct err *err);
/* And less, when it has been given back. Bytes, overhead included. */
void memory_at_most(struct db_txn *txn, const struct db_view *view, const struct db_row *vm,
	const struct db_row *host, int64_t most);
/* What a task has set aside on another host than this: it did not get there. */
void memory_give_back_elsewhere(struct db_txn *txn, const struct db_view *view,
	const struct db_row *task, const char *self);
/* The VM has left the host: all but what a task under way has set aside there. */
void memory_left(struct db_txn *txn, const struct db_view *view, const char *vm, const char *host);
/* What a task that nobody will run has set aside. */
void memory_give_back(struct db_txn *txn, const struct db_view *view, const struct db_row *task);
/* The VM is not there (any more). */
void memory_drop(struct db_txn *txn, const struct db_view *view, const char *vm, const char *host);
/* The VM is there: exactly one. */
void memory_keep(struct db_txn *txn, struct pool *pool, const struct db_view *view,
	const struct db_row *vm, const char *host);
/* How much of it; bytes, without the overhead; 0: nothing is known to be. */
int64_t memory_set_aside(
	const struct db_view *view, const struct db_row *vm, const struct db_row *host);
bool memory_kept(const struct db_view *view, const char *vm, const char *host);

/* admit.c */
enum verdict { ADMITTED, MUST_WAIT, REFUSED };
/* Evaluate a request on the view. ADMITTED: locks and preconditions are in the transaction, the
 * owner is chosen. */
enum verdict admit_evaluate(struct admit *ad, struct val *locks, struct err *err);
/* Fields of a task's row that say how it ended. */
void task_set_ended(
	struct db_txn *txn, struct arena *a, const char *ref, int64_t now, const struct err *err);

/* line.c. Admission loop. */
/* The oldest tasks that wait for locks, in order of creation; how many. There may be more: a host
 * that was to run some has been lost. seen: no row of a task that was changed last up to this index
 * waits; 0: it is not known of any. Moved on to what is known then, so that who asks often looks
 * at what has changed. */
unsigned line_waiting(
	const struct db_view *view, uint64_t *seen, const struct db_row *out[POOL_WAITING_MAX]);
/* It waits: it gets in line for each object that it cannot have yet, or for all of them when its
 * turn has come. line: the latest is the first. Of one that the rules refuse, nothing. */
void line_join(struct admit *ad, const struct ahead **line);
/* All that wait, in line; how many. */
unsigned line_all(struct pool *pool, const struct db_view *view, struct arena *a,
	const struct ahead **line_out);
/* Who of the line goes before this request. Nobody, when it is a part of another one, which they
 * may be waiting for, or is there to stop others. */
const struct ahead *line_before(const struct request *r, const struct ahead *line);

/* task_age.c: ages of what is in the log. Admission loop. */
/* Where are we now? Once in a while, on every member. */
void marks_set(struct pool *pool, const struct db_view *view, struct arena *a);
/* The index that we were at so long ago, at most POOL_WAIT_MIN; 0: we were nowhere. */
uint64_t marks_minutes_ago(const struct pool *pool, unsigned minutes);
/* Deletions of tasks that are old, or too many (docs/limits.md); how many. */
unsigned sweep_tasks(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a);

/* owner.c, agent_job.c, facts.c: a job of the owner; task is the struct owned that X_run was given.
 * 0, ERR_API, ERR_DEAD (undo nothing, return). */

/* owner.c */
struct owned {
	struct pool *pool;
	struct owned *next;
	char task[DB_REF_MAX + 1], vm[DB_REF_MAX + 1], vm_uuid[UUID_LEN + 1],
		task_uuid[UUID_LEN + 1];
	struct job *job;
	_Atomic bool done, cancel, woken;
	bool vm_changed; /* loop only: looked at again when the job has ended */
	uint64_t told;	 /* loop only: the latest end of a part that it was woken for */
	/* Worker only. */
	struct db_txn then;    /* operations of the finishing transaction */
	struct val made, old;  /* disks: owner_made, owner_old */
	const char *result;    /* as XML-RPC text in the job's arena; NULL: void */
	bool same_incarnation; /* the agent is the one it was started with */
	bool fresh;	       /* in this life: the agent cannot know its job yet */
	bool stopping;	       /* its parts were asked to stop */
	bool suspended; /* X_run has put the guest on a disk: a VM without a domain is Suspended */
	bool anyhow;	/* what owner_then says holds although X_run fails */
	enum { GO_ON, END, END_AND_BEGIN } after; /* what this program does when it has ended */
};

/* What the call answers when X_run succeeds. */
void owner_result(struct job *job, void *task, struct val result);
/* Operations that go into the finishing transaction when X_run succeeds: with the task's end they
 * are wholly there or not at all. Without preconditions: the task's locks protect what they rest
 * on. */
struct db_txn *owner_then(void *task);
/* A disk that the task is about to make: it goes again unless the task ends well. uuids. */
void owner_made(struct job *job, void *task, const char *sr, const char *vdi);
/* A disk that goes when the task has ended well. */
void owner_old(struct job *job, void *task, const char *sr, const char *vdi);
/* The uuid and the reference of something this task makes: the same when it runs again. */
void owner_uuid(void *task, const char *word, char uuid[UUID_LEN + 1], char ref[DB_REF_MAX + 1]);
/* The uuid of the VM it is about; "" when there is none. */
const char *owner_vm_uuid(void *task);
struct pool *owner_pool(void *task);
/* The host that runs the task: this one. */
const struct db_row *owner_self(void *task, const struct db_view *view);
/* The record of the task's VM, to be unpinned by the caller; NULL: it is gone. */
const struct db_row *owner_vm(void *task, struct db_view *view);

/* agent_job.c: the only place that talks to the agent for a task. */
/* One call, repeated while the agent is away; its errors as the API tells them. out may be NULL. */
int owner_agent_ask(struct job *job, void *task, enum agent_method_id method,
	const struct val *params, struct val *out, struct err *err);
/* Run an agent's operation on the task's VM (or what "uuid" of params says), one for each task, and
 * wait for its end. */
int owner_agent_op(struct job *job, void *task, enum agent_method_id method, struct val *params,
	struct err *err);
/* The same beside it, under a name that follows from the task's and a word (NULL: a new one each
 * time), for what may be asked again at any time. It is not cancelled. */
int owner_agent_part(struct job *job, void *task, const char *word, enum agent_method_id method,
	struct val *params, struct err *err);
int agent_ask(struct job *job, struct pool *pool, enum agent_method_id method,
	const struct val *params, struct val *out, struct err *err);
/* The task's jobs at the agent may be forgotten; undo: what they have made has not been taken over.
 */
void agent_forget(struct job *job, struct owned *o, bool undo);
#define AGENT_PART_RECEIVE "receive" /* the only word that owner_agent_part is given */
/* Is the agent's job of that name, of which there is no task, a part of one under way
 * (owner_agent_part)? Any thread. */
bool agent_part_wanted(struct pool *pool, const struct db_view *view, const char *name);
void incarnation_of(struct pool *pool, char out[128]);

/* compound.c: an operation made of others (route "compound"). Its X_run begins parts and waits for
 * them; each part is a task of its own, named after this one and a word, so whoever runs it again
 * finds what was begun. All return 0, ERR_API, ERR_DEAD; the job is the owner's. */
/* Begin the part, or find it: its reference, in the job's arena. ERR_API: it was refused. args: as
 * many as the method has, of their types. */
int part_begin(struct job *job, void *task, const char *word, const char *method, struct val *args,
	const char **ref_out, struct err *err);
/* Has the part ended? why: its error when it has failed; a row that is gone has ended. */
bool part_ended(struct job *job, void *task, const char *ref, struct err *why);
/* The wall time of its end, seconds; 0: not known. */
int64_t part_finished(void *task, const char *ref);
/* Until a part ends or ms have passed; ERR_API TASK_CANCELLED: somebody asks to stop (once, then it
 * waits on) and the parts were asked too; ERR_CLOSED: another host goes on with the task, return
 * it. */
int parts_wait(struct job *job, void *task, uint64_t ms, struct err *err);
/* Until this part has ended; who asks the whole to stop has asked the part. 0; ERR_API: its error
 * is in why; ERR_CLOSED, ERR_DEAD. */
int part_end(struct job *job, void *task, const char *part, struct err *why);
/* Seen on all members. */
void part_progress(void *task, unsigned done, unsigned all);

/* facts.c: what is really there, and how the record says it. */
struct facts {
	const char *power_state;
	int64_t domid, vcpus;
	int64_t age_s; /* of the domain */
	bool busy;
	const char *undecided;	       /* the migration that has to be decided here; "": none */
	const struct val *vifs, *vbds; /* of the domain, as the agent says */
	const struct val *guest; /* what the guest says of itself: keys of xen-domain section 10 */
};
int facts_read(struct job *job, struct pool *pool, const char *vm_uuid, struct facts *out);
/* The version of the VM's row, taken before its facts are read: so facts are never written over a
 * change that is newer than they are. */
uint64_t facts_version(struct pool *pool, const char *vm_uuid);
void facts_write(struct db_txn *txn, struct pool *pool, const struct db_view *view,
	const struct db_row *vm, const struct facts *f, const char *self);
/* Ours to write: the VM is here, or nowhere. */
bool facts_ours(const struct db_row *vm, const char *self);
/* Does the record differ, and is it ours to say so? */
bool facts_differ(const struct db_view *view, const struct db_row *vm, const struct facts *f,
	const char *self);

/* sr.c */
/* Sizes of the SR as they are now, into the finishing transaction; grown: by how much its disks,
 * bytes that guests see. */
int sr_sizes(struct job *job, void *task, const char *sr, int64_t grown, struct err *err);

/* vdi.c */
/* Where a disk lies. Strings of the arena. */
struct vdi_place {
	const char *sr_ref, *sr, *vdi; /* sr, vdi: as the agent knows them */
	int64_t size;
};
int vdi_place(struct job *job, void *task, const char *ref, struct vdi_place *out, struct err *err);
/* Copies to be made by one operation of the agent, and their records. */
struct vdi_copies {
	struct val disks; /* of member/agent.json, VDI.copy */
	struct vdi_copy {
		const char *ref, *of, *sr; /* of the new record, its source, its SR */
		int64_t size;
	} * items;
	unsigned n, max;
	bool snapshot;
};
void vdi_copies_init(struct job *job, struct vdi_copies *c, unsigned max, bool snapshot);
/* A copy of the disk in the SR (NULL: in its own): the reference it will have. Of one disk there is
 * one copy. */
int vdi_copies_add(struct job *job, void *task, struct vdi_copies *c, const char *vdi,
	const char *sr, const char **ref_out, struct err *err);
/* Make them, all or none; records and sizes go into the finishing transaction. */
int vdi_copies_make(struct job *job, void *task, struct vdi_copies *c, struct err *err);
/* The same as a part of another operation of the agent on the task's VM; params: what else that
 * needs. */
int vdi_copies_make_by(struct job *job, void *task, struct vdi_copies *c,
	enum agent_method_id method, struct val *params, struct err *err);
/* Break the locks of boots of hosts that are over. held_out: others have it. */
int vdi_break_locks(struct job *job, void *task, const char *vdi, bool *held_out, struct err *err);
/* A new, empty disk and its record; fields: of class VDI, SR, virtual_size and what else is given.
 */
int vdi_make(struct job *job, void *task, const char *word, struct val *fields,
	const char **ref_out, struct err *err);

/* vif.c */
/* The VM's interfaces as the agent has to know them: vifs of member/agent.json. */
struct val vif_metadata(struct arena *a, const struct db_view *view, const struct db_row *vm);
/* currently_attached of each follows what the domain has; none without a domain. Where one is
 * attached the interface of this host (self) on its network is up. */
void vif_facts_write(struct db_txn *txn, const struct db_view *view, const struct db_row *vm,
	const struct facts *f, const char *self);
bool vif_facts_differ(const struct db_view *view, const struct db_row *vm, const struct facts *f);

/* vbd.c: the same of drives. */
struct val vbd_metadata(struct arena *a, const struct db_view *view, const struct db_row *vm);
/* What a dead host has locked of the VM's disks is free again; what cannot be reached stays. */
int vbd_break_locks(struct job *job, void *task, const char *vm);
void vbd_facts_write(struct db_txn *txn, const struct db_view *view, const struct db_row *vm,
	const struct facts *f);
bool vbd_facts_differ(const struct db_view *view, const struct db_row *vm, const struct facts *f);

/* host_gone.c */
/* Is that boot of a host over? The host was declared dead, has been started again, or has left. Of
 * one that has never announced itself: no. */
bool host_boot_over(const struct db_view *view, const char *host_uuid, const char *boot);
/* What boots of this host that are over have left of tasks: disks that they were making, locks on
 * what is no VM. On a job's thread; 0, ERR_DEAD. */
int host_clear_own(struct job *job, struct pool *pool);

/* host_power.c */
/* The agent is another one than was last announced: when the machine has been started since then,
 * the host is enabled again, unless it was disabled to stay so. */
void host_after_boot(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	const char *before, const char *now);

/* vm_migrate.c */
/* The agent has a domain of which it has to be told what becomes of it: find out, and tell. Jobs of
 * the lane api. */
void migrate_decide(struct pool *pool, const char *vm_uuid);

/* reconcile.c */
/* After each contact with the agent: everything. */
void reconcile_all(struct pool *pool);
/* A VM has changed by itself. Admission loop. */
void reconcile_vm_changed(struct pool *pool, const char *uuid);
