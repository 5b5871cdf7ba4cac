/* The outside directory: which one the hosts use, and questions to it.
 *
 * A host joins nothing: its PAM and name service are set up by whoever runs it, and the fields
 * external_auth_* of its row say which of them logins go to (auth.c). So a pool's directory is
 * switched on and off on all hosts by one transaction, all or none; only the host that was asked
 * tries it. Sessions that a host let in by a directory end when it has none: in the same
 * transaction. sessions.md 3.6.
 */
#include "pool/pool_priv.h"

#include <string.h>

enum {
	ENDED_MAX = 5000, /* sessions in one transaction; the sweep takes the rest */
	SERVICE_MAX = 255,
};

/* Questions. */

struct asked {
	const char *directory, *by, *what;
	bool answered;
	struct val account; /* in the call's arena */
};

static void on_found(struct loop_call *posted)
{
	call_begin(container_of(posted, struct call, posted));
}

static void find_main(struct job *job, void *arg)
{
	struct call *call = arg;
	struct asked *asked = call->asked;
	struct err err = { 0 };
	struct val account;

	if (auth_find(job, call->pool, asked->directory, asked->by, asked->what, &account, &err) ==
		0)
		asked->account = val_dup(&call->arena, &account);
	else
		asked->account = val_string(err.code == AGENT_ERR_does_not_exist ? ""
					    : err.n > 0 ? arena_strdup(&call->arena, err.params[0])
							: "the directory gave no answer");
	err_fini(&err);
	asked->answered = true;
	loop_post(call->io->loop, &call->posted, on_found);
}

int directory_ask(struct call *call, const char *directory, const char *by, const char *what,
	const struct val **account_out, struct err *err)
{
	struct asked *asked = call->asked;

	if (asked != NULL && asked->answered) {
		*account_out = &asked->account;
		if (asked->account.kind == VAL_MAP)
			return 0;
		return *asked->account.s == 0
			       ? err_set(err, ERR_SUBJECT_CANNOT_BE_RESOLVED, NULL)
			       : err_set(err, ERR_AUTH_SERVICE_ERROR, asked->account.s, NULL);
	}
	asked = call->asked = arena_alloc(&call->arena, sizeof *asked);
	*asked = (struct asked){ .directory = directory, .by = by, .what = what };
	return lane_submit(call->pool->api, "", find_main, call, NULL) == 0
		       ? CALL_PENDING
		       : err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
}

/* The class auth. */

static int look_up(
	struct call *call, const char *by, const char *what, const char *answer, struct err *err)
{
	const char *directory = auth_directory_of(call->pool, &call->view);
	const struct val *account = NULL;
	int rc = directory != NULL ? directory_ask(call, directory, by, what, &account, err)
				   : err_set(err, ERR_AUTH_IS_DISABLED, NULL);

	if (rc == 0)
		call->result = *val_get(account, answer);
	return rc;
}

int auth_get_subject_identifier(
	struct call *call, const struct auth_get_subject_identifier_args *args, struct err *err)
{
	return look_up(call, "name", args->subject_name, "id", err);
}

int auth_get_subject_information_from_identifier(struct call *call,
	const struct auth_get_subject_information_from_identifier_args *args, struct err *err)
{
	return look_up(call, "id", args->subject_identifier, "facts", err);
}

int auth_get_group_membership(
	struct call *call, const struct auth_get_group_membership_args *args, struct err *err)
{
	return look_up(call, "id", args->subject_identifier, "groups", err);
}

/* Switching it on. */

static bool has_directory(const struct db_row *host)
{
	return *db_row_s(host, HOST_external_auth_type) != 0;
}

static const struct db_row *host_of(struct call *call, const char *ref, struct err *err)
{
	const struct db_row *row = db_view_get(&call->view, MODEL_CLASS_host, ref);

	if (row == NULL)
		err_set(err, ERR_HANDLE_INVALID, "host", ref, NULL);
	return row;
}

