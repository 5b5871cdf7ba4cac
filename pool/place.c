/* Who runs an operation: the routes of the model, and where a VM may and should run (pool.md 5.1,
 * 6). The choice is made on the coordinator's view; what it rests on becomes preconditions on the
 * chosen host alone, so a start elsewhere disturbs nobody.
 *
 *   candidates -> can it run there? -> members of its anti-affinity groups there, fewest first
 *     -> affinity host, then by how much memory is left (the coordinator's counts half, unless the
 *     pool does not want that), by lot with a bias to the best
 */
#include "pool/operation_priv.h"

#include <stdlib.h>
#include <string.h>

enum { CANDIDATES_MAX = 256 };

static bool host_live(const struct db_view *view, const struct db_row *host)
{
	const struct db_row *metrics =
		db_view_get(view, MODEL_CLASS_host_metrics, db_row_s(host, HOST_metrics));

	return metrics != NULL && db_row_b(metrics, HOST_METRICS_live);
}

/* In contact now. */
static bool in_contact(const struct admit *ad, const struct db_row *host)
{
	uint64_t raft_id = pool_raft_id_of(ad->view, db_row_ref(host));

	return raft_id != 0 && db_silence_ms(ad->pool->db, raft_id) < POOL_PLACED_LOST_MS;
}

bool place_sees_sr(const struct db_view *view, const struct db_row *host, const struct db_row *sr)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_PBD_SR, db_row_ref(sr));
	const struct db_row *pbd;

	while ((pbd = db_next(&c)) != NULL)
		if (strcmp(db_row_s(pbd, PBD_host), db_row_ref(host)) == 0 &&
			db_row_b(pbd, PBD_currently_attached))
			return true;
	return false;
}

/* An SR of the VM's disks that the host does not see; NULL: it sees all. */
static const struct db_row *unseen_sr(
	const struct db_view *view, const struct db_row *vm, const struct db_row *host)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_VBD_VM, db_row_ref(vm));
	const struct db_row *vbd, *vdi, *sr;

	while ((vbd = db_next(&c)) != NULL) {
		vdi = db_view_get(view, MODEL_CLASS_VDI, db_row_s(vbd, VBD_VDI));
		sr = vdi != NULL ? db_view_get(view, MODEL_CLASS_SR, db_row_s(vdi, VDI_SR)) : NULL;
		if (sr != NULL && !place_sees_sr(view, host, sr))
			return sr;
	}
	vdi = db_view_get(view, MODEL_CLASS_VDI, db_row_s(vm, VM_suspend_VDI));
	sr = vdi != NULL ? db_view_get(view, MODEL_CLASS_SR, db_row_s(vdi, VDI_SR)) : NULL;
	return sr != NULL && !place_sees_sr(view, host, sr) ? sr : NULL;
}

bool place_network(
	const struct db_view *view, const struct db_row *network, const struct db_row *host)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_PIF_network, db_row_ref(network));
	const struct db_row *pif;
	bool any = false;

	while ((pif = db_next(&c)) != NULL) {
		any = true;
		if (strcmp(db_row_s(pif, PIF_host), db_row_ref(host)) == 0)
			return true;
	}
	return !any;
}

static const struct db_row *unseen_network(
	const struct db_view *view, const struct db_row *vm, const struct db_row *host)
{
	struct db_cursor c = db_rows_related(view, MODEL_RELATION_VIF_VM, db_row_ref(vm));
	const struct db_row *vif, *network;

	while ((vif = db_next(&c)) != NULL) {
		network = db_view_get(view, MODEL_CLASS_network, db_row_s(vif, VIF_network));
		if (network != NULL && !place_network(view, network, host))
			return network;
	}
	return NULL;
}

static int pcpus_check(
	const struct admit *ad, const struct db_row *vm, const struct db_row *host, struct err *err)
{
	struct val info = db_row_field(host, HOST_cpu_info, ad->arena);
	const char *count = val_get_s(&info, "cpu_count");
	int64_t vcpus = db_row_i(vm, VM_VCPUs_at_startup);

	if (count == NULL || vcpus <= atoll(count))
		return 0;
	return err_set(err, ERR_HOST_NOT_ENOUGH_PCPUS,
		arena_printf(ad->arena, "%lld", (long long)vcpus), count, NULL);
}

