/* What the VMs of this host have of disks: storage.md 2.
 *
 * One row of dp for each device that has a disk: it is there before the disk is touched and goes
 * when nothing is held any more, so after a crash the rows say what may have to be released. A VM
 * that has two devices of one disk holds it once, for writing when one of them writes. Active is a
 * device whose disk is held and plugged into the domain.
 */
#include "member/sr_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum state { DP_ATTACHED = 1, DP_ACTIVE = 2 };

struct dp {
	char id[64], sr[UUID_LEN + 1], vdi[UUID_LEN + 1];
	bool write;
	int64_t state;
};

#define DP_COLUMNS "id, sr, vdi, write, state"

struct found {
	struct dp *items;
	unsigned n, max;
};

static void on_dp(void *arg, struct sql_row *row)
{
	struct found *f = arg;
	struct dp *dp = &f->items[f->n];

	if (f->n == f->max)
		return;
	snprintf(dp->id, sizeof dp->id, "%s", sql_string(row, 0));
	snprintf(dp->sr, sizeof dp->sr, "%s", sql_string(row, 1));
	snprintf(dp->vdi, sizeof dp->vdi, "%s", sql_string(row, 2));
	dp->write = sql_int(row, 3) != 0;
	dp->state = sql_int(row, 4);
	f->n++;
}

static bool dp_get(struct agent *agent, const char *vm, const char *id, struct dp *out)
{
	struct found f = { out, 0, 1 };

	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_dp, &f, "SELECT " DP_COLUMNS " FROM dp WHERE vm = ? AND id = ?",
		"ss", vm, id);
	pthread_mutex_unlock(&agent->mutex);
	return f.n > 0;
}

static unsigned dp_all(struct agent *agent, const char *vm, struct dp *out)
{
	struct found f = { out, 0, DP_DEVICES_MAX };

	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_dp, &f, "SELECT " DP_COLUMNS " FROM dp WHERE vm = ? ORDER BY id",
		"s", vm);
	pthread_mutex_unlock(&agent->mutex);
	return f.n;
}

static void set_state(struct agent *agent, const char *vm, const char *id, enum state state)
{
	pthread_mutex_lock(&agent->mutex);
	sql_run(agent->sql, "UPDATE dp SET state = ? WHERE vm = ? AND id = ?", "iss",
		(int64_t)state, vm, id);
	pthread_mutex_unlock(&agent->mutex);
}

/* The strongest of the VM's other devices of that disk: 0 none has it active, 1 one reads, 2 one
 * writes. */
static int64_t others_active(struct agent *agent, const char *vm, const struct dp *dp)
{
	int64_t n;

	pthread_mutex_lock(&agent->mutex);
	n = sql_number(agent->sql, 0,
		"SELECT max(1 + write) FROM dp WHERE vm = ? AND vdi = ? AND id <> ? AND state = 2",
		"sss", vm, dp->vdi, dp->id);
	pthread_mutex_unlock(&agent->mutex);
	return n;
}

int dp_attach(struct agent *agent, const char *vm, const char *id, const char *sr_uuid,
	const char *vdi, bool write, struct err *err)
{
	struct dp dp;
	struct sr sr;
	int rc;

	if (!uuid_ok(vdi) || strlen(id) >= sizeof dp.id)
		return err_set(err, AGENT_ERR_bad_request, "no such disk or device", NULL);
	if (sr_get(agent, sr_uuid, &sr, err) != 0)
		return ERR_API;
	if (!disk_there(&sr, vdi))
		return err_set(err, AGENT_ERR_does_not_exist, "VDI", vdi, NULL);
	if (dp_get(agent, vm, id, &dp)) {
		if (strcmp(dp.vdi, vdi) != 0 || (write && !dp.write))
			return err_set(err, AGENT_ERR_already_plugged, "VBD", id, NULL);
		return 0;
	}
	pthread_mutex_lock(&agent->mutex);
	rc = sql_number(agent->sql, 0, "SELECT count(*) FROM dp WHERE vm = ?", "s", vm) >=
			     DP_DEVICES_MAX
		     ? ERR_FULL
		     : sql_run(agent->sql, "INSERT INTO dp VALUES (?, ?, ?, ?, ?, 1)", "ssssi", vm,
			       id, sr_uuid, vdi, (int64_t)write);
	pthread_mutex_unlock(&agent->mutex);
	return rc == 0 ? 0
		       : err_set(err, AGENT_ERR_limit_reached, "the device cannot be recorded",
				 NULL);
}

/* The domain of the VM has the bytes, if it has a domain; the lock is held. */
static int plug(struct agent *agent, const char *vm, const struct dp *dp, const struct sr *sr,
	struct err *err)
{
	char path[DISK_PATH_MAX];
	struct hv_domain d;

	disk_path(sr, dp->vdi, path);
	return !hv_domain_find(agent->hv, vm, &d)
		       ? 0
		       : hv_disk_plug(agent->hv, d.domid,
				 &(struct hv_disk){ dp->id, path, dp->write }, err);
}

