/* A world for tests: several members in one process on virtual time. One event heap; threads of
 * jobs run one at a time, handing a baton on in park(); wires between members with delay, loss,
 * cuts; death as a call. A seed is a history: the same seed gives the same events, which
 * world_hash() shows.
 */
#pragma once

#include "rpc/base/loop.h"

enum { WORLD_MEMBERS_MAX = 8, WORLD_DELAY_MS = 5 /* of a frame, at most, to begin with */ };

struct world;

struct world_member {
	struct env env; /* first: what the member sees */
	struct world *w;
	unsigned number; /* 1.. */
	bool alive;
	uint64_t generation; /* one per life */
	uint8_t fingerprint[32];
	int64_t wall_ahead_s; /* its wall clock, over lives */
};

struct world {
	uint64_t now_us, sequence, random, hash;
	struct world_event *heap;
	size_t n, cap;
	struct sim_thread *threads, *baton;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	struct world_member members[WORLD_MEMBERS_MAX + 1]; /* by number */
	struct wire_end *ends;
	struct wire_port *ports;
	bool cut[WORLD_MEMBERS_MAX + 1][WORLD_MEMBERS_MAX + 1]; /* from, to */
	unsigned loss_permille, duplicate_permille, delay_max_ms;
	uint64_t frames, dropped, duplicated;
	/* May drop a frame: true. type is the frame's type byte, n its payload. */
	bool (*filter)(void *arg, unsigned from, unsigned to, uint8_t type, size_t n);
	void *filter_arg;
	unsigned bytes_per_ms; /* of each wire; 0: any number */
	/* Sees every frame that arrives. */
	void (*arrived)(void *arg, unsigned from, unsigned to, uint8_t type);
	void *arrived_arg;
	/* Sees every frame that is sent. */
	void (*watch)(void *arg, uint8_t type, const uint8_t *payload, size_t n);
	void *watch_arg;
};

void world_init(struct world *w, uint64_t seed);
void world_fini(struct world *w);
uint64_t world_random(struct world *w, uint64_t below);
uint64_t world_hash(const struct world *w);

/* Run events until that time. */
void world_run(struct world *w, uint64_t until_us);
/* Run until done() holds; false: it did not within ms. */
bool world_until(struct world *w, bool (*done)(void *arg), void *arg, uint64_t ms);
/* fn(arg) at that time; dropped (arg with it: not freed) when the member's life has ended. Member
 * 0: always. */
void world_at(
	struct world *w, uint64_t after_us, unsigned member, void (*fn)(void *arg), void *arg);

/* Begin a life. */
struct world_member *world_boot(struct world *w, unsigned number);
/* End it: wires break, jobs run out with ERR_DEAD, loops run no more. */
void world_kill(struct world *w, unsigned number);

/* Run on behalf of a loop: a callback of a simulated disk. */
void world_loop_turn(struct loop *loop);

/* Pretty certificates: what stream_fingerprint() says of a member. */
void world_fingerprint(unsigned number, uint8_t out[32]);
