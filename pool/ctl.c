/* xpoolctl: what must work without a pool, on the member's own machine. */
#include "pool/ctl_priv.h"
#include "pool/members.h"

#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static const char usage[] =
	"usage: xpoolctl COMMAND [options]\n"
	"\n"
	"  certificate --address IP --name NAME --out FILE [--days N]   make a key and a "
	"self-signed certificate; prints the fingerprint\n"
	"  fingerprint FILE                                  SHA-256 fingerprint of a certificate\n"
	"  passwd --file FILE --user USER                    set a user's password, read from "
	"standard input\n"
	"  init --dir DIR --members FILE --id N              make the data directory of member N "
	"of a new pool\n"
	"  status --dir DIR                                  role, term, applied index, state "
	"hash, domains\n"
	"  counters --dir DIR                                what this member has counted\n"
	"  coverage --dir DIR                                which declared messages are written\n"
	"  db log|at|check --dir DIR ...                     who changed what; how it was; is all "
	"sound (xpoolctl db --help)\n"
	"  sql --dir DIR 'SELECT ...'                        ask the database in SQL, reading "
	"only (xpoolctl sql --help)\n"
	"  schema --dir DIR [raise]                          which members run which; raise the "
	"active one\n"
	"  recover --dir DIR [--yes]                         with a majority lost for good: go on "
	"with this copy alone; says first what is given up\n"
	"  adopt --dir DIR --members FILE [--yes]            follow a pool that went on without "
	"this member; its own log is set aside\n"
	"  add --dir DIR --members NEW --out FILE            on a member: let a new host in. NEW "
	"is its "
	"entry of members.json, without id; FILE is for it\n"
	"  enlist --dir DIR --members FILE                   on the new host: make its data "
	"directory; "
	"then start xpoold\n"
	"  witness add --dir DIR --address IP:PORT --fingerprint F --out FILE\n"
	"                                                    on a member: a machine without guests "
	"gets a vote, so that two hosts may lose one. On it: certificate, enlist with FILE, "
	"xpoold --witness\n"
	"  witness remove --dir DIR                          on a member: it has none any more\n"
	"  members --dir DIR                                 who belongs to the pool, who votes, "
	"how "
	"many may be lost\n"
	"  join --dry-run --dir DIR --address IP --user USER [--force]   what keeps this host from "
	"joining the pool at IP, all of it; password on standard input. It joins by xe pool-join\n"
	"  uuid                                              a random uuid\n";

enum { CONTROL_TIMEOUT_S = 10 };

int ctl_fail(const char *what, const char *why)
{
	fprintf(stderr, "xpoolctl: %s: %s\n", what, why);
	return 1;
}

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = { { "dir", 1, NULL, 'd' }, { "members", 1, NULL, 'm' },
		{ "id", 1, NULL, 'i' }, { "address", 1, NULL, 'a' }, { "name", 1, NULL, 'n' },
		{ "out", 1, NULL, 'o' }, { "file", 1, NULL, 'f' }, { "user", 1, NULL, 'u' },
		{ "field", 1, NULL, 'F' }, { "since", 1, NULL, 's' }, { "json", 0, NULL, 'j' },
		{ "yes", 0, NULL, 'y' }, { "dry-run", 0, NULL, 'r' }, { "force", 0, NULL, 'O' },
		{ "fingerprint", 1, NULL, 'P' }, { "days", 1, NULL, 'D' }, { "help", 0, NULL, 'h' },
		{ NULL, 0, NULL, 0 } };
	int c;

	*o = (struct options){ .days = TLS_CERTIFICATE_DAYS };
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'd': o->dir = optarg; break;
		case 'm': o->members = optarg; break;
		case 'i': o->id = strtoull(optarg, NULL, 10); break;
		case 'a': o->address = optarg; break;
		case 'n': o->name = optarg; break;
		case 'o': o->out = optarg; break;
		case 'f': o->file = optarg; break;
		case 'u': o->user = optarg; break;
		case 'F': o->field = optarg; break;
		case 's': o->since = optarg; break;
		case 'j': o->json = true; break;
		case 'y': o->yes = true; break;
		case 'r': o->dry = true; break;
		case 'P': o->fingerprint = optarg; break;
		case 'O': o->force = true; break;
		case 'D': o->days = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'h': o->help = true; break;
		default: return false;
		}
	}
	o->rest = argv + optind;
	o->n_rest = argc - optind;
	return true;
}

