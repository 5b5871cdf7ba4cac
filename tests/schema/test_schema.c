/* Schemas in a build whose model is newer by tests/schema/overlay: a snapshot that a real pool of
 * schema 4 has written (three VMs: first has other_config:notes, second has none, third an empty
 * one) is read, written and raised; entries of the wrong schema; a member that is too old.
 *
 * usage: test_schema FOLDER        where snapshot-4 is
 */
#include "tests/lib/state.h"
#include "tests/lib/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OLD = MODEL_SCHEMA_BASE, NEW = MODEL_SCHEMA_VERSION };

struct bench {
	struct db db;
	uint64_t sequence;
	struct buf recorded;
};

static const char *folder;

static void read_recorded(struct buf *out)
{
	char path[512];
	size_t n;
	FILE *f;

	snprintf(path, sizeof path, "%s/snapshot-4", folder);
	f = fopen(path, "re");
	ck_assert_ptr_nonnull(f);
	do {
		n = fread(buf_room(out, 65536), 1, 65536, f);
		out->len += n;
	} while (n > 0);
	fclose(f);
}

static void bench_open(struct bench *b)
{
	struct db_state *s;
	const char *why = NULL;

	*b = (struct bench){ 0 };
	b->db.done = db__done_new(0);
	db__views_init(&b->db.views);
	read_recorded(&b->recorded);
	s = db__snapshot_decode(b->recorded.data, b->recorded.len, b->db.done, &why);
	ck_assert_msg(s != NULL, "%s", why);
	db__views_publish(&b->db.views, s);
	b->db.index = s->index;
}

static void bench_close(struct bench *b)
{
	char why[128];

	ck_assert_msg(db__state_check(b->db.views.root, why, sizeof why), "%s", why);
	state_close(&b->db);
	buf_fini(&b->recorded);
}

static struct apply_result apply(struct bench *b, struct db_txn *txn, unsigned schema)
{
	txn->schema = schema;
	return state_apply(&b->db, txn, ++b->sequence);
}

static struct apply_result raise_schema(struct bench *b)
{
	struct db_txn t;

	db_txn_init(&t, DB_FOR_CONFIG);
	db_txn_raise(&t, NEW);
	return apply(b, &t, OLD);
}

static const struct db_row *vm(struct bench *b, const char *label)
{
	struct db_view view = { .state = b->db.views.root };
	struct db_cursor c = db_rows_with_label(&view, MODEL_CLASS_VM, label);

	return db_next(&c);
}

static void same_again(struct bench *b)
{
	struct done_table *done = db__done_new(0);
	struct buf bytes = { 0 }, twice = { 0 };
	const char *why = NULL;
	struct db_state *s;

	db__snapshot_encode(b->db.views.root, b->db.done, &bytes);
	s = db__snapshot_decode(bytes.data, bytes.len, done, &why);
	ck_assert_msg(s != NULL, "%s", why);
	ck_assert_uint_eq(s->hash, ((const struct db_state *)b->db.views.root)->hash);
	db__snapshot_encode(s, done, &twice);
	ck_assert(bytes.len == twice.len && memcmp(bytes.data, twice.data, bytes.len) == 0);
	buf_fini(&bytes);
	buf_fini(&twice);
	db__state_free(s);
	db__done_free(done);
}

START_TEST(an_older_snapshot_is_written_as_it_was_read)
{
	struct buf bytes = { 0 };
	struct bench b;

	bench_open(&b);
	ck_assert_uint_eq(((const struct db_state *)b.db.views.root)->schema, OLD);
	db__snapshot_encode(b.db.views.root, b.db.done, &bytes);
	ck_assert(
		bytes.len == b.recorded.len && memcmp(bytes.data, b.recorded.data, bytes.len) == 0);
	ck_assert_str_eq(db_row_s(vm(&b, "first"), VM_notes), "");
	buf_fini(&bytes);
	bench_close(&b);
}
END_TEST

