// A closed loop of clients on a store: each keeps one request outstanding. What a store is like is
// in the file that this one is built with: etcd.go, zookeeper.go or nats.go.
//
//	load PROTOCOL ADDRESSES CONNECTIONS CLIENTS SECONDS BYTES
//
// PROTOCOL is put, get (as linearizable as the store has it) or mix, as in load.c; so are keys,
// values and the result. `fill` puts every key once. `failover` has one client: it puts a few keys,
// says `ready`, waits for a line, puts one more however often it must, and says `acked`.
package main

import (
	"bufio"
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
	"sync/atomic"
	"syscall"
	"time"
)

const (
	keys = 10000
	// A request that a dead leader took is given up after this, so a failover is known to within it.
	attempt  = 200 * time.Millisecond
	patience = 60 * time.Second
	// A store that refuses at once is not asked in a spin: it needs the processor to elect.
	pause = 5 * time.Millisecond
)

// One connection. Many clients use it at a time.
type store interface {
	put(ctx context.Context, key, value string) error
	// How many bytes the value has.
	get(ctx context.Context, key string) (int, error)
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func keyOf(number int) string { return fmt.Sprintf("key-%012d", number) }

// Seconds of processor time of this process so far.
func processor() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}

func fill(linked []store, clients int, value string) {
	var next int64 = -1
	var group sync.WaitGroup
	for client := 0; client < clients; client++ {
		group.Add(1)
		go func(link store) {
			defer group.Done()
			for at := atomic.AddInt64(&next, 1); at < keys; at = atomic.AddInt64(&next, 1) {
				if err := link.put(context.Background(), keyOf(int(at)), value); err != nil {
					log.Fatal(err)
				}
			}
		}(linked[client%len(linked)])
	}
	group.Wait()
	json.NewEncoder(os.Stdout).Encode(map[string]int{"done": keys})
}

func failover(link store, value string) {
	time.AfterFunc(patience, func() { log.Fatal("nobody takes a write") })
	for at := 0; at < 50; at++ {
		if err := link.put(context.Background(), keyOf(at), value); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		log.Fatal(err)
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), attempt)
		err := link.put(ctx, keyOf(0), value)
		cancel()
		if err == nil {
			break
		}
		time.Sleep(pause)
	}
	fmt.Println("acked")
}

// What one client does until the end; how long its counted requests took, and how many it made.
func client(
	link store, protocol, value string, seed int64, warm, end time.Time,
) ([]time.Duration, int) {
	random := rand.New(rand.NewSource(seed))
	took, done := []time.Duration{}, 0
	for {
		at := time.Now()
		if at.After(end) {
			return took, done
		}
		key := keyOf(random.Intn(keys))
		var err error
		if protocol == "put" || (protocol == "mix" && random.Intn(10) == 0) {
			err = link.put(context.Background(), key, value)
		} else {
			var size int
			if size, err = link.get(context.Background(), key); err == nil && size != len(value) {
				err = fmt.Errorf("%s has %d bytes, not %d", key, size, len(value))
			}
		}
		if err != nil {
			log.Fatal(err)
		}
		done++
		if at.After(warm) {
			took = append(took, time.Since(at))
		}
	}
}

func measure(linked []store, protocol string, clients int, seconds float64, value string) {
	begin := time.Now()
	warm := begin.Add(time.Duration(seconds / 10 * float64(time.Second)))
	end := begin.Add(time.Duration(seconds * float64(time.Second)))
	took, done := make([][]time.Duration, clients), make([]int, clients)
	var group sync.WaitGroup
	for at := 0; at < clients; at++ {
		group.Add(1)
		go func(at int) {
			defer group.Done()
			link, seed := linked[at%len(linked)], begin.UnixNano()+int64(at)
			took[at], done[at] = client(link, protocol, value, seed, warm, end)
		}(at)
	}
	time.Sleep(time.Until(warm))
	before := processor()
	group.Wait()
	wall := time.Since(warm).Seconds()
	used := processor() - before
	var all []float64
	total := 0
	for at := range took {
		total += done[at]
		for _, one := range took[at] {
			all = append(all, float64(one)/1e6)
		}
	}
	if len(all) == 0 {
		log.Fatal("nothing was done")
	}
	sort.Float64s(all)
	json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"ops": float64(len(all)) / wall, "p50_ms": all[len(all)/2], "p99_ms": all[len(all)*99/100],
		"max_ms": all[len(all)-1], "done": total, "load_cores": used / wall,
	})
}

func main() {
	if len(os.Args) != 7 {
		log.Fatal("load PROTOCOL ADDRESSES CONNECTIONS CLIENTS SECONDS BYTES")
	}
	protocol, addresses := os.Args[1], strings.Split(os.Args[2], ",")
	clients := number(os.Args[4])
	seconds, err := strconv.ParseFloat(os.Args[5], 64)
	if err != nil {
		log.Fatal(err)
	}
	value := strings.Repeat("v", number(os.Args[6]))
	linked := make([]store, number(os.Args[3]))
	for at := range linked {
		if linked[at], err = open(addresses); err != nil {
			log.Fatal(err)
		}
	}
	switch protocol {
	case "fill":
		fill(linked, clients, value)
	case "failover":
		failover(linked[0], value)
	default:
		measure(linked, protocol, clients, seconds, value)
	}
}
