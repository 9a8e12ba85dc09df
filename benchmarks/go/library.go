package main

import (
	"context"
	"sync"
	"time"
)

// What golang.org/x/sync and x/time do in these cases, by hand: they are no part
// of Go's distribution, and the benchmarks download nothing.

func init() {
	perOp("flight", 1, flight)
	perOp("allow", 1, allow)
	perOp("errgroup", batch, func(n int) time.Duration { return errgroup(n, 0) })
	perOp("errgroup_limit", batch, func(n int) time.Duration { return errgroup(n, 10) })
}

type call struct {
	wg   sync.WaitGroup
	val  any
	err  error
	dups int
}

type flights struct {
	mu sync.Mutex
	m  map[string]*call
}

func (g *flights) do(key string, fn func() (any, error)) (any, error, bool) {
	g.mu.Lock()
	if c, ok := g.m[key]; ok {
		c.dups++
		g.mu.Unlock()
		c.wg.Wait()
		return c.val, c.err, true
	}
	c := new(call)
	c.wg.Add(1)
	g.m[key] = c
	g.mu.Unlock()
	func() {
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			c.wg.Done()
			if g.m[key] == c {
				delete(g.m, key)
			}
		}()
		c.val, c.err = fn()
	}()
	return c.val, c.err, c.dups > 0
}

func flight(n int) time.Duration {
	g := flights{m: map[string]*call{}}
	start := time.Now()
	for range n {
		g.do("key", func() (any, error) { return nil, nil })
	}
	return time.Since(start)
}

type limiter struct {
	mu           sync.Mutex
	limit, burst float64
	tokens       float64
	last, event  time.Time
}

func (l *limiter) allow(now time.Time, n float64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	tokens := min(l.burst, l.tokens+max(0, now.Sub(l.last).Seconds())*l.limit) - n
	if tokens < 0 || n > l.burst {
		return false
	}
	l.last, l.event, l.tokens = now, now, tokens
	return true
}

func allow(n int) time.Duration {
	l := limiter{limit: 1e9, burst: 1 << 60, tokens: 1 << 60, last: time.Now()}
	start := time.Now()
	for range n {
		l.allow(time.Now(), 1)
	}
	took := time.Since(start)
	check(l.allow(time.Now(), 1), true)
	return took
}

type group struct {
	wg     sync.WaitGroup
	sem    chan struct{}
	once   sync.Once
	err    error
	cancel context.CancelCauseFunc
}

func (g *group) start(fn func() error) {
	if g.sem != nil {
		g.sem <- struct{}{}
	}
	g.wg.Add(1)
	go func() {
		defer func() {
			if g.sem != nil {
				<-g.sem
			}
			g.wg.Done()
		}()
		if err := fn(); err != nil {
			g.once.Do(func() { g.err = err; g.cancel(err) })
		}
	}()
}

func errgroup(n, limit int) time.Duration {
	start := time.Now()
	for range n / batch {
		_, cancel := context.WithCancelCause(context.Background())
		g := group{cancel: cancel}
		if limit > 0 {
			g.sem = make(chan struct{}, limit)
		}
		for range batch {
			g.start(func() error { return nil })
		}
		g.wg.Wait()
		g.cancel(g.err)
	}
	return time.Since(start)
}
