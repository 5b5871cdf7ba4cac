/* The audit log, as this member writes it (audit_fetch.c reads all members): a line for each call
 * that may change something, and for each that was refused for its caller's roles or password.
 *
 *   call (I/O loop): arguments by name before it runs, the line when it ends -> memory -> a job of
 * a lane of its own -> files that are rotated
 *
 * No call waits for the disk: what a disk does not take in time is dropped, counted, and said in
 * the log itself. Arguments are written by what the model says of them: references with name and
 * uuid, numbers, enumerations, and strings only by the names of the list below; so no password, no
 * value of a map, no secret. A session is shown by a keyed sum of its reference. Format:
 * sessions.md 3.7, http-handlers.md 9; docs/formats.md.
 */
#include "pool/pool_priv.h"

#include "rpc/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	WAITING_MAX = 4 << 20, /* bytes in memory */
	FILE_MAX = 8 << 20,
	LINE_MAX_BYTES = 8192, /* of one line's arguments */
	VALUE_MAX = 256,
	REFS_MAX = 16, /* of a set */
};

struct audit {
	struct lane *lane;
	char dir[512];
	pthread_mutex_t mutex; /* of these */
	struct buf waiting;
	uint64_t dropped;
	bool writing;
	pthread_mutex_t files; /* held while they are renamed, or opened for a reader */
	int fd;		       /* the job's; -1: not open */
	uint64_t size;
};

/* The files, by a job. */

static void path_of(const struct audit *a, unsigned n, char out[600])
{
	if (n == 0)
		snprintf(out, 600, "%s/audit.log", a->dir);
	else
		snprintf(out, 600, "%s/audit.log.%u", a->dir, n);
}

static bool audit_open(struct audit *a)
{
	struct stat st;
	char path[600];

	if (a->fd >= 0)
		return true;
	folder_make(a->dir); /* there already: fine */
	path_of(a, 0, path);
	a->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (a->fd >= 0 && fstat(a->fd, &st) == 0)
		a->size = (uint64_t)st.st_size;
	return a->fd >= 0;
}

static void rotate(struct audit *a)
{
	char from[600], to[600];

	close(a->fd);
	a->fd = -1;
	pthread_mutex_lock(&a->files);
	for (unsigned n = AUDIT_FILES - 1; n > 0; n--) {
		path_of(a, n - 1, from);
		path_of(a, n, to);
		rename(from, to); /* one that is not there yet: nothing */
	}
	pthread_mutex_unlock(&a->files);
}

