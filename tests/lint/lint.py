#!/usr/bin/env python3
"""Rules of the tree that no compiler checks.

usage: lint.py ROOT BUILD

arrows      who may include whom (style section 2); raft.h, http_parser.h only where they belong
headers     every header compiles alone
objects     nothing mutable in .data or .bss, no stray clock, random, socket or thread calls in rpc, db, pool, member
docs        file names in docs/ and README.md exist; every promise names a test that exists; docs/map.md has every source file
format      clang-format agrees
shell       shellcheck, when installed, has nothing to say
budget      the sum of tests/budget is under BUDGET_MAX (suites run two at a time, and CI has 90 minutes)
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys

ROOT, BUILD = (os.path.abspath(p) for p in sys.argv[1:3])
FOLDERS = ("rpc", "db", "member", "pool", "ha", "cluster")
ARROWS = {"rpc/base": set(), "rpc": {"model"}, "cluster": {"rpc"}, "db": {"rpc/base", "model"},
          "member": {"rpc", "cluster", "agent"}, "ha": {"rpc", "db", "model"},
          "pool": {"rpc", "db", "member", "ha", "model", "agent"}}
ONLY = {r"raft\.h|raft/.*": r"db/consensus_\w+\.[ch]", r"http_parser\.h": r"rpc/(server|client)\.c", r"expat\.h": r"rpc/wire/xml\.c",
        r"json-c/.*": r"rpc/wire/json\.c", r"sqlite3\.h": r"rpc/base/sql\.c", r"openssl/.*": r"rpc/base/tls\.c",
        r"uv\.h": r"rpc/base/(uv|env_uv_priv)\.h", r"xxhash\.h": r"rpc/base/hash\.h", r"crypt\.h": r"pool/(auth|ctl)\.c|member/auth_child\.c",
        r"zstd\.h": r"db/pack\.c", r"xen(ctrl|guest|store|toollog)\.h": r"member/hv/xen/\w+\.[ch]",
        r"security/.*": r"member/auth_child\.c"}
# symbol -> objects that may use it; everything else goes through rpc/base
STRAY = {
    "clock_gettime time gettimeofday": r"env_uv|stream_uv",
    "getrandom rand random RAND_bytes": r"env_uv|tls",
    "socket connect bind accept": r"stream_uv|pool/ctl|pool/main|member/main|hv/xen/xen_vif",
    "pthread_create pthread_cond_wait pthread_cond_timedwait": r"env_uv|loop_uv",
    "sleep usleep nanosleep": r"$^",
}
bad = []


def complain(text):
    bad.append(text)
    print(text)


def sources(*ends):
    for folder in FOLDERS:
        for top, _, names in os.walk(os.path.join(ROOT, folder)):
            for name in sorted(names):
                if name.endswith(ends) and not top.endswith("model/gen"):
                    yield os.path.relpath(os.path.join(top, name), ROOT)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as handle:
        return handle.read()


def group(path):
    return "rpc/base" if path.startswith("rpc/base/") else path.split("/")[0]


def check_arrows():
    for path in sources(".c", ".h"):
        me = group(path)
        for number, line in enumerate(read(path).splitlines(), 1):
            m = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
            if not m:
                continue
            target = m[2]
            for pattern, allowed in ONLY.items():
                if re.fullmatch(pattern, target) and not re.fullmatch(allowed, path):
                    complain("%s:%d: only %s may include %s" % (path, number, allowed, target))
            if m[1] == "<" or "/" not in target:
                continue
            own = target.startswith(me + "/")
            fine = own or any(target.startswith(a + "/") for a in ARROWS[me])
            if not fine or (not own and target.endswith("_priv.h")):
                complain("%s:%d: against the arrows: %s" % (path, number, target))


def compiles_alone(path):
    done = subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-fsyntax-only", "-I", ROOT, "-I", BUILD, "-x", "c", "-include",
                           path, "/dev/null"], cwd=ROOT, text=True, stderr=subprocess.PIPE)
    return path, done.stderr.splitlines()[0] if done.returncode else None


def check_headers():
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, fault in pool.map(compiles_alone, sources(".h")):
            if fault:
                complain("%s does not compile alone: %s" % (path, fault))


def check_objects():
    for top, _, names in os.walk(os.path.join(BUILD, "CMakeFiles")):
        for name in names:
            path = os.path.join(top, name)
            short = os.path.relpath(path, BUILD)
            if not name.endswith(".c.o") or re.search(r"(xpool(d|ctl|-agent)|xe)\.dir", short):
                continue
            for line in subprocess.run(["nm", path], text=True, stdout=subprocess.PIPE).stdout.splitlines():
                kind, symbol = line.split()[-2:]
                if kind in "dDbBC" and not symbol.startswith(("__", "_GLOBAL_", ".")):
                    section = subprocess.run(["objdump", "-t", path], text=True, stdout=subprocess.PIPE).stdout
                    if not re.search(r"\.data\.rel\.ro\S*\s+\S+ %s$" % re.escape(symbol), section, re.M):
                        complain("%s: mutable global %s" % (short, symbol))
                if kind == "U":
                    for symbols, allowed in STRAY.items():
                        if symbol.split("@")[0] in symbols.split() and not re.search(allowed, short):
                            complain("%s: calls %s, which belongs behind rpc/base" % (short, symbol))


def check_docs():
    pages = ["README.md"] + sorted("docs/" + os.path.relpath(os.path.join(top, n), os.path.join(ROOT, "docs"))
                                   for top, _, names in os.walk(os.path.join(ROOT, "docs")) for n in names if n.endswith(".md"))
    for page in pages:
        for name in re.findall(r"`((?:%s|tests|deploy|docs|\.ci)/[\w./-]*\w)`" % "|".join(FOLDERS), read(page)):
            if not os.path.exists(os.path.join(ROOT, name)):
                complain("%s: names %s, which does not exist" % (page, name))
    for number, line in enumerate(read("docs/promises.md").splitlines(), 1):
        cells = [c.strip() for c in line.split("|")]
        if len(cells) < 5 or cells[2] not in ("shown", "partly", "not"):
            continue
        tests = re.findall(r"`(tests/[\w./-]+)`", line)
        if cells[2] != "not" and not tests:
            complain("docs/promises.md:%d: %s without a test" % (number, cells[2]))
        for test in tests:
            if not os.path.exists(os.path.join(ROOT, test)):
                complain("docs/promises.md:%d: no test %s" % (number, test))
        for test, what in re.findall(r"`(tests/[\w./-]+\.c)` (\w+)", line):
            if os.path.exists(os.path.join(ROOT, test)) and what not in read(test):
                complain("docs/promises.md:%d: no %s in %s" % (number, what, test))


def check_map():
    """The table of docs/map.md: folders, what it is about, files; an empty first cell means the folder above."""
    known, folders = set(), []
    for row in re.findall(r"(?m)^\| (.*?) *\| .* \| ([^|]*) \|$", read("docs/map.md")):
        folders = re.findall(r"`([\w/]+)`", row[0]) or folders
        known |= {"%s/%s.c" % (folder, name) for folder in folders for name in re.split(r"[,;] ", row[1])}
    for path in sources(".c"):
        if path not in known:
            complain("docs/map.md: %s is missing in the table of files" % path)


def check_format():
    files = list(sources(".c", ".h")) + [os.path.relpath(os.path.join(top, n), ROOT) for top, _, names in
                                         os.walk(os.path.join(ROOT, "tests")) for n in names if n.endswith((".c", ".h"))]
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *files], cwd=ROOT, text=True, stderr=subprocess.PIPE)
    if done.returncode:
        found = sorted({line.split(":")[0] for line in done.stderr.splitlines() if "error:" in line})
        complain("not formatted (run clang-format -i): %s" % " ".join(found))


def check_shell():
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", "-S", "warning", "deploy/quickstart", "deploy/packages.sh", "tests/run", ".ci/run",
                               "tests/lib/netns.sh"], cwd=ROOT, text=True, stdout=subprocess.PIPE)
        if done.returncode:
            complain(done.stdout)


BUDGET_MAX = 17600


def check_budget():
    lines = [line.split() for line in read("tests/budget").splitlines() if line and not line.startswith("#")]
    total = sum(int(seconds) for _, seconds in lines)
    if total >= BUDGET_MAX:
        complain("tests/budget: %d s in all; %d is the limit" % (total, BUDGET_MAX))


for check in (check_budget, check_arrows, check_headers, check_objects, check_docs, check_map, check_format, check_shell):
    check()
print("%d complaints" % len(bad))
sys.exit(bool(bad))
