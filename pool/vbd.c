/* The class VBD: drives of VMs. storage.md sections 1.4, 4; what tables say is not repeated here.
 *
 * A drive's place is a number (userdevice), from which follows its name in the guest, xvda to
 * xvdiv; by that name the agent knows it. A drive with a disk is attached when the domain has it.
 * An empty one is nothing to the agent: it is attached from the start of its VM, or since it was
 * plugged, until it is unplugged or the domain goes.
 */
#include "pool/operation_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LETTERS = 26, NAME_MAX_BYTES = 8 };

static int64_t number_of_letters(const char *text)
{
	int64_t n = 0;

	for (unsigned i = 0; text[i] != 0; i++) {
		if (text[i] < 'a' || text[i] > 'z' || i == 2)
			return -1;
		n = (i == 0 ? 0 : (n + 1) * LETTERS) + (text[i] - 'a');
	}
	return *text != 0 ? n : -1;
}

/* The number that a place stands for: "3", "xvdd", "sdd", "hdd"; -1: none. */
static int64_t place_number(const char *text)
{
	static const char *const prefixes[] = { "xvd", "sd", "hd" };
	char canonical[16];
	int64_t n = -1;

	for (size_t i = 0; i < ARRAY_LEN(prefixes) && n < 0; i++)
		if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0)
			n = number_of_letters(text + strlen(prefixes[i]));
	if (n < 0) {
		n = strtol(text, NULL, 10);
		snprintf(canonical, sizeof canonical, "%lld", (long long)n);
		if (strcmp(text, canonical) != 0)
			return -1;
	}
	return n < POOL_VBDS_SHOWN ? n : -1;
}

static void device_name(const char *userdevice, char out[NAME_MAX_BYTES])
{
	int64_t n = place_number(userdevice);

	if (n < 0)
		out[0] = 0;
	else if (n < LETTERS)
		snprintf(out, NAME_MAX_BYTES, "xvd%c", (char)('a' + n));
	else
		snprintf(out, NAME_MAX_BYTES, "xvd%c%c", (char)('a' + n / LETTERS - 1),
			(char)('a' + n % LETTERS));
}

static bool is_cd(const char *type)
{
	return strcmp(type, "CD") == 0;
}

static bool writes(const char *mode)
{
	return strcmp(mode, "RW") == 0;
}

/* create and destroy. */

/* A free place for "autodetect"; the place is taken by no other drive. */
static int choose_place(
	struct call *call, const struct db_row *vm, struct val *userdevice, struct err *err)
{
	struct db_cursor c = db_rows_related(&call->view, MODEL_RELATION_VBD_VM, db_row_ref(vm));
	bool taken[POOL_VBDS_SHOWN] = { false };
	const struct db_row *vbd;
	int64_t n;

	while ((vbd = db_next(&c)) != NULL) {
		n = place_number(db_row_s(vbd, VBD_userdevice));
		if (n >= 0)
			taken[n] = true;
	}
	if (strcmp(userdevice->s, "autodetect") == 0) {
		for (n = 0; n < POOL_VBDS_SHOWN && taken[n]; n++)
			;
		if (n == POOL_VBDS_SHOWN)
			return err_set(err, ERR_INVALID_DEVICE, userdevice->s, NULL);
		*userdevice = val_string(arena_printf(&call->arena, "%lld", (long long)n));
		return 0;
	}
	n = place_number(userdevice->s);
	if (n < 0)
		return err_set(err, ERR_INVALID_DEVICE, userdevice->s, NULL);
	return taken[n] ? err_set(err, ERR_DEVICE_ALREADY_EXISTS, userdevice->s, NULL) : 0;
}

/* What a drive may be, and with what in it; ref: NULL_REF while it is being made. */
static int check_mode(const struct db_row *vm, const struct db_row *vdi, const char *type,
	const char *mode, const char *ref, struct err *err)
{
	if (is_cd(type) && writes(mode))
		return err_set(err, ERR_VBD_CDS_MUST_BE_READONLY, NULL);
	if (strcmp(type, "Disk") == 0 && !writes(mode) && rule_hvm(vm))
		return err_set(err, ERR_DISK_VBD_MUST_BE_READWRITE_FOR_HVM, ref, NULL);
	if (vdi != NULL && writes(mode) && db_row_b(vdi, VDI_read_only))
		return err_set(err, ERR_VDI_READONLY, db_row_ref(vdi), NULL);
	return 0;
}

