"""The coordinator is lost: how long until a write is acknowledged by another member, and do reads there pause?

One harness for both systems. Clients with open connections wait at the two members that stay; from the moment of the loss on one
more at each sends a write every 100 ms, until one has succeeded (one alone would not do: etcd answers a write sent while there
is no leader after 6 s, with an error). All are sent after the loss, so none can have been committed before.
"""
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time

import clusters
import grpc_raw

RUNS = 10  # of each cause, in each round
PROBES, STEP_S = 16, 0.1  # at each member that stays
LIMIT_S = 20
READ_MAX_S = 0.05  # a read may take
READS_S = 3  # how long readers run, the loss in their midst


class PoolProbe:
    """Writes to one VM, through one member."""

    def __init__(self, pool, member, ref):
        self.session, self.ref, self.number = pool.session(member), ref, 0
        self.http = http.client.HTTPSConnection(pool.address(member), pool.ports[member][0], timeout=LIMIT_S, context=pool.tls)

    def write(self):
        self.number += 1
        params = [self.session, self.ref, "probe %d %f" % (self.number, time.monotonic())]
        self.http.request("POST", "/jsonrpc", json.dumps({"jsonrpc": "2.0", "method": "VM.set_name_description",
                                                          "params": params, "id": 1}))
        answer = json.load(self.http.getresponse())
        if "error" in answer:
            raise clusters.Failed(answer["error"])

    def close(self):
        self.http.close()


class EtcdProbe:
    """The same with puts."""

    def __init__(self, etcd, member):
        self.etcd, self.member, self.connection = etcd, member, None

    def write(self):
        if self.connection is None:
            self.connection = grpc_raw.Connection(self.etcd.address(self.member), self.etcd.ports[self.member][0], LIMIT_S)
        try:
            self.connection.call("/etcdserverpb.KV/Put", grpc_raw.put_request(self.etcd.KEY, b"probe"), LIMIT_S)
        except (OSError, grpc_raw.Refused):
            self.close()
            raise

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def try_write(probe):
    try:
        probe.write()
    except (OSError, http.client.HTTPException, clusters.Failed, grpc_raw.Refused):
        return False
    return True


def write_until(probe, go, delay, over, times):
    go.wait()
    over.wait(delay)
    while not over.is_set():
        if try_write(probe):
            times.append(time.monotonic())
            over.set()
        time.sleep(0.002)


