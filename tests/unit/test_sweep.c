/* Which rows of tasks the sweep removes, on built states: ages are the marks that the test sets. */
#include "pool/driver.h"
#include "pool/operation_priv.h"
#include "tests/lib/rows.h"

#include <stdio.h>

struct bench {
	struct rows r;
	struct pool pool;
};

static void bench_open(struct bench *b)
{
	memset(b, 0, sizeof *b);
	rows_open(&b->r);
}

static const char *task(struct bench *b, const char *name, const char *status, const char *method)
{
	const char *ref = rows_create(&b->r, MODEL_CLASS_task, name);

	db_txn_set(&b->r.txn, MODEL_CLASS_task, ref, TASK_status, val_string(status));
	db_txn_set(&b->r.txn, MODEL_CLASS_task, ref, TASK_method, val_string(method));
	db_txn_set(&b->r.txn, MODEL_CLASS_task, ref, TASK_keep, val_bool(true));
	rows_apply(&b->r);
	return ref;
}

static void tasks(struct bench *b, const char *word, unsigned n, const char *status)
{
	char name[32];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof name, "%s%u", word, i);
		task(b, name, status, "VM.start");
	}
}

/* Everything so far ended so long ago as this says. */
static void seen(struct bench *b)
{
	b->pool.marks.seconds[0] = b->r.db.index;
}

/* One sweep; how many rows it takes. */
static unsigned sweep(struct bench *b)
{
	struct db_txn txn;
	unsigned n;

	db_txn_init(&txn, DB_FOR_SWEEP);
	n = sweep_tasks(&b->pool, &b->r.view, &txn, &b->r.a);
	ck_assert_uint_eq(txn.n_ops, n);
	if (n > 0)
		ck_assert_int_eq(rows_apply_txn(&b->r, &txn), APPLY_DONE);
	db_txn_fini(&txn);
	return n;
}

static bool there(struct bench *b, const char *name)
{
	return db_view_get(&b->r.view, MODEL_CLASS_task, rows_ref(&b->r, name)) != NULL;
}

/* tasks-events 1.3: keep = max(0, 200 - pending) of those that have ended, the newest. */
START_TEST(the_oldest_ended_go_above_the_cap)
{
	struct bench b;

	bench_open(&b);
	tasks(&b, "pending", 50, "pending");
	tasks(&b, "old", 10, "failure");
	tasks(&b, "ended", 150, "success");
	ck_assert_uint_eq(sweep(&b), 0); /* all of them too young: who waits has to see the end */
	seen(&b);
	tasks(&b, "young", 5, "success");
	ck_assert_uint_eq(sweep(&b), 15);
	ck_assert_uint_eq(sweep(&b), 0);
	ck_assert(!there(&b, "old0") && !there(&b, "old9"));
	ck_assert(!there(&b, "ended0") && !there(&b, "ended4") && there(&b, "ended5"));
	ck_assert(there(&b, "young0") && there(&b, "pending0"));
	rows_close(&b.r);
}
END_TEST

/* However many are pending, none of these goes. */
START_TEST(pending_ones_never_go_by_the_cap)
{
	struct bench b;

	bench_open(&b);
	tasks(&b, "pending", 230, "pending");
	tasks(&b, "ended", 7, "cancelled");
	seen(&b);
	ck_assert_uint_eq(sweep(&b), 7);
	ck_assert_uint_eq(db_view_count(&b.r.view, MODEL_CLASS_task), 230);
	rows_close(&b.r);
}
END_TEST

START_TEST(the_cap_is_the_pool_s)
{
	struct bench b;
	const char *pool;

	bench_open(&b);
	pool = rows_create(&b.r, MODEL_CLASS_pool, "pool");
	rows_add(&b.r, MODEL_CLASS_pool, pool, POOL_other_config, "xpool-tasks-max", "3");
	tasks(&b, "ended", 8, "success");
	seen(&b);
	ck_assert_uint_eq(sweep(&b), 5);
	ck_assert(there(&b, "ended5") && !there(&b, "ended4"));
	rows_close(&b.r);
}
END_TEST

/* What an operation still is about stays: locks of an unknown outcome, parts whose whole goes on.
 */
