/* The seam to the Raft library: one replicated log of opaque entries. No type of the library
 * appears here.
 *
 * Behind it: consensus_raft.c (the library and its state machine), consensus_guard.c (what the
 * library does not do right, see there), consensus_net.c (our own network half), consensus_disk.c
 * (the library's disk half). All functions run on the Raft loop. A broken disk or invariant ends
 * the process (env_die).
 */
#pragma once

#include "db/channel.h"
#include "db/rules.h"

enum consensus_role {
	CONSENSUS_FOLLOWER,
	CONSENSUS_CANDIDATE,
	CONSENSUS_LEADER,
	CONSENSUS_LEADER_READY
};

enum {
	CONSENSUS_IN_FLIGHT_MAX = 256, /* entries the leader has proposed and not applied */
	CONSENSUS_IN_FLIGHT_BYTES = 4 << 20,
	CONSENSUS_ELECTION_MS = 500,
	CONSENSUS_HEARTBEAT_MS = 50,
	CONSENSUS_SPACE_WARN = 128 << 20, /* bytes free on the disk: consensus_watch.c */
	CONSENSUS_SPACE_LOW = 64 << 20,
	CONSENSUS_SPACE_STOP = 32 << 20,
	CONSENSUS_SNAPSHOT_SCARCE = 1024,   /* entries between snapshots when it is scarce */
	CONSENSUS_SNAPSHOT_MAX = 512 << 20, /* bytes: what members take */
	CONSENSUS_SNAPSHOT_LARGE = CONSENSUS_SNAPSHOT_MAX / 2,	  /* it is said */
	CONSENSUS_SNAPSHOT_FULL = CONSENSUS_SNAPSHOT_MAX / 4 * 3, /* room.c */
	CONSENSUS_TERM_JUMP = 1 << 20,				  /* terms by a forced recovery */
	CONSENSUS_NOTE_SLOT = 512,
	CONSENSUS_ASIDE_MAX = 4,	   /* logs kept aside; then nothing more is set aside */
	CONSENSUS_SNAPSHOT_ENTRIES = 8192, /* a snapshot after so many entries */
	CONSENSUS_SNAPSHOT_TRAILING =
		8192, /* entries kept behind it, for members that were away for a moment */
};

struct consensus;
struct raft_io;

struct consensus_voter {
	uint64_t raft_id;
	const char *address; /* opaque text of ours: the member's host uuid */
	bool standby;	     /* it gets the whole log and has no vote */
};

/* What a start finds on its disk before the library has read it. */
struct consensus_found {
	char why[256];	     /* what is wrong with it; "": it is sound */
	bool unreadable;     /* the disk or its rights are to blame */
	bool empty;	     /* nothing was ever written into it */
	uint64_t term, vote; /* newest one, 0: not known; who got the vote in it, 0: nobody */
	uint64_t last_index; /* of snapshot and log; only when sound */
	unsigned n_removed;  /* leftovers of a crash that were removed */
};

/* The disk of one member: the product's is a folder (consensus_disk_open), a simulation has its
 * own. */
struct consensus_disk {
	struct raft_io *io; /* the library's disk half; from attach on */
	/* Is no closed segment left that holds this index? */
	bool (*is_cut)(struct consensus_disk *d, uint64_t index);
	/* Look at the log. installing: index of a snapshot whose installation was begun and not
	 * seen to end, 0: none. */
	void (*look)(struct consensus_disk *d, uint64_t installing, struct consensus_found *out);
	/* Put the log away under another name and begin an empty one of that term, in which the
	 * vote has been given to `vote`. 0; ERR_IO after a log line. */
	int (*set_aside)(struct consensus_disk *d, uint64_t term, uint64_t vote);
	int (*attach)(struct consensus_disk *d); /* 0; ERR_IO after a log line */
	int (*space)(struct consensus_disk *d, uint64_t *bytes_out); /* free; any thread */
	/* The note (consensus_note.c): slots of CONSENSUS_NOTE_SLOT bytes. write: any thread, on
	 * stable storage when it returns 0. */
	int (*note_read)(struct consensus_disk *d, struct buf *out);
	int (*note_write)(struct consensus_disk *d, unsigned slot, const void *p, size_t n);
};

