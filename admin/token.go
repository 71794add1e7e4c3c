package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"strings"
)

// minSecret is the shortest secret that New accepts, in bytes.
const minSecret = 16

// Token is a bearer token. It never prints its secret.
type Token struct {
	// Name is the actor in audit records. It is no secret.
	Name string
	// Role is what its bearer may do. Zero means Viewer.
	Role Role
	// Secret is what the bearer sends as "Authorization: Bearer <secret>": 16 bytes or more, without spaces.
	Secret string `json:"-"`
}

// String names the token without its secret.
func (t Token) String() string { return fmt.Sprintf("token %q (%s)", t.Name, t.Role) }

// GoString is String, so that %#v keeps the secret too.
func (t Token) GoString() string { return t.String() }

// LogValue is the name and the role.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", t.Name), slog.String("role", t.Role.String()))
}

// Identity is who makes a request.
type Identity struct {
	// Name is the actor in audit records.
	Name string
	// Role is what the caller may do. Zero means Viewer.
	Role Role
}

func validateTokens(tokens []Token) []error {
	var errs []error
	bad := func(i int, format string, args ...any) {
		errs = append(errs, fmt.Errorf("admin: Options.Tokens[%d]%s", i, fmt.Sprintf(format, args...)))
	}
	seen := map[string]int{}
	for i, t := range tokens {
		switch {
		case t.Name == "" || len(t.Name) > 64 || !printable(t.Name):
			bad(i, ".Name: give it a printable name of at most 64 bytes for the audit records")
		case t.Name == loopbackActor:
			bad(i, ".Name: %q is what callers without a token are called; choose another", t.Name)
		}
		if t.Role != Viewer && t.Role != Operator {
			bad(i, ".Role: use admin.Viewer or admin.Operator")
		}
		switch {
		case len(t.Secret) < minSecret:
			bad(i, ".Secret is shorter than %d bytes: make one with `openssl rand -hex 32`", minSecret)
		case !printable(t.Secret) || strings.Contains(t.Secret, " "):
			bad(i, ".Secret holds spaces or characters that no header can carry: make one with `openssl rand -hex 32`")
		}
		if j, ok := seen[t.Secret]; ok && t.Secret != "" {
			bad(i, ".Secret is the one of Tokens[%d]: give each its own", j)
		}
		seen[t.Secret] = i
	}
	return errs
}

// printable holds for printable ASCII.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

// keyring compares secrets by digest, so that the time taken tells neither their length nor their number of equal bytes.
type keyring struct {
	digests    [][sha256.Size]byte
	identities []Identity
}

func newKeyring(tokens []Token) keyring {
	var k keyring
	for _, t := range tokens {
		k.digests = append(k.digests, sha256.Sum256([]byte(t.Secret)))
		k.identities = append(k.identities, Identity{Name: t.Name, Role: t.Role})
	}
	return k
}

func (k keyring) find(secret string) (Identity, bool) {
	digest := sha256.Sum256([]byte(secret))
	found := -1
	for i := range k.digests {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(digest[:], k.digests[i][:]), i, found)
	}
	if found < 0 {
		return Identity{}, false
	}
	return k.identities[found], true
}
