/* The generated families, for every class: X-list, X-param-list, -get, -set, -add, -remove, -clear;
 * and the choice of objects by filters. Nothing here knows a class. Source: cli.md 3.3 to 3.5. */
#include "pool/cli_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_GAP = 4 };

/* Choosing. */

/* "field=value", "map:key=value", "map-key=value", "set:contains=value" */
struct condition {
	const struct cli_field *field;
	const char *key; /* of a map; NULL: the whole value */
	bool contains;
	bool differs; /* holds when it is something else */
	const char *value;
};

/* The field that a name begins with, ended by ":" or, as in old days, "-"; the longest one. */
static const struct cli_field *map_field(
	const struct cli_field *fields, unsigned n, const char *name, const char **key_out)
{
	const struct cli_field *found = NULL;
	size_t most = 0, len;

	for (unsigned i = 0; i < n; i++) {
		len = strlen(fields[i].name);
		if (fields[i].kind != CLI_SCALAR && len > most &&
			strncmp(fields[i].name, name, len) == 0 &&
			(name[len] == ':' || (name[len] == '-' && fields[i].kind == CLI_MAP)) &&
			name[len + 1] != 0) {
			found = &fields[i];
			most = len;
		}
	}
	if (found != NULL)
		*key_out = name + most + 1;
	return found;
}

static bool condition_of(const struct cli_field *fields, unsigned n, const char *name,
	const char *value, struct condition *out)
{
	*out = (struct condition){ .value = value };
	out->field = cli_field_find(fields, n, name, strlen(name));
	if (out->field != NULL)
		return true;
	out->field = map_field(fields, n, name, &out->key);
	if (out->field != NULL && out->field->kind == CLI_SET) {
		out->contains = strcmp(out->key, "contains") == 0;
		return out->contains;
	}
	return out->field != NULL;
}

/* Values that people write in any case: uuids, states and the like. */
static bool any_case(const struct cli_field *f)
{
	const struct model_field *m =
		&model_classes[f->class_id[f->n - 1]].fields[f->field[f->n - 1]];

	return m->type->kind == MODEL_ENUM || m->type->kind == MODEL_REF ||
	       m->type->kind == MODEL_BOOL || strcmp(f->name, "uuid") == 0;
}

static bool item_matches(const struct cli_field *f, const char *text, const char *value)
{
	size_t n = strlen(value);

	(void)f;
	for (const char *p = text; (p = strstr(p, value)) != NULL; p++)
		if ((p == text || (p - text >= 2 && p[-2] == ';' && p[-1] == ' ')) &&
			(p[n] == 0 || p[n] == ';'))
			return true;
	return false;
}

static bool condition_holds(const struct condition *c, const struct db_view *view,
	const struct db_row *row, struct arena *a)
{
	struct val v;
	const struct val *at;
	const char *text;

	if (c->key != NULL && !c->contains) {
		v = cli_field_value(c->field, view, row, a);
		at = v.kind == VAL_MAP ? val_get(&v, c->key) : NULL;
		if (at == NULL)
			return false;
		if (at->kind == VAL_STRING)
			return strcmp(at->s, c->value) == 0;
	}
	text = cli_field_text(c->field, view, row, a);
	if (c->contains)
		return item_matches(c->field, text, c->value);
	return (any_case(c->field) ? strcasecmp : strcmp)(text, c->value) == 0;
}

struct query {
	struct condition *conditions;
	unsigned n;
	const char *self; /* uuid or name; NULL: any */
};

