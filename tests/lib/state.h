/* The state of a database alone, in place of db.c's: entries are applied, there is no log and no
 * network. Included once in a program, which then has no other struct db. One thread. */
#pragma once

#include "db/plane_priv.h"
#include "db/snapshot_priv.h"

#include <stdlib.h>
#include <string.h>

struct db {
	struct views views;
	struct plane *plane; /* NULL: no numbers over rows */
	struct done_table *done;
	struct apply_changes changes; /* of the last entry */
	uint64_t index;
};

struct views *db__views(struct db *db)
{
	return &db->views;
}

struct plane *db__plane(struct db *db)
{
	return db->plane;
}

/* Empty, at index 0. */
static inline void state_open(struct db *db)
{
	memset(db, 0, sizeof *db);
	db__views_init(&db->views);
	db__views_publish(&db->views, mem_new(sizeof(struct db_state)));
	db->done = db__done_new(0);
}

static inline void state_close(struct db *db)
{
	db__views_fini(&db->views);
	db__done_free(db->done);
	free(db->changes.items);
	buf_fini(&db->changes.rows);
}

/* The next entry, of these bytes. */
static inline struct apply_result state_apply_bytes(struct db *db, const struct buf *entry)
{
	struct entry_head head;

	CHECK(entry->len % 8 == 0 && db__entry_head(entry->data, entry->len, &head));
	return db__apply(&db->views, db->done, ++db->index, &head, &db->changes);
}

/* The next entry is this transaction, which ends with it; sequence: of the proposal. */
static inline struct apply_result state_apply(struct db *db, struct db_txn *txn, uint64_t sequence)
{
	struct db_proposal_id id = { 1, 77, sequence };
	struct apply_result res;
	struct buf entry = { 0 };

	db_txn_encode(txn, &id, 1000, &entry);
	db_txn_fini(txn);
	res = state_apply_bytes(db, &entry);
	buf_fini(&entry);
	return res;
}
