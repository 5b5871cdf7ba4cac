/* The classes SR, PBD and SM: storage repositories, which hosts have them attached, and their
 * drivers. storage.md sections 1, 4.
 *
 * A PBD is attached when the agent of its host says so; the record follows, by the operation or
 * after a contact with the agent (pbd_reconcile). After a boot of the host all its PBDs are plugged
 * again; an SR that was detached in this boot stays so.
 */
#include "pool/driver.h"
#include "pool/operation_priv.h"

#include <stdio.h>
#include <string.h>

static bool driver_known(const char *type)
{
	for (size_t i = 0; i < n_drivers; i++)
		if (strcmp(drivers[i].type, type) == 0)
			return true;
	return false;
}

static int check_driver(const char *type, struct err *err)
{
	return driver_known(type) ? 0 : err_set(err, ERR_SR_UNKNOWN_DRIVER, type, NULL);
}

void sr_create_drivers(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a)
{
	for (size_t i = 0; i < n_drivers; i++) {
		const struct driver *d = &drivers[i];
		struct val f[SM_FIELD_COUNT] = { { .kind = VAL_VOID } }, features,
			   names = val_set();
		char uuid[UUID_LEN + 1];
		const char *ref;

		uuid_derive(db_pool_uuid(pool->db), d->type, uuid);
		ref = arena_printf(a, "OpaqueRef:%s", uuid);
		if (db_view_get(view, MODEL_CLASS_SM, ref) != NULL)
			continue;
		features = driver_features(d, a);
		for (uint32_t k = 0; k < features.n; k++)
			val_set_push(a, &names, val_string(features.pairs[k].key));
		f[SM_uuid] = val_string(uuid);
		f[SM_type] = val_string(d->type);
		f[SM_name_label] = val_string(d->label);
		f[SM_name_description] = val_string(d->text);
		f[SM_vendor] = val_string("Xpool");
		f[SM_version] = f[SM_required_api_version] = val_string("1.0");
		f[SM_features] = features;
		f[SM_capabilities] = names;
		db_txn_need_no_row(txn, MODEL_CLASS_SM, ref);
		db_txn_create(txn, MODEL_CLASS_SM, ref, f);
	}
}

int sr_get_supported_types(
	struct call *call, const struct sr_get_supported_types_args *args, struct err *err)
{
	(void)args;
	(void)err;
	call->result = val_set();
	for (size_t i = 0; i < n_drivers; i++)
		val_set_push(&call->arena, &call->result, val_string(drivers[i].type));
	return 0;
}

/* Records. */

static void sr_fields(struct val *f, const char *uuid, const char *label, const char *text,
	const char *type, const char *content_type, bool shared, const struct val *sm_config)
{
	f[SR_uuid] = val_string(uuid);
	f[SR_name_label] = val_string(label);
	f[SR_name_description] = val_string(text);
	f[SR_type] = val_string(type);
	f[SR_content_type] = val_string(content_type);
	f[SR_shared] = val_bool(shared);
	f[SR_sm_config] = *sm_config;
}

static const struct db_row *sr_row(struct call *call, const char *ref, struct err *err)
{
	const struct db_row *row = db_view_get(&call->view, MODEL_CLASS_SR, ref);

	if (row == NULL)
		err_set(err, ERR_HANDLE_INVALID, "SR", ref, NULL);
	return row;
}

int sr_introduce(struct call *call, const struct sr_introduce_args *args, struct err *err)
{
	struct val f[SR_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct db_txn txn;

	if (check_driver(args->type, err) != 0)
		return ERR_API;
	pool_ref(call->pool, uuid, ref);
	if (*args->uuid != 0 && !uuid_ok(args->uuid))
		return err_set(err, ERR_INVALID_VALUE, "uuid", args->uuid, NULL);
	if (*args->uuid != 0)
		snprintf(uuid, sizeof uuid, "%s", args->uuid);
	if (db_view_by_uuid(&call->view, MODEL_CLASS_SR, uuid) != NULL)
		return err_set(err, ERR_SR_UUID_EXISTS, uuid, NULL);
	/* by its uuid, so that two at once do not both make it */
	snprintf(ref, sizeof ref, "OpaqueRef:%s", uuid);
	sr_fields(f, uuid, args->name_label, args->name_description, args->type, args->content_type,
		args->shared, args->sm_config);
	db_txn_init(&txn, DB_FOR_FIELD);
	err_set(&call->on_failed[db_txn_need_no_row(&txn, MODEL_CLASS_SR, ref)], ERR_SR_UUID_EXISTS,
		uuid, NULL);
	db_txn_create(&txn, MODEL_CLASS_SR, ref, f);
	call->result = val_string(arena_strdup(&call->arena, ref));
	return call_write(call, &txn, NULL);
}

/* The record, its PBDs and disks; what is on the storage stays. */
void sr_delete_rows(struct db_txn *txn, const struct db_view *view, const char *sr)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_VDI_SR, sr), pools;
	const struct db_row *row;

	while ((row = db_next(&c)) != NULL) {
		struct db_cursor vbds =
			db_rows_related(view, MODEL_RELATION_VBD_VDI, db_row_ref(row));
		const struct db_row *vbd;

		while ((vbd = db_next(&vbds)) != NULL)
			db_txn_delete(txn, MODEL_CLASS_VBD, db_row_ref(vbd));
		db_txn_delete(txn, MODEL_CLASS_VDI, db_row_ref(row));
	}
	pools = db_rows(view, MODEL_CLASS_pool);
	row = db_next(&pools);
	if (row != NULL && strcmp(db_row_s(row, POOL_default_SR), sr) == 0)
		db_txn_set(txn, MODEL_CLASS_pool, db_row_ref(row), POOL_default_SR,
			val_string(NULL_REF));
	db_txn_delete(txn, MODEL_CLASS_SR, sr);
}

