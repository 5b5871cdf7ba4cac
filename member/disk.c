/* The disks of a file SR: how they lie in its folder, appear and disappear, and who holds them. The
 * rules are in sr_priv.h. */
#include "member/sr_priv.h"
#include "rpc/base/file.h"
#include "rpc/wire/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static void path_of(const struct sr *sr, const char *vdi, const char *rest, char out[DISK_PATH_MAX])
{
	int n = snprintf(out, DISK_PATH_MAX, "%s/%s%s", sr->location, vdi, rest);

	CHECK(n > 0 && n < DISK_PATH_MAX);
}

static void inside(const char *folder, const char *name, char out[DISK_PATH_MAX])
{
	int n = snprintf(out, DISK_PATH_MAX, "%s/%s", folder, name);

	CHECK(n > 0 && n < DISK_PATH_MAX);
}

void disk_path(const struct sr *sr, const char *vdi, char out[DISK_PATH_MAX])
{
	path_of(sr, vdi, "/disk", out);
}

bool disk_there(const struct sr *sr, const char *vdi)
{
	char path[DISK_PATH_MAX];

	path_of(sr, vdi, "", path);
	return access(path, F_OK) == 0;
}

int disk_fits(const struct sr *sr, int64_t size, struct err *err)
{
	struct statvfs fs;

	if (statvfs(sr->location, &fs) != 0)
		return sr_io_error("the location cannot be read", err);
	if ((uint64_t)size / fs.f_frsize < fs.f_blocks)
		return 0;
	errno = ENOSPC;
	return sr_io_error("the disk is larger than the storage", err);
}

static int missing(const char *vdi, struct err *err)
{
	return errno == ENOENT ? err_set(err, AGENT_ERR_does_not_exist, "VDI", vdi, NULL)
			       : sr_io_error("the disk cannot be opened", err);
}

/* Locks. */

