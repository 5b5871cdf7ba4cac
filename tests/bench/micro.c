/* xpool-micro: the database alone, without log and network: apply, pin, memory; and what a check of
 * roles, a request and a record cost. One line of JSON.
 *
 * usage: xpool-micro ROWS [TIMES]
 *
 * TIMES, 10000 unless told: entries that are applied; of the others a multiple. Few are enough
 * where instructions are counted (tests/bench/instructions.py).
 */
#include "db/entry_priv.h"
#include "pool/pool_priv.h"
#include "tests/lib/state.h"

#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VALUE = 200, TIMES = 10000, TIMES_MAX = 1000000, SUBJECTS = 3 };
/* for each entry that is applied */
enum { PINS = 200, CHECKS = 30, REQUESTS = 5, RECORDS = 1 };

struct micro {
	struct db db;
	unsigned rows, times;
	_Atomic bool stop;
};

/* Of this thread: what else the machine does is not in it. */
static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The n-th object of a kind. */
static void reference(char out[DB_REF_MAX + 1], unsigned kind, unsigned n)
{
	/* spread, as random ones are */
	snprintf(out, DB_REF_MAX + 1, "OpaqueRef:%08x-%04x-4000-8000-%012x", n * 2654435761u, kind,
		n);
}

static void apply(struct micro *m, struct buf *entry)
{
	CHECK(state_apply_bytes(&m->db, entry).status == APPLY_DONE);
}

/* As commit.c makes one of a transaction. */
static void encode(struct micro *m, struct db_txn *txn, uint64_t sequence, struct buf *out)
{
	struct db_proposal_id id = { 1, 77, sequence };

	(void)m;
	out->len = 0;
	db_txn_encode(txn, &id, 1000, out);
	db_txn_fini(txn);
}

static struct val text(struct arena *a, const char *s)
{
	return val_string(arena_strdup(a, s));
}

/* What VM.create writes of a usual record. */
static void vm_fields(struct arena *a, unsigned n, const char *ref, const char *metrics,
	struct val f[VM_FIELD_COUNT])
{
	f[VM_uuid] = text(a, ref + 10);
	f[VM_name_label] = val_string(arena_printf(a, "vm%u", n));
	f[VM_name_description] = val_string("made by xpool-micro");
	f[VM_memory_static_max] = f[VM_memory_dynamic_max] = val_int(1 << 30);
	f[VM_affinity] = f[VM_resident_on] = val_string("OpaqueRef:NULL");
	f[VM_power_state] = val_string("Halted");
	f[VM_metrics] = text(a, metrics);
	f[VM_platform] = f[VM_HVM_boot_params] = f[VM_other_config] = val_map();
	val_map_push(a, &f[VM_platform], "viridian", val_string("true"));
	val_map_push(a, &f[VM_HVM_boot_params], "order", val_string("cdn"));
	val_map_push(a, &f[VM_other_config], "folder", val_string("/benchmark"));
}

static void create(
	struct micro *m, struct buf *entry, int class_id, const char *ref, const struct val *fields)
{
	struct db_txn txn;

	db_txn_init(&txn, DB_FOR_FIELD);
	db_txn_create(&txn, class_id, ref, fields);
	encode(m, &txn, m->db.index + 1, entry);
	apply(m, entry);
}

static void create_vm(struct micro *m, struct buf *entry, unsigned n)
{
	struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char ref[DB_REF_MAX + 1], metrics[DB_REF_MAX + 1];
	struct arena a;

	arena_init(&a);
	reference(ref, 1, n);
	reference(metrics, 2, n);
	vm_fields(&a, n, ref, metrics, f);
	create(m, entry, MODEL_CLASS_VM, ref, f);
	arena_fini(&a);
}

