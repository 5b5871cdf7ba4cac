/* A guest's kernel and ram disk into an empty domain, by libxenguest: PV, and PVH, which is a
 * container of hardware virtualisation without a device model or firmware. */
#include "member/hv/xen/xen_child_priv.h"
#include "member/hv/xen/xen_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xenctrl.h>
#include <xenguest.h>

#define MMIO_START  UINT64_C(0xf0000000) /* no memory from here to 4 GiB */
#define RINGS_START UINT64_C(0xfeff8000) /* where libxenguest puts those of a PVH guest */
#define RINGS_SIZE  UINT64_C(0x8000)
#define GIB_4	    (UINT64_C(1) << 32)

struct building {
	struct xen_child *child;
	xc_interface *xc;
	struct xc_dom_image *dom;
	bool pvh;
	uint64_t memory, memory_max; /* bytes */
	struct xen_file kernel, ramdisk;
	struct xen_rings rings;
	uint8_t acpi[XEN_ACPI_SIZE];
};

/* Memory map, clock, processor and channels: what an empty domain lacks. */
static const char *prepare(struct building *b)
{
	struct e820entry ram = { 0, b->memory_max, E820_RAM };
	uint32_t domid = b->child->domid;
	int store, console;

	if (!b->pvh && xc_domain_set_memory_map(b->xc, domid, &ram, 1) != 0)
		return "xc_domain_set_memory_map";
	if (!b->pvh && xc_domain_set_tsc_info(b->xc, domid, 0, 0, 0, 0) != 0)
		return "xc_domain_set_tsc_info";
	if (xc_cpuid_apply_policy(b->xc, domid, false, NULL, 0, true, false, false, NULL, NULL) !=
		0)
		return "xc_cpuid_apply_policy";
	store = xc_evtchn_alloc_unbound(b->xc, domid, 0);
	console = xc_evtchn_alloc_unbound(b->xc, domid, 0);
	if (store < 0 || console < 0)
		return "xc_evtchn_alloc_unbound";
	b->rings.store_port = (unsigned)store;
	b->rings.console_port = (unsigned)console;
	return NULL;
}

/* What a PVH guest is beside its kernel. */
static void describe(struct building *b)
{
	struct xc_dom_image *dom = b->dom;

	dom->device_model = false;
	dom->target_pages = (xen_pfn_t)(b->memory >> XC_PAGE_SHIFT);
	dom->mmio_start = MMIO_START;
	dom->mmio_size = GIB_4 - MMIO_START;
	dom->lowmem_end = b->memory_max < MMIO_START ? b->memory_max : MMIO_START;
	dom->highmem_end = b->memory_max > MMIO_START ? GIB_4 + b->memory_max - MMIO_START : 0;
	xen_acpi_make(dom->max_vcpus, b->acpi);
	dom->acpi_modules[0] = (struct xc_hvm_firmware_module){
		.data = b->acpi, .length = sizeof b->acpi, .guest_addr_out = XEN_ACPI_BASE
	};
}

/* Where its memory is; the library frees it. */
static const char *memory_map(struct building *b)
{
	const struct xc_dom_image *dom = b->dom;
	const struct e820entry map[] = { { 0, dom->lowmem_end, E820_RAM },
		{ XEN_ACPI_BASE, XEN_ACPI_SIZE, E820_ACPI },
		{ RINGS_START, RINGS_SIZE, E820_RESERVED },
		{ GIB_4, dom->highmem_end - GIB_4, E820_RAM } };
	unsigned n = dom->highmem_end > 0 ? 4 : 3;

	b->dom->e820 = malloc(sizeof map);
	if (b->dom->e820 == NULL)
		return "memory map";
	memcpy(b->dom->e820, map, sizeof map);
	b->dom->e820_entries = n;
	return NULL;
}

