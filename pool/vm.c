/* The class VM: its operations. What tables say (states, locks, route) is not repeated here. */
#include "pool/vm_priv.h"

#include <stdio.h>
#include <string.h>

enum { SHUTDOWN_S = 1200 }; /* vm-lifecycle 1.5 */

int vm_start_admit(struct admit *admit, const struct vm_start_args *args, struct err *err)
{
	(void)args;
	cpu_seen(admit->view, admit->txn, admit->arena, db_row_ref(admit->vm));
	return memory_reserve(admit, admit->vm, admit->owner, err);
}

static int start(struct job *job, void *task, bool paused, bool force, struct err *err)
{
	struct val params = val_map();
	int rc = vm_push_metadata(job, task, err);

	if (rc != 0)
		return rc;
	val_map_push(&job->arena, &params, "start_paused", val_bool(paused));
	val_map_push(&job->arena, &params, "force", val_bool(force));
	return owner_agent_op(job, task, AGENT_VM_start, &params, err);
}

int vm_start_run(struct job *job, void *task, const struct vm_start_args *args, struct err *err)
{
	return start(job, task, args->start_paused, args->force, err);
}

int vm_start_on_admit(struct admit *admit, const struct vm_start_on_args *args, struct err *err)
{
	(void)args;
	cpu_seen(admit->view, admit->txn, admit->arena, db_row_ref(admit->vm));
	return place_check(admit, admit->vm, admit->owner, err) != 0
		       ? ERR_API
		       : memory_reserve(admit, admit->vm, admit->owner, err);
}

int vm_start_on_run(
	struct job *job, void *task, const struct vm_start_on_args *args, struct err *err)
{
	return start(job, task, args->start_paused, args->force, err);
}

/* How long the guest gets; vm-lifecycle 1.5. */
static void give_time(struct job *job, struct val *params, int64_t seconds)
{
	val_map_push(&job->arena, params, "timeout_s", val_int(seconds));
}

int vm_clean_shutdown_run(
	struct job *job, void *task, const struct vm_clean_shutdown_args *args, struct err *err)
{
	struct val params = val_map();

	(void)args;
	give_time(job, &params, SHUTDOWN_S);
	return owner_agent_op(job, task, AGENT_VM_shutdown, &params, err);
}

bool vm_suspended(void *task)
{
	struct db_view view;
	const struct db_row *vm = owner_vm(task, &view);
	bool is = vm != NULL && strcmp(db_row_s(vm, VM_power_state), "Suspended") == 0;

	db_view_unpin(&view);
	return is;
}

int vm_hard_shutdown_run(
	struct job *job, void *task, const struct vm_hard_shutdown_args *args, struct err *err)
{
	struct val params = val_map();

	/* there is no domain: it only loses its memory image */
	if (!vm_suspended(task))
		return owner_agent_op(job, task, AGENT_VM_shutdown, &params, err);
	return vm_forget_image(job, task, args->vm);
}

/* In an orderly way, and if that fails by force. */
int vm_shutdown_run(
	struct job *job, void *task, const struct vm_shutdown_args *args, struct err *err)
{
	struct val params = val_map();
	struct db_view view;
	const struct db_row *vm = owner_vm(task, &view);
	int64_t delay = vm != NULL ? db_row_i(vm, VM_shutdown_delay) : 0;

	db_view_unpin(&view);
	if (vm_suspended(task))
		return vm_forget_image(job, task, args->vm);
	give_time(job, &params, delay > 0 ? delay : SHUTDOWN_S);
	val_map_push(&job->arena, &params, "force", val_bool(true));
	return owner_agent_op(job, task, AGENT_VM_shutdown, &params, err);
}

static int reboot(struct job *job, void *task, struct val *params, struct err *err)
{
	int rc = vm_push_metadata(job, task, err);

	return rc != 0 ? rc : owner_agent_op(job, task, AGENT_VM_reboot, params, err);
}

int vm_hard_reboot_run(
	struct job *job, void *task, const struct vm_hard_reboot_args *args, struct err *err)
{
	struct val params = val_map();

	(void)args;
	return reboot(job, task, &params, err);
}

int vm_clean_reboot_run(
	struct job *job, void *task, const struct vm_clean_reboot_args *args, struct err *err)
{
	struct val params = val_map();

	(void)args;
	give_time(job, &params, SHUTDOWN_S);
	return reboot(job, task, &params, err);
}

int vm_pause_run(struct job *job, void *task, const struct vm_pause_args *args, struct err *err)
{
	struct val params = val_map();

	(void)args;
	return owner_agent_op(job, task, AGENT_VM_pause, &params, err);
}

int vm_unpause_run(struct job *job, void *task, const struct vm_unpause_args *args, struct err *err)
{
	struct val params = val_map();

	(void)args;
	return owner_agent_op(job, task, AGENT_VM_unpause, &params, err);
}

