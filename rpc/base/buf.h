/* A growing byte buffer, and a reader that cannot run past its end. Integers are little-endian. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
	uint8_t *data;
	size_t len, cap;
};

void buf_init(struct buf *b);
void buf_fini(struct buf *b); /* may be called twice */
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_u8(struct buf *b, uint8_t v);
void buf_u16(struct buf *b, uint16_t v);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);
/* u32 length, the bytes, a NUL: readable in place. */
void buf_str(struct buf *b, const char *s);
/* Overwrite a u32 written earlier at `at`. */
void buf_patch_u32(struct buf *b, size_t at, uint32_t v);
/* Drop n bytes at the front. */
void buf_consume(struct buf *b, size_t n);
/* Room for n more bytes at data + len; the caller adds what it used to len. */
uint8_t *buf_room(struct buf *b, size_t n);
/* In decimal. */
void buf_int(struct buf *b, int64_t v);
/* A NUL behind the content (not counted), for use as text; never NULL. */
const char *buf_text(struct buf *b);

/* Here, because answers and rows are made of pieces of a few bytes. */
static inline void buf_put(struct buf *b, const void *p, size_t n)
{
	if (n == 0)
		return;
	memcpy(b->cap - b->len < n ? buf_room(b, n) : b->data + b->len, p, n);
	b->len += n;
}

static inline void buf_puts(struct buf *b, const char *s)
{
	buf_put(b, s, strlen(s));
}

/* After the first read past the end `bad` is set for good and every read gives 0 / NULL: check once
 * at the end. */
struct reader {
	const uint8_t *p, *end;
	bool bad;
};

struct reader reader_of(const void *p, size_t n);
uint8_t rd_u8(struct reader *r);
uint16_t rd_u16(struct reader *r);
uint32_t rd_u32(struct reader *r);
uint64_t rd_u64(struct reader *r);
const uint8_t *rd_bytes(struct reader *r, size_t n);
/* Written by buf_str; points into the input; NULL and bad when there is no NUL at its end or one
 * inside. */
const char *rd_str(struct reader *r);
size_t rd_left(const struct reader *r);
