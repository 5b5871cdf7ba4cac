/* xpool-load: the load generator of the benchmark. Keep-alive TLS connections, one JSON-RPC call in
 * flight on each, on one thread; speaks to the product by its wire alone and shares no code with
 * it.
 *
 * Each line of the body file is a template; request k uses line k modulo their number, and of the
 * references the next one each time all lines had their turn. In a template @REF@ stands for that
 * reference, @N@ for the number of the request (12 digits, so that all requests are of one length)
 * @TOKEN@ for the token of this client's last answer and @SESSION@ for its session: client k uses
 * line k of the sessions modulo their number.
 *
 * With @TOKEN@ it runs until a log index, read from standard input once it is known, has been
 * reached by the token of every client; else for a number of requests or of seconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

enum {
	CLIENTS_MAX = 1024,
	TARGETS_MAX = 16,
	HEAD_MAX = 4096,
	TAIL_KEEP = 16384, /* of a body: where the token is */
	READ_CHUNK = 65536,
	REQUEST_MAX = 16384,
	EVENTS_MAX = 256,
	STALL_S = 60, /* no answer at all for so long: give up */
};

static const char usage[] =
	"usage: xpool-load --to IP:PORT[,IP:PORT...] --body FILE [options]\n"
	"Sends JSON-RPC calls and prints one line of JSON: what was answered, how fast.\n"
	"\n"
	"  --clients N     connections, spread over the addresses; default 1\n"
	"  --requests N    stop after N answers\n"
	"  --seconds S     stop after S seconds\n"
	"  --warm S        seconds before the measurement begins; default 0\n"
	"  --every-ms N    each client sends at most one request in N ms\n"
	"  --refs FILE     references for @REF@, one a line\n"
	"  --sessions FILE sessions for @SESSION@, one a line\n"
	"  --header TEXT   a further header\n"
	"  --token TEXT    for the first @TOKEN@ of each client\n";

struct list {
	char **items;
	size_t n;
};

struct client {
	int fd;
	SSL *ssl;
	uint64_t sent_us, due_us;
	bool waiting; /* for an answer */
	char head[HEAD_MAX];
	size_t n_head;
	bool in_body, failed;
	bool chunked, last;  /* in chunks; the last one is behind us */
	char line[32];	     /* size of a chunk */
	size_t left, n_tail; /* of the body, or of the chunk; kept of it */
	size_t n_line;
	char tail[2 * TAIL_KEEP];
	char token[64];
};

