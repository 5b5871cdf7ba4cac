/* HTTP/1.1 client, and names: see client.h. Job and loop share `struct exchange`; the last to let
 * go frees it.
 */
#include "rpc/client.h"

#include <http_parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_MORE_MS = 1000 /* the loop's timer decides, not the job's wait */ };

struct exchange {
	struct wait wait; /* first */
	struct loop *loop;
	struct loop_call posted;
	struct loop_timer timer;
	struct stream *stream;
	struct tls *tls;
	http_parser parser;
	char address[128];
	char certificate[TLS_PRINT_TEXT]; /* "": any */
	struct buf request, answer;
	size_t answer_max;
	uint64_t timeout_ms;
	bool complete, full;
	uint8_t fingerprint[TLS_FINGERPRINT_LEN];
	int rc;
	char why[128];
};

static void exchange_fini(struct wait *wait)
{
	struct exchange *x = container_of(wait, struct exchange, wait);

	buf_fini(&x->request);
	buf_fini(&x->answer);
	tls_free(x->tls);
	free(x);
}

static void end(struct exchange *x, int rc, const char *why)
{
	loop_assert(x->loop);
	loop_timer_stop(&x->timer);
	if (x->stream != NULL)
		stream_abort(x->stream);
	x->stream = NULL;
	x->rc = rc;
	snprintf(x->why, sizeof x->why, "%s", why);
	wait_done(&x->wait);
}

/* The answer. */

static int on_headers(http_parser *p)
{
	struct exchange *x = p->data;

	x->full = p->content_length != UINT64_MAX && p->content_length > x->answer_max;
	return x->full ? -1 : 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
	struct exchange *x = p->data;

	x->full = n > x->answer_max - x->answer.len;
	if (x->full)
		return -1;
	buf_put(&x->answer, at, n);
	return 0;
}

static int on_complete(http_parser *p)
{
	((struct exchange *)p->data)->complete = true;
	http_parser_pause(p, 1);
	return 0;
}

static const http_parser_settings settings = {
	.on_headers_complete = on_headers,
	.on_body = on_body,
	.on_message_complete = on_complete,
};

/* n = 0: the server sends no more. true: it is over. */
static bool feed(struct exchange *x, const uint8_t *p, size_t n)
{
	enum http_errno e;

	http_parser_execute(&x->parser, &settings, (const char *)p, n);
	e = HTTP_PARSER_ERRNO(&x->parser);
	if (x->complete)
		end(x, 0, "");
	else if (x->full)
		end(x, ERR_FULL, "the answer is too large");
	else if (e != HPE_OK)
		end(x, ERR_CORRUPT, http_errno_description(e));
	else
		return false;
	return true;
}

/* The connection. */

static void on_open(void *arg, struct stream *s)
{
	struct exchange *x = arg;
	char print[TLS_PRINT_TEXT];

	if (!stream_fingerprint(s, x->fingerprint)) {
		end(x, ERR_CORRUPT, "the server has no certificate");
		return;
	}
	tls_fingerprint_text(x->fingerprint, print);
	if (x->certificate[0] != 0 && strcmp(x->certificate, print) != 0)
		end(x, ERR_CORRUPT, "the server has another certificate than is known of it");
	else
		stream_write(s, x->request.data, x->request.len);
}

static void on_data(void *arg, struct stream *s, const uint8_t *p, size_t n)
{
	(void)s;
	feed(arg, p, n);
}

static void on_closed(void *arg, struct stream *s, const char *why)
{
	struct exchange *x = arg;

	(void)s;
	x->stream = NULL;
	/* an answer without a length ends here */
	if (!feed(x, NULL, 0))
		end(x, ERR_CLOSED, why);
}

static void on_timer(struct loop_timer *timer)
{
	end(container_of(timer, struct exchange, timer), ERR_TIMEOUT, "no answer in time");
}

static const struct stream_handler handler = {
	.open = on_open, .data = on_data, .closed = on_closed
};

static void on_posted(struct loop_call *posted)
{
	struct exchange *x = container_of(posted, struct exchange, posted);

	loop_timer_start(x->loop, &x->timer, x->timeout_ms, on_timer);
	x->stream = stream_connect(x->loop, x->address, x->tls, &handler, x);
}

static struct exchange *exchange_new(struct job *job, struct loop *loop, const struct rpc_ask *ask)
{
	struct exchange *x = mem_new(sizeof *x);

	wait_init(&x->wait, job, exchange_fini);
	x->loop = loop;
	x->tls = tls_client_new(NULL);
	x->answer_max = ask->answer_max;
	x->timeout_ms = ask->timeout_ms;
	snprintf(x->address, sizeof x->address, "%s", ask->address);
	if (ask->certificate != NULL)
		snprintf(x->certificate, sizeof x->certificate, "%s", ask->certificate);
	http_parser_init(&x->parser, HTTP_RESPONSE);
	x->parser.data = x;
	buf_printf(&x->request,
		"POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n"
		"Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
		ask->path, ask->address, strlen(ask->body));
	buf_puts(&x->request, ask->body);
	return x;
}

int rpc_post(struct job *job, struct loop *loop, const struct rpc_ask *ask, struct arena *a,
	struct rpc_answer *out)
{
	struct exchange *x = exchange_new(job, loop, ask);
	int rc;

	*out = (struct rpc_answer){ .why = "" };
	loop_post(loop, &x->posted, on_posted);
	rc = wait_join(&x->wait, ask->timeout_ms + WAIT_MORE_MS, true);
	if (rc == 0) {
		rc = x->rc;
		out->why = arena_strdup(a, x->why);
	}
	if (rc == 0) {
		out->status = x->parser.status_code;
		out->n = x->answer.len;
		out->body = arena_strndup(a, buf_text(&x->answer), x->answer.len);
		memcpy(out->fingerprint, x->fingerprint, sizeof out->fingerprint);
	}
	wait_drop(&x->wait);
	return rc;
}

/* Names. */

struct naming {
	struct wait wait; /* first */
	struct loop *loop;
	struct loop_call posted;
	_Atomic bool *busy;
	struct resolved found;
	char name[];
};

static void naming_fini(struct wait *wait)
{
	free(container_of(wait, struct naming, wait));
}

static void on_named(void *arg, const struct resolved *found)
{
	struct naming *g = arg;

	g->found = *found;
	*g->busy = false;
	wait_done(&g->wait);
}

static void on_name(struct loop_call *posted)
{
	struct naming *g = container_of(posted, struct naming, posted);

	stream_resolve(g->loop, g->name, on_named, g);
}

int rpc_resolve(struct job *job, struct loop *loop, const char *name, _Atomic bool *busy,
	uint64_t timeout_ms, struct resolved *out)
{
	struct naming *g;
	bool free_now = false;
	int rc;

	if (!atomic_compare_exchange_strong(busy, &free_now, true))
		return ERR_FULL;
	g = mem_new(sizeof *g + strlen(name) + 1);
	wait_init(&g->wait, job, naming_fini);
	g->loop = loop;
	g->busy = busy;
	strcpy(g->name, name);
	loop_post(loop, &g->posted, on_name);
	rc = wait_join(&g->wait, timeout_ms, true);
	if (rc == 0) {
		*out = g->found;
		out->why = arena_strdup(&job->arena, g->found.why);
		rc = out->n > 0 ? 0 : ERR_CLOSED;
	}
	wait_drop(&g->wait);
	return rc;
}
