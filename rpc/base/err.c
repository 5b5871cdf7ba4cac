#include "rpc/base/err.h"
#include "rpc/base/check.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int err_set_list(
	struct err *err, const struct err_code *code, const char *const *params, unsigned n)
{
	struct err fresh = { .code = code };

	CHECK(code != NULL);
	for (unsigned i = 0; i < n && i < ERR_PARAMS_MAX; i++)
		fresh.params[fresh.n++] = must(strdup(params[i]));
	err_fini(err);
	*err = fresh;
	return ERR_API;
}

int err_set(struct err *err, const struct err_code *code, ...)
{
	const char *params[ERR_PARAMS_MAX];
	unsigned n = 0;
	const char *s;
	va_list ap;

	va_start(ap, code);
	while ((s = va_arg(ap, const char *)) != NULL) {
		CHECK(n < ERR_PARAMS_MAX);
		params[n++] = s;
	}
	va_end(ap);
	return err_set_list(err, code, params, n);
}

void err_move(struct err *dst, struct err *src)
{
	if (dst == src)
		return;
	err_fini(dst);
	*dst = *src;
	*src = (struct err){ 0 };
}

void err_fini(struct err *err)
{
	while (err->n > 0)
		free(err->params[--err->n]);
	err->code = NULL;
}

int err_check(int rc, const struct err *err)
{
	CHECK((rc == ERR_API) == (err->code != NULL));
	return rc;
}

const char *err_rc_name(int rc)
{
	static const char *const names[] = { "ok", "api", "io", "timeout", "cancelled", "dead",
		"full", "corrupt", "closed", "version" };
	unsigned i = rc <= 0 ? (unsigned)-rc : 0;

	return i < sizeof names / sizeof names[0] ? names[i] : "unknown";
}
