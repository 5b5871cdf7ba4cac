/* Every step table: fail, cancel and crash at each step, then: no leftover in the simulated host,
 * and the record agrees. The agent runs on its real loop and lanes; a crash is a step that dies (no
 * undo) and a new agent on the same folder. */
#include "member/agent_priv.h"
#include "member/hv/hv_ops.h"
#include "agent/methods.h"
#include "tests/lib/suite.h"
#include "tests/ops/hooks.h"
#include "tests/ops/rows.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VM     "11111111-1111-4111-8111-111111111111"
#define SEED   "22222222-2222-4222-8222-222222222222"
#define TASK   "33333333-3333-4333-8333-333333333333"
#define REBOOT "44444444-4444-4444-8444-444444444444"
#define OTHER  "55555555-5555-4555-8555-555555555555"
#define LAST   "66666666-6666-4666-8666-666666666666"

enum mode { FAIL, CANCEL, CRASH };

struct bench {
	struct env env;
	struct arena arena;
	char dir[64];
	struct agent *agent;
	const struct op *op; /* whose step is hit */
	unsigned step;
	enum mode mode;
	bool armed;
	_Atomic bool hit;
	uint64_t hook_ms;	 /* 0: as long as in the product */
	int64_t timeout_s;	 /* of a clean shutdown or reboot; 0: 5 */
	const char *answer;	 /* of the guest to a shutdown, in the simulator's words */
	const struct hv_ops *hv; /* NULL: the simulator as it is */
};

static int before(void *arg, const struct op *op, unsigned step, struct err *err)
{
	struct bench *b = arg;
	struct arena a;
	struct val params = val_map(), ignored;

	if (!b->armed || b->hit || op != b->op || step != b->step)
		return 0;
	b->hit = true;
	if (b->mode == FAIL)
		return err_set(err, AGENT_ERR_domain_failed, "injected", NULL);
	if (b->mode == CRASH)
		return ERR_DEAD;
	arena_init(&a);
	val_map_push(&a, &params, "job", val_string(TASK));
	agent_dispatch(b->agent, NULL, AGENT_TASK_cancel, &params, &ignored, err);
	arena_fini(&a);
	return 0;
}

static void agent_begin(struct bench *b)
{
	struct op_watch watch = { before, NULL, b };
	char hooks[128];

	snprintf(hooks, sizeof hooks, "%s/hooks", b->dir);
	b->agent = agent_new(&(struct agent_config){ .env = &b->env,
		.dir = b->dir,
		.hv = b->hv,
		.machine.memory_kib = 1 << 20,
		.hooks = arena_strdup(&b->arena, hooks),
		.hook_ms = b->hook_ms,
		.watch = &watch });
	ck_assert_ptr_nonnull(b->agent);
	loop_start(b->agent->loop);
}

static void bench_open(struct bench *b)
{
	*b = (struct bench){ 0 };
	arena_init(&b->arena);
	env_uv_init(&b->env, "ops");
	b->env.log.level = LOG_ERR;
	/* in memory where there is such a folder: hundreds of agents are made, each with two files
	 */
	strcpy(b->dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/xpool-ops-XXXXXX"
						     : "/tmp/xpool-ops-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(b->dir));
	agent_begin(b);
}

static void bench_close(struct bench *b)
{
	static const char *const files[] = { "agent.db", "agent.db-wal", "agent.db-shm",
		"domains.db", "domains.db-wal", "domains.db-shm" };
	char path[128];

	agent_free(b->agent);
	arena_fini(&b->arena);
	hooks_remove(b->dir);
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		snprintf(path, sizeof path, "%s/%s", b->dir, files[i]);
		unlink(path);
	}
	ck_assert_int_eq(rmdir(b->dir), 0);
}

/* A request, as the server would make it, on a lane. */
struct ask {
	struct bench *b;
	enum agent_method_id method;
	struct val params;
	char state[16], error[32], power_state[16], data[4][HOOK_OUTPUT_MAX + CHILD_WHY_MAX];
	int rc;
	struct parker *done;
};

static void ask_main(struct job *job, void *arg)
{
	struct ask *q = arg;
	struct err err = { 0 };
	struct val v = val_void();

	q->rc = agent_dispatch(q->b->agent, job, q->method, &q->params, &v, &err);
	if (val_get_s(&v, "state") != NULL)
		snprintf(q->state, sizeof q->state, "%s", val_get_s(&v, "state"));
	if (val_get_s(&v, "error") != NULL)
		snprintf(q->error, sizeof q->error, "%s", val_get_s(&v, "error"));
	for (uint32_t i = 0; val_get(&v, "data") != NULL && i < val_get(&v, "data")->n && i < 4;
		i++)
		snprintf(q->data[i], sizeof q->data[i], "%s", val_get(&v, "data")->items[i].s);
	if (val_get_s(&v, "power_state") != NULL)
		snprintf(q->power_state, sizeof q->power_state, "%s", val_get_s(&v, "power_state"));
	err_fini(&err);
	q->b->env.ops->unpark(q->done);
}

