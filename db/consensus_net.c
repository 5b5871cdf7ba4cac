/* Our network half of raft_io, on the member channel.
 *
 * send never fails and never calls back before it has returned: an error for an answer makes the
 * library free entries twice, an error for AppendEntries sends the peer back to the start of its
 * log. So what cannot be sent is dropped and completed with success: the next message does not fit,
 * is refused with the peer's last index, and all is well again. AppendEntries to one peer keep
 * their order; adjoining ones are merged into a frame, long ones split. A frame that does not reach
 * the end of the leader's log never promises a commit beyond itself (the receiver would commit its
 * tail). Commit push: once per turn a follower that lags learns the commit index by an empty
 * AppendEntries that asks no answer.
 *
 * A snapshot goes as a head and chunks over the bulk connection, a few at a time: behind them
 * stands no heartbeat, and where an older peer has one connection only, few do. The receiver
 * delivers it to the library when whole and says so. Until then its refusals are kept from the
 * library, which would begin all over at each. What cannot be finished (no connection, or another
 * one, no word of its arrival) is given up with an error and probed anew.
 */
#include "db/consensus_priv.h"

#include <stdlib.h>
#include <string.h>

enum {
	F_APPEND = CHANNEL_RAFT_FIRST,
	F_APPEND_RESULT,
	F_VOTE,
	F_VOTE_RESULT,
	F_TIMEOUT_NOW,
	F_PUSH,
	F_SNAPSHOT,
	F_CHUNK,
	F_CHUNKS_DONE,
	F_ANEW
};

struct net_peer *consensus__peer(struct consensus *c, raft_id id)
{
	for (unsigned i = 0; i < c->n_peers && id != 0; i++)
		if (c->peers[i].id == id)
			return &c->peers[i];
	return NULL;
}

struct raft_progress *consensus__progress(struct consensus *c, raft_id id)
{
	if (c->raft.state != RAFT_LEADER)
		return NULL;
	for (unsigned i = 0; i < c->raft.configuration.n; i++)
		if (c->raft.configuration.servers[i].id == id)
			return &c->raft.leader_state.progress[i];
	return NULL;
}

static void finish(struct consensus *c, struct raft_io_send *req, raft_io_send_cb cb, int status)
{
	struct net_done *d;

	loop_assert(c->cfg.loop);
	if (cb == NULL)
		return;
	d = mem_new(sizeof *d);
	*d = (struct net_done){ NULL, req, cb, status };
	*c->done_tail = d;
	c->done_tail = &d->next;
}

static void run_finished(struct consensus *c, int forced)
{
	struct net_done *list = c->done;

	loop_assert(c->cfg.loop);
	c->done = NULL;
	c->done_tail = &c->done;
	while (list != NULL) {
		struct net_done *d = list;

		list = d->next;
		d->cb(d->req, forced ? forced : d->status);
		free(d);
	}
}

/* The oldest request of a peer is done with. */
static void pop(struct consensus *c, struct net_peer *p)
{
	struct net_append *a = p->head;

	p->head = a->next;
	if (p->head == NULL)
		p->tail = &p->head;
	p->n_requests--;
	p->n_entries -= a->n - a->off;
	finish(c, a->req, a->cb, 0);
	free(a);
}

static void put_append_head(
	struct buf *b, raft_term term, raft_index prev, raft_term prev_term, raft_index commit)
{
	buf_u64(b, term);
	buf_u64(b, prev);
	buf_u64(b, prev_term);
	buf_u64(b, commit);
}

static unsigned part_entries(const struct consensus *c)
{
	return c->cfg.part_entries > 0 ? c->cfg.part_entries : NET_PART_ENTRIES;
}

