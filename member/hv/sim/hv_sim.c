/* Simulated domains: rows of a SQLite file, so that they live on while the agent is dead, as real
 * ones do.
 *
 * Guests need no process: what a guest has done by now follows from times (when it was let run,
 * when it was asked) and from its behaviour, `sim` of member/agent.json. A power-off of the host is
 * the removal of the file: the boot id is in it. A file of another format is such a power-off too.
 */
#include "member/hv/hv_ops.h"
#include "member/hv/sim/sim_console.h"
#include "member/hv/sim/sim_nics.h"
#include "rpc/base/sql.h"
#include "rpc/wire/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	CPUS = 8,
	FORMAT = 5,	     /* of the file */
	SIM_TEXT_MAX = 4096, /* bytes of a behaviour as JSON */
	SHUTDOWN_MS = 100,
};

struct hv_state {
	struct env *env;
	pthread_mutex_t mutex;
	struct sql *sql;
	struct sim_consoles *consoles;
	int64_t memory_kib;
	struct hv_cpu cpu;
	char boot_id[UUID_LEN + 1], dir[512];
};

static const char *const tables[] = {
	"CREATE TABLE boot (id TEXT)",
	/* run_ms: first let run; asked: an enum hv_end, -1 nothing; sim: its behaviour as JSON */
	("CREATE TABLE domain (domid INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT, paused INT, "
	 "marked INT, built INT, memory_kib INT, target_kib INT, vcpus INT, created_ms INT, "
	 "run_ms INT, asked INT, asked_ms INT, sim TEXT, moving INT DEFAULT 0, job TEXT DEFAULT "
	 "'')"),
	"CREATE INDEX domain_uuid ON domain (uuid)",
	("CREATE TABLE vif (domid INT, device INT, mac TEXT, bridge TEXT, mtu INT, carrier INT, "
	 "locking_mode TEXT, PRIMARY KEY (domid, device))"),
};

static void power_on(struct hv_state *hv)
{
	char version[40];

	sql_run(hv->sql, "DROP TABLE IF EXISTS boot", "");
	sql_run(hv->sql, "DROP TABLE IF EXISTS domain", "");
	sql_run(hv->sql, "DROP TABLE IF EXISTS vif", "");
	for (size_t i = 0; i < ARRAY_LEN(tables); i++)
		sql_run(hv->sql, tables[i], "");
	env_uuid(hv->env, hv->boot_id);
	sql_run(hv->sql, "INSERT INTO boot VALUES (?)", "s", hv->boot_id);
	snprintf(version, sizeof version, "PRAGMA user_version = %d", FORMAT);
	sql_run(hv->sql, version, "");
}

static struct hv_state *sim_open(struct env *env, const char *dir, const struct hv_machine *machine)
{
	struct hv_state *hv = mem_new(sizeof *hv);
	char path[512];

	hv->env = env;
	hv->memory_kib = machine->memory_kib;
	hv->cpu = (struct hv_cpu){ .cpus = machine->cpus > 0 ? machine->cpus : CPUS,
		.sockets = 1,
		.mhz = 2400,
		.vendor = "GenuineXpool",
		.model = "Simulated processor at 2.40 GHz" };
	hv->cpu.cores = (hv->cpu.cpus + 1) / 2;
	snprintf(hv->cpu.features, sizeof hv->cpu.features, "%s",
		machine->features != NULL ? machine->features
					  : "1789c3f5-f6f83203-2991cbf5-00000023");
	pthread_mutex_init(&hv->mutex, NULL);
	snprintf(hv->dir, sizeof hv->dir, "%s", dir);
	snprintf(path, sizeof path, "%s/domains.db", dir);
	/* domains outlive programs, no power cut */
	hv->sql = sql_open(env, path, SQL_ORDERED, "");
	if (hv->sql == NULL) {
		free(hv);
		return NULL;
	}
	hv->consoles = sim_consoles_new(env);
	if (sql_number(hv->sql, 0, "PRAGMA user_version", "") != FORMAT ||
		!sql_text(hv->sql, hv->boot_id, sizeof hv->boot_id, "SELECT id FROM boot", ""))
		power_on(hv);
	return hv;
}

