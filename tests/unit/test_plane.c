/* The volatile plane between two members, frame by frame, on a clock of the test's own. */
#include "db/plane_priv.h"
#include "db/snapshot_priv.h"
#include "tests/lib/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define M "OpaqueRef:m"

/* plane.c serves databases too; here is none. */
struct plane *db__plane(struct db *db)
{
	(void)db;
	return NULL;
}

struct views *db__views(struct db *db)
{
	(void)db;
	return NULL;
}

enum { FRAMES_MAX = 64, BEGIN_MS = 100000 };

/* Frames on their way from a to b. */
struct wire {
	struct plane *a, *b;
	struct buf frames[FRAMES_MAX];
	unsigned n;
	uint64_t now_ms;
	enum plane_wish wish; /* b's, of the last frame */
	bool changed;	      /* at b */
};

static void wire_open(struct wire *w)
{
	*w = (struct wire){ plane_new(1, 71), plane_new(2, 72), .now_ms = BEGIN_MS };
}

static void wire_clear(struct wire *w)
{
	while (w->n > 0)
		buf_fini(&w->frames[--w->n]);
}

static void wire_close(struct wire *w)
{
	wire_clear(w);
	plane_free(w->a);
	plane_free(w->b);
}

static void on_frame(void *arg, const struct buf *frame)
{
	struct wire *w = arg;

	ck_assert_uint_lt(w->n, FRAMES_MAX);
	ck_assert_uint_le(frame->len, PLANE_FRAME_MAX);
	w->frames[w->n] = (struct buf){ 0 };
	buf_put(&w->frames[w->n++], frame->data, frame->len);
}

static void deliver(struct wire *w)
{
	bool changed;

	w->changed = false;
	for (unsigned i = 0; i < w->n; i++) {
		w->wish = plane_take(
			w->b, 1, w->frames[i].data, w->frames[i].len, w->now_ms, &changed);
		w->changed |= changed;
	}
	wire_clear(w);
}

/* One interval of a; its frames are delivered, or lost. */
static void interval(struct wire *w, bool lost)
{
	w->now_ms += DB_PLANE_FRAME_MS;
	plane_tick(w->a, w->now_ms, on_frame, w);
	if (lost)
		wire_clear(w);
	else
		deliver(w);
}

static void put(struct plane *p, const char *ref, int64_t memory)
{
	struct val v = val_int(memory);

	plane_put(p, MODEL_CLASS_VM_metrics, ref, VM_METRICS_memory_actual, &v);
}

/* -1: none */
static int64_t memory(struct plane *p, const char *ref)
{
	struct arena a;
	struct val *v;
	int64_t found = -1;

	arena_init(&a);
	v = plane_read(p, MODEL_CLASS_VM_metrics, ref, &a);
	if (v != NULL && v[VM_METRICS_memory_actual].kind == VAL_INT)
		found = v[VM_METRICS_memory_actual].i;
	arena_fini(&a);
	return found;
}

static void on_change(void *arg, int class_id, const char *ref)
{
	(void)class_id;
	(void)ref;
	++*(unsigned *)arg;
}

static unsigned changes(struct plane *p, uint64_t *from)
{
	unsigned n = 0;

	*from = plane_changed(p, *from, on_change, &n);
	return n;
}

START_TEST(numbers_are_seen_everywhere_after_a_frame)
{
	struct wire w;
	uint64_t from = 0;

	wire_open(&w);
	put(w.a, M, 5);
	ck_assert_int_eq(memory(w.a, M), -1); /* here neither before the frame */
	interval(&w, false);
	ck_assert(w.changed && w.wish == PLANE_NOTHING);
	ck_assert_int_eq(memory(w.a, M), 5);
	ck_assert_int_eq(memory(w.b, M), 5);
	ck_assert_int_eq(memory(w.b, "OpaqueRef:other"), -1);
	ck_assert_uint_eq(changes(w.b, &from), 1);
	interval(&w, false); /* nothing new: a frame, and no news */
	ck_assert(!w.changed);
	ck_assert_uint_eq(changes(w.b, &from), 0);
	put(w.a, M, 6);
	interval(&w, false);
	ck_assert_int_eq(memory(w.b, M), 6);
	ck_assert_uint_eq(changes(w.b, &from), 1);
	plane_remove(w.a, MODEL_CLASS_VM_metrics, M);
	interval(&w, false);
	ck_assert(w.changed);
	ck_assert_int_eq(memory(w.a, M), -1);
	ck_assert_int_eq(memory(w.b, M), -1);
	ck_assert_uint_eq(changes(w.b, &from), 1);
	wire_close(&w);
}
END_TEST

