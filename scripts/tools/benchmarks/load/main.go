// The load of the webhook benchmark: keep-alive clients that send recorded prioritize requests one after the other.
//
// -view wire measures the server alone: the request is bytes, the answer is read and thrown away.
// -view scheduler does what kube-scheduler's HTTPExtender does for each pod (pkg/scheduler/extender.go, send): encode
// the arguments, POST them with net/http, decode the answer with encoding/json. Only the pod is encoded already.
// Prints one JSON object. cpu_share is this client's own use of its core: near 1 it was the bottleneck.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"syscall"
	"time"
)

type extenderArgs struct {
	Pod       json.RawMessage
	Nodes     *struct{}
	NodeNames *[]string
}

type hostPriority struct {
	Host  string
	Score int64
}

// A caller sends one request and returns how many bytes, or hosts, the answer has.
type caller func(request int) (int64, error)

func wireCaller(target *url.URL, bodies [][]byte) (caller, error) {
	connection, err := net.Dial("tcp", target.Host)
	if err != nil {
		return nil, err
	}
	requests := make([][]byte, len(bodies))
	for i, body := range bodies {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
			target.Path, target.Host, len(body))
		requests[i] = append([]byte(head), body...)
	}
	reader := bufio.NewReaderSize(connection, 1<<16)
	return func(request int) (int64, error) {
		if _, err := connection.Write(requests[request%len(requests)]); err != nil {
			return 0, err
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return 0, err
		}
		size, err := io.Copy(io.Discard, response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d", response.StatusCode)
		}
		return size, err
	}, nil
}

func schedulerCaller(target *url.URL, bodies [][]byte) (caller, error) {
	arguments := make([]extenderArgs, len(bodies))
	for i, body := range bodies {
		if err := json.Unmarshal(body, &arguments[i]); err != nil {
			return nil, err
		}
	}
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	return func(request int) (int64, error) {
		out, err := json.Marshal(&arguments[request%len(arguments)])
		if err != nil {
			return 0, err
		}
		response, err := client.Post(target.String(), "application/json", bytes.NewReader(out))
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("status %d", response.StatusCode)
		}
		var answer []hostPriority
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			return 0, err
		}
		return int64(len(answer)), nil
	}, nil
}

type tally struct {
	sent      int
	latencies []time.Duration
	size      int64
	err       error
}

func run(call caller, first int, warmUntil, end time.Time) (result tally) {
	for request := first; ; request++ {
		started := time.Now()
		if started.After(end) {
			return result
		}
		size, err := call(request)
		if err != nil {
			result.err = err
			return result
		}
		result.sent++
		if started.After(warmUntil) {
			result.latencies = append(result.latencies, time.Since(started))
			result.size += size
		}
	}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

func readBodies(folder string) [][]byte {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(files) == 0 {
		log.Fatalf("-bodies %s: no *.json there", folder)
	}
	bodies := make([][]byte, 0, len(files))
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		bodies = append(bodies, body)
	}
	return bodies
}

func main() {
	address := flag.String("url", "", "the verb's URL")
	folder := flag.String("bodies", "", "folder of request bodies, *.json, sent in turn")
	clients := flag.Int("clients", 1, "keep-alive connections, one request in flight on each")
	duration := flag.Duration("duration", 2*time.Second, "measured time")
	warmUp := flag.Duration("warm-up", 300*time.Millisecond, "time before it that does not count")
	view := flag.String("view", "wire", "wire or scheduler")
	flag.Parse()

	target, err := url.Parse(*address)
	if err != nil {
		log.Fatalf("-url: %v", err)
	}
	bodies := readBodies(*folder)
	connect := wireCaller
	if *view == "scheduler" {
		connect = schedulerCaller
	}
	callers := make([]caller, *clients)
	for i := range callers {
		if callers[i], err = connect(target, bodies); err != nil {
			log.Fatal(err)
		}
	}

	tallies := make([]tally, *clients)
	warmUntil := time.Now().Add(*warmUp)
	end := warmUntil.Add(*duration)
	used := cpuSeconds()
	began := time.Now()
	var group sync.WaitGroup
	for i := range callers {
		group.Add(1)
		go func() {
			defer group.Done()
			tallies[i] = run(callers[i], i, warmUntil, end)
		}()
	}
	group.Wait()
	share := (cpuSeconds() - used) / time.Since(began).Seconds()
	seconds := time.Since(warmUntil).Seconds()

	var latencies []time.Duration
	var size int64
	sent := 0
	for _, each := range tallies {
		if each.err != nil {
			log.Fatalf("a request failed: %v", each.err)
		}
		latencies = append(latencies, each.latencies...)
		size += each.size
		sent += each.sent
	}
	if len(latencies) == 0 {
		log.Fatal("no request was answered in the time given")
	}
	sort.Slice(latencies, func(i, j int) bool { return latencies[i] < latencies[j] })
	quantile := func(q float64) float64 {
		return float64(latencies[int(q*float64(len(latencies)-1))]) / float64(time.Millisecond)
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"sent":        sent,
		"requests":    len(latencies),
		"per_second":  float64(len(latencies)) / seconds,
		"p50_ms":      quantile(0.5),
		"p99_ms":      quantile(0.99),
		"answer_size": size / int64(len(latencies)),
		"cpu_share":   share,
	})
}
