package scaleaware

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func carrier(t testing.TB, opts *CarrierOptions, secrets ...string) *Carrier {
	t.Helper()
	c, err := NewCarrier(signer(t, nil, secrets...), opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve runs handler behind an instance's carrier on a real server.
func serve(t *testing.T, c *Carrier, handler http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(c.Middleware(handler))
	t.Cleanup(srv.Close)
	return srv.URL
}

func get(t *testing.T, client *http.Client, url string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// reads answers with what the request's reads must have reached.
func reads(w http.ResponseWriter, r *http.Request) {
	ts, _ := WatermarkFrom(r.Context()).Written(r.Context())
	_, _ = io.WriteString(w, ts.String())
}

func writes(t Token) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { WatermarkFrom(r.Context()).Raise(t) }
}

var plainHTTP = &CarrierOptions{Insecure: true}

func TestWriteOnOneInstanceIsAskedForOnAnother(t *testing.T) {
	writer := serve(t, carrier(t, plainHTTP, newSecret), writes(Token{1, 1, 7}))
	reader := serve(t, carrier(t, plainHTTP, newSecret), reads)
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar} // the jar ignores ports, as browsers do
	resp, _ := get(t, browser, writer)
	if c := resp.Cookies(); len(c) != 1 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteLaxMode || c[0].Path != "/" || c[0].MaxAge != 3600 || c[0].Domain != "" {
		t.Fatalf("cookie %v", c)
	}
	if got := resp.Header.Get("Cache-Control"); got != `no-cache="Set-Cookie"` {
		t.Errorf("Cache-Control %q: a shared cache may keep the cookie", got)
	}
	if _, body := get(t, browser, reader); body != "1:1:0/7" {
		t.Errorf("by cookie: the other instance's reads wait for %q", body)
	}
	resp2, body := get(t, http.DefaultClient, reader, "Scaleaware-Token", resp.Header.Get("Scaleaware-Token"))
	if body != "1:1:0/7" {
		t.Errorf("by header: the other instance's reads wait for %q", body)
	}
	if resp2.Header.Get("Scaleaware-Token") != "" || len(resp2.Cookies()) != 0 {
		t.Error("a response repeats what the client holds already")
	}
}

func TestCookieIsSecureByDefault(t *testing.T) {
	rec := httptest.NewRecorder()
	carrier(t, nil, newSecret).Middleware(writes(Token{1, 1, 7})).ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	if c := rec.Result().Cookies(); len(c) != 1 || c[0].Name != "__Host-scaleaware" || !c[0].Secure {
		t.Fatalf("cookies %v", c)
	}
}

func TestBadTokensAreIgnoredAndCounted(t *testing.T) {
	var old string
	{
		s := signer(t, &SignerOptions{TTL: time.Second, Purpose: "http header"}, newSecret)
		s.ttl = -time.Second
		old = s.Sign(sample)
	}
	header := signer(t, &SignerOptions{Purpose: "http header"}, newSecret).Sign(sample)
	for name, c := range map[string]struct {
		header, cookie string
		want           CarrierStats
	}{
		"forged":              {signer(t, nil, oldSecret).Sign(sample), "", CarrierStats{Forged: 1}},
		"of another purpose":  {signer(t, nil, newSecret).Sign(sample), "", CarrierStats{Forged: 1}},
		"header as cookie":    {"", header, CarrierStats{Forged: 1}},
		"expired":             {old, "", CarrierStats{Expired: 1}},
		"bare":                {sample.String(), "", CarrierStats{Malformed: 1}},
		"oversized":           {"v1." + strings.Repeat("A", 100_000), "", CarrierStats{Oversized: 1}},
		"good beside forged":  {header, header, CarrierStats{Accepted: 1, Forged: 1}},
		"nothing carried":     {"", "", CarrierStats{}},
		"rotated secret":      {signer(t, &SignerOptions{Purpose: "http header"}, oldSecret).Sign(sample), "", CarrierStats{Forged: 1}},
		"more than one often": {"", "a; scaleaware=b; scaleaware=c; scaleaware=d; scaleaware=e; scaleaware=f", CarrierStats{Malformed: maxCarried}},
	} {
		t.Run(name, func(t *testing.T) {
			instance := carrier(t, plainHTTP, newSecret)
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Scaleaware-Token", c.header)
			if c.cookie != "" {
				r.Header.Set("Cookie", "scaleaware="+c.cookie)
			}
			rec := httptest.NewRecorder()
			instance.Middleware(http.HandlerFunc(reads)).ServeHTTP(rec, r)
			want := ""
			if c.want.Accepted > 0 {
				want = sample.String()
			}
			if rec.Code != 200 || rec.Body.String() != want || instance.Stats() != c.want {
				t.Errorf("answer %d %q, stats %+v, want 200 %q, %+v", rec.Code, rec.Body, instance.Stats(), want, c.want)
			}
		})
	}
}

func TestRotation(t *testing.T) {
	before, during, after := carrier(t, plainHTTP, oldSecret), carrier(t, plainHTTP, newSecret, oldSecret), carrier(t, plainHTTP, newSecret)
	pass := func(from, to *Carrier) string {
		resp, _ := get(t, http.DefaultClient, serve(t, from, writes(Token{1, 1, 7})))
		_, body := get(t, http.DefaultClient, serve(t, to, reads), "Scaleaware-Token", resp.Header.Get("Scaleaware-Token"))
		return body
	}
	if pass(before, during) == "" || pass(during, after) == "" || pass(before, after) != "" {
		t.Error("rotation does not keep the old secret's tokens, or keeps them for ever")
	}
}

// Each way to begin a response, on a real connection: the token is among the headers that leave.
func TestTokenLeavesBeforeTheFirstByte(t *testing.T) {
	for name, begin := range map[string]http.HandlerFunc{
		"nothing":     func(http.ResponseWriter, *http.Request) {},
		"WriteHeader": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) },
		"Write":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) },
		"WriteString": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") },
		"ReadFrom":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader("x")) },
		"Flush":       func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
		"controller":  func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() },
		"hints":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusEarlyHints) },
		"ServeContent": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader("x"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, carrier(t, plainHTTP, newSecret), func(w http.ResponseWriter, r *http.Request) {
				if name == "hints" {
					begin(w, r)
				}
				WatermarkFrom(r.Context()).Raise(Token{1, 1, 7})
				begin(w, r)
			})
			resp, _ := get(t, http.DefaultClient, url)
			if resp.Header.Get("Scaleaware-Token") == "" || len(resp.Cookies()) != 1 {
				t.Errorf("headers %v", resp.Header)
			}
		})
	}
}

