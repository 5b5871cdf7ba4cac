/* Messages as they are made: of clients (message.c), and of the pool itself, which tells by them
 * what nobody has asked about. The newest MESSAGES_MAX are kept: each new one lets the oldest go.
 */
#include "pool/pool_priv.h"

#include <string.h>

enum {
	MESSAGES_MAX = 10000,
	OLDEST_MAX = 100, /* that go with one new one: more only after many were made at once */
};

static void drop_oldest(const struct db_view *view, struct db_txn *txn)
{
	struct db_cursor oldest = db_rows_modified(view, MODEL_CLASS_message, 0);
	uint64_t n = db_view_count(view, MODEL_CLASS_message);

	for (unsigned i = 0; n >= MESSAGES_MAX && i < OLDEST_MAX; i++, n--)
		db_txn_delete(txn, MODEL_CLASS_message, db_row_ref(db_next(&oldest)));
}

void message_put(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	const struct message *m, char ref[DB_REF_MAX + 1])
{
	struct val fields[MESSAGE_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char uuid[UUID_LEN + 1];

	pool_ref(pool, uuid, ref);
	fields[MESSAGE_uuid] = val_string(uuid);
	fields[MESSAGE_name] = val_string(m->name);
	fields[MESSAGE_priority] = val_int(m->priority);
	fields[MESSAGE_cls] = val_string(m->cls);
	fields[MESSAGE_obj_uuid] = val_string(m->obj_uuid);
	fields[MESSAGE_timestamp] = val_datetime(env_wall_s(pool->env));
	fields[MESSAGE_body] = val_string(m->body);
	drop_oldest(view, txn);
	db_txn_create(txn, MODEL_CLASS_message, ref, fields);
}

bool message_again(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	const char *name, int priority, const char *body)
{
	struct db_cursor pools = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *row = db_next(&pools);
	char ref[DB_REF_MAX + 1];

	if (row == NULL)
		return false;
	message_put(pool, view, txn,
		&(struct message){ name, priority, "Pool", db_row_s(row, POOL_uuid), body }, ref);
	return true;
}

bool message_of_pool(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	const char *name, int priority, const char *body)
{
	struct db_cursor all = db_rows(view, MODEL_CLASS_message);
	const struct db_row *row;

	while ((row = db_next(&all)) != NULL)
		if (strcmp(db_row_s(row, MESSAGE_name), name) == 0)
			return false;
	return message_again(pool, view, txn, name, priority, body);
}
