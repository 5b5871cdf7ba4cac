/* The class VDI: disks. storage.md sections 1.3, 4; what tables say (locks, route, when) is not
 * repeated here.
 *
 * A disk lies in its SR under VDI.location, which is its uuid. The agent makes it before there is a
 * record; the record is in the entry that ends the task, and a task that does not end well takes
 * the disk away again (owner_made).
 */
#include "pool/operation_priv.h"

#include <stdio.h>
#include <string.h>

/* Fields of a copy that are as in the source. */
static const int as_source[] = { VDI_name_label, VDI_name_description, VDI_type, VDI_sharable,
	VDI_other_config, VDI_xenstore_data, VDI_tags, VDI_virtual_size, VDI_on_boot,
	VDI_allow_caching };

static int gone(const char *ref, struct err *err)
{
	return err_set(err, ERR_HANDLE_INVALID, "VDI", ref, NULL);
}

int vdi_place(struct job *job, void *task, const char *ref, struct vdi_place *out, struct err *err)
{
	const struct db_row *vdi, *sr = NULL;
	struct db_view view;

	db_view_pin(owner_pool(task)->db, &view);
	vdi = db_view_get(&view, MODEL_CLASS_VDI, ref);
	if (vdi != NULL)
		sr = db_view_get(&view, MODEL_CLASS_SR, db_row_s(vdi, VDI_SR));
	if (sr != NULL) {
		out->sr_ref = arena_strdup(&job->arena, db_row_ref(sr));
		out->sr = arena_strdup(&job->arena, db_row_s(sr, SR_uuid));
		out->vdi = arena_strdup(&job->arena, db_row_s(vdi, VDI_location));
		out->size = db_row_i(vdi, VDI_virtual_size);
	}
	db_view_unpin(&view);
	return sr != NULL ? 0 : gone(ref, err);
}

static struct val place_params(struct arena *a, const struct vdi_place *p)
{
	struct val params = val_map();

	val_map_push(a, &params, "sr", val_string(p->sr));
	val_map_push(a, &params, "vdi", val_string(p->vdi));
	return params;
}

/* A field that was not given is void. */
static struct val or_else(struct val v, struct val otherwise)
{
	return v.kind != VAL_VOID ? v : otherwise;
}

int vdi_make(struct job *job, void *task, const char *word, struct val *fields,
	const char **ref_out, struct err *err)
{
	struct arena *a = &job->arena;
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	const struct db_row *sr;
	struct vdi_place at;
	struct val params, made;
	struct db_view view;
	int rc;

	owner_uuid(task, word, uuid, ref);
	db_view_pin(owner_pool(task)->db, &view);
	sr = db_view_get(&view, MODEL_CLASS_SR, fields[VDI_SR].s);
	at.sr = sr != NULL ? arena_strdup(a, db_row_s(sr, SR_uuid)) : NULL;
	db_view_unpin(&view);
	if (at.sr == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "SR", fields[VDI_SR].s, NULL);
	at.vdi = arena_strdup(a, uuid);
	params = place_params(a, &at);
	val_map_push(a, &params, "size", fields[VDI_virtual_size]);
	val_map_push(a, &params, "name", or_else(fields[VDI_name_label], val_string("")));
	val_map_push(
		a, &params, "description", or_else(fields[VDI_name_description], val_string("")));
	val_map_push(a, &params, "type", or_else(fields[VDI_type], val_string("user")));
	val_map_push(a, &params, "sharable", or_else(fields[VDI_sharable], val_bool(false)));
	val_map_push(a, &params, "read_only", or_else(fields[VDI_read_only], val_bool(false)));
	val_map_push(a, &params, "made_by", val_string(((struct owned *)task)->task_uuid));
	owner_made(job, task, at.sr, at.vdi);
	rc = owner_agent_ask(job, task, AGENT_VDI_create, &params, &made, err);
	if (rc != 0)
		return rc;
	fields[VDI_uuid] = fields[VDI_location] = val_string(at.vdi);
	fields[VDI_managed] = val_bool(true);
	fields[VDI_virtual_size] = *val_get(&made, "size");
	fields[VDI_physical_utilisation] = *val_get(&made, "utilisation");
	*ref_out = arena_strdup(a, ref);
	db_txn_create(owner_then(task), MODEL_CLASS_VDI, *ref_out, fields);
	return 0;
}

