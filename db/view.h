/* Consistent snapshots of the whole object database, for any thread, without locks.
 *
 * Pin a view, read, unpin. Everything read from it (rows, strings) is borrowed until then. Pin for
 * one call, not for minutes: memory of replaced rows stays as long. At most DB_PINS_MAX pins at a
 * time.
 */
#pragma once

#include "model/model.h"

enum { DB_REF_MAX = 63, DB_PINS_MAX = 1024, DB_KEY_MAX = 384 };

struct db;
struct db_row;
struct db_state;

struct db_view {
	const struct db_state *state;
	struct db *db;
	unsigned slot;
};

void db_view_pin(struct db *db, struct db_view *out);
void db_view_unpin(struct db_view *view);

uint64_t db_view_index(const struct db_view *view); /* log index this view is at */
int64_t db_view_time(
	const struct db_view *view); /* pool time: largest wall time seen in entries, seconds */
unsigned db_view_schema(const struct db_view *view); /* the active one; 0: of an empty database */
uint64_t db_view_hash(
	const struct db_view *view); /* of all rows; equal on members at equal index */
uint64_t db_view_count(const struct db_view *view, int class_id);
/* Deletions at or before this index are no longer known. */
uint64_t db_view_horizon(const struct db_view *view, int class_id);

/* NULL when there is none. */
const struct db_row *db_view_get(const struct db_view *view, int class_id, const char *ref);
const struct db_row *db_view_by_uuid(const struct db_view *view, int class_id, const char *uuid);

const char *db_row_ref(const struct db_row *row);
int db_row_class(const struct db_row *row);
uint64_t db_row_created(const struct db_row *row);  /* index */
uint64_t db_row_modified(const struct db_row *row); /* index; the row's version */
/* A field; its arrays in the arena, its strings in the row. What the row does not have (derived
 * fields, those of a newer schema) reads its initial value. */
struct val db_row_field(const struct db_row *row, int field, struct arena *a);
/* Shortcuts for fields of that type. */
const char *db_row_s(const struct db_row *row, int field);
int64_t db_row_i(const struct db_row *row, int field);
bool db_row_b(const struct db_row *row, int field);

/* Walks. A cursor is a value: copy it, drop it. Order: by reference for rows; by creation for label
 * and relation; by index for modified and deleted. */
struct db_cursor {
	const struct db_view *view;
	const void *tree;
	int class_id; /* of the rows it gives */
	int kind;
	unsigned prefix;
	unsigned n;   /* of the key where it begins */
	unsigned run; /* entries from at on that lie side by side */
	const void *at;
	char key[DB_KEY_MAX];
};

struct db_cursor db_rows(const struct db_view *view, int class_id);
struct db_cursor db_rows_with_label(const struct db_view *view, int class_id, const char *label);
/* The rows on the one side of a relation that refer to ref. */
struct db_cursor db_rows_related(const struct db_view *view, int relation, const char *ref);
/* The sum of an int field over these rows; that of the memory set aside on a host is kept. */
int64_t db_sum_related(const struct db_view *view, int relation, const char *ref, int field);
struct db_cursor db_rows_modified(const struct db_view *view, int class_id, uint64_t after_index);
/* The next row; NULL at the end. */
const struct db_row *db_next(struct db_cursor *c);

struct db_gone {
	const char *ref;
	uint64_t created, deleted;
};
struct db_cursor db_deleted(const struct db_view *view, int class_id, uint64_t after_index);
bool db_next_deleted(struct db_cursor *c, struct db_gone *out);
