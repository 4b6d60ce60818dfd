//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BenchmarkRunTrue and BenchmarkFlockTrue measure whole processes: `holdfast run x -- true`
// against `flock x true` of util-linux. The program is built for it: the test binary carries
// the tests along.
func BenchmarkRunTrue(b *testing.B) {
	bin := filepath.Join(b.TempDir(), "holdfast")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	env := append(os.Environ(), "HOLDFAST_URL="+fileURL(filepath.Join(b.TempDir(), "locks")))
	benchmarkProcess(b, env, bin, "run", "x", "--", "true")
}

func BenchmarkFlockTrue(b *testing.B) {
	if _, err := exec.LookPath("flock"); err != nil {
		b.Fatal(err) // make test installs it
	}
	benchmarkProcess(b, os.Environ(), "flock", filepath.Join(b.TempDir(), "x"), "true")
}

func benchmarkProcess(b *testing.B, env []string, name string, args ...string) {
	for b.Loop() {
		cmd := exec.Command(name, args...)
		cmd.Env = env
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
	}
}
