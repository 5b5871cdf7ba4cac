/* Disks at the agent: every step of every table that touches them fails, is cancelled, crashes;
 * then nothing half made is in the SR, and locks, records and domains agree. Two agents on one
 * folder are two hosts that see one SR. */
#include "agent/methods.h"
#include "member/ops/ops_priv.h"
#include "member/sr_priv.h"
#include "rpc/base/file.h"
#include "rpc/wire/codec.h"
#include "tests/lib/suite.h"
#include "tests/ops/hooks.h"
#include "tests/ops/rows.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SR	       "aaaaaaaa-0000-4000-8000-000000000001"
#define DISK	       "dddddddd-0000-4000-8000-000000000001"
#define CD	       "dddddddd-0000-4000-8000-000000000002"
#define SNAP	       "dddddddd-0000-4000-8000-000000000003"
#define COPY	       "dddddddd-0000-4000-8000-000000000004"
#define COPY2	       "dddddddd-0000-4000-8000-000000000005"
#define IMAGE	       "dddddddd-0000-4000-8000-000000000006"
#define VM	       "11111111-1111-4111-8111-111111111111"
#define VM2	       "11111111-1111-4111-8111-111111111112"
#define HOST1	       "99999999-0000-4000-8000-000000000001"
#define HOST2	       "99999999-0000-4000-8000-000000000002"
#define IN	       "\"sr\": \"" SR "\""
#define OF(x)	       IN ", \"vdi\": \"" x "\""
#define DRIVE(mode, x) "{\"id\": \"xvda\", \"mode\": \"" mode "\", " OF(x) "}"
#define RESET(mode, x)                                                                             \
	"{\"id\": \"xvda\", \"mode\": \"" mode "\", \"persistent\": false, " OF(x) "}"
#define ON_BOOT(how) ", " OF(DISK) ", \"on_boot\": \"" how "\""

enum mode { FAIL, CANCEL, CRASH };

/* One host. */
struct bench {
	struct env env;
	char root[64], dir[80], hooks[96];
	const char *host;
	struct agent *agent;
	const struct op *_Atomic op;	   /* whose step is hit; NULL: none */
	const struct op *_Atomic stranger; /* one that ran and has no row; NULL: none */
	unsigned step;
	enum mode mode;
	_Atomic bool hit;
	char task[UUID_LEN + 1];
	/* of the last call */
	struct arena arena;
	struct val result;
	char error[64], p0[64], p1[64];
};

static bool has_row(const struct op *op);

static int before(void *arg, const struct op *op, unsigned step, struct err *err)
{
	struct bench *b = arg;
	struct val params = val_map(), ignored;
	struct arena a;

	if (!has_row(op))
		b->stranger = op;
	if (op != b->op || step != b->step)
		return 0;
	b->hit = true;
	if (b->mode == FAIL)
		return err_set(err, AGENT_ERR_domain_failed, "injected", NULL);
	if (b->mode == CRASH)
		return ERR_DEAD;
	arena_init(&a);
	val_map_push(&a, &params, "job", val_string(b->task));
	agent_dispatch(b->agent, NULL, AGENT_TASK_cancel, &params, &ignored, err);
	arena_fini(&a);
	return 0;
}

struct ask {
	struct bench *b;
	enum agent_method_id method;
	struct val params;
	struct parker *done;
};

static void ask_main(struct job *job, void *arg)
{
	struct ask *q = arg;
	struct bench *b = q->b;
	struct err err = { 0 };
	struct val v = val_void();

	err_check(
		agent_check_params(&agent_methods[q->method], &q->params, &job->arena, &err), &err);
	if (err.code == NULL)
		err_check(agent_dispatch(b->agent, job, q->method, &q->params, &v, &err), &err);
	b->result = val_dup(&b->arena, &v);
	snprintf(b->error, sizeof b->error, "%s", err.code != NULL ? err.code->name : "");
	snprintf(b->p0, sizeof b->p0, "%s", err.n > 0 ? err.params[0] : "");
	snprintf(b->p1, sizeof b->p1, "%s", err.n > 1 ? err.params[1] : "");
	err_fini(&err);
	b->env.ops->unpark(q->done);
}

/* A request as JSON; its error's name, "" for none. */
static const char *call(struct bench *b, enum agent_method_id method, const char *params)
{
	struct ask q = { .b = b, .method = method };
	const char *why = "";

	arena_fini(&b->arena);
	arena_init(&b->arena);
	ck_assert_msg(rpc_json_parse(&b->arena, params, strlen(params), &q.params, &why) == 0,
		"%s: %s", why, params);
	q.done = b->env.ops->parker_new(&b->env);
	ck_assert_int_eq(lane_submit(b->agent->api, "", ask_main, &q, NULL), 0);
	ck_assert_int_eq(b->env.ops->park(q.done, 20 * 1000000), 0);
	b->env.ops->parker_free(q.done);
	return b->error;
}

static void good(struct bench *b, enum agent_method_id method, const char *params)
{
	ck_assert_msg(*call(b, method, params) == 0, "%s %s: %s %s", agent_methods[method].name,
		params, b->error, b->p0);
}

static void nap(struct bench *b)
{
	struct parker *p = b->env.ops->parker_new(&b->env);

	b->env.ops->park(p, 5000);
	b->env.ops->parker_free(p);
}

/* Begin a task and wait for its end, unless it dies; its error's name. uuid may be in rest. */
static const char *operate(struct bench *b, enum agent_method_id method, const char *uuid,
	const char *task, const char *rest)
{
	struct arena a;
	const char *state = "pending", *error;

	arena_init(&a);
	snprintf(b->task, sizeof b->task, "%s", task);
	good(b, method,
		arena_printf(&a, "{\"uuid\": \"%s\", \"job\": \"%s\"%s}", uuid, task, rest));
	for (int i = 0; i < 4000 && strcmp(state, "pending") == 0; i++) {
		bool idle;

		pthread_mutex_lock(&b->agent->mutex);
		idle = b->agent->runs == NULL;
		pthread_mutex_unlock(&b->agent->mutex);
		good(b, AGENT_TASK_stat, arena_printf(&a, "{\"job\": \"%s\"}", task));
		state = val_get_s(&b->result, "state");
		if (b->hit && b->mode == CRASH && idle)
			break;
		if (strcmp(state, "pending") == 0)
			nap(b);
	}
	error = strcmp(state, "completed") == 0 ? "" : val_get_s(&b->result, "error");
	snprintf(b->error, sizeof b->error, "%s", error);
	error = val_get(&b->result, "data")->n > 0 ? val_get(&b->result, "data")->items[0].s : "";
	snprintf(b->p0, sizeof b->p0, "%s", error);
	arena_fini(&a);
	return b->error;
}

static void agent_begin(struct bench *b)
{
	b->agent = agent_new(&(struct agent_config){ .env = &b->env,
		.dir = b->dir,
		.machine.memory_kib = 1 << 20,
		.sr_root = b->root,
		.hooks = b->hooks,
		.watch = &(struct op_watch){ before, NULL, b } });
	ck_assert_ptr_nonnull(b->agent);
	loop_start(b->agent->loop);
}

