/* xpoolctl db and sql: the projection of a member, read in its file; works without xpoold. When
 * xpoold runs it writes first what waits, so that what was acknowledged is seen. */
#include "db/db.h"
#include "pool/ctl_priv.h"
#include "rpc/base/sql.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	CHECK_TIMEOUT_S = 600,
	FLUSH_TIMEOUT_S = 10,
	LOG_ROWS_MAX = 100000, /* changes of one object shown, the newest */
};

static const char db_usage[] =
	"usage: xpoolctl db log CLASS UUID --dir DIR [--field FIELD] [--since T] [--json]\n"
	"       xpoolctl db at INDEX CLASS UUID --dir DIR [--json]\n"
	"       xpoolctl db check --dir DIR\n"
	"\n"
	"log     who changed what of an object, when, by which call, in which task; oldest first.\n"
	"        History is kept for 30 days and up to 1 GiB, by each member for itself; "
	"\"coalesced\"\n"
	"        stands for several changes whose authors were not kept. Fields that a newer "
	"version\n"
	"        wrote and this one does not know are shown as text, as the file has them.\n"
	"at      the object as it was when the log was at INDEX.\n"
	"check   asks the running xpoold: indexes, relations and hash against the rows, "
	"references\n"
	"        that lead nowhere, and every row of the projection against the state. Ends with\n"
	"        \"sound\", or with \"broken\" and status 1.\n"
	"\n"
	"CLASS   as the API spells it: VM, host, SR, ...\n"
	"UUID    of the object, or its OpaqueRef:..., also of one that is gone\n"
	"--field only this field\n"
	"--since only what is newer: 20260821T02:00:23Z, or 90m, 12h, 7d ago\n"
	"--json  an array of objects instead of lines\n"
	"--file  read this file instead of DIR/" DB_PROJECTION "\n";

static const char sql_usage[] =
	"usage: xpoolctl sql --dir DIR [--json] 'SELECT ...'\n"
	"       xpoolctl sql --file FILE [--json] 'SELECT ...'\n"
	"\n"
	"Asks a member's copy of the database, reading only; xpoold may run or not.\n"
	"Tables: one per class, named as it (\"VM\", \"host\", \"SR\", ...), with ref and a column "
	"per\n"
	"field, spelt as in filters (name__label); history(idx, time, class, ref, field, old, "
	"user,\n"
	"task, method); projection(idx, ...): where the log was. Numbers and booleans (0, 1) are\n"
	"numbers, sets and maps JSON (json_each), references and dates text, secrets '***'. Sets "
	"that\n"
	"follow from another class (VM.VBDs) are no columns: join that class.\n"
	"\n"
	"  xpoolctl sql --dir DIR 'SELECT name__label, power_state FROM VM WHERE NOT "
	"is_a_template'\n"
	"  xpoolctl sql --dir DIR \"SELECT user, count(*) FROM history GROUP BY user\"\n"
	"\n"
	"--json  an array of objects instead of a table\n"
	"--file  a file that was set aside or copied, instead of DIR/" DB_PROJECTION "\n";

static int usage_error(const char *usage)
{
	fputs(usage, stderr);
	return 2;
}

/* The file. NULL after a message. */

static void flush(const char *dir)
{
	struct buf out = { 0 };
	int e = ctl_ask(dir, "flush", FLUSH_TIMEOUT_S, &out);

	if (e != 0 && e != ECONNREFUSED)
		ctl_fail(dir, "xpoold does not answer; the newest changes may be missing");
	else if (e == 0 && strcmp(buf_text(&out), "flushed\n") != 0)
		fprintf(stderr, "xpoolctl: %s: the newest changes may be missing: %s", dir,
			buf_text(&out));
	buf_fini(&out);
}

static struct sql *projection_open(const struct options *o, struct env *env)
{
	char path[512];
	struct sql *sql;

