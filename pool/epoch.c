/* A member that a forced recovery has left out follows the new epoch (pool.md 3.2,
 * docs/decisions/0015), without anybody at its keyboard.
 *
 *   pool.emergency_reset_master there, or pool.recover_slaves at one that is in the new epoch,
 * which says so to each member it has no contact with (POST /pool/follow)
 *     --> POST /pool/members at the member that is named --> members.json there: its epochs
 *     --> of this epoch: nothing to follow; then a majority says that all is well, or not
 *     --> a newer one that descends from ours: members.next.json, and this program begins anew
 *         (members_take_next sets the own log aside)
 *
 * The other is believed by its certificate, which is pinned in our list; it believes who asks by a
 * reference with the pool's own checksum, which both epochs have the key of. Killed before the file
 * is there nothing has happened, behind that the next start follows.
 */
#include "pool/members.h"
#include "pool/pool_priv.h"
#include "rpc/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ASK_MS = 10000, ANSWER_MAX = 4096 };

/* Who is asked. */

void proof_authenticate(struct call *call)
{
	const char *proof =
		arena_strndup(&call->arena, call->request->body, call->request->body_len);
	struct db_view view;
	bool ours;

	db_view_pin(call->pool->db, &view);
	ours = session_proof_ok(&view, proof);
	db_view_unpin(&view);
	if (!ours) {
		err_set(&call->err, ERR_SESSION_AUTHENTICATION_FAILED, "", "it is not of this pool",
			NULL);
		call_finish(call);
		return;
	}
	call->caller = (struct caller){ .user = POOL_HOST,
		.session = NULL_REF,
		.originator = "",
		.sid = "",
		.superuser = true };
	call_run(call);
}

int epoch_tell(struct call *call, struct err *err)
{
	struct buf out = { 0 };

	(void)err;
	members_put_now(call->pool, call->pool->cfg.members->self, &out);
	if (call->request != NULL)
		rpc_reply(call->request, 200, "application/json", NULL, out.data, out.len);
	call->request = NULL;
	buf_fini(&out);
	return 0;
}

/* Who asks. */

enum found { SAME_EPOCH, FOLLOW };

struct follow {
	struct call *call;
	struct peer peer;
	char ref[DB_REF_MAX + 1]; /* of the host */
	char proof[DB_REF_MAX + 1];
	struct loop_call posted;
	enum found found;
	struct err err;
	int rc;
};

static int not_contacted(struct follow *f, const char *why)
{
	log_warn(f->call->pool->env, "event=epoch_not_asked address=%s why=\"%s\"", f->peer.address,
		why);
	return err_set(&f->err, ERR_CANNOT_CONTACT_HOST, f->ref, NULL);
}

/* What the other has said, from whom it is meant to be. */
static int judge(struct follow *f, struct arena *a, const struct rpc_answer *answer)
{
	struct pool *pool = f->call->pool;
	const struct members *ours = pool->cfg.members;
	struct members *theirs = mem_new(sizeof *theirs);
	char why[256] = "", path[512];
	const char *fault = NULL;
	int rc = 0;

	if (answer->status != 200)
		rc = not_contacted(f, answer->body);
	else if (!members_parse(a, answer->body, answer->n, theirs, why, sizeof why))
		rc = not_contacted(f, why);
	else if (strcmp(theirs->pool_uuid, ours->pool_uuid) == 0 &&
		 theirs->n_epochs == ours->n_epochs &&
		 strcmp(theirs->epochs[ours->n_epochs - 1], ours->epochs[ours->n_epochs - 1]) == 0)
		f->found = SAME_EPOCH;
	else if ((fault = members_unrelated(ours, theirs)) != NULL || theirs->index == 0)
		rc = err_set(&f->err, ERR_OPERATION_NOT_ALLOWED,
			fault != NULL
				? arena_printf(
					  a, "What that member has cannot be followed: %s", fault)
				: "That member does not know its pool yet: try again",
			NULL);
	else
		f->found = FOLLOW;
	if (rc == 0 && f->found == FOLLOW) {
		theirs->self = ours->self;
		snprintf(path, sizeof path, "%s/" MEMBERS_NEXT, pool->cfg.db.dir);
		if (members_write(path, theirs) != 0)
			rc = err_set(&f->err, ERR_INTERNAL_ERROR, strerror(errno), NULL);
		else
			log_info(pool->env, "event=epoch_followed address=%s epoch=%u",
				f->peer.address, theirs->n_epochs);
	}
	free(theirs);
	return rc;
}

static void on_found(struct loop_call *posted)
{
	struct follow *f = container_of(posted, struct follow, posted);
	struct call *call = f->call;
	bool leave = f->rc == 0 && f->found == FOLLOW, same = f->rc == 0 && !leave;
	static const char done[] = "it follows\n";

	if (f->rc == ERR_API)
		err_move(&call->err, &f->err);
	else if (f->rc != 0)
		err_set(&call->err, ERR_INTERNAL_ERROR, err_rc_name(f->rc), NULL);
	free(f);
	call->leaves = leave; /* the answer leaves before */
	if (call->service == NULL && same) {
		call_ask_majority(call);
		return;
	}
	if (call->service != NULL && call->err.code == NULL && call->request != NULL) {
		rpc_reply(call->request, 200, "text/plain", NULL, done, sizeof done - 1);
		call->request = NULL;
	}
	call_finish(call);
}