static int unplug(struct agent *agent, const char *vm, const char *id, struct err *err)
{
	struct hv_domain d;

	return !hv_domain_find(agent->hv, vm, &d) ? 0 : hv_disk_unplug(agent->hv, d.domid, id, err);
}

int dp_activate(struct agent *agent, const char *vm, const char *id, struct err *err)
{
	struct dp dp;
	struct sr sr;

	if (!dp_get(agent, vm, id, &dp))
		return err_set(err, AGENT_ERR_already_unplugged, "VBD", id, NULL);
	if (dp.state == DP_ACTIVE)
		return 0;
	if (sr_get(agent, dp.sr, &sr, err) != 0 ||
		disk_activate(&sr, dp.vdi, vm, dp.write || others_active(agent, vm, &dp) == 2,
			err) != 0 ||
		plug(agent, vm, &dp, &sr, err) != 0)
		return ERR_API; /* dp_release lets go of what is held */
	set_state(agent, vm, id, DP_ACTIVE);
	return 0;
}

/* Also of a device that is only attached: a crash may have been between lock and record. What may
 * still write is never without its lock. */
int dp_deactivate(struct agent *agent, const char *vm, const char *id, struct err *err)
{
	struct dp dp;
	struct sr sr;
	int64_t others;
	int rc;

	if (!dp_get(agent, vm, id, &dp))
		return 0;
	others = others_active(agent, vm, &dp);
	if (unplug(agent, vm, id, err) != 0 || sr_get(agent, dp.sr, &sr, err) != 0)
		return ERR_API;
	rc = others == 0	       ? disk_deactivate(&sr, dp.vdi, vm, err)
	     : disk_there(&sr, dp.vdi) ? disk_activate(&sr, dp.vdi, vm, others == 2, err)
				       : 0;
	if (rc == 0)
		set_state(agent, vm, id, DP_ATTACHED);
	return rc;
}

int dp_detach(struct agent *agent, const char *vm, const char *id, struct err *err)
{
	struct dp dp;

	if (!dp_get(agent, vm, id, &dp))
		return 0;
	if (dp.state == DP_ACTIVE)
		return err_set(err, AGENT_ERR_domain_failed, "the device is active", NULL);
	pthread_mutex_lock(&agent->mutex);
	sql_run(agent->sql, "DELETE FROM dp WHERE vm = ? AND id = ?", "ss", vm, id);
	pthread_mutex_unlock(&agent->mutex);
	return 0;
}

bool dp_any_in(struct agent *agent, const char *sr)
{
	bool any;

	pthread_mutex_lock(&agent->mutex);
	any = sql_number(agent->sql, 0, "SELECT count(*) FROM dp WHERE sr = ?", "s", sr) > 0;
	pthread_mutex_unlock(&agent->mutex);
	return any;
}

struct unsettled {
	struct agent *agent;
	struct arena *a;
	struct val list;
};

static void on_vm(void *arg, struct sql_row *row)
{
	struct unsettled *u = arg;
	const char *vm = sql_string(row, 0);
	struct hv_domain d;

	if (sql_int(row, 1) != DP_ACTIVE || !hv_domain_find(u->agent->hv, vm, &d))
		val_set_push(u->a, &u->list, val_string(arena_strdup(u->a, vm)));
}

struct val dp_unsettled(struct agent *agent, struct arena *a)
{
	struct unsettled u = { agent, a, val_set() };

	pthread_mutex_lock(&agent->mutex);
	sql_query(agent->sql, on_vm, &u, "SELECT vm, min(state) FROM dp GROUP BY vm", "");
	pthread_mutex_unlock(&agent->mutex);
	return u.list;
}

struct val dp_list(struct agent *agent, const char *vm, struct arena *a)
{
	struct dp *all = mem_new(DP_DEVICES_MAX * sizeof *all);
	unsigned n = dp_all(agent, vm, all);
	struct val list = val_set();

	for (unsigned i = 0; i < n; i++) {
		struct val v = val_map();

		val_map_push(a, &v, "id", val_string(arena_strdup(a, all[i].id)));
		val_map_push(a, &v, "plugged", val_bool(all[i].state == DP_ACTIVE));
		val_map_push(a, &v, "vdi", val_string(arena_strdup(a, all[i].vdi)));
		val_map_push(a, &v, "mode", val_string(all[i].write ? "RW" : "RO"));
		val_set_push(a, &list, v);
	}
	free(all);
	return list;
}

void dp_release(struct agent *agent, const char *vm, bool half_only)
{
	struct dp *all = mem_new(DP_DEVICES_MAX * sizeof *all);
	unsigned n = dp_all(agent, vm, all);
	struct err err = { 0 };

	for (unsigned i = 0; i < n; i++) {
		if (half_only && all[i].state == DP_ACTIVE)
			continue;
		if (dp_deactivate(agent, vm, all[i].id, &err) == 0)
			dp_detach(agent, vm, all[i].id, &err);
		if (err.code != NULL)
			log_warn(agent->env, "event=disk_not_released vm=%s device=%s why=%s", vm,
				all[i].id, err.code->name);
		err_fini(&err);
	}
	free(all);
}
