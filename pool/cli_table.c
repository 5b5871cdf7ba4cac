/* Commands as rows of a table: parameters into the arguments of a message, the objects that a
 * command is for, results, help. Source: cli.md 3.1, 3.5, 3.8. */
#include "pool/cli_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Words. */

struct word {
	const char *name, *other; /* other: of "a|b" */
	const char *fallback;	  /* of "name?=v" */
	const char *field;	  /* of "name>field", or what follows from the name */
	bool optional, map, file, extra, object, pool, host, nothing;
};

static struct word word_of(char *text, struct arena *a)
{
	struct word w = { 0 };
	char *at = strchr(text, '>');

	if (at != NULL) {
		*at = 0;
		w.field = at + 1;
	}
	w.extra = *text == '+';
	text += w.extra;
	w.file = *text == '<';
	text += w.file;
	w.object = strcmp(text, "@") == 0;
	w.pool = strcmp(text, "%pool") == 0;
	w.host = strcmp(text, "%host") == 0;
	w.nothing = strcmp(text, "-") == 0;
	at = strchr(text, '?');
	if (at != NULL) {
		w.optional = true;
		w.fallback = at[1] == '=' ? at + 2 : NULL;
		*at = 0;
	}
	at = strchr(text, '|');
	if (at != NULL) {
		*at = 0;
		w.other = at + 1;
	}
	at = text + strlen(text);
	if (at > text && at[-1] == ':') {
		at[-1] = 0;
		w.map = w.optional = true;
	}
	w.name = text;
	if (w.field == NULL) {
		char *field = arena_strdup(a, text);

		for (char *c = field; *c; c++)
			*c = *c == '-' ? '_' : *c;
		w.field = field;
	}
	return w;
}

static unsigned words_of(const struct cli_command *command, struct arena *a, struct word *out)
{
	char *text = arena_strdup(a, command->args), *one;
	unsigned n = 0;

	while ((one = strsep(&text, " ")) != NULL && n < CLI_WORDS_MAX)
		if (*one != 0)
			out[n++] = word_of(one, a);
	return n;
}

static bool is_given(const struct word *w)
{
	return !(w->object || w->pool || w->host || w->nothing);
}

/* The message: the one behind the bar when it is forced. */
static const struct model_message *message_of(
	const struct cli_command *command, bool force, struct arena *a)
{
	char *text, *bar;

	if (command->message == NULL)
		return NULL;
	text = arena_strdup(a, command->message);
	bar = strchr(text, '|');
	if (bar != NULL)
		*bar = 0;
	return model_message_find(bar != NULL && force ? bar + 1 : text);
}

/* Arguments. */

static struct val empty_of(const struct model_type *type)
{
	switch (type->kind) {
	case MODEL_STRING:
	case MODEL_SECRET: return val_string("");
	case MODEL_ENUM: return val_string(model_enums[type->enum_id].values[0]);
	case MODEL_REF: return val_string(NULL_REF);
	case MODEL_INT: return val_int(0);
	case MODEL_FLOAT: return val_float(0);
	case MODEL_BOOL: return val_bool(false);
	case MODEL_DATETIME: return val_datetime(0);
	case MODEL_SET: return val_set();
	default: return val_map();
	}
}

static struct val the_pool(struct cli *cli, bool host)
{
	struct db_view view;
	struct db_cursor c;
	const struct db_row *row;
	struct val v;

	cli_view(cli, &view);
	c = db_rows(&view, MODEL_CLASS_pool);
	row = host ? pool_self(cli->pool, &view) : db_next(&c);
	v = val_string(row != NULL ? arena_strdup(cli->arena, db_row_ref(row)) : NULL_REF);
	db_view_unpin(&view);
	return v;
}

static const char *given(struct cli *cli, const struct word *w)
{
	const char *text = cli_get(cli, w->name);

	return text == NULL && w->other != NULL ? cli_get(cli, w->other) : text;
}

