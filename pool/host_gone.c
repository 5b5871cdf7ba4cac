/* Hosts that leave: ejected, destroyed after their machine was lost, or said to be dead.
 *
 *   pool.eject      a living host, empty of VMs, not the coordinator
 *   host.destroy    one that is not live any more, without VMs
 *     both: its row of _member says `leaving`, by an entry of eject's task when the host has
 * detached its SRs, by the admission of destroy; db/members.c does the rest under any leader, and
 * removes the host's record with the row. The task only waits for that.
 *   host.declare_dead   one that is not live: its VMs count as halted, its tasks end and its boot
 *     counts as over, in the one transaction of the admission; then what it has left in shared SRs
 *     goes, by a part for each (SR.clear_left) that runs where somebody sees it, and at last what
 *     its tasks had locked is free. Declared again it goes on with that.
 *
 * "Not live" is the word of the coordinator: out of contact for POOL_LOST_MS. Whether the machine
 * is off is for who calls to know (pool.md section 4).
 */
#include "pool/operation_priv.h"

#include <string.h>

enum {
	LOOK_MS = 100,
	LEAVE_MS = 60000,
	CLEARED_AT_ONCE = 10,
	FORGET_MAX =
		DB_ENTRY_MAX / 4, /* of the entry of a host that leaves: SRs behind that stay */
};

static bool in_contact(const struct pool *pool, const struct db_view *view, const char *host)
{
	uint64_t id = pool_raft_id_of(view, host);

	return id != 0 && db_silence_ms(pool->db, id) == 0;
}

/* HOST_IS_LIVE while it may be alive. */
static int not_live(const struct admit *ad, const char *ref, struct err *err)
{
	const struct db_row *host = db_view_get(ad->view, MODEL_CLASS_host, ref), *metrics;

	if (host == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", ref, NULL);
	metrics = db_view_get(ad->view, MODEL_CLASS_host_metrics, db_row_s(host, HOST_metrics));
	if (in_contact(ad->pool, ad->view, ref) || metrics == NULL ||
		db_row_b(metrics, HOST_METRICS_live))
		return err_set(err, ERR_HOST_IS_LIVE, ref, NULL);
	db_txn_need_row(ad->txn, MODEL_CLASS_host, ref);
	db_txn_need_version(
		ad->txn, MODEL_CLASS_host_metrics, db_row_ref(metrics), db_row_modified(metrics));
	return 0;
}

static bool is_there(const struct db_row *vm, const char *host)
{
	return strcmp(db_row_s(vm, VM_resident_on), host) == 0 ||
	       strcmp(db_row_s(vm, VM_scheduled_to_be_resident_on), host) == 0;
}

static bool has_vms(const struct db_view *view, const char *host)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_VM);
	const struct db_row *vm;

	while ((vm = db_next(&c)) != NULL)
		if (!db_row_b(vm, VM_is_control_domain) && is_there(vm, host))
			return true;
	return false;
}

/* From this entry on it leaves. No VM starts there either: that needs it enabled. */
static void leave(struct db_txn *txn, const struct db_view *view, const char *ref)
{
	const struct db_row *host = db_view_get(view, MODEL_CLASS_host, ref);
	const char *member = db_row_s(host, HOST_uuid);

	db_txn_need_version(txn, MODEL_CLASS_host, ref, db_row_modified(host));
	db_txn_set(txn, MODEL_CLASS_host, ref, HOST_enabled, val_bool(false));
	if (db_view_get(view, MODEL_CLASS__member, member) != NULL)
		db_txn_set(txn, MODEL_CLASS__member, member, _MEMBER_state, val_string("leaving"));
}

static bool is_record(struct owned *o, const char *host)
{
	struct db_view view;
	bool is;

	db_view_pin(o->pool->db, &view);
	is = db_view_get(&view, MODEL_CLASS_host, host) != NULL;
	db_view_unpin(&view);
	return is;
}

