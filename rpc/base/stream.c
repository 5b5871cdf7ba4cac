/* The part of a stream that product and simulation share: TLS, output queue, callbacks. See
 * stream.h. */
#include "rpc/base/stream_priv.h"

#include <stdlib.h>
#include <string.h>

static struct stream *stream_new(struct loop *loop, struct tls *tls, bool server)
{
	struct stream *s = mem_new(sizeof *s);

	loop_assert(loop);
	s->loop = loop;
	s->drained = true;
	if (tls != NULL)
		s->tls = tls_conn_new(tls, server);
	return s;
}

int listener_open(struct listener *l, struct loop *loop, const char *address, struct tls *tls,
	void (*accept)(void *arg, struct stream *s), void *arg)
{
	*l = (struct listener){ .loop = loop, .tls = tls, .accept = accept, .arg = arg };
	return loop->env->ops->listen(l, address);
}

void listener_close(struct listener *l)
{
	if (l->impl != NULL)
		l->loop->env->ops->unlisten(l);
	l->impl = NULL;
}

struct stream *stream_connect(struct loop *loop, const char *address, struct tls *tls,
	const struct stream_handler *handler, void *arg)
{
	struct stream *s = stream_new(loop, tls, false);

	stream_handle(s, handler, arg);
	loop->env->ops->connect(s, address);
	return s;
}

void stream_handle(struct stream *s, const struct stream_handler *handler, void *arg)
{
	s->handler = handler;
	s->arg = arg;
}

struct stream *stream__accepted(struct listener *l)
{
	return stream_new(l->loop, l->tls, true);
}

static void flush(struct stream *s)
{
	struct buf bytes;

	if (s->tls != NULL)
		tls_conn_drain(s->tls, &s->out);
	if (!s->connected || s->out.len == 0 || s->in_flight > 0)
		return;
	bytes = s->out;
	buf_init(&s->out);
	s->in_flight = bytes.len;
	s->loop->env->ops->write(s, &bytes);
}

/* Remember to flush at the end of the turn (loop__hooks calls stream__flush_dirty). */
static void touch(struct stream *s)
{
	if (s->dirty)
		return;
	s->dirty = true;
	s->next = s->loop->dirty;
	s->loop->dirty = s;
}

static void untouch(struct stream *s)
{
	struct stream **at = &s->loop->dirty;

	if (!s->dirty)
		return;
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	s->dirty = false;
}

void stream__flush_dirty(struct loop *loop)
{
	struct stream *s;

	while ((s = loop->dirty) != NULL) {
		loop->dirty = s->next;
		s->dirty = false;
		flush(s);
	}
}

static void opened(struct stream *s)
{
	if (s->opened || s->closing)
		return;
	s->opened = true;
	if (s->tls != NULL)
		s->has_fingerprint = tls_conn_fingerprint(s->tls, s->fingerprint);
	if (s->handler->open != NULL)
		s->handler->open(s->arg, s);
}

void stream__connected(struct stream *s)
{
	s->connected = true;
	if (s->tls != NULL) {
		struct buf none = { 0 };

		tls_conn_feed(s->tls, NULL, 0, &none);
		buf_fini(&none);
	} else {
		opened(s);
	}
	if (!s->closing)
		touch(s);
}

void stream__data(struct stream *s, const uint8_t *p, size_t n)
{
	struct buf plain = { 0 };
	int rc;

	if (s->closing)
		return;
	if (s->tls == NULL) {
		s->handler->data(s->arg, s, p, n);
		return;
	}
	rc = tls_conn_feed(s->tls, p, n, &plain);
	touch(s);
	if (tls_conn_ready(s->tls))
		opened(s);
	if (plain.len > 0 && !s->closing)
		s->handler->data(s->arg, s, plain.data, plain.len);
	buf_fini(&plain);
	if (rc > 0 && !s->closing)
		stream__eof(s);
	if (rc < 0 && !s->closing) {
		flush(s); /* the alert */
		stream__broken(s, s->opened ? "closed by the peer" : "TLS handshake failed");
	}
}

