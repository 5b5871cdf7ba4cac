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

/* Without what is at this place; n_updates: there is nothing. Under the mutex, as the next. */
static void drop(struct agent *agent, unsigned at)
{
	struct update *u = agent->updates;

	if (at < agent->n_updates)
		memmove(u + at, u + at + 1, (--agent->n_updates - at) * sizeof *u);
}

static unsigned place_of(const struct agent *agent, const char *id)
{
	unsigned i = 0;

	while (i < agent->n_updates && strcmp(agent->updates[i].id, id) != 0)
		i++;
	return i;
}

/* The array is in the order of numbers: what has changed goes to its end. */
void agent_changed(struct agent *agent, const char *kind, const char *id)
{
	struct update u;

	snprintf(u.id, sizeof u.id, "%s %s", kind, id);
	pthread_mutex_lock(&agent->mutex);
	drop(agent, place_of(agent, u.id));
	if (agent->n_updates == AGENT_VMS_MAX + AGENT_TASKS_MAX) /* the oldest makes room */
		drop(agent, 0);
	if (agent->n_updates == agent->cap_updates) {
		agent->cap_updates = agent->cap_updates ? 2 * agent->cap_updates : 64;
		agent->updates =
			mem_resize(agent->updates, agent->cap_updates * sizeof *agent->updates);
	}
	u.number = ++agent->update_number;
	agent->updates[agent->n_updates++] = u;
	pthread_mutex_unlock(&agent->mutex);
	loop_post(agent->loop, &agent->update_call, look_at_waiters);
}

void agent_gone(struct agent *agent, const char *kind, const char *id)
{
	char full[sizeof((struct update *)0)->id];

	snprintf(full, sizeof full, "%s %s", kind, id);
	drop(agent, place_of(agent, full));
}

/* {from, ids}; false when nothing is newer. */
static bool newer(struct agent *agent, struct waiter *w, struct val *out)
{
	struct val ids = val_set();
	unsigned first;
	bool any;

	pthread_mutex_lock(&agent->mutex);
	any = agent->update_number > w->from;
	first = agent->n_updates;
	while (first > 0 && agent->updates[first - 1].number > w->from)
		first--;
	for (unsigned i = first; i < agent->n_updates; i++)
		val_set_push(
			&w->arena, &ids, val_string(arena_strdup(&w->arena, agent->updates[i].id)));
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

static void end_wait(struct waiter *w)
{
	struct val result;

	newer(w->agent, w, &result);
	unlink_waiter(w->agent, w);
	w->answer(w, result);
}

static void on_timeout(struct loop_timer *t)
{
	end_wait(container_of(t, struct waiter, timer));
}

void agent_end_waits(struct agent *agent, const void *owner)
{
	struct waiter *next;

	loop_assert(agent->loop);
	for (struct waiter *w = agent->waiters; w != NULL; w = next) {
		next = w->next;
		if (w->owner == owner)
			end_wait(w);
	}
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
