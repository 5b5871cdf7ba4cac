/* Random schedules: three members with the product's database, channel, guard and network half on
 * virtual time, under loss, duplication, delays longer than elections, cuts (one way too), crashes
 * that tear or lose unsynced writes, disk errors, disks that lose synced writes, slow disks,
 * snapshots and restarts, while clients work (workload.h). Checked, beside what holds for them:
 *  - no two members ever had different hashes at the same index;
 *  - no part of a message promises a commit beyond its own entries;
 *  - the indexes agree with the rows (db_check), and a seed run again gives the same history.
 * In a build whose model knows two schemas (tests/schema), members begin with the older one and
 * are restarted with either; the active one is raised as soon as all run the newer. Then also:
 *  - all run the newer one in the end, and its rule has run for each row that was there at the
 *    raise, and for no other.
 *
 * usage: sim [SEED [COUNT]]    random schedules
 *        sim --install COUNT   a leader that is deposed and does not know; a new one whose
 *                              majority needs a snapshot first, over a link that breaks; a new
 *                              one that nobody uses; one that is a witness; a member that
 *                              is killed while it installs a snapshot; more entries at once
 *                              than a leader holds
 *        sim --stray COUNT     one member's state is changed: it must stop
 *        sim --schema COUNT    members of two schemas
 *        sim --without RULE COUNT   one of so many seeds must miss the rule
 */
#include "db/consensus_priv.h"
#include "db/snapshot_priv.h"
#include "tests/sim/workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MEMBERS = 3, FAULTS_S = 24, HEAL_S = 12 };

struct test {
	struct world w;
	struct workload load;
	bool rotten[MEMBERS + 1]; /* and not whole again */
	bool straying;		  /* one member's state was changed on purpose */
	struct life lives[MEMBERS + 1];
	struct db_member members[MEMBERS];
	struct hashes hashes;
	unsigned n_boots, n_taken, n_sent, n_rotten;
	unsigned rules_off;
	unsigned schemas[MEMBERS + 1]; /* what each runs */
	unsigned n_raised;	       /* entries applied behind the raise */
	bool healing, witness_led, overpromised;
};

static void on_applied(void *arg, const struct db_applied *what)
{
	struct life *l = arg;
	struct test *t = l->t;
	struct db_view view;

	if (t->straying)
		return;
	db_view_pin(l->db, &view);
	hashes_note(&t->hashes, what->index, &view);
	t->n_raised += db_view_schema(&view) > MODEL_SCHEMA_BASE;
	db_view_unpin(&view);
}

/* Two schemas in one pool. */

/* What runs in this life: older ones first, then more and more newer ones. */
static unsigned choose_schema(struct test *t, unsigned i)
{
	const struct raft_buffer *snapshot = &t->lives[i].image.snapshot.data;

	if (t->n_boots < MEMBERS)
		return MODEL_SCHEMA_BASE;
	if (t->healing || world_random(&t->w, t->n_raised > 0 ? 2 : 4) > 0)
		return MODEL_SCHEMA_VERSION;
	/* with that it would not even open: tests/pool/38_schema.py */
	return t->lives[i].image.snapshot.index > 0 && db__snapshot_schema(snapshot->base,
							       snapshot->len) > MODEL_SCHEMA_BASE
		       ? MODEL_SCHEMA_VERSION
		       : MODEL_SCHEMA_BASE;
}

static void compose_schema(struct test *t, unsigned i, struct db_txn *txn)
{
	db_txn_init(txn, DB_FOR_CONFIG);
	for (unsigned k = 0; k < MEMBERS; k++) { /* those that are there stay as they are */
		struct val f[_MEMBER_FIELD_COUNT] = { { .kind = VAL_VOID } };

		f[_MEMBER_host] = val_string("OpaqueRef:none here"); /* but no witness */
		db_txn_create(txn, MODEL_CLASS__member, t->members[k].host_uuid, f);
	}
	db_txn_set(txn, MODEL_CLASS__member, t->members[i - 1].host_uuid, _MEMBER_schema,
		val_int(t->schemas[i]));
}

