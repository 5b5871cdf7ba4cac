/* Simulated domains: rows of a SQLite file, so that they live on while the agent is dead, as real
 * ones do.
 *
 * Guests need no process: when a guest has acknowledged and when it has stopped follows from the
 * time of the request. A power-off of the host is the removal of the file: the boot id is in it.
 */
#include "member/hv/hv.h"
#include "rpc/base/sql.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUEST_ACK_MS = 20 };

struct hv {
	struct env *env;
	pthread_mutex_t mutex;
	struct sql *sql;
	int64_t memory_kib;
	char boot_id[UUID_LEN + 1];
};

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS boot (id TEXT);"
	"CREATE TABLE IF NOT EXISTS domain (domid INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT, "
	"paused INT, marked INT,"
	" built INT, memory_kib INT, ignores INT, shutdown_ms INT, asked_ms INT);";

struct hv *hv_open(struct env *env, const char *dir, int64_t memory_kib)
{
	struct hv *hv = mem_new(sizeof *hv);
	char path[512];

	hv->env = env;
	hv->memory_kib = memory_kib;
	pthread_mutex_init(&hv->mutex, NULL);
	snprintf(path, sizeof path, "%s/domains.db", dir);
	hv->sql = sql_open(env, path, SQL_DURABLE, schema);
	if (hv->sql == NULL) {
		free(hv);
		return NULL;
	}
	if (!sql_text(hv->sql, hv->boot_id, sizeof hv->boot_id, "SELECT id FROM boot", "")) {
		env_uuid(env, hv->boot_id);
		sql_run(hv->sql, "INSERT INTO boot VALUES (?)", "s", hv->boot_id);
	}
	return hv;
}

void hv_close(struct hv *hv)
{
	sql_close(hv->sql);
	pthread_mutex_destroy(&hv->mutex);
	free(hv);
}

const char *hv_boot_id(const struct hv *hv)
{
	return hv->boot_id;
}

struct list {
	struct hv *hv;
	struct hv_domain *out;
	unsigned n, max;
};

static void on_domain(void *arg, struct sql_row *row)
{
	struct list *l = arg;
	struct hv_domain *d;
	int64_t asked = sql_int(row, 6), now = (int64_t)env_now_ms(l->hv->env);
	bool ignores = sql_int(row, 7) != 0;

	if (l->n == l->max)
		return;
	d = &l->out[l->n++];
	*d = (struct hv_domain){ .domid = (int)sql_int(row, 0),
		.paused = sql_int(row, 2) != 0,
		.marked = sql_int(row, 3) != 0,
		.built = sql_int(row, 4) != 0,
		.memory_kib = sql_int(row, 5) };
	snprintf(d->uuid, sizeof d->uuid, "%s", sql_string(row, 1));
	d->shut_down = asked != 0 && !ignores && !d->paused && now >= asked + sql_int(row, 8);
}

#define DOMAIN_COLUMNS                                                                             \
	"domid, uuid, paused, marked, built, memory_kib, asked_ms, ignores, shutdown_ms"

bool hv_domain_find(struct hv *hv, const char *uuid, struct hv_domain *out)
{
	struct list l = { hv, out, 0, 1 };

	pthread_mutex_lock(&hv->mutex);
	sql_query(hv->sql, on_domain, &l,
		"SELECT " DOMAIN_COLUMNS " FROM domain WHERE uuid = ? ORDER BY domid DESC", "s",
		uuid);
	pthread_mutex_unlock(&hv->mutex);
	return l.n > 0;
}

unsigned hv_domain_list(struct hv *hv, struct hv_domain *out, unsigned max)
{
	struct list l = { hv, out, 0, max };

	pthread_mutex_lock(&hv->mutex);
	sql_query(
		hv->sql, on_domain, &l, "SELECT " DOMAIN_COLUMNS " FROM domain ORDER BY domid", "");
	pthread_mutex_unlock(&hv->mutex);
	return l.n;
}

