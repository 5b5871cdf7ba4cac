/* Between stream.c and its back ends (stream_uv.c, tests/sim/wire.c). */
#pragma once

#include "rpc/base/stream.h"
#include "rpc/base/tls_priv.h"

enum { STREAM_PEER_MAX = 64 };

struct stream {
	struct loop *loop;
	const struct stream_handler *handler;
	void *arg;
	struct tls_conn *tls;
	void *impl;
	struct buf out;	     /* ready for the wire, not yet given to the back end */
	size_t in_flight;    /* given to the back end */
	struct stream *next; /* streams with something to flush */
	bool dirty, connected, opened, closing, aborted, drained, read_over;
	bool has_fingerprint; /* set by a back end that knows its peer without TLS */
	uint8_t fingerprint[TLS_FINGERPRINT_LEN];
	char peer[STREAM_PEER_MAX];
};

/* Calls from the back end, on the loop. */
struct stream *stream__accepted(struct listener *l);
void stream__connected(struct stream *s);
void stream__data(struct stream *s, const uint8_t *p, size_t n);
void stream__written(struct stream *s, size_t n);
void stream__eof(struct stream *s);
void stream__broken(struct stream *s, const char *why);
/* The back end has let go of it: after close(). */
void stream__free(struct stream *s);
