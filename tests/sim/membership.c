/* A pool whose members change, on virtual time: six places, three of them members at first. Members
 * join (empty, under an id that was never used) and leave while others work, under loss,
 * duplicates, long delays, cuts, disk errors, crashes that tear unsynced writes, and death of
 * whoever leads. The last place is a witness. Checked, beside what holds for clients (workload.h):
 *  - no two members ever had different hashes at the same index;
 *  - in the end the configuration is what the rows want: all have joined, nobody leaves, as many
 *    vote as should;
 *  - a witness does not lead in the end;
 *  - who has left knows it, and nobody else believes to have.
 *
 * usage: membership SEED COUNT       random schedules
 *        membership --deaths COUNT   a voter that is lost for good; then one schedule of joins and
 *                                    departures; the leader is killed, cut off, or both, as it
 *                                    begins the 1st, 2nd, ... change
 */
#include "db/consensus_priv.h"
#include "tests/sim/workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLACES = 6, FIRST = 3, LOST_MS = 4000 };

struct place {
	struct life life; /* first: what its callbacks get */
	unsigned number;
	uint64_t raft_id;
	bool member, leaving;			  /* as far as the test knows */
	bool removed;				  /* it has been told */
	struct db_member file[CHANNEL_PEERS_MAX]; /* members.json */
	unsigned n_file;
	uint64_t file_index;
};

struct test {
	struct world w;
	struct place places[PLACES + 1];
	struct hashes hashes;
	struct workload load;
	unsigned n_joins, n_leaves, n_boots, n_changes, n_back;
	uint64_t next_id;
	/* the change of membership under way */
	enum { IDLE, JOIN, LEAVE } wish;
	unsigned asking; /* the place that was asked; 0: none */
	unsigned who;
};

static void on_applied(void *arg, const struct db_applied *what)
{
	struct life *l = arg;
	struct db_view view;

	db_view_pin(l->db, &view);
	hashes_note(&l->t->hashes, what->index, &view);
	db_view_unpin(&view);
}

/* The file is not always written in time. */
static void on_members(void *arg)
{
	struct place *p = arg;

	if (p->life.db != NULL && world_random(&p->life.t->w, 4) > 0)
		p->n_file = db_members(p->life.db, p->file, &p->file_index);
}

static void on_removed(void *arg, bool alive)
{
	struct place *p = arg;

	(void)alive;
	p->removed = true;
}

static void boot(struct test *t, unsigned i)
{
	struct place *p = &t->places[i];
	struct db_config config = life_config(&p->life, on_applied);

	config.raft_id = p->raft_id;
	config.members = p->file;
	config.n_members = p->n_file;
	config.members_index = p->file_index;
	config.voter_lost_ms = LOST_MS;
	config.members_changed = on_members;
	config.removed = on_removed;
	life_begin(&p->life, &t->w, i, &config);
	t->n_boots++;
}

static void crash(struct test *t, unsigned i)
{
	struct place *p = &t->places[i];

	if (!p->life.up)
		return;
	t->n_back += (unsigned)counter_get(&p->life.m->env.counters, COUNTER_raft_changes_back);
	t->n_changes += (unsigned)counter_get(&p->life.m->env.counters, COUNTER_raft_changes);
	life_end(&p->life);
	if (t->asking == i)
		t->asking = 0; /* it may never have begun */
}

/* Members, as the test knows them. */

static void add_row(struct db_txn *txn, const struct db_member *m, const char *state)
{
	struct val f[_MEMBER_FIELD_COUNT] = { { .kind = VAL_VOID } };

	db_txn_need_no_row(txn, MODEL_CLASS__member, m->host_uuid);
	f[_MEMBER_host] = val_string(m->witness ? "OpaqueRef:NULL" : "OpaqueRef:none here");
	f[_MEMBER_raft_id] = val_int((int64_t)m->raft_id);
	f[_MEMBER_address] = val_string(m->channel_address);
	f[_MEMBER_certificate] = val_string(m->certificate);
	f[_MEMBER_state] = val_string(state);
	db_txn_create(txn, MODEL_CLASS__member, m->host_uuid, f);
}