int sr_forget(struct call *call, const struct sr_forget_args *args, struct err *err)
{
	const struct db_row *row = sr_row(call, args->sr, err);
	const char *waits_for;
	struct db_txn txn;

	if (row == NULL ||
		rules_check(&call->view, row, "forget", &call->arena, &waits_for, err) != 0)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_version(&txn, MODEL_CLASS_SR, args->sr, db_row_modified(row));
	sr_delete_rows(&txn, &call->view, args->sr);
	return call_write(call, &txn, NULL);
}

int sr_set_shared(struct call *call, const struct sr_set_shared_args *args, struct err *err)
{
	const struct db_row *row = sr_row(call, args->sr, err);
	struct db_cursor c;
	struct db_txn txn;
	unsigned n = 0;

	if (row == NULL)
		return ERR_API;
	c = db_rows_related(&call->view, MODEL_RELATION_PBD_SR, args->sr);
	while (db_next(&c) != NULL)
		n++;
	if (!args->value && n > 1)
		return err_set(err, ERR_SR_HAS_MULTIPLE_PBDS, args->sr, NULL);
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_version(&txn, MODEL_CLASS_SR, args->sr, db_row_modified(row));
	db_txn_set(&txn, MODEL_CLASS_SR, args->sr, SR_shared, val_bool(args->value));
	return call_write(call, &txn, NULL);
}

int sr_get_live_hosts(struct call *call, const struct sr_get_live_hosts_args *args, struct err *err)
{
	struct db_cursor c = db_rows(&call->view, MODEL_CLASS_host);
	const struct db_row *sr = sr_row(call, args->sr, err), *host, *metrics;

	if (sr == NULL)
		return ERR_API;
	call->result = val_set();
	while ((host = db_next(&c)) != NULL) {
		metrics = db_view_get(
			&call->view, MODEL_CLASS_host_metrics, db_row_s(host, HOST_metrics));
		if (metrics != NULL && db_row_b(metrics, HOST_METRICS_live) &&
			db_row_b(host, HOST_enabled) && place_sees_sr(&call->view, host, sr))
			val_set_push(&call->arena, &call->result, val_string(db_row_ref(host)));
	}
	return 0;
}

/* The agent's words. */

/* What SR.create, SR.attach and SR.probe take. */
static struct val place_params(
	struct arena *a, const char *sr, const char *type, const struct val *config)
{
	struct val params = val_map();

	if (sr != NULL)
		val_map_push(a, &params, "sr", val_string(sr));
	val_map_push(a, &params, "type", val_string(type));
	val_map_push(a, &params, "config", *config);
	return params;
}

static struct val sr_param(struct arena *a, const char *sr)
{
	struct val params = val_map();

	val_map_push(a, &params, "sr", val_string(sr));
	return params;
}

static int64_t sum_of_disks(const struct db_view *view, const char *sr)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_VDI_SR, sr);
	const struct db_row *vdi;
	int64_t sum = 0;

	while ((vdi = db_next(&c)) != NULL)
		sum += db_row_i(vdi, VDI_virtual_size);
	return sum;
}

int sr_sizes(struct job *job, void *task, const char *sr, int64_t grown, struct err *err)
{
	struct db_txn *then = owner_then(task);
	struct val params, stat;
	const struct db_row *row;
	struct db_view view;
	int64_t total = 0, used = 0, allocated = 0, sum = 0;
	const char *uuid;
	int rc;

	db_view_pin(owner_pool(task)->db, &view);
	row = db_view_get(&view, MODEL_CLASS_SR, sr);
	uuid = row != NULL ? arena_strdup(&job->arena, db_row_s(row, SR_uuid)) : "";
	if (row != NULL) {
		total = db_row_i(row, SR_physical_size);
		used = db_row_i(row, SR_physical_utilisation);
		allocated = db_row_i(row, SR_virtual_allocation);
		sum = sum_of_disks(&view, sr) + grown;
	}
	db_view_unpin(&view);
	params = sr_param(&job->arena, uuid);
	rc = owner_agent_ask(job, task, AGENT_SR_stat, &params, &stat, err);
	if (rc != 0)
		return rc;
	if (sum != allocated)
		db_txn_set(then, MODEL_CLASS_SR, sr, SR_virtual_allocation, val_int(sum));
	if (val_get(&stat, "total")->i != total)
		db_txn_set(then, MODEL_CLASS_SR, sr, SR_physical_size, *val_get(&stat, "total"));
	if (val_get(&stat, "used")->i != used)
		db_txn_set(
			then, MODEL_CLASS_SR, sr, SR_physical_utilisation, *val_get(&stat, "used"));
	return 0;
}

/* SR.create: the storage is made, then records, then every host attaches it. */

int sr_make_admit(struct admit *admit, const struct sr_make_args *args, struct err *err)
{
	(void)admit;
	return check_driver(args->type, err);
}

int sr_make_run(struct job *job, void *task, const struct sr_make_args *args, struct err *err)
{
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct val params;
	int rc;

	owner_uuid(task, "SR", uuid, ref);
	params = place_params(&job->arena, uuid, args->type, args->device_config);
	rc = owner_agent_ask(job, task, AGENT_SR_create, &params, NULL, err);
	if (rc == 0)
		owner_result(job, task, val_string(arena_strdup(&job->arena, uuid)));
	return rc;
}

