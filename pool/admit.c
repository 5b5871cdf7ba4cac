/* Operations: from the member that accepts the call to the coordinator, which admits them.
 *
 *   accept: request with a task uuid -> leader -> admit: rules, owner, locks -> one transaction ->
 * log
 *
 * The task row is the work item. Admission writes row, locks and owner in one entry; its
 * preconditions pin what the rules relied on (the VM's version), so two admissions can never both
 * hold a lock. A task that meets a lock is a row without owner; the sweep admits it when the lock
 * has gone, oldest first. The coordinator keeps nothing in memory about any of this: a new one goes
 * on with the rows. pool.md 5.2.
 */
#include "pool/request_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Who runs it. */

static bool live(struct pool *pool, const struct db_view *view, const struct db_row *host)
{
	uint64_t raft_id = pool_raft_id_of(view, db_row_ref(host));

	return raft_id != 0 && db_silence_ms(pool->db, raft_id) < POOL_PLACED_LOST_MS;
}

/* The live, enabled host with the fewest VMs; ties go by reference. */
static const struct db_row *place(struct pool *pool, const struct db_view *view)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_host);
	const struct db_row *host, *best = NULL;
	unsigned least = UINT32_MAX;

	while ((host = db_next(&c)) != NULL) {
		unsigned n = 0;
		struct db_cursor vms;
		const struct db_row *vm;

		if (!db_row_b(host, HOST_enabled) || !live(pool, view, host))
			continue;
		vms = db_rows_related(view, MODEL_RELATION_VM_resident_on, db_row_ref(host));
		while (db_next(&vms) != NULL)
			n++;
		/* starts under way count too, or a burst would land on one host */
		vms = db_rows(view, MODEL_CLASS_VM);
		while ((vm = db_next(&vms)) != NULL)
			n += strcmp(db_row_s(vm, VM_scheduled_to_be_resident_on),
				     db_row_ref(host)) == 0;
		if (n < least) {
			least = n;
			best = host;
		}
	}
	return best;
}

static int choose_owner(struct admit *ad, struct err *err)
{
	const char *resident;

	if (ad->method->route == MODEL_PLACED) {
		ad->owner = place(ad->pool, ad->view);
		return ad->owner != NULL ? 0 : err_set(err, ERR_NO_HOSTS_AVAILABLE, NULL);
	}
	resident = db_row_s(ad->vm, VM_resident_on);
	ad->owner = db_view_get(ad->view, MODEL_CLASS_host, resident);
	return ad->owner != NULL ? 0 : err_set(err, ERR_HOST_OFFLINE, resident, NULL);
}

/* What the operation may do, and may have to wait for. */

static const char *main_lock(const struct model_message *m)
{
	CHECK(m->n_locks > 0 && m->locks[0].param == m->route_param);
	return m->locks[0].op;
}

static bool cancel_asked(const struct db_row *task, struct arena *a)
{
	struct val ops = db_row_field(task, TASK_current_operations, a);

	for (uint32_t i = 0; i < ops.n; i++)
		if (strcmp(ops.pairs[i].value.s, "cancel") == 0)
			return true;
	return false;
}

/* Ask the operations to stop that this one replaces; ERR_API when there were any: it has to wait
 * for their end. */
static int cancel_others(struct admit *ad, struct err *err)
{
	struct val current = db_row_field(ad->vm, VM_current_operations, ad->arena);
	int rc = 0;

	for (uint32_t i = 0; i < current.n; i++)
		for (unsigned k = 0; k < MODEL_CANCELS_MAX && ad->method->cancels[k] != NULL; k++) {
			const char *task = current.pairs[i].key,
				   *running = current.pairs[i].value.s;
			const struct db_row *row = db_view_get(ad->view, MODEL_CLASS_task, task);

			if (strcmp(running, ad->method->cancels[k]) != 0)
				continue;
			if (row != NULL && !cancel_asked(row, ad->arena))
				db_txn_map_add(ad->txn, MODEL_CLASS_task, task,
					TASK_current_operations, db_row_ref(ad->vm),
					val_string("cancel"));
			rc = err_set(err, ERR_OTHER_OPERATION_IN_PROGRESS, "VM", db_row_ref(ad->vm),
				running, task, NULL);
		}
	return rc;
}

