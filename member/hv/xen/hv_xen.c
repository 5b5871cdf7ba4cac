/* Domains of this machine's Xen. See xen_priv.h for which of them are ours.
 *
 * PV and PVH guests. Destroying goes backwards: first the handle gets the mark again, so an agent
 * that dies on the way ends it with its next look; what is left of xenstore after that goes when it
 * starts.
 */
#include "member/hv/xen/xen_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <xenctrl.h>
#include <xenguest.h>
#include <string.h>

/* Turns the version of a uuid made by anybody (1 to 8) into one above. */
static const uint8_t xen_mark[16] = { 0x5a, 0x10, 0x0b, 0x1e, 0x77, 0xe1, 0x80, 0x3c, 0x00, 0x6b,
	0xd4, 0x29, 0xc8, 0x53, 0x9f, 0xa6 };

/* What a domain has beyond its target once its guest is up: its rings, and the like. */
#define MEMORY_OFFSET "memory/memory-offset"

int xen_failed(struct err *err, const char *call)
{
	char text[160];

	snprintf(text, sizeof text, "%s: %s", call, strerror(errno));
	return err_set(err, AGENT_ERR_domain_failed, text, NULL);
}

int xen_wrong(struct err *err, const char *text)
{
	return err_set(err, AGENT_ERR_bad_request, text, NULL);
}

/* Handles. */

static void handle_of(const char *uuid, bool marked, xen_domain_handle_t out)
{
	unsigned byte, n = 0;

	for (const char *s = uuid; *s != 0 && n < 16; s++) {
		if (*s == '-')
			continue;
		sscanf(s++, "%2x", &byte);
		out[n] = (uint8_t)byte ^ (marked ? xen_mark[n] : 0);
		n++;
	}
}

/* true: it has the mark. */
static bool uuid_of(const xen_domain_handle_t handle, char out[UUID_LEN + 1])
{
	bool marked = (handle[6] & 0x80) != 0; /* the top bit of the version */
	char *at = out;

	for (unsigned i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		at += snprintf(at, 3, "%02x", handle[i] ^ (marked ? xen_mark[i] : 0));
	}
	return marked;
}

bool xen_wait(
	struct hv_state *hv, uint64_t ms, bool (*done)(struct hv_state *hv, void *arg), void *arg)
{
	enum { LOOK_US = 20000 };
	struct parker *p = hv->env->ops->parker_new(hv->env);
	uint64_t until = env_now_ms(hv->env) + ms;
	bool is;

	for (;;) {
		pthread_mutex_lock(&hv->mutex);
		is = done(hv, arg);
		pthread_mutex_unlock(&hv->mutex);
		if (is || env_now_ms(hv->env) >= until)
			break;
		hv->env->ops->park(p, LOOK_US);
	}
	hv->env->ops->parker_free(p);
	return is;
}

/* Opening. */

static int check_version(struct hv_state *hv)
{
	int major = 0, minor = 0, version = xc_version(hv->xc, XENVER_version, NULL);

	sscanf(XPOOL_XEN_LIBRARY, "%d.%d", &major, &minor);
	if (version == (major << 16 | minor))
		return 0;
	log_err(hv->env,
		"event=xen_version running=%d.%d libraries=%d.%d remedy=\"boot Xen %d.%d, or use "
		"an "
		"xpool-agent built for the running one\"",
		version >> 16, version & 0xffff, major, minor, major, minor);
	return -1;
}

static int read_boot_id(struct hv_state *hv)
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	bool got = f != NULL && fscanf(f, "%36s", hv->boot_id) == 1;

	if (f != NULL)
		fclose(f);
	return got && uuid_ok(hv->boot_id) ? 0 : -1;
}

static void xen_close(struct hv_state *hv)
{
	if (hv->xs != NULL)
		xs_close(hv->xs);
	if (hv->xc != NULL)
		xc_interface_close(hv->xc);
	pthread_mutex_destroy(&hv->mutex);
	free(hv);
}

static bool is_there(struct hv_state *hv, int domid)
{
	xc_dominfo_t info;

	return xc_domain_getinfo(hv->xc, (uint32_t)domid, 1, &info) == 1 &&
	       info.domid == (uint32_t)domid;
}

static struct hv_state *xen_open(struct env *env, const char *dir, const struct hv_machine *machine)
{
	struct hv_state *hv = mem_new(sizeof *hv);

