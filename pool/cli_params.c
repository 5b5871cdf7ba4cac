/* What the client gave: the command and its parameters, and their values in the types of the API.
 * Source: cli.md 3.1. */
#include "pool/cli_priv.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const standard[] = { "server", "password", "port", "username", "minimal",
	"force", "multiple", "all", "message-priority", "trace", "progress", "params", "json" };

bool cli_param_standard(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(standard); i++)
		if (strcmp(standard[i], name) == 0)
			return true;
	return false;
}

/* -x VALUE, for clients that pass these on. */
static const char *switch_name(const char *word)
{
	static const char *const names[][2] = { { "-u", "username" }, { "-pw", "password" },
		{ "-s", "server" }, { "-h", "server" }, { "-p", "port" } };

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(word, names[i][0]) == 0)
			return names[i][1];
	return NULL;
}

static bool put(struct cli *cli, const char *name, const char *value)
{
	if (cli->n_params == CLI_PARAMS_MAX)
		return false;
	cli->params[cli->n_params++] = (struct cli_param){ name, value, false };
	return true;
}

static bool put_word(struct cli *cli, char *word, char **next)
{
	char *equal = strchr(word, '=');

	if (strncmp(word, "--", 2) == 0) {
		word += 2;
		if (equal == NULL)
			return put(cli, word, "true");
	} else if (word[0] == '-' && switch_name(word) != NULL && *next != NULL) {
		char *value = strsep(next, "\n");

		return put(cli, switch_name(word), value);
	}
	if (equal == NULL)
		return put(cli, word, "true"); /* nobody asks for it: the user is told */
	*equal = 0;
	return put(cli, word, equal + 1);
}

int cli_params_parse(struct cli *cli, char *text)
{
	char *next = text, *word;

	cli->params = arena_alloc(cli->arena, CLI_PARAMS_MAX * sizeof *cli->params);
	while (next != NULL && (word = strsep(&next, "\n")) != NULL) {
		if (!val_text_ok(word))
			return cli_fail(cli, "Syntax error: a parameter is no text in UTF-8");
		if (*word == 0)
			continue;
		if (cli->command == NULL && *word != '-')
			cli->command = word;
		else if (!put_word(cli, word, &next))
			return cli_fail(cli, "Syntax error: too many parameters");
	}
	cli->minimal = cli_get_bool(cli, "minimal");
	cli->multiple = cli_get_bool(cli, "multiple");
	cli->progress = cli_get_bool(cli, "progress");
	cli->json = cli_get_bool(cli, "json");
	cli->trace = cli_get_bool(cli, "trace");
	if (cli->command == NULL)
		return cli_fail(
			cli, "Syntax error: command name is missing\nFor usage run: 'xe help'");
	return 0;
}

const char *cli_get(struct cli *cli, const char *name)
{
	const char *found = NULL;

	for (unsigned i = 0; i < cli->n_params; i++)
		if (strcmp(cli->params[i].name, name) == 0) {
			cli->params[i].used = true;
			found = cli->params[i].value;
		}
	return found;
}

static bool is_true(const char *text)
{
	return strcasecmp(text, "true") == 0 || strcasecmp(text, "yes") == 0 ||
	       strcmp(text, "1") == 0 || strcasecmp(text, "t") == 0 || strcasecmp(text, "y") == 0;
}

static bool is_false(const char *text)
{
	return strcasecmp(text, "false") == 0 || strcasecmp(text, "no") == 0 ||
	       strcmp(text, "0") == 0 || strcasecmp(text, "f") == 0 || strcasecmp(text, "n") == 0;
}

bool cli_get_bool(struct cli *cli, const char *name)
{
	const char *text = cli_get(cli, name);

	return text != NULL && is_true(text);
}

struct val cli_get_map(struct cli *cli, const char *name)
{
	size_t n = strlen(name);
	struct val map = val_map();

	for (unsigned i = 0; i < cli->n_params; i++) {
		struct cli_param *p = &cli->params[i];

		if (strncmp(p->name, name, n) == 0 && p->name[n] == ':' && p->name[n + 1] != 0) {
			p->used = true;
			val_map_push(cli->arena, &map, p->name + n + 1, val_string(p->value));
		}
	}
	return map;
}

void cli_params_warn(struct cli *cli)
{
	for (unsigned i = 0; i < cli->n_params; i++)
		if (!cli->params[i].used && !cli_param_standard(cli->params[i].name))
			cli_stderr(cli, "Parameter '%s' means nothing to %s and was ignored\n",
				cli->params[i].name, cli->command);
}

/* 10, 512MiB, 1GiB ... */
static bool number(const char *text, int64_t *out)
{
	static const struct {
		const char *suffix;
		unsigned shift;
	} units[] = { { "", 0 }, { "B", 0 }, { "bytes", 0 }, { "KiB", 10 }, { "MiB", 20 },
		{ "GiB", 30 }, { "TiB", 40 } };
	char *end;
	long long n;

	errno = 0;
	n = strtoll(text, &end, 10);
	if (end == text || errno != 0)
		return false;
	while (*end == ' ')
		end++;
	for (unsigned i = 0; i < ARRAY_LEN(units); i++)
		if (strcasecmp(end, units[i].suffix) == 0)
			return !__builtin_mul_overflow(n, (int64_t)1 << units[i].shift, out);
	return false;
}

