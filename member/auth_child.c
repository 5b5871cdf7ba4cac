/* One question about an account, answered in a process of its own (member/auth.c).
 *
 *   local  may this account administer the host? PAM: authentication and account.
 *   pam    users and groups of the host's name service: ids u1000, g100; passwords by PAM.
 *   file   a JSON file of users and groups (docs/formats.md), for pools without a directory server,
 *          and for tests: passwords by crypt(3).
 *
 * Everything here may hang or crash. Errors say to the client no more than whether it was refused
 * or could not be asked; why is on standard error, which is the agent's log, without any password.
 */
#include "member/auth_child.h"
#include "agent/agent.h"
#include "member/child.h"
#include "rpc/base/check.h"
#include "rpc/base/file.h"
#include "rpc/base/tls.h"
#include "rpc/wire/codec.h"

#include <crypt.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	DIRECTORY_MAX = 16 << 20,
	GROUPS_MAX = 1024, /* of one account */
	NAME_BYTES_MAX = 65536,
};

struct ask {
	struct arena *arena;
	const char *pam, *file;
	const struct val *params;
	struct err *err;
	struct val result;
};

static int refuse(struct ask *q, const char *why)
{
	fprintf(stderr, "level=info event=auth_refused why=\"%s\"\n", why);
	/* whether there is such a user is nobody's business */
	return err_set(q->err, AGENT_ERR_auth_failed, "Authentication failure", NULL);
}

static int unavailable(struct ask *q, const char *why)
{
	fprintf(stderr, "level=warn event=auth_unavailable why=\"%s\"\n", why);
	return err_set(q->err, AGENT_ERR_auth_unavailable, why, NULL);
}

static int unknown(struct ask *q, const char *what)
{
	return err_set(q->err, AGENT_ERR_does_not_exist, "account", what, NULL);
}

/* PAM. */

static int answer_prompts(
	int n, const struct pam_message **prompts, struct pam_response **out, void *password)
{
	struct pam_response *r = calloc((size_t)n, sizeof *r);

	if (r == NULL)
		return PAM_BUF_ERR;
	for (int i = 0; i < n; i++)
		if (prompts[i]->msg_style == PAM_PROMPT_ECHO_OFF)
			r[i].resp = strdup(password);
	*out = r;
	return PAM_SUCCESS;
}

/* The wait after a wrong password is the pool's, and holds no process. */
static void no_delay(int status, unsigned usec, void *data)
{
	(void)status;
	(void)usec;
	(void)data;
}

static int pam_open(
	struct ask *q, const char *user, const struct pam_conv *conv, pam_handle_t **out)
{
	const char *slash = strrchr(q->pam, '/');

	return slash == NULL
		       ? pam_start(q->pam, user, conv, out)
		       : pam_start_confdir(slash + 1, user, conv,
				 arena_strndup(q->arena, q->pam, (size_t)(slash - q->pam)), out);
}

