package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
	_ "github.com/holdfast-go/holdfast/filelock" // the engine of a demo that is given none
)

// engineTimeout bounds the first contact with an engine.
const engineTimeout = 10 * time.Second

// demonstration is one run of the command.
type demonstration struct {
	options
	folder string
	lock   string // its name: of this run alone, so that demos on one engine do not meet
	cmd    *cobra.Command
}

func (d *demonstration) runAll(ctx context.Context) (*report, error) {
	engine, err := d.checkEngine(ctx)
	if err != nil {
		return nil, err
	}
	r := &report{Engine: engine, Instances: d.instances, Invoices: d.invoices, Concurrency: clientsPerInstance, Sound: true}
	fmt.Fprintf(d.cmd.ErrOrStderr(), "%d processes issue %d invoices each, %d at a time; holdfast locks on %s.\n",
		d.instances, d.invoices, clientsPerInstance, engine)
	for _, s := range strategies {
		res, err := d.runOne(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.title, err)
		}
		r.Strategies = append(r.Strategies, res)
		r.Sound = r.Sound && (s.key != withHoldfast || res.sound(d.instances*d.invoices))
	}
	return r, nil
}

// checkEngine takes the lock once, so that a wrong URL is reported before anything starts.
// It returns the name of the engine.
func (d *demonstration) checkEngine(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	hf, err := holdfast.Open(ctx, d.url, holdfast.Config{})
	if err != nil {
		return "", err
	}
	err = hf.Mutex(d.lock).Do(ctx, func(context.Context, *holdfast.Lease) error { return nil })
	return hf.Capabilities().Engine, errors.Join(err, hf.Close())
}

// runOne lets a fresh cluster issue all invoices into a fresh database.
func (d *demonstration) runOne(ctx context.Context, s strategy) (result, error) {
	path := filepath.Join(d.folder, s.key+".db")
	if err := createStore(ctx, path); err != nil {
		return result{}, err
	}
	c, err := startCluster(ctx, d.instances, d.instanceArgs(s, path), d.url)
	if err != nil {
		return result{}, err
	}
	defer c.close()
	t := newTally(d.instances * d.invoices)
	p := startProgress(d.cmd.ErrOrStderr(), s.title, t)
	began := time.Now()
	drive(ctx, c, d.invoices, t)
	took := time.Since(began)
	p.stop()
	if err := ctx.Err(); err != nil {
		return result{}, err
	}
	t.fail(0, c.close()) // an instance that died has said why
	lost, err := lostUpdates(ctx, path)
	if err != nil {
		return result{}, err
	}
	return newResult(s, t, lost, took, d.instances), nil
}

// instanceArgs is the command line of an instance, up to its number.
func (d *demonstration) instanceArgs(s strategy, path string) []string {
	words := strings.Fields(d.cmd.CommandPath())[1:] // the path begins with the program's name
	return append(words, "instance", "--strategy", s.key, "--database", path, "--lock", d.lock, "--number")
}
