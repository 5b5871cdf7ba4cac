/* The store thread: the only one of the daemon that touches SQLite. See store_priv.h.
 *
 *   apply --feed--> queue (bytes, bounded) --swap, every STORE_GATHER_MS--> batch --> one
 * transaction
 *
 * Apply never waits. When the queue is full nothing more is queued and `missed` is set: the thread
 * writes what it has and settles the rest from a view: every row modified since, once, as it is
 * now; what happened in between is counted and lost to the history. The same brings a file up to
 * date that is new, or older than the log.
 *
 * Invariant: the file at index i, plus the records behind i in batch and queue, is the state at the
 * last record; unless the file is `behind`.
 */
#include "db/store_priv.h"

#include <stdlib.h>
#include <string.h>

enum { STORE_KEEP = 4 << 20 /* bytes of buffer kept between batches */ };

struct store {
	struct store_config cfg;
	uint64_t last;
	struct thread *thread;
	struct parker *parker;

	pthread_mutex_t mutex;
	struct buf queue;
	uint64_t fed; /* the last entry we have heard of */
	bool missed, closing;
	struct store_ask *asks, **asks_tail;

	/* The thread's own. */
	struct projection file;
	struct buf batch;
	bool opened;		    /* once */
	bool behind;		    /* there is a gap between the file and the first record */
	bool proven;		    /* the file's hash was that of the state at its index */
	uint64_t passed;	    /* hash of the last record the file has already */
	uint64_t retry_ms, dump_ms; /* when to try again */
};

struct store *db__store_new(const struct store_config *config)
{
	struct store *s = mem_new(sizeof *s);

	s->cfg = *config;
	if (s->cfg.queue_max == 0)
		s->cfg.queue_max = STORE_QUEUE_MAX;
	if (s->cfg.history_s == 0)
		s->cfg.history_s = STORE_HISTORY_S;
	if (s->cfg.history_bytes == 0)
		s->cfg.history_bytes = STORE_HISTORY_BYTES;
	s->file.cfg = &s->cfg;
	s->asks_tail = &s->asks;
	s->parker = s->cfg.env->ops->parker_new(s->cfg.env);
	pthread_mutex_init(&s->mutex, NULL);
	return s;
}

static void wake(struct store *s)
{
	s->cfg.env->ops->unpark(s->parker);
}

/* The Raft loop's side. */

static void put_record(struct buf *q, uint8_t kind, uint64_t index, uint64_t hash, int64_t wall,
	const struct db_origin *origin, const struct buf *changes)
{
	buf_u8(q, kind);
	buf_u64(q, index);
	buf_u64(q, hash);
	buf_u64(q, (uint64_t)wall);
	buf_str(q, origin->user);
	buf_str(q, origin->task);
	buf_str(q, origin->method);
	buf_u32(q, (uint32_t)changes->len);
	buf_put(q, changes->data, changes->len);
}

void db__store_feed(struct store *s, uint64_t index, uint64_t hash, const struct entry_head *head,
	const struct apply_changes *changes)
{
	bool must_wake = false;

	pthread_mutex_lock(&s->mutex);
	s->fed = index;
	if (changes->n_rows > 0 &&
		(s->missed || s->queue.len + changes->rows.len > s->cfg.queue_max)) {
		must_wake = !s->missed;
		s->missed = true;
		counter_add(&s->cfg.env->counters, COUNTER_projection_dropped, changes->n_rows);
	} else if (changes->n_rows > 0) {
		must_wake = s->queue.len == 0;
		put_record(&s->queue, FEED_ENTRY, index, hash, head->wall, &head->origin,
			&changes->rows);
		counter_max(&s->cfg.env->counters, COUNTER_projection_queue_max, s->queue.len);
	}
	pthread_mutex_unlock(&s->mutex);
	if (must_wake)
		wake(s);
}

void db__store_jump(struct store *s, uint64_t index, uint64_t hash)
{
	struct db_origin none = { "", "", "" };
	struct buf nothing = { 0 };

	pthread_mutex_lock(&s->mutex);
	s->fed = index;
	if (!s->missed)
		put_record(&s->queue, FEED_JUMP, index, hash, 0, &none, &nothing);
	pthread_mutex_unlock(&s->mutex);
	wake(s);
}