/* Its metrics, two disks and a network interface. */
static void create_devices(struct micro *m, struct buf *entry, unsigned n)
{
	struct val f[VM_METRICS_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct val d[VBD_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct val i[VIF_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char vm[DB_REF_MAX + 1], ref[DB_REF_MAX + 1];

	reference(vm, 1, n);
	reference(ref, 2, n);
	f[VM_METRICS_uuid] = val_string(ref + 10);
	create(m, entry, MODEL_CLASS_VM_metrics, ref, f);
	d[VBD_VM] = i[VIF_VM] = val_string(vm);
	for (unsigned k = 0; k < 2; k++) {
		reference(ref, 3 + k, n);
		d[VBD_uuid] = val_string(ref + 10);
		d[VBD_userdevice] = val_string(k ? "1" : "0");
		create(m, entry, MODEL_CLASS_VBD, ref, d);
	}
	reference(ref, 5, n);
	i[VIF_uuid] = val_string(ref + 10);
	i[VIF_device] = val_string("0");
	i[VIF_MAC] = val_string("02:00:00:00:00:01");
	create(m, entry, MODEL_CLASS_VIF, ref, i);
}

/* Bytes of the heap for one VM with all that belongs to it. */
static double memory_per_vm(struct micro *m, struct buf *entry)
{
	unsigned n = m->rows / 10 > 0 ? m->rows / 10 : 1;
	size_t before = mallinfo2().uordblks;

	for (unsigned k = 0; k < n; k++) {
		create_vm(m, entry, k);
		create_devices(m, entry, k);
	}
	return (double)(mallinfo2().uordblks - before) / n;
}

/* Microseconds of one entry that writes one field of one row, anywhere among all. */
static double apply_us(struct micro *m)
{
	struct buf *entries = mem_new(m->times * sizeof *entries);
	char ref[DB_REF_MAX + 1], value[VALUE + 1];
	struct db_txn txn;
	double began;

	for (unsigned k = 0; k < m->times; k++) {
		reference(ref, 1, k * 7919u % m->rows);
		snprintf(value, sizeof value, "%0*u", VALUE, k);
		db_txn_init(&txn, DB_FOR_FIELD);
		db_txn_need_row(&txn, MODEL_CLASS_VM, ref);
		db_txn_set(&txn, MODEL_CLASS_VM, ref, VM_name_description, val_string(value));
		encode(m, &txn, m->db.index + 1 + k, &entries[k]);
	}
	began = now_s();
	for (unsigned k = 0; k < m->times; k++)
		apply(m, &entries[k]);
	began = now_s() - began;
	for (unsigned k = 0; k < m->times; k++)
		buf_fini(&entries[k]);
	free(entries);
	return began / m->times * 1e6;
}

static double pin_ns(struct micro *m)
{
	struct db_view view;
	double began = now_s();

	for (unsigned k = 0; k < m->times * PINS; k++) {
		db_view_pin(&m->db, &view);
		db_view_unpin(&view);
	}
	return (now_s() - began) / (m->times * PINS) * 1e9;
}

static void *other_reader(void *arg)
{
	struct micro *m = arg;
	struct db_view view;

	while (!m->stop) {
		db_view_pin(&m->db, &view);
		db_view_unpin(&view);
	}
	return NULL;
}

/* The same while another thread does nothing but pin. */
static double pin_beside_ns(struct micro *m)
{
	pthread_t thread;
	double ns;

	CHECK(pthread_create(&thread, NULL, other_reader, m) == 0);
	ns = pin_ns(m);
	m->stop = true;
	pthread_join(thread, NULL);
	return ns;
}

/* A session of a directory user, by that user and groups, with a role for each. */
static void create_session(struct micro *m, struct buf *entry, char ref[DB_REF_MAX + 1])
{
	struct val f[SESSION_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct val s[SUBJECT_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char subject[DB_REF_MAX + 1];
	struct arena a;

	arena_init(&a);
	f[SESSION_subjects] = val_set();
	for (unsigned k = 0; k < SUBJECTS; k++) {
		const struct model_permission *role = &model_permissions[2 + k];

		reference(subject, 7, k);
		s[SUBJECT_roles] = val_set();
		val_set_push(&a, &s[SUBJECT_roles],
			val_string(arena_printf(&a, "OpaqueRef:%s", role->uuid)));
		create(m, entry, MODEL_CLASS_subject, subject, s);
		val_set_push(&a, &f[SESSION_subjects], val_string(arena_strdup(&a, subject)));
	}
	reference(ref, 8, 0);
	create(m, entry, MODEL_CLASS_session, ref, f);
	arena_fini(&a);
}

/* Microseconds of what a call costs because its caller is no superuser: the roles of the session,
 * read from rows, and the check of a message and of a key of a map, in turn. */
static double role_us(struct micro *m, struct buf *entry)
{
	static const char *const names[] = { "VM.start", "VM.add_to_other_config" };
	struct val args[2] = { { .kind = VAL_STRING, .s = "none" },
		{ .kind = VAL_STRING, .s = "XenCenter.CustomFields.owner" } };
	char ref[DB_REF_MAX + 1];
	struct call call = { .args = args, .caller = { .session = ref, .sid = "u1" } };
	double began;

	create_session(m, entry, ref);
	db_view_pin(&m->db, &call.view);
	began = now_s();
	for (unsigned k = 0; k < m->times * CHECKS; k++) {
		arena_init(&call.arena);
		call.method = model_message_find(names[k % ARRAY_LEN(names)]);
		call.caller.roles = roles_of_session(
			&call.view, db_view_get(&call.view, MODEL_CLASS_session, ref), &call.arena);
		CHECK(role_check(&call, &call.err) == 0);
		arena_fini(&call.arena);
	}
	began = now_s() - began;
	db_view_unpin(&call.view);
	return began / (m->times * CHECKS) * 1e6;
}

/* Microseconds of decoding a request, in turn of each encoding. */
static double request_us(struct micro *m)
{
	static const char *const bodies[] = {
		"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"VM.set_name_description\",\"params\":["
		"\"OpaqueRef:00000001-0001-4000-8000-000000000001\","
		"\"OpaqueRef:00000002-0002-4000-8000-000000000002\",\"a word or two\"]}",
		"<?xml version='1.0'?><methodCall><methodName>VM.set_name_description</methodName>"
		"<params><param><value><string>OpaqueRef:00000001-0001-4000-8000-000000000001"
		"</string></value></param><param><value><string>OpaqueRef:00000002-0002-4000-8000-"
		"000000000002</string></value></param><param><value>a word or two</value></param>"
		"</params></methodCall>",
	};
	double began = now_s();

	for (unsigned k = 0; k < m->times * REQUESTS; k++) {
		const char *body = bodies[k % 2], *why;
		struct rpc_message message = { 0 };
		struct arena a;

		arena_init(&a);
		CHECK((k % 2 == 0 ? rpc_json_request : rpc_xml_request)(
			      &a, body, strlen(body), &message, &why) == 0);
		CHECK(message.params->n == 3);
		arena_fini(&a);
	}
	return (now_s() - began) / (m->times * REQUESTS) * 1e6;
}

/* Microseconds of writing the record of a VM, in turn in each encoding. */
static double record_us(struct micro *m)
{
	char ref[DB_REF_MAX + 1];
	struct buf out = { 0 };
	struct db_view view;
	double began = now_s();

	db_view_pin(&m->db, &view);
	for (unsigned k = 0; k < m->times * RECORDS; k++) {
		reference(ref, 1, k * 7919u % m->rows);
		out.len = 0;
		pool_record(&view, db_view_get(&view, MODEL_CLASS_VM, ref),
			k % 2 == 0 ? RPC_JSON2 : RPC_XML, &out);
		CHECK(out.len > 1000);
	}
	db_view_unpin(&view);
	buf_fini(&out);
	return (now_s() - began) / (m->times * RECORDS) * 1e6;
}

int main(int argc, char **argv)
{
	static struct micro m;
	struct buf entry = { 0 };
	double memory;

	m.rows = argc >= 2 ? (unsigned)atoi(argv[1]) : 0;
	m.times = argc == 3 ? (unsigned)atoi(argv[2]) : TIMES;
	if (argc > 3 || m.rows == 0 || m.times == 0 || m.times > TIMES_MAX) {
		fputs("usage: xpool-micro ROWS [TIMES]\n", stderr);
		return 2;
	}
	state_open(&m.db);
	memory = memory_per_vm(&m, &entry);
	for (unsigned k = m.rows / 10 > 0 ? m.rows / 10 : 1; k < m.rows; k++)
		create_vm(&m, &entry, k);
	printf("{\"vm_bytes\": %.0f, \"apply_us\": %.3f, ", memory, apply_us(&m));
	printf("\"role_us\": %.3f, ", role_us(&m, &entry));
	printf("\"request_us\": %.3f, ", request_us(&m));
	printf("\"record_us\": %.3f, ", record_us(&m));
	printf("\"pin_ns\": %.1f, ", pin_ns(&m));
	printf("\"pin_beside_ns\": %.1f}\n", pin_beside_ns(&m));
	buf_fini(&entry);
	return 0;
}
