/* Scripts of hooks for the suites of this folder, below DIR/hooks; what they say is in DIR/heard.
 */
#pragma once

#include "member/child.h"
#include "rpc/base/file.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One that writes a line, its name and its arguments, and goes on with body. */
static inline void hook_write(const char *dir, const char *name, mode_t mode, const char *body)
{
	char path[256], folder[256];
	FILE *f;

	snprintf(path, sizeof path, "%s/hooks", dir);
	mkdir(path, 0755);
	snprintf(folder, sizeof folder, "%s/hooks/%s", dir, name);
	*strrchr(folder, '/') = 0;
	mkdir(folder, 0755);
	snprintf(path, sizeof path, "%s/hooks/%s", dir, name);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fprintf(f, "#!/bin/sh\necho \"%s $*\" >>%s/heard\n%s\n", name, dir, body);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(chmod(path, mode), 0);
}

/* All that was said since the last look, to be freed. */
static inline char *hooks_heard(const char *dir)
{
	struct buf all = { 0 };
	char path[256], *text;

	snprintf(path, sizeof path, "%s/heard", dir);
	file_read(path, 1 << 20, &all);
	text = strdup(buf_text(&all));
	buf_fini(&all);
	unlink(path);
	return text;
}

static inline void hooks_expect(const char *dir, const char *expected)
{
	char *heard = hooks_heard(dir);

	ck_assert_str_eq(heard, expected);
	free(heard);
}

static inline void hooks_remove_entry(void *arg, const char *name)
{
	char path[512];

	snprintf(path, sizeof path, "%s/%s", (const char *)arg, name);
	if (unlink(path) != 0) {
		folder_list(path, hooks_remove_entry, path);
		rmdir(path);
	}
}

static inline void hooks_remove(const char *dir)
{
	char path[256];

	free(hooks_heard(dir));
	snprintf(path, sizeof path, "%s/hooks", dir);
	folder_list(path, hooks_remove_entry, path);
	rmdir(path);
}
