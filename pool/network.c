/* Networks, and the interfaces of hosts on them: rules of network.md sections 1.1, 2 and 5 that
 * need no host, and VLANs. What the rows say of a simulated host is all there is: its agent has
 * every bridge it is told of.
 *
 * Invariants, kept by preconditions: no two networks have one bridge name, no two VLANs of one
 * tag are over one interface, and a host is on a network by one interface at most.
 */
#include "pool/network_priv.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	TAG_MAX = 4094,
	MTU_DEFAULT = 1500,
};

const struct db_row *network_of_bridge(const struct db_view *view, const char *name)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_network);
	const struct db_row *row;

	while ((row = db_next(&c)) != NULL && strcmp(db_row_s(row, NETWORK_bridge), name) != 0)
		;
	return row;
}

static bool bridge_name_ok(const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)name[i]) && strchr("._-", name[i]) == NULL)
			return false;
	return n >= 1 && n <= DEVICE_NAME_MAX && isalnum((unsigned char)name[0]);
}

int network_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err)
{
	const char *bridge =
		fields[NETWORK_bridge].kind == VAL_STRING ? fields[NETWORK_bridge].s : "";
	bool managed = fields[NETWORK_managed].kind != VAL_BOOL || fields[NETWORK_managed].b;
	unsigned long n = raise_serial(&call->view, &call->arena, txn, NETWORKS_CREATED);

	if (*bridge == 0 && managed) {
		do
			bridge = arena_printf(&call->arena, "xapi%lu", n++);
		while (network_of_bridge(&call->view, bridge) != NULL);
		fields[NETWORK_bridge] = val_string(bridge);
	}
	if (!bridge_name_ok(bridge))
		return err_set(err, ERR_INVALID_VALUE, "bridge", bridge, NULL);
	if (network_of_bridge(&call->view, bridge) != NULL)
		return err_set(err, ERR_BRIDGE_NAME_EXISTS, bridge, NULL);
	return 0;
}

static int contains(
	const struct err_code *code, struct db_cursor c, int only_field, struct err *err)
{
	const char *refs[ERR_PARAMS_MAX];
	const struct db_row *row;
	unsigned n = 0;

	while (n < ERR_PARAMS_MAX && (row = db_next(&c)) != NULL)
		if (only_field < 0 || db_row_b(row, only_field))
			refs[n++] = db_row_ref(row);
	return n > 0 ? err_set_list(err, code, refs, n) : 0;
}

/* Interfaces of VMs that are not plugged go with it. */
int network_destroying(
	struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err)
{
	struct val config = db_row_field(row, NETWORK_other_config, &call->arena);
	const char *ref = db_row_ref(row);

	(void)txn;
	if (contains(ERR_NETWORK_CONTAINS_VIF,
		    db_rows_related(&call->view, MODEL_RELATION_VIF_network, ref),
		    VIF_currently_attached, err) != 0 ||
		contains(ERR_NETWORK_CONTAINS_PIF,
			db_rows_related(&call->view, MODEL_RELATION_PIF_network, ref), -1,
			err) != 0)
		return ERR_API;
	if (val_get(&config, "is_host_internal_management_network") != NULL ||
		val_get(&config, "is_guest_installer_network") != NULL)
		return err_set(err, ERR_CANNOT_DESTROY_SYSTEM_NETWORK, ref, NULL);
	return 0;
}

static const struct db_row *network_of(struct call *call, const char *ref, struct err *err)
{
	const struct db_row *row = db_view_get(&call->view, MODEL_CLASS_network, ref);

	if (row == NULL)
		err_set(err, ERR_HANDLE_INVALID, "network", ref, NULL);
	return row;
}

/* Refused while an interface follows the setting: it would be filtered by the old one. */
int network_set_default_locking_mode(struct call *call,
	const struct network_set_default_locking_mode_args *args, struct err *err)
{
	const struct db_row *row = network_of(call, args->network, err), *vif;
	struct db_cursor c;
	struct db_txn txn;

	if (row == NULL)
		return ERR_API;
	c = db_rows_related(&call->view, MODEL_RELATION_VIF_network, args->network);
	while ((vif = db_next(&c)) != NULL)
		if (db_row_b(vif, VIF_currently_attached) &&
			strcmp(db_row_s(vif, VIF_locking_mode), "network_default") == 0)
			return err_set(err, ERR_VIF_IN_USE, args->network, db_row_ref(vif), NULL);
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_version(&txn, MODEL_CLASS_network, args->network, db_row_modified(row));
	db_txn_set(&txn, MODEL_CLASS_network, args->network, NETWORK_default_locking_mode,
		val_string(args->value));
	return call_write(call, &txn, NULL);
}

