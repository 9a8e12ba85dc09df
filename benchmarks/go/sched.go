package main

import (
	"runtime"
	"sync"
	"time"
)

func init() {
	perOp("yield_two", 2, yieldTwo)
	perOp("mutex", 1, mutex)
	metrics("skynet", skynet)
	metrics("sleepers", sleepers)
}

func yieldTwo(n int) time.Duration {
	var wg sync.WaitGroup
	spin := func() {
		for range n / 2 {
			runtime.Gosched()
		}
	}
	start := time.Now()
	wg.Go(spin)
	wg.Go(spin)
	wg.Wait()
	return time.Since(start)
}

func mutex(n int) time.Duration {
	var mu sync.Mutex
	start := time.Now()
	for range n {
		mu.Lock()
		mu.Unlock() //nolint: an empty critical section is what is measured
	}
	return time.Since(start)
}

func skynetNode(parent chan int, number, size int) {
	if size == 1 {
		parent <- number
		return
	}
	ch := make(chan int)
	size /= 10
	for i := range 10 {
		go skynetNode(ch, number+i*size, size)
	}
	sum := 0
	for range 10 {
		sum += <-ch
	}
	parent <- sum
}

func skynet(leaves int) map[string]float64 {
	start := time.Now()
	ch := make(chan int)
	go skynetNode(ch, 0, leaves)
	sum := <-ch
	took := time.Since(start)
	check(sum, leaves*(leaves-1)/2)
	return map[string]float64{"ns": float64(took) / float64(leaves)}
}

// sleepTimes is the sequence of sleepers.py.
func sleepTimes(n int) []time.Duration {
	x, out := uint64(42), make([]time.Duration, n)
	for i := range out {
		x = x*6364136223846793005 + 1442695040888963407
		out[i] = time.Duration(10_000+(x>>33)%990_000) * time.Microsecond
	}
	return out
}

func sleepers(n int) map[string]float64 {
	durations := sleepTimes(n)
	var longest time.Duration
	for _, d := range durations {
		longest = max(longest, d)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // Python's += needs no lock on one core; Go's does
	var late time.Duration
	ended := 0
	cpu, start := cpuTime(), time.Now()
	for _, d := range durations {
		wg.Go(func() {
			due := time.Now().Add(d)
			time.Sleep(d)
			overslept := time.Since(due)
			mu.Lock()
			late += overslept
			ended++
			mu.Unlock()
		})
	}
	wg.Wait()
	wall := time.Since(start)
	cpu = cpuTime() - cpu
	check(ended, n)
	each := func(d time.Duration) float64 { return float64(d) / float64(n) }
	return map[string]float64{"cpu": each(cpu), "overrun": each(wall - longest), "late": each(late)}
}