void db__store_ask(struct store *s, struct store_ask *ask)
{
	ask->next = NULL;
	pthread_mutex_lock(&s->mutex);
	*s->asks_tail = ask;
	s->asks_tail = &ask->next;
	pthread_mutex_unlock(&s->mutex);
	wake(s);
}

/* The thread. */

static void queue_again(struct store *s)
{
	pthread_mutex_lock(&s->mutex);
	s->missed = false;
	pthread_mutex_unlock(&s->mutex);
}

static uint64_t fed(struct store *s)
{
	uint64_t index;

	pthread_mutex_lock(&s->mutex);
	index = s->fed;
	pthread_mutex_unlock(&s->mutex);
	return index;
}

static void fields_of(struct reader *r, int class_id, struct val *out, struct arena *a)
{
	const struct model_class *c = &model_classes[class_id];
	unsigned n = rd_u16(r);

	CHECK(n <= c->n_fields);
	for (unsigned i = 0; i < c->n_fields; i++)
		out[i] = i < n ? val_unpack(r, a) : c->fields[i].initial;
}

/* The next change, when it is one more of a field of that row. */
static bool one_more(struct reader *r, int class_id, const char *ref)
{
	struct reader look = *r;

	if (rd_left(&look) == 0 || rd_u8(&look) != FEED_SET || rd_u16(&look) != class_id ||
		strcmp(rd_str(&look), ref) != 0)
		return false;
	*r = look;
	return true;
}

/* Changes of a row that follow each other go together. */
static int write_sets(
	struct store *s, const struct stamp *st, int class_id, const char *ref, struct reader *r)
{
	struct field_change sets[PROJECTION_SETS_MAX];
	unsigned n = 0;
	struct arena a;
	int rc;

	arena_init(&a);
	do {
		sets[n].field = rd_u16(r);
		sets[n].old = val_unpack(r, &a);
		sets[n++].fresh = val_unpack(r, &a);
		CHECK(!r->bad);
	} while (n < PROJECTION_SETS_MAX && one_more(r, class_id, ref));
	rc = db__projection_set(&s->file, st, class_id, ref, sets, n);
	arena_fini(&a);
	counter_add(&s->cfg.env->counters, COUNTER_projection_changes, n);
	counter_max(&s->cfg.env->counters, COUNTER_sqlite_bytes_max, sql_memory());
	return rc;
}

static int write_change(struct store *s, const struct stamp *st, struct reader *r)
{
	uint8_t kind = rd_u8(r);
	int class_id = rd_u16(r), rc;
	const char *ref = rd_str(r);
	struct val *v;
	struct arena a;

	if (kind == FEED_SET)
		return write_sets(s, st, class_id, ref, r);
	arena_init(&a);
	v = arena_alloc(&a, model_classes[class_id].n_fields * sizeof *v);
	fields_of(r, class_id, v, &a);
	rc = (kind == FEED_CREATED ? db__projection_created : db__projection_deleted)(
		&s->file, st, class_id, ref, v);
	CHECK(!r->bad);
	arena_fini(&a);
	COUNT(s->cfg.env, projection_changes);
	return rc;
}

/* Bring the file to a view: what was modified since, and what is gone. */
static int settle(struct store *s)
{
	struct projection *p = &s->file;
	struct stamp st = { .origin = { "", "", "coalesced" } };
	const struct db_row *row;
	struct db_cursor cursor;
	struct db_view view;
	int rc = 0;

	/* what comes from here on is queued again, and what has been dropped is in the view */
	queue_again(s);
	db_view_pin(s->cfg.db, &view);
	s->behind = db_view_index(&view) < p->index; /* the log is still being replayed */
	if (s->behind) {
		db_view_unpin(&view);
		return 0;
	}
	st.time = db_view_time(&view);
	for (int c = 0; c < MODEL_CLASS_COUNT && rc == 0; c++) {
		if (!db__projected(c))
			continue;
		cursor = db_rows_modified(&view, c, p->index);
		while (rc == 0 && (row = db_next(&cursor)) != NULL) {
			st.index = db_row_modified(row);
			rc = db__projection_settle(p, &st, row);
		}
		st.index = db_view_index(&view);
		if (rc == 0 && !p->fresh)
			rc = db__projection_weed(p, &st, &view, c);
	}
	p->index = db_view_index(&view);
	p->hash = db_view_hash(&view);
	p->time = db_view_time(&view);
	s->proven = true;
	db_view_unpin(&view);
	if (rc == 0 && p->fresh)
		rc = db__projection_forget(p);
	COUNT(s->cfg.env, projection_settled);
	return rc;
}

