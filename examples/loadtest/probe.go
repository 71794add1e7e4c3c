package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// probe is one line of a test; said is what it adds to it.
type probe struct {
	name string
	run  func(ctx context.Context) (said string, err error)
}

// runProbes runs all of them, also after one has failed: the whole list tells more than its first line.
func runProbes(ctx context.Context, out io.Writer, probes []probe) error {
	var failed []string
	for _, p := range probes {
		began := time.Now()
		said, err := p.run(ctx)
		took := time.Since(began).Round(time.Millisecond)
		if err != nil {
			failed = append(failed, p.name)
			fmt.Fprintf(out, "FAIL %s (%v): %v\n", p.name, took, err)
			continue
		}
		fmt.Fprintf(out, "ok   %s (%v)%s\n", p.name, took, said)
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, "; "))
	}
	return nil
}
