/* How long sessions live: when each was last used, and which of them the coordinator removes.
 *
 * When a session was last used is memory, never the log: each member notes what it serves and tells
 * the others once a minute, so whoever coordinates knows all within that. All of it is kept by the
 * monotonic clock of the member and told as an age, so no clock that is stepped, or differs from
 * others, ends a session; the wall clock is for what the API shows. What a coordinator has not
 * heard of counts as used when it first looked. Removed are sessions that were idle for the pool's
 * time-out, and in each group those beyond its cap, least recently used first; one with an
 * unfinished task stays. sessions.md 1.3; the cap is applied by the sweep, within a second, so that
 * one place decides.
 */
#include "pool/pool_priv.h"
#include "rpc/base/hash.h"

#include <stdlib.h>
#include <string.h>

enum {
	AGES_SINCE = 5, /* the active schema: its members read both POOL_FRAME_USED and _AGES */
};
enum {
	SLOTS = 4096, /* sessions remembered */
	WINDOW = 8,   /* slots where a session may be; the longest idle of them gives way */
	TELL_S = 60,  /* between two words to the others, or a quarter of the time-out */
	LOOK_MS = 1000,
	TIMEOUT_S = 86400,
	TIMEOUT_MAX_S = 31536000,
	CAP_NAMED = 500,
	CAP_OTHERS = 400,  /* root without an originator */
	WARN_MS = 3600000, /* between two alerts */
	REMOVED_MAX = 200, /* in one transaction */
};

struct used {
	uint8_t key[DB_KEY_LEN];
	uint64_t at_ms;	    /* 0: free */
	bool told, guessed; /* nobody has said that it was used: when the sweep first saw it */
};

struct activity {
	struct pool *pool;
	uint64_t told_ms, warned_ms;
	struct loop_timer tell;
	pthread_mutex_t mutex;
	struct used used[SLOTS]; /* under mutex */
};

static struct used *slot_of(struct activity *a, const uint8_t *key, bool make)
{
	uint64_t from = hash_bytes(key, DB_KEY_LEN);
	struct used *oldest = NULL;

	for (unsigned i = 0; i < WINDOW; i++) {
		struct used *u = &a->used[(from + i) % SLOTS];

		if (u->at_ms != 0 && memcmp(u->key, key, DB_KEY_LEN) == 0)
			return u;
		if (oldest == NULL || u->at_ms < oldest->at_ms)
			oldest = u;
	}
	if (!make)
		return NULL;
	memcpy(oldest->key, key, DB_KEY_LEN);
	oldest->at_ms = 0;
	oldest->guessed = false;
	return oldest;
}

static void note(struct activity *a, const uint8_t *key, uint64_t at_ms, bool told)
{
	struct used *u;

	pthread_mutex_lock(&a->mutex);
	u = slot_of(a, key, true);
	if (u->guessed || u->at_ms < at_ms) {
		u->at_ms = at_ms;
		u->told = told;
		u->guessed = false;
	}
	pthread_mutex_unlock(&a->mutex);
}

/* When it was last used, as far as this member knows; else guess_ms, once and for all. */
static uint64_t used_ms(struct activity *a, const uint8_t *key, uint64_t guess_ms)
{
	struct used *u;
	uint64_t at;

	pthread_mutex_lock(&a->mutex);
	u = slot_of(a, key, true);
	if (u->at_ms == 0) {
		u->at_ms = guess_ms;
		u->told = u->guessed = true;
	}
	at = u->at_ms;
	pthread_mutex_unlock(&a->mutex);
	return at;
}

void session_used(struct pool *pool, const uint8_t *key)
{
	note(pool->activity, key, env_now_ms(pool->env), false);
}

int64_t session_last_active(
	struct pool *pool, const struct db_view *view, const struct db_row *session)
{
	int64_t at = db_row_i(session, SESSION_last_active), wall_s = env_wall_s(pool->env), used_s;
	uint64_t now = env_now_ms(pool->env);
	uint8_t key[DB_KEY_LEN];
	struct used *u;