struct consensus_config {
	struct loop *loop;
	uint64_t raft_id;
	const char *address;
	const struct consensus_voter *members; /* this one too; the list is copied */
	unsigned n_members;
	bool witness; /* it stands for election behind all others */
	unsigned election_ms, heartbeat_ms;
	struct consensus_disk *disk;
	/* Tests only: break the guard to see its tests fail; one frame per message of the library.
	 */
	bool merging_off;
	unsigned rules_off;    /* of enum db_rule */
	unsigned part_entries; /* of a frame; 0: NET_PART_ENTRIES */
	/* An entry is committed; called once per entry, in log order, on every member, for at most
	 * so long in one turn; must not fail. */
	void (*apply)(void *arg, uint64_t index, const uint8_t *entry, size_t n);
	/* Taking snapshots. freeze: on the loop, keep what the state is now; encode: on a worker,
	 * that as bytes; thaw: on the loop, let go. */
	void *(*freeze)(void *arg);
	void (*encode)(void *frozen, struct buf *out);
	void (*thaw)(void *frozen);
	/* Restoring one. decode: on a worker, what the bytes say; NULL and why: they are not sound,
	 * the process ends. install: on the loop, show it in place of the state, and own it;
	 * discard: on the loop, it will not be shown. */
	void *(*decode)(void *arg, const uint8_t *bytes, size_t n, const char **why_out);
	void (*install)(void *arg, void *decoded);
	void (*discard)(void *decoded);
	/* On a worker, about once a second: free what nobody sees any more. */
	void (*sweep)(void *arg);
	unsigned snapshot_entries, snapshot_trailing; /* 0: defaults */
	size_t snapshot_large;			      /* 0: the default; tests */
	/* Another configuration is committed, as far as this member knows. May be NULL. */
	void (*configured)(void *arg);
	/* The role, the term or the known leader (0: none) changed. */
	void (*role)(void *arg, enum consensus_role role, uint64_t term, uint64_t leader);
	void *arg;
};

/* The disk half in a data directory, which holds folder `raft` and file `acknowledged`. */
struct consensus_disk *consensus_disk_open(struct loop *loop, const char *dir);
/* Remove what is in the log of a data directory that nobody has open, its metadata left out: for a
 * log of which nothing was ever acknowledged. 0, or ERR_IO with errno. */
int consensus_disk_clear(const char *dir);
/* After the consensus on it has closed, or never opened. */
void consensus_disk_free(struct consensus_disk *disk);

/* Do the last 8 bytes of a snapshot hold the XXH3 of all before them? Every encoded snapshot ends
 * so.
 */
bool consensus_sealed(const uint8_t *bytes, size_t n);

/* Write the first configuration into an empty directory; before any member starts. 0 or ERR_IO
 * after a log line. */
int consensus_bootstrap(struct consensus_disk *disk, uint64_t raft_id, const char *address,
	const struct consensus_voter *voters, unsigned n);

/* Forced recovery, with xpoold stopped: what only lost voters hold is given up. */
struct consensus_recovery {
	char why[512];		   /* this copy cannot be used */
	uint64_t term, last_index; /* what the copy has */
	uint64_t new_term;	   /* far above what the others can have reached since */
	bool fetching;		   /* it was set aside before and is not whole */
};

/* Look, and change nothing. 0; ERR_CORRUPT: why says what is wrong. */
int consensus_recovery_look(struct consensus_disk *d, struct consensus_recovery *out);
/* Append the configuration in the new term. 0; ERR_IO after a log line: do it again. */
int consensus_recover(struct consensus_disk *d, const char *dir, uint64_t raft_id,
	const char *address, const struct consensus_voter *voters, unsigned n,
	const struct consensus_recovery *r);
/* The member's log belongs to an epoch that was given up: set it aside, and fetch at the next
 * start. */
int consensus_abandon(struct consensus_disk *d, uint64_t raft_id);

/* Make the log of a member that joins a pool, under an id that was never used: empty, without a
 * voice until it has fetched everything; one of another pool is set aside. 0; ERR_IO after a log
 * line. */
