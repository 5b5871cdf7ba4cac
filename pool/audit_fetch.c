/* GET /audit_log?since=TIME: what all members have, oldest first. Source: http-handlers.md 9,
 * sessions.md 3.7.
 *
 *   own files --page--\
 *   POST /audit_log --page--> merge by time --> the client
 *   (each other member)
 *
 * A page is whole lines that follow a place, some of them. Nothing is held between two: the
 * place names the file by its inode, which a rotation does not change, and what has been deleted
 * meanwhile is passed over. So neither a slow client nor a long log costs memory or a connection
 * at the others. A member is believed by its certificate, and believes by the pool's proof. What
 * one cannot give is said by the last line, in the form of a line.
 */
#include "pool/pool_priv.h"
#include "rpc/client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	PAGE = 256 << 10, /* bytes of lines, and one read more */
	PAGES_MAX = 1024, /* of one member: four times what its files hold */
	READ = 64 << 10,
	SINCE_MAX = 32,
	ASK_MS = 10000,
	BUSY_MS = 200,	/* until a member that has too much to do is asked again */
	TIME_LEN = 22,	/* [20261129T08:17:19.000 */
	OUT = 32 << 10, /* to the client at a time */
};

#define UNREADABLE "its files cannot be read"

/* Files. */

struct place {
	uint64_t file; /* its inode; 0: the oldest */
	off_t at;
};

/* As text without - and Z; the first sign that is in no time ends it. */
static void since_of(const char *text, char out[SINCE_MAX])
{
	size_t n = 0;

	for (; text != NULL && *text != 0 && strchr("0123456789T:.-Z", *text) != NULL; text++)
		if (*text != '-' && *text != 'Z' && n + 1 < SINCE_MAX)
			out[n++] = *text;
	out[n] = 0;
}

static bool is_since(const char *line, size_t n, const char *since)
{
	size_t len = strlen(since), most = n < TIME_LEN ? n : TIME_LEN;
	int order;

	if (n == 0 || line[0] != '[')
		return false; /* none of ours */
	order = strncmp(line + 1, since, len < most - 1 ? len : most - 1);
	return order != 0 ? order > 0 : len < most;
}

/* The whole lines of what was read that are late enough; how many bytes those lines were. */
static size_t take_lines(const char *text, size_t n, const char *since, struct buf *out)
{
	const char *at = text, *end = text + n, *line_end;

	for (; (line_end = memchr(at, '\n', (size_t)(end - at))) != NULL; at = line_end + 1)
		if (is_since(at, (size_t)(line_end - at), since))
			buf_put(out, at, (size_t)(line_end - at) + 1);
	return (size_t)(at - text);
}

/* 1: the page is full; 0: nothing more is there; ERR_IO. */
static int read_file(int fd, off_t *at, const char *since, struct buf *out)
{
	char *text = mem_new(READ);
	size_t took = 0;
	ssize_t n;

	do {
		n = pread(fd, text, READ, *at);
		if (n <= 0)
			break;
		took = take_lines(text, (size_t)n, since, out);
		if (took == 0 && n == READ)
			took = READ; /* no line of ours: what a power cut left */
		*at += (off_t)took;
	} while (took > 0 && out->len < PAGE);
	free(text);
	return n < 0 ? ERR_IO : n > 0 && took > 0;
}