struct load {
	struct list targets, bodies, refs, sessions;
	const char *header, *token;
	unsigned n_clients, every_ms;
	uint64_t requests, warm_us, length_us;
	bool follows; /* tokens */
	struct client *clients;
	SSL_CTX *ctx;
	int epoll;
	uint64_t sent, answered, failed, broken, bytes;
	uint64_t started_us, measured_us, last_us, begun_bytes;
	uint32_t *times; /* microseconds, one per answer */
	size_t n_times, cap_times;
	uint64_t index, reached_us;
	char failure[512];
};

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
	va_list ap;

	fputs("xpool-load: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static void *grown(void *p, size_t n)
{
	p = realloc(p, n);
	if (p == NULL)
		die("out of memory");
	return p;
}

static void list_add(struct list *l, const char *text, size_t n)
{
	if ((l->n & (l->n - 1)) == 0)
		l->items = grown(l->items, (l->n ? 2 * l->n : 1) * sizeof *l->items);
	l->items[l->n] = grown(NULL, n + 1);
	memcpy(l->items[l->n], text, n);
	l->items[l->n++][n] = 0;
}

static void list_split(struct list *l, const char *text, char at)
{
	while (*text) {
		const char *end = strchrnul(text, at);

		if (end > text)
			list_add(l, text, (size_t)(end - text));
		text = *end ? end + 1 : end;
	}
}

static void list_read(struct list *l, const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t cap = 0;

	if (f == NULL)
		die("%s: %s", path, strerror(errno));
	if (getdelim(&text, &cap, 0, f) < 0)
		die("%s: empty", path);
	list_split(l, text, '\n');
	free(text);
	fclose(f);
}

/* Requests. */

static void put(char *out, size_t *n, const char *text, size_t len)
{
	if (*n + len > REQUEST_MAX)
		die("a request is longer than %d bytes", REQUEST_MAX);
	memcpy(out + *n, text, len);
	*n += len;
}

/* The template with its places filled; number: of the request. */
static size_t fill(const struct load *l, const struct client *c, uint64_t number, char *out)
{
	const char *at = l->bodies.items[number % l->bodies.n], *mark;
	const char *ref = l->refs.n > 0 ? l->refs.items[number / l->bodies.n % l->refs.n] : "";
	char digits[24];
	size_t n = 0;

	while ((mark = strchr(at, '@')) != NULL) {
		put(out, &n, at, (size_t)(mark - at));
		if (strncmp(mark, "@REF@", 5) == 0) {
			put(out, &n, ref, strlen(ref));
			at = mark + 5;
		} else if (strncmp(mark, "@N@", 3) == 0) {
			snprintf(digits, sizeof digits, "%012" PRIu64, number);
			put(out, &n, digits, strlen(digits));
			at = mark + 3;
		} else if (strncmp(mark, "@TOKEN@", 7) == 0) {
			put(out, &n, c->token, strlen(c->token));
			at = mark + 7;
		} else if (strncmp(mark, "@SESSION@", 9) == 0 && l->sessions.n > 0) {
			const char *s = l->sessions.items[(size_t)(c - l->clients) % l->sessions.n];

			put(out, &n, s, strlen(s));
			at = mark + 9;
		} else {
			put(out, &n, mark, 1);
			at = mark + 1;
		}
	}
	put(out, &n, at, strlen(at));
	return n;
}

static void end_client(struct load *l, struct client *c, int why)
{
	if (l->broken++ == 0)
		snprintf(l->failure, sizeof l->failure, "connection: %d %s %s", why,
			why == SSL_ERROR_SYSCALL ? strerror(errno) : "",
			ERR_peek_error() != 0 ? ERR_reason_error_string(ERR_peek_error()) : "");
	close(c->fd);
	c->fd = -1;
	c->waiting = false;
}

/* A request is smaller than the socket's buffer and the last one has been answered: the write is
 * expected to fit, and waits when it does not. */
static void send_all(struct load *l, struct client *c, const char *p, size_t n)
{
	while (n > 0) {
		int r = SSL_write(c->ssl, p, (int)n);
		struct pollfd w = { .fd = c->fd, .events = POLLOUT };

		if (r > 0) {
			p += r;
			n -= (size_t)r;
		} else if (SSL_get_error(c->ssl, r) == SSL_ERROR_WANT_WRITE) {
			poll(&w, 1, 1000);
		} else {
			end_client(l, c, SSL_get_error(c->ssl, r));
			return;
		}
	}
}

static bool enough_sent(const struct load *l)
{
	return l->requests > 0 && l->sent >= l->requests;
}

static void send_request(struct load *l, struct client *c)
{
	char body[REQUEST_MAX], request[REQUEST_MAX + HEAD_MAX];
	size_t n;
	int head;

	if (enough_sent(l) || c->fd < 0)
		return;
	n = fill(l, c, l->sent++, body);
	head = snprintf(request, HEAD_MAX,
		"POST /jsonrpc HTTP/1.1\r\nHost: xpool\r\nContent-Type: application/json\r\n"
		"%s%sContent-Length: %zu\r\n\r\n",
		l->header != NULL ? l->header : "", l->header != NULL ? "\r\n" : "", n);
	if (head < 0 || head >= HEAD_MAX)
		die("the header is too long");
	memcpy(request + head, body, n);
	c->n_head = c->n_tail = 0;
	c->in_body = c->failed = false;
	c->waiting = true;
	c->sent_us = now_us();
	c->due_us = c->sent_us + (uint64_t)l->every_ms * 1000;
	send_all(l, c, request, (size_t)head + n);
}

/* Answers. */

static void take_token(struct client *c)
{
	static const char name[] = "\"token\":\"";
	const char *at = NULL, *from = c->tail, *end;

	while ((from = memmem(from, c->n_tail - (size_t)(from - c->tail), name, sizeof name - 1)) !=
		NULL)
		at = from += sizeof name - 1;
	if (at == NULL)
		return;
	end = memchr(at, '"', c->n_tail - (size_t)(at - c->tail));
	if (end != NULL && (size_t)(end - at) < sizeof c->token) {
		memcpy(c->token, at, (size_t)(end - at));
		c->token[end - at] = 0;
	}
}

/* Tokens begin with epoch * 10^16 + index. */
static uint64_t token_index(const struct client *c)
{
	return strtoull(c->token, NULL, 10) % UINT64_C(10000000000000000);
}

static void note_time(struct load *l, uint64_t us)
{
	if (l->n_times == l->cap_times) {
		l->cap_times = l->cap_times ? 2 * l->cap_times : 65536;
		l->times = grown(l->times, l->cap_times * sizeof *l->times);
	}
	l->times[l->n_times++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void note_failure(struct load *l, const struct client *c)
{
	l->failed++;
	if (l->failure[0] == 0)
		snprintf(l->failure, sizeof l->failure, "%.*s",
			(int)(c->n_tail < 400 ? c->n_tail : 400), c->tail);
}

static void on_answer(struct load *l, struct client *c)
{
	l->last_us = now_us();
	c->waiting = false;
	if (c->failed)
		note_failure(l, c);
	if (l->measured_us != 0) {
		l->answered++;
		note_time(l, l->last_us - c->sent_us);
	}
	if (l->follows)
		take_token(c);
	if (l->every_ms == 0)
		send_request(l, c);
}

/* The head is whole: how long is the body, and is it a good answer? */
static void read_head(struct load *l, struct client *c, const char *end)
{
	const char *length = strcasestr(c->head, "\r\ncontent-length:");
	const char *chunks = strcasestr(c->head, "\r\ntransfer-encoding: chunked\r\n");

	c->chunked = chunks != NULL && chunks < end;
	c->last = false;
	c->n_line = 0;
	if (!c->chunked && (length == NULL || length > end))
		die("an answer without Content-Length: %.100s", c->head);
	c->left = c->chunked ? 0 : strtoull(length + 17, NULL, 10);
	c->failed = strncmp(c->head, "HTTP/1.1 200 ", 13) != 0;
	c->in_body = true;
	(void)l;
}

static void take_body(struct client *c, const char *p, size_t n)
{
	static const char good[] = "{\"jsonrpc\":\"2.0\",\"result\":";

	c->left -= n;
	while (n > 0) {
		size_t room = sizeof c->tail - c->n_tail, k = n < room ? n : room;

		memcpy(c->tail + c->n_tail, p, k);
		c->n_tail += k;
		p += k;
		n -= k;
		if (c->n_tail < sizeof c->tail)
			break;
		memmove(c->tail, c->tail + sizeof c->tail - TAIL_KEEP, TAIL_KEEP);
		c->n_tail = TAIL_KEEP;
	}
	/* looked at as soon as it is there, and only while the beginning is still kept */
	if (c->n_tail >= sizeof good - 1 && c->n_tail < TAIL_KEEP &&
		strncmp(c->tail, good, sizeof good - 1) != 0)
		c->failed = true;
}

/* A line between chunks: the end of the one before, or the size of the next; how many bytes. */
static size_t take_line(struct client *c, const char *p, size_t n)
{
	const char *end = memchr(p, '\n', n);
	size_t k = end != NULL ? (size_t)(end + 1 - p) : n;

	if (c->n_line + k >= sizeof c->line)
		die("no size of a chunk: %.30s", p);
	memcpy(c->line + c->n_line, p, k);
	c->n_line += k;
	if (end == NULL)
		return k;
	c->line[c->n_line] = 0;
	c->n_line = 0;
	if (c->last)
		c->chunked = false;
	else if (c->line[0] != '\r') {
		c->left = strtoull(c->line, NULL, 16);
		c->last = c->left == 0;
	}
	return k;
}

/* One client's bytes; p is NUL-terminated. */
static void take(struct load *l, struct client *c, const char *p, size_t n)
{
	l->bytes += n;
	while (n > 0 && c->fd >= 0) {
		size_t k = n;

		if (!c->in_body) {
			size_t had = c->n_head;
			char *end;

			if (had + k >= HEAD_MAX)
				k = HEAD_MAX - 1 - had;
			memcpy(c->head + had, p, k);
			c->head[c->n_head = had + k] = 0;
			end = strstr(c->head, "\r\n\r\n");
			if (end == NULL && c->n_head == HEAD_MAX - 1)
				die("the head of an answer is too long");
			if (end == NULL)
				return;
			k = (size_t)(end + 4 - c->head) - had;
			read_head(l, c, end);
		} else if (c->chunked && c->left == 0) {
			k = take_line(c, p, n);
		} else {
			if (k > c->left)
				k = c->left;
			take_body(c, p, k);
		}
		p += k;
		n -= k;
		if (c->in_body && c->left == 0 && !c->chunked)
			on_answer(l, c);
	}
}

static void on_readable(struct load *l, struct client *c)
{
	static char chunk[READ_CHUNK + 1];
	int r = 0, why;

	while (c->fd >= 0 && (r = SSL_read(c->ssl, chunk, READ_CHUNK)) > 0) {
		chunk[r] = 0;
		take(l, c, chunk, (size_t)r);
	}
	why = c->fd >= 0 ? SSL_get_error(c->ssl, r) : SSL_ERROR_WANT_READ;
	if (why != SSL_ERROR_WANT_READ)
		end_client(l, c, why);
}

/* Running. */

static void connect_client(struct load *l, unsigned i)
{
	struct client *c = &l->clients[i];
	struct sockaddr_in a = { .sin_family = AF_INET };
	char *target = strdup(l->targets.items[i % l->targets.n]), *colon = strrchr(target, ':');
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = i };
	int on = 1;

	if (colon == NULL)
		die("%s: not IP:PORT", target);
	*colon = 0;
	a.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, target, &a.sin_addr) != 1)
		die("%s: not an IPv4 address", target);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof a) != 0)
		die("%s: %s", l->targets.items[i % l->targets.n], strerror(errno));
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	c->ssl = SSL_new(l->ctx);
	if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1 || SSL_connect(c->ssl) != 1)
		die("%s: no TLS", l->targets.items[i % l->targets.n]);
	fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &e) != 0)
		die("epoll: %s", strerror(errno));
	free(target);
}

