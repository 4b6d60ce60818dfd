package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// JSON writes the report as it is, indented; durations are whole nanoseconds. A rate that is no
// number, as a division by nothing gives, is written as 0: JSON has no word for it. The error is that
// of w.
func (r Report) JSON(w io.Writer) error {
	r.Rows = slices.Clone(r.Rows)
	for i := range r.Rows {
		r.Rows[i].Rate = finite(r.Rows[i].Rate)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// Read reads what JSON wrote. Fields that it does not know are an error: they come from another
// version, whose figures may mean something else.
func Read(from io.Reader) (Report, error) {
	dec := json.NewDecoder(from)
	dec.DisallowUnknownFields()
	var r Report
	if err := dec.Decode(&r); err != nil {
		return Report{}, fmt.Errorf("report: not a report in JSON: %w", err)
	}
	return r, nil
}
