/* What is really there: read from the agent, written into the record in one way (1.4), whoever does
 * it: the end of a task, or reconciliation.
 *
 * Single writer: power_state, resident_on and domid of a VM, and what its devices are attached to,
 * are written by the host that has its domain.
 */
#include "pool/vm_priv.h"

#include <string.h>

static int64_t number(const struct val *map, const char *key, int64_t absent)
{
	const struct val *v = val_get(map, key);

	return v != NULL && v->kind == VAL_INT ? v->i : absent;
}

int facts_read(struct job *job, struct pool *pool, const char *vm_uuid, struct facts *out)
{
	struct val params = val_map(), v;
	struct err err = { 0 };
	const struct val *busy;
	int rc;

	val_map_push(&job->arena, &params, "uuid", val_string(vm_uuid));
	rc = agent_ask(job, pool, AGENT_VM_stat, &params, &v, &err);
	err_fini(&err);
	if (rc != 0)
		return rc;
	out->power_state = val_get_s(&v, "power_state");
	busy = val_get(&v, "busy");
	out->vifs = val_get(&v, "vifs");
	out->vbds = val_get(&v, "vbds");
	out->guest = val_get(&v, "guest");
	out->undecided = val_get_s(&v, "undecided");
	if (out->undecided == NULL || !uuid_ok(out->undecided))
		out->undecided = "";
	out->domid = number(&v, "domid", -1);
	out->vcpus = number(&v, "vcpus", 0);
	out->age_s = number(&v, "started_ago_s", 0);
	out->busy = busy != NULL && busy->kind == VAL_BOOL && busy->b;
	return out->power_state != NULL &&
			       model_enum_index(MODEL_ENUM_vm_power_state, out->power_state) >= 0
		       ? 0
		       : ERR_CORRUPT;
}

uint64_t facts_version(struct pool *pool, const char *vm_uuid)
{
	struct db_view view;
	const struct db_row *vm;
	uint64_t version;

	db_view_pin(pool->db, &view);
	vm = db_view_by_uuid(&view, MODEL_CLASS_VM, vm_uuid);
	version = vm != NULL ? db_row_modified(vm) : 0;
	db_view_unpin(&view);
	return version;
}

/* Without a domain. */
static bool halted(const struct facts *f)
{
	return strcmp(f->power_state, "Halted") == 0 || strcmp(f->power_state, "Suspended") == 0;
}

static const struct db_row *metrics_of(const struct db_view *view, const struct db_row *vm)
{
	return db_view_get(view, MODEL_CLASS_VM_metrics, db_row_s(vm, VM_metrics));
}

/* What its domain is; of a halted VM it stays as it was. */
static void metrics_write(struct db_txn *txn, struct pool *pool, const struct db_view *view,
	const struct db_row *vm, const struct facts *f)
{
	const struct db_row *row = metrics_of(view, vm);
	const char *type = halted(f) ? "unspecified" : vm_domain_type(vm);

	if (row == NULL)
		return;
	if (strcmp(db_row_s(row, VM_METRICS_current_domain_type), type) != 0)
		db_txn_set(txn, MODEL_CLASS_VM_metrics, db_row_ref(row),
			VM_METRICS_current_domain_type, val_string(type));
	if (!halted(f) && db_row_i(row, VM_METRICS_VCPUs_number) != f->vcpus)
		db_txn_set(txn, MODEL_CLASS_VM_metrics, db_row_ref(row), VM_METRICS_VCPUs_number,
			val_int(f->vcpus));
	if (!halted(f) && db_row_i(vm, VM_domid) != f->domid)
		db_txn_set(txn, MODEL_CLASS_VM_metrics, db_row_ref(row), VM_METRICS_start_time,
			val_datetime(env_wall_s(pool->env) - f->age_s));
}

void facts_write(struct db_txn *txn, struct pool *pool, const struct db_view *view,
	const struct db_row *vm, const struct facts *f, const char *self)
{
	const char *ref = db_row_ref(vm);
	bool nowhere = strcmp(db_row_s(vm, VM_resident_on), NULL_REF) == 0;

	/* of what has no domain anywhere the agent knows nothing: it may be suspended */
	if (!(nowhere && halted(f)))
		db_txn_set(txn, MODEL_CLASS_VM, ref, VM_power_state, val_string(f->power_state));
	db_txn_set(txn, MODEL_CLASS_VM, ref, VM_domid, val_int(halted(f) ? -1 : f->domid));
	db_txn_set(
		txn, MODEL_CLASS_VM, ref, VM_resident_on, val_string(halted(f) ? NULL_REF : self));
	db_txn_set(txn, MODEL_CLASS_VM, ref, VM_scheduled_to_be_resident_on, val_string(NULL_REF));
	if (halted(f))
		db_txn_set(txn, MODEL_CLASS_VM, ref, VM_requires_reboot, val_bool(false));
	vif_facts_write(txn, view, vm, f, self);
	metrics_write(txn, pool, view, vm, f);
	if (!halted(f))
		guest_facts_write(txn, pool, view, vm, f);
	vbd_facts_write(txn, view, vm, f);
	if (halted(f)) {
		memory_drop(txn, view, ref, self);
		console_drop(txn, view, ref);
	} else {
		memory_keep(txn, pool, view, vm, self);
		console_facts_write(txn, pool, view, vm, self);
	}
}

bool facts_ours(const struct db_row *vm, const char *self)
{
	const char *on = db_row_s(vm, VM_resident_on);

	return strcmp(on, NULL_REF) == 0 || strcmp(on, self) == 0;
}

/* A VM that is nowhere is left alone but for a start that never came to be. */
bool facts_differ(const struct db_view *view, const struct db_row *vm, const struct facts *f,
	const char *self)
{
	bool nowhere = strcmp(db_row_s(vm, VM_resident_on), NULL_REF) == 0;

	if (!facts_ours(vm, self))
		return false;
	if (nowhere && halted(f))
		return strcmp(db_row_s(vm, VM_scheduled_to_be_resident_on), self) == 0;
	return nowhere || halted(f) || strcmp(db_row_s(vm, VM_power_state), f->power_state) != 0 ||
	       db_row_i(vm, VM_domid) != f->domid || !memory_kept(view, db_row_ref(vm), self) ||
	       vif_facts_differ(view, vm, f) || vbd_facts_differ(view, vm, f) ||
	       guest_facts_differ(view, vm, f) || console_facts_differ(view, vm, self);
}
