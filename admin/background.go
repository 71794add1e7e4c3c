package admin

import "context"

// Background runs the long work of operations.
type Background struct{}

// Progress is reported by long work while it runs: any JSON object. It may be called from any goroutine.
type Progress func(state any)

// Started is the reply to a call whose work goes on in the background.
type Started struct {
	// Operation is the id to ask GET /api/v1/operations/{id} for.
	Operation string `json:"operation"`
	// Status is where to ask.
	Status string `json:"status"`
}

// Start begins work under a context that outlives the request, and returns the 202 reply. id is the operation's ID.
// While work with the same key runs, Start returns the running one's reply instead of beginning another.
func (b *Background) Start(id, key, actor string, work func(ctx context.Context, progress Progress) (any, error)) (*Started, error) {
	panic("replaced by the admin room's builder")
}
