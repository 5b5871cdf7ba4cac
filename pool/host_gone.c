/* Hosts that leave: ejected, destroyed after their machine was lost, or said to be dead.
 *
 *   pool.eject      a living host, empty of VMs, not the coordinator
 *   host.destroy    one that is not live any more, without VMs
 *     both: its row of _member says `leaving` from the admission on; db/members.c does the rest
 * under any leader, and removes the host's record with the row. The task only waits for that.
 *   host.declare_dead   one that is not live: its VMs count as halted, what it held is released and
 *     its tasks end, in the one transaction of the admission
 *
 * "Not live" is the word of the coordinator: out of contact for POOL_LOST_MS. Whether the machine
 * is off is for who calls to know (pool.md section 4).
 */
#include "pool/operation_priv.h"

#include <string.h>

enum { LOOK_MS = 100, LEAVE_MS = 60000 };

static bool in_contact(const struct admit *ad, const char *host)
{
	uint64_t id = pool_raft_id_of(ad->view, host);

	return id != 0 && db_silence_ms(ad->pool->db, id) == 0;
}

/* HOST_IS_LIVE while it may be alive. */
static int not_live(const struct admit *ad, const char *ref, struct err *err)
{
	const struct db_row *host = db_view_get(ad->view, MODEL_CLASS_host, ref), *metrics;

	if (host == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", ref, NULL);
	metrics = db_view_get(ad->view, MODEL_CLASS_host_metrics, db_row_s(host, HOST_metrics));
	if (in_contact(ad, ref) || metrics == NULL || db_row_b(metrics, HOST_METRICS_live))
		return err_set(err, ERR_HOST_IS_LIVE, ref, NULL);
	db_txn_need_row(ad->txn, MODEL_CLASS_host, ref);
	db_txn_need_version(
		ad->txn, MODEL_CLASS_host_metrics, db_row_ref(metrics), db_row_modified(metrics));
	return 0;
}

static bool is_there(const struct db_row *vm, const char *host)
{
	return strcmp(db_row_s(vm, VM_resident_on), host) == 0 ||
	       strcmp(db_row_s(vm, VM_scheduled_to_be_resident_on), host) == 0;
}

static bool has_vms(const struct admit *ad, const char *host)
{
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_VM);
	const struct db_row *vm;

	while ((vm = db_next(&c)) != NULL)
		if (!db_row_b(vm, VM_is_control_domain) && is_there(vm, host))
			return true;
	return false;
}

/* From this entry on it leaves. No VM starts there either: that needs it enabled. */
static void leave(struct admit *ad, const char *ref)
{
	const struct db_row *host = db_view_get(ad->view, MODEL_CLASS_host, ref);
	const char *member = db_row_s(host, HOST_uuid);

	db_txn_need_version(ad->txn, MODEL_CLASS_host, ref, db_row_modified(host));
	db_txn_set(ad->txn, MODEL_CLASS_host, ref, HOST_enabled, val_bool(false));
	if (db_view_get(ad->view, MODEL_CLASS__member, member) != NULL)
		db_txn_set(
			ad->txn, MODEL_CLASS__member, member, _MEMBER_state, val_string("leaving"));
	else
		db_txn_delete(ad->txn, MODEL_CLASS_host, ref);
}

static bool is_record(struct owned *o, const char *host)
{
	struct db_view view;
	bool is;

	db_view_pin(o->pool->db, &view);
	is = db_view_get(&view, MODEL_CLASS_host, host) != NULL;
	db_view_unpin(&view);
	return is;
}

/* It goes on without us, too. */
static int await_leaving(struct job *job, struct owned *o, const char *host, struct err *err)
{
	uint64_t due = env_now_ms(job->env) + LEAVE_MS;
	int rc = 0;

	while (rc == 0 && is_record(o, host)) {
		if (env_now_ms(job->env) >= due)
			return err_set(err, ERR_OPERATION_NOT_ALLOWED,
				"The host leaves as soon as most of the other members that vote "
				"are in "
				"contact",
				NULL);
		rc = job_sleep(job, LOOK_MS);
	}
	if (rc == ERR_CANCELLED)
		return err_set(err, ERR_TASK_CANCELLED, o->task, NULL);
	return rc;
}

