/* Who is that? A name and a password become a caller: for logins and for services.
 *
 *   worker: local account -> directory -> its subjects        loop: done(call), or 5 s and the
 * error
 *
 * Local accounts are superusers: by a file of hashes, or by PAM through the agent (--local-users).
 * With a directory (host.external_auth_type) only root is local; a user of the directory comes in
 * by the subjects that name him or a group of his, with their roles. The password of root, once
 * changed by session.change_password, is a row, the same on every member, and goes before the file.
 * Passwords are in no log and no row. sessions.md 2.1.
 */
#include "pool/pool_priv.h"

#include <crypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HASH_MAX = 512 };

/* The types of the API that are written, and how the agent calls them. */
static const struct {
	const char *type, *directory;
} directories[] = { { "PAM", "pam" }, { "file", "file" } };

const char *auth_directory(const char *type)
{
	for (size_t i = 0; i < ARRAY_LEN(directories); i++)
		if (strcmp(directories[i].type, type) == 0)
			return directories[i].directory;
	return NULL;
}

const char *auth_directory_of(struct pool *pool, const struct db_view *view)
{
	const struct db_row *self = pool_self(pool, view);

	return self != NULL ? auth_directory(db_row_s(self, HOST_external_auth_type)) : NULL;
}

static const char *directory_now(struct pool *pool)
{
	const char *directory;
	struct db_view view;

	db_view_pin(pool->db, &view);
	directory = auth_directory_of(pool, &view);
	db_view_unpin(&view);
	return directory;
}

/* The agent. */

static int ask(struct job *job, struct pool *pool, enum agent_method_id method,
	const struct val *params, struct val *account, struct err *err)
{
	int rc = agent_call(job, pool->agent, method, params, account, err);

	/* a login does not wait for an agent that is away */
	return rc == 0 || rc == ERR_API ? rc
					: err_set(err, AGENT_ERR_auth_unavailable,
						  "the agent of this host does not answer", NULL);
}

int auth_find(struct job *job, struct pool *pool, const char *directory, const char *by,
	const char *what, struct val *account, struct err *err)
{
	struct val params = val_map();

	val_map_push(&job->arena, &params, "directory", val_string(directory));
	val_map_push(&job->arena, &params, by, val_string(what));
	return ask(job, pool, AGENT_AUTH_find, &params, account, err);
}

static int agent_check(struct job *job, struct call *call, const char *directory,
	struct val *account, struct err *err)
{
	struct val params = val_map();

	val_map_push(&job->arena, &params, "directory", val_string(directory));
	val_map_push(&job->arena, &params, "user", val_string(call->login.user));
	val_map_push(&job->arena, &params, "password", val_string(call->login.password));
	return ask(job, call->pool, AGENT_AUTH_check, &params, account, err);
}

/* Local accounts. */

static bool row_hash(struct pool *pool, char out[HASH_MAX])
{
	const struct db_row *row;
	struct db_view view;

	db_view_pin(pool->db, &view);
	row = db_view_get(&view, MODEL_CLASS__config, AUTH_ROOT_PASSWORD);
	if (row != NULL)
		snprintf(out, HASH_MAX, "%s", db_row_s(row, _CONFIG_value));
	db_view_unpin(&view);
	return row != NULL;
}

/* user:hash lines; other fields behind a further colon are passed over. */
static bool file_hash(const char *path, const char *user, char out[HASH_MAX])
{
	FILE *f = fopen(path, "re");
	char line[1024];
	bool found = false;

	while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
		char *hash = strchr(line, ':');

		if (hash == NULL)
			continue;
		*hash++ = 0;
		hash[strcspn(hash, ":\n")] = 0;
		found = strcmp(line, user) == 0 && *hash != 0;
		if (found)
			snprintf(out, HASH_MAX, "%s", hash);
	}
	if (f != NULL)
		fclose(f);
	return found;
}

static bool hash_matches(const char *hash, const char *password)
{
	struct crypt_data *data = mem_new(sizeof *data);
	char *made = crypt_r(password, hash, data);
	bool good = made != NULL && made[0] != '*' && tls_secret_equal(made, hash);

	explicit_bzero(data, sizeof *data);
	free(data);
	return good;
}