	if (!session_key(view, db_row_ref(session), key))
		return at;
	pthread_mutex_lock(&pool->activity->mutex);
	u = slot_of(pool->activity, key, false);
	if (u != NULL && !u->guessed) {
		used_s = wall_s - (int64_t)(now > u->at_ms ? now - u->at_ms : 0) / 1000;
		at = used_s > at ? used_s : at;
	}
	pthread_mutex_unlock(&pool->activity->mutex);
	return at;
}

/* Among members. */

static int64_t timeout_s(const struct db_view *view, struct arena *a)
{
	return pool_number(view, a, "xpool-session-timeout", TIMEOUT_S, TIMEOUT_MAX_S);
}

static uint64_t tell_ms(struct pool *pool, bool *ages_out)
{
	struct db_view view;
	struct arena arena;
	int64_t quarter;

	arena_init(&arena);
	db_view_pin(pool->db, &view);
	quarter = timeout_s(&view, &arena) / 4;
	*ages_out = db_view_schema(&view) >= AGES_SINCE;
	db_view_unpin(&view);
	arena_fini(&arena);
	return 1000 * (uint64_t)(quarter < TELL_S ? quarter : TELL_S);
}

static void on_tell(struct loop_timer *t)
{
	struct activity *a = container_of(t, struct activity, tell);
	uint64_t now = env_now_ms(a->pool->env);
	int64_t wall_s = env_wall_s(a->pool->env);
	struct buf b = { 0 };
	bool ages;

	loop_timer_start(a->pool->loops[0].loop, t, LOOK_MS, on_tell);
	if (now < a->told_ms + tell_ms(a->pool, &ages))
		return;
	a->told_ms = now;
	pthread_mutex_lock(&a->mutex);
	for (unsigned i = 0; i < SLOTS; i++) {
		uint64_t age = now > a->used[i].at_ms ? now - a->used[i].at_ms : 0;

		if (a->used[i].at_ms == 0 || a->used[i].told)
			continue;
		a->used[i].told = true;
		buf_put(&b, a->used[i].key, DB_KEY_LEN);
		buf_u64(&b, ages ? age : (uint64_t)wall_s - age / 1000);
	}
	pthread_mutex_unlock(&a->mutex);
	if (b.len > 0)
		db_broadcast(a->pool->db, ages ? POOL_FRAME_AGES : POOL_FRAME_USED, &b);
	buf_fini(&b);
}

int session_frame(struct pool *pool, uint8_t type, const uint8_t *payload, size_t n)
{
	struct reader r = reader_of(payload, n);
	uint64_t now = env_now_ms(pool->env);
	int64_t wall_s = env_wall_s(pool->env);

	if (type != POOL_FRAME_USED && type != POOL_FRAME_AGES)
		return 0; /* of a newer version */
	if (n % (DB_KEY_LEN + 8) != 0 || n > SLOTS * (DB_KEY_LEN + 8))
		return ERR_CORRUPT;
	while (rd_left(&r) > 0) {
		const uint8_t *key = rd_bytes(&r, DB_KEY_LEN);
		uint64_t age = rd_u64(&r);

		if (type == POOL_FRAME_USED) /* another clock may be ahead */
			age = wall_s > (int64_t)age ? 1000 * ((uint64_t)wall_s - age) : 0;
		note(pool->activity, key, age < now ? now - age : 1, true);
	}
	return 0;
}

void session_life_init(struct pool *pool)
{
	struct activity *a = pool->activity = mem_new(sizeof *a);

	a->pool = pool;
	pthread_mutex_init(&a->mutex, NULL);
}

void session_life_start(struct pool *pool)
{
	loop_timer_start(pool->loops[0].loop, &pool->activity->tell, LOOK_MS, on_tell);
}

/* The coordinator's sweep. */

struct candidate {
	const struct db_row *row;
	uint64_t last_ms;
	unsigned cap;
	uint64_t group;
};

static struct candidate candidate_of(
	struct pool *pool, const struct db_view *view, const struct db_row *row, uint64_t now_ms)
{
	const char *user = db_row_s(row, SESSION_auth_user_name);
	const char *originator = db_row_s(row, SESSION_originator);
	bool named = *user != 0 && strcmp(user, "root") != 0;
	struct candidate c = { .row = row,
		.last_ms = now_ms,
		.cap = named || *originator != 0 ? CAP_NAMED : CAP_OTHERS };
	uint8_t key[DB_KEY_LEN];

