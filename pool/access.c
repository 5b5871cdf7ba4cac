/* The generated messages of every class, interpreted from the tables: getters, setters, records,
 * create, destroy. */
#include "pool/pool_priv.h"

#include <stdlib.h>
#include <string.h>

/* The object a call is about. */
static int subject(struct call *call, const struct db_row **out, struct err *err)
{
	const struct model_class *c = &model_classes[call->method->class_id];

	*out = db_view_get(&call->view, call->method->class_id, call->args[0].s);
	return *out != NULL ? 0 : err_set(err, ERR_HANDLE_INVALID, c->name, call->args[0].s, NULL);
}

/* expr NULL: all of them. */
static int get_all(struct call *call, const char *expr, struct err *err)
{
	struct db_cursor c = db_rows(&call->view, call->method->class_id);
	struct filter *filter = NULL;
	const struct db_row *row;

	if (expr != NULL &&
		filter_parse(&call->arena, call->method->class_id, expr, &filter, err) != 0)
		return ERR_API;
	call->result = val_set();
	while ((row = db_next(&c)) != NULL)
		if (filter == NULL || filter_matches(filter, &call->view, row))
			val_set_push(&call->arena, &call->result, val_string(db_row_ref(row)));
	return 0;
}

static int get_all_records(struct call *call, const char *expr, struct err *err)
{
	struct filter *filter = NULL;

	if (expr != NULL &&
		filter_parse(&call->arena, call->method->class_id, expr, &filter, err) != 0)
		return ERR_API;
	return records_answer(call, db_rows(&call->view, call->method->class_id), filter);
}

static int get_by(struct call *call, bool by_uuid, struct err *err)
{
	const struct model_class *c = &model_classes[call->method->class_id];
	const struct db_row *row;
	struct db_cursor cursor;

	if (by_uuid) {
		row = db_view_by_uuid(&call->view, call->method->class_id, call->args[0].s);
		if (row == NULL)
			return err_set(err, ERR_UUID_INVALID, c->name, call->args[0].s, NULL);
		call->result = val_string(db_row_ref(row));
		return 0;
	}
	call->result = val_set();
	cursor = db_rows_with_label(&call->view, call->method->class_id, call->args[0].s);
	while ((row = db_next(&cursor)) != NULL)
		if (strcmp(db_row_s(row, c->label_field), call->args[0].s) == 0)
			val_set_push(&call->arena, &call->result, val_string(db_row_ref(row)));
	return 0;
}

/* References written must name something that is there, or nothing. */
static int need_target(struct call *call, struct db_txn *txn, const struct model_type *type,
	const struct val *value, struct err *err)
{
	const char *class_name;
	unsigned k;

	for (uint32_t i = 0; type->kind == MODEL_SET && value->kind == VAL_SET && i < value->n; i++)
		if (need_target(call, txn, type->item, &value->items[i], err) != 0)
			return ERR_API;
	if (type->kind != MODEL_REF || value->kind != VAL_STRING || strcmp(value->s, NULL_REF) == 0)
		return 0;
	class_name = model_classes[type->class_id].name;
	if (db_view_get(&call->view, type->class_id, value->s) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, class_name, value->s, NULL);
	if (txn->n_preconditions >= ARRAY_LEN(call->on_failed))
		return 0; /* seen in this view: enough where there are more references than
			     preconditions we explain */
	k = db_txn_need_row(txn, type->class_id, value->s);
	err_set(&call->on_failed[k], ERR_HANDLE_INVALID, class_name, value->s, NULL);
	return 0;
}

static int duplicate_key(struct call *call, const struct model_field *f, struct err *err)
{
	return err_set(err, ERR_MAP_DUPLICATE_KEY, model_classes[call->method->class_id].name,
		f->column, call->args[0].s, call->args[1].s, NULL);
}

