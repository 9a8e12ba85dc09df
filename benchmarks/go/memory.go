package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

func init() {
	metrics("parked_memory", parkedMemory)
	metrics("million", million)
}

// parked is n goroutines that wait on one channel; end lets them go.
type parked struct {
	gate           chan struct{}
	started, ended atomic.Int64
	wg             sync.WaitGroup
}

func park(n int) *parked {
	p := &parked{gate: make(chan struct{})}
	p.wg.Add(n)
	for range n {
		go func() {
			p.started.Add(1)
			<-p.gate
			p.ended.Add(1)
			p.wg.Done()
		}()
	}
	for p.started.Load() < int64(n) {
		runtime.Gosched()
	}
	return p
}

func (p *parked) end(n int) {
	check(p.ended.Load(), 0)
	close(p.gate)
	p.wg.Wait()
	check(p.ended.Load(), int64(n))
}

func parkedMemory(n int) map[string]float64 {
	runtime.GC()
	memory, tables := rss(), pageTables()
	p := park(n)
	memory, tables = rss()-memory, pageTables()-tables
	p.end(n)
	return map[string]float64{"resident": memory / float64(n), "tables": tables / float64(n)}
}

func million(n int) map[string]float64 {
	memory, tables := rss(), pageTables()
	clock := time.Now()
	p := park(n)
	start := time.Since(clock).Seconds()
	memory, tables = rss()-memory, pageTables()-tables
	clock = time.Now()
	p.end(n)
	end := time.Since(clock).Seconds()
	return map[string]float64{"start": start, "end": end, "resident": memory / 1e6, "tables": tables / 1e6}
}
