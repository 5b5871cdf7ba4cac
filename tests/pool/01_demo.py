"""deploy/quickstart demo on a pool with running VMs: it says that nothing was lost, and what it counts can be counted again."""
import re
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool

SECONDS_MAX = 90  # a minute, and what a busy machine takes

with Pool(content="") as pool:
    said = pool.quickstart("demo", timeout=170).stdout
    print(said)
    assert "Nothing was lost, nothing ran twice." in said and "NO" not in said
    assert said.count("0 entries behind: all 3 members at entry ") == 2, said
    assert int(re.search(r"^(\d+) s\. Nothing was lost", said, re.M).group(1)) <= SECONDS_MAX, said
    acked, found = zip(*re.findall(r"acknowledged (\d+), found (\d+);", said))
    assert acked == found and len(acked) == 2 and all(int(n) > 500 for n in acked), (acked, found)
    # the gap is a number, the lead goes to another member, each VM is on exactly one host, and the last line says what to do next
    gaps = re.findall(r"^  gap without an acknowledged write: (\d+\.\d\d) s   \(longest before: (\d+\.\d\d) s\)$", said, re.M)
    assert len(gaps) == 2 and all(0 < float(gap) < SECONDS_MAX for gap, _ in gaps), said
    led, lead = (re.findall(text, said, re.M) for text in (r"member (\d), which leads", r"^  member (\d) leads now$"))
    assert len(led) == len(lead) == 2 and led[0] != lead[0] and led[1] != lead[1], (led, lead)
    once = re.findall(r"^  (\d+) VMs run, (\d+) domains on all hosts, each on exactly one: yes$", said, re.M)
    assert len(once) == 2 and all(run == domains and int(run) > 0 for run, domains in once), said
    last = said.rstrip().splitlines()[-1]
    assert last.startswith("Now try to break it yourself: ") and last.endswith("status shows the members' hashes."), last
    api = Api(pool, 2).login()
    keys = [key for vm in api("VM.get_all_records").values() if vm["name_label"].startswith("demo-")
            for key in vm["other_config"] if key.startswith("demo-")]
    assert len(keys) >= sum(map(int, acked)), (len(keys), acked)
    states = {vm["name_label"]: vm["power_state"] for vm in api("VM.get_all_records").values()}
    assert states["web"] == states["database"] == "Running" and states["mail"] == "Halted", states
    # what the pool began with: one SR that all hosts see, and each VM has a disk on it and an interface on the hosts' network
    ((sr, record),) = api("SR.get_all_records").items()
    assert record["shared"] and {p["host"] for p in api("PBD.get_all_records").values() if p["currently_attached"]} == set(api("host.get_all"))
    assert api("pool.get_default_SR", api("pool.get_all")[0]) == sr
    for name in ("web", "database", "mail"):
        (vm,) = api("VM.get_by_name_label", name)
        ((vbd,), (vif,)) = (api(kind + ".get_all_records_where", 'field "VM"="%s"' % vm).values() for kind in ("VBD", "VIF"))
        assert vbd["currently_attached"] == vif["currently_attached"] == (name != "mail"), (name, vbd, vif)
        assert api("VDI.get_SR", vbd["VDI"]) == sr and api("network.get_PIFs", vif["network"]) != []
    again = pool.quickstart("demo", "--help")
    assert "demo" in again.stdout
