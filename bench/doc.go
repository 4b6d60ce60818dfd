// Package bench measures holdfast beside what it is compared with, in one run, so that the
// ratios mean something on a noisy machine. `make bench` runs it. Command peers
// does so on Redis.
package bench
