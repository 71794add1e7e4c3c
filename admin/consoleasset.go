package admin

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed page
var pageFiles embed.FS

// assetTypes are the page's static files. uplot.js and uplot.css are those of npm's uplot, unchanged.
var assetTypes = map[string]string{
	"console.css":   "text/css; charset=utf-8",
	"console.js":    "text/javascript; charset=utf-8",
	"icon.svg":      "image/svg+xml",
	"uplot.css":     "text/css; charset=utf-8",
	"uplot.js":      "text/javascript; charset=utf-8",
	"uplot.license": "text/plain; charset=utf-8",
}

// content is an answer in both encodings.
type content struct {
	contentType   string
	etag          string // weak: one for both encodings
	plain, zipped []byte
}

// pageAssets compresses the static files once for the process: it takes milliseconds, and they never change.
var pageAssets = sync.OnceValue(func() map[string]*content {
	out := map[string]*content{}
	for name, contentType := range assetTypes {
		data, err := pageFiles.ReadFile("page/" + name)
		if err != nil {
			panic(err) // embedded
		}
		out[name] = newContent(contentType, data, gzip.BestCompression)
	}
	return out
})

func newContent(contentType string, plain []byte, level int) *content {
	sum := sha256.Sum256(plain)
	c := &content{contentType: contentType, etag: `W/"` + hex.EncodeToString(sum[:12]) + `"`, plain: plain}
	if len(plain) < 512 {
		return c // a packet is a packet
	}
	var buf bytes.Buffer
	zip, err := gzip.NewWriterLevel(&buf, level)
	if err == nil {
		_, err = zip.Write(plain)
	}
	if err == nil {
		err = zip.Close()
	}
	if err == nil && buf.Len() < len(plain) {
		c.zipped = buf.Bytes()
	}
	return c
}

// serve answers with 304 to those who have it. The page holds no secret that a guess beside it could be compressed with.
func (c *content) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("ETag", c.etag)
	header.Add("Vary", "Accept-Encoding")
	if knows(r, c.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	data := c.plain
	if c.zipped != nil && takesGzip(r) {
		header.Set("Content-Encoding", "gzip")
		data = c.zipped
	}
	writeJSON(w, c.contentType, http.StatusOK, data)
}

func serveAsset(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache") // kept, and asked for anew: the next release may have another
	pageAssets()[path.Base(r.URL.Path)].serve(w, r)
}

func knows(r *http.Request, etag string) bool {
	for given := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if given = strings.TrimSpace(given); given == etag || given == "*" {
			return true
		}
	}
	return false
}

func takesGzip(r *http.Request) bool {
	for coding := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, params, _ := strings.Cut(coding, ";")
		if name = strings.TrimSpace(name); !strings.EqualFold(name, "gzip") && name != "*" {
			continue
		}
		_, weight, given := strings.Cut(params, "=")
		q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
		return !given || err == nil && q > 0
	}
	return false
}