	(void)dir;
	hv->env = env;
	pthread_mutex_init(&hv->mutex, NULL);
	snprintf(hv->boot_dir, sizeof hv->boot_dir, "%s",
		machine->boot_dir != NULL ? machine->boot_dir : "");
	hv->work_s = machine->work_s > 0 ? machine->work_s : XEN_CHILD_S;
	hv->xc = xc_interface_open(NULL, NULL, 0);
	if (hv->xc == NULL)
		log_err(env,
			"event=xen_closed error=\"%s\" remedy=\"run it in domain 0 of a Xen "
			"host, as root, with xen-privcmd loaded\"",
			strerror(errno));
	if (hv->xc == NULL || check_version(hv) != 0)
		goto close;
	hv->xs = xs_open(0);
	if (hv->xs == NULL)
		log_err(env, "event=xenstore_closed error=\"%s\" remedy=\"start xenstored\"",
			strerror(errno));
	if (hv->xs == NULL || read_boot_id(hv) != 0)
		goto close;
	xen_store_sweep(hv, is_there);
	return hv;
close:
	xen_close(hv);
	return NULL;
}

static const char *xen_boot_id(const struct hv_state *hv)
{
	return hv->boot_id;
}

/* The machine. */

static void vendor_and_model(struct hv_cpu *out)
{
	char line[256];
	FILE *f = fopen("/proc/cpuinfo", "re");

	while (f != NULL && fgets(line, sizeof line, f) != NULL && *line != '\n') {
		sscanf(line, "vendor_id : %15[^\n]", out->vendor);
		sscanf(line, "model name : %63[^\n]", out->model);
	}
	if (f != NULL)
		fclose(f);
}

static void xen_cpu(const struct hv_state *state, struct hv_cpu *out)
{
	struct hv_state *hv = (struct hv_state *)(uintptr_t)state; /* the libraries know no const */
	uint32_t words[32] = { 0 }, n = ARRAY_LEN(words);
	xc_physinfo_t info = { 0 };
	size_t at = 0;
	int rc;

	*out = (struct hv_cpu){ 0 };
	vendor_and_model(out);
	pthread_mutex_lock(&hv->mutex);
	rc = xc_physinfo(hv->xc, &info);
	if (xc_get_cpu_featureset(hv->xc, XEN_SYSCTL_cpu_featureset_host, &n, words) != 0)
		n = 0;
	pthread_mutex_unlock(&hv->mutex);
	if (rc == 0) {
		out->cpus = (int)info.nr_cpus;
		out->cores = (int)(info.nr_cpus /
				   (info.threads_per_core > 0 ? info.threads_per_core : 1));
		out->sockets =
			out->cores / (int)(info.cores_per_socket > 0 ? info.cores_per_socket : 1);
		out->sockets = out->sockets > 0 ? out->sockets : 1;
		out->mhz = (int)(info.cpu_khz / 1000);
	}
	for (uint32_t i = 0; i < n && at + 10 < sizeof out->features; i++)
		at += (size_t)snprintf(out->features + at, sizeof out->features - at, "%s%08x",
			i > 0 ? "-" : "", words[i]);
}

static void memory_of(struct hv_state *hv, int64_t *total_kib_out, int64_t *free_kib_out)
{
	xc_physinfo_t info = { 0 };

	xc_physinfo(hv->xc, &info);
	*total_kib_out = (int64_t)info.total_pages * 4;
	*free_kib_out = ((int64_t)info.free_pages - (int64_t)info.outstanding_pages) * 4;
}

static void xen_memory(struct hv_state *hv, int64_t *total_kib_out, int64_t *free_kib_out)
{
	pthread_mutex_lock(&hv->mutex);
	memory_of(hv, total_kib_out, free_kib_out);
	pthread_mutex_unlock(&hv->mutex);
}

/* Looking. */

