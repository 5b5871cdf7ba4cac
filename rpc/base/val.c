#include "rpc/base/val.h"
#include "rpc/base/check.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct val val_void(void)
{
	return (struct val){ .kind = VAL_VOID };
}

struct val val_string(const char *s)
{
	CHECK(s != NULL);
	return (struct val){ .kind = VAL_STRING, .s = s };
}

struct val val_int(int64_t i)
{
	return (struct val){ .kind = VAL_INT, .i = i };
}

struct val val_float(double f)
{
	return (struct val){ .kind = VAL_FLOAT, .f = f };
}

struct val val_bool(bool b)
{
	return (struct val){ .kind = VAL_BOOL, .b = b };
}

struct val val_datetime(int64_t seconds)
{
	return (struct val){ .kind = VAL_DATETIME, .i = seconds };
}

struct val val_set(void)
{
	return (struct val){ .kind = VAL_SET };
}

struct val val_map(void)
{
	return (struct val){ .kind = VAL_MAP };
}

struct val val_encoded(const char *text, size_t n)
{
	struct val v = { .kind = VAL_ENCODED };

	CHECK(n <= UINT32_MAX);
	v.s = text;
	v.n = (uint32_t)n;
	return v;
}

/* Arenas cannot resize: double and copy, so that n pushes cost O(n). */
static void *grown(struct arena *a, const void *old, uint32_t n, uint32_t *cap, size_t size)
{
	void *p;

	*cap = *cap ? 2 * *cap : 4;
	p = arena_alloc(a, *cap * size);
	if (n > 0)
		memcpy(p, old, n * size);
	return p;
}

void val_set_push(struct arena *a, struct val *set, struct val item)
{
	CHECK(set->kind == VAL_SET);
	if (set->n == set->cap)
		set->items = grown(a, set->items, set->n, &set->cap, sizeof *set->items);
	set->items[set->n++] = item;
}

void val_map_push(struct arena *a, struct val *map, const char *key, struct val value)
{
	CHECK(map->kind == VAL_MAP);
	if (map->n == map->cap)
		map->pairs = grown(a, map->pairs, map->n, &map->cap, sizeof *map->pairs);
	map->pairs[map->n++] = (struct val_pair){ key, value };
}

const struct val *val_get(const struct val *map, const char *key)
{
	if (map == NULL || map->kind != VAL_MAP)
		return NULL;
	for (uint32_t i = 0; i < map->n; i++)
		if (strcmp(map->pairs[i].key, key) == 0)
			return &map->pairs[i].value;
	return NULL;
}

const char *val_get_s(const struct val *map, const char *key)
{
	const struct val *v = val_get(map, key);

	return v != NULL && v->kind == VAL_STRING ? v->s : NULL;
}

bool val_set_has(const struct val *set, const char *s)
{
	for (uint32_t i = 0; set->kind == VAL_SET && i < set->n; i++)
		if (set->items[i].kind == VAL_STRING && strcmp(set->items[i].s, s) == 0)
			return true;
	return false;
}

bool val_equal(const struct val *a, const struct val *b)
{
	if (a->kind != b->kind)
		return false;
	switch (a->kind) {
	case VAL_VOID: return true;
	case VAL_STRING: return strcmp(a->s, b->s) == 0;
	case VAL_INT:
	case VAL_INT32:
	case VAL_DATETIME: return a->i == b->i;
	case VAL_FLOAT: return memcmp(&a->f, &b->f, sizeof a->f) == 0;
	case VAL_BOOL: return a->b == b->b;
	case VAL_SET:
		for (uint32_t i = 0; a->n == b->n && i < a->n; i++)
			if (!val_equal(&a->items[i], &b->items[i]))
				return false;
		return a->n == b->n;
	case VAL_MAP:
		for (uint32_t i = 0; a->n == b->n && i < a->n; i++)
			if (strcmp(a->pairs[i].key, b->pairs[i].key) != 0 ||
				!val_equal(&a->pairs[i].value, &b->pairs[i].value))
				return false;
		return a->n == b->n;
	case VAL_ENCODED: break;
	}
	UNREACHABLE();
}

struct val val_dup(struct arena *a, const struct val *v)
{
	struct val copy = *v;

	if (v->kind == VAL_STRING) {
		copy.s = arena_strdup(a, v->s);
	} else if (v->kind == VAL_SET) {
		copy = val_set();
		for (uint32_t i = 0; i < v->n; i++)
			val_set_push(a, &copy, val_dup(a, &v->items[i]));
	} else if (v->kind == VAL_MAP) {
		copy = val_map();
		for (uint32_t i = 0; i < v->n; i++)
			val_map_push(a, &copy, arena_strdup(a, v->pairs[i].key),
				val_dup(a, &v->pairs[i].value));
	}
	return copy;
}

void val_pack(struct buf *out, const struct val *v)
{
	uint64_t bits;

	buf_u8(out, (uint8_t)v->kind);
	switch (v->kind) {
	case VAL_VOID: break;
	case VAL_STRING: buf_str(out, v->s); break;
	case VAL_INT:
	case VAL_INT32:
	case VAL_DATETIME: buf_u64(out, (uint64_t)v->i); break;
	case VAL_FLOAT:
		memcpy(&bits, &v->f, sizeof bits);
		buf_u64(out, bits);
		break;
	case VAL_BOOL: buf_u8(out, v->b); break;
	case VAL_SET:
		buf_u32(out, v->n);
		for (uint32_t i = 0; i < v->n; i++)
			val_pack(out, &v->items[i]);
		break;
	case VAL_MAP:
		buf_u32(out, v->n);
		for (uint32_t i = 0; i < v->n; i++) {
			buf_str(out, v->pairs[i].key);
			val_pack(out, &v->pairs[i].value);
		}
		break;
	case VAL_ENCODED: UNREACHABLE();
	}
}

