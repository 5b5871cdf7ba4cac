#include "rpc/base/buf.h"
#include "rpc/base/check.h"

#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *b)
{
	*b = (struct buf){ 0 };
}

void buf_fini(struct buf *b)
{
	free(b->data);
	buf_init(b);
}

uint8_t *buf_room(struct buf *b, size_t n)
{
	if (b->cap - b->len < n) {
		size_t cap = b->cap ? b->cap : 256;

		while (cap - b->len < n)
			cap *= 2;
		b->data = mem_resize(b->data, cap);
		b->cap = cap;
	}
	return b->data + b->len;
}

void buf_int(struct buf *b, int64_t v)
{
	char digits[21];
	size_t at = sizeof digits;
	uint64_t left = v < 0 ? -(uint64_t)v : (uint64_t)v;

	do
		digits[--at] = (char)('0' + left % 10);
	while ((left /= 10) > 0);
	if (v < 0)
		digits[--at] = '-';
	buf_put(b, digits + at, sizeof digits - at);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	CHECK(n >= 0);
	vsnprintf((char *)buf_room(b, (size_t)n + 1), (size_t)n + 1, fmt, again);
	b->len += (size_t)n;
	va_end(again);
	va_end(ap);
}

void buf_u8(struct buf *b, uint8_t v)
{
	buf_put(b, &v, 1);
}

void buf_u16(struct buf *b, uint16_t v)
{
	v = htole16(v);
	buf_put(b, &v, sizeof v);
}

void buf_u32(struct buf *b, uint32_t v)
{
	v = htole32(v);
	buf_put(b, &v, sizeof v);
}

void buf_u64(struct buf *b, uint64_t v)
{
	v = htole64(v);
	buf_put(b, &v, sizeof v);
}

void buf_str(struct buf *b, const char *s)
{
	size_t n = strlen(s);

	CHECK(n < UINT32_MAX);
	buf_u32(b, (uint32_t)n);
	buf_put(b, s, n + 1);
}

void buf_patch_u32(struct buf *b, size_t at, uint32_t v)
{
	CHECK(at + sizeof v <= b->len);
	v = htole32(v);
	memcpy(b->data + at, &v, sizeof v);
}

void buf_consume(struct buf *b, size_t n)
{
	CHECK(n <= b->len);
	if (n == 0)
		return;
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
}

const char *buf_text(struct buf *b)
{
	*buf_room(b, 1) = 0;
	return (const char *)b->data;
}

struct reader reader_of(const void *p, size_t n)
{
	return (struct reader){ .p = p, .end = n > 0 ? (const uint8_t *)p + n : p };
}

size_t rd_left(const struct reader *r)
{
	return r->bad ? 0 : (size_t)(r->end - r->p);
}

const uint8_t *rd_bytes(struct reader *r, size_t n)
{
	const uint8_t *p = r->p;

	if (rd_left(r) < n) {
		r->bad = true;
		return NULL;
	}
	r->p += n;
	return p;
}

uint8_t rd_u8(struct reader *r)
{
	const uint8_t *p = rd_bytes(r, 1);

	return p ? *p : 0;
}

uint16_t rd_u16(struct reader *r)
{
	uint16_t v = 0;
	const uint8_t *p = rd_bytes(r, sizeof v);

	if (p != NULL)
		memcpy(&v, p, sizeof v);
	return le16toh(v);
}

uint32_t rd_u32(struct reader *r)
{
	uint32_t v = 0;
	const uint8_t *p = rd_bytes(r, sizeof v);

	if (p != NULL)
		memcpy(&v, p, sizeof v);
	return le32toh(v);
}

uint64_t rd_u64(struct reader *r)
{
	uint64_t v = 0;
	const uint8_t *p = rd_bytes(r, sizeof v);

	if (p != NULL)
		memcpy(&v, p, sizeof v);
	return le64toh(v);
}

const char *rd_str(struct reader *r)
{
	size_t n = rd_u32(r);
	const uint8_t *p = rd_left(r) > n ? rd_bytes(r, n + 1) : NULL;

	if (p == NULL || p[n] != 0 || memchr(p, 0, n) != NULL) {
		r->bad = true;
		return NULL;
	}
	return (const char *)p;
}