/* One frame from as many adjoining requests as fit. */
static void encode_some(struct consensus *c, struct net_peer *p)
{
	struct net_append *a = p->head;
	raft_index prev = a->prev + a->off, end = prev, commit = a->commit;
	raft_term prev_term = a->off > 0 ? a->entries[a->off - 1].term : a->prev_term,
		  term = a->term;
	struct buf heads = { 0 }, bodies = { 0 }, frame = { 0 };
	unsigned n = 0;

	while (a != NULL && a->term == term && a->prev + a->off == end) {
		if (a->commit > commit)
			commit = a->commit;
		while (a->off < a->n && n < part_entries(c) &&
			(n == 0 || bodies.len + a->entries[a->off].buf.len <= NET_PART_BYTES)) {
			const struct raft_entry *e = &a->entries[a->off++];

			buf_u64(&heads, e->term);
			buf_u32(&heads, (uint32_t)e->buf.len);
			buf_u32(&heads, e->type);
			buf_put(&bodies, e->buf.base, e->buf.len);
			p->n_entries--;
			n++;
			end++;
		}
		if (a->off < a->n)
			break;
		a = a->next;
		pop(c, p);
		if (c->cfg.merging_off)
			break;
		if (a != NULL && a->term == term && a->prev == end)
			COUNT(c->cfg.loop->env, raft_merged);
	}
	if (commit > end && !(c->cfg.rules_off & RULE_CLAMP))
		commit = end;
	put_append_head(&frame, term, prev, prev_term, commit);
	buf_u32(&frame, n);
	buf_put(&frame, heads.data, heads.len);
	buf_put(&frame, bodies.data, bodies.len);
	channel_send(c->channel, p->id, F_APPEND, frame.data, frame.len);
	buf_fini(&heads);
	buf_fini(&bodies);
	buf_fini(&frame);
}

/* Snapshots, sending side. */

static void snapshot_begin(struct consensus *c, struct net_peer *p)
{
	const struct raft_install_snapshot *m = &p->out.m;
	struct buf b = { 0 };

	buf_u32(&b, p->out.number);
	buf_u64(&b, m->term);
	buf_u64(&b, m->last_index);
	buf_u64(&b, m->last_term);
	buf_u64(&b, m->conf_index);
	buf_u64(&b, m->data.len);
	buf_u32(&b, m->conf.n);
	for (unsigned i = 0; i < m->conf.n; i++) {
		buf_u64(&b, m->conf.servers[i].id);
		buf_u32(&b, (uint32_t)m->conf.servers[i].role);
		buf_str(&b, m->conf.servers[i].address);
	}
	channel_send_bulk(c->channel, p->id, F_SNAPSHOT, b.data, b.len);
	buf_fini(&b);
	p->out.begun = true;
	p->out.life = channel_bulk_life(c->channel, p->id);
}

static void snapshot_some(struct consensus *c, struct net_peer *p)
{
	while (p->out.req != NULL && p->up &&
		channel_bulk_queued(c->channel, p->id) < NET_CHUNKS_LOW &&
		(!p->out.begun || p->out.at < p->out.m.data.len)) {
		size_t n = p->out.m.data.len - p->out.at;
		struct buf b = { 0 };

		if (!p->out.begun)
			snapshot_begin(c, p);
		if (n > NET_CHUNK)
			n = NET_CHUNK;
		buf_u32(&b, p->out.number);
		buf_u64(&b, p->out.at);
		buf_put(&b, (const char *)p->out.m.data.base + p->out.at, n);
		channel_send_bulk(c->channel, p->id, F_CHUNK, b.data, b.len);
		buf_fini(&b);
		p->out.at += n;
		p->out.drained = false;
		p->out.moved_ms = env_now_ms(c->cfg.loop->env);
	}
}

static void snapshot_end(struct consensus *c, struct net_peer *p, int status)
{
	if (p->out.req == NULL)
		return;
	finish(c, p->out.req, p->out.cb, status);
	p->out.req = NULL;
}

/* The peer has not got it, or got it and died before it said so, or its word was lost: probe,
 * rather than wait for the library's time-out. */
static void snapshot_give_up(struct consensus *c, struct net_peer *p)
{
	struct raft_progress *progress = consensus__progress(c, p->id);

	snapshot_end(c, p, RAFT_NOCONNECTION); /* here an error is right */
	p->out.installing = false;
	if (progress != NULL && progress->state == NET_PROGRESS_SNAPSHOT) {
		progress->state = NET_PROGRESS_PROBE;
		progress->snapshot_index = 0;
	}
}

