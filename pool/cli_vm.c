/* Commands about VMs that are more than one message. Each is a walk of calls, top to bottom; what a
 * call refuses ends the command with the API's own error. */
#include "pool/cli_priv.h"

#include <stdlib.h>
#include <string.h>

static const struct model_type host_type = { .kind = MODEL_REF, .class_id = MODEL_CLASS_host };

/* The host that a parameter names; given_out: whether it was there. */
static int host_given(
	struct cli *cli, const char *name, struct val *out, bool *given_out, struct err *err)
{
	const char *text = cli_get(cli, name);

	*given_out = text != NULL;
	return text != NULL ? cli_value(cli, &host_type, name, text, out, err) : 0;
}

static int begin(struct cli *cli, const char *object, bool paused, const char *method,
	const char *method_on, struct err *err)
{
	struct val vm = val_string(object), p = val_bool(paused),
		   force = val_bool(cli_get_bool(cli, "force")), host;
	bool on;
	int rc = host_given(cli, "on", &host, &on, err);

	if (rc != 0)
		return rc;
	return on ? cli_invoke(cli, method_on, (struct val[]){ vm, host, p, force }, 4, NULL, err)
		  : cli_invoke(cli, method, (struct val[]){ vm, p, force }, 3, NULL, err);
}

int cli_vm_start(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	(void)command;
	return begin(cli, object, cli_get_bool(cli, "paused"), "VM.start", "VM.start_on", err);
}

int cli_vm_resume(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	(void)command;
	return begin(cli, object, false, "VM.resume", "VM.resume_on", err);
}

/* Inside the pool. */
int cli_vm_migrate(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	static const char *const options[] = { "live", "force", "compress" };
	struct val map = val_map(), host;
	bool given;
	int rc;

	if (cli_get(cli, "remote-master") != NULL)
		return err_set(err, ERR_NOT_IMPLEMENTED, "VM.migrate_send", NULL);
	rc = host_given(cli, "host-uuid", &host, &given, err);
	if (rc == 0 && !given)
		rc = host_given(cli, "host", &host, &given, err);
	if (rc != 0)
		return rc;
	if (!given)
		return cli_fail(cli, "Required parameter not found: host");
	(void)command;
	val_map_push(cli->arena, &map, "live", val_string("true")); /* unless it says otherwise */
	for (unsigned i = 0; i < ARRAY_LEN(options); i++) {
		const char *text = cli_get(cli, options[i]);

		if (text != NULL && i == 0)
			map.pairs[0].value = val_string(text);
		else if (text != NULL)
			val_map_push(cli->arena, &map, options[i], val_string(text));
	}
	return cli_invoke(cli, "VM.pool_migrate", (struct val[]){ val_string(object), host, map },
		3, NULL, err);
}

/* Makes an object by the command's message; name and description as the client wants them. */
int cli_made(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	static const char *const fields[][2] = { { "new-name-description", "set_name_description" },
		{ "new-name-label", "set_name_label" } };
	bool vdi = strncmp(command->name, "vdi-", 4) == 0;
	struct val made;
	const char *text;
	int rc = cli_run_message(cli, command, object, &made, err);

	/* the name of a VM is an argument of the message already */
	for (unsigned i = 0; i < (vdi ? 2 : 1) && rc == 0; i++) {
		text = cli_get(cli, fields[i][0]);
		if (text != NULL)
			rc = cli_invoke(cli,
				arena_printf(cli->arena, "%s.%s", vdi ? "VDI" : "VM", fields[i][1]),
				(struct val[]){ made, val_string(text) }, 2, NULL, err);
	}
	if (rc == 0)
		cli_item(cli, cli_uuid(cli, vdi ? MODEL_CLASS_VDI : MODEL_CLASS_VM, made.s));
	return rc;
}

/* The only template of that uuid or name. */
static int template_of(struct cli *cli, struct val *out)
{
	static const char *const names[] = { "template-uuid", "template", "template-name-label",
		"template-name" };
	const struct db_row *row;
	const char *text = NULL;
	struct db_view view;
	bool is_template = false;

	for (unsigned i = 0; i < ARRAY_LEN(names) && text == NULL; i++)
		text = cli_get(cli, names[i]);
	if (text == NULL)
		return cli_fail(cli, "Template must be specified by parameter 'template-uuid', "
				     "'template-name', 'template-name-label' or 'template'");
	cli_view(cli, &view);
	row = cli_object(&view, MODEL_CLASS_VM, text);
	if (row != NULL) {
		*out = val_string(arena_strdup(cli->arena, db_row_ref(row)));
		is_template = db_row_b(row, VM_is_a_template);
	}
	db_view_unpin(&view);
	if (row == NULL)
		return cli_fail(cli, "No templates matched, or more than one");
	return is_template ? 0 : cli_fail(cli, "Can only install from templates");
}

