/* Blocks by libzstd: see pack_priv.h. */
#include "db/pack_priv.h"
#include "rpc/base/check.h"

#include <stdlib.h>
#include <zstd.h>

enum {
	LEVEL = 1
}; /* half the time of 3, and rows get no larger: tests/unit/test_pack.c prints it */

void pack_begin(struct packer *p, struct buf *out, bool packed)
{
	*p = (struct packer){ .out = out, .z = packed ? must(ZSTD_createCCtx()) : NULL };
}

static void put_block(struct packer *p)
{
	size_t room = ZSTD_compressBound(p->plain.len), n;
	uint8_t *at;

	CHECK(p->plain.len <= PACK_BLOCK_MAX);
	buf_u32(p->out, (uint32_t)p->plain.len);
	buf_u32(p->out, (uint32_t)p->plain.len);
	at = buf_room(p->out, room);
	n = ZSTD_compressCCtx(p->z, at, room, p->plain.data, p->plain.len, LEVEL);
	CHECK(!ZSTD_isError(n));
	if (n < p->plain.len && p->plain.len / PACK_RATIO_MAX < n) {
		buf_patch_u32(p->out, p->out->len - sizeof(uint32_t), (uint32_t)n);
		p->out->len += n;
	} else {
		buf_put(p->out, p->plain.data, p->plain.len);
	}
	p->plain.len = 0;
}

void pack_item(struct packer *p)
{
	if (p->z == NULL) {
		buf_put(p->out, p->plain.data, p->plain.len);
		p->plain.len = 0;
	} else if (p->plain.len >= PACK_BLOCK) {
		put_block(p);
	}
}

void pack_end(struct packer *p)
{
	pack_item(p);
	if (p->plain.len > 0)
		put_block(p);
	buf_fini(&p->plain);
	ZSTD_freeCCtx(p->z);
}

void unpack_begin(struct unpacker *u)
{
	*u = (struct unpacker){ .z = must(ZSTD_createDCtx()) };
}

struct reader unpack_block(struct unpacker *u)
{
	uint32_t plain = rd_u32(&u->in), packed = rd_u32(&u->in);
	const uint8_t *bytes = rd_bytes(&u->in, packed);
	struct reader nothing = { .bad = true };

	if (bytes == NULL || plain == 0 || packed > plain || plain > PACK_BLOCK_MAX ||
		plain / PACK_RATIO_MAX > packed)
		return nothing;
	if (packed == plain)
		return reader_of(bytes, plain);
	u->plain.len = 0;
	if (ZSTD_decompressDCtx(u->z, buf_room(&u->plain, plain), plain, bytes, packed) != plain)
		return nothing;
	return reader_of(u->plain.data, plain);
}

void unpack_end(struct unpacker *u)
{
	buf_fini(&u->plain);
	ZSTD_freeDCtx(u->z);
}
