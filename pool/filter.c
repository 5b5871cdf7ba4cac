/* Expressions of get_all_where: field "a"="text", true, false, not, and, or, parentheses.
 *
 * `and` and `or` bind equally, left to right; `not` binds weakest: `not a and b` is `not (a and
 * b)`. Only equality, on the text form of values. Columns by wire or database name. Source:
 * stats.md, filter expressions.
 */
#include "pool/pool_priv.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { FILTER_DEPTH_MAX = 64, FILTER_TEXT_MAX = 16384 };
enum node { F_TRUE, F_FALSE, F_NOT, F_AND, F_OR, F_EQUAL };

struct operand {
	int field; /* -1: text; -2: _ref */
	const char *text;
};

struct filter {
	enum node node;
	struct filter *a, *b;
	struct operand left, right;
};

struct parser {
	struct arena *arena;
	int class_id;
	const char *p;
	unsigned depth;
	bool bad;
};

static void blank(struct parser *ps)
{
	while (isspace((unsigned char)*ps->p))
		ps->p++;
}

static bool word(struct parser *ps, const char *w)
{
	size_t n = strlen(w);

	blank(ps);
	if (strncmp(ps->p, w, n) != 0 || isalnum((unsigned char)ps->p[n]) || ps->p[n] == '_')
		return false;
	ps->p += n;
	return true;
}

static const char *quoted(struct parser *ps)
{
	const char *end;

	blank(ps);
	if (*ps->p != '"' || (end = strchr(ps->p + 1, '"')) == NULL) {
		ps->bad = true;
		return "";
	}
	ps->p = end + 1;
	return NULL;
}

static struct operand operand(struct parser *ps)
{
	struct operand o = { .field = -1 };
	bool is_field = word(ps, "field");
	const char *from;

	blank(ps);
	from = ps->p + 1;
	if (quoted(ps) != NULL)
		return o;
	o.text = arena_strndup(ps->arena, from, (size_t)(ps->p - 1 - from));
	if (is_field) {
		o.field = strcmp(o.text, "_ref") == 0 ? -2 : model_field_find(ps->class_id, o.text);
		ps->bad |= o.field == -1;
	}
	return o;
}

static struct filter *node_new(
	struct parser *ps, enum node node, struct filter *a, struct filter *b)
{
	struct filter *f = arena_alloc(ps->arena, sizeof *f);

	f->node = node;
	f->a = a;
	f->b = b;
	return f;
}

static struct filter *expression(struct parser *ps);

static struct filter *term(struct parser *ps)
{
	struct filter *f;

	blank(ps);
	if (*ps->p == '(') {
		ps->p++;
		f = expression(ps);
		blank(ps);
		if (*ps->p == ')')
			ps->p++;
		else
			ps->bad = true;
		return f;
	}
	if (word(ps, "true"))
		return node_new(ps, F_TRUE, NULL, NULL);
	if (word(ps, "false"))
		return node_new(ps, F_FALSE, NULL, NULL);
	f = node_new(ps, F_EQUAL, NULL, NULL);
	f->left = operand(ps);
	blank(ps);
	if (*ps->p == '=')
		ps->p++;
	else
		ps->bad = true;
	if (!ps->bad)
		f->right = operand(ps);
	return f;
}

static struct filter *expression(struct parser *ps)
{
	struct filter *f;

	if (++ps->depth > FILTER_DEPTH_MAX)
		ps->bad = true;
	if (ps->bad)
		return NULL;
	if (word(ps, "not")) {
		f = node_new(ps, F_NOT, expression(ps), NULL);
	} else {
		f = term(ps);
		while (!ps->bad) {
			bool is_and = word(ps, "and");

			if (!is_and && !word(ps, "or"))
				break;
			/* a `not` on the right takes the rest, being weakest */
			if (word(ps, "not"))
				f = node_new(ps, is_and ? F_AND : F_OR, f,
					node_new(ps, F_NOT, expression(ps), NULL));
			else
				f = node_new(ps, is_and ? F_AND : F_OR, f, term(ps));
		}
	}
	ps->depth--;
	return f;
}

int filter_parse(
	struct arena *a, int class_id, const char *expr, struct filter **out, struct err *err)
{
	struct parser ps = { .arena = a, .class_id = class_id, .p = expr };

	if (strlen(expr) > FILTER_TEXT_MAX)
		return err_set(err, ERR_INVALID_VALUE, "expr", "too long", NULL);
	*out = expression(&ps);
	blank(&ps);
	if (ps.bad || *ps.p != 0)
		return err_set(err, ERR_INVALID_VALUE, expr,
			"Expected: field \"name\"=\"text\", not, and, or, parentheses", NULL);
	return 0;
}

static void operand_text(struct buf *b, const struct operand *o, const struct db_view *view,
	const struct db_row *row)
{
	struct arena a;
	struct val v;

	if (o->field == -1) {
		buf_puts(b, o->text);
	} else if (o->field == -2) {
		buf_puts(b, db_row_ref(row));
	} else {
		arena_init(&a);
		v = pool_field(view, row, o->field, &a);
		val_text(b, &v);
		arena_fini(&a);
	}
}

bool filter_matches(const struct filter *f, const struct db_view *view, const struct db_row *row)
{
	struct buf left = { 0 }, right = { 0 };
	bool same;

	switch (f->node) {
	case F_TRUE: return true;
	case F_FALSE: return false;
	case F_NOT: return !filter_matches(f->a, view, row);
	case F_AND: return filter_matches(f->a, view, row) && filter_matches(f->b, view, row);
	case F_OR: return filter_matches(f->a, view, row) || filter_matches(f->b, view, row);
	case F_EQUAL: break;
	}
	operand_text(&left, &f->left, view, row);
	operand_text(&right, &f->right, view, row);
	same = strcmp(buf_text(&left), buf_text(&right)) == 0;
	buf_fini(&left);
	buf_fini(&right);
	return same;
}
