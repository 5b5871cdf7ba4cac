/* Tables of the XenAPI as this program knows it. Generated from db/model/ (JSON) by db/model/gen/: do not edit.
 *
 * Constant tables that a few functions interpret; structs of arguments only where types help a human (model/args.h).
 */
#pragma once

#include "rpc/base/err.h"
#include "rpc/base/val.h"

enum model_kind {
	MODEL_VOID,
	MODEL_STRING,
	MODEL_SECRET, /* a string that logs must not show */
	MODEL_INT,
	MODEL_FLOAT,
	MODEL_BOOL,
	MODEL_DATETIME,
	MODEL_ENUM,
	MODEL_REF,
	MODEL_SET,    /* of item */
	MODEL_MAP,    /* from key to item */
	MODEL_RECORD, /* all public fields of class_id */
	MODEL_OPTION, /* item, or absent; in results only */
	MODEL_FREE,   /* a result whose shape its page describes */
};

struct model_type {
	enum model_kind kind;
	int class_id; /* MODEL_REF, MODEL_RECORD */
	int enum_id;  /* MODEL_ENUM */
	const struct model_type *key, *item;
};

struct model_enum {
	const char *name;
	const char *const *values; /* ends with NULL */
	const unsigned *schemas;   /* since when each exists */
};

enum model_qualifier { MODEL_RW, MODEL_STATIC_RO, MODEL_DYNAMIC_RO };

/* Roles, strongest first; MODEL_ROLE_ROOT is no role: local superusers only. */
enum model_role {
	MODEL_ROLE_ROOT,
	MODEL_ROLE_POOL_ADMIN,
	MODEL_ROLE_POOL_OPERATOR,
	MODEL_ROLE_VM_POWER_ADMIN,
	MODEL_ROLE_VM_ADMIN,
	MODEL_ROLE_VM_OPERATOR,
	MODEL_ROLE_CLIENT_CERT,
	MODEL_ROLE_READ_ONLY,
};

/* Keys of a map with a permission of their own. */
struct model_key {
	const char *name;
	bool prefix; /* all keys that begin so */
	enum model_role role;
};

struct model_field {
	const char *name;   /* on the wire */
	const char *column; /* in filters and the database: name spaces with two underscores */
	const struct model_type *type;
	enum model_qualifier qualifier;
	bool internal;       /* never on the wire */
	bool computed;       /* derived when read, never stored */
	bool removed;        /* gone from the API: in records with its initial value, never written */
	bool is_volatile;    /* of no use after a crash; what the pool itself writes comes over db/plane.h */
	bool owns;           /* what it refers to goes with this row */
	bool copied;         /* a copy of the object has it from there; else it begins anew */
	int relation;        /* index in model_relations of which this is the stored side, or -1 */
	int derived;         /* index in model_relations of which this is the derived side, or -1 */
	bool has_default;    /* may be missing in create */
	struct val initial;  /* the default, else the empty value of the type */
	unsigned schema;     /* the first that has it */
	const struct model_key *keys; /* end with name NULL; NULL: none */
	const char *text;
};

/* NONE: records in results only; FIXED: rows made from the model itself, the same on every member of one version, neither
 * logged nor hashed. */
enum model_table {
	MODEL_TABLE_NONE,
	MODEL_TABLE_RECORDS,
	MODEL_TABLE_VOLATILE,
	MODEL_TABLE_FIXED,
	MODEL_TABLE_INTERNAL
};

struct model_spelling {
	const char *text;
	unsigned field;
};

struct model_class {
	const char *name;
	const char *lower; /* as events spell it */
	enum model_table table;
	bool events;
	bool has_volatile; /* some field is */
	const struct model_field *fields;
	unsigned n_fields, n_stored; /* the stored ones come first, older schemas before newer ones */
	unsigned schema;             /* the first that has it */
	const uint16_t *shown;       /* n_fields places, in the order of records */
	const struct model_spelling *spellings; /* names and columns of fields, sorted */
	unsigned n_spellings;
	int uuid_field, label_field, operations_field; /* -1: has none; the last is current_operations */
	const char *text;
};

/* many.many_field is derived from one.one_field (a reference, or a set of them); many_field -1: only the index is kept.
 * cascade: the one side goes when what it refers to is deleted; else the dead reference stays, as clients know it. */
struct model_relation {
	int one_class, one_field, many_class, many_field;
	bool cascade;
	unsigned schema; /* the first that has it */
};

/* What raising the schema does to each row of a class: the new field takes the value of an older one, or of a key of an
 * older map, when it has it. */
struct model_rule {
	unsigned schema;
	int class_id, field, from;
	const char *key; /* NULL: all of from */
};

enum model_call {
	MODEL_GET_ALL,
	MODEL_GET_ALL_WHERE,
	MODEL_GET_ALL_RECORDS,
	MODEL_GET_ALL_RECORDS_WHERE,
	MODEL_GET_BY_UUID,
	MODEL_GET_BY_NAME_LABEL,
	MODEL_GET_RECORD,
	MODEL_CREATE,
	MODEL_DESTROY,
	MODEL_GET_FIELD,
	MODEL_SET_FIELD,
	MODEL_ADD_FIELD,
	MODEL_REMOVE_FIELD,
	MODEL_ADD_TO_FIELD,
	MODEL_REMOVE_FROM_FIELD,
	MODEL_CUSTOM,
	MODEL_REMOVED, /* answers MESSAGE_REMOVED */
};

