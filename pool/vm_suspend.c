/* VM.suspend, resume, resume_on: the memory of a guest on a disk of the pool. vm-lifecycle
 * section 3.
 *
 * The disk is made for it in the SR for images (of the VM, the pool, or the host: the first that is
 * set and seen) and is VM.suspend_VDI from the entry that says Suspended. A task that fails takes
 * it away again (owner_made). When the agent has died meanwhile the disk says what has come of it:
 * a sealed image is there only when the guest's domain is not (member/ops/vm_image.c).
 *
 * A guest that is resumed has no image from the entry that says so, and its disk goes behind it. A
 * host that dies before leaves one that is marked as used: the guest went on and is lost with the
 * host, so the VM is Halted, when its task is looked at again or at the next resume anywhere. A
 * Suspended VM always has its disk.
 */
#include "pool/vm_priv.h"

#include <string.h>

enum { MIB = 1 << 20, EXTRA_MIB = 100, ATTACH_MS = 10000, LOOK_MS = 200 };

/* vm-lifecycle 1.5; whole MiB. */
static int64_t image_size(int64_t static_max)
{
	return (static_max / 100 * 126 / MIB + 1 + EXTRA_MIB) * MIB;
}

const struct db_row *vm_image_sr(
	const struct db_view *view, const struct db_row *vm, const struct db_row *host)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *pool = db_next(&c), *sr;
	const char *wanted[] = { db_row_s(vm, VM_suspend_SR),
		pool != NULL ? db_row_s(pool, POOL_suspend_image_SR) : NULL_REF,
		db_row_s(host, HOST_suspend_image_sr) };

	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		sr = db_view_get(view, MODEL_CLASS_SR, wanted[i]);
		if (sr != NULL && place_sees_sr(view, host, sr))
			return sr;
	}
	return NULL;
}

int vm_suspend_admit(struct admit *admit, const struct vm_suspend_args *args, struct err *err)
{
	return vm_image_sr(admit->view, admit->vm, admit->owner) != NULL
		       ? 0
		       : err_set(err, ERR_VM_NO_SUSPEND_SR, args->vm, NULL);
}

static struct val place_of(struct arena *a, const char *sr, const char *vdi)
{
	struct val disk = val_map(), params = val_map();

	val_map_push(a, &disk, "sr", val_string(sr));
	val_map_push(a, &disk, "vdi", val_string(vdi));
	val_map_push(a, &params, "disk", disk);
	return params;
}

/* What the agent says of an image. A host that has just come back attaches its SRs at first. */
static int ask_image(
	struct job *job, void *task, const struct val *place, struct val *out, struct err *err)
{
	const struct owned *o = task;
	uint64_t until = env_now_ms(job->env) + (o->same_incarnation ? 0 : ATTACH_MS);

	for (;;) {
		int rc = owner_agent_ask(job, task, AGENT_VM_image, place, out, err);

		if (rc != ERR_API || err->code != ERR_SR_NOT_ATTACHED ||
			env_now_ms(job->env) >= until)
			return rc;
		err_fini(err);
		if (job_sleep(job, LOOK_MS) == ERR_DEAD)
			return ERR_DEAD;
		job->cancelled = false;
	}
}

/* Where the guest is, of an operation that the agent says has failed. */
enum guest_is { NOT_KNOWN, IN_A_DOMAIN, ON_ITS_DISK, LOST };

static enum guest_is look_at_guest(struct job *job, void *task, const struct val *place)
{
	enum guest_is is = NOT_KNOWN;
	struct facts facts;
	struct err ignored = { 0 };
	const struct val *kib, *used;
	struct val v;

	if (facts_read(job, owner_pool(task), owner_vm_uuid(task), &facts) != 0)
		return NOT_KNOWN;
	if (strcmp(facts.power_state, "Halted") != 0)
		return IN_A_DOMAIN;
	if (ask_image(job, task, place, &v, &ignored) == 0) {
		kib = val_get(&v, "memory_kib");
		used = val_get(&v, "used");
		if (kib != NULL && kib->kind == VAL_INT && kib->i > 0)
			is = ON_ITS_DISK;
		else if (used != NULL && used->kind == VAL_BOOL && used->b)
			is = LOST; /* it went on, and its domain is gone */
	}
	err_fini(&ignored);
	return is;
}