static void ask(struct bench *b, struct ask *q, enum agent_method_id method, struct val params)
{
	*q = (struct ask){ .b = b, .method = method, .params = params };
	q->done = b->env.ops->parker_new(&b->env);
	ck_assert_int_eq(lane_submit(b->agent->api, "", ask_main, q, NULL), 0);
	ck_assert_int_eq(b->env.ops->park(q->done, 10 * 1000000), 0);
	b->env.ops->parker_free(q->done);
}

static void nap(struct bench *b)
{
	struct parker *p = b->env.ops->parker_new(&b->env);

	b->env.ops->park(p, 5000);
	b->env.ops->parker_free(p);
}

/* What a test wants of the machine: pairs of its keys, and one of its simulated guest. */
struct machine {
	const char *key, *value, *sim_key;
	int64_t sim_value, age_s;
};

static struct val vif(struct arena *a, int64_t device)
{
	struct val v = val_map();

	val_map_push(a, &v, "device", val_int(device));
	val_map_push(a, &v, "mac", val_string("02:00:00:00:00:01"));
	val_map_push(a, &v, "bridge", val_string("xenbr0"));
	return v;
}

static unsigned vifs(struct bench *b)
{
	struct hv_vif list[4];
	struct hv_domain d;

	return hv_domain_find(b->agent->hv, VM, &d) ? hv_vif_list(b->agent->hv, d.domid, list, 4)
						    : 0;
}

static void add_machine(struct bench *b, const struct machine *m)
{
	struct arena a;
	struct val params = val_map(), metadata = val_map(), vm = val_map(), sim = val_map(),
		   vifs = val_set();
	struct ask q;

	arena_init(&a);
	if (m->key != NULL)
		val_map_push(&a, &vm, m->key, val_string(m->value));
	if (m->sim_key != NULL)
		val_map_push(&a, &sim, m->sim_key, val_int(m->sim_value));
	if (b->answer != NULL)
		val_map_push(&a, &sim, "shutdown", val_string(b->answer));
	val_map_push(&a, &sim, "age_s", val_int(m->age_s));
	val_map_push(&a, &vm, "uuid", val_string(VM));
	val_map_push(&a, &vm, "memory_static_max_kib", val_int(1024));
	val_map_push(&a, &sim, "shutdown_ms", val_int(10));
	val_map_push(&a, &vm, "sim", sim);
	val_map_push(&a, &metadata, "vm", vm);
	val_set_push(&a, &vifs, vif(&a, 0));
	val_map_push(&a, &metadata, "vifs", vifs);
	val_map_push(&a, &params, "metadata", metadata);
	ask(b, &q, AGENT_VM_add, params);
	ck_assert_int_eq(q.rc, 0);
	arena_fini(&a);
}

static void add_vm(struct bench *b)
{
	add_machine(b, &(struct machine){ 0 });
}

/* Begin an operation; wait for its end unless it dies. */
static void operate(
	struct bench *b, enum agent_method_id method, const char *task, bool clean, struct ask *q)
{
	struct arena a;
	struct val params = val_map(), stat = val_map();

	arena_init(&a);
	val_map_push(&a, &params, "uuid", val_string(VM));
	val_map_push(&a, &params, "job", val_string(task));
	if (clean)
		val_map_push(
			&a, &params, "timeout_s", val_int(b->timeout_s > 0 ? b->timeout_s : 5));
	if (method == AGENT_VIF_plug)
		val_map_push(&a, &params, "vif", vif(&a, 1));
	else if (strncmp(agent_methods[method].name, "VIF.", 4) == 0)
		val_map_push(&a, &params, "device", val_int(0));
	if (method == AGENT_VIF_move)
		val_map_push(&a, &params, "bridge", val_string("xenbr1"));
	if (method == AGENT_VIF_set_locking_mode)
		val_map_push(&a, &params, "locking_mode", val_string("locked"));
	if (method == AGENT_VIF_set_carrier)
		val_map_push(&a, &params, "carrier", val_bool(false));
	val_map_push(&a, &stat, "job", val_string(task));
	ask(b, q, method, params);
	ck_assert_int_eq(q->rc, 0);
	for (int i = 0; i < 2000; i++) {
		bool idle;

		ask(b, q, AGENT_TASK_stat, stat);
		pthread_mutex_lock(&b->agent->mutex);
		idle = b->agent->runs == NULL;
		pthread_mutex_unlock(&b->agent->mutex);
		if (strcmp(q->state, "pending") != 0 ||
			(b->armed && b->hit && b->mode == CRASH && idle))
			break;
		nap(b);
	}
	arena_fini(&a);
}

