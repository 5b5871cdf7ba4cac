/* Consoles for clients: CONNECT /console and, for browsers, a WebSocket at GET /console. Source:
 * http-handlers.md 3.
 *
 *   a VM that is here:  client <=bytes or frames=> this <=bytes=> agent (STREAM.open, member.h)
 *   elsewhere:          client <=bytes=> this <=HTTPS, the same request=> the member of its host
 *
 *   console_begin -> DIALLING (the agent's answer) -> flow: bytes in both directions -> end
 *
 * Until bytes flow the service's call waits and can still be refused; then it is over, and what
 * goes on is a struct console of its own, on the loop of the client's connection. A request that
 * was handed on says so and is not handed on again.
 *
 * Back pressure: the client gets no more until what it was sent has left, the other side no more
 * than CONSOLE_QUEUE that it has not taken. What is not read here stays where it comes from.
 */
#include "pool/pool_priv.h"
#include "rpc/wire/websocket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	CONSOLE_QUEUE = 64 << 10, /* bytes for the guest that wait */
	CONSOLE_READ = 16 << 10,  /* bytes taken of the client at a time */
	CONSOLE_LINE = 4 << 10,	  /* of the agent's answer */
	CONSOLE_OPEN_MS = 10000,  /* until bytes flow */
	CONSOLE_LOOK_MS = 1000,	  /* between looks: is its session still there? */
};

struct console {
	struct pool *pool;
	struct loop *loop;
	struct console *next;	     /* under consoles_mutex */
	struct call *call;	     /* until bytes flow */
	struct rpc_request *request; /* from then on; NULL: the client has gone */
	struct stream *up;	     /* agent or member; NULL: gone */
	struct tls *tls;
	struct loop_timer timer;
	uint64_t idle_ms, active_ms; /* 0: it may be idle for ever; the last word of the client */
	bool websocket;		     /* its frames are ours to read */
	bool answered; /* frames of ours wait for the client: it is read behind them */
	struct ws_reader ws;
	char console[DB_REF_MAX + 1]; /* "": shown by another member */
	char session[DB_REF_MAX + 1]; /* it ends with it; "": opened with a password */
	bool local;		      /* the session is this member's alone */
	char vm[UUID_LEN + 1];
	struct peer peer;     /* the member; without a certificate: it is the agent */
	struct buf ask, line; /* what is sent first; the agent's answer so far */
};

/* How many there are at this member, and of which. */

static bool enlist(struct console *c, bool alone)
{
	struct pool *pool = c->pool;
	unsigned n = 0;
	bool seen = false;

	pthread_mutex_lock(&pool->consoles_mutex);
	for (struct console *o = pool->consoles; o != NULL; o = o->next) {
		n++;
		seen |= c->console[0] != 0 && strcmp(o->console, c->console) == 0;
	}
	if (n < POOL_CONSOLES_MAX && !(alone && seen)) {
		c->next = pool->consoles;
		pool->consoles = c;
		n = 0;
	}
	pthread_mutex_unlock(&pool->consoles_mutex);
	return n == 0;
}

static void delist(struct console *c)
{
	struct console **at = &c->pool->consoles;

	pthread_mutex_lock(&c->pool->consoles_mutex);
	while (*at != NULL && *at != c)
		at = &(*at)->next;
	if (*at != NULL)
		*at = c->next;
	pthread_mutex_unlock(&c->pool->consoles_mutex);
}

static void console_free(struct console *c)
{
	delist(c);
	loop_timer_stop(&c->timer);
	tls_free(c->tls);
	buf_fini(&c->ask);
	buf_fini(&c->line);
	free(c);
}

/* Bytes flow. */

static void put(struct console *c, const struct buf *out)
{
	rpc_reply_put(c->request, out->data, out->len);
}

/* Of the client no more is wanted, or it has gone; what it was sent still leaves. */
static void finish(struct console *c)
{
	if (c->up != NULL)
		stream_abort(c->up);
	if (c->request != NULL)
		rpc_reply_end(c->request);
	console_free(c);
}

