/* Opening, applying, roles: see db.h. Proposals are in commit.c. */
#include "db/db_priv.h"
#include "db/snapshot_priv.h"
#include "rpc/base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct views *db__views(struct db *db)
{
	return &db->views;
}

static const char *change_ref(const struct db_applied *what, unsigned i)
{
	const struct apply_changes *c = what->changes;

	return c->items[i].ref;
}

static int change_class(const struct db_applied *what, unsigned i)
{
	const struct apply_changes *c = what->changes;

	return c->items[i].class_id;
}

static void stat_update(struct db *db)
{
	const struct db_state *s = db->views.root;

	loop_assert(db->cfg.loop);
	pthread_mutex_lock(&db->stat_mutex);
	db->stat = (struct db_stat){ .role = consensus_role(db->consensus),
		.term = consensus_term(db->consensus),
		.leader = consensus_leader(db->consensus),
		.applied = s->index,
		.last = consensus_last(db->consensus),
		.hash = s->hash,
		.index = s->index,
		.voter = consensus_is_voter(db->consensus, db->cfg.raft_id) };
	pthread_mutex_unlock(&db->stat_mutex);
}

#define FOREIGN                                                                                    \
	"this pool runs a schema that this xpoold does not: install the version that the other "   \
	"members run"

static void log_foreign(struct db *db, unsigned schema)
{
	log_err(db->cfg.loop->env, "event=schema_foreign pool=%u oldest=%u newest=%u", schema,
		MODEL_SCHEMA_BASE, db->views.schema_max);
}

static void on_apply(void *arg, uint64_t index, const uint8_t *entry, size_t n)
{
	struct db *db = arg;
	struct entry_head head;
	struct apply_result res;
	struct db_applied what;

	loop_assert(db->cfg.loop);
	if (!db__entry_head(entry, n, &head)) {
		env_die(db->cfg.loop->env, "a committed entry cannot be read: damaged log, or "
					   "written by a newer version");
		return;
	}
	res = db__apply(&db->views, db->done, index, &head, &db->changes);
	if (res.status == APPLY_FOREIGN) {
		log_foreign(db, res.failed);
		env_die(db->cfg.loop->env, FOREIGN);
		return;
	}
	if (res.status == APPLY_BROKEN) {
		env_die(db->cfg.loop->env,
			"a committed entry cannot be applied: written by a newer version?");
		return;
	}
	if (db->store != NULL)
		db__store_feed(db->store, index, db->views.root->hash, &head, &db->changes);
	COUNT(db->cfg.loop->env, entries_applied);
	if (res.duplicate)
		COUNT(db->cfg.loop->env, entries_duplicate);
	else if (res.status == APPLY_REFUSED)
		COUNT(db->cfg.loop->env, entries_refused);
	if (!res.duplicate && head.reason < DB_REASON_COUNT)
		counter_add(&db->cfg.loop->env->counters,
			(enum counter)(COUNTER_commits_field + head.reason), 1);
	what = (struct db_applied){ .index = index,
		.reason = (enum db_reason)head.reason,
		.n = db->changes.n,
		.ref = change_ref,
		.class_id = change_class,
		.changes = &db->changes };
	db->applied_any = true;
	if (what.n > 0)
		db->cfg.applied(db->cfg.arg, &what);
	db__members_applied(db, false); /* who proposed it may ask db_members at once */
	db__proposal_applied(db, &head.id, &res);
	db__agree_applied(db, index, db->views.root->hash);
}

int db__slot(const struct db *db, uint64_t raft_id)
{
	for (unsigned i = 0; i < db->n_members && raft_id != 0; i++)
		if (db->ids[i] == raft_id)
			return (int)i;
	return -1;
}

static struct contact *contact_of(struct db *db, uint64_t raft_id)
{
	int slot = db__slot(db, raft_id);

	return slot < 0 ? NULL : &db->contacts[slot];
}