static struct val unpack(struct reader *in, struct arena *a, unsigned depth)
{
	uint8_t kind = rd_u8(in);
	struct val v = { .kind = VAL_VOID };
	uint64_t bits;
	uint32_t n;

	if (kind > VAL_MAP || depth > VAL_DEPTH_MAX) {
		in->bad = true;
		return v;
	}
	v.kind = (enum val_kind)kind;
	switch (v.kind) {
	case VAL_VOID: break;
	case VAL_STRING: v.s = rd_str(in); break;
	case VAL_INT:
	case VAL_INT32:
	case VAL_DATETIME: v.i = (int64_t)rd_u64(in); break;
	case VAL_FLOAT:
		bits = rd_u64(in);
		memcpy(&v.f, &bits, sizeof bits);
		break;
	case VAL_BOOL: v.b = rd_u8(in) != 0; break;
	case VAL_SET:
		n = rd_u32(in);
		v = val_set();
		/* every item takes at least a byte: a false count ends at the end of the input */
		for (uint32_t i = 0; i < n && !in->bad; i++)
			val_set_push(a, &v, unpack(in, a, depth + 1));
		break;
	case VAL_MAP:
		n = rd_u32(in);
		v = val_map();
		for (uint32_t i = 0; i < n && !in->bad; i++) {
			const char *key = rd_str(in);
			struct val item = unpack(in, a, depth + 1);

			val_map_push(a, &v, key, item);
		}
		break;
	case VAL_ENCODED: UNREACHABLE();
	}
	return in->bad ? val_void() : v;
}

struct val val_unpack(struct reader *in, struct arena *a)
{
	return unpack(in, a, 0);
}

bool val_text_ok(const char *s)
{
	const uint8_t *p = (const uint8_t *)s;

	while (*p) {
		uint32_t c = *p++;
		unsigned more = 0;
		uint32_t least = 0;

		if (c < 0x80) {
			if (c < 0x20 && c != '\t' && c != '\n' && c != '\r')
				return false;
			continue;
		} else if ((c & 0xe0) == 0xc0) {
			more = 1, least = 0x80, c &= 0x1f;
		} else if ((c & 0xf0) == 0xe0) {
			more = 2, least = 0x800, c &= 0x0f;
		} else if ((c & 0xf8) == 0xf0) {
			more = 3, least = 0x10000, c &= 0x07;
		} else {
			return false;
		}
		while (more-- > 0) {
			if ((*p & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*p++ & 0x3f);
		}
		if (c < least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) || c == 0xfffe ||
			c == 0xffff)
			return false;
	}
	return true;
}

void val_datetime_print(int64_t seconds, char *out)
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (gmtime_r(&t, &tm) == NULL || tm.tm_year > 8099 || tm.tm_year < -1900) {
		strcpy(out, "19700101T00:00:00Z");
		return;
	}
	snprintf(out, VAL_DATETIME_MAX, "%04d%02d%02dT%02d:%02d:%02dZ", (tm.tm_year + 1900) % 10000,
		tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* n digits as a number, -1 when there are not as many. */
static int digits(const char **s, int n)
{
	int v = 0;

	while (n-- > 0) {
		if (!isdigit((unsigned char)**s))
			return -1;
		v = v * 10 + (*(*s)++ - '0');
	}
	return v;
}

static bool skip(const char **s, char c)
{
	if (**s != c)
		return false;
	(*s)++;
	return true;
}

/* The 30th of February is none, though timegm would take it. */
static bool is_day(const struct tm *tm)
{
	struct tm day = { .tm_year = tm->tm_year, .tm_mon = tm->tm_mon, .tm_mday = tm->tm_mday };

	timegm(&day);
	return day.tm_mday == tm->tm_mday;
}

bool val_datetime_parse(const char *s, int64_t *seconds_out)
{
	/* years 0 to 9999: what four digits can print */
	const int64_t first = INT64_C(-62167219200), last = INT64_C(253402300799);
	struct tm tm = { 0 };
	int sign = 0, h = 0, m = 0, year = digits(&s, 4);
	bool dashes = skip(&s, '-');

	tm.tm_year = year - 1900;
	tm.tm_mon = digits(&s, 2) - 1;
	if (dashes && !skip(&s, '-'))
		return false;
	tm.tm_mday = digits(&s, 2);
	if (!skip(&s, 'T'))
		return false;
	tm.tm_hour = digits(&s, 2);
	if (!skip(&s, ':'))
		return false;
	tm.tm_min = digits(&s, 2);
	if (!skip(&s, ':'))
		return false;
	tm.tm_sec = digits(&s, 2);
	if (year < 0 || tm.tm_mon < 0 || tm.tm_mon > 11 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
		tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 || tm.tm_min > 59 ||
		tm.tm_sec < 0 || tm.tm_sec > 60 || !is_day(&tm))
		return false;
	if (skip(&s, '.'))
		while (isdigit((unsigned char)*s))
			s++;
	if (*s == '+' || *s == '-') {
		sign = *s++ == '+' ? 1 : -1;
		h = digits(&s, 2);
		skip(&s, ':');
		m = digits(&s, 2);
		if (h < 0 || h > 23 || m < 0 || m > 59)
			return false;
	} else {
		skip(&s, 'Z');
	}
	*seconds_out = (int64_t)timegm(&tm) - sign * (h * 3600 + m * 60);
	return *s == 0 && *seconds_out >= first && *seconds_out <= last;
}
