/* A member of a simulated pool: the product's database, channel, guard and network half in a world,
 * and a lane for its jobs. It lives many times on one image. */
#pragma once

#include "db/db_priv.h"
#include "rpc/base/lane.h"
#include "tests/sim/raft_disk.h"

struct life {
	struct test *t;	       /* the program's own */
	struct workload *load; /* what its clients do */
	struct image image;
	bool fresh; /* it begins with no log, under an id that was never used */
	/* of this life */
	struct world_member *m;
	struct db *db;
	struct loop *loop;
	struct lane *lane;
	struct raft_disk disk;
	bool up, closed;
	unsigned n_users; /* jobs of sessions that run */
};

/* Snapshots and comparisons are frequent; its functions get the life as arg. */
struct db_config life_config(
	struct life *l, void (*applied)(void *arg, const struct db_applied *what));
/* Member `number` of the world with the id of config. */
void life_begin(struct life *l, struct world *w, unsigned number, struct db_config *config);
/* As by SIGKILL: what was not synced is lost. Nothing to do when it is not up. */
void life_end(struct life *l);

struct db_member life_member(unsigned number, uint64_t raft_id);

/* The first hash that any member had at an index. */
struct hashes {
	uint64_t *of; /* by index; 0: none */
	bool diverged;
};
void hashes_init(struct hashes *h);
void hashes_fini(struct hashes *h);
void hashes_note(struct hashes *h, uint64_t index, const struct db_view *view);
