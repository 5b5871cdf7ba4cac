/* Storage of this host: SRs, the disks in them, and who has which disk active.
 *
 * An SR of type file is a folder that several hosts may see (LOCATION, below the agent's
 * --sr-root):
 *
 *   LOCATION/sr.json            {"sr": uuid}
 *   LOCATION/UUID/disk          the bytes, sparse; its length is the size that a guest sees
 *   LOCATION/UUID/base          what it is reset to; only a disk with on_boot reset has that
 *   LOCATION/UUID/about.json    names and kind
 *   LOCATION/UUID/holders.json  who has it active: [{host, boot, vm, mode}]
 *   LOCATION/UUID/lock          locked while holders are read and written
 *   LOCATION/UUID.new           being made; UUID.gone: being removed
 *
 * Invariants
 *   - A disk appears and disappears by one rename. What is being made or removed is locked (flock
 * on its lock file) by who does it, and a death lets go of it: whoever finds one that is not locked
 *     removes it (disk_tidy).
 *   - Who reads the bytes of a disk for a copy holds `disk` shared, who changes the disk itself
 * holds it alone and has seen that there are no holders. Nobody waits for either.
 *   - What a disk holds, and what it is reset to, is replaced by one rename, by who holds it alone:
 * disk.new and base.new of a disk that is not held are left behind.
 *   - A disk is active for writing for at most one VM on one host, unless it is sharable: the entry
 * in holders.json is there before a guest may write, and goes after its domain is gone. An entry of
 *     this host and another boot proves nothing any more; one of another host is broken by
 *     VDI.force_unlock alone, which the pool asks when that boot is over.
 *   - What this host has active is a row of dp (datapath.c) before it is an entry in holders.json.
 * Locks of files work between hosts where the file system has them (NFSv4, OCFS2, one machine).
 */
#pragma once

#include "member/agent_priv.h"

enum {
	SR_LOCATION_MAX = 256,
	SR_DISKS_MAX = 4096,
	SR_PAGE = 32, /* disks in one answer of SR.scan: it must fit into a line */
	DISK_NAME_MAX = 4096,
	DISK_ABOUT_MAX = 16 << 10, /* bytes of about.json */
	DISK_HOLDERS_MAX = 64 << 10,
	DISK_PATH_MAX = 384,
	DP_DEVICES_MAX = 256, /* of one VM */
};
#define DISK_SIZE_MAX ((int64_t)64 << 40) /* bytes */

/* sr.c */
struct sr {
	char uuid[UUID_LEN + 1];
	char host[UUID_LEN + 1]; /* the name under which this host holds disks */
	char boot[UUID_LEN + 1]; /* and the boot it is in */
	char location[SR_LOCATION_MAX];
};

/* An SR this host has attached; does_not_exist [SR, uuid]. */
int sr_get(struct agent *agent, const char *uuid, struct sr *out, struct err *err);
/* Remove what deaths have left in the SRs that are attached. At a start of the agent. */
void sr_tidy_all(struct agent *agent);
/* errno as an error of the storage. */
int sr_io_error(const char *what, struct err *err);
int sr_failure(const char *code, const char *p0, const char *p1, struct err *err);

/* disk.c. Blocking, worker threads; errors does_not_exist [VDI, uuid], disk_in_use [uuid, host],
 * storage. uuids have been checked by the caller (uuid_ok). */

/* Held until let go. */
struct disk {
	int fd; /* of the bytes; -1: not held */
	char path[DISK_PATH_MAX];
};
/* alone: nobody has it active or reads it, and nobody will. */
int disk_hold(const struct sr *sr, const char *vdi, bool alone, struct disk *out, struct err *err);
void disk_let_go(struct disk *disk); /* may be called twice */
/* Has another VM, or this one on another host, the disk active? */
int disk_used(
	const struct sr *sr, const char *vdi, const char *vm, bool *used_out, struct err *err);

