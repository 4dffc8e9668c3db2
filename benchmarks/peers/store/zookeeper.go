// ZooKeeper: a key is a node below the root. A get is `sync` and then `getData`, each a round trip.
// Beside a leader that is one still, that reads the last write; `sync` asks no quorum, so a leader
// that others have replaced without its knowledge may answer what is stale.
package main

import (
	"context"
	"time"

	"github.com/samuel/go-zookeeper/zk"
)

const session = 10 * time.Second

type zookeeper struct {
	*zk.Conn
	addresses []string
	next      int
}

type silent struct{}

func (silent) Printf(string, ...interface{}) {}

func dial(address string) (*zk.Conn, error) {
	conn, _, err := zk.Connect(
		[]string{address}, session, zk.WithLogger(silent{}), zk.WithLogInfo(false),
		zk.WithEventCallback(func(zk.Event) {}),
	)
	return conn, err
}

func open(addresses []string) (store, error) {
	conn, err := dial(addresses[0])
	return &zookeeper{conn, addresses, 1}, err
}

// An error is that of one server. The next put asks the next server, and by a new connection: the
// library itself waits a second before it dials again.
func (z *zookeeper) put(ctx context.Context, key, value string) error {
	if ctx.Done() == nil { // measured: there is one server, and nothing to give up for
		return set(z.Conn, "/"+key, value)
	}
	failed, conn := make(chan error, 1), z.Conn
	go func() { failed <- set(conn, "/"+key, value) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		go conn.Close()
		address := z.addresses[z.next%len(z.addresses)]
		z.next++
		if replaced, wrong := dial(address); wrong == nil {
			z.Conn = replaced
		}
	}
	return err
}

func set(conn *zk.Conn, path, value string) error {
	_, err := conn.Set(path, []byte(value), -1)
	if err == zk.ErrNoNode {
		_, err = conn.Create(path, []byte(value), 0, zk.WorldACL(zk.PermAll))
		if err == zk.ErrNodeExists { // somebody else was first
			_, err = conn.Set(path, []byte(value), -1)
		}
	}
	return err
}

func (z *zookeeper) get(ctx context.Context, key string) (int, error) {
	if _, err := z.Sync("/" + key); err != nil {
		return 0, err
	}
	value, _, err := z.Get("/" + key)
	return len(value), err
}