/* All of it has arrived; the library hears from the peer when that has stored it, if ever. */
static void snapshot_arrived(struct consensus *c, struct net_peer *p)
{
	if (p->out.req == NULL)
		return;
	p->out.installing = true;
	p->out.moved_ms = env_now_ms(c->cfg.loop->env);
	snapshot_end(c, p, 0);
}

static void snapshot_stored(struct consensus *c, struct net_peer *p)
{
	const struct raft_progress *progress = consensus__progress(c, p->id);
	uint64_t takes_ms = NET_SNAPSHOT_SILENCE_MS + p->out.m.data.len / NET_SNAPSHOT_PER_MS;

	if (progress == NULL || progress->state != NET_PROGRESS_SNAPSHOT)
		p->out.installing = false;
	if (p->out.installing && env_now_ms(c->cfg.loop->env) - p->out.moved_ms >= takes_ms)
		snapshot_give_up(c, p);
}

/* Before more of it is sent: is what was sent on its way, or has it arrived? */
static void snapshot_watch(struct consensus *c, struct net_peer *p)
{
	uint64_t now = env_now_ms(c->cfg.loop->env);
	bool lost = p->out.begun && p->out.life != channel_bulk_life(c->channel, p->id);

	if (p->out.req == NULL)
		return;
	p->out.drained |= channel_bulk_queued(c->channel, p->id) <= NET_CHUNKS_GONE;
	if (!p->out.drained)
		p->out.moved_ms = now;
	if (!lost && now - p->out.moved_ms < NET_SNAPSHOT_SILENCE_MS)
		return;
	log_warn(c->cfg.loop->env, "event=snapshot_%s peer=%llu sent=%zu",
		lost ? "interrupted" : "unanswered", p->id, p->out.at);
	snapshot_give_up(c, p);
}

static void send_snapshot(struct consensus *c, struct net_peer *p, struct raft_io_send *req,
	const struct raft_install_snapshot *m, raft_io_send_cb cb)
{
	snapshot_end(c, p, 0); /* a second one replaces the first */
	p->out = (struct net_snapshot_out){
		.req = req,
		.cb = cb,
		.m = *m,
		.number = ++c->snapshot_number,
		.moved_ms = env_now_ms(c->cfg.loop->env),
	};
	COUNT(c->cfg.loop->env, snapshots_sent);
	log_info(c->cfg.loop->env, "event=snapshot_send peer=%llu index=%llu bytes=%zu", p->id,
		m->last_index, m->data.len);
}

/* Receiving side. */

static void snapshot_drop(struct net_peer *p)
{
	if (!p->in.on)
		return;
	raft_free(p->in.m.data.base);
	raft_configuration_close(&p->in.m.conf);
	p->in.on = false;
}

static int on_snapshot(struct net_peer *p, struct reader *r)
{
	struct raft_install_snapshot *m = &p->in.m;
	uint32_t number = rd_u32(r), n;

	if (p->in.on && number < p->in.number && !r->bad)
		return 0; /* late, from a connection that is no more: a newer one took its place */
	snapshot_drop(p);
	*m = (struct raft_install_snapshot){ 0 };
	p->in.number = number;
	m->term = rd_u64(r);
	m->last_index = rd_u64(r);
	m->last_term = rd_u64(r);
	m->conf_index = rd_u64(r);
	m->data.len = rd_u64(r);
	n = rd_u32(r);
	if (r->bad || m->data.len == 0 || m->data.len > CONSENSUS_SNAPSHOT_MAX ||
		n > CHANNEL_PEERS_MAX)
		return ERR_CORRUPT;
	raft_configuration_init(&m->conf);
	for (uint32_t i = 0; i < n && !r->bad; i++) {
		uint64_t id = rd_u64(r);
		uint32_t role = rd_u32(r);
		const char *address = rd_str(r);

		if (!r->bad && (role > RAFT_SPARE || raft_configuration_add(&m->conf, id, address,
							     (int)role) != 0))
			r->bad = true;
	}
	if (r->bad) {
		raft_configuration_close(&m->conf);
		return ERR_CORRUPT;
	}
	m->data.base = must(raft_malloc(m->data.len));
	p->in.got = 0;
	p->in.on = true;
	return 0;
}

