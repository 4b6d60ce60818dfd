package testserver_test

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// asVictim makes the test binary a test that starts a server and is killed.
const asVictim = "HOLDFAST_TESTSERVER_VICTIM"

func TestDiesWithTheTestBinary(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a child with its parent")
	}
	if os.Getenv(asVictim) != "" {
		fmt.Printf("\npid %d\n", plain(t).PID())
		select {}
	}
	t.Parallel()
	testserver.Need(t, cmp.Or(os.Getenv("HOLDFAST_REDIS_SERVER"), "redis-server"))
	victim := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=1m")
	victim.Env = append(os.Environ(), asVictim+"=1", "TMPDIR="+t.TempDir())
	victim.Stderr = os.Stderr
	out, err := victim.StdoutPipe()
	if err == nil {
		err = victim.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		if id, ok := strings.CutPrefix(lines.Text(), "pid "); ok {
			pid, _ = strconv.Atoi(id)
		}
	}
	if pid == 0 || !alive(pid) {
		t.Errorf("the server %d does not run", pid)
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait()
	eventually(t, "the server is gone", func() bool { return !running(pid) })
}

// running is false for a process that is dead, even if nobody has asked how it ended: in a
// container there may be no one who does.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(after, "Z")
}
