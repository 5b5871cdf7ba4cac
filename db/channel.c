#include "db/channel.h"

#include <stdlib.h>
#include <string.h>

enum { FRAME_HEAD = 8 };

/* Flags of a HELLO; none: of a member of before. */
enum {
	HELLO_TAKES_BULK = 1, /* it knows of bulk connections */
	HELLO_IS_BULK = 2,    /* this is one */
};

enum kind { PROMPT, BULK, KINDS };

struct link; /* one connection, known or not yet known */

/* One of the connections to a peer. */
struct way {
	struct peer *peer;
	enum kind kind;
	struct link *link;
	bool up;
	struct loop_timer redial;
};

struct peer {
	struct channel *ch;
	struct channel_peer cfg;
	char address[128];
	struct way ways[KINDS];
	bool takes_bulk;
	uint64_t bulk_life;
};

struct link {
	struct channel *ch;
	struct stream *stream;
	struct way *way; /* NULL until its HELLO */
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
	struct peer peers[CHANNEL_PEERS_MAX + CHANNEL_GONE_MAX]; /* raft id 0: free */
	unsigned n_peers;
	struct link *links;
	bool closing;
};

static void dial(struct loop_timer *t);

static struct peer *peer_find(const struct channel *ch, uint64_t raft_id)
{
	for (unsigned i = 0; i < ch->n_peers && raft_id != 0; i++)
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

static void link_drop(struct link *l, const char *why);

/* Shall there be such a connection, and is it ours to make? */
static bool is_ours(const struct way *w)
{
	const struct peer *p = w->peer;

	return p->ch->cfg.raft_id < p->cfg.raft_id && !p->ch->closing &&
	       (w->kind == PROMPT || (p->takes_bulk && p->ways[PROMPT].up));
}

/* Without the prompt connection there is no other. */
static void peer_gone(struct peer *p)
{
	struct channel *ch = p->ch;

	p->takes_bulk = false;
	loop_timer_stop(&p->ways[BULK].redial);
	if (p->ways[BULK].link != NULL)
		link_drop(p->ways[BULK].link, NULL);
	if (ch->closing)
		return;
	log_info(ch->cfg.loop->env, "event=member_disconnected peer=%llu",
		(unsigned long long)p->cfg.raft_id);
	ch->cfg.up(ch->cfg.arg, p->cfg.raft_id, false);
}

/* The connection is gone (its stream already is): tell, and dial again. */
static void link_lost(struct link *l)
{
	struct way *w = l->way;
	bool was_up = false;

	if (w != NULL && w->link == l) {
		w->link = NULL;
		was_up = w->up;
		w->up = false;
		if (is_ours(w))
			loop_timer_start(l->ch->cfg.loop, &w->redial,
				l->refused || w->peer->cfg.gone ? CHANNEL_REFUSED_MS
								: CHANNEL_REDIAL_MS,
				dial);
	}
	link_free(l);
	if (was_up)
		w->peer->bulk_life++;
	if (was_up && w->kind == PROMPT)
		peer_gone(w->peer);
}

static void refuse(struct link *l, const char *why)
{
	struct env *env = l->ch->cfg.loop->env;

	COUNT(env, channel_refused);
	l->refused = true;
	log_warn(env, "event=member_refused peer=%llu address=%s why=\"%s\"",
		l->way != NULL ? (unsigned long long)l->way->peer->cfg.raft_id : 0,
		stream_peer(l->stream), why);
}

static void link_drop(struct link *l, const char *why)
{
	loop_assert(l->ch->cfg.loop);
	if (why != NULL)
		refuse(l, why);
	stream_close(l->stream);
	link_lost(l);
}

/* And what is queued with it. */
static void link_give_up(struct link *l, const char *why)
{
	loop_assert(l->ch->cfg.loop);
	refuse(l, why);
	stream_abort(l->stream);
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

static void send_hello(struct link *l, enum kind kind)
{
	struct buf b = { 0 };

	buf_u32(&b, CHANNEL_PROTOCOL);
	buf_str(&b, l->ch->pool_uuid);
	buf_u64(&b, l->ch->cfg.raft_id);
	buf_u64(&b, l->ch->cfg.epoch);
	buf_str(&b, l->ch->cfg.epoch_id);
	if (!l->ch->cfg.bulk_off)
		buf_u32(&b, HELLO_TAKES_BULK | (kind == BULK ? HELLO_IS_BULK : 0));
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

/* What a HELLO says of the connection. */
struct hello {
	struct peer *peer;
	uint32_t flags;
};

/* Why this HELLO is refused; NULL: it is good. */
static const char *hello_fault(struct link *l, const uint8_t *payload, size_t n, struct hello *out)
{
	struct reader r = reader_of(payload, n);
	uint32_t protocol = rd_u32(&r);
	const char *pool, *id;
	uint64_t raft_id, epoch;
	const struct peer *p;
	uint8_t fingerprint[TLS_FINGERPRINT_LEN];

	if (!r.bad && protocol != CHANNEL_PROTOCOL)
		return "it speaks another protocol version";
	pool = rd_str(&r);
	raft_id = rd_u64(&r);
	epoch = rd_u64(&r);
	id = rd_str(&r);
	if (!r.bad && rd_left(&r) > 0 && !l->ch->cfg.bulk_off)
		out->flags = rd_u32(&r);
	if (r.bad)
		return "its hello does not parse";
	if (strcmp(pool, l->ch->pool_uuid) != 0)
		return "it belongs to another pool";
	p = out->peer = peer_find(l->ch, raft_id);
	if (p == NULL || (l->way != NULL && l->way->peer != p))
		return "it is no member of this pool";
	if (!stream_fingerprint(l->stream, fingerprint) ||
		memcmp(fingerprint, p->cfg.certificate, sizeof fingerprint) != 0)
		return "its certificate is not the one pinned for it";
	if (stream_expired(l->stream))
		return "its certificate has expired: make a new one (xpoolctl certificate) and pin "
		       "that in members.json of every member";
	if (!l->hello_sent) /* it is who it says: it may know what we think of its epoch */
		send_hello(l, out->flags & HELLO_IS_BULK ? BULK : PROMPT);
	return epoch_fault(l->ch, epoch, id);
}

static void prompt_up(struct peer *p, uint32_t flags)
{
	struct channel *ch = p->ch;

	p->takes_bulk = (flags & HELLO_TAKES_BULK) != 0;
	if (is_ours(&p->ways[BULK]))
		loop_timer_start(ch->cfg.loop, &p->ways[BULK].redial, 0, dial);
	log_info(ch->cfg.loop->env, "event=member_connected peer=%llu bulk=%s",
		(unsigned long long)p->cfg.raft_id, p->takes_bulk ? "apart" : "together");
	ch->cfg.up(ch->cfg.arg, p->cfg.raft_id, true);
}

static void on_hello(struct link *l, const uint8_t *payload, size_t n)
{
	struct channel *ch = l->ch;
	struct hello hello = { 0 };
	const char *fault = hello_fault(l, payload, n, &hello);
	struct peer *p = hello.peer;
	struct way *w;

	loop_assert(ch->cfg.loop);
	if (fault != NULL) {
		link_drop(l, fault);
		return;
	}
	w = &p->ways[hello.flags & HELLO_IS_BULK ? BULK : PROMPT];
	if ((l->way != NULL && l->way != w) || (w->kind == BULK && !p->ways[PROMPT].up)) {
		link_drop(l, NULL); /* the prompt one has gone meanwhile */
		return;
	}
	if (w->link != NULL && w->link != l)
		link_drop(w->link, NULL);
	l->way = w;
	w->link = l;
	w->up = true;
	p->bulk_life++;
	loop_timer_stop(&l->deadline);
	loop_timer_stop(&w->redial);
	COUNT(ch->cfg.loop->env, channel_connects);
	if (w->kind == PROMPT)
		prompt_up(p, hello.flags);
}

/* One frame; the link may be dead afterwards. */
static void on_frame(struct link *l, uint32_t type, const uint8_t *payload, uint32_t length)
{
	struct channel *ch = l->ch;

	if (l->way != NULL && l->way->up) {
		if (ch->cfg.frame(ch->cfg.arg, l->way->peer->cfg.raft_id, (uint8_t)type, payload,
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
		bool known = l->way != NULL && l->way->up;
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
		send_hello(l, l->way->kind);
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
		strangers += k->way == NULL;
	if (strangers > CHANNEL_STRANGERS_MAX)
		link_drop(l, "too many connections that have not said who they are");
}

static void dial(struct loop_timer *t)
{
	struct way *w = container_of(t, struct way, redial);
	struct channel *ch = w->peer->ch;
	struct link *l;

	if (w->link != NULL || !is_ours(w))
		return;
	l = link_new(ch);
	l->dialled = true;
	l->way = w;
	w->link = l;
	l->stream = stream_connect(ch->cfg.loop, w->peer->address, ch->cfg.tls, &link_handler, l);
}

int channel_open(struct channel **out, const struct channel_config *config)
{
	struct channel *ch = mem_new(sizeof *ch);
	int rc;

	CHECK(config->n_peers <= CHANNEL_PEERS_MAX && strlen(config->pool_uuid) == UUID_LEN);
	ch->cfg = *config;
	strcpy(ch->pool_uuid, config->pool_uuid);
	rc = listener_open(&ch->listener, config->loop, config->listen, config->tls, on_accept, ch);
	if (rc != 0) {
		free(ch);
		return rc;
	}
	for (unsigned i = 0; i < config->n_peers; i++)
		CHECK(channel_add(ch, &config->peers[i]));
	*out = ch;
	return 0;
}

static struct peer *place_for(struct channel *ch)
{
	for (unsigned i = 0; i < ch->n_peers; i++)
		if (ch->peers[i].cfg.raft_id == 0)
			return &ch->peers[i];
	return ch->n_peers < ARRAY_LEN(ch->peers) ? &ch->peers[ch->n_peers++] : NULL;
}

bool channel_add(struct channel *ch, const struct channel_peer *peer)
{
	struct peer *p = peer_find(ch, peer->raft_id);
	bool known = p != NULL, other;

	if (strlen(peer->address) >= sizeof p->address || (!known && (p = place_for(ch)) == NULL))
		return false;
	other = known && memcmp(p->cfg.certificate, peer->certificate, TLS_FINGERPRINT_LEN) != 0;
	p->ch = ch;
	p->cfg = *peer;
	strcpy(p->address, peer->address);
	for (int k = 0; !known && k < KINDS; k++)
		p->ways[k] = (struct way){ .peer = p, .kind = (enum kind)k };
	if (other && p->ways[PROMPT].link != NULL)
		link_drop(p->ways[PROMPT].link, NULL); /* and the other with it */
	else if (!known && is_ours(&p->ways[PROMPT]))
		loop_timer_start(ch->cfg.loop, &p->ways[PROMPT].redial, 0, dial);
	return true;
}

void channel_remove(struct channel *ch, uint64_t raft_id)
{
	struct peer *p = peer_find(ch, raft_id);

	if (p == NULL)
		return;
	for (int k = 0; k < KINDS; k++) {
		if (p->ways[k].link != NULL)
			link_drop(p->ways[k].link, NULL);
	}
	for (int k = 0; k < KINDS; k++)
		loop_timer_stop(&p->ways[k].redial);
	p->cfg.raft_id = 0;
}

void channel_close(struct channel *ch)
{
	ch->closing = true;
	listener_close(&ch->listener);
	for (unsigned i = 0; i < ch->n_peers; i++)
		for (int k = 0; k < KINDS; k++)
			loop_timer_stop(&ch->peers[i].ways[k].redial);
	while (ch->links != NULL)
		link_drop(ch->links, NULL);
	free(ch);
}

static const struct way *way_of(const struct channel *ch, uint64_t peer, enum kind kind)
{
	const struct peer *p = peer_find(ch, peer);

	if (p == NULL || !p->ways[PROMPT].up)
		return NULL;
	return p->ways[kind].up ? &p->ways[kind] : &p->ways[PROMPT];
}

static void send_by(const struct way *w, uint8_t type, const void *payload, size_t n)
{
	if (w == NULL)
		return;
	loop_assert(w->peer->ch->cfg.loop);
	if (stream_queued(w->link->stream) + n >
		(w->kind == BULK ? CHANNEL_BULK_MAX : CHANNEL_QUEUE_MAX)) {
		link_give_up(w->link, "it does not read what is sent to it");
		return;
	}
	send_frame(w->link, type, payload, n);
}

void channel_send(struct channel *ch, uint64_t peer, uint8_t type, const void *payload, size_t n)
{
	send_by(way_of(ch, peer, PROMPT), type, payload, n);
}

void channel_send_bulk(
	struct channel *ch, uint64_t peer, uint8_t type, const void *payload, size_t n)
{
	send_by(way_of(ch, peer, BULK), type, payload, n);
}

bool channel_is_up(const struct channel *ch, uint64_t peer)
{
	return way_of(ch, peer, PROMPT) != NULL;
}

static size_t queued(const struct way *w)
{
	return w != NULL ? stream_queued(w->link->stream) : 0;
}

size_t channel_queued(const struct channel *ch, uint64_t peer)
{
	return queued(way_of(ch, peer, PROMPT));
}

size_t channel_bulk_queued(const struct channel *ch, uint64_t peer)
{
	return queued(way_of(ch, peer, BULK));
}

uint64_t channel_bulk_life(const struct channel *ch, uint64_t peer)
{
	const struct peer *p = peer_find(ch, peer);

	return p != NULL ? p->bulk_life : 0;
}
