package pairstore_test

import (
	"context"
	"fmt"

	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pairstore"
)

// In a service the first is redisstore's and the second pgstore's. What either loses, the other puts back.
func Example() {
	ctx := context.Background()
	first, second := readonly.NewMemory(), readonly.NewMemory()
	both, err := pairstore.New(first, second, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := both.Save(ctx, readonly.State{Epoch: 1, Enabled: true, Reason: "moving"}); err != nil {
		fmt.Println(err)
		return
	}
	emptied, err := pairstore.New(readonly.NewMemory(), second, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	state, err := emptied.Load(ctx)
	fmt.Println(state.Enabled, state.Reason, err)
	// Output: true moving <nil>
}
