/* Starts of one VM on two hosts: pool/admit.c, owner.c, agent_job.c, sweep.c, host_gone.c, reconcile.c,
 * and the agent's own records. docs/proofs/README.md.
 *
 * What is committed is in the rows at once; a host acts on them when it likes. Every commit is judged
 * by the rows as they are then. Machines lose power, xpoold and agents die, contact is lost.
 *
 * Checked: the VM has one domain at most, anywhere; a lock belongs to a task that is under way, or
 * to a host that will look. -DWITHOUT_x leaves a rule out; each must be found.
 */
#define HOSTS 2
#ifndef TASKS
#define TASKS 3
#endif
#ifndef POWER_LOSSES
#define POWER_LOSSES 1
#endif
#ifndef CRASHES
#define CRASHES 2 /* of xpoold */
#endif
#ifndef AGENT_CRASHES
#define AGENT_CRASHES 1
#endif

#define NOWHERE 2
#define NOBODY 255 /* the incarnation of a host that was declared dead; the lock of no task */

mtype = { NEW, PENDING, ENDED }; /* a task */
mtype = { NO_JOB, WORKS, DONE, BROKEN }; /* what the agent of its owner knows of it */
mtype = { IDLE, RUNS, CLOSES }; /* its job in xpoold; CLOSES: begun by another incarnation */

/* rows */
mtype status[TASKS] = NEW;
byte owner[TASKS] = NOWHERE;
bool started[TASKS];
byte by[TASKS]; /* incarnation that has started it */
byte lock = NOBODY;
byte resident = NOWHERE; /* where the VM runs, by its row */
byte announced[HOSTS];

/* hosts */
bool on[HOSTS] = true, serves[HOSTS] = true; /* the machine; its xpoold */
byte incarnation[HOSTS];
bool domain[HOSTS];
mtype job[TASKS] = NO_JOB;
mtype does[TASKS] = IDLE;

byte losses, crashes, agent_crashes;

inline admit(t)
{
	status[t] == NEW && lock == NOBODY && resident == NOWHERE ->
	if
	:: owner[t] = 0;
	:: owner[t] = 1;
	fi
	status[t] = PENDING;
	lock = t;
}

/* The coordinator has not heard of the owner for long; it may live. */
inline reap(t)
{
	status[t] == PENDING ->
	status[t] = ENDED;
	if
#ifndef WITHOUT_LOCK
	:: !started[t] -> lock = NOBODY;
	:: started[t] /* who knows what it does: its owner looks when it is back */
#else
	:: lock = NOBODY;
#endif
	fi
}

inline facts(h)
{
	if
	:: domain[h] -> resident = h;
	:: !domain[h] && resident == h -> resident = NOWHERE;
	:: !domain[h] && resident != h
	fi
}

inline work(t, h)
{
	if
#ifdef WITHOUT_PENDING
	:: does[t] == IDLE && !started[t] && status[t] != NEW && announced[h] == incarnation[h] ->
#else
	:: does[t] == IDLE && !started[t] && status[t] == PENDING && announced[h] == incarnation[h] ->
#endif
		started[t] = true; by[t] = incarnation[h]; does[t] = RUNS;
	/* by an earlier life of this xpoold; what it sees is as new as its last commit, at least */
#ifdef WITHOUT_CATCHING_UP
	:: does[t] == IDLE && started[t] ->
#else
	:: does[t] == IDLE && started[t] && status[t] == PENDING ->
#endif
		if
		:: by[t] == incarnation[h] -> does[t] = RUNS;
		:: by[t] != incarnation[h] -> does[t] = CLOSES;
		fi
	/* asked for again it is the same job */
#ifdef WITHOUT_SAME_JOB
	:: does[t] == RUNS && job[t] != WORKS && job[t] != BROKEN -> job[t] = WORKS;
#else
	:: does[t] == RUNS && job[t] == NO_JOB && by[t] == incarnation[h] -> job[t] = WORKS;
#endif
	:: job[t] == WORKS ->
		assert(!domain[0] && !domain[1]);
		domain[h] = true;
		job[t] = DONE;
	/* the end: facts and lock, if it is still ours; then the agent forgets the job */
	:: (does[t] == RUNS && (job[t] == DONE || job[t] == BROKEN || (job[t] == NO_JOB && by[t] != incarnation[h]))) ||
		(does[t] == CLOSES && job[t] != WORKS) ->
		if
		:: lock == t -> facts(h); lock = NOBODY;
		:: lock != t
		fi
		status[t] = ENDED;
		does[t] = IDLE;
		job[t] = NO_JOB;
	fi
}

