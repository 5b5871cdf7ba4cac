/* Commands about the pool, and about everything, that are more than one message: waiting for a
 * state, alerts, subjects' roles, the dump of the database. */
#include "pool/cli_priv.h"

#include <stdlib.h>
#include <string.h>

enum { WAIT_LOOK_MS = 50 };

/* Whoever waits for days may meanwhile have lost what lets him in. */
static int still_let_in(struct cli *cli, struct err *err)
{
	struct caller *caller = &cli->call->caller;
	struct db_view view;
	struct arena a; /* of a moment: there are many looks */

	arena_init(&a);
	db_view_pin(cli->call->pool->db, &view);
	roles_refresh(caller, &view, &a);
	db_view_unpin(&view);
	arena_fini(&a);
	return role_need(caller, "http/post_cli", err);
}

/* A look whenever something may have changed, until an object is as wanted; the client may go. */
int cli_event_wait(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	const char *name = cli_get(cli, "class");
	const struct cli_class *c = cli_class_find(name, strlen(name));
	struct cli_selection found;
	int rc;

	(void)command;
	(void)object;
	if (c == NULL)
		return cli_fail(cli, "Unknown class '%s'", name);
	cli->differs = true;
	do {
		for (unsigned i = 0; i < cli->n_params; i++)
			cli->params[i].used = strcmp(cli->params[i].name, "class") == 0;
		rc = cli_select(cli, c, NULL, "", &found);
		if (rc == 0 && found.n == 0)
			rc = job_sleep(cli->job, WAIT_LOOK_MS);
		if (rc == 0 && found.n == 0)
			rc = still_let_in(cli, err);
	} while (rc == 0 && found.n == 0);
	return rc;
}

/* Alerts. */

int cli_message_create(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	static const char *const about[][2] = { { "vm-uuid", "VM" }, { "pool-uuid", "Pool" },
		{ "sr-uuid", "SR" }, { "host-uuid", "Host" } };
	static const struct model_type int_type = { .kind = MODEL_INT };
	struct val priority;
	const char *uuid = NULL;
	unsigned at = 0;
	int rc = cli_value(cli, &int_type, "priority", cli_get(cli, "priority"), &priority, err);

	(void)command;
	(void)object;
	for (; rc == 0 && at < ARRAY_LEN(about); at++)
		if ((uuid = cli_get(cli, about[at][0])) != NULL)
			break;
	if (rc != 0)
		return rc;
	if (uuid == NULL)
		return cli_fail(cli, "Need one of: vm-uuid, host-uuid, sr-uuid or pool-uuid");
	return cli_invoke(cli, "message.create",
		(struct val[]){ val_string(cli_get(cli, "name")), priority,
			val_string(about[at][1]), val_string(uuid),
			val_string(cli_get(cli, "body")) },
		5, NULL, err);
}

int cli_message_destroy(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	static const struct model_type item = { .kind = MODEL_REF,
		.class_id = MODEL_CLASS_message };
	static const struct model_type set = { .kind = MODEL_SET, .item = &item };
	const char *uuids = cli_get(cli, "uuids");
	struct val refs;
	int rc;

	(void)command;
	(void)object;
	if (uuids == NULL)
		uuids = cli_get(cli, "uuid");
	if (uuids == NULL)
		return cli_fail(cli, "Required parameter not found: uuid");
	rc = cli_value(cli, &set, "uuids", uuids, &refs, err);
	return rc != 0 ? rc : cli_invoke(cli, "message.destroy_many", &refs, 1, NULL, err);
}

int cli_message_destroy_all(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	static const char *const names[] = { "before", "after", "priority" };
	struct val map = val_map();
	const char *text;

	(void)command;
	(void)object;
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if ((text = cli_get(cli, names[i])) != NULL)
			val_map_push(cli->arena, &map, names[i], val_string(text));
	return cli_invoke(cli, "message.destroy_all", &map, 1, NULL, err);
}

/* subject-role-add, subject-role-remove */
int cli_subject_role(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	static const struct model_type role_type = { .kind = MODEL_REF,
		.class_id = MODEL_CLASS_role };
	static const struct model_type subject_type = { .kind = MODEL_REF,
		.class_id = MODEL_CLASS_subject };
	const char *role = cli_get(cli, "role-uuid");
	struct val args[2];
	int rc;

	(void)object;
	if (role == NULL)
		role = cli_get(cli, "role-name");
	if (role == NULL)
		return cli_fail(cli, "Required parameter not found: role-name");
	rc = cli_value(cli, &subject_type, "uuid", cli_get(cli, "uuid"), &args[0], err);
	if (rc == 0)
		rc = cli_value(cli, &role_type, "role-name", role, &args[1], err);
	if (rc != 0)
		return rc;
	return cli_invoke(cli,
		strcmp(command->name, "subject-role-add") == 0 ? "subject.add_to_roles"
							       : "subject.remove_from_roles",
		args, 2, NULL, err);
}

