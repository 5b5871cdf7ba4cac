#include "rpc/cli/link.h"
#include "rpc/base/check.h"
#include "rpc/base/tls_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { READ_CHUNK = 16384, PIN_LINE_MAX = 512 };

enum state { WAITING, CONNECTING, SHAKING, READY, FAILED };

/* One of the servers. */
struct link {
	char name[256], port[16], server[280];
	struct addrinfo *addresses, *at;
	enum state state;
	int fd;
	struct tls_conn *tls; /* NULL: plain */
	struct buf out;	      /* of the handshake, not sent yet */
	struct buf in;
	size_t in_at;
	bool eof;
	char why[160];
};

struct race {
	struct link *links[LINK_SERVERS_MAX];
	unsigned n;
	const struct link_trust *trust;
	struct tls *ctx;
};

uint64_t link_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void link_drop(struct link *l)
{
	tls_conn_free(l->tls);
	l->tls = NULL;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}

void link_close(struct link *l)
{
	if (l == NULL)
		return;
	link_drop(l);
	if (l->addresses != NULL)
		freeaddrinfo(l->addresses);
	buf_fini(&l->out);
	buf_fini(&l->in);
	free(l);
}

const char *link_server(const struct link *l)
{
	return l->server;
}

static void fail(struct link *l, const char *why)
{
	snprintf(l->why, sizeof l->why, "%s", why);
	link_drop(l);
	l->state = FAILED;
}

/* The next address of the name. */
static void dial(struct link *l)
{
	int one = 1, saved = ECONNREFUSED;

	for (; l->at != NULL; l->at = l->at->ai_next) {
		l->fd = socket(l->at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (l->fd < 0)
			continue;
		setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		if (connect(l->fd, l->at->ai_addr, l->at->ai_addrlen) == 0 ||
			errno == EINPROGRESS) {
			l->state = CONNECTING;
			return;
		}
		saved = errno;
		close(l->fd);
		l->fd = -1;
	}
	fail(l, strerror(saved));
}

static void begin(struct link *l)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	int r = getaddrinfo(l->name, l->port, &hints, &l->addresses);

	l->at = l->addresses;
	if (r != 0)
		fail(l, gai_strerror(r));
	else
		dial(l);
}

/* Pins. */

static void hex(const uint8_t *p, char out[2 * TLS_FINGERPRINT_LEN + 1])
{
	for (unsigned i = 0; i < TLS_FINGERPRINT_LEN; i++)
		snprintf(out + 2 * i, 3, "%02x", p[i]);
}

/* 1: known and equal; 0: not known; -1: another one. */
static int pin_look(const char *path, const char *server, const char *print)
{
	char line[PIN_LINE_MAX];
	FILE *f = fopen(path, "re");
	size_t n = strlen(server);
	int found = 0;

	if (f == NULL)
		return 0;
	while (fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, server, n) == 0 && line[n] == ' ') {
			line[strcspn(line, "\r\n")] = 0;
			found = strcmp(line + n + 1, print) == 0 ? 1 : -1;
		}
	fclose(f);
	return found;
}

static bool folders_make(const char *path)
{
	char copy[512];

	snprintf(copy, sizeof copy, "%s", path);
	for (char *c = copy + 1; (c = strchr(c, '/')) != NULL; c++) {
		*c = 0;
		if (mkdir(copy, 0700) != 0 && errno != EEXIST)
			return false;
		*c = '/';
	}
	return true;
}

static void pin_keep(const char *path, const char *server, const char *print)
{
	FILE *f = folders_make(path) ? fopen(path, "ae") : NULL;

	if (f != NULL)
		fprintf(f, "%s %s\n", server, print);
	if (f == NULL || fclose(f) != 0)
		fprintf(stderr, "xe: cannot remember the certificate of %s in %s: %s\n", server,
			path, strerror(errno));
}

