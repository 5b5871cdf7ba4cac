#include "db/channel.h"

#include <stdlib.h>
#include <string.h>

enum { FRAME_HEAD = 8 };

struct link; /* one connection, known or not yet known */

struct peer {
	struct channel *ch;
	struct channel_peer cfg;
	char address[128];
	struct link *link;
	bool up;
	struct loop_timer redial;
};

struct link {
	struct channel *ch;
	struct stream *stream;
	struct peer *peer; /* NULL until its HELLO */
	struct loop_timer deadline;
	struct buf in;
	struct link *next, **at;
	bool dialled, hello_sent, refused;
	bool in_data, dead; /* dropped by a callback of on_data, which frees it */
};

struct channel {
	struct channel_config cfg;
	char pool_uuid[UUID_LEN + 1];
	struct listener listener;
	struct peer peers[CHANNEL_PEERS_MAX];
	unsigned n_peers;
	struct link *links;
	bool closing;
};

static void dial(struct loop_timer *t);

static struct peer *peer_find(const struct channel *ch, uint64_t raft_id)
{
	for (unsigned i = 0; i < ch->n_peers; i++)
		if (ch->peers[i].cfg.raft_id == raft_id)
			return (struct peer *)&ch->peers[i];
	return NULL;
}

static void link_free(struct link *l)
{
	if (!l->dead) {
		*l->at = l->next;
		if (l->next != NULL)
			l->next->at = l->at;
		loop_timer_stop(&l->deadline);
	}
	l->dead = true;
	if (l->in_data)
		return;
	buf_fini(&l->in);
	free(l);
}

/* The connection is gone (its stream already is): tell, and dial again. */
static void link_lost(struct link *l)
{
	struct channel *ch = l->ch;
	struct peer *p = l->peer;
	bool was_up = false;

	if (p != NULL && p->link == l) {
		p->link = NULL;
		was_up = p->up;
		p->up = false;
		if (ch->cfg.raft_id < p->cfg.raft_id && !ch->closing)
			loop_timer_start(ch->cfg.loop, &p->redial,
				l->refused ? CHANNEL_REFUSED_MS : CHANNEL_REDIAL_MS, dial);
	}
	link_free(l);
	if (was_up && !ch->closing) {
		log_info(ch->cfg.loop->env, "event=member_disconnected peer=%llu",
			(unsigned long long)p->cfg.raft_id);
		ch->cfg.up(ch->cfg.arg, p->cfg.raft_id, false);
	}
}

static void link_drop(struct link *l, const char *why)
{
	struct env *env = l->ch->cfg.loop->env;

	loop_assert(l->ch->cfg.loop);
	if (why != NULL) {
		COUNT(env, channel_refused);
		l->refused = true;
		log_warn(env, "event=member_refused peer=%llu address=%s why=\"%s\"",
			l->peer != NULL ? (unsigned long long)l->peer->cfg.raft_id : 0,
			stream_peer(l->stream), why);
	}
	stream_close(l->stream);
	link_lost(l);
}

static void send_frame(struct link *l, uint8_t type, const void *payload, size_t n)
{
	struct buf head = { 0 };

	loop_assert(l->ch->cfg.loop);
	CHECK(n <= CHANNEL_FRAME_MAX);
	buf_u32(&head, (uint32_t)n);
	buf_u32(&head, type);
	buf_put(&head, payload, n);
	stream_write(l->stream, head.data, head.len);
	buf_fini(&head);
}

static void send_hello(struct link *l)
{
	struct buf b = { 0 };

	buf_u32(&b, CHANNEL_PROTOCOL);
	buf_str(&b, l->ch->pool_uuid);
	buf_u64(&b, l->ch->cfg.raft_id);
	buf_u64(&b, l->ch->cfg.epoch);
	buf_str(&b, l->ch->cfg.epoch_id);
	send_frame(l, CHANNEL_HELLO, b.data, b.len);
	buf_fini(&b);
	l->hello_sent = true;
}

/* Members of different epochs never work together: a forced recovery has given up what the others
 * know.
 */
