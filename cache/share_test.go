package cache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// asked notes how many keys each call of a script was for, and the bytes that it had.
type asked struct {
	pipelines
	mu    sync.Mutex
	one   int
	many  []int
	bytes []int
}

func (a *asked) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, cmd := range cmds {
			args := cmd.Args()
			if len(args) < 2 || redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
				continue
			}
			for _, s := range []keyScript{beginScript, storeScript} {
				switch args[1] {
				case s.one.Hash(), scriptText(s.one):
					a.one++
				case s.many.Hash(), scriptText(s.many):
					keys, bytes := 0, 0
					for _, arg := range args {
						if b, ok := arg.([]byte); ok {
							bytes += len(b)
						}
						if text, ok := arg.(string); ok && strings.Contains(text, ":lead:") {
							keys++
						}
					}
					a.many, a.bytes = append(a.many, keys), append(a.bytes, bytes)
				}
			}
		}
		return err
	}
}

func (a *asked) sum() (n int) {
	for _, keys := range a.many {
		n += keys
	}
	return n
}

func leadsOf(_ context.Context, ids []string) (map[string]lead, error) {
	found := make(map[string]lead, len(ids))
	for _, id := range ids {
		found[id] = lead{ID: id, Score: 1}
	}
	return found, nil
}

// wantAll wants all ids to be found, as leadsOf has them.
func wantAll(t *testing.T, found map[string]lead, err error, ids []string) {
	t.Helper()
	if err != nil || len(found) != len(ids) {
		t.Fatalf("%d of %d are there: %v", len(found), len(ids), err)
	}
	for _, id := range ids {
		if found[id].ID != id {
			t.Fatalf("%s is %+v", id, found[id])
		}
	}
}

// Many keys of a master begin and are stored together, on a cluster, and on a server that is known to be one.
func TestKeysOfAMasterGoTogether(t *testing.T) {
	ids := spread(300)
	for name, c := range map[string]struct {
		servers  *rediscluster.Shared
		runs     bool
		together bool
	}{
		"cluster":          {six, false, true},
		"single":           {one, true, true},
		"maybe a proxy":    {one, false, false},
		"cluster, it runs": {six, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			rdb := client(t, c.servers.Get(t))
			s := newStore(t, rdb, nil)
			if c.runs {
				covered(t, running(t, s))
			}
			leads := Of[lead](s, "lead")
			var sent asked
			rdb.AddHook(&sent)
			found, err := leads.LoadMany(ctx, ids, leadsOf)
			wantAll(t, found, err, ids)
			found, err = leads.GetMany(ctx, ids)
			wantAll(t, found, err, ids)
			if n := sent.sum(); c.together && (n != 2*len(ids) || sent.one > 0) || !c.together && (n != 0 || sent.one != 2*len(ids)) {
				t.Errorf("%d keys went together, %d alone", n, sent.one)
			}
			if len(sent.many) > 0 && slices.Max(sent.many) > shareKeys {
				t.Errorf("%d keys at once", slices.Max(sent.many))
			}
		})
	}
}

// A server that does not tell what changes may be a proxy also when processes tell each other.
func TestKeysGoAloneWhereChangesArePublished(t *testing.T) {
	ctx := testContext(t)
	rdb := untracked(t, false)
	s := running(t, newStore(t, rdb, func(o *Options) { o.RedisTimeout = 2 * time.Second })) // who listens waits for so long
	covered(t, s)
	leads := Of[lead](s, "lead")
	var sent asked
	rdb.AddHook(&sent)
	ids := spread(20)
	found, err := leads.LoadMany(ctx, ids, leadsOf)
	wantAll(t, found, err, ids)
	if n := sent.sum(); n != 0 || sent.one != 2*len(ids) {
		t.Errorf("%d keys went together, %d alone", n, sent.one)
	}
}