START_TEST(what_was_not_put_again_is_swept)
{
	struct wire w;

	wire_open(&w);
	put(w.a, M, 5);
	put(w.a, "OpaqueRef:n", 6);
	plane_sweep(w.a, MODEL_CLASS_VM_metrics);
	interval(&w, false);
	ck_assert_int_eq(memory(w.b, M), 5);
	put(w.a, M, 5);
	plane_sweep(w.a, MODEL_CLASS_VM_metrics);
	interval(&w, false);
	ck_assert_int_eq(memory(w.b, M), 5);
	ck_assert_int_eq(memory(w.b, "OpaqueRef:n"), -1);
	wire_close(&w);
}
END_TEST

START_TEST(a_time_alone_is_no_news)
{
	struct wire w;
	struct val v = val_datetime(1);
	uint64_t from = 0;

	wire_open(&w);
	put(w.a, M, 5);
	plane_put(w.a, MODEL_CLASS_VM_metrics, M, VM_METRICS_last_updated, &v);
	interval(&w, false);
	ck_assert_uint_eq(changes(w.b, &from), 1);
	v = val_datetime(2);
	plane_put(w.a, MODEL_CLASS_VM_metrics, M, VM_METRICS_last_updated, &v);
	interval(&w, false);
	ck_assert(!w.changed);
	ck_assert_uint_eq(changes(w.b, &from), 0);
	wire_close(&w);
}
END_TEST

START_TEST(progress_goes_at_once_the_rest_with_the_frame)
{
	struct wire w;
	struct val v = val_float(0.5);
	struct arena a;

	wire_open(&w);
	interval(&w, false);
	put(w.a, M, 5);
	plane_put(w.a, MODEL_CLASS_task, "OpaqueRef:t", TASK_progress, &v);
	w.now_ms += DB_PLANE_TICK_MS;
	plane_tick(w.a, w.now_ms, on_frame, &w);
	deliver(&w);
	arena_init(&a);
	ck_assert_ptr_nonnull(plane_read(w.b, MODEL_CLASS_task, "OpaqueRef:t", &a));
	arena_fini(&a);
	ck_assert_int_eq(memory(w.b, M), -1);
	w.now_ms += DB_PLANE_TICK_MS;
	plane_tick(w.a, w.now_ms, on_frame, &w);
	ck_assert_uint_eq(w.n, 0); /* nothing to say before the frame */
	interval(&w, false);
	ck_assert_int_eq(memory(w.b, M), 5);
	wire_close(&w);
}
END_TEST

START_TEST(a_lost_frame_is_repaired_by_the_whole_set)
{
	struct wire w;

	wire_open(&w);
	put(w.a, M, 5);
	put(w.a, "OpaqueRef:n", 6);
	interval(&w, false);
	put(w.a, M, 7);
	plane_remove(w.a, MODEL_CLASS_VM_metrics, "OpaqueRef:n");
	interval(&w, true);
	ck_assert_int_eq(memory(w.b, M), 5);
	interval(&w, false);
	ck_assert_int_eq(w.wish, PLANE_ASK_PEER);
	interval(&w, true);
	plane_whole(w.a, on_frame, &w);
	deliver(&w);
	ck_assert(w.changed);
	ck_assert_int_eq(memory(w.b, M), 7);
	ck_assert_int_eq(memory(w.b, "OpaqueRef:n"), -1);
	interval(&w, false);
	ck_assert_int_eq(w.wish, PLANE_NOTHING);
	/* unasked, after a minute */
	put(w.a, M, 8);
	interval(&w, true);
	for (int i = 0; i < DB_PLANE_WHOLE_MS / DB_PLANE_FRAME_MS && memory(w.b, M) != 8; i++)
		interval(&w, false);
	ck_assert_int_eq(memory(w.b, M), 8);
	wire_close(&w);
}
END_TEST

