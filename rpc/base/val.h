/* Values of the API: what the wire codecs decode into and encode from, and what rows are made of.
 *
 * A tree in an arena; strings are NUL-terminated UTF-8 without control characters that XML forbids
 * (checked by the decoders, val_text_ok). Datetimes are whole seconds since 1970 UTC. A map keeps
 * its order.
 */
#pragma once

#include "rpc/base/arena.h"
#include "rpc/base/buf.h"

enum val_kind {
	VAL_VOID,
	VAL_STRING, /* also references and enumeration values */
	VAL_INT,
	VAL_INT32, /* only for the counts in event.from: <i4> in XML */
	VAL_FLOAT,
	VAL_BOOL,
	VAL_DATETIME,
	VAL_SET,
	VAL_MAP,
	VAL_ENCODED, /* only in results: text in the encoding of the reply already */
};

struct val {
	enum val_kind kind;
	union {
		const char *s; /* VAL_ENCODED: n bytes */
		int64_t i;     /* VAL_INT, VAL_INT32, VAL_DATETIME */
		double f;
		bool b;
		struct {
			struct val *items;
			struct val_pair *pairs;
			uint32_t n, cap;
		};
	};
};

struct val_pair {
	const char *key;
	struct val value;
};

enum { VAL_DEPTH_MAX = 64 };

struct val val_void(void);
struct val val_string(const char *s); /* borrowed */
struct val val_int(int64_t i);
struct val val_float(double f);
struct val val_bool(bool b);
struct val val_datetime(int64_t seconds);
struct val val_set(void);
struct val val_map(void);
struct val val_encoded(const char *text, size_t n); /* borrowed */

/* Append; the strings stay the caller's, the arrays grow in the arena. */
void val_set_push(struct arena *a, struct val *set, struct val item);
void val_map_push(struct arena *a, struct val *map, const char *key, struct val value);

/* The value of a key, NULL when absent or when this is no map (or NULL); borrowed from the map. */
const struct val *val_get(const struct val *map, const char *key);
/* The text of a string member, NULL when absent or of another kind. */
const char *val_get_s(const struct val *map, const char *key);
/* Is there a string item s in the set? */
bool val_set_has(const struct val *set, const char *s);
bool val_equal(const struct val *a, const struct val *b);
/* Deep copy into the arena. */
struct val val_dup(struct arena *a, const struct val *v);

/* Binary form: kind byte, then the value; strings as buf_str. Used in log entries, rows and
 * snapshots (docs/formats.md). val_unpack fails (reader bad) on unknown kinds and on nesting over
 * VAL_DEPTH_MAX; its strings point into the input. */
void val_pack(struct buf *out, const struct val *v);
struct val val_unpack(struct reader *in, struct arena *a);

/* As JSON: dates as strings, void as "". */
void val_json(struct buf *out, const struct val *v);
/* A string in quotes. */
void val_json_text(struct buf *out, const char *s);
/* As the reference keeps it in its database and compares it in filters: strings bare, sets and maps
 * as s-expressions of quoted strings. */
void val_text(struct buf *out, const struct val *v);

/* Valid UTF-8 and only characters legal in XML 1.0 (tab, LF, CR and from space on). */
bool val_text_ok(const char *s);

/* 16 digits, 17 when needed to be exact; out has VAL_FLOAT_MAX bytes. */
enum { VAL_FLOAT_MAX = 40 };
void val_float_print(double f, char *out);

/* "20260821T02:00:23Z"; out has VAL_DATETIME_MAX bytes. */
enum { VAL_DATETIME_MAX = 32 };
void val_datetime_print(int64_t seconds, char *out);
/* Accepts YYYYMMDDThh:mm:ss and YYYY-MM-DDThh:mm:ss, a fraction, and Z, an offset or nothing (taken
 * as UTC). */
bool val_datetime_parse(const char *s, int64_t *seconds_out);