static void take_locks(struct admit *ad, const char *task, struct val *locks)
{
	for (unsigned i = 0; i < ad->method->n_locks; i++) {
		const struct model_lock *l = &ad->method->locks[i];
		bool on_owner = l->param < 0;
		int class_id = on_owner ? MODEL_CLASS_host : MODEL_CLASS_VM;
		const char *ref = db_row_ref(on_owner ? ad->owner : ad->vm);

		db_txn_map_add(ad->txn, class_id, ref, model_classes[class_id].operations_field,
			task, val_string(l->op));
		val_set_push(ad->arena, locks,
			val_string(arena_printf(
				ad->arena, "%s/%s/%s", model_classes[class_id].name, ref, l->op)));
	}
	if (ad->method->route == MODEL_PLACED)
		db_txn_set(ad->txn, MODEL_CLASS_VM, db_row_ref(ad->vm),
			VM_scheduled_to_be_resident_on, val_string(db_row_ref(ad->owner)));
}

enum verdict { ADMITTED, MUST_WAIT, REFUSED };

/* Evaluate a request on the view. ADMITTED: locks and preconditions are in the transaction, owner
 * is chosen. */
static enum verdict evaluate(struct admit *ad, const char *task, struct val *locks, struct err *err)
{
	const struct model_param *param = &ad->method->params[ad->method->route_param];
	const char *ref = ad->args[ad->method->route_param].s;
	struct model_functions fn = model_functions(ad->method);
	bool waits;

	ad->vm = db_view_get(ad->view, param->type->class_id, ref);
	if (ad->vm == NULL) {
		err_set(err, ERR_HANDLE_INVALID, model_classes[param->type->class_id].name, ref,
			NULL);
		return REFUSED;
	}
	if (rules_vm(ad->view, ad->vm, main_lock(ad->method), &waits, err) != 0)
		return waits ? MUST_WAIT : REFUSED;
	if (cancel_others(ad, err) != 0)
		return MUST_WAIT;
	if (choose_owner(ad, err) != 0)
		return REFUSED;
	if (fn.admit != NULL && fn.admit(ad, pool_args(ad->arena, ad->method, ad->args), err) != 0)
		return REFUSED;
	db_txn_need_version(ad->txn, MODEL_CLASS_VM, ref, db_row_modified(ad->vm));
	take_locks(ad, task, locks);
	return ADMITTED;
}

static void task_fields(
	struct admit *ad, const struct request *r, struct val *f, const struct val *locks)
{
	struct val caller = val_map();
	const char *arguments;
	const struct db_row *session = db_view_get(ad->view, MODEL_CLASS_session, r->session);

	request_arguments(ad->arena, r, &arguments);
	val_map_push(ad->arena, &caller, "user", val_string(r->user));
	val_map_push(ad->arena, &caller, "session", val_string(r->session));
	val_map_push(ad->arena, &caller, "originator", val_string(r->originator));
	f[TASK_uuid] = val_string(r->task_uuid);
	f[TASK_name_label] = val_string(
		arena_printf(ad->arena, "%s%s", r->keep ? "Async." : "", r->method->name));
	f[TASK_created] = val_datetime(env_wall_s(ad->pool->env));
	f[TASK_status] = val_string("pending");
	f[TASK_type] = val_string("<none/>");
	f[TASK_session] = val_string(session != NULL ? r->session : NULL_REF);
	f[TASK_method] = val_string(r->method->name);
	f[TASK_arguments] = val_string(arguments);
	f[TASK_subject_ref] = val_string(db_row_ref(ad->vm));
	f[TASK_caller] = caller;
	f[TASK_keep] = val_bool(r->keep);
	if (ad->owner != NULL) {
		f[TASK_owner] = f[TASK_resident_on] = val_string(db_row_ref(ad->owner));
		f[TASK_locks] = *locks;
	}
}

/* Tasks without owner, in order of creation; at most max. */
static unsigned waiting_tasks(const struct db_view *view, const struct db_row **out, unsigned max)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_task);
	const struct db_row *row;
	unsigned n = 0;

	while ((row = db_next(&c)) != NULL && n < max) {
		unsigned k = n;

		if (strcmp(db_row_s(row, TASK_status), "pending") != 0 ||
			strcmp(db_row_s(row, TASK_owner), NULL_REF) != 0 ||
			*db_row_s(row, TASK_method) == 0)
			continue;
		for (; k > 0 && db_row_created(out[k - 1]) > db_row_created(row); k--)
			out[k] = out[k - 1];
		out[k] = row;
		n++;
	}
	return n;
}

