/* Taking the lead: a member asks the leader for it, who hands it over (consensus_hand.c).
 *
 * An ask names the term it was made in: one that arrives late must not undo what came after it.
 */
#include "db/db_priv.h"

enum { ASK_MS = 20 };

static void on_ask(struct loop_call *call)
{
	struct db *db = container_of(call, struct db, ask_lead);
	uint64_t leader = consensus_leader(db->consensus);
	struct buf b = { 0 };

	if (db->closing || leader == 0 || leader == db->cfg.raft_id)
		return;
	buf_u64(&b, consensus_term(db->consensus));
	channel_send(db->channel, leader, CHANNEL_LEAD, b.data, b.len);
	buf_fini(&b);
}

int db__lead_frame(struct db *db, uint64_t peer, const uint8_t *payload, size_t n)
{
	struct reader r = reader_of(payload, n);
	uint64_t term = rd_u64(&r);

	loop_assert(db->cfg.loop);
	if (r.bad || rd_left(&r) != 0)
		return ERR_CORRUPT;
	if (term != consensus_term(db->consensus))
		return 0;
	db__members_asked(db, peer); /* a stand-by gets a vote first */
	consensus_transfer(db->consensus, peer);
	return 0;
}

int db_take_lead(struct job *job, struct db *db)
{
	uint64_t due = env_now_ms(job->env) + DB_TIMEOUT_MS;
	int rc = 0;

	while (rc == 0 && !db_is_coordinator(db)) {
		if (env_now_ms(job->env) >= due)
			return ERR_TIMEOUT;
		loop_post(db->cfg.loop, &db->ask_lead, on_ask);
		rc = job_sleep(job, ASK_MS);
	}
	return rc;
}