void stream__written(struct stream *s, size_t n)
{
	CHECK(n == s->in_flight);
	s->in_flight = 0;
	if (s->closing)
		return;
	if (s->out.len > 0) {
		flush(s);
	} else if (!s->drained) {
		s->drained = true;
		if (s->handler->drain != NULL)
			s->handler->drain(s->arg, s);
	}
}

void stream__eof(struct stream *s)
{
	if (s->closing || s->read_over)
		return;
	s->read_over = s->opened && s->handler->eof != NULL && s->handler->eof(s->arg, s);
	if (!s->read_over && !s->closing)
		stream__broken(s, "closed by the peer");
}

void stream__broken(struct stream *s, const char *why)
{
	if (s->closing)
		return;
	s->closing = true;
	untouch(s);
	s->handler->closed(s->arg, s, why);
	s->loop->env->ops->close(s);
}

void stream__free(struct stream *s)
{
	CHECK(!s->dirty);
	tls_conn_free(s->tls);
	buf_fini(&s->out);
	free(s);
}

/* Piece by piece: the session's own buffer stays small, also afterwards. */
static void encrypt(struct stream *s, const uint8_t *p, size_t n)
{
	enum { PIECE = 16 << 10 }; /* a TLS record */

	while (n > 0) {
		size_t k = n < PIECE ? n : PIECE;

		tls_conn_write(s->tls, p, k);
		tls_conn_drain(s->tls, &s->out);
		p += k;
		n -= k;
	}
}

void stream_write(struct stream *s, const void *p, size_t n)
{
	loop_assert(s->loop);
	CHECK(!s->closing);
	s->drained = false;
	if (s->tls != NULL)
		encrypt(s, p, n);
	else
		buf_put(&s->out, p, n);
	touch(s);
}

size_t stream_queued(const struct stream *s)
{
	return s->out.len + s->in_flight + (s->tls != NULL ? tls_conn_pending(s->tls) : 0);
}

size_t stream_untaken(const struct stream *s)
{
	size_t queued = stream_queued(s);

	return queued > 0 ? queued - s->in_flight + s->loop->env->ops->untaken(s) : 0;
}

void stream_pause(struct stream *s, bool paused)
{
	s->loop->env->ops->pause(s, paused);
}

void stream_close(struct stream *s)
{
	loop_assert(s->loop);
	CHECK(!s->closing);
	if (s->tls != NULL)
		tls_conn_bye(s->tls);
	untouch(s);
	if (s->tls != NULL)
		tls_conn_drain(s->tls, &s->out);
	s->closing = true; /* the back end sends what is in s->out */
	s->loop->env->ops->close(s);
}

void stream_abort(struct stream *s)
{
	loop_assert(s->loop);
	CHECK(!s->closing);
	untouch(s);
	buf_fini(&s->out);
	s->closing = s->aborted = true;
	s->loop->env->ops->close(s);
}

bool stream_fingerprint(const struct stream *s, uint8_t out[TLS_FINGERPRINT_LEN])
{
	if (s->has_fingerprint)
		memcpy(out, s->fingerprint, TLS_FINGERPRINT_LEN);
	return s->has_fingerprint;
}

const char *stream_peer(const struct stream *s)
{
	return s->peer;
}

bool stream_expired(const struct stream *s)
{
	return s->tls != NULL && tls_conn_expired(s->tls);
}

void stream_resolve(struct loop *loop, const char *name,
	void (*done)(void *arg, const struct resolved *r), void *arg)
{
	loop_assert(loop);
	if (loop->env->ops->resolve != NULL)
		loop->env->ops->resolve(loop, name, done, arg);
	else
		done(arg, &(struct resolved){ .why = "no resolver" });
}
