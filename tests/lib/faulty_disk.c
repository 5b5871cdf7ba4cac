/* The disk of a member's programs in a test, by LD_PRELOAD: what changes the files under data/ and
 * agent/ of the folder they run in goes through here.
 *
 * XPOOL_DISK_FAULT="PROGRAM KIND N [PART]": at the N-th change by that program of a file whose path
 * has PART in it, in place of it: die (SIGKILL), tear (half of it is written, then die), fail
 * (EIO), flip (one bit is written wrong, and nobody told).
 *
 * XPOOL_DISK=FOLDER, on the same file system, and XPOOL_DISK_JOURNALS=FOLDER, on another one: what
 * a power cut would take is kept there, for tests/lib/power.py to take it. Each file with writes
 * that are not on stable storage has a journal MEMBER-d<inode> of what was there before, and a link
 * l<inode> to itself; each folder with names that are not has a journal MEMBER-n<inode> of what was
 * done to them, and links n<inode>-<offset> to what has lost its name. A record is struct record
 * and `len` bytes. It is dead (live = 0) once fsync, fdatasync or O_DSYNC have put the change on
 * stable storage; a journal of dead records is removed. Of a folder only fsync does that, as POSIX
 * has it. Not seen: memory maps (SQLite's -shm, which a start makes anew) and stdio. With
 * XPOOL_DISK_LIES nothing ever gets there.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SECTOR = 512, JOURNALS = 256, NAME_LEN = 1024, IN_FLIGHT = 256 };

#define REAL(name)                                                                                 \
	({                                                                                         \
		static __typeof__(&name) real;                                                     \
		if (real == NULL)                                                                  \
			real = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                         \
		real;                                                                              \
	})

struct record {
	uint8_t live;
	char kind; /* d: bytes at `at`; t: the length `at`; c: made; u: removed; r: from 0 to */
	uint16_t unused;
	uint32_t len;
	uint64_t at;
};

struct kept {
	off_t offset;
	bool dead;
};

struct journal {
	char kind; /* d or n; 0: free */
	ino_t inode;
	int fd;
	off_t end;
	struct kept *kept;
	size_t n;
};

/* A change that is being made: its records, [from, to) of a journal. */
struct note {
	struct journal *journal;
	size_t from, to;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct journal journals[JOURNALS];
static struct in_flight {
	const struct iocb *io;
	struct note note;
} in_flight[IN_FLIGHT];
static char root[NAME_LEN];

static void broken(const char *what)
{
	fprintf(stderr, "faulty_disk: assertion_failed: %s: %s\n", what, strerror(errno));
	abort();
}

static const char *kept_in(void)
{
	return getenv("XPOOL_DISK");
}

/* Its absolute path, if it is a file or folder that counts here. */
static bool counts(const char *path, char out[PATH_MAX])
{
	size_t n;

	if (root[0] == 0 && getcwd(root, sizeof root) == NULL)
		return false;
	snprintf(out, PATH_MAX, "%s%s%.*s", path[0] == '/' ? "" : root, path[0] == '/' ? "" : "/",
		NAME_LEN, path);
	n = strlen(root);
	return strncmp(out, root, n) == 0 &&
	       (strncmp(out + n, "/data", 5) == 0 || strncmp(out + n, "/agent/", 7) == 0) &&
	       strstr(out, "-shm") == NULL && strstr(out, "/domains.db") == NULL &&
	       strstr(out, ".sock") == NULL;
}

static bool counts_fd(int fd, char out[PATH_MAX])
{
	char link[64], path[PATH_MAX];
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) != 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return false;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path - 1);
	if (n <= 0)
		return false;
	path[n] = 0;
	return counts(path, out);
}

/* Faults. */

enum fault { NONE, DIE, TEAR, FAIL, FLIP };

static enum fault fault_at(const char *path)
{
	static const char *const kinds[] = { "", "die", "tear", "fail", "flip" };
	static int seen;
	const char *said = getenv("XPOOL_DISK_FAULT");
	char program[32], kind[8], part[128] = "";
	enum fault found = NONE;
	int at;