static const char *attach(struct bench *b, enum agent_method_id method)
{
	struct arena a;

	arena_init(&a);
	call(b, method,
		arena_printf(&a,
			"{" IN ", \"type\": \"file\", \"config\": {\"location\": \"%s/sr\"}%s%s%s}",
			b->root, method == AGENT_SR_attach ? ", \"host\": \"" : "",
			method == AGENT_SR_attach ? b->host : "",
			method == AGENT_SR_attach ? "\"" : ""));
	arena_fini(&a);
	return b->error;
}

/* A host; root NULL: the first, which makes the SR and its disks. */
static void bench_open(struct bench *b, const char *root, const char *host)
{
	*b = (struct bench){ .host = host };
	arena_init(&b->arena);
	env_uv_init(&b->env, "disks");
	b->env.log.level = LOG_ERR;
	strcpy(b->root, root != NULL ? root : "/dev/shm/xpool-disks-XXXXXX");
	if (root == NULL)
		ck_assert_ptr_nonnull(mkdtemp(b->root));
	snprintf(b->dir, sizeof b->dir, "%s/%s", b->root, host);
	snprintf(b->hooks, sizeof b->hooks, "%s/hooks", b->dir);
	ck_assert_int_eq(mkdir(b->dir, 0700), 0);
	agent_begin(b);
	ck_assert_str_eq(attach(b, AGENT_SR_create), "");
	ck_assert_str_eq(attach(b, AGENT_SR_attach), "");
	if (root != NULL)
		return;
	good(b, AGENT_VDI_create, "{" OF(DISK) ", \"size\": 4194304, \"name\": \"disk\"}");
	good(b, AGENT_VDI_create, "{" OF(IMAGE) ", \"size\": 65536, \"type\": \"suspend\"}");
	good(b, AGENT_VDI_create, "{" OF(CD) ", \"size\": 1024, \"read_only\": true}");
}

/* Everything goes, also what the test has not named. */
static void on_entry(void *arg, const char *name)
{
	char path[512];
	struct stat st;

	snprintf(path, sizeof path, "%s/%s", (const char *)arg, name);
	if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		folder_list(path, on_entry, path);
		rmdir(path);
	} else {
		unlink(path);
	}
}

static void bench_close(struct bench *b)
{
	agent_free(b->agent);
	ck_assert_msg(b->stranger == NULL, "%s has run and has no row", b->stranger->name);
	arena_fini(&b->arena);
	folder_list(b->dir, on_entry, b->dir);
	rmdir(b->dir);
	if (strcmp(b->host, HOST1) == 0) {
		folder_list(b->root, on_entry, b->root);
		ck_assert_int_eq(rmdir(b->root), 0);
	}
}

/* A VM with one drive. */
static void add_vm(struct bench *b, const char *vm, const char *drives)
{
	struct arena a;

	arena_init(&a);
	good(b, AGENT_VM_add,
		arena_printf(&a,
			"{\"metadata\": {\"vm\": {\"uuid\": \"%s\", \"memory_static_max_kib\": "
			"1024, "
			"\"sim\": {\"shutdown_ms\": 10}}, \"vbds\": [%s]}}",
			vm, drives));
	arena_fini(&a);
}

static void content(struct bench *b, const char *vdi, char c)
{
	char path[256], bytes[4096];
	int fd;

	memset(bytes, c, sizeof bytes);
	snprintf(path, sizeof path, "%s/sr/%s/disk", b->root, vdi);
	fd = open(path, O_WRONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, bytes, sizeof bytes, 1 << 20), sizeof bytes);
	close(fd);
}

/* The byte that was written, in that file of a disk; -1: there is no such disk. */
static int content_in(struct bench *b, const char *vdi, const char *file)
{
	char path[256];
	uint8_t c = 0;
	int fd;

	snprintf(path, sizeof path, "%s/sr/%s/%s", b->root, vdi, file);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -1;
	ck_assert_int_eq(pread(fd, &c, 1, (1 << 20) + 4095), 1);
	close(fd);
	return c;
}

static int content_of(struct bench *b, const char *vdi)
{
	return content_in(b, vdi, "disk");
}

/* Who has the disk active: "VM/MODE", "" for nobody. */
static const char *holder(struct bench *b, const char *vdi)
{
	struct arena a;
	const struct val *holders;

	arena_init(&a);
	good(b, AGENT_VDI_stat, arena_printf(&a, "{" IN ", \"vdi\": \"%s\"}", vdi));
	holders = val_get(&b->result, "holders");
	snprintf(b->p0, sizeof b->p0, "%s%s%s",
		holders->n > 0 ? val_get_s(&holders->items[0], "vm") : "",
		holders->n > 0 ? "/" : "",
		holders->n > 0 ? val_get_s(&holders->items[0], "mode") : "");
	ck_assert_uint_le(holders->n, 1);
	arena_fini(&a);
	return b->p0;
}

static void on_leftover(void *arg, const char *name)
{
	struct bench *b = arg;
	char path[256];

	if (strlen(name) > UUID_LEN && strncmp(name, "sr.json", 7) != 0)
		snprintf(b->p1, sizeof b->p1, "%s", name);
	snprintf(path, sizeof path, "%s/sr/%s/disk.new", b->root, name);
	if (access(path, F_OK) == 0)
		snprintf(b->p1, sizeof b->p1, "%.36s/disk.new", name);
	snprintf(path, sizeof path, "%s/sr/%s/base.new", b->root, name);
	if (access(path, F_OK) == 0)
		snprintf(b->p1, sizeof b->p1, "%.36s/base.new", name);
}

/* Locks, records and domains agree. What a crash has left may take the scan a moment. */
static bool agree(struct bench *b)
{
	struct hv_domain d;
	/* one that is still going to suspend, since it was asked, does not stay as it is */
	bool runs = hv_domain_find(b->agent->hv, VM, &d) && !d.marked && !d.shut_down &&
		    !d.asked_suspend,
	     plugged;
	const struct val *vbds;

	if (!runs && hv_domain_find(b->agent->hv, VM, &d))
		return false;
	good(b, AGENT_VM_stat, "{\"uuid\": \"" VM "\"}");
	vbds = val_get(&b->result, "vbds");
	plugged = vbds->n == 1 && val_get(&vbds->items[0], "plugged")->b;
	if (vbds->n > 1 || (vbds->n == 1 && !(plugged && runs)))
		return false;
	return strcmp(holder(b, DISK), plugged ? VM "/RW" : "") == 0;
}

static void check_agreement(struct bench *b, const char *what)
{
	char path[128];

	for (int i = 0; i < 1000 && !agree(b); i++)
		nap(b);
	ck_assert_msg(agree(b), "%s: locks, records and domains do not agree", what);
	b->p1[0] = 0;
	snprintf(path, sizeof path, "%s/sr", b->root);
	folder_list(path, on_leftover, b);
	ck_assert_msg(b->p1[0] == 0, "%s: %s is left", what, b->p1);
}

#define SEED "33333333-3333-4333-8333-33333333333"
#define TASK SEED "f"

#define ON_IMAGE    ", \"disk\": {" OF(IMAGE) "}"
#define OF_JOB(job) ", \"migration\": \"" job "\""
#define CHECKPOINT                                                                                 \
	ON_IMAGE ", \"disks\": [{" OF(DISK) ", \"new_sr\": \"" SR "\", \"new\": \"" COPY           \
					    "\", \"is_a_snapshot\": true}]"
