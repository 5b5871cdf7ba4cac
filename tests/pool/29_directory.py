"""Users of a directory: subjects let them in, with their roles, on every member; what is taken away is gone on every member at once."""
import ctypes
import ctypes.util
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import PASSWORD, Api, ApiError, Pool, at_once, eventually, refused, vm_record

SECRET = "pass of a user: ö"
ROLES = ("pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator", "read-only")


def hashed(password):
    """The product's own hash is dear on purpose; many logins need another."""
    lib = ctypes.CDLL(ctypes.util.find_library("crypt"))
    lib.crypt.restype = ctypes.c_char_p
    return lib.crypt(password.encode(), b"$1$abcdefgh$").decode()


HASH = hashed(SECRET)


def user(name, *groups, **more):
    return dict({"id": "S-" + name, "name": name, "full_name": name.title() + " Example", "password": HASH, "groups": list(groups)}, **more)


DIRECTORY = {
    "users": [user(role) for role in ROLES] + [
        user("alice"), user("bob", "crew"), user("carol", "crew"), user("eve", "crew", disabled=True), user("mallory", "crew", expired=True),
        user("lost", "crew", locked=True), user("stale", "crew", password_expired=True), user("stranger", "others"), user("root")],
    "groups": [{"id": "G-crew", "name": "crew", "groups": ["staff"]}, {"id": "G-staff", "name": "staff", "groups": ["crew"]},
               {"id": "G-others", "name": "others", "groups": []}],
}


def write_directory(pool, directory, members=(1, 2, 3)):
    for member in members:
        path = os.path.join(pool.dir, "member%d" % member, "agent", "directory.json")
        with open(path + ".new", "w", encoding="utf-8") as handle:
            handle.write(directory if isinstance(directory, str) else json.dumps(directory))
        os.rename(path + ".new", path)


def enter(pool, member, name):
    return Api(pool, member).login(name, SECRET)


def valid(pool, session):
    """What each member says of it."""
    said = []
    for member in (1, 2, 3):
        try:
            Api(pool, member, session)("VM.get_all")
            said.append("valid")
        except ApiError as fault:
            said.append(fault.code)
    return said


def switched_on(api, pool, ref, hosts):
    """The directory of the pool, all or none; nothing secret is kept."""
    config = {"domain": "example", "user": "joiner", "pass": "Joining-Secret"}
    for call in (("auth.get_subject_identifier", "alice"), ("auth.get_subject_information_from_identifier", "S-alice"),
                 ("auth.get_group_membership", "S-alice")):
        assert api.fails("AUTH_IS_DISABLED", *call) == []
    assert api.fails("AUTH_UNKNOWN_TYPE", "pool.enable_external_auth", ref, config, "example", "AD") == ["AD"]
    assert api.fails("AUTH_UNKNOWN_TYPE", "host.enable_external_auth", hosts[0], config, "example", "") == [""]
    api.fails("VALUE_NOT_SUPPORTED", "pool.enable_external_auth", ref, config, "x" * 300, "file")
    here = next(h for h in hosts if api("host.get_address", h) == pool.address(1))
    why = api.fails("POOL_AUTH_ENABLE_FAILED_UNAVAILABLE", "pool.enable_external_auth", ref, config, "example", "file")
    assert why[0] == here and "directory.json" in why[1], why
    api.fails("AUTH_ENABLE_FAILED_UNAVAILABLE", "host.enable_external_auth", here, config, "example", "file")
    write_directory(pool, DIRECTORY)
    assert api("pool.enable_external_auth", ref, config, "example", "file") == ""
    for host in hosts:
        record = api("host.get_record", host)
        assert (record["external_auth_type"], record["external_auth_service_name"]) == ("file", "example")
        assert record["external_auth_configuration"] == {"domain": "example", "user": "joiner"}
    assert api.fails("POOL_AUTH_ALREADY_ENABLED", "pool.enable_external_auth", ref, {}, "other", "file")[0] in hosts
    assert api.fails("AUTH_ALREADY_ENABLED", "host.enable_external_auth", hosts[1], {}, "other", "file") == ["file", "example"]
    assert "Joining-Secret" not in pool.ctl(1, "sql", "SELECT * FROM history")


