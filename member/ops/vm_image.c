/* A guest on a disk: VM.suspend, VM.resume, VM.checkpoint. vm-lifecycle 2.2.
 *
 * The disk (a VDI of the pool) is held while it is written, so nobody has it active meanwhile:
 *
 *   0     "xpoolimg", u32 format, u32 seal, u64 length, u64 hash of the image; zeros: no image
 *   4096  the image
 *
 * The head is written behind the image, and sealed when the guest's domain is no more: only a
 * sealed image is one, for a guest that has gone on since must never go back. So it is marked as
 * used before a guest that is resumed runs, once its domain cannot be lost by us. A guest that has
 * suspended goes on when its image cannot be written, and also when the agent dies before its
 * domain has ended: we had asked it, which the domain remembers (repair.c).
 *
 * A checkpoint is an image with copies of the disks of that moment: with those a guest may go back,
 * so it is sealed when they are whole. The guest goes on in its domain, before they are shown: when
 * it does not there is no checkpoint, and repair finds a guest that was asked to suspend. One that
 * is paused cannot answer: it runs until it has, and is paused again whatever comes of it; also by
 * the next agent, which knows it from a record (agent_hold).
 */
#include "member/ops/ops_priv.h"
#include "member/sr_priv.h"
#include "rpc/base/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	ACK_S = 30,
	WAIT_S = 1200 /* vm-lifecycle 1.5 */,
	FORMAT = 1,
	HEAD = 32,
	SEAL_AT = 12,
	BODY_AT = 4096
};

enum seal { NOT_SEALED, SEALED, USED /* the guest went on from it */ };

static const char magic[8] = "xpoolimg";

/* The guest. */

static int not_running(const char *found, struct err *err)
{
	return err_set(err, AGENT_ERR_bad_power_state, found, "running", NULL);
}

int vm_step_ask_suspend(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d;

	(void)job;
	if (!hv_domain_find(run->agent->hv, run->uuid, &d) || d.marked || d.shut_down)
		return not_running("halted", err);
	if (d.paused)
		return not_running("paused", err);
	run->domid = d.domid;
	return hv_domain_ask(run->agent->hv, run->domid, HV_SUSPEND, err);
}

void vm_undo_ask_suspend(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct err ignored = { 0 };
	struct hv_domain d;

	(void)job;
	if (!hv_domain_find(run->agent->hv, run->uuid, &d))
		return;
	if (d.shut_down && d.end == HV_SUSPEND)
		hv_domain_resume(run->agent->hv, d.domid, &ignored);
	else if (!hv_domain_acknowledged(run->agent->hv, d.domid))
		hv_domain_withdraw(run->agent->hv, d.domid);
	/* one that has acknowledged and is not there yet is let go on by the scan */
	err_fini(&ignored);
}

int vm_step_wait_suspend(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct vm_patience patience = { ACK_S, WAIT_S, AGENT_ERR_no_suspend_ack,
		AGENT_ERR_suspend_timeout };
	struct hv_domain d;
	int rc = vm_wait_stopped(job, run, &patience, err);

	if (rc != 0)
		return rc;
	return hv_domain_find(run->agent->hv, run->uuid, &d) && d.shut_down && d.end == HV_SUSPEND
		       ? 0
		       : not_running("halted", err);
}

int vm_image_take(struct agent_run *run, const char *image, struct err *err)
{
	struct hv_domain d;

	if (hv_domain_find(run->agent->hv, run->uuid, &d))
		return err_set(err, AGENT_ERR_bad_power_state, d.paused ? "paused" : "running",
			"halted", NULL);
	run->image = image;
	run->memory_kib = hv_image_memory_kib(run->agent->hv, image);
	return run->memory_kib > 0
		       ? 0
		       : err_set(err, AGENT_ERR_image_io, "this is no memory image", NULL);
}

int vm_step_restore(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return hv_domain_restore(run->agent->hv, run->domid, run->image, err);
}