static unsigned count(const struct test *t, bool staying)
{
	unsigned n = 0;

	for (unsigned i = 1; i <= PLACES; i++)
		n += t->places[i].member && (!staying || !t->places[i].leaving);
	return n;
}

struct work {
	struct test *t;
	struct place *at; /* whose member proposes */
};

/* The first rows: who the members of the beginning are. */
static void found_main(struct job *job, void *arg)
{
	struct work *wk = arg;
	struct db_result res = { .status = DB_UNKNOWN };
	struct db_txn txn;

	db_txn_init(&txn, DB_FOR_CONFIG);
	for (unsigned i = 1; i <= FIRST; i++) {
		struct db_member m = life_member(i, i);

		add_row(&txn, &m, "joined");
	}
	CHECK(db_commit(job, wk->at->life.db, &txn, &res) == 0 && res.status == DB_DONE);
	db_txn_fini(&txn);
	free(wk);
}

static void submit(struct test *t, struct place *at, void (*fn)(struct job *, void *))
{
	struct work *wk = mem_new(sizeof *wk);

	*wk = (struct work){ t, at };
	CHECK(lane_submit(at->life.lane, "", fn, wk, NULL) == 0);
}

/* Joining and leaving: by one member's proposal, again by another's until it is known to be done.
 */

static bool is_row_of(struct db *db, const struct db_member *m)
{
	struct db_view view;
	const struct db_row *row;
	bool is;

	db_view_pin(db, &view);
	row = db_view_get(&view, MODEL_CLASS__member, m->host_uuid);
	is = row != NULL && (uint64_t)db_row_i(row, _MEMBER_raft_id) == m->raft_id;
	db_view_unpin(&view);
	return is;
}

static void wish_main(struct job *job, void *arg)
{
	struct work *wk = arg;
	struct test *t = wk->t;
	struct place *who = &t->places[t->who];
	struct db_member m = life_member(who->number, who->raft_id);
	struct db_result res = { .status = DB_UNKNOWN };
	struct db *db = wk->at->life.db;
	struct db_txn txn;
	int rc;

	m.witness = who->number == PLACES;
	db_txn_init(&txn, DB_FOR_CONFIG);
	if (t->wish == JOIN) {
		add_row(&txn, &m, "joining");
	} else {
		db_txn_need_field(&txn, MODEL_CLASS__member, m.host_uuid, _MEMBER_raft_id,
			val_int((int64_t)m.raft_id));
		db_txn_set(&txn, MODEL_CLASS__member, m.host_uuid, _MEMBER_state,
			val_string("leaving"));
	}
	rc = db_commit(job, db, &txn, &res);
	db_txn_fini(&txn);
	free(wk);
	t->asking = 0;
	if (rc != 0 || res.status == DB_UNKNOWN ||
		(t->wish == JOIN && res.status == DB_FAILED && !is_row_of(db, &m)))
		return; /* again */
	if (t->wish == JOIN) {
		who->n_file = db_members(db, who->file, &who->file_index);
		who->member = who->life.fresh = true;
		t->n_joins++;
	} else {
		who->leaving = true;
		t->n_leaves++;
	}
	t->wish = IDLE;
}

static unsigned some(struct test *t, bool member)
{
	unsigned i = 1 + (unsigned)world_random(&t->w, PLACES);

	for (unsigned k = 0; k < PLACES; k++, i = i % PLACES + 1)
		if (t->places[i].member == member && !t->places[i].leaving)
			return i;
	return 0;
}

static void wish_for(struct test *t, int wish, unsigned who)
{
	struct place *p = &t->places[who];

	t->wish = wish;
	t->who = who;
	if (wish != JOIN)
		return;
	image_fini(&p->life.image);
	p->life.image = (struct image){ 0 };
	p->raft_id = ++t->next_id;
	p->removed = p->leaving = false;
}

static void ask(struct test *t)
{
	unsigned i = some(t, true);

	if (t->wish == IDLE || t->asking != 0 || i == 0 || !t->places[i].life.up ||
		!t->places[i].life.m->alive)
		return;
	t->asking = i;
	submit(t, &t->places[i], wish_main);
}

