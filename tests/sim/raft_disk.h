/* The disk half of raft_io in memory, for simulations: what was not synced is lost at a crash. */
#pragma once

#include "db/consensus.h"
#include "tests/sim/world.h"

#include <raft.h>

enum { NOTE_SLOTS = 4 };

/* What survives. */
struct image {
	raft_term term;
	raft_id vote;
	raft_index start; /* index of the first entry */
	struct raft_entry *entries;
	size_t n;
	struct { /* the newest snapshot; index 0: none */
		raft_index index, conf_index;
		raft_term term;
		struct raft_configuration conf;
		struct raft_buffer data;
	} snapshot;
	uint8_t note[NOTE_SLOTS][CONSENSUS_NOTE_SLOT];
	size_t note_n[NOTE_SLOTS];
	bool leftover;	  /* the entries are from before the snapshot, which was being installed */
	unsigned n_aside; /* times it was set aside */
	unsigned n_leftover; /* times that an installation was interrupted so */
	unsigned full_mib;   /* free space; 0: plenty */
};

struct disk_append;
struct disk_work;

struct raft_disk {
	struct consensus_disk base;
	struct raft_io io;
	struct world_member *m;
	struct loop *loop;
	struct image *image;
	uint64_t generation;
	unsigned tick_ms;
	raft_io_tick_cb tick;
	struct disk_append *pending;	/* newest first */
	struct disk_work *works;	/* snapshots being taken, put or read */
	unsigned latency_ms, worker_ms; /* of a write; of what runs on a worker */
	int patience_ms;		/* > 0: what random() gives for election time-outs */
	bool stalled; /* its clock gives no ticks: a member that is starved of time */
	bool fail;    /* appends from now on fail with an I/O error */
	bool failed;  /* one has: nothing after it is on the disk */
	bool closed;
};

void raft_disk_init(
	struct raft_disk *d, struct world_member *m, struct loop *loop, struct image *image);
/* Lose entries that were synced, down to this last index, as the library does when they have
 * rotted. */
void image_lose(struct image *image, raft_index last);
raft_index image_last(const struct image *image);
void image_bootstrap(struct image *image, unsigned n_members);
void image_fini(struct image *image);