static int sr_given(struct cli *cli, struct val *out, bool *given_out, struct err *err)
{
	static const struct model_type sr_type = { .kind = MODEL_REF, .class_id = MODEL_CLASS_SR };
	const char *text = cli_get(cli, "sr-uuid");

	if (text == NULL)
		text = cli_get(cli, "sr-name-label");
	*given_out = text != NULL;
	return text != NULL ? cli_value(cli, &sr_type, "sr-uuid", text, out, err) : 0;
}

/* The disks that go with a VM: those its drives own. Told, one line each. */
static unsigned owned_disks(struct cli *cli, const struct db_view *view, const char *vm,
	struct val *disks, struct buf *text)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_VBD_VM, vm);
	const struct db_row *vbd, *vdi;
	struct val config;

	while ((vbd = db_next(&c)) != NULL) {
		config = db_row_field(vbd, VBD_other_config, cli->arena);
		vdi = db_view_get(view, MODEL_CLASS_VDI, db_row_s(vbd, VBD_VDI));
		if (vdi == NULL || val_get(&config, "owner") == NULL)
			continue;
		val_set_push(
			cli->arena, disks, val_string(arena_strdup(cli->arena, db_row_ref(vdi))));
		buf_printf(text, "\nVDI: %s (%s)", db_row_s(vdi, VDI_uuid),
			db_row_s(vdi, VDI_name_label));
	}
	return disks->n;
}

/* It goes with its disks; errors are of no use. */
static void take_back(struct cli *cli, struct val *vm)
{
	struct val disks = val_set();
	struct buf text = { 0 };
	struct err ignored = { 0 };
	struct db_view view;

	cli_view(cli, &view);
	owned_disks(cli, &view, vm->s, &disks, &text);
	db_view_unpin(&view);
	buf_fini(&text);
	cli_invoke(cli, "VM.destroy", vm, 1, NULL, &ignored);
	err_fini(&ignored);
	for (uint32_t i = 0; i < disks.n; i++) {
		cli_invoke(cli, "VDI.destroy", &disks.items[i], 1, NULL, &ignored);
		err_fini(&ignored);
	}
}

/* A copy of a template becomes a VM: wholly, or it goes again. */
int cli_vm_install(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	struct val template, sr, vm, name = val_string(cli_get(cli, "new-name-label"));
	bool on_sr;
	int rc = template_of(cli, &template);

	(void)command;
	(void)object;
	if (rc == 0)
		rc = sr_given(cli, &sr, &on_sr, err);
	if (rc == 0 && on_sr)
		rc = cli_invoke(cli, "VM.copy", (struct val[]){ template, name, sr }, 3, &vm, err);
	else if (rc == 0)
		rc = cli_invoke(cli, "VM.clone", (struct val[]){ template, name }, 2, &vm, err);
	if (rc != 0)
		return rc;
	rc = cli_invoke(cli, "VM.set_name_description",
		(struct val[]){ vm, val_string("Installed via xe CLI") }, 2, NULL, err);
	if (rc == 0)
		rc = cli_invoke(cli, "VM.provision", &vm, 1, NULL, err);
	if (rc == 0) {
		cli_item(cli, cli_uuid(cli, MODEL_CLASS_VM, vm.s));
		return 0;
	}
	take_back(cli, &vm);
	return rc;
}

/* Going. */

/* An object given by snapshot-uuid= and the like where no selector chose it. */
static int vm_given(struct cli *cli, const char **object, struct err *err)
{
	static const struct model_type vm_type = { .kind = MODEL_REF, .class_id = MODEL_CLASS_VM };
	static const char *const names[] = { "snapshot-uuid", "template-uuid", "uuid" };
	const char *text = NULL;
	struct val v;
	int rc;

	for (unsigned i = 0; i < ARRAY_LEN(names) && text == NULL && *object == NULL; i++)
		text = cli_get(cli, names[i]);
	if (*object != NULL)
		return 0;
	if (text == NULL)
		return cli_fail(cli, "Required parameter not found: uuid");
	rc = cli_value(cli, &vm_type, "uuid", text, &v, err);
	*object = rc == 0 ? v.s : NULL;
	return rc;
}

