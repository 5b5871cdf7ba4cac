/* The classes subject and role: users and groups of the directory that may log in, and what they
 * may do. sessions.md 3.1, 3.5.
 *
 * A subject that goes takes the sessions it has let in with it, in the same entry (db/model,
 * relations); a role given or taken holds from the next call on (role.c).
 */
#include "pool/pool_priv.h"

#include <string.h>

static const struct db_row *row_of(
	struct call *call, int class_id, const char *ref, struct err *err)
{
	const struct db_row *row = db_view_get(&call->view, class_id, ref);

	if (row == NULL)
		err_set(err, ERR_HANDLE_INVALID, model_classes[class_id].name, ref, NULL);
	return row;
}

/* subject.create. */

static bool known(const struct db_view *view, const char *identifier)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_subject);
	const struct db_row *row;

	while ((row = db_next(&c)) != NULL)
		if (strcmp(db_row_s(row, SUBJECT_subject_identifier), identifier) == 0)
			return true;
	return false;
}

/* What the directory says goes before what the client says. */
static struct val merged(struct arena *a, const struct val *facts, const struct val *given)
{
	struct val v = val_map();

	for (uint32_t i = 0; facts != NULL && facts->kind == VAL_MAP && i < facts->n; i++)
		val_map_push(a, &v, facts->pairs[i].key, facts->pairs[i].value);
	for (uint32_t i = 0; given->kind == VAL_MAP && i < given->n; i++)
		if (val_get(&v, given->pairs[i].key) == NULL)
			val_map_push(a, &v, given->pairs[i].key, given->pairs[i].value);
	return v;
}

int subject_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err)
{
	const struct val *id = &fields[SUBJECT_subject_identifier], *account;
	const char *directory = auth_directory_of(call->pool, &call->view);
	int rc;

	if (id->kind != VAL_STRING || *id->s == 0)
		return err_set(err, ERR_VALUE_NOT_SUPPORTED, "subject_identifier", "",
			"it may not be empty", NULL);
	raise_serial(&call->view, &call->arena, txn, "subjects_created");
	if (known(&call->view, id->s))
		return err_set(err, ERR_SUBJECT_ALREADY_EXISTS, NULL);
	fields[SUBJECT_roles] = val_set();
	if (directory == NULL) /* it may come later */
		return 0;
	rc = directory_ask(call, directory, "id", id->s, &account, err);
	if (rc == 0)
		fields[SUBJECT_other_config] = merged(
			&call->arena, val_get(account, "facts"), &fields[SUBJECT_other_config]);
	return rc;
}

/* Roles of a subject. */

static int write_role(
	struct call *call, const char *subject, const char *role, bool give, struct err *err)
{
	const struct db_row *row = row_of(call, MODEL_CLASS_subject, subject, err);
	struct db_txn txn;
	struct val have;

	if (row == NULL || row_of(call, MODEL_CLASS_role, role, err) == NULL)
		return ERR_API;
	have = db_row_field(row, SUBJECT_roles, &call->arena);
	if (give && role_of_ref(role) == MODEL_ROLE_ROOT) /* a permission, or an internal one */
		return err_set(err, ERR_ROLE_NOT_FOUND, NULL);
	if (val_set_has(&have, role) == give)
		return err_set(err, give ? ERR_ROLE_ALREADY_EXISTS : ERR_ROLE_NOT_FOUND, NULL);
	db_txn_init(&txn, DB_FOR_FIELD);
	err_set(&call->on_failed[db_txn_need_row(&txn, MODEL_CLASS_subject, subject)],
		ERR_HANDLE_INVALID, "subject", subject, NULL);
	(give ? db_txn_set_add : db_txn_set_remove)(
		&txn, MODEL_CLASS_subject, subject, SUBJECT_roles, val_string(role));
	return call_write(call, &txn, NULL);
}

int subject_add_to_roles(
	struct call *call, const struct subject_add_to_roles_args *args, struct err *err)
{
	return write_role(call, args->self, args->role, true, err);
}

int subject_remove_from_roles(
	struct call *call, const struct subject_remove_from_roles_args *args, struct err *err)
{
	return write_role(call, args->self, args->role, false, err);
}

int subject_get_permissions_name_label(struct call *call,
	const struct subject_get_permissions_name_label_args *args, struct err *err)
{
	const struct db_row *row = row_of(call, MODEL_CLASS_subject, args->self, err);

	if (row == NULL)
		return ERR_API;
	call->result = roles_permissions(roles_of_subject(row, &call->arena), &call->arena);
	return 0;
}

/* Roles: fixed rows. A permission is a role without subroles, and consists of itself. */

static int permissions(struct call *call, const char *role, bool names, struct err *err)
{
	const struct db_row *row = row_of(call, MODEL_CLASS_role, role, err), *part;
	struct val refs;

	if (row == NULL)
		return ERR_API;
	refs = db_row_field(row, ROLE_subroles, &call->arena);
	if (refs.n == 0)
		val_set_push(&call->arena, &refs, val_string(role));
	call->result = refs;
	if (!names)
		return 0;
	call->result = val_set();
	for (uint32_t i = 0; i < refs.n; i++) {
		part = db_view_get(&call->view, MODEL_CLASS_role, refs.items[i].s);
		if (part != NULL)
			val_set_push(&call->arena, &call->result,
				val_string(db_row_s(part, ROLE_name_label)));
	}
	return 0;
}

int role_get_permissions(
	struct call *call, const struct role_get_permissions_args *args, struct err *err)
{
	return permissions(call, args->self, false, err);
}

int role_get_permissions_name_label(
	struct call *call, const struct role_get_permissions_name_label_args *args, struct err *err)
{
	return permissions(call, args->self, true, err);
}

/* All roles that grant what this row stands for. */
static void put_granting(struct call *call, const char *permission)
{
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_role);
	const struct db_row *role;
	struct val refs;

	while ((role = db_next(&c)) != NULL) {
		refs = db_row_field(role, ROLE_subroles, &call->arena);
		if (val_set_has(&refs, permission))
			val_set_push(&call->arena, &call->result, val_string(db_row_ref(role)));
	}
}

int role_get_by_permission(
	struct call *call, const struct role_get_by_permission_args *args, struct err *err)
{
	call->result = val_set();
	if (row_of(call, MODEL_CLASS_role, args->permission, err) == NULL)
		return ERR_API;
	put_granting(call, args->permission);
	return 0;
}

int role_get_by_permission_name_label(struct call *call,
	const struct role_get_by_permission_name_label_args *args, struct err *err)
{
	struct db_cursor c = db_rows_with_label(&call->view, MODEL_CLASS_role, args->label);
	const struct db_row *row;

	(void)err;
	call->result = val_set();
	while ((row = db_next(&c)) != NULL)
		if (strcmp(db_row_s(row, ROLE_name_label), args->label) == 0)
			put_granting(call, db_row_ref(row));
	return 0;
}
