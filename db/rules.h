/* Rules that tests switch off, one at a time, to see that their absence is found (tests/sim). */
#pragma once

enum db_rule {
	RULE_MASKING = 1 << 0, /* consensus_guard.c */
	RULE_VOUCHED = 1 << 1, /* consensus_guard.c */
	RULE_CLAMP = 1 << 2,   /* of the commit index in a part of a message: consensus_net.c */
	RULE_DEDUPLICATION = 1 << 3, /* by proposal id: apply.c */
	RULE_PRECONDITIONS = 1 << 4, /* apply.c */
	RULE_NOTE = 1 << 5,	     /* a log below its note is in doubt: consensus_note.c */
	RULE_ABSTAIN = 1 << 6,	     /* no voice without a whole log: consensus_guard.c */
	RULE_CONFIRM = 1 << 7,	     /* a read index by a majority: read_index.c */
	RULE_FLOOR = 1 << 8,	     /* sessions are held: floor.c */
	RULE_LEASE = 1 << 9,	     /* who gives no word is waited for: floor.c */
	RULE_SPACE = 1 << 10,	     /* a full disk does not lead: consensus_watch.c */
	RULE_HASH = 1 << 11,	     /* whose state differs stops: agree.c */
	RULE_BULK = 1 << 12,	     /* bulk has a connection of its own: channel.c */
	RULE_BARRIER = 1 << 13,	  /* a leader serves behind an entry of its own: consensus_raft.c */
	RULE_PREFLIGHT = 1 << 14, /* what an installation left does not count: consensus_note.c */
};
