/* May this host join that pool? The checks of the reference in their order, with their errors
 * (pool.md section 2), as a table.
 *
 * Both sides are records as the API shows them: the pool is somebody else's until it is joined, so
 * nothing here takes a field for granted.
 */
#include "pool/join_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THERE_ALL "true"

const struct join_class join_classes[] = {
	{ MODEL_CLASS_pool, THERE_ALL },
	{ MODEL_CLASS_host, THERE_ALL },
	{ MODEL_CLASS_PIF, "not field \"ip_configuration_mode\" = \"None\"" },
	{ MODEL_CLASS_network, THERE_ALL },
	{ MODEL_CLASS_SM, THERE_ALL },
	{ MODEL_CLASS_Certificate, "field \"type\" = \"ca\"" },
	{ MODEL_CLASS_Cluster, THERE_ALL },
	{ MODEL_CLASS_Cluster_host, THERE_ALL },
	{ MODEL_CLASS_SDN_controller, THERE_ALL },
	{ MODEL_CLASS_pool_update, THERE_ALL },
	{ MODEL_CLASS_task, NULL },
	{ MODEL_CLASS_VM, NULL },
	{ MODEL_CLASS_SR, NULL },
	{ MODEL_CLASS_VLAN, NULL },
	{ MODEL_CLASS_Bond, NULL },
	{ MODEL_CLASS_tunnel, NULL },
	{ MODEL_CLASS_network_sriov, NULL },
};
const unsigned join_n_classes = ARRAY_LEN(join_classes);

/* Records. */

#define EACH(pair, side, class_id)                                                                 \
	const struct val_pair *pair = (side)->of[class_id].pairs;                                  \
	pair != NULL &&pair < (side)->of[class_id].pairs + (side)->of[class_id].n;                 \
	pair++

static const char *text(const struct val *record, const char *name)
{
	const char *s = val_get_s(record, name);

	return s != NULL ? s : "";
}

static bool is(const struct val *record, const char *name)
{
	const struct val *v = val_get(record, name);

	return v != NULL && v->kind == VAL_BOOL && v->b;
}

/* Of sets and maps. */
static uint32_t count(const struct val *record, const char *name)
{
	const struct val *v = val_get(record, name);

	return v != NULL && (v->kind == VAL_SET || v->kind == VAL_MAP) ? v->n : 0;
}

static bool has(const struct val *record, const char *name, const char *item)
{
	const struct val *v = val_get(record, name);

	return v != NULL && v->kind == VAL_SET && val_set_has(v, item);
}

/* The interface that the host is managed by. */
static const struct val *management(const struct join_side *side)
{
	for (EACH(pif, side, MODEL_CLASS_PIF))
		if (is(&pif->value, "management") &&
			strcmp(text(&pif->value, "host"), side->host_ref) == 0)
			return &pif->value;
	return NULL;
}

/* The one record of a class that is compared. */
static const struct val *record_of(const struct join_side *side, int class_id)
{
	return class_id == MODEL_CLASS_host   ? side->host
	       : class_id == MODEL_CLASS_pool ? side->pool
					      : management(side);
}

bool join_side_take(struct join_side *side)
{
	for (unsigned i = 0; i < join_n_classes; i++)
		if (join_classes[i].filter != NULL &&
			side->of[join_classes[i].class_id].kind != VAL_MAP)
			return false;
	if (side->of[MODEL_CLASS_pool].n != 1)
		return false;
	side->pool = &side->of[MODEL_CLASS_pool].pairs[0].value;
	side->host_ref = val_get_s(side->pool, "master");
	side->host = side->host_ref != NULL ? val_get(&side->of[MODEL_CLASS_host], side->host_ref)
					    : NULL;
	return side->host != NULL;
}

/* Checks that are more than a row of the table. */

static int still_boots(const struct join *j, struct err *err)
{
	return management(&j->here) == NULL ? err_set(err, ERR_HOST_STILL_BOOTING, NULL) : 0;
}