static int local_check(struct job *job, struct call *call, struct err *err)
{
	const struct login *login = &call->login;
	bool root = strcmp(login->user, "root") == 0;
	char hash[HASH_MAX];
	struct val account;
	bool known;

	if (call->pool->cfg.local_pam)
		return agent_check(job, call, "local", &account, err);
	known = (root && row_hash(call->pool, hash)) ||
		file_hash(call->pool->password_file, login->user, hash);
	/* as long for a user that is not there */
	if (hash_matches(known ? hash : "$6$nobody$", login->password) && known)
		return 0;
	return err_set(err, AGENT_ERR_auth_failed, "Authentication failure", NULL);
}

/* Users of a directory. */

bool auth_suspended(const struct val *account, const char **why_out)
{
	static const char *const facts[] = { "subject-account-disabled", "subject-account-expired",
		"subject-account-locked", "subject-password-expired" };

	for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
		const char *v = val_get_s(val_get(account, "facts"), facts[i]);

		*why_out = facts[i];
		if (v == NULL || strcmp(v, "false") != 0)
			return true;
	}
	return false;
}

unsigned auth_subjects(const struct db_view *view, const struct val *account, struct arena *a,
	struct val *subjects_out)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_subject);
	const char *id = val_get_s(account, "id");
	const struct val *groups = val_get(account, "groups");
	const struct db_row *row;
	unsigned roles = 0;

	*subjects_out = val_set();
	while ((row = db_next(&c)) != NULL) {
		const char *sid = db_row_s(row, SUBJECT_subject_identifier);
		bool user = id != NULL && strcmp(sid, id) == 0;

		if (!user && (groups == NULL || !val_set_has(groups, sid)))
			continue;
		roles |= roles_of_subject(row, a);
		val_set_push(a, subjects_out, val_string(arena_strdup(a, db_row_ref(row))));
		if (user) { /* first */
			struct val *items = subjects_out->items;
			struct val last = items[subjects_out->n - 1];

			items[subjects_out->n - 1] = items[0];
			items[0] = last;
		}
	}
	return roles;
}

static int authorize(struct call *call, const struct val *account)
{
	struct login *login = &call->login;
	struct db_view view;
	const char *why;

	if (auth_suspended(account, &why))
		return err_set(
			&call->err, ERR_SESSION_AUTHORIZATION_FAILED, login->user, why, NULL);
	db_view_pin(call->pool->db, &view);
	login->roles = auth_subjects(&view, account, &call->arena, &login->subjects);
	db_view_unpin(&view);
	if (login->subjects.n == 0)
		return err_set(&call->err, ERR_SESSION_AUTHORIZATION_FAILED, login->user,
			"the user is no subject of this pool and in no group that is", NULL);
	if (login->roles == 0)
		return err_set(&call->err, ERR_RBAC_PERMISSION_DENIED,
			"session.login_with_password", "the subject has no role", NULL);
	login->name = arena_strdup(&call->arena, val_get_s(account, "name"));
	login->sid = arena_strdup(&call->arena, val_get_s(account, "id"));
	return 0;
}

static int directory_check(struct job *job, struct call *call, const char *directory)
{
	struct val account;
	struct err err = { 0 };
	int rc = agent_check(job, call, directory, &account, &err);

	if (rc == 0)
		return authorize(call, &account);
	err_set(&call->err,
		err.code == AGENT_ERR_auth_failed ? ERR_SESSION_AUTHENTICATION_FAILED
						  : ERR_SESSION_AUTHORIZATION_FAILED,
		call->login.user, err.n > 0 ? err.params[0] : err.code->name, NULL);
	err_fini(&err);
	return rc;
}

/* The check. */

static void on_penalty(struct loop_timer *t)
{
	call_finish(container_of(t, struct call, timer));
}

/* Of a service there is none. */
static const char *originator_of(const struct call *call)
{
	const struct session_login_with_password_args *args = call->args_struct;

	return call->service == NULL && call->method != NULL &&
			       strcmp(call->method->name, "session.login_with_password") == 0
		       ? args->originator
		       : "";
}

static void on_checked(struct loop_call *posted)
{
	struct call *call = container_of(posted, struct call, posted);

	loop_assert(call->io->loop);
	if (call->err.code == NULL) {
		call->login.done(call);
		return;
	}
	if (!call->login.local_only)
		login_failed(
			call->pool, call->login.user, originator_of(call), client_address(call));
	log_warn(call->pool->env, "event=login_refused user=%s code=%s why=\"%s\"",
		call->login.user, call->err.code->name, call->err.n > 1 ? call->err.params[1] : "");
	loop_timer_start(call->io->loop, &call->timer, POOL_LOGIN_PENALTY_MS, on_penalty);
}

