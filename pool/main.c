/* xpoold: API, database and coordination of one member. Never as root. */
#include "pool/members.h"
#include "pool/pool.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STOP_GRACE_MS = 3000 };

static const char usage[] =
	"usage: xpoold --dir DIR --listen IP:PORT [options]\n"
	"       xpoold --dir DIR --witness [options]\n"
	"Serves the XenAPI for this member of a pool; `xpoolctl init` has made DIR.\n"
	"\n"
	"  --dir DIR              data directory (members.json, raft/, control.sock)\n"
	"  --listen IP:PORT       address of the API, TLS\n"
	"  --witness              a member without a host: it votes and keeps the log, serves no "
	"API\n"
	"                         (see: xpoolctl witness)\n"
	"  --certificate FILE     certificate and key, PEM; default DIR/member.pem\n"
	"  --local-users HOW      who may log in as administrator of the pool: file (default): "
	"--password-file;\n"
	"                         pam: accounts of this host, by PAM at the agent\n"
	"  --password-file FILE   user:hash lines, crypt(3); default DIR/passwd\n"
	"  --agent PATH           socket of this host's xpool-agent; default DIR/agent.sock\n"
	"  --loops N              I/O loops, 1 to 4; default: processors\n"
	"  --election-ms N        Raft election time-out, default 500\n"
	"  --snapshot-entries N   log entries between snapshots, and kept behind one; default "
	"8192\n"
	"  --snapshot-large BYTES beyond which the database is said to be too large (tests)\n"
	"  --no-projection        no SQLite file of the database: no history, no dumps\n"
	"  --log LEVEL            err, warn, info (default) or debug\n"
	"  --allow-root           run as root all the same (tests)\n"
	"  --help\n";

struct options {
	const char *dir, *listen, *certificate, *password_file, *agent, *local_users;
	unsigned loops, election_ms, snapshot_entries, snapshot_large;
	int log;
	bool allow_root, no_projection, witness;
};

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = { { "dir", 1, NULL, 'd' }, { "listen", 1, NULL, 'l' },
		{ "certificate", 1, NULL, 'c' }, { "password-file", 1, NULL, 'p' },
		{ "local-users", 1, NULL, 'u' }, { "agent", 1, NULL, 'a' },
		{ "loops", 1, NULL, 'n' }, { "election-ms", 1, NULL, 'e' },
		{ "snapshot-entries", 1, NULL, 's' }, { "snapshot-large", 1, NULL, 'b' },
		{ "log", 1, NULL, 'v' }, { "allow-root", 0, NULL, 'r' },
		{ "no-projection", 0, NULL, 'x' }, { "witness", 0, NULL, 'w' },
		{ "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	int c;

	*o = (struct options){ .log = LOG_INFO, .local_users = "file" };
	o->loops = processors < 1		 ? 1
		   : processors > POOL_LOOPS_MAX ? POOL_LOOPS_MAX
						 : (unsigned)processors;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'd': o->dir = optarg; break;
		case 'l': o->listen = optarg; break;
		case 'c': o->certificate = optarg; break;
		case 'p': o->password_file = optarg; break;
		case 'u': o->local_users = optarg; break;
		case 'a': o->agent = optarg; break;
		case 'n': o->loops = (unsigned)atoi(optarg); break;
		case 'e': o->election_ms = (unsigned)atoi(optarg); break;
		case 's': o->snapshot_entries = (unsigned)atoi(optarg); break;
		case 'b': o->snapshot_large = (unsigned)atoi(optarg); break;
		case 'v': o->log = log_level_parse(optarg); break;
		case 'r': o->allow_root = true; break;
		case 'x': o->no_projection = true; break;
		case 'w': o->witness = true; break;
		case 'h': fputs(usage, stdout); exit(0);
		default: return false;
		}
	}
	if ((strcmp(o->local_users, "file") != 0 && strcmp(o->local_users, "pam") != 0) ||
		o->dir == NULL || (o->listen == NULL) != o->witness || o->log < 0 || o->loops < 1 ||
		o->loops > POOL_LOOPS_MAX || optind != argc) {
		fputs(usage, stderr);
		return false;
	}
	return true;
}

static int listen_api(const char *text)
{
	char ip[64];
	const char *colon = strrchr(text, ':');
	size_t n = colon != NULL ? (size_t)(colon - text) : 0;
	int fd;

	if (n == 0 || n >= sizeof ip) {
		fprintf(stderr, "xpoold: --listen %s: not IP:PORT\n", text);
		return -1;
	}
	memcpy(ip, text, n);
	ip[n] = 0;
	fd = listener_socket(ip, (unsigned)atoi(colon + 1));
	if (fd < 0)
		fprintf(stderr, "xpoold: cannot listen on %s: %s%s\n", text, strerror(errno),
			errno == EADDRINUSE ? "; another program uses the port (see: ss -ltnp)"
					    : "");
	return fd;
}

