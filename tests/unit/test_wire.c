/* rpc/wire: both codecs, byte for byte, and what they refuse. */
#include "rpc/base/check.h"
#include "rpc/wire/codec.h"
#include "rpc/wire/websocket.h"
#include "tests/lib/suite.h"

#include <stdlib.h>
#include <string.h>

static const struct {
	const char *body, *method;
	unsigned n;
} good_xml[] = {
	{ "<?xml version='1.0'?>\n<methodCall>\n <methodName>VM.get_all</methodName>\n <params>\n  "
	  "<param><value><string>s</string></value></param>\n </params>\n</methodCall>",
		"VM.get_all", 1 },
	{ "<methodCall><methodName>a</methodName></methodCall>", "a", 0 },
	{ "<methodCall><methodName>a</methodName><params><param><value>x</value></"
	  "param><param><value/></param></params></methodCall>",
		"a", 2 },
	{ "<methodCall><methodName>a</methodName><params><param><value> <array><data/></array> "
	  "</value></param><param><value><struct/></value></param></params></methodCall>",
		"a", 2 },
	{ "<!-- c "
	  "--><methodCall><methodName>a</methodName><params><param><value>&lt;&amp;</value></"
	  "param></params></methodCall>",
		"a", 1 },
};

static const char *const bad_xml[] = {
	"",
	"<",
	"not xml",
	"<methodCall></methodCall>",
	"<methodCall><methodName></methodName></methodCall>",
	"<methodResponse/>",
	"<methodCall><methodName>a</methodName><params><value>1</value></params></methodCall>",
	"<methodCall><methodName>a</methodName><params><param><value><struct><member><value>1</"
	"value></member></struct></value></param></params></methodCall>",
	"<!DOCTYPE a [<!ENTITY b 'c'>]><methodCall><methodName>&b;</methodName></methodCall>",
	"<methodCall><methodName>\xff</methodName></methodCall>",
	"<methodCall><methodName>a</methodName></methodCall><x/>",
};

START_TEST(xml_requests)
{
	for (size_t i = 0; i < ARRAY_LEN(good_xml); i++) {
		struct arena a;
		struct rpc_message m;
		const char *why = NULL;

		arena_init(&a);
		ck_assert_msg(rpc_xml_request(&a, good_xml[i].body, strlen(good_xml[i].body), &m,
				      &why) == 0,
			"%zu: %s", i, why);
		ck_assert_str_eq(m.method, good_xml[i].method);
		ck_assert_uint_eq(m.params->n, good_xml[i].n);
		arena_fini(&a);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad_xml); i++) {
		struct arena a;
		struct rpc_message m;
		const char *why = NULL;

		arena_init(&a);
		ck_assert_msg(rpc_xml_request(&a, bad_xml[i], strlen(bad_xml[i]), &m, &why) ==
				      ERR_CORRUPT,
			"%zu", i);
		ck_assert_ptr_nonnull(why);
		arena_fini(&a);
	}
}
END_TEST

START_TEST(xml_nesting_and_size_are_bounded)
{
	struct buf b = { 0 };
	struct arena a;
	struct rpc_message m;
	const char *why = NULL;

	buf_puts(&b, "<methodCall><methodName>a</methodName><params><param>");
	for (int i = 0; i < 1000; i++)
		buf_puts(&b, "<value><array><data>");
	arena_init(&a);
	ck_assert_int_eq(rpc_xml_request(&a, buf_text(&b), b.len, &m, &why), ERR_CORRUPT);
	ck_assert_str_eq(why, "nested too deeply");
	arena_fini(&a);
	buf_fini(&b);
}
END_TEST

