package session_test

import (
	"fmt"

	"github.com/alexedwards/scs/redisstore"
	"github.com/gomodule/redigo/redis"

	"github.com/scaleaware/scaleaware/session"
)

// On one node, scs's own Redis store serves as well, and sessions move between it and New without a log-out.
func ExampleNewWithStore() {
	pool := &redis.Pool{Dial: func() (redis.Conn, error) { return redis.Dial("tcp", "127.0.0.1:6379") }}
	defer pool.Close()
	sessions, err := session.NewWithStore(redisstore.New(pool), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sessions.SCS().Cookie.Name)
	// Output: __Host-session
}