static void power_state(struct bench *b, struct ask *q)
{
	struct arena a;
	struct val params = val_map();

	arena_init(&a);
	val_map_push(&a, &params, "uuid", val_string(VM));
	ask(b, q, AGENT_VM_stat, params);
	arena_fini(&a);
}

/* Nothing half made stays: at most one domain, unmarked, and the record says the same; soon. */
static void check_agreement(struct bench *b, const char *what)
{
	struct hv_domain list[4];
	struct ask q;
	unsigned n = 0;
	bool whole = false, agree = false;

	for (int i = 0; i < 1000 && !(whole && agree); i++) {
		if (i > 0)
			nap(b);
		n = hv_domain_list(b->agent->hv, list, 4);
		whole = n == 0 || (n == 1 && !list[0].marked && !list[0].shut_down);
		power_state(b, &q);
		agree = strcmp(q.power_state, n == 0	       ? "Halted"
					      : list[0].paused ? "Paused"
							       : "Running") == 0;
	}
	ck_assert_msg(whole, "%s: %u domains, or a half-made one stays", what, n);
	ck_assert_msg(agree, "%s: %u domains and record %s", what, n, q.power_state);
}

/* Before the change it has the values of vif(); then those of operate(). */
static bool changed(struct bench *b, const struct op *op)
{
	struct hv_vif list[4];
	struct hv_domain d;

	ck_assert(hv_domain_find(b->agent->hv, VM, &d));
	ck_assert_uint_eq(hv_vif_list(b->agent->hv, d.domid, list, 4), 1);
	if (op == &vif_move_op)
		return strcmp(list[0].bridge, "xenbr1") == 0;
	if (op == &vif_set_carrier_op)
		return !list[0].carrier;
	return strcmp(list[0].locking_mode, "locked") == 0;
}

static bool is_change(const struct op *op)
{
	return op == &vif_move_op || op == &vif_set_locking_mode_op || op == &vif_set_carrier_op;
}

/* An interface is as it was before the step that is the point of no return, and new behind it; so
 * it stays when its guest starts again from its record. */
static void check_change(struct bench *b, const struct op *op, bool committed, const char *what)
{
	struct ask q;

	ck_assert_msg(changed(b, op) == committed, "%s: the domain", what);
	operate(b, AGENT_VM_reboot, REBOOT, false, &q);
	ck_assert_str_eq(q.state, "completed");
	ck_assert_msg(changed(b, op) == committed, "%s: the record", what);
}

static void one_case(const struct row *t, unsigned step, enum mode mode)
{
	static const char *const modes[] = { "fail", "cancel", "crash" };
	struct bench b;
	struct ask q;
	char what[64];
	unsigned flags = 0;
	bool committed;

	for (unsigned k = 0; k < step; k++)
		flags |= t->op->steps[k].flags;
	committed = flags != 0;
	snprintf(what, sizeof what, "%s %s at %s", t->op->name, modes[mode],
		step < t->op->n_steps ? t->op->steps[step].name : "its end");
	bench_open(&b);
	add_vm(&b);
	if (t->running) {
		operate(&b, AGENT_VM_start, SEED, false, &q);
		ck_assert_str_eq(q.state, "completed");
	}
	b.op = t->op;
	b.step = step;
	b.mode = mode;
	b.armed = true;
	operate(&b, t->method, TASK, t->clean, &q);
	ck_assert_msg(b.hit, "%s: the step was not reached", what);
	if (mode == CRASH) {
		agent_free(b.agent);
		b.armed = false;
		agent_begin(&b);
		operate(&b, t->method, TASK, t->clean,
			&q); /* the same job: told what became of it, not begun again */
		ck_assert_msg(
			strcmp(q.state, "failed") == 0 && strcmp(q.error, "agent_restarted") == 0,
			"%s: %s %s", what, q.state, q.error);
	} else if (flags & OP_FORWARD || (mode == CANCEL && committed)) {
		ck_assert_msg(
			strcmp(q.state, "completed") == 0, "%s: %s %s", what, q.state, q.error);
	} else {
		ck_assert_msg(strcmp(q.state, "failed") == 0, "%s: %s", what, q.state);
		ck_assert_str_eq(q.error, mode == FAIL ? "domain_failed" : "cancelled");
	}
	if (mode != CRASH && (t->op == &vif_plug_op || t->op == &vif_unplug_op))
		ck_assert_msg(
			vifs(&b) == (committed ? t->vifs : 1), "%s: %u interfaces", what, vifs(&b));
	check_agreement(&b, what);
	if (is_change(t->op))
		check_change(&b, t->op, committed, what);
	/* what was not begun in earnest has not touched a running guest */
	if (t->op == &vm_reboot_op && mode != CRASH && step > 0 &&
		strcmp(t->op->steps[step - 1].name, "domain.destroy") != 0 && !committed &&
		step < 5) {
		power_state(&b, &q);
		ck_assert_msg(strcmp(q.power_state, "Running") == 0, "%s: %s", what, q.power_state);
	}
	bench_close(&b);
}

