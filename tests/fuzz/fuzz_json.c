/* JSON-RPC requests: as fuzz_xml; what is encoded must be read back equal. */
#include "rpc/base/check.h"
#include "rpc/wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct arena a;
	struct rpc_message m;
	struct buf out = { 0 };
	struct val back;
	const char *why = NULL;

	arena_init(&a);
	if (rpc_json_request(&a, (const char *)data, n, &m, &why) == 0) {
		val_json(&out, m.params);
		CHECK(rpc_json_parse(&a, buf_text(&out), out.len, &back, &why) == 0);
	}
	buf_fini(&out);
	arena_fini(&a);
	return 0;
}
