package scaleaware

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestParseToken(t *testing.T) {
	for text, want := range map[string]Token{
		"":                                {},
		"7551234567890123456:1:0/B1D3548": {7551234567890123456, 1, 0xB1D3548},
		"18446744073709551615:4294967295:FFFFFFFF/FFFFFFFF": {1<<64 - 1, 1<<32 - 1, 1<<64 - 1},
		"1:1:0/0":                                {1, 1, 0},
		"7551234567890123456:?B1D3548":           {7551234567890123456, 0, 0xB1D3548},
		"18446744073709551615:?FFFFFFFFFFFFFFFF": {1<<64 - 1, 0, 1<<64 - 1},
		"1:?0":                                   {1, 0, 0},
	} {
		got, err := ParseToken(text)
		if err != nil || got != want {
			t.Errorf("ParseToken(%q) = %v, %v, want %v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("%#v.String() = %q, want %q", got, got.String(), text)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	for _, text := range []string{
		"1", "1:1", "1:1:", ":1:0/1", "1::0/1", "1:1:0", "1:1:/", "1:1:0/", "1:1:/0", "1:1:0/1:1", "1:1:0/1,1:1:0/1",
		"0:1:0/1", "1:0:0/1", "+1:1:0/1", "-1:1:0/1", "01:1:0/1", "1:01:0/1", "1:1:00/1", "1:1:0/01", "1:1:0/00000001",
		"1:1:0/b", "1:1:0x1/1", "1:1:0/1_0", " 1:1:0/1", "1:1:0/1 ", "1:1:0/1\n", "1:1:100000000/0", "1:1:0/100000000",
		"18446744073709551616:1:0/1", "1:4294967296:0/1", "١:1:0/1", "1:1:0/\x00", strings.Repeat("9", 1<<20) + ":1:0/1",
		"?1", ":?1", "0:?1", "1:?", "1:?1f", "1:?01", "1:?-1", "1:?+1", "1:? 1", "1:?1 ", "1:??1", "1:?0/1", "1:?1:0/1", "1:1:?1", "1:1?1",
		"1:?10000000000000000", "01:?1", "1:0:?1", "1:?0x1", "1:?1,", "1?1",
	} {
		got, err := ParseToken(text)
		if !errors.Is(err, ErrToken) || !got.IsZero() {
			t.Errorf("ParseToken(%.40q) = %v, %v, want ErrToken", text, got, err)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("ParseToken(%.40q): the error repeats %d bytes of what a client sent", text, len(err.Error()))
		}
	}
}

func TestParseLSNTakesBothFormsOfServers(t *testing.T) {
	for text, want := range map[string]LSN{"0/0": 0, "0/00000000": 0, "1/0000000A": 1<<32 | 10, "1/A": 1<<32 | 10, "16/B374D848": 0x16B374D848} {
		if got, err := ParseLSN(text); err != nil || got != want {
			t.Errorf("ParseLSN(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "/", "0", "0/0A", "0/0000000a", "00000000/0", "0/000000000", "-0/0"} {
		if got, err := ParseLSN(text); !errors.Is(err, ErrToken) {
			t.Errorf("ParseLSN(%q) = %v, %v, want ErrToken", text, got, err)
		}
	}
}

func TestTokenCovers(t *testing.T) {
	at := func(system uint64, timeline uint32, lsn LSN) Token { return Token{system, timeline, lsn} }
	for name, c := range map[string]struct {
		have, asked Token
		ok, known   bool
	}{
		"nothing asked":           {at(1, 1, 5), Token{}, true, true},
		"nothing asked of zero":   {Token{}, Token{}, true, true},
		"equal":                   {at(1, 1, 5), at(1, 1, 5), true, true},
		"ahead":                   {at(1, 1, 6), at(1, 1, 5), true, true},
		"behind":                  {at(1, 1, 4), at(1, 1, 5), false, true},
		"other system":            {at(2, 1, 9), at(1, 1, 5), false, false},
		"older timeline asked":    {at(1, 2, 9), at(1, 1, 5), false, false},
		"newer timeline asked":    {at(1, 1, 9), at(1, 2, 5), false, false},
		"zero stands nowhere":     {Token{}, at(1, 1, 5), false, false},
		"position 0 of a history": {at(1, 1, 0), at(1, 1, 0), true, true},
		"unknown asked":           {at(1, 1, 9), at(1, 0, 5), false, false},
		"unknown asked of zero":   {Token{}, at(1, 0, 5), false, false},
		"unknown":                 {at(1, 0, 9), at(1, 1, 5), false, false},
		"unknown of itself":       {at(1, 0, 5), at(1, 0, 5), false, false},
		"unknown of another":      {at(1, 0, 9), at(1, 0, 5), false, false},
		"nothing asked of it":     {at(1, 0, 5), Token{}, true, true},
	} {
		if ok, known := c.have.Covers(c.asked); ok != c.ok || known != c.known {
			t.Errorf("%s: Covers = %v, %v, want %v, %v", name, ok, known, c.ok, c.known)
		}
	}
}

func TestParseTokenRepeatsOnlyTheBeginningOfALongOne(t *testing.T) {
	most := strings.Repeat("x", 64)
	if _, err := ParseToken(most); err == nil || !strings.Contains(err.Error(), `"`+most+`"`) {
		t.Errorf("ParseToken of 64 letters: %v, want all of them in it", err)
	}
	if _, err := ParseToken(most + "y"); err == nil || !strings.Contains(err.Error(), `"`+most+`…"`) {
		t.Errorf("ParseToken of 65 letters: %v, want 64 of them in it", err)
	}
}

func TestTokenInJSON(t *testing.T) {
	type carrier struct{ T Token }
	in := carrier{Token{7, 2, 0x10}}
	text, err := json.Marshal(in)
	if err != nil || string(text) != `{"T":"7:2:0/10"}` {
		t.Fatalf("Marshal = %s, %v", text, err)
	}
	var out carrier
	if err := json.Unmarshal(text, &out); err != nil || out != in {
		t.Fatalf("Unmarshal = %v, %v, want %v", out, err, in)
	}
	if err := json.Unmarshal([]byte(`{"T":"7:2:0/x"}`), &out); !errors.Is(err, ErrToken) || out != in {
		t.Fatalf("Unmarshal of garbage = %v, %v, want ErrToken and nothing changed", out, err)
	}
}

func TestTokens(t *testing.T) {
	a5, a9, b5, b9 := Token{1, 1, 5}, Token{1, 1, 9}, Token{2, 1, 5}, Token{2, 1, 9}
	a2nd := Token{1, 2, 1}
	if got := (Tokens{a5, b9}).Merge(Tokens{a9, b5}); got.For(1) != a9 || got.For(2) != b9 || len(got) != 2 {
		t.Errorf("Merge = %v", got)
	}
	if got := (Tokens{a9}).Merge(Tokens{a2nd}); got.For(1) != a2nd {
		t.Errorf("Merge = %v, want the later timeline", got)
	}
	if got := (Tokens{a2nd}).Merge(Tokens{a9}); got.For(1) != a2nd {
		t.Errorf("Merge = %v, want the later timeline", got)
	}
	u, v := Token{1, 0, 1}, Token{1, 0, 2}
	for _, c := range []struct{ a, b, want Token }{{u, a9, u}, {a2nd, u, u}, {u, v, v}, {v, u, u}} {
		if got := (Tokens{c.a}).Merge(Tokens{c.b}); got.For(1) != c.want || len(got) != 1 {
			t.Errorf("%v merged with %v is %v", c.a, c.b, got)
		}
	}
	for _, c := range []struct {
		have, other Tokens
		want        bool
	}{
		{nil, nil, true}, {Tokens{a9}, Tokens{a5}, true}, {Tokens{a5}, Tokens{a9}, false}, {Tokens{u, b5}, Tokens{u}, true},
		{Tokens{u}, Tokens{v}, false}, {Tokens{u}, Tokens{a5}, false}, {Tokens{a9}, Tokens{u}, false}, {Tokens{a9}, Tokens{b5}, false},
	} {
		if got := c.have.Includes(c.other); got != c.want {
			t.Errorf("%v.Includes(%v) = %v", c.have, c.other, got)
		}
	}
	own := Tokens{a5}
	if own.Merge(Tokens{a9}); own[0] != a5 {
		t.Error("Merge changed its receiver")
	}
	if got := (Tokens{a5, {}, b5}).String(); got != "1:1:0/5,2:1:0/5" {
		t.Errorf("String = %q", got)
	}
	for _, c := range []struct {
		have, asked Tokens
		want        bool
	}{
		{nil, nil, true}, {Tokens{a9}, nil, true}, {nil, Tokens{a5}, false}, {Tokens{a9, b9}, Tokens{b5, a5}, true},
		{Tokens{a9}, Tokens{a5, b5}, false}, {Tokens{a2nd}, Tokens{a5}, false}, {Tokens{u}, Tokens{u}, false},
	} {
		if got := c.have.Covers(c.asked); got != c.want {
			t.Errorf("%v.Covers(%v) = %v", c.have, c.asked, got)
		}
	}
	for _, text := range []string{",", "1:1:0/1,", ",1:1:0/1", "1:1:0/1,1:1:0/2", "1:1:0/1,1:2:0/2", "1:1:0/1,2:1:0/1,3:1:0/1,4:1:0/1,5:1:0/1", "1:1:0/1, 2:1:0/1", "1:?1,1:1:0/1", "1:?1,1:?2"} {
		if got, err := ParseTokens(text); !errors.Is(err, ErrToken) || got != nil {
			t.Errorf("ParseTokens(%q) = %v, %v, want ErrToken", text, got, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{"", "7551234567890123456:1:0/B1D3548", "1:1:0/00000001", "1:1:FFFFFFFF/FFFFFFFF", "::/", "0:0:0/0", "1:?1F", "1:?0", "18446744073709551615:?FFFFFFFFFFFFFFFF", "0:?1", "1:?", "1:?1f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil && !errors.Is(err, ErrToken) {
			t.Fatalf("error %v does not wrap ErrToken", err)
		}
		if err == nil && token.String() != text {
			t.Fatalf("%q came back as %q", text, token.String())
		}
		if covers, _ := token.Covers(token); err == nil && covers == token.Unknown() {
			t.Fatalf("%q covers itself: %v", text, covers)
		}
	})
}

func FuzzParseTokens(f *testing.F) {
	for _, seed := range []string{"", "1:1:0/1,2:1:0/1", "1:1:0/1,1:1:0/1", ",,,,,,", "4:1:0/1,3:1:0/1,2:1:0/1,1:1:0/1", "1:?1,2:1:0/1", "1:?1,1:1:0/1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := ParseTokens(text)
		if err != nil && !errors.Is(err, ErrToken) {
			t.Fatalf("error %v does not wrap ErrToken", err)
		}
		if err == nil && tokens.String() != text {
			t.Fatalf("%q came back as %q", text, tokens.String())
		}
		if len(tokens) > maxSystems {
			t.Fatalf("%d tokens accepted", len(tokens))
		}
	})
}
