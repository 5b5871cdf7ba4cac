#!/usr/bin/env python3
"""Demo content for a fresh pool: a shared SR, templates, a halted VM and two running ones, each with a disk and an interface.
Does nothing when they are there."""
import argparse
import json
import ssl
import urllib.request

MIB = 1 << 20
TEMPLATES = (("Other install media", 1, 256, {}),
             ("Debian Bookworm 12", 2, 1024, {"install-methods": "cdrom,nfs,http,ftp", "linux_template": "true"}),
             ("Windows Server 2022 (64-bit)", 4, 2048, {"install-methods": "cdrom"}))
RUNNING, HALTED = ("web", "database"), ("mail",)
SR, DISK_MIB = "Shared storage", 1024


def record(label, template=False, mib=512, vcpus=2, **other):
    size = str(mib * MIB)
    return {
        "name_label": label, "name_description": "made by deploy/quickstart", "user_version": "1",
        "is_a_template": template, "affinity": "OpaqueRef:NULL",
        "memory_static_max": size, "memory_dynamic_max": size, "memory_dynamic_min": size, "memory_static_min": size,
        "VCPUs_params": {}, "VCPUs_max": str(vcpus), "VCPUs_at_startup": str(vcpus),
        "actions_after_shutdown": "destroy", "actions_after_reboot": "restart", "actions_after_crash": "restart",
        "PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "", "PV_args": "", "PV_bootloader_args": "",
        "PV_legacy_args": "", "HVM_boot_policy": "BIOS order", "HVM_boot_params": {"order": "cdn"}, "platform": {},
        "PCI_bus": "", "other_config": {"xpool-demo": "1", **other}, "recommendations": "",
    }


def disk(sr, label):
    return {"name_label": label, "name_description": "made by deploy/quickstart", "SR": sr, "virtual_size": str(DISK_MIB * MIB),
            "type": "user", "sharable": False, "read_only": False, "other_config": {}}


def drive(vm, vdi):
    return {"VM": vm, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk", "empty": False,
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}


def interface(vm, network):
    return {"VM": vm, "network": network, "device": "0", "MAC": "", "MTU": "1500", "other_config": {},
            "qos_algorithm_type": "", "qos_algorithm_params": {}}


class Failure(Exception):
    """What a member has answered: code and parameters."""


class Api:
    """JSON-RPC at one member."""

    def __init__(self, url, ca, session=None):
        self.url, self.tls, self.session = url + "/jsonrpc", ssl.create_default_context(cafile=ca), session

    def raw(self, method, *args, timeout=30):
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": args, "id": 1}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, context=self.tls, timeout=timeout) as reply:
            answer = json.load(reply)
        if "error" in answer:
            raise Failure(answer["error"]["message"], *answer["error"]["data"])
        return answer["result"]

    def __call__(self, method, *args, timeout=30):
        return self.raw(method, self.session, *args, timeout=timeout)

    def login(self, password):
        self.session = self.raw("session.login_with_password", "root", password, "1.0", "xpool-demo")
        return self


def shared_sr(api, folder):
    """The default SR of the pool; every host has it."""
    (pool,) = api("pool.get_all")
    for sr in api("SR.get_by_name_label", SR):
        return sr
    sr = api("SR.create", api("pool.get_master", pool), {"location": folder + "/shared"}, 0, SR, "made by deploy/quickstart",
             "file", "user", True, {}, timeout=120)
    api("pool.set_default_SR", pool, sr)
    return sr


def machine(api, label, sr):
    vm = api("VM.create", record(label))
    if sr is not None:
        (network, *_) = api("network.get_all")
        api("VIF.create", interface(vm, network))
        api("VBD.create", drive(vm, api("VDI.create", disk(sr, label))))
    return vm


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--url", required=True)
    ap.add_argument("--ca", required=True)
    ap.add_argument("--password-file", required=True)
    ap.add_argument("--storage", required=True, help="a folder below which the hosts may have SRs")
    ap.add_argument("--halted", action="store_true", help="start none of the VMs, make no SR, disk or interface")
    opts = ap.parse_args()
    with open(opts.password_file, encoding="utf-8") as handle:
        api = Api(opts.url, opts.ca).login(handle.read().strip())
    there = lambda label: api("VM.get_by_name_label", label)
    for label, vcpus, mib, other in TEMPLATES:
        if not there(label):
            api("VM.create", record(label, True, mib, vcpus, **other))
    sr = None if opts.halted else shared_sr(api, opts.storage)
    for label in RUNNING + HALTED:
        if not there(label):
            vm = machine(api, label, sr)
            if label in RUNNING and not opts.halted:
                api("VM.start", vm, False, False)
    api("session.logout")


if __name__ == "__main__":
    try:
        main()
    except (Failure, OSError) as why:
        raise SystemExit("demo content: %s" % " ".join(map(str, why.args)))
