/* Copies of disks, snapshots and clones too, and reverting: all of a list or none of it. storage.md
 * 4, 5.1, 7.5.
 *
 * The bytes are shared with the source where the file system can do that, else copied without their
 * holes and zeros. Copies are invisible until all bytes are there. After a crash: what has not been
 * shown goes with its lock (disk_tidy); what has been shown by a task that did not end is removed
 * by vdi_copy_repair from its row in copying. A list that is reverted: each disk has its old
 * content or its new one.
 *
 * A disk that is reset when a life of a VM begins (on_boot) has beside it what it is reset to, its
 * base, made by VDI.set_on_boot: that is the same as a revert, from the disk to its base, and at
 * the start from the base to the disk.
 */
#include "member/ops/ops_priv.h"
#include "member/sr_priv.h"
#include "rpc/base/file.h"
#include "rpc/wire/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 20, DISKS_MAX = 256, COPY_WEIGHT = 90, REST_WEIGHT = 10 };

struct one {
	struct sr from_sr, to_sr;
	const char *from, *to; /* uuids */
	struct disk source;
	struct disk_new made; /* a copy */
	struct disk target;   /* a disk that is reverted or reset; */
	const char *file;     /* which of its files gets */
	int fd;		      /* that content */
	bool shown;	      /* the copy is there under its name */
};

struct work {
	unsigned n;
	uint64_t done, all; /* bytes */
	unsigned told;	    /* progress, hundredths */
	uint8_t *chunk;
	struct one items[];
};

void vdi_copy_release(struct agent_run *run)
{
	struct work *w = run->state;

	for (unsigned i = 0; i < w->n; i++) {
		struct one *one = &w->items[i];

		disk_let_go(&one->source);
		disk_let_go(&one->target);
		disk_close(&one->made);
		if (one->fd >= 0)
			close(one->fd);
	}
	free(w->chunk);
	w->chunk = NULL;
	w->n = 0;
}

static struct work *work_new(struct agent_run *run, unsigned n)
{
	struct work *w = arena_alloc(&run->arena, sizeof *w + n * sizeof *w->items);

	w->n = n;
	for (unsigned i = 0; i < n; i++) {
		struct one *one = &w->items[i];

		one->source.fd = one->target.fd = one->made.fd = one->made.lock = one->fd = -1;
	}
	run->state = w;
	run->fini = vdi_copy_release;
	return w;
}

/* The first step of a table with a list begins with this. NULL: too long. */
static struct work *work_begin(struct agent_run *run, struct err *err)
{
	unsigned n = val_get(&run->params, "disks")->n;

	if (n <= DISKS_MAX)
		return work_new(run, n);
	err_set(err, AGENT_ERR_limit_reached, "too many disks at once", NULL);
	return NULL;
}

static const struct val *disk_param(struct agent_run *run, unsigned i)
{
	return &val_get(&run->params, "disks")->items[i];
}

/* Of a copy, or of a drive. */
static bool persistent(const struct val *p)
{
	const struct val *v = val_get(p, "persistent");

	return v == NULL || v->b;
}

/* Where the bytes come from; held until the operation ends. */
static int take_source(struct agent_run *run, struct work *w, unsigned i, const char *sr_key,
	const char *vdi_key, struct err *err)
{
	const struct val *p = disk_param(run, i);
	struct one *one = &w->items[i];
	struct stat st;

	one->from = val_get_s(p, vdi_key);
	if (!uuid_ok(one->from))
		return err_set(err, AGENT_ERR_bad_request, "a disk is no uuid", NULL);
	if (sr_get(run->agent, val_get_s(p, sr_key), &one->from_sr, err) != 0 ||
		disk_hold(&one->from_sr, one->from, false, &one->source, err) != 0)
		return ERR_API;
	if (fstat(one->source.fd, &st) != 0)
		return sr_io_error("the disk cannot be read", err);
	w->all += (uint64_t)st.st_size;
	return 0;
}

/* Bytes. */

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static int copy_chunk(struct work *w, int from, int to, off_t at, size_t n)
{
	for (size_t have = 0; have < n;) {
		ssize_t r = pread(from, w->chunk + have, n - have, at + (off_t)have);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return ERR_IO;
		if (r == 0) { /* it has become shorter: zeros */
			memset(w->chunk + have, 0, n - have);
			break;
		}
		have += (size_t)r;
	}
	if (all_zero(w->chunk, n))
		return 0;
	for (size_t have = 0; have < n;) {
		ssize_t r = pwrite(to, w->chunk + have, n - have, at + (off_t)have);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return ERR_IO;
		have += (size_t)r;
	}
	return 0;
}

