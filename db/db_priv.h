/* The database of one member; between db.c and commit.c. */
#pragma once

#include "db/db.h"
#include "db/store_priv.h"

enum { ADMITTED_MAX = 512 };

struct contact {
	_Atomic uint64_t lost_ms;  /* 0: connected */
	_Atomic uint64_t heard_ms; /* its last frame, or when we began to listen as leader */
};

/* An entry at the leader that waits for room in flight. */
struct feed {
	struct feed *next;
	size_t n;
	uint8_t entry[];
};

struct db {
	struct db_config cfg;
	char pool_uuid[UUID_LEN + 1];
	struct db_member members[CHANNEL_PEERS_MAX];
	struct contact contacts[CHANNEL_PEERS_MAX];
	unsigned n_members;
	struct channel *channel;
	struct consensus *consensus;
	struct views views;
	struct done_table *done;
	struct apply_changes changes;
	struct store *store; /* NULL: no projection */
	struct loop_hook hook;
	struct loop_call step_down;
	bool applied_any, closing;
	uint64_t boot;
	int lock_fd;
	pthread_mutex_t stat_mutex;
	struct db_stat stat; /* under stat_mutex */
	void (*closed)(void *arg);
	void *closed_arg;

	/* Proposals (commit.c), Raft loop only but for the inbox. */
	pthread_mutex_t inbox_mutex;
	struct db_proposal *inbox, **inbox_tail; /* from any thread */
	struct db_barrier *barrier_inbox;
	struct answer *answers, **answers_tail; /* of the coordinator, from any thread */
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
	struct db_barrier *barriers,
		*barriers_next; /* of the barrier under way; those that came since */
	struct db_proposal barrier;
};

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
