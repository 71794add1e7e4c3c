package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"
)

// operations are what an operator does meanwhile. Undoing one is repeated until it succeeds: it must, once all is healed.
func (s *soak) operations() []fault {
	operation := func(name, class string, most time.Duration, do, undo func(dice *rand.Rand) [2]string) fault {
		return fault{name: name, class: class, most: most, begin: func(dice *rand.Rand) (string, func() error, error) {
			seed := dice.Uint64()
			request := do(rand.New(rand.NewPCG(seed, 0)))
			status, reply := s.operate(request[0], request[1])
			note := fmt.Sprintf("%s %s: %d %.120s", request[0], request[1], status, reply)
			if undo == nil {
				return note, nil, nil
			}
			return note, func() error { return s.insist(undo(rand.New(rand.NewPCG(seed, 0)))) }, nil
		}}
	}
	fixed := func(method, path string) func(*rand.Rand) [2]string {
		return func(*rand.Rand) [2]string { return [2]string{method, path} }
	}
	queue := func(verb string) func(*rand.Rand) [2]string {
		return func(dice *rand.Rand) [2]string {
			names := []string{"critical", "lead-processing", "normal", "low-priority"}
			return [2]string{"POST", "/api/v1/performance/jobs/" + names[dice.IntN(len(names))] + "/" + verb}
		}
	}
	return []fault{
		{name: "read-only mode", class: "mode", least: 2 * second, most: 6 * second, begin: s.readOnlyMode},
		operation("incident", "mode", 5*second, fixed("POST", "/api/v1/admin/incident"), fixed("DELETE", "/api/v1/admin/incident")),
		operation("whole cache invalidated", "cache", second, fixed("POST", "/api/v1/performance/cache/invalidate"), nil),
		operation("TTLs extended", "cache", 4*second, fixed("POST", "/api/v1/performance/cache/extend-ttls"), fixed("DELETE", "/api/v1/performance/cache/extend-ttls")),
		operation("queue paused", "queue", 6*second, queue("pause"), queue("resume")),
		operation("queue parked", "queue", 4*second, queue("drain"), queue("resume")),
	}
}

// readOnlyMode: while every member is reported to obey and to have nothing in flight, nothing is committed, by a request
// or by a job.
func (s *soak) readOnlyMode(*rand.Rand) (string, func() error, error) {
	const path = "/api/v1/admin/read-only-mode"
	type report struct {
		Epoch                   uint64
		Enabled                 bool
		Phase                   string
		Instances, Acknowledged int
	}
	ask := func(method string) (r report, status int) {
		status, blob := s.operate(method, path)
		if status == 200 {
			_ = json.Unmarshal([]byte(blob), &r)
		}
		return r, status
	}
	on, status := ask("POST")
	note := fmt.Sprintf("%d %+v", status, on)
	obeyed := on.Enabled && on.Phase == "held" && on.Instances == soakMembers && on.Acknowledged == soakMembers
	const sum = `SELECT count(*) || ' leads with ' || coalesce(sum(revision), 0) || ' revisions and ' || count(score) || ' scores' FROM "Lead"`
	before, err := s.ask(sum)
	return note, func() error {
		after, err := s.ask(sum)
		if err != nil {
			return err
		}
		if now, _ := ask("GET"); obeyed && now.Enabled && now.Epoch == on.Epoch {
			s.count("read-only windows")
			if after != before {
				s.violate(nil, "read-only mode was held (%+v), and %s became %s", on, before, after)
			}
		}
		return s.insist([2]string{"DELETE", path})
	}, err
}