static void sim_close(struct hv_state *hv)
{
	sim_consoles_free(hv->consoles);
	sql_close(hv->sql);
	pthread_mutex_destroy(&hv->mutex);
	free(hv);
}

static int sim_power_off(struct hv_state *hv, struct err *err)
{
	pthread_mutex_lock(&hv->mutex);
	sql_run(hv->sql, "PRAGMA user_version = 0", ""); /* no format: sim_open begins anew */
	pthread_mutex_unlock(&hv->mutex);
	(void)err;
	return 0;
}

static const char *sim_boot_id(const struct hv_state *hv)
{
	return hv->boot_id;
}

static int sim_nics(struct hv_state *hv, struct arena *a, struct val *out, struct err *err)
{
	int rc;

	pthread_mutex_lock(&hv->mutex);
	rc = sim_nics_read(hv->env, hv->dir, a, out, err);
	pthread_mutex_unlock(&hv->mutex);
	return rc;
}

/* What the guest does. */

static int64_t number(const struct val *sim, const char *key, int64_t absent)
{
	const struct val *v = val_get(sim, key);

	return v != NULL && v->kind == VAL_INT ? v->i : absent;
}

static bool word(const struct val *sim, const char *key, const char *is)
{
	const char *s = val_get_s(sim, key);

	return strcmp(s != NULL ? s : "ok", is) == 0;
}

static void behaviour(struct arena *a, const char *text, struct val *sim_out)
{
	const char *why;

	arena_init(a);
	*sim_out = val_map();
	if (*text != 0 && rpc_json_parse(a, text, strlen(text), sim_out, &why) != 0)
		*sim_out = val_map();
}

/* The request and its age. */
struct asked {
	enum hv_end how;
	int64_t for_ms;
};

static bool acknowledges(const struct val *sim, const struct asked *q)
{
	return !word(sim, q->how == HV_SUSPEND ? "suspend" : "shutdown", "ignore") &&
	       q->for_ms >= number(sim, "ack_ms", 0);
}

/* Has it stopped by now? ran_ms: since it was let run; q: NULL, nobody asked. */
static bool stopped(const struct val *sim, int64_t ran_ms, const struct asked *q, enum hv_end *out)
{
	static const struct {
		const char *key;
		enum hv_end end;
	} itself[] = { { "poweroff_after_ms", HV_POWEROFF }, { "reboot_after_ms", HV_REBOOT },
		{ "crash_after_ms", HV_CRASH } };

	int64_t at = INT64_MAX, when; /* since it was let run; the earliest is what has happened */

	for (size_t i = 0; i < ARRAY_LEN(itself); i++) {
		when = number(sim, itself[i].key, INT64_MAX);
		if (when < at) {
			at = when;
			*out = itself[i].end;
		}
	}
	if (q != NULL && acknowledges(sim, q) &&
		word(sim, q->how == HV_SUSPEND ? "suspend" : "shutdown", "ok")) {
		when = ran_ms - q->for_ms + number(sim, "shutdown_ms", SHUTDOWN_MS);
		if (when < at) {
			at = when;
			*out = q->how;
		}
	}
	return at <= ran_ms;
}

/* Domains. */

#define DOMAIN_COLUMNS                                                                             \
	"domid, uuid, paused, marked, built, memory_kib, target_kib, vcpus, created_ms, run_ms, "  \
	"asked, asked_ms, sim, moving, job"

struct list {
	struct hv_state *hv;
	struct hv_domain *out;
	unsigned n, max;
};

static void on_domain(void *arg, struct sql_row *row)
{
	struct list *l = arg;
	struct hv_domain *d;
	int64_t now = (int64_t)env_now_ms(l->hv->env), run = sql_int(row, 9);
	struct asked asked = { (enum hv_end)sql_int(row, 10), now - sql_int(row, 11) };
	struct arena a;
	struct val sim;

	if (l->n == l->max)
		return;
	d = &l->out[l->n++];
	*d = (struct hv_domain){ .domid = (int)sql_int(row, 0),
		.paused = sql_int(row, 2) != 0,
		.marked = sql_int(row, 3) != 0,
		.built = sql_int(row, 4) != 0,
		.memory_kib = sql_int(row, 5),
		.target_kib = sql_int(row, 6),
		.vcpus = (int)sql_int(row, 7),
		.age_s = (now - sql_int(row, 8)) / 1000 };
	d->asked_suspend = asked.how == HV_SUSPEND;
	d->moving = (enum hv_moving)sql_int(row, 13);
	snprintf(d->uuid, sizeof d->uuid, "%s", sql_string(row, 1));
	snprintf(d->job, sizeof d->job, "%s", sql_string(row, 14));
	behaviour(&a, sql_string(row, 12), &sim);
	d->age_s += number(&sim, "age_s", 0);
	if (!d->paused && run != 0)
		d->shut_down =
			stopped(&sim, now - run, sql_int(row, 10) >= 0 ? &asked : NULL, &d->end);
	arena_fini(&a);
}

