/* The service of `xe`, POST /cli: the thin CLI protocol (rpc/cli/thin.h) over the request's
 * connection.
 *
 *   loop: credentials -> role -> read index -> job: command -> loop: the connection ends
 *
 * There is no HTTP answer: frames follow the request at once. No session is made: the password is
 * checked and the caller's identity lives as long as the command. A command begins with a read
 * index, so it sees what was acknowledged before at any member; without a coordinator it shows what
 * this member has and says so. Source: cli.md 2, 3.2, 6.
 */
#include "pool/cli_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Output. */

void cli_frame(struct cli *cli, const struct thin_frame *frame)
{
	thin_put(&cli->out, frame);
}

static void put_text(struct cli *cli, enum thin_tag tag, const char *text)
{
	cli_frame(cli, &(struct thin_frame){ .kind = THIN_COMMAND, .tag = tag, .text = text });
}

void cli_print(struct cli *cli, const char *text)
{
	if (!cli->minimal)
		put_text(cli, THIN_PRINT, text);
}

static void put_error(struct cli *cli, const char *fmt, va_list ap, const char *end)
{
	struct buf text = { 0 };
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	vsnprintf((char *)buf_room(&text, (size_t)n + 1), (size_t)n + 1, fmt, ap);
	text.len = (size_t)n;
	buf_puts(&text, end);
	put_text(cli, THIN_PRINT_STDERR, buf_text(&text));
	buf_fini(&text);
}

void cli_stderr(struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	put_error(cli, fmt, ap, "");
	va_end(ap);
}

int cli_fail(struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	put_error(cli, fmt, ap, "\n");
	va_end(ap);
	return CLI_FAILED;
}

/* "," and "\" in a value are escaped. */
void cli_item(struct cli *cli, const char *text)
{
	if (!cli->minimal) {
		cli_print(cli, text);
		return;
	}
	if (cli->minimal_any)
		buf_puts(&cli->minimal_out, ",");
	cli->minimal_any = true;
	for (; *text; text++) {
		if (*text == ',' || *text == '\\')
			buf_puts(&cli->minimal_out, "\\");
		buf_put(&cli->minimal_out, text, 1);
	}
}

int cli_flush(struct cli *cli)
{
	int rc = service_send(cli->job, cli->call, cli->out.data, cli->out.len, CLI_STALL_MS);

	cli->out.len = 0;
	return rc;
}

/* Input: the job says how much it wants, the loop gives what has come. */

struct cli_want {
	struct wait wait; /* first */
	struct loop_call posted;
	struct call *call;
	uint8_t *bytes; /* own: the job may be gone */
	size_t n, got;
};

static void want_fini(struct wait *wait)
{
	struct cli_want *w = container_of(wait, struct cli_want, wait);

	free(w->bytes);
	free(w);
}

static void want_look(struct call *call)
{
	struct cli_want *w = call->want;

	if (w == NULL)
		return;
	if (call->request != NULL) {
		w->got += rpc_raw_read(call->request, w->bytes + w->got, w->n - w->got);
		if (w->got < w->n)
			return;
	}
	call->want = NULL;
	wait_done(&w->wait);
}

static void on_want(struct loop_call *posted)
{
	struct cli_want *w = container_of(posted, struct cli_want, posted);

	w->call->want = w;
	want_look(w->call);
}

static void on_received(struct rpc_request *request, void *arg)
{
	(void)request;
	want_look(arg);
}

/* One that has not been answered when the job gives up is answered by the end of the command. */
static int read_bytes(struct cli *cli, void *out, size_t n)
{
	struct cli_want *w = mem_new(sizeof *w);
	int rc;

	w->call = cli->call;
	w->n = n;
	w->bytes = mem_new(n);
	wait_init(&w->wait, cli->job, want_fini);
	loop_post(cli->call->io->loop, &w->posted, on_want);
	rc = wait_join(&w->wait, CLI_ASK_S * 1000, true);
	if (rc == 0 && w->got < n)
		rc = ERR_CLOSED;
	if (rc == 0)
		memcpy(out, w->bytes, n);
	wait_drop(&w->wait);
	return rc;
}

/* The client's greeting is looked at only by those that go on to listen: nobody else waits for it.
 */
