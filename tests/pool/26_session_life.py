"""Idle sessions end, used ones do not, wherever they are used; caps take the least recently used; last_active is seen everywhere."""
import ctypes.util
import ctypes
import os
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import PASSWORD, Api, ApiError, Pool, eventually


def cheap_hash():
    """The product's own hash is dear on purpose; hundreds of logins need another."""
    lib = ctypes.CDLL(ctypes.util.find_library("crypt"))
    lib.crypt.restype = ctypes.c_char_p
    return lib.crypt(PASSWORD.encode(), b"$1$abcdefgh$").decode()


def removals(pool, member):
    """What the coordinator has said about sessions that it removes."""
    with open(os.path.join(pool.dir, "member%d" % member, "xpoold.log"), encoding="utf-8") as handle:
        return [line for line in handle if "event=session_removed" in line]


def valid(api):
    try:
        api("session.get_uuid", api.session)
        return True
    except ApiError as fault:
        assert fault.code == "SESSION_INVALID", fault
        return False


with Pool() as pool:
    hashed = cheap_hash()
    for member in (1, 2, 3):
        for top, _, names in os.walk(os.path.join(pool.dir, "member%d" % member)):
            if "passwd" in names:
                with open(os.path.join(top, "passwd"), "w", encoding="ascii") as handle:
                    handle.write("root:%s\n" % hashed)
    leader = pool.leader()
    away, other = [m for m in (1, 2, 3) if m != leader]
    admin = Api(pool, leader).login()

    # nobody logs in from a directory yet
    assert admin("session.get_all_subject_identifiers") == []
    assert admin("session.logout_subject_identifier", "S-1-5-21") == "" and valid(admin)

    # the cap of those that say no name: the least recently used goes
    def anonymous(member):
        api = Api(pool, member)
        api.session = api.raw("session.login_with_password", "root", PASSWORD)
        return api

    first, second = anonymous(leader), anonymous(away)
    time.sleep(1.1)
    crowd = [anonymous(away if k % 2 else other) for k in range(398)]
    time.sleep(1.1)
    assert valid(first)  # where the coordinator sees it
    crowd.append(anonymous(leader))
    eventually("the cap is applied", lambda: len(removals(pool, leader)) == 1, timeout=10)
    assert not valid(second) and valid(first) and valid(admin), "another one was taken"
    assert all(valid(Api(pool, leader, api.session)) for api in crowd)
    # by which client is told once; another originator of the same user is another group
    alerts = [m for m in admin("message.get_all_records").values() if m["name"] == "SESSION_LIMIT_REACHED"]
    assert len(alerts) == 1 and "user=root originator= address=127.0.0.1" in alerts[0]["body"], alerts

    # idle: one is used all the time at a member that does not coordinate, the other is not
    (ref,) = admin("pool.get_all")
    used, idle = Api(pool, away).login(), Api(pool, away).login()
    stamp = admin("session.get_last_active", used.session)
    admin("pool.add_to_other_config", ref, "xpool-session-timeout", "8")
    until = time.time() + 16
    while time.time() < until:
        assert valid(used)
        time.sleep(0.3)
    assert not valid(idle)
    watcher = Api(pool, leader).login()
    eventually("the coordinator knows", lambda: valid(used) and watcher("session.get_last_active", used.session) > stamp)
    assert watcher("session.get_record", used.session)["last_active"] > stamp
    # a value that makes no sense is none
    watcher("pool.remove_from_other_config", ref, "xpool-session-timeout")
    watcher("pool.add_to_other_config", ref, "xpool-session-timeout", "soon")
    time.sleep(10)
    assert valid(watcher)
    pool.agree()