/* Of all networks of the pool either nbd or insecure_nbd, never both. */
int network_add_purpose(
	struct call *call, const struct network_add_purpose_args *args, struct err *err)
{
	const struct db_row *row = network_of(call, args->self, err), *other;
	const char *against = strcmp(args->value, "nbd") == 0 ? "insecure_nbd" : "nbd";
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_network);
	struct db_txn txn;

	if (row == NULL)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	raise_serial(&call->view, &call->arena, &txn,
		NETWORKS_CREATED); /* so two at once are judged one after the other */
	while ((other = db_next(&c)) != NULL) {
		struct val purpose = db_row_field(other, NETWORK_purpose, &call->arena);

		if (!val_set_has(&purpose, against))
			continue;
		db_txn_fini(&txn);
		return err_set(err, ERR_NETWORK_INCOMPATIBLE_PURPOSES, args->value, against, NULL);
	}
	db_txn_need_row(&txn, MODEL_CLASS_network, args->self);
	db_txn_set_add(
		&txn, MODEL_CLASS_network, args->self, NETWORK_purpose, val_string(args->value));
	return call_write(call, &txn, NULL);
}

int network_remove_purpose(
	struct call *call, const struct network_remove_purpose_args *args, struct err *err)
{
	struct db_txn txn;

	if (network_of(call, args->self, err) == NULL)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_row(&txn, MODEL_CLASS_network, args->self);
	db_txn_set_remove(
		&txn, MODEL_CLASS_network, args->self, NETWORK_purpose, val_string(args->value));
	return call_write(call, &txn, NULL);
}

/* Interfaces of hosts. */

void pif_create_metrics(struct pool *pool, struct db_txn *txn, char ref[DB_REF_MAX + 1])
{
	struct val f[PIF_METRICS_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char uuid[UUID_LEN + 1];

	pool_ref(pool, uuid, ref);
	f[PIF_METRICS_uuid] = val_string(uuid);
	f[PIF_METRICS_carrier] = f[PIF_METRICS_duplex] = val_bool(true);
	f[PIF_METRICS_last_updated] = val_datetime(env_wall_s(pool->env));
	db_txn_create(txn, MODEL_CLASS_PIF_metrics, ref, f);
}

void network_create_management(struct pool *pool, struct db_txn *txn, char ref[DB_REF_MAX + 1])
{
	struct val f[NETWORK_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char uuid[UUID_LEN + 1];

	pool_ref(pool, uuid, ref);
	f[NETWORK_uuid] = val_string(uuid);
	f[NETWORK_name_label] = val_string("Pool-wide network associated with eth0");
	f[NETWORK_bridge] = val_string("xenbr0");
	db_txn_create(txn, MODEL_CLASS_network, ref, f);
}

const char *network_management(const struct db_view *view, const char *host)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_PIF);
	const char *network = NULL_REF;
	const struct db_row *pif;

	while ((pif = db_next(&c)) != NULL)
		if (db_row_b(pif, PIF_management) &&
			(host == NULL || strcmp(db_row_s(pif, PIF_host), host) == 0))
			network = db_row_s(pif, PIF_network);
	return network;
}

