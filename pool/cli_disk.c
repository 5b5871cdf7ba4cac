/* Commands about the disks and CDs of VMs that are more than one message. */
#include "pool/cli_priv.h"

#include <string.h>

#define ISO "iso" /* content type of the SRs that hold CDs */

static const struct model_type sr_type = { .kind = MODEL_REF, .class_id = MODEL_CLASS_SR };

/* The SR that is named, else the pool's default. */
static int sr_of(struct cli *cli, struct val *out, struct err *err)
{
	const char *text = cli_get(cli, "sr-uuid");
	const struct db_row *pool, *sr = NULL;
	struct db_view view;
	struct db_cursor c;

	if (text != NULL && *text != 0)
		return cli_value(cli, &sr_type, "sr-uuid", text, out, err);
	cli_view(cli, &view);
	c = db_rows(&view, MODEL_CLASS_pool);
	pool = db_next(&c);
	if (pool != NULL)
		sr = db_view_get(&view, MODEL_CLASS_SR, db_row_s(pool, POOL_default_SR));
	if (sr != NULL)
		*out = val_string(arena_strdup(cli->arena, db_row_ref(sr)));
	db_view_unpin(&view);
	return sr != NULL ? 0
			  : cli_fail(cli, "No default Pool SR set; you must specify an SR on the "
					  "commandline");
}

/* Does the VM run, so that a drive can be plugged? */
static bool runs(struct cli *cli, const char *vm)
{
	const struct db_row *row;
	struct db_view view;
	bool yes;

	cli_view(cli, &view);
	row = db_view_get(&view, MODEL_CLASS_VM, vm);
	yes = row != NULL && strcmp(db_row_s(row, VM_power_state), "Running") == 0;
	db_view_unpin(&view);
	return yes;
}

/* A drive, with nothing in it when no disk is named. */
int cli_vbd_create(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	static const struct {
		const char *word, *field, *otherwise;
	} words[] = { { "vm-uuid", "VM", NULL }, { "vdi-uuid", "VDI", "" },
		{ "device", "userdevice", NULL }, { "bootable", "bootable", "false" },
		{ "mode", "mode", "RW" }, { "type", "type", "Disk" },
		{ "unpluggable", "unpluggable", "true" } };
	const struct model_class *c = &model_classes[MODEL_CLASS_VBD];
	const char *vdi = cli_get(cli, "vdi-uuid");
	struct val map = val_map(), v;
	int rc = 0;

	(void)command;
	(void)object;
	for (unsigned i = 0; i < ARRAY_LEN(words) && rc == 0; i++) {
		const char *text = cli_get(cli, words[i].word);
		int field = model_field_find(MODEL_CLASS_VBD, words[i].field);

		rc = cli_value(cli, c->fields[field].type, words[i].word,
			text != NULL ? text : words[i].otherwise, &v, err);
		if (rc == 0)
			val_map_push(cli->arena, &map, words[i].field, v);
	}
	val_map_push(cli->arena, &map, "empty", val_bool(vdi == NULL || *vdi == 0));
	if (rc == 0)
		rc = cli_create(cli, MODEL_CLASS_VBD, &map, &v, err);
	if (rc == 0)
		cli_item(cli, cli_uuid(cli, MODEL_CLASS_VBD, v.s));
	return rc;
}

/* A drive with that disk, plugged when the VM runs. */
static int drive_add(struct cli *cli, const char *vm, const char *vdi, bool cd, struct err *err)
{
	struct val map = val_map(), config = val_map(), vbd;
	int rc;

	if (!cd) /* the disk goes with the VM */
		val_map_push(cli->arena, &config, "owner", val_string(""));
	val_map_push(cli->arena, &map, "VM", val_string(vm));
	val_map_push(cli->arena, &map, "VDI", val_string(vdi));
	val_map_push(cli->arena, &map, "userdevice", val_string(cli_get(cli, "device")));
	val_map_push(cli->arena, &map, "mode", val_string(cd ? "RO" : "RW"));
	val_map_push(cli->arena, &map, "type", val_string(cd ? "CD" : "Disk"));
	val_map_push(cli->arena, &map, "bootable", val_bool(false));
	val_map_push(cli->arena, &map, "unpluggable", val_bool(true));
	val_map_push(cli->arena, &map, "other_config", config);
	rc = cli_create(cli, MODEL_CLASS_VBD, &map, &vbd, err);
	if (rc == 0 && runs(cli, vm))
		rc = cli_invoke(cli, "VBD.plug", &vbd, 1, NULL, err);
	return rc;
}

