/* The projection: what the state is and was, in a SQLite file, for people. Four parts:
 *
 *   feed.c        on the Raft loop: what an entry changed, as bytes
 *   store.c       the store thread and its queue; catching up from a view
 *   projection.c  the file: tables, history, setting aside
 *   dump.c        the state as the reference's XML, and the dumps kept of it
 *
 * Never a source of a start or of a snapshot: whatever is wrong with the file, it is set aside and
 * made anew, and the member does not notice.
 */
#pragma once

#include "db/db.h"
#include "db/feed_priv.h"
#include "rpc/base/sql.h"

#include <sys/stat.h>

#define DUMPS_BYTES (2ull << 30) /* of each kind: then fewer are kept */

enum {
	STORE_QUEUE_MAX = 16 << 20,	  /* bytes of changes that wait for the thread */
	STORE_GATHER_MS = 250,		  /* changes gather so long before they are written */
	STORE_TICK_MS = 5000,		  /* the thread looks around at least so often */
	STORE_RETRY_MS = 10000,		  /* after a failure to write */
	STORE_HISTORY_S = 30 * 24 * 3600, /* of pool time */
	STORE_HISTORY_BYTES = 1 << 30,	  /* of the file */
	STORE_PRUNE_ROWS = 1000,	  /* of history, removed by one statement */
	PROJECTION_SETS_MAX = 32,	  /* fields of a row written by one statement */
	STORE_ASIDE_MAX = 3,		  /* files set aside that are kept */
	DUMPS_HOURLY = 24,		  /* kept; and of those that are daily */
	DUMPS_DAILY = 14,
	DUMPS_LOOK_MS = 60000,	 /* is one due? */
	DUMPS_RETRY_MS = 600000, /* after a failure */
};

/* store.c */
struct store;
struct store_config {
	struct env *env;
	struct db *db; /* for its views */
	const char *dir, *pool_uuid;
	uint64_t epoch;
	/* 0: the limits above; tests set small ones */
	size_t queue_max;
	int64_t history_s, history_bytes;
};

struct store *db__store_new(const struct store_config *config);
/* Begin to write. last: of the log, a file that knows more is not of this state. */
void db__store_start(struct store *s, uint64_t last);
/* Write what waits and end the thread. */
void db__store_free(struct store *s);

/* Raft loop, once per entry, after it is visible. Never waits. */
void db__store_feed(struct store *s, uint64_t index, uint64_t hash, const struct entry_head *head,
	const struct apply_changes *changes);
/* Raft loop: the state has been replaced by that of a snapshot. */
void db__store_jump(struct store *s, uint64_t index, uint64_t hash);

/* A question to the thread: answered when everything that is visible now has been written, or the
 * file cannot be written (ok false, report says why). check: compare every row. */
struct store_ask {
	struct store_ask *next;
	bool check, ok;
	struct buf report;
	void (*answered)(struct store_ask *ask); /* on the store thread */
};
void db__store_ask(struct store *s, struct store_ask *ask);

/* projection.c. All on the store thread. */
struct projection {
	const struct store_config *cfg;
	char path[512];
	struct sql *sql;      /* NULL: not open */
	uint64_t index, hash; /* the file has exactly this */
	int64_t time;	      /* pool time */
	bool fresh; /* made by this open: nothing in it, and no history of what comes first */
	dev_t dev;
	ino_t ino;
};

/* Where a change comes from. */
struct stamp {
	uint64_t index;
	int64_t time;
	struct db_origin origin;
};

/* Open the file, or set it aside and make a new one when it is not sound, not ours, or further than
 * `most`. 0; ERR_IO: not even a new one can be made. */
int db__projection_open(struct projection *p, uint64_t most);
void db__projection_close(struct projection *p);
/* Close it and give it another name; `why` goes to the log. */
void db__projection_aside(struct projection *p, const char *why);
/* Is the file that is open still the one of that name? */
bool db__projection_there(const struct projection *p);

/* One transaction; everything below returns 0 or ERR_IO. A commit makes index, hash and time true.
 */
int db__projection_begin(struct projection *p);
int db__projection_commit(struct projection *p);
/* st NULL: no history. */
int db__projection_created(struct projection *p, const struct stamp *st, int class_id,
	const char *ref, const struct val *fields);
int db__projection_deleted(struct projection *p, const struct stamp *st, int class_id,
	const char *ref, const struct val *fields);
/* n at most PROJECTION_SETS_MAX; of a field that comes twice the last counts. */
struct field_change {
	int field;
	struct val old, fresh;
};
int db__projection_set(struct projection *p, const struct stamp *st, int class_id, const char *ref,
	const struct field_change *changes, unsigned n);
/* Make the file's row what the state's is, with history where they differ. */
int db__projection_settle(struct projection *p, const struct stamp *st, const struct db_row *row);
/* Delete the rows of a class that the view does not have. */
int db__projection_weed(
	struct projection *p, const struct stamp *st, const struct db_view *view, int class_id);
/* Say that history begins at the file's index. */
int db__projection_forget(struct projection *p);
/* Remove history beyond the limits. */
int db__projection_prune(struct projection *p);
/* Compare with a view at the same index; false and a report when something differs. */
bool db__projection_check(struct projection *p, const struct db_view *view, struct buf *report);

/* dump.c, store thread: write a dump when one is due, remove those beyond the limits. Milliseconds
 * until it wants to be asked again. */
uint64_t db__dumps_keep(const struct store_config *cfg);
