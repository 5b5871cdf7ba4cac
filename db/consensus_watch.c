/* What a member does once a second on a worker, since it may take long: bring the note up to date.
 */
#include "db/consensus_priv.h"

enum { WATCH_MS = 1000 };

static int work(struct raft_io_async_work *req)
{
	struct watch *w = container_of(req, struct watch, work);
	struct consensus *c = req->data;

	return w->noting ? consensus__note_write(c->cfg.disk, &w->note, NOTE_WORKER) : 0;
}

static void on_worked(struct raft_io_async_work *req, int status)
{
	struct watch *w = container_of(req, struct watch, work);
	struct consensus *c = req->data;

	w->busy = false;
	if (!c->closing && status != 0)
		consensus__fail_stop(c, "what was acknowledged cannot be noted", RAFT_IOERR);
}

static void on_timer(struct loop_timer *t)
{
	struct watch *w = container_of(t, struct watch, timer);
	struct consensus *c = container_of(w, struct consensus, watch);

	loop_timer_start(c->cfg.loop, t, WATCH_MS, on_timer);
	if (w->busy || c->broken)
		return;
	w->noting = consensus__note_look(c);
	if (!w->noting)
		return;
	consensus__note_next(&c->note, NOTE_WORKER);
	w->note = c->note;
	w->work = (struct raft_io_async_work){ .data = c, .work = work };
	w->busy = c->io->async_work(c->io, &w->work, on_worked) == 0;
}

void consensus__watch_start(struct consensus *c)
{
	loop_timer_start(c->cfg.loop, &c->watch.timer, WATCH_MS, on_timer);
}
