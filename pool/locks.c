/* Locks: which objects an operation holds, and whether it may.
 *
 * A lock is an entry {task: operation} in current_operations of the object. It is taken in the
 * admission entry and given back in the entry that ends the task; the task's row lists what it
 * holds. The version of each locked object is a precondition, so two admissions judged on the same
 * view never both get it. A host that only gains a VM is not pinned, or every start and migration
 * would disturb all others: but it must still be enabled, which what empties or stops it ends.
 */
#include "pool/operation_priv.h"

#include <stdlib.h>
#include <string.h>

bool task_cancel_asked(const struct db_row *task, struct arena *a)
{
	struct val ops = db_row_field(task, TASK_current_operations, a);

	for (uint32_t i = 0; i < ops.n; i++)
		if (strcmp(ops.pairs[i].value.s, "cancel") == 0)
			return true;
	return false;
}

/* Paths. */

static int push(const struct db_row **rows, unsigned *n, const struct db_row *row, struct err *err)
{
	if (row == NULL)
		return 0;
	if (*n == POOL_TARGETS_MAX)
		return err_set(err, ERR_INTERNAL_ERROR, "too many objects at once", NULL);
	rows[(*n)++] = row;
	return 0;
}

/* One step: all rows that a field of these refers to. */
static int follow(const struct db_view *view, const struct db_row **rows, unsigned *n, int field,
	struct err *err)
{
	const struct db_row *from[POOL_TARGETS_MAX], *row;
	unsigned n_from = *n;
	int rc = 0;

	memcpy(from, rows, n_from * sizeof *from);
	*n = 0;
	for (unsigned i = 0; i < n_from && rc == 0; i++) {
		const struct model_field *f = &model_classes[db_row_class(from[i])].fields[field];
		struct db_cursor c;

		if (f->derived < 0) {
			CHECK(f->type->kind == MODEL_REF);
			rc = push(rows, n,
				db_view_get(view, f->type->class_id, db_row_s(from[i], field)),
				err);
			continue;
		}
		c = db_rows_related(view, f->derived, db_row_ref(from[i]));
		while (rc == 0 && (row = db_next(&c)) != NULL)
			rc = push(rows, n, row, err);
	}
	return rc;
}

int path_rows(struct admit *ad, const struct model_path *path, const struct db_row **rows,
	unsigned *n_out, struct err *err)
{
	const struct model_type *type;
	const char *ref;
	unsigned begin = 0;
	int rc = 0;

	*n_out = 0;
	if (path->param == MODEL_ROOT_OWNER) {
		push(rows, n_out, ad->owner, err);
	} else if (path->param == MODEL_ROOT_POOL) {
		struct db_cursor c = db_rows(ad->view, MODEL_CLASS_pool);

		push(rows, n_out, db_next(&c), err);
	} else {
		type = ad->method->params[path->param].type;
		ref = ad->args[path->param].s;
		if (type->kind == MODEL_RECORD) { /* of create: the field is the first step */
			const struct model_field *f =
				&model_classes[type->class_id].fields[path->fields[begin++]];

			ref = val_get_s(&ad->args[path->param], f->name);
			type = f->type;
		}
		if (strcmp(ref, NULL_REF) == 0 && ad->method->params[path->param].may_be_null)
			return 0;
		push(rows, n_out, db_view_get(ad->view, type->class_id, ref), err);
		if (*n_out == 0)
			return err_set(err, ERR_HANDLE_INVALID, model_classes[type->class_id].name,
				ref, NULL);
	}
	for (unsigned i = begin; i < path->n && rc == 0; i++)
		rc = follow(ad->view, rows, n_out, path->fields[i], err);
	return rc;
}

/* Targets. */

static int collect(struct admit *ad, bool owner, struct err *err)
{
	const struct db_row *rows[POOL_TARGETS_MAX];
	unsigned n;

	if (ad->targets == NULL)
		ad->targets = arena_alloc(ad->arena, POOL_TARGETS_MAX * sizeof *ad->targets);
	for (unsigned i = 0; i < ad->method->n_locks; i++) {
		const struct model_lock *l = &ad->method->locks[i];

		if ((l->path.param == MODEL_ROOT_OWNER) != owner)
			continue;
		if (path_rows(ad, &l->path, rows, &n, err) != 0)
			return ERR_API;
		if (ad->n_targets + n > POOL_TARGETS_MAX)
			return err_set(err, ERR_INTERNAL_ERROR, "too many objects at once", NULL);
		for (unsigned k = 0; k < n; k++)
			ad->targets[ad->n_targets++] = (struct target){ rows[k], l->op };
	}
	return 0;
}

int locks_collect(struct admit *ad, struct err *err)
{
	return collect(ad, false, err);
}

void locks_collect_owner(struct admit *ad)
{
	struct err none = { 0 };

	collect(ad, true, &none);
	CHECK(none.code == NULL);
}

