package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// story tells what happens.
type story struct {
	out      io.Writer
	began    time.Time
	chapters int
}

func newStory(out io.Writer) *story { return &story{out: out, began: time.Now()} }

func (s *story) chapter(title string) {
	s.chapters++
	fmt.Fprintf(s.out, "\n%d. %s\n", s.chapters, title)
}

func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.out, "   %5.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// patience is how long anything may take before the story has gone wrong.
const patience = 90 * time.Second

// until asks again and again until the answer is yes.
func until(ctx context.Context, what string, yes func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v: %s", patience, what))
	defer cancel()
	var last error
	for {
		done, err := yes(ctx)
		if done && err == nil {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if last != nil {
				return fmt.Errorf("%w (last: %w)", context.Cause(ctx), last)
			}
			return context.Cause(ctx)
		case <-time.After(250 * time.Millisecond):
		}
	}
}
