package readonly

import (
	"context"
	"sync"
	"time"
)

// Store shares the state between instances. readonly/redisstore has one; every implementation passes readonly/storetest.
type Store interface {
	// Load returns the stored state, or the zero State when there is none.
	Load(ctx context.Context) (State, error)
	// Save stores s if its epoch is higher than the stored one, tells the watchers, and returns what is stored afterwards.
	Save(ctx context.Context, s State) (State, error)
	// Watch calls changed after each change until ctx ends, and once when it has begun to listen. It returns an
	// error when it can no longer tell; the caller polls meanwhile.
	Watch(ctx context.Context, changed func()) error
	// Acknowledge notes, for ttl, what an instance obeys. A ttl of zero forgets the instance.
	Acknowledge(ctx context.Context, instance string, ack Ack, ttl time.Duration) error
	// Acknowledged returns what each instance acknowledged last, with its age.
	Acknowledged(ctx context.Context) (map[string]Ack, error)
}

// Ack is an instance's word that it obeys a state.
type Ack struct {
	// Epoch and ID are those of the state obeyed. Where that has ended by the instance's clock there is no ID: it writes.
	Epoch uint64 `json:"epoch"`
	ID    string `json:"id,omitempty"`
	// InFlight is the number of writing requests that began before and have not ended, Jobs and Connections what
	// CountJobs and CountConnections return.
	InFlight    int64 `json:"in_flight"`
	Jobs        int64 `json:"jobs,omitempty"`
	Connections int64 `json:"connections,omitempty"`
	// Server and Mark are where this instance has begun to prove the state's quiet, so that all prove the same.
	Server string `json:"server,omitempty"`
	Mark   uint64 `json:"mark,omitempty"`
	// Age is how long ago it was given, by the store's clock. Stores set it.
	Age time.Duration `json:"-"`
}

// obeys says whether the instance that gave a obeys s.
// A later state is not s: the instance may allow what s refuses.
func (a Ack) obeys(s State) bool { return a.ID == s.ID && (a.Epoch == s.Epoch || a.ID != "") }

func (a Ack) busy() bool { return a.InFlight+a.Jobs+a.Connections > 0 }

// NewMemory returns a Store for switches of one process.
func NewMemory() Store {
	return &memory{acks: map[string]timedAck{}, changed: make(chan struct{})}
}

type memory struct {
	mu      sync.Mutex
	state   State
	acks    map[string]timedAck
	changed chan struct{}
}

type timedAck struct {
	Ack
	given, until time.Time
}

func (m *memory) Load(context.Context) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state, nil
}

func (m *memory) Save(_ context.Context, s State) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Epoch > m.state.Epoch {
		m.state = s
		close(m.changed)
		m.changed = make(chan struct{})
	}
	return m.state, nil
}

func (m *memory) Watch(ctx context.Context, changed func()) error {
	for {
		m.mu.Lock()
		next := m.changed
		m.mu.Unlock()
		changed()
		select {
		case <-ctx.Done():
			return nil
		case <-next:
		}
	}
}

func (m *memory) Acknowledge(_ context.Context, instance string, ack Ack, ttl time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.acks[instance] = timedAck{ack, now, now.Add(ttl)}
	return nil
}

func (m *memory) Acknowledged(context.Context) (map[string]Ack, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	acks := map[string]Ack{}
	now := time.Now()
	for instance, ack := range m.acks {
		if now.Before(ack.until) {
			ack.Age = now.Sub(ack.given)
			acks[instance] = ack.Ack
		}
	}
	return acks, nil
}
