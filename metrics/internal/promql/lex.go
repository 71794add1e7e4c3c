package promql

import (
	"fmt"
	"regexp"
	"strings"
)

type kind int

const (
	end kind = iota
	word
	number
	text
	duration
	sign // an operator or a bracket
)

type token struct {
	kind kind
	text string
}

// The order matters: a duration begins like a number, >= like >.
var patterns = []struct {
	kind kind
	is   *regexp.Regexp
}{
	{text, regexp.MustCompile(`^"(?:[^"\\]|\\.)*"`)},
	{text, regexp.MustCompile(`^'(?:[^'\\]|\\.)*'`)},
	{duration, regexp.MustCompile(`^(?:[0-9]+(?:ms|[smhdwy]))+\b`)},
	{duration, regexp.MustCompile(`^\$[a-z_]+`)},
	{number, regexp.MustCompile(`^(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\b`)},
	{word, regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*`)},
	{sign, regexp.MustCompile(`^(?:=~|!~|==|!=|>=|<=|[-+*/%^<>=(){}\[\],:])`)},
}

func lex(s string) ([]token, error) {
	var tokens []token
	inBrackets := false
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		found := ""
		for _, p := range patterns {
			if found = p.is.FindString(s); found == "" {
				continue
			}
			if p.kind == word && inBrackets { // the colon of a subquery, which a name may have, too
				found = ""
				continue
			}
			tokens = append(tokens, token{p.kind, found})
			inBrackets = found == "[" || inBrackets && found != "]"
			break
		}
		if found == "" {
			return nil, fmt.Errorf("cannot read on from %.20q", s)
		}
		s = s[len(found):]
	}
	return append(tokens, token{}), nil
}
