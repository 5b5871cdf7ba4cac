/* Entries of the log that make rows of classes which nothing makes yet, with a value in every
 * field: for a test that asks all generated messages of all classes. Whoever sends them poses as a
 * member (tests/pool/15_every_class.py); the values are decoded by tests/lib/model.py.
 *
 * usage: every_row RAFT_ID CLASS...      one line each: CLASS REFERENCE ENTRY, hexadecimal
 */
#include "db/entry_priv.h"
#include "model/model.h"
#include "rpc/base/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BOOT = 77, CLOCK_S = 1000, SETS = 2 };

static const char *reference(struct arena *a, unsigned n)
{
	return arena_printf(a, "OpaqueRef:00000000-0000-4000-8000-%012x", n);
}

/* The k-th value of a type. */
static struct val value_of(struct arena *a, const struct model_type *type, unsigned k)
{
	struct val v;

	switch (type->kind) {
	case MODEL_STRING:
	case MODEL_SECRET: return val_string(arena_printf(a, "text %u <&\"\xc3\xbc\">", k));
	case MODEL_INT: return val_int(-(1LL << 62) + k);
	case MODEL_FLOAT: return (struct val){ .kind = VAL_FLOAT, .f = 0.1 + k };
	case MODEL_BOOL: return val_bool(true);
	case MODEL_DATETIME: return val_datetime(1700000000 + k);
	case MODEL_ENUM: {
		const char *const *values = model_enums[type->enum_id].values;

		return val_string(values[1] != NULL && k % 2 == 0 ? values[1] : values[0]);
	}
	case MODEL_REF: return val_string(reference(a, 0xabc000 + k));
	case MODEL_SET:
		v = val_set();
		for (unsigned i = 0; i < SETS; i++)
			val_set_push(a, &v, value_of(a, type->item, k + i));
		return v;
	case MODEL_MAP:
		v = val_map();
		for (unsigned i = 0; i < SETS; i++) {
			struct val key = value_of(a, type->key, k + i);

			val_map_push(a, &v,
				key.kind == VAL_INT ? arena_printf(a, "%lld", (long long)key.i)
						    : key.s,
				value_of(a, type->item, k + i));
		}
		return v;
	default: UNREACHABLE();
	}
}

static void print_entry(unsigned long raft_id, int class_id, unsigned n)
{
	const struct model_class *c = &model_classes[class_id];
	struct db_proposal_id id = { raft_id, BOOT, n };
	struct buf entry = { 0 };
	struct db_txn txn;
	struct val *fields;
	const char *ref;
	struct arena a;

	arena_init(&a);
	ref = reference(&a, n);
	fields = arena_alloc(&a, c->n_fields * sizeof *fields);
	for (unsigned i = 0; i < c->n_fields; i++)
		fields[i] = i < c->n_stored && !c->fields[i].removed
				    ? value_of(&a, c->fields[i].type, n + i)
				    : val_void();
	fields[c->uuid_field] = val_string(ref + strlen("OpaqueRef:"));
	db_txn_init(&txn, DB_FOR_FIELD);
	txn.schema = MODEL_SCHEMA_VERSION;
	db_txn_create(&txn, class_id, ref, fields);
	db_txn_encode(&txn, &id, CLOCK_S, &entry);
	printf("%s %s ", c->name, ref);
	for (size_t i = 0; i < entry.len; i++)
		printf("%02x", entry.data[i]);
	printf("\n");
	db_txn_fini(&txn);
	buf_fini(&entry);
	arena_fini(&a);
}

int main(int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		int class_id = model_class_find(argv[i], false);

		if (class_id < 0 || model_classes[class_id].uuid_field < 0) {
			fprintf(stderr, "every_row: %s: no such class\n", argv[i]);
			return 2;
		}
		print_entry(strtoul(argv[1], NULL, 10), class_id, (unsigned)i);
	}
	return 0;
}
