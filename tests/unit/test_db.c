/* db: trees against a plain model, apply with every precondition and operation, views, repeated
 * proposals. */
#include "rpc/base/hash.h"
#include "tests/lib/state.h"
#include "tests/lib/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
	struct db db;
	uint64_t sequence;
};

static void bench_open(struct bench *b)
{
	b->sequence = 0;
	state_open(&b->db);
}

static void bench_close(struct bench *b)
{
	char why[128];

	ck_assert_msg(db__state_check(b->db.views.root, why, sizeof why), "%s", why);
	state_close(&b->db);
}

static struct apply_result apply(struct bench *b, struct db_txn *txn)
{
	return state_apply(&b->db, txn, ++b->sequence);
}

static void create_vm(struct db_txn *t, const char *ref, const char *label, const char *host)
{
	struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };

	f[VM_uuid] = val_string(ref + 10);
	f[VM_name_label] = val_string(label);
	f[VM_resident_on] = val_string(host);
	f[VM_memory_static_max] = val_int(100);
	db_txn_create(t, MODEL_CLASS_VM, ref, f);
}

static unsigned related(struct bench *b, const char *host)
{
	struct db_view v;
	struct db_cursor c;
	unsigned n = 0;

	db_view_pin(&b->db, &v);
	c = db_rows_related(&v, MODEL_RELATION_VM_resident_on, host);
	while (db_next(&c) != NULL)
		n++;
	db_view_unpin(&v);
	return n;
}

enum { TREE_KEYS = 3000 };

/* Keys of several shapes: long shared beginnings, one being the beginning of another, zero bytes.
 */
static size_t tree_key_of(int k, char out[64])
{
	static const char *const shapes[] = { "OpaqueRef:0000%04d", "%04d", "OpaqueRef:%04d-tail" };
	int n = snprintf(out, 64, shapes[k % 3], k / 3);

	if (k % 7 == 0)
		memset(out + n, 0, 2);
	return (size_t)n + (k % 7 == 0 ? 2 : 0);
}

/* Everything in the tree, in order, is what the model has. */
static void tree_is(const struct tree *t, const bool have[TREE_KEYS])
{
	const struct tree_entry *e = tree_seek(t, "", 0, false);
	char before[64] = "", key[64];
	size_t n_before = 0, n;
	unsigned seen = 0, want = 0;

	ck_assert(tree_sound(t));
	for (; e != NULL; seen++) {
		const char *k = tree_key(e, &n);
		int r = memcmp(before, k, n < n_before ? n : n_before);

		ck_assert(r < 0 || (r == 0 && n > n_before));
		memcpy(before, k, n_before = n);
		e = tree_seek(t, k, n, true);
	}
	for (int k = 0; k < TREE_KEYS; k++) {
		n = tree_key_of(k, key);
		want += have[k];
		ck_assert((tree_get(t, key, n) != NULL) == have[k]);
		e = tree_seek(t, key, n, false);
		ck_assert(!have[k] || (e != NULL && tree_value(e) == tree_get(t, key, n)));
	}
	ck_assert_uint_eq(seen, want);
}

START_TEST(tree_agrees_with_a_plain_model)
{
	enum { STEPS = 60000, LOOKS = 10 };
	static const char mark;
	bool have[TREE_KEYS] = { false }, then[TREE_KEYS] = { false };
	struct views v;
	const struct tree *t = NULL, *old = NULL;

	db__views_init(&v);
	srand(1);
	for (int i = 0; i < STEPS; i++) {
		int k = rand() % TREE_KEYS;
		char key[64];
		size_t n = tree_key_of(k, key);

		/* it grows, shrinks to nearly nothing, grows again */
		have[k] = rand() % 10 < (i / (STEPS / 3) == 1 ? 1 : 7);
		t = have[k] ? tree_put(&v.reclaim, t, key, n, &mark)
			    : tree_del(&v.reclaim, t, key, n);
		if (i % (STEPS / LOOKS) == 0) {
			tree_is(t, have);
			tree_is(old, then); /* an older tree is as it was */
			old = t;
			memcpy(then, have, sizeof have);
		}
	}
	for (int k = 0; k < TREE_KEYS; k++) {
		char key[64];
		size_t n = tree_key_of(k, key);

		t = tree_del(&v.reclaim, t, key, n);
	}
	ck_assert(t == NULL);
	db__views_fini(&v);
}
END_TEST

