// Takes and gives back locks with a library for Node.js on request.
//
// usage: peer.js PORT[,PORT...] redlock|redis-semaphore
//
// Each line of input is a command: acquire ID KEY MS, extend ID MS, release ID. Each is answered
// by one line: yes, no, or error and a text.
"use strict";

const readline = require("node:readline");
const Redis = require("ioredis");

const [ports, library] = process.argv.slice(2);
const clients = ports.split(",").map((port) => new Redis(Number(port), "127.0.0.1"));
const client = clients[0];
for (const c of clients) c.on("error", () => {}); // a node of a quorum may be down

// Each library answers three calls with true or false, and throws what is neither.
const libraries = {
  redlock() {
    const { default: Redlock, ExecutionError } = require("redlock");
    const redlock = new Redlock(clients, { retryCount: 0, automaticExtensionThreshold: 0 });
    const locks = new Map();
    const attempt = async (f) => {
      try {
        await f();
        return true;
      } catch (e) {
        // It has one error for everything that is short of a quorum, and one for locks that it
        // knows to be over.
        if (e instanceof ExecutionError || /already-expired/.test(e.message)) return false;
        throw e;
      }
    };
    return {
      acquire: (id, key, ms) => attempt(async () => locks.set(id, await redlock.acquire([key], ms))),
      extend: (id, ms) => attempt(async () => locks.set(id, await locks.get(id).extend(ms))),
      release: (id) => attempt(() => locks.get(id).release()),
    };
  },

  "redis-semaphore"() {
    const { Mutex } = require("redis-semaphore");
    const prefix = "mutex:"; // which it puts before the name itself
    const once = { acquireAttemptsLimit: 1, retryInterval: 0, refreshInterval: 0 };
    const locks = new Map();
    return {
      async acquire(id, key, ms) {
        const name = key.slice(prefix.length);
        const mutex = new Mutex(client, name, { ...once, lockTimeout: ms });
        locks.set(id, { name, mutex });
        return mutex.tryAcquire();
      },
      async extend(id, ms) {
        const { name, mutex } = locks.get(id);
        const identifier = mutex.identifier;
        return new Mutex(client, name, { ...once, lockTimeout: ms, identifier, acquiredExternally: true }).tryAcquire();
      },
      async release(id) {
        await locks.get(id).mutex.release(); // does not say whether there was anything to release
        return true;
      },
    };
  },
};

const peer = libraries[library]();

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [name, id, ...rest] = line.split(" ");
    const args = name === "acquire" ? [rest[0], Number(rest[1])] : rest.map(Number);
    let answer;
    try {
      answer = (await peer[name](id, ...args)) ? "yes" : "no";
    } catch (e) {
      answer = "error " + String(e.stack).replace(/\s+/g, " ");
    }
    process.stdout.write(answer + "\n");
  }
  for (const c of clients) c.disconnect();
}

main();
