package main

import (
	"sync"
	"time"
)

const (
	bufferCap = 128
	many      = 100
)

func init() {
	perOp("unbuffered", 1, unbuffered)
	perOp("buffered", 1, buffered)
	perOp("buffered_iter", 1, bufferedIter)
	perOp("select2", 2, select2)
	perOp("pipeline", 1, pipeline)
	perOp("fan_in", many, fanIn)
	perOp("fan_out", many, fanOut)
}

func unbuffered(n int) time.Duration {
	there, back := make(chan int), make(chan int)
	go func() {
		for range n {
			back <- <-there
		}
	}()
	start := time.Now()
	for i := range n {
		there <- i
		<-back
	}
	return time.Since(start)
}

func buffered(n int) time.Duration {
	ch := make(chan int, bufferCap)
	done := make(chan struct{})
	start := time.Now()
	go func() {
		for i := range n {
			ch <- i
		}
		close(ch)
	}()
	go func() {
		for range n {
			<-ch
		}
		close(done)
	}()
	<-done
	return time.Since(start)
}

func bufferedIter(n int) time.Duration {
	ch := make(chan int, bufferCap)
	done := make(chan struct{})
	start := time.Now()
	go func() {
		for i := range n {
			ch <- i
		}
		close(ch)
	}()
	go func() {
		for range ch {
		}
		close(done)
	}()
	<-done
	return time.Since(start)
}

func select2(n int) time.Duration {
	a, b := make(chan int), make(chan int)
	done := make(chan struct{})
	produce := func(ch chan int) {
		for i := range n / 2 {
			ch <- i
		}
	}
	start := time.Now()
	go produce(a)
	go produce(b)
	go func() {
		for range n {
			select {
			case <-a:
			case <-b:
			}
		}
		close(done)
	}()
	<-done
	return time.Since(start)
}

func pipeline(n int) time.Duration {
	raw, done := make(chan int), make(chan int)
	sum := make(chan int)
	start := time.Now()
	go func() {
		for i := range n {
			raw <- i
		}
		close(raw)
	}()
	go func() {
		for v := range raw {
			done <- v + 1
		}
		close(done)
	}()
	go func() {
		total := 0
		for v := range done {
			total += v
		}
		sum <- total
	}()
	total := <-sum
	took := time.Since(start)
	check(total, n*(n+1)/2)
	return took
}

func fanIn(n int) time.Duration {
	ch := make(chan int)
	var wg sync.WaitGroup
	start := time.Now()
	for range many {
		wg.Go(func() {
			for i := range n / many {
				ch <- i
			}
		})
	}
	wg.Go(func() {
		for range n {
			<-ch
		}
	})
	wg.Wait()
	return time.Since(start)
}

func fanOut(n int) time.Duration {
	ch, counts := make(chan int), make(chan int, many)
	start := time.Now()
	for range many {
		go func() {
			count := 0
			for range ch {
				count++
			}
			counts <- count
		}()
	}
	go func() {
		for i := range n {
			ch <- i
		}
		close(ch)
	}()
	total := 0
	for range many {
		total += <-counts
	}
	took := time.Since(start)
	check(total, n)
	return took
}