static void open_all(struct load *l)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = UINT32_MAX };

	l->ctx = SSL_CTX_new(TLS_client_method());
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (l->ctx == NULL || l->epoll < 0)
		die("no TLS or no epoll");
	SSL_CTX_set_mode(l->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE);
	SSL_CTX_set_session_cache_mode(l->ctx, SSL_SESS_CACHE_OFF);
	l->clients = grown(NULL, l->n_clients * sizeof *l->clients);
	memset(l->clients, 0, l->n_clients * sizeof *l->clients);
	for (unsigned i = 0; i < l->n_clients; i++) {
		connect_client(l, i);
		snprintf(l->clients[i].token, sizeof l->clients[i].token, "%s", l->token);
	}
	if (l->follows && epoll_ctl(l->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &e) != 0)
		die("standard input: %s", strerror(errno));
}

/* The index that all are to reach, once. */
static void read_index(struct load *l)
{
	char line[64];
	ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);

	if (n <= 0)
		die("standard input ended before the index came");
	line[n] = 0;
	l->index = strtoull(line, NULL, 10);
	epoll_ctl(l->epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
}

static bool all_reached(const struct load *l)
{
	if (l->index == 0)
		return false;
	for (unsigned i = 0; i < l->n_clients; i++)
		if (l->clients[i].fd >= 0 && token_index(&l->clients[i]) < l->index)
			return false;
	return true;
}

