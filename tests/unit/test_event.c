/* Events without a pool: tokens, what is watched, and answers from a state to which entries are
 * applied. */
#include "pool/event_priv.h"
#include "tests/lib/state.h"
#include "tests/lib/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
	struct db db;
	struct pool_events events;
	struct event_texts texts;
	struct event_answer answer; /* the last one */
	struct db_txn txn;	    /* being composed */
};

static void bench_open(struct bench *b)
{
	*b = (struct bench){ .events.tokens = { 1, 11, 22 } };
	state_open(&b->db);
	db_txn_init(&b->txn, DB_FOR_FIELD);
}

static void bench_close(struct bench *b)
{
	ck_assert_ptr_null(b->events.watches); /* who watched has let go */
	event_answer_fini(&b->answer);
	event_texts_fini(&b->texts);
	db_txn_fini(&b->txn);
	state_close(&b->db);
}

static uint64_t apply(struct bench *b)
{
	ck_assert_int_eq(state_apply(&b->db, &b->txn, b->db.index + 1).status, APPLY_DONE);
	db_txn_init(&b->txn, DB_FOR_FIELD);
	return b->db.index;
}

static void create(struct bench *b, int class_id, const char *ref)
{
	struct val f[VM_FIELD_COUNT] = { { .kind = VAL_VOID } };

	ck_assert(model_classes[class_id].n_fields <= VM_FIELD_COUNT);
	f[model_classes[class_id].uuid_field] = val_string(ref);
	db_txn_create(&b->txn, class_id, ref, f);
}

static void label(struct bench *b, const char *ref, const char *text)
{
	db_txn_set(&b->txn, MODEL_CLASS_VM, ref, VM_name_label, val_string(text));
}

/* Texts in a set, ended by NULL. */
static int watch(struct bench *b, const struct event_watch *base, bool without,
	struct event_watch **out, struct err *err, ...)
{
	struct val classes = val_set();
	struct arena a;
	const char *text;
	va_list ap;
	int rc;

	arena_init(&a);
	va_start(ap, err);
	while ((text = va_arg(ap, const char *)) != NULL)
		val_set_push(&a, &classes, val_string(text));
	va_end(ap);
	rc = event_watch_make(&b->events, &classes, base, without, out, err);
	arena_fini(&a);
	return rc;
}

static const char *ask(struct bench *b, struct event_question q)
{
	event_answer_fini(&b->answer);
	event_answer_begin(&q, &b->db, 1700000000, &b->answer);
	while (!event_answer_more(&b->answer, &b->events.tokens, &b->texts, 1))
		;
	return buf_text(&b->answer.text);
}

/* "add vm a, del vm b": the events of an answer, in order. */
static const char *story(struct bench *b, struct event_watch *w, uint64_t from, bool first)
{
	static _Thread_local char out[1024];
	const char *text = ask(
		b, (struct event_question){
			   .watch = w, .from = { .index = from, .first = first }, .json = true });
	struct val v;
	const struct val *events;
	struct arena a;
	const char *why;
	size_t n = 0;

	out[0] = 0;
	if (b->answer.lost)
		return "lost";
	arena_init(&a);
	ck_assert_int_eq(rpc_json_parse(&a, text, b->answer.text.len, &v, &why), 0);
	events = val_get(&v, "events");
	ck_assert_uint_eq(events->n, b->answer.n);
	for (uint32_t i = 0; i < events->n; i++) {
		const struct val *e = &events->items[i];
		bool gone = strcmp(val_get_s(e, "operation"), "del") == 0;

		ck_assert((val_get(e, "snapshot") == NULL) == gone);
		n += (size_t)snprintf(out + n, sizeof out - n, "%s%s %s %s", i ? ", " : "",
			val_get_s(e, "operation"), val_get_s(e, "class"), val_get_s(e, "ref"));
	}
	arena_fini(&a);
	return out;
}

