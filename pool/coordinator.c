/* Who coordinates: handing the lead over, and the calls of the reference for when a coordinator was
 * lost (pool.md 3.2). Here an election needs nobody's call, so they tell the truth and change
 * nothing; giving up what lost members hold is `xpoolctl recover`, following that is epoch.c
 * (docs/decisions/0015). */
#include "pool/operation_priv.h"

#include <string.h>

/* The host's own job: it asks for the lead. */
int pool_designate_new_master_run(struct job *job, void *task,
	const struct pool_designate_new_master_args *args, struct err *err)
{
	struct owned *o = task;
	int rc;

	(void)args;
	rc = db_take_lead(job, o->pool->db);
	if (rc == ERR_TIMEOUT)
		return err_set(err, ERR_OPERATION_NOT_ALLOWED,
			"The coordinator did not hand over in time: no majority of the voters is "
			"there, or this host cannot keep up with the log",
			NULL);
	if (rc == ERR_CANCELLED)
		return err_set(err, ERR_TASK_CANCELLED, o->task, NULL);
	return rc;
}

int pool_is_slave(struct call *call, const struct pool_is_slave_args *args, struct err *err)
{
	struct db_stat s;

	if (db_view_get(&call->view, MODEL_CLASS_host, args->host) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", args->host, NULL);
	db_stat(call->pool->db, &s);
	call->result = val_bool(pool_raft_id_of(&call->view, args->host) != s.leader);
	return 0;
}

/* A majority answers, or not. */

static void on_asked(struct db_barrier *b)
{
	struct call *call = container_of(b, struct call, barrier);

	if (!b->ok)
		err_set(&call->err, ERR_HOST_IN_EMERGENCY_MODE, NULL);
	call_finish(call);
}

int call_ask_majority(struct call *call)
{
	db_read_barrier(call->pool->db, &call->barrier, call->io->loop, on_asked);
	return CALL_PENDING;
}

int pool_emergency_transition_to_master(struct call *call,
	const struct pool_emergency_transition_to_master_args *args, struct err *err)
{
	(void)args, (void)err;
	return call_ask_majority(call);
}
