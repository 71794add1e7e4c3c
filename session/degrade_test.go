package session

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
)

// dead is a Redis that answers nothing while it is set.
type dead struct{ atomic.Bool }

func (d *dead) DialHook(next redis.DialHook) redis.DialHook { return next }

func (d *dead) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if d.Load() {
			cmd.SetErr(errors.New("dead"))
			return cmd.Err()
		}
		return next(ctx, cmd)
	}
}

func (d *dead) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// Degrade does not serve what this very process has logged out, or has seen to be gone, though nobody hears the news.
func TestDegradeForgetsWhatEnded(t *testing.T) {
	for name, end := range map[string]func(a *app, b *browser) error{
		"logout":     func(a *app, b *browser) error { b.want(a, "logout", "bye"); return nil },
		"device":     func(a *app, _ *browser) error { return a.LogoutDevice(t.Context(), "ada", devices(t, a, "ada")[0].ID) },
		"everywhere": func(a *app, _ *browser) error { _, err := a.LogoutEverywhere(t.Context(), "ada"); return err },
		"unlisted": func(a *app, _ *browser) error {
			s := a.store.(*Store)
			if err := s.rdb.Del(t.Context(), a.principals.keys("ada")[1]).Err(); err != nil {
				return err
			}
			_, err := a.LogoutEverywhere(t.Context(), "ada")
			return err
		},
		"elsewhere": func(a *app, b *browser) error {
			old := b.with(a, b.cookie(a))
			other := serve(t, manager(t, client(t, single), Options{Prefix: a.opts.Prefix}))
			old.want(other, "logout", "bye")
			b.want(a, "who", "")
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			rdb, down := client(t, single), new(dead)
			rdb.AddHook(down)
			a := serve(t, manager(t, rdb, Options{OnStoreDown: Degrade}))
			b := newBrowser(t)
			b.want(a, "login?as=ada", "welcome")
			b.want(a, "who", "ada")
			old := b.with(a, b.cookie(a))
			down.Store(true)
			old.want(a, "who", "ada")
			down.Store(false)
			if err := end(a, b); err != nil {
				t.Fatal(err)
			}
			down.Store(true)
			old.want(a, "who", "")
		})
	}
}
