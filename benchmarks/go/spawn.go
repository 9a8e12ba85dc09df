package main

import (
	"sync"
	"time"
)

const batch = 1000

func init() {
	perOp("spawn", batch, spawn)
	perOp("spawn1", 1, spawn1)
}

// Go has no join: a WaitGroup is how its users wait for goroutines.
func spawn(n int) time.Duration {
	var wg sync.WaitGroup
	start := time.Now()
	for range n / batch {
		wg.Add(batch)
		for range batch {
			go wg.Done()
		}
		wg.Wait()
	}
	return time.Since(start)
}

func spawn1(n int) time.Duration {
	var wg sync.WaitGroup
	start := time.Now()
	for range n {
		wg.Add(1)
		go wg.Done()
		wg.Wait()
	}
	return time.Since(start)
}
