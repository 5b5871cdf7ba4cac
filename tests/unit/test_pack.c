/* Packed blocks: what was written is read, in blocks of whole items; what is damaged is refused, or
 * gives as many bytes as it claims; nothing is allocated for a claim alone. The same for whole
 * snapshots, whose seal and hash find what a block alone cannot.
 */
#include "db/pack_priv.h"
#include "rpc/base/hash.h"
#include "tests/lib/state.h"
#include "tests/lib/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { HEAD = 8, SEAL = 8, SNAPSHOT_HEAD = 8 };

static void put_noise(struct buf *b, size_t n, uint64_t x)
{
	for (size_t i = 0; i < n; i++, x = hash_bytes(&x, sizeof x))
		buf_u8(b, (uint8_t)x);
}

/* Items of n bytes: u32 their number, then text that packs, or noise. */
static void pack(struct buf *out, uint32_t items, size_t n, bool noise)
{
	struct packer p;

	pack_begin(&p, out, true);
	for (uint32_t i = 0; i < items; i++) {
		buf_u32(&p.plain, i);
		if (noise)
			put_noise(&p.plain, n - 4, i + 1);
		else
			memset(buf_room(&p.plain, n - 4), (int)(i & 1), n - 4),
				p.plain.len += n - 4;
		pack_item(&p);
	}
	pack_end(&p);
}

/* Every block holds whole items, in order; how many blocks. */
static unsigned unpack(const struct buf *in, uint32_t items, size_t n)
{
	struct unpacker u;
	unsigned blocks = 0;
	uint32_t next = 0;

	unpack_begin(&u);
	u.in = reader_of(in->data, in->len);
	for (; rd_left(&u.in) > 0; blocks++) {
		struct reader r = unpack_block(&u);

		ck_assert(!r.bad);
		ck_assert_uint_lt(rd_left(&r), PACK_BLOCK + n);
		while (rd_left(&r) > 0) {
			ck_assert_uint_eq(rd_u32(&r), next++);
			ck_assert_ptr_nonnull(rd_bytes(&r, n - 4));
		}
	}
	ck_assert_uint_eq(next, items);
	ck_assert(unpack_block(&u).bad);
	unpack_end(&u);
	return blocks;
}

START_TEST(items_come_back_whole_block_by_block)
{
	static const struct {
		uint32_t items;
		size_t n;
		bool noise;
		unsigned blocks;
	} cases[] = {
		{ 0, 4, false, 0 },
		{ 1, 4, false, 1 },
		{ 1000, 100, false, 1 },
		{ 40000, 100, false, 4 },
		{ 40000, 100, true, 4 },
		{ 3, 3 << 20, false, 3 }, /* packs so well that it is stored as it is */
		{ 3, PACK_BLOCK, true, 3 },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = { 0 };
		size_t plain = cases[i].items * cases[i].n;

		pack(&b, cases[i].items, cases[i].n, cases[i].noise);
		ck_assert_uint_eq(unpack(&b, cases[i].items, cases[i].n), cases[i].blocks);
		ck_assert_uint_le(b.len, plain + cases[i].blocks * HEAD);
		ck_assert_uint_le(plain, b.len * PACK_RATIO_MAX);
		buf_fini(&b);
	}
}
END_TEST

/* The first block of what may be damaged: refused, or of the length it claims. */
static bool taken(const uint8_t *p, size_t n)
{
	struct reader head = reader_of(p, n), r;
	uint32_t plain = rd_u32(&head);
	struct unpacker u;
	bool ok;

	unpack_begin(&u);
	u.in = reader_of(p, n);
	r = unpack_block(&u);
	ok = !r.bad;
	if (ok)
		ck_assert_uint_eq(rd_left(&r), plain);
	ck_assert_uint_le(u.plain.cap, 2 * PACK_RATIO_MAX * n);
	unpack_end(&u);
	return ok;
}

