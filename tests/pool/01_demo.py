"""deploy/quickstart demo on a pool with running VMs: it says that nothing was lost, and what it counts can be counted again."""
import re
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool

with Pool(content="") as pool:
    said = pool.quickstart("demo", timeout=170).stdout
    print(said)
    assert "Nothing was lost, nothing ran twice." in said and "NO" not in said
    acked, found = zip(*re.findall(r"acknowledged (\d+), found (\d+);", said))
    assert acked == found and len(acked) == 2 and all(int(n) > 500 for n in acked), (acked, found)
    api = Api(pool, 2).login()
    keys = [key for vm in api("VM.get_all_records").values() if vm["name_label"].startswith("demo-")
            for key in vm["other_config"] if key.startswith("demo-")]
    assert len(keys) >= sum(map(int, acked)), (len(keys), acked)
    states = {vm["name_label"]: vm["power_state"] for vm in api("VM.get_all_records").values()}
    assert states["web"] == states["database"] == "Running" and states["mail"] == "Halted", states
    again = pool.quickstart("demo", "--help")
    assert "demo" in again.stdout
