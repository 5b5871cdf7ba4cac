/* See member.h. All state belongs to the loop; calls arrive from workers by a posted call. */
#include "member/member.h"
#include "rpc/base/stream.h"
#include "rpc/wire/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 1 << 20 };

/* One request: of a job (with its wait), or one of our own (own set). */
struct agent_request {
	struct wait wait; /* first */
	struct member *member;
	struct loop_call call;
	struct loop_timer timer;
	struct agent_request *next;
	int64_t id;
	struct buf line;
	void (*own)(struct member *m, const struct val *reply); /* NULL reply: failed */
	int rc;
	struct buf reply; /* text of the reply object */
};

struct member {
	struct loop *loop;
	char address[256];
	struct member_events events;
	struct stream *stream;
	bool open;
	struct loop_timer redial;
	struct agent_request *requests;
	unsigned n_requests;
	_Atomic int64_t next_id; /* any thread */
	int64_t from;
	struct buf in;
};

static void dial(struct loop_timer *t);

static void request_fini(struct wait *w)
{
	struct agent_request *q = container_of(w, struct agent_request, wait);

	buf_fini(&q->line);
	buf_fini(&q->reply);
	free(q);
}

/* The request is over: rc and reply are final. */
static void request_end(struct agent_request *q, int rc)
{
	struct member *m = q->member;
	struct agent_request **at = &m->requests;
	struct arena a;
	struct val v;
	const char *why;

	loop_assert(m->loop);
	while (*at != q)
		at = &(*at)->next;
	*at = q->next;
	m->n_requests--;
	loop_timer_stop(&q->timer);
	q->rc = rc;
	if (q->own == NULL) {
		wait_done(&q->wait);
		return;
	}
	arena_init(&a);
	if (rc == 0 && rpc_json_parse(&a, buf_text(&q->reply), q->reply.len, &v, &why) != 0)
		rc = ERR_CORRUPT;
	q->own(m, rc == 0 ? val_get(&v, "result") : NULL);
	arena_fini(&a);
	request_fini(&q->wait);
}

static void on_call_timeout(struct loop_timer *t)
{
	request_end(container_of(t, struct agent_request, timer), ERR_TIMEOUT);
}

/* On the loop. */
static void request_send(struct agent_request *q, uint64_t timeout_ms)
{
	struct member *m = q->member;

	loop_assert(m->loop);
	q->next = m->requests;
	m->requests = q;
	m->n_requests++;
	loop_timer_start(m->loop, &q->timer, timeout_ms, on_call_timeout);
	COUNT(m->loop->env, agent_calls);
	if (!m->open || m->n_requests > MEMBER_CALLS_MAX)
		request_end(q, m->open ? ERR_FULL : ERR_CLOSED);
	else
		stream_write(m->stream, q->line.data, q->line.len);
}

static void put_request(
	struct buf *out, enum agent_method_id method, int64_t id, const struct val *params)
{
	struct val none = val_map();

	buf_printf(out, "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"method\":\"%s\",\"params\":[",
		(long long)id, agent_methods[method].name);
	val_json(out, params != NULL ? params : &none);
	buf_puts(out, "]}\n");
}

static void encode(
	struct agent_request *q, enum agent_method_id method, int64_t id, const struct val *params)
{
	q->id = id;
	put_request(&q->line, method, id, params);
}

/* Our own calls: who are you, and what has changed. */

static void own_call(struct member *m, enum agent_method_id method, const struct val *params,
	uint64_t timeout_ms, void (*own)(struct member *m, const struct val *reply))
{
	struct agent_request *q = mem_new(sizeof *q);

	loop_assert(m->loop);
	q->member = m;
	q->own = own;
	encode(q, method, m->next_id++, params);
	request_send(q, timeout_ms);
}

static void poll_updates(struct member *m);
static void lost(struct member *m);

