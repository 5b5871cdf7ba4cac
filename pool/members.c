#include "pool/members.h"
#include "rpc/base/file.h"
#include "rpc/wire/codec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool take_text(const struct val *from, const char *key, char *out, size_t size,
	const char *where, char *why, size_t n)
{
	const char *s = val_get_s(from, key);

	if (s == NULL || *s == 0 || strlen(s) >= size) {
		snprintf(why, n, "%s: \"%s\" is missing, empty or too long", where, key);
		return false;
	}
	strcpy(out, s);
	return true;
}

static bool is_set(const struct val *from, const char *key)
{
	const struct val *v = val_get(from, key);

	return v != NULL && v->kind == VAL_BOOL && v->b;
}

static bool take_member(
	const struct val *from, struct db_member *out, unsigned i, char *why, size_t n)
{
	const struct val *id = val_get(from, "id");
	char where[32];

	snprintf(where, sizeof where, "member %u", i + 1);
	if (id == NULL || id->kind != VAL_INT || id->i < 1) {
		snprintf(why, n, "%s: \"id\" is no positive number", where);
		return false;
	}
	out->raft_id = (uint64_t)id->i;
	out->witness = is_set(from, "witness");
	if (!take_text(from, "host", out->host_uuid, sizeof out->host_uuid, where, why, n) ||
		!take_text(from, "name", out->name, sizeof out->name, where, why, n) ||
		(!out->witness && !take_text(from, "address", out->api_address,
					  sizeof out->api_address, where, why, n)) ||
		!take_text(from, "channel", out->channel_address, sizeof out->channel_address,
			where, why, n) ||
		!take_text(from, "certificate", out->certificate, sizeof out->certificate, where,
			why, n))
		return false;
	out->standby = is_set(from, "standby");
	if (!uuid_ok(out->host_uuid)) {
		snprintf(why, n, "%s: \"host\" is no uuid", where);
		return false;
	}
	return true;
}

static bool distinct(const struct members *m, char *why, size_t n)
{
	for (unsigned i = 0; i < m->n; i++)
		for (unsigned k = i + 1; k < m->n; k++)
			if (m->m[i].raft_id == m->m[k].raft_id ||
				strcmp(m->m[i].host_uuid, m->m[k].host_uuid) == 0 ||
				strcmp(m->m[i].channel_address, m->m[k].channel_address) == 0) {
				snprintf(why, n,
					"members %u and %u share an id, a host or a channel "
					"address",
					i + 1, k + 1);
				return false;
			}
	return true;
}

static bool take_epochs(const struct val *from, struct members *out, char *why, size_t n)
{
	const struct val *list = val_get(from, "epochs");

	if (list == NULL) {
		strcpy(out->epochs[out->n_epochs++], out->pool_uuid);
		return true;
	}
	for (; list->kind == VAL_SET && out->n_epochs < list->n && list->n <= EPOCHS_MAX;
		out->n_epochs++) {
		const struct val *id = &list->items[out->n_epochs];

		if (id->kind != VAL_STRING || !uuid_ok(id->s))
			break;
		strcpy(out->epochs[out->n_epochs], id->s);
	}
	if (out->n_epochs == 0 || out->n_epochs != list->n) {
		snprintf(why, n, "\"epochs\" is no list of 1 to %d uuids", EPOCHS_MAX);
		return false;
	}
	return true;
}

bool members_parse(
	struct arena *a, const char *text, size_t len, struct members *out, char *why, size_t n)
{
	const char *fault;
	const struct val *list, *number;
	struct val v;

	*out = (struct members){ 0 };
	if (rpc_json_parse(a, text, len, &v, &fault) != 0 || v.kind != VAL_MAP) {
		snprintf(why, n, "%s", fault != NULL ? fault : "it is no JSON object");
		return false;
	}
	if (!take_text(&v, "pool", out->pool_uuid, sizeof out->pool_uuid, "file", why, n) ||
		!uuid_ok(out->pool_uuid)) {
		snprintf(why, n, "\"pool\" is no uuid");
		return false;
	}
	if (!take_epochs(&v, out, why, n))
		return false;
	if ((number = val_get(&v, "self")) != NULL && number->kind == VAL_INT)
		out->self = (uint64_t)number->i;
	if ((number = val_get(&v, "index")) != NULL && number->kind == VAL_INT && number->i > 0)
		out->index = (uint64_t)number->i;
	out->left = is_set(&v, "left");
	out->begun = is_set(&v, "begun");
	list = val_get(&v, "members");
	if (list == NULL || list->kind != VAL_SET || list->n == 0 || list->n > CHANNEL_PEERS_MAX) {
		snprintf(why, n, "\"members\" is no list of 1 to %d members", CHANNEL_PEERS_MAX);
		return false;
	}
	for (; out->n < list->n; out->n++)
		if (!take_member(&list->items[out->n], &out->m[out->n], out->n, why, n))
			return false;
	return distinct(out, why, n);
}