/* It goes on without us, too, and whoever asks now that it should not is too late. */
static int await_leaving(struct job *job, struct owned *o, const char *host, struct err *err)
{
	uint64_t due = env_now_ms(job->env) + LEAVE_MS;
	int rc = 0;

	while (rc == 0 && is_record(o, host)) {
		if (env_now_ms(job->env) >= due)
			return err_set(err, ERR_OPERATION_NOT_ALLOWED,
				"The host leaves as soon as most of the other members that vote "
				"are in "
				"contact",
				NULL);
		rc = parts_wait(job, o, LOOK_MS, err);
		if (rc == ERR_API) {
			err_fini(err);
			rc = 0;
		}
	}
	return rc;
}

/* Why it does not leave. */
static int stays(struct pool *pool, const struct db_view *view, const char *host, struct err *err)
{
	if (strcmp(db_row_ref(pool_self(pool, view)), host) == 0)
		return err_set(err, ERR_OPERATION_NOT_ALLOWED,
			"The coordinator cannot be ejected: hand its part to another host first",
			NULL);
	if (!in_contact(pool, view, host))
		return err_set(err, ERR_HOST_OFFLINE, host, NULL);
	if (has_vms(view, host))
		return err_set(err, ERR_OPERATION_NOT_ALLOWED, "VM resident on host", NULL);
	return 0;
}

int pool_eject_admit(struct admit *admit, const struct pool_eject_args *args, struct err *err)
{
	if (db_view_get(admit->view, MODEL_CLASS_host, args->host) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", args->host, NULL);
	return stays(admit->pool, admit->view, args->host, err);
}

/* Its PBDs, in the job's arena: those that are attached; or (again) those that are not any more by
 * a part of this task. */
static struct val pbds_of(struct job *job, struct owned *o, const char *host, bool again)
{
	struct db_cursor c;
	const struct db_row *pbd;
	struct db_view view;
	struct val refs = val_set();

	db_view_pin(o->pool->db, &view);
	c = db_rows_related(&view, MODEL_RELATION_PBD_host, host);
	while ((pbd = db_next(&c)) != NULL) {
		char uuid[UUID_LEN + 1], part[DB_REF_MAX + 1];

		owner_uuid(o, db_row_ref(pbd), uuid, part);
		if (db_row_b(pbd, PBD_currently_attached) != again &&
			(!again || db_view_get(&view, MODEL_CLASS_task, part) != NULL))
			val_set_push(&job->arena, &refs,
				val_string(arena_strdup(&job->arena, db_row_ref(pbd))));
	}
	db_view_unpin(&view);
	return refs;
}

/* One after the other. */
static int each_pbd(struct job *job, struct owned *o, const struct val *refs, const char *method,
	const char *word, struct err *err)
{
	const char *part;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < refs->n; i++) {
		struct val ref = refs->items[i];

		rc = part_begin(job, o, arena_printf(&job->arena, "%s%s", word, ref.s), method,
			&ref, &part, err);
		if (rc == 0)
			rc = part_end(job, o, part, err);
	}
	return rc;
}

struct leaving {
	struct pool *pool;
	const char *host;
	struct err *err; /* it stays */
};

/* What only this host had is forgotten with it: what is on the storage stays there. What one entry
 * does not take keeps its record. */
static void forget_own_srs(struct leaving *l, struct db_txn *txn, const struct db_view *view)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_PBD_host, l->host), pbds;
	const struct db_row *pbd, *sr;
	unsigned others;

	while ((pbd = db_next(&c)) != NULL) {
		sr = db_view_get(view, MODEL_CLASS_SR, db_row_s(pbd, PBD_SR));
		if (sr == NULL || db_row_b(sr, SR_shared))
			continue;
		pbds = db_rows_related(view, MODEL_RELATION_PBD_SR, db_row_ref(sr));
		for (others = 0; db_next(&pbds) != NULL; others++)
			;
		if (others > 1)
			continue;
		if (txn->ops.len > FORGET_MAX) {
			log_warn(
				l->pool->env, "event=sr_record_stays sr=%s", db_row_s(sr, SR_uuid));
			continue;
		}
		db_txn_need_version(txn, MODEL_CLASS_SR, db_row_ref(sr), db_row_modified(sr));
		sr_delete_rows(txn, view, db_row_ref(sr));
	}
}

