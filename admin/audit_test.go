package admin_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

type auditList struct {
	Records    []auditRecord
	Suppressed int
}

type auditRecord struct {
	Actor, Role, Operation, Method, Path, Error string
	DryRun                                      bool `json:"dry_run"`
	Status                                      int
}

func TestEveryWriteIsAudited(t *testing.T) {
	var mu sync.Mutex
	var hooked []admin.Record
	var logged bytes.Buffer
	ops := append(sample(),
		admin.Operation{Method: "POST", Path: "/panic", ID: "panic", Role: admin.Operator, Do: func(context.Context, *admin.Call) (any, error) { panic("hunter2") }},
		admin.Operation{Method: "POST", Path: "/raw", ID: "raw", Role: admin.Operator, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202) })},
	)
	h := mount(t, &admin.Options{Tokens: tokens(), Logger: slog.New(slog.NewTextHandler(&logged, nil)), Audit: func(r admin.Record) {
		mu.Lock()
		defer mu.Unlock()
		hooked = append(hooked, r)
		if r.Operation == "raw" {
			panic("in the hook")
		}
	}}, ops...)
	const path = "/api/v1/things/x/pause"
	serve(h, request("POST", path, "", bearing(operatorSecret)))
	serve(h, request("POST", path+"?dry_run=true", `{"reason":"canary"}`, bearing(operatorSecret)))
	serve(h, request("POST", path, `{"nothing":"canary"}`, bearing(operatorSecret)))
	serve(h, request("POST", path, "", bearing(viewerSecret)))
	serve(h, request("POST", path, "", bearing("canary-secret-0123456789")))
	serve(h, request("POST", path, "", bearing(operatorSecret), header("Sec-Fetch-Site", "cross-site")))
	serve(h, request("POST", "/panic", "", bearing(operatorSecret)))
	serve(h, request("POST", "/raw", "", bearing(operatorSecret)))
	serve(h, request("GET", "/api/v1/things/x", "", bearing(operatorSecret))) // a read leaves no record

	list := decode[auditList](t, serve(h, request("GET", "/api/v1/admin/audit", "", bearing(viewerSecret))))
	var got []string
	for _, r := range list.Records {
		got = append(got, fmt.Sprintf("%s/%s %s %s %s dry=%v %d", r.Actor, r.Role, r.Operation, r.Method, r.Path, r.DryRun, r.Status))
		if (r.Status >= 400) != (r.Error != "") {
			t.Errorf("error %q with status %d", r.Error, r.Status)
		}
	}
	want := []string{
		"ops/operator raw POST /raw dry=false 202",
		"ops/operator panic POST /panic dry=false 500",
		"ops/operator thing.pause POST " + path + " dry=false 403",
		"/ thing.pause POST " + path + " dry=false 401",
		"eyes/viewer thing.pause POST " + path + " dry=false 403",
		"ops/operator thing.pause POST " + path + " dry=false 400",
		"ops/operator thing.pause POST " + path + " dry=true 200",
		"ops/operator thing.pause POST " + path + " dry=false 200",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(hooked) != len(want) || hooked[0].Duration <= 0 || hooked[0].Remote != "127.0.0.1:40000" {
		t.Errorf("the hook got %+v", hooked)
	}
	if n := strings.Count(logged.String(), "msg=audit"); n != len(want) {
		t.Errorf("%d audit lines in the log", n)
	}
	if strings.Contains(logged.String(), "canary") || strings.Contains(logged.String(), operatorSecret) {
		t.Errorf("the log holds a body or a secret:\n%s", logged.String())
	}
	for _, part := range []string{"stack=", "hunter2", "Options.Audit panicked"} {
		if !strings.Contains(logged.String(), part) {
			t.Errorf("the log does not say %q", part)
		}
	}
	if w := serve(h, request("GET", "/api/v1/admin/audit?limit=2", "", bearing(viewerSecret))); len(decode[auditList](t, w).Records) != 2 {
		t.Error(w.Body)
	}
	wantProblem(t, serve(h, request("GET", "/api/v1/admin/audit?limit=0", "", bearing(viewerSecret))), 400)
}

