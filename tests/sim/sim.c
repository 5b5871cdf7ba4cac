/* Random schedules: three members with the product's database, channel, guard and network half on
 * virtual time, under loss, duplication, delays longer than elections, cuts (one way too), crashes
 * that tear or lose unsynced writes, disk errors, disks that lose synced writes, slow disks,
 * snapshots and restarts. Jobs on each member commit transactions, raise one counter by comparing
 * and setting, follow the changes with a token from member to member, look behind a read index, and
 * use sessions on all members. Checked:
 *  - no two members ever had different hashes at the same index;
 *  - everything acknowledged is there unless it was deleted, what was deleted stays so and its
 *    devices with it, and nothing was done twice: no fresh row is refused, the
 *    counter stands at no less than its acknowledged and no more than its possible steps;
 *  - behind a read index everything is visible that was acknowledged anywhere before it was asked
 * for;
 *  - no call of a session sees less than an earlier one was shown or acknowledged, anywhere;
 *  - a follower of changes sees each row made and deleted exactly once, in order, wherever it asks;
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
#include "db/floor.h"
#include "db/snapshot_priv.h"
#include "tests/sim/life.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MEMBERS = 3, FAULTS_S = 24, HEAL_S = 12, ACKED_MAX = 200000 };

#define COUNTER_REF "OpaqueRef:counter"

enum { FOLLOWERS = 2, SESSIONS = 3 };

/* A client of events: the index it has seen, and how many rows there are by what it was told. */
struct follower {
	struct test *t;
	uint64_t token;
	unsigned n_there;
};

/* What has become of an acknowledged row. */
enum fate { KEPT, DELETED, PERHAPS };

