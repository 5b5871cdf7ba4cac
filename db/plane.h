/* The volatile plane: numbers of no use after a crash (memory in use, progress), seen on every
 * member without the log. database.md section 5.
 *
 * A member puts its own numbers here; every half second (tasks) or five seconds (the rest) what has
 * changed goes to the others as a frame, and becomes visible here by the same frame. Readers lay
 * them over the rows. Best effort: a lost frame is repaired by a whole set, numbers of a member
 * that is silent for three intervals are dropped, and the fields read their stored, empty value.
 * Only fields that the model calls volatile, and that only the pool writes, are taken. Never the
 * ground of a decision that must be safe.
 */
#pragma once

#include "db/view.h"

enum {
	DB_PLANE_TICK_MS = 500,	   /* of task progress, and so of events about one object */
	DB_PLANE_FRAME_MS = 5000,  /* of all else; a frame goes also when nothing has changed */
	DB_PLANE_WHOLE_MS = 60000, /* the whole set, unasked */
	DB_PLANE_DEAD_MS = 3 * DB_PLANE_FRAME_MS,
};

/* This member's numbers; any thread, no effect without a plane. The value is copied. */
void db_plane_put(struct db *db, int class_id, const char *ref, int field, const struct val *v);
void db_plane_remove(struct db *db, int class_id, const char *ref);
/* Remove those of the class that were not put since the last sweep. */
void db_plane_sweep(struct db *db, int class_id);

/* The numbers over a row, in the arena: one value for each field, VAL_VOID where there is none.
 * NULL: none at all. */
struct val *db_plane_read(const struct db_view *view, const struct db_row *row, struct arena *a);

/* This member's count of visible changes; what has changed after `from` is told to fn, latest
 * first. */
uint64_t db_plane_changed(struct db *db, uint64_t from,
	void (*fn)(void *arg, int class_id, const char *ref), void *arg);