// Strangers can push out neither the records of known people nor their right to write.
func TestStrangersDoNotCrowdOutTheAudit(t *testing.T) {
	h := mount(t, &admin.Options{Tokens: tokens(), AuditSize: 100, WriteRate: 50}, sample()...)
	const path = "/api/v1/things/x/pause"
	serve(h, request("POST", path, "", bearing(operatorSecret)))
	codes := map[int]int{}
	for range 2000 {
		codes[serve(h, request("POST", path, "")).Code]++
	}
	if codes[401] < 100 || codes[429] < 1000 {
		t.Fatalf("%v", codes)
	}
	if w := serve(h, request("POST", path, "", bearing(operatorSecret))); w.Code != 200 {
		t.Fatalf("the operator is locked out: %d", w.Code)
	}
	list := decode[auditList](t, serve(h, request("GET", "/api/v1/admin/audit?limit=1000", "", bearing(viewerSecret))))
	known := 0
	for _, r := range list.Records {
		if r.Actor == "ops" {
			known++
		}
	}
	if known != 2 || len(list.Records) != 12 || list.Suppressed != codes[429] {
		t.Fatalf("%d known of %d, %d suppressed, codes %v", known, len(list.Records), list.Suppressed, codes)
	}
}

func TestAuditIsBounded(t *testing.T) {
	h := mount(t, &admin.Options{AllowInsecureLoopback: true, AuditSize: 3, WriteRate: 1e6}, sample()...)
	for i := range 10 {
		serve(h, request("POST", fmt.Sprintf("/api/v1/things/%d/pause", i), ""))
	}
	list := decode[auditList](t, serve(h, request("GET", "/api/v1/admin/audit", "")))
	if len(list.Records) != 3 || list.Records[0].Path != "/api/v1/things/9/pause" {
		t.Fatalf("%+v", list)
	}
}

func TestWritesAreLimited(t *testing.T) {
	h := mount(t, &admin.Options{Tokens: append(tokens(), admin.Token{Name: "other", Role: admin.Operator, Secret: "other-secret-0123456789"}), WriteRate: 0.5}, sample()...)
	pause := request("POST", "/api/v1/things/x/pause", "", bearing(operatorSecret))
	if w := serve(h, pause); w.Code != 200 {
		t.Fatal(w.Code)
	}
	w := serve(h, request("POST", "/api/v1/things/x/pause", "", bearing(operatorSecret)))
	wantProblem(t, w, 429, "0.5 writes a second")
	if w.Header().Get("Retry-After") != "2" {
		t.Fatalf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	if w := serve(h, request("POST", "/api/v1/things/x/pause", "", bearing("other-secret-0123456789"))); w.Code != 200 {
		t.Fatal("one actor spends another's rate")
	}
	if w := serve(h, request("GET", "/api/v1/things/x", "", bearing(operatorSecret))); w.Code != 200 {
		t.Fatal("reads are limited")
	}
}

func TestBucketRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := admin.NewBucket(20)
		taken := func() (n int) {
			for b.Take("a", time.Now()) == nil {
				n++
			}
			return n
		}
		if n := taken(); n != 40 {
			t.Fatalf("burst of %d", n)
		}
		time.Sleep(time.Second)
		if n := taken(); n != 20 {
			t.Fatalf("%d after a second", n)
		}
		time.Sleep(time.Hour)
		if n := taken(); n != 40 {
			t.Fatalf("%d after an hour", n)
		}
		for i := range 5000 {
			b.Take(fmt.Sprint("actor", i), time.Now())
		}
		if n := b.Actors(); n > 1024 {
			t.Fatalf("%d actors are remembered", n)
		}
		if b.Take("a", time.Now()) == nil {
			t.Fatal("the spent bucket was forgotten before fuller ones")
		}
	})
}