static void on_updates(struct member *m, const struct val *reply)
{
	const struct val *from = reply != NULL ? val_get(reply, "from") : NULL,
			 *ids = reply != NULL ? val_get(reply, "ids") : NULL;

	if (!m->open)
		return;
	for (uint32_t i = 0; from != NULL && ids != NULL && ids->kind == VAL_SET && i < ids->n;
		i++) {
		const char *id = ids->items[i].kind == VAL_STRING ? ids->items[i].s : "";
		const char *space = strchr(id, ' ');
		char kind[16];

		if (space == NULL || (size_t)(space - id) >= sizeof kind)
			continue;
		memcpy(kind, id, (size_t)(space - id));
		kind[space - id] = 0;
		m->events.changed(m->events.arg, kind, space + 1);
	}
	if (from != NULL && from->kind == VAL_INT)
		m->from = from->i;
	poll_updates(m);
}

static void poll_updates(struct member *m)
{
	struct arena a;
	struct val params = val_map();

	loop_assert(m->loop);
	arena_init(&a);
	val_map_push(&a, &params, "from", val_int(m->from));
	val_map_push(&a, &params, "timeout_ms", val_int(MEMBER_UPDATES_MS));
	own_call(m, AGENT_UPDATES_get, &params, MEMBER_UPDATES_MS + MEMBER_CALL_MS, on_updates);
	arena_fini(&a);
}

static void on_host(struct member *m, const struct val *reply)
{
	const struct val *version = reply != NULL ? val_get(reply, "version") : NULL,
			 *start = reply != NULL ? val_get(reply, "start_number") : NULL;
	const char *boot = reply != NULL ? val_get_s(reply, "boot_id") : NULL;
	char incarnation[128];

	if (!m->open)
		return;
	if (version == NULL || start == NULL || boot == NULL || version->i != AGENT_VERSION) {
		log_err(m->loop->env, "event=agent_refused why=\"%s\"",
			reply == NULL ? "it does not answer" : "its interface has another version");
		stream_close(m->stream);
		lost(m); /* try again: it may be busy, or replaced by a newer one */
		return;
	}
	snprintf(incarnation, sizeof incarnation, "%s/%lld", boot, (long long)start->i);
	COUNT(m->loop->env, agent_reconnects);
	log_info(m->loop->env, "event=agent_connected incarnation=%s", incarnation);
	m->from = 0;
	m->events.up(m->events.arg, incarnation);
	poll_updates(m);
}

/* The stream. */

static void on_open(void *arg, struct stream *s)
{
	struct member *m = arg;

	(void)s;
	m->open = true;
	own_call(m, AGENT_HOST_stat, NULL, MEMBER_CALL_MS, on_host);
}

static void lost(struct member *m)
{
	m->stream = NULL;
	m->open = false;
	m->in.len = 0;
	while (m->requests != NULL)
		request_end(m->requests, ERR_CLOSED);
	loop_timer_start(m->loop, &m->redial, MEMBER_RECONNECT_MS, dial);
}

static void on_line(struct member *m, const char *line, size_t n)
{
	struct arena a;
	struct val v;
	const char *why;
	const struct val *id;

	loop_assert(m->loop);
	arena_init(&a);
	if (rpc_json_parse(&a, line, n, &v, &why) == 0 && (id = val_get(&v, "id")) != NULL &&
		id->kind == VAL_INT)
		for (struct agent_request *q = m->requests; q != NULL; q = q->next)
			if (q->id == id->i) {
				buf_put(&q->reply, line, n);
				request_end(q, 0);
				break;
			}
	arena_fini(&a);
}

static void on_data(void *arg, struct stream *s, const uint8_t *p, size_t n)
{
	struct member *m = arg;
	size_t at = 0;
	const uint8_t *end;

	buf_put(&m->in, p, n);
	while (at < m->in.len && (end = memchr(m->in.data + at, '\n', m->in.len - at)) != NULL) {
		size_t k = (size_t)(end - m->in.data) - at;

		on_line(m, (const char *)m->in.data + at, k);
		at += k + 1;
	}
	buf_consume(&m->in, at);
	if (m->in.len > LINE_MAX_BYTES) {
		stream_close(s);
		lost(m);
	}
}