static int pam_check(struct ask *q, const char *user, const char *password)
{
	const struct pam_conv conv = { answer_prompts, (void *)password };
	union {
		void (*fn)(int status, unsigned usec, void *data);
		const void *item;
	} delay = { no_delay };
	pam_handle_t *pam = NULL;
	int r = pam_open(q, user, &conv, &pam);

	if (r == PAM_SUCCESS)
		pam_set_item(pam, PAM_FAIL_DELAY, delay.item);
	if (r == PAM_SUCCESS)
		r = pam_authenticate(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	if (r == PAM_SUCCESS)
		r = pam_acct_mgmt(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	if (pam != NULL)
		pam_end(pam, r);
	switch (r) {
	case PAM_SUCCESS: return 0;
	case PAM_AUTH_ERR:
	case PAM_USER_UNKNOWN:
	case PAM_PERM_DENIED:
	case PAM_MAXTRIES:
	case PAM_ACCT_EXPIRED:
	case PAM_CRED_EXPIRED:
	case PAM_NEW_AUTHTOK_REQD:
	case PAM_CRED_INSUFFICIENT: return refuse(q, pam_strerror(NULL, r));
	default: return unavailable(q, pam_strerror(NULL, r));
	}
}

/* What sessions look at: sessions.md 2.1, suspension is anything but the word false. */
static void put_facts(struct ask *q, struct val *facts, const char *id, const char *name,
	const char *full, bool group, const struct val *flags)
{
	static const char *const suspensions[][2] = { { "subject-account-disabled", "disabled" },
		{ "subject-account-expired", "expired" }, { "subject-account-locked", "locked" },
		{ "subject-password-expired", "password_expired" } };

	val_map_push(q->arena, facts, "subject-sid", val_string(id));
	val_map_push(q->arena, facts, "subject-name", val_string(name));
	val_map_push(q->arena, facts, "subject-gecos", val_string(full));
	val_map_push(q->arena, facts, "subject-displayname", val_string(*full ? full : name));
	val_map_push(q->arena, facts, "subject-is-group", val_string(group ? "true" : "false"));
	for (size_t i = 0; i < ARRAY_LEN(suspensions); i++) {
		const struct val *v = val_get(flags, suspensions[i][1]);
		bool off = v == NULL || (v->kind == VAL_BOOL && !v->b);

		val_map_push(
			q->arena, facts, suspensions[i][0], val_string(off ? "false" : "true"));
	}
}

static void put_account(struct ask *q, const char *id, const char *name, const char *full,
	bool group, struct val groups, const struct val *flags)
{
	struct val facts = val_map();

	put_facts(q, &facts, id, name, full, group, flags);
	q->result = val_map();
	val_map_push(q->arena, &q->result, "id", val_string(id));
	val_map_push(q->arena, &q->result, "name", val_string(name));
	val_map_push(q->arena, &q->result, "is_group", val_bool(group));
	val_map_push(q->arena, &q->result, "groups", groups);
	val_map_push(q->arena, &q->result, "facts", facts);
}

static int local_check(struct ask *q)
{
	const char *user = val_get_s(q->params, "user");
	struct val none = val_map();

	if (pam_check(q, user, val_get_s(q->params, "password")) != 0)
		return ERR_API;
	put_account(q, "", user, "", false, val_set(), &none);
	return 0;
}

/* Directory "pam". */

static int pam_user(struct ask *q, const struct passwd *pw)
{
	gid_t ids[GROUPS_MAX];
	int n = GROUPS_MAX;
	struct val groups = val_set(), none = val_map();
	char *full = arena_strdup(q->arena, pw->pw_gecos);

	full[strcspn(full, ",")] = 0;
	if (getgrouplist(pw->pw_name, pw->pw_gid, ids, &n) < 0)
		n = GROUPS_MAX;
	for (int i = 0; i < n; i++)
		val_set_push(q->arena, &groups,
			val_string(arena_printf(q->arena, "g%u", (unsigned)ids[i])));
	put_account(q, arena_printf(q->arena, "u%u", (unsigned)pw->pw_uid),
		arena_strdup(q->arena, pw->pw_name), full, false, groups, &none);
	return 0;
}

static int pam_group(struct ask *q, const struct group *gr)
{
	struct val none = val_map();

	put_account(q, arena_printf(q->arena, "g%u", (unsigned)gr->gr_gid),
		arena_strdup(q->arena, gr->gr_name), "", true, val_set(), &none);
	return 0;
}

/* The number behind the letter; false: this is none of our identifiers. */
static bool number_of(const char *id, unsigned *out)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(id + 1, &end, 10);
	*out = (unsigned)n;
	return id[1] >= '0' && id[1] <= '9' && *end == 0 && errno == 0 && n < UINT32_MAX;
}

static int pam_find(struct ask *q, const char *name, const char *id)
{
	struct passwd pw, *user = NULL;
	struct group gr, *group = NULL;
	char *text = arena_alloc(q->arena, NAME_BYTES_MAX);
	unsigned n = 0;

	if (id != NULL && *id == 'u' && number_of(id, &n))
		getpwuid_r(n, &pw, text, NAME_BYTES_MAX, &user);
	else if (id != NULL && *id == 'g' && number_of(id, &n))
		getgrgid_r(n, &gr, text, NAME_BYTES_MAX, &group);
	else if (id == NULL && getpwnam_r(name, &pw, text, NAME_BYTES_MAX, &user) == 0 &&
		 user == NULL)
		getgrnam_r(name, &gr, text, NAME_BYTES_MAX, &group);
	return user != NULL    ? pam_user(q, user)
	       : group != NULL ? pam_group(q, group)
			       : unknown(q, id != NULL ? id : name);
}

/* Directory "file". */

static int file_open(struct ask *q, struct val *out)
{
	struct buf text = { 0 };
	const char *why, *all;

	if (file_read(q->file, DIRECTORY_MAX, &text) != 0) {
		buf_fini(&text);
		return unavailable(q, arena_printf(q->arena, "%s: %s", q->file, strerror(errno)));
	}
	all = arena_strndup(q->arena, (const char *)text.data, text.len);
	buf_fini(&text);
	if (rpc_json_parse(q->arena, all, strlen(all), out, &why) != 0 || out->kind != VAL_MAP)
		return unavailable(q, arena_printf(q->arena, "%s is no directory", q->file));
	return 0;
}

static const struct val *file_entry(
	const struct val *directory, const char *list, const char *key, const char *value)
{
	const struct val *all = val_get(directory, list);

	for (uint32_t i = 0; all != NULL && all->kind == VAL_SET && i < all->n; i++) {
		const char *has = val_get_s(&all->items[i], key);

		if (has != NULL && strcmp(has, value) == 0 &&
			val_get_s(&all->items[i], "id") != NULL &&
			val_get_s(&all->items[i], "name") != NULL)
			return &all->items[i];
	}
	return NULL;
}

/* The groups of an entry and theirs: each once, so a ring ends. */
static void file_groups(
	struct ask *q, const struct val *directory, const struct val *entry, struct val *out)
{
	const struct val *names = val_get(entry, "groups");

	for (uint32_t i = 0; names != NULL && names->kind == VAL_SET && i < names->n; i++) {
		const struct val *group =
			names->items[i].kind == VAL_STRING
				? file_entry(directory, "groups", "name", names->items[i].s)
				: NULL;
		const char *id = group != NULL ? val_get_s(group, "id") : NULL;

		if (id == NULL || val_set_has(out, id) || out->n >= GROUPS_MAX)
			continue;
		val_set_push(q->arena, out, val_string(id));
		file_groups(q, directory, group, out);
	}
}

static int file_account(
	struct ask *q, const struct val *directory, const struct val *entry, bool group)
{
	const char *full = val_get_s(entry, "full_name");
	struct val groups = val_set();

	file_groups(q, directory, entry, &groups);
	put_account(q, val_get_s(entry, "id"), val_get_s(entry, "name"), full != NULL ? full : "",
		group, groups, entry);
	return 0;
}

static int file_find(struct ask *q, const char *name, const char *id)
{
	const char *key = id != NULL ? "id" : "name", *value = id != NULL ? id : name;
	const struct val *entry;
	struct val directory;
	bool group = false;

	if (file_open(q, &directory) != 0)
		return ERR_API;
	entry = file_entry(&directory, "users", key, value);
	if (entry == NULL) {
		entry = file_entry(&directory, "groups", key, value);
		group = true;
	}
	return entry != NULL ? file_account(q, &directory, entry, group) : unknown(q, value);
}

static int file_check(struct ask *q)
{
	const char *user = val_get_s(q->params, "user"), *hash = NULL, *made;
	const struct val *entry;
	struct crypt_data data = { 0 };
	struct val directory;

	if (file_open(q, &directory) != 0)
		return ERR_API;
	entry = file_entry(&directory, "users", "name", user);
	if (entry != NULL)
		hash = val_get_s(entry, "password");
	/* as long for a user that is not there */
	made = crypt_r(val_get_s(q->params, "password"),
		hash != NULL && *hash ? hash : "$6$nobody$", &data);
	if (hash == NULL || *hash == 0 || made == NULL || *made == '*' ||
		!tls_secret_equal(made, hash))
		return refuse(q, entry == NULL ? "unknown user" : "wrong password");
	return file_account(q, &directory, entry, false);
}

/* The methods. */

static int check(struct ask *q)
{
	const char *directory = val_get_s(q->params, "directory");

	if (strcmp(directory, "local") == 0)
		return local_check(q);
	if (strcmp(directory, "file") == 0)
		return file_check(q);
	if (pam_check(q, val_get_s(q->params, "user"), val_get_s(q->params, "password")) != 0)
		return ERR_API;
	return pam_find(q, val_get_s(q->params, "user"), NULL);
}

static int find(struct ask *q)
{
	const char *name = val_get_s(q->params, "name"), *id = val_get_s(q->params, "id");
	bool file = strcmp(val_get_s(q->params, "directory"), "file") == 0;

	if (name == NULL && id == NULL)
		return unknown(q, "");
	return (file ? file_find : pam_find)(q, name, id);
}

static int answer(void *arg, struct arena *a, const char *method, const struct val *params,
	struct val *out, struct err *err)
{
	struct ask *q = arg;
	int rc;

	q->arena = a;
	q->params = params;
	q->err = err;
	rc = strcmp(method, "AUTH.check") == 0 ? check(q) : find(q);
	*out = q->result;
	return rc;
}

int auth_child_main(const char *pam, const char *directory)
{
	struct ask q = { .pam = pam, .file = directory };

	return child_main(answer, &q);
}
