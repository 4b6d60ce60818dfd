package drivertest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sentence is an entry of the contract's lists.
type sentence struct{ name, text string }

var (
	entry   = regexp.MustCompile(`^\s*-\s+\[([a-z-]+)\]\s+(.*)$`)
	docLink = regexp.MustCompile(`\[([A-Z][A-Za-z.]*)\]`)
)

// sentences reads the list entries of the form "- [name] text" in the doc comment of a type.
func sentences(t *testing.T, file, typeName string) []sentence {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var all []sentence
	for _, d := range parsed.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE || g.Specs[0].(*ast.TypeSpec).Name.Name != typeName {
			continue
		}
		inside := false
		for line := range strings.Lines(g.Doc.Text()) {
			line = strings.TrimRight(line, "\n")
			if m := entry.FindStringSubmatch(line); m != nil {
				all, inside = append(all, sentence{m[1], m[2]}), true
			} else if inside = inside && strings.TrimSpace(line) != ""; inside {
				all[len(all)-1].text += " " + strings.TrimSpace(line)
			}
		}
	}
	for i := range all {
		all[i].text = strings.TrimRight(docLink.ReplaceAllString(all[i].text, "$1"), ";.")
	}
	return all
}

// TestEverySentence fails when the contract and the cases are not the same list. A sentence
// that was reworded needs a look at its case.
func TestEverySentence(t *testing.T) {
	contract := slices.Concat(
		sentences(t, "../engine.go", "Engine"),
		sentences(t, "../async.go", "AsyncReleaser"),
		sentences(t, "../pass.go", "Passer"),
		sentences(t, "../inspect.go", "Inspector"),
		sentences(t, "../values.go", "Values"),
		sentences(t, "../counts.go", "Counters"),
	)
	if len(contract) < 40 {
		t.Fatalf("found %d sentences in the contract: its form has changed", len(contract))
	}
	for i, s := range contract {
		if j := slices.IndexFunc(cases, func(c testCase) bool { return c.name == s.name }); j < 0 {
			t.Errorf("no case checks [%s] %s", s.name, s.text)
		} else if cases[j].sentence != s.text {
			t.Errorf("case %s checks\n%s\nand the contract says\n%s", s.name, cases[j].sentence, s.text)
		} else if j != i {
			t.Errorf("case %s is number %d, its sentence number %d", s.name, j, i)
		}
	}
	for _, c := range cases {
		if !slices.ContainsFunc(contract, func(s sentence) bool { return s.name == c.name }) {
			t.Errorf("case %s checks no sentence of the contract", c.name)
		}
	}
}

// TestSkipTable shows what a run prints for an engine that lacks something.
func TestSkipTable(t *testing.T) {
	got := skipTable("toy", 3, []skip{{"fifo", []string{"FIFO"}}, {"no-overtake", []string{"FIFO", "Shared"}}})
	want := "toy: 1 of 3 cases ran\n" +
		"skipped      not declared\n" +
		"fifo         FIFO\n" +
		"no-overtake  FIFO, Shared\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
