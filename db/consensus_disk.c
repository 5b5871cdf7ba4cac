/* The product's disk: the library's disk half on a folder, with no network of its own, and the note
 * beside it.
 *
 * raft_uv insists on a transport: the one here listens nowhere, and nobody ever asks it to connect,
 * because our send replaces the library's (consensus_net.c).
 */
#include "db/consensus_priv.h"
#include "rpc/base/file.h"
#include "rpc/base/uv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <raft/uv.h>

enum { CONNECT_RETRY_MS = 100, DISK_PATH = 512, NOTE_FILE_MAX = 4096 };

struct disk {
	struct consensus_disk base;
	struct raft_io io;
	struct raft_uv_transport transport;
	struct loop *loop;
	char dir[DISK_PATH], log[DISK_PATH + 8], note[DISK_PATH + 16];
};

static int transport_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
	(void)t;
	(void)id;
	(void)address;
	return 0;
}

static int transport_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
	(void)t;
	(void)cb;
	return 0;
}

static int transport_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id,
	const char *address, raft_uv_connect_cb cb)
{
	(void)t;
	(void)req;
	(void)id;
	(void)address;
	(void)cb;
	UNREACHABLE();
}

static void transport_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
	cb(t);
}

static int disk_attach(struct consensus_disk *base)
{
	struct disk *d = container_of(base, struct disk, base);
	int rv;

	d->transport = (struct raft_uv_transport){ .init = transport_init,
		.listen = transport_listen,
		.connect = transport_connect,
		.close = transport_close };
	rv = raft_uv_init(&d->io, loop_uv(d->loop), d->log, &d->transport);
	if (rv != 0) {
		log_err(d->loop->env, "event=log_directory_unusable dir=%s why=\"%s\"", d->log,
			d->io.errmsg);
		return ERR_IO;
	}
	d->io.version = 2; /* it fills in async_work and leaves 1, which raft_init refuses for our
			      state machine */
	raft_uv_set_connect_retry_delay(&d->io, CONNECT_RETRY_MS);
	/* it would put a damaged segment away and start without what was in it */
	raft_uv_set_auto_recovery(&d->io, false);
	/* so that preflight can check the seal; compressing is the encoder's business */
	raft_uv_set_snapshot_compression(&d->io, false);
	base->io = &d->io;
	return 0;
}

static void disk_look(struct consensus_disk *base, uint64_t installing, struct consensus_found *out)
{
	struct disk *d = container_of(base, struct disk, base);

	consensus__preflight(d->log, installing, out);
	if (out->n_removed > 0)
		log_warn(d->loop->env, "event=leftovers_removed dir=%s segments=%u", d->log,
			out->n_removed);
}

/* Metadata of an empty log, as the library writes it: format, version, term, vote. */
static int begin_anew(const struct disk *d, uint64_t term, uint64_t vote)
{
	struct buf b = { 0 };
	char path[DISK_PATH + 32];
	int rc;

	buf_u64(&b, 1);
	buf_u64(&b, 1);
	buf_u64(&b, term);
	buf_u64(&b, vote);
	snprintf(path, sizeof path, "%s/metadata1", d->log);
	rc = folder_make(d->log);
	if (rc == 0)
		rc = file_replace(path, b.data, b.len);
	buf_fini(&b);
	return rc == 0 ? folder_sync(d->dir) : rc;
}

static bool is_metadata(const char *name)
{
	return strncmp(name, "metadata", strlen("metadata")) == 0;
}

static void on_name(void *arg, const char *name)
{
	*(bool *)arg |= !is_metadata(name);
}

/* A log just begun, by a start that was killed, is nothing to keep. */
static bool holds_something(const struct disk *d)
{
	bool any = false;

	return folder_list(d->log, on_name, &any) != 0 || any;
}

static int disk_set_aside(struct consensus_disk *base, uint64_t term, uint64_t vote)
{
	struct disk *d = container_of(base, struct disk, base);
	char aside[DISK_PATH + 32];
	int rc = holds_something(d) ? ERR_IO : 0;

	errno = EEXIST;
	for (int i = 1; i <= CONSENSUS_ASIDE_MAX && rc != 0 && errno == EEXIST; i++) {
		snprintf(aside, sizeof aside, "%s.aside-%d", d->log, i);
		rc = file_move(d->log, aside);
	}
	if (rc != 0 && errno == ENOENT) /* a crash came in between, or somebody has removed it */
		rc = 0;
	if (rc == 0)
		rc = begin_anew(d, term, vote);
	if (rc != 0)
		log_err(d->loop->env,
			"event=log_directory_unusable dir=%s why=\"%s\" remedy=\"at most %d logs "
			"are "
			"kept aside: look at them, and remove what is not needed\"",
			d->log, strerror(errno), CONSENSUS_ASIDE_MAX);
	return rc;
}

struct cut {
	unsigned long long index;
	bool holds;
};

static void on_segment(void *arg, const char *name)
{
	struct cut *cut = arg;
	unsigned long long first, end;
	int n = 0;

	if (sscanf(name, "%llu-%llu%n", &first, &end, &n) == 2 && name[n] == 0)
		cut->holds |= end >= cut->index;
}

static bool disk_is_cut(struct consensus_disk *base, uint64_t index)
{
	struct cut cut = { .index = index };

	return folder_list(container_of(base, struct disk, base)->log, on_segment, &cut) == 0 &&
	       !cut.holds;
}

static int disk_space(struct consensus_disk *base, uint64_t *bytes_out)
{
	return disk_free(container_of(base, struct disk, base)->dir, bytes_out);
}

static int disk_note_read(struct consensus_disk *base, struct buf *out)
{
	struct disk *d = container_of(base, struct disk, base);

	return file_read(d->note, NOTE_FILE_MAX, out);
}

static int disk_note_write(struct consensus_disk *base, unsigned slot, const void *p, size_t n)
{
	struct disk *d = container_of(base, struct disk, base);

	return file_write_at(d->note, slot * CONSENSUS_NOTE_SLOT, p, n);
}

struct clearing {
	char log[DISK_PATH + 8];
	int rc;
};

static void on_left(void *arg, const char *name)
{
	struct clearing *c = arg;
	char path[2 * DISK_PATH];

	snprintf(path, sizeof path, "%s/%s", c->log, name);
	if (!is_metadata(name) && file_remove(path) != 0)
		c->rc = ERR_IO;
}

int consensus_disk_clear(const char *dir)
{
	struct clearing c = { .rc = 0 };

	snprintf(c.log, sizeof c.log, "%s/raft", dir);
	if (folder_list(c.log, on_left, &c) != 0)
		return errno == ENOENT ? 0 : ERR_IO;
	return c.rc == 0 && folder_sync(c.log) == 0 ? 0 : ERR_IO;
}

struct consensus_disk *consensus_disk_open(struct loop *loop, const char *dir)
{
	struct disk *d = mem_new(sizeof *d);

	d->base = (struct consensus_disk){ .look = disk_look,
		.set_aside = disk_set_aside,
		.attach = disk_attach,
		.space = disk_space,
		.is_cut = disk_is_cut,
		.note_read = disk_note_read,
		.note_write = disk_note_write };
	d->loop = loop;
	snprintf(d->dir, sizeof d->dir, "%s", dir);
	snprintf(d->log, sizeof d->log, "%s/raft", dir);
	snprintf(d->note, sizeof d->note, "%s/acknowledged", dir);
	return &d->base;
}

void consensus_disk_free(struct consensus_disk *disk)
{
	if (disk->io != NULL)
		raft_uv_close(disk->io);
	free(container_of(disk, struct disk, base));
}
