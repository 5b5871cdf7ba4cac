/* HTTP/1.0 and 1.1 server: see server.h. http_parser.h is known here and in client.c
 * (docs/dependencies.md). */
#include "rpc/server.h"
#include "rpc/wire/codec.h"

#include <http_parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_BODY = 15 << 10 };

/* Headers that somebody looks at. */
enum {
	H_CORS,
	H_COOKIE,
	H_AUTHORIZATION,
	H_HOST,
	H_ORIGIN,
	H_POOL_INDEX,
	H_POOL_READ,
	H_WS_KEY,
	H_WS_PROTOCOL,
	H_WS_VERSION,
	H_TASK,
	HEADERS
};
static const char *const header_names[HEADERS] = { "Access-Control-Request-Headers", "Cookie",
	"Authorization", "Host", "Origin", "X-Pool-Index", "X-Pool-Read", "Sec-WebSocket-Key",
	"Sec-WebSocket-Protocol", "Sec-WebSocket-Version", "X-Http-Other-Config-" };

struct rpc_server {
	struct loop *loop;
	struct listener listener;
	struct rpc_handler handler;
	struct rpc_conn *conns;
	unsigned n_conns, connections_max;
	size_t bodies; /* bytes of all bodies not yet answered */
	size_t made;   /* bytes of answers made in this turn */
	struct loop_hook hook;
	bool closing;
};

struct rpc_conn {
	struct rpc_server *server;
	struct rpc_conn *next, **at;
	struct stream *stream;
	struct loop_timer timer;
	struct loop_call resume;
	http_parser parser;
	struct rpc_request request;
	struct buf url, field, body, ahead;
	struct buf headers[HEADERS]; /* those we want */
	int want;		     /* the one whose value is read, -1: none of them */
	uint64_t since_ms;	     /* of its beginning, then of its last answer */
	uint64_t moved_ms;	     /* when it last took a part of its answer */
	size_t unread;		     /* and what was left then */
	bool served;		     /* one request at least */
	bool busy;		     /* the handler has the request */
	bool in_request;	     /* its first byte has come */
	bool complete, keep_alive, failed;
	bool fresh;	 /* the answer is of this turn: nothing of it can have left */
	bool raw;	 /* another protocol is spoken */
	bool chunked;	 /* an answer in chunks has begun */
	bool ending;	 /* closed when the answer has left: until then it counts */
	unsigned refuse; /* status of the HTTP layer's own, set while parsing */
};

static void headers_clear(struct rpc_conn *c)
{
	for (int i = 0; i < HEADERS; i++)
		buf_fini(&c->headers[i]);
	c->want = -1;
}

static void conn_free(struct rpc_conn *c)
{
	*c->at = c->next;
	if (c->next != NULL)
		c->next->at = c->at;
	c->server->n_conns--;
	c->server->bodies -= c->body.len;
	counter_add(&c->server->loop->env->counters, COUNTER_connections_now, -1);
	loop_timer_stop(&c->timer);
	buf_fini(&c->url);
	buf_fini(&c->field);
	buf_fini(&c->body);
	buf_fini(&c->ahead);
	headers_clear(c);
	free(c);
}

static void conn_resume(struct loop_call *call);

/* The connection ends here; whoever has its request is told. Freed on a later turn, so that callers
 * up the stack may still look at it. */
static void conn_end(struct rpc_conn *c)
{
	c->stream = NULL;
	if (c->busy && c->request.gone != NULL) {
		c->busy = false;
		c->request.gone(&c->request, c->request.gone_arg);
	}
	c->failed = true;
	loop_timer_stop(&c->timer);
	if (!c->busy)
		loop_post(c->server->loop, &c->resume, conn_resume);
}

static void conn_close(struct rpc_conn *c)
{
	stream_close(c->stream);
	conn_end(c);
}

/* Without a word: what it was sent and has not read goes too. */
static void conn_drop(struct rpc_conn *c)
{
	COUNT(c->server->loop->env, connections_dropped);
	stream_abort(c->stream);
	conn_end(c);
}

static bool is_idle(const struct rpc_conn *c)
{
	return c->stream != NULL && !c->busy && !c->in_request && !c->failed;
}

/* Who gives way to a new connection: one that has never asked anything, else the one idle longest.
 */
static struct rpc_conn *idle_longest(struct rpc_server *server)
{
	struct rpc_conn *found = NULL;