static const char *read_files(struct building *b)
{
	struct xc_dom_image *dom = b->dom;

	xc_dom_kernel_max_size(dom, XEN_KERNEL_MAX);
	xc_dom_module_max_size(dom, XEN_KERNEL_MAX);
	if (xc_dom_kernel_mem(dom, b->kernel.data, b->kernel.size) != 0)
		return "the kernel cannot be read";
	if (b->ramdisk.data != NULL &&
		xc_dom_module_mem(dom, b->ramdisk.data, b->ramdisk.size, NULL) != 0)
		return "the ram disk cannot be read";
	return NULL;
}

static const char *fill(struct building *b)
{
	struct xc_dom_image *dom = b->dom;
	const char *failed;

	if (xc_dom_boot_xen_init(dom, b->xc, b->child->domid) != 0)
		return "xc_dom_boot_xen_init";
	if (b->pvh)
		describe(b);
	if (xc_dom_parse_image(dom) != 0)
		return b->pvh ? "this is no kernel of a PVH guest"
			      : "this is no kernel of a PV guest";
	/* what a PVH guest does not have at first is populated on demand, up to target_pages */
	if (xc_dom_mem_init(dom, (unsigned)((b->pvh ? b->memory_max : b->memory) >> 20)) != 0 ||
		xc_dom_boot_mem_init(dom) != 0)
		return "the memory cannot be had";
	failed = b->pvh ? memory_map(b) : NULL;
	if (failed != NULL)
		return failed;
	if (xc_dom_build_image(dom) != 0)
		return "kernel and ram disk do not fit into the memory";
	if (xc_dom_boot_image(dom) != 0)
		return "xc_dom_boot_image";
	if (xc_dom_gnttab_init(dom) != 0)
		return "xc_dom_gnttab_init";
	return NULL;
}

/* A PV guest knows machine frames, any other its own. */
static void rings_of(struct building *b)
{
	struct xc_dom_image *dom = b->dom;

	b->rings.store_frame = b->pvh ? dom->xenstore_pfn : xc_dom_p2m(dom, dom->xenstore_pfn);
	b->rings.console_frame = b->pvh ? dom->console_pfn : xc_dom_p2m(dom, dom->console_pfn);
}

static const char *build(struct building *b)
{
	struct xc_dom_image *dom = b->dom;
	const char *failed = prepare(b);

	if (failed != NULL)
		return failed;
	dom->container_type = b->pvh ? XC_DOM_HVM_CONTAINER : XC_DOM_PV_CONTAINER;
	dom->xenstore_evtchn = b->rings.store_port;
	dom->console_evtchn = b->rings.console_port;
	dom->max_vcpus = (unsigned)xen_child_number(b->child, "vcpus_max");
	failed = read_files(b);
	if (failed == NULL)
		failed = fill(b);
	if (failed == NULL)
		rings_of(b);
	return failed;
}

int xen_child_build(struct xen_child *c)
{
	const char *type = val_get_s(c->params, "type"), *failed = "xc_dom_allocate";
	struct building b = { .child = c,
		.pvh = type != NULL && strcmp(type, "pvh") == 0,
		.memory = (uint64_t)xen_child_number(c, "memory_kib") << 10,
		.memory_max = (uint64_t)xen_child_number(c, "memory_max_kib") << 10 };

	if (xen_child_map(c, "kernel", &b.kernel) != 0 ||
		xen_child_map(c, "ramdisk", &b.ramdisk) != 0 || xen_child_open(c) != 0)
		return ERR_API;
	b.xc = c->xc;
	b.dom = xc_dom_allocate(c->xc, val_get_s(c->params, "args"), NULL);
	if (b.dom != NULL)
		failed = build(&b);
	if (failed != NULL)
		xen_child_failed(c, failed);
	xen_rings_put(c->arena, &c->out, &b.rings);
	if (b.dom != NULL)
		xc_dom_release(b.dom);
	return failed == NULL ? 0 : ERR_API;
}