def looked_up(api):
    assert api("auth.get_subject_identifier", "alice") == "S-alice" and api("auth.get_subject_identifier", "crew") == "G-crew"
    facts = api("auth.get_subject_information_from_identifier", "S-alice")
    assert facts["subject-name"] == "alice" and facts["subject-gecos"] == "Alice Example" and facts["subject-account-disabled"] == "false"
    assert sorted(api("auth.get_group_membership", "S-bob")) == ["G-crew", "G-staff"]
    for call in (("auth.get_subject_identifier", "nobody"), ("auth.get_subject_information_from_identifier", "S-nobody"),
                 ("auth.get_group_membership", "")):
        assert api.fails("SUBJECT_CANNOT_BE_RESOLVED", *call) == []


def subjects(api, pool, role_of):
    """Made once, without a role, with what the directory knows."""
    api.fails("SUBJECT_CANNOT_BE_RESOLVED", "subject.create", {"subject_identifier": "S-nobody", "other_config": {}})
    api.fails("VALUE_NOT_SUPPORTED", "subject.create", {"subject_identifier": "", "other_config": {}})
    given = {"subject_identifier": "S-alice", "other_config": {"subject-name": "root", "note": "kept"}}
    made = at_once(*[lambda m=m: attempt(pool, m, api.session, "subject.create", given) for m in (1, 2, 3, 1, 2, 3)])
    assert made.count("SUBJECT_ALREADY_EXISTS") == 5, made
    alice = next(m for m in made if m != "SUBJECT_ALREADY_EXISTS")
    record = api("subject.get_record", alice)
    assert record["roles"] == [] and record["other_config"]["subject-name"] == "alice" and record["other_config"]["note"] == "kept"

    permission = api("role.get_by_name_label", "vm.start")[0]
    internal = api("role.get_by_name_label", "client-cert")[0]
    for wrong in (permission, internal):
        assert api.fails("ROLE_NOT_FOUND", "subject.add_to_roles", alice, wrong) == []
    assert api.fails("ROLE_NOT_FOUND", "subject.remove_from_roles", alice, role_of["read-only"]) == []
    assert api.fails("HANDLE_INVALID", "subject.add_to_roles", alice, alice) == ["role", alice]
    return alice


def attempt(pool, member, session, *call):
    """The result, or the code of the error."""
    try:
        return Api(pool, member, session)(*call)
    except ApiError as fault:
        return fault.code


def let_in(api, pool, alice, role_of):
    """Who may log in, and what is said to those who may not."""
    told = at_once(*[lambda n=n: refused(pool, 1 + len(n) % 3, n, SECRET)
                     for n in ("alice", "bob", "stranger", "eve", "mallory", "lost", "stale", "nobody")],
                   lambda: refused(pool, 1, "alice", "wrong"), lambda: refused(pool, 2, "root", SECRET))
    assert [t[0] for t in told] == ["RBAC_PERMISSION_DENIED", "SESSION_AUTHORIZATION_FAILED", "SESSION_AUTHORIZATION_FAILED"] \
        + ["SESSION_AUTHORIZATION_FAILED"] * 4 + ["SESSION_AUTHENTICATION_FAILED"] * 2 + ["SESSION_AUTHORIZATION_FAILED"], told
    assert [t[1] for t in told[3:7]] == ["subject-account-disabled", "subject-account-expired", "subject-account-locked",
                                         "subject-password-expired"], told
    assert all(5 <= t[2] < 9 for t in told), told
    Api(pool, 3).login()  # root is local; the directory's root is another one

    api("subject.add_to_roles", alice, role_of["read-only"])
    assert api.fails("ROLE_ALREADY_EXISTS", "subject.add_to_roles", alice, role_of["read-only"]) == []
    hers = enter(pool, 2, "alice")
    record = hers("session.get_record", hers.session)
    assert record["auth_user_sid"] == "S-alice" and record["auth_user_name"] == "alice" and record["is_local_superuser"] is False
    assert record["subject"] == alice and record["pool"] is False and record["client_certificate"] is False
    granted = api("subject.get_permissions_name_label", alice)
    assert sorted(record["rbac_permissions"]) == sorted(granted) == sorted(api("role.get_permissions_name_label", role_of["read-only"]))
    assert "vm.get_record" in granted and "vm.start" not in granted
    assert "subjects" not in record


