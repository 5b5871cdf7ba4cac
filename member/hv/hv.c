/* Calls of the hypervisor find their back end; one that it does not have is an error of that call.
 */
#include "member/hv/hv_ops.h"

#include <stdio.h>
#include <stdlib.h>

struct hv {
	const struct hv_ops *ops;
	struct hv_state *state;
};

struct hv *hv_open(const struct hv_ops *ops, struct env *env, const char *dir,
	const struct hv_machine *machine)
{
	struct hv_state *state = ops->open(env, dir, machine);
	struct hv *hv;

	if (state == NULL)
		return NULL;
	hv = mem_new(sizeof *hv);
	hv->ops = ops;
	hv->state = state;
	return hv;
}

void hv_close(struct hv *hv)
{
	hv->ops->close(hv->state);
	free(hv);
}

static int missing(const struct hv *hv, const char *call, struct err *err)
{
	char text[80];

	snprintf(text, sizeof text, "%s on %s", call, hv->ops->name);
	return err_set(err, AGENT_ERR_unimplemented, text, NULL);
}

const char *hv_name(const struct hv *hv)
{
	return hv->ops->name;
}

const char *hv_boot_id(const struct hv *hv)
{
	return hv->ops->boot_id(hv->state);
}

void hv_cpu(const struct hv *hv, struct hv_cpu *out)
{
	hv->ops->cpu(hv->state, out);
}

void hv_memory(struct hv *hv, int64_t *total_kib_out, int64_t *free_kib_out)
{
	hv->ops->memory(hv->state, total_kib_out, free_kib_out);
}

int hv_nics(struct hv *hv, struct arena *a, struct val *out, struct err *err)
{
	return hv->ops->nics != NULL ? hv->ops->nics(hv->state, a, out, err)
				     : missing(hv, "nics", err);
}

bool hv_domain_find(struct hv *hv, const char *uuid, struct hv_domain *out)
{
	return hv->ops->find(hv->state, uuid, out);
}

unsigned hv_domain_list(struct hv *hv, struct hv_domain *out, unsigned max)
{
	return hv->ops->list(hv->state, out, max);
}

int hv_console_open(struct hv *hv, const struct hv_domain *domain, int *fd_out, struct err *err)
{
	return hv->ops->console_open != NULL ? hv->ops->console_open(hv->state, domain, fd_out, err)
					     : missing(hv, "console", err);
}

int hv_disks_check(struct hv *hv, struct err *err)
{
	return hv->ops->disks ? 0 : missing(hv, "disk", err);
}

int hv_disk_plug(struct hv *hv, int domid, const struct hv_disk *disk, struct err *err)
{
	return hv->ops->disk_plug != NULL ? hv->ops->disk_plug(hv->state, domid, disk, err) : 0;
}

int hv_disk_release(struct hv *hv, int domid, const char *id, struct err *err)
{
	return hv->ops->disk_release != NULL ? hv->ops->disk_release(hv->state, domid, id, err) : 0;
}

int hv_disk_unplug(struct hv *hv, int domid, const char *id, struct err *err)
{
	return hv->ops->disk_unplug != NULL ? hv->ops->disk_unplug(hv->state, domid, id, err) : 0;
}

void hv_domain_withdraw(struct hv *hv, int domid)
{
	hv->ops->withdraw(hv->state, domid);
}

bool hv_domain_acknowledged(struct hv *hv, int domid)
{
	return hv->ops->acknowledged(hv->state, domid);
}

int64_t hv_image_memory_kib(struct hv *hv, const char *image)
{
	return hv->ops->image_memory_kib != NULL ? hv->ops->image_memory_kib(image) : 0;
}

void hv_domain_guest(struct hv *hv, int domid, struct arena *a, struct val *out)
{
	if (hv->ops->guest != NULL)
		hv->ops->guest(hv->state, domid, a, out);
	else
		*out = val_map();
}