	if (session_key(view, db_row_ref(row), key))
		c.last_ms = used_ms(pool->activity, key, now_ms);
	/* one program that forgets its sessions lets its own go, and nobody else's */
	c.group = hash_text(user) * 31 + hash_text(originator);
	c.group = c.group * 31 + hash_text(db_row_s(row, SESSION_client_address));
	return c;
}

/* One alert an hour, of whichever group is first. */
static void warn(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	const struct db_row *session, struct arena *a)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *row = db_next(&c);
	struct activity *activity = pool->activity;
	uint64_t now = env_now_ms(pool->env);
	char ref[DB_REF_MAX + 1];

	if (row == NULL || (activity->warned_ms != 0 && now - activity->warned_ms < WARN_MS))
		return;
	activity->warned_ms = now;
	message_put(pool, view, txn,
		&(struct message){ "SESSION_LIMIT_REACHED", 3, "Pool", db_row_s(row, POOL_uuid),
			arena_printf(a,
				"A client makes sessions and does not log them out; its least "
				"recently used ones end. user=%s originator=%s address=%s",
				db_row_s(session, SESSION_auth_user_name),
				db_row_s(session, SESSION_originator),
				db_row_s(session, SESSION_client_address)) },
		ref);
}

/* Of a directory that its host has no more: a login met the switching off. */
static bool cut_off(const struct db_view *view, const struct db_row *session)
{
	const struct db_row *host =
		db_view_get(view, MODEL_CLASS_host, db_row_s(session, SESSION_this_host));

	return session_is_external(session) && host != NULL &&
	       *db_row_s(host, HOST_external_auth_type) == 0;
}

static int by_group_then_recent(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->group != y->group)
		return x->group < y->group ? -1 : 1;
	if (x->last_ms != y->last_ms)
		return x->last_ms > y->last_ms ? -1 : 1;
	return (db_row_created(x->row) < db_row_created(y->row)) -
	       (db_row_created(x->row) > db_row_created(y->row));
}

static bool works(const struct db_view *view, const struct db_row *session)
{
	int relation = model_classes[MODEL_CLASS_session].fields[SESSION_tasks].derived;
	struct db_cursor c = db_rows_related(view, relation, db_row_ref(session));
	const struct db_row *task;

	while ((task = db_next(&c)) != NULL)
		if (task_pending(task))
			return true;
	return false;
}

unsigned sessions_sweep(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a)
{
	struct db_cursor cursor = db_rows(view, MODEL_CLASS_session);
	uint64_t room = db_view_count(view, MODEL_CLASS_session);
	struct candidate *c = arena_alloc(a, (room + 1) * sizeof *c);
	uint64_t now = env_now_ms(pool->env), most = 1000 * (uint64_t)timeout_s(view, a);
	unsigned n = 0, removed = 0, place = 0;
	const struct db_row *row;

	while ((row = db_next(&cursor)) != NULL && n < room)
		c[n++] = candidate_of(pool, view, row, now);
	if (n > 0)
		qsort(c, n, sizeof *c, by_group_then_recent);
	for (unsigned i = 0; i < n && removed < REMOVED_MAX; i++) {
		bool idle = now > c[i].last_ms && now - c[i].last_ms > most;
		bool cut = cut_off(view, c[i].row);

		place = i > 0 && c[i].group == c[i - 1].group ? place + 1 : 1;
		if (!cut && ((!idle && place <= c[i].cap) || works(view, c[i].row)))
			continue;
		if (!cut && !idle)
			warn(pool, view, txn, c[i].row, a);
		log_info(pool->env, "event=session_removed user=%s originator=\"%s\" why=%s",
			db_row_s(c[i].row, SESSION_auth_user_name),
			db_row_s(c[i].row, SESSION_originator),
			cut    ? "no_directory"
			: idle ? "idle"
			       : "too_many");
		db_txn_delete(txn, MODEL_CLASS_session, db_row_ref(c[i].row));
		removed++;
	}
	return removed;
}
