/* What the clients of a simulated pool do, and what must hold for them. Jobs on each member commit
 * transactions, raise one counter by comparing and setting, look behind a read index and use
 * sessions on all members; followers of changes go from member to member with a token. Checked:
 *  - everything acknowledged is there unless it was deleted, what was deleted stays so and its
 *    devices with it, and nothing was done twice: no fresh row is refused, the counter stands at no
 *    less than its acknowledged and no more than its possible steps;
 *  - behind a read index everything is visible that was acknowledged anywhere before it was asked
 *    for;
 *  - no call of a session sees less than an earlier one was shown or acknowledged, anywhere;
 *  - a follower of changes sees each row made and deleted exactly once, in order, wherever it asks.
 */
#pragma once

#include "db/floor.h"
#include "tests/sim/life.h"

enum { FOLLOWERS = 2, SESSIONS = 3 };

/* A client of events: the index it has seen, and how many rows there are by what it was told. */
struct follower {
	uint64_t token;
	unsigned n_there;
};

struct workload {
	struct world *w;
	char (*acked)[DB_REF_MAX + 1];
	uint8_t *fates;						/* enum fate, by the same place */
	unsigned n_acked, n_unknown, n_refused, n_dead, n_anew; /* n_anew: refused for the raise */
	unsigned steps, maybe_steps; /* of the counter: acknowledged, unknown */
	uint64_t acked_index;	     /* the largest that was acknowledged anywhere */
	unsigned n_reads, n_unread;
	uint64_t shown[SESSIONS]; /* the largest index that an ended call of it saw */
	unsigned n_uses, n_hops, n_unheld;
	uint64_t longest_us; /* call of a session in workload_use_all */
	bool disordered, stale, back;
	struct follower followers[FOLLOWERS];
};

void workload_init(struct workload *wl, struct world *w);
void workload_fini(struct workload *wl);
/* At a member that is up; its load is this one. */
void workload_start(struct life *l);
/* Each session once, in one place. */
void workload_use_all(struct life *l);
/* The follower asks there for what is new. */
void workload_follow(struct workload *wl, unsigned who, struct life *l);
/* At the end. Each row was made and deleted once for a follower that has seen this view, and the
 * counter is right; false: said on stdout. */
bool workload_once(struct workload *wl, const struct db_view *view);
/* Rows that are not as they were acknowledged. */
unsigned workload_lost(struct workload *wl, const struct db_view *view);

/* Does the build know two schemas (tests/schema)? */
bool mixed(void);