static int write_field(struct call *call, struct err *err)
{
	const struct model_message *m = call->method;
	const struct model_field *f = &model_classes[m->class_id].fields[m->field];
	const char *ref = call->args[0].s;
	const struct db_row *row;
	struct db_txn txn;
	struct val have;
	unsigned k;

	if (subject(call, &row, err) != 0)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	k = db_txn_need_row(&txn, m->class_id, ref);
	err_set(&call->on_failed[k], ERR_HANDLE_INVALID, model_classes[m->class_id].name, ref,
		NULL);
	switch (m->call) {
	case MODEL_SET_FIELD:
		if (need_target(call, &txn, f->type, &call->args[1], err) != 0) {
			db_txn_fini(&txn);
			return ERR_API;
		}
		if (f->keys != NULL && !call->caller.superuser)
			/* the role was checked against the map as it was then */
			db_txn_need_version(&txn, m->class_id, ref, db_row_modified(row));
		db_txn_set(&txn, m->class_id, ref, m->field, call->args[1]);
		break;
	case MODEL_ADD_FIELD:
		if (need_target(call, &txn, f->type->item, &call->args[1], err) != 0) {
			db_txn_fini(&txn);
			return ERR_API;
		}
		db_txn_set_add(&txn, m->class_id, ref, m->field, call->args[1]);
		break;
	case MODEL_REMOVE_FIELD:
		db_txn_set_remove(&txn, m->class_id, ref, m->field, call->args[1]);
		break;
	case MODEL_REMOVE_FROM_FIELD:
		db_txn_map_remove(&txn, m->class_id, ref, m->field, call->args[1].s);
		break;
	case MODEL_ADD_TO_FIELD:
		have = db_row_field(row, m->field, &call->arena);
		if (*call->args[1].s == 0 || val_get(&have, call->args[1].s) != NULL) {
			db_txn_fini(&txn);
			return *call->args[1].s == 0
				       ? err_set(err, ERR_INVALID_VALUE, "key", "", NULL)
				       : duplicate_key(call, f, err);
		}
		k = db_txn_need_no_key(&txn, m->class_id, ref, m->field, call->args[1].s);
		duplicate_key(call, f, &call->on_failed[k]);
		db_txn_map_add(&txn, m->class_id, ref, m->field, call->args[1].s, call->args[2]);
		break;
	default: UNREACHABLE();
	}
	return call_write(call, &txn, NULL);
}

/* A record from get_record has the fields that are not stored yet, with their initial values: these
 * are left out. Other values have to wait. */
static int schema_field(
	const struct call *call, const struct model_field *f, struct val *v, struct err *err)
{
	unsigned active = db_view_schema(&call->view);

	if (f->schema > active && val_equal(v, &f->initial))
		*v = val_void();
	if (v->kind == VAL_VOID || (f->schema <= active && model_value_known(f->type, v, active)))
		return 0;
	return err_set(err, ERR_NOT_SUPPORTED_DURING_UPGRADE, NULL);
}

unsigned long raise_serial(
	const struct db_view *view, struct arena *a, struct db_txn *txn, const char *name)
{
	const struct db_row *row = db_view_get(view, MODEL_CLASS__config, name);
	struct val f[_CONFIG_FIELD_COUNT] = { { .kind = VAL_VOID } };
	unsigned long n = 0;

	if (row == NULL) {
		db_txn_need_no_row(txn, MODEL_CLASS__config, name);
		f[_CONFIG_value] = val_string("1");
		db_txn_create(txn, MODEL_CLASS__config, name, f);
		return 0;
	}
	n = strtoul(db_row_s(row, _CONFIG_value), NULL, 10);
	db_txn_need_version(txn, MODEL_CLASS__config, name, db_row_modified(row));
	db_txn_set(txn, MODEL_CLASS__config, name, _CONFIG_value,
		val_string(arena_printf(a, "%lu", n + 1)));
	return n;
}