/* Can this host ask it? Any account will do, also one that is not there. */
static int probe(struct call *call, const char *type, const char *service, struct err *err)
{
	const char *directory = auth_directory(type);
	const struct val *account = NULL;
	int rc;

	if (directory == NULL)
		return err_set(err, ERR_AUTH_UNKNOWN_TYPE, type, NULL);
	if (strlen(service) > SERVICE_MAX)
		return err_set(err, ERR_VALUE_NOT_SUPPORTED, "service_name", "",
			"longer than 255 bytes", NULL);
	rc = directory_ask(call, directory, "name", "root", &account, err);
	if (rc == ERR_API && err->code == ERR_SUBJECT_CANNOT_BE_RESOLVED) {
		err_fini(err);
		rc = 0;
	}
	return rc;
}

/* Settings without what is secret in them: it was for joining. */
static struct val settings(struct arena *a, const struct val *config)
{
	struct val v = val_map();

	for (uint32_t i = 0; i < config->n; i++)
		if (strcmp(config->pairs[i].key, "pass") != 0 &&
			strcmp(config->pairs[i].key, "password") != 0)
			val_map_push(a, &v, config->pairs[i].key, config->pairs[i].value);
	return v;
}

static void set_directory(struct db_txn *txn, const struct db_row *host, const char *type,
	const char *service, struct val config)
{
	const char *ref = db_row_ref(host);

	/* another change of it, or a login, in between: judged again */
	db_txn_need_field(txn, MODEL_CLASS_host, ref, HOST_external_auth_type,
		val_string(db_row_s(host, HOST_external_auth_type)));
	db_txn_set(txn, MODEL_CLASS_host, ref, HOST_external_auth_type, val_string(type));
	db_txn_set(
		txn, MODEL_CLASS_host, ref, HOST_external_auth_service_name, val_string(service));
	db_txn_set(txn, MODEL_CLASS_host, ref, HOST_external_auth_configuration, config);
}

int host_enable_external_auth(
	struct call *call, const struct host_enable_external_auth_args *args, struct err *err)
{
	const struct db_row *host = host_of(call, args->host, err);
	struct err why = { 0 };
	struct db_txn txn;
	int rc;

	if (host == NULL)
		return ERR_API;
	if (has_directory(host))
		return err_set(err, ERR_AUTH_ALREADY_ENABLED,
			db_row_s(host, HOST_external_auth_type),
			db_row_s(host, HOST_external_auth_service_name), NULL);
	rc = probe(call, args->auth_type, args->service_name, &why);
	if (rc == ERR_API && why.code == ERR_AUTH_SERVICE_ERROR)
		err_set(err, ERR_AUTH_ENABLE_FAILED_UNAVAILABLE, why.params[0], NULL);
	else if (rc == ERR_API)
		err_move(err, &why);
	err_fini(&why);
	if (rc != 0)
		return rc;
	db_txn_init(&txn, DB_FOR_FIELD);
	set_directory(&txn, host, args->auth_type, args->service_name,
		settings(&call->arena, args->config));
	return call_write(call, &txn, NULL);
}

static int pool_known(struct call *call, const char *ref, struct err *err)
{
	return db_view_get(&call->view, MODEL_CLASS_pool, ref) != NULL
		       ? 0
		       : err_set(err, ERR_HANDLE_INVALID, "pool", ref, NULL);
}

int pool_enable_external_auth(
	struct call *call, const struct pool_enable_external_auth_args *args, struct err *err)
{
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_host);
	const struct db_row *host;
	struct err why = { 0 };
	struct db_txn txn;
	int rc;

	if (pool_known(call, args->pool, err) != 0)
		return ERR_API;
	while ((host = db_next(&c)) != NULL)
		if (has_directory(host))
			return err_set(err, ERR_POOL_AUTH_ALREADY_ENABLED, db_row_ref(host), NULL);
	rc = probe(call, args->auth_type, args->service_name, &why);
	if (rc == ERR_API && why.code == ERR_AUTH_SERVICE_ERROR)
		err_set(err, ERR_POOL_AUTH_ENABLE_FAILED_UNAVAILABLE,
			db_row_ref(pool_self(call->pool, &call->view)), why.params[0], NULL);
	else if (rc == ERR_API)
		err_move(err, &why);
	err_fini(&why);
	if (rc != 0)
		return rc;
	db_txn_init(&txn, DB_FOR_FIELD);
	c = db_rows(&call->view, MODEL_CLASS_host);
	while ((host = db_next(&c)) != NULL)
		set_directory(&txn, host, args->auth_type, args->service_name,
			settings(&call->arena, args->config));
	return call_write(call, &txn, NULL);
}