/* By whole hundredths: each is a write. */
static void show_progress(struct agent_run *run, struct work *w)
{
	unsigned hundredths = (unsigned)(COPY_WEIGHT * (w->done >> 10) / ((w->all >> 10) + 1));

	if (hundredths <= w->told)
		return;
	w->told = hundredths;
	agent_task_progress(run, 10 * hundredths);
}

static int copy_range(struct job *job, struct agent_run *run, struct work *w, int from, int to,
	off_t at, off_t end, struct err *err)
{
	while (at < end) {
		size_t n = end - at < CHUNK ? (size_t)(end - at) : CHUNK;

		if (job->cancelled)
			return ERR_CANCELLED;
		if (copy_chunk(w, from, to, at, n) != 0)
			return sr_io_error("the disk cannot be copied", err);
		at += (off_t)n;
		w->done += n;
		show_progress(run, w);
	}
	return 0;
}

static int copy_bytes(
	struct job *job, struct agent_run *run, struct work *w, int from, int to, struct err *err)
{
	struct stat st;
	off_t at = 0, data, hole;
	int rc = 0;

	if (fstat(from, &st) != 0)
		return sr_io_error("the disk cannot be read", err);
	if (ioctl(to, FICLONE, from) == 0)
		return fsync(to) == 0 ? 0 : sr_io_error("the disk cannot be copied", err);
	if (ftruncate(to, st.st_size) != 0)
		return sr_io_error("the disk cannot be made", err);
	if (w->chunk == NULL)
		w->chunk = mem_new(CHUNK);
	while (rc == 0 && at < st.st_size) {
		data = lseek(from, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO) /* nothing but a hole */
			data = st.st_size;
		if (data < 0) /* the file system does not say */
			data = at;
		hole = data < st.st_size ? lseek(from, data, SEEK_HOLE) : data;
		if (hole < 0 || hole > st.st_size)
			hole = st.st_size;
		w->done += (uint64_t)(data - at);
		rc = copy_range(job, run, w, from, to, data, hole, err);
		at = hole;
	}
	if (rc == 0 && fsync(to) != 0)
		rc = sr_io_error("the disk cannot be copied", err);
	return rc;
}

/* Copy. */

void vdi_undo_take(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct work *w = run->state;

	(void)job;
	for (unsigned i = 0; i < w->n; i++)
		disk_drop(&w->items[i].made);
}

static int take_one(struct agent_run *run, struct work *w, unsigned i, struct err *err)
{
	const struct val *p = disk_param(run, i);
	struct one *one = &w->items[i];
	struct stat st;

	one->to = val_get_s(p, "new");
	if (!uuid_ok(one->to))
		return err_set(err, AGENT_ERR_bad_request, "new is no uuid", NULL);
	if (sr_get(run->agent, val_get_s(p, "new_sr"), &one->to_sr, err) != 0 ||
		take_source(run, w, i, "sr", "vdi", err) != 0)
		return ERR_API;
	if (fstat(one->source.fd, &st) != 0)
		return sr_io_error("the disk cannot be read", err);
	if (!persistent(p)) /* twice the bytes */
		w->all += (uint64_t)st.st_size;
	if (disk_fits(&one->to_sr, st.st_size, err) != 0)
		return ERR_API;
	if (disk_there(&one->to_sr, one->to))
		return err_set(err, AGENT_ERR_already_exists, "VDI", one->to, NULL);
	return disk_make(&one->to_sr, one->to, &one->made, err);
}

int vdi_step_take(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct work *w = work_begin(run, err);
	int rc = 0;

	if (w == NULL)
		return ERR_API;
	for (unsigned i = 0; i < w->n && rc == 0; i++)
		rc = take_one(run, w, i, err);
	if (rc != 0)
		vdi_undo_take(job, state);
	return rc;
}

/* A file of a disk, or of one that is being made: FOLDER/NAME and an end. */
static void file_of(const char *folder, const char *name, const char *end, char out[DISK_PATH_MAX])
{
	int n = snprintf(out, DISK_PATH_MAX, "%s/%s%s", folder, name, end);

	CHECK(n > 0 && n < DISK_PATH_MAX);
}

/* The copy can be reset to what it is now. */
static int copy_base(
	struct job *job, struct agent_run *run, struct work *w, struct one *one, struct err *err)
{
	char path[DISK_PATH_MAX];

	file_of(one->made.path, "base", "", path);
	one->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return one->fd < 0 ? sr_io_error("the disk cannot be made", err)
			   : copy_bytes(job, run, w, one->made.fd, one->fd, err);
}

