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
