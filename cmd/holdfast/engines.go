package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast/driver"
)

// engineView is a row of the table in JSON. Its durations stand in for those of the embedded
// capabilities, which would be numbers of nanoseconds.
type engineView struct {
	Scheme  string `json:"scheme"`
	Example string `json:"example"`
	driver.Capabilities
	MinTTL     string `json:"min_ttl"`
	MaxTTL     string `json:"max_ttl"`
	DefaultTTL string `json:"default_ttl"`
	Resolution string `json:"resolution"`
}

func (a *app) enginesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "engines",
		Short: "Show the engines and what each can do",
		Long: `Show the schemes of the URLs that this program knows, and what their engines can do and
promise. Nothing is opened for it.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.engines() },
	}
}

func (a *app) engines() error {
	var views []engineView
	for _, s := range driver.Schemes() {
		views = append(views, viewEngine(s, s.Capabilities))
	}
	return a.print(views, func(w io.Writer) {
		rows := [][]string{{"SCHEME", "ENGINE", "SHARED", "UPGRADE", "PERMITS", "EXPIRES", "FIFO", "PUSH", "HOLDERS", "TTL", "DEFAULT"}}
		for _, v := range views {
			c := v.Capabilities
			rows = append(rows, []string{v.Scheme, c.Engine, yes(c.Shared), yes(c.Upgradeable), yes(c.Permits),
				yes(c.Expires), yes(c.FIFO), yes(c.Push), yes(c.Holders), short(c.MinTTL) + " to " + short(c.MaxTTL), short(c.DefaultTTL)})
		}
		table(w, rows)
		for _, v := range views {
			fmt.Fprintf(w, "\n%s: %s\n  fences: %s\n  for example %s\n", v.Scheme, v.Safety, v.FenceSource, v.Example)
		}
	})
}

// viewEngine is an engine of that scheme with what it says of itself.
func viewEngine(s driver.Scheme, c driver.Capabilities) engineView {
	return engineView{
		Scheme: s.Name, Example: s.Example, Capabilities: c,
		MinTTL: c.MinTTL.String(), MaxTTL: c.MaxTTL.String(),
		DefaultTTL: c.DefaultTTL.String(), Resolution: c.Resolution.String(),
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "-"
}

// short writes whole hours and minutes without the zeros behind them.
func short(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
