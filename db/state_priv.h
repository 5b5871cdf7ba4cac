/* The state behind the views. Written by apply on the Raft loop only.
 *
 * Invariants (db__state_check, run by tests and `xpoolctl db check`):
 *  1. every row is in `modified` under its version, and in uuid, label and relation indexes exactly
 * by its fields;
 *  2. hash and bytes are the sums of the hashes and sizes of all rows; counts are the sizes of the
 * row trees;
 *  3. a state once published is never written again;
 *  4. `set_aside` has the sum of the reservations of each host that has any;
 *  5. the row that shows the active schema says what it is.
 */
#pragma once

#include "db/tree_priv.h"
#include "db/view.h"
#include "rpc/base/env.h"

enum {
	DB_DELETED_MAX = 100000, /* deletions remembered per class */
	KEY_TEXT_MAX = 255,	 /* bytes of a text that its index keeps */
};

/* Immutable, one block: header, offsets, packed values: of the first n_fields of the class, which
 * were all that the schema of its time stored; the others have their initial values. */
struct db_row {
	uint64_t created, modified, hash;
	uint32_t size;
	uint16_t class_id, n_fields;
	char ref[DB_REF_MAX + 1];
	uint32_t offsets[]; /* n_fields + 1, from the start of the row */
};

struct db_gone_row {
	uint64_t created;
	char ref[DB_REF_MAX + 1];
};

struct class_state {
	const struct tree *rows;     /* ref -> row */
	const struct tree *uuids;    /* uuid, created, ref */
	const struct tree *labels;   /* label, created, ref */
	const struct tree *modified; /* version, ref -> row */
	const struct tree *deleted;  /* index, ref -> db_gone_row */
	uint64_t n_rows, n_deleted, horizon;
};

/* Of the reservations of a host. Read at each start, for each host: hence not walked for. */
struct db_sum {
	uint64_t rows;
	int64_t bytes;
};

struct db_state {
	uint64_t index, hash, bytes;
	int64_t time;
	unsigned schema; /* the active one; 0: before the first entry */
	struct class_state classes[MODEL_CLASS_COUNT];
	const struct tree
		*relations[MODEL_RELATION_COUNT + 1]; /* target ref, created, ref of the one side */
	const struct tree *set_aside;		      /* ref of a host -> db_sum */
};

struct garbage {
	struct garbage *next;
	uint64_t epoch;
	size_t n, cap;
	const void **p;
	const struct db_state *whole; /* a state that was replaced with all it has; else NULL */
};

struct reclaim {
	struct garbage *now; /* of the edit under way */
	struct garbage *first, **last;
};

/* Readers and the published state. */
struct views {
	_Atomic(const struct db_state *) root;
	_Atomic uint64_t epoch;
	_Atomic uint64_t pins[DB_PINS_MAX]; /* 0: free */
	_Atomic unsigned pins_used;	    /* those beyond it never were taken */
	struct reclaim reclaim;
	_Atomic(struct garbage *) dead; /* whole states without readers: much to free */
	unsigned schema_max;		/* the newest schema this member runs */
};

void db__views_init(struct views *v);
void db__views_fini(struct views *v);
/* Make next visible; it and what it shares belong to the views from here on. */
void db__views_publish(struct views *v, const struct db_state *next);
struct views *db__views(struct db *db);
/* Free the states that were replaced and have no readers any more. Any one thread at a time. */
void db__views_sweep(struct views *v);

/* A row from its first n values. */
struct db_row *db__row_new(int class_id, const char *ref, uint64_t created, uint64_t modified,
	const struct val *fields, unsigned n);
/* The same row with another value of one stored field, or with another version only. */
struct db_row *db__row_with(
	const struct db_row *old, uint64_t modified, int field, const struct val *value);
struct db_row *db__row_touched(const struct db_row *old, uint64_t modified);

/* Edits of the state under construction; each keeps all indexes. changed: the one field in which
 * old and fresh differ, or one of these. */
enum { DB_ANY_FIELD = -1, DB_NO_FIELD = -2 };
void db__state_put(struct reclaim *r, struct db_state *s, const struct db_row *old,
	const struct db_row *fresh, int changed);
void db__state_delete(
	struct reclaim *r, struct db_state *s, const struct db_row *old, uint64_t index);
const struct db_row *db__state_get(const struct db_state *s, int class_id, const char *ref);

/* May a state be of that schema here? 0: before the first entry. */
bool db__schema_runs(unsigned schema);
/* Does the row that shows the active schema say what it is? */
bool db__schema_shown(const struct db_state *s);
/* Recompute everything from the rows and compare. true: sound; else why says what is not. */
bool db__state_check(const struct db_state *s, char *why, size_t n);
