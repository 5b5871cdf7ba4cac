/* Users of the directory are looked at again while they are logged in: whoever the directory no
 * longer knows, has suspended, or in whose name and groups there is no subject any more, is logged
 * out; the subjects of the others follow their groups.
 *
 *   sweep (coordinator): sessions not confirmed for 30 min, some minutes more or less by their
 * names
 *     -> job: each identifier once -> one transaction for each
 *
 * A directory that gives no answer changes nothing for UNANSWERED intervals; then its users are
 * logged out. sessions.md 2.3; roles need none of this (role.c reads them at each call).
 */
#include "pool/pool_priv.h"
#include "rpc/base/hash.h"

#include <stdlib.h>
#include <string.h>

enum {
	INTERVAL_S = 1800,
	INTERVAL_MAX_S = 86400,
	UNANSWERED = 16, /* intervals: 8 h */
	LOOKS = 30,	 /* in an interval */
	ASKED_MAX = 64,	 /* identifiers, in one job */
};

struct revalidation {
	struct pool *pool;
	int64_t interval_s;
	struct arena arena;
	struct val ids;
};

static bool due(const struct db_row *session, int64_t interval, int64_t now)
{
	uint64_t spread = (uint64_t)interval / 3 + 1;
	int64_t late = (int64_t)(hash_text(db_row_ref(session)) % spread);

	return session_is_external(session) &&
	       db_row_i(session, SESSION_validation_time) + interval + late <= now;
}

/* What became of one user, written. */

/* Is the directory that let the session in the one that was asked? */
static bool same_directory(
	const struct db_view *view, const struct db_row *session, const char *asked)
{
	const struct db_row *host =
		db_view_get(view, MODEL_CLASS_host, db_row_s(session, SESSION_this_host));
	const char *type = host != NULL ? auth_directory(db_row_s(host, HOST_external_auth_type))
					: asked; /* the host has gone */

	return asked != NULL && type != NULL && strcmp(type, asked) == 0;
}

static void confirm(
	struct db_txn *txn, const struct db_row *session, const struct val *subjects, int64_t now)
{
	const char *ref = db_row_ref(session);

	for (uint32_t i = 0; i < subjects->n; i++)
		db_txn_need_row(txn, MODEL_CLASS_subject, subjects->items[i].s);
	db_txn_need_row(txn, MODEL_CLASS_session, ref);
	db_txn_set(txn, MODEL_CLASS_session, ref, SESSION_validation_time, val_datetime(now));
	db_txn_set(txn, MODEL_CLASS_session, ref, SESSION_subject, subjects->items[0]);
	db_txn_set(txn, MODEL_CLASS_session, ref, SESSION_subjects, *subjects);
}

static void log_out(
	struct pool *pool, struct db_txn *txn, const struct db_row *session, const char *why)
{
	log_info(pool->env, "event=session_removed user=%s originator=\"%s\" why=%s",
		db_row_s(session, SESSION_auth_user_name), db_row_s(session, SESSION_originator),
		why);
	db_txn_delete(txn, MODEL_CLASS_session, db_row_ref(session));
}

/* What the directory says of one user. */
struct answer {
	struct job *job;
	const struct revalidation *r;
	const char *id, *asked;	   /* the directory; NULL: there is none */
	const struct val *account; /* NULL: it gave no answer */
	const char *why;	   /* the user is to go */
};

static void build_judgement(struct db_txn *txn, const struct db_view *view, void *arg)
{
	const struct answer *a = arg;
	const struct val *account = a->account;
	const char *why = a->why;
	int64_t now = env_wall_s(a->job->env);
	struct val subjects = val_set();
	struct db_cursor c = db_rows(view, MODEL_CLASS_session);
	const struct db_row *row;

	if (account != NULL && auth_suspended(account, &why))
		account = NULL;
	else if (account != NULL)
		why = NULL;
	if (account != NULL &&
		(auth_subjects(view, account, &a->job->arena, &subjects), subjects.n == 0))
		why = "no_subject";
	while ((row = db_next(&c)) != NULL) {
		if (!due(row, a->r->interval_s, now) ||
			strcmp(db_row_s(row, SESSION_auth_user_sid), a->id) != 0)
			continue;
		if ((why == NULL && subjects.n == 0) || !same_directory(view, row, a->asked)) {
			if (db_row_i(row, SESSION_validation_time) + UNANSWERED * a->r->interval_s <
				now)
				log_out(a->r->pool, txn, row, "not_confirmed");
		} else if (why != NULL) {
			log_out(a->r->pool, txn, row, why);
		} else {
			confirm(txn, row, &subjects, now);
		}
	}
}

static void revalidation_main(struct job *job, void *arg)
{
	struct revalidation *r = arg;
	const char *directory;
	struct val account;
	struct db_view view;

	for (uint32_t i = 0; i < r->ids.n && db_is_coordinator(r->pool->db); i++) {
		const char *id = r->ids.items[i].s, *why = NULL;
		struct err err = { 0 };
		int rc = ERR_API;

		db_view_pin(r->pool->db, &view);
		directory = auth_directory_of(r->pool, &view);
		db_view_unpin(&view);
		if (directory != NULL)
			rc = auth_find(job, r->pool, directory, "id", id, &account, &err);
		if (rc == ERR_DEAD) {
			err_fini(&err);
			break;
		}
		if (rc != 0 && err.code == AGENT_ERR_does_not_exist)
			why = "unknown_to_the_directory";
		/* a condition that fails (a session or a subject has just gone): the next look sees
		 * it */
		commit_once(job, r->pool,
			&(struct commit){ DB_FOR_SESSION, { POOL_COORDINATOR, "", "revalidation" },
				build_judgement,
				&(struct answer){
					job, r, id, directory, rc == 0 ? &account : NULL, why } });
		err_fini(&err);
	}
	r->pool->revalidating = false;
	arena_fini(&r->arena);
	free(r);
}

void revalidate_look(struct pool *pool, const struct db_view *view, struct arena *a)
{
	int64_t interval =
		pool_number(view, a, "xpool-session-revalidation", INTERVAL_S, INTERVAL_MAX_S);
	uint64_t now_ms = env_now_ms(pool->env);
	struct db_cursor c = db_rows(view, MODEL_CLASS_session);
	struct revalidation *r;
	const struct db_row *row;

	if (pool->revalidating || now_ms - pool->revalidated_ms < (uint64_t)interval * 1000 / LOOKS)
		return;
	pool->revalidated_ms = now_ms;
	r = mem_new(sizeof *r);
	arena_init(&r->arena);
	r->pool = pool;
	r->ids = val_set();
	r->interval_s = interval;
	while ((row = db_next(&c)) != NULL && r->ids.n < ASKED_MAX) {
		const char *id = db_row_s(row, SESSION_auth_user_sid);

		if (due(row, r->interval_s, env_wall_s(pool->env)) && !val_set_has(&r->ids, id))
			val_set_push(&r->arena, &r->ids, val_string(arena_strdup(&r->arena, id)));
	}
	pool->revalidating = r->ids.n > 0;
	if (r->ids.n > 0 && lane_submit(pool->api, "", revalidation_main, r, NULL) == 0)
		return;
	pool->revalidating = false;
	arena_fini(&r->arena);
	free(r);
}
