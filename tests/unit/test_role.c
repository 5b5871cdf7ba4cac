/* Roles without a pool: every role against every message, key of a map and HTTP action as published
 * (tests/data/xenapi), and what rows give. */
#include "pool/pool_priv.h"
#include "rpc/base/file.h"
#include "tests/lib/state.h"
#include "tests/lib/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VM	 "OpaqueRef:00000000-0000-4000-8000-000000000001"
#define TASK	 "OpaqueRef:00000000-0000-4000-8000-000000000002"
#define OWN_TASK "OpaqueRef:00000000-0000-4000-8000-000000000003"

enum { ROLES = 7 };

static const char *folder; /* of the published tables */

struct bench {
	struct db db;
	struct db_txn txn;
	struct call call;
	struct arena a; /* of the published tables */
};

static void bench_open(struct bench *b)
{
	memset(b, 0, sizeof *b);
	state_open(&b->db);
	db_txn_init(&b->txn, DB_FOR_FIELD);
	arena_init(&b->a);
	arena_init(&b->call.arena);
	b->call.caller = (struct caller){ .user = "u", .session = "OpaqueRef:s", .sid = "u1" };
	db_view_pin(&b->db, &b->call.view);
}

static void bench_close(struct bench *b)
{
	db_view_unpin(&b->call.view);
	arena_fini(&b->call.arena);
	arena_fini(&b->a);
	db_txn_fini(&b->txn);
	state_close(&b->db);
}

/* What was composed is in the view. */
static void apply(struct bench *b)
{
	b->txn.schema = MODEL_SCHEMA_VERSION;
	ck_assert_int_eq(state_apply(&b->db, &b->txn, b->db.index + 1).status, APPLY_DONE);
	db_txn_init(&b->txn, DB_FOR_FIELD);
	db_view_unpin(&b->call.view);
	db_view_pin(&b->db, &b->call.view);
}

static struct val table(struct bench *b, const char *name)
{
	char path[512];
	struct buf text = { 0 };
	struct val v;
	const char *why;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	ck_assert_int_eq(file_read(path, 1 << 20, &text), 0);
	ck_assert_int_eq(
		rpc_json_parse(&b->a, arena_strdup(&b->a, buf_text(&text)), text.len, &v, &why), 0);
	buf_fini(&text);
	return v;
}

/* Its place in the order, strongest first; -1: local root, no role. */
static int rank(const struct val *roles, const char *name)
{
	const struct val *order = val_get(roles, "order_strongest_first");

	ck_assert_uint_eq(order->n, ROLES);
	for (unsigned i = 0; i < ROLES; i++)
		if (strcmp(val_get_s(&order->items[i], "name"), name) == 0)
			return (int)i;
	ck_assert_str_eq(name, "local-root");
	return -1;
}

static bool is_cert(unsigned role)
{
	return role + 1 == MODEL_ROLE_CLIENT_CERT;
}

static const char *lowered(struct bench *b, const char *text)
{
	char *out = arena_strdup(&b->a, text);

	for (char *c = out; *c; c++)
		*c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
	return out;
}

/* One call by one role: as expected, and refused with this permission. */
static void ask(struct bench *b, unsigned role, bool may, const char *permission)
{
	struct err err = { 0 };
	int rc;

	b->call.caller.roles = 1u << (role + 1);
	rc = role_check(&b->call, &err);
	ck_assert_msg((rc == 0) == may, "role %u: %s is %s", role, permission,
		rc == 0 ? "let in" : "refused");
	if (rc != 0) {
		ck_assert_ptr_eq(err.code, ERR_RBAC_PERMISSION_DENIED);
		ck_assert_uint_eq(err.n, 2);
		ck_assert_str_eq(err.params[0], permission);
		ck_assert(strncmp(err.params[1], "No permission in user session. (Roles", 37) == 0);
	}
	err_fini(&err);
}

