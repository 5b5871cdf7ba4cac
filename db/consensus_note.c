/* The note: a second small file that says what this member has acknowledged, so that a log which
 * has lost it is recognised at the next start. The library drops what does not parse at the end of
 * its log as a torn write, also when that was acknowledged and the disk has rotted since.
 *
 *  - term, index: in that term everything up to index was acknowledged. Nothing of it can be cut
 * off before a newer term, and a newer term is noted before anything is cut off
 *  - committed: never cut off
 *  - vote: whom it was given, in its term: the library's own file of term and vote has no checksum
 *  - installing: a snapshot at this index was being installed in place of the log, see preflight
 *  - fetching: the log was set aside, see below
 *  - condemned: the state made from it differed from the others' (agree.c)
 *
 * It is written at once at a new term, at a vote, and around an installation, else once a second
 * (consensus_watch.c). Two pairs of slots, one written on the loop, one by a worker, each pair in
 * turn: a write never hits the newest of its kind, and the highest sequence with a right seal
 * counts. `installing` goes into both slots of the loop, when it is set and when it is over: one of
 * them may rot, and the other says the same. Without it the leftovers of the installation, if of
 * the snapshot's term, look like entries behind the snapshot; with an old one, entries behind the
 * snapshot like leftovers.
 *
 * A log in doubt is set aside, never deleted, and the member fetches everything anew under its old
 * id. It has forgotten what it had acknowledged and whom it gave its vote, so while `fetching` it
 * neither stands nor votes; its term is the newest it had ever seen, with the vote in it given. It
 * is over when an entry of the leader's own term is committed here: by then it holds whatever it
 * may have helped to commit, for no leader can have been elected without a member that still knew
 * it. docs/decisions/0008.
 */
#include "db/consensus_priv.h"
#include "rpc/base/hash.h"

#include <stdio.h>
#include <string.h>

enum {
	NOTE_MAGIC = 0x32415058 /* "XPA2" */,
	NOTE_MAGIC_BEFORE = 0x31415058, /* without a vote */
	NOTE_FETCHING = 1,
	NOTE_CONDEMNED = 2,
	SLOTS = 2, /* of each writer */
	NOTE_SIZE_BEFORE = 48,
	NOTE_SIZE = 64
};

static void encode(const struct note *n, struct buf *out)
{
	buf_u32(out, NOTE_MAGIC);
	buf_u32(out, (n->fetching ? NOTE_FETCHING : 0) | (n->condemned ? NOTE_CONDEMNED : 0));
	buf_u64(out, n->sequence);
	buf_u64(out, n->term);
	buf_u64(out, n->index);
	buf_u64(out, n->committed);
	buf_u64(out, n->installing);
	buf_u64(out, n->vote_term);
	buf_u64(out, n->vote);
	CHECK(out->len == NOTE_SIZE);
	buf_u64(out, hash_bytes(out->data, out->len));
	CHECK(out->len <= CONSENSUS_NOTE_SLOT);
}

static bool decode(const uint8_t *p, size_t n, struct note *out)
{
	struct reader r = reader_of(p, n);
	uint32_t magic = rd_u32(&r), flags = rd_u32(&r);
	bool before = magic == NOTE_MAGIC_BEFORE;

	out->fetching = (flags & NOTE_FETCHING) != 0;
	out->condemned = (flags & NOTE_CONDEMNED) != 0;
	out->sequence = rd_u64(&r);
	out->term = rd_u64(&r);
	out->index = rd_u64(&r);
	out->committed = rd_u64(&r);
	out->installing = rd_u64(&r);
	out->vote_term = before ? 0 : rd_u64(&r);
	out->vote = before ? 0 : rd_u64(&r);
	return (magic == NOTE_MAGIC || before) && !r.bad &&
	       rd_u64(&r) == hash_bytes(p, before ? NOTE_SIZE_BEFORE : NOTE_SIZE) && !r.bad;
}

bool consensus__note_load(struct consensus_disk *d, struct note *out)
{
	uint64_t newest[NOTE_WRITERS] = { 0 };
	struct buf b = { 0 };
	struct note n = { 0 };

	*out = n;
	if (d->note_read(d, &b) != 0)
		b.len = 0;
	for (unsigned slot = 0; slot < SLOTS * NOTE_WRITERS && slot * CONSENSUS_NOTE_SLOT < b.len;
		slot++) {
		size_t at = slot * CONSENSUS_NOTE_SLOT;

		if (!decode(b.data + at, b.len - at, &n))
			continue;
		if (n.sequence > newest[slot / SLOTS]) {
			newest[slot / SLOTS] = n.sequence;
			out->writes[slot / SLOTS] = slot & 1; /* the next one goes into the other */
		}
		if (n.sequence > out->sequence) {
			memcpy(n.writes, out->writes, sizeof n.writes);
			*out = n;
		}
	}
	buf_fini(&b);
	return out->sequence != 0;
}

