package holdfast_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestRootModuleRequiresLittle: users of the library inherit nothing but golang.org/x.
func TestRootModuleRequiresLittle(t *testing.T) {
	for _, line := range strings.Split(read(t, "go.mod"), "\n") {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "require"))
		if regexp.MustCompile(`^\S+\.\S+/\S+ v\d`).MatchString(line) && !strings.HasPrefix(line, "golang.org/x/") {
			t.Errorf("go.mod requires %s", line)
		}
		if strings.HasPrefix(line, "tool") || strings.HasPrefix(line, "replace") {
			t.Errorf("go.mod has the line %q", line)
		}
	}
}

// forbidden says which imports must not occur in the files of a folder, and why.
var forbidden = []struct{ folder, imports, why string }{
	{".", `^github\.com/holdfast-go/holdfast/\w+lock$`, "the core must not know the engines"},
	{".", `^github\.com/holdfast-go/holdfast/fence$`, "a lock needs no check at a resource of its own"},
	{"fence", `^github\.com/holdfast-go/holdfast/\w+lock$`, "resources must not know the engines"},
	{"driver", `^github\.com/holdfast-go/holdfast$`, "engines must not need the core"},
	{"memlock", `^github\.com/holdfast-go/holdfast$`, "engines must not need the core"},
	{"filelock", `^github\.com/holdfast-go/holdfast$`, "engines must not need the core"},
	{"mysqllock", `^github\.com/holdfast-go/holdfast$`, "engines must not need the core"},
	{".", `^testing$`, "users must not link the testing package"},
	{"memlock", `^testing$`, "users must not link the testing package"},
	{"filelock", `^testing$`, "users must not link the testing package"},
	{"mysqllock", `^testing$`, "users must not link the testing package"},
	{"driver", `^testing$`, "users must not link the testing package"},
	{".", `^net/http$`, "a lock needs no web server"},
}

func TestForbiddenImports(t *testing.T) {
	for _, rule := range forbidden {
		files, err := filepath.Glob(filepath.Join(rule.folder, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files in %s (%v)", rule.folder, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, imp := range f.Imports {
				path, _ := strconv.Unquote(imp.Path.Value)
				if regexp.MustCompile(rule.imports).MatchString(path) {
					t.Errorf("%s imports %s: %s", file, path, rule.why)
				}
			}
		}
	}
}

// TestPackagesHaveAComment: every package says what it is for.
func TestPackagesHaveAComment(t *testing.T) {
	documented := map[string]bool{}
	walk(t, ".go", func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(path)
		documented[dir] = documented[dir] || f.Doc.Text() != ""
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package in %s has no comment", dir)
		}
	}
}

// apart are the modules that `go test work` must not reach, and why.
var apart = map[string]string{
	"./etcdlock/etcdserver": "compiling etcd takes minutes: scripts/install builds it once",
}

// TestModulesAreInTheWorkspace: `go test work` reaches every other module.
func TestModulesAreInTheWorkspace(t *testing.T) {
	work := read(t, "go.work")
	walk(t, "go.mod", func(path string) {
		dir := "./" + filepath.ToSlash(filepath.Dir(path))
		if dir == "./." {
			dir = "."
		}
		if uses := strings.Contains(work, "\t"+dir+"\n"); uses != (apart[dir] == "") {
			t.Errorf("go.work uses %s: %v %s", dir, uses, apart[dir])
		}
	})
}

func TestChangelogHasAnUnreleasedSection(t *testing.T) {
	if !strings.Contains(read(t, "CHANGELOG.md"), "\n## Unreleased\n") {
		t.Error("CHANGELOG.md has no section for what is not released yet")
	}
}

// TestPagesShowCompiledCode: every Go block of these pages stands in a test that the compiler has
// seen.
func TestPagesShowCompiledCode(t *testing.T) {
	for page, test := range map[string]string{"README.md": "example_test.go", "docs/article.md": "article_test.go"} {
		compiled := squeeze(read(t, test))
		blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read(t, page), -1)
		if len(blocks) == 0 {
			t.Errorf("%s shows no code", page)
		}
		for _, b := range blocks {
			if !strings.Contains(compiled, squeeze(b[1])) {
				t.Errorf("%s: not in %s:\n%s", page, test, b[1])
			}
		}
	}
}

// TestFilesStaySmall: a file is one concept.
func TestFilesStaySmall(t *testing.T) {
	const most = 600
	walk(t, ".go", func(path string) {
		if n := strings.Count(read(t, path), "\n"); n > most {
			t.Errorf("%s has %d lines, more than %d", path, n, most)
		}
	})
}

// TestLinksLeadSomewhere: relative links in the documentation name files that exist.
func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	walk(t, ".md", func(path string) {
		for _, m := range link.FindAllStringSubmatch(read(t, path), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	})
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// walk calls f with every file of the repository whose name ends in suffix.
func walk(t *testing.T, suffix string, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != "." {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(d.Name(), suffix) {
			f(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