/* Is this still the file of that name? It may have been renamed or replaced before we locked it. */
static bool still_there(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* Open and lock; -1 with errno, EWOULDBLOCK: another has it. */
static int locked(const char *path, int flags, int how)
{
	for (;;) {
		int fd = open(path, flags | O_CLOEXEC, 0600), saved;

		if (fd < 0)
			return -1;
		while (flock(fd, how) != 0) {
			if (errno == EINTR)
				continue;
			saved = errno;
			close(fd);
			errno = saved;
			return -1;
		}
		if (still_there(fd, path))
			return fd;
		close(fd);
	}
}

/* Holders may be looked at and changed; others wait, and nobody keeps it for long. */
static int gate(const struct sr *sr, const char *vdi, struct err *err)
{
	char path[DISK_PATH_MAX];
	int fd;

	path_of(sr, vdi, "/lock", path);
	fd = locked(path, O_RDWR, LOCK_EX);
	if (fd < 0)
		missing(vdi, err);
	return fd;
}

/* Holders. */

static int holders_read(
	const struct sr *sr, const char *vdi, struct arena *a, struct val *out, struct err *err)
{
	char path[DISK_PATH_MAX];
	struct buf text = { 0 };
	const char *why;
	int rc = 0;

	*out = val_set();
	path_of(sr, vdi, "/holders.json", path);
	if (file_read(path, DISK_HOLDERS_MAX, &text) != 0) {
		if (errno != ENOENT) /* never written: nobody */
			rc = sr_io_error("the holders of the disk cannot be read", err);
	} else if (rpc_json_parse(a, arena_strndup(a, (const char *)text.data, text.len), text.len,
			   out, &why) != 0 ||
		   out->kind != VAL_SET) {
		rc = sr_failure(
			"SR_BACKEND_FAILURE", "the holders of the disk cannot be read", vdi, err);
	}
	buf_fini(&text);
	return rc;
}

static int holders_write(
	const struct sr *sr, const char *vdi, const struct val *holders, struct err *err)
{
	char path[DISK_PATH_MAX];
	struct buf text = { 0 };
	int rc;

	val_json(&text, holders);
	path_of(sr, vdi, "/holders.json", path);
	rc = text.len > DISK_HOLDERS_MAX
		     ? err_set(err, AGENT_ERR_limit_reached, "too many hold the disk", NULL)
	     : file_replace(path, text.data, text.len) != 0
		     ? sr_io_error("the holders of the disk cannot be written", err)
		     : 0;
	buf_fini(&text);
	return rc;
}

static bool is(const struct val *map, const char *key, const char *value)
{
	const char *have = val_get_s(map, key);

	return have != NULL && strcmp(have, value) == 0;
}

static const char *text_of(const struct val *map, const char *key)
{
	const char *have = val_get_s(map, key);

	return have != NULL ? have : "";
}

static bool ours(const struct sr *sr, const struct val *holder)
{
	return is(holder, "host", sr->host) && is(holder, "boot", sr->boot);
}

/* Does somebody change the disk itself at this moment? Under the gate: who begins to later will see
 * our entry. */
static bool being_changed(const struct sr *sr, const char *vdi)
{
	char path[DISK_PATH_MAX];
	int fd;

	path_of(sr, vdi, "/disk", path);
	fd = locked(path, O_RDWR, LOCK_SH | LOCK_NB);
	if (fd >= 0)
		close(fd);
	return fd < 0;
}

/* The entries of others, and of this host's VMs but this one; disk_in_use when one of them forbids
 * it. An entry of ours from another boot is dropped: that domain is gone. */
static int others(const struct sr *sr, const char *vdi, const char *vm, bool write, bool sharable,
	struct val holders, struct arena *a, struct val *out, struct err *err)
{
	*out = val_set();
	for (uint32_t i = 0; i < holders.n; i++) {
		const struct val *h = &holders.items[i];

		if (is(h, "host", sr->host) && (!ours(sr, h) || is(h, "vm", vm)))
			continue;
		if (!sharable && (write || !is(h, "mode", "RO")))
			return err_set(err, AGENT_ERR_disk_in_use, vdi, text_of(h, "host"), NULL);
		val_set_push(a, out, *h);
	}
	return 0;
}

static int activate(const struct sr *sr, const char *vdi, const char *vm, bool write,
	struct arena *a, struct err *err)
{
	struct val holders, kept, mine = val_map();
	struct disk_about about;

	if (disk_about_read(sr, vdi, a, &about, err) != 0 ||
		holders_read(sr, vdi, a, &holders, err) != 0)
		return ERR_API;
	if (write && (about.read_only || about.is_a_snapshot))
		return err_set(err, AGENT_ERR_disk_read_only, vdi, NULL);
	if (being_changed(sr, vdi))
		return err_set(err, AGENT_ERR_disk_in_use, vdi, "", NULL);
	if (others(sr, vdi, vm, write, about.sharable, holders, a, &kept, err) != 0)
		return ERR_API;
	val_map_push(a, &mine, "host", val_string(sr->host));
	val_map_push(a, &mine, "boot", val_string(sr->boot));
	val_map_push(a, &mine, "vm", val_string(vm));
	val_map_push(a, &mine, "mode", val_string(write ? "RW" : "RO"));
	val_set_push(a, &kept, mine);
	return holders_write(sr, vdi, &kept, err);
}

int disk_activate(const struct sr *sr, const char *vdi, const char *vm, bool write, struct err *err)
{
	struct arena a;
	int fd = gate(sr, vdi, err), rc;

	if (fd < 0)
		return ERR_API;
	arena_init(&a);
	rc = activate(sr, vdi, vm, write, &a, err);
	arena_fini(&a);
	close(fd);
	return rc;
}

/* Write the holders without those that go; nothing to write when none does. */
static int holders_without(const struct sr *sr, const char *vdi,
	bool (*goes)(const struct sr *sr, const struct val *holder, const char *p, const char *q),
	const char *p, const char *q, struct err *err)
{
	struct val holders, kept = val_set();
	struct arena a;
	int fd = gate(sr, vdi, err), rc;

	if (fd < 0)
		return ERR_API;
	arena_init(&a);
	rc = holders_read(sr, vdi, &a, &holders, err);
	for (uint32_t i = 0; rc == 0 && i < holders.n; i++)
		if (!goes(sr, &holders.items[i], p, q))
			val_set_push(&a, &kept, holders.items[i]);
	if (rc == 0 && kept.n < holders.n)
		rc = holders_write(sr, vdi, &kept, err);
	arena_fini(&a);
	close(fd);
	return rc;
}

static bool of_vm(const struct sr *sr, const struct val *holder, const char *vm, const char *q)
{
	(void)q;
	return ours(sr, holder) && is(holder, "vm", vm);
}

int disk_deactivate(const struct sr *sr, const char *vdi, const char *vm, struct err *err)
{
	return disk_there(sr, vdi) ? holders_without(sr, vdi, of_vm, vm, NULL, err) : 0;
}

static bool of_boot(
	const struct sr *sr, const struct val *holder, const char *host, const char *boot)
{
	return is(holder, "host", host) && (boot == NULL || is(holder, "boot", boot)) &&
	       !ours(sr, holder);
}

int disk_unlock(
	const struct sr *sr, const char *vdi, const char *host, const char *boot, struct err *err)
{
	return holders_without(sr, vdi, of_boot, host, boot, err);
}

/* Holding the bytes. */

/* Who but this VM on this host has it active; tell: how many, else they are an error. */
static int look(const struct sr *sr, const char *vdi, const char *vm, bool tell, uint32_t *n_out,
	struct err *err)
{
	struct val holders, none = val_set();
	struct arena a;
	int fd = gate(sr, vdi, err), rc;

	if (fd < 0)
		return ERR_API;
	arena_init(&a);
	rc = holders_read(sr, vdi, &a, &holders, err);
	if (rc == 0)
		rc = others(sr, vdi, vm, true, tell, holders, &a, &none, err);
	*n_out = none.n;
	arena_fini(&a);
	close(fd);
	return rc;
}

static int nobody_active(const struct sr *sr, const char *vdi, struct err *err)
{
	uint32_t n;

	return look(sr, vdi, "", false, &n, err);
}

int disk_used(const struct sr *sr, const char *vdi, const char *vm, bool *used_out, struct err *err)
{
	uint32_t n = 0;
	int rc = look(sr, vdi, vm, true, &n, err);

	*used_out = rc == 0 && n > 0;
	return rc;
}

int disk_hold(const struct sr *sr, const char *vdi, bool alone, struct disk *out, struct err *err)
{
	char path[DISK_PATH_MAX];

	path_of(sr, vdi, "", out->path);
	inside(out->path, "disk", path);
	out->fd = locked(path, O_RDWR, (alone ? LOCK_EX : LOCK_SH) | LOCK_NB);
	if (out->fd < 0)
		return errno == EWOULDBLOCK ? err_set(err, AGENT_ERR_disk_in_use, vdi, "", NULL)
					    : missing(vdi, err);
	if (alone && nobody_active(sr, vdi, err) != 0) {
		disk_let_go(out);
		return ERR_API;
	}
	return 0;
}

void disk_let_go(struct disk *disk)
{
	if (disk->fd >= 0)
		close(disk->fd);
	disk->fd = -1;
}

/* What a disk is. */

static bool flag_of(const struct val *map, const char *key)
{
	const struct val *v = val_get(map, key);

	return v != NULL && v->kind == VAL_BOOL && v->b;
}

int disk_about_read(const struct sr *sr, const char *vdi, struct arena *a, struct disk_about *out,
	struct err *err)
{
	char path[DISK_PATH_MAX];
	struct buf text = { 0 };
	struct val v;
	const struct val *time;
	const char *why;
	int rc = 0;

	path_of(sr, vdi, "/about.json", path);
	if (file_read(path, DISK_ABOUT_MAX, &text) != 0)
		rc = missing(vdi, err);
	else if (rpc_json_parse(a, arena_strndup(a, (const char *)text.data, text.len), text.len,
			 &v, &why) != 0 ||
		 v.kind != VAL_MAP)
		rc = sr_failure("SR_BACKEND_FAILURE", "the description of the disk cannot be read",
			vdi, err);
	buf_fini(&text);
	if (rc != 0)
		return rc;
	time = val_get(&v, "snapshot_time");
	*out = (struct disk_about){ .name = text_of(&v, "name"),
		.description = text_of(&v, "description"),
		.type = text_of(&v, "type"),
		.snapshot_of = text_of(&v, "snapshot_of"),
		.made_by = text_of(&v, "made_by"),
		.sharable = flag_of(&v, "sharable"),
		.read_only = flag_of(&v, "read_only"),
		.is_a_snapshot = flag_of(&v, "is_a_snapshot"),
		.snapshot_time = time != NULL && time->kind == VAL_INT ? time->i : 0 };
	return 0;
}

static struct val about_val(const struct disk_about *about, struct arena *a)
{
	struct val v = val_map();

	val_map_push(a, &v, "name", val_string(about->name));
	val_map_push(a, &v, "description", val_string(about->description));
	val_map_push(a, &v, "type", val_string(about->type));
	val_map_push(a, &v, "sharable", val_bool(about->sharable));
	val_map_push(a, &v, "read_only", val_bool(about->read_only));
	val_map_push(a, &v, "is_a_snapshot", val_bool(about->is_a_snapshot));
	val_map_push(a, &v, "snapshot_of", val_string(about->snapshot_of));
	val_map_push(a, &v, "snapshot_time", val_int(about->snapshot_time));
	val_map_push(a, &v, "made_by", val_string(about->made_by));
	return v;
}

static int about_write(const char *folder, const struct disk_about *about, struct err *err)
{
	char path[DISK_PATH_MAX];
	struct buf text = { 0 };
	struct arena a;
	struct val v;
	int rc;

	if (strlen(about->name) > DISK_NAME_MAX || strlen(about->description) > DISK_NAME_MAX)
		return err_set(err, AGENT_ERR_limit_reached, "the name is too long", NULL);
	arena_init(&a);
	v = about_val(about, &a);
	val_json(&text, &v);
	inside(folder, "about.json", path);
	rc = text.len > DISK_ABOUT_MAX
		     ? err_set(err, AGENT_ERR_limit_reached, "the name is too long", NULL)
	     : file_replace(path, text.data, text.len) != 0
		     ? sr_io_error("the description of the disk cannot be written", err)
		     : 0;
	buf_fini(&text);
	arena_fini(&a);
	return rc;
}

int disk_about_write(
	const struct sr *sr, const char *vdi, const struct disk_about *about, struct err *err)
{
	char path[DISK_PATH_MAX];

	path_of(sr, vdi, "", path);
	return about_write(path, about, err);
}

int disk_stat(
	const struct sr *sr, const char *vdi, struct arena *a, struct val *out, struct err *err)
{
	char path[DISK_PATH_MAX];
	struct disk_about about;
	struct val holders, shown = val_set();
	struct stat st, base;

	path_of(sr, vdi, "/disk", path);
	if (stat(path, &st) != 0)
		return missing(vdi, err);
	path_of(sr, vdi, "/base", path);
	if (stat(path, &base) != 0)
		base.st_blocks = 0;
	if (disk_about_read(sr, vdi, a, &about, err) != 0 ||
		holders_read(sr, vdi, a, &holders, err) != 0)
		return ERR_API;
	for (uint32_t i = 0; i < holders.n; i++) {
		struct val h = val_map();

		val_map_push(a, &h, "host", val_string(text_of(&holders.items[i], "host")));
		val_map_push(a, &h, "boot", val_string(text_of(&holders.items[i], "boot")));
		val_map_push(a, &h, "vm", val_string(text_of(&holders.items[i], "vm")));
		val_map_push(a, &h, "mode",
			val_string(is(&holders.items[i], "mode", "RO") ? "RO" : "RW"));
		val_set_push(a, &shown, h);
	}
	*out = about_val(&about, a);
	val_map_push(a, out, "vdi", val_string(arena_strdup(a, vdi)));
	val_map_push(a, out, "size", val_int(st.st_size));
	val_map_push(
		a, out, "utilisation", val_int((int64_t)(st.st_blocks + base.st_blocks) * 512));
	val_map_push(a, out, "holders", shown);
	return 0;
}

/* All of them. */

struct listed {
	struct arena *a;
	struct val list;
	const char *end; /* of the names that are wanted, behind a uuid */
	const struct sr *sr;
};

static void on_entry(void *arg, const char *name)
{
	struct listed *l = arg;
	char uuid[UUID_LEN + 1];

	snprintf(uuid, sizeof uuid, "%s", name);
	if (uuid_ok(uuid) && strcmp(name + UUID_LEN, l->end) == 0 && l->list.n < SR_DISKS_MAX)
		val_set_push(l->a, &l->list, val_string(arena_strdup(l->a, uuid)));
}

static int by_text(const void *a, const void *b)
{
	return strcmp(((const struct val *)a)->s, ((const struct val *)b)->s);
}

int disk_list(const struct sr *sr, struct arena *a, struct val *out, struct err *err)
{
	struct listed l = { .a = a, .list = val_set(), .end = "" };

	if (folder_list(sr->location, on_entry, &l) != 0)
		return sr_io_error("the folder of the SR cannot be read", err);
	if (l.list.n > 0)
		qsort(l.list.items, l.list.n, sizeof *l.list.items, by_text);
	*out = l.list;
	return 0;
}

/* Making and removing. */

static void on_file(void *arg, const char *name)
{
	char path[DISK_PATH_MAX];

	if (strcmp(name, "lock") == 0) /* last: it says that somebody is at work here */
		return;
	inside(arg, name, path);
	unlink(path);
}

static int folder_remove(char *path)
{
	char lock[DISK_PATH_MAX];

	folder_list(path, on_file, path);
	inside(path, "lock", lock);
	unlink(lock);
	return rmdir(path);
}

/* What somebody has left behind, unless its lock says that it is not left. */
static bool left_behind(char *path)
{
	char lock[DISK_PATH_MAX];
	int fd;
	bool gone;

	inside(path, "lock", lock);
	fd = locked(lock, O_RDWR | O_CREAT, LOCK_EX | LOCK_NB);
	if (fd < 0)
		return errno == ENOENT;
	gone = folder_remove(path) == 0;
	close(fd);
	return gone;
}

int disk_make(const struct sr *sr, const char *vdi, struct disk_new *out, struct err *err)
{
	enum { TRIES = 10 };
	char lock[DISK_PATH_MAX], disk[DISK_PATH_MAX];

	*out = (struct disk_new){ -1, -1, "" };
	path_of(sr, vdi, ".new", out->path);
	inside(out->path, "lock", lock);
	inside(out->path, "disk", disk);
	/* who tidies up may take the folder away until it is locked */
	for (unsigned i = 0; i < TRIES && out->lock < 0; i++) {
		if (mkdir(out->path, 0700) != 0 && errno != EEXIST)
			return sr_io_error("the disk cannot be made", err);
		out->lock = locked(lock, O_RDWR | O_CREAT, LOCK_EX);
	}
	if (out->lock < 0)
		return sr_io_error("the disk cannot be made", err);
	out->fd = open(disk, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (out->fd >= 0)
		return 0;
	sr_io_error("the disk cannot be made", err);
	disk_drop(out);
	return ERR_API;
}

int disk_show(const struct sr *sr, const char *vdi, struct disk_new *made,
	const struct disk_about *about, struct err *err)
{
	char path[DISK_PATH_MAX];

	path_of(sr, vdi, "", path);
	if (about_write(made->path, about, err) != 0)
		return ERR_API;
	if (fsync(made->fd) != 0 || file_move(made->path, path) != 0)
		return sr_io_error("the disk cannot be made", err);
	made->path[0] = 0;
	return folder_sync(sr->location) == 0 ? 0 : sr_io_error("the disk cannot be made", err);
}

void disk_drop(struct disk_new *made)
{
	if (made->lock >= 0 && made->path[0] != 0)
		folder_remove(made->path);
	disk_close(made);
}

void disk_close(struct disk_new *made)
{
	if (made->fd >= 0)
		close(made->fd);
	if (made->lock >= 0)
		close(made->lock);
	made->fd = made->lock = -1;
}

int disk_remove(const struct sr *sr, const char *vdi, struct err *err)
{
	char gone[DISK_PATH_MAX], lock[DISK_PATH_MAX];
	struct disk disk = { .fd = -1 };
	int fd, rc = 0;

	if (!disk_there(sr, vdi))
		return 0;
	if (disk_hold(sr, vdi, true, &disk, err) != 0)
		return ERR_API;
	/* the lock goes along with the folder: it stays ours until nothing is left of it */
	inside(disk.path, "lock", lock);
	fd = locked(lock, O_RDWR, LOCK_EX);
	path_of(sr, vdi, ".gone", gone);
	if (fd < 0 || file_move(disk.path, gone) != 0)
		rc = sr_io_error("the disk cannot be removed", err);
	else
		folder_remove(gone);
	if (fd >= 0)
		close(fd);
	disk_let_go(&disk);
	return rc;
}

static void tidy_names(const struct sr *sr, const char *end)
{
	struct arena a;
	struct listed l = { .a = &a, .list = val_set(), .end = end };
	char path[DISK_PATH_MAX];

	arena_init(&a);
	folder_list(sr->location, on_entry, &l);
	for (uint32_t i = 0; i < l.list.n; i++) {
		path_of(sr, l.list.items[i].s, end, path);
		left_behind(path);
	}
	arena_fini(&a);
}

/* A disk whose content, or what it is reset to, was about to be replaced: it has the old one. */
static void tidy_content(const struct sr *sr)
{
	static const char *const left[] = { "/disk.new", "/base.new" };
	struct arena a;
	struct val disks = val_set();
	struct err none = { 0 };
	char path[DISK_PATH_MAX], lock[DISK_PATH_MAX];
	int fd;

	arena_init(&a);
	if (disk_list(sr, &a, &disks, &none) != 0)
		disks.n = 0;
	for (uint32_t i = 0; i < disks.n * ARRAY_LEN(left); i++) {
		const char *vdi = disks.items[i / ARRAY_LEN(left)].s;

		path_of(sr, vdi, left[i % ARRAY_LEN(left)], path);
		path_of(sr, vdi, "/disk", lock);
		if (access(path, F_OK) != 0)
			continue;
		fd = locked(lock, O_RDWR, LOCK_EX | LOCK_NB);
		if (fd < 0)
			continue;
		unlink(path);
		close(fd);
	}
	err_fini(&none);
	arena_fini(&a);
}

void disk_tidy(const struct sr *sr)
{
	tidy_names(sr, ".new");
	tidy_names(sr, ".gone");
	tidy_content(sr);
}
