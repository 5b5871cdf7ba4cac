/* Memory and processors of a VM: what its record says, and of one that runs what it has. The four
 * limits stand in order, always (memory-numa.md 1.1); memory_target follows dynamic_min for old
 * clients.
 *
 * What is for a halted VM alone is one write, under the rules of its operation. What also works on
 * a running one is an operation: more memory is set aside by its admission, less by its end, when
 * the guest has given it back.
 */
#include "pool/vm_priv.h"

#include <string.h>

enum {
	MIB = 1 << 20,
	PAGE = 4096,
	WAIT_S = 256,
	TOLERANCE_KIB = 1024,
	LOOK_MS = 500,
	MANY_VCPUS = 64,	 /* what VM.maximise_memory takes for any number */
	COST_VCPUS_MAX = 1 << 16 /* more is counted as so many */
};
#define COST_MULTIPLIER_MAX 1000.0 /* likewise */

struct limits {
	int64_t static_min, dynamic_min, dynamic_max, static_max;
};

static struct limits limits_of(const struct db_row *vm)
{
	return (struct limits){ db_row_i(vm, VM_memory_static_min),
		db_row_i(vm, VM_memory_dynamic_min), db_row_i(vm, VM_memory_dynamic_max),
		db_row_i(vm, VM_memory_static_max) };
}

static int limits_check(const struct limits *l, struct err *err)
{
	return l->static_min >= 0 && l->static_min <= l->dynamic_min &&
			       l->dynamic_min <= l->dynamic_max &&
			       l->dynamic_max <= l->static_max && l->static_max > 0
		       ? 0
		       : err_set(err, ERR_MEMORY_CONSTRAINT_VIOLATION,
				 "Memory limits must satisfy: static_min <= dynamic_min <= "
				 "dynamic_max <= static_max",
				 NULL);
}

static int bad_value(struct arena *a, const char *field, int64_t value, struct err *err)
{
	return err_set(
		err, ERR_INVALID_VALUE, field, arena_printf(a, "%lld", (long long)value), NULL);
}

/* memory-numa.md 1.3: what a VM costs beside its own memory. It is in VM.memory_overhead from the
 * write on that changes what it depends on. */
struct cost {
	const char *type, *boot_policy;
	double multiplier;
	int64_t static_max, vcpus;
};

static struct cost cost_of(const struct db_row *vm, struct arena *a)
{
	return (struct cost){ db_row_s(vm, VM_domain_type), db_row_s(vm, VM_HVM_boot_policy),
		db_row_field(vm, VM_HVM_shadow_multiplier, a).f, db_row_i(vm, VM_memory_static_max),
		db_row_i(vm, VM_VCPUs_max) };
}

static int64_t between(int64_t least, int64_t value, int64_t most)
{
	return value < least ? least : value > most ? most : value;
}

static int64_t mib_of(int64_t pages)
{
	return (pages * PAGE + MIB - 1) / MIB;
}

/* Bytes. */
static int64_t overhead(const struct cost *c)
{
	bool pv = strcmp(vm_domain_type_of(c->type, c->boot_policy), "pv") == 0,
	     shim = strcmp(c->type, "pv_in_pvh") == 0;
	int64_t m = between(0, c->static_max, INT64_MAX) / MIB,
		v = between(0, c->vcpus, COST_VCPUS_MAX), mib;
	double k = pv ? 1.0 : c->multiplier;

	if (!(k >= 0))
		k = 0;
	if (k > COST_MULTIPLIER_MAX)
		k = COST_MULTIPLIER_MAX;
	mib = (int64_t)(k * (double)mib_of(256 * v + 2 * m));
	mib = (mib > 1 ? mib : 1) + 1 + !pv + mib_of(38 * v) + (shim ? 23 + m / 90 : 0);
	return mib * MIB;
}

static const char *text_or(const struct val *v, const char *absent)
{
	return v->kind == VAL_STRING ? v->s : absent;
}

struct val vm_overhead_of(const struct val *fields)
{
	const struct val *k = &fields[VM_HVM_shadow_multiplier], *m = &fields[VM_memory_static_max],
			 *v = &fields[VM_VCPUs_max];
	struct cost cost = { text_or(&fields[VM_domain_type], "unspecified"),
		text_or(&fields[VM_HVM_boot_policy], ""), k->kind == VAL_FLOAT ? k->f : 1.0,
		m->kind == VAL_INT ? m->i : 0, v->kind == VAL_INT ? v->i : 0 };

