/* xe: the command line of a pool. It knows no command: it sends its arguments to a member and does
 * what that says, by the thin CLI protocol (thin.h). It reads and writes only files that the user
 * has named, and makes new ones only. */
#include "rpc/base/check.h"
#include "rpc/cli/options.h"
#include "rpc/cli/terminal.h"
#include "rpc/cli/thin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 64 << 10, HEAD_MAX = 16 << 10, HOPS_MAX = 3, NETWORK_EXIT = 2 };

static const char usage[] =
	"usage: xe COMMAND [NAME=VALUE ...] [options]\n"
	"\n"
	"  -s SERVER[,SERVER...]  members of the pool, any of them will do; default 127.0.0.1\n"
	"  -p PORT                default 443\n"
	"  -u USER -pw PASSWORD   or -pwf FILE: line 1 the user, line 2 the password\n"
	"  --minimal              values only, separated by commas\n"
	"  --cafile FILE          certificates to trust; without it the one seen first is "
	"remembered\n"
	"  --insecure             trust any certificate\n"
	"  --nossl                no TLS\n"
	"  --exit-codes           2 when no member could be reached (else 1 for any failure)\n"
	"  --debug, --traceparent VALUE, -version, --help\n"
	"\n"
	"Also from XE_SERVER, XE_PORT, XE_USER, XE_PASSWORD, XE_PASSWORD_FILE, XE_CAFILE, "
	"XE_INSECURE,\n"
	"XE_EXTRA_ARGS, and from ~/.xe (server=, port=, username=, password=, passwordfile=, "
	"cafile=).\n"
	"\n"
	"  xe help [--all | COMMAND]   what there is\n";

struct client {
	struct options o;
	struct link *link;
	struct buf in; /* received, not looked at */
};

static int lost(const struct client *c)
{
	fprintf(stderr, "Lost connection to the server.\n");
	return c->o.exit_codes ? NETWORK_EXIT : 1;
}

static void response(struct client *c, enum thin_kind kind, enum thin_tag tag, uint32_t number)
{
	struct buf out = { 0 };

	thin_put(&out, &(struct thin_frame){ .kind = kind, .tag = tag, .number = number });
	link_write(c->link, out.data, out.len);
	buf_fini(&out);
}

static void chunk(struct client *c, const void *p, size_t n)
{
	response(c, THIN_BLOB, THIN_CHUNK, (uint32_t)n);
	link_write(c->link, p, n);
}

/* Commands of the server. */

static void load(struct client *c, const char *file)
{
	int fd = options_names_file(&c->o, file) ? open(file, O_RDONLY | O_CLOEXEC) : -1;
	uint8_t piece[PIECE];
	struct stat st;
	ssize_t n = 0;
	off_t left;

	if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > INT32_MAX) {
		fprintf(stderr, "xe: cannot read %s: %s\n", file,
			fd < 0 ? (options_names_file(&c->o, file) ? strerror(errno)
								  : "you have not named it")
			       : "no regular file of at most 2 GiB");
		response(c, THIN_RESPONSE, THIN_FAILED, 0);
		if (fd >= 0)
			close(fd);
		return;
	}
	response(c, THIN_RESPONSE, THIN_OK, 0);
	response(c, THIN_BLOB, THIN_CHUNK, (uint32_t)st.st_size);
	for (left = st.st_size; left > 0; left -= n) {
		n = read(fd, piece, left < PIECE ? (size_t)left : PIECE);
		if (n <= 0) { /* it shrinks: the promise is kept with zeros */
			memset(piece, 0, sizeof piece);
			n = left < PIECE ? left : PIECE;
		}
		if (!link_write(c->link, piece, (size_t)n))
			break;
	}
	response(c, THIN_BLOB, THIN_END, 0);
	close(fd);
}

static void prompt(struct client *c)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n = getline(&line, &cap, stdin);

	chunk(c, line, n > 0 ? (size_t)n : 0);
	response(c, THIN_BLOB, THIN_END, 0);
	free(line);
}

/* A second connection, for a file. */

/* Status and the place that a redirection names; what follows the head goes into rest. */
static int head_read(struct link *l, struct buf *rest, char *location, size_t size)
{
	char *end = NULL, *at;
	int status, r;

	while (rest->len < HEAD_MAX && (end = strstr(buf_text(rest), "\r\n\r\n")) == NULL) {
		r = link_read(l, buf_room(rest, 4096), 4096);
		if (r <= 0)
			return -1;
		rest->len += (size_t)r;
	}
	if (end == NULL || sscanf(buf_text(rest), "HTTP/1.%*d %d", &status) != 1)
		return -1;
	*end = 0;
	at = strcasestr((char *)rest->data, "\r\nLocation:");
	*location = 0;
	if (at != NULL) {
		at += strlen("\r\nLocation:");
		at += strspn(at, " ");
		snprintf(location, size, "%.*s", (int)strcspn(at, "\r\n"), at);
	}
	buf_consume(rest, (size_t)(end + 4 - (char *)rest->data));
	return status;
}