static bool sim_find(struct hv_state *hv, const char *uuid, struct hv_domain *out)
{
	struct list l = { hv, out, 0, 1 };

	pthread_mutex_lock(&hv->mutex);
	sql_query(hv->sql, on_domain, &l,
		"SELECT " DOMAIN_COLUMNS " FROM domain WHERE uuid = ? ORDER BY domid DESC", "s",
		uuid);
	pthread_mutex_unlock(&hv->mutex);
	return l.n > 0;
}

static unsigned sim_list(struct hv_state *hv, struct hv_domain *out, unsigned max)
{
	struct list l = { hv, out, 0, max };

	pthread_mutex_lock(&hv->mutex);
	sql_query(
		hv->sql, on_domain, &l, "SELECT " DOMAIN_COLUMNS " FROM domain ORDER BY domid", "");
	pthread_mutex_unlock(&hv->mutex);
	return l.n;
}

static int64_t used_kib(struct hv_state *hv)
{
	return sql_number(hv->sql, 0, "SELECT coalesce(sum(memory_kib), 0) FROM domain", "");
}

static void sim_cpu(const struct hv_state *hv, struct hv_cpu *out)
{
	*out = hv->cpu;
}

static void sim_memory(struct hv_state *hv, int64_t *total_kib_out, int64_t *free_kib_out)
{
	pthread_mutex_lock(&hv->mutex);
	*total_kib_out = hv->memory_kib;
	*free_kib_out = hv->memory_kib - used_kib(hv);
	pthread_mutex_unlock(&hv->mutex);
}

/* Calls. */

static int failed(struct err *err, const char *what)
{
	return err_set(err, AGENT_ERR_domain_failed, what, NULL);
}

/* A call takes its time and may fail, as the behaviour says. */
static int take_time(struct hv_state *hv, const struct val *sim, const char *call, struct err *err)
{
	int64_t ms = number(val_get(sim, "delay_ms"), call, 0);
	const char *why = val_get_s(val_get(sim, "fail"), call);
	struct parker *p;

	if (ms > 0) {
		p = hv->env->ops->parker_new(hv->env);
		hv->env->ops->park(p, (uint64_t)ms * 1000);
		hv->env->ops->parker_free(p);
	}
	return why != NULL ? failed(err, why) : 0;
}

static int begin(struct hv_state *hv, int domid, const char *call, struct err *err)
{
	char text[SIM_TEXT_MAX] = "";
	struct arena a;
	struct val sim;
	int rc;

	pthread_mutex_lock(&hv->mutex);
	sql_text(hv->sql, text, sizeof text, "SELECT sim FROM domain WHERE domid = ?", "i",
		(int64_t)domid);
	pthread_mutex_unlock(&hv->mutex);
	behaviour(&a, text, &sim);
	rc = take_time(hv, &sim, call, err);
	arena_fini(&a);
	return rc;
}

static int too_much(int64_t needed_kib, int64_t spare_kib, struct err *err)
{
	char needed[32], available[32];

	snprintf(needed, sizeof needed, "%lld", (long long)needed_kib * 1024);
	snprintf(available, sizeof available, "%lld", (long long)spare_kib * 1024);
	return err_set(err, AGENT_ERR_no_free_memory, needed, available, NULL);
}

static int insert(struct hv_state *hv, const struct hv_config *c, const char *sim, int *domid_out,
	struct err *err)
{
	int64_t spare = hv->memory_kib - used_kib(hv);