int vbd_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err)
{
	const char *type = fields[VBD_type].s, *vdi_ref = fields[VBD_VDI].s;
	const struct db_row *vm = db_view_get(&call->view, MODEL_CLASS_VM, fields[VBD_VM].s),
			    *vdi = db_view_get(&call->view, MODEL_CLASS_VDI, vdi_ref);

	if (vm == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM", fields[VBD_VM].s, NULL);
	if (fields[VBD_empty].b && strcmp(type, "Disk") == 0)
		return err_set(err, ERR_VBD_NOT_REMOVABLE_MEDIA, "in constructor", NULL);
	if (!fields[VBD_empty].b && vdi == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VDI", vdi_ref, NULL);
	if (fields[VBD_empty].b) {
		vdi = NULL;
		fields[VBD_VDI] = val_string(NULL_REF);
	}
	if (check_mode(vm, vdi, type, fields[VBD_mode].s, NULL_REF, err) != 0 ||
		choose_place(call, vm, &fields[VBD_userdevice], err) != 0)
		return ERR_API;
	fields[VBD_currently_attached] = val_bool(false);
	/* whoever gives the VM a drive on the same view is judged again */
	db_txn_need_version(txn, MODEL_CLASS_VM, db_row_ref(vm), db_row_modified(vm));
	db_txn_touch(txn, MODEL_CLASS_VM, db_row_ref(vm));
	return 0;
}

static int busy(struct call *call, const struct db_row *vbd, struct err *err)
{
	struct val current = db_row_field(vbd, VBD_current_operations, &call->arena);

	return current.n == 0
		       ? 0
		       : err_set(err, ERR_OTHER_OPERATION_IN_PROGRESS, "VBD", db_row_ref(vbd),
				 current.pairs[0].value.s, current.pairs[0].key, NULL);
}

int vbd_destroying(struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err)
{
	const struct db_row *vm = db_view_get(&call->view, MODEL_CLASS_VM, db_row_s(row, VBD_VM));

	(void)txn;
	if (busy(call, row, err) != 0)
		return ERR_API;
	if (db_row_b(row, VBD_currently_attached) || db_row_b(row, VBD_reserved))
		return err_set(err, ERR_OPERATION_NOT_ALLOWED,
			arena_printf(&call->arena, "VBD '%s' still attached to '%s'",
				db_row_s(row, VBD_uuid), vm != NULL ? db_row_s(vm, VM_uuid) : ""),
			NULL);
	return 0;
}

int vbd_set_mode(struct call *call, const struct vbd_set_mode_args *args, struct err *err)
{
	const struct db_row *row = db_view_get(&call->view, MODEL_CLASS_VBD, args->self), *vm;
	struct db_txn txn;

	if (row == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VBD", args->self, NULL);
	vm = db_view_get(&call->view, MODEL_CLASS_VM, db_row_s(row, VBD_VM));
	if (vm == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VM", db_row_s(row, VBD_VM), NULL);
	if (busy(call, row, err) != 0)
		return ERR_API;
	if (db_row_b(row, VBD_currently_attached))
		return err_set(err, ERR_DEVICE_ALREADY_ATTACHED, args->self, NULL);
	if (check_mode(vm, db_view_get(&call->view, MODEL_CLASS_VDI, db_row_s(row, VBD_VDI)),
		    db_row_s(row, VBD_type), args->value, args->self, err) != 0)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_version(&txn, MODEL_CLASS_VBD, args->self, db_row_modified(row));
	db_txn_set(&txn, MODEL_CLASS_VBD, args->self, VBD_mode, val_string(args->value));
	return call_write(call, &txn, NULL);
}

int vbd_assert_attachable(
	struct call *call, const struct vbd_assert_attachable_args *args, struct err *err)
{
	const struct db_row *row = db_view_get(&call->view, MODEL_CLASS_VBD, args->self);
	const char *waits_for;

	if (row == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "VBD", args->self, NULL);
	return rules_check(&call->view, row, "attach", &call->arena, &waits_for, err);
}

/* The agent's words. */

/* The drive with this disk in it (a row, or NULL: nothing); false: there is nothing to plug. */
static bool drive_of(struct arena *a, const struct db_view *view, const struct db_row *vbd,
	const struct db_row *vdi, struct val *out)
{
	const struct db_row *sr =
		vdi != NULL ? db_view_get(view, MODEL_CLASS_SR, db_row_s(vdi, VDI_SR)) : NULL;
	const char *type = db_row_s(vbd, VBD_type);
	char name[NAME_MAX_BYTES];

	device_name(db_row_s(vbd, VBD_userdevice), name);
	*out = val_map();
	val_map_push(a, out, "id", val_string(arena_strdup(a, name)));
	val_map_push(a, out, "mode", val_string(arena_strdup(a, db_row_s(vbd, VBD_mode))));
	val_map_push(a, out, "type",
		val_string(is_cd(type)			 ? "cd"
			   : strcmp(type, "Floppy") == 0 ? "floppy"
							 : "disk"));
	if (sr == NULL || name[0] == 0)
		return false;
	val_map_push(a, out, "sr", val_string(arena_strdup(a, db_row_s(sr, SR_uuid))));
	val_map_push(a, out, "vdi", val_string(arena_strdup(a, db_row_s(vdi, VDI_location))));
	val_map_push(
		a, out, "persistent", val_bool(strcmp(db_row_s(vdi, VDI_on_boot), "reset") != 0));
	return true;
}

static const struct db_row *disk_in(const struct db_view *view, const struct db_row *vbd)
{
	return db_row_b(vbd, VBD_empty)
		       ? NULL
		       : db_view_get(view, MODEL_CLASS_VDI, db_row_s(vbd, VBD_VDI));
}

struct val vbd_metadata(struct arena *a, const struct db_view *view, const struct db_row *vm)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_VBD_VM, db_row_ref(vm));
	const struct db_row *vbd;
	struct val list = val_set(), one;

	while ((vbd = db_next(&c)) != NULL)
		if (drive_of(a, view, vbd, disk_in(view, vbd), &one))
			val_set_push(a, &list, one);
	return list;
}

int vbd_break_locks(struct job *job, void *task, const char *vm)
{
	const struct db_row *vbd, *vdi;
	struct val disks = val_set();
	struct db_view view;
	struct db_cursor c;
	struct err why = { 0 };
	bool held;
	int rc = 0;

	db_view_pin(owner_pool(task)->db, &view);
	c = db_rows_related(&view, MODEL_RELATION_VBD_VM, vm);
	while ((vbd = db_next(&c)) != NULL) {
		vdi = disk_in(&view, vbd);
		if (vdi != NULL)
			val_set_push(&job->arena, &disks,
				val_string(arena_strdup(&job->arena, db_row_ref(vdi))));
	}
	db_view_unpin(&view);
	for (uint32_t i = 0; i < disks.n && rc != ERR_DEAD; i++) {
		rc = vdi_break_locks(job, task, disks.items[i].s, &held, &why);
		if (rc == ERR_API)
			log_warn(job->env, "event=lock_not_broken vdi=%s why=%s", disks.items[i].s,
				why.code->name);
		err_fini(&why);
	}
	return rc == ERR_API ? 0 : rc;
}

/* Facts. */

static bool under_way(const struct db_row *vbd, const char *op)
{
	struct val current;
	struct arena a;
	bool found = false;

	arena_init(&a);
	current = db_row_field(vbd, VBD_current_operations, &a);
	for (uint32_t i = 0; i < current.n; i++)
		found |= strcmp(current.pairs[i].value.s, op) == 0;
	arena_fini(&a);
	return found;
}

static bool domain_has(const struct facts *f, const char *name)
{
	for (uint32_t i = 0; f->vbds != NULL && i < f->vbds->n; i++) {
		const char *id = val_get_s(&f->vbds->items[i], "id");
		const struct val *plugged = val_get(&f->vbds->items[i], "plugged");

		if (id != NULL && strcmp(id, name) == 0)
			return plugged != NULL && plugged->kind == VAL_BOOL && plugged->b;
	}
	return false;
}

static bool attached(const struct db_row *vbd, const struct facts *f)
{
	char name[NAME_MAX_BYTES];

	device_name(db_row_s(vbd, VBD_userdevice), name);
	if (f->domid < 0)
		return false;
	if (domain_has(f, name))
		return true;
	if (under_way(vbd, "eject")) /* the drive stays */
		return db_row_b(vbd, VBD_currently_attached);
	return db_row_b(vbd, VBD_empty) &&
	       (db_row_b(vbd, VBD_currently_attached) || under_way(vbd, "attach") ||
		       under_way(vbd, "plug"));
}

void vbd_facts_write(struct db_txn *txn, const struct db_view *view, const struct db_row *vm,
	const struct facts *f)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_VBD_VM, db_row_ref(vm));
	const struct db_row *vbd;

	while ((vbd = db_next(&c)) != NULL) {
		const char *ref = db_row_ref(vbd);
		char name[NAME_MAX_BYTES];
		bool is = attached(vbd, f);

		if (db_row_b(vbd, VBD_currently_attached) != is)
			db_txn_set(txn, MODEL_CLASS_VBD, ref, VBD_currently_attached, val_bool(is));
		device_name(db_row_s(vbd, VBD_userdevice), name);
		if (is && strcmp(db_row_s(vbd, VBD_device), name) != 0)
			db_txn_set(txn, MODEL_CLASS_VBD, ref, VBD_device, val_string(name));
	}
}