static int print_fingerprint(const char *path)
{
	uint8_t f[TLS_FINGERPRINT_LEN];
	char text[TLS_PRINT_TEXT];

	if (!tls_file_fingerprint(path, f))
		return ctl_fail(path, "no certificate can be read from it");
	tls_fingerprint_text(f, text);
	puts(text);
	return 0;
}

static int cmd_certificate(const struct options *o)
{
	if (o->address == NULL || o->name == NULL || o->out == NULL)
		return ctl_fail("certificate", "needs --address, --name and --out");
	if (tls_certificate_make(o->out, o->name, o->address, o->days) != 0)
		return ctl_fail(
			o->out, errno == EINVAL ? "the address is no IP address" : strerror(errno));
	return print_fingerprint(o->out);
}

static int cmd_fingerprint(const struct options *o)
{
	return o->n_rest == 1 ? print_fingerprint(o->rest[0])
			      : ctl_fail("fingerprint", "needs a file");
}

/* Replace or append one line; the file changes by rename. */
static int cmd_passwd(const struct options *o)
{
	char password[512], temporary[512], line[1024], *hash;
	struct crypt_data *data;
	size_t n;
	FILE *in, *out;
	int fd;

	if (o->file == NULL || o->user == NULL || strpbrk(o->user, ":\n") != NULL)
		return ctl_fail("passwd", "needs --file and --user");
	if (fgets(password, sizeof password, stdin) == NULL)
		return ctl_fail("passwd", "no password on standard input");
	password[strcspn(password, "\n")] = 0;
	data = mem_new(sizeof *data);
	hash = crypt_r(password, crypt_gensalt("$6$", 0, NULL, 0), data);
	if (hash == NULL || hash[0] == '*')
		return ctl_fail("passwd", "crypt failed");
	snprintf(temporary, sizeof temporary, "%s.new", o->file);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return ctl_fail(temporary, strerror(errno));
	out = must(fdopen(fd, "w"));
	in = fopen(o->file, "re");
	n = strlen(o->user);
	while (in != NULL && fgets(line, sizeof line, in) != NULL)
		if (strncmp(line, o->user, n) != 0 || line[n] != ':')
			fputs(line, out);
	if (in != NULL)
		fclose(in);
	fprintf(out, "%s:%s\n", o->user, hash);
	free(data);
	if (fflush(out) != 0 || fsync(fd) != 0 || fclose(out) != 0 ||
		rename(temporary, o->file) != 0)
		return ctl_fail(o->file, strerror(errno));
	return 0;
}

static int make_dir(const char *path)
{
	return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : -1;
}

int ctl_folder_new(const char *dir, char *members_out, size_t n)
{
	if (make_dir(dir) != 0)
		return ctl_fail(dir, strerror(errno));
	snprintf(members_out, n, "%s/members.json", dir);
	return access(members_out, F_OK) != 0
		       ? 0
		       : ctl_fail(dir,
				 "it belongs to a pool already; an existing data directory is "
				 "never overwritten");
}

static int cmd_init(const struct options *o)
{
	static struct members members;
	struct consensus_voter voters[CHANNEL_PEERS_MAX];
	const char *self = NULL;
	char path[512], why[256];
	struct env env;

	if (o->dir == NULL || o->members == NULL || o->id == 0)
		return ctl_fail("init", "needs --dir, --members and --id");
	if (!members_read(o->members, &members, why, sizeof why))
		return ctl_fail(o->members, why);
	for (unsigned i = 0; i < members.n; i++) {
		voters[i] = (struct consensus_voter){ members.m[i].raft_id, members.m[i].host_uuid,
			members.m[i].standby };
		if (members.m[i].raft_id == o->id)
			self = members.m[i].host_uuid;
	}
	if (self == NULL)
		return ctl_fail(o->members, "there is no member with this --id");
	if (ctl_folder_new(o->dir, path, sizeof path) != 0)
		return 1;
	snprintf(path, sizeof path, "%s/raft", o->dir);
	if (make_dir(path) != 0)
		return ctl_fail(path, strerror(errno));
	env_uv_init(&env, "xpoolctl");
	if (consensus_bootstrap(consensus_disk_open(loop_new(&env, "init"), o->dir), o->id, self,
		    voters, members.n) != 0)
		return ctl_fail(path, "the first configuration cannot be written");
	members.self = o->id;
	snprintf(path, sizeof path, "%s/members.json", o->dir);
	if (members_write(path, &members) != 0)
		return ctl_fail(path, strerror(errno));
	return 0;
}