/* A request has reached the coordinator. */

struct arrival {
	struct loop_call call;
	struct pool *pool;
	struct db_proposal_id id;
	size_t n;
	uint8_t bytes[];
};

static void admit_one(struct pool *pool, const struct db_proposal_id *id, const struct request *r,
	struct arena *a)
{
	struct val fields[TASK_FIELD_COUNT] = { { .kind = VAL_VOID } }, locks = val_set();
	const struct db_row *waiting[POOL_WAITING_MAX];
	struct db_view view;
	struct db_txn txn;
	struct err err = { 0 };
	char task[DB_REF_MAX + 1];
	struct admit ad = { .pool = pool,
		.view = &view,
		.arena = a,
		.method = r->method,
		.args = r->args,
		.txn = &txn };
	enum verdict verdict;

	snprintf(task, sizeof task, "OpaqueRef:%s", r->task_uuid);
	db_txn_init(&txn, DB_FOR_ADMIT);
	db_txn_origin(&txn, (struct db_origin){ r->user, task, r->method->name });
	db_txn_need_no_row(&txn, MODEL_CLASS_task, task);
	db_view_pin(pool->db, &view);
	if (db_view_get(&view, MODEL_CLASS_task, task) != NULL) {
		/* asked again for what has been admitted: the entry is the answer */
		db_view_unpin(&view);
		db_txn_fini(&txn);
		return;
	}
	verdict = evaluate(&ad, task, &locks, &err);
	if (verdict == MUST_WAIT &&
		waiting_tasks(&view, waiting, POOL_WAITING_MAX) == POOL_WAITING_MAX) {
		err_set(&err, ERR_TOO_MANY_PENDING_TASKS, NULL);
		verdict = REFUSED;
	}
	if (verdict == REFUSED) {
		db_refuse(pool->db, id, &err);
	} else {
		if (verdict == MUST_WAIT)
			ad.owner = NULL;
		task_fields(&ad, r, fields, &locks);
		db_txn_create(&txn, MODEL_CLASS_task, task, fields);
		txn.schema = db_view_schema(&view);
		db_admit(pool->db, id, &txn);
	}
	db_view_unpin(&view);
	err_fini(&err);
	db_txn_fini(&txn);
}

static void on_arrival(struct loop_call *call)
{
	struct arrival *ar = container_of(call, struct arrival, call);
	struct request r;
	struct arena a;

	arena_init(&a);
	if (request_decode(&a, ar->bytes, ar->n, &r))
		admit_one(ar->pool, &ar->id, &r, &a);
	else
		log_warn(ar->pool->env,
			"event=request_refused member=%llu why=\"it does not parse: another "
			"version?\"",
			(unsigned long long)ar->id.raft_id);
	arena_fini(&a);
	free(ar);
}

void admit_request(void *arg, const struct db_proposal_id *id, const uint8_t *bytes, size_t n)
{
	struct pool *pool = arg;
	struct arrival *ar = mem_new(sizeof *ar + n);

	ar->pool = pool;
	ar->id = *id;
	ar->n = n;
	memcpy(ar->bytes, bytes, n);
	loop_post(pool->loops[0].loop, &ar->call, on_arrival);
}

/* The sweep: what the coordinator does about rows, once a second and when something has ended. One
 * transaction at a time; whatever it decides rests on preconditions, so a sweep by a deposed
 * coordinator does no harm. */

static void finish_task(struct db_txn *txn, struct arena *a, const struct db_row *task, int64_t now,
	const struct err *err)
{
	const char *ref = db_row_ref(task);
	struct val info = val_set();

	val_set_push(a, &info, val_string(err->code->name));
	for (unsigned i = 0; i < err->n; i++)
		val_set_push(a, &info, val_string(arena_strdup(a, err->params[i])));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_status,
		val_string(err->code == ERR_TASK_CANCELLED ? "cancelled" : "failure"));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_error_info, info);
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_finished, val_datetime(now));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_progress, val_float(1));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_current_operations, val_map());
}

