/* rpc/cli: frames of the thin CLI protocol, byte for byte, in pieces, and what is refused. */
#include "rpc/base/check.h"
#include "rpc/base/err.h"
#include "rpc/cli/thin.h"
#include "tests/lib/suite.h"

#include <stdlib.h>
#include <string.h>

static const struct thin_frame samples[] = {
	{ .kind = THIN_COMMAND, .tag = THIN_PRINT, .text = "hi" },
	{ .kind = THIN_COMMAND, .tag = THIN_PRINT, .text = "" },
	{ .kind = THIN_COMMAND, .tag = THIN_LOAD, .text = "/tmp/x" },
	{ .kind = THIN_COMMAND, .tag = THIN_PROMPT },
	{ .kind = THIN_COMMAND, .tag = THIN_EXIT, .number = 1 },
	{ .kind = THIN_COMMAND, .tag = THIN_HTTP_GET, .text = "f", .url = "/a?b=c" },
	{ .kind = THIN_COMMAND, .tag = THIN_HTTP_PUT, .text = "f", .url = "https://h/a" },
	{ .kind = THIN_COMMAND, .tag = THIN_ERROR, .text = "E", .n = 2, .list = { "a", "b" } },
	{ .kind = THIN_COMMAND, .tag = THIN_DEBUG, .text = "d" },
	{ .kind = THIN_COMMAND, .tag = THIN_PRINT_STDERR, .text = "e" },
	{ .kind = THIN_COMMAND, .tag = THIN_HTTP_CONNECT, .url = "/console" },
	{ .kind = THIN_RESPONSE, .tag = THIN_OK },
	{ .kind = THIN_RESPONSE, .tag = THIN_FAILED },
	{ .kind = THIN_RESPONSE, .tag = THIN_WAIT },
	{ .kind = THIN_BLOB, .tag = THIN_CHUNK, .number = 70000 },
	{ .kind = THIN_BLOB, .tag = THIN_END },
};

static bool same(const struct thin_frame *a, const struct thin_frame *b)
{
	bool equal = a->kind == b->kind && a->tag == b->tag && a->number == b->number &&
		     a->n == b->n && strcmp(a->text, b->text ? b->text : "") == 0 &&
		     strcmp(a->url, b->url ? b->url : "") == 0;

	for (unsigned i = 0; i < a->n && equal; i++)
		equal = strcmp(a->list[i], b->list[i]) == 0;
	return equal;
}

/* In memory of exactly that size, so that a sanitizer sees a step outside. */
static int take(const void *p, size_t n, size_t max, struct thin_frame *out, uint8_t **copy)
{
	*copy = malloc(n > 0 ? n : 1);
	memcpy(*copy, p, n);
	return thin_take(*copy, n, max, out);
}

START_TEST(the_bytes_are_those_of_the_protocol)
{
	static const uint8_t print_hi[] = { 0x0e, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 'h',
		'i' };
	struct buf b = { 0 };

	thin_put(&b, &samples[0]);
	ck_assert_uint_eq(b.len, sizeof print_hi);
	ck_assert_mem_eq(b.data, print_hi, sizeof print_hi);
	b.len = 0;
	thin_put_greeting(&b);
	ck_assert_uint_eq(b.len, THIN_GREETING_LEN);
	ck_assert_mem_eq(b.data + 27, "\0\0\0\0\2\0\0\0", 8);
	ck_assert_int_eq(thin_greeting(b.data), 0);
	b.data[27] = 1; /* another major version */
	ck_assert_int_eq(thin_greeting(b.data), ERR_CORRUPT);
	b.data[27] = 0;
	b.data[31] = 9; /* any minor one will do */
	ck_assert_int_eq(thin_greeting(b.data), 0);
	memcpy(b.data, "HTTP", 4);
	ck_assert_int_eq(thin_greeting(b.data), ERR_CORRUPT);
	buf_fini(&b);
}
END_TEST

START_TEST(every_frame_comes_back_and_not_before_its_last_byte)
{
	struct thin_frame f;
	struct buf b = { 0 };
	uint8_t *copy;

	for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
		b.len = 0;
		thin_put(&b, &samples[i]);
		for (size_t n = 0; n < b.len; n++) {
			ck_assert_int_eq(take(b.data, n, THIN_FRAME_MAX, &f, &copy), 0);
			free(copy);
		}
		ck_assert_int_eq(take(b.data, b.len, THIN_FRAME_MAX, &f, &copy), (int)b.len);
		ck_assert(same(&f, &samples[i]));
		free(copy);
		buf_puts(&b, "next");
		ck_assert_int_eq(take(b.data, b.len, THIN_FRAME_MAX, &f, &copy), (int)b.len - 4);
		ck_assert(same(&f, &samples[i]));
		free(copy);
	}
	buf_fini(&b);
}
END_TEST

START_TEST(a_length_that_lies_is_refused)
{
	struct thin_frame f;
	struct buf b = { 0 };
	uint8_t *copy;

	/* of the frame: too small, too large for us, too large for anybody */
	for (size_t i = 0; i < 3; i++) {
		static const uint32_t lengths[] = { 7, THIN_ASK_MAX + 1, UINT32_MAX };

		b.len = 0;
		thin_put(&b, &samples[0]);
		buf_patch_u32(&b, 0, lengths[i]);
		ck_assert_int_eq(take(b.data, b.len, THIN_ASK_MAX, &f, &copy), ERR_CORRUPT);
		free(copy);
	}
	/* of a text: beyond the frame, short of it */
	for (uint32_t n = 0; n < 5; n++) {
		b.len = 0;
		thin_put(&b, &samples[0]);
		buf_patch_u32(&b, 12, n == 4 ? UINT32_MAX : n);
		ck_assert_int_eq(take(b.data, b.len, THIN_ASK_MAX, &f, &copy),
			n == 2 ? (int)b.len : ERR_CORRUPT);
		free(copy);
	}
	/* of a list */
	b.len = 0;
	thin_put(&b, &samples[7]);
	buf_patch_u32(&b, 12 + 4 + 1, THIN_LIST_MAX + 1);
	ck_assert_int_eq(take(b.data, b.len, THIN_ASK_MAX, &f, &copy), ERR_CORRUPT);
	free(copy);
	buf_fini(&b);
}
END_TEST

START_TEST(unknown_kinds_and_tags_are_refused)
{
	struct thin_frame f;
	struct buf b = { 0 };
	uint8_t *copy;

	for (uint32_t kind = 0; kind < 40; kind++)
		for (uint32_t tag = 0; tag < 40; tag++) {
			bool known = false;

			for (size_t i = 0; i < ARRAY_LEN(samples); i++)
				known |= samples[i].kind == kind && samples[i].tag == tag;
			b.len = 0;
			buf_u32(&b, 8);
			buf_u32(&b, kind);
			buf_u32(&b, tag);
			if (!known)
				ck_assert_int_eq(
					take(b.data, b.len, THIN_ASK_MAX, &f, &copy), ERR_CORRUPT);
			else
				take(b.data, b.len, THIN_ASK_MAX, &f, &copy);
			free(copy);
		}
	buf_fini(&b);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { the_bytes_are_those_of_the_protocol,
		every_frame_comes_back_and_not_before_its_last_byte, a_length_that_lies_is_refused,
		unknown_kinds_and_tags_are_refused };

	return suite_run("thin", tests, ARRAY_LEN(tests), 30);
}