int sr_create_admit(struct admit *admit, const struct sr_create_args *args, struct err *err)
{
	(void)admit;
	return check_driver(args->type, err);
}

/* Of the SR that the part `make` has made. */
struct new_sr {
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
};

static int make_storage(struct job *job, void *task, const struct sr_create_args *args,
	struct new_sr *out, struct err *err)
{
	struct val params[] = { val_string(args->host), *args->device_config,
		val_int(args->physical_size), val_string(args->name_label),
		val_string(args->name_description), val_string(args->type),
		val_string(args->content_type), *args->sm_config };
	char part_uuid[UUID_LEN + 1], part_ref[DB_REF_MAX + 1];
	const char *part;
	int rc = part_begin(job, task, "make", "SR.make", params, &part, err);

	if (rc == 0)
		rc = part_end(job, task, part, err);
	owner_uuid(task, "make", part_uuid, part_ref);
	uuid_derive(part_uuid, "SR", out->uuid);
	snprintf(out->ref, sizeof out->ref, "OpaqueRef:%s", out->uuid);
	return rc;
}

static void pbd_ref(void *task, const char *host, char uuid[UUID_LEN + 1], char ref[DB_REF_MAX + 1])
{
	char word[DB_REF_MAX + 8];

	snprintf(word, sizeof word, "PBD %s", host);
	owner_uuid(task, word, uuid, ref);
}

struct records {
	void *task;
	const struct sr_create_args *args;
	const struct new_sr *sr;
	struct val hosts; /* out: references of those that are to attach it */
	struct job *job;
};

static int write_records(struct job *job, struct pool *pool,
	void (*build)(struct db_txn *txn, const struct db_view *view, void *arg), void *arg)
{
	return commit_settled(job, pool,
		&(struct commit){ DB_FOR_FACTS, { POOL_HOST, "", "storage" }, build, arg });
}

static void build_records(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct records *r = arg;
	struct val f[SR_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct db_cursor c = db_rows(view, MODEL_CLASS_host);
	const struct db_row *host;

	r->hosts = val_set();
	val_set_push(&r->job->arena, &r->hosts, val_string(r->args->host));
	while (r->args->shared && (host = db_next(&c)) != NULL)
		if (strcmp(db_row_ref(host), r->args->host) != 0)
			val_set_push(&r->job->arena, &r->hosts,
				val_string(arena_strdup(&r->job->arena, db_row_ref(host))));
	if (db_view_get(view, MODEL_CLASS_SR, r->sr->ref) != NULL)
		return; /* by an earlier run */
	sr_fields(f, r->sr->uuid, r->args->name_label, r->args->name_description, r->args->type,
		r->args->content_type, r->args->shared, r->args->sm_config);
	db_txn_need_no_row(txn, MODEL_CLASS_SR, r->sr->ref);
	db_txn_create(txn, MODEL_CLASS_SR, r->sr->ref, f);
	for (uint32_t i = 0; i < r->hosts.n; i++) {
		struct val p[PBD_FIELD_COUNT] = { { .kind = VAL_VOID } };
		char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];

		pbd_ref(r->task, r->hosts.items[i].s, uuid, ref);
		p[PBD_uuid] = val_string(uuid);
		p[PBD_host] = r->hosts.items[i];
		p[PBD_SR] = val_string(r->sr->ref);
		p[PBD_device_config] = *r->args->device_config;
		db_txn_create(txn, MODEL_CLASS_PBD, ref, p);
	}
}

static void build_removal(struct db_txn *txn, const struct db_view *view, void *arg)
{
	const struct new_sr *sr = arg;

	if (db_view_get(view, MODEL_CLASS_SR, sr->ref) != NULL)
		sr_delete_rows(txn, view, sr->ref);
}

static int begin_plug(
	struct job *job, void *task, const char *host, const char **part_out, struct err *err)
{
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	struct val pbd;

	pbd_ref(task, host, uuid, ref);
	pbd = val_string(arena_strdup(&job->arena, ref));
	return part_begin(job, task, arena_printf(&job->arena, "plug %s", host), "PBD.plug", &pbd,
		part_out, err);
}

/* All at once; one that cannot (it may be off) plugs it when it is back. */
static int plug_others(struct job *job, void *task, const struct val *hosts)
{
	const char **parts = arena_alloc(&job->arena, (hosts->n + 1) * sizeof *parts);
	struct err why = { 0 };
	int rc = 0;

	for (uint32_t i = 1; i < hosts->n && (rc == 0 || rc == ERR_API); i++) {
		rc = begin_plug(job, task, hosts->items[i].s, &parts[i], &why);
		if (rc == ERR_API)
			parts[i] = NULL;
		err_fini(&why);
	}
	for (uint32_t i = 1; i < hosts->n && (rc == 0 || rc == ERR_API); i++) {
		if (parts[i] == NULL)
			continue;
		rc = part_end(job, task, parts[i], &why);
		if (rc == ERR_API)
			log_warn(job->env, "event=not_plugged host=%s why=%s", hosts->items[i].s,
				why.code->name);
		err_fini(&why);
	}
	return rc == ERR_API ? 0 : rc;
}