/* As pool/schema.c: say what it runs, then as coordinator raise what all run. */
static void schema_main(struct job *job, void *arg)
{
	struct life *l = arg;
	struct db_result res;
	struct db_view view;
	struct db_txn txn;
	bool said = false, ready;
	int rc;

	do {
		rc = db_read_wait(job, l->db);
		if (rc == 0 && !said) {
			compose_schema(l->t, l->m->number, &txn);
			rc = db_commit(job, l->db, &txn, &res);
			said = rc == 0 && res.status == DB_DONE;
		} else if (rc == 0) {
			db_txn_init(&txn, DB_FOR_CONFIG);
			db_view_pin(l->db, &view);
			ready = db_is_coordinator(l->db) && db_schema_raise(&view, &txn);
			db_view_unpin(&view);
			if (ready)
				rc = db_commit(job, l->db, &txn, &res);
			db_txn_fini(&txn);
		}
	} while (rc != ERR_DEAD && job_sleep(job, 300) != ERR_DEAD);
}

/* The newer schema is active; and the rule of tests/schema/overlay, where it is built in: rows from
 * before have their note in the new field. */
static bool rule_has_run(const struct db_view *view)
{
	int notes = model_field_find(MODEL_CLASS_VM, "notes");
	const struct db_row *shown = db_view_get(view, MODEL_CLASS__config, DB_SCHEMA_REF), *row;
	struct db_cursor c = db_rows(view, MODEL_CLASS_VM);
	bool ok = db_view_schema(view) == MODEL_SCHEMA_VERSION;
	struct arena a;

	arena_init(&a);
	while (ok && notes >= 0 && (row = db_next(&c)) != NULL) {
		struct val config = db_row_field(row, VM_other_config, &a);
		const char *note = val_get_s(&config, "notes");
		bool before = db_row_created(row) < db_row_modified(shown);

		ok = strcmp(db_row_s(row, notes), before && note != NULL ? note : "") == 0;
	}
	arena_fini(&a);
	return ok;
}

static void boot(struct test *t, unsigned i)
{
	struct life *l = &t->lives[i];
	struct db_config config = life_config(l, on_applied);

	config.raft_id = i;
	config.members = t->members;
	config.n_members = MEMBERS;
	/* members of before have no connection for bulk */
	config.rules_off = t->rules_off | (t->n_boots % 3 == 2 ? RULE_BULK : 0);
	if (mixed())
		config.schema_max = t->schemas[i] = choose_schema(t, i);
	l->t = t;
	l->load = &t->load;
	life_begin(l, &t->w, i, &config);
	t->n_boots++;
	if (mixed())
		CHECK(lane_submit(l->lane, "", schema_main, l, NULL) == 0);
}

/* Counters are of one life. */
static void count_snapshots(struct test *t, struct life *l)
{
	t->n_taken += (unsigned)counter_get(&l->m->env.counters, COUNTER_snapshots_taken);
	t->n_sent += (unsigned)counter_get(&l->m->env.counters, COUNTER_snapshots_sent);
}

static void crash(struct test *t, unsigned i)
{
	struct life *l = &t->lives[i];

	if (!l->up)
		return;
	count_snapshots(t, l);
	life_end(l);
}

static void follow_all(struct test *t)
{
	for (unsigned i = 0; i < FOLLOWERS; i++) {
		struct life *l = &t->lives[1 + world_random(&t->w, MEMBERS)];

		if (l->up && l->m->alive)
			workload_follow(&t->load, i, l);
	}
}

static void start_work(struct test *t)
{
	for (unsigned i = 1; i <= MEMBERS; i++)
		if (t->lives[i].up)
			workload_start(&t->lives[i]);
}

/* A disk that rots while its member is down: entries that it had acknowledged, as the note tells,
 * are gone. One at a time: who has lost a majority of its logs has lost what was in them. */
static void rot(struct test *t, unsigned a)
{
	struct note n;

	for (unsigned i = 1; i <= MEMBERS; i++) {
		consensus__note_load(&t->lives[i].disk.base, &n);
		t->rotten[i] = t->rotten[i] && (!t->lives[i].up || n.fetching);
		if (t->rotten[i])
			return;
	}
	consensus__note_load(&t->lives[a].disk.base, &n);
	if (n.committed < 10 || image_last(&t->lives[a].image) < n.committed ||
		t->lives[a].image.snapshot.index >= n.committed - 8)
		return; /* nothing that the note would tell */
	image_lose(&t->lives[a].image, n.committed - 1 - world_random(&t->w, 8));
	CHECK(image_last(&t->lives[a].image) < n.committed);
	t->rotten[a] = true;
	t->n_rotten++;
}

