/* pool/join_check.c: what keeps a host from joining a pool, each alone, all at once, and records
 * that are none. */
#include "pool/join_priv.h"
#include "tests/lib/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A pool of one as the API shows it, as far as the checks look. */
static const char base[] =
	"{\"pool\":{\"OpaqueRef:p1\":{\"uuid\":\"p1\",\"master\":\"h1\",\"ha_enabled\":false,"
	"\"tls_verification_enabled\":true,\"current_operations\":{},"
	"\"cpu_info\":{\"features_hvm\":\"0f\"}}},"
	"\"host\":{\"h1\":{\"uuid\":\"u1\",\"API_version_major\":2,\"API_version_minor\":23,"
	"\"software_version\":{\"platform_name\":\"Xpool\",\"platform_version\":\"3\","
	"\"product_brand\":\"brand\",\"build_number\":\"77\",\"xpool\":\"0.1\","
	"\"network_backend\":\"bridge\",\"db_schema\":\"#\"},"
	"\"cpu_info\":{\"vendor\":\"maker\",\"features_hvm\":\"0f\"},\"edition\":\"free\","
	"\"external_auth_type\":\"\",\"external_auth_service_name\":\"\","
	"\"pending_guidances\":[],\"current_operations\":{}}},"
	"\"PIF\":{\"i1\":{\"host\":\"h1\",\"management\":true,\"network\":\"n1\",\"VLAN\":-1,"
	"\"VLAN_master_of\":\"l0\",\"IP\":\"\",\"primary_address_type\":\"IPv4\"}},"
	"\"network\":{\"n1\":{\"name_label\":\"first\",\"bridge\":\"xbr0\",\"purpose\":[]}},"
	"\"SM\":{\"s1\":{\"type\":\"file\",\"features\":{\"A\":\"1\",\"B\":\"1\"}}},"
	"\"Certificate\":{\"c1\":{\"type\":\"ca\",\"name\":\"root\",\"fingerprint\":\"aa\","
	"\"purposes\":[\"ldaps\",\"licensing\"]}},"
	"\"task\":{},\"VM\":{},\"SR\":{},\"VLAN\":{},\"Bond\":{},\"tunnel\":{},\"network_sriov\":{}"
	","
	"\"Cluster\":{},\"Cluster_host\":{},\"SDN_controller\":{},\"pool_update\":{},"
	"\"VM_appliance\":{},\"VMSS\":{},\"secret\":{}}";

#define UPDATE(host)                                                                               \
	"\"pool_update\":{\"o1\":{\"uuid\":\"o\",\"name_label\":\"fix\","                          \
	"\"enforce_homogeneity\":true,\"hosts\":[\"" host "\"]}"
#define CLUSTER_ROWS                                                                               \
	"\"Cluster\":{\"k1\":{\"pool_auto_join\":true}},"                                          \
	"\"Cluster_host\":{\"k2\":{\"cluster\":\"k1\",\"PIF\":\"i2\"}},"
#define NO_CLUSTER "\"Cluster\":{},\"Cluster_host\":{},"