	for (struct rpc_conn *c = server->conns; c != NULL; c = c->next)
		if (is_idle(c) &&
			(found == NULL || c->served < found->served ||
				(c->served == found->served && c->since_ms <= found->since_ms)))
			found = c;
	return found;
}

/* What the client has still to take, and a note when it has taken some of it. */
static size_t unread(struct rpc_conn *c, uint64_t now)
{
	size_t left = c->stream != NULL ? stream_untaken(c->stream) : 0;

	if (left + RPC_TAKEN_MIN <= c->unread) {
		c->unread = left;
		c->moved_ms = now;
	}
	return left;
}

/* Before n more bytes are queued: clients that do not read must not fill the memory. Those that do
 * read stay, however many, and however long it takes on a slow link or a busy machine. */
static void make_room(struct rpc_conn *me, size_t n)
{
	uint64_t now = env_now_ms(me->server->loop->env);
	struct rpc_conn *most;

	do {
		size_t sum = n, left;

		most = NULL;
		for (struct rpc_conn *c = me->server->conns; c != NULL; c = c->next) {
			left = unread(c, now);
			sum += left;
			if (c != me && left > 0 && !c->fresh &&
				now - c->moved_ms >= RPC_STALLED_MS &&
				(most == NULL || left > stream_untaken(most->stream)))
				most = c;
		}
		if (sum <= RPC_UNREAD_MAX)
			return;
		if (most != NULL)
			conn_drop(most);
	} while (most != NULL);
}

static const char *status_text(unsigned status)
{
	switch (status) {
	case 200: return "OK";
	case 401: return "Unauthorized";
	case 403: return "Forbidden";
	case 404: return "Not Found";
	case 408: return "Request Timeout";
	case 411: return "Length Required";
	case 413: return "Payload Too Large";
	case 426: return "Upgrade Required";
	case 431: return "Request Header Fields Too Large";
	case 501: return "Not Implemented";
	case 503: return "Service Unavailable";
	default: return status < 500 ? "Bad Request" : "Internal Server Error";
	}
}

static bool is_old(const struct rpc_conn *c)
{
	return c->parser.http_major == 1 && c->parser.http_minor == 0;
}

/* length: the header that tells the length; "" when the end of the connection is the end of the
 * body. */
static void put_head(struct rpc_conn *c, struct buf *out, unsigned status, const char *content_type,
	const char *headers, const char *length)
{
	loop_assert(c->server->loop);
	buf_printf(out,
		"HTTP/1.%d %u %s\r\nConnection: %s\r\nCache-Control: no-cache, "
		"no-store\r\nContent-Type: %s\r\n"
		"Access-Control-Allow-Origin: *\r\n%s%s%s\r\n",
		is_old(c) ? 0 : 1, status, status_text(status),
		c->keep_alive ? "keep-alive" : "close", content_type,
		headers != NULL && strstr(headers, "Access-Control-Allow-Headers") != NULL
			? ""
			: "Access-Control-Allow-Headers: X-Requested-With\r\n",
		headers != NULL ? headers : "", length);
}

static void send_reply(struct rpc_conn *c, unsigned status, const char *content_type,
	const char *headers, const void *body, size_t n)
{
	struct buf out = { 0 };
	char length[48];

	if (n > RPC_KEEP_MAX)
		make_room(c, n);
	c->server->made += n;
	snprintf(length, sizeof length, "Content-Length: %zu\r\n", n);
	put_head(c, &out, status, content_type, headers, length);
	if (n <= SMALL_BODY) { /* with its head in one TLS record */
		buf_put(&out, body, n);
		n = 0;
	}
	stream_write(c->stream, out.data, out.len);
	if (n > 0)
		stream_write(c->stream, body, n);
	buf_fini(&out);
}

/* An answer of the HTTP layer itself; the connection is closed behind it. */
static void send_error(struct rpc_conn *c, unsigned status, const char *text)
{
	char body[256];
	int n = snprintf(body, sizeof body, "<html><body><h1>%u %s</h1><p>%s</p></body></html>\n",
		status, status_text(status), text);

	c->keep_alive = false;
	send_reply(c, status, "text/html", NULL, body, (size_t)n);
	conn_close(c);
}

static int on_url(http_parser *p, const char *at, size_t n)
{
	struct rpc_conn *c = p->data;

	buf_put(&c->url, at, n);
	return 0;
}