static void fault(struct test *t)
{
	unsigned what = (unsigned)world_random(&t->w, 17),
		 a = 1 + (unsigned)world_random(&t->w, MEMBERS),
		 b = 1 + (unsigned)world_random(&t->w, MEMBERS);

	switch (what) {
	case 0:
	case 1: t->w.cut[a][b] = t->w.cut[b][a] = true; break;
	case 2: t->w.cut[a][b] = true; break; /* one way */
	case 3:
	case 4:
		memset(t->w.cut, 0, sizeof t->w.cut);
		t->w.delay_max_ms = WORLD_DELAY_MS;
		t->w.members[a].wall_ahead_s = 3600 * ((int64_t)b - 2); /* its clock is stepped */
		break;
	case 5:
	case 6: crash(t, a); break;
	case 7:
	case 8:
	case 9:
		if (!t->lives[a].up)
			boot(t, a);
		break;
	case 10:
		t->lives[a].disk.latency_ms = 1 + (unsigned)world_random(&t->w, 40);
		t->lives[b].disk.worker_ms = 1 + (unsigned)world_random(&t->w, 800);
		break;
	case 11: t->w.duplicate_permille = (unsigned)world_random(&t->w, 60); break;
	case 12: t->lives[a].disk.fail = true; break; /* its next write */
	case 13:
	case 14:
		if (!t->lives[a].up)
			rot(t, a);
		break;
	case 15: /* up to longer than an election */
		t->w.delay_max_ms = 1 + (unsigned)world_random(&t->w, 1 + world_random(&t->w, 800));
		break;
	default: t->w.loss_permille = (unsigned)world_random(&t->w, 60); break;
	}
	/* a member that stopped itself (fail-stop) is started again, as systemd would */
	for (unsigned i = 1; i <= MEMBERS; i++)
		if (t->lives[i].up && !t->lives[i].m->alive)
			crash(t, i);
}

/* Its receiver would commit a stale tail of its own. */
static void on_sent(void *arg, uint8_t type, const uint8_t *payload, size_t n)
{
	enum { APPEND = 2 };
	struct test *t = arg;
	struct reader r = reader_of(payload, n);
	uint64_t prev, commit;

	if (type != APPEND)
		return;
	rd_u64(&r); /* term */
	prev = rd_u64(&r);
	rd_u64(&r); /* its term */
	commit = rd_u64(&r);
	t->overpromised |= commit > prev + rd_u32(&r);
}

/* Everything works again and everybody is there. */
static void heal(struct test *t)
{
	memset(t->w.cut, 0, sizeof t->w.cut);
	t->w.loss_permille = t->w.duplicate_permille = 0;
	t->w.delay_max_ms = WORLD_DELAY_MS;
	t->healing = true;
	for (unsigned i = 1; i <= MEMBERS; i++) {
		t->lives[i].disk.fail = false;
		if (t->lives[i].up && (!t->lives[i].m->alive ||
					      (mixed() && t->schemas[i] < MODEL_SCHEMA_VERSION)))
			crash(t, i);
		if (!t->lives[i].up)
			boot(t, i);
	}
}

static void report(struct test *t, const struct db_view *view, unsigned lost, const char *why)
{
	printf("events=%016llx index=%llu acked=%u unknown=%u refused=%u dead=%u steps=%u "
	       "reads=%u+%u uses=%u/%u+%u boots=%u "
	       "snapshots=%u/%u rotten=%u frames=%llu dropped=%llu duplicated=%llu lost=%u "
	       "%s%s%s%s\n",
		(unsigned long long)world_hash(&t->w), (unsigned long long)db_view_index(view),
		t->load.n_acked, t->load.n_unknown, t->load.n_refused, t->load.n_dead,
		t->load.steps, t->load.n_reads, t->load.n_unread, t->load.n_uses, t->load.n_hops,
		t->load.n_unheld, t->n_boots, t->n_taken, t->n_sent, t->n_rotten,
		(unsigned long long)t->w.frames, (unsigned long long)t->w.dropped,
		(unsigned long long)t->w.duplicated, lost,
		t->hashes.diverged ? "DIVERGED" : "equal",
		t->load.disordered ? " DISORDERED"
		: t->overpromised  ? " OVERPROMISED"
		: t->load.stale	   ? " STALE"
		: t->load.back	   ? " BACK"
				   : "",
		*why != 0 ? " UNSOUND: " : "", why);
	for (unsigned i = 1; i <= MEMBERS && t->hashes.diverged; i++) {
		struct db_stat s;

		db_stat(t->lives[i].db, &s);
		printf("member=%u role=%d leader=%llu term=%llu index=%llu hash=%016llx\n", i,
			(int)s.role, (unsigned long long)s.leader, (unsigned long long)s.term,
			(unsigned long long)s.index, (unsigned long long)s.hash);
	}
}

