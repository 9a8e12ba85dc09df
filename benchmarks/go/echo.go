package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
)

// loadProgram is native/echo_load.c, which stands beside this program.
func loadProgram() string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return filepath.Join(filepath.Dir(self), "echo_load")
}

func startEcho() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				panic(err)
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 4096)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					if _, err := conn.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

func echoLoad(port string, connections, milliseconds int) map[string]float64 {
	cpu := cpuTime()
	out, err := exec.Command(loadProgram(), port, strconv.Itoa(connections), strconv.Itoa(milliseconds)).Output()
	cpu = cpuTime() - cpu
	if err != nil {
		panic(err)
	}
	var count, seconds, p50, p99, most, all float64
	if _, err := fmt.Sscan(string(out), &count, &seconds, &p50, &p99, &most, &all); err != nil {
		panic(err)
	}
	return map[string]float64{"ns": seconds / count * 1e9, "p50": p50, "p99": p99, "cpu": float64(cpu) / all}
}

func idleConns(n int) map[string]float64 {
	port := startEcho()
	echoLoad(port, 10, 20)
	runtime.GC()
	rss0, tables0 := rss(), pageTables()
	load := exec.Command(loadProgram(), port, strconv.Itoa(n), "0", "idle")
	in, err := load.StdinPipe()
	if err != nil {
		panic(err)
	}
	out, err := load.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := load.Start(); err != nil {
		panic(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil && err != io.EOF {
		panic(err)
	}
	check(line, "answered\n")
	runtime.GC()
	result := map[string]float64{"resident": (rss() - rss0) / float64(n), "tables": (pageTables() - tables0) / float64(n)}
	in.Close()
	load.Wait()
	return result
}

func init() {
	for _, connections := range []int{1, 50, 500, 5000} {
		metrics("echo_"+strconv.Itoa(connections), func(n int) map[string]float64 {
			return echoLoad(startEcho(), connections, n)
		})
	}
	metrics("idle_conns", idleConns)
}