	if (c->memory_kib > spare)
		return too_much(c->memory_kib, spare, err);
	if (sql_run(hv->sql,
		    "INSERT INTO domain (uuid, paused, marked, built, memory_kib, target_kib, "
		    "vcpus, "
		    "created_ms, run_ms, asked, asked_ms, sim) VALUES (?, 1, 1, 0, ?, ?, ?, ?, 0, "
		    "-1, 0, "
		    "?)",
		    "siiiis", c->uuid, c->memory_kib, c->memory_kib, (int64_t)c->vcpus,
		    (int64_t)env_now_ms(hv->env), sim) != 0)
		return failed(err, "the domain cannot be created");
	*domid_out = (int)sql_number(
		hv->sql, -1, "SELECT max(domid) FROM domain WHERE uuid = ?", "s", c->uuid);
	return 0;
}

static int sim_create(
	struct hv_state *hv, const struct hv_config *config, int *domid_out, struct err *err)
{
	struct buf sim = { 0 };
	int rc;

	if (config->sim != NULL)
		val_json(&sim, config->sim);
	if (sim.len >= SIM_TEXT_MAX)
		rc = failed(err, "the behaviour is too long");
	else
		rc = take_time(hv, config->sim, "create", err);
	if (rc == 0) {
		pthread_mutex_lock(&hv->mutex);
		rc = insert(hv, config, buf_text(&sim), domid_out, err);
		pthread_mutex_unlock(&hv->mutex);
	}
	buf_fini(&sim);
	return rc;
}

/* One statement about one domain. */
static int run(struct hv_state *hv, int domid, const char *call, const char *statement,
	int64_t value, struct err *err)
{
	char text[80];
	int rc = begin(hv, domid, call, err);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&hv->mutex);
	rc = sql_run(hv->sql, statement, "ii", value, (int64_t)domid);
	pthread_mutex_unlock(&hv->mutex);
	snprintf(text, sizeof text, "%s of the domain failed", call);
	return rc == 0 ? 0 : failed(err, text);
}

static int sim_build(
	struct hv_state *hv, int domid, const struct hv_config *config, struct err *err)
{
	(void)config;
	return run(hv, domid, "build", "UPDATE domain SET built = ? WHERE domid = ?", 1, err);
}

static int sim_keep(struct hv_state *hv, int domid, struct err *err)
{
	return run(hv, domid, "keep", "UPDATE domain SET marked = ? WHERE domid = ?", 0, err);
}

static int sim_pause(struct hv_state *hv, int domid, struct err *err)
{
	return run(hv, domid, "pause", "UPDATE domain SET paused = ? WHERE domid = ?", 1, err);
}

static int sim_unpause(struct hv_state *hv, int domid, struct err *err)
{
	return run(hv, domid, "unpause",
		"UPDATE domain SET paused = 0, run_ms = iif(run_ms = 0, ?1, run_ms) WHERE domid = "
		"?2",
		(int64_t)env_now_ms(hv->env), err);
}

/* A guest that can follows at once. */
static int sim_set_memory(struct hv_state *hv, int domid, int64_t target_kib, struct err *err)
{
	char text[SIM_TEXT_MAX] = "";
	const struct val *can;
	int64_t more;
	struct arena a;
	struct val sim;
	int rc = begin(hv, domid, "memory", err);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&hv->mutex);
	sql_text(hv->sql, text, sizeof text, "SELECT sim FROM domain WHERE domid = ?", "i",
		(int64_t)domid);
	behaviour(&a, text, &sim);
	can = val_get(&sim, "balloon");
	more = target_kib - sql_number(hv->sql, target_kib,
				    "SELECT memory_kib FROM domain WHERE domid = ?", "i",
				    (int64_t)domid);
	if (more > hv->memory_kib - used_kib(hv))
		rc = too_much(more, hv->memory_kib - used_kib(hv), err);
	else if (sql_run(hv->sql,
			 "UPDATE domain SET target_kib = ?1, memory_kib = iif(?2, ?1, memory_kib) "
			 "WHERE domid = ?3",
			 "iii", target_kib,
			 (int64_t)(can == NULL || can->kind != VAL_BOOL || can->b),
			 (int64_t)domid) != 0)
		rc = failed(err, "the target cannot be set");
	pthread_mutex_unlock(&hv->mutex);
	arena_fini(&a);
	return rc;
}