static int clustered(const struct join *j, struct err *err)
{
	for (EACH(host, &j->here, MODEL_CLASS_Cluster_host))
		if (is(&host->value, "enabled"))
			return err_set(err, ERR_CLUSTERING_ENABLED, host->key, NULL);
	return 0;
}

/* The interface that a host of the pool is clustered by, where hosts that come are to be, too. */
static const struct val *clustered_by(const struct join_side *side)
{
	for (EACH(cluster, side, MODEL_CLASS_Cluster))
		for (EACH(host, side, MODEL_CLASS_Cluster_host))
			if (is(&cluster->value, "pool_auto_join") &&
				strcmp(text(&host->value, "cluster"), cluster->key) == 0 &&
				val_get(&side->of[MODEL_CLASS_PIF], text(&host->value, "PIF")) !=
					NULL)
				return val_get(
					&side->of[MODEL_CLASS_PIF], text(&host->value, "PIF"));
	return NULL;
}

static const char *bridge(const struct join_side *side, const struct val *pif)
{
	return text(val_get(&side->of[MODEL_CLASS_network], text(pif, "network")), "bridge");
}

static int cluster_network(const struct join *j, struct err *err)
{
	const struct val *by = clustered_by(&j->there);
	const struct val *vlan = val_get(by, "VLAN");
	unsigned n = 0;
	char tag[24];

	if (by == NULL)
		return 0;
	if (vlan != NULL && vlan->kind == VAL_INT && vlan->i > 0 && !is(by, "management")) {
		snprintf(tag, sizeof tag, "%lld", (long long)vlan->i);
		return err_set(err, ERR_POOL_JOINING_POOL_CANNOT_ENABLE_CLUSTERING_ON_VLAN_NETWORK,
			tag, NULL);
	}
	for (EACH(pif, &j->here, MODEL_CLASS_PIF))
		n += *text(&pif->value, "IP") != 0 &&
		     strcmp(bridge(&j->here, &pif->value), bridge(&j->there, by)) == 0;
	return n == 1 ? 0
		      : err_set(err,
				ERR_POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK,
				NULL);
}

static int itself(const struct join *j, struct err *err)
{
	const char *self = text(j->here.host, "uuid");

	if (strcmp(text(j->there.pool, "uuid"), text(j->here.pool, "uuid")) != 0)
		return 0;
	return err_set(err, ERR_OPERATION_NOT_ALLOWED,
		strcmp(text(j->there.host, "uuid"), self) == 0
			? "Host cannot become slave of itself"
			: "Host is already part of a pool",
		NULL);
}

static int others(const struct join *j, struct err *err)
{
	return j->here.of[MODEL_CLASS_host].n > 1
		       ? err_set(err, ERR_JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS, NULL)
		       : 0;
}

static int running_vms(const struct join *j, struct err *err)
{
	for (EACH(vm, &j->here, MODEL_CLASS_VM))
		if (!is(&vm->value, "is_control_domain") &&
			(strcmp(text(&vm->value, "power_state"), "Running") == 0 ||
				strcmp(text(&vm->value, "power_state"), "Paused") == 0))
			return err_set(err, ERR_JOINING_HOST_CANNOT_HAVE_RUNNING_VMS, NULL);
	return 0;
}

static int busy_vms(const struct join *j, struct err *err)
{
	for (EACH(vm, &j->here, MODEL_CLASS_VM))
		if (count(&vm->value, "current_operations") > 0)
			return err_set(err,
				ERR_JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS, NULL);
	return 0;
}

/* Ours: operations on other objects. A task that a client made for itself has no host. */
static int busy(const struct join *j, struct err *err)
{
	for (EACH(task, &j->here, MODEL_CLASS_task))
		if (strcmp(text(&task->value, "status"), "pending") == 0 &&
			strcmp(text(&task->value, "resident_on"), j->here.host_ref) == 0)
			return err_set(err, ERR_OTHER_OPERATION_IN_PROGRESS, "pool",
				j->here.of[MODEL_CLASS_pool].pairs[0].key,
				text(&task->value, "name_label"), task->key, NULL);
	return 0;
}

