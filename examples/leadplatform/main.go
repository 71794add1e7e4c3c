// Command leadplatform is the whole platform of the runbook on one machine: a PostgreSQL primary with two streaming
// replicas and a six-node Redis Cluster, three instances of leadapi behind a load balancer, two or more of leadworker, the
// management listener with its console, and a steady stream of clients. Each API instance and worker is a process of its
// own, of the programs that lie beside this one.
//
// It runs all of that until Ctrl-C and leaves nothing behind. `leadplatform env` tells a second terminal where the servers of a
// running one are.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/scaleaware/scaleaware/examples/lead"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "leadplatform:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "env" {
		return runEnv(ctx, args[1:])
	}
	flags := flag.NewFlagSet("leadplatform", flag.ContinueOnError)
	var o platformOptions
	flags.Float64Var(&o.rate, "rate", 60, "requests a second of the simulated clients; 0 for none")
	flags.IntVar(&o.clients, "clients", 12, "simulated clients")
	flags.StringVar(&o.state, "state", "", "file to keep up to date with the addresses and process ids of everything, as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("what is %q? The programs leadapi and leadworker are the single processes", flags.Arg(0))
	}
	c, err := lead.FromEnvironment("platform")
	if err != nil {
		return err
	}
	c.Instance = "platform"
	programs, err := findPrograms()
	if err != nil {
		return err
	}
	ctx, cancel := lead.WithLifeline(ctx)
	defer cancel()
	return runPlatform(ctx, c, o, programs, lead.Log(c))
}
