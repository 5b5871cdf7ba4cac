/* What a host takes with it when it joins. */
#pragma once

#include "pool/pool_priv.h"

/* The host's side: what it has of its own, as a JSON object. self: its row, in the view of a pool
 * of one. */
void carry_put(const struct db_view *view, const struct db_row *self, struct buf *out);

#define CARRY_TOO_MUCH                                                                             \
	"what this host has of its own is more than one entry of the log takes (1 MiB): export "   \
	"or remove some of its VMs"
/* The pool's: such an object, decoded, becomes rows in the transaction that makes the host.
 * NULL, or why not (literal, or in the arena); the transaction is of no use then. all: NULL, or a
 * set that takes all that is in the way, as texts; what is returned then is only that what came
 * cannot be read. */
const char *carry_take(const struct db_view *view, const struct val *came, const char *host,
	struct db_txn *txn, struct arena *a, struct val *all);