/* When a majority of voters, this one counted, was last heard: what a leader knew of its lead. */
static uint64_t majority_heard_ms(struct db *db)
{
	uint64_t now = env_now_ms(db->cfg.loop->env), heard[CHANNEL_PEERS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < db->n_members; i++) {
		uint64_t id = db->members[i].raft_id, at;
		unsigned k = n;

		if (!consensus_is_voter(db->consensus, id))
			continue;
		at = id == db->cfg.raft_id ? now : db->contacts[i].heard_ms;
		for (; k > 0 && heard[k - 1] < at; k--)
			heard[k] = heard[k - 1];
		heard[k] = at;
		n++;
	}
	return n > 0 ? heard[n / 2] : now;
}

static void on_role(void *arg, enum consensus_role role, uint64_t term, uint64_t leader)
{
	struct db *db = arg;

	loop_assert(db->cfg.loop);
	if (db->consensus == NULL) /* still inside consensus_open */
		return;
	log_info(db->cfg.loop->env, "event=role role=%s term=%llu leader=%llu",
		consensus_role_name(role), (unsigned long long)term, (unsigned long long)leader);
	if (db->stat.role >= CONSENSUS_LEADER)
		db->led_ms = majority_heard_ms(db);
	/* followers hear nothing of each other: silence counts from when they answer to us */
	for (unsigned i = 0; role >= CONSENSUS_LEADER && i < db->n_members; i++)
		db->contacts[i].heard_ms = env_now_ms(db->cfg.loop->env);
	stat_update(db);
	db__proposals_role(db);
	db__reads_role(db);
	db__floors_role(db);
	db__members_look(db);
	db->cfg.role(db->cfg.arg, role, term, leader);
}

static void on_configured(void *arg)
{
	struct db *db = arg;

	if (db->consensus != NULL)
		db__members_configured(db);
}

/* Snapshots: the view and the results as they are at this index. */
struct frozen {
	struct db *db;
	struct db_view view;
	struct done_table *done;
	size_t packed; /* bytes; 0: not encoded */
};

static void *on_freeze(void *arg)
{
	struct db *db = arg;
	struct frozen *f = mem_new(sizeof *f);

	loop_assert(db->cfg.loop);
	f->db = db;
	db_view_pin(db, &f->view);
	f->done = db__done_dup(db->done);
	return f;
}

static void on_encode(void *frozen, struct buf *out)
{
	struct frozen *f = frozen;

	db__snapshot_encode(f->view.state, f->done, out);
	f->packed = out->len;
}

static void on_thaw(void *frozen)
{
	struct frozen *f = frozen;

	if (f->packed > 0)
		db__room_measured(f->db, f->packed, f->view.state->bytes);
	db_view_unpin(&f->view);
	db__done_free(f->done);
	free(f);
}

/* What a worker made of a snapshot. */
struct thawed {
	struct db_state *state;
	struct done_table *done;
	size_t bytes;
};

static void on_discard(void *decoded)
{
	struct thawed *t = decoded;

	if (t->state != NULL)
		db__state_free(t->state);
	db__done_free(t->done);
	free(t);
}

/* On a worker: of db only what never changes. */
static void *on_decode(void *arg, const uint8_t *bytes, size_t n, const char **why_out)
{
	struct db *db = arg;
	struct thawed *t = mem_new(sizeof *t);
	unsigned schema;

	t->bytes = n;
	t->done = db__done_new(db->cfg.rules_off);
	t->state = db__snapshot_decode(bytes, n, t->done, why_out);
	schema = t->state != NULL ? t->state->schema : db__snapshot_schema(bytes, n);
	if (!db__schema_runs(schema) || schema > db->views.schema_max) {
		log_foreign(db, schema);
		*why_out = FOREIGN;
	} else if (t->state == NULL) {
		log_err(db->cfg.loop->env, "event=snapshot_unsound bytes=%zu why=\"%s\"", n,
			*why_out);
	} else {
		return t;
	}
	on_discard(t);
	return NULL;
}

