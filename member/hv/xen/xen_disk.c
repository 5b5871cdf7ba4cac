/* Disks of a guest: the file behind a loop device, that behind Linux's blkback.
 *
 * The loop device is set to clear itself when nobody has it open. We do until the driver does, so
 * whoever dies in between, or ends the device later, leaves none behind.
 */
#include "member/hv/xen/xen_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
	XVD = 202, /* Linux's number of the first sixteen */
	XVD_FIRST = 16,
	XVD_MANY = 1 << 28, /* Xen's of the others */
	LETTERS = 26,
	LOOP_TRIES = 100, /* while others take the free one first */
};

/* xvda to xvdzz; -1: none. */
static int number_of(const char *id)
{
	int n;

	if (strncmp(id, "xvd", 3) != 0 || id[3] < 'a' || id[3] > 'z')
		return -1;
	n = id[3] - 'a';
	if (id[4] != 0) {
		if (id[4] < 'a' || id[4] > 'z' || id[5] != 0)
			return -1;
		n = (n + 1) * LETTERS + id[4] - 'a';
	}
	return n < XVD_FIRST ? XVD << 8 | n << 4 : XVD_MANY | n << 8;
}

static int device_of(int domid, const char *id, struct xen_device *out, struct err *err)
{
	*out = (struct xen_device){ .kind = "vbd", .domid = domid, .number = number_of(id) };
	return out->number >= 0 ? 0 : xen_wrong(err, "disks of a guest on xen are xvda to xvdzz");
}

/* A free loop device for the file; -1 with errno. */
static int loop_open(int control, int file, bool write, struct stat *found)
{
	struct loop_config config = { .fd = (uint32_t)file,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR | (write ? 0 : LO_FLAGS_READ_ONLY) };
	char path[32];

	for (unsigned i = 0; i < LOOP_TRIES; i++) {
		int n = ioctl(control, LOOP_CTL_GET_FREE), fd;

		if (n < 0)
			return -1;
		snprintf(path, sizeof path, "/dev/loop%d", n);
		fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
		if (fd < 0)
			return -1;
		if (ioctl(fd, LOOP_CONFIGURE, &config) == 0 && fstat(fd, found) == 0)
			return fd;
		close(fd);
		if (errno != EBUSY)
			return -1;
	}
	return -1;
}

static int loop_for(const struct hv_disk *disk, struct stat *found, struct err *err)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC),
	    file = open(disk->path, (disk->write ? O_RDWR : O_RDONLY) | O_CLOEXEC), loop = -1;

	if (control >= 0 && file >= 0)
		loop = loop_open(control, file, disk->write, found);
	if (loop < 0)
		xen_failed(err,
			file < 0 ? "the disk cannot be opened" : "no loop device for the disk");
	if (control >= 0)
		close(control);
	if (file >= 0)
		close(file);
	return loop;
}

/* blkback shows its file in sysfs when it has opened it. */
static bool is_open(struct hv_state *hv, void *arg)
{
	const struct xen_device *d = arg;
	char path[XEN_PATH_MAX];

	(void)hv;
	snprintf(path, sizeof path, "/sys/bus/xen-backend/devices/vbd-%d-%d/physical_device",
		d->domid, d->number);
	return access(path, F_OK) == 0;
}

static int plug(struct hv_state *hv, struct xen_device *d, const struct hv_disk *disk,
	const struct stat *loop, struct err *err)
{
	char number[16], device[32], path[32];
	int rc;

	snprintf(number, sizeof number, "%d", d->number);
	snprintf(device, sizeof device, "%x:%x", major(loop->st_rdev), minor(loop->st_rdev));
	snprintf(path, sizeof path, "/dev/loop%u", minor(loop->st_rdev));
	memcpy(d->front,
		(const char *[][2]){ { "virtual-device", number }, { "device-type", "disk" } },
		2 * sizeof d->front[0]);
	memcpy(d->back,
		(const char *[][2]){ { "dev", disk->id }, { "type", "phy" },
			{ "mode", disk->write ? "w" : "r" }, { "device-type", "disk" },
			{ "params", disk->path }, { "physical-device-path", path },
			{ "physical-device", device }, { "removable", "0" }, { "bootable", "0" },
			{ "hotplug-status", "connected" } },
		10 * sizeof d->back[0]);
	if (xen_device_make(hv, d) != 0)
		return xen_failed(err, "the disk in xenstore");
	rc = xen_device_wait(hv, d, "VBD", disk->id, is_open, d, err);
	if (rc != 0)
		xen_device_remove(hv, d);
	return rc;
}

int xen_disk_plug(struct hv_state *hv, int domid, const struct hv_disk *disk, struct err *err)
{
	struct xen_device d;
	struct stat found;
	int loop, rc;

	if (device_of(domid, disk->id, &d, err) != 0 ||
		xen_disk_unplug(hv, domid, disk->id, err) != 0)
		return ERR_API;
	loop = loop_for(disk, &found, err);
	if (loop < 0)
		return ERR_API;
	rc = plug(hv, &d, disk, &found, err);
	close(loop);
	return rc;
}

int xen_disk_release(struct hv_state *hv, int domid, const char *id, struct err *err)
{
	struct xen_device d;

	return device_of(domid, id, &d, err) != 0 ? ERR_API
						  : xen_device_release(hv, &d, "VBD", id, err);
}

int xen_disk_unplug(struct hv_state *hv, int domid, const char *id, struct err *err)
{
	struct xen_device d;

	if (device_of(domid, id, &d, err) != 0)
		return ERR_API;
	return xen_device_remove(hv, &d) == 0
		       ? 0
		       : err_set(err, AGENT_ERR_device_timeout, "VBD", id, NULL);
}
