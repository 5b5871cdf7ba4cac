/* Rows made from the model itself: the objects of class role. They are the same on every member of
 * one version, so they are neither logged nor hashed nor in snapshots; every state has them from
 * its beginning, and all that reads rows reads them too.
 */
#include "db/snapshot_priv.h"

#include <stdio.h>

static const char *role_ref(struct arena *a, const struct model_permission *p)
{
	return arena_printf(a, "OpaqueRef:%s", p->uuid);
}

/* A message carries the roles from the strongest down to its weakest one; the certificate's role
 * stands in that order too, and is added to some messages by name. */
static bool permits(enum model_role role, const struct model_permission *p)
{
	return role <= p->role || (role == MODEL_ROLE_CLIENT_CERT && p->client_cert);
}

static struct val subroles(struct arena *a, const struct model_permission *of)
{
	struct val v = val_set();

	for (const struct model_permission *p = model_permissions; of->is_role && p->name != NULL;
		p++)
		if (!p->is_role && permits(of->role, p))
			val_set_push(a, &v, val_string(role_ref(a, p)));
	return v;
}

void db__state_add_fixed(struct db_state *s)
{
	const struct model_class *c = &model_classes[MODEL_CLASS_role];
	struct reclaim scratch = { 0 };
	struct arena a;
	struct val *fields;

	CHECK(s->classes[MODEL_CLASS_role].n_rows == 0);
	arena_init(&a);
	fields = arena_alloc(&a, c->n_fields * sizeof *fields);
	for (const struct model_permission *p = model_permissions; p->name != NULL; p++) {
		fields[ROLE_uuid] = val_string(p->uuid);
		fields[ROLE_name_label] = val_string(p->name);
		fields[ROLE_name_description] = val_string(p->text);
		fields[ROLE_subroles] = subroles(&a, p);
		fields[ROLE_is_internal] = val_bool(p->internal);
		db__state_put(&scratch, s, NULL,
			db__row_new(MODEL_CLASS_role, role_ref(&a, p), 0, 0, fields, c->n_stored),
			DB_ANY_FIELD);
		db__reclaim_now(&scratch);
	}
	arena_fini(&a);
}
