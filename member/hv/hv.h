/* The hypervisor of this host, as the operations see it: domains by domid and uuid.
 *
 * Back ends: sim/ (simulated domains in a SQLite file that outlive the agent, as real ones do); the
 * real one follows. Blocking calls for worker threads; thread-safe. A call fails with
 * AGENT_ERR_domain_failed [text] unless it says more.
 *
 * The domain carries the proof of what it is: hv_domain_create() marks it with a power-off request
 * in the same step, hv_domain_keep() removes the mark. A restarted agent destroys what still has
 * it.
 */
#pragma once

#include "agent/agent.h"
#include "rpc/base/env.h"

struct hv;

enum { HV_DOMAINS_MAX = 1024 };

struct hv_domain {
	int domid;
	char uuid[UUID_LEN + 1];
	bool paused, marked, built;
	bool shut_down; /* the guest has stopped itself; code says how */
	int code;	/* 0 power off, 1 reboot, 3 crash */
	int64_t memory_kib;
};

/* How the guest of a simulated domain answers; a real back end ignores it. */
struct hv_guest {
	bool ignores_shutdown;
	int64_t shutdown_ms;
};

/* dir: folder for the back end's own state. NULL after a log line. */
struct hv *hv_open(struct env *env, const char *dir, int64_t memory_kib);
void hv_close(struct hv *hv);

const char *hv_boot_id(const struct hv *hv);
void hv_memory(struct hv *hv, int64_t *total_kib_out, int64_t *free_kib_out);

/* false: there is none. */
bool hv_domain_find(struct hv *hv, const char *uuid, struct hv_domain *out);
/* At most max; returns the number. */
unsigned hv_domain_list(struct hv *hv, struct hv_domain *out, unsigned max);

/* AGENT_ERR_no_free_memory [needed, free], bytes. */
int hv_domain_create(struct hv *hv, const char *uuid, int64_t memory_kib,
	const struct hv_guest *guest, int *domid_out, struct err *err);
int hv_domain_build(struct hv *hv, int domid, struct err *err);
int hv_domain_keep(struct hv *hv, int domid, struct err *err);
int hv_domain_pause(struct hv *hv, int domid, bool paused, struct err *err);
/* Idempotent: a domain that is not there is destroyed. */
int hv_domain_destroy(struct hv *hv, int domid, struct err *err);
/* Ask the guest to power off; withdraw takes the request back. */
int hv_domain_ask_shutdown(struct hv *hv, int domid, bool withdraw, struct err *err);
/* Has the guest seen the request? */
bool hv_domain_acknowledged(struct hv *hv, int domid);
