/* The configuration of Raft, and changes of it.
 *
 * The library takes the newest configuration in its log, as it should, but does not go back soundly
 * when that is cut off:
 *   - it looks for the one before in its log, from which a snapshot may have taken it: it crashes;
 *   - after a restart it holds the newest one for committed, and does not go back at all;
 *   - installing a snapshot it does not forget what it had in mind to go back from;
 *   - a snapshot that it takes has the newest one, committed or not.
 * So going back is ours. We keep the configurations of the log from the last committed one on, as
 * they are loaded, appended, cut off and replaced; its own field for that is 0 at all times; when
 * the log is truncated we put the one before in force; no snapshot is taken while the newest is not
 * committed.
 *
 * Changes, on a leader that has applied its own barrier (Ongaro 2015: else two leaders may each
 * change by one from where they are and share no majority), one at a time, one member each:
 *
 *   none --ADD--> spare --STAND_BY--> stand-by --PROMOTE--> voter --STAND_BY--> stand-by
 * --REMOVE-->
 *
 * The library's rounds of catching up are not used: a promotion waits, for at most an election
 * time-out, until the member has the whole log on its disk, and nothing new enters meanwhile.
 * A leader never demotes or removes itself: it would commit under a configuration it is not in, and
 * an only voter elects itself without a new term (canonical/raft issue 227).
 */
#include "db/consensus_priv.h"

#include <stdlib.h>
#include <string.h>

enum { FORMAT = 1 };

/* As the library writes it: format, number; of each its id, address with a zero, role. out NULL:
 * only look. */
bool consensus__conf_decode(const void *p, size_t n, struct raft_configuration *out)
{
	const uint8_t *at = p, *end = at + n;
	uint64_t count = 0, id;

	if (n < 9 || at[0] != FORMAT)
		return false;
	for (int k = 7; k >= 0; k--)
		count = count << 8 | at[1 + k];
	at += 9;
	if (count == 0 || count > CHANNEL_PEERS_MAX)
		return false;
	for (uint64_t i = 0; i < count; i++) {
		const uint8_t *address, *zero;

		if (end - at < 8)
			return false;
		id = 0;
		for (int k = 7; k >= 0; k--)
			id = id << 8 | at[k];
		address = at + 8;
		zero = memchr(address, 0, (size_t)(end - address));
		if (id == 0 || zero == NULL || end - zero < 2 || zero[1] > RAFT_SPARE ||
			(out != NULL && raft_configuration_add(
						out, id, (const char *)address, zero[1]) != 0))
			return false;
		at = zero + 2;
	}
	return true;
}

static void conf_dup(struct raft_configuration *to, const struct raft_configuration *from)
{
	raft_configuration_init(to);
	for (unsigned i = 0; i < from->n; i++)
		CHECK(raft_configuration_add(to, from->servers[i].id, from->servers[i].address,
			      from->servers[i].role) == 0);
}

static const struct conf_at *newest(const struct consensus *c)
{
	return c->confs.n > 0 ? &c->confs.items[c->confs.n - 1] : NULL;
}

static struct conf_at *put(struct consensus *c, raft_index index)
{
	struct confs *s = &c->confs;

	CHECK(s->n == 0 || index > s->items[s->n - 1].index);
	s->items = mem_resize(s->items, (s->n + 1) * sizeof *s->items);
	s->items[s->n].index = index;
	raft_configuration_init(&s->items[s->n].conf);
	return &s->items[s->n++];
}

static void drop(struct confs *s, unsigned from, unsigned to)
{
	if (from == to)
		return;
	for (unsigned i = from; i < to; i++)
		raft_configuration_close(&s->items[i].conf);
	memmove(s->items + from, s->items + to, (s->n - to) * sizeof *s->items);
	s->n -= to - from;
}