int cli_read(struct cli *cli, void *out, size_t n)
{
	uint8_t greeting[THIN_GREETING_LEN];
	int rc;

	if (!cli->greeted) {
		cli->greeted = true;
		rc = read_bytes(cli, greeting, sizeof greeting);
		if (rc == 0)
			rc = thin_greeting(greeting);
		if (rc != 0)
			return rc;
	}
	return read_bytes(cli, out, n);
}

int cli_read_frame(struct cli *cli, struct thin_frame *out)
{
	uint8_t head[4], *p;
	struct reader r;
	uint32_t len;
	int rc = cli_read(cli, head, sizeof head);

	if (rc != 0)
		return rc;
	r = reader_of(head, sizeof head);
	len = rd_u32(&r);
	if (len > THIN_ASK_MAX)
		return ERR_CORRUPT;
	p = arena_alloc(cli->arena, sizeof head + len + 1);
	memcpy(p, head, sizeof head);
	rc = len > 0 ? cli_read(cli, p + sizeof head, len) : 0;
	if (rc != 0)
		return rc;
	return thin_take(p, sizeof head + len, THIN_ASK_MAX, out) > 0 ? 0 : ERR_CORRUPT;
}

int cli_load(struct cli *cli, const char *file, const char **out)
{
	struct thin_frame f;
	char *bytes;
	int rc;

	cli_frame(
		cli, &(struct thin_frame){ .kind = THIN_COMMAND, .tag = THIN_LOAD, .text = file });
	rc = cli_flush(cli);
	if (rc == 0)
		rc = cli_read_frame(cli, &f);
	if (rc == 0 && f.kind == THIN_RESPONSE && f.tag == THIN_FAILED)
		return cli_fail(cli, "The file %s could not be had", file);
	if (rc == 0 && (f.kind != THIN_RESPONSE || f.tag != THIN_OK))
		rc = ERR_CORRUPT;
	if (rc == 0)
		rc = cli_read_frame(cli, &f);
	if (rc == 0 && (f.kind != THIN_BLOB || f.tag != THIN_CHUNK))
		rc = ERR_CORRUPT;
	if (rc == 0 && f.number > CLI_FILE_MAX)
		return cli_fail(cli, "The file %s is larger than %u KiB", file,
			(unsigned)CLI_FILE_MAX >> 10);
	bytes = rc == 0 ? arena_alloc(cli->arena, f.number + 1) : NULL;
	if (rc == 0 && f.number > 0)
		rc = cli_read(cli, bytes, f.number);
	if (rc == 0)
		rc = cli_read_frame(cli, &f);
	if (rc != 0)
		return rc;
	if (f.kind != THIN_BLOB || f.tag != THIN_END)
		return ERR_CORRUPT;
	if (!val_text_ok(bytes))
		return cli_fail(cli, "The file %s is no text in UTF-8", file);
	*out = bytes;
	return 0;
}

/* Calls. */

int cli_call(struct cli *cli, const struct model_message *m, const struct val *args,
	struct val *result_out, struct err *err)
{
	if (cli->progress && m->async && m->route != MODEL_LOCAL)
		return cli_watched(cli, m, args, result_out, err);
	return within_call(
		cli->job, cli->call->io, &cli->call->caller, m, args, false, result_out, err);
}

int cli_invoke(struct cli *cli, const char *method, const struct val *args, unsigned n,
	struct val *result_out, struct err *err)
{
	const struct model_message *m = model_message_find(method);
	struct val *all, ignored;

	if (m == NULL || m->call == MODEL_REMOVED)
		return err_set(err, m == NULL ? ERR_MESSAGE_METHOD_UNKNOWN : ERR_MESSAGE_REMOVED,
			method, NULL);
	all = arena_alloc(cli->arena, (m->n_params + 1) * sizeof *all);
	for (unsigned i = 0; i < m->n_params; i++)
		all[i] = i < n ? args[i] : m->params[i].initial;
	return cli_call(cli, m, all, result_out != NULL ? result_out : &ignored, err);
}

void cli_view(struct cli *cli, struct db_view *out)
{
	db_view_pin(cli->pool->db, out);
}

