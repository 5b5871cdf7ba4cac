/* SRs of this host: which are attached, where they lie, and the calls SR.*. An SR that has been
 * attached once in this boot stays known, attached or not, so that the controller can tell one that
 * was detached on purpose from one that this boot has never heard of. */
#include "member/sr_priv.h"
#include "agent/methods.h"
#include "rpc/base/file.h"
#include "rpc/wire/codec.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { SR_JSON_MAX = 4096 };

int sr_failure(const char *code, const char *p0, const char *p1, struct err *err)
{
	return err_set(err, AGENT_ERR_storage, code, "", p0, p1, NULL);
}

int sr_io_error(const char *what, struct err *err)
{
	return errno == ENOSPC || errno == EDQUOT
		       ? sr_failure(
				 "SR_BACKEND_FAILURE_44", "There is insufficient space", what, err)
		       : sr_failure("SR_BACKEND_FAILURE", what, strerror(errno), err);
}

/* Records. */

struct found {
	struct agent *agent;
	struct sr *out;
	bool any;
};

static void on_sr(void *arg, struct sql_row *row)
{
	struct found *f = arg;

	snprintf(f->out->uuid, sizeof f->out->uuid, "%s", sql_string(row, 0));
	snprintf(f->out->location, sizeof f->out->location, "%s", sql_string(row, 1));
	snprintf(f->out->host, sizeof f->out->host, "%s", sql_string(row, 2));
	snprintf(f->out->boot, sizeof f->out->boot, "%s", hv_boot_id(f->agent->hv));
	f->any = true;
}

int sr_get(struct agent *agent, const char *uuid, struct sr *out, struct err *err)
{
	struct found f = { agent, out, false };

	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_sr, &f,
		"SELECT uuid, location, host FROM sr WHERE uuid = ? AND attached = 1", "s", uuid);
	pthread_mutex_unlock(&agent->mutex);
	return f.any ? 0 : err_set(err, AGENT_ERR_does_not_exist, "SR", uuid, NULL);
}

struct names {
	struct arena *a;
	struct val list;
};

static void on_name(void *arg, struct sql_row *row)
{
	struct names *n = arg;
	struct val v = val_map();

	val_map_push(n->a, &v, "sr", val_string(arena_strdup(n->a, sql_string(row, 0))));
	val_map_push(n->a, &v, "attached", val_bool(sql_int(row, 1) != 0));
	val_set_push(n->a, &n->list, v);
}

static struct val known(struct agent *agent, struct arena *a)
{
	struct names n = { a, val_set() };

	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_name, &n, "SELECT uuid, attached FROM sr ORDER BY uuid", "");
	pthread_mutex_unlock(&agent->mutex);
	return n.list;
}

/* Places. */

/* The folder that the settings name, below our root: nothing else of this host is reachable. The
 * folder itself need not be there. */
static int location_of(
	struct agent *agent, const struct val *config, char out[SR_LOCATION_MAX], struct err *err)
{
	const char *location = val_get_s(config, "location"), *slash;
	char root[PATH_MAX], parent[PATH_MAX], real[PATH_MAX];
	size_t n;

	if (location == NULL || location[0] != '/' || strlen(location) >= PATH_MAX)
		return sr_failure(
			"SR_BACKEND_FAILURE", "device_config needs an absolute location", "", err);
	slash = strrchr(location, '/');
	if (slash[1] == 0 || strcmp(slash + 1, ".") == 0 || strcmp(slash + 1, "..") == 0)
		return sr_failure("SR_BACKEND_FAILURE", "the location is no name", location, err);
	snprintf(parent, sizeof parent, "%.*s", (int)(slash - location) + (slash == location),
		location);
	if (agent->sr_root == NULL || realpath(agent->sr_root, root) == NULL)
		return sr_failure(
			"SR_BACKEND_FAILURE", "this host has no place for SRs", location, err);
	n = strlen(root);
	if (realpath(parent, real) == NULL || strncmp(real, root, n) != 0 ||
		(real[n] != 0 && real[n] != '/'))
		return sr_failure("SR_BACKEND_FAILURE",
			"the location is not below the place for SRs", root, err);
	if ((size_t)snprintf(out, SR_LOCATION_MAX, "%s%s", real, slash) >= SR_LOCATION_MAX)
		return sr_failure("SR_BACKEND_FAILURE", "the location is too long", "", err);
	return 0;
}

static void sr_json(const char *location, char out[DISK_PATH_MAX])
{
	int n = snprintf(out, DISK_PATH_MAX, "%s/sr.json", location);

	CHECK(n > 0 && n < DISK_PATH_MAX);
}