/* Classes that add something to create and destroy. */
static const struct {
	int class_id;
	int (*creating)(struct call *call, struct db_txn *txn, struct val *fields, struct err *err);
	int (*destroying)(
		struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err);
} additions[] = {
	{ MODEL_CLASS_VM, vm_creating, vm_destroying },
	{ MODEL_CLASS_network, network_creating, network_destroying },
	{ MODEL_CLASS_VIF, vif_creating, vif_destroying },
	{ MODEL_CLASS_VBD, vbd_creating, vbd_destroying },
	{ MODEL_CLASS_subject, subject_creating, NULL },
	{ MODEL_CLASS_VM_appliance, NULL, vm_appliance_destroying },
	{ MODEL_CLASS_PBD, pbd_creating, pbd_destroying },
};

static int add_to_create(
	struct call *call, int class_id, struct db_txn *txn, struct val *fields, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_LEN(additions); i++)
		if (additions[i].class_id == class_id && additions[i].creating != NULL)
			return additions[i].creating(call, txn, fields, err);
	return 0;
}

static int add_to_destroy(struct call *call, int class_id, struct db_txn *txn,
	const struct db_row *row, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_LEN(additions); i++)
		if (additions[i].class_id == class_id && additions[i].destroying != NULL)
			return additions[i].destroying(call, txn, row, err);
	return 0;
}

int access_fields(struct arena *a, enum rpc_codec codec, int class_id, const struct val *given,
	struct val *fields, struct err *err)
{
	const struct model_class *c = &model_classes[class_id];

	for (unsigned i = 0; i < c->n_fields; i++) {
		const struct model_field *f = &c->fields[i];
		const struct val *v = val_get(given, f->name);

		fields[i] = val_void();
		if (f->internal || f->qualifier == MODEL_DYNAMIC_RO)
			continue;
		if (v == NULL && !f->has_default)
			return err_set(err, ERR_FIELD_TYPE_ERROR, f->name, NULL);
		if (v != NULL && rpc_coerce(a, codec, f->type, f->name, v, &fields[i], err) != 0)
			return ERR_API;
	}
	return 0;
}

/* What a client has given, checked against what is there. */
static int create_fields(
	struct call *call, struct db_txn *txn, struct val **fields_out, struct err *err)
{
	int class_id = call->method->class_id;
	const struct model_class *c = &model_classes[class_id];
	struct val *fields = arena_alloc(&call->arena, c->n_fields * sizeof *fields);

	if (access_fields(
		    &call->arena, call->message.codec, class_id, &call->args[0], fields, err) != 0)
		return ERR_API;
	for (unsigned i = 0; i < c->n_fields; i++)
		if (fields[i].kind != VAL_VOID &&
			(need_target(call, txn, c->fields[i].type, &fields[i], err) != 0 ||
				schema_field(call, &c->fields[i], &fields[i], err) != 0))
			return ERR_API;
	*fields_out = fields;
	return 0;
}

int access_record(struct call *call, struct err *err)
{
	const struct model_class *c = &model_classes[call->method->class_id];
	struct val *fields, record = val_map();
	struct db_txn unused;
	int rc;

	db_txn_init(&unused, DB_FOR_FIELD);
	rc = create_fields(call, &unused, &fields, err);
	for (unsigned i = 0; i < ARRAY_LEN(call->on_failed); i++)
		err_fini(&call->on_failed[i]); /* of preconditions that nobody proposes */
	db_txn_fini(&unused);
	if (rc != 0)
		return rc;
	for (unsigned i = 0; i < c->n_fields; i++)
		if (fields[i].kind != VAL_VOID)
			val_map_push(&call->arena, &record, c->fields[i].name, fields[i]);
	call->args[0] = record;
	return 0;
}

/* create: one struct with the RW and StaticRO fields; what is missing takes its default or is an
 * error; what is unknown or dynamic is passed over, so a whole record from get_record may come
 * back. */
