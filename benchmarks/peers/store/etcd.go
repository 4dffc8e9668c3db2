// etcd, by its own client. A get is linearizable unless it is asked to be serializable.
package main

import (
	"context"
	"time"

	"go.etcd.io/etcd/clientv3"
)

type etcd struct{ *clientv3.Client }

func open(addresses []string) (store, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: addresses, DialTimeout: 5 * time.Second})
	return etcd{client}, err
}

func (e etcd) put(ctx context.Context, key, value string) error {
	_, err := e.Put(ctx, key, value)
	return err
}

func (e etcd) get(ctx context.Context, key string) (int, error) {
	found, err := e.Get(ctx, key)
	if err != nil || len(found.Kvs) == 0 {
		return 0, err
	}
	return len(found.Kvs[0].Value), nil
}
