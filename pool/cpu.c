/* Processors: what a host says of its own, and the level of the pool, which is what all hosts have:
 * the features of each ANDed word by word, the counts summed. Placement of a VM that has seen a
 * processor already asks for what it has seen. pool.md 6.4.
 */
#include "pool/pool_priv.h"

#include <stdlib.h>
#include <string.h>

enum { FEATURES_MAX = 256 };

static void put(struct arena *a, struct val *map, const char *key, const char *text)
{
	val_map_push(a, map, key, val_string(arena_strdup(a, text != NULL ? text : "")));
}

static void put_number(struct arena *a, struct val *map, const char *key, int64_t n)
{
	val_map_push(a, map, key, val_string(arena_printf(a, "%lld", (long long)n)));
}

static int64_t number(const struct val *map, const char *key)
{
	const struct val *v = val_get(map, key);

	return v != NULL && v->kind == VAL_INT ? v->i : 0;
}

/* host.cpu_info of what the agent says; one set of features serves guests of both kinds. */
struct val cpu_info(struct arena *a, const struct val *cpu)
{
	static const char *const kinds[] = { "features", "features_pv", "features_pv_host",
		"features_hvm", "features_hvm_host" };
	struct val info = val_map();

	put_number(a, &info, "cpu_count", number(cpu, "cpus"));
	put_number(a, &info, "socket_count", number(cpu, "sockets"));
	put(a, &info, "vendor", val_get_s(cpu, "vendor"));
	put(a, &info, "modelname", val_get_s(cpu, "model"));
	put_number(a, &info, "speed", number(cpu, "mhz"));
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		put(a, &info, kinds[i], val_get_s(cpu, "features"));
	return info;
}

static unsigned digit(char c)
{
	char text[2] = { c, 0 };

	return (unsigned)strtoul(text, NULL, 16);
}

bool cpu_features_within(const char *have, const char *need)
{
	size_t n = strlen(have);

	for (size_t i = 0; need[i] != 0; i++)
		if (need[i] != '-' && (digit(need[i]) & ~digit(i < n ? have[i] : '0')) != 0)
			return false;
	return true;
}

/* What both have; the longer one's words without counterpart are none. */
static void both(char level[FEATURES_MAX], const char *features)
{
	size_t n = strlen(features);

	for (size_t i = strlen(level); i < n; i++) {
		level[i] = features[i] == '-' ? '-' : '0';
		level[i + 1] = 0;
	}
	for (size_t i = 0; level[i] != 0; i++)
		if (level[i] != '-')
			level[i] = "0123456789abcdef"[digit(level[i]) &
						      digit(i < n ? features[i] : '0')];
}

/* false: a host has not said yet what it has. */
static bool pool_level(const struct db_view *view, struct arena *a, struct val *out)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_host);
	char level[FEATURES_MAX] = "";
	int64_t cpus = 0, sockets = 0;
	const char *vendor = NULL;
	const struct db_row *host;

	while ((host = db_next(&c)) != NULL) {
		struct val info = db_row_field(host, HOST_cpu_info, a);
		const char *features = val_get_s(&info, "features");

		if (features == NULL || strlen(features) >= FEATURES_MAX)
			return false;
		if (vendor == NULL)
			strcpy(level, features);
		vendor = vendor != NULL ? vendor : val_get_s(&info, "vendor");
		both(level, features);
		cpus += atoll(val_get_s(&info, "cpu_count"));
		sockets += atoll(val_get_s(&info, "socket_count"));
	}
	if (vendor == NULL)
		return false;
	*out = val_map();
	put_number(a, out, "cpu_count", cpus);
	put_number(a, out, "socket_count", sockets);
	put(a, out, "vendor", vendor);
	put(a, out, "features_pv", level);
	put(a, out, "features_hvm", level);
	return true;
}

/* VMs that start from now on see other processors than those that run: somebody has to know. */
static void tell(struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a,
	const char *before, const char *now)
{
	const char *body = arena_printf(a,
		"The hosts of the pool have other processor features in common than before: %s, "
		"before %s. A VM gets them at its next start; one that runs goes only to hosts "
		"that have what it has seen.",
		now, before);

	if (!cpu_features_within(now, before))
		message_again(pool, view, txn, "POOL_CPU_FEATURES_DOWN", 5, body);
	if (!cpu_features_within(before, now))
		message_again(pool, view, txn, "POOL_CPU_FEATURES_UP", 5, body);
}

bool cpu_level_decide(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *row = db_next(&c);
	const char *before;
	struct val level, now;

	if (row == NULL || !pool_level(view, a, &level))
		return false;
	now = db_row_field(row, POOL_cpu_info, a);
	if (val_equal(&now, &level))
		return false;
	db_txn_set(txn, MODEL_CLASS_pool, db_row_ref(row), POOL_cpu_info, level);
	before = val_get_s(&now, "features_hvm");
	if (before != NULL) /* else it is the first that is known */
		tell(pool, view, txn, a, before, val_get_s(&level, "features_hvm"));
	return true;
}

void cpu_seen(const struct db_view *view, struct db_txn *txn, struct arena *a, const char *vm)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *pool = db_next(&c);
	struct val level = db_row_field(pool, POOL_cpu_info, a), seen = val_map();

	if (val_get_s(&level, "vendor") == NULL)
		return; /* not known yet */
	put(a, &seen, "vendor", val_get_s(&level, "vendor"));
	put(a, &seen, "features", val_get_s(&level, "features_hvm"));
	db_txn_set(txn, MODEL_CLASS_VM, vm, VM_last_boot_CPU_flags, seen);
}
