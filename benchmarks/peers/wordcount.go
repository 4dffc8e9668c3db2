// Goroutines over byte ranges, a map each, merged and sorted at the end.
// usage: wordcount WORKERS OUTPUT INPUT...
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"sort"
	"strconv"
	"unicode"
	"unicode/utf8"
)

const splitBytes = 8 << 20

type split struct {
	path       string
	start, end int64
}

func add(counts map[string]*int, line []byte) {
	for len(line) > 0 {
		letter, size := utf8.DecodeRune(line)
		if !unicode.IsLetter(letter) {
			line = line[size:]
			continue
		}
		end := size
		for end < len(line) {
			letter, size = utf8.DecodeRune(line[end:])
			if !unicode.IsLetter(letter) {
				break
			}
			end += size
		}
		if count := counts[string(line[:end])]; count != nil {
			*count++
		} else {
			one := 1
			counts[string(line[:end])] = &one
		}
		line = line[end:]
	}
}

// count counts the lines that begin in bytes [start, end).
func count(s split, counts map[string]*int) error {
	file, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer file.Close()
	position := s.start
	if position > 0 {
		position--
	}
	if _, err := file.Seek(position, io.SeekStart); err != nil {
		return err
	}
	reader := bufio.NewReaderSize(file, 1<<20)
	skip := s.start > 0
	var long bytes.Buffer
	for skip || position < s.end {
		line, err := reader.ReadSlice('\n')
		position += int64(len(line))
		if err == bufio.ErrBufferFull {
			long.Write(line)
			if position < s.end || long.Len() > 0 {
				continue
			}
		}
		if long.Len() > 0 {
			long.Write(line)
			line = long.Bytes()
		}
		if !skip {
			add(counts, line)
		}
		skip = false
		long.Reset()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func splits(paths []string) []split {
	var all []split
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			log.Fatal(err)
		}
		for start := int64(0); start < info.Size(); start += splitBytes {
			end := start + splitBytes
			if end > info.Size() {
				end = info.Size()
			}
			all = append(all, split{path, start, end})
		}
	}
	return all
}

func countAll(workers int, paths []string) map[string]int {
	work := make(chan split)
	parts := make(chan map[string]*int)
	for i := 0; i < workers; i++ {
		go func() {
			counts := map[string]*int{}
			for s := range work {
				if err := count(s, counts); err != nil {
					log.Fatal(err)
				}
			}
			parts <- counts
		}()
	}
	for _, s := range splits(paths) {
		work <- s
	}
	close(work)
	all := map[string]int{}
	for i := 0; i < workers; i++ {
		for word, count := range <-parts {
			all[word] += *count
		}
	}
	return all
}

func main() {
	workers, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	runtime.GOMAXPROCS(workers)
	counts := countAll(workers, os.Args[3:])
	words := make([]string, 0, len(counts))
	for word := range counts {
		words = append(words, word)
	}
	sort.Strings(words)
	file, err := os.Create(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	out := bufio.NewWriter(file)
	for _, word := range words {
		fmt.Fprintf(out, "%s %d\n", word, counts[word])
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}