static int64_t used_kib(struct hv *hv)
{
	return sql_number(hv->sql, 0, "SELECT coalesce(sum(memory_kib), 0) FROM domain", "");
}

void hv_memory(struct hv *hv, int64_t *total_kib_out, int64_t *free_kib_out)
{
	pthread_mutex_lock(&hv->mutex);
	*total_kib_out = hv->memory_kib;
	*free_kib_out = hv->memory_kib - used_kib(hv);
	pthread_mutex_unlock(&hv->mutex);
}

static int failed(struct err *err, const char *what)
{
	return err_set(err, AGENT_ERR_domain_failed, what, NULL);
}

int hv_domain_create(struct hv *hv, const char *uuid, int64_t memory_kib,
	const struct hv_guest *guest, int *domid_out, struct err *err)
{
	char needed[32], available[32];
	int64_t spare;
	int rc = 0;

	pthread_mutex_lock(&hv->mutex);
	spare = hv->memory_kib - used_kib(hv);
	if (memory_kib > spare) {
		snprintf(needed, sizeof needed, "%lld", (long long)memory_kib * 1024);
		snprintf(available, sizeof available, "%lld", (long long)spare * 1024);
		rc = err_set(err, AGENT_ERR_no_free_memory, needed, available, NULL);
	} else if (sql_run(hv->sql,
			   "INSERT INTO domain (uuid, paused, marked, built, memory_kib, ignores, "
			   "shutdown_ms, asked_ms)"
			   " VALUES (?, 1, 1, 0, ?, ?, ?, 0)",
			   "siii", uuid, memory_kib, (int64_t)guest->ignores_shutdown,
			   guest->shutdown_ms) != 0) {
		rc = failed(err, "the domain cannot be created");
	} else {
		*domid_out = (int)sql_number(
			hv->sql, -1, "SELECT max(domid) FROM domain WHERE uuid = ?", "s", uuid);
	}
	pthread_mutex_unlock(&hv->mutex);
	return rc;
}

/* One column of one domain. */
static int set(struct hv *hv, int domid, const char *statement, int64_t value, const char *what,
	struct err *err)
{
	int rc;

	pthread_mutex_lock(&hv->mutex);
	rc = sql_run(hv->sql, statement, "ii", value, (int64_t)domid);
	pthread_mutex_unlock(&hv->mutex);
	return rc == 0 ? 0 : failed(err, what);
}

int hv_domain_build(struct hv *hv, int domid, struct err *err)
{
	return set(hv, domid, "UPDATE domain SET built = ? WHERE domid = ?", 1,
		"the domain cannot be built", err);
}

int hv_domain_keep(struct hv *hv, int domid, struct err *err)
{
	return set(hv, domid, "UPDATE domain SET marked = ? WHERE domid = ?", 0,
		"the mark cannot be removed", err);
}

int hv_domain_pause(struct hv *hv, int domid, bool paused, struct err *err)
{
	return set(hv, domid, "UPDATE domain SET paused = ? WHERE domid = ?", paused,
		"the domain cannot be paused", err);
}

int hv_domain_destroy(struct hv *hv, int domid, struct err *err)
{
	return set(hv, domid, "DELETE FROM domain WHERE ?1 = 0 AND domid = ?2", 0,
		"the domain cannot be destroyed", err);
}

int hv_domain_ask_shutdown(struct hv *hv, int domid, bool withdraw, struct err *err)
{
	return set(hv, domid, "UPDATE domain SET asked_ms = ? WHERE domid = ?",
		withdraw ? 0 : (int64_t)env_now_ms(hv->env), "the guest cannot be asked", err);
}

bool hv_domain_acknowledged(struct hv *hv, int domid)
{
	int64_t asked;

	pthread_mutex_lock(&hv->mutex);
	asked = sql_number(hv->sql, 0,
		"SELECT asked_ms FROM domain WHERE domid = ? AND ignores = 0", "i", (int64_t)domid);
	pthread_mutex_unlock(&hv->mutex);
	return asked != 0 && (int64_t)env_now_ms(hv->env) >= asked + GUEST_ACK_MS;
}
