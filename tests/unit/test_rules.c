/* The rules of operations against what vm-lifecycle 1.2 and 1.3 and tasks-events 2 say, written
 * down here once more: tables of (class, what is so, operation, error). In every state that is
 * built the same walk must give allowed_operations: what is shown and would not be refused.
 *
 * What is so is a line of words, in the order in which they are done:
 *   field=value        of the object, by the model's types; field.key=value adds to a map, or a set
 *   Class.field        another object of that class whose field is a reference to this one
 *   field>Class        another object of that class, to which this one's field refers
 *   field>Class.f=v    the same, and f of that object is v; f.key=v
 *   !op                an operation op of it is under way
 */
#include "model/checks.h"
#include "pool/operation_priv.h"
#include "tests/lib/rows.h"

#include <stdio.h>
#include <stdlib.h>

#define SELF "OpaqueRef:self"

struct bench {
	struct rows r;
	int class_id;
	unsigned n; /* of other objects */
};

static struct val value_of(struct bench *b, const struct model_type *type, const char *text)
{
	struct val v = val_set();

	switch (type->kind) {
	case MODEL_BOOL: return val_bool(strcmp(text, "true") == 0);
	case MODEL_INT: return val_int(atoll(text));
	case MODEL_SET: val_set_push(&b->r.a, &v, value_of(b, type->item, text)); return v;
	default: return val_string(arena_strdup(&b->r.a, text));
	}
}

/* name is "field" or "field.key". */
static void set(struct bench *b, int class_id, const char *ref, char *name, const char *text)
{
	char *key = strchr(name, '.');
	const struct model_class *c = &model_classes[class_id];
	int field;

	if (key != NULL)
		*key++ = 0;
	field = model_field_find(class_id, name);
	ck_assert_msg(field >= 0, "%s has no %s", c->name, name);
	if (key != NULL)
		rows_add(&b->r, class_id, ref, field, arena_strdup(&b->r.a, key),
			arena_strdup(&b->r.a, text));
	else
		rows_set(&b->r, class_id, ref, field, value_of(b, c->fields[field].type, text));
}

static const char *other(struct bench *b, int class_id)
{
	return rows_create(&b->r, class_id, arena_printf(&b->r.a, "other%u", b->n++));
}

static int class_of(const char *name)
{
	int class_id = model_class_find(name, false);

	ck_assert_msg(class_id >= 0, "no class %s", name);
	return class_id;
}

static void refer(struct bench *b, char *field, char *class)
{
	char *name = strchr(class, '.'), *text = strchr(class, '=');
	const char *ref;
	int class_id;

	if (text != NULL)
		*text++ = 0;
	if (name != NULL)
		*name++ = 0;
	class_id = class_of(class);
	ref = other(b, class_id);
	if (name != NULL)
		set(b, class_id, ref, name, text);
	set(b, b->class_id, SELF, field, ref);
}

static void do_word(struct bench *b, char *word)
{
	char *at;
	const char *task;

	if (*word == '!') {
		task = other(b, MODEL_CLASS_task);
		rows_set(&b->r, MODEL_CLASS_task, task, TASK_status, val_string("pending"));
		rows_add(&b->r, b->class_id, SELF, model_classes[b->class_id].operations_field,
			task, arena_strdup(&b->r.a, word + 1));
	} else if ((at = strchr(word, '>')) != NULL) {
		*at = 0;
		refer(b, word, at + 1);
	} else if ((at = strchr(word, '=')) != NULL) {
		*at = 0;
		set(b, b->class_id, SELF, word, at + 1);
	} else {
		at = strchr(word, '.');
		ck_assert_msg(at != NULL, "what is %s?", word);
		*at = 0;
		set(b, class_of(word), other(b, class_of(word)), at + 1, SELF);
	}
}

