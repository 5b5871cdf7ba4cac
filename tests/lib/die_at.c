/* Ends xpoold of a test by SIGKILL, by LD_PRELOAD: at the N-th time (XPOOL_DIE_AT) that it
 * changes names in a folder or puts a file on stable storage, before that has happened.
 */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void count(void)
{
	static atomic_int n;
	const char *at = getenv("XPOOL_DIE_AT");

	if (at != NULL && strcmp(program_invocation_short_name, "xpoold") == 0 && ++n == atoi(at))
		kill(getpid(), SIGKILL);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int rename(const char *from, const char *to)
{
	count();
	return REAL(rename)(from, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	count();
	return REAL(renameat2)(from_dir, from, to_dir, to, flags);
}

int unlink(const char *path)
{
	count();
	return REAL(unlink)(path);
}

int mkdir(const char *path, mode_t mode)
{
	count();
	return REAL(mkdir)(path, mode);
}

int fsync(int fd)
{
	count();
	return REAL(fsync)(fd);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
	count();
	return REAL(pwrite)(fd, p, n, offset);
}
