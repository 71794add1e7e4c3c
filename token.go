package scaleaware

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// ErrToken is wrapped by every error that a malformed token causes.
var ErrToken = errors.New("scaleaware: malformed token")

// LSN is a position in PostgreSQL's write-ahead log, in bytes since its start.
type LSN uint64

// String returns the position as PostgreSQL's pg_lsn prints it, for example 0/B1D3548.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN parses a position as a PostgreSQL server prints it. Servers before 19 print no leading zeros; from 19 on
// the part behind the slash is padded to eight digits, and both are taken. Lower-case digits, other leading zeros
// and signs are refused.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("%w: position %q has no slash, want a form like 0/B1D3548", ErrToken, clip(s))
	}
	h, err := parseNumber(high, 16, 32)
	if err != nil {
		return 0, err
	}
	if len(low) == 8 {
		if low = strings.TrimLeft(low, "0"); low == "" {
			low = "0"
		}
	}
	l, err := parseNumber(low, 16, 32)
	if err != nil {
		return 0, err
	}
	return LSN(h<<32 | l), nil
}

// Token names a position in the history of one PostgreSQL cluster: whoever has replayed up to it sees everything
// that was committed before it was taken. The zero Token asks for nothing. A Token with a System and no Timeline is unknown:
// something was written there, at a position that could not be learned.
type Token struct {
	// System is the cluster's system identifier, as in pg_control_system(): it tells databases apart.
	System uint64
	// Timeline counts promotions. Positions on different timelines cannot be compared by their numbers. Zero means that
	// the position is unknown.
	Timeline uint32
	// LSN is the position on that timeline. In an unknown Token it is no position but a random number, which tells one
	// such Token from another.
	LSN LSN
}

// UnknownPosition returns a new Token for a write to system whose position could not be learned. Nothing covers it:
// whoever reads has to ask the primary where it stands, or to read there.
func UnknownPosition(system uint64) Token { return Token{System: system, LSN: LSN(rand.Uint64())} }

// Unknown reports whether t stands for a write at an unknown position.
func (t Token) Unknown() bool { return t.System != 0 && t.Timeline == 0 }

// IsZero reports whether t asks for nothing.
func (t Token) IsZero() bool { return t == Token{} }

// Covers reports whether a server that stands at t has everything that other names. known is false when the
// two cannot be compared: another system, another timeline, whose fork point the numbers alone do not tell, or an
// unknown position, even the same one. Treat unknown as not covered. There is no plain less-than, because after a promotion it lies.
func (t Token) Covers(other Token) (ok, known bool) {
	switch {
	case other.IsZero():
		return true, true
	case t.System != other.System || t.Timeline != other.Timeline || t.Unknown():
		return false, false
	default:
		return t.LSN >= other.LSN, true
	}
}

// later returns whichever of two tokens of one system asks for more. A higher timeline is the later history, and an
// unknown position may be anywhere: of two of them the other is the later one.
func (t Token) later(other Token) Token {
	if t.Unknown() != other.Unknown() {
		if t.Unknown() {
			return t
		}
		return other
	}
	if t.Unknown() {
		return other
	}
	if other.Timeline > t.Timeline || other.Timeline == t.Timeline && other.LSN > t.LSN {
		return other
	}
	return t
}

// String returns the token's only text form, system:timeline:position, for example
// 7551234567890123456:1:0/B1D3548. An unknown Token is system:?number, for example 7551234567890123456:?1F. The zero
// Token is the empty string.
func (t Token) String() string {
	if t.IsZero() {
		return ""
	}
	if t.Unknown() {
		return fmt.Sprintf("%d:?%X", t.System, uint64(t.LSN))
	}
	return strconv.FormatUint(t.System, 10) + ":" + strconv.FormatUint(uint64(t.Timeline), 10) + ":" + t.LSN.String()
}

// ParseToken parses the form that String writes and nothing else. The empty string is the zero Token. Every
// error wraps ErrToken. A parsed token is well-formed, not true: what comes from a client must also be signed.
func ParseToken(s string) (Token, error) {
	if s == "" {
		return Token{}, nil
	}
	system, rest, _ := strings.Cut(s, ":")
	if nonce, ok := strings.CutPrefix(rest, "?"); ok {
		return parseUnknown(system, nonce)
	}
	timeline, lsn, ok := strings.Cut(rest, ":")
	if !ok {
		return Token{}, fmt.Errorf("%w: %q, want system:timeline:position", ErrToken, clip(s))
	}
	sys, err := parseNumber(system, 10, 64)
	if err != nil {
		return Token{}, err
	}
	tli, err := parseNumber(timeline, 10, 32)
	if err != nil {
		return Token{}, err
	}
	pos, err := ParseLSN(lsn)
	if err != nil {
		return Token{}, err
	}
	if pos.String() != lsn {
		return Token{}, fmt.Errorf("%w: %q pads its position with zeros", ErrToken, clip(s))
	}
	if sys == 0 || tli == 0 {
		return Token{}, fmt.Errorf("%w: %q names system or timeline 0, which no server has", ErrToken, clip(s))
	}
	return Token{System: sys, Timeline: uint32(tli), LSN: pos}, nil
}

func parseUnknown(system, nonce string) (Token, error) {
	sys, err := parseNumber(system, 10, 64)
	if err != nil {
		return Token{}, err
	}
	n, err := parseNumber(nonce, 16, 64)
	if err != nil {
		return Token{}, err
	}
	if sys == 0 {
		return Token{}, fmt.Errorf("%w: an unknown position names system 0, which no server has", ErrToken)
	}
	return Token{System: sys, LSN: LSN(n)}, nil
}

// MarshalText implements encoding.TextMarshaler.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Token) UnmarshalText(text []byte) error {
	parsed, err := ParseToken(string(text))
	if err == nil {
		*t = parsed
	}
	return err
}

// parseNumber accepts only the canonical spelling: no sign, no leading zero, upper-case hexadecimal.
func parseNumber(s string, base, bits int) (uint64, error) {
	n, err := strconv.ParseUint(s, base, bits)
	if err != nil || strings.ToUpper(strconv.FormatUint(n, base)) != s {
		return 0, fmt.Errorf("%w: %q is not a canonical base-%d number of %d bits", ErrToken, clip(s), base, bits)
	}
	return n, nil
}

// clip keeps hostile input out of logs beyond what identifies it.
func clip(s string) string {
	const limit = 64
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}
