/* Where a VM runs, on built states and with a lot that the test draws: pool.md 6.1, 6.3. Three
 * hosts of 10 GiB, the first of them the coordinator; a VM of 1 GiB to 2 GiB. */
#include "pool/operation_priv.h"
#include "tests/lib/rows.h"

#define GIB (INT64_C(1) << 30)

enum { HOSTS = 3 };

static const char *const names[HOSTS] = { "h0", "h1", "h2" };

struct bench {
	struct rows r;
	struct env env;
	struct pool pool;
	const char *vm;
	struct err err;
};

static uint64_t silent; /* raft id of a host out of contact; 0: none */
static uint16_t lot;

/* In place of db.c's and the world's. */
uint64_t db_silence_ms(struct db *db, uint64_t raft_id)
{
	(void)db;
	return raft_id == silent ? UINT64_MAX : 0;
}

static void draw(struct env *env, void *out, size_t n)
{
	(void)env;
	ck_assert_uint_eq(n, sizeof lot);
	memcpy(out, &lot, n);
}

static const struct env_ops ops = { .random = draw };

static void make_host(struct bench *b, unsigned k)
{
	struct rows *r = &b->r;
	const char *host = rows_create(r, MODEL_CLASS_host, names[k]),
		   *metrics =
			   rows_create(r, MODEL_CLASS_host_metrics, arena_printf(&r->a, "m%u", k));
	const char *uuid = db_row_s(db_view_get(&r->view, MODEL_CLASS_host, host), HOST_uuid);
	struct val f[_MEMBER_FIELD_COUNT] = { { .kind = VAL_VOID } }, info = val_map();

	f[_MEMBER_host] = val_string(host);
	f[_MEMBER_raft_id] = val_int(k + 1);
	f[_MEMBER_memory] = val_int(10 * GIB);
	db_txn_create(&r->txn, MODEL_CLASS__member, arena_strdup(&r->a, uuid), f);
	val_map_push(&r->a, &info, "cpu_count", val_string("4"));
	db_txn_set(&r->txn, MODEL_CLASS_host, host, HOST_cpu_info, info);
	db_txn_set(&r->txn, MODEL_CLASS_host, host, HOST_metrics, val_string(metrics));
	db_txn_set(&r->txn, MODEL_CLASS_host, host, HOST_enabled, val_bool(true));
	db_txn_set(&r->txn, MODEL_CLASS_host_metrics, metrics, HOST_METRICS_live, val_bool(true));
	rows_apply(r);
	if (k == 0)
		strcpy(b->pool.host_uuid,
			db_row_s(db_view_get(&r->view, MODEL_CLASS_host, host), HOST_uuid));
}

static const char *make_vm(struct bench *b, const char *name)
{
	const char *ref = rows_create(&b->r, MODEL_CLASS_VM, name);

	db_txn_set(&b->r.txn, MODEL_CLASS_VM, ref, VM_memory_dynamic_min, val_int(GIB));
	db_txn_set(&b->r.txn, MODEL_CLASS_VM, ref, VM_memory_dynamic_max, val_int(GIB));
	db_txn_set(&b->r.txn, MODEL_CLASS_VM, ref, VM_memory_static_max, val_int(2 * GIB));
	db_txn_set(&b->r.txn, MODEL_CLASS_VM, ref, VM_VCPUs_at_startup, val_int(1));
	rows_apply(&b->r);
	return ref;
}

static void bench_open(struct bench *b)
{
	const char *pool;

	memset(b, 0, sizeof *b);
	silent = 0;
	lot = 0;
	rows_open(&b->r);
	b->env.ops = &ops;
	b->pool.env = &b->env;
	pool = rows_create(&b->r, MODEL_CLASS_pool, "pool");
	rows_set(&b->r, MODEL_CLASS_pool, pool, POOL_coordinator_bias, val_bool(false));
	for (unsigned k = 0; k < HOSTS; k++)
		make_host(b, k);
	b->vm = make_vm(b, "vm");
}

