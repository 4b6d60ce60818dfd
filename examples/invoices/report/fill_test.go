package report_test

import (
	"os"
	"strings"
	"testing"
)

const end = "<!-- end of measured -->\n"

// TestFill: each place gets its rows and keeps its marks, so that it can be filled again.
func TestFill(t *testing.T) {
	page := "before\n<!-- measured -->\nold\n" + end + "between\n<!-- measured mutex/postgres mutex/redlock -->\n" + end +
		"<!-- measured sequence -->\n" + end + "<!-- measured mutex/etcd -->\nkept\n" + end + "after\n"
	r := sample()
	once, err := r.Fill(page)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(once, end)
	for i, want := range []string{
		"none local sequence on sentinel mutex on sentinel mutex on redlock mutex on postgres",
		"mutex on redlock mutex on postgres", "sequence on sentinel", "", "",
	} {
		var titles []string
		for line := range strings.Lines(parts[i]) {
			if cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |"); strings.HasPrefix(line, "| ") && cell != "strategy" {
				titles = append(titles, cell)
			}
		}
		if got := strings.Join(titles, " "); got != want {
			t.Errorf("place %d has %q, want %q", i, got, want)
		}
	}
	if !strings.HasPrefix(once, "before\n<!-- measured -->\n| strategy") || strings.Contains(once, "old") ||
		!strings.Contains(once, "\nbetween\n") || !strings.Contains(once, "<!-- measured mutex/etcd -->\nkept\n") || parts[4] != "after\n" {
		t.Errorf("what was not to be changed was:\n%s", once)
	}
	if n := strings.Count(once, "Again with"); n != 1 {
		t.Errorf("where the figures come from is said %d times", n)
	}
	if twice, err := r.Fill(once); err != nil || twice != once {
		t.Errorf("filled again, it is another page (%v):\n%s", err, twice)
	}
}

func TestFillRefuses(t *testing.T) {
	for _, page := range []string{
		"", "no place", "<!-- measured -->\n", end, "<!-- measured -->\n<!-- measured none -->\n" + end,
		"<!-- measured -->\n" + end + end, "<!-- measured-->\n" + end, "<!-- measured mutex (redis) -->\n" + end, "<!-- measured mutex/ -->\n" + end,
	} {
		if got, err := sample().Fill(page); err == nil || got != "" {
			t.Errorf("%q: %q, %v", page, got, err)
		}
	}
}

// TestPagesCanBeFilled: the places for figures in the documentation are as Fill wants them.
func TestPagesCanBeFilled(t *testing.T) {
	page, err := os.ReadFile("../../../docs/article.md")
	if err != nil {
		t.Fatal(err)
	}
	if filled, err := sample().Fill(string(page)); err != nil || !strings.Contains(filled, "made up") {
		t.Errorf("%v", err)
	}
}
