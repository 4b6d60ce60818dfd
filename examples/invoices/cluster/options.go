package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/holdfast-go/holdfast/examples/invoices/report"
)

// Bounds of the flags.
const (
	maxInstances = 32
	maxInvoices  = 1_000_000
	maxClients   = 64
)

// options are what the flags say.
type options struct {
	instances, invoices, clients int
	failover                     bool
	scenarios                    []scenario
	text, json, html, markdown   string // files, "-" for standard output, "" for none
	fill                         []string
	from                         string // the report that is written out again, "" to make one
	command                      string // that makes the report again
}

const usage = `usage: go run ./examples/invoices/cluster [flags]

Runs the invoices service in several processes, with every server that it needs, issues invoices,
and reports how each strategy did. With --failover something is broken when a third of the invoices
are issued.

engines:    %s
strategies: %s

`

// parse reads the flags, and reports everything that is wrong with them.
func parse(args []string, w io.Writer) (options, error) {
	o := options{command: strings.Join(append([]string{"go run ./examples/invoices/cluster"}, args...), " ")}
	f := flag.NewFlagSet("cluster", flag.ContinueOnError)
	f.SetOutput(w)
	f.Usage = func() {
		fmt.Fprintf(w, usage, strings.Join(engineNames(), ", "), strings.Join(strategyNames(), ", "))
		f.PrintDefaults()
	}
	f.IntVar(&o.instances, "instances", 8, fmt.Sprintf("`processes` of the service, 1 to %d", maxInstances))
	f.IntVar(&o.invoices, "invoices", 10_000, fmt.Sprintf("`number` of invoices in each row, 1 to %d", maxInvoices))
	f.IntVar(&o.clients, "clients", 4, fmt.Sprintf("`number` of requests that an instance has to answer at a time, 1 to %d", maxClients))
	engines := f.String("engine", "sentinel", "`engines` on which locks, sequences and counters live, separated by commas, or all")
	strategies := f.String("strategy", "all", "`strategies`, separated by commas, or all that there are for the engines")
	f.BoolVar(&o.failover, "failover", false, "break something in the middle of each row")
	f.StringVar(&o.text, "text", "-", "`file` for the report as text; - is standard output")
	f.StringVar(&o.json, "json", "", "`file` for the report as JSON")
	f.StringVar(&o.html, "html", "", "`file` for the report as one page with plots")
	f.StringVar(&o.markdown, "markdown", "", "`file` for the report's table in Markdown")
	fill := f.String("fill", "", "`pages` in Markdown, separated by commas, whose places for what is measured are filled in")
	f.StringVar(&o.from, "from", "", "`file` with a report as JSON: write that one out, and run nothing")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	var wrong []error
	check := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	check(f.NArg() > 0, "unexpected argument %q", f.Arg(0))
	check(o.instances < 1 || o.instances > maxInstances, "--instances is %d: it has to be 1 to %d", o.instances, maxInstances)
	check(o.invoices < 1 || o.invoices > maxInvoices, "--invoices is %d: it has to be 1 to %d", o.invoices, maxInvoices)
	check(o.clients < 1 || o.clients > maxClients, "--clients is %d: it has to be 1 to %d", o.clients, maxClients)
	if *fill != "" {
		o.fill = strings.Split(*fill, ",")
	}
	onEngines, err := names(*engines, engineNames())
	check(err != nil, "--engine: %v", err)
	ofStrategies, err := names(*strategies, strategyNames())
	check(err != nil, "--strategy: %v", err)
	for _, s := range scenarios {
		if slices.Contains(onEngines, s.engine.name) && slices.Contains(ofStrategies, s.strategy) && (o.failover || !s.onlyFailover) {
			o.scenarios = append(o.scenarios, s)
		}
	}
	check(len(wrong) == 0 && len(o.scenarios) == 0, "there is no strategy %s for the engine %s", *strategies, *engines)
	return o, errors.Join(wrong...)
}

// names splits a list of names, of which each has to be a known one; all stands for all.
func names(list string, known []string) ([]string, error) {
	if list == "all" {
		return known, nil
	}
	chosen := strings.Split(list, ",")
	for _, name := range chosen {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("%q is not known: choose among %s, or all", name, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// write renders the report as asked for.
func (o options) write(r report.Report, stdout io.Writer) error {
	var errs []error
	for _, f := range []struct {
		path   string
		render func(io.Writer) error
	}{{o.text, r.Text}, {o.json, r.JSON}, {o.html, r.HTML}, {o.markdown, r.Markdown}} {
		switch f.path {
		case "":
		case "-":
			errs = append(errs, f.render(stdout))
		default:
			errs = append(errs, toFile(f.path, f.render))
		}
	}
	for _, page := range o.fill {
		errs = append(errs, fillIn(page, r))
	}
	return errors.Join(errs...)
}

// fillIn writes what was measured into a page.
func fillIn(path string, r report.Report) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	filled, err := r.Fill(string(page))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(filled), 0o644)
}

// saved reads a report that was written as JSON.
func saved(path string) (report.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return report.Report{}, err
	}
	defer f.Close()
	return report.Read(f)
}

func toFile(path string, render func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(render(f), f.Close())
}