/* The disk. */

static void let_go(struct agent_run *run)
{
	disk_let_go(run->image_disk);
}

static int hold(struct agent_run *run, bool alone, struct err *err)
{
	const struct val *place = val_get(&run->params, "disk");
	const char *vdi = val_get_s(place, "vdi");
	struct disk *disk = arena_alloc(&run->arena, sizeof *disk);
	struct sr sr;

	disk->fd = -1;
	run->image_disk = disk;
	run->fini = let_go;
	if (!uuid_ok(vdi))
		return err_set(err, AGENT_ERR_bad_request, "vdi is no uuid", NULL);
	return sr_get(run->agent, val_get_s(place, "sr"), &sr, err) != 0
		       ? ERR_API
		       : disk_hold(&sr, vdi, alone, disk, err);
}

static int write_all(int fd, const void *p, size_t n, off_t at)
{
	const char *from = p;

	while (n > 0) {
		ssize_t r = pwrite(fd, from, n, at);

		if (r < 0 && errno != EINTR)
			return ERR_IO;
		if (r > 0) {
			from += r;
			at += r;
			n -= (size_t)r;
		}
	}
	return 0;
}

static int read_all(int fd, void *p, size_t n, off_t at)
{
	char *to = p;

	while (n > 0) {
		ssize_t r = pread(fd, to, n, at);

		if (r == 0 || (r < 0 && errno != EINTR))
			return ERR_IO;
		if (r > 0) {
			to += r;
			at += r;
			n -= (size_t)r;
		}
	}
	return 0;
}

static void head_of(const struct buf *image, struct buf *head)
{
	buf_put(head, magic, sizeof magic);
	buf_u32(head, FORMAT);
	buf_u32(head, 0);
	buf_u64(head, image->len);
	buf_u64(head, hash_bytes(image->data, image->len));
}

/* Never longer than the disk: it would grow. */
static int put_image(int fd, const struct buf *image, struct err *err)
{
	static const uint8_t nothing[HEAD];
	struct buf head = { 0 };
	off_t size = lseek(fd, 0, SEEK_END);
	int rc;

	if (size < 0 || (size_t)size < BODY_AT + image->len)
		return err_set(err, AGENT_ERR_image_io, "the disk is too small", NULL);
	head_of(image, &head);
	rc = write_all(fd, nothing, HEAD, 0);
	if (rc == 0)
		rc = write_all(fd, image->data, image->len, BODY_AT);
	if (rc == 0 && fsync(fd) != 0)
		rc = ERR_IO;
	if (rc == 0)
		rc = write_all(fd, head.data, head.len, 0);
	if (rc == 0 && fsync(fd) != 0)
		rc = ERR_IO;
	buf_fini(&head);
	return rc == 0 ? 0 : err_set(err, AGENT_ERR_image_io, strerror(errno), NULL);
}

/* The image as text in the arena; NULL: there is no whole one, or it is not sealed. */
static const char *get_image(int fd, struct arena *a, enum seal *seal)
{
	uint8_t head[HEAD] = { 0 };
	struct reader r = reader_of(head, HEAD);
	uint64_t n, hash;
	char *image;

	*seal = NOT_SEALED;
	if (read_all(fd, head, HEAD, 0) != 0 ||
		memcmp(rd_bytes(&r, sizeof magic), magic, sizeof magic) != 0 ||
		rd_u32(&r) != FORMAT)
		return NULL;
	*seal = rd_u32(&r);
	if (*seal != SEALED)
		return NULL;
	n = rd_u64(&r);
	hash = rd_u64(&r);
	if (n == 0 || n > HV_IMAGE_MAX)
		return NULL;
	image = arena_alloc(a, n + 1);
	image[n] = 0;
	return read_all(fd, image, n, BODY_AT) == 0 && hash_bytes(image, n) == hash &&
			       memchr(image, 0, n) == NULL
		       ? image
		       : NULL;
}