static bool verify(struct test *t)
{
	uint64_t index[MEMBERS + 1], hash[MEMBERS + 1];
	unsigned lost = 0;
	bool ok = true;
	char why[256] = "";
	struct db_view view;

	for (unsigned i = 0; i < FOLLOWERS; i++)
		workload_follow(&t->load, i, &t->lives[1 + i]);
	for (unsigned i = 1; i <= MEMBERS; i++) {
		ok = db_check(t->lives[i].db, why, sizeof why) && ok;
		db_view_pin(t->lives[i].db, &view);
		index[i] = db_view_index(&view);
		hash[i] = db_view_hash(&view);
		lost += workload_lost(&t->load, &view);
		t->hashes.diverged |= index[i] != index[1] || hash[i] != hash[1];
		db_view_unpin(&view);
	}
	db_view_pin(t->lives[1].db, &view);
	ok = workload_once(&t->load, &view) && ok;
	if (mixed() && !rule_has_run(&view)) {
		printf("RULE NOT RUN ");
		ok = false;
	}
	if (mixed())
		printf("raised=%u anew=%u ", t->n_raised, t->load.n_anew);
	report(t, &view, lost, why);
	db_view_unpin(&view);
	return lost == 0 && !t->hashes.diverged && !t->load.disordered && !t->overpromised &&
	       !t->load.stale && !t->load.back && ok && t->load.n_acked > 50;
}

/* witness: the number of one; 0: none. */
static struct test *test_new(uint64_t seed, unsigned rules_off, unsigned witness)
{
	struct test *t = mem_new(sizeof *t);

	hashes_init(&t->hashes);
	t->rules_off = rules_off;
	world_init(&t->w, seed);
	workload_init(&t->load, &t->w);
	t->w.watch = on_sent;
	t->w.watch_arg = t;
	t->w.loss_permille = 10;
	for (unsigned i = 1; i <= MEMBERS; i++) {
		t->members[i - 1] = life_member(i, i);
		t->members[i - 1].witness = i == witness;
		image_bootstrap(&t->lives[i].image, MEMBERS);
	}
	for (unsigned i = 1; i <= MEMBERS; i++)
		boot(t, i);
	return t;
}

static void test_free(struct test *t)
{
	for (unsigned i = 1; i <= MEMBERS; i++)
		crash(t, i);
	world_fini(&t->w);
	for (unsigned i = 1; i <= MEMBERS; i++)
		image_fini(&t->lives[i].image);
	hashes_fini(&t->hashes);
	workload_fini(&t->load);
	free(t);
}

static bool nobody_works(void *arg)
{
	struct test *t = arg;
	unsigned n = 0;

	for (unsigned i = 1; i <= MEMBERS; i++)
		n += t->lives[i].n_users;
	return n == 0;
}

static bool run(uint64_t seed, unsigned rules_off, uint64_t *history_out, unsigned *sent_out)
{
	struct test *t = test_new(seed, rules_off, 0);
	bool ok;

	for (unsigned s = 0; s < 2 * FAULTS_S; s++) {
		if (s % 2 == 0)
			start_work(t);
		world_run(&t->w, t->w.now_us + 100000 + world_random(&t->w, 800000));
		follow_all(t);
		fault(t);
	}
	heal(t);
	start_work(t);
	world_run(&t->w, t->w.now_us + HEAL_S * 1000000);
	CHECK(world_until(&t->w, nobody_works, t, 60000));
	world_run(&t->w, t->w.now_us + 1000000);
	printf("seed=%llu ", (unsigned long long)seed);
	ok = verify(t);
	*history_out = world_hash(&t->w);
	*sent_out += t->n_sent;
	test_free(t);
	return ok;
}