/* A suspended VM goes on with the processor it has seen: same vendor, no feature less. */
static int cpu_check(
	const struct admit *ad, const struct db_row *vm, const struct db_row *host, struct err *err)
{
	struct val info = db_row_field(host, HOST_cpu_info, ad->arena),
		   flags = db_row_field(vm, VM_last_boot_CPU_flags, ad->arena);
	const char *vendor = val_get_s(&flags, "vendor"), *need = val_get_s(&flags, "features"),
		   *host_vendor = val_get_s(&info, "vendor"), *have = val_get_s(&info, "features"),
		   *why = NULL;

	if (strcmp(db_row_s(vm, VM_power_state), "Halted") == 0)
		return 0;
	if (vendor != NULL && host_vendor != NULL && strcmp(vendor, host_vendor) != 0)
		why = "VM last booted on a host which had a CPU from a different vendor.";
	else if (need != NULL && have != NULL && !cpu_features_within(have, need))
		why = "VM last booted on a CPU with features this host's CPU does not have.";
	return why == NULL ? 0
			   : err_set(err, ERR_VM_INCOMPATIBLE_WITH_THIS_HOST, db_row_ref(vm),
				     db_row_ref(host), why, NULL);
}

/* A host that says nothing of its kinds of guests runs all that its agent knows. */
static int hvm_check(
	const struct admit *ad, const struct db_row *vm, const struct db_row *host, struct err *err)
{
	struct val kinds = db_row_field(host, HOST_capabilities, ad->arena);
	bool able = kinds.n == 0 || !rule_hvm(vm);

	for (uint32_t i = 0; i < kinds.n; i++)
		able |= strncmp(kinds.items[i].s, "hvm", 3) == 0;
	return able ? 0 : err_set(err, ERR_VM_HVM_REQUIRED, db_row_ref(vm), NULL);
}

/* Virtual hardware of a version that the host offers. */
static int platform_check(
	const struct admit *ad, const struct db_row *vm, const struct db_row *host, struct err *err)
{
	struct val offered = db_row_field(host, HOST_virtual_hardware_platform_versions, ad->arena);
	int64_t version = db_row_i(vm, VM_hardware_platform_version);
	const char *list = "";

	for (uint32_t i = 0; i < offered.n; i++) {
		if (offered.items[i].i == version)
			return 0;
		list = arena_printf(ad->arena, "%s%s%lld", list, i > 0 ? "; " : "",
			(long long)offered.items[i].i);
	}
	return err_set(err, ERR_VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION,
		db_row_ref(host), arena_printf(ad->arena, "[%s]", list), db_row_ref(vm),
		arena_printf(ad->arena, "%lld", (long long)version), NULL);
}

static int memory_check(
	const struct admit *ad, const struct db_row *vm, const struct db_row *host, struct err *err)
{
	int64_t least = memory_need(vm).least, left = memory_free(ad->view, host);

	if (least <= left)
		return 0;
	return err_set(err, ERR_HOST_NOT_ENOUGH_FREE_MEMORY,
		arena_printf(ad->arena, "%lld", (long long)least),
		arena_printf(ad->arena, "%lld", (long long)(left < 0 ? 0 : left)), NULL);
}

static int check(const struct admit *ad, const struct db_row *vm, const struct db_row *host,
	bool memory, struct err *err)
{
	const char *ref = db_row_ref(host);
	const struct db_row *unseen;

	if (!host_live(ad->view, host))
		return err_set(err, ERR_HOST_NOT_LIVE, NULL);
	if (!db_row_b(host, HOST_enabled))
		return err_set(err, ERR_HOST_DISABLED, ref, NULL);
	if (platform_check(ad, vm, host, err) != 0 || cpu_check(ad, vm, host, err) != 0)
		return ERR_API;
	unseen = unseen_sr(ad->view, vm, host);
	if (unseen != NULL)
		return err_set(err, ERR_VM_REQUIRES_SR, db_row_ref(vm), db_row_ref(unseen), NULL);
	unseen = unseen_network(ad->view, vm, host);
	if (unseen != NULL)
		return err_set(
			err, ERR_VM_REQUIRES_NETWORK, db_row_ref(vm), db_row_ref(unseen), NULL);
	if (hvm_check(ad, vm, host, err) != 0 || (memory && memory_check(ad, vm, host, err) != 0))
		return ERR_API;
	return pcpus_check(ad, vm, host, err);
}

int place_check(
	const struct admit *ad, const struct db_row *vm, const struct db_row *host, struct err *err)
{
	return check(ad, vm, host, false, err);
}

int place_can_boot(
	const struct admit *ad, const struct db_row *vm, const struct db_row *host, struct err *err)
{
	return check(ad, vm, host, true, err);
}