static bool write_all(struct audit *a, const struct buf *text)
{
	size_t done = 0;

	while (done < text->len) {
		ssize_t n = write(a->fd, text->data + done, text->len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		done += (size_t)n;
		a->size += (uint64_t)n;
	}
	return true;
}

static unsigned lines_in(const struct buf *text)
{
	unsigned n = 0;

	for (size_t i = 0; i < text->len; i++)
		n += text->data[i] == '\n';
	return n;
}

/* false: nothing is left to write. */
static bool take(struct audit *a, struct buf *text)
{
	pthread_mutex_lock(&a->mutex);
	*text = a->waiting;
	buf_init(&a->waiting);
	a->writing = text->len > 0;
	pthread_mutex_unlock(&a->mutex);
	return text->len > 0;
}

static void write_main(struct job *job, void *arg)
{
	struct pool *pool = arg;
	struct audit *a = pool->audit;
	struct buf text;

	while (take(a, &text)) {
		if (!audit_open(a) || !write_all(a, &text)) {
			log_err(job->env, "event=audit_not_written dir=%s why=\"%s\"", a->dir,
				strerror(errno));
			pthread_mutex_lock(&a->mutex);
			a->dropped += lines_in(&text);
			pthread_mutex_unlock(&a->mutex);
			COUNT(job->env, audit_dropped);
			if (a->fd >= 0)
				close(a->fd);
			a->fd = -1;
		} else if (a->size >= FILE_MAX) {
			rotate(a);
		}
		buf_fini(&text);
	}
	buf_fini(&text);
}

/* Lines, by any loop. */

void audit_put_time(struct buf *b, struct env *env)
{
	time_t now = (time_t)env_wall_s(env);
	struct tm t;

	gmtime_r(&now, &t);
	buf_printf(b, "[%04d%02d%02dT%02d:%02d:%02d.000Z|", t.tm_year + 1900, t.tm_mon + 1,
		t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec);
}

static void put_line(struct pool *pool, const struct buf *line)
{
	struct audit *a = pool->audit;
	bool begin = false;

	pthread_mutex_lock(&a->mutex);
	if (a->waiting.len + line->len > WAITING_MAX) {
		a->dropped++;
		COUNT(pool->env, audit_dropped);
	} else {
		if (a->dropped > 0) {
			audit_put_time(&a->waiting, pool->env);
			buf_printf(&a->waiting, "warn|%s|0 ||audit] %llu lines were dropped\n",
				pool->host_uuid, (unsigned long long)a->dropped);
			a->dropped = 0;
		}
		buf_put(&a->waiting, line->data, line->len);
		begin = !a->writing;
		a->writing = true;
	}
	pthread_mutex_unlock(&a->mutex);
	if (!begin || lane_submit(a->lane, "", write_main, pool, NULL) == 0)
		return;
	pthread_mutex_lock(&a->mutex);
	a->writing = false; /* the next line tries again */
	pthread_mutex_unlock(&a->mutex);
}

/* On one line. */
static void put_plain(struct buf *b, const char *text, size_t most)
{
	for (size_t i = 0; text[i] != 0 && i < most; i++)
		buf_u8(b, (unsigned char)text[i] < ' ' || text[i] == 127 ? ' ' : (uint8_t)text[i]);
}

/* 'text', on one line. */
static void put_quoted(struct buf *b, const char *text, size_t most)
{
	buf_puts(b, "'");
	for (size_t i = 0; text[i] != 0 && i < most; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '\'' || c == '\\')
			buf_puts(b, "\\");
		buf_u8(b, c < ' ' || c == 127 ? ' ' : c);
	}
	buf_puts(b, "'");
}

static void put_item(
	struct buf *b, const char *name, const char *value, const char *uuid, const char *ref)
{
	buf_puts(b, b->len > 0 ? " (" : "(");
	put_quoted(b, name, VALUE_MAX);
	buf_puts(b, " ");
	put_quoted(b, value, VALUE_MAX);
	buf_puts(b, " ");
	put_quoted(b, uuid, VALUE_MAX);
	buf_puts(b, " ");
	put_quoted(b, ref, VALUE_MAX);
	buf_puts(b, ")");
}

/* What people call it. */
static const char *name_of(const struct db_row *row, struct arena *a)
{
	const struct model_class *c = &model_classes[db_row_class(row)];
	struct val facts;
	const char *name;

	if (db_row_class(row) == MODEL_CLASS_subject) {
		facts = db_row_field(row, SUBJECT_other_config, a);
		name = val_get_s(&facts, "subject-name");
		return name != NULL ? name : db_row_s(row, SUBJECT_subject_identifier);
	}
	return c->label_field >= 0 ? db_row_s(row, c->label_field) : "";
}

