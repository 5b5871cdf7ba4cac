/* What a host has of its own goes with it into the pool that it joins (pool.md section 2): VMs,
 * local SRs and their disks, networks, interfaces, secrets, appliances. The host says it as rows,
 * and the pool makes them in the entry that lets the host in: both are there, or neither.
 *
 *   {"network": that of the management interface, "rows": [{"class", "ref", "fields"}, ...]}
 *
 * References and uuids stay. Of a network that the pool has already - by its bridge where an
 * interface of the host is on it, else by its name - there is no second one: what was on it is on
 * the pool's. What does not go with the host (default templates, messages, tasks) is in no field
 * of what does: such references are none there.
 */
#include "pool/carry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRY_ROOM = 16 << 10 }; /* of a log entry, for what lets the host in */

/* The host's side. */

struct own {
	const struct db_view *view;
	const char *network; /* of the management interface */
	struct rpc_map list;
};

static bool own_network(const struct own *o, const struct db_row *row)
{
	return strcmp(db_row_ref(row), o->network) != 0;
}

static bool own_sr(const struct own *o, const struct db_row *row)
{
	(void)o;
	return !db_row_b(row, SR_shared) && !db_row_b(row, SR_is_tools_sr);
}

static bool own_vdi(const struct own *o, const struct db_row *row)
{
	const struct db_row *sr = db_view_get(o->view, MODEL_CLASS_SR, db_row_s(row, VDI_SR));

	return sr != NULL && own_sr(o, sr);
}

static bool own_vm(const struct own *o, const struct db_row *row)
{
	(void)o;
	return !db_row_b(row, VM_is_control_domain) && !db_row_b(row, VM_is_default_template);
}

static bool own_pif(const struct own *o, const struct db_row *row)
{
	(void)o;
	return db_row_b(row, PIF_physical) && !db_row_b(row, PIF_management);
}

/* All classes that may come. Of a class without a function all rows go. */
static const struct carried {
	int class_id;
	bool (*own)(const struct own *o, const struct db_row *row);
	enum {
		ALONE,
		DEPENDS, /* goes when all goes that it has no meaning without */
		OWNED,	 /* goes with the row that owns it */
	} how;
} classes[] = {
	{ MODEL_CLASS_host, NULL, ALONE },
	{ MODEL_CLASS_network, own_network, ALONE },
	{ MODEL_CLASS_SR, own_sr, ALONE },
	{ MODEL_CLASS_VDI, own_vdi, ALONE },
	{ MODEL_CLASS_VM, own_vm, ALONE },
	{ MODEL_CLASS_secret, NULL, ALONE },
	{ MODEL_CLASS_VM_appliance, NULL, ALONE },
	{ MODEL_CLASS_VMSS, NULL, ALONE },
	{ MODEL_CLASS_VM_group, NULL, ALONE },
	{ MODEL_CLASS_PIF, own_pif, DEPENDS },
	{ MODEL_CLASS_PBD, NULL, DEPENDS },
	{ MODEL_CLASS_VBD, NULL, DEPENDS },
	{ MODEL_CLASS_VIF, NULL, DEPENDS },
	{ MODEL_CLASS_VTPM, NULL, DEPENDS },
	{ MODEL_CLASS_VM_metrics, NULL, OWNED },
	{ MODEL_CLASS_VM_guest_metrics, NULL, OWNED },
	{ MODEL_CLASS_PIF_metrics, NULL, OWNED },
};

static const struct carried *carried(int class_id)
{
	for (unsigned i = 0; i < ARRAY_LEN(classes); i++)
		if (classes[i].class_id == class_id)
			return &classes[i];
	return NULL;
}

static bool goes(const struct own *o, int class_id, const struct db_row *row);

/* What it has no meaning without: the host and the network of its management interface are there
 * in any case. */
static bool all_go(const struct own *o, int class_id, const struct db_row *row)
{
	for (int r = 0; r < MODEL_RELATION_COUNT; r++) {
		const struct model_relation *rel = &model_relations[r];
		const char *ref;

		if (rel->one_class != class_id || !rel->cascade)
			continue;
		ref = db_row_s(row, rel->one_field);
		if (strcmp(ref, o->network) != 0 &&
			!goes(o, rel->many_class, db_view_get(o->view, rel->many_class, ref)))
			return false;
	}
	return true;
}

static bool goes(const struct own *o, int class_id, const struct db_row *row)
{
	const struct carried *c = carried(class_id);

	return row != NULL && c != NULL && c->how != OWNED && (c->own == NULL || c->own(o, row)) &&
	       (c->how != DEPENDS || all_go(o, class_id, row));
}

/* Stored, and no number that is of no use after a crash. */
static bool travels(const struct model_field *f)
{
	return f->derived < 0 && !f->computed && !f->removed && !f->is_volatile;
}