int vdi_create_run(struct job *job, void *task, const struct vdi_create_args *args, struct err *err)
{
	struct val fields[VDI_FIELD_COUNT];
	const char *ref;
	int rc = access_fields(&job->arena, RPC_JSON2, MODEL_CLASS_VDI, args->args, fields, err);

	if (rc == 0)
		rc = vdi_make(job, task, "VDI", fields, &ref, err);
	if (rc == 0)
		rc = sr_sizes(job, task, fields[VDI_SR].s, fields[VDI_virtual_size].i, err);
	if (rc == 0)
		owner_result(job, task, val_string(ref));
	return rc;
}

int vdi_destroy_run(
	struct job *job, void *task, const struct vdi_destroy_args *args, struct err *err)
{
	struct db_txn *then = owner_then(task);
	const struct db_row *vbd;
	struct vdi_place at;
	struct val params;
	struct db_view view;
	struct db_cursor c;
	int rc = vdi_place(job, task, args->self, &at, err);

	if (rc != 0)
		return rc;
	params = place_params(&job->arena, &at);
	rc = owner_agent_ask(job, task, AGENT_VDI_destroy, &params, NULL, err);
	if (rc == 0)
		rc = sr_sizes(job, task, at.sr_ref, -at.size, err);
	if (rc != 0)
		return rc;
	db_view_pin(owner_pool(task)->db, &view);
	c = db_rows_related(&view, MODEL_RELATION_VBD_VDI, args->self);
	while ((vbd = db_next(&c)) != NULL)
		db_txn_delete(then, MODEL_CLASS_VBD, db_row_ref(vbd));
	db_view_unpin(&view);
	db_txn_delete(then, MODEL_CLASS_VDI, args->self);
	return 0;
}

static int resize(
	struct job *job, void *task, const char *vdi, int64_t size, bool online, struct err *err)
{
	struct vdi_place at;
	struct val params, now;
	int rc = vdi_place(job, task, vdi, &at, err);

	if (rc != 0)
		return rc;
	params = place_params(&job->arena, &at);
	val_map_push(&job->arena, &params, "size", val_int(size));
	val_map_push(&job->arena, &params, "online", val_bool(online));
	rc = owner_agent_ask(job, task, AGENT_VDI_resize, &params, &now, err);
	if (rc != 0)
		return rc;
	db_txn_set(
		owner_then(task), MODEL_CLASS_VDI, vdi, VDI_virtual_size, *val_get(&now, "size"));
	db_txn_set(owner_then(task), MODEL_CLASS_VDI, vdi, VDI_physical_utilisation,
		*val_get(&now, "utilisation"));
	return sr_sizes(job, task, at.sr_ref, size - at.size, err);
}

int vdi_resize_run(struct job *job, void *task, const struct vdi_resize_args *args, struct err *err)
{
	return resize(job, task, args->vdi, args->size, false, err);
}

int vdi_resize_online_run(
	struct job *job, void *task, const struct vdi_resize_online_args *args, struct err *err)
{
	return resize(job, task, args->vdi, args->size, true, err);
}

/* Copies. */

void vdi_copies_init(struct job *job, struct vdi_copies *c, unsigned max, bool snapshot)
{
	*c = (struct vdi_copies){ .disks = val_set(), .max = max, .snapshot = snapshot };
	c->items = arena_alloc(&job->arena, (max + 1) * sizeof *c->items);
}