static void follow_main(struct job *job, void *arg)
{
	struct follow *f = arg;
	struct pool *pool = f->call->pool;
	struct rpc_answer answer;

	f->rc = rpc_post(job, pool->loops[0].loop,
		&(struct rpc_ask){ f->peer.address, "/pool/members", f->proof, f->peer.certificate,
			MEMBERS_FILE_MAX, ASK_MS },
		&job->arena, &answer);
	if (f->rc == 0)
		f->rc = judge(f, &job->arena, &answer);
	else if (f->rc != ERR_CANCELLED && f->rc != ERR_DEAD)
		f->rc = not_contacted(f, answer.why);
	loop_post(f->call->io->loop, &f->posted, on_found);
}

/* CALL_PENDING, ERR_API; 0: that is this member, or the pool is not known here yet. */
static int begin(struct call *call, const char *address, struct err *err)
{
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_host);
	const struct db_row *host;
	struct follow *f;

	while ((host = db_next(&c)) != NULL && strcmp(db_row_s(host, HOST_address), address) != 0)
		;
	if (host == NULL)
		return err_set(err, ERR_OPERATION_NOT_ALLOWED,
			"No member that is known here has that address. To follow a pool that was "
			"recovered by force through a member that came later, stop xpoold here and "
			"use xpoolctl adopt",
			NULL);
	f = mem_new(sizeof *f);
	f->call = call;
	strcpy(f->ref, db_row_ref(host));
	if (host == pool_self(call->pool, &call->view) || !peer_of(&call->view, host, &f->peer) ||
		!session_proof(call->pool->env, &call->view, f->proof)) {
		free(f);
		return 0;
	}
	if (lane_submit(call->pool->api, "", follow_main, f, NULL) == 0)
		return CALL_PENDING;
	free(f);
	return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
}

int pool_emergency_reset_master(
	struct call *call, const struct pool_emergency_reset_master_args *args, struct err *err)
{
	int rc = begin(call, args->master_address, err);

	return rc == 0 ? call_ask_majority(call) : rc;
}

int epoch_follow(struct call *call, struct err *err)
{
	const char *address = service_parameter(call, "address");
	int rc = begin(call, address != NULL ? address : "", err);

	return rc == 0 ? err_set(err, ERR_OPERATION_NOT_ALLOWED, "It is told by itself", NULL) : rc;
}

/* pool.recover_slaves: those in contact have this epoch, the channel refuses all others; who is
 * not is told, all at once. */

struct recovery {
	struct call *call;
	unsigned open; /* that have not answered */
	char path[128], proof[DB_REF_MAX + 1];
};

struct told {
	struct recovery *recovery;
	struct loop_call posted;
	struct peer peer;
	char ref[DB_REF_MAX + 1]; /* of the host */
	bool follows;
};

static void on_told(struct loop_call *posted)
{
	struct told *t = container_of(posted, struct told, posted);
	struct recovery *r = t->recovery;
	struct call *call = r->call;

	if (t->follows)
		val_set_push(&call->arena, &call->result,
			val_string(arena_strdup(&call->arena, t->ref)));
	free(t);
	if (--r->open > 0)
		return;
	free(r);
	call_finish(call);
}

static void tell_main(struct job *job, void *arg)
{
	struct told *t = arg;
	struct recovery *r = t->recovery;
	struct rpc_answer answer;
	int rc = rpc_post(job, r->call->pool->loops[0].loop,
		&(struct rpc_ask){ t->peer.address, r->path, r->proof, t->peer.certificate,
			ANSWER_MAX, ASK_MS },
		&job->arena, &answer);

	t->follows = rc == 0 && answer.status == 200;
	if (!t->follows && rc != ERR_CANCELLED && rc != ERR_DEAD)
		log_warn(job->env, "event=epoch_not_told address=%s why=\"%s\"", t->peer.address,
			rc == 0 ? answer.body : answer.why);
	loop_post(r->call->io->loop, &t->posted, on_told);
}

/* One that nobody can be asked for has no contact either. */
static void tell(struct recovery *r, const struct db_row *host)
{
	struct told *t = mem_new(sizeof *t);

	t->recovery = r;
	strcpy(t->ref, db_row_ref(host));
	if (peer_of(&r->call->view, host, &t->peer) &&
		lane_submit(r->call->pool->api, "", tell_main, t, NULL) == 0)
		r->open++;
	else
		free(t);
}

int pool_recover_slaves(
	struct call *call, const struct pool_recover_slaves_args *args, struct err *err)
{
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_host);
	const struct db_row *host, *self = pool_self(call->pool, &call->view);
	struct recovery *r = mem_new(sizeof *r);
	bool known = self != NULL && session_proof(call->pool->env, &call->view, r->proof);

	(void)args, (void)err;
	r->call = call;
	call->result = val_set();
	if (known)
		snprintf(r->path, sizeof r->path, "/pool/follow?address=%s",
			db_row_s(self, HOST_address));
	while (known && (host = db_next(&c)) != NULL) {
		uint64_t id = pool_raft_id_of(&call->view, db_row_ref(host));

		if (host != self && id != 0 && db_in_contact(call->pool->db, id))
			val_set_push(&call->arena, &call->result,
				val_string(arena_strdup(&call->arena, db_row_ref(host))));
		else if (host != self)
			tell(r, host);
	}
	if (r->open > 0)
		return CALL_PENDING;
	free(r);
	return 0;
}
