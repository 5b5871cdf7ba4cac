/* Shared by the files behind db/consensus.h; with tests/sim the only ones that include raft.h. */
#pragma once

#include "db/consensus.h"

#include <raft.h>

enum {
	NET_PART_ENTRIES = 512,	    /* entries of one AppendEntries frame */
	NET_PART_BYTES = 256 << 10, /* and their bytes */
	NET_PROBE_ENTRIES = 64,	    /* to a peer whose log is not known yet */
	NET_QUEUE_SOFT =
		1 << 20, /* encoded bytes to a peer, beyond which requests are held by reference */
	NET_QUEUE_REQUESTS = 4096, /* of which at most so many */
	NET_QUEUE_ENTRIES = 262144,
	NET_CHUNK = 64 << 10,		/* bytes of a snapshot in one frame */
	NET_CHUNKS_LOW = 256 << 10,	/* sent while less is queued */
	NET_CHUNKS_GONE = 4 << 10,	/* all have left when so little is: the rest is of others */
	NET_SNAPSHOT_SILENCE_MS = 5000, /* all sent and no word of its arrival: given up */
	NET_SNAPSHOT_PER_MS = 20 << 10, /* bytes that a slow disk stores */
};

/* The library's names of the states of raft_progress, which it does not export. */
enum {
	NET_PROGRESS_PROBE = 0,
	NET_PROGRESS_SNAPSHOT = 2,
};

/* An AppendEntries request of the library, not yet encoded. */
struct net_append {
	struct net_append *next;
	struct raft_io_send *req;
	raft_io_send_cb cb;
	raft_term term, prev_term;
	raft_index prev, commit;
	const struct raft_entry *entries;
	unsigned n, off; /* off: already encoded */
};

/* A finished request whose callback waits for the end of the turn: never from inside send. */
struct net_done {
	struct net_done *next;
	struct raft_io_send *req;
	raft_io_send_cb cb;
	int status;
};

struct net_snapshot_out {
	struct raft_io_send *req; /* NULL: none */
	raft_io_send_cb cb;
	struct raft_install_snapshot m; /* its data lives until the callback */
	uint32_t number;
	size_t at;
	uint64_t moved_ms; /* when some of it was last in the channel */
	uint64_t life;	   /* of the connection that the head went by */
	bool drained;	   /* what was put into the channel has left it */
	bool installing;   /* the peer has all of it and has not said that it is stored */
	bool begun;
};

struct net_snapshot_in {
	bool on;
	struct raft_install_snapshot m;
	uint32_t number;
	size_t got;
};

struct net_peer {
	raft_id id;
	bool up, witness;
	struct net_append *head, **tail;
	unsigned n_requests;
	uint64_t n_entries;
	raft_term push_term;
	raft_index pushed;
	raft_index masked; /* kept AppendEntries result, see the guard */
	raft_term masked_term;
	struct net_snapshot_out out;
	struct net_snapshot_in in;
};

struct guard {
	raft_term term; /* term in which we were seen to be leader */
	raft_index own; /* index of our own barrier in it; UINT64_MAX: could not be submitted yet */
	bool ready;	/* that barrier has been applied */
	raft_term vouched_term;
	raft_index vouched;   /* highest index the leader of that term has covered by a message not
				 refused */
	raft_index candidate; /* the same for the message being delivered */
	bool refused;
	bool push; /* the message being delivered is a commit push: no answer */
};

/* What this member has acknowledged, see consensus_note.c. */
enum note_writer { NOTE_LOOP, NOTE_WORKER, NOTE_WRITERS };

struct note {
	uint64_t sequence, term, index, committed, installing;
	uint64_t vote_term, vote; /* the last that was given; 0: none is known */
	bool fetching, condemned;
	unsigned writes[NOTE_WRITERS];
};

/* What a worker does once a second, see consensus_watch.c. */
struct watch {
	struct loop_timer timer;
	struct raft_io_async_work work;
	struct note note; /* to write, when `noting` */
	bool busy, noting;
	uint64_t bytes; /* free, as just seen */
	unsigned space; /* level */
};

/* Configurations in the log, and changes of it: see consensus_change.c. */
struct conf_at {
	raft_index index;
	struct raft_configuration conf;
};

struct confs {
	struct conf_at *items; /* by index; the last one is in force */
	unsigned n;
	raft_index told; /* index of the last one that cfg.configured was told of */
};

struct conf_change {
	struct raft_change req;
	raft_id promote; /* to be a voter as soon as it has everything; 0: nobody */
	uint64_t until_ms;
};

/* A snapshot being written, see consensus_guard.c. */
struct put {
	struct raft_io_snapshot_put req;
	struct raft_io_snapshot_put *theirs; /* NULL: none */
	raft_io_snapshot_put_cb cb;
	bool installing;     /* in place of the log */
	struct conf_at conf; /* then: its configuration */
};

/* Early election, see consensus_early.c. */
struct early {
	struct loop_timer timer;
	raft_id leader; /* whose connection broke */
	unsigned tries;
};

/* Handing the lead over, see consensus_hand.c. */
struct hand {
	raft_id to; /* 0: nobody */
	uint64_t until_ms;
	bool called;
};

struct restore;