static bool over(struct load *l, uint64_t now)
{
	if (l->measured_us == 0 && now - l->started_us >= l->warm_us) {
		l->measured_us = now;
		l->begun_bytes = l->bytes;
	}
	if (l->broken == l->n_clients)
		return true;
	if (!l->follows && now - l->last_us > (uint64_t)STALL_S * 1000000)
		die("no answer for %d s", STALL_S);
	if (l->follows)
		return all_reached(l);
	if (l->requests > 0)
		return l->answered >= l->requests - l->broken;
	return l->measured_us != 0 && now - l->measured_us >= l->length_us;
}

/* Whoever may send again; milliseconds until the next one may. */
static int send_due(struct load *l, uint64_t now)
{
	uint64_t next = now + 100000;

	for (unsigned i = 0; i < l->n_clients && l->every_ms > 0; i++) {
		struct client *c = &l->clients[i];

		if (!c->waiting && c->due_us <= now)
			send_request(l, c);
		if (!c->waiting && c->fd >= 0 && c->due_us < next)
			next = c->due_us;
	}
	return next <= now ? 0 : (int)((next - now + 999) / 1000);
}

static void run(struct load *l)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t now = now_us();

	l->started_us = l->last_us = now;
	over(l, now);
	for (unsigned i = 0; i < l->n_clients; i++)
		send_request(l, &l->clients[i]);
	while (!over(l, now)) {
		int n = epoll_wait(l->epoll, events, EVENTS_MAX, send_due(l, now));

		for (int i = 0; i < n; i++) {
			if (events[i].data.u32 == UINT32_MAX)
				read_index(l);
			else
				on_readable(l, &l->clients[events[i].data.u32]);
		}
		now = now_us();
	}
	l->reached_us = now;
}