/* The recovery call for hosts that are gone for good; vm-lifecycle 3, pool.md 3.3. */
int vm_power_state_reset_admit(
	struct admit *admit, const struct vm_power_state_reset_args *args, struct err *err)
{
	const struct db_row *vm = db_view_get(admit->view, MODEL_CLASS_VM, args->vm), *host, *m;
	const char *on = db_row_s(vm, VM_resident_on);

	if (db_row_b(vm, VM_is_control_domain))
		return err_set(err, ERR_CANNOT_RESET_CONTROL_DOMAIN, args->vm, NULL);
	host = db_view_get(admit->view, MODEL_CLASS_host, on);
	if (host == NULL || host == admit->owner)
		return 0; /* nowhere; of what is here the run asks the agent */
	m = db_view_get(admit->view, MODEL_CLASS_host_metrics, db_row_s(host, HOST_metrics));
	return err_set(err,
		m != NULL && db_row_b(m, HOST_METRICS_live) ? ERR_HOST_IS_LIVE : ERR_HOST_OFFLINE,
		on, NULL);
}

int vm_power_state_reset_run(
	struct job *job, void *task, const struct vm_power_state_reset_args *args, struct err *err)
{
	struct facts facts;
	char domid[24];
	int rc = facts_read(job, owner_pool(task), owner_vm_uuid(task), &facts);

	if (rc != 0)
		return rc;
	if (strcmp(facts.power_state, "Halted") != 0) {
		snprintf(domid, sizeof domid, "%lld", (long long)facts.domid);
		return err_set(err, ERR_DOMAIN_EXISTS, args->vm, domid, NULL);
	}
	rc = vbd_break_locks(job, task, args->vm);
	if (rc != 0)
		return rc;
	rc = vm_forget_image(job, task, args->vm);
	db_txn_set(
		owner_then(task), MODEL_CLASS_VM, args->vm, VM_resident_on, val_string(NULL_REF));
	db_txn_set(owner_then(task), MODEL_CLASS_VM, args->vm, VM_domid, val_int(-1));
	return rc;
}

void vm_metrics_make(struct db_txn *txn, struct env *env, const char *uuid, const char *ref)
{
	struct val f[VM_METRICS_FIELD_COUNT] = { { .kind = VAL_VOID } };

	f[VM_METRICS_uuid] = val_string(uuid);
	f[VM_METRICS_install_time] = val_datetime(env_wall_s(env));
	db_txn_create(txn, MODEL_CLASS_VM_metrics, ref, f);
}

int vm_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err)
{
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];

	(void)err;
	if (fields[VM_other_config].kind != VAL_MAP)
		fields[VM_other_config] = val_map();
	if (val_get(&fields[VM_other_config], "mac_seed") == NULL) { /* vif.c */
		env_uuid(call->pool->env, uuid);
		val_map_push(&call->arena, &fields[VM_other_config], "mac_seed",
			val_string(arena_strdup(&call->arena, uuid)));
	}
	pool_ref(call->pool, uuid, ref);
	vm_metrics_make(txn, call->pool->env, uuid, ref);
	fields[VM_metrics] = val_string(arena_strdup(&call->arena, ref));
	fields[VM_memory_overhead] = vm_overhead_of(fields);
	fields[VM_power_state] = val_string("Halted");
	fields[VM_domid] = val_int(-1);
	return 0;
}

/* What came from it comes from where it came from. */
int vm_destroying(struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err)
{
	struct db_cursor c =
		db_rows_related(&call->view, MODEL_RELATION_VM_parent, db_row_ref(row));
	const struct db_row *child;
	const char *waits_for;

	if (rules_check(&call->view, row, "destroy", &call->arena, &waits_for, err) != 0)
		return ERR_API;
	while ((child = db_next(&c)) != NULL)
		db_txn_set(txn, MODEL_CLASS_VM, db_row_ref(child), VM_parent,
			val_string(db_row_s(row, VM_parent)));
	return 0;
}

int vm_assert_operation_valid(
	struct call *call, const struct vm_assert_operation_valid_args *args, struct err *err)
{
	const struct db_row *vm = db_view_get(&call->view, MODEL_CLASS_VM, args->self);
	const char *waits_for;

	return vm == NULL ? err_set(err, ERR_HANDLE_INVALID, "VM", args->self, NULL)
			  : rules_check(&call->view, vm, args->op, &call->arena, &waits_for, err);
}

/* It is never stored, so never old. */
int vm_update_allowed_operations(
	struct call *call, const struct vm_update_allowed_operations_args *args, struct err *err)
{
	return db_view_get(&call->view, MODEL_CLASS_VM, args->self) != NULL
		       ? 0
		       : err_set(err, ERR_HANDLE_INVALID, "VM", args->self, NULL);
}
