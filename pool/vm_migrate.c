/* VM.pool_migrate: a running VM goes on at another host of the pool. vm-lifecycle section 4.
 *
 *   source S, which owns the task              destination D
 *     agent: migrate_send (leaving)
 *     POOL_FRAME_GUEST: the guest ----------->   agent: migrate_receive (coming)
 *     <------------- POOL_FRAME_GUEST_ANSWER: done, or why not
 *     one entry: VM.resident_on = D, and the task is D's
 *     agent: migrate_drop                        X_run begins again: agent: migrate_keep
 *                                                the end of the task, with what is there
 *
 * The entry is the hand-over, and it alone decides: until it is applied the guest is S's, behind it
 * D's. Its precondition is the task's row as it was. So before S lets the guest go on it touches
 * that row: an earlier hand-over whose outcome is not known can then never be applied any more.
 * Whoever dies, the domains on both sides wait (VM.stat undecided) until somebody has looked at the
 * rows: this run, begun again, or watch_main() after a contact with the agent. A frame that is lost
 * is sent again; the same guest twice is one job of the agent. Each is acknowledged by
 * POOL_FRAME_GUEST_HERE, so that a destination that lives is heard of while it works.
 */
#include "db/plane.h"
#include "pool/vm_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	IMAGE_MAX = 64 << 10,
	AGAIN_MS = 2000, /* the guest is sent again */
	OFFER_MS = 30000,
	/* without a word of the destination the guest stays; older members do not acknowledge, but
	 * send their numbers */
	SILENT_MS = DB_PLANE_FRAME_MS + 1000,
	LOOK_MS = 500,
	TASK_LOOKS = 25, /* until the task is seen at the destination */
	TRIES = 20,
};

/* A guest on its way to another host. In the list until its job has looked away. */
struct offer {
	struct offer *next;
	struct job *job;
	const char *task;
	bool answered;
	char incarnation[128]; /* of the agent that has it */
	struct err why;	       /* or why it has not */
};

struct migrations {
	pthread_mutex_t mutex;
	struct offer *offers;
};

void migrate_init(struct pool *pool)
{
	pool->migrations = mem_new(sizeof *pool->migrations);
	pthread_mutex_init(&pool->migrations->mutex, NULL);
}

int vm_pool_migrate_admit(
	struct admit *admit, const struct vm_pool_migrate_args *args, struct err *err)
{
	const struct db_row *host = db_view_get(admit->view, MODEL_CLASS_host, args->host);

	if (host == admit->owner)
		return 0;
	return place_check(admit, admit->vm, host, err) != 0
		       ? ERR_API
		       : memory_reserve_moving(admit, admit->vm, admit->owner, host, err);
}

static int failed(struct owned *o, const char *to, const char *why, struct err *err)
{
	struct db_view view;
	char self[DB_REF_MAX + 1];

	db_view_pin(o->pool->db, &view);
	snprintf(self, sizeof self, "%s", db_row_ref(pool_self(o->pool, &view)));
	db_view_unpin(&view);
	return err_set(err, ERR_VM_MIGRATE_FAILED, o->vm, self, to, why, NULL);
}

/* Where the record says the VM is. */
enum place { GONE, HERE, ELSEWHERE };

static enum place place_of(const struct db_row *vm, const char *self)
{
	return vm == NULL					 ? GONE
	       : strcmp(db_row_s(vm, VM_resident_on), self) == 0 ? HERE
								 : ELSEWHERE;
}

static enum place look(struct owned *o)
{
	struct db_view view;
	const struct db_row *vm = owner_vm(o, &view);
	enum place place = place_of(vm, db_row_ref(pool_self(o->pool, &view)));

	db_view_unpin(&view);
	return place;
}

/* What stays undecided is decided by the rows, by whoever has contact with the agent. */

/* An owner's view of a task that another member owns. */
static struct owned *stand_in(
	struct job *job, struct pool *pool, const char *vm_uuid, const char *task_ref)
{
	struct owned *o = arena_alloc(&job->arena, sizeof *o);
	struct db_view view;
	const struct db_row *vm;

