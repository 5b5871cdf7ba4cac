/* Preflight: is the library's directory what it left there? Looked at before the library reads it,
 * because libraft 0.15 reads some damage without a word: it forgets the newest vote with its file,
 * goes on behind a torn batch with the next file as if nothing were missing, and takes what an
 * interrupted snapshot installation left behind for entries after that snapshot (canonical/raft
 * issues 372, 373). What a fault leads to: consensus_note.c; the formats:
 * docs/formats.md.
 *
 * Sound means: the newest term and vote are there; the newest snapshot is whole; closed segments
 * follow one another without a gap, from the snapshot on, with right checksums and terms that never
 * fall; open segments, which do not say their index, continue them by their terms, unless the note
 * says that a snapshot was being installed, and at most the last of these ends in a torn write,
 * which nobody was told of. Two leftovers of a crash are no fault and are removed here: all
 * segments, when the snapshot that was being installed in their place is there; and the longer form
 * of a segment that was being truncated, with all behind it.
 */
#include "db/consensus_priv.h"
#include "rpc/base/file.h"
#include "rpc/base/hash.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	DISK_FORMAT = 1,
	METADATA_SIZE = 32,
	SNAPSHOT_META_MAX = 2 << 20,
	SEGMENT_MAX = 1 << 30, /* 8 MiB, or more for one large append */
	BATCH_MAX = 262144,    /* entries: what the library accepts */
	SEAL = 8,	       /* checksum at the end of a snapshot */
};

struct segment {
	uint64_t first, end; /* of an open one: its number, 0 */
};

struct list {
	struct segment *items;
	size_t n, cap;
};

struct snapshot_name {
	unsigned long long term, index, stamp;
};

/* One preflight. */
struct look {
	const char *dir;
	struct consensus_found *out;
	struct list closed, open;
	struct snapshot_name *snapshots;
	size_t n_snapshots;
	struct snapshot_name newest; /* index 0: none */
	uint64_t installing;	     /* index of a snapshot whose installation was begun */
	bool replaced;		     /* it is there: no segment counts any more */
	size_t stale_from;	     /* closed segments from here on are leftovers */
	uint64_t index, term;	     /* of the last entry walked over */
	uint32_t crc[256];
};

static bool fault(struct look *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool fault(struct look *l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(l->out->why, sizeof l->out->why, fmt, ap);
	va_end(ap);
	return false;
}

/* The system's fault, not that of the bytes. */
static bool unreadable(struct look *l, const char *name)
{
	l->out->unreadable = errno != EFBIG && errno != EINVAL;
	return fault(l, "%s: %s", name, strerror(errno));
}

static void path_of(const struct look *l, const char *name, char out[512])
{
	snprintf(out, 512, "%s/%s", l->dir, name);
}

static bool read_whole(struct look *l, const char *name, size_t most, struct buf *out)
{
	char path[512];

	path_of(l, name, path);
	return file_read(path, most, out) == 0 || unreadable(l, name);
}

/* The library's own CRC-32: most significant bit first, nothing inverted. */
static void crc_table(uint32_t table[256])
{
	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i << 24;
		for (int bit = 0; bit < 8; bit++)
			table[i] = table[i] << 1 ^ (table[i] & 1u << 31 ? 0x04c11db7 : 0);
	}
}

static uint32_t crc(const struct look *l, const uint8_t *p, size_t n, uint32_t from)
{
	while (n-- > 0)
		from = from << 8 ^ l->crc[(from >> 24 ^ *p++) & 255];
	return from;
}

/* What is there. */

static void list_add(struct list *list, uint64_t first, uint64_t end)
{
	if (list->n == list->cap) {
		list->cap = list->cap ? 2 * list->cap : 64;
		list->items = mem_resize(list->items, list->cap * sizeof *list->items);
	}
	list->items[list->n++] = (struct segment){ first, end };
}

static void on_name(void *arg, const char *name)
{
	struct look *l = arg;
	struct snapshot_name s;
	unsigned long long a, b;
	int n = 0;

	if (sscanf(name, "%llu-%llu%n", &a, &b, &n) == 2 && name[n] == 0) {
		list_add(&l->closed, a, b);
	} else if (sscanf(name, "open-%llu%n", &a, &n) == 1 && name[n] == 0) {
		list_add(&l->open, a, 0);
	} else if (sscanf(name, "snapshot-%llu-%llu-%llu%n", &s.term, &s.index, &s.stamp, &n) ==
			   3 &&
		   strcmp(name + n, ".meta") == 0) {
		l->snapshots =
			mem_resize(l->snapshots, (l->n_snapshots + 1) * sizeof *l->snapshots);
		l->snapshots[l->n_snapshots++] = s;
	}
}

