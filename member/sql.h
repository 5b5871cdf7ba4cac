/* SQLite with as little ceremony as the agent needs. Not thread-safe: the owner holds a mutex.
 * types: one letter per parameter: 's' const char *, 'i' int64_t. */
#pragma once

#include "rpc/base/env.h"

#include <pthread.h>

struct sql;
struct sql_row;

/* Opens or makes the file (WAL, synchronous=FULL) and runs the schema. NULL after a log line. */
struct sql *sql_open(struct env *env, const char *path, const char *schema);
void sql_close(struct sql *sql);

/* 0, or ERR_IO after a log line. */
int sql_run(struct sql *sql, const char *statement, const char *types, ...);
int sql_query(struct sql *sql, void (*on_row)(void *arg, struct sql_row *row), void *arg,
	const char *statement, const char *types, ...);
/* The first column of the first row; absent, or what to give when there is none. */
bool sql_text(struct sql *sql, char *out, size_t n, const char *statement, const char *types, ...);
int64_t sql_number(struct sql *sql, int64_t absent, const char *statement, const char *types, ...);

/* Columns of the current row; a NULL reads as "" and 0. */
const char *sql_string(struct sql_row *row, int column);
int64_t sql_int(struct sql_row *row, int column);
