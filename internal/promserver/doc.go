// Package promserver runs a real Prometheus over given rules and targets, for tests. It is killed and removed when it is
// closed, and when the test's process ends in whatever way: see internal/localserver.
package promserver