	memset(o, 0, sizeof *o);
	o->pool = pool;
	o->job = job;
	snprintf(o->vm_uuid, sizeof o->vm_uuid, "%s", vm_uuid);
	snprintf(o->task, sizeof o->task, "%s", task_ref);
	snprintf(o->task_uuid, sizeof o->task_uuid, "%s", task_ref + strlen("OpaqueRef:"));
	db_view_pin(pool->db, &view);
	vm = db_view_by_uuid(&view, MODEL_CLASS_VM, vm_uuid);
	snprintf(o->vm, sizeof o->vm, "%s", vm != NULL ? db_row_ref(vm) : NULL_REF);
	db_view_unpin(&view);
	return o;
}

enum decision { WAIT, OF_A_RUN, KEEP, DROP };

static enum decision judge(struct owned *o, bool leaving)
{
	struct db_view view;
	const struct db_row *vm = owner_vm(o, &view),
			    *task = db_view_get(&view, MODEL_CLASS_task, o->task);
	const char *self = db_row_ref(pool_self(o->pool, &view));
	enum place place = place_of(vm, self);
	enum decision v = place == HERE ? KEEP : DROP;

	if (place != GONE && task_pending(task)) {
		if (strcmp(db_row_s(task, TASK_owner), self) == 0)
			v = OF_A_RUN;
		else if (!(leaving && place == ELSEWHERE))
			v = WAIT;
	}
	db_view_unpin(&view);
	return v;
}

/* Memory of a VM that has left. */
static void build_memory_back(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct owned *o = arg;
	const struct db_row *vm = db_view_get(view, MODEL_CLASS_VM, o->vm);
	const char *self = db_row_ref(pool_self(o->pool, view));

	if (place_of(vm, self) != ELSEWHERE)
		return;
	db_txn_need_field(txn, MODEL_CLASS_VM, o->vm, VM_resident_on,
		val_string(db_row_s(vm, VM_resident_on)));
	memory_left(txn, view, o->vm, self);
}

static int commit_facts(struct owned *o,
	void (*build)(struct db_txn *txn, const struct db_view *view, void *arg), void *arg)
{
	return commit_settled(o->job, o->pool,
		&(struct commit){
			DB_FOR_FACTS, { POOL_HOST, o->task, "VM.pool_migrate" }, build, arg });
}

/* The decision, for this migration and no other. */
static int tell(struct job *job, struct owned *o, enum agent_method_id method, struct err *err)
{
	struct val params = val_map();

	val_map_push(&job->arena, &params, "migration", val_string(o->task_uuid));
	return owner_agent_part(job, o, NULL, method, &params, err);
}

/* false: it has to be looked at again. */
static bool settle(struct job *job, struct owned *o)
{
	struct facts f = { .undecided = "" };
	struct err err = { 0 };
	enum decision v;
	bool leaving;
	int rc = facts_read(job, o->pool, o->vm_uuid, &f);

	if (rc != 0 || strcmp(f.undecided, o->task_uuid) != 0)
		return true; /* another migration has begun, or the agent is gone: the next contact
				looks */
	leaving = strcmp(f.power_state, "Halted") != 0;
	v = f.busy ? WAIT : judge(o, leaving);
	if (v == KEEP || v == DROP) { /* not on the word of an old view */
		if (pool_catch_up(job, o->pool) == ERR_DEAD)
			return true;
		v = judge(o, leaving);
	}
	if (v == WAIT || v == OF_A_RUN)
		return v == OF_A_RUN;
	log_info(job->env, "event=migration_decided vm=%s task=%s here=%d", o->vm_uuid, o->task,
		v == KEEP);
	rc = tell(job, o, v == KEEP ? AGENT_VM_migrate_keep : AGENT_VM_migrate_drop, &err);
	err_fini(&err);
	if (rc == 0 && v == DROP && leaving)
		commit_facts(o, build_memory_back, o);
	return rc == 0 || rc == ERR_DEAD;
}

static void settle_all(struct job *job, struct owned *o)
{
	while (!settle(job, o)) {
		if (job_sleep(job, LOOK_MS) == ERR_DEAD)
			return;
		job->cancelled = false; /* woken: nothing here can be cancelled */
	}
}

struct watch {
	struct pool *pool;
	char vm_uuid[UUID_LEN + 1];
};

static void watch_main(struct job *job, void *arg)
{
	struct watch *w = arg;
	struct facts f;
	char task[DB_REF_MAX + 1];

	if (facts_read(job, w->pool, w->vm_uuid, &f) == 0 && *f.undecided != 0) {
		snprintf(task, sizeof task, "OpaqueRef:%s", f.undecided);
		settle_all(job, stand_in(job, w->pool, w->vm_uuid, task));
	}
	free(w);
}