/* VM.suspend */

static int open_disk(struct job *job, void *state, struct err *err)
{
	(void)job;
	return hold(state, true, err);
}

static int write_image(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct buf image = { 0 };
	int rc = hv_domain_save(run->agent->hv, run->domid, &image, err);

	(void)job;
	if (rc == 0)
		rc = put_image(run->image_disk->fd, &image, err);
	buf_fini(&image);
	return rc;
}

static int put_seal(struct agent_run *run, enum seal seal, struct err *err)
{
	int fd = run->image_disk->fd;
	struct buf word = { 0 };
	int rc;

	buf_u32(&word, seal);
	rc = write_all(fd, word.data, word.len, SEAL_AT);
	if (rc == 0 && fsync(fd) != 0)
		rc = ERR_IO;
	buf_fini(&word);
	return rc == 0 ? 0 : err_set(err, AGENT_ERR_image_io, strerror(errno), NULL);
}

static int seal(struct job *job, void *state, struct err *err)
{
	(void)job;
	return put_seal(state, SEALED, err);
}

/* clang-format off */
static const struct op_step suspend_steps[] = {
	/* name, weight, flags, run, undo */
	{ "disk.hold",   5, 0, open_disk,   NULL },
	VM_HOOK("vm-pre-suspend"),
	VM_STILL,
	{ "image.write", 60, 0, write_image, NULL }, /* whoever asked destroys the disk */
	VM_HOOK("vm-pre-shutdown"),
	{ "domain.destroy", 10, OP_COMMIT_POINT, vm_step_destroy, NULL },
	{ "image.seal",      5, OP_FORWARD, seal, NULL },
	{ "disks.release",   5, 0, vm_step_release, NULL },
	VM_HOOK("vm-post-destroy"),
};
/* clang-format on */

const struct op vm_suspend_op = { "VM.suspend", suspend_steps, ARRAY_LEN(suspend_steps),
	AGENT_ERR_cancelled };

/* VM.checkpoint */

static void let_go_all(struct agent_run *run)
{
	let_go(run);
	vdi_copy_release(run);
}

static int open_beside(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	int rc = open_disk(job, run, err);

	run->fini = let_go_all;
	return rc;
}

/* It was paused before. What has not gone on, or is about to suspend, is found again. */
static int pause_held(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d;
	bool there = hv_domain_find(run->agent->hv, run->uuid, &d);

	if (there && d.asked_suspend && !d.shut_down) {
		vm_undo_ask_suspend(job, run);
		there = hv_domain_find(run->agent->hv, run->uuid, &d);
	}
	if (there && (d.shut_down || d.marked || d.asked_suspend))
		return 0;
	if (there && agent_held(run->agent, run->uuid, d.domid) && !d.paused &&
		hv_domain_pause(run->agent->hv, d.domid, err) != 0)
		return ERR_API;
	agent_unhold(run->agent, run->uuid);
	return 0;
}

static void pause_again(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct err ignored = { 0 };

	if (run->was_paused && pause_held(job, run, &ignored) != 0)
		log_warn(run->agent->env, "event=not_paused vm=%s", run->uuid);
	err_fini(&ignored);
}

static int let_run(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d;

	(void)job;
	if (!hv_domain_find(run->agent->hv, run->uuid, &d))
		return not_running("halted", err);
	run->domid = d.domid;
	run->was_paused = d.paused && !d.marked;
	if (!run->was_paused)
		return 0;
	return agent_hold(run->agent, run->uuid, d.domid, err) == 0
		       ? hv_domain_unpause(run->agent->hv, d.domid, err)
		       : ERR_API;
}

static int pause_step(struct job *job, void *state, struct err *err)
{
	(void)err;
	pause_again(job, state);
	return 0;
}

static int resume_in_place(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return hv_domain_resume(run->agent->hv, run->domid, err);
}

