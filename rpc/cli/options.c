#include "rpc/cli/options.h"
#include "rpc/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE_MAX_LEN = 4096 };

/* Where a value came from; a stronger source is never replaced. */
enum source { FROM_FILE = 1, FROM_ENV, FROM_ARGS };

struct reading {
	struct options *o;
	enum source server, port, user, password, passwordfile, cafile;
	const char *password_path;
};

static bool stronger(enum source *have, enum source now)
{
	if (*have > now)
		return false;
	*have = now;
	return true;
}

static bool is_true(const char *text)
{
	return strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0 ||
	       strcasecmp(text, "yes") == 0;
}

static bool add(struct options *o, const char *word)
{
	if (o->n_args == OPTIONS_ARGS_MAX)
		return false;
	o->args[o->n_args++] = word;
	return true;
}

/* A setting by name; false: it is none. */
static bool set(struct reading *r, const char *name, const char *value, enum source from)
{
	struct options *o = r->o;

	if (strcmp(name, "server") == 0) {
		if (stronger(&r->server, from))
			o->servers = value;
	} else if (strcmp(name, "port") == 0) {
		if (stronger(&r->port, from))
			o->port = (unsigned)atoi(value);
	} else if (strcmp(name, "username") == 0) {
		if (stronger(&r->user, from))
			o->user = value;
	} else if (strcmp(name, "password") == 0) {
		if (stronger(&r->password, from))
			o->password = value;
	} else if (strcmp(name, "passwordfile") == 0) {
		if (stronger(&r->passwordfile, from))
			r->password_path = value;
	} else if (strcmp(name, "cafile") == 0) {
		if (stronger(&r->cafile, from))
			o->trust.cafile = value;
	} else if (strcmp(name, "insecure") == 0) {
		o->trust.insecure = is_true(value);
	} else if (strcmp(name, "nossl") == 0) {
		o->trust.plain = is_true(value);
	} else if (strcmp(name, "debug") == 0 || strcmp(name, "debugonfail") == 0) {
		o->debug = is_true(value);
	} else {
		return false;
	}
	return true;
}

static const char *in_home(const char *name)
{
	const char *home = getenv("HOME");
	char path[LINE_MAX_LEN];

	if (home == NULL || *home == 0)
		return NULL;
	snprintf(path, sizeof path, "%s/%s", home, name);
	return must(strdup(path));
}

static void read_file(struct reading *r)
{
	const char *path = in_home(".xe");
	FILE *f = path != NULL ? fopen(path, "re") : NULL;
	char line[LINE_MAX_LEN], *equal, *copy;

	while (f != NULL && fgets(line, sizeof line, f) != NULL) {
		line[strcspn(line, "\r\n")] = 0;
		if (*line == 0 || *line == '#')
			continue;
		copy = must(strdup(line));
		equal = strchr(copy, '=');
		if (equal == NULL)
			continue;
		*equal = 0;
		if (set(r, copy, equal + 1, FROM_FILE))
			continue;
		*equal = '=';
		add(r->o, copy);
	}
	if (f != NULL)
		fclose(f);
}

/* XE_SERVER and the like; XE_EXTRA_ARGS: "a=1,b=2", a comma in a value as "\,". */
static void read_environment(struct reading *r)
{
	static const char *const names[][2] = { { "XE_SERVER", "server" }, { "XE_PORT", "port" },
		{ "XE_USER", "username" }, { "XE_PASSWORD", "password" },
		{ "XE_PASSWORD_FILE", "passwordfile" }, { "XE_CAFILE", "cafile" },
		{ "XE_INSECURE", "insecure" } };
	const char *value;
	char *text, *from, *to, *word, *equal;
	bool more = true;

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if ((value = getenv(names[i][0])) != NULL && *value != 0)
			set(r, names[i][1], value, FROM_ENV);
	r->o->traceparent = getenv("TRACEPARENT");
	value = getenv("XE_EXTRA_ARGS");
	if (value == NULL)
		return;
	text = must(strdup(value));
	for (from = word = to = text; more; from++) {
		if (from[0] == '\\' && from[1] == ',') {
			*to++ = *++from;
			continue;
		}
		more = *from != 0;
		if (more && *from != ',') {
			*to++ = *from;
			continue;
		}
		*to = 0;
		equal = strchr(word, '=');
		if (equal != NULL)
			*equal = 0;
		if (*word != 0 && (equal == NULL || !set(r, word, equal + 1, FROM_ENV))) {
			if (equal != NULL)
				*equal = '=';
			add(r->o, word);
		}
		word = to = from + 1;
	}
}

