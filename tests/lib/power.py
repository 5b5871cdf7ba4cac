"""A power cut: what faulty_disk.c has kept of a member's files is what may be lost. Its head says what lies in the folder.

Of each file every sector of 512 bytes that is not on stable storage is lost or not, and its length; of each folder the names done
last, from some moment on. Standard library only.
"""
import os
import shutil
import struct

SECTOR = 512
RECORD = struct.Struct("=BcHIQ")


def records(path):
    """(offset, live, kind, at, bytes)"""
    with open(path, "rb") as handle:
        text = handle.read()
    offset = 0
    while offset + RECORD.size <= len(text):
        live, kind, _, length, at = RECORD.unpack_from(text, offset)
        end = offset + RECORD.size + length
        if end <= len(text):  # else the cut came before the change itself
            yield offset, live, kind.decode(), at, text[offset + RECORD.size:end]
        offset = end


def lose_bytes(journal, path, rng, share):
    """How many sectors, of how many that were not on stable storage, and was the length."""
    was, length = {}, None
    for _, live, kind, at, old in records(journal):
        if kind == "t":
            length = (at if length is None else length) if live else None
            continue
        for n in range(0, len(old), SECTOR):
            if live:
                was.setdefault(at + n, old[n:n + SECTOR])
            else:
                was.pop(at + n, None)  # the sector as a whole is there
    lost = 0
    with open(path, "r+b") as handle:
        if length is not None and rng.random() < share:
            handle.truncate(length)
        size = handle.seek(0, os.SEEK_END)
        for at, old in sorted(was.items()):
            if rng.random() < share and at < size:
                handle.seek(at)
                handle.write(old[:size - at])
                lost += 1
    return lost, len(was)


def lose_names(journal, kept, inode, folder, rng, share):
    live = [(offset, kind, [os.path.join(folder, name.decode()) for name in names.split(b"\0")[:-1]])
            for offset, live, kind, _, names in records(journal) if live]
    stay = len(live) if not rng.random() < share else rng.randint(0, max(0, len(live) - 1))
    for offset, kind, names in reversed(live[stay:]):
        link = os.path.join(kept, "n%d-%d" % (inode, offset))
        if kind == "r" and os.path.lexists(names[1]) and not os.path.lexists(names[0]):
            os.rename(names[1], names[0])
        if kind == "c" and os.path.isdir(names[0]):
            shutil.rmtree(names[0])
        elif kind == "c" and os.path.lexists(names[0]):
            os.remove(names[0])
        if kind in "ur" and os.path.lexists(link) and not os.path.lexists(names[-1]):
            os.link(link, names[-1])
    return len(live) - stay, len(live)


def cut(home, kept, journals, rng):
    """Of a member whose programs are dead. What was lost, of how much: (sectors, of, names, of)."""
    share = rng.choice([0.5, 1, 1, rng.random()])
    folders = {os.stat(top).st_ino: top for part in ("data", "agent") for top, _, _ in os.walk(os.path.join(home, part))}
    sums, prefix = [0, 0, 0, 0], os.path.basename(home) + "-"
    for name in sorted(name for name in os.listdir(journals) if name.startswith(prefix)):  # bytes, then names
        journal, kind, inode, lost = os.path.join(journals, name), name[len(prefix)], int(name[len(prefix) + 1:]), (0, 0)
        link = os.path.join(kept, "l%d" % inode)
        if kind == "d" and os.path.exists(link):
            lost = lose_bytes(journal, link, rng, share)
        if kind == "n" and inode in folders:
            lost = lose_names(journal, kept, inode, folders[inode], rng, share)
        at = 0 if kind == "d" else 2
        sums[at:at + 2] = sums[at] + lost[0], sums[at + 1] + lost[1]
        os.remove(journal)
    shutil.rmtree(kept, ignore_errors=True)
    return tuple(sums)
