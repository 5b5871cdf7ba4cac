/* Records of VMs: what the next start of each is made from, as it was pushed. */
#include "member/agent_priv.h"
#include "agent/methods.h"
#include "rpc/wire/codec.h"

#include <string.h>

struct collected {
	struct arena *a;
	struct val list;
};

static void on_text(void *arg, struct sql_row *row)
{
	struct collected *c = arg;

	val_set_push(c->a, &c->list, val_string(arena_strdup(c->a, sql_string(row, 0))));
}

bool agent_record_metadata(struct agent *agent, struct arena *a, const char *uuid, struct val *out)
{
	struct collected c = { a, val_set() };
	const char *text, *why;

	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_text, &c, "SELECT metadata FROM vm WHERE uuid = ?", "s", uuid);
	pthread_mutex_unlock(&agent->mutex);
	text = c.list.n > 0 ? c.list.items[0].s : NULL;
	return text != NULL && rpc_json_parse(a, text, strlen(text), out, &why) == 0;
}

struct val agent_record_uuids(struct agent *agent, struct arena *a)
{
	struct collected c = { a, val_set() };

	sql_query(agent->sql, on_text, &c, "SELECT uuid FROM vm ORDER BY rowid", "");
	return c.list;
}

/* Forget the oldest record that is about no domain and no operation: metadata is pushed before each
 * start anyway. Under the mutex. */
static int make_room(struct agent *agent, struct arena *a)
{
	struct val uuids = agent_record_uuids(agent, a);
	struct hv_domain d;

	for (uint32_t i = 0; i < uuids.n; i++)
		if (agent_run_of(agent, uuids.items[i].s) == NULL &&
			!hv_domain_find(agent->hv, uuids.items[i].s, &d))
			return sql_run(
				agent->sql, "DELETE FROM vm WHERE uuid = ?", "s", uuids.items[i].s);
	return ERR_FULL;
}

/* The metadata again, with this in the place of what it has by that key. */
static void record_part(struct agent *agent, const char *uuid, struct arena *a,
	const struct val *metadata, const char *key, struct val part)
{
	struct val changed = val_map();
	struct buf text = { 0 };

	for (uint32_t i = 0; i < metadata->n; i++)
		if (strcmp(metadata->pairs[i].key, key) != 0)
			val_map_push(a, &changed, metadata->pairs[i].key, metadata->pairs[i].value);
	val_map_push(a, &changed, key, part);
	val_json(&text, &changed);
	pthread_mutex_lock(&agent->mutex);
	if (text.len < AGENT_LINE_MAX / 16)
		sql_run(agent->sql, "UPDATE vm SET metadata = ? WHERE uuid = ?", "ss",
			buf_text(&text), uuid);
	pthread_mutex_unlock(&agent->mutex);
	buf_fini(&text);
}

/* The list of devices without the one for which is_it holds, and with this one (NULL: without). */
static void record_device(struct agent *agent, const char *uuid, const char *list,
	bool (*is_it)(const struct val *device, const void *key), const void *key,
	const struct val *device)
{
	struct val metadata, devices = val_set();
	const struct val *have;
	struct arena a;

	arena_init(&a);
	if (agent_record_metadata(agent, &a, uuid, &metadata)) {
		have = val_get(&metadata, list);
		for (uint32_t i = 0; have != NULL && i < have->n; i++)
			if (!is_it(&have->items[i], key))
				val_set_push(&a, &devices, have->items[i]);
		if (device != NULL)
			val_set_push(&a, &devices, *device);
		record_part(agent, uuid, &a, &metadata, list, devices);
	}
	arena_fini(&a);
}

void agent_record_machine(struct agent *agent, const char *uuid, const struct val *keys)
{
	struct val metadata, vm = val_map();
	const struct val *have;
	struct arena a;

	arena_init(&a);
	if (agent_record_metadata(agent, &a, uuid, &metadata)) {
		have = val_get(&metadata, "vm");
		for (uint32_t i = 0; have != NULL && i < have->n; i++)
			if (val_get(keys, have->pairs[i].key) == NULL)
				val_map_push(&a, &vm, have->pairs[i].key, have->pairs[i].value);
		for (uint32_t i = 0; i < keys->n; i++)
			val_map_push(&a, &vm, keys->pairs[i].key, keys->pairs[i].value);
		record_part(agent, uuid, &a, &metadata, "vm", vm);
	}
	arena_fini(&a);
}

