/* The guard: what libraft 0.15 does not do right by itself. Without it acknowledged writes are lost
 * in two reproduced ways (docs/decisions/0003, tests/sim/directed.c).
 *
 *  becoming leader   submit a barrier at once and note its index as `own`; nothing is served before
 * it is applied masking           while our own barrier is not on our disk, no follower's progress
 * is believed: a successful AppendEntries result counts as contact (index 0) and is given again
 * once it is. So nothing of an earlier term is committed by counting replicas (Raft paper,
 * section 5.4.2, figure 8). vouched           an answer never claims more than this term's leader
 * has covered by a message that was not refused: the library answers with its own last stored
 * index, stale tail included. not on disk       a follower whose log is ahead of its disk, or that
 * stores or decodes a snapshot, does not stand for election: ticks are skipped, TimeoutNow is
 * dropped. fail-stop         any disk operation that fails ends the process, before the library
 * sees it; so does a truncation that meets a snapshot being written: the library would never carry
 * it out and write the new entries behind the old ones (canonical/raft issue 372).
 */
#include "db/consensus_priv.h"

#include <stdlib.h>
#include <string.h>

struct barrier {
	struct raft_barrier req;
	struct consensus *c;
	raft_term term;
};

struct append {
	struct raft_io_append req;
	struct raft_io_append *theirs;
	raft_io_append_cb cb;
	struct consensus *c;
};

/* Its log was set aside and is not whole again: it neither stands nor votes. */
static bool abstains(const struct consensus *c)
{
	return c->note.fetching && !(c->cfg.rules_off & RULE_ABSTAIN);
}

bool consensus__behind_disk(const struct consensus *c)
{
	return raft_last_index((struct raft *)&c->raft) > c->raft.last_stored ||
	       c->raft.snapshot.put.data != NULL;
}

bool consensus__unfit(const struct consensus *c)
{
	return consensus__behind_disk(c) || consensus_restoring(c) || abstains(c) ||
	       consensus__cramped(c);
}

static void on_barrier(struct raft_barrier *req, int status)
{
	struct barrier *b = container_of(req, struct barrier, req);
	struct consensus *c = b->c;

	if (status == 0 && !c->closing && c->raft.state == RAFT_LEADER &&
		c->raft.current_term == b->term)
		c->guard.ready = true;
	free(b);
	if (!c->closing)
		consensus__role_look(c);
}

static void own_barrier(struct consensus *c)
{
	struct barrier *b = mem_new(sizeof *b);

	loop_assert(c->cfg.loop);
	b->c = c;
	b->term = c->raft.current_term;
	/* else the heartbeat just sent holds the barrier back for one heartbeat interval */
	for (unsigned i = 0; i < c->raft.configuration.n; i++)
		c->raft.leader_state.progress[i].last_send = 0;
	if (raft_barrier(&c->raft, &b->req, on_barrier) != 0) {
		free(b);
		c->guard.own = UINT64_MAX; /* nothing counts until a later turn has got it in */
		return;
	}
	c->guard.own = raft_last_index(&c->raft);
}

/* After each tick and message: have we become leader of a term not seen yet? */
static void look(struct consensus *c)
{
	if (c->raft.state == RAFT_UNAVAILABLE && !c->closing) {
		consensus__fail_stop(c, "the Raft library has given up", 0);
		return;
	}
	if (c->raft.state == RAFT_LEADER &&
		(c->guard.term != c->raft.current_term || c->guard.own == UINT64_MAX)) {
		c->guard.term = c->raft.current_term;
		c->guard.ready = false;
		own_barrier(c);
	}
	if (c->raft.state != RAFT_LEADER)
		c->guard.ready = false;
	consensus__role_look(c);
}

static void guarded_tick(struct raft_io *io)
{
	struct consensus *c = consensus__of(io);

	if (c->closing || c->broken)
		return;
	if (c->raft.state == RAFT_FOLLOWER && consensus__unfit(c))
		return;
	/* a peer without connection: each heartbeat would collect all its missing entries in vain
	 */
	if (c->raft.state == RAFT_LEADER)
		for (unsigned i = 0; i < c->raft.configuration.n; i++) {
			struct net_peer *p =
				consensus__peer(c, c->raft.configuration.servers[i].id);

			if (p == NULL || !p->up)
				c->raft.leader_state.progress[i].last_send = io->time(io);
		}
	c->tick(io);
	look(c);
}

void consensus__tick(struct consensus *c)
{
	guarded_tick(c->io);
}

static bool masks(struct consensus *c)
{
	return !(c->cfg.rules_off & RULE_MASKING) && c->raft.state == RAFT_LEADER &&
	       c->guard.term == c->raft.current_term && c->raft.last_stored < c->guard.own;
}