int sr_create_run(struct job *job, void *task, const struct sr_create_args *args, struct err *err)
{
	struct pool *pool = owner_pool(task);
	struct new_sr sr;
	struct records records = { .task = task, .args = args, .sr = &sr, .job = job };
	const char *part;
	int rc = make_storage(job, task, args, &sr, err);

	if (rc == 0)
		rc = write_records(job, pool, build_records, &records);
	if (rc != 0)
		return rc;
	rc = begin_plug(job, task, args->host, &part, err);
	if (rc == 0)
		rc = part_end(job, task, part, err);
	if (rc == ERR_API) /* nobody can use it */
		return write_records(job, pool, build_removal, &sr) == ERR_DEAD ? ERR_DEAD
										: ERR_API;
	if (rc == 0)
		rc = plug_others(job, task, &records.hosts);
	if (rc == 0)
		owner_result(job, task, val_string(arena_strdup(&job->arena, sr.ref)));
	return rc;
}

/* What a PBD says; strings of the arena. */
struct link {
	const char *pbd, *host_uuid, *sr, *sr_uuid, *type;
	struct val config;
};

static bool link_of(
	struct arena *a, const struct db_view *view, const struct db_row *pbd, struct link *out)
{
	const struct db_row *sr = db_view_get(view, MODEL_CLASS_SR, db_row_s(pbd, PBD_SR)),
			    *host = db_view_get(view, MODEL_CLASS_host, db_row_s(pbd, PBD_host));

	if (sr == NULL || host == NULL)
		return false;
	out->pbd = arena_strdup(a, db_row_ref(pbd));
	out->host_uuid = arena_strdup(a, db_row_s(host, HOST_uuid));
	out->sr = arena_strdup(a, db_row_ref(sr));
	out->sr_uuid = arena_strdup(a, db_row_s(sr, SR_uuid));
	out->type = arena_strdup(a, db_row_s(sr, SR_type));
	out->config = db_row_field(pbd, PBD_device_config, a);
	out->config = val_dup(a, &out->config);
	return true;
}

static int link_get(struct job *job, void *task, const char *pbd, struct link *out, struct err *err)
{
	const struct db_row *row;
	struct db_view view;
	bool known;

	db_view_pin(owner_pool(task)->db, &view);
	row = db_view_get(&view, MODEL_CLASS_PBD, pbd);
	known = row != NULL && link_of(&job->arena, &view, row, out);
	db_view_unpin(&view);
	return known ? 0 : err_set(err, ERR_HANDLE_INVALID, "PBD", pbd, NULL);
}

static struct val attach_params(struct arena *a, const struct link *l)
{
	struct val params = place_params(a, l->sr_uuid, l->type, &l->config);

	val_map_push(a, &params, "host", val_string(l->host_uuid));
	return params;
}

int pbd_plug_admit(struct admit *admit, const struct pbd_plug_args *args, struct err *err)
{
	const struct db_row *pbd = db_view_get(admit->view, MODEL_CLASS_PBD, args->self), *sr,
			    *other;
	struct db_cursor c;

	sr = db_view_get(admit->view, MODEL_CLASS_SR, db_row_s(pbd, PBD_SR));
	if (sr == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "SR", db_row_s(pbd, PBD_SR), NULL);
	if (check_driver(db_row_s(sr, SR_type), err) != 0)
		return ERR_API;
	c = db_rows_related(admit->view, MODEL_RELATION_PBD_SR, db_row_ref(sr));
	while (!db_row_b(sr, SR_shared) && (other = db_next(&c)) != NULL)
		if (other != pbd && db_row_b(other, PBD_currently_attached))
			return err_set(err, ERR_SR_NOT_SHARABLE, db_row_ref(sr),
				db_row_s(other, PBD_host), NULL);
	return 0;
}

int pbd_plug_run(struct job *job, void *task, const struct pbd_plug_args *args, struct err *err)
{
	struct val params;
	struct link l;
	int rc = link_get(job, task, args->self, &l, err);

	if (rc != 0)
		return rc;
	params = attach_params(&job->arena, &l);
	rc = owner_agent_ask(job, task, AGENT_SR_attach, &params, NULL, err);
	if (rc == 0)
		rc = sr_sizes(job, task, l.sr, 0, err);
	if (rc == 0)
		db_txn_set(owner_then(task), MODEL_CLASS_PBD, args->self, PBD_currently_attached,
			val_bool(true));
	return rc;
}

/* Disks of the SR that a VM of the host has: each forbids it. */
int pbd_unplug_admit(struct admit *admit, const struct pbd_unplug_args *args, struct err *err)
{
	const struct db_row *pbd = db_view_get(admit->view, MODEL_CLASS_PBD, args->self), *vdi,
			    *vbd, *vm;
	struct db_cursor vdis = db_rows_related(
				 admit->view, MODEL_RELATION_VDI_SR, db_row_s(pbd, PBD_SR)),
			 vbds;
	const char *used[ERR_PARAMS_MAX], *host = db_row_s(pbd, PBD_host);
	unsigned n = 0;

	while (n < ARRAY_LEN(used) && (vdi = db_next(&vdis)) != NULL) {
		vbds = db_rows_related(admit->view, MODEL_RELATION_VBD_VDI, db_row_ref(vdi));
		while ((vbd = db_next(&vbds)) != NULL) {
			vm = db_view_get(admit->view, MODEL_CLASS_VM, db_row_s(vbd, VBD_VM));
			if (vm == NULL || !db_row_b(vbd, VBD_currently_attached) ||
				strcmp(db_row_s(vm, VM_resident_on), host) != 0)
				continue;
			used[n++] = db_row_ref(vdi);
			break;
		}
	}
	return n > 0 ? err_set_list(err, ERR_VDI_IN_USE, used, n) : 0;
}