static int on_chunk(
	struct consensus *c, struct net_peer *p, struct reader *r, struct raft_message *m)
{
	uint32_t number = rd_u32(r);
	uint64_t at = rd_u64(r);
	size_t n = rd_left(r);
	struct buf b = { 0 };

	if (r->bad)
		return ERR_CORRUPT;
	if (!p->in.on || number != p->in.number)
		return 0; /* of one that was replaced */
	if (at != p->in.got || n > p->in.m.data.len - p->in.got)
		return ERR_CORRUPT;
	memcpy((char *)p->in.m.data.base + at, r->p, n);
	p->in.got += n;
	if (p->in.got < p->in.m.data.len)
		return 0;
	p->in.on = false;
	m->type = RAFT_IO_INSTALL_SNAPSHOT;
	m->install_snapshot =
		p->in.m; /* data and configuration belong to the library from here on */
	consensus__deliver(c, p, m);
	buf_u32(&b, number);
	channel_send(c->channel, p->id, F_CHUNKS_DONE, b.data, b.len);
	buf_fini(&b);
	return 0;
}

static void push_commit(struct consensus *c, struct net_peer *p)
{
	struct raft_progress *progress = consensus__progress(c, p->id);
	struct buf b = { 0 };
	raft_index commit;

	loop_assert(c->cfg.loop);
	if (progress == NULL || !p->up || c->guard.term != c->raft.current_term ||
		c->raft.commit_index < c->guard.own)
		return;
	commit = progress->match_index < c->raft.commit_index ? progress->match_index
							      : c->raft.commit_index;
	if (p->push_term != c->raft.current_term) {
		p->push_term = c->raft.current_term;
		p->pushed = 0;
	}
	if (commit < c->guard.own || commit <= p->pushed)
		return;
	/* from `own` on every entry is of this term, so this needs no look at the log */
	put_append_head(&b, c->raft.current_term, commit, c->raft.current_term, commit);
	buf_u32(&b, 0);
	channel_send(c->channel, p->id, F_PUSH, b.data, b.len);
	buf_fini(&b);
	p->pushed = commit;
	COUNT(c->cfg.loop->env, raft_pushes);
}

static void on_turn(struct loop_hook *hook)
{
	struct consensus *c = container_of(hook, struct consensus, hook);

	if (c->closing || c->broken)
		return;
	consensus__state_turn(c);
	if (c->channel == NULL)
		return;
	consensus__guard_turn(c);
	consensus__hand_turn(c);
	consensus__change_turn(c);
	run_finished(c, 0);
	for (unsigned i = 0; i < c->n_peers; i++) {
		struct net_peer *p = &c->peers[i];

		push_commit(c, p);
		while (p->head != NULL && channel_queued(c->channel, p->id) < NET_QUEUE_SOFT)
			encode_some(c, p);
		snapshot_watch(c, p);
		snapshot_stored(c, p);
		snapshot_some(c, p);
	}
	run_finished(c, 0);
}

