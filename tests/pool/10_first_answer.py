"""A fresh pool: up is repeatable, every member answers in both encodings, status tells the truth."""
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import PASSWORD, Api, Pool, XmlApi

with Pool() as pool:
    began = time.time()
    pool.quickstart("up")
    assert time.time() - began < 10, "a second up took %.1f s" % (time.time() - began)
    index, _ = pool.agree()
    assert int(index) > 3
    assert sum(line["role"] == "leader-ready" for line in pool.status()) == 1
    for member in (1, 2, 3):
        api = Api(pool, member).login()
        names = api.raw("system.listMethods")
        xml = XmlApi(pool, member)
        assert xml("system.listMethods") == names and names == sorted(names) and "VM.start" in names
        hosts = api("host.get_all_records")
        assert sorted(h["address"] for h in hosts.values()) == [pool.address(n) for n in (1, 2, 3)]
        (record,) = api("pool.get_all_records").values()
        assert hosts[record["master"]]["address"] == pool.address(pool.leader())
        assert len(api("VM.get_by_name_label", "Other install media")) == 1
        assert xml("session.login_with_password", "root", PASSWORD)["Status"] == "Success"
        assert xml("VM_get_all", api.session)["Status"] == "Success"
        # writes at one member are read there at once
        vm = api("VM.get_by_name_label", "web")[0]
        api("VM.set_name_description", vm, "by %d" % member)
        assert api("VM.get_name_description", vm) == "by %d" % member
        api("session.logout")
        api.fails("SESSION_INVALID", "VM.get_all")
    coverage = dict(reversed(line.rsplit(None, 1)) for line in pool.ctl(1, "coverage").splitlines())
    coverage = {name: state.strip() for name, state in coverage.items()}
    assert coverage["VM.start"] == coverage["session.logout"] == "written" and coverage["Bond.create"] == "not yet", coverage
    for member in (1, 2, 3):
        pool.check(member)
        counters = pool.counters(member)
        assert counters["entries_applied"] > 0 and counters["commits_field"] > 0 and counters["loop_turns"] > 0, counters
