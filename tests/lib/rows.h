/* A database alone (state.h) with rows that a test puts there, and a view of it: for what is
 * decided on a view. Included once in a program. */
#pragma once

#include "db/view.h"
#include "tests/lib/state.h"
#include "tests/lib/suite.h"

struct rows {
	struct db db;
	struct db_txn txn; /* of the test's next entry */
	struct db_view view;
	struct arena a;
};

static inline void rows_open(struct rows *r)
{
	memset(r, 0, sizeof *r);
	state_open(&r->db);
	db_txn_init(&r->txn, DB_FOR_FIELD);
	arena_init(&r->a);
	db_view_pin(&r->db, &r->view);
}

static inline void rows_close(struct rows *r)
{
	db_view_unpin(&r->view);
	arena_fini(&r->a);
	db_txn_fini(&r->txn);
	state_close(&r->db);
}

/* What was composed is one entry, and in the view. */
static inline void rows_apply(struct rows *r)
{
	r->txn.schema = MODEL_SCHEMA_VERSION;
	ck_assert_int_eq(state_apply(&r->db, &r->txn, r->db.index + 1).status, APPLY_DONE);
	db_txn_init(&r->txn, DB_FOR_FIELD);
	db_view_unpin(&r->view);
	db_view_pin(&r->db, &r->view);
}

/* The transaction of somebody else is, too. */
static inline enum apply_status rows_apply_txn(struct rows *r, struct db_txn *txn)
{
	enum apply_status status;

	txn->schema = MODEL_SCHEMA_VERSION;
	status = state_apply(&r->db, txn, r->db.index + 1).status;
	db_view_unpin(&r->view);
	db_view_pin(&r->db, &r->view);
	return status;
}

/* "OpaqueRef:NAME", in the arena. */
static inline const char *rows_ref(struct rows *r, const char *name)
{
	return arena_printf(&r->a, "OpaqueRef:%s", name);
}

/* A row of that name with its initial values; its uuid follows from class and entry. */
static inline const char *rows_create(struct rows *r, int class_id, const char *name)
{
	const struct model_class *c = &model_classes[class_id];
	struct val *fields = arena_alloc(&r->a, c->n_fields * sizeof *fields);
	const char *ref = rows_ref(r, name);

	for (unsigned i = 0; i < c->n_fields; i++)
		fields[i] = val_void();
	if (c->uuid_field >= 0)
		fields[c->uuid_field] =
			val_string(arena_printf(&r->a, "00000000-0000-4000-8000-%04x%08x",
				(unsigned)class_id, (unsigned)r->db.index));
	db_txn_create(&r->txn, class_id, ref, fields);
	rows_apply(r);
	return ref;
}

static inline void rows_set(
	struct rows *r, int class_id, const char *ref, int field, struct val value)
{
	db_txn_set(&r->txn, class_id, ref, field, value);
	rows_apply(r);
}

/* One more key of a map. */
static inline void rows_add(struct rows *r, int class_id, const char *ref, int field,
	const char *key, const char *value)
{
	db_txn_map_add(&r->txn, class_id, ref, field, key, val_string(value));
	rows_apply(r);
}