/* One can die behind the last step too, before the end is recorded. */
static void all_steps(enum mode mode)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		for (unsigned k = 0; k < rows[i].op->n_steps + (mode == CRASH); k++)
			one_case(&rows[i], k, mode);
}

START_TEST(each_step_failing_leaves_nothing)
{
	all_steps(FAIL);
}
END_TEST

START_TEST(each_step_cancelled_leaves_nothing)
{
	all_steps(CANCEL);
}
END_TEST

START_TEST(each_step_crashing_is_repaired_by_the_next_start)
{
	all_steps(CRASH);
}
END_TEST

START_TEST(same_job_is_the_same_task)
{
	struct bench b;
	struct ask q;

	bench_open(&b);
	add_vm(&b);
	operate(&b, AGENT_VM_start, TASK, false, &q);
	operate(&b, AGENT_VM_start, TASK, false, &q);
	ck_assert_str_eq(q.state, "completed");
	check_agreement(&b, "start twice");
	bench_close(&b);
}
END_TEST

/* What each operation is for, and what a guest that starts again by itself has. */
START_TEST(a_domain_has_the_interfaces_that_it_shall_have)
{
	struct bench b;
	struct ask q;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		bench_open(&b);
		add_vm(&b);
		if (rows[i].running)
			operate(&b, AGENT_VM_start, SEED, false, &q);
		operate(&b, rows[i].method, TASK, rows[i].clean, &q);
		ck_assert_str_eq(q.state, "completed");
		ck_assert_uint_eq(vifs(&b), rows[i].vifs);
		if (is_change(rows[i].op))
			check_change(&b, rows[i].op, true, rows[i].op->name);
		if (rows[i].op == &vif_plug_op || rows[i].op == &vif_unplug_op) {
			operate(&b, AGENT_VM_reboot, REBOOT, false, &q);
			ck_assert_uint_eq(vifs(&b), rows[i].vifs);
		}
		bench_close(&b);
	}
}
END_TEST

/* The head of some page of the records, which SQLite does not look at before it needs that page. */
START_TEST(an_agent_does_not_start_on_damaged_records)
{
	enum { PAGE = 4096, HEAD = 16 };
	struct bench b;
	struct ask q;
	struct sql *sql;
	char path[128];
	uint8_t was[HEAD];
	int fd, refused = 0;

	bench_open(&b);
	operate(&b, AGENT_VM_start, TASK, false, &q);
	agent_free(b.agent);
	snprintf(path, sizeof path, "%s/agent.db", b.dir);
	sql = sql_open(&b.env, path, SQL_DURABLE, "");
	ck_assert_int_eq(sql_run(sql, "PRAGMA journal_mode=DELETE", ""), 0);
	sql_close(sql);
	fd = open(path, O_RDWR);
	for (off_t at = PAGE; pread(fd, was, HEAD, at) == HEAD; at += PAGE) {
		const uint8_t junk[HEAD] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

		ck_assert_int_eq(pwrite(fd, junk, HEAD, at), HEAD);
		refused += agent_new(&(struct agent_config){
				   .env = &b.env, .dir = b.dir, .machine.memory_kib = 1 << 20 }) ==
			   NULL;
		ck_assert_int_eq(refused, at / PAGE);
		ck_assert_int_eq(pwrite(fd, was, HEAD, at), HEAD);
	}
	close(fd);
	ck_assert_int_ge(refused, 5);
	agent_begin(&b);
	bench_close(&b);
}
END_TEST

/* A guest that stops by itself: what follows is what its machine says. */
START_TEST(a_guest_that_stops_by_itself_gets_what_was_wanted)
{
	static const struct {
		struct machine machine;
		const char *power_state; /* in the end */
		bool another;		 /* with another domain */
	} cases[] = {
		{ { NULL, NULL, "poweroff_after_ms", 50, 0 }, "Halted", false },
		{ { "on_shutdown", "start", "poweroff_after_ms", 50, 0 }, "Running", true },
		{ { NULL, NULL, "reboot_after_ms", 50, 0 }, "Running", true },
		{ { "on_reboot", "shutdown", "reboot_after_ms", 50, 0 }, "Halted", false },
		{ { "on_crash", "start", "crash_after_ms", 50, 0 }, "Halted", false },
		{ { "on_crash", "start", "crash_after_ms", 50, 200 }, "Running", true },
		{ { "on_crash", "pause", "crash_after_ms", 50, 0 }, "Paused", false },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct hv_domain d;
		struct bench b;
		struct ask q;
		int first = 0;
		bool has, done = false;

		bench_open(&b);
		add_machine(&b, &cases[i].machine);
		operate(&b, AGENT_VM_start, TASK, false, &q);
		if (hv_domain_find(b.agent->hv, VM, &d))
			first = d.domid;
		for (int k = 0; k < 1000 && !done; k++) {
			nap(&b);
			power_state(&b, &q);
			/* on the way through a reboot it is never seen halted */
			ck_assert_msg(!cases[i].another || strcmp(q.power_state, "Halted") != 0,
				"case %zu: seen halted", i);
			has = hv_domain_find(b.agent->hv, VM, &d);
			done = strcmp(q.power_state, cases[i].power_state) == 0 &&
			       (!cases[i].another || (has && d.domid != first));
		}
		ck_assert_msg(done, "case %zu: %s", i, q.power_state);
		bench_close(&b);
	}
}
END_TEST