void network_create_management_pif(struct pool *pool, struct db_txn *txn, struct arena *a,
	const char *network, const char *host, const char *address)
{
	struct val f[PIF_FIELD_COUNT] = { { .kind = VAL_VOID } }, v6 = val_set();
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1], metrics[DB_REF_MAX + 1], mac[MAC_LEN + 1];
	uint8_t random[MAC_BYTES];

	env_random(pool->env, random, sizeof random);
	mac_local(random, mac);
	pif_create_metrics(pool, txn, metrics);
	pool_ref(pool, uuid, ref);
	f[PIF_uuid] = val_string(uuid);
	f[PIF_device] = f[PIF_device_name] = val_string("eth0");
	f[PIF_network] = val_string(network);
	f[PIF_host] = val_string(host);
	f[PIF_MAC] = val_string(mac);
	f[PIF_MTU] = val_int(MTU_DEFAULT);
	f[PIF_VLAN] = val_int(-1);
	f[PIF_metrics] = val_string(metrics);
	f[PIF_physical] = f[PIF_management] = val_bool(true);
	if (strchr(address, ':') != NULL) {
		val_set_push(a, &v6, val_string(address));
		f[PIF_IPv6] = v6;
		f[PIF_ipv6_configuration_mode] = val_string("Static");
		f[PIF_primary_address_type] = val_string("IPv6");
	} else {
		f[PIF_IP] = val_string(address);
		f[PIF_ip_configuration_mode] = val_string("Static");
	}
	db_txn_create(txn, MODEL_CLASS_PIF, ref, f);
}

const struct db_row *pif_on(const struct db_view *view, const char *network, const char *host)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_PIF_network, network);
	const struct db_row *pif;

	while ((pif = db_next(&c)) != NULL)
		if (strcmp(db_row_s(pif, PIF_host), host) == 0)
			return pif;
	return NULL;
}

/* VLANs. */

static int vlan_check(struct call *call, const struct db_row *pif, int64_t tag,
	const struct db_row *network, struct err *err)
{
	struct db_cursor c =
		db_rows_related(&call->view, MODEL_RELATION_VLAN_tagged_PIF, db_row_ref(pif));
	const struct db_row *vlan, *there;
	const char *ref = db_row_ref(pif), *host = db_row_s(pif, PIF_host);

	if (tag < 0 || tag > TAG_MAX)
		return err_set(err, ERR_VLAN_TAG_INVALID,
			arena_printf(&call->arena, "%lld", (long long)tag), NULL);
	if (!db_row_b(pif, PIF_managed))
		return err_set(err, ERR_PIF_UNMANAGED, ref, NULL);
	if (!db_row_b(network, NETWORK_managed))
		return err_set(err, ERR_NETWORK_UNMANAGED, db_row_ref(network), NULL);
	if (db_row_i(pif, PIF_VLAN) >= 0)
		return err_set(err, ERR_PIF_IS_VLAN, ref, NULL);
	if (strcmp(db_row_s(pif, PIF_bond_slave_of), NULL_REF) != 0)
		return err_set(err, ERR_CANNOT_ADD_VLAN_TO_BOND_SLAVE, ref, NULL);
	while ((vlan = db_next(&c)) != NULL)
		if (db_row_i(vlan, VLAN_tag) == tag)
			return err_set(
				err, ERR_PIF_VLAN_EXISTS, db_row_s(vlan, VLAN_untagged_PIF), NULL);
	there = pif_on(&call->view, db_row_ref(network), host);
	return there == NULL
		       ? 0
		       : err_set(err, ERR_NETWORK_ALREADY_CONNECTED, host, db_row_ref(there), NULL);
}