/* The guest's side has nothing more to say. */
static void say_goodbye(struct console *c)
{
	struct buf out = { 0 };

	if (c->websocket) {
		ws_put_close(&out, WS_GOING_AWAY);
		put(c, &out);
	}
	buf_fini(&out);
	finish(c);
}

/* false: the client's side of it is over. */
static bool take_frames(struct console *c, const uint8_t *p, size_t n)
{
	struct buf data = { 0 }, answer = { 0 };
	enum ws_status status = ws_feed(&c->ws, p, n, &data, &answer);

	if (data.len > 0) {
		c->active_ms = env_now_ms(c->pool->env);
		stream_write(c->up, data.data, data.len);
	}
	c->answered = answer.len > 0;
	if (c->answered)
		put(c, &answer);
	if (status != WS_OPEN && status != WS_NORMAL)
		log_info(c->pool->env, "event=console_refused vm=%s websocket=%d", c->vm,
			(int)status);
	buf_fini(&data);
	buf_fini(&answer);
	return status == WS_OPEN;
}

/* From the client, as long as the other side takes it. */
static void pump(struct console *c)
{
	uint8_t bytes[CONSOLE_READ];
	size_t n;

	while (!c->answered && stream_queued(c->up) < CONSOLE_QUEUE &&
		(n = rpc_raw_read(c->request, bytes, sizeof bytes)) > 0) {
		if (!c->websocket) {
			c->active_ms = env_now_ms(c->pool->env);
			stream_write(c->up, bytes, n);
		} else if (!take_frames(c, bytes, n)) {
			finish(c);
			return;
		}
	}
}

static void on_received(struct rpc_request *request, void *arg)
{
	(void)request;
	pump(arg);
}

static void on_drained(struct rpc_request *request, void *arg)
{
	struct console *c = arg;

	(void)request;
	c->answered = false;
	stream_pause(c->up, false);
	pump(c);
}

static void on_gone(struct rpc_request *request, void *arg)
{
	struct console *c = arg;

	(void)request;
	c->request = NULL;
	finish(c);
}

/* To the client; the next when this has left. */
static void give(struct console *c, const uint8_t *p, size_t n)
{
	struct buf out = { 0 };

	if (n == 0)
		return;
	if (c->websocket)
		ws_put(&out, WS_BINARY, p, n);
	else
		buf_put(&out, p, n);
	put(c, &out);
	buf_fini(&out);
	stream_pause(c->up, true);
}

static bool session_there(struct console *c)
{
	struct db_view view;
	bool there;

	if (c->session[0] == 0)
		return true;
	if (c->local)
		return session_local_lives(c->pool, c->session);
	db_view_pin(c->pool->db, &view);
	there = db_view_get(&view, MODEL_CLASS_session, c->session) != NULL;
	db_view_unpin(&view);
	return there;
}

/* Each member that shows it or hands it on looks for itself. */
static void on_look(struct loop_timer *t)
{
	struct console *c = container_of(t, struct console, timer);
	uint64_t idle = env_now_ms(c->pool->env) - c->active_ms, next = CONSOLE_LOOK_MS;
	bool there = session_there(c);

	if (there && (c->idle_ms == 0 || idle < c->idle_ms)) {
		if (c->idle_ms > 0 && c->idle_ms - idle < next)
			next = c->idle_ms - idle;
		loop_timer_start(c->loop, t, next, on_look);
		return;
	}
	log_info(c->pool->env, "event=%s vm=%s", there ? "console_idle" : "console_session_ended",
		c->vm);
	say_goodbye(c);
}

/* Where the answer is ours to give. */
static void put_head(struct console *c)
{
	const char *wanted = c->request->websocket_protocol;
	char accept[WS_ACCEPT_LEN + 1];
	struct buf out = { 0 };

	if (c->websocket) {
		ws_accept(c->request->websocket_key, accept);
		buf_printf(&out,
			"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
			"Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s\r\n",
			accept,
			strstr(wanted, "binary") != NULL ? "Sec-WebSocket-Protocol: binary\r\n"
							 : "");
	} else {
		buf_puts(&out, "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n"
			       "Cache-Control: no-cache, no-store\r\n\r\n");
	}
	put(c, &out);
	buf_fini(&out);
}

