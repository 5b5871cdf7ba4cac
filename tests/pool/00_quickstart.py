"""What a stranger does first: deploy/quickstart, with its own build, and the command it prints."""
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import QUICKSTART

env = {k: v for k, v in os.environ.items() if k not in ("XPOOL_BUILD", "XPOOL_PASSWORD")}
with tempfile.TemporaryDirectory(prefix="xpool-test-") as folder:
    os.chmod(folder, 0o755)

    def quickstart(*args):
        done = subprocess.run([QUICKSTART, *args, "--dir", folder + "/pool"], env=env, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout
        return done.stdout

    began = time.time()
    said = quickstart()
    print("up in %.1f s" % (time.time() - began))
    began = time.time()
    quickstart("up")
    again = time.time() - began
    assert again < 10, "a second up took %.1f s" % again
    assert os.stat(folder + "/pool/password").st_mode & 0o777 == 0o600
    with open(folder + "/pool/password") as handle:
        assert handle.read().strip() in said
    command = next(line.strip() for line in said.splitlines() if "fence_xenapi" in line)
    assert "database" in subprocess.run(command, shell=True, text=True, check=True, stdout=subprocess.PIPE).stdout
    command = "\n".join(line.strip() for line in said.splitlines() if "XE_PASSWORD" in line or "/xe vm-list" in line)
    assert "database" in subprocess.run(["bash", "-c", command.split("   ")[0]], text=True, check=True, stdout=subprocess.PIPE).stdout
    assert quickstart("status").count("ready=yes") == 3
    for member in (1, 2, 3):
        with open("%s/pool/member%d/xpoold.pid" % (folder, member)) as handle:
            pid = handle.read().split()[0]
        with open("/proc/%s/status" % pid) as handle:
            text = handle.read()
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert "0" not in fields["Uid"].split(), "xpoold runs as root"
        assert int(fields["CapEff"], 16) in (0, 1 << 10), fields["CapEff"]
    quickstart("wipe")
    assert not os.path.exists(folder + "/pool")
