package cache

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/admin"
)

// listener mounts the store's operations as a service does.
func listener(t *testing.T, s *Store) func(method, path, body string) (int, map[string]any) {
	t.Helper()
	h, err := admin.New(s.Operations(), &admin.Options{AllowInsecureLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func(method, path, body string) (int, map[string]any) {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost:3002"
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var reply map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil {
			t.Fatalf("%s %s: %d %q", method, path, w.Code, w.Body)
		}
		return w.Code, reply
	}
}

func TestRunbookCalls(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead", TTL(time.Hour))
		if err := leads.DeclareWarm(WarmSet[lead]{Name: "hot", Keys: numbers(20), Load: loads(lead{})}); err != nil {
			t.Fatal(err)
		}
		call := listener(t, s)
		const path = "/api/v1/performance/cache/"

		status, reply := call("POST", path+"warm?wait=true", "")
		if status != 200 || reply["complete"] != true {
			t.Errorf("warm and wait: %d %v", status, reply)
		}
		fillStore(t, ctx, leads, 5)
		if _, err := leads.Get(ctx, "1"); err != nil {
			t.Fatal(err)
		}
		if _, err := leads.Get(ctx, "none"); !errors.Is(err, ErrMiss) {
			t.Fatal(err)
		}
		status, reply = call("GET", path+"hit-rate", "")
		if total := reply["total"].(map[string]any); status != 200 || total["rate"] != 0.5 || total["lookups"] != 2.0 {
			t.Errorf("hit rate: %d %v", status, reply)
		}
		status, reply = call("POST", path+"extend-ttls?dry_run=true", "")
		if status != 200 || reply["changed"] != 20.0 || s.extension.Load().of() != nil {
			t.Errorf("dry extend: %d %v", status, reply)
		}
		status, reply = call("POST", path+"extend-ttls", "")
		if status != 200 || reply["changed"] != 20.0 || rdb.PTTL(ctx, leads.prefix+"1").Val() < 100*time.Minute {
			t.Errorf("extend: %d %v", status, reply)
		}
		status, reply = call("POST", path+"extend-ttls", `{"by":"3h","pattern":"lead:1"}`)
		if status != 200 || reply["changed"] != 1.0 || rdb.PTTL(ctx, leads.prefix+"1").Val() < 220*time.Minute {
			t.Errorf("extend by: %d %v", status, reply)
		}
		status, reply = call("POST", path+"extend-ttls", `{"factor":3,"pause":"4ms"}`) // lead:1 lives for longer already
		if status != 200 || reply["changed"] != 19.0 {
			t.Errorf("extend with pauses: %d %v", status, reply)
		}
		status, reply = call("DELETE", path+"extend-ttls?pause=4ms", "")
		if status != 200 || reply["changed"] != 20.0 || rdb.PTTL(ctx, leads.prefix+"1").Val() > time.Hour {
			t.Errorf("restore: %d %v", status, reply)
		}
		status, reply = call("POST", path+"invalidate?dry_run=true", `{"pattern":"*"}`)
		if _, err := leads.Get(ctx, "1"); err != nil || status != 200 || reply["changed"] != 20.0 {
			t.Errorf("dry invalidate: %d %v, %v", status, reply, err)
		}
		status, reply = call("POST", path+"invalidate", `{"pattern":"*","pause":"4ms"}`)
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) || status != 200 || reply["complete"] != true {
			t.Errorf("invalidate: %d %v, %v", status, reply, err)
		}
		status, reply = call("POST", path+"warm", "")
		if status != 202 || reply["operation"] == "" {
			t.Errorf("warm: %d %v", status, reply)
		}
		eventually(t, "warmed in the background", func() bool { _, err := leads.Get(ctx, "19"); return err == nil })
	})
}