/* ERR_VERSION: the file has another history than the log. */
static int write_record(struct store *s, struct reader *r)
{
	struct projection *p = &s->file;
	uint8_t kind = rd_u8(r);
	struct stamp st = { .index = rd_u64(r) };
	uint64_t hash = rd_u64(r);
	struct reader changes;
	const uint8_t *bytes;
	uint32_t n;
	int rc = 0;

	st.time = (int64_t)rd_u64(r);
	st.origin.user = rd_str(r);
	st.origin.task = rd_str(r);
	st.origin.method = rd_str(r);
	n = rd_u32(r);
	bytes = rd_bytes(r, n);
	CHECK(!r->bad);
	if (st.index <= p->index) {
		s->passed = hash;
		return 0;
	}
	if (kind == FEED_JUMP)
		return settle(s);
	if (!s->proven && s->passed != p->hash)
		return ERR_VERSION;
	s->proven = true;
	changes = reader_of(bytes, n);
	while (rc == 0 && rd_left(&changes) > 0)
		rc = write_change(s, &st, &changes);
	p->fresh = false;
	p->index = st.index;
	p->hash = hash;
	if (st.time > p->time)
		p->time = st.time;
	return rc;
}

static uint64_t next_index(const struct reader *r)
{
	struct reader look = *r;

	rd_u8(&look);
	return rd_u64(&look);
}

/* The batch up to an index, and what was missed, as one transaction. */
static int write_batch(struct store *s, uint64_t limit, bool missed)
{
	struct reader r = reader_of(s->batch.data, s->batch.len);
	int rc;

	if (rd_left(&r) == 0 && !missed && !s->behind)
		return 0;
	rc = db__projection_begin(&s->file);
	if (rc == 0 && s->behind)
		rc = settle(s);
	while (rc == 0 && !s->behind && rd_left(&r) > 0 && next_index(&r) <= limit)
		rc = write_record(s, &r);
	if (rc == 0 && missed && !s->behind)
		rc = settle(s);
	if (rc == 0)
		rc = db__projection_prune(&s->file);
	if (rc == 0)
		rc = db__projection_commit(&s->file);
	if (rc == 0) /* all of it when a view will tell */
		buf_consume(&s->batch, s->batch.len - (s->behind ? 0 : rd_left(&r)));
	return rc;
}

/* What waits joins the batch. */
static bool take(struct store *s)
{
	struct buf empty = { 0 };
	bool missed;

	if (s->batch.len == 0 && s->batch.cap > STORE_KEEP)
		buf_fini(&s->batch);
	pthread_mutex_lock(&s->mutex);
	if (s->batch.len == 0) {
		empty = s->batch;
		s->batch = s->queue;
		s->queue = empty;
	} else {
		buf_put(&s->batch, s->queue.data, s->queue.len);
		s->queue.len = 0;
	}
	missed = s->missed;
	pthread_mutex_unlock(&s->mutex);
	return missed;
}

static void failed(struct store *s, int rc)
{
	COUNT(s->cfg.env, projection_failures);
	if (rc == ERR_VERSION) {
		db__projection_aside(&s->file, "of another history");
	} else if (sql_damaged(s->file.sql)) {
		db__projection_aside(&s->file, "damaged");
	} else { /* the disk is full, or worse: the file may be sound */
		db__projection_close(&s->file);
		s->retry_ms = env_now_ms(s->cfg.env) + STORE_RETRY_MS;
	}
	s->batch.len = 0;
	s->behind = true;
}

/* A file to write to. */
static bool usable(struct store *s)
{
	struct projection *p = &s->file;
	uint64_t most = fed(s);

	if (p->sql != NULL && db__projection_there(p))
		return true;
	if (p->sql != NULL) {
		log_warn(s->cfg.env, "event=projection_gone file=%s", p->path);
		db__projection_close(p);
		s->batch.len = 0;
		s->behind = true;
	}
	if (env_now_ms(s->cfg.env) < s->retry_ms)
		return false;
	if (db__projection_open(p, most > s->last ? most : s->last) != 0) {
		COUNT(s->cfg.env, projection_failures);
		s->retry_ms = env_now_ms(s->cfg.env) + STORE_RETRY_MS;
		return false;
	}
	s->behind |= s->opened; /* not for the first: the records begin with the log */
	s->opened = true;
	s->proven = p->index == 0;
	return true;
}