/* "/path" at the same server, or "https://server/path". */
static struct link *url_open(struct client *c, const char *url, const char **path_out)
{
	char server[300], why[512];
	const char *from = url, *slash;

	snprintf(server, sizeof server, "%s", link_server(c->link));
	*path_out = url;
	if (strncmp(url, "https://", 8) == 0) {
		from = url + 8;
		slash = strchr(from, '/');
		snprintf(server, sizeof server, "%.*s",
			slash != NULL ? (int)(slash - from) : (int)strlen(from), from);
		*path_out = slash != NULL ? slash : "/";
	}
	return link_open(server, c->o.port, &c->o.trust, why, sizeof why);
}

static bool body_read(struct link *l, struct buf *first, int fd)
{
	uint8_t piece[PIECE];
	int n;

	if (first->len > 0 && write(fd, first->data, first->len) != (ssize_t)first->len)
		return false;
	while ((n = link_read(l, piece, sizeof piece)) > 0)
		if (write(fd, piece, (size_t)n) != n)
			return false;
	return n == 0;
}

static bool http_get_to(struct client *c, const char *url, int fd)
{
	char location[4096];
	struct buf text = { 0 }, rest = { 0 };
	const char *path;
	struct link *l;
	char *next = must(strdup(url));
	bool ok = false;

	for (int hop = 0, status = 302; hop <= HOPS_MAX && status == 302; hop++) {
		l = url_open(c, next, &path);
		if (l == NULL)
			break;
		text.len = rest.len = 0;
		buf_printf(&text, "GET %s HTTP/1.0\r\nUser-Agent: xe-cli/Unix/0.2\r\n\r\n", path);
		status = link_write(l, text.data, text.len)
				 ? head_read(l, &rest, location, sizeof location)
				 : -1;
		if (status == 200)
			ok = body_read(l, &rest, fd);
		else if (status != 302)
			fprintf(stderr, "xe: the server answered %d\n", status);
		link_close(l);
		free(next);
		next = must(strdup(location));
	}
	free(next);
	buf_fini(&text);
	buf_fini(&rest);
	return ok;
}

static void http_get(struct client *c, const char *file, const char *url)
{
	int fd = STDOUT_FILENO;
	bool ok;

	if (*file != 0 && !options_names_file(&c->o, file)) {
		fprintf(stderr, "xe: you have not named %s\n", file);
		response(c, THIN_RESPONSE, THIN_FAILED, 0);
		return;
	}
	if (*file != 0)
		fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		fprintf(stderr, "xe: %s: %s\n", file, strerror(errno));
		response(c, THIN_RESPONSE, THIN_FAILED, 0);
		return;
	}
	fflush(stdout);
	ok = http_get_to(c, url, fd);
	if (*file != 0) {
		ok = close(fd) == 0 && ok;
		if (!ok)
			unlink(file);
	}
	response(c, THIN_RESPONSE, ok ? THIN_OK : THIN_FAILED, 0);
}

static void http_put(struct client *c, const char *file, const char *url)
{
	int fd = options_names_file(&c->o, file) ? open(file, O_RDONLY | O_CLOEXEC) : -1,
	    status = 302;
	char location[4096];
	struct buf text = { 0 }, rest = { 0 };
	char *next = must(strdup(url));
	uint8_t piece[PIECE];
	const char *path;
	struct link *l;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		fprintf(stderr, "xe: cannot read %s\n", file);
		status = -1;
	}
	for (int hop = 0; hop <= HOPS_MAX && status == 302; hop++) {
		l = url_open(c, next, &path);
		if (l == NULL) {
			status = -1;
			break;
		}
		text.len = rest.len = 0;
		buf_printf(&text,
			"PUT %s HTTP/1.0\r\nUser-Agent: xe-cli/Unix/0.2\r\nContent-Length: "
			"%lld\r\n\r\n",
			path, (long long)st.st_size);
		link_write(l, text.data, text.len);
		lseek(fd, 0, SEEK_SET);
		while ((n = read(fd, piece, sizeof piece)) > 0 && link_write(l, piece, (size_t)n))
			;
		status = head_read(l, &rest, location, sizeof location);
		link_close(l);
		free(next);
		next = must(strdup(location));
	}
	if (status != 200 && status > 0)
		fprintf(stderr, "xe: the server answered %d\n", status);
	response(c, THIN_RESPONSE, status == 200 ? THIN_OK : THIN_FAILED, 0);
	if (fd >= 0)
		close(fd);
	free(next);
	buf_fini(&text);
	buf_fini(&rest);
}

static void still_there(void *arg)
{
	response(arg, THIN_RESPONSE, THIN_WAIT, 0);
}

