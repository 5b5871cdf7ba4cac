/* VM_guest_metrics: what the agent in a guest says, in the API's words (xen-domain section 10). The
 * object is made with the first report and stays; it is written when something of it has changed,
 * so a guest that says nothing new costs nothing. A guest that says nothing, of a domain that runs,
 * is not live. Keys come from a guest: bounded, and none is believed to mean more than text.
 */
#include "pool/vm_priv.h"

#include <stdio.h>
#include <string.h>

enum { KEYS_MAX = 256, TEXT_MAX = 1024 };

/* A key of the guest, or all that begin so when it ends in /, and where it goes. to NULL: the rest
 * of the key. */
static const struct {
	const char *key;
	int field;
	const char *to;
} places[] = {
	{ "attr/PVAddons/MajorVersion", VM_GUEST_METRICS_PV_drivers_version, "major" },
	{ "attr/PVAddons/MinorVersion", VM_GUEST_METRICS_PV_drivers_version, "minor" },
	{ "attr/PVAddons/MicroVersion", VM_GUEST_METRICS_PV_drivers_version, "micro" },
	{ "attr/PVAddons/BuildVersion", VM_GUEST_METRICS_PV_drivers_version, "build" },
	{ "data/os_name", VM_GUEST_METRICS_os_version, "name" },
	{ "data/os_uname", VM_GUEST_METRICS_os_version, "uname" },
	{ "data/os_distro", VM_GUEST_METRICS_os_version, "distro" },
	{ "data/os_majorver", VM_GUEST_METRICS_os_version, "major" },
	{ "data/os_minorver", VM_GUEST_METRICS_os_version, "minor" },
	{ "attr/os/spmajor", VM_GUEST_METRICS_os_version, "spmajor" },
	{ "attr/os/spminor", VM_GUEST_METRICS_os_version, "spminor" },
	{ "attr/vif/", VM_GUEST_METRICS_networks, NULL },
	{ "data/ts", VM_GUEST_METRICS_other, "data-ts" },
	{ "data/cant_suspend_reason", VM_GUEST_METRICS_other, "data-cant-suspend-reason" },
	{ "control/", VM_GUEST_METRICS_other, NULL },
	{ "data/service/", VM_GUEST_METRICS_services, NULL },
};

static const int maps[] = { VM_GUEST_METRICS_PV_drivers_version, VM_GUEST_METRICS_os_version,
	VM_GUEST_METRICS_networks, VM_GUEST_METRICS_other, VM_GUEST_METRICS_services };

static const char *place_in(struct arena *a, unsigned k, const char *key)
{
	size_t n = strlen(places[k].key);

	if (places[k].key[n - 1] != '/')
		return strcmp(places[k].key, key) == 0 ? places[k].to : NULL;
	return strncmp(places[k].key, key, n) == 0 && key[n] != 0 ? arena_strdup(a, key + n) : NULL;
}

/* "N/ip" is the first address of interface N. */
static void first_addresses(struct arena *a, struct val *networks)
{
	uint32_t n = networks->n;

	for (uint32_t i = 0; i < n; i++) {
		const char *key = networks->pairs[i].key, *slash = strchr(key, '/');

		if (slash != NULL && strcmp(slash, "/ipv4/0") == 0)
			val_map_push(a, networks,
				arena_printf(a, "%.*s/ip", (int)(slash - key), key),
				networks->pairs[i].value);
	}
}

static struct val map_of(struct arena *a, int field, const struct val *keys)
{
	struct val map = val_map();
	bool immobile = val_get_s(keys, "data/cant_suspend_reason") != NULL;

	for (uint32_t i = 0; i < keys->n && i < KEYS_MAX; i++) {
		const struct val_pair *p = &keys->pairs[i];

		if (p->value.kind != VAL_STRING || strlen(p->value.s) > TEXT_MAX ||
			strlen(p->key) > TEXT_MAX ||
			(immobile && strcmp(p->key, "control/feature-suspend") == 0))
			continue;
		for (unsigned k = 0; k < ARRAY_LEN(places); k++) {
			const char *to = places[k].field == field ? place_in(a, k, p->key) : NULL;

			if (to != NULL && val_get(&map, to) == NULL)
				val_map_push(a, &map, to, p->value);
		}
	}
	if (field == VM_GUEST_METRICS_networks)
		first_addresses(a, &map);
	return map;
}

