package redismetrics

import (
	"context"
	"errors"
	"net"
	"os"

	"github.com/redis/go-redis/v9"
)

// class is the label command's value: what sort of work a command is.
type class uint8

const (
	other class = iota // what go-redis sends for itself, administration, and what is not known
	read
	write
	script
	blocking // waits for others, so its time says nothing of Redis
	pubsub
	pipeline
	transaction
	classes
)

var classNames = [classes]string{"other", "read", "write", "script", "blocking", "pubsub", "pipeline", "transaction"}

// known are the classes of commands. One that is missing is counted as other.
var known = func() map[string]class {
	m := map[string]class{}
	for c, names := range map[class][]string{
		read: {
			"get", "mget", "exists", "ttl", "pttl", "strlen", "getrange", "getbit", "bitcount", "bitpos", "type", "keys", "scan",
			"hget", "hmget", "hgetall", "hexists", "hkeys", "hvals", "hlen", "hscan", "hstrlen", "hrandfield", "httl", "hpttl",
			"lrange", "llen", "lindex", "lpos", "smembers", "sismember", "smismember", "scard", "srandmember", "sscan", "sinter", "sunion", "sdiff", "sintercard",
			"zrange", "zrangebyscore", "zrevrange", "zrevrangebyscore", "zrangebylex", "zscore", "zmscore", "zcard", "zcount", "zlexcount", "zrank", "zrevrank", "zscan", "zrandmember",
			"xrange", "xrevrange", "xlen", "xpending", "xinfo", "pfcount", "geopos", "geodist", "geosearch", "dump", "object", "touch", "randomkey", "dbsize", "expiretime", "pexpiretime",
		},
		write: {
			"set", "setnx", "setex", "psetex", "mset", "msetnx", "getset", "getdel", "getex", "append", "incr", "incrby", "incrbyfloat", "decr", "decrby", "setrange", "setbit", "bitop", "bitfield",
			"del", "unlink", "expire", "pexpire", "expireat", "pexpireat", "persist", "rename", "renamenx", "copy", "restore", "move",
			"hset", "hsetnx", "hmset", "hdel", "hincrby", "hincrbyfloat", "hexpire", "hpexpire", "hpersist", "hgetdel", "hgetex", "hsetex",
			"lpush", "rpush", "lpushx", "rpushx", "lpop", "rpop", "lmpop", "lrem", "lset", "ltrim", "linsert", "lmove", "rpoplpush",
			"sadd", "srem", "spop", "smove", "sinterstore", "sunionstore", "sdiffstore",
			"zadd", "zrem", "zincrby", "zpopmin", "zpopmax", "zmpop", "zremrangebyscore", "zremrangebyrank", "zremrangebylex", "zrangestore", "zunionstore", "zinterstore", "zdiffstore",
			"xadd", "xdel", "xtrim", "xack", "xclaim", "xautoclaim", "xgroup", "xsetid", "pfadd", "pfmerge", "geoadd", "geosearchstore",
		},
		script:   {"eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro", "script", "function"},
		blocking: {"blpop", "brpop", "blmove", "blmpop", "brpoplpush", "bzpopmin", "bzpopmax", "bzmpop", "xread", "xreadgroup", "wait", "waitaof"},
		pubsub:   {"publish", "spublish", "subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe", "pubsub"},
	} {
		for _, name := range names {
			m[name] = c
		}
	}
	return m
}()

// outcome is the label outcome's value.
type outcome uint8

const (
	ok       outcome = iota
	refused          // an answer that is an error, such as OOM or WRONGTYPE
	timeout          // no answer in time
	canceled         // the caller has gone, Redis may be well
	network          // no connection, or a broken one
	outcomes
)

var outcomeNames = [outcomes]string{"ok", "refused", "timeout", "canceled", "network"}

func outcomeOf(err error) outcome {
	if err == nil || err == redis.Nil { //nolint:errorlint // the common case first
		return ok
	}
	if _, answered := errors.AsType[redis.Error](err); answered {
		if errors.Is(err, redis.Nil) || errors.Is(err, redis.TxFailedErr) {
			return ok
		}
		return refused
	}
	switch {
	case errors.Is(err, context.Canceled):
		return canceled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout):
		return timeout
	}
	if broken, isNet := errors.AsType[net.Error](err); isNet && broken.Timeout() {
		return timeout
	}
	return network
}
