/* The child process for libxenguest, shared by its files: xen_child.c what every such child is,
 * xen_child_build.c a guest from kernel and ram disk, xen_acpi.c the tables of a PVH guest. */
#pragma once

#include "agent/agent.h"
#include "rpc/base/arena.h"

#include <xentoollog.h>

#define XEN_CHILD_BUILD "build"

struct xen_child {
	struct xentoollog_logger logger;
	struct xc_interface_core *xc; /* an xc_interface; xenctrl.h is for GNU C alone */
	struct arena *arena;
	uint32_t domid;
	const struct val *params; /* of the question, and of the agent alone */
	struct val out;
	struct err *err;
	char text[256]; /* the library's first error */
};

struct xen_file {
	void *data; /* NULL: there is none */
	size_t size;
};

/* AGENT_ERR_domain_failed: what, and the library's reason. */
int xen_child_failed(struct xen_child *c, const char *what);
/* A parameter; 0: absent. */
int64_t xen_child_number(const struct xen_child *c, const char *key);
/* The file whose path is a parameter, if there is one; before xen_child_open. */
int xen_child_map(struct xen_child *c, const char *key, struct xen_file *out);
/* Opens Xen and gives up everything else. */
int xen_child_open(struct xen_child *c);

/* {type, kernel, ramdisk, args, memory_kib, memory_max_kib, vcpus_max} into an empty domain: its
 * rings, as {store_port, console_port, store_frame, console_frame}. */
int xen_child_build(struct xen_child *c);

/* A page of ACPI tables for a guest with so many processors, to lie at XEN_ACPI_BASE. */
enum { XEN_ACPI_SIZE = 4096 };
#define XEN_ACPI_BASE UINT64_C(0xfc000000)
void xen_acpi_make(unsigned vcpus, uint8_t page[XEN_ACPI_SIZE]);