int pbd_unplug_run(struct job *job, void *task, const struct pbd_unplug_args *args, struct err *err)
{
	struct val params;
	struct link l;
	int rc = link_get(job, task, args->self, &l, err);

	if (rc != 0)
		return rc;
	params = sr_param(&job->arena, l.sr_uuid);
	rc = owner_agent_ask(job, task, AGENT_SR_detach, &params, NULL, err);
	if (rc == 0)
		db_txn_set(owner_then(task), MODEL_CLASS_PBD, args->self, PBD_currently_attached,
			val_bool(false));
	return rc;
}

/* Whoever changes which PBDs an SR has on the same view is judged again. */
static void pin_sr(struct db_txn *txn, const struct db_row *sr)
{
	db_txn_need_version(txn, MODEL_CLASS_SR, db_row_ref(sr), db_row_modified(sr));
	db_txn_touch(txn, MODEL_CLASS_SR, db_row_ref(sr));
}

int pbd_creating(struct call *call, struct db_txn *txn, struct val *fields, struct err *err)
{
	const char *host = fields[PBD_host].s, *waits_for;
	const struct db_row *sr = sr_row(call, fields[PBD_SR].s, err), *pbd;
	struct db_cursor c;

	if (sr == NULL ||
		rules_check(&call->view, sr, "pbd_create", &call->arena, &waits_for, err) != 0)
		return ERR_API;
	if (db_view_get(&call->view, MODEL_CLASS_host, host) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "host", host, NULL);
	c = db_rows_related(&call->view, MODEL_RELATION_PBD_SR, db_row_ref(sr));
	while ((pbd = db_next(&c)) != NULL)
		if (strcmp(db_row_s(pbd, PBD_host), host) == 0)
			return err_set(
				err, ERR_PBD_EXISTS, db_row_ref(sr), host, db_row_ref(pbd), NULL);
	pin_sr(txn, sr);
	return 0;
}

int pbd_destroying(struct call *call, struct db_txn *txn, const struct db_row *row, struct err *err)
{
	const struct db_row *sr = db_view_get(&call->view, MODEL_CLASS_SR, db_row_s(row, PBD_SR));
	const char *waits_for;

	if (db_row_b(row, PBD_currently_attached))
		return err_set(err, ERR_OPERATION_NOT_ALLOWED, "PBD is currently plugged", NULL);
	if (sr == NULL)
		return 0;
	if (rules_check(&call->view, sr, "pbd_destroy", &call->arena, &waits_for, err) != 0)
		return ERR_API;
	pin_sr(txn, sr);
	return 0;
}

int pbd_set_device_config(
	struct call *call, const struct pbd_set_device_config_args *args, struct err *err)
{
	struct db_txn txn;

	if (db_view_get(&call->view, MODEL_CLASS_PBD, args->self) == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "PBD", args->self, NULL);
	db_txn_init(&txn, DB_FOR_FIELD);
	err_set(&call->on_failed[db_txn_need_row(&txn, MODEL_CLASS_PBD, args->self)],
		ERR_HANDLE_INVALID, "PBD", args->self, NULL);
	db_txn_set(&txn, MODEL_CLASS_PBD, args->self, PBD_device_config, *args->value);
	return call_write(call, &txn, NULL);
}

/* Operations of an SR. */

int sr_destroy_admit(struct admit *admit, const struct sr_destroy_args *args, struct err *err)
{
	struct db_cursor c = db_rows_related(admit->view, MODEL_RELATION_PBD_SR, args->sr);
	const struct db_row *sr = db_view_get(admit->view, MODEL_CLASS_SR, args->sr);
	struct val config = db_row_field(sr, SR_other_config, admit->arena);
	const char *word = val_get_s(&config, "indestructible");

	if (word != NULL && strcmp(word, "true") == 0)
		return err_set(err, ERR_SR_INDESTRUCTIBLE, args->sr, NULL);
	db_next(&c);
	return db_next(&c) != NULL ? err_set(err, ERR_SR_HAS_MULTIPLE_PBDS, args->sr, NULL) : 0;
}

int sr_destroy_run(struct job *job, void *task, const struct sr_destroy_args *args, struct err *err)
{
	struct val params;
	const struct db_row *pbd;
	struct db_view view;
	struct db_cursor c;
	struct link l;
	bool known;
	int rc;

	db_view_pin(owner_pool(task)->db, &view);
	c = db_rows_related(&view, MODEL_RELATION_PBD_SR, args->sr);
	pbd = db_next(&c);
	known = pbd != NULL && link_of(&job->arena, &view, pbd, &l);
	if (known)
		sr_delete_rows(owner_then(task), &view, args->sr);
	db_view_unpin(&view);
	if (!known)
		return err_set(err, ERR_SR_HAS_NO_PBDS, args->sr, NULL);
	params = attach_params(&job->arena, &l);
	rc = owner_agent_ask(job, task, AGENT_SR_attach, &params, NULL, err);
	params = sr_param(&job->arena, l.sr_uuid);
	if (rc == 0)
		rc = owner_agent_ask(job, task, AGENT_SR_destroy, &params, NULL, err);
	if (rc == ERR_API) { /* as it was */
		struct val ignored;
		struct err none = { 0 };

		agent_ask(job, owner_pool(task), AGENT_SR_detach, &params, &ignored, &none);
		err_fini(&none);
	}
	return rc;
}

int sr_update_run(struct job *job, void *task, const struct sr_update_args *args, struct err *err)
{
	return sr_sizes(job, task, args->sr, 0, err);
}

int sr_probe_admit(struct admit *admit, const struct sr_probe_args *args, struct err *err)
{
	(void)admit;
	return check_driver(args->type, err);
}