	return val_int(overhead(&cost));
}

/* One write. */

/* The VM, when its rules let the operation begin now; NULL: err says why not. */
static const struct db_row *may(struct call *call, const char *ref, const char *op, struct err *err)
{
	const struct db_row *vm = db_view_get(&call->view, MODEL_CLASS_VM, ref);
	const char *waits_for;

	if (vm == NULL)
		err_set(err, ERR_HANDLE_INVALID, "VM", ref, NULL);
	return vm != NULL && rules_check(&call->view, vm, op, &call->arena, &waits_for, err) == 0
		       ? vm
		       : NULL;
}

/* Judged on this version of the row, or again. */
static void txn_for(struct db_txn *txn, const struct db_row *vm)
{
	db_txn_init(txn, DB_FOR_FIELD);
	db_txn_need_version(txn, MODEL_CLASS_VM, db_row_ref(vm), db_row_modified(vm));
}

static void put_limits(struct db_txn *txn, const char *ref, const struct limits *l)
{
	db_txn_set(txn, MODEL_CLASS_VM, ref, VM_memory_static_min, val_int(l->static_min));
	db_txn_set(txn, MODEL_CLASS_VM, ref, VM_memory_dynamic_min, val_int(l->dynamic_min));
	db_txn_set(txn, MODEL_CLASS_VM, ref, VM_memory_dynamic_max, val_int(l->dynamic_max));
	db_txn_set(txn, MODEL_CLASS_VM, ref, VM_memory_static_max, val_int(l->static_max));
	db_txn_set(txn, MODEL_CLASS_VM, ref, VM_memory_target, val_int(l->dynamic_min));
}

static void put_overhead(struct db_txn *txn, const struct db_row *vm, const struct cost *cost)
{
	db_txn_set(
		txn, MODEL_CLASS_VM, db_row_ref(vm), VM_memory_overhead, val_int(overhead(cost)));
}

static int write_limits(
	struct call *call, const struct db_row *vm, const struct limits *l, struct err *err)
{
	struct cost cost;
	struct db_txn txn;

	if (limits_check(l, err) != 0)
		return ERR_API;
	cost = cost_of(vm, &call->arena);
	cost.static_max = l->static_max;
	txn_for(&txn, vm);
	put_limits(&txn, db_row_ref(vm), l);
	put_overhead(&txn, vm, &cost);
	return call_write(call, &txn, NULL);
}

int vm_set_memory_limits(
	struct call *call, const struct vm_set_memory_limits_args *args, struct err *err)
{
	const struct db_row *vm = may(call, args->self, "changing_memory_limits", err);
	struct limits l = { args->static_min, args->dynamic_min, args->dynamic_max,
		args->static_max };

	return vm != NULL ? write_limits(call, vm, &l, err) : ERR_API;
}

int vm_set_memory(struct call *call, const struct vm_set_memory_args *args, struct err *err)
{
	const struct db_row *vm = may(call, args->self, "changing_memory_limits", err);
	struct limits l;

	if (vm == NULL)
		return ERR_API;
	l = limits_of(vm);
	l.dynamic_min = l.dynamic_max = l.static_max = args->value;
	return write_limits(call, vm, &l, err);
}

int vm_set_memory_static_range(
	struct call *call, const struct vm_set_memory_static_range_args *args, struct err *err)
{
	const struct db_row *vm = may(call, args->self, "changing_static_range", err);
	struct limits l;

	if (vm == NULL)
		return ERR_API;
	l = limits_of(vm);
	l.static_min = args->min;
	l.static_max = args->max;
	return write_limits(call, vm, &l, err);
}

int vm_set_memory_static_max(
	struct call *call, const struct vm_set_memory_static_max_args *args, struct err *err)
{
	const struct db_row *vm = may(call, args->self, "changing_static_range", err);
	struct limits l;

	if (vm == NULL)
		return ERR_API;
	l = limits_of(vm);
	l.static_max = args->value;
	return write_limits(call, vm, &l, err);
}