/* The uuid of the SR that lies there, "" for none. A link is nobody's place. */
static int who_is_there(const char *location, char out[UUID_LEN + 1], struct err *err)
{
	char path[DISK_PATH_MAX];
	struct buf text = { 0 };
	struct arena a;
	struct stat st;
	struct val v = val_void();
	const char *uuid, *why;
	int rc = 0;

	out[0] = 0;
	if (lstat(location, &st) != 0)
		return errno == ENOENT ? 0 : sr_io_error("the location cannot be read", err);
	if (!S_ISDIR(st.st_mode))
		return sr_failure("SR_BACKEND_FAILURE", "the location is no folder", location, err);
	arena_init(&a);
	sr_json(location, path);
	if (file_read(path, SR_JSON_MAX, &text) != 0) {
		if (errno != ENOENT)
			rc = sr_io_error("the location cannot be read", err);
	} else if (rpc_json_parse(&a, arena_strndup(&a, (const char *)text.data, text.len),
			   text.len, &v, &why) != 0 ||
		   (uuid = val_get_s(&v, "sr")) == NULL || !uuid_ok(uuid)) {
		rc = sr_failure("SR_BACKEND_FAILURE", "sr.json cannot be read", location, err);
	} else {
		strcpy(out, uuid);
	}
	buf_fini(&text);
	arena_fini(&a);
	return rc;
}

static void on_any(void *arg, const char *name)
{
	(void)name;
	*(bool *)arg = true;
}

/* The mark of the SR; two hosts at once: one is first. */
static int claim(const char *location, const char *uuid, struct err *err)
{
	char path[DISK_PATH_MAX], mine[DISK_PATH_MAX + UUID_LEN];
	struct buf text = { 0 };
	int rc;

	sr_json(location, path);
	snprintf(mine, sizeof mine, "%s.%s", path, uuid);
	buf_printf(&text, "{\"sr\": \"%s\"}\n", uuid);
	rc = file_replace(mine, text.data, text.len) == 0 && file_move(mine, path) == 0
		     ? 0
		     : sr_io_error("the SR cannot be made", err);
	buf_fini(&text);
	unlink(mine);
	return rc;
}

int sr_create_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const char *uuid = val_get_s(params, "sr");
	char location[SR_LOCATION_MAX], there[UUID_LEN + 1];
	bool any = false;

	(void)job;
	*out = val_void();
	if (!uuid_ok(uuid))
		return err_set(err, AGENT_ERR_bad_request, "sr is no uuid", NULL);
	if (location_of(agent, val_get(params, "config"), location, err) != 0 ||
		who_is_there(location, there, err) != 0)
		return ERR_API;
	if (strcmp(there, uuid) == 0)
		return 0;
	if (there[0] != 0)
		return sr_failure("SR_DEVICE_IN_USE", there, location, err);
	if (mkdir(location, 0700) != 0 && errno != EEXIST)
		return sr_io_error("the SR cannot be made", err);
	if (folder_list(location, on_any, &any) != 0)
		return sr_io_error("the location cannot be read", err);
	if (any)
		return sr_failure("SR_BACKEND_FAILURE", "the folder is not empty", location, err);
	return claim(location, uuid, err);
}

/* Attach and detach. */

/* Locks that an earlier boot of this host has left. */
static void drop_own_locks(struct agent *agent, const struct sr *sr, struct arena *a)
{
	struct val disks;
	struct err none = { 0 };

	if (disk_list(sr, a, &disks, &none) == 0)
		for (uint32_t i = 0; i < disks.n; i++) {
			disk_unlock(sr, disks.items[i].s, sr->host, NULL, &none);
			if (none.code != NULL)
				log_warn(agent->env, "event=lock_not_dropped sr=%s vdi=%s why=%s",
					sr->uuid, disks.items[i].s, none.code->name);
			err_fini(&none);
		}
	err_fini(&none);
}

int sr_attach_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const char *uuid = val_get_s(params, "sr"), *host = val_get_s(params, "host");
	char there[UUID_LEN + 1];
	struct sr sr;
	int rc;

	*out = val_void();
	if (!uuid_ok(uuid) || !uuid_ok(host))
		return err_set(err, AGENT_ERR_bad_request, "sr or host is no uuid", NULL);
	if (sr_get(agent, uuid, &sr, err) == 0)
		return 0;
	err_fini(err);
	strcpy(sr.uuid, uuid);
	strcpy(sr.host, host);
	snprintf(sr.boot, sizeof sr.boot, "%s", hv_boot_id(agent->hv));
	if (location_of(agent, val_get(params, "config"), sr.location, err) != 0 ||
		who_is_there(sr.location, there, err) != 0)
		return ERR_API;
	if (strcmp(there, uuid) != 0)
		return sr_failure(
			"SR_BACKEND_FAILURE", "that SR is not at this location", sr.location, err);
	disk_tidy(&sr);
	drop_own_locks(agent, &sr, &job->arena);
	pthread_mutex_lock(&agent->mutex);
	rc = sql_run(agent->sql, "INSERT OR REPLACE INTO sr VALUES (?, ?, ?, 1)", "sss", uuid,
		sr.location, host);
	pthread_mutex_unlock(&agent->mutex);
	log_info(agent->env, "event=sr_attached sr=%s location=%s", uuid, sr.location);
	return rc == 0 ? 0
		       : err_set(err, AGENT_ERR_limit_reached, "the record cannot be kept", NULL);
}

