/* One TLS connection on two memory buffers; used by the streams and by rpc/cli/link.c. */
#pragma once

#include "rpc/base/env.h"
#include "rpc/base/tls.h"

struct tls_conn;

struct tls_conn *tls_conn_new(struct tls *tls, bool server);
void tls_conn_free(struct tls_conn *c);
/* Feed n bytes from the peer; plain text is appended to in. 0; 1: the peer has said goodbye and
 * sends no more; -1: the connection must be closed. */
int tls_conn_feed(struct tls_conn *c, const uint8_t *p, size_t n, struct buf *in);
/* Encrypt; everything is taken. */
void tls_conn_write(struct tls_conn *c, const uint8_t *p, size_t n);
/* Append what has to go to the peer. */
void tls_conn_drain(struct tls_conn *c, struct buf *out);
bool tls_conn_ready(const struct tls_conn *c);
/* Bytes written and not yet drained. */
size_t tls_conn_pending(const struct tls_conn *c);
bool tls_conn_fingerprint(const struct tls_conn *c, uint8_t out[TLS_FINGERPRINT_LEN]);
bool tls_conn_expired(const struct tls_conn *c);
/* A client, before the handshake: the address or name that the server's certificate must be for. */
void tls_conn_expect(struct tls_conn *c, const char *name);
/* Why its certificate was not accepted; NULL: it was. */
const char *tls_conn_verdict(const struct tls_conn *c);
/* Say goodbye (close_notify). */
void tls_conn_bye(struct tls_conn *c);
