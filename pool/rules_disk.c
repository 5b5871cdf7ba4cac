/* The checks of SR, VDI and VBD: storage.md 1.3, 1.4, tasks-events.md 2.4. */
#include "model/checks.h"
#include "pool/rules_priv.h"

#include <string.h>

/* The driver's features: "NAME" or "NAME/version". */
static bool sr_can(const struct rule *r, const struct db_row *sr, const char *name)
{
	struct db_cursor c = db_rows(r->view, MODEL_CLASS_SM);
	size_t n = strlen(name);
	const struct db_row *sm;

	while (sr != NULL && (sm = db_next(&c)) != NULL) {
		struct val features = db_row_field(sm, SM_features, r->arena);

		if (strcmp(db_row_s(sm, SM_type), db_row_s(sr, SR_type)) != 0)
			continue;
		for (uint32_t i = 0; i < features.n; i++)
			if (strncmp(features.pairs[i].key, name, n) == 0 &&
				features.pairs[i].key[n] == 0)
				return true;
	}
	return false;
}

/* Operation and the feature it needs. */
struct need {
	const char *op, *feature;
};

static int need_feature(struct rule *r, const struct db_row *sr, const struct need *table,
	unsigned n, struct err *err)
{
	for (unsigned i = 0; i < n; i++)
		if (rule_is(r, table[i].op) && !sr_can(r, sr, table[i].feature))
			return err_set(err, ERR_SR_OPERATION_NOT_SUPPORTED,
				sr != NULL ? db_row_ref(sr) : NULL_REF, NULL);
	return 0;
}

static bool tools_sr(const struct db_row *sr)
{
	return sr != NULL && db_row_b(sr, SR_is_tools_sr);
}

/* SR. */

int rule_sr_feature(struct rule *r, struct err *err)
{
	static const struct need table[] = { { "vdi_create", "VDI_CREATE" },
		{ "vdi_destroy", "VDI_DELETE" }, { "vdi_resize", "VDI_RESIZE" },
		{ "vdi_introduce", "VDI_INTRODUCE" }, { "vdi_mirror", "VDI_MIRROR" },
		{ "vdi_snapshot", "VDI_SNAPSHOT" }, { "vdi_revert", "VDI_REVERT" },
		{ "vdi_enable_cbt", "VDI_CONFIG_CBT" }, { "vdi_disable_cbt", "VDI_CONFIG_CBT" },
		{ "vdi_data_destroy", "VDI_CONFIG_CBT" },
		{ "vdi_list_changed_blocks", "VDI_CONFIG_CBT" },
		{ "vdi_set_on_boot", "VDI_RESET_ON_BOOT" }, { "update", "SR_UPDATE" } };

	if (tools_sr(r->row) && (rule_is(r, "vdi_create") || rule_is(r, "vdi_destroy")))
		return err_set(err, ERR_SR_OPERATION_NOT_SUPPORTED, db_row_ref(r->row), NULL);
	return need_feature(r, r->row, table, ARRAY_LEN(table), err);
}

static bool some_pbd(const struct rule *r, const struct db_row *sr, bool attached)
{
	struct db_cursor c = db_rows_related(r->view, MODEL_RELATION_PBD_SR, db_row_ref(sr));
	const struct db_row *pbd;

	while ((pbd = db_next(&c)) != NULL)
		if (!attached || db_row_b(pbd, PBD_currently_attached))
			return true;
	return false;
}

int rule_no_pbd_plugged(struct rule *r, struct err *err)
{
	return some_pbd(r, r->row, true) ? err_set(err, ERR_SR_HAS_PBD, db_row_ref(r->row), NULL)
					 : 0;
}

int rule_some_pbd(struct rule *r, struct err *err)
{
	return some_pbd(r, r->row, false)
		       ? 0
		       : err_set(err, ERR_SR_HAS_NO_PBDS, db_row_ref(r->row), NULL);
}