/* The service is over, the console begins; false: its client has gone. */
static bool flow(struct console *c)
{
	struct call *call = c->call;
	struct rpc_request *request = call->request;

	c->call = NULL;
	c->request = request;
	loop_timer_stop(&c->timer);
	call->request = NULL; /* before the call ends, so that nobody answers for it */
	if (request != NULL) {
		request->gone = on_gone;
		request->gone_arg = c;
		request->received = on_received;
		request->drained = on_drained;
		request->waits = true;
		rpc_raw_begin(request);
		c->active_ms = env_now_ms(c->pool->env);
		loop_timer_start(c->loop, &c->timer, 0, on_look);
		if (c->peer.certificate[0] == 0)
			put_head(c);
	}
	service_end(call);
	if (request == NULL)
		finish(c);
	return request != NULL;
}

/* The other side. */

/* Before bytes flowed. */
static void fail(struct console *c)
{
	struct call *call = c->call;

	if (c->up != NULL)
		stream_abort(c->up);
	console_free(c);
	service_end(call);
}

static void unreachable(struct console *c, const char *why)
{
	log_warn(c->pool->env, "event=console_failed vm=%s of=%s why=\"%s\"", c->vm,
		c->peer.certificate[0] != 0 ? "member" : "agent", why);
	err_set(&c->call->err, ERR_INTERNAL_ERROR,
		arena_printf(&c->call->arena, "the %s does not give the console: %s",
			c->peer.certificate[0] != 0 ? "member that has the VM" : "agent", why),
		NULL);
	fail(c);
}

static void refused(struct console *c, int rc, const struct err *why)
{
	struct err *err = &c->call->err;

	if (rc != ERR_API) {
		unreachable(c, err_rc_name(rc));
	} else if (why->code == AGENT_ERR_limit_reached) {
		err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
		fail(c);
	} else if (why->code == AGENT_ERR_unimplemented) {
		err_set(err, ERR_NOT_IMPLEMENTED, why->params[0], NULL);
		fail(c);
	} else {
		unreachable(c, why->n > 0 ? why->params[0] : why->code->name);
	}
}

/* A line of the agent, then the guest. */
static void agent_said(struct console *c, const uint8_t *p, size_t n)
{
	const uint8_t *end = memchr(p, '\n', n);
	size_t took = end != NULL ? (size_t)(end - p) + 1 : n;
	struct err why = { 0 };
	int rc = ERR_CORRUPT;

	buf_put(&c->line, p, took);
	if (end == NULL && c->line.len <= CONSOLE_LINE)
		return;
	if (end != NULL)
		rc = agent_console_answer(buf_text(&c->line), c->line.len - 1, &why);
	if (rc != 0)
		refused(c, rc, &why);
	else if (flow(c)) {
		give(c, p + took, n - took);
		pump(c);
	}
	err_fini(&why);
}

static void on_up_open(void *arg, struct stream *s)
{
	struct console *c = arg;
	uint8_t print[TLS_FINGERPRINT_LEN];
	char hex[TLS_PRINT_TEXT] = "";

	if (c->peer.certificate[0] != 0 && stream_fingerprint(s, print))
		tls_fingerprint_text(print, hex);
	if (strcmp(hex, c->peer.certificate) != 0) {
		unreachable(c, "it has another certificate than that member's");
		return;
	}
	stream_write(s, c->ask.data, c->ask.len);
	if (c->peer.certificate[0] == 0)
		return;
	c->call->task[0] = 0; /* it is for the other to tell */
	if (flow(c))
		pump(c);
}

static void on_up_data(void *arg, struct stream *s, const uint8_t *p, size_t n)
{
	struct console *c = arg;

	(void)s;
	if (c->call != NULL)
		agent_said(c, p, n);
	else
		give(c, p, n);
}

static void on_up_drain(void *arg, struct stream *s)
{
	struct console *c = arg;

	(void)s;
	if (c->call == NULL)
		pump(c);
}