/* The interface without tags, and the VLAN between it and the one below. */
static void vlan_add(struct call *call, struct db_txn *txn, const struct db_row *below, int64_t tag,
	const char *network, const char **pif_out, const char **vlan_out)
{
	struct val p[PIF_FIELD_COUNT] = { { .kind = VAL_VOID } },
		   v[VLAN_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char pif_uuid[UUID_LEN + 1], vlan_uuid[UUID_LEN + 1], pif[DB_REF_MAX + 1],
		vlan[DB_REF_MAX + 1], metrics[DB_REF_MAX + 1];

	pif_create_metrics(call->pool, txn, metrics);
	pool_ref(call->pool, pif_uuid, pif);
	pool_ref(call->pool, vlan_uuid, vlan);
	p[PIF_uuid] = val_string(pif_uuid);
	p[PIF_device] = val_string(db_row_s(below, PIF_device));
	p[PIF_device_name] = val_string(db_row_s(below, PIF_device));
	p[PIF_network] = val_string(network);
	p[PIF_host] = val_string(db_row_s(below, PIF_host));
	p[PIF_MAC] = val_string(db_row_s(below, PIF_MAC));
	p[PIF_MTU] = val_int(db_row_i(below, PIF_MTU));
	p[PIF_VLAN] = val_int(tag);
	p[PIF_metrics] = val_string(metrics);
	p[PIF_currently_attached] = val_bool(db_row_b(below, PIF_currently_attached));
	p[PIF_VLAN_master_of] = val_string(vlan);
	v[VLAN_uuid] = val_string(vlan_uuid);
	v[VLAN_tagged_PIF] = val_string(db_row_ref(below));
	v[VLAN_untagged_PIF] = val_string(pif);
	v[VLAN_tag] = val_int(tag);
	/* whoever adds one to the same interface or network on the same view is judged again */
	db_txn_need_version(txn, MODEL_CLASS_PIF, db_row_ref(below), db_row_modified(below));
	db_txn_create(txn, MODEL_CLASS_PIF, pif, p);
	db_txn_create(txn, MODEL_CLASS_VLAN, vlan, v);
	*pif_out = arena_strdup(&call->arena, pif);
	*vlan_out = arena_strdup(&call->arena, vlan);
}

static int vlan_on_one(struct call *call, const char *pif_ref, int64_t tag, const char *network_ref,
	bool want_pif, struct err *err)
{
	const struct db_row *pif = db_view_get(&call->view, MODEL_CLASS_PIF, pif_ref), *network;
	const char *made_pif, *made_vlan;
	struct db_txn txn;

	if (pif == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "PIF", pif_ref, NULL);
	network = network_of(call, network_ref, err);
	if (network == NULL || vlan_check(call, pif, tag, network, err) != 0)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_version(&txn, MODEL_CLASS_network, network_ref, db_row_modified(network));
	vlan_add(call, &txn, pif, tag, network_ref, &made_pif, &made_vlan);
	call->result = val_string(want_pif ? made_pif : made_vlan);
	return call_write(call, &txn, NULL);
}

int vlan_create(struct call *call, const struct vlan_create_args *args, struct err *err)
{
	return vlan_on_one(call, args->tagged_PIF, args->tag, args->network, false, err);
}

const struct db_row *pif_named(const struct db_view *view, const char *host, const char *device)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_PIF_host, host);
	const struct db_row *pif;

	while ((pif = db_next(&c)) != NULL)
		if (strcmp(db_row_s(pif, PIF_device), device) == 0 && db_row_i(pif, PIF_VLAN) < 0)
			return pif;
	return NULL;
}

int pif_create_vlan(struct call *call, const struct pif_create_vlan_args *args, struct err *err)
{
	const struct db_row *pif;

	if (db_view_get(&call->view, MODEL_CLASS_host, args->host) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", args->host, NULL);
	if (network_of(call, args->network, err) == NULL)
		return ERR_API;
	pif = pif_named(&call->view, args->host, args->device);
	if (pif == NULL)
		return err_set(err, ERR_INVALID_VALUE, "device", args->device, NULL);
	return vlan_on_one(call, db_row_ref(pif), args->VLAN, args->network, true, err);
}

/* On every host that has such an interface, all or none. network_below: NULL, or the network whose
 * interfaces it is to be over. */
static int vlan_on_all(struct call *call, const char *device, const char *network_below,
	int64_t tag, const char *network_ref, struct err *err)
{
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_host);
	const struct db_row *network = network_of(call, network_ref, err), *host, *pif;
	const char *made_pif, *made_vlan;
	struct db_txn txn;

	if (network == NULL)
		return ERR_API;
	call->result = val_set();
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_version(&txn, MODEL_CLASS_network, network_ref, db_row_modified(network));
	while ((host = db_next(&c)) != NULL) {
		pif = network_below != NULL ? pif_on(&call->view, network_below, db_row_ref(host))
					    : pif_named(&call->view, db_row_ref(host), device);
		if (pif == NULL)
			continue;
		if (vlan_check(call, pif, tag, network, err) != 0) {
			db_txn_fini(&txn);
			return ERR_API;
		}
		vlan_add(call, &txn, pif, tag, network_ref, &made_pif, &made_vlan);
		val_set_push(&call->arena, &call->result, val_string(made_pif));
	}
	if (call->result.n == 0) {
		db_txn_fini(&txn);
		return err_set(err, ERR_INVALID_VALUE, "device", device, NULL);
	}
	return call_write(call, &txn, NULL);
}