int rule_sr_empty(struct rule *r, struct err *err)
{
	struct db_cursor c = db_rows_related(r->view, MODEL_RELATION_VDI_SR, db_row_ref(r->row));
	const struct db_row *vdi;

	while ((vdi = db_next(&c)) != NULL)
		if (db_row_b(vdi, VDI_managed) && strcmp(db_row_s(vdi, VDI_type), "rrd") != 0)
			return err_set(err, ERR_SR_NOT_EMPTY, NULL);
	return 0;
}

/* VDI. */

static bool vbd_live(const struct db_row *vbd)
{
	return db_row_b(vbd, VBD_currently_attached) || db_row_b(vbd, VBD_reserved);
}

static bool writes(const struct db_row *vbd)
{
	return strcmp(db_row_s(vbd, VBD_mode), "RW") == 0;
}

int rule_vdi_plugged(struct rule *r, struct err *err)
{
	const struct db_row *sr = rule_target(r, r->row, VDI_SR);

	return sr == NULL || some_pbd(r, sr, true)
		       ? 0
		       : err_set(err, ERR_SR_HAS_NO_PBDS, db_row_ref(sr), NULL);
}

/* May the operation be done beside this drive, which is in use? */
static bool fits_beside(const struct rule *r, const struct db_row *vbd)
{
	const struct db_row *vm = rule_target(r, vbd, VBD_VM);

	if (rule_is(r, "copy"))
		return !writes(vbd);
	return rule_is(r, "list_changed_blocks") && vm != NULL && db_row_b(vm, VM_is_a_snapshot);
}

int rule_vdi_in_use(struct rule *r, struct err *err)
{
	struct db_cursor c = db_rows_related(r->view, MODEL_RELATION_VBD_VDI, db_row_ref(r->row));
	const struct db_row *vbd;

	while ((vbd = db_next(&c)) != NULL)
		if (vbd_live(vbd) && !fits_beside(r, vbd))
			return err_set(err, ERR_VDI_IN_USE, db_row_ref(r->row), r->op->name, NULL);
	return 0;
}

int rule_vdi_vbd_busy(struct rule *r, struct err *err)
{
	struct db_cursor c = db_rows_related(r->view, MODEL_RELATION_VBD_VDI, db_row_ref(r->row));
	const struct db_row *vbd;

	while ((vbd = db_next(&c)) != NULL)
		if (rule_no_other(r, vbd, 0, err) != 0)
			return ERR_API;
	return 0;
}

int rule_vdi_feature(struct rule *r, struct err *err)
{
	static const struct need table[] = { { "snapshot", "VDI_SNAPSHOT" },
		{ "destroy", "VDI_DELETE" }, { "clone", "VDI_CLONE" }, { "revert_to", "VDI_CLONE" },
		{ "revert_from", "VDI_CLONE" }, { "resize", "VDI_RESIZE" },
		{ "resize_online", "VDI_RESIZE_ONLINE" }, { "mirror", "VDI_MIRROR" },
		{ "enable_cbt", "VDI_CONFIG_CBT" }, { "disable_cbt", "VDI_CONFIG_CBT" },
		{ "data_destroy", "VDI_CONFIG_CBT" }, { "list_changed_blocks", "VDI_CONFIG_CBT" },
		{ "set_on_boot", "VDI_RESET_ON_BOOT" },
		{ "generate_config", "VDI_GENERATE_CONFIG" }, { "update", "VDI_UPDATE" } };

	return need_feature(r, rule_target(r, r->row, VDI_SR), table, ARRAY_LEN(table), err);
}

static int wrong_type(struct rule *r, struct err *err)
{
	return err_set(err, ERR_VDI_INCOMPATIBLE_TYPE, db_row_ref(r->row),
		db_row_s(r->row, VDI_type), NULL);
}

int rule_vdi_cbt_metadata(struct rule *r, struct err *err)
{
	return strcmp(db_row_s(r->row, VDI_type), "cbt_metadata") == 0 ? wrong_type(r, err) : 0;
}

int rule_vdi_no_cbt(struct rule *r, struct err *err)
{
	return db_row_b(r->row, VDI_cbt_enabled)
		       ? err_set(err, ERR_VDI_CBT_ENABLED, db_row_ref(r->row), NULL)
		       : 0;
}

