/* The file of the projection: see store_priv.h.
 *
 *   projection  one row: pool, epoch; idx, hash, time: where the state was; since: history tells
 *               everything behind this index
 *   one table per class, named as it: ref, and a column per stored field, named as the reference's
 *   history     (idx, time, class, ref, field, old, user, task, method); a row that appeared has
 *               field '' and old NULL, one that went has field '' and what it was as JSON. No
 * index: it would cost every change a page somewhere, and who asks can wait for a scan
 *
 * Values: int, float and bool (0, 1) are numbers, sets and maps JSON, all else text. Secrets are
 * '***', in history too.
 */
#include "db/store_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHECK_LINES = 20 /* differences reported */ };

/* Tables. */

static void put_table(struct buf *out, int class_id)
{
	const struct model_class *c = &model_classes[class_id];

	buf_printf(out, "CREATE TABLE \"%s\"(ref TEXT PRIMARY KEY", c->name);
	for (unsigned i = 0; i < c->n_fields; i++) {
		enum model_kind kind = c->fields[i].type->kind;

		if (db__column(&c->fields[i]))
			buf_printf(out, ", \"%s\" %s", c->fields[i].column,
				kind == MODEL_INT || kind == MODEL_BOOL ? "INTEGER"
				: kind == MODEL_FLOAT			? "REAL"
									: "TEXT");
	}
	buf_puts(out, ")");
}

static const char *const fixed_tables[] = {
	"CREATE TABLE projection(pool TEXT, epoch INTEGER, idx INTEGER, hash TEXT, "
	"time INTEGER, since INTEGER)",
	"CREATE TABLE history(idx INTEGER, time INTEGER, class TEXT, ref TEXT, field TEXT, "
	"old TEXT, user TEXT, task TEXT, method TEXT)",
};

/* Everything that make_tables makes, as one text: what SQLite keeps of it must be the same. */
static void layout_expected(struct buf *out)
{
	for (size_t i = 0; i < ARRAY_LEN(fixed_tables); i++)
		buf_puts(out, fixed_tables[i]);
	for (int c = 0; c < MODEL_CLASS_COUNT; c++)
		if (db__projected(c))
			put_table(out, c);
}

static void on_layout(void *arg, struct sql_row *row)
{
	buf_puts(arg, sql_string(row, 0));
}

static bool layout_same(struct projection *p)
{
	struct buf is = { 0 }, must = { 0 };
	bool same;

	layout_expected(&must);
	same = sql_query(p->sql, on_layout, &is, "SELECT sql FROM sqlite_master ORDER BY rowid",
		       "") == 0 &&
	       strcmp(buf_text(&is), buf_text(&must)) == 0;
	buf_fini(&is);
	buf_fini(&must);
	return same;
}

static int make_tables(struct projection *p)
{
	int rc = sql_run(p->sql, "BEGIN", "");
	struct buf text = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(fixed_tables) && rc == 0; i++)
		rc = sql_run(p->sql, fixed_tables[i], "");
	for (int c = 0; c < MODEL_CLASS_COUNT && rc == 0; c++) {
		if (!db__projected(c))
			continue;
		text.len = 0;
		put_table(&text, c);
		rc = sql_run(p->sql, buf_text(&text), "");
	}
	buf_fini(&text);
	if (rc == 0)
		rc = sql_run(p->sql, "INSERT INTO projection VALUES (?, ?, 0, '', 0, 0)", "si",
			p->cfg->pool_uuid, (int64_t)p->cfg->epoch);
	if (rc == 0)
		rc = sql_run(p->sql, "COMMIT", "");
	p->index = p->hash = 0;
	p->time = 0;
	p->fresh = true;
	return rc;
}

/* Opening. */

static int layout_renew(struct projection *p);