/* Work for so long, whatever comes of it. */
static void work_for(struct test *t, unsigned seconds)
{
	for (unsigned s = 0; s < seconds; s++) {
		start_work(t);
		world_run(&t->w, t->w.now_us + 1000000);
	}
}

static unsigned leader_of(struct test *t)
{
	for (unsigned i = 1; i <= MEMBERS; i++)
		if (t->lives[i].up && db_is_coordinator(t->lives[i].db))
			return i;
	return 0;
}

static bool somebody_leads(void *arg)
{
	return leader_of(arg) != 0;
}

/* One member was away until only a snapshot can help it; then the leader dies, so the third can
 * commit nothing before that snapshot has arrived, over a link that breaks again and again. */
static bool install(uint64_t seed)
{
	struct test *t = test_new(seed, 0, 0);
	unsigned away, leader, third, before;
	bool ok;

	world_run(&t->w, 3000000);
	leader = leader_of(t);
	CHECK(leader != 0);
	away = leader % MEMBERS + 1;
	third = 6 - leader - away;
	crash(t, away);
	work_for(t, 6);
	crash(t, leader);
	boot(t, away);
	for (unsigned k = 0; k < 40; k++) {
		t->w.cut[away][third] = world_random(&t->w, 3) == 0;
		t->w.cut[third][away] = world_random(&t->w, 3) == 0;
		world_run(&t->w, t->w.now_us + 20000 + world_random(&t->w, 200000));
	}
	t->w.cut[away][third] = t->w.cut[third][away] = false;
	before = t->load.n_acked;
	work_for(t, 8);
	ok = t->load.n_acked > before;
	count_snapshots(t, &t->lives[third]);
	printf("seed=%llu acked=%u then=%u sent=%u %s\n", (unsigned long long)seed, before,
		t->load.n_acked, t->n_sent, ok ? "goes on" : "STUCK");
	heal(t);
	world_run(&t->w, t->w.now_us + HEAL_S * 1000000);
	ok = verify(t) && ok && t->n_sent > 0;
	test_free(t);
	return ok;
}

static bool installs_now(void *arg)
{
	struct life *l = arg;
	struct note n;

	consensus__note_load(&l->disk.base, &n);
	return n.installing != 0;
}

/* A follower that needs a snapshot is killed again and again while it installs one. Its old entries
 * are of the leader's term, which stays: nothing but the note tells them from new ones. */
static bool interrupted(uint64_t seed, unsigned rules_off, unsigned *left_out)
{
	enum { KILLS = 3 };
	struct test *t = test_new(seed, rules_off, 0);
	unsigned leader, away, killed = 0;
	bool ok;

	world_run(&t->w, 3000000);
	leader = leader_of(t);
	CHECK(leader != 0);
	away = leader % MEMBERS + 1;
	for (unsigned k = 0; k < KILLS; k++) {
		work_for(t, 1);
		crash(t, away);
		work_for(t, 2); /* until it needs a snapshot */
		boot(t, away);
		if (!world_until(&t->w, installs_now, &t->lives[away], 3000))
			continue;
		world_run(&t->w, t->w.now_us + world_random(&t->w, 12000));
		crash(t, away);
		boot(t, away);
		killed++;
	}
	work_for(t, 2);
	heal(t);
	world_run(&t->w, t->w.now_us + HEAL_S * 1000000);
	CHECK(world_until(&t->w, nobody_works, t, 60000));
	*left_out += t->lives[away].image.n_leftover;
	printf("seed=%llu away=%u killed=%u left=%u aside=%u ", (unsigned long long)seed, away,
		killed, t->lives[away].image.n_leftover, t->lives[away].image.n_aside);
	ok = verify(t) && t->lives[away].image.n_aside == 0;
	test_free(t);
	return ok;
}

/* The leader is cut off and starved of time, so it does not notice that another leads. Whoever
 * reads there must not be told what was true before. */