int consensus_enlist(struct consensus_disk *d, uint64_t raft_id);

/* Load and start. A log that is damaged, or has lost what was acknowledged, is set aside where the
 * others are a majority without it, and fetched from them. 0; ERR_IO after a log line that says
 * what is wrong and what to do. */
int consensus_open(struct consensus **out, const struct consensus_config *config);

/* Frames go out here from now on; call before the loop runs. */
void consensus_connect(struct consensus *c, struct channel *channel);

/* A frame of Raft's own types. 0 or ERR_CORRUPT. */
int consensus_receive(
	struct consensus *c, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n);
void consensus_peer_up(struct consensus *c, uint64_t peer, bool up);

/* Members that come and go; those of the start are there already. false: too many. */
bool consensus_peer_add(struct consensus *c, uint64_t peer);
void consensus_peer_remove(struct consensus *c, uint64_t peer);
/* It is a witness: consensus_step_down never chooses it. */
void consensus_peer_witness(struct consensus *c, uint64_t peer, bool witness);

/* A member in the configuration in force. */
enum consensus_part { CONSENSUS_SPARE, CONSENSUS_STANDBY, CONSENSUS_VOTER };
struct consensus_server {
	uint64_t raft_id;
	enum consensus_part part;
	uint64_t behind; /* on the leader: entries that it is not known to have */
};
/* At most CHANNEL_PEERS_MAX; how many there are. settled_out: that configuration is committed. */
unsigned consensus_servers(
	const struct consensus *c, struct consensus_server *out, bool *settled_out);

/* Leader only: change the configuration by one member, never by the leader itself. VOTER: of a
 * stand-by; takes place as soon as it has the whole log, within one election time-out or not at
 * all, and nothing new enters the log meanwhile. Nothing is done when another change is under way.
 * false: not now, or not a change. consensus_change.c */
enum consensus_step { CONSENSUS_ADD, CONSENSUS_STAND_BY, CONSENSUS_PROMOTE, CONSENSUS_REMOVE };
bool consensus_change(
	struct consensus *c, enum consensus_step step, uint64_t raft_id, const char *address);

/* Leader only: append an entry (at most CONSENSUS_IN_FLIGHT_BYTES). 0; ERR_FULL: wait until
 * something was applied; ERR_CLOSED: not the leader, or not ready. Whether it is committed shows in
 * apply. */
int consensus_submit(struct consensus *c, const uint8_t *entry, size_t n);

/* Leader: hand the lead to that voter, or to the one that has most of the log. Nothing new enters
 * the log meanwhile. Whether it worked shows in the role, within two election time-outs; asked
 * again, it tries again. false: not to this one now (we do not lead, it has no vote, no
 * connection, or another is about to get it). consensus_hand.c */
bool consensus_transfer(struct consensus *c, uint64_t raft_id);
void consensus_step_down(struct consensus *c);

/* Take a snapshot as soon as something more has been applied. */
void consensus_snapshot_soon(struct consensus *c);

/* The state of this member is not what the log makes of it: end the process; the next start sets
 * the log aside. */
void consensus_condemn(struct consensus *c, const char *why);

enum consensus_role consensus_role(const struct consensus *c);
uint64_t consensus_leader(const struct consensus *c); /* raft id, 0: none known */
uint64_t consensus_term(const struct consensus *c);
uint64_t consensus_applied(const struct consensus *c); /* what the state shows */
/* Is a snapshot being decoded? The state shown is an old one, how old nobody can say. */
bool consensus_restoring(const struct consensus *c);
uint64_t consensus_committed(const struct consensus *c); /* as far as this member knows */
bool consensus_is_voter(const struct consensus *c, uint64_t raft_id);
uint64_t consensus_last(const struct consensus *c); /* index of the last entry in the log */
const char *consensus_role_name(enum consensus_role role);

/* Stop and free, then call closed. May crash the library with appends under way: only for
 * simulations, whose disk cancels them first (notes of the library in docs/decisions/0004). The
 * product just exits. */
void consensus_close(struct consensus *c, void (*closed)(void *arg), void *arg);