static int sim_set_vcpus(struct hv_state *hv, int domid, int vcpus, struct err *err)
{
	return run(hv, domid, "vcpus", "UPDATE domain SET vcpus = ? WHERE domid = ?", vcpus, err);
}

static int sim_destroy(struct hv_state *hv, int domid, struct err *err)
{
	int rc =
		run(hv, domid, "destroy", "DELETE FROM domain WHERE ?1 = 0 AND domid = ?2", 0, err);

	if (rc == 0) {
		pthread_mutex_lock(&hv->mutex);
		sql_run(hv->sql, "DELETE FROM vif WHERE domid NOT IN (SELECT domid FROM domain)",
			"");
		sim_console_end(hv->consoles, domid);
		pthread_mutex_unlock(&hv->mutex);
	}
	return rc;
}

static int sim_console(
	struct hv_state *hv, const struct hv_domain *domain, int *fd_out, struct err *err)
{
	int rc;

	pthread_mutex_lock(&hv->mutex);
	if (sql_number(hv->sql, 0, "SELECT count(*) FROM domain WHERE domid = ?", "i",
		    (int64_t)domain->domid) == 0)
		rc = failed(err, "the domain is gone");
	else
		rc = sim_console_open(hv->consoles, domain->domid, domain->uuid, fd_out, err);
	pthread_mutex_unlock(&hv->mutex);
	return rc;
}

static int sim_ask(struct hv_state *hv, int domid, enum hv_end how, struct err *err)
{
	int rc;

	pthread_mutex_lock(&hv->mutex);
	rc = sql_run(hv->sql, "UPDATE domain SET asked = ?, asked_ms = ? WHERE domid = ?", "iii",
		(int64_t)how, (int64_t)env_now_ms(hv->env), (int64_t)domid);
	pthread_mutex_unlock(&hv->mutex);
	return rc == 0 ? 0 : failed(err, "the guest cannot be asked");
}

static void sim_withdraw(struct hv_state *hv, int domid)
{
	pthread_mutex_lock(&hv->mutex);
	sql_run(hv->sql, "UPDATE domain SET asked = -1 WHERE domid = ?", "i", (int64_t)domid);
	pthread_mutex_unlock(&hv->mutex);
}

struct acknowledged {
	struct hv_state *hv;
	bool yes;
};

static void on_asked(void *arg, struct sql_row *row)
{
	struct acknowledged *q = arg;
	struct asked asked = { (enum hv_end)sql_int(row, 0),
		(int64_t)env_now_ms(q->hv->env) - sql_int(row, 1) };
	struct arena a;
	struct val sim;

	behaviour(&a, sql_string(row, 2), &sim);
	q->yes = acknowledges(&sim, &asked);
	arena_fini(&a);
}

static bool sim_acknowledged(struct hv_state *hv, int domid)
{
	struct acknowledged q = { hv, false };

	pthread_mutex_lock(&hv->mutex);
	sql_query(hv->sql, on_asked, &q,
		"SELECT asked, asked_ms, sim FROM domain WHERE domid = ? AND asked >= 0", "i",
		(int64_t)domid);
	pthread_mutex_unlock(&hv->mutex);
	return q.yes;
}

static void sim_guest(struct hv_state *hv, int domid, struct arena *a, struct val *out)
{
	char text[SIM_TEXT_MAX] = "";
	const struct val *keys;
	struct arena own;
	struct val sim;

	pthread_mutex_lock(&hv->mutex);
	sql_text(hv->sql, text, sizeof text,
		"SELECT sim FROM domain WHERE domid = ? AND run_ms > 0", "i", (int64_t)domid);
	pthread_mutex_unlock(&hv->mutex);
	behaviour(&own, text, &sim);
	keys = val_get(&sim, "guest");
	*out = keys != NULL && keys->kind == VAL_MAP ? val_dup(a, keys) : val_map();
	arena_fini(&own);
}

/* Images: a guest as JSON. Its clock stands from when it was asked to suspend until it is let run
 * again. */

static const char image_format[] = "xpool-sim-1";

struct saved {
	struct hv_state *hv;
	struct buf *out;
	bool any;
};

