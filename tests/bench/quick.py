#!/usr/bin/env python3
"""usage: quick.py BUILD: does xpool-bench still run, and is what it prints sane? Without etcd, in seconds."""
import json
import os
import subprocess
import sys

import measures

command = [os.path.join(sys.argv[1], "xpool-bench"), "--quick", "--no-etcd"]
done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
result = json.loads(done.stdout)
seen = {row["name"] for row in result["rows"]}
skipped = {s["name"]: s["why"] for s in result["skipped"]}
assert skipped.pop("etcd") == "not wanted", skipped
assert seen | set(skipped) >= set(measures.ALL) >= seen, (seen, skipped)
for row in result["rows"]:
    assert row["case"] and row["unit"] and row["ours"], row
    assert all(x > 0 or row["unit"] == "count" or "idle" in row["case"] and x == 0 for x in row["ours"]), row
    assert not row["etcd"] and "ratio" not in row, row
    assert ("met" in row) == ("target" in row), row
assert result["quick"] and result["machine"]["processors"] > 0, result
wrong = subprocess.run([*command, "--only", "nothing"], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
assert wrong.returncode == 2 and "invalid choice" in wrong.stdout, wrong
print("%d rows" % len(result["rows"]))
