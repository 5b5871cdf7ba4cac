/* Who may do what: roles against messages, keys of maps, HTTP services, and other people's tasks.
 *
 * A session has the roles that its subjects have at the moment of the call: rows are read, nothing
 * is kept, so a role given or taken holds at once on every member that has applied it. Roles are
 * ordered and a permission is known by the weakest role that has it, so a check is a comparison.
 * sessions.md 3.
 */
#include "pool/pool_priv.h"

#include <stdio.h>
#include <string.h>

enum { PERMISSION_MAX = 160 /* length of a permission's name */ };

/* The role a reference stands for; MODEL_ROLE_ROOT: none that can be given to a subject. */
enum model_role role_of_ref(const char *ref)
{
	for (const struct model_permission *p = model_permissions; p->is_role; p++)
		if (!p->internal && strcmp(ref + strlen("OpaqueRef:"), p->uuid) == 0)
			return p->role;
	return MODEL_ROLE_ROOT;
}

unsigned roles_of_subject(const struct db_row *subject, struct arena *a)
{
	struct val refs = db_row_field(subject, SUBJECT_roles, a);
	unsigned roles = 0;

	for (uint32_t i = 0; i < refs.n; i++)
		if (strncmp(refs.items[i].s, "OpaqueRef:", 10) == 0)
			roles |= 1u << role_of_ref(refs.items[i].s);
	return roles & ~(1u << MODEL_ROLE_ROOT);
}

static unsigned roles_of_subjects(
	const struct db_view *view, const struct val *subjects, struct arena *a)
{
	unsigned roles = 0;

	for (uint32_t i = 0; i < subjects->n; i++) {
		const struct db_row *row =
			db_view_get(view, MODEL_CLASS_subject, subjects->items[i].s);

		if (row != NULL)
			roles |= roles_of_subject(row, a);
	}
	return roles;
}

unsigned roles_of_session(const struct db_view *view, const struct db_row *session, struct arena *a)
{
	struct val subjects;

	if (db_row_b(session, SESSION_client_certificate))
		return 1u << MODEL_ROLE_CLIENT_CERT;
	subjects = db_row_field(session, SESSION_subjects, a);
	return roles_of_subjects(view, &subjects, a);
}

void roles_refresh(struct caller *caller, const struct db_view *view, struct arena *a)
{
	if (caller->subjects != NULL)
		caller->roles = roles_of_subjects(view, caller->subjects, a);
}

bool roles_permit(unsigned roles, enum model_role needed, bool cert)
{
	if (roles == 0)
		return false;
	/* the strongest one decides, but for what is the certificates' by name */
	return model_role_permits((enum model_role)__builtin_ctz(roles), needed, cert) ||
	       ((roles >> MODEL_ROLE_CLIENT_CERT & 1) != 0 &&
		       model_role_permits(MODEL_ROLE_CLIENT_CERT, needed, cert));
}

struct val roles_permissions(unsigned roles, struct arena *a)
{
	struct val v = val_set();

	for (const struct model_permission *p = model_permissions; p->name != NULL; p++)
		if (!p->is_role && roles_permit(roles, p->role, p->client_cert))
			val_set_push(a, &v, val_string(p->name));
	return v;
}

/* Refusals. */

static int denied(const char *permission, struct err *err)
{
	const struct model_permission *p = model_permission_find(permission);
	struct buf text = { 0 };
	bool more = false;

	buf_puts(&text, "No permission in user session. (Roles with this permission: ");
	for (const struct model_permission *r = model_permissions; p != NULL && r->is_role; r++)
		if (model_role_permits(r->role, p->role, p->client_cert)) {
			buf_printf(&text, "%s%s", more ? ", " : "", r->name);
			more = true;
		}
	buf_puts(&text, ")");
	err_set(err, ERR_RBAC_PERMISSION_DENIED, permission, buf_text(&text), NULL);
	buf_fini(&text);
	return ERR_API;
}

static void lower(char out[PERMISSION_MAX], const char *name, const char *key)
{
	size_t n = (size_t)snprintf(
		out, PERMISSION_MAX, "%s%s%s", name, key != NULL ? "/key:" : "", key ? key : "");

	CHECK(n < PERMISSION_MAX); /* both are the model's */
	for (char *c = out; *c; c++)
		*c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
}

int role_need(const struct caller *caller, const char *permission, struct err *err)
{
	const struct model_permission *p = model_permission_find(permission);

	if (caller->superuser ||
		(p != NULL && roles_permit(caller->roles, p->role, p->client_cert)))
		return 0;
	return denied(permission, err);
}

