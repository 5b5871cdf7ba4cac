/* The hypervisor of this host, as the operations see it: domains by domid and uuid.
 *
 * Back ends: sim/ (simulated domains in a SQLite file that outlive the agent, as real ones do) and
 * xen/ (the machine's own; only where Xen's libraries are when it is built). Blocking calls for
 * worker threads; thread-safe. A call fails with AGENT_ERR_domain_failed [text] unless it says
 * more; what a back end cannot do at all is AGENT_ERR_unimplemented [call on back end].
 *
 * The domain carries the proof of what it is: hv_domain_create() marks it with a power-off request
 * in the same step, hv_domain_keep() removes the mark. A restarted agent destroys what still has
 * it.
 */
#pragma once

#include "agent/agent.h"
#include "rpc/base/arena.h"
#include "rpc/base/env.h"

struct hv;
struct hv_ops;

extern const struct hv_ops hv_sim; /* sim/hv_sim.c */
extern const struct hv_ops hv_xen; /* xen/hv_xen.c */

enum {
	HV_DOMAINS_MAX = 1024,
	HV_NICS_MAX = 64,	 /* network ports of a host */
	HV_IMAGE_MAX = 64 << 10, /* bytes of a simulated guest; what has more comes as a stream */
};

/* How a guest has stopped: Xen's shutdown codes. */
enum hv_end { HV_POWEROFF, HV_REBOOT, HV_SUSPEND, HV_CRASH };

/* Whose a domain is while its VM migrates: the domain says so itself, like the mark, so that
 * nothing but a decision of the pool runs it or ends it, whatever dies meanwhile. */
enum hv_moving { HV_STAYS, HV_LEAVING, HV_COMING };

struct hv_domain {
	int domid;
	char uuid[UUID_LEN + 1];
	bool paused, marked, built;
	bool shut_down; /* the guest has stopped itself; end says how */
	enum hv_end end;
	bool asked_suspend; /* we have asked it to suspend, and not taken that back */
	enum hv_moving moving;
	char job[UUID_LEN + 1];		/* of the migration */
	int64_t memory_kib, target_kib; /* in use; what the guest is to have */
	int vcpus;			/* online */
	int64_t age_s;			/* since it was created */
};

/* What a domain is created and built from. The simulated one looks at the first three and the last.
 */
struct hv_config {
	const char *uuid;
	int64_t memory_kib; /* at start */
	int vcpus;
	int64_t memory_max_kib; /* ever */
	int vcpus_max;
	const char *name;			    /* for people */
	const char *type;			    /* pv, pvh, hvm */
	const char *kernel, *ramdisk, *kernel_args; /* paths on this host; NULL: none */
	const struct val *sim; /* "sim" of member/agent.json, or NULL; a real back end ignores it */
};

/* A network interface of a domain. It goes with the domain. */
struct hv_vif {
	int device;
	char mac[18], bridge[16];
	int mtu;
	bool carrier;
	char locking_mode[16]; /* unlocked, locked, disabled */
};

enum { HV_VIFS_MAX = 256 };

/* A disk of a domain. It goes with the domain. */
struct hv_disk {
	const char *id;	  /* device name: xvda */
	const char *path; /* the file with its bytes */
	bool write;
};

/* The machine; a real back end looks for itself. */
struct hv_machine {
	int64_t memory_kib;
	int cpus;	      /* 0: some */
	const char *features; /* of its processors, hexadecimal words; NULL: some */
	/* of a real one */
	const char *boot_dir; /* below it kernels and ram disks of guests may lie */
	int work_s; /* for building a domain and the like, and some for each GiB; 0: a default */
};

struct hv_cpu {
	int cpus, cores, sockets, mhz;
	char vendor[16], model[64], features[256];
};

/* dir: folder for the back end's own state. NULL after a log line. */
struct hv *hv_open(const struct hv_ops *ops, struct env *env, const char *dir,
	const struct hv_machine *machine);
void hv_close(struct hv *hv);

const char *hv_name(const struct hv *hv); /* sim, xen */
const char *hv_boot_id(const struct hv *hv);
/* The machine goes off, or restarts: the simulated one has a new boot id and no domain when it is
 * opened next. */
