/* XML-RPC. Decoding by expat (no entities beyond the five, DTDs refused), encoding by hand on the
 * hot path. */
#include "rpc/wire/codec.h"
#include "rpc/base/check.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <expat.h>

enum node {
	N_NONE,
	N_CALL,
	N_METHOD,
	N_PARAMS,
	N_PARAM,
	N_VALUE,
	N_SCALAR,
	N_ARRAY,
	N_DATA,
	N_STRUCT,
	N_MEMBER,
	N_NAME
};

/* Which element may stand in which, and what it becomes. */
static const struct {
	const char *tag;
	enum node in, is;
} grammar[] = {
	{ "methodCall", N_NONE, N_CALL },
	{ "methodName", N_CALL, N_METHOD },
	{ "params", N_CALL, N_PARAMS },
	{ "param", N_PARAMS, N_PARAM },
	{ "value", N_PARAM, N_VALUE },
	{ "value", N_DATA, N_VALUE },
	{ "value", N_MEMBER, N_VALUE },
	{ "string", N_VALUE, N_SCALAR },
	{ "int", N_VALUE, N_SCALAR },
	{ "i4", N_VALUE, N_SCALAR },
	{ "i8", N_VALUE, N_SCALAR },
	{ "double", N_VALUE, N_SCALAR },
	{ "boolean", N_VALUE, N_SCALAR },
	{ "dateTime.iso8601", N_VALUE, N_SCALAR },
	{ "nil", N_VALUE, N_SCALAR },
	{ "array", N_VALUE, N_ARRAY },
	{ "data", N_ARRAY, N_DATA },
	{ "struct", N_VALUE, N_STRUCT },
	{ "member", N_STRUCT, N_MEMBER },
	{ "name", N_MEMBER, N_NAME },
};

/* The call around it, three elements for each nested value, and a last value with its scalar. */
enum { XML_DEPTH_MAX = 3 + 3 * VAL_DEPTH_MAX + 2 };

struct frame {
	enum node node;
	const char *tag;
	struct val value; /* N_VALUE: what it holds; N_ARRAY, N_STRUCT via their value */
	bool filled;	  /* N_VALUE: a typed child was seen */
	const char *name; /* N_MEMBER */
};

struct xml {
	XML_Parser parser;
	struct arena *a;
	struct frame stack[XML_DEPTH_MAX];
	unsigned depth, elements;
	struct buf text;
	const char *method, *why;
	struct val params;
};

static void refuse(struct xml *x, const char *why)
{
	if (x->why == NULL)
		x->why = why;
	XML_StopParser(x->parser, XML_FALSE);
}

static void on_start(void *arg, const char *tag, const char **attributes)
{
	struct xml *x = arg;
	enum node in = x->depth > 0 ? x->stack[x->depth - 1].node : N_NONE;
	struct frame *f;

	(void)attributes;
	if (x->why != NULL)
		return;
	if (x->depth == XML_DEPTH_MAX)
		return refuse(x, "nested too deeply");
	if (++x->elements > RPC_ELEMENTS_MAX)
		return refuse(x, "too many elements");
	for (size_t i = 0; i < ARRAY_LEN(grammar); i++) {
		if (grammar[i].in != in || strcmp(grammar[i].tag, tag) != 0)
			continue;
		f = &x->stack[x->depth++];
		*f = (struct frame){ .node = grammar[i].is, .tag = grammar[i].tag };
		f->value = f->node == N_ARRAY	 ? val_set()
			   : f->node == N_STRUCT ? val_map()
						 : val_void();
		x->text.len = 0;
		return;
	}
	refuse(x, arena_printf(x->a, "element <%.40s> out of place", tag));
}

static void on_text(void *arg, const char *s, int n)
{
	struct xml *x = arg;

	buf_put(&x->text, s, (size_t)n);
}

/* One scalar element's text as a value; unreadable numbers stay text and fail as the wrong type
 * later. */
static struct val scalar(struct xml *x, const char *tag)
{
	const char *s = buf_text(&x->text);
	char *end;
	int64_t i;
	double f;

	if (strcmp(tag, "boolean") == 0)
		return val_bool(strcmp(s, "1") == 0);
	if (strcmp(tag, "nil") == 0)
		return val_void();
	if (strcmp(tag, "double") == 0) {
		f = strtod(s, &end);
		if (end != s && *end == 0)
			return val_float(f);
	} else if (tag[0] == 'i') {
		errno = 0;
		i = strtoll(s, &end, 10);
		if (end != s && *end == 0 && errno == 0)
			return val_int(i);
	}
	return val_string(arena_strdup(x->a, s));
}

static void give_up(struct xml *x, struct frame *parent, struct val v)
{
	switch (parent->node) {
	case N_PARAM: val_set_push(x->a, &x->params, v); break;
	case N_DATA: val_set_push(x->a, &x->stack[x->depth - 2].value, v); break;
	case N_MEMBER:
		if (parent->name == NULL)
			return refuse(x, "member without a name before its value");
		val_map_push(x->a, &x->stack[x->depth - 2].value, parent->name, v);
		break;
	default: UNREACHABLE();
	}
}