static int by_place(const void *a, const void *b)
{
	const struct segment *x = a, *y = b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

static void list_sort(struct list *list)
{
	if (list->n > 0)
		qsort(list->items, list->n, sizeof *list->items, by_place);
}

static void closed_name(const struct segment *s, char out[64])
{
	snprintf(out, 64, "%016llu-%016llu", (unsigned long long)s->first,
		(unsigned long long)s->end);
}

static void open_name(const struct segment *s, char out[64])
{
	snprintf(out, 64, "open-%llu", (unsigned long long)s->first);
}

static void snapshot_file(const struct snapshot_name *s, const char *end, char out[128])
{
	snprintf(out, 128, "snapshot-%llu-%llu-%llu%s", s->term, s->index, s->stamp, end);
}

static bool newer(const struct snapshot_name *a, const struct snapshot_name *b)
{
	if (a->term != b->term)
		return a->term > b->term;
	return a->index != b->index ? a->index > b->index : a->stamp > b->stamp;
}

/* A description without its data is no snapshot yet: the crash came between the two. */
static bool has_data(const struct look *l, const struct snapshot_name *s)
{
	char name[128], path[512];
	struct buf none = { 0 };
	bool there;

	snapshot_file(s, "", name);
	path_of(l, name, path);
	there = file_read(path, 0, &none) != 0 && errno == EFBIG;
	buf_fini(&none);
	return there;
}

static bool step_list(struct look *l)
{
	if (folder_list(l->dir, on_name, l) != 0) {
		l->out->empty = errno == ENOENT;
		return l->out->empty ? fault(l, "it is missing") : unreadable(l, l->dir);
	}
	list_sort(&l->closed);
	list_sort(&l->open);
	for (size_t i = 0; i < l->n_snapshots; i++)
		if (has_data(l, &l->snapshots[i]) && newer(&l->snapshots[i], &l->newest))
			l->newest = l->snapshots[i];
	l->replaced = l->newest.index != 0 && l->newest.index == l->installing;
	l->stale_from = l->replaced ? 0 : l->closed.n;
	l->index = l->newest.index;
	l->term = l->newest.term;
	return true;
}

/* Term and vote. The two files are written in turn, so their versions differ by one; when the newer
 * is missing, the older would be believed and a vote be given twice. */

struct metadata {
	uint64_t version, term, vote;
};

static bool read_metadata(struct look *l, unsigned number, struct metadata *out)
{
	struct buf b = { 0 };
	struct reader r;
	char name[16], path[512];
	bool ok = true;

	*out = (struct metadata){ 0 };
	snprintf(name, sizeof name, "metadata%u", number);
	path_of(l, name, path);
	if (file_read(path, METADATA_SIZE, &b) != 0 && errno != ENOENT)
		ok = unreadable(l, name);
	r = reader_of(b.data, b.len);
	if (ok && b.len == METADATA_SIZE) {
		if (rd_u64(&r) != DISK_FORMAT)
			ok = fault(l, "%s is of an unknown format", name);
		out->version = rd_u64(&r);
		out->term = rd_u64(&r);
		out->vote = rd_u64(&r);
		if (ok && out->version % 2 != number % 2)
			ok = fault(l, "%s has a version that is not its own", name);
	}
	buf_fini(&b);
	return ok;
}

static bool step_metadata(struct look *l)
{
	struct metadata m[2];
	const struct metadata *last;

	if (!read_metadata(l, 1, &m[0]) || !read_metadata(l, 2, &m[1]))
		return false;
	last = m[0].version > m[1].version ? &m[0] : &m[1];
	if (last->version == 0) {
		if (l->closed.n + l->open.n + l->n_snapshots > 0)
			return fault(l, "both metadata files are missing: term and vote are "
					"forgotten");
		l->out->empty = true;
		return true;
	}
	if (last->version > 1 && m[0].version + m[1].version != 2 * last->version - 1)
		return fault(l,
			"metadata%u is missing or damaged: the newest term or vote may be "
			"lost",
			last == &m[0] ? 2 : 1);
	l->out->term = last->term;
	l->out->vote = last->vote;
	return true;
}

/* The newest snapshot. */

static bool check_meta(struct look *l, const char *name, const struct buf *b)
{
	enum { HEAD = 32, CHECKED_FROM = 16 };
	struct reader r = reader_of(b->data, b->len);
	uint64_t format = rd_u64(&r), sum = rd_u64(&r);

	rd_u64(&r); /* index of the configuration */
	if (r.bad || format != DISK_FORMAT || rd_u64(&r) != b->len - HEAD || b->len == HEAD)
		return fault(l, "%s is malformed", name);
	if (crc(l, b->data + CHECKED_FROM, b->len - CHECKED_FROM, 0) != sum)
		return fault(l, "the checksum of %s does not hold", name);
	return true;
}

static bool step_snapshot(struct look *l)
{
	struct buf meta = { 0 }, data = { 0 };
	char name[128];
	bool ok;

	if (l->newest.index == 0)
		return true;
	snapshot_file(&l->newest, ".meta", name);
	ok = read_whole(l, name, SNAPSHOT_META_MAX, &meta) && check_meta(l, name, &meta);
	snapshot_file(&l->newest, "", name);
	if (ok && read_whole(l, name, CONSENSUS_SNAPSHOT_MAX, &data) &&
		!consensus_sealed(data.data, data.len))
		ok = fault(l, "the checksum of %s does not hold", name);
	buf_fini(&meta);
	buf_fini(&data);
	return ok && l->out->why[0] == 0;
}

bool consensus_sealed(const uint8_t *bytes, size_t n)
{
	struct reader seal = reader_of(n >= SEAL ? bytes + n - SEAL : bytes, n >= SEAL ? SEAL : 0);

	return n > SEAL && rd_u64(&seal) == hash_bytes(bytes, n - SEAL);
}

/* Segments: format, then batches {CRC of head, CRC of data, head: n, n x (term, type, 0, length),
 * data}. */

enum batch { BATCH_GOOD, BATCH_END, BATCH_TORN, BATCH_CUT, BATCH_WRONG };

static enum batch walk_entries(struct look *l, struct reader *heads, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t term = rd_u64(heads);
		unsigned type = rd_u8(heads);

		rd_bytes(heads, 7); /* unused, length */
		l->index++;
		if (term < l->term || type < RAFT_COMMAND || type > RAFT_CHANGE ||
			(l->index == 1 && type != RAFT_CHANGE))
			return BATCH_WRONG;
		l->term = term;
	}
	return BATCH_GOOD;
}

