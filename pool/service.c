/* What is HTTP and no call of the API: its authentication, and the services themselves.
 *
 * Authentication, in this order: session_id of the cookie, else of the query: a session as in
 * calls; `Authorization: Basic`: the password is checked, no session is made; else 401. Of a page
 * of another site only a session in the query counts. Then the role. task_id names a task that is
 * told how it ended. Every answer closes its connection. Source: http-handlers.md 1.
 */
#include "db/dump.h"
#include "pool/pool_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int file_begin(struct call *call, struct err *err);
static void dump_main(struct job *job, void *arg);

struct service {
	const char *method, *path, *permission, *type;
	void (*send)(struct job *job, void *arg); /* of file_begin: ends by service_served */
	int (*run)(struct call *call, struct err *err);
	/* NULL: as HTTP does it */
	void (*authenticate)(struct call *call);
	void (*refuse)(struct call *call);
};

static const struct service services[] = {
	{ "GET", "/pool/xmldbdump", "http/get_pool_xml_db_sync", "text/xml", dump_main, file_begin,
		NULL, NULL },
	{ "GET", "/audit_log", "http/get_audit_log", "text/plain", audit_fetch, file_begin, NULL,
		NULL },
	{ "POST", "/audit_log", "http/get_audit_log", NULL, NULL, audit_page_begin,
		proof_authenticate, NULL },
	{ "GET", "/console", "http/connect_console_ws", NULL, NULL, console_begin, NULL, NULL },
	{ "CONNECT", "/console", "http/connect_console", NULL, NULL, console_begin, NULL, NULL },
	{ "POST", "/cli", "http/post_cli", NULL, NULL, cli_begin, cli_authenticate, cli_refuse },
	{ "POST", "/pool/newcomer", "pool.exchange_certificates_on_join", NULL, NULL,
		newcomer_begin, NULL, NULL },
	{ "POST", "/pool/follow", "pool.emergency_reset_master", NULL, NULL, epoch_follow,
		proof_authenticate, NULL },
	{ "POST", "/pool/newcomer/check", "pool.exchange_certificates_on_join", NULL, NULL,
		newcomer_check_begin, NULL, NULL },
	{ "POST", "/pool/members", "pool.emergency_reset_master", NULL, NULL, epoch_tell,
		proof_authenticate, NULL },
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

const char *service_parameter(struct call *call, const char *name)
{
	const char *value;

	if (call->request == NULL) /* the client has gone */
		return NULL;
	value = value_in(&call->arena, call->request->cookie, name);

	return value != NULL ? value : value_in(&call->arena, call->request->query, name);
}

/* Answers. */

static unsigned status_of(const struct err *err)
{
	if (err->code == ERR_SESSION_INVALID || err->code == ERR_SESSION_AUTHENTICATION_FAILED)
		return 401;
	if (err->code == ERR_RBAC_PERMISSION_DENIED ||
		err->code == ERR_SESSION_AUTHORIZATION_FAILED)
		return 403;
	if (err->code == ERR_HANDLE_INVALID || err->code == ERR_UUID_INVALID)
		return 404;
	if (err->code == ERR_NOT_IMPLEMENTED)
		return 501;
	return err->code == ERR_TOO_MANY_PENDING_TASKS ? 503 : 500;
}

/* Refused, before anything was sent. */
void service_refuse(struct call *call)
{
	unsigned status = status_of(&call->err);
	const char *permission = call->service->permission, *realm = strchr(permission, '/');
	struct buf body = { 0 };
	char headers[128] = "";

	if (call->service->refuse != NULL) {
		call->service->refuse(call);
		return;
	}
	buf_printf(&body, "%s: [ ", call->err.code->name);
	/* a session is a secret on show, also where it does not hold */
	for (unsigned i = 0; status != 401 && i < call->err.n; i++)
		buf_printf(&body, "%s%s", i > 0 ? "; " : "", call->err.params[i]);
	buf_puts(&body, " ]\n");
	if (status == 401)
		snprintf(headers, sizeof headers, "WWW-Authenticate: Basic realm=\"%s\"\r\n",
			realm != NULL ? realm + 1 : permission);
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
void service_end(struct call *call)
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

/* On the call's loop, with a view: session, role, and off. */
int service_execute(struct call *call, struct err *err)
{
	int rc = call->session_ref != NULL ? session_check(call, call->session_ref, err) : 0;

	if (rc != 0)
		return rc;
	audit_begin(call);
	rc = role_need(&call->caller, call->service->permission, err);
	if (rc == 0 && call->task[0] != 0 && role_task(call, call->task, err) != 0)
		return ERR_API; /* of somebody else: not told */
	if (rc == 0)
		rc = call->service->run(call, err);
	if (rc != ERR_API || call->task[0] == 0)
		return rc;
	service_end(call);
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

static void on_identified(struct call *call)
{
	const struct login *login = &call->login;

	call->caller = (struct caller){ .user = login->name,
		.session = NULL_REF,
		.originator = "",
		.sid = login->sid,
		.superuser = login->superuser,
		.roles = login->roles,
		.subjects = login->superuser ? NULL : &login->subjects };
	call_run(call);
}

bool service_login(struct call *call, const char *user, const char *password)
{
	return auth_check(call, user, password, false, on_identified, &call->err) == CALL_PENDING;
}

/* From a page of another site, whose browser adds cookies and passwords of ours by itself: what it
 * says in the query it knows. */
static bool foreign(const struct rpc_request *r)
{
	const char *name = strstr(r->origin, "://");

	return *r->origin != 0 && (name == NULL || strcasecmp(name + 3, r->host) != 0);
}

static void authenticate(struct call *call)
{
	static const char basic[] = "Basic ";
	const char *given = call->request->authorization;
	char *user, *colon;

	call->session_ref = foreign(call->request)
				    ? value_in(&call->arena, call->request->query, "session_id")
				    : service_parameter(call, "session_id");
	if (call->session_ref != NULL) {
		call_run(call);
		return;
	}
	if (!foreign(call->request) && strncasecmp(given, basic, strlen(basic)) == 0) {
		user = base64_decoded(&call->arena, given + strlen(basic));
		colon = strchr(user, ':');
		if (colon != NULL) {
			*colon = 0;
			if (service_login(call, user, colon + 1))
				return;
		}
	}
	if (call->err.code == NULL)
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
		if (strcmp(request->path, services[i].path) == 0 &&
			strcmp(request->method, services[i].method) == 0)
			s = &services[i];
	if (s == NULL)
		return false;
	call = call_new(arg, request);
	request->gone = on_gone;
	call->service = s;
	call->message.method = s->permission;
	task = service_parameter(call, "task_id");
	if (task != NULL && strlen(task) <= DB_REF_MAX)
		strcpy(call->task, task);
	(s->authenticate != NULL ? s->authenticate : authenticate)(call);
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

void service_drained(struct rpc_request *request, void *arg)
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
	cli_gone(call);
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
		call->request->drained = service_drained;
		rpc_reply_begin(call->request, 200, call->service->type, NULL);
	}
	rpc_reply_put(call->request, p->bytes, p->n);
}

/* 0; ERR_CLOSED: the client has gone; ERR_TIMEOUT: it takes nothing; ERR_DEAD. */
static int send_piece(struct job *job, struct call *call, struct piece *p, uint64_t stall_ms)
{
	int rc;

	wait_init(&p->wait, job, piece_fini);
	p->call = call;
	loop_post(call->io->loop, &p->posted, on_piece);
	rc = wait_join(&p->wait, stall_ms, false);
	if (rc == 0 && p->gone)
		rc = ERR_CLOSED;
	wait_drop(&p->wait);
	return rc;
}

int service_send(struct job *job, struct call *call, const void *from, size_t n, uint64_t stall_ms)
{
	struct piece *p;
	int rc = 0;

	for (size_t at = 0; at < n && rc == 0; at += sizeof p->bytes) {
		p = mem_new(sizeof *p);
		p->n = n - at < sizeof p->bytes ? n - at : sizeof p->bytes;
		memcpy(p->bytes, (const uint8_t *)from + at, p->n);
		rc = send_piece(job, call, p, stall_ms);
	}
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
		p->n = (size_t)n;
		at += n;
		rc = send_piece(job, call, p, POOL_STALL_MS);
	}
	return rc;
}

/* Services that send files: some at a time. */

void service_served(struct loop_call *posted)
{
	struct call *call = container_of(posted, struct call, posted);

	call->pool->n_dumps--;
	piece_done(call); /* one that was given up */
	if (call->request != NULL && call->request->drained == NULL && call->err.code == NULL) {
		/* there was nothing to send */
		call->request->drained = service_drained;
		rpc_reply_begin(call->request, 200, call->service->type, NULL);
	}
	if (call->request != NULL && call->request->drained != NULL) {
		/* begun: whoever reads it sees by the missing end that it failed */
		rpc_reply_end(call->request);
		call->request = NULL;
	}
	service_end(call);
}

static int file_begin(struct call *call, struct err *err)
{
	call->since = service_parameter(call, "since");
	if (call->pool->n_dumps >= POOL_DUMPS_MAX)
		return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
	call->pool->n_dumps++;
	if (lane_submit(call->pool->api, "", call->service->send, call, NULL) != 0) {
		call->pool->n_dumps--;
		return err_set(err, ERR_TOO_MANY_PENDING_TASKS, NULL);
	}
	return CALL_PENDING;
}

/* GET /pool/xmldbdump: the database at one index. First into a file of ours, at full speed: a
 * client that reads slowly must hold a file, never a view. */

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
	loop_post(call->io->loop, &call->posted, service_served);
}
