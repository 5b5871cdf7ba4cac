/* The control socket: one word in, lines out. For `xpoolctl` on the same machine; works without a
 * pool. */
#include "pool/pool_priv.h"
#include "rpc/base/stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_status(struct pool *pool, struct buf *out)
{
	struct db_stat s;
	struct db_view view;
	const struct db_row *self, *vm;
	struct db_cursor c;
	unsigned domains = 0;
	bool ready;

	db_stat(pool->db, &s);
	db_view_pin(pool->db, &view);
	self = pool_self(pool, &view);
	c = db_rows(&view, MODEL_CLASS_VM);
	while (self != NULL && (vm = db_next(&c)) != NULL)
		domains += strcmp(db_row_s(vm, VM_resident_on), db_row_ref(self)) == 0;
	ready = self != NULL && s.leader != 0;
	buf_printf(out,
		"role=%s term=%llu leader=%llu applied=%llu hash=%016llx domains=%u ready=%s\n",
		consensus_role_name(s.role), (unsigned long long)s.term,
		(unsigned long long)s.leader, (unsigned long long)db_view_index(&view),
		(unsigned long long)db_view_hash(&view), domains, ready ? "yes" : "no");
	db_view_unpin(&view);
}

static void put_counters(struct pool *pool, struct buf *out)
{
	for (unsigned i = 0; i < COUNTER_COUNT; i++)
		buf_printf(out, "%-24s %12llu  %s\n", counter_names[i],
			(unsigned long long)counter_get(&pool->env->counters, i), counter_help[i]);
}

static void put_check(struct pool *pool, struct buf *out)
{
	char why[256];

	if (db_check(pool->db, why, sizeof why))
		buf_puts(out, "sound\n");
	else
		buf_printf(out, "broken: %s\n", why);
}

static void on_command(void *arg, struct stream *s, const uint8_t *p, size_t n)
{
	static const struct {
		const char *name;
		void (*put)(struct pool *pool, struct buf *out);
	} commands[] = { { "status", put_status }, { "counters", put_counters },
		{ "check", put_check } };
	struct buf out = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (n == strlen(commands[i].name) + 1 && memcmp(p, commands[i].name, n - 1) == 0)
			commands[i].put(arg, &out);
	if (out.len == 0)
		buf_puts(&out, "unknown command\n");
	stream_write(s, out.data, out.len);
	buf_fini(&out);
	stream_close(s);
}

static void on_gone(void *arg, struct stream *s, const char *why)
{
	(void)arg;
	(void)s;
	(void)why;
}

static const struct stream_handler handler = { .data = on_command, .closed = on_gone };

static void on_accept(void *arg, struct stream *s)
{
	stream_handle(s, &handler, arg);
}

int pool_control(struct pool *pool, const char *path)
{
	char address[512];

	snprintf(address, sizeof address, "unix:%s", path);
	return listener_open(&pool->control, pool->loops[0].loop, address, NULL, on_accept, pool);
}
