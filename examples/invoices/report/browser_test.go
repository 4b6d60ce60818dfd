//go:build unix

package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/examples/invoices/report"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// box is where something is on the screen, in pixels.
type box struct{ Left, Right, Width, Height float64 }

// measured is what a page looks like, by a script that is in the test's copy of it only.
type measured struct {
	Title      string
	Width      float64 // of the window, without its scroll bar
	Content    float64 // as wide as what is in it
	Background string
	Guests     int // elements that the page never has
	Tables     int // below plots, with rows, when they are opened
	Plots      []struct {
		Name, Description string
		Box               box
		Shapes            []struct {
			Class, Stroke, Fill string
			Box                 box
		}
		Failovers []box
		Texts     []box
		Ticks     []box
	}
}

const measure = `<script>
const box = e => { const b = e.getBoundingClientRect(); return {Left: b.left, Right: b.right, Width: b.width, Height: b.height} }
const all = (e, what) => [...e.querySelectorAll(what)]
for (const d of all(document, 'details')) d.open = true
const result = {
	Title: document.title, Width: document.documentElement.clientWidth, Content: document.documentElement.scrollWidth,
	Background: getComputedStyle(document.body).backgroundColor,
	Guests: all(document, 'script, img, iframe, object, foreignObject, [onload], [onerror]').length - 1,
	Tables: all(document, 'details table').filter(t => box(t).Height > 0 && t.rows.length > 1).length,
	Plots: all(document, 'svg.plot').map(s => {
		const [name, description] = s.getAttribute('aria-labelledby').split(' ').map(id => document.getElementById(id).textContent)
		return {
			Name: name, Description: description, Box: box(s),
			Shapes: all(s, 'path').map(p => { const c = getComputedStyle(p); return {Class: p.getAttribute('class'), Stroke: c.stroke, Fill: c.fill, Box: box(p)} }),
			Failovers: all(s, 'line.failover').map(box), Texts: all(s, 'text').map(box), Ticks: all(s, 'text.tick').map(box),
		}
	}),
}
const pre = document.createElement('pre')
pre.id = 'measured'
pre.textContent = JSON.stringify(result)
document.body.append(pre)
</script>`

// visit is a page that was opened: what it looks like, what it wrote to the console, and what it asked for.
type visit struct {
	measured
	console []string
	asked   []string
}

// open opens the page in a browser of its own, for which the only way to anywhere is a proxy that refuses.
func open(t *testing.T, page string, width int, dark bool) visit {
	t.Helper()
	program := testserver.Need(t, "chromium-headless-shell")
	var mu sync.Mutex
	var v visit
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		v.asked = append(v.asked, r.Method+" "+r.URL.String())
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	folder := t.TempDir()
	file := filepath.Join(folder, "page.html")
	page = strings.Replace(page, "style-src", "script-src 'unsafe-inline'; style-src", 1)
	page = strings.Replace(page, "</body>", measure+"</body>", 1)
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	scheme := "1" // light
	if dark {
		scheme = "0"
	}
	dom, log := browse(t, program, "--user-data-dir="+filepath.Join(folder, "profile"), "--proxy-server="+proxy.Listener.Addr().String(),
		"--proxy-bypass-list=<-loopback>", "--window-size="+strconv.Itoa(width)+",1000", "--blink-settings=preferredColorScheme="+scheme,
		"file://"+file)
	for _, line := range strings.Split(log, "\n") {
		if strings.Contains(line, "CONSOLE") {
			v.console = append(v.console, line)
		}
	}
	found := regexp.MustCompile(`(?s)<pre id="measured">(.*?)</pre>`).FindStringSubmatch(dom)
	if found == nil {
		t.Fatalf("nothing was measured; the browser said\n%s", log)
	}
	if err := json.Unmarshal([]byte(html.UnescapeString(found[1])), &v.measured); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return v
}

// browse runs the browser until it has written the page as it is after its scripts.
func browse(t *testing.T, program string, args ...string) (dom, log string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // machines are busy
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--enable-logging=stderr", "--dump-dom",
	}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Browsers are several processes, and Debian starts them from a script: all are in one group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	return stdout.String(), stderr.String()
}

