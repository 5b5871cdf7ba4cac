/* xpoold: the API's meaning on one member. Threads: the Raft loop (database), I/O loops (API calls;
 * the first one is also the admission loop), lanes of workers (passwords, jobs of this host). */
#pragma once

#include "db/db.h"
#include "member/member.h"
#include "rpc/server.h"

enum { POOL_LOOPS_MAX = 4 };

struct pool;

struct pool_config {
	struct env *env;
	struct db_config db;	   /* loop and handlers are filled in */
	bool local_pam;		   /* local accounts by PAM at the agent, else by: */
	const char *password_file; /* user:hash lines, crypt(3) */
	const char *agent;	   /* stream address of this host's agent */
	struct members *members;   /* of the data directory; kept by the caller, changed */
	unsigned loops;		   /* I/O loops, 1..POOL_LOOPS_MAX */
	bool verbose_tasks;
};

/* 0 or ERR_IO after a log line. Nothing runs before pool_start. */
int pool_new(struct pool **out, const struct pool_config *config);

/* Serve the API on a listening socket (duplicated for each loop). 0 or ERR_IO with errno. Before
 * pool_start. */
int pool_listen(struct pool *pool, int fd, struct tls *tls);

/* Serve `xpoolctl` on a Unix socket at path. 0 or ERR_IO with errno. Before pool_start. */
int pool_control(struct pool *pool, const char *path);

void pool_start(struct pool *pool);

/* Take no new connections, let running calls end, at most grace_ms, and hand the lead over. */
void pool_stop(struct pool *pool, unsigned grace_ms);
/* After the stop: is the program to begin anew, for its host reboots or restart_agent asked for it?
 */
bool pool_again(const struct pool *pool);
