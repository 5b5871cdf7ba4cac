"""What cannot start says why in one line and exits with an error."""
import os
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/lib")
from xpool import QUICKSTART, ROOT, Pool

BUILD = sys.argv[1]


def refuses(words, *command, cwd=None, stdin=None):
    with open(stdin or os.devnull) as given:
        done = subprocess.run(command, cwd=cwd, text=True, timeout=60, stdin=given, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    lines = [line for line in done.stdout.splitlines() if line]
    assert done.returncode not in (0, -11, -6), (command, done.returncode, done.stdout)
    assert any(word in done.stdout for word in words), (words, done.stdout)
    assert len(lines) <= 2, done.stdout


# a package that cannot be had, and a user who may not
with tempfile.TemporaryDirectory() as folder:
    shutil.copy(os.path.join(ROOT, "deploy", "packages.sh"), folder)
    with open(os.path.join(folder, "packages"), "w") as handle:
        handle.write("build no-such-package-anywhere\n")
    refuses(["no-such-package-anywhere"], "bash", "-c", ". ./packages.sh && packages_need build", cwd=folder)
refuses(["needs root"], "setpriv", "--reuid", "nobody", "--clear-groups", "bash", "-s", stdin=QUICKSTART)

taken = socket.socket()
taken.bind(("127.0.0.11", 443))
taken.listen(1)
wrong = Pool()
done = wrong.quickstart("up", check=False)
assert done.returncode != 0 and "taken by" in done.stdout and "--port" in done.stdout and "python3" in done.stdout, done.stdout
for words in (["up", "--members", "x"], ["kill"], ["kill", "9"], ["--port", "no"]):
    assert wrong.quickstart(*words, check=False).returncode != 0, words
taken.close()
wrong.quickstart("wipe")

with Pool() as pool:
    home = os.path.join(pool.dir, "member1")
    xpoold = [os.path.join(BUILD, "xpoold"), "--dir", "data", "--certificate", "member.pem", "--password-file", "passwd"]
    refuses(["as root"], *xpoold, "--listen", "127.0.0.11:444", cwd=home)
    refuses(["another xpoold"], *xpoold, "--allow-root", "--listen", "127.0.0.11:444", cwd=home)
    refuses(["another program uses the port"], *xpoold, "--allow-root", "--listen", "127.0.0.11:443", cwd=home)
    refuses(["members.json", "xpoolctl init"], os.path.join(BUILD, "xpoold"), "--dir", "/nowhere", "--listen", "127.0.0.1:1",
            "--allow-root")
    refuses(["another xpool-agent"], os.path.join(BUILD, "xpool-agent"), "--dir", "agent", cwd=home)
    refuses(["No such file"], os.path.join(BUILD, "xpool-agent"), "--dir", "/nowhere")
    ctl = os.path.join(BUILD, "xpoolctl")
    refuses(["belongs to a pool already"], ctl, "init", "--dir", "data", "--members", "../members.json", "--id", "1", cwd=home)
    refuses(["no member with this --id"], ctl, "init", "--dir", "new", "--members", "../members.json", "--id", "9", cwd=home)
    refuses(["does not run"], ctl, "status", "--dir", "/nowhere")
    refuses(["IP address"], ctl, "certificate", "--address", "nonsense", "--name", "x", "--out", "/dev/null")
    bad = os.path.join(pool.dir, "bad.json")
    for text, word in (("{", "JSON"), ("{}", "pool"), ('{"pool":"x"}', "uuid"),
                       ('{"pool":"abb425d9-925f-4101-a885-bd99a1cc6850","members":[{}]}', "id")):
        with open(bad, "w") as handle:
            handle.write(text)
        refuses([word], ctl, "init", "--dir", "new", "--members", bad, "--id", "1", cwd=home)
    done = pool.quickstart("up", "--members", "5", check=False)
    assert done.returncode != 0 and "wipe" in done.stdout
