/* Who is a member: the rows of `_member`, followed by the channel, by Raft's network half and by
 * Raft's configuration.
 *
 *   rows --apply--> peers (every member) --leader: members_plan.c--> configuration, one change at a
 *   time --committed--> row: joined; or the row goes and a word of it stays
 *
 * A roster is the list of the members at an index. It comes from the rows, from the file of the
 * start, or from another member when a connection comes up: one that was away for long would else
 * not know whom to wait for. The newest wins; rows that are replayed at a start are older than the
 * file.
 *
 * A witness has a row without a host. It never plans: elected, it hands the lead over.
 *
 * A member that has left is not told by Raft: who leaves is sent nothing any more. So it is kept as
 * a peer for a while, row `left ID` of `_config`, and whatever member it meets sends it the roster;
 * it is not in it, and ends.
 */
#include "db/db_priv.h"
#include "db/members_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	PLAN_MS = 500,
	HAND_MS = 50, /* between looks of a witness: does it lead? */
	CURRENT_ENTRIES = 64,
	ASKED_MS = 1000,  /* a wish to lead is repeated all the time */
	REUSE_MS = 60000, /* leases, rounds and answers of a former member have ended */
	VOTERS_MAX = 5,
};

struct roster {
	uint64_t index;
	unsigned n;
	struct db_member m[CHANNEL_PEERS_MAX + CHANNEL_GONE_MAX];
};

struct members {
	struct db *db;
	struct roster roster; /* the one that is followed */
	struct loop_timer timer;
	struct db_proposal proposal; /* of a row */
	bool proposing;
	bool ended; /* this member has left */
	uint64_t asked_ms[CHANNEL_PEERS_MAX];
	uint64_t freed_ms[CHANNEL_PEERS_MAX];
};

#define ALIVE "alive"

static const struct db_member *roster_find(const struct roster *r, uint64_t raft_id)
{
	for (unsigned i = 0; i < r->n; i++)
		if (r->m[i].raft_id == raft_id)
			return &r->m[i];
	return NULL;
}

/* From the rows. */

bool db_member_is_witness(const struct db_row *row)
{
	return strcmp(db_row_s(row, _MEMBER_host), "OpaqueRef:NULL") == 0;
}

static bool copy(char *to, size_t size, const char *from)
{
	return (size_t)snprintf(to, size, "%s", from) < size;
}

static bool of_row(const struct db_view *view, const struct db_row *row, struct db_member *out)
{
	const struct db_row *host =
		db_view_get(view, MODEL_CLASS_host, db_row_s(row, _MEMBER_host));

	*out = (struct db_member){ .raft_id = (uint64_t)db_row_i(row, _MEMBER_raft_id) };
	out->witness = db_member_is_witness(row);
	if (out->witness)
		copy(out->name, sizeof out->name, "witness");
	if (host != NULL) { /* for people; cut off when long */
		copy(out->name, sizeof out->name, db_row_s(host, HOST_name_label));
		copy(out->api_address, sizeof out->api_address, db_row_s(host, HOST_address));
	}
	return out->raft_id != 0 && copy(out->host_uuid, sizeof out->host_uuid, db_row_ref(row)) &&
	       copy(out->channel_address, sizeof out->channel_address,
		       db_row_s(row, _MEMBER_address)) &&
	       copy(out->certificate, sizeof out->certificate, db_row_s(row, _MEMBER_certificate));
}

/* "left ID" = "HOST ADDRESS CERTIFICATE", and the word alive. */
static bool of_word(const struct db_row *row, struct db_member *out)
{
	unsigned long long id;
	char alive[8] = "";
	int end = 0, n;

	*out = (struct db_member){ .gone = true };
	if (sscanf(db_row_ref(row), DB_LEFT "%llu%n", &id, &end) != 1 || db_row_ref(row)[end] != 0)
		return false;
	out->raft_id = id;
	n = sscanf(db_row_s(row, _CONFIG_value), "%36s %79s %64s %7s", out->host_uuid,
		out->channel_address, out->certificate, alive);
	out->alive = strcmp(alive, ALIVE) == 0;
	return n >= 3;
}

static void roster_read(const struct db_view *view, struct roster *out)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS__member);
	const struct db_row *row;

	*out = (struct roster){ .index = db_view_index(view) };
	while ((row = db_next(&c)) != NULL && out->n < CHANNEL_PEERS_MAX)
		out->n += of_row(view, row, &out->m[out->n]);
	if (out->n == 0)
		return;
	c = db_rows(view, MODEL_CLASS__config);
	while ((row = db_next(&c)) != NULL && out->n < ARRAY_LEN(out->m))
		out->n += of_word(row, &out->m[out->n]);
}

