"""The measurements of xpool-bench, by name, in the order in which they run: each leaves the pool whole."""
import contextlib
import json
import os
import re
import subprocess
import time

import clusters
import failover
from clusters import MEMBERS, Failed, wait_until

VALUE = 200  # bytes that a write carries
TEXT = "@RUN@@N@" + "x" * (VALUE - 18)  # one of ours, see load.c and Bench.load_command
IN_FLIGHT = (1, 16, 64, 256)


def vms(bench, n):
    """So many in earnest, a handful with --quick."""
    return n // 50 if bench.quick else n


def micro(bench):
    """The database alone: tests/bench/micro.c."""
    rows = vms(bench, 100000)
    rounds = [json.loads(subprocess.run([os.path.join(bench.build, "xpool-micro"), str(rows)], text=True, check=True,
                                        stdout=subprocess.PIPE).stdout) for _ in range(bench.rounds)]
    for case, unit, key, most in (("apply of a one-row entry at %d rows" % rows, "us", "apply_us", 10),
                                  ("pin and unpin of a view", "ns", "pin_ns", 100),
                                  ("the same beside another reader", "ns", "pin_beside_ns", 100),
                                  ("check of roles, of a session with three subjects", "us", "role_us", 2),
                                  ("decoding a request of three parameters, JSON and XML in turn", "us", "request_us", None),
                                  ("writing the record of a VM, JSON and XML in turn", "us", "record_us", None),
                                  ("memory of a VM with metrics, 2 VBDs, 1 VIF", "bytes", "vm_bytes", None)):
        bench.row("micro", case, unit, [r[key] for r in rounds], target=(("median <=", most),) if most else ())


def missed(bench):
    return sum(bench.pool.counters(m)["heartbeats_missed"] for m in MEMBERS)


def records(bench):
    """VM.get_all_records of growing pools, by one client, then by many at once."""
    body = bench.rpc("VM.get_all_records")
    for n in (vms(bench, 1000), vms(bench, 5000), vms(bench, 10000)):
        bench.populate(n)
        for where, member in zip(("coordinator", "another member"), bench.roles()):
            reports = [bench.load([member], [body], "--requests", "3") for _ in range(bench.rounds)]
            bench.row("records", "%d VMs (%.1f MB), at %s" % (n, reports[0]["bytes"] / 3e6, where), "s",
                      [r["p50_us"] / 1e6 for r in reports], target=(("median <=", 0.2),) if n == vms(bench, 5000) else ())
    before, rounds, beats = missed(bench), [], []
    for _ in range(bench.rounds):
        rounds.append(bench.load(MEMBERS, [body], "--clients", "20", "--requests", "60")["p50_us"] / 1e6)
        beats.append(missed(bench) - before)
        before += beats[-1]
    bench.row("records", "%d VMs, 20 clients at once on three members" % n, "s", rounds)
    bench.row("records", "the same: heartbeats missed", "count", beats, target=(("worst <=", 0),))


def writes(bench):
    """One field of one VM, round robin, against puts of one key: etcd appends a revision either way."""
    bench.populate(vms(bench, 10000))
    body = bench.rpc("VM.set_name_description", "@REF@", TEXT)
    for in_flight in IN_FLIGHT[:2] if bench.quick else IN_FLIGHT:
        for k, (through, least) in enumerate((("the coordinator", 1), ("another member", 0.8))):
            ours, etcd = [], []
            for _ in range(bench.rounds):
                ours.append(bench.load([bench.roles()[k]], [body], "--clients", str(in_flight), *bench.timed())["per_s"])
                if bench.etcd:
                    etcd.append(bench.put_load(bench.etcd.roles()[k], b"x" * VALUE, in_flight))
            bench.row("writes", "%d in flight, through %s" % (in_flight, through), "per s", ours, etcd, (("ratio >=", least),))