struct looker {
	struct bench *b;
	_Atomic bool stop;
	unsigned looks, halted;
};

static void *look(void *arg)
{
	struct looker *l = arg;
	struct ask q;

	while (!l->stop) {
		power_state(l->b, &q);
		l->looks++;
		l->halted += strcmp(q.power_state, "Running") != 0;
	}
	return NULL;
}

static bool find_slowly(struct hv_state *hv, const char *uuid, struct hv_domain *out)
{
	bool has = hv_sim.find(hv, uuid, out);

	if (!has)
		usleep(10000);
	return has;
}

/* Also by a look that takes longer than the rest of the reboot. */
START_TEST(a_reboot_is_never_seen_as_a_halt)
{
	struct hv_ops slow = hv_sim;
	struct looker l = { 0 };
	char task[UUID_LEN + 1];
	pthread_t thread;
	struct bench b;
	struct ask q;

	slow.find = find_slowly;
	bench_open(&b);
	agent_free(b.agent);
	b.hv = &slow;
	agent_begin(&b);
	add_vm(&b);
	operate(&b, AGENT_VM_start, TASK, false, &q);
	l.b = &b;
	ck_assert_int_eq(pthread_create(&thread, NULL, look, &l), 0);
	for (unsigned k = 0; k < 15; k++) {
		snprintf(task, sizeof task, "00000000-0000-4000-8000-%012u", k);
		operate(&b, AGENT_VM_reboot, task, false, &q);
		ck_assert_str_eq(q.state, "completed");
	}
	l.stop = true;
	pthread_join(thread, NULL);
	ck_assert_uint_gt(l.looks, 15);
	ck_assert_uint_eq(l.halted, 0);
	bench_close(&b);
}
END_TEST

#define OF_VM	"-vmuuid " VM " -reason "
#define DOMID_1 " -vmdomid 1\n"

/* Each folder's scripts by name, of each only executables; the next one also behind a status of 1.
 */
START_TEST(hooks_run_in_their_order_with_their_arguments)
{
	static const char *const scripts[] = { "vm-pre-start/20-b", "vm-pre-shutdown/a",
		"vm-post-destroy/a", "vm-pre-reboot/a", "vm-pre-suspend/a" };
	struct bench b;
	struct ask q;

	bench_open(&b);
	add_vm(&b);
	for (size_t i = 0; i < ARRAY_LEN(scripts); i++)
		hook_write(b.dir, scripts[i], 0755, "");
	hook_write(b.dir, "vm-pre-start/10-a", 0755, "exit 1");
	hook_write(b.dir, "vm-pre-start/30-d", 0755, "");
	hook_write(b.dir, "vm-pre-start/15-c", 0644, "");
	hook_write(b.dir, "vm-pre-start/.hidden", 0755, "");
	operate(&b, AGENT_VM_start, TASK, false, &q);
	ck_assert_str_eq(q.state, "completed");
	hooks_expect(b.dir, "vm-pre-start/10-a " OF_VM "none\nvm-pre-start/20-b " OF_VM
			    "none\nvm-pre-start/30-d " OF_VM "none\n");
	operate(&b, AGENT_VM_start, SEED, false, &q); /* it runs already */
	hooks_expect(b.dir, "");
	operate(&b, AGENT_VM_reboot, REBOOT, true, &q);
	ck_assert_str_eq(q.state, "completed");
	hooks_expect(b.dir,
		"vm-pre-shutdown/a " OF_VM "clean-reboot" DOMID_1 "vm-post-destroy/a " OF_VM
		"clean-reboot\nvm-pre-reboot/a " OF_VM "none\nvm-pre-start/10-a " OF_VM
		"none\nvm-pre-start/20-b " OF_VM "none\nvm-pre-start/30-d " OF_VM "none\n");
	operate(&b, AGENT_VM_shutdown, OTHER, false, &q);
	ck_assert_str_eq(q.state, "completed");
	hooks_expect(b.dir, "vm-pre-shutdown/a " OF_VM
			    "hard-shutdown -vmdomid 2\nvm-post-destroy/a " OF_VM "hard-shutdown\n");
	bench_close(&b);
}
END_TEST

