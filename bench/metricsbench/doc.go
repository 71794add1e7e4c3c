// Package metricsbench measures metrics against its peers in one process: promhttp and otelhttp, redisotel, otelpgx. No
// server is needed: the hooks and tracers are called as the clients call them.
package metricsbench