static int guidance(const struct join *j, struct err *err)
{
	if (count(j->here.host, "pending_guidances") > 0)
		return err_set(
			err, ERR_HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY, j->here.host_ref, NULL);
	if (count(j->there.host, "pending_guidances") > 0)
		return err_set(err, ERR_HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY,
			j->there.host_ref, NULL);
	return 0;
}

/* Unknown until its agent has been met. */
static int other_vendor(const struct join *j, struct err *err)
{
	const char *a = text(val_get(j->here.host, "cpu_info"), "vendor"),
		   *b = text(val_get(j->there.host, "cpu_info"), "vendor");

	return *a != 0 && *b != 0 && strcmp(a, b) != 0
		       ? err_set(err, ERR_HOSTS_NOT_HOMOGENEOUS, "CPUs differ", NULL)
		       : 0;
}

static int shared_srs(const struct join *j, struct err *err)
{
	for (EACH(sr, &j->here, MODEL_CLASS_SR))
		if (is(&sr->value, "shared") && !is(&sr->value, "is_tools_sr"))
			return err_set(err, ERR_JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS, NULL);
	return 0;
}

static int vlans(const struct join *j, struct err *err)
{
	const struct val *own = management(&j->here);

	for (EACH(vlan, &j->here, MODEL_CLASS_VLAN))
		if (strcmp(vlan->key, text(own, "VLAN_master_of")) != 0)
			return err_set(err, ERR_POOL_JOINING_HOST_HAS_NON_MANAGEMENT_VLANS, NULL);
	return 0;
}

static bool has_controller(const struct join_side *side, const struct val *want)
{
	for (EACH(c, side, MODEL_CLASS_SDN_controller))
		if (val_equal(val_get(&c->value, "protocol"), val_get(want, "protocol")) &&
			val_equal(val_get(&c->value, "address"), val_get(want, "address")) &&
			val_equal(val_get(&c->value, "port"), val_get(want, "port")))
			return true;
	return false;
}

/* Only switches of this kind have one. */
static int controllers(const struct join *j, struct err *err)
{
	bool same = j->here.of[MODEL_CLASS_SDN_controller].n ==
		    j->there.of[MODEL_CLASS_SDN_controller].n;

	if (strcmp(text(val_get(j->there.host, "software_version"), "network_backend"),
		    "openvswitch") != 0)
		return 0;
	for (EACH(c, &j->here, MODEL_CLASS_SDN_controller))
		same = same && has_controller(&j->there, &c->value);
	return same ? 0 : err_set(err, ERR_OPERATION_NOT_ALLOWED, "SDN controller differs", NULL);
}

static int64_t number(const struct val *record, const char *name)
{
	const struct val *v = val_get(record, name);

	return v != NULL && v->kind == VAL_INT ? v->i : -1;
}

static const char *api_version(const struct join *j, const struct join_side *side)
{
	return arena_printf(&j->job->arena, "%lld.%lld",
		(long long)number(side->host, "API_version_major"),
		(long long)number(side->host, "API_version_minor"));
}

static int other_api(const struct join *j, struct err *err)
{
	const char *a = api_version(j, &j->here), *b = api_version(j, &j->there);

	return strcmp(a, b) != 0
		       ? err_set(err, ERR_POOL_JOINING_HOST_MUST_HAVE_SAME_API_VERSION, a, b, NULL)
		       : 0;
}

/* This xpoold takes up what the pool runs, which may be older than its newest; a pool that does not
 * say it yet has been founded a moment ago. */
static int other_schema(const struct join *j, struct err *err)
{
	const char *active = text(val_get(j->there.host, "software_version"), "db_schema");
	char newest[16];

	if (*active == 0 ||
		(strlen(active) < 10 && strspn(active, "0123456789") == strlen(active) &&
			atoi(active) >= MODEL_SCHEMA_BASE && atoi(active) <= MODEL_SCHEMA_VERSION))
		return 0;
	snprintf(newest, sizeof newest, "%d", MODEL_SCHEMA_VERSION);
	return err_set(err, ERR_POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA, newest, active, NULL);
}

