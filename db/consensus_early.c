/* Early election: a killed process closes its connections at once, so when the one to the leader
 * breaks nobody needs to wait for a time-out. Every survivor forgets the leader (one alone gains
 * nothing: the others would refuse their vote) and stands for election after a delay by its rank
 * among the voters, with pre-vote as always. Who noticed later refuses the first time, so it is
 * repeated a few times. The guard's tick rule holds. A frozen leader or a cut link gives no such
 * sign. Never a synthetic TimeoutNow: it would depose a living leader.
 */
#include "db/consensus_priv.h"

enum { EARLY_FIRST_MS = 2, EARLY_STAGGER_MS = 20, EARLY_DISK_MS = 3, EARLY_TRIES = 6 };

static unsigned voters(const struct consensus *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->raft.configuration.n; i++)
		n += c->raft.configuration.servers[i].role == RAFT_VOTER;
	return n;
}

/* Place by id among the voters other than the one that is lost; a witness is the last. */
static unsigned rank(const struct consensus *c)
{
	unsigned k = 0;

	if (c->cfg.witness)
		return voters(c);

	for (unsigned i = 0; i < c->raft.configuration.n; i++) {
		const struct raft_server *s = &c->raft.configuration.servers[i];

		k += s->role == RAFT_VOTER && s->id != c->early.leader && s->id < c->cfg.raft_id;
	}
	return k;
}

/* Is there still a reason to stand? */
static bool wanted(struct consensus *c)
{
	const struct net_peer *p = consensus__peer(c, c->early.leader);

	if (c->closing || c->broken || p == NULL || p->up || c->early.tries >= EARLY_TRIES)
		return false;
	if (c->raft.state == RAFT_FOLLOWER)
		return c->raft.follower_state.current_leader.id == 0;
	return c->raft.state == RAFT_CANDIDATE && c->raft.candidate_state.in_pre_vote;
}

static void on_timer(struct loop_timer *t)
{
	struct consensus *c = container_of(t, struct consensus, early.timer);
	unsigned timeout_ms;

	if (!wanted(c))
		return;
	if (consensus__behind_disk(c) || consensus_restoring(c)) {
		loop_timer_start(c->cfg.loop, t, EARLY_DISK_MS, on_timer);
		return;
	}
	/* as if the randomised time-out had just passed */
	timeout_ms = c->raft.state == RAFT_FOLLOWER
			     ? c->raft.follower_state.randomized_election_timeout
			     : c->raft.candidate_state.randomized_election_timeout;
	c->raft.election_timer_start = c->io->time(c->io) - timeout_ms;
	c->early.tries++;
	COUNT(c->cfg.loop->env, elections_early);
	loop_timer_start(c->cfg.loop, t, voters(c) * EARLY_STAGGER_MS, on_timer);
	consensus__tick(c);
}

void consensus__early(struct consensus *c, raft_id peer)
{
	loop_assert(c->cfg.loop);
	if (c->raft.state != RAFT_FOLLOWER || c->raft.follower_state.current_leader.id != peer)
		return;
	c->raft.follower_state.current_leader.id = 0; /* its address stays: the library frees it */
	c->early.leader = peer;
	c->early.tries = 0;
	loop_timer_start(c->cfg.loop, &c->early.timer, EARLY_FIRST_MS + rank(c) * EARLY_STAGGER_MS,
		on_timer);
	consensus__role_look(c);
}