START_TEST(a_view_does_not_change_under_its_reader)
{
	struct bench b;
	struct db_view before;
	struct db_txn t;

	bench_open(&b);
	db_txn_init(&t, DB_FOR_FIELD);
	create_vm(&t, "OpaqueRef:a", "one", "OpaqueRef:NULL");
	ck_assert_int_eq(apply(&b, &t).status, APPLY_DONE);
	db_view_pin(&b.db, &before);
	for (int i = 0; i < 100; i++) {
		db_txn_init(&t, DB_FOR_FIELD);
		db_txn_set(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_name_label,
			val_string(i % 2 ? "two" : "three"));
		apply(&b, &t);
	}
	ck_assert_str_eq(
		db_row_s(db_view_get(&before, MODEL_CLASS_VM, "OpaqueRef:a"), VM_name_label),
		"one");
	db_view_unpin(&before);
	db_view_pin(&b.db, &before);
	ck_assert_str_eq(
		db_row_s(db_view_get(&before, MODEL_CLASS_VM, "OpaqueRef:a"), VM_name_label),
		"two");
	db_view_unpin(&before);
	bench_close(&b);
}
END_TEST

/* Each precondition, holding and not. */
static void need(struct db_txn *t, int which)
{
	const char *a = "OpaqueRef:a", *no = "OpaqueRef:none";

	switch (which) {
	case 0: db_txn_need_row(t, MODEL_CLASS_VM, a); break;
	case 1: db_txn_need_no_row(t, MODEL_CLASS_VM, no); break;
	case 2: db_txn_need_field(t, MODEL_CLASS_VM, a, VM_name_label, val_string("one")); break;
	case 3: db_txn_need_no_key(t, MODEL_CLASS_VM, a, VM_other_config, "absent"); break;
	case 4: db_txn_need_version(t, MODEL_CLASS_VM, a, 1); break;
	case 5:
		db_txn_need_sum(t, MODEL_RELATION_VM_resident_on, "OpaqueRef:h",
			VM_memory_static_max, 50, 150);
		break;
	case 6: db_txn_need_row(t, MODEL_CLASS_VM, no); break;
	case 7: db_txn_need_no_row(t, MODEL_CLASS_VM, a); break;
	case 8: db_txn_need_field(t, MODEL_CLASS_VM, a, VM_name_label, val_string("two")); break;
	case 9: db_txn_need_no_key(t, MODEL_CLASS_VM, a, VM_other_config, "k"); break;
	case 10: db_txn_need_version(t, MODEL_CLASS_VM, a, 0); break;
	case 11:
		db_txn_need_sum(t, MODEL_RELATION_VM_resident_on, "OpaqueRef:h",
			VM_memory_static_max, 51, 150);
		break;
	default: UNREACHABLE();
	}
}

START_TEST(preconditions_hold_or_refuse_everything)
{
	for (int which = 0; which < 12; which++) {
		struct bench b;
		struct apply_result res;
		struct db_txn t;
		uint64_t hash;

		bench_open(&b);
		db_txn_init(&t, DB_FOR_FIELD);
		create_vm(&t, "OpaqueRef:a", "one", "OpaqueRef:h");
		db_txn_map_add(
			&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_other_config, "k", val_string("v"));
		apply(&b, &t);
		hash = b.db.views.root->hash;
		db_txn_init(&t, DB_FOR_FIELD);
		db_txn_need_row(&t, MODEL_CLASS_VM, "OpaqueRef:a");
		need(&t, which);
		db_txn_set(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_name_description,
			val_string("changed"));
		res = apply(&b, &t);
		if (which < 6) {
			ck_assert_msg(res.status == APPLY_DONE && b.db.views.root->hash != hash,
				"precondition %d", which);
		} else {
			ck_assert_msg(res.status == APPLY_REFUSED && res.failed == 1,
				"precondition %d", which);
			ck_assert(b.db.views.root->hash == hash &&
				  b.db.views.root->index == b.db.index);
		}
		bench_close(&b);
	}
}
END_TEST

