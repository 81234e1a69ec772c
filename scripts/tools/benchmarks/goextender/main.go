// The yardstick of the benchmarks: a minimal scheduler extender in Go, net/http and encoding/json.
//
// It has warmnode's order (node ages from a JSON file, the nine oldest candidates get 10, 9, ... 2) and answers every
// host, as the extenders in use do. It is on purpose as light as a fair one can be: of the pod only the metadata is
// decoded, where most decode all of v1.Pod, and there is no state to follow, no metric and no log.
// With -answer none it is the no-op extender: it reads the request without decoding it and answers [].
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
)

// ExtenderArgs and HostPriority as in k8s.io/kube-scheduler/extender/v1, which has no JSON tags either.
type extenderArgs struct {
	Pod       *pod
	Nodes     *struct{}
	NodeNames *[]string
}

type pod struct {
	Metadata struct {
		Namespace string            `json:"namespace"`
		Name      string            `json:"name"`
		UID       string            `json:"uid"`
		Labels    map[string]string `json:"labels"`
	} `json:"metadata"`
}

type hostPriority struct {
	Host  string
	Score int64
}

const (
	poolLabel   = "warmnode.dev/pool"
	scoredNodes = 9
	maxScore    = 10
)

// prioritize answers every candidate: the nine oldest 10, 9, ... 2, the others 0.
func prioritize(names []string, firstSeen map[string]int64) []hostPriority {
	answer := make([]hostPriority, len(names))
	oldest := make([]int, 0, scoredNodes+1) // positions in names, oldest first
	for position, name := range names {
		answer[position].Host = name
		seen, known := firstSeen[name]
		if !known {
			continue
		}
		if len(oldest) == scoredNodes && seen >= firstSeen[names[oldest[scoredNodes-1]]] {
			continue
		}
		at := len(oldest)
		for at > 0 && seen < firstSeen[names[oldest[at-1]]] {
			at--
		}
		oldest = append(oldest, 0)
		copy(oldest[at+1:], oldest[at:])
		oldest[at] = position
		if len(oldest) > scoredNodes {
			oldest = oldest[:scoredNodes]
		}
	}
	for rank, position := range oldest {
		answer[position].Score = int64(maxScore - rank)
	}
	return answer
}

func serveScores(firstSeen map[string]int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var args extenderArgs
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil || args.Pod == nil {
			http.Error(w, "no ExtenderArgs", http.StatusBadRequest)
			return
		}
		answer := []hostPriority{}
		if args.NodeNames != nil && args.Pod.Metadata.Labels[poolLabel] != "" {
			answer = prioritize(*args.NodeNames, firstSeen)
		}
		content, err := json.Marshal(answer)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		reply(w, content)
	}
}

func serveNothing(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		reply(w, []byte("[]"))
	}
}

func reply(w http.ResponseWriter, content []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = w.Write(content)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	ages := flag.String("ages", "", "JSON file: node name to the epoch second at which it was first seen")
	answer := flag.String("answer", "every", "every: a score for every host; none: [] without a look at the request")
	flag.Parse()

	handle := http.HandlerFunc(serveNothing)
	if *answer == "every" {
		content, err := os.ReadFile(*ages)
		if err != nil {
			log.Fatalf("-ages: %v", err)
		}
		firstSeen := map[string]int64{}
		if err := json.Unmarshal(content, &firstSeen); err != nil {
			log.Fatalf("-ages %s: %v", *ages, err)
		}
		handle = serveScores(firstSeen)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /prioritize", handle)
	log.Fatal(http.ListenAndServe(*listen, mux))
}