static const char *in_dir(const char *given, const char *dir, const char *name, char out[512])
{
	if (given != NULL)
		return given;
	snprintf(out, 512, "%s/%s", dir, name);
	return out;
}

static int run(const struct options *o, struct env *env, struct members *members, char **argv)
{
	char certificate[512], passwords[512], agent[512], control[512], address[520];
	const char *pem = in_dir(o->certificate, o->dir, "member.pem", certificate);
	struct tls *server = tls_server_new(env, pem, pem), *peer = tls_peer_new(env, pem, pem);
	struct pool_config config = { .env = env, .loops = o->witness ? 1 : o->loops };
	struct pool *pool;
	int fd = -1, sig;

	if (server == NULL || peer == NULL)
		return 1;
	if (!o->witness && (fd = listen_api(o->listen)) < 0)
		return 1;
	snprintf(address, sizeof address, "unix:%s", in_dir(o->agent, o->dir, "agent.sock", agent));
	config.password_file = in_dir(o->password_file, o->dir, "passwd", passwords);
	config.local_pam = strcmp(o->local_users, "pam") == 0;
	config.agent = address;
	config.members = members;
	config.db = (struct db_config){ .pool_uuid = members->pool_uuid,
		.epoch = members->n_epochs,
		.epoch_id = members->epochs[members->n_epochs - 1],
		.raft_id = members->self,
		.members = members->m,
		.n_members = members->n,
		.members_index = members->index,
		.tls = peer,
		.dir = o->dir,
		.projection_off = o->no_projection || o->witness,
		.election_ms = o->election_ms,
		.snapshot_entries = o->snapshot_entries,
		.snapshot_trailing = o->snapshot_entries,
		.snapshot_large = o->snapshot_large,
		.heartbeat_ms = o->election_ms / 10 };
	if (!o->witness && !config.local_pam && access(config.password_file, R_OK) != 0) {
		fprintf(stderr, "xpoold: %s: %s; nobody could log in\n", config.password_file,
			strerror(errno));
		return 1;
	}
	if (pool_new(&pool, &config) != 0)
		return 1;
	snprintf(control, sizeof control, "%s/control.sock", o->dir);
	unlink(control); /* left by a run that was killed; the lock on the directory says nobody
			    uses it */
	if ((fd >= 0 && pool_listen(pool, fd, server) != 0) || pool_control(pool, control) != 0) {
		fprintf(stderr, "xpoold: cannot serve: %s\n", strerror(errno));
		return 1;
	}
	if (fd >= 0)
		close(fd);
	log_info(env, "event=started listen=%s member=%llu pool=%s", o->witness ? "no" : o->listen,
		(unsigned long long)members->self, members->pool_uuid);
	pool_start(pool);
	sig = env_uv_signals_wait();
	log_info(env, "event=stopping signal=%d", sig);
	pool_stop(pool, STOP_GRACE_MS);
	unlink(control);
	if (pool_again(pool))
		execv("/proc/self/exe", argv);
	/* Every acknowledged write is on a majority's disks: leaving here is as safe as a crash,
	 * which has to be safe anyway, and closing a leader can crash the library
	 * (docs/decisions/0004). Without exit handlers: the other threads still run. */
	_exit(0);
}

static bool is_witness(const struct members *members)
{
	for (unsigned i = 0; i < members->n; i++)
		if (members->m[i].raft_id == members->self)
			return members->m[i].witness;
	return false;
}

int main(int argc, char **argv)
{
	struct options o;
	struct env env;
	static struct members members;
	char path[512], why[256] = "";
	int taken;

	if (!parse(argc, argv, &o))
		return 2;
	if (geteuid() == 0 && !o.allow_root) {
		fprintf(stderr, "xpoold: refuses to run as root: it reads bytes from the network. "
				"Use a user of its own\n");
		return 2;
	}
	env_uv_init(&env, "xpoold");
	env.log.level = (enum log_level)o.log;
	env_uv_signals_block();
	taken = members_take_next(&env, o.dir);
	if (taken > 0)
		execv("/proc/self/exe", argv);
	if (taken != 0)
		return 1;
	snprintf(path, sizeof path, "%s/members.json", o.dir);
	if (!members_read(path, &members, why, sizeof why) || members.self == 0) {
		fprintf(stderr, "xpoold: %s: %s; run xpoolctl init first\n", path,
			members.self == 0 && why[0] == 0 ? "no self" : why);
		return 1;
	}
	if (members.left) {
		fprintf(stderr,
			"xpoold: %s: this member has left its pool; set the directory aside and "
			"make "
			"a new one to use this host again\n",
			path);
		return 1;
	}
	if (is_witness(&members) != o.witness) {
		fprintf(stderr, "xpoold: %s: this member is %s\n", path,
			o.witness ? "a host of the pool: start it with --listen, without --witness"
				  : "a witness: start it with --witness");
		return 2;
	}
	return run(&o, &env, &members, argv);
}