void locks_release(struct db_txn *txn, struct arena *a, const struct db_row *task)
{
	struct val locks = db_row_field(task, TASK_locks, a);

	for (uint32_t i = 0; i < locks.n; i++) {
		char *class = arena_strdup(a, locks.items[i].s), *ref = strchr(class, '/'), *op;
		int class_id;

		if (ref == NULL)
			continue;
		*ref++ = 0;
		op = strchr(ref, '/');
		if (op != NULL)
			*op = 0;
		class_id = model_class_find(class, false);
		if (class_id == MODEL_CLASS_VM && op != NULL && strcmp(op + 1, "start") == 0)
			db_txn_set(txn, MODEL_CLASS_VM, ref, VM_scheduled_to_be_resident_on,
				val_string(NULL_REF));
		if (class_id >= 0 && model_classes[class_id].operations_field >= 0)
			db_txn_map_remove(txn, class_id, ref,
				model_classes[class_id].operations_field, db_row_ref(task));
	}
	db_txn_set(txn, MODEL_CLASS_task, db_row_ref(task), TASK_locks, val_set());
}

static void need_untouched(struct db_txn *txn, const struct db_row *task)
{
	db_txn_origin(txn, (struct db_origin){ POOL_COORDINATOR, db_row_ref(task),
				   db_row_s(task, TASK_method) });
	db_txn_need_version(txn, MODEL_CLASS_task, db_row_ref(task), db_row_modified(task));
}

/* A waiting task: end it, or admit it. false: nothing to do yet. */
static bool sweep_waiting(struct pool *pool, const struct db_view *view, const struct db_row *task,
	struct db_txn *txn, struct arena *a)
{
	struct admit ad = { .pool = pool, .view = view, .arena = a, .txn = txn };
	struct val locks = val_set();
	struct err err = { 0 };
	struct request r;
	int64_t now = env_wall_s(pool->env);
	const char *ref = db_row_ref(task);
	enum verdict verdict = REFUSED;

	need_untouched(txn, task);
	if (cancel_asked(task, a)) {
		err_set(&err, ERR_TASK_CANCELLED, ref, NULL);
	} else if (!request_of_task(a, task, &r)) {
		err_set(&err, ERR_INTERNAL_ERROR, "the request cannot be read", NULL);
	} else {
		ad.method = r.method;
		ad.args = r.args;
		verdict = evaluate(&ad, ref, &locks, &err);
	}
	if (verdict == MUST_WAIT && now < db_row_i(task, TASK_created) + POOL_WAIT_S) {
		err_fini(&err);
		return txn->n_ops > 0; /* it has asked others to stop: that is a step too */
	}
	if (verdict == ADMITTED) {
		db_txn_origin(txn, task_origin(task, a));
		db_txn_set(
			txn, MODEL_CLASS_task, ref, TASK_owner, val_string(db_row_ref(ad.owner)));
		db_txn_set(txn, MODEL_CLASS_task, ref, TASK_resident_on,
			val_string(db_row_ref(ad.owner)));
		db_txn_set(txn, MODEL_CLASS_task, ref, TASK_locks, locks);
	} else {
		finish_task(txn, a, task, now, &err);
	}
	err_fini(&err);
	return true;
}

/* A task whose owner is out of contact. */
static bool sweep_lost(struct pool *pool, const struct db_view *view, const struct db_row *task,
	struct db_txn *txn, struct arena *a)
{
	const char *owner = db_row_s(task, TASK_owner);
	uint64_t silence = db_silence_ms(pool->db, pool_raft_id_of(view, owner));
	const struct model_message *m = model_message_find(db_row_s(task, TASK_method));
	bool started = db_row_b(task, TASK_started);
	struct err err = { 0 };

	if (!started && m != NULL && m->route == MODEL_PLACED && silence >= POOL_PLACED_LOST_MS) {
		/* nobody runs it: give it back to those that wait, and place it again */
		need_untouched(txn, task);
		locks_release(txn, a, task);
		db_txn_set(
			txn, MODEL_CLASS_task, db_row_ref(task), TASK_owner, val_string(NULL_REF));
		return true;
	}
	if (silence < POOL_LOST_MS)
		return false;
	need_untouched(txn, task);
	err_set(&err, ERR_HOST_OFFLINE, owner, NULL);
	finish_task(txn, a, task, env_wall_s(pool->env), &err);
	err_fini(&err);
	if (!started)
		locks_release(txn, a, task);
	/* started: the outcome is unknown and the locks stay until the owner reports what really is
	 */
	return true;
}