static void do_words(struct bench *b, const char *so)
{
	char *words = arena_strdup(&b->r.a, so), *word;

	for (word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
		do_word(b, word);
}

static void bench_open(struct bench *b, const char *class, const char *so)
{
	memset(b, 0, sizeof *b);
	rows_open(&b->r);
	b->class_id = class_of(class);
	rows_create(&b->r, b->class_id, "self");
	do_words(b, so);
}

static const struct db_row *self(struct bench *b)
{
	return db_view_get(&b->r.view, b->class_id, SELF);
}

/* The error of the operation; "" when it may begin. */
static const char *refusal(struct bench *b, const char *op, struct err *err)
{
	const char *waits;
	int rc = rules_check(&b->r.view, self(b), op, &b->r.a, &waits, err);

	ck_assert((rc == 0) == (err->code == NULL));
	ck_assert(waits == NULL || err->code == ERR_OTHER_OPERATION_IN_PROGRESS);
	return rc == 0 ? "" : err->code->name;
}

/* allowed_operations is what the check lets through. */
static void agree(struct bench *b, const char *so)
{
	const struct model_operations *t = &model_operations[b->class_id];
	struct val allowed = rules_allowed(&b->r.view, self(b), &b->r.a);
	struct err err = { 0 };

	for (unsigned k = 0; k < t->n; k++) {
		const char *name = t->operations[k].name;
		bool may = *refusal(b, name, &err) == 0;

		ck_assert_msg(val_set_has(&allowed, name) == (may && t->operations[k].shown),
			"%s: %s is %s, and %s allowed", so, name, may ? "let through" : "refused",
			val_set_has(&allowed, name) ? "said to be" : "not said to be");
		err_fini(&err);
	}
}

struct expect {
	const char *class, *so, *op, *code; /* "": it may begin */
	const char *params;		    /* joined by "|"; NULL: not looked at */
};

static void check_one(const struct expect *e)
{
	struct bench b;
	struct err err = { 0 };
	const char *code, *params = "";

	bench_open(&b, e->class, e->so);
	code = refusal(&b, e->op, &err);
	ck_assert_msg(strcmp(code, e->code) == 0, "%s {%s} %s: %s instead of %s", e->class, e->so,
		e->op, code, e->code);
	for (unsigned i = 0; i < err.n; i++)
		params = arena_printf(&b.r.a, "%s%s%s", params, i > 0 ? "|" : "", err.params[i]);
	ck_assert_msg(e->params == NULL || strcmp(params, e->params) == 0,
		"%s {%s} %s: %s instead of %s", e->class, e->so, e->op, params, e->params);
	err_fini(&err);
	agree(&b, e->so);
	rows_close(&b.r);
}

static void check(const struct expect *table, size_t n)
{
	for (size_t i = 0; i < n; i++)
		check_one(&table[i]);
}

static const char *const states[] = { "Halted", "Paused", "Running", "Suspended" };

/* vm-lifecycle 1.2: letters of the states that an operation begins from. */
START_TEST(each_operation_of_a_vm_has_its_power_states)
{
	static const struct {
		const char *letters, *ops;
	} table[] = {
		{ "H", "start start_on provision make_into_template changing_shadow_memory "
		       "changing_NVRAM create_vtpm changing_VCPUs changing_static_range "
		       "changing_memory_limits" },
		{ "P", "unpause" },
		{ "S", "resume resume_on csvm" },
		{ "R", "pause clean_shutdown clean_reboot suspend pool_migrate call_plugin "
		       "send_sysrq send_trigger snapshot_with_quiesce changing_memory_live "
		       "awaiting_memory_live changing_shadow_memory_live changing_VCPUs_live "
		       "data_source_op sysprep" },
		{ "HR", "changing_dynamic_range" },
		{ "PR", "hard_reboot" },
		{ "PSR", "hard_shutdown shutdown checkpoint get_boot_record" },
		{ "HSR", "migrate_send" },
		{ "H", "clone copy" }, /* Suspended: the next test */
		{ "HS", "destroy export create_template" },
		{ "HPRS", "snapshot revert reverting power_state_reset metadata_export "
			  "assert_operation_valid update_allowed_operations query_services" },
	};
	unsigned seen = 0;
	struct bench b;
	struct err err = { 0 };

	for (unsigned s = 0; s < ARRAY_LEN(states); s++) {
		bench_open(&b, "VM", "");
		rows_set(&b.r, MODEL_CLASS_VM, SELF, VM_power_state, val_string(states[s]));
		for (unsigned k = 0; k < ARRAY_LEN(table); k++) {
			char *ops = arena_strdup(&b.r.a, table[k].ops), *op;

			for (op = strtok(ops, " "); op != NULL; op = strtok(NULL, " "), seen++) {
				bool may = strchr(table[k].letters, states[s][0]) != NULL,
				     refused = strcmp(refusal(&b, op, &err),
						       "VM_BAD_POWER_STATE") == 0;

				ck_assert_msg(may != refused, "%s when %s: %s", op, states[s],
					err.code != NULL ? err.code->name : "may begin");
				err_fini(&err);
			}
		}
		agree(&b, states[s]);
		rows_close(&b.r);
	}
	/* all of them, but for import, which is about no VM */
	ck_assert_uint_eq(seen, ARRAY_LEN(states) * (model_operations[MODEL_CLASS_VM].n - 1));
}
END_TEST

#define RUNNING "power_state=Running "
#define HVM	"domain_type=hvm "
#define SAYS	"guest_metrics>VM_guest_metrics"

/* vm-lifecycle 1.3, by its numbers. */
static const struct expect of_vms[] = {
	/* 1 before 2 */
	{ "VM", RUNNING "blocked_operations.start=no", "start", "OPERATION_BLOCKED", SELF "|no" },
	{ "VM", RUNNING "blocked_operations.start=no", "pause", "", NULL },
	/* 2 */
	{ "VM", "power_state=Suspended", "start", "VM_BAD_POWER_STATE", SELF "|halted|suspended" },
	{ "VM", "", "hard_shutdown", "VM_BAD_POWER_STATE",
		SELF "|paused, running, suspended|halted" },
	{ "VM", RUNNING "is_control_domain=true", "changing_VCPUs", "", NULL },
	{ "VM", RUNNING "is_control_domain=true", "changing_memory_limits", "", NULL },
	{ "VM", RUNNING, "changing_VCPUs", "VM_BAD_POWER_STATE", SELF "|halted|running" },
	{ "VM", "power_state=Suspended", "clone", "VM_BAD_POWER_STATE", NULL },
	{ "VM", "power_state=Suspended is_a_snapshot=true is_a_template=true", "clone", "", NULL },
	{ "VM", "power_state=Suspended pool.name_label", "clone", "VM_BAD_POWER_STATE", NULL },
	/* 3, before 4 */
	{ "VM", "!clone", "copy", "", NULL },
	{ "VM", "!clone !export", "clone", "", NULL },
	{ "VM", "!clone", "start", "OTHER_OPERATION_IN_PROGRESS",
		"VM|" SELF "|clone|OpaqueRef:other0" },
	{ "VM", "!clone !copy", "start", "OTHER_OPERATION_IN_PROGRESS",
		"VM|" SELF "|{clone,copy}|{OpaqueRef:other0,OpaqueRef:other1}" },
	{ "VM", "!start is_a_template=true", "start", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "VM", RUNNING "!snapshot", "checkpoint", "", NULL },
	{ "VM", RUNNING "!checkpoint", "snapshot", "", NULL },
	{ "VM", RUNNING "!snapshot_with_quiesce", "snapshot", "", NULL },
	{ "VM", RUNNING "!get_boot_record", "get_boot_record", "", NULL },
	{ "VM", RUNNING "!get_boot_record", "pause", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "VM", RUNNING "!migrate_send", "clean_shutdown", "", NULL },
	{ "VM", RUNNING "!migrate_send", "metadata_export", "", NULL },
	{ "VM", RUNNING "!migrate_send", "suspend", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "VM", RUNNING "!clean_shutdown", "hard_shutdown", "", NULL },
	{ "VM", RUNNING "!hard_shutdown", "hard_shutdown", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "VM", RUNNING "!hard_shutdown", "hard_reboot", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "VM", RUNNING "!hard_reboot", "hard_shutdown", "", NULL },
	{ "VM", RUNNING "!hard_reboot", "hard_reboot", "OTHER_OPERATION_IN_PROGRESS", NULL },
	/* 4, 5 */
	{ "VM", "is_a_template=true", "start", "VM_IS_TEMPLATE", SELF "|start" },
	{ "VM", "is_a_template=true", "clone", "", NULL },
	{ "VM", "is_a_template=true", "changing_NVRAM", "", NULL },
	{ "VM", "is_a_template=true", "destroy", "", NULL },
	{ "VM", "is_a_template=true is_default_template=true", "destroy", "VM_IS_TEMPLATE", NULL },
	{ "VM", "is_a_template=true is_a_snapshot=true", "start", "VM_IS_SNAPSHOT", SELF "|start" },
	{ "VM", "is_a_template=true is_a_snapshot=true", "revert", "", NULL },
	{ "VM", "is_a_template=true is_a_snapshot=true", "destroy", "", NULL },
	/* 6 */
	{ "VM", "", "provision", "PROVISION_ONLY_ALLOWED_ON_TEMPLATE", "" },
	{ "VM", "is_a_template=true", "provision", "", NULL },
	{ "VM", "", "revert", "REVERT_ONLY_ALLOWED_ON_SNAPSHOT", "" },
	/* 7, 8 */
	{ "VM", RUNNING "platform.nomigrate=true", "suspend", "VM_IS_IMMOBILE", SELF },
	{ "VM", RUNNING "platform.nested-virt=1", "pool_migrate", "VM_IS_IMMOBILE", SELF },
	{ "VM", RUNNING "platform.nested-virt=true", "changing_dynamic_range",
		"VM_IS_USING_NESTED_VIRT", SELF },
	{ "VM", RUNNING "platform.nomigrate=true", "changing_dynamic_range", "", NULL },
	/* 9 */
	{ "VM", RUNNING "is_control_domain=true", "pause", "OPERATION_NOT_ALLOWED", NULL },
	{ "VM", RUNNING "is_control_domain=true", "changing_memory_live", "", NULL },
	{ "VM", RUNNING "is_control_domain=true", "changing_dynamic_range", "", NULL },
	{ "VM", "is_control_domain=true", "start_on", "", NULL },
	{ "VM", "is_control_domain=true", "destroy", "", NULL },
	{ "VM", "is_control_domain=true", "power_state_reset", "", NULL }, /* its own error: vm.c */
	{ "VM", "is_control_domain=true", "clone", "OPERATION_NOT_ALLOWED", NULL },
	{ "VM", "is_control_domain=true resident_on>host.control_domain=" SELF, "destroy",
		"OPERATION_NOT_ALLOWED", "This operation is not allowed on dom0" },
	{ "VM", RUNNING "is_control_domain=true resident_on>host.control_domain=" SELF,
		"changing_VCPUs", "OPERATION_NOT_ALLOWED", NULL },
	{ "VM", RUNNING "is_control_domain=true resident_on>host", "changing_VCPUs", "", NULL },
	/* 10 */
	{ "VM", RUNNING SAYS ".other.data-cant-suspend-reason=busy", "suspend",
		"VM_NON_SUSPENDABLE", SELF "|busy" },
	{ "VM", RUNNING SAYS ".other.data-cant-suspend-reason=busy", "pool_migrate",
		"VM_NON_SUSPENDABLE", NULL },
	{ "VM", RUNNING SAYS ".other.data-cant-suspend-reason=busy", "clean_shutdown", "", NULL },
	/* 11 */
	{ "VM", RUNNING HVM SAYS ".other.x=1", "clean_shutdown", "VM_LACKS_FEATURE", SELF },
	{ "VM", RUNNING HVM SAYS ".other.feature-shutdown=1", "clean_shutdown", "VM_LACKS_FEATURE",
		SELF },
	{ "VM", RUNNING HVM SAYS ".other.feature-shutdown=1", "clean_reboot", "VM_LACKS_FEATURE",
		NULL },
	{ "VM", RUNNING HVM SAYS ".other.x=1", "suspend", "VM_LACKS_FEATURE", NULL },
	{ "VM", RUNNING HVM SAYS ".other.feature-suspend=1", "suspend", "", NULL },
	{ "VM", RUNNING HVM SAYS ".other.feature-suspend=1", "changing_VCPUs_live",
		"VM_LACKS_FEATURE", NULL },
	{ "VM", RUNNING HVM SAYS ".other.feature-vcpu-hotplug=1", "changing_VCPUs_live", "", NULL },
	{ "VM", RUNNING HVM SAYS ".PV_drivers_detected=true", "suspend", "", NULL },
	{ "VM", RUNNING "domain_type=pv " SAYS ".other.x=1", "suspend", "", NULL },
	{ "VM", RUNNING HVM, "suspend", "", NULL },
	{ "VM", RUNNING HVM SAYS ".other.x=1", "hard_shutdown", "", NULL },
	/* 12 */
	{ "VM", RUNNING, "snapshot_with_quiesce", "VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", NULL },
	/* 14, 15, 16 */
	{ "VM", RUNNING "attached_PCIs>PCI", "suspend", "VM_HAS_PCI_ATTACHED", SELF },
	{ "VM", RUNNING "attached_PCIs>PCI", "snapshot", "", NULL },
	{ "VM", RUNNING "VGPU.VM", "pool_migrate", "VM_HAS_VGPU", SELF },
	{ "VM", RUNNING "VUSB.VM", "pool_migrate", "VM_HAS_VUSBS", SELF },
	{ "VM", "VUSB.VM", "snapshot", "VM_HAS_VUSBS", SELF },
	{ "VM", "VUSB.VM", "start", "", NULL },
	/* 17 */
	{ "VM", "appliance>VM_appliance", "make_into_template", "VM_IS_PART_OF_AN_APPLIANCE",
		SELF "|OpaqueRef:other0" },
	{ "VM", "", "make_into_template", "", NULL },
	/* 18, 20 */
	{ "VM", "", "query_services", "NOT_SYSTEM_DOMAIN", SELF },
	{ "VM", "other_config.is_system_domain=true", "query_services", "", NULL },
	{ "VM", "VTPM.VM", "create_vtpm", "VTPM_MAX_AMOUNT_REACHED", "1" },
	{ "VM", "", "create_vtpm", "", NULL },
};

START_TEST(each_check_of_a_vm_refuses_in_its_order)
{
	check(of_vms, ARRAY_LEN(of_vms));
}
END_TEST

/* storage.md 1.3, with a driver that can do all of it. */
static const struct {
	const char *so, *op, *code;
} of_resets[] = {
	{ "", "set_on_boot", "" },
	{ "on_boot=reset", "set_on_boot", "" },
	{ "on_boot=reset", "clone", "" },
	{ "on_boot=reset", "destroy", "" },
	{ "on_boot=reset", "snapshot", "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION" },
	{ "on_boot=reset", "copy", "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION" },
	{ "on_boot=reset type=user", "enable_cbt", "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION" },
	{ "on_boot=reset type=user", "disable_cbt",
		"VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION" },
	{ "on_boot=reset type=rrd", "enable_cbt", "VDI_INCOMPATIBLE_TYPE" },
	{ "type=user", "enable_cbt", "" },
	{ "cbt_enabled=true", "set_on_boot", "VDI_CBT_ENABLED" },
	{ "type=cbt_metadata", "set_on_boot", "VDI_INCOMPATIBLE_TYPE" },
	{ "!snapshot", "set_on_boot", "OTHER_OPERATION_IN_PROGRESS" },
	{ "!copy", "set_on_boot", "" },
};

START_TEST(a_disk_that_is_reset_refuses_what_would_keep_it)
{
	static const char *const can[] = { "VDI_RESET_ON_BOOT", "VDI_SNAPSHOT", "VDI_CLONE",
		"VDI_DELETE", "VDI_CONFIG_CBT" };
	struct val features = val_map();
	struct err err = { 0 };
	struct bench b;
	const char *sm;

	for (size_t i = 0; i < ARRAY_LEN(of_resets); i++) {
		bench_open(&b, "VDI", "SR>SR.type=file");
		ck_assert_str_eq(refusal(&b, "set_on_boot", &err), "SR_OPERATION_NOT_SUPPORTED");
		err_fini(&err);
		features = val_map();
		for (size_t k = 0; k < ARRAY_LEN(can); k++)
			val_map_push(&b.r.a, &features, can[k], val_int(1));
		sm = other(&b, MODEL_CLASS_SM);
		rows_set(&b.r, MODEL_CLASS_SM, sm, SM_type, val_string("file"));
		rows_set(&b.r, MODEL_CLASS_SM, sm, SM_features, features);
		do_words(&b, of_resets[i].so);
		ck_assert_msg(strcmp(refusal(&b, of_resets[i].op, &err), of_resets[i].code) == 0,
			"{%s} %s: %s instead of %s", of_resets[i].so, of_resets[i].op,
			err.code != NULL ? err.code->name : "may begin", of_resets[i].code);
		err_fini(&err);
		agree(&b, of_resets[i].so);
		rows_close(&b.r);
	}
}
END_TEST

/* vm-lifecycle 1.3, 13. */
START_TEST(a_vm_with_a_disk_that_is_reset_refuses_what_would_keep_it)
{
	static const struct {
		const char *op, *cached, *code;
	} ops[] = { { "snapshot", "", "!" }, { "checkpoint", "", "!" }, { "suspend", "", "!" },
		{ "pool_migrate", "", "" }, { "pool_migrate", "cached", "!" },
		{ "suspend", "cached", "!" }, { "clean_reboot", "cached", "" } };
	struct err err = { 0 };
	struct bench b;
	const char *vbd, *vdi, *code;

	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		bench_open(&b, "VM", RUNNING);
		vbd = other(&b, MODEL_CLASS_VBD);
		vdi = other(&b, MODEL_CLASS_VDI);
		rows_set(&b.r, MODEL_CLASS_VBD, vbd, VBD_VM, val_string(SELF));
		rows_set(&b.r, MODEL_CLASS_VBD, vbd, VBD_VDI, val_string(vdi));
		rows_set(&b.r, MODEL_CLASS_VDI, vdi, VDI_allow_caching,
			val_bool(*ops[i].cached != 0));
		ck_assert_str_eq(refusal(&b, ops[i].op, &err), "");
		rows_set(&b.r, MODEL_CLASS_VDI, vdi, VDI_on_boot, val_string("reset"));
		code = *ops[i].code != 0 ? "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION" : "";
		ck_assert_str_eq(refusal(&b, ops[i].op, &err), code);
		err_fini(&err);
		agree(&b, ops[i].op);
		rows_close(&b.r);
	}
}
END_TEST

