/* Devices of a guest over xenbus: a directory for each end, the guest's front end in its tree, the
 * back end of domain 0's driver in ours; states say how far both are. There is no udev: what a
 * driver needs of the host is done by xen_disk.c and xen_vif.c.
 *
 * The front end is the guest's to write: nothing in it is trusted. Of a guest that is dead a driver
 * waits for ever, unless its front end goes first.
 */
#include "member/hv/xen/xen_priv.h"
#include "rpc/base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STATE_INITIALISING = 1, STATE_CLOSING = 5, STATE_CLOSED = 6 };

static const char *const kinds[] = { "vbd", "vif" };

static void front_of(const struct xen_device *d, char out[XEN_PATH_MAX])
{
	snprintf(out, XEN_PATH_MAX, "/local/domain/%d/device/%s/%d", d->domid, d->kind, d->number);
}

void xen_device_back(const struct xen_device *d, const char *node, char out[XEN_PATH_MAX])
{
	snprintf(out, XEN_PATH_MAX, "/local/domain/0/backend/%s/%d/%d%s%s", d->kind, d->domid,
		d->number, node != NULL ? "/" : "", node != NULL ? node : "");
}

/* What the driver has of it; without it the device is closed. */
static bool driven(const char *kind, int domid, int number)
{
	char path[XEN_PATH_MAX];

	snprintf(path, sizeof path, "/sys/bus/xen-backend/devices/%s-%d-%d", kind, domid, number);
	return access(path, F_OK) == 0;
}

bool xen_device_there(struct hv_state *hv, const struct xen_device *d)
{
	char path[XEN_PATH_MAX], value[XEN_VALUE_MAX];

	xen_device_back(d, "state", path);
	return xen_store_read_path(hv, path, value) || driven(d->kind, d->domid, d->number);
}

/* Making. */

static bool write_node(struct hv_state *hv, xs_transaction_t t, const char *folder,
	const char *node, const char *value)
{
	char path[XEN_PATH_MAX + 64];

	snprintf(path, sizeof path, "%s/%s", folder, node);
	return xs_write(hv->xs, t, path, value, (unsigned)strlen(value));
}

/* An empty directory of its owner, which the other end may read. */
static bool folder(struct hv_state *hv, xs_transaction_t t, const char *path, int owner, int reader)
{
	struct xs_permissions who[] = { { .id = (unsigned)owner, .perms = XS_PERM_NONE },
		{ .id = (unsigned)reader, .perms = XS_PERM_READ } };

	xs_rm(hv->xs, t, path);
	return xs_mkdir(hv->xs, t, path) && xs_set_permissions(hv->xs, t, path, who, 2);
}

static bool write_pairs(struct hv_state *hv, xs_transaction_t t, const char *folder,
	const char *const pairs[XEN_PAIRS_MAX][2])
{
	for (unsigned i = 0; i < XEN_PAIRS_MAX && pairs[i][0] != NULL; i++)
		if (!write_node(hv, t, folder, pairs[i][0], pairs[i][1]))
			return false;
	return true;
}

static bool make(struct hv_state *hv, xs_transaction_t t, void *arg)
{
	const struct xen_device *d = arg;
	char front[XEN_PATH_MAX], back[XEN_PATH_MAX], domid[16], state[8];

	front_of(d, front);
	xen_device_back(d, NULL, back);
	snprintf(domid, sizeof domid, "%d", d->domid);
	snprintf(state, sizeof state, "%d", STATE_INITIALISING);
	return folder(hv, t, front, d->domid, 0) && folder(hv, t, back, 0, d->domid) &&
	       write_node(hv, t, front, "backend", back) &&
	       write_node(hv, t, front, "backend-id", "0") &&
	       write_node(hv, t, front, "state", state) &&
	       write_node(hv, t, back, "frontend", front) &&
	       write_node(hv, t, back, "frontend-id", domid) &&
	       write_node(hv, t, back, "online", "1") && write_node(hv, t, back, "state", state) &&
	       write_pairs(hv, t, front, d->front) && write_pairs(hv, t, back, d->back);
}

int xen_device_make(struct hv_state *hv, const struct xen_device *d)
{
	int rc;

	pthread_mutex_lock(&hv->mutex);
	rc = xen_store_transact(hv, make, (void *)(uintptr_t)d);
	pthread_mutex_unlock(&hv->mutex);
	return rc;
}

struct waiting {
	const struct xen_device *d;
	bool (*ready)(struct hv_state *hv, void *arg);
	void *arg;
	bool is_ready;
	char why[XEN_VALUE_MAX]; /* the driver's, or the guest's */
};

static bool ready_or_failed(struct hv_state *hv, void *arg)
{
	struct waiting *w = arg;
	char path[XEN_PATH_MAX];

	snprintf(path, sizeof path, "/local/domain/0/error/backend/%s/%d/%d/error", w->d->kind,
		w->d->domid, w->d->number);
	w->is_ready = w->ready(hv, w->arg);
	return w->is_ready || xen_store_read_path(hv, path, w->why);
}