/* A task nobody has started and somebody wants to stop never runs. */
static bool sweep_cancelled(
	const struct db_row *task, struct db_txn *txn, struct arena *a, int64_t now)
{
	struct err err = { 0 };

	if (db_row_b(task, TASK_started) || !cancel_asked(task, a))
		return false;
	need_untouched(txn, task);
	err_set(&err, ERR_TASK_CANCELLED, db_row_ref(task), NULL);
	finish_task(txn, a, task, now, &err);
	locks_release(txn, a, task);
	err_fini(&err);
	return true;
}

/* Rows of plain calls go when everybody has had POOL_TASK_SYNC_S to see their end, counted by our
 * own clock from when we had applied it: other hosts' clocks prove nothing. */
static bool sweep_ended(struct pool *pool, const struct db_row *task, struct db_txn *txn,
	struct arena *a, int64_t now)
{
	struct val locks = db_row_field(task, TASK_locks, a);
	bool old = db_row_b(task, TASK_keep)
			   ? now - db_row_i(task, TASK_finished) >= POOL_TASK_KEEP_S
			   : db_row_modified(task) <= pool->marks[0];

	if (locks.n > 0 || !old)
		return false;
	db_txn_delete(txn, MODEL_CLASS_task, db_row_ref(task));
	return true;
}

/* Once a second: marks[0] is the index we were at POOL_TASK_SYNC_S ago. */
static void mark(struct pool *pool, const struct db_view *view)
{
	uint64_t now = env_now_ms(pool->env);

	if (now < pool->marked_ms + POOL_SWEEP_MS)
		return;
	/* not led for a while: begin anew */
	if (now > pool->marked_ms + 5 * POOL_SWEEP_MS)
		memset(pool->marks, 0, sizeof pool->marks);
	pool->marked_ms = now;
	memmove(pool->marks, pool->marks + 1, sizeof pool->marks - sizeof pool->marks[0]);
	pool->marks[POOL_TASK_SYNC_S - 1] = db_view_index(view);
}

static void on_sweep(struct loop_timer *t);

static void on_swept(struct db_proposal *p)
{
	struct pool *pool = container_of(p, struct pool, sweep_proposal);
	bool done = p->result.status == DB_DONE;

	loop_assert(pool->loops[0].loop);
	db_proposal_fini(p);
	pool->sweeping = false;
	if (done) /* there may be more */
		loop_timer_start(pool->loops[0].loop, &pool->sweep, 0, on_sweep);
}

/* host_metrics.live: written when it changes, by who hears of all. */
static bool sweep_live(struct pool *pool, const struct db_view *view, struct db_txn *txn)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_host);
	const struct db_row *host, *metrics;

	while ((host = db_next(&c)) != NULL) {
		uint64_t raft_id = pool_raft_id_of(view, db_row_ref(host));
		bool live = raft_id != 0 && db_silence_ms(pool->db, raft_id) < POOL_LOST_MS;

		metrics = db_view_get(view, MODEL_CLASS_host_metrics, db_row_s(host, HOST_metrics));
		if (metrics == NULL || db_row_b(metrics, HOST_METRICS_live) == live)
			continue;
		db_txn_need_row(txn, MODEL_CLASS_host_metrics, db_row_ref(metrics));
		db_txn_set(txn, MODEL_CLASS_host_metrics, db_row_ref(metrics), HOST_METRICS_live,
			val_bool(live));
	}
	return txn->n_ops > 0;
}