int rule_vdi_destroy(struct rule *r, struct err *err)
{
	const struct db_row *sr = rule_target(r, r->row, VDI_SR);

	if (sr != NULL && strcmp(db_row_s(sr, SR_content_type), "iso") != 0 &&
		strcmp(db_row_s(sr, SR_type), "udev") == 0)
		return err_set(err, ERR_VDI_IS_A_PHYSICAL_DEVICE, db_row_ref(r->row), NULL);
	if (tools_sr(sr))
		return err_set(err, ERR_SR_OPERATION_NOT_SUPPORTED, db_row_ref(sr), NULL);
	if (strcmp(db_row_s(r->row, VDI_type), "rrd") == 0)
		return err_set(err, ERR_VDI_HAS_RRDS, db_row_ref(r->row), NULL);
	return 0;
}

int rule_vdi_data_destroy(struct rule *r, struct err *err)
{
	if (!db_row_b(r->row, VDI_is_a_snapshot))
		return err_set(err, ERR_OPERATION_NOT_ALLOWED, "VDI is not a snapshot", NULL);
	return db_row_b(r->row, VDI_cbt_enabled)
		       ? 0
		       : err_set(err, ERR_VDI_NO_CBT_METADATA, db_row_ref(r->row), NULL);
}

int rule_vdi_not_shared(struct rule *r, struct err *err)
{
	return db_row_b(r->row, VDI_sharable) ? err_set(err, ERR_VDI_IS_SHARABLE, NULL) : 0;
}

int rule_vdi_persists(struct rule *r, struct err *err)
{
	return strcmp(db_row_s(r->row, VDI_on_boot), "reset") == 0
		       ? err_set(err, ERR_VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION, NULL)
		       : 0;
}

int rule_vdi_cbt(struct rule *r, struct err *err)
{
	const char *type = db_row_s(r->row, VDI_type);

	if (db_row_b(r->row, VDI_is_a_snapshot))
		return err_set(err, ERR_OPERATION_NOT_ALLOWED, "VDI is a snapshot", NULL);
	return strcmp(type, "user") == 0 || strcmp(type, "system") == 0 ? 0 : wrong_type(r, err);
}

/* VBD. */

int rule_unpluggable(struct rule *r, struct err *err)
{
	return db_row_b(r->row, VBD_unpluggable)
		       ? 0
		       : err_set(err, ERR_VBD_NOT_UNPLUGGABLE, db_row_ref(r->row), NULL);
}

static bool is_cd(const struct db_row *vbd)
{
	return strcmp(db_row_s(vbd, VBD_type), "CD") == 0;
}

int rule_removable(struct rule *r, struct err *err)
{
	return is_cd(r->row) ? 0
			     : err_set(err, ERR_VBD_NOT_REMOVABLE_MEDIA, db_row_ref(r->row), NULL);
}

int rule_vbd_full(struct rule *r, struct err *err)
{
	return db_row_b(r->row, VBD_empty)
		       ? err_set(err, ERR_VBD_IS_EMPTY, db_row_ref(r->row), NULL)
		       : 0;
}

int rule_vbd_empty(struct rule *r, struct err *err)
{
	return db_row_b(r->row, VBD_empty)
		       ? 0
		       : err_set(err, ERR_VBD_NOT_EMPTY, db_row_ref(r->row), NULL);
}

static int vm_state_error(
	const struct db_row *vm, const char *expected, enum rule_state state, struct err *err)
{
	return err_set(err, ERR_VM_BAD_POWER_STATE, vm != NULL ? db_row_ref(vm) : NULL_REF,
		expected, rule_state_name(state), NULL);
}

/* Media change also while the VM is halted: that is the record alone. */
int rule_vbd_power_state(struct rule *r, struct err *err)
{
	const struct db_row *vm = rule_target(r, r->row, VBD_VM);
	enum rule_state state = rule_state(vm);
	bool media = rule_is(r, "insert") || rule_is(r, "eject"),
	     hold = rule_is(r, "pause") || rule_is(r, "unpause");

	if (media)
		return state == RULE_SUSPENDED || state == RULE_PAUSED
			       ? vm_state_error(vm, "halted, running", state, err)
			       : 0;
	if (state != RULE_RUNNING && !(hold && state == RULE_PAUSED))
		return vm_state_error(vm, "running", state, err);
	if (rule_is(r, "plug") && vbd_live(r->row))
		return err_set(err, ERR_DEVICE_ALREADY_ATTACHED, db_row_ref(r->row), NULL);
	if (!rule_is(r, "plug") && !vbd_live(r->row))
		return err_set(err, ERR_DEVICE_ALREADY_DETACHED, db_row_ref(r->row), NULL);
	return 0;
}

