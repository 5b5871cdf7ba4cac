/* Floors: a session never goes back in time, wherever it is used (database promise P4).
 *
 * A member answers for a session only while it *holds* it; one member holds a session at a time.
 * Taking it over makes everything visible that was shown or acknowledged to it elsewhere: a cost
 * per hop, not per call. Whoever asks on behalf of a session enters before it first looks at the
 * database and leaves after its last look, before the answer goes out. How: floor.c.
 */
#pragma once

#include "rpc/base/loop.h"

struct db;

enum {
	DB_KEY_LEN = 16,
	DB_HOLDS_MAX = 4096, /* sessions a member holds; the least recently used is forgotten */
};

/* Embed; belongs to the database from an enter that returned false to done. */
struct db_use {
	bool ok; /* false: no leader in time, not held; what is shown may be old */
	void (*done)(struct db_use *u); /* on loop */
	struct loop *loop;
	/* private */
	struct db_use *next;
	struct loop_call call;
	uint8_t key[DB_KEY_LEN];
	uint64_t grant, since_us, deadline_ms;
};

/* Any thread. true: held, look. false: it has to be taken over first; done comes. key: the
 * session, DB_KEY_LEN bytes. */
bool db_use_enter(struct db *db, struct db_use *u, const uint8_t *key, struct loop *loop,
	void (*done)(struct db_use *u));
/* Once for each enter that was ok. true: the answer may go out. false: the session may have been
 * taken meanwhile: enter and leave once more, then what was found may go out. Any thread. */
bool db_use_leave(struct db *db, struct db_use *u);
