package queue

import (
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
)

func FuzzHeaders(f *testing.F) {
	f.Add("tenant", "a", "7:2:0/1267")
	f.Add("scaleaware-tokens", "x", "")
	f.Add("", "", "7:2:0/1267,7:2:0/1268")
	f.Add("a{b}", strings.Repeat("x", 5000), "18446744073709551615:4294967295:FFFFFFFF/FFFFFFFF")
	f.Fuzz(func(t *testing.T, name, value, tokens string) {
		err := validateHeaders(map[string]string{name: value})
		if err == nil && (strings.HasPrefix(name, headerPrefix) || len(value) > 4096 || name == "") {
			t.Errorf("header %q with %d bytes was accepted", name, len(value))
		}
		parsed, err := tokensIn(map[string]string{headerTokens: tokens})
		if err != nil {
			return
		}
		e := &envelope{}
		e.raise(parsed)
		again, err := tokensIn(e.Headers)
		if err != nil || again.String() != parsed.String() {
			t.Errorf("%q came back as %q, %v", tokens, again, err)
		}
	})
}

func FuzzName(f *testing.F) {
	for _, name := range []string{"critical", "low-priority", "", "a{b}", "a b", "ä", "../x", strings.Repeat("x", 65)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !validName(name) {
			return
		}
		if len(name) > 64 || strings.ContainsAny(name, "{}:*?[]\\ \x00\n\"'/") {
			t.Errorf("%q was accepted", name)
		}
		if key := asynqKey(name, "pending"); strings.Count(key, "{") != 1 || strings.Count(key, "}") != 1 {
			t.Errorf("key %q has another hash tag", key)
		}
	})
}

func FuzzPayload(f *testing.F) {
	f.Add([]byte(`{"n":1}`))
	f.Add([]byte(`{"n":"1"}`))
	f.Add([]byte(`{"n":-7,"text":"<\u2028\ud800 ä\u0000>"}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, payload []byte) {
		job, err := open[note](jsonCodec{}, payload)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "queue: ") {
				t.Errorf("error %q does not say whose it is", err)
			}
			return
		}
		// What was read is what a job that is enqueued anew, with all that is stored of it, comes back as.
		e, err := seal(jsonCodec{}, job, []Option{On("q"), ID("id")})
		if err != nil {
			if len(payload) < maxPayload/8 { // text may become longer: up to six bytes for one
				t.Errorf("%q was read and cannot be enqueued: %v", payload, err)
			}
			return
		}
		stored, err := e.store()
		if err != nil {
			t.Fatal(err)
		}
		read, err := readByAsynq(string(stored.msg))
		if err != nil || string(read.Payload) != string(e.Payload) {
			t.Fatalf("of payload %q asynq reads %q, %v", e.Payload, read.Payload, err)
		}
		if again, err := open[note](jsonCodec{}, read.Payload); err != nil || again != job {
			t.Errorf("%+v came back as %+v, %v", job, again, err)
		}
	})
}

func FuzzPosition(f *testing.F) {
	f.Add("7551234567890123456", "00000001", "0/2000018")
	f.Add("x", "", "")
	f.Fuzz(func(t *testing.T, system, timeline, lsn string) {
		token, err := parsePosition(system, timeline, lsn, 8192, 16<<20)
		if err != nil {
			return
		}
		if at, _ := scaleaware.ParseLSN(lsn); token.LSN > at || at-token.LSN > 24 {
			t.Errorf("position %s became %s", lsn, token.LSN)
		}
	})
}

func TestSealRefusesMistakes(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]Option{
		"braces in the ID":    {ID("a{b}")},
		"negative MaxRetry":   {MaxRetry(-1)},
		"a taken header":      {Header("scaleaware-tokens", "1:1:0/0")},
		"a fraction":          {Timeout(time.Millisecond)},
		"a negative time":     {Retention(-time.Second)},
		"a header with space": {Header("a b", "x")},
	} {
		if _, err := seal(jsonCodec{}, note{}, opts); err == nil || !strings.HasPrefix(err.Error(), "queue: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := seal(jsonCodec{}, nil, nil); err == nil {
		t.Error("a nil job was accepted")
	}
	if _, err := seal(jsonCodec{}, note{Text: strings.Repeat("x", maxPayload)}, nil); err == nil {
		t.Error("a huge payload was accepted")
	}
}