/* An operation on the VM that takes its devices away. */
static int vm_busy(struct rule *r, const struct db_row *vm, struct err *err)
{
	static const char *const taking[] = { "clean_shutdown", "hard_shutdown", "suspend",
		"pause" };
	struct val current =
		vm != NULL ? db_row_field(vm, VM_current_operations, r->arena) : val_map();

	for (uint32_t i = 0; i < current.n; i++)
		for (unsigned k = 0; k < ARRAY_LEN(taking); k++)
			if (strcmp(current.pairs[i].value.s, taking[k]) == 0)
				return err_set(err, ERR_OPERATION_NOT_ALLOWED,
					arena_printf(r->arena, "VM is busy with %s", taking[k]),
					NULL);
	return 0;
}

int rule_vbd_vm_busy(struct rule *r, struct err *err)
{
	return vm_busy(r, rule_target(r, r->row, VBD_VM), err);
}

/* Does a running guest with full emulation take such devices and give them up? It says so itself;
 * one that says nothing does when it has drivers. */
static int hotplug(
	struct rule *r, const struct db_row *vm, int field, const char *device, struct err *err)
{
	const struct db_row *metrics = vm != NULL ? rule_target(r, vm, VM_guest_metrics) : NULL;
	const char *says = metrics != NULL ? db_row_s(metrics, field) : "unspecified";

	if (vm == NULL || !rule_hvm(vm) || rule_state(vm) != RULE_RUNNING ||
		strcmp(says, "yes") == 0)
		return 0;
	if (strcmp(says, "no") == 0)
		return err_set(err, ERR_OPERATION_NOT_ALLOWED,
			arena_printf(r->arena, "VM states it does not support %s hotplug.", device),
			NULL);
	if (metrics != NULL &&
		(db_row_b(metrics, VM_GUEST_METRICS_PV_drivers_detected) ||
			db_row_field(metrics, VM_GUEST_METRICS_PV_drivers_version, r->arena).n > 0))
		return 0;
	return err_set(err, ERR_VM_MISSING_PV_DRIVERS, db_row_ref(vm), NULL);
}

int rule_vbd_hotplug(struct rule *r, struct err *err)
{
	return hotplug(r, rule_target(r, r->row, VBD_VM), VM_GUEST_METRICS_can_use_hotplug_vbd,
		"VBD", err);
}

int rule_vbd_cd_of_hvm(struct rule *r, struct err *err)
{
	const struct db_row *vm = rule_target(r, r->row, VBD_VM);

	return is_cd(r->row) && vm != NULL && rule_hvm(vm)
		       ? err_set(err, ERR_OPERATION_NOT_ALLOWED,
				 "A CD drive of an HVM guest cannot be plugged or unplugged", NULL)
		       : 0;
}

int rule_vbd_managed(struct rule *r, struct err *err)
{
	const struct db_row *vdi = rule_target(r, r->row, VBD_VDI);

	return vdi != NULL && !db_row_b(vdi, VDI_managed)
		       ? err_set(err, ERR_VDI_NOT_MANAGED, db_row_ref(r->row), NULL)
		       : 0;
}

int rule_vbd_vdi_busy(struct rule *r, struct err *err)
{
	const struct db_row *vdi = rule_target(r, r->row, VBD_VDI);

	return vdi == NULL ? 0
			   : rule_no_other(r, vdi,
				     rule_mask(MODEL_CLASS_VDI, "mirror") |
					     rule_mask(MODEL_CLASS_VDI, "copy"),
				     err);
}