START_TEST(tokens_compare_as_text_and_are_checked)
{
	struct event_tokens t = event_tokens_of(3, "pool", 5),
			    other = event_tokens_of(4, "pool", 5);
	struct event_position at = { .index = 41 }, back;
	char before[EVENT_TOKEN_LEN + 1], seen[EVENT_TOKEN_LEN + 1], not_seen[EVENT_TOKEN_LEN + 1];
	struct err err = { 0 };
	static const char *const bad[] = { "x", "1,2", "0000000000000000000a,00000000000000000000",
		"00000000000000000001;00000000000000000000",
		"00000000000000000001,0000000000000000000 ",
		"00000000000000000001,000000000000000000000" };

	event_token_print(&t, &at, seen);
	ck_assert_uint_eq(strlen(seen), 41);
	ck_assert_int_eq(strncmp(seen, "00030000000000000041,", 21), 0);
	ck_assert_int_eq(event_token_parse(&t, seen, &back, &err), 0);
	ck_assert(back.index == 41 && !back.first && !back.elsewhere);
	/* an injected token lies between those that have not seen its index and those that have */
	event_token_before(&t, 41, before);
	at.index = 40;
	event_token_print(&t, &at, not_seen);
	ck_assert(strcmp(not_seen, before) <= 0 && strcmp(before, seen) < 0);
	ck_assert_int_eq(event_token_parse(&t, before, &back, &err), 0);
	ck_assert(back.index == 40 && back.elsewhere);
	ck_assert_int_eq(event_token_parse(&t, "", &back, &err), 0);
	ck_assert(back.first);
	/* another epoch, by its number or by its tag */
	ck_assert_int_eq(event_token_parse(&other, seen, &back, &err), ERR_API);
	ck_assert_ptr_eq(err.code, ERR_EVENTS_LOST);
	other = t;
	other.epoch_tag = (t.epoch_tag + 1) % 9999;
	ck_assert_int_eq(event_token_parse(&other, seen, &back, &err), ERR_API);
	ck_assert_ptr_eq(err.code, ERR_EVENTS_LOST);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert_int_eq(event_token_parse(&t, bad[i], &back, &err), ERR_API);
		ck_assert_ptr_eq(err.code, ERR_EVENT_FROM_TOKEN_PARSE_FAILURE);
		ck_assert_str_eq(err.params[0], bad[i]);
	}
	err_fini(&err);
}
END_TEST

START_TEST(who_watches_the_same_shares_it)
{
	struct bench b;
	struct event_watch *x, *y, *z;
	struct err err = { 0 };

	bench_open(&b);
	ck_assert_int_eq(watch(&b, NULL, false, &x, &err, "VM", "host/b", "HOST/a", NULL), 0);
	ck_assert_int_eq(
		watch(&b, NULL, false, &y, &err, "host/a", "vm", "vm/c", "host/b", "host/a", NULL),
		0);
	ck_assert_ptr_eq(x, y); /* a single object of a class that is watched adds nothing */
	ck_assert(event_watch_wants(x, MODEL_CLASS_VM, "any") &&
		  event_watch_wants(x, MODEL_CLASS_host, "a") &&
		  !event_watch_wants(x, MODEL_CLASS_host, "c") &&
		  !event_watch_wants(x, MODEL_CLASS_pool, "a"));
	/* what has no events, is not there, or is inside, matches nothing */
	ck_assert_int_eq(
		watch(&b, NULL, false, &z, &err, "session", "nothing", "_member", "*/a", NULL), 0);
	for (int i = 0; i < MODEL_CLASS_COUNT; i++)
		ck_assert(!event_watch_wants(z, i, "a"));
	event_watch_drop(&b.events, z);
	ck_assert_int_eq(watch(&b, NULL, false, &z, &err, "*", NULL), 0);
	ck_assert(event_watch_wants(z, MODEL_CLASS_VM, "a") &&
		  !event_watch_wants(z, MODEL_CLASS_session, "a"));
	event_watch_drop(&b.events, z);
	/* together with, and without */
	ck_assert_int_eq(watch(&b, x, false, &z, &err, "pool", "host/c", NULL), 0);
	event_watch_drop(&b.events, y);
	ck_assert_int_eq(watch(&b, z, true, &y, &err, "pool", "host/c", "SR", NULL), 0);
	ck_assert_ptr_eq(x, y);
	ck_assert_int_eq(watch(&b, NULL, false, &z, &err, "vm", "a/b/c", NULL), ERR_API);
	ck_assert_ptr_eq(err.code, ERR_EVENT_SUBSCRIPTION_PARSE_FAILURE);
	ck_assert_str_eq(err.params[0], "a/b/c");
	err_fini(&err);
	event_watch_drop(&b.events, y);
	event_watch_drop(&b.events, x);
	ck_assert_ptr_nonnull(b.events.watches); /* z */
	event_watch_drop(&b.events, b.events.watches);
	bench_close(&b);
}
END_TEST