static int query_of(struct cli *cli, const struct cli_class *c, const char *self,
	const char *implied, struct query *out)
{
	struct cli_field *fields;
	unsigned n = cli_fields(c, cli->arena, &fields), most = cli->n_params + 8;
	char *words = arena_strdup(cli->arena, implied), *word, *equal;

	*out = (struct query){ .conditions =
				       arena_alloc(cli->arena, most * sizeof *out->conditions) };
	for (unsigned i = 0; i < cli->n_params; i++) {
		struct cli_param *p = &cli->params[i];

		if (self != NULL && strcmp(p->name, self) == 0) {
			out->self = p->value;
			p->used = true;
			continue;
		}
		if (cli_param_standard(p->name) || p->used)
			continue;
		if (condition_of(fields, n, p->name, p->value, &out->conditions[out->n])) {
			if (cli->differs && strncmp(p->value, "/=", 2) == 0) {
				out->conditions[out->n].differs = true;
				out->conditions[out->n].value += 2;
			}
			out->n++;
			p->used = true;
		} else if (self == NULL) {
			return cli_fail(cli, "Unknown field '%s'", p->name);
		} else {
			return cli_fail(cli,
				"Parameter '%s' is not a field of the %s class. Failed to select "
				"%s for "
				"operation.",
				p->name, model_classes[c->class_id].name,
				model_classes[c->class_id].name);
		}
	}
	/* what is implied holds unless it is asked for otherwise */
	while ((word = strsep(&words, " ")) != NULL && out->n < most) {
		bool given = false;

		equal = strchr(word, '=');
		if (equal == NULL)
			continue;
		*equal = 0;
		for (unsigned i = 0; i < out->n; i++)
			given |= strcmp(out->conditions[i].field->name, word) == 0;
		if (!given && condition_of(fields, n, word, equal + 1, &out->conditions[out->n])) {
			out->conditions[out->n].differs = strncmp(equal + 1, "/=", 2) == 0;
			out->conditions[out->n].value += out->conditions[out->n].differs ? 2 : 0;
			out->n++;
		}
	}
	return 0;
}

static bool query_matches(const struct query *q, const struct cli_class *c,
	const struct db_view *view, const struct db_row *row)
{
	const struct model_class *m = &model_classes[c->class_id];
	struct arena a;
	bool ok = q->self == NULL ||
		  (m->uuid_field >= 0 && strcasecmp(db_row_s(row, m->uuid_field), q->self) == 0) ||
		  (m->label_field >= 0 && strcmp(db_row_s(row, m->label_field), q->self) == 0);

	arena_init(&a);
	for (unsigned i = 0; i < q->n && ok; i++)
		ok = condition_holds(&q->conditions[i], view, row, &a) != q->conditions[i].differs;
	arena_fini(&a);
	return ok;
}

int cli_select(struct cli *cli, const struct cli_class *c, const char *self, const char *implied,
	struct cli_selection *out)
{
	const struct db_row *row;
	struct db_cursor cursor;
	struct db_view view;
	struct query q;
	unsigned most;
	int rc = query_of(cli, c, self, implied, &q);

	*out = (struct cli_selection){ 0 };
	if (rc != 0)
		return rc;
	cli_view(cli, &view);
	most = (unsigned)db_view_count(&view, c->class_id);
	if (model_classes[c->class_id].table == MODEL_TABLE_FIXED)
		most += model_n_permissions;
	out->refs = arena_alloc(cli->arena, (most + 1) * sizeof *out->refs);
	cursor = db_rows(&view, c->class_id);
	while ((row = db_next(&cursor)) != NULL && out->n < most)
		if (query_matches(&q, c, &view, row))
			out->refs[out->n++] = arena_strdup(cli->arena, db_row_ref(row));
	db_view_unpin(&view);
	return 0;
}

/* Showing. */

/* A field may be shown to those who may read it. */
static bool may_read(struct cli *cli, const struct cli_field *f)
{
	const struct caller *caller = &cli->call->caller;
	const struct model_message *m;

	for (unsigned i = 0; i < f->n && !caller->superuser; i++) {
		m = model_message_find(
			arena_printf(cli->arena, "%s.get_%s", model_classes[f->class_id[i]].name,
				model_classes[f->class_id[i]].fields[f->field[i]].name));
		if (m != NULL && !roles_permit(caller->roles, m->role, m->client_cert))
			return false;
	}
	return true;
}

/* The fields of a list "a,b c", in the order of the class; all of them for "all". */
static int chosen(struct cli *cli, const struct cli_class *c, const char *params,
	struct cli_field **out, unsigned *n_out)
{
	struct cli_field *all;
	unsigned n = cli_fields(c, cli->arena, &all);
	bool *wanted = arena_alloc(cli->arena, n + 1);
	char *words = arena_strdup(cli->arena, params), *word;
	const struct cli_field *f;
	bool every = *params == 0 || strcmp(params, "all") == 0;