/* What systemd and the administrator do. */
static void attend(struct test *t, bool start_all)
{
	for (unsigned i = 1; i <= PLACES; i++) {
		struct place *p = &t->places[i];

		if (p->life.up && (!p->life.m->alive || p->removed)) {
			crash(t, i);
		}
		if (p->removed) {
			p->member = p->leaving = false;
		} else if (p->member && !p->life.up && (start_all || p->life.fresh)) {
			boot(t, i);
		}
	}
}

static unsigned leader_of(struct test *t)
{
	for (unsigned i = 1; i <= PLACES; i++)
		if (t->places[i].life.up && t->places[i].life.m->alive &&
			db_is_coordinator(t->places[i].life.db))
			return i;
	return 0;
}

static void fault(struct test *t)
{
	unsigned a = 1 + (unsigned)world_random(&t->w, PLACES),
		 b = 1 + (unsigned)world_random(&t->w, PLACES);

	switch (world_random(&t->w, 14)) {
	case 0: t->w.cut[a][b] = t->w.cut[b][a] = true; break;
	case 1: t->w.cut[a][b] = true; break;
	case 2:
	case 3:
		memset(t->w.cut, 0, sizeof t->w.cut);
		t->w.delay_max_ms = WORLD_DELAY_MS;
		break;
	case 4: crash(t, a); break;
	case 5:
		if (leader_of(t) != 0)
			crash(t, leader_of(t));
		break;
	case 6:
	case 7:
	case 8: attend(t, true); break;
	case 9:
		if (t->places[a].life.up)
			t->places[a].life.disk.latency_ms = 1 + (unsigned)world_random(&t->w, 40);
		break;
	case 11:
		t->w.delay_max_ms = 1 + (unsigned)world_random(&t->w, 1 + world_random(&t->w, 800));
		break;
	case 12: t->places[a].life.disk.fail = true; break; /* its next write */
	case 10: t->w.duplicate_permille = (unsigned)world_random(&t->w, 60); break;
	default: t->w.loss_permille = (unsigned)world_random(&t->w, 60); break;
	}
}

static bool serves(const struct place *p)
{
	return p->life.up && p->life.m->alive && !p->removed;
}

static void start_work(struct test *t)
{
	for (unsigned i = 1; i <= PLACES; i++)
		if (serves(&t->places[i]))
			workload_start(&t->places[i].life);
}

/* Followers ask anywhere, also at who is just joining, or leaving. */
static void follow(struct test *t)
{
	for (unsigned i = 0; i < FOLLOWERS; i++) {
		struct place *p = &t->places[1 + world_random(&t->w, PLACES)];

		if (serves(p))
			workload_follow(&t->load, i, &p->life);
	}
}

static void heal(struct test *t)
{
	memset(t->w.cut, 0, sizeof t->w.cut);
	t->w.loss_permille = t->w.duplicate_permille = 0;
	t->w.delay_max_ms = WORLD_DELAY_MS;
	for (unsigned i = 1; i <= PLACES; i++)
		t->places[i].life.disk.fail = false;
	attend(t, true);
}

/* Who has left and is not known to, though there is a member that could tell it. */
static bool untold(const struct test *t)
{
	for (unsigned i = 1; i <= PLACES; i++) {
		const struct place *p = &t->places[i];

		for (unsigned k = 0; p->member && p->leaving && k < p->n_file; k++)
			for (unsigned j = 1; j <= PLACES; j++)
				if (t->places[j].member && !t->places[j].leaving &&
					t->places[j].raft_id == p->file[k].raft_id)
					return true;
	}
	return false;
}