static bool write_waiting(struct store *s, uint64_t limit)
{
	for (int tries = 0; tries < 2; tries++) {
		int rc;

		if (!usable(s))
			return false;
		rc = write_batch(s, limit, take(s));
		if (rc == 0)
			return true;
		failed(s, rc);
	}
	return false;
}

/* Everything that is visible now is in the file, and nothing else: the view is at the file's index.
 */
static bool write_to(struct store *s, struct db_view *view)
{
	enum { TRIES = 5000 }; /* of a millisecond: right after a start there is much to feed */

	for (int tries = 0; tries < TRIES; tries++) {
		db_view_pin(s->cfg.db, view);
		if (fed(s) < db_view_index(view)) { /* visible, and about to be fed */
			s->cfg.env->ops->park(s->parker, 1000);
		} else if (!write_waiting(s, db_view_index(view))) {
			tries = TRIES;
		} else if (s->file.index <= db_view_index(view)) {
			return true;
		} /* else it was settled from a newer view */
		db_view_unpin(view);
	}
	return false;
}

static void answer(struct store *s, struct store_ask *ask)
{
	struct db_view view;

	ask->ok = write_to(s, &view);
	if (!ask->ok)
		buf_printf(&ask->report,
			"projection: %s cannot be written; see the log of xpoold\n", s->file.path);
	else if (ask->check)
		ask->ok = db__projection_check(&s->file, &view, &ask->report);
	db_view_unpin(&view);
	ask->answered(ask);
}

static void answer_all(struct store *s)
{
	struct store_ask *list, *ask;

	pthread_mutex_lock(&s->mutex);
	list = s->asks;
	s->asks = NULL;
	s->asks_tail = &s->asks;
	pthread_mutex_unlock(&s->mutex);
	while ((ask = list) != NULL) {
		list = ask->next;
		answer(s, ask);
	}
}

static bool is_closing(struct store *s)
{
	bool closing;

	pthread_mutex_lock(&s->mutex);
	closing = s->closing;
	pthread_mutex_unlock(&s->mutex);
	return closing;
}

static bool is_asked(struct store *s)
{
	bool asked;

	pthread_mutex_lock(&s->mutex);
	asked = s->closing || s->asks != NULL;
	pthread_mutex_unlock(&s->mutex);
	return asked;
}

/* Only of a state that is up to date: everything that was in the log at the start is applied. */
static void keep_dumps(struct store *s)
{
	uint64_t now = env_now_ms(s->cfg.env), index = fed(s);

	if (now >= s->dump_ms && index > 0 && index >= s->last)
		s->dump_ms = now + db__dumps_keep(&s->cfg);
}

static void store_main(void *arg)
{
	struct store *s = arg;
	const struct env_ops *ops = s->cfg.env->ops;

	while (!is_closing(s)) {
		write_waiting(s, UINT64_MAX);
		answer_all(s);
		if (s->batch.len > 0) /* newer than the last answer */
			write_waiting(s, UINT64_MAX);
		keep_dumps(s);
		ops->park(s->parker, STORE_TICK_MS * 1000);
		if (!is_asked(s)) /* a burst becomes one transaction */
			ops->park(s->parker, STORE_GATHER_MS * 1000);
	}
	write_waiting(s, UINT64_MAX);
	answer_all(s);
	db__projection_close(&s->file);
}

void db__store_start(struct store *s, uint64_t last)
{
	s->last = last;
	s->thread = s->cfg.env->ops->thread_start(s->cfg.env, "store", store_main, s);
}

void db__store_free(struct store *s)
{
	pthread_mutex_lock(&s->mutex);
	s->closing = true;
	pthread_mutex_unlock(&s->mutex);
	wake(s);
	if (s->thread != NULL)
		s->cfg.env->ops->thread_join(s->thread);
	s->cfg.env->ops->parker_free(s->parker);
	pthread_mutex_destroy(&s->mutex);
	buf_fini(&s->queue);
	buf_fini(&s->batch);
	free(s);
}
