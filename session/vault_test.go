package session

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const secretA, secretB = "the first secret has more than 32 bytes", "the second secret has more than 32 bytes"

// What an attacker finds who can read all that Redis has, keys and values.
func TestDumpHasNoTokenAndNoPlaintext(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, secrets := range map[string][]string{"hashed": nil, "encrypted": {secretA}} {
			t.Run(name, func(t *testing.T) {
				a := serve(t, manager(t, rdb, Options{Secrets: secrets}))
				b := newBrowser(t)
				b.want(a, "login?as=ada.lovelace", "welcome")
				b.want(a, "put?key=account&value=DE02120300000000202051", "put")
				token := b.cookie(a)
				for key := range keys(t, rdb, a.opts.Prefix) {
					value := rdb.Dump(t.Context(), key).Val()
					if strings.Contains(key+value, token) {
						t.Errorf("%s has the token", key)
					}
					if secrets != nil && (strings.Contains(key+value, "lovelace") || strings.Contains(value, "DE0212")) {
						t.Errorf("%s has plaintext", key)
					}
					// No part of a key is good for logging in.
					for part := range strings.SplitSeq(key, ":") {
						b.with(a, strings.Trim(part, "{}")).want(a, "who", "")
					}
				}
				b.want(a, "who", "ada.lovelace")
			})
		}
	})
}

func TestSecretsRotate(t *testing.T) {
	rdb := client(t, single)
	old, both, fresh := serve(t, manager(t, rdb, Options{Secrets: []string{secretA}})),
		serve(t, manager(t, rdb, Options{Secrets: []string{secretB, secretA}})), serve(t, manager(t, rdb, Options{Secrets: []string{secretB}}))
	b := newBrowser(t)
	b.want(old, "login?as=ada", "welcome")
	b.want(both, "who", "ada")
	b.want(both, "put?key=k&value=v", "put") // encrypted anew
	b.want(fresh, "get?key=k", "v")
	b.want(fresh, "who", "ada")

	// An instance that does not have the secret yet: a new session and a count, not a 500.
	resp, body := b.response(old, "who")
	if resp.StatusCode != 200 || body != "" || old.counted("find", "undecryptable") != 1 {
		t.Errorf("answer %d %q", resp.StatusCode, body)
	}
	b.want(fresh, "who", "ada") // and that does no harm
}

func TestEncryptionBeginsAndEnds(t *testing.T) {
	rdb := client(t, single)
	plain, strict := serve(t, manager(t, rdb, Options{})), serve(t, manager(t, rdb, Options{Secrets: []string{secretA}}))
	accepting := serve(t, manager(t, rdb, Options{Secrets: []string{secretA}, AcceptPlain: true}))
	b := newBrowser(t)
	b.want(plain, "login?as=ada", "welcome")
	b.want(strict, "who", "") // might be forged by somebody who can write to Redis
	b.want(accepting, "who", "ada")
	b.want(accepting, "put?key=k&value=v", "put")
	b.want(strict, "who", "ada")
	b.want(plain, "who", "")
}

func TestSealedDataIsBoundToItsKey(t *testing.T) {
	rdb := client(t, single)
	a := serve(t, manager(t, rdb, Options{Secrets: []string{secretA}}))
	ada, eve := newBrowser(t), newBrowser(t)
	ada.want(a, "login?as=ada", "welcome")
	eve.want(a, "login?as=eve", "welcome")
	// Somebody who can write to Redis gives eve's session the data of ada's.
	rdb.Set(t.Context(), a.keyOf(eve.cookie(a)), rdb.Get(t.Context(), a.keyOf(ada.cookie(a))).Val(), time.Hour)
	eve.want(a, "who", "")
	if a.counted("find", "undecryptable") != 1 {
		t.Error("not counted")
	}
}

func TestVault(t *testing.T) {
	at, raw := place{hash(tokenA), true}, place{hash(tokenA), false}
	for name, o := range map[string]Options{"plain": {}, "sealed": {Secrets: []string{secretA}}} {
		v, err := newVault(&o)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []place{at, raw} {
			b := v.seal(p, []byte("data"))
			if got, err := v.open(p, string(b)); got != "data" || err != nil {
				t.Errorf("%s %v: %q, %v", name, p, got, err)
			}
			if p == at {
				if _, err := v.open(raw, string(b)); !errors.Is(err, errHashed) {
					t.Errorf("%s: found by its hash: %v", name, err)
				}
			}
			if len(o.Secrets) == 0 {
				continue
			}
			if other := v.seal(p, []byte("data")); bytes.Equal(other, b) {
				t.Error("the nonce is repeated")
			}
			for i := range b {
				forged := bytes.Clone(b)
				forged[i] ^= 1
				if got, err := v.open(p, string(forged)); err == nil {
					t.Fatalf("%s: byte %d changed, and opened to %q", name, i, got)
				}
			}
			for n := range len(b) {
				if _, err := v.open(p, string(b[:n])); err == nil && n != len(b)-len(hashMark) {
					t.Fatalf("%s: opened %d of %d bytes", name, n, len(b))
				}
			}
		}
	}
}

func FuzzVault(f *testing.F) {
	v, err := newVault(&Options{Prefix: "p:", Secrets: []string{secretA}})
	if err != nil {
		f.Fatal(err)
	}
	good := place{hash(tokenA), true}
	f.Add(v.seal(good, []byte("data")))
	f.Add([]byte(sealed))
	f.Add([]byte(hashMark))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := v.open(good, string(b)); err == nil && got != "data" {
			t.Errorf("opened %q to %q", b, got)
		}
	})
}