/* false: it is not ours. */
static bool domain_of(struct hv_state *hv, const xc_dominfo_t *info, struct hv_domain *out)
{
	static const enum hv_end ends[] = { [SHUTDOWN_poweroff] = HV_POWEROFF,
		[SHUTDOWN_reboot] = HV_REBOOT,
		[SHUTDOWN_suspend] = HV_SUSPEND,
		[SHUTDOWN_crash] = HV_CRASH };
	char uuid[UUID_LEN + 1], target[XEN_VALUE_MAX];
	int64_t created = (int64_t)env_now_ms(hv->env);
	bool known = xen_store_ours(hv, (int)info->domid, uuid, &created);

	*out = (struct hv_domain){ .domid = (int)info->domid,
		.paused = info->paused,
		.shut_down = info->shutdown,
		.end = HV_CRASH,
		.memory_kib = (int64_t)info->nr_pages * 4,
		.target_kib = (int64_t)info->nr_pages * 4,
		.vcpus = (int)info->nr_online_vcpus };
	out->marked = uuid_of(info->handle, out->uuid);
	if (!out->marked && !(known && strcmp(uuid, out->uuid) == 0))
		return false;
	out->built = !out->marked;
	out->age_s = ((int64_t)env_now_ms(hv->env) - created) / 1000;
	if (info->shutdown && info->shutdown_reason < ARRAY_LEN(ends))
		out->end = ends[info->shutdown_reason];
	if (xen_store_read(hv, out->domid, "memory/target", target) && atoll(target) > 0)
		out->target_kib = atoll(target);
	if (xen_store_read(hv, out->domid, MEMORY_OFFSET, target))
		out->memory_kib -= atoll(target);
	return true;
}

/* It is dying, and no driver of the host has anything of it open: it writes no more. */
static bool is_over(struct hv_state *hv, const xc_dominfo_t *info)
{
	return info->dying && xen_device_none(hv, (int)info->domid);
}

/* Each domain that is not over, until fn says no. */
static void each(struct hv_state *hv, bool (*fn)(void *arg, const xc_dominfo_t *info), void *arg)
{
	enum { AT_ONCE = 64 };
	xc_dominfo_t info[AT_ONCE];
	uint32_t from = 1; /* domain 0 is nobody's guest */
	int n;

	do {
		n = xc_domain_getinfo(hv->xc, from, AT_ONCE, info);
		for (int i = 0; i < n; i++) {
			from = info[i].domid + 1;
			if (!is_over(hv, &info[i]) && !fn(arg, &info[i]))
				return;
		}
	} while (n == AT_ONCE);
}

struct looking {
	struct hv_state *hv;
	const char *uuid; /* NULL: all */
	struct hv_domain *out;
	unsigned n, max;
};

static bool look(void *arg, const xc_dominfo_t *info)
{
	struct looking *l = arg;
	char uuid[UUID_LEN + 1];

	if (l->uuid != NULL) {
		uuid_of(info->handle, uuid);
		if (strcmp(uuid, l->uuid) != 0)
			return true;
	}
	if (domain_of(l->hv, info, &l->out[l->n]))
		l->n++;
	return l->n < l->max;
}

static bool xen_find(struct hv_state *hv, const char *uuid, struct hv_domain *out)
{
	struct looking l = { hv, uuid, out, 0, 1 };

	pthread_mutex_lock(&hv->mutex);
	each(hv, look, &l);
	pthread_mutex_unlock(&hv->mutex);
	return l.n > 0;
}

static unsigned xen_list(struct hv_state *hv, struct hv_domain *out, unsigned max)
{
	struct looking l = { hv, NULL, out, 0, max };

	pthread_mutex_lock(&hv->mutex);
	each(hv, look, &l);
	pthread_mutex_unlock(&hv->mutex);
	return l.n;
}

struct strangers {
	const char *uuid;
	int domid; /* -1: none */
};

static bool is_stranger(void *arg, const xc_dominfo_t *info)
{
	struct strangers *s = arg;
	char uuid[UUID_LEN + 1];

	uuid_of(info->handle, uuid);
	if (strcmp(uuid, s->uuid) == 0)
		s->domid = (int)info->domid;
	return s->domid < 0;
}

/* Making. */

static int no_memory(struct hv_state *hv, int64_t needed_kib, struct err *err)
{
	char needed[32], spare[32];
	int64_t total_kib, free_kib;

	memory_of(hv, &total_kib, &free_kib);
	snprintf(needed, sizeof needed, "%lld", (long long)needed_kib * 1024);
	snprintf(spare, sizeof spare, "%lld", (long long)free_kib * 1024);
	return err_set(err, AGENT_ERR_no_free_memory, needed, spare, NULL);
}

static bool is_pvh(const struct hv_config *c)
{
	return strcmp(c->type, "pvh") == 0;
}

