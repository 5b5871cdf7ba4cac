/* Between join.c and join_check.c. */
#pragma once

#include "pool/pool_priv.h"

/* Records of one of the two pools, as the API shows them: of each class by reference. */
struct join_side {
	struct val of[MODEL_CLASS_COUNT];
	const struct val *host; /* this host; the coordinator there */
	const struct val *pool;
	const char *host_ref;
};

struct join {
	struct job *job;
	struct pool *own;
	const struct join_want *want;
	char address[128];   /* of the API there: IP:PORT */
	const char *session; /* there */
	bool recorded;	     /* the record has it: it must not end */
	struct join_side here, there;
};

/* What the checks read of each; of the pool only what the filter selects. */
struct join_class {
	int class_id;
	const char *filter; /* NULL: only here */
};
extern const struct join_class join_classes[];
extern const unsigned join_n_classes;

/* Of records that have come: the pool and the host that leads it. false: that is no pool. */
bool join_side_take(struct join_side *side);

/* {"address", "user", "password", "force"}: all that is in the way, a line for each. */
void join_put_dry(struct job *job, struct pool *pool, const char *given, struct buf *out);

#define JOIN_NOTE "note"
/* The first mismatch as error; or all of them into the set (not NULL), each a set of code and
 * parameters; 0. */
int join_check(struct join *j, struct val *all, struct err *err);
/* What is not in the way, into the same set: JOIN_NOTE and a text. */
void join_notes(struct join *j, struct val *all);
