/* The agent's Unix socket: JSON-RPC 2.0, one object per line, many requests under way, answered in
 * any order. STREAM.open makes bytes of a connection (console.c). */
#include "member/agent_priv.h"
#include "rpc/base/stream.h"
#include "rpc/wire/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REQUESTS_MAX = 256 /* under way per client; beyond it the client is not read */ };

struct agent_server {
	struct agent *agent;
	struct listener listener;
	unsigned n_clients;
	unsigned n_consoles;
};

struct client {
	struct agent_server *server;
	struct stream *stream; /* NULL: gone, waiting for its requests to end */
	struct buf in;
	unsigned under_way;
	bool paused;
	bool opening; /* what follows is no request, unless STREAM.open fails */
};

struct request {
	struct client *client;
	struct waiter waiter; /* UPDATES.get */
	struct arena arena;
	struct rpc_message message;
	const struct agent_method *method;
	struct val params;
	struct buf reply;
	int fd; /* STREAM.open: what the connection becomes; -1 */
	struct loop_call call;
};

static void client_advance(struct client *c);

static void client_release(struct client *c)
{
	if (c->stream != NULL || c->under_way > 0)
		return;
	c->server->n_clients--;
	buf_fini(&c->in);
	free(c);
}

/* Its requests end, or have nobody to answer. */
static void client_gone(struct client *c)
{
	c->stream = NULL;
	agent_end_waits(c->server->agent, c);
	client_release(c);
}

/* The connection is the console's from here on, with what has come behind the request. */
static void become_console(struct client *c, int fd)
{
	struct stream *s = c->stream;

	c->server->n_consoles++;
	stream_pause(s, false);
	agent_console_start(c->server->agent->loop, s, fd, &c->in, &c->server->n_consoles);
	client_gone(c);
}

/* What STREAM.open has waited for: the bytes begin, or requests go on. */
static void opened(struct client *c, int fd)
{
	c->opening = false;
	if (fd >= 0) {
		become_console(c, fd);
		return;
	}
	stream_pause(c->stream, c->paused);
	client_advance(c);
}

/* On the loop: the answer leaves, or is dropped with its client. */
static void reply(struct loop_call *call)
{
	struct request *q = container_of(call, struct request, call);
	struct client *c = q->client;
	bool opening = q->method == &agent_methods[AGENT_STREAM_open];
	int fd = q->fd;

	c->under_way--;
	if (c->stream != NULL) {
		buf_puts(&q->reply, "\n");
		stream_write(c->stream, q->reply.data, q->reply.len);
		if (c->paused && c->under_way < REQUESTS_MAX) {
			c->paused = false;
			stream_pause(c->stream, false);
		}
	}
	buf_fini(&q->reply);
	arena_fini(&q->arena);
	free(q);
	if (c->stream == NULL && fd >= 0)
		close(fd);
	if (c->stream == NULL || !opening)
		client_release(c);
	else
		opened(c, fd);
}

static void encode(struct request *q, const struct val *result, struct err *err)
{
	rpc_reply_encode(&q->reply, &q->message, result, false, err);
	err_fini(err);
}

static void request_main(struct job *job, void *arg)
{
	struct request *q = arg;
	struct err err = { 0 };
	struct val result = val_void();
	struct agent *agent = q->client->server->agent;
	int rc;

	if (q->method == &agent_methods[AGENT_STREAM_open])
		rc = agent_stream_open(agent, &q->params, &q->fd, &err);
	else
		rc = agent_dispatch(agent, job, (enum agent_method_id)(q->method - agent_methods),
			&q->params, &result, &err);
	err_check(rc, &err);
	encode(q, &result, &err);
	loop_post(agent->loop, &q->call, reply);
}

static void on_updates(struct waiter *w, struct val result)
{
	struct request *q = container_of(w, struct request, waiter);
	struct err none = { 0 };

	encode(q, &result, &none);
	arena_fini(&w->arena);
	loop_post(w->agent->loop, &q->call, reply);
}

/* Nothing else is under way, and there is room. */
static int begin_opening(struct client *c, struct err *err)
{
	if (c->under_way > 1)
		return err_set(err, AGENT_ERR_bad_request,
			"other requests of this connection are under way", NULL);
	if (c->server->n_consoles >= AGENT_CONSOLES_MAX)
		return err_set(err, AGENT_ERR_limit_reached, "too many consoles are open", NULL);
	c->opening = true;
	stream_pause(c->stream, true);
	return 0;
}

