#include "rpc/base/tls_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum { TLS_CHUNK = 16384, TLS_KEEP_MAX = 65536, CERT_RSA_BITS = 2048 };

struct tls {
	SSL_CTX *ctx;
};

struct tls_conn {
	SSL *ssl;
	BIO *in, *out;
	struct buf early; /* written before the handshake was over */
};

static int accept_any(int ok, X509_STORE_CTX *store)
{
	(void)ok;
	(void)store;
	return 1; /* the caller checks the pin */
}

static struct tls *context_new(void)
{
	struct tls *tls = mem_new(sizeof *tls);

	tls->ctx = must(SSL_CTX_new(TLS_method()));
	SSL_CTX_set_mode(tls->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
					   SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					   SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(tls->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	return tls;
}

static struct tls *context(struct env *env, const char *cert, const char *key)
{
	struct tls *tls = context_new();

	if (SSL_CTX_use_certificate_chain_file(tls->ctx, cert) != 1 ||
		SSL_CTX_use_PrivateKey_file(tls->ctx, key, SSL_FILETYPE_PEM) != 1 ||
		SSL_CTX_check_private_key(tls->ctx) != 1) {
		log_err(env, "event=certificate_unusable cert=%s key=%s why=\"%s\"", cert, key,
			ERR_reason_error_string(ERR_peek_last_error()));
		ERR_clear_error();
		tls_free(tls);
		return NULL;
	}
	return tls;
}

struct tls *tls_server_new(struct env *env, const char *cert, const char *key)
{
	struct tls *tls = context(env, cert, key);

	if (tls == NULL)
		return NULL;
	SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION);
	return tls;
}

struct tls *tls_peer_new(struct env *env, const char *cert, const char *key)
{
	struct tls *tls = context(env, cert, key);

	if (tls == NULL)
		return NULL;
	SSL_CTX_set_min_proto_version(tls->ctx, TLS1_3_VERSION);
	SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, accept_any);
	SSL_CTX_set_num_tickets(tls->ctx, 0);
	SSL_CTX_set_session_cache_mode(tls->ctx, SSL_SESS_CACHE_OFF);
	return tls;
}

struct tls *tls_client_new(const char *ca)
{
	struct tls *tls = context_new();

	SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION);
	if (ca == NULL)
		return tls;
	SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER, NULL);
	if (SSL_CTX_load_verify_file(tls->ctx, ca) == 1)
		return tls;
	ERR_clear_error();
	tls_free(tls);
	return NULL;
}

void tls_conn_expect(struct tls_conn *c, const char *name)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(c->ssl);

	/* an address, else a name */
	if (X509_VERIFY_PARAM_set1_ip_asc(param, name) != 1)
		must(X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 ? param : NULL);
	ERR_clear_error();
}

const char *tls_conn_verdict(const struct tls_conn *c)
{
	long r = SSL_get_verify_result(c->ssl);

	return r == X509_V_OK ? NULL : X509_verify_cert_error_string(r);
}

void tls_free(struct tls *tls)
{
	if (tls == NULL)
		return;
	SSL_CTX_free(tls->ctx);
	free(tls);
}

struct tls_conn *tls_conn_new(struct tls *tls, bool server)
{
	struct tls_conn *c = mem_new(sizeof *c);

	c->ssl = must(SSL_new(tls->ctx));
	c->in = must(BIO_new(BIO_s_mem()));
	c->out = must(BIO_new(BIO_s_mem()));
	SSL_set_bio(c->ssl, c->in, c->out);
	if (server)
		SSL_set_accept_state(c->ssl);
	else
		SSL_set_connect_state(c->ssl);
	return c;
}

void tls_conn_free(struct tls_conn *c)
{
	if (c == NULL)
		return;
	SSL_free(c->ssl);
	buf_fini(&c->early);
	free(c);
}

bool tls_conn_ready(const struct tls_conn *c)
{
	return SSL_is_init_finished(c->ssl);
}

size_t tls_conn_pending(const struct tls_conn *c)
{
	return BIO_ctrl_pending(c->out) + c->early.len;
}

/* 0: go on later; 1: the peer has said goodbye; -1: broken for good */
static int verdict(struct tls_conn *c, int r)
{
	int e = SSL_get_error(c->ssl, r);

	ERR_clear_error();
	return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? 0
	       : e == SSL_ERROR_ZERO_RETURN			     ? 1
								     : -1;
}

int tls_conn_feed(struct tls_conn *c, const uint8_t *p, size_t n, struct buf *in)
{
	int r;

	CHECK(n <= INT32_MAX);
	if (n > 0 && BIO_write(c->in, p, (int)n) != (int)n)
		return -1;
	if (!tls_conn_ready(c)) {
		r = SSL_do_handshake(c->ssl);
		if (r != 1)
			return verdict(c, r);
		if (c->early.len > 0) {
			struct buf early = c->early;

			buf_init(&c->early);
			tls_conn_write(c, early.data, early.len);
			buf_fini(&early);
		}
	}
	for (;;) {
		r = SSL_read(c->ssl, buf_room(in, TLS_CHUNK), TLS_CHUNK);
		if (r <= 0)
			return verdict(c, r);
		in->len += (size_t)r;
	}
}

void tls_conn_write(struct tls_conn *c, const uint8_t *p, size_t n)
{
	if (!tls_conn_ready(c)) {
		buf_put(&c->early, p, n);
		return;
	}
	while (n > 0) {
		int r = SSL_write(c->ssl, p, n > TLS_CHUNK ? TLS_CHUNK : (int)n);

		if (r <= 0) { /* a memory buffer is never full: the peer has closed or broken the
				 session */
			ERR_clear_error();
			return;
		}
		p += r;
		n -= (size_t)r;
	}
}