static int on_field(http_parser *p, const char *at, size_t n)
{
	struct rpc_conn *c = p->data;

	if (c->want >= 0 || c->field.len > 64) {
		c->want = -1;
		c->field.len = 0;
	}
	buf_put(&c->field, at, n);
	return 0;
}

/* Of those that begin like H_TASK there may be several: each a line KEY:VALUE. */
static bool begin_task_header(struct rpc_conn *c)
{
	const char *name = buf_text(&c->field);
	size_t prefix = strlen(header_names[H_TASK]);
	struct buf *out = &c->headers[H_TASK];

	if (strncasecmp(name, header_names[H_TASK], prefix) != 0 || name[prefix] == 0)
		return false;
	if (out->len > 0)
		buf_puts(out, "\n");
	for (const char *key = name + prefix; *key != 0; key++)
		buf_printf(out, "%c", *key >= 'A' && *key <= 'Z' ? *key + 32 : *key);
	buf_puts(out, ":");
	return true;
}

static int on_value(http_parser *p, const char *at, size_t n)
{
	struct rpc_conn *c = p->data;

	for (int i = 0; i < H_TASK && c->want < 0; i++)
		if (strcasecmp(buf_text(&c->field), header_names[i]) == 0)
			c->want = i;
	if (c->want < 0 && begin_task_header(c))
		c->want = H_TASK;
	if (c->want >= 0)
		buf_put(&c->headers[c->want], at, n);
	else
		c->field.len = 0;
	return 0;
}

static void conn_timeout(struct loop_timer *t);

static int on_headers(http_parser *p)
{
	struct rpc_conn *c = p->data;

	loop_timer_start(c->server->loop, &c->timer, RPC_BODY_TIMEOUT_MS, conn_timeout);
	if (p->flags & F_CHUNKED)
		c->refuse = 500;
	else if (p->content_length != UINT64_MAX && p->content_length > RPC_BODY_MAX)
		c->refuse = 413;
	return c->refuse != 0 ? -1 : 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
	struct rpc_conn *c = p->data;

	if (c->body.len + n > RPC_BODY_MAX)
		c->refuse = 413;
	else if (c->server->bodies + n > RPC_BODIES_MAX)
		c->refuse = 503;
	if (c->refuse != 0)
		return -1;
	c->server->bodies += n;
	buf_put(&c->body, at, n);
	return 0;
}

static int on_complete(http_parser *p)
{
	struct rpc_conn *c = p->data;

	c->complete = true;
	c->keep_alive = http_should_keep_alive(p) && !c->server->closing;
	http_parser_pause(p, 1);
	return 0;
}

static const http_parser_settings settings = {
	.on_url = on_url,
	.on_header_field = on_field,
	.on_header_value = on_value,
	.on_headers_complete = on_headers,
	.on_body = on_body,
	.on_message_complete = on_complete,
};

static void request_reset(struct rpc_conn *c)
{
	c->server->bodies -= c->body.len;
	c->url.len = c->field.len = c->body.len = 0;
	if (c->body.cap > RPC_KEEP_MAX)
		buf_fini(&c->body);
	headers_clear(c);
	c->complete = c->in_request = false;
	c->request = (struct rpc_request){ 0 };
}

static const char *header(struct rpc_conn *c, int which)
{
	return c->headers[which].len > 0 ? buf_text(&c->headers[which]) : "";
}

static void answer_options(struct rpc_conn *c)
{
	const char *asked = header(c, H_CORS);
	struct buf headers = { 0 };

	buf_printf(&headers,
		"Access-Control-Allow-Headers: "
		"%s%sX-Requested-With\r\nAccess-Control-Allow-Methods: PUT\r\n",
		asked, *asked ? ", " : "");
	c->busy = true;
	rpc_reply(&c->request, 200, "text/html", buf_text(&headers), "", 0);
	buf_fini(&headers);
}

/* CONNECT asks for a path as well: consoles. */
static bool is_get(const struct rpc_conn *c)
{
	return c->parser.method == HTTP_GET || c->parser.method == HTTP_CONNECT;
}