static void put_entry(struct consensus *c, raft_index index, const struct raft_entry *e)
{
	const struct conf_at *last = newest(c);

	if (e->type != RAFT_CHANGE || (last != NULL && index <= last->index))
		return;
	if (!consensus__conf_decode(e->buf.base, e->buf.len, &put(c, index)->conf))
		consensus__fail_stop(
			c, "a configuration in the log cannot be read", RAFT_MALFORMED);
}

void consensus__confs_load(struct consensus *c, const struct raft_snapshot *snapshot,
	raft_index start, const struct raft_entry *entries, size_t n)
{
	if (snapshot != NULL)
		conf_dup(&put(c, snapshot->configuration_index)->conf, &snapshot->configuration);
	for (size_t i = 0; i < n; i++)
		put_entry(c, start + i, &entries[i]);
}

/* They are at the end of the library's log already. */
void consensus__confs_append(struct consensus *c, const struct raft_entry *entries, unsigned n)
{
	raft_index last = raft_last_index(&c->raft);

	for (unsigned i = 0; i < n; i++)
		put_entry(c, last - n + 1 + i, &entries[i]);
}

void consensus__confs_truncate(struct consensus *c, raft_index index)
{
	struct confs *s = &c->confs;
	unsigned keep = s->n;

	while (keep > 0 && s->items[keep - 1].index >= index)
		keep--;
	if (keep == s->n)
		return;
	drop(s, keep, s->n);
	COUNT(c->cfg.loop->env, raft_changes_back);
	log_info(c->cfg.loop->env, "event=configuration_back index=%llu",
		keep > 0 ? s->items[keep - 1].index : 0);
	raft_configuration_close(&c->raft.configuration);
	raft_configuration_init(&c->raft.configuration);
	if (keep > 0) /* 0: of a log that was set aside */
		conf_dup(&c->raft.configuration, &s->items[keep - 1].conf);
	c->raft.configuration_index = keep > 0 ? s->items[keep - 1].index : 0;
}

void consensus__confs_keep(struct conf_at *to, const struct raft_snapshot *snapshot)
{
	to->index = snapshot->configuration_index;
	conf_dup(&to->conf, &snapshot->configuration);
}

void consensus__confs_replace(struct consensus *c, struct conf_at *with)
{
	drop(&c->confs, 0, c->confs.n);
	put(c, with->index)->conf = with->conf;
	raft_configuration_init(&with->conf);
}

void consensus__confs_fini(struct consensus *c)
{
	drop(&c->confs, 0, c->confs.n);
	free(c->confs.items);
	c->confs.items = NULL;
}

bool consensus__conf_settled(const struct consensus *c)
{
	const struct conf_at *last = newest(c);

	return last == NULL || last->index <= c->raft.commit_index;
}

/* Changes. */

bool consensus__promoting(const struct consensus *c)
{
	return c->change.promote != 0;
}

static const struct raft_server *server_of(const struct consensus *c, raft_id id)
{
	for (unsigned i = 0; i < c->raft.configuration.n; i++)
		if (c->raft.configuration.servers[i].id == id)
			return &c->raft.configuration.servers[i];
	return NULL;
}

static enum consensus_part part_of(const struct raft_server *s)
{
	return s->role == RAFT_VOTER	 ? CONSENSUS_VOTER
	       : s->role == RAFT_STANDBY ? CONSENSUS_STANDBY
					 : CONSENSUS_SPARE;
}

unsigned consensus_servers(
	const struct consensus *c, struct consensus_server *out, bool *settled_out)
{
	const struct raft_configuration *conf = &c->raft.configuration;
	raft_index last = consensus_last(c);
	unsigned n = conf->n < CHANNEL_PEERS_MAX ? conf->n : CHANNEL_PEERS_MAX;

	for (unsigned i = 0; i < n; i++) {
		const struct raft_progress *p =
			consensus__progress((struct consensus *)c, conf->servers[i].id);

		out[i] = (struct consensus_server){ conf->servers[i].id, part_of(&conf->servers[i]),
			p == NULL || conf->servers[i].id == c->cfg.raft_id
				? 0
				: last - p->match_index };
	}
	*settled_out = consensus__conf_settled(c) && c->raft.leader_state.change == NULL;
	return n;
}

