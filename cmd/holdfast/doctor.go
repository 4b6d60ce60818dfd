package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
)

// doctorView is what doctor prints.
type doctorView struct {
	URL         string       `json:"url"` // without user, password and parameters
	Engine      engineView   `json:"engine"`
	Supported   bool         `json:"supported"` // whether the engine can be diagnosed
	Initialized bool         `json:"initialized,omitempty"`
	Worst       driver.Level `json:"worst"`
	holdfast.Diagnosis
}

func (a *app) doctorCommand() *cobra.Command {
	var initialize, heal bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check an engine's servers, and say what locks there are worth",
		Long: `Look at everything that locks depend on: versions, permissions, replicas, settings and
latency of the servers, and say what level of safety that gives and, where a failover can
happen, whether holders outlive it and how long newcomers wait. Nothing is locked, and
what is tried leaves nothing behind. Leases are taken to live for ?ttl= of the URL.

Findings are ok, a note, a warning (locks work, but something weakens or delays them) or a
problem (locks do not work, or not as safely as the engine says). The exit code is 1 when
there is a problem.

--init first tells new servers that no lock was ever taken on them: otherwise they grant
the first one only when earlier ones must have ended. It is refused where there are signs
that locks were taken. Said of servers that have lost their data it lets two hold one lock.

--heal tells the nodes of a quorum (redlock://) that have lost their data to take part again,
when too few of the others remember enough for clients to do that by themselves. They grant
nothing until what they have forgotten must have ended. Nodes that are down by then have to be
emptied before they come back.`,
		Example: "  holdfast doctor --url redis+sentinel://h1,h2,h3/mymaster\n  holdfast doctor -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.withClient(func(ctx context.Context, c *holdfast.Client) error {
				return a.doctor(ctx, c, initialize, heal)
			})
		},
	}
	cmd.Flags().BoolVar(&initialize, "init", false, "tell new servers that no lock was ever taken on them")
	cmd.Flags().BoolVar(&heal, "heal", false, "have nodes of a quorum that lost their data take part again")
	cmd.MarkFlagsMutuallyExclusive("init", "heal")
	return cmd
}

func (a *app) doctor(ctx context.Context, c *holdfast.Client, initialize, heal bool) error {
	if initialize {
		if err := c.Init(ctx); err != nil {
			return err
		}
	}
	if heal {
		if err := c.Heal(ctx); err != nil {
			return err
		}
	}
	u, err := a.engineURL()
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(u, ":")
	scheme, _ := driver.Lookup(strings.ToLower(name))
	v := doctorView{URL: redact(u), Engine: viewEngine(scheme, c.Capabilities()), Supported: true, Initialized: initialize}
	v.Diagnosis, err = c.Diagnose(ctx)
	switch {
	case errors.Is(err, holdfast.ErrUnsupported):
		v.Supported = false
		v.Diagnosis = holdfast.Diagnosis{Facts: []driver.Fact{}, Findings: []driver.Finding{}}
	case err != nil:
		return err
	}
	clean(u, v.Diagnosis)
	v.Worst = v.Diagnosis.Worst()
	if err := a.print(v, v.write); err != nil {
		return err
	}
	if v.Worst == driver.LevelProblem {
		return exitStatus(exitProblem)
	}
	return nil
}

// clean takes out of what was found what must not be shown: it quotes servers.
func clean(engineURL string, d holdfast.Diagnosis) {
	tidy := func(text *string) { *text = strings.ReplaceAll(scrub(*text, engineURL), "\n", "; ") }
	for i := range d.Facts {
		tidy(&d.Facts[i].Value)
	}
	for i := range d.Findings {
		tidy(&d.Findings[i].Text)
		tidy(&d.Findings[i].Remedy)
	}
}

// write writes the diagnosis for people.
func (v doctorView) write(w io.Writer) {
	c := v.Engine.Capabilities
	rows := [][]string{{"url:", v.URL}, {"engine:", c.Engine}}
	if !v.Supported {
		table(w, append(rows, []string{"safety:", c.Safety}, []string{"fences:", c.FenceSource},
			[]string{"ttl:", short(c.MinTTL) + " to " + short(c.MaxTTL) + ", default " + short(c.DefaultTTL)},
			[]string{"shared:", yes(c.Shared)}, []string{"upgrade:", yes(c.Upgradeable)}, []string{"permits:", yes(c.Permits)},
			[]string{"expires:", yes(c.Expires)}, []string{"fifo:", yes(c.FIFO)}, []string{"push:", yes(c.Push)}, []string{"holders:", yes(c.Holders)}))
		fmt.Fprintf(w, "\nThis engine cannot be diagnosed: the above is what it says of itself.\n")
		return
	}
	for _, f := range v.Facts {
		rows = append(rows, []string{f.Name + ":", f.Value})
	}
	table(w, rows)
	fmt.Fprintln(w)
	if v.Initialized {
		fmt.Fprintf(w, "initialized: the first lock does not wait\n\n")
	}
	counts := map[driver.Level]int{}
	findings := [][]string{}
	for _, f := range v.Findings {
		counts[f.Level]++
		findings = append(findings, []string{f.Level.String(), f.Subject, f.Text})
		if f.Remedy != "" {
			findings = append(findings, []string{"", "", "do: " + f.Remedy})
		}
	}
	table(w, findings)
	fmt.Fprintf(w, "\n%d ok, %d notes, %d warnings, %d problems\n",
		counts[driver.LevelOK], counts[driver.LevelNote], counts[driver.LevelWarning], counts[driver.LevelProblem])
}
