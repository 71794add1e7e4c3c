package readonly

import (
	"context"
	"time"
)

// Witness sees what a database does, whoever does it. readonly/pgwitness is one for PostgreSQL.
type Witness interface {
	// Mark returns a number that is higher than that of every transaction which was numbered before, and not higher than
	// that of any numbered after, and the server that it holds for.
	Mark(ctx context.Context) (server string, mark uint64, err error)
	// Look returns what is open now that could still write.
	Look(ctx context.Context) (Sight, error)
}

// Sight is what a Witness sees at one moment.
type Sight struct {
	// Server is the one that was asked, and its term of office: numbers of another one mean nothing.
	Server string
	// Numbered are the running transactions that have a number, which they get when they first write.
	Numbered []Transaction
	// Unnumbered are those of our own programs that have none yet and may still write.
	Unnumbered []Transaction
	// Prepared are those that only wait for their COMMIT PREPARED.
	Prepared []Prepared
	// Next is a number that is higher than those of all that have one.
	Next uint64
	// Blind says that the role may not see who the others are.
	Blind bool
}

// Prepared is a transaction that waits for its COMMIT PREPARED. It belongs to no session.
type Prepared struct {
	// Number is the transaction's, Name the one that it was given.
	Number uint64 `json:"number"`
	Name   string `json:"name"`
}

// Transaction is one that runs in the database.
type Transaction struct {
	// Number is the transaction's, 0 before it writes.
	Number uint64 `json:"number,omitempty"`
	// PID is the server's process, 0 when it is not known.
	PID int `json:"pid,omitempty"`
	// Application is the session's application_name, User its role.
	Application string `json:"application,omitempty"`
	User        string `json:"user,omitempty"`
	// State is the session's: active, idle in transaction and so on.
	State string `json:"state,omitempty"`
	// Since is when it began.
	Since time.Time `json:"since,omitzero"`
	// Ours says that the application is one of this service's.
	Ours bool `json:"ours"`
}

// Proof tells whether the database is quiet, and if not, what keeps it from being so.
type Proof struct {
	// Quiet says that every transaction which began to write before all instances had obeyed and drained has ended, and
	// that none is left behind by this service that could still write.
	Quiet bool `json:"quiet"`
	// Server is where this was seen.
	Server string `json:"server,omitempty"`
	// Fence is the number below which no transaction runs any more.
	Fence uint64 `json:"fence,omitempty"`
	// QuietSince is when that was seen first.
	QuietSince time.Time `json:"quiet_since,omitzero"`
	// Numbered is how many transactions began to write after the fence: all of them foreign.
	Numbered uint64 `json:"numbered_since"`
	// Waiting are the transactions that have to end first, and Prepared those that have to be committed or rolled back.
	Waiting  []Transaction `json:"waiting,omitempty"`
	Prepared []Prepared    `json:"prepared,omitempty"`
	// Foreign are the transactions that write now and are not this service's: psql, migrations, forgotten programs. Nobody
	// stops them.
	Foreign []Transaction `json:"foreign_writers"`
	// Blind says that the role may not see who writes: grant it pg_read_all_stats.
	Blind bool `json:"blind,omitempty"`
	// Error is why the database could not be asked.
	Error string `json:"error,omitempty"`
}

// fence is where a Proof begins: the change that it is for, and the mark that was taken after all had drained.
type fence struct {
	change, server string
	mark           uint64
	quiet          time.Time // when it was seen to be reached
}

// prove compares what is seen with the fence.
func (f *fence) prove(sight Sight, now time.Time) Proof {
	p := Proof{Server: f.server, Fence: f.mark, Foreign: []Transaction{}, Blind: sight.Blind}
	for _, t := range sight.Numbered {
		if t.Number < f.mark {
			p.Waiting = append(p.Waiting, t)
		}
		if !t.Ours {
			p.Foreign = append(p.Foreign, t)
		}
	}
	p.Waiting = append(p.Waiting, sight.Unnumbered...)
	for _, t := range sight.Prepared {
		if t.Number < f.mark {
			p.Prepared = append(p.Prepared, t)
		}
	}
	if sight.Next > f.mark {
		p.Numbered = sight.Next - f.mark - 1 // the mark is one itself
	}
	p.Quiet = len(p.Waiting) == 0 && len(p.Prepared) == 0
	if p.Quiet && f.quiet.IsZero() {
		f.quiet = now.UTC().Truncate(time.Millisecond)
	}
	if p.Quiet {
		p.QuietSince = f.quiet
	}
	return p
}

// database proves for state that the database is quiet. All have drained when it is called. others are their words: a mark
// that one of them has taken is as good as one's own, and older.
//
// One at a time asks, for no longer than Options.AckWait, so that a database that hangs keeps nobody from being told the rest.
func (s *Switch) database(ctx context.Context, state State, others map[string]Ack) *Proof {
	ctx, cancel := context.WithTimeout(ctx, s.options.AckWait)
	defer cancel()
	unknown := func(why string) *Proof { return &Proof{Foreign: []Transaction{}, Error: why} }
	select {
	case s.proving <- struct{}{}:
		defer func() { <-s.proving }()
	case <-ctx.Done():
		return unknown("readonly: the database is being asked already and does not answer, ask again")
	}
	sight, err := s.options.Witness.Look(ctx)
	if err != nil {
		return unknown(err.Error())
	}
	f := &s.fence
	if f.change != state.ID || f.server != sight.Server {
		*f = fence{change: state.ID, server: sight.Server, mark: markOf(others, state.ID, sight.Server)}
		if f.mark == 0 {
			if f.server, f.mark, err = s.options.Witness.Mark(ctx); err != nil {
				*f = fence{}
				return unknown(err.Error())
			}
			// What was seen before the mark may have missed one that is numbered below it.
			if sight, err = s.options.Witness.Look(ctx); err != nil {
				return unknown(err.Error())
			}
		}
		begun := *f
		s.marked.Store(&begun)
	}
	if sight.Server != f.server {
		return unknown("readonly: the primary has changed while it was asked, ask again")
	}
	proof := f.prove(sight, time.Now())
	return &proof
}

// mark is the one by which this instance proves, or 0.
func (s *Switch) mark() uint64 {
	if f := s.marked.Load(); f != nil {
		return f.mark
	}
	return 0
}

// markOf is the first mark that was taken for a change on a server, or 0.
func markOf(acks map[string]Ack, change, server string) (mark uint64) {
	for _, ack := range acks {
		if ack.ID == change && ack.Server == server && ack.Mark > 0 && (mark == 0 || ack.Mark < mark) {
			mark = ack.Mark
		}
	}
	return mark
}
