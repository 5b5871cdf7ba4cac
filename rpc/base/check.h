/* Assertions that stay on in release builds, allocation that cannot fail, and two macros everybody
 * needs.
 *
 * CHECK states what *we* guarantee. Never use it for bytes from a wire, a disk, a guest or another
 * host.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CHECK(cond)   ((cond) ? (void)0 : check_failed(#cond, __FILE__, __LINE__))
#define UNREACHABLE() check_failed("unreachable", __FILE__, __LINE__)

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define ARRAY_LEN(a)			(sizeof(a) / sizeof((a)[0]))

/* Print the condition and abort: a stopped member is survivable, a wrong database is not. */
__attribute__((noreturn)) void check_failed(const char *cond, const char *file, int line);

/* Zeroed memory, never NULL: small allocations abort on failure, sizes from outside are bounded by
 * the caller. */
void *mem_new(size_t size);
void *mem_resize(void *p, size_t size);

/* p, which must not be NULL (result of strdup and the like). */
void *must(void *p);
