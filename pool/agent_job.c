/* The agent, for a task: calls and jobs, their errors as the API tells them, cancellation,
 * progress.
 *
 * The job of the agent bears the uuid of the task, so that asking again after a restart of xpoold
 * is the same job. An agent that is away makes us wait. A job that was
 * begun under another incarnation of the agent is never begun anew: the agent still knows it, or it
 * ends with "agent restarted".
 */
#include "db/plane.h"
#include "pool/operation_priv.h"

#include <stdio.h>
#include <string.h>

enum { AGENT_RETRY_MS = 200, TASK_LOOK_MS = 5000 };

int agent_ask(struct job *job, struct pool *pool, enum agent_method_id method,
	const struct val *params, struct val *out, struct err *err)
{
	int rc;

	for (;;) {
		rc = agent_call(job, pool->agent, method, params, out, err);
		if (rc == 0 || rc == ERR_API || rc == ERR_DEAD)
			return rc;
		if (job_sleep(job, AGENT_RETRY_MS) == ERR_DEAD)
			return ERR_DEAD;
		/* a cancelled job sleeps no more: do not spin */
		if (job->cancelled && job_sleep(job, AGENT_RETRY_MS) == ERR_CANCELLED)
			job->cancelled = false;
	}
}

/* Agent's errors as the API tells them: vm-lifecycle section 5. VM: the reference of the task's VM
 * comes first; otherwise the agent's own parameters, as many as the API's code has. */
static const struct {
	const struct err_code *agent, *api;
	bool vm;
} codes[] = {
	{ AGENT_ERR_no_shutdown_ack, ERR_VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT, true },
	{ AGENT_ERR_no_suspend_ack, ERR_VM_FAILED_SUSPEND_ACKNOWLEDGMENT, true },
	{ AGENT_ERR_shutdown_timeout, ERR_VM_SHUTDOWN_TIMEOUT, true },
	{ AGENT_ERR_suspend_timeout, ERR_VM_SUSPEND_TIMEOUT, true },
	{ AGENT_ERR_device_detach_rejected, ERR_DEVICE_DETACH_REJECTED, false },
	{ AGENT_ERR_no_free_memory, ERR_HOST_NOT_ENOUGH_FREE_MEMORY, false },
	{ AGENT_ERR_image_io, ERR_VDI_IO_ERROR, false },
	{ AGENT_ERR_remote_unreachable, ERR_VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED, false },
	{ AGENT_ERR_hook_failed, ERR_XAPI_HOOK_FAILED, false },
	{ AGENT_ERR_unimplemented, ERR_NOT_IMPLEMENTED, false },
	{ NULL, NULL, false },
};

static int by_table(struct owned *o, const struct err *agent, struct err *err)
{
	const char *params[ERR_PARAMS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; codes[i].agent != NULL; i++) {
		if (agent->code != codes[i].agent)
			continue;
		if (codes[i].vm)
			params[n++] = o->vm;
		for (unsigned k = 0; k < agent->n && n < ERR_PARAMS_MAX; k++)
			params[n++] = agent->params[k];
		return err_set_list(err, codes[i].api, params, n);
	}
	return 0;
}

/* The reference of something of which the agent knows the uuid. */
static const char *ref_of(struct owned *o, int class_id, const char *uuid, char out[DB_REF_MAX + 1])
{
	struct db_view view;
	const struct db_row *row;

	db_view_pin(o->pool->db, &view);
	row = db_view_by_uuid(&view, class_id, uuid);
	snprintf(out, DB_REF_MAX + 1, "%s", row != NULL ? db_row_ref(row) : NULL_REF);
	db_view_unpin(&view);
	return out;
}

