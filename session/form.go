package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// TokenForm says how a session's token stands in the name of its Redis key.
type TokenForm int

const (
	// Hashed writes the SHA-256 of the token, as scs does with HashTokenInStore: who reads Redis or a dump of it finds
	// nothing to log in with.
	Hashed TokenForm = iota
	// MoveRaw is Hashed for a service that comes from scs without HashTokenInStore: a session that is still stored under
	// its token itself is moved when it is used next, at the cost of one command more for each unknown token. Not for a
	// cluster, where scs/redisstore cannot have run. Use it for one Lifetime.
	MoveRaw
	// Raw writes the token itself, while instances of scs without HashTokenInStore run side by side. Sessions that are
	// stored hashed are found, too, and stay so.
	Raw
)

// place is where a session is stored: the end of its key. Only a hashed place may be told to anybody.
type place struct {
	name   string
	hashed bool
}

// id names the session to other instances, in either form.
func (p place) id() string {
	if p.hashed {
		return p.name
	}
	return hash(p.name)
}

// locator knows the places of a token.
type locator struct {
	form TokenForm
	// handle begins what Iterate gets in place of tokens, which nobody knows from their hashes. It is secret, so that no
	// client can send a hash from a dump as a handle.
	handle string
}

func newLocator(form TokenForm) locator { return locator{form: form, handle: "#" + rand.Text() + "."} }

// places returns where the session of a token may be, the first being where a new one goes; none for what is no token.
func (l *locator) places(token string) (all [2]place, n int) {
	all, _, n = l.keys("", token)
	return all, n
}

// keys returns the places of a token with the keys that they are under a prefix.
func (l *locator) keys(prefix, token string) (all [2]place, keys [2]string, n int) {
	if !wellFormed(token) {
		if name, ok := strings.CutPrefix(token, l.handle); ok && wellFormed(name) {
			return [2]place{{name: name, hashed: true}}, [2]string{prefix + name}, 1
		}
		return all, keys, 0
	}
	key := hashUnder(prefix, token)
	hashed := place{key[len(prefix):], true}
	if l.form == Hashed {
		return [2]place{hashed}, [2]string{key}, 1
	}
	raw := place{token, false}
	if l.form == MoveRaw {
		return [2]place{hashed, raw}, [2]string{key, prefix + token}, 2
	}
	return [2]place{raw, hashed}, [2]string{prefix + token, key}, 2
}

// tokenAt is what Iterate gets for the session at p.
func (l *locator) tokenAt(p place) string {
	if p.hashed {
		return l.handle + p.name
	}
	return p.name
}

// hash is scs's, so that a store under scs with HashTokenInStore has the same keys.
func hash(token string) string { return hashUnder("", token) }

func hashUnder(prefix, token string) string {
	var in [64]byte
	var out [128]byte
	sum := sha256.Sum256(append(in[:0], token...))
	return string(base64.RawURLEncoding.AppendEncode(append(out[:0], prefix...), sum[:]))
}

// wellFormed reports whether token has the one form that scs gives its tokens: 32 bytes as unpadded base64url.
func wellFormed(token string) bool {
	const size = 32
	var raw [size + 1]byte
	if len(token) != base64.RawURLEncoding.EncodedLen(size) {
		return false
	}
	// The decoder skips line breaks, so the count of bytes matters too.
	n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(token))
	return err == nil && n == size
}