static enum batch next_batch(struct look *l, struct reader *r)
{
	struct reader at = *r, heads;
	uint32_t head_sum = rd_u32(&at), data_sum = rd_u32(&at);
	const uint8_t *head = at.p, *data;
	uint64_t n = rd_u64(&at), size = 0;

	if (rd_left(r) == 0)
		return BATCH_END;
	if (at.bad)
		return BATCH_CUT;
	if (n == 0 || n > BATCH_MAX)
		return BATCH_TORN;
	heads = reader_of(at.p, n * 16 <= rd_left(&at) ? n * 16 : 0);
	if (rd_bytes(&at, n * 16) == NULL)
		return BATCH_CUT;
	if (crc(l, head, 8 + n * 16, 0) != head_sum)
		return BATCH_TORN;
	for (uint64_t i = 0; i < n; i++) {
		struct reader length = reader_of(heads.p + i * 16 + 12, 4);

		size += rd_u32(&length);
	}
	if ((data = rd_bytes(&at, size)) == NULL)
		return BATCH_CUT;
	if (crc(l, data, size, 0) != data_sum)
		return BATCH_TORN;
	*r = at;
	return walk_entries(l, &heads, n);
}

static bool check_closed(struct look *l, const struct segment *s)
{
	struct buf b = { 0 };
	char name[64];
	enum batch seen = BATCH_GOOD;
	struct reader r;
	bool ok;

	closed_name(s, name);
	ok = read_whole(l, name, SEGMENT_MAX, &b);
	r = reader_of(b.data, b.len);
	l->index = s->first - 1;
	if (ok && rd_u64(&r) != DISK_FORMAT)
		ok = fault(l, "closed segment %s is of an unknown format", name);
	while (ok && seen == BATCH_GOOD)
		seen = next_batch(l, &r);
	if (ok && (seen != BATCH_END || l->index != s->end))
		ok = fault(l, "closed segment %s is damaged behind entry %llu", name,
			(unsigned long long)l->index);
	buf_fini(&b);
	return ok;
}

