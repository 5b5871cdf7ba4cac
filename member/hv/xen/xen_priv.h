/* The back end for Xen, shared by the files of this folder: hv_xen.c domains, xen_store.c what
 * xenstore says of them, xen_build.c libxenguest.
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
};

struct hv_state {
	struct env *env;
	pthread_mutex_t mutex;	      /* xc, xs */
	struct xc_interface_core *xc; /* an xc_interface; xenctrl.h is for GNU C alone */
	struct xs_handle *xs;
	char boot_id[UUID_LEN + 1];
	char boot_dir[256];
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
/* A node below the domain's tree. NULL value: remove. */
int xen_store_write(struct hv_state *hv, int domid, const char *node, const char *value);
/* false: there is none, or it is too long. */
bool xen_store_read(struct hv_state *hv, int domid, const char *node, char out[XEN_VALUE_MAX]);

/* xen_build.c; no lock is needed: it opens what it needs. Blocks as long as libxenguest does. 0, or
 * -1 with the reason. */
int xen_build(int domid, const struct hv_config *config, const char *kernel, const char *ramdisk,
	struct xen_rings *rings, char *why, size_t size);