static void on_install(void *arg, void *decoded)
{
	struct db *db = arg;
	struct thawed *t = decoded;
	struct db_applied what = {
		.index = t->state->index, .ref = change_ref, .class_id = change_class
	};

	loop_assert(db->cfg.loop);
	log_info(db->cfg.loop->env, "event=snapshot_restored index=%llu bytes=%zu",
		(unsigned long long)t->state->index, t->bytes);
	db__done_free(db->done);
	db->done = t->done;
	db__room_measured(db, t->bytes, t->state->bytes);
	db__views_replace(&db->views, t->state);
	if (db->store != NULL)
		db__store_jump(db->store, t->state->index, t->state->hash);
	free(t);
	db->applied_any = true;
	db->cfg.applied(db->cfg.arg, &what); /* anything may have changed */
	db__members_applied(db, true);
}

static void on_sweep(void *arg)
{
	struct db *db = arg;

	db__views_sweep(&db->views);
}

/* The library sends a heartbeat at most two intervals after the last message; longer than three and
 * one was missed, there or here. */
static void hear(struct db *db, uint64_t peer)
{
	uint64_t interval = db->cfg.heartbeat_ms ? db->cfg.heartbeat_ms : CONSENSUS_HEARTBEAT_MS;
	uint64_t now = env_now_ms(db->cfg.loop->env);
	struct contact *c = contact_of(db, peer);

	if (peer == consensus_leader(db->consensus)) {
		if (now - c->heard_ms > 3 * interval)
			COUNT(db->cfg.loop->env, heartbeats_missed);
		/* what is shown does not follow it while a snapshot is decoded */
		if (!consensus_restoring(db->consensus))
			db->led_ms = now;
	}
	c->heard_ms = now;
}

static int on_frame(void *arg, uint64_t peer, uint8_t type, const uint8_t *payload, size_t n)
{
	struct db *db = arg;

	if (type == CHANNEL_ROSTER)
		return db__roster_frame(db, peer, payload, n);
	if (db__slot(db, peer) < 0)
		return 0; /* it has left, and is told */
	hear(db, peer);
	if (type == CHANNEL_PLANE) {
		db__plane_frame(db, peer, payload, n);
		return 0;
	}
	if (type == CHANNEL_LEAD)
		return db__lead_frame(db, peer, payload, n);
	if (type < CHANNEL_PROPOSAL_FIRST)
		return consensus_receive(db->consensus, peer, type, payload, n);
	if (type < CHANNEL_READ_FIRST)
		return db__proposal_frame(db, peer, type, payload, n);
	if (type < CHANNEL_FLOOR_FIRST)
		return db__read_frame(db, peer, type, payload, n);
	if (type < CHANNEL_AGREE_FIRST)
		return db__floor_frame(db, peer, type, payload, n);
	if (type < CHANNEL_POOL_FIRST)
		return db__agree_frame(db, peer, payload, n);
	return db->cfg.frame != NULL ? db->cfg.frame(db->cfg.arg, type, payload, n) : 0;
}

static void on_peer(void *arg, uint64_t peer, bool up)
{
	struct db *db = arg;
	struct contact *c = contact_of(db, peer);

	loop_assert(db->cfg.loop);
	if (up)
		db__members_met(db, peer);
	if (c == NULL)
		return;
	c->lost_ms = up ? 0 : env_now_ms(db->cfg.loop->env);
	consensus_peer_up(db->consensus, peer, up);
	db__proposals_role(db);
	db__plane_peer(db, peer, up);
	db__reads_role(db);
	db__floors_role(db);
}

static void on_turn(struct loop_hook *hook)
{
	struct db *db = container_of(hook, struct db, hook);

	loop_assert(db->cfg.loop);
	if (db->applied_any) {
		db->applied_any = false;
		stat_update(db);
		db__room_turn(db);
	}
	db__proposals_turn(db);
	if (!db->closing)
		db__reads_turn(db);
	if (!db->closing)
		db__plane_turn(db);
}

