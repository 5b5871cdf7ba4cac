/* Snapshots: whatever comes with a right checksum is refused or gives a sound state that encodes to
 * itself. */
#include "db/snapshot_priv.h"
#include "rpc/base/hash.h"

#include <stdlib.h>

struct db {
	struct views views;
};

struct views *db__views(struct db *db)
{
	return &db->views;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct done_table *done = db__done_new(0), *again = db__done_new(0);
	struct buf b = { 0 }, copy = { 0 };
	struct db_state *s, *t;
	const char *why = NULL;
	char fault[128];

	/* the input is all but the checksum; the state hash is taken from a first try by the
	 * fuzzer's luck or not at all */
	buf_put(&b, data, n);
	buf_u64(&b, hash_bytes(data, n));
	s = db__snapshot_decode(b.data, b.len, done, &why);
	if (s != NULL) {
		CHECK(db__state_check(s, fault, sizeof fault));
		db__snapshot_encode(s, done, &copy);
		t = db__snapshot_decode(copy.data, copy.len, again, &why);
		CHECK(t != NULL && t->hash == s->hash && t->index == s->index);
		db__state_free(t);
		db__state_free(s);
	} else {
		CHECK(why != NULL);
	}
	db__done_free(done);
	db__done_free(again);
	buf_fini(&b);
	buf_fini(&copy);
	return 0;
}