static int check(const struct hv_config *c, struct err *err)
{
	char call[48];

	if (strcmp(c->type, "pv") != 0 && !is_pvh(c)) {
		snprintf(call, sizeof call, "domain_type %s on xen", c->type);
		return err_set(err, AGENT_ERR_unimplemented, call, NULL);
	}
	if (c->kernel == NULL)
		return xen_wrong(
			err, "the machine has no kernel: give the path of one on this host");
	if (c->vcpus < 1 || c->vcpus > c->vcpus_max || c->vcpus_max > XEN_VCPUS_MAX)
		return xen_wrong(err, "vcpus are to be from 1 to vcpus_max, and that at most 128");
	return 0;
}

/* Tables by which hardware translates the guest's addresses: so much for each 16 MiB, and some. */
static int set_paging(struct hv_state *hv, uint32_t domid, const struct hv_config *c)
{
	unsigned mib = (unsigned)(c->memory_max_kib >> 14) + XEN_PAGING_MIB;

	return !is_pvh(c) ? 0
			  : xc_shadow_control(
				    hv->xc, domid, XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION, &mib, 0);
}

/* What has to be before its memory is filled, the claim on that memory last. */
static int furnish(struct hv_state *hv, uint32_t domid, const struct hv_config *c, struct err *err)
{
	if (xc_domain_max_vcpus(hv->xc, domid, (unsigned)c->vcpus_max) != 0)
		return xen_failed(err, "xc_domain_max_vcpus");
	if (xc_domain_setmaxmem(hv->xc, domid, (uint64_t)(c->memory_kib + XEN_SLACK_KIB)) != 0)
		return xen_failed(err, "xc_domain_setmaxmem");
	if (set_paging(hv, domid, c) != 0)
		return errno == ENOMEM ? no_memory(hv, c->memory_kib, err)
				       : xen_failed(err, "xc_shadow_control");
	if (xc_domain_claim_pages(hv->xc, domid, (unsigned long)(c->memory_kib / 4)) != 0)
		return errno == ENOMEM ? no_memory(hv, c->memory_kib, err)
				       : xen_failed(err, "xc_domain_claim_pages");
	if (xen_store_create(hv, (int)domid, c) != 0)
		return xen_failed(err, "the domain's tree in xenstore");
	return 0;
}

/* Can this machine run such a guest? */
static int check_machine(struct hv_state *hv, const struct hv_config *c, struct err *err)
{
	const uint32_t needs =
		is_pvh(c) ? XEN_SYSCTL_PHYSCAP_hvm | XEN_SYSCTL_PHYSCAP_hap : XEN_SYSCTL_PHYSCAP_pv;
	xc_physinfo_t info = { 0 };

	if (xc_physinfo(hv->xc, &info) != 0)
		return xen_failed(err, "xc_physinfo");
	if ((info.capabilities & needs) == needs)
		return 0;
	return xen_wrong(err, is_pvh(c)
				      ? "a pvh machine needs processors with nested paging, which "
					"this host has not or has switched off; use pv"
				      : "this Xen runs no pv machines; use pvh");
}

static int create(struct hv_state *hv, const struct hv_config *c, int *domid_out, struct err *err)
{
	struct xen_domctl_createdomain cfg = { .max_vcpus = (uint32_t)c->vcpus_max,
		.max_evtchn_port = -1,
		.max_grant_frames = -1,
		.max_maptrack_frames = -1,
		.flags = is_pvh(c) ? XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap : 0,
		.grant_opts = XEN_DOMCTL_GRANT_version(1),
		.arch.emulation_flags = is_pvh(c) ? XEN_X86_EMU_LAPIC : 0 };
	struct strangers other = { c->uuid, -1 };
	uint32_t domid = 0;
	char text[80];
	int rc;

	if (check_machine(hv, c, err) != 0)
		return ERR_API;
	each(hv, is_stranger, &other);
	if (other.domid >= 0) {
		snprintf(text, sizeof text, "domain %d, made by somebody else, has this uuid",
			other.domid);
		return err_set(err, AGENT_ERR_domain_failed, text, NULL);
	}
	handle_of(c->uuid, true, cfg.handle);
	if (xc_domain_create(hv->xc, &domid, &cfg) != 0)
		return errno == ENOMEM ? no_memory(hv, c->memory_kib, err)
				       : xen_failed(err, "xc_domain_create");
	rc = furnish(hv, domid, c, err);
	if (rc != 0) {
		xc_domain_destroy(hv->xc, domid);
		xen_store_remove(hv, (int)domid);
	}
	*domid_out = (int)domid;
	return rc;
}

