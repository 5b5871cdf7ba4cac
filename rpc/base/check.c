#include "rpc/base/check.h"

#include <stdio.h>
#include <stdlib.h>

void check_failed(const char *cond, const char *file, int line)
{
	fprintf(stderr, "level=err event=assertion_failed cond=\"%s\" at=%s:%d\n", cond, file,
		line);
	abort();
}

void *must(void *p)
{
	CHECK(p != NULL);
	return p;
}

void *mem_new(size_t size)
{
	return must(calloc(1, size ? size : 1));
}

void *mem_resize(void *p, size_t size)
{
	return must(realloc(p, size ? size : 1));
}
