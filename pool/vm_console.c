/* The class console: one for each VM with a domain, made with it and gone with it.
 *
 * The location is at the host that has the domain; a VM that moves keeps its console, which says
 * where it is now. Its bytes are served there, and by every other member (console.c).
 */
#include "pool/vm_priv.h"

#include <stdio.h>
#include <string.h>

enum { LOCATION_MAX = 256 };

static void location_of(
	const struct db_view *view, const char *host, const char *uuid, char out[LOCATION_MAX])
{
	const struct db_row *row = db_view_get(view, MODEL_CLASS_host, host);

	snprintf(out, LOCATION_MAX, "https://%s/console?uuid=%s",
		row != NULL ? db_row_s(row, HOST_address) : "", uuid);
}

/* What a text console speaks; no hypervisor of ours has a screen. */
static const char protocol[] = "vt100";

static bool right(const struct db_view *view, const struct db_row *console, const char *host)
{
	char location[LOCATION_MAX];

	location_of(view, host, db_row_s(console, CONSOLE_uuid), location);
	return strcmp(db_row_s(console, CONSOLE_location), location) == 0 &&
	       strcmp(db_row_s(console, CONSOLE_protocol), protocol) == 0;
}

static const struct db_row *console_of(const struct db_view *view, const struct db_row *vm)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_console_VM, db_row_ref(vm));

	return db_next(&c);
}

void console_drop(struct db_txn *txn, const struct db_view *view, const char *vm)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_console_VM, vm);
	const struct db_row *row;

	while ((row = db_next(&c)) != NULL)
		db_txn_delete(txn, MODEL_CLASS_console, db_row_ref(row));
}

bool console_facts_differ(const struct db_view *view, const struct db_row *vm, const char *host)
{
	const struct db_row *row = console_of(view, vm);

	return row == NULL || !right(view, row, host);
}

void console_facts_write(struct db_txn *txn, struct pool *pool, const struct db_view *view,
	const struct db_row *vm, const char *host)
{
	struct val fields[CONSOLE_FIELD_COUNT] = { { .kind = VAL_VOID } };
	const struct db_row *row = console_of(view, vm);
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1], location[LOCATION_MAX];

	if (row != NULL && right(view, row, host))
		return;
	if (row != NULL) {
		location_of(view, host, db_row_s(row, CONSOLE_uuid), location);
		db_txn_set(txn, MODEL_CLASS_console, db_row_ref(row), CONSOLE_location,
			val_string(location));
		db_txn_set(txn, MODEL_CLASS_console, db_row_ref(row), CONSOLE_protocol,
			val_string(protocol));
		return;
	}
	pool_ref(pool, uuid, ref);
	location_of(view, host, uuid, location);
	fields[CONSOLE_uuid] = val_string(uuid);
	fields[CONSOLE_protocol] = val_string(protocol);
	fields[CONSOLE_location] = val_string(location);
	fields[CONSOLE_VM] = val_string(db_row_ref(vm));
	db_txn_create(txn, MODEL_CLASS_console, ref, fields);
}
