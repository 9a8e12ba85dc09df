package main

import (
	"context"
	"time"
)

func init() {
	metrics("ctx_tree", func(n int) map[string]float64 {
		return ctxBuildAndCancel(n, func(i int) int { return (i - 1) / 10 }, false)
	})
	metrics("ctx_done", func(n int) map[string]float64 {
		return ctxBuildAndCancel(n, func(i int) int { return (i - 1) / 10 }, true)
	})
	metrics("ctx_wide", func(n int) map[string]float64 {
		return ctxBuildAndCancel(n, func(i int) int { return 0 }, false)
	})
	metrics("ctx_deep", func(n int) map[string]float64 {
		return ctxBuildAndCancel(n, func(i int) int { return i - 1 }, false)
	})
	perOp("ctx_cancel", 1, ctxCancel)
	perOp("ctx_timeout", 1, ctxTimeout)
	perOp("ctx_err", 1, ctxErr)
}

func ctxBuildAndCancel(n int, parentOf func(i int) int, done bool) map[string]float64 {
	start := time.Now()
	root, cancel := context.WithCancel(context.Background())
	contexts := []context.Context{root}
	for i := 1; i < n; i++ {
		ctx, _ := context.WithCancel(contexts[parentOf(i)]) //nolint: the root's cancel is the one
		contexts = append(contexts, ctx)
		if done {
			ctx.Done()
		}
	}
	built := time.Now()
	cancel()
	end := time.Now()
	ended := 0
	for _, ctx := range contexts {
		if ctx.Err() != nil {
			ended++
		}
	}
	check(ended, n)
	each := func(d time.Duration) float64 { return float64(d) / float64(n) }
	return map[string]float64{"build": each(built.Sub(start)), "cancel": each(end.Sub(built))}
}

func ctxCancel(n int) time.Duration {
	parent, end := context.WithCancel(context.Background())
	defer end()
	start := time.Now()
	for range n {
		_, cancel := context.WithCancel(parent)
		cancel()
	}
	return time.Since(start)
}

func ctxTimeout(n int) time.Duration {
	parent, end := context.WithCancel(context.Background())
	defer end()
	start := time.Now()
	for range n {
		_, cancel := context.WithTimeout(parent, time.Hour)
		cancel()
	}
	return time.Since(start)
}

func ctxErr(n int) time.Duration {
	ctx, end := context.WithCancel(context.Background())
	defer end()
	alive := 0
	start := time.Now()
	for range n {
		if ctx.Err() == nil {
			alive++
		}
	}
	took := time.Since(start)
	check(alive, n)
	return took
}