static bool deposed(uint64_t seed, unsigned rules_off)
{
	struct test *t = test_new(seed, rules_off, 0);
	unsigned leader, before;
	bool ok;

	world_run(&t->w, 3000000 + world_random(&t->w, 500000));
	leader = leader_of(t);
	CHECK(leader != 0);
	work_for(t, 1);
	t->lives[leader].disk.stalled = true;
	for (unsigned i = 1; i <= MEMBERS; i++)
		t->w.cut[leader][i] = t->w.cut[i][leader] = i != leader;
	before = t->load.n_acked;
	work_for(t, 5);
	ok = t->load.n_acked > before && leader_of(t) != 0;
	t->lives[leader].disk.stalled = false;
	heal(t);
	world_run(&t->w, t->w.now_us + HEAL_S * 1000000);
	CHECK(world_until(&t->w, nobody_works, t, 60000));
	printf("seed=%llu deposed=%u ", (unsigned long long)seed, leader);
	ok = verify(t) && ok;
	test_free(t);
	return ok;
}

static bool the_witness_leads(void *arg)
{
	struct test *t = arg;
	struct db_stat s;

	db_stat(t->lives[MEMBERS].db, &s);
	return s.role >= CONSENSUS_LEADER;
}

/* Until the witness leads, nobody else stands for election. */
static bool only_the_witness(void *arg, unsigned from, unsigned to, uint8_t type, size_t n)
{
	enum { VOTE = CHANNEL_RAFT_FIRST + 2 };
	struct test *t = arg;

	(void)to, (void)n;
	t->witness_led |= the_witness_leads(t);
	return type == VOTE && from != MEMBERS && !t->witness_led;
}

static bool a_host_leads(void *arg)
{
	unsigned leader = leader_of(arg);

	return leader != 0 && leader != MEMBERS;
}

static bool has_led(void *arg)
{
	return ((struct test *)arg)->witness_led;
}

/* A witness that is elected hands the lead over to a host, and is never handed it. It is not
 * elected where the other has more of the log: led_out counts. */
static bool witnessed(uint64_t seed, unsigned *led_out)
{
	struct test *t = test_new(seed, 0, MEMBERS);
	unsigned leader, before;
	bool ok;

	CHECK(world_until(&t->w, somebody_leads, t, 10000));
	ok = world_until(&t->w, a_host_leads, t, 1000);
	work_for(t, 1);
	leader = leader_of(t);
	t->w.filter = only_the_witness;
	t->w.filter_arg = t;
	crash(t, leader);
	before = t->load.n_acked;
	*led_out += world_until(&t->w, has_led, t, 5000);
	t->witness_led = true; /* the other may stand now */
	work_for(t, 10);
	ok = ok && a_host_leads(t) && t->load.n_acked > before;
	heal(t);
	world_run(&t->w, t->w.now_us + HEAL_S * 1000000);
	for (unsigned k = 0; k < 6 && ok; k++) {
		db_step_down(t->lives[leader_of(t)].db);
		ok = !world_until(&t->w, the_witness_leads, t, 1500) && a_host_leads(t);
	}
	work_for(t, 4);
	world_run(&t->w, t->w.now_us + HEAL_S * 1000000);
	CHECK(world_until(&t->w, nobody_works, t, 60000));
	printf("seed=%llu lost=%u leads=%u %s ", (unsigned long long)seed, leader, leader_of(t),
		ok ? "handed over" : "THE WITNESS LEADS");
	ok = verify(t) && ok;
	test_free(t);
	return ok;
}

/* Each session once at member i, to the end. */
static void use_all(struct test *t, unsigned i)
{
	workload_use_all(&t->lives[i]);
	CHECK(world_until(&t->w, nobody_works, t, 60000));
}

/* The leader dies, and of the two that are left nobody uses the one that leads. The sessions of the
 * dead one are taken over by the other all the same, once its lease has run out. */
static bool unused(uint64_t seed)
{
	enum { LONGEST_MS = 4000 }; /* a lease and its slack, an election, a call */
	struct test *t = test_new(seed, 0, 0);
	unsigned leader, other;
	bool ok;

	world_run(&t->w, 3000000 + world_random(&t->w, 500000));
	work_for(t, 1);
	CHECK(world_until(&t->w, nobody_works, t, 60000));
	leader = leader_of(t);
	CHECK(leader != 0);
	use_all(t, leader);
	/* long enough for what it was used for before to be over, where it will lead */
	world_run(&t->w, t->w.now_us + world_random(&t->w, 4000000));
	crash(t, leader);
	CHECK(world_until(&t->w, somebody_leads, t, 10000));
	other = 6 - leader - leader_of(t);
	t->load.longest_us = t->load.n_unheld = 0;
	use_all(t, other);
	ok = t->load.n_unheld == 0 && t->load.longest_us < LONGEST_MS * 1000;
	printf("seed=%llu leader=%u then=%u asked=%u longest_ms=%llu %s\n",
		(unsigned long long)seed, leader, leader_of(t), other,
		(unsigned long long)t->load.longest_us / 1000, ok ? "taken over" : "WAITED");
	heal(t);
	work_for(t, 6); /* what verify() wants to have seen */
	world_run(&t->w, t->w.now_us + HEAL_S * 1000000);
	CHECK(world_until(&t->w, nobody_works, t, 60000));
	ok = verify(t) && ok;
	test_free(t);
	return ok;
}

