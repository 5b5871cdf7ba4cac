#!/usr/bin/env python3
"""usage: quick.py BUILD: does xpool-bench still run, and is what it prints sane? Without etcd, in seconds."""
import json
import os
import subprocess
import sys

import measures
import publish

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

# what would be published: each row of a measurement finds its place, a known one once; the plots find their points
with open(publish.PAGE, encoding="utf-8") as handle:
    page = handle.read()
again = publish.merged(publish.merged(page, result["rows"]), result["rows"])
for row in result["rows"]:
    assert again.count("\n" + publish.line(row) + "\n") == 1, row
assert set(page.split("\n")) - set(again.split("\n")) <= {text for text in page.split("\n") if text.startswith("|")}
table = publish.read(page)
assert len(table["writes"]) == 8 and all(ours and etcd for _, ours, etcd in table["writes"]), table["writes"]
assert publish.facts(result).startswith("Last measured: ") and "\nLast measured: " in page