int cli_vm_disk_add(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	static const struct model_type int_type = { .kind = MODEL_INT };
	struct val map = val_map(), sr, size, vdi;
	struct err ignored = { 0 };
	int rc = sr_of(cli, &sr, err);

	(void)command;
	if (rc == 0)
		rc = cli_value(cli, &int_type, "disk-size", cli_get(cli, "disk-size"), &size, err);
	if (rc != 0)
		return rc;
	val_map_push(cli->arena, &map, "name_label", val_string("Created by xe"));
	val_map_push(cli->arena, &map, "name_description", val_string("Created by xe"));
	val_map_push(cli->arena, &map, "SR", sr);
	val_map_push(cli->arena, &map, "virtual_size", size);
	val_map_push(cli->arena, &map, "type", val_string("user"));
	rc = cli_create(cli, MODEL_CLASS_VDI, &map, &vdi, err);
	if (rc != 0)
		return rc;
	rc = drive_add(cli, object, vdi.s, false, err);
	if (rc != 0) {
		cli_invoke(cli, "VDI.destroy", &vdi, 1, NULL, &ignored);
		err_fini(&ignored);
	}
	return rc;
}

/* Drives of a VM. */

struct drive {
	const char *vbd, *vdi; /* vdi: NULL when there is nothing in it */
	bool attached;
};

/* The first drive of that type that fits; how many do. device, cd_name: NULL: any. */
static unsigned drive_find(struct cli *cli, const char *vm, const char *type, const char *device,
	const char *cd_name, bool empty, struct drive *out)
{
	const struct db_row *row, *vdi;
	struct db_cursor c;
	struct db_view view;
	unsigned n = 0;

	cli_view(cli, &view);
	c = db_rows_related(&view, MODEL_RELATION_VBD_VM, vm);
	while ((row = db_next(&c)) != NULL) {
		vdi = db_view_get(&view, MODEL_CLASS_VDI, db_row_s(row, VBD_VDI));
		if (strcmp(db_row_s(row, VBD_type), type) != 0 ||
			db_row_b(row, VBD_empty) != empty ||
			(device != NULL && strcmp(db_row_s(row, VBD_userdevice), device) != 0) ||
			(cd_name != NULL && (vdi == NULL || strcmp(db_row_s(vdi, VDI_name_label),
								    cd_name) != 0)))
			continue;
		if (n++ > 0)
			continue;
		*out = (struct drive){ arena_strdup(cli->arena, db_row_ref(row)),
			vdi != NULL ? arena_strdup(cli->arena, db_row_ref(vdi)) : NULL,
			db_row_b(row, VBD_currently_attached) };
	}
	db_view_unpin(&view);
	return n;
}

static int drive_remove(struct cli *cli, const struct drive *d, struct err *err)
{
	struct val vbd = val_string(d->vbd);
	int rc = d->attached ? cli_invoke(cli, "VBD.unplug", &vbd, 1, NULL, err) : 0;

	return rc != 0 ? rc : cli_invoke(cli, "VBD.destroy", &vbd, 1, NULL, err);
}

int cli_vm_disk_remove(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	struct drive d;
	int rc;

	(void)command;
	if (drive_find(cli, object, "Disk", cli_get(cli, "device"), NULL, false, &d) == 0)
		return cli_fail(cli, "The VM has no disk %s", cli_get(cli, "device"));
	rc = drive_remove(cli, &d, err);
	if (rc == 0 && d.vdi != NULL)
		rc = cli_invoke(
			cli, "VDI.destroy", (struct val[]){ val_string(d.vdi) }, 1, NULL, err);
	return rc;
}

/* CDs. */