/* op 0: makes it; 1: deletes it; else another host, or other bytes. */
static void reservation(struct bench *b, const char *ref, int op, const char *host, int64_t bytes)
{
	struct val f[_RESERVATION_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct db_txn t;

	db_txn_init(&t, DB_FOR_FIELD);
	f[_RESERVATION_host] = val_string(host);
	f[_RESERVATION_bytes] = val_int(bytes);
	if (op == 0)
		db_txn_create(&t, MODEL_CLASS__reservation, ref, f);
	else if (op == 1)
		db_txn_delete(&t, MODEL_CLASS__reservation, ref);
	for (int i = 0; op > 1 && i < _RESERVATION_FIELD_COUNT; i++)
		if (f[i].kind != VAL_VOID)
			db_txn_set(&t, MODEL_CLASS__reservation, ref, i, f[i]);
	ck_assert_int_eq(apply(b, &t).status, APPLY_DONE);
}

START_TEST(the_memory_set_aside_on_a_host_is_the_sum_of_its_reservations)
{
	static const struct {
		const char *ref;
		int op;
		const char *host;
		int64_t bytes, g, h; /* and then the sums of both hosts */
	} steps[] = { { "OpaqueRef:1", 0, "g", 100, 100, 0 }, { "OpaqueRef:2", 0, "g", 7, 107, 0 },
		{ "OpaqueRef:3", 0, "h", 50, 107, 50 }, { "OpaqueRef:2", 2, "h", 8, 100, 58 },
		{ "OpaqueRef:1", 2, "g", 90, 90, 58 }, { "OpaqueRef:1", 1, "g", 0, 0, 58 },
		{ "OpaqueRef:3", 1, "h", 0, 0, 8 } };
	struct db_view v;
	struct db_txn t;
	struct bench b;

	bench_open(&b);
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		reservation(&b, steps[i].ref, steps[i].op, steps[i].host, steps[i].bytes);
		db_view_pin(&b.db, &v);
		ck_assert_int_eq(db_sum_related(&v, MODEL_RELATION__reservation_host, "g",
					 _RESERVATION_bytes),
			steps[i].g);
		ck_assert_int_eq(db_sum_related(&v, MODEL_RELATION__reservation_host, "h",
					 _RESERVATION_bytes),
			steps[i].h);
		db_view_unpin(&v);
	}
	for (int more = 2; more <= 3; more++) {
		db_txn_init(&t, DB_FOR_FIELD);
		db_txn_need_sum(
			&t, MODEL_RELATION__reservation_host, "h", _RESERVATION_bytes, more, 10);
		ck_assert_int_eq(apply(&b, &t).status, more == 2 ? APPLY_DONE : APPLY_REFUSED);
	}
	bench_close(&b);
}
END_TEST

START_TEST(a_repeated_proposal_does_nothing_and_tells_the_first_result)
{
	struct bench b;
	struct apply_result first = { 0 }, again = { 0 };
	struct db_txn t;

	bench_open(&b);
	for (int i = 0; i < 2; i++) {
		first = again;
		db_txn_init(&t, DB_FOR_FIELD);
		db_txn_need_no_row(&t, MODEL_CLASS_VM, "OpaqueRef:a");
		create_vm(&t, "OpaqueRef:a", "one", "OpaqueRef:NULL");
		again = state_apply(&b.db, &t, 5);
	}
	ck_assert_int_eq(again.status, APPLY_DONE);
	ck_assert(again.duplicate && !first.duplicate);
	ck_assert_uint_eq(again.index, first.index);
	bench_close(&b);
}
END_TEST

static void create_row(struct db_txn *t, int class_id, const char *ref, int field, struct val value)
{
	struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };

	ck_assert(model_classes[class_id].n_fields <= VM_FIELD_COUNT);
	f[model_classes[class_id].uuid_field] = val_string(ref + 10);
	f[field] = value;
	db_txn_create(t, class_id, ref, f);
}

static bool there(struct bench *b, int class_id, const char *ref)
{
	struct db_view v;
	bool found;

	db_view_pin(&b->db, &v);
	found = db_view_get(&v, class_id, ref) != NULL;
	db_view_unpin(&v);
	return found;
}

START_TEST(deleting_an_object_takes_its_dependents_in_the_same_entry)
{
	struct bench b;
	struct db_txn t;
	char why[128];

	bench_open(&b);
	db_txn_init(&t, DB_FOR_FIELD);
	create_row(&t, MODEL_CLASS_VM_metrics, "OpaqueRef:m", VM_METRICS_memory_actual, val_int(1));
	create_row(&t, MODEL_CLASS_VM, "OpaqueRef:v", VM_metrics, val_string("OpaqueRef:m"));
	create_row(&t, MODEL_CLASS_VM, "OpaqueRef:w", VM_name_label, val_string("other"));
	create_row(&t, MODEL_CLASS_VBD, "OpaqueRef:b", VBD_VM, val_string("OpaqueRef:v"));
	create_row(&t, MODEL_CLASS_VBD, "OpaqueRef:c", VBD_VM, val_string("OpaqueRef:w"));
	create_row(&t, MODEL_CLASS_VM, "OpaqueRef:s", VM_snapshot_of, val_string("OpaqueRef:v"));
	ck_assert_int_eq(apply(&b, &t).status, APPLY_DONE);
	db_txn_init(&t, DB_FOR_FIELD);
	db_txn_delete(&t, MODEL_CLASS_VM, "OpaqueRef:v");
	ck_assert_int_eq(apply(&b, &t).status, APPLY_DONE);
	ck_assert(!there(&b, MODEL_CLASS_VM_metrics, "OpaqueRef:m"));
	ck_assert(!there(&b, MODEL_CLASS_VBD, "OpaqueRef:b"));
	ck_assert(there(&b, MODEL_CLASS_VBD, "OpaqueRef:c"));
	ck_assert(there(&b, MODEL_CLASS_VM, "OpaqueRef:s")); /* a dead reference stays */
	ck_assert_msg(db__state_check(b.db.views.root, why, sizeof why), "%s", why);
	bench_close(&b);
}
END_TEST

