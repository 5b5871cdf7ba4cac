/* Values as text: JSON, and the form in which the reference keeps and compares them. */
#include "rpc/base/val.h"
#include "rpc/base/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Stands for itself in a JSON string. */
static bool plain(uint8_t c)
{
	return c >= ' ' && c != '"' && c != '\\';
}

void val_json_text(struct buf *out, const char *s)
{
	const char *from;

	buf_puts(out, "\"");
	for (;; s++) {
		for (from = s; plain((uint8_t)*s); s++)
			;
		buf_put(out, from, (size_t)(s - from));
		if (*s == 0)
			break;
		if (*s == '"' || *s == '\\')
			buf_printf(out, "\\%c", *s);
		else if (*s == '\n')
			buf_puts(out, "\\n");
		else
			buf_printf(out, "\\u%04x", (unsigned)*s);
	}
	buf_puts(out, "\"");
}

void val_float_print(double f, char *out)
{
	double back;

	snprintf(out, VAL_FLOAT_MAX, "%.16g", f);
	if (sscanf(out, "%lf", &back) != 1 || memcmp(&back, &f, sizeof f) != 0)
		snprintf(out, VAL_FLOAT_MAX, "%.17g", f);
}

/* ".0" behind whole numbers; what is not finite is sent as 0 (wire.md 2.1). */
static void number(struct buf *out, double f)
{
	char text[VAL_FLOAT_MAX];

	if (!isfinite(f))
		f = 0;
	if (fabs(f) < 1e15 && f == (double)(int64_t)f &&
		!signbit(f)) { /* the usual one, without a format */
		buf_int(out, (int64_t)f);
		buf_puts(out, ".0");
		return;
	}
	val_float_print(f, text);
	buf_puts(out, text);
	if (strpbrk(text, ".e") == NULL)
		buf_puts(out, ".0");
}

void val_json(struct buf *out, const struct val *v)
{
	char date[VAL_DATETIME_MAX];

	switch (v->kind) {
	case VAL_VOID: buf_puts(out, "\"\""); break;
	case VAL_STRING: val_json_text(out, v->s); break;
	case VAL_INT:
	case VAL_INT32: buf_int(out, v->i); break;
	case VAL_FLOAT: number(out, v->f); break;
	case VAL_BOOL: buf_puts(out, v->b ? "true" : "false"); break;
	case VAL_DATETIME:
		val_datetime_print(v->i, date);
		val_json_text(out, date);
		break;
	case VAL_SET:
		buf_puts(out, "[");
		for (uint32_t i = 0; i < v->n; i++) {
			if (i > 0)
				buf_puts(out, ",");
			val_json(out, &v->items[i]);
		}
		buf_puts(out, "]");
		break;
	case VAL_MAP:
		buf_puts(out, "{");
		for (uint32_t i = 0; i < v->n; i++) {
			if (i > 0)
				buf_puts(out, ",");
			val_json_text(out, v->pairs[i].key);
			buf_puts(out, ":");
			val_json(out, &v->pairs[i].value);
		}
		buf_puts(out, "}");
		break;
	case VAL_ENCODED: buf_put(out, v->s, v->n); break;
	}
}

static void quote(struct buf *b, const char *s)
{
	buf_puts(b, "'");
	for (; *s; s++) {
		if (*s == '\'' || *s == '"' || *s == '\\')
			buf_puts(b, "\\");
		buf_put(b, s, 1);
	}
	buf_puts(b, "'");
}

/* The reference has strings inside, whatever they stand for. */
static void quote_text(struct buf *b, const struct val *v)
{
	struct buf inner = { 0 };

	val_text(&inner, v);
	quote(b, buf_text(&inner));
	buf_fini(&inner);
}

void val_text(struct buf *out, const struct val *v)
{
	char date[VAL_DATETIME_MAX];

	switch (v->kind) {
	case VAL_VOID: break;
	case VAL_STRING: buf_puts(out, v->s); break;
	case VAL_INT:
	case VAL_INT32: buf_int(out, v->i); break;
	case VAL_FLOAT: buf_printf(out, "%.18g", v->f); break;
	case VAL_BOOL: buf_puts(out, v->b ? "true" : "false"); break;
	case VAL_DATETIME:
		val_datetime_print(v->i, date);
		buf_puts(out, date);
		break;
	case VAL_SET:
		buf_puts(out, "(");
		for (uint32_t i = 0; i < v->n; i++) {
			buf_puts(out, i > 0 ? " " : "");
			quote_text(out, &v->items[i]);
		}
		buf_puts(out, ")");
		break;
	case VAL_MAP:
		buf_puts(out, "(");
		for (uint32_t i = 0; i < v->n; i++) {
			buf_puts(out, i > 0 ? " (" : "(");
			quote(out, v->pairs[i].key);
			buf_puts(out, " ");
			quote_text(out, &v->pairs[i].value);
			buf_puts(out, ")");
		}
		buf_puts(out, ")");
		break;
	case VAL_ENCODED: UNREACHABLE();
	}
}
