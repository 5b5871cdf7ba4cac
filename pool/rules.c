/* The walk over the tables of rules, and the checks that several classes share. */
#include "pool/rules_priv.h"

#include "model/checks.h"

#include <string.h>

static const struct model_operation *operation(const struct model_operations *t, const char *name)
{
	for (unsigned k = 0; k < t->n; k++)
		if (strcmp(t->operations[k].name, name) == 0)
			return &t->operations[k];
	return NULL;
}

uint64_t rule_mask(int class_id, const char *op)
{
	const struct model_operations *t = &model_operations[class_id];
	const struct model_operation *o = operation(t, op);

	return o != NULL ? 1ull << (o - t->operations) : 0;
}

bool rule_is(const struct rule *r, const char *op)
{
	return strcmp(r->op->name, op) == 0;
}

const struct db_row *rule_target(const struct rule *r, const struct db_row *row, int field)
{
	const struct model_type *type = model_classes[db_row_class(row)].fields[field].type;

	CHECK(type->kind == MODEL_REF);
	return db_view_get(r->view, type->class_id, db_row_s(row, field));
}

enum rule_state rule_state(const struct db_row *vm)
{
	int k = vm != NULL
			? model_enum_index(MODEL_ENUM_vm_power_state, db_row_s(vm, VM_power_state))
			: RULE_HALTED;

	CHECK(k >= RULE_HALTED && k <= RULE_SUSPENDED);
	return (enum rule_state)k;
}

const char *rule_state_name(enum rule_state state)
{
	static const char *const names[] = { "halted", "paused", "running", "suspended" };

	return names[state];
}

bool rule_hvm(const struct db_row *vm)
{
	const char *type = db_row_s(vm, VM_domain_type);

	return strcmp(type, "hvm") == 0 ||
	       (strcmp(type, "unspecified") == 0 && *db_row_s(vm, VM_HVM_boot_policy) != 0);
}

/* One walk. */
static int walk(struct rule *r, struct err *err)
{
	uint64_t bit = 1ull << (r->op - r->table->operations);

	for (unsigned k = 0; k < r->table->n_checks; k++)
		if ((r->table->checks[k].operations & bit) != 0 &&
			r->table->checks[k].fn(r, err) != 0)
			return ERR_API;
	return 0;
}

int rules_check(const struct db_view *view, const struct db_row *row, const char *op,
	struct arena *a, const char **waits_for_out, struct err *err)
{
	return rules_check_behind(view, row, op, NULL, a, waits_for_out, err);
}

int rules_check_behind(const struct db_view *view, const struct db_row *row, const char *op,
	const struct ahead *ahead, struct arena *a, const char **waits_for_out, struct err *err)
{
	struct rule r = { .view = view,
		.row = row,
		.table = &model_operations[db_row_class(row)],
		.ahead = ahead,
		.arena = a };
	int rc;

	r.op = operation(r.table, op);
	if (r.op == NULL)
		return err_set(err, ERR_NOT_IMPLEMENTED, op, NULL);
	rc = walk(&r, err);
	*waits_for_out = rc != 0 ? r.waits_for : NULL;
	return rc;
}

static struct val task_allowed(const struct db_row *task, struct arena *a)
{
	struct val v = val_set();

	if (task_pending(task))
		val_set_push(a, &v, val_string("cancel"));
	val_set_push(a, &v, val_string("destroy"));
	return v;
}

struct val rules_allowed(const struct db_view *view, const struct db_row *row, struct arena *a)
{
	const struct model_operations *t = &model_operations[db_row_class(row)];
	struct rule r = { .view = view, .row = row, .table = t, .arena = a };
	struct val v = val_set();
	struct err err = { 0 };

	if (db_row_class(row) == MODEL_CLASS_task)
		return task_allowed(row, a);
	for (unsigned k = 0; k < t->n; k++) {
		r.op = &t->operations[k];
		if (r.op->shown && walk(&r, &err) == 0)
			val_set_push(a, &v, val_string(r.op->name));
		err_fini(&err);
	}
	return v;
}

/* Locks. */

/* An entry of current_operations whose task has ended: its outcome is not known, and nobody may
 * go on before its host has said what really is. */
static int outcome_unknown(const struct db_row *task, struct err *err)
{
	return err_set(
		err, ERR_HOST_OFFLINE, task != NULL ? db_row_s(task, TASK_owner) : NULL_REF, NULL);
}

static const char *joined(struct arena *a, int class_id, const struct val *list)
{
	bool loose = class_id == MODEL_CLASS_VIF || class_id == MODEL_CLASS_VUSB;
	const char *text = "";

	if (list->n == 1)
		return list->items[0].s;
	for (uint32_t i = 0; i < list->n; i++)
		text = arena_printf(a, "%s%s%s", text,
			i == 0	? "{"
			: loose ? "; "
				: ",",
			list->items[i].s);
	return arena_printf(a, "%s}", text);
}

int rule_no_other(struct rule *r, const struct db_row *row, uint64_t ignore, struct err *err)
{
	int class_id = db_row_class(row);
	struct val current = db_row_field(row, model_classes[class_id].operations_field, r->arena),
		   ops = val_set(), tasks = val_set();

	for (uint32_t i = 0; i < current.n; i++) {
		const char *ref = current.pairs[i].key, *op = current.pairs[i].value.s;
		const struct db_row *task = db_view_get(r->view, MODEL_CLASS_task, ref);

		if (!task_pending(task))
			return outcome_unknown(task, err);
		if ((ignore & rule_mask(class_id, op)) != 0)
			continue;
		val_set_push(r->arena, &ops, val_string(op));
		val_set_push(r->arena, &tasks, val_string(ref));
	}
	for (const struct ahead *w = r->ahead; w != NULL && ops.n == 0; w = w->next)
		if (w->row == row && (ignore & rule_mask(class_id, w->op)) == 0) {
			val_set_push(r->arena, &ops, val_string(w->op));
			val_set_push(r->arena, &tasks, val_string(w->task));
		}
	if (ops.n == 0)
		return 0;
	r->waits_for = tasks.items[0].s;
	return err_set(err, ERR_OTHER_OPERATION_IN_PROGRESS, model_classes[class_id].name,
		db_row_ref(row), joined(r->arena, class_id, &ops),
		joined(r->arena, class_id, &tasks), NULL);
}

int rule_locks(struct rule *r, struct err *err)
{
	return rule_no_other(r, r->row, r->op->beside, err);
}

bool rule_pool_option(const struct rule *r, const char *key)
{
	struct db_cursor c = db_rows(r->view, MODEL_CLASS_pool);
	const struct db_row *pool = db_next(&c);
	struct val config =
		pool != NULL ? db_row_field(pool, POOL_other_config, r->arena) : val_map();
	const char *word = val_get_s(&config, key);

	return word != NULL && strcmp(word, "true") == 0;
}

/* pool.md section 7. */
int rule_upgrade(struct rule *r, struct err *err)
{
	return rule_pool_option(r, "rolling_upgrade_in_progress")
		       ? err_set(err, ERR_NOT_SUPPORTED_DURING_UPGRADE, NULL)
		       : 0;
}