/* given_out: false: nobody has said anything. */
static int argument(struct cli *cli, const struct word *w, const struct model_type *type,
	const char *object, struct val *out, bool *given_out, struct err *err)
{
	const char *text;

	*given_out = true;
	if (w->object || w->pool || w->host) {
		*out = w->object ? val_string(object) : the_pool(cli, w->host);
		return 0;
	}
	if (w->map) {
		*out = cli_get_map(cli, w->name);
		*given_out = out->n > 0;
		return 0;
	}
	text = w->nothing ? NULL : given(cli, w);
	if (text == NULL)
		text = w->fallback;
	if (text != NULL && strcmp(text, "%host") == 0) {
		*out = the_pool(cli, true);
		return 0;
	}
	if (text != NULL && *text == 0 && type->kind == MODEL_REF && !w->optional)
		text = NULL; /* of a script that has found nothing */
	if (text != NULL && w->file) {
		int rc = cli_load(cli, text, &text);

		*out = val_string(rc == 0 ? text : "");
		return rc;
	}
	if (text != NULL)
		return cli_value(cli, type, w->name, text, out, err);
	*given_out = false;
	if (w->optional || w->nothing)
		return 0;
	return cli_fail(cli, "Required parameter not found: %s", w->name);
}

/* A record for create: what is given, and something for each field that has no default. */
static struct val record_of(struct cli *cli, int class_id, const struct val *given_fields)
{
	const struct model_class *c = &model_classes[class_id];
	struct val out = val_map();

	for (unsigned i = 0; i < c->n_fields; i++) {
		const struct model_field *f = &c->fields[i];
		const struct val *v = val_get(given_fields, f->name);

		if (f->internal || f->removed || f->qualifier == MODEL_DYNAMIC_RO)
			continue;
		if (v != NULL)
			val_map_push(cli->arena, &out, f->name, *v);
		else if (!f->has_default)
			val_map_push(cli->arena, &out, f->name, empty_of(f->type));
	}
	return out;
}

int cli_create(struct cli *cli, int class_id, const struct val *fields, struct val *result_out,
	struct err *err)
{
	struct val record = record_of(cli, class_id, fields);

	return cli_invoke(cli, arena_printf(cli->arena, "%s.create", model_classes[class_id].name),
		&record, 1, result_out, err);
}

/* The one argument of create, from the words. */
static int record(struct cli *cli, const struct model_message *m, const struct word *words,
	unsigned n, const char *object, struct val *out, struct err *err)
{
	const struct model_class *c = &model_classes[m->class_id];
	struct val fields = val_map(), v;
	bool said;
	int rc = 0;

	for (unsigned i = 0; i < n && rc == 0; i++) {
		int field = words[i].extra ? -1 : model_field_find(m->class_id, words[i].field);

		if (field < 0)
			continue;
		rc = argument(cli, &words[i], c->fields[field].type, object, &v, &said, err);
		if (rc == 0 && said)
			val_map_push(cli->arena, &fields, c->fields[field].name, v);
	}
	*out = record_of(cli, m->class_id, &fields);
	return rc;
}

static bool creates(const struct model_message *m)
{
	return m->call == MODEL_CREATE;
}

static int arguments(struct cli *cli, const struct cli_command *command,
	const struct model_message *m, const char *object, struct val *args, struct err *err)
{
	struct word words[CLI_WORDS_MAX];
	unsigned n = words_of(command, cli->arena, words), at = 0;
	bool said;
	int rc = 0;

	if (creates(m))
		return record(cli, m, words, n, object, &args[0], err);
	for (unsigned i = 0; i < n && at < m->n_params && rc == 0; i++) {
		const struct model_param *p = &m->params[at];

		if (words[i].extra)
			continue;
		rc = argument(cli, &words[i], p->type, object, &args[at], &said, err);
		if (rc == 0 && !said)
			args[at] = p->has_default ? p->initial : empty_of(p->type);
		at++;
	}
	for (; rc == 0 && at < m->n_params; at++)
		args[at] = m->params[at].has_default ? m->params[at].initial
						     : empty_of(m->params[at].type);
	return rc;
}

/* Results. */

const char *cli_uuid(struct cli *cli, int class_id, const char *ref)
{
	const struct db_row *row;
	struct db_view view;
	const char *uuid = "";

	cli_view(cli, &view);
	row = db_view_get(&view, class_id, ref);
	if (row != NULL && model_classes[class_id].uuid_field >= 0)
		uuid = arena_strdup(cli->arena, db_row_s(row, model_classes[class_id].uuid_field));
	db_view_unpin(&view);
	return uuid;
}