bool vbd_facts_differ(const struct db_view *view, const struct db_row *vm, const struct facts *f)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_VBD_VM, db_row_ref(vm));
	const struct db_row *vbd;

	while ((vbd = db_next(&c)) != NULL)
		if (db_row_b(vbd, VBD_currently_attached) != attached(vbd, f))
			return true;
	return false;
}

/* Operations of one drive. */

/* What an operation has to know of its drive, with vdi in it (NULL: what is in it). */
struct drive {
	struct val words;
	bool full, running;
	const char *id;
};

static int drive_get(struct job *job, void *task, const char *ref, const char *vdi,
	struct drive *out, struct err *err)
{
	const struct db_row *vbd, *vm;
	struct db_view view;
	int rc = 0;

	db_view_pin(owner_pool(task)->db, &view);
	vbd = db_view_get(&view, MODEL_CLASS_VBD, ref);
	if (vbd == NULL) {
		rc = err_set(err, ERR_HANDLE_INVALID, "VBD", ref, NULL);
	} else {
		vm = db_view_get(&view, MODEL_CLASS_VM, db_row_s(vbd, VBD_VM));
		out->full = drive_of(&job->arena, &view, vbd,
			vdi != NULL ? db_view_get(&view, MODEL_CLASS_VDI, vdi)
				    : disk_in(&view, vbd),
			&out->words);
		out->id = val_get_s(&out->words, "id");
		out->running = vm != NULL && strcmp(db_row_s(vm, VM_power_state), "Running") == 0;
	}
	db_view_unpin(&view);
	return rc;
}

