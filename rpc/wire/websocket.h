/* WebSocket (RFC 6455), the server's side: the handshake's answer, frames in and out. Messages are
 * not put together: what a client sends is a stream of bytes. Pure; memory is the caller's.
 */
#pragma once

#include "rpc/base/buf.h"

enum {
	WS_FRAME_MAX = 1 << 20, /* bytes of a frame of a client */
	WS_CONTROL_MAX = 125,	/* of a control frame: RFC 6455 5.5 */
	WS_HEAD_MAX = 14,
	WS_ACCEPT_LEN = 28, /* of Sec-WebSocket-Accept */
};

enum ws_opcode {
	WS_CONTINUATION = 0,
	WS_TEXT = 1,
	WS_BINARY = 2,
	WS_CLOSE = 8,
	WS_PING = 9,
	WS_PONG = 10,
};

/* Why a connection is closed: RFC 6455 7.4.1. */
enum ws_status {
	WS_OPEN = 0,
	WS_NORMAL = 1000,
	WS_GOING_AWAY = 1001,
	WS_PROTOCOL_ERROR = 1002,
	WS_UNSUPPORTED = 1003, /* text: we speak binary */
	WS_TOO_BIG = 1009,
};

/* Zero at first. */
struct ws_reader {
	uint8_t head[WS_HEAD_MAX];
	unsigned n_head;
	bool in_payload, in_message;
	uint64_t left, at; /* of the payload */
	uint8_t control[WS_CONTROL_MAX];
};

/* Take n bytes of the client, all of them unless it is over. What its data frames carry goes to
 * data, what it has to be sent for a control frame or a fault to answer: never more than n + 8
 * bytes of either. WS_OPEN; else it is over and the answer says so: nothing more may be fed. */
enum ws_status ws_feed(
	struct ws_reader *r, const uint8_t *p, size_t n, struct buf *data, struct buf *answer);

/* A whole frame. */
void ws_put(struct buf *out, enum ws_opcode opcode, const void *p, size_t n);
void ws_put_close(struct buf *out, enum ws_status status);

/* What proves that we have understood a Sec-WebSocket-Key. */
void ws_accept(const char *key, char out[WS_ACCEPT_LEN + 1]);