/* Has the host that update? */
static bool is_applied(const struct join_side *side, const char *uuid)
{
	for (EACH(update, side, MODEL_CLASS_pool_update))
		if (strcmp(text(&update->value, "uuid"), uuid) == 0)
			return has(&update->value, "hosts", side->host_ref);
	return false;
}

static const char *only_on_one(const struct join_side *a, const struct join_side *b)
{
	for (EACH(update, a, MODEL_CLASS_pool_update))
		if (is(&update->value, "enforce_homogeneity") &&
			has(&update->value, "hosts", a->host_ref) &&
			!is_applied(b, text(&update->value, "uuid")))
			return text(&update->value, "name_label");
	return NULL;
}

static int other_updates(const struct join *j, struct err *err)
{
	const char *here = only_on_one(&j->here, &j->there),
		   *there = only_on_one(&j->there, &j->here);

	if (here == NULL && there == NULL)
		return 0;
	return err_set(err, ERR_HOSTS_NOT_HOMOGENEOUS,
		arena_printf(&j->job->arena, "Only %s has the update %.100s",
			here != NULL ? "this host" : "the pool", here != NULL ? here : there),
		NULL);
}

static bool purpose(const struct join_side *side, const char *name)
{
	for (EACH(network, side, MODEL_CLASS_network))
		if (has(&network->value, "purpose", name))
			return true;
	return false;
}

static int purposes(const struct join *j, struct err *err)
{
	bool safe = purpose(&j->here, "nbd") || purpose(&j->there, "nbd");
	bool bare = purpose(&j->here, "insecure_nbd") || purpose(&j->there, "insecure_nbd");

	return safe && bare ? err_set(err, ERR_OPERATION_NOT_ALLOWED,
				      "Incompatible network purposes: nbd and insecure_nbd", NULL)
			    : 0;
}

static bool same_name(const struct val *a, const struct val *b)
{
	return *text(a, "name") != 0 && strcmp(text(a, "name"), text(b, "name")) == 0;
}

/* All of them, by name. */
static int authorities(const struct join *j, struct err *err)
{
	const char *names[ERR_PARAMS_MAX];
	unsigned n = 0;

	for (EACH(a, &j->here, MODEL_CLASS_Certificate))
		for (EACH(b, &j->there, MODEL_CLASS_Certificate))
			if (n < ARRAY_LEN(names) && strcmp(text(&a->value, "type"), "ca") == 0 &&
				same_name(&a->value, &b->value) &&
				strcmp(text(&a->value, "fingerprint"),
					text(&b->value, "fingerprint")) != 0)
				names[n++] = text(&a->value, "name");
	return n > 0 ? err_set_list(err, ERR_POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT, names, n)
		     : 0;
}

/* Some of the purposes are the same, and not all. */
static bool overlap(const struct val *a, const struct val *b)
{
	const struct val *p = val_get(a, "purpose");
	uint32_t same = 0;

	for (uint32_t i = 0; i < count(a, "purpose") && p->kind == VAL_SET; i++)
		same += p->items[i].kind == VAL_STRING && has(b, "purpose", p->items[i].s);
	return same > 0 && (same < count(a, "purpose") || same < count(b, "purpose"));
}

static int trusted(const struct join *j, struct err *err)
{
	for (EACH(a, &j->here, MODEL_CLASS_Certificate))
		for (EACH(b, &j->there, MODEL_CLASS_Certificate))
			if (strcmp(text(&a->value, "type"), "ca") == 0 &&
				overlap(&a->value, &b->value))
				return err_set(err,
					ERR_POOL_JOINING_HOST_TRUSTED_CERTIFICATES_CONFLICT, b->key,
					a->key, NULL);
	return 0;
}

static bool is_updated(const struct val *record)
{
	const struct val *ops = val_get(record, "current_operations");

	for (uint32_t i = 0; ops != NULL && ops->kind == VAL_MAP && i < ops->n; i++)
		if (ops->pairs[i].value.kind == VAL_STRING &&
			strcmp(ops->pairs[i].value.s, "apply_updates") == 0)
			return true;
	return false;
}

