/* Files and folders of this host. Blocking: for starts, workers and command lines, not for loops.
 *
 * Every function gives 0, or ERR_IO with errno. Simulations replace what stands on these whole
 * (struct consensus_disk), so there is no seam below.
 */
#pragma once

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

/* Append the content; EFBIG when it has more than `most` bytes. */
int file_read(const char *path, size_t most, struct buf *out);

/* Replace the whole content, on stable storage: readers see the old or the new one, also after a
 * crash. Mode 0600. */
int file_replace(const char *path, const void *p, size_t n);

/* Write n bytes at an offset, on stable storage; the file is made if need be. */
int file_write_at(const char *path, uint64_t offset, const void *p, size_t n);

int file_remove(const char *path);

/* Make the file if need be and lock it until the process ends; EWOULDBLOCK: another process has it.
 */
int file_lock(const char *path);

/* Give it a name that nothing has yet (EEXIST), also a folder; not on stable storage before
 * folder_sync.
 */
int file_move(const char *from, const char *to);

/* Mode 0700; fine when it is there. */
int folder_make(const char *path);

/* Give each entry but "." and "..", in no order. */
int folder_list(const char *path, void (*each)(void *arg, const char *name), void *arg);

/* Names made, renamed or removed in it are on stable storage. */
int folder_sync(const char *path);

/* Bytes that this user can still write on the disk under path. */
int disk_free(const char *path, uint64_t *out);