def over_the_wire(api, pool, role_of):
    """Each role: what it may, and what the next stronger one may."""
    vm = api("VM.create", vm_record("of roles"))
    (ref,) = api("pool.get_all")
    calls = {  # the weakest role that may
        "pool-admin": ("subject.remove_from_roles", ref, ref), "pool-operator": ("pool.set_name_label", ref, "by a role"),
        "vm-power-admin": ("network.attach_for_vm", api("host.get_all")[0], vm), "vm-admin": ("VM.set_name_label", vm, "named"),
        "vm-operator": ("VM.add_to_other_config", vm, "folder", "/"), "read-only": ("VM.get_record", vm)}
    forbidden = {"pool-admin": ("session.change_password", "", "x"), **{weaker: calls[stronger] for stronger, weaker in zip(ROLES, ROLES[1:])}}
    for number, role in enumerate(ROLES):
        made = api("subject.create", {"subject_identifier": "S-" + role, "other_config": {}})
        api("subject.add_to_roles", made, role_of[role])
        session = enter(pool, 1 + number % 3, role)
        if role == "vm-operator":
            attempt(pool, 1, api.session, "VM.remove_from_other_config", vm, "folder")
        allowed = attempt(pool, 1 + (number + 1) % 3, session.session, *calls[role])
        assert allowed != "RBAC_PERMISSION_DENIED", (role, calls[role])
        denied = Api(pool, 1 + (number + 2) % 3, session.session).fails("RBAC_PERMISSION_DENIED", *forbidden[role])
        assert denied[0].startswith(forbidden[role][0].lower()), denied
        if role != "pool-admin":
            assert "(Roles with this permission: pool-admin" in denied[1], denied
    return vm


def by_groups(api, pool, role_of):
    """A group lets its members in, also members of its members; the roles of all of them count."""
    staff = api("subject.create", {"subject_identifier": "G-staff", "other_config": {}})
    api("subject.add_to_roles", staff, role_of["vm-operator"])
    bobs = enter(pool, 1, "bob")
    record = bobs("session.get_record", bobs.session)
    assert record["subject"] == staff and record["auth_user_sid"] == "S-bob"
    bob = api("subject.create", {"subject_identifier": "S-bob", "other_config": {}})
    api("subject.add_to_roles", bob, role_of["pool-operator"])
    both = enter(pool, 2, "bob")
    assert both("session.get_subject", both.session) == bob, "the user himself comes first"
    assert {"pool.set_name_label", "vm.start"} <= set(both("session.get_rbac_permissions", both.session))
    assert "pool.set_name_label" not in bobs("session.get_rbac_permissions", bobs.session)
    return staff, bob, bobs, both


def taken_away(api, pool, staff, bob, bobs, both, role_of):
    """On all members at once."""
    (ref,) = api("pool.get_all")
    for change, expected in (("subject.remove_from_roles", "RBAC_PERMISSION_DENIED"), ("subject.add_to_roles", ""),
                             ("subject.remove_from_roles", "RBAC_PERMISSION_DENIED")):
        api(change, bob, role_of["pool-operator"])
        said = [attempt(pool, m, both.session, "pool.set_name_description", ref, "x") for m in (1, 2, 3)]
        assert said == [expected] * 3, (change, said)

    waiting = []
    thread = threading.Thread(target=lambda: waiting.append(attempt(pool, 2, both.session, "event.from", ["vm_group"], "", 30.0)))
    Api(pool, 2, both.session)("event.from", ["VM"], "", 0.1)
    thread.start()
    time.sleep(0.5)
    xe = subprocess.Popen([os.path.join(sys.argv[1], "xe"), "event-wait", "class=vm", "name-label=never", "-s", pool.address(2), "-u", "bob", "-pw", SECRET],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ, HOME=pool.dir))
    time.sleep(2)
    assert xe.poll() is None, xe.communicate()
    api("subject.destroy", bob)
    assert valid(pool, both.session) == ["SESSION_INVALID"] * 3, "the subject has gone, its session is there"
    thread.join(timeout=10)
    assert not thread.is_alive(), "who waits is not told"
    # bob's group still lets him in; his command came in by himself too, and goes on with the rest
    assert xe.poll() is None, xe.communicate()
    # it came in by the group alone
    assert valid(pool, bobs.session) == ["valid"] * 3

    carols, other = enter(pool, 3, "carol"), enter(pool, 1, "carol")
    assert {"S-carol", "S-bob", "S-alice"} <= set(api("session.get_all_subject_identifiers"))
    api("session.logout_subject_identifier", "S-carol")
    assert valid(pool, carols.session) == valid(pool, other.session) == ["SESSION_INVALID"] * 3
    assert "S-carol" not in api("session.get_all_subject_identifiers") and valid(pool, bobs.session) == ["valid"] * 3
    api("subject.destroy", staff)
    said = xe.communicate(timeout=20)[0]
    assert xe.returncode != 0 and "permit" in said, said
    assert valid(pool, bobs.session) == ["SESSION_INVALID"] * 3
    api.fails("HANDLE_INVALID", "subject.destroy", staff)


