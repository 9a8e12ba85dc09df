package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// wrk is ../_wrk.py, two directories above this program's.
func wrk(port, seconds int) (requests, took, p50, p99 float64) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	script := filepath.Join(filepath.Dir(self), "..", "..", "benchmarks", "_wrk.py")
	out, err := exec.Command("python3", script, strconv.Itoa(port), "64", strconv.Itoa(seconds)).Output()
	if err != nil {
		panic(err)
	}
	var errors float64
	if _, err := fmt.Sscan(string(out), &requests, &took, &p50, &p99, &errors); err != nil {
		panic(err)
	}
	check(errors, 0)
	return
}

func httpHello(seconds int) map[string]float64 {
	body := []byte("Hello, World!")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}))
	port := listener.Addr().(*net.TCPAddr).Port
	wrk(port, 1)
	cpu := cpuTime()
	requests, took, p50, p99 := wrk(port, seconds)
	cpu = cpuTime() - cpu
	return map[string]float64{"ns": took / requests * 1e9, "p50": p50, "p99": p99, "cpu": float64(cpu) / requests}
}

func init() {
	metrics("http_hello", httpHello)
}