static void build_leave(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct leaving *l = arg;
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_PBD_host, l->host);
	const struct db_row *pbd;

	err_fini(l->err);
	if (db_view_get(view, MODEL_CLASS_host, l->host) == NULL ||
		stays(l->pool, view, l->host, l->err) != 0)
		return;
	while ((pbd = db_next(&c)) != NULL) {
		if (db_row_b(pbd, PBD_currently_attached)) {
			err_set(l->err, ERR_OPERATION_NOT_ALLOWED,
				"An SR was attached to the host meanwhile", NULL);
			return;
		}
		db_txn_need_version(txn, MODEL_CLASS_PBD, db_row_ref(pbd), db_row_modified(pbd));
	}
	forget_own_srs(l, txn, view);
	leave(txn, view, l->host);
}

/* Its SRs are detached first: nothing stays attached to a host that is not of the pool. When it
 * stays after all they are attached again. */
int pool_eject_run(struct job *job, void *task, const struct pool_eject_args *args, struct err *err)
{
	struct owned *o = task;
	struct leaving l = { o->pool, args->host, err };
	struct val pbds = pbds_of(job, o, args->host, false);
	struct err ignored = { 0 };
	int rc = each_pbd(job, o, &pbds, "PBD.unplug", "", err);

	if (rc == 0)
		rc = commit_settled(job, o->pool,
			&(struct commit){ DB_FOR_CONFIG, { POOL_HOST, o->task, "pool.eject" },
				build_leave, &l });
	if (rc == 0 && err->code == NULL)
		return await_leaving(job, o, args->host, err);
	if (rc != 0 && rc != ERR_API)
		return rc;
	pbds = pbds_of(job, o, args->host, true);
	rc = each_pbd(job, o, &pbds, "PBD.plug", "again ", &ignored);
	err_fini(&ignored);
	return rc != 0 && rc != ERR_API ? rc : ERR_API;
}

int host_destroy_admit(struct admit *admit, const struct host_destroy_args *args, struct err *err)
{
	if (not_live(admit, args->self, err) != 0)
		return ERR_API;
	if (has_vms(admit->view, args->self))
		return err_set(err, ERR_HOST_HAS_RESIDENT_VMS, args->self, NULL);
	leave(admit->txn, admit->view, args->self);
	return 0;
}

int host_destroy_run(
	struct job *job, void *task, const struct host_destroy_args *args, struct err *err)
{
	return await_leaving(job, task, args->self, err);
}

/* Declared dead. */

static void free_vms(struct admit *ad, const char *host)
{
	static const struct facts none = { .power_state = "Halted", .domid = -1 };
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_VM);
	const struct db_row *vm;

	while ((vm = db_next(&c)) != NULL) {
		if (db_row_b(vm, VM_is_control_domain) || !is_there(vm, host))
			continue;
		db_txn_need_version(ad->txn, MODEL_CLASS_VM, db_row_ref(vm), db_row_modified(vm));
		facts_write(ad->txn, ad->pool, ad->view, vm, &none, host);
	}
}

/* Those that had started keep their locks until clear_left is through. */
static void end_tasks(struct admit *ad, const char *host)
{
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_task);
	const struct db_row *task;
	struct err why = { 0 };

	err_set(&why, ERR_HOST_OFFLINE, host, NULL);
	while ((task = db_next(&c)) != NULL) {
		if (strcmp(db_row_s(task, TASK_owner), host) != 0 || !task_pending(task))
			continue;
		db_txn_need_version(
			ad->txn, MODEL_CLASS_task, db_row_ref(task), db_row_modified(task));
		task_set_ended(
			ad->txn, ad->arena, db_row_ref(task), env_wall_s(ad->pool->env), &why);
		if (db_row_b(task, TASK_started))
			continue;
		locks_release(ad->txn, ad->arena, task);
		memory_give_back(ad->txn, ad->view, task);
	}
	err_fini(&why);
}

int host_declare_dead_admit(
	struct admit *admit, const struct host_declare_dead_args *args, struct err *err)
{
	const struct db_row *host;
	const char *member;

	if (not_live(admit, args->host, err) != 0)
		return ERR_API;
	host = db_view_get(admit->view, MODEL_CLASS_host, args->host);
	member = db_row_s(host, HOST_uuid);
	end_tasks(admit, args->host);
	free_vms(admit, args->host);
	db_txn_set(admit->txn, MODEL_CLASS_host, args->host, HOST_enabled, val_bool(false));
	if (db_view_get(admit->view, MODEL_CLASS__member, member) != NULL)
		db_txn_set(admit->txn, MODEL_CLASS__member, member, _MEMBER_incarnation,
			val_string(POOL_DEAD));
	return 0;
}

