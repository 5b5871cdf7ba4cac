/* The replicated object database of one member: state, log, channel to the other members.
 *
 * Reads: view.h. Writes: a transaction (txn.h) is proposed on any member, goes to the leader, and
 * is answered when it is applied *here*. A request goes to the leader's pool code, which turns it
 * into a transaction under the same proposal id or refuses it. Either way it is asked again at
 * every new leader until it is decided or its time is over; the proposal id makes that safe.
 */
#pragma once

#include "db/consensus.h"
#include "db/txn.h"
#include "rpc/base/lane.h"

enum {
	DB_PROPOSALS_MAX = 512,	 /* under way at one member */
	DB_WAITING_MAX = 4096,	 /* and waiting behind them */
	DB_TIMEOUT_MS = 10000,	 /* since the leader was last heard: then nobody waits any more */
	DB_BOOT_EPOCH_BITS = 16, /* at the top of the boot in proposal ids */
	DB_HASH_EVERY = 1000,	 /* entries between comparisons of the state's hash */
	DB_RESEND_MS = 1000,
	DB_VOTER_LOST_MS = 600000, /* then a voter out of contact is replaced */
	DB_FEED_MAX = 4096,	   /* entries waiting at the leader for room in flight */
};

struct db_member {
	uint64_t raft_id;
	char host_uuid[UUID_LEN + 1];
	char name[64];
	char api_address[64];			       /* IP address, host.address */
	char channel_address[80];		       /* IP:port */
	char certificate[2 * TLS_FINGERPRINT_LEN + 1]; /* hexadecimal SHA-256 */
	bool standby; /* it was no voter when the file was written */
	/* It has no host and no API: it votes and keeps the log. Elected, it hands the lead over to
	 * a member that has one, and takes no requests until then. */
	bool witness;
	bool gone;  /* private */
	bool alive; /* private: of one that is gone; it was in contact when it left */
};

struct db_applied {
	uint64_t index;
	enum db_reason reason;
	unsigned n;
	const char *(*ref)(const struct db_applied *what, unsigned i);
	int (*class_id)(const struct db_applied *what, unsigned i);
	const void *changes; /* private */
};

/* Rows of _config: the highest Raft id that was ever given (else that of the rows of _member), and
 * a word of each of the last members that have left, see members.c. */
#define DB_RAFT_IDS "raft ids"
#define DB_LEFT	    "left "

/* The projection's file in the data directory, for `xpoolctl`. */
#define DB_PROJECTION "projection.db"

struct db_config {
	struct loop *loop; /* the Raft loop, not yet started */
	const char *pool_uuid;
	uint64_t epoch; /* number of forced recoveries + 1 */
	const char *epoch_id;
	uint64_t raft_id;
	const struct db_member *members;
	unsigned n_members;
	uint64_t members_index; /* of db_members when the list was kept; 0: of the beginning */
	uint64_t voter_lost_ms; /* 0: default */
	struct tls *tls;
	const char *dir;			      /* data directory; NULL in simulations */
	struct consensus_disk *disk;		      /* given by simulations, NULL: made in dir */
	unsigned election_ms, heartbeat_ms;	      /* 0: defaults */
	unsigned snapshot_entries, snapshot_trailing; /* 0: defaults */
	size_t snapshot_large;			      /* 0: default */
	unsigned hash_every;			      /* 0: default */
	bool projection_off;			      /* no SQLite file beside the log */
	unsigned schema_max;			      /* tests only: as an older version would be */
	unsigned rules_off, part_entries;	      /* tests only: consensus.h */
	/* All on the Raft loop; none may block. */
	void (*applied)(void *arg,
		const struct db_applied
			*what); /* an entry has become visible; n 0: anything may have changed */
	void (*request)(void *arg, const struct db_proposal_id *id, const uint8_t *bytes,
		size_t n); /* leader only */
	void (*role)(void *arg, enum consensus_role role, uint64_t term, uint64_t leader);
	/* What db_members says has changed: keep it for the next start. May be NULL. */
	void (*members_changed)(void *arg);
	/* This member has left the pool: end it. NULL: the process ends. alive: it was in contact
	 * then, so it was not taken for lost. */
	void (*removed)(void *arg, bool alive);
	struct loop *plane_loop;	  /* of the volatile plane; NULL: there is none */
	void (*plane_changed)(void *arg); /* on plane_loop: numbers have changed */
	/* A frame of the pool's own. 0 or ERR_CORRUPT. May be NULL. */
	int (*frame)(void *arg, uint8_t type, const uint8_t *payload, size_t n);
	void *arg;
};

/* 0, or ERR_IO after a log line: directory in use, damaged or never initialised, address in use. */
int db_open(struct db **out, const struct db_config *config);
/* Simulations only: the member has died; closed comes when the library has let go. */
void db_close(struct db *db, void (*closed)(void *arg), void *arg);

enum db_status {
	DB_DONE,    /* applied here at index */
	DB_FAILED,  /* precondition number `failed` did not hold, or DB_ROW_FULL: a row of those to
		     * be written is at DB_ROW_MAX; nothing has changed */
	DB_REFUSED, /* the coordinator refused the request: err; also a transaction, of a database
		     * that is full (db_full) */
	DB_UNKNOWN, /* not decided in time, or more than DB_WAITING_MAX: it may still happen */
};

enum { DB_ROW_FULL = UINT16_MAX - 3 };

