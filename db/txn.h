/* Transactions: what a log entry says. Built by any thread, applied on every member in log order.
 *
 * An entry holds everything: references, uuids, times and random numbers are made by whoever builds
 * it. Apply knows rows, fields and the preconditions of this closed list, never XenAPI rules. Names
 * of classes and fields are in the entry as text, so that builds with other tables agree. Format:
 * docs/formats.md.
 */
#pragma once

#include "db/view.h"

/* Why the entry exists: counted, shown by `xpoolctl counters`. */
enum db_reason {
	DB_FOR_FIELD,
	DB_FOR_SESSION,
	DB_FOR_ADMIT,
	DB_FOR_START,
	DB_FOR_FINISH,
	DB_FOR_FACTS,
	DB_FOR_SWEEP,
	DB_FOR_EVENT,
	DB_FOR_CONFIG,
	DB_REASON_COUNT
};

enum {
	DB_ENTRY_MAX = 1 << 20, /* bytes */
	DB_ROW_MAX = 8 << 20,	/* bytes of a row that clients fill; by one entry it gets past it,
				 * then it does not grow */
	DB_FORMAT =
		3, /* a newer one goes with a newer schema, and is written while that is active */
	DB_ORIGIN_MAX = 127, /* bytes of each text of an origin; what is longer is cut off */
};

/* Who asked for it, in which task, by which call: for the history, no rule depends on it. */
struct db_origin {
	const char
		*user; /* the name given at login; "coordinator", "host" for the pool's own work */
	const char *task;   /* its reference; "": none */
	const char *method; /* "VM.set_tags" */
};

struct db_txn {
	enum db_reason reason;
	struct buf origin, preconditions, ops;
	uint32_t n_preconditions, n_ops;
	unsigned schema; /* of the view it was made from; 0: the active one when it is sent */
};

void db_txn_init(struct db_txn *t, enum db_reason reason);
void db_txn_fini(struct db_txn *t); /* may be called twice */
/* Copies; a later one replaces it. NULL is "". */
void db_txn_origin(struct db_txn *t, struct db_origin origin);

/* Preconditions; each returns its number, which db_result.failed names when it does not hold. */
unsigned db_txn_need_row(struct db_txn *t, int class_id, const char *ref);
unsigned db_txn_need_no_row(struct db_txn *t, int class_id, const char *ref);
unsigned db_txn_need_field(
	struct db_txn *t, int class_id, const char *ref, int field, struct val value);
unsigned db_txn_need_no_key(
	struct db_txn *t, int class_id, const char *ref, int field, const char *key);
/* The row exists and was last changed at or before index. */
unsigned db_txn_need_version(struct db_txn *t, int class_id, const char *ref, uint64_t index);
/* The integer field summed over all rows related to ref, plus `more`, is at most limit. */
unsigned db_txn_need_sum(
	struct db_txn *t, int relation, const char *ref, int field, int64_t more, int64_t limit);

/* Operations, in order. fields: n of the class; a field with VAL_VOID gets its initial value. */
void db_txn_create(struct db_txn *t, int class_id, const char *ref, const struct val *fields);
void db_txn_delete(struct db_txn *t, int class_id, const char *ref);
void db_txn_set(struct db_txn *t, int class_id, const char *ref, int field, struct val value);
void db_txn_set_add(struct db_txn *t, int class_id, const char *ref, int field, struct val item);
void db_txn_set_remove(struct db_txn *t, int class_id, const char *ref, int field, struct val item);
void db_txn_map_add(struct db_txn *t, int class_id, const char *ref, int field, const char *key,
	struct val value);
void db_txn_map_remove(struct db_txn *t, int class_id, const char *ref, int field, const char *key);
void db_txn_touch(struct db_txn *t, int class_id, const char *ref);
/* Append the operations of another transaction. */
void db_txn_append(struct db_txn *t, const struct db_txn *more);
/* Make schema the active one, if it is newer than that. */
void db_txn_raise(struct db_txn *t, unsigned schema);
/* The same for the newest that all members run, under the condition that they still do; false:
 * there is none that is newer than the active one. */
bool db_schema_raise(const struct db_view *view, struct db_txn *t);
/* The newest schema that all members have said they run; 0: one has said nothing yet. */
unsigned db_schema_common(const struct db_view *view);

/* Who proposes: (raft id, boot, sequence) is the proposal id; a second entry with the same id does
 * nothing. */
struct db_proposal_id {
	uint64_t raft_id, boot, sequence;
};

/* The whole entry, padded to 8 bytes; wall: seconds. */
void db_txn_encode(
	const struct db_txn *t, const struct db_proposal_id *id, int64_t wall, struct buf *out);
