/* db/members_plan.c: which change of the membership comes next. */
#include "db/members_plan.h"
#include "tests/lib/suite.h"

#include <stdio.h>
#include <string.h>

enum { LOST = 600000, MOST = 5 };

/* One member by three letters: its row (j joining, m joined, l leaving); its part (- absent, p
 * spare, s stand-by, v voter); how it is (L the leader, . in contact with all of the log, b behind,
 * x out of contact, X for long, a asks for the lead, w a witness).
 * Raft ids in order, from 1. */
static unsigned parse(const char *text, struct plan_member *out)
{
	unsigned n = 0;

	for (; *text != 0; text += text[3] == ' ' ? 4 : 3, n++) {
		struct plan_member *m = &out[n];

		*m = (struct plan_member){ .raft_id = n + 1,
			.state = text[0] == 'j'	  ? PLAN_JOINING
				 : text[0] == 'l' ? PLAN_LEAVING
						  : PLAN_JOINED,
			.part = text[1] == '-'	 ? PLAN_ABSENT
				: text[1] == 'p' ? PLAN_SPARE
				: text[1] == 's' ? PLAN_STANDBY
						 : PLAN_VOTER,
			.silence_ms = text[2] == 'x'   ? 5000
				      : text[2] == 'X' ? LOST
						       : 0,
			.current = strchr(".Law", text[2]) != NULL,
			.witness = text[2] == 'w',
			.self = text[2] == 'L',
			.asked = text[2] == 'a' };
	}
	return n;
}

struct row {
	const char *members;
	enum plan_step step;
	unsigned who; /* raft id; 0: any */
};

static void check(const struct row *rows, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct plan_member m[16];
		unsigned k = parse(rows[i].members, m);
		struct plan p = db__members_plan(m, k, MOST, LOST);

		if (p.step != rows[i].step || (rows[i].who != 0 && p.who + 1 != rows[i].who))
			ck_abort_msg("%s: step %d of member %u", rows[i].members, (int)p.step,
				p.who + 1);
	}
}

START_TEST(each_rule_has_its_step)
{
	static const struct row rows[] = {
		{ "mvL", PLAN_NOTHING, 0 },
		{ "mvL mv. mv.", PLAN_NOTHING, 0 },
		{ "mvL j-x", PLAN_ADD, 2 },
		{ "mvL jpx", PLAN_STAND_BY, 2 },
		{ "mvL jsb", PLAN_NOTHING, 0 },
		{ "mvL js.", PLAN_WRITE_JOINED, 2 },
		{ "mvL ms.", PLAN_NOTHING, 0 }, /* two voters are worse than one */
		{ "mvL ms. ms.", PLAN_PROMOTE, 2 },
		{ "mvL ms. msb", PLAN_NOTHING, 0 },
		{ "mvL mv. ms.", PLAN_PROMOTE, 3 },
		{ "mvL mv. msb", PLAN_NOTHING, 0 }, /* it soon can */
		{ "mvL mv. msx", PLAN_STAND_BY, 2 },
		{ "mvL mv. mv. ms.", PLAN_NOTHING, 0 },
		{ "mvL mv. mv. ms. ms.", PLAN_PROMOTE, 4 },
		{ "mvL mv. mv. mv.", PLAN_STAND_BY, 4 },
		{ "mv. mv. mv. mvL", PLAN_STAND_BY, 3 }, /* never the leader */
		{ "mvL mvx mv. mv.", PLAN_STAND_BY, 2 },
		{ "mvL mv. mv. mv. mv. ms. ms. ms.", PLAN_NOTHING, 0 },
		{ "mvL mv. lv.", PLAN_STAND_BY, 3 },
		/* a witness counts as any other, hosts come first */
		{ "mvL msw", PLAN_NOTHING, 0 },
		{ "mvL msw ms.", PLAN_PROMOTE, 3 },
		{ "mvL msw mv.", PLAN_PROMOTE, 2 },
		{ "mvL mv. msw ms.", PLAN_PROMOTE, 4 },
		{ "mvL mvw mv. mv.", PLAN_STAND_BY, 2 },
		{ "mvL mvw lv.", PLAN_STAND_BY, 3 },
		{ "mvL mvw", PLAN_STAND_BY, 2 },
		{ "mvL mv. lsx", PLAN_REMOVE, 3 },
		{ "mvL mv. l-x", PLAN_WRITE_LEFT, 3 },
		{ "lvL mv. mv.", PLAN_STEP_DOWN, 1 },
		{ "lvL ms.", PLAN_PROMOTE, 2 }, /* else nobody could lead */
		{ "lvL mv.", PLAN_STEP_DOWN, 1 },
		{ "lv. mvL", PLAN_STAND_BY, 1 },
		{ "mvL mv. lv. ms.", PLAN_PROMOTE, 4 }, /* the replacement first */
		{ "mvL msa", PLAN_PROMOTE, 2 },
		{ "mvL mva", PLAN_NOTHING, 0 }, /* it is about to lead */
		{ "mv. mvL", PLAN_STAND_BY, 1 },
	};

	check(rows, ARRAY_LEN(rows));
}
END_TEST

