/* xpool-agent: the local work of one host, as root, behind a Unix socket. */
#include "member/agent_priv.h"
#include "member/auth_child.h"
#include "member/child.h"
#ifdef XPOOL_XEN
#include "member/hv/xen/xen_child.h"
#endif

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
	"usage: xpool-agent --dir DIR [options]\n"
	"Runs domains of this host for xpoold, on a Unix socket.\n"
	"\n"
	"  --dir DIR            state of the agent (agent.db) and of the simulated hypervisor; "
	"must exist\n"
	"  --socket PATH        default DIR/agent.sock\n"
	"  --group NAME         group that may connect; default: the agent's own user only\n"
	"  --hv NAME            hypervisor: sim (simulated, default) or xen (this machine's)\n"
	"  --boot-dir DIR       kernels and ram disks of guests lie below it, default /boot/guest "
	"(xen)\n"
	"  --xen-limit S        seconds for building a guest, and 2 for each GiB of it; default "
	"60\n"
	"  --sr-root DIR        storage repositories may lie below it; default: none\n"
	"  --hooks DIR          folders of scripts to run before and after what happens to VMs, "
	"default /etc/xapi.d\n"
	"  --memory-mib N       memory of the simulated host, default 16384\n"
	"  --cpus N             processors of the simulated host, default 8\n"
	"  --cpu-features HEX   what they can, as words: 1789c3f5-...\n"
	"  --pam SERVICE        PAM service for logins, or the path of a file that is one; default "
	"xpool\n"
	"  --directory FILE     users and groups of the directory \"file\"; default "
	"DIR/directory.json\n"
	"  --log LEVEL          err, warn, info (default) or debug\n"
	"  --help\n";

struct options {
	const char *dir, *socket, *group, *sr_root, *pam, *directory, *hooks;
	const struct hv_ops *hv;
	const char *features, *boot_dir;
	int64_t memory_mib;
	int cpus, xen_limit;
	int log;
};

/* NULL after a line: there is none of this name. */
static const struct hv_ops *hypervisor(const char *name)
{
	if (strcmp(name, "sim") == 0)
		return &hv_sim;
#ifdef XPOOL_XEN
	if (strcmp(name, "xen") == 0)
		return &hv_xen;
#endif
	fprintf(stderr,
		"xpool-agent: hypervisor %s is not built in; --hv sim is, and xen where libxen-dev "
		"is installed when xpool-agent is built\n",
		name);
	return NULL;
}

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = { { "dir", 1, NULL, 'd' }, { "socket", 1, NULL, 's' },
		{ "group", 1, NULL, 'g' }, { "hv", 1, NULL, 'v' }, { "boot-dir", 1, NULL, 'b' },
		{ "xen-limit", 1, NULL, 'x' }, { "memory-mib", 1, NULL, 'm' },
		{ "sr-root", 1, NULL, 'r' }, { "hooks", 1, NULL, 'k' }, { "pam", 1, NULL, 'p' },
		{ "directory", 1, NULL, 'f' }, { "cpus", 1, NULL, 'c' },
		{ "cpu-features", 1, NULL, 'F' }, { "log", 1, NULL, 'l' }, { "help", 0, NULL, 'h' },
		{ NULL, 0, NULL, 0 } };
	int c;

	*o = (struct options){ .memory_mib = 16384,
		.pam = "xpool",
		.hooks = "/etc/xapi.d",
		.log = LOG_INFO,
		.hv = &hv_sim,
		.boot_dir = "/boot/guest" };
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'd': o->dir = optarg; break;
		case 's': o->socket = optarg; break;
		case 'g': o->group = optarg; break;
		case 'r': o->sr_root = optarg; break;
		case 'k': o->hooks = optarg; break;
		case 'm': o->memory_mib = atoll(optarg); break;
		case 'c': o->cpus = atoi(optarg); break;
		case 'F': o->features = optarg; break;
		case 'p': o->pam = optarg; break;
		case 'f': o->directory = optarg; break;
		case 'l': o->log = log_level_parse(optarg); break;
		case 'v':
			o->hv = hypervisor(optarg);
			if (o->hv == NULL)
				return false;
			break;
		case 'b': o->boot_dir = optarg; break;
		case 'x': o->xen_limit = atoi(optarg); break;
		case 'h': fputs(usage, stdout); exit(0);
		default: return false;
		}
	}
	if (o->dir == NULL || o->memory_mib <= 0 || o->cpus < 0 || o->xen_limit < 0 || o->log < 0 ||
		optind != argc) {
		fputs(usage, stderr);
		return false;
	}
	return true;
}

