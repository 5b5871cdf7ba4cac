/* The terminal of `xe` on a console: what is typed goes there as it is, what comes is shown, until
 * Ctrl-], the end of the input or of the console, or a signal. A terminal is raw meanwhile and put
 * back afterwards, before a signal ends the process. Source: cli.md 2 (HttpConnect). */
#pragma once

#include "rpc/cli/link.h"

enum { TERMINAL_LEAVE = 0x1d, TERMINAL_ALIVE_MS = 60000 };

/* first: what has come already. alive is called every TERMINAL_ALIVE_MS. false: the connection was
 * lost. */
bool terminal_run(
	struct link *console, const struct buf *first, void (*alive)(void *arg), void *arg);
