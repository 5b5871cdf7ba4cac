/* The plane without a network: own numbers in, frames out; frames in, the overlay. Any thread; one
 * mutex, held for microseconds and never by the Raft loop.
 *
 * Frame (docs/formats.md): u8 version, u8 kind, u64 member, boot, number, u16 part, u8 last, u32 n,
 * n rows. A delta has the next number of its sender and the rows that changed, with all their
 * values (none: removed). A whole set comes in parts and bears the number of the last delta in it.
 */
#pragma once

#include "db/plane.h"
#include "rpc/base/env.h"

#include <pthread.h>

enum {
	PLANE_VERSION = 1,
	PLANE_FRAME_MAX = 64 << 10,  /* bytes */
	PLANE_FRAME_FULL = 48 << 10, /* then the next part begins; a row is smaller than the rest */
	PLANE_ROWS_MAX = 8192,	     /* of one member; more are not taken */
	PLANE_VALUES_MAX = 16,	     /* of one row */
	PLANE_VALUE_MAX = 512,	     /* bytes of one, packed */
	PLANE_SOURCES_MAX = 128,     /* former members too */
	PLANE_ASK_MS = 1000,	     /* for a whole set, at most so often */
	PLANE_GONE_MS = 60000,	     /* a removed row is remembered, for events */
};

enum plane_kind { PLANE_DELTA, PLANE_WHOLE, PLANE_ASK };

/* What to do after a frame. */
enum plane_wish {
	PLANE_NOTHING,
	PLANE_ASK_PEER,	  /* something is missing: send it an ASK */
	PLANE_ASKED_FOR,  /* it asks: send it the whole set */
	PLANE_UNREADABLE, /* not believed, nothing of it was taken */
};

struct plane;

/* The plane of a database; NULL: none. In plane_link.c. */
struct plane *db__plane(struct db *db);

struct plane *plane_new(uint64_t member, uint64_t boot);
void plane_free(struct plane *p);
void plane_put(struct plane *p, int class_id, const char *ref, int field, const struct val *v);
void plane_remove(struct plane *p, int class_id, const char *ref);
void plane_sweep(struct plane *p, int class_id);
struct val *plane_read(struct plane *p, int class_id, const char *ref, struct arena *a);
uint64_t plane_changed(struct plane *p, uint64_t from,
	void (*fn)(void *arg, int class_id, const char *ref), void *arg);

/* Told each frame; the bytes are borrowed. */
typedef void (*plane_frame_fn)(void *arg, const struct buf *frame);
/* Every DB_PLANE_TICK_MS: give the frames that are due to fn and make them visible here; drop who
 * is silent. true: something visible has changed. */
bool plane_tick(struct plane *p, uint64_t now_ms, plane_frame_fn fn, void *arg);
/* The whole set, for one peer. */
void plane_whole(struct plane *p, plane_frame_fn fn, void *arg);
void plane_ask(struct plane *p, struct buf *out);
enum plane_wish plane_take(struct plane *p, uint64_t peer, const uint8_t *bytes, size_t n,
	uint64_t now_ms, bool *changed_out);