/* The end of a command. */

static void say_stale(struct cli *cli)
{
	if (cli->call->stale)
		cli_stderr(cli,
			"This member has no contact with a coordinator: what it shows is %llu s "
			"old, nothing can be changed.\n",
			(unsigned long long)db_leader_silence_ms(cli->pool->db) / 1000);
}

/* A parameter of an error; a reference as what it stands for. */
static void say_param(struct cli *cli, const char *name, const char *value)
{
	const struct db_row *row = NULL;
	const char *uuid, *label;
	struct db_view view;
	int class_id = 0;

	cli_view(cli, &view);
	for (; strncmp(value, "OpaqueRef:", 10) == 0 && class_id < MODEL_CLASS_COUNT; class_id++)
		if (model_classes[class_id].table != MODEL_TABLE_INTERNAL &&
			class_id != MODEL_CLASS_session &&
			(row = db_view_get(&view, class_id, value)) != NULL)
			break;
	if (row == NULL) {
		cli_stderr(cli, "%s: %s\n", name, value);
	} else {
		uuid = model_classes[class_id].uuid_field >= 0
			       ? db_row_s(row, model_classes[class_id].uuid_field)
			       : value;
		label = model_classes[class_id].label_field >= 0
				? db_row_s(row, model_classes[class_id].label_field)
				: "";
		cli_stderr(cli, *label ? "%s: %s (%s)\n" : "%s: %s\n", name, uuid, label);
	}
	db_view_unpin(&view);
}

void cli_say_error(struct cli *cli, const struct err *err)
{
	struct thin_frame frame = { .kind = THIN_COMMAND, .tag = THIN_ERROR, .n = err->n };
	const char *text = cli_error_text(err->code), *const * names;
	unsigned at = 0, i;

	if (text == NULL) { /* the code says it best */
		frame.text = err->code->name;
		for (i = 0; i < err->n; i++)
			frame.list[i] = err->params[i];
		cli_frame(cli, &frame);
		return;
	}
	while (model_errors[at] != err->code)
		at++;
	names = model_error_params[at];
	cli_stderr(cli, "%s\n", text);
	for (i = 0; i < err->n; i++) {
		say_param(cli, *names != NULL ? *names : "<extra>", err->params[i]);
		names += *names != NULL;
	}
	for (; *names != NULL; names++)
		cli_stderr(cli, "%s: <unknown>\n", *names);
	if (cli->trace)
		cli_stderr(cli, "Raised %s\n", err->code->name);
}

static void finish(struct cli *cli, int rc, struct err *err)
{
	if (rc == ERR_API)
		cli_say_error(cli, err);
	else if (rc < 0)
		cli_stderr(cli, "The command was given up: %s\n", err_rc_name(rc));
	if (cli->minimal && rc == 0) {
		cli->minimal = false;
		cli_print(cli, buf_text(&cli->minimal_out));
	}
	cli_frame(cli, &(struct thin_frame){
			       .kind = THIN_COMMAND, .tag = THIN_EXIT, .number = rc == 0 ? 0 : 1 });
	cli_flush(cli);
}

static void on_ended(struct loop_call *posted)
{
	struct call *call = container_of(posted, struct call, posted);
	struct rpc_request *request = call->request;

	call->pool->n_clis--;
	if (call->job != NULL)
		job_put(call->job);
	call->job = NULL;
	call->request = NULL;
	want_look(call);
	if (request != NULL)
		rpc_reply_end(request);
	call_finish(call);
}

static void cli_main(struct job *job, void *arg)
{
	struct call *call = arg;
	struct cli cli = { .pool = call->pool, .call = call, .job = job, .arena = &job->arena };
	struct err err = { 0 };
	int rc = cli_params_parse(&cli, call->cli_text);

	say_stale(&cli);
	if (rc == 0)
		rc = cli_run(&cli, &err);
	finish(&cli, rc, &err);
	log_info(call->pool->env, "event=cli command=%s user=%s rc=%d code=%s",
		cli.command != NULL ? cli.command : "", call->caller.user, rc,
		err.code != NULL ? err.code->name : "");
	err_fini(&err);
	buf_fini(&cli.out);
	buf_fini(&cli.minimal_out);
	loop_post(call->io->loop, &call->posted, on_ended);
}