static void key_of(const char *vm_uuid, char out[LANE_KEY_MAX])
{
	snprintf(out, LANE_KEY_MAX, "in %s", vm_uuid); /* beside the run of the VM's task */
}

void migrate_decide(struct pool *pool, const char *vm_uuid)
{
	struct watch *w = mem_new(sizeof *w);
	char key[LANE_KEY_MAX];

	w->pool = pool;
	snprintf(w->vm_uuid, sizeof w->vm_uuid, "%s", vm_uuid);
	key_of(vm_uuid, key);
	if (lane_submit(pool->vms, key, watch_main, w, NULL) != 0)
		free(w); /* the next change looks again */
}

/* The destination. */

struct guest {
	struct pool *pool;
	uint64_t from;
	char task[DB_REF_MAX + 1], vm_uuid[UUID_LEN + 1];
	char image[];
};

/* Is this guest expected: by a task under way that brings it here? 1, 0; -1: the task is not seen
 * yet. */
static int expected(struct job *job, const struct guest *g)
{
	struct db_view view;
	const struct db_row *task, *vm, *self;
	struct request r;
	int yes = 0;

	db_view_pin(g->pool->db, &view);
	self = pool_self(g->pool, &view);
	task = db_view_get(&view, MODEL_CLASS_task, g->task);
	vm = db_view_by_uuid(&view, MODEL_CLASS_VM, g->vm_uuid);
	if (task == NULL)
		yes = -1;
	else if (task_pending(task) && vm != NULL && request_of_task(&job->arena, task, &r))
		yes = strcmp(r.method->name, "VM.pool_migrate") == 0 &&
		      strcmp(r.args[0].s, db_row_ref(vm)) == 0 &&
		      strcmp(r.args[1].s, db_row_ref(self)) == 0 &&
		      place_of(vm, db_row_ref(self)) == ELSEWHERE;
	db_view_unpin(&view);
	return yes;
}

static void acknowledge(struct pool *pool, uint64_t to)
{
	struct buf b = { 0 };

	db_send(pool->db, to, POOL_FRAME_GUEST_HERE, &b);
}

static void answer(const struct guest *g, const struct err *err)
{
	char incarnation[128];
	struct buf b = { 0 };

	incarnation_of(g->pool, incarnation);
	buf_str(&b, g->task);
	buf_str(&b, incarnation);
	buf_str(&b, err->code != NULL ? err->code->name : "");
	buf_u32(&b, err->n);
	for (unsigned i = 0; i < err->n; i++)
		buf_str(&b, err->params[i]);
	db_send(g->pool->db, g->from, POOL_FRAME_GUEST_ANSWER, &b);
}

/* What has just left this host may still be on its way out. */
static bool is_leaving(struct job *job, const struct guest *g)
{
	struct facts f;

	return facts_read(job, g->pool, g->vm_uuid, &f) == 0 && *f.undecided != 0 &&
	       strcmp(f.undecided, g->task + strlen("OpaqueRef:")) != 0;
}

static int prepare(struct job *job, struct owned *o, const struct guest *g, struct err *err)
{
	struct val params = val_map();
	int rc = vm_push_metadata(job, o, err);

	if (rc != 0)
		return rc;
	val_map_push(&job->arena, &params, "migration", val_string(o->task_uuid));
	val_map_push(&job->arena, &params, "image", val_string(g->image));
	return owner_agent_part(job, o, AGENT_PART_RECEIVE, AGENT_VM_migrate_receive, &params, err);
}

static void guest_main(struct job *job, void *arg)
{
	struct guest *g = arg;
	struct owned *o;
	struct err err = { 0 };
	int yes = 0, rc = 0;

	for (unsigned i = 0; i < TASK_LOOKS && rc == 0; i++) {
		yes = expected(job, g);
		if (yes >= 0)
			break;
		rc = job_sleep(job, LOOK_MS / 2);
	}
	for (unsigned i = 0; i < TASK_LOOKS && yes == 1 && rc == 0 && is_leaving(job, g); i++)
		rc = job_sleep(job, LOOK_MS / 2);
	if (yes == 1 && rc == 0) {
		o = stand_in(job, g->pool, g->vm_uuid, g->task);
		rc = prepare(job, o, g, &err);
		if (rc == 0 || rc == ERR_API)
			answer(g, &err);
		if (rc != ERR_DEAD)
			settle_all(job, o);
	}
	err_fini(&err);
	free(g);
}

