// Command scaleaware-rules writes the Prometheus rule file to standard output:
//
//	go run github.com/scaleaware/scaleaware/metrics/cmd/scaleaware-rules > scaleaware.rules.yml
package main
