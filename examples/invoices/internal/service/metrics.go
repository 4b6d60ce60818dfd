package service

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-go/holdfast"
)

// metrics is what /metrics shows: the requests, and what the lock has to say through
// holdfast.Metrics. There is one lock, so its name is no label.
type metrics struct {
	registry *prometheus.Registry
	underWay prometheus.Gauge
	requests *prometheus.HistogramVec // by status
	waited   *prometheus.HistogramVec // by how the lock came to be held
	refused  prometheus.Counter
	held     prometheus.Histogram
	lost     prometheus.Counter
	renewals *prometheus.CounterVec // by result
}

var _ holdfast.Metrics = (*metrics)(nil)

func newMetrics() *metrics {
	buckets := prometheus.ExponentialBuckets(0.0005, 2, 16) // up to 16 s
	m := &metrics{
		registry: prometheus.NewRegistry(),
		underWay: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "invoices_requests_under_way", Help: "POST /invoices that are not answered yet.",
		}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "invoices_request_seconds", Help: "Time to answer POST /invoices, by status.", Buckets: buckets,
		}, []string{"status"}),
		waited: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "invoices_lock_wait_seconds", Help: "Time to get the lock, by how: from the engine or handed over within the process.", Buckets: buckets,
		}, []string{"how"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "invoices_lock_failures_total", Help: "Attempts to get the lock that failed.",
		}),
		held: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "invoices_lock_held_seconds", Help: "Time for which the lock was held.", Buckets: buckets,
		}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "invoices_lock_lost_total", Help: "Leases that ended before they were given back.",
		}),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "invoices_lock_renewals_total", Help: "Renewals of leases, by result.",
		}, []string{"result"}),
	}
	m.registry.MustRegister(m.underWay, m.requests, m.waited, m.refused, m.held, m.lost, m.renewals,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *metrics) answered(status int, took time.Duration) {
	m.requests.WithLabelValues(strconv.Itoa(status)).Observe(took.Seconds())
}

// Acquired implements holdfast.Metrics.
func (m *metrics) Acquired(_ string, how holdfast.Acquisition, took time.Duration, err error) {
	if err != nil {
		m.refused.Inc()
		return
	}
	m.waited.WithLabelValues(string(how)).Observe(took.Seconds())
}

// Released implements holdfast.Metrics.
func (m *metrics) Released(_ string, held time.Duration, _ error) { m.held.Observe(held.Seconds()) }

// Renewed implements holdfast.Metrics.
func (m *metrics) Renewed(claims, failed int, _ time.Duration) {
	m.renewals.WithLabelValues("ok").Add(float64(claims - failed))
	m.renewals.WithLabelValues("failed").Add(float64(failed))
}

// Lost implements holdfast.Metrics.
func (m *metrics) Lost(string, error) { m.lost.Inc() }