START_TEST(a_raise_runs_the_rule_and_leaves_other_rows_alone)
{
	struct bench b;
	uint64_t second;

	bench_open(&b);
	second = vm(&b, "second")->modified;
	ck_assert(raise_schema(&b).status == APPLY_DONE);
	ck_assert_uint_eq(((const struct db_state *)b.db.views.root)->schema, NEW);
	ck_assert_str_eq(db_row_s(vm(&b, "first"), VM_notes), "kept here");
	ck_assert_uint_eq(vm(&b, "first")->modified, b.db.index);
	ck_assert_str_eq(db_row_s(vm(&b, "second"), VM_notes), "");
	ck_assert_uint_eq(vm(&b, "second")->modified, second);
	ck_assert_str_eq(db_row_s(vm(&b, "third"), VM_notes), "");
	ck_assert_uint_eq(b.db.changes.n, 2); /* the first VM, and the row that shows the schema */
	/* rows of both lengths */
	ck_assert_uint_eq(vm(&b, "second")->n_fields, model_stored(MODEL_CLASS_VM, OLD));
	ck_assert_uint_eq(vm(&b, "first")->n_fields, vm(&b, "second")->n_fields + 1u);
	same_again(&b);
	/* a second raise changes nothing */
	ck_assert(raise_schema(&b).status == APPLY_REFUSED);
	bench_close(&b);
}
END_TEST

START_TEST(a_change_makes_an_older_row_a_newer_one)
{
	struct bench b;
	struct db_txn t;

	bench_open(&b);
	raise_schema(&b);
	db_txn_init(&t, DB_FOR_FIELD);
	db_txn_set(&t, MODEL_CLASS_VM, vm(&b, "second")->ref, VM_notes, val_string("new"));
	ck_assert(apply(&b, &t, NEW).status == APPLY_DONE);
	ck_assert_str_eq(db_row_s(vm(&b, "second"), VM_notes), "new");
	ck_assert_uint_eq(vm(&b, "second")->n_fields, model_stored(MODEL_CLASS_VM, NEW));
	same_again(&b);
	bench_close(&b);
}
END_TEST

static struct apply_result describe(struct bench *b, unsigned schema)
{
	struct db_txn t;

	db_txn_init(&t, DB_FOR_FIELD);
	db_txn_set(&t, MODEL_CLASS_VM, vm(b, "second")->ref, VM_name_description, val_string("x"));
	return apply(b, &t, schema);
}

START_TEST(an_entry_of_another_schema_is_refused)
{
	struct apply_result res;
	struct bench b;
	uint64_t hash;

	bench_open(&b);
	hash = ((const struct db_state *)b.db.views.root)->hash;
	res = describe(&b, NEW);
	ck_assert(res.status == APPLY_REFUSED && res.failed == APPLY_SCHEMA);
	ck_assert_uint_eq(((const struct db_state *)b.db.views.root)->hash, hash);
	ck_assert(describe(&b, OLD).status == APPLY_DONE);
	raise_schema(&b);
	res = describe(&b, OLD);
	ck_assert(res.status == APPLY_REFUSED && res.failed == APPLY_SCHEMA);
	ck_assert(describe(&b, NEW).status == APPLY_DONE);
	bench_close(&b);
}
END_TEST

START_TEST(what_is_new_does_not_get_into_an_older_entry)
{
	struct db_proposal_id id = { 1, 77, 1 };
	struct buf entry = { 0 };
	struct entry_head head;
	struct db_txn t;

	for (unsigned schema = OLD; schema <= NEW; schema += NEW - OLD) {
		db_txn_init(&t, DB_FOR_FIELD);
		db_txn_set(&t, MODEL_CLASS_VM, "OpaqueRef:x", VM_notes, val_string("x"));
		t.schema = schema;
		db_txn_encode(&t, &id, 1000, &entry);
		ck_assert(db__entry_head(entry.data, entry.len, &head));
		ck_assert(db__entry_check(&head) == (schema == OLD ? APPLY_BROKEN : APPLY_DONE));
		db_txn_fini(&t);
		buf_fini(&entry);
	}
}
END_TEST