bool disk_there(const struct sr *sr, const char *vdi);
/* The file with its bytes. */
void disk_path(const struct sr *sr, const char *vdi, char out[DISK_PATH_MAX]);
/* Could the storage hold a disk of that size at all? Disks are sparse, so more is promised than
 * there is; one that is larger than all of it never comes to be. SR_BACKEND_FAILURE_44. */
int disk_fits(const struct sr *sr, int64_t size, struct err *err);
/* As the shape vdi of member/agent.json. */
int disk_stat(
	const struct sr *sr, const char *vdi, struct arena *a, struct val *out, struct err *err);
/* Uuids of all disks, sorted. */
int disk_list(const struct sr *sr, struct arena *a, struct val *out, struct err *err);

struct disk_about {
	const char *name, *description, *type, *snapshot_of, *made_by;
	bool sharable, read_only, is_a_snapshot;
	int64_t snapshot_time;
};
int disk_about_read(const struct sr *sr, const char *vdi, struct arena *a, struct disk_about *out,
	struct err *err);
int disk_about_write(
	const struct sr *sr, const char *vdi, const struct disk_about *about, struct err *err);

/* A disk being made, invisible. */
struct disk_new {
	int fd, lock; /* of the bytes, empty at first; -1: none */
	char path[DISK_PATH_MAX];
};
int disk_make(const struct sr *sr, const char *vdi, struct disk_new *out, struct err *err);
/* It is there from now on. */
int disk_show(const struct sr *sr, const char *vdi, struct disk_new *made,
	const struct disk_about *about, struct err *err);
/* Not held any more; one that has not been shown is left for disk_tidy. May be called twice. */
void disk_close(struct disk_new *made);
/* The same, and one that has not been shown is removed. */
void disk_drop(struct disk_new *made);
/* Gone already: fine. */
int disk_remove(const struct sr *sr, const char *vdi, struct err *err);
/* Remove what was being made or removed by somebody who is dead. */
void disk_tidy(const struct sr *sr);

/* Holders. The VM has the disk active on this host, from now on; again is fine, and changes the
 * mode. Errors disk_in_use, disk_read_only. */
int disk_activate(
	const struct sr *sr, const char *vdi, const char *vm, bool write, struct err *err);
/* Not any more; the disk gone: fine. */
int disk_deactivate(const struct sr *sr, const char *vdi, const char *vm, struct err *err);
/* Entries of that boot of a host go (NULL: of any), but never those of this host's boot. */
int disk_unlock(
	const struct sr *sr, const char *vdi, const char *host, const char *boot, struct err *err);

/* ops/vdi_copy.c: what copies that did not end have shown goes. At a start of the agent, before
 * their tasks are ended. */
void vdi_copy_repair(struct agent *agent);
/* Nobody has taken over what the task has made: it goes. */
void vdi_copy_undo(struct agent *agent, const char *job);

/* datapath.c: what the VMs of this host have of disks.
 *
 *   none --dp_attach--> attached --dp_activate--> active --dp_deactivate--> attached --dp_detach-->
 * none
 *
 * storage.md 2. Each is idempotent; the record is in agent.db, as lasting as the boot. */
int dp_attach(struct agent *agent, const char *vm, const char *id, const char *sr, const char *vdi,
	bool write, struct err *err);
int dp_activate(struct agent *agent, const char *vm, const char *id, struct err *err);
int dp_deactivate(struct agent *agent, const char *vm, const char *id, struct err *err);
int dp_detach(struct agent *agent, const char *vm, const char *id, struct err *err);
/* Is any disk of the SR attached? */
bool dp_any_in(struct agent *agent, const char *sr);
/* VMs that have disks of which something may have to be released: they have no domain, or a device
 * that is not active. */
struct val dp_unsettled(struct agent *agent, struct arena *a);
/* The devices of a VM, as the shape vbd_stat. */
struct val dp_list(struct agent *agent, const char *vm, struct arena *a);
/* Of a VM that has no domain nothing stays; of one that has, what is not active goes when
 * half_only. Never fails: what cannot be released now is tried again by the scan. */
void dp_release(struct agent *agent, const char *vm, bool half_only);