static unsigned count_related(struct bench *b, int relation, const char *ref)
{
	struct db_view v;
	struct db_cursor c;
	unsigned n = 0;

	db_view_pin(&b->db, &v);
	c = db_rows_related(&v, relation, ref);
	while (db_next(&c) != NULL)
		n++;
	db_view_unpin(&v);
	return n;
}

/* Rows that are spliced are, byte for byte, the rows made of all values. */
START_TEST(a_row_with_one_other_value_is_the_row_of_these_values)
{
	const struct model_class *c = &model_classes[MODEL_CLASS_VM];
	const char *const texts[] = { "", "x", "a longer text than before" };
	struct val f[VM_FIELD_COUNT];

	for (unsigned i = 0; i < c->n_fields; i++)
		f[i] = c->fields[i].initial;
	for (unsigned i = 0; i < c->n_stored; i++)
		for (unsigned k = 0; k < ARRAY_LEN(texts); k++) {
			struct db_row *old, *spliced, *made;
			struct val kept = f[i];

			f[VM_name_label] = val_string("label");
			old = db__row_new(MODEL_CLASS_VM, "OpaqueRef:v", 3, 4, f, c->n_stored);
			f[i] = val_string(texts[k]);
			made = db__row_new(MODEL_CLASS_VM, "OpaqueRef:v", 3, 5, f, c->n_stored);
			spliced = db__row_with(old, 5, (int)i, &f[i]);
			ck_assert_uint_eq(spliced->size, made->size);
			ck_assert(memcmp(spliced, made, made->size) == 0);
			f[i] = kept;
			free(old);
			free(spliced);
			free(made);
		}
}
END_TEST

START_TEST(a_set_of_references_is_indexed_item_by_item)
{
	struct bench b;
	struct db_txn t;
	struct arena a;
	struct val groups = val_set();
	char why[128];

	bench_open(&b);
	arena_init(&a);
	val_set_push(&a, &groups, val_string("OpaqueRef:g"));
	val_set_push(&a, &groups, val_string("OpaqueRef:h"));
	db_txn_init(&t, DB_FOR_FIELD);
	create_row(&t, MODEL_CLASS_VM_group, "OpaqueRef:g", VM_GROUP_name_label, val_string("g"));
	create_row(&t, MODEL_CLASS_VM, "OpaqueRef:v", VM_groups, groups);
	create_row(&t, MODEL_CLASS_VM, "OpaqueRef:w", VM_groups, groups);
	ck_assert_int_eq(apply(&b, &t).status, APPLY_DONE);
	ck_assert_uint_eq(count_related(&b, MODEL_RELATION_VM_groups, "OpaqueRef:g"), 2);
	db_txn_init(&t, DB_FOR_FIELD);
	db_txn_set_remove(&t, MODEL_CLASS_VM, "OpaqueRef:v", VM_groups, val_string("OpaqueRef:g"));
	ck_assert_int_eq(apply(&b, &t).status, APPLY_DONE);
	ck_assert_uint_eq(count_related(&b, MODEL_RELATION_VM_groups, "OpaqueRef:g"), 1);
	ck_assert_uint_eq(count_related(&b, MODEL_RELATION_VM_groups, "OpaqueRef:h"), 2);
	db_txn_init(&t, DB_FOR_FIELD);
	db_txn_delete(&t, MODEL_CLASS_VM, "OpaqueRef:w");
	ck_assert_int_eq(apply(&b, &t).status, APPLY_DONE);
	ck_assert_uint_eq(count_related(&b, MODEL_RELATION_VM_groups, "OpaqueRef:g"), 0);
	ck_assert_uint_eq(count_related(&b, MODEL_RELATION_VM_groups, "OpaqueRef:h"), 1);
	ck_assert_msg(db__state_check(b.db.views.root, why, sizeof why), "%s", why);
	arena_fini(&a);
	bench_close(&b);
}
END_TEST

START_TEST(roles_are_there_from_the_first_index_and_cannot_be_written)
{
	struct bench b;
	struct db_txn t;
	struct db_view v;
	struct arena a;
	const struct db_row *role;
	struct val subroles;

	bench_open(&b);
	db__state_add_fixed((struct db_state *)b.db.views.root); /* nobody has seen it yet */
	arena_init(&a);
	db_view_pin(&b.db, &v);
	ck_assert_uint_eq(db_view_hash(&v), 0);
	ck_assert_uint_eq(db_view_count(&v, MODEL_CLASS_role), 2291);
	role = db_view_by_uuid(&v, MODEL_CLASS_role, "0165f154-ba3e-034e-6b27-5d271af109ba");
	ck_assert_str_eq(db_row_s(role, ROLE_name_label), "pool-admin");
	subroles = db_row_field(role, ROLE_subroles, &a);
	ck_assert_uint_eq(subroles.n, 2284);
	db_view_unpin(&v);
	db_txn_init(&t, DB_FOR_FIELD);
	create_row(&t, MODEL_CLASS_role, "OpaqueRef:r", ROLE_name_label, val_string("king"));
	ck_assert_int_eq(apply(&b, &t).status, APPLY_REFUSED);
	arena_fini(&a);
	bench_close(&b);
}
END_TEST

