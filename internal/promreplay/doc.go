// Package promreplay compares the states that package metrics gives to alerts in left-open mode with those of Prometheus
// 3's own rule engine. It is a module of its own, so that nobody who uses this one downloads Prometheus.
package promreplay
