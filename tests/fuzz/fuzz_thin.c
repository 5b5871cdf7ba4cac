/* Frames of the thin CLI protocol: what is taken must be put back byte for byte. */
#include "rpc/base/check.h"
#include "rpc/cli/thin.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct buf again = { 0 };
	struct thin_frame f;
	uint8_t *copy;
	size_t at = 0;
	int used;

	while (at <= n) {
		copy = malloc(n - at + 1);
		memcpy(copy, data + at, n - at);
		used = thin_take(copy, n - at, THIN_ASK_MAX, &f);
		if (used > 0) {
			again.len = 0;
			thin_put(&again, &f);
			/* shorter only where a NUL has ended a text */
			CHECK(again.len <= (size_t)used);
			if (again.len == (size_t)used)
				CHECK(memcmp(again.data, data + at, again.len) == 0);
		}
		free(copy);
		if (used <= 0)
			break;
		at += (size_t)used;
	}
	buf_fini(&again);
	return 0;
}