static int guest_arrived(struct pool *pool, struct reader *r)
{
	uint64_t from = rd_u64(r);
	const char *task = rd_str(r), *vm = rd_str(r), *image = rd_str(r);
	char key[LANE_KEY_MAX];
	struct guest *g;
	size_t n;

	if (r->bad || rd_left(r) > 0 || from == 0 || !uuid_ok(vm) ||
		strncmp(task, "OpaqueRef:", 10) != 0 || !uuid_ok(task + 10))
		return ERR_CORRUPT;
	n = strlen(image) + 1;
	if (n > IMAGE_MAX)
		return ERR_CORRUPT;
	acknowledge(pool, from);
	g = mem_new(sizeof *g + n);
	g->pool = pool;
	g->from = from;
	strcpy(g->task, task);
	strcpy(g->vm_uuid, vm);
	memcpy(g->image, image, n);
	key_of(vm, key);
	if (lane_submit(pool->vms, key, guest_main, g, NULL) != 0)
		free(g); /* it is sent again */
	return 0;
}

/* The source. */

static int answer_arrived(struct pool *pool, struct reader *r)
{
	struct migrations *m = pool->migrations;
	const char *task = rd_str(r), *incarnation = rd_str(r), *code = rd_str(r),
		   *texts[ERR_PARAMS_MAX];
	uint32_t n = rd_u32(r);
	const struct err_code *why;

	if (r->bad || n > ERR_PARAMS_MAX)
		return ERR_CORRUPT;
	for (uint32_t i = 0; i < n; i++)
		texts[i] = rd_str(r);
	if (r->bad || rd_left(r) > 0)
		return ERR_CORRUPT;
	why = *code != 0 ? model_error_find(code) : NULL;
	pthread_mutex_lock(&m->mutex);
	for (struct offer *f = m->offers; f != NULL; f = f->next) {
		if (f->answered || strcmp(f->task, task) != 0)
			continue;
		f->answered = true;
		snprintf(f->incarnation, sizeof f->incarnation, "%s", incarnation);
		if (why != NULL)
			err_set_list(&f->why, why, texts, n);
		else if (*code != 0)
			err_set(&f->why, ERR_INTERNAL_ERROR, code, NULL);
		job_cancel(f->job); /* out of its sleep */
	}
	pthread_mutex_unlock(&m->mutex);
	return 0;
}

int migrate_frame(struct pool *pool, uint8_t type, const uint8_t *payload, size_t n)
{
	struct reader r = reader_of(payload, n);

	switch (type) {
	case POOL_FRAME_GUEST: return guest_arrived(pool, &r);
	case POOL_FRAME_GUEST_ANSWER: return answer_arrived(pool, &r);
	default: return 0; /* POOL_FRAME_GUEST_HERE: that it came says all; or of a newer version */
	}
}

static void send_guest(struct owned *o, uint64_t to, const char *image)
{
	struct buf b = { 0 };

	buf_u64(&b, db_raft_id(o->pool->db));
	buf_str(&b, o->task);
	buf_str(&b, o->vm_uuid);
	buf_str(&b, image);
	db_send(o->pool->db, to, POOL_FRAME_GUEST, &b);
}

static uint64_t raft_id_of(struct pool *pool, const char *host)
{
	struct db_view view;
	uint64_t id;

	db_view_pin(pool->db, &view);
	id = pool_raft_id_of(&view, host);
	db_view_unpin(&view);
	return id;
}

static bool answered(struct migrations *m, const struct offer *f)
{
	bool yes;

	pthread_mutex_lock(&m->mutex);
	yes = f->answered;
	pthread_mutex_unlock(&m->mutex);
	return yes;
}

/* Is there still somebody to wait for? While it works it acknowledges what is sent again. */
static bool listens(struct owned *o, uint64_t to, uint64_t waited_ms)
{
	if (to == 0 || waited_ms >= OFFER_MS)
		return false;
	return waited_ms < SILENT_MS || db_silence_ms(o->pool->db, to) < SILENT_MS;
}

