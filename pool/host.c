/* The class host: what needs no host to answer. pool.md section 4. What changes a machine is in
 * host_power.c, moving its VMs away in evacuate.c. */
#include "pool/operation_priv.h"

#include <string.h>

static const struct db_row *host_of(struct call *call, const char *ref, struct err *err)
{
	const struct db_row *row = db_view_get(&call->view, MODEL_CLASS_host, ref);

	if (row == NULL)
		err_set(err, ERR_HANDLE_INVALID, "host", ref, NULL);
	return row;
}

static void set_enabled(struct call *call, struct db_txn *txn, const struct db_row *host,
	bool enabled, bool auto_enable)
{
	const char *member = db_row_s(host, HOST_uuid);

	db_txn_init(txn, DB_FOR_FIELD);
	db_txn_need_row(txn, MODEL_CLASS_host, db_row_ref(host));
	db_txn_set(txn, MODEL_CLASS_host, db_row_ref(host), HOST_enabled, val_bool(enabled));
	if (db_view_get(&call->view, MODEL_CLASS__member, member) != NULL &&
		db_view_schema(&call->view) >=
			model_classes[MODEL_CLASS__member].fields[_MEMBER_auto_enable].schema)
		db_txn_set(txn, MODEL_CLASS__member, member, _MEMBER_auto_enable,
			val_bool(auto_enable));
}

/* No VM starts here from the entry on: each admission of a start has "enabled" as a condition. */
int host_disable(struct call *call, const struct host_disable_args *args, struct err *err)
{
	const struct db_row *host = host_of(call, args->host, err);
	struct db_txn txn;

	if (host == NULL)
		return ERR_API;
	set_enabled(call, &txn, host, false, args->auto_enable);
	return call_write(call, &txn, NULL);
}

int host_enable(struct call *call, const struct host_enable_args *args, struct err *err)
{
	const struct db_row *host = host_of(call, args->host, err), *metrics;
	const char *waits_for;
	struct val guidance;
	struct db_txn txn;

	if (host == NULL)
		return ERR_API;
	metrics = db_view_get(&call->view, MODEL_CLASS_host_metrics, db_row_s(host, HOST_metrics));
	if (metrics == NULL || !db_row_b(metrics, HOST_METRICS_live))
		return err_set(err, ERR_HOST_OFFLINE, args->host, NULL);
	if (rules_check(&call->view, host, "enable", &call->arena, &waits_for, err) != 0)
		return ERR_API;
	guidance = db_row_field(host, HOST_pending_guidances, &call->arena);
	if (guidance.n > 0)
		return err_set(
			err, ERR_HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY, args->host, NULL);
	set_enabled(call, &txn, host, true, true);
	return call_write(call, &txn, NULL);
}

/* The clock of the member that answers, whichever host is named (docs/wire.md). */
int host_get_servertime(
	struct call *call, const struct host_get_servertime_args *args, struct err *err)
{
	if (host_of(call, args->host, err) == NULL)
		return ERR_API;
	call->result = val_datetime(env_wall_s(call->pool->env));
	return 0;
}

int host_get_server_localtime(
	struct call *call, const struct host_get_server_localtime_args *args, struct err *err)
{
	return host_get_servertime(
		call, &(struct host_get_servertime_args){ .host = args->host }, err);
}

int host_list_methods(struct call *call, const struct host_list_methods_args *args, struct err *err)
{
	(void)args;
	(void)err;
	call->result = val_set();
	for (unsigned i = 0; i < model_n_messages; i++)
		val_set_push(&call->arena, &call->result, val_string(model_messages[i].name));
	return 0;
}

/* Nobody has decided for so long that nobody waits for it any more: an election is no emergency. */
int host_is_in_emergency_mode(
	struct call *call, const struct host_is_in_emergency_mode_args *args, struct err *err)
{
	(void)args;
	(void)err;
	call->result = val_bool(db_leader_silence_ms(call->pool->db) >= DB_TIMEOUT_MS);
	return 0;
}

int host_get_management_interface(
	struct call *call, const struct host_get_management_interface_args *args, struct err *err)
{
	struct db_cursor c = db_rows_related(&call->view, MODEL_RELATION_PIF_host, args->host);
	const struct db_row *pif;

	if (host_of(call, args->host, err) == NULL)
		return ERR_API;
	while ((pif = db_next(&c)) != NULL)
		if (db_row_b(pif, PIF_management)) {
			call->result = val_string(db_row_ref(pif));
			return 0;
		}
	return err_set(err, ERR_HOST_HAS_NO_MANAGEMENT_IP, NULL);
}

/* By what is promised to VMs, not by what they use now. 0: the host has not said how much it has.
 */
int host_compute_free_memory(
	struct call *call, const struct host_compute_free_memory_args *args, struct err *err)
{
	const struct db_row *host = host_of(call, args->host, err);
	int64_t left;

	if (host == NULL)
		return ERR_API;
	left = memory_free(&call->view, host);
	call->result = val_int(left == INT64_MAX || left < 0 ? 0 : left);
	return 0;
}

int host_compute_memory_overhead(
	struct call *call, const struct host_compute_memory_overhead_args *args, struct err *err)
{
	const struct db_row *host = host_of(call, args->host, err);

	if (host == NULL)
		return ERR_API;
	call->result = val_int(db_row_i(host, HOST_memory_overhead));
	return 0;
}

/* There are no plug-ins and no extensions. */
int host_call_plugin(struct call *call, const struct host_call_plugin_args *args, struct err *err)
{
	return host_of(call, args->host, err) == NULL
		       ? ERR_API
		       : err_set(err, ERR_XENAPI_MISSING_PLUGIN, args->plugin, NULL);
}

int host_has_extension(
	struct call *call, const struct host_has_extension_args *args, struct err *err)
{
	call->result = val_bool(false);
	return host_of(call, args->host, err) == NULL ? ERR_API : 0;
}

int pool_has_extension(
	struct call *call, const struct pool_has_extension_args *args, struct err *err)
{
	call->result = val_bool(false);
	return db_view_get(&call->view, MODEL_CLASS_pool, args->self) != NULL
		       ? 0
		       : err_set(err, ERR_HANDLE_INVALID, "pool", args->self, NULL);
}

int host_set_power_on_mode(
	struct call *call, const struct host_set_power_on_mode_args *args, struct err *err)
{
	struct db_txn txn;

	if (host_of(call, args->self, err) == NULL)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_row(&txn, MODEL_CLASS_host, args->self);
	db_txn_set(&txn, MODEL_CLASS_host, args->self, HOST_power_on_mode,
		val_string(args->power_on_mode));
	db_txn_set(
		&txn, MODEL_CLASS_host, args->self, HOST_power_on_config, *args->power_on_config);
	return call_write(call, &txn, NULL);
}
