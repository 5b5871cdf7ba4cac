/* One question to a process of its own: this program again, which answers and ends. What hangs,
 * crashes or runs out of memory there is an error of the one question (docs/formats.md).
 *
 * The question is one line of JSON on its standard input, {method, params}; the answer one line,
 * {result} or {error, data}. What the child says is checked like anything from outside. Neither is
 * ever logged. It ends with its parent.
 */
#pragma once

#include "rpc/base/arena.h"
#include "rpc/base/env.h"
#include "rpc/base/val.h"

enum {
	CHILD_LINE_MAX =
		32 << 10, /* bytes of a question and of an answer: less than a pipe holds */
	CHILD_ARGS_MAX = 4,
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

/* The child's side, all of its life: reads the question, lets fn answer it by a result or by an
 * error that is told, writes the answer; the status for exit. No core file is left. */
int child_main(int (*fn)(void *arg, struct arena *a, const char *method, const struct val *params,
		       struct val *out, struct err *err),
	void *arg);
/* Go on as nobody, without any network, and without a way back: what is open stays open. -1 with
 * errno. */
int child_drop_privileges(void);
