"""Debian's fence_xenapi, unmodified and verifying the certificate, through every member, while the coordinator freezes and dies,
and without it."""
import os
import subprocess
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import PASSWORD, Api, Pool, during, eventually


def fence(pool, member, *args, ok=True, ca="ca.pem", password=PASSWORD):
    env = dict(os.environ, SSL_CERT_FILE=os.path.join(pool.dir, ca))
    done = subprocess.run(["fence_xenapi", "-s", "https://%s" % pool.address(member), "-l", "root", "-p", password, *args],
                          env=env, text=True, timeout=120, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode == 0) == ok, (args, done.returncode, done.stdout)
    return done.stdout


def whole_round(pool, members):
    for member in members:
        listing = fence(pool, member, "-o", "list")
        assert all(name in listing for name in ("web", "database", "mail")), listing
        assert "Other install media" not in listing
        fence(pool, member, "-o", "on", "-n", "web")
        assert "ON" in fence(pool, member, "-o", "status", "-n", "web")
        fence(pool, member, "-o", "reboot", "-n", "web")
        api = Api(pool, member).login()
        vm = api("VM.get_by_name_label", "web")[0]
        before = api("VM.get_domid", vm)
        api("VM.hard_reboot", vm)  # no action of the agent calls it
        assert api("VM.get_domid", vm) != before and api("VM.get_power_state", vm) == "Running"
        fence(pool, member, "-o", "off", "-n", "web")
        assert api("VM.get_power_state", vm) == "Halted"


def off_while(pool, member, what, victim):
    """The command is under way at that member, for a VM that runs there, when it happens to the coordinator."""
    api = Api(pool, member).login()
    vm = api("VM.get_by_name_label", "web")[0]
    api("VM.start_on", vm, api("session.get_this_host", api.session), False, True)
    said = during(pool, api, vm, "hard_shutdown", lambda: fence(pool, member, "-o", "off", "-n", "web"), lambda: pool.lose_leader(what, victim))
    assert said is not None, "the command has failed"
    assert api("VM.get_power_state", vm) == "Halted"


with Pool() as pool:
    whole_round(pool, (1, 2, 3))
    open(os.path.join(pool.dir, "none.pem"), "w").close()
    assert "CERTIFICATE_VERIFY_FAILED" in fence(pool, 1, "-o", "list", ok=False, ca="none.pem")
    assert "SESSION_AUTHENTICATION_FAILED" in fence(pool, 1, "-o", "list", ok=False, password="wrong")
    api = Api(pool, 1).login()
    marks = {}
    for number, vm in enumerate(api("VM.get_all")):
        api("VM.set_name_description", vm, "mark %d" % number)
        marks[vm] = "mark %d" % number
    leader = pool.leader()
    others = [n for n in (1, 2, 3) if n != leader]
    off_while(pool, others[0], "freeze", leader)
    whole_round(pool, others[1:])
    pool.quickstart("thaw", str(leader))
    eventually("it goes on", lambda: pool.status()[leader - 1].get("ready") == "yes")
    leader = pool.leader()
    others = [n for n in (1, 2, 3) if n != leader]
    off_while(pool, others[0], "kill", leader)
    whole_round(pool, others)
    kept = Api(pool, others[0]).login()("VM.get_all_records")
    assert {vm: kept[vm]["name_description"] for vm in marks} == marks, "an acknowledged write is gone"
    pool.quickstart("start", str(leader))
    eventually("member %d is back" % leader, lambda: pool.status()[leader - 1].get("ready") == "yes")
    pool.agree()
    whole_round(pool, (leader,))