	env_uv_init(env, "xpoolctl");
	if (o->file == NULL && o->dir == NULL) {
		ctl_fail("projection", "needs --dir, the data directory of a member, or --file");
		return NULL;
	}
	if (o->file == NULL)
		flush(o->dir);
	snprintf(path, sizeof path, "%s%s", o->file != NULL ? o->file : o->dir,
		o->file != NULL ? "" : "/" DB_PROJECTION);
	if (access(path, R_OK) != 0) {
		ctl_fail(path, errno == ENOENT ? "is not there; xpoold makes it when it runs "
						 "without --no-projection"
					       : strerror(errno));
		return NULL;
	}
	sql = sql_open(env, path, SQL_READ, "");
	if (sql == NULL)
		ctl_fail(path, "cannot be opened as a SQLite file");
	return sql;
}

/* What SQLite said, and what to do about it. */
static int sql_failed(const struct sql *sql)
{
	const char *why = sql_why(sql), *remedy = "";

	if (sql_damaged(sql))
		remedy = "; remove the file: a running xpoold makes it anew, history is lost";
	else if (strstr(why, "readonly") != NULL)
		remedy = "; this only reads, change the pool through the API";
	else if (strstr(why, "no such table") != NULL)
		remedy = "; tables are named as classes: see xpoolctl sql --help";
	else if (strstr(why, "no such column") != NULL)
		remedy = "; columns are spelt as in filters, name__label: see xpoolctl sql --help";
	else if (strcmp(why, "more than one statement") == 0)
		remedy = "; ask one at a time";
	fprintf(stderr, "xpoolctl: %s%s\n", why, remedy);
	return 1;
}

/* Output. */

static void put_json(const struct val *v)
{
	struct buf text = { 0 };

	if (v->kind == VAL_VOID)
		buf_puts(&text, "null");
	else
		val_json(&text, v);
	fwrite(text.data, 1, text.len, stdout);
	buf_fini(&text);
}

static void put_json_member(bool first, const char *name, struct val v)
{
	struct val key = val_string(name);

	fputs(first ? "{" : ", ", stdout);
	put_json(&key);
	fputs(": ", stdout);
	put_json(&v);
}

/* On one line of a terminal. */
static void put_cell(struct buf *out, const char *s)
{
	for (; *s; s++) {
		if (*s == '\n')
			buf_puts(out, "\\n");
		else if ((unsigned char)*s < ' ' || *s == 0x7f)
			buf_printf(out, "\\x%02x", (unsigned char)*s);
		else
			buf_put(out, s, 1);
	}
}