START_TEST(a_lost_voter_is_replaced)
{
	static const struct row rows[] = {
		{ "mvL mv. mvx ms.", PLAN_NOTHING, 0 }, /* not at once */
		{ "mvL mv. mvX ms.", PLAN_PROMOTE, 4 },
		{ "mvL mv. mvX msb", PLAN_NOTHING, 0 },
		{ "mvL mv. mvX mv.", PLAN_STAND_BY, 3 },
		{ "mvL mv. msX mv.", PLAN_NOTHING, 0 },
	};

	check(rows, ARRAY_LEN(rows));
}
END_TEST

START_TEST(no_step_stops_the_pool)
{
	static const struct row rows[] = {
		/* without 2's vote the lost one would be needed */
		{ "mvL lv. mvx", PLAN_STAND_BY, 3 },
		{ "mvL lv. mvx mvx", PLAN_NOTHING, 0 },
		{ "mvL mvx ms.", PLAN_PROMOTE, 3 },
		{ "mvL mvx mvx ms.", PLAN_NOTHING, 0 },
	};

	check(rows, ARRAY_LEN(rows));
}
END_TEST

/* Every pool of up to 4 voters and stand-bys that are in contact comes to rest, at the right
 * number, and the leader keeps its vote. */
START_TEST(every_pool_comes_to_rest)
{
	static const char parts[] = "vs-p";

	for (unsigned code = 0; code < 4 * 4 * 4 * 4; code++) {
		struct plan_member m[5];
		char text[32];
		unsigned n, voters = 0, steps = 0;
		struct plan p;

		snprintf(text, sizeof text, "mvL m%c. m%c. m%c. m%c.", parts[code & 3],
			parts[code >> 2 & 3], parts[code >> 4 & 3], parts[code >> 6 & 3]);
		n = parse(text, m);
		while ((p = db__members_plan(m, n, MOST, LOST)).step != PLAN_NOTHING) {
			ck_assert_msg(steps++ < 20, "%s", text);
			ck_assert(!m[p.who].self);
			m[p.who].part = p.step == PLAN_ADD	 ? PLAN_SPARE
					: p.step == PLAN_PROMOTE ? PLAN_VOTER
								 : PLAN_STANDBY;
		}
		for (unsigned i = 0; i < n; i++)
			voters += m[i].part == PLAN_VOTER;
		ck_assert_msg(voters == 5, "%s: %u voters", text, voters);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { each_rule_has_its_step, a_lost_voter_is_replaced,
		no_step_stops_the_pool, every_pool_comes_to_rest };

	return suite_run("members", tests, ARRAY_LEN(tests), 20);
}