def lose(probes, harm):
    """Seconds from the harm to the first write acknowledged to one of the probes."""
    go, over, times = threading.Event(), threading.Event(), []
    threads = [threading.Thread(target=write_until, args=(probe, go, k // 2 * STEP_S, over, times), daemon=True)
               for k, probe in enumerate(probes)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    harm()
    go.set()
    if not over.wait(LIMIT_S):
        raise clusters.Failed("no write within %d s" % LIMIT_S)
    return min(times) - began


class Kill:
    name = "SIGKILL"

    @staticmethod
    def harm(cluster, member):
        cluster.signal(member, signal.SIGKILL)

    @staticmethod
    def mend(cluster, member):
        cluster.kill(member)
        cluster.start(member)


class Stop:
    name = "SIGSTOP"

    @staticmethod
    def harm(cluster, member):
        cluster.signal(member, signal.SIGSTOP)
        clusters.wait_until("it stands still", lambda: clusters.state(cluster.processes[member].pid) == "T", pause=0.0005)

    @staticmethod
    def mend(cluster, member):
        cluster.signal(member, signal.SIGCONT)


class Cut:
    name = "link cut"

    @staticmethod
    def harm(cluster, member):
        cluster.network.cut(member)

    @staticmethod
    def mend(cluster, member):
        cluster.network.mend(member)


def probes_of(bench, cluster, members):
    """Each has written once: its connection is open."""
    make = (lambda m: EtcdProbe(cluster, m)) if cluster.name == "etcd" else (lambda m: PoolProbe(cluster, m, bench.refs[0]))
    probes = [make(m) for _ in range(PROBES) for m in members]
    for probe in probes:
        clusters.wait_until("a probe can write", lambda p=probe: try_write(p))
    return probes


def ready_probes(bench, cluster):
    """(leader, probes at the others), with nothing else going on."""
    while True:
        leader = cluster.leader()
        probes = probes_of(bench, cluster, cluster.others(leader))
        time.sleep(random.uniform(0.2, 0.4))
        if cluster.leader() == leader:  # etcd may elect again after a mended link
            return leader, probes


def begin_reads(bench, members):
    command = bench.load_command(members, [bench.rpc("VM.get_record", "@REF@")], "--clients", "4", "--every-ms", "5", "--seconds",
                                 str(READS_S))
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE)


def longest_read(reader):
    """Seconds."""
    report = json.loads(reader.communicate()[0])
    if report["failed"] or report["broken"]:
        raise clusters.Failed("reads failed on members that stay: %s" % report)
    return report["max_us"] / 1e6


WAITS = ("loop_lag_us_max", "floors_wait_us_max")  # what a read may have waited for: its loop's turn, its session


def waits(cluster, members):
    return {(m, name): counters[name] for m in members for counters in [cluster.counters(m)] for name in WAITS}


def explain(cluster, longest, before):
    """Say what grew while a read took too long."""
    now = waits(cluster, {m for m, _ in before})
    grown = ["member %d %s %.3f s" % (m, name, value / 1e6) for (m, name), value in now.items() if value > before[m, name]]
    clusters.warn("a read of %.3f s: %s" % (longest, ", ".join(grown) or "no counter of the members says why: the client waited"))


def one_run(bench, cluster, cause):
    """Seconds without a write; ours: and the longest read on those that stay, seconds."""
    leader, probes = ready_probes(bench, cluster)
    ours, others = cluster.name == "ours", cluster.others(leader)
    before = waits(cluster, others) if ours else None
    reader = begin_reads(bench, others) if ours else None
    time.sleep(0.2)
    took = lose(probes, lambda: cause.harm(cluster, leader))
    longest = longest_read(reader) if reader else None
    if ours and longest > READ_MAX_S:
        explain(cluster, longest, before)
    cause.mend(cluster, leader)
    cluster.wait_whole()
    return took, longest


def measure_cause(bench, both, cause, targets):
    ours, etcd, reads = [], [], []
    for _ in range(1 if bench.quick else RUNS * bench.rounds):
        took, longest = one_run(bench, both[0], cause)
        ours.append(took)
        reads.append(longest)
        if both[1]:
            etcd.append(one_run(bench, both[1], cause)[0])
    bench.row("failover", "%s: to the next acknowledged write elsewhere, %d runs" % (cause.name, len(ours)), "s", ours, etcd,
              (("median <=", targets[0]), ("worst <=", targets[1])))
    bench.row("failover", "%s: longest read on the others" % cause.name, "s", reads, target=(("worst <=", READ_MAX_S),))


def measure_cut(bench):
    """Members in network namespaces of their own, so that a link can be cut without a sign."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        bench.skip("link cut", "needs root, for network namespaces")
        return
    network, pool, etcd = clusters.Links(), bench.pool, bench.etcd
    try:
        bench.pool = clusters.Pool(os.path.join(bench.dir, "pool2"), bench.build, network)
        bench.etcd = clusters.Etcd(os.path.join(bench.dir, "etcd2"), bench.build, network) if etcd else None
        both = [bench.pool, bench.etcd]
        for cluster in filter(None, both):
            cluster.up()
        bench.populate(20)
        measure_cause(bench, both, Cut, (1.0, 1.5))
    finally:
        for cluster in (bench.pool, bench.etcd):
            if cluster not in (pool, etcd, None):
                cluster.close()
        bench.pool, bench.etcd = pool, etcd
        network.close()


def measure(bench):
    bench.populate(200 if bench.quick else 10000)
    calm = [longest_read(begin_reads(bench, clusters.MEMBERS[:2])) for _ in range(1 if bench.quick else 2 * bench.rounds)]
    bench.row("failover", "nothing lost: longest read in %d s, for comparison" % READS_S, "s", calm)
    for cause, targets in ((Kill, (0.10, 0.4)), (Stop, (1.0, 1.5))):
        measure_cause(bench, [bench.pool, bench.etcd], cause, targets)
    measure_cut(bench)