/* In the form of the reference's file drivers. */
int sr_probe_run(struct job *job, void *task, const struct sr_probe_args *args, struct err *err)
{
	struct val params = place_params(&job->arena, NULL, args->type, args->device_config), found;
	int rc = owner_agent_ask(job, task, AGENT_SR_probe, &params, &found, err);
	const char *uuid;

	if (rc != 0)
		return rc;
	uuid = val_get_s(&found, "sr");
	owner_result(job, task,
		val_string(
			*uuid == 0
				? "<?xml version=\"1.0\" ?>\n<SRlist/>\n"
				: arena_printf(&job->arena,
					  "<?xml version=\"1.0\" ?>\n<SRlist>\n\t<SR>\n\t\t<UUID>"
					  "%s</UUID>\n\t</SR>\n</SRlist>\n",
					  uuid)));
	return 0;
}

int sr_probe_ext_admit(struct admit *admit, const struct sr_probe_ext_args *args, struct err *err)
{
	(void)admit;
	return check_driver(args->type, err);
}

/* sr_stat of an SR that was found; its name is in no folder, but in the record if there is one. */
static struct val stat_of(struct job *job, void *task, const char *uuid, const struct val *found)
{
	struct arena *a = &job->arena;
	struct val stat = val_map(), known = val_set();
	const char *label = "", *text = "";
	const struct db_row *sr;
	struct db_view view;

	db_view_pin(owner_pool(task)->db, &view);
	sr = db_view_by_uuid(&view, MODEL_CLASS_SR, uuid);
	if (sr != NULL) {
		label = arena_strdup(a, db_row_s(sr, SR_name_label));
		text = arena_strdup(a, db_row_s(sr, SR_name_description));
	}
	db_view_unpin(&view);
	val_set_push(a, &known, val_string(uuid));
	val_map_push(a, &stat, "uuid", known);
	val_map_push(a, &stat, "name_label", val_string(label));
	val_map_push(a, &stat, "name_description", val_string(text));
	val_map_push(a, &stat, "free_space",
		val_int(val_get(found, "total")->i - val_get(found, "used")->i));
	val_map_push(a, &stat, "total_space", *val_get(found, "total"));
	val_map_push(a, &stat, "clustered", val_bool(false));
	val_map_push(a, &stat, "health", val_string("healthy"));
	return stat;
}

/* One finding: the settings suffice, whether an SR lies there or could be made. */
int sr_probe_ext_run(
	struct job *job, void *task, const struct sr_probe_ext_args *args, struct err *err)
{
	struct arena *a = &job->arena;
	struct val params = place_params(a, NULL, args->type, args->device_config), found,
		   result = val_set(), one = val_map(), sr = val_set();
	int rc = owner_agent_ask(job, task, AGENT_SR_probe, &params, &found, err);
	const char *uuid;

	if (rc != 0)
		return rc;
	uuid = val_get_s(&found, "sr");
	if (*uuid != 0)
		val_set_push(a, &sr, stat_of(job, task, uuid, &found));
	val_map_push(a, &one, "configuration", *args->device_config);
	val_map_push(a, &one, "complete", val_bool(true));
	val_map_push(a, &one, "sr", sr);
	val_map_push(a, &one, "extra_info", val_map());
	val_set_push(a, &result, one);
	owner_result(job, task, result);
	return 0;
}

/* Scan: a page of what lies there, and what the records say of it. */

struct page {
	struct job *job;
	const char *sr; /* reference */
	const struct val *disks;
};

static void adopt(
	struct page *p, struct db_txn *txn, const struct db_view *view, const struct val *disk)
{
	const char *uuid = val_get_s(disk, "vdi"), *type;
	const char *ref = arena_printf(&p->job->arena, "OpaqueRef:%s", uuid);
	struct val f[VDI_FIELD_COUNT] = { { .kind = VAL_VOID } };

	if (db_view_get(view, MODEL_CLASS_VDI, ref) != NULL)
		return; /* another disk's: it cannot be told apart */
	type = model_enum_value(MODEL_ENUM_vdi_type, val_get_s(disk, "type"));
	f[VDI_uuid] = f[VDI_location] = val_string(uuid);
	f[VDI_SR] = val_string(p->sr);
	f[VDI_name_label] = *val_get(disk, "name");
	f[VDI_name_description] = *val_get(disk, "description");
	f[VDI_virtual_size] = *val_get(disk, "size");
	f[VDI_physical_utilisation] = *val_get(disk, "utilisation");
	f[VDI_type] = val_string(type != NULL ? type : "user");
	f[VDI_sharable] = *val_get(disk, "sharable");
	f[VDI_read_only] = *val_get(disk, "read_only");
	f[VDI_managed] = val_bool(true);
	f[VDI_is_a_snapshot] = *val_get(disk, "is_a_snapshot");
	f[VDI_snapshot_time] = val_datetime(val_get(disk, "snapshot_time")->i);
	db_txn_need_no_row(txn, MODEL_CLASS_VDI, ref);
	db_txn_create(txn, MODEL_CLASS_VDI, ref, f);
}

static void build_page(struct db_txn *txn, const struct db_view *view, void *arg)
{
	struct page *p = arg;

	for (uint32_t i = 0; i < p->disks->n; i++) {
		const struct val *disk = &p->disks->items[i];
		const struct db_row *row =
			db_view_by_uuid(view, MODEL_CLASS_VDI, val_get_s(disk, "vdi"));

		if (row == NULL) {
			adopt(p, txn, view, disk);
			continue;
		}
		if (db_row_i(row, VDI_virtual_size) != val_get(disk, "size")->i)
			db_txn_set(txn, MODEL_CLASS_VDI, db_row_ref(row), VDI_virtual_size,
				*val_get(disk, "size"));
		if (db_row_i(row, VDI_physical_utilisation) != val_get(disk, "utilisation")->i)
			db_txn_set(txn, MODEL_CLASS_VDI, db_row_ref(row), VDI_physical_utilisation,
				*val_get(disk, "utilisation"));
	}
}