int vdi_step_copy(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct work *w = run->state;
	int rc = 0;

	for (unsigned i = 0; i < w->n && rc == 0; i++) {
		rc = copy_bytes(job, run, w, w->items[i].source.fd, w->items[i].made.fd, err);
		if (rc == 0 && !persistent(disk_param(run, i)))
			rc = copy_base(job, run, w, &w->items[i], err);
	}
	return rc;
}

static const char *text(const struct val *p, const char *key, const char *absent)
{
	const char *s = val_get_s(p, key);

	return s != NULL ? s : absent;
}

static int show_one(struct agent_run *run, struct work *w, unsigned i, struct err *err)
{
	const struct val *p = disk_param(run, i), *snapshot = val_get(p, "is_a_snapshot");
	struct one *one = &w->items[i];
	struct disk_about about;

	if (disk_about_read(&one->from_sr, one->from, &run->arena, &about, err) != 0)
		return ERR_API;
	about.name = text(p, "name", about.name);
	about.description = text(p, "description", about.description);
	about.is_a_snapshot = snapshot != NULL && snapshot->b;
	about.snapshot_of = about.is_a_snapshot ? one->from : "";
	about.snapshot_time = about.is_a_snapshot ? env_wall_s(run->agent->env) : 0;
	about.made_by = run->task;
	about.read_only = false; /* of a snapshot the kind says it */
	if (disk_show(&one->to_sr, one->to, &one->made, &about, err) != 0)
		return ERR_API;
	one->shown = true;
	return 0;
}

static void hide(struct agent *agent, const struct sr *sr, const char *vdi)
{
	struct err err = { 0 };

	if (disk_remove(sr, vdi, &err) != 0)
		log_warn(agent->env, "event=copy_left vdi=%s why=%s", vdi, err.code->name);
	err_fini(&err);
}

/* First of all what a restart would have to take back. */
static int record(struct agent_run *run, struct err *err)
{
	struct buf text = { 0 };
	int rc;

	val_json(&text, val_get(&run->params, "disks"));
	pthread_mutex_lock(&run->agent->mutex);
	rc = sql_run(run->agent->sql, "INSERT OR REPLACE INTO copying VALUES (?, ?)", "ss",
		run->task, buf_text(&text));
	pthread_mutex_unlock(&run->agent->mutex);
	buf_fini(&text);
	return rc == 0 ? 0
		       : err_set(err, AGENT_ERR_limit_reached, "the copy cannot be recorded", NULL);
}

int vdi_step_show(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct work *w = run->state;
	int rc = record(run, err);

	(void)job;
	for (unsigned i = 0; i < w->n && rc == 0; i++)
		rc = show_one(run, w, i, err);
	for (unsigned i = 0; i < w->n && rc != 0; i++)
		if (w->items[i].shown)
			hide(run->agent, &w->items[i].to_sr, w->items[i].to);
	return rc;
}

/* clang-format off */
static const struct op_step copy_steps[] = {
	/* name, weight, flags, run, undo */
	{ "disks.take", REST_WEIGHT / 2, 0, vdi_step_take, vdi_undo_take },
	{ "disks.copy", COPY_WEIGHT,     0, vdi_step_copy, NULL      },
	{ "disks.show", REST_WEIGHT / 2, 0, vdi_step_show, NULL      },
};
/* clang-format on */

const struct op vdi_copy_op = { "VDI.copy", copy_steps, ARRAY_LEN(copy_steps),
	AGENT_ERR_cancelled };

struct listed {
	struct arena *a;
	struct val list;
};

static void on_copying(void *arg, struct sql_row *row)
{
	struct listed *l = arg;

	val_set_push(l->a, &l->list, val_string(arena_strdup(l->a, sql_string(row, 0))));
}

static void hide_all(struct agent *agent, const struct val *disks)
{
	struct err none = { 0 };
	struct sr sr;

	for (uint32_t i = 0; disks->kind == VAL_SET && i < disks->n; i++) {
		const char *vdi = val_get_s(&disks->items[i], "new"),
			   *uuid = val_get_s(&disks->items[i], "new_sr");

		if (vdi != NULL && uuid != NULL && uuid_ok(vdi) &&
			sr_get(agent, uuid, &sr, &none) == 0)
			hide(agent, &sr, vdi);
		err_fini(&none);
	}
}

/* What tasks in that state have shown; job: NULL, all of them. */
static void hide_of(struct agent *agent, const char *state, const char *job)
{
	struct arena a;
	struct listed l = { &a, val_set() };
	struct val disks;
	const char *why;

	arena_init(&a);
	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_copying, &l,
		"SELECT disks FROM copying JOIN task USING (job) WHERE state = ? AND job LIKE ?",
		"ss", state, job != NULL ? job : "%");
	pthread_mutex_unlock(&agent->mutex);
	for (uint32_t i = 0; i < l.list.n; i++)
		if (rpc_json_parse(
			    &a, l.list.items[i].s, strlen(l.list.items[i].s), &disks, &why) == 0)
			hide_all(agent, &disks);
	arena_fini(&a);
}