int vm_set_memory_static_min(
	struct call *call, const struct vm_set_memory_static_min_args *args, struct err *err)
{
	const struct db_row *vm = may(call, args->self, "changing_static_range", err);
	struct limits l;

	if (vm == NULL)
		return ERR_API;
	l = limits_of(vm);
	l.static_min = args->value;
	return write_limits(call, vm, &l, err);
}

/* cost: as it is then. */
static int write_field(struct call *call, const struct db_row *vm, int field, struct val value,
	const struct cost *cost)
{
	struct db_txn txn;

	txn_for(&txn, vm);
	db_txn_set(&txn, MODEL_CLASS_VM, db_row_ref(vm), field, value);
	put_overhead(&txn, vm, cost);
	return call_write(call, &txn, NULL);
}

/* The kind of machine decides what it costs; the older field says the same in its words. */
static int write_kind(
	struct call *call, const char *ref, const char *type, const char *policy, struct err *err)
{
	const struct db_row *vm = may(call, ref, "changing_VCPUs", err);
	struct cost cost;
	struct db_txn txn;

	if (vm == NULL)
		return ERR_API;
	cost = cost_of(vm, &call->arena);
	cost.type = type;
	cost.boot_policy = policy;
	txn_for(&txn, vm);
	db_txn_set(&txn, MODEL_CLASS_VM, ref, VM_domain_type, val_string(type));
	db_txn_set(&txn, MODEL_CLASS_VM, ref, VM_HVM_boot_policy, val_string(policy));
	put_overhead(&txn, vm, &cost);
	return call_write(call, &txn, NULL);
}

int vm_set_domain_type(
	struct call *call, const struct vm_set_domain_type_args *args, struct err *err)
{
	return write_kind(call, args->self, args->value,
		strcmp(args->value, "hvm") == 0 ? "BIOS order" : "", err);
}

int vm_set_hvm_boot_policy(
	struct call *call, const struct vm_set_hvm_boot_policy_args *args, struct err *err)
{
	return write_kind(call, args->self, *args->value != 0 ? "hvm" : "pv", args->value, err);
}

int vm_set_vcpus_max(struct call *call, const struct vm_set_vcpus_max_args *args, struct err *err)
{
	const struct db_row *vm = may(call, args->self, "changing_VCPUs", err);
	struct cost cost;

	if (vm == NULL)
		return ERR_API;
	if (args->value < 1 || args->value < db_row_i(vm, VM_VCPUs_at_startup))
		return bad_value(&call->arena, "VCPUs_max", args->value, err);
	cost = cost_of(vm, &call->arena);
	cost.vcpus = args->value;
	return write_field(call, vm, VM_VCPUs_max, val_int(args->value), &cost);
}

int vm_set_vcpus_at_startup(
	struct call *call, const struct vm_set_vcpus_at_startup_args *args, struct err *err)
{
	const struct db_row *vm = may(call, args->self, "changing_VCPUs", err);
	struct cost cost;

	if (vm == NULL)
		return ERR_API;
	if (args->value < 1 || args->value > db_row_i(vm, VM_VCPUs_max))
		return bad_value(&call->arena, "VCPUs_at_startup", args->value, err);
	cost = cost_of(vm, &call->arena);
	return write_field(call, vm, VM_VCPUs_at_startup, val_int(args->value), &cost);
}

int vm_set_hvm_shadow_multiplier(
	struct call *call, const struct vm_set_hvm_shadow_multiplier_args *args, struct err *err)
{
	const struct db_row *vm = may(call, args->self, "changing_shadow_memory", err);
	struct cost cost;

	if (vm == NULL)
		return ERR_API;
	if (!(args->value >= 1.0))
		return err_set(err, ERR_INVALID_VALUE, "multiplier",
			arena_printf(&call->arena, "%g", args->value), NULL);
	cost = cost_of(vm, &call->arena);
	cost.multiplier = args->value;
	return write_field(call, vm, VM_HVM_shadow_multiplier, val_float(args->value), &cost);
}

/* Operations. */

static bool running(const struct db_row *vm)
{
	return strcmp(db_row_s(vm, VM_power_state), "Running") == 0;
}