static void on_closed(void *arg, struct stream *s, const char *why)
{
	struct member *m = arg;

	(void)s;
	if (m->open)
		log_warn(m->loop->env, "event=agent_lost why=\"%s\"", why);
	lost(m);
}

static const struct stream_handler handler = {
	.open = on_open, .data = on_data, .closed = on_closed
};

static void dial(struct loop_timer *t)
{
	struct member *m = container_of(t, struct member, redial);

	m->stream = stream_connect(m->loop, m->address, NULL, &handler, m);
}

struct member *member_open(
	struct loop *loop, const char *address, const struct member_events *events)
{
	struct member *m = mem_new(sizeof *m);

	m->loop = loop;
	m->events = *events;
	snprintf(m->address, sizeof m->address, "%s", address);
	loop_timer_start(loop, &m->redial, 0, dial);
	return m;
}

/* The bridge. */

static void start_request(struct loop_call *call)
{
	struct agent_request *q = container_of(call, struct agent_request, call);

	request_send(q, MEMBER_CALL_MS);
}

static int take_error(const struct val *fault, struct err *err)
{
	const char *name = val_get_s(fault, "message"), *params[ERR_PARAMS_MAX];
	const struct val *data = val_get(fault, "data");
	unsigned n = 0;

	for (uint32_t i = 0;
		data != NULL && data->kind == VAL_SET && i < data->n && n < ERR_PARAMS_MAX; i++)
		params[n++] = data->items[i].kind == VAL_STRING ? data->items[i].s : "";
	for (unsigned i = 0; name != NULL && agent_errors[i] != NULL; i++)
		if (strcmp(agent_errors[i]->name, name) == 0)
			return err_set_list(err, agent_errors[i], params, n);
	return ERR_CORRUPT;
}

static int take_reply(struct job *job, struct agent_request *q, struct val *out, struct err *err)
{
	/* of its own, so that the result outlives the request */
	char *text = arena_strndup(&job->arena, (const char *)q->reply.data, q->reply.len);
	struct val v;
	const char *why;
	const struct val *part;

	if (rpc_json_parse(&job->arena, text, q->reply.len, &v, &why) != 0)
		return ERR_CORRUPT;
	if ((part = val_get(&v, "error")) != NULL)
		return take_error(part, err);
	part = val_get(&v, "result");
	*out = part != NULL ? *part : val_void();
	return 0;
}

/* Consoles. */

void agent_console_ask(struct buf *out, const char *vm_uuid)
{
	struct val params = val_map();
	struct arena a;

	arena_init(&a);
	val_map_push(&a, &params, "kind", val_string("console"));
	val_map_push(&a, &params, "uuid", val_string(vm_uuid));
	put_request(out, AGENT_STREAM_open, 1, &params);
	arena_fini(&a);
}

int agent_console_answer(const char *line, size_t n, struct err *err)
{
	const struct val *fault;
	const char *why;
	struct arena a;
	struct val v;
	int rc = ERR_CORRUPT;

	arena_init(&a);
	if (rpc_json_parse(&a, line, n, &v, &why) == 0) {
		fault = val_get(&v, "error");
		rc = fault != NULL ? take_error(fault, err) : 0;
	}
	arena_fini(&a);
	return rc;
}

int agent_call(struct job *job, struct member *m, enum agent_method_id method,
	const struct val *params, struct val *result_out, struct err *err)
{
	struct agent_request *q = mem_new(sizeof *q);
	int rc;

	q->member = m;
	wait_init(&q->wait, job, request_fini);
	encode(q, method, m->next_id++, params);
	loop_post(m->loop, &q->call, start_request);
	rc = wait_join(&q->wait, UINT64_MAX, false); /* it ends within MEMBER_CALL_MS */
	if (rc == 0)
		rc = q->rc;
	if (rc == 0)
		rc = take_reply(job, q, result_out, err);
	wait_drop(&q->wait);
	return rc;
}
