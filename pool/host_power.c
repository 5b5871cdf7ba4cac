/* A machine goes off, or restarts; so does the program that manages it. pool.md section 4.
 *
 *   disabled, no VM there or on its way --agent: HOST.reboot--> task ended --> this program ends,
 *     handing the lead over --> the machine comes back with another boot id --> enabled again
 *
 * At most once: whoever runs it again (xpoold was restarted) sees by the boot id whether it is
 * done. Of a simulated host the agent and this program are what restarts.
 */
#include "pool/operation_priv.h"

#include <string.h>

/* BOOT/NUMBER of its agent. */
static bool same_boot(const char *a, const char *b)
{
	size_t n = strcspn(a, "/");

	return n == strcspn(b, "/") && strncmp(a, b, n) == 0;
}

static int none_there(struct admit *ad, const char *host, struct err *err)
{
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_VM);
	const struct db_row *vm;

	while ((vm = db_next(&c)) != NULL)
		if (!db_row_b(vm, VM_is_control_domain) &&
			(strcmp(db_row_s(vm, VM_resident_on), host) == 0 ||
				strcmp(db_row_s(vm, VM_scheduled_to_be_resident_on), host) == 0))
			return err_set(err, ERR_HOST_HAS_RESIDENT_VMS, host, NULL);
	return 0;
}

int host_reboot_admit(struct admit *admit, const struct host_reboot_args *args, struct err *err)
{
	return none_there(admit, args->host, err);
}

int host_shutdown_admit(struct admit *admit, const struct host_shutdown_args *args, struct err *err)
{
	return none_there(admit, args->host, err);
}

/* Has the machine been started since the task was? */
static bool done_before(struct owned *o)
{
	const struct db_row *task;
	struct db_view view;
	char now[128];
	bool done;

	incarnation_of(o->pool, now);
	db_view_pin(o->pool->db, &view);
	task = db_view_get(&view, MODEL_CLASS_task, o->task);
	done = task != NULL && !same_boot(db_row_s(task, TASK_incarnation), now);
	db_view_unpin(&view);
	return done;
}

int host_reboot_run(
	struct job *job, void *task, const struct host_reboot_args *args, struct err *err)
{
	struct owned *o = task;
	int rc;

	(void)args;
	if (done_before(o))
		return 0;
	rc = owner_agent_ask(job, task, AGENT_HOST_reboot, NULL, NULL, err);
	if (rc == 0)
		o->after = END_AND_BEGIN;
	return rc;
}

int host_shutdown_run(
	struct job *job, void *task, const struct host_shutdown_args *args, struct err *err)
{
	struct owned *o = task;
	int rc;

	(void)args;
	if (done_before(o))
		return 0;
	rc = owner_agent_ask(job, task, AGENT_HOST_shutdown, NULL, NULL, err);
	if (rc == 0)
		o->after = END;
	return rc;
}

/* This program; domains and their agent live on. */
int host_restart_agent_run(
	struct job *job, void *task, const struct host_restart_agent_args *args, struct err *err)
{
	struct owned *o = task;

	(void)job;
	(void)args;
	(void)err;
	o->after = END_AND_BEGIN;
	return 0;
}

void host_after_boot(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	const char *before, const char *now)
{
	const struct db_row *host = pool_self(pool, view),
			    *member = db_view_get(view, MODEL_CLASS__member, pool->host_uuid);

	if (host == NULL || *before == 0 || same_boot(before, now))
		return;
	/* who disables it meanwhile is not overruled */
	db_txn_need_version(txn, MODEL_CLASS_host, db_row_ref(host), db_row_modified(host));
	if (!db_row_b(host, HOST_enabled) && db_row_b(member, _MEMBER_auto_enable))
		db_txn_set(txn, MODEL_CLASS_host, db_row_ref(host), HOST_enabled, val_bool(true));
}

/* The rule always says no, and why: there is no plug-in that could. */
int host_power_on(struct call *call, const struct host_power_on_args *args, struct err *err)
{
	const struct db_row *host = db_view_get(&call->view, MODEL_CLASS_host, args->host);
	const char *waits_for;

	if (host == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", args->host, NULL);
	return rules_check(&call->view, host, "power_on", &call->arena, &waits_for, err);
}