/* The configuration is what the rows want. */
static bool settled(struct test *t, const char **why)
{
	unsigned leader = leader_of(t), rows = 0, voters = 0, want, n;
	struct consensus_server s[CHANNEL_PEERS_MAX];
	const struct db_row *row;
	struct db_view view;
	struct db_cursor c;
	bool known, ok = true;

	*why = "no leader";
	if (leader == 0)
		return false;
	n = consensus_servers(t->places[leader].life.db->consensus, s, &known);
	for (unsigned i = 0; i < n; i++)
		voters += s[i].part == CONSENSUS_VOTER;
	db_view_pin(t->places[leader].life.db, &view);
	c = db_rows(&view, MODEL_CLASS__member);
	while ((row = db_next(&c)) != NULL) {
		rows++;
		ok = ok && strcmp(db_row_s(row, _MEMBER_state), "joined") == 0;
	}
	db_view_unpin(&view);
	want = rows < 3 ? 1 : rows < 5 ? 3 : 5;
	*why = !known || !ok		? "a change is under way"
	       : n != rows		? "the configuration is not that of the rows"
	       : voters != want		? "another number of voters"
	       : rows != count(t, true) ? "other members"
	       : untold(t)		? "one was not told that it has left"
	       : leader == PLACES	? "the witness leads"
					: NULL;
	return *why == NULL;
}

static bool verify(struct test *t, const char *why)
{
	uint64_t index = 0, hash = 0;
	unsigned lost = 0, differ = 0;
	const struct workload *wl = &t->load;
	char fault_text[256];
	bool sound = true;

	for (unsigned i = 1; i <= PLACES; i++) {
		struct place *p = &t->places[i];
		struct db_view view;

		if (!p->member || p->leaving || !p->life.up)
			continue;
		for (unsigned k = 0; k < FOLLOWERS; k++)
			workload_follow(&t->load, k, &p->life);
		sound = db_check(p->life.db, fault_text, sizeof fault_text) && sound;
		db_view_pin(p->life.db, &view);
		differ += index != 0 &&
			  (db_view_index(&view) != index || db_view_hash(&view) != hash);
		index = db_view_index(&view);
		hash = db_view_hash(&view);
		lost += workload_lost(&t->load, &view);
		sound = workload_once(&t->load, &view) && sound;
		db_view_unpin(&view);
	}
	printf("events=%016llx index=%llu acked=%u reads=%u+%u uses=%u/%u+%u joins=%u leaves=%u "
	       "members=%u boots=%u lost=%u %s%s%s%s%s%s\n",
		(unsigned long long)world_hash(&t->w), (unsigned long long)index, wl->n_acked,
		wl->n_reads, wl->n_unread, wl->n_uses, wl->n_hops, wl->n_unheld, t->n_joins,
		t->n_leaves, count(t, false), t->n_boots, lost,
		t->hashes.diverged || differ > 0 ? "DIVERGED" : "equal",
		wl->disordered ? " DISORDERED" : "", wl->stale ? " STALE" : "",
		wl->back ? " BACK" : "", why != NULL ? " UNSETTLED: " : "", why != NULL ? why : "");
	return lost == 0 && differ == 0 && sound && !t->hashes.diverged && why == NULL &&
	       !wl->disordered && !wl->stale && !wl->back && wl->n_acked > 10;
}

static struct test *test_new(uint64_t seed)
{
	struct test *t = mem_new(sizeof *t);

	hashes_init(&t->hashes);
	t->next_id = FIRST;
	world_init(&t->w, seed);
	workload_init(&t->load, &t->w);
	for (unsigned i = 1; i <= PLACES; i++) {
		struct place *p = &t->places[i];

		p->life.t = t;
		p->life.load = &t->load;
		p->number = i;
		p->raft_id = p->member = i <= FIRST;
		if (!p->member)
			continue;
		p->raft_id = i;
		for (unsigned k = 1; k <= FIRST; k++)
			p->file[p->n_file++] = life_member(k, k);
		image_bootstrap(&p->life.image, FIRST);
	}
	for (unsigned i = 1; i <= FIRST; i++)
		boot(t, i);
	world_run(&t->w, 3000000);
	CHECK(leader_of(t) != 0);
	submit(t, &t->places[1], found_main);
	world_run(&t->w, t->w.now_us + 1000000);
	return t;
}

