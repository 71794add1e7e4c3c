package scaleaware

import (
	"fmt"
	"slices"
	"strings"
)

// maxSystems bounds how many databases one watermark follows, so that a forged carrier stays small.
const maxSystems = 4

// Tokens holds at most one Token a database. Its text form joins them with commas.
type Tokens []Token

// For returns the token of one database, or the zero Token.
func (ts Tokens) For(system uint64) Token {
	for _, t := range ts {
		if t.System == system {
			return t
		}
	}
	return Token{}
}

// Merge returns the later of both for each database.
func (ts Tokens) Merge(other Tokens) Tokens {
	merged := slices.Clone(ts)
	for _, t := range other {
		merged = raise(merged, t)
	}
	return merged
}

// Covers reports whether data as of ts has everything that other names: false as soon as one database of
// other is missing from ts, lies ahead, or cannot be compared.
func (ts Tokens) Covers(other Tokens) bool {
	for _, t := range other {
		if ok, _ := ts.For(t.System).Covers(t); !ok {
			return false
		}
	}
	return true
}

// Includes reports whether carrying other beside ts would say nothing more: each token of other is covered by ts, or is
// the same unknown one.
func (ts Tokens) Includes(other Tokens) bool {
	for _, t := range other {
		have := ts.For(t.System)
		if ok, _ := have.Covers(t); !ok && have != t {
			return false
		}
	}
	return true
}

// String returns the tokens joined with commas; empty for none. Zero tokens are left out.
func (ts Tokens) String() string {
	texts := make([]string, 0, len(ts))
	for _, t := range ts {
		if !t.IsZero() {
			texts = append(texts, t.String())
		}
	}
	return strings.Join(texts, ",")
}

// ParseTokens parses what Tokens.String writes: at most four tokens, no database twice. Errors wrap ErrToken.
func ParseTokens(s string) (Tokens, error) {
	if s == "" {
		return nil, nil
	}
	var ts Tokens
	for text := range strings.SplitSeq(s, ",") {
		t, err := ParseToken(text)
		if err != nil {
			return nil, err
		}
		if t.IsZero() || !ts.For(t.System).IsZero() || len(ts) == maxSystems {
			return nil, fmt.Errorf("%w: want one to %d tokens of different databases", ErrToken, maxSystems)
		}
		ts = append(ts, t)
	}
	return ts, nil
}

// raise returns ts with t in it. It keeps the database raised last at the end, and drops the first when there are more
// than maxSystems. It never changes ts, which others may hold.
func raise(ts Tokens, t Token) Tokens {
	if t.IsZero() {
		return ts
	}
	raised := make(Tokens, 0, min(len(ts)+1, maxSystems))
	for _, have := range ts {
		switch {
		case have.System != t.System:
			raised = append(raised, have)
		case have.later(t) == have:
			return ts
		}
	}
	if len(raised) == maxSystems {
		raised = append(raised[:0], raised[1:]...)
	}
	return append(raised, t)
}
