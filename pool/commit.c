/* A job's transaction, put together of what a view shows: when something it rests on has changed
 * before it is applied, it is put together again, of a newer view. Transactions of calls are
 * dispatch.c's, the coordinator's own are sweep.c's. */
#include "pool/pool_priv.h"

enum { RETRY_MS = 200, AT_ONCE = 4 /* every so many that were overtaken, it waits nevertheless */ };

static int attempt(
	struct job *job, struct pool *pool, const struct commit *c, enum db_status *status_out)
{
	struct db_result res;
	struct db_view view;
	struct db_txn txn;
	int rc;

	db_txn_init(&txn, c->reason);
	db_txn_origin(&txn, c->origin);
	db_view_pin(pool->db, &view);
	c->build(&txn, &view, c->arg);
	txn.schema = db_view_schema(&view);
	db_view_unpin(&view);
	if (txn.n_ops == 0) {
		db_txn_fini(&txn);
		*status_out = DB_DONE;
		return 0;
	}
	rc = db_commit(job, pool->db, &txn, &res);
	err_fini(&res.err);
	*status_out = res.status;
	return rc;
}

int commit_once(struct job *job, struct pool *pool, const struct commit *c)
{
	enum db_status status;
	int rc = attempt(job, pool, c, &status);

	return rc != 0 || status == DB_DONE ? rc : ERR_TIMEOUT;
}

int commit_settled(struct job *job, struct pool *pool, const struct commit *c)
{
	enum db_status status;
	unsigned n = 0;
	int rc;

	while ((rc = attempt(job, pool, c, &status)) == 0 && status != DB_DONE) {
		if (status == DB_FAILED && ++n % AT_ONCE != 0)
			continue;
		if (job_sleep(job, RETRY_MS) == ERR_DEAD)
			return ERR_DEAD;
		job->cancelled = false; /* a cancelled job sleeps no more: do not spin */
	}
	return rc;
}
