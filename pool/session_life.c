/* How long sessions live: when each was last used, and which of them the coordinator removes.
 *
 * When a session was last used is memory, never the log: each member notes what it serves and tells
 * the others once a minute, so whoever coordinates knows all within that. What a new process has
 * not heard of counts as used when it started. Removed are sessions that were idle for the pool's
 * time-out, and in each group those beyond its cap, least recently used first; one with an
 * unfinished task stays. sessions.md 1.3; the cap is applied by the sweep, within a second, so that
 * one place decides.
 */
#include "pool/pool_priv.h"
#include "rpc/base/hash.h"

#include <stdlib.h>
#include <string.h>

enum { F_USED = CHANNEL_POOL_FIRST };
enum {
	SLOTS = 4096, /* sessions remembered */
	WINDOW = 8,   /* slots where a session may be; the longest idle of them gives way */
	TELL_S = 60,  /* between two words to the others, or a quarter of the time-out */
	LOOK_MS = 1000,
	TIMEOUT_S = 86400,
	TIMEOUT_MAX_S = 31536000,
	CAP_NAMED = 500,
	CAP_OTHERS = 400,  /* pool sessions; no user and no originator */
	REMOVED_MAX = 200, /* in one transaction */
};

struct used {
	uint8_t key[DB_KEY_LEN];
	int64_t at_s; /* wall clock; 0: free */
	bool told;
};

struct activity {
	struct pool *pool;
	int64_t started_s;
	uint64_t told_ms;
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

		if (u->at_s != 0 && memcmp(u->key, key, DB_KEY_LEN) == 0)
			return u;
		if (oldest == NULL || u->at_s < oldest->at_s)
			oldest = u;
	}
	if (!make)
		return NULL;
	memcpy(oldest->key, key, DB_KEY_LEN);
	oldest->at_s = 0;
	return oldest;
}

static void note(struct activity *a, const uint8_t *key, int64_t at_s, bool told)
{
	struct used *u;

	pthread_mutex_lock(&a->mutex);
	u = slot_of(a, key, true);
	if (u->at_s < at_s) {
		u->at_s = at_s;
		u->told = told;
	}
	pthread_mutex_unlock(&a->mutex);
}

void session_used(struct pool *pool, const uint8_t *key)
{
	note(pool->activity, key, env_wall_s(pool->env), false);
}

int64_t session_last_active(
	struct pool *pool, const struct db_view *view, const struct db_row *session)
{
	int64_t at = db_row_i(session, SESSION_last_active);
	uint8_t key[DB_KEY_LEN];
	struct used *u;

	if (!session_key(view, db_row_ref(session), key))
		return at;
	pthread_mutex_lock(&pool->activity->mutex);
	u = slot_of(pool->activity, key, false);
	if (u != NULL && u->at_s > at)
		at = u->at_s;
	pthread_mutex_unlock(&pool->activity->mutex);
	return at;
}

/* Among members. */

/* pool.other_config:xpool-session-timeout, seconds. */
static int64_t timeout_s(const struct db_view *view, struct arena *a)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *row = db_next(&c);
	const char *text;
	struct val map;
	long long given;
	char *end;

	if (row == NULL)
		return TIMEOUT_S;
	map = db_row_field(row, POOL_other_config, a);
	text = val_get_s(&map, "xpool-session-timeout");
	given = text != NULL ? strtoll(text, &end, 10) : 0;
	return given > 0 && given <= TIMEOUT_MAX_S && *end == 0 ? given : TIMEOUT_S;
}

static uint64_t tell_ms(struct pool *pool)
{
	struct db_view view;
	struct arena arena;
	int64_t quarter;

	arena_init(&arena);
	db_view_pin(pool->db, &view);
	quarter = timeout_s(&view, &arena) / 4;
	db_view_unpin(&view);
	arena_fini(&arena);
	return 1000 * (uint64_t)(quarter < TELL_S ? quarter : TELL_S);
}

static void on_tell(struct loop_timer *t)
{
	struct activity *a = container_of(t, struct activity, tell);
	uint64_t now = env_now_ms(a->pool->env);
	struct buf b = { 0 };

	loop_timer_start(a->pool->loops[0].loop, t, LOOK_MS, on_tell);
	if (now < a->told_ms + tell_ms(a->pool))
		return;
	a->told_ms = now;
	pthread_mutex_lock(&a->mutex);
	for (unsigned i = 0; i < SLOTS; i++) {
		if (a->used[i].at_s == 0 || a->used[i].told)
			continue;
		a->used[i].told = true;
		buf_put(&b, a->used[i].key, DB_KEY_LEN);
		buf_u64(&b, (uint64_t)a->used[i].at_s);
	}
	pthread_mutex_unlock(&a->mutex);
	if (b.len > 0)
		db_broadcast(a->pool->db, F_USED, &b);
	buf_fini(&b);
}

