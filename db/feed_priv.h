/* What entries did to rows, from apply on the Raft loop to the store thread. */
#pragma once

#include "db/entry_priv.h"

/* One record per entry that changed something:
 *   u8 kind, u64 index, u64 state hash, i64 wall time, strings user, task, method, u32 length and
 *   changes; a change: u8 kind, u16 class, string ref, then CREATED and DELETED: u16 n, the first n
 *   values of the row; SET: u16 field, value before, value after. */
enum { FEED_ENTRY, FEED_JUMP };
enum { FEED_CREATED, FEED_DELETED, FEED_SET };

/* Has the class a table? Not what every member has by itself; not sessions: their references log
 * in. */
bool db__projected(int class_id);
/* Is the field a column? Not what comes from elsewhere when it is read. */
bool db__column(const struct model_field *f);
/* Append what became of a row; old or fresh may be NULL. The number of changes. */
unsigned db__feed_row(struct buf *out, const struct db_row *old, const struct db_row *fresh);