unsigned hv_vif_list(struct hv *hv, int domid, struct hv_vif *out, unsigned max)
{
	return hv->ops->vif_list != NULL ? hv->ops->vif_list(hv->state, domid, out, max) : 0;
}

int hv_power_off(struct hv *hv, struct err *err)
{
	return hv->ops->power_off != NULL ? hv->ops->power_off(hv->state, err)
					  : missing(hv, "power off", err);
}

int hv_domain_create(struct hv *hv, const struct hv_config *config, int *domid_out, struct err *err)
{
	return hv->ops->create != NULL ? hv->ops->create(hv->state, config, domid_out, err)
				       : missing(hv, "create", err);
}

int hv_domain_build(struct hv *hv, int domid, const struct hv_config *config, struct err *err)
{
	return hv->ops->build != NULL ? hv->ops->build(hv->state, domid, config, err)
				      : missing(hv, "build", err);
}

int hv_domain_keep(struct hv *hv, int domid, struct err *err)
{
	return hv->ops->keep != NULL ? hv->ops->keep(hv->state, domid, err)
				     : missing(hv, "keep", err);
}

int hv_domain_pause(struct hv *hv, int domid, struct err *err)
{
	return hv->ops->pause != NULL ? hv->ops->pause(hv->state, domid, err)
				      : missing(hv, "pause", err);
}

int hv_domain_unpause(struct hv *hv, int domid, struct err *err)
{
	return hv->ops->unpause != NULL ? hv->ops->unpause(hv->state, domid, err)
					: missing(hv, "unpause", err);
}

int hv_domain_destroy(struct hv *hv, int domid, struct err *err)
{
	return hv->ops->destroy != NULL ? hv->ops->destroy(hv->state, domid, err)
					: missing(hv, "destroy", err);
}

int hv_domain_ask(struct hv *hv, int domid, enum hv_end how, struct err *err)
{
	return hv->ops->ask != NULL ? hv->ops->ask(hv->state, domid, how, err)
				    : missing(hv, "ask", err);
}

int hv_domain_save(struct hv *hv, int domid, struct buf *image, struct err *err)
{
	return hv->ops->save != NULL ? hv->ops->save(hv->state, domid, image, err)
				     : missing(hv, "save", err);
}

int hv_domain_restore(struct hv *hv, int domid, const char *image, struct err *err)
{
	return hv->ops->restore != NULL ? hv->ops->restore(hv->state, domid, image, err)
					: missing(hv, "restore", err);
}

int hv_domain_resume(struct hv *hv, int domid, struct err *err)
{
	return hv->ops->resume != NULL ? hv->ops->resume(hv->state, domid, err)
				       : missing(hv, "resume", err);
}

int hv_domain_move(
	struct hv *hv, int domid, enum hv_moving moving, const char *job, struct err *err)
{
	return hv->ops->move != NULL ? hv->ops->move(hv->state, domid, moving, job, err)
				     : missing(hv, "move", err);
}

int hv_domain_set_memory(struct hv *hv, int domid, int64_t target_kib, struct err *err)
{
	return hv->ops->set_memory != NULL ? hv->ops->set_memory(hv->state, domid, target_kib, err)
					   : missing(hv, "set memory", err);
}

int hv_domain_set_vcpus(struct hv *hv, int domid, int vcpus, struct err *err)
{
	return hv->ops->set_vcpus != NULL ? hv->ops->set_vcpus(hv->state, domid, vcpus, err)
					  : missing(hv, "set vcpus", err);
}

int hv_vif_plug(struct hv *hv, int domid, const struct hv_vif *vif, struct err *err)
{
	return hv->ops->vif_plug != NULL ? hv->ops->vif_plug(hv->state, domid, vif, err)
					 : missing(hv, "vif plug", err);
}

int hv_vif_unplug(struct hv *hv, int domid, int device, struct err *err)
{
	return hv->ops->vif_unplug != NULL ? hv->ops->vif_unplug(hv->state, domid, device, err)
					   : missing(hv, "vif unplug", err);
}
