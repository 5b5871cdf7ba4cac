/* xpoolctl add, enlist, witness, join: a host joins a pool, or a witness.
 *
 *  - add: on a member; the newcomer's line of members.json in, the file for it out
 *  - enlist: on the new host; makes its directory, empty, as a member that has to fetch everything
 *  - witness add: the same for a machine that is no host, its entry made here; then enlist there
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

/* An entry of members.json to the member; the file for the newcomer. */
static int add(const struct options *o, const char *entry)
{
	struct buf word = { 0 }, out = { 0 };
	int e, rc = 1;

	buf_puts(&word, "add ");
	for (; *entry != 0; entry++)
		buf_u8(&word, *entry < ' ' ? ' ' : (uint8_t)*entry);
	e = ctl_ask(o->dir, buf_text(&word), ADD_TIMEOUT_S, &out);
	if (e != 0)
		ctl_fail(o->dir, e == ECONNREFUSED ? "xpoold does not run here" : strerror(e));
	else if (out.len == 0 || out.data[0] != '{')
		fprintf(stderr, "xpoolctl: add: %.*s", (int)out.len, (const char *)out.data);
	else if (file_replace(o->out, out.data, out.len) != 0)
		ctl_fail(o->out, strerror(errno));
	else
		rc = 0;
	buf_fini(&word);
	buf_fini(&out);
	return rc;
}

int ctl_add(const struct options *o)
{
	struct buf text = { 0 };
	int rc;

	if (o->dir == NULL || o->members == NULL || o->out == NULL)
		return ctl_fail(
			"add", "needs --dir, --members with the newcomer's entry, and --out");
	if (file_read(o->members, MEMBERS_FILE_MAX, &text) != 0)
		return ctl_fail(o->members, strerror(errno));
	rc = add(o, buf_text(&text));
	buf_fini(&text);
	return rc;
}

static int witness_add(const struct options *o)
{
	struct buf entry = { 0 };
	char uuid[UUID_LEN + 1];
	struct env env;
	int rc;

	if (o->address == NULL || o->fingerprint == NULL || o->out == NULL)
		return ctl_fail("witness add", "needs --dir, --address with the IP:PORT of its "
					       "member channel, --fingerprint of its certificate, "
					       "and --out");
	env_uv_init(&env, "xpoolctl");
	env_uuid(&env, uuid);
	buf_printf(&entry,
		"{\"host\":\"%s\",\"name\":\"witness\",\"witness\":true,\"channel\":", uuid);
	val_json_text(&entry, o->address);
	buf_puts(&entry, ",\"certificate\":");
	val_json_text(&entry, o->fingerprint);
	buf_puts(&entry, "}");
	rc = add(o, buf_text(&entry));
	buf_fini(&entry);
	return rc;
}

static int witness_remove(const struct options *o)
{
	struct buf out = { 0 };
	int e = ctl_ask(o->dir, "witness-remove", ADD_TIMEOUT_S, &out);

	if (e != 0)
		ctl_fail(o->dir, e == ECONNREFUSED ? "xpoold does not run here" : strerror(e));
	fputs(buf_text(&out), stdout);
	e = e != 0 || strcmp(buf_text(&out), "removed\n") != 0;
	buf_fini(&out);
	return e;
}

int ctl_witness(const struct options *o)
{
	if (o->dir != NULL && o->n_rest == 1 && strcmp(o->rest[0], "add") == 0)
		return witness_add(o);
	if (o->dir != NULL && o->n_rest == 1 && strcmp(o->rest[0], "remove") == 0)
		return witness_remove(o);
	return ctl_fail("witness", "needs --dir, and add or remove");
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
