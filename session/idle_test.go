package session

import (
	"net/http"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
)

// A late write whose position the session has already leaves the session's own idle timeout, which reading it has changed.
func TestLateWriteKeepsTheIdleTimeout(t *testing.T) {
	rdb := client(t, single)
	a := serve(t, manager(t, rdb, Options{IdleTimeout: time.Minute}))
	position := scaleaware.Token{System: 7, Timeline: 1, LSN: 1000}
	a.on("write", func(_ http.ResponseWriter, r *http.Request) string {
		if err := a.SetIdleTimeout(r.Context(), time.Hour); err != nil {
			t.Error(err)
		}
		scaleaware.WatermarkFrom(r.Context()).Raise(position)
		return "written"
	})
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	b.want(a, "write", "written")
	token := b.cookie(a)
	if err := a.store.(*Store).raise(t.Context(), token, nil, scaleaware.Tokens{position}); err != nil {
		t.Fatal(err)
	}
	if ttl := rdb.PTTL(t.Context(), a.keyOf(token)).Val(); ttl < 50*time.Minute {
		t.Errorf("a session that may be idle for an hour ends in %v", ttl)
	}
}
