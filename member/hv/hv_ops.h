/* What a back end of the hypervisor is: a table of the functions that member/hv/hv.h describes.
 * Each back end defines struct hv_state for itself. NULL: it cannot do that; hv.c says so. */
#pragma once

#include "member/hv/hv.h"

struct hv_state;

struct hv_ops {
	const char *name;
	bool disks; /* its domains can have them; where there is no disk_plug nothing has to be
		     * done for it */
	/* NULL after a log line. */
	struct hv_state *(*open)(
		struct env *env, const char *dir, const struct hv_machine *machine);
	void (*close)(struct hv_state *hv);
	const char *(*boot_id)(const struct hv_state *hv);
	int (*power_off)(struct hv_state *hv, struct err *err);
	void (*cpu)(const struct hv_state *hv, struct hv_cpu *out);
	void (*memory)(struct hv_state *hv, int64_t *total_kib_out, int64_t *free_kib_out);
	int (*nics)(struct hv_state *hv, struct arena *a, struct val *out, struct err *err);
	bool (*find)(struct hv_state *hv, const char *uuid, struct hv_domain *out);
	unsigned (*list)(struct hv_state *hv, struct hv_domain *out, unsigned max);
	int (*create)(struct hv_state *hv, const struct hv_config *config, int *domid_out,
		struct err *err);
	int (*build)(
		struct hv_state *hv, int domid, const struct hv_config *config, struct err *err);
	int (*keep)(struct hv_state *hv, int domid, struct err *err);
	int (*pause)(struct hv_state *hv, int domid, struct err *err);
	int (*unpause)(struct hv_state *hv, int domid, struct err *err);
	int (*destroy)(struct hv_state *hv, int domid, struct err *err);
	int (*ask)(struct hv_state *hv, int domid, enum hv_end how, struct err *err);
	void (*withdraw)(struct hv_state *hv, int domid);
	bool (*acknowledged)(struct hv_state *hv, int domid);
	int (*save)(struct hv_state *hv, int domid, struct buf *image, struct err *err);
	int (*restore)(struct hv_state *hv, int domid, const char *image, struct err *err);
	int64_t (*image_memory_kib)(const char *image);
	int (*resume)(struct hv_state *hv, int domid, struct err *err);
	int (*move)(struct hv_state *hv, int domid, enum hv_moving moving, const char *job,
		struct err *err);
	int (*set_memory)(struct hv_state *hv, int domid, int64_t target_kib, struct err *err);
	int (*set_vcpus)(struct hv_state *hv, int domid, int vcpus, struct err *err);
	void (*guest)(struct hv_state *hv, int domid, struct arena *a, struct val *out);
	int (*console_open)(
		struct hv_state *hv, const struct hv_domain *domain, int *fd_out, struct err *err);
	int (*disk_plug)(
		struct hv_state *hv, int domid, const struct hv_disk *disk, struct err *err);
	int (*disk_release)(struct hv_state *hv, int domid, const char *id, struct err *err);
	int (*disk_unplug)(struct hv_state *hv, int domid, const char *id, struct err *err);
	int (*vif_plug)(struct hv_state *hv, int domid, const struct hv_vif *vif, struct err *err);
	int (*vif_unplug)(struct hv_state *hv, int domid, int device, struct err *err);
	unsigned (*vif_list)(struct hv_state *hv, int domid, struct hv_vif *out, unsigned max);
};
