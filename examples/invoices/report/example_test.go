package report_test

import (
	"fmt"
	"os"
	"time"

	"github.com/holdfast-go/holdfast/examples/invoices/report"
)

// small is a report of two strategies.
func small() report.Report {
	return report.Report{
		Machine: "made up", Command: "go run ./examples/invoices/cluster", Instances: 8, Invoices: 1000,
		Rows: []report.Row{
			{Strategy: "none", DependsOn: "PostgreSQL", Issued: 1000, Duplicates: 211, Rate: 1100, P50: time.Millisecond, P99: 4 * time.Millisecond},
			{
				Strategy: "mutex", Engine: "sentinel", DependsOn: "Redis with Sentinel, PostgreSQL", Issued: 1000, Errors: 3, Rate: 410,
				P50: 12 * time.Millisecond, P99: 48 * time.Millisecond,
				Failover: &report.Failover{What: "master killed", At: 10 * time.Second, Quiet: 4200 * time.Millisecond},
			},
		},
	}
}

func ExampleReport_Text() {
	_ = small().Text(os.Stdout)
	// Output:
	// 8 instances, 1,000 invoices in each row
	// made up
	//
	// STRATEGY  ENGINE    ISSUED  DUPLICATES  GAPS  ERRORS  PER SECOND    P50    P99  QUIET
	// none                 1,000         211     0       0       1,100   1 ms   4 ms      –
	// mutex     sentinel   1,000           0     0       3         410  12 ms  48 ms  4.2 s
	//
	// none
	//   211 duplicates
	//   depends on: PostgreSQL
	//
	// mutex on sentinel
	//   every number once
	//   depends on: Redis with Sentinel, PostgreSQL
	//   failover: at 10 s: master killed; the longest time without an invoice after it was 4.2 s; 0
	//             duplicates and 0 gaps after it
	//
	// Make it again:
	//   go run ./examples/invoices/cluster
}

// The figures go into a page of the documentation, and the page keeps everything else.
func ExampleReport_Fill() {
	page := `With a lock on Sentinel:

<!-- measured mutex/sentinel -->
<!-- end of measured -->
`
	filled, err := small().Fill(page)
	fmt.Print(filled, err)
	// Output:
	// With a lock on Sentinel:
	//
	// <!-- measured mutex/sentinel -->
	// | strategy | duplicates | gaps | errors | a second | p50 | p99 | failover | depends on |
	// |---|---:|---:|---:|---:|---:|---:|---|---|
	// | mutex on sentinel | 0 | 0 | 3 | 410 | 12 ms | 48 ms | master killed: 4.2 s without an invoice, 0 duplicates and 0 gaps after it | Redis with Sentinel, PostgreSQL |
	// <!-- end of measured -->
	// <nil>
}
