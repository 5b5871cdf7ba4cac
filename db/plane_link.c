/* The plane between the members, on the member channel.
 *
 *   tick on the plane's loop --frames--> outbox --Raft loop--> queue of each peer --> channel
 *   channel --Raft loop: size--> inbox --plane's loop: reading--> overlay
 *
 * The Raft loop only moves bytes, over the bulk connection, and sends while little is queued there,
 * as chunks of snapshots are: frames never stand before heartbeats. Every queue is bounded; what
 * finds no room is dropped, which the receiver notices by the numbers and asks for the whole set.
 */
#include "db/db_priv.h"
#include "db/plane_priv.h"

#include <stdlib.h>
#include <string.h>

enum {
	INBOX_MAX = 256,      /* frames */
	OUTBOX_MAX = 256,     /* frames */
	PEER_QUEUE_MAX = 32,  /* frames to one peer */
	PEER_LOW = 128 << 10, /* bytes queued in the channel, below which one more goes */
	ALL_PEERS = 0,
};

/* One frame on its way; in the outbox, then shared by the queues of its peers. */
struct parcel {
	struct parcel *next;
	uint64_t peer; /* from, or to; ALL_PEERS */
	unsigned uses; /* Raft loop */
	size_t n;
	uint8_t bytes[];
};

struct parcels {
	struct parcel *first, **last;
	unsigned n;
};

struct peer_queue {
	uint64_t peer;
	struct parcel *items[PEER_QUEUE_MAX];
	unsigned head, n;
};

struct plane_link {
	struct db *db;
	struct plane *plane;
	struct loop *loop;
	struct loop_timer tick;
	pthread_mutex_t mutex;
	struct parcels in, out; /* under mutex */
	struct loop_call in_call, out_call;
	struct peer_queue queues[CHANNEL_PEERS_MAX]; /* Raft loop */
	unsigned n_queues;
};

/* Parcels. */

static bool parcels_put(struct plane_link *l, struct parcels *to, unsigned max, uint64_t peer,
	const void *p, size_t n)
{
	struct parcel *x;
	bool room;

	pthread_mutex_lock(&l->mutex);
	room = to->n < max;
	if (room) {
		x = must(malloc(sizeof *x + n));
		*x = (struct parcel){ .peer = peer, .uses = 1, .n = n };
		memcpy(x->bytes, p, n);
		*to->last = x;
		to->last = &x->next;
		to->n++;
	}
	pthread_mutex_unlock(&l->mutex);
	if (!room)
		COUNT(l->loop->env, plane_dropped);
	return room;
}

static struct parcel *parcels_take(struct plane_link *l, struct parcels *from)
{
	struct parcel *list;

	pthread_mutex_lock(&l->mutex);
	list = from->first;
	*from = (struct parcels){ .last = &from->first };
	pthread_mutex_unlock(&l->mutex);
	return list;
}

static void parcel_drop(struct parcel *x)
{
	if (--x->uses == 0)
		free(x);
}

/* Raft loop: out. */

static void queue_put(struct plane_link *l, struct peer_queue *q, struct parcel *x)
{
	if (!channel_is_up(l->db->channel, q->peer)) /* a free place is not */
		return;
	if (q->n == PEER_QUEUE_MAX) {
		COUNT(l->loop->env, plane_dropped);
		return;
	}
	x->uses++;
	q->items[(q->head + q->n++) % PEER_QUEUE_MAX] = x;
}

static void queue_clear(struct peer_queue *q)
{
	for (; q->n > 0; q->n--) {
		parcel_drop(q->items[q->head]);
		q->head = (q->head + 1) % PEER_QUEUE_MAX;
	}
}

void db__plane_turn(struct db *db)
{
	struct plane_link *l = db->plane;

	loop_assert(db->cfg.loop);
	for (unsigned i = 0; l != NULL && i < l->n_queues; i++) {
		struct peer_queue *q = &l->queues[i];

		while (q->n > 0 && channel_bulk_queued(db->channel, q->peer) < PEER_LOW) {
			struct parcel *x = q->items[q->head];

			channel_send_bulk(db->channel, q->peer, CHANNEL_PLANE, x->bytes, x->n);
			COUNT(db->cfg.loop->env, plane_sent);
			q->head = (q->head + 1) % PEER_QUEUE_MAX;
			q->n--;
			parcel_drop(x);
		}
	}
}

static void on_out(struct loop_call *call)
{
	struct plane_link *l = container_of(call, struct plane_link, out_call);
	struct parcel *list = parcels_take(l, &l->out);

	loop_assert(l->db->cfg.loop);
	while (list != NULL) {
		struct parcel *x = list;

		list = x->next;
		for (unsigned i = 0; !l->db->closing && i < l->n_queues; i++)
			if (x->peer == ALL_PEERS || x->peer == l->queues[i].peer)
				queue_put(l, &l->queues[i], x);
		parcel_drop(x);
	}
	db__plane_turn(l->db);
}

/* Raft loop: in. A frame that cannot be one is dropped; Raft's connection does not suffer for it.
 */