START_TEST(relations_follow_their_one_side_and_touch_the_other)
{
	struct bench b;
	struct db_txn t;
	struct db_view v;
	struct val f[HOST_FIELD_COUNT] = { { .kind = VAL_VOID } };
	uint64_t version;

	bench_open(&b);
	db_txn_init(&t, DB_FOR_CONFIG);
	f[HOST_uuid] = val_string("u");
	db_txn_create(&t, MODEL_CLASS_host, "OpaqueRef:h", f);
	create_vm(&t, "OpaqueRef:a", "one", "OpaqueRef:h");
	apply(&b, &t);
	ck_assert_uint_eq(related(&b, "OpaqueRef:h"), 1);
	db_txn_init(&t, DB_FOR_FACTS);
	db_txn_set(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_resident_on, val_string("OpaqueRef:NULL"));
	apply(&b, &t);
	ck_assert_uint_eq(related(&b, "OpaqueRef:h"), 0);
	db_view_pin(&b.db, &v);
	version = db_row_modified(db_view_get(&v, MODEL_CLASS_host, "OpaqueRef:h"));
	db_view_unpin(&v);
	ck_assert_uint_eq(version, b.db.index);
	db_txn_init(&t, DB_FOR_FIELD);
	db_txn_delete(&t, MODEL_CLASS_VM, "OpaqueRef:a");
	apply(&b, &t);
	db_view_pin(&b.db, &v);
	ck_assert_ptr_null(db_view_by_uuid(&v, MODEL_CLASS_VM, "a"));
	ck_assert_uint_eq(db_view_count(&v, MODEL_CLASS_VM), 0);
	db_view_unpin(&v);
	bench_close(&b);
}
END_TEST

/* Each part of a state that follows from its rows, taken away. */
START_TEST(a_state_that_is_not_sound_is_found_and_named)
{
	struct bench b;
	struct db_txn t;
	struct db_state *s;
	struct class_state *vms;
	char why[256];

	bench_open(&b);
	db_txn_init(&t, DB_FOR_FIELD);
	create_vm(&t, "OpaqueRef:a", "one", "OpaqueRef:h");
	ck_assert_int_eq(apply(&b, &t).status, APPLY_DONE);
	reservation(&b, "OpaqueRef:r", 0, "OpaqueRef:h", 5);
	s = (struct db_state *)(uintptr_t)b.db.views.root;
	vms = &s->classes[MODEL_CLASS_VM];
	ck_assert(db__state_check(s, why, sizeof why));
	const struct {
		const struct tree **tree;
		const char *why;
	} trees[] = { { &vms->uuids, "index of class VM" }, { &vms->labels, "index of class VM" },
		{ &vms->modified, "index of class VM" },
		{ &s->relations[MODEL_RELATION_VM_resident_on], "relation of VM.resident_on" },
		{ &s->set_aside, "memory set aside" } };
	for (size_t i = 0; i < ARRAY_LEN(trees); i++) {
		const struct tree *kept = *trees[i].tree;

		ck_assert_ptr_nonnull(kept);
		*trees[i].tree = NULL;
		ck_assert_msg(!db__state_check(s, why, sizeof why), "%s: sound", trees[i].why);
		ck_assert_msg(strstr(why, trees[i].why) != NULL, "%s: %s", trees[i].why, why);
		*trees[i].tree = kept;
	}
	uint64_t *const numbers[] = { &s->hash, &s->bytes, &vms->n_rows };
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		++*numbers[i];
		ck_assert(!db__state_check(s, why, sizeof why));
		--*numbers[i];
	}
	ck_assert(db__state_check(s, why, sizeof why));
	bench_close(&b);
}
END_TEST

START_TEST(an_equal_value_is_no_change)
{
	struct bench b;
	struct db_txn t;
	uint64_t hash;

	bench_open(&b);
	db_txn_init(&t, DB_FOR_FIELD);
	create_vm(&t, "OpaqueRef:a", "one", "OpaqueRef:NULL");
	apply(&b, &t);
	hash = b.db.views.root->hash;
	db_txn_init(&t, DB_FOR_FIELD);
	db_txn_set(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_name_label, val_string("one"));
	db_txn_map_remove(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_other_config, "absent");
	apply(&b, &t);
	ck_assert_uint_eq(b.db.changes.n, 0);
	ck_assert(b.db.views.root->hash == hash);
	bench_close(&b);
}
END_TEST