static int updates(const struct join *j, struct err *err)
{
	return is_updated(j->here.pool) || is_updated(j->there.pool) || is_updated(j->here.host) ||
			       is_updated(j->there.host)
		       ? err_set(err, ERR_NOT_SUPPORTED_DURING_UPGRADE, NULL)
		       : 0;
}

static const struct val_pair *driver(const struct join_side *side, const char *type)
{
	for (EACH(sm, side, MODEL_CLASS_SM))
		if (strcmp(text(&sm->value, "type"), type) == 0)
			return sm;
	return NULL;
}

static int drivers(const struct join *j, struct err *err)
{
	for (EACH(sm, &j->there, MODEL_CLASS_SM)) {
		const struct val_pair *own = driver(&j->here, text(&sm->value, "type"));
		const struct val *need = val_get(&sm->value, "features");
		bool all = own != NULL;

		for (uint32_t i = 0; all && need != NULL && need->kind == VAL_MAP && i < need->n;
			i++)
			all = val_get(val_get(&own->value, "features"), need->pairs[i].key) != NULL;
		if (!all)
			return err_set(err, ERR_POOL_JOINING_SM_FEATURES_INCOMPATIBLE, sm->key,
				own != NULL ? own->key : "", NULL);
	}
	return 0;
}

/* The table. */

enum kind {
	OWN,	   /* function */
	OFF_HERE,  /* a field is not true here */
	OFF_THERE, /* nor there */
	NONE,	   /* there is no such record here */
	SAME,	   /* a field, or a key of it, is the same on both sides; error: [text] */
	SAME_BOTH, /* error: [here, there] */
};

#define FUNCTION(f)	   .kind = OWN, .function = f
#define FIELD(cls, name)   .class_id = MODEL_CLASS_##cls, .field = name
#define VERSION(name)	   .class_id = MODEL_CLASS_host, .field = "software_version", .key = name
#define REFUSED_WITH(what) .code = ERR_OPERATION_NOT_ALLOWED, .text = what
#define STRICT(what)	   .code = ERR_HOSTS_NOT_HOMOGENEOUS, .text = what, .strict = true

static const struct check {
	enum kind kind;
	int (*function)(const struct join *j, struct err *err);
	int class_id;
	const char *field, *key;
	const struct err_code *code;
	const char *text; /* NULL: the error has no parameters */
	bool strict;	  /* join_force does without */
} checks[] = {
	{ FUNCTION(still_boots) },
	{ OFF_HERE, FIELD(pool, "ha_enabled"), .code = ERR_HA_IS_ENABLED },
	{ FUNCTION(clustered) },
	{ FUNCTION(cluster_network) },
	{ OFF_THERE, FIELD(pool, "ha_enabled"), .code = ERR_HA_IS_ENABLED },
	{ FUNCTION(itself) },
	{ FUNCTION(others) },
	{ FUNCTION(running_vms) },
	{ FUNCTION(busy_vms) },
	{ FUNCTION(busy) },
	{ FUNCTION(guidance) },
	{ SAME, VERSION("platform_name"), .code = ERR_HOSTS_NOT_COMPATIBLE },
	{ SAME, VERSION("platform_version"), .code = ERR_HOSTS_NOT_COMPATIBLE },
	{ SAME, VERSION("product_brand"), .code = ERR_HOSTS_NOT_COMPATIBLE },
	{ SAME, VERSION("build_number"), STRICT("Software version differs") },
	{ SAME, VERSION("xpool"), STRICT("Software version differs") },
	{ FUNCTION(other_vendor), .strict = true },
	{ FUNCTION(shared_srs) },
	{ NONE, FIELD(Bond, NULL), .code = ERR_POOL_JOINING_HOST_HAS_BONDS },
	{ NONE, FIELD(tunnel, NULL), .code = ERR_POOL_JOINING_HOST_HAS_TUNNELS },
	{ NONE, FIELD(network_sriov, NULL), .code = ERR_POOL_JOINING_HOST_HAS_NETWORK_SRIOVS },
	{ FUNCTION(vlans) },
	{ SAME_BOTH, FIELD(PIF, "VLAN"),
		.code = ERR_POOL_JOINING_HOST_MANAGEMENT_VLAN_DOES_NOT_MATCH },
	{ SAME, FIELD(host, "external_auth_type"),
		.code = ERR_POOL_JOINING_EXTERNAL_AUTH_MISMATCH },
	{ SAME, FIELD(host, "external_auth_service_name"),
		.code = ERR_POOL_JOINING_EXTERNAL_AUTH_MISMATCH },
	{ SAME, FIELD(host, "edition"), .code = ERR_LICENSE_HOST_POOL_MISMATCH },
	{ SAME, VERSION("network_backend"), REFUSED_WITH("Network backends differ") },
	{ FUNCTION(controllers) },
	{ FUNCTION(other_api) },
	{ FUNCTION(other_schema) },
	{ FUNCTION(other_updates) },
	{ SAME, FIELD(PIF, "primary_address_type"), REFUSED_WITH("Primary address type differs") },
	{ FUNCTION(purposes) },
	{ SAME, FIELD(pool, "tls_verification_enabled"),
		.code = ERR_POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH },
	{ FUNCTION(authorities) },
	{ FUNCTION(trusted) },
	{ FUNCTION(updates) },
	{ FUNCTION(drivers) },
};

