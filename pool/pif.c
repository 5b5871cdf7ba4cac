/* Interfaces of hosts come and go: their records, by the word of a client. network.md sections 2
 * and 5. Up and down, VLANs and networks are network.c's.
 *
 * The invariants at the head of network.c hold here too: whoever adds an interface raises the
 * serial number of networks, so two at once are judged one after the other.
 */
#include "pool/network_priv.h"

#include <string.h>
#include <strings.h>

/* Nothing else is made of it: no bond, VLAN or tunnel. */
static int check_alone(struct call *call, const struct db_row *pif, struct err *err)
{
	static const struct {
		int relation;
		const struct err_code *code;
	} uses[] = { { MODEL_RELATION_Bond_master, ERR_PIF_ALREADY_BONDED },
		{ MODEL_RELATION_VLAN_tagged_PIF, ERR_PIF_VLAN_STILL_EXISTS },
		{ MODEL_RELATION_tunnel_access_PIF, ERR_PIF_TUNNEL_STILL_EXISTS },
		{ MODEL_RELATION_tunnel_transport_PIF, ERR_PIF_TUNNEL_STILL_EXISTS } };
	const char *ref = db_row_ref(pif);
	struct db_cursor c;

	if (strcmp(db_row_s(pif, PIF_bond_slave_of), NULL_REF) != 0)
		return err_set(err, ERR_PIF_ALREADY_BONDED, ref, NULL);
	if (db_view_get(&call->view, MODEL_CLASS_VLAN, db_row_s(pif, PIF_VLAN_master_of)) != NULL)
		return err_set(err, ERR_PIF_VLAN_STILL_EXISTS, ref, NULL);
	for (size_t i = 0; i < ARRAY_LEN(uses); i++) {
		c = db_rows_related(&call->view, uses[i].relation, ref);
		if (db_next(&c) != NULL)
			return err_set(err, uses[i].code, ref, NULL);
	}
	return 0;
}

static int delete_record(struct call *call, const struct db_row *pif)
{
	struct db_txn txn;

	db_txn_init(&txn, DB_FOR_FIELD);
	pif_need_network(&txn, &call->view, pif);
	db_txn_need_version(&txn, MODEL_CLASS_PIF, db_row_ref(pif), db_row_modified(pif));
	db_txn_delete(&txn, MODEL_CLASS_PIF, db_row_ref(pif));
	return call_write(call, &txn, NULL);
}

/* Taken down, so by the rules of PIF.unplug, and forgotten. The reference does not look at VIFs
 * that are in use; their VMs would lose the network. */
int pif_forget(struct call *call, const struct pif_forget_args *args, struct err *err)
{
	const struct db_row *pif, *vif;

	if (pif_find(call, args->self, &pif, err) != 0 || pif_host_lives(call, pif, err) != 0)
		return ERR_API;
	if (db_row_b(pif, PIF_management))
		return err_set(err, ERR_PIF_IS_MANAGEMENT_INTERFACE, args->self, NULL);
	if (check_alone(call, pif, err) != 0)
		return ERR_API;
	if (db_row_b(pif, PIF_disallow_unplug))
		return err_set(err, ERR_PIF_DOES_NOT_ALLOW_UNPLUG, args->self, NULL);
	vif = pif_in_use_by(&call->view, pif);
	return vif == NULL ? delete_record(call, pif)
			   : err_set(err, ERR_VIF_IN_USE, db_row_s(pif, PIF_network),
				     db_row_ref(vif), NULL);
}

/* The record alone, also the management interface's, and of a host that is away: to be put right
 * by PIF.db_introduce. What is made of it would be left without it. */
int pif_db_forget(struct call *call, const struct pif_db_forget_args *args, struct err *err)
{
	const struct db_row *pif;

	return pif_find(call, args->self, &pif, err) != 0 || check_alone(call, pif, err) != 0
		       ? ERR_API
		       : delete_record(call, pif);
}

static int check_ref(struct call *call, int class_id, const char *ref, struct err *err)
{
	return db_view_get(&call->view, class_id, ref) != NULL
		       ? 0
		       : err_set(err, ERR_HANDLE_INVALID, model_classes[class_id].name, ref, NULL);
}