/* Arguments of the right kinds, about nothing that is there. */
static void set_call(struct bench *b, const char *name)
{
	const struct model_message *m = model_message_find(name);

	ck_assert_msg(m != NULL, "no message %s", name);
	b->call.method = m;
	b->call.args = arena_alloc(&b->call.arena, (m->n_params + 1) * sizeof *b->call.args);
	for (unsigned i = 0; i < m->n_params; i++) {
		enum model_kind kind = m->params[i].type->kind;

		b->call.args[i] = kind == MODEL_MAP   ? val_map()
				  : kind == MODEL_SET ? val_set()
						      : val_string("none");
	}
}

/* Messages of ours, between members: nobody's. */
static const char *const own[] = { "SR.clear_left" };

START_TEST(every_role_and_message_is_as_published)
{
	struct bench b;
	struct val roles;
	const struct val *groups, *cert, *counts;
	unsigned seen = 0, callable[ROLES] = { 0 };

	bench_open(&b);
	roles = table(&b, "roles.json");
	groups = val_get(&roles, "minimum_role");
	cert = val_get(&roles, "also_client_cert");
	counts = val_get(&roles, "callable_methods_per_role");
	for (uint32_t g = 0; g < groups->n; g++)
		for (uint32_t k = 0; k < groups->pairs[g].value.n; k++) {
			const char *name = groups->pairs[g].value.items[k].s;
			int weakest = rank(&roles, groups->pairs[g].key);

			set_call(&b, name);
			seen++;
			for (unsigned r = 0; r < ROLES; r++) {
				bool may = (int)r <= weakest ||
					   (weakest >= 0 && is_cert(r) && val_set_has(cert, name));

				ask(&b, r, may, lowered(&b, name));
				callable[r] += may;
			}
			b.call.caller.superuser = true;
			ck_assert_int_eq(role_check(&b.call, &b.call.err), 0);
			b.call.caller.superuser = false;
		}
	for (size_t i = 0; i < ARRAY_LEN(own); i++) {
		set_call(&b, own[i]);
		for (unsigned r = 0; r < ROLES; r++)
			ask(&b, r, false, lowered(&b, own[i]));
	}
	ck_assert_uint_eq(seen + ARRAY_LEN(own), model_n_messages);
	for (uint32_t i = 0; i < counts->n; i++)
		ck_assert_int_eq(
			callable[rank(&roles, counts->pairs[i].key)], counts->pairs[i].value.i);
	bench_close(&b);
}
END_TEST

START_TEST(every_role_and_key_is_as_published)
{
	struct bench b;
	struct val roles;
	const struct val *messages;
	unsigned seen = 0;

	bench_open(&b);
	roles = table(&b, "roles.json");
	messages = val_get(&roles, "key_permissions");
	for (uint32_t m = 0; m < messages->n; m++)
		for (uint32_t k = 0; k < messages->pairs[m].value.n; k++) {
			const struct val_pair *key = &messages->pairs[m].value.pairs[k];
			const char *name = lowered(&b, messages->pairs[m].key),
				   *permission = lowered(
					   &b, arena_printf(&b.a, "%s/key:%s", name, key->key));
			char *star = strchr(key->key, '*');
			struct val given[2];

			set_call(&b, messages->pairs[m].key);
			given[0] =
				val_string(star != NULL ? arena_printf(&b.a, "%.*sany thing",
								  (int)(star - key->key), key->key)
							: key->key);
			/* a key is its own as it is written, nothing else */
			given[1] = val_string(star != NULL ? lowered(&b, given[0].s)
							   : arena_printf(&b.a, "%s2", key->key));
			for (unsigned r = 0; r < ROLES; r++) {
				b.call.args[1] = given[0];
				ask(&b, r, (int)r <= rank(&roles, key->value.s), permission);
				b.call.args[1] = given[1];
				ask(&b, r, roles_permit(2u << r, b.call.method->role, false), name);
			}
			seen++;
		}
	ck_assert_uint_eq(seen, 40);
	bench_close(&b);
}
END_TEST

