/* Drivers of SRs. */
#pragma once

#include "db/txn.h"

struct driver {
	const char *type, *label, *text;
	const char *features[24]; /* "NAME" or "NAME/version"; ends with NULL */
};
extern const struct driver drivers[];
extern const unsigned n_drivers;

/* As SM.features: name and version; it lives as long as the arena. */
struct val driver_features(const struct driver *d, struct arena *a);

/* A record whose driver can do more than it says, when all members run this version: what is
 * missing, into the transaction. What the record says besides stays. false: there is none. */
bool drivers_grow(const struct db_view *view, struct db_txn *txn);
