/* The class message: alerts, rows like those of any other class, so they outlive every member and
 * are in events. The readers and destroy are the shared ones of access.c; here is what is special:
 * lists by age, and deletions of many. How one is made: alert.c.
 *
 * Source: XenAPI reference, class message; docs/decisions/0012-messages-are-rows.md. */
#include "pool/pool_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { DELETED_MAX = 500 /* by one entry: no turn of the Raft loop may take long */ };

/* The object must be there. cls says Host where the class is host. */
static int about(struct call *call, const char *cls, const char *uuid, struct err *err)
{
	int class_id = model_class_find(cls, true);

	if (class_id < 0 || db_view_by_uuid(&call->view, class_id, uuid) == NULL)
		return err_set(err, ERR_UUID_INVALID, cls, uuid, NULL);
	return 0;
}

int message_create(struct call *call, const struct message_create_args *args, struct err *err)
{
	char ref[DB_REF_MAX + 1];
	struct db_txn txn;

	if (about(call, args->cls, args->obj_uuid, err) != 0)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	message_put(call->pool, &call->view, &txn,
		&(struct message){
			args->name, args->priority, args->cls, args->obj_uuid, args->body },
		ref);
	call->result = val_string(arena_strdup(&call->arena, ref));
	return call_write(call, &txn, NULL);
}

/* Lists: rows come oldest first, the API shows the newest first. */

struct wanted {
	const char *cls, *obj_uuid; /* NULL: of all objects */
	int64_t after, before;	    /* timestamps strictly between */
	int64_t priority;	    /* 0: any */
};

static bool is_wanted(const struct db_row *row, const struct wanted *w)
{
	int64_t at = db_row_i(row, MESSAGE_timestamp);

	return at > w->after && at < w->before &&
	       (w->priority == 0 || db_row_i(row, MESSAGE_priority) == w->priority) &&
	       (w->cls == NULL ||
		       (strcmp(db_row_s(row, MESSAGE_cls), w->cls) == 0 &&
			       strcmp(db_row_s(row, MESSAGE_obj_uuid), w->obj_uuid) == 0));
}

static int records(struct call *call, const struct wanted *w)
{
	struct db_cursor c = db_rows_modified(&call->view, MODEL_CLASS_message, 0);
	uint64_t n = 0, room = db_view_count(&call->view, MODEL_CLASS_message) + 1;
	const struct db_row **rows = arena_alloc(&call->arena, room * sizeof(*rows)), *row;

	while ((row = db_next(&c)) != NULL)
		if (is_wanted(row, w))
			rows[n++] = row;
	CHECK(n < room);
	return records_answer_list(call, rows, n);
}

int message_get(struct call *call, const struct message_get_args *args, struct err *err)
{
	if (about(call, args->cls, args->obj_uuid, err) != 0)
		return ERR_API;
	return records(
		call, &(struct wanted){ args->cls, args->obj_uuid, args->since, INT64_MAX, 0 });
}

int message_get_since(struct call *call, const struct message_get_since_args *args, struct err *err)
{
	(void)err;
	return records(call, &(struct wanted){ NULL, NULL, args->since, INT64_MAX, 0 });
}

/* Delete what args[0] lists, a part per entry. */

static void delete_more(struct call *call);

static int delete_some(struct call *call)
{
	struct val *refs = &call->args[0];
	struct db_txn txn;
	uint32_t n = refs->n < DELETED_MAX ? refs->n : DELETED_MAX;

	if (n == 0)
		return 0;
	db_txn_init(&txn, DB_FOR_FIELD);
	for (uint32_t i = 0; i < n; i++)
		db_txn_delete(&txn, MODEL_CLASS_message, refs->items[i].s);
	refs->items += n;
	refs->n -= n;
	return call_write(call, &txn, delete_more);
}

static void delete_more(struct call *call)
{
	if (delete_some(call) != CALL_PENDING)
		call_finish(call);
}

int message_destroy_many(
	struct call *call, const struct message_destroy_many_args *args, struct err *err)
{
	for (uint32_t i = 0; i < args->messages->n; i++)
		if (db_view_get(&call->view, MODEL_CLASS_message, args->messages->items[i].s) ==
			NULL)
			return err_set(err, ERR_HANDLE_INVALID, "message",
				args->messages->items[i].s, NULL);
	return delete_some(call);
}

static bool number(const char *s, int64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoll(s, &end, 10);
	return end != s && *end == 0 && errno == 0;
}

static bool read_filter(const struct val_pair *pair, struct wanted *w)
{
	const char *text = pair->value.s;

	if (strcmp(pair->key, "before") == 0)
		return val_datetime_parse(text, &w->before);
	if (strcmp(pair->key, "after") == 0)
		return val_datetime_parse(text, &w->after);
	return strcmp(pair->key, "priority") == 0 && number(text, &w->priority);
}

int message_destroy_all(
	struct call *call, const struct message_destroy_all_args *args, struct err *err)
{
	struct wanted w = { .after = INT64_MIN, .before = INT64_MAX };
	struct db_cursor c = db_rows_modified(&call->view, MODEL_CLASS_message, 0);
	const struct db_row *row;
	struct val refs = val_set();

	for (uint32_t i = 0; i < args->filters->n; i++)
		if (!read_filter(&args->filters->pairs[i], &w))
			return err_set(err, ERR_INVALID_VALUE, args->filters->pairs[i].key,
				args->filters->pairs[i].value.s, NULL);
	while ((row = db_next(&c)) != NULL)
		if (is_wanted(row, &w))
			val_set_push(&call->arena, &refs,
				val_string(arena_strdup(&call->arena, db_row_ref(row))));
	call->args[0] = refs;
	return delete_some(call);
}
