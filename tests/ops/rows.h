/* Operations whose every step tests/ops/test_ops.c hits. All others have their rows in
 * tests/ops/test_disks.c, which fails when an operation of the agent is in neither. */
#pragma once

#include "agent/methods.h"

#include <stdbool.h>

struct row {
	const struct op *op;
	enum agent_method_id method;
	bool running, clean;
	unsigned vifs; /* that its domain has when it is done */
};

static const struct row rows[] = {
	{ &vm_start_op, AGENT_VM_start, false, false, 1 },
	{ &vm_shutdown_op, AGENT_VM_shutdown, true, true, 0 },
	{ &vm_shutdown_op, AGENT_VM_shutdown, true, false, 0 },
	{ &vm_reboot_op, AGENT_VM_reboot, true, false, 1 },
	{ &vm_pause_op, AGENT_VM_pause, true, false, 1 },
	{ &vm_unpause_op, AGENT_VM_unpause, true, false, 1 },
	{ &vif_plug_op, AGENT_VIF_plug, true, false, 2 },
	{ &vif_unplug_op, AGENT_VIF_unplug, true, false, 0 },
	{ &vif_move_op, AGENT_VIF_move, true, false, 1 },
	{ &vif_set_locking_mode_op, AGENT_VIF_set_locking_mode, true, false, 1 },
	{ &vif_set_carrier_op, AGENT_VIF_set_carrier, true, false, 1 },
};