	while (!every && (word = strsep(&words, ", ")) != NULL) {
		if (*word == 0)
			continue;
		f = cli_field_find(all, n, word, strlen(word));
		if (f == NULL)
			return cli_fail(cli, "Unknown field '%s'", word);
		wanted[f - all] = true;
	}
	*out = arena_alloc(cli->arena, (n + 1) * sizeof **out);
	*n_out = 0;
	for (unsigned i = 0; i < n; i++)
		if (every || wanted[i])
			(*out)[(*n_out)++] = all[i];
	return 0;
}

/* One block: the first label padded on the right, the others on the left. */
static void block(struct cli *cli, const struct cli_field *fields, unsigned n,
	const struct db_view *view, const struct db_row *row)
{
	struct buf text = { 0 };
	size_t width = 0, len;
	struct arena a;

	arena_init(&a);
	for (unsigned i = 0; i < n; i++) {
		len = strlen(fields[i].name) + strlen(cli_field_rights(&fields[i]));
		width = len > width ? len : width;
	}
	width += LABEL_GAP;
	for (unsigned i = 0; i < n; i++) {
		char label[160];

		snprintf(label, sizeof label, "%s%s", fields[i].name, cli_field_rights(&fields[i]));
		buf_printf(&text, i == 0 ? "%-*s: " : "%*s: ", (int)width, label);
		buf_puts(&text, may_read(cli, &fields[i])
					? cli_field_text(&fields[i], view, row, &a)
					: "<not permitted>");
		buf_puts(&text, "\n");
	}
	buf_puts(&text, "\n");
	cli_print(cli, buf_text(&text));
	buf_fini(&text);
	arena_fini(&a);
}

static void object(struct cli *cli, const struct cli_field *fields, unsigned n,
	const struct db_view *view, const struct db_row *row)
{
	struct buf text = { 0 };
	struct arena a;

	arena_init(&a);
	buf_puts(&text, cli->json_any ? ",{" : "{");
	cli->json_any = true;
	for (unsigned i = 0; i < n; i++) {
		buf_puts(&text, i > 0 ? "," : "");
		val_json_text(&text, fields[i].name);
		buf_puts(&text, ":");
		if (may_read(cli, &fields[i]))
			cli_field_json(&text, &fields[i], view, row, &a);
		else
			buf_puts(&text, "null");
	}
	buf_puts(&text, "}");
	cli_print(cli, buf_text(&text));
	buf_fini(&text);
	arena_fini(&a);
}

/* Objects of the selection from `at` on, until enough is there to be sent. */
static unsigned show_some(struct cli *cli, const struct cli_class *c,
	const struct cli_field *fields, unsigned n, const struct cli_selection *objects,
	unsigned at)
{
	const struct db_row *row;
	struct db_view view;
	struct arena a;

	cli_view(cli, &view);
	for (; at < objects->n && cli->out.len < CLI_FLUSH_AT; at++) {
		row = db_view_get(&view, c->class_id, objects->refs[at]);
		if (row == NULL)
			continue; /* gone since */
		if (cli->json) {
			object(cli, fields, n, &view, row);
			continue;
		}
		if (!cli->minimal) {
			block(cli, fields, n, &view, row);
			continue;
		}
		arena_init(&a);
		if (n > 0)
			cli_item(cli, may_read(cli, &fields[0])
					      ? cli_field_text(&fields[0], &view, row, &a)
					      : "<not permitted>");
		arena_fini(&a);
	}
	db_view_unpin(&view);
	return at;
}

int cli_list(struct cli *cli, const struct cli_class *c, const struct cli_selection *objects,
	const char *params)
{
	struct cli_field *fields = NULL;
	unsigned n = 0, at = 0;
	int rc = chosen(cli, c, params != NULL ? params : c->shown, &fields, &n);

	cli->json_any = false;
	if (rc == 0 && cli->json)
		cli_print(cli, "[");
	while (rc == 0 && at < objects->n) {
		at = show_some(cli, c, fields, n, objects, at);
		if (cli->minimal_out.len > CLI_OUTPUT_MAX)
			return cli_fail(cli, "More than %d MiB in one line: use filters",
				CLI_OUTPUT_MAX >> 20);
		if (!cli->minimal)
			rc = cli_flush(cli);
	}
	if (rc == 0 && cli->json)
		cli_print(cli, "]");
	return rc;
}

/* The commands. */