static void expect_refused(
	struct ask *q, const char *script, const char *reason, const char *out, const char *status)
{
	const char *const expected[] = { script, reason, out, status };

	ck_assert_str_eq(q->error, "hook_failed");
	for (int i = 0; i < 4; i++)
		ck_assert_str_eq(q->data[i], expected[i]);
}

/* What was done is undone; behind the point of no return, and where nobody has asked, it goes on.
 */
START_TEST(a_hook_that_refuses_stops_what_can_be_stopped)
{
	struct bench b;
	struct ask q;

	bench_open(&b);
	add_vm(&b);
	hook_write(b.dir, "vm-pre-start/a", 0755, "echo not today; exit 2");
	hook_write(b.dir, "vm-pre-start/b", 0755, "");
	operate(&b, AGENT_VM_start, TASK, false, &q);
	expect_refused(&q, "vm-pre-start/a", "none", "not today\n", "2");
	hooks_expect(b.dir, "vm-pre-start/a " OF_VM "none\n");
	check_agreement(&b, "refused");
	hook_write(b.dir, "vm-pre-start/a", 0755, "kill -9 $$");
	operate(&b, AGENT_VM_start, SEED, false, &q);
	expect_refused(&q, "vm-pre-start/a", "none", "", "137");
	hook_write(b.dir, "vm-pre-start/a", 0755, "");
	operate(&b, AGENT_VM_start, OTHER, false, &q);
	ck_assert_str_eq(q.state, "completed");

	hook_write(b.dir, "vm-pre-shutdown/a", 0755, "exit 3");
	operate(&b, AGENT_VM_shutdown, REBOOT, true, &q);
	expect_refused(&q, "vm-pre-shutdown/a", "clean-shutdown", "", "3");
	check_agreement(&b, "refused");
	power_state(&b, &q);
	ck_assert_str_eq(q.power_state, "Running");

	hook_write(b.dir, "vm-pre-shutdown/a", 0755, "");
	hook_write(b.dir, "vm-post-destroy/a", 0755, "exit 2");
	operate(&b, AGENT_VM_shutdown, LAST, false, &q);
	ck_assert_str_eq(q.state, "completed");
	bench_close(&b);

	bench_open(&b);
	add_machine(&b, &(struct machine){ NULL, NULL, "poweroff_after_ms", 50, 0 });
	hook_write(b.dir, "vm-pre-shutdown/a", 0755, "exit 3");
	operate(&b, AGENT_VM_start, TASK, false, &q);
	for (int i = 0; i < 1000 && strcmp(q.power_state, "Halted") != 0; i++) {
		nap(&b);
		power_state(&b, &q);
	}
	ck_assert_str_eq(q.power_state, "Halted");
	check_agreement(&b, "stopped by itself");
	hooks_expect(b.dir, "vm-pre-shutdown/a " OF_VM "hard-shutdown" DOMID_1);
	bench_close(&b);
}
END_TEST

/* With all that it has started, also what holds its output; what it says is cut, and made text. */
START_TEST(a_hook_that_hangs_or_floods_is_an_error)
{
	char path[128];
	struct bench b;
	struct ask q;
	ssize_t n = -1;
	char c;
	int fd;

	bench_open(&b);
	agent_free(b.agent);
	b.hook_ms = 1000;
	agent_begin(&b);
	add_vm(&b);
	snprintf(path, sizeof path, "%s/held", b.dir);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	hook_write(b.dir, "vm-pre-start/a", 0755,
		"sleep 60 >\"${0%/hooks/*}/held\" & echo begun; wait");
	operate(&b, AGENT_VM_start, TASK, false, &q);
	expect_refused(
		&q, "vm-pre-start/a", "none", "begun\n[the script did not end within 1 s]", "-1");
	/* soon nobody can write to it any more */
	for (int i = 0; i < 1000 && (n = read(fd, &c, 1)) < 0; i++)
		nap(&b);
	ck_assert_int_eq(n, 0);
	close(fd);
	ck_assert_int_eq(unlink(path), 0);

	hook_write(b.dir, "vm-pre-start/a", 0755,
		"printf 'a\\000\\001\\377\\n'; head -c 300000 /dev/zero; exit 9");
	operate(&b, AGENT_VM_start, SEED, false, &q);
	ck_assert_str_eq(q.error, "hook_failed");
	ck_assert_int_eq(strncmp(q.data[2], "a???\n?????", 10), 0);
	ck_assert_uint_eq(strlen(q.data[2]), HOOK_OUTPUT_MAX);
	ck_assert_str_eq(q.data[3], "9");
	hook_write(b.dir, "vm-pre-start/a", 0755, "(exec sleep 60) & exit 0");
	operate(&b, AGENT_VM_start, OTHER, false, &q); /* what it leaves behind holds up nothing */
	ck_assert_str_eq(q.state, "completed");
	bench_close(&b);
}
END_TEST