/* The best host. */

struct candidate {
	const struct db_row *host;
	int64_t left;	/* bytes; the coordinator's half, where the pool wants it spared */
	unsigned rank;	/* of what is left: definite, probable, possible, not enough */
	unsigned group; /* members of its anti-affinity groups there */
};

static bool at(const struct db_row *vm, const char *host)
{
	return strcmp(db_row_s(vm, VM_resident_on), host) == 0 ||
	       strcmp(db_row_s(vm, VM_scheduled_to_be_resident_on), host) == 0;
}

unsigned place_group_members(const struct admit *ad, const struct db_row *vm, const char *host)
{
	struct val groups = db_row_field(vm, VM_groups, ad->arena);
	unsigned n = 0;

	for (uint32_t i = 0; i < groups.n; i++) {
		const struct db_row *group =
			db_view_get(ad->view, MODEL_CLASS_VM_group, groups.items[i].s);
		const struct db_row *other;
		struct db_cursor c;

		if (group == NULL ||
			strcmp(db_row_s(group, VM_GROUP_placement), "anti_affinity") != 0)
			continue;
		c = db_rows_related(ad->view, MODEL_RELATION_VM_groups, db_row_ref(group));
		while ((other = db_next(&c)) != NULL)
			n += other != vm && at(other, host) &&
			     strcmp(db_row_s(other, VM_power_state), "Paused") != 0;
	}
	return n;
}

static int better(const void *pa, const void *pb)
{
	const struct candidate *a = pa, *b = pb;

	if (a->group != b->group)
		return a->group < b->group ? -1 : 1;
	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	if (a->left != b->left)
		return a->left > b->left ? -1 : 1;
	return strcmp(db_row_ref(a->host), db_row_ref(b->host));
}

/* By lot among those as good as the first, the better the likelier. */
static const struct db_row *draw(const struct admit *ad, const struct candidate *c, unsigned n)
{
	uint16_t random;
	double lot;
	unsigned k = 1;

	while (k < n && c[k].group == c[0].group && c[k].rank == c[0].rank)
		k++;
	env_random(ad->pool->env, &random, sizeof random);
	lot = (double)random / (UINT16_MAX + 1);
	return c[(unsigned)(lot * lot * k)].host;
}

static unsigned rank_of(const struct memory_need *need, int64_t left)
{
	return left >= need->all ? 0 : left >= need->most ? 1 : left >= need->least ? 2 : 3;
}

/* pool.coordinator_bias: others first, where memory is plenty (ranks definite and probable). */
static bool coordinator_spared(const struct admit *ad)
{
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_pool);
	const struct db_row *pool = db_next(&c);

	return pool != NULL && db_row_b(pool, POOL_coordinator_bias);
}

bool place_emptied(const struct admit *ad, const struct db_row *host)
{
	struct val current = db_row_field(host, HOST_current_operations, ad->arena);

	for (uint32_t i = 0; i < current.n; i++)
		if (strcmp(current.pairs[i].value.s, "evacuate") == 0)
			return true;
	return false;
}

static int choose(struct admit *ad, const struct db_row *vm, struct err *err)
{
	struct candidate all[CANDIDATES_MAX];
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_host);
	struct memory_need need = memory_need(vm);
	const char *affinity = db_row_s(vm, VM_affinity);
	const struct db_row *host, *wanted = NULL, *self = pool_self(ad->pool, ad->view);
	bool spared = coordinator_spared(ad);
	struct err why = { 0 };
	unsigned n = 0, rank;

	while ((host = db_next(&c)) != NULL && n < CANDIDATES_MAX) {
		int64_t left = memory_free(ad->view, host);

		err_fini(&why);
		if (!in_contact(ad, host) || place_emptied(ad, host) ||
			place_check(ad, vm, host, &why) != 0)
			continue;
		if (strcmp(db_row_ref(host), affinity) == 0 && left >= need.least)
			wanted = host;
		rank = rank_of(&need, left);
		if (spared && host == self && rank < 2)
			left = (left - 1) / 2;
		all[n++] = (struct candidate){ host, left, rank,
			place_group_members(ad, vm, db_row_ref(host)) };
	}
	err_fini(&why);
	if (n == 0)
		return err_set(err, ERR_NO_HOSTS_AVAILABLE, NULL);
	qsort(all, n, sizeof *all, better);
	ad->owner = wanted != NULL ? wanted : draw(ad, all, n);
	return 0;
}

