package cache_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/redisclient"
)

type Lead struct {
	ID    string
	Score int
}

// Redis is down here, so everything comes from the origin: a cache never takes the service down.
func Example() {
	rdb := redisclient.New(redisclient.Options("127.0.0.1:1"))
	defer rdb.Close()

	store, err := cache.New(rdb, &cache.Options{Prefix: "app:"})
	if err != nil {
		fmt.Println(err)
		return
	}
	leads := cache.Of[Lead](store, "lead", cache.TTL(10*time.Minute), cache.NegativeTTL(time.Minute))

	ctx := context.Background()
	fromDatabase := func(ctx context.Context, id string) (Lead, error) {
		if id != "42" {
			return Lead{}, cache.ErrNotFound
		}
		return Lead{ID: id, Score: 7}, nil
	}
	lead, err := leads.Load(ctx, "42", fromDatabase)
	fmt.Println(lead, err)
	_, err = leads.Load(ctx, "43", fromDatabase)
	fmt.Println(errors.Is(err, cache.ErrNotFound))
	_, err = leads.Get(ctx, "42")
	fmt.Println(errors.Is(err, cache.ErrMiss))
	fmt.Println("ready:", store.Ready(ctx) == nil)
	// Output:
	// {42 7} <nil>
	// true
	// true
	// ready: false
}

func ExampleNew_mistake() {
	rdb := redisclient.New(nil)
	defer rdb.Close()
	_, err := cache.New(rdb, &cache.Options{Prefix: "asynq:"})
	fmt.Println(err)
	// Output:
	// cache: Options.Prefix "asynq:" covers keys of others (asynq:*), choose one of your own, such as "app:"
}
