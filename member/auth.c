/* Who is that? Passwords and directories of this host.
 *
 * PAM modules and name services hang and crash, so nothing of them is in this process: each
 * question goes to a child (member/auth_child.c: this program again, with --auth) that lives for
 * one answer and is killed when it has none in time. The question is one line of JSON on its
 * standard input, {method, params}; the answer one line, {result} or {error, data}. What the child
 * says is checked like anything from outside. No password and no line of these is ever logged.
 */
#include "agent/methods.h"
#include "member/agent_priv.h"
#include "rpc/wire/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct child {
	pid_t pid;
	int to, from; /* -1: closed */
};

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* The ends of a pair, closed in programs that others start meanwhile. */
static bool pipes(int in[2], int out[2])
{
	if (pipe2(in, O_CLOEXEC) != 0)
		return false;
	if (pipe2(out, O_CLOEXEC) == 0)
		return true;
	close_end(&in[0]);
	close_end(&in[1]);
	return false;
}

static bool child_start(struct agent *agent, struct child *c)
{
	const struct agent_auth *auth = &agent->auth;
	char *argv[] = { "xpool-agent", "--auth", (char *)auth->pam, (char *)auth->directory,
		NULL };
	char *environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	int in[2], out[2], r;
	sigset_t none;

	*c = (struct child){ .to = -1, .from = -1 };
	if (!pipes(in, out))
		return false;
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	/* a group of its own, which goes with it */
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, in[0], STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&files, out[1], STDOUT_FILENO);
	r = posix_spawn(&c->pid, auth->program, &files, &attr, argv, environment);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	close_end(&in[0]);
	close_end(&out[1]);
	c->to = in[1];
	c->from = out[0];
	if (r == 0)
		return true;
	log_err(agent->env, "event=auth_child_not_started program=%s why=\"%s\"", auth->program,
		strerror(r));
	close_end(&c->to);
	close_end(&c->from);
	return false;
}

/* The whole answer, until the child closes it. 0; ERR_TIMEOUT; ERR_IO: no child, or too much. */
static int child_read(struct agent *agent, struct child *c, uint64_t due_ms, struct buf *out)
{
	for (;;) {
		uint64_t now = env_now_ms(agent->env);
		struct pollfd p = { .fd = c->from, .events = POLLIN };
		int r = now < due_ms ? poll(&p, 1, (int)(due_ms - now)) : 0;
		ssize_t n;

		if (r == 0)
			return ERR_TIMEOUT;
		if (r < 0 && errno != EINTR)
			return ERR_IO;
		if (r < 0)
			continue;
		n = read(c->from, buf_room(out, 4096), 4096);
		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return ERR_IO;
		out->len += n > 0 ? (size_t)n : 0;
		if (out->len > AGENT_AUTH_MAX)
			return ERR_IO;
	}
}

static void child_end(struct agent *agent, struct child *c, int rc)
{
	int status = 0;

	close_end(&c->to);
	close_end(&c->from);
	kill(-c->pid, SIGKILL); /* it has answered, or never will; a zombie does not mind */
	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (rc == ERR_TIMEOUT)
		log_warn(agent->env, "event=auth_child_killed after_ms=%d", AGENT_AUTH_MS);
	else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
		log_warn(agent->env, "event=auth_child_crashed signal=%d", WTERMSIG(status));
}

static int child_ask(struct agent *agent, const struct buf *question, struct buf *answer)
{
	struct child c;
	int rc;

	if (!child_start(agent, &c))
		return ERR_IO;
	/* smaller than a pipe holds, so it never blocks; a child that died makes it EPIPE */
	CHECK(question->len <= AGENT_AUTH_MAX);
	rc = write(c.to, question->data, question->len) == (ssize_t)question->len ? 0 : ERR_IO;
	close_end(&c.to);
	if (rc == 0)
		rc = child_read(agent, &c, env_now_ms(agent->env) + AGENT_AUTH_MS, answer);
	child_end(agent, &c, rc);
	return rc;
}

/* Errors a child may tell of. */
static const struct err_code *const told[] = { AGENT_ERR_auth_failed, AGENT_ERR_auth_unavailable,
	AGENT_ERR_does_not_exist };

static int take_error(const struct val *answer, struct err *err)
{
	const char *name = val_get_s(answer, "error");
	const struct val *data = val_get(answer, "data");
	const char *params[ERR_PARAMS_MAX];
	unsigned n = 0;

	for (size_t i = 0; name != NULL && i < ARRAY_LEN(told); i++) {
		if (strcmp(told[i]->name, name) != 0)
			continue;
		for (uint32_t k = 0;
			data != NULL && data->kind == VAL_SET && k < data->n && n < ERR_PARAMS_MAX;
			k++)
			if (data->items[k].kind == VAL_STRING)
				params[n++] = data->items[k].s;
		if (n == told[i]->n_params)
			return err_set_list(err, told[i], params, n);
	}
	return err_set(err, AGENT_ERR_auth_unavailable, "the directory gave no answer", NULL);
}

static int ask(struct agent *agent, struct job *job, enum agent_method_id method,
	const struct val *params, struct val *out, struct err *err)
{
	struct buf question = { 0 }, answer = { 0 };
	const char *why, *text;
	struct val v = val_void();
	int rc;

	buf_printf(&question, "{\"method\":\"%s\",\"params\":", agent_methods[method].name);
	val_json(&question, params);
	buf_puts(&question, "}\n");
	rc = question.len > AGENT_AUTH_MAX ? ERR_FULL : child_ask(agent, &question, &answer);
	text = arena_strndup(&job->arena, (const char *)answer.data, answer.len);
	if (rc == 0 && rpc_json_parse(&job->arena, text, strlen(text), &v, &why) != 0)
		v = val_void();
	explicit_bzero(question.data, question.len);
	buf_fini(&question);
	buf_fini(&answer);
	if (rc == ERR_FULL)
		return err_set(err, AGENT_ERR_auth_failed, "name or password is too long", NULL);
	if (val_get(&v, "result") == NULL)
		return take_error(&v, err);
	*out = *val_get(&v, "result");
	return 0;
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
