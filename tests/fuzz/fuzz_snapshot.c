/* Snapshots: whatever comes with a right checksum is refused or gives a sound state that encodes to
 * itself. */
#include "db/pack_priv.h"
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

enum { HEAD = 8 }; /* magic, format, schema: never packed */

/* The state it gives, or NULL; b gets its seal. */
static struct db_state *decode(struct buf *b)
{
	struct done_table *done = db__done_new(0), *again = db__done_new(0);
	struct buf copy = { 0 };
	const char *why = NULL;
	char fault[128];
	struct db_state *s, *t;

	buf_u64(b, hash_bytes(b->data, b->len));
	s = db__snapshot_decode(b->data, b->len, done, &why);
	if (s != NULL) {
		CHECK(db__state_check(s, fault, sizeof fault));
		db__snapshot_encode(s, done, &copy);
		t = db__snapshot_decode(copy.data, copy.len, again, &why);
		CHECK(t != NULL && t->hash == s->hash && t->index == s->index);
		db__state_free(t);
	} else {
		CHECK(why != NULL);
	}
	db__done_free(done);
	db__done_free(again);
	buf_fini(b);
	buf_fini(&copy);
	return s;
}

/* The input is all but the seal; once as it is, once with what follows the head packed: a plain one
 * gives the same state either way. The hash of the state is met by the corpus. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct buf b = { 0 };
	struct db_state *s, *t;
	struct packer p;
	bool plain = n > HEAD && data[4] == 3 && data[5] == 0;

	buf_put(&b, data, n);
	s = decode(&b);
	if (plain) {
		buf_put(&b, data, HEAD);
		b.data[4] = 4;
		pack_begin(&p, &b, true);
		buf_put(&p.plain, data + HEAD, n - HEAD);
		pack_end(&p);
		t = decode(&b);
		CHECK((s == NULL) == (t == NULL) && (s == NULL || s->hash == t->hash));
		if (t != NULL)
			db__state_free(t);
	}
	if (s != NULL)
		db__state_free(s);
	return 0;
}
