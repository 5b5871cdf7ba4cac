/* Tokens of event.from: see event_priv.h. Clients take them as opaque, but compare them as text. */
#include "pool/event_priv.h"
#include "rpc/base/hash.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPOCH_STEP UINT64_C(10000000000000000) /* 10^16 */
#define COUNT_STEP UINT64_C(1000000000000)     /* 10^12 */
enum { TAGS = 9999, FIELD = 20, TAG = 4 };

struct event_tokens event_tokens_of(uint64_t epoch, const char *epoch_id, uint64_t member)
{
	return (struct event_tokens){ epoch, (unsigned)(hash_text(epoch_id) % TAGS),
		(unsigned)(hash_bytes(&member, sizeof member) % TAGS) };
}

void event_token_print(const struct event_tokens *t, const struct event_position *at,
	char out[EVENT_TOKEN_LEN + 1])
{
	int n = snprintf(out, EVENT_TOKEN_LEN + 1, "%020" PRIu64 ",%04u%04u%012" PRIu64,
		t->epoch * EPOCH_STEP + at->index, t->epoch_tag, t->member_tag,
		at->numbers % COUNT_STEP);

	CHECK(n == EVENT_TOKEN_LEN && at->index < EPOCH_STEP && !at->first);
}

void event_token_before(const struct event_tokens *t, uint64_t index, char out[EVENT_TOKEN_LEN + 1])
{
	int n = snprintf(out, EVENT_TOKEN_LEN + 1, "%020" PRIu64 ",99999999999999999999",
		t->epoch * EPOCH_STEP + index - 1);

	CHECK(n == EVENT_TOKEN_LEN && index > 0);
}

static bool digits(const char *s, int n, uint64_t *out)
{
	char text[FIELD + 1];
	char *end;

	for (int i = 0; i < n; i++)
		if (!isdigit((unsigned char)s[i]))
			return false;
	memcpy(text, s, (size_t)n);
	text[n] = 0;
	*out = strtoull(text, &end, 10);
	return *end == 0;
}

int event_token_parse(
	const struct event_tokens *t, const char *text, struct event_position *out, struct err *err)
{
	uint64_t place, tag, rest;

	*out = (struct event_position){ .first = *text == 0 };
	if (out->first)
		return 0;
	if (strlen(text) != EVENT_TOKEN_LEN || text[FIELD] != ',' || !digits(text, FIELD, &place) ||
		!digits(text + FIELD + 1, TAG, &tag) ||
		!digits(text + FIELD + 1 + TAG, FIELD - TAG, &rest))
		return err_set(err, ERR_EVENT_FROM_TOKEN_PARSE_FAILURE, text, NULL);
	if (place / EPOCH_STEP != t->epoch || (tag != TAGS && tag != t->epoch_tag))
		return err_set(err, ERR_EVENTS_LOST, NULL);
	out->index = place % EPOCH_STEP;
	out->numbers = rest % COUNT_STEP;
	out->elsewhere = rest / COUNT_STEP != t->member_tag;
	return 0;
}