#define GUEST                                                                                      \
	", \"migration\": \"" TASK "\", \"image\": \"{\\\"format\\\": \\\"xpool-sim-1\\\", "       \
	"\\\"memory_kib\\\": 1024, \\\"target_kib\\\": 1024, \\\"vcpus\\\": 1, \\\"age_ms\\\": "   \
	"5, "                                                                                      \
	"\\\"ran_ms\\\": 5, \\\"sim\\\": \\\"{}\\\"}\""

/* How the VM is before. */
enum before {
	HALTED,
	RUNNING,
	PAUSED,
	SUSPENDED,
	LEAVING,
	COMING,
	ASKED,	   /* it was asked to suspend, and the agent has died */
	ASKED_HELD /* it was paused before */
};

static const struct table {
	const struct op *op;
	enum agent_method_id method;
	const char *drives; /* of the VM */
	enum before running;
	const char *rest;
} tables[] = {
	{ &vm_start_op, AGENT_VM_start, DRIVE("RW", DISK), HALTED, "" },
	{ &vm_shutdown_op, AGENT_VM_shutdown, DRIVE("RW", DISK), RUNNING, "" },
	{ &vm_reboot_op, AGENT_VM_reboot, DRIVE("RW", DISK), RUNNING, "" },
	{ &vbd_plug_op, AGENT_VBD_plug, "", RUNNING, ", \"vbd\": " DRIVE("RW", DISK) },
	{ &vbd_unplug_op, AGENT_VBD_unplug, DRIVE("RW", DISK), RUNNING, ", \"id\": \"xvda\"" },
	{ &vbd_eject_op, AGENT_VBD_eject, DRIVE("RW", DISK), RUNNING, ", \"id\": \"xvda\"" },
	{ &vdi_copy_op, AGENT_VDI_copy, DRIVE("RW", DISK), RUNNING,
		", \"disks\": [{" OF(DISK) ", \"new_sr\": \"" SR "\", \"new\": \"" COPY "\"}, {" OF(
			CD) ", \"new_sr\": \"" SR "\", \"new\": \"" COPY2
			    "\", \"is_a_snapshot\": true}]" },
	{ &vdi_revert_op, AGENT_VDI_revert, "", HALTED,
		", \"disks\": [{" OF(DISK) ", \"snapshot\": \"" SNAP "\"}]" },
	{ &vdi_set_on_boot_op, AGENT_VDI_set_on_boot, "", HALTED, ON_BOOT("reset") },
	{ &vdi_set_on_boot_op, AGENT_VDI_set_on_boot, "", HALTED, ON_BOOT("persist") },
	{ &vm_start_op, AGENT_VM_start, RESET("RW", DISK), HALTED, "" },
	{ &vm_reboot_op, AGENT_VM_reboot, RESET("RW", DISK), RUNNING, "" },
	{ &vm_set_vcpus_op, AGENT_VM_set_vcpus, DRIVE("RW", DISK), RUNNING, ", \"vcpus\": 1" },
	{ &vm_set_memory_dynamic_range_op, AGENT_VM_set_memory_dynamic_range, DRIVE("RW", DISK),
		RUNNING, ", \"min_kib\": 512, \"max_kib\": 1000" },
	{ &vm_suspend_op, AGENT_VM_suspend, DRIVE("RW", DISK), RUNNING, ON_IMAGE },
	{ &vm_checkpoint_op, AGENT_VM_checkpoint, DRIVE("RW", DISK), RUNNING, CHECKPOINT },
	{ &vm_checkpoint_op, AGENT_VM_checkpoint, DRIVE("RW", DISK), PAUSED, CHECKPOINT },
	{ &vm_resume_op, AGENT_VM_resume, DRIVE("RW", DISK), SUSPENDED, ON_IMAGE },
	{ &vm_migrate_send_op, AGENT_VM_migrate_send, DRIVE("RW", DISK), RUNNING,
		", \"memory_kib\": 1000" },
	{ &vm_migrate_receive_op, AGENT_VM_migrate_receive, DRIVE("RW", DISK), HALTED, GUEST },
	{ &vm_migrate_keep_op, AGENT_VM_migrate_keep, DRIVE("RW", DISK), LEAVING,
		OF_JOB(SEED "2") },
	{ &vm_migrate_keep_op, AGENT_VM_migrate_keep, DRIVE("RW", DISK), COMING, OF_JOB(TASK) },
	{ &vm_migrate_drop_op, AGENT_VM_migrate_drop, DRIVE("RW", DISK), LEAVING,
		OF_JOB(SEED "2") },
	{ &vm_migrate_drop_op, AGENT_VM_migrate_drop, DRIVE("RW", DISK), COMING, OF_JOB(TASK) },
	{ &vbd_insert_op, AGENT_VBD_insert, "{\"id\": \"xvda\", \"mode\": \"RW\"}", RUNNING,
		", \"vbd\": " DRIVE("RW", DISK) },
	{ &vm_wake_op, AGENT_VM_unpause, DRIVE("RW", DISK), ASKED, "" },
	{ &vm_wake_op, AGENT_VM_unpause, DRIVE("RW", DISK), ASKED_HELD, "" },
};

static bool has_row(const struct op *op)
{
	for (size_t i = 0; i < ARRAY_LEN(tables); i++)
		if (tables[i].op == op)
			return true;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].op == op)
			return true;
	return false;
}

START_TEST(each_operation_has_a_row)
{
	for (size_t i = 0; i < AGENT_METHOD_COUNT; i++)
		ck_assert_msg(agent_written[i].op == NULL || has_row(agent_written[i].op),
			"%s has no row in tests/ops: its steps are not tried",
			agent_methods[i].name);
}
END_TEST

/* The guest stops there: the image is not written, the domain remembers that we have asked. */
static void die_suspending(
	struct bench *b, const struct op *op, enum agent_method_id method, const char *rest)
{
	b->mode = CRASH;
	for (b->step = 0; strcmp(op->steps[b->step].name, "image.write") != 0; b->step++)
		;
	b->op = op;
	operate(b, method, VM, SEED "3", rest);
	ck_assert(b->hit);
	b->op = NULL;
	b->hit = false;
	agent_free(b->agent);
	b->agent = NULL;
}

static void prepare(struct bench *b, const struct table *t)
{
	add_vm(b, VM, t->drives);
	if (t->running != HALTED && t->running != COMING)
		ck_assert_str_eq(operate(b, AGENT_VM_start, VM, SEED "1", ""), "");
	if (t->running == SUSPENDED)
		ck_assert_str_eq(operate(b, AGENT_VM_suspend, VM, SEED "2", ON_IMAGE), "");
	if (t->running == PAUSED || t->running == ASKED_HELD)
		ck_assert_str_eq(operate(b, AGENT_VM_pause, VM, SEED "2", ""), "");
	if (t->running == ASKED)
		die_suspending(b, &vm_suspend_op, AGENT_VM_suspend, ON_IMAGE);
	if (t->running == ASKED_HELD)
		die_suspending(b, &vm_checkpoint_op, AGENT_VM_checkpoint, CHECKPOINT);
	if (t->running == LEAVING)
		ck_assert_str_eq(operate(b, AGENT_VM_migrate_send, VM, SEED "2", ""), "");
	if (t->running == COMING)
		ck_assert_str_eq(operate(b, AGENT_VM_migrate_receive, VM, SEED "2", GUEST), "");
}