/* What a boot that is over has left. */

bool host_boot_over(const struct db_view *view, const char *host_uuid, const char *boot)
{
	const struct db_row *member = db_view_get(view, MODEL_CLASS__member, host_uuid);
	const char *now;
	size_t n = strcspn(boot, "/"); /* an incarnation begins with its boot */

	if (member == NULL)
		return true;
	now = db_row_s(member, _MEMBER_incarnation);
	return *now != 0 && (strcspn(now, "/") != n || strncmp(now, boot, n) != 0);
}

struct left {
	struct job *job;
	struct pool *pool;
	const char *host, *uuid; /* reference and uuid */
	bool dead;		 /* else it is this host */
	struct val tasks;	 /* uuids */
};

/* Its task has ended, the outcome is not known, and nobody will report it any more. Of this host,
 * what is about a VM is reported with the facts about that. */
static bool is_left(const struct left *l, const struct db_view *view, const struct db_row *task)
{
	return locks_held(task, &l->job->arena) && !task_pending(task) &&
	       db_row_b(task, TASK_started) && strcmp(db_row_s(task, TASK_owner), l->host) == 0 &&
	       host_boot_over(view, l->uuid, db_row_s(task, TASK_incarnation));
}

static void collect_tasks(struct left *l)
{
	const struct db_row *row;
	struct db_view view;
	struct db_cursor c;

	l->tasks = val_set();
	db_view_pin(l->pool->db, &view);
	c = db_rows(&view, MODEL_CLASS_task);
	while ((row = db_next(&c)) != NULL)
		if (is_left(l, &view, row))
			val_set_push(&l->job->arena, &l->tasks,
				val_string(arena_strdup(&l->job->arena, db_row_s(row, TASK_uuid))));
	db_view_unpin(&view);
}

/* uuids of the SRs that this host has attached. */
static struct val attached_here(const struct left *l)
{
	const struct db_row *pbd, *sr;
	struct val srs = val_set();
	struct db_view view;
	struct db_cursor c;

	db_view_pin(l->pool->db, &view);
	c = db_rows_related(&view, MODEL_RELATION_PBD_host, db_row_ref(pool_self(l->pool, &view)));
	while ((pbd = db_next(&c)) != NULL) {
		sr = db_view_get(&view, MODEL_CLASS_SR, db_row_s(pbd, PBD_SR));
		if (sr != NULL && db_row_b(pbd, PBD_currently_attached))
			val_set_push(&l->job->arena, &srs,
				val_string(arena_strdup(&l->job->arena, db_row_s(sr, SR_uuid))));
	}
	db_view_unpin(&view);
	return srs;
}

/* References of the SRs that some other host has attached. */
static struct val attached_elsewhere(const struct left *l)
{
	const struct db_row *pbd;
	struct val srs = val_set();
	struct db_view view;
	struct db_cursor c;

	db_view_pin(l->pool->db, &view);
	c = db_rows(&view, MODEL_CLASS_PBD);
	while ((pbd = db_next(&c)) != NULL) {
		const char *sr = db_row_s(pbd, PBD_SR);

		if (db_row_b(pbd, PBD_currently_attached) &&
			strcmp(db_row_s(pbd, PBD_host), l->host) != 0 && !val_set_has(&srs, sr))
			val_set_push(
				&l->job->arena, &srs, val_string(arena_strdup(&l->job->arena, sr)));
	}
	db_view_unpin(&view);
	return srs;
}

static int ask(const struct left *l, enum agent_method_id method, const struct val *params,
	struct val *out, const char *what)
{
	struct val ignored;
	struct err why = { 0 };
	int rc = agent_ask(l->job, l->pool, method, params, out != NULL ? out : &ignored, &why);

	if (rc == ERR_API)
		log_warn(l->job->env, "event=left_behind host=%s of=%s why=%s", l->uuid, what,
			why.code->name);
	err_fini(&why);
	return rc;
}

static bool in_record(const struct left *l, const char *vdi)
{
	struct db_view view;
	bool is;

	db_view_pin(l->pool->db, &view);
	is = db_view_by_uuid(&view, MODEL_CLASS_VDI, vdi) != NULL;
	db_view_unpin(&view);
	return is;
}

