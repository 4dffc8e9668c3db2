// A closed loop of clients on etcd: each keeps one request outstanding.
//
//	etcdload PROTOCOL ENDPOINT CONNECTIONS CLIENTS SECONDS BYTES
//
// PROTOCOL is put, get (linearizable) or mix, as in load.c; so are keys, values and the result.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
)

const keys = 10000

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func main() {
	if len(os.Args) != 7 {
		log.Fatal("etcdload PROTOCOL ENDPOINT CONNECTIONS CLIENTS SECONDS BYTES")
	}
	protocol, endpoint := os.Args[1], os.Args[2]
	connections, clients, size := number(os.Args[3]), number(os.Args[4]), number(os.Args[6])
	seconds, err := strconv.ParseFloat(os.Args[5], 64)
	if err != nil {
		log.Fatal(err)
	}
	value := strings.Repeat("v", size)
	linked := make([]*clientv3.Client, connections)
	for at := range linked {
		linked[at], err = clientv3.New(clientv3.Config{
			Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second,
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	begin := time.Now()
	warm := begin.Add(time.Duration(seconds / 10 * float64(time.Second)))
	end := begin.Add(time.Duration(seconds * float64(time.Second)))
	took := make([][]time.Duration, clients)
	done := make([]int, clients)
	var group sync.WaitGroup
	for client := 0; client < clients; client++ {
		group.Add(1)
		go func(client int) {
			defer group.Done()
			random := rand.New(rand.NewSource(time.Now().UnixNano() + int64(client)))
			kv := linked[client%connections]
			for {
				at := time.Now()
				if at.After(end) {
					return
				}
				key := fmt.Sprintf("key-%012d", random.Intn(keys))
				var err error
				if protocol == "put" || (protocol == "mix" && random.Intn(10) == 0) {
					_, err = kv.Put(context.Background(), key, value)
				} else {
					_, err = kv.Get(context.Background(), key)
				}
				if err != nil {
					log.Fatal(err)
				}
				done[client]++
				if at.After(warm) {
					took[client] = append(took[client], time.Since(at))
				}
			}
		}(client)
	}
	group.Wait()
	wall := time.Since(warm).Seconds()
	var all []float64
	total := 0
	for client := range took {
		total += done[client]
		for _, one := range took[client] {
			all = append(all, float64(one)/1e6)
		}
	}
	sort.Float64s(all)
	json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"ops": float64(len(all)) / wall, "p50_ms": all[len(all)/2], "p99_ms": all[len(all)*99/100],
		"max_ms": all[len(all)-1], "done": total,
	})
}
