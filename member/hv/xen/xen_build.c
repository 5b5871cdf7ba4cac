/* A PV guest's kernel and ram disk into an empty domain, by libxenguest.
 *
 * All of it is in one call with a handle of its own and no lock: what blocks or fails here concerns
 * this domain, and it can move to a process of its own as it is.
 */
#include "member/hv/xen/xen_priv.h"

#include <xenctrl.h>
#include <xenguest.h>
#include <xentoollog.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The library says why only here. */
struct listener {
	xentoollog_logger base; /* first: it is what the library knows */
	char text[256];
};

static void on_message(struct xentoollog_logger *logger, xentoollog_level level, int errnoval,
	const char *context, const char *format, va_list args)
{
	struct listener *l = (struct listener *)(void *)logger;

	(void)errnoval;
	(void)context;
	if (level >= XTL_ERROR && *l->text == 0) /* the first is the cause */
		vsnprintf(l->text, sizeof l->text, format, args);
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

struct building {
	xc_interface *xc;
	struct xc_dom_image *dom;
	uint32_t domid;
	const struct hv_config *config;
	const char *kernel, *ramdisk;
	struct xen_rings *rings;
};

/* Memory map, clock, processor and channels: what an empty domain lacks. */
static const char *prepare(struct building *b)
{
	struct e820entry ram = { 0, (uint64_t)b->config->memory_max_kib << 10, 1 };
	int store, console;

	if (xc_domain_set_memory_map(b->xc, b->domid, &ram, 1) != 0)
		return "xc_domain_set_memory_map";
	if (xc_domain_set_tsc_info(b->xc, b->domid, 0, 0, 0, 0) != 0)
		return "xc_domain_set_tsc_info";
	if (xc_cpuid_apply_policy(
		    b->xc, b->domid, false, NULL, 0, true, false, false, NULL, NULL) != 0)
		return "xc_cpuid_apply_policy";
	store = xc_evtchn_alloc_unbound(b->xc, b->domid, 0);
	console = xc_evtchn_alloc_unbound(b->xc, b->domid, 0);
	if (store < 0 || console < 0)
		return "xc_evtchn_alloc_unbound";
	b->rings->store_port = (unsigned)store;
	b->rings->console_port = (unsigned)console;
	return NULL;
}

static const char *load(struct building *b)
{
	struct xc_dom_image *dom = b->dom;

	dom->container_type = XC_DOM_PV_CONTAINER;
	dom->xenstore_evtchn = b->rings->store_port;
	dom->console_evtchn = b->rings->console_port;
	dom->max_vcpus = (unsigned)b->config->vcpus_max;
	xc_dom_kernel_max_size(dom, XEN_KERNEL_MAX);
	xc_dom_module_max_size(dom, XEN_KERNEL_MAX);
	if (xc_dom_kernel_file(dom, b->kernel) != 0)
		return "the kernel cannot be read";
	if (b->ramdisk != NULL && xc_dom_module_file(dom, b->ramdisk, NULL) != 0)
		return "the ram disk cannot be read";
	if (xc_dom_boot_xen_init(dom, b->xc, b->domid) != 0)
		return "xc_dom_boot_xen_init";
	if (xc_dom_parse_image(dom) != 0)
		return "this is no kernel of a PV guest";
	if (xc_dom_mem_init(dom, (unsigned)(b->config->memory_kib >> 10)) != 0 ||
		xc_dom_boot_mem_init(dom) != 0)
		return "the memory cannot be had";
	if (xc_dom_build_image(dom) != 0)
		return "kernel and ram disk do not fit into the memory";
	if (xc_dom_boot_image(dom) != 0)
		return "xc_dom_boot_image";
	if (xc_dom_gnttab_init(dom) != 0)
		return "xc_dom_gnttab_init";
	b->rings->store_frame = xc_dom_p2m(dom, dom->xenstore_pfn);
	b->rings->console_frame = xc_dom_p2m(dom, dom->console_pfn);
	return NULL;
}

int xen_build(int domid, const struct hv_config *config, const char *kernel, const char *ramdisk,
	struct xen_rings *rings, char *why, size_t size)
{
	struct listener listener = { .base = { .vmessage = on_message, .progress = on_progress } };
	struct building b = { .domid = (uint32_t)domid,
		.config = config,
		.kernel = kernel,
		.ramdisk = ramdisk,
		.rings = rings };
	const char *failed = "xc_interface_open";

	b.xc = xc_interface_open(&listener.base, &listener.base, 0);
	if (b.xc != NULL)
		failed = prepare(&b);
	if (failed == NULL) {
		b.dom = xc_dom_allocate(b.xc, config->kernel_args, NULL);
		failed = b.dom != NULL ? load(&b) : "xc_dom_allocate";
	}
	if (failed != NULL)
		snprintf(why, size, "%s: %s", failed,
			*listener.text != 0 ? listener.text : strerror(errno));
	if (b.dom != NULL)
		xc_dom_release(b.dom);
	if (b.xc != NULL)
		xc_interface_close(b.xc);
	return failed == NULL ? 0 : -1;
}
