package filelock_test

import (
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/filelock"
)

// hostile are names that a naive mapping to files would let out of the folder, or onto one
// another.
var hostile = []string{
	"a", "A", "..", ".", "/", "../..", "../../etc/passwd", "/etc/passwd", `\`, `..\..\x`, "a/b", "a_b", "a\\b", "a b",
	"CON", "con", "nul.txt", "COM1", "aux.", "a.", "a ", " a", "-", "--", "%2e%2e", "a:b", "a*?<>|\"", "~", "$HOME", "`id`",
	"é", "e\u0301", "\u1e9b\u0323", "🔒", "🔒🔓", "ß", "SS", "ss", "K", "\u212a", "\u202egpj", ".hidden", "breaks.log", "members",
	strings.Repeat("x", 512), strings.Repeat("x", 511), strings.Repeat("x", 40), strings.Repeat("x", 40) + "y",
	strings.Repeat("../", 170), strings.Repeat("🔒", 128), strings.Repeat("A", 512),
}

func TestHostileNames(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "locks")
	e, other := open(t, folder), open(t, folder)
	seen := make(map[string]string)
	for _, name := range hostile {
		if err := driver.CheckName(name); err != nil {
			t.Fatalf("%q is no name: %v", name, err)
		}
		file := filelock.FileName(name)
		if len(file) > 200 || file != strings.ToLower(file) || file[0] == '.' || file != filepath.Base(file) || strings.Trim(file, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
			t.Errorf("%q is in file %q", name, file)
		}
		if twin, dup := seen[file]; dup {
			t.Errorf("%q and %q are in one file", name, twin)
		}
		seen[file] = name
	}
	claims := make(map[string]driver.Claim)
	for _, name := range hostile { // all at once: no two of them are one lock
		r := request(name)
		claims[name] = r.Claim(acquire(t, e, r))
	}
	for _, name := range hostile {
		_, err := other.Acquire(patient(t), request(name))
		wantKind(t, err, driver.Held)
	}
	infos, err := other.List(patient(t), "", 1000)
	if err != nil || len(infos) != len(hostile) {
		t.Fatalf("List has %d names and error %v, want %d", len(infos), err, len(hostile))
	}
	for i := 1; i < len(infos); i++ {
		if infos[i-1].Name >= infos[i].Name {
			t.Errorf("List is not in order: %q before %q", infos[i-1].Name, infos[i].Name)
		}
	}
	for _, name := range hostile {
		release(t, e, claims[name])
	}
	if entries, _ := os.ReadDir(filepath.Dir(folder)); len(entries) != 1 {
		t.Errorf("something left the folder: %v", entries)
	}
	if n := e.OpenFiles(); n > filelock.MaxIdle {
		t.Errorf("%d files are kept open", n)
	}
}

func TestPrefixOfNameIsPrefixOfFile(t *testing.T) {
	for _, name := range hostile {
		for i := range len(name) + 1 {
			if !filelock.MayBelong(filelock.FileName(name), name[:i]) {
				t.Errorf("List with prefix %q would miss %q", name[:i], name)
			}
		}
	}
}

func TestURL(t *testing.T) {
	scheme, ok := driver.Lookup("file")
	if !ok {
		t.Fatal("scheme file is not registered")
	}
	folder := t.TempDir()
	for _, good := range []string{"file://" + folder, "file://localhost" + folder + "/x", "file:" + folder} {
		u, err := url.Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		e, err := scheme.Open(t.Context(), u)
		if err != nil {
			t.Errorf("%s: %v", good, err)
			continue
		}
		if got := e.Capabilities().Instance; !strings.HasPrefix(got, folder) {
			t.Errorf("%s has folder %s", good, got)
		}
		e.Close()
	}
	for _, bad := range []string{
		"file://", "file:///", "file://host/x", "file://C:/x", "file:locks", "file:./locks", "file://" + folder + "?mod=1",
		"file://user@localhost/x", "file://" + folder + "#x", "file:///a%00b",
	} {
		u, err := url.Parse(bad)
		if err != nil {
			continue
		}
		e, err := scheme.Open(t.Context(), u)
		if err == nil {
			t.Errorf("%s was opened", bad)
			e.Close()
			continue
		}
		if e != nil {
			t.Errorf("%s: an engine beside the error", bad)
		}
		wantKind(t, err, driver.Invalid)
	}
	if got := filelock.FolderOf("/C:/locks", "windows"); got != "C:/locks" {
		t.Errorf("on Windows the folder is %q", got)
	}
}

func TestDefaultFolder(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("has no XDG folders")
	}
	t.Setenv("HOME", "/home/u")
	for env, want := range map[string]string{
		"": "/home/u/.local/state/holdfast", "relative": "/home/u/.local/state/holdfast", "/state": "/state/holdfast",
	} {
		t.Setenv("XDG_STATE_HOME", env)
		if got, err := filelock.DefaultFolder(); got != want || err != nil {
			t.Errorf("with %q: %q, %v", env, got, err)
		}
	}
	t.Setenv("HOME", "")
	t.Setenv("XDG_STATE_HOME", "")
	if _, err := filelock.DefaultFolder(); err == nil {
		t.Error("a folder without a home")
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string]driver.Kind{
		"": driver.Invalid, file: driver.Invalid, file + "/below": driver.Unavailable,
	} {
		e, err := filelock.Open(folder, filelock.Config{})
		if e != nil || err == nil {
			t.Fatalf("folder %q was opened", folder)
		}
		wantKind(t, err, want)
		if folder != "" && !strings.Contains(err.Error(), file) {
			t.Errorf("error does not name the file: %v", err)
		}
	}
	_, err := filelock.Open(t.TempDir(), filelock.Config{Mode: 0o070})
	wantKind(t, err, driver.Invalid)
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("has no permission bits")
	}
	for mode, want := range map[os.FileMode][2]os.FileMode{0: {0o700, 0o600}, 0o770: {0o770, 0o660}} {
		folder := filepath.Join(t.TempDir(), "locks")
		e, err := filelock.Open(folder, filelock.Config{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		acquire(t, e, request("a"))
		for path, want := range map[string]os.FileMode{
			folder: want[0], filepath.Join(folder, "names"): want[0], filepath.Join(folder, "members"): want[0],
			e.PathOf("a"): want[1], e.MemberPath(): want[1],
		} {
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
			}
		}
	}
}
