/* A call made by this member itself, from a job, for somebody whose credentials have been checked:
 * the same path as a call from the socket, from the role on.
 *
 *   job: within_call -> loop: call_run -> ... -> call_finish -> within_answer -> job goes on
 *
 * The two share `struct within`; the last to let go frees it. A job that is cancelled leaves the
 * call alone: what writes goes on without a listener, as when a client has gone.
 */
#include "pool/pool_priv.h"

#include <stdlib.h>

struct within {
	struct wait wait; /* first */
	struct pool_loop *io;
	struct loop_call posted;
	struct arena arena; /* of the arguments, then of the result */
	struct caller caller;
	const struct model_message *method;
	struct val args, result, subjects;
	bool async;
	struct err err;
};

static void within_fini(struct wait *wait)
{
	struct within *w = container_of(wait, struct within, wait);

	err_fini(&w->err);
	arena_fini(&w->arena);
	free(w);
}

static void on_posted(struct loop_call *posted)
{
	static const struct val nothing = { .kind = VAL_SET };
	struct within *w = container_of(posted, struct within, posted);
	struct call *call = call_new(w->io, NULL);

	call->within = w;
	call->caller = w->caller;
	call->method = w->method;
	call->async = w->async;
	call->message = (struct rpc_message){
		.codec = RPC_JSON2, .method = w->method->name, .params = &nothing
	};
	call->args = w->args.items;
	call->args_struct = pool_args(&call->arena, w->method, call->args);
	call_run(call);
}

/* On the call's loop; the view is still pinned when the result points into it. */
void within_answer(struct call *call)
{
	struct within *w = call->within;

	if (call->err.code != NULL)
		err_move(&w->err, &call->err);
	else
		w->result = val_dup(&w->arena, &call->result);
	wait_done(&w->wait);
}

static const char *kept(struct arena *a, const char *s, const char *otherwise)
{
	return arena_strdup(a, s != NULL ? s : otherwise);
}

int within_call(struct job *job, struct pool_loop *io, const struct caller *caller,
	const struct model_message *method, const struct val *args, bool async,
	struct val *result_out, struct err *err)
{
	struct within *w = mem_new(sizeof *w);
	int rc;

	CHECK(method->session && method->call != MODEL_REMOVED && (!async || method->async));
	wait_init(&w->wait, job, within_fini);
	w->io = io;
	w->method = method;
	w->async = async;
	arena_init(&w->arena);
	w->caller = *caller;
	w->caller.user = kept(&w->arena, caller->user, "");
	w->caller.session = kept(&w->arena, caller->session, NULL_REF);
	w->caller.originator = kept(&w->arena, caller->originator, "");
	w->caller.sid = kept(&w->arena, caller->sid, "");
	if (caller->subjects != NULL) {
		w->subjects = val_dup(&w->arena, caller->subjects);
		w->caller.subjects = &w->subjects;
	}
	w->args = val_set();
	for (unsigned i = 0; i < method->n_params; i++)
		val_set_push(&w->arena, &w->args, val_dup(&w->arena, &args[i]));
	loop_post(io->loop, &w->posted, on_posted);
	rc = wait_join(&w->wait, POOL_WITHIN_MS, true);
	if (rc == 0 && w->err.code != NULL) {
		err_move(err, &w->err);
		rc = ERR_API;
	} else if (rc == 0) {
		*result_out = val_dup(&job->arena, &w->result);
	}
	wait_drop(&w->wait);
	return rc;
}
