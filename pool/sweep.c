/* The sweep: what the coordinator does about rows, once a second and when something has ended. One
 * transaction at a time; whatever it decides rests on preconditions, so a sweep by a deposed
 * coordinator does no harm.
 *
 *   task      pending, no owner: ended by cancel or after 2 h, else judged again, oldest first
 *             pending, owner, not started: ended by cancel; another owner when it was placed
 *             pending, owner lost, made of others: ours
 *             pending, owner lost for 60 s: HOST_OFFLINE; locks of a started one stay
 *             pending, a client's: removed when nobody has gone on with it for 24 h
 *             ended: removed when it has been seen (plain calls), or after 65 min; before that,
 *             oldest first, when there are more than 200 tasks
 *   host      host_metrics.live follows the contact
 *   pool      cpu_info is the level of its hosts
 *   session   idle ones, and those above the limit
 *   message   one that the database gets too large, one that the state of a member differed, until
 *             somebody destroys it
 */
#include "pool/operation_priv.h"

#include <string.h>

enum { SOON_MS = 10 /* a sweep looks at all tasks: one for those that end together */ };

static void need_untouched(struct db_txn *txn, const struct db_row *task)
{
	db_txn_origin(txn, (struct db_origin){ POOL_COORDINATOR, db_row_ref(task),
				   db_row_s(task, TASK_method) });
	db_txn_need_version(txn, MODEL_CLASS_task, db_row_ref(task), db_row_modified(task));
}

static void waits_no_more(struct db_txn *txn, const struct db_row *task, struct arena *a)
{
	struct val other = db_row_field(task, TASK_other_config, a);

	if (val_get(&other, "waiting_for") != NULL)
		db_txn_map_remove(
			txn, MODEL_CLASS_task, db_row_ref(task), TASK_other_config, "waiting_for");
}

/* Admitted at last, by the fields of its row. */
static void admit_waiting(struct admit *ad, const struct db_row *task, struct val locks)
{
	db_txn_origin(ad->txn, task_origin(task, ad->arena));
	db_txn_set(
		ad->txn, MODEL_CLASS_task, ad->task, TASK_owner, val_string(db_row_ref(ad->owner)));
	/* what it waited for may have made or unmade the VM it is about */
	db_txn_set(ad->txn, MODEL_CLASS_task, ad->task, TASK_subject_ref,
		val_string(ad->vm != NULL ? db_row_ref(ad->vm) : NULL_REF));
	db_txn_set(ad->txn, MODEL_CLASS_task, ad->task, TASK_resident_on,
		val_string(db_row_ref(ad->owner)));
	db_txn_set(ad->txn, MODEL_CLASS_task, ad->task, TASK_locks, locks);
}

/* A waiting task: end it, or admit it. false: nothing to do yet, and that is what it waits for; it
 * is in the line now. */
static bool sweep_waiting(struct pool *pool, const struct db_view *view, const struct db_row *task,
	struct db_txn *txn, struct arena *a, const struct ahead **line, const char **waits_for)
{
	struct admit ad = {
		.pool = pool, .view = view, .arena = a, .txn = txn, .task = db_row_ref(task)
	};
	struct val locks = val_set();
	struct err err = { 0 };
	struct request r;
	enum verdict verdict = REFUSED;

	need_untouched(txn, task);
	if (task_cancel_asked(task, a)) {
		err_set(&err, ERR_TASK_CANCELLED, ad.task, NULL);
	} else if (!request_of_task(a, task, &r)) {
		err_set(&err, ERR_INTERNAL_ERROR, "the request cannot be read", NULL);
	} else {
		ad.method = r.method;
		ad.args = r.args;
		ad.ahead = line_before(&r, *line);
		verdict = admit_evaluate(&ad, &locks, &err);
	}
	if (verdict == MUST_WAIT && db_row_created(task) > marks_minutes_ago(pool, POOL_WAIT_MIN)) {
		err_fini(&err);
		*waits_for = ad.waits_for;
		line_join(&ad, line);
		return txn->n_ops > 0; /* it has asked others to stop: that is a step too */
	}
	waits_no_more(txn, task, a);
	if (verdict == ADMITTED)
		admit_waiting(&ad, task, locks);
	else
		task_set_ended(txn, a, ad.task, env_wall_s(pool->env), &err);
	err_fini(&err);
	return true;
}

/* The lock has gone to another one that waited: they wait for that now. All in one. */
static bool sweep_waits_for(const struct db_row *const *waiting, const char *const *waits_for,
	unsigned n, struct db_txn *txn, struct arena *a)
{
	for (unsigned i = 0; i < n; i++) {
		struct val other = db_row_field(waiting[i], TASK_other_config, a);
		const char *said = val_get_s(&other, "waiting_for");

		if (said != NULL && strcmp(said, waits_for[i]) == 0)
			continue;
		db_txn_need_version(
			txn, MODEL_CLASS_task, db_row_ref(waiting[i]), db_row_modified(waiting[i]));
		db_txn_map_add(txn, MODEL_CLASS_task, db_row_ref(waiting[i]), TASK_other_config,
			"waiting_for", val_string(waits_for[i]));
	}
	return txn->n_ops > 0;
}

