/* Log entries: a damaged one is refused or stops the member; the state stays sound. */
#include "db/snapshot_priv.h"

#include <stdlib.h>

struct db {
	struct views views;
};

struct views *db__views(struct db *db)
{
	return &db->views;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void create(struct views *v, struct done_table *done, struct apply_changes *changes)
{
	struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct db_proposal_id id = { 1, 1, 1 };
	struct entry_head head;
	struct buf entry = { 0 };
	struct db_txn t;

	db_txn_init(&t, DB_FOR_FIELD);
	f[VM_uuid] = val_string("a");
	db_txn_create(&t, MODEL_CLASS_VM, "OpaqueRef:a", f);
	db_txn_encode(&t, &id, 1, &entry);
	db_txn_fini(&t);
	CHECK(db__entry_head(entry.data, entry.len, &head));
	CHECK(db__apply(v, done, 1, &head, changes).status == APPLY_DONE);
	buf_fini(&entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct views v;
	struct done_table *done = db__done_new(0);
	struct apply_changes changes = { 0 };
	struct entry_head head;
	char why[128];

	db__views_init(&v);
	db__views_publish(&v, mem_new(sizeof(struct db_state)));
	create(&v, done, &changes);
	if (db__entry_head(data, n, &head) &&
		db__apply(&v, done, 2, &head, &changes).status != APPLY_BROKEN)
		CHECK(db__state_check(v.root, why, sizeof why));
	db__views_fini(&v);
	db__done_free(done);
	free(changes.items);
	return 0;
}
