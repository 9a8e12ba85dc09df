// The Go side of gort's benchmarks: every workload of ../workloads and every
// program of ../native, written as Go's users write it, in one binary.
//
//	gobench [-n N] [-target SECONDS] [-repeat N] WORKLOAD
//
// Without -n it finds out how many operations fill -target seconds, in the same
// steps as ../_child.py does. It prints `p P` and `n N`, then for each repetition
// `WORKLOAD NANOSECONDS_PER_OPERATION`, or `METRIC VALUE` where that is not the
// answer. GOMAXPROCS comes from the environment.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"time"
)

// A workload does n operations and says how long they took.
type workload struct {
	step  int                            // n is a multiple of this
	perOp func(n int) time.Duration      // nanoseconds per operation are wanted
	other func(n int) map[string]float64 // or these metrics
}

var workloads = map[string]workload{}

func perOp(name string, step int, f func(n int) time.Duration) {
	workloads[name] = workload{step: step, perOp: f}
}

func metrics(name string, f func(n int) map[string]float64) {
	workloads[name] = workload{step: 1, other: f}
}

// inGoroutine runs f in a goroutine other than main, as the peers do.
func inGoroutine[T any](f func() T) T {
	done := make(chan T)
	go func() { done <- f() }()
	return <-done
}

// calibrate finds an n that takes about target: see _child.calibrate.
func calibrate(w workload, target time.Duration) int {
	n := 1000
	for {
		n = (n + w.step - 1) / w.step * w.step
		took := inGoroutine(func() time.Duration { return w.perOp(n) })
		if took >= target/4 {
			n = int(float64(n) * float64(target) / float64(took))
			return max((n+w.step-1)/w.step*w.step, w.step)
		}
		grow := 10.0
		if took > 0 {
			grow = min(grow, 0.5*float64(target)/float64(took))
		}
		n = int(float64(n) * max(grow, 2))
	}
}

// check refuses to time work that was not done.
func check[T comparable](got, want T) {
	if got != want {
		fmt.Fprintf(os.Stderr, "wrong result: %v instead of %v\n", got, want)
		os.Exit(1)
	}
}

func main() {
	n := flag.Int("n", 0, "operations; 0: as many as fill the target")
	target := flag.Float64("target", 0.3, "seconds per repetition")
	repeat := flag.Int("repeat", 5, "repetitions")
	flag.Parse()
	w, ok := workloads[flag.Arg(0)]
	if !ok || flag.NArg() != 1 {
		names := []string{}
		for name := range workloads {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintln(os.Stderr, "one of:", strings.Join(names, " "))
		os.Exit(2)
	}
	if *n == 0 {
		*n = calibrate(w, time.Duration(*target*1e9))
	}
	fmt.Println("p", runtime.GOMAXPROCS(0))
	fmt.Println("n", *n)
	for range *repeat {
		runtime.GC()
		if w.perOp != nil {
			took := inGoroutine(func() time.Duration { return w.perOp(*n) })
			fmt.Printf("%s %.3f\n", flag.Arg(0), float64(took)/float64(*n))
			continue
		}
		for name, value := range inGoroutine(func() map[string]float64 { return w.other(*n) }) {
			fmt.Printf("%s %.6f\n", name, value)
		}
	}
}
