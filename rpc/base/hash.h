/* One hash for everything that needs one and is not a secret: XXH3, 64 bits, header only. */
#pragma once

#include <stdint.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static inline uint64_t hash_bytes(const void *p, size_t n)
{
	return XXH3_64bits(p, n);
}

static inline uint64_t hash_text(const char *s)
{
	return XXH3_64bits(s, strlen(s));
}