// What holds up a master grows with bytes, too.
func TestLargeValuesAreStoredApart(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, six.Get(t))
	leads := Of[lead](newStore(t, rdb, nil), "lead")
	noise := make([]byte, 10_000)
	_, _ = rand.Read(noise)
	var sent asked
	rdb.AddHook(&sent)
	ids := spread(100)
	found, err := leads.LoadMany(ctx, ids, func(_ context.Context, ids []string) (map[string]lead, error) {
		found := make(map[string]lead, len(ids))
		for _, id := range ids {
			found[id] = lead{ID: id + hex.EncodeToString(noise)}
		}
		return found, nil
	})
	if err != nil || len(found) != len(ids) {
		t.Fatal(len(found), err)
	}
	if most := slices.Max(sent.bytes); most > shareBytes || most < shareBytes/4 {
		t.Errorf("%d bytes at once", most)
	}
	if found, err := leads.GetMany(ctx, ids); err != nil || len(found) != len(ids) {
		t.Errorf("%d are stored, %v", len(found), err)
	}
}

// Keys of a slot that moves are refused when many are asked for, and go to where they belong one by one.
func TestBatchWhileASlotMoves(t *testing.T) {
	cluster := six.Get(t)
	ctx := testContext(t)
	rdb := client(t, cluster)
	leads := Of[lead](newStore(t, rdb, nil), "lead")
	stay, known, fresh := spread(40), inSlot("known", 40), inSlot("fresh", 20)
	slot, from, to := route(t, ctx, cluster, leads.prefix+known[0])
	if err := leads.Delete(wrote(ctx, at(5)), known...); err != nil { // leases of which some move
		t.Fatal(err)
	}
	m, err := cluster.BeginMigration(ctx, slot, to)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := m.Move(ctx, len(known)/2); err != nil || n != len(known)/2 {
		t.Fatal(n, err)
	}
	ids := slices.Concat(stay, known, fresh)
	var sent asked
	rdb.AddHook(&sent)
	found, err := leads.LoadMany(ctx, ids, ofEach(loads(lead{Score: 1}, at(9))))
	wantAll(t, found, err, ids)
	if away := len(known)/2 + len(fresh); sent.sum() != 2*len(ids) || sent.one != 2*away {
		t.Errorf("%d keys went together and %d alone, of %d, of which %d are away", sent.sum(), sent.one, len(ids), away)
	}
	found, err = leads.GetMany(ctx, ids)
	wantAll(t, found, err, ids)
	for n := 1; n > 0; {
		if n, err = m.Move(ctx, 100); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	found, err = leads.GetMany(ctx, ids)
	wantAll(t, found, err, ids)

	// The client has not heard of it.
	again := slices.Concat(inSlot("again", 20), spread(60)[40:])
	found, err = leads.LoadMany(ctx, again, leadsOf)
	wantAll(t, found, err, again)
	found, err = leads.GetMany(ctx, again)
	wantAll(t, found, err, again)
	if err := cluster.MigrateSlot(ctx, slot, from); err != nil {
		t.Fatal(err)
	}
}

// inSlot names keys of one slot.
func inSlot(name string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("{moving}%s%d", name, i)
	}
	return ids
}