int vdi_copies_add(struct job *job, void *task, struct vdi_copies *c, const char *vdi,
	const char *sr, const char **ref_out, struct err *err)
{
	struct arena *a = &job->arena;
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	const struct db_row *row, *target;
	struct val one = val_map(), fields[VDI_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct vdi_place at;
	struct db_view view;
	int rc;

	for (unsigned i = 0; i < c->n; i++)
		if (strcmp(c->items[i].of, vdi) == 0) {
			*ref_out = c->items[i].ref;
			return 0;
		}
	CHECK(c->n < c->max);
	rc = vdi_place(job, task, vdi, &at, err);
	if (rc != 0)
		return rc;
	owner_uuid(task, arena_printf(a, "copy of %s", vdi), uuid, ref);
	db_view_pin(owner_pool(task)->db, &view);
	row = db_view_get(&view, MODEL_CLASS_VDI, vdi);
	target = db_view_get(&view, MODEL_CLASS_SR, sr != NULL ? sr : at.sr_ref);
	if (row == NULL || target == NULL) {
		db_view_unpin(&view);
		return row == NULL ? gone(vdi, err)
				   : err_set(err, ERR_HANDLE_INVALID, "SR", sr, NULL);
	}
	val_map_push(a, &one, "sr", val_string(at.sr));
	val_map_push(a, &one, "vdi", val_string(at.vdi));
	val_map_push(a, &one, "new_sr", val_string(arena_strdup(a, db_row_s(target, SR_uuid))));
	val_map_push(a, &one, "new", val_string(arena_strdup(a, uuid)));
	val_map_push(a, &one, "is_a_snapshot", val_bool(c->snapshot));
	val_map_push(
		a, &one, "persistent", val_bool(strcmp(db_row_s(row, VDI_on_boot), "reset") != 0));
	val_set_push(a, &c->disks, one);
	owner_made(job, task, val_get_s(&one, "new_sr"), val_get_s(&one, "new"));
	for (size_t i = 0; i < ARRAY_LEN(as_source); i++)
		fields[as_source[i]] = db_row_field(row, as_source[i], a);
	fields[VDI_uuid] = fields[VDI_location] = val_string(uuid);
	fields[VDI_SR] = val_string(db_row_ref(target));
	fields[VDI_managed] = val_bool(true);
	fields[VDI_physical_utilisation] = val_int(db_row_i(row, VDI_physical_utilisation));
	if (c->snapshot) {
		fields[VDI_is_a_snapshot] = val_bool(true);
		fields[VDI_snapshot_of] = val_string(vdi);
		fields[VDI_snapshot_time] = val_datetime(env_wall_s(job->env));
	}
	*ref_out = arena_strdup(a, ref);
	c->items[c->n++] = (struct vdi_copy){ *ref_out, arena_strdup(a, vdi),
		arena_strdup(a, db_row_ref(target)), at.size };
	db_txn_create(owner_then(task), MODEL_CLASS_VDI, ref, fields);
	db_view_unpin(&view);
	return 0;
}

/* Each SR once. */
static int copies_sizes(struct job *job, void *task, const struct vdi_copies *c, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < c->n && rc == 0; i++) {
		const char *sr = c->items[i].sr;
		int64_t grown = 0;
		bool before = false;

		for (unsigned k = 0; k < c->n; k++) {
			if (strcmp(c->items[k].sr, sr) != 0)
				continue;
			before |= k < i;
			grown += c->items[k].size;
		}
		if (!before)
			rc = sr_sizes(job, task, sr, grown, err);
	}
	return rc;
}

int vdi_copies_make_by(struct job *job, void *task, struct vdi_copies *c,
	enum agent_method_id method, struct val *params, struct err *err)
{
	int rc;

	val_map_push(&job->arena, params, "disks", c->disks);
	rc = owner_agent_op(job, task, method, params, err);
	return rc != 0 ? rc : copies_sizes(job, task, c, err);
}

int vdi_copies_make(struct job *job, void *task, struct vdi_copies *c, struct err *err)
{
	struct val params = val_map();

	if (c->n == 0)
		return 0;
	if (*owner_vm_uuid(task) == 0)
		val_map_push(&job->arena, &params, "uuid",
			val_string(val_get_s(&c->disks.items[0], "new")));
	return vdi_copies_make_by(job, task, c, AGENT_VDI_copy, &params, err);
}

static int copy_one(struct job *job, void *task, const char *vdi, const char *sr, bool snapshot,
	struct err *err)
{
	struct vdi_copies c;
	const char *ref;
	int rc;

	vdi_copies_init(job, &c, 1, snapshot);
	rc = vdi_copies_add(job, task, &c, vdi, sr, &ref, err);
	if (rc == 0)
		rc = vdi_copies_make(job, task, &c, err);
	if (rc == 0)
		owner_result(job, task, val_string(ref));
	return rc;
}

