/* A guest's kernel and ram disk into its domain: what the agent does about it. The work itself is a
 * child's (xen_child_build.c), for libxenguest blocks, and its readers of kernels see what clients
 * bring; this domain is all that a hang or a crash concerns. */
#include "member/hv/xen/xen_child_priv.h"
#include "member/hv/xen/xen_priv.h"
#include "member/child.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The file itself, below the folder for such files and of a size that can be. */
static int boot_file(
	const struct hv_state *hv, const char *path, char out[PATH_MAX], struct err *err)
{
	char dir[PATH_MAX], text[PATH_MAX + 80];
	struct stat found;
	size_t n;

	if (realpath(path, out) == NULL || stat(out, &found) != 0 || !S_ISREG(found.st_mode)) {
		snprintf(text, sizeof text, "%s is no file of this host", path);
		return xen_wrong(err, text);
	}
	n = realpath(hv->boot_dir, dir) != NULL ? strlen(dir) : 0;
	if (n == 0 || strncmp(out, dir, n) != 0 || out[n] != '/') {
		snprintf(text, sizeof text, "%s does not lie below %s, see --boot-dir", path,
			hv->boot_dir);
		return xen_wrong(err, text);
	}
	if (found.st_size > XEN_KERNEL_MAX) {
		snprintf(text, sizeof text, "%s has more than %d bytes", path, XEN_KERNEL_MAX);
		return xen_wrong(err, text);
	}
	return 0;
}

void xen_rings_put(struct arena *a, struct val *out, const struct xen_rings *r)
{
	*out = val_map();
	val_map_push(a, out, "store_port", val_int(r->store_port));
	val_map_push(a, out, "console_port", val_int(r->console_port));
	val_map_push(a, out, "store_frame", val_int((int64_t)r->store_frame));
	val_map_push(a, out, "console_frame", val_int((int64_t)r->console_frame));
}

static bool rings_get(const struct val *from, struct xen_rings *out)
{
	static const char *const keys[] = { "store_port", "console_port", "store_frame",
		"console_frame" };
	int64_t n[ARRAY_LEN(keys)];

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		const struct val *v = val_get(from, keys[i]);

		if (v == NULL || v->kind != VAL_INT || v->i <= 0)
			return false;
		n[i] = v->i;
	}
	*out = (struct xen_rings){ (unsigned)n[0], (unsigned)n[1], (unsigned long)n[2],
		(unsigned long)n[3] };
	return true;
}

int xen_child_ask(struct hv_state *hv, struct arena *a, const char *method,
	const struct val *params, int64_t kib, struct xen_rings *rings, struct err *err)
{
	static const struct err_code *const told[] = { AGENT_ERR_domain_failed, NULL };
	const struct child child = { .name = "xen",
		.args = { "--xen" },
		.within_ms =
			1000 * ((uint64_t)hv->work_s + (uint64_t)(kib >> 20) * XEN_CHILD_GIB_S),
		.told = told };
	char why[CHILD_WHY_MAX], text[CHILD_WHY_MAX + 80];
	struct val out = val_void();
	int rc = child_ask(hv->env, a, &child, method, params, &out, err, why);

	if (rc == ERR_API || (rc == 0 && rings_get(&out, rings)))
		return rc;
	snprintf(text, sizeof text, "the process for libxenguest's %s %s", method,
		rc != 0 ? why : "gave no rings");
	return err_set(err, AGENT_ERR_domain_failed, text, NULL);
}

static struct val question(struct arena *a, int domid, const struct hv_config *c,
	const char *kernel, const char *ramdisk)
{
	struct val v = val_map();

	val_map_push(a, &v, "domid", val_int(domid));
	val_map_push(a, &v, "type", val_string(c->type));
	val_map_push(a, &v, "kernel", val_string(kernel));
	if (ramdisk != NULL)
		val_map_push(a, &v, "ramdisk", val_string(ramdisk));
	if (c->kernel_args != NULL)
		val_map_push(a, &v, "args", val_string(c->kernel_args));
	val_map_push(a, &v, "memory_kib", val_int(c->memory_kib));
	val_map_push(a, &v, "memory_max_kib", val_int(c->memory_max_kib));
	val_map_push(a, &v, "vcpus_max", val_int(c->vcpus_max));
	return v;
}

int xen_build(struct hv_state *hv, int domid, const struct hv_config *c, struct err *err)
{
	char kernel[PATH_MAX], ramdisk[PATH_MAX];
	struct xen_rings rings;
	struct arena a;
	struct val v;
	int rc = boot_file(hv, c->kernel, kernel, err);

	if (rc == 0 && c->ramdisk != NULL)
		rc = boot_file(hv, c->ramdisk, ramdisk, err);
	if (rc != 0)
		return rc;
	arena_init(&a);
	v = question(&a, domid, c, kernel, c->ramdisk != NULL ? ramdisk : NULL);
	rc = xen_child_ask(hv, &a, XEN_CHILD_BUILD, &v, c->memory_kib, &rings, err);
	arena_fini(&a);
	return rc != 0 ? rc : xen_introduce(hv, domid, &rings, err);
}