// TestPageInABrowser: the plots are there as rendered, on a wide screen and a phone, in light and dark,
// and the page needs nothing from elsewhere.
func TestPageInABrowser(t *testing.T) {
	page := rendered(t, sample(), report.Report.HTML)
	for _, screen := range []struct {
		name       string
		width      int
		dark       bool
		background string
	}{
		{"Wide", 1200, false, "rgb(253, 253, 252)"},
		{"Phone", 360, true, "rgb(21, 24, 27)"},
	} {
		t.Run(screen.name, func(t *testing.T) {
			t.Parallel()
			v := open(t, page, screen.width, screen.dark)
			v.check(t)
			if v.Background != screen.background {
				t.Errorf("the background is %s, not %s", v.Background, screen.background)
			}
			if len(v.Plots) != 2+2+4*3 { // none and local have no holds
				t.Errorf("%d plots", len(v.Plots))
			}
			failovers := 0
			for _, p := range v.Plots {
				failovers += len(p.Failovers)
			}
			if failovers != 9 {
				t.Errorf("a failover is marked in %d plots", failovers)
			}
		})
	}
}

// check is what holds for every page.
func (v visit) check(t *testing.T) {
	t.Helper()
	if len(v.console) > 0 || len(v.asked) > 0 || v.Guests != 0 {
		t.Errorf("console: %q, asked for: %q, elements that do not belong there: %d", v.console, v.asked, v.Guests)
	}
	if v.Title != "Invoice numbers from a cluster, strategy by strategy" {
		t.Errorf("the title is %q", v.Title)
	}
	if v.Content > v.Width {
		t.Errorf("the page is %v wide in a window of %v", v.Content, v.Width)
	}
	if v.Tables != len(v.Plots) {
		t.Errorf("%d tables for %d plots", v.Tables, len(v.Plots))
	}
	for i, p := range v.Plots {
		if p.Name == "" || p.Description == "" {
			t.Errorf("plot %d is named %q, described %q", i, p.Name, p.Description)
		}
		for _, s := range p.Shapes {
			seen := s.Fill != "none" && s.Box.Width > .1 && s.Box.Height > .1 || s.Stroke != "none" && s.Box.Width >= 1 // which may be level
			if !seen || s.Box.Left < p.Box.Left-1 || s.Box.Right > p.Box.Right+1 {
				t.Errorf("plot %d, %s: %+v in %+v", i, p.Name, s, p.Box)
			}
		}
		for _, f := range p.Failovers {
			if f.Height < 10 || f.Left < p.Box.Left || f.Right > p.Box.Right+1 {
				t.Errorf("plot %d: the failover is at %+v in %+v", i, f, p.Box)
			}
		}
		for _, text := range p.Texts {
			if text.Width < 1 || text.Left < 0 || text.Right > v.Width {
				t.Errorf("plot %d: a text is at %+v in a window of %v", i, text, v.Width)
			}
		}
		slices.SortFunc(p.Ticks, func(a, b box) int { return int(a.Left - b.Left) })
		for j := range p.Ticks[1:] {
			if p.Ticks[j].Right >= p.Ticks[j+1].Left {
				t.Errorf("plot %d: the times below it run into each other: %+v", i, p.Ticks)
			}
		}
	}
}

// TestHostilePageInABrowser: what stands in a report is text for a browser, too.
func TestHostilePageInABrowser(t *testing.T) {
	t.Parallel()
	r := sample()
	for i, text := range hostile {
		row := r.Rows[3]
		row.Strategy, row.Engine, row.DependsOn, row.Note = text, text, text, text
		row.Failover = &report.Failover{What: text, At: time.Duration(i) * time.Second}
		r.Rows = append(r.Rows, row)
	}
	r.Machine, r.Command = strings.Join(hostile, " "), strings.Join(hostile, " ")
	open(t, rendered(t, r, report.Report.HTML), 360, false).check(t)
}

// TestTheBrowserIsWatched: a page that does ask for something, and complains, is noticed.
func TestTheBrowserIsWatched(t *testing.T) {
	t.Parallel()
	page := rendered(t, sample(), report.Report.HTML)
	page = strings.Replace(page, "default-src 'none'; ", "", 1)
	page = strings.Replace(page, "img-src data:", "img-src *", 1)
	page = strings.Replace(page, "</main>", `<img src="http://holdfast.invalid/x.png"><div style="width:2000px">wide</div><script>console.error("planted")</script></main>`, 1)
	v := open(t, page, 360, false)
	if !slices.ContainsFunc(v.asked, func(s string) bool { return strings.Contains(s, "x.png") }) {
		t.Errorf("the picture is not among %q", v.asked)
	}
	if !slices.ContainsFunc(v.console, func(s string) bool { return strings.Contains(s, "planted") }) {
		t.Errorf("the error is not among %q", v.console)
	}
	if v.Guests != 2 || v.Content < 2000 {
		t.Errorf("%d elements that do not belong there, %v wide", v.Guests, v.Content)
	}
}