/* The routes. */

static int named(struct admit *ad, const char *ref, struct err *err)
{
	ad->owner = db_view_get(ad->view, MODEL_CLASS_host, ref);
	if (ad->owner != NULL && host_live(ad->view, ad->owner))
		return 0;
	ad->owner = NULL;
	return err_set(err, ERR_HOST_OFFLINE, ref, NULL);
}

static int by_coordinator(struct admit *ad, struct err *err)
{
	ad->owner = pool_self(ad->pool, ad->view);
	return ad->owner != NULL ? 0 : err_set(err, ERR_NO_HOSTS_AVAILABLE, NULL);
}

/* A host for which `sees` holds; the coordinator's first. */
static bool one_that_sees(struct admit *ad, const struct db_row *what,
	bool (*sees)(const struct admit *ad, const struct db_row *host, const struct db_row *what))
{
	const struct db_row *self = pool_self(ad->pool, ad->view), *host;
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_host);

	if (self != NULL && sees(ad, self, what)) {
		ad->owner = self;
		return true;
	}
	while ((host = db_next(&c)) != NULL)
		if (in_contact(ad, host) && sees(ad, host, what)) {
			ad->owner = host;
			return true;
		}
	return false;
}

static bool sees_sr(const struct admit *ad, const struct db_row *host, const struct db_row *sr)
{
	return place_sees_sr(ad->view, host, sr);
}

static bool sees_disks(const struct admit *ad, const struct db_row *host, const struct db_row *vm)
{
	return unseen_sr(ad->view, vm, host) == NULL;
}

static bool sees_also(struct admit *ad, const struct db_row *host)
{
	for (unsigned i = 0; i < ad->n_also; i++)
		if (!place_sees_sr(ad->view, host, ad->also[i]))
			return false;
	return true;
}

int place_also_sr(
	struct admit *ad, const struct db_row *from, const struct db_row *sr, struct err *err)
{
	struct db_cursor c = db_rows(ad->view, MODEL_CLASS_host);
	bool vm = db_row_class(from) == MODEL_CLASS_VM;
	const struct db_row *host;

	for (unsigned i = 0; i < ad->n_also; i++)
		if (ad->also[i] == sr)
			return 0;
	if (ad->n_also == POOL_ALSO_MAX)
		return err_set(err, ERR_INTERNAL_ERROR, "too many SRs at once", NULL);
	ad->also[ad->n_also++] = sr;
	if (place_sees_sr(ad->view, ad->owner, sr))
		return 0;
	while ((host = db_next(&c)) != NULL)
		if (in_contact(ad, host) &&
			(vm ? sees_disks(ad, host, from) : place_sees_sr(ad->view, host, from)) &&
			sees_also(ad, host)) {
			ad->owner = host;
			return 0;
		}
	return err_set(err, ERR_NO_HOSTS_AVAILABLE, NULL);
}

static int by_vm(struct admit *ad, const struct db_row *vm, bool storage, struct err *err)
{
	const char *resident = db_row_s(vm, VM_resident_on);

	if (strcmp(resident, NULL_REF) != 0)
		return named(ad, resident, err);
	if (!storage)
		return by_coordinator(ad, err);
	return one_that_sees(ad, vm, sees_disks) ? 0 : err_set(err, ERR_NO_HOSTS_AVAILABLE, NULL);
}

int place_owner(struct admit *ad, struct err *err)
{
	const struct db_row *rows[POOL_TARGETS_MAX], *at_end;
	unsigned n;

	if (ad->method->route == MODEL_COORDINATOR || ad->method->route == MODEL_COMPOUND)
		return by_coordinator(ad, err);
	if (path_rows(ad, &ad->method->route_path, rows, &n, err) != 0)
		return ERR_API;
	at_end = n > 0 ? rows[0] : NULL;
	if (at_end == NULL) /* a reference to what is gone, or to nothing */
		return by_coordinator(ad, err);
	switch (ad->method->route) {
	case MODEL_PLACED: return choose(ad, at_end, err);
	case MODEL_RESIDENT: return by_vm(ad, at_end, false, err);
	case MODEL_STORAGE: return by_vm(ad, at_end, true, err);
	case MODEL_HOST: return named(ad, db_row_ref(at_end), err);
	case MODEL_SR:
		return one_that_sees(ad, at_end, sees_sr)
			       ? 0
			       : err_set(err, ERR_SR_HAS_NO_PBDS, db_row_ref(at_end), NULL);
	default: UNREACHABLE();
	}
}
