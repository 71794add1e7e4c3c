package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/scaleaware/scaleaware/metrics"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("scaleaware-rules", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("o", "", "write the rules, the dashboard and the docs into this `directory`, instead of the rules to standard output")
	thresholds := flags.String("thresholds", "", "a JSON `file` of thresholds that replace the table's")
	window := flags.Duration("window", 5*time.Minute, "what rates, quantiles and shares are taken over; as metrics.Table.Window of the service")
	interval := flags.Duration("interval", 30*time.Second, "the time between two evaluations of the rules")
	otelNames := flags.Bool("otel-names", false, "add records of the database pools under OpenTelemetry's names")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("scaleaware-rules: %q is no flag, see -help", flags.Arg(0))
	}
	if *window <= 0 || *interval <= 0 {
		return fmt.Errorf("scaleaware-rules: -window %v and -interval %v must be above 0", *window, *interval)
	}
	table, err := tableOf(*thresholds)
	if err != nil {
		return err
	}
	table.Window, table.Interval, table.OTelNames = *window, *interval, *otelNames
	if err := table.Audit(); err != nil {
		return err
	}
	if *dir == "" {
		_, err := stdout.Write(table.Rules())
		return err
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil { // #nosec G301 -- Prometheus, another user, reads the rules
		return fmt.Errorf("scaleaware-rules: %w", err)
	}
	for name, content := range map[string][]byte{
		"scaleaware.rules.yml": table.Rules(), "scaleaware.dashboard.json": table.Dashboard(), "metrics.md": table.Markdown(),
	} {
		if err := write(filepath.Join(*dir, name), content); err != nil {
			return fmt.Errorf("scaleaware-rules: %w", err)
		}
	}
	return nil
}

func tableOf(path string) (metrics.Table, error) {
	table := metrics.KeyMetrics()
	if path == "" {
		return table, nil
	}
	file, err := os.Open(path) // #nosec G304 -- the caller's own file
	if err != nil {
		return table, fmt.Errorf("scaleaware-rules: %w", err)
	}
	defer file.Close()
	overrides, err := metrics.ReadOverrides(file)
	if err != nil {
		return table, fmt.Errorf("%s: %w", path, err)
	}
	if table, err = table.Override(overrides); err != nil {
		return table, fmt.Errorf("%s: %w", path, err)
	}
	return table, nil
}

// write replaces a file whole, since Prometheus may be reading it, and leaves one alone that would stay the same.
func write(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) { // #nosec G304 -- the caller's own file
		return nil
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // when it could not be renamed
	_, err = file.Write(content)
	if err := errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
