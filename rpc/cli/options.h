/* What `xe` was told: command line before environment before ~/.xe before defaults (cli.md 1). */
#pragma once

#include "rpc/cli/link.h"

enum { OPTIONS_ARGS_MAX = 4096 };

struct options {
	const char *servers, *user, *password, *traceparent;
	unsigned port; /* 0: the usual one */
	struct link_trust trust;
	bool debug, exit_codes, help, version;
	const char *args[OPTIONS_ARGS_MAX]; /* for the server: command first */
	unsigned n_args;
};

/* 0, or 1 after a line on stderr. Strings live as long as the process. */
int options_read(struct options *o, int argc, char **argv);
/* May the client touch this file? Only those that the user has named. */
bool options_names_file(const struct options *o, const char *file);
