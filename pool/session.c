/* Sessions: replicated rows whose references carry a keyed checksum, so that junk is refused
 * without a look at the log. sessions.md section 6. */
#include "pool/pool_priv.h"

#include <stdio.h>
#include <string.h>

enum { CHECK_FROM = 24 /* place in the uuid where the 12 digits of the checksum begin */ };

static bool key_of(const struct db_view *view, const char **out)
{
	const struct db_row *row = db_view_get(view, MODEL_CLASS__config, "session_key");

	if (row != NULL)
		*out = db_row_s(row, _CONFIG_value);
	return row != NULL;
}

static void checksum(const char *key, const char *uuid, char out[13])
{
	char head[CHECK_FROM + 1];
	uint8_t mac[32];

	memcpy(head, uuid, CHECK_FROM);
	head[CHECK_FROM] = 0;
	tls_hmac(key, (unsigned)strlen(key), head, mac);
	snprintf(out, 13, "%02x%02x%02x%02x%02x%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
		mac[5]);
}

static int hex_digit(char c)
{
	return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

/* Could this reference be one of ours at all? */
static bool plausible(const struct db_view *view, const char *ref)
{
	const char *key, *uuid = ref + strlen("OpaqueRef:");
	char sum[13];

	if (strncmp(ref, "OpaqueRef:", 10) != 0 || !uuid_ok(uuid))
		return false;
	if (!key_of(view, &key))
		return true; /* the pool's rows have not come here yet */
	checksum(key, uuid, sum);
	return tls_secret_equal(uuid + CHECK_FROM, sum);
}

bool session_proof(struct env *env, const struct db_view *view, char out[DB_REF_MAX + 1])
{
	char uuid[UUID_LEN + 1];
	const char *key;

	if (!key_of(view, &key))
		return false;
	env_uuid(env, uuid);
	checksum(key, uuid, uuid + CHECK_FROM);
	snprintf(out, DB_REF_MAX + 1, "OpaqueRef:%s", uuid);
	return true;
}

bool session_proof_ok(const struct db_view *view, const char *proof)
{
	const char *key;

	return key_of(view, &key) && plausible(view, proof);
}

bool session_key(const struct db_view *view, const char *ref, uint8_t out[DB_KEY_LEN])
{
	const char *c = ref + strlen("OpaqueRef:");

	if (db_view_get(view, MODEL_CLASS_session, ref) == NULL && !plausible(view, ref))
		return false;
	if (strncmp(ref, "OpaqueRef:", 10) != 0 || !uuid_ok(c))
		return false;
	for (int i = 0; i < DB_KEY_LEN; i++) {
		c += *c == '-';
		out[i] = (uint8_t)(hex_digit(c[0]) << 4 | hex_digit(c[1]));
		c += 2;
	}
	return true;
}

int session_check(struct call *call, const char *ref, struct err *err)
{
	const struct db_row *row = db_view_get(&call->view, MODEL_CLASS_session, ref);

	if (row == NULL && session_local_check(call, ref))
		return 0;
	if (row == NULL) {
		/* held: its floor is applied, so it would be here */
		if (call->inside || !plausible(&call->view, ref))
			call->barriered = true; /* nothing to wait for */
		return err_set(err, ERR_SESSION_INVALID, ref, NULL);
	}
	call->caller = (struct caller){ .user = arena_strdup(&call->arena,
						db_row_s(row, SESSION_auth_user_name)),
		.session = arena_strdup(&call->arena, ref),
		.originator = arena_strdup(&call->arena, db_row_s(row, SESSION_originator)),
		.sid = arena_strdup(&call->arena, db_row_s(row, SESSION_auth_user_sid)),
		.superuser = db_row_b(row, SESSION_is_local_superuser) };
	if (!call->caller.superuser)
		call->caller.roles = roles_of_session(&call->view, row, &call->arena);
	if (call->has_key)
		session_used(call->pool, call->key);
	return 0;
}

const char *session_given(const struct call *call)
{
	return call->caller.local != NULL ? call->caller.local : call->caller.session;
}

bool session_lives(struct call *call, const struct db_view *view)
{
	return call->caller.local != NULL
		       ? session_local_lives(call->pool, call->caller.local)
		       : db_view_get(view, MODEL_CLASS_session, call->caller.session) != NULL;
}

/* login: who is it (auth.c) -> row -> answer */

/* What let him in must still be there when the row is written. */
static int need_directory(const struct db_view *view, const struct db_row *self,
	const struct login *login, struct db_txn *txn, struct err *err)
{
	const char *type = db_row_s(self, HOST_external_auth_type);

	if (*type == 0)
		return err_set(err, ERR_SESSION_AUTHORIZATION_FAILED, login->name,
			"the directory was switched off", NULL);
	if (db_view_schema(view) <
		model_classes[MODEL_CLASS_session].fields[SESSION_subjects].schema)
		return err_set(err, ERR_NOT_SUPPORTED_DURING_UPGRADE, NULL);
	db_txn_need_field(
		txn, MODEL_CLASS_host, db_row_ref(self), HOST_external_auth_type, val_string(type));
	for (uint32_t i = 0; i < login->subjects.n; i++)
		db_txn_need_row(txn, MODEL_CLASS_subject, login->subjects.items[i].s);
	return 0;
}

const char *client_address(struct call *call)
{
	const char *peer = call->request != NULL ? call->request->peer : "";
	const char *colon = strrchr(peer, ':');

	return colon != NULL ? arena_strndup(&call->arena, peer, (size_t)(colon - peer)) : peer;
}

/* A row for who has logged in, into a new transaction. ERR_API: the transaction is empty. */
static int session_row(struct call *call, const char *originator, struct db_txn *txn,
	char ref[DB_REF_MAX + 1], struct err *err)
{
	const struct login *login = &call->login;
	struct pool *pool = call->pool;
	struct val fields[SESSION_FIELD_COUNT];
	char uuid[UUID_LEN + 1];
	const struct db_row *self;
	struct db_view view;
	const char *key = "";
	int rc = 0;

	CHECK(model_classes[MODEL_CLASS_session].n_fields == ARRAY_LEN(fields));
	memset(fields, 0, sizeof fields);
	db_txn_init(txn, DB_FOR_SESSION);
	db_view_pin(pool->db, &view);
	self = pool_self(pool, &view);
	if (self == NULL || !key_of(&view, &key)) /* this member does not know the pool yet */
		rc = err_set(err, ERR_HOST_IN_EMERGENCY_MODE, NULL);
	else if (!login->superuser)
		rc = need_directory(&view, self, login, txn, err);
	if (rc != 0) {
		db_view_unpin(&view);
		db_txn_fini(txn);
		return rc;
	}
	env_uuid(pool->env, uuid);
	checksum(key, uuid, uuid + CHECK_FROM);
	snprintf(ref, DB_REF_MAX + 1, "OpaqueRef:%s", uuid);
	fields[SESSION_uuid] = val_string(uuid);
	fields[SESSION_this_host] = val_string(db_row_ref(self));
	fields[SESSION_last_active] = fields[SESSION_validation_time] =
		val_datetime(env_wall_s(pool->env));
	fields[SESSION_is_local_superuser] = val_bool(login->superuser);
	fields[SESSION_auth_user_name] = val_string(login->name);
	fields[SESSION_auth_user_sid] = val_string(login->sid);
	if (login->subjects.n > 0) {
		fields[SESSION_subject] = login->subjects.items[0];
		fields[SESSION_subjects] = login->subjects;
	}
	fields[SESSION_originator] = val_string(originator);
	if (db_view_schema(&view) >=
		model_classes[MODEL_CLASS_session].fields[SESSION_client_address].schema)
		fields[SESSION_client_address] = val_string(client_address(call));
	db_txn_create(txn, MODEL_CLASS_session, ref, fields);
	db_view_unpin(&view);
	return 0;
}

static void write_session(struct call *call)
{
	const struct session_login_with_password_args *args = call->args_struct;
	char ref[DB_REF_MAX + 1];
	struct db_txn txn;

	if (session_row(call, args->originator, &txn, ref, &call->err) != 0) {
		call_finish(call);
		return;
	}
	call->caller.user = call->login.name;
	call->result = val_string(arena_strdup(&call->arena, ref));
	if (call_write(call, &txn, NULL) != CALL_PENDING)
		call_finish(call);
}

/* For a service whose client comes back over another connection. */

static int commit(struct job *job, struct call *call, struct db_txn *txn, struct err *err)
{
	struct db_result res = { 0 };
	int rc;

	db_txn_origin(
		txn, (struct db_origin){ call->caller.user, "", "session.login_with_password" });
	rc = db_commit(job, call->pool->db, txn, &res);
	if (rc == 0 && res.status == DB_UNKNOWN)
		err_set(err, ERR_HOST_IN_EMERGENCY_MODE, NULL);
	else if (rc == 0 && res.status != DB_DONE)
		err_set(err, ERR_INTERNAL_ERROR, "the session was not made", NULL);
	err_fini(&res.err);
	return rc != 0 ? rc : err->code != NULL ? ERR_API : 0;
}

int session_lend(struct job *job, struct call *call, char ref[DB_REF_MAX + 1], struct err *err)
{
	struct db_txn txn;

	if (call->session_ref != NULL) {
		snprintf(ref, DB_REF_MAX + 1, "%s", call->session_ref);
		return 0;
	}
	if (session_row(call, call->caller.originator, &txn, ref, err) != 0)
		return ERR_API;
	return commit(job, call, &txn, err);
}

void session_lent_end(struct job *job, struct call *call, const char *ref)
{
	struct err ignored = { 0 };
	struct db_txn txn;

	if (call->session_ref != NULL)
		return;
	db_txn_init(&txn, DB_FOR_SESSION);
	db_txn_delete(&txn, MODEL_CLASS_session, ref);
	commit(job, call, &txn, &ignored);
	err_fini(&ignored);
}

int session_login_with_password(
	struct call *call, const struct session_login_with_password_args *args, struct err *err)
{
	return auth_check(call, args->uname, args->pwd, false, write_session, err);
}

int session_logout(struct call *call, const struct session_logout_args *args, struct err *err)
{
	struct db_txn txn;

	(void)args;
	(void)err;
	if (call->caller.local != NULL) {
		session_local_end(call->pool, call->caller.local);
		return 0;
	}
	db_txn_init(&txn, DB_FOR_SESSION);
	db_txn_delete(&txn, MODEL_CLASS_session, call->caller.session);
	return call_write(call, &txn, NULL);
}

/* Sessions of directory users; a local superuser has no identifier. */
static bool is_of(const struct db_row *session, const char *sid)
{
	return !db_row_b(session, SESSION_is_local_superuser) &&
	       strcmp(db_row_s(session, SESSION_auth_user_sid), sid) == 0;
}

int session_get_all_subject_identifiers(struct call *call,
	const struct session_get_all_subject_identifiers_args *args, struct err *err)
{
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_session);
	const struct db_row *row;

	(void)args;
	(void)err;
	call->result = val_set();
	while ((row = db_next(&c)) != NULL) {
		const char *sid = db_row_s(row, SESSION_auth_user_sid);
		bool known = *sid == 0 || !is_of(row, sid);

		for (uint32_t i = 0; i < call->result.n && !known; i++)
			known = strcmp(call->result.items[i].s, sid) == 0;
		if (!known)
			val_set_push(&call->arena, &call->result, val_string(sid));
	}
	return 0;
}

int session_logout_subject_identifier(struct call *call,
	const struct session_logout_subject_identifier_args *args, struct err *err)
{
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_session);
	const struct db_row *row;
	struct db_txn txn;

	(void)err;
	db_txn_init(&txn, DB_FOR_SESSION);
	while ((row = db_next(&c)) != NULL)
		if (is_of(row, args->subject_identifier) &&
			strcmp(db_row_ref(row), call->caller.session) != 0)
			db_txn_delete(&txn, MODEL_CLASS_session, db_row_ref(row));
	if (txn.n_ops > 0)
		return call_write(call, &txn, NULL);
	db_txn_fini(&txn);
	return 0;
}
