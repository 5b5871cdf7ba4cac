/* VM.provision: a copy of a template becomes a VM, with the disks that the template asks for.
 *
 * They are written in other_config:disks as XML, a form that templates of all products have:
 *   <provision><disk device="0" size="8589934592" sr="" bootable="true" type="system"/></provision>
 * Attributes in any order; sr is a uuid, "" the pool's default. All of them are made, or none.
 */
#include "pool/vm_priv.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { DISKS_MAX = 32 };

struct wish {
	const char *device, *sr, *type; /* sr: a uuid or "" */
	int64_t size;
	bool bootable;
};

struct wishes {
	struct wish disks[DISKS_MAX];
	unsigned n;
};

/* name="value" or name='value' at *at, which moves on; false: there is none, or it is no XML. */
static bool attribute(struct arena *a, const char **at, const char **name, const char **value)
{
	const char *p = *at, *begin;
	char quote;

	while (isspace((unsigned char)*p))
		p++;
	begin = p;
	while (isalnum((unsigned char)*p) || *p == '_' || *p == '-' || *p == ':')
		p++;
	if (p == begin)
		return false;
	*name = arena_strndup(a, begin, (size_t)(p - begin));
	while (isspace((unsigned char)*p))
		p++;
	if (*p++ != '=')
		return false;
	while (isspace((unsigned char)*p))
		p++;
	quote = *p++;
	if (quote != '"' && quote != '\'')
		return false;
	begin = p;
	p = strchr(p, quote);
	if (p == NULL)
		return false;
	*value = arena_strndup(a, begin, (size_t)(p - begin));
	*at = p + 1;
	return true;
}

static bool parse_disk(struct arena *a, const char **at, struct wish *out)
{
	const char *name, *value;

	*out = (struct wish){ .device = "", .sr = "", .type = "system" };
	while (attribute(a, at, &name, &value)) {
		if (strcmp(name, "device") == 0)
			out->device = value;
		else if (strcmp(name, "sr") == 0)
			out->sr = value;
		else if (strcmp(name, "size") == 0)
			out->size = strtoll(value, NULL, 10);
		else if (strcmp(name, "type") == 0)
			out->type = value;
		else if (strcmp(name, "bootable") == 0)
			out->bootable = strcmp(value, "true") == 0;
	}
	while (isspace((unsigned char)**at))
		(*at)++;
	return (**at == '/' || **at == '>') && *out->device != 0 && out->size > 0 &&
	       model_enum_value(MODEL_ENUM_vdi_type, out->type) != NULL;
}

static int wishes_of(struct arena *a, const struct db_row *vm, struct wishes *out, struct err *err)
{
	struct val config = db_row_field(vm, VM_other_config, a);
	const char *text = val_get_s(&config, "disks"), *at = text;

	out->n = 0;
	while (at != NULL && (at = strstr(at, "<disk")) != NULL) {
		at += strlen("<disk");
		if (!isspace((unsigned char)*at))
			continue;
		if (out->n == DISKS_MAX || !parse_disk(a, &at, &out->disks[out->n++]))
			return err_set(err, ERR_INVALID_VALUE, "other_config:disks",
				arena_strdup(a, text), NULL);
	}
	return 0;
}

static const struct db_row *sr_of(const struct db_view *view, const struct wish *w, struct err *err)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *pool = db_next(&c), *sr;

	if (*w->sr != 0) {
		sr = db_view_by_uuid(view, MODEL_CLASS_SR, w->sr);
		if (sr == NULL)
			err_set(err, ERR_UUID_INVALID, "SR", w->sr, NULL);
		return sr;
	}
	sr = pool != NULL ? db_view_get(view, MODEL_CLASS_SR, db_row_s(pool, POOL_default_SR))
			  : NULL;
	if (sr == NULL)
		err_set(err, ERR_DEFAULT_SR_NOT_FOUND,
			pool != NULL ? db_row_s(pool, POOL_default_SR) : NULL_REF, NULL);
	return sr;
}

/* By the numbers; a template that has the drive already keeps it. */
static bool has_drive(const struct db_view *view, const char *vm, const char *device)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_VBD_VM, vm);
	const struct db_row *vbd;

	while ((vbd = db_next(&c)) != NULL)
		if (strcmp(db_row_s(vbd, VBD_userdevice), device) == 0)
			return true;
	return false;
}

