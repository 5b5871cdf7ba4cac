/* xpoolctl add, enlist, join: a host joins a pool.
 *
 *  - add: on a member; the newcomer's line of members.json in, the file for it out
 *  - enlist: on the new host; makes its directory, empty, as a member that has to fetch everything
 *  - join --dry-run: on a host that is a pool of its own; what keeps it from pool.join
 */
#include "pool/ctl_priv.h"
#include "pool/members.h"
#include "rpc/base/file.h"
#include "rpc/base/val.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ADD_TIMEOUT_S = 30, DRY_TIMEOUT_S = 120 };

int ctl_add(const struct options *o)
{
	struct buf text = { 0 }, word = { 0 }, out = { 0 };
	int e, rc = 1;

	if (o->dir == NULL || o->members == NULL || o->out == NULL)
		return ctl_fail(
			"add", "needs --dir, --members with the newcomer's entry, and --out");
	if (file_read(o->members, MEMBERS_FILE_MAX, &text) != 0)
		return ctl_fail(o->members, strerror(errno));
	buf_puts(&word, "add ");
	for (size_t i = 0; i < text.len; i++)
		buf_u8(&word, text.data[i] < ' ' ? ' ' : text.data[i]);
	buf_u8(&word, 0);
	e = ctl_ask(o->dir, (const char *)word.data, ADD_TIMEOUT_S, &out);
	if (e != 0)
		ctl_fail(o->dir, e == ECONNREFUSED ? "xpoold does not run here" : strerror(e));
	else if (out.len == 0 || out.data[0] != '{')
		fprintf(stderr, "xpoolctl: add: %.*s", (int)out.len, (const char *)out.data);
	else if (file_replace(o->out, out.data, out.len) != 0)
		ctl_fail(o->out, strerror(errno));
	else
		rc = 0;
	buf_fini(&text);
	buf_fini(&word);
	buf_fini(&out);
	return rc;
}

int ctl_enlist(const struct options *o)
{
	static struct members members;
	char path[512], why[256];
	struct env env;

	if (o->dir == NULL || o->members == NULL)
		return ctl_fail("enlist", "needs --dir and --members, the file that add has made");
	if (!members_read(o->members, &members, why, sizeof why))
		return ctl_fail(o->members, why);
	if (members.self == 0 || members.index == 0)
		return ctl_fail(o->members, "xpoolctl add has not made it");
	if (ctl_folder_new(o->dir, path, sizeof path) != 0)
		return 1;
	env_uv_init(&env, "xpoolctl");
	return members_enlist(&env, o->dir, &members) == 0
		       ? 0
		       : ctl_fail(o->dir, "its log cannot be made");
}

int ctl_join(const struct options *o)
{
	struct buf text = { 0 }, out = { 0 };
	char password[512];
	int e;

	if (!o->dry || o->dir == NULL || o->address == NULL || o->user == NULL)
		return ctl_fail("join", "needs --dry-run, --dir, --address and --user");
	if (fgets(password, sizeof password, stdin) == NULL)
		return ctl_fail("join", "no password on standard input");
	password[strcspn(password, "\n")] = 0;
	buf_puts(&text, "join-dry {\"address\":");
	val_json_text(&text, o->address);
	buf_puts(&text, ",\"user\":");
	val_json_text(&text, o->user);
	buf_puts(&text, ",\"password\":");
	val_json_text(&text, password);
	buf_puts(&text, o->force ? ",\"force\":true}" : "}");
	e = ctl_ask(o->dir, buf_text(&text), DRY_TIMEOUT_S, &out);
	if (e != 0)
		ctl_fail(o->dir, e == ECONNREFUSED ? "xpoold does not run here" : strerror(e));
	fputs(buf_text(&out), stdout);
	e = e != 0 || strncmp(buf_text(&out), "nothing", strlen("nothing")) != 0;
	buf_fini(&text);
	buf_fini(&out);
	return e;
}
