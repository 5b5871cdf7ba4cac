#include "member/sql.h"

#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SQL_BUSY_MS = 5000 };

struct sql {
	struct env *env;
	sqlite3 *db;
};

struct sql_row {
	sqlite3_stmt *stmt;
};

struct sql *sql_open(struct env *env, const char *path, const char *schema)
{
	struct sql *sql = mem_new(sizeof *sql);

	sql->env = env;
	if (sqlite3_open(path, &sql->db) != SQLITE_OK ||
		sqlite3_busy_timeout(sql->db, SQL_BUSY_MS) != SQLITE_OK ||
		sqlite3_exec(sql->db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;", NULL,
			NULL, NULL) != SQLITE_OK ||
		sqlite3_exec(sql->db, schema, NULL, NULL, NULL) != SQLITE_OK) {
		log_err(env, "event=database_unusable file=%s why=\"%s\"", path,
			sqlite3_errmsg(sql->db));
		sql_close(sql);
		return NULL;
	}
	return sql;
}

void sql_close(struct sql *sql)
{
	sqlite3_close(sql->db);
	free(sql);
}

static int walk(struct sql *sql, void (*on_row)(void *arg, struct sql_row *row), void *arg,
	const char *statement, const char *types, va_list ap)
{
	struct sql_row row = { NULL };
	int r = sqlite3_prepare_v2(sql->db, statement, -1, &row.stmt, NULL);

	for (int i = 0; r == SQLITE_OK && types[i] != 0; i++)
		r = types[i] == 's' ? sqlite3_bind_text(row.stmt, i + 1, va_arg(ap, const char *),
					      -1, SQLITE_TRANSIENT)
				    : sqlite3_bind_int64(row.stmt, i + 1, va_arg(ap, int64_t));
	while (r == SQLITE_OK || r == SQLITE_ROW) {
		r = sqlite3_step(row.stmt);
		if (r == SQLITE_ROW && on_row != NULL)
			on_row(arg, &row);
	}
	if (r != SQLITE_DONE)
		log_err(sql->env, "event=statement_failed statement=\"%s\" why=\"%s\"", statement,
			sqlite3_errmsg(sql->db));
	sqlite3_finalize(row.stmt);
	return r == SQLITE_DONE ? 0 : ERR_IO;
}

int sql_run(struct sql *sql, const char *statement, const char *types, ...)
{
	va_list ap;
	int rc;

	va_start(ap, types);
	rc = walk(sql, NULL, NULL, statement, types, ap);
	va_end(ap);
	return rc;
}

int sql_query(struct sql *sql, void (*on_row)(void *arg, struct sql_row *row), void *arg,
	const char *statement, const char *types, ...)
{
	va_list ap;
	int rc;

	va_start(ap, types);
	rc = walk(sql, on_row, arg, statement, types, ap);
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
	walk(sql, on_first, &f, statement, types, ap);
	va_end(ap);
	return f.found;
}

int64_t sql_number(struct sql *sql, int64_t absent, const char *statement, const char *types, ...)
{
	struct first f = { 0 };
	va_list ap;

	va_start(ap, types);
	walk(sql, on_first, &f, statement, types, ap);
	va_end(ap);
	return f.found ? f.number : absent;
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
