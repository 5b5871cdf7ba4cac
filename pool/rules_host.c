/* The checks of host, pool and VM_appliance: tasks-events.md 2.4. */
#include "model/checks.h"
#include "pool/rules_priv.h"

#include <string.h>

int rule_disabled(struct rule *r, struct err *err)
{
	return db_row_b(r->row, HOST_enabled) ? err_set(err, ERR_HOST_NOT_DISABLED, NULL) : 0;
}

int rule_power_on(struct rule *r, struct err *err)
{
	const struct db_row *metrics = rule_target(r, r->row, HOST_metrics);

	if (metrics != NULL && db_row_b(metrics, HOST_METRICS_live))
		return err_set(err, ERR_HOST_IS_LIVE, db_row_ref(r->row), NULL);
	if (*db_row_s(r->row, HOST_power_on_mode) == 0)
		return err_set(err, ERR_HOST_POWER_ON_MODE_DISABLED, NULL);
	return err_set(err, ERR_XENAPI_MISSING_PLUGIN, "power-on-host", NULL);
}

/* Operations that stand alone, each with an error of its own for the others of its kind. */
static const struct {
	const char *op;
	const struct err_code *busy;
} blocking[] = {
	{ "ha_enable", ERR_HA_ENABLE_IN_PROGRESS },
	{ "ha_disable", ERR_HA_DISABLE_IN_PROGRESS },
	{ "cluster_create", ERR_CLUSTER_CREATE_IN_PROGRESS },
	{ "designate_new_master", ERR_DESIGNATE_NEW_MASTER_IN_PROGRESS },
	{ "tls_verification_enable", ERR_TLS_VERIFICATION_ENABLE_IN_PROGRESS },
	{ "configure_repositories", ERR_CONFIGURE_REPOSITORIES_IN_PROGRESS },
	{ "sync_updates", ERR_SYNC_UPDATES_IN_PROGRESS },
	{ "sync_bundle", ERR_SYNC_BUNDLE_IN_PROGRESS },
	{ "apply_updates", ERR_APPLY_UPDATES_IN_PROGRESS },
};

static const struct err_code *busy_code(const char *op)
{
	for (unsigned i = 0; i < ARRAY_LEN(blocking); i++)
		if (strcmp(blocking[i].op, op) == 0)
			return blocking[i].busy;
	return NULL;
}

int rule_pool_locks(struct rule *r, struct err *err)
{
	struct val current = db_row_field(r->row, POOL_current_operations, r->arena);

	for (uint32_t i = 0; i < current.n && busy_code(r->op->name) != NULL; i++)
		if (busy_code(current.pairs[i].value.s) != NULL)
			return err_set(err, busy_code(current.pairs[i].value.s), NULL);
	return rule_no_other(r, r->row, 0, err);
}

int rule_ha_off(struct rule *r, struct err *err)
{
	return db_row_b(r->row, POOL_ha_enabled) ? err_set(err, ERR_HA_IS_ENABLED, NULL) : 0;
}

int rule_ha_on(struct rule *r, struct err *err)
{
	return db_row_b(r->row, POOL_ha_enabled) ? 0 : err_set(err, ERR_HA_NOT_ENABLED, NULL);
}

int rule_no_cluster(struct rule *r, struct err *err)
{
	return db_view_count(r->view, MODEL_CLASS_Cluster) > 0
		       ? err_set(err, ERR_CLUSTER_ALREADY_EXISTS, NULL)
		       : 0;
}

/* What at least one VM of the appliance must be for an operation to make sense. */
int rule_appliance(struct rule *r, struct err *err)
{
	struct db_cursor c =
		db_rows_related(r->view, MODEL_RELATION_VM_appliance, db_row_ref(r->row));
	unsigned halted = 0, running = 0, n = 0;
	const struct db_row *vm;
	const char *why = NULL;

	while ((vm = db_next(&c)) != NULL) {
		n++;
		halted += rule_state(vm) == RULE_HALTED;
		running += rule_state(vm) == RULE_RUNNING;
	}
	if (n == 0)
		why = "Appliance has no VMs.";
	else if (rule_is(r, "start") && halted == 0)
		why = "No VMs are halted.";
	else if (rule_is(r, "clean_shutdown") && running == 0)
		why = "No VMs are running.";
	else if (!rule_is(r, "start") && halted == n)
		why = "All VMs are already halted.";
	return why != NULL ? err_set(err, ERR_OPERATION_NOT_ALLOWED, why, NULL) : 0;
}
