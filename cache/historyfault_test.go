package cache

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// historyFault is one fault, with the time that it lasts.
type historyFault struct {
	name  string
	rare  bool // too long for every day
	drive func(h *historyRun, ctx context.Context, t *testing.T) error
}

// historyFaults are in an order that leaves what is lost in failovers time to end.
var historyFaults = []historyFault{
	{name: "master killed", drive: func(h *historyRun, ctx context.Context, t *testing.T) error {
		return h.loseMaster(ctx, (*rediscluster.Node).Kill, 0)
	}},
	{name: "master frozen for long", rare: true, drive: func(h *historyRun, ctx context.Context, t *testing.T) error {
		return h.loseMaster(ctx, (*rediscluster.Node).Freeze, 500*time.Millisecond)
	}},
	{name: "master frozen", drive: (*historyRun).freeze},
	{name: "failover", drive: (*historyRun).failover},
	{name: "slot lost by gossip", drive: (*historyRun).loseSlot},
	{name: "asleep", drive: (*historyRun).putToSleep},
	{name: "writes paused", drive: (*historyRun).pauseWrites},
	{name: "failover forced", drive: func(h *historyRun, ctx context.Context, t *testing.T) error {
		return h.overthrow(ctx, (*rediscluster.Node).ForceFailover)
	}},
	{name: "takeover", drive: func(h *historyRun, ctx context.Context, t *testing.T) error {
		return h.overthrow(ctx, (*rediscluster.Node).Takeover)
	}},
	{name: "worker killed", drive: (*historyRun).killWorker},
	{name: "tracking killed", drive: (*historyRun).killTracking},
	{name: "slots moved", drive: (*historyRun).moveSlots},
	{name: "flush", drive: (*historyRun).flush},
	{name: "scripts flushed", drive: (*historyRun).flushScripts},
	{name: "squeeze", drive: (*historyRun).squeeze},
	{name: "extension", drive: (*historyRun).extend},
}

// heal makes all nodes run and agree again.
func (h *historyRun) heal(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, n := range h.cluster.Nodes() {
		n.Thaw()
		if !n.Running() {
			if err := n.Start(ctx); err != nil {
				t.Error(err)
			}
		}
		_ = n.SetMaxMemory(ctx, 0, "noeviction")
	}
	if err := h.cluster.WaitHealthy(ctx); err != nil {
		t.Error(err)
	}
}

// mayLose says that what a master acknowledges from now on may be lost, until the function returned is called, which may be
// long before all is well again: what its successor acknowledges is not lost.
func (h *historyRun) mayLose(ctx context.Context, victim *rediscluster.Node) (over func(), err error) {
	has := map[uint16]bool{}
	text, err := victim.Client().ClusterNodes(ctx).Result()
	if err != nil {
		return nil, err
	}
	p, err := parsePlace(text)
	if err != nil {
		return nil, err
	}
	_, slots, _ := strings.Cut(p.slots, " ")
	for from, to := range ranges(slots) {
		for slot := from; slot <= to; slot++ {
			has[uint16(slot)] = true
		}
	}
	return h.mayLoseSlots(func(slot uint16) bool { return has[slot] }), nil
}

func (h *historyRun) mayLoseSlots(has func(slot uint16) bool) (over func()) {
	n := h.losses % boardLosses
	h.losses++
	// What was acknowledged a little before is lost, too, and its caller may hear of it only a while after.
	const before, after = int64(300 * time.Millisecond), int64(500 * time.Millisecond)
	meta := has(slotOf(h.config.Prefix+metaMark+"clock")) || has(slotOf(h.config.Prefix+metaMark+"rules"))
	var hit []*register
	for key := range h.board.keys {
		view := string("abc"[key%3])
		if meta || has(slotOf(h.config.Prefix+view+":"+historyID(key))) || has(h.tagSlot(key)) {
			hit = append(hit, &h.board.keys[key])
		}
	}
	for _, r := range hit {
		r.losses[n].to.Store(math.MaxInt64)
		r.losses[n].from.Store(h.clock.now() - before)
	}
	return func() {
		for _, r := range hit {
			r.losses[n].to.Store(h.clock.now() + after)
		}
	}
}

func (h *historyRun) tagSlot(key int) uint16 {
	s := &Store{opts: Options{Prefix: h.config.Prefix}}
	return slotOf(s.tagKey(hashTag(historyTag(key))))
}

func (h *historyRun) anyMaster(ctx context.Context) (*rediscluster.Node, error) {
	masters, err := h.cluster.Masters(ctx)
	if err != nil {
		return nil, err
	}
	if len(masters) == 0 {
		return nil, errors.New("no master")
	}
	return masters[int(h.clock.now()/1000)%len(masters)], nil
}

