package session

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// jsonCodec is somebody's own codec.
type jsonCodec struct{}

type jsonSession struct {
	Deadline time.Time
	Values   map[string]any
}

func (jsonCodec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	return json.Marshal(jsonSession{deadline, values})
}

func (jsonCodec) Decode(b []byte) (time.Time, map[string]any, error) {
	var s jsonSession
	err := json.Unmarshal(b, &s)
	return s.Deadline, s.Values, err
}

// With a codec of the service's own everything that looks into sessions does so with that, also where two managers share a
// Store.
func TestOwnCodec(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		store, err := NewStore(rdb, &Options{Insecure: true, Prefix: prefix(t), StoreTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		m, err := NewWithStore(store, &Options{Insecure: true})
		if err != nil {
			t.Fatal(err)
		}
		m.SCS().Codec = jsonCodec{}
		if _, err := NewWithStore(store, &Options{Insecure: true, CookieName: "other"}); err != nil {
			t.Fatal(err)
		}
		a := serve(t, m)
		slow, _ := renewing(a)
		g := newGate()
		a.on("held", func(_ http.ResponseWriter, r *http.Request) string {
			_ = a.Load(r.Context())
			a.SCS().Put(r.Context(), "one", "v")
			g.pass()
			return "done"
		})
		b := newBrowser(t)
		b.want(a, "login?as=ada", "welcome")
		other := b.with(a, b.cookie(a))
		var all sync.WaitGroup
		all.Go(func() { other.want(a, "held", "done") })
		<-g.entered
		b.want(a, "put?key=two&value=v", "put")
		close(g.release)
		all.Wait()
		b.want(a, "get?key=one", "v") // merged
		b.want(a, "get?key=two", "v")
		all.Go(func() { other.want(a, "slow", "done") })
		<-slow.entered
		b.want(a, "renew", "renewed")
		close(slow.release)
		all.Wait()
		b.want(a, "get?key=late", "v") // followed the renewal
		position := scaleaware.Token{System: 7, Timeline: 1, LSN: 1000}
		if err := m.store.(*Store).raise(t.Context(), b.cookie(a), nil, scaleaware.Tokens{position}); err != nil {
			t.Error(err)
		}
		b.want(a, "reads", position.String())
		if listed, err := m.SCS().Store.(*Store).AllCtx(t.Context()); err != nil || len(listed) != 1 {
			t.Errorf("%d sessions are listed, %v", len(listed), err)
		}
		b.want(a, "logout", "bye")
	})
}

// What scs's codec does not check is checked of another one, too.
func TestOwnCodecIsNotTrusted(t *testing.T) {
	rdb := client(t, single)
	m := manager(t, rdb, Options{})
	m.SCS().Codec = jsonCodec{}
	a := serve(t, m)
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	past, err := jsonCodec{}.Encode(time.Now().Add(-time.Hour), map[string]any{principalKey: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	key := a.keyOf(b.cookie(a))
	for outcome, data := range map[string]string{"expired": string(past), "undecodable": "garbage"} {
		rdb.Set(t.Context(), key, data+hashMark, time.Hour)
		b.with(a, b.cookie(a)).want(a, "who", "")
		if a.counted("load", outcome) != 1 {
			t.Errorf("it was not counted as %s", outcome)
		}
	}
	_, _, err = (tolerant{jsonCodec{}}).Decode([]byte("garbage"))
	if !errors.Is(err, errUndecodable) {
		t.Errorf("garbage: %v", err)
	}
}