START_TEST(rows_that_are_in_use_stay)
{
	struct bench b;
	const char *ref;
	struct val locks = val_set();

	bench_open(&b);
	task(&b, "whole", "pending", "host.evacuate");
	ref = task(&b, "part", "failure", "VM.pool_migrate");
	rows_set(&b.r, MODEL_CLASS_task, ref, TASK_subtask_of, val_string("OpaqueRef:whole"));
	ref = task(&b, "unknown", "failure", "VM.start");
	val_set_push(&b.r.a, &locks, val_string("VM/OpaqueRef:vm/start"));
	rows_set(&b.r, MODEL_CLASS_task, ref, TASK_locks, locks);
	tasks(&b, "pending", 200, "pending");
	/* by age too */
	for (unsigned i = 0; i < ARRAY_LEN(b.pool.marks.minutes); i++)
		b.pool.marks.minutes[i] = b.r.db.index;
	b.pool.marks.idles[0] = b.r.db.index;
	seen(&b);
	ck_assert_uint_eq(sweep(&b), 0);
	rows_set(&b.r, MODEL_CLASS_task, "OpaqueRef:whole", TASK_status, val_string("success"));
	ck_assert_uint_eq(sweep(&b), 1);
	ck_assert(!there(&b, "part") && there(&b, "unknown"));
	rows_close(&b.r);
}
END_TEST

/* A plain call's row goes soon, and its parts with it, however they were asked for. */
START_TEST(parts_go_with_their_whole)
{
	struct bench b;
	const char *whole, *part;

	bench_open(&b);
	whole = task(&b, "whole", "success", "SR.create");
	rows_set(&b.r, MODEL_CLASS_task, whole, TASK_keep, val_bool(false));
	part = task(&b, "part", "success", "PBD.plug");
	rows_set(&b.r, MODEL_CLASS_task, part, TASK_subtask_of, val_string(whole));
	task(&b, "other", "success", "PBD.plug");
	b.pool.marks.seconds[ARRAY_LEN(b.pool.marks.seconds) - POOL_TASK_SYNC_S] = b.r.db.index;
	ck_assert_uint_eq(sweep(&b), 1);
	ck_assert(!there(&b, "whole") && there(&b, "part"));
	ck_assert_uint_eq(sweep(&b), 1);
	ck_assert(!there(&b, "part") && there(&b, "other"));
	rows_close(&b.r);
}
END_TEST

/* 24 h without a word: a client's goes, an operation's does not. */
START_TEST(a_client_s_task_that_nobody_goes_on_with_goes)
{
	struct bench b;

	bench_open(&b);
	task(&b, "client", "pending", "");
	task(&b, "stopping", "cancelling", "");
	task(&b, "alive", "pending", "");
	task(&b, "operation", "pending", "VM.start");
	b.pool.marks.idles[0] = b.r.db.index;
	rows_set(&b.r, MODEL_CLASS_task, "OpaqueRef:alive", TASK_progress, val_float(0.5));
	ck_assert_uint_eq(sweep(&b), 2);
	ck_assert(!there(&b, "client") && !there(&b, "stopping"));
	ck_assert(there(&b, "alive") && there(&b, "operation"));
	rows_close(&b.r);
}
END_TEST

/* pool.md 5.2: asked again within 24 h it is the same task, so its row is there. */
START_TEST(a_task_that_its_client_has_named_stays_for_a_day)
{
	struct bench b;

	bench_open(&b);
	task(&b, "named", "success", "VM.start");
	rows_add(&b.r, MODEL_CLASS_task, "OpaqueRef:named", TASK_other_config, "http:request-id",
		"a");
	tasks(&b, "ended", 201, "success");
	seen(&b);
	ck_assert_uint_eq(sweep(&b), 1); /* of the others */
	for (unsigned i = 0; i < ARRAY_LEN(b.pool.marks.minutes); i++)
		b.pool.marks.minutes[i] = b.r.db.index;
	ck_assert_uint_eq(sweep(&b), 200);
	ck_assert_uint_eq(sweep(&b), 0);
	ck_assert(there(&b, "named"));
	b.pool.marks.idles[0] = b.r.db.index;
	ck_assert_uint_eq(sweep(&b), 1);
	rows_close(&b.r);
}
END_TEST

/* Progress that was decided meanwhile keeps the row. */
START_TEST(a_word_that_comes_with_the_sweep_counts)
{
	struct bench b;
	struct db_txn txn;

	bench_open(&b);
	task(&b, "client", "pending", "");
	b.pool.marks.idles[0] = b.r.db.index;
	db_txn_init(&txn, DB_FOR_SWEEP);
	ck_assert_uint_eq(sweep_tasks(&b.pool, &b.r.view, &txn, &b.r.a), 1);
	rows_set(&b.r, MODEL_CLASS_task, "OpaqueRef:client", TASK_progress, val_float(0.5));
	ck_assert_int_eq(rows_apply_txn(&b.r, &txn), APPLY_REFUSED);
	ck_assert(there(&b, "client"));
	rows_close(&b.r);
}
END_TEST