/* Entries for the leader, as member `from` sends them. */
static void ask_of(struct test *t, unsigned leader, unsigned from, unsigned first, unsigned n)
{
	struct db *db = t->lives[leader].db;
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];

	for (unsigned k = first; k < first + n; k++) {
		struct val fields[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
		struct db_proposal_id id = { from, 1, k };
		struct buf b = { 0 };
		struct db_txn txn;

		snprintf(uuid, sizeof uuid, "00000000-0000-4000-9000-%012u", k);
		snprintf(ref, sizeof ref, "OpaqueRef:%s", uuid);
		db_txn_init(&txn, DB_FOR_FIELD);
		txn.schema =
			db->views.root->schema != 0 ? db->views.root->schema : db->views.schema_max;
		fields[VM_uuid] = val_string(uuid);
		db_txn_create(&txn, MODEL_CLASS_VM, ref, fields);
		db_txn_encode(&txn, &id, 1, &b);
		db_txn_fini(&txn);
		CHECK(db__proposal_frame(db, from, CHANNEL_PROPOSAL_FIRST, b.data, b.len) == 0);
		buf_fini(&b);
	}
}

static bool there_are(struct test *t, unsigned rows)
{
	bool ok = !t->hashes.diverged;

	for (unsigned i = 1; i <= MEMBERS; i++) {
		struct db_view view;

		db_view_pin(t->lives[i].db, &view);
		ok = ok && db_view_count(&view, MODEL_CLASS_VM) == rows;
		db_view_unpin(&view);
	}
	return ok;
}

/* More entries at once than a leader holds: what is beyond it is dropped, and taken when it is
 * asked again. */
static bool feed_is_bounded(uint64_t seed)
{
	enum { MORE = 500 };
	struct test *t = test_new(seed, 0, 0);
	unsigned leader, from;
	struct db *db;
	bool ok;

	t->w.loss_permille = 0;
	world_run(&t->w, 3000000);
	leader = leader_of(t);
	CHECK(leader != 0);
	from = leader % MEMBERS + 1;
	db = t->lives[leader].db;
	ask_of(t, leader, from, 1, DB_FEED_MAX + MORE);
	ok = db->n_feed == DB_FEED_MAX &&
	     counter_get(&t->lives[leader].m->env.counters, COUNTER_proposals_full) == MORE;
	world_run(&t->w, t->w.now_us + HEAL_S * 1000000);
	ok = ok && there_are(t, DB_FEED_MAX);
	ask_of(t, leader, from, DB_FEED_MAX + 1, MORE);
	world_run(&t->w, t->w.now_us + HEAL_S * 1000000);
	ok = ok && there_are(t, DB_FEED_MAX + MORE);
	printf("seed=%llu feed %s\n", (unsigned long long)seed, ok ? "bounded" : "NOT BOUNDED");
	test_free(t);
	return ok;
}

static int installs(unsigned n)
{
	unsigned failed = 0, led = 0, left = 0;

	for (uint64_t seed = 1; seed <= n; seed++)
		failed +=
			!install(seed) + !deposed(seed, 0) + !unused(seed) + !witnessed(seed, &led);
	for (uint64_t seed = 1; seed <= n / 2 + 1; seed++)
		failed += !interrupted(seed, 0, &left);
	failed += !feed_is_bounded(1);
	if (left == 0) {
		printf("no installation was ever interrupted: the schedule does not reach it\n");
		failed++;
	}
	if (led == 0) {
		printf("no witness was ever elected: the schedule does not reach what it is for\n");
		failed++;
	}
	printf("%u passed, %u failed\n", 4 * n + n / 2 + 2 - failed, failed);
	return failed > 0;
}