/* Parts of a block, each byte of it changed in every bit, and cut off there. */
START_TEST(a_damaged_block_is_refused_or_of_the_length_it_claims)
{
	struct buf b = { 0 };
	unsigned refused = 0;

	pack(&b, 200, 37, false);
	ck_assert(taken(b.data, b.len));
	for (size_t i = 0; i < b.len; i++) {
		uint8_t was = b.data[i];

		for (unsigned bit = 0; bit < 8; bit++) {
			bool ok;

			b.data[i] ^= (uint8_t)(1u << bit);
			ok = taken(b.data, b.len);
			if (i < HEAD + 4) /* lengths, the magic number of the packed bytes */
				ck_assert_msg(!ok, "byte %zu bit %u", i, bit);
			refused += !ok;
			b.data[i] = was;
		}
		ck_assert_msg(!taken(b.data, i), "cut to %zu", i);
	}
	printf("%u of %zu damages refused by the block alone\n", refused, 8 * b.len);
	buf_fini(&b);
}
END_TEST

START_TEST(a_claim_costs_nothing)
{
	static const struct {
		uint32_t plain, packed;
	} claims[] = { { 0, 0 }, { 0, 16 }, { UINT32_MAX, 16 }, { PACK_BLOCK_MAX, 16 },
		{ PACK_BLOCK_MAX + 1, PACK_BLOCK_MAX + 1 },
		{ 16 * PACK_RATIO_MAX + PACK_RATIO_MAX, 16 }, { 15, 16 }, { 17, 17 },
		{ UINT32_MAX, UINT32_MAX } };

	for (size_t i = 0; i < ARRAY_LEN(claims); i++) {
		struct unpacker u;
		struct buf b = { 0 };

		buf_u32(&b, claims[i].plain);
		buf_u32(&b, claims[i].packed);
		put_noise(&b, 16, 1);
		unpack_begin(&u);
		u.in = reader_of(b.data, b.len);
		ck_assert(unpack_block(&u).bad);
		ck_assert_uint_eq(u.plain.cap, 0);
		unpack_end(&u);
		buf_fini(&b);
	}
}
END_TEST

/* Whole snapshots. */

/* "8-4-4-4-12" from a number. */
static const char *uuid(uint64_t x, char out[UUID_LEN + 1])
{
	uint64_t a = hash_bytes(&x, sizeof x), b = hash_bytes(&a, sizeof a);

	snprintf(out, UUID_LEN + 1, "%08x-%04x-4%03x-%04x-%012llx", (unsigned)(a >> 32),
		(unsigned)(a >> 16 & 0xffff), (unsigned)(a & 0xfff), (unsigned)(b >> 48),
		(unsigned long long)b & 0xffffffffffff);
	return out;
}

static void create_vms(struct db *db, unsigned from, unsigned n)
{
	struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char ref[DB_REF_MAX + 1] = "OpaqueRef:", own[UUID_LEN + 1], metrics[DB_REF_MAX + 1],
			      name[64];
	struct db_txn t;

	db_txn_init(&t, DB_FOR_FIELD);
	for (unsigned i = from; i < from + n; i++) {
		uuid(3 * i, ref + 10);
		memcpy(metrics, ref, sizeof metrics);
		uuid(3 * i + 1, metrics + 10);
		snprintf(name, sizeof name, "machine %u of department %u", i, i % 37);
		f[VM_uuid] = val_string(uuid(3 * i + 2, own));
		f[VM_metrics] = val_string(metrics);
		f[VM_name_label] = val_string(name);
		f[VM_name_description] = val_string("a VM like many others");
		f[VM_memory_static_max] = val_int((int64_t)(1 + i % 16) << 30);
		db_txn_create(&t, MODEL_CLASS_VM, ref, f);
	}
	ck_assert(state_apply(db, &t, from + 1).status == APPLY_DONE);
}

/* NULL: refused. */
static const char *decoded(const struct buf *b, uint64_t hash)
{
	struct done_table *done = db__done_new(0);
	const char *why = NULL;
	struct db_state *s = db__snapshot_decode(b->data, b->len, done, &why);

	if (s != NULL) {
		ck_assert_uint_eq(s->hash, hash);
		db__state_free(s);
	} else {
		ck_assert_ptr_nonnull(why);
	}
	db__done_free(done);
	return s != NULL ? NULL : why;
}

