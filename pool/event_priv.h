/* Parts of the events: tokens, what is watched, answers, and who waits. */
#pragma once

#include "pool/pool_priv.h"

enum {
	EVENT_OBJECTS_MAX = 1024,    /* single objects in one subscription */
	EVENT_REGISTERED_MAX = 1024, /* sessions with a subscription of the old interface */
	EVENT_SHARED_MAX = 64,	     /* objects in a first answer that is made for all who ask */
	EVENT_ANSWERS_MAX = 16,	     /* answers of a round that are kept for who asks the same */
	EVENT_TEXTS_MAX = 32 << 20,  /* bytes of records of a round that are kept as text */
	EVENT_TEXT_BUCKETS = 1024,
	EVENT_SLICE_BYTES = 4 << 20, /* of a round; then the loop does other things first */
	EVENT_SLICE_MS = 10,
	EVENT_PIECE_BYTES = 64 << 10, /* of an answer, between looks at the clock */
	EVENT_TOKEN_LEN = 41,
};

/* Where a client is. */
struct event_position {
	uint64_t index;	  /* of the log */
	uint64_t numbers; /* count of this member's volatile changes */
	bool first;	  /* before everything: all objects are new */
	bool elsewhere;	  /* numbers are of another member or life: they count from now */
};

/* event_token.c: two fields of 20 digits and a comma (tasks-events.md 3.5): epoch number * 10^16 +
 * index; then 4 digits of the epoch's tag, 4 of the member's, 12 of its volatile changes. */
struct event_tokens {
	uint64_t epoch;
	unsigned epoch_tag, member_tag; /* below 9999, which stands for "not checked" */
};

/* member: a number that differs between members and between lives of one. */
struct event_tokens event_tokens_of(uint64_t epoch, const char *epoch_id, uint64_t member);
void event_token_print(const struct event_tokens *t, const struct event_position *at,
	char out[EVENT_TOKEN_LEN + 1]);
/* Smaller than the token of every answer that has seen this index, not smaller than any other. */
void event_token_before(
	const struct event_tokens *t, uint64_t index, char out[EVENT_TOKEN_LEN + 1]);
/* Errors EVENT_FROM_TOKEN_PARSE_FAILURE; EVENTS_LOST: it is of another epoch. */
int event_token_parse(const struct event_tokens *t, const char *text, struct event_position *out,
	struct err *err);

/* event_watch.c: what a client watches. Immutable and shared by all who watch the same, so that
 * comparing pointers is enough. */
struct event_object {
	int class_id;
	const char *ref;
};

struct event_watch {
	struct event_watch *next;
	uint64_t hash;
	unsigned uses;
	bool classes[MODEL_CLASS_COUNT];
	unsigned n_objects; /* single ones, sorted; none of a class that is watched whole */
	struct event_object objects[];
};

/* The old interface: the subscription of a session, and how far it has been told. */
struct event_registration {
	struct event_registration *next;
	char session[DB_REF_MAX + 1];
	struct event_watch *watch;
	struct event_position from;
};

/* Of one member, for all its loops. */
struct pool_events {
	struct event_tokens tokens;
	pthread_mutex_t mutex; /* of all below */
	struct event_watch *watches;
	struct event_registration *registrations; /* the one used last is first */
	unsigned n_registrations;
};

/* These three with the mutex held. What classes name, together with base (or, without: base less
 * that); base may be NULL. Errors EVENT_SUBSCRIPTION_PARSE_FAILURE [text]. */
int event_watch_make(struct pool_events *e, const struct val *classes,
	const struct event_watch *base, bool without, struct event_watch **out, struct err *err);
struct event_watch *event_watch_share(struct event_watch *w);
void event_watch_drop(struct pool_events *e, struct event_watch *w);
/* Pure. */
bool event_watch_wants(const struct event_watch *w, int class_id, const char *ref);

/* event_answer.c: what has changed from a position to a view, as text that is made once for all who
 * ask the same. */
struct event_question {
	struct event_watch *watch;
	struct event_position from;
	bool json; /* else XML */
	bool old;  /* for event.next: the bare list, with real times */
};

struct event_answer {
	struct event_question of;
	struct event_position to;
	bool lost; /* the position is older than the deletions that are remembered */
	unsigned n;
	struct buf text;	     /* the whole result, once it is whole */
	struct event_making *making; /* NULL: it is */
};

/* Records as text, each made once. */
struct event_texts {
	struct event_text *buckets[EVENT_TEXT_BUCKETS];
	size_t bytes;
};

/* Of the state as it is now, which stays pinned until the answer is whole. It refers to the watch
 * of q. */
void event_answer_begin(
	const struct event_question *q, struct db *db, int64_t now_s, struct event_answer *out);
/* Write about so many bytes more; true: it is whole. */
bool event_answer_more(struct event_answer *a, const struct event_tokens *tokens,
	struct event_texts *texts, size_t bytes);
/* No events, the token as it was: the time is over and this member has not got there yet. */
void event_answer_behind(const struct event_question *q, const struct db_view *view,
	const char *token, struct event_answer *out);
void event_answer_fini(struct event_answer *a);

/* An answer on its way into a text: open, event by event, close. */
enum event_kind { EVENT_ADD, EVENT_MOD, EVENT_DEL };

struct event_change {
	enum event_kind kind;
	uint64_t index;
	int class_id;
	const struct db_row *row; /* NULL: gone */
	const char *ref;
};

struct event_writer {
	bool old; /* the events alone */
	struct rpc_map whole, events;
};

void event_writer_open(struct event_writer *w, bool old, enum rpc_codec codec, struct buf *out);
/* The caller puts the record, if there is a row, and closes m. */
void event_open(struct rpc_map *m, struct rpc_map *events, const struct event_change *c,
	const char *timestamp);
void event_writer_close(struct event_writer *w, const struct db_view *view, const char *token);

/* event_first.c. Are there so many objects in these classes that who asks first gets an answer of
 * its own? */
bool event_is_much(const struct event_watch *w, const struct db_view *view);
/* That answer, of the call's view; numbers: the count of this member's volatile changes before it.
 * 0, or CALL_PENDING. */
int event_everything(struct call *call, const struct event_watch *w,
	const struct event_tokens *tokens, uint64_t numbers);
void event_texts_fini(struct event_texts *t);

/* event.c: waiting. */
struct event_wait {
	struct call *next, **at; /* in the list of its loop */
	struct event_question question;
	const char *token; /* as it was given; NULL: event.next */
	struct event_answer
		making; /* its answer, of its watch; of.watch NULL: none is being made */
};

/* Wait for news, at most ms, and answer. The watch is taken. Returns CALL_PENDING. */
int event_park(struct call *call, struct event_watch *watch, const struct event_position *from,
	const char *token, uint64_t ms);

/* event_next.c: false, and an error: the session is not registered any more. Sets the watch. */
bool event_next_prepare(struct call *call, struct err *err);
void event_next_told(struct call *call, const struct event_answer *answer);