int pool_create_vlan(struct call *call, const struct pool_create_vlan_args *args, struct err *err)
{
	return vlan_on_all(call, args->device, NULL, args->VLAN, args->network, err);
}

int pool_create_vlan_from_pif(
	struct call *call, const struct pool_create_vlan_from_pif_args *args, struct err *err)
{
	const struct db_row *pif = db_view_get(&call->view, MODEL_CLASS_PIF, args->pif);

	if (pif == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "PIF", args->pif, NULL);
	return vlan_on_all(call, db_row_s(pif, PIF_device), db_row_s(pif, PIF_network), args->VLAN,
		args->network, err);
}

const struct db_row *pif_in_use_by(const struct db_view *view, const struct db_row *pif)
{
	struct db_cursor c =
		db_rows_related(view, MODEL_RELATION_VIF_network, db_row_s(pif, PIF_network));
	const struct db_row *vif, *vm;

	while ((vif = db_next(&c)) != NULL) {
		vm = db_view_get(view, MODEL_CLASS_VM, db_row_s(vif, VIF_VM));
		if (db_row_b(vif, VIF_currently_attached) && vm != NULL &&
			strcmp(db_row_s(vm, VM_resident_on), db_row_s(pif, PIF_host)) == 0)
			return vif;
	}
	return NULL;
}

void pif_need_network(struct db_txn *txn, const struct db_view *view, const struct db_row *pif)
{
	const struct db_row *network =
		db_view_get(view, MODEL_CLASS_network, db_row_s(pif, PIF_network));

	if (network != NULL)
		db_txn_need_version(
			txn, MODEL_CLASS_network, db_row_ref(network), db_row_modified(network));
}

static int vlan_remove(struct call *call, const struct db_row *vlan, struct err *err)
{
	const struct db_row *pif = db_view_get(&call->view, MODEL_CLASS_PIF,
				    db_row_s(vlan, VLAN_untagged_PIF)),
			    *network, *vif;
	struct db_txn txn;

	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_version(&txn, MODEL_CLASS_VLAN, db_row_ref(vlan), db_row_modified(vlan));
	db_txn_delete(&txn, MODEL_CLASS_VLAN, db_row_ref(vlan));
	if (pif != NULL) {
		network = db_view_get(&call->view, MODEL_CLASS_network, db_row_s(pif, PIF_network));
		vif = pif_in_use_by(&call->view, pif);
		if (db_row_b(pif, PIF_management))
			err_set(err, ERR_PIF_IS_MANAGEMENT_INTERFACE, db_row_ref(pif), NULL);
		else if (vif != NULL)
			err_set(err, ERR_VIF_IN_USE, db_row_ref(network), db_row_ref(vif), NULL);
		if (err->code != NULL) {
			db_txn_fini(&txn);
			return ERR_API;
		}
		pif_need_network(&txn, &call->view, pif);
		db_txn_need_version(&txn, MODEL_CLASS_PIF, db_row_ref(pif), db_row_modified(pif));
		db_txn_delete(&txn, MODEL_CLASS_PIF, db_row_ref(pif));
	}
	return call_write(call, &txn, NULL);
}

int vlan_destroy(struct call *call, const struct vlan_destroy_args *args, struct err *err)
{
	const struct db_row *vlan = db_view_get(&call->view, MODEL_CLASS_VLAN, args->self);

	return vlan != NULL ? vlan_remove(call, vlan, err)
			    : err_set(err, ERR_HANDLE_INVALID, "VLAN", args->self, NULL);
}

int pif_destroy(struct call *call, const struct pif_destroy_args *args, struct err *err)
{
	const struct db_row *pif = db_view_get(&call->view, MODEL_CLASS_PIF, args->self), *vlan;

	if (pif == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "PIF", args->self, NULL);
	vlan = db_view_get(&call->view, MODEL_CLASS_VLAN, db_row_s(pif, PIF_VLAN_master_of));
	if (vlan == NULL)
		return err_set(err, ERR_PIF_IS_PHYSICAL, args->self, NULL);
	return vlan_remove(call, vlan, err);
}

