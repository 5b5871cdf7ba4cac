/* What a member does once a second, on a worker since it may take long: bring the note up to date,
 * let the state sweep, and look how much room is left on the disk. The library crashes when it
 * finds none.
 *
 *  - below CONSENSUS_SPACE_WARN: say so, and take snapshots early, which shortens the log
 *  - below CONSENSUS_SPACE_LOW: lead no more. Hand the lead over, propose nothing, do not stand; go
 *    on following
 *  - below CONSENSUS_SPACE_STOP: end the process, before the library meets the end of the disk
 *
 * A level is left when there is a quarter more than its limit, else the files of the log would make
 * it flap.
 */
#include "db/consensus_priv.h"

#include <stdio.h>

enum { WATCH_MS = 1000 };
enum space { SPACE_STOP, SPACE_LOW, SPACE_WARN, SPACE_PLENTY };

/* Each level is below its limit. */
static const uint64_t limits[] = { CONSENSUS_SPACE_STOP, CONSENSUS_SPACE_LOW,
	CONSENSUS_SPACE_WARN };

static enum space level(uint64_t bytes, enum space before)
{
	unsigned k = SPACE_STOP;

	while (k < SPACE_PLENTY && bytes >= limits[k] + (k >= before ? limits[k] / 4 : 0))
		k++;
	return (enum space)k;
}

static void set_snapshots(struct consensus *c)
{
	unsigned entries = c->cfg.snapshot_entries, trailing = c->cfg.snapshot_trailing;

	if (c->watch.space < SPACE_PLENTY && entries > CONSENSUS_SNAPSHOT_SCARCE)
		entries = CONSENSUS_SNAPSHOT_SCARCE;
	if (c->watch.space < SPACE_PLENTY && trailing > CONSENSUS_SNAPSHOT_SCARCE)
		trailing = CONSENSUS_SNAPSHOT_SCARCE;
	if (c->snapshot_soon)
		entries = 1;
	raft_set_snapshot_threshold(&c->raft, entries);
	raft_set_snapshot_trailing(&c->raft, trailing);
}

void consensus_snapshot_soon(struct consensus *c)
{
	c->snapshot_soon = true;
	set_snapshots(c);
}

void consensus__snapshot_taken(struct consensus *c)
{
	c->snapshot_soon = false;
	set_snapshots(c);
}

bool consensus__cramped(const struct consensus *c)
{
	return c->watch.space <= SPACE_LOW && !(c->cfg.rules_off & RULE_SPACE);
}

static void on_space(struct consensus *c, uint64_t bytes)
{
	static const char *const names[] = { "stop", "low", "warn", "plenty" };
	struct env *env = c->cfg.loop->env;
	enum space before = (enum space)c->watch.space;
	char why[128];

	c->watch.space = level(bytes, before);
	if (c->watch.space != before) {
		log_write(env, c->watch.space < SPACE_PLENTY ? LOG_WARN : LOG_INFO,
			"event=disk_space level=%s free_mib=%llu", names[c->watch.space],
			(unsigned long long)bytes >> 20);
		set_snapshots(c);
	}
	if (c->watch.space == SPACE_STOP && !(c->cfg.rules_off & RULE_SPACE)) {
		snprintf(why, sizeof why, "only %llu MiB are left on the disk; make room there",
			(unsigned long long)bytes >> 20);
		consensus__fail_stop(c, why, RAFT_NOSPACE);
		return;
	}
	if (consensus__cramped(c))
		consensus_step_down(c); /* again and again: who is called may be cramped too */
	consensus__role_look(c);
}

static int work(struct raft_io_async_work *req)
{
	struct watch *w = container_of(req, struct watch, work);
	struct consensus *c = req->data;
	int rc;

	c->cfg.sweep(c->cfg.arg);
	rc = w->noting ? consensus__note_write(c->cfg.disk, &w->note, NOTE_WORKER) : 0;
	return rc == 0 ? c->cfg.disk->space(c->cfg.disk, &w->bytes) : rc;
}

static void on_worked(struct raft_io_async_work *req, int status)
{
	struct watch *w = container_of(req, struct watch, work);
	struct consensus *c = req->data;

	w->busy = false;
	if (c->closing)
		return;
	if (status != 0)
		consensus__fail_stop(c, "the disk cannot be written or looked at", RAFT_IOERR);
	else
		on_space(c, w->bytes);
}

static void on_timer(struct loop_timer *t)
{
	struct watch *w = container_of(t, struct watch, timer);
	struct consensus *c = container_of(w, struct consensus, watch);

	loop_timer_start(c->cfg.loop, t, WATCH_MS, on_timer);
	if (w->busy || c->broken)
		return;
	w->noting = consensus__note_look(c);
	if (w->noting)
		consensus__note_next(&c->note, NOTE_WORKER);
	w->note = c->note;
	w->work = (struct raft_io_async_work){ .data = c, .work = work };
	w->busy = c->io->async_work(c->io, &w->work, on_worked) == 0;
}

int consensus__watch_open(struct consensus *c)
{
	uint64_t bytes;

	if (c->cfg.disk->space(c->cfg.disk, &bytes) != 0) {
		log_err(c->cfg.loop->env,
			"event=disk_unusable why=\"its free space cannot be told\"");
		return ERR_IO;
	}
	c->watch.space = level(bytes, SPACE_PLENTY);
	if (c->watch.space == SPACE_STOP && !(c->cfg.rules_off & RULE_SPACE)) {
		log_err(c->cfg.loop->env,
			"event=disk_full free_mib=%llu needed_mib=%d remedy=\"make room there\"",
			(unsigned long long)bytes >> 20, CONSENSUS_SPACE_STOP >> 20);
		return ERR_IO;
	}
	return 0;
}

void consensus__watch_start(struct consensus *c)
{
	set_snapshots(c);
	loop_timer_start(c->cfg.loop, &c->watch.timer, WATCH_MS, on_timer);
}