void tls_conn_drain(struct tls_conn *c, struct buf *out)
{
	int n, most = 0;

	while ((n = (int)BIO_pending(c->out)) > 0) {
		n = BIO_read(c->out, buf_room(out, (size_t)n), n);
		CHECK(n > 0);
		out->len += (size_t)n;
		most = n > most ? n : most;
	}
	if (most > TLS_KEEP_MAX) { /* it would keep room for the largest answer it ever carried */
		c->out = must(BIO_new(BIO_s_mem()));
		SSL_set0_wbio(c->ssl, c->out);
	}
}

void tls_conn_bye(struct tls_conn *c)
{
	if (tls_conn_ready(c))
		SSL_shutdown(c->ssl);
	ERR_clear_error();
}

static bool fingerprint(X509 *cert, uint8_t out[TLS_FINGERPRINT_LEN])
{
	unsigned n = 0;
	bool ok = cert != NULL && X509_digest(cert, EVP_sha256(), out, &n) == 1 &&
		  n == TLS_FINGERPRINT_LEN;

	X509_free(cert);
	return ok;
}

bool tls_conn_fingerprint(const struct tls_conn *c, uint8_t out[TLS_FINGERPRINT_LEN])
{
	return fingerprint(SSL_get1_peer_certificate(c->ssl), out);
}

bool tls_conn_expired(const struct tls_conn *c)
{
	X509 *cert = SSL_get1_peer_certificate(c->ssl);
	bool expired = cert != NULL && X509_cmp_current_time(X509_get0_notAfter(cert)) < 0;

	X509_free(cert);
	return expired;
}

void tls_fingerprint_text(const uint8_t print[TLS_FINGERPRINT_LEN], char out[TLS_PRINT_TEXT])
{
	for (unsigned i = 0; i < TLS_FINGERPRINT_LEN; i++)
		snprintf(out + 2 * i, 3, "%02x", print[i]);
}

bool tls_file_fingerprint(const char *path, uint8_t out[TLS_FINGERPRINT_LEN])
{
	FILE *f = fopen(path, "re");
	X509 *cert;

	if (f == NULL)
		return false;
	cert = PEM_read_X509(f, NULL, NULL, NULL);
	fclose(f);
	ERR_clear_error();
	return fingerprint(cert, out);
}

static bool add_extension(X509 *cert, int nid, const char *text)
{
	X509V3_CTX ctx;
	X509_EXTENSION *ext;
	bool ok;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
	ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, text);
	ok = ext != NULL && X509_add_ext(cert, ext, -1) == 1;
	X509_EXTENSION_free(ext);
	return ok;
}

static X509 *certificate(EVP_PKEY *key, const char *name, const char *address, unsigned days)
{
	X509 *cert = must(X509_new());
	X509_NAME *subject = X509_get_subject_name(cert);
	char san[128];
	uint64_t serial;

	snprintf(san, sizeof san, "IP:%s,DNS:%s", address, name);
	if (RAND_bytes((uint8_t *)&serial, sizeof serial) != 1)
		goto fail;
	if (X509_set_version(cert, 2) != 1 ||
		ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1) != 1 ||
		X509_gmtime_adj(X509_getm_notBefore(cert), -3600) == NULL ||
		X509_time_adj_ex(X509_getm_notAfter(cert), (int)days, 0, NULL) == NULL ||
		X509_NAME_add_entry_by_txt(
			subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0) != 1 ||
		X509_set_issuer_name(cert, subject) != 1 || X509_set_pubkey(cert, key) != 1 ||
		!add_extension(cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
		!add_extension(cert, NID_subject_alt_name, san) ||
		X509_sign(cert, key, EVP_sha256()) == 0)
		goto fail;
	return cert;
fail:
	X509_free(cert);
	return NULL;
}

int tls_certificate_make(const char *path, const char *name, const char *address, unsigned days)
{
	EVP_PKEY *key = EVP_RSA_gen(CERT_RSA_BITS);
	X509 *cert = key != NULL ? certificate(key, name, address, days) : NULL;
	FILE *f = NULL;
	int fd, rc = ERR_IO;

	if (cert == NULL) {
		errno = EINVAL;
		goto out;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		goto out;
	f = must(fdopen(fd, "w"));
	if (PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1 &&
		PEM_write_X509(f, cert) == 1)
		rc = 0;
	if (fclose(f) != 0)
		rc = ERR_IO;
out:
	X509_free(cert);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return rc;
}

void tls_hmac(const void *key, unsigned key_len, const char *text, uint8_t out[32])
{
	unsigned n = 0;

	must(HMAC(EVP_sha256(), key, (int)key_len, (const uint8_t *)text, strlen(text), out, &n));
	CHECK(n == 32);
}

void tls_sha1_base64(const char *text, char out[TLS_SHA1_BASE64_LEN + 1])
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	CHECK(EVP_Digest(text, strlen(text), digest, &n, EVP_sha1(), NULL) == 1);
	CHECK(EVP_EncodeBlock((uint8_t *)out, digest, (int)n) == TLS_SHA1_BASE64_LEN);
}

bool tls_secret_equal(const char *a, const char *b)
{
	size_t n = strlen(a);

	return n == strlen(b) && CRYPTO_memcmp(a, b, n) == 0;
}