/* What the directory knows of that name. */
int cli_subject_add(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	struct val name = val_string(cli_get(cli, "subject-name")), id, known, map = val_map(),
		   made;
	int rc = cli_invoke(cli, "auth.get_subject_identifier", &name, 1, &id, err);

	(void)command;
	(void)object;
	if (rc == 0)
		rc = cli_invoke(
			cli, "auth.get_subject_information_from_identifier", &id, 1, &known, err);
	if (rc != 0)
		return rc;
	val_map_push(cli->arena, &map, "subject_identifier", id);
	val_map_push(cli->arena, &map, "other_config", known);
	rc = cli_create(cli, MODEL_CLASS_subject, &map, &made, err);
	if (rc == 0)
		cli_item(cli, cli_uuid(cli, MODEL_CLASS_subject, made.s));
	return rc;
}

int cli_logout_all(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	struct val all;
	int rc = cli_invoke(cli, "session.get_all_subject_identifiers", NULL, 0, &all, err);

	(void)command;
	(void)object;
	for (uint32_t i = 0; rc == 0 && i < all.n; i++)
		rc = cli_invoke(
			cli, "session.logout_subject_identifier", &all.items[i], 1, NULL, err);
	return rc;
}

/* What the client does itself over another connection, by a URL with a session that lives as long
 * as that takes: files, and consoles. */

static int done_by_client(struct cli *cli, enum thin_tag tag, const char *file, const char *url,
	const char *failed, struct err *err)
{
	char ref[DB_REF_MAX + 1];
	struct thin_frame answer;
	int rc = session_lend(cli->job, cli->call, ref, err);

	if (rc != 0)
		return rc;
	cli_frame(cli, &(struct thin_frame){ .kind = THIN_COMMAND,
			       .tag = tag,
			       .text = file,
			       .url = arena_printf(cli->arena, "%ssession_id=%s", url, ref) });
	rc = cli_flush(cli);
	do {
		if (rc == 0)
			rc = cli_read_frame(cli, &answer);
	} while (rc == 0 && answer.kind == THIN_RESPONSE && answer.tag == THIN_WAIT);
	session_lent_end(cli->job, cli->call, ref);
	if (rc == 0 && (answer.kind != THIN_RESPONSE || answer.tag != THIN_OK))
		return cli_fail(cli, "%s", failed);
	return rc;
}

int cli_dump_database(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	(void)command;
	(void)object;
	return done_by_client(cli, THIN_HTTP_GET, cli_get(cli, "file-name"), "/pool/xmldbdump?",
		"The database was not written to the file", err);
}

/* What force=true does in the reference would be done under a member that runs. */
int cli_emergency(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	int rc = cli_run_message(cli, command, object, NULL, err);

	if (rc == ERR_API && err->code == ERR_HOST_IN_EMERGENCY_MODE &&
		cli_get(cli, "force") != NULL)
		return cli_fail(cli, "No majority answers. To go on without it, give up what only "
				     "the lost members "
				     "have: stop xpoold on this host, run xpoolctl recover (it "
				     "says what is given "
				     "up, and does it with --yes), start xpoold, then xe "
				     "pool-recover-slaves takes "
				     "in the members that can be reached.");
	return rc;
}

int cli_console(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	(void)command;
	return done_by_client(cli, THIN_HTTP_CONNECT, "",
		arena_printf(cli->arena, "/console?ref=%s&", object),
		"The console was not opened, or was lost: does the VM run?", err);
}

/* since comes as the client wrote it: what is no time ends the query. */
int cli_audit_log(
	struct cli *cli, const struct cli_command *command, const char *object, struct err *err)
{
	const char *since = cli_get(cli, "since");

	(void)command;
	(void)object;
	if (since == NULL)
		since = "";
	if (since[strspn(since, "0123456789TZ:.-")] != 0)
		return cli_fail(cli, "since is a time: 2026-11-29T08:20:03Z");
	return done_by_client(cli, THIN_HTTP_GET, cli_get(cli, "filename"),
		arena_printf(cli->arena, "/audit_log?since=%s&", since),
		"The log was not written to the file", err);
}
