#include "rpc/base/file.h"
#include "rpc/base/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { FILE_PATH_MAX = 512 };

/* Close without losing the errno of what failed before. */
static int closed(int fd, int rc)
{
	int saved = errno;

	if (close(fd) != 0 && rc == 0)
		return ERR_IO;
	errno = saved;
	return rc;
}

int file_read(const char *path, size_t most, struct buf *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	int rc = ERR_IO;

	if (fd < 0)
		return ERR_IO;
	if (fstat(fd, &st) != 0)
		return closed(fd, ERR_IO);
	if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size > most) {
		errno = S_ISREG(st.st_mode) ? EFBIG : EINVAL;
		return closed(fd, ERR_IO);
	}
	for (size_t left = (size_t)st.st_size; left > 0;) {
		ssize_t n = read(fd, buf_room(out, left), left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return closed(fd, ERR_IO);
		if (n == 0)
			break; /* it has become shorter: what there is */
		out->len += (size_t)n;
		left -= (size_t)n;
	}
	rc = 0;
	return closed(fd, rc);
}

static int write_all(int fd, uint64_t offset, const uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t r = pwrite(fd, p, n, (off_t)offset);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return ERR_IO;
		p += r;
		n -= (size_t)r;
		offset += (uint64_t)r;
	}
	return 0;
}

int file_write_at(const char *path, uint64_t offset, const void *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_DSYNC, 0600);

	return fd < 0 ? ERR_IO : closed(fd, write_all(fd, offset, p, n));
}

/* The folder that a path is in. */
static const char *folder_of(const char *path, char out[FILE_PATH_MAX])
{
	const char *slash = strrchr(path, '/');

	if (slash == NULL)
		return ".";
	snprintf(out, FILE_PATH_MAX, "%.*s", (int)(slash - path), path);
	return slash == path ? "/" : out;
}

int file_replace(const char *path, const void *p, size_t n)
{
	char temporary[FILE_PATH_MAX], folder[FILE_PATH_MAX];
	int fd, rc;

	if ((size_t)snprintf(temporary, sizeof temporary, "%s.new", path) >= sizeof temporary) {
		errno = ENAMETOOLONG;
		return ERR_IO;
	}
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return ERR_IO;
	rc = write_all(fd, 0, p, n);
	if (rc == 0 && fsync(fd) != 0)
		rc = ERR_IO;
	rc = closed(fd, rc);
	if (rc == 0 && rename(temporary, path) != 0)
		rc = ERR_IO;
	return rc == 0 ? folder_sync(folder_of(path, folder)) : rc;
}

int file_remove(const char *path)
{
	return unlink(path) == 0 ? 0 : ERR_IO;
}

int file_lock(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return ERR_IO;
	return flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : closed(fd, ERR_IO);
}

int file_move(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0 ? 0 : ERR_IO;
}

int folder_make(const char *path)
{
	return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : ERR_IO;
}

int folder_list(const char *path, void (*each)(void *arg, const char *name), void *arg)
{
	DIR *d = opendir(path);
	const struct dirent *e;
	int saved;

	if (d == NULL)
		return ERR_IO;
	for (errno = 0; (e = readdir(d)) != NULL; errno = 0)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			each(arg, e->d_name);
	saved = errno;
	closedir(d);
	errno = saved;
	return saved == 0 ? 0 : ERR_IO;
}

int folder_sync(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? ERR_IO : closed(fd, fsync(fd) == 0 ? 0 : ERR_IO);
}

int disk_free(const char *path, uint64_t *out)
{
	struct statvfs s;

	if (statvfs(path, &s) != 0)
		return ERR_IO;
	*out = (uint64_t)s.f_bavail * s.f_frsize;
	return 0;
}
