#include "tests/sim/life.h"

#include <stdio.h>
#include <stdlib.h>

enum { INDEX_MAX = 200000 };

static void on_request(void *arg, const struct db_proposal_id *id, const uint8_t *bytes, size_t n)
{
	(void)arg, (void)id, (void)bytes, (void)n;
}

static void on_role(void *arg, enum consensus_role role, uint64_t term, uint64_t leader)
{
	(void)arg, (void)role, (void)term, (void)leader;
}

struct db_config life_config(
	struct life *l, void (*applied)(void *arg, const struct db_applied *what))
{
	return (struct db_config){ .pool_uuid = "00000000-0000-4000-8000-0000000000ff",
		.epoch = 1,
		.epoch_id = "00000000-0000-4000-8000-0000000000ee",
		.snapshot_entries = 40, /* many, so that members are caught in all phases of them */
		.snapshot_trailing = 20,
		.hash_every = 25,
		.part_entries = 3, /* long messages go in parts */
		.applied = applied,
		.request = on_request,
		.role = on_role,
		.arg = l };
}

void life_begin(struct life *l, struct world *w, unsigned number, struct db_config *config)
{
	l->db = NULL;
	l->m = world_boot(w, number);
	l->loop = config->loop = loop_new(&l->m->env, "raft");
	raft_disk_init(&l->disk, l->m, l->loop, &l->image);
	if (l->fresh)
		CHECK(consensus_enlist(&l->disk.base, config->raft_id) == 0);
	l->fresh = false;
	config->disk = &l->disk.base;
	l->lane = lane_new(&l->m->env, "api", LANE_API, 4, 16);
	CHECK(db_open(&l->db, config) == 0);
	loop_start(l->loop);
	l->up = true;
}

/* A proposal that has ended, but whose proposer's loop died before it could be told, is never given
 * back: such is death. Read by the leak checker only. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:db_commit\n";
}

static void on_closed(void *arg)
{
	((struct life *)arg)->closed = true;
}

static bool is_closed(void *arg)
{
	return ((struct life *)arg)->closed;
}

void life_end(struct life *l)
{
	if (!l->up)
		return;
	l->up = l->closed = false;
	world_kill(l->m->w, l->m->number);
	lane_free(l->lane);
	db_close(l->db, on_closed, l);
	CHECK(world_until(l->m->w, is_closed, l, 1000));
	loop_free(l->loop);
}

struct db_member life_member(unsigned number, uint64_t raft_id)
{
	struct db_member m = { .raft_id = raft_id };

	snprintf(m.host_uuid, sizeof m.host_uuid, "00000000-0000-4000-8000-00000000000%u", number);
	snprintf(m.name, sizeof m.name, "m%u", number);
	snprintf(m.channel_address, sizeof m.channel_address, "m%u:8300", number);
	for (unsigned k = 0; k < TLS_FINGERPRINT_LEN; k++)
		snprintf(m.certificate + 2 * k, 3, "%02x", number);
	return m;
}

void hashes_init(struct hashes *h)
{
	*h = (struct hashes){ .of = mem_new(INDEX_MAX * sizeof *h->of) };
}

void hashes_fini(struct hashes *h)
{
	free(h->of);
}

void hashes_note(struct hashes *h, uint64_t index, const struct db_view *view)
{
	uint64_t hash = db_view_hash(view) | 1;

	CHECK(index < INDEX_MAX);
	if (h->of[index] == 0)
		h->of[index] = hash;
	h->diverged |= h->of[index] != hash;
}
