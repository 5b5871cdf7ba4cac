/* The server side of `xe`: between the files pool/cli*.c.
 *
 *   cli.c          the service: credentials, the job of a command, bytes to and from the client
 *   cli_params.c   what the client gave, as names and values, and values of the API's types
 *   cli_class.c    classes and fields as `xe` names them
 *   cli_record.c   X-list and X-param-*: generated for every class
 *   cli_table.c    the table of all other commands, dispatch, help
 *   cli_watch.c    --progress
 *   cli_vm.c, cli_disk.c, cli_pool.c   commands that are more than one message
 *   cli_error.c    sentences for errors
 *
 * A command is a job of the lane `clis`: it reads from views, and everything it does is a call of
 * the API through within_call, so roles, locks and the log are those of any client. It prints into
 * a buffer that leaves when no view is pinned: a client that reads slowly holds no view.
 */
#pragma once

#include "pool/pool_priv.h"
#include "rpc/cli/thin.h"

enum {
	CLI_OUTPUT_MAX = 16 << 20, /* bytes kept before they leave */
	CLI_FLUSH_AT = 256 << 10,
	CLI_STALL_MS = 600 * 1000, /* a client takes nothing (somebody pages through the output) */
	CLI_PARAMS_MAX = 4096,
	CLI_FILE_MAX = 512 << 10, /* bytes of a file that becomes an argument */
	CLI_ASK_S = 600,	  /* for an answer of the client */
};

/* What functions return besides 0, ERR_API (err says what) and ERR_CLOSED, ERR_CANCELLED, ... (the
 * client has gone, this member ends): it failed and the client has been told why. */
enum { CLI_FAILED = 1 };

struct cli_param {
	const char *name, *value;
	bool used;
};

struct cli {
	struct pool *pool;
	struct call *call; /* the service's */
	struct job *job;
	struct arena *arena; /* the job's */
	const char *command;
	struct cli_param *params;
	unsigned n_params;
	bool minimal, multiple, progress, trace, json, json_any, greeted;
	bool differs;		/* a condition "/=value" means another value */
	struct buf out;		/* frames to be sent */
	struct buf minimal_out; /* the one line of --minimal */
	bool minimal_any;
};

