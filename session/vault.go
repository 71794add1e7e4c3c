package session

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/alexedwards/scs/v2"
)

const (
	minSecret = 32
	// sealed begins encrypted data. No gob stream begins with an empty message.
	sealed = "\x00se1"
	// hashMark ends what is stored under a hash. scs's decoder does not read so far. Without it the hash of a token could be
	// used as a token where raw ones are looked for.
	hashMark = "\x00scs#256"

	keyIDSize = 4
	nonceSize = 12
)

var (
	errHashed = errors.New("session: stored under the hash of its token, and asked for by that hash")
	errSealed = errors.New("session: stored data cannot be decrypted with any of Options.Secrets")
	errPlain  = errors.New("session: stored data is not encrypted, and Options.AcceptPlain is not set")
)

// ringKey is one secret's key.
type ringKey struct {
	id  [keyIDSize]byte
	gcm cipher.AEAD
}

// vault turns what scs encoded into what Redis stores.
type vault struct {
	prefix string
	ring   []ringKey // the newest first; empty for no encryption
	plain  bool      // data that is not encrypted is accepted
}

func newVault(o *Options) (*vault, error) {
	v := &vault{prefix: o.Prefix, plain: o.AcceptPlain || len(o.Secrets) == 0}
	for _, secret := range o.Secrets {
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, "scaleaware session data", 32+keyIDSize)
		if err != nil {
			return nil, fmt.Errorf("session: derive a key: %w", err)
		}
		block, err := aes.NewCipher(key[:32])
		if err != nil {
			return nil, fmt.Errorf("session: derive a key: %w", err)
		}
		k := ringKey{}
		copy(k.id[:], key[32:])
		if k.gcm, err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("session: derive a key: %w", err)
		}
		v.ring = append(v.ring, k)
	}
	return v, nil
}

// bound is what encrypted data is bound to: it cannot be moved to another session's key, nor from one form to the other.
func (v *vault) bound(p place) []byte {
	form := "raw:"
	if p.hashed {
		form = "sha256:"
	}
	return []byte(form + v.prefix + p.name)
}

func (v *vault) seal(p place, b []byte) []byte {
	var out []byte
	if len(v.ring) == 0 {
		if !p.hashed {
			return b
		}
		out = append(make([]byte, 0, len(b)+len(hashMark)), b...)
	} else {
		k := v.ring[0]
		out = make([]byte, 0, len(sealed)+keyIDSize+nonceSize+len(b)+k.gcm.Overhead()+len(hashMark))
		out = append(append(out, sealed...), k.id[:]...)
		out = out[:len(out)+nonceSize]
		nonce := out[len(out)-nonceSize:]
		_, _ = rand.Read(nonce) // never fails
		out = k.gcm.Seal(out, nonce, b, v.bound(p))
	}
	if p.hashed {
		out = append(out, hashMark...)
	}
	return out
}

// open returns errHashed for what must not be found at p, and errSealed or errPlain for what cannot be used.
func (v *vault) open(p place, stored string) (string, error) {
	stored, marked := strings.CutSuffix(stored, hashMark)
	if marked && !p.hashed {
		return "", errHashed
	}
	rest, isSealed := strings.CutPrefix(stored, sealed)
	if !isSealed {
		if !v.plain {
			return "", errPlain
		}
		return stored, nil
	}
	if len(rest) < keyIDSize+nonceSize {
		return "", errSealed
	}
	body := []byte(rest)
	id, nonce, text := body[:keyIDSize], body[keyIDSize:keyIDSize+nonceSize], body[keyIDSize+nonceSize:]
	for _, k := range v.ring {
		if bytes.Equal(k.id[:], id) {
			if out, err := k.gcm.Open(nil, nonce, text, v.bound(p)); err == nil {
				return string(out), nil
			}
		}
	}
	return "", errSealed
}

// shelf is what all stores have in common: where sessions are, and in what form.
type shelf struct {
	locator locator
	vault   *vault
	codec   scs.Codec
	recent  *recent
}

func newShelf(o *Options) (shelf, error) {
	v, err := newVault(o)
	return shelf{locator: newLocator(o.TokenForm), vault: v, codec: newWire(), recent: new(recent)}, err
}

func (s *shelf) common() *shelf { return s }
