package main

// The counterpart of ../native/forkjoin.c: see there for what it does and why.

import (
	"sync"
	"time"
)

func init() {
	perOp("native_forkjoin", 1, forkjoin)
}

func leaf(i uint64) uint64 {
	x := (i + 1) * 0x9E3779B97F4A7C15
	for range 500 + (x>>40)%3000 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

func tree(low, high uint64) uint64 {
	if high-low == 1 {
		return leaf(low)
	}
	middle := low + (high-low)/2
	var left uint64
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		left = tree(low, middle)
		wg.Done()
	}()
	right := tree(middle, high)
	wg.Wait()
	return left + right
}

var wanted struct {
	n   int
	sum uint64
}

func forkjoin(n int) time.Duration {
	start := time.Now()
	sum := tree(0, uint64(n))
	took := time.Since(start)
	if wanted.n != n {
		wanted.n, wanted.sum = n, 0
		for i := range n {
			wanted.sum += leaf(uint64(i))
		}
	}
	check(sum, wanted.sum)
	return took
}