/* The report. */

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static uint32_t percentile(const struct load *l, double part)
{
	return l->n_times > 0 ? l->times[(size_t)(part * (double)(l->n_times - 1))] : 0;
}

static void print_text(const char *text)
{
	putchar('"');
	for (; *text; text++)
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else
			putchar((unsigned char)*text < ' ' ? ' ' : *text);
	putchar('"');
}

static void report(struct load *l)
{
	double seconds = (double)(l->reached_us - l->measured_us) / 1e6;

	qsort(l->times, l->n_times, sizeof *l->times, by_size);
	printf("{\"answers\": %" PRIu64 ", \"seconds\": %.6f, \"per_s\": %.1f, \"failed\": %" PRIu64
	       ", \"broken\": %" PRIu64 ", \"bytes\": %" PRIu64
	       ", \"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u, \"ended_us\": %" PRIu64
	       ", \"failure\": ",
		l->answered, seconds, seconds > 0 ? (double)l->answered / seconds : 0, l->failed,
		l->broken, l->bytes - l->begun_bytes, percentile(l, 0.5), percentile(l, 0.99),
		percentile(l, 1), l->reached_us);
	print_text(l->failure);
	puts("}");
}

static uint64_t microseconds(const char *text)
{
	return (uint64_t)(atof(text) * 1e6);
}

static bool parse(int argc, char **argv, struct load *l)
{
	static const struct option longs[] = { { "to", 1, NULL, 't' }, { "body", 1, NULL, 'b' },
		{ "clients", 1, NULL, 'c' }, { "requests", 1, NULL, 'n' },
		{ "seconds", 1, NULL, 's' }, { "warm", 1, NULL, 'w' }, { "every-ms", 1, NULL, 'e' },
		{ "refs", 1, NULL, 'r' }, { "header", 1, NULL, 'x' }, { "token", 1, NULL, 'k' },
		{ "sessions", 1, NULL, 'i' }, { NULL, 0, NULL, 0 } };
	int c;

	l->n_clients = 1;
	l->token = "";
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 't': list_split(&l->targets, optarg, ','); break;
		case 'b': list_read(&l->bodies, optarg); break;
		case 'c': l->n_clients = (unsigned)atoi(optarg); break;
		case 'n': l->requests = strtoull(optarg, NULL, 10); break;
		case 's': l->length_us = microseconds(optarg); break;
		case 'w': l->warm_us = microseconds(optarg); break;
		case 'e': l->every_ms = (unsigned)atoi(optarg); break;
		case 'r': list_read(&l->refs, optarg); break;
		case 'i': list_read(&l->sessions, optarg); break;
		case 'x': l->header = optarg; break;
		case 'k': l->token = optarg; break;
		default: return false;
		}
	}
	for (size_t i = 0; i < l->bodies.n; i++)
		l->follows |= strstr(l->bodies.items[i], "@TOKEN@") != NULL;
	return l->targets.n > 0 && l->targets.n <= TARGETS_MAX && l->bodies.n > 0 &&
	       l->n_clients > 0 && l->n_clients <= CLIENTS_MAX && optind == argc &&
	       (l->follows || l->requests > 0 || l->length_us > 0);
}

int main(int argc, char **argv)
{
	static struct load l;

	if (!parse(argc, argv, &l)) {
		fputs(usage, stderr);
		return 2;
	}
	open_all(&l);
	run(&l);
	report(&l);
	return 0;
}
