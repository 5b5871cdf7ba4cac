/* An operation asked for: what a member sends to the coordinator and what the task row keeps. */
#pragma once

#include "pool/pool_priv.h"

struct request {
	const struct model_message *method;
	struct val *args; /* of the types of the parameters */
	const char *user, *session, *originator;
	const char *task_uuid;	 /* chosen by the member that accepts the call */
	bool keep;		 /* asynchronous */
	const char *parent;	 /* the task it is a part of; NULL_REF: none */
	struct val other_config; /* of the task: a map of strings, or void */
};

/* The key of other_config that says by which name the client will ask again; NULL: none. */
const char *request_id(const struct val *other_config);
/* The task of a user's request of that name, always the same. */
void request_uuid(const char *user, const char *sid, const char *id, char out[UUID_LEN + 1]);

void request_encode(struct buf *out, const struct request *r);
/* Bytes of another member: false when they are no request for an operation. Strings point into p.
 */
bool request_decode(struct arena *a, const uint8_t *p, size_t n, struct request *out);
/* The arguments as JSON text, in the arena. */
void request_arguments(struct arena *a, const struct request *r, const char **out);
/* From the row; false: it was made by a build that knows other methods. */
bool request_of_task(struct arena *a, const struct db_row *task, struct request *out);
