/* The class VM_appliance, and what VMs have for it: order, delays. tasks-events.md 2.4; XenAPI
 * reference, class VM_appliance.
 *
 *   groups of equal order, lowest first (a stop: highest first) -> all VMs of the group at once ->
 *     all have ended and the longest of their delays has passed -> the next group
 *
 * A VM that is already as it shall be is passed over. A failure stops no other VM; at the end those
 * that are not as they shall be are named. What a restart of this operation finds begun it only
 * waits for, so the delay counts from when the VM's task ended, not from when we looked.
 */
#include "pool/operation_priv.h"

#include <stdlib.h>
#include <string.h>

enum { DELAY_MAX_S = 86400 };

struct kind {
	const char *name, *method; /* of the whole; of each VM */
	const char *goal;	   /* power state */
	int delay;		   /* field of VM */
	bool up;		   /* in ascending order */
};

struct member {
	const char *vm, *part; /* part NULL: nothing begun */
	int64_t order, delay_s;
	bool ended;
};

static int by_order(const void *pa, const void *pb)
{
	const struct member *a = pa, *b = pb;

	if (a->order != b->order)
		return a->order < b->order ? -1 : 1;
	return strcmp(a->vm, b->vm);
}

static int64_t delay_of(const struct db_row *vm, int field)
{
	int64_t s = db_row_i(vm, field);

	return s < 0 ? 0 : s > DELAY_MAX_S ? DELAY_MAX_S : s;
}

/* Sorted so that groups are runs of equal order. */
static struct member *members_of(struct job *job, struct owned *o, const char *appliance,
	const struct kind *kind, unsigned *n_out)
{
	struct db_view view;
	struct db_cursor c, again;
	const struct db_row *vm;
	struct member *members;
	unsigned n = 0, i = 0;

	db_view_pin(o->pool->db, &view);
	again = c = db_rows_related(&view, MODEL_RELATION_VM_appliance, appliance);
	while (db_next(&c) != NULL)
		n++;
	members = arena_alloc(&job->arena, (n + 1) * sizeof *members);
	for (; i < n && (vm = db_next(&again)) != NULL; i++)
		members[i] = (struct member){ .vm = arena_strdup(&job->arena, db_row_ref(vm)),
			.order = kind->up ? db_row_i(vm, VM_order) : -db_row_i(vm, VM_order),
			.delay_s = delay_of(vm, kind->delay) };
	db_view_unpin(&view);
	qsort(members, n, sizeof *members, by_order);
	*n_out = n;
	return members;
}

static bool reached(struct owned *o, const char *ref, const char *goal)
{
	struct db_view view;
	const struct db_row *vm;
	bool yes;

	db_view_pin(o->pool->db, &view);
	vm = db_view_get(&view, MODEL_CLASS_VM, ref);
	yes = vm == NULL || strcmp(db_row_s(vm, VM_power_state), goal) == 0;
	db_view_unpin(&view);
	return yes;
}

static bool begun_before(struct owned *o, const char *word)
{
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct db_view view;
	bool there;

	owner_uuid(o, word, uuid, ref);
	db_view_pin(o->pool->db, &view);
	there = db_view_get(&view, MODEL_CLASS_task, ref) != NULL;
	db_view_unpin(&view);
	return there;
}

static int begin(struct job *job, struct owned *o, const struct kind *kind, struct member *m)
{
	const char *word = m->vm + strlen("OpaqueRef:");
	struct val args[3] = { val_string(m->vm), val_bool(strcmp(kind->goal, "Paused") == 0),
		val_bool(false) }; /* of VM.start; the others take the first */
	struct err why = { 0 };
	int rc;

	if (reached(o, m->vm, kind->goal) && !begun_before(o, word)) {
		m->ended = true;
		return 0;
	}
	rc = part_begin(job, o, word, kind->method, args, &m->part, &why);
	if (rc == ERR_API) { /* the VM is named at the end */
		log_info(job->env, "event=part_refused task=%s vm=%s code=%s", o->task, m->vm,
			why.code->name);
		m->part = NULL;
		m->ended = true;
		rc = 0;
	}
	err_fini(&why);
	return rc;
}

/* Milliseconds until this VM no longer holds the next group up; UINT64_MAX: its part runs. */
static uint64_t still_ms(struct job *job, struct owned *o, struct member *m)
{
	struct err why = { 0 };
	int64_t left;

	if (!m->ended)
		m->ended = part_ended(job, o, m->part, &why);
	err_fini(&why);
	if (!m->ended)
		return UINT64_MAX;
	if (m->part == NULL)
		return 0;
	left = part_finished(o, m->part) + m->delay_s - env_wall_s(job->env);
	left = left > m->delay_s ? m->delay_s : left; /* clocks differ */
	return left > 0 ? (uint64_t)left * 1000 : 0;
}

static unsigned count_ended(const struct member *members, unsigned n)
{
	unsigned ended = 0;

	for (unsigned i = 0; i < n; i++)
		ended += members[i].ended;
	return ended;
}

