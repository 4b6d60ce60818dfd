"""Takes and gives back locks with kazoo, as it is told on its standard input.

  acquire ID KIND PATH N MS   KIND is mutex, read or write; answers yes or no
  release ID
"""

import sys
import threading

from kazoo.client import KazooClient
from kazoo.exceptions import LockTimeout

# What Curator and holdfast call the nodes that kazoo's locks have to make way for. It finds
# the number of a node behind the pattern.
LOCKS = ["-lock-", "-__WRIT__", "-__READ__"]
WRITERS = ["-lock-", "-__WRIT__"]

client = KazooClient(hosts=sys.argv[1], timeout=60)
client.start()
held = {}


def carry_out(word):
    if word[0] == "release":
        held.pop(word[1]).release()
        return "yes"
    kind, path, wait = word[2], word[3], int(word[5]) / 1000
    if kind == "mutex":
        lock = client.Lock(path, "kazoo", extra_lock_patterns=LOCKS)
    elif kind == "write":
        lock = client.WriteLock(path, "kazoo", extra_lock_patterns=LOCKS)
    else:
        lock = client.ReadLock(path, "kazoo", extra_lock_patterns=WRITERS)
    try:
        ok = lock.acquire(timeout=wait)
    except LockTimeout:
        ok = False
    if ok:
        held[word[1]] = lock
    return "yes" if ok else "no"


def answer(word):
    try:
        text = carry_out(word)
    except Exception as e:
        text = repr(e)
    sys.stdout.write(word[1] + " " + text + "\n")
    sys.stdout.flush()


for line in sys.stdin:
    threading.Thread(target=answer, args=(line.split(),), daemon=True).start()
client.stop()
