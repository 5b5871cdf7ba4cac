/* The control socket: one word and perhaps a text in, lines out. For `xpoolctl` on the same
 * machine; works without a pool. */
#include "pool/join_priv.h"
#include "rpc/base/stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_status(struct pool *pool, struct buf *out)
{
	struct db_stat s;
	struct db_view view;
	const struct db_row *self;
	struct db_cursor c = { 0 };
	unsigned domains = 0;
	bool ready;

	db_stat(pool->db, &s);
	db_view_pin(pool->db, &view);
	self = pool_self(pool, &view);
	if (self != NULL)
		c = db_rows_related(&view, MODEL_RELATION_VM_resident_on, db_row_ref(self));
	while (self != NULL && db_next(&c) != NULL)
		domains++;
	ready = (self != NULL || pool->witness) && s.leader != 0;
	buf_printf(out,
		"role=%s term=%llu leader=%llu applied=%llu hash=%016llx domains=%u ready=%s\n",
		consensus_role_name(s.role), (unsigned long long)s.term,
		(unsigned long long)s.leader, (unsigned long long)db_view_index(&view),
		(unsigned long long)db_view_hash(&view), domains, ready ? "yes" : "no");
	db_view_unpin(&view);
}

/* Who belongs to the pool, and what it can lose. */
static void put_members(struct pool *pool, struct buf *out)
{
	struct db_member m[CHANNEL_PEERS_MAX];
	unsigned voters = 0, there = 0;
	struct db_stat s;
	uint64_t index;
	unsigned n = db_members(pool->db, m, &index);

	db_stat(pool->db, &s);
	for (unsigned i = 0; i < n; i++) {
		bool self = m[i].raft_id == db_raft_id(pool->db);
		bool heard = self || db_in_contact(pool->db, m[i].raft_id);

		voters += !m[i].standby;
		there += !m[i].standby && heard;
		buf_printf(out, "id=%llu name=%s kind=%s channel=%s votes=%s%s%s\n",
			(unsigned long long)m[i].raft_id, m[i].name,
			m[i].witness ? "witness" : "host", m[i].channel_address,
			m[i].standby ? "no" : "yes", m[i].raft_id == s.leader ? " leads" : "",
			self	? " self"
			: heard ? ""
				: " silent");
	}
	buf_printf(out, "voters=%u there=%u may_be_lost=%u%s\n", voters, there,
		2 * there > voters ? there - voters / 2 - 1 : 0,
		voters < 3 ? " remedy=\"add a host, or a witness (xpoolctl witness)\"" : "");
}

static void put_counters(struct pool *pool, struct buf *out)
{
	for (unsigned i = 0; i < COUNTER_COUNT; i++)
		buf_printf(out, "%-24s %12llu  %s\n", counter_names[i],
			(unsigned long long)counter_get(&pool->env->counters, i), counter_help[i]);
}

/* Which declared messages somebody has written. */
static void put_coverage(struct pool *pool, struct buf *out)
{
	(void)pool;
	for (unsigned i = 0; i < model_n_messages; i++) {
		const struct model_message *m = &model_messages[i];
		struct model_functions fn = model_functions(m);

		if (m->call == MODEL_CUSTOM)
			buf_printf(out, "%-8s %s\n",
				fn.call != NULL || fn.run != NULL ? "written" : "not yet", m->name);
	}
}

/* References of living rows that lead nowhere: the API allows them, people want to know. */
static void put_dead_references(const struct db_view *view, struct buf *out)
{
	for (int c = 0; c < MODEL_CLASS_COUNT; c++) {
		const struct model_class *m = &model_classes[c];

		for (unsigned i = 0; i < m->n_fields; i++) {
			const struct model_type *t = m->fields[i].type;
			struct db_cursor cursor = db_rows(view, c);
			const struct db_row *row;
			unsigned dead = 0;

			if (t->kind != MODEL_REF ||
				model_classes[t->class_id].table == MODEL_TABLE_NONE)
				continue;
			while ((row = db_next(&cursor)) != NULL) {
				const char *ref = db_row_s(row, (int)i);

				dead += *ref != 0 && strcmp(ref, NULL_REF) != 0 &&
					db_view_get(view, t->class_id, ref) == NULL;
			}
			if (dead > 0)
				buf_printf(out, "references: %u of %s.%s lead nowhere\n", dead,
					m->name, m->fields[i].name);
		}
	}
}