/* What the pool has to decide waits for it, also over a crash: with nobody running the guest. */
static void decide(struct bench *b, const char *what)
{
	struct hv_domain d = { 0 };
	char rest[80];

	good(b, AGENT_VM_stat, "{\"uuid\": \"" VM "\"}");
	if (*val_get_s(&b->result, "undecided") == 0)
		return;
	snprintf(rest, sizeof rest, ", \"migration\": \"%s\"", val_get_s(&b->result, "undecided"));
	hv_domain_find(b->agent->hv, VM, &d);
	for (int i = 0; i < 3; i++)
		nap(b);
	ck_assert_msg(hv_domain_find(b->agent->hv, VM, &d) && d.moving != HV_STAYS, "%s", what);
	ck_assert_str_eq(operate(b, AGENT_VM_migrate_keep, VM, SEED "e", rest), "");
	ck_assert_str_eq(holder(b, DISK), VM "/RW");
}

/* As it was before, whoever has died in between; the scan sees to it. */
static void check_paused(struct bench *b, const char *what)
{
	struct hv_domain d = { 0 };

	for (int i = 0; i < 1000 && !(d.paused && !agent_held(b->agent, VM, d.domid)); i++) {
		nap(b);
		hv_domain_find(b->agent->hv, VM, &d);
	}
	ck_assert_msg(d.paused && !d.asked_suspend, "%s: it is not paused", what);
	ck_assert_msg(!agent_held(b->agent, VM, d.domid), "%s: it is recorded", what);
}

/* What nobody asks for: the scan of an agent that begins finds the guest. It is not a task. */
static void scan_operates(struct bench *b)
{
	bool idle = false;

	b->task[0] = 0;
	agent_begin(b);
	for (int i = 0; i < 4000 && !(b->hit && idle); i++) {
		nap(b);
		pthread_mutex_lock(&b->agent->mutex);
		idle = b->agent->runs == NULL;
		pthread_mutex_unlock(&b->agent->mutex);
	}
}

static bool keeps_base(const struct table *t)
{
	return t->op == &vdi_set_on_boot_op || strstr(t->drives, "persistent") != NULL;
}

/* What the disk is reset to: 'b', but where that is about to be made for the first time. */
static void base_before(struct bench *b, const struct table *t)
{
	if (!keeps_base(t) || strstr(t->rest, "reset") != NULL)
		return;
	content(b, DISK, 'b');
	ck_assert_str_eq(operate(b, AGENT_VDI_set_on_boot, DISK, SEED "d", ON_BOOT("reset")), "");
}

/* Has the table's step of that name been done when that step is hit? */
static bool behind(const struct op *op, unsigned step, const char *name)
{
	for (unsigned k = 0; k < step; k++)
		if (strcmp(op->steps[k].name, name) == 0)
			return true;
	return false;
}

/* The disk has what it had or what it is to be reset to, which is there or is not. */
static void check_base(struct bench *b, const struct table *t, bool switched, const char *what)
{
	bool sets = t->op == &vdi_set_on_boot_op, to_reset = strstr(t->rest, "reset") != NULL;
	int base = content_in(b, DISK, "base");

	ck_assert_msg(content_of(b, DISK) == (switched && !sets ? 'b' : 'd'), "%s: the disk", what);
	if (!sets)
		ck_assert_msg(base == 'b', "%s: what it is reset to", what);
	else
		ck_assert_msg(base == (switched ? (to_reset ? 'd' : -1) : (to_reset ? -1 : 'b')),
			"%s: what it is reset to: %d", what, base);
}

static void one_case(const struct table *t, unsigned step, enum mode mode)
{
	static const char *const modes[] = { "fail", "cancel", "crash" };
	struct bench b;
	char what[96];
	unsigned flags = 0;
	bool ended, reverted, switched;
	int copied;

	for (unsigned k = 0; k < step; k++)
		flags |= t->op->steps[k].flags;
	snprintf(what, sizeof what, "%s %s at %s", t->op->name, modes[mode],
		step < t->op->n_steps ? t->op->steps[step].name : "its end");
	bench_open(&b, NULL, HOST1);
	content(&b, DISK, 's');
	ck_assert_str_eq(
		operate(&b, AGENT_VDI_copy, DISK, SEED "0",
			", \"disks\": [{" OF(DISK) ", \"new_sr\": \"" SR "\", \"new\": \"" SNAP
						   "\", \"is_a_snapshot\": true}]"),
		"");
	base_before(&b, t);
	prepare(&b, t);
	content(&b, DISK, 'd');
	b.op = t->op;
	b.step = step;
	b.mode = mode;
	if (t->op == &vm_wake_op)
		scan_operates(&b);
	else
		operate(&b, t->method, VM, TASK, t->rest);
	ck_assert_msg(b.hit, "%s: the step was not reached", what);
	ended = *b.error == 0;
	if (mode == CRASH) {
		agent_free(b.agent);
		b.op = NULL;
		agent_begin(&b);
		if (t->op != &vm_wake_op)
			ck_assert_str_eq(
				operate(&b, t->method, VM, TASK, t->rest), "agent_restarted");
	} else if (t->op != &vm_wake_op) {
		ck_assert_msg(ended == ((flags & OP_FORWARD) || (mode == CANCEL && flags != 0)),
			"%s: %s", what, b.error);
	}
	b.op = NULL;
	decide(&b, what);
	check_agreement(&b, what);
	if (t->running == PAUSED || t->running == ASKED_HELD)
		check_paused(&b, what);
	copied = content_of(&b, COPY);
	ck_assert_msg(copied == -1 && access(b.root, F_OK) == 0, "%s: a copy is there", what);
	ck_assert_int_eq(content_of(&b, SNAP), 's');
	switched = behind(t->op, step, "disks.switch") || behind(t->op, step, "disk.switch");
	reverted = t->op == &vdi_revert_op && switched;
	if (keeps_base(t))
		check_base(&b, t, switched, what);
	else
		ck_assert_msg(content_of(&b, DISK) == (reverted ? 's' : 'd'), "%s: the disk", what);
	bench_close(&b);
}

