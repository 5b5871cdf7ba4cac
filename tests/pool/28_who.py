"""Who may log in: PAM in a process that may hang or crash, the password file, a new password of root on all members at once."""
import json
import os
import stat
import sys
import tempfile
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import PASSWORD, Api, Pool, at_once, eventually, refused

# A PAM module as they come: it answers, hangs, or takes its process with it.
SCRIPT = """#!/bin/sh
read -r given
case $PAM_USER in
slow) sleep 60 ;;
crash) kill -SEGV $PPID; sleep 1 ;;
esac
[ "$given" = "%s" ]
""" % PASSWORD


def in_no_log(pool, *secrets):
    for name, text in pool.logs():
        for secret in secrets:
            assert secret not in text, "%s shows a password" % name


WRONG = "wr0ng-password"
service = tempfile.mkdtemp(prefix="xpool-pam-")
os.chmod(service, 0o755)
with open(os.path.join(service, "module"), "w", encoding="utf-8") as handle:
    handle.write(SCRIPT)
os.chmod(os.path.join(service, "module"), stat.S_IRWXU)
with open(os.path.join(service, "xpool"), "w", encoding="utf-8") as handle:
    handle.write("auth sufficient pam_exec.so quiet expose_authtok %s/module\nauth required pam_deny.so\n"
                 "account required pam_permit.so\n" % service)

with Pool(members=1, options="--local-users pam", agent="--pam %s/xpool" % service) as pool:
    api = Api(pool, 1).login()
    assert api("session.get_is_local_superuser", api.session) is True
    assert Api(pool, 1).login("other")("session.get_auth_user_name", api.session) == "root"

    def meanwhile():
        time.sleep(1)
        began = time.time()
        Api(pool, 1).login()
        return time.time() - began

    wrong, slow, crash, quick = at_once(
        lambda: refused(pool, 1, "root", WRONG), lambda: refused(pool, 1, "slow", PASSWORD),
        lambda: refused(pool, 1, "crash", PASSWORD), meanwhile)
    assert wrong[:2] == ("SESSION_AUTHENTICATION_FAILED", "Authentication failure") and 5 <= wrong[2] < 8, wrong
    assert slow[0] == "SESSION_AUTHENTICATION_FAILED" and 12 < slow[2] < 18, slow
    assert crash[0] == "SESSION_AUTHENTICATION_FAILED" and 5 <= crash[2] < 8, crash
    assert quick < 3, "others wait for a module that hangs: %.1f s" % quick
    assert 'event=child_failed child=auth why="was ended by signal' in dict(pool.logs())["member1/agent.log"]
    api.fails("NOT_IMPLEMENTED", "session.change_password", PASSWORD, "new")
    in_no_log(pool, WRONG, PASSWORD)

def alone(pool):
    """Sessions of one host, which need no majority."""
    def enter(member, user="root", password=None):
        api = Api(pool, member)
        api.session = api.raw("session.slave_local_login_with_password", user, PASSWORD if password is None else password)
        return api

    one, again, other = enter(1), enter(1), enter(2)
    assert len(one("VM.get_all")) == len(other("VM.get_all")) and one("pool.set_name_label", one("pool.get_all")[0], "by a local session") == ""
    task = one("task.create", "of a local session", "")
    assert one.session not in json.dumps(one("task.get_record", task)) + pool.ctl(1, "sql", "SELECT * FROM task")
    for stranger in (Api(pool, 2, one.session), Api(pool, 3, one.session), Api(pool, 1, other.session)):
        stranger.fails("SESSION_INVALID", "VM.get_all")
    waiting = []
    token = again("event.from", ["VM"], "", 0.1)["token"]
    thread = threading.Thread(target=lambda: waiting.append(again.fails("SESSION_INVALID", "event.from", ["VM"], token, 30.0)))
    thread.start()
    time.sleep(0.5)
    again("session.local_logout")
    thread.join(timeout=10)
    assert waiting == [[again.session]], waiting
    again.fails("SESSION_INVALID", "VM.get_all")
    other("session.logout")
    other.fails("SESSION_INVALID", "session.logout")
    pooled = Api(pool, 2).login()
    assert pooled("session.local_logout") == "" and pooled("host.get_all")  # it is no local one
    # the one that was not used for longest gives way
    first, kept = enter(1), enter(1)
    crowd = [enter(1) for _ in range(60)]
    kept("VM.get_all"), one("VM.get_all")
    crowd += [enter(1) for _ in range(4)]
    first.fails("SESSION_INVALID", "VM.get_all")
    assert kept("host.get_all") == one("host.get_all")

    pool.quickstart("kill", "2")
    pool.quickstart("kill", "3")
    eventually("nobody leads", lambda: one("host.is_in_emergency_mode"))
    code, _, _ = at_once(lambda: refused(pool, 1, "root", PASSWORD))[0]
    assert code == "HOST_IN_EMERGENCY_MODE", code
    emergency = enter(1)
    with emergency.post(json.dumps({"jsonrpc": "2.0", "method": "host.get_all", "params": [emergency.session], "id": 1}).encode()) as reply:
        assert len(json.load(reply)["result"]) == 3 and "X-Pool-Stale" in reply.headers
    emergency.fails("HOST_IN_EMERGENCY_MODE", "pool.set_name_label", emergency("pool.get_all")[0], "x")
    (wrong, text, seconds), = at_once(lambda: refused(pool, 1, "root", WRONG, "session.slave_local_login_with_password"))
    assert wrong == "SESSION_AUTHENTICATION_FAILED" and seconds >= 5
    for name, text in pool.logs():
        assert one.session not in text and emergency.session not in text, "%s shows a session" % name
    for member in ("2", "3"):
        pool.quickstart("start", member)
    pool.leader()
    assert emergency("pool.set_name_label", emergency("pool.get_all")[0], "it is over") == ""
    pool.agree()


with Pool() as pool:
    alone(pool)

with Pool() as pool:
    apis = [Api(pool, m).login() for m in (1, 2, 3)]
    pool.quickstart("kill", "3")
    new = "another pass:wörd"
    apis[0]("session.change_password", "ignored", new)
    for text in ("", "x" * 600):
        assert text not in apis[0].fails("VALUE_NOT_SUPPORTED", "session.change_password", "", text)
    # at once on the other member; the one that was away refuses the old one too
    Api(pool, 2).login("root", new)
    pool.quickstart("start", "3")
    eventually("3 is back", lambda: pool.status()[2].get("role") is not None)
    pool.agree()
    Api(pool, 3).login("root", new)
    old, stranger = at_once(lambda: refused(pool, 3, "root", PASSWORD), lambda: refused(pool, 1, "nobody", new))
    for code, text, seconds in (old, stranger):
        assert (code, text) == ("SESSION_AUTHENTICATION_FAILED", "Authentication failure") and 5 <= seconds < 8
    in_no_log(pool, new, PASSWORD)
    assert "$6$" not in pool.ctl(1, "sql", "SELECT value FROM _config"), "the hash is on show"
