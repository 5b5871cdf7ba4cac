/* Memory of one call or job: everything is freed together by arena_fini. Not thread-safe: one owner
 * at a time. */
#pragma once

#include <stdarg.h>
#include <stddef.h>

struct arena_block;
struct arena {
	struct arena_block *head;
	size_t used, size; /* of the head block */
};

void arena_init(struct arena *a);
void arena_fini(struct arena *a); /* may be called twice */

/* Zeroed, aligned for any type; lives until arena_fini. */
void *arena_alloc(struct arena *a, size_t size);
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
