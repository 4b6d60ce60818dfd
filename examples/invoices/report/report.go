// Package report holds what a run of the cluster found, strategy by strategy, and renders it.
package report

import "time"

// Report is one run of the cluster: every strategy under the same load, one after another.
type Report struct {
	Taken     time.Time `json:"taken"`
	Machine   string    `json:"machine"`   // cores, operating system, versions of the servers
	Command   string    `json:"command"`   // makes the report again
	Instances int       `json:"instances"` // processes of the service
	Invoices  int       `json:"invoices"`  // asked for in each row
	Rows      []Row     `json:"rows"`
}

// Row is what one strategy did.
type Row struct {
	Strategy   string        `json:"strategy"`   // its setting: "mutex", "sequence", "none"
	Engine     string        `json:"engine"`     // where the coordination lives: "sentinel", "postgres", "" for nowhere
	DependsOn  string        `json:"depends_on"` // what has to be up, in words
	Issued     int           `json:"issued"`     // invoices that the database holds at the end
	Duplicates int           `json:"duplicates"` // numbers given more than once, counted past the first
	Gaps       int           `json:"gaps"`       // numbers missing between the first and the last
	Errors     int           `json:"errors"`     // requests that were answered by an error; their clients tried again
	Rate       float64       `json:"rate"`       // invoices a second, from the first request to the last answer
	P50        time.Duration `json:"p50"`        // of requests that were answered with an invoice
	P99        time.Duration `json:"p99"`
	GapsAre    string        `json:"gaps_are,omitempty"` // why gaps are no fault of this strategy, where they are none
	Failover   *Failover     `json:"failover,omitempty"`
	Timeline   []Point       `json:"timeline,omitempty"`
	Holds      []Hold        `json:"holds,omitempty"`
	Note       string        `json:"note,omitempty"` // what a reader has to know to judge the row
}

// Failover is the failure in the middle of a row.
type Failover struct {
	What  string        `json:"what"`  // "master killed"
	At    time.Duration `json:"at"`    // since the first request
	Quiet time.Duration `json:"quiet"` // the longest time after it without an invoice
	// Duplicates and Gaps are those whose numbers were given after it.
	Duplicates int `json:"duplicates"`
	Gaps       int `json:"gaps"`
}

// Point sums up one step of a row's time.
type Point struct {
	At     time.Duration `json:"at"` // its end, since the first request
	Issued int           `json:"issued"`
	Errors int           `json:"errors"`
	P50    time.Duration `json:"p50"` // of the requests that were answered in it, 0 without any
	P99    time.Duration `json:"p99"`
}

// Hold is a time in which an instance had the lock.
type Hold struct {
	Instance int           `json:"instance"` // from 0
	From     time.Duration `json:"from"`     // since the first request
	To       time.Duration `json:"to"`
	Fence    uint64        `json:"fence,omitempty"`
}
