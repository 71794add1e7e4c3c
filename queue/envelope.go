package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/scaleaware/scaleaware"
)

const (
	headerPrefix = "scaleaware-"
	// headerTokens carries the positions that the job's reads must have reached.
	headerTokens = headerPrefix + "tokens"
	// headerAttempt is random for each call that stores a job whose ID it was given: it tells our own, already stored copy from
	// another's job.
	headerAttempt = headerPrefix + "attempt"

	maxPayload = 1 << 20
	maxHeaders = 32
)

// envelope is a job ready to be stored.
type envelope struct {
	settings
	Kind    string
	Payload []byte

	drawn bool // its ID was, by the call that stores it
	// refusal is the key that notes a refusal by another job's unique lock, or "": of an outbox row.
	refusal string
}

// Codec turns jobs into bytes and back.
type Codec interface {
	Marshal(job any) ([]byte, error)
	Unmarshal(data []byte, job any) error
}

type jsonCodec struct{}

func (jsonCodec) Marshal(job any) ([]byte, error)      { return json.Marshal(job) }
func (jsonCodec) Unmarshal(data []byte, job any) error { return json.Unmarshal(data, job) }

// seal encodes job. The queue and ID may still be empty.
func seal(codec Codec, job Job, opts []Option) (*envelope, error) {
	if job == nil {
		return nil, errors.New("queue: the job is nil")
	}
	e := &envelope{Kind: job.Kind()}
	if q, ok := job.(Queued); ok {
		e.Queue = q.Queue()
	}
	for _, opt := range opts {
		opt(&e.settings)
	}
	if err := validateKind(e.Kind); err != nil {
		return nil, err
	}
	if err := e.settings.validate(); err != nil {
		return nil, fmt.Errorf("%w (job %q)", err, e.Kind)
	}
	payload, err := codec.Marshal(job)
	if err != nil {
		return nil, fmt.Errorf("queue: encode job %q: %w", e.Kind, err)
	}
	if len(payload) > maxPayload {
		return nil, fmt.Errorf("queue: job %q has %d bytes of payload, want at most %d: pass a reference instead", e.Kind, len(payload), maxPayload)
	}
	e.Payload = payload
	return e, nil
}

// header adds one of our own headers.
func (e *envelope) header(name, value string) {
	if value == "" {
		return
	}
	if e.Headers == nil {
		e.Headers = make(map[string]string, 2)
	}
	e.Headers[name] = value
}

// attempt is what the job's message has in it and no other one of the same ID.
func (e *envelope) attempt() string {
	if e.drawn {
		return e.ID
	}
	return e.Headers[headerAttempt]
}

// raise adds tokens to those that the envelope carries. They were asked for after those, so they settle unknown ones.
func (e *envelope) raise(tokens scaleaware.Tokens) {
	if len(tokens) == 0 {
		return
	}
	have, _ := scaleaware.ParseTokens(e.Headers[headerTokens])
	have = slices.DeleteFunc(have, func(t scaleaware.Token) bool { return t.Unknown() && !tokens.For(t.System).IsZero() })
	e.header(headerTokens, have.Merge(tokens).String())
}

// tokensIn reads the tokens of a stored job. Headers are input: any producer that reaches Redis can write them.
func tokensIn(headers map[string]string) (scaleaware.Tokens, error) {
	tokens, err := scaleaware.ParseTokens(headers[headerTokens])
	if err != nil {
		return nil, fmt.Errorf("queue: header %s is ignored: %w", headerTokens, err)
	}
	return tokens, nil
}

// open decodes a stored payload.
func open[T any](codec Codec, payload []byte) (T, error) {
	var job T
	if err := codec.Unmarshal(payload, &job); err != nil {
		return job, fmt.Errorf("queue: payload is no %T: %w", job, err)
	}
	return job, nil
}

func validateKind(kind string) error {
	if kind == "" || !validID(kind) {
		return fmt.Errorf("queue: Kind is %q, want 1 to 128 printable characters without space and braces", clip(kind))
	}
	return nil
}

func validateHeaders(headers map[string]string) error {
	if len(headers) > maxHeaders {
		return fmt.Errorf("queue: %d headers, want at most %d", len(headers), maxHeaders)
	}
	for name, value := range headers {
		if !validID(name) || name == "" || strings.HasPrefix(name, headerPrefix) {
			return fmt.Errorf("queue: Header name is %q, want 1 to 128 printable characters that do not begin with %s", clip(name), headerPrefix)
		}
		if len(value) > 4096 {
			return fmt.Errorf("queue: Header %q has %d bytes, want at most 4096", name, len(value))
		}
	}
	return nil
}