static void check_main(struct job *job, void *arg)
{
	struct call *call = arg;
	struct login *login = &call->login;
	const char *directory = login->local_only ? NULL : directory_now(call->pool);
	struct err err = { 0 };
	bool local = directory == NULL || strcmp(login->user, "root") == 0;

	login->name = login->user;
	login->sid = "";
	login->superuser = local && local_check(job, call, &err) == 0;
	if (!login->superuser && directory != NULL)
		directory_check(job, call, directory);
	else if (!login->superuser)
		err_set(&call->err, ERR_SESSION_AUTHENTICATION_FAILED, login->user,
			err.n > 0 ? err.params[0] : err.code->name, NULL);
	err_fini(&err);
	loop_post(call->io->loop, &call->posted, on_checked);
}

int auth_check(struct call *call, const char *user, const char *password, bool local_only,
	void (*done)(struct call *call), struct err *err)
{
	call->login = (struct login){
		.user = user, .password = password, .local_only = local_only, .done = done
	};
	return lane_submit(call->pool->api, "", check_main, call, NULL) == 0
		       ? CALL_PENDING
		       : err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
}

/* session.change_password: of root, on all members. */

static void on_hashed(struct loop_call *posted)
{
	struct call *call = container_of(posted, struct call, posted);
	struct val fields[_CONFIG_FIELD_COUNT] = { { .kind = VAL_VOID } };
	const char *hash = call->login.name;
	struct db_view view;
	struct db_txn txn;

	if (hash == NULL) {
		err_set(&call->err, ERR_INTERNAL_ERROR, "the password cannot be hashed", NULL);
		call_finish(call);
		return;
	}
	db_txn_init(&txn, DB_FOR_CONFIG);
	db_view_pin(call->pool->db, &view);
	fields[_CONFIG_value] = val_string(hash);
	if (db_view_get(&view, MODEL_CLASS__config, AUTH_ROOT_PASSWORD) == NULL) {
		db_txn_need_no_row(&txn, MODEL_CLASS__config, AUTH_ROOT_PASSWORD);
		db_txn_create(&txn, MODEL_CLASS__config, AUTH_ROOT_PASSWORD, fields);
	} else {
		db_txn_set(&txn, MODEL_CLASS__config, AUTH_ROOT_PASSWORD, _CONFIG_value,
			val_string(hash));
	}
	db_view_unpin(&view);
	if (call_write(call, &txn, NULL) != CALL_PENDING)
		call_finish(call);
}

static void hash_main(struct job *job, void *arg)
{
	struct call *call = arg;
	struct crypt_data *data = mem_new(sizeof *data);
	char salt[CRYPT_GENSALT_OUTPUT_SIZE], *made = NULL;

	(void)job;
	if (crypt_gensalt_rn("$6$", 0, NULL, 0, salt, sizeof salt) != NULL)
		made = crypt_r(call->login.password, salt, data);
	call->login.name = made != NULL && made[0] != '*' ? arena_strdup(&call->arena, made) : NULL;
	explicit_bzero(data, sizeof *data);
	free(data);
	loop_post(call->io->loop, &call->posted, on_hashed);
}

/* root may change it without knowing the old one, which still has to be one that there could be. */
int session_change_password(
	struct call *call, const struct session_change_password_args *args, struct err *err)
{
	if (strlen(args->old_pwd) >= CRYPT_MAX_PASSPHRASE_SIZE)
		return err_set(err, ERR_VALUE_NOT_SUPPORTED, "old_pwd", "***",
			"longer than 511 bytes", NULL);
	if (call->pool->cfg.local_pam) /* the agent's accounts: not written */
		return err_set(err, ERR_NOT_IMPLEMENTED, call->method->name, NULL);
	if (strlen(args->old_pwd) >= CRYPT_MAX_PASSPHRASE_SIZE)
		return err_set(err, ERR_VALUE_NOT_SUPPORTED, "old_pwd", "***",
			"longer than 511 bytes", NULL);
	if (*args->new_pwd == 0 || strlen(args->new_pwd) >= CRYPT_MAX_PASSPHRASE_SIZE)
		return err_set(err, ERR_VALUE_NOT_SUPPORTED, "new_pwd", "***",
			"empty, or longer than 511 bytes", NULL);
	call->login = (struct login){ .password = args->new_pwd };
	return lane_submit(call->pool->api, "", hash_main, call, NULL) == 0
		       ? CALL_PENDING
		       : err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
}
