/* The back end for Xen, shared by the files of this folder: hv_xen.c domains, xen_store.c what
 * xenstore says of them, xen_build.c building, which libxenguest does in a process of its own
 * (xen_child_priv.h).
 *
 * Ours is a domain that proves it. Its handle, which Xen sets as it creates it, is the VM's uuid
 * with all bits of xen_mark turned: the mark of hv_domain_create, in the same step; no uuid anybody
 * makes looks so (version 12). hv_domain_keep sets the handle to the uuid itself; from then on the
 * node /xpool/domain/DOMID of xenstore, for domain 0 alone, has to name that uuid. Any other domain
 * is not seen: neither listed, nor found, nor touched.
 */
#pragma once

#include "member/hv/hv_ops.h"

#include <xenstore.h>
#include <pthread.h>

enum {
	XEN_SLACK_KIB = 1024,	     /* of a domain beyond its memory: rings, grant table */
	XEN_KERNEL_MAX = 256 << 20,  /* bytes of a kernel or ram disk, unpacked */
	XEN_VALUE_MAX = 1024,	     /* bytes of a node that we look at */
	XEN_TRANSACTION_TRIES = 100, /* while others write the same nodes */
	XEN_GONE_MS = 10000,	     /* for a destroyed domain to give its memory back */
	XEN_VCPUS_MAX = 128,
	XEN_DEVICE_MS = 10000,	/* for a driver of domain 0 to take or leave a device */
	XEN_RELEASE_MS = 60000, /* for a guest to let one go */
	XEN_PAGING_MIB = 4,	/* of a PVH guest's translation tables, beyond 1/16 of its memory */
	XEN_CHILD_S = 60,	/* for libxenguest to do its work, and so much more for each GiB */
	XEN_CHILD_GIB_S = 2,
};

struct hv_state {
	struct env *env;
	pthread_mutex_t mutex;	      /* xc, xs */
	struct xc_interface_core *xc; /* an xc_interface; xenctrl.h is for GNU C alone */
	struct xs_handle *xs;
	char boot_id[UUID_LEN + 1];
	char boot_dir[256];
	int work_s; /* XEN_CHILD_S, or what was set */
};

/* xen_store.c; under the mutex. 0, or -1 with errno. */

/* The tree of a new domain, of one transaction. */
int xen_store_create(struct hv_state *hv, int domid, const struct hv_config *config);
/* Its rings, when it is built; xenstored and xenconsoled serve it from here on. */
struct xen_rings {
	unsigned store_port, console_port;
	unsigned long store_frame, console_frame;
};
int xen_store_introduce(struct hv_state *hv, int domid, const struct xen_rings *rings);
/* Nothing of it stays. */
void xen_store_remove(struct hv_state *hv, int domid);
/* What /xpool/domain/DOMID says; false: it is not ours. */
bool xen_store_ours(
	struct hv_state *hv, int domid, char uuid_out[UUID_LEN + 1], int64_t *created_ms_out);
/* Trees of ours whose domain is not among these any more go. */
void xen_store_sweep(struct hv_state *hv, bool (*there)(struct hv_state *hv, int domid));
/* All of it or nothing, until nobody else has written the same meanwhile; fn: false: it failed. */
int xen_store_transact(struct hv_state *hv,
	bool (*fn)(struct hv_state *hv, xs_transaction_t t, void *arg), void *arg);
/* A node below the domain's tree. NULL value: remove. */
int xen_store_write(struct hv_state *hv, int domid, const char *node, const char *value);
/* false: there is none, or it is too long. */
bool xen_store_read(struct hv_state *hv, int domid, const char *node, char out[XEN_VALUE_MAX]);
/* The same of any node. */
bool xen_store_read_path(struct hv_state *hv, const char *path, char out[XEN_VALUE_MAX]);

/* hv_xen.c */
/* AGENT_ERR_domain_failed: call, and errno. */
int xen_failed(struct err *err, const char *call);
/* AGENT_ERR_bad_request */
int xen_wrong(struct err *err, const char *text);
/* A domain whose memory is filled, for xenstored and xenconsoled to serve. Takes the mutex. */
int xen_introduce(struct hv_state *hv, int domid, const struct xen_rings *rings, struct err *err);

/* Wait until done says so, under the mutex, or for so long; false: it has not. Takes the mutex. */
bool xen_wait(
	struct hv_state *hv, uint64_t ms, bool (*done)(struct hv_state *hv, void *arg), void *arg);
/* A domain of ours, with the mutex taken; AGENT_ERR_domain_failed: there is none, nor the mutex. */
int xen_begin(struct hv_state *hv, int domid, struct hv_domain *out, struct err *err);

/* xen_device.c: devices over xenbus, both ends and their drivers. */
enum { XEN_PATH_MAX = 128, XEN_PAIRS_MAX = 10 };
struct xen_device {
	const char *kind; /* vbd, vif */
	int domid, number;
	const char *front[XEN_PAIRS_MAX][2], *back[XEN_PAIRS_MAX][2]; /* nodes; NULL: the end */
};
/* A node of its back end (NULL: the directory). */
void xen_device_back(const struct xen_device *d, const char *node, char out[XEN_PATH_MAX]);
/* Is there something of it? Under the mutex. */
bool xen_device_there(struct hv_state *hv, const struct xen_device *d);
/* Both ends, in place of what is there. Takes the mutex. 0, or -1 with errno. */
int xen_device_make(struct hv_state *hv, const struct xen_device *d);
/* Wait until ready says that the back end's driver has what it needs; on what it says, or after
 * XEN_DEVICE_MS, an error. Takes the mutex. */
int xen_device_wait(struct hv_state *hv, const struct xen_device *d, const char *class,
	const char *id, bool (*ready)(struct hv_state *hv, void *arg), void *arg, struct err *err);
/* The guest is asked to let it go; device_detach_rejected, device_timeout. Takes the mutex. */
int xen_device_release(struct hv_state *hv, const struct xen_device *d, const char *class,
	const char *id, struct err *err);
/* Both ends go, whether or not the guest lets go; back when the driver has let go too. Takes the
 * mutex. -1: it has not within XEN_DEVICE_MS. */
int xen_device_remove(struct hv_state *hv, const struct xen_device *d);
/* Those of a domain that is no more. Under the mutex; drivers let go some time after. */
void xen_device_remove_all(struct hv_state *hv, int domid);
/* Have they all? */
bool xen_device_none(struct hv_state *hv, int domid);

/* xen_disk.c, xen_vif.c */
int xen_disk_plug(struct hv_state *hv, int domid, const struct hv_disk *disk, struct err *err);
int xen_disk_release(struct hv_state *hv, int domid, const char *id, struct err *err);
int xen_disk_unplug(struct hv_state *hv, int domid, const char *id, struct err *err);
int xen_vif_plug(struct hv_state *hv, int domid, const struct hv_vif *vif, struct err *err);
int xen_vif_unplug(struct hv_state *hv, int domid, int device, struct err *err);
unsigned xen_vif_list(struct hv_state *hv, int domid, struct hv_vif *out, unsigned max);

/* xen_build.c; no mutex: it takes as long as it takes. */
int xen_build(struct hv_state *hv, int domid, const struct hv_config *config, struct err *err);
/* Let a child (member/child.h) with libxenguest do it, for a domain of so much memory. */
int xen_child_ask(struct hv_state *hv, struct arena *a, const char *method,
	const struct val *params, int64_t kib, struct xen_rings *rings, struct err *err);
/* As the child says it. */
void xen_rings_put(struct arena *a, struct val *out, const struct xen_rings *r);