static int run_group(struct job *job, struct owned *o, const struct kind *kind, struct member *all,
	unsigned n_all, struct member *group, unsigned n, struct err *err)
{
	struct err why = { 0 };
	int rc = 0;

	for (unsigned i = 0; i < n && rc == 0; i++)
		rc = begin(job, o, kind, &group[i]);
	while (rc == 0) {
		uint64_t longest = 0;
		bool runs = false;

		for (unsigned i = 0; i < n; i++) {
			uint64_t ms = still_ms(job, o, &group[i]);

			runs |= ms == UINT64_MAX;
			longest = ms > longest ? ms : longest;
		}
		part_progress(o, count_ended(all, n_all), n_all);
		if (!runs && (longest == 0 || err->code != NULL))
			break;
		rc = parts_wait(job, o, longest, &why);
		if (rc == ERR_API) { /* stop: when those that were begun have ended */
			err_move(err, &why);
			rc = 0;
		}
	}
	err_fini(&why);
	return rc != 0 ? rc : err->code != NULL ? ERR_API : 0;
}

/* Those that are not as they shall be. */
static int judge(struct owned *o, const struct kind *kind, const struct member *members, unsigned n,
	struct err *err)
{
	const char *params[ERR_PARAMS_MAX] = { kind->name };
	unsigned k = 1;

	for (unsigned i = 0; i < n && k < ERR_PARAMS_MAX; i++)
		if (!reached(o, members[i].vm, kind->goal))
			params[k++] = members[i].vm;
	return k > 1 ? err_set_list(err, ERR_OPERATION_PARTIALLY_FAILED, params, k) : 0;
}

static int run(struct job *job, void *task, const char *appliance, const struct kind *kind,
	struct err *err)
{
	struct owned *o = task;
	unsigned n, from = 0, to;
	struct member *members = members_of(job, o, appliance, kind, &n);
	int rc = 0;

	for (; from < n && rc == 0; from = to) {
		for (to = from + 1; to < n && members[to].order == members[from].order; to++)
			;
		rc = run_group(job, o, kind, members, n, members + from, to - from, err);
	}
	return rc != 0 ? rc : judge(o, kind, members, n, err);
}

int vm_appliance_start_run(
	struct job *job, void *task, const struct vm_appliance_start_args *args, struct err *err)
{
	const struct kind kind = { "VM_appliance.start", "VM.start",
		args->paused ? "Paused" : "Running", VM_start_delay, true };

	return run(job, task, args->self, &kind, err);
}

int vm_appliance_clean_shutdown_run(struct job *job, void *task,
	const struct vm_appliance_clean_shutdown_args *args, struct err *err)
{
	static const struct kind kind = { "VM_appliance.clean_shutdown", "VM.clean_shutdown",
		"Halted", VM_shutdown_delay, false };

	return run(job, task, args->self, &kind, err);
}

int vm_appliance_hard_shutdown_run(struct job *job, void *task,
	const struct vm_appliance_hard_shutdown_args *args, struct err *err)
{
	static const struct kind kind = { "VM_appliance.hard_shutdown", "VM.hard_shutdown",
		"Halted", VM_shutdown_delay, false };

	return run(job, task, args->self, &kind, err);
}

int vm_appliance_shutdown_run(
	struct job *job, void *task, const struct vm_appliance_shutdown_args *args, struct err *err)
{
	static const struct kind kind = { "VM_appliance.shutdown", "VM.shutdown", "Halted",
		VM_shutdown_delay, false };

	return run(job, task, args->self, &kind, err);
}

/* Its VMs stay, without it. */
int vm_appliance_destroying(
	struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err)
{
	struct db_cursor c =
		db_rows_related(&call->view, MODEL_RELATION_VM_appliance, db_row_ref(row));
	struct val current = db_row_field(row, VM_APPLIANCE_current_operations, &call->arena);
	const struct db_row *vm;

	if (current.n > 0)
		return err_set(err, ERR_OTHER_OPERATION_IN_PROGRESS, "VM_appliance",
			db_row_ref(row), current.pairs[0].value.s, current.pairs[0].key, NULL);
	while ((vm = db_next(&c)) != NULL)
		db_txn_set(txn, MODEL_CLASS_VM, db_row_ref(vm), VM_appliance, val_string(NULL_REF));
	return 0;
}

/* SRs of the disks of its VMs that no host has attached: vm_out is one that needs it. */
static void missing_srs(
	struct call *call, const char *appliance, struct val *srs, const struct db_row **vm_out)
{
	const struct db_view *view = &call->view;
	struct db_cursor vms = db_rows_related(view, MODEL_RELATION_VM_appliance, appliance);
	const struct db_row *vm, *vbd, *vdi, *sr, *pbd;