#define VIF_OF	"VM>VM.power_state="
#define VIF_VM	"OpaqueRef:other0"
#define PLUGGED "currently_attached=true "

/* tasks-events 2.4. */
static const struct expect of_devices[] = {
	{ "VIF", VIF_OF "Running", "plug", "", NULL },
	{ "VIF", VIF_OF "Running !plug", "plug", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "VIF", VIF_OF "Running !plug !unplug", "attach", "OTHER_OPERATION_IN_PROGRESS",
		"VIF|" SELF "|{plug; unplug}|{OpaqueRef:other1; OpaqueRef:other2}" },
	{ "VIF", VIF_OF "Running " PLUGGED, "plug", "DEVICE_ALREADY_ATTACHED", SELF },
	{ "VIF", VIF_OF "Running reserved=true", "plug", "DEVICE_ALREADY_ATTACHED", SELF },
	{ "VIF", VIF_OF "Running", "unplug", "DEVICE_ALREADY_DETACHED", SELF },
	{ "VIF", VIF_OF "Halted", "plug", "VM_BAD_POWER_STATE", VIF_VM "|running|halted" },
	{ "VIF", VIF_OF "Paused " PLUGGED, "unplug", "VM_BAD_POWER_STATE",
		VIF_VM "|running|paused" },
	{ "VIF", VIF_OF "Halted", "attach", "", NULL },
	{ "VBD", VIF_OF "Running", "plug", "", NULL },
	{ "VUSB", VIF_OF "Running", "unplug", "DEVICE_ALREADY_DETACHED", SELF },
	{ "VTPM", VIF_OF "Running", "destroy", "VM_BAD_POWER_STATE", NULL },
	{ "VTPM", VIF_OF "Halted", "destroy", "", NULL },
};