static void seal(struct buf *b)
{
	b->len -= SEAL;
	buf_u64(b, hash_bytes(b->data, b->len));
}

START_TEST(a_damaged_snapshot_is_refused_with_its_seal_and_without)
{
	struct db db;
	struct buf b = { 0 };
	uint64_t hash;
	unsigned same = 0;

	state_open(&db);
	create_vms(&db, 0, 20);
	hash = db.views.root->hash;
	db__snapshot_encode(db.views.root, db.done, &b);
	ck_assert_ptr_null(decoded(&b, hash));
	/* each byte of both heads, then of each part of the packed bytes, then of the seal */
	for (size_t i = 0; i < b.len; i += i < 64 || i > b.len - 32 ? 1 : 11) {
		uint8_t was = b.data[i];
		uint64_t was_sealed;

		memcpy(&was_sealed, b.data + b.len - SEAL, SEAL);
		b.data[i] ^= (uint8_t)(1u << i % 8);
		ck_assert_str_eq(decoded(&b, hash), "its checksum does not hold");
		if (i < b.len - SEAL) {
			seal(&b);
			/* what is the same state is no damage: results, deletions, padding */
			same += decoded(&b, hash) == NULL;
		}
		b.data[i] = was;
		memcpy(b.data + b.len - SEAL, &was_sealed, SEAL);
	}
	ck_assert_uint_lt(same, b.len / 110);
	/* whole blocks too many, too few */
	buf_put(&b, b.data + SNAPSHOT_HEAD, b.len - SNAPSHOT_HEAD - SEAL);
	buf_u64(&b, 0);
	seal(&b);
	ck_assert_ptr_nonnull(decoded(&b, hash));
	b.len = SNAPSHOT_HEAD + SEAL;
	seal(&b);
	ck_assert_str_eq(decoded(&b, hash), "it ends too early");
	buf_fini(&b);
	state_close(&db);
}
END_TEST

static double ms_since(const struct timespec *began)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return 1e3 * (double)(now.tv_sec - began->tv_sec) +
	       (double)(now.tv_nsec - began->tv_nsec) / 1e6;
}

START_TEST(ten_thousand_vms_pack_to_an_eighth)
{
	enum { VMS = 10000, EACH = 500 };
	struct done_table *done = db__done_new(0);
	struct timespec began;
	struct db_state plain;
	struct db db;
	struct buf b = { 0 }, old = { 0 };
	const char *why = NULL;
	struct db_state *s;
	double plain_ms, encode_ms;

	state_open(&db);
	for (unsigned i = 0; i < VMS; i += EACH)
		create_vms(&db, i, EACH);
	plain = *db.views.root;
	plain.schema = MODEL_SCHEMA_BASE; /* for its size alone: rows are longer than it knows */
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
	db__snapshot_encode(&plain, db.done, &old);
	plain_ms = ms_since(&began);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
	db__snapshot_encode(db.views.root, db.done, &b);
	encode_ms = ms_since(&began);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
	s = db__snapshot_decode(b.data, b.len, done, &why);
	printf("%d VMs: %zu bytes in %.0f ms, plain %zu in %.0f ms; decoded in %.0f ms\n", VMS,
		b.len, encode_ms, old.len, plain_ms, ms_since(&began));
	ck_assert_msg(s != NULL, "%s", why);
	ck_assert_uint_eq(s->hash, db.views.root->hash);
	ck_assert_uint_lt(8 * b.len, old.len);
	db__state_free(s);
	db__done_free(done);
	buf_fini(&b);
	buf_fini(&old);
	state_close(&db);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { items_come_back_whole_block_by_block,
		a_damaged_block_is_refused_or_of_the_length_it_claims, a_claim_costs_nothing,
		a_damaged_snapshot_is_refused_with_its_seal_and_without,
		ten_thousand_vms_pack_to_an_eighth };

	return suite_run("pack", tests, ARRAY_LEN(tests), 60);
}