void vdi_copy_repair(struct agent *agent)
{
	hide_of(agent, "pending", NULL);
	pthread_mutex_lock(&agent->mutex);
	sql_run(agent->sql,
		"DELETE FROM copying WHERE job IN (SELECT job FROM task WHERE state = 'pending')",
		"");
	pthread_mutex_unlock(&agent->mutex);
}

void vdi_copy_undo(struct agent *agent, const char *job)
{
	if (uuid_ok(job))
		hide_of(agent, "completed", job);
}

/* Revert. */

/* Of a run that had nothing to do there is no work. */
void vdi_undo_reset(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct work *w = run->state;
	char path[DISK_PATH_MAX];

	(void)job;
	for (unsigned i = 0; w != NULL && i < w->n; i++) {
		if (w->items[i].fd < 0)
			continue;
		file_of(w->items[i].target.path, w->items[i].file, ".new", path);
		unlink(path);
	}
}

/* The disk is held alone; that file of it gets what will be copied into fd. */
static int take_file(struct one *one, const char *file, struct err *err)
{
	char path[DISK_PATH_MAX];

	one->file = file;
	file_of(one->target.path, file, ".new", path);
	one->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return one->fd < 0 ? sr_io_error("the disk cannot be made", err) : 0;
}

static int take_target(struct agent_run *run, struct work *w, unsigned i, struct err *err)
{
	const struct val *p = disk_param(run, i);
	struct one *one = &w->items[i];

	one->to = val_get_s(p, "vdi");
	if (!uuid_ok(one->to))
		return err_set(err, AGENT_ERR_bad_request, "vdi is no uuid", NULL);
	if (sr_get(run->agent, val_get_s(p, "sr"), &one->to_sr, err) != 0 ||
		take_source(run, w, i, val_get(p, "snapshot_sr") != NULL ? "snapshot_sr" : "sr",
			"snapshot", err) != 0 ||
		disk_hold(&one->to_sr, one->to, true, &one->target, err) != 0)
		return ERR_API;
	return take_file(one, "disk", err);
}

static int revert_take(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct work *w = work_begin(run, err);
	int rc = 0;

	if (w == NULL)
		return ERR_API;
	for (unsigned i = 0; i < w->n && rc == 0; i++)
		rc = take_target(run, w, i, err);
	if (rc != 0)
		vdi_undo_reset(job, state);
	return rc;
}

/* A disk never shrinks. */
static int keep_size(const struct one *one, struct err *err)
{
	struct stat was, is;

	return fstat(one->target.fd, &was) == 0 && fstat(one->fd, &is) == 0 &&
			       (is.st_size >= was.st_size ||
				       (ftruncate(one->fd, was.st_size) == 0 &&
					       fsync(one->fd) == 0))
		       ? 0
		       : sr_io_error("the disk cannot be copied", err);
}

int vdi_step_reset(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct work *w = run->state;
	int rc = 0;

	for (unsigned i = 0; w != NULL && i < w->n && rc == 0; i++) {
		rc = copy_bytes(job, run, w, w->items[i].source.fd, w->items[i].fd, err);
		if (rc == 0)
			rc = keep_size(&w->items[i], err);
	}
	return rc;
}

/* A disk that is about to become active has to be let go here. */
int vdi_step_switch(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct work *w = run->state;
	char from[DISK_PATH_MAX], to[DISK_PATH_MAX];
	int rc = 0;

	for (unsigned i = 0; w != NULL && i < w->n && rc == 0; i++) {
		file_of(w->items[i].target.path, w->items[i].file, ".new", from);
		file_of(w->items[i].target.path, w->items[i].file, "", to);
		if (rename(from, to) != 0 || folder_sync(w->items[i].target.path) != 0)
			rc = sr_io_error("the disk cannot be reverted", err);
	}
	if (rc != 0)
		vdi_undo_reset(job, state);
	else if (w != NULL)
		vdi_copy_release(run);
	return rc;
}

/* clang-format off */
static const struct op_step revert_steps[] = {
	/* name, weight, flags, run, undo */
	{ "disks.take",   REST_WEIGHT / 2, 0, revert_take,     vdi_undo_reset },
	{ "disks.copy",   COPY_WEIGHT,     0, vdi_step_reset,  NULL           },
	{ "disks.switch", REST_WEIGHT / 2, 0, vdi_step_switch, NULL           },
};
/* clang-format on */