def confirmed_again(api, pool, ref, role_of):
    """While they are logged in the directory is asked again; one that gives no answer logs nobody out at once."""
    crew = api("subject.create", {"subject_identifier": "G-crew", "other_config": {}})
    api("subject.add_to_roles", crew, role_of["read-only"])
    bobs, carols, alices, roots = enter(pool, 1, "bob"), enter(pool, 2, "carol"), enter(pool, 3, "alice"), Api(pool, 1).login()
    when = api("session.get_validation_time", carols.session)
    api("pool.add_to_other_config", ref, "xpool-session-revalidation", "1")
    eventually("carol is confirmed", lambda: api("session.get_validation_time", carols.session) > when)
    others = [u for u in DIRECTORY["users"] if u["name"] not in ("alice", "bob")]
    write_directory(pool, dict(DIRECTORY, users=others + [user("bob")]))
    for session in (bobs, alices):  # no group of his is a subject any more; gone
        eventually("he is logged out", lambda s=session: valid(pool, s.session) == ["SESSION_INVALID"] * 3)
    assert valid(pool, carols.session) == ["valid"] * 3
    write_directory(pool, dict(DIRECTORY, users=[u for u in others if u["name"] != "carol"] + [user("carol", "crew", locked=True)]))
    eventually("carol is logged out", lambda: valid(pool, carols.session) == ["SESSION_INVALID"] * 3)

    # the groups that let him in change: his roles follow
    write_directory(pool, DIRECTORY)
    bobs = enter(pool, 2, "bob")
    others_too = api("subject.create", {"subject_identifier": "G-others", "other_config": {}})
    api("subject.add_to_roles", others_too, role_of["vm-admin"])
    write_directory(pool, dict(DIRECTORY, users=others + [user("bob", "others")]))
    eventually("bob is let in by his new group", lambda: bobs("session.get_subject", bobs.session) == others_too)
    assert "vm.set_name_label" in bobs("session.get_rbac_permissions", bobs.session)

    write_directory(pool, "{ no directory")
    time.sleep(6)
    assert valid(pool, bobs.session) == ["valid"] * 3, "the directory gives no answer"
    eventually("but not for ever", lambda: valid(pool, bobs.session) == ["SESSION_INVALID"] * 3, timeout=40)
    assert valid(pool, roots.session) == ["valid"] * 3
    api("pool.remove_from_other_config", ref, "xpool-session-revalidation")
    api("subject.destroy", crew)
    api("subject.destroy", others_too)


def switched_off(api, pool, ref, hosts):
    write_directory(pool, "{ no directory")
    broken, = at_once(lambda: refused(pool, 1, "alice", SECRET))
    assert broken[0] == "SESSION_AUTHORIZATION_FAILED", broken
    assert "directory.json" in api.fails("AUTH_SERVICE_ERROR", "auth.get_subject_identifier", "alice")[0]
    write_directory(pool, DIRECTORY)

    assert api("pool.detect_nonhomogeneous_external_auth", ref) == ""
    assert not [m for m in api("message.get_all_records").values() if m["name"].startswith("EXTAUTH")]
    at = {m: enter(pool, m, "alice") for m in (1, 2, 3)}
    leader = pool.leader()
    one = 1 + leader % 3
    off = next(h for h in hosts if api("host.get_address", h) == pool.address(one))
    api("host.disable_external_auth", off)
    api("host.disable_external_auth", off, {}, False)  # again is nothing
    for m, session in at.items():
        assert valid(pool, session.session) == ["SESSION_INVALID" if m == one else "valid"] * 3, m
    api("pool.detect_nonhomogeneous_external_auth", ref)
    alert, = [m for m in api("message.get_all_records").values() if m["name"].startswith("EXTAUTH")]
    assert alert["name"] == "EXTAUTH_IN_POOL_IS_NON_HOMOGENEOUS" and alert["obj_uuid"] == api("host.get_uuid", off) and alert["cls"] == "Host"
    assert refused(pool, one, "alice", SECRET)[0] == "SESSION_AUTHENTICATION_FAILED"
    api("host.enable_external_auth", off, {}, "example", "file")
    pool.agree()  # a login rests on what its member has
    at[one] = enter(pool, one, "alice")
    api("pool.disable_external_auth", ref, {"user": "joiner", "pass": "x"})
    for session in at.values():
        assert valid(pool, session.session) == ["SESSION_INVALID"] * 3
    assert api("session.get_all_subject_identifiers") == [] and valid(pool, api.session) == ["valid"] * 3
    assert {api("host.get_external_auth_type", h) for h in hosts} == {""}