static bool trusted(struct link *l, const struct link_trust *trust)
{
	uint8_t print[TLS_FINGERPRINT_LEN];
	char text[2 * TLS_FINGERPRINT_LEN + 1];
	int known;

	if (trust->cafile != NULL || trust->insecure)
		return true; /* the handshake has checked it; nobody wants to know */
	if (!tls_conn_fingerprint(l->tls, print)) {
		fail(l, "it shows no certificate");
		return false;
	}
	hex(print, text);
	known = trust->pins != NULL ? pin_look(trust->pins, l->server, text) : 0;
	if (known < 0) {
		snprintf(l->why, sizeof l->why,
			"its certificate is not the one seen before; if it was replaced, remove "
			"its "
			"line from %s",
			trust->pins);
		link_drop(l);
		l->state = FAILED;
		return false;
	}
	if (known == 0 && trust->pins != NULL)
		pin_keep(trust->pins, l->server, text);
	return true;
}

/* Handshake. */

static void flush(struct link *l)
{
	ssize_t n;

	tls_conn_drain(l->tls, &l->out);
	while (l->out.len > 0) {
		n = send(l->fd, l->out.data, l->out.len, MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			fail(l, strerror(errno));
			return;
		}
		buf_consume(&l->out, (size_t)n);
	}
}

static void shake(struct link *l, const struct link_trust *trust)
{
	uint8_t bytes[READ_CHUNK];
	const char *verdict;
	ssize_t n = recv(l->fd, bytes, sizeof bytes, 0);
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		n = 0;
	else if (n <= 0) {
		fail(l, n == 0 ? "it closed the connection" : strerror(errno));
		return;
	}
	r = tls_conn_feed(l->tls, bytes, (size_t)n, &l->in);
	flush(l);
	if (l->state != SHAKING)
		return;
	if (r != 0) {
		verdict = trust->cafile != NULL ? tls_conn_verdict(l->tls) : NULL;
		fail(l, verdict != NULL ? verdict : "the TLS handshake failed");
		return;
	}
	if (tls_conn_ready(l->tls) && l->out.len == 0 && trusted(l, trust))
		l->state = READY;
}

static void connected(struct race *race, struct link *l)
{
	socklen_t size = sizeof(int);
	int e = 0;

	getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &e, &size);
	if (e != 0) {
		close(l->fd);
		l->fd = -1;
		l->at = l->at->ai_next;
		if (l->at != NULL)
			dial(l);
		else
			fail(l, strerror(e));
		return;
	}
	if (race->ctx == NULL) {
		l->state = READY;
		return;
	}
	l->tls = tls_conn_new(race->ctx, false);
	if (race->trust->cafile != NULL)
		tls_conn_expect(l->tls, l->name);
	l->state = SHAKING;
	shake(l, race->trust);
}

/* The first that is ready; NULL: none in time. */
static struct link *run(struct race *race)
{
	uint64_t due = link_now_ms() + LINK_OPEN_MS, next = 0, now;
	unsigned begun = 0, alive;
	struct pollfd fds[LINK_SERVERS_MAX];
	int wait;

	while ((now = link_now_ms()) < due) {
		alive = 0;
		for (unsigned i = 0; i < begun; i++)
			alive += race->links[i]->state != FAILED;
		if (begun < race->n && (alive == 0 || now >= next)) {
			begin(race->links[begun++]);
			next = link_now_ms() + LINK_NEXT_MS;
			continue;
		}
		if (alive == 0)
			return NULL;
		for (unsigned i = 0; i < begun; i++) {
			struct link *l = race->links[i];

			fds[i] = (struct pollfd){ .fd = l->state == FAILED ? -1 : l->fd,
				.events = l->state == CONNECTING || l->out.len > 0 ? POLLOUT
										   : POLLIN };
		}
		wait = (int)((begun < race->n && next < due ? next : due) - now);
		if (poll(fds, begun, wait) < 0 && errno != EINTR)
			return NULL;
		for (unsigned i = 0; i < begun; i++) {
			struct link *l = race->links[i];

			if (fds[i].revents == 0 || l->state == FAILED)
				continue;
			if (l->state == CONNECTING)
				connected(race, l);
			else if (l->state == SHAKING)
				shake(l, race->trust);
			if (l->state == READY)
				return l;
		}
	}
	return NULL;
}

/* "name", "name:port", "[v6]:port" */
static struct link *link_of(const char *text, size_t n, unsigned port)
{
	struct link *l = mem_new(sizeof *l);
	const char *colon = memrchr(text, ':', n);
	size_t name = n;

