/* Questions about a VM that need no host to answer: where it could run, and which devices it has
 * room for. Advice: what is true now, promised to nobody. pool.md 6.1. */
#include "pool/operation_priv.h"

#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20 };

static const struct db_row *vm_of(struct call *call, const char *ref, struct err *err)
{
	const struct db_row *row = db_view_get(&call->view, MODEL_CLASS_VM, ref);

	if (row == NULL)
		err_set(err, ERR_HANDLE_INVALID, "VM", ref, NULL);
	return row;
}

int vm_get_possible_hosts(
	struct call *call, const struct vm_get_possible_hosts_args *args, struct err *err)
{
	struct admit ad = { .pool = call->pool, .view = &call->view, .arena = &call->arena };
	const struct db_row *vm = vm_of(call, args->vm, err), *host;
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_host);
	struct err why = { 0 };

	if (vm == NULL)
		return ERR_API;
	call->result = val_set();
	while ((host = db_next(&c)) != NULL) {
		if (place_can_boot(&ad, vm, host, &why) == 0)
			val_set_push(&call->arena, &call->result, val_string(db_row_ref(host)));
		err_fini(&why);
	}
	return 0;
}

int vm_assert_can_boot_here(
	struct call *call, const struct vm_assert_can_boot_here_args *args, struct err *err)
{
	struct admit ad = { .pool = call->pool, .view = &call->view, .arena = &call->arena };
	const struct db_row *vm = vm_of(call, args->self, err),
			    *host = db_view_get(&call->view, MODEL_CLASS_host, args->host);

	if (vm == NULL)
		return ERR_API;
	if (host == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", args->host, NULL);
	return place_can_boot(&ad, vm, host, err);
}

/* On all hosts of the pool? A network without interfaces is internal, and none. */
static bool network_shared(const struct db_view *view, const struct db_row *network)
{
	struct db_cursor hosts = db_rows(view, MODEL_CLASS_host), pifs;
	const struct db_row *host, *pif;
	bool there = false;

	while ((host = db_next(&hosts)) != NULL) {
		there = false;
		pifs = db_rows_related(view, MODEL_RELATION_PIF_network, db_row_ref(network));
		while ((pif = db_next(&pifs)) != NULL)
			there |= strcmp(db_row_s(pif, PIF_host), db_row_ref(host)) == 0;
		if (!there)
			break;
	}
	return there;
}

/* Could any host of the pool run it, by its disks, networks and devices? */
int vm_assert_agile(struct call *call, const struct vm_assert_agile_args *args, struct err *err)
{
	const struct db_row *vm = vm_of(call, args->self, err), *device, *vdi, *sr, *network;
	struct db_view *view = &call->view;
	struct db_cursor c;
	struct val pcis;

	if (vm == NULL)
		return ERR_API;
	pcis = db_row_field(vm, VM_attached_PCIs, &call->arena);
	if (pcis.n > 0)
		return err_set(err, ERR_VM_HAS_PCI_ATTACHED, args->self, NULL);
	c = db_rows_related(view, MODEL_RELATION_VBD_VM, args->self);
	while ((device = db_next(&c)) != NULL) {
		vdi = db_view_get(view, MODEL_CLASS_VDI, db_row_s(device, VBD_VDI));
		sr = vdi != NULL ? db_view_get(view, MODEL_CLASS_SR, db_row_s(vdi, VDI_SR)) : NULL;
		if (sr != NULL && !db_row_b(sr, SR_shared))
			return err_set(err, ERR_HA_CONSTRAINT_VIOLATION_SR_NOT_SHARED,
				db_row_ref(sr), NULL);
	}
	c = db_rows_related(view, MODEL_RELATION_VIF_VM, args->self);
	while ((device = db_next(&c)) != NULL) {
		network = db_view_get(view, MODEL_CLASS_network, db_row_s(device, VIF_network));
		if (network != NULL && !network_shared(view, network))
			return err_set(err, ERR_HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED,
				db_row_ref(network), NULL);
	}
	return 0;
}

/* The number that a device has by its name: 3, xvdd, hdd, sdd; -1: none. */
static long number_of(const char *name)
{
	char *end;
	long n = strtol(name, &end, 10);
	const char *letter = strncmp(name, "xvd", 3) == 0				  ? name + 3
			     : strncmp(name, "hd", 2) == 0 || strncmp(name, "sd", 2) == 0 ? name + 2
											  : NULL;

	if (letter != NULL)
		return *letter >= 'a' && *letter <= 'z' && letter[1] == 0 ? *letter - 'a' : -1;
	return end != name && *end == 0 ? n : -1;
}

static int free_devices(
	struct call *call, const char *ref, int relation, int field, unsigned most, struct err *err)
{
	struct db_cursor c = db_rows_related(&call->view, relation, ref);
	const struct db_row *vm = vm_of(call, ref, err), *device;
	bool *used = arena_alloc(&call->arena, most * sizeof *used);

	if (vm == NULL)
		return ERR_API;
	memset(used, 0, most * sizeof *used);
	call->result = val_set();
	while ((device = db_next(&c)) != NULL) {
		long n = number_of(db_row_s(device, field));

		if (n >= 0 && (unsigned long)n < most)
			used[n] = true;
	}
	for (unsigned i = 0; i < most; i++)
		if (!used[i])
			val_set_push(&call->arena, &call->result,
				val_string(arena_printf(&call->arena, "%u", i)));
	return 0;
}

int vm_get_allowed_vif_devices(
	struct call *call, const struct vm_get_allowed_vif_devices_args *args, struct err *err)
{
	return free_devices(
		call, args->vm, MODEL_RELATION_VIF_VM, VIF_device, POOL_VIFS_SHOWN, err);
}

int vm_get_allowed_vbd_devices(
	struct call *call, const struct vm_get_allowed_vbd_devices_args *args, struct err *err)
{
	return free_devices(
		call, args->vm, MODEL_RELATION_VBD_VM, VBD_userdevice, POOL_VBDS_SHOWN, err);
}
