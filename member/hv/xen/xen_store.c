/* What xenstore says of a domain of ours.
 *
 * /local/domain/D is the guest's: it reads it, and owns the few nodes where it has to write;
 * nothing of those is trusted. /xpool/domain/D = "UUID CREATED_MS" is domain 0's alone.
 */
#include "member/hv/xen/xen_priv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A transaction under way: after the first failure nothing more is tried. */
struct writing {
	struct hv_state *hv;
	xs_transaction_t t;
	int domid;
	bool failed;
};

static void path_of(char *out, size_t size, int domid, const char *node)
{
	snprintf(out, size, "/local/domain/%d%s%s", domid, *node != 0 ? "/" : "", node);
}

static void put(struct writing *w, const char *node, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void put(struct writing *w, const char *node, const char *format, ...)
{
	char path[256], value[XEN_VALUE_MAX];
	va_list args;

	path_of(path, sizeof path, w->domid, node);
	va_start(args, format);
	vsnprintf(value, sizeof value, format, args);
	va_end(args);
	w->failed = w->failed || !xs_write(w->hv->xs, w->t, path, value, (unsigned)strlen(value));
}

/* The guest's own: it may write there; else it may read. */
static void folder(struct writing *w, const char *node, bool own)
{
	struct xs_permissions reads[] = { { .id = 0, .perms = XS_PERM_NONE },
		{ .id = (unsigned)w->domid, .perms = XS_PERM_READ } },
			      owns[] = { { .id = (unsigned)w->domid, .perms = XS_PERM_NONE } };
	char path[256];

	path_of(path, sizeof path, w->domid, node);
	w->failed = w->failed || !xs_mkdir(w->hv->xs, w->t, path) ||
		    !xs_set_permissions(w->hv->xs, w->t, path, own ? owns : reads, own ? 1 : 2);
}

static void ours_path(char out[64], int domid)
{
	snprintf(out, 64, "/xpool/domain/%d", domid);
}

static void tree(struct writing *w, const struct hv_config *c)
{
	static const char *const read[] = { "", "cpu", "memory", "control", "device", "console",
		"store" };
	static const char *const own[] = { "data", "drivers", "feature", "attr", "error",
		"control/shutdown", "control/feature-poweroff", "control/feature-reboot",
		"control/feature-suspend", "device/suspend/event-channel" };
	struct xs_permissions nobody = { .id = 0, .perms = XS_PERM_NONE };
	char path[256], value[64];

	path_of(path, sizeof path, w->domid, "");
	xs_rm(w->hv->xs, w->t, path); /* left by whoever had this number */
	for (size_t i = 0; i < ARRAY_LEN(read); i++)
		folder(w, read[i], false);
	for (size_t i = 0; i < ARRAY_LEN(own); i++)
		folder(w, own[i], true);
	put(w, "name", "%s", c->name);
	put(w, "domid", "%d", w->domid);
	put(w, "domain-type", "%s", c->type);
	for (int i = 0; i < c->vcpus_max; i++) {
		snprintf(value, sizeof value, "cpu/%d/availability", i);
		put(w, value, "%s", i < c->vcpus ? "online" : "offline");
	}
	put(w, "memory/static-max", "%lld", (long long)c->memory_max_kib);
	put(w, "memory/target", "%lld", (long long)c->memory_kib);
	put(w, "control/platform-feature-multiprocessor-suspend", "1");
	put(w, "control/platform-feature-xs_reset_watches", "1");
	ours_path(path, w->domid);
	snprintf(value, sizeof value, "%s %llu", c->uuid,
		(unsigned long long)env_now_ms(w->hv->env));
	w->failed = w->failed || !xs_write(w->hv->xs, w->t, path, value, (unsigned)strlen(value)) ||
		    !xs_set_permissions(w->hv->xs, w->t, path, &nobody, 1);
}

static void rings_tree(struct writing *w, const struct xen_rings *r)
{
	put(w, "store/port", "%u", r->store_port);
	put(w, "store/ring-ref", "%lu", r->store_frame);
	put(w, "console/port", "%u", r->console_port);
	put(w, "console/ring-ref", "%lu", r->console_frame);
	put(w, "console/limit", "65536");
	put(w, "console/type", "xenconsoled");
	put(w, "console/output", "pty");
}

int xen_store_transact(struct hv_state *hv,
	bool (*fn)(struct hv_state *hv, xs_transaction_t t, void *arg), void *arg)
{
	for (unsigned i = 0; i < XEN_TRANSACTION_TRIES; i++) {
		xs_transaction_t t = xs_transaction_start(hv->xs);
		bool failed;

		if (t == XBT_NULL)
			return -1;
		failed = !fn(hv, t, arg);
		if (xs_transaction_end(hv->xs, t, failed) && !failed)
			return 0;
		if (failed || errno != EAGAIN)
			return -1;
	}
	return -1;
}

/* What a transaction is about. */
struct about {
	int domid;
	const struct hv_config *config;
	const struct xen_rings *rings;
};

static bool write_tree(struct hv_state *hv, xs_transaction_t t, void *arg)
{
	const struct about *about = arg;
	struct writing w = { hv, t, about->domid, false };

	tree(&w, about->config);
	return !w.failed;
}

int xen_store_create(struct hv_state *hv, int domid, const struct hv_config *config)
{
	struct about about = { .domid = domid, .config = config };

	return xen_store_transact(hv, write_tree, &about);
}

static bool write_rings(struct hv_state *hv, xs_transaction_t t, void *arg)
{
	const struct about *about = arg;
	struct writing w = { hv, t, about->domid, false };

	rings_tree(&w, about->rings);
	return !w.failed;
}

int xen_store_introduce(struct hv_state *hv, int domid, const struct xen_rings *r)
{
	struct about about = { .domid = domid, .rings = r };

	if (xen_store_transact(hv, write_rings, &about) != 0)
		return -1;
	return xs_introduce_domain(hv->xs, (unsigned)domid, r->store_frame, r->store_port) ? 0 : -1;
}

void xen_store_remove(struct hv_state *hv, int domid)
{
	char path[256];

	xs_release_domain(hv->xs, (unsigned)domid);
	xen_device_remove_all(hv, domid);
	path_of(path, sizeof path, domid, "");
	xs_rm(hv->xs, XBT_NULL, path);
	ours_path(path, domid); /* last: while it is there a restarted agent looks for the rest */
	xs_rm(hv->xs, XBT_NULL, path);
}

bool xen_store_read_path(struct hv_state *hv, const char *path, char out[XEN_VALUE_MAX])
{
	unsigned n;
	char *value = xs_read(hv->xs, XBT_NULL, path, &n);
	bool fits = value != NULL && n < XEN_VALUE_MAX;

	if (fits) {
		memcpy(out, value, n);
		out[n] = 0;
	}
	free(value);
	return fits;
}

bool xen_store_ours(
	struct hv_state *hv, int domid, char uuid_out[UUID_LEN + 1], int64_t *created_ms_out)
{
	char path[64], value[XEN_VALUE_MAX];

	ours_path(path, domid);
	if (!xen_store_read_path(hv, path, value) || strlen(value) < UUID_LEN ||
		value[UUID_LEN] != ' ')
		return false;
	snprintf(uuid_out, UUID_LEN + 1, "%.*s", (int)UUID_LEN, value);
	*created_ms_out = strtoll(value + UUID_LEN, NULL, 10);
	return uuid_ok(uuid_out);
}

void xen_store_sweep(struct hv_state *hv, bool (*there)(struct hv_state *hv, int domid))
{
	unsigned n = 0;
	char **names = xs_directory(hv->xs, XBT_NULL, "/xpool/domain", &n);

	for (unsigned i = 0; names != NULL && i < n; i++)
		if (!there(hv, atoi(names[i]))) {
			log_info(hv->env, "event=xenstore_leftover domid=%s", names[i]);
			xen_store_remove(hv, atoi(names[i]));
		}
	free(names);
}

int xen_store_write(struct hv_state *hv, int domid, const char *node, const char *value)
{
	char path[256];

	path_of(path, sizeof path, domid, node);
	return (value != NULL ? xs_write(hv->xs, XBT_NULL, path, value, (unsigned)strlen(value))
			      : xs_rm(hv->xs, XBT_NULL, path))
		       ? 0
		       : -1;
}

bool xen_store_read(struct hv_state *hv, int domid, const char *node, char out[XEN_VALUE_MAX])
{
	char path[256];

	path_of(path, sizeof path, domid, node);
	return xen_store_read_path(hv, path, out);
}
