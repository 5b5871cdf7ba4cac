#include "rpc/base/op.h"

static int before(const struct op_watch *watch, const struct op *op, unsigned k, struct err *err)
{
	return watch != NULL && watch->before != NULL ? watch->before(watch->arg, op, k, err) : 0;
}

static int one_step(struct job *job, const struct op *op, unsigned k, void *state,
	const struct op_watch *watch, bool committed, struct err *err)
{
	int rc = before(watch, op, k, err);

	if (rc == 0 && job->cancelled && !committed)
		rc = err_set(err, op->cancelled, NULL);
	if (rc == 0)
		rc = op->steps[k].run(job, state, err);
	if (rc == ERR_CANCELLED)
		rc = err_set(err, op->cancelled, NULL);
	return rc;
}

static unsigned total_weight(const struct op *op)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < op->n_steps; i++)
		sum += op->steps[i].weight;
	return sum ? sum : 1;
}

static void log_failed(
	struct job *job, const struct op *op, unsigned k, int rc, const struct err *err)
{
	log_warn(job->env, "event=step_failed op=%s step=%s rc=%s code=%s", op->name,
		op->steps[k].name, err_rc_name(rc), err->code != NULL ? err->code->name : "-");
}

int op_run(struct job *job, const struct op *op, void *state, const struct op_watch *watch,
	struct err *err)
{
	unsigned total = total_weight(op), sum = 0, flags = 0, k;
	int rc = 0, done = 0;

	for (k = 0; k < op->n_steps; k++) {
		rc = one_step(job, op, k, state, watch, flags != 0, err);
		if (rc != 0)
			log_failed(job, op, k, rc, err);
		if (rc == ERR_DEAD || (rc != 0 && !(flags & OP_FORWARD)))
			break;
		if (rc != 0) {
			err_fini(err);
			done = OP_LEFT;
		}
		flags |= op->steps[k].flags;
		sum += op->steps[k].weight;
		if (watch != NULL && watch->progress != NULL)
			watch->progress(watch->arg, 1000 * sum / total);
	}
	if (k == op->n_steps)
		return before(watch, op, k, err) == ERR_DEAD ? ERR_DEAD : done;
	if (rc == ERR_DEAD || flags != 0)
		return rc;
	while (k-- > 0)
		if (op->steps[k].undo != NULL)
			op->steps[k].undo(job, state);
	return rc;
}
