/* Processes of our own: the parent that asks or runs one, and what every such child is. */
#include "member/child.h"
#include "rpc/wire/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOBODY = 65534 };

static const char parent_key[] = "XPOOL_PARENT";

/* The parent. */

struct process {
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

static int spawn(const struct child *child, int in, int out, pid_t *pid)
{
	const char *argv[CHILD_ARGS_MAX + 2] = { "xpool-agent" };
	char parent[32];
	char *environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", parent,
		NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none;
	int r;

	memcpy(argv + 1, child->args, sizeof child->args);
	snprintf(parent, sizeof parent, "%s=%d", parent_key, (int)getpid());
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	/* a group of its own, which goes with it */
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
	r = posix_spawn(
		pid, "/proc/self/exe", &files, &attr, (char *const *)(uintptr_t)argv, environment);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return r;
}

static bool start(const struct child *child, struct process *p, char why[CHILD_WHY_MAX])
{
	int in[2], out[2], r;

	*p = (struct process){ .to = -1, .from = -1 };
	r = pipes(in, out) ? 0 : errno;
	if (r == 0) {
		r = spawn(child, in[0], out[1], &p->pid);
		close_end(&in[0]);
		close_end(&out[1]);
		p->to = in[1];
		p->from = out[0];
	}
	if (r == 0)
		return true;
	snprintf(why, CHILD_WHY_MAX, "cannot be started: %s", strerror(r));
	close_end(&p->to);
	close_end(&p->from);
	return false;
}

/* The whole answer, until the child closes it. 0; ERR_TIMEOUT; ERR_IO: no child, or too much. */
static int read_answer(struct env *env, const struct process *p, uint64_t due_ms, struct buf *out)
{
	for (;;) {
		uint64_t now = env_now_ms(env);
		struct pollfd from = { .fd = p->from, .events = POLLIN };
		int r = now < due_ms ? poll(&from, 1, (int)(due_ms - now)) : 0;
		ssize_t n;

		if (r == 0)
			return ERR_TIMEOUT;
		if (r < 0 && errno != EINTR)
			return ERR_IO;
		if (r < 0)
			continue;
		n = read(p->from, buf_room(out, 4096), 4096);
		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return ERR_IO;
		out->len += n > 0 ? (size_t)n : 0;
		if (out->len > CHILD_LINE_MAX)
			return ERR_IO;
	}
}

/* Of it and its group nothing stays; its status. */
static int end(struct process *p)
{
	int status = 0;

	close_end(&p->to);
	close_end(&p->from);
	kill(-p->pid,
		SIGKILL); /* it has answered, or never will; one that is ending does not mind */
	while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static void say_late(const struct child *child, char why[CHILD_WHY_MAX])
{
	snprintf(why, CHILD_WHY_MAX, "did not end within %llu s",
		(unsigned long long)child->within_ms / 1000);
}

/* rc: of the reading; n: bytes of the answer. */
static int finish(struct env *env, const struct child *child, struct process *p, int rc, size_t n,
	char why[CHILD_WHY_MAX])
{
	int status = end(p);

	if (rc == 0 && n > 0)
		return 0;
	if (rc == ERR_TIMEOUT)
		say_late(child, why);
	else if (WIFSIGNALED(status))
		snprintf(why, CHILD_WHY_MAX, "was ended by signal %d (%s)", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
	else
		snprintf(why, CHILD_WHY_MAX, "gave no answer (status %d)", WEXITSTATUS(status));
	log_warn(env, "event=child_failed child=%s why=\"%s\"", child->name, why);
	return rc != 0 ? rc : ERR_IO;
}

static int ask(struct env *env, const struct child *child, const struct buf *question,
	struct buf *answer, char why[CHILD_WHY_MAX])
{
	struct process p;
	int rc;

	if (!start(child, &p, why)) {
		log_err(env, "event=child_not_started child=%s why=\"%s\"", child->name, why);
		return ERR_IO;
	}
	/* smaller than a pipe holds, so it never blocks; a child that died makes it EPIPE */
	CHECK(question->len <= CHILD_LINE_MAX);
	rc = write(p.to, question->data, question->len) == (ssize_t)question->len ? 0 : ERR_IO;
	close_end(&p.to);
	if (rc == 0)
		rc = read_answer(env, &p, env_now_ms(env) + child->within_ms, answer);
	return finish(env, child, &p, rc, answer->len, why);
}

/* ERR_IO: it is none that may be told. */
static int take_error(const struct child *child, const struct val *answer, struct err *err)
{
	const char *name = val_get_s(answer, "error");
	const struct val *data = val_get(answer, "data");
	const char *params[ERR_PARAMS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; name != NULL && child->told[i] != NULL; i++) {
		if (strcmp(child->told[i]->name, name) != 0)
			continue;
		for (uint32_t k = 0;
			data != NULL && data->kind == VAL_SET && k < data->n && n < ERR_PARAMS_MAX;
			k++)
			if (data->items[k].kind == VAL_STRING)
				params[n++] = data->items[k].s;
		if (n == child->told[i]->n_params)
			return err_set_list(err, child->told[i], params, n);
	}
	return ERR_IO;
}

/* What it has written. */
static int take(struct arena *a, const struct child *child, const struct buf *answer,
	struct val *out, struct err *err, char why[CHILD_WHY_MAX])
{
	const char *ignored, *text = arena_strndup(a, (const char *)answer->data, answer->len);
	struct val v = val_void();
	int rc = ERR_IO;

	if (rpc_json_parse(a, text, strlen(text), &v, &ignored) == 0 &&
		val_get(&v, "result") != NULL) {
		*out = *val_get(&v, "result");
		return 0;
	}
	if (v.kind == VAL_MAP)
		rc = take_error(child, &v, err);
	if (rc == ERR_IO)
		snprintf(why, CHILD_WHY_MAX, "gave an answer that cannot be read");
	return rc;
}

int child_ask(struct env *env, struct arena *a, const struct child *child, const char *method,
	const struct val *params, struct val *out, struct err *err, char why[CHILD_WHY_MAX])
{
	struct buf question = { 0 }, answer = { 0 };
	int rc = ERR_FULL;

	*why = 0;
	buf_printf(&question, "{\"method\":\"%s\",\"params\":", method);
	val_json(&question, params);
	buf_puts(&question, "}\n");
	if (question.len <= CHILD_LINE_MAX)
		rc = ask(env, child, &question, &answer, why);
	else
		snprintf(why, CHILD_WHY_MAX, "is asked for more than %d bytes", CHILD_LINE_MAX);
	explicit_bzero(question.data, question.len);
	buf_fini(&question);
	if (rc == 0)
		rc = take(a, child, &answer, out, err, why);
	buf_fini(&answer);
	return rc;
}

/* What is there of its output; the pipe does not block. */
static void take_output(const struct process *p, size_t most, struct buf *out)
{
	char some[4096];
	ssize_t n;

	for (int i = 0; i < 16 && (n = read(p->from, some, sizeof some)) > 0; i++)
		buf_put(out, some, out->len + (size_t)n < most ? (size_t)n : most - out->len);
}

/* It has, and is not reaped: nobody else can have its number. */
static bool has_ended(const struct process *p)
{
	siginfo_t info = { 0 };

	return waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == p->pid;
}

static int wait_ended(struct job *job, const struct process *p, uint64_t due_ms, bool cancellable,
	size_t most, struct buf *out)
{
	bool ended;
	int rc = 0;

	for (;;) {
		ended = has_ended(p);
		take_output(p, most, out);
		if (ended)
			return 0;
		if (env_now_ms(job->env) >= due_ms)
			return ERR_TIMEOUT;
		rc = job_sleep(job, CHILD_LOOK_MS);
		if (rc == ERR_CANCELLED && !cancellable) {
			job->cancelled = false; /* a cancelled job sleeps no more: do not spin */
			rc = 0;
		}
		if (rc != 0)
			return rc;
	}
}

int child_run(struct job *job, const struct child *child, bool cancellable, size_t most,
	struct buf *out, int *status, char why[CHILD_WHY_MAX])
{
	struct process p;
	int rc;

	*why = 0;
	if (!start(child, &p, why)) {
		log_err(job->env, "event=child_not_started child=%s why=\"%s\"", child->name, why);
		return ERR_IO;
	}
	close_end(&p.to);
	fcntl(p.from, F_SETFL, O_NONBLOCK);
	rc = wait_ended(job, &p, env_now_ms(job->env) + child->within_ms, cancellable, most, out);
	*status = end(&p);
	*status = WIFSIGNALED(*status) ? 128 + WTERMSIG(*status) : WEXITSTATUS(*status);
	if (rc == ERR_TIMEOUT)
		say_late(child, why);
	else if (rc != 0)
		snprintf(why, CHILD_WHY_MAX, "was ended: %s", err_rc_name(rc));
	return rc;
}

/* The child. */

/* From here on it ends with its parent; changing who we are takes this back. */
static bool end_with_parent(void)
{
	const char *parent = getenv(parent_key);

	return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && parent != NULL && getppid() == atoi(parent);
}

int child_drop_privileges(void)
{
	const struct rlimit no_children = { 0, 0 };

	if (unshare(CLONE_NEWNET | CLONE_NEWIPC) != 0 || setgroups(0, NULL) != 0 ||
		setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0 ||
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
		setrlimit(RLIMIT_NPROC, &no_children) != 0)
		return -1;
	errno = ESRCH;
	return end_with_parent() ? 0 : -1;
}

int child_exec_main(char **argv)
{
	if (!end_with_parent())
		return 2;
	unsetenv(parent_key);
	signal(SIGPIPE, SIG_DFL);
	execv(argv[0], argv);
	fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
	return 126;
}

static int say(struct arena *a, struct val result, const struct err *err)
{
	struct val data = val_set(), v = val_map();
	struct buf out = { 0 };
	bool written;

	for (unsigned i = 0; i < err->n; i++)
		val_set_push(a, &data, val_string(err->params[i]));
	if (err->code != NULL) {
		val_map_push(a, &v, "error", val_string(err->code->name));
		val_map_push(a, &v, "data", data);
	} else {
		val_map_push(a, &v, "result", result);
	}
	val_json(&out, &v);
	written = fwrite(out.data, 1, out.len, stdout) == out.len && fflush(stdout) == 0;
	buf_fini(&out);
	return written ? 0 : 1;
}

int child_main(int (*fn)(void *arg, struct arena *a, const char *method, const struct val *params,
		       struct val *out, struct err *err),
	void *arg)
{
	const struct rlimit no_core = { 0, 0 };
	char *line;
	struct val v = val_void(), result = val_void();
	const struct val *params;
	const char *why, *method;
	struct err err = { 0 };
	struct arena a;
	size_t n;
	int rc = 2;

	/* no password in a core file, none for a debugger */
	setrlimit(RLIMIT_CORE, &no_core);
	prctl(PR_SET_DUMPABLE, 0);
	if (!end_with_parent())
		return 2;
	arena_init(&a);
	line = arena_alloc(&a, CHILD_LINE_MAX);
	n = fread(line, 1, CHILD_LINE_MAX, stdin);
	if (rpc_json_parse(&a, line, n, &v, &why) == 0 &&
		(method = val_get_s(&v, "method")) != NULL &&
		(params = val_get(&v, "params")) != NULL) {
		fn(arg, &a, method, params, &result, &err);
		rc = say(&a, result, &err);
	}
	explicit_bzero(line, CHILD_LINE_MAX);
	err_fini(&err);
	arena_fini(&a);
	return rc;
}