void consensus__note_next(struct note *n, enum note_writer writer)
{
	n->sequence++;
	n->writes[writer]++;
}

int consensus__note_write(struct consensus_disk *d, const struct note *n, enum note_writer writer)
{
	struct buf b = { 0 };
	int rc;

	encode(n, &b);
	rc = d->note_write(d, SLOTS * writer + (n->writes[writer] & 1), b.data, b.len);
	buf_fini(&b);
	return rc;
}

/* On the loop: at once. */
static void write_now(struct consensus *c)
{
	loop_assert(c->cfg.loop);
	consensus__note_next(&c->note, NOTE_LOOP);
	if (!c->broken && consensus__note_write(c->cfg.disk, &c->note, NOTE_LOOP) != 0)
		consensus__fail_stop(c, "what was acknowledged cannot be noted", RAFT_IOERR);
}

void consensus_condemn(struct consensus *c, const char *why)
{
	if (c->broken)
		return;
	c->note.condemned = true;
	write_now(c);
	c->broken = true;
	env_die(c->cfg.loop->env, why);
}

/* Bring it up to date; false: nothing has changed. */
bool consensus__note_look(struct consensus *c)
{
	const struct raft *r = &c->raft;
	uint64_t committed = r->commit_index < r->last_stored ? r->commit_index : r->last_stored;
	uint64_t index = committed;
	struct note before = c->note;

	if (r->state == RAFT_LEADER)
		index = r->last_stored;
	else if (c->guard.vouched_term == r->current_term && c->guard.vouched > index)
		index = c->guard.vouched < r->last_stored ? c->guard.vouched : r->last_stored;
	if (c->note.term != r->current_term || index > c->note.index)
		c->note.index = index;
	c->note.term = r->current_term;
	if (committed > c->note.committed)
		c->note.committed = committed;
	return c->note.term != before.term || c->note.index != before.index ||
	       c->note.committed != before.committed;
}

void consensus__note_term(struct consensus *c, uint64_t term)
{
	consensus__note_look(c);
	c->note.term = term;
	c->note.index = c->note.committed;
	write_now(c);
}

void consensus__note_vote(struct consensus *c, uint64_t vote)
{
	uint64_t term = c->raft.current_term;

	/* a candidate's term is on the disk, and noted, before the library takes it for its own */
	c->note.vote_term = c->note.term > term ? c->note.term : term;
	c->note.vote = vote;
	write_now(c);
}

void consensus__note_installing(struct consensus *c, uint64_t index)
{
	c->note.installing = index;
	for (int i = 0; i < SLOTS; i++)
		write_now(c);
}

/* A message of the leader's was accepted that begins behind prev: have we fetched everything? */
void consensus__note_fetched(struct consensus *c, uint64_t prev, uint64_t prev_term)
{
	if (!c->note.fetching || prev == 0 || prev_term != c->raft.current_term ||
		c->raft.commit_index < prev)
		return;
	c->note.fetching = false;
	consensus__note_look(c);
	write_now(c);
	log_info(c->cfg.loop->env, "event=log_fetched index=%llu", c->raft.commit_index);
}

/* At the start. */

/* The installation is over: on disk before anything new is in the log. */
static int note_installed(struct consensus_disk *d, struct note *n)
{
	int rc = 0;

	n->installing = 0;
	for (int i = 0; i < SLOTS && rc == 0; i++) {
		consensus__note_next(n, NOTE_LOOP);
		rc = consensus__note_write(d, n, NOTE_LOOP);
	}
	return rc;
}

/* What is wrong with this copy of the log; NULL: nothing. */
static const char *doubt(const struct consensus_config *cfg, const struct note *n, bool noted,
	const struct consensus_found *f, char out[512])
{
	if (f->why[0] != 0)
		return f->why;
	if (cfg->rules_off & RULE_NOTE)
		return NULL;
	if (!noted)
		return "the file that notes what this member has acknowledged is missing or "
		       "damaged";
	if (n->condemned)
		return "the state that this member made of it was not that of the others";
	if (f->term != 0 && f->term == n->vote_term && f->vote != n->vote) {
		snprintf(out, 512,
			"it says that in term %llu the vote was given to %llu: it was %llu",
			(unsigned long long)f->term, (unsigned long long)f->vote,
			(unsigned long long)n->vote);
		return out;
	}
	if (f->term >= n->term && f->last_index >= n->index && f->last_index >= n->committed)
		return NULL;
	snprintf(out, 512,
		"it ends at entry %llu of term %llu, but this member has acknowledged entry %llu "
		"in "
		"term %llu",
		(unsigned long long)f->last_index, (unsigned long long)f->term,
		(unsigned long long)(n->index > n->committed ? n->index : n->committed),
		(unsigned long long)n->term);
	return out;
}

