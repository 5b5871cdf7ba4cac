/* Replies in all three shapes, and values into the types of the model. */
#include "rpc/wire/codec.h"
#include "rpc/base/check.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char xml_head[] = "<?xml version=\"1.0\"?><methodResponse><params><param>";
static const char xml_success[] =
	"<value><struct><member><name>Status</name><value>Success</value></member>"
	"<member><name>Value</name>";
static const char xml_tail[] = "</param></params></methodResponse>";

static struct val error_list(struct arena *a, const struct err *err, bool with_code)
{
	struct val list = val_set();

	if (with_code)
		val_set_push(a, &list, val_string(err->code->name));
	for (unsigned i = 0; i < err->n; i++)
		val_set_push(a, &list, val_string(err->params[i]));
	return list;
}

static void put_id(struct buf *out, const struct rpc_message *request)
{
	buf_puts(out, ",\"id\":");
	val_json(out, &request->id);
	buf_puts(out, "}");
}

void rpc_reply_open(struct buf *out, const struct rpc_message *request)
{
	static const char *const before[] = {
		[RPC_XML] = xml_success,
		[RPC_JSON1] = "{\"result\":",
		[RPC_JSON2] = "{\"jsonrpc\":\"2.0\",\"result\":",
	};

	buf_puts(out, request->codec == RPC_XML ? xml_head : "");
	buf_puts(out, before[request->codec]);
}

void rpc_reply_close(struct buf *out, const struct rpc_message *request)
{
	if (request->codec == RPC_XML) {
		buf_puts(out, "</member></struct></value>");
		buf_puts(out, xml_tail);
		return;
	}
	buf_puts(out, request->codec == RPC_JSON1 ? ",\"error\":null" : "");
	put_id(out, request);
}

static void xml_failure(struct buf *out, struct arena *a, const struct err *err)
{
	struct val list = error_list(a, err, true);

	buf_puts(out, xml_head);
	buf_puts(out, "<value><struct><member><name>Status</name><value>Failure</value></member>"
		      "<member><name>ErrorDescription</name>");
	rpc_xml_value(out, &list);
	buf_puts(out, "</member></struct></value>");
	buf_puts(out, xml_tail);
}

static void json_failure(
	struct buf *out, struct arena *a, const struct rpc_message *request, const struct err *err)
{
	struct val list, name;

	if (request->codec == RPC_JSON1) {
		list = error_list(a, err, true);
		buf_puts(out, "{\"result\":null,\"error\":");
		val_json(out, &list);
	} else {
		name = val_string(err->code->name);
		list = error_list(a, err, false);
		buf_puts(out, "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":");
		val_json(out, &name);
		buf_puts(out, ",\"data\":");
		val_json(out, &list);
		buf_puts(out, "}");
	}
	put_id(out, request);
}

void rpc_reply_encode(struct buf *out, const struct rpc_message *request, const struct val *value,
	bool bare, const struct err *err)
{
	struct arena a;

	arena_init(&a);
	if (err->code != NULL && request->codec == RPC_XML) {
		xml_failure(out, &a, err);
	} else if (err->code != NULL) {
		json_failure(out, &a, request, err);
	} else if (bare && request->codec == RPC_XML) {
		buf_puts(out, xml_head);
		rpc_xml_value(out, value);
		buf_puts(out, xml_tail);
	} else {
		rpc_reply_open(out, request);
		rpc_value(out, request->codec, value);
		rpc_reply_close(out, request);
	}
	arena_fini(&a);
}

void rpc_value(struct buf *out, enum rpc_codec codec, const struct val *v)
{
	if (codec == RPC_XML)
		rpc_xml_value(out, v);
	else
		val_json(out, v);
}

void rpc_map_open(struct rpc_map *m, struct buf *out, enum rpc_codec codec)
{
	*m = (struct rpc_map){ .out = out, .codec = codec };
	buf_puts(out, codec == RPC_XML ? "<value><struct>" : "{");
}

void rpc_map_name(struct rpc_map *m, const char *name)
{
	if (m->codec == RPC_XML) {
		buf_puts(m->out, m->any ? "</member>" : "");
		rpc_xml_name(m->out, name);
	} else {
		buf_puts(m->out, m->any ? "," : "");
		val_json_text(m->out, name);
		buf_puts(m->out, ":");
	}
	m->any = true;
}

void rpc_map_close(struct rpc_map *m)
{
	if (m->codec != RPC_XML)
		buf_puts(m->out, "}");
	else
		buf_puts(m->out, m->any ? "</member></struct></value>" : "</struct></value>");
}

void rpc_list_open(struct rpc_map *m, struct buf *out, enum rpc_codec codec)
{
	*m = (struct rpc_map){ .out = out, .codec = codec };
	buf_puts(out, codec == RPC_XML ? "<value><array><data>" : "[");
}

void rpc_list_next(struct rpc_map *m)
{
	buf_puts(m->out, m->any && m->codec != RPC_XML ? "," : "");
	m->any = true;
}

void rpc_list_close(struct rpc_map *m)
{
	buf_puts(m->out, m->codec == RPC_XML ? "</data></array></value>" : "]");
}

static bool whole(const char *s, int64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoll(s, &end, 10);
	return (*s == '-' || isdigit((unsigned char)*s)) && end != s && *end == 0 && errno == 0;
}

static bool coerce_scalar(
	enum rpc_codec codec, const struct model_type *type, const struct val *in, struct val *out)
{
	char *end;

