/* A client of somebody else's API over HTTPS: one POST, one answer, from a job. Whatever the server
 * sends, memory stays within answer_max and the answer is there within timeout_ms.
 */
#pragma once

#include "rpc/base/lane.h"
#include "rpc/base/stream.h"

struct rpc_ask {
	const char *address; /* stream.h: "10.0.0.1:443" */
	const char *path;    /* with the query */
	const char *body;
	const char *certificate; /* its fingerprint in hex, else nothing is sent; NULL: the caller
				    judges */
	size_t answer_max;	 /* bytes of the answer's body */
	uint64_t timeout_ms;
};

struct rpc_answer {
	unsigned status;  /* of HTTP */
	const char *body; /* NUL-terminated */
	size_t n;
	uint8_t fingerprint[TLS_FINGERPRINT_LEN]; /* of the server's certificate */
	const char *why;			  /* it failed */
};

/* The connection is made on the loop, for this alone; a: for what is in the answer. 0: the server
 * has answered, with any status; ERR_CLOSED, ERR_CORRUPT, ERR_FULL, ERR_TIMEOUT: why says more, and
 * the server may have got the request all the same; ERR_CANCELLED, ERR_DEAD. */
int rpc_post(struct job *job, struct loop *loop, const struct rpc_ask *ask, struct arena *a,
	struct rpc_answer *out);

/* Addresses of a host name. *busy is set from the call until the resolver has answered, which may
 * be later than this call: one at a time. 0 with n > 0; ERR_FULL: another is under way;
 * ERR_CLOSED: why says more; ERR_TIMEOUT, ERR_CANCELLED, ERR_DEAD. */
int rpc_resolve(struct job *job, struct loop *loop, const char *name, _Atomic bool *busy,
	uint64_t timeout_ms, struct resolved *out);
