package cache

import (
	"fmt"
	"strings"
)

const maxPatternBytes = 256

// checkPattern refuses what cannot be meant. A pattern speaks of view:key, without the prefix.
func checkPattern(pattern, prefix string) error {
	switch {
	case pattern == "":
		return fmt.Errorf("%w: pattern is empty, give one such as \"lead:*\", or \"*\" for the whole cache", ErrPattern)
	case len(pattern) > maxPatternBytes:
		return fmt.Errorf("%w: pattern has %d bytes, give at most %d", ErrPattern, len(pattern), maxPatternBytes)
	case strings.ContainsFunc(pattern, isControl):
		return fmt.Errorf("%w: pattern %q has blanks or control characters, give one such as \"lead:*\"", ErrPattern, clip(pattern))
	case strings.HasPrefix(pattern, prefix):
		return fmt.Errorf("%w: pattern %q begins with the prefix, which is added by itself; give it without, such as \"lead:*\"", ErrPattern, clip(pattern))
	case strings.Count(pattern, "*") > 8:
		return fmt.Errorf("%w: pattern %q has over 8 stars, which costs Redis too much; give a simpler one", ErrPattern, clip(pattern))
	}
	for _, f := range foreign {
		if strings.HasPrefix(pattern, f) {
			return fmt.Errorf("%w: pattern %q names keys outside this cache (%s*), which it never touches; give one such as \"lead:*\"", ErrPattern, clip(pattern), f)
		}
	}
	return nil
}

// globMatch decides as Redis's MATCH does, byte by byte: *, ?, [a-z], [^a], and backslash before a literal. Only the
// last star is ever tried again, so no pattern takes longer than len(p)*len(s).
func globMatch(p, s string) bool {
	starP, starS, starred := "", "", false
	for s != "" || p != "" {
		if p != "" && p[0] == '*' {
			starP, starS, starred = p[1:], s, true
			p = p[1:]
			continue
		}
		if rest, ok := matchOne(p, s); ok {
			p, s = rest, s[1:]
			continue
		}
		if !starred || starS == "" {
			return false
		}
		starS = starS[1:]
		p, s = starP, starS
	}
	return true
}

// matchOne matches the first byte of s against the first element of p, which is no star, and returns the rest of p.
func matchOne(p, s string) (rest string, ok bool) {
	if p == "" || s == "" {
		return p, false
	}
	switch p[0] {
	case '?':
		return p[1:], true
	case '[':
		ok, rest = classMatch(p[1:], s[0])
		return rest, ok
	case '\\':
		if len(p) > 1 {
			p = p[1:]
		}
	}
	return p[1:], p[0] == s[0]
}

// classMatch matches c against the class that p stands in, and returns what follows the class. A class that is not
// closed ends with the pattern.
func classMatch(p string, c byte) (ok bool, rest string) {
	not := strings.HasPrefix(p, "^")
	if not {
		p = p[1:]
	}
	for {
		switch {
		case p == "":
			return ok != not, ""
		case p[0] == '\\' && len(p) >= 2:
			ok = ok || p[1] == c
			p = p[2:]
		case p[0] == ']':
			return ok != not, p[1:]
		case len(p) >= 3 && p[1] == '-':
			low, high := min(p[0], p[2]), max(p[0], p[2])
			ok = ok || low <= c && c <= high
			p = p[3:]
		default:
			ok = ok || p[0] == c
			p = p[1:]
		}
	}
}
