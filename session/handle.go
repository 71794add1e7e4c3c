package session

import "context"

// Session is the session of one request. It is the cheaper way to what scs's functions do: reading a value decodes that value
// only. The zero Session is nobody's and empty.
type Session struct{ q *request }

// From returns the session of a context that came through Manager.Middleware; with several managers the innermost one's.
func From(ctx context.Context) Session {
	q, _ := ctx.Value(currentKey{}).(*request)
	return Session{q}
}

// Err loads the session and returns ErrUnavailable if the store does not answer: the session is then empty, and changes
// will not be stored.
func (s Session) Err() error {
	if s.q == nil {
		return ErrNoSession
	}
	return s.q.fetch()
}

// Principal returns who is logged in, or the empty string for nobody.
func (s Session) Principal() string {
	if s.q == nil {
		return ""
	}
	return s.q.text(principalKey)
}

// Get returns the value of a key, or nil.
func (s Session) Get(key string) any {
	if s.q == nil {
		return nil
	}
	return s.q.get(key)
}

// String returns the value of a key if it is a string, and the empty string otherwise.
func (s Session) String(key string) string {
	if s.q == nil {
		return ""
	}
	return s.q.text(key)
}

// Put sets the value of a key. Errors: ErrNoSession; ErrLate when the response has begun, and ErrUnavailable when the store
// does not answer: nothing is stored then.
func (s Session) Put(key string, value any) error {
	if err := s.writable(); err != nil {
		return err
	}
	s.q.manager.scs.Put(s.q, key, value)
	return nil
}

// Remove takes a key out. Its errors are Put's.
func (s Session) Remove(key string) error {
	if err := s.writable(); err != nil {
		return err
	}
	s.q.manager.scs.Remove(s.q, key)
	return nil
}

func (s Session) writable() error {
	switch {
	case s.q == nil:
		return ErrNoSession
	case s.q.out.Begun():
		s.q.manager.count("put", "late")
		return ErrLate
	}
	return s.q.fetch()
}