/* Every POST that no other service owns is taken as XML-RPC (wire.md 1.2). */
static void request_serve(struct rpc_conn *c)
{
	static const char nothing[] = "There is nothing at this address. The API answers POST.";
	const struct rpc_handler *handler = &c->server->handler;
	const char *path = buf_text(&c->url);
	char *query = strchr((char *)c->url.data, '?');

	if (query != NULL)
		*query++ = 0;
	loop_timer_stop(&c->timer);
	c->request =
		(struct rpc_request){ .method = http_method_str((enum http_method)c->parser.method),
			.path = path,
			.query = query != NULL ? query : "",
			.cookie = header(c, H_COOKIE),
			.authorization = header(c, H_AUTHORIZATION),
			.host = header(c, H_HOST),
			.origin = header(c, H_ORIGIN),
			.pool_index = header(c, H_POOL_INDEX),
			.pool_read = header(c, H_POOL_READ),
			.websocket_key = header(c, H_WS_KEY),
			.websocket_protocol = header(c, H_WS_PROTOCOL),
			.websocket_version = header(c, H_WS_VERSION),
			.task_config = header(c, H_TASK),
			.body = buf_text(&c->body),
			.body_len = c->body.len,
			.peer = stream_peer(c->stream),
			.loop = c->server->loop,
			.conn = c };
	if (c->parser.method == HTTP_OPTIONS) {
		answer_options(c);
	} else if (is_get(c) && handler->get != NULL) {
		c->busy = true;
		if (!handler->get(handler->arg, &c->request)) {
			c->busy = false;
			send_error(c, c->parser.method == HTTP_CONNECT ? 501 : 404, nothing);
		}
	} else if (is_get(c) || c->parser.method == HTTP_HEAD) {
		send_error(c, 404, nothing);
	} else if (c->parser.method != HTTP_POST) {
		send_error(c, 501, "The API answers POST.");
	} else if (!(c->parser.flags & F_CONTENTLENGTH)) {
		send_error(c, 500, "A request needs Content-Length.");
	} else {
		c->busy = true;
		handler->request(handler->arg, &c->request);
	}
}

/* Feed the parser; false when the connection has ended. */
static bool conn_feed(struct rpc_conn *c, const uint8_t *p, size_t n, size_t *used_out)
{
	size_t used = http_parser_execute(&c->parser, &settings, (const char *)p, n);
	enum http_errno e = HTTP_PARSER_ERRNO(&c->parser);

	*used_out = used;
	if (e == HPE_PAUSED && c->complete)
		return true;
	if (e == HPE_HEADER_OVERFLOW)
		send_error(c, 431, "The headers are too large.");
	else if (c->refuse != 0)
		send_error(c, c->refuse,
			c->refuse == 500   ? "A request needs Content-Length."
			: c->refuse == 413 ? "The request is too large."
					   : "Too many large requests at a time.");
	else if (e != HPE_OK)
		send_error(c, 400, http_errno_description(e));
	else
		return true;
	return false;
}

/* One request at a time, none while the client does not read its answers. */
static bool may_serve(const struct rpc_conn *c)
{
	return !c->busy && !c->resume.queued && !c->failed &&
	       stream_queued(c->stream) <= RPC_REPLIES_MAX;
}

static void conn_advance(struct rpc_conn *c)
{
	size_t used;

	loop_assert(c->server->loop);
	if (c->server->made > RPC_TURN_MAX && c->ahead.len > 0 && c->stream != NULL) {
		loop_timer_stop(&c->timer); /* it is we who are late */
		loop_post(c->server->loop, &c->resume, conn_resume);
		return;
	}
	while (c->ahead.len > 0 && may_serve(c)) {
		if (!c->in_request) {
			c->in_request = true;
			loop_timer_start(
				c->server->loop, &c->timer, RPC_HEADERS_TIMEOUT_MS, conn_timeout);
		}
		if (!conn_feed(c, c->ahead.data, c->ahead.len, &used))
			return;
		buf_consume(&c->ahead, used);
		if (c->complete) {
			http_parser_pause(&c->parser, 0);
			request_serve(c);
		}
	}
	if (c->stream != NULL)
		stream_pause(c->stream, c->ahead.len > RPC_AHEAD_MAX);
}

static void conn_data(void *arg, struct stream *s, const uint8_t *p, size_t n)
{
	struct rpc_conn *c = arg;

	(void)s;
	buf_put(&c->ahead, p, n);
	if (c->raw && c->busy && c->request.received != NULL)
		c->request.received(&c->request, c->request.gone_arg);
	conn_advance(c);
}

