/* A child of the agent (member/child.h) in which libxenguest works on one domain of ours: its files
 * are opened first, then it is nobody's, and all it can reach is Xen and those files. Where memory
 * is short the kernel ends this process, not the agent. */
#include "member/hv/xen/xen_child.h"
#include "member/hv/xen/xen_child_priv.h"
#include "member/child.h"
#include "rpc/base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xenctrl.h>

/* The library says why only here; the first error is the cause. */
static void on_message(struct xentoollog_logger *logger, xentoollog_level level, int errnoval,
	const char *context, const char *format, va_list args)
{
	struct xen_child *c = container_of(logger, struct xen_child, logger);

	(void)errnoval;
	(void)context;
	if (level >= XTL_ERROR && *c->text == 0)
		vsnprintf(c->text, sizeof c->text, format, args);
}

static void on_progress(struct xentoollog_logger *logger, const char *context, const char *what,
	int percent, unsigned long done, unsigned long total)
{
	(void)logger;
	(void)context;
	(void)what;
	(void)percent;
	(void)done;
	(void)total;
}

int xen_child_failed(struct xen_child *c, const char *what)
{
	char text[400];

	snprintf(text, sizeof text, "%s: %s", what, *c->text != 0 ? c->text : strerror(errno));
	return err_set(c->err, AGENT_ERR_domain_failed, text, NULL);
}

int64_t xen_child_number(const struct xen_child *c, const char *key)
{
	const struct val *v = val_get(c->params, key);

	return v != NULL && v->kind == VAL_INT ? v->i : 0;
}

int xen_child_map(struct xen_child *c, const char *key, struct xen_file *out)
{
	const char *path = val_get_s(c->params, key);
	struct stat found;
	int fd;

	*out = (struct xen_file){ NULL, 0 };
	if (path == NULL)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &found) != 0 || !S_ISREG(found.st_mode))
		return xen_child_failed(c, path);
	out->size = (size_t)found.st_size;
	out->data = mmap(NULL, out->size > 0 ? out->size : 1, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return out->data != MAP_FAILED ? 0 : xen_child_failed(c, path);
}

/* Where memory is short; where that cannot be said it is one among others. */
static void first_to_go(void)
{
	FILE *f = fopen("/proc/self/oom_score_adj", "we");

	if (f != NULL) {
		fputs("1000", f);
		fclose(f);
	}
}

int xen_child_open(struct xen_child *c)
{
	first_to_go();
	c->logger = (struct xentoollog_logger){ .vmessage = on_message, .progress = on_progress };
	c->xc = xc_interface_open(&c->logger, &c->logger, 0);
	if (c->xc == NULL)
		return xen_child_failed(c, "xc_interface_open");
	return child_drop_privileges() == 0 ? 0 : xen_child_failed(c, "giving up privileges");
}

static int answer(void *arg, struct arena *a, const char *method, const struct val *params,
	struct val *out, struct err *err)
{
	static const struct {
		const char *method;
		int (*fn)(struct xen_child *c);
	} methods[] = { { XEN_CHILD_BUILD, xen_child_build } };
	struct xen_child c = { .arena = a, .params = params, .out = val_map(), .err = err };
	int rc = -1;

	(void)arg;
	c.domid = (uint32_t)xen_child_number(&c, "domid");
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if (strcmp(methods[i].method, method) == 0)
			rc = methods[i].fn(&c);
	CHECK(rc == 0 || err->code != NULL); /* else it is none of our methods */
	*out = c.out;
	if (c.xc != NULL)
		xc_interface_close(c.xc);
	return rc;
}

int xen_child_main(void)
{
	return child_main(answer, NULL);
}
