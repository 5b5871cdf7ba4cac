/* How much room the database has left: a snapshot of it has to stay below CONSENSUS_SNAPSHOT_MAX,
 * or no member takes it.
 *
 * Beyond CONSENSUS_SNAPSHOT_FULL the coordinator takes nothing from clients that makes rows larger,
 * or more. It refuses before the entry is in the log, so members need not agree about sizes. What
 * makes rows smaller is taken, and so is what the pool itself has to write: for that there is the
 * rest.
 *
 * How large a snapshot would be now follows from the last one. What rows have grown by since counts
 * in full, as if it could not be packed; where they have shrunk, the snapshot has in proportion. If
 * that is what makes it full, another one is taken soon, and the guess is none any more.
 */
#include "db/db_priv.h"

#include <stdio.h>

enum { GUESS_PART = 8 /* of the limit: a guess above it is looked at */ };

static uint64_t limit(const struct db *db)
{
	return db->cfg.snapshot_large == 0 ? (uint64_t)CONSENSUS_SNAPSHOT_FULL
					   : db->cfg.snapshot_large + db->cfg.snapshot_large / 2;
}

static uint64_t guess(const struct room *room, uint64_t rows)
{
	return rows >= room->rows ? room->packed + (rows - room->rows)
				  : room->packed * rows / room->rows;
}

static void look(struct db *db, uint64_t rows)
{
	struct room *room = &db->room;
	bool full;

	room->now = guess(room, rows);
	full = room->now > limit(db);
	if (full && room->now > room->packed + limit(db) / GUESS_PART)
		consensus_snapshot_soon(db->consensus);
	if (full == room->full)
		return;
	room->full = full;
	if (full)
		log_warn(db->cfg.loop->env,
			"event=database_full mib=%llu limit_mib=%llu remedy=\"destroy what is not "
			"needed: until then nothing is taken that makes it larger\"",
			(unsigned long long)room->now >> 20, (unsigned long long)limit(db) >> 20);
	else
		log_info(db->cfg.loop->env, "event=database_has_room mib=%llu limit_mib=%llu",
			(unsigned long long)room->now >> 20, (unsigned long long)limit(db) >> 20);
}

void db__room_measured(struct db *db, uint64_t packed, uint64_t rows)
{
	loop_assert(db->cfg.loop);
	db->room.packed = packed;
	db->room.rows = rows;
	db->applied_any = true; /* the turn looks */
}

void db__room_turn(struct db *db)
{
	loop_assert(db->cfg.loop);
	look(db, db->views.root->bytes);
}

bool db__room_lacks(struct db *db, const struct entry_head *head)
{
	loop_assert(db->cfg.loop);
	return db->room.now > limit(db) && db__entry_grows(head, db->views.root);
}

bool db_full(struct db *db, struct err *err)
{
	uint64_t now = db->room.now;
	char why[160];

	if (now <= limit(db))
		return false;
	snprintf(why, sizeof why,
		"the database is full: it has %llu MiB of %llu; destroy what is not needed (VMs, "
		"snapshots, messages, long values)",
		(unsigned long long)now >> 20, (unsigned long long)limit(db) >> 20);
	err_set(err, ERR_OPERATION_NOT_ALLOWED, why, NULL);
	return true;
}
