// Package metrics is the contract floor: one table of every series and threshold, from which instruments, rules and
// reports are rendered.
package metrics
