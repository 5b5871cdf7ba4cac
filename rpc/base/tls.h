/* TLS contexts: OpenSSL 3 behind three constructors. The streams do the rest (stream.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct env;
struct tls;

enum { TLS_FINGERPRINT_LEN = 32 }; /* SHA-256 of the certificate in DER */

/* For API clients: TLS 1.2 and 1.3, no client certificate. cert is a PEM file with the chain, key
 * its private key (may be the same file). NULL after one log line that names the file and the
 * reason. */
struct tls *tls_server_new(struct env *env, const char *cert, const char *key);

/* Between members, both directions: TLS 1.3 only, both sides present a certificate, no tickets. Any
 * certificate passes the handshake: the caller compares stream_fingerprint() with the pinned one
 * before it believes a byte. */
struct tls *tls_peer_new(struct env *env, const char *cert, const char *key);

/* For a client of the API: TLS 1.2 and 1.3. ca: PEM file that the server's certificate must follow
 * from, and it must be for the name given to tls_conn_expect; NULL: any certificate passes, the
 * caller compares the fingerprint. NULL when the file cannot be used. */
struct tls *tls_client_new(const char *ca);

void tls_free(struct tls *tls);

/* SHA-256 fingerprint of the first certificate in a PEM file; false when it cannot be read. */
bool tls_file_fingerprint(const char *path, uint8_t out[TLS_FINGERPRINT_LEN]);

/* In hex, as lists of members have it. */
enum { TLS_PRINT_TEXT = 2 * TLS_FINGERPRINT_LEN + 1 };
void tls_fingerprint_text(const uint8_t print[TLS_FINGERPRINT_LEN], char out[TLS_PRINT_TEXT]);

/* Make an RSA-2048 key and a self-signed certificate for so many days with `address` as an IP
 * subject name (clients refuse an address that stands in CN only) and CN = name; both go to `path`
 * as PEM, mode 0600. 0 or ERR_IO with errno. */
enum { TLS_CERTIFICATE_DAYS = 3650 }; /* what is usual */
int tls_certificate_make(const char *path, const char *name, const char *address, unsigned days);

/* HMAC-SHA256 of text under key. */
void tls_hmac(const void *key, unsigned key_len, const char *text, uint8_t out[32]);

/* SHA-1 of a text in Base64: WebSocket wants it (RFC 6455), which is no secret. */
enum { TLS_SHA1_BASE64_LEN = 28 };
void tls_sha1_base64(const char *text, char out[TLS_SHA1_BASE64_LEN + 1]);

/* Are the texts equal? In a time that tells nothing of where they differ, only of their lengths. */
bool tls_secret_equal(const char *a, const char *b);
