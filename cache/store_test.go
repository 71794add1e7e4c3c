package cache

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// lazy makes clients that never dial.
func lazy() *redis.Client { return redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) }

func TestNewRefuses(t *testing.T) {
	rdb := lazy()
	defer rdb.Close()
	for prefix, says := range map[string]string{
		"app": "colon", ":": "colon", "a*:": "glob", "a?:": "glob", "a[b]:": "glob", `a\:`: "glob", "{app}:": "braces", "a b:": "blank", "a\n:": "control",
		strings.Repeat("a", 64) + ":": "at most 64", "asynq:": "others", "scs:": "others", "scs:session:": "others", "scaleaware:x:": "others",
	} {
		_, err := New(rdb, &Options{Prefix: prefix})
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "Options.Prefix") {
			t.Errorf("%q: %v", prefix, err)
		}
	}
	_, err := New(nil, &Options{Prefix: "*", MaxLoads: -1, LoadTimeout: -1, Window: 1, WarmSchedule: "hourly"})
	for _, says := range []string{"client is nil", "Prefix", "MaxLoads", "LoadTimeout", "Window", "WarmSchedule"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s is not named in %v", says, err)
		}
	}
	for option, set := range map[string]func(*redis.ClusterOptions){
		"ReadOnly":       func(o *redis.ClusterOptions) { o.ReadOnly = true },
		"RouteByLatency": func(o *redis.ClusterOptions) { o.RouteByLatency = true },
		"RouteRandomly":  func(o *redis.ClusterOptions) { o.RouteRandomly = true },
	} {
		o := &redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}}
		set(o)
		replicas := redis.NewClusterClient(o)
		defer replicas.Close()
		if _, err := New(replicas, nil); err == nil || !strings.Contains(err.Error(), option) {
			t.Errorf("%s: %v", option, err)
		}
	}
}

func TestNewDefaults(t *testing.T) {
	rdb := lazy()
	defer rdb.Close()
	reg := prometheus.NewRegistry()
	for range 2 { // two stores may share a registry
		s, err := New(rdb, &Options{Registerer: reg})
		if err != nil {
			t.Fatal(err)
		}
		if s.opts.Prefix != "app:" || s.opts.MaxLoads != 64 || s.opts.RedisTimeout != 250*time.Millisecond {
			t.Errorf("%+v", s.opts)
		}
	}
	if s, err := New(rdb, nil); err != nil || s == nil {
		t.Error(err)
	}
}

func TestViewMistakesAreReturnedByEachCall(t *testing.T) {
	rdb := lazy()
	defer rdb.Close()
	s, err := New(rdb, nil)
	if err != nil {
		t.Fatal(err)
	}
	good := Of[lead](s, "lead", TTL(time.Minute))
	if again := Of[lead](s, "lead", TTL(time.Minute)); again != good || good.Err() != nil {
		t.Errorf("the same declaration is another view: %v", again.Err())
	}
	ctx := context.Background()
	for name, v := range map[string]*View[lead]{
		"colon": Of[lead](s, "a:b"), "empty": Of[lead](s, ""), "meta": Of[lead](s, "~ttl"), "TTL": Of[lead](s, "ttl", TTL(-1)),
		"negative": Of[lead](s, "neg", NegativeTTL(-1)), "jitter": Of[lead](s, "jit", Jitter(2)), "codec": Of[lead](s, "cod", WithCodec(nil)),
		"other settings": Of[lead](s, "lead", TTL(time.Hour)),
	} {
		_, getErr := v.Get(ctx, "1")
		_, loadErr := v.Load(ctx, "1", loads(lead{}))
		_, manyErr := v.GetMany(ctx, []string{"1"})
		if v.Err() == nil || manyErr == nil || getErr == nil || loadErr == nil || v.Set(ctx, "1", lead{}) == nil || v.Delete(ctx, "1") == nil {
			t.Errorf("%s: accepted", name)
		}
		if err := s.Ready(ctx); err == nil || !strings.Contains(err.Error(), v.Err().Error()) {
			t.Errorf("%s: Ready says %v", name, err)
		}
	}
	if v := Of[string](s, "lead", TTL(time.Minute)); v.Err() == nil || !strings.Contains(v.Err().Error(), "another name") {
		t.Errorf("other type: %v", v.Err())
	}
	if err := good.DeclareWarm(WarmSet[lead]{Name: "x y", Concurrency: -1}); err == nil || !strings.Contains(err.Error(), "Keys, and either Load or LoadMany") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Warm(ctx, "nothing"); !errors.Is(err, ErrUnknownSet) {
		t.Errorf("got %v", err)
	}
}

func TestSchemaFollowsTheShape(t *testing.T) {
	type node struct{ Next *node }
	type a struct{ X int }
	type b struct{ X int }
	type c struct{ Y int }
	type d struct {
		X int `json:"x"`
	}
	shapes := map[uint64]reflect.Type{}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[a](), reflect.TypeFor[c](), reflect.TypeFor[d](), reflect.TypeFor[node](), reflect.TypeFor[[]a](),
		reflect.TypeFor[map[string]a](), reflect.TypeFor[time.Time](), reflect.TypeFor[struct{}](),
	} {
		if was, ok := shapes[schemaOf(typ)]; ok {
			t.Errorf("%v has the shape of %v", typ, was)
		}
		shapes[schemaOf(typ)] = typ
	}
	if schemaOf(reflect.TypeFor[a]()) != schemaOf(reflect.TypeFor[b]()) {
		t.Error("renaming a type makes its entries misses")
	}
}