static int list(struct cli *cli, const struct cli_class *c, struct err *err)
{
	const char *params = cli_get(cli, "params");
	struct cli_selection objects;
	int rc = cli_select(cli, c, NULL, c->filter, &objects);

	(void)err;
	return rc != 0 ? rc : cli_list(cli, c, &objects, params);
}

/* The object of uuid=. */
static int subject(
	struct cli *cli, const struct cli_class *c, const char **ref_out, struct err *err)
{
	const char *uuid = cli_get(cli, "uuid");
	const struct db_row *row = NULL;
	struct db_view view;

	if (uuid == NULL)
		return cli_fail(cli, "Required parameter not found: uuid");
	cli_view(cli, &view);
	if (model_classes[c->class_id].uuid_field >= 0)
		row = db_view_by_uuid(&view, c->class_id, uuid);
	if (row != NULL)
		*ref_out = arena_strdup(cli->arena, db_row_ref(row));
	db_view_unpin(&view);
	if (row == NULL)
		return err_set(err, ERR_UUID_INVALID, model_classes[c->class_id].name, uuid, NULL);
	return 0;
}

static int param_list(struct cli *cli, const struct cli_class *c, const char *ref)
{
	struct cli_selection one = { &ref, 1 };

	return cli_list(cli, c, &one, "all");
}

/* The field of param-name=, which may be "map:key" where a key is allowed. */
static int named(struct cli *cli, const struct cli_class *c, struct cli_field *out)
{
	const char *name = cli_get(cli, "param-name");
	const struct cli_field *f;
	struct cli_field *fields;
	unsigned n;

	if (name == NULL)
		return cli_fail(cli, "Required parameter not found: param-name");
	n = cli_fields(c, cli->arena, &fields);
	f = cli_field_find(fields, n, name, strlen(name));
	if (f == NULL)
		return cli_fail(cli, "Unknown field '%s'", name);
	*out = *f;
	return 0;
}

static const struct model_type *type_of(const struct cli_field *f)
{
	return model_classes[f->class_id[f->n - 1]].fields[f->field[f->n - 1]].type;
}

static int param_get(struct cli *cli, const struct cli_class *c, const char *ref)
{
	const char *key = cli_get(cli, "param-key"), *text = NULL;
	const struct db_row *row;
	struct db_view view;
	struct cli_field f;
	struct val v;
	int rc = named(cli, c, &f);

	if (rc != 0)
		return rc;
	if (key != NULL && f.kind == CLI_SCALAR)
		return cli_fail(cli, "Field '%s' has no keys", f.name);
	if (!may_read(cli, &f))
		return cli_fail(cli, "Your roles do not permit reading '%s'", f.name);
	cli_view(cli, &view);
	row = db_view_get(&view, c->class_id, ref);
	if (row != NULL && key == NULL) {
		text = cli_field_text(&f, &view, row, cli->arena);
	} else if (row != NULL) {
		v = cli_field_value(&f, &view, row, cli->arena);
		if (v.kind == VAL_SET && val_set_has(&v, key))
			text = arena_strdup(cli->arena, key);
		else if (v.kind == VAL_MAP && val_get(&v, key) != NULL) {
			struct buf b = { 0 };

			val_text(&b, val_get(&v, key));
			text = arena_strdup(cli->arena, buf_text(&b));
			buf_fini(&b);
		}
	}
	db_view_unpin(&view);
	if (text == NULL)
		return cli_fail(cli, "Key %s not found in %s", key != NULL ? key : "", f.name);
	cli_item(cli, text);
	return 0;
}

/* A call (object, value...) of the message that does `verb` to the field. */
static int write_field(struct cli *cli, const struct cli_field *f, const char *verb,
	const char *ref, const struct val *values, unsigned n, struct err *err)
{
	const struct model_message *m = cli_field_message(f, verb, cli->arena);
	struct val args[8] = { val_string(ref) };

	if (m == NULL || m->n_params < n + 1 || m->n_params > ARRAY_LEN(args))
		return cli_fail(cli, "Field '%s' is read-only", f->name);
	for (unsigned i = 1; i < m->n_params; i++)
		args[i] = i <= n ? values[i - 1] : m->params[i].initial;
	return cli_call(cli, m, args, &args[0], err);
}

