package admin_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

func TestAssetsAreSmallAndKept(t *testing.T) {
	h := mount(t, nil)
	total := 0
	for _, path := range []string{"/", "/console.css", "/console.js", "/uplot.css", "/uplot.js", "/icon.svg", "/uplot.license"} {
		plain := serve(h, request("GET", path, ""))
		zipped := serve(h, request("GET", path, "", header("Accept-Encoding", "br, gzip;q=0.5")))
		total += zipped.Body.Len()
		data := zipped.Body.Bytes()
		if zipped.Header().Get("Content-Encoding") == "gzip" {
			r, err := gzip.NewReader(zipped.Body)
			if err != nil {
				t.Fatal(err)
			}
			if data, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		} else if plain.Body.Len() > 512 {
			t.Errorf("%s is not compressed", path)
		}
		if path != "/" && !bytes.Equal(data, plain.Body.Bytes()) || plain.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s is another when compressed", path)
		}
		if refused := serve(h, request("GET", path, "", header("Accept-Encoding", "gzip;q=0"))); refused.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s is compressed for those who cannot read it", path)
		}
		etag := plain.Header().Get("ETag")
		if path == "/" { // it says the time
			continue
		}
		if again := serve(h, request("GET", path, "", header("If-None-Match", `"other", `+etag))); etag == "" || again.Code != 304 || again.Body.Len() > 0 {
			t.Errorf("%s with ETag %q again: %d", path, etag, again.Code)
		}
		if other := serve(h, request("GET", path, "", header("If-None-Match", `W/"other"`))); other.Code != 200 {
			t.Errorf("%s with another ETag: %d", path, other.Code)
		}
	}
	if total > 40<<10 {
		t.Errorf("the page without its data weighs %d bytes", total)
	}
}

// The charts are the history: thinned to what can be seen, with its worst values and its gaps.
func TestChartsAreTheHistory(t *testing.T) {
	type reply struct {
		Start  int64
		Step   float64
		Charts []struct {
			Key      string
			Top      float64
			Warning  *float64
			Names    []string
			Values   [][]*float64
			Critical *float64
		}
	}
	ask := func(history string) reply {
		t.Helper()
		h := mount(t, nil, answering("/api/v1/performance/capacity/history", history))
		w := serve(h, request("GET", "/console/charts", ""))
		if w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return decode[reply](t, w)
	}
	values := make([]any, 480) // two to a point
	for i := range values {
		values[i] = 0.9
	}
	values[100], values[101], values[201] = nil, nil, 0.25
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	got := ask(`{"start":"2026-01-01T00:00:00Z","step_seconds":5,"series":[
		{"metric":"hits","scope":{"cache":"b"},"unit":"ratio","warning":0.8,"critical":0.6,"values":` + string(text) + `},
		{"metric":"hits","scope":{"cache":"a"},"unit":"ratio","warning":0.8,"critical":0.6,"values":[]},
		{"metric":"delay","unit":"seconds","warning":0.2,"critical":0.5,"values":[0.1,0.15]},
		{"metric":"calm","unit":"seconds","warning":0.2,"critical":0.5,"values":[0.001,0.002]},
		{"metric":"idle","unit":"jobs","warning":1000,"critical":5000,"values":[0,0]},
		{"metric":"free","unit":"jobs","warning":null,"critical":null,"values":[null,3.14159265]}]}`)
	if got.Start != 1767225600 || got.Step != 10 || len(got.Charts) != 5 {
		t.Fatalf("%+v", got)
	}
	top := map[string]float64{"hits": 1, "delay": .24, "calm": .0024, "idle": 6000, "free": 1.885}
	for _, c := range got.Charts {
		if c.Top != top[c.Key] && c.Key != "free" {
			t.Errorf("%s reaches to %g, want %g", c.Key, c.Top, top[c.Key])
		}
		if c.Key != "hits" {
			continue
		}
		if strings.Join(c.Names, " ") != "a b" || len(c.Values[1]) != 240 || c.Values[1][50] != nil || *c.Values[1][100] != 0.25 || *c.Values[1][101] != 0.9 {
			t.Errorf("%v %d", c.Names, len(c.Values[1]))
		}
	}
	for _, history := range []string{`null`, `{}`, `{"step_seconds":0,"series":[{"values":[1,2,3]}]}`, `{"step_seconds":1,"series":[{"values":[1]}]}`} {
		if got := ask(history); len(got.Charts) != 0 {
			t.Errorf("%s draws %+v", history, got)
		}
	}
	if w := serve(mount(t, nil, answering("/api/v1/performance/capacity/history", `[]`)), request("GET", "/console/charts", "")); w.Code != 500 {
		t.Errorf("what is no history: %d %s", w.Code, w.Body)
	}
	if w := serve(mount(t, nil), request("GET", "/console/charts", "")); w.Code != 200 || w.Body.String() != "{\"start\":0,\"step\":0,\"charts\":[]}\n" {
		t.Errorf("without history: %d %s", w.Code, w.Body)
	}
}