START_TEST(every_role_and_http_action_is_as_published)
{
	struct bench b;
	struct val roles, http;
	const struct val *actions;

	bench_open(&b);
	roles = table(&b, "roles.json");
	http = table(&b, "http.json");
	actions = val_get(&http, "actions");
	ck_assert_uint_eq(actions->n, 57);
	for (uint32_t i = 0; i < actions->n; i++) {
		const struct val *action = &actions->items[i],
				 *subs = val_get(action, "sub_permissions");
		const char *name = arena_printf(&b.a, "http/%s", val_get_s(action, "name"));
		int weakest = rank(&roles, val_get_s(action, "role"));
		bool cert = val_get(action, "client_cert") != NULL;

		for (unsigned r = 0; r < ROLES; r++) {
			struct caller caller = { .roles = 2u << r };

			bool may = (int)r <= weakest || (is_cert(r) && cert);

			ck_assert_msg((role_need(&caller, name, &b.call.err) == 0) == may,
				"role %u: %s", r, name);
			for (uint32_t k = 0; subs != NULL && k < subs->n; k++)
				ck_assert_int_eq(
					role_need(&caller,
						arena_printf(&b.a, "%s/%s", name,
							val_get_s(&subs->items[k], "name")),
						&b.call.err) == 0,
					(int)r <= rank(&roles, val_get_s(&subs->items[k], "role")));
		}
	}
	err_fini(&b.call.err);
	bench_close(&b);
}
END_TEST

START_TEST(a_refusal_names_the_roles_that_have_the_permission)
{
	struct caller reader = { .roles = 1u << MODEL_ROLE_READ_ONLY };
	struct err err = { 0 };

	ck_assert_int_eq(role_need(&reader, "vm.create", &err), ERR_API);
	ck_assert_str_eq(err.params[1],
		"No permission in user session. (Roles with this permission: "
		"pool-admin, pool-operator, vm-power-admin, vm-admin)");
	ck_assert_int_eq(role_need(&reader, "host.evacuate", &err), ERR_API);
	ck_assert_str_eq(err.params[1],
		"No permission in user session. (Roles with this permission: "
		"pool-admin, pool-operator, client-cert)");
	ck_assert_int_eq(role_need(&reader, "session.change_password", &err), ERR_API);
	ck_assert_str_eq(
		err.params[1], "No permission in user session. (Roles with this permission: )");
	err_fini(&err);
}
END_TEST

static void set_map(struct bench *b, const char *const (*pairs)[2])
{
	b->call.args[1] = val_map();
	for (; (*pairs)[0] != NULL; pairs++)
		val_map_push(
			&b->call.arena, &b->call.args[1], (*pairs)[0], val_string((*pairs)[1]));
}