int pool_eject_admit(struct admit *admit, const struct pool_eject_args *args, struct err *err)
{
	if (db_view_get(admit->view, MODEL_CLASS_host, args->host) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", args->host, NULL);
	if (strcmp(db_row_ref(pool_self(admit->pool, admit->view)), args->host) == 0)
		return err_set(err, ERR_OPERATION_NOT_ALLOWED,
			"The coordinator cannot be ejected: hand its part to another host first",
			NULL);
	if (!in_contact(admit, args->host))
		return err_set(err, ERR_HOST_OFFLINE, args->host, NULL);
	if (has_vms(admit, args->host))
		return err_set(err, ERR_OPERATION_NOT_ALLOWED, "VM resident on host", NULL);
	leave(admit, args->host);
	return 0;
}

int pool_eject_run(struct job *job, void *task, const struct pool_eject_args *args, struct err *err)
{
	return await_leaving(job, task, args->host, err);
}

int host_destroy_admit(struct admit *admit, const struct host_destroy_args *args, struct err *err)
{
	if (not_live(admit, args->self, err) != 0)
		return ERR_API;
	if (has_vms(admit, args->self))
		return err_set(err, ERR_HOST_HAS_RESIDENT_VMS, args->self, NULL);
	leave(admit, args->self);
	return 0;
}

int host_destroy_run(
	struct job *job, void *task, const struct host_destroy_args *args, struct err *err)
{
	return await_leaving(job, task, args->self, err);
}

/* Declared dead. */

static void free_vms(struct admit *ad, const char *host)
{
	static const struct facts none = { .power_state = "Halted", .domid = -1 };
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_VM);
	const struct db_row *vm;

	while ((vm = db_next(&c)) != NULL) {
		if (db_row_b(vm, VM_is_control_domain) || !is_there(vm, host))
			continue;
		db_txn_need_version(ad->txn, MODEL_CLASS_VM, db_row_ref(vm), db_row_modified(vm));
		facts_write(ad->txn, ad->pool, ad->view, vm, &none, host);
	}
}

static void end_tasks(struct admit *ad, const char *host)
{
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_task);
	const struct db_row *task;
	struct err why = { 0 };

	err_set(&why, ERR_HOST_OFFLINE, host, NULL);
	while ((task = db_next(&c)) != NULL) {
		struct val locks = db_row_field(task, TASK_locks, ad->arena);

		if (strcmp(db_row_s(task, TASK_owner), host) != 0 ||
			(!task_pending(task) && locks.n == 0))
			continue;
		db_txn_need_version(
			ad->txn, MODEL_CLASS_task, db_row_ref(task), db_row_modified(task));
		if (task_pending(task))
			task_set_ended(ad->txn, ad->arena, db_row_ref(task),
				env_wall_s(ad->pool->env), &why);
		locks_release(ad->txn, ad->arena, task);
		memory_give_back(ad->txn, ad->view, task);
	}
	err_fini(&why);
}

int host_declare_dead_admit(
	struct admit *admit, const struct host_declare_dead_args *args, struct err *err)
{
	if (not_live(admit, args->host, err) != 0)
		return ERR_API;
	end_tasks(admit, args->host);
	free_vms(admit, args->host);
	db_txn_set(admit->txn, MODEL_CLASS_host, args->host, HOST_enabled, val_bool(false));
	return 0;
}

int host_declare_dead_run(
	struct job *job, void *task, const struct host_declare_dead_args *args, struct err *err)
{
	(void)job;
	(void)task;
	(void)args;
	(void)err;
	return 0; /* all was done with the admission */
}
