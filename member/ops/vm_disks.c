/* Disks of a VM: the steps that VM.start and the others share, and the operations of one drive.
 * vm-lifecycle 2.2 start 3, hotplug; storage.md 2.
 *
 * Those that are written come first: a disk that is held for reading is not raised to writing while
 * it is in use. A drive of a running VM is plugged when its datapath is active; the simulated guest
 * says by `unplug` whether it lets one go, a real one itself.
 */
#include "member/ops/ops_priv.h"
#include "member/sr_priv.h"

#include <string.h>

enum { UNPLUG_WAIT_MS = 300000 /* vm-lifecycle 1.5 */ };

static bool writes(const struct val *vbd)
{
	return strcmp(val_get_s(vbd, "mode"), "RW") == 0;
}

/* Has it a disk? */
static bool full(const struct val *vbd)
{
	return val_get_s(vbd, "vdi") != NULL && val_get_s(vbd, "sr") != NULL;
}

static int attach(struct agent_run *run, const struct val *vbd, struct err *err)
{
	int rc = hv_disks_check(run->agent->hv, err);

	return rc != 0 ? rc
		       : dp_attach(run->agent, run->uuid, val_get_s(vbd, "id"),
				 val_get_s(vbd, "sr"), val_get_s(vbd, "vdi"), writes(vbd), err);
}

/* Each drive of the VM that has a disk, in the order of the rule. */
static int each_drive(struct agent_run *run,
	int (*fn)(struct agent_run *run, const struct val *vbd, struct err *err), struct err *err)
{
	const struct val *vbds = val_get(&run->metadata, "vbds");
	int rc = 0;

	for (unsigned pass = 0; vbds != NULL && pass < 2; pass++)
		for (uint32_t i = 0; i < vbds->n && rc == 0; i++)
			if (full(&vbds->items[i]) && writes(&vbds->items[i]) == (pass == 0))
				rc = fn(run, &vbds->items[i], err);
	return rc;
}

int vm_step_attach(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : each_drive(run, attach, err);
}

static int activate(struct agent_run *run, const struct val *vbd, struct err *err)
{
	return dp_activate(run->agent, run->uuid, val_get_s(vbd, "id"), err);
}

int vm_step_activate(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : each_drive(run, activate, err);
}

static int deactivate(struct agent_run *run, const struct val *vbd, struct err *err)
{
	return dp_deactivate(run->agent, run->uuid, val_get_s(vbd, "id"), err);
}

int vm_step_deactivate(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return run->skip ? 0 : each_drive(run, deactivate, err);
}

void vm_undo_activate(struct job *job, void *state)
{
	struct err ignored = { 0 };

	vm_step_deactivate(job, state, &ignored);
	err_fini(&ignored);
}

/* The domain never ran, or is no more. */
void vm_undo_attach(struct job *job, void *state)
{
	struct agent_run *run = state;

	(void)job;
	if (!run->skip)
		dp_release(run->agent, run->uuid, false);
}

/* Unless the domain is still there, and may write. */
int vm_step_release(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d;

	(void)job;
	(void)err;
	if (!run->skip && !hv_domain_find(run->agent->hv, run->uuid, &d))
		dp_release(run->agent, run->uuid, false);
	return 0;
}

/* One drive of a running VM. */

static int need_domain(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	struct hv_domain d;

	(void)job;
	if (!hv_domain_find(run->agent->hv, run->uuid, &d) || d.marked || d.shut_down)
		return err_set(err, AGENT_ERR_bad_power_state, "halted", "running", NULL);
	run->domid = d.domid;
	return 0;
}

static const struct val *drive(const struct agent_run *run)
{
	return val_get(&run->params, "vbd");
}

static const char *drive_id(const struct agent_run *run)
{
	const char *id = val_get_s(&run->params, "id");

	return id != NULL ? id : val_get_s(drive(run), "id");
}

static int drive_attach(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return full(drive(run)) ? attach(run, drive(run), err)
				: err_set(err, AGENT_ERR_bad_request, "the drive is empty", NULL);
}

static void drive_release(struct job *job, void *state)
{
	struct agent_run *run = state;

	(void)job;
	dp_release(run->agent, run->uuid, true); /* what is not active */
}

static int drive_activate(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return dp_activate(run->agent, run->uuid, drive_id(run), err);
}

static int drive_remember(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	(void)err;
	agent_record_drive(run->agent, run->uuid, drive_id(run), drive(run));
	return 0;
}

/* Does the guest let it go? Its consent is not asked for a medium, nor with force. */
static int guest_release(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;
	const char *answer = val_get_s(val_get(val_get(&run->metadata, "vm"), "sim"), "unplug");
	int rc;

	if (agent_run_flag(run, "force"))
		return 0;
	if (answer == NULL || strcmp(answer, "ok") == 0)
		return hv_disk_release(run->agent->hv, run->domid, drive_id(run), err);
	if (strcmp(answer, "refuse") == 0)
		return err_set(err, AGENT_ERR_device_detach_rejected, "VBD", drive_id(run),
			"the guest refuses", NULL);
	rc = job_sleep(job, UNPLUG_WAIT_MS);
	return rc != 0 ? rc : err_set(err, AGENT_ERR_device_timeout, "VBD", drive_id(run), NULL);
}

static int drive_deactivate(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return dp_deactivate(run->agent, run->uuid, drive_id(run), err);
}

static int drive_detach(struct job *job, void *state, struct err *err)
{
	struct agent_run *run = state;

	(void)job;
	return dp_detach(run->agent, run->uuid, drive_id(run), err);
}

/* clang-format off */
static const struct op_step plug_steps[] = {
	/* name, weight, flags, run, undo */
	{ "domain.find",    5, 0, need_domain,    NULL          },
	{ "disk.attach",   20, 0, drive_attach,   drive_release },
	{ "disk.activate", 60, OP_COMMIT_POINT, drive_activate, NULL }, /* the guest may write from here on */
	{ "disk.remember",  5, 0, drive_remember, NULL          },
};

static const struct op_step unplug_steps[] = {
	{ "domain.find",      5, 0, need_domain,      NULL },
	{ "guest.release",   60, 0, guest_release,    NULL },
	{ "disk.deactivate", 20, OP_COMMIT_POINT, drive_deactivate, NULL },
	{ "disk.detach",      5, 0, drive_detach,     NULL },
	{ "disk.remember",    5, 0, drive_remember,   NULL },
};

static const struct op_step eject_steps[] = {
	{ "domain.find",      5, 0, need_domain,      NULL },
	{ "disk.deactivate", 60, OP_COMMIT_POINT, drive_deactivate, NULL },
	{ "disk.detach",      5, 0, drive_detach,     NULL },
	{ "disk.remember",    5, 0, drive_remember,   NULL },
};
/* clang-format on */

const struct op vbd_plug_op = { "VBD.plug", plug_steps, ARRAY_LEN(plug_steps),
	AGENT_ERR_cancelled };
const struct op vbd_unplug_op = { "VBD.unplug", unplug_steps, ARRAY_LEN(unplug_steps),
	AGENT_ERR_cancelled };
const struct op vbd_insert_op = { "VBD.insert", plug_steps, ARRAY_LEN(plug_steps),
	AGENT_ERR_cancelled };
const struct op vbd_eject_op = { "VBD.eject", eject_steps, ARRAY_LEN(eject_steps),
	AGENT_ERR_cancelled };