/* Method and parameters against the interface. */
static int check_request(struct request *q, struct err *err)
{
	const struct val *given = q->message.params->n > 0 ? &q->message.params->items[0] : NULL;

	for (int i = 0; i < AGENT_METHOD_COUNT && q->method == NULL; i++)
		if (strcmp(agent_methods[i].name, q->message.method) == 0)
			q->method = &agent_methods[i];
	if (q->method == NULL)
		return err_set(err, AGENT_ERR_bad_request, "unknown method", NULL);
	q->params = given != NULL && given->kind == VAL_MAP ? *given : val_map();
	if (agent_check_params(q->method, &q->params, &q->arena, err) != 0)
		return ERR_API;
	return q->method == &agent_methods[AGENT_STREAM_open] ? begin_opening(q->client, err) : 0;
}

static void serve(struct client *c, const char *line, size_t n)
{
	struct agent *agent = c->server->agent;
	struct request *q = mem_new(sizeof *q);
	struct err err = { 0 };
	struct val nothing = val_void();
	const char *why = NULL;

	loop_assert(c->server->agent->loop);
	q->client = c;
	q->fd = -1;
	arena_init(&q->arena);
	c->under_way++;
	if (rpc_json_request(&q->arena, line, n, &q->message, &why) != 0)
		err_set(&err, AGENT_ERR_bad_request, why, NULL);
	else if (check_request(q, &err) == 0) {
		if (q->method - agent_methods == AGENT_UPDATES_get) {
			const struct val *from = val_get(&q->params, "from"),
					 *ms = val_get(&q->params, "timeout_ms");

			q->waiter = (struct waiter){
				.owner = c, .from = (uint64_t)from->i, .answer = on_updates
			};
			agent_wait_updates(agent, &q->waiter, ms->i > 0 ? (uint64_t)ms->i : 0);
			return;
		}
		if (lane_submit(
			    agent_lane(agent, (enum agent_method_id)(q->method - agent_methods)),
			    "", request_main, q, NULL) == 0)
			return;
		err_set(&err, AGENT_ERR_limit_reached, "too many requests", NULL);
	}
	q->message.codec = RPC_JSON2;
	encode(q, &nothing, &err);
	loop_post(agent->loop, &q->call, reply);
}

static void client_advance(struct client *c)
{
	size_t at = 0;
	const uint8_t *end;

	loop_assert(c->server->agent->loop);
	while (!c->opening && at < c->in.len &&
		(end = memchr(c->in.data + at, '\n', c->in.len - at)) != NULL) {
		size_t n = (size_t)(end - c->in.data) - at;

		if (n > 0)
			serve(c, (const char *)c->in.data + at, n);
		at += n + 1;
	}
	buf_consume(&c->in, at);
}

static void on_client_data(void *arg, struct stream *s, const uint8_t *p, size_t n)
{
	struct client *c = arg;

	buf_put(&c->in, p, n);
	client_advance(c);
	if (c->in.len > AGENT_LINE_MAX) {
		log_warn(c->server->agent->env,
			"event=client_refused why=\"a line of more than 1 MiB\"");
		stream_close(s);
		client_gone(c);
	} else if (c->under_way >= REQUESTS_MAX && !c->paused) {
		c->paused = true;
		stream_pause(s, true);
	}
}

static void on_client_closed(void *arg, struct stream *s, const char *why)
{
	struct client *c = arg;

	(void)s;
	log_info(c->server->agent->env, "event=client_gone why=\"%s\"", why);
	client_gone(c);
}

static const struct stream_handler client_handler = { .data = on_client_data,
	.closed = on_client_closed };

static void on_client(void *arg, struct stream *s)
{
	struct agent_server *server = arg;
	struct client *c = mem_new(sizeof *c);

	c->server = server;
	c->stream = s;
	server->n_clients++;
	stream_handle(s, &client_handler, c);
	if (server->n_clients > AGENT_CLIENTS_MAX) {
		log_warn(server->agent->env, "event=client_refused why=\"too many clients\"");
		stream_close(s);
		client_gone(c);
	}
}

int agent_server_open(struct agent_server **out, struct agent *agent, const char *path)
{
	struct agent_server *server = mem_new(sizeof *server);
	char address[512];

	snprintf(address, sizeof address, "unix:%s", path);
	server->agent = agent;
	if (listener_open(&server->listener, agent->loop, address, NULL, on_client, server) != 0) {
		free(server);
		return ERR_IO;
	}
	*out = server;
	return 0;
}
