/* The checks of VM: vm-lifecycle 1.3, in the order of its table. */
#include "model/checks.h"
#include "pool/rules_priv.h"

#include <string.h>

int rule_blocked(struct rule *r, struct err *err)
{
	struct val blocked = db_row_field(r->row, VM_blocked_operations, r->arena);
	const char *why = val_get_s(&blocked, r->op->name);

	return why != NULL ? err_set(err, ERR_OPERATION_BLOCKED, db_row_ref(r->row), why, NULL) : 0;
}

static int bad_power_state(struct rule *r, unsigned states, struct err *err)
{
	const char *expected = "";

	for (int k = RULE_HALTED; k <= RULE_SUSPENDED; k++)
		if (states & 1u << k)
			expected = arena_printf(r->arena, "%s%s%s", expected, *expected ? ", " : "",
				rule_state_name(k));
	return err_set(err, ERR_VM_BAD_POWER_STATE, db_row_ref(r->row), expected,
		rule_state_name(rule_state(r->row)), NULL);
}

int rule_power_state(struct rule *r, struct err *err)
{
	unsigned states = r->op->states;

	if (db_row_b(r->row, VM_is_control_domain) &&
		(rule_is(r, "changing_VCPUs") || rule_is(r, "changing_static_range") ||
			rule_is(r, "changing_memory_limits")))
		states |= 1u << RULE_RUNNING;
	return states & 1u << rule_state(r->row) ? 0 : bad_power_state(r, states, err);
}

/* A suspended VM is copied with its memory image only where the pool permits it, or from a
 * snapshot. */
int rule_suspended_copy(struct rule *r, struct err *err)
{
	if (rule_state(r->row) != RULE_SUSPENDED || db_row_b(r->row, VM_is_a_snapshot))
		return 0;
	return rule_pool_option(r, "allow_clone_suspended_vm")
		       ? 0
		       : bad_power_state(r, 1u << RULE_HALTED, err);
}

/* destroy and migrate_send are for templates that are not the product's. */
int rule_template(struct rule *r, struct err *err)
{
	bool others = rule_is(r, "destroy") || rule_is(r, "migrate_send");

	if (!db_row_b(r->row, VM_is_a_template) || db_row_b(r->row, VM_is_a_snapshot) ||
		(others && !db_row_b(r->row, VM_is_default_template)))
		return 0;
	return err_set(err, ERR_VM_IS_TEMPLATE, db_row_ref(r->row), r->op->name, NULL);
}

int rule_snapshot(struct rule *r, struct err *err)
{
	return db_row_b(r->row, VM_is_a_snapshot)
		       ? err_set(err, ERR_VM_IS_SNAPSHOT, db_row_ref(r->row), r->op->name, NULL)
		       : 0;
}

int rule_provision(struct rule *r, struct err *err)
{
	return db_row_b(r->row, VM_is_a_template)
		       ? 0
		       : err_set(err, ERR_PROVISION_ONLY_ALLOWED_ON_TEMPLATE, NULL);
}

int rule_revert(struct rule *r, struct err *err)
{
	return db_row_b(r->row, VM_is_a_snapshot)
		       ? 0
		       : err_set(err, ERR_REVERT_ONLY_ALLOWED_ON_SNAPSHOT, NULL);
}

static bool platform(const struct rule *r, const char *key)
{
	struct val map = db_row_field(r->row, VM_platform, r->arena);
	const char *word = val_get_s(&map, key);

	return word != NULL && (strcmp(word, "true") == 0 || strcmp(word, "1") == 0);
}

int rule_mobile(struct rule *r, struct err *err)
{
	return platform(r, "nomigrate") || platform(r, "nested-virt")
		       ? err_set(err, ERR_VM_IS_IMMOBILE, db_row_ref(r->row), NULL)
		       : 0;
}

int rule_nested_virt(struct rule *r, struct err *err)
{
	return platform(r, "nested-virt")
		       ? err_set(err, ERR_VM_IS_USING_NESTED_VIRT, db_row_ref(r->row), NULL)
		       : 0;
}

int rule_control_domain(struct rule *r, struct err *err)
{
	if (!db_row_b(r->row, VM_is_control_domain))
		return 0;
	return err_set(err, ERR_OPERATION_NOT_ALLOWED,
		"This operation is not allowed on a control domain", NULL);
}

/* The control domain of the host that it runs on; others may be made smaller and be destroyed. */
int rule_domain_zero(struct rule *r, struct err *err)
{
	const struct db_row *host = rule_target(r, r->row, VM_resident_on);

	if (!db_row_b(r->row, VM_is_control_domain) || host == NULL ||
		strcmp(db_row_s(host, HOST_control_domain), db_row_ref(r->row)) != 0)
		return 0;
	return err_set(
		err, ERR_OPERATION_NOT_ALLOWED, "This operation is not allowed on dom0", NULL);
}

/* What the guest says of itself; false when nobody in it says anything. */
static bool guest(const struct rule *r, struct val *other_out)
{
	const struct db_row *metrics = rule_target(r, r->row, VM_guest_metrics);

	if (metrics == NULL || rule_state(r->row) != RULE_RUNNING)
		return false;
	*other_out = db_row_field(metrics, VM_GUEST_METRICS_other, r->arena);
	return true;
}