int xen_device_wait(struct hv_state *hv, const struct xen_device *d, const char *class,
	const char *id, bool (*ready)(struct hv_state *hv, void *arg), void *arg, struct err *err)
{
	struct waiting w = { .d = d, .ready = ready, .arg = arg };
	char text[XEN_VALUE_MAX + 80];

	if (!xen_wait(hv, XEN_DEVICE_MS, ready_or_failed, &w))
		return err_set(err, AGENT_ERR_device_timeout, class, id, NULL);
	if (w.is_ready)
		return 0;
	snprintf(text, sizeof text, "%s %s: the driver of the host says %s", class, id, w.why);
	return err_set(err, AGENT_ERR_domain_failed, text, NULL);
}

/* Ending. */

static bool close_both(struct hv_state *hv, xs_transaction_t t, void *arg)
{
	char back[XEN_PATH_MAX], state[8];

	xen_device_back(arg, NULL, back);
	snprintf(state, sizeof state, "%d", STATE_CLOSING);
	return write_node(hv, t, back, "online", "0") && write_node(hv, t, back, "state", state);
}

static bool closed_or_refused(struct hv_state *hv, void *arg)
{
	struct waiting *w = arg;
	char path[XEN_PATH_MAX], value[XEN_VALUE_MAX];

	xen_device_back(w->d, "state", path);
	w->is_ready = !xen_store_read_path(hv, path, value) || atoi(value) == STATE_CLOSED;
	snprintf(path, sizeof path, "/local/domain/%d/error/device/%s/%d/error", w->d->domid,
		w->d->kind, w->d->number);
	return w->is_ready || (xen_store_read_path(hv, path, w->why) && *w->why != 0);
}

int xen_device_release(struct hv_state *hv, const struct xen_device *d, const char *class,
	const char *id, struct err *err)
{
	struct waiting w = { .d = d };
	int rc = 0;

	pthread_mutex_lock(&hv->mutex);
	if (xen_device_there(hv, d))
		rc = xen_store_transact(hv, close_both, (void *)(uintptr_t)d);
	pthread_mutex_unlock(&hv->mutex);
	if (rc != 0)
		return xen_failed(err, "the device in xenstore");
	if (!xen_wait(hv, XEN_RELEASE_MS, closed_or_refused, &w))
		return err_set(err, AGENT_ERR_device_timeout, class, id, NULL);
	return w.is_ready ? 0
			  : err_set(err, AGENT_ERR_device_detach_rejected, class, id, w.why, NULL);
}

static void remove_ends(struct hv_state *hv, const struct xen_device *d)
{
	char path[XEN_PATH_MAX];

	front_of(d, path);
	xs_rm(hv->xs, XBT_NULL, path);
	xen_device_back(d, NULL, path);
	xs_rm(hv->xs, XBT_NULL, path);
	snprintf(path, sizeof path, "/local/domain/0/error/backend/%s/%d/%d", d->kind, d->domid,
		d->number);
	xs_rm(hv->xs, XBT_NULL, path);
}

static bool let_go(struct hv_state *hv, void *arg)
{
	const struct xen_device *d = arg;

	(void)hv;
	return !driven(d->kind, d->domid, d->number);
}

int xen_device_remove(struct hv_state *hv, const struct xen_device *d)
{
	pthread_mutex_lock(&hv->mutex);
	remove_ends(hv, d);
	pthread_mutex_unlock(&hv->mutex);
	return xen_wait(hv, XEN_DEVICE_MS, let_go, (void *)(uintptr_t)d) ? 0 : -1;
}

/* Each of a kind that the domain has. */
static void each(struct hv_state *hv, const char *kind, int domid,
	void (*fn)(struct hv_state *hv, const struct xen_device *d))
{
	char path[XEN_PATH_MAX];
	unsigned n = 0;
	char **names;

	snprintf(path, sizeof path, "/local/domain/0/backend/%s/%d", kind, domid);
	names = xs_directory(hv->xs, XBT_NULL, path, &n);
	for (unsigned i = 0; names != NULL && i < n; i++)
		fn(hv, &(struct xen_device){
			       .kind = kind, .domid = domid, .number = atoi(names[i]) });
	free(names);
	xs_rm(hv->xs, XBT_NULL, path);
}

void xen_device_remove_all(struct hv_state *hv, int domid)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		each(hv, kinds[i], domid, remove_ends);
}

struct counted {
	int domid;
	bool any;
};

static void count(void *arg, const char *name)
{
	struct counted *c = arg;
	int domid, number;
	char kind[8];

	/* vbd-1-51712 */
	if (sscanf(name, "%7[^-]-%d-%d", kind, &domid, &number) == 3 && domid == c->domid)
		c->any = true;
}

bool xen_device_none(struct hv_state *hv, int domid)
{
	struct counted c = { domid, false };

	(void)hv;
	folder_list("/sys/bus/xen-backend/devices", count, &c);
	return !c.any;
}
