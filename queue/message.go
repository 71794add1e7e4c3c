package queue

import (
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf8"
)

// message is asynq's TaskMessage: what a job is in Redis, as protobuf. Each field has its number in that.
type message struct {
	kind       string            // 1
	payload    []byte            // 2
	id         string            // 3
	queue      string            // 4
	retry      int               // 5
	err        string            // 7
	timeout    int64             // 8, in s
	lock       string            // 10
	lastFailed time.Time         // 11
	retention  int64             // 12, in s
	headers    map[string]string // 15
}

// encode writes m as asynq does, by the numbers of its fields.
func (m *message) encode() []byte {
	size := 64 + len(m.kind) + len(m.payload) + len(m.id) + len(m.queue) + len(m.err) + len(m.lock)
	for name, value := range m.headers {
		size += 12 + len(name) + len(value)
	}
	out := make([]byte, 0, size)
	out = appendText(out, 1, m.kind)
	out = appendText(out, 2, m.payload)
	out = appendText(out, 3, m.id)
	out = appendText(out, 4, m.queue)
	out = appendNumber(out, 5, int64(m.retry))
	out = appendText(out, 7, m.err)
	out = appendNumber(out, 8, m.timeout)
	out = appendText(out, 10, m.lock)
	if !m.lastFailed.IsZero() {
		out = appendNumber(out, 11, m.lastFailed.Unix())
	}
	out = appendNumber(out, 12, m.retention)
	for name, value := range m.headers {
		out = append(out, 15<<3|2)
		out = binary.AppendUvarint(out, uint64(sizeOf(name)+sizeOf(value)))
		out = appendEntry(out, 1, name)
		out = appendEntry(out, 2, value)
	}
	return out
}

// sizeOf is what a text of a map's entry takes.
func sizeOf(text string) int {
	n := 2
	for l := len(text); l >= 0x80; l >>= 7 {
		n++
	}
	return n + len(text)
}

// appendEntry writes a text, also an empty one.
func appendEntry[T string | []byte](out []byte, field byte, text T) []byte {
	out = append(out, field<<3|2)
	out = binary.AppendUvarint(out, uint64(len(text)))
	return append(out, text...)
}

func appendText[T string | []byte](out []byte, field byte, text T) []byte {
	if len(text) == 0 {
		return out
	}
	return appendEntry(out, field, text)
}

func appendNumber(out []byte, field byte, n int64) []byte {
	if n == 0 {
		return out
	}
	return binary.AppendUvarint(append(out, field<<3), uint64(n)) // #nosec G115 -- as protobuf has it
}

// failedWith is what makes asynq's message say why and when a job failed. Of a field that occurs twice the last one counts, so it
// is appended and nothing decoded.
func failedWith(at time.Time, reason string) []byte {
	return appendNumber(appendEntry(nil, 7, reason), 11, at.Unix())
}

// kindUnreadable is the kind that a job gets whose message asynq cannot read; its payload is that message.
const kindUnreadable = "scaleaware-unreadable"

// unreadable says what keeps asynq from running msg as job id of queue, or "". It allows what asynq can decode, except
// protobuf's groups, which nobody writes.
func unreadable(msg, id, queue string) string {
	var named, in string
	ok := fields(msg, func(field uint64, text string) bool {
		switch field {
		case 3:
			named = text
		case 4:
			in = text
		case 15:
			return fields(text, func(field uint64, text string) bool { return field > 2 || utf8.ValidString(text) }, nil)
		}
		return field != 1 && field != 3 && field != 4 && field != 7 && field != 10 && field != 14 || utf8.ValidString(text)
	}, nil)
	switch {
	case !ok:
		return "it is no message of asynq's"
	case named != id:
		return fmt.Sprintf("it says that it is job %q", clip(named))
	case in != queue:
		return fmt.Sprintf("it says that it is of queue %q", clip(in))
	default:
		return ""
	}
}

// afterwards reads from a job's message what is to be done when it is done: its unique lock freed, if that is not "", and the job kept.
func afterwards(msg string) (lock string, retained bool) {
	fields(msg, func(field uint64, text string) bool {
		if field == 10 {
			lock = text
		}
		return true
	}, func(field, n uint64) {
		if field == 12 {
			retained = n != 0
		}
	})
	return lock, retained
}

// fields walks over the fields of a protobuf message, shows those that are texts, and counts those that are numbers, unless count
// is nil. It returns false when it is none, or when show has returned false.
func fields(msg string, show func(field uint64, text string) bool, count func(field, n uint64)) bool {
	for len(msg) > 0 {
		tag, n := uvarint(msg)
		if n == 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return false
		}
		msg = msg[n:]
		size := uint64(0)
		switch tag & 7 {
		case 0:
			value, n := uvarint(msg)
			if n == 0 {
				return false
			}
			if count != nil {
				count(tag>>3, value)
			}
			size = uint64(n) // #nosec G115 -- 1 to 10
		case 1:
			size = 8
		case 2:
			length, n := uvarint(msg)
			if n == 0 || length > uint64(len(msg)-n) {
				return false
			}
			msg, size = msg[n:], length
			if !show(tag>>3, msg[:size]) {
				return false
			}
		case 5:
			size = 4
		default:
			return false
		}
		if size > uint64(len(msg)) {
			return false
		}
		msg = msg[size:]
	}
	return true
}

// uvarint reads a number and returns how long it is; 0 for none.
func uvarint(s string) (n uint64, length int) {
	for i := 0; i < len(s) && i < 10; i++ {
		b := s[i]
		if i == 9 && b > 1 {
			return 0, 0
		}
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return n, i + 1
		}
	}
	return 0, 0
}
