/* Rows as the API shows them: stored fields, volatile numbers over them, sets derived from
 * relations, allowed operations computed. */
#include "db/plane.h"
#include "pool/pool_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool task_pending(const struct db_row *task)
{
	return task != NULL && (strcmp(db_row_s(task, TASK_status), "pending") == 0 ||
				       strcmp(db_row_s(task, TASK_status), "cancelling") == 0);
}

/* The numbers over a row; NULL: none. A task that has ended has its end in the row, which the last
 * word of its owner must not hide. */
static const struct val *numbers_of(
	const struct db_view *view, const struct db_row *row, struct arena *a)
{
	return db_row_class(row) == MODEL_CLASS_task && !task_pending(row)
		       ? NULL
		       : db_plane_read(view, row, a);
}

static struct val shown(const struct db_view *view, const struct db_row *row, int field,
	const struct val *numbers, struct arena *a)
{
	const struct model_field *f = &model_classes[db_row_class(row)].fields[field];
	const struct db_row *other;
	struct db_cursor c;
	struct val v;

	if (numbers != NULL && numbers[field].kind != VAL_VOID)
		return numbers[field];
	if (f->computed)
		return rules_allowed(view, row, a);
	if (f->derived < 0)
		return db_row_field(row, field, a);
	v = val_set();
	c = db_rows_related(view, f->derived, db_row_ref(row));
	while ((other = db_next(&c)) != NULL)
		val_set_push(a, &v, val_string(db_row_ref(other)));
	return v;
}

struct val pool_field(
	const struct db_view *view, const struct db_row *row, int field, struct arena *a)
{
	bool may = model_classes[db_row_class(row)].fields[field].is_volatile;

	return shown(view, row, field, may ? numbers_of(view, row, a) : NULL, a);
}

void pool_record(
	const struct db_view *view, const struct db_row *row, enum rpc_codec codec, struct buf *out)
{
	const struct model_class *c = &model_classes[db_row_class(row)];
	const struct val *numbers;
	struct rpc_map m;
	struct arena a;
	struct val v;

	arena_init(&a);
	numbers = numbers_of(view, row, &a);
	rpc_map_open(&m, out, codec);
	for (unsigned i = 0; i < c->n_fields; i++) {
		int field = c->shown[i];

		if (c->fields[field].internal)
			continue;
		rpc_map_name(&m, c->fields[field].name);
		v = shown(view, row, field, numbers, &a);
		rpc_value(out, codec, &v);
	}
	rpc_map_close(&m);
	arena_fini(&a);
}

const struct db_row *pool_host_of(const struct db_view *view, const char *host_uuid)
{
	return db_view_by_uuid(view, MODEL_CLASS_host, host_uuid);
}

const struct db_row *pool_self(struct pool *pool, const struct db_view *view)
{
	return pool_host_of(view, pool->host_uuid);
}

uint64_t pool_raft_id_of(const struct db_view *view, const char *host_ref)
{
	const struct db_row *host = db_view_get(view, MODEL_CLASS_host, host_ref), *member;

	if (host == NULL)
		return 0;
	member = db_view_get(view, MODEL_CLASS__member, db_row_s(host, HOST_uuid));
	return member != NULL ? (uint64_t)db_row_i(member, _MEMBER_raft_id) : 0;
}

void pool_ref(struct pool *pool, char uuid[UUID_LEN + 1], char ref[DB_REF_MAX + 1])
{
	env_uuid(pool->env, uuid);
	snprintf(ref, DB_REF_MAX + 1, "OpaqueRef:%s", uuid);
}

int64_t pool_number(const struct db_view *view, struct arena *a, const char *key, int64_t otherwise,
	int64_t max)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *row = db_next(&c);
	const char *text;
	struct val map;
	long long given;
	char *end;

	if (row == NULL)
		return otherwise;
	map = db_row_field(row, POOL_other_config, a);
	text = val_get_s(&map, key);
	given = text != NULL ? strtoll(text, &end, 10) : 0;
	return given > 0 && given <= max && *end == 0 ? given : otherwise;
}