static const char *tristate(const struct val *keys, const char *key)
{
	const char *s = val_get_s(keys, key);

	return s == NULL	     ? "unspecified"
	       : strcmp(s, "1") == 0 ? "yes"
	       : strcmp(s, "0") == 0 ? "no"
				     : "unspecified";
}

/* What the object should be; void: nothing is said of the field. */
static void wanted(
	struct arena *a, const struct val *keys, struct val f[VM_GUEST_METRICS_FIELD_COUNT])
{
	for (unsigned i = 0; i < VM_GUEST_METRICS_FIELD_COUNT; i++)
		f[i] = val_void();
	for (size_t i = 0; i < ARRAY_LEN(maps); i++)
		f[maps[i]] = map_of(a, maps[i], keys);
	f[VM_GUEST_METRICS_can_use_hotplug_vbd] = val_string(tristate(keys, "feature/hotplug/vbd"));
	f[VM_GUEST_METRICS_can_use_hotplug_vif] = val_string(tristate(keys, "feature/hotplug/vif"));
	f[VM_GUEST_METRICS_PV_drivers_detected] =
		val_bool(f[VM_GUEST_METRICS_PV_drivers_version].n > 0);
	f[VM_GUEST_METRICS_PV_drivers_up_to_date] = f[VM_GUEST_METRICS_PV_drivers_detected];
	f[VM_GUEST_METRICS_live] = val_bool(keys->n > 0);
}

static const struct db_row *object_of(const struct db_view *view, const struct db_row *vm)
{
	return db_view_get(view, MODEL_CLASS_VM_guest_metrics, db_row_s(vm, VM_guest_metrics));
}

static bool differs(const struct db_row *row, const struct val f[VM_GUEST_METRICS_FIELD_COUNT],
	int i, struct arena *a)
{
	struct val have;

	if (f[i].kind == VAL_VOID)
		return false;
	have = db_row_field(row, i, a);
	return !val_equal(&have, &f[i]);
}

bool guest_facts_differ(const struct db_view *view, const struct db_row *vm, const struct facts *f)
{
	const struct db_row *row = object_of(view, vm);
	struct val want[VM_GUEST_METRICS_FIELD_COUNT];
	bool differ = false;
	struct arena a;

	if (f->guest == NULL || f->guest->kind != VAL_MAP)
		return false;
	if (row == NULL)
		return f->guest->n > 0;
	arena_init(&a);
	wanted(&a, f->guest, want);
	for (int i = 0; i < VM_GUEST_METRICS_FIELD_COUNT; i++)
		differ |= differs(row, want, i, &a);
	arena_fini(&a);
	return differ;
}

void guest_facts_write(struct db_txn *txn, struct pool *pool, const struct db_view *view,
	const struct db_row *vm, const struct facts *f)
{
	const struct db_row *row = object_of(view, vm);
	struct val want[VM_GUEST_METRICS_FIELD_COUNT];
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct arena a;

	if (!guest_facts_differ(view, vm, f))
		return;
	arena_init(&a);
	wanted(&a, f->guest, want);
	want[VM_GUEST_METRICS_last_updated] = val_datetime(env_wall_s(pool->env));
	if (row == NULL) {
		pool_ref(pool, uuid, ref);
		want[VM_GUEST_METRICS_uuid] = val_string(uuid);
		db_txn_create(txn, MODEL_CLASS_VM_guest_metrics, ref, want);
		db_txn_set(txn, MODEL_CLASS_VM, db_row_ref(vm), VM_guest_metrics, val_string(ref));
	}
	for (int i = 0; row != NULL && i < VM_GUEST_METRICS_FIELD_COUNT; i++)
		if (differs(row, want, i, &a))
			db_txn_set(txn, MODEL_CLASS_VM_guest_metrics, db_row_ref(row), i, want[i]);
	arena_fini(&a);
}
