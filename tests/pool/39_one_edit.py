"""A field of the model is one line of JSON: in a copy of the tree, one line goes into vm.json, schema.json becomes what the
generator's messages ask for, and the field is read and written through the API of what is built from it."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import ROOT, Pool, Api, vm_record

LINE = '{"name": "shelf", "type": "set<string>", "qualifier": "RW", "default": [], "schema": %d, "since": "tests", "text": "Where it is kept."},'


def insert(path, line):
    with open(path, encoding="utf-8") as handle:
        text = handle.read()
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(text.replace('"fields": [\n', '"fields": [\n    %s\n' % line, 1))


def judged(tree):
    done = subprocess.run([sys.executable, "-B", "db/model/gen/generate.py", "--check", "db/model"], cwd=tree, text=True,
                          stderr=subprocess.PIPE)
    return done.stderr.strip()


with tempfile.TemporaryDirectory(prefix="xpool-edit-") as folder:
    os.chmod(folder, 0o755)
    tree, build = os.path.join(folder, "tree"), os.path.join(folder, "build")
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("build", ".git", "__pycache__"))
    path = os.path.join(tree, "db", "model", "schema.json")
    with open(path, encoding="utf-8") as handle:
        schema = json.load(handle)
    version = schema["version"] + 1
    insert(os.path.join(tree, "db", "model", "vm.json"), LINE % version)
    assert "VM.shelf is new in schema %d" % version in judged(tree), judged(tree)
    schema["version"] = version
    schema["hashes"][str(version)] = ""
    for _ in range(2):  # once to be told the hash
        with open(path, "w", encoding="utf-8") as handle:
            json.dump(schema, handle)
        told = re.search(r"what schema %d stores has changed \((\w+)" % version, judged(tree))
        if told:
            schema["hashes"][str(version)] = told[1]
    assert judged(tree) == "", judged(tree)
    options = ["-G", "Ninja", "-S", tree, "-B", build, "-DCMAKE_BUILD_TYPE=Debug", "-DXPOOL_TESTS=OFF"]
    for command in (["cmake", *options], ["cmake", "--build", build, "--target", "xpoold", "xpoolctl", "xpool-agent"]):
        subprocess.run(command, check=True, stdout=subprocess.PIPE)
    sys.argv[1] = build
    with Pool() as pool:
        apis = [Api(pool, n).login() for n in (1, 2, 3)]
        vm = apis[0]("VM.create", vm_record("on a shelf", shelf=["upper"]))
        other = apis[0]("VM.create", vm_record("on none"))
        assert apis[0]("VM.get_shelf", vm) == ["upper"] and apis[0]("VM.get_shelf", other) == []
        apis[1]("VM.add_shelf", vm, "lower")
        apis[1]("VM.remove_shelf", vm, "upper")
        assert apis[1]("VM.get_record", vm)["shelf"] == ["lower"]
        apis[2]("VM.set_shelf", other, ["a", "b"])
        assert apis[2]("VM.get_all_records")[other]["shelf"] == ["a", "b"]
        assert "active=%d" % version in pool.ctl(1, "schema")
        pool.agree()
        pool.check()