static void print(struct cli *cli, const struct model_type *type, const struct val *v)
{
	struct buf text = { 0 };
	struct val key;

	switch (v->kind) {
	case VAL_VOID: return;
	case VAL_STRING:
		cli_item(cli, type->kind == MODEL_REF ? cli_uuid(cli, type->class_id, v->s) : v->s);
		return;
	case VAL_BOOL: cli_item(cli, v->b ? "true" : "false"); return;
	case VAL_SET:
		for (uint32_t i = 0; i < v->n; i++)
			print(cli, type->item != NULL ? type->item : type, &v->items[i]);
		return;
	case VAL_MAP:
		for (uint32_t i = 0; i < v->n; i++) {
			key = val_string(v->pairs[i].key);
			text.len = 0;
			if (type->key != NULL && type->key->kind == MODEL_REF)
				buf_puts(&text, cli_uuid(cli, type->key->class_id, key.s));
			else
				buf_puts(&text, key.s);
			buf_puts(&text, ": ");
			val_text(&text, &v->pairs[i].value);
			cli_item(cli, buf_text(&text));
		}
		buf_fini(&text);
		return;
	default:
		val_text(&text, v);
		cli_item(cli, buf_text(&text));
		buf_fini(&text);
	}
}

int cli_run_message(struct cli *cli, const struct cli_command *command, const char *object,
	struct val *result_out, struct err *err)
{
	const struct model_message *m = message_of(command, cli_get_bool(cli, "force"), cli->arena);
	struct val *args, result;
	int rc;

	if (m == NULL || m->call == MODEL_REMOVED)
		return err_set(err, ERR_NOT_IMPLEMENTED, command->name, NULL);
	args = arena_alloc(cli->arena, (m->n_params + 1) * sizeof *args);
	rc = arguments(cli, command, m, object, args, err);
	if (rc != 0)
		return rc;
	rc = cli_call(cli, m, args, &result, err);
	if (rc == 0 && result_out != NULL)
		*result_out = result;
	else if (rc == 0 && m->result->kind != MODEL_VOID)
		print(cli, m->result, &result);
	return rc;
}

/* Objects. */

static const struct {
	unsigned flag;
	const char *class_name, *self, *implied, *many;
} selectors[] = {
	{ CLI_VM, "vm", "vm", "is-a-template=false is-control-domain=false", "VMs" },
	{ CLI_HOST, "host", "host", "", "hosts" },
	{ CLI_SR, "sr", "sr", "", "SRs" },
};

static int choose(struct cli *cli, unsigned k, struct cli_selection *out)
{
	const struct cli_class *c =
		cli_class_find(selectors[k].class_name, strlen(selectors[k].class_name));
	int rc = cli_select(cli, c, selectors[k].self, selectors[k].implied, out);

	if (rc != 0)
		return rc;
	if (out->n == 0)
		return cli_fail(cli, "No matching %s found", selectors[k].many);
	if (out->n > 1 && !cli->multiple)
		return cli_fail(cli,
			"Multiple matches %s found. --multiple required to complete the operation\n"
			"(%u match)",
			selectors[k].many, out->n);
	return 0;
}

/* The objects that the parameters choose, by the command's selector: one, or several with
 * --multiple. 0 or CLI_FAILED. */
static int choose_objects(
	struct cli *cli, const struct cli_command *command, struct cli_selection *out)
{
	struct word words[CLI_WORDS_MAX];
	unsigned n = words_of(command, cli->arena, words);

	/* the command's own parameters are no filters */
	for (unsigned i = 0; i < n; i++) {
		if (words[i].map)
			cli_get_map(cli, words[i].name);
		else if (is_given(&words[i]))
			given(cli, &words[i]);
	}
	for (unsigned k = 0; k < ARRAY_LEN(selectors); k++)
		if (command->flags & selectors[k].flag)
			return choose(cli, k, out);
	return cli_fail(cli, "No matching objects found");
}

static int run_one(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	if (command->fn != NULL)
		return command->fn(cli, command, object, err);
	return cli_run_message(cli, command, object, NULL, err);
}