static void put_row(struct own *o, const struct db_row *row)
{
	const struct model_class *c = &model_classes[db_row_class(row)];
	struct val s = val_string(c->name);
	struct rpc_map m, fields;
	struct arena a;

	arena_init(&a);
	rpc_list_next(&o->list);
	rpc_map_open(&m, o->list.out, RPC_JSON2);
	rpc_map_name(&m, "class");
	rpc_value(m.out, RPC_JSON2, &s);
	s = val_string(db_row_ref(row));
	rpc_map_name(&m, "ref");
	rpc_value(m.out, RPC_JSON2, &s);
	rpc_map_name(&m, "fields");
	rpc_map_open(&fields, m.out, RPC_JSON2);
	for (unsigned i = 0; i < c->n_stored; i++) {
		struct val v = db_row_field(row, (int)i, &a);

		if (!travels(&c->fields[i]) || val_equal(&v, &c->fields[i].initial))
			continue;
		rpc_map_name(&fields, c->fields[i].name);
		rpc_value(m.out, RPC_JSON2, &v);
	}
	rpc_map_close(&fields);
	rpc_map_close(&m);
	for (unsigned i = 0; i < c->n_fields; i++) {
		const struct db_row *owned =
			c->fields[i].owns && carried(c->fields[i].type->class_id) != NULL
				? db_view_get(o->view, c->fields[i].type->class_id,
					  db_row_s(row, (int)i))
				: NULL;

		if (owned != NULL)
			put_row(o, owned);
	}
	arena_fini(&a);
}

void carry_put(const struct db_view *view, const struct db_row *self, struct buf *out)
{
	struct own o = { .view = view, .network = network_management(view, db_row_ref(self)) };
	struct val network = val_string(o.network);
	const struct db_row *row;
	struct rpc_map m;

	rpc_map_open(&m, out, RPC_JSON2);
	rpc_map_name(&m, "network");
	rpc_value(out, RPC_JSON2, &network);
	rpc_map_name(&m, "rows");
	rpc_list_open(&o.list, out, RPC_JSON2);
	for (unsigned i = 0; i < ARRAY_LEN(classes); i++) {
		struct db_cursor c = db_rows(view, classes[i].class_id);

		while ((row = db_next(&c)) != NULL)
			if (goes(&o, classes[i].class_id, row))
				put_row(&o, row);
	}
	rpc_list_close(&o.list);
	rpc_map_close(&m);
}

/* The pool's side. What has come is somebody else's word. */

struct came {
	int class_id;
	const char *ref, *to; /* there, and here */
	const struct val *fields;
};

struct carry {
	const struct db_view *view;
	struct db_txn *txn;
	struct arena *a;
	const char *host;
	struct came *rows; /* sorted */
	unsigned n;
	const char *why;
	struct val *all; /* NULL: the first that is in the way ends it */
};

/* false: it ends there. */
static bool in_the_way(struct carry *c, const char *why)
{
	c->why = why;
	if (c->all != NULL)
		val_set_push(c->a, c->all, val_string(why));
	return c->all != NULL;
}

static int compare(const void *a, const void *b)
{
	const struct came *x = a, *y = b;

	return x->class_id != y->class_id ? x->class_id - y->class_id : strcmp(x->ref, y->ref);
}

static struct came *find(const struct carry *c, int class_id, const char *ref)
{
	struct came key = { .class_id = class_id, .ref = ref };

	return c->n > 0 ? bsearch(&key, c->rows, c->n, sizeof key, compare) : NULL;
}

static bool ref_ok(const char *ref)
{
	static const char head[] = "OpaqueRef:";

	return ref != NULL && strncmp(ref, head, sizeof head - 1) == 0 &&
	       uuid_ok(ref + sizeof head - 1);
}

static const char *text(const struct came *r, const char *field)
{
	const char *s = val_get_s(r->fields, field);

	return s != NULL ? s : "";
}

static bool is(const struct came *r, const char *field)
{
	const struct val *v = val_get(r->fields, field);

	return v != NULL && v->kind == VAL_BOOL && v->b;
}

static bool read_row(struct carry *c, const struct val *from, struct came *out)
{
	const char *name = val_get_s(from, "class");

	*out = (struct came){
		.class_id = -1, .ref = val_get_s(from, "ref"), .fields = val_get(from, "fields")
	};
	for (unsigned i = 0; name != NULL && i < ARRAY_LEN(classes); i++)
		if (strcmp(model_classes[classes[i].class_id].name, name) == 0)
			out->class_id = classes[i].class_id;
	out->to = out->ref;
	if (out->class_id >= 0 && ref_ok(out->ref) && out->fields != NULL &&
		out->fields->kind == VAL_MAP)
		return true;
	c->why = "what comes with it is no row, or of a class that does not travel";
	return false;
}