static void on_changed(struct raft_change *req, int status)
{
	(void)req;
	(void)status; /* what is in force shows in the log */
}

static bool done(struct consensus *c, const char *what, raft_id id, int rv)
{
	c->raft.configuration_uncommitted_index = 0;
	if (rv != 0)
		log_warn(c->cfg.loop->env, "event=change_refused change=%s member=%llu why=\"%s\"",
			what, id, consensus__strerror(rv));
	if (rv == 0)
		COUNT(c->cfg.loop->env, raft_changes);
	if (rv == 0)
		log_info(c->cfg.loop->env, "event=change change=%s member=%llu index=%llu", what,
			id, raft_last_index(&c->raft));
	return rv == 0;
}

static bool may_change(const struct consensus *c)
{
	return c->role == CONSENSUS_LEADER_READY && !c->closing && !c->broken &&
	       consensus__conf_settled(c) && c->raft.leader_state.change == NULL &&
	       c->raft.leader_state.promotee_id == 0 && !consensus__handing(c);
}

bool consensus_change(
	struct consensus *c, enum consensus_step step, uint64_t raft_id, const char *address)
{
	const struct raft_server *s = server_of(c, raft_id);

	loop_assert(c->cfg.loop);
	if (!may_change(c) || consensus__promoting(c) || raft_id == c->cfg.raft_id)
		return false;
	switch (step) {
	case CONSENSUS_ADD:
		return s == NULL && consensus__peer(c, raft_id) != NULL &&
		       c->raft.configuration.n < CHANNEL_PEERS_MAX &&
		       done(c, "add", raft_id,
			       raft_add(&c->raft, &c->change.req, raft_id, address, on_changed));
	case CONSENSUS_STAND_BY:
		return s != NULL && s->role != RAFT_STANDBY &&
		       done(c, "stand-by", raft_id,
			       raft_assign(&c->raft, &c->change.req, raft_id, RAFT_STANDBY,
				       on_changed));
	case CONSENSUS_REMOVE:
		return s != NULL && s->role != RAFT_VOTER &&
		       done(c, "remove", raft_id,
			       raft_remove(&c->raft, &c->change.req, raft_id, on_changed));
	case CONSENSUS_PROMOTE:
		if (s == NULL || s->role != RAFT_STANDBY)
			return false;
		c->change.promote = raft_id;
		c->change.until_ms = env_now_ms(c->cfg.loop->env) + c->cfg.election_ms;
		return true; /* the end of this turn looks */
	}
	return false;
}

static void promote_look(struct consensus *c)
{
	raft_id id = c->change.promote;
	const struct net_peer *p = consensus__peer(c, id);
	const struct raft_progress *progress = consensus__progress(c, id);

	if (id == 0)
		return;
	if (!may_change(c) || p == NULL || !p->up || progress == NULL ||
		env_now_ms(c->cfg.loop->env) >= c->change.until_ms) {
		c->change.promote = 0;
		return;
	}
	if (progress->match_index < raft_last_index(&c->raft))
		return;
	c->change.promote = 0;
	done(c, "voter", id, raft_assign(&c->raft, &c->change.req, id, RAFT_VOTER, on_changed));
}

void consensus__change_turn(struct consensus *c)
{
	struct confs *s = &c->confs;
	unsigned committed = 0;

	loop_assert(c->cfg.loop);
	promote_look(c);
	while (committed < s->n && s->items[committed].index <= c->raft.commit_index)
		committed++;
	if (committed > 1)
		drop(s, 0, committed - 1);
	if (committed == 0 || s->items[0].index == s->told)
		return;
	s->told = s->items[0].index;
	if (c->cfg.configured != NULL)
		c->cfg.configured(c->cfg.arg);
}