void db__plane_frame(struct db *db, uint64_t peer, const uint8_t *payload, size_t n)
{
	struct plane_link *l = db->plane;

	loop_assert(db->cfg.loop);
	if (l == NULL)
		return;
	if (n > PLANE_FRAME_MAX)
		COUNT(db->cfg.loop->env, plane_refused);
	else if (parcels_put(l, &l->in, INBOX_MAX, peer, payload, n))
		loop_post(l->loop, &l->in_call, l->in_call.fn);
}

void db__plane_peer(struct db *db, uint64_t peer, bool up)
{
	struct plane_link *l = db->plane;
	struct buf ask = { 0 };

	for (unsigned i = 0; l != NULL && i < l->n_queues; i++) {
		if (l->queues[i].peer != peer)
			continue;
		queue_clear(&l->queues[i]); /* of the connection before */
		if (!up)
			continue;
		plane_ask(l->plane, &ask);
		channel_send_bulk(db->channel, peer, CHANNEL_PLANE, ask.data, ask.len);
		buf_fini(&ask);
	}
}

void db__plane_peer_add(struct db *db, uint64_t peer)
{
	struct plane_link *l = db->plane;
	unsigned i = 0;

	if (l == NULL)
		return;
	while (i < l->n_queues && l->queues[i].peer != 0)
		i++;
	CHECK(i < CHANNEL_PEERS_MAX);
	l->queues[i].peer = peer;
	if (i == l->n_queues)
		l->n_queues++;
}

void db__plane_peer_remove(struct db *db, uint64_t peer)
{
	struct plane_link *l = db->plane;

	for (unsigned i = 0; l != NULL && i < l->n_queues; i++)
		if (l->queues[i].peer == peer) {
			queue_clear(&l->queues[i]);
			l->queues[i].peer = 0;
		}
}

/* The plane's loop. */

static void send_all(void *arg, const struct buf *frame)
{
	struct plane_link *l = arg;

	if (parcels_put(l, &l->out, OUTBOX_MAX, ALL_PEERS, frame->data, frame->len))
		loop_post(l->db->cfg.loop, &l->out_call, on_out);
}

struct one_peer {
	struct plane_link *link;
	uint64_t peer;
};

static void send_one(void *arg, const struct buf *frame)
{
	struct one_peer *to = arg;

	if (parcels_put(to->link, &to->link->out, OUTBOX_MAX, to->peer, frame->data, frame->len))
		loop_post(to->link->db->cfg.loop, &to->link->out_call, on_out);
}

static void follow(struct plane_link *l, uint64_t peer, enum plane_wish wish)
{
	struct one_peer to = { l, peer };
	struct buf ask = { 0 };

	switch (wish) {
	case PLANE_NOTHING: break;
	case PLANE_ASKED_FOR: plane_whole(l->plane, send_one, &to); break;
	case PLANE_ASK_PEER:
		plane_ask(l->plane, &ask);
		send_one(&to, &ask);
		break;
	case PLANE_UNREADABLE:
		COUNT(l->loop->env, plane_refused);
		log_warn(l->loop->env, "event=plane_frame_unreadable peer=%llu",
			(unsigned long long)peer);
		break;
	}
	buf_fini(&ask);
}

static void on_in(struct loop_call *call)
{
	struct plane_link *l = container_of(call, struct plane_link, in_call);
	struct parcel *list = parcels_take(l, &l->in);
	bool any = false, changed;

	loop_assert(l->loop);
	while (list != NULL) {
		struct parcel *x = list;

		list = x->next;
		follow(l, x->peer,
			plane_take(l->plane, x->peer, x->bytes, x->n, env_now_ms(l->loop->env),
				&changed));
		any |= changed;
		parcel_drop(x);
	}
	if (any && l->db->cfg.plane_changed != NULL)
		l->db->cfg.plane_changed(l->db->cfg.arg);
}

static void on_tick(struct loop_timer *t)
{
	struct plane_link *l = container_of(t, struct plane_link, tick);

	loop_assert(l->loop);
	loop_timer_start(l->loop, t, DB_PLANE_TICK_MS, on_tick);
	if (plane_tick(l->plane, env_now_ms(l->loop->env), send_all, l) &&
		l->db->cfg.plane_changed != NULL)
		l->db->cfg.plane_changed(l->db->cfg.arg);
}

void db__plane_open(struct db *db)
{
	struct plane_link *l;

	if (db->cfg.plane_loop == NULL)
		return;
	l = mem_new(sizeof *l);
	l->db = db;
	l->loop = db->cfg.plane_loop;
	l->plane = plane_new(db->cfg.raft_id, db->boot);
	l->in.last = &l->in.first;
	l->out.last = &l->out.first;
	l->in_call.fn = on_in;
	pthread_mutex_init(&l->mutex, NULL);
	db->plane = l;
	for (unsigned i = 0; i < db->n_members; i++)
		if (db->ids[i] != db->cfg.raft_id)
			db__plane_peer_add(db, db->ids[i]);
	loop_timer_start(l->loop, &l->tick, DB_PLANE_TICK_MS, on_tick);
}

struct plane *db__plane(struct db *db)
{
	return db->plane != NULL ? db->plane->plane : NULL;
}