def read_rounds(bench, case, serializable, header, targets):
    body, options = bench.rpc("VM.get_record", "@REF@"), ["--clients", "64", *header, *bench.timed()]
    record = json.dumps(bench.pool.call(1, "VM.get_record", bench.refs[0]), separators=(",", ":")).encode()
    ours, etcd = [], []
    for _ in range(bench.rounds):
        ours.append(bench.load([bench.roles()[1]], [body], *options)["per_s"])
        if bench.etcd:
            leader, other = bench.etcd.roles()
            bench.etcd.put(leader, record)
            etcd.append(bench.range_load(other, 64, serializable))
    bench.row("reads", "%s, %d bytes, 64 in flight, at another member" % (case, len(record)), "per s", ours, etcd, targets)


def session_rounds(bench):
    """What it costs that all calls hold one session: as many sessions beside it."""
    body, options = bench.rpc("VM.get_record", "@REF@"), ["--clients", "64", *bench.timed()]
    member, rounds = bench.roles()[1], []
    for _ in range(bench.rounds):
        one, many = (bench.load([member], [body], *options, share=share)["per_s"] for share in (64, 1))
        rounds.append(one / many)
    bench.row("reads", "64 in flight in one session, to as many in 64", "times", rounds, target=(("median >=", 0.95),))


def reads(bench):
    """One record, local; etcd's value is the same record's JSON."""
    bench.populate(vms(bench, 10000))
    read_rounds(bench, "local", True, (), (("ratio >=", 2),))
    session_rounds(bench)
    header = "X-Pool-Read: linearizable"
    before = bench.pool.counters(bench.pool.leader())["read_rounds"]
    bench.load([bench.roles()[1]], [bench.rpc("VM.get_record", "@REF@")], "--requests", "1", "--header", header)
    if bench.pool.counters(bench.pool.leader())["read_rounds"] == before:
        bench.skip("linearizable reads", "the pool does not know the header %s" % header)
        return
    read_rounds(bench, "linearizable", False, ("--header", header), ())


# What a client changes on each VM for `events`: fields that take any text.
TEXTS = ("name_description", "PV_bootloader", "PV_kernel", "PV_ramdisk", "PV_args", "PV_bootloader_args", "PV_legacy_args",
         "PCI_bus", "recommendations", "name_label")


def inject(bench):
    """(token before, index of) an event that every follower of class VM gets."""
    token = bench.pool.call(bench.pool.leader(), "event.inject", "VM", bench.refs[0])
    return token, int(token.split(",")[0]) % 10 ** 16 + 1


def parked(bench):
    return sum(bench.pool.counters(m)["events_parked_now"] for m in MEMBERS)


def follow_changes(bench, clients):
    """Change all VMs while so many clients follow: seconds from the last answer to the last client's last event, the pool's
    processor seconds, bytes that the clients got."""
    token, _ = inject(bench)
    command = bench.load_command(MEMBERS, [bench.rpc("event.from", ["vm"], "@TOKEN@", 600)], "--clients", str(clients), "--token",
                                 token)
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as follower:
        wait_until("the clients wait for events", lambda: parked(bench) >= clients or follower.poll() is not None)
        cpu = bench.pool.cpu_s()
        bodies = [bench.rpc("VM.set_" + field, "@REF@", "@RUN@@N@") for field in TEXTS]
        wrote = bench.load([bench.pool.leader()], bodies, "--clients", "64", "--requests", str(len(bodies) * len(bench.refs)))
        _, index = inject(bench)
        out, _ = follower.communicate("%d\n" % index)
    if follower.returncode:
        raise Failed("xpool-load failed")
    report = json.loads(out)
    if report["failed"] or report["broken"]:
        raise Failed("events: %s" % out)
    return (report["ended_us"] - wrote["ended_us"]) / 1e6, bench.pool.cpu_s() - cpu, report["bytes"] / 1e6, wrote["seconds"]