/* NULL: ours and sound; else why not. */
static const char *judge(struct projection *p, uint64_t most)
{
	char text[64] = "";

	if (!sql_sound(p->sql))
		return "damaged";
	if (!sql_text(p->sql, text, sizeof text, "SELECT pool FROM projection", "") ||
		strcmp(text, p->cfg->pool_uuid) != 0)
		return "of another pool";
	if (sql_number(p->sql, -1, "SELECT epoch FROM projection", "") != (int64_t)p->cfg->epoch)
		return "of another epoch";
	p->index = (uint64_t)sql_number(p->sql, 0, "SELECT idx FROM projection", "");
	p->time = sql_number(p->sql, 0, "SELECT time FROM projection", "");
	sql_text(p->sql, text, sizeof text, "SELECT hash FROM projection", "");
	p->hash = strtoull(text, NULL, 16);
	if (p->index > most)
		return "ahead of the state";
	return layout_same(p) || layout_renew(p) == 0 ? NULL : "of another schema";
}

void db__projection_close(struct projection *p)
{
	sql_close(p->sql);
	p->sql = NULL;
}

static void name_aside(const struct projection *p, unsigned n, const char *tail, char out[600])
{
	snprintf(out, 600, "%s.aside%u%s", p->path, n, tail);
}

/* The file and what of its log has not been merged: the newest is number 1. */
void db__projection_aside(struct projection *p, const char *why)
{
	static const char *const tails[] = { "", "-wal" };
	char from[600], to[600];

	log_warn(p->cfg->env, "event=projection_set_aside file=%s why=\"%s\"", p->path, why);
	COUNT(p->cfg->env, projection_aside);
	db__projection_close(p);
	for (size_t t = 0; t < ARRAY_LEN(tails); t++) {
		for (unsigned n = STORE_ASIDE_MAX; n > 1; n--) {
			name_aside(p, n - 1, tails[t], from);
			name_aside(p, n, tails[t], to);
			if (rename(from, to) != 0)
				unlink(to);
		}
		snprintf(from, sizeof from, "%s%s", p->path, tails[t]);
		name_aside(p, 1, tails[t], to);
		if (rename(from, to) != 0)
			unlink(to);
	}
	snprintf(from, sizeof from, "%s-shm", p->path);
	unlink(from);
}

bool db__projection_there(const struct projection *p)
{
	struct stat st;

	return stat(p->path, &st) == 0 && st.st_dev == p->dev && st.st_ino == p->ino;
}

/* What a file of this name left behind that is gone would be taken for the log of a new one. */
static void clear_log(const struct projection *p)
{
	char path[600];

	snprintf(path, sizeof path, "%s-wal", p->path);
	unlink(path);
	snprintf(path, sizeof path, "%s-shm", p->path);
	unlink(path);
}

static int open_once(struct projection *p, uint64_t most, const char **why_out)
{
	struct stat st;
	bool empty = stat(p->path, &st) != 0 || st.st_size == 0;

	if (empty)
		clear_log(p);
	p->fresh = false;
	p->sql = sql_open(p->cfg->env, p->path, SQL_ORDERED, "");
	*why_out = p->sql == NULL ? "damaged" : NULL;
	if (p->sql == NULL || stat(p->path, &st) != 0)
		return ERR_IO;
	p->dev = st.st_dev;
	p->ino = st.st_ino;
	if (!empty)
		*why_out = judge(p, most);
	else if (make_tables(p) != 0)
		return ERR_IO;
	return *why_out != NULL ? ERR_CORRUPT : 0;
}

int db__projection_open(struct projection *p, uint64_t most)
{
	const char *why;
	int rc;

	snprintf(p->path, sizeof p->path, "%s/" DB_PROJECTION, p->cfg->dir);
	rc = open_once(p, most, &why);
	if (rc != 0 && why != NULL) {
		db__projection_aside(p, why);
		rc = open_once(p, most, &why);
	}
	if (rc != 0)
		db__projection_close(p);
	return rc == 0 ? 0 : ERR_IO;
}