int vm_image_disk(struct job *job, void *task, const char *vm_ref, struct val *place,
	const char **ref_out, struct err *err)
{
	struct val fields[VDI_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct db_view view;
	const struct db_row *vm = owner_vm(task, &view), *self = owner_self(task, &view),
			    *sr = vm != NULL ? vm_image_sr(&view, vm, self) : NULL;
	const char *sr_uuid, *sr_ref;
	int rc;

	if (sr == NULL) {
		db_view_unpin(&view);
		return err_set(err, ERR_VM_NO_SUSPEND_SR, vm_ref, NULL);
	}
	sr_ref = arena_strdup(&job->arena, db_row_ref(sr));
	sr_uuid = arena_strdup(&job->arena, db_row_s(sr, SR_uuid));
	fields[VDI_SR] = val_string(sr_ref);
	fields[VDI_virtual_size] = val_int(image_size(db_row_i(vm, VM_memory_static_max)));
	fields[VDI_type] = val_string("suspend");
	fields[VDI_name_label] = val_string("Suspend image");
	fields[VDI_name_description] = val_string(arena_printf(
		&job->arena, "Memory of %s", arena_strdup(&job->arena, db_row_s(vm, VM_uuid))));
	db_view_unpin(&view);
	rc = vdi_make(job, task, "suspend", fields, ref_out, err);
	if (rc == ERR_API && err->code == ERR_SR_BACKEND_FAILURE_44)
		return err_set(err, ERR_SR_SUSPEND_SPACE_INSUFFICIENT, sr_ref, NULL);
	if (rc == 0)
		*place = place_of(&job->arena, sr_uuid, fields[VDI_location].s);
	return rc;
}

int vm_suspend_run(struct job *job, void *task, const struct vm_suspend_args *args, struct err *err)
{
	struct val place, params;
	const char *vdi;
	int rc = vm_image_disk(job, task, args->vm, &place, &vdi, err);

	if (rc != 0)
		return rc;
	params = val_map();
	val_map_push(&job->arena, &params, "disk", *val_get(&place, "disk"));
	rc = owner_agent_op(job, task, AGENT_VM_suspend, &params, err);
	if (rc == ERR_API && look_at_guest(job, task, &place) == ON_ITS_DISK) {
		err_fini(err);
		rc = 0;
	}
	if (rc != 0)
		return rc;
	db_txn_set(owner_then(task), MODEL_CLASS_VM, args->vm, VM_suspend_VDI, val_string(vdi));
	((struct owned *)task)->suspended = true;
	return 0;
}

/* The VM has no image any more: its disk goes when it can, its record with it. */
static int drop_disk(struct job *job, void *task, const char *vm_ref, const struct vdi_place *at,
	const char *vdi_ref)
{
	struct val params = val_map();
	struct err why = { 0 };
	int rc;

	db_txn_set(owner_then(task), MODEL_CLASS_VM, vm_ref, VM_suspend_VDI, val_string(NULL_REF));
	val_map_push(&job->arena, &params, "sr", val_string(at->sr));
	val_map_push(&job->arena, &params, "vdi", val_string(at->vdi));
	rc = owner_agent_ask(job, task, AGENT_VDI_destroy, &params, NULL, &why);
	if (rc == ERR_API && why.code == ERR_VDI_NOT_AVAILABLE) /* by an earlier life of ours */
		rc = 0;
	if (rc == 0)
		db_txn_delete(owner_then(task), MODEL_CLASS_VDI, vdi_ref);
	else if (rc == ERR_API)
		log_warn(job->env, "event=image_left vm=%s vdi=%s why=%s", vm_ref, at->vdi,
			why.code->name);
	err_fini(&why);
	return rc == ERR_DEAD ? rc : 0;
}

/* Its image; "" when it has none. In the job's arena. */
static const char *image_of(struct job *job, void *task)
{
	struct db_view view;
	const struct db_row *vm = owner_vm(task, &view), *vdi = NULL;
	const char *ref = "";

	if (vm != NULL)
		vdi = db_view_get(&view, MODEL_CLASS_VDI, db_row_s(vm, VM_suspend_VDI));
	if (vdi != NULL)
		ref = arena_strdup(&job->arena, db_row_ref(vdi));
	db_view_unpin(&view);
	return ref;
}

int vm_forget_image(struct job *job, void *task, const char *vm_ref)
{
	const char *vdi = image_of(job, task);
	struct err none = { 0 };
	struct vdi_place at;

	db_txn_set(owner_then(task), MODEL_CLASS_VM, vm_ref, VM_power_state, val_string("Halted"));
	if (*vdi != 0 && vdi_place(job, task, vdi, &at, &none) == 0)
		return drop_disk(job, task, vm_ref, &at, vdi);
	err_fini(&none);
	return 0;
}

static int resume_admit(struct admit *admit, struct err *err)
{
	if (db_view_get(admit->view, MODEL_CLASS_VDI, db_row_s(admit->vm, VM_suspend_VDI)) == NULL)
		return err_set(err, ERR_VM_HAS_NO_SUSPEND_VDI, db_row_ref(admit->vm), NULL);
	return place_check(admit, admit->vm, admit->owner, err) != 0
		       ? ERR_API
		       : memory_reserve(admit, admit->vm, admit->owner, err);
}

static int resume(struct job *job, void *task, const char *vm_ref, bool paused, struct err *err)
{
	struct owned *o = task;
	const char *vdi = image_of(job, task);
	enum guest_is is = IN_A_DOMAIN;
	struct vdi_place at;
	struct val params, place;
	int rc = *vdi != 0 ? vm_push_metadata(job, task, err)
			   : err_set(err, ERR_VM_HAS_NO_SUSPEND_VDI, vm_ref, NULL);

	if (rc == 0)
		rc = vdi_place(job, task, vdi, &at, err);
	if (rc != 0)
		return rc;
	params = place_of(&job->arena, at.sr, at.vdi);
	place = place_of(&job->arena, at.sr, at.vdi);
	val_map_push(&job->arena, &params, "start_paused", val_bool(paused));
	rc = owner_agent_op(job, task, AGENT_VM_resume, &params, err);
	if (rc != 0)
		is = rc == ERR_API ? look_at_guest(job, task, &place) : NOT_KNOWN;
	if (is == NOT_KNOWN || is == ON_ITS_DISK)
		return rc;
	o->anyhow = true;
	/* unless the facts know of its domain: it may have gone already, and its memory with it */
	db_txn_set(&o->then, MODEL_CLASS_VM, vm_ref, VM_power_state, val_string("Halted"));
	db_txn_set(&o->then, MODEL_CLASS_VM, vm_ref, VM_suspend_VDI, val_string(NULL_REF));
	db_txn_delete(&o->then, MODEL_CLASS_VDI, vdi);
	owner_old(job, task, at.sr, at.vdi);
	return rc;
}

int vm_resume_admit(struct admit *admit, const struct vm_resume_args *args, struct err *err)
{
	(void)args;
	return resume_admit(admit, err);
}

int vm_resume_run(struct job *job, void *task, const struct vm_resume_args *args, struct err *err)
{
	return resume(job, task, args->vm, args->start_paused, err);
}

int vm_resume_on_admit(struct admit *admit, const struct vm_resume_on_args *args, struct err *err)
{
	(void)args;
	return resume_admit(admit, err);
}

int vm_resume_on_run(
	struct job *job, void *task, const struct vm_resume_on_args *args, struct err *err)
{
	return resume(job, task, args->vm, args->start_paused, err);
}
