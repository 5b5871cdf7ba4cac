/* Drivers of SRs: what the agents of this version can do, and what records say of it. */
#include "pool/driver.h"
#include "rpc/base/check.h"

#include <string.h>

const struct driver drivers[] = {
	{ "file", "File", "A folder that one or several hosts see, with one sparse file per disk",
		{ "SR_PROBE", "SR_CREATE", "SR_DELETE", "SR_ATTACH", "SR_DETACH", "SR_SCAN",
			"SR_UPDATE", "SR_METADATA", "VDI_CREATE", "VDI_DELETE", "VDI_ATTACH",
			"VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE", "VDI_RESIZE",
			"VDI_RESIZE_ONLINE", "VDI_CLONE", "VDI_SNAPSHOT", "VDI_INTRODUCE",
			"VDI_UPDATE", "VDI_REVERT", "THIN_PROVISIONING" } },
};
const unsigned n_drivers = ARRAY_LEN(drivers);

bool drivers_grow(const struct db_view *view, struct db_txn *txn)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_SM);
	const struct db_row *sm;
	bool grows = false;
	struct arena a;

	if (db_schema_common(view) < MODEL_SCHEMA_VERSION)
		return false;
	arena_init(&a);
	while (!grows && (sm = db_next(&c)) != NULL) {
		struct val has = db_row_field(sm, SM_features, &a);
		const char *ref = db_row_ref(sm);

		for (size_t i = 0; i < n_drivers; i++)
			for (size_t k = 0; drivers[i].features[k] != NULL; k++) {
				const char *feature = drivers[i].features[k];

				if (strcmp(drivers[i].type, db_row_s(sm, SM_type)) != 0 ||
					val_get(&has, feature) != NULL)
					continue;
				if (!grows)
					db_txn_need_version(
						txn, MODEL_CLASS_SM, ref, db_row_modified(sm));
				db_txn_map_add(
					txn, MODEL_CLASS_SM, ref, SM_features, feature, val_int(1));
				db_txn_set_add(txn, MODEL_CLASS_SM, ref, SM_capabilities,
					val_string(feature));
				grows = true;
			}
	}
	arena_fini(&a);
	return grows;
}
