/* Network interfaces of a VM: the step of VM.start and the others, and the operations of one.
 * vm-lifecycle 2.2 start 3, hotplug.
 *
 * In the order of devices, for guests number them so. An interface belongs to its domain and goes
 * with it, so there is nothing to release. Its bridge is one of the host's; the simulated host has
 * every bridge.
 */
#include "member/ops/ops_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNPLUG_WAIT_MS = 300000 /* vm-lifecycle 1.5 */, MTU_DEFAULT = 1500 };

static int fill(const struct val *from, struct hv_vif *out, struct err *err)
{
	const struct val *mtu = val_get(from, "mtu"), *carrier = val_get(from, "carrier");
	const char *mac = val_get_s(from, "mac"), *bridge = val_get_s(from, "bridge"),
		   *mode = val_get_s(from, "locking_mode");
	int64_t device = val_get(from, "device")->i;

	if (device < 0 || device >= HV_VIFS_MAX || strlen(mac) >= sizeof out->mac ||
		strlen(bridge) >= sizeof out->bridge)
		return err_set(err, AGENT_ERR_bad_request, "no such interface", NULL);
	*out = (struct hv_vif){ .device = (int)device,
		.mtu = mtu != NULL && mtu->i > 0 && mtu->i <= UINT16_MAX ? (int)mtu->i
									 : MTU_DEFAULT,
		.carrier = carrier == NULL || carrier->b };
	snprintf(out->mac, sizeof out->mac, "%s", mac);
	snprintf(out->bridge, sizeof out->bridge, "%s", bridge);
	snprintf(out->locking_mode, sizeof out->locking_mode, "%s",
		mode != NULL ? mode : "unlocked");
	return 0;
}

static int by_device(const void *a, const void *b)
{
	const struct hv_vif *x = a, *y = b;

	return (x->device > y->device) - (x->device < y->device);
}

int vm_step_vifs(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	const struct val *vifs = val_get(&run->metadata, "vifs");
	uint32_t n = vifs != NULL ? vifs->n : 0;
	struct hv_vif *list;
	int rc = 0;

	if (run->skip || n == 0)
		return 0;
	list = arena_alloc(&job->arena, n * sizeof *list);
	for (uint32_t i = 0; i < n && rc == 0; i++)
		rc = fill(&vifs->items[i], &list[i], err);
	if (rc == 0)
		qsort(list, n, sizeof *list, by_device);
	for (uint32_t i = 0; i < n && rc == 0; i++)
		rc = hv_vif_plug(run->agent->hv, run->domid, &list[i], err);
	return rc;
}

/* One interface of a running VM. */

static int find_domain(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d;

	(void)job;
	if (!hv_domain_find(run->agent->hv, run->uuid, &d) || d.marked || d.shut_down)
		return err_set(err, AGENT_ERR_bad_power_state, "halted", "running", NULL);
	run->domid = d.domid;
	return 0;
}

static int64_t device_of(const struct agent_run *run)
{
	const struct val *vif = val_get(&run->params, "vif");

	return val_get(vif != NULL ? vif : &run->params, "device")->i;
}

static int plug(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_vif vif;

	(void)job;
	return fill(val_get(&run->params, "vif"), &vif, err) != 0
		       ? ERR_API
		       : hv_vif_plug(run->agent->hv, run->domid, &vif, err);
}

static void undo_plug(struct job *job, void *state)
{
	struct agent_run *run = state;
	struct err ignored = { 0 };

	(void)job;
	hv_vif_unplug(run->agent->hv, run->domid, (int)device_of(run), &ignored);
	err_fini(&ignored);
}

/* Does the guest take part? Not asked with force. */
static int guest_answers(struct job *job, void *state, const char *key, struct err *err)
{
	struct agent_run *run = state;
	const char *answer = val_get_s(val_get(val_get(&run->metadata, "vm"), "sim"), key);
	char id[16];
	int rc;

	snprintf(id, sizeof id, "%lld", (long long)device_of(run));
	if (answer == NULL || strcmp(answer, "ok") == 0 || agent_run_flag(run, "force"))
		return 0;
	if (strcmp(answer, "refuse") == 0)
		return err_set(err, AGENT_ERR_device_detach_rejected, "VIF", id,
			"the guest refuses", NULL);
	rc = job_sleep(job, UNPLUG_WAIT_MS);
	return rc != 0 ? rc : err_set(err, AGENT_ERR_device_timeout, "VIF", id, NULL);
}