struct consensus {
	struct consensus_config cfg;
	struct raft_io *io; /* of cfg.disk */
	struct channel *channel;
	struct raft raft;
	struct raft_fsm fsm;
	struct guard guard;
	struct early early;
	struct put put;
	/* Applying and restoring, see consensus_state.c. */
	struct restore *restore, *restore_next; /* being decoded, and to be decoded then */
	bool behind;				/* the state has not all that the library gave us */
	raft_index reached;			/* as far as it has come */
	struct loop_timer more;
	uint64_t turn_us; /* when this turn began to apply; 0: it has not */
	raft_index cut;	  /* of a truncation that is not known to be done; 0: none */
	struct note note;
	struct watch watch;
	bool snapshot_soon; /* asked for */
	struct hand hand;
	struct raft_transfer transfer;
	struct confs confs;
	struct conf_change change;
	unsigned called; /* peer to which the lead was last offered */
	struct net_peer peers[CHANNEL_PEERS_MAX];
	unsigned n_peers;
	struct net_done *done, **done_tail;
	uint32_t snapshot_number;
	struct loop_hook hook;
	/* the library's own functions below ours */
	raft_io_tick_cb tick;
	raft_io_recv_cb recv;
	int (*disk_start)(
		struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv);
	int (*disk_load)(struct raft_io *io, raft_term *term, raft_id *vote,
		struct raft_snapshot **snapshot, raft_index *start, struct raft_entry *entries[],
		size_t *n);
	int (*disk_append)(struct raft_io *io, struct raft_io_append *req,
		const struct raft_entry entries[], unsigned n, raft_io_append_cb cb);
	int (*disk_set_term)(struct raft_io *io, raft_term term);
	int (*disk_set_vote)(struct raft_io *io, raft_id id);
	int (*disk_truncate)(struct raft_io *io, raft_index index);
	int (*disk_snapshot_put)(struct raft_io *io, unsigned trailing,
		struct raft_io_snapshot_put *req, const struct raft_snapshot *snapshot,
		raft_io_snapshot_put_cb cb);
	void (*disk_close)(struct raft_io *io, raft_io_close_cb cb);
	enum consensus_role role;
	raft_id leader;
	raft_term role_term;
	unsigned in_flight;
	size_t in_flight_bytes;
	bool opening, closing, broken;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* raft_init puts its struct raft, which is part of ours, into the data pointer of raft_io. */
struct consensus *consensus__of(struct raft_io *io);

/* disk */
bool consensus__preflight(const char *dir, uint64_t installing, struct consensus_found *out);

/* A closed segment of one entry in the library's form. */
void consensus__segment(
	uint64_t term, unsigned type, const struct raft_buffer *entry, struct buf *out);

/* note */
bool consensus__note_load(struct consensus_disk *d, struct note *out); /* false: there is none */
int consensus__note_start(const struct consensus_config *cfg, struct note *out);
bool consensus__note_look(struct consensus *c);
void consensus__note_next(struct note *n, enum note_writer writer); /* before each write */
int consensus__note_write(struct consensus_disk *d, const struct note *n, enum note_writer writer);
void consensus__note_term(struct consensus *c, uint64_t term); /* it is on disk */
void consensus__note_vote(struct consensus *c, uint64_t vote); /* it is on disk */
void consensus__note_installing(struct consensus *c, uint64_t index);
void consensus__note_fetched(struct consensus *c, uint64_t prev, uint64_t prev_term);
/* watch */
int consensus__watch_open(
	struct consensus *c); /* ERR_IO after a log line: too little room to start */
void consensus__watch_start(struct consensus *c);
void consensus__snapshot_taken(struct consensus *c);
bool consensus__cramped(const struct consensus *c); /* too little room to lead */

/* guard */
void consensus__guard_install(struct consensus *c);
void consensus__guard_turn(struct consensus *c);
/* Deliver a decoded message to the library under the guard's rules. */
void consensus__deliver(struct consensus *c, struct net_peer *p, struct raft_message *m);
/* What an answer to the leader may claim. */
raft_index consensus__vouched(struct consensus *c, const struct raft_append_entries_result *r);

/* The peer's log was set aside and now ends here: the library would take its refusals for old
 * messages and never go back so far. */
void consensus__begun_anew(struct consensus *c, const struct net_peer *p, raft_index last);

/* Do what the library does at a tick, under the guard's rules. */
void consensus__tick(struct consensus *c);
/* Is the log ahead of the disk? */
bool consensus__behind_disk(const struct consensus *c);
/* May this member not stand for election? */
bool consensus__unfit(const struct consensus *c);

/* early election: the connection to a peer has broken */
void consensus__early(struct consensus *c, raft_id peer);

/* handing over */
bool consensus__handing(const struct consensus *c); /* nothing new enters the log */
void consensus__hand_turn(struct consensus *c);	    /* end of a turn */

/* configurations in the log */
bool consensus__conf_decode(const void *p, size_t n, struct raft_configuration *out);
void consensus__confs_load(struct consensus *c, const struct raft_snapshot *snapshot,
	raft_index start, const struct raft_entry *entries, size_t n);
void consensus__confs_append(struct consensus *c, const struct raft_entry *entries, unsigned n);
void consensus__confs_truncate(struct consensus *c, raft_index index);
void consensus__confs_keep(struct conf_at *to, const struct raft_snapshot *snapshot);
void consensus__confs_replace(struct consensus *c, struct conf_at *with); /* taken */
void consensus__confs_fini(struct consensus *c);
/* Is the configuration in force known to be committed? */
bool consensus__conf_settled(const struct consensus *c);
bool consensus__promoting(const struct consensus *c); /* nothing new enters the log */
void consensus__change_turn(struct consensus *c);     /* end of a turn */

/* network half */
void consensus__net_install(struct consensus *c);
void consensus__net_start(struct consensus *c);
struct net_peer *consensus__peer(struct consensus *c, raft_id id);
struct raft_progress *consensus__progress(struct consensus *c, raft_id id);

/* state */
void consensus__state_install(struct consensus *c);
void consensus__state_started(struct consensus *c); /* the library has */
void consensus__state_turn(struct consensus *c);    /* end of a turn */

void consensus__role_look(struct consensus *c);
void consensus__fail_stop(struct consensus *c, const char *what, int status);
const char *consensus__strerror(int code);