/* Two processes on one directory would destroy it; the library takes no lock. */
static int lock_directory(struct db *db)
{
	char path[512];

	snprintf(path, sizeof path, "%s/lock", db->cfg.dir);
	if (file_lock(path) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		log_err(db->cfg.loop->env,
			"event=data_directory_in_use dir=%s why=\"another xpoold runs on it\"",
			db->cfg.dir);
	else
		log_err(db->cfg.loop->env, "event=data_directory_unusable dir=%s why=\"%s\"",
			db->cfg.dir, strerror(errno));
	return ERR_IO;
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool db__fingerprint_parse(const char *text, uint8_t out[TLS_FINGERPRINT_LEN])
{
	if (strlen(text) != 2 * TLS_FINGERPRINT_LEN)
		return false;
	for (int i = 0; i < TLS_FINGERPRINT_LEN; i++) {
		int hi = hex(text[2 * i]), lo = hex(text[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return false;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

static int open_channel(struct db *db)
{
	struct channel_peer peers[CHANNEL_PEERS_MAX];
	struct channel_config cc = { .loop = db->cfg.loop,
		.tls = db->cfg.tls,
		.pool_uuid = db->pool_uuid,
		.raft_id = db->cfg.raft_id,
		.epoch = db->cfg.epoch,
		.epoch_id = db->cfg.epoch_id,
		.peers = peers,
		.bulk_off = db->cfg.rules_off & RULE_BULK,
		.frame = on_frame,
		.up = on_peer,
		.arg = db };

	for (unsigned i = 0; i < db->n_members; i++) {
		const struct db_member *m = &db->members[i];

		if (m->raft_id == db->cfg.raft_id) {
			cc.listen = m->channel_address;
			continue;
		}
		peers[cc.n_peers] = (struct channel_peer){ .raft_id = m->raft_id,
			.address = m->channel_address };
		if (!db__fingerprint_parse(m->certificate, peers[cc.n_peers++].certificate)) {
			log_err(db->cfg.loop->env,
				"event=member_file_bad member=%s why=\"certificate is no SHA-256 "
				"fingerprint\"",
				m->name);
			return ERR_IO;
		}
	}
	if (channel_open(&db->channel, &cc) != 0) {
		log_err(db->cfg.loop->env, "event=channel_unusable address=%s why=\"%s\"",
			cc.listen, strerror(errno));
		return ERR_IO;
	}
	return 0;
}

static int open_consensus(struct db *db)
{
	struct consensus_config cc = { .loop = db->cfg.loop,
		.raft_id = db->cfg.raft_id,
		.witness = db->witness,
		.election_ms = db->cfg.election_ms ? db->cfg.election_ms : CONSENSUS_ELECTION_MS,
		.heartbeat_ms =
			db->cfg.heartbeat_ms ? db->cfg.heartbeat_ms : CONSENSUS_HEARTBEAT_MS,
		.disk = db->cfg.disk,
		.rules_off = db->cfg.rules_off,
		.part_entries = db->cfg.part_entries,
		.apply = on_apply,
		.role = on_role,
		.configured = on_configured,
		.freeze = on_freeze,
		.encode = on_encode,
		.thaw = on_thaw,
		.decode = on_decode,
		.install = on_install,
		.discard = on_discard,
		.sweep = on_sweep,
		.snapshot_entries = db->cfg.snapshot_entries,
		.snapshot_trailing = db->cfg.snapshot_trailing,
		.snapshot_large = db->cfg.snapshot_large,
		.arg = db };
	struct consensus_voter members[CHANNEL_PEERS_MAX];
	int rc;

	cc.members = members;
	cc.n_members = db->n_members;
	for (unsigned i = 0; i < db->n_members; i++) {
		members[i] = (struct consensus_voter){ db->members[i].raft_id,
			db->members[i].host_uuid, db->members[i].standby };
		if (db->members[i].raft_id == db->cfg.raft_id)
			cc.address = db->members[i].host_uuid;
	}
	CHECK(cc.address != NULL);
	if (cc.disk == NULL)
		cc.disk = consensus_disk_open(db->cfg.loop, db->cfg.dir);
	rc = consensus_open(&db->consensus, &cc);
	for (unsigned i = 0; rc == 0 && i < db->n_members; i++)
		consensus_peer_witness(
			db->consensus, db->members[i].raft_id, db->members[i].witness);
	return rc;
}

static void open_store(struct db *db)
{
	struct store_config sc = { .env = db->cfg.loop->env,
		.db = db,
		.dir = db->cfg.dir,
		.pool_uuid = db->pool_uuid,
		.epoch = db->cfg.epoch };

	if (db->cfg.dir == NULL || db->cfg.projection_off)
		return;
	db->changes.keep_rows = true;
	db->store = db__store_new(&sc);
}

int db_open(struct db **out, const struct db_config *config)
{
	struct db *db = mem_new(sizeof *db);
	struct db_state *first;
	int rc;

	db->cfg = *config;
	if (db->cfg.hash_every == 0)
		db->cfg.hash_every = DB_HASH_EVERY;
	snprintf(db->pool_uuid, sizeof db->pool_uuid, "%s", config->pool_uuid);
	CHECK(config->n_members <= CHANNEL_PEERS_MAX);
	memcpy(db->members, config->members, config->n_members * sizeof *config->members);
	for (; db->n_members < config->n_members; db->n_members++)
		db->ids[db->n_members] = config->members[db->n_members].raft_id;
	for (unsigned i = 0; i < db->n_members; i++)
		db->contacts[i].lost_ms = db->members[i].raft_id == config->raft_id
						  ? 0
						  : env_now_ms(config->loop->env);
	pthread_mutex_init(&db->stat_mutex, NULL);
	db__views_init(&db->views);
	if (config->schema_max != 0)
		db->views.schema_max = config->schema_max;
	first = mem_new(sizeof *first);
	db__state_add_fixed(first);
	db__views_publish(&db->views, first);
	db->done = db__done_new(db->cfg.rules_off);
	env_random(config->loop->env, &db->boot, sizeof db->boot);
	/* proposal ids of different epochs never meet */
	db->boot = db->boot >> DB_BOOT_EPOCH_BITS | config->epoch << (64 - DB_BOOT_EPOCH_BITS);
	db->led_ms = env_now_ms(config->loop->env);
	db__proposals_init(db);
	db__members_init(db);
	db__plane_open(db);
	db__reads_init(db);
	db__floors_init(db);
	rc = config->dir != NULL ? lock_directory(db) : 0;
	if (rc == 0)
		open_store(db);
	if (rc == 0)
		rc = open_consensus(db);
	if (rc == 0)
		rc = open_channel(db);
	if (rc != 0)
		return rc; /* the process ends: nothing to give back */
	if (db->store != NULL)
		db__store_start(db->store, consensus_last(db->consensus));
	consensus_connect(db->consensus, db->channel);
	loop_hook_add(config->loop, &db->hook, on_turn);
	db__members_look(db);
	stat_update(db);
	*out = db;
	return 0;
}

static void on_consensus_closed(void *arg)
{
	struct db *db = arg;
	void (*closed)(void *) = db->closed;
	void *closed_arg = db->closed_arg;

	db__proposals_fini(db);
	db__members_fini(db);
	db__reads_fini(db);
	db__floors_fini(db);
	db__views_fini(&db->views);
	db__done_free(db->done);
	free(db->changes.items);
	CHECK(db->store == NULL); /* simulations have none */
	pthread_mutex_destroy(&db->stat_mutex);
	free(db);
	closed(closed_arg);
}

void db_close(struct db *db, void (*closed)(void *arg), void *arg)
{
	db->closed = closed;
	db->closed_arg = arg;
	db->closing = true;
	channel_close(db->channel);
	db->channel = NULL;
	consensus_close(db->consensus, on_consensus_closed, db);
}

void db_stat(struct db *db, struct db_stat *out)
{
	pthread_mutex_lock(&db->stat_mutex);
	*out = db->stat;
	pthread_mutex_unlock(&db->stat_mutex);
}

bool db_is_coordinator(struct db *db)
{
	struct db_stat s;

	db_stat(db, &s);
	return s.role == CONSENSUS_LEADER_READY;
}

static void on_step_down(struct loop_call *call)
{
	struct db *db = container_of(call, struct db, step_down);

	if (!db->closing)
		consensus_step_down(db->consensus);
}

void db_step_down(struct db *db)
{
	loop_post(db->cfg.loop, &db->step_down, on_step_down);
}

uint64_t db_raft_id(const struct db *db)
{
	return db->cfg.raft_id;
}

const char *db_pool_uuid(const struct db *db)
{
	return db->pool_uuid;
}

struct broadcast {
	struct db *db;
	struct loop_call call;
	uint64_t to; /* 0: all */
	uint8_t type;
	struct buf bytes;
};

static void on_broadcast(struct loop_call *call)
{
	struct broadcast *b = container_of(call, struct broadcast, call);
	struct db *db = b->db;

	for (unsigned i = 0; i < db->n_members; i++) {
		uint64_t id = db->ids[i];

		if (id != db->cfg.raft_id && (b->to == 0 || b->to == id))
			channel_send(db->channel, id, b->type, b->bytes.data, b->bytes.len);
	}
	buf_fini(&b->bytes);
	free(b);
}

static void send_later(struct db *db, uint64_t to, uint8_t type, struct buf *bytes)
{
	struct broadcast *b = mem_new(sizeof *b);

	CHECK(type >= CHANNEL_POOL_FIRST);
	*b = (struct broadcast){ .db = db, .to = to, .type = type, .bytes = *bytes };
	buf_init(bytes);
	loop_post(db->cfg.loop, &b->call, on_broadcast);
}

void db_broadcast(struct db *db, uint8_t type, struct buf *bytes)
{
	send_later(db, 0, type, bytes);
}

void db_send(struct db *db, uint64_t raft_id, uint8_t type, struct buf *bytes)
{
	CHECK(raft_id != 0);
	send_later(db, raft_id, type, bytes);
}

uint64_t db_leader_silence_ms(struct db *db)
{
	struct db_stat s;

	db_stat(db, &s);
	return s.role >= CONSENSUS_LEADER ? 0 : env_now_ms(db->cfg.loop->env) - db->led_ms;
}

uint64_t db__patience_ms(struct db *db)
{
	uint64_t silence = db_leader_silence_ms(db);

	return silence < DB_TIMEOUT_MS ? DB_TIMEOUT_MS - silence : 0;
}

uint64_t db_silence_ms(struct db *db, uint64_t raft_id)
{
	enum { QUIET_MS = 1000 }; /* frames come every heartbeat; a shorter pause is none */
	struct contact *c = contact_of(db, raft_id);
	uint64_t now = env_now_ms(db->cfg.loop->env), since;

	if (c == NULL)
		return UINT64_MAX;
	if (raft_id == db->cfg.raft_id)
		return 0;
	if (c->lost_ms != 0)
		return now - c->lost_ms + 1;
	/* a host without power leaves its connection standing */
	since = now - c->heard_ms;
	return since < QUIET_MS ? 0 : since;
}

bool db_in_contact(struct db *db, uint64_t raft_id)
{
	const struct contact *c = contact_of(db, raft_id);

	return c != NULL && (raft_id == db->cfg.raft_id || c->lost_ms == 0);
}

struct projection_call {
	struct wait wait; /* first */
	struct store_ask ask;
};

static void projection_fini(struct wait *w)
{
	struct projection_call *pc = container_of(w, struct projection_call, wait);

	buf_fini(&pc->ask.report);
	free(pc);
}

static void projection_answered(struct store_ask *ask)
{
	wait_done(&container_of(ask, struct projection_call, ask)->wait);
}

int db_projection(struct job *job, struct db *db, bool check, struct buf *report)
{
	struct projection_call *pc;
	int rc;

	if (db->store == NULL) {
		buf_puts(report, "projection: switched off by --no-projection\n");
		return 0;
	}
	pc = mem_new(sizeof *pc);
	wait_init(&pc->wait, job, projection_fini);
	pc->ask.check = check;
	pc->ask.answered = projection_answered;
	db__store_ask(db->store, &pc->ask);
	/* the thread always answers: it waits for nothing but the disk */
	rc = wait_join(&pc->wait, UINT64_MAX, false);
	if (rc == 0) {
		buf_put(report, pc->ask.report.data, pc->ask.report.len);
		rc = pc->ask.ok ? 0 : ERR_IO;
	}
	wait_drop(&pc->wait);
	return rc;
}

bool db_check(struct db *db, char *why, size_t n)
{
	struct db_view view;
	bool ok;

	db_view_pin(db, &view);
	ok = db__state_check(view.state, why, n);
	db_view_unpin(&view);
	return ok;
}