/* Strings that are shown: names, and what tells one call from another. */
static bool shown(const char *name)
{
	static const char *const names[] = { "name", "label", "description", "name_label",
		"name_description", "new_name", "key", "uuid", "obj_uuid", "cls", "hostname",
		"address", "master_address", "device", "userdevice", "service_name", "auth_type",
		"subject_identifier", "external_auth_type", "external_auth_service_name", "edition",
		"type", "plugin", "fn", "bridge" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

static void put_ref(
	struct buf *b, struct call *call, const char *name, int class_id, const struct val *v)
{
	const struct db_row *row;

	if (v->kind != VAL_STRING)
		return;
	row = class_id == MODEL_CLASS_session ? NULL : db_view_get(&call->view, class_id, v->s);
	if (row == NULL) { /* not there; a session is a secret, and a long text is none of ours */
		put_item(b, name, "", "",
			class_id == MODEL_CLASS_session || strncmp(v->s, "OpaqueRef:", 10) != 0
				? ""
				: v->s);
		return;
	}
	put_item(b, name, name_of(row, &call->arena),
		db_row_s(row, model_classes[class_id].uuid_field), v->s);
}

static void put_argument(struct buf *b, struct call *call, const char *name,
	const struct model_type *type, const struct val *v)
{
	struct buf text = { 0 };

	if (b->len > LINE_MAX_BYTES)
		return;
	switch (type->kind) {
	case MODEL_REF: put_ref(b, call, name, type->class_id, v); break;
	case MODEL_INT:
	case MODEL_BOOL:
	case MODEL_FLOAT:
	case MODEL_ENUM:
	case MODEL_DATETIME:
		if (v->kind == VAL_SET || v->kind == VAL_MAP || v->kind == VAL_VOID)
			break;
		val_text(&text, v);
		put_item(b, name, buf_text(&text), "", "");
		break;
	case MODEL_STRING:
		if (v->kind == VAL_STRING && shown(name))
			put_item(b, name, v->s, "", "");
		break;
	case MODEL_SET:
		for (uint32_t i = 0; type->item->kind == MODEL_REF && v->kind == VAL_SET &&
				     i < v->n && i < REFS_MAX;
			i++)
			put_ref(b, call, name, type->item->class_id, &v->items[i]);
		break;
	default: break;
	}
	buf_fini(&text);
}

/* The fields of the object that is to be made, as they came. */
static void put_fields(struct buf *b, struct call *call)
{
	const struct model_class *c = &model_classes[call->method->class_id];

	for (unsigned i = 0; i < c->n_fields; i++) {
		const struct val *v = val_get(&call->args[0], c->fields[i].name);

		if (v != NULL && c->fields[i].qualifier != MODEL_DYNAMIC_RO)
			put_argument(b, call, c->fields[i].name, c->fields[i].type, v);
	}
}

/* Is a call of that name worth a line when it was permitted? As the reference decides it. */
static bool changes(const struct model_message *m, const char *method)
{
	static const char *const passed_over[] = { "session.local_logout", "event.from",
		"event.next", "event.register", "event.unregister", "http/post_cli" };

	if (m != NULL && m->call <= MODEL_GET_FIELD && m->call != MODEL_CREATE &&
		m->call != MODEL_DESTROY)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(passed_over); i++)
		if (strcmp(method, passed_over[i]) == 0)
			return false;
	return strstr(method, ".get") == NULL;
}

void audit_begin(struct call *call)
{
	struct buf b = { 0 };

	if (call->audit != NULL)
		return; /* it runs again */
	call->audit = "";
	call->worth_a_line = changes(call->service != NULL ? NULL : call->method,
		call->service != NULL ? call->message.method : call->method->name);
	if (call->service != NULL || call->method->call == MODEL_REMOVED || !call->worth_a_line)
		return;
	if (call->method->call == MODEL_CREATE)
		put_fields(&b, call);
	else
		for (unsigned i = 0; i < call->method->n_params; i++)
			put_argument(&b, call, call->method->params[i].name,
				call->method->params[i].type, &call->args[i]);
	if (b.len > 0)
		call->audit = arena_strdup(&call->arena, buf_text(&b));
	buf_fini(&b);
}

/* The same for all lines of a session, and of no use to a thief. */
static void put_track(struct buf *b, const struct caller *caller)
{
	const char *ref = caller->local != NULL ? caller->local : caller->session;
	uint8_t mac[32];

	tls_hmac("audit", 5, ref != NULL ? ref : "", mac);
	buf_puts(b, "'trackid=");
	for (unsigned i = 0; i < 16; i++)
		buf_printf(b, "%02x", mac[i]);
	buf_puts(b, "' ");
}

static void put_host(struct buf *b, struct pool *pool)
{
	const struct db_row *self;
	struct db_view view;

	db_view_pin(pool->db, &view);
	self = pool_self(pool, &view);
	buf_printf(b, "info|%s|0 |",
		self != NULL && *db_row_s(self, HOST_hostname) ? db_row_s(self, HOST_hostname)
							       : pool->host_uuid);
	db_view_unpin(&view);
}

static void put_call(struct call *call, const char *name, bool denied, const char *arguments)
{
	const struct caller *caller = &call->caller;
	struct buf b = { 0 };
	const char *code = call->err.code != NULL ? call->err.code->name : "";

	audit_put_time(&b, call->pool->env);
	put_host(&b, call->pool);
	buf_printf(&b, "%s %s%s|audit] (", name, call->task[0] != 0 ? "R:" : "",
		call->task + strcspn(call->task, ":") + (call->task[0] != 0));
	put_track(&b, caller);
	put_quoted(&b,
		caller->local != NULL ? "LOCAL_SESSION"
		: caller->superuser   ? "LOCAL_SUPERUSER"
		: caller->sid != NULL ? caller->sid
				      : "",
		VALUE_MAX);
	buf_puts(&b, " ");
	put_quoted(&b, caller->user != NULL ? caller->user : "", VALUE_MAX);
	buf_printf(&b, " '%s' '%s%s%s' '%s' ", denied ? "DENIED" : "ALLOWED",
		*code ? "ERROR" : "OK", *code ? ":" : "", code,
		strncmp(name, "http/", 5) == 0 ? "HTTP" : "API");
	put_quoted(&b, name, VALUE_MAX);
	buf_printf(&b, " (%s))\n", arguments);
	put_line(call->pool, &b);
	buf_fini(&b);
}

static bool is_refusal(const struct err_code *code)
{
	return code == ERR_RBAC_PERMISSION_DENIED || code == ERR_SESSION_AUTHENTICATION_FAILED ||
	       code == ERR_SESSION_AUTHORIZATION_FAILED;
}

/* A name and a password. */
static void put_login(struct call *call, const char *name)
{
	bool refused = is_refusal(call->err.code);
	struct buf b = { 0 };

	if (call->err.code != NULL && !refused)
		return; /* nobody was let in, and nobody was found wanting */
	call->caller =
		(struct caller){ .user = call->login.name != NULL && !refused ? call->login.name
									      : call->login.user,
			.session = call->result.kind == VAL_STRING ? call->result.s : NULL_REF,
			.sid = call->login.sid,
			.superuser = call->login.superuser };
	put_item(&b, "uname", call->login.user, "", "");
	put_item(&b, "address", client_address(call), "", "");
	put_call(call, refused ? name : "session.create", refused, buf_text(&b));
	buf_fini(&b);
}

/* As it is given, on one line; of no call. */
int pool_audit_log_append(
	struct call *call, const struct pool_audit_log_append_args *args, struct err *err)
{
	struct buf b = { 0 };

	if (strlen(args->line) > LINE_MAX_BYTES)
		return err_set(err, ERR_VALUE_NOT_SUPPORTED, "line", "",
			arena_printf(&call->arena, "longer than %d bytes", LINE_MAX_BYTES), NULL);
	audit_put_time(&b, call->pool->env);
	put_host(&b, call->pool);
	buf_puts(&b, "|audit] ");
	put_plain(&b, args->line, LINE_MAX_BYTES);
	buf_puts(&b, "\n");
	put_line(call->pool, &b);
	buf_fini(&b);
	return 0;
}

void audit_end(struct call *call)
{
	const char *name = call->service != NULL  ? call->message.method
			   : call->method != NULL ? call->method->name
						  : NULL;
	bool denied = is_refusal(call->err.code);

	if (name == NULL)
		return;
	if (call->login.user != NULL && (call->service == NULL || call->audit == NULL)) {
		put_login(call, name);
		return;
	}
	/* one that never came to its roles has not been let in at all */
	if (call->audit != NULL && (denied || call->worth_a_line))
		put_call(call, name, denied, call->audit);
}

void audit_open_files(struct pool *pool, int fds[AUDIT_FILES])
{
	struct audit *a = pool->audit;
	char path[600];

	pthread_mutex_lock(&a->files);
	for (unsigned i = 0; i < AUDIT_FILES; i++) {
		path_of(a, AUDIT_FILES - 1 - i, path);
		fds[i] = open(path, O_RDONLY | O_CLOEXEC);
	}
	pthread_mutex_unlock(&a->files);
}

void audit_init(struct pool *pool)
{
	struct audit *a = pool->audit = mem_new(sizeof *a);

	a->fd = -1;
	pthread_mutex_init(&a->mutex, NULL);
	pthread_mutex_init(&a->files, NULL);
	snprintf(a->dir, sizeof a->dir, "%s/audit", pool->cfg.db.dir);
	/* of its own: a disk that hangs holds nothing else up */
	a->lane = lane_new(pool->env, "audit", LANE_API, 1, 1);
}