START_TEST(each_check_of_a_device_refuses_in_its_order)
{
	check(of_devices, ARRAY_LEN(of_devices));
}
END_TEST

/* A device of that class whose running VM is so; op: plug, or unplug of one that is plugged. */
static void expect_of_running(
	const char *class, const char *vm_words, const char *op, const char *code)
{
	struct bench b;
	struct err err = { 0 };
	char *words, *word;

	bench_open(&b, "VM", vm_words);
	rows_set(&b.r, MODEL_CLASS_VM, SELF, VM_power_state, val_string("Running"));
	b.class_id = class_of(class);
	rows_create(&b.r, b.class_id, "self");
	words = arena_printf(
		&b.r.a, "VM=%s%s", SELF, strcmp(op, "plug") == 0 ? "" : " currently_attached=true");
	for (word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
		do_word(&b, word);
	ck_assert_msg(strcmp(refusal(&b, op, &err), code) == 0, "%s {%s} %s: %s instead of %s",
		class, vm_words, op, err.code != NULL ? err.code->name : "may begin", code);
	ck_assert(strcmp(code, "VM_MISSING_PV_DRIVERS") != 0 || strcmp(err.params[0], SELF) == 0);
	err_fini(&err);
	agree(&b, vm_words);
	rows_close(&b.r);
}

/* Running HVM: what the guest says decides; one that says nothing needs drivers. */
START_TEST(a_guest_without_drivers_takes_no_device)
{
	static const struct {
		const char *vm, *code;
	} of_vif[] = {
		{ HVM SAYS ".can_use_hotplug_vif=yes", "" },
		{ HVM SAYS ".can_use_hotplug_vif=no", "OPERATION_NOT_ALLOWED" },
		{ HVM SAYS ".PV_drivers_detected=true", "" },
		{ HVM SAYS ".PV_drivers_version.major=9", "" },
		{ HVM SAYS, "VM_MISSING_PV_DRIVERS" },
		{ HVM, "VM_MISSING_PV_DRIVERS" },
		{ "domain_type=pv " SAYS ".can_use_hotplug_vif=no", "" },
		{ "!clean_shutdown", "OPERATION_NOT_ALLOWED" },
		{ "!pause", "OPERATION_NOT_ALLOWED" },
		{ "!snapshot", "" },
	};

	for (size_t i = 0; i < ARRAY_LEN(of_vif); i++) {
		expect_of_running("VIF", of_vif[i].vm, "plug", of_vif[i].code);
		expect_of_running("VIF", of_vif[i].vm, "unplug", of_vif[i].code);
	}
	expect_of_running("VIF", "is_control_domain=true", "plug", "OPERATION_NOT_ALLOWED");
	expect_of_running("VIF", "is_control_domain=true", "unplug", "");
	expect_of_running(
		"VBD", HVM SAYS ".can_use_hotplug_vbd=no", "plug", "OPERATION_NOT_ALLOWED");
	expect_of_running("VBD", HVM, "plug", "VM_MISSING_PV_DRIVERS");
	expect_of_running(
		"VBD", HVM SAYS ".can_use_hotplug_vif=no", "plug", "VM_MISSING_PV_DRIVERS");
}
END_TEST

START_TEST(an_interface_of_a_virtual_function_is_not_plugged)
{
	struct bench b;
	struct err err = { 0 };
	const char *pif, *sriov;

	bench_open(&b, "VIF", VIF_OF "Running network>network");
	pif = rows_create(&b.r, MODEL_CLASS_PIF, "pif");
	rows_set(&b.r, MODEL_CLASS_PIF, pif, PIF_network, val_string("OpaqueRef:other1"));
	ck_assert_str_eq(refusal(&b, "plug", &err), "");
	sriov = rows_create(&b.r, MODEL_CLASS_network_sriov, "sriov");
	rows_set(
		&b.r, MODEL_CLASS_network_sriov, sriov, NETWORK_SRIOV_logical_PIF, val_string(pif));
	ck_assert_str_eq(refusal(&b, "plug", &err), "OPERATION_NOT_ALLOWED");
	err_fini(&err);
	rows_set(&b.r, MODEL_CLASS_VIF, SELF, VIF_currently_attached, val_bool(true));
	ck_assert_str_eq(refusal(&b, "unplug", &err), "OPERATION_NOT_ALLOWED");
	err_fini(&err);
	ck_assert_str_eq(refusal(&b, "attach", &err), "");
	agree(&b, "SR-IOV");
	rows_close(&b.r);
}
END_TEST

static const struct expect of_hosts_and_pools[] = {
	{ "host", "enabled=true", "evacuate", "", NULL },
	{ "host", "enabled=true", "reboot", "HOST_NOT_DISABLED", "" },
	{ "host", "enabled=true", "apply_updates", "HOST_NOT_DISABLED", "" },
	{ "host", "enabled=false", "reboot", "", NULL },
	{ "host", "enabled=false !shutdown", "reboot", "OTHER_OPERATION_IN_PROGRESS",
		"host|" SELF "|shutdown|OpaqueRef:other0" },
	{ "host", "!evacuate", "provision", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "host", "!evacuate", "vm_migrate", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "host", "!evacuate", "vm_start", "", NULL },
	{ "host", "!vm_resume", "evacuate", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "host", "!vm_start", "evacuate", "", NULL },
	{ "host", "!provision", "provision", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "host", "!apply_updates", "enable", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "host", "metrics>host_metrics.live=true", "power_on", "HOST_IS_LIVE", SELF },
	{ "host", "", "power_on", "HOST_POWER_ON_MODE_DISABLED", "" },
	{ "host", "power_on_mode=wake-on-lan", "power_on", "XENAPI_MISSING_PLUGIN",
		"power-on-host" },
	{ "pool", "", "designate_new_master", "", NULL },
	{ "pool", "!designate_new_master", "designate_new_master",
		"DESIGNATE_NEW_MASTER_IN_PROGRESS", "" },
	{ "pool", "!ha_enable", "sync_updates", "HA_ENABLE_IN_PROGRESS", "" },
	{ "pool", "!ha_enable", "eject", "OTHER_OPERATION_IN_PROGRESS",
		"pool|" SELF "|ha_enable|OpaqueRef:other0" },
	{ "pool", "!eject", "designate_new_master", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "pool", "!eject", "cert_refresh", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "pool", "ha_enabled=true", "ha_enable", "HA_IS_ENABLED", "" },
	{ "pool", "ha_enabled=true", "tls_verification_enable", "HA_IS_ENABLED", "" },
	{ "pool", "ha_enabled=false", "ha_disable", "HA_NOT_ENABLED", "" },
	{ "pool", "other_config.rolling_upgrade_in_progress=true", "cluster_create",
		"NOT_SUPPORTED_DURING_UPGRADE", "" },
	{ "pool", "other_config.rolling_upgrade_in_progress=true", "eject", "", NULL },
	{ "VM_appliance", "", "start", "OPERATION_NOT_ALLOWED", "Appliance has no VMs." },
	{ "VM_appliance", "VM.appliance", "start", "", NULL },
	{ "VM_appliance", "VM.appliance", "clean_shutdown", "OPERATION_NOT_ALLOWED", NULL },
	{ "VM_appliance", "VM.appliance", "shutdown", "OPERATION_NOT_ALLOWED", NULL },
	{ "VM_appliance", "VM.appliance !start", "hard_shutdown", "OTHER_OPERATION_IN_PROGRESS",
		NULL },
	{ "SR", "!scan", "plug", "OTHER_OPERATION_IN_PROGRESS", NULL },
	{ "SR", "!plug", "plug", "", NULL },
	{ "SR", "", "vdi_create", "SR_OPERATION_NOT_SUPPORTED", SELF },
	{ "SR", "", "scan", "", NULL },
};

START_TEST(each_check_of_hosts_pools_and_others_refuses_in_its_order)
{
	check(of_hosts_and_pools, ARRAY_LEN(of_hosts_and_pools));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		each_operation_of_a_vm_has_its_power_states,
		each_check_of_a_vm_refuses_in_its_order,
		a_disk_that_is_reset_refuses_what_would_keep_it,
		a_vm_with_a_disk_that_is_reset_refuses_what_would_keep_it,
		each_check_of_a_device_refuses_in_its_order,
		a_guest_without_drivers_takes_no_device,
		an_interface_of_a_virtual_function_is_not_plugged,
		each_check_of_hosts_pools_and_others_refuses_in_its_order,
	};

	return suite_run("rules", tests, ARRAY_LEN(tests), 30);
}
