/* A long text of items as compressed blocks, written and read block by block, so that the plain
 * text is never in memory as a whole.
 *
 * A block holds whole items, about PACK_BLOCK bytes of them (more when one item is larger): u32
 * plain length, u32 packed length, bytes; equal lengths: they are not compressed. What is read is
 * not trusted: a block claims at most PACK_BLOCK_MAX and PACK_RATIO_MAX times what is there, which
 * is looked at before anything is allocated, and must give exactly what it claims. Whether the text
 * is the one that was written is for the seal around it (snapshot.c).
 */
#pragma once

#include "rpc/base/buf.h"

enum {
	PACK_BLOCK = 1 << 20,	    /* bytes of items after which a block is closed */
	PACK_BLOCK_MAX = 256 << 20, /* of one block: far above any row (DB_ROW_MAX) */
	PACK_RATIO_MAX = 1024,	    /* what packs better is stored as it is */
};

struct packer {
	struct buf plain; /* items go here */
	struct buf *out;
	void *z; /* NULL: items are put out as they are, without blocks */
};

void pack_begin(struct packer *p, struct buf *out, bool packed);
void pack_item(struct packer *p); /* what was put into plain so far is whole items */
void pack_end(struct packer *p);

struct unpacker {
	struct reader in; /* the caller's: blocks not yet read, borrowed */
	struct buf plain;
	void *z;
};

void unpack_begin(struct unpacker *u);
/* The items of the next block, valid until the next call. A reader that is `bad`: there is none, or
 * it is malformed. */
struct reader unpack_block(struct unpacker *u);
void unpack_end(struct unpacker *u);