func TestHijack(t *testing.T) {
	c := carrier(t, plainHTTP, newSecret)
	url := serve(t, c, func(w http.ResponseWriter, r *http.Request) {
		WatermarkFrom(r.Context()).Raise(Token{1, 1, 7})
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 200 OK\r\nConnection: close\r\n")
		_ = w.Header().Write(rw)
		_, _ = rw.WriteString("\r\n")
		_ = rw.Flush()
	})
	if resp, _ := get(t, http.DefaultClient, url); resp.Header.Get("Scaleaware-Token") == "" {
		t.Error("hijacked: the header is not there to be sent")
	}
}

func TestControllerReachesTheConnection(t *testing.T) {
	url := serve(t, carrier(t, nil, newSecret), func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := rc.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Error(err)
		}
		if err := rc.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
	})
	get(t, http.DefaultClient, url)
}

func TestLateWriteIsCounted(t *testing.T) {
	c := carrier(t, plainHTTP, newSecret)
	resp, _ := get(t, http.DefaultClient, serve(t, c, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		WatermarkFrom(r.Context()).Raise(Token{1, 1, 7})
	}))
	if got := c.Stats(); resp.Header.Get("Scaleaware-Token") != "" || got.Late != 1 || got.Sent != 0 {
		t.Errorf("stats %+v", got)
	}
}