/* May the host have another interface of that name (NULL: a VLAN, which has that of the one below),
 * on that network? */
static int check_new(const struct db_view *view, const char *host, const char *device,
	const char *network, struct err *err)
{
	const struct db_row *there = pif_on(view, network, host);

	if (device != NULL && pif_named(view, host, device) != NULL)
		return err_set(err, ERR_DUPLICATE_PIF_DEVICE_NAME, device, NULL);
	return there == NULL
		       ? 0
		       : err_set(err, ERR_NETWORK_ALREADY_CONNECTED, host, db_row_ref(there), NULL);
}

/* Ports that the agent finds. */

struct port {
	struct job *job;
	struct owned *o;
	const struct val *nic;	  /* of member/agent.json */
	bool managed, introduced; /* introduced: by the client's call, which makes one or fails */
	char ref[DB_REF_MAX + 1]; /* of the interface, when it is one of ours */
	struct err refused;	  /* by the last look */
};

/* eth1 has xenbr1, others br and their name, or the end of it. */
static const char *bridge_for(struct arena *a, const char *device)
{
	size_t n = strlen(device), most = DEVICE_NAME_MAX - strlen("br");

	return strncmp(device, "eth", 3) == 0
		       ? arena_printf(a, "xenbr%s", device + 3)
		       : arena_printf(a, "br%s", n > most ? device + n - most : device);
}

static const char *create_network(
	struct port *p, struct db_txn *txn, const char *device, const char *bridge)
{
	struct val f[NETWORK_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct arena *a = &p->job->arena;
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];

	pool_ref(p->o->pool, uuid, ref);
	f[NETWORK_uuid] = val_string(uuid);
	f[NETWORK_name_label] =
		val_string(arena_printf(a, "Pool-wide network associated with %s", device));
	f[NETWORK_bridge] = val_string(bridge);
	f[NETWORK_managed] = val_bool(p->managed);
	db_txn_create(txn, MODEL_CLASS_network, ref, f);
	return arena_strdup(a, ref);
}

static void add_port(
	struct port *p, struct db_txn *txn, const struct db_view *view, const char *host)
{
	struct val f[PIF_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct arena *a = &p->job->arena;
	const char *device = val_get_s(p->nic, "device"), *bridge = bridge_for(a, device), *network;
	const struct db_row *row = network_of_bridge(view, bridge);
	char uuid[UUID_LEN + 1], metrics[DB_REF_MAX + 1];

	if (row != NULL && check_new(view, host, device, db_row_ref(row), &p->refused) != 0)
		return;
	raise_serial(view, a, txn, NETWORKS_CREATED);
	if (row != NULL)
		db_txn_need_version(
			txn, MODEL_CLASS_network, db_row_ref(row), db_row_modified(row));
	network = row != NULL ? db_row_ref(row) : create_network(p, txn, device, bridge);
	db_txn_need_row(txn, MODEL_CLASS_host, host);
	pif_create_metrics(p->o->pool, txn, metrics);
	owner_uuid(p->o, device, uuid, p->ref);
	f[PIF_uuid] = val_string(uuid);
	f[PIF_metrics] = val_string(metrics);
	f[PIF_device] = f[PIF_device_name] = val_string(device);
	f[PIF_network] = val_string(network);
	f[PIF_host] = val_string(host);
	f[PIF_MAC] = *val_get(p->nic, "mac");
	f[PIF_MTU] = *val_get(p->nic, "mtu");
	f[PIF_VLAN] = val_int(-1);
	f[PIF_physical] = val_bool(true);
	f[PIF_currently_attached] = val_bool(false);
	f[PIF_managed] = val_bool(p->managed);
	db_txn_create(txn, MODEL_CLASS_PIF, p->ref, f);
}

static void set_mac(struct db_txn *txn, const struct db_row *pif, struct val mac)
{
	if (pif == NULL || strcmp(db_row_s(pif, PIF_MAC), mac.s) == 0)
		return;
	db_txn_need_row(txn, MODEL_CLASS_PIF, db_row_ref(pif));
	db_txn_set(txn, MODEL_CLASS_PIF, db_row_ref(pif), PIF_MAC, mac);
}

/* Its VLANs have its address. */
static void refresh_port(const struct port *p, struct db_txn *txn, const struct db_view *view,
	const struct db_row *pif)
{
	const struct val mac = *val_get(p->nic, "mac"), mtu = *val_get(p->nic, "mtu");
	const char *ref = db_row_ref(pif);
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_VLAN_tagged_PIF, ref);
	const struct db_row *vlan;