struct test {
	struct world w;
	bool rotten[MEMBERS + 1]; /* and not whole again */
	bool straying;		  /* one member's state was changed on purpose */
	struct life lives[MEMBERS + 1];
	struct db_member members[MEMBERS];
	struct hashes hashes;
	char (*acked)[DB_REF_MAX + 1];
	uint8_t *fates; /* enum fate, by the same place */
	unsigned n_acked, n_unknown, n_refused, n_dead, n_boots, n_taken, n_sent, n_rotten;
	unsigned steps, maybe_steps; /* of the counter: acknowledged, unknown */
	unsigned rules_off;
	uint64_t acked_index; /* the largest that was acknowledged anywhere */
	unsigned n_reads, n_unread;
	uint64_t shown[SESSIONS]; /* the largest index that an ended call of it saw */
	unsigned n_uses, n_hops, n_unheld, n_users; /* n_users: jobs that run */
	uint64_t longest_us;			    /* call of a session in round_main */
	unsigned schemas[MEMBERS + 1];		    /* what each runs */
	unsigned n_raised, n_anew; /* entries applied behind the raise; refused for it */
	bool healing, witness_led;
	bool disordered, overpromised, stale, back;
	struct follower followers[FOLLOWERS];
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

static bool mixed(void)
{
	return MODEL_SCHEMA_VERSION > MODEL_SCHEMA_BASE;
}

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

/* Work: what a member's clients would do. */

struct work {
	struct life *l;
	unsigned n;
};

/* It goes with its VM. */
static void compose_device(struct db_txn *txn, const char *vm, const char *uuid)
{
	struct val fields[VBD_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char ref[DB_REF_MAX + 1];

	snprintf(ref, sizeof ref, "OpaqueRef:d-%s", uuid);
	fields[VBD_uuid] = val_string(ref + strlen("OpaqueRef:"));
	fields[VBD_VM] = val_string(vm);
	db_txn_create(txn, MODEL_CLASS_VBD, ref, fields);
}

static void compose(
	struct test *t, struct db_txn *txn, const char *ref, const char *uuid, unsigned k)
{
	struct val fields[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct val_pair note = { "notes", val_string(uuid) };
	const char *other = t->n_acked > 0 ? t->acked[world_random(&t->w, t->n_acked)] : ref;

	db_txn_init(txn, DB_FOR_FIELD);
	db_txn_need_no_row(txn, MODEL_CLASS_VM, ref);
	fields[VM_uuid] = val_string(uuid);
	fields[VM_name_label] = val_string(k % 3 ? "a" : "b");
	fields[VM_resident_on] = val_string(k % 2 ? "OpaqueRef:h1" : "OpaqueRef:h2");
	fields[VM_snapshot_of] = val_string(other);
	if (mixed())
		fields[VM_other_config] =
			(struct val){ .kind = VAL_MAP, .pairs = &note, .n = 1, .cap = 1 };
	db_txn_create(txn, MODEL_CLASS_VM, ref, fields);
	if (k % 2 == 0)
		compose_device(txn, ref, uuid);
	if (other != ref) {
		db_txn_set(txn, MODEL_CLASS_VM, other, VM_name_label, val_string(uuid));
		db_txn_map_add(txn, MODEL_CLASS_VM, other, VM_other_config, k % 4 ? "k" : uuid,
			val_string(ref));
		db_txn_map_remove(txn, MODEL_CLASS_VM, other, VM_other_config, "k");
		db_txn_set_add(txn, MODEL_CLASS_VM, other, VM_tags, val_string(k % 5 ? "t" : "u"));
	}
}

static int commit(struct job *job, struct life *l, struct db_txn *txn, struct db_result *res)
{
	int rc = db_commit(job, l->db, txn, res);

	db_txn_fini(txn);
	if (rc == 0 && res->status == DB_DONE && res->index > l->t->acked_index)
		l->t->acked_index = res->index;
	return rc;
}

/* 0, ERR_DEAD. */
static int delete_one(struct job *job, struct life *l)
{
	struct test *t = l->t;
	unsigned k = (unsigned)world_random(&t->w, t->n_acked);
	struct db_result res;
	struct db_txn txn;
	int rc;

	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_delete(&txn, MODEL_CLASS_VM, t->acked[k]);
	rc = commit(job, l, &txn, &res);
	if (rc == 0 && res.status == DB_DONE)
		t->fates[k] = DELETED;
	else if (t->fates[k] != DELETED)
		t->fates[k] = PERHAPS;
	err_fini(&res.err);
	return rc;
}

static void work_main(struct job *job, void *arg)
{
	struct work *wk = arg;
	struct test *t = wk->l->t;
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct db_result res;
	struct db_txn txn;
	int rc = 0;

	for (unsigned k = 0; k < wk->n && rc != ERR_DEAD; k++) {
		env_uuid(job->env, uuid);
		snprintf(ref, sizeof ref, "OpaqueRef:%s", uuid);
		compose(t, &txn, ref, uuid, k);
		rc = commit(job, wk->l, &txn, &res);
		if (rc == ERR_DEAD)
			t->n_dead++;
		else if (res.status == DB_DONE)
			strcpy(t->acked[t->n_acked++], ref);
		else if (res.status == DB_UNKNOWN)
			t->n_unknown++;
		else if (res.failed == APPLY_SCHEMA)
			t->n_anew++;
		else
			t->n_refused++;
		err_fini(&res.err);
		CHECK(t->n_acked < ACKED_MAX);
		if (rc == 0 && k % 4 == 3 && t->n_acked > 0)
			rc = delete_one(job, wk->l);
		if (rc == 0)
			rc = job_sleep(job, world_random(&t->w, 60));
	}
	free(wk);
}

static void make_counter(struct db_txn *txn)
{
	struct val fields[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };

	db_txn_need_no_row(txn, MODEL_CLASS_VM, COUNTER_REF);
	fields[VM_uuid] = val_string("counter");
	db_txn_create(txn, MODEL_CLASS_VM, COUNTER_REF, fields);
}

/* The counter: read, compare and set. A step whose outcome is unknown may have been done. */

static void count_main(struct job *job, void *arg)
{
	struct life *l = arg;
	struct test *t = l->t;
	struct db_result res;
	struct db_txn txn;
	int rc = 0;

	for (unsigned k = 0; k < 10 && rc == 0; k++) {
		struct db_view view;
		const struct db_row *row;
		int64_t value;

		db_view_pin(l->db, &view);
		row = db_view_get(&view, MODEL_CLASS_VM, COUNTER_REF);
		value = row != NULL ? db_row_i(row, VM_user_version) : 0;
		db_txn_init(&txn, DB_FOR_FIELD);
		if (row == NULL)
			make_counter(&txn);
		else
			db_txn_need_field(
				&txn, MODEL_CLASS_VM, COUNTER_REF, VM_user_version, val_int(value));
		db_txn_set(&txn, MODEL_CLASS_VM, COUNTER_REF, VM_user_version, val_int(value + 1));
		db_view_unpin(&view);
		rc = commit(job, l, &txn, &res);
		t->steps += rc == 0 && res.status == DB_DONE;
		t->maybe_steps += rc == ERR_DEAD || res.status == DB_UNKNOWN;
		err_fini(&res.err);
		if (rc == 0)
			rc = job_sleep(job, world_random(&t->w, 60));
	}
}

/* Readers: what was acknowledged before they ask is there behind a read index. */
static void read_main(struct job *job, void *arg)
{
	struct life *l = arg;
	struct test *t = l->t;
	int rc = 0;

	for (unsigned k = 0; k < 20 && rc != ERR_DEAD; k++) {
		uint64_t need = t->acked_index;
		struct db_view view;

		rc = db_read_wait(job, l->db);
		if (rc == 0) {
			db_view_pin(l->db, &view);
			t->stale |= db_view_index(&view) < need;
			db_view_unpin(&view);
		}
		t->n_reads += rc == 0;
		t->n_unread += rc == ERR_TIMEOUT;
		if (rc != ERR_DEAD)
			rc = job_sleep(job, world_random(&t->w, 40));
	}
}

/* Sessions: calls on all members at once. */

struct use_call {
	struct wait wait; /* first */
	struct db_use use;
};

static void use_fini(struct wait *w)
{
	free(container_of(w, struct use_call, wait));
}

static void use_done(struct db_use *u)
{
	wait_done(&container_of(u, struct use_call, use)->wait);
}

/* 0: out is inside; ERR_TIMEOUT: no leader; ERR_DEAD. */
static int enter(struct job *job, struct life *l, unsigned session, struct use_call **out)
{
	uint8_t key[DB_KEY_LEN] = { (uint8_t)session };
	struct use_call *uc = mem_new(sizeof *uc);
	int rc = 0;

	wait_init(&uc->wait, job, use_fini);
	if (db_use_enter(l->db, &uc->use, key, l->loop, use_done))
		wait_done(&uc->wait);
	else
		l->t->n_hops++;
	rc = wait_join(&uc->wait, UINT64_MAX, false);
	if (rc == 0 && !uc->use.ok) {
		l->t->n_unheld++;
		rc = ERR_TIMEOUT;
	}
	*out = uc;
	return rc;
}

/* The session may have been taken while the call ran: hold it once more, then the answer goes out.
 */
static int leave(struct job *job, struct life *l, unsigned session, struct use_call **uc)
{
	int rc = 0;

	while (rc == 0 && !db_use_leave(l->db, &(*uc)->use)) {
		wait_drop(&(*uc)->wait);
		rc = enter(job, l, session, uc);
	}
	return rc;
}

static int session_write(struct job *job, struct life *l, uint64_t *index_out)
{
	struct db_result res;
	struct db_txn txn;
	int rc;

	db_txn_init(&txn, DB_FOR_SESSION);
	rc = commit(job, l, &txn, &res);
	if (rc == 0 && res.status == DB_DONE)
		*index_out = res.index;
	err_fini(&res.err);
	return rc;
}

/* One call: 0, ERR_TIMEOUT, ERR_DEAD. */
static int session_call(struct job *job, struct life *l, unsigned session)
{
	struct test *t = l->t;
	uint64_t need = t->shown[session], saw;
	struct use_call *uc;
	struct db_view view;
	int rc = enter(job, l, session, &uc);

	if (rc == 0) {
		db_view_pin(l->db, &view);
		saw = db_view_index(&view);
		db_view_unpin(&view);
		if (world_random(&t->w, 4) == 0)
			rc = job_sleep(job, world_random(&t->w, 200));
		if (rc == 0 && world_random(&t->w, 3) == 0) {
			db_use_leave(l->db, &uc->use);
			wait_drop(&uc->wait);
			rc = session_write(job, l, &saw);
			if (rc == ERR_DEAD)
				return rc;
			rc = enter(job, l, session, &uc);
		}
	}
	if (rc == 0)
		rc = leave(job, l, session, &uc);
	if (rc == 0) {
		t->n_uses++;
		t->back |= saw < need;
		if (saw > t->shown[session])
			t->shown[session] = saw;
	}
	wait_drop(&uc->wait);
	return rc;
}

static void session_main(struct job *job, void *arg)
{
	struct life *l = arg;
	int rc = 0;

	l->t->n_users++;
	for (unsigned k = 0; k < 15 && rc != ERR_DEAD; k++) {
		rc = session_call(job, l, (unsigned)world_random(&l->t->w, SESSIONS));
		if (rc != ERR_DEAD)
			rc = job_sleep(job, world_random(&l->t->w, 40));
	}
	l->t->n_users--;
}

/* Each session once, in one place. */
static void round_main(struct job *job, void *arg)
{
	struct life *l = arg;
	int rc = 0;

	for (unsigned k = 0; k < SESSIONS && rc != ERR_DEAD; k++) {
		uint64_t began_us = l->t->w.now_us;

		rc = session_call(job, l, k);
		if (l->t->w.now_us - began_us > l->t->longest_us)
			l->t->longest_us = l->t->w.now_us - began_us;
	}
	l->t->n_users--;
}

/* Followers of changes. One asks a member for what has changed behind its token; a member that has
 * not come so far yet is asked later. */
static void follow(struct follower *f, struct life *l)
{
	struct db_view view;
	struct db_cursor c;
	struct db_gone gone;
	const struct db_row *row;
	uint64_t last = f->token;

	db_view_pin(l->db, &view);
	if (db_view_index(&view) >= f->token) {
		c = db_rows_modified(&view, MODEL_CLASS_VM, f->token);
		while ((row = db_next(&c)) != NULL) {
			f->t->disordered |= db_row_modified(row) < last;
			last = db_row_modified(row);
			f->n_there += db_row_created(row) > f->token;
		}
		c = db_deleted(&view, MODEL_CLASS_VM, f->token);
		for (last = f->token; db_next_deleted(&c, &gone); last = gone.deleted) {
			f->t->disordered |= gone.deleted < last;
			f->n_there -= gone.created <= f->token;
		}
		f->t->disordered |= f->token < db_view_horizon(&view, MODEL_CLASS_VM);
		f->token = db_view_index(&view);
	}
	db_view_unpin(&view);
}

static void follow_all(struct test *t)
{
	for (unsigned i = 0; i < FOLLOWERS; i++) {
		struct life *l = &t->lives[1 + world_random(&t->w, MEMBERS)];

		if (l->up && l->m->alive)
			follow(&t->followers[i], l);
	}
}

static void start_work(struct test *t)
{
	for (unsigned i = 1; i <= MEMBERS; i++) {
		struct life *l = &t->lives[i];

		for (unsigned k = 0; l->up && k < 2; k++) {
			struct work *wk = mem_new(sizeof *wk);

			*wk = (struct work){ l, 10 };
			CHECK(lane_submit(l->lane, "", work_main, wk, NULL) == 0);
		}
		if (l->up)
			CHECK(lane_submit(l->lane, "", count_main, l, NULL) == 0 &&
				lane_submit(l->lane, "", read_main, l, NULL) == 0 &&
				lane_submit(l->lane, "", session_main, l, NULL) == 0);
	}
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

/* Each row was made and deleted once for a follower: as many are there as there are. The counter
 * has had every step that was acknowledged and none that nobody asked for. */
static bool once(struct test *t, const struct db_view *view)
{
	const struct db_row *row = db_view_get(view, MODEL_CLASS_VM, COUNTER_REF);
	int64_t value = row != NULL ? db_row_i(row, VM_user_version) : 0;
	bool ok = value >= t->steps && value <= t->steps + t->maybe_steps && t->n_refused == 0;

	for (unsigned i = 0; i < FOLLOWERS; i++)
		ok = ok && t->followers[i].n_there == db_view_count(view, MODEL_CLASS_VM);
	if (!ok)
		printf("NOT ONCE: counter=%lld steps=%u+%u refused=%u rows=%llu told=%u,%u ",
			(long long)value, t->steps, t->maybe_steps, t->n_refused,
			(unsigned long long)db_view_count(view, MODEL_CLASS_VM),
			t->followers[0].n_there, t->followers[1].n_there);
	return ok;
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

static unsigned lost_rows(struct test *t, const struct db_view *view)
{
	unsigned lost = 0;

	struct db_cursor c = db_rows(view, MODEL_CLASS_VBD);
	const struct db_row *device;

	for (unsigned k = 0; k < t->n_acked; k++)
		lost += t->fates[k] != PERHAPS && (db_view_get(view, MODEL_CLASS_VM, t->acked[k]) ==
							  NULL) != (t->fates[k] == DELETED);
	while ((device = db_next(&c)) != NULL)
		lost += db_view_get(view, MODEL_CLASS_VM, db_row_s(device, VBD_VM)) == NULL;
	return lost;
}

static void report(struct test *t, const struct db_view *view, unsigned lost, const char *why)
{
	printf("events=%016llx index=%llu acked=%u unknown=%u refused=%u dead=%u steps=%u "
	       "reads=%u+%u uses=%u/%u+%u boots=%u "
	       "snapshots=%u/%u rotten=%u frames=%llu dropped=%llu duplicated=%llu lost=%u "
	       "%s%s%s%s\n",
		(unsigned long long)world_hash(&t->w), (unsigned long long)db_view_index(view),
		t->n_acked, t->n_unknown, t->n_refused, t->n_dead, t->steps, t->n_reads,
		t->n_unread, t->n_uses, t->n_hops, t->n_unheld, t->n_boots, t->n_taken, t->n_sent,
		t->n_rotten, (unsigned long long)t->w.frames, (unsigned long long)t->w.dropped,
		(unsigned long long)t->w.duplicated, lost,
		t->hashes.diverged ? "DIVERGED" : "equal",
		t->disordered	  ? " DISORDERED"
		: t->overpromised ? " OVERPROMISED"
		: t->stale	  ? " STALE"
		: t->back	  ? " BACK"
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
		follow(&t->followers[i], &t->lives[1 + i]);
	for (unsigned i = 1; i <= MEMBERS; i++) {
		ok = db_check(t->lives[i].db, why, sizeof why) && ok;
		db_view_pin(t->lives[i].db, &view);
		index[i] = db_view_index(&view);
		hash[i] = db_view_hash(&view);
		lost += lost_rows(t, &view);
		t->hashes.diverged |= index[i] != index[1] || hash[i] != hash[1];
		db_view_unpin(&view);
	}
	db_view_pin(t->lives[1].db, &view);
	ok = once(t, &view) && ok;
	if (mixed() && !rule_has_run(&view)) {
		printf("RULE NOT RUN ");
		ok = false;
	}
	if (mixed())
		printf("raised=%u anew=%u ", t->n_raised, t->n_anew);
	report(t, &view, lost, why);
	db_view_unpin(&view);
	return lost == 0 && !t->hashes.diverged && !t->disordered && !t->overpromised &&
	       !t->stale && !t->back && ok && t->n_acked > 50;
}

/* witness: the number of one; 0: none. */
static struct test *test_new(uint64_t seed, unsigned rules_off, unsigned witness)
{
	struct test *t = mem_new(sizeof *t);

	hashes_init(&t->hashes);
	t->acked = mem_new(ACKED_MAX * sizeof *t->acked);
	t->fates = mem_new(ACKED_MAX * sizeof *t->fates);
	t->rules_off = rules_off;
	world_init(&t->w, seed);
	for (unsigned i = 0; i < FOLLOWERS; i++)
		t->followers[i].t = t;
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
	free(t->acked);
	free(t->fates);
	free(t);
}

static bool nobody_works(void *arg)
{
	struct test *t = arg;

	return t->n_users == 0;
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
	before = t->n_acked;
	work_for(t, 8);
	ok = t->n_acked > before;
	count_snapshots(t, &t->lives[third]);
	printf("seed=%llu acked=%u then=%u sent=%u %s\n", (unsigned long long)seed, before,
		t->n_acked, t->n_sent, ok ? "goes on" : "STUCK");
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
	before = t->n_acked;
	work_for(t, 5);
	ok = t->n_acked > before && leader_of(t) != 0;
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
	before = t->n_acked;
	*led_out += world_until(&t->w, has_led, t, 5000);
	t->witness_led = true; /* the other may stand now */
	work_for(t, 10);
	ok = ok && a_host_leads(t) && t->n_acked > before;
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
	t->n_users++;
	CHECK(lane_submit(t->lives[i].lane, "", round_main, &t->lives[i], NULL) == 0);
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
	t->longest_us = t->n_unheld = 0;
	use_all(t, other);
	ok = t->n_unheld == 0 && t->longest_us < LONGEST_MS * 1000;
	printf("seed=%llu leader=%u then=%u asked=%u longest_ms=%llu %s\n",
		(unsigned long long)seed, leader, leader_of(t), other,
		(unsigned long long)t->longest_us / 1000, ok ? "taken over" : "WAITED");
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
