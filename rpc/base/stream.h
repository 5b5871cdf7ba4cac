/* Byte streams on a loop: TCP and Unix sockets, with or without TLS; in a simulation, wires between
 * members.
 *
 * Addresses: "10.0.0.1:8300", "[::1]:443", "unix:/path", and "fd:7" for a listening socket opened
 * elsewhere; for stream_connect it is a connected socket or a terminal, which is the stream's from
 * here on, and not in simulations. All functions run on the stream's loop. No callback runs from
 * inside the call that asked for it. After `closed`, or after stream_close(), the stream is gone
 * and no callback follows.
 */
#pragma once

#include "rpc/base/loop.h"
#include "rpc/base/tls.h"

struct stream_handler {
	void (*open)(void *arg, struct stream *s); /* connected, handshake over; may be NULL */
	void (*data)(
		void *arg, struct stream *s, const uint8_t *p, size_t n); /* consume all of it */
	void (*drain)(void *arg, struct stream *s); /* everything written has left; may be NULL */
	/* The peer sends no more; true: what is written still goes out, and stream_close() ends it.
	 * NULL or false: as closed. */
	bool (*eof)(void *arg, struct stream *s);
	void (*closed)(void *arg, struct stream *s,
		const char *why); /* by the peer or an error: last call */
};

struct listener {
	struct loop *loop;
	struct tls *tls;
	void (*accept)(void *arg, struct stream *s); /* must call stream_handle() */
	void *arg;
	void *impl;
};

/* Embed or allocate the listener; fill with this call. 0, or ERR_IO with errno (EADDRINUSE, EACCES,
 * ...). */
int listener_open(struct listener *l, struct loop *loop, const char *address, struct tls *tls,
	void (*accept)(void *arg, struct stream *s), void *arg);
void listener_close(struct listener *l);

/* A TCP listening socket for "fd:N", so that it can be opened before threads exist and be shared by
 * several loops.
 * >= 0, or -1 with errno. */
int listener_socket(const char *ip, unsigned port);

/* Never NULL: a failure is told by `closed`. tls NULL: plain. */
struct stream *stream_connect(struct loop *loop, const char *address, struct tls *tls,
	const struct stream_handler *handler, void *arg);

void stream_handle(struct stream *s, const struct stream_handler *handler, void *arg);

/* Queue n bytes; they leave at the end of the turn, all writes of a turn together. The caller
 * bounds what it queues by stream_queued(). */
void stream_write(struct stream *s, const void *p, size_t n);
size_t stream_queued(const struct stream *s);
/* 0 when nothing is queued; else what the peer has not got yet, the kernel's part too. */
size_t stream_untaken(const struct stream *s);

/* Stop and start reading: back pressure. */
void stream_pause(struct stream *s, bool paused);

/* Send what is queued, then close. No callback follows. */
void stream_close(struct stream *s);

/* Close at once; what is queued is dropped. No callback follows. */
void stream_abort(struct stream *s);

/* The peer's certificate; false without TLS or certificate. */
bool stream_fingerprint(const struct stream *s, uint8_t out[TLS_FINGERPRINT_LEN]);
/* The time of the peer's certificate is over. */
bool stream_expired(const struct stream *s);

/* "10.0.0.9:51234", "" when unknown. */
const char *stream_peer(const struct stream *s);

/* Addresses of a host name, as this machine's resolver knows them, without ports. */
enum { RESOLVED_MAX = 4, RESOLVED_TEXT = 46 };
struct resolved {
	unsigned n; /* 0: why says more */
	char ip[RESOLVED_MAX][RESOLVED_TEXT];
	const char *why;
};

/* Find them; done is called once, on the loop, perhaps from inside the call. It cannot be stopped,
 * and how long it takes is for the resolver: the caller bounds how many are under way. */
void stream_resolve(struct loop *loop, const char *name,
	void (*done)(void *arg, const struct resolved *r), void *arg);
