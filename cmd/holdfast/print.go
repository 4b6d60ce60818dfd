package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// print writes v as JSON, or what text writes, as --output says. It writes once, so that a
// failure is noticed and nothing half-formatted is left behind.
func (a *app) print(v any, text func(io.Writer)) error {
	var b bytes.Buffer
	if a.output == "json" {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err != nil {
			return &failure{exitOutput, err, ""}
		}
		b = *bytes.NewBuffer(escapeJSON(b.Bytes()))
	} else {
		text(&b)
	}
	if _, err := a.out.Write(b.Bytes()); err != nil {
		return &failure{exitOutput, fmt.Errorf("output could not be written: %w", err), ""}
	}
	return nil
}

// table writes rows in columns. Cells are made printable.
func table(w io.Writer, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				io.WriteString(tw, "\t")
			}
			io.WriteString(tw, printable(cell))
		}
		io.WriteString(tw, "\n")
	}
	tw.Flush()
}

// printable replaces what could steer a terminal or reorder a line: owner labels, names and
// engines' messages are written by others.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}

// escapeJSON escapes the characters that printable replaces and encoding/json lets through.
func escapeJSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out = utf8.AppendRune(out, r)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return out
}

// clock writes a time for people, or a dash for none.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.RFC3339)
}
