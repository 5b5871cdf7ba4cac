/* The form in which an operation travels to the coordinator, and lives in its task row until it has
 * ended. */
#include "pool/request_priv.h"

#include "rpc/base/hash.h"

#include <stdio.h>
#include <string.h>

const char *request_id(const struct val *other_config)
{
	return other_config->kind == VAL_MAP ? val_get_s(other_config, "http:request-id") : NULL;
}

void request_uuid(const char *user, const char *sid, const char *id, char out[UUID_LEN + 1])
{
	char who[40];

	snprintf(who, sizeof who, "%016llx%016llx", (unsigned long long)hash_text(user),
		(unsigned long long)hash_text(sid));
	uuid_derive(who, id, out);
}

void request_encode(struct buf *out, const struct request *r)
{
	struct val args = val_set();
	struct arena a;

	arena_init(&a);
	for (unsigned i = 0; i < r->method->n_params; i++)
		val_set_push(&a, &args, r->args[i]);
	buf_str(out, r->method->name);
	val_pack(out, &args);
	buf_str(out, r->user);
	buf_str(out, r->session);
	buf_str(out, r->originator);
	buf_str(out, r->task_uuid);
	buf_u8(out, r->keep);
	buf_str(out, r->parent);
	args = r->other_config.kind == VAL_MAP ? r->other_config : val_map();
	val_pack(out, &args);
	arena_fini(&a);
}

static bool is_text_map(const struct val *v)
{
	bool ok = v->kind == VAL_MAP;

	for (uint32_t i = 0; ok && i < v->n; i++)
		ok = v->pairs[i].value.kind == VAL_STRING;
	return ok;
}

bool request_decode(struct arena *a, const uint8_t *p, size_t n, struct request *out)
{
	struct reader r = reader_of(p, n);
	const char *name = rd_str(&r);
	struct val args = val_unpack(&r, a);

	out->user = rd_str(&r);
	out->session = rd_str(&r);
	out->originator = rd_str(&r);
	out->task_uuid = rd_str(&r);
	out->keep = rd_u8(&r) != 0;
	out->parent = rd_left(&r) > 0 ? rd_str(&r) : NULL_REF; /* older builds say nothing */
	out->other_config = rd_left(&r) > 0 ? val_unpack(&r, a) : val_map();
	if (r.bad || !is_text_map(&out->other_config) || args.kind != VAL_SET ||
		!uuid_ok(out->task_uuid))
		return false;
	out->method = model_message_find(name);
	out->args = args.items;
	return out->method != NULL && out->method->route != MODEL_LOCAL &&
	       args.n == out->method->n_params;
}

void request_arguments(struct arena *a, const struct request *r, const char **out)
{
	struct val args = val_set();
	struct buf text = { 0 };

	for (unsigned i = 0; i < r->method->n_params; i++)
		val_set_push(a, &args, r->args[i]);
	val_json(&text, &args);
	*out = arena_strdup(a, buf_text(&text));
	buf_fini(&text);
}

bool request_of_task(struct arena *a, const struct db_row *task, struct request *out)
{
	const char *text = db_row_s(task, TASK_arguments), *why;
	struct val caller = db_row_field(task, TASK_caller, a), args;
	struct err ignored = { 0 };
	bool ok = true;

	*out = (struct request){ .method = model_message_find(db_row_s(task, TASK_method)),
		.user = val_get_s(&caller, "user"),
		.session = val_get_s(&caller, "session"),
		.originator = val_get_s(&caller, "originator"),
		.task_uuid = db_row_s(task, TASK_uuid),
		.keep = db_row_b(task, TASK_keep),
		.parent = db_row_s(task, TASK_subtask_of) };
	if (out->method == NULL || rpc_json_parse(a, text, strlen(text), &args, &why) != 0 ||
		args.kind != VAL_SET || args.n != out->method->n_params)
		return false;
	out->args = arena_alloc(a, (args.n + 1) * sizeof *out->args);
	for (uint32_t i = 0; i < args.n && ok; i++)
		ok = rpc_coerce(a, RPC_JSON2, out->method->params[i].type,
			     out->method->params[i].name, &args.items[i], &out->args[i],
			     &ignored) == 0;
	err_fini(&ignored);
	return ok;
}
