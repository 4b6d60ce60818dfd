package redislock

import (
	"strconv"
	"strings"
	"sync"
)

const slots = 16384

// slotOf returns the Cluster slot of a key: CRC16 (XMODEM) of what stands between the first {
// and the next }, or of the whole key where there is no such part or it is empty. See the
// Redis Cluster specification, "Hash tags".
func slotOf(key string) int {
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if j := strings.IndexByte(key[i+1:], '}'); j > 0 {
			key = key[i+1 : i+1+j]
		}
	}
	crc := uint16(0)
	for i := range len(key) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^key[i]]
	}
	return int(crc) % slots
}

// crcTable is what each byte does to the sum.
var crcTable = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}()

// tags holds, for each slot, a short hash tag that lies in it: companions of a key have to be
// in its slot, and the key's own tag, if it has one, may be anything.
var tags = sync.OnceValue(func() *[slots]string {
	var t [slots]string
	for i, left := 0, slots; left > 0; i++ {
		tag := strconv.FormatInt(int64(i), 36)
		if s := slotOf(tag); t[s] == "" {
			t[s] = "{" + tag + "}"
			left--
		}
	}
	return &t
})
