/* STREAM.open: a client's connection becomes a console.
 *
 *   client --{"method":"STREAM.open"}--> server.c -> worker: hv_console_open -> the answer's line
 *   client <======== bytes ========> this <======== bytes ========> the guest's descriptor
 *
 * Whoever sends is not read while more than AGENT_CONSOLE_QUEUE of it waits for the other, so what
 * is slow slows down what is fast, and memory stays. When one end closes so does the other, behind
 * what was sent: a domain that goes closes its descriptor. A client that is not read is not seen to
 * go, so a guest that takes nothing for AGENT_CONSOLE_STALL_MS ends it.
 */
#include "member/agent_priv.h"
#include "rpc/base/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int agent_stream_open(struct agent *agent, const struct val *params, int *fd_out, struct err *err)
{
	const char *uuid = val_get_s(params, "uuid");
	struct hv_domain domain;

	if (strcmp(val_get_s(params, "kind"), "console") != 0)
		return err_set(err, AGENT_ERR_unimplemented, "STREAM.open migration", NULL);
	if (!hv_domain_find(agent->hv, uuid, &domain))
		return err_set(err, AGENT_ERR_does_not_exist, "domain", uuid, NULL);
	return hv_console_open(agent->hv, &domain, fd_out, err);
}

enum { CLIENT, GUEST, ENDS };

struct console {
	struct loop *loop;
	struct end {
		struct console *console;
		struct stream *stream;
	} ends[ENDS];
	struct loop_timer stalled; /* the guest does not take what is typed */
	unsigned *count;
};

static struct end *other(struct end *e)
{
	return &e->console->ends[e == &e->console->ends[CLIENT] ? GUEST : CLIENT];
}

/* What was sent to either still leaves, where it is taken. */
static void hang_up(struct console *c, const struct end *gone)
{
	loop_timer_stop(&c->stalled);
	for (int i = 0; i < ENDS; i++)
		if (&c->ends[i] != gone)
			stream_close(c->ends[i].stream);
	--*c->count;
	free(c);
}

static void on_stalled(struct loop_timer *t)
{
	struct console *c = container_of(t, struct console, stalled);

	stream_abort(c->ends[GUEST].stream);
	hang_up(c, &c->ends[GUEST]);
}

static void on_data(void *arg, struct stream *s, const uint8_t *p, size_t n)
{
	struct end *to = other(arg);
	struct console *c = to->console;

	stream_write(to->stream, p, n);
	if (stream_queued(to->stream) <= AGENT_CONSOLE_QUEUE)
		return;
	stream_pause(s, true);
	if (to == &c->ends[GUEST])
		loop_timer_start(c->loop, &c->stalled, AGENT_CONSOLE_STALL_MS, on_stalled);
}

static void on_drain(void *arg, struct stream *s)
{
	struct end *e = arg;

	(void)s;
	stream_pause(other(e)->stream, false);
	if (e == &e->console->ends[GUEST])
		loop_timer_stop(&e->console->stalled);
}

static void on_closed(void *arg, struct stream *s, const char *why)
{
	struct end *e = arg;

	(void)s;
	(void)why;
	hang_up(e->console, e);
}

static const struct stream_handler handler = {
	.data = on_data, .drain = on_drain, .closed = on_closed
};

void agent_console_start(
	struct loop *loop, struct stream *client, int fd, const struct buf *before, unsigned *count)
{
	struct console *c = mem_new(sizeof *c);
	char address[24];

	loop_assert(loop);
	c->loop = loop;
	c->count = count;
	for (int i = 0; i < ENDS; i++)
		c->ends[i].console = c;
	snprintf(address, sizeof address, "fd:%d", fd);
	c->ends[GUEST].stream = stream_connect(loop, address, NULL, &handler, &c->ends[GUEST]);
	c->ends[CLIENT].stream = client;
	stream_handle(client, &handler, &c->ends[CLIENT]);
	if (before->len > 0)
		stream_write(c->ends[GUEST].stream, before->data, before->len);
}
