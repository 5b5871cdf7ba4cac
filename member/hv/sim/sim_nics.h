/* Network ports of the simulated machine. */
#pragma once

#include "member/hv/hv.h"

/* Of DIR/nics.json: [{"device": "eth0", "mac": "02:...", "mtu": 1500}, ...]. Made with one port
 * when it is not there yet; read each time, so ports come and go as the file says. One at a time
 * for a folder. domain_failed: the file says nothing that can be understood, and why. */
int sim_nics_read(
	struct env *env, const char *dir, struct arena *a, struct val *out, struct err *err);
