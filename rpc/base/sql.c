#include "rpc/base/sql.h"
#include "rpc/base/hash.h"

#include <ctype.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SQL_BUSY_MS = 5000 };

struct sql {
	struct env *env;
	sqlite3 *db;
	bool quiet, damaged;
	char why[256];
	sqlite3_stmt *kept[SQL_KEPT]; /* by the hash of the text */
};

struct sql_row {
	sqlite3_stmt *stmt;
};

static int failed(struct sql *sql, const char *what, const char *why)
{
	int code = sqlite3_errcode(sql->db) & 0xff;

	sql->damaged = code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
	snprintf(sql->why, sizeof sql->why, "%s", why);
	if (!sql->quiet)
		log_err(sql->env, "event=statement_failed statement=\"%s\" why=\"%s\"", what, why);
	return ERR_IO;
}

/* SQLite would let everybody read it; its helper files take over what this one has. */
static void make_private(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
}

struct sql *sql_open(struct env *env, const char *path, enum sql_mode mode, const char *schema)
{
	struct sql *sql = mem_new(sizeof *sql);
	int flags = mode == SQL_READ ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
	const char *setup = "PRAGMA journal_mode=WAL; PRAGMA journal_size_limit=16777216;"
			    "PRAGMA synchronous=FULL;";

	sql->env = env;
	sql->quiet = mode == SQL_READ;
	if (mode != SQL_READ)
		make_private(path);
	if (mode == SQL_ORDERED) /* written all the time: most of it stays in memory, and pages
				    changed again and again go to the file once */
		setup = "PRAGMA page_size=8192; PRAGMA journal_mode=WAL;"
			"PRAGMA journal_size_limit=16777216; PRAGMA synchronous=NORMAL;"
			"PRAGMA cache_size=-32768; PRAGMA wal_autocheckpoint=4096;";
	if (sqlite3_open_v2(path, &sql->db, flags, NULL) == SQLITE_OK &&
		sqlite3_busy_timeout(sql->db, SQL_BUSY_MS) == SQLITE_OK &&
		(mode == SQL_READ ||
			(sqlite3_exec(sql->db, setup, NULL, NULL, NULL) == SQLITE_OK &&
				sqlite3_exec(sql->db, schema, NULL, NULL, NULL) == SQLITE_OK)))
		return sql;
	if (!sql->quiet)
		log_err(env, "event=database_unusable file=%s why=\"%s\"", path,
			sqlite3_errmsg(sql->db));
	sql_close(sql);
	return NULL;
}

void sql_close(struct sql *sql)
{
	if (sql == NULL)
		return;
	for (unsigned i = 0; i < SQL_KEPT; i++)
		sqlite3_finalize(sql->kept[i]);
	sqlite3_close(sql->db);
	free(sql);
}

/* NULL after a failure. A statement that is being walked already gets a second one, which nobody
 * keeps. */
static sqlite3_stmt *prepared(struct sql *sql, const char *statement)
{
	sqlite3_stmt **kept = &sql->kept[hash_text(statement) % SQL_KEPT], *fresh = NULL;
	const char *tail = "";

	if (*kept != NULL && !sqlite3_stmt_busy(*kept) &&
		strcmp(sqlite3_sql(*kept), statement) == 0)
		return *kept;
	if (sqlite3_prepare_v3(sql->db, statement, -1, SQLITE_PREPARE_PERSISTENT, &fresh, &tail) !=
		SQLITE_OK) {
		failed(sql, statement, sqlite3_errmsg(sql->db));
		return NULL;
	}
	while (isspace((unsigned char)*tail) || *tail == ';')
		tail++;
	if (*tail != 0 || fresh == NULL) {
		failed(sql, statement, fresh == NULL ? "no statement" : "more than one statement");
		sqlite3_finalize(fresh);
		return NULL;
	}
	if (*kept != NULL && sqlite3_stmt_busy(*kept))
		return fresh;
	sqlite3_finalize(*kept);
	*kept = fresh;
	return fresh;
}

static void release(struct sql *sql, const char *statement, sqlite3_stmt *stmt)
{
	if (sql->kept[hash_text(statement) % SQL_KEPT] != stmt) {
		sqlite3_finalize(stmt);
		return;
	}
	sqlite3_reset(stmt);
	sqlite3_clear_bindings(stmt);
}

/* r: of the bindings. */
static int walk(struct sql *sql, const char *statement, sqlite3_stmt *stmt, int r,
	void (*on_row)(void *arg, struct sql_row *row), void *arg)
{
	struct sql_row row = { stmt };
	int rc = 0;

	while (r == SQLITE_OK || r == SQLITE_ROW) {
		r = sqlite3_step(stmt);
		if (r == SQLITE_ROW && on_row != NULL)
			on_row(arg, &row);
	}
	if (r != SQLITE_DONE)
		rc = failed(sql, statement, sqlite3_errmsg(sql->db));
	release(sql, statement, stmt);
	return rc;
}