/* Records of disks that are not there any more go; one that a VM has is kept and marked. And what
 * is a snapshot of what, when all are known. seen: by uuid, of what it is a snapshot. */
static void compare(void *task, const char *sr, const struct val *seen)
{
	struct db_txn *then = owner_then(task);
	const struct db_row *vdi, *source;
	struct db_cursor c, vbds;
	struct db_view view;

	db_view_pin(owner_pool(task)->db, &view);
	c = db_rows_related(&view, MODEL_RELATION_VDI_SR, sr);
	while ((vdi = db_next(&c)) != NULL) {
		const char *ref = db_row_ref(vdi),
			   *of = val_get_s(seen, db_row_s(vdi, VDI_location));

		vbds = db_rows_related(&view, MODEL_RELATION_VBD_VDI, ref);
		if (of == NULL && db_next(&vbds) == NULL) {
			db_txn_delete(then, MODEL_CLASS_VDI, ref);
			continue;
		}
		if (db_row_b(vdi, VDI_missing) != (of == NULL))
			db_txn_set(then, MODEL_CLASS_VDI, ref, VDI_missing, val_bool(of == NULL));
		source = of != NULL ? db_view_by_uuid(&view, MODEL_CLASS_VDI, of) : NULL;
		if (source != NULL && strcmp(db_row_s(vdi, VDI_snapshot_of), NULL_REF) == 0)
			db_txn_set(then, MODEL_CLASS_VDI, ref, VDI_snapshot_of,
				val_string(db_row_ref(source)));
	}
	db_view_unpin(&view);
}

int sr_scan_run(struct job *job, void *task, const struct sr_scan_args *args, struct err *err)
{
	struct page page = { .job = job, .sr = args->sr };
	struct val disks = val_set(), seen = val_map(), params;
	const char *after = NULL, *uuid;
	const struct db_row *sr;
	struct db_view view;
	int rc = 0;

	db_view_pin(owner_pool(task)->db, &view);
	sr = db_view_get(&view, MODEL_CLASS_SR, args->sr);
	uuid = sr != NULL ? arena_strdup(&job->arena, db_row_s(sr, SR_uuid)) : "";
	db_view_unpin(&view);
	for (;;) {
		params = sr_param(&job->arena, uuid);
		if (after != NULL)
			val_map_push(&job->arena, &params, "after", val_string(after));
		rc = owner_agent_ask(job, task, AGENT_SR_scan, &params, &disks, err);
		if (rc != 0 || disks.n == 0)
			break;
		page.disks = &disks;
		rc = write_records(job, owner_pool(task), build_page, &page);
		if (rc != 0)
			return rc;
		for (uint32_t i = 0; i < disks.n; i++)
			val_map_push(&job->arena, &seen, val_get_s(&disks.items[i], "vdi"),
				*val_get(&disks.items[i], "snapshot_of"));
		after = val_get_s(&disks.items[disks.n - 1], "vdi");
	}
	if (rc == 0)
		rc = sr_sizes(job, task, args->sr, 0, err);
	if (rc == 0)
		compare(task, args->sr, &seen);
	return rc;
}

/* A host that comes gets what the others have of shared SRs; its agent plugs them when it is met
 * (pbd_reconcile). */
void sr_share(struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a,
	const char *host)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_SR), pbds;
	const struct db_row *sr, *pbd;

	while ((sr = db_next(&c)) != NULL) {
		struct val p[PBD_FIELD_COUNT] = { { .kind = VAL_VOID } };
		char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];

		pbds = db_rows_related(view, MODEL_RELATION_PBD_SR, db_row_ref(sr));
		pbd = db_next(&pbds);
		if (!db_row_b(sr, SR_shared) || pbd == NULL)
			continue;
		pool_ref(pool, uuid, ref);
		p[PBD_uuid] = val_string(uuid);
		p[PBD_host] = val_string(host);
		p[PBD_SR] = val_string(db_row_ref(sr));
		p[PBD_device_config] = db_row_field(pbd, PBD_device_config, a);
		db_txn_need_row(txn, MODEL_CLASS_SR, db_row_ref(sr));
		db_txn_create(txn, MODEL_CLASS_PBD, ref, p);
	}
}

/* What the coordinator sees to: features of drivers when every member has them; the sum of the
 * sizes of the disks, where operations at once have missed each other. One row at a time. */
bool sr_sweep(const struct db_view *view, struct db_txn *txn)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_SR);
	const struct db_row *sr;

	if (drivers_grow(view, txn))
		return true;
	while ((sr = db_next(&c)) != NULL) {
		int64_t sum = sum_of_disks(view, db_row_ref(sr));

		if (sum == db_row_i(sr, SR_virtual_allocation))
			continue;
		db_txn_need_row(txn, MODEL_CLASS_SR, db_row_ref(sr));
		db_txn_set(
			txn, MODEL_CLASS_SR, db_row_ref(sr), SR_virtual_allocation, val_int(sum));
		return true;
	}
	return false;
}

/* After each contact with the agent. */

struct fact {
	const char *pbd;
	bool attached;
};