static void mark_detached(struct agent *agent, const char *uuid)
{
	pthread_mutex_lock(&agent->mutex);
	sql_run(agent->sql, "UPDATE sr SET attached = 0 WHERE uuid = ?", "s", uuid);
	pthread_mutex_unlock(&agent->mutex);
}

static void forget(struct agent *agent, const char *uuid)
{
	pthread_mutex_lock(&agent->mutex);
	sql_run(agent->sql, "DELETE FROM sr WHERE uuid = ?", "s", uuid);
	pthread_mutex_unlock(&agent->mutex);
}

int sr_detach_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const char *uuid = val_get_s(params, "sr");
	const struct val *forgotten = val_get(params, "forget");
	struct sr sr;

	(void)job;
	*out = val_void();
	if (sr_get(agent, uuid, &sr, err) != 0)
		err_fini(err);
	else if (dp_any_in(agent, uuid))
		return err_set(err, AGENT_ERR_disk_in_use, "", sr.host, NULL);
	else
		mark_detached(agent, uuid);
	if (forgotten != NULL && forgotten->kind == VAL_BOOL && forgotten->b)
		forget(agent, uuid);
	return 0;
}

int sr_destroy_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const char *uuid = val_get_s(params, "sr");
	char path[DISK_PATH_MAX];
	struct val disks;
	struct sr sr;

	*out = val_void();
	if (sr_get(agent, uuid, &sr, err) != 0)
		return ERR_API;
	if (disk_list(&sr, &job->arena, &disks, err) != 0)
		return ERR_API;
	if (disks.n > 0)
		return err_set(err, AGENT_ERR_storage, "SR_NOT_EMPTY", NULL);
	sr_json(sr.location, path);
	if (file_remove(path) != 0 && errno != ENOENT)
		return sr_io_error("the SR cannot be removed", err);
	rmdir(sr.location); /* not empty: something in it is not ours */
	mark_detached(agent, uuid);
	return 0;
}

void sr_tidy_all(struct agent *agent)
{
	struct arena a;
	struct val list;
	struct sr sr;
	struct err none = { 0 };

	arena_init(&a);
	list = known(agent, &a);
	for (uint32_t i = 0; i < list.n; i++)
		if (sr_get(agent, val_get_s(&list.items[i], "sr"), &sr, &none) == 0)
			disk_tidy(&sr);
	err_fini(&none);
	arena_fini(&a);
}

/* What there is. */

int sr_list_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	(void)params;
	(void)err;
	*out = known(agent, &job->arena);
	return 0;
}

/* false: there is no such folder, and 0 is said. */
static bool put_sizes(struct job *job, const char *location, struct val *out)
{
	struct statvfs fs = { 0 };
	bool there = statvfs(location, &fs) == 0;

	val_map_push(&job->arena, out, "total", val_int((int64_t)(fs.f_blocks * fs.f_frsize)));
	val_map_push(&job->arena, out, "used",
		val_int((int64_t)((fs.f_blocks - fs.f_bfree) * fs.f_frsize)));
	return there;
}

int sr_stat_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	struct sr sr;

	if (sr_get(agent, val_get_s(params, "sr"), &sr, err) != 0)
		return ERR_API;
	*out = val_map();
	val_map_push(&job->arena, out, "sr", val_string(arena_strdup(&job->arena, sr.uuid)));
	return put_sizes(job, sr.location, out) ? 0
						: sr_io_error("the location cannot be read", err);
}

int sr_scan_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const char *after = val_get_s(params, "after");
	struct val disks, one;
	struct sr sr;

	*out = val_set();
	if (sr_get(agent, val_get_s(params, "sr"), &sr, err) != 0)
		return ERR_API;
	if (after == NULL)
		disk_tidy(&sr);
	if (disk_list(&sr, &job->arena, &disks, err) != 0)
		return ERR_API;
	for (uint32_t i = 0; i < disks.n && out->n < SR_PAGE; i++) {
		if (after != NULL && strcmp(disks.items[i].s, after) <= 0)
			continue;
		if (disk_stat(&sr, disks.items[i].s, &job->arena, &one, err) == 0)
			val_set_push(&job->arena, out, one);
		else if (err->code == AGENT_ERR_does_not_exist)
			err_fini(err); /* it has just gone */
		else
			return ERR_API;
	}
	return 0;
}

int sr_probe_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	char location[SR_LOCATION_MAX], there[UUID_LEN + 1];

	if (location_of(agent, val_get(params, "config"), location, err) != 0 ||
		who_is_there(location, there, err) != 0)
		return ERR_API;
	*out = val_map();
	val_map_push(&job->arena, out, "sr", val_string(arena_strdup(&job->arena, there)));
	put_sizes(job, location, out);
	return 0;
}
