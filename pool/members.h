/* The member file: who belongs to a new pool. Written by an administrator, read by `xpoolctl init`
 * on each member and kept in its data directory, where xpoold reads it.
 *
 * {"pool": UUID, "epochs": [ID, ...], "self": 2, "members": [{"id": 1, "host": UUID, "name":
 * "host1", "address": "10.0.0.1", "channel": "10.0.0.1:8300", "certificate": "SHA-256 fingerprint,
 * hexadecimal"}, ...]}
 *
 * "self" only in the kept copy; "epochs" only after a forced recovery: the first epoch has the
 * pool's uuid. A member with "standby": true had no vote when the file was written; one with
 * "witness": true has no host, and no "address". The kept copy follows the rows of the database:
 * "index" is the log index of the list; "left": true says that this member has left the pool, and
 * is not started any more; "begun": true, while it takes the place of another pool, that the log of
 * that one is aside: what is there now is the work of a start that was killed.
 */
#pragma once

#include "db/db.h"

enum { EPOCHS_MAX = 64 };

struct members {
	char pool_uuid[UUID_LEN + 1];
	uint64_t self;
	unsigned n_epochs; /* the number of the epoch */
	char epochs[EPOCHS_MAX]
		   [UUID_LEN + 1]; /* ids, the last is the epoch's, each the next one's parent */
	uint64_t index;
	bool left;
	bool begun; /* of members.next.json: the log that was there is aside */
	unsigned n;
	struct db_member m[CHANNEL_PEERS_MAX];
};

enum { MEMBERS_FILE_MAX = 256 << 10 };

/* false: why (of n bytes) says what is wrong, naming the member and the field. */
bool members_read(const char *path, struct members *out, char *why, size_t n);
/* The same of a text. */
bool members_parse(
	struct arena *a, const char *text, size_t len, struct members *out, char *why, size_t n);
/* One entry of the list, its id left out. */
bool members_parse_one(
	struct arena *a, struct val *entry, struct db_member *out, char *why, size_t n);
/* The opposite. */
void members_put_one(struct buf *out, const struct db_member *m);
/* The file as text. */
void members_put(const struct members *members, struct buf *out);
/* 0, or -1 with errno. */
int members_write(const char *path, const struct members *members);
/* Do their epochs go on where ours end, with this member in their list? NULL, or why not. */
const char *members_unrelated(const struct members *ours, const struct members *theirs);
/* Make the directory that of a member which joins: its log empty (another one is set aside), then
 * members.json. Killed, it is run again. Nothing else uses the directory. 0; ERR_IO after a log
 * line. */
int members_enlist(struct env *env, const char *dir, const struct members *members);
/* A pool of its own for the member that has left `old`, under a new uuid: kept for the next start.
 * 0, or ERR_IO after a log line. */
int members_alone(struct env *env, const char *dir, const struct members *old);
/* What join.c has kept of the pool that has let this host in, epoch.c of a newer epoch of this
 * pool (then the own log is set aside), or members_alone (its log index is 0), taken at the next
 * start: members.json of the pool so far is kept as members.POOL.json. 0: there is nothing; 1:
 * taken, and the directory stays locked until this program begins anew; ERR_IO after a log line. */
#define MEMBERS_NEXT "members.next.json"
#define MEMBERS_JOIN "join.json" /* the join under way, which ends with this */
int members_take_next(struct env *env, const char *dir);
