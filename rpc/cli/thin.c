#include "rpc/cli/thin.h"
#include "rpc/base/check.h"
#include "rpc/base/err.h"

/* What a payload carries behind kind and tag. */
enum field { NOTHING, TEXT, URL, TEXT_URL, TEXT_LIST, NUMBER, UNKNOWN };

static enum field fields_of(uint32_t kind, uint32_t tag)
{
	switch (kind) {
	case THIN_COMMAND: break;
	case THIN_RESPONSE:
		return tag == THIN_OK || tag == THIN_FAILED || tag == THIN_WAIT ? NOTHING : UNKNOWN;
	case THIN_BLOB: return tag == THIN_CHUNK ? NUMBER : tag == THIN_END ? NOTHING : UNKNOWN;
	default: return UNKNOWN;
	}
	switch (tag) {
	case THIN_PRINT:
	case THIN_LOAD:
	case THIN_DEBUG:
	case THIN_PRINT_STDERR: return TEXT;
	case THIN_PROMPT: return NOTHING;
	case THIN_EXIT: return NUMBER;
	case THIN_HTTP_GET:
	case THIN_HTTP_PUT: return TEXT_URL;
	case THIN_ERROR: return TEXT_LIST;
	case THIN_HTTP_CONNECT: return URL;
	default: return UNKNOWN;
	}
}

static void put_text(struct buf *out, const char *s)
{
	size_t n = strlen(s);

	CHECK(n <= THIN_FRAME_MAX);
	buf_u32(out, (uint32_t)n);
	buf_put(out, s, n);
}

void thin_put_greeting(struct buf *out)
{
	buf_puts(out, THIN_GREETING);
	buf_u32(out, THIN_MAJOR);
	buf_u32(out, THIN_MINOR);
}

void thin_put(struct buf *out, const struct thin_frame *f)
{
	enum field fields = fields_of(f->kind, f->tag);
	size_t at = out->len;

	CHECK(fields != UNKNOWN && f->n <= THIN_LIST_MAX);
	buf_u32(out, 0);
	buf_u32(out, f->kind);
	buf_u32(out, f->tag);
	if (fields == TEXT || fields == TEXT_URL || fields == TEXT_LIST)
		put_text(out, f->text);
	if (fields == URL || fields == TEXT_URL)
		put_text(out, f->url);
	if (fields == NUMBER)
		buf_u32(out, f->number);
	if (fields == TEXT_LIST) {
		buf_u32(out, f->n);
		for (unsigned i = 0; i < f->n; i++)
			put_text(out, f->list[i]);
	}
	buf_patch_u32(out, at, (uint32_t)(out->len - at - 4));
}

int thin_greeting(const uint8_t *p)
{
	struct reader r = reader_of(p, THIN_GREETING_LEN);

	if (memcmp(rd_bytes(&r, strlen(THIN_GREETING)), THIN_GREETING, strlen(THIN_GREETING)) != 0)
		return ERR_CORRUPT;
	return rd_u32(&r) == THIN_MAJOR ? 0 : ERR_CORRUPT;
}

/* The text moves one byte to the front, over its own length, and its NUL behind it. */
static const char *take_text(struct reader *r)
{
	uint32_t n = rd_u32(r);
	const uint8_t *p = rd_bytes(r, n);
	uint8_t *to;

	if (r->bad || p == NULL)
		return "";
	to = (uint8_t *)(uintptr_t)p - 1;
	memmove(to, p, n);
	to[n] = 0;
	return (const char *)to;
}

int thin_take(uint8_t *p, size_t n, size_t max, struct thin_frame *out)
{
	struct reader r = reader_of(p, n);
	uint32_t len;
	enum field fields;

	if (n < 4)
		return 0;
	len = rd_u32(&r);
	if (len < 8 || len > max || len > THIN_FRAME_MAX)
		return ERR_CORRUPT;
	if (n - 4 < len)
		return 0;
	r = reader_of(p + 4, len);
	*out = (struct thin_frame){ .text = "", .url = "" };
	out->kind = (enum thin_kind)rd_u32(&r);
	out->tag = (enum thin_tag)rd_u32(&r);
	fields = fields_of(out->kind, out->tag);
	if (fields == UNKNOWN)
		return ERR_CORRUPT;
	if (fields == TEXT || fields == TEXT_URL || fields == TEXT_LIST)
		out->text = take_text(&r);
	if (fields == URL || fields == TEXT_URL)
		out->url = take_text(&r);
	if (fields == NUMBER)
		out->number = rd_u32(&r);
	if (fields == TEXT_LIST) {
		out->n = rd_u32(&r);
		if (out->n > THIN_LIST_MAX)
			return ERR_CORRUPT;
		for (unsigned i = 0; i < out->n; i++)
			out->list[i] = take_text(&r);
	}
	return r.bad || rd_left(&r) != 0 ? ERR_CORRUPT : (int)(len + 4);
}