/* From and to another member. */

static void roster_send(struct db *db, uint64_t peer)
{
	const struct roster *r = &db->who->roster;
	struct buf b = { 0 };

	if (!channel_is_up(db->channel, peer))
		return;
	buf_u64(&b, r->index);
	buf_u32(&b, r->n);
	for (unsigned i = 0; i < r->n; i++) {
		const struct db_member *m = &r->m[i];

		buf_u64(&b, m->raft_id);
		buf_u8(&b, m->gone ? 1 + m->alive : 0);
		buf_str(&b, m->host_uuid);
		buf_str(&b, m->name);
		buf_str(&b, m->api_address);
		buf_str(&b, m->channel_address);
		buf_str(&b, m->certificate);
	}
	channel_send(db->channel, peer, CHANNEL_ROSTER, b.data, b.len);
	buf_fini(&b);
}

static bool take_text(struct reader *r, char *out, size_t size)
{
	const char *s = rd_str(r);

	return !r->bad && copy(out, size, s);
}

static bool roster_decode(struct reader *r, struct roster *out)
{
	uint8_t fingerprint[TLS_FINGERPRINT_LEN], left;

	*out = (struct roster){ .index = rd_u64(r) };
	out->n = rd_u32(r);
	if (r->bad || out->n > ARRAY_LEN(out->m))
		return false;
	for (unsigned i = 0; i < out->n; i++) {
		struct db_member *m = &out->m[i];

		m->raft_id = rd_u64(r);
		left = rd_u8(r);
		m->gone = left != 0;
		m->alive = left == 2;
		if (!take_text(r, m->host_uuid, sizeof m->host_uuid) ||
			!take_text(r, m->name, sizeof m->name) ||
			!take_text(r, m->api_address, sizeof m->api_address) ||
			!take_text(r, m->channel_address, sizeof m->channel_address) ||
			!take_text(r, m->certificate, sizeof m->certificate) || m->raft_id == 0 ||
			!uuid_ok(m->host_uuid) ||
			!db__fingerprint_parse(m->certificate, fingerprint))
			return false;
	}
	return rd_left(r) == 0;
}

/* Following. */

static int place_for(struct db *db)
{
	uint64_t now = env_now_ms(db->cfg.loop->env);

	for (unsigned i = 0; i < db->n_members; i++)
		if (db->ids[i] == 0 && now - db->who->freed_ms[i] >= REUSE_MS)
			return (int)i;
	return db->n_members < CHANNEL_PEERS_MAX ? (int)db->n_members : -1;
}

static bool channel_follow(struct db *db, const struct db_member *m)
{
	struct channel_peer peer = {
		.raft_id = m->raft_id, .address = m->channel_address, .gone = m->gone
	};

	return db->channel == NULL || m->raft_id == db->cfg.raft_id ||
	       (db__fingerprint_parse(m->certificate, peer.certificate) &&
		       channel_add(db->channel, &peer));
}

static void come(struct db *db, const struct db_member *m)
{
	int slot = db__slot(db, m->raft_id);
	bool fresh = slot < 0;

	if (fresh)
		slot = place_for(db);
	if (slot < 0 || !channel_follow(db, m)) {
		log_err(db->cfg.loop->env,
			"event=member_without_place member=%s why=\"too many members came and "
			"went: "
			"start this xpoold anew\"",
			m->name);
		return;
	}
	pthread_mutex_lock(&db->stat_mutex);
	db->members[slot] = *m;
	pthread_mutex_unlock(&db->stat_mutex);
	if (!fresh) {
		consensus_peer_witness(db->consensus, m->raft_id, m->witness);
		return;
	}
	db->contacts[slot].lost_ms =
		m->raft_id == db->cfg.raft_id ? 0 : env_now_ms(db->cfg.loop->env);
	db->contacts[slot].heard_ms = 0;
	db->ids[slot] = m->raft_id;
	if ((unsigned)slot == db->n_members)
		db->n_members++;
	if (m->raft_id == db->cfg.raft_id)
		return;
	CHECK(consensus_peer_add(db->consensus, m->raft_id));
	consensus_peer_witness(db->consensus, m->raft_id, m->witness);
	db__plane_peer_add(db, m->raft_id);
}

