"""After a forced recovery one member votes. The others follow its epoch by pool.emergency_reset_master, one of them killed behind
the answer, the last one alone, without a majority of its own. When they have fetched everything they vote again: the pool goes on
without the one that was recovered. A second time the recovered one takes them in by pool.recover_slaves."""
import fcntl
import os
import subprocess
import sys
import time
import urllib.error

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import PASSWORD, Api, Pool, eventually, vm_record

CTL = os.path.join(sys.argv[1], "xpoolctl")


def ctl(*command):
    done = subprocess.run([CTL, *command], text=True, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, (command, done.stdout)


def kill(pool, member):
    pool.quickstart("kill", str(member))
    with open(os.path.join(pool.data(member), "lock")) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # its last thread has ended


def asked(api, proof, path="/pool/members"):
    """Who is in the pool is told to its own members alone."""
    try:
        return api.post(proof, path=path).status
    except urllib.error.HTTPError as fault:
        return fault.code


def follows(pool, member, api):
    eventually("member %d has what the new epoch has" % member,
               lambda: pool.status()[2].get("hash", "0") == pool.status()[member - 1].get("hash"))
    assert any(name.startswith("raft.aside") for name in os.listdir(pool.data(member)))
    assert "members.next.json" not in os.listdir(pool.data(member))


with Pool() as pool:
    api = Api(pool, 3).login()
    vm = api("VM.create", vm_record("before"))
    pool.agree()
    time.sleep(1.5)  # noted once a second
    for member in (1, 2, 3):
        kill(pool, member)
    ctl("recover", "--dir", pool.data(3), "--yes")
    pool.quickstart("start", "3")
    assert pool.leader() == 3
    # an old majority, which still serves
    for member in (1, 2):
        pool.quickstart("start", str(member))
    eventually("it has a leader", lambda: any(line.get("role") == "leader-ready" for line in pool.status()[:2]))
    old = {n: Api(pool, n).login() for n in (1, 2)}
    old[1].fails("OPERATION_NOT_ALLOWED", "pool.emergency_reset_master", "192.0.2.1")
    assert old[1]("pool.emergency_reset_master", pool.address(2)) in ("", None)  # of its epoch: nothing to follow
    for proof in b"", b"OpaqueRef:" + b"0" * 36, b"OpaqueRef:01234567-0123-0123-0123-0123456789ab":
        assert asked(api, proof) == 401
    kill(pool, 3)
    old[1].fails("CANNOT_CONTACT_HOST", "pool.emergency_reset_master", pool.address(3))
    pool.quickstart("start", "3")
    assert pool.leader(of=[3]) == 3
    assert old[1]("pool.emergency_reset_master", pool.address(3)) in ("", None)
    follows(pool, 1, api)
    # the other one is alone now
    local = Api(pool, 2, Api(pool, 2).raw("session.slave_local_login_with_password", "root", PASSWORD))
    assert local("pool.emergency_reset_master", pool.address(3)) in ("", None)
    follows(pool, 2, api)
    eventually("both have votes again", lambda: pool.counters(3)["raft_changes"] >= 2)
    api("VM.set_name_label", vm, "after")
    pool.agree()
    kill(pool, 3)
    assert pool.leader() in (1, 2)
    other = Api(pool, 1, api.session)
    other("VM.set_name_description", vm, "without the one that was recovered")
    assert other("VM.get_name_label", vm) == "after"
    pool.quickstart("start", "3")
    pool.agree()

    # once more: a member alone says what to do; the one that was recovered takes the others in
    time.sleep(1.5)
    for member in (1, 2, 3):
        kill(pool, member)
    pool.quickstart("start", "3")
    xe = [os.path.join(sys.argv[1], "xe"), "-s", pool.address(3), "-u", "root", "-pw", PASSWORD]
    eventually("it serves", lambda: pool.status()[2].get("role") in ("follower", "candidate"))
    done = subprocess.run(xe + ["pool-emergency-transition-to-master", "force=true"], text=True, timeout=60, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=dict(os.environ, HOME=pool.dir))
    assert done.returncode == 1 and "xpoolctl recover" in done.stdout, done.stdout
    kill(pool, 3)
    ctl("recover", "--dir", pool.data(3), "--yes")
    pool.quickstart("start", "3")
    assert pool.leader(of=[3]) == 3
    for member in (1, 2):
        pool.quickstart("start", str(member))
    eventually("it has a leader", lambda: any(line.get("role") == "leader-ready" for line in pool.status()[:2]))
    api = Api(pool, 3, api.session)
    assert asked(Api(pool, 1), b"OpaqueRef:01234567-0123-0123-0123-0123456789ab", "/pool/follow?address=" + pool.address(3)) == 401
    others = [h for h, m in api.members().items() if m != 3]
    assert sorted(api("pool.recover_slaves")) == sorted(others)
    for member in (1, 2):
        follows(pool, member, api)
    assert api("VM.get_name_description", vm) == "without the one that was recovered"
    pool.agree()