int vdi_clone_run(struct job *job, void *task, const struct vdi_clone_args *args, struct err *err)
{
	return copy_one(job, task, args->vdi, NULL, false, err);
}

int vdi_snapshot_run(
	struct job *job, void *task, const struct vdi_snapshot_args *args, struct err *err)
{
	return copy_one(job, task, args->vdi, NULL, true, err);
}

static bool named(const char *ref)
{
	return strcmp(ref, NULL_REF) != 0;
}

/* Into a disk that is there, and that nobody has. */
static int into_admit(struct admit *ad, const struct db_row *vdi, const char *ref, struct err *err)
{
	const struct db_row *from = db_view_get(ad->view, MODEL_CLASS_SR, db_row_s(vdi, VDI_SR)),
			    *into = db_view_get(ad->view, MODEL_CLASS_VDI, ref), *sr, *vbd;
	struct db_cursor c;

	if (into == NULL)
		return gone(ref, err);
	sr = db_view_get(ad->view, MODEL_CLASS_SR, db_row_s(into, VDI_SR));
	if (sr == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "SR", db_row_s(into, VDI_SR), NULL);
	if (db_row_b(into, VDI_read_only) || db_row_b(into, VDI_is_a_snapshot))
		return err_set(err, ERR_VDI_READONLY, ref, NULL);
	if (db_row_i(into, VDI_virtual_size) < db_row_i(vdi, VDI_virtual_size))
		return err_set(err, ERR_VDI_TOO_SMALL, ref,
			arena_printf(ad->arena, "%lld", (long long)db_row_i(vdi, VDI_virtual_size)),
			NULL);
	c = db_rows_related(ad->view, MODEL_RELATION_VBD_VDI, ref);
	while ((vbd = db_next(&c)) != NULL)
		if (db_row_b(vbd, VBD_currently_attached))
			return err_set(err, ERR_VDI_IN_USE, ref, "copy", NULL);
	return into == vdi ? err_set(err, ERR_VDI_IN_USE, ref, "copy", NULL)
	       : place_also_sr(ad, from, sr, err) != 0 ||
			       locks_also(ad, into, "revert_to", err) != 0
		       ? ERR_API
		       : locks_also(ad, sr, "vdi_revert", err);
}

int vdi_copy_admit(struct admit *admit, const struct vdi_copy_args *args, struct err *err)
{
	const struct db_row *vdi = db_view_get(admit->view, MODEL_CLASS_VDI, args->vdi),
			    *from = db_view_get(admit->view, MODEL_CLASS_SR, db_row_s(vdi, VDI_SR)),
			    *sr;

	if (named(args->into_vdi))
		return into_admit(admit, vdi, args->into_vdi, err);
	sr = db_view_get(admit->view, MODEL_CLASS_SR, args->sr);
	if (sr == NULL)
		return err_set(err, ERR_HANDLE_INVALID, "SR", args->sr, NULL);
	return place_also_sr(admit, from, sr, err) != 0 ? ERR_API
							: locks_also(admit, sr, "vdi_create", err);
}

/* A disk gets the content of another. */
static int give_content(
	struct job *job, void *task, const char *from, const char *to, struct err *err)
{
	struct arena *a = &job->arena;
	struct val params = val_map(), list = val_set(), one = val_map();
	struct vdi_place source, at;
	int rc = vdi_place(job, task, from, &source, err);

	if (rc == 0)
		rc = vdi_place(job, task, to, &at, err);
	if (rc != 0)
		return rc;
	val_map_push(a, &one, "sr", val_string(at.sr));
	val_map_push(a, &one, "vdi", val_string(at.vdi));
	val_map_push(a, &one, "snapshot_sr", val_string(source.sr));
	val_map_push(a, &one, "snapshot", val_string(source.vdi));
	val_set_push(a, &list, one);
	val_map_push(a, &params, "uuid", val_string(at.vdi));
	val_map_push(a, &params, "disks", list);
	rc = owner_agent_op(job, task, AGENT_VDI_revert, &params, err);
	return rc != 0 ? rc : sr_sizes(job, task, at.sr_ref, 0, err);
}