static void bench_close(struct bench *b)
{
	err_fini(&b->err);
	rows_close(&b->r);
}

static const char *host_ref(struct bench *b, unsigned k)
{
	return rows_ref(&b->r, names[k]);
}

/* So many bytes of the host are set aside for others. */
static void occupy(struct bench *b, unsigned k, int64_t bytes)
{
	struct val f[_RESERVATION_FIELD_COUNT] = { { .kind = VAL_VOID } };

	f[_RESERVATION_host] = val_string(host_ref(b, k));
	f[_RESERVATION_bytes] = val_int(bytes);
	db_txn_create(&b->r.txn, MODEL_CLASS__reservation,
		arena_printf(&b->r.a, "OpaqueRef:r%llu", (unsigned long long)b->r.db.index), f);
	rows_apply(&b->r);
}

static struct admit admit_of(struct bench *b, struct val *args)
{
	return (struct admit){ .pool = &b->pool,
		.view = &b->r.view,
		.arena = &b->r.a,
		.method = model_message_find("VM.start"),
		.args = args,
		.task = "OpaqueRef:task" };
}

/* The host by this lot (0: the best; UINT16_MAX: the last as good as it); -1: none. */
static int place(struct bench *b, uint16_t drawn)
{
	struct val args[] = { val_string(b->vm), val_bool(false), val_bool(false) };
	struct admit ad = admit_of(b, args);

	lot = drawn;
	err_fini(&b->err);
	if (place_owner(&ad, &b->err) != 0)
		return -1;
	for (int k = 0; k < HOSTS; k++)
		if (strcmp(db_row_ref(ad.owner), host_ref(b, (unsigned)k)) == 0)
			return k;
	ck_abort_msg("an unknown host");
}

/* Why not there: the error's code; NULL: it can. */
static const struct err_code *why_not(struct bench *b, unsigned k)
{
	struct val args[] = { val_string(b->vm), val_bool(false), val_bool(false) };
	struct admit ad = admit_of(b, args);

	err_fini(&b->err);
	place_can_boot(&ad, db_view_get(&b->r.view, MODEL_CLASS_VM, b->vm),
		db_view_get(&b->r.view, MODEL_CLASS_host, host_ref(b, k)), &b->err);
	return b->err.code;
}

START_TEST(most_memory_is_best_and_the_lot_is_among_equals_of_rank)
{
	struct bench b;

	bench_open(&b);
	occupy(&b, 0, 3 * GIB);
	occupy(&b, 1, 1 * GIB);
	occupy(&b, 2, 2 * GIB);
	/* all definite: 7, 9, 8 GiB left; square bias: a lot of half is a quarter of the way */
	ck_assert_int_eq(place(&b, 0), 1);
	ck_assert_int_eq(place(&b, UINT16_MAX / 2), 1);
	ck_assert_int_eq(place(&b, UINT16_MAX / 4 * 3), 2);
	ck_assert_int_eq(place(&b, UINT16_MAX), 0);
	bench_close(&b);
}
END_TEST

/* definite: static_max; probable: dynamic_max; possible: dynamic_min. */
START_TEST(a_better_rank_comes_before_any_lot)
{
	struct bench b;

	bench_open(&b);
	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_memory_dynamic_max, val_int(GIB + GIB / 2));
	occupy(&b, 0, 8 * GIB + GIB / 4); /* 1.75 left: probable */
	occupy(&b, 1, 8 * GIB);		  /* 2: definite */
	occupy(&b, 2, 9 * GIB);		  /* 1: possible */
	ck_assert_int_eq(place(&b, UINT16_MAX), 1);
	occupy(&b, 1, GIB); /* 1: possible, as the last */
	ck_assert_int_eq(place(&b, UINT16_MAX), 0);
	occupy(&b, 0, GIB); /* 0.75: not enough; the two others are equal */
	ck_assert_int_eq(place(&b, 0), 1);
	ck_assert_int_eq(place(&b, UINT16_MAX), 2);
	occupy(&b, 1, 1);
	occupy(&b, 2, 2);
	/* nowhere enough: one is chosen all the same, so that it says how much is missing */
	ck_assert_int_eq(place(&b, 0), 1);
	ck_assert_ptr_eq(why_not(&b, 1), ERR_HOST_NOT_ENOUGH_FREE_MEMORY);
	bench_close(&b);
}
END_TEST