static void test_free(struct test *t)
{
	for (unsigned i = 1; i <= PLACES; i++)
		crash(t, i);
	world_fini(&t->w);
	for (unsigned i = 1; i <= PLACES; i++)
		image_fini(&t->places[i].life.image);
	hashes_fini(&t->hashes);
	workload_fini(&t->load);
	free(t);
}

static bool nobody_works(void *arg)
{
	struct test *t = arg;
	unsigned n = 0;

	for (unsigned i = 1; i <= PLACES; i++)
		n += t->places[i].life.n_users;
	return n == 0;
}

static bool finish(struct test *t, unsigned *back)
{
	const char *why = "";
	bool ok;

	heal(t);
	start_work(t);
	for (unsigned k = 0; k < 240 && (why != NULL || t->wish != IDLE); k++) {
		world_run(&t->w, t->w.now_us + 500000);
		ask(t);
		attend(t, true);
		settled(t, &why);
	}
	for (unsigned s = 0; s < 60 && !nobody_works(t); s++) {
		world_run(&t->w, t->w.now_us + 1000000);
		attend(t, true);
	}
	CHECK(nobody_works(t));
	world_run(&t->w, t->w.now_us + 3000000);
	ok = verify(t, why);
	for (unsigned i = 1; i <= PLACES; i++)
		crash(t, i);
	printf("  changes=%u taken back=%u\n", t->n_changes, t->n_back);
	*back += t->n_back;
	test_free(t);
	return ok;
}

static bool run(uint64_t seed, unsigned *back)
{
	struct test *t = test_new(seed);

	t->w.loss_permille = 10;
	for (unsigned s = 0; s < 60; s++) {
		if (s % 2 == 0)
			start_work(t);
		if (t->wish == IDLE && count(t, true) < PLACES && some(t, false) != 0 &&
			world_random(&t->w, 3) == 0)
			wish_for(t, JOIN, some(t, false));
		else if (t->wish == IDLE && count(t, true) > 1 && world_random(&t->w, 4) == 0)
			wish_for(t, LEAVE, some(t, true));
		ask(t);
		world_run(&t->w, t->w.now_us + 100000 + world_random(&t->w, 700000));
		attend(t, false);
		follow(t);
		fault(t);
	}
	printf("seed=%llu ", (unsigned long long)seed);
	return finish(t, back);
}

/* Changes that were begun, by all leaders so far. */
static unsigned begun(const struct test *t)
{
	unsigned n = t->n_changes;

	for (unsigned i = 1; i <= PLACES; i++)
		if (t->places[i].life.up)
			n += (unsigned)counter_get(
				&t->places[i].life.m->env.counters, COUNTER_raft_changes);
	return n;
}

static void isolate(struct test *t, unsigned who)
{
	for (unsigned i = 1; i <= PLACES; i++)
		t->w.cut[who][i] = t->w.cut[i][who] = i != who;
}

enum blow { KILLED, CUT_OFF, CUT_OFF_AND_KILLED, BLOWS };

/* What befalls the leader as it has just begun a change; the second half some time later. */
static void strike(struct test *t, enum blow blow, unsigned who, unsigned late)
{
	if (late == 0 && blow == KILLED)
		crash(t, who);
	else if (late == 0)
		isolate(t, who);
	else if (late == 1 && blow == CUT_OFF_AND_KILLED && t->places[who].life.up) {
		crash(t, who); /* what it has begun is on its disk */
		boot(t, who);
	}
}

