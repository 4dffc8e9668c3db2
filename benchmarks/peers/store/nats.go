// NATS JetStream, a bucket of three replicas. A get asks the stream's leader for the last message
// of the key; the client's own get would ask any replica. The leader asks no quorum before it
// answers, so one that others have replaced without its knowledge may answer what is stale.
package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const bucket = "bench"

type jetstream struct{ nats.JetStreamContext }

func open(addresses []string) (store, error) {
	conn, err := nats.Connect(
		strings.Join(addresses, ","), nats.DontRandomize(), nats.MaxReconnects(-1),
		nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0),
	)
	if err != nil {
		return nil, err
	}
	stream, err := conn.JetStream(nats.MaxWait(20 * time.Second))
	if err != nil {
		return nil, err
	}
	if _, err = stream.KeyValue(bucket); errors.Is(err, nats.ErrBucketNotFound) {
		_, err = stream.CreateKeyValue(&nats.KeyValueConfig{
			Bucket: bucket, Replicas: 3, Storage: nats.FileStorage,
		})
	}
	return jetstream{stream}, err
}

// What the bucket's own put publishes, with the context that it has not.
func (j jetstream) put(ctx context.Context, key, value string) error {
	var options []nats.PubOpt
	if ctx.Done() != nil {
		options = append(options, nats.Context(ctx))
	}
	_, err := j.Publish("$KV."+bucket+"."+key, []byte(value), options...)
	return err
}

func (j jetstream) get(ctx context.Context, key string) (int, error) {
	last, err := j.GetLastMsg("KV_"+bucket, "$KV."+bucket+"."+key)
	if err != nil {
		return 0, err
	}
	return len(last.Data), nil
}