static int create(struct call *call, struct err *err)
{
	int class_id = call->method->class_id;
	const struct model_class *c = &model_classes[class_id];
	struct val *fields;
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct db_txn txn;
	int rc;

	db_txn_init(&txn, DB_FOR_FIELD);
	if (join_admits(call->pool, &call->view, err) != 0 ||
		create_fields(call, &txn, &fields, err) != 0) {
		db_txn_fini(&txn);
		return ERR_API;
	}
	pool_ref(call->pool, uuid, ref);
	fields[c->uuid_field] = val_string(uuid);
	rc = add_to_create(call, class_id, &txn, fields, err);
	if (rc != 0) { /* CALL_PENDING: it comes again */
		db_txn_fini(&txn);
		return rc;
	}
	db_txn_create(&txn, class_id, ref, fields);
	call->result = val_string(arena_strdup(&call->arena, ref));
	return call_write(call, &txn, NULL);
}

static int destroy(struct call *call, struct err *err)
{
	int class_id = call->method->class_id;
	const struct db_row *row;
	struct db_txn txn;

	if (subject(call, &row, err) != 0)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	/* a change in between (somebody starts it) is judged again by the rules */
	db_txn_need_version(&txn, class_id, db_row_ref(row), db_row_modified(row));
	if (add_to_destroy(call, class_id, &txn, row, err) != 0) {
		db_txn_fini(&txn);
		return ERR_API;
	}
	db_txn_delete(&txn, class_id, db_row_ref(row));
	return call_write(call, &txn, NULL);
}

/* When a session was last used is in no row, and what it may do follows from its subjects. */
static struct val session_field(struct call *call, const struct db_row *row, int field)
{
	if (field == SESSION_last_active)
		return val_datetime(session_last_active(call->pool, &call->view, row));
	if (field == SESSION_rbac_permissions)
		return roles_permissions(
			roles_of_session(&call->view, row, &call->arena), &call->arena);
	return pool_field(&call->view, row, field, &call->arena);
}

static struct val session_record(struct call *call, const struct db_row *row)
{
	const struct model_class *c = &model_classes[MODEL_CLASS_session];
	struct val v = val_map();

	for (unsigned i = 0; i < c->n_fields; i++)
		if (!c->fields[c->shown[i]].internal)
			val_map_push(&call->arena, &v, c->fields[c->shown[i]].name,
				session_field(call, row, c->shown[i]));
	return v;
}

int access_call(struct call *call, struct err *err)
{
	const struct db_row *row;

	switch (call->method->call) {
	case MODEL_GET_ALL: return get_all(call, NULL, err);
	case MODEL_GET_ALL_WHERE: return get_all(call, call->args[0].s, err);
	case MODEL_GET_ALL_RECORDS: return get_all_records(call, NULL, err);
	case MODEL_GET_ALL_RECORDS_WHERE: return get_all_records(call, call->args[0].s, err);
	case MODEL_GET_BY_UUID: return get_by(call, true, err);
	case MODEL_GET_BY_NAME_LABEL: return get_by(call, false, err);
	case MODEL_GET_RECORD:
		if (subject(call, &row, err) != 0)
			return ERR_API;
		if (call->method->class_id == MODEL_CLASS_session) {
			call->result = session_record(call, row);
			return 0;
		}
		call->text.len = 0;
		pool_record(&call->view, row, call->message.codec, &call->text);
		call->result = val_encoded((const char *)call->text.data, call->text.len);
		return 0;
	case MODEL_GET_FIELD:
		if (subject(call, &row, err) != 0)
			return ERR_API;
		call->result =
			call->method->class_id == MODEL_CLASS_session
				? session_field(call, row, call->method->field)
				: pool_field(&call->view, row, call->method->field, &call->arena);
		return 0;
	case MODEL_CREATE: return create(call, err);
	case MODEL_DESTROY: return destroy(call, err);
	case MODEL_CUSTOM:
	case MODEL_REMOVED: UNREACHABLE();
	default: return write_field(call, err);
	}
}
