/* XML-RPC requests: whatever comes, no crash and bounded memory; what is accepted can be shown
 * again. */
#include "rpc/wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct arena a;
	struct rpc_message m;
	struct buf out = { 0 };
	const char *why = NULL;

	arena_init(&a);
	if (rpc_xml_request(&a, (const char *)data, n, &m, &why) == 0)
		rpc_xml_value(&out, m.params);
	buf_fini(&out);
	arena_fini(&a);
	return 0;
}