/* One decision per transaction, but for the removals, which go together. */
static bool decide(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_task);
	const struct db_row *task, *waiting[POOL_WAITING_MAX];
	unsigned n, removed = 0;
	int64_t now = env_wall_s(pool->env);

	if (schema_decide(view, txn))
		return true;
	while ((task = db_next(&c)) != NULL) {
		bool pending = strcmp(db_row_s(task, TASK_status), "pending") == 0;

		if (pending && strcmp(db_row_s(task, TASK_owner), NULL_REF) != 0 &&
			(sweep_cancelled(task, txn, a, now) ||
				sweep_lost(pool, view, task, txn, a)))
			return true;
	}
	n = waiting_tasks(view, waiting, POOL_WAITING_MAX);
	for (unsigned i = 0; i < n; i++) {
		if (sweep_waiting(pool, view, waiting[i], txn, a))
			return true;
		db_txn_fini(txn);
		db_txn_init(txn, DB_FOR_ADMIT);
	}
	txn->reason = DB_FOR_SWEEP;
	db_txn_origin(txn, (struct db_origin){ .user = POOL_COORDINATOR, .method = "sweep" });
	if (sweep_live(pool, view, txn))
		return true;
	c = db_rows(view, MODEL_CLASS_task);
	while ((task = db_next(&c)) != NULL && removed < 200)
		if (strcmp(db_row_s(task, TASK_status), "pending") != 0)
			removed += sweep_ended(pool, task, txn, a, now);
	removed += sessions_sweep(pool, view, txn, a);
	return removed > 0;
}

static void on_sweep(struct loop_timer *t)
{
	struct pool *pool = container_of(t, struct pool, sweep);
	struct db_view view;
	struct db_txn txn;
	struct arena a;

	loop_assert(pool->loops[0].loop);
	loop_timer_start(pool->loops[0].loop, t, POOL_SWEEP_MS, on_sweep);
	if (pool->sweeping || !db_is_coordinator(pool->db))
		return;
	arena_init(&a);
	db_txn_init(&txn, DB_FOR_ADMIT);
	db_view_pin(pool->db, &view);
	mark(pool, &view);
	if (decide(pool, &view, &txn, &a)) {
		txn.schema = db_view_schema(&view);
		pool->sweeping = true;
		db_propose(pool->db, &pool->sweep_proposal, &txn, pool->loops[0].loop, on_swept);
	}
	db_view_unpin(&view);
	db_txn_fini(&txn);
	arena_fini(&a);
}

void admit_sweep_now(struct pool *pool)
{
	if (!pool->sweeping && db_is_coordinator(pool->db))
		loop_timer_start(pool->loops[0].loop, &pool->sweep, 0, on_sweep);
}

void admit_start(struct pool *pool)
{
	loop_timer_start(pool->loops[0].loop, &pool->sweep, POOL_SWEEP_MS, on_sweep);
}

/* The accepting side. */

static void on_decided(struct db_proposal *p);

static void ask(struct call *call)
{
	char uuid[UUID_LEN + 1];
	struct request r = { .method = call->method,
		.args = call->args,
		.user = call->caller.user,
		.session = call->caller.session,
		.originator = call->caller.originator,
		.task_uuid = uuid,
		.keep = call->async };
	struct buf bytes = { 0 };

	pool_ref(call->pool, uuid, call->task);
	request_encode(&bytes, &r);
	db_request(call->pool->db, &call->proposal, &bytes, call->io->loop, on_decided);
}

static void on_decided(struct db_proposal *p)
{
	struct call *call = container_of(p, struct call, proposal);
	struct db_result *res = &p->result;

	if (res->status == DB_FAILED && ++call->retries <= POOL_RETRIES) {
		db_proposal_fini(
			p); /* something changed between the rules and the log: evaluate again */
		ask(call);
		return;
	}
	if (res->status == DB_DONE && !call->async) {
		call_await_task(call);
		return;
	}
	if (res->status == DB_DONE)
		call->result = val_string(call->task);
	else if (res->status == DB_REFUSED)
		err_move(&call->err, &res->err);
	else if (res->status == DB_FAILED)
		err_set(&call->err, ERR_INTERNAL_ERROR, "the object kept changing", NULL);
	else
		pool_unknown(call->pool, res->leader, &call->err);
	call_finish(call);
}

int operation_call(struct call *call, struct err *err)
{
	const char *ref = call->args[call->method->route_param].s;
	const struct model_type *type = call->method->params[call->method->route_param].type;

	if (model_functions(call->method).run == NULL)
		return err_set(err, ERR_NOT_IMPLEMENTED, call->method->name, NULL);
	if (db_view_get(&call->view, type->class_id, ref) == NULL)
		return err_set(
			err, ERR_HANDLE_INVALID, model_classes[type->class_id].name, ref, NULL);
	ask(call);
	return CALL_PENDING;
}