static void member(struct bench *b, const char *name, int64_t schema)
{
	rows_create(&b->r, MODEL_CLASS__member, name);
	db_txn_set(&b->r.txn, MODEL_CLASS__member, rows_ref(&b->r, name), _MEMBER_schema,
		val_int(schema));
	rows_apply(&b->r);
}

/* A pool from before has drivers with fewer features: they come when every member has them, once,
 * and what the record says besides stays. */
START_TEST(drivers_gain_features_when_all_members_have_them)
{
	struct val old = val_map(), has;
	struct db_txn txn;
	struct bench b;
	const char *sm;

	bench_open(&b);
	sm = rows_create(&b.r, MODEL_CLASS_SM, "file");
	val_map_push(&b.r.a, &old, "SR_PROBE", val_int(1));
	val_map_push(&b.r.a, &old, "OWN", val_int(2));
	db_txn_set(&b.r.txn, MODEL_CLASS_SM, sm, SM_type, val_string("file"));
	db_txn_set(&b.r.txn, MODEL_CLASS_SM, sm, SM_features, old);
	member(&b, "new", MODEL_SCHEMA_VERSION);
	member(&b, "old", MODEL_SCHEMA_VERSION - 1);
	db_txn_init(&txn, DB_FOR_SWEEP);
	ck_assert(!drivers_grow(&b.r.view, &txn));
	rows_set(&b.r, MODEL_CLASS__member, rows_ref(&b.r, "old"), _MEMBER_schema,
		val_int(MODEL_SCHEMA_VERSION));
	ck_assert(drivers_grow(&b.r.view, &txn));
	ck_assert_int_eq(rows_apply_txn(&b.r, &txn), APPLY_DONE);
	has = db_row_field(db_view_get(&b.r.view, MODEL_CLASS_SM, sm), SM_features, &b.r.a);
	ck_assert(val_get(&has, "VDI_SNAPSHOT")->i == 1 && val_get(&has, "OWN")->i == 2);
	ck_assert(val_get(&has, "VDI_RESET_ON_BOOT")->i == 2);
	has = db_row_field(db_view_get(&b.r.view, MODEL_CLASS_SM, sm), SM_capabilities, &b.r.a);
	ck_assert(val_set_has(&has, "VDI_SNAPSHOT") && val_set_has(&has, "VDI_RESET_ON_BOOT"));
	db_txn_fini(&txn);
	db_txn_init(&txn, DB_FOR_SWEEP);
	ck_assert(!drivers_grow(&b.r.view, &txn));
	db_txn_fini(&txn);
	rows_close(&b.r);
}
END_TEST

/* Who waits for locks: tasks without an owner. */
static const char *waiter(
	struct bench *b, const char *name, const char *method, const char *vm, const char *parent)
{
	const char *ref = task(b, name, "pending", method);

	db_txn_set(&b->r.txn, MODEL_CLASS_task, ref, TASK_arguments,
		val_string(arena_printf(&b->r.a, "[\"%s\"]", vm)));
	db_txn_set(&b->r.txn, MODEL_CLASS_task, ref, TASK_subtask_of, val_string(parent));
	rows_apply(&b->r);
	return ref;
}

static const char *running(struct bench *b, const char *name)
{
	const char *ref = rows_create(&b->r, MODEL_CLASS_VM, name);

	db_txn_set(&b->r.txn, MODEL_CLASS_VM, ref, VM_power_state, val_string("Running"));
	rows_apply(&b->r);
	return ref;
}

/* What a new request for these would wait for; "": nothing, NULL: it is refused. */
static const char *asks(struct bench *b, const char *method, const char *vm, const char *parent)
{
	struct val args[] = { val_string(vm) };
	struct request r = { .method = model_message_find(method), .args = args, .parent = parent };
	struct admit ad = { .pool = &b->pool,
		.view = &b->r.view,
		.arena = &b->r.a,
		.method = r.method,
		.args = args };
	const struct ahead *line;
	struct err err = { 0 };

	line_all(&b->pool, &b->r.view, &b->r.a, &line);
	ad.ahead = line_before(&r, line);
	if (locks_collect(&ad, &err) == 0 && locks_check(&ad, 0, &err) == 0)
		return "";
	err_fini(&err);
	return ad.waits_for;
}