int db__projection_begin(struct projection *p)
{
	return sql_run(p->sql, "BEGIN IMMEDIATE", "");
}

int db__projection_commit(struct projection *p)
{
	char hash[17];
	int rc;

	snprintf(hash, sizeof hash, "%016llx", (unsigned long long)p->hash);
	rc = sql_run(p->sql, "UPDATE projection SET idx = ?, hash = ?, time = ?", "isi",
		(int64_t)p->index, hash, p->time);
	p->fresh = false;
	return rc != 0 ? rc : sql_run(p->sql, "COMMIT", "");
}

/* Values. */

/* Texts that open something although the API types them as plain ones. */
static const struct {
	int class_id, field;
} secrets[] = {
	{ MODEL_CLASS_secret, SECRET_value }, { MODEL_CLASS_Cluster, CLUSTER_cluster_token },
	{ MODEL_CLASS__config, _CONFIG_value }, /* the key of sessions */
	{ MODEL_CLASS_task, TASK_caller },	/* names its session */
	{ MODEL_CLASS_task, TASK_arguments },	/* of any message */
};

static bool secret_type(const struct model_type *t)
{
	return t->kind == MODEL_SECRET ||
	       (t->kind == MODEL_REF && t->class_id == MODEL_CLASS_session) ||
	       (t->item != NULL && secret_type(t->item));
}

static bool is_secret(int class_id, unsigned field)
{
	for (size_t i = 0; i < ARRAY_LEN(secrets); i++)
		if (secrets[i].class_id == class_id && secrets[i].field == (int)field)
			return true;
	return secret_type(model_classes[class_id].fields[field].type);
}

/* As it stands in a column; texts in the arena. */
static struct val column_value(int class_id, unsigned field, const struct val *v, struct arena *a)
{
	char date[VAL_DATETIME_MAX];
	struct buf text = { 0 };
	struct val out;

	if (is_secret(class_id, field))
		return val_string("***");
	switch (v->kind) {
	case VAL_BOOL: return val_int(v->b);
	case VAL_FLOAT: /* SQLite keeps neither NaN nor a negative zero */
		return isnan(v->f) ? val_void() : val_float(v->f + 0.0);
	case VAL_DATETIME: val_datetime_print(v->i, date); return val_string(arena_strdup(a, date));
	case VAL_SET:
	case VAL_MAP:
		val_json(&text, v);
		out = val_string(arena_strdup(a, buf_text(&text)));
		buf_fini(&text);
		return out;
	default: return *v;
	}
}

/* ref and the columns of a row. The number of values. */
static unsigned row_values(
	int class_id, const char *ref, const struct val *fields, struct val *out, struct arena *a)
{
	const struct model_class *c = &model_classes[class_id];
	unsigned n = 0;

	out[n++] = val_string(ref);
	for (unsigned i = 0; i < c->n_fields; i++)
		if (db__column(&c->fields[i]))
			out[n++] = column_value(class_id, i, &fields[i], a);
	return n;
}

/* The file of a version with other fields or classes: its tables become ours, and history goes on.
 * A field that came has its initial value in every row until the schema is raised, which is history
 * like any other; of one that went, what is in history stays there. */

struct names {
	struct arena a;
	struct val set;
};

static void on_name(void *arg, struct sql_row *row)
{
	struct names *n = arg;

	val_set_push(&n->a, &n->set, val_string(arena_strdup(&n->a, sql_string(row, 0))));
}

