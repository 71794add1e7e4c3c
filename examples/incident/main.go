// Command incident is the worst afternoon of the lead platform, told in the terminal while it happens: a load spike, alerts
// that fire, the bottleneck by its name, workers that scale, read-only mode with its proof, a primary that dies and a
// replica that takes its place, recovery, and at the end the count: is every lead that was acknowledged there?
//
// It runs leadplatform, which must lie beside it, and does by HTTP and SQL what an operator does by hand. The console of the
// platform shows all of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "incident:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("incident", flag.ContinueOnError)
	wait := flags.Bool("wait", false, "at the end, leave the platform running until Ctrl-C")
	if err := flags.Parse(args); err != nil {
		return err
	}
	story := newStory(os.Stdout)
	story.chapter("A platform: a primary with two replicas, six Redis nodes, three API instances, two workers, clients")
	p, err := startPlatform(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	story.say("console  %s/", p.state.Admin)

	people := startPeople(ctx, p.state.API)
	defer people.leave()
	incident := &incident{story: story, platform: p, desk: desk{p.state.Admin}, people: people}
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Calm: people create leads, nothing is wrong", incident.calm},
		{"Load spike: a campaign wants every lead scored anew, many times over", incident.spike},
		{"Alerts fire, and the bottleneck has a name", incident.diagnose},
		{"The autoscaler adds workers", incident.scale},
		{"High load incident, as one step: read-only, longer TTLs, low-priority paused", incident.begin},
		{"The proof: nothing is being written, in PostgreSQL's own words", incident.prove},
		{"The primary dies, a replica is promoted", incident.promote},
		{"The incident ends: what it did is undone", incident.end},
		{"Recovery: alerts resolve, workers go", incident.recover},
		{"The count", incident.count},
	} {
		story.chapter(step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	if *wait {
		story.say("the platform runs on; Ctrl-C stops it")
		<-ctx.Done()
	}
	return nil
}