const struct db_row *cli_object(const struct db_view *view, int class_id, const char *text)
{
	const struct model_class *c = &model_classes[class_id];
	const struct db_row *row = NULL, *next;
	struct db_cursor cursor;

	if (c->uuid_field >= 0)
		row = db_view_by_uuid(view, class_id, text);
	if (row != NULL || c->label_field < 0)
		return row;
	cursor = db_rows_with_label(view, class_id, text);
	while ((next = db_next(&cursor)) != NULL) {
		if (strcmp(db_row_s(next, c->label_field), text) != 0)
			continue;
		if (row != NULL)
			return NULL;
		row = next;
	}
	return row;
}

static int reference(struct cli *cli, const struct model_type *type, const char *text,
	struct val *out, struct err *err)
{
	const struct db_row *row;
	struct db_view view;

	if (*text == 0 || strcmp(text, "null") == 0 || strcmp(text, "<not in database>") == 0 ||
		strcmp(text, NULL_REF) == 0) {
		*out = val_string(NULL_REF);
		return 0;
	}
	cli_view(cli, &view);
	row = cli_object(&view, type->class_id, text);
	if (row != NULL)
		*out = val_string(arena_strdup(cli->arena, db_row_ref(row)));
	db_view_unpin(&view);
	return row != NULL ? 0
			   : err_set(err, ERR_UUID_INVALID, model_classes[type->class_id].name,
				     text, NULL);
}

/* a,b;c: a set; k:v or k=v in it: a map */
static int collection(struct cli *cli, const struct model_type *type, const char *name,
	const char *text, struct val *out, struct err *err)
{
	char *copy = arena_strdup(cli->arena, text), *item, *value;
	struct val one;
	int rc = 0;

	*out = type->kind == MODEL_SET ? val_set() : val_map();
	while (rc == 0 && copy != NULL && (item = strsep(&copy, ",;")) != NULL) {
		item += strspn(item, " ");
		if (*item == 0)
			continue;
		value = item;
		if (type->kind == MODEL_MAP) {
			value = item + strcspn(item, ":=");
			if (*value == 0)
				return cli_fail(cli, "Parameter %s needs key=value", name);
			*value++ = 0;
			value += strspn(value, " ");
		}
		rc = cli_value(cli, type->item, name, value, &one, err);
		if (rc == 0 && type->kind == MODEL_SET)
			val_set_push(cli->arena, out, one);
		else if (rc == 0)
			val_map_push(cli->arena, out, item, one);
	}
	return rc;
}

int cli_value(struct cli *cli, const struct model_type *type, const char *name, const char *text,
	struct val *out, struct err *err)
{
	const char *word;
	int64_t i;
	char *end;
	double f;

	switch (type->kind) {
	case MODEL_STRING:
	case MODEL_SECRET: *out = val_string(text); return 0;
	case MODEL_INT:
		if (!number(text, &i))
			return cli_fail(cli,
				"Parameter %s must be an integer (with B, KiB, MiB, GiB or "
				"TiB behind it for a size)",
				name);
		*out = val_int(i);
		return 0;
	case MODEL_FLOAT:
		f = strtod(text, &end);
		if (end == text || *end != 0 || !isfinite(f))
			return cli_fail(cli, "Parameter %s must be a number", name);
		*out = val_float(f);
		return 0;
	case MODEL_BOOL:
		if (!is_true(text) && !is_false(text))
			return cli_fail(cli, "Parameter %s must be true or false", name);
		*out = val_bool(is_true(text));
		return 0;
	case MODEL_DATETIME:
		if (!val_datetime_parse(text, &i))
			return cli_fail(
				cli, "Parameter %s must be a date, as 20260821T02:00:23Z", name);
		*out = val_datetime(i);
		return 0;
	case MODEL_ENUM:
		word = model_enum_value(type->enum_id, text);
		if (word == NULL) {
			struct buf all = { 0 };
			int rc;

			for (unsigned k = 0; model_enums[type->enum_id].values[k] != NULL; k++)
				buf_printf(&all, "%s%s", k > 0 ? ", " : "",
					model_enums[type->enum_id].values[k]);
			rc = cli_fail(cli, "Parameter %s must be one of: %s", name, buf_text(&all));
			buf_fini(&all);
			return rc;
		}
		*out = val_string(word);
		return 0;
	case MODEL_REF: return reference(cli, type, text, out, err);
	case MODEL_SET:
	case MODEL_MAP: return collection(cli, type, name, text, out, err);
	case MODEL_VOID:
	case MODEL_RECORD:
	case MODEL_OPTION:
	case MODEL_FREE: break;
	}
	return cli_fail(cli, "Parameter %s cannot be given on the command line", name);
}
