/* echo_load.c - the load of the echo benchmarks: CONNS connections, on each a request of
 * 64 bytes at a time, the next as soon as the answer has come.
 *
 *   echo_load PORT CONNS MILLISECONDS [idle]
 *
 * It moves to a core other than the one it was started on, connects all, waits for an
 * answer on each, lets a fifth of the time go by, and then measures: it prints the requests answered, the seconds
 * they took, the median, 99th percentile and maximum of their latencies in
 * microseconds, and how many requests there were with those before and after. With `idle` it sends one request on each connection, prints a line when
 * all are answered, and keeps the connections until its standard input ends.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SIZE 64
#define MAXLAT 20000000 /* latencies kept */

typedef struct conn { int fd, got, served; int64_t sent; } conn;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "echo_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void other_core(void)
{
    cpu_set_t was, all;
    CPU_ZERO(&all);
    for (int i = 0; i < CPU_SETSIZE; i++) CPU_SET(i, &all);
    if (sched_getaffinity(0, sizeof was, &was) < 0 || sched_setaffinity(0, sizeof all, &all) < 0) return;
    sched_getaffinity(0, sizeof all, &all);
    if (CPU_COUNT(&was) > 1 || CPU_COUNT(&all) < 2) return;
    CPU_XOR(&all, &all, &was);
    sched_setaffinity(0, sizeof all, &all);
}

static int dial(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0) die("socket");
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) die("fcntl");
    return fd;
}

static void request(conn *c)
{
    static const char text[SIZE] = "what is sent comes back";
    c->got = 0;
    c->sent = now();
    if (send(c->fd, text, SIZE, MSG_NOSIGNAL) != SIZE) die("send");
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    int port = atoi(argv[1]), n = atoi(argv[2]);
    int idle = argc > 4 && strcmp(argv[4], "idle") == 0;
    int64_t length = (int64_t)atoi(argv[3]) * 1000000;
    struct rlimit lim;
    getrlimit(RLIMIT_NOFILE, &lim);
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
    other_core();
    conn *cs = calloc((size_t)n, sizeof *cs);
    float *lat = malloc(MAXLAT * sizeof *lat);
    int ep = epoll_create1(0);
    if (!cs || !lat || ep < 0) die("no memory");
    for (int i = 0; i < n; i++) {
        cs[i].fd = dial(port);
        struct epoll_event e = { .events = EPOLLIN, .data.ptr = &cs[i] };
        if (epoll_ctl(ep, EPOLL_CTL_ADD, cs[i].fd, &e) < 0) die("epoll_ctl");
    }
    int64_t begin = INT64_MAX, end = INT64_MAX, count = 0;
    int served = 0, left = n;
    long long all = 0;
    for (int i = 0; i < n; i++) request(&cs[i]);
    for (;;) {
        struct epoll_event ev[256];
        int k = epoll_wait(ep, ev, 256, 10000);
        if (k <= 0) die("epoll_wait: no answer");
        for (int i = 0; i < k; i++) {
            conn *c = ev[i].data.ptr;
            char buf[SIZE];
            ssize_t r = recv(c->fd, buf, sizeof buf, 0);
            if (r <= 0) die("recv");
            if ((c->got += (int)r) < SIZE) continue;
            int64_t t = now();
            if (!c->served++ && ++served == n) {
                if (idle) goto answered;
                begin = t + length / 5;
                end = begin + length;
            }
            if (idle) continue;
            if (t >= end) { /* no more requests, but all answers: nothing is reset */
                if (--left == 0) goto done;
                continue;
            }
            if (c->sent >= begin && count < MAXLAT) lat[count++] = (float)(t - c->sent) / 1000;
            request(c);
        }
    }
answered:
    printf("answered\n");
    fflush(stdout);
    while (getchar() != EOF) {}
    return 0;
done:
    if (!count) die("no time to measure");
    qsort(lat, (size_t)count, sizeof *lat, by_size);
    for (int i = 0; i < n; i++) all += cs[i].served;
    printf("%lld %.6f %.1f %.1f %.1f %lld\n", (long long)count, (double)length / 1e9, (double)lat[count / 2],
           (double)lat[count * 99 / 100], (double)lat[count - 1], all);
    return 0;
}