/* Until the destination has it: 0, or ERR_API. */
static int wait_for_answer(struct job *job, struct owned *o, struct offer *f, uint64_t to,
	const char *image, struct err *err)
{
	uint64_t began = env_now_ms(job->env), sent = 0;

	while (!answered(o->pool->migrations, f)) {
		uint64_t now = env_now_ms(job->env);

		if (o->cancel)
			return err_set(err, ERR_TASK_CANCELLED, o->task, NULL);
		if (!listens(o, to, now - began))
			return err_set(err, ERR_VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED, NULL);
		if (sent == 0 || now >= sent + AGAIN_MS) {
			send_guest(o, to, image);
			sent = now;
		}
		if (job_sleep(job, LOOK_MS) == ERR_DEAD)
			return ERR_DEAD;
		o->woken = job->cancelled = false; /* o->cancel says it */
	}
	if (f->why.code == NULL)
		return 0;
	err_move(err, &f->why);
	return ERR_API;
}

static int offer(struct job *job, struct owned *o, const char *host, const char *image,
	char incarnation[128], struct err *err)
{
	struct migrations *m = o->pool->migrations;
	struct offer f = { .job = job, .task = o->task }, **at = &m->offers;
	int rc;

	pthread_mutex_lock(&m->mutex);
	f.next = m->offers;
	m->offers = &f;
	pthread_mutex_unlock(&m->mutex);
	rc = wait_for_answer(job, o, &f, raft_id_of(o->pool, host), image, err);
	pthread_mutex_lock(&m->mutex);
	while (*at != &f)
		at = &(*at)->next;
	*at = f.next;
	pthread_mutex_unlock(&m->mutex);
	strcpy(incarnation, f.incarnation);
	err_fini(&f.why);
	return rc;
}

struct hand_over {
	struct owned *o;
	const char *host, *incarnation;
	struct err *err;
	int rc; /* ERR_API: it cannot be */
};

static void build_hand_over(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct hand_over *h = arg;
	struct owned *o = h->o;
	const struct db_row *vm = db_view_get(view, MODEL_CLASS_VM, o->vm),
			    *task = db_view_get(view, MODEL_CLASS_task, o->task),
			    *self = pool_self(o->pool, view),
			    *to = db_view_get(view, MODEL_CLASS_host, h->host), *member;

	member =
		to != NULL ? db_view_get(view, MODEL_CLASS__member, db_row_s(to, HOST_uuid)) : NULL;
	if (place_of(vm, db_row_ref(self)) == ELSEWHERE)
		return; /* it has happened */
	if (vm == NULL || !task_pending(task) || task_cancel_asked(task, &o->job->arena))
		h->rc = err_set(h->err, ERR_TASK_CANCELLED, o->task, NULL);
	else if (member == NULL ||
		 strcmp(db_row_s(member, _MEMBER_incarnation), h->incarnation) != 0)
		h->rc = failed(o, h->host, "the destination has been started anew", h->err);
	if (h->rc != 0)
		return;
	db_txn_origin(txn, task_origin(task, &o->job->arena));
	db_txn_need_version(txn, MODEL_CLASS_task, o->task, db_row_modified(task));
	db_txn_need_field(txn, MODEL_CLASS_VM, o->vm, VM_resident_on, val_string(db_row_ref(self)));
	db_txn_need_field(txn, MODEL_CLASS__member, db_row_s(to, HOST_uuid), _MEMBER_incarnation,
		val_string(h->incarnation));
	db_txn_set(txn, MODEL_CLASS_VM, o->vm, VM_resident_on, val_string(h->host));
	db_txn_set(txn, MODEL_CLASS_task, o->task, TASK_owner, val_string(h->host));
	db_txn_set(txn, MODEL_CLASS_task, o->task, TASK_resident_on, val_string(h->host));
	db_txn_set(txn, MODEL_CLASS_task, o->task, TASK_incarnation, val_string(h->incarnation));
}

static int hand_over(struct owned *o, const char *host, const char *incarnation, struct err *err)
{
	struct hand_over h = { o, host, incarnation, err, 0 };
	int rc = commit_facts(o, build_hand_over, &h);

	return rc != 0 ? rc : h.rc;
}

/* What is set aside for it where it goes; 0: not known. */
static int64_t room(struct owned *o, const char *host)
{
	struct db_view view;
	const struct db_row *vm = owner_vm(o, &view);
	int64_t bytes = 0;

	if (vm != NULL)
		bytes = memory_set_aside(&view, vm, db_view_get(&view, MODEL_CLASS_host, host));
	db_view_unpin(&view);
	return bytes;
}