int session_frame(struct pool *pool, uint8_t type, const uint8_t *payload, size_t n)
{
	struct reader r = reader_of(payload, n);
	int64_t now = env_wall_s(pool->env);

	if (type != F_USED)
		return 0; /* of a newer version */
	if (n % (DB_KEY_LEN + 8) != 0 || n > SLOTS * (DB_KEY_LEN + 8))
		return ERR_CORRUPT;
	while (rd_left(&r) > 0) {
		const uint8_t *key = rd_bytes(&r, DB_KEY_LEN);
		int64_t at = (int64_t)rd_u64(&r);

		/* another clock may be ahead */
		note(pool->activity, key, at < now ? at : now, true);
	}
	return 0;
}

void session_life_init(struct pool *pool)
{
	struct activity *a = pool->activity = mem_new(sizeof *a);

	a->pool = pool;
	a->started_s = env_wall_s(pool->env);
	pthread_mutex_init(&a->mutex, NULL);
}

void session_life_start(struct pool *pool)
{
	loop_timer_start(pool->loops[0].loop, &pool->activity->tell, LOOK_MS, on_tell);
}

/* The coordinator's sweep. */

struct candidate {
	const struct db_row *row;
	int64_t last_s;
	unsigned cap;
	uint64_t group;
};

static struct candidate candidate_of(
	struct pool *pool, const struct db_view *view, const struct db_row *row)
{
	const char *user = db_row_s(row, SESSION_auth_user_name);
	const char *originator = db_row_s(row, SESSION_originator);
	bool named = *user != 0 && strcmp(user, "root") != 0;
	struct candidate c = {
		.row = row, .last_s = session_last_active(pool, view, row), .cap = CAP_OTHERS
	};

	if (db_row_b(row, SESSION_pool)) {
		c.group = 1;
	} else if (named || *originator != 0) {
		c.cap = CAP_NAMED;
		c.group = (hash_text(named ? user : originator) << 2) + (named ? 2 : 3);
	}
	return c;
}

static int by_group_then_recent(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->group != y->group)
		return x->group < y->group ? -1 : 1;
	if (x->last_s != y->last_s)
		return x->last_s > y->last_s ? -1 : 1;
	return (db_row_created(x->row) < db_row_created(y->row)) -
	       (db_row_created(x->row) > db_row_created(y->row));
}

static bool works(const struct db_view *view, const struct db_row *session)
{
	int relation = model_classes[MODEL_CLASS_session].fields[SESSION_tasks].derived;
	struct db_cursor c = db_rows_related(view, relation, db_row_ref(session));
	const struct db_row *task;

	while ((task = db_next(&c)) != NULL)
		if (strcmp(db_row_s(task, TASK_status), "pending") == 0)
			return true;
	return false;
}

unsigned sessions_sweep(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a)
{
	struct db_cursor cursor = db_rows(view, MODEL_CLASS_session);
	uint64_t room = db_view_count(view, MODEL_CLASS_session);
	struct candidate *c = arena_alloc(a, (room + 1) * sizeof *c);
	int64_t oldest = env_wall_s(pool->env) - timeout_s(view, a);
	unsigned n = 0, removed = 0, place = 0;
	const struct db_row *row;

	while ((row = db_next(&cursor)) != NULL && n < room)
		c[n++] = candidate_of(pool, view, row);
	if (n > 0)
		qsort(c, n, sizeof *c, by_group_then_recent);
	for (unsigned i = 0; i < n && removed < REMOVED_MAX; i++) {
		bool idle = c[i].last_s < oldest && pool->activity->started_s < oldest;

		place = i > 0 && c[i].group == c[i - 1].group ? place + 1 : 1;
		if ((!idle && place <= c[i].cap) || works(view, c[i].row))
			continue;
		log_info(pool->env, "event=session_removed user=%s originator=\"%s\" why=%s",
			db_row_s(c[i].row, SESSION_auth_user_name),
			db_row_s(c[i].row, SESSION_originator), idle ? "idle" : "too_many");
		db_txn_delete(txn, MODEL_CLASS_session, db_row_ref(c[i].row));
		removed++;
	}
	return removed;
}
