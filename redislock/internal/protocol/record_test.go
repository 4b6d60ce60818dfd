package protocol

import "testing"

func TestRecord(t *testing.T) {
	const text = "v1 0a1b EPOCH 0 40 50 60 30000 5 my group"
	r, err := ParseRecord(text)
	want := Record{
		Text: text, Epoch: "EPOCH", Constants: "30000 5 my group",
		Floor: 40, Mark: 50, Since: 60, ReplID: "master_replid:0a1b\r",
	}
	if err != nil || *r != want {
		t.Fatalf("ParseRecord = %+v, %v", r, err)
	}
	for _, bad := range []string{"", "v1", "v2 0a1b EPOCH 0 40 50 60 30000 5 g", "v1 0a1b EPOCH x 40 50 60 30000 5 g", "v1 0a1b EPOCH 0 40 50 60"} {
		if _, err := ParseRecord(bad); err == nil {
			t.Errorf("ParseRecord(%q) has no error", bad)
		}
	}
	graced, unseeded := want, want
	graced.Start, unseeded.Epoch = 1, "-fword"
	if !r.Serves("EPOCH", "30000 5 my group") || r.Serves("OTHER", "30000 5 my group") || r.Serves("EPOCH", "30000 3 my group") ||
		graced.Serves("EPOCH", "30000 5 my group") || unseeded.Serves("-fword", "30000 5 my group") {
		t.Error("Serves is wrong")
	}
	r.Floor = 55
	for n, grants := range map[int64]bool{50: false, 55: false, 56: true, mostNumber: true, mostNumber + 1: false} {
		if r.Grants(n) != grants {
			t.Errorf("Grants(%d) = %v with floor 55 and mark 50", n, !grants)
		}
	}
	r.Floor = 40
	if r.Grants(50) || !r.Grants(51) {
		t.Error("Grants does not keep to the mark")
	}
}