static void on_end(void *arg, const char *tag)
{
	struct xml *x = arg;
	struct frame *f, *parent;

	(void)tag;
	if (x->why != NULL) /* expat still reports the end of an element that was refused */
		return;
	CHECK(x->depth > 0);
	f = &x->stack[--x->depth];
	parent = x->depth > 0 ? &x->stack[x->depth - 1] : NULL;
	switch (f->node) {
	case N_METHOD: x->method = arena_strdup(x->a, buf_text(&x->text)); break;
	case N_NAME: parent->name = arena_strdup(x->a, buf_text(&x->text)); break;
	case N_SCALAR:
		parent->value = scalar(x, f->tag);
		parent->filled = true;
		break;
	case N_ARRAY:
	case N_STRUCT:
		parent->value = f->value;
		parent->filled = true;
		break;
	case N_VALUE:
		if (!f->filled)
			f->value = val_string(arena_strdup(x->a, buf_text(&x->text)));
		give_up(x, parent, f->value);
		break;
	default: break;
	}
	x->text.len = 0;
}

static void on_doctype(
	void *arg, const char *name, const char *system_id, const char *public_id, int internal)
{
	(void)name;
	(void)system_id;
	(void)public_id;
	if (internal)
		refuse(arg, "entity declarations are not read");
}

/* Declared somewhere outside, perhaps: its text is not known, and a value without it would be
 * another one. */
static void on_skipped(void *arg, const char *name, int parameter)
{
	(void)name;
	if (!parameter)
		refuse(arg, "an entity beyond the five");
}

int rpc_xml_request(
	struct arena *a, const char *body, size_t n, struct rpc_message *out, const char **why_out)
{
	struct xml *x = arena_alloc(a, sizeof *x);
	struct val *params;
	int rc = 0;

	x->a = a;
	x->params = val_set();
	x->parser = must(XML_ParserCreate(NULL));
	XML_SetUserData(x->parser, x);
	XML_SetElementHandler(x->parser, on_start, on_end);
	XML_SetCharacterDataHandler(x->parser, on_text);
	XML_SetSkippedEntityHandler(x->parser, on_skipped);
	XML_SetStartDoctypeDeclHandler(x->parser, on_doctype);
	if (n > RPC_BODY_MAX || XML_Parse(x->parser, body, (int)n, 1) != XML_STATUS_OK) {
		if (x->why == NULL)
			x->why = arena_printf(a, "XML: %s in line %lu",
				XML_ErrorString(XML_GetErrorCode(x->parser)),
				(unsigned long)XML_GetCurrentLineNumber(x->parser));
		rc = ERR_CORRUPT;
	} else if (x->method == NULL || *x->method == 0) {
		x->why = "no method name";
		rc = ERR_CORRUPT;
	}
	XML_ParserFree(x->parser);
	buf_fini(&x->text);
	params = arena_alloc(a, sizeof *params);
	*params = x->params;
	*out = (struct rpc_message){ .codec = RPC_XML, .method = x->method, .params = params };
	*why_out = x->why;
	return rc;
}

/* Stands for itself in XML text. */
static bool plain(uint8_t c)
{
	return c >= ' ' ? c != '<' && c != '>' && c != '&' && c != '"'
			: c == '\t' || c == '\n' || c == '\r';
}

void rpc_xml_text(struct buf *out, const char *s)
{
	const char *from;

	for (;; s++) {
		for (from = s; plain((uint8_t)*s); s++)
			;
		buf_put(out, from, (size_t)(s - from));
		switch (*s) {
		case 0: return;
		case '<': buf_puts(out, "&lt;"); break;
		case '>': buf_puts(out, "&gt;"); break;
		case '&': buf_puts(out, "&amp;"); break;
		case '"': buf_puts(out, "&quot;"); break;
		default: break; /* a control character: dropped */
		}
	}
}

void rpc_xml_name(struct buf *out, const char *name)
{
	buf_puts(out, "<member><name>");
	rpc_xml_text(out, name);
	buf_puts(out, "</name>");
}

static void value_body(struct buf *out, const struct val *v)
{
	char date[VAL_DATETIME_MAX], number[VAL_FLOAT_MAX];

	switch (v->kind) {
	case VAL_VOID: break;
	case VAL_STRING: rpc_xml_text(out, v->s); break;
	case VAL_INT: buf_int(out, v->i); break;
	case VAL_INT32: buf_printf(out, "<i4>%" PRId64 "</i4>", v->i); break;
	case VAL_FLOAT:
		val_float_print(v->f, number);
		buf_printf(out, "<double>%s</double>", number);
		break;
	case VAL_BOOL: buf_printf(out, "<boolean>%d</boolean>", v->b); break;
	case VAL_DATETIME:
		val_datetime_print(v->i, date);
		buf_printf(out, "<dateTime.iso8601>%s</dateTime.iso8601>", date);
		break;
	case VAL_SET:
		buf_puts(out, "<array><data>");
		for (uint32_t i = 0; i < v->n; i++)
			rpc_xml_value(out, &v->items[i]);
		buf_puts(out, "</data></array>");
		break;
	case VAL_MAP:
		buf_puts(out, "<struct>");
		for (uint32_t i = 0; i < v->n; i++) {
			rpc_xml_name(out, v->pairs[i].key);
			rpc_xml_value(out, &v->pairs[i].value);
			buf_puts(out, "</member>");
		}
		buf_puts(out, "</struct>");
		break;
	case VAL_ENCODED: UNREACHABLE(); /* has its <value> already */
	}
}

void rpc_xml_value(struct buf *out, const struct val *v)
{
	if (v->kind == VAL_ENCODED) {
		buf_put(out, v->s, v->n);
		return;
	}
	buf_puts(out, "<value>");
	value_body(out, v);
	buf_puts(out, "</value>");
}