/* Each of the objects; what fails is told and the others go on. */
static int run_all(struct cli *cli, const struct cli_command *command,
	const struct cli_selection *objects, int class_id, struct err *err)
{
	int rc = 0, one;

	if (objects->n == 1)
		return run_one(cli, command, objects->refs[0], err);
	for (unsigned i = 0; i < objects->n; i++) {
		one = run_one(cli, command, objects->refs[i], err);
		if (one == ERR_API) {
			cli_stderr(cli, "operation failed on %s: ",
				cli_uuid(cli, class_id, objects->refs[i]));
			cli_say_error(cli, err);
			err_fini(err);
			one = CLI_FAILED;
		}
		if (one < 0)
			return one;
		rc = one != 0 ? one : rc;
	}
	return rc;
}

bool cli_confirmed(struct cli *cli)
{
	struct thin_frame f;
	char *answer;
	int rc;

	if (cli_get_bool(cli, "force"))
		return true;
	cli_frame(cli, &(struct thin_frame){ .kind = THIN_COMMAND,
			       .tag = THIN_PRINT,
			       .text = "Type 'yes' to continue" });
	cli_frame(cli, &(struct thin_frame){ .kind = THIN_COMMAND, .tag = THIN_PROMPT });
	rc = cli_flush(cli);
	if (rc == 0)
		rc = cli_read_frame(cli, &f);
	if (rc != 0 || f.kind != THIN_BLOB || f.tag != THIN_CHUNK || f.number > THIN_ASK_MAX)
		return false;
	answer = arena_alloc(cli->arena, f.number + 1);
	if (f.number > 0 && cli_read(cli, answer, f.number) != 0)
		return false;
	if (cli_read_frame(cli, &f) != 0)
		return false;
	answer[strcspn(answer, "\r\n")] = 0;
	return strcmp(answer, "yes") == 0;
}

static const struct cli_command *command_find(const char *name)
{
	for (unsigned i = 0; i < cli_n_commands; i++)
		if (strcmp(cli_commands[i].name, name) == 0)
			return &cli_commands[i];
	return NULL;
}

static int run_command(struct cli *cli, const struct cli_command *command, struct err *err)
{
	struct word words[CLI_WORDS_MAX];
	unsigned n = words_of(command, cli->arena, words), flags = command->flags;
	struct cli_selection objects;
	const char *text;
	int rc;

	if (command->message == NULL && command->fn == NULL)
		return err_set(err, ERR_NOT_IMPLEMENTED, command->name, NULL);
	for (unsigned i = 0; i < n; i++)
		if (is_given(&words[i]) && !words[i].optional && given(cli, &words[i]) == NULL)
			return cli_fail(cli, "Required parameter not found: %s", words[i].name);
	text = command->text != NULL ? command->text : message_of(command, false, cli->arena)->text;
	if (flags & CLI_CONFIRM) {
		cli_print(cli, text);
		if (!cli_confirmed(cli))
			return cli_fail(cli, "Aborted");
	}
	if (!(flags & (CLI_VM | CLI_HOST | CLI_SR))) {
		rc = run_one(cli, command, NULL, err);
		if (rc == 0)
			cli_params_warn(cli);
		return rc;
	}
	rc = choose_objects(cli, command, &objects);
	return rc != 0 ? rc
		       : run_all(cli, command, &objects,
				 flags & CLI_VM	    ? MODEL_CLASS_VM
				 : flags & CLI_HOST ? MODEL_CLASS_host
						    : MODEL_CLASS_SR,
				 err);
}

/* Help. The labels and their padding are what completion scripts look for. */

struct help {
	const char *required, *optional, *text;
};

static void comma(struct buf *b, const char *text, const char *end)
{
	buf_printf(b, "%s%s%s", b->len > 0 ? ", " : "", text, end);
}

static struct help help_of(const struct cli_command *command, struct arena *a)
{
	struct word words[CLI_WORDS_MAX];
	unsigned n = words_of(command, a, words);
	struct buf required = { 0 }, optional = { 0 }, text = { 0 };
	const struct model_message *m = message_of(command, false, a);
	struct help h;