START_TEST(a_value_that_does_not_fit_its_field_is_refused)
{
	static const struct val wrong[] = { { .kind = VAL_INT, .i = 1 }, { .kind = VAL_SET },
		{ .kind = VAL_BOOL } };

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct bench b;
		struct apply_result res;
		struct db_txn t;
		uint64_t hash;

		bench_open(&b);
		db_txn_init(&t, DB_FOR_FIELD);
		create_vm(&t, "OpaqueRef:a", "one", "OpaqueRef:NULL");
		apply(&b, &t);
		hash = b.db.views.root->hash;
		db_txn_init(&t, DB_FOR_FIELD);
		db_txn_set(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_name_label,
			val_string("not this either"));
		db_txn_set(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_resident_on, wrong[i]);
		res = apply(&b, &t);
		ck_assert(res.status == APPLY_REFUSED && res.failed == APPLY_MISFIT);
		ck_assert(b.db.views.root->hash == hash);
		bench_close(&b);
	}
}
END_TEST

/* One more key of its map, of nearly an entry. */
static struct apply_result fill(struct bench *b, enum db_reason reason, unsigned schema, int number)
{
	enum { MANY = DB_ENTRY_MAX - 1000 };
	char *text = must(malloc(MANY + 1)), key[16];
	struct apply_result res;
	struct db_txn t;

	memset(text, 'x', MANY);
	text[MANY] = 0;
	snprintf(key, sizeof key, "k%d", number);
	db_txn_init(&t, reason);
	t.schema = schema;
	db_txn_map_add(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_other_config, key, val_string(text));
	res = apply(b, &t);
	free(text);
	return res;
}

static struct apply_result small_change(struct bench *b, const char *label, const char *gone)
{
	struct db_txn t;

	db_txn_init(&t, DB_FOR_FIELD);
	db_txn_set(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_name_label, val_string(label));
	db_txn_map_remove(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_other_config, gone);
	return apply(b, &t);
}

static struct apply_result found(struct bench *b, unsigned schema)
{
	struct db_txn t;

	bench_open(b);
	db_txn_init(&t, DB_FOR_FIELD);
	t.schema = schema;
	create_vm(&t, "OpaqueRef:a", "one", "OpaqueRef:NULL");
	return apply(b, &t);
}

START_TEST(a_row_that_is_full_takes_nothing_more_from_clients)
{
	enum { FIT = DB_ROW_MAX / DB_ENTRY_MAX + 1 };
	struct apply_result res = { 0 };
	struct bench b;
	uint64_t hash;
	int n = 0;

	ck_assert_int_eq(found(&b, MODEL_SCHEMA_VERSION).status, APPLY_DONE);
	while ((res = fill(&b, DB_FOR_FIELD, 0, n)).status == APPLY_DONE)
		ck_assert_int_le(++n, FIT);
	ck_assert_int_eq(n, FIT);
	ck_assert(res.status == APPLY_REFUSED && res.failed == APPLY_FULL);
	hash = b.db.views.root->hash;
	res = small_change(&b, "longer than one", "no key");
	ck_assert(res.status == APPLY_REFUSED && res.failed == APPLY_FULL);
	ck_assert(b.db.views.root->hash == hash);
	/* the pool's own work goes on, and so does what makes it smaller */
	ck_assert_int_eq(fill(&b, DB_FOR_FINISH, 0, n++).status, APPLY_DONE);
	ck_assert_int_eq(small_change(&b, "two", "k0").status, APPLY_DONE);
	ck_assert_int_eq(small_change(&b, "two", "k1").status, APPLY_DONE);
	ck_assert_int_eq(small_change(&b, "longer than one", "k2").status, APPLY_DONE);
	bench_close(&b);
	/* older members know of no limit */
	ck_assert_int_eq(found(&b, MODEL_SCHEMA_BASE).status, APPLY_DONE);
	for (n = 0; n < FIT + 2; n++)
		ck_assert_int_eq(fill(&b, DB_FOR_FIELD, MODEL_SCHEMA_BASE, n).status, APPLY_DONE);
	bench_close(&b);
}
END_TEST

/* Of one entry about a VM that is there, one that is not, and a task. */
static bool grows(struct bench *b, enum db_reason reason, void (*write)(struct db_txn *t))
{
	struct db_proposal_id id = { 1, 1, 1000 };
	struct buf entry = { 0 };
	struct entry_head head;
	struct db_txn t;
	bool is;

	db_txn_init(&t, reason);
	write(&t);
	db_txn_encode(&t, &id, 5, &entry);
	db_txn_fini(&t);
	ck_assert(db__entry_head(entry.data, entry.len, &head));
	is = db__entry_grows(&head, b->db.views.root);
	buf_fini(&entry);
	return is;
}