func TestBadCallsNameTheFieldAndChangeNothing(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	leads := Of[lead](s, "lead")
	fillStore(t, ctx, leads, 5)
	call := listener(t, s)
	for _, c := range []struct{ method, path, body, field string }{
		{"POST", "invalidate", "", "pattern"},
		{"POST", "invalidate", `{"pattern":""}`, "pattern"},
		{"POST", "invalidate", `{"pattern":"scs:session:*"}`, "pattern"},
		{"POST", "invalidate", `{"pattern":"a\nb"}`, "pattern"},
		{"POST", "extend-ttls", `{"factor":0.5}`, "factor"},
		{"POST", "extend-ttls", `{"factor":1e9}`, "factor"},
		{"POST", "extend-ttls", `{"by":"soon"}`, "by"},
		{"POST", "extend-ttls", `{"pause":"soon"}`, "pause"},
		{"POST", "invalidate", `{"pattern":"*","pause":"21ms"}`, "pause"},
		{"POST", "invalidate", `{"tags":["a"],"pause":"5ms"}`, "pause"},
		{"DELETE", "extend-ttls?pause=soon", "", "pause"},
		{"POST", "extend-ttls", `{"pause":"21ms"}`, "pause"},
		{"POST", "extend-ttls", `{"pause":"-1ms"}`, "pause"},
		{"POST", "extend-ttls", `{"by":"-5m"}`, "by"},
		{"POST", "extend-ttls", `{"pattern":"asynq:*"}`, "pattern"},
		{"POST", "warm?set=nothing", "", "set"},
	} {
		status, reply := call(c.method, operationsPath+c.path, c.body)
		if status != http.StatusBadRequest || reply["field"] != c.field {
			t.Errorf("%s %s: %d %v", c.path, c.body, status, reply)
		}
	}
	if found, err := leads.GetMany(ctx, []string{"0", "1", "2", "3", "4"}); len(found) != 5 || err != nil || s.extension.Load().of() != nil {
		t.Errorf("%d left, %v", len(found), err)
	}
}

func TestRedisDownIsA503(t *testing.T) {
	rdb := lazy()
	defer rdb.Close()
	call := listener(t, newStore(t, rdb, nil))
	for _, c := range [][3]string{{"POST", "invalidate", `{"pattern":"*"}`}, {"POST", "extend-ttls", ""}, {"DELETE", "extend-ttls", ""}} {
		if status, reply := call(c[0], operationsPath+c[1], c[2]); status != http.StatusServiceUnavailable {
			t.Errorf("%v: %d %v", c, status, reply)
		}
	}
}

func TestInvalidateTagsCall(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	leads := Of[lead](s, "lead", Tags(byCustomer))
	cached := func() bool {
		_, err := leads.Get(ctx, "1")
		return err == nil
	}
	eventually(t, "it is cached", func() bool {
		_, err := leads.Load(ctx, "1", loads(lead{Score: 4}))
		return err == nil && cached()
	})
	call := listener(t, s)
	const path = "/api/v1/performance/cache/invalidate"
	for body, want := range map[string]int{
		`{"tags":["customer:4"],"pattern":"*"}`: 400, `{"tags":[""]}`: 400, `{}`: 400, `{"tags":["customer:5"]}`: 200,
	} {
		if status, reply := call("POST", path, body); status != want {
			t.Errorf("%s: %d %v", body, status, reply)
		}
	}
	if status, reply := call("POST", path+"?dry_run=true", `{"tags":["customer:4"]}`); status != 200 || reply["dry_run"] != true || !cached() {
		t.Errorf("dry run: %d %v", status, reply)
	}
	if status, reply := call("POST", path, `{"tags":["customer:4"]}`); status != 200 || reply["complete"] != true || cached() {
		t.Errorf("%d %v", status, reply)
	}
	if status, reply := call("GET", "/api/v1/performance/cache/servers", ""); status != 200 || len(reply["servers"].([]any)) != 1 {
		t.Errorf("%d %v", status, reply)
	}
}
