/* Raw streams on libuv: TCP with NODELAY and time-outs, Unix sockets. */
#include "rpc/base/env_uv_priv.h"
#include "rpc/base/stream_priv.h"
#include "rpc/base/uv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	LISTEN_BACKLOG = 128,
	KEEPALIVE_S = 3,
	USER_TIMEOUT_MS = 30000,
	LINGER_MS = 2000 /* what a peer still sends is read and dropped, so that it sees our last
			    words and no reset */
};

struct stream_uv {
	union {
		uv_stream_t any;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	} h;
	struct stream *s;
	uv_connect_t connect;
	uv_write_t write;
	uv_shutdown_t shutdown;
	struct buf bytes, last; /* being written; what is left at the close */
	uv_write_t last_write;
	struct loop_timer linger;
	bool is_pipe, paused, closing, closed;
};

struct listener_uv {
	union {
		uv_stream_t any;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	} h;
	struct listener *l;
	bool is_pipe;
};

static bool parse_address(const char *address, struct sockaddr_storage *out)
{
	char host[INET6_ADDRSTRLEN + 3];
	const char *colon = strrchr(address, ':');
	char *end;
	long port;
	size_t n;

	if (colon == NULL || (size_t)(colon - address) >= sizeof host)
		return false;
	port = strtol(colon + 1, &end, 10);
	if (*end != 0 || port < 0 || port > 65535)
		return false;
	n = (size_t)(colon - address);
	memcpy(host, address, n);
	host[n] = 0;
	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = 0;
		return uv_ip6_addr(host + 1, (int)port, (struct sockaddr_in6 *)out) == 0;
	}
	return uv_ip4_addr(host, (int)port, (struct sockaddr_in *)out) == 0;
}

static void tune(uv_tcp_t *tcp)
{
	unsigned timeout = USER_TIMEOUT_MS;
	uv_os_fd_t fd;

	uv_tcp_nodelay(tcp, 1);
	uv_tcp_keepalive(tcp, 1, KEEPALIVE_S);
	if (uv_fileno((uv_handle_t *)tcp, &fd) == 0)
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

static void name_peer(struct stream_uv *u)
{
	struct sockaddr_storage a;
	int n = sizeof a;
	char host[INET6_ADDRSTRLEN];

	if (u->is_pipe || uv_tcp_getpeername(&u->h.tcp, (struct sockaddr *)&a, &n) != 0)
		return;
	if (a.ss_family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)&a;

		uv_ip4_name(in, host, sizeof host);
		snprintf(u->s->peer, sizeof u->s->peer, "%s:%u", host, ntohs(in->sin_port));
	} else {
		struct sockaddr_in6 *in = (struct sockaddr_in6 *)&a;

		uv_ip6_name(in, host, sizeof host);
		snprintf(u->s->peer, sizeof u->s->peer, "[%s]:%u", host, ntohs(in->sin6_port));
	}
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *out)
{
	struct stream_uv *u = h->data;

	struct loop_uv *l = u->s->loop->impl;

	(void)hint;
	*out = uv_buf_init(l->read_buf, sizeof l->read_buf);
}

static void close_now(struct stream_uv *u);

static void on_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
	struct stream_uv *u = h->data;

	if (u->closing) {
		if (n < 0)
			close_now(u);
		return;
	}
	if (n == UV_EOF) {
		uv_read_stop(h);
		stream__eof(u->s);
	} else if (n < 0) {
		stream__broken(u->s, uv_strerror((int)n));
	} else if (n > 0) {
		stream__data(u->s, (const uint8_t *)b->base, (size_t)n);
	}
}

static struct stream_uv *stream_uv_new(struct stream *s, bool is_pipe)
{
	struct stream_uv *u = mem_new(sizeof *u);

	u->s = s;
	s->impl = u;
	u->is_pipe = is_pipe;
	if (is_pipe)
		uv_pipe_init(loop_uv(s->loop), &u->h.pipe, 0);
	else
		uv_tcp_init(loop_uv(s->loop), &u->h.tcp);
	u->h.any.data = u;
	return u;
}

static void begin_reading(struct stream_uv *u)
{
	if (!u->is_pipe)
		tune(&u->h.tcp);
	name_peer(u);
	if (!u->paused)
		uv_read_start(&u->h.any, on_alloc, on_read);
	stream__connected(u->s);
}

static void on_connection(uv_stream_t *h, int status)
{
	struct listener_uv *lu = h->data;
	struct stream *s;
	struct stream_uv *u;

	if (status < 0) {
		log_warn(lu->l->loop->env, "event=accept_failed why=\"%s\"", uv_strerror(status));
		return;
	}
	s = stream__accepted(lu->l);
	u = stream_uv_new(s, lu->is_pipe);
	/* first, so that a handler that refuses closes the descriptor with the handle */
	status = uv_accept(h, &u->h.any);
	lu->l->accept(lu->l->arg, s); /* sets the handler */
	if (u->closing)
		return;
	if (status != 0)
		stream__broken(s, "accept failed");
	else
		begin_reading(u);
}

