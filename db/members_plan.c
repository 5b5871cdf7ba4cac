/* Rules, in this order; the first that applies is the next step:
 *
 *   1. who leaves and has no vote is removed; then its row goes
 *   2. who is new is added, stands by, and has joined when it has the log
 *   3. too few voters: a stand-by in contact that has the log gets a vote. 1 for up to 2 members, 3
 *      for 3 and 4, 5 above: an even number is worse than one less, so votes are given in pairs.
 * Who is to lead gets one too, and so does the replacement of a voter that is lost for long
 *   4. who leaves loses its vote; the leader hands the lead over first, never demoting itself
 *   5. too many voters, or an even number: one loses its vote, lost ones first
 *
 * A change is made only where most of the voters behind it are in contact: it is in force before it
 * is committed, and would stop the pool otherwise.
 */
#include "db/members_plan.h"

struct sums {
	unsigned joined;	   /* that stay */
	unsigned voters, live;	   /* all */
	unsigned staying;	   /* voters that stay */
	unsigned candidates, near; /* stand-bys that could vote; and those that soon could */
};

static bool stays(const struct plan_member *m)
{
	return m->state != PLAN_LEAVING;
}

static bool stands_by(const struct plan_member *m)
{
	return m->state == PLAN_JOINED && m->part == PLAN_STANDBY && m->silence_ms == 0;
}

static struct sums sum(const struct plan_member *m, unsigned n)
{
	struct sums s = { 0 };

	for (unsigned i = 0; i < n; i++) {
		bool votes = m[i].part == PLAN_VOTER;

		s.joined += m[i].state == PLAN_JOINED;
		s.voters += votes;
		s.live += votes && m[i].silence_ms == 0;
		s.staying += votes && stays(&m[i]);
		s.near += stands_by(&m[i]);
		s.candidates += stands_by(&m[i]) && m[i].current;
	}
	return s;
}

static unsigned wanted(unsigned members, unsigned most)
{
	unsigned want = members < 3 ? 1 : members < 5 ? 3 : members < 7 ? 5 : 7;

	return want < most ? want : most;
}

static bool commits(unsigned live, unsigned voters)
{
	return 2 * live > voters;
}

/* Without this one's vote. */
static bool may_lose(const struct sums *s, const struct plan_member *m)
{
	return commits(s->live - (m->silence_ms == 0), s->voters - 1);
}

static struct plan arrival_or_departure(const struct plan_member *m, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		enum plan_step step = PLAN_NOTHING;

		if (m[i].self)
			continue;
		if (!stays(&m[i]) && m[i].part == PLAN_ABSENT)
			step = PLAN_WRITE_LEFT;
		else if (!stays(&m[i]) && m[i].part != PLAN_VOTER)
			step = PLAN_REMOVE;
		else if (stays(&m[i]) && m[i].part == PLAN_ABSENT)
			step = PLAN_ADD;
		else if (stays(&m[i]) && m[i].part == PLAN_SPARE)
			step = PLAN_STAND_BY;
		if (step != PLAN_NOTHING)
			return (struct plan){ step, i };
	}
	for (unsigned i = 0; i < n; i++)
		if (m[i].state == PLAN_JOINING &&
			(m[i].part == PLAN_VOTER || (m[i].part == PLAN_STANDBY && m[i].current &&
							    m[i].silence_ms == 0)))
			return (struct plan){ PLAN_WRITE_JOINED, i };
	return (struct plan){ PLAN_NOTHING, 0 };
}

static bool is_lost(const struct plan_member *m, unsigned n, uint64_t lost_ms)
{
	for (unsigned i = 0; i < n; i++)
		if (m[i].part == PLAN_VOTER && stays(&m[i]) && m[i].silence_ms >= lost_ms)
			return true;
	return false;
}

/* Who wants to lead, then who can. */
static bool is_better(const struct plan_member *a, const struct plan_member *b)
{
	if (a->asked != b->asked)
		return a->asked;
	return a->witness != b->witness ? b->witness : a->raft_id < b->raft_id;
}

static bool is_worse(const struct plan_member *a, const struct plan_member *b)
{
	if (a->silence_ms != b->silence_ms)
		return a->silence_ms > b->silence_ms;
	return a->witness != b->witness ? a->witness : a->raft_id > b->raft_id;
}

static struct plan promotion(const struct plan_member *m, unsigned n, const struct sums *s,
	unsigned want, uint64_t lost_ms)
{
	int best = -1;
	bool more = s->staying < want && (s->staying % 2 == 0 || s->candidates >= 2);

	if (s->staying == want)
		more = is_lost(m, n, lost_ms);
	for (unsigned i = 0; i < n; i++)
		if (stands_by(&m[i]) && m[i].current && (more || m[i].asked) &&
			(best < 0 || is_better(&m[i], &m[best])))
			best = (int)i;
	if (best < 0 || !commits(s->live + 1, s->voters + 1))
		return (struct plan){ PLAN_NOTHING, 0 };
	return (struct plan){ PLAN_PROMOTE, (unsigned)best };
}

static struct plan departure_of_voter(const struct plan_member *m, unsigned n, const struct sums *s)
{
	bool heir = false;

	for (unsigned i = 0; i < n; i++)
		heir |= m[i].part == PLAN_VOTER && stays(&m[i]) && m[i].silence_ms == 0 &&
			!m[i].self;
	for (unsigned i = 0; i < n; i++) {
		if (m[i].part != PLAN_VOTER || stays(&m[i]))
			continue;
		if (m[i].self && heir)
			return (struct plan){ PLAN_STEP_DOWN, i };
		if (!m[i].self && may_lose(s, &m[i]))
			return (struct plan){ PLAN_STAND_BY, i };
	}
	return (struct plan){ PLAN_NOTHING, 0 };
}

static struct plan demotion(
	const struct plan_member *m, unsigned n, const struct sums *s, unsigned want)
{
	int worst = -1;
	bool even = s->staying % 2 == 0 && s->staying > 0;

	if (s->staying <= want && !(even && s->near == 0))
		return (struct plan){ PLAN_NOTHING, 0 };
	for (unsigned i = 0; i < n; i++)
		if (m[i].part == PLAN_VOTER && stays(&m[i]) && !m[i].self && !m[i].asked &&
			may_lose(s, &m[i]) && (worst < 0 || is_worse(&m[i], &m[worst])))
			worst = (int)i;
	return worst < 0 ? (struct plan){ PLAN_NOTHING, 0 }
			 : (struct plan){ PLAN_STAND_BY, (unsigned)worst };
}

struct plan db__members_plan(
	const struct plan_member *m, unsigned n, unsigned most, uint64_t lost_ms)
{
	struct sums s = sum(m, n);
	unsigned want = wanted(s.joined, most);
	struct plan p = arrival_or_departure(m, n);

	if (p.step == PLAN_NOTHING)
		p = promotion(m, n, &s, want, lost_ms);
	if (p.step == PLAN_NOTHING)
		p = departure_of_voter(m, n, &s);
	if (p.step == PLAN_NOTHING)
		p = demotion(m, n, &s, want);
	return p;
}