static void conn_drain(void *arg, struct stream *s)
{
	struct rpc_conn *c = arg;

	(void)s;
	if (c->ending)
		conn_close(c);
	else if (c->busy && c->request.drained != NULL)
		c->request.drained(&c->request, c->request.gone_arg);
	else
		conn_advance(c);
}

/* A client that sends no more still gets its answer to the end, unless it only waits for news. */
static bool conn_eof(void *arg, struct stream *s)
{
	struct rpc_conn *c = arg;

	(void)s;
	c->keep_alive = false;
	if (!c->busy && !c->failed && stream_queued(c->stream) > 0)
		c->failed = c->ending = true;
	return c->ending || (c->busy && !c->request.waits);
}

static void conn_closed(void *arg, struct stream *s, const char *why)
{
	struct rpc_conn *c = arg;

	(void)s;
	(void)why;
	conn_end(c);
}

static void conn_timeout(struct loop_timer *t)
{
	struct rpc_conn *c = container_of(t, struct rpc_conn, timer);

	if (c->in_request)
		send_error(c, 408, "The request did not arrive in time.");
	else
		conn_close(c);
}

static const struct stream_handler conn_handler = {
	.data = conn_data,
	.drain = conn_drain,
	.eof = conn_eof,
	.closed = conn_closed,
};

static void conn_refused_data(void *arg, struct stream *s, const uint8_t *p, size_t n)
{
	(void)arg, (void)s, (void)p, (void)n;
}

static void conn_refused_closed(void *arg, struct stream *s, const char *why)
{
	(void)arg, (void)s, (void)why;
}

static const struct stream_handler refused_handler = { .data = conn_refused_data,
	.closed = conn_refused_closed };

static void on_accept(void *arg, struct stream *s)
{
	struct rpc_server *server = arg;
	struct rpc_conn *c;

	bool full = server->n_conns >= server->connections_max;

	if (full && !server->closing && (c = idle_longest(server)) != NULL) {
		conn_drop(c); /* its memory goes on the next turn */
	} else if (full || server->closing) {
		COUNT(server->loop->env, connections_refused);
		stream_handle(s, &refused_handler, NULL);
		stream_close(s);
		return;
	}
	c = mem_new(sizeof *c);
	c->server = server;
	c->stream = s;
	c->since_ms = c->moved_ms =
		env_now_ms(server->loop->env); /* who has just come has not stalled */
	c->next = server->conns;
	c->at = &server->conns;
	if (c->next != NULL)
		c->next->at = &c->next;
	server->conns = c;
	server->n_conns++;
	COUNT(server->loop->env, connections_now);
	http_parser_init(&c->parser, HTTP_REQUEST);
	c->parser.data = c;
	c->want = -1;
	stream_handle(s, &conn_handler, c);
	loop_timer_start(server->loop, &c->timer, RPC_FIRST_TIMEOUT_MS, conn_timeout);
}

static void on_turn(struct loop_hook *hook)
{
	container_of(hook, struct rpc_server, hook)->made = 0;
}

int rpc_server_open(struct rpc_server **out, struct loop *loop, const char *address,
	struct tls *tls, const struct rpc_handler *handler, unsigned connections_max)
{
	struct rpc_server *server = mem_new(sizeof *server);
	int rc;

	server->loop = loop;
	server->handler = *handler;
	server->connections_max =
		connections_max < RPC_CONNECTIONS_MAX ? connections_max : RPC_CONNECTIONS_MAX;
	http_parser_set_max_header_size(RPC_HEADERS_MAX);
	rc = listener_open(&server->listener, loop, address, tls, on_accept, server);
	if (rc != 0) {
		free(server);
		return rc;
	}
	loop_hook_add(loop, &server->hook, on_turn);
	*out = server;
	return 0;
}

void rpc_server_close(struct rpc_server *server)
{
	struct rpc_conn *next;

	server->closing = true;
	listener_close(&server->listener);
	for (struct rpc_conn *c = server->conns; c != NULL; c = next) {
		next = c->next;
		c->keep_alive = false;
		if (!c->busy && c->stream != NULL)
			conn_close(c);
	}
}

/* On a turn of its own: a reply given from inside the handler must not recurse into the next
 * request. */
static void conn_resume(struct loop_call *call)
{
	struct rpc_conn *c = container_of(call, struct rpc_conn, resume);

	if (c->stream != NULL) {
		if (c->fresh) {
			c->fresh = false;
			c->unread = stream_untaken(c->stream);
			c->moved_ms = env_now_ms(c->server->loop->env);
		}
		conn_advance(c);
	} else if (!c->busy)
		conn_free(c);
}

