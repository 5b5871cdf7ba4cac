#!/usr/bin/env python3
"""xpool-bench: what the pool does in a second, beside etcd where etcd does the same.

Makes a pool of three members and three members of etcd in a temporary folder, on loopback, TLS everywhere, writes to the
disk of that folder; rounds of both are interleaved, ratios are medians of the rounds' ratios. JSON goes to standard output,
a table to standard error. docs/benchmarks.md explains the measurements.
"""
import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import clusters
import grpc_raw
import measures
import publish

sys.path.insert(0, os.path.join(clusters.ROOT, "tests", "lib"))
from xpool import vm_record


class Bench:
    """What the measurements share: the two systems, the load generators, the rows of the result."""

    def __init__(self, opts, folder):
        self.dir, self.build, self.quick = folder, opts.build, opts.quick
        self.rounds = opts.rounds or (1 if opts.quick else 5)
        self.seconds, self.warm = (0.3, 0.1) if opts.quick else (3, 1)
        self.rows, self.skipped, self.refs, self.runs = [], [], [], 0
        self.pool, self.etcd = clusters.Pool(os.path.join(folder, "pool"), self.build), None
        missing = clusters.Etcd.missing()
        if opts.no_etcd or missing:
            self.skip("etcd", "not wanted" if opts.no_etcd else "install the packages %s" % ", ".join(missing))
        else:
            self.etcd = clusters.Etcd(os.path.join(folder, "etcd"), self.build)

    def skip(self, name, why):
        self.skipped.append({"name": name, "why": why})
        clusters.warn("%s: skipped: %s" % (name, why))

    def file(self, name, content):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as handle:
            handle.write(content if isinstance(content, bytes) else content.encode())
        return path

    def rpc(self, method, *args):
        """A request's body; see load.c for its places."""
        params = ["@SESSION@", *args]
        return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}, separators=(",", ":"))

    def load_command(self, members, bodies, *options, share=None):
        """@RUN@ in a body: another number in each run, for writing an equal value is no change. share: so many clients have
        one session; all, but of those that park calls few."""
        self.runs += 1
        clients = int(options[options.index("--clients") + 1]) if "--clients" in options else len(members)
        share = share or (4 if any("@TOKEN@" in body for body in bodies) else clients)
        sessions = self.pool.sessions_for(members, clients, share)
        text = "\n".join(bodies).replace("@RUN@", "%06d" % self.runs) + "\n"
        command = [os.path.join(self.build, "xpool-load"), "--to", ",".join(self.pool.endpoint(m) for m in members), "--body",
                   self.file("body%d" % self.runs, text), "--sessions", self.file("sessions%d" % self.runs, "\n".join(sessions) + "\n"),
                   *options]
        return command + (["--refs", self.file("refs", "\n".join(self.refs) + "\n")] if self.refs else [])

    def load(self, members, bodies, *options, share=None):
        """Run xpool-load to its end; its report. Every answer must be a good one."""
        done = subprocess.run(self.load_command(members, bodies, *options, share=share), text=True, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            raise clusters.Failed("xpool-load failed")
        report = json.loads(done.stdout)
        if report["failed"] or report["broken"] or not report["answers"]:
            raise clusters.Failed("xpool-load: %s" % done.stdout.strip())
        return report

    def timed(self):
        return "--seconds", str(self.seconds), "--warm", str(self.warm)

    def h2load(self, member, method, body, in_flight):
        """Answers per second. Up to 8 connections, which suits etcd better than one or than one for each call."""
        connections = min(8, in_flight)
        command = ["h2load", "-D", str(max(1, round(self.seconds))), "--warm-up-time=%d" % max(1, round(self.warm)), "-c",
                   str(connections), "-m", str(in_flight // connections), "-d", self.file("grpc", body), "-H",
                   "content-type: application/grpc", "-H", "te: trailers", self.etcd.url(member, method)]
        out = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout
        rate, codes = re.search(r"finished in .*, ([\d.]+) req/s", out), re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", out)
        if not rate or not codes or not int(codes[1]):
            raise clusters.Failed("h2load: %s" % out)
        return float(rate[1])

    def put_load(self, member, value, in_flight):
        """h2load does not see gRPC's status: the store's revision tells whether the puts were made."""
        before = self.etcd.revision(member)
        rate = self.h2load(member, "Put", grpc_raw.put_request(self.etcd.KEY, value), in_flight)
        if self.etcd.revision(member) - before < rate * self.seconds:
            raise clusters.Failed("etcd has refused puts")
        return rate

    def range_load(self, member, in_flight, serializable):
        return self.h2load(member, "Range", grpc_raw.range_request(self.etcd.KEY, serializable), in_flight)

    def populate(self, n):
        """At least n VMs in the pool; self.refs names the first n."""
        have = self.pool.call(1, "VM.get_all")
        if len(have) < n:
            self.load([self.pool.leader()], [self.rpc("VM.create", vm_record("vm@N@"))], "--clients", "64", "--requests",
                      str(n - len(have)))
            have = self.pool.call(1, "VM.get_all")
        self.refs = have[:n]

    @contextlib.contextmanager
    def on(self, pool):
        """Meanwhile another pool is measured."""
        kept, self.pool, self.refs = self.pool, pool, []
        try:
            yield
        finally:
            self.pool, self.refs = kept, []

    def roles(self):
        return self.pool.roles()

    def row(self, name, case, unit, ours, etcd=(), target=()):
        """One row. ours, etcd: a figure per round. target: pairs of one of CHECKS and a number; all must hold."""
        row = {"name": name, "case": case, "unit": unit, "ours": list(ours), "etcd": list(etcd)}
        if etcd:
            row["ratio"] = statistics.median(a / b for a, b in zip(ours, etcd))
        known = [t for t in target if "ratio" in row or not t[0].startswith("ratio")]
        if known:
            row["target"] = ", ".join("%s %g" % t for t in known)
            row["met"] = all(CHECKS[check](row, number) for check, number in known)
        self.rows.append(row)
        print(publish.line(row), file=sys.stderr, flush=True)


CHECKS = {
    "ratio >=": lambda row, number: row["ratio"] >= number,
    "median >=": lambda row, number: statistics.median(row["ours"]) >= number,
    "median <=": lambda row, number: statistics.median(row["ours"]) <= number,
    "worst <=": lambda row, number: max(row["ours"]) <= number,
}


def machine(folder):
    """The facts without which no figure means anything."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as handle:
        model = re.search(r"model name\s*: (.*)", handle.read())
    with open("/proc/meminfo", encoding="ascii") as handle:
        memory = int(re.search(r"MemTotal:\s+(\d+)", handle.read())[1])
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], text=True, stdout=subprocess.PIPE, check=False).stdout.strip()
    return {"processors": os.cpu_count(), "processor": model[1] if model else "", "memory_gib": round(memory / (1 << 20)),
            "kernel": platform.release(), "file_system": kind, "load_before": os.getloadavg()[0]}


def parse():
    ap = argparse.ArgumentParser(prog="xpool-bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", required=True, help=argparse.SUPPRESS)
    ap.add_argument("--only", metavar="NAME", action="append", choices=list(measures.ALL),
                    help="this measurement only, may be repeated: %s" % ", ".join(measures.ALL))
    ap.add_argument("--rounds", type=int, metavar="N", help="default 5")
    ap.add_argument("--quick", action="store_true", help="small and short: do the programs work? The figures mean nothing")
    ap.add_argument("--publish", action="store_true", help="write the rows into docs/benchmarks.md and draw its plots")
    ap.add_argument("--no-etcd", action="store_true", help="measure ours alone")
    ap.add_argument("--dir", metavar="FOLDER", help="where the temporary folder is made, on the disk to be measured")
    ap.add_argument("--keep", action="store_true", help="leave the folder behind: logs, data")
    opts = ap.parse_args()
    if opts.rounds is not None and opts.rounds < 1:
        ap.error("--rounds %d: at least 1" % opts.rounds)
    if opts.publish and opts.quick:
        ap.error("--quick measures nothing that could be published")
    if opts.publish and not shutil.which("gnuplot"):
        ap.error("--publish needs gnuplot (package gnuplot-nox)")
    return opts


def run(opts, folder, stack):
    bench = Bench(opts, folder)
    for cluster in filter(None, (bench.pool, bench.etcd)):
        stack.callback(cluster.close)
        cluster.up()
    result = {"machine": machine(folder), "rounds": bench.rounds, "quick": bench.quick, "rows": bench.rows,
              "skipped": bench.skipped}
    print(publish.HEAD, file=sys.stderr)
    for name, measure in measures.ALL.items():
        if not opts.only or name in opts.only:
            measure(bench)
    result["machine"]["load_after"] = os.getloadavg()[0]
    return result


def main():
    opts = parse()
    folder = tempfile.mkdtemp(prefix="xpool-bench-", dir=opts.dir)
    try:
        with contextlib.ExitStack() as stack:
            if opts.keep:
                clusters.warn("data and logs stay in %s" % folder)
            else:
                stack.callback(shutil.rmtree, folder, True)
            result = run(opts, folder, stack)
    except clusters.Failed as fault:
        clusters.warn(fault)
        return 1
    except KeyboardInterrupt:
        return 130
    json.dump(result, sys.stdout, indent=1)
    print()
    if opts.publish:
        publish.publish(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