bool members_read(const char *path, struct members *out, char *why, size_t n)
{
	char *text = mem_new(MEMBERS_FILE_MAX);
	FILE *f = fopen(path, "re");
	struct arena a;
	bool ok = false;
	size_t len;

	if (f == NULL) {
		snprintf(why, n, "%s", strerror(errno));
	} else {
		arena_init(&a);
		len = fread(text, 1, MEMBERS_FILE_MAX, f);
		ok = members_parse(&a, text, len, out, why, n);
		arena_fini(&a);
		fclose(f);
	}
	free(text);
	return ok;
}

static struct val entry(struct arena *a, const struct db_member *m)
{
	struct val one = val_map();

	if (m->raft_id != 0)
		val_map_push(a, &one, "id", val_int((int64_t)m->raft_id));
	val_map_push(a, &one, "host", val_string(m->host_uuid));
	val_map_push(a, &one, "name", val_string(m->name));
	if (!m->witness)
		val_map_push(a, &one, "address", val_string(m->api_address));
	val_map_push(a, &one, "channel", val_string(m->channel_address));
	val_map_push(a, &one, "certificate", val_string(m->certificate));
	if (m->standby)
		val_map_push(a, &one, "standby", val_bool(true));
	if (m->witness)
		val_map_push(a, &one, "witness", val_bool(true));
	return one;
}

void members_put_one(struct buf *out, const struct db_member *m)
{
	struct arena a;
	struct val v;

	arena_init(&a);
	v = entry(&a, m);
	val_json(out, &v);
	arena_fini(&a);
}

void members_put(const struct members *members, struct buf *out)
{
	struct arena a;
	struct val v = val_map(), list = val_set(), epochs = val_set();

	arena_init(&a);
	for (unsigned i = 0; i < members->n; i++)
		val_set_push(&a, &list, entry(&a, &members->m[i]));
	val_map_push(&a, &v, "pool", val_string(members->pool_uuid));
	for (unsigned i = 0; i < members->n_epochs; i++)
		val_set_push(&a, &epochs, val_string(members->epochs[i]));
	val_map_push(&a, &v, "epochs", epochs);
	val_map_push(&a, &v, "self", val_int((int64_t)members->self));
	if (members->index != 0)
		val_map_push(&a, &v, "index", val_int((int64_t)members->index));
	if (members->left)
		val_map_push(&a, &v, "left", val_bool(true));
	if (members->begun)
		val_map_push(&a, &v, "begun", val_bool(true));
	val_map_push(&a, &v, "members", list);
	val_json(out, &v);
	buf_puts(out, "\n");
	arena_fini(&a);
}

int members_write(const char *path, const struct members *members)
{
	struct buf text = { 0 };
	int rc;

	members_put(members, &text);
	rc = file_replace(path, text.data, text.len);
	buf_fini(&text);
	return rc == 0 ? 0 : -1;
}

bool members_parse_one(
	struct arena *a, struct val *entry, struct db_member *out, char *why, size_t n)
{
	*out = (struct db_member){ 0 };
	if (entry->kind != VAL_MAP) {
		snprintf(why, n, "it is no JSON object");
		return false;
	}
	if (val_get(entry, "id") == NULL)
		val_map_push(a, entry, "id", val_int(1)); /* whoever adds it gives it another */
	return take_member(entry, out, 0, why, n);
}

const char *members_unrelated(const struct members *ours, const struct members *theirs)
{
	const struct db_member *self = NULL;
	bool known = false;

	for (unsigned i = 0; i < ours->n; i++)
		if (ours->m[i].raft_id == ours->self)
			self = &ours->m[i];
	if (strcmp(ours->pool_uuid, theirs->pool_uuid) != 0)
		return "it is of another pool";
	if (theirs->n_epochs <= ours->n_epochs)
		return "it is of no newer epoch than this member";
	for (unsigned i = 0; i < ours->n_epochs; i++)
		if (strcmp(ours->epochs[i], theirs->epochs[i]) != 0)
			return "its epoch does not descend from this member's: the pool was "
			       "recovered "
			       "twice. To follow it all the same, keep this directory aside and "
			       "let "
			       "the member join as a new one";
	for (unsigned i = 0; i < theirs->n; i++)
		known |= theirs->m[i].raft_id == ours->self && self != NULL &&
			 strcmp(theirs->m[i].host_uuid, self->host_uuid) == 0;
	return known ? NULL : "this member is not in it";
}

static struct consensus_disk *disk_of(struct env *env, const char *dir)
{
	return consensus_disk_open(loop_new(env, "members"), dir);
}

/* Last: until then the directory can be made again. */
static int keep(struct env *env, const char *dir, const struct members *members)
{
	char path[512];

	snprintf(path, sizeof path, "%s/members.json", dir);
	if (members_write(path, members) == 0)
		return 0;
	log_err(env, "event=members_not_kept file=%s why=\"%s\"", path, strerror(errno));
	return ERR_IO;
}

int members_enlist(struct env *env, const char *dir, const struct members *members)
{
	return consensus_enlist(disk_of(env, dir), members->self) == 0 ? keep(env, dir, members)
								       : ERR_IO;
}

/* An empty log in the place of the one that is there. Once that is aside it is said so, so that the
 * log of a founding that is killed is not kept beside it, however often. */
