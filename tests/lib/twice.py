"""Does a guest run on two hosts? Standard library only."""
import glob
import os
import sqlite3
import threading
import time


class Twice(threading.Thread):
    """Looks at the hypervisors, whatever the records say: does a guest run on two hosts?"""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.paths = glob.glob(os.path.join(folder, "member*", "agent", "domains.db"))
        self.found, self.looks, self.stop = [], 0, False

    def live(self, path):
        try:
            with sqlite3.connect("file:%s?mode=ro" % path, uri=True, timeout=10) as db:  # asked 2: it is to suspend
                return {row[0] for row in db.execute("SELECT uuid FROM domain WHERE NOT paused AND NOT marked AND asked <> 2")}
        except sqlite3.OperationalError:
            return set()

    def all(self, path):
        """The VMs that have a domain there."""
        with sqlite3.connect("file:%s?mode=ro" % path, uri=True, timeout=10) as db:
            return [row[0] for row in db.execute("SELECT uuid FROM domain")]

    def run(self):
        while not self.stop:
            self.looks += 1
            seen = [(path, self.live(path)) for path in self.paths]
            for n, (path, here) in enumerate(seen):
                for other, there in seen[:n]:
                    # the first may have let go before the second began: only what is still there is there twice
                    self.found += [(uuid, path, other) for uuid in here & there & self.live(other)]
            time.sleep(0.02)