/* Of one side, a text is another. In the order of the checks. */
static const struct change {
	bool there;
	const char *from, *to, *code, *param; /* param: what the parameters have, with blanks */
	bool strict;
} changes[] = {
	{ false, "\"management\":true", "\"management\":false", "HOST_STILL_BOOTING", "", false },
	{ false, "\"ha_enabled\":false", "\"ha_enabled\":true", "HA_IS_ENABLED", "", false },
	{ false, "\"Cluster_host\":{", "\"Cluster_host\":{\"k1\":{\"enabled\":true}",
		"CLUSTERING_ENABLED", "k1", false },
	{ true, NO_CLUSTER, CLUSTER_ROWS,
		"POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK", "", false },
	{ true, "\"ha_enabled\":false", "\"ha_enabled\":true", "HA_IS_ENABLED", "", false },
	{ true, "\"uuid\":\"p2\"", "\"uuid\":\"p1\"", "OPERATION_NOT_ALLOWED",
		"Host is already part of a pool", false },
	{ false, "\"host\":{", "\"host\":{\"h9\":{},",
		"JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS", "", false },
	{ false, "\"VM\":{", "\"VM\":{\"v1\":{\"power_state\":\"Paused\"}",
		"JOINING_HOST_CANNOT_HAVE_RUNNING_VMS", "", false },
	{ false, "\"VM\":{",
		"\"VM\":{\"v2\":{\"power_state\":\"Halted\",\"current_operations\":{\"t\":"
		"\"start\"}}",
		"JOINING_HOST_CANNOT_HAVE_VMS_WITH_CURRENT_OPERATIONS", "", false },
	{ false, "\"task\":{",
		"\"task\":{\"t1\":{\"status\":\"pending\",\"resident_on\":\"h1\",\"name_label\":"
		"\"SR.create\"}",
		"OTHER_OPERATION_IN_PROGRESS", "pool OpaqueRef:p1 SR.create t1", false },
	{ false, "\"pending_guidances\":[]", "\"pending_guidances\":[\"reboot_host\"]",
		"HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY", "h1", false },
	{ true, "\"pending_guidances\":[]", "\"pending_guidances\":[\"reboot_host\"]",
		"HOST_PENDING_MANDATORY_GUIDANCE_NOT_EMPTY", "h2", false },
	{ true, "\"Xpool\"", "\"other\"", "HOSTS_NOT_COMPATIBLE", "", false },
	{ true, "\"platform_version\":\"3\"", "\"platform_version\":\"4\"", "HOSTS_NOT_COMPATIBLE",
		"", false },
	{ true, "\"brand\"", "\"other\"", "HOSTS_NOT_COMPATIBLE", "", false },
	{ true, "\"77\"", "\"78\"", "HOSTS_NOT_HOMOGENEOUS", "Software version differs", true },
	{ true, "\"0.1\"", "\"0.2\"", "HOSTS_NOT_HOMOGENEOUS", "Software version differs", true },
	{ true, "\"maker\"", "\"other\"", "HOSTS_NOT_HOMOGENEOUS", "CPUs differ", true },
	{ false, "\"SR\":{", "\"SR\":{\"r1\":{\"shared\":true}",
		"JOINING_HOST_CANNOT_CONTAIN_SHARED_SRS", "", false },
	{ false, "\"Bond\":{", "\"Bond\":{\"b1\":{}", "POOL_JOINING_HOST_HAS_BONDS", "", false },
	{ false, "\"tunnel\":{", "\"tunnel\":{\"t1\":{}", "POOL_JOINING_HOST_HAS_TUNNELS", "",
		false },
	{ false, "\"network_sriov\":{", "\"network_sriov\":{\"o1\":{}",
		"POOL_JOINING_HOST_HAS_NETWORK_SRIOVS", "", false },
	{ false, "\"VLAN\":{", "\"VLAN\":{\"l1\":{}", "POOL_JOINING_HOST_HAS_NON_MANAGEMENT_VLANS",
		"", false },
	{ true, "\"VLAN\":-1", "\"VLAN\":7", "POOL_JOINING_HOST_MANAGEMENT_VLAN_DOES_NOT_MATCH",
		"-1 7", false },
	{ true, "\"external_auth_type\":\"\"", "\"external_auth_type\":\"PAM\"",
		"POOL_JOINING_EXTERNAL_AUTH_MISMATCH", "", false },
	{ false, "\"external_auth_service_name\":\"\"", "\"external_auth_service_name\":\"x\"",
		"POOL_JOINING_EXTERNAL_AUTH_MISMATCH", "", false },
	{ true, "\"free\"", "\"dear\"", "LICENSE_HOST_POOL_MISMATCH", "", false },
	{ true, "\"network_backend\":\"bridge\"", "\"network_backend\":\"openvswitch\"",
		"OPERATION_NOT_ALLOWED", "Network backends differ", false },
	{ true, ":23,", ":24,", "POOL_JOINING_HOST_MUST_HAVE_SAME_API_VERSION", "2.23 2.24",
		false },
	{ true, "\"db_schema\":\"#\"", "\"db_schema\":\"9999\"",
		"POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA", " 9999", false },
	{ true, "\"db_schema\":\"#\"", "\"db_schema\":\"-1\"",
		"POOL_JOINING_HOST_MUST_HAVE_SAME_DB_SCHEMA", " -1", false },
	{ false, "\"pool_update\":{", UPDATE("h1"), "HOSTS_NOT_HOMOGENEOUS",
		"Only this host has the update fix", false },
	{ true, "\"pool_update\":{", UPDATE("h2"), "HOSTS_NOT_HOMOGENEOUS",
		"Only the pool has the update fix", false },
	{ true, "\"IPv4\"", "\"IPv6\"", "OPERATION_NOT_ALLOWED", "Primary address type differs",
		false },
	{ false, "\"purpose\":[]", "\"purpose\":[\"nbd\",\"insecure_nbd\"]",
		"OPERATION_NOT_ALLOWED", "Incompatible network purposes: nbd and insecure_nbd",
		false },
	{ true, "\"tls_verification_enabled\":true", "\"tls_verification_enabled\":false",
		"POOL_JOINING_HOST_TLS_VERIFICATION_MISMATCH", "", false },
	{ true, "\"aa\"", "\"bb\"", "POOL_JOINING_HOST_CA_CERTIFICATES_CONFLICT", "root", false },
	{ true, "\"current_operations\":{", "\"current_operations\":{\"t\":\"apply_updates\"",
		"NOT_SUPPORTED_DURING_UPGRADE", "", false },
	{ true, "\"A\":\"1\"", "\"C\":\"1\"", "POOL_JOINING_SM_FEATURES_INCOMPATIBLE", "s2 s1",
		false },
	{ true, "\"type\":\"file\"", "\"type\":\"lvm\"", "POOL_JOINING_SM_FEATURES_INCOMPATIBLE",
		"s2 ", false },
};

