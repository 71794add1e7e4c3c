package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/queue/scalehook"
)

// backlogWithin is the time within which a backlog is to be gone.
const backlogWithin = 30 * time.Second

// Workers of a fleet; the most is what the database behind them can bear.
const (
	fewWorkers  = 2
	manyWorkers = 20
)

// autoscale chooses what is scaled by AUTOSCALE:
//
//   - slots, or nothing: this process's own, for where one worker does all the work;
//   - deployment/NAME: the replicas of a Deployment in Kubernetes, of which this process is one;
//   - https://… or http://…: whatever a server of yours makes of the number that is posted to it;
//   - dry-run: nothing, but decisions are made, for KEDA to read from GET …/jobs/lead-processing/scaling;
//   - off: nothing, because another process decides.
//
// One process of the fleet decides at a time, whichever holds the lease.
func autoscale(service *lead.Service, worker *queue.Worker, choice string) (err error) {
	rule := queue.ScaleRule{Queue: lead.QueueLeads, Latency: backlogWithin, Min: fewWorkers, Max: manyWorkers}
	options := &queue.ScaleOptions{Bottleneck: service.Bottleneck}
	var hook queue.ScaleHook
	deployment, isDeployment := strings.CutPrefix(choice, "deployment/")
	switch {
	case choice == "off":
		return nil
	case choice == "dry-run":
		options.DryRun = true
	case choice == "" || choice == "slots":
		rule.Slots, rule.Min, rule.Max = 1, slots, maxSlots // a "worker" of the rule is a slot
		hook = worker.ScaleTo
	case isDeployment:
		hook, err = scalehook.Kubernetes(deployment, nil)
	case strings.HasPrefix(choice, "https://"), strings.HasPrefix(choice, "http://"):
		hook, err = scalehook.HTTP(choice, nil)
	default:
		err = fmt.Errorf("it is %q, want slots, deployment/NAME, a URL, dry-run or off", choice)
	}
	if err != nil {
		return fmt.Errorf("AUTOSCALE: %w", err)
	}
	return service.Jobs.Autoscale(rule, hook, options)
}
