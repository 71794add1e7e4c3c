package redisclient_test

import (
	"context"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/redisclient"
)

func TestLeaseIsHeldByOne(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rdb := redisclient.New(withPassword(redisclient.Options(single.Get(t).Nodes()[0].Addr())))
	defer rdb.Close()
	a, b := redisclient.NewLease(rdb, "lease", time.Minute), redisclient.NewLease(rdb, "lease", time.Minute)
	hold := func(l *redisclient.Lease, want bool) {
		t.Helper()
		if held, err := l.Hold(ctx); held != want || err != nil {
			t.Errorf("Hold = %v, %v, want %v", held, err, want)
		}
	}
	hold(a, true)
	hold(b, false)
	hold(a, true)
	if err := b.Release(ctx); err != nil { // of what another one holds
		t.Error(err)
	}
	hold(b, false)
	if ttl := rdb.PTTL(ctx, "lease").Val(); ttl <= 0 || ttl > time.Minute {
		t.Errorf("the lease ends in %v", ttl)
	}
	if err := a.Release(ctx); err != nil {
		t.Error(err)
	}
	hold(b, true)
	hold(a, false)
	if err := rdb.PExpire(ctx, "lease", time.Millisecond).Err(); err != nil { // its holder has died
		t.Fatal(err)
	}
	for held := false; !held; {
		var err error
		if held, err = a.Hold(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
