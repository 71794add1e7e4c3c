// Command bench measures this module's packages against their peers and keeps the results in a file.
//
//	go run . [-only regexp] [-quick] [-results file] [package ...]
//	go run . -curves folder [-quick]
//
// Without packages it measures all. With -only or -quick nothing is kept: the tables are printed. With -curves it draws
// how costs grow, instead.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/scaleaware/scaleaware/bench/cachebench"
	"github.com/scaleaware/scaleaware/bench/dbsplitbench"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/bench/metricsbench"
	"github.com/scaleaware/scaleaware/bench/queuebench"
	"github.com/scaleaware/scaleaware/bench/sessionbench"
)

// subjects are the packages that are measured.
var subjects = []struct {
	name    string
	modules []string
	measure func(context.Context, *dbsplitbench.Options) ([]report.Table, []string, error)
}{
	{"dbsplit", dbsplitbench.Modules, dbsplitbench.Measure},
	{"metrics", metricsbench.Modules, func(ctx context.Context, o *dbsplitbench.Options) ([]report.Table, []string, error) {
		tables, err := metricsbench.Measure(ctx, &metricsbench.Options{Only: o.Only, Quick: o.Quick, Module: o.Module})
		return tables, nil, err
	}},
	{"cache", cachebench.Modules, func(ctx context.Context, o *dbsplitbench.Options) ([]report.Table, []string, error) {
		return cachebench.Measure(ctx, &cachebench.Options{Only: o.Only, Quick: o.Quick})
	}},
	{"queue", queuebench.Modules, func(ctx context.Context, o *dbsplitbench.Options) ([]report.Table, []string, error) {
		return queuebench.Measure(ctx, &queuebench.Options{Only: o.Only, Quick: o.Quick})
	}},
	{"session", sessionbench.Modules, func(ctx context.Context, o *dbsplitbench.Options) ([]report.Table, []string, error) {
		return sessionbench.Measure(ctx, &sessionbench.Options{Only: o.Only, Quick: o.Quick})
	}},
}

func main() {
	if observed, err := cachebench.Observe(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: the observing process:", err)
		os.Exit(1)
	} else if observed {
		return
	}
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "measure only the tables whose titles match this `regexp`, and print them")
	quick := flags.Bool("quick", false, "measure for a short time, and print the tables: to try the harness")
	curves := flags.String("curves", "", "draw how costs grow into this `folder`")
	results := flags.String("results", "RESULTS.md", "the `file` to keep the results in")
	if err := flags.Parse(args); err != nil {
		return err
	}
	file, err := filepath.Abs(*results) // now: it takes minutes, in which the folder may be moved
	if err != nil {
		return fmt.Errorf("-results: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	opts := &dbsplitbench.Options{Quick: *quick, Module: ".."}
	if *only != "" {
		if opts.Only, err = regexp.Compile(*only); err != nil {
			return fmt.Errorf("-only: %w", err)
		}
	}
	if *curves != "" {
		return drawCurves(ctx, *curves, opts)
	}
	for _, s := range subjects {
		if flags.NArg() > 0 && !slices.Contains(flags.Args(), s.name) {
			continue
		}
		before := report.Load()
		tables, facts, err := s.measure(ctx, opts)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if opts.Only != nil || opts.Quick {
			for _, t := range tables {
				fmt.Println(t.Markdown())
			}
			continue
		}
		section := report.Section{Package: s.name, Tables: tables}
		section.Facts = append(report.Facts(command(args), s.modules...), facts...)
		if before != "" {
			section.Facts = append(section.Facts, "Load of the machine: "+before+" before, "+report.Load()+" after.")
		}
		if err := section.Update(file); err != nil {
			return err
		}
		fmt.Printf("%s: results in %s\n", s.name, file)
	}
	return nil
}

// command is what to type to measure the same again.
func command(args []string) string {
	if len(args) == 0 {
		return "make bench"
	}
	return "make bench BENCH='" + strings.Join(args, " ") + "'"
}