def events(bench):
    bench.populate(vms(bench, 5000))
    for clients in (3, 20) if bench.quick else (3, 50, 200):
        rounds = [follow_changes(bench, clients) for _ in range(bench.rounds)]
        case = "%d clients on three members, %d VMs, %d fields each" % (clients, len(bench.refs), len(TEXTS))
        for k, (what, unit) in enumerate((("last answer to last client's last event", "s"), ("processor time of the pool", "s"),
                                          ("bytes to the clients", "MB"), ("time of the changes", "s"))):
            bench.row("events", "%s: %s" % (case, what), unit, [r[k] for r in rounds])


def finished(bench):
    """Tasks that have ended, as one member has applied it."""
    return bench.pool.counters(MEMBERS[0])["commits_finish"]


def run_all(bench, method, args, state):
    """The operation on all of bench.refs, asked for at all members: operations per second, processor seconds and commits of each."""
    before, cpu, began = finished(bench), bench.pool.cpu_s() + bench.pool.agents_cpu_s(), time.monotonic()
    entries = bench.pool.counters(MEMBERS[0])["entries_applied"]
    bench.load(MEMBERS, [bench.rpc("Async.VM." + method, "@REF@", *args)], "--clients", "48", "--requests", str(len(bench.refs)))
    wait_until("all tasks have ended", lambda: finished(bench) - before >= len(bench.refs), 300, 0.05)
    seconds = time.monotonic() - began
    found = bench.pool.call(1, "VM.get_all_where", 'field "power_state"="%s" and field "is_a_template"="false"' % state)
    if not set(bench.refs) <= set(found):
        raise Failed("%s: not all VMs are %s" % (method, state))
    n = len(bench.refs)
    return (n / seconds, (bench.pool.cpu_s() + bench.pool.agents_cpu_s() - cpu) / n,
            (bench.pool.counters(MEMBERS[0])["entries_applied"] - entries) / n)


def operations(bench):
    """VMs started and stopped, as many as a pool can at once; the simulated hypervisor takes no time."""
    n = vms(bench, 1000)
    bench.populate(n)
    rounds = [[run_all(bench, *what) for what in (("start", (False, False), "Running"), ("hard_shutdown", (), "Halted"))]
              for _ in range(bench.rounds)]
    for k, (name, most) in enumerate((("start", 500), ("hard_shutdown", None))):
        case = "%d Async.VM.%s over three hosts" % (n, name)
        bench.row("operations", case, "per s", [r[k][0] for r in rounds], target=(("median >=", most),) if most else ())
        bench.row("operations", case + ": processor time of pool and agents for one", "ms", [r[k][1] * 1e3 for r in rounds])
        bench.row("operations", case + ": log entries for one", "count", [r[k][2] for r in rounds])


def evacuate(bench):
    """All VMs of a host move to the two others, ten at a time; the simulated hypervisor sends a small image for each."""
    n = vms(bench, 100)
    bench.populate(n)
    host, rounds = bench.pool.call(1, "host.get_all")[0], []
    for _ in range(bench.rounds):
        for ref in bench.refs:
            bench.pool.call(1, "VM.start_on", ref, host, False, True)
        began = time.monotonic()
        bench.pool.call(1, "host.disable", host)
        bench.pool.call(1, "host.evacuate", host, timeout=600)
        rounds.append(time.monotonic() - began)
        if bench.pool.call(1, "host.get_resident_VMs", host):
            raise Failed("host.evacuate has left VMs behind")
        bench.pool.call(1, "host.enable", host)
        run_all(bench, "hard_shutdown", (), "Halted")
    bench.row("evacuate", "%d running VMs from one host to two others" % n, "s", rounds)