START_TEST(the_affinity_host_is_taken_when_it_can)
{
	struct bench b;

	bench_open(&b);
	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_affinity, val_string(host_ref(&b, 2)));
	occupy(&b, 2, 9 * GIB); /* possible is enough */
	ck_assert_int_eq(place(&b, 0), 2);
	occupy(&b, 2, 1);
	ck_assert_int_ne(place(&b, 0), 2);
	bench_close(&b);
}
END_TEST

/* Where fewest of the group are or are on their way; paused ones do not count, memory comes after.
 */
START_TEST(members_of_an_anti_affinity_group_are_spread)
{
	struct bench b;
	const char *group, *other[3];
	struct val groups = val_set();

	bench_open(&b);
	group = rows_create(&b.r, MODEL_CLASS_VM_group, "group");
	rows_set(
		&b.r, MODEL_CLASS_VM_group, group, VM_GROUP_placement, val_string("anti_affinity"));
	val_set_push(&b.r.a, &groups, val_string(group));
	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_groups, groups);
	for (unsigned k = 0; k < 3; k++) {
		other[k] = make_vm(&b, arena_printf(&b.r.a, "other%u", k));
		rows_set(&b.r, MODEL_CLASS_VM, other[k], VM_groups, groups);
		rows_set(&b.r, MODEL_CLASS_VM, other[k], VM_power_state, val_string("Running"));
	}
	rows_set(&b.r, MODEL_CLASS_VM, other[0], VM_resident_on, val_string(host_ref(&b, 0)));
	rows_set(&b.r, MODEL_CLASS_VM, other[1], VM_scheduled_to_be_resident_on,
		val_string(host_ref(&b, 1)));
	occupy(&b, 2, 9 * GIB); /* the worst by memory */
	ck_assert_int_eq(place(&b, UINT16_MAX), 2);
	rows_set(&b.r, MODEL_CLASS_VM, other[2], VM_resident_on, val_string(host_ref(&b, 2)));
	ck_assert_int_eq(place(&b, 0), 0); /* one on each: memory decides */
	rows_set(&b.r, MODEL_CLASS_VM, other[1], VM_power_state, val_string("Paused"));
	ck_assert_int_eq(place(&b, 0), 1);
	/* its own host comes before */
	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_affinity, val_string(host_ref(&b, 0)));
	ck_assert_int_eq(place(&b, UINT16_MAX), 0);
	bench_close(&b);
}
END_TEST

/* v becomes (v - 1) / 2 where memory is plenty. */
START_TEST(the_coordinator_is_spared_when_the_pool_wants_it)
{
	struct bench b;

	bench_open(&b);
	occupy(&b, 1, 4 * GIB); /* 10, 6, 5 left */
	occupy(&b, 2, 5 * GIB);
	ck_assert_int_eq(place(&b, 0), 0);
	rows_set(&b.r, MODEL_CLASS_pool, "OpaqueRef:pool", POOL_coordinator_bias, val_bool(true));
	ck_assert_int_eq(place(&b, 0), 1);
	ck_assert_int_eq(place(&b, UINT16_MAX), 0); /* 4.99 is less than 5 */
	occupy(&b, 2, 1);
	occupy(&b, 2, 1);
	ck_assert_int_eq(place(&b, UINT16_MAX), 2);
	/* where there is only just room it counts as it is */
	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_memory_dynamic_max, val_int(20 * GIB));
	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_memory_static_max, val_int(20 * GIB));
	ck_assert_int_eq(place(&b, 0), 0);
	bench_close(&b);
}
END_TEST

