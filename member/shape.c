/* Requests against the interface, all the way down: what a client sends is a set of bytes until
 * this has looked at it. What is not described is refused, so that a misspelt key is no silence. */
#include "member/agent_priv.h"

#include <string.h>

static const char *check_map(const struct agent_param *keys, unsigned n_keys, const struct val *map,
	struct arena *a, const char *where);

static bool is_choice(const char *choices, const char *s)
{
	size_t n = strlen(s);

	for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
		at += *at == '|';
		if (strncmp(at, s, n) == 0 && (at[n] == 0 || at[n] == '|'))
			return n > 0;
	}
	return false;
}

static const char *check_items(
	const struct agent_param *p, const struct val *v, struct arena *a, const char *where)
{
	const char *why = NULL;

	for (uint32_t i = 0; i < v->n && why == NULL; i++) {
		const struct val *item = v->kind == VAL_SET ? &v->items[i] : &v->pairs[i].value;

		if (item->kind != p->item)
			why = arena_printf(a, "%s has an item of the wrong type", where);
		else if (p->shape != NULL)
			why = check_map(p->shape->keys, p->shape->n_keys, item, a, where);
	}
	return why;
}

/* What is wrong, or NULL. */
static const char *check_value(
	const struct agent_param *p, const struct val *v, struct arena *a, const char *where)
{
	const char *here = arena_printf(a, "%s%s%s", where, *where ? "." : "", p->name);

	if (v->kind != p->kind)
		return arena_printf(a, "%s is of the wrong type", here);
	if (p->choices != NULL && !is_choice(p->choices, v->s))
		return arena_printf(a, "%s is none of %s", here, p->choices);
	if (p->kind == VAL_MAP && p->shape != NULL)
		return check_map(p->shape->keys, p->shape->n_keys, v, a, here);
	return p->item != VAL_VOID ? check_items(p, v, a, here) : NULL;
}

static const char *check_map(const struct agent_param *keys, unsigned n_keys, const struct val *map,
	struct arena *a, const char *where)
{
	const char *why = NULL;
	uint32_t known = 0;

	CHECK(map->kind == VAL_MAP);
	for (unsigned i = 0; i < n_keys && why == NULL; i++) {
		const struct val *v = val_get(map, keys[i].name);

		known += v != NULL;
		if (v != NULL)
			why = check_value(&keys[i], v, a, where);
		else if (keys[i].required)
			why = arena_printf(
				a, "%s%s%s is missing", where, *where ? "." : "", keys[i].name);
	}
	return why == NULL && known < map->n ? arena_printf(a, "%s has an unknown or a double key",
						       *where ? where : "the request")
					     : why;
}

int agent_check_params(const struct agent_method *method, const struct val *params, struct arena *a,
	struct err *err)
{
	const char *why = check_map(method->params, method->n_params, params, a, "");

	return why == NULL ? 0 : err_set(err, AGENT_ERR_bad_request, why, NULL);
}
