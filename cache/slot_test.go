package cache

import (
	"math/rand/v2"
	"testing"
)

func TestSlotOfIsTheServers(t *testing.T) {
	ctx := testContext(t)
	node := six.Get(t).Nodes()[0].Client()
	keys := []string{"", "a", "app:lead:1", "{", "}", "{}", "{}a", "a{}", "{a}", "x{a}y", "x{a}{b}", "x{{a}}", "}{a}", "a{b", "{a{b}c}", "\x00\xff", "ключ{ф}"}
	for range 200 {
		key := make([]byte, rand.IntN(12))
		for i := range key {
			key[i] = "ab{}\x00\xfe"[rand.IntN(6)]
		}
		keys = append(keys, string(key))
	}
	for _, key := range keys {
		want, err := node.ClusterKeySlot(ctx, key).Result()
		if err != nil {
			t.Fatal(err)
		}
		if got := slotOf(key); int64(got) != want {
			t.Errorf("%q: slot %d, the server says %d", key, got, want)
		}
	}
}
