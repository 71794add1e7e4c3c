package lead

import (
	"context"
	"encoding/json"
	"io"
	"os"
)

// ChildVariable tells a process that it has a parent, leadplatform: descriptor 3 awaits its addresses, and the end of its
// input is the end of its parent.
const ChildVariable = "LEADPLATFORM_CHILD"

// Addresses are where a process listens.
type Addresses struct {
	API   string `json:"api,omitempty"`
	Admin string `json:"admin,omitempty"`
}

// Announce tells the parent, if there is one, where this process listens.
func Announce(a Addresses) error {
	if os.Getenv(ChildVariable) == "" {
		return nil
	}
	ready := os.NewFile(3, "ready")
	defer ready.Close()
	return json.NewEncoder(ready).Encode(a)
}

// WithLifeline returns a context that ends with the parent, if there is one.
func WithLifeline(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if os.Getenv(ChildVariable) != "" {
		go func() {
			defer cancel()
			// Nothing is ever written; the read ends when the parent does.
			_, _ = io.Copy(io.Discard, os.Stdin)
		}()
	}
	return ctx, cancel
}