	for (unsigned i = 0; i < n; i++) {
		if (!is_given(&words[i]))
			continue;
		comma(words[i].optional || words[i].other != NULL ? &optional : &required,
			words[i].name, words[i].map ? ":" : "");
		if (words[i].other != NULL)
			comma(&optional, words[i].other, "");
	}
	if ((command->message != NULL && strchr(command->message, '|') != NULL) ||
		(command->flags & CLI_CONFIRM))
		comma(&optional, "force", "");
	buf_puts(&text, command->text != NULL				  ? command->text
			: m != NULL					  ? m->text
			: command->message == NULL && command->fn == NULL ? "Not available here."
									  : "");
	for (unsigned k = 0; k < ARRAY_LEN(selectors); k++) {
		if (!(command->flags & selectors[k].flag))
			continue;
		comma(&optional, arena_printf(a, "<%s-selectors>", selectors[k].class_name), "");
		buf_printf(&text,
			" The %s are chosen by the values of any of their fields, as "
			"name-label=NAME or uuid=UUID; %s= is name or uuid; with no such parameter "
			"all of them. For more than one --multiple is needed.",
			selectors[k].many, selectors[k].self);
	}
	h = (struct help){ arena_strdup(a, buf_text(&required)),
		arena_strdup(a, buf_text(&optional)), arena_strdup(a, buf_text(&text)) };
	buf_fini(&required);
	buf_fini(&optional);
	buf_fini(&text);
	return h;
}

static void help_block(struct cli *cli, const char *name, const struct help *h)
{
	const char *const rows[][2] = { { "command name        ", name },
		{ "reqd params     ", h->required }, { "optional params ", h->optional },
		{ "description     ", h->text } };
	struct buf text = { 0 };

	if (cli->minimal) {
		cli_item(cli, name);
		return;
	}
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		buf_printf(&text, i == 0 ? "%-24s: %s\n" : "%24s: %s\n", rows[i][0], rows[i][1]);
	buf_puts(&text, "\n");
	cli_print(cli, buf_text(&text));
	buf_fini(&text);
}