static bool breaks(const struct left *l, const struct val *holder)
{
	struct db_view view;
	bool over;

	db_view_pin(l->pool->db, &view);
	over = strcmp(val_get_s(holder, "host"), l->uuid) == 0 &&
	       host_boot_over(&view, l->uuid, val_get_s(holder, "boot"));
	db_view_unpin(&view);
	return over;
}

/* One disk as SR.scan shows it. */
static int clear_disk(const struct left *l, const char *sr, const struct val *disk)
{
	struct arena *a = &l->job->arena;
	const struct val *holders = val_get(disk, "holders");
	const char *vdi = val_get_s(disk, "vdi");
	struct val params;
	int rc = 0;

	for (uint32_t i = 0; i < holders->n && rc != ERR_DEAD; i++) {
		if (!breaks(l, &holders->items[i]))
			continue;
		params = val_map();
		val_map_push(a, &params, "sr", val_string(sr));
		val_map_push(a, &params, "vdi", val_string(vdi));
		val_map_push(a, &params, "host", *val_get(&holders->items[i], "host"));
		val_map_push(a, &params, "boot", *val_get(&holders->items[i], "boot"));
		rc = ask(l, AGENT_VDI_force_unlock, &params, NULL, vdi);
	}
	if (rc == ERR_DEAD || !val_set_has(&l->tasks, val_get_s(disk, "made_by")) ||
		in_record(l, vdi))
		return rc;
	params = val_map();
	val_map_push(a, &params, "sr", val_string(sr));
	val_map_push(a, &params, "vdi", val_string(vdi));
	return ask(l, AGENT_VDI_destroy, &params, NULL, vdi);
}

/* What cannot be reached stays: SR.scan shows the disks, VDI.force_unlock breaks the locks. */
static int clear_sr(const struct left *l, const char *sr)
{
	struct val params, disks;
	const char *after = NULL;
	int rc;

	for (;;) {
		params = val_map();
		val_map_push(&l->job->arena, &params, "sr", val_string(sr));
		if (after != NULL)
			val_map_push(&l->job->arena, &params, "after", val_string(after));
		rc = ask(l, AGENT_SR_scan, &params, &disks, sr);
		if (rc != 0 || disks.n == 0)
			return rc == ERR_DEAD ? rc : 0;
		/* whoever has a lock by now has announced its boot before: see that */
		rc = pool_catch_up(l->job, l->pool);
		for (uint32_t i = 0; i < disks.n && rc != ERR_DEAD; i++)
			rc = clear_disk(l, sr, &disks.items[i]);
		if (rc == ERR_DEAD)
			return rc;
		after = val_get_s(&disks.items[disks.n - 1], "vdi");
	}
}

static void build_release(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct left *l = arg;
	struct db_cursor c = db_rows(view, MODEL_CLASS_task);
	const struct db_row *task;

	while ((task = db_next(&c)) != NULL) {
		const char *subject = db_row_s(task, TASK_subject_ref);

		if (!is_left(l, view, task) ||
			(!l->dead && db_view_get(view, MODEL_CLASS_VM, subject) != NULL))
			continue;
		db_txn_need_version(txn, MODEL_CLASS_task, db_row_ref(task), db_row_modified(task));
		locks_release(txn, &l->job->arena, task);
		if (l->dead)
			memory_give_back(txn, view, task);
	}
}

static int release(struct left *l)
{
	return commit_settled(l->job, l->pool,
		&(struct commit){ DB_FOR_FACTS, { POOL_HOST, "", "clear" }, build_release, l });
}

int host_clear_own(struct job *job, struct pool *pool)
{
	struct left l = { .job = job, .pool = pool, .uuid = pool->host_uuid };
	struct db_view view;
	const struct db_row *self;
	struct val srs;
	int rc = 0;

	db_view_pin(pool->db, &view);
	self = pool_self(pool, &view);
	l.host = self != NULL ? arena_strdup(&job->arena, db_row_ref(self)) : NULL;
	db_view_unpin(&view);
	if (l.host == NULL)
		return 0;
	collect_tasks(&l);
	srs = attached_here(&l);
	for (uint32_t i = 0; i < srs.n && l.tasks.n > 0 && rc == 0; i++)
		rc = clear_sr(&l, srs.items[i].s);
	return rc != 0 ? rc : release(&l);
}