static bool read_rows(struct carry *c, const struct val *rows)
{
	unsigned hosts = 0;

	if (rows == NULL || rows->kind != VAL_SET) {
		c->why = "what comes with it has no rows";
		return false;
	}
	c->rows = arena_alloc(c->a, (rows->n + 1) * sizeof *c->rows);
	for (; c->n < rows->n; c->n++)
		if (!read_row(c, &rows->items[c->n], &c->rows[c->n]))
			return false;
	qsort(c->rows, c->n, sizeof *c->rows, compare);
	for (unsigned i = 0; i < c->n; i++) {
		hosts += c->rows[i].class_id == MODEL_CLASS_host;
		if (i > 0 && compare(&c->rows[i - 1], &c->rows[i]) == 0)
			hosts = 2;
	}
	if (hosts != 1)
		c->why = "what comes with it has a row twice, or not one host";
	return hosts == 1;
}

/* Networks. */

static bool has_interface(const struct carry *c, const struct came *network)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->rows[i].class_id == MODEL_CLASS_PIF && is(&c->rows[i], "physical") &&
			strcmp(text(&c->rows[i], "network"), network->ref) == 0)
			return true;
	return false;
}

/* The pool's, of that bridge or name; NULL: it has none. */
static const struct db_row *same_network(const struct carry *c, const struct came *r)
{
	struct db_cursor rows = db_rows(c->view, MODEL_CLASS_network);
	bool by_bridge = has_interface(c, r);
	const struct db_row *row;

	while ((row = db_next(&rows)) != NULL)
		if (by_bridge ? strcmp(db_row_s(row, NETWORK_bridge), text(r, "bridge")) == 0
			      : strcmp(db_row_s(row, NETWORK_name_label), text(r, "name_label")) ==
					0)
			return row;
	return NULL;
}

/* The host and the networks that the pool has already. */
static void match(struct carry *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		struct came *r = &c->rows[i];
		const struct db_row *same =
			r->class_id == MODEL_CLASS_network ? same_network(c, r) : NULL;

		if (r->class_id == MODEL_CLASS_host)
			r->to = c->host;
		else if (same != NULL)
			r->to = db_row_ref(same);
	}
}

static bool bridge_comes(const struct carry *c, const char *bridge)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->rows[i].class_id == MODEL_CLASS_network &&
			strcmp(text(&c->rows[i], "bridge"), bridge) == 0)
			return true;
	return false;
}

/* Fields. */

static const char *target(const struct carry *c, int class_id, const char *ref)
{
	const struct came *r = find(c, class_id, ref);

	return r != NULL ? r->to : NULL_REF;
}

/* References as they are here. */
static struct val moved(const struct carry *c, const struct model_type *type, struct val v)
{
	struct val out;

	if (type->kind == MODEL_REF)
		return val_string(target(c, type->class_id, v.s));
	if ((type->kind != MODEL_SET && type->kind != MODEL_MAP) || type->item->kind != MODEL_REF)
		return v;
	out = type->kind == MODEL_SET ? val_set() : val_map();
	for (uint32_t i = 0; i < v.n; i++) {
		const char *ref = type->kind == MODEL_SET ? v.items[i].s : v.pairs[i].value.s,
			   *to = target(c, type->item->class_id, ref);

		if (strcmp(to, NULL_REF) == 0)
			continue;
		if (type->kind == MODEL_SET)
			val_set_push(c->a, &out, val_string(to));
		else
			val_map_push(c->a, &out, v.pairs[i].key, val_string(to));
	}
	return out;
}

/* What begins anew here: it is found out (pbd_reconcile), or is of something that has ended. */
static bool begins_anew(int class_id, int field)
{
	return field == model_classes[class_id].operations_field ||
	       (class_id == MODEL_CLASS_PBD && field == PBD_currently_attached) ||
	       (class_id == MODEL_CLASS_VM &&
		       (field == VM_resident_on || field == VM_scheduled_to_be_resident_on));
}

static bool take_fields(struct carry *c, const struct came *r, struct val *f)
{
	const struct model_class *class = &model_classes[r->class_id];
	unsigned active = db_view_schema(c->view);
	struct err err = { 0 };

	for (unsigned i = 0; i < class->n_fields; i++) {
		const struct model_field *field = &class->fields[i];
		const struct val *v = val_get(r->fields, field->name);

		f[i] = val_void();
		if (v == NULL || !travels(field) || begins_anew(r->class_id, (int)i))
			continue;
		if (rpc_coerce(c->a, RPC_JSON2, field->type, field->name, v, &f[i], &err) != 0 ||
			field->schema > active || !model_value_known(field->type, &f[i], active)) {
			err_fini(&err);
			f[i] = val_void();
			if (!in_the_way(
				    c, arena_printf(c->a,
					       "%s.%s of what comes with it is no value that this "
					       "pool knows",
					       class->name, field->name)))
				return false;
			continue;
		}
		f[i] = moved(c, field->type, f[i]);
	}
	return true;
}