static int range_admit(struct admit *ad, int64_t least, int64_t most, struct err *err)
{
	struct limits l = limits_of(ad->vm);
	int64_t over = db_row_i(ad->vm, VM_memory_overhead);

	l.dynamic_min = least;
	l.dynamic_max = most;
	if (limits_check(&l, err) != 0)
		return ERR_API;
	return running(ad->vm) ? memory_grow(ad, ad->vm, ad->owner,
					 (struct memory_need){ least + over, most + over, 0 }, err)
			       : 0;
}

/* It did not come to be: what it was set aside for the old range is enough. */
static void build_range_back(struct db_txn *txn, const struct db_view *view, void *task)
{
	const struct db_row *vm = db_view_by_uuid(view, MODEL_CLASS_VM, owner_vm_uuid(task));

	if (vm == NULL)
		return;
	db_txn_need_row(txn, MODEL_CLASS_VM, db_row_ref(vm));
	memory_at_most(txn, view, vm, owner_self(task, view), memory_need(vm).most);
}

static int range_run(struct job *job, void *task, int64_t least, int64_t most, struct err *err)
{
	struct commit back = { DB_FOR_FACTS, { POOL_HOST, "", "memory" }, build_range_back, task };
	struct val params = val_map();
	struct db_view view;
	const struct db_row *vm = owner_vm(task, &view), *self = owner_self(task, &view);
	int64_t over = vm != NULL ? db_row_i(vm, VM_memory_overhead) : 0, has;
	const char *ref = vm != NULL ? arena_strdup(&job->arena, db_row_ref(vm)) : NULL;
	bool live = vm != NULL && running(vm);
	int rc = 0;

	has = live ? memory_set_aside(&view, vm, self) : 0;
	if (vm != NULL)
		memory_at_most(owner_then(task), &view, vm, self, most + over);
	db_view_unpin(&view);
	if (ref == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM", owner_vm_uuid(task), NULL);
	if (live) {
		has = has > 0 && has < most ? has : most;
		val_map_push(&job->arena, &params, "min_kib", val_int(least / 1024));
		val_map_push(&job->arena, &params, "max_kib",
			val_int((has > least ? has : least) / 1024));
		rc = owner_agent_op(job, task, AGENT_VM_set_memory_dynamic_range, &params, err);
	}
	if (rc == ERR_API && commit_settled(job, owner_pool(task), &back) == ERR_DEAD)
		return ERR_DEAD;
	db_txn_set(owner_then(task), MODEL_CLASS_VM, ref, VM_memory_dynamic_min, val_int(least));
	db_txn_set(owner_then(task), MODEL_CLASS_VM, ref, VM_memory_dynamic_max, val_int(most));
	db_txn_set(owner_then(task), MODEL_CLASS_VM, ref, VM_memory_target, val_int(least));
	return rc;
}

int vm_set_memory_dynamic_range_admit(
	struct admit *admit, const struct vm_set_memory_dynamic_range_args *args, struct err *err)
{
	return range_admit(admit, args->min, args->max, err);
}

int vm_set_memory_dynamic_range_run(struct job *job, void *task,
	const struct vm_set_memory_dynamic_range_args *args, struct err *err)
{
	return range_run(job, task, args->min, args->max, err);
}

/* The other end stays as the record has it; the VM is locked. */
static int64_t other_end(void *task, int field)
{
	struct db_view view;
	const struct db_row *vm = owner_vm(task, &view);
	int64_t value = vm != NULL ? db_row_i(vm, field) : 0;

	db_view_unpin(&view);
	return value;
}

int vm_set_memory_dynamic_max_admit(
	struct admit *admit, const struct vm_set_memory_dynamic_max_args *args, struct err *err)
{
	return range_admit(admit, db_row_i(admit->vm, VM_memory_dynamic_min), args->value, err);
}

int vm_set_memory_dynamic_max_run(struct job *job, void *task,
	const struct vm_set_memory_dynamic_max_args *args, struct err *err)
{
	return range_run(job, task, other_end(task, VM_memory_dynamic_min), args->value, err);
}

int vm_set_memory_dynamic_min_admit(
	struct admit *admit, const struct vm_set_memory_dynamic_min_args *args, struct err *err)
{
	return range_admit(admit, args->value, db_row_i(admit->vm, VM_memory_dynamic_max), err);
}

int vm_set_memory_dynamic_min_run(struct job *job, void *task,
	const struct vm_set_memory_dynamic_min_args *args, struct err *err)
{
	return range_run(job, task, args->value, other_end(task, VM_memory_dynamic_max), err);
}

/* Of old clients: both ends at the target. */
int vm_set_memory_target_live_admit(
	struct admit *admit, const struct vm_set_memory_target_live_args *args, struct err *err)
{
	return range_admit(admit, args->target, args->target, err);
}

int vm_set_memory_target_live_run(struct job *job, void *task,
	const struct vm_set_memory_target_live_args *args, struct err *err)
{
	return range_run(job, task, args->target, args->target, err);
}

static int64_t kib_of(const struct val *stat, const char *key)
{
	const struct val *v = val_get(stat, key);

	return v != NULL && v->kind == VAL_INT ? v->i : 0;
}

int vm_wait_memory_target_live_run(struct job *job, void *task,
	const struct vm_wait_memory_target_live_args *args, struct err *err)
{
	uint64_t due = env_now_ms(job->env) + WAIT_S * 1000;
	struct owned *o = task;
	struct val params = val_map(), stat;
	int64_t apart;
	int rc;

	(void)args;
	val_map_push(&job->arena, &params, "uuid", val_string(owner_vm_uuid(task)));
	for (;;) {
		rc = owner_agent_ask(job, task, AGENT_VM_stat, &params, &stat, err);
		if (rc != 0)
			return rc;
		apart = kib_of(&stat, "memory_kib") - kib_of(&stat, "memory_target_kib");
		if (apart <= TOLERANCE_KIB && apart >= -TOLERANCE_KIB)
			return 0;
		if (o->cancel)
			return err_set(err, ERR_TASK_CANCELLED, o->task, NULL);
		if (env_now_ms(job->env) >= due)
			return err_set(err, ERR_VM_MEMORY_TARGET_WAIT_TIMEOUT, o->task, NULL);
		if (job_sleep(job, LOOK_MS) == ERR_DEAD)
			return ERR_DEAD;
		o->woken = job->cancelled = false;
	}
}

int vm_set_vcpus_number_live_admit(
	struct admit *admit, const struct vm_set_vcpus_number_live_args *args, struct err *err)
{
	return args->nvcpu >= 1 && args->nvcpu <= db_row_i(admit->vm, VM_VCPUs_max)
		       ? 0
		       : bad_value(admit->arena, "VCPU values must satisfy: 0 < VCPUs ≤ VCPUs_max",
				 args->nvcpu, err);
}

int vm_set_vcpus_number_live_run(struct job *job, void *task,
	const struct vm_set_vcpus_number_live_args *args, struct err *err)
{
	struct val params = val_map();

	val_map_push(&job->arena, &params, "vcpus", val_int(args->nvcpu));
	db_txn_set(owner_then(task), MODEL_CLASS_VM, args->self, VM_VCPUs_at_startup,
		val_int(args->nvcpu));
	return owner_agent_op(job, task, AGENT_VM_set_vcpus, &params, err);
}

int vm_compute_memory_overhead(
	struct call *call, const struct vm_compute_memory_overhead_args *args, struct err *err)
{
	const struct db_row *vm = db_view_get(&call->view, MODEL_CLASS_VM, args->vm);
	struct cost cost;

	if (vm == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM", args->vm, NULL);
	cost = cost_of(vm, &call->arena);
	call->result = val_int(overhead(&cost));
	return 0;
}

/* The largest static maximum, in whole MiB, with which the VM and its overhead fit into total. */
int vm_maximise_memory(
	struct call *call, const struct vm_maximise_memory_args *args, struct err *err)
{
	const struct db_row *vm = db_view_get(&call->view, MODEL_CLASS_VM, args->self);
	int64_t fits = 0, beyond = args->total / MIB + 1;
	struct cost cost;

	if (vm == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM", args->self, NULL);
	cost = cost_of(vm, &call->arena);
	if (args->approximate)
		cost.vcpus = MANY_VCPUS;
	while (fits + 1 < beyond) {
		int64_t half = fits + (beyond - fits) / 2;

		cost.static_max = half * MIB;
		if (cost.static_max + overhead(&cost) <= args->total)
			fits = half;
		else
			beyond = half;
	}
	call->result = val_int(fits * MIB);
	return 0;
}