/* The next lines of this member; the place moves behind them. 1; 0: those were the last; ERR_IO. */
static int read_page(struct pool *pool, struct place *place, const char *since, struct buf *out)
{
	int fds[AUDIT_FILES], first = 0, rc = 0;
	struct stat st;

	audit_open_files(pool, fds);
	for (int i = 0; i < AUDIT_FILES; i++)
		if (fds[i] >= 0 && fstat(fds[i], &st) == 0 && st.st_ino == place->file)
			first = i;
	for (int i = first; i < AUDIT_FILES && rc == 0; i++) {
		if (fds[i] < 0 || fstat(fds[i], &st) != 0)
			continue;
		if (st.st_ino != place->file)
			*place = (struct place){ st.st_ino, 0 };
		rc = read_file(fds[i], &place->at, since, out);
	}
	for (int i = 0; i < AUDIT_FILES; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return rc;
}

/* A page for another member: a line with the place of the next one, or none; then the lines. */

struct page {
	struct call *call;
	struct loop_call posted;
	struct place place;
	char since[SINCE_MAX];
	struct buf out;
};

static void on_page(struct loop_call *posted)
{
	struct page *p = container_of(posted, struct page, posted);
	struct call *call = p->call;

	if (call->err.code == NULL && call->request != NULL) {
		rpc_reply(call->request, 200, "text/plain", NULL, p->out.data, p->out.len);
		call->request = NULL;
	}
	buf_fini(&p->out);
	free(p);
	service_end(call);
}

static void page_main(struct job *job, void *arg)
{
	struct page *p = arg;
	struct buf lines = { 0 };
	int rc = read_page(p->call->pool, &p->place, p->since, &lines);

	(void)job;
	if (rc == ERR_IO)
		err_set(&p->call->err, ERR_INTERNAL_ERROR, UNREADABLE, NULL);
	if (rc == 1)
		buf_printf(&p->out, "%" PRIu64 "/%lld", p->place.file, (long long)p->place.at);
	buf_puts(&p->out, "\n");
	buf_put(&p->out, lines.data, lines.len);
	buf_fini(&lines);
	loop_post(p->call->io->loop, &p->posted, on_page);
}

static bool place_parse(const char *text, struct place *out)
{
	long long at;

	return sscanf(text, "%" SCNu64 "/%lld", &out->file, &at) == 2 && (out->at = at) >= 0;
}

int audit_page_begin(struct call *call, struct err *err)
{
	const char *from = service_parameter(call, "from");
	struct page *p = mem_new(sizeof *p);

	call->worth_a_line = false; /* who wants it all has one */
	since_of(service_parameter(call, "since"), p->since);
	p->call = call;
	if (from != NULL && !place_parse(from, &p->place)) {
		free(p);
		return err_set(err, ERR_INTERNAL_ERROR, "from is not a place", NULL);
	}
	if (lane_submit(call->pool->api, "audit page", page_main, p, NULL) == 0)
		return CALL_PENDING;
	free(p);
	return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
}

/* The merge. */

struct source {
	const char *name; /* of the host */
	bool own;
	struct peer peer;
	struct place place; /* of the next page */
	struct buf text;
	size_t at;
	bool more; /* behind the text */
	unsigned pages;
};

struct merge {
	struct call *call;
	char since[SINCE_MAX], proof[DB_REF_MAX + 1];
	struct source *sources;
	unsigned n;
	struct buf out, missing; /* what comes last */
};

static void put_missing(struct merge *m, struct source *s, const char *why)
{
	struct pool *pool = m->call->pool;
	size_t n = strcspn(why, "\r\n");

	log_warn(pool->env, "event=audit_not_fetched host=%s why=\"%.*s\"", s->name, (int)n, why);
	audit_put_time(&m->missing, pool->env);
	buf_printf(&m->missing, "warn|%s|0 ||audit] more of its audit log is not here: %.*s\n",
		s->name, (int)n, why);
	s->more = false;
}

/* NULL, or why not. */
static const char *take_page(struct source *s, const struct rpc_answer *answer)
{
	const char *end = memchr(answer->body, '\n', answer->n);
	size_t n = end != NULL ? (size_t)(end - answer->body) : 0;

	if (answer->status != 200)
		return answer->body;
	if (end == NULL || (n > 0 && !place_parse(answer->body, &s->place)))
		return "its answer is none";
	buf_put(&s->text, end + 1, answer->n - n - 1);
	s->more = n > 0;
	return s->more && (s->text.len == 0 || ++s->pages > PAGES_MAX) ? "it does not end" : NULL;
}

/* One that has too much to do is asked again for some time. */
static int post(
	struct job *job, struct merge *m, struct source *s, struct arena *a, struct rpc_answer *out)
{
	const char *path = arena_printf(a, "/audit_log?from=%" PRIu64 "/%lld&since=%s",
		s->place.file, (long long)s->place.at, m->since);
	struct rpc_ask ask = { s->peer.address, path, m->proof, s->peer.certificate,
		PAGE + 2 * READ, ASK_MS };
	uint64_t until = env_now_ms(job->env) + ASK_MS;
	int rc;

	do {
		rc = rpc_post(job, m->call->pool->loops[0].loop, &ask, a, out);
		if (rc != 0 || out->status != 503)
			return rc;
		rc = job_sleep(job, BUSY_MS);
	} while (rc == 0 && env_now_ms(job->env) < until);
	return rc;
}

/* 0, ERR_DEAD. What else happens is said in the log. */
static int ask_page(struct job *job, struct merge *m, struct source *s)
{
	struct rpc_answer answer;
	struct arena a;
	const char *why;
	int rc;

	arena_init(&a);
	rc = post(job, m, s, &a, &answer);
	why = rc == 0 ? take_page(s, &answer) : answer.why;
	if (rc != ERR_DEAD && why != NULL)
		put_missing(m, s, why);
	arena_fini(&a);
	return rc == ERR_DEAD ? rc : 0;
}

static int fill(struct job *job, struct merge *m, struct source *s)
{
	int rc;

	s->text.len = s->at = 0;
	if (!s->more)
		return 0;
	if (!s->own)
		return ask_page(job, m, s);
	rc = read_page(m->call->pool, &s->place, m->since, &s->text);
	s->more = rc == 1;
	if (rc == ERR_IO)
		put_missing(m, s, UNREADABLE);
	return 0;
}

static int flush(struct job *job, struct merge *m, size_t from)
{
	int rc = 0;

	if (m->out.len > from) {
		rc = service_send(job, m->call, m->out.data, m->out.len, POOL_STALL_MS);
		m->out.len = 0;
	}
	return rc;
}

static const char *next_line(const struct source *s, size_t *n_out)
{
	const char *line = (const char *)s->text.data + s->at;

	*n_out = s->text.len - s->at;
	return line;
}

/* Of those that have a line, the one whose is the oldest; NULL: there is none. */
static struct source *oldest(const struct merge *m)
{
	struct source *found = NULL;
	const char *line, *best = NULL;
	size_t n, best_n = 0;

	for (unsigned i = 0; i < m->n; i++) {
		line = next_line(&m->sources[i], &n);
		n = n < TIME_LEN ? n : TIME_LEN;
		if (n == 0 || (found != NULL && memcmp(line, best, n < best_n ? n : best_n) >= 0))
			continue;
		found = &m->sources[i];
		best = line;
		best_n = n;
	}
	return found;
}

static int merge_all(struct job *job, struct merge *m)
{
	struct source *s;
	int rc = 0;

	for (unsigned i = 0; i < m->n && rc == 0; i++)
		rc = fill(job, m, &m->sources[i]);
	while (rc == 0 && (s = oldest(m)) != NULL) {
		size_t n, len;
		const char *line = next_line(s, &n), *end = memchr(line, '\n', n);

		len = end != NULL ? (size_t)(end - line) + 1 : n; /* a member of ours ends it */
		buf_put(&m->out, line, len);
		s->at += len;
		if (s->at == s->text.len)
			rc = fill(job, m, s);
		if (rc == 0)
			rc = flush(job, m, OUT);
	}
	buf_put(&m->out, m->missing.data, m->missing.len);
	return rc == 0 ? flush(job, m, 0) : rc;
}

/* This member and the others, in the order that the pool has them, which is the same at each: what
 * is of one second comes in that order. */
static void find_sources(struct merge *m, struct arena *a)
{
	struct pool *pool = m->call->pool;
	const struct db_row *host, *self;
	struct db_view view;
	struct db_cursor c;
	unsigned most = 1;
	bool known;

	db_view_pin(pool->db, &view);
	self = pool_self(pool, &view);
	known = session_proof(pool->env, &view, m->proof);
	for (c = db_rows(&view, MODEL_CLASS_host); db_next(&c) != NULL;)
		most++;
	m->sources = arena_alloc(a, most * sizeof *m->sources);
	c = db_rows(&view, MODEL_CLASS_host);
	while (known && (host = db_next(&c)) != NULL) {
		struct source *s = &m->sources[m->n];

		*s = (struct source){ .own = host == self, .more = true };
		if (!s->own && !peer_of(&view, host, &s->peer))
			continue;
		s->name = arena_strdup(a, *db_row_s(host, HOST_hostname)
						  ? db_row_s(host, HOST_hostname)
						  : db_row_s(host, HOST_uuid));
		m->n++;
	}
	if (m->n == 0) /* the pool's rows have not come here yet */
		m->sources[m->n++] = (struct source){ .name = "", .own = true, .more = true };
	db_view_unpin(&view);
}

void audit_fetch(struct job *job, void *arg)
{
	struct call *call = arg;
	struct merge m = { .call = call };
	int rc;

	since_of(call->since, m.since);
	find_sources(&m, &job->arena);
	rc = merge_all(job, &m);
	if (rc != 0)
		err_set(&call->err, ERR_INTERNAL_ERROR, err_rc_name(rc), NULL);
	for (unsigned i = 0; i < m.n; i++)
		buf_fini(&m.sources[i].text);
	buf_fini(&m.out);
	buf_fini(&m.missing);
	loop_post(call->io->loop, &call->posted, service_served);
}
