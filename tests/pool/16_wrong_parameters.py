"""Each declared message with each parameter missing, one too many, of a wrong type, null, dead, of another class and over-long, a
sample of them by XML-RPC too: the documented error, and nothing written. Generated from the published tables, so a message written
tomorrow is tried too."""
import sys
import xmlrpc.client
import zlib

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
import model
from model import CLASSES, NULL, sample, split_type
from xpool import Api, ApiError, Pool, XmlApi, eventually

DEAD = "OpaqueRef:00000000-0000-4000-8000-000000000000"
LONG = "x" * (1200 << 10)  # more than a transaction takes, less than a request may have
NOT_TRIED = {"session.logout", "session.local_logout", "event.from", "event.next"}  # they end the session, or wait
# a parameter that may name nothing
MAY_BE_NULL = {("VM.set_appliance", "value"), ("VM.set_snapshot_schedule", "value"), ("VM.set_protection_policy", "value"),
               ("host.evacuate", "network"), ("VM.copy", "sr"), ("VDI.introduce", "metadata_of_pool"), ("VDI.introduce", "snapshot_of"),
               ("PIF.db_introduce", "bond_slave_of"), ("PIF.db_introduce", "VLAN_master_of"),
               ("VDI.copy", "base_vdi"), ("VDI.copy", "into_vdi"), ("VDI.set_snapshot_of", "value"), ("VDI.set_metadata_of_pool", "value")}
XML_EACH = 7  # of so many messages one is tried by XML-RPC too
# what is said of an over-long text, where it is not VALUE_NOT_SUPPORTED: it is no uuid, address or known word, or another parameter is not
SOONER = {
    "auth.get_subject_identifier": "AUTH_IS_DISABLED", "auth.get_subject_information_from_identifier": "AUTH_IS_DISABLED",
    "auth.get_group_membership": "AUTH_IS_DISABLED", "pool.enable_external_auth": "AUTH_UNKNOWN_TYPE", "host.enable_external_auth": "AUTH_UNKNOWN_TYPE",
    "event.inject": "HANDLE_INVALID", "pool.emergency_reset_master": "OPERATION_NOT_ALLOWED", "host.call_plugin": "XENAPI_MISSING_PLUGIN",
    "PIF.introduce": "MAC_INVALID", "pool.create_VLAN": "INVALID_VALUE", "PIF.create_VLAN": "INVALID_VALUE", "VDI.introduce": "INVALID_VALUE",
    "message.get_all_records_where": "INVALID_VALUE", "VM.checkpoint": "VM_BAD_POWER_STATE",
    "VIF.add_ipv4_allowed": "INVALID_IP_ADDRESS_SPECIFIED", "VIF.remove_ipv4_allowed": "INVALID_IP_ADDRESS_SPECIFIED",
    "VIF.add_ipv6_allowed": "INVALID_IP_ADDRESS_SPECIFIED", "VIF.remove_ipv6_allowed": "INVALID_IP_ADDRESS_SPECIFIED",
    "VIF.configure_ipv4": "INVALID_CIDR_ADDRESS_SPECIFIED", "VIF.configure_ipv6": "INVALID_CIDR_ADDRESS_SPECIFIED",
    "SR.create": "SR_UNKNOWN_DRIVER", "SR.introduce": "SR_UNKNOWN_DRIVER", "SR.make": "SR_UNKNOWN_DRIVER",
    "SR.probe": "SR_UNKNOWN_DRIVER", "SR.probe_ext": "SR_UNKNOWN_DRIVER",
    "message.create": "UUID_INVALID", "message.get": "UUID_INVALID", "message.get_by_uuid": "UUID_INVALID", "secret.introduce": "UUID_INVALID",
}
# it is compared, not kept, and nothing of that name is no error
ONLY_READ = {"session.logout_subject_identifier", "host.has_extension", "pool.has_extension", "role.get_by_permission_name_label"}


def wrong_values(text):
    head, args = split_type(text)
    return {
        "string": [7, ["x"]], "secret": [7], "int": ["seven", 1.5, True], "float": ["much"], "bool": ["true", 1],
        "datetime": ["yesterday", 5], "enum": ["no such value", 7], "ref": [7, ["x"]],
        "set": ["x", {"a": "b"}] + ([[wrong] for wrong in wrong_values(args[0])[:1]] if head == "set" else []),
        "map": ["x", ["a"]] + ([{"1": wrong} for wrong in wrong_values(args[1])[:1]] if head == "map" else []),
        "record": ["x"],
    }[head]


def make_objects(api, make_sr):
    """One object of each class that clients may create, and of those that are there: {class: [ref]}."""
    rng, refs = model.seeded(2), model.ruled_objects(api, make_sr)
    for cls in CLASSES.values():
        name = cls["name"]
        if not cls["in_database"]:
            continue
        if cls["implicit"]["create_destroy"]:
            given = {f: sample(rng, fact["type"]) for f, fact in model.fields(name).items()
                     if fact["qualifier"] != "DynamicRO" and not model.is_removed(name, f)}
            given.update(model.RULED.get(name, lambda n, refs: {})(1, refs))
            refs[name] = [api(name + ".create", given)]
        elif cls["implicit"]["get_all"] and name not in refs:
            refs[name] = api(name + ".get_all")[:1]
    refs["task"] = [api("task.create", "by a client", "")]
    return refs


