package main

// The counterparts of ../native/pingpong.c, buffered.c and contended.c.

import (
	"sync"
	"time"
)

const (
	producers = 4
	consumers = 4
)

func init() {
	perOp("native_pingpong", 1, unbuffered)
	perOp("native_buffered", 1, buffered)
	perOp("native_contended", producers, func(n int) time.Duration { return contended(n, 0) })
	perOp("native_contended128", producers, func(n int) time.Duration { return contended(n, bufferCap) })
}

func contended(n, capacity int) time.Duration {
	ch := make(chan int, capacity)
	sums := make([]int, consumers)
	var wg sync.WaitGroup
	start := time.Now()
	for range producers {
		wg.Go(func() {
			for i := range n / producers {
				ch <- i
			}
		})
	}
	for c := range consumers {
		wg.Go(func() {
			sum := 0
			for range n / consumers {
				sum += <-ch
			}
			sums[c] = sum
		})
	}
	wg.Wait()
	took := time.Since(start)
	total := 0
	for _, sum := range sums {
		total += sum
	}
	each := n / producers
	check(total, producers*(each*(each-1)/2))
	return took
}
