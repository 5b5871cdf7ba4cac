/* What the agent is told of a VM before it makes a domain: the record in the agent's words. */
#include "pool/vm_priv.h"

#include <string.h>

static void put(struct arena *a, struct val *map, const char *key, int64_t i)
{
	val_map_push(a, map, key, val_int(i));
}

/* Choices after the end of a guest, and the agent's words for them; vm-lifecycle 2.5. */
static const char *action(const char *choice)
{
	static const struct {
		const char *choice, *word;
	} words[] = { { "destroy", "shutdown" }, { "coredump_and_destroy", "shutdown" },
		{ "restart", "start" }, { "coredump_and_restart", "start" },
		{ "rename_restart", "start" }, { "preserve", "pause" } };

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strcmp(words[i].choice, choice) == 0)
			return words[i].word;
	return "shutdown";
}

const char *vm_domain_type_of(const char *type, const char *boot_policy)
{
	if (strcmp(type, "hvm") == 0 || strcmp(type, "pv") == 0 || strcmp(type, "pvh") == 0)
		return type;
	if (strcmp(type, "pv_in_pvh") == 0)
		return "pvh";
	return *boot_policy != 0 ? "hvm" : "pv";
}

const char *vm_domain_type(const struct db_row *vm)
{
	return vm_domain_type_of(db_row_s(vm, VM_domain_type), db_row_s(vm, VM_HVM_boot_policy));
}

/* How a simulated guest behaves: other_config:xpool-sim-guest, "deaf" or the keys of `sim` in
 * member/agent.json as JSON. */
static struct val behaviour(struct arena *a, const struct db_row *vm)
{
	struct val other = db_row_field(vm, VM_other_config, a), sim = val_map();
	const char *text = val_get_s(&other, "xpool-sim-guest"), *why;

	if (text == NULL)
		return sim;
	if (strcmp(text, "deaf") == 0)
		val_map_push(a, &sim, "shutdown", val_string("ignore"));
	else if (rpc_json_parse(a, text, strlen(text), &sim, &why) != 0 || sim.kind != VAL_MAP)
		sim = val_map();
	return sim;
}

static void put_memory(struct arena *a, const struct db_view *view, const struct db_row *vm,
	const struct db_row *host, struct val *record)
{
	int64_t least = db_row_i(vm, VM_memory_dynamic_min),
		most = db_row_i(vm, VM_memory_dynamic_max),
		start = memory_set_aside(view, vm, host);

	start = start == 0 || start > most ? most : start < least ? least : start;
	put(a, record, "memory_static_max_kib", db_row_i(vm, VM_memory_static_max) / 1024);
	put(a, record, "memory_dynamic_max_kib", most / 1024);
	put(a, record, "memory_dynamic_min_kib", least / 1024);
	put(a, record, "memory_start_kib", start / 1024);
}

struct val vm_metadata(struct arena *a, const struct db_view *view, const struct db_row *vm,
	const struct db_row *host)
{
	struct val metadata = val_map(), record = val_map();

	val_map_push(a, &record, "uuid", val_string(arena_strdup(a, db_row_s(vm, VM_uuid))));
	val_map_push(a, &record, "name", val_string(arena_strdup(a, db_row_s(vm, VM_name_label))));
	val_map_push(a, &record, "domain_type", val_string(vm_domain_type(vm)));
	put_memory(a, view, vm, host, &record);
	put(a, &record, "vcpus_max", db_row_i(vm, VM_VCPUs_max));
	put(a, &record, "vcpus", db_row_i(vm, VM_VCPUs_at_startup));
	val_map_push(a, &record, "on_shutdown",
		val_string(action(db_row_s(vm, VM_actions_after_shutdown))));
	val_map_push(
		a, &record, "on_reboot", val_string(action(db_row_s(vm, VM_actions_after_reboot))));
	val_map_push(
		a, &record, "on_crash", val_string(action(db_row_s(vm, VM_actions_after_crash))));
	val_map_push(a, &record, "platform", db_row_field(vm, VM_platform, a));
	val_map_push(a, &record, "xenstore_data", db_row_field(vm, VM_xenstore_data, a));
	val_map_push(a, &record, "sim", behaviour(a, vm));
	val_map_push(a, &metadata, "vm", record);
	val_map_push(a, &metadata, "vifs", vif_metadata(a, view, vm));
	val_map_push(a, &metadata, "vbds", vbd_metadata(a, view, vm));
	return metadata;
}

int vm_push_metadata(struct job *job, void *task, struct err *err)
{
	struct val params = val_map(), metadata;
	struct db_view view;
	const struct db_row *vm = owner_vm(task, &view);

	if (vm == NULL) {
		db_view_unpin(&view);
		return err_set(err, ERR_HANDLE_INVALID, "VM", owner_vm_uuid(task), NULL);
	}
	metadata = vm_metadata(&job->arena, &view, vm, owner_self(task, &view));
	metadata = val_dup(&job->arena, &metadata);
	db_view_unpin(&view);
	val_map_push(&job->arena, &params, "metadata", metadata);
	return owner_agent_ask(job, task, AGENT_VM_add, &params, NULL, err);
}