static int complain(const char *what)
{
	fprintf(stderr, "xe: %s; see: xe --help\n", what);
	return 1;
}

static int read_args(struct reading *r, int argc, char **argv)
{
	static const char *const valued[][2] = { { "-s", "server" }, { "-h", "server" },
		{ "-p", "port" }, { "-u", "username" }, { "-pw", "password" },
		{ "-pwf", "passwordfile" }, { "--cafile", "cafile" } };
	struct options *o = r->o;
	bool done;

	for (int i = 1; i < argc; i++) {
		done = false;
		for (unsigned k = 0; k < ARRAY_LEN(valued) && !done; k++) {
			if (strcmp(argv[i], valued[k][0]) != 0)
				continue;
			if (i + 1 == argc)
				return complain("an option needs a value");
			set(r, valued[k][1], argv[++i], FROM_ARGS);
			done = true;
		}
		if (done)
			continue;
		if (strcmp(argv[i], "--nossl") == 0)
			o->trust.plain = true;
		else if (strcmp(argv[i], "--insecure") == 0)
			o->trust.insecure = true;
		else if (strcmp(argv[i], "--debug") == 0 || strcmp(argv[i], "--debug-on-fail") == 0)
			o->debug = true;
		else if (strcmp(argv[i], "--exit-codes") == 0)
			o->exit_codes = true;
		else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-help") == 0)
			o->help = true;
		else if (strcmp(argv[i], "-version") == 0 || strcmp(argv[i], "--version") == 0)
			o->version = true;
		else if (strcmp(argv[i], "--traceparent") == 0 && i + 1 < argc)
			o->traceparent = argv[++i];
		else if (strchr(argv[i], '\n') != NULL)
			return complain("an argument has a line break in it");
		else if (!add(o, argv[i]))
			return complain("too many arguments");
	}
	return 0;
}

/* Line 1 user, line 2 password. */
static int read_password_file(struct reading *r)
{
	FILE *f = fopen(r->password_path, "re");
	char line[2][LINE_MAX_LEN] = { "", "" };
	unsigned n = 0;

	if (f == NULL) {
		fprintf(stderr, "xe: cannot read the password file %s\n", r->password_path);
		return 1;
	}
	while (n < 2 && fgets(line[n], sizeof line[n], f) != NULL) {
		line[n][strcspn(line[n], "\r\n")] = 0;
		n++;
	}
	fclose(f);
	if (n < 2) {
		fprintf(stderr, "xe: %s: line 1 is the user, line 2 the password\n",
			r->password_path);
		return 1;
	}
	r->o->user = must(strdup(line[0]));
	r->o->password = must(strdup(line[1]));
	return 0;
}

int options_read(struct options *o, int argc, char **argv)
{
	struct reading r = { .o = o };
	const char *config = getenv("XDG_CONFIG_HOME"), *command[1];
	char path[LINE_MAX_LEN];
	unsigned extra;

	*o = (struct options){ .servers = "127.0.0.1", .user = "root" };
	read_file(&r);
	read_environment(&r);
	extra = o->n_args;
	if (read_args(&r, argc, argv) != 0)
		return 1;
	/* the command comes first, what was appended from elsewhere behind it */
	if (extra > 0 && extra < o->n_args) {
		command[0] = o->args[extra];
		memmove(o->args + 1, o->args, extra * sizeof *o->args);
		o->args[0] = command[0];
	}
	if (r.password_path != NULL && r.password < r.passwordfile && read_password_file(&r) != 0)
		return 1;
	if (config != NULL && *config != 0) {
		snprintf(path, sizeof path, "%s/xpool/known_pools", config);
		o->trust.pins = must(strdup(path));
	} else {
		o->trust.pins = in_home(".config/xpool/known_pools");
	}
	if (o->port == 0)
		o->port = o->trust.plain ? 80 : 443;
	return 0;
}

bool options_names_file(const struct options *o, const char *file)
{
	for (unsigned i = 0; i < o->n_args; i++) {
		const char *equal = strchr(o->args[i], '=');

		if (equal != NULL && strcmp(equal + 1, file) == 0)
			return true;
	}
	return false;
}