static bool is_drive(const struct val *device, const void *id)
{
	return strcmp(val_get_s(device, "id"), id) == 0;
}

void agent_record_drive(
	struct agent *agent, const char *uuid, const char *id, const struct val *vbd)
{
	record_device(agent, uuid, "vbds", is_drive, id, vbd);
}

static bool is_interface(const struct val *device, const void *number)
{
	return val_get(device, "device")->i == *(const int64_t *)number;
}

void agent_record_interface(
	struct agent *agent, const char *uuid, int64_t device, const struct val *vif)
{
	record_device(agent, uuid, "vifs", is_interface, &device, vif);
}

int vm_add_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const struct val *metadata = val_get(params, "metadata");
	const char *uuid = val_get_s(val_get(metadata, "vm"), "uuid");
	struct buf text = { 0 };
	int rc;

	if (uuid == NULL || !uuid_ok(uuid))
		return err_set(err, AGENT_ERR_bad_request, "metadata has no uuid", NULL);
	val_json(&text, metadata);
	if (text.len >= AGENT_LINE_MAX / 16) {
		buf_fini(&text);
		return err_set(err, AGENT_ERR_limit_reached, "metadata is too large", NULL);
	}
	pthread_mutex_lock(&agent->mutex);
	rc = sql_number(agent->sql, 0, "SELECT count(*) FROM vm WHERE uuid <> ?", "s", uuid) >=
			     AGENT_VMS_MAX
		     ? make_room(agent, &job->arena)
		     : 0;
	if (rc == 0)
		rc = sql_run_ordered(agent->sql, "INSERT OR REPLACE INTO vm VALUES (?, ?)", "ss",
			uuid, buf_text(&text));
	pthread_mutex_unlock(&agent->mutex);
	buf_fini(&text);
	*out = val_void();
	return rc == 0 ? 0
		       : err_set(err, AGENT_ERR_limit_reached, "the record cannot be kept", NULL);
}

int vm_remove_call(struct agent *agent, struct job *job, const struct val *params, struct val *out,
	struct err *err)
{
	const char *uuid = val_get_s(params, "uuid");
	struct hv_domain d;

	(void)job;
	if (hv_domain_find(agent->hv, uuid, &d))
		return err_set(err, AGENT_ERR_bad_power_state, d.paused ? "paused" : "running",
			"halted", NULL);
	pthread_mutex_lock(&agent->mutex);
	sql_run(agent->sql, "DELETE FROM vm WHERE uuid = ?", "s", uuid);
	pthread_mutex_unlock(&agent->mutex);
	*out = val_void();
	return 0;
}

/* A guest that was paused and has to run for a while is recorded before, so that it is paused again
 * also by an agent that comes later (repair.c). Of this domain: its machine may have started anew.
 */

int agent_hold(struct agent *agent, const char *uuid, int domid, struct err *err)
{
	int rc;

	pthread_mutex_lock(&agent->mutex);
	rc = sql_run_ordered(agent->sql, "INSERT OR REPLACE INTO hold VALUES (?, ?)", "si", uuid,
		(int64_t)domid);
	pthread_mutex_unlock(&agent->mutex);
	return rc == 0 ? 0
		       : err_set(err, AGENT_ERR_limit_reached, "the record cannot be kept", NULL);
}

bool agent_held(struct agent *agent, const char *uuid, int domid)
{
	bool held;

	pthread_mutex_lock(&agent->mutex);
	held = sql_number(agent->sql, -1, "SELECT domid FROM hold WHERE vm = ?", "s", uuid) ==
	       domid;
	pthread_mutex_unlock(&agent->mutex);
	return held;
}

void agent_unhold(struct agent *agent, const char *uuid)
{
	pthread_mutex_lock(&agent->mutex);
	sql_run(agent->sql, "DELETE FROM hold WHERE vm = ?", "s", uuid);
	pthread_mutex_unlock(&agent->mutex);
}

struct holds {
	struct arena *a;
	struct val list;
};

static void on_hold(void *arg, struct sql_row *row)
{
	struct holds *h = arg;

	val_set_push(h->a, &h->list, val_string(arena_strdup(h->a, sql_string(row, 0))));
}

struct val agent_holds(struct agent *agent, struct arena *a)
{
	struct holds h = { a, val_set() };

	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_hold, &h, "SELECT vm FROM hold", "");
	pthread_mutex_unlock(&agent->mutex);
	return h.list;
}
