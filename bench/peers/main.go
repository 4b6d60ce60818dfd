package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"
)

func main() {
	if os.Getenv(workerVariable) != "" {
		if err := work(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == flag.ErrHelp:
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// command reads the flags, runs and prints.
func command(ctx context.Context, args []string, out, progress io.Writer) error {
	s := &settings{progress: progress}
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.SetOutput(progress)
	server := flags.String("server", onRedis.name, "on which `server`: "+serverNames())
	names := flags.String("patterns", "", "which `patterns`, separated by commas; all unless given")
	globs := flags.String("adapters", "", "which adapters: shell `patterns` separated by commas; all unless given")
	format := flags.String("o", "text", "`format` of the report: text or json")
	quick := flags.Bool("quick", false, "everything once and briefly, unless other flags say for how long, to see that it works; the figures mean nothing")
	s.define(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *format != "text" && *format != "json" {
		return fmt.Errorf("format %q: write text or json", *format)
	}
	if err := s.choose(*server, *names, *globs); err != nil {
		return err
	}
	if *quick {
		s.hurry(flags)
	}
	if s.rounds < 1 || s.holdRounds < 1 || s.duration <= 0 || s.hold <= 0 || s.leases < 1 || s.parallel < 1 || s.section < 0 {
		return fmt.Errorf("rounds, durations and counts must be positive, and the section not negative")
	}
	outcomes, err := s.run(ctx)
	if err != nil {
		return err
	}
	r := newReport(s, outcomes)
	if *format == "json" {
		err = r.json(out)
	} else {
		err = r.text(out)
	}
	if err == nil {
		err = r.verdictOnSafety()
	}
	return err
}

// define has the flags write into s.
func (s *settings) define(flags *flag.FlagSet) {
	flags.IntVar(&s.rounds, "rounds", 5, "`rounds` in which every adapter takes its turn")
	flags.IntVar(&s.holdRounds, "hold-rounds", 2, "`rounds` of pattern f")
	flags.DurationVar(&s.duration, "duration", time.Second, "how long a cell is measured, after a quarter of that to warm up")
	flags.DurationVar(&s.hold, "hold", 10*time.Second, "how long leases are held in pattern f")
	flags.IntVar(&s.leases, "leases", 10_000, "how `many` leases are held in pattern f")
	flags.DurationVar(&s.section, "section", 0, "how long who has the one lock of d or e keeps it, computing")
	flags.StringVar(&s.base, "base", "", "the `adapter` that ratios are to, in place of each pattern's own")
	flags.StringVar(&s.profiles, "profiles", "", "`folder` for processor profiles of the first worker of each cell")
	flags.IntVar(&s.parallel, "parallel", 1<<20, "at most so `many` goroutines in a process")
}

// hurry shortens what the flags do not mention.
func (s *settings) hurry(flags *flag.FlagSet) {
	for name, value := range map[string]string{
		"rounds": "1", "hold-rounds": "1", "duration": "200ms", "hold": "500ms", "leases": "500",
	} {
		given := false
		flags.Visit(func(f *flag.Flag) { given = given || f.Name == name })
		if !given {
			_ = flags.Set(name, value) // the values are good
		}
	}
}

// choose says what is measured, where names and globs are lists with commas.
func (s *settings) choose(server, names, globs string) (err error) {
	if s.product, err = productNamed(server); err != nil {
		return err
	}
	s.patterns = s.product.patterns
	if names != "" {
		s.patterns = nil
		for name := range strings.SplitSeq(names, ",") {
			p, err := s.product.pattern(name)
			if err != nil {
				return err
			}
			s.patterns = append(s.patterns, p)
		}
	}
	if globs != "" {
		s.adapters = strings.Split(globs, ",")
	}
	return nil
}
