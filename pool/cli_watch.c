/* --progress: an operation as a task of its own, whose progress is shown on stderr while it runs.
 */
#include "pool/cli_priv.h"

#include <string.h>

/* Of a task that has ended: its result, or why it failed. */
static int task_end(struct cli *cli, const struct db_row *task, const struct model_type *type,
	struct val *result_out, struct err *err)
{
	const char *params[ERR_PARAMS_MAX];
	const struct err_code *code;
	char *text, *end;
	struct val info;

	if (strcmp(db_row_s(task, TASK_status), "success") != 0) {
		info = db_row_field(task, TASK_error_info, cli->arena);
		for (uint32_t i = 1; i < info.n && i <= ERR_PARAMS_MAX; i++)
			params[i - 1] = info.items[i].s;
		code = info.n > 0 ? model_error_find(info.items[0].s) : NULL;
		if (code == NULL)
			return err_set(err, ERR_INTERNAL_ERROR,
				info.n > 0 ? info.items[0].s : "the task failed", NULL);
		return err_set_list(err, code, params,
			info.n - 1 < ERR_PARAMS_MAX ? info.n - 1 : ERR_PARAMS_MAX);
	}
	text = arena_strdup(cli->arena, db_row_s(task, TASK_result));
	if (type->kind == MODEL_REF && strncmp(text, "<value>", 7) == 0) {
		end = strchr(text + 7, '<');
		if (end != NULL)
			*end = 0;
		text += 7;
	}
	*result_out = type->kind == MODEL_VOID ? val_void() : val_string(text);
	return 0;
}

int cli_watched(struct cli *cli, const struct model_message *m, const struct val *args,
	struct val *result_out, struct err *err)
{
	enum { LOOK_MS = 100 };
	struct err ignored = { 0 };
	const struct db_row *task;
	struct db_view view;
	struct val ref;
	int shown = -1, percent;
	bool pending = true;
	int rc = within_call(cli->job, cli->call->io, &cli->call->caller, m, args, true, &ref, err);

	while (rc == 0 && pending) {
		cli_view(cli, &view);
		task = db_view_get(&view, MODEL_CLASS_task, ref.s);
		pending = task_pending(task);
		percent =
			task == NULL
				? 100
				: (int)(pool_field(&view, task, TASK_progress, cli->arena).f * 100);
		if (task == NULL)
			rc = err_set(err, ERR_HANDLE_INVALID, "task", ref.s, NULL);
		else if (!pending)
			rc = task_end(cli, task, m->result, result_out, err);
		db_view_unpin(&view);
		if (percent != shown)
			cli_stderr(cli, "\r%3d%%%s", percent, pending ? "" : "\n");
		shown = percent;
		if (pending && rc == 0) {
			rc = cli_flush(cli);
			rc = rc != 0 ? rc : job_sleep(cli->job, LOOK_MS);
		}
	}
	if (!pending)
		cli_invoke(cli, "task.destroy", &ref, 1, NULL, &ignored);
	err_fini(&ignored);
	return rc;
}
