/* The old interface: event.register, event.next, event.unregister, event.get_current_id.
 *
 * A session's subscription is kept by the member where it was made, with the position up to which
 * it has been told; event.next is event.from from there. When the member is another one, or dies,
 * the answer is SESSION_NOT_REGISTERED, as after a restart in the reference.
 */
#include "db/plane.h"
#include "pool/event_priv.h"

#include <stdlib.h>
#include <string.h>

enum { DAY_MS = 86400000 };

/* The place of a session's registration in the list; *place NULL: there is none. Mutex held. */
static struct event_registration **find(struct pool_events *e, const char *session)
{
	struct event_registration **at = &e->registrations;

	while (*at != NULL && strcmp((*at)->session, session) != 0)
		at = &(*at)->next;
	return at;
}

static void forget(struct pool_events *e, struct event_registration **at)
{
	struct event_registration *r = *at;

	*at = r->next;
	e->n_registrations--;
	event_watch_drop(e, r->watch);
	free(r);
}

/* A new one; the one that was not used for longest makes room. Sessions that ended leave theirs
 * until then. */
static struct event_registration *registration_new(struct pool_events *e, const struct call *call)
{
	struct event_registration *r = mem_new(sizeof *r), **at = &e->registrations;

	while (e->n_registrations >= EVENT_REGISTERED_MAX && (*at)->next != NULL)
		at = &(*at)->next;
	if (e->n_registrations >= EVENT_REGISTERED_MAX)
		forget(e, at);
	strcpy(r->session, session_given(call));
	r->from.index = db_view_index(&call->view);
	r->from.numbers = db_plane_changed(call->pool->db, UINT64_MAX, NULL, NULL);
	e->n_registrations++;
	return r;
}

static bool empty(const struct event_watch *w)
{
	bool any = w->n_objects > 0;

	for (int i = 0; i < MODEL_CLASS_COUNT; i++)
		any |= w->classes[i];
	return !any;
}

int event_register(struct call *call, const struct event_register_args *args, struct err *err)
{
	struct pool_events *e = call->pool->events;
	struct event_registration **at, *r;
	struct event_watch *watch;
	int rc;

	pthread_mutex_lock(&e->mutex);
	at = find(e, session_given(call));
	r = *at;
	rc = event_watch_make(e, args->classes, r != NULL ? r->watch : NULL, false, &watch, err);
	if (rc == 0) {
		if (r != NULL) {
			*at = r->next;
			event_watch_drop(e, r->watch);
		} else {
			r = registration_new(e, call);
		}
		r->watch = watch;
		r->next = e->registrations;
		e->registrations = r;
	}
	pthread_mutex_unlock(&e->mutex);
	return rc;
}

int event_unregister(struct call *call, const struct event_unregister_args *args, struct err *err)
{
	struct pool_events *e = call->pool->events;
	struct event_registration **at;
	struct event_watch *watch;
	int rc = 0;

	pthread_mutex_lock(&e->mutex);
	at = find(e, session_given(call));
	if (*at != NULL)
		rc = event_watch_make(e, args->classes, (*at)->watch, true, &watch, err);
	if (*at != NULL && rc == 0) {
		event_watch_drop(e, (*at)->watch);
		(*at)->watch = watch;
		if (empty(watch))
			forget(e, at);
	}
	pthread_mutex_unlock(&e->mutex);
	return rc;
}

static int not_registered(struct call *call, struct err *err)
{
	return err_set(err, ERR_SESSION_NOT_REGISTERED, session_given(call), NULL);
}

int event_next(struct call *call, const struct event_next_args *args, struct err *err)
{
	struct pool_events *e = call->pool->events;
	struct event_registration *r;
	struct event_watch *watch = NULL;
	struct event_position from;

	(void)args;
	pthread_mutex_lock(&e->mutex);
	r = *find(e, session_given(call));
	if (r != NULL) {
		watch = event_watch_share(r->watch);
		from = r->from;
	}
	pthread_mutex_unlock(&e->mutex);
	return watch == NULL ? not_registered(call, err)
			     : event_park(call, watch, &from, NULL, DAY_MS);
}

bool event_next_prepare(struct call *call, struct err *err)
{
	struct pool_events *e = call->pool->events;
	struct event_question *q = &call->event->question;
	struct event_registration *r;

	pthread_mutex_lock(&e->mutex);
	r = *find(e, session_given(call));
	if (r != NULL && r->watch != q->watch) {
		event_watch_drop(e, q->watch);
		q->watch = event_watch_share(r->watch);
	}
	pthread_mutex_unlock(&e->mutex);
	if (r == NULL)
		not_registered(call, err);
	return r != NULL;
}

void event_next_told(struct call *call, const struct event_answer *answer)
{
	struct pool_events *e = call->pool->events;
	struct event_registration **at;

	pthread_mutex_lock(&e->mutex);
	at = find(e, session_given(call));
	if (*at != NULL && answer->lost)
		forget(e, at); /* the client registers again, and reads everything anew */
	else if (*at != NULL && answer->to.index >= (*at)->from.index)
		(*at)->from = answer->to;
	pthread_mutex_unlock(&e->mutex);
}

int event_get_current_id(
	struct call *call, const struct event_get_current_id_args *args, struct err *err)
{
	(void)args;
	(void)err;
	call->result = val_int((int64_t)db_view_index(&call->view) + 1);
	return 0;
}