const struct op vdi_revert_op = { "VDI.revert", revert_steps, ARRAY_LEN(revert_steps),
	AGENT_ERR_cancelled };

/* Reset. */

/* The bytes of that file of a disk that is held alone. */
static int open_source(struct work *w, struct one *one, const char *file, struct err *err)
{
	char path[DISK_PATH_MAX];
	struct stat st;

	file_of(one->target.path, file, "", path);
	one->source.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (one->source.fd < 0 && errno == ENOENT)
		return sr_failure("SR_BACKEND_FAILURE",
			"the disk has nothing to be reset to: VDI.set_on_boot it again", one->to,
			err);
	if (one->source.fd < 0 || fstat(one->source.fd, &st) != 0)
		return sr_io_error("the disk cannot be read", err);
	w->all += (uint64_t)st.st_size;
	return 0;
}

/* What another VM uses is not reset under it: this one takes part in that life, if it may. A VM
 * with two drives of one disk has it once. */
static int fresh_one(struct agent_run *run, struct work *w, const struct val *vbd, struct err *err)
{
	struct one *one = &w->items[w->n];
	bool used;

	one->to = val_get_s(vbd, "vdi");
	for (unsigned i = 0; i < w->n; i++)
		if (strcmp(w->items[i].to, one->to) == 0)
			return 0;
	if (sr_get(run->agent, val_get_s(vbd, "sr"), &one->to_sr, err) != 0 ||
		disk_used(&one->to_sr, one->to, run->uuid, &used, err) != 0)
		return ERR_API;
	if (used)
		return 0;
	w->n++;
	return disk_hold(&one->to_sr, one->to, true, &one->target, err) != 0 ||
			       open_source(w, one, "base", err) != 0
		       ? ERR_API
		       : take_file(one, "disk", err);
}

/* Its disks are attached. */
int vdi_step_fresh(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	const struct val *vbds = val_get(&run->metadata, "vbds");
	struct work *w;
	int rc = 0;

	if (run->skip || vbds == NULL)
		return 0;
	w = work_new(run, vbds->n);
	w->n = 0;
	w->told = COPY_WEIGHT; /* of the start it is a small part */
	for (uint32_t i = 0; i < vbds->n && rc == 0; i++)
		if (val_get_s(&vbds->items[i], "vdi") != NULL && !persistent(&vbds->items[i]))
			rc = fresh_one(run, w, &vbds->items[i], err);
	if (rc != 0)
		vdi_undo_reset(job, state);
	return rc;
}

static bool to_be_reset(const struct agent_run *run)
{
	return strcmp(val_get_s(&run->params, "on_boot"), "reset") == 0;
}

static int base_take(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct work *w = work_new(run, 1);
	struct one *one = &w->items[0];
	int rc;

	one->to = val_get_s(&run->params, "vdi");
	if (!uuid_ok(one->to))
		return err_set(err, AGENT_ERR_bad_request, "vdi is no uuid", NULL);
	if (sr_get(run->agent, val_get_s(&run->params, "sr"), &one->to_sr, err) != 0 ||
		disk_hold(&one->to_sr, one->to, true, &one->target, err) != 0)
		return ERR_API;
	if (!to_be_reset(run))
		return 0;
	rc = open_source(w, one, "disk", err) != 0 ? ERR_API : take_file(one, "base", err);
	if (rc != 0)
		vdi_undo_reset(job, state);
	return rc;
}

static int base_copy(struct job *job, void *state, struct err *err)
{
	return to_be_reset(state) ? vdi_step_reset(job, state, err) : 0;
}

static int base_switch(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	char path[DISK_PATH_MAX];

	if (to_be_reset(run))
		return vdi_step_switch(job, state, err);
	file_of(((struct work *)run->state)->items[0].target.path, "base", "", path);
	return unlink(path) == 0 || errno == ENOENT
		       ? 0
		       : sr_io_error("what the disk was reset to cannot be removed", err);
}

/* clang-format off */
static const struct op_step base_steps[] = {
	/* name, weight, flags, run, undo */
	{ "disk.take",   REST_WEIGHT / 2, 0, base_take,   vdi_undo_reset },
	{ "disk.copy",   COPY_WEIGHT,     0, base_copy,   NULL           },
	{ "disk.switch", REST_WEIGHT / 2, 0, base_switch, NULL           },
};
/* clang-format on */

const struct op vdi_set_on_boot_op = { "VDI.set_on_boot", base_steps, ARRAY_LEN(base_steps),
	AGENT_ERR_cancelled };
