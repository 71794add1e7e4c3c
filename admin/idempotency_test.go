package admin_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/scaleaware/scaleaware/admin"
)

func TestIdempotencyKey(t *testing.T) {
	var did atomic.Int64
	fail := errors.New("no luck")
	h := mount(t, &admin.Options{Tokens: append(tokens(), admin.Token{Name: "more", Role: admin.Operator, Secret: "another-secret-0123456789"})}, admin.Operation{
		Method: "POST", Path: "/api/v1/thing", ID: "thing.do", Role: admin.Operator, Body: pauseBody{},
		Do: func(_ context.Context, call *admin.Call) (any, error) {
			n := did.Add(1)
			switch admin.Body[pauseBody](call).Reason {
			case "breaks":
				return nil, fail
			case "conflicts":
				return nil, admin.Conflict("not now (%d)", n)
			case "panics":
				panic("oh")
			}
			return map[string]int64{"n": n}, nil
		},
	})
	do := func(secret, key, target, body string) (status int, reply, replayed string) {
		w := serve(h, request("POST", target, body, bearing(secret), header("Idempotency-Key", key), header("Content-Type", "application/json")))
		return w.Code, w.Body.String(), w.Header().Get("Idempotency-Replayed")
	}
	const path = "/api/v1/thing"
	_, first, _ := do(operatorSecret, "k1", path, `{"reason":"a"}`)
	status, again, replayed := do(operatorSecret, "k1", path, `{"reason":"a"}`)
	if status != 200 || again != first || replayed != "true" || did.Load() != 1 {
		t.Fatalf("the repetition is %d %s, replayed %q, done %d times", status, again, replayed, did.Load())
	}
	for name, other := range map[string][2]string{"body": {path, `{"reason":"b"}`}, "query": {path + "?dry_run=true", `{"reason":"a"}`}} {
		if status, reply, _ := do(operatorSecret, "k1", other[0], other[1]); status != http.StatusUnprocessableEntity {
			t.Errorf("the key with another %s is %d %s", name, status, reply)
		}
	}
	if status, _, replayed := do("another-secret-0123456789", "k1", path, `{"reason":"b"}`); status != 200 || replayed != "" {
		t.Errorf("another caller's same key is %d, replayed %q", status, replayed)
	}
	before := did.Load()
	for _, reason := range []string{"breaks", "panics"} {
		for range 2 {
			if status, _, _ := do(operatorSecret, reason, path, `{"reason":"`+reason+`"}`); status != 500 {
				t.Errorf("%s is %d", reason, status)
			}
		}
	}
	if did.Load() != before+4 {
		t.Errorf("what failed was not tried again: %d", did.Load()-before)
	}
	_, first, _ = do(operatorSecret, "c", path, `{"reason":"conflicts"}`)
	if status, again, _ := do(operatorSecret, "c", path, `{"reason":"conflicts"}`); status != 409 || again != first {
		t.Errorf("a refusal repeated is %d %s, want %s", status, again, first)
	}
	for _, key := range []string{strings.Repeat("k", 256), "a\x01"} {
		if status, _, _ := do(operatorSecret, key, path, ""); status != 400 {
			t.Errorf("key %.20q is %d", key, status)
		}
	}
	before = did.Load()
	for range 2 {
		serve(h, request("POST", path, "", bearing(viewerSecret), header("Idempotency-Key", "k1")))
	}
	if did.Load() != before {
		t.Error("a viewer's key reached the operation")
	}
}

func TestIdempotencyKeyWhileItRuns(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	h := mount(t, &admin.Options{Tokens: tokens()}, admin.Operation{
		Method: "POST", Path: "/api/v1/thing", ID: "thing.do", Role: admin.Operator,
		Do: func(context.Context, *admin.Call) (any, error) { close(inside); <-leave; return nil, nil },
	})
	do := func() int {
		return serve(h, request("POST", "/api/v1/thing", "", bearing(operatorSecret), header("Idempotency-Key", "k"))).Code
	}
	first := make(chan int)
	go func() { first <- do() }()
	<-inside
	if status := do(); status != http.StatusConflict {
		t.Errorf("a repetition while the first is served is %d", status)
	}
	close(leave)
	if status := <-first; status != 200 {
		t.Errorf("the first is %d", status)
	}
	if status := do(); status != 200 {
		t.Errorf("a repetition after it is %d", status)
	}
}
