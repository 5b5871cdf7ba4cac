/* Errors: what went wrong, as a client of the API or of the agent is told.
 *
 * A code is a pointer to a constant that a list above this folder defines (the model, the agent's
 * interface): rpc/base knows the shape, never the list.  Functions return 0 or one of the negative
 * codes below; when that is ERR_API the `struct err` is filled, otherwise it is not: both
 * directions are asserted by err_check().
 */
#pragma once

#include <stdbool.h>

struct err_code {
	const char *name;
	unsigned n_params; /* as documented; what is sent may differ where the reference differs */
};

enum { ERR_PARAMS_MAX = 8 };

struct err {
	const struct err_code *code;
	unsigned n;
	char *params[ERR_PARAMS_MAX]; /* heap, owned */
};

enum {
	ERR_API = -1,	    /* `struct err` says what */
	ERR_IO = -2,	    /* the operating system refused; logged where it happened */
	ERR_TIMEOUT = -3,   /* a deadline passed; the outcome is unknown */
	ERR_CANCELLED = -4, /* somebody asked to stop */
	ERR_DEAD = -5,	    /* this (simulated) member has died: run no undo, touch nothing */
	ERR_FULL = -6,	    /* a named limit was reached */
	ERR_CORRUPT = -7,   /* bytes from outside do not parse */
	ERR_CLOSED = -8,    /* the connection is gone */
	ERR_VERSION = -9,   /* a format or schema newer than this program */
};

/* Fill `err`; parameters are char *, copied, the list ends with NULL. Returns ERR_API, so that
 * `return err_set(...)` reads well. An earlier content is dropped. Any thread. */
int err_set(struct err *err, const struct err_code *code, ...) __attribute__((sentinel));

/* The same from an array of n strings (more than ERR_PARAMS_MAX are cut off). */
int err_set_list(
	struct err *err, const struct err_code *code, const char *const *params, unsigned n);

/* dst takes over src's content; src is empty afterwards. */
void err_move(struct err *dst, struct err *src);

/* Free the parameters; may be called twice. */
void err_fini(struct err *err);

/* Assert that rc and err agree; returns rc. */
int err_check(int rc, const struct err *err);

/* A word for a code of the enum above, for logs. */
const char *err_rc_name(int rc);