START_TEST(a_subscription_has_a_limit)
{
	struct bench b;
	struct event_watch *w;
	struct val classes = val_set();
	struct err err = { 0 };
	struct arena a;

	bench_open(&b);
	arena_init(&a);
	for (int i = 0; i < EVENT_OBJECTS_MAX; i++)
		val_set_push(&a, &classes, val_string(arena_printf(&a, "vm/%d", i)));
	ck_assert_int_eq(event_watch_make(&b.events, &classes, NULL, false, &w, &err), 0);
	event_watch_drop(&b.events, w);
	val_set_push(&a, &classes, val_string("vm/more"));
	ck_assert_int_eq(event_watch_make(&b.events, &classes, NULL, false, &w, &err), ERR_API);
	ck_assert_ptr_eq(err.code, ERR_EVENT_SUBSCRIPTION_PARSE_FAILURE);
	err_fini(&err);
	arena_fini(&a);
	bench_close(&b);
}
END_TEST

START_TEST(an_object_has_one_event_with_its_latest_record)
{
	struct bench b;
	struct event_watch *all, *one;
	struct err err = { 0 };
	uint64_t before;

	bench_open(&b);
	watch(&b, NULL, false, &all, &err, "vm", NULL);
	watch(&b, NULL, false, &one, &err, "vm/a", NULL);
	create(&b, MODEL_CLASS_VM, "a");
	create(&b, MODEL_CLASS_VM, "b");
	before = apply(&b);
	ck_assert_str_eq(story(&b, all, before, false), "");
	ck_assert_str_eq(story(&b, all, 0, true), "add vm a, add vm b");
	ck_assert_str_eq(story(&b, one, 0, true), "add vm a");
	for (int i = 0; i < 3; i++) {
		label(&b, "a", i == 2 ? "last one" : i == 1 ? "second" : "first");
		apply(&b);
	}
	ck_assert_str_eq(story(&b, all, before, false), "mod vm a");
	ck_assert_ptr_nonnull(strstr(buf_text(&b.answer.text), "\"last one\""));
	ck_assert_uint_eq(b.answer.to.index, b.db.index);
	/* came and went in between: never seen */
	create(&b, MODEL_CLASS_VM, "c");
	apply(&b);
	db_txn_delete(&b.txn, MODEL_CLASS_VM, "c");
	apply(&b);
	ck_assert_str_eq(story(&b, all, before, false), "mod vm a");
	/* made again under the same name: the old one goes, the new one comes */
	db_txn_delete(&b.txn, MODEL_CLASS_VM, "a");
	apply(&b);
	ck_assert_str_eq(story(&b, all, before, false), "del vm a");
	ck_assert_str_eq(story(&b, one, before, false), "del vm a");
	ck_assert_str_eq(story(&b, one, b.db.index, false), "");
	event_watch_drop(&b.events, all);
	event_watch_drop(&b.events, one);
	bench_close(&b);
}
END_TEST

START_TEST(an_answer_made_in_pieces_is_of_one_state)
{
	struct bench b;
	struct event_question q = { .from = { .first = true }, .json = true };
	struct err err = { 0 };

	bench_open(&b);
	watch(&b, NULL, false, &q.watch, &err, "vm", NULL);
	create(&b, MODEL_CLASS_VM, "a");
	create(&b, MODEL_CLASS_VM, "b");
	create(&b, MODEL_CLASS_VM, "c");
	label(&b, "b", "as it was");
	apply(&b);
	event_answer_begin(&q, &b.db, 1700000000, &b.answer);
	ck_assert(!event_answer_more(&b.answer, &b.events.tokens, &b.texts, 1));
	ck_assert(b.answer.text.len > 0);
	label(&b, "b", "changed");
	db_txn_delete(&b.txn, MODEL_CLASS_VM, "c");
	create(&b, MODEL_CLASS_VM, "d");
	apply(&b);
	while (!event_answer_more(&b.answer, &b.events.tokens, &b.texts, 1))
		;
	ck_assert_uint_eq(b.answer.n, 3);
	ck_assert_uint_eq(b.answer.to.index, b.db.index - 1);
	ck_assert_ptr_nonnull(strstr(buf_text(&b.answer.text), "\"as it was\""));
	ck_assert_ptr_nonnull(strstr(buf_text(&b.answer.text), "\"vm\":3,"));
	ck_assert_ptr_null(strstr(buf_text(&b.answer.text), "\"changed\""));
	/* one that nobody waits for any more */
	event_answer_fini(&b.answer);
	event_answer_begin(&q, &b.db, 1700000000, &b.answer);
	ck_assert(!event_answer_more(&b.answer, &b.events.tokens, &b.texts, 1));
	event_watch_drop(&b.events, q.watch);
	bench_close(&b);
}
END_TEST