static const struct {
	const char *name;
	unsigned rule;
} rules[] = { { "masking", RULE_MASKING }, { "vouched", RULE_VOUCHED }, { "clamp", RULE_CLAMP },
	{ "deduplication", RULE_DEDUPLICATION }, { "preconditions", RULE_PRECONDITIONS },
	{ "note", RULE_NOTE }, { "barrier", RULE_BARRIER }, { "confirm", RULE_CONFIRM },
	{ "floor", RULE_FLOOR }, { "lease", RULE_LEASE }, { "preflight", RULE_PREFLIGHT } };

/* A schedule that ends in an assertion or a stopped library has found it too: each runs in a
 * process of its own. */
static bool found_by(uint64_t seed, unsigned rule)
{
	uint64_t history;
	unsigned count = 0;
	int status;
	bool ok;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		ok = rule == RULE_CONFIRM     ? deposed(seed, rule)
		     : rule == RULE_PREFLIGHT ? interrupted(seed, rule, &count)
					      : run(seed, rule, &history, &count);
		_exit(ok ? 0 : 1);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	return status != 0;
}

/* A bit of one member's state flips in its memory: it stops at the next comparison, and comes back
 * with what the others have. */
static bool stray(uint64_t seed, unsigned rules_off)
{
	struct test *t = test_new(seed, rules_off, 0);
	unsigned a = 1 + (unsigned)world_random(&t->w, MEMBERS);
	bool stopped = false, ok;

	t->straying = true;
	work_for(t, 4);
	((struct db_state *)t->lives[a].db->views.root)->hash ^= 1;
	for (unsigned k = 0; k < 6 && !stopped; k++) {
		work_for(t, 1);
		stopped = !t->lives[a].m->alive;
	}
	heal(t);
	work_for(t, 6);
	world_run(&t->w, t->w.now_us + HEAL_S * 1000000);
	printf("seed=%llu member=%u %s ", (unsigned long long)seed, a,
		stopped ? "stopped" : "GOES ON");
	ok = verify(t) && stopped && t->lives[a].image.n_aside == 1;
	test_free(t);
	return ok;
}

static int strays(unsigned n)
{
	unsigned failed = 0;

	for (uint64_t seed = 1; seed <= n; seed++)
		failed += !stray(seed, 0);
	if (stray(1, RULE_HASH)) {
		printf("without the comparison nobody stops, and yet all is well?\n");
		failed++;
	}
	printf("%u passed, %u failed\n", n - (failed > n ? n : failed), failed);
	return failed > 0;
}

static int without(const char *name, unsigned n)
{
	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		if (strcmp(name, rules[i].name) != 0)
			continue;
		for (uint64_t seed = 1; seed <= n; seed++) {
			if (!found_by(seed, rules[i].rule))
				continue;
			printf("without %s: found by seed %llu\n1 passed, 0 failed\n", name,
				(unsigned long long)seed);
			return 0;
		}
		printf("without %s: not found by %u seeds\n0 passed, 1 failed\n", name, n);
		return 1;
	}
	fprintf(stderr, "no such rule: %s\n", name);
	return 2;
}

int main(int argc, char **argv)
{
	uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, history, again;
	unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 5, failed = 0, sent = 0;

	if (argc == 3 && strcmp(argv[1], "--install") == 0)
		return installs((unsigned)atoi(argv[2]));
	if (argc == 3 && strcmp(argv[1], "--stray") == 0)
		return strays((unsigned)atoi(argv[2]));
	if (argc == 4 && strcmp(argv[1], "--without") == 0)
		return without(argv[2], (unsigned)atoi(argv[3]));
	for (unsigned k = 0; k < n; k++)
		failed += !run(first + k, 0, &history, &sent);
	run(first + n - 1, 0, &again, &sent);
	if (n >= 5 && sent == 0) {
		printf("no snapshot was ever sent: the schedules do not reach what they are for\n");
		failed++;
	}
	if (again != history) {
		printf("seed=%llu is not the same history when run again\n",
			(unsigned long long)(first + n - 1));
		failed++;
	}
	printf("%u passed, %u failed\n", n - (failed > n ? n : failed), failed);
	return failed > 0;
}