/* Where a message runs. All but the first are operations: admitted by the coordinator, run by the host that becomes owner. */
enum model_route {
	MODEL_LOCAL,       /* answered by the member that accepts it */
	MODEL_PLACED,      /* on the host that suits the VM best */
	MODEL_RESIDENT,    /* where the VM is; by the coordinator's host when it is nowhere */
	MODEL_HOST,        /* on that host */
	MODEL_SR,          /* on a host that has the SR attached, the coordinator's first */
	MODEL_STORAGE,     /* where the VM is, else on a host that has all SRs of its disks */
	MODEL_COORDINATOR, /* by the host that is coordinator at admission */
	MODEL_COMPOUND,    /* made of other operations: by the coordinator's host, and by another when that is lost */
};

enum { MODEL_STEPS_MAX = 2, MODEL_LOCKS_MAX = 5, MODEL_CANCELS_MAX = 10, MODEL_OPERATIONS_MAX = 64 };

/* Where a path begins that begins at no parameter. */
enum model_root { MODEL_ROOT_OWNER = -1 /* the host that becomes owner */, MODEL_ROOT_POOL = -2 /* the one object of class pool */ };

/* From a parameter (or an enum model_root) along fields that are references, or derived sets of them. */
struct model_path {
	int param;
	unsigned n;
	int fields[MODEL_STEPS_MAX];
};

struct model_lock {
	struct model_path path; /* all objects it leads to */
	const char *op;
};

struct model_param {
	const char *name;
	const struct model_type *type;
	bool has_default;
	bool may_be_null; /* a reference that may name nothing */
	struct val initial;
	size_t offset; /* in the struct of model/args.h */
};

struct model_message {
	const char *name; /* "VM.start" */
	int class_id;
	enum model_call call;
	int field; /* of the accessors, else -1 */
	const struct model_param *params;
	unsigned n_params, n_required; /* without the session */
	const struct model_type *result;
	enum model_role role;
	bool async, session;
	bool client_cert;   /* also for clients that proved themselves by a certificate */
	bool pool_internal; /* between members only */
	enum model_route route;
	struct model_path route_path;
	struct model_lock locks[MODEL_LOCKS_MAX];
	unsigned n_locks;
	const char *cancels[MODEL_CANCELS_MAX]; /* operations on the same object that this one cancels and waits for */
	size_t args_size;
	int custom; /* index for model/calls.c, -1 for generated messages */
	unsigned schema; /* refused until this is the active one; 0: never */
	const char *text;
};

/* An object of class role: a role, or a permission (a message, a key of a map, an HTTP action) and the weakest role that has it. */
struct model_permission {
	const char *name, *uuid, *text; /* the uuid follows from the name */
	enum model_role role;
	bool is_role, internal, client_cert;
};

/* When operations on the objects of a class are allowed: model/checks.h. Sets of operations are masks, bit k the k-th. */
struct rule;

struct model_operation {
	const char *name;
	unsigned states; /* bit k: value k of vm_power_state */
	bool shown;      /* in allowed_operations */
	uint64_t beside; /* those that may be under way when it begins */
};

struct model_check {
	const char *name;
	int (*fn)(struct rule *rule, struct err *err);
	uint64_t operations; /* that it is about */
};

struct model_operations {
	const struct model_operation *operations;
	unsigned n;
	const struct model_check *checks; /* in the order in which they refuse */
	unsigned n_checks;
};

extern const struct model_class model_classes[];
extern const struct model_enum model_enums[];
extern const struct model_relation model_relations[];
extern const struct model_rule model_rules[];              /* ends with schema 0 */
extern const struct model_permission model_permissions[];  /* ends with name NULL; roles first, strongest first */
extern const unsigned model_n_permissions;                 /* roles included */
extern const struct err_code *const model_errors[];        /* ends with NULL */
extern const char *const *const model_error_params[];      /* names, by the same place; each ends with NULL */

/* Sorted by name, for model_message_find. */
extern const struct model_message model_messages[];
extern const unsigned model_n_messages;

/* The message of that wire name ("VM.start", also "VM_start"); NULL when there is none. */
const struct model_message *model_message_find(const char *name);
/* The class of that name; -1 when there is none. any_case: as event subscriptions spell it. */
int model_class_find(const char *name, bool any_case);
/* The field of that wire name or column; -1 when there is none. */
int model_field_find(int class_id, const char *name);
/* The code of that name, NULL when this program does not know it. */
const struct err_code *model_error_find(const char *name);
/* The value as this list spells it, compared without case; NULL when it is none. */
const char *model_enum_value(int enum_id, const char *text);
/* Position of a value, -1 when it is none. */
int model_enum_index(int enum_id, const char *text);
/* The permission of that name, in lower case; NULL: there is none, and no role has it. */
const struct model_permission *model_permission_find(const char *name);
/* Has a role what needs at least another one? cert: it is given to certificates too, by name. */
bool model_role_permits(enum model_role role, enum model_role needed, bool cert);

/* How many fields the rows of a class have while that schema is active. */
unsigned model_stored(int class_id, unsigned schema);
/* Does the schema know all enumeration values in it? */
bool model_value_known(const struct model_type *type, const struct val *v, unsigned schema);