/* Is it a user of the disk, or about to be one? A suspended VM is none. */
static bool uses(const struct rule *r, const struct db_row *vbd)
{
	struct val current = db_row_field(vbd, VBD_current_operations, r->arena);

	return current.n > 0 ||
	       (vbd_live(vbd) && rule_state(rule_target(r, vbd, VBD_VM)) != RULE_SUSPENDED);
}

/* One disk, one writer: the first half of the promise; the other is the lock in the SR. */
int rule_vbd_sharing(struct rule *r, struct err *err)
{
	const struct db_row *vdi = rule_target(r, r->row, VBD_VDI), *vbd;
	struct db_cursor c;

	if (vdi == NULL)
		return 0;
	if (writes(r->row) && db_row_b(vdi, VDI_read_only))
		return err_set(err, ERR_VDI_READONLY, db_row_ref(vdi), NULL);
	c = db_rows_related(r->view, MODEL_RELATION_VBD_VDI, db_row_ref(vdi));
	while (!db_row_b(vdi, VDI_sharable) && (vbd = db_next(&c)) != NULL)
		if (vbd != r->row && uses(r, vbd) && (writes(vbd) || writes(r->row)))
			return err_set(err, ERR_VDI_IN_USE, db_row_ref(vdi), NULL);
	return 0;
}

/* VIF and VUSB, which are plugged alike. */

static int device_state(struct rule *r, const struct db_row *vm, bool plugged, struct err *err)
{
	enum rule_state state = rule_state(vm);

	if (state != RULE_RUNNING)
		return vm_state_error(vm, "running", state, err);
	if (rule_is(r, "plug") && plugged)
		return err_set(err, ERR_DEVICE_ALREADY_ATTACHED, db_row_ref(r->row), NULL);
	if (rule_is(r, "unplug") && !plugged)
		return err_set(err, ERR_DEVICE_ALREADY_DETACHED, db_row_ref(r->row), NULL);
	return 0;
}

int rule_vif_dom0(struct rule *r, struct err *err)
{
	const struct db_row *vm = rule_target(r, r->row, VIF_VM);

	return vm != NULL && db_row_b(vm, VM_is_control_domain)
		       ? err_set(err, ERR_OPERATION_NOT_ALLOWED,
				 "VIF plug of a control domain is not allowed", NULL)
		       : 0;
}

int rule_vif_power_state(struct rule *r, struct err *err)
{
	return device_state(r, rule_target(r, r->row, VIF_VM),
		db_row_b(r->row, VIF_currently_attached) || db_row_b(r->row, VIF_reserved), err);
}

int rule_vif_vm_busy(struct rule *r, struct err *err)
{
	return vm_busy(r, rule_target(r, r->row, VIF_VM), err);
}

int rule_vif_hotplug(struct rule *r, struct err *err)
{
	return hotplug(r, rule_target(r, r->row, VIF_VM), VM_GUEST_METRICS_can_use_hotplug_vif,
		"VIF", err);
}

/* A network of virtual functions: they are given to a guest at its start. */
int rule_vif_sriov(struct rule *r, struct err *err)
{
	struct db_cursor pifs = db_rows_related(r->view, MODEL_RELATION_PIF_network,
				 db_row_s(r->row, VIF_network)),
			 of;
	const struct db_row *pif;

	while ((pif = db_next(&pifs)) != NULL) {
		of = db_rows_related(
			r->view, MODEL_RELATION_network_sriov_logical_PIF, db_row_ref(pif));
		if (db_next(&of) != NULL)
			return err_set(err, ERR_OPERATION_NOT_ALLOWED,
				"A VIF on an SR-IOV network cannot be plugged or unplugged", NULL);
	}
	return 0;
}

int rule_vusb_power_state(struct rule *r, struct err *err)
{
	return device_state(
		r, rule_target(r, r->row, VUSB_VM), db_row_b(r->row, VUSB_currently_attached), err);
}

int rule_vtpm_halted(struct rule *r, struct err *err)
{
	const struct db_row *vm = rule_target(r, r->row, VTPM_VM);
	enum rule_state state = rule_state(vm);

	return state == RULE_HALTED ? 0 : vm_state_error(vm, "halted", state, err);
}