static int walk_args(struct sql *sql, void (*on_row)(void *arg, struct sql_row *row), void *arg,
	const char *statement, const char *types, va_list ap)
{
	sqlite3_stmt *stmt = prepared(sql, statement);
	int r = SQLITE_OK;

	if (stmt == NULL)
		return ERR_IO;
	for (int i = 0; r == SQLITE_OK && types[i] != 0; i++)
		r = types[i] == 's' ? sqlite3_bind_text(stmt, i + 1, va_arg(ap, const char *), -1,
					      SQLITE_TRANSIENT)
				    : sqlite3_bind_int64(stmt, i + 1, va_arg(ap, int64_t));
	return walk(sql, statement, stmt, r, on_row, arg);
}

int sql_run(struct sql *sql, const char *statement, const char *types, ...)
{
	va_list ap;
	int rc;

	va_start(ap, types);
	rc = walk_args(sql, NULL, NULL, statement, types, ap);
	va_end(ap);
	return rc;
}

int sql_run_ordered(struct sql *sql, const char *statement, const char *types, ...)
{
	va_list ap;
	int rc;

	sqlite3_exec(sql->db, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL);
	va_start(ap, types);
	rc = walk_args(sql, NULL, NULL, statement, types, ap);
	va_end(ap);
	sqlite3_exec(sql->db, "PRAGMA synchronous=FULL", NULL, NULL, NULL);
	return rc;
}

static int bind_value(sqlite3_stmt *stmt, int at, const struct val *v)
{
	switch (v->kind) {
	case VAL_VOID: return sqlite3_bind_null(stmt, at);
	case VAL_STRING: return sqlite3_bind_text(stmt, at, v->s, -1, SQLITE_STATIC);
	case VAL_INT: return sqlite3_bind_int64(stmt, at, v->i);
	case VAL_FLOAT: return sqlite3_bind_double(stmt, at, v->f);
	case VAL_BOOL: return sqlite3_bind_int64(stmt, at, v->b);
	default: UNREACHABLE();
	}
}

int sql_run_vals(struct sql *sql, const char *statement, const struct val *values, unsigned n)
{
	sqlite3_stmt *stmt = prepared(sql, statement);
	int r = SQLITE_OK;

	if (stmt == NULL)
		return ERR_IO;
	CHECK(sqlite3_bind_parameter_count(stmt) == (int)n);
	for (unsigned i = 0; r == SQLITE_OK && i < n; i++)
		r = bind_value(stmt, (int)i + 1, &values[i]);
	return walk(sql, statement, stmt, r, NULL, NULL);
}

int sql_query(struct sql *sql, void (*on_row)(void *arg, struct sql_row *row), void *arg,
	const char *statement, const char *types, ...)
{
	va_list ap;
	int rc;

	va_start(ap, types);
	rc = walk_args(sql, on_row, arg, statement, types, ap);
	va_end(ap);
	return rc;
}

struct first {
	char *text;
	size_t n;
	int64_t number;
	bool found;
};

static void on_first(void *arg, struct sql_row *row)
{
	struct first *f = arg;

	if (f->found)
		return;
	f->found = true;
	f->number = sql_int(row, 0);
	if (f->text != NULL)
		snprintf(f->text, f->n, "%s", sql_string(row, 0));
}

bool sql_text(struct sql *sql, char *out, size_t n, const char *statement, const char *types, ...)
{
	struct first f = { out, n, 0, false };
	va_list ap;

	va_start(ap, types);
	walk_args(sql, on_first, &f, statement, types, ap);
	va_end(ap);
	return f.found;
}

int64_t sql_number(struct sql *sql, int64_t absent, const char *statement, const char *types, ...)
{
	struct first f = { 0 };
	va_list ap;

	va_start(ap, types);
	walk_args(sql, on_first, &f, statement, types, ap);
	va_end(ap);
	return f.found ? f.number : absent;
}

const char *sql_why(const struct sql *sql)
{
	return sql->why;
}

bool sql_sound(struct sql *sql)
{
	char said[sizeof sql->why];

	/* without a row the query has failed, and said why */
	if (!sql_text(sql, said, sizeof said, "PRAGMA quick_check(1)", ""))
		return false;
	if (strcmp(said, "ok") == 0)
		return true;
	snprintf(sql->why, sizeof sql->why, "%s", said);
	return false;
}

bool sql_damaged(const struct sql *sql)
{
	return sql->damaged;
}

const char *sql_string(struct sql_row *row, int column)
{
	const char *s = (const char *)sqlite3_column_text(row->stmt, column);

	return s != NULL ? s : "";
}

int64_t sql_int(struct sql_row *row, int column)
{
	return sqlite3_column_int64(row->stmt, column);
}

int sql_width(struct sql_row *row)
{
	return sqlite3_column_count(row->stmt);
}

const char *sql_name(struct sql_row *row, int column)
{
	return sqlite3_column_name(row->stmt, column);
}

struct val sql_value(struct sql_row *row, int column)
{
	switch (sqlite3_column_type(row->stmt, column)) {
	case SQLITE_NULL: return val_void();
	case SQLITE_INTEGER: return val_int(sqlite3_column_int64(row->stmt, column));
	case SQLITE_FLOAT: return val_float(sqlite3_column_double(row->stmt, column));
	default: return val_string(sql_string(row, column));
	}
}

uint64_t sql_memory(void)
{
	return (uint64_t)sqlite3_memory_used();
}
