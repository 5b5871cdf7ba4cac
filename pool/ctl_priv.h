/* Between the files of xpoolctl. */
#pragma once

#include "rpc/base/buf.h"

struct options {
	const char *dir, *members, *address, *name, *out, *file, *user, *field, *since,
		*fingerprint;
	uint64_t id;
	unsigned days;
	bool json, help, yes, dry, force;
	char **rest; /* what is no option */
	int n_rest;
};

/* "xpoolctl: what: why" to standard error; 1, for the shell. */
int ctl_fail(const char *what, const char *why);

/* The folder for a data directory that is none yet, made if need be; the path of its members.json
 * (it is not there). 0; 1 behind a message. */
int ctl_folder_new(const char *dir, char *members_out, size_t n);

/* One word to the xpoold of that directory; its answer. 0; else errno, ECONNREFUSED: none runs
 * there. */
int ctl_ask(const char *dir, const char *word, unsigned timeout_s, struct buf *out);

/* ctl_recover.c */
int ctl_recover(const struct options *o);
int ctl_adopt(const struct options *o);

/* ctl_join.c */
int ctl_add(const struct options *o);
int ctl_enlist(const struct options *o);
int ctl_witness(const struct options *o);
int ctl_join(const struct options *o);

/* ctl_db.c */
int ctl_db(const struct options *o);
int ctl_sql(const struct options *o);
