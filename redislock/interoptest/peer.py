"""Takes and gives back locks with redis-py on request.

usage: peer.py PORT

Each line of input is a command: acquire ID KEY MS, extend ID MS, release ID. MS of 0 is a lock
without an end. Each is answered by one line: yes, no, or error and a text.
"""

import sys

import redis
from redis.exceptions import LockError

client = redis.Redis(host="127.0.0.1", port=int(sys.argv[1]))
locks = {}


def acquire(ident, key, ms):
    lock = client.lock(key, timeout=int(ms) / 1000 or None)
    if not lock.acquire(blocking=False):
        return False
    locks[ident] = lock
    return True


def extend(ident, ms):
    return locks[ident].extend(int(ms) / 1000, replace_ttl=True)


def release(ident):
    locks[ident].release()
    return True


commands = {"acquire": acquire, "extend": extend, "release": release}

for line in sys.stdin:
    name, *args = line.split()
    try:
        answer = "yes" if commands[name](*args) else "no"
    except LockError:
        answer = "no"
    except Exception as e:
        answer = "error " + repr(e)
    print(answer, flush=True)