	set_mac(txn, pif, mac);
	if (db_row_i(pif, PIF_MTU) != mtu.i)
		db_txn_set(txn, MODEL_CLASS_PIF, ref, PIF_MTU, mtu);
	while ((vlan = db_next(&c)) != NULL)
		set_mac(txn, db_view_get(view, MODEL_CLASS_PIF, db_row_s(vlan, VLAN_untagged_PIF)),
			mac);
	if (txn->n_ops > 0)
		db_txn_need_version(txn, MODEL_CLASS_PIF, ref, db_row_modified(pif));
}

static void build_port(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct port *p = arg;
	const struct db_row *task = db_view_get(view, MODEL_CLASS_task, p->o->task),
			    *host = pool_self(p->o->pool, view), *pif;

	err_fini(&p->refused);
	if (task == NULL || host == NULL)
		return;
	db_txn_origin(txn, task_origin(task, &p->job->arena));
	pif = pif_named(view, db_row_ref(host), val_get_s(p->nic, "device"));
	if (pif == NULL)
		add_port(p, txn, view, db_row_ref(host));
	else if (p->introduced && strcmp(db_row_ref(pif), p->ref) != 0)
		err_set(&p->refused, ERR_DUPLICATE_PIF_DEVICE_NAME, db_row_s(pif, PIF_device),
			NULL);
	else if (db_row_b(pif, PIF_physical))
		refresh_port(p, txn, view, pif);
}

/* The port has an interface that says what it is. 0, ERR_API, ERR_DEAD. */
static int record_port(struct port *p, struct err *err)
{
	int rc = commit_settled(
		p->job, p->o->pool, &(struct commit){ DB_FOR_FACTS, { 0 }, build_port, p });

	if (rc == 0 && p->refused.code != NULL && err->code == NULL)
		rc = err_set_list(
			err, p->refused.code, (const char *const *)p->refused.params, p->refused.n);
	err_fini(&p->refused);
	return rc;
}

/* Interfaces whose port is not there any more stay. One that cannot be had keeps no other from
 * being: the first error is the answer. */
int pif_scan_run(struct job *job, void *task, const struct pif_scan_args *args, struct err *err)
{
	struct val nics = val_set();
	int rc = owner_agent_ask(job, task, AGENT_HOST_nics, NULL, &nics, err);

	(void)args;
	for (uint32_t i = 0; i < nics.n && (rc == 0 || rc == ERR_API); i++) {
		struct port p = { .job = job, .o = task, .nic = &nics.items[i], .managed = true };
		int now = record_port(&p, err);

		rc = now != 0 ? now : rc;
	}
	return rc;
}

int pif_introduce_admit(struct admit *admit, const struct pif_introduce_args *args, struct err *err)
{
	if (*args->MAC != 0 && !mac_ok(args->MAC))
		return err_set(err, ERR_MAC_INVALID, args->MAC, NULL);
	return pif_named(admit->view, args->host, args->device) == NULL
		       ? 0
		       : err_set(err, ERR_DUPLICATE_PIF_DEVICE_NAME, args->device, NULL);
}

/* By name, and by address unless that is "". */
static const struct val *find_nic(const struct val *nics, const char *device, const char *mac)
{
	for (uint32_t i = 0; i < nics->n; i++)
		if (strcmp(val_get_s(&nics->items[i], "device"), device) == 0)
			return *mac == 0 || strcasecmp(val_get_s(&nics->items[i], "mac"), mac) == 0
				       ? &nics->items[i]
				       : NULL;
	return NULL;
}

int pif_introduce_run(
	struct job *job, void *task, const struct pif_introduce_args *args, struct err *err)
{
	struct port p = { .job = job, .o = task, .managed = args->managed, .introduced = true };
	char uuid[UUID_LEN + 1];
	struct val nics;
	int rc = owner_agent_ask(job, task, AGENT_HOST_nics, NULL, &nics, err);

