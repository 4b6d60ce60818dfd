package testserver

import (
	"fmt"
	"strconv"
	"strings"
)

// Slot returns the slot of a key: of the first part in braces, if there is one that is not
// empty, and of the whole key otherwise.
func Slot(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16 // XMODEM: polynomial 0x1021, from 0
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return int(crc % slots)
}

// MoveSlot moves a slot and its keys to another master, and returns when all nodes agree on
// it.
func (c *RedisCluster) MoveSlot(slot int, to *RedisServer) {
	c.t.Helper()
	c.BeginMove(slot, to)
	c.EndMove(slot, to)
}

// BeginMove announces that a slot moves to another master. Until EndMove the old one serves
// the keys that it has and answers ASK for the others; commands with keys on both sides get
// TRYAGAIN.
func (c *RedisCluster) BeginMove(slot int, to *RedisServer) {
	c.t.Helper()
	from, number := c.Node(slot), strconv.Itoa(slot)
	c.must(to, "CLUSTER", "SETSLOT", number, "IMPORTING", c.id(from))
	c.must(from, "CLUSTER", "SETSLOT", number, "MIGRATING", c.id(to))
}

// MoveKeys moves keys of a slot that is on its way, and returns how many there were.
func (c *RedisCluster) MoveKeys(to *RedisServer, keys ...string) int {
	c.t.Helper()
	if len(keys) == 0 {
		return 0
	}
	from := c.Node(Slot(keys[0]))
	args := []string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.port), "", "0",
		strconv.FormatInt(patience.Milliseconds(), 10), "AUTH2", ownUser, ownPassword, "KEYS"}
	if c.must(from, append(args, keys...)...) == "NOKEY" {
		return 0
	}
	return len(keys)
}

// EndMove moves the keys that a slot still has and completes what BeginMove began.
func (c *RedisCluster) EndMove(slot int, to *RedisServer) {
	c.t.Helper()
	from, number := c.Node(slot), strconv.Itoa(slot)
	for {
		reply, _ := c.must(from, "CLUSTER", "GETKEYSINSLOT", number, "100").([]any)
		keys := make([]string, len(reply))
		for i, k := range reply {
			keys[i] = fmt.Sprint(k)
		}
		if c.MoveKeys(to, keys...) == 0 {
			break
		}
	}
	// The new owner first: were it the old one, nobody would have the slot in between.
	c.must(to, "CLUSTER", "SETSLOT", number, "NODE", c.id(to))
	c.must(from, "CLUSTER", "SETSLOT", number, "NODE", c.id(to))
	c.WaitForMaster(slot, from)
}
