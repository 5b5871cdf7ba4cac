/* One session, handed from member to member: db/floor.c and its invariants. docs/proofs/README.md.
 *
 * Each option of the loop is one step of a member, the leader or the network, in any order. Time is
 * what it promises: a member's lease ends whenever it likes, the leader's belief in it only after
 * that. A read index is the commit index of the moment at which the leader takes it. A message and
 * what its receiver does are one step, which comes at any time or never; a TAKEN is on its way for
 * itself, since a new leader may begin before it arrives.
 *
 * Checked: a call sees no less than what its session had been shown, or acknowledged, before it
 * began. -DWITHOUT_x leaves a rule out; each must be found.
 */
#define N 2 /* more are as the second: each rule is about the taker and one other */
#ifndef COMMITS
#define COMMITS 2
#endif
#ifndef LEADERS
#define LEADERS 2 /* changes of the leader */
#endif

#define NONE 0
#define MAKING 1 /* given, its index is not applied yet */
#define READY 2

byte commit; /* committed entries */
byte shown;  /* the most that an ended call of the session has seen or written */
byte applied[N];

/* of each member */
byte hold[N], index[N]; /* index: that MAKING waits for, and one */
bool leaving[N];	/* the leader wants it forgotten */
bool lease[N];
bool asked[N], lost[N]; /* a take is under way; what it brings is worth nothing */
byte taken[N];		/* on its way: a read index and one; 0: none */
bool inside[N], stands[N]; /* a call, under a hold that has stood since */
byte need[N], saw[N], wrote[N];

/* of the leader */
byte changes;
bool words; /* a round waits for words */
byte taker;
bool wants[N], owes[N];
bool assumed[N]; /* a lease of that member may still stand */

inline drop(i)
{
	hold[i] = NONE;
	index[i] = 0;
	leaving[i] = false;
	stands[i] = false;
}

inline lapse(i)
{
	lease[i] = false;
	drop(i);
	lost[i] = asked[i];
}

inline member(i)
{
	if
	:: applied[i] < commit -> applied[i]++;
	/* a lease, behind a read index; also for a member that owes a word: that it gets none (floor.c)
	 * bounds the wait for it, and is not needed here */
	:: !lease[i] -> lease[i] = true; assumed[i] = true;
	:: lease[i] -> lapse(i);
	/* a takeover */
	:: lease[i] && hold[i] == NONE && !asked[i] -> asked[i] = true; wants[i] = true;
	:: asked[i] && !wants[i] && taken[i] == 0 && !(words && taker == i) -> wants[i] = true; /* sent again */
	:: taken[i] != 0 ->
		if
		:: asked[i] && !lost[i] && lease[i] ->
#ifdef WITHOUT_INDEX
			hold[i] = READY;
#else
			hold[i] = MAKING; index[i] = taken[i];
#endif
		:: else
		fi
		asked[i] = false;
		lost[i] = false;
		taken[i] = 0;
	:: hold[i] == MAKING && applied[i] + 1 >= index[i] ->
		if
		:: leaving[i] -> drop(i);
		:: else -> hold[i] = READY; index[i] = 0;
		fi
	/* the word that it is forgotten: at once, when a call has ended, or when that takes too long */
	:: words && owes[i] && hold[i] == NONE -> owes[i] = false; lose_take(i);
	:: words && owes[i] && hold[i] != NONE -> leaving[i] = true; lose_take(i);
	:: leaving[i] -> drop(i);
	/* a call: in, a look, perhaps a write, out */
	:: !inside[i] && hold[i] == READY && !leaving[i] && lease[i] ->
		inside[i] = true; stands[i] = true; need[i] = shown; saw[i] = applied[i];
	:: inside[i] && commit < COMMITS && wrote[i] == 0 -> commit++; wrote[i] = commit;
	:: inside[i] && saw[i] < applied[i] -> saw[i] = applied[i];
	:: inside[i] && !stands[i] && hold[i] == READY && !leaving[i] && lease[i] -> stands[i] = true; /* held once more */
#ifdef WITHOUT_LEAVING
	:: inside[i] && applied[i] >= wrote[i] ->
#else
	:: inside[i] && stands[i] && lease[i] && applied[i] >= wrote[i] ->
#endif
		assert(saw[i] >= need[i]);
		if
		:: saw[i] > shown -> shown = saw[i];
		:: else
		fi
		if
		:: wrote[i] > shown -> shown = wrote[i];
		:: else
		fi
		inside[i] = false;
		stands[i] = false;
		need[i] = 0;
		saw[i] = 0;
		wrote[i] = 0;
	/* the leader's belief */
#ifdef WITHOUT_BELIEF
	:: assumed[i] -> assumed[i] = false;
#else
	:: assumed[i] && !lease[i] -> assumed[i] = false;
#endif
	fi
}

inline lose_take(i)
{
#ifndef WITHOUT_LOST
	lost[i] = asked[i];
#else
	skip;
#endif
}

inline leads()
{
	if
	:: !words && (wants[0] || wants[1]) ->
		if
		:: wants[0] -> taker = 0;
		:: wants[1] -> taker = 1;
		fi
		wants[taker] = false;
		words = true;
		owes[0] = (taker != 0); owes[1] = (taker != 1);
#ifdef WITHOUT_WORDS
	:: words ->
#else
	:: words && !(owes[0] && assumed[0]) && !(owes[1] && assumed[1]) ->
#endif
		words = false;
		owes[0] = false; owes[1] = false;
		taken[taker] = commit + 1; /* a read index */
		taker = 0;
	fi
}

inline another_leads()
{
	changes < LEADERS ->
	changes++;
	words = false;
	taker = 0;
	wants[0] = false; wants[1] = false;
	owes[0] = false; owes[1] = false;
	/* what the old one gave may stand */
#ifdef WITHOUT_ASSUMING
	assumed[0] = false; assumed[1] = false;
#else
	assumed[0] = true; assumed[1] = true;
#endif
}

active proctype steps()
{
	do
	:: atomic { member(0) }
	:: atomic { member(1) }
	:: atomic { leads() }
	:: atomic { commit < COMMITS -> commit++ } /* others write too */
	:: atomic { another_leads() }
	od
}