/* One can die behind the last step too, before the end is recorded. */
static void all_steps(enum mode mode)
{
	for (size_t i = 0; i < ARRAY_LEN(tables); i++)
		for (unsigned k = 0; k < tables[i].op->n_steps + (mode == CRASH); k++)
			one_case(&tables[i], k, mode);
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

/* The crash that no step shows: the copies are there, and the end of the task is not recorded. */
START_TEST(a_copy_whose_task_did_not_end_goes)
{
	struct bench b;

	bench_open(&b, NULL, HOST1);
	ck_assert_str_eq(operate(&b, AGENT_VDI_copy, DISK, TASK, tables[6].rest), "");
	ck_assert_int_eq(content_of(&b, COPY), 0);
	sql_run(b.agent->sql, "UPDATE task SET state = 'pending'", "");
	agent_free(b.agent);
	agent_begin(&b);
	ck_assert_int_eq(content_of(&b, COPY), -1);
	check_agreement(&b, "copy");
	bench_close(&b);
}
END_TEST

/* Nobody has taken the result over: asked to undo, the agent removes what it has made. */
START_TEST(copies_that_nobody_took_over_go)
{
	struct bench b;

	bench_open(&b, NULL, HOST1);
	content(&b, DISK, 'x');
	for (int undo = 0; undo < 2; undo++) {
		ck_assert_str_eq(operate(&b, AGENT_VDI_copy, DISK, TASK, tables[6].rest), "");
		agent_free(b.agent); /* it still knows after a restart */
		agent_begin(&b);
		ck_assert_int_eq(content_of(&b, COPY), 'x');
		good(&b, AGENT_TASK_destroy,
			undo ? "{\"job\": \"" TASK "\", \"undo\": true}"
			     : "{\"job\": \"" TASK "\"}");
		ck_assert_int_eq(content_of(&b, COPY), undo ? -1 : 'x');
		ck_assert_str_eq(
			call(&b, AGENT_VDI_stat, "{" OF(COPY2) "}"), undo ? "does_not_exist" : "");
		if (!undo) {
			good(&b, AGENT_VDI_destroy, "{" OF(COPY) "}");
			good(&b, AGENT_VDI_destroy, "{" OF(COPY2) "}");
		}
	}
	bench_close(&b);
}
END_TEST

START_TEST(copies_have_the_content_and_their_holes)
{
	struct bench b;
	struct stat st;
	char path[256];

	bench_open(&b, NULL, HOST1);
	content(&b, DISK, 'x');
	ck_assert_str_eq(operate(&b, AGENT_VDI_copy, DISK, TASK, tables[6].rest), "");
	ck_assert_int_eq(content_of(&b, COPY), 'x');
	snprintf(path, sizeof path, "%s/sr/%s/disk", b.root, COPY);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, 4 << 20);
	ck_assert_int_le(st.st_blocks * 512, 2 << 20);
	good(&b, AGENT_VDI_stat, "{" OF(COPY2) "}");
	ck_assert(val_get(&b.result, "is_a_snapshot")->b);
	ck_assert_str_eq(val_get_s(&b.result, "snapshot_of"), CD);
	/* a snapshot is never written; the disk gets its content back */
	ck_assert_str_eq(
		operate(&b, AGENT_VDI_copy, DISK, SEED "2",
			", \"disks\": [{" OF(DISK) ", \"new_sr\": \"" SR "\", \"new\": \"" SNAP
						   "\", \"is_a_snapshot\": true}]"),
		"");
	content(&b, DISK, 'y');
	add_vm(&b, VM, DRIVE("RW", SNAP));
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "3", ""), "disk_read_only");
	check_agreement(&b, "a snapshot");
	ck_assert_str_eq(operate(&b, AGENT_VDI_revert, DISK, SEED "4", tables[7].rest), "");
	ck_assert_int_eq(content_of(&b, DISK), 'x');
	bench_close(&b);
}
END_TEST

/* The guest leaves the one host and waits at the other; the migration is named after its job. */
static void move(struct bench *from, struct bench *to, const char *job, const char *received)
{
	struct buf rest = { 0 };
	struct arena a;

	arena_init(&a);
	ck_assert_str_eq(operate(from, AGENT_VM_migrate_send, VM, job, ""), "");
	good(from, AGENT_VM_migrate_image,
		arena_printf(&a, "{\"uuid\": \"" VM "\", \"job\": \"%s\"}", job));
	buf_printf(&rest, ", \"migration\": \"%s\", \"image\": ", job);
	val_json(&rest, val_get(&from->result, "image"));
	ck_assert_str_eq(operate(to, AGENT_VM_migrate_receive, VM, received, buf_text(&rest)), "");
	buf_fini(&rest);
	arena_fini(&a);
}

static void set_on_boot(struct bench *b, const char *task, const char *how, const char *error)
{
	ck_assert_str_eq(operate(b, AGENT_VDI_set_on_boot, DISK, task, how), error);
}

/* Each life begins with what the disk held when it was set, and a life goes on over suspend and
 * migration, and with a drive that is plugged into it. */
START_TEST(a_disk_goes_back_when_a_life_begins)
{
	struct bench b, c;
	struct val stat;

	bench_open(&b, NULL, HOST1);
	bench_open(&c, b.root, HOST2);
	add_vm(&b, VM, RESET("RW", DISK));
	add_vm(&c, VM, RESET("RW", DISK));
	content(&b, DISK, 'b');
	/* it has nothing to go back to: a life does not begin with anything */
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "0", ""), "storage");
	check_agreement(&b, "no base");
	set_on_boot(&b, SEED "1", ON_BOOT("reset"), "");
	content(&b, DISK, 'x'); /* by nobody's life */
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "2", ""), "");
	ck_assert_int_eq(content_of(&b, DISK), 'b');
	check_agreement(&b, "started");
	set_on_boot(&b, SEED "3", ON_BOOT("persist"), "disk_in_use");
	set_on_boot(&c, SEED "3", ON_BOOT("reset"), "disk_in_use");
	content(&b, DISK, 'y');
	ck_assert_str_eq(operate(&b, AGENT_VM_suspend, VM, SEED "4", ON_IMAGE), "");
	ck_assert_str_eq(operate(&b, AGENT_VM_resume, VM, SEED "5", ON_IMAGE), "");
	ck_assert_int_eq(content_of(&b, DISK), 'y');
	move(&b, &c, SEED "6", SEED "7");
	ck_assert_str_eq(operate(&c, AGENT_VM_migrate_keep, VM, SEED "8", OF_JOB(SEED "6")), "");
	ck_assert_str_eq(operate(&b, AGENT_VM_migrate_drop, VM, SEED "8", OF_JOB(SEED "6")), "");
	ck_assert_int_eq(content_of(&b, DISK), 'y');
	/* a disk that grows keeps that */
	good(&c, AGENT_VDI_resize, "{" OF(DISK) ", \"size\": 8388608, \"online\": true}");
	ck_assert_str_eq(operate(&c, AGENT_VM_reboot, VM, SEED "9", ""), "");
	ck_assert_int_eq(content_of(&b, DISK), 'b');
	check_agreement(&c, "rebooted");
	good(&c, AGENT_VDI_stat, "{" OF(DISK) "}");
	stat = c.result;
	ck_assert_int_eq(val_get(&stat, "size")->i, 8388608);
	ck_assert_int_eq(val_get(&stat, "utilisation")->i, 2 * 4096);
	ck_assert_str_eq(operate(&c, AGENT_VM_shutdown, VM, SEED "a", ""), "");
	/* plugged into a life that has begun */
	content(&b, DISK, 'z');
	add_vm(&b, VM2, "");
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM2, SEED "b", ""), "");
	ck_assert_str_eq(
		operate(&b, AGENT_VBD_plug, VM2, SEED "c", ", \"vbd\": " RESET("RW", DISK)), "");
	ck_assert_int_eq(content_of(&b, DISK), 'z');
	ck_assert_str_eq(operate(&b, AGENT_VM_shutdown, VM2, SEED "d", ""), "");
	/* no more */
	set_on_boot(&b, SEED "e", ON_BOOT("persist"), "");
	ck_assert_int_eq(content_in(&b, DISK, "base"), -1);
	add_vm(&b, VM, DRIVE("RW", DISK));
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "f", ""), "");
	ck_assert_int_eq(content_of(&b, DISK), 'z');
	bench_close(&c);
	bench_close(&b);
}
END_TEST

