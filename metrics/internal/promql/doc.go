// Package promql reads the part of PromQL that our rules and dashboards are written in, so that they can be checked
// when a program starts, without Prometheus.
//
// It reads selectors with matchers, ranges, subqueries, offsets, functions, aggregations and operators with vector
// matching, and of Grafana's variables those that stand for a duration. What it does not know it refuses.
package promql