static void on_saved(void *arg, struct sql_row *row)
{
	struct saved *s = arg;
	struct val v = val_map();
	struct arena a;
	int64_t asked_ms = sql_int(row, 5);

	arena_init(&a);
	val_map_push(&a, &v, "format", val_string(image_format));
	val_map_push(&a, &v, "memory_kib", val_int(sql_int(row, 0)));
	val_map_push(&a, &v, "target_kib", val_int(sql_int(row, 1)));
	val_map_push(&a, &v, "vcpus", val_int(sql_int(row, 2)));
	val_map_push(&a, &v, "age_ms", val_int(asked_ms - sql_int(row, 3)));
	val_map_push(&a, &v, "ran_ms", val_int(asked_ms - sql_int(row, 4)));
	val_map_push(&a, &v, "sim", val_string(sql_string(row, 6)));
	val_json(s->out, &v);
	arena_fini(&a);
	s->any = true;
}

static int sim_save(struct hv_state *hv, int domid, struct buf *image, struct err *err)
{
	struct saved s = { hv, image, false };
	int rc = begin(hv, domid, "save", err);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&hv->mutex);
	sql_query(hv->sql, on_saved, &s,
		"SELECT memory_kib, target_kib, vcpus, created_ms, run_ms, asked_ms, sim FROM "
		"domain WHERE domid = ? AND asked = ?",
		"ii", (int64_t)domid, (int64_t)HV_SUSPEND);
	pthread_mutex_unlock(&hv->mutex);
	return s.any ? 0 : failed(err, "the guest has not suspended");
}

struct image {
	int64_t memory_kib, target_kib, vcpus, age_ms, ran_ms;
	const char *sim;
};

static bool image_number(const struct val *v, const char *key, int64_t most, int64_t *out)
{
	*out = number(v, key, -1);
	return *out >= 0 && *out <= most;
}

static bool image_parse(struct arena *a, const char *text, struct image *out)
{
	const char *why;
	struct val v = val_void();

	if (strlen(text) >= HV_IMAGE_MAX || rpc_json_parse(a, text, strlen(text), &v, &why) != 0 ||
		val_get_s(&v, "format") == NULL ||
		strcmp(val_get_s(&v, "format"), image_format) != 0)
		return false;
	out->sim = val_get_s(&v, "sim");
	return out->sim != NULL && strlen(out->sim) < SIM_TEXT_MAX &&
	       image_number(&v, "memory_kib", INT64_MAX / 1024, &out->memory_kib) &&
	       image_number(&v, "target_kib", INT64_MAX / 1024, &out->target_kib) &&
	       image_number(&v, "vcpus", INT32_MAX, &out->vcpus) &&
	       image_number(&v, "age_ms", INT32_MAX * (int64_t)1000, &out->age_ms) &&
	       image_number(&v, "ran_ms", INT32_MAX * (int64_t)1000, &out->ran_ms) &&
	       out->memory_kib > 0;
}

static int64_t sim_image_memory_kib(const char *text)
{
	struct image image = { 0 };
	struct arena a;
	int64_t kib;

	arena_init(&a);
	kib = image_parse(&a, text, &image) ? image.memory_kib : 0;
	arena_fini(&a);
	return kib;
}

static int sim_restore(struct hv_state *hv, int domid, const char *text, struct err *err)
{
	int64_t now = (int64_t)env_now_ms(hv->env);
	struct image image = { 0 };
	struct arena a;
	int rc = begin(hv, domid, "restore", err);

	if (rc != 0)
		return rc;
	arena_init(&a);
	if (!image_parse(&a, text, &image)) {
		rc = failed(err, "this is no memory image");
	} else {
		pthread_mutex_lock(&hv->mutex);
		rc = sql_run(hv->sql,
			"UPDATE domain SET built = 1, target_kib = ?, vcpus = ?, created_ms = ?, "
			"run_ms = ?, sim = ? WHERE domid = ? AND memory_kib = ?",
			"iiiisii", image.target_kib, image.vcpus, now - image.age_ms,
			now - image.ran_ms, image.sim, (int64_t)domid, image.memory_kib);
		pthread_mutex_unlock(&hv->mutex);
		if (rc != 0)
			rc = failed(err, "restore of the domain failed");
	}
	arena_fini(&a);
	return rc;
}