def start(bench):
    """From the start of its process until a member answers a call of a session it does not know yet."""
    bench.populate(vms(bench, 10000))
    rounds = []
    for _ in range(bench.rounds):
        member = bench.roles()[1]
        bench.pool.kill(member)
        began = time.monotonic()
        bench.pool.start(member)
        wait_until("the member answers", lambda m=member: answers(bench, m), pause=0.005)
        rounds.append(time.monotonic() - began)
    bench.row("start", "of a killed member with %d VMs, to its first answer" % len(bench.refs), "s", rounds,
              target=(("worst <=", 2),))


def answers(bench, member):
    try:
        return bench.pool.call(member, "VM.get_record", bench.refs[0], timeout=10) is not None
    except (OSError, Failed):
        return False


def catch_up(bench):
    """A member that was away while others wrote."""
    bench.populate(vms(bench, 10000))
    writes_missed, body = vms(bench, 100000), bench.rpc("VM.set_name_description", "@REF@", TEXT)
    rounds = []
    for _ in range(bench.rounds):
        leader, member = bench.roles()
        bench.pool.kill(member)
        bench.load([leader], [body], "--clients", "64", "--requests", str(writes_missed))
        index = int(bench.pool.status(leader)["applied"])
        began = time.monotonic()
        bench.pool.start(member)
        wait_until("the member has caught up", lambda m=member, i=index: int(bench.pool.status(m).get("applied", 0)) >= i,
                   timeout=120)
        rounds.append(time.monotonic() - began)
    bench.row("catch_up", "of a member that was away for %d entries, its start included" % writes_missed, "s", rounds)


def cpu(processes):
    return sum(clusters.cpu_s(p.pid) for p in processes.values())


def resident_mib(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as handle:
        return int(re.search(r"VmRSS:\s+(\d+)", handle.read())[1]) / 1024


def idle(pool, seconds):
    """Nobody asks for anything: cores of all members and of all agents, elections, commits per second."""
    def seen():
        status = [pool.status(m) for m in pool.members]
        return (cpu(pool.processes), cpu(pool.agents), max(int(s["term"]) for s in status), pool.counters(1)["entries_applied"],
                time.monotonic())
    before = seen()
    time.sleep(seconds)
    *grown, took = (b - a for a, b in zip(before, seen()))
    return grown[0] / took, grown[1] / took, grown[2], grown[3] / took


def many(bench):
    """A pool grows to as many members as it can have, one pool.join after the other, and is left alone then."""
    most, seconds = (5, 2) if bench.quick else (64, 600)
    pool = clusters.Pool(os.path.join(bench.dir, "many"), bench.build, clusters.Addresses(), [1])
    with contextlib.closing(pool), bench.on(pool):
        pool.up()
        bench.populate(vms(bench, 10000))
        n, joins = len(bench.refs), {m: pool.join(m) for m in range(2, most + 1)}
        pool.wait_whole()
        for m in [m for m in (2, 3, 4, 8, 16, 32) if m < most] + [most]:
            bench.row("many", "join of member %d, %d VMs: pool.join until it serves" % (m, n), "s", [joins[m]])
        time.sleep(seconds / 20)  # voters are chosen, what joining left is put away
        members, agents, elections, commits = idle(pool, seconds)
        case = "%d members with %d VMs idle for %d s: " % (most, n, seconds)
        bench.row("many", case + "processor cores of all members", "cores", [members], target=(("worst <=", 1),))
        bench.row("many", case + "of all agents", "cores", [agents])
        bench.row("many", case + "elections", "count", [elections], target=(("worst <=", 0),))
        bench.row("many", case + "log entries", "per s", [commits])
        bench.row("many", case + "memory of the largest member", "MiB",
                  [max(resident_mib(p.pid) for p in pool.processes.values())], target=(("worst <=", 150),))


ALL = {
    "micro": micro,
    "records": records,
    "writes": writes,
    "reads": reads,
    "events": events,
    "operations": operations,
    "evacuate": evacuate,
    "start": start,
    "catch_up": catch_up,
    "failover": failover.measure,
    "many": many,
}
