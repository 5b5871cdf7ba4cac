/* Snapshots of the state, and the helpers that apply.c, state.c and view.c lend for them. */
#pragma once

#include "db/entry_priv.h"

/* Append the snapshot of a frozen state. Any thread. */
void db__snapshot_encode(const struct db_state *s, const struct done_table *done, struct buf *out);

/* A state nobody sees yet, and the results into done (empty before); NULL and why when the bytes
 * are not sound. */
struct db_state *db__snapshot_decode(
	const uint8_t *p, size_t n, struct done_table *done, const char **why_out);

/* The schema it is of, whether this version runs it or not; 0: its checksum does not hold. */
unsigned db__snapshot_schema(const uint8_t *p, size_t n);

/* fixed.c: give a state nobody has seen yet the rows that every state has; some milliseconds. */
void db__state_add_fixed(struct db_state *s);

/* apply.c */
bool db__fits(const struct model_type *type, const struct val *v);
struct done_table *db__done_dup(const struct done_table *done);
void db__done_encode(const struct done_table *done, struct buf *out);
bool db__done_decode(struct done_table *done, struct reader *r);

/* state.c: index is 8 bytes, big-endian */
void db__state_put_deleted(struct reclaim *r, struct class_state *cs, const char *ref,
	uint64_t created, const uint8_t *index);

/* view.c */
void db__state_free(const struct db_state *s);
/* Free what was retired, at once: only while nobody else has seen it. */
void db__reclaim_now(struct reclaim *r);
/* Show another state; the old one is for db__views_sweep when its readers have gone. */
void db__views_replace(struct views *v, const struct db_state *next);
