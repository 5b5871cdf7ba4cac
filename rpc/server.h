/* The API's HTTP server on one I/O loop: connections, requests, time-outs, limits. It knows paths
 * and bodies, not methods: the handler above does (struct rpc_handler).
 *
 * Requests on one connection are served strictly one after the other; what a client sends ahead
 * waits. Whatever clients do, memory and descriptors stay within the limits below (docs/limits.md).
 */
#pragma once

#include "rpc/base/stream.h"

enum {
	RPC_CONNECTIONS_MAX = 800, /* of one loop; beyond, the one that is idle longest gives way */
	RPC_HEADERS_MAX = 16 << 10,	/* bytes */
	RPC_HEADERS_TIMEOUT_MS = 10000, /* from the first byte of a request to the end of headers */
	RPC_BODY_TIMEOUT_MS = 60000,	/* from there to the last byte */
	RPC_FIRST_TIMEOUT_MS =
		10000, /* from the connection to the first byte, handshake included */
	RPC_IDLE_TIMEOUT_MS = 43200 * 1000,
	RPC_AHEAD_MAX = 64 << 10,  /* bytes a client may send ahead */
	RPC_REPLIES_MAX = 1 << 20, /* bytes of answers not read; no request is served beyond */
	RPC_UNREAD_MAX = 64 << 20, /* bytes of answers not read, of all clients of one loop; beyond,
				      those go that have not taken RPC_TAKEN_MIN of theirs for
				      RPC_STALLED_MS */
	RPC_STALLED_MS = 5000,
	RPC_TURN_MAX = 1 << 20, /* bytes of answers made in a turn; then they leave first */
	RPC_TAKEN_MIN = 256 << 10,
	RPC_BODIES_MAX = 64 << 20, /* bytes of bodies received, of all clients of one loop */
	RPC_KEEP_MAX = 64 << 10,   /* bytes of buffer an idle connection keeps */
};

struct rpc_conn;

struct rpc_request {
	const char *method;		    /* HTTP's: "POST" */
	const char *path;		    /* without the query */
	const char *query;		    /* behind the question mark, as it came; "" */
	const char *cookie, *authorization; /* headers; "" */
	const char *host, *origin;	    /* the same */
	const char *body;		    /* NUL-terminated */
	size_t body_len;
	const char *pool_index, *pool_read; /* X-Pool-Index and X-Pool-Read; "" when absent */
	/* Sec-WebSocket-Key, -Protocol and -Version; "" */
	const char *websocket_key, *websocket_protocol, *websocket_version;
	const char *task_config; /* X-Http-Other-Config-KEY: lines KEY:VALUE, keys in lower case */
	const char *peer;
	struct loop *loop;
	void (*gone)(struct rpc_request *request,
		void *arg); /* set by the handler: the client has gone, no reply is
			       possible; not called after rpc_reply */
	void *gone_arg;
	/* set by the handler: what rpc_reply_put was given has left; called with gone_arg */
	void (*drained)(struct rpc_request *request, void *arg);
	/* set by the handler of a raw connection: there is something for rpc_raw_read; with
	 * gone_arg */
	void (*received)(struct rpc_request *request, void *arg);
	bool waits; /* set by the handler: the call only waits for news, so a client that sends no
		       more has gone */
	struct rpc_conn *conn; /* private */
};

struct rpc_handler {
	/* A POST to an RPC path. Answer with rpc_reply, now or later, on the same loop, exactly
	 * once, unless gone was called. The request is borrowed until then. */
	void (*request)(void *arg, struct rpc_request *request);
	/* A GET or CONNECT: the same, or false when nothing is at this path. */
	bool (*get)(void *arg, struct rpc_request *request);
	void *arg;
};

struct rpc_server;

/* Listen on the loop. address: stream.h. connections_max: what the process has descriptors for, at
 * most RPC_CONNECTIONS_MAX. 0, or ERR_IO with errno. */
int rpc_server_open(struct rpc_server **out, struct loop *loop, const char *address,
	struct tls *tls, const struct rpc_handler *handler, unsigned connections_max);

/* No new connections; idle ones are closed; busy ones close after their reply. */
void rpc_server_close(struct rpc_server *server);

/* status 200, 500, ...; content_type for instance "text/xml"; headers: further ones, each with CR
 * LF, or NULL. */
void rpc_reply(struct rpc_request *request, unsigned status, const char *content_type,
	const char *headers, const void *body, size_t n);

/* A long answer in pieces instead: begin, any number of pieces, end. The connection closes behind
 * it, which is how a client knows its end. Put no more than a piece at a time: wait for drained. */
void rpc_reply_begin(struct rpc_request *request, unsigned status, const char *content_type,
	const char *headers);
/* The same, but the connection goes on behind it: the pieces are chunks. A client of HTTP/1.0 does
 * not know these and gets it as above. */
void rpc_reply_chunked(struct rpc_request *request, unsigned status, const char *content_type,
	const char *headers);
void rpc_reply_put(struct rpc_request *request, const void *p, size_t n);
void rpc_reply_end(struct rpc_request *request);

/* Another protocol instead: from here on the connection is bytes in both directions until
 * rpc_reply_end. rpc_reply_put sends, received and rpc_raw_read (bytes it gave; 0: none are there)
 * take. What is not taken stays with the client, beyond RPC_AHEAD_MAX. */
void rpc_raw_begin(struct rpc_request *request);
size_t rpc_raw_read(struct rpc_request *request, void *out, size_t max);
