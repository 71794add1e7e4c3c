package session

import (
	"strconv"
	"time"
)

// idleKeyOf leads from a context to the idle timeout of its session.
type idleKeyOf struct{}

// idleFrom reads a session's own idle timeout, or takes the manager's.
func idleFrom(text string, usual time.Duration) time.Duration {
	if text == "" {
		return usual
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms <= 0 {
		return usual
	}
	return time.Duration(ms) * time.Millisecond
}

func idleOf(values map[string]any, usual time.Duration) time.Duration {
	text, _ := values[idleKey].(string)
	return idleFrom(text, usual)
}