/* A base would only save bytes. */
int vdi_copy_run(struct job *job, void *task, const struct vdi_copy_args *args, struct err *err)
{
	int rc;

	if (!named(args->into_vdi))
		return copy_one(job, task, args->vdi, args->sr, false, err);
	rc = give_content(job, task, args->vdi, args->into_vdi, err);
	if (rc == 0)
		owner_result(job, task, val_string(args->into_vdi));
	return rc;
}

/* The disk of a snapshot gets the snapshot's content. */
int vdi_revert_run(struct job *job, void *task, const struct vdi_revert_args *args, struct err *err)
{
	const struct db_row *row;
	struct db_view view;
	const char *of;

	db_view_pin(owner_pool(task)->db, &view);
	row = db_view_get(&view, MODEL_CLASS_VDI, args->snapshot);
	of = row != NULL ? arena_strdup(&job->arena, db_row_s(row, VDI_snapshot_of)) : NULL_REF;
	db_view_unpin(&view);
	return give_content(job, task, args->snapshot, of, err);
}

int vdi_revert_admit(struct admit *admit, const struct vdi_revert_args *args, struct err *err)
{
	const struct db_row *snapshot = db_view_get(admit->view, MODEL_CLASS_VDI, args->snapshot),
			    *of = db_view_get(admit->view, MODEL_CLASS_VDI,
				    db_row_s(snapshot, VDI_snapshot_of)),
			    *vbd;
	struct db_cursor c;

	if (!db_row_b(snapshot, VDI_is_a_snapshot) || of == NULL)
		return err_set(err, ERR_OPERATION_NOT_ALLOWED, "VDI is not a snapshot", NULL);
	if (strcmp(db_row_s(of, VDI_SR), db_row_s(snapshot, VDI_SR)) != 0)
		return err_set(err, ERR_OPERATION_NOT_ALLOWED,
			"VDI and snapshot are in different SRs", NULL);
	c = db_rows_related(admit->view, MODEL_RELATION_VBD_VDI, db_row_ref(of));
	while ((vbd = db_next(&c)) != NULL)
		if (db_row_b(vbd, VBD_currently_attached))
			return err_set(err, ERR_VDI_IN_USE, db_row_ref(of), "revert_to", NULL);
	return 0;
}

/* Records of what lies there already. */

int vdi_introduce_admit(struct admit *admit, const struct vdi_introduce_args *args, struct err *err)
{
	const char *location = *args->location != 0 ? args->location : args->uuid;

	if (!uuid_ok(location) || (*args->uuid != 0 && strcmp(args->uuid, location) != 0))
		return err_set(err, ERR_INVALID_VALUE, "location", args->location, NULL);
	if (db_view_by_uuid(admit->view, MODEL_CLASS_VDI, location) != NULL)
		return err_set(err, ERR_VDI_IN_USE, /* it has a record */
			db_row_ref(db_view_by_uuid(admit->view, MODEL_CLASS_VDI, location)),
			"introduce", NULL);
	return 0;
}

int vdi_introduce_run(
	struct job *job, void *task, const struct vdi_introduce_args *args, struct err *err)
{
	struct arena *a = &job->arena;
	struct val f[VDI_FIELD_COUNT] = { { .kind = VAL_VOID } }, params, disk;
	struct vdi_place at = { .vdi = *args->location != 0 ? args->location : args->uuid };
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];
	const struct db_row *sr;
	struct db_view view;
	int rc;

	db_view_pin(owner_pool(task)->db, &view);
	sr = db_view_get(&view, MODEL_CLASS_SR, args->SR);
	at.sr = sr != NULL ? arena_strdup(a, db_row_s(sr, SR_uuid)) : "";
	db_view_unpin(&view);
	params = place_params(a, &at);
	rc = owner_agent_ask(job, task, AGENT_VDI_stat, &params, &disk, err);
	if (rc == ERR_API && err->code == ERR_VDI_NOT_AVAILABLE) {
		err_fini(err);
		return err_set(err, ERR_VDI_LOCATION_MISSING, args->SR, at.vdi, NULL);
	}
	if (rc != 0)
		return rc;
	owner_uuid(task, "VDI", uuid, ref);
	f[VDI_uuid] = f[VDI_location] = val_string(at.vdi);
	f[VDI_SR] = val_string(args->SR);
	f[VDI_name_label] = val_string(args->name_label);
	f[VDI_name_description] = val_string(args->name_description);
	f[VDI_type] = val_string(args->type);
	f[VDI_sharable] = val_bool(args->sharable);
	f[VDI_read_only] = val_bool(args->read_only);
	f[VDI_other_config] = *args->other_config;
	f[VDI_xenstore_data] = *args->xenstore_data;
	f[VDI_sm_config] = *args->sm_config;
	f[VDI_managed] = val_bool(true);
	f[VDI_virtual_size] = *val_get(&disk, "size");
	f[VDI_physical_utilisation] = *val_get(&disk, "utilisation");
	f[VDI_is_a_snapshot] = *val_get(&disk, "is_a_snapshot");
	f[VDI_snapshot_time] = val_datetime(val_get(&disk, "snapshot_time")->i);
	f[VDI_snapshot_of] = val_string(args->snapshot_of);
	db_txn_create(owner_then(task), MODEL_CLASS_VDI, ref, f);
	owner_result(job, task, val_string(arena_strdup(a, ref)));
	return 0;
}