/* The host whose boots are over; its uuid is NULL when its record is gone. */
static struct left left_by(struct job *job, void *task, const char *host)
{
	struct left l = { job, owner_pool(task), host, NULL, true, val_set() };
	const struct db_row *row;
	struct db_view view;

	db_view_pin(l.pool->db, &view);
	row = db_view_get(&view, MODEL_CLASS_host, host);
	l.uuid = row != NULL ? arena_strdup(&job->arena, db_row_s(row, HOST_uuid)) : NULL;
	db_view_unpin(&view);
	return l;
}

/* Of a host that is alive nothing goes: its boot is not over. */
int sr_clear_left_run(
	struct job *job, void *task, const struct sr_clear_left_args *args, struct err *err)
{
	struct left l = left_by(job, task, args->host);
	const struct db_row *sr;
	const char *uuid;
	struct db_view view;

	db_view_pin(l.pool->db, &view);
	sr = db_view_get(&view, MODEL_CLASS_SR, args->sr);
	uuid = sr != NULL ? arena_strdup(&job->arena, db_row_s(sr, SR_uuid)) : NULL;
	db_view_unpin(&view);
	if (l.uuid == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", args->host, NULL);
	if (uuid == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "SR", args->sr, NULL);
	collect_tasks(&l);
	return clear_sr(&l, uuid);
}

/* A part for each SR, some at a time. What keeps one is told in the log: that SR stays as it is. */
struct clearing {
	struct left *l;
	void *task;
	const char *parts[CLEARED_AT_ONCE], *srs[CLEARED_AT_ONCE];
	unsigned n;
};

static void not_cleared(const struct left *l, const char *sr, struct err *why)
{
	if (why->code != NULL)
		log_warn(l->job->env, "event=left_behind host=%s of=%s why=%s", l->uuid, sr,
			why->code->name);
	err_fini(why);
}

static void collect_ends(struct clearing *c)
{
	struct err why = { 0 };
	unsigned kept = 0;

	for (unsigned i = 0; i < c->n; i++) {
		if (part_ended(c->l->job, c->task, c->parts[i], &why)) {
			not_cleared(c->l, c->srs[i], &why);
			continue;
		}
		c->parts[kept] = c->parts[i];
		c->srs[kept++] = c->srs[i];
	}
	c->n = kept;
}

/* Until fewer than n are under way. Who asks the whole to stop has asked them. */
static int await_fewer(struct clearing *c, unsigned n, struct err *err)
{
	int rc;

	for (collect_ends(c); c->n >= n; collect_ends(c)) {
		rc = parts_wait(c->l->job, c->task, UINT64_MAX, err);
		if (rc != 0 && rc != ERR_API)
			return rc;
	}
	return err->code != NULL ? ERR_API : 0;
}

static int begin_clearing(struct clearing *c, const char *sr)
{
	struct arena *a = &c->l->job->arena;
	struct val params[] = { val_string(sr), val_string(c->l->host) };
	struct err why = { 0 };
	int rc = part_begin(c->l->job, c->task, arena_printf(a, "clear %s", sr), "SR.clear_left",
		params, &c->parts[c->n], &why);

	if (rc == 0)
		c->srs[c->n++] = sr;
	not_cleared(c->l, sr, &why);
	return rc == ERR_API ? 0 : rc;
}

int host_declare_dead_run(
	struct job *job, void *task, const struct host_declare_dead_args *args, struct err *err)
{
	struct left l = left_by(job, task, args->host);
	struct clearing c = { .l = &l, .task = task };
	struct val srs;
	int rc = 0;

	if (l.uuid == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", args->host, NULL);
	srs = attached_elsewhere(&l);
	for (uint32_t i = 0; i < srs.n && rc == 0; i++) {
		rc = await_fewer(&c, CLEARED_AT_ONCE, err);
		if (rc == 0)
			rc = begin_clearing(&c, srs.items[i].s);
	}
	if (rc == 0 || rc == ERR_API)
		rc = await_fewer(&c, 1, err);
	return rc != 0 ? rc : release(&l);
}
