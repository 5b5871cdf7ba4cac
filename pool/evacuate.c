/* Moving the VMs of a host away: where each would go, and what keeps it (pool.md sections 4, 6).
 *
 *   largest first -> hosts it may run on -> fewest members of its anti-affinity groups there, then
 *     most memory left after what the plan has put there already
 *
 * The plan promises nothing: each migration is placed and gets its memory by its own admission. No
 * host that is being emptied itself is in it: a migration there would wait for that to end, and so
 * may only wait for an evacuation that was admitted later, never in a circle.
 */
#include "pool/operation_priv.h"

#include <stdlib.h>
#include <string.h>

enum { HOSTS_MAX = 256 };

struct move {
	const struct db_row *vm, *to; /* NULL: it cannot go */
	int64_t bytes;		      /* it needs at least */
	struct val why;		      /* then: code and parameters */
};

struct room {
	const struct db_row *host;
	int64_t left;
};

static int larger(const void *pa, const void *pb)
{
	const struct move *a = pa, *b = pb;

	if (a->bytes != b->bytes)
		return a->bytes > b->bytes ? -1 : 1;
	return strcmp(db_row_ref(a->vm), db_row_ref(b->vm));
}

static struct move *residents(const struct admit *ad, const struct db_row *host, unsigned *n_out)
{
	struct db_cursor c = db_rows_related(
				 ad->view, MODEL_RELATION_VM_resident_on, db_row_ref(host)),
			 again = c;
	const struct db_row *vm;
	struct move *moves;
	unsigned n = 0, i = 0;

	while (db_next(&c) != NULL)
		n++;
	moves = arena_alloc(ad->arena, (n + 1) * sizeof *moves);
	while (i < n && (vm = db_next(&again)) != NULL)
		if (!db_row_b(vm, VM_is_control_domain))
			moves[i++] = (struct move){ .vm = vm, .bytes = memory_need(vm).least };
	qsort(moves, i, sizeof *moves, larger);
	*n_out = i;
	return moves;
}

static unsigned others(
	const struct admit *ad, const struct db_row *host, struct room rooms[HOSTS_MAX])
{
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_host);
	const struct db_row *other;
	unsigned n = 0;

	while ((other = db_next(&c)) != NULL && n < HOSTS_MAX)
		if (other != host && !place_emptied(ad, other))
			rooms[n++] = (struct room){ other, memory_free(ad->view, other) };
	return n;
}

static bool share_group(const struct admit *ad, const struct db_row *a, const struct db_row *b)
{
	struct val of_a = db_row_field(a, VM_groups, ad->arena),
		   of_b = db_row_field(b, VM_groups, ad->arena);

	for (uint32_t i = 0; i < of_a.n; i++)
		if (val_set_has(&of_b, of_a.items[i].s))
			return true;
	return false;
}

/* Members of its groups that would be there by then. */
static unsigned members(const struct admit *ad, const struct move *moves, const struct move *m,
	const struct db_row *host)
{
	unsigned n = place_group_members(ad, m->vm, db_row_ref(host));

	for (const struct move *other = moves; other < m; other++)
		n += other->to == host && share_group(ad, other->vm, m->vm);
	return n;
}

/* Code and parameters. */
static struct val error_list(struct arena *arena, const struct err *err)
{
	struct val list = val_set();

	val_set_push(arena, &list, val_string(err->code->name));
	for (unsigned i = 0; i < err->n; i++)
		val_set_push(arena, &list, val_string(arena_strdup(arena, err->params[i])));
	return list;
}

/* The reason that says most: not enough memory on the roomiest of those it may run on, else what is
 * missing there, else that there is no other host. */
static void no_place(const struct admit *ad, struct move *m, int64_t roomiest, struct err *why)
{
	const struct err_code *c = why->code;

	if (roomiest >= 0)
		err_set(why, ERR_HOST_NOT_ENOUGH_FREE_MEMORY,
			arena_printf(ad->arena, "%lld", (long long)m->bytes),
			arena_printf(ad->arena, "%lld", (long long)roomiest), NULL);
	else if (c == NULL || c == ERR_HOST_NOT_LIVE || c == ERR_HOST_DISABLED)
		err_set(why, ERR_NO_HOSTS_AVAILABLE, NULL);
	m->why = error_list(ad->arena, why);
}