	if (said == NULL || sscanf(said, "%31s %7s %d %127s", program, kind, &at, part) < 3 ||
		strcmp(program_invocation_short_name, program) != 0 || strstr(path, part) == NULL)
		return NONE;
	pthread_mutex_lock(&lock);
	if (++seen == at)
		for (int i = DIE; i <= FLIP; i++)
			if (strcmp(kind, kinds[i]) == 0)
				found = (enum fault)i;
	pthread_mutex_unlock(&lock);
	if (found != NONE)
		fprintf(stderr, "faulty_disk: %s at change %d of %s\n", kind, at, path);
	if (found == DIE)
		kill(getpid(), SIGKILL);
	return found;
}

/* Is the change of a name to fail? */
static bool name_fails(const char *path)
{
	char full[PATH_MAX];
	enum fault fault = counts(path, full) ? fault_at(full) : NONE;

	if (fault == TEAR)
		kill(getpid(), SIGKILL);
	errno = EIO;
	return fault == FAIL;
}

/* The same file without O_DIRECT and O_APPEND. */
static int opened_again(int fd, int flags)
{
	char path[64];
	int again;

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	again = REAL(open)(path, flags | O_CLOEXEC);
	if (again < 0)
		broken("open again");
	return again;
}

static void tear(int fd, const void *p, size_t n, off_t at)
{
	if (n >= 2 * SECTOR)
		(void)!REAL(pwrite)(opened_again(fd, O_WRONLY), p, n / 2 / SECTOR * SECTOR, at);
	kill(getpid(), SIGKILL);
}

/* Journals. */

static void journal_path(char kind, ino_t inode, char out[PATH_MAX])
{
	snprintf(out, PATH_MAX, "%s/%s-%c%llu", getenv("XPOOL_DISK_JOURNALS"),
		strrchr(root, '/') + 1, kind, (unsigned long long)inode);
}

/* offset < 0: of a file that has its name. */
static void link_path(ino_t inode, off_t offset, char out[PATH_MAX])
{
	if (offset < 0)
		snprintf(out, PATH_MAX, "%s/l%llu", kept_in(), (unsigned long long)inode);
	else
		snprintf(out, PATH_MAX, "%s/n%llu-%lld", kept_in(), (unsigned long long)inode,
			(long long)offset);
}

static void kept_add(struct journal *j, off_t offset, bool dead)
{
	j->kept = realloc(j->kept, (j->n + 1) * sizeof *j->kept);
	if (j->kept == NULL)
		broken("memory");
	j->kept[j->n++] = (struct kept){ offset, dead };
}

static struct journal *journal_of(char kind, ino_t inode, bool make)
{
	struct journal *j = NULL;
	char path[PATH_MAX];
	struct record r;
	int fd;

	for (size_t i = 0; i < JOURNALS; i++) {
		if (journals[i].kind == kind && journals[i].inode == inode)
			return &journals[i];
		if (journals[i].kind == 0 && j == NULL)
			j = &journals[i];
	}
	if (make && REAL(mkdir)(kept_in(), 0777) == 0)
		chmod(kept_in(), 01777); /* two users share it */
	journal_path(kind, inode, path);
	fd = REAL(open)(path, O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), 0666);
	if (fd < 0 && !make)
		return NULL;
	if (fd < 0 || j == NULL)
		broken(path);
	*j = (struct journal){ .kind = kind, .inode = inode, .fd = fd };
	/* what a process before has left */
	for (; pread(fd, &r, sizeof r, j->end) == sizeof r; j->end += (off_t)(sizeof r + r.len))
		kept_add(j, j->end, !r.live);
	return j;
}

static void journal_put(struct journal *j, char kind, uint64_t at, const void *p, size_t len)
{
	struct record r = { .live = 1, .kind = kind, .len = (uint32_t)len, .at = at };
	struct iovec v[2] = { { &r, sizeof r }, { (void *)(uintptr_t)p, len } };

	kept_add(j, j->end, false);
	if (REAL(pwritev)(j->fd, v, 2, j->end) != (ssize_t)(sizeof r + len))
		broken("journal");
	j->end += (off_t)(sizeof r + len);
}

static void journal_end(struct journal *j)
{
	char path[PATH_MAX];

	journal_path(j->kind, j->inode, path);
	REAL(unlink)(path);
	for (size_t i = 0; i < j->n; i++) {
		link_path(j->inode, j->kind == 'd' ? -1 : j->kept[i].offset, path);
		REAL(unlink)(path);
	}
	close(j->fd);
	free(j->kept);
	*j = (struct journal){ 0 };
}

