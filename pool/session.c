/* Sessions: replicated rows whose references carry a keyed checksum, so that junk is refused
 * without a look at the log. sessions.md section 6. */
#include "pool/pool_priv.h"

#include <crypt.h>
#include <stdio.h>
#include <stdlib.h>
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
	return strcmp(uuid + CHECK_FROM, sum) == 0;
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
		.superuser = db_row_b(row, SESSION_is_local_superuser) };
	if (call->has_key)
		session_used(call->pool, call->key);
	return 0;
}

/* user:hash of crypt(3); other fields behind a further colon are passed over. */
bool session_password_good(const char *path, const char *user, const char *password)
{
	struct crypt_data *data = NULL;
	char line[1024];
	FILE *f = fopen(path, "re");
	bool good = false;

	if (f == NULL)
		return false;
	while (!good && fgets(line, sizeof line, f) != NULL) {
		char *hash = strchr(line, ':'), *end, *made;

		if (hash == NULL)
			continue;
		*hash++ = 0;
		end = hash + strcspn(hash, ":\n");
		*end = 0;
		if (strcmp(line, user) != 0 || *hash == 0)
			continue;
		data = mem_new(sizeof *data);
		made = crypt_r(password, hash, data);
		good = made != NULL && made[0] != '*' && strcmp(made, hash) == 0;
		explicit_bzero(data, sizeof *data);
		free(data);
	}
	fclose(f);
	return good;
}

/* login: worker checks the password -> loop -> (5 s on failure) -> row -> answer */

static void on_penalty(struct loop_timer *t)
{
	call_finish(container_of(t, struct call, timer));
}

static void write_session(struct call *call)
{
	const struct session_login_with_password_args *args = call->args_struct;
	struct val fields[SESSION_FIELD_COUNT];
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	const struct db_row *self;
	struct db_txn txn;
	struct db_view view;
	const char *key;

	CHECK(model_classes[MODEL_CLASS_session].n_fields == ARRAY_LEN(fields));
	memset(fields, 0, sizeof fields);
	db_view_pin(call->pool->db, &view);
	self = pool_self(call->pool, &view);
	if (self == NULL || !key_of(&view, &key)) {
		db_view_unpin(&view);
		err_set(&call->err, ERR_HOST_IN_EMERGENCY_MODE, NULL);
		call_finish(call);
		return;
	}
	env_uuid(call->pool->env, uuid);
	checksum(key, uuid, uuid + CHECK_FROM);
	snprintf(ref, sizeof ref, "OpaqueRef:%s", uuid);
	fields[SESSION_uuid] = val_string(uuid);
	fields[SESSION_this_host] = val_string(db_row_ref(self));
	fields[SESSION_last_active] = fields[SESSION_validation_time] =
		val_datetime(env_wall_s(call->pool->env));
	fields[SESSION_is_local_superuser] = val_bool(true);
	fields[SESSION_auth_user_name] = val_string(args->uname);
	fields[SESSION_originator] = val_string(args->originator);
	db_txn_init(&txn, DB_FOR_SESSION);
	db_txn_create(&txn, MODEL_CLASS_session, ref, fields);
	db_view_unpin(&view);
	call->caller.user = args->uname;
	call->result = val_string(arena_strdup(&call->arena, ref));
	if (call_write(call, &txn, NULL) != CALL_PENDING)
		call_finish(call);
}

static void on_checked(struct loop_call *posted)
{
	struct call *call = container_of(posted, struct call, posted);
	const struct session_login_with_password_args *args = call->args_struct;

	if (call->login_ok) {
		write_session(call);
		return;
	}
	log_warn(call->pool->env, "event=login_refused user=%s", args->uname);
	err_set(&call->err, ERR_SESSION_AUTHENTICATION_FAILED, args->uname,
		"Authentication failure", NULL);
	loop_timer_start(call->io->loop, &call->timer, POOL_LOGIN_PENALTY_MS, on_penalty);
}

static void check_main(struct job *job, void *arg)
{
	struct call *call = arg;
	const struct session_login_with_password_args *args = call->args_struct;

	(void)job;
	call->login_ok = session_password_good(call->pool->password_file, args->uname, args->pwd);
	loop_post(call->io->loop, &call->posted, on_checked);
}

int session_login_with_password(
	struct call *call, const struct session_login_with_password_args *args, struct err *err)
{
	(void)args;
	if (lane_submit(call->pool->api, "", check_main, call, NULL) != 0)
		return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
	return CALL_PENDING;
}

int session_logout(struct call *call, const struct session_logout_args *args, struct err *err)
{
	struct db_txn txn;

	(void)args;
	(void)err;
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
