#include "rpc/base/env.h"
#include "rpc/base/hash.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

uint64_t env_now_us(struct env *env)
{
	return env->ops->now_us(env);
}

uint64_t env_now_ms(struct env *env)
{
	return env->ops->now_us(env) / 1000;
}

int64_t env_wall_s(struct env *env)
{
	return env->ops->wall_s(env);
}

void env_random(struct env *env, void *out, size_t n)
{
	env->ops->random(env, out, n);
}

void env_die(struct env *env, const char *why)
{
	log_err(env, "event=fail_stop why=\"%s\"", why);
	env->ops->die(env);
}

static void uuid_print(uint8_t b[16], uint8_t version, char out[UUID_LEN + 1])
{
	b[6] = (uint8_t)((b[6] & 0x0f) | version << 4);
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	snprintf(out, UUID_LEN + 1,
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
		b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
		b[15]);
}

void env_uuid(struct env *env, char out[UUID_LEN + 1])
{
	uint8_t b[16];

	env_random(env, b, sizeof b);
	uuid_print(b, 4, out);
}

void uuid_derive(const char *from, const char *word, char out[UUID_LEN + 1])
{
	char text[UUID_LEN + UUID_WORD_MAX + 2];
	int n = snprintf(text, sizeof text, "%s/%s", from, word);
	uint64_t h[2];

	CHECK(n > 0 && n < (int)sizeof text);
	for (unsigned i = 0; i < 2; i++)
		h[i] = XXH3_64bits_withSeed(text, (size_t)n, i);
	uuid_print((uint8_t *)h, 8, out);
}

bool uuid_ok(const char *s)
{
	if (strlen(s) != UUID_LEN)
		return false;
	for (int i = 0; i < UUID_LEN; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	}
	return true;
}