/* Keys of maps. The first pattern that fits is the key's: they do not overlap. */
static const struct model_key *key_of(const struct model_field *f, const char *key)
{
	for (const struct model_key *k = f->keys; k != NULL && k->name != NULL; k++)
		if (k->prefix ? strncmp(key, k->name, strlen(k->name)) == 0
			      : strcmp(key, k->name) == 0)
			return k;
	return NULL;
}

/* A key with a permission of its own; the message's permission does not count for it. */
static int key_check(
	const struct call *call, const char *message, const struct model_key *key, struct err *err)
{
	char pattern[PERMISSION_MAX / 2], permission[PERMISSION_MAX];

	if (roles_permit(call->caller.roles, key->role, false))
		return 0;
	snprintf(pattern, sizeof pattern, "%s%s", key->name, key->prefix ? "*" : "");
	lower(permission, message, pattern);
	return denied(permission, err);
}

static bool equal_at(const struct val *a, const struct val *b, const char *key)
{
	const struct val *x = val_get(a, key), *y = val_get(b, key);

	return x == NULL || y == NULL ? x == y : val_equal(x, y);
}

/* A whole map is replaced: what changes of its protected keys needs their permission. */
static int map_check(struct call *call, const struct model_field *f, struct err *err)
{
	const struct model_message *m = call->method;
	const struct db_row *row = db_view_get(&call->view, m->class_id, call->args[0].s);
	const char *add = arena_printf(
		&call->arena, "%s.add_to_%s", model_classes[m->class_id].name, f->name);
	struct val have, *maps[2] = { &have, &call->args[1] };

	if (row == NULL)
		return 0; /* whoever writes it says so */
	have = db_row_field(row, m->field, &call->arena);
	for (unsigned i = 0; i < 2; i++)
		for (uint32_t k = 0; k < maps[i]->n; k++) {
			const char *name = maps[i]->pairs[k].key;
			const struct model_key *key = key_of(f, name);

			if (key != NULL && !equal_at(maps[0], maps[1], name) &&
				key_check(call, add, key, err) != 0)
				return ERR_API;
		}
	return 0;
}

/* Tasks. */

static bool is_about_task(const struct model_message *m)
{
	return m->class_id == MODEL_CLASS_task && m->n_params > 0 &&
	       m->params[0].type->kind == MODEL_REF && m->call != MODEL_GET_FIELD &&
	       m->call != MODEL_GET_RECORD;
}

struct val task_caller(struct arena *a, const char *user, const char *session,
	const char *originator, const char *sid)
{
	struct val v = val_map();

	val_map_push(a, &v, "user", val_string(user));
	val_map_push(a, &v, "session", val_string(session));
	val_map_push(a, &v, "originator", val_string(originator));
	val_map_push(a, &v, "sid", val_string(sid));
	return v;
}

/* Who made it: the same session, or another one of the same directory user. */
static bool own_task(struct call *call, const struct db_row *task)
{
	struct val caller = db_row_field(task, TASK_caller, &call->arena);
	const char *sid = val_get_s(&caller, "sid");

	return strcmp(db_row_s(task, TASK_session), call->caller.session) == 0 ||
	       (*call->caller.sid != 0 && sid != NULL && strcmp(sid, call->caller.sid) == 0);
}

int role_task(struct call *call, const char *ref, struct err *err)
{
	const struct db_row *task = db_view_get(&call->view, MODEL_CLASS_task, ref);

	if (call->caller.superuser || task == NULL || own_task(call, task))
		return 0;
	return role_need(&call->caller, "task.destroy/any", err);
}

int role_check(struct call *call, struct err *err)
{
	const struct model_message *m = call->method;
	const struct model_field *f =
		m->field >= 0 ? &model_classes[m->class_id].fields[m->field] : NULL;
	const struct model_key *key = NULL;
	char permission[PERMISSION_MAX];
	int rc = 0;

	if (call->caller.superuser)
		return 0;
	if (m->call == MODEL_ADD_TO_FIELD || m->call == MODEL_REMOVE_FROM_FIELD)
		key = key_of(f, call->args[1].s);
	if (key != NULL) {
		rc = key_check(call, m->name, key, err);
	} else if (!roles_permit(call->caller.roles, m->role, m->client_cert)) {
		lower(permission, m->name, NULL);
		rc = denied(permission, err);
	}
	if (rc == 0 && m->call == MODEL_SET_FIELD && f->keys != NULL)
		rc = map_check(call, f, err);
	if (rc == 0 && is_about_task(m))
		rc = role_task(call, call->args[0].s, err);
	return rc;
}
