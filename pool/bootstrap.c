/* The first leader creates the pool's rows; each leader says that it is the coordinator. */
#include "pool/pool_priv.h"

#include <stdio.h>
#include <string.h>

enum { EPOCH_TEXT = 64 };

static struct val text_map(struct arena *a, const char *const (*pairs)[2], size_t n)
{
	struct val v = val_map();

	for (size_t i = 0; i < n; i++)
		val_map_push(a, &v, pairs[i][0], val_string(pairs[i][1]));
	return v;
}

static void create_host(struct pool *pool, struct db_txn *txn, struct arena *a,
	const struct db_member *m, const char *network, bool live, char ref[DB_REF_MAX + 1])
{
	static const char *const version[][2] = { { "product_brand", "Xpool" },
		{ "product_version", "8.3.0" }, { "product_version_text", "8.3" },
		{ "xapi", "26.17" }, { "xpool", "0.1" }, { "platform_name", "Xpool" },
		{ "platform_version", "3.4.0" }, { "dbv", "0" }, { "network_backend", "bridge" } };
	struct val f[HOST_FIELD_COUNT] = { { .kind = VAL_VOID } },
		   metrics[HOST_METRICS_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char uuid[UUID_LEN + 1], metrics_ref[DB_REF_MAX + 1];

	pool_ref(pool, uuid, metrics_ref);
	metrics[HOST_METRICS_uuid] = val_string(uuid);
	metrics[HOST_METRICS_live] = val_bool(live);
	db_txn_create(txn, MODEL_CLASS_host_metrics, metrics_ref, metrics);
	f[HOST_metrics] = val_string(metrics_ref);
	pool_ref(pool, uuid, ref);
	f[HOST_uuid] = val_string(m->host_uuid);
	f[HOST_name_label] = f[HOST_hostname] = val_string(m->name);
	f[HOST_address] = val_string(m->api_address);
	f[HOST_API_version_major] = val_int(2);
	f[HOST_API_version_minor] = val_int(23);
	f[HOST_API_version_vendor] = val_string("Xpool");
	f[HOST_enabled] = val_bool(true);
	f[HOST_software_version] = text_map(a, version, ARRAY_LEN(version));
	f[HOST_sched_policy] = val_string("credit2");
	db_txn_create(txn, MODEL_CLASS_host, ref, f);
	network_create_management_pif(pool, txn, a, network, ref, m->api_address);
}

static void create_member(
	struct db_txn *txn, const struct db_member *m, const char *host_ref, const char *state)
{
	struct val f[_MEMBER_FIELD_COUNT] = { { .kind = VAL_VOID } };

	f[_MEMBER_host] = val_string(host_ref);
	f[_MEMBER_raft_id] = val_int((int64_t)m->raft_id);
	f[_MEMBER_address] = val_string(m->channel_address);
	f[_MEMBER_certificate] = val_string(m->certificate);
	f[_MEMBER_state] = val_string(state);
	db_txn_create(txn, MODEL_CLASS__member, m->host_uuid, f);
}

void bootstrap_newcomer(struct pool *pool, const struct db_view *view, struct db_txn *txn,
	struct arena *a, const struct db_member *m, char ref[DB_REF_MAX + 1])
{
	strcpy(ref, NULL_REF);
	db_txn_need_no_row(txn, MODEL_CLASS__member, m->host_uuid);
	if (m->witness) {
		create_member(txn, m, NULL_REF, "joining");
		return;
	}
	create_host(pool, txn, a, m, network_management(view, NULL), false, ref);
	create_member(txn, m, ref, "joining");
	sr_share(pool, view, txn, a, ref);
}

static void set_config(struct db_txn *txn, const char *name, const char *value)
{
	struct val f[_CONFIG_FIELD_COUNT];

	f[_CONFIG_value] = val_string(value);
	db_txn_create(txn, MODEL_CLASS__config, name, f);
}

/* Number and id. */
static void epoch_text(const struct pool *pool, char out[EPOCH_TEXT])
{
	snprintf(out, EPOCH_TEXT, "%llu %s", (unsigned long long)pool->cfg.db.epoch,
		pool->cfg.db.epoch_id);
}

static void create_all(struct pool *pool, struct db_txn *txn, struct arena *a)
{
	struct db_member members[CHANNEL_PEERS_MAX];
	uint64_t index;
	unsigned n = db_members(pool->db, members, &index);
	char ref[DB_REF_MAX + 1], master[DB_REF_MAX + 1] = NULL_REF, network[DB_REF_MAX + 1],
						      uuid[UUID_LEN + 1], key[2 * 32 + 1],
						      epoch[EPOCH_TEXT];
	uint8_t secret[32];
	struct val f[POOL_FIELD_COUNT] = { { .kind = VAL_VOID } };

	db_txn_need_no_row(txn, MODEL_CLASS__config, "session_key");
	network_create_management(pool, txn, network);
	for (unsigned i = 0; i < n; i++) {
		strcpy(ref, NULL_REF);
		if (!members[i].witness)
			create_host(pool, txn, a, &members[i], network, true, ref);
		create_member(txn, &members[i], ref, "joined");
		if (members[i].raft_id == db_raft_id(pool->db))
			strcpy(master, ref);
	}
	pool_ref(pool, uuid, ref);
	f[POOL_uuid] = val_string(db_pool_uuid(pool->db));
	f[POOL_name_label] = val_string("xpool");
	f[POOL_master] = val_string(master);
	f[POOL_tls_verification_enabled] = val_bool(true);
	db_txn_create(txn, MODEL_CLASS_pool, ref, f);
	env_random(pool->env, secret, sizeof secret);
	for (unsigned i = 0; i < sizeof secret; i++)
		snprintf(key + 2 * i, 3, "%02x", secret[i]);
	set_config(txn, "session_key", key);
	epoch_text(pool, epoch);
	set_config(txn, "epoch", epoch);
}

/* What a fresh coordinator has to say; nothing: no operation in the transaction. */
static void compose(
	struct pool *pool, const struct db_view *view, struct db_txn *txn, struct arena *a)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS_pool);
	const struct db_row *row = db_next(&c), *self = pool_self(pool, view);
	char epoch[EPOCH_TEXT];

	if (row == NULL) {
		create_all(pool, txn, a);
	} else if (self != NULL && strcmp(db_row_s(row, POOL_master), db_row_ref(self)) != 0) {
		db_txn_need_row(txn, MODEL_CLASS_pool, db_row_ref(row));
		db_txn_set(txn, MODEL_CLASS_pool, db_row_ref(row), POOL_master,
			val_string(db_row_ref(self)));
	}
	sr_create_drivers(pool, view, txn, a);
	row = db_view_get(view, MODEL_CLASS__config, "epoch");
	epoch_text(pool, epoch);
	if (row != NULL && strcmp(db_row_s(row, _CONFIG_value), epoch) != 0) {
		db_txn_need_row(txn, MODEL_CLASS__config, "epoch");
		db_txn_set(txn, MODEL_CLASS__config, "epoch", _CONFIG_value, val_string(epoch));
	}
}

static void on_done(struct db_proposal *p)
{
	struct pool *pool = container_of(p, struct pool, bootstrap_proposal);

	db_proposal_fini(p);
	pool->bootstrapping = false;
	bootstrap_look(pool);
}

void bootstrap_look(struct pool *pool)
{
	struct db_view view;
	struct db_txn txn;
	struct arena a;

	loop_assert(pool->loops[0].loop);
	if (pool->bootstrapping || !db_is_coordinator(pool->db))
		return;
	arena_init(&a);
	db_txn_init(&txn, DB_FOR_CONFIG);
	db_txn_origin(&txn, (struct db_origin){ .user = POOL_COORDINATOR, .method = "bootstrap" });
	db_view_pin(pool->db, &view);
	compose(pool, &view, &txn, &a);
	db_view_unpin(&view);
	if (txn.n_ops > 0) {
		pool->bootstrapping = true;
		db_propose(pool->db, &pool->bootstrap_proposal, &txn, pool->loops[0].loop, on_done);
	}
	db_txn_fini(&txn);
	arena_fini(&a);
}