START_TEST(a_guest_that_does_not_stop_runs_on)
{
	static const struct {
		enum agent_method_id method;
		const char *answer, *error;
	} cases[] = { { AGENT_VM_shutdown, "ignore", "no_shutdown_ack" },
		{ AGENT_VM_shutdown, "hang", "shutdown_timeout" },
		{ AGENT_VM_reboot, "ignore", "no_shutdown_ack" },
		{ AGENT_VM_reboot, "hang", "shutdown_timeout" } };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct bench b;
		struct ask q;
		struct hv_domain was, is;

		bench_open(&b);
		b.answer = cases[i].answer;
		add_vm(&b);
		operate(&b, AGENT_VM_start, TASK, false, &q);
		ck_assert_str_eq(q.state, "completed");
		ck_assert(hv_domain_find(b.agent->hv, VM, &was));
		b.timeout_s = 1;
		operate(&b, cases[i].method, REBOOT, true, &q);
		ck_assert_str_eq(q.state, "failed");
		ck_assert_str_eq(q.error, cases[i].error);
		if (strcmp(q.error, "shutdown_timeout") == 0)
			ck_assert_str_eq(q.data[0], "1");
		ck_assert(hv_domain_find(b.agent->hv, VM, &is));
		ck_assert_int_eq(was.domid, is.domid);
		power_state(&b, &q);
		ck_assert_str_eq(q.power_state, "Running");
		check_agreement(&b, cases[i].answer);
		bench_close(&b);
	}
}
END_TEST

START_TEST(more_scripts_than_a_hook_may_have_are_left_out_and_told_of)
{
	struct bench b;
	struct ask q;
	char name[32], said[4096] = "", *heard;
	unsigned ran = 0;
	FILE *log = tmpfile();

	ck_assert_ptr_nonnull(log);
	bench_open(&b);
	add_vm(&b);
	for (int i = 0; i < HOOK_SCRIPTS_MAX + 2; i++) {
		snprintf(name, sizeof name, "vm-pre-start/%03d", i);
		hook_write(b.dir, name, 0755, "");
	}
	b.env.log.level = LOG_WARN;
	ck_assert_int_ge(dup2(fileno(log), STDERR_FILENO), 0);
	operate(&b, AGENT_VM_start, TASK, false, &q);
	ck_assert_str_eq(q.state, "completed");
	heard = hooks_heard(b.dir);
	for (const char *c = heard; *c != 0; c++)
		ran += *c == '\n';
	ck_assert_uint_eq(ran, HOOK_SCRIPTS_MAX);
	ck_assert_ptr_nonnull(strstr(heard, "vm-pre-start/063 "));
	ck_assert_ptr_null(strstr(heard, "vm-pre-start/064 "));
	free(heard);
	rewind(log);
	said[fread(said, 1, sizeof said - 1, log)] = 0;
	ck_assert_ptr_nonnull(strstr(said, "event=hooks_too_many "));
	ck_assert_ptr_nonnull(strstr(said, "not_run=2 most=64"));
	fclose(log);
	bench_close(&b);
}
END_TEST

START_TEST(what_others_could_have_written_is_no_hook)
{
	struct bench b;
	struct ask q;
	char path[128];

	bench_open(&b);
	add_vm(&b);
	hook_write(b.dir, "vm-pre-start/a", 0775, "exit 2");
	hook_write(b.dir, "vm-pre-start/b", 0757, "exit 2");
	hook_write(b.dir, "vm-pre-shutdown/a", 0755, "exit 2");
	snprintf(path, sizeof path, "%s/hooks/vm-pre-shutdown", b.dir);
	ck_assert_int_eq(chmod(path, 0777), 0);
	operate(&b, AGENT_VM_start, TASK, false, &q);
	ck_assert_str_eq(q.state, "completed");
	operate(&b, AGENT_VM_shutdown, SEED, false, &q);
	ck_assert_str_eq(q.state, "completed");
	hook_write(b.dir, "vm-pre-start/c", 0755, "exit 2");
	if (geteuid() == 0) { /* somebody else's */
		snprintf(path, sizeof path, "%s/hooks/vm-pre-start/c", b.dir);
		ck_assert_int_eq(chown(path, 65534, 65534), 0);
		operate(&b, AGENT_VM_start, OTHER, false, &q);
		ck_assert_str_eq(q.state, "completed");
		ck_assert_int_eq(chown(path, 0, 0), 0);
		operate(&b, AGENT_VM_shutdown, REBOOT, false, &q);
	}
	hooks_expect(b.dir, "");
	operate(&b, AGENT_VM_start, LAST, false, &q);
	expect_refused(&q, "vm-pre-start/c", "none", "", "2");
	snprintf(path, sizeof path, "%s/hooks", b.dir);
	ck_assert_int_eq(chmod(path, 0777), 0);
	operate(&b, AGENT_VM_start, VM, false, &q);
	ck_assert_str_eq(q.state, "completed");
	bench_close(&b);
}
END_TEST

