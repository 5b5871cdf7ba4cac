/* How the pool talks to the agent of its host: a connection that comes back by itself, calls as a
 * bridge for jobs, and the update stream. The interface itself is member/agent.json
 * (agent/agent.h).
 */
#pragma once

#include "agent/agent.h"
#include "rpc/base/lane.h"

enum {
	MEMBER_CALLS_MAX = 1024, /* under way */
	MEMBER_CALL_MS = 10000,	 /* then ERR_TIMEOUT */
	MEMBER_RECONNECT_MS = 100,
	MEMBER_UPDATES_MS = 20000, /* one long poll */
};

struct member;

struct member_events {
	/* On the loop. The agent has (again) been reached: incarnation = "BOOT_ID/START_NUMBER",
	 * valid for the call. */
	void (*up)(void *arg, const char *incarnation);
	/* Something of that kind ("task", "vm") changed. */
	void (*changed)(void *arg, const char *kind, const char *id);
	void *arg;
};

struct member *member_open(
	struct loop *loop, const char *address, const struct member_events *events);

/* Call the agent and wait. params is a map or NULL; the result lives in the job's arena.
 * 0; ERR_API with an AGENT_ERR; ERR_CLOSED: not connected, or lost during the call; ERR_TIMEOUT;
 * ERR_DEAD. Workers only. */
int agent_call(struct job *job, struct member *m, enum agent_method_id method,
	const struct val *params, struct val *result_out, struct err *err);

/* A connection to the agent of its own that becomes the bytes of the console of a VM: the first
 * line that is sent, and what the first line that comes says: 0; ERR_API with an AGENT_ERR;
 * ERR_CORRUPT. What comes behind it is the console's. */
void agent_console_ask(struct buf *out, const char *vm_uuid);
int agent_console_answer(const char *line, size_t n, struct err *err);