/* Columns it takes, not counting that some characters are wide. */
static size_t width_of(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

/* xpoolctl sql */

struct table {
	size_t *widths; /* NULL: JSON */
	uint64_t rows;
	bool measuring;
};

static void table_cell(struct table *t, int column, int columns, const char *s)
{
	struct buf text = { 0 };
	size_t n;

	put_cell(&text, s);
	n = width_of(buf_text(&text));
	if (t->measuring) {
		if (n > t->widths[column])
			t->widths[column] = n;
	} else {
		printf("%s%s%*s", column > 0 ? "  " : "", buf_text(&text),
			column + 1 < columns ? (int)(t->widths[column] - n) : 0, "");
	}
	buf_fini(&text);
}

static void table_line(struct table *t, struct sql_row *row, bool names)
{
	int columns = sql_width(row);

	for (int i = 0; i < columns; i++)
		table_cell(t, i, columns, names ? sql_name(row, i) : sql_string(row, i));
	if (!t->measuring)
		puts("");
}

static void on_table_row(void *arg, struct sql_row *row)
{
	struct table *t = arg;

	if (t->widths == NULL)
		t->widths = mem_new((size_t)sql_width(row) * sizeof *t->widths);
	if (t->rows++ == 0)
		table_line(t, row, true);
	table_line(t, row, false);
}

static void on_json_row(void *arg, struct sql_row *row)
{
	struct table *t = arg;

	fputs(t->rows++ == 0 ? "[" : ",\n ", stdout);
	for (int i = 0; i < sql_width(row); i++)
		put_json_member(i == 0, sql_name(row, i), sql_value(row, i));
	fputs("}", stdout);
}

static int print_table(struct sql *sql, const char *statement)
{
	struct table t = { .measuring = true };
	int rc = sql_run(sql, "BEGIN", ""); /* both walks see the same */

	if (rc == 0)
		rc = sql_query(sql, on_table_row, &t, statement, "");
	t.measuring = false;
	t.rows = 0;
	if (rc == 0)
		rc = sql_query(sql, on_table_row, &t, statement, "");
	free(t.widths);
	return rc;
}

static int print_json(struct sql *sql, const char *statement)
{
	struct table t = { 0 };
	int rc = sql_query(sql, on_json_row, &t, statement, "");

	if (rc == 0)
		puts(t.rows == 0 ? "[]" : "]");
	return rc;
}

int ctl_sql(const struct options *o)
{
	struct sql *sql;
	struct env env;
	int rc;

	if (o->help) {
		fputs(sql_usage, stdout);
		return 0;
	}
	if (o->n_rest != 1)
		return usage_error(sql_usage);
	sql = projection_open(o, &env);
	if (sql == NULL)
		return 1;
	rc = (o->json ? print_json : print_table)(sql, o->rest[0]);
	if (rc != 0)
		sql_failed(sql);
	sql_close(sql);
	return rc != 0;
}

/* xpoolctl db log and at: from what is, backwards through what was. */

enum { WHOLE_ROW = -1, NO_FIELD = -2 };

struct change {
	int64_t index, time;
	int field; /* see field_of; or WHOLE_ROW */
	const char *old, *fresh, *user, *task, *method;
};

struct story {
	struct sql *sql;
	struct arena a;
	int class_id;
	const char *ref;
	bool exists;
	const char **now;     /* the texts of the fields, see field_of; NULL: none */
	const char **strange; /* fields that the file has and this version does not know */
	unsigned n_strange;
	struct change *changes;
	unsigned n, cap;
	int64_t until; /* at: only what came behind this index is undone */
};

static unsigned n_known(const struct story *st)
{
	return model_classes[st->class_id].n_fields;
}

/* A field by its column: its number in the model, behind these one that only the file has. */
static int field_find(const struct story *st, const char *column)
{
	int field = model_field_find(st->class_id, column);

	for (unsigned i = 0; field < 0 && i < st->n_strange; i++)
		if (strcmp(st->strange[i], column) == 0)
			field = (int)(n_known(st) + i);
	return field >= 0 ? field : NO_FIELD;
}

static int field_of(struct story *st, const char *column)
{
	int field = field_find(st, column);
	unsigned n = st->n_strange;

	if (field != NO_FIELD)
		return field;
	st->strange = mem_resize(st->strange, (n + 1) * sizeof *st->strange);
	st->now = mem_resize(st->now, (n_known(st) + n + 1) * sizeof *st->now);
	st->strange[st->n_strange++] = arena_strdup(&st->a, column);
	st->now[n_known(st) + n] = NULL;
	return (int)(n_known(st) + n);
}

static const char *field_name(const struct story *st, int field)
{
	unsigned known = n_known(st), i = (unsigned)field;

	return i < known ? model_classes[st->class_id].fields[i].name : st->strange[i - known];
}

static bool is_strange(const struct story *st, int field)
{
	return field >= (int)n_known(st);
}

static void on_field(void *arg, struct sql_row *row)
{
	struct story *st = arg;
	int field = field_of(st, sql_string(row, 0));

	st->now[field] = arena_strdup(&st->a, sql_string(row, 1));
}

static void on_columns(void *arg, struct sql_row *row)
{
	struct story *st = arg;

	st->exists = true;
	for (int i = 1; i < sql_width(row); i++) {
		int field = field_of(st, sql_name(row, i));

		st->now[field] = arena_strdup(&st->a, sql_string(row, i));
	}
}

static struct change *change_new(struct story *st)
{
	if (st->n == st->cap) {
		st->cap = st->cap ? 2 * st->cap : 64;
		st->changes = mem_resize(st->changes, st->cap * sizeof *st->changes);
	}
	return &st->changes[st->n++];
}

/* idx, time, field, old, user, task, method; newest first */
static void on_history(void *arg, struct sql_row *row)
{
	struct story *st = arg;
	const char *column = sql_string(row, 2);
	struct val old = sql_value(row, 3);
	struct change *c = change_new(st);

	*c = (struct change){ .index = sql_int(row, 0),
		.time = sql_int(row, 1),
		.field = *column != 0 ? field_of(st, column) : WHOLE_ROW,
		.user = arena_strdup(&st->a, sql_string(row, 4)),
		.task = arena_strdup(&st->a, sql_string(row, 5)),
		.method = arena_strdup(&st->a, sql_string(row, 6)) };
	if (old.kind != VAL_VOID)
		c->old = arena_strdup(&st->a, sql_string(row, 3));
	if (*column == 0) {
		st->exists = c->old != NULL;
		if (st->exists)
			sql_query(st->sql, on_field, st, "SELECT key, value FROM json_each(?)", "s",
				c->old);
	} else {
		c->fresh = st->now[c->field];
		st->now[c->field] = c->old;
	}
}

/* The reference by uuid, of a row that is or was. */
static bool find_ref(struct story *st, const char *uuid, char ref[DB_REF_MAX + 1])
{
	const struct model_class *c = &model_classes[st->class_id];
	char statement[160];

	if (strncmp(uuid, "OpaqueRef:", 10) == 0 || c->uuid_field < 0) {
		snprintf(ref, DB_REF_MAX + 1, "%s", uuid);
		return true;
	}
	snprintf(statement, sizeof statement, "SELECT ref FROM \"%s\" WHERE uuid = ?", c->name);
	if (sql_text(st->sql, ref, DB_REF_MAX + 1, statement, "s", uuid))
		return true;
	return sql_text(st->sql, ref, DB_REF_MAX + 1,
		"SELECT ref FROM history WHERE class = ? AND field = '' AND "
		"json_extract(old, '$.uuid') = ? ORDER BY rowid DESC LIMIT 1",
		"ss", c->name, uuid);
}

static int story_read(struct story *st, int64_t since)
{
	char statement[160];
	int rc;

	snprintf(statement, sizeof statement, "SELECT * FROM \"%s\" WHERE ref = ?",
		model_classes[st->class_id].name);
	rc = sql_query(st->sql, on_columns, st, statement, "s", st->ref);
	if (rc == 0)
		rc = sql_query(st->sql, on_history, st,
			"SELECT idx, time, field, old, user, task, method FROM history WHERE "
			"ref = ? AND class = ? AND time >= ? AND idx > ? ORDER BY rowid DESC "
			"LIMIT ?",
			"ssiii", st->ref, model_classes[st->class_id].name, since, st->until,
			(int64_t)LOG_ROWS_MAX);
	return rc;
}

/* The value of a field as the API would show it; of one that is not known as the file has it. */
static struct val field_value(const struct story *st, int field, const char *text)
{
	if (text == NULL)
		return val_void();
	if (is_strange(st, field))
		return val_string(text);
	switch (model_classes[st->class_id].fields[field].type->kind) {
	case MODEL_BOOL: return val_bool(strcmp(text, "0") != 0);
	case MODEL_INT: return val_int(strtoll(text, NULL, 10));
	case MODEL_FLOAT: return val_float(strtod(text, NULL));
	default: return val_string(text);
	}
}

/* Sets and maps are JSON already. */
static void put_value(const struct story *st, int field, const char *text)
{
	enum model_kind kind = is_strange(st, field)
				       ? MODEL_STRING
				       : model_classes[st->class_id].fields[field].type->kind;
	struct val v = field_value(st, field, text);

	if (text != NULL && (kind == MODEL_SET || kind == MODEL_MAP))
		fputs(text, stdout);
	else
		put_json(&v);
}

static void put_change_line(const struct story *st, const struct change *c)
{
	char date[VAL_DATETIME_MAX];

	val_datetime_print(c->time, date);
	printf("%s #%" PRId64 " %s %s ", date, c->index, *c->user ? c->user : "-",
		*c->method ? c->method : "-");
	if (c->field < 0) {
		fputs(c->old == NULL ? "created" : "deleted", stdout);
	} else {
		printf("%s%s: ", field_name(st, c->field),
			is_strange(st, c->field) ? " (not known to this version)" : "");
		put_value(st, c->field, c->old);
		fputs(" -> ", stdout);
		put_value(st, c->field, c->fresh);
	}
	printf("%s%s\n", *c->task ? " task=" : "", c->task);
}

static void put_change_json(const struct story *st, const struct change *c, bool first)
{
	char date[VAL_DATETIME_MAX];
	bool whole = c->field < 0;

	val_datetime_print(c->time, date);
	fputs(first ? "[" : ",\n ", stdout);
	put_json_member(true, "time", val_string(date));
	put_json_member(false, "index", val_int(c->index));
	put_json_member(false, "user", val_string(c->user));
	put_json_member(false, "method", val_string(c->method));
	put_json_member(false, "task", val_string(c->task));
	put_json_member(false, "change",
		val_string(!whole	    ? "set"
			   : c->old == NULL ? "created"
					    : "deleted"));
	if (!whole) {
		put_json_member(false, "field", val_string(field_name(st, c->field)));
		if (is_strange(st, c->field))
			put_json_member(false, "known", val_bool(false));
		fputs(", \"old\": ", stdout);
		put_value(st, c->field, c->old);
		fputs(", \"new\": ", stdout);
		put_value(st, c->field, c->fresh);
	}
	fputs("}", stdout);
}

static void put_log(const struct story *st, int only_field, bool json)
{
	bool first = true;

	if (st->n == LOG_ROWS_MAX)
		fprintf(stderr, "xpoolctl: only the newest %d changes; see --since\n",
			LOG_ROWS_MAX);
	for (unsigned i = st->n; i-- > 0;) {
		const struct change *c = &st->changes[i];

		if (only_field != NO_FIELD && c->field != only_field)
			continue;
		if (json)
			put_change_json(st, c, first);
		else
			put_change_line(st, c);
		first = false;
	}
	if (json)
		puts(first ? "[]" : "]");
}

static void put_row(const struct story *st, bool json)
{
	bool first = true;
	struct val key;

	for (unsigned i = 0; i < n_known(st) + st->n_strange; i++) {
		if (st->now[i] == NULL)
			continue;
		key = val_string(field_name(st, (int)i));
		if (json) {
			fputs(first ? "{" : ",\n ", stdout);
			put_json(&key);
		} else {
			fputs(key.s, stdout);
		}
		fputs(": ", stdout);
		put_value(st, (int)i, st->now[i]);
		first = false;
		if (!json)
			puts("");
	}
	if (json)
		puts(first ? "{}" : "}");
}

/* 20260821T02:00:23Z, or 90m, 12h, 7d before the pool's time. */
static bool parse_since(struct sql *sql, const char *text, int64_t *out)
{
	char *end;
	int64_t n = strtoll(text, &end, 10), unit;

	if (val_datetime_parse(text, out))
		return true;
	unit = *end == 'm' ? 60 : *end == 'h' ? 3600 : *end == 'd' ? 86400 : 0;
	*out = sql_number(sql, 0, "SELECT time FROM projection", "") - n * unit;
	return end != text && unit != 0 && end[1] == 0 && n >= 0;
}

static int story_open(struct story *st, const struct options *o, struct env *env, const char *class,
	const char *uuid, char ref[DB_REF_MAX + 1])
{
	st->class_id = model_class_find(class, true);
	if (st->class_id < 0 || model_classes[st->class_id].table == MODEL_TABLE_NONE)
		return ctl_fail(class, "no class of the API, such as VM, host, SR");
	st->sql = projection_open(o, env);
	if (st->sql == NULL)
		return 1;
	arena_init(&st->a);
	st->now = mem_new((n_known(st) + 1) * sizeof *st->now);
	if (find_ref(st, uuid, ref)) {
		st->ref = ref;
		return 0;
	}
	return *sql_why(st->sql) != 0
		       ? sql_failed(st->sql)
		       : ctl_fail(uuid, "no object of this class has or had this uuid, as far as "
					"history goes back");
}

static void story_close(struct story *st)
{
	if (st->sql == NULL)
		return;
	sql_close(st->sql);
	arena_fini(&st->a);
	free(st->changes);
	free(st->strange);
	free(st->now);
}

static int db_log(const struct options *o)
{
	struct story st = { 0 };
	char ref[DB_REF_MAX + 1];
	int field = NO_FIELD, rc;
	int64_t since = INT64_MIN;
	struct env env;

	if (o->n_rest != 3)
		return usage_error(db_usage);
	rc = story_open(&st, o, &env, o->rest[1], o->rest[2], ref);
	if (rc == 0 && o->since != NULL && !parse_since(st.sql, o->since, &since))
		rc = ctl_fail(o->since, "no time: 20260821T02:00:23Z, or 90m, 12h, 7d ago");
	if (rc == 0 && story_read(&st, since) != 0)
		rc = sql_failed(st.sql);
	if (rc == 0 && o->field != NULL && (field = field_find(&st, o->field)) == NO_FIELD)
		rc = ctl_fail(o->field, "the class has no such field");
	if (rc == 0)
		put_log(&st, field, o->json);
	story_close(&st);
	return rc;
}

/* Is the log's index one whose state can be told? */
static int known_index(struct story *st, const char *text)
{
	int64_t from = sql_number(st->sql, 0, "SELECT since FROM projection", "");
	int64_t to = sql_number(st->sql, 0, "SELECT idx FROM projection", "");
	char why[120], *end;

	st->until = strtoll(text, &end, 10);
	if (end != text && *end == 0 && st->until >= from && st->until <= to)
		return 0;
	snprintf(why, sizeof why, "no index that history reaches: %" PRId64 " to %" PRId64, from,
		to);
	return ctl_fail(text, why);
}

static int db_at(const struct options *o)
{
	struct story st = { 0 };
	char ref[DB_REF_MAX + 1];
	struct env env;
	int rc;

	if (o->n_rest != 4)
		return usage_error(db_usage);
	rc = story_open(&st, o, &env, o->rest[2], o->rest[3], ref);
	if (rc == 0)
		rc = known_index(&st, o->rest[1]);
	if (rc == 0 && story_read(&st, INT64_MIN) != 0)
		rc = sql_failed(st.sql);
	if (rc == 0 && st.n == LOG_ROWS_MAX)
		rc = ctl_fail(o->rest[1], "too many changes since");
	if (rc == 0 && !st.exists)
		rc = ctl_fail(o->rest[3], "did not exist then");
	for (unsigned i = 0; rc == 0 && i < st.n; i++)
		if (strcmp(st.changes[i].method, "coalesced") == 0) {
			fprintf(stderr, "xpoolctl: some changes since were not kept one by one: "
					"values may be newer than the index\n");
			break;
		}
	if (rc == 0)
		put_row(&st, o->json);
	story_close(&st);
	return rc;
}

static int db_check_live(const struct options *o)
{
	struct buf out = { 0 };
	const char *text, *tail = "\nsound\n";
	bool sound;
	int e;

	if (o->n_rest != 1)
		return usage_error(db_usage);
	if (o->dir == NULL)
		return ctl_fail("db check", "needs --dir");
	e = ctl_ask(o->dir, "check", CHECK_TIMEOUT_S, &out);
	text = buf_text(&out);
	fputs(text, stdout);
	sound = out.len >= strlen(tail) && strcmp(text + out.len - strlen(tail), tail) == 0;
	buf_fini(&out);
	if (e != 0)
		return ctl_fail(o->dir, e == ECONNREFUSED ? "xpoold does not run here: start it, "
							    "the state is in its memory"
							  : strerror(e));
	return !sound;
}

int ctl_db(const struct options *o)
{
	static const struct {
		const char *name;
		int (*run)(const struct options *o);
	} commands[] = { { "log", db_log }, { "at", db_at }, { "check", db_check_live } };

	if (o->help) {
		fputs(db_usage, stdout);
		return 0;
	}
	for (size_t i = 0; o->n_rest > 0 && i < ARRAY_LEN(commands); i++)
		if (strcmp(o->rest[0], commands[i].name) == 0)
			return commands[i].run(o);
	return usage_error(db_usage);
}