/* These are on stable storage. */
static void durable(struct journal *j, size_t from, size_t to)
{
	bool all = true;

	if (getenv("XPOOL_DISK_LIES") != NULL)
		return;
	for (size_t i = from; i < to; i++)
		if (!j->kept[i].dead) {
			REAL(pwrite)(j->fd, "", 1, j->kept[i].offset);
			j->kept[i].dead = true;
		}
	for (size_t i = 0; i < j->n; i++)
		all &= j->kept[i].dead;
	for (size_t i = 0; all && i < IN_FLIGHT; i++)
		all = in_flight[i].io == NULL || in_flight[i].note.journal != j;
	if (all)
		journal_end(j);
}

/* What is there, before n bytes at an offset change; whole sectors. n = -1: up to the end. */
static struct note remember(int fd, off_t at, off_t n)
{
	int again = opened_again(fd, O_RDONLY);
	char link[PATH_MAX], self[64];
	struct note note;
	struct stat st;
	uint8_t *was;
	off_t end;

	fstat(fd, &st);
	end = n < 0 ? st.st_size : at + n;
	at = at / SECTOR * SECTOR;
	end = (end + SECTOR - 1) / SECTOR * SECTOR;
	note.journal = journal_of('d', st.st_ino, true);
	note.from = note.journal->n;
	link_path(st.st_ino, -1, link);
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, link, AT_SYMLINK_FOLLOW) != 0 && errno != EEXIST &&
		errno != ENOENT) /* ENOENT: it has no name any more, nothing of it stays */
		broken(link);
	journal_put(note.journal, 't', (uint64_t)st.st_size, NULL, 0);
	if (end > at) {
		was = calloc(1, (size_t)(end - at));
		if (was == NULL || pread(again, was, (size_t)(end - at), at) < 0)
			broken("what was there");
		journal_put(note.journal, 'd', (uint64_t)at, was, (size_t)(end - at));
		free(was);
	}
	close(again);
	note.to = note.journal->n;
	return note;
}

static bool waits_for_disk(int fd)
{
	return (fcntl(fd, F_GETFL) & O_DSYNC) != 0; /* O_SYNC has its bit */
}

/* A name in a folder: made, removed, or `name` made `to`; what loses its name keeps a link. */
static void name_changed(char kind, const char *path, const char *to)
{
	char folder[PATH_MAX], base[PATH_MAX], names[PATH_MAX * 2], keep[PATH_MAX];
	const char *lost = kind == 'u' ? path : to;
	struct journal *j;
	struct stat st;
	int n;

	snprintf(folder, sizeof folder, "%s", path);
	snprintf(base, sizeof base, "%s", path);
	if (stat(dirname(folder), &st) != 0)
		return; /* it will fail */
	j = journal_of('n', st.st_ino, true);
	link_path(st.st_ino, j->end, keep);
	if (lost != NULL)
		(void)!REAL(link)(lost, keep); /* a rename need not replace anything */
	n = snprintf(names, sizeof names, "%s", basename(base)) + 1;
	if (to != NULL) {
		snprintf(base, sizeof base, "%s", to);
		n += snprintf(names + n, sizeof names - (size_t)n, "%s", basename(base)) + 1;
	}
	journal_put(j, kind, 0, names, (size_t)n);
}

/* Begun for a name; false: nothing is kept. */
static bool name_begins(const char *path, char full[PATH_MAX])
{
	if (kept_in() == NULL || !counts(path, full))
		return false;
	pthread_mutex_lock(&lock);
	return true;
}

/* Writes. */

