package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

func runProfile(ctx context.Context, out io.Writer, at Place, args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	environment := flags.String("e", "", "environment of the file, such as short")
	output := flags.String("o", "", "file to write the report to, as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("want one file, such as load-test-baseline.yml, after the flags")
	}
	profile, err := ReadProfile(flags.Arg(0), *environment)
	if err != nil {
		return err
	}
	if at.Target == "" {
		at.Target = profile.Config.Target
	}
	fmt.Fprintf(out, "virtual users arrive at %s for %v …\n", at.Target, duration(profile.Config.Phases))
	began := time.Now()
	tally, err := Run(ctx, profile, at.Target)
	if err != nil {
		return err
	}
	report, err := newReport(tally, profile.Config.Ensure)
	if err != nil {
		return err
	}
	report.Profile, report.Target, report.Seconds = filepath.Base(flags.Arg(0)), at.Target, time.Since(began).Seconds()
	fmt.Fprint(out, report)
	if *output != "" {
		if err := report.Save(*output); err != nil {
			return err
		}
	}
	if failed := report.Failed(); len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, "; "))
	}
	return nil
}
