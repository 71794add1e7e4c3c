package gobench

import "testing"

const output = `goos: linux
cpu: Some Processor
BenchmarkRoute/replicas=2/token=none         	   17416	        30.0 ns/op	       0 B/op	       0 allocs/op
BenchmarkRoute/replicas=2/token=none         	   17416	        50.0 ns/op	       0 B/op	       0 allocs/op
BenchmarkRoute/replicas=2/token=none         	   17416	        40.0 ns/op	       8 B/op	       1 allocs/op
BenchmarkRoute/replicas=2/token=none-2       	   17416	        20.5 ns/op	        19.0 cpu-ns/op	       0 B/op	       0 allocs/op
BenchmarkUnfinished
PASS
ok  	example.com/x	9.383s
`

func TestParse(t *testing.T) {
	got, err := Parse([]byte(output))
	if err != nil {
		t.Fatal(err)
	}
	one, two := got[Key{"Route/replicas=2/token=none", 1}], got[Key{"Route/replicas=2/token=none", 2}]
	if len(got) != 2 || one.Ns.Median != 40 || one.Ns.N != 3 || one.Lowest != 30 || one.Bytes != 8 || one.Allocs != 1 || two.Ns.Median != 20.5 || two.CPU.Median != 19 || one.CPU.N != 0 {
		t.Errorf("%+v", got)
	}
	if _, err := Parse([]byte("PASS\n")); err == nil {
		t.Error("nothing was run, and no error")
	}
}
