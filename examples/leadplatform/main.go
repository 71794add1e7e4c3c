// Command leadplatform is the whole platform of the runbook on one machine: a PostgreSQL primary with two streaming
// replicas and a six-node Redis Cluster, three API instances behind a load balancer, two or more workers, the management
// listener with its console, and a steady stream of clients. Each API instance and worker is a process of its own.
//
// Without arguments it runs all of that until Ctrl-C and leaves nothing behind. `leadplatform api` and `leadplatform
// worker` are the single processes, configured by the environment.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
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
	role := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		role, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("leadplatform", flag.ContinueOnError)
	var o platformOptions
	flags.Float64Var(&o.rate, "rate", 60, "requests a second of the simulated clients; 0 for none")
	flags.IntVar(&o.clients, "clients", 12, "simulated clients")
	flags.StringVar(&o.state, "state", "", "file to keep up to date with the addresses and process ids of everything, as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := configFromEnv()
	if err != nil {
		return err
	}
	ctx, cancel := withLifeline(ctx)
	defer cancel()
	name := or(os.Getenv("INSTANCE"), fmt.Sprintf("%s-%d", or(role, "platform"), os.Getpid()))
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})).With("instance", name)
	redis.SetLogger(redisLog{log}) // go-redis has one logger for the whole process, which is ours to set
	switch role {
	case "":
		return runPlatform(ctx, c, o, log)
	case "api":
		return runAPI(ctx, name, c, log)
	case "worker":
		return runWorker(ctx, name, c, log)
	case "env":
		return printEnv(ctx, os.Stdout, o.state)
	}
	return fmt.Errorf("unknown role %q, want api, worker, env or none for the whole platform", role)
}

// redisLog keeps go-redis's remarks on single connections out of the terminal; what they mean is reported by the packages.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}
