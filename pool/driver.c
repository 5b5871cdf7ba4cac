/* Drivers of SRs: what the agents of this version can do, and what records say of it. */
#include "pool/driver.h"
#include "rpc/base/check.h"

#include <stdlib.h>
#include <string.h>

const struct driver drivers[] = {
	{ "file", "File", "A folder that one or several hosts see, with one sparse file per disk",
		{ "SR_PROBE", "SR_CREATE", "SR_DELETE", "SR_ATTACH", "SR_DETACH", "SR_SCAN",
			"SR_UPDATE", "SR_METADATA", "VDI_CREATE", "VDI_DELETE", "VDI_ATTACH",
			"VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE", "VDI_RESIZE",
			"VDI_RESIZE_ONLINE", "VDI_CLONE", "VDI_SNAPSHOT", "VDI_INTRODUCE",
			"VDI_UPDATE", "VDI_REVERT", "VDI_RESET_ON_BOOT/2", "THIN_PROVISIONING" } },
};
const unsigned n_drivers = ARRAY_LEN(drivers);

struct val driver_features(const struct driver *d, struct arena *a)
{
	struct val features = val_map();

	for (size_t k = 0; d->features[k] != NULL; k++) {
		const char *slash = strchr(d->features[k], '/');
		size_t n =
			slash != NULL ? (size_t)(slash - d->features[k]) : strlen(d->features[k]);

		val_map_push(a, &features, arena_strndup(a, d->features[k], n),
			val_int(slash != NULL ? atoi(slash + 1) : 1));
	}
	return features;
}

static const struct driver *driver_of(const struct db_row *sm)
{
	for (unsigned i = 0; i < n_drivers; i++)
		if (strcmp(drivers[i].type, db_row_s(sm, SM_type)) == 0)
			return &drivers[i];
	return NULL;
}

static void grow(struct db_txn *txn, const struct db_row *sm, struct arena *a)
{
	struct val has = db_row_field(sm, SM_features, a), can = val_map();
	const struct driver *d = driver_of(sm);
	const char *ref = db_row_ref(sm);

	if (d != NULL)
		can = driver_features(d, a);
	for (uint32_t k = 0; k < can.n; k++) {
		const char *name = can.pairs[k].key;

		if (val_get(&has, name) != NULL)
			continue;
		db_txn_map_add(txn, MODEL_CLASS_SM, ref, SM_features, name, can.pairs[k].value);
		db_txn_set_add(txn, MODEL_CLASS_SM, ref, SM_capabilities, val_string(name));
	}
	if (txn->n_ops > 0)
		db_txn_need_version(txn, MODEL_CLASS_SM, ref, db_row_modified(sm));
}

bool drivers_grow(const struct db_view *view, struct db_txn *txn)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_SM);
	const struct db_row *sm;
	struct arena a;

	if (db_schema_common(view) < MODEL_SCHEMA_VERSION)
		return false;
	arena_init(&a);
	while (txn->n_ops == 0 && (sm = db_next(&c)) != NULL)
		grow(txn, sm, &a);
	arena_fini(&a);
	return txn->n_ops > 0;
}