static int translate(struct owned *o, struct err *agent, struct err *err)
{
	const struct err_code *c = agent->code, *storage;
	const char *p0 = agent->n > 0 ? agent->params[0] : "",
		   *p1 = agent->n > 1 ? agent->params[1] : "";
	char ref[DB_REF_MAX + 1];
	int rc = by_table(o, agent, err);

	if (rc != 0)
		;
	else if (c == AGENT_ERR_bad_power_state)
		rc = err_set(err, ERR_VM_BAD_POWER_STATE, o->vm, p1, p0, NULL);
	else if (c == AGENT_ERR_cancelled)
		rc = err_set(err, ERR_TASK_CANCELLED, o->task, NULL);
	else if (c == AGENT_ERR_no_balloon_cooperation)
		rc = err_set(err, ERR_VMS_FAILED_TO_COOPERATE, o->vm, NULL);
	else if (c == AGENT_ERR_disk_in_use)
		rc = err_set(err, ERR_VDI_IN_USE, ref_of(o, MODEL_CLASS_VDI, p0, ref), NULL);
	else if (c == AGENT_ERR_disk_read_only)
		rc = err_set(err, ERR_VDI_READONLY, ref_of(o, MODEL_CLASS_VDI, p0, ref), NULL);
	else if (c == AGENT_ERR_does_not_exist && strcmp(p0, "VDI") == 0)
		rc = err_set(err, ERR_VDI_NOT_AVAILABLE, ref_of(o, MODEL_CLASS_VDI, p1, ref), NULL);
	else if (c == AGENT_ERR_does_not_exist && strcmp(p0, "SR") == 0)
		rc = err_set(err, ERR_SR_NOT_ATTACHED, ref_of(o, MODEL_CLASS_SR, p1, ref), NULL);
	else if (c == AGENT_ERR_storage && (storage = model_error_find(p0)) != NULL)
		rc = err_set_list(
			err, storage, (const char *const *)(agent->params + 1), agent->n - 1);
	else if (c == AGENT_ERR_agent_restarted)
		rc = err_set(err, ERR_INTERNAL_ERROR, "agent restarted", NULL);
	else
		rc = err_set(err, ERR_INTERNAL_ERROR, *p0 ? p0 : c->name, NULL);
	err_fini(agent);
	return rc;
}

static void job_params(struct job *job, const char *name, struct val *params)
{
	*params = val_map();
	val_map_push(&job->arena, params, "job", val_string(name));
}

/* To the others as a volatile number; by whole hundredths, so that small steps are no news. */
static void show_progress(struct owned *o, const struct val *permille)
{
	struct val progress;

	if (permille == NULL || permille->kind != VAL_INT || permille->i < 10 || permille->i > 1000)
		return;
	progress = val_float((double)(permille->i / 10) / 100);
	db_plane_put(o->pool->db, MODEL_CLASS_task, o->task, TASK_progress, &progress);
}

/* One look at the agent's task: 1 pending, 0 completed, ERR_API failed. */
static int task_state(struct job *job, struct owned *o, const char *name_of_job, struct err *err)
{
	struct val params, v;
	const char *state, *name;
	const struct val *data;
	struct err agent = { 0 };
	const char *texts[ERR_PARAMS_MAX];
	unsigned n = 0;
	int rc;

	job_params(job, name_of_job, &params);
	rc = agent_ask(job, o->pool, AGENT_TASK_stat, &params, &v, &agent);
	if (rc == ERR_API &&
		agent.code == AGENT_ERR_does_not_exist) { /* it was lost with the host's boot */
		err_set(&agent, AGENT_ERR_agent_restarted, NULL);
		return translate(o, &agent, err);
	}
	if (rc != 0)
		return rc == ERR_API ? translate(o, &agent, err) : rc;
	state = val_get_s(&v, "state");
	if (state == NULL || strcmp(state, "pending") == 0) {
		show_progress(o, val_get(&v, "progress_permille"));
		return 1;
	}
	if (strcmp(state, "completed") == 0)
		return 0;
	name = val_get_s(&v, "error");
	data = val_get(&v, "data");
	for (uint32_t i = 0;
		data != NULL && data->kind == VAL_SET && i < data->n && n < ERR_PARAMS_MAX; i++)
		texts[n++] = data->items[i].kind == VAL_STRING ? data->items[i].s : "";
	for (unsigned i = 0; agent_errors[i] != NULL; i++)
		if (name != NULL && strcmp(agent_errors[i]->name, name) == 0)
			err_set_list(&agent, agent_errors[i], texts, n);
	if (agent.code == NULL)
		err_set(&agent, AGENT_ERR_domain_failed, name != NULL ? name : "unknown", NULL);
	return translate(o, &agent, err);
}

static int wait_for_task(struct job *job, struct owned *o, struct err *err)
{
	struct val params, ignored;
	struct err none = { 0 };
	bool asked = false;
	int rc = o->fresh ? 1 : task_state(job, o, o->task_uuid, err);

	while (rc == 1) {
		if (o->cancel && !asked) {
			asked = true;
			job_params(job, o->task_uuid, &params);
			agent_ask(job, o->pool, AGENT_TASK_cancel, &params, &ignored, &none);
			err_fini(&none);
		}
		/* the update stream wakes us by cancelling this sleep; the time is for a lost
		 * update */
		if (!o->woken && job_sleep(job, TASK_LOOK_MS) == ERR_DEAD)
			return ERR_DEAD;
		o->woken = job->cancelled = false;
		rc = task_state(job, o, o->task_uuid, err);
	}
	return rc;
}

