/* Processes of our own: one question to this program again, which answers and ends, or a program
 * of the administrator's. What hangs, crashes or runs out of memory there is an error of the one
 * question (docs/formats.md).
 *
 * The question is one line of JSON on its standard input, {method, params}; the answer one line,
 * {result} or {error, data}. What the child says is checked like anything from outside. Neither is
 * ever logged. It ends with its parent.
 */
#pragma once

#include "rpc/base/arena.h"
#include "rpc/base/env.h"
#include "rpc/base/lane.h"
#include "rpc/base/val.h"

enum {
	CHILD_LINE_MAX =
		32 << 10, /* bytes of a question and of an answer: less than a pipe holds */
	CHILD_ARGS_MAX = 8,
	CHILD_LOOK_MS = 10, /* a program: has it ended? */
	CHILD_WHY_MAX = 128,
};

/* What a child is for. */
struct child {
	const char *name;		    /* for logs */
	const char *args[CHILD_ARGS_MAX];   /* of the program; NULL behind the last */
	uint64_t within_ms;		    /* it is killed then */
	const struct err_code *const *told; /* errors that it may tell of; NULL behind the last */
};

/* Ask a child of its own, and wait: on a lane, never on a loop. 0 with the result, in the arena;
 * ERR_API: the child's error. Else there was no answer, and why says why not: ERR_FULL (the
 * question is too long), ERR_TIMEOUT, ERR_IO. */
int child_ask(struct env *env, struct arena *a, const struct child *child, const char *method,
	const struct val *params, struct val *out, struct err *err, char why[CHILD_WHY_MAX]);

/* Run a program: args are "--exec", its path, its arguments. Its standard input is empty, what it
 * writes is taken up to most bytes, the rest is dropped. It has ended when its process has; what it
 * started and left in its process group ends with it. The job's place on its lane is free
 * meanwhile. 0 with the status as a shell has it; else it was killed, and why says why:
 * ERR_TIMEOUT, ERR_IO (not started), ERR_CANCELLED (only if cancellable; else a cancel is
 * forgotten), ERR_DEAD. */
int child_run(struct job *job, const struct child *child, bool cancellable, size_t most,
	struct buf *out, int *status, char why[CHILD_WHY_MAX]);

/* The child's side of that, behind "--exec": becomes the program, which ends with its parent. The
 * status for exit when it cannot. */
int child_exec_main(char **argv);

/* The child's side, all of its life: reads the question, lets fn answer it by a result or by an
 * error that is told, writes the answer; the status for exit. No core file is left. */
int child_main(int (*fn)(void *arg, struct arena *a, const char *method, const struct val *params,
		       struct val *out, struct err *err),
	void *arg);
/* Go on as nobody, without any network, and without a way back: what is open stays open. -1 with
 * errno. */
int child_drop_privileges(void);