static int xen_create(
	struct hv_state *hv, const struct hv_config *config, int *domid_out, struct err *err)
{
	int rc = check(config, err);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&hv->mutex);
	rc = create(hv, config, domid_out, err);
	pthread_mutex_unlock(&hv->mutex);
	return rc;
}

int xen_introduce(struct hv_state *hv, int domid, const struct xen_rings *rings, struct err *err)
{
	int rc = 0;

	pthread_mutex_lock(&hv->mutex);
	xc_domain_claim_pages(hv->xc, (uint32_t)domid, 0);
	if (xen_store_introduce(hv, domid, rings) != 0)
		rc = xen_failed(err, "the domain cannot be introduced to xenstored");
	pthread_mutex_unlock(&hv->mutex);
	return rc;
}

/* Calls for one domain of ours. */

static bool ours(struct hv_state *hv, int domid, struct hv_domain *out)
{
	xc_dominfo_t info;

	return domid > 0 && xc_domain_getinfo(hv->xc, (uint32_t)domid, 1, &info) == 1 &&
	       info.domid == (uint32_t)domid && !is_over(hv, &info) && domain_of(hv, &info, out);
}

int xen_begin(struct hv_state *hv, int domid, struct hv_domain *out, struct err *err)
{
	pthread_mutex_lock(&hv->mutex);
	if (ours(hv, domid, out))
		return 0;
	pthread_mutex_unlock(&hv->mutex);
	return err_set(err, AGENT_ERR_domain_failed, "the domain is gone", NULL);
}

static int end(struct hv_state *hv, int rc, const char *call, struct err *err)
{
	rc = rc == 0 ? 0 : xen_failed(err, call);
	pthread_mutex_unlock(&hv->mutex);
	return rc;
}

static int xen_keep(struct hv_state *hv, int domid, struct err *err)
{
	xen_domain_handle_t handle;
	struct hv_domain d;
	int rc = xen_begin(hv, domid, &d, err);

	if (rc != 0)
		return rc;
	handle_of(d.uuid, false, handle);
	return end(hv, xc_domain_sethandle(hv->xc, (uint32_t)domid, handle), "xc_domain_sethandle",
		err);
}

/* Xen counts how often a domain was paused; for us it is paused or not. */
static int xen_pause(struct hv_state *hv, int domid, struct err *err)
{
	struct hv_domain d;
	int rc = xen_begin(hv, domid, &d, err);

	if (rc != 0)
		return rc;
	return end(hv, d.paused ? 0 : xc_domain_pause(hv->xc, (uint32_t)domid), "xc_domain_pause",
		err);
}

static int xen_unpause(struct hv_state *hv, int domid, struct err *err)
{
	struct hv_domain d;
	int rc = xen_begin(hv, domid, &d, err);

	if (rc != 0)
		return rc;
	return end(hv, d.paused ? xc_domain_unpause(hv->xc, (uint32_t)domid) : 0,
		"xc_domain_unpause", err);
}

/* Others hold pages of it for a moment: then the number is still taken. */
static bool is_gone(struct hv_state *hv, void *arg)
{
	const int *domid = arg;

	return xen_device_none(hv, *domid) && !is_there(hv, *domid);
}

/* A driver that still has a disk open may write it: then it is not over. */
static int wait_gone(struct hv_state *hv, const struct hv_domain *d, struct err *err)
{
	int domid = d->domid;

	if (xen_wait(hv, XEN_GONE_MS, is_gone, &domid))
		return 0;
	if (!xen_device_none(hv, domid))
		return err_set(err, AGENT_ERR_domain_failed,
			"a driver of this host still has a device of the domain open", NULL);
	log_info(hv->env, "event=domain_lingers domid=%d vm=%s", domid, d->uuid);
	return 0;
}