/* Remember what a masked answer said; the largest wins, for answers may overtake. */
static void mask(struct consensus *c, struct net_peer *p, struct raft_append_entries_result *r)
{
	if (p->masked_term != c->raft.current_term || p->masked < r->last_log_index) {
		p->masked_term = c->raft.current_term;
		p->masked = r->last_log_index;
	}
	r->last_log_index = 0;
	COUNT(c->cfg.loop->env, raft_masked);
}

void consensus__begun_anew(struct consensus *c, const struct net_peer *p, raft_index last)
{
	struct raft_progress *progress = consensus__progress(c, p->id);

	if (progress == NULL || last >= progress->match_index)
		return;
	log_warn(c->cfg.loop->env, "event=member_lost_its_log peer=%llu had=%llu has=%llu", p->id,
		progress->match_index, last);
	progress->state = NET_PROGRESS_PROBE;
	progress->match_index = progress->snapshot_index = 0;
	progress->next_index = last + 1;
}

void consensus__deliver(struct consensus *c, struct net_peer *p, struct raft_message *m)
{
	struct guard *g = &c->guard;
	raft_term term = 0, prev_term = 0;
	raft_index covers = 0, prev = 0;

	loop_assert(c->cfg.loop);
	if (m->type == RAFT_IO_TIMEOUT_NOW && consensus__unfit(c))
		return;
	if (m->type == RAFT_IO_REQUEST_VOTE && abstains(c))
		return;
	if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT && m->append_entries_result.rejected == 0 &&
		m->append_entries_result.term == c->raft.current_term && masks(c))
		mask(c, p, &m->append_entries_result);
	if (m->type == RAFT_IO_APPEND_ENTRIES) {
		term = m->append_entries.term;
		prev = m->append_entries.prev_log_index;
		prev_term = m->append_entries.prev_log_term;
		covers = prev + m->append_entries.n_entries;
	} else if (m->type == RAFT_IO_INSTALL_SNAPSHOT) {
		term = m->install_snapshot.term;
		covers = m->install_snapshot.last_index;
	}
	if (term >= c->raft.current_term && term != g->vouched_term) {
		g->vouched_term = term;
		g->vouched = 0;
	}
	g->candidate = term != 0 && term == g->vouched_term ? covers : 0;
	g->refused = false;
	c->raft.configuration_uncommitted_index = 0; /* consensus_change.c */
	c->recv(c->io, m);
	if (!g->refused && g->candidate > g->vouched && g->vouched_term == c->raft.current_term)
		g->vouched = g->candidate;
	if (!g->refused && g->candidate != 0)
		consensus__note_fetched(c, prev, prev_term);
	g->candidate = 0;
	look(c);
}

/* Our send asks this for every answer; a refusal is noted for consensus__deliver. */
raft_index consensus__vouched(struct consensus *c, const struct raft_append_entries_result *r)
{
	struct guard *g = &c->guard;
	raft_index most = g->candidate > g->vouched ? g->candidate : g->vouched;

	if (r->rejected != 0) {
		g->refused = true;
		return r->last_log_index;
	}
	if (g->vouched_term != r->term)
		most = 0;
	if (r->last_log_index <= most || c->cfg.rules_off & RULE_VOUCHED)
		return r->last_log_index;
	COUNT(c->cfg.loop->env, raft_clamped);
	return most;
}

/* Give kept answers to the library once our own barrier is on disk, else the peer is heard only at
 * the next heartbeat. */
void consensus__guard_turn(struct consensus *c)
{
	if (c->raft.state != RAFT_LEADER || masks(c))
		return;
	if (c->guard.own == UINT64_MAX)
		look(c);
	for (unsigned i = 0; i < c->n_peers && c->raft.state == RAFT_LEADER; i++) {
		struct net_peer *p = &c->peers[i];
		struct raft_message m = { .type = RAFT_IO_APPEND_ENTRIES_RESULT };

		if (p->masked == 0 || p->masked_term != c->raft.current_term)
			continue;
		m.server_id = p->id;
		m.append_entries_result.term = c->raft.current_term;
		m.append_entries_result.last_log_index = p->masked;
		p->masked = 0;
		for (unsigned k = 0; k < c->raft.configuration.n; k++)
			if (c->raft.configuration.servers[k].id == p->id)
				m.server_address = c->raft.configuration.servers[k].address;
		if (m.server_address != NULL)
			consensus__deliver(c, p, &m);
	}
}

/* Disk operations: an error never reaches the library. */

static void on_appended(struct raft_io_append *req, int status)
{
	struct append *a = container_of(req, struct append, req);
	struct raft_io_append *theirs = a->theirs;
	raft_io_append_cb cb = a->cb;
	struct consensus *c = a->c;

	free(a);
	if (status != 0 && status != RAFT_CANCELED) {
		consensus__fail_stop(c, "the log cannot be written", status);
		status = RAFT_CANCELED; /* only in a simulation does this line run */
	}
	/* the library truncates without a word of how it ended, then goes on writing */
	if (status == 0 && c->cut != 0) {
		if (!c->cfg.disk->is_cut(c->cfg.disk, c->cut))
			consensus__fail_stop(c, "the log was not truncated", RAFT_IOERR);
		c->cut = 0;
	}
	cb(theirs, status);
	c->raft.configuration_uncommitted_index = 0; /* consensus_change.c */
}