int vdi_forget(struct call *call, const struct vdi_forget_args *args, struct err *err)
{
	const struct db_row *row = db_view_get(&call->view, MODEL_CLASS_VDI, args->vdi);
	const char *waits_for;
	struct db_txn txn;

	if (row == NULL)
		return gone(args->vdi, err);
	if (rules_check(&call->view, row, "forget", &call->arena, &waits_for, err) != 0)
		return ERR_API;
	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_need_version(&txn, MODEL_CLASS_VDI, args->vdi, db_row_modified(row));
	db_txn_delete(&txn, MODEL_CLASS_VDI, args->vdi);
	return call_write(call, &txn, NULL);
}

/* Locks. */

/* Asked of a view that is newer than the lock: whoever takes one has announced its boot before. */
static bool stands(void *task, const struct val *holder)
{
	struct db_view view;
	bool over;

	db_view_pin(owner_pool(task)->db, &view);
	over = host_boot_over(&view, val_get_s(holder, "host"), val_get_s(holder, "boot"));
	db_view_unpin(&view);
	return !over;
}

int vdi_break_locks(struct job *job, void *task, const char *vdi, bool *held_out, struct err *err)
{
	struct vdi_place at;
	struct val params, stat;
	const struct val *holders;
	int rc = vdi_place(job, task, vdi, &at, err);

	*held_out = false;
	if (rc != 0)
		return rc;
	params = place_params(&job->arena, &at);
	rc = owner_agent_ask(job, task, AGENT_VDI_stat, &params, &stat, err);
	holders = rc == 0 ? val_get(&stat, "holders") : NULL;
	if (holders != NULL && holders->n > 0)
		rc = pool_catch_up(job, owner_pool(task));
	for (uint32_t i = 0; holders != NULL && i < holders->n && rc == 0; i++) {
		const struct val *holder = &holders->items[i];

		if (stands(task, holder)) {
			*held_out = true;
			continue;
		}
		params = place_params(&job->arena, &at);
		val_map_push(&job->arena, &params, "host", *val_get(holder, "host"));
		val_map_push(&job->arena, &params, "boot", *val_get(holder, "boot"));
		rc = owner_agent_ask(job, task, AGENT_VDI_force_unlock, &params, NULL, err);
	}
	return rc;
}

int vdi_force_unlock_run(
	struct job *job, void *task, const struct vdi_force_unlock_args *args, struct err *err)
{
	bool held;
	int rc = vdi_break_locks(job, task, args->vdi, &held, err);

	if (rc != 0 || !held)
		return rc;
	return err_set(err, ERR_VDI_IN_USE, args->vdi, "force_unlock", NULL);
}

/* What is kept beside the data, so that another pool finds it there. */

static int change(struct job *job, void *task, const char *vdi, int field, const char *key,
	struct val value, struct err *err)
{
	struct vdi_place at;
	struct val params;
	int rc = vdi_place(job, task, vdi, &at, err);

	if (rc != 0)
		return rc;
	params = place_params(&job->arena, &at);
	val_map_push(&job->arena, &params, key, value);
	rc = owner_agent_ask(job, task, AGENT_VDI_set, &params, NULL, err);
	if (rc == 0)
		db_txn_set(owner_then(task), MODEL_CLASS_VDI, vdi, field, value);
	return rc;
}

