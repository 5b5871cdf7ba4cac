/* xpoolctl recover, adopt: going on when a majority of the voters is lost for good. Both work on a
 * stopped member's directory, change nothing without --yes, and begin or follow a new epoch:
 * members of different epochs refuse each other, so what was given up never comes back by accident.
 *
 *  - recover: this copy is the pool. One more epoch, this member its only voter; the others stand
 * by until they have adopted the epoch and fetched everything
 *  - adopt: on a member that was left out. Its log is set aside, never deleted, and fetched anew
 */
#include "pool/ctl_priv.h"
#include "pool/members.h"
#include "rpc/base/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct place {
	struct env env;
	struct members members;
	struct consensus_disk *disk;
	struct db_member *self;
	char members_path[512];
};

/* As the directory's owner, or xpoold could not use what is written here. */
static int become_owner(const char *dir)
{
	struct stat st;

	if (stat(dir, &st) != 0)
		return ctl_fail(dir, strerror(errno));
	if (geteuid() == 0 && (setegid(st.st_gid) != 0 || seteuid(st.st_uid) != 0))
		return ctl_fail(dir, "cannot act as its owner");
	return 0;
}

/* The directory of a stopped member, locked. */
static int place_open(struct place *p, const char *what, const struct options *o)
{
	char path[512], why[256];

	if (o->dir == NULL)
		return ctl_fail(what, "needs --dir");
	if (become_owner(o->dir) != 0)
		return 1;
	snprintf(p->members_path, sizeof p->members_path, "%s/members.json", o->dir);
	if (!members_read(p->members_path, &p->members, why, sizeof why))
		return ctl_fail(p->members_path, why);
	for (unsigned i = 0; i < p->members.n; i++)
		if (p->members.m[i].raft_id == p->members.self)
			p->self = &p->members.m[i];
	if (p->self == NULL)
		return ctl_fail(p->members_path, "it does not say which member this is");
	snprintf(path, sizeof path, "%s/lock", o->dir);
	if (file_lock(path) != 0)
		return ctl_fail(o->dir, errno == EWOULDBLOCK ? "xpoold runs on it: stop it first"
							     : strerror(errno));
	env_uv_init(&p->env, "xpoolctl");
	p->disk = consensus_disk_open(loop_new(&p->env, what), o->dir);
	return 0;
}

static void describe(const struct place *p, const struct consensus_recovery *r)
{
	const struct members *m = &p->members;

	printf("pool     %s\n"
	       "member   %llu (%s)\n"
	       "copy     ends at entry %llu, newest term %llu\n"
	       "epoch    %u, becomes %u\n"
	       "\n"
	       "From then on only member %llu votes. Left out until they adopt the new epoch:",
		m->pool_uuid, (unsigned long long)m->self, p->self->name,
		(unsigned long long)r->last_index, (unsigned long long)r->term, m->n_epochs,
		m->n_epochs + 1, (unsigned long long)m->self);
	for (unsigned i = 0; i < m->n; i++)
		if (&m->m[i] != p->self)
			printf(" %llu (%s)", (unsigned long long)m->m[i].raft_id, m->m[i].name);
	printf("\n\n"
	       "What is given up: every change that was acknowledged and is not in this copy. "
	       "Nobody can tell "
	       "from here whether there is any. Run this on every copy that is left, without "
	       "--yes, and use the "
	       "one with the highest term, among those the one with the most entries.\n"
	       "The members left out must not serve meanwhile: if they are a majority they still "
	       "take writes, and "
	       "these will be lost. Domains on hosts that cannot be reached may still run: see "
	       "that they are off "
	       "before starting them elsewhere.\n");
}

static int make_epoch(struct place *p, const struct consensus_recovery *r, const char *dir)
{
	struct consensus_voter voters[CHANNEL_PEERS_MAX];
	struct members *m = &p->members;

	for (unsigned i = 0; i < m->n; i++) {
		m->m[i].standby = &m->m[i] != p->self;
		voters[i] = (struct consensus_voter){ m->m[i].raft_id, m->m[i].host_uuid,
			m->m[i].standby };
	}
	env_uuid(&p->env, m->epochs[m->n_epochs++]);
	/* the members last: until then it can be run again */
	if (consensus_recover(p->disk, dir, m->self, p->self->host_uuid, voters, m->n, r) != 0)
		return ctl_fail(dir, "not done; run it again");
	if (members_write(p->members_path, m) != 0)
		return ctl_fail(p->members_path, strerror(errno));
	printf("\nDone: epoch %u, %s. Start xpoold here. On each member left out: stop it, copy %s "
	       "there, and run "
	       "xpoolctl adopt --dir DIR --members FILE --yes.\n",
		m->n_epochs, m->epochs[m->n_epochs - 1], p->members_path);
	return 0;
}

int ctl_recover(const struct options *o)
{
	static struct place p;
	struct consensus_recovery r;

	if (place_open(&p, "recover", o) != 0)
		return 1;
	if (p.members.n_epochs >= EPOCHS_MAX)
		return ctl_fail(p.members_path, "it has had too many epochs");
	if (consensus_recovery_look(p.disk, &r) != 0)
		return ctl_fail("this copy cannot be used", r.why);
	if (r.fetching)
		return ctl_fail("this copy cannot be used",
			"it was set aside and is not whole again; use another member's");
	describe(&p, &r);
	if (!o->yes) {
		printf("\nNothing has been changed. To do it, say --yes.\n");
		return 0;
	}
	return make_epoch(&p, &r, o->dir);
}

int ctl_adopt(const struct options *o)
{
	static struct place p;
	static struct members theirs;
	const char *fault = NULL;
	char why[256];

	if (o->members == NULL)
		return ctl_fail(
			"adopt", "needs --members, the members.json of a member of the new epoch");
	if (!members_read(o->members, &theirs, why, sizeof why))
		return ctl_fail(o->members, why);
	if (place_open(&p, "adopt", o) != 0)
		return 1;
	if ((fault = members_unrelated(&p.members, &theirs)) != NULL)
		return ctl_fail(o->members, fault);
	printf("Member %llu (%s) leaves epoch %u for epoch %u. Its own log is set aside, and "
	       "everything is fetched "
	       "from the members of that epoch. What only this log holds is no part of the pool "
	       "any more.\n",
		(unsigned long long)p.members.self, p.self->name, p.members.n_epochs,
		theirs.n_epochs);
	if (!o->yes) {
		printf("\nNothing has been changed. To do it, say --yes.\n");
		return 0;
	}
	if (consensus_abandon(p.disk, p.members.self) != 0)
		return ctl_fail(o->dir, "its log cannot be set aside");
	theirs.self = p.members.self;
	if (members_write(p.members_path, &theirs) != 0)
		return ctl_fail(p.members_path, strerror(errno));
	printf("\nDone. Start xpoold here.\n");
	return 0;
}
