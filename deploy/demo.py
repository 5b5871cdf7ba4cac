#!/usr/bin/env python3
"""Demo content for a fresh pool: a template and a few VMs. Does nothing when they are there."""
import argparse
import ssl
import xmlrpc.client

MIB = 1 << 20
VMS = ("web", "database", "mail", "build")


def record(label, template, mib):
    size = str(mib * MIB)
    return {
        "name_label": label, "name_description": "made by deploy/quickstart", "user_version": "1",
        "is_a_template": template, "affinity": "OpaqueRef:NULL",
        "memory_static_max": size, "memory_dynamic_max": size, "memory_dynamic_min": size, "memory_static_min": size,
        "VCPUs_params": {}, "VCPUs_max": "2", "VCPUs_at_startup": "2",
        "actions_after_shutdown": "destroy", "actions_after_reboot": "restart", "actions_after_crash": "restart",
        "PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "", "PV_args": "", "PV_bootloader_args": "",
        "PV_legacy_args": "", "HVM_boot_policy": "BIOS order", "HVM_boot_params": {"order": "cdn"}, "platform": {},
        "PCI_bus": "", "other_config": {"xpool-demo": "1"}, "recommendations": "",
    }


class Api:
    """Calls with the session in front and failures as exceptions."""

    def __init__(self, url, ca):
        context = ssl.create_default_context(cafile=ca)
        self.proxy = xmlrpc.client.ServerProxy(url + "/", context=context)
        self.session = None

    def call(self, method, *args):
        head = () if self.session is None else (self.session,)
        reply = getattr(self.proxy, method)(*head, *args)
        if reply["Status"] != "Success":
            raise SystemExit("%s: %s" % (method, " ".join(reply["ErrorDescription"])))
        return reply["Value"]

    def login(self, password):
        self.session = self.call("session.login_with_password", "root", password, "1.0", "xpool-demo")


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--url", required=True)
    ap.add_argument("--ca", required=True)
    ap.add_argument("--password-file", required=True)
    opts = ap.parse_args()
    api = Api(opts.url, opts.ca)
    with open(opts.password_file, encoding="utf-8") as handle:
        api.login(handle.read().strip())
    for label, template, mib in [("Other install media", True, 256)] + [(name, False, 512) for name in VMS]:
        if not api.call("VM.get_by_name_label", label):
            api.call("VM.create", record(label, template, mib))
    api.call("session.logout")


if __name__ == "__main__":
    main()
