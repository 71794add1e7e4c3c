package scaleaware

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	oldSecret = "an old secret of forty characters ......"
	newSecret = "a new secret of forty-one characters ...."
)

var sample = Tokens{{7551234567890123456, 1, 0xB1D3548}, {9, 2, 1}}

func signer(t testing.TB, opts *SignerOptions, secrets ...string) *Signer {
	t.Helper()
	s, err := NewSigner(secrets, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSignedTokensComeBack(t *testing.T) {
	s := signer(t, nil, newSecret)
	largest := Tokens{}
	for i := range uint64(maxSystems) {
		largest = append(largest, Token{1<<64 - 1 - i, 1<<32 - 1, 1<<64 - 1})
	}
	for _, ts := range []Tokens{nil, sample, largest} {
		text := s.Sign(ts)
		got, err := s.Verify(text)
		if err != nil || got.String() != ts.String() {
			t.Errorf("%v came back as %v, %v", ts, got, err)
		}
		if len(text) > maxSigned || strings.ContainsAny(text, " ,;=\"\\%&+/") {
			t.Errorf("%d characters, not safe in a cookie: %s", len(text), text)
		}
	}
}

func TestOnlyTheSameSecretAndPurposeVerify(t *testing.T) {
	text := signer(t, nil, oldSecret).Sign(sample)
	if _, err := signer(t, nil, newSecret).Verify(text); !errors.Is(err, ErrSignature) {
		t.Errorf("another secret: %v, want ErrSignature", err)
	}
	if _, err := signer(t, &SignerOptions{Purpose: "reset"}, oldSecret).Verify(text); !errors.Is(err, ErrSignature) {
		t.Errorf("another purpose: %v, want ErrSignature", err)
	}
	if got, err := signer(t, nil, newSecret, oldSecret).Verify(text); err != nil || got.String() != sample.String() {
		t.Errorf("rotated, old secret still listed: %v, %v", got, err)
	}
	rotated := signer(t, nil, newSecret, oldSecret).Sign(sample)
	if _, err := signer(t, nil, newSecret).Verify(rotated); err != nil {
		t.Errorf("the first secret does not sign: %v", err)
	}
}

func TestSignedTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := signer(t, &SignerOptions{TTL: time.Minute}, newSecret)
		text := s.Sign(sample)
		time.Sleep(59 * time.Second)
		if _, err := s.Verify(text); err != nil {
			t.Errorf("after 59 s: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := s.Verify(text); !errors.Is(err, ErrExpired) {
			t.Errorf("after a minute: %v, want ErrExpired", err)
		}
	})
}

func TestEveryChangedCharacterIsNoticed(t *testing.T) {
	s := signer(t, nil, newSecret)
	text := s.Sign(sample)
	for i := range text {
		for _, c := range []byte{'A', 'B', '-', '.', '\n', 0} {
			if text[i] == c {
				continue
			}
			forged := text[:i] + string(c) + text[i+1:]
			if ts, err := s.Verify(forged); err == nil {
				t.Fatalf("character %d changed to %q: accepted as %v", i, c, ts)
			}
		}
	}
	for _, forged := range []string{
		"v1.", "v1..", ".", "v2" + text[2:], text + "A", text[:len(text)-1], text + "\n", " " + text, strings.Repeat("A", 1<<20),
		"v1." + strings.Repeat("A", 43), "v1.." + strings.Repeat("A", 43), "v1.\n" + text[3:],
	} {
		if ts, err := s.Verify(forged); err == nil {
			t.Errorf("%.50q accepted as %v", forged, ts)
		}
	}
	// What is longer than any token is not even hashed.
	if _, err := s.Verify("v1." + strings.Repeat("A", maxSigned) + "." + strings.Repeat("A", macLength)); !errors.Is(err, ErrToken) {
		t.Errorf("an oversized text: %v, want ErrToken", err)
	}
}

// A signature proves who signed, not that the payload makes sense: another version may sign other things.
func TestSignedNonsenseIsRefused(t *testing.T) {
	s := signer(t, nil, newSecret)
	future := fmt.Sprint(time.Now().Add(time.Hour).Unix())
	for _, payload := range []string{"", ";", future, future + ";x", future + ";1:1:0/1,1:1:0/1", "0" + future + ";1:1:0/1", "-1;1:1:0/1", "99999999999999999999;1:1:0/1", "x;1:1:0/1"} {
		body := signedForm + base64.RawURLEncoding.EncodeToString([]byte(payload))
		ts, err := s.Verify(body + "." + mac(s.keys[0], body))
		if len(ts) > 0 || err != nil && !errors.Is(err, ErrToken) {
			t.Errorf("payload %q: %v, %v, want ErrToken", payload, ts, err)
		}
	}
	body := signedForm + "a=b"
	if _, err := s.Verify(body + "." + mac(s.keys[0], body)); !errors.Is(err, ErrToken) {
		t.Errorf("signed text that is no base64url: %v, want ErrToken", err)
	}
}

func TestNewSignerNamesAllMistakes(t *testing.T) {
	_, err := NewSigner([]string{"short", newSecret, "secret2short"}, &SignerOptions{TTL: -1})
	for _, want := range []string{"TTL", "secret 1 of 3", "secret 3 of 3", "openssl"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %q", err, want)
		}
	}
	if strings.Contains(fmt.Sprint(err), "secret2short") {
		t.Error("the error prints a secret")
	}
	if _, err := NewSigner(nil, nil); err == nil {
		t.Error("no secrets accepted")
	}
}

func TestSignerIsNotPrinted(t *testing.T) {
	s := signer(t, nil, newSecret)
	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("made", "signer", s)
	fmt.Fprintf(&out, "%v %+v %#v %s", s, s, s, s)
	if strings.Contains(out.String(), newSecret[:8]) || strings.Contains(out.String(), fmt.Sprint(s.keys[0])) {
		t.Errorf("prints its key: %s", out.String())
	}
}

func FuzzVerify(f *testing.F) {
	s := signer(f, nil, newSecret)
	f.Add(s.Sign(sample))
	f.Add("v1..")
	f.Add("v1." + strings.Repeat("A", 80))
	f.Fuzz(func(t *testing.T, text string) {
		ts, err := s.Verify(text)
		if err == nil && len(ts) > 0 && text != s.Sign(sample) && !strings.HasPrefix(text, signedForm) {
			t.Fatalf("accepted %q as %v", text, ts)
		}
		// Whatever a body says, only its own MAC makes it pass, and what passes parses canonically.
		body := signedForm + base64.RawURLEncoding.EncodeToString([]byte(text))
		ts, err = s.Verify(body + "." + mac(s.keys[0], body))
		if err == nil && !strings.HasSuffix(text, ts.String()) {
			t.Fatalf("payload %q came back as %v", text, ts)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s := signer(b, nil, newSecret, oldSecret)
	text := s.Sign(sample)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Verify(text); err != nil {
			b.Fatal(err)
		}
	}
}