int vdi_set_name_label_run(
	struct job *job, void *task, const struct vdi_set_name_label_args *args, struct err *err)
{
	return change(job, task, args->self, VDI_name_label, "name", val_string(args->value), err);
}

int vdi_set_name_description_run(struct job *job, void *task,
	const struct vdi_set_name_description_args *args, struct err *err)
{
	return change(job, task, args->self, VDI_name_description, "description",
		val_string(args->value), err);
}

int vdi_set_sharable_run(
	struct job *job, void *task, const struct vdi_set_sharable_args *args, struct err *err)
{
	return change(job, task, args->self, VDI_sharable, "sharable", val_bool(args->value), err);
}

int vdi_set_read_only_run(
	struct job *job, void *task, const struct vdi_set_read_only_args *args, struct err *err)
{
	return change(
		job, task, args->self, VDI_read_only, "read_only", val_bool(args->value), err);
}

/* A disk is reset when its record says so and it has something to be reset to: so the record says
 * reset after there is that, and persist before that goes, whoever dies in between. */

static void build_persist(struct db_txn *txn, const struct db_view *view, void *arg)
{
	const struct db_row *vdi = db_view_get(view, MODEL_CLASS_VDI, arg);

	if (vdi != NULL && strcmp(db_row_s(vdi, VDI_on_boot), "reset") == 0)
		db_txn_set(txn, MODEL_CLASS_VDI, arg, VDI_on_boot, val_string("persist"));
}

static int persist_now(struct job *job, void *task, const char *vdi)
{
	char ref[DB_REF_MAX + 1];

	snprintf(ref, sizeof ref, "%s", vdi);
	return commit_settled(job, owner_pool(task),
		&(struct commit){ .reason = DB_FOR_FACTS, .build = build_persist, .arg = ref });
}

int vdi_set_on_boot_run(
	struct job *job, void *task, const struct vdi_set_on_boot_args *args, struct err *err)
{
	struct vdi_place at;
	struct val params;
	int rc = vdi_place(job, task, args->self, &at, err);

	if (rc == 0 && strcmp(args->value, "persist") == 0)
		rc = persist_now(job, task, args->self);
	if (rc != 0)
		return rc;
	params = place_params(&job->arena, &at);
	val_map_push(&job->arena, &params, "uuid", val_string(at.vdi));
	val_map_push(&job->arena, &params, "on_boot", val_string(args->value));
	rc = owner_agent_op(job, task, AGENT_VDI_set_on_boot, &params, err);
	if (rc == ERR_API && strcmp(args->value, "persist") == 0) { /* only room is left to gain */
		log_warn(owner_pool(task)->env, "event=base_left vdi=%s why=%s", at.vdi,
			err->code->name);
		err_fini(err);
		rc = 0;
	}
	if (rc == 0)
		rc = sr_sizes(job, task, at.sr_ref, 0, err);
	if (rc == 0)
		db_txn_set(owner_then(task), MODEL_CLASS_VDI, args->self, VDI_on_boot,
			val_string(args->value));
	return rc;
}

int vdi_update_run(struct job *job, void *task, const struct vdi_update_args *args, struct err *err)
{
	struct arena *a = &job->arena;
	const struct db_row *row;
	struct vdi_place at;
	struct val params;
	struct db_view view;
	int rc = vdi_place(job, task, args->vdi, &at, err);

	if (rc != 0)
		return rc;
	params = place_params(a, &at);
	db_view_pin(owner_pool(task)->db, &view);
	row = db_view_get(&view, MODEL_CLASS_VDI, args->vdi);
	if (row != NULL) {
		val_map_push(a, &params, "name",
			val_string(arena_strdup(a, db_row_s(row, VDI_name_label))));
		val_map_push(a, &params, "description",
			val_string(arena_strdup(a, db_row_s(row, VDI_name_description))));
		val_map_push(a, &params, "sharable", val_bool(db_row_b(row, VDI_sharable)));
		val_map_push(a, &params, "read_only", val_bool(db_row_b(row, VDI_read_only)));
	}
	db_view_unpin(&view);
	return owner_agent_ask(job, task, AGENT_VDI_set, &params, NULL, err);
}