static int set_key(struct cli *cli, const struct cli_field *f, const char *ref, const char *key,
	const char *text, struct err *err)
{
	struct val values[2] = { val_string(key) };
	int rc = cli_value(cli, type_of(f)->item, f->name, text, &values[1], err);

	if (rc == 0 && cli_field_message(f, "add_to", cli->arena) == NULL)
		return cli_fail(cli, "Field '%s' is read-only", f->name);
	if (rc == 0)
		rc = write_field(cli, f, "remove_from", ref, values, 1, err);
	if (rc == 0)
		rc = write_field(cli, f, "add_to", ref, values, 2, err);
	return rc;
}

static int set_one(struct cli *cli, const struct cli_field *fields, unsigned n, const char *ref,
	struct cli_param *p, struct err *err)
{
	const struct cli_field *f = cli_field_find(fields, n, p->name, strlen(p->name));
	const char *key = NULL;
	struct val value;
	int rc;

	p->used = true;
	if (f == NULL) {
		f = map_field(fields, n, p->name, &key);
		if (f == NULL || f->kind != CLI_MAP)
			return cli_fail(cli, "Unknown field '%s'", p->name);
		return set_key(cli, f, ref, key, p->value, err);
	}
	if (f->kind == CLI_SET)
		return cli_fail(cli,
			"Cannot param-set on set fields: use param-add and "
			"param-remove for '%s'",
			f->name);
	if (f->kind == CLI_MAP)
		return cli_fail(cli, "Field '%s' is a map: use %s:KEY=VALUE", f->name, f->name);
	rc = cli_value(cli, type_of(f), f->name, p->value, &value, err);
	return rc != 0 ? rc : write_field(cli, f, "set", ref, &value, 1, err);
}

static int param_set(struct cli *cli, const struct cli_class *c, const char *ref, struct err *err)
{
	struct cli_field *fields;
	unsigned n = cli_fields(c, cli->arena, &fields), given = 0;
	int rc = 0;

	for (unsigned i = 0; i < cli->n_params && rc == 0; i++)
		if (!cli_param_standard(cli->params[i].name) &&
			strcmp(cli->params[i].name, "uuid") != 0) {
			given++;
			rc = set_one(cli, fields, n, ref, &cli->params[i], err);
		}
	return rc != 0 || given > 0 ? rc : cli_fail(cli, "Nothing to set: give FIELD=VALUE");
}

static int param_add(struct cli *cli, const struct cli_class *c, const char *ref, struct err *err)
{
	const char *key = cli_get(cli, "param-key");
	struct cli_field f;
	struct val values[2];
	unsigned given = 0;
	int rc = named(cli, c, &f);

	if (rc != 0)
		return rc;
	if (f.kind == CLI_SCALAR)
		return cli_fail(cli, "Can only add to sets and maps: '%s' is neither", f.name);
	if (f.kind == CLI_SET) {
		if (key == NULL)
			return cli_fail(cli, "Required parameter not found: param-key");
		rc = cli_value(cli, type_of(&f)->item, f.name, key, &values[0], err);
		return rc != 0 ? rc : write_field(cli, &f, "add", ref, values, 1, err);
	}
	for (unsigned i = 0; i < cli->n_params && rc == 0; i++) {
		struct cli_param *p = &cli->params[i];

		if (p->used || cli_param_standard(p->name) || strcmp(p->name, "uuid") == 0)
			continue;
		p->used = true;
		given++;
		values[0] = val_string(p->name);
		rc = cli_value(cli, type_of(&f)->item, f.name, p->value, &values[1], err);
		if (rc == 0)
			rc = write_field(cli, &f, "add_to", ref, values, 2, err);
	}
	return rc != 0 || given > 0 ? rc : cli_fail(cli, "Nothing to add: give KEY=VALUE");
}

static int param_remove(
	struct cli *cli, const struct cli_class *c, const char *ref, struct err *err)
{
	const char *key = cli_get(cli, "param-key");
	struct cli_field f;
	struct val value;
	int rc = named(cli, c, &f);