	*out = *in;
	switch (type->kind) {
	case MODEL_STRING:
	case MODEL_SECRET:
	case MODEL_REF:
	case MODEL_ENUM: return in->kind == VAL_STRING;
	case MODEL_BOOL: return in->kind == VAL_BOOL;
	case MODEL_INT:
		if (in->kind == VAL_STRING) {
			*out = val_int(0);
			return whole(in->s, &out->i);
		}
		return in->kind == VAL_INT;
	case MODEL_FLOAT:
		if (in->kind == VAL_STRING) {
			*out = val_float(strtod(in->s, &end));
			if (end == in->s || *end != 0)
				return false;
		} else if (in->kind == VAL_INT) {
			*out = val_float((double)in->i);
		}
		return out->kind == VAL_FLOAT && isfinite(out->f);
	default: (void)codec; return false;
	}
}

static int coerce_set(struct arena *a, enum rpc_codec codec, const struct model_type *type,
	const char *name, const struct val *in, struct val *out, struct err *err)
{
	struct val item;
	int rc;

	if (in->kind != VAL_SET)
		return err_set(err, ERR_FIELD_TYPE_ERROR, name, NULL);
	*out = val_set();
	for (uint32_t i = 0; i < in->n; i++) {
		rc = rpc_coerce(a, codec, type->item, name, &in->items[i], &item, err);
		if (rc != 0)
			return rc;
		val_set_push(a, out, item);
	}
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* No key is empty, none stands there twice. */
static int check_keys(struct arena *a, const struct val *map, struct err *err)
{
	const char **keys = arena_alloc(a, (map->n + 1) * sizeof *keys);

	for (uint32_t i = 0; i < map->n; i++)
		keys[i] = map->pairs[i].key;
	qsort(keys, map->n, sizeof *keys, by_text);
	for (uint32_t i = 0; i < map->n; i++)
		if (*keys[i] == 0 || (i > 0 && strcmp(keys[i - 1], keys[i]) == 0))
			return err_set(err, ERR_INVALID_VALUE, "key", keys[i], NULL);
	return 0;
}

static int coerce_map(struct arena *a, enum rpc_codec codec, const struct model_type *type,
	const char *name, const struct val *in, struct val *out, struct err *err)
{
	int rc;

	if (in->kind != VAL_MAP)
		return err_set(err, ERR_FIELD_TYPE_ERROR, name, NULL);
	if (check_keys(a, in, err) != 0)
		return ERR_API;
	*out = val_map();
	for (uint32_t i = 0; i < in->n; i++) {
		struct val key = val_string(in->pairs[i].key), item;

		/* keys are always text on the wire: "int" keys are checked and stay text */
		rc = rpc_coerce(a, codec, type->key, name, &key, &item, err);
		if (rc == 0)
			rc = rpc_coerce(
				a, codec, type->item, name, &in->pairs[i].value, &item, err);
		if (rc != 0)
			return rc;
		val_map_push(a, out, key.s, item);
	}
	return 0;
}

int rpc_coerce(struct arena *a, enum rpc_codec codec, const struct model_type *type,
	const char *name, const struct val *in, struct val *out, struct err *err)
{
	const char *spelled;
	int64_t seconds;

	if (type->kind == MODEL_SET)
		return coerce_set(a, codec, type, name, in, out, err);
	if (type->kind == MODEL_MAP)
		return coerce_map(a, codec, type, name, in, out, err);
	if (type->kind == MODEL_RECORD) { /* its members are read field by field where it is used */
		*out = *in;
		return in->kind == VAL_MAP ? 0 : err_set(err, ERR_FIELD_TYPE_ERROR, name, NULL);
	}
	if (type->kind == MODEL_DATETIME) {
		if (in->kind != VAL_STRING)
			return err_set(err, ERR_FIELD_TYPE_ERROR, name, NULL);
		if (!val_datetime_parse(in->s, &seconds))
			return err_set(err, ERR_INVALID_VALUE, in->s, NULL);
		*out = val_datetime(seconds);
		return 0;
	}
	if (!coerce_scalar(codec, type, in, out))
		return err_set(err, ERR_FIELD_TYPE_ERROR, name, NULL);
	if (type->kind == MODEL_ENUM) {
		spelled = model_enum_value(type->enum_id, in->s);
		if (spelled == NULL)
			return err_set(err, ERR_INVALID_VALUE, in->s, NULL);
		*out = val_string(spelled);
	}
	return 0;
}
