// Command loadtest tests a running platform before and after its size changes:
//
//	loadtest run FILE   a load test that is written for artillery, without Node
//	loadtest smoke      whether everything that users need works, in seconds
//	loadtest cache      how the cache behaves on the Redis of REDIS_ADDRS or REDIS_URL, or on one of its own
//	loadtest db         how the database does, on DATABASE_URL_PRIMARY and DATABASE_URL_REPLICA, or on servers of its own
//
// Each prints what it found and ends with status 1 when something does not hold. TARGET is where the API is, ADMIN the
// management listener, ADMIN_TOKEN its token.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// Place is where the platform under test is.
type Place struct {
	Target, Admin, Token string
}

var commands = map[string]func(ctx context.Context, out io.Writer, at Place, args []string) error{
	"run":   runProfile,
	"smoke": smoke,
	"cache": testCache,
	"db":    testDB,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lead.Log(lead.Config{Instance: "loadtest"}) // keeps remarks on single connections out of the terminal
	at := Place{Target: address("TARGET"), Admin: address("ADMIN"), Token: os.Getenv("ADMIN_TOKEN")}
	if err := run(ctx, os.Stdout, at, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "loadtest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, at Place, args []string) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("want run FILE, smoke, cache or db")
	}
	return commands[args[0]](ctx, out, at, args[1:])
}

func address(variable string) string { return strings.TrimRight(os.Getenv(variable), "/") }