/* clang-format off */
static const struct op_step checkpoint_steps[] = {
	/* name, weight, flags, run, undo */
	{ "disks.take",  5, 0, vdi_step_take, vdi_undo_take },
	{ "disk.hold",   5, 0, open_beside, NULL },
	{ "domain.unpause", 1, 0, let_run, pause_again },
	VM_STILL,
	{ "image.write",   30, 0, write_image, NULL }, /* whoever asked destroys the disk */
	{ "disks.copy",    30, 0, vdi_step_copy, NULL },
	{ "domain.resume",  4, 0, resume_in_place, NULL },
	{ "domain.pause",   1, 0, pause_step, NULL },
	{ "image.seal",     5, 0, seal, NULL },
	{ "disks.show",     5, 0, vdi_step_show, NULL },
};
/* clang-format on */

const struct op vm_checkpoint_op = { "VM.checkpoint", checkpoint_steps, ARRAY_LEN(checkpoint_steps),
	AGENT_ERR_cancelled };

/* VM.resume */

static int read_image(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	const char *image;
	enum seal seal;

	(void)job;
	if (hold(run, true, err) != 0)
		return ERR_API;
	image = get_image(run->image_disk->fd, &run->arena, &seal);
	return image == NULL ? err_set(err, AGENT_ERR_image_io, "there is no memory image", NULL)
			     : vm_image_take(run, image, err);
}

static int use_up(struct job *job, void *state, struct err *err)
{
	(void)job;
	return put_seal(state, USED, err);
}

/* clang-format off */
static const struct op_step resume_steps[] = {
	/* name, weight, flags, run, undo */
	{ "image.read", 20, 0, read_image, NULL },
	VM_RESERVE,
	VM_CREATE,
	VM_HOOK("vm-pre-resume"),
	VM_MAKE(vm_step_restore),
	VM_KEEP,
	{ "image.use", 5, 0, use_up, NULL },
	VM_HOOK("vm-post-resume"),
	VM_UNPAUSE,
};
/* clang-format on */

const struct op vm_resume_op = { "VM.resume", resume_steps, ARRAY_LEN(resume_steps),
	AGENT_ERR_cancelled };

/* Is there a whole image on the disk? What a suspend or a resume has come to when its agent died.
 */
int vm_image_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const struct val *place = val_get(params, "disk");
	const char *vdi = val_get_s(place, "vdi"), *image;
	struct disk disk = { .fd = -1 };
	enum seal seal;
	struct sr sr;

	if (!uuid_ok(vdi))
		return err_set(err, AGENT_ERR_bad_request, "vdi is no uuid", NULL);
	if (sr_get(agent, val_get_s(place, "sr"), &sr, err) != 0 ||
		disk_hold(&sr, vdi, false, &disk, err) != 0)
		return ERR_API;
	image = get_image(disk.fd, &job->arena, &seal);
	disk_let_go(&disk);
	*out = val_map();
	val_map_push(&job->arena, out, "memory_kib",
		val_int(image != NULL ? hv_image_memory_kib(agent->hv, image) : 0));
	val_map_push(&job->arena, out, "used", val_bool(seal == USED));
	return 0;
}

/* What was asked to suspend by an agent that has died since goes on. */

static int find_suspended(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d;

	(void)job;
	(void)err;
	run->skip = !hv_domain_find(run->agent->hv, run->uuid, &d) || !d.shut_down ||
		    d.end != HV_SUSPEND || d.moving != HV_STAYS;
	run->domid = d.domid;
	return 0;
}

static int go_on(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : hv_domain_resume(run->agent->hv, run->domid, err);
}

static const struct op_step wake_steps[] = {
	{ "domain.find", 10, 0, find_suspended, NULL },
	{ "domain.resume", 80, 0, go_on, NULL },
	{ "domain.pause", 10, 0, pause_held, NULL },
};

const struct op vm_wake_op = { "wake", wake_steps, ARRAY_LEN(wake_steps), AGENT_ERR_cancelled };