START_TEST(a_large_set_comes_in_parts_and_a_missing_part_is_noticed)
{
	enum { ROWS = 3000 };
	struct wire w;
	char ref[DB_REF_MAX];
	unsigned seen = 0;

	wire_open(&w);
	for (int i = 0; i < ROWS; i++) {
		snprintf(ref, sizeof ref, "OpaqueRef:%d", i);
		put(w.a, ref, i);
	}
	interval(&w, true);
	plane_whole(w.a, on_frame, &w);
	ck_assert_uint_gt(w.n, 3);
	buf_fini(&w.frames[1]); /* lost */
	memmove(&w.frames[1], &w.frames[2], (--w.n - 1) * sizeof w.frames[0]);
	deliver(&w);
	interval(&w, false);
	ck_assert_int_eq(w.wish, PLANE_ASK_PEER);
	plane_whole(w.a, on_frame, &w);
	deliver(&w);
	for (int i = 0; i < ROWS; i++) {
		snprintf(ref, sizeof ref, "OpaqueRef:%d", i);
		seen += memory(w.b, ref) == i;
	}
	ck_assert_uint_eq(seen, ROWS);
	interval(&w, false);
	ck_assert_int_eq(w.wish, PLANE_NOTHING);
	wire_close(&w);
}
END_TEST

static void ignore(void *arg, const struct buf *frame)
{
	(void)arg;
	(void)frame;
}

START_TEST(numbers_of_a_silent_member_are_dropped)
{
	struct wire w;
	uint64_t from = 0;
	bool changed = false;

	wire_open(&w);
	put(w.a, M, 5);
	put(w.b, "OpaqueRef:own", 6);
	interval(&w, false);
	changes(w.b, &from);
	for (int i = 1; i <= 3; i++) {
		ck_assert_int_eq(memory(w.b, M), 5);
		w.now_ms += DB_PLANE_FRAME_MS;
		changed = plane_tick(w.b, w.now_ms, ignore, NULL);
	}
	ck_assert(changed);
	ck_assert_int_eq(memory(w.b, M), -1);
	ck_assert_int_eq(memory(w.b, "OpaqueRef:own"), 6);
	ck_assert_uint_eq(changes(w.b, &from), 2);
	/* it is back: what it had not sent again is missing, and asked for */
	interval(&w, false);
	ck_assert_int_eq(w.wish, PLANE_ASK_PEER);
	plane_whole(w.a, on_frame, &w);
	deliver(&w);
	ck_assert_int_eq(memory(w.b, M), 5);
	wire_close(&w);
}
END_TEST

START_TEST(another_life_of_a_member_begins_with_nothing)
{
	struct wire w;

	wire_open(&w);
	put(w.a, M, 5);
	interval(&w, false);
	plane_free(w.a);
	w.a = plane_new(1, 99);
	put(w.a, "OpaqueRef:n", 6);
	interval(&w, false);
	ck_assert(w.changed);
	ck_assert_int_eq(memory(w.b, M), -1);
	ck_assert_int_eq(memory(w.b, "OpaqueRef:n"), 6);
	wire_close(&w);
}
END_TEST

/* A frame with one row by hand. */
static enum plane_wish one_row(struct plane *p, uint64_t peer, uint64_t number, const char *class,
	const char *field, struct val v, const char *ref)
{
	struct buf b = { 0 };
	enum plane_wish wish;
	bool changed;

	buf_u8(&b, PLANE_VERSION);
	buf_u8(&b, PLANE_DELTA);
	buf_u64(&b, 1);
	buf_u64(&b, 71);
	buf_u64(&b, number);
	buf_u16(&b, 0);
	buf_u8(&b, 1);
	buf_u32(&b, 1);
	buf_str(&b, class);
	buf_str(&b, ref);
	buf_u8(&b, 1);
	buf_str(&b, field);
	val_pack(&b, &v);
	wish = plane_take(p, peer, b.data, b.len, BEGIN_MS, &changed);
	buf_fini(&b);
	return wish;
}

