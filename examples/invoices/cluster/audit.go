package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
)

// findings is what is wrong with the numbers of the invoices.
type findings struct{ duplicates, gaps int }

// audit counts the numbers that were given more than once, and those that are missing between the first
// and the last. later counts those whose numbers were given after a moment: the second of a pair, and
// the one above a gap.
func audit(invoices []store.Invoice, after time.Time) (all, later findings) {
	sorted := slices.SortedFunc(slices.Values(invoices), func(a, b store.Invoice) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), a.Issued.Compare(b.Issued))
	})
	for n, i := range sorted {
		if n == 0 {
			continue
		}
		var f findings
		switch step := i.Number - sorted[n-1].Number; {
		case step == 0:
			f.duplicates = 1
		case step > 1:
			f.gaps = int(step - 1)
		}
		all.duplicates += f.duplicates
		all.gaps += f.gaps
		if !i.Issued.Before(after) {
			later.duplicates += f.duplicates
			later.gaps += f.gaps
		}
	}
	return all, later
}

// invoices returns all that the database holds.
func (d *database) invoices(ctx context.Context) ([]store.Invoice, error) {
	s, err := store.Open(ctx, d.url, 0)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	const page = 1000
	var all []store.Invoice
	for after := int64(0); ; after = all[len(all)-1].ID {
		list, err := s.List(ctx, after, page)
		if err != nil {
			return nil, err
		}
		if all = append(all, list...); len(list) < page {
			return all, nil
		}
	}
}

// compare returns an error where the database holds something else than clients were told.
func compare(invoices []store.Invoice, told map[string]int64) error {
	if len(invoices) != len(told) {
		return fmt.Errorf("the database holds %d invoices, clients were told of %d", len(invoices), len(told))
	}
	for _, i := range invoices {
		if n, ok := told[i.Key]; !ok || n != i.Number {
			return fmt.Errorf("%s has number %d in the database, its client was told %d", i.Key, i.Number, n)
		}
	}
	return nil
}
