/* libraft behind db/consensus.h: start, submission, roles. */
#include "db/consensus_priv.h"
#include "rpc/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct submission {
	struct raft_apply req;
	struct consensus *c;
	size_t n;
};

struct consensus *consensus__of(struct raft_io *io)
{
	return container_of(io->data, struct consensus, raft);
}

const char *consensus__strerror(int code)
{
	switch (code) { /* the library has no text for these */
	case RAFT_NOTFOUND: return "not found";
	case RAFT_INVALID: return "invalid";
	case RAFT_UNAUTHORIZED: return "not permitted";
	case RAFT_NOSPACE: return "no space left on the disk";
	case RAFT_TOOMANY: return "too many";
	default: return raft_strerror(code);
	}
}

void consensus__fail_stop(struct consensus *c, const char *what, int status)
{
	char why[512];

	if (c->broken)
		return;
	c->broken = true;
	snprintf(why, sizeof why, "%s: %s", what,
		status != 0 ? consensus__strerror(status) : c->raft.errmsg);
	env_die(c->cfg.loop->env, why);
}

/* Before an entry of its own term is applied a leader does not know what was committed. */
static bool has_barrier(const struct consensus *c)
{
	return (c->guard.ready && c->guard.term == c->raft.current_term &&
		       consensus_applied(c) >= c->guard.own) ||
	       (c->cfg.rules_off & RULE_BARRIER);
}

/* Tell a change of role, term or leader. */
void consensus__role_look(struct consensus *c)
{
	enum consensus_role role = CONSENSUS_FOLLOWER;
	const char *address;
	raft_id leader;

	loop_assert(c->cfg.loop);
	raft_leader(&c->raft, &leader, &address);
	if (c->raft.state == RAFT_CANDIDATE)
		role = CONSENSUS_CANDIDATE;
	else if (c->raft.state == RAFT_LEADER)
		role = has_barrier(c) && !consensus__cramped(c) ? CONSENSUS_LEADER_READY
								: CONSENSUS_LEADER;
	if (role == c->role && leader == c->leader && c->raft.current_term == c->role_term)
		return;
	if (role == CONSENSUS_LEADER_READY && c->role != role)
		COUNT(c->cfg.loop->env, elections_won);
	c->role = role;
	c->leader = leader;
	c->role_term = c->raft.current_term;
	c->cfg.role(c->cfg.arg, role, c->role_term, leader);
}

static int configuration(
	struct raft_configuration *conf, const struct consensus_voter *voters, unsigned n)
{
	int rv = 0;

	raft_configuration_init(conf);
	for (unsigned i = 0; i < n && rv == 0; i++)
		rv = raft_configuration_add(conf, voters[i].raft_id, voters[i].address,
			voters[i].standby ? RAFT_STANDBY : RAFT_VOTER);
	return rv;
}

int consensus_bootstrap(struct consensus_disk *disk, uint64_t raft_id, const char *address,
	const struct consensus_voter *voters, unsigned n)
{
	struct note first = { .sequence = 1, .term = 1, .index = 1, .committed = 1 };
	struct raft_configuration conf;
	int rv = configuration(&conf, voters, n);

	if (rv == 0)
		rv = disk->attach(disk);
	if (rv == 0)
		rv = disk->io->init(disk->io, raft_id, address);
	if (rv == 0)
		rv = disk->io->bootstrap(disk->io, &conf);
	if (rv == 0)
		rv = consensus__note_write(disk, &first, NOTE_LOOP);
	raft_configuration_close(&conf);
	return rv == 0 ? 0 : ERR_IO;
}

/* The library reads the log, which closes its open segments, and the term goes first: a crash in
 * between leaves a sound log. Its own recovery would write an entry of term 1. */
static int append_configuration(struct consensus_disk *d, const char *dir,
	const struct raft_configuration *conf, const struct consensus_recovery *r)
{
	struct raft_snapshot *snapshot;
	struct raft_entry *entries;
	struct raft_buffer entry;
	struct buf b = { 0 };
	raft_index start;
	raft_term term;
	raft_id vote;
	size_t n;
	char path[512];
	int rv = d->io->load(d->io, &term, &vote, &snapshot, &start, &entries, &n);

	if (rv == 0)
		rv = start + n == r->last_index + 1 ? 0 : RAFT_CORRUPT;
	if (rv == 0)
		rv = d->io->set_term(d->io, r->new_term);
	if (rv == 0)
		rv = raft_configuration_encode(conf, &entry);
	if (rv != 0)
		return rv;
	consensus__segment(r->new_term, RAFT_CHANGE, &entry, &b);
	snprintf(path, sizeof path, "%s/raft/%016llu-%016llu", dir,
		(unsigned long long)r->last_index + 1, (unsigned long long)r->last_index + 1);
	rv = file_replace(path, b.data, b.len) == 0 ? 0 : RAFT_IOERR;
	buf_fini(&b);
	return rv;
}

int consensus_recover(struct consensus_disk *d, const char *dir, uint64_t raft_id,
	const char *address, const struct consensus_voter *voters, unsigned n,
	const struct consensus_recovery *r)
{
	struct raft_configuration conf;
	struct note note;
	int rv = configuration(&conf, voters, n);

	CHECK(r->why[0] == 0);
	consensus__note_load(d, &note);
	if (rv == 0)
		rv = d->attach(d);
	if (rv == 0)
		rv = d->io->init(d->io, raft_id, address);
	if (rv == 0)
		rv = append_configuration(d, dir, &conf, r);
	raft_configuration_close(&conf);
	if (rv != 0) {
		fprintf(stderr, "%s: %s\n", dir, consensus__strerror(rv));
		return ERR_IO;
	}
	note.term = r->new_term;
	note.index = note.committed = r->last_index + 1;
	note.installing = 0;
	note.fetching = false;
	consensus__note_next(&note, NOTE_LOOP);
	return consensus__note_write(d, &note, NOTE_LOOP);
}