static bool step_closed(struct look *l)
{
	uint64_t next = l->newest.index + 1;

	for (size_t i = 0; i < l->closed.n && !l->replaced; i++) {
		const struct segment *s = &l->closed.items[i];

		if (i > 0 && s->first == s[-1].first) {
			l->stale_from = i;
			break;
		}
		if (i == 0)
			l->term = 0; /* it may begin before the snapshot */
		if (s->first == 0 || s->end < s->first ||
			(i == 0 ? s->first > next : s->first != next))
			return fault(l,
				"closed segment %llu-%llu does not continue what is before "
				"it: it should begin at %llu",
				(unsigned long long)s->first, (unsigned long long)s->end,
				(unsigned long long)next);
		if (!check_closed(l, s))
			return false;
		next = s->end + 1;
	}
	if (l->index < l->newest.index)
		return fault(l, "the log ends at %llu, before the newest snapshot, at %llu",
			(unsigned long long)l->index, l->newest.index);
	return true;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* One open segment; torn_out: it ends in a torn write. */
static bool check_open(struct look *l, const char *name, const struct buf *b, bool *torn_out)
{
	struct reader r = reader_of(b->data, b->len);
	enum batch seen = BATCH_GOOD;

	if (rd_u64(&r) != DISK_FORMAT)
		return fault(l, "%s is of an unknown format", name);
	while (seen == BATCH_GOOD)
		seen = next_batch(l, &r);
	if (seen == BATCH_CUT)
		return fault(l, "%s is shorter than what it holds", name);
	if (seen == BATCH_WRONG)
		return fault(l, "%s holds an entry behind %llu that cannot follow it", name,
			(unsigned long long)l->index);
	*torn_out = !all_zero(r.p, rd_left(&r));
	return true;
}

static bool step_open(struct look *l)
{
	bool ok = true, torn = false;

	for (size_t i = 0; i < l->open.n && ok && !l->replaced; i++) {
		struct buf b = { 0 };
		char name[64];

		snprintf(
			name, sizeof name, "open-%llu", (unsigned long long)l->open.items[i].first);
		ok = read_whole(l, name, SEGMENT_MAX, &b);
		if (ok && !all_zero(b.data, b.len)) {
			if (l->stale_from < l->closed.n || torn)
				ok = fault(l, "%s does not continue %s", name,
					torn ? "the segment before it" : "the newest snapshot");
			else
				ok = check_open(l, name, &b, &torn);
		}
		buf_fini(&b);
	}
	return ok;
}

static bool step_terms(struct look *l)
{
	if (l->term > l->out->term)
		return fault(l, "the log is of term %llu, the metadata only of term %llu",
			(unsigned long long)l->term, (unsigned long long)l->out->term);
	l->out->last_index = l->index;
	return true;
}

static bool remove_one(struct look *l, const char *name)
{
	char path[512];

	path_of(l, name, path);
	l->out->n_removed++;
	return file_remove(path) == 0 || unreadable(l, name);
}

/* From the end, so that what a crash leaves of the leftovers is recognised again. */
static bool step_clean(struct look *l)
{
	char name[64];
	bool ok = true;

	for (size_t i = l->replaced ? l->open.n : 0; i > 0 && ok; i--) {
		open_name(&l->open.items[i - 1], name);
		ok = remove_one(l, name);
	}
	for (size_t i = l->closed.n; i > l->stale_from && ok; i--) {
		closed_name(&l->closed.items[i - 1], name);
		ok = remove_one(l, name);
	}
	if (ok && l->out->n_removed > 0 && folder_sync(l->dir) != 0)
		ok = unreadable(l, l->dir);
	return ok;
}

static uint32_t crc_of(const void *p, size_t n)
{
	struct look l = { 0 };

	crc_table(l.crc);
	return crc(&l, p, n, 0);
}

void consensus__segment(
	uint64_t term, unsigned type, const struct raft_buffer *entry, struct buf *out)
{
	struct buf head = { 0 };

	CHECK(entry->len % 8 == 0);
	buf_u64(&head, 1);
	buf_u64(&head, term);
	buf_u32(&head, type);
	buf_u32(&head, (uint32_t)entry->len);
	buf_u64(out, DISK_FORMAT);
	buf_u32(out, crc_of(head.data, head.len));
	buf_u32(out, crc_of(entry->base, entry->len));
	buf_put(out, head.data, head.len);
	buf_put(out, entry->base, entry->len);
	buf_fini(&head);
}

bool consensus__preflight(const char *dir, uint64_t installing, struct consensus_found *out)
{
	static bool (*const steps[])(struct look * l) = { step_list, step_metadata, step_snapshot,
		step_closed, step_open, step_terms, step_clean };
	struct look l = { .dir = dir, .out = out, .installing = installing };
	bool ok = true;

	*out = (struct consensus_found){ 0 };
	crc_table(l.crc);
	for (size_t i = 0; i < ARRAY_LEN(steps) && ok; i++)
		ok = steps[i](&l);
	free(l.closed.items);
	free(l.open.items);
	free(l.snapshots);
	CHECK(ok == (out->why[0] == 0));
	return ok;
}
