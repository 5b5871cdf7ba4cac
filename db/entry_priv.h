/* The form of log entries, for txn.c (writer) and apply.c (reader). docs/formats.md describes it.
 */
#pragma once

#include "db/rules.h"
#include "db/state_priv.h"
#include "db/txn.h"

enum { ENTRY_MAGIC = 0x31504c58 /* "XLP1" */ };

enum { NEED_ROW, NEED_NO_ROW, NEED_FIELD, NEED_NO_KEY, NEED_VERSION, NEED_SUM };
enum {
	OP_CREATE,
	OP_DELETE,
	OP_SET,
	OP_SET_ADD,
	OP_SET_REMOVE,
	OP_MAP_ADD,
	OP_MAP_REMOVE,
	OP_TOUCH,
	OP_RAISE
};

/* The row of class _config that shows the active schema; apply alone writes it. */
#define DB_SCHEMA_REF "schema"

struct entry_head {
	uint16_t format, schema;
	uint8_t reason;
	struct db_proposal_id id;
	int64_t wall;
	struct db_origin origin; /* points into the entry */
	struct reader body;	 /* at the preconditions */
};

/* false: this is no entry. */
bool db__entry_head(const void *data, size_t n, struct entry_head *out);

/* FOREIGN: the state would be of a schema this member does not run. */
enum apply_status { APPLY_DONE, APPLY_REFUSED, APPLY_BROKEN, APPLY_FOREIGN };

/* Instead of the number of a precondition: a row that it would enlarge is full (DB_ROW_FULL of
 * db.h); made under another schema than the active one; a value does not fit its field; decided so
 * long ago that it is forgotten. */
enum { APPLY_FULL = UINT16_MAX - 3, APPLY_SCHEMA, APPLY_MISFIT, APPLY_FORGOTTEN };

/* Can it be applied while its schema is the active one? DONE: yes; REFUSED: it will be refused;
 * BROKEN: not readable, or of a newer build. */
enum apply_status db__entry_check(const struct entry_head *head);

/* Do clients write it, and does it make rows of that state larger, or more? It is readable. */
bool db__entry_grows(const struct entry_head *head, const struct db_state *s);

struct apply_result {
	enum apply_status status;
	unsigned failed; /* APPLY_REFUSED: number of the precondition; APPLY_FOREIGN: schema */
	bool duplicate;	 /* this is the result of an earlier entry with the same id */
	uint64_t index;	 /* of the entry that has the effect */
};

/* What changed, told after the state is visible. */
struct change {
	int class_id;
	char ref[DB_REF_MAX + 1];
};

struct apply_changes {
	struct change *items;
	unsigned n, cap;
	bool keep_rows; /* wanted: what became of the rows, for the projection (feed.c) */
	struct buf rows;
	unsigned n_rows;
};

/* Results of proposals, so that a repeated one is recognised (the _done table: replicated by being
 * derived from the log alone). */
struct done_table;
struct done_table *db__done_new(unsigned rules_off);
void db__done_free(struct done_table *done);
/* Has an entry with that id been applied? Also when it is so long ago that it is forgotten. */
bool db__done_has(const struct done_table *done, const struct db_proposal_id *id);

/* Apply one entry at index. Deterministic: uses the entry and the state, nothing else. Publishes
 * the new state. */
struct apply_result db__apply(struct views *v, struct done_table *done, uint64_t index,
	const struct entry_head *head, struct apply_changes *changes);