static ssize_t written(int fd, const struct iovec *v, int nv, off_t at)
{
	char path[PATH_MAX];
	bool ours = counts_fd(fd, path), appends = at < 0;
	enum fault fault = ours ? fault_at(path) : NONE;
	struct iovec changed = v[0];
	struct note note = { 0 };
	off_t total = 0;
	ssize_t n;

	for (int i = 0; i < nv; i++)
		total += (off_t)v[i].iov_len;
	if (ours && appends)
		at = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END)
						   : lseek(fd, 0, SEEK_CUR);
	if (fault == TEAR)
		tear(fd, v[0].iov_base, v[0].iov_len, at);
	if (fault == FAIL) {
		errno = EIO;
		return -1;
	}
	if (fault == FLIP) {
		changed.iov_base = malloc(v[0].iov_len);
		memcpy(changed.iov_base, v[0].iov_base, v[0].iov_len);
		((uint8_t *)changed.iov_base)[v[0].iov_len / 2] ^= 0x10;
		v = &changed;
		nv = 1; /* a short write; the caller goes on with the rest */
	}
	ours = ours && kept_in() != NULL;
	if (ours) {
		pthread_mutex_lock(&lock);
		note = remember(fd, at, total);
	}
	n = appends ? REAL(writev)(fd, v, nv) : REAL(pwritev)(fd, v, nv, at);
	if (ours) {
		if (waits_for_disk(fd))
			durable(note.journal, note.from, note.to);
		pthread_mutex_unlock(&lock);
	}
	if (fault == FLIP)
		free(changed.iov_base);
	return n;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	struct iovec v = { (void *)(uintptr_t)p, n };

	return written(fd, &v, 1, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
	return pwrite(fd, p, n, at);
}

ssize_t write(int fd, const void *p, size_t n)
{
	struct iovec v = { (void *)(uintptr_t)p, n };
	struct stat st;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return REAL(write)(fd, p, n);
	return written(fd, &v, 1, -1);
}

ssize_t writev(int fd, const struct iovec *v, int nv)
{
	struct stat st;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return REAL(writev)(fd, v, nv);
	return written(fd, v, nv, -1);
}

ssize_t pwritev(int fd, const struct iovec *v, int nv, off_t at)
{
	return written(fd, v, nv, at);
}

/* Length. */

static bool length_begins(int fd, off_t from, off_t n, bool *fails)
{
	char path[PATH_MAX];
	bool ours = counts_fd(fd, path);
	enum fault fault = ours ? fault_at(path) : NONE;

	if (fault == TEAR)
		kill(getpid(), SIGKILL);
	*fails = fault == FAIL;
	if (!ours || kept_in() == NULL)
		return false;
	pthread_mutex_lock(&lock);
	remember(fd, from, n);
	return true;
}

int ftruncate(int fd, off_t n)
{
	bool fails, ours = length_begins(fd, n, -1, &fails);
	int rc = fails ? -1 : REAL(ftruncate)(fd, n);

	if (fails)
		errno = EIO;
	if (ours)
		pthread_mutex_unlock(&lock);
	return rc;
}

int ftruncate64(int fd, off64_t n)
{
	return ftruncate(fd, n);
}

int posix_fallocate(int fd, off_t at, off_t n)
{
	bool fails, ours = length_begins(fd, at, 0, &fails);
	int rc = fails ? EIO : REAL(posix_fallocate)(fd, at, n);

	if (ours)
		pthread_mutex_unlock(&lock);
	return rc;
}

int posix_fallocate64(int fd, off64_t at, off64_t n)
{
	return posix_fallocate(fd, at, n);
}

/* Putting on stable storage. */

static int synced(int fd, int (*real)(int fd))
{
	char path[PATH_MAX];
	bool ours = counts_fd(fd, path);
	enum fault fault = ours ? fault_at(path) : NONE;
	size_t n = 0;
	struct stat st;
	struct journal *j;
	char kind;
	int rc;

	if (fault == TEAR)
		kill(getpid(), SIGKILL);
	if (fault == FAIL) {
		errno = EIO;
		return -1;
	}
	if (!ours || kept_in() == NULL || fstat(fd, &st) != 0)
		return real(fd);
	kind = S_ISDIR(st.st_mode) ? 'n' : 'd';
	pthread_mutex_lock(&lock);
	j = journal_of(kind, st.st_ino, false);
	n = j != NULL ? j->n : 0;
	pthread_mutex_unlock(&lock);
	rc = real(fd);
	pthread_mutex_lock(&lock);
	j = rc == 0 ? journal_of(kind, st.st_ino, false) : NULL;
	if (j != NULL)
		durable(j, 0, n < j->n ? n : j->n);
	pthread_mutex_unlock(&lock);
	return rc;
}

int fsync(int fd)
{
	return synced(fd, REAL(fsync));
}

int fdatasync(int fd)
{
	return synced(fd, REAL(fdatasync));
}

/* Names. */

