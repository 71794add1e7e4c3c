package cache

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// moving answers everything in pipelines that changes entries as a cluster does whose slots move on and on.
type moving struct{ redis.Hook }

type movedError string

func (e movedError) Error() string { return string(e) }
func (movedError) RedisError()     {}

func (moving) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (moving) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (moving) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if name := cmds[0].Name(); name != "unlink" && name != "evalsha" {
			return next(ctx, cmds)
		}
		for _, cmd := range cmds {
			cmd.SetErr(movedError("MOVED 3558 127.0.0.1:1"))
		}
		return cmds[0].Err()
	}
}

// A slot may move more often than a pipeline follows: then each key is asked for alone.
func TestSweepsFollowSlotsThatMoveOn(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, six.Get(t))
	s := newStore(t, rdb, nil)
	leads := Of[lead](s, "lead", TTL(time.Hour))
	ids := fillStore(t, ctx, leads, 30)
	rdb.AddHook(moving{})
	keys := leads.keysOf(ids)
	changed, _, err := s.oneByOne(ctx, extendScript.one, keys, []any{1.0, 0, 0})
	if err != nil || changed != 30 {
		t.Errorf("%d TTLs extended, %v", changed, err)
	}
	if report, err := s.Invalidate(ctx, "*"); err != nil || report.Changed != 30 || !report.Complete {
		t.Errorf("%+v, %v", report, err)
	}
}
