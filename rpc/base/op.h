/* Operations as step tables: one place that walks them, shows progress, cancels and undoes.
 *
 * op_run() walks the table in order. Between steps it looks at the job's cancel flag. A failing
 * step triggers the undos of the completed ones in reverse order and the first error is kept. From
 * a step marked OP_COMMIT_POINT on only forward recovery is left: cancel is ignored and later
 * failures undo nothing. From a step marked OP_FORWARD on the operation has happened: a step that
 * fails stops nothing, the others run all the same, and what it has left is for repair to find
 * (OP_LEFT). So those steps must not rest on each other. When the member is dead (ERR_DEAD) no undo
 * runs: what is left is what a SIGKILL leaves. Undo is courtesy, convergence is correctness: each
 * step must be safe to find half done.
 */
#pragma once

#include "rpc/base/lane.h"

enum { OP_COMMIT_POINT = 1, OP_FORWARD = 2 /* a commit point too */ };

enum { OP_LEFT = 1 };

struct op_step {
	const char *name;
	unsigned weight; /* share of the progress */
	unsigned flags;
	int (*run)(struct job *job, void *state, struct err *err);
	void (*undo)(struct job *job, void *state); /* may be NULL */
};

struct op {
	const char *name;
	const struct op_step *steps;
	unsigned n_steps;
	const struct err_code *cancelled; /* what a cancelled operation fails with */
};

/* What a test, or progress, hangs on: called before each step with its number; not 0 makes the step
 * fail with that code (ERR_API: err is filled by the hook). Behind the last one it is called with
 * n_steps: all is done, and only a death (ERR_DEAD) can come between that and its record. May be
 * NULL. */
struct op_watch {
	int (*before)(void *arg, const struct op *op, unsigned step, struct err *err);
	void (*progress)(void *arg, unsigned permille);
	void *arg;
};

/* 0: done; OP_LEFT: done too, but a step behind OP_FORWARD has failed; or an error. */
int op_run(struct job *job, const struct op *op, void *state, const struct op_watch *watch,
	struct err *err);