/* A copy goes back to what it was copied from; what another VM uses is not reset under it. */
START_TEST(copies_and_disks_of_many_go_back_too)
{
	struct bench b, c;

	bench_open(&b, NULL, HOST1);
	bench_open(&c, b.root, HOST2);
	content(&b, DISK, 'b');
	set_on_boot(&b, SEED "0", ON_BOOT("reset"), "");
	content(&b, DISK, 'x');
	ck_assert_str_eq(
		operate(&b, AGENT_VDI_copy, DISK, SEED "1",
			", \"disks\": [{" OF(DISK) ", \"new_sr\": \"" SR "\", \"new\": \"" COPY
						   "\", \"persistent\": false}]"),
		"");
	content(&b, COPY, 'y');
	add_vm(&b, VM2, RESET("RW", COPY));
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM2, SEED "2", ""), "");
	ck_assert_int_eq(content_of(&b, COPY), 'x');
	good(&b, AGENT_VDI_set, "{" OF(DISK) ", \"sharable\": true}");
	add_vm(&b, VM,
		RESET("RW", DISK) ", {\"id\": \"xvdb\", \"mode\": \"RO\", "
				  "\"persistent\": false, " OF(DISK) "}");
	add_vm(&c, VM2, RESET("RW", DISK));
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "3", ""), "");
	ck_assert_int_eq(content_of(&b, DISK), 'b');
	content(&b, DISK, 'y');
	ck_assert_str_eq(operate(&c, AGENT_VM_start, VM2, SEED "4", ""), "");
	ck_assert_int_eq(content_of(&b, DISK), 'y');
	ck_assert_str_eq(operate(&b, AGENT_VM_reboot, VM, SEED "5", ""), "");
	ck_assert_int_eq(content_of(&b, DISK), 'y');
	ck_assert_str_eq(operate(&c, AGENT_VM_shutdown, VM2, SEED "6", ""), "");
	ck_assert_str_eq(operate(&b, AGENT_VM_reboot, VM, SEED "7", ""), "");
	ck_assert_int_eq(content_of(&b, DISK), 'b');
	bench_close(&c);
	bench_close(&b);
}
END_TEST

START_TEST(a_running_machine_changes_size_or_stays_as_it_was)
{
	struct bench b;
	struct hv_domain d;

	bench_open(&b, NULL, HOST1);
	good(&b, AGENT_VM_add,
		"{\"metadata\": {\"vm\": {\"uuid\": \"" VM "\", \"memory_static_max_kib\": 4096, "
		"\"memory_dynamic_max_kib\": 2048, \"vcpus\": 2, \"vcpus_max\": 4}}}");
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "1", ""), "");
	ck_assert_str_eq(operate(&b, AGENT_VM_set_vcpus, VM, SEED "2", ", \"vcpus\": 4"), "");
	ck_assert_str_eq(
		operate(&b, AGENT_VM_set_vcpus, VM, SEED "3", ", \"vcpus\": 5"), "bad_request");
	ck_assert_str_eq(operate(&b, AGENT_VM_set_memory_dynamic_range, VM, SEED "4",
				 ", \"min_kib\": 512, \"max_kib\": 1024"),
		"");
	ck_assert_str_eq(operate(&b, AGENT_VM_set_memory_dynamic_range, VM, SEED "5",
				 ", \"min_kib\": 512, \"max_kib\": 8192"),
		"bad_request");
	ck_assert(hv_domain_find(b.agent->hv, VM, &d));
	ck_assert_int_eq(d.vcpus, 4);
	ck_assert_int_eq(d.memory_kib, 1024);
	/* also when it starts again by itself */
	ck_assert_str_eq(operate(&b, AGENT_VM_reboot, VM, SEED "6", ""), "");
	ck_assert(hv_domain_find(b.agent->hv, VM, &d));
	ck_assert_int_eq(d.vcpus, 4);
	ck_assert_int_eq(d.memory_kib, 1024);
	bench_close(&b);
}
END_TEST

/* The guest goes on where it was; and on when its image cannot be written, or what was asked of it
 * is taken back. */
START_TEST(a_guest_is_suspended_and_resumed_on_another_host)
{
	struct bench b, c;
	struct hv_domain d;
	char path[256];

	bench_open(&b, NULL, HOST1);
	bench_open(&c, b.root, HOST2);
	add_vm(&b, VM, DRIVE("RW", DISK));
	add_vm(&c, VM, DRIVE("RW", DISK));
	ck_assert_str_eq(operate(&b, AGENT_VM_suspend, VM, SEED "0", ON_IMAGE), "bad_power_state");
	ck_assert_str_eq(operate(&c, AGENT_VM_resume, VM, SEED "0", ON_IMAGE), "image_io");
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "1", ""), "");
	/* no room: it runs on, with its disk */
	ck_assert_str_eq(operate(&b, AGENT_VM_suspend, VM, SEED "2", ", \"disk\": {" OF(CD) "}"),
		"image_io");
	check_agreement(&b, "no room");
	ck_assert_str_eq(holder(&b, DISK), VM "/RW");
	ck_assert_str_eq(operate(&b, AGENT_VM_suspend, VM, SEED "3", ON_IMAGE), "");
	ck_assert_str_eq(holder(&b, DISK), "");
	ck_assert(!hv_domain_find(b.agent->hv, VM, &d));
	good(&c, AGENT_VM_image, "{\"disk\": {" OF(IMAGE) "}}");
	ck_assert_int_eq(val_get(&c.result, "memory_kib")->i, 1024);
	ck_assert_str_eq(operate(&c, AGENT_VM_resume, VM, SEED "4", ON_IMAGE), "");
	ck_assert(hv_domain_find(c.agent->hv, VM, &d) && !d.paused && !d.shut_down);
	ck_assert_str_eq(holder(&c, DISK), VM "/RW");
	/* it never goes back */
	good(&b, AGENT_VM_image, "{\"disk\": {" OF(IMAGE) "}}");
	ck_assert(val_get(&b.result, "used")->b && val_get(&b.result, "memory_kib")->i == 0);
	ck_assert_str_eq(operate(&b, AGENT_VM_resume, VM, SEED "5", ON_IMAGE), "image_io");
	ck_assert_str_eq(operate(&c, AGENT_VM_resume, VM, SEED "5", ON_IMAGE), "image_io");
	ck_assert_str_eq(operate(&c, AGENT_VM_suspend, VM, SEED "6", ON_IMAGE), "");
	/* what is not whole is no image */
	snprintf(path, sizeof path, "%s/sr/%s/disk", b.root, IMAGE);
	ck_assert_int_eq(file_write_at(path, 4100, "x", 1), 0);
	ck_assert_str_eq(operate(&c, AGENT_VM_resume, VM, SEED "7", ON_IMAGE), "image_io");
	check_agreement(&c, "damaged");
	bench_close(&c);
	bench_close(&b);
}
END_TEST

