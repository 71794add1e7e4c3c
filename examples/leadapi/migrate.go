package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/examples/lead/migrations"
	"github.com/scaleaware/scaleaware/examples/lead/replicasafe"
)

// migrate is `leadapi migrate up|down|status|check`.
func migrate(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("leadapi migrate", flag.ContinueOnError)
	all := flags.Bool("all", false, "check: also what the database has already")
	loseRows := flags.Bool("lose-rows", false, "down: revert also a migration that makes tables")
	if len(args) == 0 {
		return errors.New("migrate up applies what is missing, down reverts the newest, status shows them, check finds those that hurt replicas")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	url, err := lead.MigrationsURL()
	if err != nil {
		return err
	}
	m, err := migrations.Open(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	switch args[0] {
	case "up":
		report, err := m.Up(ctx)
		for _, done := range report.Applied {
			fmt.Fprintf(out, "applied   %s (%s)\n", migrations.Name(done.Source), done.Duration.Round(time.Millisecond))
		}
		for _, partition := range report.Partitions {
			fmt.Fprintf(out, "partition %s\n", partition)
		}
		for _, note := range report.Notes {
			fmt.Fprintln(out, note)
		}
		if err == nil && len(report.Applied) == 0 {
			fmt.Fprintln(out, "nothing to apply")
		}
		return err
	case "down":
		done, err := m.Down(ctx, *loseRows)
		if err == nil {
			fmt.Fprintf(out, "reverted  %s (%s)\n", migrations.Name(done.Source), done.Duration.Round(time.Millisecond))
		}
		return err
	case "status":
		known, left, err := m.Status(ctx)
		for _, s := range known {
			state := "pending"
			if s.State == goose.StateApplied {
				state = "applied " + s.AppliedAt.UTC().Format(time.DateTime)
			}
			fmt.Fprintf(out, "%-28s %s\n", state, migrations.Name(s.Source))
		}
		for _, r := range left {
			fmt.Fprintln(out, r)
		}
		return err
	case "check":
		return check(ctx, url, m, *all, out)
	}
	return fmt.Errorf("what is %q? It is migrate up, down, status or check", args[0])
}

// check tries migrations in a database beside the one that they are for.
func check(ctx context.Context, url string, m *migrations.Migrator, all bool, out io.Writer) error {
	known, _, err := m.Status(ctx)
	if err != nil {
		return err
	}
	judged := map[int64]bool{}
	for _, s := range known {
		if all || s.State == goose.StatePending {
			judged[s.Source.Version] = true
		}
	}
	findings, notes, err := replicasafe.Check(ctx, url, migrations.All(), func(version int64) bool { return judged[version] })
	bad := 0
	for _, f := range findings {
		fmt.Fprintln(out, f)
		if f.Accepted == "" {
			bad++
		}
	}
	for _, note := range notes {
		fmt.Fprintln(out, "note:", note)
	}
	if err == nil && bad > 0 {
		err = fmt.Errorf("%d findings are to be mended or accepted", bad)
	}
	fmt.Fprintf(out, "%d migrations checked, %d findings, %d of them accepted\n", len(judged), len(findings), len(findings)-bad)
	return err
}