static void put_check(struct job *job, struct pool *pool, struct buf *out)
{
	struct db_view view;
	uint64_t rows = 0;
	char why[256];
	bool sound = db_check(pool->db, why, sizeof why);

	db_view_pin(pool->db, &view);
	for (int c = 0; c < MODEL_CLASS_COUNT; c++)
		rows += db_view_count(&view, c);
	if (sound)
		buf_printf(out,
			"state: %llu rows at index %llu, hash %016llx; indexes, relations and hash "
			"agree\n",
			(unsigned long long)rows, (unsigned long long)db_view_index(&view),
			(unsigned long long)db_view_hash(&view));
	else
		buf_printf(out, "state: %s\n", why);
	put_dead_references(&view, out);
	db_view_unpin(&view);
	if (db_projection(job, pool->db, true, out) != 0)
		sound = false;
	buf_puts(out, sound ? "sound\n" : "broken\n");
}

static void put_flushed(struct job *job, struct pool *pool, struct buf *out)
{
	if (db_projection(job, pool->db, false, out) == 0)
		buf_puts(out, "flushed\n");
}

enum { CONTROL_MAX = 8192 /* bytes of a command */ };

static const struct command {
	const char *name;
	void (*put)(struct pool *pool, struct buf *out);
	void (*job)(struct job *job, struct pool *pool, struct buf *out); /* what takes its time */
	void (*with)(struct job *job, struct pool *pool, const char *text, struct buf *out);
} commands[] = {
	{ "status", put_status, NULL, NULL },
	{ "members", put_members, NULL, NULL },
	{ "counters", put_counters, NULL, NULL },
	{ "coverage", put_coverage, NULL, NULL },
	{ "check", NULL, put_check, NULL },
	{ "flush", NULL, put_flushed, NULL },
	{ "schema", schema_put, NULL, NULL },
	{ "schema-raise", NULL, schema_put_raise, NULL },
	{ "add", NULL, NULL, newcomer_put },
	{ "witness-remove", NULL, witness_put_removal, NULL },
	{ "join-dry", NULL, NULL, join_put_dry },
};

struct control {
	struct pool *pool;
	struct stream *stream; /* NULL: the asker has gone */
	const struct command *command;
	struct loop_call call;
	struct buf in, out;
	const char *text; /* behind the word, in `in` */
	bool busy;	  /* a job has it */
};

static void control_answer(struct control *c)
{
	if (c->stream != NULL) {
		stream_write(c->stream, c->out.data, c->out.len);
		stream_close(c->stream);
	}
	buf_fini(&c->in);
	buf_fini(&c->out);
	free(c);
}

static void on_done(struct loop_call *call)
{
	control_answer(container_of(call, struct control, call));
}

static void control_main(struct job *job, void *arg)
{
	struct control *c = arg;

	if (c->command->with != NULL)
		c->command->with(job, c->pool, c->text, &c->out);
	else
		c->command->job(job, c->pool, &c->out);
	loop_post(c->pool->loops[0].loop, &c->call, on_done);
}

static void on_command(void *arg, struct stream *s, const uint8_t *p, size_t n)
{
	struct control *c = arg;
	size_t word;

	(void)s;
	if (c->busy || c->in.len + n > CONTROL_MAX)
		return;
	buf_put(&c->in, p, n);
	if (memchr(c->in.data, '\n', c->in.len) == NULL)
		return; /* there is more */
	c->in.data[c->in.len - 1] = 0;
	word = strcspn((char *)c->in.data, " ");
	c->text = (char *)c->in.data + word + strspn((char *)c->in.data + word, " ");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (word == strlen(commands[i].name) &&
			memcmp(c->in.data, commands[i].name, word) == 0)
			c->command = &commands[i];
	if (c->command == NULL) {
		buf_puts(&c->out, "unknown command\n");
	} else if (c->command->put != NULL) {
		c->command->put(c->pool, &c->out);
	} else {
		c->busy = lane_submit(c->pool->api, "", control_main, c, NULL) == 0;
		if (c->busy)
			return;
		buf_puts(&c->out, "too much to do\n");
	}
	control_answer(c);
}

static void on_gone(void *arg, struct stream *s, const char *why)
{
	struct control *c = arg;

	(void)s;
	(void)why;
	c->stream = NULL;
	if (!c->busy)
		control_answer(c);
}

static const struct stream_handler handler = { .data = on_command, .closed = on_gone };

static void on_accept(void *arg, struct stream *s)
{
	struct control *c = mem_new(sizeof *c);

	c->pool = arg;
	c->stream = s;
	stream_handle(s, &handler, c);
}

int pool_control(struct pool *pool, const char *path)
{
	char address[512];

	snprintf(address, sizeof address, "unix:%s", path);
	return listener_open(&pool->control, pool->loops[0].loop, address, NULL, on_accept, pool);
}