static void on_unlistened(uv_handle_t *h)
{
	free(h->data);
}

int listener_socket(const char *ip, unsigned port)
{
	char address[STREAM_PEER_MAX];
	struct sockaddr_storage a = { 0 };
	int on = 1, fd, saved;

	snprintf(address, sizeof address, strchr(ip, ':') ? "[%s]:%u" : "%s:%u", ip, port);
	if (!parse_address(address, &a)) {
		errno = EINVAL;
		return -1;
	}
	fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&a,
		    a.ss_family == AF_INET ? sizeof(struct sockaddr_in)
					   : sizeof(struct sockaddr_in6)) == 0 &&
		listen(fd, LISTEN_BACKLOG) == 0)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static int listen_unix(struct listener_uv *lu, const char *path)
{
	int r;

	uv_pipe_init(loop_uv(lu->l->loop), &lu->h.pipe, 0);
	r = uv_pipe_bind(&lu->h.pipe, path);
	return r != 0 ? r : uv_listen(&lu->h.any, LISTEN_BACKLOG, on_connection);
}

static int listen_tcp(struct listener_uv *lu, const char *address)
{
	struct sockaddr_storage a = { 0 };
	int r;

	uv_tcp_init(loop_uv(lu->l->loop), &lu->h.tcp);
	if (strncmp(address, "fd:", 3) == 0)
		r = uv_tcp_open(&lu->h.tcp, atoi(address + 3));
	else
		r = parse_address(address, &a) ? uv_tcp_bind(&lu->h.tcp, (struct sockaddr *)&a, 0)
					       : UV_EINVAL;
	return r != 0 ? r : uv_listen(&lu->h.any, LISTEN_BACKLOG, on_connection);
}

int stream_uv_listen(struct listener *l, const char *address)
{
	struct listener_uv *lu = mem_new(sizeof *lu);
	int r;

	lu->l = l;
	lu->is_pipe = strncmp(address, "unix:", 5) == 0;
	r = lu->is_pipe ? listen_unix(lu, address + 5) : listen_tcp(lu, address);
	lu->h.any.data = lu;
	if (r != 0) {
		uv_close((uv_handle_t *)&lu->h.any, on_unlistened);
		errno = -r;
		return ERR_IO;
	}
	l->impl = lu;
	return 0;
}

void stream_uv_unlisten(struct listener *l)
{
	struct listener_uv *lu = l->impl;

	uv_close((uv_handle_t *)&lu->h.any, on_unlistened);
}

static void on_connected(uv_connect_t *req, int status)
{
	struct stream_uv *u = req->data;

	if (u->closing)
		return;
	if (status < 0)
		stream__broken(u->s, uv_strerror(status));
	else
		begin_reading(u);
}

static void on_adopted(struct loop_timer *t)
{
	begin_reading(container_of(t, struct stream_uv, linger));
}

/* Told on a turn of its own, as if it had been dialled. */
static void adopt(struct stream_uv *u, int fd)
{
	int r = uv_pipe_open(&u->h.pipe, fd);

	CHECK(r == 0); /* whoever opened it is to give us no other kind */
	loop_timer_start(u->s->loop, &u->linger, 0, on_adopted);
}