int hv_power_off(struct hv *hv, struct err *err);
void hv_cpu(const struct hv *hv, struct hv_cpu *out);
void hv_memory(struct hv *hv, int64_t *total_kib_out, int64_t *free_kib_out);

/* Its network ports, as they are now: a set of nic of member/agent.json, in the arena. */
int hv_nics(struct hv *hv, struct arena *a, struct val *out, struct err *err);

/* false: there is none. */
bool hv_domain_find(struct hv *hv, const char *uuid, struct hv_domain *out);
/* At most max; returns the number. */
unsigned hv_domain_list(struct hv *hv, struct hv_domain *out, unsigned max);

/* AGENT_ERR_no_free_memory [needed, free], bytes. */
int hv_domain_create(
	struct hv *hv, const struct hv_config *config, int *domid_out, struct err *err);
/* config: as it was created from. */
int hv_domain_build(struct hv *hv, int domid, const struct hv_config *config, struct err *err);
int hv_domain_keep(struct hv *hv, int domid, struct err *err);
int hv_domain_pause(struct hv *hv, int domid, struct err *err);
int hv_domain_unpause(struct hv *hv, int domid, struct err *err);
/* Idempotent: a domain that is not there is destroyed. */
int hv_domain_destroy(struct hv *hv, int domid, struct err *err);

/* Ask the guest to stop in this way. */
int hv_domain_ask(struct hv *hv, int domid, enum hv_end how, struct err *err);
/* Take back what it has not acknowledged. */
void hv_domain_withdraw(struct hv *hv, int domid);
/* Has the guest seen the request? */
bool hv_domain_acknowledged(struct hv *hv, int domid);

/* What a guest is, to go on in another domain; of one that has suspended. */
int hv_domain_save(struct hv *hv, int domid, struct buf *image, struct err *err);
/* Instead of hv_domain_build. The image is text from outside. */
int hv_domain_restore(struct hv *hv, int domid, const char *image, struct err *err);
/* The memory its domain needs; 0: it is no image. */
int64_t hv_image_memory_kib(struct hv *hv, const char *image);
/* A guest that has suspended goes on in its own domain. */
int hv_domain_resume(struct hv *hv, int domid, struct err *err);
/* HV_COMING takes the place of the mark of hv_domain_create, in the same step. job: "" for
 * HV_STAYS. */
int hv_domain_move(
	struct hv *hv, int domid, enum hv_moving moving, const char *job, struct err *err);

/* What the guest is to have: it gives back or takes when it can. AGENT_ERR_no_free_memory [needed,
 * free], bytes. */
int hv_domain_set_memory(struct hv *hv, int domid, int64_t target_kib, struct err *err);
/* Online from now on. */
int hv_domain_set_vcpus(struct hv *hv, int domid, int vcpus, struct err *err);

/* What the guest says of itself: keys that it has written, of xen-domain section 10. In the arena.
 */
void hv_domain_guest(struct hv *hv, int domid, struct arena *a, struct val *out);

/* One more look at its text console (vt100): a descriptor of a stream in both directions, the
 * caller's, which ends when the domain does. What is not read is not made. */
int hv_console_open(struct hv *hv, const struct hv_domain *domain, int *fd_out, struct err *err);

/* Can its domains have disks? Else unimplemented. */
int hv_disks_check(struct hv *hv, struct err *err);
/* Give the domain the bytes of a file; one that it has at this device is replaced. */
int hv_disk_plug(struct hv *hv, int domid, const struct hv_disk *disk, struct err *err);
/* The guest lets it go: device_detach_rejected, device_timeout. One it has not is let go. */
int hv_disk_release(struct hv *hv, int domid, const char *id, struct err *err);
/* It has it no more, and the file is not open for it. Idempotent. */
int hv_disk_unplug(struct hv *hv, int domid, const char *id, struct err *err);

/* Give the domain an interface; one that it has at this device is replaced. */
int hv_vif_plug(struct hv *hv, int domid, const struct hv_vif *vif, struct err *err);
/* Idempotent. */
int hv_vif_unplug(struct hv *hv, int domid, int device, struct err *err);
/* In the order of devices; at most max; returns the number. */
unsigned hv_vif_list(struct hv *hv, int domid, struct hv_vif *out, unsigned max);