static int opened(const char *path, int flags, mode_t mode)
{
	char full[PATH_MAX];
	struct stat st;
	bool ours, there;
	int fd;

	if (!(flags & O_CREAT) && !(flags & O_TRUNC))
		return REAL(open)(path, flags, mode);
	there = stat(path, &st) == 0;
	if (!there && name_fails(path))
		return -1;
	ours = name_begins(path, full);
	if (ours && there && flags & O_TRUNC && st.st_size > 0) {
		fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			remember(fd, 0, -1);
		close(fd);
	}
	if (ours && !there)
		name_changed('c', full, NULL);
	fd = REAL(open)(path, flags, mode);
	if (ours)
		pthread_mutex_unlock(&lock);
	return fd;
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return opened(path, flags, mode);
}

/* Whatever changes one name or two. */
#define NAMED(path, kind, to, call)                                                                \
	do {                                                                                       \
		char full[PATH_MAX];                                                               \
		bool ours;                                                                         \
		int rc;                                                                            \
                                                                                                   \
		if (name_fails(path))                                                              \
			return -1;                                                                 \
		ours = name_begins(path, full);                                                    \
		if (ours)                                                                          \
			name_changed(kind, full, to);                                              \
		rc = call;                                                                         \
		if (ours)                                                                          \
			pthread_mutex_unlock(&lock);                                               \
		return rc;                                                                         \
	} while (0)

int rename(const char *from, const char *to)
{
	NAMED(from, 'r', to, REAL(rename)(from, to));
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	NAMED(from, 'r', to, REAL(renameat2)(from_dir, from, to_dir, to, flags));
}

int unlink(const char *path)
{
	NAMED(path, 'u', NULL, REAL(unlink)(path));
}

int mkdir(const char *path, mode_t mode)
{
	NAMED(path, 'c', NULL, REAL(mkdir)(path, mode));
}

int link(const char *from, const char *to)
{
	NAMED(to, 'c', NULL, REAL(link)(from, to));
}

/* What the library of Raft asks the kernel for itself. */

static bool submitted(struct iocb *io)
{
	struct iovec one = { (void *)(uintptr_t)io->aio_buf, io->aio_nbytes };
	bool pieces = io->aio_lio_opcode == IOCB_CMD_PWRITEV;
	const struct iovec *v = pieces ? (const struct iovec *)(uintptr_t)io->aio_buf : &one;
	int fd = (int)io->aio_fildes, nv = pieces ? (int)io->aio_nbytes : 1;
	char path[PATH_MAX];
	enum fault fault;
	off_t total = 0;

	if (!counts_fd(fd, path))
		return true;
	fault = fault_at(path);
	for (int i = 0; i < nv; i++)
		total += (off_t)v[i].iov_len;
	if (fault == TEAR)
		tear(fd, v[0].iov_base, v[0].iov_len, io->aio_offset);
	if (fault == FLIP)
		((uint8_t *)v[0].iov_base)[v[0].iov_len / 2] ^= 0x10;
	if (fault == FAIL)
		return false;
	if (kept_in() == NULL)
		return true;
	pthread_mutex_lock(&lock);
	for (size_t i = 0;; i++) {
		if (i == IN_FLIGHT)
			broken("writes under way");
		if (in_flight[i].io == NULL) {
			in_flight[i] =
				(struct in_flight){ io, remember(fd, io->aio_offset, total) };
			break;
		}
	}
	pthread_mutex_unlock(&lock);
	return true;
}

static void completed(const struct io_event *event)
{
	const struct iocb *io = (const struct iocb *)(uintptr_t)event->obj;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < IN_FLIGHT; i++)
		if (in_flight[i].io == io) {
			struct note note = in_flight[i].note;

			in_flight[i].io = NULL;
			if (event->res > 0 && (io->aio_rw_flags & RWF_DSYNC ||
						      waits_for_disk((int)io->aio_fildes)))
				durable(note.journal, note.from, note.to);
		}
	pthread_mutex_unlock(&lock);
}

long syscall(long number, ...)
{
	long a[6], rc;
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	for (long i = 0; number == SYS_io_submit && i < a[1]; i++)
		if (!submitted(((struct iocb **)a[2])[i])) {
			errno = EIO;
			return -1;
		}
	if (number == SYS_pwritev)
		return pwritev((int)a[0], (const struct iovec *)a[1], (int)a[2], a[3]);
	rc = REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	for (long i = 0; number == SYS_io_getevents && i < rc; i++)
		completed(&((const struct io_event *)a[3])[i]);
	return rc;
}