static int guest_takes(struct job *job, void *state, struct err *err)
{
	return guest_answers(job, state, "plug", err);
}

static int guest_lets_go(struct job *job, void *state, struct err *err)
{
	return guest_answers(job, state, "unplug", err);
}

static int unplug(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return hv_vif_unplug(run->agent->hv, run->domid, (int)device_of(run), err);
}

static int remember(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	(void)err;
	agent_record_interface(run->agent, run->uuid, device_of(run), val_get(&run->params, "vif"));
	return 0;
}

/* clang-format off */
static const struct op_step plug_steps[] = {
	/* name, weight, flags, run, undo */
	{ "domain.find",    5, 0, find_domain,  NULL      },
	{ "vif.plug",      60, 0, plug,         undo_plug },
	{ "guest.takes",   30, 0, guest_takes,  NULL      },
	{ "vif.remember",   5, OP_COMMIT_POINT, remember, NULL },
};

static const struct op_step unplug_steps[] = {
	{ "domain.find",    5, 0, find_domain,   NULL },
	{ "guest.release", 60, 0, guest_lets_go, NULL },
	{ "vif.unplug",    20, OP_COMMIT_POINT, unplug, NULL },
	{ "vif.remember",   5, 0, remember,      NULL },
};
/* clang-format on */

const struct op vif_plug_op = { "VIF.plug", plug_steps, ARRAY_LEN(plug_steps),
	AGENT_ERR_cancelled };
const struct op vif_unplug_op = { "VIF.unplug", unplug_steps, ARRAY_LEN(unplug_steps),
	AGENT_ERR_cancelled };

/* Changes of one that is plugged: it is given to the domain again, with what is new. */

/* What was pushed for the device, with what the request says of it; void: nothing is known of it.
 */
static struct val pushed_and_asked(struct agent_run *run)
{
	static const char *const keys[] = { "bridge", "carrier", "locking_mode", "ipv4", "ipv6" };
	const struct val *vifs = val_get(&run->metadata, "vifs"), *one = NULL;
	struct val v = val_map();

	for (uint32_t i = 0; vifs != NULL && i < vifs->n && one == NULL; i++)
		if (val_get(&vifs->items[i], "device")->i == device_of(run))
			one = &vifs->items[i];
	if (one == NULL)
		return val_void();
	for (uint32_t k = 0; k < one->n; k++)
		if (val_get(&run->params, one->pairs[k].key) == NULL ||
			strcmp(one->pairs[k].key, "device") == 0)
			val_map_push(&run->arena, &v, one->pairs[k].key, one->pairs[k].value);
	for (size_t k = 0; k < ARRAY_LEN(keys); k++)
		if (val_get(&run->params, keys[k]) != NULL)
			val_map_push(&run->arena, &v, keys[k], *val_get(&run->params, keys[k]));
	return v;
}

static int change(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct val v = pushed_and_asked(run);
	struct hv_vif vif;
	char id[16];

	(void)job;
	if (v.kind != VAL_MAP) {
		snprintf(id, sizeof id, "%lld", (long long)device_of(run));
		return err_set(err, AGENT_ERR_does_not_exist, "VIF", id, NULL);
	}
	if (fill(&v, &vif, err) != 0 || hv_vif_plug(run->agent->hv, run->domid, &vif, err) != 0)
		return ERR_API;
	agent_record_interface(run->agent, run->uuid, device_of(run), &v);
	return 0;
}

static const struct op_step change_steps[] = {
	{ "domain.find", 10, 0, find_domain, NULL },
	{ "vif.change", 90, OP_COMMIT_POINT, change, NULL },
};

const struct op vif_move_op = { "VIF.move", change_steps, ARRAY_LEN(change_steps),
	AGENT_ERR_cancelled };
const struct op vif_set_locking_mode_op = { "VIF.set_locking_mode", change_steps,
	ARRAY_LEN(change_steps), AGENT_ERR_cancelled };
const struct op vif_set_carrier_op = { "VIF.set_carrier", change_steps, ARRAY_LEN(change_steps),
	AGENT_ERR_cancelled };