static const struct {
	const char *body;
	bool ok;
	enum rpc_codec codec;
	unsigned n;
} json_cases[] = {
	{ "{\"method\":\"a\",\"params\":[1],\"id\":0}", true, RPC_JSON1, 1 },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"id\":\"x\"}", true, RPC_JSON2, 0 },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":null,\"id\":7}", true, RPC_JSON2, 0 },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{\"b\":1},\"id\":7}", true, RPC_JSON2,
		1 },
	{ "{\"method\":\"a\",\"id\":0}", false, RPC_JSON1, 0 },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":[]}", false, RPC_JSON2, 0 },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":[],\"id\":null}", false, RPC_JSON2, 0 },
	{ "{\"jsonrpc\":\"1.5\",\"method\":\"a\",\"params\":[],\"id\":1}", false, RPC_JSON2, 0 },
	{ "{\"jsonrpc\":\"2.0\",\"params\":[],\"id\":1}", false, RPC_JSON2, 0 },
	{ "[{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"id\":1}]", false, RPC_JSON1, 0 },
	{ "", false, RPC_JSON1, 0 },
	{ "{", false, RPC_JSON1, 0 },
	{ "{\"method\":\"a\",\"params\":[99999999999999999999],\"id\":1}", false, RPC_JSON1, 0 },
	{ "{\"method\":\"a\",\"params\":[\"\\u0000\"],\"id\":1}", false, RPC_JSON1, 0 },
};

START_TEST(json_requests)
{
	for (size_t i = 0; i < ARRAY_LEN(json_cases); i++) {
		struct arena a;
		struct rpc_message m;
		const char *why = NULL;
		int rc;

		arena_init(&a);
		rc = rpc_json_request(&a, json_cases[i].body, strlen(json_cases[i].body), &m, &why);
		ck_assert_msg((rc == 0) == json_cases[i].ok, "%zu: %s", i, why);
		if (rc == 0) {
			ck_assert_int_eq(m.codec, json_cases[i].codec);
			ck_assert_uint_eq(m.params->n, json_cases[i].n);
		}
		arena_fini(&a);
	}
}
END_TEST