static void go(struct db *db, unsigned slot, bool forgotten)
{
	uint64_t raft_id = db->ids[slot];

	if (forgotten)
		channel_remove(db->channel, raft_id);
	else
		roster_send(db, raft_id);
	db__plane_peer_remove(db, raft_id);
	consensus_peer_remove(db->consensus, raft_id);
	db__reads_slot_freed(db, slot);
	db__floors_slot_freed(db, slot);
	db->ids[slot] = 0;
	pthread_mutex_lock(&db->stat_mutex);
	db->members[slot] = (struct db_member){ 0 };
	pthread_mutex_unlock(&db->stat_mutex);
	db->who->freed_ms[slot] = env_now_ms(db->cfg.loop->env);
	log_info(db->cfg.loop->env, "event=member_gone member=%llu", (unsigned long long)raft_id);
}

static void tell(struct db *db)
{
	if (!db->who->ended && db->cfg.members_changed != NULL)
		db->cfg.members_changed(db->cfg.arg);
}

static void end_here(struct db *db, bool alive)
{
	db->who->ended = true;
	if (db->cfg.removed != NULL)
		db->cfg.removed(db->cfg.arg, alive);
	else
		env_die(db->cfg.loop->env, "this member has been removed from the pool");
}

/* A member stays known by the certificate it is known by: no message changes that of a row, and an
 * administrator replaces one in the files of all members while they are down. And as a witness,
 * which a roster of another member does not tell. */
static void keep_known(struct roster *fresh, const struct roster *known)
{
	for (unsigned i = 0; i < fresh->n; i++) {
		const struct db_member *m = roster_find(known, fresh->m[i].raft_id);

		if (m == NULL)
			continue;
		memcpy(fresh->m[i].certificate, m->certificate, sizeof m->certificate);
		fresh->m[i].witness |= m->witness;
	}
}

static void roster_follow(struct db *db, struct roster *fresh)
{
	const struct db_member *self = roster_find(fresh, db->cfg.raft_id);

	loop_assert(db->cfg.loop);
	if (fresh->n == 0 || fresh->index < db->who->roster.index || db->closing || db->who->ended)
		return;
	keep_known(fresh, &db->who->roster);
	db->who->roster = *fresh;
	pthread_mutex_lock(&db->stat_mutex);
	db->roster_index = fresh->index;
	pthread_mutex_unlock(&db->stat_mutex);
	for (unsigned i = 0; i < db->n_members; i++) {
		const struct db_member *m = db->ids[i] != 0 ? roster_find(fresh, db->ids[i]) : NULL;

		if (db->ids[i] != 0 && db->ids[i] != db->cfg.raft_id && (m == NULL || m->gone))
			go(db, i, m == NULL);
	}
	for (unsigned i = 0; i < fresh->n; i++)
		if (!fresh->m[i].gone)
			come(db, &fresh->m[i]);
		else if (fresh->m[i].raft_id != db->cfg.raft_id)
			channel_follow(db, &fresh->m[i]);
	if (self == NULL || self->gone)
		end_here(db, self != NULL && self->alive);
	else
		tell(db);
}

static bool is_of_members(const struct change *c)
{
	return c->class_id == MODEL_CLASS__member ||
	       (c->class_id == MODEL_CLASS__config &&
		       strncmp(c->ref, DB_LEFT, strlen(DB_LEFT)) == 0);
}

void db__members_applied(struct db *db, bool any)
{
	struct roster *fresh;
	struct db_view view;

	for (unsigned i = 0; i < db->changes.n && !any; i++)
		any = is_of_members(&db->changes.items[i]);
	if (!any || db->views.root->index < db->who->roster.index)
		return;
	fresh = mem_new(sizeof *fresh);
	db_view_pin(db, &view);
	roster_read(&view, fresh);
	db_view_unpin(&view);
	roster_follow(db, fresh);
	free(fresh);
	db__members_look(db);
}

int db__roster_frame(struct db *db, uint64_t peer, const uint8_t *payload, size_t n)
{
	struct reader r = reader_of(payload, n);
	struct roster *fresh = mem_new(sizeof *fresh);
	bool ok = roster_decode(&r, fresh);

	(void)peer;
	if (ok && fresh->index > db->who->roster.index)
		roster_follow(db, fresh);
	free(fresh);
	return ok ? 0 : ERR_CORRUPT;
}

void db__members_met(struct db *db, uint64_t peer)
{
	if (!db->who->ended)
		roster_send(db, peer);
}

/* Roles have changed: the file says who votes. */
void db__members_configured(struct db *db)
{
	for (unsigned i = 0; i < db->n_members; i++) {
		pthread_mutex_lock(&db->stat_mutex);
		db->members[i].standby =
			db->ids[i] != 0 && !consensus_is_voter(db->consensus, db->ids[i]);
		pthread_mutex_unlock(&db->stat_mutex);
	}
	tell(db);
	db__members_look(db);
}