static void on_up_closed(void *arg, struct stream *s, const char *why)
{
	struct console *c = arg;

	(void)s;
	c->up = NULL;
	if (c->call != NULL)
		unreachable(c, why);
	else
		say_goodbye(c);
}

static const struct stream_handler up_handler = {
	.open = on_up_open, .data = on_up_data, .drain = on_up_drain, .closed = on_up_closed
};

static void on_late(struct loop_timer *t)
{
	unreachable(container_of(t, struct console, timer), "no answer in time");
}

/* The same request to the member, which looks at everything again. */
static void put_request(struct console *c, const struct rpc_request *r)
{
	buf_printf(&c->ask, "%s /console?%s%sxpool_hop=1 HTTP/1.1\r\nHost: xpool\r\n", r->method,
		r->query, r->query[0] != 0 ? "&" : "");
	if (r->cookie[0] != 0)
		buf_printf(&c->ask, "Cookie: %s\r\n", r->cookie);
	if (r->authorization[0] != 0)
		buf_printf(&c->ask, "Authorization: %s\r\n", r->authorization);
	if (r->websocket_key[0] != 0)
		buf_printf(&c->ask,
			"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %s\r\n"
			"Sec-WebSocket-Version: %s\r\n",
			r->websocket_key, r->websocket_version);
	if (r->websocket_protocol[0] != 0)
		buf_printf(&c->ask, "Sec-WebSocket-Protocol: %s\r\n", r->websocket_protocol);
	buf_puts(&c->ask, "\r\n");
}

static int dial_member(struct console *c, const struct db_row *host, struct err *err)
{
	if (!peer_of(&c->call->view, host, &c->peer))
		return err_set(err, ERR_HOST_OFFLINE, db_row_ref(host), NULL);
	put_request(c, c->call->request);
	c->tls = tls_client_new(NULL);
	c->up = stream_connect(c->loop, c->peer.address, c->tls, &up_handler, c);
	return 0;
}

static void dial_agent(struct console *c)
{
	agent_console_ask(&c->ask, c->vm);
	c->up = stream_connect(c->loop, c->pool->agent_address, NULL, &up_handler, c);
}

/* The request. */

static const struct db_row *first_console(const struct db_view *view, const struct db_row *vm)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_console_VM, db_row_ref(vm));
	const struct db_row *row, *found = NULL;

	while ((row = db_next(&c)) != NULL)
		if (found == NULL || (strcmp(db_row_s(row, CONSOLE_protocol), "rfb") == 0 &&
					     strcmp(db_row_s(found, CONSOLE_protocol), "rfb") != 0))
			found = row;
	return found;
}

/* ref or uuid, of a console or of a VM. */
static const struct db_row *find(struct call *call, struct err *err)
{
	const struct db_view *view = &call->view;
	const char *ref = service_parameter(call, "ref"), *uuid = service_parameter(call, "uuid");
	const struct db_row *row = NULL, *vm = NULL;

	if (ref != NULL) {
		row = db_view_get(view, MODEL_CLASS_console, ref);
		vm = db_view_get(view, MODEL_CLASS_VM, ref);
	} else if (uuid != NULL) {
		row = db_view_by_uuid(view, MODEL_CLASS_console, uuid);
		vm = db_view_by_uuid(view, MODEL_CLASS_VM, uuid);
	}
	if (row == NULL && vm != NULL)
		row = first_console(view, vm);
	if (row == NULL)
		err_set(err, ERR_HANDLE_INVALID, "console",
			ref != NULL    ? ref
			: uuid != NULL ? uuid
				       : "",
			NULL);
	return row;
}

static int may_see(struct call *call, const struct db_row *vm, struct err *err)
{
	bool websocket = strcmp(call->request->method, "GET") == 0;

	if (db_row_b(vm, VM_is_control_domain) &&
		role_need(&call->caller,
			websocket ? "http/connect_console_ws/host_console_ws"
				  : "http/connect_console/host_console",
			err) != 0)
		return ERR_API;
	if (strcmp(db_row_s(vm, VM_power_state), "Running") != 0)
		return err_set(err, ERR_VM_BAD_POWER_STATE, db_row_ref(vm), "running",
			arena_printf(&call->arena, "%c%s", db_row_s(vm, VM_power_state)[0] | 0x20,
				db_row_s(vm, VM_power_state) + 1),
			NULL);
	return 0;
}