static void make_peers(struct consensus *c)
{
	for (unsigned i = 0; i < c->cfg.n_members; i++)
		if (c->cfg.members[i].raft_id != c->cfg.raft_id)
			consensus_peer_add(c, c->cfg.members[i].raft_id);
	c->cfg.members = NULL; /* the caller's */
}

static void on_unopened(struct raft *raft)
{
	struct consensus *c = container_of(raft, struct consensus, raft);

	consensus__confs_fini(c);
	free(c);
}

int consensus_open(struct consensus **out, const struct consensus_config *config)
{
	struct consensus *c = mem_new(sizeof *c);
	struct env *env = config->loop->env;
	int rv;

	c->cfg = *config;
	if (c->cfg.snapshot_entries == 0)
		c->cfg.snapshot_entries = CONSENSUS_SNAPSHOT_ENTRIES;
	if (c->cfg.snapshot_trailing == 0)
		c->cfg.snapshot_trailing = CONSENSUS_SNAPSHOT_TRAILING;
	if (c->cfg.snapshot_large == 0)
		c->cfg.snapshot_large = CONSENSUS_SNAPSHOT_LARGE;
	if (consensus__watch_open(c) != 0 || consensus__note_start(config, &c->note) != 0 ||
		config->disk->attach(config->disk) != 0) {
		free(c);
		return ERR_IO;
	}
	c->io = config->disk->io;
	consensus__state_install(c);
	consensus__guard_install(c);
	consensus__net_install(c);
	rv = raft_init(&c->raft, c->io, &c->fsm, config->raft_id, config->address);
	if (rv != 0) {
		log_err(env, "event=raft_init_failed why=\"%s\"", c->raft.errmsg);
		free(c);
		return ERR_IO;
	}
	raft_set_election_timeout(&c->raft, config->election_ms);
	raft_set_heartbeat_timeout(&c->raft, config->heartbeat_ms);
	raft_set_pre_vote(&c->raft, true);
	c->opening = true;
	rv = raft_start(&c->raft);
	c->opening = false;
	if (rv != 0)
		log_err(env, "event=raft_start_failed why=\"%s\"", c->raft.errmsg);
	if (rv != 0) {
		c->closing = true;
		raft_close(&c->raft, on_unopened);
		return ERR_IO;
	}
	consensus__state_started(c);
	make_peers(c);
	consensus__watch_start(c);
	consensus__net_start(c);
	*out = c;
	return 0;
}

void consensus_connect(struct consensus *c, struct channel *channel)
{
	c->channel = channel;
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
	struct submission *s = container_of(req, struct submission, req);

	(void)result;
	(void)status; /* an error does not mean "not committed": only apply says what is */
	s->c->in_flight--;
	s->c->in_flight_bytes -= s->n;
	free(s);
}

int consensus_submit(struct consensus *c, const uint8_t *entry, size_t n)
{
	struct submission *s;
	struct raft_buffer buf = { .len = n };

	loop_assert(c->cfg.loop);
	CHECK(n % 8 == 0);
	if (c->role != CONSENSUS_LEADER_READY || c->closing || c->broken)
		return ERR_CLOSED;
	if (c->in_flight >= CONSENSUS_IN_FLIGHT_MAX ||
		c->in_flight_bytes + n > CONSENSUS_IN_FLIGHT_BYTES || consensus__handing(c) ||
		consensus__promoting(c))
		return ERR_FULL;
	buf.base = must(raft_malloc(n));
	memcpy(buf.base, entry, n);
	s = mem_new(sizeof *s);
	s->c = c;
	s->n = n;
	c->in_flight++;
	c->in_flight_bytes += n;
	if (raft_apply(&c->raft, &s->req, &buf, 1, on_applied) == 0)
		return 0;
	raft_free(buf.base);
	c->in_flight--;
	c->in_flight_bytes -= n;
	free(s);
	return ERR_CLOSED;
}

enum consensus_role consensus_role(const struct consensus *c)
{
	return c->role;
}

uint64_t consensus_leader(const struct consensus *c)
{
	return c->leader;
}

uint64_t consensus_term(const struct consensus *c)
{
	return c->raft.current_term;
}

uint64_t consensus_committed(const struct consensus *c)
{
	return c->raft.commit_index;
}

bool consensus_is_voter(const struct consensus *c, uint64_t raft_id)
{
	for (unsigned i = 0; i < c->raft.configuration.n; i++)
		if (c->raft.configuration.servers[i].id == raft_id)
			return c->raft.configuration.servers[i].role == RAFT_VOTER;
	return false;
}

uint64_t consensus_last(const struct consensus *c)
{
	return raft_last_index((struct raft *)&c->raft);
}

const char *consensus_role_name(enum consensus_role role)
{
	static const char *const names[] = { "follower", "candidate", "leader", "leader-ready" };

	return names[role];
}

static void on_raft_closed(struct raft *raft)
{
	struct consensus *c = container_of(raft, struct consensus, raft);
	void (*closed)(void *arg) = c->closed;
	void *arg = c->closed_arg;

	consensus__confs_fini(c);
	free(c);
	closed(arg);
}

void consensus_close(struct consensus *c, void (*closed)(void *arg), void *arg)
{
	c->closing = true;
	loop_timer_stop(&c->early.timer);
	loop_timer_stop(&c->watch.timer);
	loop_timer_stop(&c->more);
	c->closed = closed;
	c->closed_arg = arg;
	raft_close(&c->raft, on_raft_closed);
}