int cli_vm_uninstall(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	struct val disks = val_set(), vm;
	const struct db_row *row;
	struct buf text = { 0 };
	struct db_view view;
	bool halted = false, go;
	int rc = vm_given(cli, &object, err);

	(void)command;
	if (rc != 0)
		return rc;
	vm = val_string(object);
	cli_view(cli, &view);
	row = db_view_get(&view, MODEL_CLASS_VM, object);
	if (row != NULL) {
		halted = strcmp(db_row_s(row, VM_power_state), "Halted") == 0;
		buf_printf(&text, "The following items are about to be destroyed\nVM : %s (%s)",
			db_row_s(row, VM_uuid), db_row_s(row, VM_name_label));
		owned_disks(cli, &view, object, &disks, &text);
	}
	db_view_unpin(&view);
	cli_print(cli, buf_text(&text));
	buf_fini(&text);
	go = cli_confirmed(cli);
	if (!go)
		return cli_fail(cli, "Aborted");
	if (!halted)
		rc = cli_invoke(cli, "VM.hard_shutdown", &vm, 1, NULL, err);
	if (rc == 0)
		rc = cli_invoke(cli, "VM.destroy", &vm, 1, NULL, err);
	for (uint32_t i = 0; i < disks.n && rc == 0; i++)
		rc = cli_invoke(cli, "VDI.destroy", &disks.items[i], 1, NULL, err);
	if (rc == 0)
		cli_print(cli, "All objects destroyed");
	return rc;
}

/* Devices. */

/* References of the devices of a VM, of that type (NULL: any). */
static struct cli_selection devices(
	struct cli *cli, int class_id, int relation, const char *vm, const char *type)
{
	struct cli_selection out = { 0 };
	const struct db_row *row;
	struct db_cursor c;
	struct db_view view;

	cli_view(cli, &view);
	out.refs = arena_alloc(
		cli->arena, (size_t)(db_view_count(&view, class_id) + 1) * sizeof *out.refs);
	c = db_rows_related(&view, relation, vm);
	while ((row = db_next(&c)) != NULL)
		if (type == NULL || strcmp(db_row_s(row, VBD_type), type) == 0)
			out.refs[out.n++] = arena_strdup(cli->arena, db_row_ref(row));
	db_view_unpin(&view);
	return out;
}

static const char *disk_of(struct cli *cli, const char *vbd)
{
	const struct db_row *row, *vdi = NULL;
	struct db_view view;
	const char *ref = NULL;

	cli_view(cli, &view);
	row = db_view_get(&view, MODEL_CLASS_VBD, vbd);
	if (row != NULL)
		vdi = db_view_get(&view, MODEL_CLASS_VDI, db_row_s(row, VBD_VDI));
	if (vdi != NULL)
		ref = arena_strdup(cli->arena, db_row_ref(vdi));
	db_view_unpin(&view);
	return ref;
}

int cli_vm_disk_list(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	bool cd = strcmp(command->name, "vm-cd-list") == 0;
	const char *vbd_params = cli_get(cli, "vbd-params"),
		   *vdi_params = cli_get(cli, "vdi-params");
	struct cli_selection vbds, one = { .n = 1 };
	int rc = vm_given(cli, &object, err);

	if (rc != 0)
		return rc;
	vbds = devices(cli, MODEL_CLASS_VBD, MODEL_RELATION_VBD_VM, object, cd ? "CD" : "Disk");
	for (unsigned i = 0; i < vbds.n && rc == 0; i++) {
		const char *vdi = disk_of(cli, vbds.refs[i]), *kind = cd ? "CD" : "Disk";

		cli_print(cli, arena_printf(cli->arena, "%s %u VBD:", kind, i));
		one.refs = &vbds.refs[i];
		rc = cli_list(cli, cli_class_find("vbd", 3), &one,
			vbd_params != NULL ? vbd_params
			: cd		   ? "uuid,vm-name-label,userdevice,empty"
					   : "uuid,vm-name-label,userdevice");
		if (rc != 0 || vdi == NULL)
			continue;
		cli_print(cli, arena_printf(cli->arena, "%s %u VDI:", kind, i));
		one.refs = &vdi;
		rc = cli_list(cli, cli_class_find("vdi", 3), &one,
			vdi_params != NULL ? vdi_params
					   : "uuid,name-label,sr-name-label,virtual-size");
	}
	return rc;
}

int cli_vm_vif_list(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	const char *params = cli_get(cli, "params");
	struct cli_selection vifs =
		devices(cli, MODEL_CLASS_VIF, MODEL_RELATION_VIF_VM, object, NULL);

	(void)command;
	(void)err;
	return cli_list(cli, cli_class_find("vif", 3), &vifs,
		params != NULL ? params
			       : "uuid,device,MAC,network-uuid,network-name-label,vm-name-label");
}