/* From the table of before, which has "was" before its name now. */
static int fill_table(struct projection *p, int class_id, struct arena *a)
{
	const struct model_class *c = &model_classes[class_id];
	struct names had = { .a = *a, .set = val_set() };
	struct buf columns = { 0 }, text = { 0 };
	int rc = sql_query(p->sql, on_name, &had, "SELECT name FROM pragma_table_info(?)", "s",
		arena_printf(&had.a, "was %s", c->name));

	buf_puts(&columns, "ref");
	for (unsigned i = 0; i < c->n_fields; i++)
		if (db__column(&c->fields[i]) && val_set_has(&had.set, c->fields[i].column))
			buf_printf(&columns, ", \"%s\"", c->fields[i].column);
	buf_printf(&text, "INSERT INTO \"%s\"(%s) SELECT %s FROM \"was %s\"", c->name,
		buf_text(&columns), buf_text(&columns), c->name);
	if (rc == 0)
		rc = sql_run(p->sql, buf_text(&text), "");
	for (unsigned i = 0; i < c->n_fields && rc == 0; i++) {
		struct val first;

		if (!db__column(&c->fields[i]) || val_set_has(&had.set, c->fields[i].column))
			continue;
		first = column_value(class_id, i, &c->fields[i].initial, &had.a);
		rc = sql_run_vals(p->sql,
			arena_printf(&had.a, "UPDATE \"%s\" SET \"%s\" = ?", c->name,
				c->fields[i].column),
			&first, 1);
	}
	buf_fini(&columns);
	buf_fini(&text);
	*a = had.a;
	return rc;
}

static int renew_tables(struct projection *p, struct names *had)
{
	struct buf text = { 0 };
	int rc = 0;

	for (uint32_t i = 0; i < had->set.n && rc == 0; i++)
		rc = strchr(had->set.items[i].s, '"') != NULL
			     ? ERR_CORRUPT
			     : sql_run(p->sql,
				       arena_printf(&had->a,
					       "ALTER TABLE \"%s\" RENAME TO \"was %s\"",
					       had->set.items[i].s, had->set.items[i].s),
				       "");
	for (int c = 0; c < MODEL_CLASS_COUNT && rc == 0; c++) {
		if (!db__projected(c))
			continue;
		text.len = 0;
		put_table(&text, c);
		rc = sql_run(p->sql, buf_text(&text), "");
		if (rc == 0 && val_set_has(&had->set, model_classes[c].name))
			rc = fill_table(p, c, &had->a);
	}
	for (uint32_t i = 0; i < had->set.n && rc == 0; i++)
		rc = sql_run(p->sql,
			arena_printf(&had->a, "DROP TABLE \"was %s\"", had->set.items[i].s), "");
	buf_fini(&text);
	return rc;
}

static int layout_renew(struct projection *p)
{
	struct names had = { .set = val_set() };
	int rc = ERR_CORRUPT;

	if (sql_number(p->sql, 0, "SELECT count(*) FROM sqlite_master WHERE sql IN (?, ?)", "ss",
		    fixed_tables[0], fixed_tables[1]) != ARRAY_LEN(fixed_tables))
		return rc;
	arena_init(&had.a);
	if (sql_run(p->sql, "BEGIN IMMEDIATE", "") == 0) {
		rc = sql_query(p->sql, on_name, &had,
			"SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN "
			"('projection', 'history')",
			"");
		if (rc == 0)
			rc = renew_tables(p, &had);
		sql_run(p->sql, rc == 0 ? "COMMIT" : "ROLLBACK", "");
	}
	arena_fini(&had.a);
	if (rc == 0)
		log_info(p->cfg->env, "event=projection_renewed file=%s why=\"another schema\"",
			p->path);
	return rc == 0 && layout_same(p) ? 0 : ERR_CORRUPT;
}

static int add_history(struct projection *p, const struct stamp *st, int class_id, const char *ref,
	const char *column, struct val old)
{
	struct val v[] = { val_int((int64_t)st->index), val_int(st->time),
		val_string(model_classes[class_id].name), val_string(ref), val_string(column), old,
		val_string(st->origin.user), val_string(st->origin.task),
		val_string(st->origin.method) };

	return sql_run_vals(
		p->sql, "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", v, ARRAY_LEN(v));
}

