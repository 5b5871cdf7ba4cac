/* Which change of the membership comes next: a pure function of what is wanted and what is. */
#pragma once

#include "db/consensus.h"

enum plan_state { PLAN_JOINING, PLAN_JOINED, PLAN_LEAVING };	      /* what its row says */
enum plan_part { PLAN_ABSENT, PLAN_SPARE, PLAN_STANDBY, PLAN_VOTER }; /* in the configuration */

struct plan_member {
	uint64_t raft_id;
	enum plan_state state;
	enum plan_part part;
	uint64_t silence_ms; /* 0: in contact */
	bool current;	     /* it has (nearly) the whole log */
	bool self;	     /* the leader, who plans */
	bool asked;	     /* it wants to lead */
	bool witness;	     /* it has no host: others vote rather than it */
};

enum plan_step {
	PLAN_NOTHING,
	PLAN_ADD,
	PLAN_STAND_BY, /* of a new one, or no vote any more */
	PLAN_PROMOTE,
	PLAN_REMOVE,
	PLAN_WRITE_JOINED, /* its row */
	PLAN_WRITE_LEFT,
	PLAN_STEP_DOWN,
};

struct plan {
	enum plan_step step;
	unsigned who; /* place in the list */
};

/* most: voters at most, odd. lost_ms: a voter silent for so long is replaced. */
struct plan db__members_plan(
	const struct plan_member *m, unsigned n, unsigned most, uint64_t lost_ms);
