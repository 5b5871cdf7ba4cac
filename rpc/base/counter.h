/* Numbers about ourselves, read at run time by `xpoolctl counters`. Any thread may add.
 * A row: name, help. Names ending in _max keep the largest value seen, _now the last one set. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define COUNTERS(X)                                                                                \
	X(commits_field, "entries applied that write fields through generated methods")            \
	X(commits_session, "entries applied for logins and logouts")                               \
	X(commits_admit, "entries applied that admit an operation")                                \
	X(commits_start, "entries applied by which an owner starts a task")                        \
	X(commits_finish, "entries applied that end a task")                                       \
	X(commits_facts, "entries applied with facts about domains")                               \
	X(commits_sweep, "entries applied that remove ended tasks")                                \
	X(commits_event, "entries applied for event.inject")                                       \
	X(commits_config, "entries applied that write configuration")                              \
	X(entries_applied, "log entries applied")                                                  \
	X(entries_refused, "log entries whose precondition failed")                                \
	X(entries_duplicate, "log entries recognised as repeated")                                 \
	X(proposals_now, "proposals of this member under way")                                     \
	X(proposals_resent, "proposals asked again of a leader")                                   \
	X(proposals_timeout, "proposals given up after their deadline")                            \
	X(proposals_full, "entries that found no place at the leader: they are asked again")       \
	X(read_rounds, "rounds of this leader that confirmed a read index")                        \
	X(floors_taken, "takeovers of sessions from other members")                                \
	X(floors_wait_us_max, "longest wait of a call for its session to be held here")            \
	X(elections_won, "times this member became leader")                                        \
	X(elections_early, "times this member stood early because the leader's connection broke")  \
	X(raft_changes, "changes of the configuration begun as leader")                            \
	X(raft_changes_back, "configurations that were cut off the log again")                     \
	X(heartbeats_missed, "times the leader was not heard of for three heartbeats")             \
	X(raft_masked, "AppendEntries results masked by the guard")                                \
	X(raft_clamped, "AppendEntries results cut to what the leader vouched for")                \
	X(raft_dropped, "AppendEntries dropped because a queue was full or a peer away")           \
	X(raft_merged, "AppendEntries requests merged into an earlier frame")                      \
	X(raft_pushes, "commit pushes sent")                                                       \
	X(raft_queue_max, "most AppendEntries requests queued for one peer")                       \
	X(hashes_differ, "times the state's hash was another than another member's")               \
	X(snapshots_taken, "snapshots of the state written")                                       \
	X(snapshots_restored, "snapshots restored, at a start or sent by the leader")              \
	X(snapshots_sent, "snapshots sent to members that lagged")                                 \
	X(snapshot_bytes_max, "largest snapshot, bytes")                                           \
	X(snapshots_large, "snapshots over half of what members take: the database is too large")  \
	X(writes_full, "writes that this leader refused because the database is full")             \
	X(projection_changes, "changes of rows and fields written to the projection")              \
	X(projection_dropped, "changes without history because the projection lagged")             \
	X(projection_settled, "times the projection was brought up to date from a view")           \
	X(projection_failures, "times the projection could not be written")                        \
	X(projection_aside, "projections set aside")                                               \
	X(projection_queue_max, "most bytes of changes that waited for the projection")            \
	X(sqlite_bytes_max, "most memory SQLite had, bytes: pages of its caches")                  \
	X(dumps_written, "dumps of the database kept by this member")                              \
	X(dump_failures, "dumps that could not be written")                                        \
	X(channel_connects, "member connections that came up")                                     \
	X(channel_refused, "member connections refused")                                           \
	X(plane_sent, "frames of volatile numbers sent to members")                                \
	X(plane_dropped, "the same that found a queue full")                                       \
	X(plane_refused, "the same that could not be read")                                        \
	X(loop_turns, "turns of all loops")                                                        \
	X(loop_lag_us_max, "longest turn of any loop, microseconds")                               \
	X(loop_slow_turns, "turns over 20 ms")                                                     \
	X(calls, "API calls answered")                                                             \
	X(calls_failed, "API calls answered with an error")                                        \
	X(answers_long, "answers sent piece by piece")                                             \
	X(answers_hurried, "the same to clients too slow for their view")                          \
	X(connections_now, "API connections open")                                                 \
	X(connections_dropped, "API connections dropped: idle at the limit, or not reading")       \
	X(connections_refused, "API connections refused at the limit")                             \
	X(events_parked_now, "event.from calls waiting")                                           \
	X(events_answers, "answers of event.from made, each for all that ask the same")            \
	X(audit_dropped, "times lines of the audit log were dropped")                              \
	X(lane_queue_max, "most jobs queued on a lane")                                            \
	X(agent_calls, "calls to the agent")                                                       \
	X(agent_reconnects, "times the connection to the agent came up")

enum counter {
#define X(name, help) COUNTER_##name,
	COUNTERS(X)
#undef X
		COUNTER_COUNT
};

struct counters {
	_Atomic uint64_t v[COUNTER_COUNT];
};

extern const char *const counter_names[COUNTER_COUNT];
extern const char *const counter_help[COUNTER_COUNT];

void counter_add(struct counters *c, enum counter which, int64_t by);
void counter_max(struct counters *c, enum counter which, uint64_t seen);
uint64_t counter_get(struct counters *c, enum counter which);

#define COUNT(env, name) counter_add(&(env)->counters, COUNTER_##name, 1)
