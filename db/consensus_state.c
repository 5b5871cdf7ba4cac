/* The state machine behind the library: applying, taking snapshots, restoring them.
 *
 * The library wants a restore to be done when its call returns, and applies all that is committed
 * in one go. Neither fits a loop whose turns are short:
 *
 *   restore    takes the buffer only. A worker decodes it, the loop then swaps the state; the old
 *              one is shown meanwhile, and the member does not stand for election
 *              (consensus__unfit). A newer snapshot that arrives before the end is decoded next, in
 *              place of the first.
 *   apply      what is committed while a snapshot is decoded, or when the turn has applied for
 *              long enough, waits in the library's own log: no queue of ours, so no limit either.
 *              The log keeps it, for no snapshot is taken before the state has caught up
 *              (RAFT_BUSY: the library asks again). A newer snapshot from the leader takes the
 *              waiting entries away, and the reason to apply them.
 *
 * Invariant: when not `behind`, the state has all entries up to raft.last_applied; else those up to
 * `reached`, or it will be replaced by a snapshot.
 */
#include "db/consensus_priv.h"

#include <stdlib.h>

enum { APPLY_TURN_US = 8000 /* of a turn that may last 20 ms */ };

uint64_t consensus_applied(const struct consensus *c)
{
	return c->behind ? c->reached : c->raft.last_applied;
}

bool consensus_restoring(const struct consensus *c)
{
	return c->restore != NULL;
}

/* Applying. */

static bool turn_is_spent(struct consensus *c)
{
	uint64_t now = env_now_us(c->cfg.loop->env);

	if (c->turn_us == 0)
		c->turn_us = now;
	return now - c->turn_us > APPLY_TURN_US;
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	struct consensus *c = fsm->data;
	raft_index index = c->raft.last_applied + 1; /* it is raised after this call */

	*result = NULL;
	if (c->broken || c->behind)
		return 0;
	/* an only voter leads, and commits, inside raft_start: nobody up there is ready for it */
	if (c->opening || turn_is_spent(c)) {
		c->behind = true;
		c->reached = index - 1;
		return 0;
	}
	c->cfg.apply(c->cfg.arg, index, buf->base, buf->len);
	return 0;
}

/* In the library's log, which has no function for it; NULL: not there, a snapshot has replaced it.
 */
static const struct raft_entry *entry_at(const struct raft_log *log, raft_index index)
{
	size_t n = log->size == 0 ? 0 : (log->back + log->size - log->front) % log->size;

	if (index <= log->offset || index > log->offset + n)
		return NULL;
	return &log->entries[(log->front + (index - log->offset - 1)) % log->size];
}

static void apply_some(struct consensus *c)
{
	while (!c->broken && c->reached < c->raft.last_applied && !turn_is_spent(c)) {
		const struct raft_entry *e = entry_at(&c->raft.log, c->reached + 1);
		struct raft_buffer buf;

		if (e == NULL)
			return; /* a newer snapshot is being stored */
		c->reached++;
		buf = e->buf; /* the array may move under apply */
		if (e->type == RAFT_COMMAND)
			c->cfg.apply(c->cfg.arg, c->reached, buf.base, buf.len);
	}
	c->behind = c->reached < c->raft.last_applied;
}

static void on_more(struct loop_timer *t)
{
	struct consensus *c = container_of(t, struct consensus, more);

	if (c->behind && c->restore == NULL)
		apply_some(c);
	consensus__role_look(c);
}

void consensus__state_turn(struct consensus *c)
{
	loop_assert(c->cfg.loop);
	c->turn_us = 0;
	if (c->behind && c->restore == NULL && c->more.pos == 0 &&
		entry_at(&c->raft.log, c->reached + 1) != NULL)
		loop_timer_start(c->cfg.loop, &c->more, 0, on_more);
}

/* Taking: frozen on the loop, encoded on a worker, in one buffer. */

struct taken {
	struct raft_buffer buf; /* first: what the library sees */
	void *frozen;
	struct buf bytes;
};

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
	struct consensus *c = fsm->data;
	struct taken *t;

	/* the library would put a configuration into it that may still be cut off */
	if (c->behind || !consensus__conf_settled(c))
		return RAFT_BUSY;
	t = mem_new(sizeof *t);
	t->frozen = c->cfg.freeze(c->cfg.arg);
	*bufs = &t->buf;
	*n = 1;
	return 0;
}