static void write_new(struct db_txn *t)
{
	create_vm(t, "OpaqueRef:b", "two", "OpaqueRef:NULL");
}

static void write_again(struct db_txn *t)
{
	create_vm(t, "OpaqueRef:a", "one", "OpaqueRef:NULL");
}

static void write_longer(struct db_txn *t)
{
	db_txn_set(t, MODEL_CLASS_VM, "OpaqueRef:a", VM_name_label, val_string("three"));
}

static void write_as_long(struct db_txn *t)
{
	db_txn_set(t, MODEL_CLASS_VM, "OpaqueRef:a", VM_name_label, val_string("two"));
}

static void write_tag(struct db_txn *t)
{
	db_txn_set_add(t, MODEL_CLASS_VM, "OpaqueRef:a", VM_tags, val_string("t"));
}

static void write_nowhere(struct db_txn *t)
{
	db_txn_set_add(t, MODEL_CLASS_VM, "OpaqueRef:b", VM_tags, val_string("t"));
}

static void write_less(struct db_txn *t)
{
	db_txn_set_remove(t, MODEL_CLASS_VM, "OpaqueRef:a", VM_tags, val_string("t"));
	db_txn_map_remove(t, MODEL_CLASS_VM, "OpaqueRef:a", VM_other_config, "k");
	db_txn_touch(t, MODEL_CLASS_VM, "OpaqueRef:a");
	db_txn_delete(t, MODEL_CLASS_VM, "OpaqueRef:a");
}

static void write_cancel(struct db_txn *t)
{
	db_txn_map_add(t, MODEL_CLASS_task, "OpaqueRef:t", TASK_current_operations, "k",
		val_string("cancel"));
}

START_TEST(what_makes_the_database_larger_is_told_from_what_does_not)
{
	static const struct {
		void (*write)(struct db_txn *t);
		bool grows;
	} cases[] = { { write_new, true }, { write_again, false }, { write_longer, true },
		{ write_as_long, false }, { write_tag, true }, { write_nowhere, false },
		{ write_less, false }, { write_cancel, false } };
	struct val fields[TASK_FIELD_COUNT] = { { .kind = VAL_VOID } };
	struct db_proposal_id id = { 1, 77, 1 };
	struct db_txn t;
	struct bench b;

	ck_assert_int_eq(found(&b, MODEL_SCHEMA_VERSION).status, APPLY_DONE);
	db_txn_init(&t, DB_FOR_ADMIT);
	db_txn_create(&t, MODEL_CLASS_task, "OpaqueRef:t", fields);
	ck_assert_int_eq(apply(&b, &t).status, APPLY_DONE);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		ck_assert_int_eq(grows(&b, DB_FOR_FIELD, cases[i].write), cases[i].grows);
		ck_assert(!grows(&b, DB_FOR_FINISH, cases[i].write));
	}
	/* and what has been decided from what has not: it is never refused afterwards */
	ck_assert(db__done_has(b.db.done, &id));
	id.sequence = b.sequence + 1;
	ck_assert(!db__done_has(b.db.done, &id));
	bench_close(&b);
}
END_TEST

static void encode_one(struct db_txn *t, struct buf *out)
{
	struct db_proposal_id id = { 1, 1, 1 };

	db_txn_need_row(t, MODEL_CLASS_VM, "OpaqueRef:a");
	db_txn_encode(t, &id, 5, out);
	db_txn_fini(t);
}

START_TEST(an_entry_says_who_asked_for_it)
{
	char user[DB_ORIGIN_MAX + 20] = "";
	struct entry_head head;
	struct buf entry = { 0 };
	struct db_txn t;

	/* 63 characters of 2 bytes fit; the 64th would be cut in two */
	while (strlen(user) < DB_ORIGIN_MAX + 10)
		strcat(user, "\xc3\xbc");
	db_txn_init(&t, DB_FOR_FIELD);
	db_txn_origin(&t, (struct db_origin){ "nobody", NULL, NULL });
	db_txn_origin(&t, (struct db_origin){ user, "OpaqueRef:t", "VM.start" });
	encode_one(&t, &entry);
	ck_assert(db__entry_head(entry.data, entry.len, &head));
	ck_assert_uint_eq(strlen(head.origin.user), DB_ORIGIN_MAX - 1);
	ck_assert(val_text_ok(head.origin.user));
	ck_assert_str_eq(head.origin.task, "OpaqueRef:t");
	ck_assert_str_eq(head.origin.method, "VM.start");
	ck_assert_int_eq(db__entry_check(&head), APPLY_DONE);
	buf_fini(&entry);
}
END_TEST

