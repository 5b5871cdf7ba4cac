/* Do the members' states agree? Every so many entries each tells the others the hash of its state,
 * and a member that differs from a majority stops, says so and fetches everything anew: its memory
 * or disk has failed it, or an entry was applied differently. Without a majority it is only said.
 *
 * A word that comes before this member has come so far is kept; one that comes much later is not
 * compared.
 */
#include "db/db_priv.h"

#include <stdio.h>

/* Does another hash have a majority at this index? */
static void compare(struct db *db, const struct agreed *a)
{
	unsigned most = 0, differ = 0, members = 0;
	char why[160];

	for (unsigned i = 0; i < db->n_members && a->known[AGREE_SELF]; i++) {
		unsigned same = 0;

		members += db->ids[i] != 0;
		if (!a->known[i + 1] || a->hash[i + 1] == a->hash[AGREE_SELF])
			continue;
		differ++;
		for (unsigned k = 0; k < db->n_members; k++)
			same += a->known[k + 1] && a->hash[k + 1] == a->hash[i + 1];
		most = same > most ? same : most;
	}
	if (differ == 0)
		return;
	snprintf(why, sizeof why,
		"at index %llu the state of this member has another hash than that of %u others",
		(unsigned long long)a->index, differ);
	COUNT(db->cfg.loop->env, hashes_differ);
	if (most > members / 2 && !(db->cfg.rules_off & RULE_HASH))
		consensus_condemn(db->consensus, why);
	else
		log_err(db->cfg.loop->env, "event=states_differ why=\"%s\"", why);
}

static struct agreed *put(struct db *db, uint64_t index, unsigned who, uint64_t hash)
{
	struct agreed *a = &db->agree[index / db->cfg.hash_every % AGREE_SLOTS];

	if (index < a->index)
		return NULL;
	if (index > a->index)
		*a = (struct agreed){ .index = index };
	a->known[who] = true;
	a->hash[who] = hash;
	return a;
}

void db__agree_applied(struct db *db, uint64_t index, uint64_t hash)
{
	struct agreed *a;
	struct buf b = { 0 };

	loop_assert(db->cfg.loop);
	if (index % db->cfg.hash_every != 0 || (a = put(db, index, AGREE_SELF, hash)) == NULL)
		return;
	buf_u64(&b, index);
	buf_u64(&b, hash);
	for (unsigned i = 0; i < db->n_members && db->channel != NULL; i++)
		channel_send(
			db->channel, db->members[i].raft_id, CHANNEL_AGREE_FIRST, b.data, b.len);
	buf_fini(&b);
	compare(db, a);
}

int db__agree_frame(struct db *db, uint64_t peer, const uint8_t *payload, size_t n)
{
	struct reader r = reader_of(payload, n);
	uint64_t index = rd_u64(&r), hash = rd_u64(&r);
	struct agreed *a;

	loop_assert(db->cfg.loop);
	if (r.bad || rd_left(&r) != 0 || index % db->cfg.hash_every != 0)
		return ERR_CORRUPT;
	for (unsigned i = 0; i < db->n_members; i++)
		if (db->members[i].raft_id == peer && (a = put(db, index, i + 1, hash)) != NULL)
			compare(db, a);
	return 0;
}