// One key on which nothing can be done takes none of the others with it.
func TestOneOfABatchFails(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, six.Get(t))
	leads := Of[lead](newStore(t, rdb, nil), "lead")
	ids := spread(120)
	for i, id := range ids {
		var err error
		switch key := leads.prefix + id; i % 4 {
		case 0:
			err = rdb.RPush(ctx, key, "a list").Err()
		case 1:
			err = rdb.Set(ctx, key, "garbage", 0).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var sent asked
	rdb.AddHook(&sent)
	found, err := leads.LoadMany(ctx, ids, func(ctx context.Context, ids []string) (map[string]lead, error) {
		for i, id := range ids {
			if i%10 == 0 { // what stands there is no lease any more
				if err := rdb.Del(ctx, leads.prefix+id).Err(); err != nil {
					return nil, err
				}
				if err := rdb.RPush(ctx, leads.prefix+id, "a list").Err(); err != nil {
					return nil, err
				}
			}
		}
		return leadsOf(ctx, ids)
	})
	wantAll(t, found, err, ids)
	if sent.one > 0 {
		t.Errorf("%d keys were refused", sent.one)
	}
	stored, err := leads.GetMany(ctx, ids)
	if err != nil || len(stored) != len(ids)*9/10 {
		t.Errorf("%d are stored, %v", len(stored), err)
	}
}

// On a server that is full each key is told so, and is given what the loader returned.
func TestBatchOnAFullServer(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	s := running(t, newStore(t, rdb, nil))
	covered(t, s)
	leads := Of[lead](s, "lead", NegativeTTL(time.Minute))
	there, ids := spread(20), spread(60)
	found, err := leads.LoadMany(ctx, there, leadsOf)
	wantAll(t, found, err, there)
	lift := full(t, ctx)
	var sent asked
	rdb.AddHook(&sent)
	found, err = leads.LoadMany(ctx, ids, leadsOf)
	wantAll(t, found, err, ids)
	if sent.sum() != 40 || sent.one != 40 {
		t.Errorf("%d keys began together, %d alone", sent.sum(), sent.one)
	}
	lift()
	stored, err := leads.GetMany(ctx, ids)
	wantAll(t, stored, err, there)
	// It was full while they loaded: the leases stand, and are landed on when there is room.
	found, err = leads.LoadMany(ctx, ids, func(ctx context.Context, ids []string) (map[string]lead, error) {
		lift = full(t, ctx)
		return leadsOf(ctx, ids)
	})
	wantAll(t, found, err, ids)
	lift()
	stored, err = leads.GetMany(ctx, ids)
	wantAll(t, stored, err, there)
	found, err = leads.LoadMany(ctx, ids, leadsOf)
	wantAll(t, found, err, ids)
	stored, err = leads.GetMany(ctx, ids)
	wantAll(t, stored, err, ids)
}

// twice sends all pipelines twice, and hands over what was answered then.
type twice struct{ pipelines }

func (p *twice) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := next(ctx, cmds); err != nil {
			return err
		}
		p.together.Add(1)
		return next(ctx, cmds)
	}
}

// What the client sends twice, as the answer was lost, begins and lands once: others are told that somebody loads.
func TestBatchIsSentTwice(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		if _, clustered := rdb.(*redis.ClusterClient); !clustered {
			covered(t, running(t, s))
		}
		ids := spread(30)
		begin := func(fills []*fill) []begun {
			t.Helper()
			hows := s.beginMany(ctx, fills, patience)
			for _, fl := range fills {
				if !fl.leased {
					t.Fatalf("%s has no lease", fl.id)
				}
			}
			return hows
		}
		fillsOf := func() []*fill {
			var fills []*fill
			for _, id := range ids {
				fills = append(fills, &fill{key: s.opts.Prefix + "lead:" + id, id: id})
			}
			return fills
		}
		var again twice
		rdb.AddHook(&again)
		first := fillsOf()
		for i, how := range begin(first) {
			if how != granted || first[i].gen>>32 != first[i].offered>>32 || first[i].claim == 0 {
				t.Fatalf("%s: %v, generation %d on %d", first[i].id, how, first[i].gen, first[i].offered)
			}
		}
		if again.together.Load() == 0 {
			t.Fatal("nothing was sent twice")
		}
		second := fillsOf()
		for i, how := range begin(second) {
			if how != elsewhere || second[i].gen != first[i].gen {
				t.Fatalf("%s: %v, generation %d on %d", second[i].id, how, second[i].gen, first[i].gen)
			}
		}
	})
}

// Nor does who begins on leases that stand wait for the claims that it has made itself.
func TestBatchOnLeasesIsSentTwice(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead")
		ids := spread(30)
		found, err := leads.LoadMany(ctx, ids, leadsOf) // the servers know the scripts
		wantAll(t, found, err, ids)
		if err := leads.Delete(wrote(ctx, at(5)), ids...); err != nil {
			t.Fatal(err)
		}
		rdb.AddHook(&twice{})
		for _, want := range []begun{granted, elsewhere} {
			var fills []*fill
			for _, id := range ids {
				fills = append(fills, &fill{key: leads.prefix + id, id: id})
			}
			for i, how := range s.beginMany(ctx, fills, patience) {
				if fl := fills[i]; how != want || !fl.leased || fl.gen>>32 == fl.offered>>32 || (fl.claim != 0) != (want == granted) {
					t.Errorf("%s: %v, claimed until %d", fl.id, how, fl.claim)
				}
			}
		}
	})
}