struct bench {
	struct job job;
	struct join_want want;
	struct join j;
	struct err err;
};

/* Everywhere, in the job's arena. */
static const char *replaced(struct arena *a, const char *text, const char *from, const char *to)
{
	const char *at;
	struct buf out = { 0 };
	const char *s;

	for (; (at = strstr(text, from)) != NULL; text = at + strlen(from)) {
		buf_put(&out, text, (size_t)(at - text));
		buf_puts(&out, to);
	}
	buf_puts(&out, text);
	s = arena_strdup(a, buf_text(&out));
	buf_fini(&out);
	return s;
}

static bool take_side(struct bench *b, struct join_side *side, const char *text)
{
	struct val all;
	const char *why = "";

	text = replaced(
		&b->job.arena, text, "#", arena_printf(&b->job.arena, "%d", MODEL_SCHEMA_VERSION));
	ck_assert_msg(rpc_json_parse(&b->job.arena, text, strlen(text), &all, &why) == 0, "%s: %s",
		why, text);
	for (unsigned i = 0; i < join_n_classes; i++) {
		const struct val *v = val_get(&all, model_classes[join_classes[i].class_id].name);

		side->of[join_classes[i].class_id] = v != NULL ? *v : val_map();
	}
	return join_side_take(side);
}

static const char *there_of(struct arena *a)
{
	static const char *const own[] = { "p1", "h1", "u1", "i1", "n1", "s1", "c1" };
	const char *text = base;
	char other[8];

	for (unsigned i = 0; i < ARRAY_LEN(own); i++) {
		snprintf(other, sizeof other, "%c2", own[i][0]);
		text = replaced(a, text, own[i], other);
	}
	return text;
}

static void bench_open(struct bench *b, const char *from, const char *to, bool there)
{
	const char *here_text = base, *there_text;

	*b = (struct bench){ 0 };
	arena_init(&b->job.arena);
	b->j.job = &b->job;
	b->j.want = &b->want;
	there_text = there_of(&b->job.arena);
	if (from != NULL) {
		const char **text = there ? &there_text : &here_text;
		const char *changed = replaced(&b->job.arena, *text, from, to);

		ck_assert_msg(strcmp(changed, *text) != 0, "%s is not there", from);
		*text = changed;
	}
	ck_assert(take_side(b, &b->j.here, here_text));
	ck_assert(take_side(b, &b->j.there, there_text));
}

static void bench_close(struct bench *b)
{
	err_fini(&b->err);
	arena_fini(&b->job.arena);
}