/* tasks-events 2.2: between the end of a lock and the sweep that gives it on, nobody overtakes. */
START_TEST(a_free_lock_is_of_who_waits_for_it)
{
	struct bench b;
	const char *vm, *other, *first;

	bench_open(&b);
	vm = running(&b, "vm");
	other = running(&b, "other");
	ck_assert_str_eq(asks(&b, "VM.pause", vm, NULL_REF), "");
	first = waiter(&b, "first", "VM.clean_shutdown", vm, NULL_REF);
	ck_assert_str_eq(asks(&b, "VM.pause", vm, NULL_REF), first);
	ck_assert_str_eq(asks(&b, "VM.pause", other, NULL_REF), "");
	/* a part of what they may wait for, and who is there to stop others, go before */
	ck_assert_str_eq(asks(&b, "VM.pause", vm, "OpaqueRef:whole"), "");
	ck_assert_str_eq(asks(&b, "VM.hard_shutdown", vm, NULL_REF), "");
	/* one that is about to end stands in nobody's way */
	rows_add(&b.r, MODEL_CLASS_task, first, TASK_current_operations, "k", "cancel");
	ck_assert_str_eq(asks(&b, "VM.pause", vm, NULL_REF), "");
	waiter(&b, "wrong", "VM.unpause", vm, NULL_REF);
	ck_assert_str_eq(asks(&b, "VM.pause", vm, NULL_REF), "");
	ck_assert_ptr_null(asks(&b, "VM.unpause", vm, NULL_REF));
	rows_close(&b.r);
}
END_TEST

/* Who waits for one object is in nobody's way at the others. */
START_TEST(the_line_is_of_each_object)
{
	const char *sr, *vdi, *first, *holder;
	struct val features = val_map();
	struct bench b;

	bench_open(&b);
	sr = rows_create(&b.r, MODEL_CLASS_SR, "sr");
	db_txn_set(&b.r.txn, MODEL_CLASS_SR, sr, SR_type, val_string("file"));
	rows_create(&b.r, MODEL_CLASS_SM, "sm");
	db_txn_set(&b.r.txn, MODEL_CLASS_SM, "OpaqueRef:sm", SM_type, val_string("file"));
	rows_apply(&b.r);
	val_map_push(&b.r.a, &features, "VDI_DELETE", val_int(1));
	rows_set(&b.r, MODEL_CLASS_SM, "OpaqueRef:sm", SM_features, features);
	vdi = rows_create(&b.r, MODEL_CLASS_VDI, "vdi");
	db_txn_set(&b.r.txn, MODEL_CLASS_VDI, vdi, VDI_SR, val_string(sr));
	db_txn_set(&b.r.txn, MODEL_CLASS_VDI, vdi, VDI_managed, val_bool(true));
	rows_apply(&b.r);
	holder = task(&b, "holder", "pending", "VDI.snapshot");
	rows_set(&b.r, MODEL_CLASS_task, holder, TASK_owner, val_string("OpaqueRef:host"));
	rows_add(&b.r, MODEL_CLASS_VDI, vdi, VDI_current_operations, holder, "snapshot");
	first = waiter(&b, "first", "VDI.destroy", vdi, NULL_REF);
	ck_assert_str_eq(asks(&b, "VDI.destroy", vdi, NULL_REF), holder);
	ck_assert_str_eq(asks(&b, "SR.scan", sr, NULL_REF), "");
	rows_set(&b.r, MODEL_CLASS_VDI, vdi, VDI_current_operations, val_map());
	ck_assert_str_eq(asks(&b, "VDI.destroy", vdi, NULL_REF), first);
	ck_assert_str_eq(asks(&b, "SR.scan", sr, NULL_REF), first); /* its turn has come */
	rows_close(&b.r);
}
END_TEST

/* There may be more than the limit, when a host is lost: the oldest count, whatever their rows'
 * order. */
START_TEST(the_oldest_of_too_many_are_in_line)
{
	char name[32];
	struct bench b;
	const char *vm;

	bench_open(&b);
	vm = running(&b, "vm");
	waiter(&b, "zzz", "VM.clean_shutdown", vm, NULL_REF);
	for (unsigned i = 0; i < POOL_WAITING_MAX; i++) {
		snprintf(name, sizeof name, "w%u", i);
		waiter(&b, name, "VM.clean_shutdown", rows_ref(&b.r, "gone"), NULL_REF);
	}
	ck_assert_str_eq(asks(&b, "VM.pause", vm, NULL_REF), "OpaqueRef:zzz");
	rows_close(&b.r);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		the_oldest_ended_go_above_the_cap,
		pending_ones_never_go_by_the_cap,
		the_cap_is_the_pool_s,
		rows_that_are_in_use_stay,
		parts_go_with_their_whole,
		a_client_s_task_that_nobody_goes_on_with_goes,
		a_task_that_its_client_has_named_stays_for_a_day,
		a_word_that_comes_with_the_sweep_counts,
		drivers_gain_features_when_all_members_have_them,
		a_free_lock_is_of_who_waits_for_it,
		the_line_is_of_each_object,
		the_oldest_of_too_many_are_in_line,
	};

	return suite_run("sweep", tests, ARRAY_LEN(tests), 30);
}