static void choose(const struct admit *ad, const struct move *moves, struct move *m,
	struct room *rooms, unsigned n_rooms)
{
	struct room *best = NULL;
	unsigned best_members = 0;
	int64_t roomiest = -1;
	struct err why = { 0 }, one = { 0 };

	for (unsigned i = 0; i < n_rooms; i++) {
		struct room *r = &rooms[i];
		unsigned there;

		if (place_check(ad, m->vm, r->host, &one) != 0) {
			if (why.code == NULL || why.code == ERR_HOST_NOT_LIVE ||
				why.code == ERR_HOST_DISABLED)
				err_move(&why, &one);
			err_fini(&one);
			continue;
		}
		if (r->left < m->bytes) {
			if (r->left > roomiest)
				roomiest = r->left < 0 ? 0 : r->left;
			continue;
		}
		there = members(ad, moves, m, r->host);
		if (best == NULL || there < best_members ||
			(there == best_members && r->left > best->left)) {
			best = r;
			best_members = there;
		}
	}
	if (best == NULL) {
		no_place(ad, m, roomiest, &why);
	} else {
		m->to = best->host;
		if (best->left != INT64_MAX)
			best->left -= m->bytes;
	}
	err_fini(&why);
}

/* All VMs with a domain there, the largest first; in the arena. Pure: also on members that do not
 * lead, for advice. */
static struct move *plan_for(const struct admit *ad, const struct db_row *host, unsigned *n_out)
{
	struct room rooms[HOSTS_MAX];
	struct move *moves = residents(ad, host, n_out);
	unsigned n_rooms = others(ad, host, rooms);
	const char *waits_for;
	struct err err = { 0 };

	for (unsigned i = 0; i < *n_out; i++) {
		/* what only a lock keeps can go in a moment */
		if (rules_check(ad->view, moves[i].vm, "pool_migrate", ad->arena, &waits_for,
			    &err) != 0 &&
			waits_for == NULL)
			moves[i].why = error_list(ad->arena, &err);
		else
			choose(ad, moves, &moves[i], rooms, n_rooms);
		err_fini(&err);
	}
	return moves;
}

static int plan_of(
	struct call *call, const char *ref, struct move **out, unsigned *n, struct err *err)
{
	const struct db_row *host = db_view_get(&call->view, MODEL_CLASS_host, ref);
	struct admit ad = { .pool = call->pool, .view = &call->view, .arena = &call->arena };

	if (host == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", ref, NULL);
	*out = plan_for(&ad, host, n);
	return 0;
}

int host_get_vms_which_prevent_evacuation(struct call *call,
	const struct host_get_vms_which_prevent_evacuation_args *args, struct err *err)
{
	struct move *moves = NULL;
	unsigned n;

	if (plan_of(call, args->self, &moves, &n, err) != 0)
		return ERR_API;
	call->result = val_map();
	for (unsigned i = 0; i < n; i++)
		if (moves[i].to == NULL)
			val_map_push(
				&call->arena, &call->result, db_row_ref(moves[i].vm), moves[i].why);
	return 0;
}

int host_assert_can_evacuate(
	struct call *call, const struct host_assert_can_evacuate_args *args, struct err *err)
{
	struct move *moves = NULL;
	const char *text = "";
	unsigned n;