/* Where the origin begins: behind magic, length, format, schema, reason, proposal id and time. */
enum { ORIGIN_AT = 4 + 4 + 2 + 2 + 1 + 24 + 8, ORIGIN_EMPTY = 3 * 5 };

START_TEST(an_entry_of_the_first_format_has_no_origin)
{
	struct entry_head head;
	struct buf entry = { 0 };
	struct db_txn t;
	uint32_t length;

	db_txn_init(&t, DB_FOR_FIELD);
	encode_one(&t, &entry);
	memcpy(&length, entry.data + 4, sizeof length);
	buf_patch_u32(&entry, 4, length - ORIGIN_EMPTY);
	entry.data[8] = 1;
	memmove(entry.data + ORIGIN_AT, entry.data + ORIGIN_AT + ORIGIN_EMPTY,
		entry.len - ORIGIN_AT - ORIGIN_EMPTY);
	ck_assert(db__entry_head(entry.data, entry.len, &head));
	ck_assert_str_eq(head.origin.user, "");
	ck_assert_int_eq(db__entry_check(&head), APPLY_DONE);
	/* and one of a format to come is not read, nor taken for broken bytes */
	entry.data[8] = DB_FORMAT + 1;
	ck_assert(db__entry_head(entry.data, entry.len, &head));
	ck_assert_int_eq(db__entry_check(&head), APPLY_BROKEN);
	buf_fini(&entry);
}
END_TEST

START_TEST(an_origin_longer_than_its_limit_is_no_entry)
{
	struct entry_head head;
	struct buf entry = { 0 }, longer = { 0 };
	char user[DB_ORIGIN_MAX + 2];
	struct db_txn t;

	db_txn_init(&t, DB_FOR_FIELD);
	encode_one(&t, &entry);
	memset(user, 'u', sizeof user - 1);
	user[sizeof user - 1] = 0;
	buf_put(&longer, entry.data, ORIGIN_AT);
	buf_str(&longer, user);
	buf_put(&longer, entry.data + ORIGIN_AT + 5, entry.len - ORIGIN_AT - 5);
	buf_patch_u32(&longer, 4, (uint32_t)longer.len);
	ck_assert(!db__entry_head(longer.data, longer.len, &head));
	buf_fini(&entry);
	buf_fini(&longer);
}
END_TEST

START_TEST(damaged_entries_never_crash)
{
	srand(3);
	for (int i = 0; i < 3000; i++) {
		struct bench b;
		struct db_txn t;
		struct db_proposal_id id = { 1, 1, 1 };
		struct entry_head head;
		struct buf entry = { 0 };
		size_t n;

		bench_open(&b);
		db_txn_init(&t, DB_FOR_FIELD);
		db_txn_need_no_key(&t, MODEL_CLASS_VM, "OpaqueRef:a", VM_other_config, "k");
		create_vm(&t, "OpaqueRef:b", "one", "OpaqueRef:h");
		db_txn_map_add(
			&t, MODEL_CLASS_VM, "OpaqueRef:b", VM_other_config, "k", val_string("v"));
		db_txn_encode(&t, &id, 1, &entry);
		db_txn_fini(&t);
		entry.data[10 + (size_t)rand() % (entry.len - 10)] ^= (uint8_t)(1 << rand() % 8);
		n = rand() % 4 ? entry.len : (size_t)rand() % entry.len;
		if (db__entry_head(entry.data, n, &head))
			db__apply(&b.db.views, b.db.done, 1, &head, &b.db.changes);
		buf_fini(&entry);
		state_close(&b.db);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		tree_agrees_with_a_plain_model,
		a_view_does_not_change_under_its_reader,
		preconditions_hold_or_refuse_everything,
		the_memory_set_aside_on_a_host_is_the_sum_of_its_reservations,
		a_repeated_proposal_does_nothing_and_tells_the_first_result,
		relations_follow_their_one_side_and_touch_the_other,
		deleting_an_object_takes_its_dependents_in_the_same_entry,
		a_row_with_one_other_value_is_the_row_of_these_values,
		a_set_of_references_is_indexed_item_by_item,
		roles_are_there_from_the_first_index_and_cannot_be_written,
		a_state_that_is_not_sound_is_found_and_named,
		an_equal_value_is_no_change,
		a_value_that_does_not_fit_its_field_is_refused,
		a_row_that_is_full_takes_nothing_more_from_clients,
		what_makes_the_database_larger_is_told_from_what_does_not,
		an_entry_says_who_asked_for_it,
		an_entry_of_the_first_format_has_no_origin,
		an_origin_longer_than_its_limit_is_no_entry,
		damaged_entries_never_crash,
	};

	return suite_run("db", tests, ARRAY_LEN(tests), 60);
}