/* All of an answer has been queued. */
static void reply_over(struct rpc_conn *c)
{
	c->since_ms = env_now_ms(c->server->loop->env);
	if (!c->keep_alive) {
		c->failed = c->ending = true;
		loop_timer_stop(&c->timer);
	} else {
		request_reset(c);
		c->served = true;
		loop_timer_start(c->server->loop, &c->timer, RPC_IDLE_TIMEOUT_MS, conn_timeout);
	}
}

void rpc_reply(struct rpc_request *request, unsigned status, const char *content_type,
	const char *headers, const void *body, size_t n)
{
	struct rpc_conn *c = request->conn;

	loop_assert(c->server->loop);
	CHECK(c->busy);
	c->busy = false;
	if (c->stream != NULL) {
		if (status == 500)
			c->keep_alive = false;
		c->fresh = true;
		send_reply(c, status, content_type, headers, body, n);
		reply_over(c);
	} /* else the client went and nobody wanted to know */
	loop_post(c->server->loop, &c->resume, conn_resume);
}

void rpc_reply_begin(
	struct rpc_request *request, unsigned status, const char *content_type, const char *headers)
{
	struct rpc_conn *c = request->conn;
	struct buf out = { 0 };

	CHECK(c->busy && c->stream != NULL);
	c->keep_alive = false;
	put_head(c, &out, status, content_type, headers, "");
	stream_write(c->stream, out.data, out.len);
	buf_fini(&out);
}

void rpc_reply_chunked(
	struct rpc_request *request, unsigned status, const char *content_type, const char *headers)
{
	struct rpc_conn *c = request->conn;
	struct buf out = { 0 };

	if (is_old(c)) {
		rpc_reply_begin(request, status, content_type, headers);
		return;
	}
	CHECK(c->busy && c->stream != NULL);
	c->chunked = true;
	put_head(c, &out, status, content_type, headers, "Transfer-Encoding: chunked\r\n");
	stream_write(c->stream, out.data, out.len);
	buf_fini(&out);
}

/* A client that has taken all before it is no slow one; else it has not taken this either. */
void rpc_reply_put(struct rpc_request *request, const void *p, size_t n)
{
	struct rpc_conn *c = request->conn;
	uint64_t now = env_now_ms(c->server->loop->env);
	bool all_taken = stream_queued(c->stream) == 0;
	char size[24];

	CHECK(c->busy && c->stream != NULL && (c->chunked || !c->keep_alive));
	if (n == 0)
		return; /* as a chunk it would be the end */
	if (all_taken)
		c->moved_ms = now;
	else
		unread(c, now);
	if (n > RPC_KEEP_MAX)
		make_room(c, n);
	c->server->made += n;
	if (c->chunked)
		stream_write(c->stream, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", n));
	stream_write(c->stream, p, n);
	if (c->chunked)
		stream_write(c->stream, "\r\n", 2);
	c->unread = all_taken ? stream_untaken(c->stream) : c->unread + n;
}

void rpc_reply_end(struct rpc_request *request)
{
	struct rpc_conn *c = request->conn;

	CHECK(c->busy && c->stream != NULL && (c->chunked || !c->keep_alive));
	c->busy = false;
	if (c->chunked) {
		c->chunked = false;
		stream_write(c->stream, "0\r\n\r\n", 5);
		reply_over(c);
		loop_post(c->server->loop, &c->resume, conn_resume);
		return;
	}
	c->failed = c->ending = true;
	if (stream_queued(c->stream) == 0) /* nothing is left that could drain */
		conn_close(c);
}

void rpc_raw_begin(struct rpc_request *request)
{
	struct rpc_conn *c = request->conn;

	CHECK(c->busy && c->stream != NULL && !c->raw);
	c->keep_alive = false;
	c->raw = true;
}

size_t rpc_raw_read(struct rpc_request *request, void *out, size_t max)
{
	struct rpc_conn *c = request->conn;
	size_t n = c->ahead.len < max ? c->ahead.len : max;

	CHECK(c->busy && c->raw);
	if (n == 0)
		return 0;
	memcpy(out, c->ahead.data, n);
	buf_consume(&c->ahead, n);
	if (c->stream != NULL)
		stream_pause(c->stream, c->ahead.len > RPC_AHEAD_MAX);
	return n;
}
