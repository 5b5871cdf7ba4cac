"""A host that is a pool of its own joins another by pool.join: what is in the way is refused with its error, and nothing has
changed; then it is a member, with what the pool has.

usage: 32_join.py BUILD"""
import os
import ssl
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from joining import stand_alone
from xpool import PASSWORD, Api, Pool, eventually, vm_record

TARGET = ("127.0.0.11", "root", PASSWORD)

with Pool(members=1) as pool:
    api = Api(pool, 1).login()
    vm = api("VM.create", vm_record("of the pool"))
    pool.make_sr(api)
    stand_alone(pool, 2)
    host = Api(pool, 2).login()
    own = host("host.get_all")[0]
    # what is in the way, each alone
    host.fails("SESSION_AUTHENTICATION_FAILED", "pool.join", TARGET[0], "root", "wrong")
    host.fails("JOINING_HOST_SERVICE_FAILED", "pool.join", "127.0.0.11:8300", "root", PASSWORD)
    host.fails("JOINING_HOST_SERVICE_FAILED", "pool.join", "127.0.0.99", "root", PASSWORD)
    host.fails("VALUE_NOT_SUPPORTED", "pool.join", "a.name", "root", PASSWORD)
    assert "itself" in host.fails("OPERATION_NOT_ALLOWED", "pool.join", pool.address(2), "root", PASSWORD)[0]
    host("pool.join", *TARGET)
    eventually("it has what the pool has", lambda: pool.status()[0].get("hash") == pool.status()[1].get("hash"), timeout=60)
    host = Api(pool, 2).login()
    assert host("VM.get_name_label", vm) == "of the pool"
    assert sorted(r["name_label"] for r in host("host.get_all_records").values()) == ["host1", "host2"]
    eventually("its PBD is plugged", lambda: all(r["currently_attached"] for r in host("PBD.get_all_records").values()))
    assert any(name.startswith("raft.aside") for name in os.listdir(pool.data(2)))