static int fsm_snapshot_async(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
	struct consensus *c = fsm->data;
	struct taken *t = container_of(*bufs, struct taken, buf);

	(void)n;
	c->cfg.encode(t->frozen, &t->bytes);
	t->buf = (struct raft_buffer){ t->bytes.data, t->bytes.len };
	return 0;
}

/* Each time, for it is a matter of days. */
static void say_large(struct consensus *c, size_t bytes)
{
	COUNT(c->cfg.loop->env, snapshots_large);
	log_warn(c->cfg.loop->env,
		"event=database_large snapshot_mib=%zu limit_mib=%d remedy=\"remove what is not "
		"needed: a larger one no member takes\"",
		bytes >> 20, CONSENSUS_SNAPSHOT_MAX >> 20);
}

static int fsm_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
	struct consensus *c = fsm->data;
	struct taken *t = container_of(*bufs, struct taken, buf);

	c->cfg.thaw(t->frozen);
	COUNT(c->cfg.loop->env, snapshots_taken);
	counter_max(&c->cfg.loop->env->counters, COUNTER_snapshot_bytes_max, t->bytes.len);
	if (t->bytes.len > c->cfg.snapshot_large)
		say_large(c, t->bytes.len);
	buf_fini(&t->bytes);
	free(t);
	*bufs = NULL;
	*n = 0;
	consensus__snapshot_taken(c);
	return 0;
}

/* Restoring. */

/* One snapshot on its way into the state. */
struct restore {
	struct raft_io_async_work work;
	struct consensus *c;
	struct raft_buffer bytes;
	raft_index index;
	void *decoded;
	const char *why;
};

static void restore_free(struct restore *r)
{
	raft_free(r->bytes.base);
	free(r);
}

static int decode(struct raft_io_async_work *req)
{
	struct restore *r = req->data;

	r->decoded = r->c->cfg.decode(r->c->cfg.arg, r->bytes.base, r->bytes.len, &r->why);
	return 0;
}

static void restore_start(struct consensus *c, struct restore *r);

/* The state is that of the snapshot; what was committed since is behind it in the log. */
static void install(struct restore *r)
{
	struct consensus *c = r->c;

	CHECK(c->behind && r->index != 0 && r->index <= c->raft.last_applied);
	c->reached = r->index;
	c->behind = c->reached < c->raft.last_applied;
	c->cfg.install(c->cfg.arg, r->decoded);
	COUNT(c->cfg.loop->env, snapshots_restored);
}

static void on_decoded(struct raft_io_async_work *req, int status)
{
	struct restore *r = req->data, *next;
	struct consensus *c = r->c;
	bool dead = status != 0 || c->closing || c->broken;

	CHECK(c->restore == r);
	next = c->restore_next;
	c->restore = c->restore_next = NULL;
	if (r->decoded != NULL && (dead || next != NULL))
		c->cfg.discard(r->decoded);
	else if (r->decoded != NULL)
		install(r);
	else if (!dead)
		consensus__fail_stop(c, r->why, RAFT_CORRUPT);
	restore_free(r);
	if (next != NULL && dead)
		restore_free(next);
	else if (next != NULL)
		restore_start(c, next);
	if (!dead)
		consensus__role_look(c);
}

static void restore_start(struct consensus *c, struct restore *r)
{
	int rv;

	r->work = (struct raft_io_async_work){ .data = r, .work = decode };
	c->restore = r;
	rv = c->io->async_work(c->io, &r->work, on_decoded);
	if (rv == 0)
		return;
	c->restore = NULL;
	restore_free(r);
	consensus__fail_stop(c, "no worker for a snapshot", rv);
}

/* The buffer becomes ours. */
static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	struct consensus *c = fsm->data;
	struct restore *r = mem_new(sizeof *r);

	*r = (struct restore){ .c = c, .bytes = *buf, .index = c->raft.log.snapshot.last_index };
	if (c->restore_next != NULL)
		restore_free(c->restore_next);
	c->restore_next = NULL;
	if (!c->behind)
		c->reached = c->raft.last_applied;
	c->behind = true;
	if (c->restore != NULL)
		c->restore_next = r;
	else
		restore_start(c, r);
	return 0;
}

void consensus__state_started(struct consensus *c)
{
	if (c->restore != NULL)
		c->restore->index = c->raft.log.snapshot.last_index;
}

void consensus__state_install(struct consensus *c)
{
	c->fsm = (struct raft_fsm){ .version = 3,
		.data = c,
		.apply = fsm_apply,
		.snapshot = fsm_snapshot,
		.restore = fsm_restore,
		.snapshot_finalize = fsm_snapshot_finalize,
		.snapshot_async = fsm_snapshot_async };
}