/* Its beginning, on the loop. */

static void greet(struct call *call)
{
	struct buf out = { 0 };

	rpc_raw_begin(call->request);
	call->request->waits = true;
	thin_put_greeting(&out);
	rpc_reply_put(call->request, out.data, out.len);
	buf_fini(&out);
}

/* Before a command could begin. */
void cli_refuse(struct call *call)
{
	struct buf out = { 0 };
	bool login = call->err.code == ERR_SESSION_AUTHENTICATION_FAILED;

	greet(call);
	thin_put(&out,
		&(struct thin_frame){ .kind = THIN_COMMAND,
			.tag = THIN_PRINT_STDERR,
			.text = login ? (call->login.user != NULL ? "Authentication failed\n"
								  : "Username/password must be "
								    "specified\n")
				      : arena_printf(&call->arena, "%s: %s\n", call->err.code->name,
						call->err.n > 0 ? call->err.params[0] : "") });
	thin_put(&out, &(struct thin_frame){ .kind = THIN_COMMAND, .tag = THIN_EXIT, .number = 1 });
	rpc_reply_put(call->request, out.data, out.len);
	rpc_reply_end(call->request);
	buf_fini(&out);
}

void cli_gone(struct call *call)
{
	if (call->job != NULL)
		job_cancel(call->job);
	want_look(call);
}

static void on_barrier(struct db_barrier *b)
{
	struct call *call = container_of(b, struct call, barrier);

	call->stale = !b->ok;
	if (call->request == NULL ||
		lane_submit(call->pool->clis, "", cli_main, call, &call->job) == 0) {
		if (call->request == NULL)
			on_ended(&call->posted);
		return;
	}
	call->pool->n_clis--;
	err_set(&call->err, ERR_TOO_MANY_PENDING_TASKS, NULL);
	call_finish(call);
}

int cli_begin(struct call *call, struct err *err)
{
	if (call->pool->n_clis >= CLI_COMMANDS_MAX)
		return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
	call->pool->n_clis++;
	call->caller.originator = "cli";
	greet(call);
	call->request->received = on_received;
	call->request->drained = service_drained;
	db_read_barrier(call->pool->db, &call->barrier, call->io->loop, on_barrier);
	return CALL_PENDING;
}

/* Credentials: a first line session_id=, else username= and password= among the lines, the last of
 * each. They are taken out of what the command sees. */
void cli_authenticate(struct call *call)
{
	char *text = arena_strndup(&call->arena, call->request->body, call->request->body_len),
	     *out = text, *user = NULL, *password = NULL;

	call->cli_text = text;
	if (call->request->body_len > THIN_ARGS_MAX) {
		err_set(&call->err, ERR_INTERNAL_ERROR, "the arguments are too long", NULL);
		call_finish(call);
		return;
	}
	for (char *line = text, *next; line != NULL; line = next) {
		size_t n = strcspn(line, "\n");

		next = line[n] != 0 ? line + n + 1 : NULL;
		if (n > 0 && line[n - 1] == '\r')
			n--;
		if (line == text && n > 11 && strncmp(line, "session_id=", 11) == 0)
			call->session_ref = arena_strndup(&call->arena, line + 11, n - 11);
		else if (n >= 9 && strncmp(line, "username=", 9) == 0)
			user = arena_strndup(&call->arena, line + 9, n - 9);
		else if (n >= 9 && strncmp(line, "password=", 9) == 0)
			password = arena_strndup(&call->arena, line + 9, n - 9);
		else {
			memmove(out, line, n);
			out += n;
			*out++ = '\n';
		}
	}
	/* never longer than what it was made from but for the newline of its last line, which
	 * arena_strndup's NUL has left room for */
	out[out > text && out[-1] == '\n' ? -1 : 0] = 0;
	if (call->session_ref != NULL) {
		call_run(call);
		return;
	}
	if (user != NULL && password != NULL && service_login(call, user, password))
		return;
	if (call->err.code == NULL)
		err_set(&call->err, ERR_SESSION_AUTHENTICATION_FAILED, "", "no credentials", NULL);
	call_finish(call);
}