	if (plan_of(call, args->host, &moves, &n, err) != 0)
		return ERR_API;
	for (unsigned i = 0; i < n; i++) {
		if (moves[i].to != NULL)
			continue;
		text = arena_printf(&call->arena, "%s%s", text, *text ? "|" : "");
		for (uint32_t k = 0; k < moves[i].why.n; k++)
			text = arena_printf(&call->arena, "%s%s%s", text, k > 0 ? "," : "",
				moves[i].why.items[k].s);
	}
	return *text == 0 ? 0 : err_set(err, ERR_CANNOT_EVACUATE_HOST, text, NULL);
}

/* host.evacuate: an operation made of VM.pool_migrate (compound.c).
 *
 *   plan: each VM must have a place, or its error -> migrations, so many at a time, each to where
 *     the plan of that moment says -> what failed, for each VM
 *
 * The plan is made anew before each migration, on what the rows say then: VMs on their way have
 * their memory set aside where they go. A VM that has stopped meanwhile needs no move.
 */

struct attempt {
	const char *vm, *part;
	bool ended, failed;
};

struct evacuation {
	struct attempt tries[POOL_MOVES_MAX];
	unsigned n, running;
	unsigned all, left;	    /* VMs there: at most, and when last looked at */
	const char *failed, *stuck; /* "CODE,p,p|CODE,p": moves; and what has no place now */
};

/* Under way, failed, or come back too often. */
static bool tried(const struct evacuation *e, const char *vm)
{
	unsigned n = 0;

	for (unsigned i = 0; i < e->n; i++)
		if (strcmp(e->tries[i].vm, vm) == 0) {
			if (!e->tries[i].ended || e->tries[i].failed || ++n == POOL_MOVES_OF_ONE)
				return true;
		}
	return false;
}

/* why: code and parameters. */
static const char *with_reason(
	struct job *job, const char *text, const char *vm, const struct val *why)
{
	for (uint32_t i = 0; i < why->n; i++)
		text = arena_printf(&job->arena, "%s%s%s", text,
			i > 0	? ","
			: *text ? "|"
				: "",
			why->items[i].s);
	return val_set_has(why, vm) ? text : arena_printf(&job->arena, "%s,%s", text, vm);
}

static void note_end(
	struct job *job, struct evacuation *e, struct attempt *t, const struct err *err)
{
	struct val why;

	t->ended = true;
	if (err->code == NULL || err->code == ERR_VM_BAD_POWER_STATE)
		return; /* moved, or stopped meanwhile */
	why = error_list(&job->arena, err);
	t->failed = true;
	e->failed = with_reason(job, e->failed, t->vm, &why);
}

/* The plan of now; the view is pinned, and the caller's to unpin. */
static struct move *plan_now(struct job *job, struct owned *o, const char *host_ref,
	struct db_view *view, unsigned *n_out)
{
	struct admit ad = { .pool = o->pool, .view = view, .arena = &job->arena };
	const struct db_row *host;

	db_view_pin(o->pool->db, view);
	host = db_view_get(view, MODEL_CLASS_host, host_ref);
	*n_out = 0;
	return host != NULL ? plan_for(&ad, host, n_out) : NULL;
}

/* The next VM that may move, and where to, by the plan of now; false: none, and why the others that
 * were not tried stay. */
static bool next_move(struct job *job, struct owned *o, struct evacuation *e, const char *host_ref,
	const char **vm_out, const char **to_out)
{
	struct db_view view;
	struct move *moves = plan_now(job, o, host_ref, &view, &e->left);
	bool found = false;

	e->stuck = "";
	if (e->left > e->all)
		e->all = e->left;
	for (unsigned i = 0; i < e->left && !found; i++) {
		const char *vm = db_row_ref(moves[i].vm);

		if (tried(e, vm))
			continue;
		found = moves[i].to != NULL;
		if (found) {
			*vm_out = arena_strdup(&job->arena, vm);
			*to_out = arena_strdup(&job->arena, db_row_ref(moves[i].to));
		} else {
			e->stuck = with_reason(job, e->stuck, vm, &moves[i].why);
		}
	}
	db_view_unpin(&view);
	return found;
}

/* Each VM must have a place, or its error. */
static int check_plan(struct job *job, struct owned *o, const char *host_ref, struct err *err)
{
	const char *params[ERR_PARAMS_MAX];
	struct db_view view;
	unsigned n, k = 0, i = 0;
	struct move *moves = plan_now(job, o, host_ref, &view, &n);

	while (i < n && moves[i].to != NULL)
		i++;
	if (i < n) {
		for (uint32_t p = 1; p < moves[i].why.n && k < ERR_PARAMS_MAX; p++)
			params[k++] = moves[i].why.items[p].s;
		err_set_list(err, model_error_find(moves[i].why.items[0].s), params, k);
	}
	db_view_unpin(&view);
	return i < n ? ERR_API : 0;
}

static int begin_move(
	struct job *job, struct owned *o, struct evacuation *e, const char *vm, const char *to)
{
	struct attempt *t = &e->tries[e->n++];
	struct val args[3] = { val_string(vm), val_string(to), val_map() };
	struct err why = { 0 };
	int rc;