def by_name_service():
    """The directory "PAM": users and groups of the host, in a pool of one."""
    service = tempfile.mkdtemp(prefix="xpool-pam-")
    os.chmod(service, 0o755)
    module = os.path.join(service, "module")
    with open(module, "w", encoding="utf-8") as handle:
        handle.write('#!/bin/sh\nread -r given\n[ "$given" = "%s" ]\n' % SECRET)
    os.chmod(module, stat.S_IRWXU)
    with open(os.path.join(service, "xpool"), "w", encoding="utf-8") as handle:
        handle.write("auth sufficient pam_exec.so quiet expose_authtok %s\nauth required pam_deny.so\naccount required pam_permit.so\n" % module)
    with Pool(members=1, agent="--pam %s/xpool" % service) as pool:
        api = Api(pool, 1).login()
        (ref,) = api("pool.get_all")
        api("pool.enable_external_auth", ref, {}, "this host", "PAM")
        assert api("auth.get_subject_identifier", "daemon") == "u1"
        api.fails("SUBJECT_CANNOT_BE_RESOLVED", "auth.get_subject_information_from_identifier", "u4294967296")
        group = api("subject.create", {"subject_identifier": "g1", "other_config": {}})
        assert api("subject.get_other_config", group)["subject-is-group"] == "true"
        api("subject.add_to_roles", group, api("role.get_by_name_label", "vm-admin")[0])
        assert "g1" in api("auth.get_group_membership", "u1")
        session = enter(pool, 1, "daemon")
        assert session("session.get_subject", session.session) == group and session("session.get_auth_user_sid", session.session) == "u1"
        session.fails("RBAC_PERMISSION_DENIED", "pool.set_name_label", ref, "x")
        wrong, unknown = at_once(lambda: refused(pool, 1, "daemon", PASSWORD), lambda: refused(pool, 1, "bin", SECRET))
        assert wrong[0] == "SESSION_AUTHENTICATION_FAILED" and unknown[0] == "SESSION_AUTHORIZATION_FAILED", (wrong, unknown)


with Pool() as pool:
    api = Api(pool, 1).login()
    (ref,), hosts = api("pool.get_all"), api("host.get_all")
    role_of = {role: api("role.get_by_name_label", role)[0] for role in ROLES}
    assert role_of["pool-admin"] in api("role.get_by_permission_name_label", "vm.start")
    assert role_of["read-only"] not in api("role.get_by_permission_name_label", "vm.start")
    start = api("role.get_by_name_label", "vm.start")[0]
    assert start in api("role.get_permissions", role_of["vm-operator"]) and api("role.get_permissions", start) == [start]
    assert sorted(api("role.get_by_permission", start)) == sorted(api("role.get_by_permission_name_label", "vm.start"))
    switched_on(api, pool, ref, hosts)
    looked_up(api)
    alice = subjects(api, pool, role_of)
    let_in(api, pool, alice, role_of)
    over_the_wire(api, pool, role_of)
    taken_away(api, pool, *by_groups(api, pool, role_of), role_of)
    confirmed_again(api, pool, ref, role_of)
    switched_off(api, pool, ref, hosts)
    for name, text in pool.logs():
        assert SECRET not in text and HASH not in text, "%s shows a password" % name
    pool.agree()
    pool.check()
by_name_service()
