/* See websocket.h. A frame (RFC 6455 5.2):
 *
 *   FIN 1 bit, RSV 3, opcode 4 | MASK 1, length 7 (126: 16 bits follow, 127: 64) | mask 32 |
 * payload
 */
#include "rpc/wire/websocket.h"
#include "rpc/base/tls.h"

#include <stdio.h>
#include <string.h>

enum { FIN = 0x80, RSV = 0x70, OPCODE = 0x0f, MASK = 0x80, LENGTH = 0x7f, MASK_LEN = 4 };

static unsigned length_bytes(const struct ws_reader *r)
{
	unsigned n = r->head[1] & LENGTH;

	return n == 127 ? 8 : n == 126 ? 2 : 0;
}

static bool head_complete(const struct ws_reader *r)
{
	return r->n_head >= 2 && r->n_head == 2 + length_bytes(r) + MASK_LEN;
}

static uint64_t payload_length(const struct ws_reader *r)
{
	unsigned n = length_bytes(r);
	uint64_t len = 0;

	for (unsigned i = 0; i < n; i++)
		len = len << 8 | r->head[2 + i];
	return n > 0 ? len : r->head[1] & LENGTH;
}

static enum ws_opcode opcode_of(const struct ws_reader *r)
{
	return (enum ws_opcode)(r->head[0] & OPCODE);
}

static bool is_control(const struct ws_reader *r)
{
	return (r->head[0] & 8) != 0;
}

/* The first two bytes say what is no frame of ours. */
static enum ws_status judge_kind(const struct ws_reader *r)
{
	bool fin = (r->head[0] & FIN) != 0;

	if ((r->head[0] & RSV) != 0 || (r->head[1] & MASK) == 0)
		return WS_PROTOCOL_ERROR;
	switch (opcode_of(r)) {
	case WS_CONTINUATION: return r->in_message ? WS_OPEN : WS_PROTOCOL_ERROR;
	case WS_BINARY: return r->in_message ? WS_PROTOCOL_ERROR : WS_OPEN;
	case WS_TEXT: return WS_UNSUPPORTED;
	case WS_CLOSE:
	case WS_PING:
	case WS_PONG:
		return fin && (r->head[1] & LENGTH) <= WS_CONTROL_MAX ? WS_OPEN : WS_PROTOCOL_ERROR;
	default: return WS_PROTOCOL_ERROR;
	}
}

static enum ws_status frame_begin(struct ws_reader *r)
{
	r->left = payload_length(r);
	r->at = 0;
	r->in_payload = true;
	if (!is_control(r))
		r->in_message = (r->head[0] & FIN) == 0;
	return r->left > WS_FRAME_MAX ? WS_TOO_BIG : WS_OPEN;
}

/* Its last byte has come. */
static enum ws_status frame_end(struct ws_reader *r, struct buf *answer)
{
	r->in_payload = false;
	r->n_head = 0;
	if (opcode_of(r) == WS_PING)
		ws_put(answer, WS_PONG, r->control, r->at);
	return opcode_of(r) == WS_CLOSE ? WS_NORMAL : WS_OPEN;
}

/* Returns how many it took. */
static size_t payload(struct ws_reader *r, const uint8_t *p, size_t n, struct buf *data)
{
	const uint8_t *mask = r->head + r->n_head - MASK_LEN;
	size_t take = n < r->left ? n : (size_t)r->left;
	uint8_t *to = is_control(r) ? r->control + r->at : buf_room(data, take);

	for (size_t i = 0; i < take; i++)
		to[i] = p[i] ^ mask[(r->at + i) % MASK_LEN];
	if (!is_control(r))
		data->len += take;
	r->at += take;
	r->left -= take;
	return take;
}

static enum ws_status feed(
	struct ws_reader *r, const uint8_t *p, size_t n, struct buf *data, struct buf *answer)
{
	enum ws_status status = WS_OPEN;
	size_t i = 0;

	while (status == WS_OPEN && i < n) {
		if (r->in_payload) {
			i += payload(r, p + i, n - i, data);
		} else {
			r->head[r->n_head++] = p[i++];
			if (r->n_head == 2)
				status = judge_kind(r);
			if (status == WS_OPEN && head_complete(r))
				status = frame_begin(r);
		}
		if (status == WS_OPEN && r->in_payload && r->left == 0)
			status = frame_end(r, answer);
	}
	return status;
}

enum ws_status ws_feed(
	struct ws_reader *r, const uint8_t *p, size_t n, struct buf *data, struct buf *answer)
{
	enum ws_status status = feed(r, p, n, data, answer);

	if (status != WS_OPEN)
		ws_put_close(answer, status);
	return status;
}

void ws_put(struct buf *out, enum ws_opcode opcode, const void *p, size_t n)
{
	unsigned bytes = n > UINT16_MAX ? 8 : n > WS_CONTROL_MAX ? 2 : 0;

	buf_u8(out, (uint8_t)(FIN | opcode));
	buf_u8(out, bytes == 8 ? 127 : bytes == 2 ? 126 : (uint8_t)n);
	for (unsigned i = bytes; i-- > 0;)
		buf_u8(out, (uint8_t)((uint64_t)n >> 8 * i));
	buf_put(out, p, n);
}

void ws_put_close(struct buf *out, enum ws_status status)
{
	const uint8_t code[] = { (uint8_t)(status >> 8), (uint8_t)status };

	ws_put(out, WS_CLOSE, code, sizeof code);
}

void ws_accept(const char *key, char out[WS_ACCEPT_LEN + 1])
{
	struct buf text = { 0 };

	buf_printf(&text, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
	tls_sha1_base64(buf_text(&text), out);
	buf_fini(&text);
}
