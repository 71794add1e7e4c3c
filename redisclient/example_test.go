package redisclient_test

import (
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

func ExampleNew() {
	rdb := redisclient.New(redisclient.Options("10.0.0.1:6379", "10.0.0.2", "10.0.0.3"))
	defer rdb.Close()
	fmt.Println(redisclient.Describe(rdb))
	fmt.Println("warnings:", len(redisclient.Check(rdb)))
	// Output:
	// Redis Cluster at 10.0.0.1:6379, 10.0.0.2:6379, 10.0.0.3:6379
	// warnings: 0
}

func ExampleParseURL() {
	options, err := redisclient.ParseURL("rediss://app:secret@cache-1,cache-2,cache-3?client_name=api")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(options.Addrs, options.ClientName)

	_, err = redisclient.ParseURL("redis://app:sec/ret@cache-1")
	fmt.Println(err)
	// Output:
	// [cache-1:6379 cache-2:6379 cache-3:6379] api
	// redisclient: the URL has @ or # behind its hosts; percent-encode the characters / ? # @ in user and password, and @ in parameters
}

func ExampleCheck() {
	rdb := redis.NewClient(&redis.Options{Addr: "localhost:6379"})
	defer rdb.Close()
	for _, warning := range redisclient.Check(rdb) {
		fmt.Println(warning)
	}
	// Output:
	// redisclient: deadlines of contexts are ignored: a call to a server that hangs outlives its caller; set ContextTimeoutEnabled; make the client with redisclient.New
	// redisclient: one call dials a server that refuses connections up to 20 times; set DialerRetries to 1 and MaxRetries to -1; make the client with redisclient.New
}