	val_map_push(&job->arena, &args[2], "live", val_string("true"));
	*t = (struct attempt){ .vm = vm };
	rc = part_begin(job, o, vm + strlen("OpaqueRef:"), "VM.pool_migrate", args, &t->part, &why);
	if (rc == ERR_API) {
		note_end(job, e, t, &why);
		rc = 0;
	} else {
		e->running++;
	}
	err_fini(&why);
	return rc;
}

static void collect_ends(struct job *job, struct owned *o, struct evacuation *e)
{
	struct err why = { 0 };

	for (unsigned i = 0; i < e->n; i++) {
		struct attempt *t = &e->tries[i];

		if (t->ended || !part_ended(job, o, t->part, &why))
			continue;
		e->running--;
		note_end(job, e, t, &why);
		err_fini(&why);
	}
}

/* The network is not looked at, but it has to be one. */
int host_evacuate_admit(struct admit *admit, const struct host_evacuate_args *args, struct err *err)
{
	return strcmp(args->network, NULL_REF) == 0 ||
			       db_view_get(admit->view, MODEL_CLASS_network, args->network) != NULL
		       ? 0
		       : err_set(err, ERR_HANDLE_INVALID, "network", args->network, NULL);
}

int host_evacuate_run(
	struct job *job, void *task, const struct host_evacuate_args *args, struct err *err)
{
	struct evacuation *e = arena_alloc(&job->arena, sizeof *e);
	unsigned most = args->evacuate_batch_size > 0 && args->evacuate_batch_size < POOL_MOVES_MAX
				? (unsigned)args->evacuate_batch_size
				: POOL_MOVES_RUNNING;
	const char *vm, *to;
	struct err stop = { 0 };
	int rc = check_plan(job, task, args->host, err);

	*e = (struct evacuation){ .failed = "", .stuck = "" };
	while (rc == 0) {
		collect_ends(job, task, e);
		part_progress(task, e->n - e->running, e->all > e->n ? e->all : e->n);
		while (rc == 0 && stop.code == NULL && e->running < most && e->n < POOL_MOVES_MAX &&
			next_move(job, task, e, args->host, &vm, &to))
			rc = begin_move(job, task, e, vm, to);
		if (rc != 0 || e->running == 0)
			break;
		rc = parts_wait(job, task, UINT64_MAX, err);
		if (rc == ERR_API) { /* stop: when those under way have ended */
			err_move(&stop, err);
			rc = 0;
		}
	}
	if (rc == 0 && stop.code != NULL) {
		err_move(err, &stop);
	} else if (rc == 0 && (*e->failed != 0 || *e->stuck != 0)) {
		const char *both = arena_printf(&job->arena, "%s%s%s", e->failed,
			*e->failed != 0 && *e->stuck != 0 ? "|" : "", e->stuck);

		err_set(err, ERR_CANNOT_EVACUATE_HOST, both, NULL);
	} else if (rc == 0 && e->left > 0) {
		err_set(err, ERR_INTERNAL_ERROR,
			"VMs come to the host while it is evacuated; disable it first", NULL);
	}
	err_fini(&stop);
	return rc != 0 ? rc : err->code != NULL ? ERR_API : 0;
}