/* Joins and departures; the leader is struck as it begins the nth change. */
static bool death(unsigned nth, enum blow blow, unsigned *back)
{
	static const struct {
		int wish;
		unsigned who;
	} steps[] = { { JOIN, 4 }, { JOIN, 5 }, { LEAVE, 1 }, { LEAVE, 2 }, { JOIN, 6 },
		{ LEAVE, 4 }, { LEAVE, 5 }, { LEAVE, 6 } };
	enum { STEP_US = 1000, WORK_US = 1200000, SECOND_US = 300000, OVER_US = 3000000 };
	struct test *t = test_new(1);
	uint64_t began = t->w.now_us, struck_us = 0;
	unsigned who = 0, k = 0, late = 0;

	while (k < ARRAY_LEN(steps) || t->wish != IDLE || (who != 0 && late < 2)) {
		if (t->wish == IDLE && k < ARRAY_LEN(steps))
			wish_for(t, steps[k].wish, steps[k].who), k++;
		ask(t);
		if (who == 0 && begun(t) >= nth && (who = leader_of(t)) != 0) {
			strike(t, blow, who, 0);
			struck_us = t->w.now_us;
		}
		if (who != 0 && late == 0 && t->w.now_us > struck_us + SECOND_US)
			strike(t, blow, who, ++late);
		if (who != 0 && late == 1 && t->w.now_us > struck_us + OVER_US) {
			memset(t->w.cut, 0, sizeof t->w.cut);
			late = 2;
		}
		attend(t, who == 0 || late == 2);
		world_run(&t->w, t->w.now_us + STEP_US);
		if (t->w.now_us % WORK_US < STEP_US) {
			start_work(t);
			follow(t);
		}
		CHECK(t->w.now_us < began + 120000000);
	}
	printf("change=%u blow=%d ", nth, (int)blow);
	return finish(t, back);
}

/* Voters that are there. */
static unsigned voters_up(struct test *t)
{
	unsigned leader = leader_of(t), n, up = 0;
	struct consensus_server s[CHANNEL_PEERS_MAX];
	bool known;

	if (leader == 0)
		return 0;
	n = consensus_servers(t->places[leader].life.db->consensus, s, &known);
	for (unsigned k = 0; k < n; k++)
		for (unsigned i = 1; i <= PLACES; i++)
			up += s[k].part == CONSENSUS_VOTER && t->places[i].life.up &&
			      t->places[i].raft_id == s[k].raft_id;
	return up;
}

/* One of three voters is gone for longer than LOST_MS: the stand-by votes in its place, so that
 * without a second one the others still go on. */
static bool replaced(unsigned *back)
{
	enum { STEP_US = 1000, SECOND_US = 1000000, WAIT_S = LOST_MS / 1000 + 6 };
	struct test *t = test_new(1);
	unsigned first, second, up, acked;
	bool ok;

	wish_for(t, JOIN, 4);
	while (t->wish != IDLE) {
		ask(t);
		attend(t, false);
		world_run(&t->w, t->w.now_us + STEP_US);
	}
	attend(t, true);
	world_run(&t->w, t->w.now_us + 3 * SECOND_US);
	first = leader_of(t) % FIRST + 1;
	second = first % FIRST + 1;
	crash(t, first);
	world_run(&t->w, t->w.now_us + WAIT_S * SECOND_US);
	up = voters_up(t);
	crash(t, second);
	world_run(&t->w, t->w.now_us + WAIT_S * SECOND_US);
	acked = t->load.n_acked;
	start_work(t);
	world_run(&t->w, t->w.now_us + WAIT_S * SECOND_US);
	acked = t->load.n_acked - acked;
	ok = up == FIRST && acked > 0;
	printf("voter lost: %u vote, %u writes without another one%s ", up, acked,
		ok ? "" : " NOT REPLACED");
	return finish(t, back) && ok;
}

int main(int argc, char **argv)
{
	unsigned n = argc == 3 ? (unsigned)atoi(argv[2]) : 0, failed = 0, back = 0;
	uint64_t first = argc == 3 ? strtoull(argv[1], NULL, 10) : 0;

	if (n == 0) {
		fprintf(stderr, "usage: membership SEED COUNT, membership --deaths COUNT\n");
		return 2;
	}
	if (first == 0)
		failed += !replaced(&back);
	for (unsigned k = 0; k < n; k++)
		failed += !(first == 0 ? death(1 + k / BLOWS, (enum blow)(k % BLOWS), &back)
				       : run(first + k, &back));
	if (first == 0 && back == 0) {
		printf("no configuration was ever taken back: the schedules do not reach it\n");
		failed++;
	}
	printf("%u passed, %u failed\n", n - (failed > n ? n : failed), failed);
	return failed > 0;
}
