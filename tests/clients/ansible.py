"""Debian's Ansible modules for XenServer, unmodified and verifying the certificate: tests/clients/ansible.yml, through every member, and
on when the coordinator is killed between two plays, or is killed or freezes while a task of one is under way."""
import json
import os
import subprocess
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import MIB, PASSWORD, QUICKSTART, ROOT, Api, Pool, during, eventually, vdi_record, vm_record

COLLECTIONS = os.path.join(ROOT, "build", "parts", "usr", "lib", "python3", "dist-packages")
GUEST = json.dumps({"guest": {"data/os_name": "Debian", "attr/vif/0/ipv4/0": "192.0.2.9", "control/feature-suspend": "1",
                              "control/feature-static-ip-setting": "1", "feature/hotplug/vif": "1", "feature/hotplug/vbd": "1"}})
DISKS = '<provision><disk device="0" size="1048576" sr="" bootable="true" type="system"/></provision>'


def playbook(pool, book, **given):
    given.update(password=PASSWORD, guest=GUEST)
    variables = os.path.join(pool.dir, "variables.json")
    with open(variables, "w") as handle:
        json.dump(given, handle)
    env = dict(os.environ, HOME=pool.dir, ANSIBLE_COLLECTIONS_PATH=COLLECTIONS, ANSIBLE_LOCALHOST_WARNING="0", ANSIBLE_NOCOLOR="1", ANSIBLE_DUPLICATE_YAML_DICT_KEY="ignore",
               ANSIBLE_PIPELINING="1", LC_ALL="C.UTF-8", PYTHONPATH="/usr/share/fence", SSL_CERT_FILE=os.path.join(pool.dir, "ca.pem"),
               XPOOL_BUILD=sys.argv[1])
    command = ["ansible-playbook", "-i", "localhost,", "-e", "@" + variables, "-e", "ansible_python_interpreter=/usr/bin/python3",
               os.path.join(ROOT, "tests", "clients", book)]
    done = subprocess.run(command, env=env, text=True, timeout=120, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def back(pool, member):
    eventually("member %d is back" % member, lambda: pool.status()[member - 1].get("ready") == "yes")


def lost_during(pool, what):
    """The coordinator, while a task of the play is under way at another member, for a VM that runs there."""
    leader = pool.leader()
    member = next(n for n in (1, 2, 3) if n != leader)
    api = Api(pool, member).login()
    vm = api("VM.create", vm_record(what))
    api("VM.start_on", vm, api("session.get_this_host", api.session), False, True)
    play = lambda: playbook(pool, "ansible_during.yml", member="https://" + pool.address(member), machine=what)
    said = during(pool, api, vm, "hard_shutdown", play, lambda: pool.lose_leader(what, leader))
    assert said is not None, "the play has failed"
    assert api("VM.get_by_name_label", what) == []
    pool.quickstart("thaw" if what == "freeze" else "start", str(leader))
    back(pool, leader)


with Pool() as pool:
    api = Api(pool, 1).login()
    shared = pool.make_sr(api)
    for field in ("default_SR", "suspend_image_SR"):
        api("pool.set_" + field, api("pool.get_all")[0], shared)
    for name in ("blue", "green"):
        api("network.create", {"name_label": name, "name_description": "", "MTU": "1500", "other_config": {}, "bridge": "", "managed": True, "tags": []})
    api("VDI.create", vdi_record(shared, "tools.iso", read_only=True))
    api("VM.create", vm_record("Built in", True, memory_static_max=str(256 * MIB), memory_dynamic_max=str(256 * MIB),
                               other_config={"default_template": "true", "disks": DISKS}))
    there = {cls: set(api(cls + ".get_all")) for cls in ("VM", "VDI", "VBD", "VIF")}
    leader = pool.leader()
    others = [n for n in (1, 2, 3) if n != leader]
    at = lambda members: ["https://" + pool.address(n) for n in members]
    playbook(pool, "ansible.yml", members=at((leader, *others)), left=at(others), home="host%d" % leader, left_home="host%d" % others[0],
             lose="%s kill %d --dir %s" % (QUICKSTART, leader, pool.dir))
    api = Api(pool, others[0]).login()
    assert {cls: set(api(cls + ".get_all")) for cls in there} == there, "something is left"
    assert not [t for t in api("task.get_all_records").values() if t["status"] == "pending"]
    pool.quickstart("start", str(leader))
    back(pool, leader)
    lost_during(pool, "kill")
    lost_during(pool, "freeze")
    pool.agree()
    pool.check()
