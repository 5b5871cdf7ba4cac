/* The library's disk half, on a directory, with no network of its own.
 *
 * raft_uv insists on a transport: the one here listens nowhere, and nobody ever asks it to connect,
 * because our send replaces the library's (consensus_net.c).
 */
#include "db/consensus_priv.h"
#include "rpc/base/uv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <raft/uv.h>

enum { CONNECT_RETRY_MS = 100 };

struct disk {
	struct raft_io io;
	struct raft_uv_transport transport;
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

int consensus__disk_uv(struct raft_io **out, struct loop *loop, const char *dir)
{
	struct disk *d = mem_new(sizeof *d);
	int rv;

	d->transport = (struct raft_uv_transport){ .init = transport_init,
		.listen = transport_listen,
		.connect = transport_connect,
		.close = transport_close };
	rv = raft_uv_init(&d->io, loop_uv(loop), dir, &d->transport);
	if (rv != 0) {
		log_err(loop->env, "event=log_directory_unusable dir=%s why=\"%s\"", dir,
			d->io.errmsg);
		free(d);
		return ERR_IO;
	}
	d->io.version = 2; /* it fills in async_work and leaves 1, which raft_init refuses for our
			      state machine */
	raft_uv_set_connect_retry_delay(&d->io, CONNECT_RETRY_MS);
	/* it would put a damaged segment away and start without what was in it */
	raft_uv_set_auto_recovery(&d->io, false);
	/* so that preflight can check the seal; compressing is the encoder's business */
	raft_uv_set_snapshot_compression(&d->io, false);
	*out = &d->io;
	return 0;
}

int consensus_disk_open(struct raft_io **out, struct loop *loop, const char *dir)
{
	struct preflight found;

	if (!consensus__preflight(dir, 0, &found)) {
		log_err(loop->env,
			"event=data_directory_unsound dir=%s why=\"%s\" remedy=\"this copy of the "
			"database cannot be trusted: restore the folder from a copy of this very "
			"member, or keep it aside and let the member join anew\"",
			dir, found.why);
		return ERR_IO;
	}
	if (found.n_removed > 0)
		log_warn(loop->env, "event=leftovers_removed dir=%s segments=%u", dir,
			found.n_removed);
	return consensus__disk_uv(out, loop, dir);
}
