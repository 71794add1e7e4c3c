package scalehook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/scaleaware/scaleaware/queue"
)

const (
	defaultTimeout = 5 * time.Second
	maxRedirects   = 3
	// maxReply is how much of a reply is read: more than a workload of Kubernetes can be.
	maxReply = 2 << 20
)

// HTTPOptions configures HTTP. Every field is optional.
type HTTPOptions struct {
	// Client sends; its CheckRedirect is replaced by one that stays on the host. Zero means one of http.DefaultTransport.
	Client *http.Client
	// TokenFile is read before each call and sent as a bearer token. It needs https, or a loopback address. Zero means
	// none.
	TokenFile string
	// Timeout bounds one call. Zero means 5s.
	Timeout time.Duration
}

// HTTP makes a hook that posts the decision as JSON to a URL: {"queue", "generation", "workers", "previous", "reason",
// …}. The receiver has to make "workers" workers run and to answer with a 2xx status. It should refuse a "generation" lower
// than one that it has seen, with 409, which is ErrOldGeneration and so not to be used for anything else; the same number is
// also in the Idempotency-Key header, after the queue's name.
func HTTP(target string, o *HTTPOptions) (queue.ScaleHook, error) {
	var opts HTTPOptions
	if o != nil {
		opts = *o
	}
	u, err := url.Parse(target)
	switch {
	case err != nil:
		return nil, errors.New("scalehook: the URL cannot be parsed, want https://host/path") // its text may hold a password
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("scalehook: the URL's scheme is %q and its host %q, want https://host/path", clip(u.Scheme), clip(u.Host))
	case opts.TokenFile != "" && u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("scalehook: TokenFile is set and the URL of host %q is not https, the token could be read on the way", clip(u.Host))
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Timeout < 0 {
		return nil, fmt.Errorf("scalehook: HTTPOptions.Timeout is %v, want a positive one or 0 for the default", opts.Timeout)
	}
	client := new(http.Client)
	if opts.Client != nil {
		*client = *opts.Client
	}
	client.CheckRedirect = stay
	return func(ctx context.Context, d queue.Decision) error {
		body, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("scalehook: encode the decision: %w", err)
		}
		key := d.Queue + "-" + strconv.FormatInt(d.Generation, 10)
		status, _, err := send(ctx, client, opts.Timeout, opts.TokenFile, http.MethodPost, u, "application/json", key, body)
		switch {
		case err != nil:
			return err
		case status == http.StatusConflict:
			return fmt.Errorf("%w: %s answered with status 409, which says that it has seen a newer generation than %d", ErrOldGeneration, u.Host, d.Generation)
		case status < 200 || status > 299:
			return fmt.Errorf("scalehook: %s answered with status %d, want 2xx: see its log", u.Host, status)
		default:
			return nil
		}
	}, nil
}

// stay refuses redirects to another host, or from https to http.
func stay(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case req.URL.Host != first.Host || req.URL.Scheme != first.Scheme:
		return fmt.Errorf("it redirects to %s://%s, which is not followed: give that URL", clip(req.URL.Scheme), clip(req.URL.Host))
	case req.Method != via[0].Method:
		return fmt.Errorf("it redirects a %s to a %s, give the URL that takes it", via[0].Method, req.Method)
	default:
		return nil
	}
}

// send makes one request and reads the reply's beginning. Its errors hold the host and nothing else of the URL.
func send(ctx context.Context, client *http.Client, timeout time.Duration, tokenFile, method string, u *url.URL, contentType, key string, body []byte) (status int, reply []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("scalehook: make a request to %s: %w", u.Host, bare(err))
	}
	req.Header.Set("Accept", "application/json")
	if len(body) > 0 {
		req.Header.Set("Content-Type", contentType)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	if tokenFile != "" {
		token, err := readToken(tokenFile)
		if err != nil {
			return 0, nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("scalehook: %s %s: %w", method, u.Host, bare(err))
	}
	defer resp.Body.Close()
	reply, err = io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return 0, nil, fmt.Errorf("scalehook: read the answer of %s: %w", u.Host, bare(err))
	}
	return resp.StatusCode, reply, nil
}

// bare takes the URL, which may hold secrets, off an error.
func bare(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}
