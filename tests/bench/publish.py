#!/usr/bin/env python3
"""docs/benchmarks.md from what xpool-bench printed: each row takes the place of the one of the same name and case, new ones go behind the
last of their name, all others stay; the plots are drawn anew from the table, by gnuplot.

usage: publish.py [RESULT.json...]     without one only the plots are drawn
       xpool-bench --publish           measure, then this"""
import json
import os
import re
import statistics
import subprocess
import sys

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs")
PAGE = os.path.join(DOCS, "benchmarks.md")
NUMBER = r"(\d[\d.e+-]*)(?: \((\d[\d.e+-]*) to (\d[\d.e+-]*)\))?"


def figure(values):
    """The median, and the spread when there is one."""
    if not values:
        return "-"
    text = "%.4g" % statistics.median(values)
    return text if len(values) == 1 else "%s (%.4g to %.4g)" % (text, min(values), max(values))


HEAD = "| what | case | unit | ours | etcd | ratio | target | met |\n|---|---|---|---|---|---|---|---|"


def line(row):
    ratio = "%.2f" % row["ratio"] if "ratio" in row else "-"
    met = {True: "yes", False: "**no**", None: "-"}[row.get("met")]
    return "| %s |" % " | ".join((row["name"], row["case"], row["unit"], figure(row["ours"]), figure(row["etcd"]), ratio,
                                  row.get("target", "-"), met))


def cells(text):
    return [cell.strip() for cell in text.strip().strip("|").split("|")]


def merged(page, rows):
    """The page with these rows in its table."""
    lines = page.split("\n")
    first = lines.index(HEAD.split("\n")[1]) + 1
    last = next(at for at in range(first, len(lines)) if not lines[at].startswith("|"))
    table = lines[first:last]
    for row in rows:
        names = [cells(text)[:2] for text in table]
        if [row["name"], row["case"]] in names:
            table[names.index([row["name"], row["case"]])] = line(row)
        else:
            behind = max((at + 1 for at, (name, _) in enumerate(names) if name == row["name"]), default=len(table))
            table.insert(behind, line(row))
    return "\n".join(lines[:first] + table + lines[last:])


def facts(result):
    """One line of the page: where and how the newest rows were measured."""
    m = result["machine"]
    return "Last measured: %s; %d processors (%s), %d GiB, %s, Linux %s, load average %.1f before; %d rounds." % (
        ", ".join(dict.fromkeys(row["name"] for row in result["rows"])), m["processors"], m["processor"].strip(), m["memory_gib"],
        m["file_system"], m["kernel"], m["load_before"], result["rounds"])


def read(page):
    """{what: [(case, ours, etcd)]}; each of these is (median, lowest, highest) or None."""
    table = {}
    for text in page[page.index(HEAD) + len(HEAD):].strip().split("\n"):
        if not text.startswith("|"):
            break
        what, case, _, *both = cells(text)[:5]
        found = [re.fullmatch(NUMBER, one) for one in both]
        table.setdefault(what, []).append((case, *[one and tuple(float(g or one[1]) for g in one.groups()) for one in found]))
    return table


def plot(name, script, series):
    """series: lists of lines of numbers, in the order of $1, $2, ... of the script."""
    data = "".join("$d%d << EOD\n%s\nEOD\n" % (i + 1, "\n".join(" ".join(map(str, point)) for point in points))
                   for i, points in enumerate(series))
    out = os.path.join(DOCS, "plots", name + ".svg")
    os.makedirs(os.path.dirname(out), exist_ok=True)
    head = "set terminal svg size 720,420 dynamic font 'sans,12' background 'white'\nset output '%s'\nset grid\n" % out
    subprocess.run(["gnuplot"], input=data + head + script, text=True, check=True)


def draw(table):
    loads = []
    for through in ("the coordinator", "another member"):
        for which in (1, 2):
            points = []
            for row in table["writes"]:
                found = re.fullmatch(r"(\d+) in flight, through " + through, row[0])
                if found and row[which]:
                    n = int(found[1])
                    points.append((row[which][0], 1e3 * n / row[which][0], row[which][1], row[which][2]))
            loads.append(points)
    plot("writes", "set xlabel 'acknowledged writes per second (median; bars: lowest and highest round)'\n"
         "set ylabel 'mean latency, ms'\nset logscale y 2\nset xrange [0:*]\nset key right bottom\n"
         "plot $d1 using 1:2:3:4 with xerrorlines lw 2 pt 7 title 'Xpool, through the coordinator', "
         "$d3 using 1:2:3:4 with xerrorlines lw 2 pt 7 title 'Xpool, through another member', "
         "$d2 using 1:2:3:4 with xerrorlines lw 2 pt 5 title 'etcd, through its leader', "
         "$d4 using 1:2:3:4 with xerrorlines lw 2 pt 5 title 'etcd, through another member'\n", loads)
    gaps = [(case.split(":")[0], ours, etcd) for case, ours, etcd in table["failover"] if etcd]
    plot("failover", "set ylabel 'seconds to the next acknowledged write'\nset xlabel 'what happens to the leader (median; bars: fastest and slowest of 50)'\n"
         "set logscale y\n"
         "set xrange [-0.5:%g]\nset xtics (%s)\nset key right bottom\n"
         "plot $d1 using ($0-0.1):1:2:3 with yerrorbars lw 2 pt 7 title 'Xpool', "
         "$d2 using ($0+0.1):1:2:3 with yerrorbars lw 2 pt 5 title 'etcd'\n"
         % (len(gaps) - 0.5, ", ".join("'%s' %d" % (cause, at) for at, (cause, _, _) in enumerate(gaps))), [[g[1] for g in gaps], [g[2] for g in gaps]])
    records = [(int(re.match(r"\d+", case)[0]), *ours) for case, ours, _ in table["records"] if case.endswith("at another member")]
    joins = [(int(re.search(r"member (\d+)", case)[1]), *ours) for case, ours, _ in table["many"] if case.startswith("join")]
    plot("growth", "set multiplot layout 1,2\nset yrange [0:*]\nset xlabel 'VMs'\nset ylabel 'seconds'\nset key left top Left reverse\nset xrange [0:*]\n"
         "set xtics 5000\n"
         "plot $d1 using 1:2:3:4 with yerrorlines lw 2 pt 7 title 'VM.get\\_all\\_records'\n"
         "set xlabel 'members'\nset xtics auto\nset xrange [*:*]\nset logscale x 2\nset key left bottom\nplot $d2 using 1:2 with linespoints lw 2 pt 7 title 'pool.join, 10,000 VMs'\nunset multiplot\n",
         [records, joins])


def publish(*results):
    with open(PAGE, encoding="utf-8") as handle:
        page = handle.read()
    for result in results:
        assert not result["quick"], "a quick run measures nothing"
        page = re.sub(r"^Last measured: .*", lambda _, new=facts(result): new, merged(page, result["rows"]), count=1, flags=re.M)
    with open(PAGE, "w", encoding="utf-8") as handle:
        handle.write(page)
    draw(read(page))


if __name__ == "__main__":
    opened = []
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8") as result:
            opened.append(json.load(result))
    publish(*opened)
