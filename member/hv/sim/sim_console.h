/* Consoles of simulated guests: see sim_console.c. */
#pragma once

#include "rpc/base/env.h"
#include "rpc/base/err.h"

struct sim_consoles;

struct sim_consoles *sim_consoles_new(struct env *env);
/* All of them end, and have when it returns. */
void sim_consoles_free(struct sim_consoles *consoles);

/* One more look at the console of the domain: a connected socket, the caller's. The domain is
 * there, and sim_console_end cannot come before this has returned. Any thread. 0, or ERR_API. */
int sim_console_open(
	struct sim_consoles *consoles, int domid, const char *uuid, int *fd_out, struct err *err);
/* The domain is gone: who looks at its console sees the end of it. Any thread. */
void sim_console_end(struct sim_consoles *consoles, int domid);