/* Until the guest is the other host's. */
static int send(struct job *job, struct owned *o, const char *host, struct err *err)
{
	struct val params = val_map(), v;
	char incarnation[128] = "";
	const char *image;
	int64_t bytes = room(o, host);
	int rc;

	if (bytes > 0)
		val_map_push(&job->arena, &params, "memory_kib", val_int(bytes / 1024));
	rc = owner_agent_op(job, o, AGENT_VM_migrate_send, &params, err);

	if (rc != 0)
		return rc;
	params = val_map();
	val_map_push(&job->arena, &params, "uuid", val_string(o->vm_uuid));
	val_map_push(&job->arena, &params, "job", val_string(o->task_uuid));
	rc = owner_agent_ask(job, o, AGENT_VM_migrate_image, &params, &v, err);
	if (rc != 0)
		return rc;
	image = val_get_s(&v, "image");
	if (image == NULL || strlen(image) >= IMAGE_MAX)
		return failed(o, host, "the guest cannot be sent", err);
	rc = offer(job, o, host, image, incarnation, err);
	return rc != 0 ? rc : hand_over(o, host, incarnation, err);
}

/* From here on no hand-over of this task can be applied any more; or it has been. */
static void build_bar(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct owned *o = arg;
	const struct db_row *vm = db_view_get(view, MODEL_CLASS_VM, o->vm),
			    *task = db_view_get(view, MODEL_CLASS_task, o->task);
	const char *self = db_row_ref(pool_self(o->pool, view));

	if (place_of(vm, self) != HERE || task == NULL)
		return;
	db_txn_origin(txn, task_origin(task, &o->job->arena));
	db_txn_need_field(txn, MODEL_CLASS_VM, o->vm, VM_resident_on, val_string(self));
	db_txn_need_row(txn, MODEL_CLASS_task, o->task);
	db_txn_touch(txn, MODEL_CLASS_task, o->task);
}

/* The guest runs on here. What the agent cannot do now it is asked again; in the end the task says
 * so, and whoever looks next goes on asking. */
static int keep(struct job *job, struct owned *o, struct err *err)
{
	int rc = ERR_API;

	for (unsigned i = 0; i < TRIES && rc == ERR_API; i++) {
		err_fini(err);
		if (i > 0 && job_sleep(job, LOOK_MS) == ERR_DEAD)
			return ERR_DEAD;
		job->cancelled = false;
		rc = tell(job, o, AGENT_VM_migrate_keep, err);
	}
	return rc;
}

/* The guest is ours, and there is no way back. */
static int arrive(struct job *job, struct owned *o, const char *host, struct err *err)
{
	struct err why = { 0 };
	struct facts f;
	int rc = keep(job, o, &why);

	if (rc == ERR_API) {
		failed(o, host, why.params[0] != NULL ? why.params[0] : why.code->name, err);
		err_fini(&why);
		rc = tell(job, o, AGENT_VM_migrate_drop, &why);
		err_fini(&why);
		return rc == ERR_DEAD ? rc : ERR_API;
	}
	if (rc == 0)
		rc = facts_read(job, o->pool, o->vm_uuid, &f);
	if (rc == 0 && strcmp(f.power_state, "Halted") == 0)
		return failed(o, host, "the domain is lost", err);
	return rc;
}

int vm_pool_migrate_run(
	struct job *job, void *task, const struct vm_pool_migrate_args *args, struct err *err)
{
	struct owned *o = task;
	struct err why = { 0 };
	struct db_view view;
	bool to_us;
	int rc;

	db_view_pin(o->pool->db, &view);
	to_us = strcmp(args->host, db_row_ref(pool_self(o->pool, &view))) == 0;
	db_view_unpin(&view);
	if (to_us)
		return arrive(job, o, args->host, err);
	rc = look(o) == HERE ? send(job, o, args->host, err) : 0;
	if (rc == ERR_DEAD)
		return rc;
	if (rc != 0 && rc != ERR_API)
		err_set(err, ERR_INTERNAL_ERROR, err_rc_name(rc), NULL);
	if (rc != 0 && commit_facts(o, build_bar, o) == ERR_DEAD)
		return ERR_DEAD;
	if (rc != 0 && look(o) == HERE) {
		rc = keep(job, o, &why);
		err_fini(&why);
		return rc == ERR_DEAD ? rc : ERR_API;
	}
	err_fini(err);
	settle_all(job, o);
	return 0; /* the end of the task is the other host's */
}