/* The host where the VM runs has to see the SR. */
static int check_seen(
	struct admit *ad, const struct db_row *vbd, const struct db_row *vdi, struct err *err)
{
	const struct db_row *sr =
		vdi != NULL ? db_view_get(ad->view, MODEL_CLASS_SR, db_row_s(vdi, VDI_SR)) : NULL;

	return sr == NULL || place_sees_sr(ad->view, ad->owner, sr)
		       ? 0
		       : err_set(err, ERR_VM_REQUIRES_SR, db_row_s(vbd, VBD_VM), db_row_ref(sr),
				 NULL);
}

int vbd_plug_admit(struct admit *admit, const struct vbd_plug_args *args, struct err *err)
{
	const struct db_row *vbd = db_view_get(admit->view, MODEL_CLASS_VBD, args->self);

	return check_seen(admit, vbd, disk_in(admit->view, vbd), err);
}

int vbd_plug_run(struct job *job, void *task, const struct vbd_plug_args *args, struct err *err)
{
	struct val params = val_map();
	struct drive d;
	int rc = drive_get(job, task, args->self, NULL, &d, err);

	if (rc != 0 || !d.full)
		return rc;
	val_map_push(&job->arena, &params, "vbd", d.words);
	return owner_agent_op(job, task, AGENT_VBD_plug, &params, err);
}