static void own(struct pool *pool, const struct db_view *view, const struct db_row *task,
	struct db_txn *txn)
{
	const char *ref = db_row_ref(task), *self = db_row_ref(pool_self(pool, view));

	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_owner, val_string(self));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_resident_on, val_string(self));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_started, val_bool(false));
	db_txn_set(txn, MODEL_CLASS_task, ref, TASK_incarnation, val_string(""));
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
		memory_give_back(txn, view, task);
		db_txn_set(
			txn, MODEL_CLASS_task, db_row_ref(task), TASK_owner, val_string(NULL_REF));
		return true;
	}
	if (m != NULL && m->route == MODEL_COMPOUND && silence >= POOL_PLACED_LOST_MS) {
		/* its parts go on by themselves: we go on with it (compound.c) */
		need_untouched(txn, task);
		own(pool, view, task, txn);
		return true;
	}
	if (silence < POOL_LOST_MS)
		return false;
	need_untouched(txn, task);
	err_set(&err, ERR_HOST_OFFLINE, owner, NULL);
	task_set_ended(txn, a, db_row_ref(task), env_wall_s(pool->env), &err);
	err_fini(&err);
	if (!started) {
		locks_release(txn, a, task);
		memory_give_back(txn, view, task);
	}
	/* started: the outcome is unknown and the locks stay until the owner reports what really is
	 */
	return true;
}

/* A task nobody has started and somebody wants to stop never runs. */
static bool sweep_cancelled(const struct db_view *view, const struct db_row *task,
	struct db_txn *txn, struct arena *a, int64_t now)
{
	struct err err = { 0 };

	if (db_row_b(task, TASK_started) || !task_cancel_asked(task, a))
		return false;
	need_untouched(txn, task);
	err_set(&err, ERR_TASK_CANCELLED, db_row_ref(task), NULL);
	task_set_ended(txn, a, db_row_ref(task), now, &err);
	locks_release(txn, a, task);
	memory_give_back(txn, view, task);
	err_fini(&err);
	return true;
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

/* The snapshots that this member takes tell. */
static bool sweep_large(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a)
{
	uint64_t seen = counter_get(&pool->env->counters, COUNTER_snapshots_large);
	uint64_t bytes = counter_get(&pool->env->counters, COUNTER_snapshot_bytes_max);

	if (seen == pool->large_seen)
		return false;
	pool->large_seen = seen;
	return message_of_pool(pool, view, txn, "DATABASE_NEARLY_FULL", 2,
		arena_printf(a,
			"A snapshot of the database has %llu bytes; %llu is what members take.",
			(unsigned long long)bytes, (unsigned long long)CONSENSUS_SNAPSHOT_MAX));
}

/* This member has heard of other hashes than its own (db/agree.c). Whoever leads next may tell it
 * once more. */
static bool sweep_differ(struct pool *pool, const struct db_view *view, struct db_txn *txn)
{
	uint64_t seen = counter_get(&pool->env->counters, COUNTER_hashes_differ);

	if (seen == pool->differ_seen)
		return false;
	pool->differ_seen = seen;
	return message_of_pool(pool, view, txn, "MEMBER_STATE_DIFFERS", 1,
		"The members compare what they have made of the log, and one was not like the "
		"others. One that most contradict ends itself, sets its log aside and fetches "
		"everything anew; when there is no majority nobody does. Its memory or its disk is "
		"to be suspected: see event=states_differ and event=log_set_aside in the logs of "
		"all members.");
}

/* One decision per transaction, but for the removals, which go together. */
static bool decide(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_task);
	const struct db_row *task, *waiting[POOL_WAITING_MAX];
	const char *waits_for[POOL_WAITING_MAX];
	const struct ahead *line = NULL;
	unsigned n, removed;
	uint64_t seen = 0; /* of what waits the sweep looks at all, whatever was seen before */
	int64_t now = env_wall_s(pool->env);

	if (schema_decide(view, txn))
		return true;
	while ((task = db_next(&c)) != NULL) {
		if (task_pending(task) && strcmp(db_row_s(task, TASK_owner), NULL_REF) != 0 &&
			(sweep_cancelled(view, task, txn, a, now) ||
				sweep_lost(pool, view, task, txn, a)))
			return true;
	}
	n = line_waiting(view, &seen, waiting);
	for (unsigned i = 0; i < n; i++) {
		if (sweep_waiting(pool, view, waiting[i], txn, a, &line, &waits_for[i]))
			return true;
		db_txn_fini(txn);
		db_txn_init(txn, DB_FOR_ADMIT);
	}
	txn->reason = DB_FOR_SWEEP;
	db_txn_origin(txn, (struct db_origin){ .user = POOL_COORDINATOR, .method = "sweep" });
	if (sweep_waits_for(waiting, waits_for, n, txn, a) || sweep_live(pool, view, txn) ||
		schema_publish(view, txn, a) || sr_sweep(view, txn) ||
		cpu_level_decide(pool, view, txn, a) || sweep_large(pool, view, txn, a) ||
		sweep_differ(pool, view, txn))
		return true;
	removed = sweep_tasks(pool, view, txn, a);
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
	db_view_pin(pool->db, &view);
	arena_init(&a);
	marks_set(pool, &view, &a);
	if (pool->sweeping || !db_is_coordinator(pool->db)) {
		db_view_unpin(&view);
		arena_fini(&a);
		return;
	}
	db_txn_init(&txn, DB_FOR_ADMIT);
	revalidate_look(pool, &view, &a);
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
	uint64_t due_us = env_now_us(pool->env) + SOON_MS * 1000;

	if (pool->sweeping || !db_is_coordinator(pool->db))
		return;
	if (pool->sweep.pos == 0 || pool->sweep.due_us > due_us)
		loop_timer_start(pool->loops[0].loop, &pool->sweep, SOON_MS, on_sweep);
}

void admit_start(struct pool *pool)
{
	loop_timer_start(pool->loops[0].loop, &pool->sweep, POOL_SWEEP_MS, on_sweep);
}