int vm_provision_admit(struct admit *admit, const struct vm_provision_args *args, struct err *err)
{
	const struct db_row *vm = db_view_get(admit->view, MODEL_CLASS_VM, args->vm), *sr;
	struct wishes wishes;

	if (wishes_of(admit->arena, vm, &wishes, err) != 0)
		return ERR_API;
	for (unsigned i = 0; i < wishes.n; i++) {
		sr = sr_of(admit->view, &wishes.disks[i], err);
		if (sr == NULL || place_also_sr(admit, vm, sr, err) != 0 ||
			locks_also(admit, sr, "vdi_create", err) != 0)
			return ERR_API;
	}
	for (unsigned i = 0; i < wishes.n; i++) /* the last choice sees all? */
		if (!place_sees_sr(
			    admit->view, admit->owner, sr_of(admit->view, &wishes.disks[i], err)))
			return err_set(err, ERR_NO_HOSTS_AVAILABLE, NULL);
	return 0;
}

static void add_drive(
	struct job *job, void *task, const char *vm, const struct wish *w, const char *vdi)
{
	struct val f[VBD_FIELD_COUNT] = { { .kind = VAL_VOID } }, config = val_map();
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];

	owner_uuid(task, arena_printf(&job->arena, "drive %s", w->device), uuid, ref);
	val_map_push(&job->arena, &config, "owner", val_string("")); /* the disk goes with the VM */
	f[VBD_uuid] = val_string(uuid);
	f[VBD_VM] = val_string(vm);
	f[VBD_VDI] = val_string(vdi);
	f[VBD_userdevice] = val_string(w->device);
	f[VBD_bootable] = val_bool(w->bootable);
	f[VBD_mode] = val_string("RW");
	f[VBD_type] = val_string("Disk");
	f[VBD_unpluggable] = val_bool(true);
	f[VBD_other_config] = config;
	db_txn_create(owner_then(task), MODEL_CLASS_VBD, ref, f);
}

static int make_one(struct job *job, void *task, const char *vm, const struct wish *w,
	const char *sr, struct err *err)
{
	struct val f[VDI_FIELD_COUNT] = { { .kind = VAL_VOID } };
	const char *vdi;
	int rc;

	f[VDI_SR] = val_string(sr);
	f[VDI_name_label] = val_string(w->device);
	f[VDI_name_description] = val_string("Created by template provisioner");
	f[VDI_virtual_size] = val_int(w->size);
	f[VDI_type] = val_string(model_enum_value(MODEL_ENUM_vdi_type, w->type));
	rc = vdi_make(job, task, arena_printf(&job->arena, "disk %s", w->device), f, &vdi, err);
	if (rc == 0)
		add_drive(job, task, vm, w, vdi);
	return rc;
}

int vm_provision_run(
	struct job *job, void *task, const struct vm_provision_args *args, struct err *err)
{
	const char *srs[DISKS_MAX];
	const struct db_row *vm, *sr;
	struct wishes wishes = { .n = 0 };
	struct db_view view;
	int rc = 0;

	db_view_pin(owner_pool(task)->db, &view);
	vm = db_view_get(&view, MODEL_CLASS_VM, args->vm);
	rc = vm == NULL ? err_set(err, ERR_HANDLE_INVALID, "VM", args->vm, NULL)
			: wishes_of(&job->arena, vm, &wishes, err);
	for (unsigned i = 0; i < wishes.n && rc == 0; i++) {
		sr = sr_of(&view, &wishes.disks[i], err);
		rc = sr == NULL ? ERR_API : 0;
		srs[i] = sr == NULL || has_drive(&view, args->vm, wishes.disks[i].device)
				 ? NULL
				 : arena_strdup(&job->arena, db_row_ref(sr));
	}
	db_view_unpin(&view);
	for (unsigned i = 0; i < wishes.n && rc == 0; i++)
		if (srs[i] != NULL)
			rc = make_one(job, task, args->vm, &wishes.disks[i], srs[i], err);
	if (rc != 0)
		return rc;
	db_txn_set(owner_then(task), MODEL_CLASS_VM, args->vm, VM_is_a_template, val_bool(false));
	db_txn_map_remove(owner_then(task), MODEL_CLASS_VM, args->vm, VM_other_config, "disks");
	return 0;
}
