package redisstore_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/redisstore"
	"github.com/scaleaware/scaleaware/redisclient"
)

// All instances that have a switch on the same Redis obey it once it runs. Until it has reached the store, it refuses writes.
func Example() {
	rdb := redisclient.New(redisclient.Options("127.0.0.1:1"))
	defer rdb.Close()
	store, err := redisstore.New(rdb, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	mode, err := readonly.New(store, &readonly.Options{Instance: "api-1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(errors.Is(mode.AllowWrite(context.Background()), readonly.ErrReadOnly))
	// Output: true
}