/* Up and down. */

int pif_find(struct call *call, const char *ref, const struct db_row **out, struct err *err)
{
	*out = db_view_get(&call->view, MODEL_CLASS_PIF, ref);
	return *out != NULL ? 0 : err_set(err, ERR_HANDLE_INVALID, "PIF", ref, NULL);
}

int pif_host_lives(struct call *call, const struct db_row *pif, struct err *err)
{
	const char *ref = db_row_s(pif, PIF_host);
	const struct db_row *host = db_view_get(&call->view, MODEL_CLASS_host, ref),
			    *metrics = host != NULL
					       ? db_view_get(&call->view, MODEL_CLASS_host_metrics,
							 db_row_s(host, HOST_metrics))
					       : NULL;

	return metrics != NULL && db_row_b(metrics, HOST_METRICS_live)
		       ? 0
		       : err_set(err, ERR_HOST_OFFLINE, ref, NULL);
}

/* One that this pool sets up, of a host that is there. */
static int pif_ours(struct call *call, const struct db_row *pif, struct err *err)
{
	if (pif_host_lives(call, pif, err) != 0)
		return ERR_API;
	return db_row_b(pif, PIF_managed) ? 0
					  : err_set(err, ERR_PIF_UNMANAGED, db_row_ref(pif), NULL);
}

void network_bring_up(
	struct db_txn *txn, const struct db_view *view, const char *network, const char *host)
{
	const struct db_row *pif = pif_on(view, network, host);

	if (pif != NULL && !db_row_b(pif, PIF_currently_attached))
		db_txn_set(txn, MODEL_CLASS_PIF, db_row_ref(pif), PIF_currently_attached,
			val_bool(true));
}

static int set_attached(struct call *call, const struct db_row *pif, bool attached)
{
	struct db_txn txn;

	db_txn_init(&txn, DB_FOR_FIELD);
	pif_need_network(&txn, &call->view, pif);
	db_txn_need_version(&txn, MODEL_CLASS_PIF, db_row_ref(pif), db_row_modified(pif));
	if (db_row_b(pif, PIF_currently_attached) != attached)
		db_txn_set(&txn, MODEL_CLASS_PIF, db_row_ref(pif), PIF_currently_attached,
			val_bool(attached));
	return call_write(call, &txn, NULL);
}

int pif_plug(struct call *call, const struct pif_plug_args *args, struct err *err)
{
	const struct db_row *pif;

	if (pif_find(call, args->self, &pif, err) != 0 || pif_ours(call, pif, err) != 0)
		return ERR_API;
	return strcmp(db_row_s(pif, PIF_bond_slave_of), NULL_REF) == 0
		       ? set_attached(call, pif, true)
		       : err_set(err, ERR_CANNOT_PLUG_BOND_SLAVE, args->self, NULL);
}

/* VLANs over it stay: their bridge needs no more of it than the port. */
int pif_unplug(struct call *call, const struct pif_unplug_args *args, struct err *err)
{
	const struct db_row *pif, *vif;

	if (pif_find(call, args->self, &pif, err) != 0 || pif_ours(call, pif, err) != 0)
		return ERR_API;
	if (db_row_b(pif, PIF_management))
		return err_set(err, ERR_PIF_IS_MANAGEMENT_INTERFACE, args->self, NULL);
	if (db_row_b(pif, PIF_disallow_unplug))
		return err_set(err, ERR_PIF_DOES_NOT_ALLOW_UNPLUG, args->self, NULL);
	vif = pif_in_use_by(&call->view, pif);
	return vif == NULL ? set_attached(call, pif, false)
			   : err_set(err, ERR_VIF_IN_USE, db_row_s(pif, PIF_network),
				     db_row_ref(vif), NULL);
}

int pif_set_disallow_unplug(
	struct call *call, const struct pif_set_disallow_unplug_args *args, struct err *err)
{
	const struct db_row *pif;
	struct db_txn txn;

	if (pif_find(call, args->self, &pif, err) != 0)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_row(&txn, MODEL_CLASS_PIF, args->self);
	db_txn_set(&txn, MODEL_CLASS_PIF, args->self, PIF_disallow_unplug, val_bool(args->value));
	return call_write(call, &txn, NULL);
}
