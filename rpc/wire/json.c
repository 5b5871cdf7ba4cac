/* JSON-RPC 1.0 and 2.0. Decoding by json-c, encoding by hand on the hot path. */
#include "rpc/wire/codec.h"
#include "rpc/base/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

struct budget {
	unsigned elements;
	const char *why;
};

static struct val convert(struct arena *a, struct json_object *o, struct budget *b)
{
	struct val v;

	if (++b->elements > RPC_ELEMENTS_MAX)
		b->why = "too many elements";
	if (b->why != NULL)
		return val_void();
	switch (json_object_get_type(o)) {
	case json_type_null: return val_void();
	case json_type_boolean: return val_bool(json_object_get_boolean(o));
	case json_type_double: /* json-c reads NaN and Infinity, and 1e999 as one */
		if (!isfinite(json_object_get_double(o)))
			b->why = "a number that is not finite";
		return val_float(json_object_get_double(o));
	case json_type_int:
		/* json-c clamps what does not fit: the only values that can be told from that are
		 * the ends */
		if (json_object_get_int64(o) == INT64_MAX && json_object_get_uint64(o) > INT64_MAX)
			b->why = "an integer beyond 64 bits";
		return val_int(json_object_get_int64(o));
	case json_type_string:
		if (strlen(json_object_get_string(o)) != (size_t)json_object_get_string_len(o))
			b->why = "a string with a NUL";
		return val_string(arena_strdup(a, json_object_get_string(o)));
	case json_type_array:
		v = val_set();
		for (size_t i = 0; i < json_object_array_length(o); i++)
			val_set_push(a, &v, convert(a, json_object_array_get_idx(o, i), b));
		return v;
	case json_type_object:
		v = val_map();
		json_object_object_foreach(o, key, member)
			val_map_push(a, &v, arena_strdup(a, key), convert(a, member, b));
		return v;
	}
	UNREACHABLE();
}

/* json-c takes some 800 bytes for each value: count before it builds anything. */
static bool too_many(const char *text, size_t n)
{
	unsigned values = 0;
	bool in_string = false;

	for (size_t i = 0; i < n; i++) {
		char c = text[i];

		if (in_string && c == '\\')
			i++;
		else if (c == '"')
			in_string = !in_string;
		else if (!in_string && (c == ',' || c == '[' || c == '{') &&
			 ++values > RPC_ELEMENTS_MAX)
			return true;
	}
	return false;
}

int rpc_json_parse(
	struct arena *a, const char *text, size_t n, struct val *out, const char **why_out)
{
	struct json_tokener *tok = must(json_tokener_new_ex(VAL_DEPTH_MAX));
	struct budget b = { 0 };
	struct json_object *o = NULL;

	*out = val_void();
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	if (n == 0 || n > RPC_BODY_MAX)
		b.why = "empty or too large";
	else if (too_many(text, n))
		b.why = "too many elements";
	else if ((o = json_tokener_parse_ex(tok, text, (int)n)) == NULL &&
		 json_tokener_get_error(tok) == json_tokener_continue)
		o = json_tokener_parse_ex(
			tok, "", -1); /* a number at the end needs to hear that it is the end */
	if (b.why == NULL && json_tokener_get_error(tok) != json_tokener_success)
		b.why = arena_printf(
			a, "JSON: %s", json_tokener_error_desc(json_tokener_get_error(tok)));
	if (b.why == NULL)
		*out = convert(a, o, &b);
	json_object_put(o);
	json_tokener_free(tok);
	*why_out = b.why;
	return b.why != NULL ? ERR_CORRUPT : 0;
}

int rpc_json_request(
	struct arena *a, const char *body, size_t n, struct rpc_message *out, const char **why_out)
{
	struct val *top = arena_alloc(a, sizeof *top), *params = arena_alloc(a, sizeof *params);
	const struct val *version, *id, *given;
	int rc = rpc_json_parse(a, body, n, top, why_out);

	*out = (struct rpc_message){ .codec = RPC_JSON1, .id = val_int(0) };
	*params = val_set();
	out->params = params;
	if (rc != 0)
		return rc;
	if (top->kind != VAL_MAP) {
		*why_out = "a request is an object; batches are not supported";
		return ERR_CORRUPT;
	}
	id = val_get(top, "id");
	if (id != NULL && (id->kind == VAL_STRING || id->kind == VAL_INT))
		out->id = *id;
	else
		*why_out = "id is missing, null, or neither string nor integer";
	version = val_get(top, "jsonrpc");
	if (version != NULL)
		out->codec = RPC_JSON2;
	if (version != NULL && (version->kind != VAL_STRING || strcmp(version->s, "2.0") != 0))
		*why_out = "unknown value of jsonrpc";
	out->method = val_get_s(top, "method");
	if (out->method == NULL || *out->method == 0)
		*why_out = "no method name";
	given = val_get(top, "params");
	if (given != NULL && given->kind == VAL_SET)
		*params = *given;
	else if (given != NULL && given->kind == VAL_MAP && out->codec == RPC_JSON2)
		val_set_push(a, params, *given);
	else if (out->codec == RPC_JSON1 || (given != NULL && given->kind != VAL_VOID))
		*why_out = "params is no array";
	return *why_out != NULL ? ERR_CORRUPT : 0;
}
