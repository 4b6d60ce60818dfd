package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/strategy"
	"github.com/holdfast-go/holdfast/examples/invoices/report"
)

// rowTimeout bounds what a row takes, beside its invoices.
const rowTimeout = 2 * time.Minute

// eachInvoice is what one may take in addition, on a machine that is busy with something else.
const eachInvoice = 50 * time.Millisecond

// runAll makes the rows of the scenarios, one after the other. Scenarios whose server is not installed
// are left out where there are others. After an error the report has the rows that were made before.
func runAll(ctx context.Context, o options, progress io.Writer) (r report.Report, err error) {
	r = report.Report{Taken: time.Now().UTC(), Command: o.command, Instances: o.instances, Invoices: o.invoices}
	l, err := testserver.NewLab()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	d, err := startDatabases(l)
	if err != nil {
		return r, err
	}
	versions := []string{"PostgreSQL " + d.version}
	for n, s := range o.scenarios {
		fmt.Fprintf(progress, "%d/%d %s … ", n+1, len(o.scenarios), s.title())
		row, version, err := runRow(ctx, o, s, d)
		if errors.Is(err, testserver.ErrMissing) && len(o.scenarios) > 1 {
			fmt.Fprintln(progress, "left out:", err)
			continue
		}
		if err != nil {
			fmt.Fprintln(progress, "failed")
			return r, fmt.Errorf("%s: %w", s.title(), err)
		}
		fmt.Fprintf(progress, "%d invoices, %d duplicates, %d gaps, %.0f a second\n", row.Issued, row.Duplicates, row.Gaps, row.Rate)
		r.Rows = append(r.Rows, row)
		if version != "" && !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
	}
	r.Machine = fmt.Sprintf("%d cores, %s/%s, %s; %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), strings.Join(versions, ", "))
	return r, nil
}

// run is a row that is being made.
type run struct {
	options
	scenario
	lab       *testserver.Lab
	database  *database
	backend   *backend
	instances []*instance
	load      *load
}

// runRow makes one row: with an empty database, new servers and new instances.
func runRow(ctx context.Context, o options, s scenario, d *databases) (row report.Row, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, rowTimeout+time.Duration(o.invoices)*eachInvoice)
	defer cancel()
	r := &run{options: o, scenario: s}
	if r.lab, err = testserver.NewLab(); err != nil {
		return row, "", err
	}
	defer func() {
		closed := r.lab.Close()
		if err == nil {
			err = closed // which has what failed before as well
		}
	}()
	if err := r.start(ctx, d); err != nil {
		return row, "", err
	}
	f, err := r.drive(ctx)
	if err != nil {
		return row, "", err
	}
	for _, i := range r.instances {
		if err := r.lab.Do(i.program.Stop); err != nil {
			return row, "", err
		}
	}
	row, err = r.row(ctx, f)
	return row, r.backend.version, err
}

// start starts servers and instances, and waits for them.
func (r *run) start(ctx context.Context, d *databases) (err error) {
	if r.database, err = d.create(); err != nil {
		return err
	}
	if err := r.lab.Do(func() { r.backend = r.engine.start(r.lab, r.database) }); err != nil {
		return err
	}
	if err := r.backend.initialize(ctx, r.settings); err != nil {
		return err
	}
	err = r.lab.Do(func() {
		for n := range r.options.instances {
			r.instances = append(r.instances, startInstance(r.lab, n, r.scenario, r.database, r.backend))
		}
	})
	if err != nil {
		return err
	}
	for _, i := range r.instances {
		if err := i.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// struck is what was broken, and when.
type struck struct {
	what string
	at   time.Time
}

// drive has all invoices issued, and breaks something in the middle of it where that was asked for.
func (r *run) drive(ctx context.Context) (*struck, error) {
	r.load = newLoad(r.instances, r.invoices)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	var s *struck
	go func() {
		defer close(done)
		if !r.failover {
			close(r.load.broken)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-r.load.third:
		}
		var err error
		if s, err = r.strike(ctx); err != nil {
			cancel(fmt.Errorf("while it was broken: %w", err))
		}
	}()
	err := r.load.run(ctx, r.clients)
	if err != nil {
		cancel(err)
	}
	<-done
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return s, err
}

// strike breaks what is to be broken.
func (r *run) strike(ctx context.Context) (*struck, error) {
	s := &struck{}
	f := r.fault
	if f == nil {
		f = breakEngine
	}
	var err error
	s.what, err = f(ctx, r, func() {
		s.at = time.Now()
		close(r.load.broken)
	})
	return s, err
}

// row sums up what has happened.
func (r *run) row(ctx context.Context, s *struck) (report.Row, error) {
	invoices, err := r.database.invoices(ctx)
	if err == nil {
		err = compare(invoices, r.load.numbers)
	}
	if err != nil {
		return report.Row{}, err
	}
	kind, err := strategy.Named(r.strategy)
	if err != nil {
		return report.Row{}, err
	}
	row := report.Row{
		Strategy: r.strategy, DependsOn: "the database", GapsAre: kind.GapsAre, Note: r.note,
		Issued: len(invoices), Timeline: timeline(r.load.answers),
	}
	if r.engine != noEngine {
		row.Engine = r.engine.name
		row.DependsOn += ", " + r.engine.dependsOn
	}
	var took []time.Duration
	for _, a := range r.load.answers {
		if a.issued {
			took = append(took, a.took)
		} else {
			row.Errors++
		}
	}
	row.P50, row.P99 = quantile(took, 0.5), quantile(took, 0.99)
	row.Rate = float64(len(invoices)) / r.load.answers[len(r.load.answers)-1].at.Seconds()
	var held [][]line
	for _, i := range r.instances {
		held = append(held, i.held())
	}
	row.Holds = holds(r.load.began, held)
	var moment time.Time
	if s != nil {
		moment = s.at
	}
	all, later := audit(invoices, moment)
	row.Duplicates, row.Gaps = all.duplicates, all.gaps
	if s != nil {
		at := s.at.Sub(r.load.began)
		row.Failover = &report.Failover{
			What: s.what, At: at, Quiet: quiet(r.load.answers, at), Duplicates: later.duplicates, Gaps: later.gaps,
		}
	}
	return row, nil
}