/* The replies of wire.md 2.2 and 2.3. */
START_TEST(replies_byte_for_byte)
{
	static const char xml_ok[] =
		"<?xml "
		"version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>"
		"Status</name><value>Success</value></member><member><name>Value</"
		"name><value>OpaqueRef:66c1</value></member></struct></value></param></params></"
		"methodResponse>";
	static const char xml_bad[] =
		"<?xml "
		"version=\"1.0\"?><methodResponse><params><param><value><struct><member><name>"
		"Status</name><value>Failure</value></member><member><name>ErrorDescription</"
		"name><value><array><data><value>HANDLE_INVALID</value><value>VM</"
		"value><value>OpaqueRef:dead</value></data></array></value></member></struct></"
		"value></param></params></methodResponse>";
	static const struct {
		enum rpc_codec codec;
		bool fails;
		const char *text;
	} cases[] = {
		{ RPC_XML, false, xml_ok },
		{ RPC_XML, true, xml_bad },
		{ RPC_JSON1, false, "{\"result\":\"OpaqueRef:66c1\",\"error\":null,\"id\":0}" },
		{ RPC_JSON1, true,
			"{\"result\":null,\"error\":[\"HANDLE_INVALID\",\"VM\",\"OpaqueRef:dead\"],"
			"\"id\":0}" },
		{ RPC_JSON2, false,
			"{\"jsonrpc\":\"2.0\",\"result\":\"OpaqueRef:66c1\",\"id\":0}" },
		{ RPC_JSON2, true,
			"{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"HANDLE_INVALID\","
			"\"data\":[\"VM\",\"OpaqueRef:dead\"]},\"id\":0}" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct rpc_message m = { .codec = cases[i].codec, .id = val_int(0) };
		struct val v = val_string("OpaqueRef:66c1");
		struct err err = { 0 };
		struct buf b = { 0 };

		if (cases[i].fails)
			err_set(&err, ERR_HANDLE_INVALID, "VM", "OpaqueRef:dead", NULL);
		rpc_reply_encode(&b, &m, &v, false, &err);
		ck_assert_str_eq(buf_text(&b), cases[i].text);
		buf_fini(&b);
		err_fini(&err);
	}
}
END_TEST

static void check_value(struct val v, const char *xml, const char *json)
{
	struct buf b = { 0 };

	rpc_xml_value(&b, &v);
	ck_assert_str_eq(buf_text(&b), xml);
	b.len = 0;
	val_json(&b, &v);
	ck_assert_str_eq(buf_text(&b), json);
	buf_fini(&b);
}

START_TEST(values_byte_for_byte)
{
	struct arena a;
	struct val map = val_map(), set = val_set(), count = val_int(3);

	arena_init(&a);
	val_map_push(&a, &map, "a", val_string("b"));
	val_set_push(&a, &set, val_bool(true));
	count.kind = VAL_INT32;
	check_value(
		val_int(INT64_MIN), "<value>-9223372036854775808</value>", "-9223372036854775808");
	check_value(count, "<value><i4>3</i4></value>", "3");
	check_value(val_bool(false), "<value><boolean>0</boolean></value>", "false");
	check_value(val_float(1), "<value><double>1</double></value>", "1.0");
	check_value(val_float(-0.0), "<value><double>-0</double></value>", "-0.0");
	check_value(val_float(-3), "<value><double>-3</double></value>", "-3.0");
	check_value(val_float(1e15), "<value><double>1000000000000000</double></value>",
		"1000000000000000.0");
	check_value(val_float(0.1), "<value><double>0.1</double></value>", "0.1");
	check_value(val_float(1e300 * 1e300), "<value><double>inf</double></value>", "0.0");
	check_value(val_void(), "<value></value>", "\"\"");
	check_value(val_set(), "<value><array><data></data></array></value>", "[]");
	check_value(set,
		"<value><array><data><value><boolean>1</boolean></value></data></array></value>",
		"[true]");
	check_value(map,
		"<value><struct><member><name>a</name><value>b</value></member></struct></value>",
		"{\"a\":\"b\"}");
	check_value(val_string("<&>\"\x01\n"), "<value>&lt;&amp;&gt;&quot;\n</value>",
		"\"<&>\\\"\\u0001\\n\"");
	check_value(val_datetime(0),
		"<value><dateTime.iso8601>19700101T00:00:00Z</dateTime.iso8601></value>",
		"\"19700101T00:00:00Z\"");
	arena_fini(&a);
}
END_TEST

/* Members: one string, one map in a map, and none at all. */
static void write_map(struct buf *out, enum rpc_codec codec, unsigned members)
{
	struct val text = val_string("<b>");
	struct rpc_map m, inner;

	rpc_map_open(&m, out, codec);
	for (unsigned i = 0; i < members; i++) {
		rpc_map_name(&m, i == 0 ? "a\"" : "m");
		if (i == 0) {
			rpc_value(out, codec, &text);
			continue;
		}
		rpc_map_open(&inner, out, codec);
		rpc_map_close(&inner);
	}
	rpc_map_close(&m);
}

START_TEST(a_map_member_by_member_is_the_map)
{
	static const enum rpc_codec codecs[] = { RPC_XML, RPC_JSON1, RPC_JSON2 };

	for (unsigned i = 0; i < 3 * ARRAY_LEN(codecs); i++) {
		struct buf got = { 0 }, want = { 0 };
		struct val whole = val_map();
		struct arena a;

		arena_init(&a);
		if (i % 3 > 0)
			val_map_push(&a, &whole, "a\"", val_string("<b>"));
		if (i % 3 > 1)
			val_map_push(&a, &whole, "m", val_map());
		rpc_value(&want, codecs[i / 3], &whole);
		write_map(&got, codecs[i / 3], i % 3);
		ck_assert_str_eq(buf_text(&got), buf_text(&want));
		buf_fini(&got);
		buf_fini(&want);
		arena_fini(&a);
	}
}
END_TEST

START_TEST(parameters_take_the_type_of_the_model_or_are_refused)
{
	static const struct model_type t_int = { MODEL_INT, -1, -1, NULL, NULL },
				       t_bool = { MODEL_BOOL, -1, -1, NULL, NULL },
				       t_float = { MODEL_FLOAT, -1, -1, NULL, NULL },
				       t_date = { MODEL_DATETIME, -1, -1, NULL, NULL },
				       t_state = { MODEL_ENUM, -1, MODEL_ENUM_vm_power_state, NULL,
					       NULL },
				       t_ref = { MODEL_REF, MODEL_CLASS_VM, -1, NULL, NULL },
				       t_ints = { MODEL_SET, -1, -1, NULL, &t_int };
	struct val ints = val_set(), words = val_set();
	struct arena a;

	arena_init(&a);
	val_set_push(&a, &ints, val_string("1"));
	val_set_push(&a, &words, val_string("one"));
	const struct {
		const struct model_type *type;
		struct val in;
		const struct err_code *code;
	} cases[] = {
		{ &t_int, val_string("42"), NULL },
		{ &t_int, val_int(42), NULL },
		{ &t_int, val_float(42), ERR_FIELD_TYPE_ERROR },
		{ &t_int, val_string("4x"), ERR_FIELD_TYPE_ERROR },
		{ &t_int, val_string("9999999999999999999"), ERR_FIELD_TYPE_ERROR },
		{ &t_bool, val_bool(true), NULL },
		{ &t_bool, val_string("true"), ERR_FIELD_TYPE_ERROR },
		{ &t_bool, val_int(1), ERR_FIELD_TYPE_ERROR },
		{ &t_float, val_int(1), NULL },
		{ &t_float, val_string("1.5"), NULL },
		{ &t_float, val_bool(true), ERR_FIELD_TYPE_ERROR },
		{ &t_date, val_string("20260821T02:00:23Z"), NULL },
		{ &t_date, val_string("now"), ERR_INVALID_VALUE },
		{ &t_state, val_string("running"), NULL },
		{ &t_state, val_string("Flying"), ERR_INVALID_VALUE },
		{ &t_ref, val_string("anything"), NULL },
		{ &t_ref, val_int(1), ERR_FIELD_TYPE_ERROR },
		{ &t_ints, ints, NULL },
		{ &t_ints, words, ERR_FIELD_TYPE_ERROR },
		{ &t_ints, val_map(), ERR_FIELD_TYPE_ERROR },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err err = { 0 };
		struct val out;

		rpc_coerce(&a, RPC_JSON2, cases[i].type, "p", &cases[i].in, &out, &err);
		ck_assert_msg(err.code == cases[i].code, "case %zu: %s", i,
			err.code ? err.code->name : "ok");
		err_fini(&err);
	}
	arena_fini(&a);
}
END_TEST

START_TEST(method_names)
{
	ck_assert_ptr_nonnull(model_message_find("VM.start"));
	ck_assert_ptr_eq(model_message_find("VM_start"), model_message_find("VM.start"));
	ck_assert_ptr_eq(
		model_message_find("VM_get_power_state"), model_message_find("VM.get_power_state"));
	ck_assert_ptr_null(model_message_find("vm.start"));
	ck_assert_ptr_null(model_message_find("VM.nothing"));
	ck_assert_ptr_null(model_message_find("_"));
	for (unsigned i = 1; i < model_n_messages; i++)
		ck_assert_int_lt(strcmp(model_messages[i - 1].name, model_messages[i].name), 0);
}
END_TEST

/* Frames of a client, masked by 01 02 03 04; what they carry, what they are answered. */
static const struct {
	const char *frames;
	size_t n;
	enum ws_status status;
	const char *data, *answer; /* answer: without what a close frame says */
} ws_cases[] = {
#define FRAMES(s) s, sizeof(s) - 1
#define MASKED	  "\x01\x02\x03\x04"
	{ FRAMES("\x82\x80" MASKED), WS_OPEN, "", "" },
	{ FRAMES("\x82\x83" MASKED "\x60\x60\x60"), WS_OPEN, "abc", "" },
	{ FRAMES("\x02\x81" MASKED "\x60"
		 "\x89\x82" MASKED "\x69\x6b"
		 "\x00\x81" MASKED "\x63"
		 "\x80\x81" MASKED "\x62"),
		WS_OPEN, "abc", "\x8a\x02hi" },
	{ FRAMES("\x8a\x81" MASKED "\x60"), WS_OPEN, "", "" },
	{ FRAMES("\x88\x82" MASKED "\x02\xea"), WS_NORMAL, "", "" },
	/* no mask, a reserved bit, opcodes that are none */
	{ FRAMES("\x82\x81" MASKED "\x60\x82\x03"), WS_PROTOCOL_ERROR, "a", "" },
	{ FRAMES("\xc2\x80"), WS_PROTOCOL_ERROR, "", "" },
	{ FRAMES("\x83\x80"), WS_PROTOCOL_ERROR, "", "" },
	{ FRAMES("\x8b\x80"), WS_PROTOCOL_ERROR, "", "" },
	{ FRAMES("\x81\x80"), WS_UNSUPPORTED, "", "" },
	/* it goes on with nothing; it begins within another */
	{ FRAMES("\x80\x80"), WS_PROTOCOL_ERROR, "", "" },
	{ FRAMES("\x02\x80" MASKED "\x82\x80"), WS_PROTOCOL_ERROR, "", "" },
	/* control frames in pieces, or long */
	{ FRAMES("\x09\x80"), WS_PROTOCOL_ERROR, "", "" },
	{ FRAMES("\x89\xfe"), WS_PROTOCOL_ERROR, "", "" },
	/* too large, and just not */
	{ FRAMES("\x82\xff\0\0\0\0\0\x10\0\x01" MASKED), WS_TOO_BIG, "", "" },
	{ FRAMES("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" MASKED), WS_TOO_BIG, "", "" },
	{ FRAMES("\x82\xff\0\0\0\0\0\x10\0\0" MASKED "\x60"), WS_OPEN, "a", "" },
#undef MASKED
#undef FRAMES
};

/* Fed in pieces of that size, each a heap block of its own, so that a sanitizer sees its end. */
static void feed_case(size_t i, size_t piece)
{
	struct ws_reader r = { 0 };
	struct buf data = { 0 }, answer = { 0 }, expected = { 0 };
	enum ws_status status = WS_OPEN;
	uint8_t *copy;

	for (size_t at = 0; at < ws_cases[i].n && status == WS_OPEN; at += piece) {
		size_t n = ws_cases[i].n - at < piece ? ws_cases[i].n - at : piece;

		copy = malloc(n);
		memcpy(copy, ws_cases[i].frames + at, n);
		status = ws_feed(&r, copy, n, &data, &answer);
		free(copy);
	}
	buf_puts(&expected, ws_cases[i].answer);
	if (ws_cases[i].status != WS_OPEN)
		ws_put_close(&expected, ws_cases[i].status);
	ck_assert_msg(status == ws_cases[i].status, "%zu by %zu: %d", i, piece, (int)status);
	ck_assert_str_eq(buf_text(&data), ws_cases[i].data);
	ck_assert_uint_eq(answer.len, expected.len);
	ck_assert_int_eq(memcmp(buf_text(&answer), buf_text(&expected), answer.len), 0);
	buf_fini(&data);
	buf_fini(&answer);
	buf_fini(&expected);
}

START_TEST(websocket_frames_are_taken_in_any_pieces_or_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(ws_cases); i++)
		for (size_t piece = 1; piece <= ws_cases[i].n; piece++)
			feed_case(i, piece);
}
END_TEST

