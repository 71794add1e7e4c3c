package session

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

func at(lsn scaleaware.LSN) scaleaware.Token {
	return scaleaware.Token{System: 1, Timeline: 1, LSN: lsn}
}

// source stands for a database: the function answers for it.
type source struct {
	position func(ctx context.Context) (scaleaware.Token, error)
}

func (s *source) Position(ctx context.Context) (scaleaware.Token, error) { return s.position(ctx) }

func TestTokenTravelsWithTheSession(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		one, two := serve(t, manager(t, rdb, Options{})), serve(t, manager(t, rdb, Options{}))
		db := &source{func(context.Context) (scaleaware.Token, error) { return at(7), nil }}
		one.on("write", func(_ http.ResponseWriter, r *http.Request) string {
			scaleaware.WatermarkFrom(r.Context()).RaiseFrom(db)
			return "written"
		})
		b := newBrowser(t)
		b.want(one, "write", "written")
		if b.cookie(one) != "" {
			t.Error("a session began only to carry a token")
		}
		b.call(one, "login?as=ada")
		b.want(two, "reads", "")
		resp, _ := b.response(one, "write")
		if len(resp.Cookies()) != 0 {
			t.Error("the cookie is repeated, which could undo a parallel renewal")
		}
		b.want(two, "reads", "1:1:0/7")
		b.want(two, "login?as=ada", "welcome") // clears the session, not what it has written
		b.want(one, "reads", "1:1:0/7")
		b.want(two, "logout", "bye")
		b.want(one, "reads", "")
	})
}

func TestLoginInTheWritingRequestKeepsTheToken(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{}))
	a.on("signup", func(_ http.ResponseWriter, r *http.Request) string {
		scaleaware.WatermarkFrom(r.Context()).Raise(at(5))
		if err := a.Login(r.Context(), "ada"); err != nil {
			return err.Error()
		}
		return "welcome"
	})
	b := newBrowser(t)
	b.want(a, "signup", "welcome")
	b.want(a, "reads", "1:1:0/5")
}

func TestTokenOfAWriteAfterTheFirstByte(t *testing.T) {
	a := serve(t, manager(t, client(t, cluster), Options{}))
	a.on("stream", func(w http.ResponseWriter, r *http.Request) string {
		_ = http.NewResponseController(w).Flush()
		scaleaware.WatermarkFrom(r.Context()).Raise(at(7))
		return "end"
	})
	b := newBrowser(t)
	b.call(a, "login?as=ada")
	b.want(a, "stream", "end")
	// The stream's end reaches the browser before the middleware has stored the token.
	eventually(t, "the token of the late write", func() bool { return b.call(a, "reads") == "1:1:0/7" })
	b.want(a, "who", "ada")
	if a.counted("token", "late") != 1 || a.counted("put", "late") != 0 {
		t.Error("counted as something else")
	}
}

func TestUnknownPositionIsNotFatal(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{PositionTimeout: 10 * time.Millisecond}))
	hung := &source{func(ctx context.Context) (scaleaware.Token, error) {
		<-ctx.Done()
		return scaleaware.Token{}, ctx.Err()
	}}
	a.on("write", func(_ http.ResponseWriter, r *http.Request) string {
		mark := scaleaware.WatermarkFrom(r.Context())
		mark.Raise(scaleaware.Token{System: 2, Timeline: 1, LSN: 3})
		mark.RaiseFrom(hung)
		return "written"
	})
	b := newBrowser(t)
	b.call(a, "login?as=ada")
	b.want(a, "write", "written")
	b.want(a, "reads", "2:1:0/3")
	if a.counted("token", "error") != 1 {
		t.Error("not counted")
	}
}

func TestClientThatHangsUpStillFindsItsWrite(t *testing.T) {
	a := serve(t, manager(t, client(t, cluster), Options{}))
	db := &source{func(ctx context.Context) (scaleaware.Token, error) { return at(7), ctx.Err() }}
	g := newGate()
	ended := make(chan struct{})
	a.on("write", func(_ http.ResponseWriter, r *http.Request) string {
		g.pass()
		<-r.Context().Done()
		scaleaware.WatermarkFrom(r.Context()).RaiseFrom(db)
		close(ended)
		return "nobody listens"
	})
	b := newBrowser(t)
	b.call(a, "login?as=ada")
	ctx, hangUp := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"/write", nil)
	failed := make(chan error)
	go func() {
		resp, err := b.client.Do(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	<-g.entered
	hangUp()
	close(g.release)
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("the client did not hang up: %v", err)
	}
	<-ended
	eventually(t, "the session to hold the token", func() bool { return b.call(a, "reads") == "1:1:0/7" })
}

func TestMalformedStoredTokenIsNone(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{}))
	b := newBrowser(t)
	b.call(a, "login?as=ada")
	b.call(a, "put?key="+tokensKey+"&value=garbage")
	b.want(a, "reads", "")
	b.want(a, "who", "ada")
	if a.counted("token", "malformed") == 0 {
		t.Error("not counted")
	}
}

// The session and a Carrier around the same handler share the watermark, in either order.
func TestWithCarrier(t *testing.T) {
	signer, err := scaleaware.NewSigner([]string{"a secret of thirty-two characters"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	carrier, err := scaleaware.NewCarrier(signer, &scaleaware.CarrierOptions{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	m := manager(t, client(t, single), Options{})
	a := serve(t, m)
	a.on("write", func(_ http.ResponseWriter, r *http.Request) string {
		scaleaware.WatermarkFrom(r.Context()).Raise(at(7))
		return "written"
	})
	for name, handler := range map[string]http.Handler{
		"carrier outside": carrier.Middleware(m.Middleware(a.verbs)),
		"session outside": m.Middleware(carrier.Middleware(a.verbs)),
	} {
		t.Run(name, func(t *testing.T) {
			both := serveHandler(t, m, handler)
			b := newBrowser(t)
			b.want(both, "write", "written") // anonymous: the carrier has it
			b.want(both, "reads", "1:1:0/7")
			b.want(both, "login?as=ada", "welcome") // from here on the session has it too
			b.want(a, "reads", "1:1:0/7")           // an instance without a carrier
		})
	}
}
