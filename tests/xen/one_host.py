#!/usr/bin/env python3
"""One real Xen host (deploy/testbed) and xpool-agent --hv xen in its control domain: tests/xen/in_host.py is run there.

usage: one_host.py BUILD [PART...]

The image is made before, outside the test's network namespace: deploy/testbed --cache build/testbed build. Then tests/lib/netns.sh
python3 -B tests/xen/one_host.py BUILD. Not in ctest yet: programs of the emulated host and of its guests crash at times, see docs/agent.md. What the host says arrives on its
serial line: ssh, whose connections an emulated host under load sometimes loses, only brings and starts things, which is done until it works.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(sys.argv[1])
CACHE = os.environ.get("XPOOL_TESTBED") or os.path.join(ROOT, "build", "testbed")
TRIES = 5
ALL_S = 900
ENDED = "ONE-HOST-ENDED"
# begun once, however often it is asked for
BEGIN = ("mkdir /root/begun 2>/dev/null || exit 0; (setsid sh -c 'python3 -Bu /root/in_host.py %s >/dev/console 2>&1; echo " + ENDED +
         " $? >/dev/console' </dev/null >/dev/null 2>&1 &)")


def testbed(run, *words, tries=1):
    for left in range(tries - 1, -1, -1):
        done = subprocess.run([os.path.join(ROOT, "deploy", "testbed"), "--together", "--cache", CACHE, "--run", run, "--timeout", "180", *words],
                              check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode == 0:
            return done.stdout
        assert left > 0, (words, done.returncode, done.stdout)
    return ""


def lines_of_test(text):
    """Without what hypervisor and kernel say."""
    return [line for line in text.replace("\r", "").split("TESTBED-READY", 1)[-1].splitlines() if line and not line.startswith("(XEN)")]


def follow(run):
    """The host's words as they come; the status of the test."""
    end = time.monotonic() + ALL_S
    shown = 1
    while time.monotonic() < end:
        lines = lines_of_test(testbed(run, "console", "1"))
        for line in lines[shown:-1]:
            print(line, flush=True)
            shown += 1
            if line.startswith(ENDED):
                return int(line.split()[1])
        time.sleep(0.5)
    raise AssertionError("no end within %d s" % ALL_S)


def main():
    run = tempfile.mkdtemp(prefix="xpool-xen-")
    try:
        print(testbed(run, "up", "1").strip(), flush=True)
        testbed(run, "put", "1", os.path.join(BUILD, "xpool-agent"), "/usr/bin/xpool-agent", tries=TRIES)
        testbed(run, "put", "1", os.path.join(HERE, "in_host.py"), "/root/in_host.py", tries=TRIES)
        testbed(run, "run", "1", BEGIN % " ".join(sys.argv[2:]), tries=TRIES)
        status = follow(run)
        assert status == 0, "the test ended with %d" % status
    finally:
        testbed(run, "down")
        shutil.rmtree(run, ignore_errors=True)


main()