static bool is_cd(const struct db_view *view, const struct db_row *vdi)
{
	const struct db_row *sr = db_view_get(view, MODEL_CLASS_SR, db_row_s(vdi, VDI_SR));

	return sr != NULL && strcmp(db_row_s(sr, SR_content_type), ISO) == 0;
}

int cli_cd_list(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	const char *params = cli_get(cli, "params");
	struct cli_selection cds = { 0 };
	const struct db_row *row;
	struct db_view view;
	struct db_cursor c;

	(void)command;
	(void)object;
	(void)err;
	cli_view(cli, &view);
	cds.refs = arena_alloc(
		cli->arena, (size_t)(db_view_count(&view, MODEL_CLASS_VDI) + 1) * sizeof *cds.refs);
	c = db_rows(&view, MODEL_CLASS_VDI);
	while ((row = db_next(&c)) != NULL)
		if (is_cd(&view, row))
			cds.refs[cds.n++] = arena_strdup(cli->arena, db_row_ref(row));
	db_view_unpin(&view);
	return cli_list(
		cli, cli_class_find("vdi", 3), &cds, params != NULL ? params : "name-label,uuid");
}

static int cd_named(struct cli *cli, const char **vdi_out)
{
	const char *name = cli_get(cli, "cd-name");
	const struct db_row *row;
	struct db_view view;
	struct db_cursor c;

	*vdi_out = NULL;
	cli_view(cli, &view);
	c = db_rows_with_label(&view, MODEL_CLASS_VDI, name);
	while ((row = db_next(&c)) != NULL && *vdi_out == NULL)
		if (strcmp(db_row_s(row, VDI_name_label), name) == 0 && is_cd(&view, row))
			*vdi_out = arena_strdup(cli->arena, db_row_ref(row));
	db_view_unpin(&view);
	return *vdi_out != NULL ? 0 : cli_fail(cli, "CD %s not found!", name);
}

int cli_vm_cd_add(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	const char *vdi;
	int rc = cd_named(cli, &vdi);

	(void)command;
	return rc != 0 ? rc : drive_add(cli, object, vdi, true, err);
}

int cli_vm_cd_remove(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	struct drive d;

	(void)command;
	if (drive_find(cli, object, "CD", NULL, cli_get(cli, "cd-name"), false, &d) == 0)
		return cli_fail(cli, "CD %s not found!", cli_get(cli, "cd-name"));
	return drive_remove(cli, &d, err);
}

int cli_vm_cd_insert(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	struct drive d = { 0 };
	const char *vdi;
	unsigned n;
	int rc = cd_named(cli, &vdi);

	(void)command;
	if (rc != 0)
		return rc;
	n = drive_find(cli, object, "CD", NULL, NULL, true, &d);
	if (n != 1)
		return cli_fail(cli, n == 0 ? "The VM has no empty CD drive"
					    : "The VM has several empty CD drives: use vbd-insert");
	return cli_invoke(cli, "VBD.insert", (struct val[]){ val_string(d.vbd), val_string(vdi) },
		2, NULL, err);
}

int cli_vm_cd_eject(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	struct drive d = { 0 };
	unsigned n = drive_find(cli, object, "CD", NULL, NULL, false, &d);

	(void)command;
	if (n != 1)
		return cli_fail(cli, n == 0 ? "The VM has no CD in a drive"
					    : "The VM has several CDs: use vbd-eject");
	return cli_invoke(cli, "VBD.eject", (struct val[]){ val_string(d.vbd) }, 1, NULL, err);
}

int cli_vdi_resize(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	static const struct model_type int_type = { .kind = MODEL_INT };
	static const struct model_type vdi_type = { .kind = MODEL_REF,
		.class_id = MODEL_CLASS_VDI };
	struct val args[2];
	int rc = cli_value(cli, &vdi_type, "uuid", cli_get(cli, "uuid"), &args[0], err);

	(void)command;
	(void)object;
	if (rc == 0)
		rc = cli_value(
			cli, &int_type, "disk-size", cli_get(cli, "disk-size"), &args[1], err);
	if (rc != 0)
		return rc;
	return cli_invoke(cli, cli_get_bool(cli, "online") ? "VDI.resize_online" : "VDI.resize",
		args, 2, NULL, err);
}