START_TEST(replacing_a_map_needs_the_permission_of_each_protected_key_that_changes)
{
	static const char *const same[][2] = { { "pci", "0/1" }, { "folder", "/a" }, { "x", "2" },
		{ NULL, NULL } };
	static const char *const other[][2] = { { "pci", "0/2" }, { NULL, NULL } };
	static const char *const without[][2] = { { "folder", "/b" }, { NULL, NULL } };
	static const char *const more[][2] = { { "pci", "0/1" }, { "hvm_serial", "pty" },
		{ NULL, NULL } };
	struct val fields[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct bench b;

	bench_open(&b);
	set_call(&b, "VM.set_other_config");
	set_map(&b, same);
	fields[VM_uuid] = val_string(&VM[10]);
	fields[VM_other_config] = b.call.args[1];
	db_txn_create(&b.txn, MODEL_CLASS_VM, VM, fields);
	apply(&b);
	b.call.args[0] = val_string(VM);
	for (unsigned r = 0; r < ROLES; r++) {
		bool may = r + 1 <= MODEL_ROLE_VM_ADMIN, admin = r + 1 == MODEL_ROLE_POOL_ADMIN;
		const char *pci = may ? "vm.add_to_other_config/key:pci" : "vm.set_other_config";

		set_map(&b, same);
		ask(&b, r, may, "vm.set_other_config");
		set_map(&b, other);
		ask(&b, r, admin, pci);
		set_map(&b, without);
		ask(&b, r, admin, pci);
		set_map(&b, more);
		ask(&b, r, admin,
			may ? "vm.add_to_other_config/key:hvm_serial" : "vm.set_other_config");
	}
	bench_close(&b);
}
END_TEST

static void make_task(struct bench *b, const char *ref, const char *session, const char *sid)
{
	struct val fields[TASK_FIELD_COUNT] = { { .kind = VAL_VOID } };

	fields[TASK_uuid] = val_string(ref + 10);
	fields[TASK_session] = val_string(session);
	fields[TASK_caller] = task_caller(&b->call.arena, "u", session, "", sid);
	db_txn_create(&b->txn, MODEL_CLASS_task, ref, fields);
	apply(b);
}

START_TEST(tasks_of_others_need_a_permission)
{
	static const char *const messages[] = { "task.cancel", "task.destroy", "task.set_status",
		"task.set_progress", "task.set_result", "task.set_error_info",
		"task.add_to_other_config", "task.remove_from_other_config",
		"task.set_other_config" };
	struct bench b;

	bench_open(&b);
	make_task(&b, TASK, "OpaqueRef:other", "u2");
	make_task(&b, OWN_TASK, "OpaqueRef:earlier session", "u1");
	for (size_t m = 0; m < ARRAY_LEN(messages); m++)
		for (unsigned r = 0; r < ROLES; r++) {
			set_call(&b, messages[m]);
			b.call.args[0] = val_string(OWN_TASK);
			ask(&b, r, true, "");
			b.call.args[0] = val_string(TASK);
			ask(&b, r, r + 1 <= MODEL_ROLE_POOL_OPERATOR, "task.destroy/any");
			/* nobody's identifier is nobody's */
			b.call.caller.sid = "";
			b.call.args[0] = val_string(OWN_TASK);
			ask(&b, r, r + 1 <= MODEL_ROLE_POOL_OPERATOR, "task.destroy/any");
			b.call.caller.session = "OpaqueRef:earlier session";
			ask(&b, r, true, "");
			b.call.caller.session = "OpaqueRef:s";
			b.call.caller.sid = "u1";
		}
	set_call(&b, "task.get_record");
	b.call.args[0] = val_string(TASK);
	ask(&b, MODEL_ROLE_READ_ONLY - 1, true, "");
	bench_close(&b);
}
END_TEST

static const char *role_ref(struct bench *b, enum model_role role)
{
	return arena_printf(&b->a, "OpaqueRef:%s", model_permissions[role - 1].uuid);
}

static struct val refs(struct bench *b, const char *one, const char *two)
{
	struct val v = val_set();

	val_set_push(&b->a, &v, val_string(one));
	if (two != NULL)
		val_set_push(&b->a, &v, val_string(two));
	return v;
}

static unsigned roles_now(struct bench *b, const char *session)
{
	return roles_of_session(&b->call.view,
		db_view_get(&b->call.view, MODEL_CLASS_session, session), &b->call.arena);
}

START_TEST(a_session_has_the_roles_its_subjects_have_now)
{
	struct val subject[SUBJECT_FIELD_COUNT] = { { .kind = VAL_VOID } },
		   session[SESSION_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct bench b;

	bench_open(&b);
	subject[SUBJECT_roles] = refs(&b, role_ref(&b, MODEL_ROLE_VM_OPERATOR), NULL);
	db_txn_create(&b.txn, MODEL_CLASS_subject, "OpaqueRef:user", subject);
	subject[SUBJECT_roles] = refs(&b, role_ref(&b, MODEL_ROLE_READ_ONLY), "OpaqueRef:no role");
	db_txn_create(&b.txn, MODEL_CLASS_subject, "OpaqueRef:group", subject);
	session[SESSION_subjects] = refs(&b, "OpaqueRef:user", "OpaqueRef:group");
	db_txn_create(&b.txn, MODEL_CLASS_session, "OpaqueRef:s", session);
	session[SESSION_subjects] = refs(&b, "OpaqueRef:user", NULL);
	db_txn_create(&b.txn, MODEL_CLASS_session, "OpaqueRef:u", session);
	session[SESSION_subjects] = val_set();
	session[SESSION_client_certificate] = val_bool(true);
	db_txn_create(&b.txn, MODEL_CLASS_session, "OpaqueRef:c", session);
	apply(&b);
	ck_assert_uint_eq(roles_now(&b, "OpaqueRef:s"),
		1u << MODEL_ROLE_VM_OPERATOR | 1u << MODEL_ROLE_READ_ONLY);
	ck_assert_uint_eq(roles_now(&b, "OpaqueRef:c"), 1u << MODEL_ROLE_CLIENT_CERT);
	/* given */
	db_txn_set_add(&b.txn, MODEL_CLASS_subject, "OpaqueRef:group", SUBJECT_roles,
		val_string(role_ref(&b, MODEL_ROLE_POOL_ADMIN)));
	apply(&b);
	ck_assert(roles_permit(roles_now(&b, "OpaqueRef:s"), MODEL_ROLE_POOL_ADMIN, false));
	/* taken */
	db_txn_set_remove(&b.txn, MODEL_CLASS_subject, "OpaqueRef:group", SUBJECT_roles,
		val_string(role_ref(&b, MODEL_ROLE_POOL_ADMIN)));
	apply(&b);
	ck_assert(!roles_permit(roles_now(&b, "OpaqueRef:s"), MODEL_ROLE_POOL_ADMIN, false));
	/* the group goes, and the session with it that it let in, in the same entry */
	db_txn_delete(&b.txn, MODEL_CLASS_subject, "OpaqueRef:group");
	apply(&b);
	ck_assert_ptr_null(db_view_get(&b.call.view, MODEL_CLASS_session, "OpaqueRef:s"));
	ck_assert_uint_eq(roles_now(&b, "OpaqueRef:u"), 1u << MODEL_ROLE_VM_OPERATOR);
	db_txn_delete(&b.txn, MODEL_CLASS_subject, "OpaqueRef:user");
	apply(&b);
	ck_assert_ptr_null(db_view_get(&b.call.view, MODEL_CLASS_session, "OpaqueRef:u"));
	ck_assert_uint_eq(roles_now(&b, "OpaqueRef:c"), 1u << MODEL_ROLE_CLIENT_CERT);
	ck_assert(!roles_permit(0, MODEL_ROLE_READ_ONLY, true));
	bench_close(&b);
}
END_TEST

START_TEST(permissions_of_roles_are_unions)
{
	struct bench b;
	struct val few, many;

	bench_open(&b);
	few = roles_permissions(1u << MODEL_ROLE_CLIENT_CERT, &b.a);
	many = roles_permissions(1u << MODEL_ROLE_CLIENT_CERT | 1u << MODEL_ROLE_VM_OPERATOR, &b.a);
	ck_assert(val_set_has(&few, "host.evacuate") && val_set_has(&many, "host.evacuate"));
	ck_assert(!val_set_has(&few, "vm.start") && val_set_has(&many, "vm.start"));
	ck_assert(val_set_has(&many, "vm.add_to_other_config/key:xencenter.customfields.*"));
	ck_assert(!val_set_has(&many, "vm.add_to_other_config/key:pci"));
	ck_assert_uint_eq(roles_permissions(0, &b.a).n, 0);
	/* what only local superusers may is no permission of any role */
	many = roles_permissions(1u << MODEL_ROLE_POOL_ADMIN, &b.a);
	ck_assert(!val_set_has(&many, "session.change_password"));
	ck_assert_uint_eq(role_of_ref(role_ref(&b, MODEL_ROLE_CLIENT_CERT)), MODEL_ROLE_ROOT);
	ck_assert_uint_eq(role_of_ref(NULL_REF), MODEL_ROLE_ROOT);
	bench_close(&b);
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {
		every_role_and_message_is_as_published,
		every_role_and_key_is_as_published,
		every_role_and_http_action_is_as_published,
		a_refusal_names_the_roles_that_have_the_permission,
		replacing_a_map_needs_the_permission_of_each_protected_key_that_changes,
		tasks_of_others_need_a_permission,
		a_session_has_the_roles_its_subjects_have_now,
		permissions_of_roles_are_unions,
	};

	if (argc != 2)
		return 2;
	folder = argv[1];
	return suite_run("role", tests, ARRAY_LEN(tests), 30);
}
