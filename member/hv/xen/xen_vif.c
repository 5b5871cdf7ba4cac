/* Interfaces of a guest: Linux's netback makes vifDOMID.DEVICE, which goes to a bridge. What was
 * asked for is kept in /xpool/domain/DOMID/vif/DEVICE: "MAC BRIDGE MTU CARRIER MODE". */
#include "member/hv/xen/xen_priv.h"

#include <errno.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STATE_INIT_WAIT = 2 };

static struct xen_device device_of(int domid, int device)
{
	return (struct xen_device){ .kind = "vif", .domid = domid, .number = device };
}

static void kept_at(int domid, int device, char out[XEN_PATH_MAX])
{
	snprintf(out, XEN_PATH_MAX, "/xpool/domain/%d/vif/%d", domid, device);
}

static struct ifreq named(int domid, int device)
{
	struct ifreq r = { 0 };

	snprintf(r.ifr_name, sizeof r.ifr_name, "vif%d.%d", domid, device);
	return r;
}

/* The host's side. */

static int set_up(int s, const struct ifreq *which, bool up)
{
	struct ifreq r = *which;

	if (ioctl(s, SIOCGIFFLAGS, &r) != 0)
		return -1;
	r.ifr_flags = (short)(up ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
	return ioctl(s, SIOCSIFFLAGS, &r);
}

static int set_mtu(int s, const struct ifreq *which, int mtu)
{
	struct ifreq r = *which;

	r.ifr_mtu = mtu;
	return ioctl(s, SIOCSIFMTU, &r);
}

/* One that no guest has, and the highest: the bridge's own does not change. */
static int set_mac(int s, const struct ifreq *which)
{
	static const unsigned char mac[] = { 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff };
	struct ifreq r = *which;

	r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(r.ifr_hwaddr.sa_data, mac, sizeof mac);
	return ioctl(s, SIOCSIFHWADDR, &r);
}

/* Out of the bridge it is in. */
static void leave(int s, const struct ifreq *which)
{
	struct ifreq r = { .ifr_ifindex = (int)if_nametoindex(which->ifr_name) };
	char path[XEN_PATH_MAX];
	unsigned bridge = 0;
	FILE *f;

	snprintf(path, sizeof path, "/sys/class/net/%s/brport/bridge/ifindex", which->ifr_name);
	f = fopen(path, "re");
	if (f != NULL && fscanf(f, "%u", &bridge) == 1 &&
		if_indextoname(bridge, r.ifr_name) != NULL)
		ioctl(s, SIOCBRDELIF, &r);
	if (f != NULL)
		fclose(f);
}

static int enter(int s, const struct ifreq *which, const char *bridge)
{
	struct ifreq r = { .ifr_ifindex = (int)if_nametoindex(which->ifr_name) };

	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", bridge);
	return ioctl(s, SIOCBRADDIF, &r);
}

static int arrange(int domid, const struct hv_vif *vif, struct err *err)
{
	struct ifreq r = named(domid, vif->device);
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;
	bool on = strcmp(vif->locking_mode, "disabled") != 0;
	char text[128];

	snprintf(text, sizeof text, "the interface %s at bridge %s", r.ifr_name, vif->bridge);
	if (s < 0)
		return xen_failed(err, text);
	leave(s, &r);
	/* down while its address and its bridge change */
	if (set_up(s, &r, false) != 0 || set_mac(s, &r) != 0 || set_mtu(s, &r, vif->mtu) != 0 ||
		(on && enter(s, &r, vif->bridge) != 0) ||
		(vif->carrier && set_up(s, &r, true) != 0))
		rc = xen_failed(err, text);
	close(s);
	return rc;
}

/* The guest's side. */

static bool is_made(struct hv_state *hv, void *arg)
{
	const struct xen_device *d = arg;
	struct ifreq r = named(d->domid, d->number);
	char path[XEN_PATH_MAX], value[XEN_VALUE_MAX];

	xen_device_back(d, "state", path);
	return xen_store_read_path(hv, path, value) && atoi(value) >= STATE_INIT_WAIT &&
	       if_nametoindex(r.ifr_name) != 0;
}

static int make(
	struct hv_state *hv, struct xen_device *d, const struct hv_vif *vif, struct err *err)
{
	char handle[16], mtu[16], id[16];

	snprintf(handle, sizeof handle, "%d", vif->device);
	snprintf(id, sizeof id, "%d", vif->device);
	snprintf(mtu, sizeof mtu, "%d", vif->mtu);
	memcpy(d->front,
		(const char *[][2]){ { "handle", handle }, { "mac", vif->mac }, { "mtu", mtu } },
		3 * sizeof d->front[0]);
	memcpy(d->back,
		(const char *[][2]){ { "handle", handle }, { "mac", vif->mac },
			{ "bridge", vif->bridge }, { "type", "vif" },
			{ "script", "" } /* the driver's probe wants it */ },
		5 * sizeof d->back[0]);
	if (xen_device_make(hv, d) != 0)
		return xen_failed(err, "the interface in xenstore");
	return xen_device_wait(hv, d, "VIF", id, is_made, d, err);
}

static int keep(struct hv_state *hv, int domid, const struct hv_vif *vif, struct err *err)
{
	struct xen_device d = device_of(domid, vif->device);
	char path[XEN_PATH_MAX], value[XEN_VALUE_MAX], status[XEN_PATH_MAX];
	bool ok;

	kept_at(domid, vif->device, path);
	xen_device_back(&d, "hotplug-status", status);
	snprintf(value, sizeof value, "%s %s %d %d %s", vif->mac, vif->bridge, vif->mtu,
		vif->carrier, vif->locking_mode);
	pthread_mutex_lock(&hv->mutex);
	ok = xs_write(hv->xs, XBT_NULL, path, value, (unsigned)strlen(value)) &&
	     xs_write(hv->xs, XBT_NULL, status, "connected", 9);
	pthread_mutex_unlock(&hv->mutex);
	return ok ? 0 : xen_failed(err, "the interface in xenstore");
}

static bool kept(struct hv_state *hv, int domid, int device, struct hv_vif *out)
{
	char path[XEN_PATH_MAX], value[XEN_VALUE_MAX];
	int carrier;

	*out = (struct hv_vif){ .device = device };
	kept_at(domid, device, path);
	if (!xen_store_read_path(hv, path, value) ||
		sscanf(value, "%17s %15s %d %d %15s", out->mac, out->bridge, &out->mtu, &carrier,
			out->locking_mode) != 5)
		return false;
	out->carrier = carrier != 0;
	return true;
}

int xen_vif_plug(struct hv_state *hv, int domid, const struct hv_vif *vif, struct err *err)
{
	struct xen_device d = device_of(domid, vif->device);
	struct err ignored = { 0 };
	struct hv_vif before;
	bool same;
	int rc = 0;

	if (strcmp(vif->locking_mode, "locked") == 0)
		return err_set(err, AGENT_ERR_unimplemented, "locking_mode locked on xen", NULL);
	pthread_mutex_lock(&hv->mutex);
	same = kept(hv, domid, vif->device, &before) && strcmp(before.mac, vif->mac) == 0 &&
	       before.mtu == vif->mtu;
	pthread_mutex_unlock(&hv->mutex);
	if (!same && xen_vif_unplug(hv, domid, vif->device, err) != 0)
		return ERR_API;
	if (!same)
		rc = make(hv, &d, vif, err);
	if (rc == 0)
		rc = arrange(domid, vif, err);
	if (rc == 0)
		rc = keep(hv, domid, vif, err);
	if (rc != 0 && !same)
		xen_vif_unplug(hv, domid, vif->device, &ignored);
	err_fini(&ignored);
	return rc;
}

int xen_vif_unplug(struct hv_state *hv, int domid, int device, struct err *err)
{
	struct xen_device d = device_of(domid, device);
	char path[XEN_PATH_MAX], id[16];

	snprintf(id, sizeof id, "%d", device);
	kept_at(domid, device, path);
	if (xen_device_remove(hv, &d) != 0)
		return err_set(err, AGENT_ERR_device_timeout, "VIF", id, NULL);
	pthread_mutex_lock(&hv->mutex);
	xs_rm(hv->xs, XBT_NULL, path);
	pthread_mutex_unlock(&hv->mutex);
	return 0;
}

static int by_device(const void *a, const void *b)
{
	const struct hv_vif *x = a, *y = b;

	return (x->device > y->device) - (x->device < y->device);
}

unsigned xen_vif_list(struct hv_state *hv, int domid, struct hv_vif *out, unsigned max)
{
	char path[XEN_PATH_MAX], **names;
	unsigned n = 0, found = 0;

	snprintf(path, sizeof path, "/xpool/domain/%d/vif", domid);
	pthread_mutex_lock(&hv->mutex);
	names = xs_directory(hv->xs, XBT_NULL, path, &n);
	for (unsigned i = 0; names != NULL && i < n && found < max; i++)
		if (kept(hv, domid, atoi(names[i]), &out[found]))
			found++;
	pthread_mutex_unlock(&hv->mutex);
	free(names);
	if (found > 1)
		qsort(out, found, sizeof *out, by_device);
	return found;
}