static void http_connect(struct client *c, const char *url)
{
	struct buf text = { 0 }, rest = { 0 };
	char location[4096];
	const char *path;
	struct link *l = url_open(c, url, &path);
	int status = -1;
	bool ok = false;

	if (l != NULL) {
		buf_printf(
			&text, "CONNECT %s HTTP/1.0\r\nUser-Agent: xe-cli/Unix/0.2\r\n\r\n", path);
		if (link_write(l, text.data, text.len))
			status = head_read(l, &rest, location, sizeof location);
		fflush(stdout);
		if (status == 200)
			ok = terminal_run(l, &rest, still_there, c);
		else
			fprintf(stderr, "xe: the server answered %d\n", status);
		link_close(l);
	}
	response(c, THIN_RESPONSE, ok ? THIN_OK : THIN_FAILED, 0);
	buf_fini(&text);
	buf_fini(&rest);
}

static void error(const struct thin_frame *f)
{
	fprintf(stderr, "Error code: %s\nError parameters: ", f->text);
	for (unsigned i = 0; i < f->n; i++)
		fprintf(stderr, "%s%s", i > 0 ? ", " : "", f->list[i]);
	fputc('\n', stderr);
}

/* One command; >= 0: the exit code. */
static int obey(struct client *c, const struct thin_frame *f)
{
	if (f->kind != THIN_COMMAND)
		return lost(c);
	switch (f->tag) {
	case THIN_PRINT: puts(f->text); return -1;
	case THIN_PRINT_STDERR:
		fflush(stdout);
		fputs(f->text, stderr);
		return -1;
	case THIN_DEBUG:
		if (c->o.debug)
			fprintf(stderr, "%s\n", f->text);
		return -1;
	case THIN_ERROR:
		fflush(stdout);
		error(f);
		return -1;
	case THIN_EXIT:
		if (fflush(stdout) != 0)
			return 1;
		return (int)(f->number & 255);
	case THIN_LOAD: load(c, f->text); return -1;
	case THIN_PROMPT:
		fflush(stdout);
		prompt(c);
		return -1;
	case THIN_HTTP_GET: http_get(c, f->text, f->url); return -1;
	case THIN_HTTP_PUT: http_put(c, f->text, f->url); return -1;
	case THIN_HTTP_CONNECT: http_connect(c, f->url); return -1;
	default: return lost(c);
	}
}

static bool more(struct client *c)
{
	int n = link_read(c->link, buf_room(&c->in, PIECE), PIECE);

	if (n > 0)
		c->in.len += (size_t)n;
	return n > 0;
}

static int converse(struct client *c)
{
	struct buf out = { 0 };
	struct thin_frame f;
	size_t at = 0;
	int used, code = -1;

	while (c->in.len < THIN_GREETING_LEN)
		if (!more(c))
			return lost(c);
	if (thin_greeting(c->in.data) != 0) {
		fprintf(stderr, strncmp((char *)c->in.data, "HTTP", 4) == 0
					? "The server does not know this protocol.\n"
					: "Protocol mismatch with the server.\n");
		return 1;
	}
	thin_put_greeting(&out);
	link_write(c->link, out.data, out.len);
	buf_fini(&out);
	at = THIN_GREETING_LEN;
	while (code < 0) {
		used = thin_take(c->in.data + at, c->in.len - at, THIN_FRAME_MAX, &f);
		if (used < 0)
			return lost(c);
		if (used > 0) {
			code = obey(c, &f);
			at += (size_t)used;
			continue;
		}
		buf_consume(&c->in, at);
		at = 0;
		if (!more(c))
			return lost(c);
	}
	return code;
}

static void request(struct client *c)
{
	struct buf body = { 0 }, out = { 0 };

	for (unsigned i = 0; i < c->o.n_args; i++)
		buf_printf(&body, "%s\n", c->o.args[i]);
	buf_printf(&body, "username=%s\npassword=%s", c->o.user, c->o.password);
	buf_printf(&out,
		"POST /cli HTTP/1.0\r\nUser-agent: xe-cli/Unix/0.2\r\noriginator: cli\r\n"
		"Content-Length: %zu\r\n",
		body.len);
	if (c->o.traceparent != NULL)
		buf_printf(&out, "traceparent: %s\r\n", c->o.traceparent);
	buf_puts(&out, "\r\n");
	buf_put(&out, body.data, body.len);
	link_write(c->link, out.data, out.len);
	buf_fini(&body);
	buf_fini(&out);
}

int main(int argc, char **argv)
{
	static struct client c;
	char why[4096];
	int code;

	if (options_read(&c.o, argc, argv) != 0)
		return 1;
	if (c.o.version) {
		puts("ThinCLI protocol: 0.2");
		return 0;
	}
	if (c.o.help || c.o.n_args == 0) {
		fputs(usage, c.o.help ? stdout : stderr);
		return c.o.help ? 0 : 1;
	}
	if (c.o.password == NULL) {
		fprintf(stderr, "Username/password must be specified\n");
		return 1;
	}
	c.link = link_open(c.o.servers, c.o.port, &c.o.trust, why, sizeof why);
	if (c.link == NULL) {
		fprintf(stderr, "Error: no member could be reached: %s\n", why);
		return c.o.exit_codes ? NETWORK_EXIT : 1;
	}
	request(&c);
	code = converse(&c);
	link_close(c.link);
	buf_fini(&c.in);
	return code;
}