int ctl_ask(const char *dir, const char *word, unsigned timeout_s, struct buf *out)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = timeout_s };
	struct buf line = { 0 };
	char buf[4096];
	int fd, e = 0;
	ssize_t n;

	if ((size_t)snprintf(a.sun_path, sizeof a.sun_path, "%s/control.sock", dir) >=
		sizeof a.sun_path)
		return ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	buf_printf(&line, "%s\n", word);
	if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0)
		e = errno == ENOENT ? ECONNREFUSED : errno;
	else if (write(fd, line.data, line.len) != (ssize_t)line.len)
		e = errno;
	while (e == 0 && (n = read(fd, buf, sizeof buf)) != 0) {
		if (n < 0)
			e = errno == EAGAIN ? ETIMEDOUT : errno;
		else
			buf_put(out, buf, (size_t)n);
	}
	close(fd);
	buf_fini(&line);
	return e;
}

static int ask(const struct options *o, const char *word)
{
	struct buf out = { 0 };
	int e;

	if (o->dir == NULL)
		return ctl_fail(word, "needs --dir");
	e = ctl_ask(o->dir, word, CONTROL_TIMEOUT_S, &out);
	if (out.len > 0)
		fwrite(out.data, 1, out.len, stdout);
	buf_fini(&out);
	if (e != 0)
		return ctl_fail(
			o->dir, e == ECONNREFUSED ? "xpoold does not run here" : strerror(e));
	return 0;
}

static int cmd_status(const struct options *o)
{
	return ask(o, "status");
}

static int cmd_coverage(const struct options *o)
{
	return ask(o, "coverage");
}

static int cmd_members(const struct options *o)
{
	return ask(o, "members");
}

static int cmd_counters(const struct options *o)
{
	return ask(o, "counters");
}

static int cmd_schema(const struct options *o)
{
	if (o->n_rest > 0 && strcmp(o->rest[0], "raise") != 0)
		return ctl_fail(o->rest[0], "schema alone, or schema raise");
	return ask(o, o->n_rest == 0 ? "schema" : "schema-raise");
}

static int cmd_uuid(const struct options *o)
{
	char uuid[UUID_LEN + 1];
	struct env env;

	(void)o;
	env_uv_init(&env, "xpoolctl");
	env_uuid(&env, uuid);
	printf("%s\n", uuid);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const struct options *o);
	} commands[] = { { "certificate", cmd_certificate }, { "fingerprint", cmd_fingerprint },
		{ "passwd", cmd_passwd }, { "init", cmd_init }, { "status", cmd_status },
		{ "counters", cmd_counters }, { "coverage", cmd_coverage }, { "db", ctl_db },
		{ "sql", ctl_sql }, { "schema", cmd_schema }, { "recover", ctl_recover },
		{ "adopt", ctl_adopt }, { "add", ctl_add }, { "enlist", ctl_enlist },
		{ "witness", ctl_witness }, { "members", cmd_members }, { "join", ctl_join },
		{ "uuid", cmd_uuid } };
	struct options o;
	bool own_help;

	if (argc < 2 || !parse(argc - 1, argv + 1, &o)) {
		fputs(usage, stderr);
		return 2;
	}
	own_help = strcmp(argv[1], "db") == 0 || strcmp(argv[1], "sql") == 0;
	if ((o.help && !own_help) || strcmp(argv[1], "--help") == 0 ||
		strcmp(argv[1], "help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(&o);
	fprintf(stderr, "xpoolctl: unknown command %s\n%s", argv[1], usage);
	return 2;
}
