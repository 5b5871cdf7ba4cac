/* The file is written by people and tests; nothing in it is believed unseen. */
#include "member/hv/sim/sim_nics.h"
#include "rpc/base/file.h"
#include "rpc/wire/codec.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 64 << 10, DEVICE_MAX = 15, MAC_TEXT = 17, MTU_MAX = 65535 };

static int make(struct env *env, const char *path)
{
	uint8_t b[5];
	char text[96];
	int n;

	env_random(env, b, sizeof b);
	n = snprintf(text, sizeof text,
		"[{\"device\": \"eth0\", \"mac\": \"02:%02x:%02x:%02x:%02x:%02x\", \"mtu\": "
		"1500}]\n",
		b[0], b[1], b[2], b[3], b[4]);
	return file_replace(path, text, (size_t)n);
}

static bool device_ok(const char *s)
{
	size_t n = s != NULL ? strlen(s) : 0;

	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && strchr("._-", s[i]) == NULL)
			return false;
	return n >= 1 && n <= DEVICE_MAX;
}

static bool mac_ok(const char *s)
{
	if (s == NULL || strlen(s) != MAC_TEXT)
		return false;
	for (unsigned i = 0; i < MAC_TEXT; i++)
		if (i % 3 == 2 ? s[i] != ':'
			       : !isdigit((unsigned char)s[i]) && strchr("abcdef", s[i]) == NULL)
			return false;
	return true;
}

/* What is wrong with it; NULL: nothing. */
static const char *fault_of(const struct val *list)
{
	if (list->kind != VAL_SET)
		return "it is no list";
	if (list->n > HV_NICS_MAX)
		return "it has too many ports";
	for (uint32_t i = 0; i < list->n; i++) {
		const struct val *one = &list->items[i], *mtu = val_get(one, "mtu");

		if (!device_ok(val_get_s(one, "device")))
			return "a port has no device";
		if (!mac_ok(val_get_s(one, "mac")))
			return "a port has no mac (six pairs of small hexadecimal digits, colons)";
		if (mtu == NULL || mtu->kind != VAL_INT || mtu->i < 1 || mtu->i > MTU_MAX)
			return "a port has no mtu";
		for (uint32_t k = 0; k < i; k++)
			if (strcmp(val_get_s(&list->items[k], "device"),
				    val_get_s(one, "device")) == 0)
				return "two ports have one device";
	}
	return NULL;
}

int sim_nics_read(
	struct env *env, const char *dir, struct arena *a, struct val *out, struct err *err)
{
	const char *path = arena_printf(a, "%s/nics.json", dir), *all, *why;
	struct buf text = { 0 };
	int rc = file_read(path, TEXT_MAX, &text);

	if (rc != 0 && errno == ENOENT && make(env, path) == 0)
		rc = file_read(path, TEXT_MAX, &text);
	if (rc != 0) {
		buf_fini(&text);
		return err_set(err, AGENT_ERR_domain_failed,
			arena_printf(a, "%s: %s", path, strerror(errno)), NULL);
	}
	all = arena_strndup(a, (const char *)text.data, text.len);
	buf_fini(&text);
	if (rpc_json_parse(a, all, strlen(all), out, &why) == 0)
		why = fault_of(out);
	return why == NULL ? 0
			   : err_set(err, AGENT_ERR_domain_failed,
				     arena_printf(a, "%s: %s", path, why), NULL);
}