	if (rc != 0)
		return rc;
	p.nic = find_nic(&nics, args->device, args->MAC);
	if (p.nic == NULL)
		return err_set(err,
			ERR_COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS,
			args->device, args->MAC, NULL);
	owner_uuid(task, args->device, uuid, p.ref);
	rc = record_port(&p, err);
	if (rc == 0)
		owner_result(job, task, val_string(arena_strdup(&job->arena, p.ref)));
	return rc;
}

/* By the word of a client alone. */

static int check_introduced(
	struct call *call, const struct pif_db_introduce_args *args, struct err *err)
{
	if (check_ref(call, MODEL_CLASS_network, args->network, err) != 0 ||
		check_ref(call, MODEL_CLASS_host, args->host, err) != 0)
		return ERR_API;
	if (strcmp(args->bond_slave_of, NULL_REF) != 0 &&
		check_ref(call, MODEL_CLASS_Bond, args->bond_slave_of, err) != 0)
		return ERR_API;
	if (strcmp(args->VLAN_master_of, NULL_REF) != 0 &&
		check_ref(call, MODEL_CLASS_VLAN, args->VLAN_master_of, err) != 0)
		return ERR_API;
	return check_new(
		&call->view, args->host, args->VLAN < 0 ? args->device : NULL, args->network, err);
}

/* What the call says and nothing else: whether the host has it is not looked at, and it is not
 * attached. */
int pif_db_introduce(struct call *call, const struct pif_db_introduce_args *args, struct err *err)
{
	struct val f[PIF_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1], metrics[DB_REF_MAX + 1];
	struct db_txn txn;

	if (check_introduced(call, args, err) != 0)
		return ERR_API;
	pool_ref(call->pool, uuid, ref);
	db_txn_init(&txn, DB_FOR_FIELD);
	raise_serial(&call->view, &call->arena, &txn, NETWORKS_CREATED);
	db_txn_need_version(&txn, MODEL_CLASS_network, args->network,
		db_row_modified(db_view_get(&call->view, MODEL_CLASS_network, args->network)));
	db_txn_need_row(&txn, MODEL_CLASS_host, args->host);
	pif_create_metrics(call->pool, &txn, metrics);
	f[PIF_uuid] = val_string(uuid);
	f[PIF_metrics] = val_string(metrics);
	f[PIF_currently_attached] = val_bool(false);
	f[PIF_device] = f[PIF_device_name] = val_string(args->device);
	f[PIF_network] = val_string(args->network);
	f[PIF_host] = val_string(args->host);
	f[PIF_MAC] = val_string(args->MAC);
	f[PIF_MTU] = val_int(args->MTU);
	f[PIF_VLAN] = val_int(args->VLAN);
	f[PIF_physical] = val_bool(args->physical);
	f[PIF_ip_configuration_mode] = val_string(args->ip_configuration_mode);
	f[PIF_IP] = val_string(args->IP);
	f[PIF_netmask] = val_string(args->netmask);
	f[PIF_gateway] = val_string(args->gateway);
	f[PIF_DNS] = val_string(args->DNS);
	f[PIF_bond_slave_of] = val_string(args->bond_slave_of);
	f[PIF_VLAN_master_of] = val_string(args->VLAN_master_of);
	f[PIF_management] = val_bool(args->management);
	f[PIF_other_config] = *args->other_config;
	f[PIF_disallow_unplug] = val_bool(args->disallow_unplug);
	f[PIF_ipv6_configuration_mode] = val_string(args->ipv6_configuration_mode);
	f[PIF_IPv6] = *args->IPv6;
	f[PIF_ipv6_gateway] = val_string(args->ipv6_gateway);
	f[PIF_primary_address_type] = val_string(args->primary_address_type);
	f[PIF_managed] = val_bool(args->managed);
	f[PIF_properties] = *args->properties;
	db_txn_create(&txn, MODEL_CLASS_PIF, ref, f);
	call->result = val_string(arena_strdup(&call->arena, ref));
	return call_write(call, &txn, NULL);
}