static int clear_place(struct env *env, const char *dir, struct members *members)
{
	char path[512];

	if (members->begun && consensus_disk_clear(dir) != 0) {
		log_err(env, "event=pool_not_founded dir=%s why=\"%s\"", dir, strerror(errno));
		return ERR_IO;
	}
	if (consensus_enlist(disk_of(env, dir), members->self) != 0)
		return ERR_IO;
	members->begun = true;
	snprintf(path, sizeof path, "%s/" MEMBERS_NEXT, dir);
	if (members_write(path, members) == 0)
		return 0;
	log_err(env, "event=members_not_kept file=%s why=\"%s\"", path, strerror(errno));
	return ERR_IO;
}

/* Its log has one entry, which says that it is the only voter. Killed, it is run again. */
static int found(struct env *env, const char *dir, struct members *members)
{
	struct consensus_recovery first = { .term = 1, .new_term = 2 };
	struct consensus_voter self = { .raft_id = members->self,
		.address = members->m[0].host_uuid };

	if (members->n != 1 || members->m[0].raft_id != members->self) {
		log_err(env, "event=pool_not_founded why=\"it has other members\"");
		return ERR_IO;
	}
	if (clear_place(env, dir, members) != 0 ||
		consensus_recover(
			disk_of(env, dir), dir, members->self, self.address, &self, 1, &first) != 0)
		return ERR_IO;
	members->begun = false;
	return keep(env, dir, members);
}

/* What members.json says is kept, and the pool of `next` takes its place. */
static int take(struct env *env, const char *dir, struct members *next)
{
	struct members *old = mem_new(sizeof *old);
	char path[512], aside[600], why[256];
	bool read, same, newer, taken;
	int rc = 0;

	snprintf(path, sizeof path, "%s/members.json", dir);
	read = members_read(path, old, why, sizeof why);
	snprintf(aside, sizeof aside, "%s/members.%s.json", dir, old->pool_uuid);
	same = read && strcmp(old->pool_uuid, next->pool_uuid) == 0 && old->self == next->self;
	newer = same && members_unrelated(old, next) == NULL;
	taken = same && !newer;
	if (read && !taken && members_write(aside, old) != 0) {
		log_err(env, "event=members_not_kept file=%s why=\"%s\"", aside, strerror(errno));
		rc = ERR_IO;
	}
	free(old);
	if (taken || rc != 0)
		return rc;
	if (newer)
		return consensus_abandon(disk_of(env, dir), next->self) == 0 ? keep(env, dir, next)
									     : ERR_IO;
	return next->index == 0 ? found(env, dir, next) : members_enlist(env, dir, next);
}

int members_alone(struct env *env, const char *dir, const struct members *old)
{
	struct members *next = mem_new(sizeof *next);
	char path[512];
	int rc = ERR_IO;

	for (unsigned i = 0; i < old->n; i++)
		if (old->m[i].raft_id == old->self)
			next->m[next->n++] = old->m[i];
	if (next->n == 1) {
		env_uuid(env, next->pool_uuid);
		strcpy(next->epochs[next->n_epochs++], next->pool_uuid);
		next->self = next->m[0].raft_id = 1;
		next->m[0].standby = false;
		snprintf(path, sizeof path, "%s/" MEMBERS_NEXT, dir);
		rc = members_write(path, next) == 0 ? 0 : ERR_IO;
	}
	if (rc != 0)
		log_err(env, "event=members_not_kept file=" MEMBERS_NEXT " why=\"%s\"",
			next->n == 1 ? strerror(errno) : "this member is not in the list");
	free(next);
	return rc;
}

static int remove_in(struct env *env, const char *dir, const char *name)
{
	char path[512];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	if ((file_remove(path) == 0 || errno == ENOENT) && folder_sync(dir) == 0)
		return 0;
	log_err(env, "event=file_not_removed file=%s why=\"%s\"", path, strerror(errno));
	return ERR_IO;
}

int members_take_next(struct env *env, const char *dir)
{
	struct members *next;
	char path[512], lock[512], why[256] = "";
	int rc = ERR_IO;

	snprintf(path, sizeof path, "%s/" MEMBERS_NEXT, dir);
	if (access(path, F_OK) != 0)
		return 0;
	snprintf(lock, sizeof lock, "%s/lock", dir);
	if (file_lock(lock) != 0) {
		log_err(env, "event=not_joined file=%s why=\"%s\"", lock, strerror(errno));
		return ERR_IO;
	}
	next = mem_new(sizeof *next);
	if (!members_read(path, next, why, sizeof why) || next->self == 0)
		log_err(env, "event=not_joined file=%s why=\"%s\"", path, why);
	else if (take(env, dir, next) == 0 && remove_in(env, dir, MEMBERS_JOIN) == 0)
		rc = remove_in(env, dir, MEMBERS_NEXT); /* last: until then it is run again */
	if (rc == 0)
		log_info(env, "event=%s pool=%s member=%llu",
			next->index == 0 ? "pool_of_one" : "joined", next->pool_uuid,
			(unsigned long long)next->self);
	free(next);
	return rc == 0 ? 1 : rc;
}