/* One runs it, never both; agents may die in between. */
START_TEST(a_guest_moves_and_its_disk_with_it)
{
	struct bench b, c;
	struct hv_domain d;
	struct buf rest = { 0 };

	bench_open(&b, NULL, HOST1);
	bench_open(&c, b.root, HOST2);
	add_vm(&b, VM, DRIVE("RW", DISK));
	add_vm(&c, VM, DRIVE("RW", DISK));
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "1", ""), "");
	ck_assert_str_eq(operate(&b, AGENT_VM_migrate_send, VM, SEED "2", ""), "");
	good(&b, AGENT_VM_migrate_image, "{\"uuid\": \"" VM "\", \"job\": \"" SEED "2\"}");
	buf_puts(&rest, ", \"migration\": \"" SEED "2\", \"image\": ");
	val_json(&rest, val_get(&b.result, "image"));
	ck_assert_str_eq(operate(&c, AGENT_VM_migrate_receive, VM, SEED "3", buf_text(&rest)), "");
	agent_free(b.agent);
	agent_free(c.agent);
	agent_begin(&b);
	agent_begin(&c);
	for (int i = 0; i < 10; i++)
		nap(&b);
	ck_assert(hv_domain_find(b.agent->hv, VM, &d) && d.moving == HV_LEAVING && d.shut_down);
	ck_assert(hv_domain_find(c.agent->hv, VM, &d) && d.moving == HV_COMING && d.paused);
	ck_assert_str_eq(holder(&b, DISK), "");
	/* a word about another migration changes nothing */
	ck_assert_str_eq(operate(&b, AGENT_VM_migrate_keep, VM, SEED "6", OF_JOB(TASK)), "");
	ck_assert(hv_domain_find(b.agent->hv, VM, &d) && d.moving == HV_LEAVING && d.shut_down);
	ck_assert_str_eq(operate(&c, AGENT_VM_migrate_keep, VM, SEED "4", OF_JOB(SEED "2")), "");
	ck_assert_str_eq(operate(&b, AGENT_VM_migrate_drop, VM, SEED "4", OF_JOB(SEED "2")), "");
	ck_assert(!hv_domain_find(b.agent->hv, VM, &d));
	ck_assert(hv_domain_find(c.agent->hv, VM, &d) && d.moving == HV_STAYS && !d.paused);
	ck_assert_str_eq(holder(&b, DISK), VM "/RW");
	/* decided is decided */
	ck_assert_str_eq(operate(&c, AGENT_VM_migrate_drop, VM, SEED "5", OF_JOB(SEED "2")), "");
	ck_assert_str_eq(holder(&b, DISK), VM "/RW");
	buf_fini(&rest);
	bench_close(&c);
	bench_close(&b);
}
END_TEST

#define HEARD(hook, reason) hook "/a -vmuuid " VM " -reason " reason
#define DOMID(n)	    " -vmdomid " #n "\n"

/* The guest goes on. */
static void refuse(struct bench *b, const char *script, enum agent_method_id method,
	const char *task, const char *rest)
{
	struct hv_domain d;

	hook_write(b->dir, script, 0755, "exit 2");
	ck_assert_str_eq(operate(b, method, VM, task, rest), "hook_failed");
	ck_assert_str_eq(b->p0, script);
	check_agreement(b, script);
	ck_assert(hv_domain_find(b->agent->hv, VM, &d) && !d.paused);
	hook_write(b->dir, script, 0755, "");
	free(hooks_heard(b->dir));
}

START_TEST(hooks_hear_of_suspend_resume_and_migration)
{
	static const char *const scripts[] = { "vm-pre-shutdown/a", "vm-post-destroy/a",
		"vm-pre-suspend/a", "vm-pre-resume/a", "vm-post-resume/a", "vm-pre-migrate/a",
		"vm-post-migrate/a" };
	struct bench b, c;

	bench_open(&b, NULL, HOST1);
	bench_open(&c, b.root, HOST2);
	add_vm(&b, VM, DRIVE("RW", DISK));
	add_vm(&c, VM, DRIVE("RW", DISK));
	for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
		hook_write(b.dir, scripts[i], 0755, "");
		hook_write(c.dir, scripts[i], 0755, "");
	}
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "1", ""), "");
	refuse(&b, "vm-pre-suspend/a", AGENT_VM_suspend, SEED "2", ON_IMAGE);
	refuse(&b, "vm-pre-shutdown/a", AGENT_VM_suspend, SEED "3", ON_IMAGE);
	ck_assert_str_eq(operate(&b, AGENT_VM_suspend, VM, SEED "4", ON_IMAGE), "");
	hooks_expect(b.dir, HEARD("vm-pre-suspend", "suspend") DOMID(1) HEARD("vm-pre-shutdown",
				    "suspend") DOMID(1) HEARD("vm-post-destroy", "suspend") "\n");
	ck_assert_str_eq(operate(&b, AGENT_VM_resume, VM, SEED "5", ON_IMAGE), "");
	hooks_expect(b.dir,
		HEARD("vm-pre-resume", "none") DOMID(2) HEARD("vm-post-resume", "none") DOMID(2));
	refuse(&b, "vm-pre-migrate/a", AGENT_VM_migrate_send, SEED "6", "");
	/* a migration that comes to nothing: only its beginning */
	move(&b, &c, SEED "7", SEED "8");
	ck_assert_str_eq(operate(&c, AGENT_VM_migrate_drop, VM, SEED "9", OF_JOB(SEED "7")), "");
	ck_assert_str_eq(operate(&b, AGENT_VM_migrate_keep, VM, SEED "a", OF_JOB(SEED "7")), "");
	hooks_expect(c.dir, "");
	hooks_expect(b.dir, HEARD("vm-pre-migrate", "source") DOMID(2));
	/* what is decided is not refused any more */
	hook_write(b.dir, "vm-pre-shutdown/a", 0755, "exit 2");
	move(&b, &c, SEED "b", SEED "c");
	ck_assert_str_eq(operate(&c, AGENT_VM_migrate_keep, VM, SEED "d", OF_JOB(SEED "b")), "");
	ck_assert_str_eq(operate(&b, AGENT_VM_migrate_drop, VM, SEED "d", OF_JOB(SEED "b")), "");
	hooks_expect(c.dir, HEARD("vm-post-migrate", "destination") DOMID(2));
	hooks_expect(b.dir, HEARD("vm-pre-migrate", "source") DOMID(2) HEARD("vm-pre-shutdown",
				    "suspend") DOMID(2) HEARD("vm-post-destroy", "suspend") "\n");
	bench_close(&c);
	bench_close(&b);
}
END_TEST

START_TEST(two_hosts_never_write_one_disk)
{
	struct bench b, c;

	bench_open(&b, NULL, HOST1);
	bench_open(&c, b.root, HOST2);
	add_vm(&b, VM, DRIVE("RW", DISK));
	add_vm(&c, VM, DRIVE("RW", DISK));
	add_vm(&c, VM2, DRIVE("RO", DISK));
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "1", ""), "");
	/* the same VM or another one, writing or reading */
	ck_assert_str_eq(operate(&c, AGENT_VM_start, VM, SEED "1", ""), "disk_in_use");
	ck_assert_str_eq(operate(&c, AGENT_VM_start, VM2, SEED "2", ""), "disk_in_use");
	ck_assert_str_eq(c.p0, DISK);
	/* nor change it, from anywhere; a copy is fine */
	ck_assert_str_eq(call(&c, AGENT_VDI_destroy, "{" OF(DISK) "}"), "disk_in_use");
	ck_assert_str_eq(
		call(&b, AGENT_VDI_resize, "{" OF(DISK) ", \"size\": 8388608}"), "disk_in_use");
	ck_assert_str_eq(operate(&c, AGENT_VDI_copy, DISK, SEED "3", tables[6].rest), "");
	/* the agent dies, its domain does not */
	agent_free(b.agent);
	agent_begin(&b);
	check_agreement(&b, "restart");
	ck_assert_str_eq(operate(&c, AGENT_VM_start, VM, SEED "4", ""), "disk_in_use");
	ck_assert_str_eq(operate(&b, AGENT_VM_shutdown, VM, SEED "5", ""), "");
	/* two may read */
	ck_assert_str_eq(operate(&c, AGENT_VM_start, VM2, SEED "6", ""), "");
	add_vm(&b, VM, DRIVE("RO", DISK));
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "7", ""), "");
	ck_assert_str_eq(operate(&b, AGENT_VM_shutdown, VM, SEED "8", ""), "");
	add_vm(&b, VM, DRIVE("RW", DISK));
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "9", ""), "disk_in_use");
	/* sharable ones have no rule */
	good(&b, AGENT_VDI_set, "{" OF(DISK) ", \"sharable\": true}");
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "a", ""), "");
	bench_close(&c);
	bench_close(&b);
}
END_TEST

