package main

import (
	"encoding/json"
	"math/bits"
	"time"
)

// A histogram counts durations in buckets less than 1 % wide.
const (
	fineBits = 7
	fine     = 1 << fineBits
	coarse   = 33 // up to 2^40 ns, about 18 minutes
)

type histogram struct {
	counts [coarse * fine]uint32
	n      uint64
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.n++
}

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < fine {
		return int(v)
	}
	shift := bits.Len64(v) - fineBits - 1
	return min((shift+1)*fine+int(v>>shift)-fine, coarse*fine-1)
}

// middleOf is the inverse of bucketOf, up to the width of a bucket.
func middleOf(bucket int) time.Duration {
	if bucket < fine {
		return time.Duration(bucket)
	}
	shift := bucket/fine - 1
	return time.Duration(uint64(fine+bucket%fine)<<shift + 1<<shift/2)
}

func (h *histogram) merge(other *histogram) {
	for i, c := range other.counts {
		h.counts[i] += c
	}
	h.n += other.n
}

// quantile is the duration below which the share q of them lies, 0 without any.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q * float64(h.n))
	var seen uint64
	for i, c := range h.counts {
		if seen += uint64(c); seen > rank {
			return middleOf(i)
		}
	}
	return middleOf(len(h.counts) - 1)
}

// MarshalJSON writes the buckets that are not empty.
func (h *histogram) MarshalJSON() ([]byte, error) {
	sparse := [][2]uint32{}
	for i, c := range h.counts {
		if c > 0 {
			sparse = append(sparse, [2]uint32{uint32(i), c})
		}
	}
	return json.Marshal(sparse)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *histogram) UnmarshalJSON(data []byte) error {
	var sparse [][2]uint32
	if err := json.Unmarshal(data, &sparse); err != nil {
		return err
	}
	*h = histogram{}
	for _, b := range sparse {
		h.counts[b[0]%uint32(len(h.counts))] += b[1]
		h.n += uint64(b[1])
	}
	return nil
}