void db__members_asked(struct db *db, uint64_t peer)
{
	int slot = db__slot(db, peer);

	if (slot < 0 || consensus_is_voter(db->consensus, peer))
		return;
	db->who->asked_ms[slot] = env_now_ms(db->cfg.loop->env);
	db__members_look(db);
}

/* The leader: one step after the other. */

static enum plan_state state_of(const struct db_row *row)
{
	const char *s = db_row_s(row, _MEMBER_state);

	return strcmp(s, "joining") == 0   ? PLAN_JOINING
	       : strcmp(s, "leaving") == 0 ? PLAN_LEAVING
					   : PLAN_JOINED;
}

static unsigned gather(struct db *db, const struct db_view *view, struct plan_member *out,
	const struct db_row **rows, bool *settled_out)
{
	struct consensus_server servers[CHANNEL_PEERS_MAX];
	unsigned n = 0, n_servers = consensus_servers(db->consensus, servers, settled_out);
	struct db_cursor c = db_rows(view, MODEL_CLASS__member);
	uint64_t now = env_now_ms(db->cfg.loop->env);

	while (n < CHANNEL_PEERS_MAX && (rows[n] = db_next(&c)) != NULL) {
		uint64_t id = (uint64_t)db_row_i(rows[n], _MEMBER_raft_id);
		int slot = db__slot(db, id);
		struct plan_member *m = &out[n];

		if (slot < 0)
			continue;
		*m = (struct plan_member){ .raft_id = id,
			.state = state_of(rows[n]),
			.silence_ms = db_silence_ms(db, id),
			.self = id == db->cfg.raft_id,
			.asked = db->who->asked_ms[slot] + ASKED_MS > now,
			.witness = db->members[slot].witness };
		for (unsigned i = 0; i < n_servers; i++)
			if (servers[i].raft_id == id) {
				m->part = (enum plan_part)(PLAN_SPARE + servers[i].part);
				m->current = servers[i].behind <= CURRENT_ENTRIES;
			}
		n++;
	}
	return n;
}

static unsigned voters_most(const struct db_view *view)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *row = db_next(&c);
	const char *word = NULL;
	struct arena a;
	struct val config;
	unsigned most;

	arena_init(&a);
	if (row != NULL) {
		config = db_row_field(row, POOL_other_config, &a);
		word = val_get_s(&config, "xpool-voters");
	}
	most = word != NULL && strcmp(word, "7") == 0 ? 7 : VOTERS_MAX;
	arena_fini(&a);
	return most;
}

static void on_written(struct db_proposal *p)
{
	struct members *who = container_of(p, struct members, proposal);

	db_proposal_fini(p);
	who->proposing = false;
}

static void write_row(struct db *db, struct db_txn *txn)
{
	db_txn_origin(txn, (struct db_origin){ .user = "coordinator", .method = "membership" });
	db->who->proposing = true;
	db_propose(db, &db->who->proposal, txn, db->cfg.loop, on_written);
	db_txn_fini(txn);
}

static void write_joined(struct db *db, const struct db_row *row)
{
	struct db_txn txn;

	db_txn_init(&txn, DB_FOR_CONFIG);
	db_txn_need_version(&txn, MODEL_CLASS__member, db_row_ref(row), db_row_modified(row));
	db_txn_set(&txn, MODEL_CLASS__member, db_row_ref(row), _MEMBER_state, val_string("joined"));
	write_row(db, &txn);
}

/* The words of those that left first make room. */
static void forget_oldest(const struct db_view *view, struct db_txn *txn)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS__config);
	const struct db_row *row, *oldest = NULL;
	unsigned n = 0;

	while ((row = db_next(&c)) != NULL) {
		if (strncmp(db_row_ref(row), DB_LEFT, strlen(DB_LEFT)) != 0)
			continue;
		n++;
		if (oldest == NULL || db_row_created(row) < db_row_created(oldest))
			oldest = row;
	}
	if (n >= CHANNEL_GONE_MAX)
		db_txn_delete(txn, MODEL_CLASS__config, db_row_ref(oldest));
}