static bool majority_without_us(const struct consensus_config *cfg)
{
	unsigned voters = 0, others = 0;

	for (unsigned i = 0; i < cfg->n_members; i++) {
		voters += !cfg->members[i].standby;
		others += !cfg->members[i].standby && cfg->members[i].raft_id != cfg->raft_id;
	}
	return others > voters / 2;
}

static int set_aside(struct consensus_disk *d, struct note *n, uint64_t term, uint64_t raft_id)
{
	n->term = term;
	n->index = n->committed = n->installing = n->vote_term = n->vote = 0;
	n->fetching = true;
	n->condemned = false; /* the state made of it differed: agree.c */
	consensus__note_next(n, NOTE_LOOP);
	if (consensus__note_write(d, n, NOTE_LOOP) != 0)
		return ERR_IO;
	return d->set_aside(d, term, raft_id);
}

/* Why it may not be set aside; NULL: it may. */
static const char *hindrance(
	const struct consensus_config *cfg, const struct consensus_found *f, uint64_t term)
{
	if (f->unreadable)
		return "see to the disk and to the rights on its files";
	if (cfg->n_members == 1)
		return "there is no other copy: bring its files back from where they are sound";
	if (!majority_without_us(cfg))
		return "the others are no majority without this copy: bring its files back from "
		       "where they are sound, or give up what only it holds with xpoolctl recover "
		       "on "
		       "another member";
	if (term == 0)
		return "the newest term is not known either, so this member may not come back "
		       "under "
		       "its id: bring its files back from where they are sound";
	return NULL;
}

int consensus_recovery_look(struct consensus_disk *d, struct consensus_recovery *out)
{
	struct consensus_config cfg = { .disk = d };
	struct consensus_found f = { 0 };
	struct note n;
	bool noted = consensus__note_load(d, &n);
	const char *why;
	char text[512];

	*out = (struct consensus_recovery){ .fetching = n.fetching };
	d->look(d, n.installing, &f);
	why = doubt(&cfg, &n, noted, &f, text);
	if (why != NULL)
		snprintf(out->why, sizeof out->why, "%s", why);
	out->term = f.term > n.term ? f.term : n.term;
	out->last_index = f.last_index;
	out->new_term = out->term + CONSENSUS_TERM_JUMP;
	return why == NULL ? 0 : ERR_CORRUPT;
}

int consensus_abandon(struct consensus_disk *d, uint64_t raft_id)
{
	struct consensus_found f = { 0 };
	struct note n;

	consensus__note_load(d, &n);
	d->look(d, n.installing, &f);
	return set_aside(d, &n, f.term > n.term ? f.term : n.term, raft_id);
}

int consensus_enlist(struct consensus_disk *d, uint64_t raft_id)
{
	struct note n;

	consensus__note_load(d, &n); /* of another log: this one is newer */
	return set_aside(d, &n, 1, raft_id);
}

int consensus__note_start(const struct consensus_config *cfg, struct note *n)
{
	struct consensus_disk *d = cfg->disk;
	struct env *env = cfg->loop->env;
	bool noted = consensus__note_load(d, n);
	struct consensus_found f = { 0 };
	const char *why, *remedy;
	char text[512];
	uint64_t term;

	d->look(d, cfg->rules_off & RULE_PREFLIGHT ? 0 : n->installing, &f);
	if (!noted && f.empty) {
		log_err(env, "event=no_configuration why=\"the directory was never initialised: "
			     "run xpoolctl init\"");
		return ERR_IO;
	}
	why = doubt(cfg, n, noted, &f, text);
	if (why == NULL && n->installing == 0)
		return 0;
	if (why == NULL)
		return note_installed(d, n);
	term = f.term > n->term ? f.term : n->term;
	remedy = hindrance(cfg, &f, term);
	if (remedy != NULL) {
		log_err(env, "event=log_in_doubt why=\"%s\" remedy=\"%s\"", why, remedy);
		return ERR_IO;
	}
	log_err(env,
		"event=log_set_aside why=\"%s\" remedy=\"none needed: this member fetches "
		"everything from the others; the old files are kept beside\"",
		why);
	return set_aside(d, n, term, cfg->raft_id);
}
