/* What is HTTP and no call of the API: its authentication, and the services themselves.
 *
 * Authentication, in this order: session_id of the cookie, else of the query: a session as in
 * calls; `Authorization: Basic`: the password is checked, no session is made; else 401. Then the
 * role. task_id names a task that is told how it ended. Every answer closes its connection. Source:
 * http-handlers.md 1.
 */
#include "db/dump.h"
#include "pool/pool_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int xmldbdump(struct call *call, struct err *err);

struct service {
	const char *path, *permission;
	int (*run)(struct call *call, struct err *err);
};

static const struct service services[] = {
	{ "/pool/xmldbdump", "http/get_pool_xml_db_sync", xmldbdump },
};

/* Parameters. */

static int hex(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* %41 is A; what is no such thing stays. */
static char *percent_decoded(struct arena *a, const char *s, size_t n)
{
	char *out = arena_alloc(a, n + 1), *to = out;

	for (size_t i = 0; i < n; i++) {
		if (s[i] == '%' && i + 2 < n && hex(s[i + 1]) >= 0 && hex(s[i + 2]) >= 0) {
			*to++ = (char)(hex(s[i + 1]) << 4 | hex(s[i + 2]));
			i += 2;
		} else {
			*to++ = s[i];
		}
	}
	*to = 0;
	return out;
}

/* The value of a name in "a=1&b=2" or "a=1; b=2"; NULL when it is not there. */
static const char *value_in(struct arena *a, const char *text, const char *name)
{
	size_t n = strlen(name), len;

	for (; *text; text += strspn(text, "&; ")) {
		len = strcspn(text, "&;");
		if (len > n && strncmp(text, name, n) == 0 && text[n] == '=')
			return percent_decoded(a, text + n + 1, len - n - 1);
		text += len;
	}
	return NULL;
}

static const char *parameter(struct call *call, const char *name)
{
	const char *value = value_in(&call->arena, call->request->cookie, name);

	return value != NULL ? value : value_in(&call->arena, call->request->query, name);
}

/* Answers. */

static unsigned status_of(const struct err *err)
{
	if (err->code == ERR_SESSION_INVALID || err->code == ERR_SESSION_AUTHENTICATION_FAILED)
		return 401;
	if (err->code == ERR_RBAC_PERMISSION_DENIED)
		return 403;
	return err->code == ERR_TOO_MANY_PENDING_TASKS ? 503 : 500;
}

/* Refused, before anything was sent. */
void service_refuse(struct call *call)
{
	unsigned status = status_of(&call->err);
	struct buf body = { 0 };
	char headers[128] = "";

	buf_printf(&body, "%s: [ ", call->err.code->name);
	/* a session is a secret on show, also where it does not hold */
	for (unsigned i = 0; status != 401 && i < call->err.n; i++)
		buf_printf(&body, "%s%s", i > 0 ? "; " : "", call->err.params[i]);
	buf_puts(&body, " ]\n");
	if (status == 401)
		snprintf(headers, sizeof headers, "WWW-Authenticate: Basic realm=\"%s\"\r\n",
			strchr(call->service->permission, '/') + 1);
	rpc_reply_begin(call->request, status, "text/plain", headers);
	rpc_reply_put(call->request, body.data, body.len);
	rpc_reply_end(call->request);
	buf_fini(&body);
}

static void on_task_told(struct db_proposal *p)
{
	call_finish(container_of(p, struct call, proposal));
}

/* The end of a service that was permitted: the task that was given hears of it. */
static void end(struct call *call)
{
	struct val info = val_set();
	struct db_txn txn;

	loop_assert(call->io->loop);
	if (call->task[0] == 0) {
		call_finish(call);
		return;
	}
	if (call->err.code != NULL)
		val_set_push(&call->arena, &info, val_string(call->err.code->name));
	for (unsigned i = 0; i < call->err.n; i++)
		val_set_push(&call->arena, &info, val_string(call->err.params[i]));
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_origin(&txn,
		(struct db_origin){ call->caller.user, call->task, call->service->permission });
	db_txn_need_field(&txn, MODEL_CLASS_task, call->task, TASK_status, val_string("pending"));
	/* not an operation of the pool: that ends by itself */
	db_txn_need_field(&txn, MODEL_CLASS_task, call->task, TASK_method, val_string(""));
	db_txn_set(&txn, MODEL_CLASS_task, call->task, TASK_status,
		val_string(call->err.code != NULL ? "failure" : "success"));
	db_txn_set(&txn, MODEL_CLASS_task, call->task, TASK_error_info, info);
	db_txn_set(&txn, MODEL_CLASS_task, call->task, TASK_progress, val_float(1));
	db_txn_set(&txn, MODEL_CLASS_task, call->task, TASK_finished,
		val_datetime(env_wall_s(call->pool->env)));
	db_propose(call->pool->db, &call->proposal, &txn, call->io->loop, on_task_told);
}

/* Who asks. */

static int permitted(struct call *call, struct err *err)
{
	if (call->caller.superuser)
		return 0;
	return err_set(err, ERR_RBAC_PERMISSION_DENIED, call->service->permission,
		"No permission in user session.", NULL);
}

/* On the call's loop, with a view: session, role, and off. */
int service_execute(struct call *call, struct err *err)
{
	int rc = call->session_ref != NULL ? session_check(call, call->session_ref, err) : 0;

	if (rc != 0)
		return rc;
	rc = permitted(call, err);
	if (rc == 0)
		rc = call->service->run(call, err);
	if (rc != ERR_API || call->task[0] == 0)
		return rc;
	end(call);
	return CALL_PENDING;
}

static int base64_digit(char c)
{
	return c >= 'A' && c <= 'Z'   ? c - 'A'
	       : c >= 'a' && c <= 'z' ? c - 'a' + 26
	       : c >= '0' && c <= '9' ? c - '0' + 52
	       : c == '+'	      ? 62
	       : c == '/'	      ? 63
				      : -1;
}

static char *base64_decoded(struct arena *a, const char *s)
{
	char *out = arena_alloc(a, strlen(s) + 1), *to = out;
	unsigned bits = 0, n = 0;

	for (; base64_digit(*s) >= 0; s++) {
		bits = bits << 6 | (unsigned)base64_digit(*s);
		if ((n += 6) >= 8) {
			n -= 8;
			*to++ = (char)(bits >> n);
		}
	}
	*to = 0;
	return out;
}

static void on_penalty(struct loop_timer *t)
{
	call_finish(container_of(t, struct call, timer));
}

static void on_checked(struct loop_call *posted)
{
	struct call *call = container_of(posted, struct call, posted);

	if (call->login_ok) {
		call->caller.superuser = true; /* every login is root's */
		call_run(call);
		return;
	}
	log_warn(call->pool->env, "event=login_refused user=%s service=%s", call->caller.user,
		call->service->permission);
	err_set(&call->err, ERR_SESSION_AUTHENTICATION_FAILED, call->caller.user,
		"Authentication failure", NULL);
	loop_timer_start(call->io->loop, &call->timer, POOL_LOGIN_PENALTY_MS, on_penalty);
}

static void check_main(struct job *job, void *arg)
{
	struct call *call = arg;

	(void)job;
	call->login_ok =
		session_password_good(call->pool->password_file, call->caller.user, call->password);
	loop_post(call->io->loop, &call->posted, on_checked);
}

static void authenticate(struct call *call)
{
	static const char basic[] = "Basic ";
	const char *given = call->request->authorization;
	char *user, *colon;

	call->session_ref = parameter(call, "session_id");
	if (call->session_ref != NULL) {
		call_run(call);
		return;
	}
	if (strncasecmp(given, basic, strlen(basic)) == 0) {
		user = base64_decoded(&call->arena, given + strlen(basic));
		colon = strchr(user, ':');
		if (colon != NULL) {
			*colon = 0;
			call->caller.user = user;
			call->password = colon + 1;
			if (lane_submit(call->pool->api, "", check_main, call, NULL) == 0)
				return;
		}
	}
	err_set(&call->err, ERR_SESSION_AUTHENTICATION_FAILED, "", "no credentials", NULL);
	call_finish(call);
}

static void on_gone(struct rpc_request *request, void *arg);

bool pool_service(void *arg, struct rpc_request *request)
{
	const struct service *s = NULL;
	struct call *call;
	const char *task;

	for (size_t i = 0; i < ARRAY_LEN(services); i++)
		if (strcmp(request->path, services[i].path) == 0)
			s = &services[i];
	if (s == NULL)
		return false;
	call = call_new(arg, request);
	request->gone = on_gone;
	call->service = s;
	call->message.method = s->permission;
	task = parameter(call, "task_id");
	if (task != NULL && strlen(task) <= DB_REF_MAX)
		strcpy(call->task, task);
	authenticate(call);
	return true;
}

/* A file to the client, piece by piece: read by the job, sent by the loop, the next one when this
 * one has left. */

struct piece {
	struct wait wait; /* first */
	struct call *call;
	struct loop_call posted;
	bool gone; /* the client has */
	size_t n;
	uint8_t bytes[DB_DUMP_PIECE];
};

static void piece_fini(struct wait *w)
{
	free(container_of(w, struct piece, wait));
}

static void piece_done(struct call *call)
{
	struct piece *p = call->piece;

	call->piece = NULL;
	if (p != NULL)
		wait_done(&p->wait);
}

static void on_drained(struct rpc_request *request, void *arg)
{
	(void)request;
	piece_done(arg);
}

static void on_gone(struct rpc_request *request, void *arg)
{
	struct call *call = arg;

	(void)request;
	call->request = NULL;
	if (call->piece != NULL)
		call->piece->gone = true;
	piece_done(call);
}

static void on_piece(struct loop_call *posted)
{
	struct piece *p = container_of(posted, struct piece, posted);
	struct call *call = p->call;

	call->piece = p;
	if (call->request == NULL) {
		p->gone = true;
		piece_done(call);
		return;
	}
	if (call->request->drained == NULL) {
		call->request->drained = on_drained;
		rpc_reply_begin(call->request, 200, "text/xml", NULL);
	}
	rpc_reply_put(call->request, p->bytes, p->n);
}

/* 0; ERR_CLOSED: the client has gone; ERR_TIMEOUT: it takes nothing; ERR_DEAD. */
static int send_piece(struct job *job, struct call *call, struct piece *p)
{
	int rc;

	p->call = call;
	loop_post(call->io->loop, &p->posted, on_piece);
	rc = wait_join(&p->wait, POOL_STALL_MS, false);
	if (rc == 0 && p->gone)
		rc = ERR_CLOSED;
	(void)job;
	wait_drop(&p->wait);
	return rc;
}

static int send_file(struct job *job, struct call *call, int fd)
{
	struct piece *p;
	ssize_t n;
	off_t at = 0;
	int rc = 0;

	while (rc == 0) {
		p = mem_new(sizeof *p);
		n = pread(fd, p->bytes, sizeof p->bytes, at);
		if (n <= 0) {
			free(p);
			return n == 0 ? 0 : ERR_IO;
		}
		wait_init(&p->wait, job, piece_fini);
		p->n = (size_t)n;
		at += n;
		rc = send_piece(job, call, p);
	}
	return rc;
}

/* GET /pool/xmldbdump: the database at one index. First into a file of ours, at full speed: a
 * client that reads slowly must hold a file, never a view. */

static void on_dumped(struct loop_call *posted)
{
	struct call *call = container_of(posted, struct call, posted);

	call->pool->n_dumps--;
	piece_done(call); /* one that was given up */
	if (call->request != NULL && call->request->drained != NULL) {
		/* begun: whoever reads it sees by the missing end that it failed */
		rpc_reply_end(call->request);
		call->request = NULL;
	}
	end(call);
}

static int dump_to(struct call *call, int fd)
{
	struct db_view view;
	int rc;

	db_view_pin(call->pool->db, &view);
	rc = db_dump_file(&view, fd);
	db_view_unpin(&view);
	return rc;
}

static void dump_main(struct job *job, void *arg)
{
	struct call *call = arg;
	char path[512];
	int fd, rc = ERR_IO;

	snprintf(path, sizeof path, "%s/dump-XXXXXX", call->pool->cfg.db.dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0) {
		unlink(path);
		rc = dump_to(call, fd);
	}
	if (rc != 0)
		err_set(&call->err, ERR_INTERNAL_ERROR, strerror(errno), NULL);
	else if ((rc = send_file(job, call, fd)) != 0)
		err_set(&call->err, ERR_INTERNAL_ERROR, err_rc_name(rc), NULL);
	if (rc != 0)
		log_warn(call->pool->env, "event=dump_not_sent peer_user=%s why=\"%s\"",
			call->caller.user, call->err.params[0]);
	if (fd >= 0)
		close(fd);
	loop_post(call->io->loop, &call->posted, on_dumped);
}

static int xmldbdump(struct call *call, struct err *err)
{
	if (call->pool->n_dumps >= POOL_DUMPS_MAX)
		return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
	call->pool->n_dumps++;
	if (lane_submit(call->pool->api, "", dump_main, call, NULL) != 0) {
		call->pool->n_dumps--;
		return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
	}
	return CALL_PENDING;
}
