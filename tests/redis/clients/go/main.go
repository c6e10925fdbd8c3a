// go-redis against a node: `go run . PORT`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

func must(ok bool, what string, seen ...any) {
	if !ok {
		fmt.Fprintln(os.Stderr, what, seen)
		os.Exit(1)
	}
}

func check(port string, protocol int) {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + port, Protocol: protocol, ClientName: "go"})
	defer client.Close()
	value, err := client.Get(ctx, "files:alice").Result()
	must(err == nil && value == "value of alice", "get", value, err)
	_, err = client.Get(ctx, "files:missing").Result()
	must(errors.Is(err, redis.Nil), "missing", err)
	large, err := client.Get(ctx, "files:large").Result()
	must(err == nil && large == strings.Repeat("x", 300_000), "large", err)
	many, err := client.MGet(ctx, "files:alice", "files:missing", "files:bob").Result()
	must(err == nil && reflect.DeepEqual(many, []any{"value of alice", nil, "value of bob"}), "mget", many, err)
	present, err := client.Exists(ctx, "files:alice", "files:missing").Result()
	must(err == nil && present == 1, "exists", present, err)
	life, err := client.TTL(ctx, "files:alice").Result()
	must(err == nil && life > 0 && life <= time.Minute, "ttl", life, err)
	removed, err := client.Del(ctx, "files:alice", "files:bob").Result()
	must(err == nil && removed == 2, "del", removed, err)
	name, err := client.ClientGetName(ctx).Result()
	must(err == nil && name == "go", "name", name, err)
	commands, err := client.Command(ctx).Result()
	must(err == nil && commands["get"] != nil && commands["get"].ReadOnly, "command", commands, err)
	var gets []*redis.StringCmd
	_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for range 500 {
			gets = append(gets, pipe.Get(ctx, "files:alice"))
		}
		return nil
	})
	must(err == nil, "pipeline", err)
	for _, get := range gets {
		must(get.Val() == "value of alice", "pipeline", get)
	}
	err = client.Set(ctx, "files:alice", "v", 0).Err()
	must(err != nil && strings.Contains(err.Error(), "read-through"), "set", err)
}

func main() {
	for _, protocol := range []int{2, 3} {
		check(os.Args[1], protocol)
	}
	fmt.Println("go-redis", redis.Version()+": ok")
}
