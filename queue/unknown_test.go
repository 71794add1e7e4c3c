package queue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
)

// away is a database that is down and whose system is known.
type away struct{}

func (*away) System() uint64 { return 7 }

func (*away) Position(context.Context) (scaleaware.Token, error) {
	return scaleaware.Token{}, errors.New("the primary is away")
}

// A job that is enqueued while its writer's position cannot be had tells its handler so.
func TestUnknownPositionTravelsWithTheJob(t *testing.T) {
	t.Parallel()
	q := fresh("unknown")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	got := make(chan scaleaware.Tokens, 1)
	w := newWorker(t, j, nil)
	Handle(w, func(ctx context.Context, _ note) error {
		tokens, err := scaleaware.WatermarkFrom(ctx).Written(ctx)
		got <- tokens
		return err
	})
	start(t, w)
	ctx, mark := scaleaware.WithWatermark(t.Context())
	mark.RaiseFrom(new(away))
	if _, err := j.Enqueue(ctx, note{N: 1}); err != nil {
		t.Fatal(err)
	}
	select {
	case tokens := <-got:
		if len(tokens) != 1 || !tokens.For(7).Unknown() {
			t.Errorf("the handler's reads wait for %v", tokens)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the job did not run")
	}
}

// The relay takes a position after the transaction, so that a job from the outbox has it and nothing unknown; what is
// unknown of another database stays.
func TestRelaySettlesWhatTheOutboxHeld(t *testing.T) {
	unknown, other := scaleaware.UnknownPosition(7), scaleaware.UnknownPosition(8)
	var e envelope
	e.raise(scaleaware.Tokens{unknown, other})
	e.raise(scaleaware.Tokens{{System: 7, Timeline: 1, LSN: 9}})
	tokens, err := tokensIn(e.Headers)
	if want := (scaleaware.Token{System: 7, Timeline: 1, LSN: 9}); err != nil || len(tokens) != 2 || tokens.For(7) != want || tokens.For(8) != other {
		t.Errorf("the job carries %v, %v", tokens, err)
	}
}