static int guarded_append(struct raft_io *io, struct raft_io_append *req,
	const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
	struct consensus *c = consensus__of(io);
	struct append *a = mem_new(sizeof *a);
	int rv;

	consensus__confs_append(c, entries, n);
	*a = (struct append){ .theirs = req, .cb = cb, .c = c };
	rv = c->disk_append(io, &a->req, entries, n, on_appended);
	if (rv != 0) {
		free(a);
		consensus__fail_stop(c, "the log cannot be written", rv);
	}
	return rv;
}

static int guarded_set_term(struct raft_io *io, raft_term term)
{
	struct consensus *c = consensus__of(io);
	int rv = c->disk_set_term(io, term);

	if (rv != 0)
		consensus__fail_stop(c, "the term cannot be written", rv);
	else
		consensus__note_term(c, term);
	return rv;
}

static int guarded_set_vote(struct raft_io *io, raft_id id)
{
	struct consensus *c = consensus__of(io);
	int rv = c->disk_set_vote(io, id);

	if (rv != 0)
		consensus__fail_stop(c, "the vote cannot be written", rv);
	else
		consensus__note_vote(c, id);
	return rv;
}

static int guarded_truncate(struct raft_io *io, raft_index index)
{
	struct consensus *c = consensus__of(io);
	int rv;

	if (c->put.theirs != NULL) {
		consensus__fail_stop(
			c, "the log is to be truncated while a snapshot is written", RAFT_BUSY);
		return RAFT_BUSY;
	}
	rv = c->disk_truncate(io, index);
	if (rv != 0)
		consensus__fail_stop(c, "the log cannot be truncated", rv);
	consensus__confs_truncate(c, index);
	c->cut = index;
	return rv;
}

static void on_put(struct raft_io_snapshot_put *req, int status)
{
	struct consensus *c = container_of(req, struct consensus, put.req);
	struct raft_io_snapshot_put *theirs = c->put.theirs;

	c->put.theirs = NULL;
	if (status == 0 && c->note.installing != 0)
		consensus__note_installing(c, 0);
	if (c->put.installing) {
		if (status == 0)
			consensus__confs_replace(c, &c->put.conf);
		raft_configuration_close(&c->put.conf.conf);
		c->put.installing = false;
	}
	if (status != 0 && status != RAFT_CANCELED)
		consensus__fail_stop(c, "a snapshot cannot be written", status);
	c->put.cb(theirs, status);
}

static int guarded_snapshot_put(struct raft_io *io, unsigned trailing,
	struct raft_io_snapshot_put *req, const struct raft_snapshot *snapshot,
	raft_io_snapshot_put_cb cb)
{
	struct consensus *c = consensus__of(io);
	int rv;

	CHECK(c->put.theirs == NULL);
	c->put.theirs = req;
	c->put.cb = cb;
	if (trailing == 0) { /* in place of the log */
		consensus__note_installing(c, snapshot->index);
		consensus__confs_keep(&c->put.conf, snapshot);
		c->put.installing = true;
	}
	rv = c->disk_snapshot_put(io, trailing, &c->put.req, snapshot, on_put);
	if (rv != 0) {
		c->put.theirs = NULL;
		consensus__fail_stop(c, "a snapshot cannot be written", rv);
	}
	return rv;
}

static int guarded_load(struct raft_io *io, raft_term *term, raft_id *vote,
	struct raft_snapshot **snapshot, raft_index *start, struct raft_entry *entries[], size_t *n)
{
	struct consensus *c = consensus__of(io);
	int rv = c->disk_load(io, term, vote, snapshot, start, entries, n);

	if (rv == 0)
		consensus__confs_load(c, *snapshot, *start, *entries, *n);
	return rv;
}

static void never_received(struct raft_io *io, struct raft_message *m)
{
	(void)io;
	(void)m;
	UNREACHABLE(); /* the disk half has no network */
}

static int guarded_start(
	struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	struct consensus *c = consensus__of(io);

	c->tick = tick;
	c->recv = recv;
	return c->disk_start(io, msecs, guarded_tick, never_received);
}

void consensus__guard_install(struct consensus *c)
{
	struct raft_io *io = c->io;

	c->disk_load = io->load;
	c->disk_start = io->start;
	c->disk_append = io->append;
	c->disk_set_term = io->set_term;
	c->disk_set_vote = io->set_vote;
	c->disk_truncate = io->truncate;
	c->disk_snapshot_put = io->snapshot_put;
	io->load = guarded_load;
	io->start = guarded_start;
	io->append = guarded_append;
	io->set_term = guarded_set_term;
	io->set_vote = guarded_set_vote;
	io->truncate = guarded_truncate;
	io->snapshot_put = guarded_snapshot_put;
}