static const char *epoch_fault(const struct channel *ch, uint64_t epoch, const char *id)
{
	if (epoch < ch->cfg.epoch)
		return "it is of an older epoch: adopt the new one there (xpoolctl adopt)";
	if (epoch > ch->cfg.epoch)
		return "it is of a newer epoch, this member was left behind by a forced recovery: "
		       "adopt the new one here (xpoolctl adopt)";
	if (strcmp(id, ch->cfg.epoch_id) != 0)
		return "it is of another epoch of the same number: the pool was recovered twice "
		       "and "
		       "there are two of it now. Stop one of them, and adopt the other's epoch "
		       "there";
	return NULL;
}

/* Why this HELLO is refused; NULL: it is good, and peer_out says whose. */
static const char *hello_fault(
	struct link *l, const uint8_t *payload, size_t n, struct peer **peer_out)
{
	struct reader r = reader_of(payload, n);
	uint32_t protocol = rd_u32(&r);
	const char *pool, *id;
	uint64_t raft_id, epoch;
	uint8_t fingerprint[TLS_FINGERPRINT_LEN];

	if (!r.bad && protocol != CHANNEL_PROTOCOL)
		return "it speaks another protocol version";
	pool = rd_str(&r);
	raft_id = rd_u64(&r);
	epoch = rd_u64(&r);
	id = rd_str(&r);
	if (r.bad)
		return "its hello does not parse";
	if (strcmp(pool, l->ch->pool_uuid) != 0)
		return "it belongs to another pool";
	*peer_out = peer_find(l->ch, raft_id);
	if (*peer_out == NULL || (l->peer != NULL && l->peer != *peer_out))
		return "it is no member of this pool";
	if (!stream_fingerprint(l->stream, fingerprint) ||
		memcmp(fingerprint, (*peer_out)->cfg.certificate, sizeof fingerprint) != 0)
		return "its certificate is not the one pinned for it";
	if (stream_expired(l->stream))
		return "its certificate has expired: make a new one (xpoolctl certificate) and pin "
		       "that in members.json of every member";
	if (!l->hello_sent)
		send_hello(l); /* it is who it says: it may know what we think of its epoch */
	return epoch_fault(l->ch, epoch, id);
}

static void on_hello(struct link *l, const uint8_t *payload, size_t n)
{
	struct channel *ch = l->ch;
	struct peer *p = NULL;
	const char *fault = hello_fault(l, payload, n, &p);

	loop_assert(ch->cfg.loop);
	if (fault != NULL) {
		link_drop(l, fault);
		return;
	}
	if (p->link != NULL && p->link != l)
		link_drop(p->link, NULL);
	l->peer = p;
	p->link = l;
	p->up = true;
	loop_timer_stop(&l->deadline);
	loop_timer_stop(&p->redial);
	COUNT(ch->cfg.loop->env, channel_connects);
	log_info(ch->cfg.loop->env, "event=member_connected peer=%llu",
		(unsigned long long)p->cfg.raft_id);
	ch->cfg.up(ch->cfg.arg, p->cfg.raft_id, true);
}

/* One frame; the link may be dead afterwards. */
static void on_frame(struct link *l, uint32_t type, const uint8_t *payload, uint32_t length)
{
	struct channel *ch = l->ch;

	if (l->peer != NULL && l->peer->up) {
		if (ch->cfg.frame(ch->cfg.arg, l->peer->cfg.raft_id, (uint8_t)type, payload,
			    length) != 0 &&
			!l->dead)
			link_drop(l, "a frame does not parse");
	} else if (type == CHANNEL_HELLO) {
		on_hello(l, payload, length);
	} else {
		link_drop(l, "it did not say hello");
	}
}

static void on_data(void *arg, struct stream *s, const uint8_t *p, size_t n)
{
	struct link *l = arg;
	size_t at = 0;

	loop_assert(l->ch->cfg.loop);
	(void)s;
	buf_put(&l->in, p, n);
	l->in_data = true;
	while (!l->dead && l->in.len - at >= FRAME_HEAD) {
		struct reader r = reader_of(l->in.data + at, l->in.len - at);
		uint32_t length = rd_u32(&r), type = rd_u32(&r);
		bool known = l->peer != NULL && l->peer->up;
		const uint8_t *payload;

		if (length > (known ? CHANNEL_FRAME_MAX : CHANNEL_HELLO_MAX) || type > UINT8_MAX) {
			link_drop(l, "a frame is malformed");
			break;
		}
		payload = rd_bytes(&r, length);
		if (payload == NULL)
			break;
		at += FRAME_HEAD + length;
		on_frame(l, type, payload, length);
	}
	l->in_data = false;
	if (l->dead)
		link_free(l);
	else
		buf_consume(&l->in, at);
}