static void build_fact(struct db_txn *txn, const struct db_view *view, void *arg)
{
	const struct fact *f = arg;
	const struct db_row *pbd = db_view_get(view, MODEL_CLASS_PBD, f->pbd);

	if (pbd == NULL || db_row_b(pbd, PBD_currently_attached) == f->attached)
		return;
	db_txn_need_version(txn, MODEL_CLASS_PBD, f->pbd, db_row_modified(pbd));
	db_txn_set(txn, MODEL_CLASS_PBD, f->pbd, PBD_currently_attached, val_bool(f->attached));
}

/* An operation of ours on its SR is under way: it reports for itself. */
static bool busy(struct job *job, const struct db_view *view, const char *sr_ref)
{
	const struct db_row *sr = db_view_get(view, MODEL_CLASS_SR, sr_ref);
	struct val ops = db_row_field(sr, SR_current_operations, &job->arena);

	for (uint32_t i = 0; i < ops.n; i++)
		if ((strcmp(ops.pairs[i].value.s, "plug") == 0 ||
			    strcmp(ops.pairs[i].value.s, "unplug") == 0) &&
			task_pending(db_view_get(view, MODEL_CLASS_task, ops.pairs[i].key)))
			return true;
	return false;
}

static const struct val *known_sr(const struct val *known, const char *uuid)
{
	for (uint32_t i = 0; known->kind == VAL_SET && i < known->n; i++)
		if (strcmp(val_get_s(&known->items[i], "sr"), uuid) == 0)
			return val_get(&known->items[i], "attached");
	return NULL;
}

static int link_reconcile(
	struct job *job, struct pool *pool, const struct link *l, const struct val *known)
{
	const struct val *attached = known_sr(known, l->sr_uuid);
	struct fact fact = { l->pbd, attached != NULL && attached->b };
	struct val params = attach_params(&job->arena, l), ignored;
	struct err err = { 0 };
	int rc;

	if (attached == NULL) { /* this boot has never heard of it */
		rc = agent_call(job, pool->agent, AGENT_SR_attach, &params, &ignored, &err);
		fact.attached = rc == 0;
		if (rc != 0)
			log_err(pool->env, "event=not_plugged sr=%s why=%s", l->sr_uuid,
				err.code != NULL ? err.code->name : err_rc_name(rc));
		err_fini(&err);
	}
	return write_records(job, pool, build_fact, &fact);
}

/* A task of ours may be about to write what it has attached. */
static bool making(const struct db_view *view, const struct db_row *self)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_task);
	const struct db_row *task;

	while ((task = db_next(&c)) != NULL)
		if (task_pending(task) &&
			strcmp(db_row_s(task, TASK_owner), db_row_ref(self)) == 0 &&
			strncmp(db_row_s(task, TASK_method), "SR.", 3) == 0)
			return true;
	return false;
}

static bool has_pbd(const struct db_view *view, const struct db_row *self, const char *sr_uuid)
{
	const struct db_row *sr = db_view_by_uuid(view, MODEL_CLASS_SR, sr_uuid), *pbd;
	struct db_cursor c = db_rows_related(
		view, MODEL_RELATION_PBD_SR, sr != NULL ? db_row_ref(sr) : NULL_REF);

	while (sr != NULL && (pbd = db_next(&c)) != NULL)
		if (strcmp(db_row_s(pbd, PBD_host), db_row_ref(self)) == 0)
			return true;
	return false;
}

/* What the agent knows from a pool that this host has left, and is nothing of ours. One that a
 * guest uses stays. */
static void drop_strays(struct job *job, struct pool *pool, const struct val *known)
{
	const struct db_row *self;
	struct db_view view;
	struct val ignored;
	struct err err = { 0 };

	for (uint32_t i = 0; known->kind == VAL_SET && i < known->n; i++) {
		const char *sr = val_get_s(&known->items[i], "sr");
		struct val params = sr_param(&job->arena, sr);
		bool stray;

		db_view_pin(pool->db, &view);
		self = pool_self(pool, &view);
		stray = self != NULL && !has_pbd(&view, self, sr) && !making(&view, self);
		db_view_unpin(&view);
		if (!stray)
			continue;
		val_map_push(&job->arena, &params, "forget", val_bool(true));
		if (agent_call(job, pool->agent, AGENT_SR_detach, &params, &ignored, &err) == 0)
			log_info(pool->env, "event=sr_forgotten sr=%s", sr);
		else
			log_warn(pool->env, "event=sr_not_forgotten sr=%s why=%s", sr,
				err.code != NULL ? err.code->name : "the agent has not answered");
		err_fini(&err);
	}
}

void pbd_reconcile(struct job *job, struct pool *pool)
{
	struct link *links;
	unsigned n = 0;
	const struct db_row *pbd, *self;
	struct db_view view;
	struct db_cursor c;
	struct val known;
	struct err err = { 0 };

	if (agent_call(job, pool->agent, AGENT_SR_list, NULL, &known, &err) != 0) {
		err_fini(&err);
		return;
	}
	drop_strays(job, pool, &known);
	db_view_pin(pool->db, &view);
	self = pool_self(pool, &view);
	links = arena_alloc(
		&job->arena, (size_t)(db_view_count(&view, MODEL_CLASS_PBD) + 1) * sizeof *links);
	c = db_rows_related(
		&view, MODEL_RELATION_PBD_host, self != NULL ? db_row_ref(self) : NULL_REF);
	while ((pbd = db_next(&c)) != NULL)
		if (link_of(&job->arena, &view, pbd, &links[n]) && !busy(job, &view, links[n].sr))
			n++;
	db_view_unpin(&view);
	for (unsigned i = 0; i < n; i++)
		if (link_reconcile(job, pool, &links[i], &known) == ERR_DEAD)
			return;
}
