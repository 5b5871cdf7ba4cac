/* What members send: a whole database on virtual time, and two peers whose words are the input. It
 * may refuse the connection, or end itself where a leader gives it what cannot be applied; no
 * crash, no memory without a bound, and the state it is left with is sound.
 *
 * Input: u8 mode (bit 0: the peers do not say hello by themselves, 1: they know of connections for
 * bulk), then steps {u8 peer (bit 1: by its connection for bulk), u8 type, u16 n, n bytes}: a frame
 * of that type; type WAIT: n ms pass; RAW: the bytes without a head; REDIAL: the peer connects
 * again and says hello. The plane of numbers has fuzz_plane.
 */
#include "db/snapshot_priv.h"
#include "tests/sim/life.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT, BULK, KINDS };
enum { TAKES_BULK = 1, IS_BULK = 2 }; /* flags of a hello */
enum { MEMBERS = 3, SELF = 1, REDIAL = 253, WAIT = 254, RAW = 255, WAIT_MAX_MS = 5000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct connection {
	struct player *player;
	struct stream *stream; /* NULL: not connected */
	bool open, greeting;
};

struct player {
	struct loop *loop;
	bool takes_bulk;
	struct connection c[KINDS];
};

struct scene {
	struct world w;
	struct life life;
	struct db_member members[MEMBERS];
	struct player players[MEMBERS + 1];
};

static const char pool[] = "00000000-0000-4000-8000-0000000000ff";

/* Thousands of rows that every member makes from the model itself, and which nothing that a peer
 * sends may reach: they took nearly all the time of a run. */
void db__state_add_fixed(struct db_state *s)
{
	(void)s;
}

static void on_applied(void *arg, const struct db_applied *what)
{
	(void)arg, (void)what;
}

static void boot(struct scene *s)
{
	struct db_config config = life_config(&s->life, on_applied);

	for (unsigned i = 1; i <= MEMBERS; i++)
		s->members[i - 1] = life_member(i, i);
	image_bootstrap(&s->life.image, MEMBERS);
	config.epoch_id = pool;
	config.raft_id = SELF;
	config.members = s->members;
	config.n_members = MEMBERS;
	config.snapshot_entries = 20;
	config.snapshot_trailing = 10;
	config.hash_every = 5;
	life_begin(&s->life, &s->w, SELF, &config);
	for (unsigned i = 2; i <= MEMBERS; i++) {
		s->players[i].loop = loop_new(&world_boot(&s->w, i)->env, "player");
		loop_start(s->players[i].loop);
	}
}

/* The players. */

static void put_frame(struct connection *c, uint8_t type, const uint8_t *bytes, size_t n)
{
	struct buf b = { 0 };

	if (c->stream == NULL || !c->open)
		return;
	buf_u32(&b, (uint32_t)n);
	buf_u32(&b, type);
	buf_put(&b, bytes, n);
	stream_write(c->stream, b.data, b.len);
	buf_fini(&b);
}

static void on_open(void *arg, struct stream *stream)
{
	struct connection *c = arg;
	struct player *p = c->player;
	struct buf b = { 0 };

	(void)stream;
	c->open = true;
	if (!c->greeting)
		return;
	buf_u32(&b, CHANNEL_PROTOCOL);
	buf_str(&b, pool);
	buf_u64(&b, container_of(p->loop->env, struct world_member, env)->number);
	buf_u64(&b, 1);
	buf_str(&b, pool);
	if (p->takes_bulk)
		buf_u32(&b, TAKES_BULK | (c == &p->c[BULK] ? IS_BULK : 0));
	put_frame(c, CHANNEL_HELLO, b.data, b.len);
	buf_fini(&b);
}

static void on_data(void *arg, struct stream *s, const uint8_t *bytes, size_t n)
{
	(void)arg, (void)s, (void)bytes, (void)n;
}

static void on_lost(void *arg, struct stream *s, const char *why)
{
	struct connection *c = arg;

	(void)s, (void)why;
	c->stream = NULL;
	c->open = false;
}

static const struct stream_handler player_handler = {
	.open = on_open, .data = on_data, .closed = on_lost
};

static void run_ms(struct scene *s, uint64_t ms)
{
	world_run(&s->w, s->w.now_us + ms * 1000);
}

static void dial(struct scene *s, struct connection *c, bool greeting)
{
	if (c->stream != NULL)
		stream_close(c->stream);
	c->open = false;
	c->greeting = greeting;
	c->stream = stream_connect(c->player->loop, "m1:8300", NULL, &player_handler, c);
	world_loop_turn(c->player->loop);
	run_ms(s, 10);
}

static void step(
	struct scene *s, struct connection *c, uint8_t type, const uint8_t *bytes, size_t n)
{
	if (type == WAIT) {
		run_ms(s, n < WAIT_MAX_MS ? n : WAIT_MAX_MS);
	} else if (type == REDIAL) {
		dial(s, c, true);
	} else if (type == RAW) {
		if (c->stream != NULL && c->open)
			stream_write(c->stream, bytes, n);
	} else {
		put_frame(c, type, bytes, n);
	}
	world_loop_turn(c->player->loop);
	run_ms(s, 7); /* longer than a wire takes */
}

static void play(struct scene *s, struct reader *r)
{
	uint8_t mode = rd_u8(r);

	for (unsigned i = 2; i <= MEMBERS; i++) {
		struct player *p = &s->players[i];

		p->takes_bulk = (mode & 2) != 0;
		for (int k = 0; k < KINDS; k++)
			p->c[k].player = p;
		dial(s, &p->c[PROMPT], (mode & 1) == 0);
	}
	while (rd_left(r) > 0 && s->w.members[SELF].alive) {
		uint8_t who = rd_u8(r), type = rd_u8(r);
		struct connection *c = &s->players[2 + (who & 1)].c[who & 2 ? BULK : PROMPT];
		size_t n = rd_u16(r);
		const uint8_t *bytes;

		if (type != WAIT && n > rd_left(r))
			n = rd_left(r);
		bytes = type == WAIT ? NULL : rd_bytes(r, n);
		step(s, c, type, bytes, n);
	}
	if (s->w.members[SELF].alive)
		run_ms(s, 200);
}

/* The end. */

static void stop(struct scene *s)
{
	for (unsigned i = 2; i <= MEMBERS; i++) {
		for (int k = 0; k < KINDS; k++)
			if (s->players[i].c[k].stream != NULL)
				stream_close(s->players[i].c[k].stream);
		world_kill(&s->w, i);
	}
	life_end(&s->life);
	for (unsigned i = 2; i <= MEMBERS; i++)
		loop_free(s->players[i].loop);
	image_fini(&s->life.image);
	world_fini(&s->w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct scene *s = mem_new(sizeof *s);
	struct reader r = reader_of(data, n);
	char why[128];

	world_init(&s->w, 1);
	boot(s);
	play(s, &r);
	CHECK(db__state_check(s->life.db->views.root, why, sizeof why));
	stop(s);
	free(s);
	return 0;
}