/* Begin an operation, cancel it when a script has said that it runs. */
static void cancel_in_hook(struct bench *b, enum agent_method_id method, const char *task)
{
	struct val params = val_map(), ids = val_map();
	char path[128];
	struct arena a;
	struct ask q;

	arena_init(&a);
	val_map_push(&a, &params, "uuid", val_string(VM));
	val_map_push(&a, &params, "job", val_string(task));
	val_map_push(&a, &ids, "job", val_string(task));
	ask(b, &q, method, params);
	snprintf(path, sizeof path, "%s/heard", b->dir);
	for (int i = 0; i < 1000 && access(path, F_OK) != 0; i++)
		nap(b);
	ck_assert_int_eq(access(path, F_OK), 0);
	ask(b, &q, AGENT_TASK_cancel, ids);
	arena_fini(&a);
}

/* A cancel ends the script with the operation, while there is a way back; an agent that dies runs
 * none again. */
START_TEST(a_cancel_ends_a_hook_and_a_restart_repeats_none)
{
	struct bench b;
	struct ask q;
	char path[128];
	int fd;

	bench_open(&b);
	add_vm(&b);
	hook_write(b.dir, "vm-pre-start/a", 0755, "exec sleep 60");
	cancel_in_hook(&b, AGENT_VM_start, TASK);
	operate(&b, AGENT_VM_start, TASK, false, &q); /* until its end: the same task */
	ck_assert_str_eq(q.error, "cancelled");
	check_agreement(&b, "cancelled");
	hooks_expect(b.dir, "vm-pre-start/a " OF_VM "none\n");

	hook_write(b.dir, "vm-pre-start/a", 0755, "");
	b.op = &vm_start_op;
	b.step = 2; /* behind it */
	b.mode = CRASH;
	b.armed = true;
	operate(&b, AGENT_VM_start, SEED, false, &q);
	agent_free(b.agent);
	b.armed = false;
	agent_begin(&b);
	operate(&b, AGENT_VM_start, SEED, false, &q);
	ck_assert_str_eq(q.error, "agent_restarted");
	check_agreement(&b, "restarted");
	hooks_expect(b.dir, "vm-pre-start/a " OF_VM "none\n");

	operate(&b, AGENT_VM_start, OTHER, false, &q);
	free(hooks_heard(b.dir));
	snprintf(path, sizeof path, "%s/held", b.dir);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	hook_write(b.dir, "vm-post-destroy/a", 0755,
		"read x <\"${0%/hooks/*}/held\"; echo end >>\"${0%/hooks/*}/heard\"");
	cancel_in_hook(&b, AGENT_VM_shutdown, REBOOT);
	nap(&b);
	ck_assert_int_eq(write(fd, "x\n", 2), 2);
	operate(&b, AGENT_VM_shutdown, REBOOT, false, &q);
	ck_assert_str_eq(q.state, "completed");
	hooks_expect(b.dir, "vm-post-destroy/a " OF_VM "hard-shutdown\nend\n");
	close(fd);
	ck_assert_int_eq(unlink(path), 0);
	bench_close(&b);
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {
		each_step_failing_leaves_nothing,
		each_step_cancelled_leaves_nothing,
		each_step_crashing_is_repaired_by_the_next_start,
		same_job_is_the_same_task,
		an_agent_does_not_start_on_damaged_records,
		a_domain_has_the_interfaces_that_it_shall_have,
		a_guest_that_stops_by_itself_gets_what_was_wanted,
		a_reboot_is_never_seen_as_a_halt,
		hooks_run_in_their_order_with_their_arguments,
		a_hook_that_refuses_stops_what_can_be_stopped,
		a_hook_that_hangs_or_floods_is_an_error,
		a_guest_that_does_not_stop_runs_on,
		more_scripts_than_a_hook_may_have_are_left_out_and_told_of,
		what_others_could_have_written_is_no_hook,
		a_cancel_ends_a_hook_and_a_restart_repeats_none,
	};

	if (argc > 2 && strcmp(argv[1], "--exec") == 0) /* the agent runs itself for a script */
		return child_exec_main(argv + 2);

	return suite_run_apart("ops", tests, ARRAY_LEN(tests), 300);
}