/* A frame with a payload of n bytes has this head. */
static void check_put(size_t n, const char *head, size_t head_len)
{
	struct buf out = { 0 };
	uint8_t *zeros = calloc(1, n + 1);

	ws_put(&out, WS_BINARY, zeros, n);
	ck_assert_uint_eq(out.len, head_len + n);
	ck_assert_int_eq(memcmp(out.data, head, head_len), 0);
	free(zeros);
	buf_fini(&out);
}

START_TEST(websocket_frames_of_ours)
{
	char accept[WS_ACCEPT_LEN + 1];

	check_put(0, "\x82\0", 2);
	check_put(125, "\x82\x7d", 2);
	check_put(126, "\x82\x7e\0\x7e", 4);
	check_put(65535, "\x82\x7e\xff\xff", 4);
	check_put(65536, "\x82\x7f\0\0\0\0\0\x01\0\0", 10);
	ws_accept("dGhlIHNhbXBsZSBub25jZQ==", accept); /* RFC 6455 1.3 */
	ck_assert_str_eq(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		xml_requests,
		xml_nesting_and_size_are_bounded,
		json_requests,
		replies_byte_for_byte,
		values_byte_for_byte,
		a_map_member_by_member_is_the_map,
		parameters_take_the_type_of_the_model_or_are_refused,
		method_names,
		websocket_frames_are_taken_in_any_pieces_or_refused,
		websocket_frames_of_ours,
	};

	return suite_run("wire", tests, ARRAY_LEN(tests), 60);
}