/* Output: appended, sent by cli_flush. Texts are copied. */
void cli_print(struct cli *cli, const char *text); /* a line to stdout; nothing when minimal */
void cli_stderr(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One value of a list: a line, or the next item of the line of --minimal. */
void cli_item(struct cli *cli, const char *text);
/* Says why on stderr; returns CLI_FAILED. */
int cli_fail(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Send what was printed: not with a view pinned. 0, or the client has gone. */
int cli_flush(struct cli *cli);
/* Bytes of the client; exactly n. 0, ERR_CLOSED, ERR_TIMEOUT, ERR_CANCELLED, ERR_DEAD. */
int cli_read(struct cli *cli, void *out, size_t n);
/* A frame of the client. The same, and ERR_CORRUPT. Its texts live in the arena. */
int cli_read_frame(struct cli *cli, struct thin_frame *out);
void cli_frame(struct cli *cli, const struct thin_frame *frame);

/* Calls. The message must exist. */
int cli_call(struct cli *cli, const struct model_message *m, const struct val *args,
	struct val *result_out, struct err *err);
/* The same by a task, told on stderr how far it is (cli_watch.c); m->async. */
int cli_watched(struct cli *cli, const struct model_message *m, const struct val *args,
	struct val *result_out, struct err *err);
/* By name: n arguments, the rest take their defaults; NOT_IMPLEMENTED when this version has no
 * such message. */
int cli_invoke(struct cli *cli, const char *method, const struct val *args, unsigned n,
	struct val *result_out, struct err *err);
void cli_view(struct cli *cli, struct db_view *out);

/* A failed call, on stderr: a sentence and a line for each parameter by its name, where there is a
 * sentence; else code and parameters (cli.md 3.6). */
void cli_say_error(struct cli *cli, const struct err *err);
/* cli_error.c; NULL: none */
const char *cli_error_text(const struct err_code *code);

/* cli_params.c */
/* From lines of name=value, --flag, -s value. The command is the first line. 0 or CLI_FAILED. */
int cli_params_parse(struct cli *cli, char *text);
/* The last value given under that name; NULL: none. Marks it as used. */
const char *cli_get(struct cli *cli, const char *name);
bool cli_get_bool(struct cli *cli, const char *name);
/* name:key=value pairs as a map of strings. */
struct val cli_get_map(struct cli *cli, const char *name);
/* Never taken for a filter. */
bool cli_param_standard(const char *name);
/* Text as a value of that type; references by uuid or by a name that is the only one. 0, ERR_API or
 * CLI_FAILED. */
int cli_value(struct cli *cli, const struct model_type *type, const char *name, const char *text,
	struct val *out, struct err *err);
/* The object of a class by uuid or name; NULL: none, or several of that name. */
const struct db_row *cli_object(const struct db_view *view, int class_id, const char *text);
/* What was given and nobody has asked for. */
void cli_params_warn(struct cli *cli);

/* cli_class.c */
enum cli_show { CLI_PLAIN, CLI_UUID, CLI_LABEL };
enum cli_kind { CLI_SCALAR, CLI_SET, CLI_MAP };

struct cli_field {
	const char *name; /* "vm-name-label" */
	/* Fields of the model on the way to the value, the first one the class's own. */
	int class_id[3], field[3];
	unsigned n;
	enum cli_show show; /* of a reference */
	enum cli_kind kind;
	bool writable;
};

struct cli_class {
	const char *name; /* "vm" */
	int class_id;
	const char *shown;  /* names of the fields that X-list shows; "": all */
	const char *filter; /* that X-list implies: "is-a-template=false" */
	/* Fields in their order: "name", or "name=path" where the rule gives another name or none;
	 * what is not mentioned follows in the order of the model. */
	const char *order;
};

extern const struct cli_class cli_classes[];
extern const unsigned cli_n_classes;

const struct cli_class *cli_class_find(const char *name, size_t n);
/* All fields; how many. */
unsigned cli_fields(const struct cli_class *c, struct arena *a, struct cli_field **out);
const struct cli_field *cli_field_find(
	const struct cli_field *fields, unsigned n, const char *name, size_t len);
/* Is every word of the class's row known? NULL, or the one that is not. For the unit test. */
const char *cli_class_wrong(const struct cli_class *c, struct arena *a);
/* " ( RW)", " (MRO)" ... */
const char *cli_field_rights(const struct cli_field *f);
/* The value itself: VAL_VOID where the way breaks off. */
struct val cli_field_value(const struct cli_field *f, const struct db_view *view,
	const struct db_row *row, struct arena *a);
/* As it is printed. */
const char *cli_field_text(const struct cli_field *f, const struct db_view *view,
	const struct db_row *row, struct arena *a);
/* In its own type: uuids for references, null for what is not there. */
void cli_field_json(struct buf *out, const struct cli_field *f, const struct db_view *view,
	const struct db_row *row, struct arena *a);
/* The message that writes the field: verb "set", "add", "add_to", ...; NULL: there is none. */
const struct model_message *cli_field_message(
	const struct cli_field *f, const char *verb, struct arena *a);

/* cli_record.c */
struct cli_selection {
	const char **refs;
	unsigned n;
};
/* The objects that the parameters select: filters, and `self` (a parameter such as "vm"; NULL:
 * none) by uuid or name. Parameters that are used already are no filters; others that are no field
 * fail: a slip of the pen must not choose everything. */
int cli_select(struct cli *cli, const struct cli_class *c, const char *self, const char *implied,
	struct cli_selection *out);
/* A generated command: false when the name is none. */
bool cli_generated(const char *command, const struct cli_class **class_out, const char **verb_out);
int cli_generated_run(
	struct cli *cli, const struct cli_class *c, const char *verb, struct err *err);
/* Print the fields named (NULL: the class's) of these objects. */
int cli_list(struct cli *cli, const struct cli_class *c, const struct cli_selection *objects,
	const char *params);
struct cli_help {
	const char *required, *optional, *text;
};
/* NULL: the class has no such command. */
const struct cli_help *cli_generated_help(const struct cli_class *c, const char *verb);
extern const char *const cli_verbs[]; /* ends with NULL */

/* cli_table.c */
enum {
	CLI_VM = 1, /* the objects are chosen by vm=, uuid= or any field */
	CLI_HOST = 2,
	CLI_SR = 4,
	CLI_COMMON = 8,	  /* in the short help */
	CLI_HIDDEN = 16,  /* in none */
	CLI_CONFIRM = 32, /* asks before it does it, unless force=true */
	CLI_WORDS_MAX = 32,
};

/* A command: a message of the API with its parameters, a function, or, with neither, a name that
 * answers NOT_IMPLEMENTED. args has a word for each parameter of the message, in its order (when it
 * creates from a record: for each field that can be given, `word>field`), then those that only the
 * function looks at:
 *
 *   name       required           @      the object chosen
 *   name?      optional           %pool  the pool        %host  this member's host
 *   name?=v    with a default     -      the message's own default, or nothing
 *   name:      name:key=value...  a|b    either, one is required
 *   <name      required: a file of the client, its content
 *   +word      for the function alone
 *
 * message "A|B": B when force=true. The unit test holds the table to all this; a member never
 * asserts it. */
struct cli_command {
	const char *name, *message, *args;
	unsigned flags;
	const char *text; /* NULL: the message's */
	/* For each object, or once with NULL. */
	int (*fn)(struct cli *cli, const struct cli_command *command, const char *object,
		struct err *err);
};

extern const struct cli_command cli_commands[];
extern const unsigned cli_n_commands;

int cli_run(struct cli *cli, struct err *err);
/* What is wrong with a row; NULL: nothing. For the unit test. */
const char *cli_command_wrong(const struct cli_command *command, struct arena *a);
/* The command's message, with what the client gave, about that object; result_out may be NULL:
 * printed. For functions that do a little more. */
int cli_run_message(struct cli *cli, const struct cli_command *command, const char *object,
	struct val *result_out, struct err *err);
/* Make an object: a map of the fields that are not to have their defaults; its reference. */
int cli_create(struct cli *cli, int class_id, const struct val *fields, struct val *result_out,
	struct err *err);
/* The content of a file of the client, in the arena, at most CLI_FILE_MAX. 0, CLI_FAILED, or the
 * client has gone. */
int cli_load(struct cli *cli, const char *file, const char **out);
/* Type 'yes' to continue, unless force=true. */
bool cli_confirmed(struct cli *cli);
/* The uuid of an object; "" when it is gone. */
const char *cli_uuid(struct cli *cli, int class_id, const char *ref);

/* cli_vm.c, cli_disk.c, cli_pool.c: functions of the table, in their order there. */
#define CLI_FUNCTION(name)                                                                         \
	int name(struct cli *cli, const struct cli_command *command, const char *object,           \
		struct err *err)
CLI_FUNCTION(cli_made);
CLI_FUNCTION(cli_emergency);
CLI_FUNCTION(cli_vm_start);
CLI_FUNCTION(cli_vm_resume);
CLI_FUNCTION(cli_vm_migrate);
CLI_FUNCTION(cli_vm_install);
CLI_FUNCTION(cli_vm_uninstall);
CLI_FUNCTION(cli_vm_disk_list);
CLI_FUNCTION(cli_vm_vif_list);
CLI_FUNCTION(cli_vbd_create);
CLI_FUNCTION(cli_vm_disk_add);
CLI_FUNCTION(cli_vm_disk_remove);
CLI_FUNCTION(cli_cd_list);
CLI_FUNCTION(cli_vm_cd_add);
CLI_FUNCTION(cli_vm_cd_remove);
CLI_FUNCTION(cli_vm_cd_insert);
CLI_FUNCTION(cli_vm_cd_eject);
CLI_FUNCTION(cli_vdi_resize);
CLI_FUNCTION(cli_event_wait);
CLI_FUNCTION(cli_message_create);
CLI_FUNCTION(cli_message_destroy);
CLI_FUNCTION(cli_message_destroy_all);
CLI_FUNCTION(cli_subject_role);
CLI_FUNCTION(cli_subject_add);
CLI_FUNCTION(cli_logout_all);
CLI_FUNCTION(cli_console);
CLI_FUNCTION(cli_dump_database);
CLI_FUNCTION(cli_audit_log);