START_TEST(a_malformed_frame_changes_nothing)
{
	struct plane *p = plane_new(2, 72);
	struct wire w;
	struct buf good = { 0 };
	bool changed;
	char big[1024];

	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = 0;
	ck_assert_int_eq(one_row(p, 1, 1, "VM_metrics", "memory_actual", val_string("x"), M),
		PLANE_UNREADABLE);
	ck_assert_int_eq(
		one_row(p, 1, 1, "VM_metrics", "memory_actual", val_int(1), ""), PLANE_UNREADABLE);
	ck_assert_int_eq(
		one_row(p, 1, 1, "VM_metrics", "memory_actual", val_int(1), big), PLANE_UNREADABLE);
	ck_assert_int_eq(one_row(p, 1, 1, "VM_metrics", "memory_actual", val_string(big), M),
		PLANE_UNREADABLE);
	ck_assert_int_eq(one_row(p, 3, 1, "VM_metrics", "memory_actual", val_int(1), M),
		PLANE_UNREADABLE); /* in another's name */
	ck_assert_int_eq(memory(p, M), -1);
	/* what this build does not know, and what is no number of the plane, is left out */
	ck_assert_int_eq(
		one_row(p, 1, 1, "VM", "name_label", val_string("mine"), M), PLANE_NOTHING);
	ck_assert_int_eq(
		one_row(p, 1, 2, "VM_metrics", "other_config", val_map(), M), PLANE_NOTHING);
	ck_assert_int_eq(one_row(p, 1, 3, "Later", "field", val_int(1), M), PLANE_NOTHING);
	ck_assert_int_eq(one_row(p, 1, 4, "VM_metrics", "later", val_int(1), M), PLANE_NOTHING);
	ck_assert_int_eq(memory(p, M), -1);
	/* each cut, and many flips, of a real one */
	wire_open(&w);
	put(w.a, M, 5);
	plane_whole(w.a, on_frame, &w);
	buf_put(&good, w.frames[0].data, w.frames[0].len);
	for (size_t n = 0; n < good.len; n++)
		ck_assert_int_eq(
			plane_take(p, 1, good.data, n, BEGIN_MS, &changed), PLANE_UNREADABLE);
	ck_assert_int_eq(memory(p, M), -1);
	srand(1);
	for (int i = 0; i < 20000; i++) {
		uint8_t *at = good.data + (size_t)rand() % good.len, was = *at;

		*at ^= (uint8_t)(1 << rand() % 8);
		plane_take(p, 1, good.data, good.len, BEGIN_MS, &changed);
		*at = was;
	}
	buf_fini(&good);
	wire_close(&w);
	plane_free(p);
}
END_TEST

START_TEST(a_member_has_a_limit_of_rows)
{
	struct plane *p = plane_new(2, 72);
	char ref[DB_REF_MAX];
	unsigned seen = 0;

	for (unsigned i = 0; i < PLANE_ROWS_MAX + 100; i++) {
		snprintf(ref, sizeof ref, "OpaqueRef:%u", i);
		ck_assert_int_eq(
			one_row(p, 1, i + 1, "VM_metrics", "memory_actual", val_int(1), ref),
			PLANE_NOTHING);
	}
	for (unsigned i = 0; i < PLANE_ROWS_MAX + 100; i++) {
		snprintf(ref, sizeof ref, "OpaqueRef:%u", i);
		seen += memory(p, ref) == 1;
	}
	ck_assert_uint_eq(seen, PLANE_ROWS_MAX);
	plane_free(p);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		numbers_are_seen_everywhere_after_a_frame,
		what_was_not_put_again_is_swept,
		a_time_alone_is_no_news,
		progress_goes_at_once_the_rest_with_the_frame,
		a_lost_frame_is_repaired_by_the_whole_set,
		a_large_set_comes_in_parts_and_a_missing_part_is_noticed,
		numbers_of_a_silent_member_are_dropped,
		another_life_of_a_member_begins_with_nothing,
		a_malformed_frame_changes_nothing,
		a_member_has_a_limit_of_rows,
	};

	return suite_run("plane", tests, ARRAY_LEN(tests), 60);
}
