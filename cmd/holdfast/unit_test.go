package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for raw, want := range map[string]string{
		"file:///var/lib/holdfast":           "file:///var/lib/holdfast",
		"redis://user:secret@h:1/0?x=secret": "redis://h:1/0",
		"redis://:sec/ret@h:1/0":             "redis://xxxxx",
		"redis://:sec?ret@h:1":               "redis://xxxxx",
		"redis://u:12/34@h":                  "redis://xxxxx",
		"redis://u:12?34@h":                  "redis://xxxxx",
		"redis://u:12#34@h":                  "redis://xxxxx",
		"etcd://a:1,b:2":                     "etcd://a:1,b:2",
		"redis://u:secret@a:1,b:2":           "redis://a:1,b:2",
		"pg://h/db?user=a@b&password=secret": "pg://xxxxx",
		"secret":                             "the engine",
		"://secret@h":                        "://xxxxx",
	} {
		if got := redact(raw); got != want {
			t.Errorf("redact(%q) = %q, want %q", raw, got, want)
		}
	}
}

func TestScrub(t *testing.T) {
	for rawURL, text := range map[string]string{
		"redis://user:secret@h:1/0":         "dial user:secret@h: no",
		"redis://user:sec%20ret@h:1/0":      "password sec ret is wrong, as is sec%20ret",
		"redis://:sec/ret@h":                "no port /ret in sec/ret",
		"pg://h/db?sslpassword=secret&x=no": "secret",
		"pg://h/db?sslpassword=se%63ret":    "secret",
		"redis://secret@h":                  "dial redis://secret@h: refused",
		"redis://h?password=sec%2Fret":      "bad password=sec%2Fret",
	} {
		if got := scrub(text, rawURL); strings.Contains(got, "sec") && !strings.Contains(got, hidden) || strings.Contains(got, "secret") {
			t.Errorf("scrub(%q, %q) = %q", text, rawURL, got)
		}
	}
	if got := scrub("all is well", "redis://a:l@h"); got != "all is well" {
		t.Errorf("a password of one letter took the text with it: %q", got)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü 漢":   "plain ü 漢",
		"\x1b[31mred": "�[31mred",
		"a\nb\tc\x7f": "a�b�c�",
		"\u009b31m":   "�31m",
		"\u202eevil":  "�evil",
		"bad\xff":     "bad�",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEscapeJSON(t *testing.T) {
	in := "{\n\"a\": \"ü\u009b\u202e\U000e0001\"\n}"
	want := "{\n\"a\": \"ü" + `\u009b\u202e\udb40\udc01` + "\"\n}"
	if got := string(escapeJSON([]byte(in))); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Every exit code is in the documentation, by its number and its name.
func TestExitCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "exit-codes.md"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "exitcodes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			found++
			code := spec.Values[0].(*ast.BasicLit).Value
			if row := "| " + code + " | `" + spec.Names[0].Name + "` |"; !strings.Contains(string(doc), row) {
				t.Errorf("docs/exit-codes.md has no row that begins with %s", row)
			}
		}
		return true
	})
	if found < 10 {
		t.Errorf("found %d exit codes only", found)
	}
}