/* Rows. */

static bool refuse(struct carry *c, const struct came *r, const char *what)
{
	return in_the_way(
		c, arena_printf(c->a, "%s %.36s of its own %s", model_classes[r->class_id].name,
			   r->ref + strlen("OpaqueRef:"), what));
}

static bool fit(struct carry *c, const struct came *r, const struct val *f)
{
	int uuid = model_classes[r->class_id].uuid_field;
	const char *state = r->class_id == MODEL_CLASS_VM ? text(r, "power_state") : "";

	if (uuid >= 0 && (f[uuid].kind != VAL_STRING || !uuid_ok(f[uuid].s)))
		return refuse(c, r, "has no uuid");
	if (db_view_get(c->view, r->class_id, r->ref) != NULL ||
		(uuid >= 0 && db_view_by_uuid(c->view, r->class_id, f[uuid].s) != NULL))
		return refuse(c, r, "is in the pool already: one of the two has to go");
	if (strcmp(state, "Running") == 0 || strcmp(state, "Paused") == 0)
		return refuse(c, r, "runs");
	if (r->class_id == MODEL_CLASS_SR && is(r, "shared"))
		return refuse(c, r, "is shared");
	return true;
}

/* Its bridge gets another name where the pool has one of that name. */
static void rename_bridge(struct carry *c, struct val *f)
{
	const char *bridge = f[NETWORK_bridge].kind == VAL_STRING ? f[NETWORK_bridge].s : "";
	unsigned long n = 0;

	if (*bridge != 0 && network_of_bridge(c->view, bridge) == NULL)
		return;
	do
		bridge = arena_printf(c->a, "xapi%lu", n++);
	while (network_of_bridge(c->view, bridge) != NULL || bridge_comes(c, bridge));
	f[NETWORK_bridge] = val_string(bridge);
}

/* What an administrator has set of the host; where it is found says its entry of members.json. */
static void set_host(struct carry *c, const struct val *f)
{
	for (int i = 0; i < HOST_FIELD_COUNT; i++)
		if (f[i].kind != VAL_VOID && i != HOST_address && i != HOST_hostname &&
			model_classes[MODEL_CLASS_host].fields[i].qualifier == MODEL_RW)
			db_txn_set(c->txn, MODEL_CLASS_host, c->host, i, f[i]);
}

static bool make_row(struct carry *c, const struct came *r)
{
	struct val *f = arena_alloc(c->a, model_classes[r->class_id].n_fields * sizeof *f);

	if (!take_fields(c, r, f))
		return false;
	if (r->class_id == MODEL_CLASS_host) {
		set_host(c, f);
		return true;
	}
	if (!fit(c, r, f))
		return false;
	if (r->class_id == MODEL_CLASS_network)
		rename_bridge(c, f);
	db_txn_need_no_row(c->txn, r->class_id, r->ref);
	db_txn_create(c->txn, r->class_id, r->ref, f);
	return true;
}

const char *carry_take(const struct db_view *view, const struct val *came, const char *host,
	struct db_txn *txn, struct arena *a, struct val *all)
{
	struct carry c = { .view = view, .txn = txn, .a = a, .host = host, .all = all };
	const char *network = val_get_s(came, "network");
	bool networks = false;

	if (!read_rows(&c, val_get(came, "rows")))
		return c.why;
	match(&c);
	if (network != NULL && ref_ok(network)) { /* what is on it is on the pool's */
		c.rows[c.n] = (struct came){ .class_id = MODEL_CLASS_network,
			.ref = network,
			.to = network_management(view, NULL) };
		c.n++;
		qsort(c.rows, c.n, sizeof *c.rows, compare);
	}
	for (unsigned i = 0; i < c.n; i++) {
		const struct came *r = &c.rows[i];
		bool merged = r->class_id == MODEL_CLASS_network && r->to != r->ref;

		if (!merged && !make_row(&c, r))
			return c.why;
		networks = networks || (r->class_id == MODEL_CLASS_network && !merged);
	}
	if (networks)
		raise_serial(view, a, txn, NETWORKS_CREATED);
	if (txn->preconditions.len + txn->ops.len <= DB_ENTRY_MAX - ENTRY_ROOM)
		return NULL;
	return in_the_way(&c, CARRY_TOO_MUCH) ? NULL : c.why;
}