static int unplug(struct job *job, void *task, const char *ref, bool force, struct err *err)
{
	struct val params = val_map();
	struct drive d;
	int rc = drive_get(job, task, ref, NULL, &d, err);

	if (rc != 0)
		return rc;
	if (!d.full) {
		db_txn_set(owner_then(task), MODEL_CLASS_VBD, ref, VBD_currently_attached,
			val_bool(false));
		return 0;
	}
	val_map_push(&job->arena, &params, "id", val_string(d.id));
	val_map_push(&job->arena, &params, "force", val_bool(force));
	return owner_agent_op(job, task, AGENT_VBD_unplug, &params, err);
}

int vbd_unplug_run(struct job *job, void *task, const struct vbd_unplug_args *args, struct err *err)
{
	return unplug(job, task, args->self, false, err);
}

int vbd_unplug_force_run(
	struct job *job, void *task, const struct vbd_unplug_force_args *args, struct err *err)
{
	return unplug(job, task, args->self, true, err);
}

int vbd_unplug_force_no_safety_check_run(struct job *job, void *task,
	const struct vbd_unplug_force_no_safety_check_args *args, struct err *err)
{
	return unplug(job, task, args->self, true, err);
}

/* The medium is named by the call, so the table's rules about what is in the drive do not see it.
 */
int vbd_insert_admit(struct admit *admit, const struct vbd_insert_args *args, struct err *err)
{
	const struct db_row *vbd = db_view_get(admit->view, MODEL_CLASS_VBD, args->vbd),
			    *vdi = db_view_get(admit->view, MODEL_CLASS_VDI, args->vdi), *other,
			    *vm = db_view_get(admit->view, MODEL_CLASS_VM, db_row_s(vbd, VBD_VM));
	struct db_cursor c;

	if (!db_row_b(vdi, VDI_managed))
		return err_set(err, ERR_VDI_NOT_MANAGED, args->vbd, NULL);
	c = db_rows_related(admit->view, MODEL_RELATION_VBD_VDI, args->vdi);
	while (!db_row_b(vdi, VDI_sharable) && (other = db_next(&c)) != NULL) {
		struct val current = db_row_field(other, VBD_current_operations, admit->arena);

		if (writes(db_row_s(other, VBD_mode)) &&
			(db_row_b(other, VBD_currently_attached) || current.n > 0))
			return err_set(err, ERR_VDI_IN_USE, args->vdi, NULL);
	}
	locks_pin_disk(admit, vdi);
	return vm != NULL && strcmp(db_row_s(vm, VM_power_state), "Running") == 0
		       ? check_seen(admit, vbd, vdi, err)
		       : 0;
}

int vbd_insert_run(struct job *job, void *task, const struct vbd_insert_args *args, struct err *err)
{
	struct val params = val_map();
	struct drive d;
	int rc = drive_get(job, task, args->vbd, args->vdi, &d, err);

	if (rc == 0 && d.running && d.full) {
		val_map_push(&job->arena, &params, "vbd", d.words);
		rc = owner_agent_op(job, task, AGENT_VBD_insert, &params, err);
	}
	if (rc == 0) {
		db_txn_set(owner_then(task), MODEL_CLASS_VBD, args->vbd, VBD_VDI,
			val_string(args->vdi));
		db_txn_set(
			owner_then(task), MODEL_CLASS_VBD, args->vbd, VBD_empty, val_bool(false));
	}
	return rc;
}

int vbd_eject_run(struct job *job, void *task, const struct vbd_eject_args *args, struct err *err)
{
	struct val params = val_map();
	struct drive d;
	int rc = drive_get(job, task, args->vbd, NULL, &d, err);

	if (rc == 0 && d.running && d.full) {
		val_map_push(&job->arena, &params, "id", val_string(d.id));
		rc = owner_agent_op(job, task, AGENT_VBD_eject, &params, err);
	}
	if (rc == 0) {
		db_txn_set(owner_then(task), MODEL_CLASS_VBD, args->vbd, VBD_VDI,
			val_string(NULL_REF));
		db_txn_set(owner_then(task), MODEL_CLASS_VBD, args->vbd, VBD_empty, val_bool(true));
	}
	return rc;
}
