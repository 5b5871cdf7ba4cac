/* Logins that were refused here: counted by who and where from, told once an hour by one alert,
 * FAILED_LOGIN_ATTEMPTS, which names the worst. sessions.md 2.1.
 *
 *   login (any loop): counted -> timer, an hour after the first: a job -> one entry -> what it has
 *     told is taken off
 *
 * Beyond CLIENTS_MAX only their number is known. A member that cannot write, or dies, keeps the
 * entries of its log and audit log, which have each of them.
 */
#include "pool/pool_priv.h"

#include "rpc/wire/codec.h"

#include <stdlib.h>
#include <string.h>

enum {
	CLIENTS_MAX = 64,
	NAMED = 3,
	NAME_MAX_BYTES = 128,
	LOOK_MS = 1000,
	TELL_S = 3600,
};

struct client {
	char user[NAME_MAX_BYTES], originator[NAME_MAX_BYTES], address[64];
	uint64_t n;
	int64_t last_s; /* wall clock, for people */
};

struct failures {
	struct client clients[CLIENTS_MAX];
	unsigned n;
	uint64_t total;
};

struct login_failures {
	struct pool *pool;
	struct loop_timer timer;
	_Atomic bool telling;
	pthread_mutex_t mutex; /* of these */
	struct failures seen;
	uint64_t since_ms; /* the first of them; 0: none */
};

static void copy(char *out, size_t size, const char *text)
{
	size_t n = strlen(text);

	if (n >= size)
		for (n = size - 1; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80;)
			n--; /* whole characters */
	memcpy(out, text, n);
	out[n] = 0;
}

void login_failed(struct pool *pool, const char *user, const char *originator, const char *address)
{
	struct login_failures *l = pool->login_failures;
	struct client c = { .n = 1, .last_s = env_wall_s(pool->env) }, *at;
	unsigned i = 0;

	copy(c.user, sizeof c.user, user);
	copy(c.originator, sizeof c.originator, originator);
	copy(c.address, sizeof c.address, address);
	pthread_mutex_lock(&l->mutex);
	if (l->since_ms == 0)
		l->since_ms = env_now_ms(pool->env);
	l->seen.total++;
	for (; i < l->seen.n; i++) {
		at = &l->seen.clients[i];
		if (strcmp(at->user, c.user) == 0 && strcmp(at->originator, c.originator) == 0 &&
			strcmp(at->address, c.address) == 0)
			break;
	}
	if (i < l->seen.n) {
		l->seen.clients[i].n++;
		l->seen.clients[i].last_s = c.last_s;
	} else if (i < CLIENTS_MAX) {
		l->seen.clients[l->seen.n++] = c;
	}
	pthread_mutex_unlock(&l->mutex);
}

/* The alert. */

static int worse(const void *pa, const void *pb)
{
	const struct client *a = pa, *b = pb;

	return a->n != b->n ? (a->n > b->n ? -1 : 1) : strcmp(a->user, b->user);
}

static void put_element(struct buf *b, const char *name, const char *text)
{
	buf_printf(b, "<%s>", name);
	rpc_xml_text(b, text);
	buf_printf(b, "</%s>\n", name);
}

static void put_body(struct buf *b, struct failures *f)
{
	char date[32];
	uint64_t others = f->total;

	qsort(f->clients, f->n, sizeof *f->clients, worse);
	buf_printf(b, "<body>\n<total>%llu</total>\n", (unsigned long long)f->total);
	for (unsigned i = 0; i < f->n && i < NAMED; i++) {
		const struct client *c = &f->clients[i];

		val_datetime_print(c->last_s, date);
		buf_puts(b, "<known>\n");
		put_element(b, "username", c->user);
		put_element(b, "originator", c->originator);
		put_element(b, "ip", c->address);
		buf_printf(b, "<number>%llu</number>\n", (unsigned long long)c->n);
		put_element(b, "date", date);
		buf_puts(b, "</known>\n");
		others -= c->n;
	}
	buf_printf(b, "<unknown>%llu</unknown>\n</body>\n", (unsigned long long)others);
}

struct alert {
	struct pool *pool;
	const char *body;
};

static void build_alert(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct alert *a = arg;
	char ref[DB_REF_MAX + 1];

	message_put(a->pool, view, txn,
		&(struct message){
			"FAILED_LOGIN_ATTEMPTS", 3, "Host", a->pool->host_uuid, a->body },
		ref);
}

/* Those that were told of; there may be more by now. */
static void take_off(struct failures *seen, const struct failures *told)
{
	unsigned kept = 0;

	seen->total -= told->total;
	for (unsigned i = 0; i < seen->n; i++) {
		if (i < told->n) /* before it was sorted: in order of their coming */
			seen->clients[i].n -= told->clients[i].n;
		if (seen->clients[i].n > 0)
			seen->clients[kept++] = seen->clients[i];
	}
	seen->n = kept;
}

static void tell_main(struct job *job, void *arg)
{
	struct login_failures *l = arg;
	struct failures *told = arena_alloc(&job->arena, sizeof *told),
			*sorted = arena_alloc(&job->arena, sizeof *sorted);
	struct alert a = { .pool = l->pool };
	struct buf body = { 0 };
	int rc;

	pthread_mutex_lock(&l->mutex);
	*told = *sorted = l->seen;
	pthread_mutex_unlock(&l->mutex);
	put_body(&body, sorted);
	a.body = arena_strdup(&job->arena, buf_text(&body));
	buf_fini(&body);
	rc = commit_once(job, l->pool,
		&(struct commit){ DB_FOR_FACTS, { POOL_HOST, "", "login" }, build_alert, &a });
	pthread_mutex_lock(&l->mutex);
	if (rc == 0)
		take_off(&l->seen, told);
	l->since_ms = l->seen.total > 0 ? env_now_ms(l->pool->env) : 0; /* again in an hour */
	pthread_mutex_unlock(&l->mutex);
	l->telling = false;
}

static bool is_due(struct login_failures *l)
{
	struct db_view view;
	struct arena a;
	uint64_t since;
	int64_t tell_s;

	pthread_mutex_lock(&l->mutex);
	since = l->since_ms;
	pthread_mutex_unlock(&l->mutex);
	if (since == 0)
		return false;
	arena_init(&a);
	db_view_pin(l->pool->db, &view);
	tell_s = pool_number(&view, &a, "xpool-failed-logins-interval", TELL_S, TELL_S);
	db_view_unpin(&view);
	arena_fini(&a);
	return env_now_ms(l->pool->env) >= since + 1000 * (uint64_t)tell_s;
}

static void on_look(struct loop_timer *t)
{
	struct login_failures *l = container_of(t, struct login_failures, timer);

	loop_timer_start(l->pool->loops[0].loop, t, LOOK_MS, on_look);
	if (l->telling || !is_due(l))
		return;
	l->telling = true;
	if (lane_submit(l->pool->api, "", tell_main, l, NULL) != 0)
		l->telling = false; /* at the next look */
}

void login_failures_init(struct pool *pool)
{
	struct login_failures *l = pool->login_failures = mem_new(sizeof *l);

	l->pool = pool;
	pthread_mutex_init(&l->mutex, NULL);
}

void login_failures_start(struct pool *pool)
{
	loop_timer_start(pool->loops[0].loop, &pool->login_failures->timer, LOOK_MS, on_look);
}