static int replace_row(struct projection *p, int class_id, const struct val *values, unsigned n)
{
	struct buf text = { 0 };
	int rc;

	buf_printf(&text, "INSERT OR REPLACE INTO \"%s\" VALUES (?", model_classes[class_id].name);
	for (unsigned i = 1; i < n; i++)
		buf_puts(&text, ",?");
	buf_puts(&text, ")");
	rc = sql_run_vals(p->sql, buf_text(&text), values, n);
	buf_fini(&text);
	return rc;
}

/* values: as of row_values. */
static int remove_row(
	struct projection *p, const struct stamp *st, int class_id, const struct val *values)
{
	const struct model_class *c = &model_classes[class_id];
	struct val was = val_map();
	struct buf text = { 0 };
	char statement[128];
	struct arena a;
	unsigned n = 1;
	int rc;

	arena_init(&a);
	for (unsigned i = 0; i < c->n_fields; i++)
		if (db__column(&c->fields[i]))
			val_map_push(&a, &was, c->fields[i].column, values[n++]);
	val_json(&text, &was);
	snprintf(statement, sizeof statement, "DELETE FROM \"%s\" WHERE ref = ?", c->name);
	rc = sql_run(p->sql, statement, "s", values[0].s);
	if (rc == 0)
		rc = add_history(p, st, class_id, values[0].s, "", val_string(buf_text(&text)));
	buf_fini(&text);
	arena_fini(&a);
	return rc;
}

static struct val *values_new(struct arena *a, int class_id)
{
	return arena_alloc(a, (model_classes[class_id].n_fields + 1) * sizeof(struct val));
}

int db__projection_created(struct projection *p, const struct stamp *st, int class_id,
	const char *ref, const struct val *fields)
{
	struct arena a;
	struct val *values;
	int rc;

	arena_init(&a);
	values = values_new(&a, class_id);
	rc = replace_row(p, class_id, values, row_values(class_id, ref, fields, values, &a));
	if (rc == 0 && st != NULL)
		rc = add_history(p, st, class_id, ref, "", val_void());
	arena_fini(&a);
	return rc;
}

int db__projection_deleted(struct projection *p, const struct stamp *st, int class_id,
	const char *ref, const struct val *fields)
{
	struct arena a;
	struct val *values;
	int rc;

	arena_init(&a);
	values = values_new(&a, class_id);
	row_values(class_id, ref, fields, values, &a);
	rc = remove_row(p, st, class_id, values);
	arena_fini(&a);
	return rc;
}

int db__projection_set(struct projection *p, const struct stamp *st, int class_id, const char *ref,
	const struct field_change *changes, unsigned n)
{
	const struct model_class *c = &model_classes[class_id];
	struct val v[PROJECTION_SETS_MAX + 1];
	struct buf text = { 0 };
	struct arena a;
	int rc;

	CHECK(n <= PROJECTION_SETS_MAX);
	arena_init(&a);
	buf_printf(&text, "UPDATE \"%s\" SET ", c->name);
	for (unsigned i = 0; i < n; i++) {
		unsigned field = (unsigned)changes[i].field;

		v[i] = column_value(class_id, field, &changes[i].fresh, &a);
		buf_printf(&text, "%s\"%s\" = ?", i > 0 ? ", " : "", c->fields[field].column);
	}
	v[n] = val_string(ref);
	buf_puts(&text, " WHERE ref = ?");
	rc = sql_run_vals(p->sql, buf_text(&text), v, n + 1);
	for (unsigned i = 0; rc == 0 && i < n; i++) {
		unsigned field = (unsigned)changes[i].field;

		rc = add_history(p, st, class_id, ref, c->fields[field].column,
			column_value(class_id, field, &changes[i].old, &a));
	}
	buf_fini(&text);
	arena_fini(&a);
	return rc;
}

/* Rows as the file has them. */

struct have {
	struct arena *a;
	struct val *values;
	unsigned n;
};