static void send_append(struct consensus *c, struct net_peer *p, struct raft_io_send *req,
	const struct raft_append_entries *m, raft_io_send_cb cb)
{
	struct raft_progress *progress = consensus__progress(c, p->id);
	bool probing = progress != NULL && progress->state == NET_PROGRESS_PROBE;
	unsigned n = m->n_entries;
	struct net_append *a;

	/* what does not fit is cut off: the next message will not fit either and brings the peer's
	 * word of what it has */
	if (n > NET_QUEUE_ENTRIES - p->n_entries)
		n = (unsigned)(NET_QUEUE_ENTRIES - p->n_entries);
	if (probing && n > NET_PROBE_ENTRIES)
		n = NET_PROBE_ENTRIES;
	if (m->n_entries > 0 &&
		(n == 0 || (probing && p->n_entries > 0) || p->n_requests >= NET_QUEUE_REQUESTS)) {
		COUNT(c->cfg.loop->env, raft_dropped);
		finish(c, req, cb, 0);
		return;
	}
	a = mem_new(sizeof *a);
	*a = (struct net_append){ .req = req,
		.cb = cb,
		.term = m->term,
		.prev = m->prev_log_index,
		.prev_term = m->prev_log_term,
		.commit = m->leader_commit,
		.entries = m->entries,
		.n = n };
	*p->tail = a;
	p->tail = &a->next;
	p->n_entries += n;
	counter_max(&c->cfg.loop->env->counters, COUNTER_raft_queue_max, ++p->n_requests);
}

/* Before each refusal, so that it may be lost like any frame. */
static void say_anew(struct consensus *c, const struct net_peer *p)
{
	struct buf b = { 0 };

	buf_u64(&b, raft_last_index(&c->raft));
	channel_send(c->channel, p->id, F_ANEW, b.data, b.len);
	buf_fini(&b);
}

static void send_small(struct consensus *c, struct net_peer *p, const struct raft_message *m)
{
	struct buf b = { 0 };
	uint8_t type = 0;

	switch (m->type) {
	case RAFT_IO_APPEND_ENTRIES_RESULT: {
		const struct raft_append_entries_result *r = &m->append_entries_result;
		raft_index claim = consensus__vouched(c, r);

		if (c->guard.push && r->rejected == 0)
			break; /* the leader did not ask */
		if (r->rejected != 0 && c->note.fetching)
			say_anew(c, p);
		type = F_APPEND_RESULT;
		buf_u64(&b, r->term);
		buf_u64(&b, r->rejected);
		buf_u64(&b, claim);
		break;
	}
	case RAFT_IO_REQUEST_VOTE:
		type = F_VOTE;
		buf_u64(&b, m->request_vote.term);
		buf_u64(&b, m->request_vote.last_log_index);
		buf_u64(&b, m->request_vote.last_log_term);
		buf_u8(&b, m->request_vote.disrupt_leader);
		buf_u8(&b, m->request_vote.pre_vote);
		break;
	case RAFT_IO_REQUEST_VOTE_RESULT:
		type = F_VOTE_RESULT;
		buf_u64(&b, m->request_vote_result.term);
		buf_u8(&b, m->request_vote_result.vote_granted);
		buf_u8(&b, (uint8_t)m->request_vote_result.pre_vote);
		break;
	case RAFT_IO_TIMEOUT_NOW:
		type = F_TIMEOUT_NOW;
		buf_u64(&b, m->timeout_now.term);
		buf_u64(&b, m->timeout_now.last_log_index);
		buf_u64(&b, m->timeout_now.last_log_term);
		break;
	default: break;
	}
	if (type != 0)
		channel_send(c->channel, p->id, type, b.data, b.len);
	buf_fini(&b);
}

static int net_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
	raft_io_send_cb cb)
{
	struct consensus *c = consensus__of(io);
	struct net_peer *p = consensus__peer(c, m->server_id);
	bool is_snapshot = m->type == RAFT_IO_INSTALL_SNAPSHOT;

	loop_assert(c->cfg.loop);
	if (p == NULL || !p->up || c->closing || c->channel == NULL) {
		/* an answer that is not sent must still be seen by the guard */
		if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT)
			consensus__vouched(c, &m->append_entries_result);
		finish(c, req, cb, is_snapshot ? RAFT_NOCONNECTION : 0);
		return 0;
	}
	if (m->type == RAFT_IO_APPEND_ENTRIES) {
		send_append(c, p, req, &m->append_entries, cb);
	} else if (is_snapshot) {
		send_snapshot(c, p, req, &m->install_snapshot, cb);
	} else {
		send_small(c, p, m);
		finish(c, req, cb, 0);
	}
	return 0;
}