/* As text, for an error; what is not there is "". */
static const char *value(struct arena *a, const struct join_side *side, const struct check *c)
{
	const struct val *v = val_get(record_of(side, c->class_id), c->field);
	struct buf out = { 0 };
	const char *s;

	if (c->key != NULL)
		v = val_get(v, c->key);
	if (v != NULL)
		val_text(&out, v);
	s = arena_strdup(a, buf_text(&out));
	buf_fini(&out);
	return s;
}

static bool holds(const struct join *j, const struct check *c)
{
	switch (c->kind) {
	case OFF_HERE: return !is(record_of(&j->here, c->class_id), c->field);
	case OFF_THERE: return !is(record_of(&j->there, c->class_id), c->field);
	case NONE: return j->here.of[c->class_id].n == 0;
	default:
		return strcmp(value(&j->job->arena, &j->here, c),
			       value(&j->job->arena, &j->there, c)) == 0;
	}
}

static int check_one(const struct join *j, const struct check *c, struct err *err)
{
	struct arena *a = &j->job->arena;

	if (c->strict && j->want->force)
		return 0;
	if (c->kind == OWN)
		return c->function(j, err);
	if (holds(j, c))
		return 0;
	return c->kind == SAME_BOTH
		       ? err_set(err, c->code, value(a, &j->here, c), value(a, &j->there, c), NULL)
		       : err_set(err, c->code, c->text, NULL);
}

/* Not in the way, but worth knowing before (6.4). */
static bool lowers_level(const struct join *j)
{
	const char *own = text(val_get(j->here.host, "cpu_info"), "features_hvm");

	return *own != 0 &&
	       !cpu_features_within(own, text(val_get(j->there.pool, "cpu_info"), "features_hvm"));
}

static void add(struct arena *a, struct val *all, const struct err *err)
{
	struct val one = val_set();

	val_set_push(a, &one, val_string(err->code->name));
	for (unsigned i = 0; i < err->n; i++)
		val_set_push(a, &one, val_string(arena_strdup(a, err->params[i])));
	val_set_push(a, all, one);
}

int join_check(struct join *j, struct val *all, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_LEN(checks); i++) {
		int rc = check_one(j, &checks[i], err);

		if (rc != 0 && all == NULL)
			return rc;
		if (rc != 0)
			add(&j->job->arena, all, err);
		err_fini(err);
	}
	return 0;
}

void join_notes(struct join *j, struct val *all)
{
	struct val note = val_set();

	if (!lowers_level(j))
		return;
	val_set_push(&j->job->arena, &note, val_string(JOIN_NOTE));
	val_set_push(&j->job->arena, &note,
		val_string("this host has fewer features of processors than the pool, whose level "
			   "would go down"));
	val_set_push(&j->job->arena, all, note);
}