int rule_suspendable(struct rule *r, struct err *err)
{
	struct val other;
	const char *why;

	if (!guest(r, &other))
		return 0;
	why = val_get_s(&other, "data-cant-suspend-reason");
	return why != NULL ? err_set(err, ERR_VM_NON_SUSPENDABLE, db_row_ref(r->row), why, NULL)
			   : 0;
}

static bool feature(const struct val *other, const char *name)
{
	const char *word = val_get_s(other, name);

	return word != NULL && strcmp(word, "1") == 0;
}

/* Of HVM guests that say something, but have no drivers: such a guest says what it can. A guest
 * that has never said anything is presumed to be able. */
int rule_features(struct rule *r, struct err *err)
{
	const struct db_row *metrics;
	struct val other;
	bool able;

	if (!rule_hvm(r->row) || !guest(r, &other))
		return 0;
	metrics = rule_target(r, r->row, VM_guest_metrics);
	if (db_row_b(metrics, VM_GUEST_METRICS_PV_drivers_detected))
		return 0;
	if (rule_is(r, "clean_shutdown"))
		able = feature(&other, "feature-shutdown") && feature(&other, "feature-poweroff");
	else if (rule_is(r, "clean_reboot"))
		able = feature(&other, "feature-shutdown") && feature(&other, "feature-reboot");
	else
		able = feature(&other, rule_is(r, "changing_VCPUs_live") ? "feature-vcpu-hotplug"
									 : "feature-suspend");
	return able ? 0 : err_set(err, ERR_VM_LACKS_FEATURE, db_row_ref(r->row), NULL);
}

int rule_quiesce(struct rule *r, struct err *err)
{
	return err_set(
		err, ERR_VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED, db_row_ref(r->row), "", NULL);
}

/* A disk that is cached, too, has what its guest wrote on the one host alone. */
int rule_on_boot(struct rule *r, struct err *err)
{
	struct db_cursor c = db_rows_related(r->view, MODEL_RELATION_VBD_VM, db_row_ref(r->row));
	const struct db_row *vbd, *vdi;

	while ((vbd = db_next(&c)) != NULL) {
		vdi = rule_target(r, vbd, VBD_VDI);
		if (vdi != NULL && strcmp(db_row_s(vdi, VDI_on_boot), "reset") == 0 &&
			(!rule_is(r, "pool_migrate") || db_row_b(vdi, VDI_allow_caching)))
			return err_set(err, ERR_VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION, NULL);
	}
	return 0;
}

int rule_pci(struct rule *r, struct err *err)
{
	struct val devices = db_row_field(r->row, VM_attached_PCIs, r->arena);

	return devices.n > 0 ? err_set(err, ERR_VM_HAS_PCI_ATTACHED, db_row_ref(r->row), NULL) : 0;
}

static bool has(const struct rule *r, int relation)
{
	struct db_cursor c = db_rows_related(r->view, relation, db_row_ref(r->row));

	return db_next(&c) != NULL;
}

/* None of ours can be moved. */
int rule_vgpu(struct rule *r, struct err *err)
{
	return has(r, MODEL_RELATION_VGPU_VM)
		       ? err_set(err, ERR_VM_HAS_VGPU, db_row_ref(r->row), NULL)
		       : 0;
}

int rule_vusb(struct rule *r, struct err *err)
{
	return has(r, MODEL_RELATION_VUSB_VM)
		       ? err_set(err, ERR_VM_HAS_VUSBS, db_row_ref(r->row), NULL)
		       : 0;
}

int rule_grouped(struct rule *r, struct err *err)
{
	const char *ref = db_row_ref(r->row);

	if (rule_target(r, r->row, VM_appliance) != NULL)
		return err_set(err, ERR_VM_IS_PART_OF_AN_APPLIANCE, ref,
			db_row_s(r->row, VM_appliance), NULL);
	if (rule_target(r, r->row, VM_protection_policy) != NULL)
		return err_set(err, ERR_VM_ASSIGNED_TO_PROTECTION_POLICY, ref,
			db_row_s(r->row, VM_protection_policy), NULL);
	if (rule_target(r, r->row, VM_snapshot_schedule) != NULL)
		return err_set(err, ERR_VM_ASSIGNED_TO_SNAPSHOT_SCHEDULE, ref,
			db_row_s(r->row, VM_snapshot_schedule), NULL);
	return 0;
}

int rule_services(struct rule *r, struct err *err)
{
	struct val config = db_row_field(r->row, VM_other_config, r->arena);

	return val_get_s(&config, "is_system_domain") != NULL
		       ? 0
		       : err_set(err, ERR_NOT_SYSTEM_DOMAIN, db_row_ref(r->row), NULL);
}

int rule_one_vtpm(struct rule *r, struct err *err)
{
	return has(r, MODEL_RELATION_VTPM_VM) ? err_set(err, ERR_VTPM_MAX_AMOUNT_REACHED, "1", NULL)
					      : 0;
}
