#include "rpc/base/counter.h"

const char *const counter_names[COUNTER_COUNT] = {
#define X(name, help) #name,
	COUNTERS(X)
#undef X
};

const char *const counter_help[COUNTER_COUNT] = {
#define X(name, help) help,
	COUNTERS(X)
#undef X
};

void counter_add(struct counters *c, enum counter which, int64_t by)
{
	atomic_fetch_add_explicit(&c->v[which], (uint64_t)by, memory_order_relaxed);
}

void counter_max(struct counters *c, enum counter which, uint64_t seen)
{
	uint64_t old = atomic_load_explicit(&c->v[which], memory_order_relaxed);

	while (old < seen && !atomic_compare_exchange_weak_explicit(&c->v[which], &old, seen,
				     memory_order_relaxed, memory_order_relaxed))
		continue;
}

uint64_t counter_get(struct counters *c, enum counter which)
{
	return atomic_load_explicit(&c->v[which], memory_order_relaxed);
}
