/* When operations are allowed: what the files of rules share.
 *
 * The table of a class (db/model/<class>.json, `operations` and `checks`) says which operations
 * there are, which checks each has to pass and in which order; the functions behind the checks are
 * here, one for each name. The same walk refuses a call and derives allowed_operations. Pure: a
 * view in, a verdict out.
 */
#pragma once

#include "pool/pool_priv.h"

/* A check under way: may object `row` begin operation `op`? */
struct rule {
	const struct db_view *view;
	const struct db_row *row;
	const struct model_operations *table;
	const struct model_operation *op;
	const struct ahead *ahead; /* who is in line before us */
	struct arena *arena;
	const char *waits_for; /* out: the task whose lock is all that is in the way */
};

/* The object a reference field of the row names; NULL when it is not there. */
const struct db_row *rule_target(const struct rule *r, const struct db_row *row, int field);
/* Power state of a VM; Halted when it is not there. */
enum rule_state { RULE_HALTED, RULE_PAUSED, RULE_RUNNING, RULE_SUSPENDED };
enum rule_state rule_state(const struct db_row *vm);
const char *rule_state_name(enum rule_state state); /* "halted" */
bool rule_is(const struct rule *r, const char *op);
/* Is the key of the pool's other_config "true"? */
bool rule_pool_option(const struct rule *r, const char *key);
/* Another operation is in the way; the error of task and operation, joined where there are several.
 * ignore: operations of the object that are not looked at. */
int rule_no_other(struct rule *r, const struct db_row *row, uint64_t ignore, struct err *err);
/* The place of an operation in the table of a class as a mask; 0: it is not there. */
uint64_t rule_mask(int class_id, const char *op);
