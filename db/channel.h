/* The member channel: two TLS 1.3 connections per pair of members.
 *
 * The prompt one is for Raft and transactions; it says whether the peer is there. The bulk one is
 * for what is large and may be late (chunks of snapshots, volatile numbers), so that no heartbeat
 * ever stands behind it. It is a second connection of the same kind, dialled once both have said in
 * the HELLO of the prompt one that they know of it; older members do not, and while it is not there
 * bulk goes over the prompt one.
 *
 * The lower raft id dials. Both sides present the certificate pinned for their id; the first frame
 * in each direction is HELLO {protocol, pool, raft id, epoch, its id, flags}; anything else, an
 * unknown id, another pool or a wrong certificate is refused before a byte of it is believed.
 * Frames: u32 length, u8 type, 3 bytes zero, payload (docs/formats.md). Everything runs on the Raft
 * loop. A new connection of a kind from a peer replaces the old one.
 */
#pragma once

#include "rpc/base/stream.h"

enum {
	CHANNEL_PEERS_MAX = 64,
	CHANNEL_GONE_MAX = 16, /* and former members, to be told that they are */
	CHANNEL_FRAME_MAX = 16 << 20,
	CHANNEL_QUEUE_MAX =
		64 << 20,	    /* bytes to one peer; beyond that the connection is given up */
	CHANNEL_BULK_MAX = 1 << 20, /* the same for its bulk; users keep far below */
	CHANNEL_REDIAL_MS = 100,
	CHANNEL_REFUSED_MS = 5000, /* and after a refusal */
	CHANNEL_HELLO_MS = 5000,
	CHANNEL_HELLO_MAX = 256,     /* bytes of a frame before the peer is known */
	CHANNEL_STRANGERS_MAX = 128, /* connections that have not said hello yet */
	CHANNEL_PROTOCOL = 3,
};

/* Types of frames: who reads them. */
enum {
	CHANNEL_HELLO = 1,
	CHANNEL_RAFT_FIRST = 2, /* the network half of Raft */
	CHANNEL_PROPOSAL_FIRST = 32,
	CHANNEL_READ_FIRST = 40,  /* read indexes */
	CHANNEL_FLOOR_FIRST = 48, /* floors of sessions */
	CHANNEL_AGREE_FIRST = 56, /* hashes of states */
	CHANNEL_PLANE = 64,	  /* volatile numbers */
	CHANNEL_LEAD = 65,	  /* hand me the lead: lead.c */
	CHANNEL_ROSTER = 66,	  /* who is a member: members.c */
	CHANNEL_POOL_FIRST = 72,  /* the pool's own, see db_broadcast */
};

struct channel;

struct channel_peer {
	uint64_t raft_id;
	const char *address; /* of its channel, stream.h */
	uint8_t certificate[TLS_FINGERPRINT_LEN];
	bool gone; /* a former member: dialled rarely */
};

struct channel_config {
	struct loop *loop;
	struct tls *tls; /* NULL in simulations: the wire says who the peer is */
	const char *listen;
	const char *pool_uuid;
	uint64_t raft_id, epoch;
	const char *epoch_id;		  /* kept by the caller */
	const struct channel_peer *peers; /* all members but this one; copied */
	unsigned n_peers;
	bool bulk_off; /* tests: as a member of before */
	/* Called on the loop. payload is borrowed for the call. A frame that does not parse: return
	 * ERR_CORRUPT, the connection is closed. */
	int (*frame)(void *arg, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n);
	void (*up)(void *arg, uint64_t peer, bool up);
	void *arg;
};

/* 0, or ERR_IO with errno: the address cannot be had. */
int channel_open(struct channel **out, const struct channel_config *config);
void channel_close(struct channel *ch);

/* A peer that comes, or whose address, certificate or state has changed; a connection that stands
 * is kept, unless the certificate is another. false: too many, or an address that is too long. */
bool channel_add(struct channel *ch, const struct channel_peer *peer);
/* Its connection is given up, which is told by up(). */
void channel_remove(struct channel *ch, uint64_t raft_id);

/* Queue a frame; dropped when the peer is away. */
void channel_send(struct channel *ch, uint64_t peer, uint8_t type, const void *payload, size_t n);
bool channel_is_up(const struct channel *ch, uint64_t peer);
/* Bytes queued to the peer. */
size_t channel_queued(const struct channel *ch, uint64_t peer);

/* The same for bulk. Its frames keep their order among themselves, not with the others. */
void channel_send_bulk(
	struct channel *ch, uint64_t peer, uint8_t type, const void *payload, size_t n);
size_t channel_bulk_queued(const struct channel *ch, uint64_t peer);
/* Another number than before: what was sent as bulk under the old one may be lost. */
uint64_t channel_bulk_life(const struct channel *ch, uint64_t peer);
