"""The measurements of xpool-bench, by name, in the order in which they run: each leaves the pool whole."""
import json

VALUE = 200  # bytes that a write carries
IN_FLIGHT = (1, 16, 64, 256)


def vms(bench, n):
    """So many in earnest, a handful with --quick."""
    return min(n, 200) if bench.quick else n


def writes(bench):
    """One field of one VM, round robin, against puts of one key: etcd appends a revision either way."""
    bench.populate(vms(bench, 10000))
    body = bench.rpc("VM.set_name_description", "@REF@", "@N@" + "x" * (VALUE - 12))
    for in_flight in IN_FLIGHT[:2] if bench.quick else IN_FLIGHT:
        for through in ("coordinator", "other"):
            ours, etcd = [], []
            for _ in range(bench.rounds):
                member = bench.roles()[through == "other"]
                ours.append(bench.load([member], [body], "--clients", str(in_flight), *bench.timed())["per_s"])
                if bench.etcd:
                    leader = bench.etcd.leader()
                    member = leader if through == "coordinator" else bench.etcd.others(leader)[0]
                    etcd.append(bench.put_load(member, b"x" * VALUE, in_flight))
            bench.row("writes", "%d in flight, through %s" % (in_flight, "the coordinator" if through == "coordinator" else
                                                              "another member"), "per s", ours, etcd,
                      ("ratio", 1 if through == "coordinator" else 0.8))


def reads(bench):
    """One record, local; etcd's value is the same record's JSON."""
    bench.populate(vms(bench, 10000))
    record = json.dumps(bench.pool.call(1, "VM.get_record", bench.refs[0]), separators=(",", ":")).encode()
    ours, etcd = [], []
    for _ in range(bench.rounds):
        ours.append(bench.load([bench.roles()[1]], [bench.rpc("VM.get_record", "@REF@")], "--clients", "64",
                               *bench.timed())["per_s"])
        if bench.etcd:
            leader = bench.etcd.leader()
            bench.etcd.put(leader, record)
            etcd.append(bench.range_load(bench.etcd.others(leader)[0], 64, True))
    bench.row("reads", "%d bytes, 64 in flight, at another member" % len(record), "per s", ours, etcd, ("ratio", 2))


ALL = {
    "writes": writes,
    "reads": reads,
}