func TestSlowPositionDoesNotHoldTheResponse(t *testing.T) {
	c := carrier(t, &CarrierOptions{Insecure: true, PositionTimeout: 10 * time.Millisecond}, newSecret)
	src := &log{gate: make(chan chan struct{}, 1)} // never released: only the timeout ends it
	resp, _ := get(t, http.DefaultClient, serve(t, c, func(w http.ResponseWriter, r *http.Request) {
		WatermarkFrom(r.Context()).Raise(Token{2, 1, 7})
		WatermarkFrom(r.Context()).RaiseFrom(src)
	}))
	got, err := c.header.Verify(resp.Header.Get("Scaleaware-Token"))
	if err != nil || got.String() != "2:1:0/7" || c.Stats().Failed != 1 {
		t.Errorf("token %v, %v, stats %+v, want what is known and a failure counted", got, err, c.Stats())
	}
}

func TestWatermarkOfTheContextIsUsed(t *testing.T) {
	ctx, mark := WithWatermark(t.Context())
	c := carrier(t, plainHTTP, newSecret)
	r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
	r.Header.Set("Scaleaware-Token", c.header.Sign(sample))
	c.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if WatermarkFrom(r.Context()) != mark {
			t.Error("another watermark was installed")
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
	if ts, _ := mark.Written(ctx); !ts.Covers(sample) {
		t.Errorf("the watermark holds %v", ts)
	}
}

func TestTransportGoesThereAndBack(t *testing.T) {
	inner := carrier(t, plainHTTP, newSecret)
	url := serve(t, inner, func(w http.ResponseWriter, r *http.Request) {
		WatermarkFrom(r.Context()).Raise(Token{1, 1, 9})
		reads(w, r)
	})
	outer := carrier(t, &CarrierOptions{NoCookie: true}, newSecret)
	client := &http.Client{Transport: outer.Transport(nil)}
	ctx, mark := WithWatermark(t.Context())
	mark.Raise(Token{2, 1, 5})
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, _ := bufio.NewReader(resp.Body).ReadString('\n')
	if line != "2:1:0/5,1:1:0/9" {
		t.Errorf("there: %q", line)
	}
	if back, _ := mark.Written(ctx); back.For(1).LSN != 9 {
		t.Errorf("back: %v", back)
	}
	if r.Header.Get("Scaleaware-Token") != "" {
		t.Error("the caller's request was changed")
	}
}

func TestCarrierUnderConcurrency(t *testing.T) {
	c := carrier(t, plainHTTP, newSecret)
	src := new(log)
	url := serve(t, c, func(w http.ResponseWriter, r *http.Request) {
		src.end.Add(1)
		WatermarkFrom(r.Context()).RaiseFrom(src)
		_, _ = io.WriteString(w, "done")
	})
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			var held LSN
			for range 20 {
				resp, err := http.Get(url) //nolint:noctx // bounded by the test
				if err != nil {
					t.Error(err)
					return
				}
				_ = resp.Body.Close()
				ts, err := c.header.Verify(resp.Header.Get("Scaleaware-Token"))
				if err != nil || ts.For(1).LSN <= held {
					t.Errorf("token %v after %v, %v", ts, held, err)
				}
				held = ts.For(1).LSN
			}
		})
	}
	g.Wait()
}

func TestNewCarrierNamesAllMistakes(t *testing.T) {
	_, err := NewCarrier(nil, &CarrierOptions{CookieName: "a b", Header: "a:b", PositionTimeout: -1})
	for _, want := range []string{"CookieName", "Header", "PositionTimeout", "Signer"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %q", err, want)
		}
	}
	if _, err := NewCarrier(signer(t, nil, newSecret), &CarrierOptions{CookieName: "__Host-x", Insecure: true}); err == nil {
		t.Error("a __Host- cookie without TLS was accepted")
	}
}