def fitting(rng, full, param, refs):
    head, args = split_type(param["type"])
    if head == "ref" and param.get("default") == NULL:
        return NULL
    if head == "ref":
        return (refs.get(args[0]) or [NULL if (full, param["name"]) in MAY_BE_NULL else DEAD])[0]
    return sample(rng, param["type"], refs)


def refusal(api, full, args):
    """The error of a call that must fail."""
    try:
        result = api(full, *args)
    except ApiError as fault:
        return list(fault.args)
    raise AssertionError("%s%s was accepted: %r" % (full, str(args)[:300], result))


def counts(api, full, params, fit):
    """The reference counts those without a default only: of messages that have some, one too many is passed over."""
    need = len([p for p in params if "default" not in p])
    for given in [fit[:n] for n in range(need)] + ([fit + ["one too many"]] if need == len(params) else []):
        fault = refusal(api, full, given)
        assert fault == ["MESSAGE_PARAMETER_COUNT_MISMATCH", full, str(need), str(len(given))], (given, fault)


def types(api, full, params, fit):
    for i, param in enumerate(params):
        for wrong in wrong_values(param["type"]):
            fault = refusal(api, full, fit[:i] + [wrong] + fit[i + 1:])
            assert fault == ["FIELD_TYPE_ERROR", param["name"]] or fault[0] == "INVALID_VALUE", (full, param, wrong, fault)


def references(api, full, params, fit, refs):
    """A message that nobody has written says so before it looks at any object."""
    places = [i for i, p in enumerate(params) if split_type(p["type"])[0] == "ref" and p["type"] != "ref<session>"]
    for i in places:
        cls = split_type(params[i]["type"])[1][0]
        stranger = refs["VM" if cls != "VM" else "host"][0]
        for wrong in (DEAD, stranger) + (() if (full, params[i]["name"]) in MAY_BE_NULL else (NULL,)):
            args = fit[:i] + [wrong] + fit[i + 1:]
            fault = refusal(api, full, args)
            assert fault in (["HANDLE_INVALID", cls, wrong], ["NOT_IMPLEMENTED", full]), (full, args, fault)


def lengths(api, full, params, fit):
    for i, param in enumerate(params):
        if split_type(param["type"])[0] == "string" and full not in ONLY_READ:
            fault = refusal(api, full, fit[:i] + [LONG] + fit[i + 1:])
            wanted = SOONER.get(full) or SOONER.get((full, param["name"])) or "VALUE_NOT_SUPPORTED"
            assert fault[0] == wanted or fault == ["NOT_IMPLEMENTED", full], (full, param["name"], wanted, [str(f)[:80] for f in fault])


class Xml:
    """The same calls by XML-RPC."""

    def __init__(self, pool, member, session):
        self.ask, self.session = XmlApi(pool, member), session

    def __call__(self, method, *args):
        answer = self.ask(method, self.session, *args)
        if answer["Status"] != "Success":
            raise ApiError(*answer["ErrorDescription"])
        return answer["Value"]


def as_xml(text, value):
    """A value of a type in that encoding: integers are text, dates are a type."""
    head, args = split_type(text)
    if head == "int":
        return str(value)
    if head == "datetime":
        return xmlrpc.client.DateTime(value)
    if head == "set":
        return [as_xml(args[0], item) for item in value]
    return {str(k): as_xml(args[1], v) for k, v in value.items()} if head == "map" else value


def settled(pool, api):
    """What members write of themselves after a start has been written, and the tasks of what was made have gone."""
    made = {"SR.create", "VDI.create"}
    eventually("ended tasks go", lambda: not made & {t["name_label"] for t in api("task.get_all_records").values()})
    query = "SELECT count(*) AS n FROM history WHERE field = 'memory'"
    eventually("the members have said how much memory they have", lambda: pool.ctl(1, "sql", query).split()[-1] == "3")
    eventually("the pool has a level of processors", lambda: next(iter(api("pool.get_all_records").values()))["cpu_info"])
    return pool.agree()


with Pool() as pool:
    api = Api(pool, 2).login()
    refs = make_objects(api, pool.make_sr)
    tried = 0
    before, xml = settled(pool, api), Xml(pool, 3, api.session)
    for name, cls in CLASSES.items():
        for message in cls["messages"]:
            full, params = "%s.%s" % (name, message["name"]), message["params"]
            if not message.get("session", True) or full in NOT_TRIED:
                continue
            rng = model.seeded(zlib.crc32(full.encode()))  # its own: another message changes nothing here
            fit = [fitting(rng, full, p, refs) for p in params]
            counts(api, full, params, fit)
            types(api, full, params, fit)
            references(api, full, params, fit, refs)
            lengths(api, full, params, fit)
            if tried % XML_EACH == 0:
                fit = [as_xml(p["type"], value) for p, value in zip(params, fit)]
                counts(xml, full, params, fit)
                types(xml, full, params, fit)
                references(xml, full, params, fit, refs)
                lengths(xml, full, params, fit)
            tried += 1
        if pool.agree() != before:
            print(pool.ctl(1, "sql", "SELECT * FROM history ORDER BY rowid DESC LIMIT 12"))
        assert pool.agree() == before, "%s: a message that was refused has written something" % name
    print("%d messages" % tried)
