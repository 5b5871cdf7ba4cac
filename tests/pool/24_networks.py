"""Networks, interfaces of hosts, VLANs and interfaces of VMs: what the pool knows of them and which rules it keeps, through
several members."""
import json
import os
import re
import sqlite3
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from xpool import NULL, Api, ApiError, Pool, vif_record, vm_record


def network(label, **more):
    return dict({"name_label": label, "other_config": {}}, **more)


with Pool() as pool:
    first = Api(pool, 1).login()
    second, third = (Api(pool, n, first.session) for n in (2, 3))  # one session: what one member has shown is seen at all
    apis = [first, second, third]
    hosts = first("host.get_all")

    # a new pool: one network that the management interfaces of all are on, each with the address of its member
    (eth0,) = first("network.get_by_name_label", "Pool-wide network associated with eth0")
    assert first("network.get_bridge", eth0) == "xenbr0"
    pifs = second("PIF.get_all_records")
    assert len(pifs) == 3 and set(second("network.get_PIFs", eth0)) == set(pifs)
    for ref, pif in pifs.items():
        assert pif["management"] and pif["physical"] and pif["currently_attached"] and pif["device"] == "eth0", pif
        assert pif["IP"] == first("host.get_address", pif["host"]) and int(pif["VLAN"]) == -1, pif
        assert re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", pif["MAC"]) and int(pif["MAC"][:2], 16) & 3 == 2
        assert third("host.get_management_interface", pif["host"]) == ref
        assert first("PIF_metrics.get_carrier", pif["metrics"])
    assert first("PIF.get_all_records_where", 'field "IP"="%s"' % pool.address(2)).keys() == {
        r for r, p in pifs.items() if p["IP"] == pool.address(2)}

    # bridges: chosen by the pool, or by the client and then unique; eight at once through three members get eight names
    made = []
    threads = [threading.Thread(target=lambda n=n: made.append(apis[n % 3]("network.create", network("n%d" % n)))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bridges = {first("network.get_bridge", n) for n in made}
    assert len(made) == len(bridges) == 8 and all(re.fullmatch(r"xapi\d+", b) for b in bridges), bridges
    given = second("network.create", network("given", bridge="br-lab"))
    assert first.fails("BRIDGE_NAME_EXISTS", "network.create", network("again", bridge="br-lab")) == ["br-lab"]
    assert first.fails("INVALID_VALUE", "network.create", network("bad", bridge="a b"))[0] == "bridge"
    assert first.fails("INVALID_VALUE", "network.create", network("long", bridge="x" * 16))[0] == "bridge"
    assert first.fails("INVALID_VALUE", "network.create", network("unmanaged", managed=False)) == ["bridge", ""]
    assert set(first.fails("NETWORK_CONTAINS_PIF", "network.destroy", eth0)) == set(pifs)
    system = first("network.create", network("HIMN", other_config={"is_host_internal_management_network": "true"}))
    assert third.fails("CANNOT_DESTROY_SYSTEM_NETWORK", "network.destroy", system) == [system]
    first("network.add_purpose", made[0], "nbd")
    assert second.fails("NETWORK_INCOMPATIBLE_PURPOSES", "network.add_purpose", made[1], "insecure_nbd") == ["insecure_nbd", "nbd"]
    first("network.remove_purpose", made[0], "nbd")
    second("network.add_purpose", made[1], "insecure_nbd")
    first("network.set_default_locking_mode", made[0], "disabled")
    assert third("network.get_default_locking_mode", made[0]) == "disabled"

    # a VLAN on every host by one call: all or none
    lan = made[0]
    over = first("pool.create_VLAN_from_PIF", next(iter(pifs)), lan, 42)
    assert len(over) == 3 and {second("PIF.get_host", p) for p in over} == set(hosts)
    for pif in over:
        record = third("PIF.get_record", pif)
        vlan = third("VLAN.get_record", record["VLAN_master_of"])
        assert not record["physical"] and not record["management"] and int(record["VLAN"]) == int(vlan["tag"]) == 42
        assert vlan["untagged_PIF"] == pif and third("PIF.get_MAC", vlan["tagged_PIF"]) == record["MAC"]
    below = third("VLAN.get_tagged_PIF", record["VLAN_master_of"])
    host = record["host"]
    assert first.fails("PIF_VLAN_EXISTS", "VLAN.create", below, 42, made[1]) == [pif]
    assert first.fails("NETWORK_ALREADY_CONNECTED", "VLAN.create", below, 43, lan) == [host, pif]
    assert first.fails("VLAN_TAG_INVALID", "VLAN.create", below, 4095, made[1]) == ["4095"]
    assert first.fails("PIF_IS_VLAN", "VLAN.create", pif, 43, made[1]) == [pif]
    assert first.fails("PIF_IS_PHYSICAL", "PIF.destroy", below) == [below]
    # up and down: not what the host is reached by, nor what is not to go
    assert first.fails("PIF_IS_MANAGEMENT_INTERFACE", "PIF.unplug", below) == [below]
    first("PIF.plug", below)
    second("PIF.set_disallow_unplug", pif, True)
    assert third("PIF.get_disallow_unplug", pif) and first.fails("PIF_DOES_NOT_ALLOW_UNPLUG", "PIF.unplug", pif) == [pif]
    second("PIF.set_disallow_unplug", pif, False)
    for api, method, up in ((first, "PIF.unplug", False), (second, "PIF.unplug", False), (third, "PIF.plug", True), (first, "PIF.plug", True),
                            (second, "PIF.unplug", False)):
        api(method, pif)
        assert api("PIF.get_currently_attached", pif) is up, method
    # a VM that comes to use it brings it up, and keeps it so
    user = first("VM.create", vm_record("user"))
    used = first("VIF.create", vif_record(user, lan, "0"))
    first("VM.start_on", user, host, False, True)
    assert second("PIF.get_currently_attached", pif) is True
    assert second.fails("VIF_IN_USE", "PIF.unplug", pif) == [lan, used]
    first("VM.hard_shutdown", user)
    third("PIF.unplug", pif)
    assert first("PIF.get_currently_attached", pif) is False
    assert first.fails("HANDLE_INVALID", "PIF.plug", "OpaqueRef:none") == ["PIF", "OpaqueRef:none"]
    first("VM.destroy", user)
    # two at once of one tag: one is made
    outcome = []

    def vlan_43(api, net):
        try:
            api("VLAN.create", below, 43, net)
            outcome.append("ok")
        except ApiError as fault:
            outcome.append(fault.code)

    threads = [threading.Thread(target=vlan_43, args=(apis[n], made[5 + n])) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome) == ["PIF_VLAN_EXISTS", "PIF_VLAN_EXISTS", "ok"], outcome
    second("VLAN.destroy", record["VLAN_master_of"])
    assert first.fails("HANDLE_INVALID", "PIF.get_record", pif) == ["PIF", pif]
    assert first.fails("HANDLE_INVALID", "PIF_metrics.get_record", record["metrics"])[0] == "PIF_metrics"
    assert len(first("network.get_PIFs", lan)) == 2

    # interfaces of VMs: addresses follow from the VM's seed and the device
    vm = first("VM.create", vm_record("web", other_config={"mac_seed": "b9f2"}))
    twin = first("VM.create", vm_record("twin", other_config={"mac_seed": "b9f2"}))
    assert re.fullmatch(r"[0-9a-f-]{36}", first("VM.get_other_config", first("VM.create", vm_record("own")))["mac_seed"])
    assert first("VM.get_allowed_VIF_devices", vm) == [str(n) for n in range(7)]
    one = second("VIF.create", vif_record(vm, eth0, "0"))
    two = second("VIF.create", vif_record(vm, made[2], "1", MTU="0", locking_mode="locked", ipv4_allowed=["10.0.0.7"], ipv6_allowed=["fe80::1"]))
    macs = [third("VIF.get_MAC", v) for v in (one, two)]
    assert len(set(macs)) == 2 and all(int(m[:2], 16) & 3 == 2 for m in macs) and third("VIF.get_MAC_autogenerated", one)
    assert third("VIF.get_MAC", first("VIF.create", vif_record(twin, eth0, "0"))) == macs[0]
    assert int(first("VIF.get_MTU", two)) == 1500 and not first("VIF.get_currently_attached", two)
    same = first("VIF.create", vif_record(vm, eth0, "5", MAC=macs[0], currently_attached=True))  # duplicates are allowed
    assert not first("VIF.get_currently_attached", same) and not first("VIF.get_MAC_autogenerated", same)
    assert third("VM.get_allowed_VIF_devices", vm) == ["2", "3", "4", "6"]
    assert "xvda" not in first("VM.get_allowed_VBD_devices", vm) and len(first("VM.get_allowed_VBD_devices", vm)) == 256
    assert first.fails("DEVICE_ALREADY_EXISTS", "VIF.create", vif_record(vm, eth0, "1")) == ["1"]
    for device in ("", "-1", "x", "01", "256"):
        assert first.fails("INVALID_DEVICE", "VIF.create", vif_record(vm, eth0, device)) == [device]
    for mac in ("01:00:00:00:00:01", "02:00:00:00:00", "02:00:00:00:00:0g", "02-00-00-00-00-00"):
        assert first.fails("MAC_INVALID", "VIF.create", vif_record(vm, eth0, "2", MAC=mac)) == [mac]
    assert first.fails("INVALID_IP_ADDRESS_SPECIFIED", "VIF.create", vif_record(vm, eth0, "2", ipv4_allowed=["10.0.0"])) == ["ipv4_allowed"]
    assert first.fails("HANDLE_INVALID", "VIF.create", vif_record(NULL, eth0, "2")) == ["VM", NULL]
    assert first.fails("HANDLE_INVALID", "VIF.create", vif_record(vm, NULL, "2")) == ["network", NULL]
    # two at once at one place: one is made
    outcome = []

    def place_3(api):
        try:
            api("VIF.create", vif_record(vm, eth0, "3"))
            outcome.append("ok")
        except ApiError as fault:
            outcome.append(fault.code)

    threads = [threading.Thread(target=place_3, args=(api,)) for api in apis]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome) == ["DEVICE_ALREADY_EXISTS", "DEVICE_ALREADY_EXISTS", "ok"], outcome
    second("VIF.destroy", same)

    # where it can run follows the networks: the VLAN is on two hosts only
    third("VIF.create", vif_record(vm, lan, "4"))
    assert set(first("VM.get_possible_hosts", vm)) == set(hosts) - {host}
    assert second.fails("VM_REQUIRES_NETWORK", "VM.assert_can_boot_here", vm, host) == [vm, lan]
    assert second.fails("HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED", "VM.assert_agile", vm) in ([lan], [made[2]])
    first("VM.assert_agile", twin)
    assert second.fails("VM_REQUIRES_NETWORK", "VM.start_on", vm, host, False, False) == [vm, lan]
    first("VM.start", vm, False, False)
    assert first("VM.get_resident_on", vm) in set(hosts) - {host}
    first("VM.hard_shutdown", vm)
    # plugged with the VM, and what is plugged is what its domain has, seen at every member
    vm = first("VM.create", vm_record("plugs", other_config={"xpool-sim-guest": '{"unplug": "refuse"}'}))
    nics = [second("VIF.create", vif_record(vm, eth0, str(n))) for n in (3, 0)]
    late = second("VIF.create", vif_record(vm, lan, "1"))
    assert first.fails("VM_BAD_POWER_STATE", "VIF.plug", late) == [vm, "running", "halted"]
    second("VIF.destroy", late)
    attached = lambda: [third("VIF.get_currently_attached", v) for v in nics]
    first("VM.start", vm, False, False)
    assert attached() == [True, True]
    assert third("VIF.get_allowed_operations", nics[0]) == ["attach", "unplug"]
    assert first.fails("OPERATION_NOT_ALLOWED", "VIF.destroy", nics[0])
    nics.append(second("VIF.create", vif_record(vm, made[3], "2")))
    assert attached() == [True, True, False]
    first("VIF.plug", nics[2])
    assert attached() == [True, True, True]
    assert first.fails("DEVICE_ALREADY_ATTACHED", "VIF.plug", nics[2]) == [nics[2]]
    assert third.fails("NETWORK_CONTAINS_VIF", "network.destroy", made[3]) == [nics[2]]
    assert second.fails("VIF_IN_USE", "network.set_default_locking_mode", made[3], "disabled") == [made[3], nics[2]]
    assert second.fails("DEVICE_DETACH_REJECTED", "VIF.unplug", nics[2])[:2] == ["VIF", "2"]
    assert attached() == [True, True, True] and third("VIF.get_current_operations", nics[2]) == {}
    second("VIF.unplug_force", nics[2])
    assert attached() == [True, True, False]
    assert first.fails("DEVICE_ALREADY_DETACHED", "VIF.unplug", nics[2]) == [nics[2]]
    first("VIF.plug", nics[2])
    # changed while it is plugged, and while it is not
    second("VIF.move", nics[2], made[4])
    assert third("VIF.get_network", nics[2]) == made[4] and attached() == [True, True, True]
    second("network.destroy", made[3])
    second("VIF.set_locking_mode", nics[2], "locked")
    second("VIF.set_ipv4_allowed", nics[2], ["10.0.0.1", "10.0.0.2"])
    second("VIF.add_ipv4_allowed", nics[2], "10.0.0.3")
    second("VIF.remove_ipv4_allowed", nics[2], "10.0.0.1")
    assert first.fails("INVALID_IP_ADDRESS_SPECIFIED", "VIF.add_ipv6_allowed", nics[2], "10.0.0.3") == ["ipv6_allowed"]
    record = third("VIF.get_record", nics[2])
    assert record["locking_mode"] == "locked" and record["ipv4_allowed"] == ["10.0.0.2", "10.0.0.3"], record
    member = {h: n for h in hosts for n in (1, 2, 3) if pool.address(n) == first("host.get_address", h)}[first("VM.get_resident_on", vm)]
    with sqlite3.connect(os.path.join(pool.dir, "member%d" % member, "agent", "domains.db")) as domains:
        (real,) = domains.execute("SELECT bridge, locking_mode FROM vif WHERE device = 2").fetchall()
    assert real == (first("network.get_bridge", made[4]), "locked"), real
    first("VM.hard_reboot", vm)
    assert attached() == [True, True, True]
    first("VM.hard_shutdown", vm)
    assert attached() == [False, False, False]
    second("VIF.configure_ipv4", nics[0], "Static", "10.1.0.5/24", "10.1.0.1")
    assert third("VIF.get_ipv4_addresses", nics[0]) == ["10.1.0.5/24"] and third("VIF.get_ipv4_gateway", nics[0]) == "10.1.0.1"
    assert first.fails("INVALID_CIDR_ADDRESS_SPECIFIED", "VIF.configure_ipv4", nics[0], "Static", "10.1.0.5", "") == ["address"]
    assert first.fails("INVALID_IP_ADDRESS_SPECIFIED", "VIF.configure_ipv6", nics[0], "Static", "fe80::1/64", "x") == ["gateway"]
    second("VIF.configure_ipv4", nics[0], "None")
    assert third("VIF.get_ipv4_addresses", nics[0]) == []
    # records of interfaces, by the word of a client: one of each name and on each network, and what is used stays
    def introduce(api, device, net, **more):
        given = dict(MTU="9000", VLAN="-1", MAC="02:00:00:00:00:09", physical=True, mode="DHCP", other_config={"a": "b"})
        given.update(more)
        return api("PIF.db_introduce", device, net, host, given["MAC"], given["MTU"], given["VLAN"], given["physical"], given["mode"],
                   "10.9.0.2", "255.255.255.0", "10.9.0.1", "10.9.0.3", NULL, NULL, False, given["other_config"])

    spare = [first("network.create", network("spare%d" % n)) for n in range(2)]
    port = introduce(first, "eth7", spare[0])
    record = third("PIF.get_record", port)
    assert (record["device"], record["host"], record["network"], record["MAC"], int(record["MTU"]), int(record["VLAN"])) == (
        "eth7", host, spare[0], "02:00:00:00:00:09", 9000, -1), record
    assert (record["ip_configuration_mode"], record["IP"], record["netmask"], record["gateway"], record["DNS"]) == (
        "DHCP", "10.9.0.2", "255.255.255.0", "10.9.0.1", "10.9.0.3"), record
    assert record["physical"] and record["managed"] and not record["management"] and not record["currently_attached"], record
    assert record["other_config"] == {"a": "b"} and record["primary_address_type"] == "IPv4" and record["bond_slave_of"] == NULL
    assert second("PIF_metrics.get_carrier", record["metrics"]) and port in second("network.get_PIFs", spare[0])
    for fault, args in ((["DUPLICATE_PIF_DEVICE_NAME", "eth7"], ("eth7", spare[1])),
                        (["NETWORK_ALREADY_CONNECTED", host, port], ("eth8", spare[0])),
                        (["HANDLE_INVALID", "network", NULL], ("eth8", NULL))):
        try:
            raise AssertionError("introduced: %s" % introduce(second, *args))
        except ApiError as refused:
            assert list(refused.args) == fault, refused.args
    tag = second("VLAN.create", port, 7, spare[1])
    on_top = first("VLAN.get_untagged_PIF", tag)
    for method in ("PIF.forget", "PIF.db_forget"):
        for ref in (port, on_top):
            assert first.fails("PIF_VLAN_STILL_EXISTS", method, ref) == [ref]
    assert first.fails("PIF_IS_MANAGEMENT_INTERFACE", "PIF.forget", below) == [below]
    first("VLAN.destroy", tag)
    second("PIF.set_disallow_unplug", port, True)
    assert first.fails("PIF_DOES_NOT_ALLOW_UNPLUG", "PIF.forget", port) == [port]
    second("PIF.set_disallow_unplug", port, False)
    user = first("VM.create", vm_record("user"))
    used = first("VIF.create", vif_record(user, spare[0], "0"))
    first("VM.start_on", user, host, False, True)
    assert second.fails("VIF_IN_USE", "PIF.forget", port) == [spare[0], used]
    first("VM.hard_shutdown", user)
    third("PIF.forget", port)
    assert first.fails("HANDLE_INVALID", "PIF.forget", port) == ["PIF", port]
    assert first.fails("HANDLE_INVALID", "PIF_metrics.get_record", record["metrics"])[0] == "PIF_metrics"
    # of eight at once on one network one is made
    outcome = []

    def at_once(n):
        try:
            outcome.append(introduce(apis[n % 3], "eth%d" % n, spare[0]))
        except ApiError as fault:
            outcome.append(fault.code)

    threads = [threading.Thread(target=at_once, args=(20 + n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcome.count("NETWORK_ALREADY_CONNECTED") == 7, outcome
    (port,) = first("network.get_PIFs", spare[0])
    assert port in outcome
    third("PIF.db_forget", port)
    assert first("network.get_PIFs", spare[0]) == []
    # ports of the machine: what has no interface gets one, what has changed is said, what is gone stays
    agents = {h: os.path.join(pool.dir, "member%d" % n, "agent") for h in hosts for n in (1, 2, 3)
              if pool.address(n) == first("host.get_address", h)}

    def ports(at, **macs):
        with open(os.path.join(agents[at], "nics.json.new"), "w", encoding="utf-8") as out:
            json.dump([{"device": d, "mac": mac, "mtu": 1500 if d == "eth0" else 9000} for d, mac in macs.items()], out)
        os.replace(os.path.join(agents[at], "nics.json.new"), os.path.join(agents[at], "nics.json"))

    def found(at):
        return {r["device"]: r for r in third("PIF.get_all_records").values() if r["host"] == at and int(r["VLAN"]) < 0}

    # a machine that nobody has described has one port, always of the same address; a VLAN has that too
    top = first("VLAN.get_untagged_PIF", first("VLAN.create", below, 77, spare[1]))
    second("PIF.scan", host)
    assert list(found(host)) == ["eth0"], found(host)
    with open(os.path.join(agents[host], "nics.json"), encoding="utf-8") as text:
        (own,) = json.load(text)
    assert third("PIF.get_MAC", below) == third("PIF.get_MAC", top) == own["mac"] != record["MAC"]
    second("PIF.scan", host)
    assert third("PIF.get_MAC", below) == own["mac"]
    # all hosts at once, twice each: one network of a bridge, one interface of a port
    for at in hosts:
        ports(at, eth0="02:00:00:00:00:01", eth1="02:00:00:00:00:02", enp0s31f6="02:00:00:00:00:03")
    threads = [threading.Thread(target=apis[n % 3], args=("PIF.scan", hosts[n // 2])) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for at in hosts:
        now = found(at)
        assert sorted(now) == ["enp0s31f6", "eth0", "eth1"], now
        assert now["eth0"]["management"] and now["eth0"]["MAC"] == "02:00:00:00:00:01" and now["eth0"]["network"] == eth0, now["eth0"]
        assert now["eth1"]["physical"] and now["eth1"]["managed"] and not now["eth1"]["currently_attached"], now["eth1"]
        assert now["eth1"]["MAC"] == "02:00:00:00:00:02" and int(now["eth1"]["MTU"]) == 9000 and not now["eth1"]["management"], now["eth1"]
    assert len([p for p in third("PIF.get_all_records").values() if p["physical"]]) == 9
    for device, bridge in (("eth1", "xenbr1"), ("enp0s31f6", "brenp0s31f6")):
        (net,) = second("network.get_by_name_label", "Pool-wide network associated with " + device)
        assert second("network.get_bridge", net) == bridge and {third("PIF.get_host", p) for p in second("network.get_PIFs", net)} == set(hosts)
        assert {third("PIF.get_device", p) for p in second("network.get_PIFs", net)} == {device}
    # one that is gone stays until it is forgotten
    ports(host, eth0="02:00:00:00:00:01", eth1="02:00:00:00:00:12")
    first("PIF.scan", host)
    assert sorted(found(host)) == ["enp0s31f6", "eth0", "eth1"] and found(host)["eth1"]["MAC"] == "02:00:00:00:00:12"
    by_device = {third("PIF.get_device", p): p for p in third("host.get_PIFs", host) if int(third("PIF.get_VLAN", p)) < 0}
    for device in ("enp0s31f6", "eth1"):
        second("PIF.forget", by_device[device])
    assert list(found(host)) == ["eth0"]
    # by name and address, which may be left out
    missing = "COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS"
    assert first.fails(missing, "PIF.introduce", host, "", "eth9") == ["eth9", ""]
    assert second.fails(missing, "PIF.introduce", host, "02:00:00:00:00:02", "eth1") == ["eth1", "02:00:00:00:00:02"]
    assert third.fails("MAC_INVALID", "PIF.introduce", host, "02:00:00:00:00", "eth1") == ["02:00:00:00:00"]
    assert third.fails("DUPLICATE_PIF_DEVICE_NAME", "PIF.introduce", host, "", "eth0") == ["eth0"]
    outcome = []

    def introduced(api):
        try:
            outcome.append(api("PIF.introduce", host, "02:00:00:00:00:12", "eth1", False))
        except ApiError as fault:
            outcome.append(fault.code)

    threads = [threading.Thread(target=introduced, args=(api,)) for api in apis]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (port,) = [o for o in outcome if o != "DUPLICATE_PIF_DEVICE_NAME"]
    record = third("PIF.get_record", port)
    assert (record["device"], record["MAC"], record["managed"], record["host"]) == ("eth1", "02:00:00:00:00:12", False, host), record
    assert found(host)["eth1"] == record
    # a network that the host is on by another interface: said, and no other port waits for it
    second("PIF.forget", port)
    (net,) = second("network.get_by_name_label", "Pool-wide network associated with eth1")
    other = introduce(first, "eth30", net)
    ports(host, eth1="02:00:00:00:00:12", eth2="02:00:00:00:00:05")
    assert second.fails("NETWORK_ALREADY_CONNECTED", "PIF.scan", host) == [host, other]
    assert third.fails("NETWORK_ALREADY_CONNECTED", "PIF.introduce", host, "", "eth1") == [host, other]
    assert sorted(found(host)) == ["eth0", "eth2", "eth30"]
    # what describes the machine is not believed unseen
    ports(host, eth1="02:00:00:00:00:12", eth3="2")
    assert "nics.json: a port has no mac" in second.fails("INTERNAL_ERROR", "PIF.scan", host)[0]
    with open(os.path.join(agents[host], "nics.json"), "w", encoding="utf-8") as out:
        out.write('[{"device": "eth1"')
    assert "nics.json" in second.fails("INTERNAL_ERROR", "PIF.introduce", host, "", "eth1")[0]
    assert sorted(found(host)) == ["eth0", "eth2", "eth30"]
    # a network goes with the interfaces that are not plugged
    second("network.destroy", made[2])
    assert first.fails("HANDLE_INVALID", "VIF.get_record", two) == ["VIF", two]
    pool.check()
    pool.agree()
