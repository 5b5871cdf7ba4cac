/* Local sessions: for who has to reach one host, also when there is no majority. They are memory of
 * this member, superuser, known nowhere else, and have no floor: what they read is what is here.
 *
 * Local accounts only, never the directory. No row and no task bears their reference.
 * sessions.md 6.
 */
#include "pool/pool_priv.h"

#include <stdlib.h>
#include <string.h>

enum {
	LOCAL_MAX = 64, /* the one that was not used for longest gives way */
	LOCAL_IDLE_S = 86400,
};

struct local_session {
	char ref[DB_REF_MAX + 1]; /* "": free */
	char *user;
	uint64_t used_ms;
};

struct local_sessions {
	pthread_mutex_t mutex;
	struct local_session at[LOCAL_MAX]; /* under mutex */
};

void session_local_init(struct pool *pool)
{
	pool->locals = mem_new(sizeof *pool->locals);
	pthread_mutex_init(&pool->locals->mutex, NULL);
}

static void end(struct local_session *s)
{
	free(s->user);
	*s = (struct local_session){ .ref = "" };
}

/* Under the mutex. NULL: none of ours, or not used for too long. */
static struct local_session *find(struct pool *pool, const char *ref)
{
	for (unsigned i = 0; i < LOCAL_MAX; i++) {
		struct local_session *s = &pool->locals->at[i];

		if (s->ref[0] == 0 || !tls_secret_equal(s->ref, ref))
			continue;
		if (env_now_ms(pool->env) - s->used_ms < LOCAL_IDLE_S * UINT64_C(1000))
			return s;
		end(s);
	}
	return NULL;
}

bool session_local_lives(struct pool *pool, const char *ref)
{
	bool lives;

	pthread_mutex_lock(&pool->locals->mutex);
	lives = find(pool, ref) != NULL;
	pthread_mutex_unlock(&pool->locals->mutex);
	return lives;
}

bool session_local_check(struct call *call, const char *ref)
{
	struct pool *pool = call->pool;
	struct local_session *s;
	struct db_stat stat;

	pthread_mutex_lock(&pool->locals->mutex);
	s = find(pool, ref);
	if (s != NULL) {
		s->used_ms = env_now_ms(pool->env);
		call->caller = (struct caller){ .user = arena_strdup(&call->arena, s->user),
			.session = NULL_REF,
			.local = arena_strdup(&call->arena, ref),
			.originator = "",
			.sid = "",
			.superuser = true };
	}
	pthread_mutex_unlock(&pool->locals->mutex);
	if (s == NULL)
		return false;
	db_stat(pool->db, &stat);
	call->stale |= stat.leader == 0;
	return true;
}

void session_local_end(struct pool *pool, const char *ref)
{
	struct local_session *s;

	pthread_mutex_lock(&pool->locals->mutex);
	s = find(pool, ref);
	if (s != NULL)
		end(s);
	pthread_mutex_unlock(&pool->locals->mutex);
	pool_wake(pool); /* who waits in it is told */
}

static void begin(struct call *call)
{
	struct local_sessions *l = call->pool->locals;
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct local_session *s = &l->at[0];

	pool_ref(call->pool, uuid, ref);
	pthread_mutex_lock(&l->mutex);
	for (unsigned i = 1; i < LOCAL_MAX && s->ref[0] != 0; i++)
		if (l->at[i].ref[0] == 0 || l->at[i].used_ms < s->used_ms)
			s = &l->at[i];
	end(s);
	strcpy(s->ref, ref);
	s->user = strdup(call->login.name);
	s->used_ms = env_now_ms(call->pool->env);
	pthread_mutex_unlock(&l->mutex);
	log_info(call->pool->env, "event=local_login user=%s", call->login.name);
	call->result = val_string(arena_strdup(&call->arena, ref));
	call_finish(call);
}

int session_slave_local_login_with_password(struct call *call,
	const struct session_slave_local_login_with_password_args *args, struct err *err)
{
	return auth_check(call, args->uname, args->pwd, true, begin, err);
}

/* Of a session of the pool it is none of our business. */
int session_local_logout(
	struct call *call, const struct session_local_logout_args *args, struct err *err)
{
	(void)args;
	(void)err;
	if (call->caller.local != NULL)
		session_local_end(call->pool, call->caller.local);
	return 0;
}