	l->fd = -1;
	snprintf(l->port, sizeof l->port, "%u", port);
	if (n > 0 && text[0] == '[') {
		const char *end = memchr(text, ']', n);

		name = end != NULL ? (size_t)(end - text) - 1 : n - 1;
		if (end != NULL && end + 1 < text + n && end[1] == ':')
			snprintf(l->port, sizeof l->port, "%.*s", (int)(text + n - end - 2),
				end + 2);
		text++;
	} else if (colon != NULL && memchr(text, ':', (size_t)(colon - text)) == NULL) {
		name = (size_t)(colon - text);
		snprintf(l->port, sizeof l->port, "%.*s", (int)(n - name - 1), colon + 1);
	}
	snprintf(l->name, sizeof l->name, "%.*s", (int)name, text);
	snprintf(l->server, sizeof l->server, strchr(l->name, ':') != NULL ? "[%s]:%s" : "%s:%s",
		l->name, l->port);
	return l;
}

static void blocking(struct link *l)
{
	fcntl(l->fd, F_SETFL, fcntl(l->fd, F_GETFL) & ~O_NONBLOCK);
}

struct link *link_open(const char *servers, unsigned port, const struct link_trust *trust,
	char *why, size_t why_size)
{
	struct race race = { .trust = trust };
	struct link *won = NULL;
	size_t n;

	if (!trust->plain) {
		race.ctx = tls_client_new(trust->cafile);
		if (race.ctx == NULL) {
			snprintf(why, why_size, "%s: no certificates to be read", trust->cafile);
			return NULL;
		}
	}
	for (; *servers && race.n < LINK_SERVERS_MAX; servers += n + (servers[n] == ',')) {
		n = strcspn(servers, ",");
		if (n > 0)
			race.links[race.n++] = link_of(servers, n, port);
	}
	won = run(&race);
	why[0] = 0;
	for (unsigned i = 0; i < race.n; i++) {
		struct link *l = race.links[i];
		size_t at = strlen(why);

		if (l == won)
			continue;
		if (at < why_size)
			snprintf(why + at, why_size - at, "%s%s: %s", at > 0 ? "; " : "", l->server,
				l->state == FAILED ? l->why : "no answer");
		link_close(l);
	}
	if (won != NULL)
		blocking(won);
	tls_free(race.ctx); /* the connection holds its own reference */
	return won;
}

/* The connection. */

static bool send_all(struct link *l, const uint8_t *p, size_t n)
{
	ssize_t done;

	while (n > 0) {
		done = send(l->fd, p, n, MSG_NOSIGNAL);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return false;
		p += done;
		n -= (size_t)done;
	}
	return true;
}

bool link_write(struct link *l, const void *p, size_t n)
{
	bool ok;

	if (l->tls == NULL)
		return send_all(l, p, n);
	tls_conn_write(l->tls, p, n);
	tls_conn_drain(l->tls, &l->out);
	ok = send_all(l, l->out.data, l->out.len);
	l->out.len = 0;
	return ok;
}

static int take(struct link *l, void *p, size_t max)
{
	size_t n = l->in.len - l->in_at < max ? l->in.len - l->in_at : max;

	memcpy(p, l->in.data + l->in_at, n);
	l->in_at += n;
	if (l->in_at == l->in.len)
		l->in.len = l->in_at = 0;
	return (int)n;
}

int link_fd(const struct link *l)
{
	return l->fd;
}

bool link_has(const struct link *l)
{
	return l->in.len > l->in_at || l->eof;
}

int link_read(struct link *l, void *p, size_t max)
{
	uint8_t bytes[READ_CHUNK];
	ssize_t n;
	int r;

	while (l->in.len == l->in_at && !l->eof) {
		n = recv(l->fd, bytes, sizeof bytes, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0) {
			l->eof = true;
		} else if (l->tls == NULL) {
			buf_put(&l->in, bytes, (size_t)n);
		} else {
			r = tls_conn_feed(l->tls, bytes, (size_t)n, &l->in);
			if (r < 0)
				return -1;
			l->eof = r > 0;
		}
	}
	return l->in.len > l->in_at ? take(l, p, max) : 0;
}