/* Switching it off. */

bool session_is_external(const struct db_row *session)
{
	return !db_row_b(session, SESSION_is_local_superuser) &&
	       *db_row_s(session, SESSION_auth_user_sid) != 0;
}

static void end_sessions(const struct db_view *view, struct db_txn *txn, const char *host)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_session);
	const struct db_row *row;
	unsigned n = 0;

	while ((row = db_next(&c)) != NULL && n < ENDED_MAX)
		if (session_is_external(row) &&
			strcmp(db_row_s(row, SESSION_this_host), host) == 0) {
			db_txn_delete(txn, MODEL_CLASS_session, db_row_ref(row));
			n++;
		}
}

/* host NULL: all of them. */
static int switch_off(struct call *call, const struct db_row *only)
{
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_host);
	const struct db_row *host;
	struct db_txn txn;

	db_txn_init(&txn, DB_FOR_FIELD);
	while ((host = db_next(&c)) != NULL)
		if ((only == NULL || host == only) && has_directory(host)) {
			set_directory(&txn, host, "", "", val_map());
			end_sessions(&call->view, &txn, db_row_ref(host));
		}
	if (txn.n_ops > 0)
		return call_write(call, &txn, NULL);
	db_txn_fini(&txn);
	return 0;
}

int host_disable_external_auth(
	struct call *call, const struct host_disable_external_auth_args *args, struct err *err)
{
	const struct db_row *host = host_of(call, args->host, err);

	return host == NULL ? ERR_API : switch_off(call, host);
}

int pool_disable_external_auth(
	struct call *call, const struct pool_disable_external_auth_args *args, struct err *err)
{
	return pool_known(call, args->pool, err) != 0 ? ERR_API : switch_off(call, NULL);
}

/* An alert for each host that differs from the coordinator's. */
int pool_detect_nonhomogeneous_external_auth(struct call *call,
	const struct pool_detect_nonhomogeneous_external_auth_args *args, struct err *err)
{
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_host);
	const struct db_row *pool = db_view_get(&call->view, MODEL_CLASS_pool, args->pool), *host,
			    *first;
	char ref[DB_REF_MAX + 1];
	struct db_txn txn;

	if (pool_known(call, args->pool, err) != 0)
		return ERR_API;
	first = db_view_get(&call->view, MODEL_CLASS_host, db_row_s(pool, POOL_master));
	db_txn_init(&txn, DB_FOR_FIELD);
	while (first != NULL && (host = db_next(&c)) != NULL)
		if (strcmp(db_row_s(host, HOST_external_auth_type),
			    db_row_s(first, HOST_external_auth_type)) != 0 ||
			strcmp(db_row_s(host, HOST_external_auth_service_name),
				db_row_s(first, HOST_external_auth_service_name)) != 0)
			message_put(call->pool, &call->view, &txn,
				&(struct message){ "EXTAUTH_IN_POOL_IS_NON_HOMOGENEOUS", 2, "Host",
					db_row_s(host, HOST_uuid),
					arena_printf(&call->arena,
						"host_external_auth_type=%s, "
						"host_external_auth_service_name=%s, "
						"master_external_auth_type=%s, "
						"master_external_auth_service_name=%s",
						db_row_s(host, HOST_external_auth_type),
						db_row_s(host, HOST_external_auth_service_name),
						db_row_s(first, HOST_external_auth_type),
						db_row_s(first, HOST_external_auth_service_name)) },
				ref);
	if (txn.n_ops > 0)
		return call_write(call, &txn, NULL);
	db_txn_fini(&txn);
	return 0;
}
