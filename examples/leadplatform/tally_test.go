package main

import "testing"

func TestZipfStaysInRange(t *testing.T) {
	for n := 1; n < 50; n++ {
		first := 0
		for range 2000 {
			i := zipf(n)
			if i < 0 || i >= n {
				t.Fatalf("zipf(%d) = %d", n, i)
			}
			if i == 0 {
				first++
			}
		}
		if n > 1 && first <= 2000/n {
			t.Fatalf("of %d, the first was drawn %d times of 2000: no more than its share", n, first)
		}
	}
}
