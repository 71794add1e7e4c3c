package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

const (
	operationsPath = "/api/v1/operations/"
	maxState       = 256 << 10 // bytes of one progress or result
)

// job is one background operation.
type job struct {
	id, operation, key, actor string
	began                     time.Time

	mu       sync.Mutex
	progress json.RawMessage
	result   json.RawMessage
	failure  *Problem
	ended    time.Time
}

// operationStatus is the reply of GET /api/v1/operations/{id}.
type operationStatus struct {
	ID        string          `json:"id"`
	Operation string          `json:"operation"`
	Actor     string          `json:"actor"`
	State     string          `json:"state"` // running, done or failed
	Started   time.Time       `json:"started"`
	Finished  *time.Time      `json:"finished,omitempty"`
	Progress  json.RawMessage `json:"progress,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Problem   *Problem        `json:"problem,omitempty"`
}

type operationList struct {
	Operations []operationStatus `json:"operations"`
}

func (j *job) started() *Started {
	return &Started{Operation: j.id, Status: operationsPath + j.id}
}

func (j *job) run(ctx context.Context, work func(context.Context, Progress) (any, error)) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			result, err = nil, &panicError{value: p, stack: debug.Stack()}
		}
	}()
	return work(ctx, j.report)
}

// report encodes at once: the work may go on to change what it reported.
func (j *job) report(state any) {
	data, err := encodeState(state)
	if err != nil {
		data, _ = json.Marshal(map[string]string{"error": "the progress could not be shown"})
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended.IsZero() {
		j.progress = data
	}
}

// end records the outcome and returns the error that belongs in the log.
func (j *job) end(result any, err error) error {
	var data json.RawMessage
	if err == nil {
		data, err = encodeState(result)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended = time.Now()
	if err != nil {
		j.failure = asProblem(err)
		return err
	}
	j.result = data
	return nil
}

func (j *job) done() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.ended.IsZero()
}

func (j *job) status() operationStatus {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := operationStatus{ID: j.id, Operation: j.operation, Actor: j.actor, State: "running", Started: j.began, Progress: j.progress}
	if j.ended.IsZero() {
		return s
	}
	ended := j.ended
	s.State, s.Finished, s.Result, s.Problem = "done", &ended, j.result, j.failure
	if j.failure != nil {
		s.State = "failed"
	}
	return s
}

// encodeState returns a panic of v's own marshalling as an error: nobody else recovers on the goroutines of background work.
func encodeState(v any) (data json.RawMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			data, err = nil, &panicError{value: p, stack: debug.Stack()}
		}
	}()
	if v == nil {
		return nil, nil
	}
	data, err = encode(v)
	if err == nil && len(data) > maxState {
		err = fmt.Errorf("admin: a state of %d bytes: report at most %d", len(data), maxState)
	}
	return data, err
}
