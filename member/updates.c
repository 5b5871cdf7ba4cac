/* The update stream: not a log but a map from object id to the number of its last change, so that a
 * reader who was away gets one line per object. vm-lifecycle 2.8. */
#include "member/agent_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct update {
	char id[64];
	uint64_t number;
};

static void look_at_waiters(struct loop_call *call);

void agent_changed(struct agent *agent, const char *kind, const char *id)
{
	char full[sizeof((struct update *)0)->id];
	struct update *u = NULL;

	snprintf(full, sizeof full, "%s %s", kind, id);
	pthread_mutex_lock(&agent->mutex);
	for (unsigned i = 0; i < agent->n_updates && u == NULL; i++)
		if (strcmp(agent->updates[i].id, full) == 0)
			u = &agent->updates[i];
	if (u == NULL) {
		/* bounded by VMs and tasks; the oldest makes room */
		if (agent->n_updates < AGENT_VMS_MAX + AGENT_TASKS_MAX) {
			if (agent->n_updates == agent->cap_updates) {
				agent->cap_updates =
					agent->cap_updates ? 2 * agent->cap_updates : 64;
				agent->updates = mem_resize(agent->updates,
					agent->cap_updates * sizeof *agent->updates);
			}
			u = &agent->updates[agent->n_updates++];
		} else {
			u = agent->updates;
			for (unsigned i = 1; i < agent->n_updates; i++)
				if (agent->updates[i].number < u->number)
					u = &agent->updates[i];
		}
		strcpy(u->id, full);
	}
	u->number = ++agent->update_number;
	pthread_mutex_unlock(&agent->mutex);
	loop_post(agent->loop, &agent->update_call, look_at_waiters);
}

static int by_number(const void *a, const void *b)
{
	const struct update *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

/* {from, ids}; false when nothing is newer. */
static bool newer(struct agent *agent, struct waiter *w, struct val *out)
{
	struct val ids = val_set();
	bool any = false;

	pthread_mutex_lock(&agent->mutex);
	if (agent->update_number > w->from) {
		any = true;
		qsort(agent->updates, agent->n_updates, sizeof *agent->updates, by_number);
		for (unsigned i = 0; i < agent->n_updates; i++)
			if (agent->updates[i].number > w->from)
				val_set_push(&w->arena, &ids,
					val_string(arena_strdup(&w->arena, agent->updates[i].id)));
	}
	*out = val_map();
	val_map_push(&w->arena, out, "from", val_int((int64_t)agent->update_number));
	val_map_push(&w->arena, out, "ids", ids);
	pthread_mutex_unlock(&agent->mutex);
	return any;
}

static void unlink_waiter(struct agent *agent, struct waiter *w)
{
	struct waiter **at = &agent->waiters;

	loop_assert(agent->loop);
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	loop_timer_stop(&w->timer);
}

static void look_at_waiters(struct loop_call *call)
{
	struct agent *agent = container_of(call, struct agent, update_call);
	struct waiter *next;
	struct val result;

	loop_assert(agent->loop);
	for (struct waiter *w = agent->waiters; w != NULL; w = next) {
		next = w->next;
		if (!newer(agent, w, &result))
			continue;
		unlink_waiter(agent, w);
		w->answer(w, result);
	}
}

static void on_timeout(struct loop_timer *t)
{
	struct waiter *w = container_of(t, struct waiter, timer);
	struct val result;

	newer(w->agent, w, &result);
	unlink_waiter(w->agent, w);
	w->answer(w, result);
}

void agent_wait_updates(struct agent *agent, struct waiter *w, uint64_t timeout_ms)
{
	loop_assert(agent->loop);
	w->agent = agent;
	arena_init(&w->arena);
	w->next = agent->waiters;
	agent->waiters = w;
	/* a number from before our start: everything is new to this client */
	pthread_mutex_lock(&agent->mutex);
	if (w->from > agent->update_number)
		w->from = 0;
	pthread_mutex_unlock(&agent->mutex);
	loop_timer_start(agent->loop, &w->timer, timeout_ms, on_timeout);
	loop_post(agent->loop, &agent->update_call, look_at_waiters);
}

void agent_updates_fini(struct agent *agent)
{
	free(agent->updates);
}
