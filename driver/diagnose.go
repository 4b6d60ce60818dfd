package driver

import (
	"context"
	"fmt"
	"time"
)

// Level grades a [Finding].
type Level uint8

// The levels.
const (
	LevelOK      Level = iota // as it should be
	LevelNote                 // worth knowing, nothing to do
	LevelWarning              // locks work, but something weakens or delays them
	LevelProblem              // locks do not work, or not as safely as Capabilities.Safety says
)

var levelNames = [...]string{"ok", "note", "warning", "problem"}

// String returns the level in words.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("Level(%d)", l)
}

// MarshalText returns the level in words.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Fact is something that an engine found out about its servers.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Finding is what a fact means for locks.
type Finding struct {
	Level Level `json:"level"`

	// Subject is what was looked at, in a word or two.
	Subject string `json:"subject"`

	// Text says what was found and what follows from it. It may quote servers.
	Text string `json:"text"`

	// Remedy says what to do about it, empty where there is nothing to do.
	Remedy string `json:"remedy,omitempty"`
}

// Diagnosis is what an engine says about its servers at one moment.
type Diagnosis struct {
	Facts    []Fact    `json:"facts"`
	Findings []Finding `json:"findings"`
}

// Worst returns the highest level among the findings.
func (d Diagnosis) Worst() Level {
	worst := LevelOK
	for _, f := range d.Findings {
		worst = max(worst, f.Level)
	}
	return worst
}

// Fact adds a fact.
func (d *Diagnosis) Fact(name, format string, args ...any) {
	d.Facts = append(d.Facts, Fact{name, fmt.Sprintf(format, args...)})
}

// Find adds a finding.
func (d *Diagnosis) Find(level Level, subject, remedy, format string, args ...any) {
	d.Findings = append(d.Findings, Finding{level, subject, fmt.Sprintf(format, args...), remedy})
}

// Diagnoser is the ability to look at what locks depend on: versions, permissions, replicas,
// settings of the servers. It takes no lock, and what it tries leaves nothing behind.
type Diagnoser interface {
	// Diagnose looks at everything. ttl is how long leases of the caller live. What could
	// not be found out is a finding; an error means that there is nothing to say at all.
	Diagnose(ctx context.Context, ttl time.Duration) (Diagnosis, error)
}

// Initializer is the ability to be told that no lock was ever taken on a deployment, for
// engines that wait until those that may have been must have ended.
type Initializer interface {
	// Init spares a new deployment that wait. It refuses with [Invalid], and changes nothing,
	// where it sees that the deployment is not new.
	Init(ctx context.Context) error
}

// Healer is the ability to be told that servers which have forgotten what they granted are to
// take part again, for engines that leave them out where that is not safe by itself.
type Healer interface {
	// Heal lets them take part once what they may have forgotten must have ended. It changes
	// nothing where nothing is wrong.
	Heal(ctx context.Context) error
}