static int xen_destroy(struct hv_state *hv, int domid, struct err *err)
{
	xen_domain_handle_t handle;
	struct hv_domain d;
	int rc = 0;

	pthread_mutex_lock(&hv->mutex);
	if (!ours(hv, domid, &d)) {
		pthread_mutex_unlock(&hv->mutex);
		return 0;
	}
	handle_of(d.uuid, true, handle);
	if ((!d.marked && xc_domain_sethandle(hv->xc, (uint32_t)domid, handle) != 0) ||
		xc_domain_destroy(hv->xc, (uint32_t)domid) != 0)
		rc = xen_failed(err, "xc_domain_destroy");
	else
		xen_store_remove(hv, domid);
	pthread_mutex_unlock(&hv->mutex);
	return rc == 0 ? wait_gone(hv, &d, err) : rc;
}

/* The guest hears of it by its target; beyond that Xen gives it nothing. */
static int set_memory(
	struct hv_state *hv, const struct hv_domain *d, int64_t target_kib, struct err *err)
{
	int64_t total_kib, free_kib, more_kib = target_kib - d->memory_kib;
	char value[XEN_VALUE_MAX];

	memory_of(hv, &total_kib, &free_kib);
	if (more_kib > free_kib)
		return no_memory(hv, more_kib, err);
	if (!xen_store_read(hv, d->domid, MEMORY_OFFSET, value)) {
		snprintf(value, sizeof value, "%lld", (long long)(d->memory_kib - d->target_kib));
		if (xen_store_write(hv, d->domid, MEMORY_OFFSET, value) != 0)
			return xen_failed(err, MEMORY_OFFSET);
	}
	snprintf(value, sizeof value, "%lld", (long long)target_kib);
	if (xc_domain_setmaxmem(
		    hv->xc, (uint32_t)d->domid, (uint64_t)(target_kib + XEN_SLACK_KIB)) != 0)
		return xen_failed(err, "xc_domain_setmaxmem");
	return xen_store_write(hv, d->domid, "memory/target", value) == 0
		       ? 0
		       : xen_failed(err, "memory/target in xenstore");
}

static int xen_set_memory(struct hv_state *hv, int domid, int64_t target_kib, struct err *err)
{
	struct hv_domain d;
	int rc = xen_begin(hv, domid, &d, err);

	if (rc != 0)
		return rc;
	rc = set_memory(hv, &d, target_kib, err);
	pthread_mutex_unlock(&hv->mutex);
	return rc;
}

static int xen_ask(struct hv_state *hv, int domid, enum hv_end how, struct err *err)
{
	struct hv_domain d;
	int rc;

	if (how != HV_POWEROFF && how != HV_REBOOT)
		return err_set(err, AGENT_ERR_unimplemented, "suspend on xen", NULL);
	rc = xen_begin(hv, domid, &d, err);
	if (rc != 0)
		return rc;
	return end(hv,
		xen_store_write(
			hv, domid, "control/shutdown", how == HV_REBOOT ? "reboot" : "poweroff"),
		"control/shutdown in xenstore", err);
}

static bool xen_acknowledged(struct hv_state *hv, int domid)
{
	char value[XEN_VALUE_MAX] = "";
	bool asks;

	pthread_mutex_lock(&hv->mutex);
	asks = xen_store_read(hv, domid, "control/shutdown", value) && *value != 0;
	pthread_mutex_unlock(&hv->mutex);
	return !asks;
}

static void xen_withdraw(struct hv_state *hv, int domid)
{
	struct hv_domain d;

	pthread_mutex_lock(&hv->mutex);
	if (ours(hv, domid, &d))
		xen_store_write(hv, domid, "control/shutdown", "");
	pthread_mutex_unlock(&hv->mutex);
}

const struct hv_ops hv_xen = {
	.name = "xen",
	.disks = true,
	.disk_plug = xen_disk_plug,
	.disk_release = xen_disk_release,
	.disk_unplug = xen_disk_unplug,
	.vif_plug = xen_vif_plug,
	.vif_unplug = xen_vif_unplug,
	.vif_list = xen_vif_list,
	.open = xen_open,
	.close = xen_close,
	.boot_id = xen_boot_id,
	.cpu = xen_cpu,
	.memory = xen_memory,
	.find = xen_find,
	.list = xen_list,
	.create = xen_create,
	.build = xen_build,
	.keep = xen_keep,
	.pause = xen_pause,
	.unpause = xen_unpause,
	.destroy = xen_destroy,
	.set_memory = xen_set_memory,
	.ask = xen_ask,
	.withdraw = xen_withdraw,
	.acknowledged = xen_acknowledged,
};
