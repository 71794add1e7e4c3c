// Command scaleaware-rules writes the Prometheus rule file to standard output:
//
//	go run github.com/scaleaware/scaleaware/metrics/cmd/scaleaware-rules > scaleaware.rules.yml
package main

import (
	"fmt"
	"os"

	"github.com/scaleaware/scaleaware/metrics"
)

func main() {
	if _, err := os.Stdout.Write(metrics.Rules()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
