/* Handing the lead over.
 *
 *   asked --(the target has the whole log on its disk)--> called: TimeoutNow --> it leads
 *
 * While it is under way nothing new enters the log, or a busy leader's would never be complete at
 * the target; and the library would call a target that is still writing, which then ignores the
 * call (the guard's rule for TimeoutNow) and everybody waits for a time-out. One at a time, given
 * up after one election time-out; who asked asks again.
 */
#include "db/consensus_priv.h"

static void on_transferred(struct raft_transfer *req)
{
	(void)req; /* it has no status: the role tells */
}

bool consensus__handing(const struct consensus *c)
{
	return c->hand.to != 0 && c->raft.state == RAFT_LEADER;
}

void consensus__hand_turn(struct consensus *c)
{
	const struct net_peer *p = consensus__peer(c, c->hand.to);
	const struct raft_progress *progress;

	loop_assert(c->cfg.loop);
	if (c->hand.to == 0)
		return;
	progress = consensus__progress(c, c->hand.to); /* NULL: we do not lead, or it has left */
	if (progress == NULL || p == NULL || !p->up ||
		env_now_ms(c->cfg.loop->env) >= c->hand.until_ms) {
		c->hand.to = 0;
		return;
	}
	if (c->hand.called || c->raft.transfer != NULL ||
		progress->match_index < raft_last_index(&c->raft))
		return;
	c->hand.called = true;
	log_info(c->cfg.loop->env, "event=transfer to=%llu", c->hand.to);
	if (raft_transfer(&c->raft, &c->transfer, c->hand.to, on_transferred) != 0)
		log_warn(c->cfg.loop->env, "event=transfer_refused why=\"%s\"", c->raft.errmsg);
}

bool consensus_transfer(struct consensus *c, uint64_t raft_id)
{
	const struct net_peer *p = consensus__peer(c, raft_id);

	loop_assert(c->cfg.loop);
	if (c->raft.state != RAFT_LEADER || c->closing || c->broken || p == NULL || !p->up ||
		!consensus_is_voter(c, raft_id))
		return false;
	if (c->hand.to != 0 || c->raft.transfer != NULL)
		return c->hand.to == raft_id;
	c->hand = (struct hand){ .to = raft_id,
		.until_ms = env_now_ms(c->cfg.loop->env) + c->cfg.election_ms };
	return true; /* the end of this turn looks */
}

void consensus_step_down(struct consensus *c)
{
	const struct net_peer *best = NULL;
	raft_index most = 0;

	loop_assert(c->cfg.loop);
	/* one that has most is called soonest; of those another one each time */
	for (unsigned i = 1; i <= c->n_peers; i++) {
		const struct net_peer *p = &c->peers[(c->called + i) % c->n_peers];
		const struct raft_progress *progress = consensus__progress(c, p->id);

		if (p->up && !p->witness && progress != NULL && consensus_is_voter(c, p->id) &&
			(best == NULL || progress->match_index > most)) {
			most = progress->match_index;
			best = p;
		}
	}
	if (best == NULL || c->hand.to != 0)
		return;
	c->called = (unsigned)(best - c->peers);
	consensus_transfer(c, best->id);
}