/* Its boot, or the new start of its agent, is in the rows from here on: what ran before is over, and
 * what its ended tasks have left locked is looked at. */
inline announce(h)
{
	announced[h] != incarnation[h] ->
	announced[h] = incarnation[h];
}

inline reconcile(h)
{
	announced[h] == incarnation[h] ->
	if
	:: lock != NOBODY && owner[lock] == h && status[lock] == ENDED && does[lock] == IDLE && job[lock] != WORKS ->
		facts(h);
		lock = NOBODY;
	:: lock == NOBODY && (resident == h || (domain[h] && resident == NOWHERE)) -> facts(h);
	fi
}

inline host(h)
{
	if
	:: on[h] && serves[h] ->
		if
		:: owner[0] == h -> work(0, h);
		:: owner[1] == h -> work(1, h);
		:: owner[2] == h -> work(2, h);
		:: announce(h);
		:: reconcile(h);
		/* a stop, whole */
		:: lock == NOBODY && resident == h && announced[h] == incarnation[h] -> domain[h] = false; resident = NOWHERE;
		fi
	:: on[h] && serves[h] && crashes < CRASHES -> crashes++; serves[h] = false; idle(h);
	:: on[h] && !serves[h] -> serves[h] = true;
	/* the agent: what it had begun is destroyed when it starts again */
	:: on[h] && agent_crashes < AGENT_CRASHES -> agent_crashes++; incarnation[h]++; breaks(h);
	:: on[h] && losses < POWER_LOSSES -> losses++; on[h] = false; serves[h] = false; domain[h] = false; idle(h);
	:: !on[h] -> on[h] = true; serves[h] = true; incarnation[h]++; breaks(h);
	/* somebody says that it is dead, and has seen that it is off */
#ifdef WITHOUT_OFF
	:: announced[h] != NOBODY && !serves[h] ->
#else
	:: announced[h] != NOBODY && !on[h] ->
#endif
		announced[h] = NOBODY;
		dead(0, h);
		dead(1, h);
		dead(2, h);
		if
		:: resident == h -> resident = NOWHERE;
		:: resident != h
		fi
	fi
}

inline dead(t, h)
{
	if
	:: owner[t] == h && status[t] != NEW ->
		status[t] = ENDED;
		if
		:: lock == t -> lock = NOBODY;
		:: lock != t
		fi
	:: else
	fi
}

inline idle(h)
{
	if
	:: owner[0] == h -> does[0] = IDLE;
	:: else
	fi
	if
	:: owner[1] == h -> does[1] = IDLE;
	:: else
	fi
	if
	:: owner[2] == h -> does[2] = IDLE;
	:: else
	fi
}

inline breaks_one(t, h)
{
	if
	:: owner[t] == h && job[t] == WORKS -> job[t] = BROKEN;
	:: else
	fi
}

inline breaks(h)
{
	breaks_one(0, h);
	breaks_one(1, h);
	breaks_one(2, h);
}

/* A lock is let go with a task that has done nothing. */
active proctype watch()
{
	atomic { lock != NOBODY && status[lock] != PENDING && !started[lock] -> assert(false) }
}

active proctype steps()
{
	do
	:: atomic { admit(0) }
	:: atomic { admit(1) }
	:: atomic { admit(2) }
	:: atomic { reap(0) }
	:: atomic { reap(1) }
	:: atomic { reap(2) }
	:: atomic { host(0) }
	:: atomic { host(1) }
	od
}
