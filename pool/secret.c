/* The class secret: what clients keep apart, so that other objects name it only. Its value is in no
 * log, no history, no projection and no record of a call (db/projection.c, audit.c). */
#include "pool/pool_priv.h"

/* The reference follows from the uuid, so two at once are never both made. */
int secret_introduce(struct call *call, const struct secret_introduce_args *args, struct err *err)
{
	struct val fields[SECRET_FIELD_COUNT] = { { .kind = VAL_VOID } };
	const char *ref = arena_printf(&call->arena, "OpaqueRef:%s", args->uuid);
	struct db_txn txn;

	if (!uuid_ok(args->uuid))
		return err_set(err, ERR_UUID_INVALID, "secret", args->uuid, NULL);
	if (db_view_by_uuid(&call->view, MODEL_CLASS_secret, args->uuid) != NULL)
		return err_set(err, ERR_DB_UNIQUENESS_CONSTRAINT_VIOLATION, "secret", "uuid",
			args->uuid, NULL);
	fields[SECRET_uuid] = val_string(args->uuid);
	fields[SECRET_value] = val_string(args->value);
	fields[SECRET_other_config] = *args->other_config;
	db_txn_init(&txn, DB_FOR_FIELD);
	err_set(&call->on_failed[db_txn_need_no_row(&txn, MODEL_CLASS_secret, ref)],
		ERR_DB_UNIQUENESS_CONSTRAINT_VIOLATION, "secret", "uuid", args->uuid, NULL);
	db_txn_create(&txn, MODEL_CLASS_secret, ref, fields);
	call->result = val_string(ref);
	return call_write(call, &txn, NULL);
}
