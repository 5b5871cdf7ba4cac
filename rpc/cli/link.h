/* A connection of `xe` to whichever member of a pool answers first. Blocking: `xe` does one thing
 * at a time.
 *
 * Several servers are tried one after the other without waiting for the time-out of a dead one: the
 * next begins LINK_NEXT_MS after the one before, at once when that has failed; the first whose TLS
 * handshake is over is it. (A frozen member still accepts TCP connections.) Nothing is sent before
 * that, so a command never reaches two members.
 *
 * Trust: a file of certificates (cafile); else the certificate seen first at that server, kept in a
 * file of pins, and another one is an error; else anything, when told so. Source: cli.md 6.
 */
#pragma once

#include "rpc/base/buf.h"

enum { LINK_SERVERS_MAX = 64, LINK_NEXT_MS = 200, LINK_OPEN_MS = 10000 };

struct link;

struct link_trust {
	const char *cafile; /* NULL: pins */
	const char *pins;   /* file; NULL: nowhere to keep them */
	bool insecure;
	bool plain; /* no TLS */
};

/* servers: names or addresses, separated by commas, each with ":port" or not. NULL after one line
 * in why. */
struct link *link_open(const char *servers, unsigned port, const struct link_trust *trust,
	char *why, size_t why_size);
void link_close(struct link *link);
/* The server and port it leads to, for a second connection; borrowed. */
const char *link_server(const struct link *link);

/* All of it. false: the connection is lost. */
bool link_write(struct link *link, const void *p, size_t n);
/* Milliseconds of the monotonic clock. */
uint64_t link_now_ms(void);

/* To wait for what comes: readable, or link_has: there is something already. */
int link_fd(const struct link *link);
bool link_has(const struct link *link);
/* Some bytes, at least one; 0: the end; -1: lost. */
int link_read(struct link *link, void *p, size_t max);
