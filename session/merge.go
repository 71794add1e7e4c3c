package session

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/scaleaware/scaleaware"
)

// Keys of ours among the session's values. Their values are strings, which every codec knows.
const (
	principalKey = "scaleaware.principal"
	tokensKey    = "scaleaware.tokens"
	// generationKey and deviceKey are of the log-in.
	generationKey = "scaleaware.generation"
	deviceKey     = "scaleaware.device"
	idleKey       = "scaleaware.idle" // milliseconds
)

// merge makes one session out of two that began as base. mine is about to be stored with expiry, theirs already is.
// When one of the three cannot be decoded, mine is taken as it is.
func merge(codec scs.Codec, base, mine, theirs []byte, expiry time.Time) ([]byte, time.Time, error) {
	baseDeadline, baseValues, err1 := codec.Decode(base)
	_, myValues, err2 := codec.Decode(mine)
	theirDeadline, theirValues, err3 := codec.Decode(theirs)
	if err1 != nil || err2 != nil || err3 != nil {
		return mine, expiry, nil
	}
	deadline := expiry
	if expiry.Equal(baseDeadline) {
		deadline = theirDeadline
	}
	b, err := codec.Encode(deadline, mergeValues(baseValues, myValues, theirValues))
	if err != nil {
		return nil, expiry, fmt.Errorf("session: encode the values: %w", err)
	}
	return b, deadline, nil
}

// mergeValues takes from mine what differs from base, removals included, and everything else from theirs. Of the
// consistency tokens it takes the later ones.
func mergeValues(base, mine, theirs map[string]any) map[string]any {
	out := maps.Clone(theirs)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range mine {
		if was, ok := base[k]; !ok || !reflect.DeepEqual(was, v) {
			out[k] = v
		}
	}
	for k := range base {
		if _, ok := mine[k]; !ok {
			delete(out, k)
		}
	}
	if tokens := advance(tokensOf(theirs), tokensOf(base), tokensOf(mine)); len(tokens) > 0 {
		out[tokensKey] = tokens.String()
	}
	return out
}

// advance raises stored to mine, where mine began as base. An unknown position that was in base is no longer later than
// mine, when mine has settled it; one that somebody else has stored since is.
func advance(stored, base, mine scaleaware.Tokens) scaleaware.Tokens {
	kept := slices.DeleteFunc(slices.Clone(stored), func(t scaleaware.Token) bool {
		return t.Unknown() && t == base.For(t.System) && !mine.For(t.System).IsZero()
	})
	return kept.Merge(mine)
}

// tokensOf returns the tokens among the values; none if they are malformed.
func tokensOf(values map[string]any) scaleaware.Tokens {
	text, _ := values[tokensKey].(string)
	tokens, _ := scaleaware.ParseTokens(text)
	return tokens
}