int stream_uv_connect(struct stream *s, const char *address)
{
	struct sockaddr_storage a = { 0 };
	bool is_fd = strncmp(address, "fd:", 3) == 0;
	struct stream_uv *u = stream_uv_new(s, is_fd || strncmp(address, "unix:", 5) == 0);

	u->connect.data = u;
	if (is_fd) {
		adopt(u, atoi(address + 3));
		return 0;
	}
	if (u->is_pipe) {
		uv_pipe_connect(&u->connect, &u->h.pipe, address + 5, on_connected);
		return 0;
	}
	if (!parse_address(address, &a) ||
		uv_tcp_connect(&u->connect, &u->h.tcp, (struct sockaddr *)&a, on_connected) != 0)
		/* told on the next turn, never from inside the call: connect to a port nobody has
		 */
		uv_tcp_connect(&u->connect, &u->h.tcp,
			(struct sockaddr *)&(struct sockaddr_in){ .sin_family = AF_INET,
				.sin_port = htons(1),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
			on_connected);
	return 0;
}

static void on_written(uv_write_t *req, int status)
{
	struct stream_uv *u = req->data;
	size_t n = u->bytes.len;

	buf_fini(&u->bytes);
	if (u->closing)
		return;
	if (status < 0)
		stream__broken(u->s, uv_strerror(status));
	else
		stream__written(u->s, n);
}

void stream_uv_write(struct stream *s, struct buf *bytes)
{
	struct stream_uv *u = s->impl;
	uv_buf_t b;

	CHECK(u->bytes.data == NULL);
	u->bytes = *bytes;
	buf_init(bytes);
	u->write.data = u;
	b = uv_buf_init((char *)u->bytes.data, (unsigned)u->bytes.len);
	/* an error shows at the next read: uv_write fails at once only for handles that are not
	 * connected */
	if (uv_write(&u->write, &u->h.any, &b, 1, on_written) != 0)
		log_debug(s->loop->env, "event=write_failed peer=%s", s->peer);
}

/* The kernel's part too: it takes more only when a third of its buffer is free, which on a slow
 * link looks as if nothing moved for long. */
size_t stream_uv_untaken(const struct stream *s)
{
	const struct stream_uv *u = s->impl;
	uv_os_fd_t fd;
	int kept = 0;

	if (uv_fileno((const uv_handle_t *)&u->h.any, &fd) != 0 || ioctl(fd, SIOCOUTQ, &kept) != 0)
		kept = 0;
	return uv_stream_get_write_queue_size(&u->h.any) + (size_t)kept;
}

void stream_uv_pause(struct stream *s, bool paused)
{
	struct stream_uv *u = s->impl;

	if (u->paused == paused)
		return;
	u->paused = paused;
	if (!s->connected || s->read_over)
		return;
	if (paused)
		uv_read_stop(&u->h.any);
	else
		uv_read_start(&u->h.any, on_alloc, on_read);
}

static void on_closed(uv_handle_t *h)
{
	struct stream_uv *u = h->data;

	buf_fini(&u->bytes);
	buf_fini(&u->last);
	stream__free(u->s);
	free(u);
}

static void close_now(struct stream_uv *u)
{
	if (u->closed)
		return;
	u->closed = true;
	loop_timer_stop(&u->linger);
	uv_close((uv_handle_t *)&u->h.any, on_closed);
}

static void on_linger(struct loop_timer *t)
{
	close_now(container_of(t, struct stream_uv, linger));
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
	struct stream_uv *u = req->data;

	if (u->closed)
		return;
	if (status != 0 || u->s->read_over)
		close_now(u);
	else
		loop_timer_start(u->s->loop, &u->linger, LINGER_MS, on_linger);
}

static void on_last_written(uv_write_t *req, int status)
{
	(void)req;
	(void)status;
}

/* What is queued still leaves (bounded by TCP_USER_TIMEOUT), then the handle goes. */
void stream_uv_close(struct stream *s)
{
	struct stream_uv *u = s->impl;
	uv_buf_t b;

	u->closing = true;
	u->shutdown.data = u;
	if (s->connected && s->out.len > 0) {
		u->last = s->out;
		buf_init(&s->out);
		b = uv_buf_init((char *)u->last.data, (unsigned)u->last.len);
		u->last_write.data = u;
		uv_write(&u->last_write, &u->h.any, &b, 1, on_last_written);
	}
	if (!s->connected || s->aborted || uv_shutdown(&u->shutdown, &u->h.any, on_shutdown) != 0)
		close_now(u);
	else if (u->paused && !s->read_over)
		uv_read_start(&u->h.any, on_alloc, on_read);
}

struct resolving {
	uv_getaddrinfo_t req;
	void (*done)(void *arg, const struct resolved *r);
	void *arg;
};

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
	struct resolving *g = container_of(req, struct resolving, req);
	struct resolved r = { .why = status < 0 ? uv_strerror(status) : "it has no address" };
	const struct addrinfo *ai;

	for (ai = list; ai != NULL && r.n < RESOLVED_MAX; ai = ai->ai_next) {
		int rc = -1;

		if (ai->ai_family == AF_INET)
			rc = uv_ip4_name(
				(const struct sockaddr_in *)ai->ai_addr, r.ip[r.n], RESOLVED_TEXT);
		else if (ai->ai_family == AF_INET6)
			rc = uv_ip6_name(
				(const struct sockaddr_in6 *)ai->ai_addr, r.ip[r.n], RESOLVED_TEXT);
		r.n += rc == 0;
	}
	uv_freeaddrinfo(list);
	g->done(g->arg, &r);
	free(g);
}

void stream_uv_resolve(struct loop *loop, const char *name,
	void (*done)(void *arg, const struct resolved *r), void *arg)
{
	static const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct resolving *g = mem_new(sizeof *g);
	int rc;

	g->done = done;
	g->arg = arg;
	rc = uv_getaddrinfo(loop_uv(loop), &g->req, on_resolved, name, NULL, &hints);
	if (rc != 0)
		on_resolved(&g->req, rc, NULL);
}