	while ((vm = db_next(&vms)) != NULL) {
		struct db_cursor vbds =
			db_rows_related(view, MODEL_RELATION_VBD_VM, db_row_ref(vm));

		while ((vbd = db_next(&vbds)) != NULL) {
			struct db_cursor pbds;
			bool attached = false;

			vdi = db_view_get(view, MODEL_CLASS_VDI, db_row_s(vbd, VBD_VDI));
			sr = vdi != NULL ? db_view_get(view, MODEL_CLASS_SR, db_row_s(vdi, VDI_SR))
					 : NULL;
			if (sr == NULL)
				continue;
			pbds = db_rows_related(view, MODEL_RELATION_PBD_SR, db_row_ref(sr));
			while ((pbd = db_next(&pbds)) != NULL)
				attached |= db_row_b(pbd, PBD_currently_attached);
			if (attached || val_set_has(srs, db_row_ref(sr)))
				continue;
			val_set_push(&call->arena, srs, val_string(db_row_ref(sr)));
			*vm_out = vm;
		}
	}
}

/* In this pool, whose session it is: recovery into another one is not written. */
int vm_appliance_assert_can_be_recovered(struct call *call,
	const struct vm_appliance_assert_can_be_recovered_args *args, struct err *err)
{
	const struct db_row *vm = NULL;
	struct val srs = val_set();

	if (db_view_get(&call->view, MODEL_CLASS_VM_appliance, args->self) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM_appliance", args->self, NULL);
	missing_srs(call, args->self, &srs, &vm);
	return srs.n == 0 ? 0
			  : err_set(err, ERR_VM_REQUIRES_SR, db_row_ref(vm), srs.items[srs.n - 1].s,
				    NULL);
}

int vm_appliance_get_srs_required_for_recovery(struct call *call,
	const struct vm_appliance_get_srs_required_for_recovery_args *args, struct err *err)
{
	const struct db_row *vm;

	if (db_view_get(&call->view, MODEL_CLASS_VM_appliance, args->self) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM_appliance", args->self, NULL);
	call->result = val_set();
	missing_srs(call, args->self, &call->result, &vm);
	return 0;
}

/* What a VM has for it. */

static int set_vm(struct call *call, const char *ref, int field, struct val value, struct err *err)
{
	struct db_txn txn;
	unsigned k;

	if (db_view_get(&call->view, MODEL_CLASS_VM, ref) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM", ref, NULL);
	db_txn_init(&txn, DB_FOR_FIELD);
	k = db_txn_need_row(&txn, MODEL_CLASS_VM, ref);
	err_set(&call->on_failed[k], ERR_HANDLE_INVALID, "VM", ref, NULL);
	db_txn_set(&txn, MODEL_CLASS_VM, ref, field, value);
	return call_write(call, &txn, NULL);
}

static int set_number(struct call *call, const char *ref, int field, const char *name,
	int64_t value, struct err *err)
{
	if (db_view_get(&call->view, MODEL_CLASS_VM, ref) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM", ref, NULL);
	if (value < 0)
		return err_set(err, ERR_INVALID_VALUE, name,
			arena_printf(&call->arena, "%lld", (long long)value), NULL);
	return set_vm(call, ref, field, val_int(value), err);
}

int vm_set_order(struct call *call, const struct vm_set_order_args *args, struct err *err)
{
	return set_number(call, args->self, VM_order, "order", args->value, err);
}

int vm_set_start_delay(
	struct call *call, const struct vm_set_start_delay_args *args, struct err *err)
{
	return set_number(call, args->self, VM_start_delay, "start_delay", args->value, err);
}

int vm_set_shutdown_delay(
	struct call *call, const struct vm_set_shutdown_delay_args *args, struct err *err)
{
	return set_number(call, args->self, VM_shutdown_delay, "shutdown_delay", args->value, err);
}

int vm_set_appliance(struct call *call, const struct vm_set_appliance_args *args, struct err *err)
{
	const struct db_row *vm = db_view_get(&call->view, MODEL_CLASS_VM, args->self);

	if (vm == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM", args->self, NULL);
	if (strcmp(args->value, NULL_REF) != 0 &&
		db_view_get(&call->view, MODEL_CLASS_VM_appliance, args->value) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM_appliance", args->value, NULL);
	if (strcmp(args->value, NULL_REF) != 0 && db_row_b(vm, VM_is_control_domain))
		return err_set(err, ERR_OPERATION_NOT_ALLOWED,
			"A control domain cannot be part of an appliance", NULL);
	return set_vm(call, args->self, VM_appliance, val_string(args->value), err);
}

/* At most one group: where a VM runs follows one rule. */
int vm_set_groups(struct call *call, const struct vm_set_groups_args *args, struct err *err)
{
	if (args->value->n > 1)
		return err_set(
			err, ERR_OPERATION_NOT_ALLOWED, "A VM can be in one group at most", NULL);
	for (uint32_t i = 0; i < args->value->n; i++)
		if (db_view_get(&call->view, MODEL_CLASS_VM_group, args->value->items[i].s) == NULL)
			return err_set(
				err, ERR_HANDLE_INVALID, "VM_group", args->value->items[i].s, NULL);
	return set_vm(call, args->self, VM_groups, *args->value, err);
}