static void on_have(void *arg, struct sql_row *row)
{
	struct have *h = arg;

	h->n = (unsigned)sql_width(row);
	h->values = arena_alloc(h->a, h->n * sizeof *h->values);
	for (unsigned i = 0; i < h->n; i++) {
		struct val v = sql_value(row, (int)i);

		h->values[i] = val_dup(h->a, &v);
	}
}

/* n 0: there is none. */
static int get_row(struct projection *p, int class_id, const char *ref, struct have *out)
{
	char statement[128];

	out->n = 0;
	snprintf(statement, sizeof statement, "SELECT * FROM \"%s\" WHERE ref = ?",
		model_classes[class_id].name);
	return sql_query(p->sql, on_have, out, statement, "s", ref);
}

static struct val *unpacked(const struct db_row *row, struct arena *a)
{
	unsigned n = model_classes[row->class_id].n_fields;
	struct val *fields = arena_alloc(a, n * sizeof *fields);

	for (unsigned i = 0; i < n; i++)
		fields[i] = db_row_field(row, (int)i, a);
	return fields;
}

/* The column at a place of row_values. */
static const char *column_at(int class_id, unsigned at)
{
	const struct model_class *c = &model_classes[class_id];

	for (unsigned i = 0; i < c->n_fields; i++)
		if (db__column(&c->fields[i]) && --at == 0)
			return c->fields[i].column;
	UNREACHABLE();
}

int db__projection_settle(struct projection *p, const struct stamp *st, const struct db_row *row)
{
	struct val *fields, *values;
	struct have have = { 0 };
	struct arena a;
	bool differs = false;
	unsigned n;
	int rc = 0;

	arena_init(&a);
	have.a = &a;
	fields = unpacked(row, &a);
	values = values_new(&a, row->class_id);
	n = row_values(row->class_id, row->ref, fields, values, &a);
	if (!p->fresh)
		rc = get_row(p, row->class_id, row->ref, &have);
	if (rc == 0 && have.n == 0)
		rc = db__projection_created(
			p, p->fresh ? NULL : st, row->class_id, row->ref, fields);
	for (unsigned i = 1; rc == 0 && i < have.n; i++) {
		if (val_equal(&have.values[i], &values[i]))
			continue;
		differs = true;
		rc = add_history(p, st, row->class_id, row->ref, column_at(row->class_id, i),
			have.values[i]);
	}
	if (rc == 0 && differs)
		rc = replace_row(p, row->class_id, values, n);
	arena_fini(&a);
	return rc;
}

struct refs {
	const struct db_view *view;
	int class_id;
	struct arena a;
	struct val gone;
};

static void on_ref(void *arg, struct sql_row *row)
{
	struct refs *r = arg;
	const char *ref = sql_string(row, 0);

	if (db_view_get(r->view, r->class_id, ref) == NULL)
		val_set_push(&r->a, &r->gone, val_string(arena_strdup(&r->a, ref)));
}

int db__projection_weed(
	struct projection *p, const struct stamp *st, const struct db_view *view, int class_id)
{
	struct refs r = { .view = view, .class_id = class_id, .gone = val_set() };
	struct have have = { 0 };
	char statement[128];
	int rc;

	arena_init(&r.a);
	have.a = &r.a;
	snprintf(statement, sizeof statement, "SELECT ref FROM \"%s\"",
		model_classes[class_id].name);
	rc = sql_query(p->sql, on_ref, &r, statement, "");
	for (uint32_t i = 0; i < r.gone.n && rc == 0; i++) {
		rc = get_row(p, class_id, r.gone.items[i].s, &have);
		if (rc == 0 && have.n > 0)
			rc = remove_row(p, st, class_id, have.values);
	}
	arena_fini(&r.a);
	return rc;
}

int db__projection_forget(struct projection *p)
{
	return sql_run(p->sql, "UPDATE projection SET since = ?", "i", (int64_t)p->index);
}