static int sim_resume(struct hv_state *hv, int domid, struct err *err)
{
	return run(hv, domid, "resume", "UPDATE domain SET asked = ? WHERE domid = ?", -1, err);
}

static int sim_move(
	struct hv_state *hv, int domid, enum hv_moving moving, const char *job, struct err *err)
{
	int rc;

	pthread_mutex_lock(&hv->mutex);
	rc = sql_run(hv->sql,
		"UPDATE domain SET moving = ?1, job = ?2, marked = iif(?1 = 2, 0, marked) WHERE "
		"domid = ?3",
		"isi", (int64_t)moving, job, (int64_t)domid);
	pthread_mutex_unlock(&hv->mutex);
	return rc == 0 ? 0 : failed(err, "the domain cannot be told whose it is");
}

/* Interfaces. */

static int sim_vif_plug(struct hv_state *hv, int domid, const struct hv_vif *vif, struct err *err)
{
	int rc = begin(hv, domid, "plug", err);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&hv->mutex);
	rc = sql_run(hv->sql, "INSERT OR REPLACE INTO vif VALUES (?, ?, ?, ?, ?, ?, ?)", "iissiis",
		(int64_t)domid, (int64_t)vif->device, vif->mac, vif->bridge, (int64_t)vif->mtu,
		(int64_t)vif->carrier, vif->locking_mode);
	pthread_mutex_unlock(&hv->mutex);
	return rc == 0 ? 0 : failed(err, "the interface cannot be plugged");
}

static int sim_vif_unplug(struct hv_state *hv, int domid, int device, struct err *err)
{
	int rc = begin(hv, domid, "unplug", err);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&hv->mutex);
	rc = sql_run(hv->sql, "DELETE FROM vif WHERE domid = ? AND device = ?", "ii",
		(int64_t)domid, (int64_t)device);
	pthread_mutex_unlock(&hv->mutex);
	return rc == 0 ? 0 : failed(err, "the interface cannot be unplugged");
}

struct vifs {
	struct hv_vif *out;
	unsigned n, max;
};

static void on_vif(void *arg, struct sql_row *row)
{
	struct vifs *l = arg;
	struct hv_vif *v;

	if (l->n == l->max)
		return;
	v = &l->out[l->n++];
	*v = (struct hv_vif){ .device = (int)sql_int(row, 0),
		.mtu = (int)sql_int(row, 3),
		.carrier = sql_int(row, 4) != 0 };
	snprintf(v->mac, sizeof v->mac, "%s", sql_string(row, 1));
	snprintf(v->bridge, sizeof v->bridge, "%s", sql_string(row, 2));
	snprintf(v->locking_mode, sizeof v->locking_mode, "%s", sql_string(row, 5));
}

static unsigned sim_vif_list(struct hv_state *hv, int domid, struct hv_vif *out, unsigned max)
{
	struct vifs l = { out, 0, max };

	pthread_mutex_lock(&hv->mutex);
	sql_query(hv->sql, on_vif, &l,
		"SELECT device, mac, bridge, mtu, carrier, locking_mode FROM vif WHERE domid = ? "
		"ORDER BY device",
		"i", (int64_t)domid);
	pthread_mutex_unlock(&hv->mutex);
	return l.n;
}

const struct hv_ops hv_sim = {
	.name = "sim",
	.disks = true,
	.open = sim_open,
	.close = sim_close,
	.power_off = sim_power_off,
	.boot_id = sim_boot_id,
	.find = sim_find,
	.list = sim_list,
	.cpu = sim_cpu,
	.memory = sim_memory,
	.nics = sim_nics,
	.create = sim_create,
	.build = sim_build,
	.keep = sim_keep,
	.pause = sim_pause,
	.unpause = sim_unpause,
	.set_memory = sim_set_memory,
	.set_vcpus = sim_set_vcpus,
	.destroy = sim_destroy,
	.console_open = sim_console,
	.ask = sim_ask,
	.withdraw = sim_withdraw,
	.acknowledged = sim_acknowledged,
	.guest = sim_guest,
	.save = sim_save,
	.image_memory_kib = sim_image_memory_kib,
	.restore = sim_restore,
	.resume = sim_resume,
	.move = sim_move,
	.vif_plug = sim_vif_plug,
	.vif_unplug = sim_vif_unplug,
	.vif_list = sim_vif_list,
};
