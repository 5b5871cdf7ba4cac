/* Consoles of simulated guests: text, as a terminal (vt100) shows it. The guest greets whoever
 * looks and says what is typed.
 *
 * Each look is a socket pair and a thread at the guest's end of it, which takes no more while what
 * it has said is not read. It ends when the other end is closed, or its domain goes; it is joined
 * when the next one is made, or at the end. There are as many as the agent lets in (server.c).
 */
#include "member/hv/sim/sim_console.h"
#include "agent/agent.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct look {
	struct sim_consoles *consoles;
	struct look *next;
	struct thread *thread;
	int domid, fd;
	bool over; /* the thread touches nothing any more */
	char uuid[UUID_LEN + 1];
};

struct sim_consoles {
	struct env *env;
	pthread_mutex_t mutex;
	struct look *looks;
};

static bool say(int fd, const char *p, size_t n)
{
	ssize_t sent;

	for (; n > 0; p += sent, n -= (size_t)sent) {
		sent = send(fd, p, n, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			sent = 0;
		if (sent < 0)
			return false;
	}
	return true;
}

static void guest_main(void *arg)
{
	struct look *look = arg;
	char bytes[4096];
	ssize_t n = snprintf(bytes, sizeof bytes, "\r\nSimulated guest %s\r\n\r\n", look->uuid);

	while (n > 0 && say(look->fd, bytes, (size_t)n))
		do
			n = read(look->fd, bytes, sizeof bytes);
		while (n < 0 && errno == EINTR);
	shutdown(look->fd, SHUT_RDWR);
	pthread_mutex_lock(&look->consoles->mutex);
	look->over = true;
	pthread_mutex_unlock(&look->consoles->mutex);
}

struct sim_consoles *sim_consoles_new(struct env *env)
{
	struct sim_consoles *c = mem_new(sizeof *c);

	c->env = env;
	pthread_mutex_init(&c->mutex, NULL);
	return c;
}

/* Under the mutex: take those out that are over. */
static struct look *take_over(struct sim_consoles *c)
{
	struct look **at = &c->looks, *look, *taken = NULL;

	while ((look = *at) != NULL) {
		if (!look->over) {
			at = &look->next;
			continue;
		}
		*at = look->next;
		look->next = taken;
		taken = look;
	}
	return taken;
}

static void looks_free(struct sim_consoles *c, struct look *look)
{
	struct look *next;

	for (; look != NULL; look = next) {
		next = look->next;
		c->env->ops->thread_join(look->thread);
		close(look->fd);
		free(look);
	}
}

/* Under the mutex. domid -1: of all domains. */
static void hang_up(struct sim_consoles *c, int domid)
{
	for (struct look *look = c->looks; look != NULL; look = look->next)
		if (domid == -1 || look->domid == domid)
			shutdown(look->fd, SHUT_RDWR);
}

void sim_consoles_free(struct sim_consoles *c)
{
	pthread_mutex_lock(&c->mutex);
	hang_up(c, -1);
	pthread_mutex_unlock(&c->mutex);
	looks_free(c, c->looks);
	pthread_mutex_destroy(&c->mutex);
	free(c);
}

int sim_console_open(
	struct sim_consoles *c, int domid, const char *uuid, int *fd_out, struct err *err)
{
	struct look *look, *over;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
		return err_set(err, AGENT_ERR_domain_failed, strerror(errno), NULL);
	look = mem_new(sizeof *look);
	look->consoles = c;
	look->domid = domid;
	look->fd = ends[1];
	snprintf(look->uuid, sizeof look->uuid, "%s", uuid);
	pthread_mutex_lock(&c->mutex);
	over = take_over(c);
	look->next = c->looks;
	c->looks = look;
	look->thread = c->env->ops->thread_start(c->env, "guest", guest_main, look);
	pthread_mutex_unlock(&c->mutex);
	looks_free(c, over);
	*fd_out = ends[0];
	return 0;
}

void sim_console_end(struct sim_consoles *c, int domid)
{
	pthread_mutex_lock(&c->mutex);
	hang_up(c, domid);
	pthread_mutex_unlock(&c->mutex);
}