START_TEST(a_member_that_is_too_old_stops_at_the_raise_and_only_there)
{
	struct apply_result res;
	struct bench b;
	struct db_txn t;

	bench_open(&b);
	b.db.views.schema_max = OLD;
	db_txn_init(&t, DB_FOR_CONFIG);
	db_txn_need_no_row(&t, MODEL_CLASS_VM, vm(&b, "first")->ref);
	db_txn_raise(&t, NEW);
	ck_assert(apply(&b, &t, OLD).status == APPLY_REFUSED);
	res = raise_schema(&b);
	ck_assert(res.status == APPLY_FOREIGN && res.failed == NEW);
	ck_assert_uint_eq(((const struct db_state *)b.db.views.root)->schema, OLD);
	bench_close(&b);
}
END_TEST

START_TEST(nobody_but_a_raise_writes_the_row_that_shows_the_schema)
{
	struct val f[_CONFIG_FIELD_COUNT] = { val_string("7") };
	struct apply_result res;
	struct bench b;
	struct db_txn t;

	bench_open(&b);
	for (int what = 0; what < 3; what++) {
		db_txn_init(&t, DB_FOR_CONFIG);
		if (what == 0)
			db_txn_set(&t, MODEL_CLASS__config, DB_SCHEMA_REF, _CONFIG_value, f[0]);
		else if (what == 1)
			db_txn_delete(&t, MODEL_CLASS__config, DB_SCHEMA_REF);
		else
			db_txn_create(&t, MODEL_CLASS__config, DB_SCHEMA_REF, f);
		res = apply(&b, &t, OLD);
		ck_assert(res.status == APPLY_REFUSED && res.failed == APPLY_MISFIT);
	}
	bench_close(&b);
}
END_TEST

static void add_vms(struct bench *b, unsigned n)
{
	struct val_pair note = { "notes", val_string("a note") };
	struct val config = { .kind = VAL_MAP, .pairs = &note, .n = 1, .cap = 1 };
	char ref[DB_REF_MAX + 1];

	for (unsigned i = 0; i < n; i++) {
		struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };
		struct db_txn t;

		snprintf(ref, sizeof ref, "OpaqueRef:vm%u", i);
		f[VM_uuid] = val_string(ref + 10);
		f[VM_other_config] = config;
		db_txn_init(&t, DB_FOR_FIELD);
		db_txn_create(&t, MODEL_CLASS_VM, ref, f);
		ck_assert(apply(b, &t, OLD).status == APPLY_DONE);
	}
}

START_TEST(a_rule_over_ten_thousand_rows_costs_less_than_an_election)
{
	enum { ELECTION_MS = 500, ROWS = 10000 };
	struct timespec began, ended;
	struct bench b;
	double ms;

	bench_open(&b);
	add_vms(&b, ROWS);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
	ck_assert(raise_schema(&b).status == APPLY_DONE);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
	ms = 1e3 * (double)(ended.tv_sec - began.tv_sec) +
	     (double)(ended.tv_nsec - began.tv_nsec) / 1e6;
	printf("raise with a rule that changes %u rows: %.0f ms of processor\n", b.db.changes.n,
		ms);
	ck_assert_uint_eq(b.db.changes.n, ROWS + 2);
	ck_assert(ms < ELECTION_MS);
	bench_close(&b);
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = { an_older_snapshot_is_written_as_it_was_read,
		a_raise_runs_the_rule_and_leaves_other_rows_alone,
		a_change_makes_an_older_row_a_newer_one, an_entry_of_another_schema_is_refused,
		what_is_new_does_not_get_into_an_older_entry,
		a_member_that_is_too_old_stops_at_the_raise_and_only_there,
		nobody_but_a_raise_writes_the_row_that_shows_the_schema,
		a_rule_over_ten_thousand_rows_costs_less_than_an_election };

	CHECK(argc == 2);
	folder = argv[1];
	return suite_run("schema", tests, ARRAY_LEN(tests), 60);
}