static int help_one(struct cli *cli, const char *name)
{
	const struct cli_command *command = command_find(name);
	const struct cli_class *c;
	const struct cli_help *generated;
	const char *verb;
	struct help h;

	if (command != NULL) {
		h = help_of(command, cli->arena);
	} else if (cli_generated(name, &c, &verb)) {
		generated = cli_generated_help(c, verb);
		h = (struct help){ generated->required, generated->optional, generated->text };
	} else {
		return cli_fail(cli, "Unknown command '%s'", name);
	}
	help_block(cli, name, &h);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* All names, sorted. */
static unsigned names_of(struct arena *a, bool all, const char ***out)
{
	unsigned n = 0;

	*out = arena_alloc(a, (cli_n_commands + 8 * cli_n_classes + 1) * sizeof **out);
	for (unsigned i = 0; i < cli_n_commands; i++)
		if (!(cli_commands[i].flags & CLI_HIDDEN) &&
			(all || (cli_commands[i].flags & CLI_COMMON)))
			(*out)[n++] = cli_commands[i].name;
	for (unsigned i = 0; i < cli_n_classes; i++)
		for (unsigned k = 0; cli_verbs[k] != NULL; k++) {
			bool common =
				k == 0 && (strcmp(cli_classes[i].name, "vm") == 0 ||
						  strcmp(cli_classes[i].name, "template") == 0 ||
						  strcmp(cli_classes[i].name, "snapshot") == 0);

			if ((all || common) &&
				cli_generated_help(&cli_classes[i], cli_verbs[k]) != NULL)
				(*out)[n++] =
					arena_printf(a, "%s-%s", cli_classes[i].name, cli_verbs[k]);
		}
	if (all)
		(*out)[n++] = "help";
	qsort(*out, n, sizeof **out, by_name);
	return n;
}

static void columns(struct cli *cli, const char *const *names, unsigned n)
{
	enum { WIDTH = 78 };
	struct buf line = { 0 };

	for (unsigned i = 0; i < n; i++) {
		if (line.len > 0 && line.len + strlen(names[i]) + 2 > WIDTH) {
			buf_puts(&line, ",");
			cli_print(cli, buf_text(&line));
			line.len = 0;
		}
		buf_printf(&line, "%s%s", line.len > 0 ? ", " : "", names[i]);
	}
	cli_print(cli, buf_text(&line));
	buf_fini(&line);
}

static const char usage[] =
	"Usage:\n"
	"  xe <command>\n"
	"    [ -s <server>[,<server>...] ]  members of the pool: the first that lives\n"
	"    [ -p <port> ]\n"
	"    [ -u <username> -pw <password> | -pwf <password file> ]\n"
	"    [ --minimal ]                  values only, separated by commas\n"
	"    [ <parameter>=<value> ... ]\n"
	"\n"
	"To get help on a specific command:\n"
	"  xe help <command>\n";

static int help(struct cli *cli)
{
	bool all = cli_get_bool(cli, "all"), any = false;
	const char **names;
	unsigned n;
	int rc = 0;

	for (unsigned i = 0; i < cli->n_params; i++)
		if (!cli_param_standard(cli->params[i].name)) {
			rc |= help_one(cli, cli->params[i].name);
			any = true;
		}
	if (any)
		return rc;
	n = names_of(cli->arena, all, &names);
	if (cli->minimal) {
		for (unsigned i = 0; i < n; i++)
			cli_item(cli, names[i]);
		return 0;
	}
	cli_print(cli, usage);
	if (!all)
		cli_print(cli, "To get a full listing of commands:\n  xe help --all\n");
	cli_print(cli, all ? "Full command list\n-----------------\n"
			   : "Common command list\n-------------------\n");
	columns(cli, names, n);
	return 0;
}

int cli_run(struct cli *cli, struct err *err)
{
	const struct cli_command *command = command_find(cli->command);
	const struct cli_class *c;
	const char *verb;

	if (strcmp(cli->command, "help") == 0)
		return help(cli);
	if (command != NULL)
		return run_command(cli, command, err);
	if (cli_generated(cli->command, &c, &verb))
		return cli_generated_run(cli, c, verb, err);
	return cli_fail(cli, "Unknown command: %s\nFor usage run: 'xe help'", cli->command);
}

/* For the unit test. */

static const char *parameter_wrong(
	const struct model_message *m, const struct word *words, unsigned n, struct arena *a)
{
	unsigned at = 0;

	for (unsigned i = 0; i < n; i++) {
		const struct model_type *type;

		if (words[i].extra)
			continue;
		if (creates(m)) {
			int field = model_field_find(m->class_id, words[i].field);

			if (field < 0)
				return arena_printf(a, "no field %s", words[i].field);
			type = model_classes[m->class_id].fields[field].type;
		} else if (at >= m->n_params) {
			return arena_printf(a, "%s has only %u parameters", m->name, m->n_params);
		} else {
			type = m->params[at++].type;
		}
		if (words[i].file && type->kind != MODEL_STRING && type->kind != MODEL_SECRET)
			return arena_printf(a, "%s is no text", words[i].name);
		if (words[i].map && type->kind != MODEL_MAP)
			return arena_printf(a, "%s is no map", words[i].name);
		if ((words[i].object || words[i].pool || words[i].host) && type->kind != MODEL_REF)
			return arena_printf(a, "%s is no reference", words[i].name);
	}
	if (!creates(m) && at < m->n_params && !m->params[at].has_default)
		return arena_printf(a, "%s needs %u parameters", m->name, m->n_required);
	return NULL;
}

const char *cli_command_wrong(const struct cli_command *command, struct arena *a)
{
	struct word words[CLI_WORDS_MAX];
	unsigned n = words_of(command, a, words), selected = 0, flag;
	const struct model_message *m, *forced;
	const char *wrong = NULL;

	for (unsigned i = 0; i < n; i++) {
		selected += words[i].object;
		if (*words[i].name == 0)
			return "a word without a name";
		if (words[i].extra && !is_given(&words[i]))
			return "an extra word that nobody gives";
	}
	flag = command->flags & (CLI_VM | CLI_HOST | CLI_SR);
	if ((flag & (flag - 1)) != 0)
		return "two selectors";
	if (selected > 0 && flag == 0)
		return "@ without a selector";
	if (command->message == NULL)
		return command->fn != NULL && command->text == NULL ? "no text" : NULL;
	m = message_of(command, false, a);
	forced = message_of(command, true, a);
	if (m == NULL || forced == NULL || m->call == MODEL_REMOVED || !m->session)
		return "no such message";
	if (m->n_params != forced->n_params || m->pool_internal)
		return "not both of the messages";
	if (flag != 0 && selected == 0 && command->fn == NULL)
		return "a selector without @";
	wrong = parameter_wrong(m, words, n, a);
	return wrong;
}