static void write_left(struct db *db, const struct db_view *view, const struct db_row *row)
{
	struct val f[_CONFIG_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char name[32], value[256];
	struct db_txn txn;

	db_txn_init(&txn, DB_FOR_CONFIG);
	db_txn_need_version(&txn, MODEL_CLASS__member, db_row_ref(row), db_row_modified(row));
	forget_oldest(view, &txn);
	if (db_view_get(view, MODEL_CLASS_host, db_row_s(row, _MEMBER_host)) != NULL)
		db_txn_delete(&txn, MODEL_CLASS_host, db_row_s(row, _MEMBER_host));
	db_txn_delete(&txn, MODEL_CLASS__member, db_row_ref(row));
	snprintf(name, sizeof name, DB_LEFT "%lld", (long long)db_row_i(row, _MEMBER_raft_id));
	snprintf(value, sizeof value, "%s %s %s%s", db_row_ref(row), db_row_s(row, _MEMBER_address),
		db_row_s(row, _MEMBER_certificate),
		db_silence_ms(db, (uint64_t)db_row_i(row, _MEMBER_raft_id)) == 0 ? " " ALIVE : "");
	f[_CONFIG_value] = val_string(value);
	db_txn_create(&txn, MODEL_CLASS__config, name, f);
	write_row(db, &txn);
}

static void take_step(struct db *db, const struct db_view *view, enum plan_step step,
	const struct plan_member *m, const struct db_row *row)
{
	struct consensus *c = db->consensus;

	switch (step) {
	case PLAN_NOTHING: break;
	case PLAN_ADD: consensus_change(c, CONSENSUS_ADD, m->raft_id, db_row_ref(row)); break;
	case PLAN_STAND_BY: consensus_change(c, CONSENSUS_STAND_BY, m->raft_id, NULL); break;
	case PLAN_PROMOTE: consensus_change(c, CONSENSUS_PROMOTE, m->raft_id, NULL); break;
	case PLAN_REMOVE: consensus_change(c, CONSENSUS_REMOVE, m->raft_id, NULL); break;
	case PLAN_WRITE_JOINED: write_joined(db, row); break;
	case PLAN_WRITE_LEFT: write_left(db, view, row); break;
	case PLAN_STEP_DOWN: consensus_step_down(c); break;
	}
}

static void on_timer(struct loop_timer *t)
{
	struct members *who = container_of(t, struct members, timer);
	const struct db_row *rows[CHANNEL_PEERS_MAX];
	struct plan_member m[CHANNEL_PEERS_MAX];
	struct db *db = who->db;
	struct db_view view;
	bool settled;
	struct plan p;
	unsigned n;

	loop_timer_start(db->cfg.loop, t, db->witness ? HAND_MS : PLAN_MS, on_timer);
	if (db->witness && consensus_role(db->consensus) >= CONSENSUS_LEADER) {
		consensus_step_down(db->consensus);
		return;
	}
	for (unsigned i = 0; i < who->roster.n && !who->ended && !db->closing; i++)
		if (who->roster.m[i].gone)
			roster_send(db, who->roster.m[i].raft_id); /* a word gets lost */
	if (who->proposing || db->closing ||
		consensus_role(db->consensus) != CONSENSUS_LEADER_READY)
		return;
	db_view_pin(db, &view);
	n = gather(db, &view, m, rows, &settled);
	p = db__members_plan(m, n, voters_most(&view),
		db->cfg.voter_lost_ms ? db->cfg.voter_lost_ms : DB_VOTER_LOST_MS);
	if (settled && n > 0)
		take_step(db, &view, p.step, &m[p.who], rows[p.who]);
	db_view_unpin(&view);
}

void db__members_look(struct db *db)
{
	if (!db->closing)
		loop_timer_start(db->cfg.loop, &db->who->timer, 0, on_timer);
}

void db__members_init(struct db *db)
{
	db->who = mem_new(sizeof *db->who);
	db->who->db = db;
	db->who->roster.index = db->roster_index = db->cfg.members_index;
	for (unsigned i = 0; i < db->cfg.n_members; i++) {
		db->who->roster.m[db->who->roster.n++] = db->cfg.members[i];
		db->witness |=
			db->cfg.members[i].raft_id == db->cfg.raft_id && db->cfg.members[i].witness;
	}
}

void db__members_fini(struct db *db)
{
	loop_timer_stop(&db->who->timer);
	free(db->who);
}

unsigned db_members(struct db *db, struct db_member *out, uint64_t *index_out)
{
	unsigned n = 0;

	pthread_mutex_lock(&db->stat_mutex);
	for (unsigned i = 0; i < db->n_members; i++)
		if (db->members[i].raft_id != 0)
			out[n++] = db->members[i];
	*index_out = db->roster_index;
	pthread_mutex_unlock(&db->stat_mutex);
	return n;
}
