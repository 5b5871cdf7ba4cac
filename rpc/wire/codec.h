/* The two encodings of the API, XML-RPC and JSON-RPC: requests in, replies out, and values into the
 * types of the model.
 *
 * Source of the rules: XenAPI wire format, as described in docs/wire.md.
 */
#pragma once

#include "model/model.h"

enum rpc_codec { RPC_XML, RPC_JSON1, RPC_JSON2 };

enum {
	RPC_BODY_MAX = 4 << 20,	  /* bytes of a request */
	RPC_ELEMENTS_MAX = 50000, /* values in one request */
};

struct rpc_message {
	enum rpc_codec codec;
	const char *method;
	const struct val *params; /* a set, in order */
	struct val id;		  /* JSON: string or int, echoed */
};

/* Decode a request body. 0, or ERR_CORRUPT with a one-line reason (in the arena). Strings live in
 * the arena. Any thread; bounded memory: body and element limits, VAL_DEPTH_MAX. */
int rpc_xml_request(
	struct arena *a, const char *body, size_t n, struct rpc_message *out, const char **why_out);
int rpc_json_request(
	struct arena *a, const char *body, size_t n, struct rpc_message *out, const char **why_out);

/* Append a whole reply. code NULL: success with value. bare: the value alone, as system.listMethods
 * wants it in XML. */
void rpc_reply_encode(struct buf *out, const struct rpc_message *request, const struct val *value,
	bool bare, const struct err *err);

/* What is before and behind the value in a reply that is a success, for a value written piece by
 * piece. */
void rpc_reply_open(struct buf *out, const struct rpc_message *request);
void rpc_reply_close(struct buf *out, const struct rpc_message *request);

/* A value as XML-RPC text: "<value>...</value>" (results of tasks). JSON: val_json. */
void rpc_xml_value(struct buf *out, const struct val *v);
/* Text between tags; control characters are left out. */
void rpc_xml_text(struct buf *out, const char *text);
/* The beginning of a member of a struct, up to its value. */
void rpc_xml_name(struct buf *out, const char *name);
void rpc_value(struct buf *out, enum rpc_codec codec, const struct val *v);

/* A map written member by member, without values in between: open, for each member its name and
 * then its value (rpc_value, or another map), close. */
struct rpc_map {
	struct buf *out;
	enum rpc_codec codec;
	bool any;
};
void rpc_map_open(struct rpc_map *m, struct buf *out, enum rpc_codec codec);
void rpc_map_name(struct rpc_map *m, const char *name);
void rpc_map_close(struct rpc_map *m);

/* The same for a list: next before each item. */
void rpc_list_open(struct rpc_map *m, struct buf *out, enum rpc_codec codec);
void rpc_list_next(struct rpc_map *m);
void rpc_list_close(struct rpc_map *m);

/* JSON text into a value (integers stay integers, null is void). 0 or ERR_CORRUPT with a reason. */
int rpc_json_parse(
	struct arena *a, const char *text, size_t n, struct val *out, const char **why_out);

/* Read `in` as the type says (wire.md section 2). Strings may be shared with `in`.
 * Errors FIELD_TYPE_ERROR [name], INVALID_VALUE [text] for an unknown enumeration value or date. */
int rpc_coerce(struct arena *a, enum rpc_codec codec, const struct model_type *type,
	const char *name, const struct val *in, struct val *out, struct err *err);
