"""A coordinator stands still: nobody elsewhere waits for a session that is held there, though it was not used for a while before."""
import os
import signal
import sys
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import Api, Pool

LEASE_S, ELECTION_S = 2.0, 0.5  # db/floor.c
WAIT_S = 0.15


def pid(pool, member):
    with open("%s/member%d/xpoold.pid" % (pool.dir, member)) as handle:
        return int(handle.read().split()[0])


def longest_wait(pool, member):
    return pool.counters(member)["floors_wait_us_max"] / 1e6


def freeze(pool, api, leader):
    """Seconds until another leads; reads at a member that stays all the time."""
    api("pool.get_all")
    time.sleep(LEASE_S - ELECTION_S / 2)  # what is left of the lease is shorter than an election
    api("pool.get_all")
    time.sleep(0.06)
    os.kill(pid(pool, leader), signal.SIGSTOP)
    began = time.time()
    while (term := pool.counters(api.member)["elections_won"] + pool.counters(6 - leader - api.member)["elections_won"]) == api.won:
        assert time.time() - began < 20
        api("pool.get_all")
    api.won = term
    took = time.time() - began
    os.kill(pid(pool, leader), signal.SIGCONT)
    return took


with Pool() as pool:
    sessions = {n: Api(pool, n).login() for n in (1, 2, 3)}
    for turn in range(4):
        leader = pool.leader()
        api = sessions[leader % 3 + 1]
        api.won = sum(pool.counters(n)["elections_won"] for n in (1, 2, 3) if n != leader)
        before = longest_wait(pool, api.member)
        took = freeze(pool, api, leader)
        waited = longest_wait(pool, api.member)
        print("another leads after %.2f s; longest wait for a session %.3f s" % (took, waited))
        assert waited <= max(before, WAIT_S) or took > LEASE_S - ELECTION_S
        pool.agree()