START_TEST(hosts_that_are_alike_may_join)
{
	struct bench b;
	struct val all = val_set();

	bench_open(&b, NULL, NULL, false);
	ck_assert_int_eq(join_check(&b.j, NULL, &b.err), 0);
	ck_assert_int_eq(join_check(&b.j, &all, &b.err), 0);
	ck_assert_uint_eq(all.n, 0);
	bench_close(&b);
}
END_TEST

static void has(const struct err *err, const struct change *c)
{
	struct buf params = { 0 };

	for (unsigned i = 0; i < err->n; i++)
		buf_printf(&params, "%s%s", i > 0 ? " " : "", err->params[i]);
	ck_assert_msg(err->code != NULL, "%s is let through", c->to);
	ck_assert_str_eq(err->code->name, c->code);
	ck_assert_msg(
		strstr(buf_text(&params), c->param) != NULL, "%s: %s", c->code, buf_text(&params));
	buf_fini(&params);
}

START_TEST(each_mismatch_has_its_error)
{
	for (unsigned i = 0; i < ARRAY_LEN(changes); i++) {
		const struct change *c = &changes[i];
		struct bench b;

		bench_open(&b, c->from, c->to, c->there);
		ck_assert_int_eq(join_check(&b.j, NULL, &b.err), ERR_API);
		has(&b.err, c);
		err_fini(&b.err);
		b.want.force = true;
		ck_assert_int_eq(join_check(&b.j, NULL, &b.err), c->strict ? 0 : ERR_API);
		bench_close(&b);
	}
}
END_TEST

/* What is in the way only by what both have. code NULL: nothing is. */
static const struct {
	const char *here_from, *here_to, *there_from, *there_to, *there_from2, *there_to2, *code;
} pairs[] = {
	{ "\"IP\":\"\"", "\"IP\":\"10.0.0.1\"", NO_CLUSTER, CLUSTER_ROWS, "xbr0", "xbr0", NULL },
	{ "\"IP\":\"\"", "\"IP\":\"10.0.0.1\"", NO_CLUSTER, CLUSTER_ROWS, "xbr0", "xbr1",
		"POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK" },
	{ "\"PIF\":{",
		"\"PIF\":{\"i3\":{\"IP\":\"10.0.0.3\",\"network\":\"n1\"},"
		"\"i4\":{\"IP\":\"10.0.0.4\",\"network\":\"n1\"},",
		NO_CLUSTER, CLUSTER_ROWS, "xbr0", "xbr0",
		"POOL_JOINING_HOST_MUST_HAVE_ONLY_ONE_IP_ON_CLUSTERING_NETWORK" },
	{ "\"IP\":\"\"", "\"IP\":\"10.0.0.1\"", NO_CLUSTER,
		"\"Cluster\":{\"k1\":{\"pool_auto_join\":true}},"
		"\"Cluster_host\":{\"k2\":{\"cluster\":\"k1\",\"PIF\":\"i9\"}},",
		"\"PIF\":{", "\"PIF\":{\"i9\":{\"VLAN\":7,\"network\":\"n2\"},",
		"POOL_JOINING_POOL_CANNOT_ENABLE_CLUSTERING_ON_VLAN_NETWORK" },
	{ "\"purposes\"", "\"purpose\"", "\"purposes\"", "\"purpose\"", "xbr0", "xbr0", NULL },
	{ "\"purposes\"", "\"purpose\"", "\"purposes\":[\"ldaps\",\"licensing\"]",
		"\"purpose\":[\"ldaps\"]", "xbr0", "xbr0",
		"POOL_JOINING_HOST_TRUSTED_CERTIFICATES_CONFLICT" },
	{ "\"purposes\"", "\"purpose\"", "xbr0", "xbr0", "xbr0", "xbr0", NULL },
	{ "\"network_backend\":\"bridge\"", "\"network_backend\":\"openvswitch\"",
		"\"network_backend\":\"bridge\"", "\"network_backend\":\"openvswitch\"", "xbr0",
		"xbr0", NULL },
	{ "\"network_backend\":\"bridge\"", "\"network_backend\":\"openvswitch\"",
		"\"network_backend\":\"bridge\"", "\"network_backend\":\"openvswitch\"",
		"\"SDN_controller\":{", "\"SDN_controller\":{\"d1\":{\"address\":\"10.0.0.9\"}",
		"OPERATION_NOT_ALLOWED" },
	{ "\"pool_update\":{", UPDATE("h1"), "\"pool_update\":{", UPDATE("h2"), "xbr0", "xbr0",
		NULL },
};