START_TEST(locks_of_a_dead_host_are_broken_by_hand_and_of_an_earlier_boot_by_itself)
{
	struct bench b, c;
	char path[256];

	bench_open(&b, NULL, HOST1);
	bench_open(&c, b.root, HOST2);
	add_vm(&c, VM, DRIVE("RW", DISK));
	add_vm(&b, VM2, DRIVE("RW", DISK));
	ck_assert_str_eq(operate(&c, AGENT_VM_start, VM, SEED "1", ""), "");
	/* power off: nothing of the folder stays */
	agent_free(c.agent);
	folder_list(c.dir, on_entry, c.dir);
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM2, SEED "1", ""), "disk_in_use");
	good(&b, AGENT_VDI_force_unlock, "{" OF(DISK) ", \"host\": \"" HOST2 "\"}");
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM2, SEED "2", ""), "");
	/* a lock of ours cannot be broken while we are here */
	good(&b, AGENT_VDI_force_unlock, "{" OF(DISK) ", \"host\": \"" HOST1 "\"}");
	ck_assert_str_eq(holder(&b, DISK), VM2 "/RW");
	ck_assert_str_eq(operate(&b, AGENT_VM_shutdown, VM2, SEED "3", ""), "");
	agent_begin(&c);
	ck_assert_str_eq(attach(&c, AGENT_SR_attach), "");
	add_vm(&c, VM, DRIVE("RW", DISK));
	ck_assert_str_eq(operate(&c, AGENT_VM_start, VM, SEED "2", ""), "");
	agent_free(c.agent);
	folder_list(c.dir, on_entry, c.dir);
	agent_begin(&c);
	ck_assert_str_eq(holder(&b, DISK), VM "/RW");
	ck_assert_str_eq(attach(&c, AGENT_SR_attach), "");
	ck_assert_str_eq(holder(&b, DISK), "");
	/* what cannot be read is nobody's permission */
	snprintf(path, sizeof path, "%s/sr/%s/holders.json", b.root, DISK);
	ck_assert_int_eq(file_replace(path, "[{\"host\"", 8), 0);
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM2, SEED "4", ""), "storage");
	bench_close(&c);
	bench_close(&b);
}
END_TEST

START_TEST(drives_are_plugged_and_unplugged)
{
	struct bench b;

	bench_open(&b, NULL, HOST1);
	add_vm(&b, VM, "");
	ck_assert_str_eq(
		operate(&b, AGENT_VBD_plug, VM, SEED "1", tables[3].rest), "bad_power_state");
	ck_assert_str_eq(operate(&b, AGENT_VM_start, VM, SEED "2", ""), "");
	ck_assert_str_eq(operate(&b, AGENT_VBD_plug, VM, SEED "3", tables[3].rest), "");
	check_agreement(&b, "plugged");
	/* an SR is not detached under a VM */
	ck_assert_str_eq(call(&b, AGENT_SR_detach, "{" IN "}"), "disk_in_use");
	/* the next start, by the agent itself, has it too */
	ck_assert_str_eq(operate(&b, AGENT_VM_reboot, VM, SEED "4", ""), "");
	check_agreement(&b, "rebooted");
	ck_assert_str_eq(holder(&b, DISK), VM "/RW");
	ck_assert_str_eq(operate(&b, AGENT_VBD_unplug, VM, SEED "5", ", \"id\": \"xvda\""), "");
	check_agreement(&b, "unplugged");
	ck_assert_str_eq(holder(&b, DISK), "");
	good(&b, AGENT_SR_detach, "{" IN "}");
	ck_assert_str_eq(call(&b, AGENT_VDI_stat, "{" OF(DISK) "}"), "does_not_exist");
	bench_close(&b);
}
END_TEST

START_TEST(only_places_below_the_root_are_reached)
{
	static const char *const bad[] = { "/tmp/elsewhere", "%s/../sr", "%s/..", "%s",
		"%s/link/sr", "%s/link", "relative", "/", "" };
	struct bench b;
	char path[256], where[128];
	struct arena a;

	bench_open(&b, NULL, HOST1);
	snprintf(path, sizeof path, "%s/link", b.root);
	ck_assert_int_eq(symlink("/tmp", path), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		const char *mark = strstr(bad[i], "%s");

		arena_init(&a);
		snprintf(where, sizeof where, "%s%s", mark != NULL ? b.root : "",
			mark != NULL ? mark + 2 : bad[i]);
		ck_assert_msg(strcmp(call(&b, AGENT_SR_create,
					     arena_printf(&a,
						     "{\"sr\": \"" COPY
						     "\", \"type\": \"file\", \"config\": "
						     "{\"location\": \"%s\"}}",
						     where)),
				      "storage") == 0,
			"%s: %s", where, b.error);
		arena_fini(&a);
	}
	/* uuids become paths */
	ck_assert_str_eq(call(&b, AGENT_VDI_create, "{" IN ", \"vdi\": \"../x\", \"size\": 512}"),
		"bad_request");
	ck_assert_str_eq(call(&b, AGENT_VDI_create, "{" OF(COPY) ", \"size\": 5}"), "storage");
	ck_assert_str_eq(call(&b, AGENT_VDI_destroy, "{" OF(COPY) "}"), "");
	ck_assert_str_eq(call(&b, AGENT_SR_destroy, "{" IN "}"), "storage"); /* it has disks */
	ck_assert_str_eq(b.p0, "SR_NOT_EMPTY");
	bench_close(&b);
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {
		each_operation_has_a_row,
		each_step_failing_leaves_nothing,
		each_step_cancelled_leaves_nothing,
		each_step_crashing_is_repaired_by_the_next_start,
		a_copy_whose_task_did_not_end_goes,
		copies_that_nobody_took_over_go,
		copies_have_the_content_and_their_holes,
		a_disk_goes_back_when_a_life_begins,
		copies_and_disks_of_many_go_back_too,
		a_running_machine_changes_size_or_stays_as_it_was,
		a_guest_is_suspended_and_resumed_on_another_host,
		a_guest_moves_and_its_disk_with_it,
		hooks_hear_of_suspend_resume_and_migration,
		two_hosts_never_write_one_disk,
		locks_of_a_dead_host_are_broken_by_hand_and_of_an_earlier_boot_by_itself,
		drives_are_plugged_and_unplugged,
		only_places_below_the_root_are_reached,
	};

	if (argc > 2 && strcmp(argv[1], "--exec") == 0) /* the agent runs itself for a script */
		return child_exec_main(argv + 2);
	return suite_run_apart("disks", tests, ARRAY_LEN(tests), 300);
}