/* Entries of a message; from the delivery on both blocks belong to the library. false: malformed.
 */
static bool read_entries(struct reader *r, struct raft_append_entries *m, uint32_t n)
{
	const uint8_t *heads = rd_bytes(r, (size_t)n * 16);
	struct reader h = reader_of(heads, heads != NULL ? (size_t)n * 16 : 0);
	size_t sum = 0;
	char *batch;

	if (heads == NULL)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t term = rd_u64(&h);
		uint32_t len = rd_u32(&h), type = rd_u32(&h);

		if (len % 8 != 0 || term == 0 || term > m->term || type < RAFT_COMMAND ||
			type > RAFT_CHANGE || len > rd_left(r) - sum)
			return false;
		if (type == RAFT_CHANGE && !consensus__conf_decode(r->p + sum, len, NULL))
			return false; /* the library would believe it */
		sum += len;
	}
	if (sum != rd_left(r))
		return false;
	m->entries = must(raft_malloc(n * sizeof *m->entries));
	batch = must(raft_malloc(sum ? sum : 8));
	memcpy(batch, r->p, sum);
	h = reader_of(heads, (size_t)n * 16);
	for (uint32_t i = 0, at = 0; i < n; i++) {
		struct raft_entry *e = &m->entries[i];

		e->term = rd_u64(&h);
		e->buf.len = rd_u32(&h);
		e->type = (unsigned short)rd_u32(&h);
		e->buf.base = batch + at;
		e->batch = batch;
		at += (uint32_t)e->buf.len;
	}
	m->n_entries = n;
	return true;
}

static bool read_append(struct reader *r, struct raft_append_entries *m)
{
	uint32_t n;

	m->term = rd_u64(r);
	m->prev_log_index = rd_u64(r);
	m->prev_log_term = rd_u64(r);
	m->leader_commit = rd_u64(r);
	n = rd_u32(r);
	if (r->bad || n > NET_PART_ENTRIES)
		return false;
	return n == 0 ? rd_left(r) == 0 : read_entries(r, m, n);
}

static bool read_message(struct reader *r, uint8_t type, raft_id peer, struct raft_message *m)
{
	switch (type) {
	case F_APPEND:
	case F_PUSH: m->type = RAFT_IO_APPEND_ENTRIES; return read_append(r, &m->append_entries);
	case F_APPEND_RESULT:
		m->type = RAFT_IO_APPEND_ENTRIES_RESULT;
		m->append_entries_result.term = rd_u64(r);
		m->append_entries_result.rejected = rd_u64(r);
		m->append_entries_result.last_log_index = rd_u64(r);
		break;
	case F_VOTE:
		m->type = RAFT_IO_REQUEST_VOTE;
		m->request_vote.candidate_id = peer;
		m->request_vote.term = rd_u64(r);
		m->request_vote.last_log_index = rd_u64(r);
		m->request_vote.last_log_term = rd_u64(r);
		m->request_vote.disrupt_leader = rd_u8(r) != 0;
		m->request_vote.pre_vote = rd_u8(r) != 0;
		break;
	case F_VOTE_RESULT:
		m->type = RAFT_IO_REQUEST_VOTE_RESULT;
		m->request_vote_result.term = rd_u64(r);
		m->request_vote_result.vote_granted = rd_u8(r) != 0;
		m->request_vote_result.pre_vote = (raft_tribool)(rd_u8(r) % 3);
		break;
	case F_TIMEOUT_NOW:
		m->type = RAFT_IO_TIMEOUT_NOW;
		m->timeout_now.term = rd_u64(r);
		m->timeout_now.last_log_index = rd_u64(r);
		m->timeout_now.last_log_term = rd_u64(r);
		break;
	default: return false;
	}
	return !r->bad && rd_left(r) == 0;
}

int consensus_receive(
	struct consensus *c, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n)
{
	struct net_peer *p = consensus__peer(c, peer);
	struct raft_message m = { .server_id = peer };
	struct reader r = reader_of(payload, n);
	char address[UUID_LEN + 1];
	raft_index last;