int locks_also(struct admit *ad, const struct db_row *row, const char *op, struct err *err)
{
	for (unsigned i = 0; i < ad->n_targets; i++)
		if (ad->targets[i].row == row)
			return 0;
	if (ad->n_targets == POOL_TARGETS_MAX)
		return err_set(err, ERR_INTERNAL_ERROR, "too many objects at once", NULL);
	ad->targets[ad->n_targets++] = (struct target){ row, op };
	return locks_check(ad, ad->n_targets - 1, err);
}

int locks_check(struct admit *ad, unsigned from, struct err *err)
{
	for (unsigned i = from; i < ad->n_targets; i++)
		if (rules_check_behind(ad->view, ad->targets[i].row, ad->targets[i].op, ad->ahead,
			    ad->arena, &ad->waits_for, err) != 0)
			return ERR_API;
	return 0;
}

int locks_cancel_others(struct admit *ad, struct err *err)
{
	const struct db_row *row = ad->n_targets > 0 ? ad->targets[0].row : NULL;
	struct val current;
	int class_id, rc = 0;

	if (row == NULL || ad->method->cancels[0] == NULL)
		return 0;
	class_id = db_row_class(row);
	current = db_row_field(row, model_classes[class_id].operations_field, ad->arena);
	for (uint32_t i = 0; i < current.n; i++)
		for (unsigned k = 0; k < MODEL_CANCELS_MAX && ad->method->cancels[k] != NULL; k++) {
			const char *ref = current.pairs[i].key, *op = current.pairs[i].value.s;
			const struct db_row *task = db_view_get(ad->view, MODEL_CLASS_task, ref);

			if (strcmp(op, ad->method->cancels[k]) != 0)
				continue;
			if (task_pending(task) && !task_cancel_asked(task, ad->arena)) {
				db_txn_need_version(
					ad->txn, MODEL_CLASS_task, ref, db_row_modified(task));
				db_txn_map_add(ad->txn, MODEL_CLASS_task, ref,
					TASK_current_operations, db_row_ref(row),
					val_string("cancel"));
			}
			ad->waits_for = ref;
			rc = err_set(err, ERR_OTHER_OPERATION_IN_PROGRESS,
				model_classes[class_id].name, db_row_ref(row), op, ref, NULL);
		}
	return rc;
}

void locks_pin_disk(struct admit *ad, const struct db_row *vdi)
{
	db_txn_need_version(ad->txn, MODEL_CLASS_VDI, db_row_ref(vdi), db_row_modified(vdi));
	db_txn_touch(ad->txn, MODEL_CLASS_VDI, db_row_ref(vdi));
}

static void pin_disk_of(struct admit *ad, const struct db_row *vbd)
{
	const struct db_row *vdi = db_view_get(ad->view, MODEL_CLASS_VDI, db_row_s(vbd, VBD_VDI));

	if (vdi != NULL)
		locks_pin_disk(ad, vdi);
}

static void pin(struct admit *ad, const struct target *t)
{
	int class_id = db_row_class(t->row);

	if (class_id == MODEL_CLASS_host &&
		(strcmp(t->op, "vm_start") == 0 || strcmp(t->op, "vm_migrate") == 0 ||
			strcmp(t->op, "vm_resume") == 0)) {
		db_txn_need_field(ad->txn, class_id, db_row_ref(t->row), HOST_enabled,
			val_bool(db_row_b(t->row, HOST_enabled)));
		return;
	}
	db_txn_need_version(ad->txn, class_id, db_row_ref(t->row), db_row_modified(t->row));
	if (class_id == MODEL_CLASS_VBD)
		pin_disk_of(ad, t->row);
}

void locks_take(struct admit *ad, struct val *list_out)
{
	for (unsigned i = 0; i < ad->n_targets; i++) {
		const struct target *t = &ad->targets[i];
		int class_id = db_row_class(t->row);
		const char *ref = db_row_ref(t->row);

		pin(ad, t);
		db_txn_map_add(ad->txn, class_id, ref, model_classes[class_id].operations_field,
			ad->task, val_string(t->op));
		val_set_push(ad->arena, list_out,
			val_string(arena_printf(
				ad->arena, "%s/%s/%s", model_classes[class_id].name, ref, t->op)));
	}
}

bool locks_held(const struct db_row *task, struct arena *a)
{
	return db_row_field(task, TASK_locks, a).n > 0;
}

void locks_release(struct db_txn *txn, struct arena *a, const struct db_row *task)
{
	struct val locks = db_row_field(task, TASK_locks, a);

	for (uint32_t i = 0; i < locks.n; i++) {
		char *class = arena_strdup(a, locks.items[i].s), *ref = strchr(class, '/'), *op;
		int class_id;

		if (ref == NULL)
			continue;
		*ref++ = 0;
		op = strchr(ref, '/');
		if (op != NULL)
			*op = 0;
		class_id = model_class_find(class, false);
		if (class_id >= 0 && model_classes[class_id].operations_field >= 0)
			db_txn_map_remove(txn, class_id, ref,
				model_classes[class_id].operations_field, db_row_ref(task));
	}
	db_txn_set(txn, MODEL_CLASS_task, db_row_ref(task), TASK_locks, val_set());
}
