/* SQLite with as little ceremony as we need. Not thread-safe: the owner holds a mutex, or is one
 * thread. types: one letter per parameter: 's' const char *, 'i' int64_t. Statements are prepared
 * once per text and kept (SQL_KEPT of them). */
#pragma once

#include "rpc/base/env.h"
#include "rpc/base/val.h"

#include <pthread.h>

struct sql;
struct sql_row;

enum { SQL_KEPT = 256 };

enum sql_mode {
	SQL_DURABLE, /* what has been written is on the disk (WAL, synchronous=FULL) */
	SQL_ORDERED, /* a power cut may take the last writes, never others (synchronous=NORMAL) */
	SQL_READ, /* changes nothing; the file must exist; failures go to sql_why, not to the log */
};

/* Opens or makes the file, readable by its owner alone, and runs the schema (may be ""). NULL after
 * a log line. */
struct sql *sql_open(struct env *env, const char *path, enum sql_mode mode, const char *schema);
void sql_close(struct sql *sql); /* NULL: nothing */

/* 0, or ERR_IO after a log line. */
int sql_run(struct sql *sql, const char *statement, const char *types, ...);
/* The same in a SQL_DURABLE file, without waiting for the disk: a power cut may take it if nothing
 * durable has been written since, never something earlier. */
int sql_run_ordered(struct sql *sql, const char *statement, const char *types, ...);
/* The parameters as n values: void (NULL), string, int, float, bool (0 and 1). */
int sql_run_vals(struct sql *sql, const char *statement, const struct val *values, unsigned n);
int sql_query(struct sql *sql, void (*on_row)(void *arg, struct sql_row *row), void *arg,
	const char *statement, const char *types, ...);
/* The first column of the first row; absent, or what to give when there is none. */
bool sql_text(struct sql *sql, char *out, size_t n, const char *statement, const char *types, ...);
int64_t sql_number(struct sql *sql, int64_t absent, const char *statement, const char *types, ...);

/* Bytes that SQLite has from the heap, in the whole process: pages of its caches, mostly. */
uint64_t sql_memory(void);

/* The last failure in SQLite's words; "" when there was none. */
const char *sql_why(const struct sql *sql);
/* Looks at the whole file: are its pages what they should be? sql_why says what is not. */
bool sql_sound(struct sql *sql);
/* Was it the file itself: damaged, or no database? */
bool sql_damaged(const struct sql *sql);

/* Columns of the current row; a NULL reads as "" and 0. Strings live until the next row. */
const char *sql_string(struct sql_row *row, int column);
int64_t sql_int(struct sql_row *row, int column);
int sql_width(struct sql_row *row);
const char *sql_name(struct sql_row *row, int column);
/* Void, int, float or string; a blob reads as the text of its bytes. */
struct val sql_value(struct sql_row *row, int column);