	loop_assert(c->cfg.loop);
	if (c->closing || c->broken)
		return 0;
	if (p == NULL)
		return ERR_CORRUPT;
	address[0] = 0;
	for (unsigned i = 0; i < c->raft.configuration.n; i++) {
		const struct raft_server *s = &c->raft.configuration.servers[i];

		if (s->id == peer && strlen(s->address) < sizeof address)
			strcpy(address, s->address); /* the library may change the configuration
							under the call */
	}
	m.server_address = address;
	switch (type) {
	case F_SNAPSHOT: return on_snapshot(p, &r);
	case F_CHUNK: return on_chunk(c, p, &r, &m);
	case F_CHUNKS_DONE:
		if (rd_u32(&r) == p->out.number && !r.bad)
			snapshot_arrived(c, p);
		return r.bad ? ERR_CORRUPT : 0;
	case F_ANEW:
		last = rd_u64(&r);
		if (!r.bad)
			consensus__begun_anew(c, p, last);
		return r.bad ? ERR_CORRUPT : 0;
	default: break;
	}
	if (!read_message(&r, type, peer, &m))
		return ERR_CORRUPT;
	m.server_id = peer;
	m.server_address = address;
	if (type == F_APPEND_RESULT && p->out.req != NULL &&
		m.append_entries_result.rejected != 0 &&
		m.append_entries_result.term == c->raft.current_term) {
		m.append_entries_result.rejected = 0;
		m.append_entries_result.last_log_index = 0;
	}
	c->guard.push = type == F_PUSH;
	consensus__deliver(c, p, &m);
	c->guard.push = false;
	return 0;
}

void consensus_peer_up(struct consensus *c, uint64_t peer, bool up)
{
	struct net_peer *p = consensus__peer(c, peer);

	loop_assert(c->cfg.loop);
	if (p == NULL || c->closing)
		return;
	p->up = up;
	p->pushed = 0;
	p->masked = 0;
	while (!up && p->head != NULL)
		pop(c, p);
	if (up)
		return;
	snapshot_drop(p);
	snapshot_give_up(c, p);
	consensus__early(c, peer);
}

bool consensus_peer_add(struct consensus *c, uint64_t peer)
{
	unsigned i = 0;

	if (consensus__peer(c, peer) != NULL)
		return true;
	while (i < c->n_peers && c->peers[i].id != 0)
		i++;
	if (i == CHANNEL_PEERS_MAX)
		return false;
	c->peers[i] = (struct net_peer){ .id = peer, .tail = &c->peers[i].head };
	if (i == c->n_peers)
		c->n_peers++;
	return true;
}

void consensus_peer_witness(struct consensus *c, uint64_t peer, bool witness)
{
	struct net_peer *p = consensus__peer(c, peer);

	if (p != NULL)
		p->witness = witness;
}

void consensus_peer_remove(struct consensus *c, uint64_t peer)
{
	struct net_peer *p = consensus__peer(c, peer);

	if (p == NULL)
		return;
	consensus_peer_up(c, peer, false);
	p->id = 0; /* a place for another */
}

static void net_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct consensus *c = consensus__of(io);

	/* the close callback frees the log: no completion may come after it */
	for (unsigned i = 0; i < c->n_peers; i++) {
		while (c->peers[i].head != NULL)
			pop(c, &c->peers[i]);
		snapshot_drop(&c->peers[i]);
		snapshot_end(c, &c->peers[i], RAFT_CANCELED);
	}
	run_finished(c, RAFT_CANCELED);
	c->disk_close(io, cb);
}

void consensus__net_install(struct consensus *c)
{
	struct raft_io *io = c->io;

	c->done_tail = &c->done;
	c->disk_close = io->close;
	io->send = net_send;
	io->close = net_close;
}

void consensus__net_start(struct consensus *c)
{
	loop_hook_add(c->cfg.loop, &c->hook, on_turn);
}
