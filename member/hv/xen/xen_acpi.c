/* ACPI tables of a PVH guest, by ACPI 6: it has no firmware that would bring them. The root pointer
 * leads to the list (XSDT), that to what the machine is (FADT: hardware-reduced, with an empty
 * DSDT) and to its processors (MADT: without it Linux never starts its timer). */
#include "member/hv/xen/xen_child_priv.h"

#include <string.h>

enum {
	RSDP_AT = 0,
	XSDT_AT = 0x40,
	FADT_AT = 0x80,
	DSDT_AT = 0x1c0,
	MADT_AT = 0x200,
	HEADER = 36, /* of each table but the root pointer */
	FADT_SIZE = 268,
	LAPIC_SIZE = 8,
	LAPIC_BASE = 0xfee00000u,
	NO_VGA = 1 << 2,	    /* FADT, IAPC_BOOT_ARCH */
	HARDWARE_REDUCED = 1 << 20, /* FADT, flags */
};

static void put(uint8_t *at, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(v >> (8 * i));
}

/* The bytes of a table add up to 0. */
static void seal(uint8_t *table, unsigned len, unsigned at)
{
	uint8_t sum = 0;

	table[at] = 0;
	for (unsigned i = 0; i < len; i++)
		sum = (uint8_t)(sum + table[i]);
	table[at] = (uint8_t)-sum;
}

/* The head of a table whose body is there. */
static void head(uint8_t *table, const char *signature, unsigned len, uint8_t revision)
{
	memcpy(table, signature, 4);
	put(table + 4, len, 4);
	table[8] = revision;
	memcpy(table + 10, "XPOOL PVHGUEST", 14);
	put(table + 24, 1, 4);
	memcpy(table + 28, "XPOL", 4);
	put(table + 32, 1, 4);
	seal(table, len, 9);
}

static void root(uint8_t *page)
{
	uint8_t *rsdp = page + RSDP_AT;

	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "XPOOL ", 6);
	rsdp[15] = 2;
	put(rsdp + 20, 36, 4);
	put(rsdp + 24, XEN_ACPI_BASE + XSDT_AT, 8);
	seal(rsdp, 20, 8);
	seal(rsdp, 36, 32);
}

/* Xen numbers the local APICs of a guest 0, 2, 4 ... */
static void processors(uint8_t *madt, unsigned vcpus)
{
	put(madt + HEADER, LAPIC_BASE, 4);
	for (unsigned i = 0; i < vcpus; i++) {
		uint8_t *entry = madt + HEADER + 8 + LAPIC_SIZE * i;

		entry[1] = LAPIC_SIZE;
		entry[2] = (uint8_t)i;
		entry[3] = (uint8_t)(2 * i);
		put(entry + 4, 1, 4); /* there */
	}
	head(madt, "APIC", HEADER + 8 + LAPIC_SIZE * vcpus, 3);
}

void xen_acpi_make(unsigned vcpus, uint8_t page[XEN_ACPI_SIZE])
{
	uint8_t *fadt = page + FADT_AT;

	memset(page, 0, XEN_ACPI_SIZE);
	root(page);
	put(page + XSDT_AT + HEADER, XEN_ACPI_BASE + FADT_AT, 8);
	put(page + XSDT_AT + HEADER + 8, XEN_ACPI_BASE + MADT_AT, 8);
	head(page + XSDT_AT, "XSDT", HEADER + 16, 1);
	put(fadt + 40, XEN_ACPI_BASE + DSDT_AT, 4);
	put(fadt + 109, NO_VGA, 2);
	put(fadt + 112, HARDWARE_REDUCED, 4);
	put(fadt + 140, XEN_ACPI_BASE + DSDT_AT, 8);
	head(fadt, "FACP", FADT_SIZE, 5);
	head(page + DSDT_AT, "DSDT", HEADER, 2);
	processors(page + MADT_AT, vcpus);
}
