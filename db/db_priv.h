/* The database of one member; between db.c and commit.c. */
#pragma once

#include "db/db.h"
#include "db/store_priv.h"

/* All that a leader may have taken and not applied. */
enum { ADMITTED_MAX = DB_FEED_MAX + CONSENSUS_IN_FLIGHT_MAX };

struct contact {
	_Atomic uint64_t lost_ms;  /* 0: connected */
	_Atomic uint64_t heard_ms; /* its last frame, or when we began to listen as leader */
};

struct reads;
struct floors;
struct members;

/* How large a snapshot would be: room.c. Bytes; Raft loop, but for now. */
struct room {
	uint64_t packed, rows; /* the last one, and the rows that are in it */
	_Atomic uint64_t now;  /* at most */
	bool full;	       /* as it was last said */
};

/* An entry at the leader that waits for room in flight. */
struct feed {
	struct feed *next;
	size_t n;
	uint8_t entry[];
};

enum { AGREE_SLOTS = 16, AGREE_SELF = 0 };

/* Hashes of states at one index, see agree.c: of this member, and of member i at i + 1. */
struct agreed {
	uint64_t index, hash[CHANNEL_PEERS_MAX + 1];
	bool known[CHANNEL_PEERS_MAX + 1];
};

struct db {
	struct db_config cfg;
	char pool_uuid[UUID_LEN + 1];
	/* By place; a member keeps its place. Raft loop; ids also by others, members under
	 * stat_mutex. */
	struct db_member members[CHANNEL_PEERS_MAX];
	_Atomic uint64_t ids[CHANNEL_PEERS_MAX]; /* Raft ids; 0: the place is free */
	struct contact contacts[CHANNEL_PEERS_MAX];
	_Atomic unsigned n_members; /* places that were ever used */
	uint64_t roster_index;	    /* of the entry that the list is of; under stat_mutex */
	struct members *who;	    /* members.c */
	struct channel *channel;
	struct consensus *consensus;
	struct views views;
	struct done_table *done;
	struct apply_changes changes;
	struct store *store; /* NULL: no projection */
	struct agreed agree[AGREE_SLOTS];
	struct plane_link *plane; /* NULL: none */
	struct loop_hook hook;
	struct loop_call step_down, ask_lead;
	bool witness; /* this member is one */
	bool applied_any, closing;
	_Atomic uint64_t
		led_ms; /* last word of a leader; of a majority, when this member ceased to lead */
	uint64_t boot;
	int lock_fd;
	pthread_mutex_t stat_mutex;
	struct db_stat stat; /* under stat_mutex */
	void (*closed)(void *arg);
	void *closed_arg;

	/* Proposals (commit.c), Raft loop only but for the inbox. */
	pthread_mutex_t inbox_mutex;
	struct db_proposal *inbox, **inbox_tail; /* from any thread */
	struct answer *answers, **answers_tail;	 /* of the coordinator, from any thread */
	struct loop_call inbox_call;
	struct db_proposal *waiting, **waiting_tail; /* for a place under way */
	struct db_proposal *pending;		     /* under way, by sequence */
	struct db_proposal **pending_tail;
	unsigned n_waiting, n_pending;
	uint64_t sequence, sent_to, sent_term;
	struct feed *feed, **feed_tail;
	unsigned n_feed;
	struct db_proposal_id admitted[ADMITTED_MAX]; /* the last ones, in a ring */
	unsigned n_admitted;
	struct loop_timer tick;

	struct room room;
	struct reads *reads;   /* read_index.c */
	struct floors *floors; /* floor.c */
};

/* Place of a member in the list; -1: none of ours. */
int db__slot(const struct db *db, uint64_t raft_id);
/* How long may somebody wait for the leader? DB_TIMEOUT_MS from when it was last heard. */
uint64_t db__patience_ms(struct db *db);

void db__proposals_init(struct db *db);
void db__proposals_fini(struct db *db);
/* Role, term, leader or a connection changed: ask again. */
void db__proposals_role(struct db *db);
/* End of a turn: feed the log. */
void db__proposals_turn(struct db *db);
int db__proposal_frame(
	struct db *db, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n);
void db__proposal_applied(
	struct db *db, const struct db_proposal_id *id, const struct apply_result *res);

void db__reads_init(struct db *db);
void db__reads_fini(struct db *db);
/* Role, term, leader or a connection changed. */
void db__reads_role(struct db *db);
/* End of a turn: whose index has been applied? */
void db__reads_turn(struct db *db);
int db__read_frame(struct db *db, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n);

void db__floors_init(struct db *db);
void db__floors_fini(struct db *db);
/* Role, term, leader or a connection changed. */
void db__floors_role(struct db *db);
int db__floor_frame(struct db *db, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n);

/* A place is free again: nothing more is expected of it. */
void db__reads_slot_freed(struct db *db, unsigned slot);
void db__floors_slot_freed(struct db *db, unsigned slot);

/* members.c; Raft loop. */
void db__members_init(struct db *db);
void db__members_fini(struct db *db);
/* An entry was applied, whose changes are in db->changes; any: anything may have changed. */
void db__members_applied(struct db *db, bool any);
void db__members_configured(struct db *db);
/* The member wants to lead. */
void db__members_asked(struct db *db, uint64_t peer);
/* A connection has come up. */
void db__members_met(struct db *db, uint64_t peer);
/* The leader: is there a change to make? */
void db__members_look(struct db *db);
int db__roster_frame(struct db *db, uint64_t peer, const uint8_t *payload, size_t n);
bool db__fingerprint_parse(const char *text, uint8_t out[TLS_FINGERPRINT_LEN]);

/* room.c; Raft loop. A snapshot of so many bytes of rows has `packed` bytes. */
void db__room_measured(struct db *db, uint64_t packed, uint64_t rows);
/* End of a turn that has applied something. */
void db__room_turn(struct db *db);
/* Is there none for this entry? */
bool db__room_lacks(struct db *db, const struct entry_head *head);

/* agree.c */
void db__agree_applied(struct db *db, uint64_t index, uint64_t hash);
int db__agree_frame(struct db *db, uint64_t peer, const uint8_t *payload, size_t n);

/* lead.c */
int db__lead_frame(struct db *db, uint64_t peer, const uint8_t *payload, size_t n);

/* plane_link.c; Raft loop. */
void db__plane_open(struct db *db);
void db__plane_frame(struct db *db, uint64_t peer, const uint8_t *payload, size_t n);
void db__plane_peer(struct db *db, uint64_t peer, bool up);
void db__plane_peer_add(struct db *db, uint64_t peer);
void db__plane_peer_remove(struct db *db, uint64_t peer);
/* End of a turn: send what there is room for. */
void db__plane_turn(struct db *db);
