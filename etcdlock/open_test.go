package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/etcdlock"
	"github.com/holdfast-go/holdfast/internal/testserver"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// wantError fails unless err is of that kind and outcome and says all of this.
func wantError(t *testing.T, err error, kind driver.Kind, outcome driver.Outcome, says ...string) {
	t.Helper()
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != kind || d.Outcome != outcome {
		t.Errorf("%v, want %v, %v", err, kind, outcome)
		return
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want it to say %q", err, text)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	t.Parallel()
	l := &lab{T: t}
	client := l.raw("127.0.0.1:1")
	for _, tc := range []struct {
		cfg  etcdlock.Config
		says []string
	}{
		{etcdlock.Config{Prefix: "a", RawKeys: true}, []string{"Prefix", "RawKeys", "choose one"}},
		{etcdlock.Config{Prefix: strings.Repeat("p", 129)}, []string{"Prefix", "129", "128"}},
		{etcdlock.Config{Prefix: "a\x00"}, []string{"Prefix", "control characters"}},
		{etcdlock.Config{Prefix: "\xff"}, []string{"Prefix", "UTF-8"}},
		{etcdlock.Config{Timeout: time.Millisecond, MaxTxnOps: 5}, []string{"Timeout is 1ms", "MaxTxnOps is 5"}},
	} {
		_, err := etcdlock.New(client, tc.cfg)
		wantError(t, err, driver.Invalid, driver.NotApplied, tc.says...)
	}
	_, err := etcdlock.New(nil, etcdlock.Config{})
	wantError(t, err, driver.Invalid, driver.NotApplied, "client is nil")
}

func TestOpenRefused(t *testing.T) {
	t.Parallel()
	noCert := filepath.Join(t.TempDir(), "none.pem")
	if err := os.WriteFile(noCert, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for raw, says := range map[string]string{
		"etcd://h/path":                               "it has a path",
		"etcd://user@h":                               "go together",
		"etcd://user:hunter2@h,,":                     "a host is empty",
		"etcd://h:99999":                              "65535",
		"etcd://user:hunter2@h?ca=x":                  `"ca" is not known`,
		"etcd://h?prefx=a":                            `"prefx" is not known`,
		"etcd://h?timeout=1ms":                        "Timeout is 1ms",
		"etcd://h?max-txn-ops=many":                   "whole number",
		"etcd://user:hunter2@h#x":                     "%23",
		"etcd:h":                                      "not of the form",
		"etcds://h?ca=/none/such.pem":                 `parameter "ca"`,
		"etcds://h?ca=" + url.QueryEscape(noCert):     "no certificate",
		"etcds://h?cert=a.pem":                        "go together",
		"etcds://h?cert=/none/a.pem&key=/none/b":      "no such file",
		"etcd://user:hunter2@h\x7f":                   "cannot be read",
		"etcd://h?prefix=" + strings.Repeat("p", 200): "128",
	} {
		_, err := etcdlock.Open(t.Context(), raw, etcdlock.Config{})
		wantError(t, err, driver.Invalid, driver.NotApplied, says)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestOpen(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{})
	addr := l.cluster.Addrs()[0]
	for _, prefix := range []string{"", "?prefix=jobs/", "?prefix="} {
		hf, err := holdfast.Open(l.patience(), "etcd://"+addr+prefix, holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		lease := l.lock(hf, "a/b%2F")
		infos, err := hf.List(l.patience(), "a/", 10)
		if err != nil || len(infos) != 1 || infos[0].Name != "a/b%2F" {
			t.Errorf("list: %+v, %v", infos, err)
		}
		l.unlock(lease)
		if err := hf.Close(); err != nil {
			t.Error(err)
		}
	}
	// What an engine says of its cluster has no password.
	e, err := etcdlock.Open(l.patience(), "etcd://"+addr+",127.0.0.1:1", etcdlock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if got, want := e.Capabilities().Instance, addr+",127.0.0.1:1"; got != want {
		t.Errorf("instance is %q, want %q", got, want)
	}

	_, err = etcdlock.Open(l.patience(), "etcd://127.0.0.1:1?timeout=300ms", etcdlock.Config{})
	wantError(t, err, driver.Unavailable, driver.NotApplied, "127.0.0.1:1")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err = etcdlock.Open(ctx, "etcd://"+addr, etcdlock.Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("under a done context: %v", err)
	}
}

func TestOpenTLS(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{TLS: &testserver.TLSOptions{ClientCert: true}, Current: true})
	ca, addr := l.cluster.CA(), l.cluster.Addrs()[0]
	mine := ca.Issue("me", false)
	files := "&cert=" + url.QueryEscape(mine.Cert) + "&key=" + url.QueryEscape(mine.Key)
	hf, err := holdfast.Open(l.patience(), "etcds://"+addr+"?ca="+url.QueryEscape(ca.File())+files, holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer hf.Close()
	l.unlock(l.lock(hf, "name"))

	other := testserver.NewCA(t)
	foreign := other.Issue("me", false)
	for says, raw := range map[string]string{
		"wrong authority":      "etcds://" + addr + "?timeout=2s&ca=" + url.QueryEscape(other.File()) + files,
		"system's authorities": "etcds://" + addr + "?timeout=2s" + files,
		"no certificate":       "etcds://" + addr + "?timeout=2s&ca=" + url.QueryEscape(ca.File()),
		"foreign certificate": "etcds://" + addr + "?timeout=2s&ca=" + url.QueryEscape(ca.File()) +
			"&cert=" + url.QueryEscape(foreign.Cert) + "&key=" + url.QueryEscape(foreign.Key),
		"no TLS": "etcd://" + addr + "?timeout=2s",
	} {
		_, err := etcdlock.Open(l.patience(), raw, etcdlock.Config{})
		t.Log(says, ": ", err)
		wantError(t, err, driver.Unavailable, driver.NotApplied, addr, "TLS")
	}
	insecure, err := etcdlock.Open(l.patience(), "etcds://"+addr+"?insecure=on"+files, etcdlock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_ = insecure.Close()
}

func TestPermissions(t *testing.T) {
	l := newLab(t, testserver.EtcdOptions{Current: true})
	addr := l.cluster.Addrs()[0]
	admin := l.raw(addr)
	all, err := etcdlock.New(admin, etcdlock.Config{Prefix: "jobs/"})
	if err != nil {
		t.Fatal(err)
	}
	rule := all.Permissions("app")
	_ = all.Close()
	if want := "etcdctl role add app\netcdctl role grant-permission --prefix=true app readwrite \"jobs/\""; rule != want {
		t.Fatalf("permissions %q, want %q", rule, want)
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := l.patience()
	for _, args := range strings.Split(rule, "\n") {
		l.run(strings.Fields(strings.ReplaceAll(args, `"`, "")))
	}
	for _, user := range []string{"root", "app", "nobody"} {
		must(admin.UserAdd(ctx, user, "hunter2"))
	}
	must(admin.RoleAdd(ctx, "root"))
	must(admin.UserGrantRole(ctx, "root", "root"))
	must(admin.UserGrantRole(ctx, "app", "app"))
	must(admin.AuthEnable(ctx))

	open := func(user, password string) (*etcdlock.Engine, error) {
		return etcdlock.Open(l.patience(), fmt.Sprintf("etcd://%s:%s@%s?prefix=jobs/&timeout=20s", user, password, addr), etcdlock.Config{})
	}
	e, err := open("app", "hunter2")
	if err != nil {
		t.Fatal(err)
	}
	c := l.client(e, 6*time.Second)
	lease := l.lock(c, "name")
	l.outlives(lease, time.Now(), 6*time.Second)
	if _, err := e.Break(ctx, driver.BreakRequest{Name: "name", By: "me", Reason: "test"}); err != nil {
		t.Errorf("break: %v", err)
	}
	l.ends(lease)
	l.finds(e, driver.LevelOK, "permissions", "")

	_, err = open("app", "hunter3")
	wantError(t, err, driver.Unavailable, driver.NotApplied, "password")
	if err != nil && strings.Contains(err.Error(), "hunter3") {
		t.Errorf("the error shows the password: %v", err)
	}
	_, err = open("nobody", "hunter2")
	wantError(t, err, driver.Unavailable, driver.NotApplied, "permission denied", "Engine.Permissions")
	nobody, err := etcdlock.New(l.login(addr, "nobody", "hunter2"), etcdlock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	_, err = nobody.Acquire(ctx, driver.Request{Name: "name", Mode: driver.Exclusive, TTL: time.Second, Token: newToken(), Span: 1, Wait: true})
	wantError(t, err, driver.Unavailable, driver.NotApplied, "permission denied", "Engine.Permissions")
	l.finds(nobody, driver.LevelProblem, "permissions", "grant-permission")
}

// login returns a client of that user.
func (l *lab) login(addr, user, password string) *clientv3.Client {
	l.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Username: user, Password: password, Logger: zap.NewNop()})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	return c
}

// run runs a command of etcdctl as it is printed.
func (l *lab) run(words []string) {
	l.Helper()
	cmd := exec.Command(testserver.Need(l, words[0]), append([]string{"--endpoints=" + l.cluster.Addrs()[0]}, words[1:]...)...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	if out, err := cmd.CombinedOutput(); err != nil {
		l.Fatalf("%q: %v\n%s", words, err, out)
	}
}

// finds fails unless there is, soon, a finding of that level and subject that says so: what is
// found while members elect is another matter.
func (l *lab) finds(e *etcdlock.Engine, level driver.Level, subject, says string) {
	l.Helper()
	l.eventually(fmt.Sprintf("a finding %v %s that says %q", level, subject, says), func() bool {
		d, err := e.Diagnose(l.patience(), 10*time.Second)
		if err != nil {
			l.Logf("Diagnose: %v", err)
			return false
		}
		for _, f := range d.Findings {
			if f.Level == level && f.Subject == subject && strings.Contains(f.Text+" "+f.Remedy, says) {
				return true
			}
		}
		l.Logf("%+v", d)
		return false
	})
}

func TestDiagnose(t *testing.T) {
	l := newLab(t, threeMembers)
	members := l.cluster.Members()
	e := l.engine(members[0].Addr())
	l.finds(e, driver.LevelOK, "members", "1 more may fail")
	l.finds(e, driver.LevelOK, "permissions", "")
	l.finds(e, driver.LevelOK, "alarms", "none")
	l.finds(e, driver.LevelNote, "safety", "majority")
	resp, err := l.raw(members[0].Addr()).Get(l.patience(), "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count != 0 {
		t.Errorf("it left %d keys behind: %v", resp.Count, err)
	}
	members[2].Kill()
	l.cluster.Leader() // it may have been the one
	l.finds(e, driver.LevelWarning, "members", "2 of 3")
	members[1].Kill()
	_, err = e.Diagnose(l.patience(), time.Second)
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != driver.Unavailable {
		t.Errorf("without a majority: %v", err)
	}
	single := newSingle(l)
	l.finds(single, driver.LevelWarning, "members", "there is one")
	l.finds(single, driver.LevelNote, "version", "3.4")
}

// newSingle returns an engine on a member of its own.
func newSingle(l *lab) *etcdlock.Engine {
	return l.engine(testserver.Etcd(l, testserver.EtcdOptions{}).Addrs()...)
}