// loseMaster takes a master away until its replica has taken over, and brings it back after a while.
func (h *historyRun) loseMaster(ctx context.Context, lose func(*rediscluster.Node), after time.Duration) error {
	victim, err := h.anyMaster(ctx)
	if err != nil {
		return err
	}
	over, err := h.mayLose(ctx, victim)
	if err != nil {
		return err
	}
	over = sync.OnceFunc(over)
	defer over()
	replica, err := h.cluster.ReplicaOf(ctx, victim)
	if err != nil {
		return err
	}
	lose(victim)
	if after == 0 {
		over() // it acknowledges nothing any more; one that is frozen may, when it thaws and has not heard of its successor
	}
	for range 1000 {
		if role, err := replica.Client().Do(ctx, "ROLE").Slice(); err == nil && role[0] == "master" {
			break
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	if err := sleep(ctx, after); err != nil {
		return err
	}
	victim.Thaw()
	if !victim.Running() {
		if err := victim.Start(ctx); err != nil {
			return err
		}
	}
	return h.cluster.WaitHealthy(ctx)
}

// freeze stops a master for longer than what is kept of it may be used, and for less than a failover takes.
func (h *historyRun) freeze(ctx context.Context, t *testing.T) error {
	victim, err := h.anyMaster(ctx)
	if err != nil {
		return err
	}
	victim.Freeze()
	err = sleep(ctx, 1400*time.Millisecond)
	victim.Thaw()
	return errors.Join(err, sleep(ctx, 300*time.Millisecond))
}

// failover makes a replica the master while the old one lives, which loses nothing unless it takes long: after five
// seconds the old master gives it up and takes writes again, and the replica may be elected all the same, without them.
func (h *historyRun) failover(ctx context.Context, t *testing.T) error {
	victim, err := h.anyMaster(ctx)
	if err != nil {
		return err
	}
	replica, err := h.cluster.ReplicaOf(ctx, victim)
	if err != nil {
		return err
	}
	over := make(chan func(), 1)
	givenUp := time.AfterFunc(4*time.Second, func() {
		end, err := h.mayLose(ctx, victim)
		if err != nil {
			end = func() {}
		}
		over <- end
	})
	err = replica.Failover(ctx)
	if err == nil {
		err = h.cluster.WaitHealthy(ctx)
	}
	if !givenUp.Stop() {
		(<-over)()
	}
	return err
}

// overthrow makes a replica the master without asking the old one, which lives, and whose last writes are lost.
func (h *historyRun) overthrow(ctx context.Context, how func(*rediscluster.Node, context.Context) error) error {
	victim, err := h.anyMaster(ctx)
	if err != nil {
		return err
	}
	replica, err := h.cluster.ReplicaOf(ctx, victim)
	if err != nil {
		return err
	}
	over, err := h.mayLose(ctx, victim)
	if err != nil {
		return err
	}
	defer over()
	if err := how(replica, ctx); err != nil {
		return err
	}
	return h.cluster.WaitHealthy(ctx)
}

// loseSlot lets a master take a slot from another that does not know, and back: the keys are lost each time, and until the old
// one has heard of it, it acknowledges what nobody will see.
func (h *historyRun) loseSlot(ctx context.Context, t *testing.T) error {
	key := int(h.clock.now()/1000) % 20 * 7 % boardKeys
	slot := slotOf(h.config.Prefix + string("abc"[key%3]) + ":" + historyID(key))
	home, err := h.cluster.MasterOf(ctx, int(slot))
	if err != nil {
		return err
	}
	masters, err := h.cluster.Masters(ctx)
	if err != nil {
		return err
	}
	to := masters[0]
	if to == home {
		to = masters[1]
	}
	for _, to := range []*rediscluster.Node{to, home} {
		over := h.mayLoseSlots(func(s uint16) bool { return s == slot })
		err := h.cluster.LoseSlot(ctx, int(slot), to)
		over()
		if err := errors.Join(err, sleep(ctx, 300*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// putToSleep blocks a master for longer than what is kept of it may be used, and for less than a failover takes.
func (h *historyRun) putToSleep(ctx context.Context, t *testing.T) error {
	victim, err := h.anyMaster(ctx)
	if err != nil {
		return err
	}
	_ = victim.Client().Do(ctx, "DEBUG", "SLEEP", "1.4").Err() // it does not answer within a second
	return sleep(ctx, 700*time.Millisecond)
}

// pauseWrites makes all masters hold writes back, and answer reads.
func (h *historyRun) pauseWrites(ctx context.Context, t *testing.T) error {
	err := h.onMasters(ctx, func(ctx context.Context, node *redis.Client) error {
		return node.Do(ctx, "CLIENT", "PAUSE", "1200", "WRITE").Err()
	})
	return errors.Join(err, sleep(ctx, 1500*time.Millisecond))
}

// killWorker ends a process wherever it is, and starts it again.
func (h *historyRun) killWorker(ctx context.Context, t *testing.T) error {
	n := int(h.clock.now()/1000) % len(h.workers)
	h.workers[n].kill()
	h.workers[n] = h.start(t, n)
	h.workers[n].await(t, h.workers[n].ready)
	return sleep(ctx, 300*time.Millisecond)
}

// onMasters calls each master once.
func (h *historyRun) onMasters(ctx context.Context, do func(ctx context.Context, node *redis.Client) error) error {
	masters, err := h.cluster.Masters(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range masters {
		errs = append(errs, do(ctx, n.Client()))
	}
	return errors.Join(errs...)
}

// killTracking cuts the connections over which the stores hear what changes.
func (h *historyRun) killTracking(ctx context.Context, t *testing.T) error {
	for range 4 {
		err := h.onMasters(ctx, func(ctx context.Context, node *redis.Client) error {
			list, err := node.ClientList(ctx).Result()
			if err != nil {
				return err
			}
			for line := range strings.Lines(list) {
				if id, rest, ok := strings.Cut(strings.TrimPrefix(line, "id="), " "); ok && strings.Contains(rest, "name=scaleaware-cache ") {
					if err := node.Do(ctx, "CLIENT", "KILL", "ID", id).Err(); err != nil && !strings.Contains(err.Error(), "No such client") {
						return err
					}
				}
			}
			return nil
		})
		if err := errors.Join(err, sleep(ctx, 150*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// moveSlots moves the slots of hot keys to other masters and back, key by key, while the keys are used.
func (h *historyRun) moveSlots(ctx context.Context, t *testing.T) error {
	for n := range 2 {
		key := int(h.clock.now()/1000)%20*7%boardKeys + n
		slot := int(slotOf(h.config.Prefix + string("abc"[key%3]) + ":" + historyID(key)))
		home, err := h.cluster.MasterOf(ctx, slot)
		if err != nil {
			return err
		}
		masters, err := h.cluster.Masters(ctx)
		if err != nil {
			return err
		}
		for _, to := range masters {
			if to == home {
				continue
			}
			for _, there := range []*rediscluster.Node{to, home} {
				m, err := h.cluster.BeginMigration(ctx, slot, there)
				if err != nil {
					return err
				}
				if err := sleep(ctx, 30*time.Millisecond); err != nil { // new keys go to the target meanwhile
					return err
				}
				for tries := 0; ; tries++ {
					moved, err := m.Move(ctx, 1)
					if err == nil && moved == 0 {
						err = m.Finish(ctx)
						if err == nil {
							break
						}
					}
					if err != nil && tries > 50 {
						return err
					}
				}
			}
			break
		}
	}
	return nil
}

func (h *historyRun) flush(ctx context.Context, t *testing.T) error {
	for range 3 {
		victim, err := h.anyMaster(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(victim.Client().FlushAll(ctx).Err(), sleep(ctx, 150*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

func (h *historyRun) flushScripts(ctx context.Context, t *testing.T) error {
	for range 3 {
		err := h.onMasters(ctx, func(ctx context.Context, node *redis.Client) error { return node.ScriptFlush(ctx).Err() })
		if err := errors.Join(err, sleep(ctx, 100*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// squeeze makes the masters evict all the time, leases and the store's own keys, too.
func (h *historyRun) squeeze(ctx context.Context, t *testing.T) error {
	masters, err := h.cluster.Masters(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range masters {
		errs = append(errs, n.SetMaxMemory(ctx, 1<<20, "allkeys-random"))
	}
	errs = append(errs, sleep(ctx, 700*time.Millisecond))
	for _, n := range masters {
		errs = append(errs, n.SetMaxMemory(ctx, 0, "noeviction"))
	}
	return errors.Join(errs...)
}

// extend lengthens TTLs while values change, and takes it back.
func (h *historyRun) extend(ctx context.Context, t *testing.T) error {
	s, err := New(h.rdb, &Options{Prefix: h.config.Prefix, RedisTimeout: time.Second})
	if err != nil {
		return err
	}
	for range 3 {
		if _, err := s.ExtendTTLs(ctx, Extension{Factor: 3}); err != nil {
			return err
		}
		if err := sleep(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	_, err = s.RestoreTTLs(ctx)
	return errors.Join(err, sleep(ctx, 200*time.Millisecond))
}