/* Limits. */

static int64_t bytes_used(struct projection *p)
{
	return (sql_number(p->sql, 0, "PRAGMA page_count", "") -
		       sql_number(p->sql, 0, "PRAGMA freelist_count", "")) *
	       sql_number(p->sql, 0, "PRAGMA page_size", "");
}

int db__projection_prune(struct projection *p)
{
	int64_t oldest = p->time - p->cfg->history_s, time;
	int rc = 0;

	/* in order of the log: the first rows are the oldest; a clock that was wrong for a while
	 * only makes some stay longer */
	while (rc == 0) {
		time = sql_number(
			p->sql, -1, "SELECT time FROM history ORDER BY rowid LIMIT 1", "");
		if (time < 0 || (time >= oldest && bytes_used(p) <= p->cfg->history_bytes))
			break;
		rc = sql_run(p->sql,
			"UPDATE projection SET since = (SELECT max(idx) FROM (SELECT idx FROM "
			"history ORDER BY rowid LIMIT ?))",
			"i", (int64_t)STORE_PRUNE_ROWS);
		if (rc == 0)
			rc = sql_run(p->sql,
				"DELETE FROM history WHERE rowid IN (SELECT rowid FROM history "
				"ORDER BY rowid LIMIT ?)",
				"i", (int64_t)STORE_PRUNE_ROWS);
	}
	return rc;
}

/* Checking. */

struct check {
	struct projection *p;
	struct buf *report;
	uint64_t rows, differences;
};

static void differs(struct check *k, int class_id, const char *ref, const char *what)
{
	if (++k->differences <= CHECK_LINES)
		buf_printf(k->report, "projection: %s %s: %s\n", model_classes[class_id].name, ref,
			what);
}

static void check_row(struct check *k, const struct db_row *row)
{
	struct have have = { 0 };
	struct val *values;
	char what[160];
	struct arena a;
	int rc;

	arena_init(&a);
	have.a = &a;
	values = values_new(&a, row->class_id);
	row_values(row->class_id, row->ref, unpacked(row, &a), values, &a);
	rc = get_row(k->p, row->class_id, row->ref, &have);
	k->rows++;
	if (rc != 0 || have.n == 0)
		differs(k, row->class_id, row->ref, rc != 0 ? "cannot be read" : "is missing");
	for (unsigned i = 1; rc == 0 && i < have.n; i++) {
		if (val_equal(&have.values[i], &values[i]))
			continue;
		snprintf(what, sizeof what, "%s is not what the state has",
			column_at(row->class_id, i));
		differs(k, row->class_id, row->ref, what);
	}
	arena_fini(&a);
}

bool db__projection_check(struct projection *p, const struct db_view *view, struct buf *report)
{
	struct check k = { .p = p, .report = report };
	const struct db_row *row;
	struct db_cursor cursor;
	char statement[128];

	CHECK(p->index <= db_view_index(view));
	for (int c = 0; c < MODEL_CLASS_COUNT; c++) {
		int64_t n;

		if (!db__projected(c))
			continue;
		snprintf(statement, sizeof statement, "SELECT count(*) FROM \"%s\"",
			model_classes[c].name);
		n = sql_number(p->sql, -1, statement, "");
		if (n != (int64_t)db_view_count(view, c))
			differs(&k, c, "rows",
				n < 0 ? "cannot be read" : "more or fewer than the state has");
		cursor = db_rows(view, c);
		while ((row = db_next(&cursor)) != NULL)
			check_row(&k, row);
	}
	if (k.differences > CHECK_LINES)
		buf_printf(report, "projection: %llu differences in all\n",
			(unsigned long long)k.differences);
	if (k.differences == 0)
		buf_printf(report, "projection: %llu rows agree with the state at index %llu\n",
			(unsigned long long)k.rows, (unsigned long long)db_view_index(view));
	return k.differences == 0;
}