	if (rc == 0 && key == NULL)
		return cli_fail(cli, "Required parameter not found: param-key");
	if (rc == 0 && f.kind == CLI_SCALAR)
		return cli_fail(cli, "Can only remove from sets and maps: '%s' is neither", f.name);
	if (rc == 0 && f.kind == CLI_SET) {
		rc = cli_value(cli, type_of(&f)->item, f.name, key, &value, err);
		return rc != 0 ? rc : write_field(cli, &f, "remove", ref, &value, 1, err);
	}
	value = val_string(key);
	return rc != 0 ? rc : write_field(cli, &f, "remove_from", ref, &value, 1, err);
}

static int param_clear(struct cli *cli, const struct cli_class *c, const char *ref, struct err *err)
{
	struct cli_field f;
	struct val value;
	int rc = named(cli, c, &f);

	if (rc != 0)
		return rc;
	switch (type_of(&f)->kind) {
	case MODEL_SET: value = val_set(); break;
	case MODEL_MAP: value = val_map(); break;
	case MODEL_STRING: value = val_string(""); break;
	case MODEL_REF: value = val_string(NULL_REF); break;
	default: return cli_fail(cli, "Field '%s' cannot be cleared", f.name);
	}
	return write_field(cli, &f, "set", ref, &value, 1, err);
}

const char *const cli_verbs[] = { "list", "param-list", "param-get", "param-set", "param-add",
	"param-remove", "param-clear", NULL };

bool cli_generated(const char *command, const struct cli_class **class_out, const char **verb_out)
{
	size_t n = strlen(command), len;

	for (unsigned i = 0; cli_verbs[i] != NULL; i++) {
		len = strlen(cli_verbs[i]);
		if (n <= len + 1 || command[n - len - 1] != '-' ||
			strcmp(command + n - len, cli_verbs[i]) != 0)
			continue;
		*class_out = cli_class_find(command, n - len - 1);
		*verb_out = cli_verbs[i];
		if (*class_out != NULL && cli_generated_help(*class_out, cli_verbs[i]) != NULL)
			return true;
	}
	return false;
}

const struct cli_help *cli_generated_help(const struct cli_class *c, const char *verb)
{
	static const struct cli_help helps[] = {
		{ "", "params", "Lists the objects, chosen by the values of their fields." },
		{ "uuid", "", "Lists all fields of one object." },
		{ "uuid, param-name", "param-key",
			"Prints one field of an object; of a map, or a set, one key." },
		{ "uuid", "",
			"Sets fields of an object: FIELD=VALUE; one key of a map: "
			"FIELD:KEY=VALUE." },
		{ "uuid, param-name", "param-key",
			"Adds to a set (param-key=VALUE) or to a map (KEY=VALUE)." },
		{ "uuid, param-name, param-key", "",
			"Removes a value from a set, a key from a map." },
		{ "uuid, param-name", "", "Empties a set or map, or a text or reference." },
	};
	bool scalar = false, many = false;
	struct cli_field *fields;
	struct arena a;
	unsigned n, at = 0;

	while (strcmp(cli_verbs[at], verb) != 0)
		at++;
	if (at < 3)
		return &helps[at];
	arena_init(&a);
	n = cli_fields(c, &a, &fields);
	for (unsigned i = 0; i < n; i++) {
		scalar |= fields[i].writable && fields[i].kind != CLI_SET;
		many |= fields[i].writable && fields[i].kind != CLI_SCALAR;
	}
	arena_fini(&a);
	return at == 3	? (scalar ? &helps[3] : NULL)
	       : at < 6 ? (many ? &helps[at] : NULL)
			: (scalar || many ? &helps[6] : NULL);
}

int cli_generated_run(struct cli *cli, const struct cli_class *c, const char *verb, struct err *err)
{
	const char *ref = NULL;
	int rc;

	if (strcmp(verb, "list") == 0)
		return list(cli, c, err);
	rc = subject(cli, c, &ref, err);
	if (rc != 0)
		return rc;
	verb += strlen("param-");
	if (strcmp(verb, "list") == 0)
		return param_list(cli, c, ref);
	if (strcmp(verb, "get") == 0)
		return param_get(cli, c, ref);
	if (strcmp(verb, "set") == 0)
		return param_set(cli, c, ref, err);
	if (strcmp(verb, "add") == 0)
		return param_add(cli, c, ref, err);
	if (strcmp(verb, "remove") == 0)
		return param_remove(cli, c, ref, err);
	return param_clear(cli, c, ref, err);
}
