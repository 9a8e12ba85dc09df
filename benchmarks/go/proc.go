package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

func kib(path, key string) float64 {
	file, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), key); ok {
			var n float64
			if _, err := fmt.Sscan(rest, &n); err != nil {
				panic(err)
			}
			return n * 1024
		}
	}
	panic(key + " is not in " + path)
}

// rss is the resident memory in bytes, as _proc.rss.
func rss() float64 { return kib("/proc/self/smaps_rollup", "Rss:") }

// pageTables is the memory of the page tables, as _proc.page_tables.
func pageTables() float64 { return kib("/proc/self/status", "VmPTE:") }

// cpuTime is the user and system time of the process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
