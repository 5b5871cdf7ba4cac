"""The coordinator dies under load: the others go on, nothing acknowledged is lost, it returns and agrees."""
import sys
import threading
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool, eventually, vm_record

with Pool() as pool:
    sessions = {n: Api(pool, n).login() for n in (1, 2, 3)}
    vms = {n: sessions[1]("VM.create", vm_record("writer%d" % n)) for n in (1, 2, 3)}
    acknowledged = {n: -1 for n in (1, 2, 3)}
    stop = threading.Event()

    def write(n):
        k = 0
        while not stop.is_set():
            try:
                sessions[n]("VM.set_name_description", vms[n], str(k), timeout=30)
                acknowledged[n] = k
            except Exception:  # of a member that is dead: its last write is unknown, not lost
                time.sleep(0.05)
            k += 1

    threads = [threading.Thread(target=write, args=(n,), daemon=True) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    for turn in range(2):
        leader = pool.leader()
        survivors = [n for n in (1, 2, 3) if n != leader]
        pool.quickstart("kill", str(leader))
        mark = dict(acknowledged)
        began = time.time()
        eventually("writes go on", lambda: all(acknowledged[n] > mark[n] + 1 for n in survivors), 20)
        print("writes through both survivors after %.2f s" % (time.time() - began))
        api = sessions[survivors[0]]
        vm = api("VM.create", vm_record("while %d is down" % turn))
        for n in survivors:
            sessions[n]("VM.start", vm, False, True)
            sessions[n]("VM.hard_reboot", vm)
            sessions[n]("VM.hard_shutdown", vm)
        # a session made before, and one made at the dead coordinator, are good at every survivor
        assert Api(pool, survivors[1], sessions[leader].session)("VM.get_power_state", vm) == "Halted"
        assert pool.leader() in survivors
        master = api("pool.get_master", api("pool.get_all")[0])
        eventually("pool.master names it", lambda: api("host.get_address", api("pool.get_master", api("pool.get_all")[0]))
                   == pool.address(pool.leader()))
        pool.quickstart("start", str(leader))
        eventually("member %d writes again" % leader, lambda: acknowledged[leader] > mark[leader] + 1, 30)
    stop.set()
    for thread in threads:
        thread.join()
    pool.agree()
    for n in (1, 2, 3):
        value = int(sessions[1]("VM.get_name_description", vms[n]))
        assert value >= acknowledged[n], "member %d: %d acknowledged, %d is there" % (n, acknowledged[n], value)
    # its session goes on at a member that does not lead, though the new coordinator serves nobody and who held it does not answer
    leader = pool.leader()
    api = Api(pool, leader).login()
    time.sleep(3)  # nobody else holds one
    api("VM.get_name_label", vms[1])
    pool.quickstart("kill", str(leader))
    other = next(n for n in (1, 2, 3) if n not in (leader, pool.leader()))
    began = time.time()
    Api(pool, other, api.session)("VM.get_name_label", vms[1])
    assert time.time() - began < 8, "it took %.1f s" % (time.time() - began)
    pool.quickstart("start", str(leader))
    eventually("it is back", lambda: pool.status()[leader - 1].get("ready") == "yes")
    for n in (1, 2, 3):
        pool.check(n)
