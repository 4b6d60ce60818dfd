// Package bench measures holdfast beside other locks.
package bench