START_TEST(what_is_new_comes_first_and_what_has_gone_last)
{
	struct bench b;
	struct event_watch *w;
	struct err err = { 0 };
	uint64_t before;

	bench_open(&b);
	watch(&b, NULL, false, &w, &err, "*", NULL);
	create(&b, MODEL_CLASS_VM, "z");
	create(&b, MODEL_CLASS_VM, "old");
	before = apply(&b);
	db_txn_delete(&b.txn, MODEL_CLASS_VM, "old");
	apply(&b);
	label(&b, "z", "changed");
	apply(&b);
	create(&b, MODEL_CLASS_VM, "new");
	apply(&b);
	create(&b, MODEL_CLASS_host, "h");
	apply(&b);
	label(&b, "new", "and changed");
	create(&b, MODEL_CLASS_message, "m");
	apply(&b);
	ck_assert_str_eq(story(&b, w, before, false),
		"add message m, add host h, add vm new, mod vm z, del vm old");
	event_watch_drop(&b.events, w);
	bench_close(&b);
}
END_TEST

START_TEST(a_position_below_the_remembered_deletions_is_lost)
{
	enum { BATCH = 1000 };
	struct bench b;
	struct event_watch *metrics, *hosts;
	struct err err = { 0 };
	char ref[16];
	uint64_t before;

	bench_open(&b);
	watch(&b, NULL, false, &metrics, &err, "host_metrics", NULL);
	watch(&b, NULL, false, &hosts, &err, "host", NULL);
	create(&b, MODEL_CLASS_host, "h");
	before = apply(&b);
	for (int n = 0; n <= DB_DELETED_MAX; n += BATCH) {
		for (int i = 0; i < BATCH; i++) {
			snprintf(ref, sizeof ref, "v%d", i);
			create(&b, MODEL_CLASS_host_metrics, ref);
		}
		apply(&b);
		for (int i = 0; i < BATCH; i++) {
			snprintf(ref, sizeof ref, "v%d", i);
			db_txn_delete(&b.txn, MODEL_CLASS_host_metrics, ref);
		}
		apply(&b);
	}
	ck_assert_uint_eq(
		b.db.views.root->classes[MODEL_CLASS_host_metrics].n_deleted, DB_DELETED_MAX);
	ck_assert_str_eq(story(&b, metrics, before, false), "lost");
	ck_assert_str_eq(story(&b, hosts, before, false), ""); /* each class by itself */
	ck_assert_str_eq(story(&b, metrics, b.db.index, false), "");
	ck_assert_str_eq(story(&b, metrics, 0, true), "");
	/* sessions have no events: theirs are not kept */
	create(&b, MODEL_CLASS_session, "s");
	apply(&b);
	db_txn_delete(&b.txn, MODEL_CLASS_session, "s");
	apply(&b);
	ck_assert_uint_eq(b.db.views.root->classes[MODEL_CLASS_session].n_deleted, 0);
	event_watch_drop(&b.events, metrics);
	event_watch_drop(&b.events, hosts);
	bench_close(&b);
}
END_TEST

