/* Hooks: scripts of the host's administrator before and after what happens to a VM. vm-lifecycle
 * 2.7.
 *
 * HOOKS/NAME/ holds those of one hook: executables, in the order of their names, one after the
 * other, with `-vmuuid UUID -reason REASON` and, while there is a domain, `-vmdomid DOMID`. Status
 * 0: on; 1: logged, and on; anything else, and a script that takes longer than HOOK_MS, fails the
 * operation as any step does: what was done is undone. Where there is no way back, or nobody has
 * asked for it (a guest that stopped by itself), it is logged, and on.
 *
 * They run with the agent's rights, so a folder or file that somebody else could have written is
 * not run, which is logged. No hook runs twice for one operation: an operation whose agent dies is
 * not gone on with by the next one, a script that runs ends with its agent, and repair runs none.
 */
#include "member/child.h"
#include "member/ops/ops_priv.h"
#include "rpc/base/file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOGGED = 1 /* the status that only asks for a line */ };

struct scripts {
	struct job *job;
	const char *folder;
	char *names[HOOK_SCRIPTS_MAX];
	unsigned n, left_out;
};

static const char *reason_of(const struct agent_run *run, const char *hook)
{
	static const struct {
		const char *hook, *reason;
	} fixed[] = { { "vm-pre-start", "none" }, { "vm-pre-reboot", "none" },
		{ "vm-pre-resume", "none" }, { "vm-post-resume", "none" },
		{ "vm-pre-migrate", "source" }, { "vm-post-migrate", "destination" } };
	bool clean = val_get(&run->params, "timeout_s") != NULL;

	for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
		if (strcmp(fixed[i].hook, hook) == 0)
			return fixed[i].reason;
	if (run->op == &vm_shutdown_op)
		return clean ? "clean-shutdown" : "hard-shutdown";
	if (run->op == &vm_reboot_op)
		return clean ? "clean-reboot" : "hard-reboot";
	return "suspend"; /* also for a guest that has moved away */
}

/* Could nobody but root, or who we are, have written it? */
static bool safe(struct env *env, const char *path, const struct stat *st)
{
	if ((st->st_uid == 0 || st->st_uid == geteuid()) &&
		(st->st_mode & (S_IWGRP | S_IWOTH)) == 0)
		return true;
	log_warn(env,
		"event=hook_unsafe path=%s remedy=\"it must belong to root, and nobody else may "
		"write to it\"",
		path);
	return false;
}

/* In the order of their names; too many: the last ones are left out. */
static void on_name(void *arg, const char *name)
{
	struct scripts *s = arg;
	const char *path = arena_printf(&s->job->arena, "%s/%s", s->folder, name);
	struct stat st;
	unsigned at;

	if (*name == '.' || !val_text_ok(name) || stat(path, &st) != 0 || !S_ISREG(st.st_mode) ||
		(st.st_mode & S_IXUSR) == 0 || !safe(s->job->env, path, &st))
		return;
	if (s->n == HOOK_SCRIPTS_MAX) {
		s->left_out++;
		if (strcmp(name, s->names[s->n - 1]) > 0)
			return;
		s->n--;
	}
	for (at = s->n++; at > 0 && strcmp(s->names[at - 1], name) > 0; at--)
		s->names[at] = s->names[at - 1];
	s->names[at] = arena_strdup(&s->job->arena, name);
}

/* Nothing where there is no such folder. */
static void list(struct scripts *s, const char *all)
{
	struct stat above, st;

	if (stat(all, &above) != 0 || stat(s->folder, &st) != 0 ||
		!safe(s->job->env, all, &above) || !safe(s->job->env, s->folder, &st))
		return;
	if (folder_list(s->folder, on_name, s) != 0)
		log_warn(s->job->env, "event=hooks_not_read folder=%s why=\"%s\"", s->folder,
			strerror(errno));
}

/* What it wrote as text that the API can carry, and behind it why it was killed. */
static const char *text_of(struct arena *a, struct buf *out, const char *why)
{
	bool whole = out->len == 0 || memchr(out->data, 0, out->len) == NULL;
	const char *text;

	if (!whole || !val_text_ok(buf_text(out)))
		for (size_t i = 0; i < out->len; i++)
			if (!isprint(out->data[i]) && out->data[i] != '\n')
				out->data[i] = '?';
	text = buf_text(out);
	return *why != 0 ? arena_printf(a, "%s[the script %s]", text, why) : arena_strdup(a, text);
}

/* What a script has said is more than it may: the operation fails, if it still can. */
static int refused(struct job *job, const struct agent_run *run, const char *script,
	const char *reason, const char *text, int status, struct err *err)
{
	bool final = run->no_way_back || *run->task == 0;
	char code[16];

	snprintf(code, sizeof code, "%d", status);
	log_warn(job->env, "event=hook_failed hook=%s vm=%s reason=%s status=%s goes_on=%s", script,
		run->uuid, reason, code, status == LOGGED || final ? "yes" : "no");
	return status == LOGGED || final
		       ? 0
		       : err_set(err, AGENT_ERR_hook_failed, script, reason, text, code, NULL);
}

static int run_script(struct job *job, const struct agent_run *run, const char *hook,
	const char *name, int domid, struct err *err)
{
	const char *reason = reason_of(run, hook), *script, *path, *text;
	char domain[16], why[CHILD_WHY_MAX];
	struct child child = { .name = "hook", .within_ms = run->agent->hook_ms };
	struct buf out = { 0 };
	int status = 0, rc;

	script = arena_printf(&job->arena, "%s/%s", hook, name);
	path = arena_printf(&job->arena, "%s/%s", run->agent->hooks, script);
	snprintf(domain, sizeof domain, "%d", domid);
	memcpy(child.args,
		((const char *[CHILD_ARGS_MAX]){ "--exec", path, "-vmuuid", run->uuid, "-reason",
			reason, domid >= 0 ? "-vmdomid" : NULL, domain }),
		sizeof child.args);
	rc = child_run(job, &child, !run->no_way_back, HOOK_OUTPUT_MAX, &out, &status, why);
	text = text_of(&job->arena, &out, why);
	buf_fini(&out);
	if (rc == ERR_CANCELLED || rc == ERR_DEAD)
		return rc;
	if (rc != 0)
		status = -1;
	return status != 0 ? refused(job, run, script, reason, text, status, err) : 0;
}

int vm_step_hook(struct job *job, void *state, struct err *err)
{
	const struct agent_run *run = state;
	const char *hook = run->op->steps[run->step].name;
	struct scripts scripts = { .job = job };
	struct hv_domain d;
	bool there;
	int rc = 0;

	if (run->agent->hooks == NULL || run->skip || run->quiet)
		return 0;
	scripts.folder = arena_printf(&job->arena, "%s/%s", run->agent->hooks, hook);
	list(&scripts, run->agent->hooks);
	if (scripts.n == 0)
		return 0;
	there = hv_domain_find(run->agent->hv, run->uuid, &d);
	if (!there && strcmp(hook, "vm-pre-shutdown") == 0)
		return 0; /* it is halted: nothing will happen */
	if (scripts.left_out > 0)
		log_warn(job->env, "event=hooks_too_many folder=%s not_run=%u most=%d",
			scripts.folder, scripts.left_out, HOOK_SCRIPTS_MAX);
	for (unsigned i = 0; rc == 0 && i < scripts.n; i++)
		rc = run_script(job, run, hook, scripts.names[i], there ? d.domid : -1, err);
	return rc;
}