/* Answered here, with a page. */
static int refuse(struct call *call, unsigned status, const char *text, struct err *err)
{
	rpc_reply_begin(call->request, status, "text/html",
		status == 426 ? "Sec-WebSocket-Version: 13\r\n" : NULL);
	rpc_reply_put(call->request, text, strlen(text));
	rpc_reply_end(call->request);
	call->request = NULL;
	return err_set(err, ERR_INTERNAL_ERROR, text, NULL);
}

static struct console *console_new(
	struct call *call, const struct db_row *row, const struct db_row *vm)
{
	struct console *c = mem_new(sizeof *c);

	c->pool = call->pool;
	c->loop = call->io->loop;
	c->call = call;
	snprintf(c->console, sizeof c->console, "%s", db_row_ref(row));
	snprintf(c->vm, sizeof c->vm, "%s", db_row_s(vm, VM_uuid));
	if (call->session_ref != NULL) {
		c->local = call->caller.local != NULL;
		snprintf(c->session, sizeof c->session, "%s", session_given(call));
	}
	return c;
}

static int begin_here(struct console *c, struct err *err)
{
	struct call *call = c->call;
	struct db_cursor pools = db_rows(&call->view, MODEL_CLASS_pool);
	const struct db_row *pool = db_next(&pools);
	bool alone = pool != NULL && db_row_b(pool, POOL_limit_console_sessions);
	int64_t idle_s = pool != NULL ? db_row_i(pool, POOL_vm_console_idle_timeout) : 0;

	c->websocket = strcmp(call->request->method, "GET") == 0;
	c->idle_ms = idle_s > 0 ? (uint64_t)idle_s * 1000 : 0;
	/* as in the reference: what a page would not show is refused whenever there is a limit */
	if ((alone && c->websocket) || !enlist(c, alone))
		return refuse(call, 503,
			"<html><body><h1>Connection Limit Exceeded</h1></body>"
			"</html>\n",
			err);
	dial_agent(c);
	return 0;
}

static int begin_there(struct console *c, const struct db_row *host, struct err *err)
{
	if (service_parameter(c->call, "xpool_hop") != NULL || host == NULL)
		return err_set(
			err, ERR_INTERNAL_ERROR, "the VM is on another host: try again", NULL);
	c->console[0] = 0;
	if (!enlist(c, false))
		return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
	return dial_member(c, host, err);
}

int console_begin(struct call *call, struct err *err)
{
	const struct rpc_request *r = call->request;
	const struct db_row *row, *vm, *host;
	struct console *c;
	int rc;

	if (r == NULL)
		return err_set(err, ERR_INTERNAL_ERROR, "the client has gone", NULL);
	if (strcmp(r->method, "GET") == 0 && strlen(r->websocket_key) != 24)
		return refuse(
			call, 400, "A console is a WebSocket, or asked for by CONNECT.\n", err);
	if (strcmp(r->method, "GET") == 0 && strcmp(r->websocket_version, "13") != 0)
		return refuse(call, 426, "WebSockets of version 13 are understood.\n", err);
	row = find(call, err);
	if (row == NULL)
		return ERR_API;
	vm = db_view_get(&call->view, MODEL_CLASS_VM, db_row_s(row, CONSOLE_VM));
	if (vm == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "console", db_row_ref(row), NULL);
	if (may_see(call, vm, err) != 0)
		return ERR_API;
	host = db_view_get(&call->view, MODEL_CLASS_host, db_row_s(vm, VM_resident_on));
	c = console_new(call, row, vm);
	rc = host != NULL && host == pool_self(call->pool, &call->view) ? begin_here(c, err)
									: begin_there(c, host, err);
	if (rc != 0) {
		console_free(c);
		return rc;
	}
	loop_timer_start(c->loop, &c->timer, CONSOLE_OPEN_MS, on_late);
	return CALL_PENDING;
}
