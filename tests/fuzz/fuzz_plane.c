/* Frames of volatile numbers from two peers: what is not believed changes nothing, what is taken
 * can be read, sent on and taken again. Input: steps {u8 peer, u16 n, n bytes}. */
#include "db/plane_priv.h"
#include "db/snapshot_priv.h"

#include <stdlib.h>

struct db {
	struct views views;
};

struct views *db__views(struct db *db)
{
	return &db->views;
}

struct plane *db__plane(struct db *db)
{
	(void)db;
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { SELF = 1, PEER = 2, OTHER = 3 };

static void read_row(void *arg, int class_id, const char *ref)
{
	struct plane *p = arg;
	struct arena a;

	arena_init(&a);
	plane_read(p, class_id, ref, &a);
	arena_fini(&a);
}

static void drop_frame(void *arg, const struct buf *frame)
{
	(void)arg;
	CHECK(frame->len <= PLANE_FRAME_MAX);
}

struct names {
	struct buf text;
};

static void name_row(void *arg, int class_id, const char *ref)
{
	struct names *names = arg;

	buf_u32(&names->text, (uint32_t)class_id);
	buf_str(&names->text, ref);
}

/* plane_read must not be called from inside plane_changed, which holds the mutex. */
static void read_all(struct plane *p)
{
	struct names names = { { 0 } };
	struct reader r;

	plane_changed(p, 0, name_row, &names);
	r = reader_of(names.text.data, names.text.len);
	while (rd_left(&r) > 0) {
		int class_id = (int)rd_u32(&r);

		read_row(p, class_id, rd_str(&r));
	}
	buf_fini(&names.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct plane *p = plane_new(SELF, 7);
	struct reader r = reader_of(data, n);
	uint64_t now = 1000;

	while (rd_left(&r) > 0) {
		uint64_t peer = PEER + rd_u8(&r) % 2;
		size_t k = rd_u16(&r);
		bool changed = false;
		const uint8_t *bytes;

		k = k < rd_left(&r) ? k : rd_left(&r);
		bytes = rd_bytes(&r, k);
		if (plane_take(p, peer, bytes, k, now, &changed) == PLANE_UNREADABLE)
			CHECK(!changed);
		read_all(p);
		now += 600;
		plane_tick(p, now, drop_frame, p);
	}
	plane_whole(p, drop_frame, p);
	plane_free(p);
	return 0;
}
