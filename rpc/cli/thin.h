/* The thin CLI protocol: a dumb client sends its arguments, the server sends frames that say what
 * to print, which files to move, and how to end. Here: bytes only, both directions.
 *
 *   greeting   27 bytes of text, u32 major, u32 minor; the server first
 *   frame      u32 length, then payload: kind (command, response, blob), tag, fields
 *   raw        the bytes of a chunk follow its frame, outside of any frame
 *
 * Integers are little-endian, a string is u32 length and bytes, a list u32 count and strings.
 * Invariant: no length from the wire is believed before it has been compared with the limits below
 * and with what is really there. Source: cli.md 2.
 */
#pragma once

#include "rpc/base/buf.h"

#define THIN_GREETING "XenSource thin CLI protocol"

enum {
	THIN_GREETING_LEN = 27 + 8,
	THIN_MAJOR = 0,
	THIN_MINOR = 2,
	THIN_FRAME_MAX = 32 << 20, /* bytes of a frame that a client takes */
	THIN_ASK_MAX = 4096,	   /* and that a server takes: responses and blob heads */
	THIN_LIST_MAX = 64,	   /* strings of an error */
	THIN_ARGS_MAX = 200 << 10, /* bytes of arguments, one per line */
};

enum thin_kind { THIN_COMMAND = 9, THIN_RESPONSE = 10, THIN_BLOB = 11 };

enum thin_tag {
	THIN_PRINT = 0,		/* text: to stdout, with a newline */
	THIN_LOAD = 1,		/* text: a file that the client sends */
	THIN_PROMPT = 3,	/* the client sends a line of its stdin */
	THIN_EXIT = 4,		/* number */
	THIN_OK = 5,		/* response */
	THIN_FAILED = 6,	/* response */
	THIN_CHUNK = 7,		/* blob; number: bytes that follow raw */
	THIN_END = 8,		/* blob */
	THIN_HTTP_GET = 12,	/* text: a file, "" for stdout; url */
	THIN_HTTP_PUT = 13,	/* text: a file; url */
	THIN_ERROR = 14,	/* text: code; list */
	THIN_DEBUG = 15,	/* text */
	THIN_PRINT_STDERR = 16, /* text: to stderr, as it is */
	THIN_HTTP_CONNECT = 17, /* url */
	THIN_WAIT = 18,		/* response: still at it */
};

struct thin_frame {
	enum thin_kind kind;
	enum thin_tag tag;
	const char *text, *url; /* "" where it has none */
	uint32_t number;
	unsigned n;
	const char *list[THIN_LIST_MAX];
};

/* Append. Of a frame only what its tag has is looked at; n is at most THIN_LIST_MAX. */
void thin_put_greeting(struct buf *out);
void thin_put(struct buf *out, const struct thin_frame *f);

/* 0, or ERR_CORRUPT: not the greeting, or another major version. p has THIN_GREETING_LEN bytes. */
int thin_greeting(const uint8_t *p);

/* The first frame in n bytes, none of more than max. Bytes it takes; 0: not all of it is here yet;
 * ERR_CORRUPT: no frame can begin so. Texts become NUL-terminated by moving them inside p (a byte
 * of the length before each gives the room) and live as long as p. A NUL inside a text ends it. */
int thin_take(uint8_t *p, size_t n, size_t max, struct thin_frame *out);