START_TEST(both_sides_together_may_be_in_the_way)
{
	for (unsigned i = 0; i < ARRAY_LEN(pairs); i++) {
		struct bench b;
		struct arena *a = &b.job.arena;
		int rc;

		bench_open(&b, NULL, NULL, false);
		ck_assert(take_side(
			&b, &b.j.here, replaced(a, base, pairs[i].here_from, pairs[i].here_to)));
		ck_assert(take_side(&b, &b.j.there,
			replaced(a,
				replaced(a, there_of(a), pairs[i].there_from, pairs[i].there_to),
				pairs[i].there_from2, pairs[i].there_to2)));
		rc = join_check(&b.j, NULL, &b.err);
		ck_assert_msg((rc == 0) == (pairs[i].code == NULL), "%u: %s", i,
			rc == 0 ? "let through" : b.err.code->name);
		if (rc != 0)
			ck_assert_str_eq(b.err.code->name, pairs[i].code);
		bench_close(&b);
	}
}
END_TEST

/* Two mismatches: the join tells the first, a dry run both, in the order of the table above. */
START_TEST(the_first_is_told_and_a_dry_run_tells_all)
{
	struct bench b;
	struct val all = val_set();

	bench_open(&b, "\"ha_enabled\":false,", "\"ha_enabled\":true,", false);
	take_side(&b, &b.j.there,
		replaced(&b.job.arena,
			replaced(&b.job.arena, there_of(&b.job.arena), "\"maker\"", "\"other\""),
			"\"features_hvm\":\"0f\"", "\"features_hvm\":\"ff\""));
	ck_assert_int_eq(join_check(&b.j, NULL, &b.err), ERR_API);
	ck_assert_str_eq(b.err.code->name, "HA_IS_ENABLED");
	err_fini(&b.err);
	ck_assert_int_eq(join_check(&b.j, &all, &b.err), 0);
	ck_assert_uint_eq(all.n, 2);
	ck_assert_str_eq(all.items[0].items[0].s, "HA_IS_ENABLED");
	ck_assert_str_eq(all.items[1].items[0].s, "HOSTS_NOT_HOMOGENEOUS");
	ck_assert_str_eq(all.items[1].items[1].s, "CPUs differ");
	join_notes(&b.j, &all);
	ck_assert_uint_eq(all.n, 3);
	ck_assert_str_eq(all.items[2].items[0].s, JOIN_NOTE);
	bench_close(&b);
}
END_TEST

/* The other side is not trusted: whatever its values are, the checks end. */
START_TEST(values_of_any_kind_are_looked_at_safely)
{
	static const char *const values[] = { "null", "7", "\"text\"", "[]", "[1,{}]", "{}",
		"{\"a\":[]}", "true" };
	struct arena a;
	const char *text;

	arena_init(&a);
	text = there_of(&a);
	for (const char *at = text; (at = strchr(at, ':')) != NULL; at++) {
		struct bench b;
		struct val all, probe;
		const char *why;

		for (unsigned i = 0; i < ARRAY_LEN(values); i++) {
			/* the value behind this colon, up to the end of the text, is another */
			for (const char *end = at + 1; *end != 0; end++) {
				const char *changed = arena_printf(
					&a, "%.*s%s%s", (int)(at + 1 - text), text, values[i], end);

				if ((*end != ',' && *end != '}') ||
					rpc_json_parse(
						&a, changed, strlen(changed), &probe, &why) != 0)
					continue;
				bench_open(&b, NULL, NULL, false);
				all = val_set();
				if (take_side(&b, &b.j.there, changed))
					join_check(&b.j, &all, &b.err);
				bench_close(&b);
				break;
			}
		}
	}
	arena_fini(&a);
}
END_TEST

int main(void)
{
	const TTest *tests[] = { hosts_that_are_alike_may_join, each_mismatch_has_its_error,
		both_sides_together_may_be_in_the_way, the_first_is_told_and_a_dry_run_tells_all,
		values_of_any_kind_are_looked_at_safely };

	return suite_run("join", tests, ARRAY_LEN(tests), 60);
}