static void on_open(void *arg, struct stream *s)
{
	struct link *l = arg;

	(void)s;
	if (l->dialled)
		send_hello(l);
}

static void on_closed(void *arg, struct stream *s, const char *why)
{
	struct link *l = arg;

	(void)s;
	log_debug(l->ch->cfg.loop->env, "event=member_link_closed why=\"%s\"", why);
	link_lost(l);
}

static const struct stream_handler link_handler = {
	.open = on_open, .data = on_data, .closed = on_closed
};

static void on_deadline(struct loop_timer *t)
{
	link_drop(container_of(t, struct link, deadline), "it did not say hello in time");
}

static struct link *link_new(struct channel *ch)
{
	struct link *l = mem_new(sizeof *l);

	loop_assert(ch->cfg.loop);
	l->ch = ch;
	l->next = ch->links;
	l->at = &ch->links;
	if (l->next != NULL)
		l->next->at = &l->next;
	ch->links = l;
	loop_timer_start(ch->cfg.loop, &l->deadline, CHANNEL_HELLO_MS, on_deadline);
	return l;
}

static void on_accept(void *arg, struct stream *s)
{
	struct channel *ch = arg;
	struct link *l = link_new(ch);
	unsigned strangers = 0;

	l->stream = s;
	stream_handle(s, &link_handler, l);
	for (const struct link *k = ch->links; k != NULL; k = k->next)
		strangers += k->peer == NULL;
	if (strangers > CHANNEL_STRANGERS_MAX)
		link_drop(l, "too many connections that have not said who they are");
}

static void dial(struct loop_timer *t)
{
	struct peer *p = container_of(t, struct peer, redial);
	struct link *l;

	if (p->link != NULL || p->ch->closing)
		return;
	l = link_new(p->ch);
	l->dialled = true;
	l->peer = p;
	p->link = l;
	l->stream = stream_connect(p->ch->cfg.loop, p->address, p->ch->cfg.tls, &link_handler, l);
}

int channel_open(struct channel **out, const struct channel_config *config)
{
	struct channel *ch = mem_new(sizeof *ch);
	int rc;

	CHECK(config->n_peers <= CHANNEL_PEERS_MAX && strlen(config->pool_uuid) == UUID_LEN);
	ch->cfg = *config;
	strcpy(ch->pool_uuid, config->pool_uuid);
	ch->n_peers = config->n_peers;
	for (unsigned i = 0; i < ch->n_peers; i++) {
		ch->peers[i].ch = ch;
		ch->peers[i].cfg = config->peers[i];
		CHECK(strlen(config->peers[i].address) < sizeof ch->peers[i].address);
		strcpy(ch->peers[i].address, config->peers[i].address);
	}
	rc = listener_open(&ch->listener, config->loop, config->listen, config->tls, on_accept, ch);
	if (rc != 0) {
		free(ch);
		return rc;
	}
	for (unsigned i = 0; i < ch->n_peers; i++)
		if (config->raft_id < ch->peers[i].cfg.raft_id)
			loop_timer_start(config->loop, &ch->peers[i].redial, 0, dial);
	*out = ch;
	return 0;
}

void channel_close(struct channel *ch)
{
	ch->closing = true;
	listener_close(&ch->listener);
	for (unsigned i = 0; i < ch->n_peers; i++)
		loop_timer_stop(&ch->peers[i].redial);
	while (ch->links != NULL)
		link_drop(ch->links, NULL);
	free(ch);
}

void channel_send(struct channel *ch, uint64_t peer, uint8_t type, const void *payload, size_t n)
{
	struct peer *p = peer_find(ch, peer);

	loop_assert(ch->cfg.loop);
	if (p == NULL || !p->up)
		return;
	if (stream_queued(p->link->stream) + n > CHANNEL_QUEUE_MAX) {
		link_drop(p->link, "it does not read what is sent to it");
		return;
	}
	send_frame(p->link, type, payload, n);
}

bool channel_is_up(const struct channel *ch, uint64_t peer)
{
	const struct peer *p = peer_find(ch, peer);

	return p != NULL && p->up;
}

size_t channel_queued(const struct channel *ch, uint64_t peer)
{
	const struct peer *p = peer_find(ch, peer);

	return p != NULL && p->up ? stream_queued(p->link->stream) : 0;
}
