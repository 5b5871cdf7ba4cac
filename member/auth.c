/* Who is that? Passwords and directories of this host.
 *
 * PAM modules and name services hang and crash, so nothing of them is in this process: each
 * question goes to a child of its own (member/auth_child.c). No password is ever logged.
 */
#include "agent/methods.h"
#include "member/agent_priv.h"
#include "member/child.h"

static int ask(struct agent *agent, struct job *job, enum agent_method_id method,
	const struct val *params, struct val *out, struct err *err)
{
	static const struct err_code *const told[] = { AGENT_ERR_auth_failed,
		AGENT_ERR_auth_unavailable, AGENT_ERR_does_not_exist, NULL };
	const struct child child = { .name = "auth",
		.args = { "--auth", agent->auth.pam, agent->auth.directory },
		.within_ms = AGENT_AUTH_MS,
		.told = told };
	char why[CHILD_WHY_MAX];
	int rc = child_ask(
		agent->env, &job->arena, &child, agent_methods[method].name, params, out, err, why);

	if (rc == 0 || rc == ERR_API)
		return rc;
	return rc == ERR_FULL
		       ? err_set(err, AGENT_ERR_auth_failed, "name or password is too long", NULL)
		       : err_set(err, AGENT_ERR_auth_unavailable, "the directory gave no answer",
				 NULL);
}

int auth_check_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	return ask(agent, job, AGENT_AUTH_check, params, out, err);
}

int auth_find_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	return ask(agent, job, AGENT_AUTH_find, params, out, err);
}
