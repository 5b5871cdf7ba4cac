/* The libuv loop below one of ours, for the library's disk half of Raft (db/consensus_disk.c) only.
 */
#pragma once

#include <uv.h>

struct loop;

/* Valid for loops of the product's world; use on the loop's thread or before it is started. */
uv_loop_t *loop_uv(struct loop *loop);