struct db_result {
	enum db_status status;
	uint64_t index;
	unsigned failed;
	struct err err;
	uint64_t leader; /* known when it ended, 0: none */
};

/* Embed; belongs to the database from db_propose to done. Fini frees the result. */
struct db_proposal {
	struct db_result result;
	void (*done)(struct db_proposal *p); /* on loop */
	struct loop *loop;
	/* private */
	struct db *db;
	bool is_request;
	struct db_txn txn;
	struct buf bytes;
	uint64_t sequence, deadline_ms, sent_ms;
	struct db_proposal *next;
	struct loop_call call;
};

/* Any thread. The content is taken. Decided within DB_TIMEOUT_MS of when the leader was last heard,
 * at once if that is past, or DB_UNKNOWN (database.md P12). */
void db_propose(struct db *db, struct db_proposal *p, struct db_txn *txn, struct loop *loop,
	void (*done)(struct db_proposal *p));
void db_request(struct db *db, struct db_proposal *p, struct buf *bytes, struct loop *loop,
	void (*done)(struct db_proposal *p));
void db_proposal_fini(struct db_proposal *p);

/* The bridge for jobs; waits DB_TIMEOUT_MS also without a leader. 0 when out is filled (look at its
 * status), ERR_DEAD. */
int db_commit(struct job *job, struct db *db, struct db_txn *txn, struct db_result *out);
/* The same for a request (db_request). */
int db_ask(struct job *job, struct db *db, struct buf *bytes, struct db_result *out);

/* A read index: done when everything that was acknowledged anywhere before this call is visible
 * here. Any thread. */
struct db_barrier {
	bool ok;	/* false: not within DB_TIMEOUT_MS of when the leader was last heard */
	uint64_t index; /* that is visible now */
	void (*done)(struct db_barrier *b); /* on loop */
	struct loop *loop;
	struct db_barrier *next; /* private */
	struct loop_call call;
	uint64_t deadline_ms;
};
void db_read_barrier(
	struct db *db, struct db_barrier *b, struct loop *loop, void (*done)(struct db_barrier *b));
/* The same for an index that is known, above 0. */
void db_await(struct db *db, struct db_barrier *b, uint64_t index, struct loop *loop,
	void (*done)(struct db_barrier *b));
/* The bridge for jobs: a read index. 0, ERR_TIMEOUT, ERR_DEAD. */
int db_read_wait(struct job *job, struct db *db);

/* The leader's answer to a request; any thread. The transaction is taken. Lost when this member
 * leads no more: the member that asked asks again. */
void db_admit(struct db *db, const struct db_proposal_id *id, struct db_txn *txn);
void db_refuse(struct db *db, const struct db_proposal_id *id, struct err *err);

/* A frame of the pool's own, CHANNEL_POOL_FIRST and above, to all members in contact; the others
 * miss it. Any thread; the content is taken. For what comes now and then: nothing bounds the queue.
 */
void db_broadcast(struct db *db, uint8_t type, struct buf *bytes);
/* The same to one member. */
void db_send(struct db *db, uint64_t raft_id, uint8_t type, struct buf *bytes);

/* Is the database so large that nothing is taken which makes it larger? Then err says so. Any
 * thread. */
bool db_full(struct db *db, struct err *err);

struct db_stat {
	enum consensus_role role;
	uint64_t term, leader, applied, last, hash, index;
	bool voter; /* this member has a vote */
};
/* As last seen by the Raft loop; any thread. */
void db_stat(struct db *db, struct db_stat *out);
bool db_is_coordinator(struct db *db);
/* Hand the lead to another member, if this one has it: before a planned stop. Any thread; db_stat
 * tells when. */
void db_step_down(struct db *db);
/* The bridge for jobs: ask the leader to hand the lead to this member; a stand-by gets a vote
 * first. 0: it leads and serves; ERR_TIMEOUT: not within DB_TIMEOUT_MS; ERR_CANCELLED, ERR_DEAD. */
int db_take_lead(struct job *job, struct db *db);
uint64_t db_raft_id(const struct db *db);
const char *db_pool_uuid(const struct db *db);
/* Is this row of `_member` one of a witness? Then it refers to no host. Pure. */
bool db_member_is_witness(const struct db_row *row);
/* The members, this one too: at most CHANNEL_PEERS_MAX; how many. The list follows the rows of
 * _member. Any thread. */
unsigned db_members(struct db *db, struct db_member *out, uint64_t *index_out);

/* Milliseconds since this member heard a leader; 0: it is one. Any thread. */
uint64_t db_leader_silence_ms(struct db *db);

/* Milliseconds since the member was last heard of; 0: it is in contact (or is this one). The leader
 * is answered at each heartbeat; members that do not lead hear each other every DB_PLANE_FRAME_MS,
 * or as often as they have to say something. Any thread. */
uint64_t db_silence_ms(struct db *db, uint64_t raft_id);
/* Is there a connection to the member? Any thread, any member. */
bool db_in_contact(struct db *db, uint64_t raft_id);

/* The bridge for jobs to the projection: what is visible now has been written to its file when this
 * returns 0; check: and every row has been compared. ERR_IO: it has not, or differs; either way the
 * report says so in lines. ERR_DEAD. Seconds on large pools. */
int db_projection(struct job *job, struct db *db, bool check, struct buf *report);

/* Every index against every row: false and a reason when something is wrong. Any thread, seconds on
 * large pools. */
bool db_check(struct db *db, char *why, size_t n);