START_TEST(who_is_silent_disabled_or_being_emptied_gets_nothing)
{
	struct bench b;

	bench_open(&b);
	rows_set(&b.r, MODEL_CLASS_host, host_ref(&b, 0), HOST_enabled, val_bool(false));
	ck_assert_ptr_eq(why_not(&b, 0), ERR_HOST_DISABLED);
	silent = 2;
	ck_assert_int_eq(place(&b, 0), 2);
	rows_add(&b.r, MODEL_CLASS_host, host_ref(&b, 2), HOST_current_operations, "OpaqueRef:t",
		"evacuate");
	ck_assert_int_eq(place(&b, 0), -1);
	ck_assert_ptr_eq(b.err.code, ERR_NO_HOSTS_AVAILABLE);
	bench_close(&b);
}
END_TEST

START_TEST(a_host_that_lacks_what_the_vm_needs_says_what)
{
	struct bench b;
	struct val kinds = val_set(), versions = val_set();

	bench_open(&b);
	ck_assert_ptr_null(why_not(&b, 1));
	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_hardware_platform_version, val_int(2));
	ck_assert_ptr_eq(
		why_not(&b, 1), ERR_VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION);
	ck_assert_uint_eq(b.err.n, 4);
	ck_assert_str_eq(b.err.params[0], host_ref(&b, 1));
	ck_assert_str_eq(b.err.params[1], "[0]");
	ck_assert_str_eq(b.err.params[2], b.vm);
	ck_assert_str_eq(b.err.params[3], "2");
	for (int k = 0; k < 3; k++)
		val_set_push(&b.r.a, &versions, val_int(k));
	rows_set(&b.r, MODEL_CLASS_host, host_ref(&b, 1), HOST_virtual_hardware_platform_versions,
		versions);
	ck_assert_int_eq(place(&b, UINT16_MAX), 1);

	val_set_push(&b.r.a, &kinds, val_string("xen-3.0-x86_64"));
	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_domain_type, val_string("hvm"));
	ck_assert_ptr_null(why_not(&b, 1)); /* it says nothing */
	rows_set(&b.r, MODEL_CLASS_host, host_ref(&b, 1), HOST_capabilities, kinds);
	ck_assert_ptr_eq(why_not(&b, 1), ERR_VM_HVM_REQUIRED);
	ck_assert_str_eq(b.err.params[0], b.vm);
	ck_assert_int_eq(place(&b, 0), -1);
	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_domain_type, val_string("pv"));
	ck_assert_ptr_null(why_not(&b, 1));
	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_domain_type, val_string("hvm"));
	val_set_push(&b.r.a, &kinds, val_string("hvm-3.0-x86_64"));
	rows_set(&b.r, MODEL_CLASS_host, host_ref(&b, 1), HOST_capabilities, kinds);
	ck_assert_ptr_null(why_not(&b, 1));

	rows_set(&b.r, MODEL_CLASS_VM, b.vm, VM_VCPUs_at_startup, val_int(5));
	ck_assert_ptr_eq(why_not(&b, 1), ERR_HOST_NOT_ENOUGH_PCPUS);
	/* memory is looked at before processors */
	occupy(&b, 1, 10 * GIB);
	ck_assert_ptr_eq(why_not(&b, 1), ERR_HOST_NOT_ENOUGH_FREE_MEMORY);
	bench_close(&b);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		most_memory_is_best_and_the_lot_is_among_equals_of_rank,
		a_better_rank_comes_before_any_lot,
		the_affinity_host_is_taken_when_it_can,
		members_of_an_anti_affinity_group_are_spread,
		the_coordinator_is_spared_when_the_pool_wants_it,
		who_is_silent_disabled_or_being_emptied_gets_nothing,
		a_host_that_lacks_what_the_vm_needs_says_what,
	};

	return suite_run("place", tests, ARRAY_LEN(tests), 30);
}
