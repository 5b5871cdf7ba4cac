#include "tests/sim/workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ACKED_MAX = 200000 };

#define COUNTER_REF "OpaqueRef:counter"

/* What has become of an acknowledged row. */
enum fate { KEPT, DELETED, PERHAPS };

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
	struct workload *wl, struct db_txn *txn, const char *ref, const char *uuid, unsigned k)
{
	struct val fields[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct val_pair note = { "notes", val_string(uuid) };
	const char *other = wl->n_acked > 0 ? wl->acked[world_random(wl->w, wl->n_acked)] : ref;

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
	if (rc == 0 && res->status == DB_DONE && res->index > l->load->acked_index)
		l->load->acked_index = res->index;
	return rc;
}

/* 0, ERR_DEAD. */
static int delete_one(struct job *job, struct life *l)
{
	struct workload *wl = l->load;
	unsigned k = (unsigned)world_random(wl->w, wl->n_acked);
	struct db_result res;
	struct db_txn txn;
	int rc;

	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_delete(&txn, MODEL_CLASS_VM, wl->acked[k]);
	rc = commit(job, l, &txn, &res);
	if (rc == 0 && res.status == DB_DONE)
		wl->fates[k] = DELETED;
	else if (wl->fates[k] != DELETED)
		wl->fates[k] = PERHAPS;
	err_fini(&res.err);
	return rc;
}

static void work_main(struct job *job, void *arg)
{
	struct work *wk = arg;
	struct workload *wl = wk->l->load;
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct db_result res;
	struct db_txn txn;
	int rc = 0;

	for (unsigned k = 0; k < wk->n && rc != ERR_DEAD; k++) {
		env_uuid(job->env, uuid);
		snprintf(ref, sizeof ref, "OpaqueRef:%s", uuid);
		compose(wl, &txn, ref, uuid, k);
		rc = commit(job, wk->l, &txn, &res);
		if (rc == ERR_DEAD)
			wl->n_dead++;
		else if (res.status == DB_DONE)
			strcpy(wl->acked[wl->n_acked++], ref);
		else if (res.status == DB_UNKNOWN)
			wl->n_unknown++;
		else if (res.failed == APPLY_SCHEMA)
			wl->n_anew++;
		else
			wl->n_refused++;
		err_fini(&res.err);
		CHECK(wl->n_acked < ACKED_MAX);
		if (rc == 0 && k % 4 == 3 && wl->n_acked > 0)
			rc = delete_one(job, wk->l);
		if (rc == 0)
			rc = job_sleep(job, world_random(wl->w, 60));
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
	struct workload *wl = l->load;
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
		wl->steps += rc == 0 && res.status == DB_DONE;
		wl->maybe_steps += rc == ERR_DEAD || res.status == DB_UNKNOWN;
		err_fini(&res.err);
		if (rc == 0)
			rc = job_sleep(job, world_random(wl->w, 60));
	}
}

/* Readers: what was acknowledged before they ask is there behind a read index. */
static void read_main(struct job *job, void *arg)
{
	struct life *l = arg;
	struct workload *wl = l->load;
	int rc = 0;

	for (unsigned k = 0; k < 20 && rc != ERR_DEAD; k++) {
		uint64_t need = wl->acked_index;
		struct db_view view;

		rc = db_read_wait(job, l->db);
		if (rc == 0) {
			db_view_pin(l->db, &view);
			wl->stale |= db_view_index(&view) < need;
			db_view_unpin(&view);
		}
		wl->n_reads += rc == 0;
		wl->n_unread += rc == ERR_TIMEOUT;
		if (rc != ERR_DEAD)
			rc = job_sleep(job, world_random(wl->w, 40));
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
		l->load->n_hops++;
	rc = wait_join(&uc->wait, UINT64_MAX, false);
	if (rc == 0 && !uc->use.ok) {
		l->load->n_unheld++;
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
	struct workload *wl = l->load;
	uint64_t need = wl->shown[session], saw;
	struct use_call *uc;
	struct db_view view;
	int rc = enter(job, l, session, &uc);

	if (rc == 0) {
		db_view_pin(l->db, &view);
		saw = db_view_index(&view);
		db_view_unpin(&view);
		if (world_random(wl->w, 4) == 0)
			rc = job_sleep(job, world_random(wl->w, 200));
		if (rc == 0 && world_random(wl->w, 3) == 0) {
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
		wl->n_uses++;
		wl->back |= saw < need;
		if (saw > wl->shown[session])
			wl->shown[session] = saw;
	}
	wait_drop(&uc->wait);
	return rc;
}

static void session_main(struct job *job, void *arg)
{
	struct life *l = arg;
	int rc = 0;

	l->n_users++;
	for (unsigned k = 0; k < 15 && rc != ERR_DEAD; k++) {
		rc = session_call(job, l, (unsigned)world_random(l->load->w, SESSIONS));
		if (rc != ERR_DEAD)
			rc = job_sleep(job, world_random(l->load->w, 40));
	}
	l->n_users--;
}

static void round_main(struct job *job, void *arg)
{
	struct life *l = arg;
	int rc = 0;

	for (unsigned k = 0; k < SESSIONS && rc != ERR_DEAD; k++) {
		uint64_t began_us = l->load->w->now_us;

		rc = session_call(job, l, k);
		if (l->load->w->now_us - began_us > l->load->longest_us)
			l->load->longest_us = l->load->w->now_us - began_us;
	}
	l->n_users--;
}

/* Followers of changes. One asks a member for what has changed behind its token; a member that has
 * not come so far yet is asked later. */
void workload_follow(struct workload *wl, unsigned who, struct life *l)
{
	struct follower *f = &wl->followers[who];
	struct db_view view;
	struct db_cursor c;
	struct db_gone gone;
	const struct db_row *row;
	uint64_t last = f->token;

	db_view_pin(l->db, &view);
	if (db_view_index(&view) >= f->token) {
		c = db_rows_modified(&view, MODEL_CLASS_VM, f->token);
		while ((row = db_next(&c)) != NULL) {
			wl->disordered |= db_row_modified(row) < last;
			last = db_row_modified(row);
			f->n_there += db_row_created(row) > f->token;
		}
		c = db_deleted(&view, MODEL_CLASS_VM, f->token);
		for (last = f->token; db_next_deleted(&c, &gone); last = gone.deleted) {
			wl->disordered |= gone.deleted < last;
			f->n_there -= gone.created <= f->token;
		}
		wl->disordered |= f->token < db_view_horizon(&view, MODEL_CLASS_VM);
		f->token = db_view_index(&view);
	}
	db_view_unpin(&view);
}

void workload_start(struct life *l)
{
	for (unsigned k = 0; k < 2; k++) {
		struct work *wk = mem_new(sizeof *wk);

		*wk = (struct work){ l, 10 };
		CHECK(lane_submit(l->lane, "", work_main, wk, NULL) == 0);
	}
	CHECK(lane_submit(l->lane, "", count_main, l, NULL) == 0 &&
		lane_submit(l->lane, "", read_main, l, NULL) == 0 &&
		lane_submit(l->lane, "", session_main, l, NULL) == 0);
}

void workload_use_all(struct life *l)
{
	l->n_users++;
	CHECK(lane_submit(l->lane, "", round_main, l, NULL) == 0);
}

void workload_init(struct workload *wl, struct world *w)
{
	*wl = (struct workload){ .w = w,
		.acked = mem_new(ACKED_MAX * sizeof *wl->acked),
		.fates = mem_new(ACKED_MAX * sizeof *wl->fates) };
}

void workload_fini(struct workload *wl)
{
	free(wl->acked);
	free(wl->fates);
}

bool mixed(void)
{
	return MODEL_SCHEMA_VERSION > MODEL_SCHEMA_BASE;
}

/* Each row was made and deleted once for a follower: as many are there as there are. The counter
 * has had every step that was acknowledged and none that nobody asked for. */
bool workload_once(struct workload *wl, const struct db_view *view)
{
	const struct db_row *row = db_view_get(view, MODEL_CLASS_VM, COUNTER_REF);
	int64_t value = row != NULL ? db_row_i(row, VM_user_version) : 0;
	bool ok = value >= wl->steps && value <= wl->steps + wl->maybe_steps && wl->n_refused == 0;

	for (unsigned i = 0; i < FOLLOWERS; i++)
		ok = ok && wl->followers[i].n_there == db_view_count(view, MODEL_CLASS_VM);
	if (!ok)
		printf("NOT ONCE: counter=%lld steps=%u+%u refused=%u rows=%llu told=%u,%u ",
			(long long)value, wl->steps, wl->maybe_steps, wl->n_refused,
			(unsigned long long)db_view_count(view, MODEL_CLASS_VM),
			wl->followers[0].n_there, wl->followers[1].n_there);
	return ok;
}

unsigned workload_lost(struct workload *wl, const struct db_view *view)
{
	unsigned lost = 0;

	struct db_cursor c = db_rows(view, MODEL_CLASS_VBD);
	const struct db_row *device;

	for (unsigned k = 0; k < wl->n_acked; k++)
		lost += wl->fates[k] != PERHAPS &&
			(db_view_get(view, MODEL_CLASS_VM, wl->acked[k]) == NULL) !=
				(wl->fates[k] == DELETED);
	while ((device = db_next(&c)) != NULL)
		lost += db_view_get(view, MODEL_CLASS_VM, db_row_s(device, VBD_VM)) == NULL;
	return lost;
}
