/* Interfaces of hosts: what network.c and pif.c share. */
#pragma once

#include "pool/operation_priv.h"

/* Characters of a device's or bridge's name: IFNAMSIZ of Linux, less the end. */
enum { DEVICE_NAME_MAX = 15 };

/* HANDLE_INVALID: it names nothing. */
int pif_find(struct call *call, const char *ref, const struct db_row **out, struct err *err);
/* The interface of the host on that network; NULL: none. */
const struct db_row *pif_on(const struct db_view *view, const char *network, const char *host);
/* The one of that name on a host that is no VLAN; NULL: none. */
const struct db_row *pif_named(const struct db_view *view, const char *host, const char *device);
/* HOST_OFFLINE. */
int pif_host_lives(struct call *call, const struct db_row *pif, struct err *err);
/* A VIF of a VM there that is plugged into the network of the interface; NULL: none. */
const struct db_row *pif_in_use_by(const struct db_view *view, const struct db_row *pif);
/* A precondition: no VM has come to use the network of the interface, which would change it. */
void pif_need_network(struct db_txn *txn, const struct db_view *view, const struct db_row *pif);
/* A row of PIF_metrics, for an interface that the same transaction makes. */
void pif_create_metrics(struct pool *pool, struct db_txn *txn, char ref[DB_REF_MAX + 1]);
