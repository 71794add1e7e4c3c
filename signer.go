package scaleaware

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

const (
	minSecret  = 32
	signedForm = "v1."
	// maxSigned is above the longest text that Sign can write: four tokens of at most 49 bytes.
	maxSigned = 512
	macLength = 43
)

var (
	// ErrSignature says that none of the signer's secrets has signed the text for this purpose.
	ErrSignature = errors.New("scaleaware: signed token has no valid signature")
	// ErrExpired says that the signature is good and its time is over.
	ErrExpired = errors.New("scaleaware: signed token has expired")
)

// SignerOptions adjust a Signer.
type SignerOptions struct {
	// TTL is how long a signed token is valid. After it a client's reads no longer wait for its own writes, so keep
	// it above the longest time that a replica in use may lag. Zero means 1 hour.
	TTL time.Duration
	// Purpose keeps tokens of one kind from being taken as another: only a signer with the same purpose verifies
	// them. Zero means "token".
	Purpose string
}

// Signer signs tokens that clients keep, so that nobody can make one up that no server ever reaches. It does not hide
// them: a client can read its position. The text needs no escaping in a cookie, header or URL.
type Signer struct {
	secrets []string
	keys    [][]byte // the newest first
	ttl     time.Duration
}

// NewSigner returns a signer. The first secret signs; all verify, so to rotate put a new one first on every instance
// and remove the old one when TTL has passed. A secret has at least 32 bytes and should be random; keys are derived
// from it by HKDF-SHA256, so it may serve for other things too.
func NewSigner(secrets []string, opts *SignerOptions) (*Signer, error) {
	var o SignerOptions
	if opts != nil {
		o = *opts
	}
	if o.TTL == 0 {
		o.TTL = time.Hour
	}
	if o.Purpose == "" {
		o.Purpose = "token"
	}
	var errs []error
	if o.TTL < time.Second {
		errs = append(errs, fmt.Errorf("scaleaware: SignerOptions.TTL is %v, want a second or more", o.TTL))
	}
	if len(secrets) == 0 {
		errs = append(errs, errors.New("scaleaware: NewSigner has no secret, give one or more, newest first"))
	}
	for i, secret := range secrets {
		if len(secret) < minSecret {
			errs = append(errs, fmt.Errorf("scaleaware: secret %d of %d has %d bytes, want %d or more; openssl rand -base64 32 makes one",
				i+1, len(secrets), len(secret), minSecret))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s := &Signer{secrets: append([]string(nil), secrets...), ttl: o.TTL}
	return s.derive(o.Purpose)
}

// For returns a signer with the same secrets and TTL for another purpose.
func (s *Signer) For(purpose string) (*Signer, error) {
	return (&Signer{secrets: s.secrets, ttl: s.ttl}).derive(purpose)
}

func (s *Signer) derive(purpose string) (*Signer, error) {
	for _, secret := range s.secrets {
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, "scaleaware signed token: "+purpose, sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("scaleaware: derive a key: %w", err)
		}
		s.keys = append(s.keys, key)
	}
	return s, nil
}

// Sign returns the tokens as signed text that is valid for the signer's TTL. No tokens are the empty string.
func (s *Signer) Sign(ts Tokens) string {
	ts = Tokens(nil).Merge(ts)
	if len(ts) == 0 {
		return ""
	}
	payload := strconv.FormatInt(time.Now().Add(s.ttl).Unix(), 10) + ";" + ts.String()
	body := signedForm + base64.RawURLEncoding.EncodeToString([]byte(payload))
	return body + "." + mac(s.keys[0], body)
}

// Verify returns the tokens that Sign was given. The empty string is none. Errors wrap ErrToken for what Sign never
// writes, ErrSignature for what these secrets did not sign for this purpose, ErrExpired for what is too old.
func (s *Signer) Verify(text string) (Tokens, error) {
	if text == "" {
		return nil, nil
	}
	dot := len(text) - macLength - 1
	if len(text) > maxSigned || dot < len(signedForm) || !strings.HasPrefix(text, signedForm) || text[dot] != '.' {
		return nil, fmt.Errorf("%w: not the form of a signed token", ErrToken)
	}
	body, given := text[:dot], []byte(text[dot+1:])
	signed := 0
	for _, key := range s.keys {
		// The MAC covers the text and is compared as text, so that a signed token has one spelling.
		signed |= subtle.ConstantTimeCompare(given, []byte(mac(key, body)))
	}
	if signed != 1 {
		return nil, ErrSignature
	}
	payload, err := base64.RawURLEncoding.DecodeString(body[len(signedForm):])
	if err != nil {
		return nil, fmt.Errorf("%w: payload is not base64url", ErrToken)
	}
	until, tokens, _ := strings.Cut(string(payload), ";")
	seconds, err := parseNumber(until, 10, 63)
	if err != nil {
		return nil, err
	}
	if time.Now().Unix() >= int64(seconds) {
		return nil, ErrExpired
	}
	return ParseTokens(tokens)
}

func mac(key []byte, body string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(body))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// String tells how many keys there are, never what they are.
func (s *Signer) String() string { return fmt.Sprintf("scaleaware.Signer(%d keys)", len(s.keys)) }

// GoString is String.
func (s *Signer) GoString() string { return s.String() }

// LogValue is String.
func (s *Signer) LogValue() slog.Value { return slog.StringValue(s.String()) }
