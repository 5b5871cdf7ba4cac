/* The calls VDI.* that end at once; what takes long is in ops/vdi_copy.c. */
#include "member/sr_priv.h"
#include "agent/methods.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The SR and the disk that the parameters name. */
static int subject(struct agent *agent, const struct val *params, struct sr *sr, const char **vdi,
	struct err *err)
{
	*vdi = val_get_s(params, "vdi");
	if (!uuid_ok(*vdi))
		return err_set(err, AGENT_ERR_bad_request, "vdi is no uuid", NULL);
	return sr_get(agent, val_get_s(params, "sr"), sr, err);
}

static bool flag(const struct val *params, const char *key, bool absent)
{
	const struct val *v = val_get(params, key);

	return v != NULL ? v->b : absent;
}

static const char *text(const struct val *params, const char *key, const char *absent)
{
	const char *s = val_get_s(params, key);

	return s != NULL ? s : absent;
}

static int size_check(int64_t size, struct err *err)
{
	if (size > 0 && size <= DISK_SIZE_MAX && size % 512 == 0)
		return 0;
	return sr_failure("SR_BACKEND_FAILURE", "VDI Invalid size",
		"whole sectors of 512 bytes, at most 64 TiB", err);
}

static int make(const struct sr *sr, const char *vdi, int64_t size, const struct disk_about *about,
	struct err *err)
{
	struct disk_new made;
	int rc;

	if (disk_fits(sr, size, err) != 0 || disk_make(sr, vdi, &made, err) != 0)
		return ERR_API;
	rc = ftruncate(made.fd, size) != 0 ? sr_io_error("the disk cannot be made", err)
					   : disk_show(sr, vdi, &made, about, err);
	disk_drop(&made);
	return rc;
}

int vdi_create_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	int64_t size = val_get(params, "size")->i;
	struct disk_about about = { .name = text(params, "name", ""),
		.description = text(params, "description", ""),
		.type = text(params, "type", "user"),
		.snapshot_of = "",
		.made_by = text(params, "made_by", ""),
		.sharable = flag(params, "sharable", false),
		.read_only = flag(params, "read_only", false) };
	const char *vdi;
	struct sr sr;

	if (subject(agent, params, &sr, &vdi, err) != 0 || size_check(size, err) != 0)
		return ERR_API;
	if (!disk_there(&sr, vdi) && make(&sr, vdi, size, &about, err) != 0)
		return ERR_API;
	return disk_stat(&sr, vdi, &job->arena, out, err);
}

int vdi_destroy_call(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	const char *vdi;
	struct sr sr;

	(void)job;
	*out = val_void();
	return subject(agent, params, &sr, &vdi, err) != 0 ? ERR_API : disk_remove(&sr, vdi, err);
}

int vdi_stat_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const char *vdi;
	struct sr sr;

	return subject(agent, params, &sr, &vdi, err) != 0
		       ? ERR_API
		       : disk_stat(&sr, vdi, &job->arena, out, err);
}

int vdi_resize_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	int64_t size = val_get(params, "size")->i;
	struct disk disk = { .fd = -1 };
	struct stat st;
	const char *vdi;
	struct sr sr;
	int rc = 0;

	if (subject(agent, params, &sr, &vdi, err) != 0 || size_check(size, err) != 0 ||
		disk_fits(&sr, size, err) != 0 ||
		disk_hold(&sr, vdi, !flag(params, "online", false), &disk, err) != 0)
		return ERR_API;
	if (fstat(disk.fd, &st) != 0)
		rc = sr_io_error("the disk cannot be read", err);
	else if (size < st.st_size)
		rc = sr_failure(
			"SR_BACKEND_FAILURE", "VDI Invalid size", "a disk never shrinks", err);
	else if (ftruncate(disk.fd, size) != 0 || fsync(disk.fd) != 0)
		rc = sr_io_error("the disk cannot grow", err);
	disk_let_go(&disk);
	return rc != 0 ? rc : disk_stat(&sr, vdi, &job->arena, out, err);
}

/* Names and kind beside the data; what is absent stays. */
int vdi_set_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	struct disk_about about;
	const char *vdi;
	struct sr sr;

	*out = val_void();
	if (subject(agent, params, &sr, &vdi, err) != 0 ||
		disk_about_read(&sr, vdi, &job->arena, &about, err) != 0)
		return ERR_API;
	about.name = text(params, "name", about.name);
	about.description = text(params, "description", about.description);
	about.sharable = flag(params, "sharable", about.sharable);
	about.read_only = flag(params, "read_only", about.read_only);
	return disk_about_write(&sr, vdi, &about, err);
}

int vdi_force_unlock_call(struct agent *agent, struct job *job, const struct val *params,
	struct val *out, struct err *err)
{
	const char *vdi, *host = val_get_s(params, "host");
	struct sr sr;

	(void)job;
	*out = val_void();
	if (subject(agent, params, &sr, &vdi, err) != 0)
		return ERR_API;
	log_warn(agent->env, "event=force_unlock sr=%s vdi=%s host=%s", sr.uuid, vdi, host);
	return disk_unlock(&sr, vdi, host, val_get_s(params, "boot"), err);
}