int owner_agent_ask(struct job *job, void *task, enum agent_method_id method,
	const struct val *params, struct val *out, struct err *err)
{
	struct owned *o = task;
	struct err agent = { 0 };
	struct val ignored;
	int rc = agent_ask(job, o->pool, method, params, out != NULL ? out : &ignored, &agent);

	return rc == ERR_API ? translate(o, &agent, err) : rc;
}

int owner_agent_op(struct job *job, void *task, enum agent_method_id method, struct val *params,
	struct err *err)
{
	struct owned *o = task;
	struct err agent = { 0 };
	struct val ignored;
	int rc = 0;

	if (val_get(params, "uuid") == NULL) /* else it is about no VM */
		val_map_push(&job->arena, params, "uuid", val_string(o->vm_uuid));
	val_map_push(&job->arena, params, "job", val_string(o->task_uuid));
	if (o->same_incarnation)
		rc = agent_ask(job, o->pool, method, params, &ignored, &agent);
	if (rc != 0)
		return rc == ERR_API ? translate(o, &agent, err) : rc;
	return wait_for_task(job, o, err);
}

static void forget(struct job *job, struct pool *pool, const char *name, bool undo)
{
	struct val params, ignored;
	struct err none = { 0 };

	job_params(job, name, &params);
	val_map_push(&job->arena, &params, "undo", val_bool(undo));
	agent_call(job, pool->agent, AGENT_TASK_destroy, &params, &ignored, &none);
	err_fini(&none);
}

/* A job of the agent's beside that of a task: no row bears its name. */
struct agent_part {
	struct agent_part *next;
	char name[UUID_LEN + 1];
};

static void part_keep(struct pool *pool, struct agent_part *part)
{
	pthread_mutex_lock(&pool->parts_mutex);
	part->next = pool->parts;
	pool->parts = part;
	pthread_mutex_unlock(&pool->parts_mutex);
}

static void part_drop(struct pool *pool, const struct agent_part *part)
{
	struct agent_part **at = &pool->parts;

	pthread_mutex_lock(&pool->parts_mutex);
	while (*at != part)
		at = &(*at)->next;
	*at = part->next;
	pthread_mutex_unlock(&pool->parts_mutex);
}

/* By an earlier life of this program: asked again it will have the same name. */
static bool part_of_pending(const struct db_view *view, const char *name)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_task);
	const struct db_row *task;
	char derived[UUID_LEN + 1];

	while ((task = db_next(&c)) != NULL) {
		if (!task_pending(task))
			continue;
		uuid_derive(db_row_s(task, TASK_uuid), AGENT_PART_RECEIVE, derived);
		if (strcmp(derived, name) == 0)
			return true;
	}
	return false;
}

bool agent_part_wanted(struct pool *pool, const struct db_view *view, const char *name)
{
	bool is = false;

	pthread_mutex_lock(&pool->parts_mutex);
	for (const struct agent_part *p = pool->parts; p != NULL && !is; p = p->next)
		is = strcmp(p->name, name) == 0;
	pthread_mutex_unlock(&pool->parts_mutex);
	return is || part_of_pending(view, name);
}

static int part_run(struct job *job, struct owned *o, const char *name, enum agent_method_id method,
	const struct val *params, struct err *err)
{
	enum { FIRST_MS = 5, MOST_MS = 500 };
	uint64_t ms = FIRST_MS;
	int rc = owner_agent_ask(job, o, method, params, NULL, err);

	if (rc != 0)
		return rc;
	while ((rc = task_state(job, o, name, err)) == 1) {
		if (job_sleep(job, ms) == ERR_DEAD)
			return ERR_DEAD;
		job->cancelled = false;
		ms = ms * 2 < MOST_MS ? ms * 2 : MOST_MS;
	}
	return rc;
}

int owner_agent_part(struct job *job, void *task, const char *word, enum agent_method_id method,
	struct val *params, struct err *err)
{
	struct owned *o = task;
	struct agent_part *part = arena_alloc(&job->arena, sizeof *part);
	int rc;

	if (word != NULL)
		uuid_derive(o->task_uuid, word, part->name);
	else
		env_uuid(o->pool->env, part->name);
	val_map_push(&job->arena, params, "uuid", val_string(o->vm_uuid));
	val_map_push(&job->arena, params, "job", val_string(part->name));
	part_keep(o->pool, part);
	rc = part_run(job, o, part->name, method, params, err);
	part_drop(o->pool, part);
	if (rc != ERR_DEAD && word == NULL)
		forget(job, o->pool, part->name, false);
	return rc;
}

void agent_forget(struct job *job, struct owned *o, bool undo)
{
	forget(job, o->pool, o->task_uuid, undo);
}