static bool starts(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

START_TEST(the_forms_on_the_wire)
{
	struct bench b;
	struct event_watch *w;
	struct event_question q;
	struct err err = { 0 };
	const char *text;

	bench_open(&b);
	watch(&b, NULL, false, &w, &err, "vm_metrics", NULL);
	create(&b, MODEL_CLASS_VM_metrics, "m");
	apply(&b);
	q = (struct event_question){ .watch = w, .from.first = true };
	text = ask(&b, q);
	ck_assert_ptr_nonnull(strstr(text,
		"<value><struct><member><name>events</name><value><array><data><value><struct>"
		"<member><name>id</name><value>1</value></member>"
		"<member><name>timestamp</name><value>0.0</value></member>"
		"<member><name>class</name><value>vm_metrics</value></member>"
		"<member><name>operation</name><value>add</value></member>"
		"<member><name>ref</name><value>m</value></member>"
		"<member><name>snapshot</name><value><struct>"
		"<member><name>uuid</name><value>m</value></member>"));
	ck_assert_ptr_nonnull(
		strstr(text, "<member><name>vm_metrics</name><value><i4>1</i4></value></member>"));
	ck_assert_ptr_nonnull(
		strstr(text, "<member><name>token</name><value>00010000000000000001,"
			     "00110022000000000000</value></member></struct></value>"));
	ck_assert_ptr_null(strstr(text, "_member"));
	q.json = true;
	text = ask(&b, q);
	ck_assert(starts(text, "{\"events\":[{\"id\":\"1\",\"timestamp\":\"0.0\","
			       "\"class\":\"vm_metrics\",\"operation\":\"add\",\"ref\":\"m\","
			       "\"snapshot\":{\"uuid\":\"m\","));
	ck_assert_ptr_nonnull(strstr(text, "\"vm_metrics\":1,"));
	/* the old interface: the bare list, real times */
	q.old = true;
	text = ask(&b, q);
	ck_assert(starts(text, "[{\"id\":\"1\",\"timestamp\":\"1700000000.0\","));
	event_watch_drop(&b.events, w);
	bench_close(&b);
}
END_TEST

/* Who asks from elsewhere, or watches more, still shares the texts of the records. */
START_TEST(a_record_is_encoded_once_in_each_encoding)
{
	struct bench b;
	struct event_watch *vms, *all;
	struct err err = { 0 };
	size_t bytes;

	bench_open(&b);
	watch(&b, NULL, false, &vms, &err, "vm", NULL);
	watch(&b, NULL, false, &all, &err, "*", NULL);
	create(&b, MODEL_CLASS_VM, "a");
	apply(&b);
	story(&b, vms, 0, true);
	bytes = b.texts.bytes;
	ck_assert_uint_gt(bytes, 0);
	story(&b, all, 0, false);
	ck_assert_uint_eq(b.texts.bytes, bytes);
	ask(&b, (struct event_question){ .watch = vms, .from.first = true });
	ck_assert_uint_gt(b.texts.bytes, bytes);
	bytes = b.texts.bytes;
	label(&b, "a", "another version");
	apply(&b);
	ck_assert_str_eq(story(&b, vms, 1, false), "mod vm a");
	ck_assert_ptr_nonnull(strstr(buf_text(&b.answer.text), "another version"));
	ck_assert_uint_gt(b.texts.bytes, bytes);
	event_watch_drop(&b.events, vms);
	event_watch_drop(&b.events, all);
	bench_close(&b);
}
END_TEST

static void no_frame(void *arg, const struct buf *frame)
{
	(void)arg;
	(void)frame;
}

START_TEST(a_number_over_a_row_is_a_change_on_this_member)
{
	struct bench b;
	struct event_watch *w, *other;
	struct val v = val_int(4711);
	struct event_question q = { .json = true };
	struct err err = { 0 };

	bench_open(&b);
	b.db.plane = plane_new(1, 1);
	watch(&b, NULL, false, &w, &err, "vm_metrics", NULL);
	watch(&b, NULL, false, &other, &err, "vm", NULL);
	create(&b, MODEL_CLASS_VM_metrics, "m");
	apply(&b);
	q.watch = w;
	q.from.index = b.db.index;
	ask(&b, q);
	ck_assert_uint_eq(b.answer.n, 0);
	plane_put(b.db.plane, MODEL_CLASS_VM_metrics, "m", VM_METRICS_memory_actual, &v);
	plane_put(b.db.plane, MODEL_CLASS_VM_metrics, "gone", VM_METRICS_memory_actual, &v);
	ck_assert(plane_tick(b.db.plane, 10000, no_frame, NULL));
	ck_assert_ptr_nonnull(strstr(ask(&b, q), "\"memory_actual\":4711,"));
	ck_assert_uint_eq(b.answer.n, 1);
	ck_assert_ptr_nonnull(strstr(buf_text(&b.answer.text), "00110022000000000002\""));
	q.from = b.answer.to; /* told once */
	ask(&b, q);
	ck_assert_uint_eq(b.answer.n, 0);
	q.from.numbers = 0;
	q.watch = other;
	ask(&b, q);
	ck_assert_uint_eq(b.answer.n, 0);
	/* a change in the log as well: one event, with both */
	db_txn_touch(&b.txn, MODEL_CLASS_VM_metrics, "m");
	apply(&b);
	q.watch = w;
	q.from.index = b.db.index - 1;
	ck_assert_ptr_nonnull(strstr(ask(&b, q), "\"memory_actual\":4711,"));
	ck_assert_uint_eq(b.answer.n, 1);
	event_watch_drop(&b.events, w);
	event_watch_drop(&b.events, other);
	plane_free(b.db.plane);
	bench_close(&b);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		tokens_compare_as_text_and_are_checked,
		who_watches_the_same_shares_it,
		a_subscription_has_a_limit,
		an_object_has_one_event_with_its_latest_record,
		an_answer_made_in_pieces_is_of_one_state,
		what_is_new_comes_first_and_what_has_gone_last,
		a_position_below_the_remembered_deletions_is_lost,
		the_forms_on_the_wire,
		a_record_is_encoded_once_in_each_encoding,
		a_number_over_a_row_is_a_change_on_this_member,
	};

	return suite_run("event", tests, ARRAY_LEN(tests), 60);
}
