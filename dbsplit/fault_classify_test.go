package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// unsentError stands for what pgconn returns when nothing has left the process.
type unsentError struct{ error }

func (unsentError) SafeToRetry() bool { return true }
func (e unsentError) Unwrap() error   { return e.error }

// failure is an error as a server, the network or the driver makes one, and what is true of it.
type failure struct {
	err    error
	closed bool
	// unsent says that no server has seen the statement: only then, and after a standby's refusal, may a write be sent again.
	unsent bool
}

// failureOf makes one. Kinds: 0 a server's answer, 1 the loss of the connection, 2 nothing was sent, 3 the driver's "conn closed", which it marks as safe even when a statement was sent, 4 the caller's context.
func failureOf(kind uint8, state, severity string, closed bool) failure {
	switch kind % 5 {
	case 0:
		fatal := severity == "FATAL" || severity == "PANIC"
		return failure{err: &pgconn.PgError{Code: state, Severity: "FEHLER", SeverityUnlocalized: severity}, closed: closed || fatal}
	case 1:
		return failure{err: fmt.Errorf("receive: %w", io.ErrUnexpectedEOF), closed: true}
	case 2:
		return failure{err: unsentError{io.ErrClosedPipe}, closed: closed, unsent: true}
	case 3:
		return failure{err: unsentError{fmt.Errorf("%w", pgconn.ErrConnClosed)}, closed: true}
	default:
		return failure{err: context.DeadlineExceeded, closed: closed}
	}
}

// However an error comes about: a write that a server may have seen is never sent again, and its caller is told when it may
// have been applied; what a statement has earned by itself is not sent elsewhere.
func FuzzErrorClassification(f *testing.F) {
	for _, state := range []string{"", "40001", "57014", "25006", "57P01", "57P03", "57P04", "08006", "23505", "XX000"} {
		for _, severity := range []string{"ERROR", "FATAL", ""} {
			f.Add(uint8(0), state, severity, false, true, true)
		}
	}
	for kind := range uint8(5) {
		f.Add(kind, "", "", true, false, true)
		f.Add(kind, "", "", false, true, false)
	}
	f.Fuzz(func(t *testing.T, kind uint8, state, severity string, closed, onReplica, sent bool) {
		x := failureOf(kind, state, severity, closed)
		for _, err := range []error{x.err, fmt.Errorf("wrapped: %w", x.err)} {
			told := writeError(err, x.closed, sent)
			if !errors.Is(told, err) {
				t.Errorf("%v is not within %v", err, told)
			}
			unknown := errors.Is(told, ErrOutcomeUnknown)
			if unwritten(told) && (unknown || !x.unsent) {
				t.Errorf("a write that failed with %#v is sent again", x.err)
			}
			if may := sent && x.closed && !x.unsent; unknown != may && kind%5 != 0 {
				t.Errorf("%#v: unknown %v, want %v", x.err, unknown, may)
			}
			if unknown && !x.closed {
				t.Errorf("the server has answered %#v on a living connection, and its outcome counts as unknown", x.err)
			}
			if sent && kind%5 == 0 && (severity == "FATAL" || severity == "PANIC") && !unknown {
				t.Errorf("%#v has ended the connection, and its outcome counts as known", x.err)
			}

			again := readRetry(t.Context(), err, x.closed, onReplica)
			switch answered := kind%5 == 0; {
			case again && (state == stateCancelled || state == stateDatabaseDropped) && answered:
				t.Errorf("a cancelled read, or one of a dropped database, is sent again: %#v", x.err)
			case again && state == stateSerialization && answered && !onReplica && severity == "ERROR":
				t.Errorf("a serialization failure of the primary is sent again: %#v", x.err)
			case again && answered && severity == "ERROR" && state != stateSerialization:
				t.Errorf("a statement's own error is sent again: %#v", x.err)
			case !again && answered && severity == "ERROR" && state == stateSerialization && onReplica:
				t.Errorf("a conflict with recovery is not sent again: %#v", x.err)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if readRetry(ended, err, x.closed, onReplica) {
				t.Errorf("a read whose caller has left is sent again: %#v", x.err)
			}
			if kind%5 == 0 && away(told) && (state == stateCancelled || state == stateSerialization || state == stateReadOnly) {
				t.Errorf("%#v counts as the absence of a primary", x.err)
			}
		}
	})
}