/* Two agents on one folder would run every domain twice. */
static int lock_folder(const char *dir)
{
	char path[512];
	int fd;

	snprintf(path, sizeof path, "%s/agent.lock", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		fprintf(stderr, "xpool-agent: %s: %s\n", path, strerror(errno));
		return -1;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		fprintf(stderr, "xpool-agent: %s is in use by another xpool-agent\n", dir);
		return -1;
	}
	return fd;
}

static bool open_to_group(const char *path, const char *name)
{
	struct group *g = getgrnam(name);

	if (g == NULL) {
		fprintf(stderr, "xpool-agent: there is no group %s\n", name);
		return false;
	}
	if (chown(path, (uid_t)-1, g->gr_gid) != 0 || chmod(path, 0660) != 0) {
		fprintf(stderr, "xpool-agent: %s: %s\n", path, strerror(errno));
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	struct options o;
	struct env env;
	struct agent_server *server;
	struct agent *agent;
	char path[512], directory[512];
	int sig;

	if (argc == 4 && strcmp(argv[1], "--auth") == 0)
		return auth_child_main(argv[2], argv[3]);
	if (argc > 2 && strcmp(argv[1], "--exec") == 0)
		return child_exec_main(argv + 2);
#ifdef XPOOL_XEN
	if (argc == 2 && strcmp(argv[1], "--xen") == 0)
		return xen_child_main();
#endif
	if (!parse(argc, argv, &o) || lock_folder(o.dir) < 0)
		return 2;
	env_uv_init(&env, "agent");
	env.log.level = (enum log_level)o.log;
	env_uv_signals_block();
	snprintf(directory, sizeof directory, "%s/directory.json", o.dir);
	agent = agent_new(&(struct agent_config){ .env = &env,
		.dir = o.dir,
		.hv = o.hv,
		.machine = { o.memory_mib * 1024, o.cpus, o.features, o.boot_dir, o.xen_limit },
		.sr_root = o.sr_root,
		.hooks = o.hooks,
		.end = env_uv_stop_self,
		.auth = { o.pam, o.directory != NULL ? o.directory : directory } });
	if (agent == NULL)
		return 1;
	snprintf(path, sizeof path, "%s/agent.sock", o.dir);
	if (o.socket == NULL)
		o.socket = path;
	unlink(o.socket); /* left by a run that was killed; the lock says nobody uses it */
	umask(0177);
	if (agent_server_open(&server, agent, o.socket) != 0) {
		fprintf(stderr, "xpool-agent: %s: %s\n", o.socket, strerror(errno));
		return 1;
	}
	umask(022);
	if (o.group != NULL && !open_to_group(o.socket, o.group))
		return 1;
	log_info(&env, "event=agent_started boot_id=%s start=%lld socket=%s", hv_boot_id(agent->hv),
		(long long)agent->start_number, o.socket);
	loop_start(agent->loop);
	sig = env_uv_signals_wait();
	log_info(&env, "event=agent_stopping signal=%d", sig);
	unlink(o.socket);
	if (agent->end_again)
		execv("/proc/self/exe", argv);
	/* what is under way is repaired by the next start, as after a crash: one path, always
	 * tested */
	_exit(0);
}
