/* When an operation on a VM is allowed: the checks of vm-lifecycle 1.3 in their order, on the table
 * of the model. Pure: a view in, a verdict out; the coordinator turns what was relied on into
 * preconditions. */
#include "pool/pool_priv.h"

#include <string.h>
#include <strings.h>

static const struct model_operation *operation(const char *name)
{
	for (const struct model_operation *op = model_vm_operations; op->name != NULL; op++)
		if (strcmp(op->name, name) == 0)
			return op;
	return NULL;
}

static const char *lower_state(int k)
{
	static const char *const names[] = { "halted", "paused", "running", "suspended" };

	return names[k];
}

static int bad_power_state(const struct db_row *vm, const struct model_operation *op, int state,
	struct arena *a, struct err *err)
{
	const char *expected = "";

	for (int k = 0; k < 4; k++)
		if (op->states & 1u << k)
			expected = arena_printf(
				a, "%s%s%s", expected, *expected ? ", " : "", lower_state(k));
	return err_set(
		err, ERR_VM_BAD_POWER_STATE, db_row_ref(vm), expected, lower_state(state), NULL);
}

/* Hard operations may stand beside others, which they cancel (1.3, compatible concurrency). */
static bool beside(const char *op, const char *running)
{
	if (strcmp(op, "hard_shutdown") == 0)
		return strcmp(running, "hard_shutdown") != 0;
	if (strcmp(op, "hard_reboot") == 0)
		return strcmp(running, "hard_reboot") != 0 && strcmp(running, "hard_shutdown") != 0;
	return false;
}

static int lock_check(const struct db_view *view, const struct db_row *vm, const char *op,
	const struct val *current, bool *waits_out, struct err *err)
{
	for (uint32_t i = 0; i < current->n; i++) {
		const char *task = current->pairs[i].key, *running = current->pairs[i].value.s;
		const struct db_row *row = db_view_get(view, MODEL_CLASS_task, task);

		/* the task has ended without its outcome being known: wait for the host's word */
		if (row == NULL || strcmp(db_row_s(row, TASK_status), "pending") != 0)
			return err_set(err, ERR_HOST_OFFLINE,
				row != NULL ? db_row_s(row, TASK_owner) : NULL_REF, NULL);
		if (beside(op, running))
			continue;
		*waits_out = true;
		return err_set(err, ERR_OTHER_OPERATION_IN_PROGRESS, "VM", db_row_ref(vm), running,
			task, NULL);
	}
	return 0;
}

static int checks(const struct db_view *view, const struct db_row *vm,
	const struct model_operation *op, bool *waits_out, struct arena *a, struct err *err)
{
	struct val blocked = db_row_field(vm, VM_blocked_operations, a),
		   current = db_row_field(vm, VM_current_operations, a);
	const char *why = val_get_s(&blocked, op->name), *ref = db_row_ref(vm);
	int state = model_enum_index(MODEL_ENUM_vm_power_state, db_row_s(vm, VM_power_state));

	CHECK(state >= 0);
	if (why != NULL)
		return err_set(err, ERR_OPERATION_BLOCKED, ref, why, NULL);
	if (!(op->states & 1u << state))
		return bad_power_state(vm, op, state, a, err);
	if (lock_check(view, vm, op->name, &current, waits_out, err) != 0)
		return ERR_API;
	if (db_row_b(vm, VM_is_a_template) && !db_row_b(vm, VM_is_a_snapshot) &&
		(!op->on_template || db_row_b(vm, VM_is_default_template)))
		return err_set(err, ERR_VM_IS_TEMPLATE, ref, op->name, NULL);
	if (db_row_b(vm, VM_is_a_snapshot) && !op->on_snapshot)
		return err_set(err, ERR_VM_IS_SNAPSHOT, ref, op->name, NULL);
	if (db_row_b(vm, VM_is_control_domain))
		return err_set(err, ERR_OPERATION_NOT_ALLOWED,
			"This operation is not allowed on a control domain", NULL);
	return 0;
}

int rules_vm(const struct db_view *view, const struct db_row *vm, const char *op, bool *waits_out,
	struct err *err)
{
	const struct model_operation *o = operation(op);
	struct arena a;
	int rc;

	*waits_out = false;
	if (o == NULL)
		return err_set(err, ERR_NOT_IMPLEMENTED, op, NULL);
	arena_init(&a);
	rc = checks(view, vm, o, waits_out, &a, err);
	arena_fini(&a);
	return rc;
}

static struct val task_allowed(const struct db_row *task, struct arena *a)
{
	struct val v = val_set();

	if (strcmp(db_row_s(task, TASK_status), "pending") == 0)
		val_set_push(a, &v, val_string("cancel"));
	val_set_push(a, &v, val_string("destroy"));
	return v;
}

struct val rules_allowed(const struct db_view *view, const struct db_row *row, struct arena *a)
{
	struct val v = val_set();

	if (db_row_class(row) == MODEL_CLASS_task)
		return task_allowed(row, a);
	if (db_row_class(row) != MODEL_CLASS_VM)
		return v; /* no operation on hosts and the pool yet */
	for (const struct model_operation *op = model_vm_operations; op->name != NULL; op++) {
		struct err err = { 0 };
		bool waits;

		if (rules_vm(view, row, op->name, &waits, &err) == 0)
			val_set_push(a, &v, val_string(op->name));
		err_fini(&err);
	}
	return v;
}
