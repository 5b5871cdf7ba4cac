/* The class VM: its operations. What tables say (states, locks, route) is not repeated here. */
#include "pool/pool_priv.h"

#include <string.h>

enum { SHUTDOWN_S = 1200 }; /* vm-lifecycle 1.5 */

/* What the agent makes the domain from. */
static int push_metadata(struct job *job, void *task, struct err *err)
{
	struct arena *a = &job->arena;
	struct val params = val_map(), metadata = val_map(), other;
	struct db_view view;
	const struct db_row *vm = owner_vm(task, &view);
	const char *guest;

	if (vm == NULL) {
		db_view_unpin(&view);
		return err_set(err, ERR_HANDLE_INVALID, "VM", owner_vm_uuid(task), NULL);
	}
	other = db_row_field(vm, VM_other_config, a);
	guest = val_get_s(&other, "xpool-sim-guest"); /* how a simulated guest behaves */
	val_map_push(a, &metadata, "uuid", val_string(owner_vm_uuid(task)));
	val_map_push(
		a, &metadata, "name", val_string(arena_strdup(a, db_row_s(vm, VM_name_label))));
	val_map_push(
		a, &metadata, "memory_kib", val_int(db_row_i(vm, VM_memory_dynamic_max) / 1024));
	val_map_push(a, &metadata, "vcpus", val_int(db_row_i(vm, VM_VCPUs_at_startup)));
	if (guest != NULL && strcmp(guest, "deaf") == 0)
		val_map_push(a, &metadata, "guest_ignores_shutdown", val_bool(true));
	db_view_unpin(&view);
	val_map_push(a, &params, "metadata", metadata);
	return owner_agent_ask(job, task, AGENT_VM_add, &params, err);
}

int vm_start_run(struct job *job, void *task, const struct vm_start_args *args, struct err *err)
{
	struct val params = val_map();
	int rc = push_metadata(job, task, err);

	if (rc != 0)
		return rc;
	val_map_push(&job->arena, &params, "start_paused", val_bool(args->start_paused));
	val_map_push(&job->arena, &params, "force", val_bool(args->force));
	return owner_agent_op(job, task, AGENT_VM_start, &params, err);
}

int vm_clean_shutdown_run(
	struct job *job, void *task, const struct vm_clean_shutdown_args *args, struct err *err)
{
	struct val params = val_map();

	(void)args;
	val_map_push(&job->arena, &params, "timeout_s", val_int(SHUTDOWN_S));
	return owner_agent_op(job, task, AGENT_VM_shutdown, &params, err);
}

int vm_hard_shutdown_run(
	struct job *job, void *task, const struct vm_hard_shutdown_args *args, struct err *err)
{
	struct val params = val_map();

	(void)args;
	return owner_agent_op(job, task, AGENT_VM_shutdown, &params, err);
}

int vm_hard_reboot_run(
	struct job *job, void *task, const struct vm_hard_reboot_args *args, struct err *err)
{
	struct val params = val_map();
	int rc = push_metadata(job, task, err);

	(void)args;
	return rc != 0 ? rc : owner_agent_op(job, task, AGENT_VM_reboot, &params, err);
}

void vm_create_fields(struct call *call, struct db_txn *txn, struct val *fields)
{
	struct val metrics[VM_METRICS_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];

	pool_ref(call->pool, uuid, ref);
	metrics[VM_METRICS_uuid] = val_string(arena_strdup(&call->arena, uuid));
	db_txn_create(txn, MODEL_CLASS_VM_metrics, ref, metrics);
	fields[VM_metrics] = val_string(arena_strdup(&call->arena, ref));
	fields[VM_power_state] = val_string("Halted");
	fields[VM_domid] = val_int(-1);
}
