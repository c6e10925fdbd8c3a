// Command interop is a Go program that knows nothing of gaocache: it uses etcd's own resolver and endpoints manager.
//
//	interop get ETCD SERVICE COUNT [CA NAME]    dials etcd:///SERVICE round robin, over TLS if CA and NAME say whom to trust; gets COUNT keys, prints who answered how many
//	interop register ETCD SERVICE ID ADDR    registers an endpoint, prints "registered", and deletes it when its input ends
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/encoding/protowire"
)

// raw passes messages as they are, so that no code needs to be generated from our proto.
type raw struct{}

func (raw) Name() string { return "proto" }
func (raw) Marshal(v any) ([]byte, error) {
	return *v.(*[]byte), nil
}
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// value is field 1 of gaocache.v1.GetResponse.
func value(message []byte) (string, error) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return "", errors.New("not a message")
		}
		message = message[n:]
		if number == 1 && kind == protowire.BytesType {
			content, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return "", errors.New("not a message")
			}
			return string(content), nil
		}
		n = protowire.ConsumeFieldValue(number, kind, message)
		if n < 0 {
			return "", errors.New("not a message")
		}
		message = message[n:]
	}
	return "", nil
}

func get(client *clientv3.Client, service string, count int, trust []string) error {
	transport := insecure.NewCredentials()
	if len(trust) == 2 {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(trust[0], trust[1]); err != nil {
			return err
		}
	}
	builder, err := resolver.NewBuilder(client)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("etcd:///"+service,
		grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin":{}}]}`))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	answers := map[string]int{}
	for n := 0; n < count; n++ {
		key := fmt.Sprintf("go-%d", n)
		request := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "users")
		request = protowire.AppendString(protowire.AppendTag(request, 2, protowire.BytesType), key)
		var reply []byte
		var from peer.Peer
		if err := conn.Invoke(ctx, "/gaocache.v1.Cache/Get", &request, &reply,
			grpc.ForceCodec(raw{}), grpc.Peer(&from), grpc.WaitForReady(true)); err != nil {
			return fmt.Errorf("get %s: %w", key, err)
		}
		got, err := value(reply)
		if err != nil {
			return err
		}
		if want := "value of " + key; got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		answers[from.Addr.String()]++
	}
	for address, number := range answers {
		fmt.Println(address, number)
	}
	return nil
}

func register(client *clientv3.Client, service, id, address string) error {
	ctx := context.Background()
	manager, err := endpoints.NewManager(client, service)
	if err != nil {
		return err
	}
	lease, err := client.Grant(ctx, 10)
	if err != nil {
		return err
	}
	key := service + "/" + id
	endpoint := endpoints.Endpoint{Addr: address, Metadata: map[string]any{"zone": "go", "weight": 7}}
	if err := manager.AddEndpoint(ctx, key, endpoint, clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	fmt.Println("registered")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return manager.DeleteEndpoint(ctx, key)
}

func run() error {
	if len(os.Args) < 5 {
		return errors.New("usage: see the comment in main.go")
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[2]}, DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer client.Close()
	switch os.Args[1] {
	case "get":
		count, err := strconv.Atoi(os.Args[4])
		if err != nil {
			return err
		}
		return get(client, os.Args[3], count, os.Args[5:])
	case "register":
		return register(client, os.Args[3], os.Args[4], os.Args[5])
	}
	return errors.New("usage: see the comment in main.go")
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
