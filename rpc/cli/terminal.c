/* See terminal.h. */
#include "rpc/cli/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

enum { PIECE = 4096 };
enum end { GOES_ON, ENDED, LOST };

static bool show(const void *p, size_t n)
{
	const char *at = p;
	ssize_t wrote;

	for (; n > 0; at += wrote, n -= (size_t)wrote) {
		wrote = write(STDOUT_FILENO, at, n);
		if (wrote < 0)
			return false;
	}
	return true;
}

static enum end typed(struct link *console)
{
	char bytes[PIECE], *leave;
	ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);

	if (n <= 0)
		return ENDED;
	leave = memchr(bytes, TERMINAL_LEAVE, (size_t)n);
	if (leave != NULL)
		n = leave - bytes;
	if (n > 0 && !link_write(console, bytes, (size_t)n))
		return LOST;
	return leave != NULL ? ENDED : GOES_ON;
}

static enum end came(struct link *console)
{
	char bytes[PIECE];
	int n = link_read(console, bytes, sizeof bytes);

	if (n <= 0)
		return n == 0 ? ENDED : LOST;
	return show(bytes, (size_t)n) ? GOES_ON : ENDED;
}

static enum end converse(struct link *console, int signals, void (*alive)(void *arg), void *arg)
{
	struct pollfd fds[] = { { .fd = STDIN_FILENO, .events = POLLIN },
		{ .fd = link_fd(console), .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	uint64_t due = link_now_ms() + TERMINAL_ALIVE_MS, now;
	enum end end = GOES_ON;

	while (end == GOES_ON) {
		now = link_now_ms();
		if (now >= due) {
			due = now + TERMINAL_ALIVE_MS;
			alive(arg);
		}
		if (poll(fds, 3, link_has(console) ? 0 : (int)(due - now)) < 0) {
			if (errno == EINTR)
				continue;
			return LOST;
		}
		if (fds[2].revents != 0)
			return ENDED;
		if (fds[1].revents != 0 || link_has(console))
			end = came(console);
		else if (fds[0].revents != 0)
			end = typed(console);
	}
	return end;
}

bool terminal_run(
	struct link *console, const struct buf *first, void (*alive)(void *arg), void *arg)
{
	struct termios was, raw;
	bool terminal = tcgetattr(STDIN_FILENO, &was) == 0;
	sigset_t ends, before;
	enum end end;
	int signals;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, &before);
	signals = signalfd(-1, &ends, SFD_CLOEXEC);
	if (terminal) {
		fputs("Ctrl-] ends the console.\n", stderr);
		raw = was;
		cfmakeraw(&raw);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	end = show(first->data, first->len) ? converse(console, signals, alive, arg) : ENDED;
	if (terminal)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &was);
	close(signals);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return end != LOST;
}
